"""Say what is wrong with a model repository before a server does.

    python -m repository_check model_repository/

Every error here is a refusal of Triton's, seen with release 24.10; what the server
accepts and a user hardly wants is a warning. Rare features are left to the server.
"""

import argparse
import ast
import difflib
import json
import os
import re
import sys
from bisect import bisect
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from urllib.parse import quote

import onnx
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from onnx import TensorProto
from tritonclient.grpc import model_config_pb2 as schema

from repository_check.servers import (
    ServerFeatures,
    find_too_new,
    gpu_count,
    server_features,
)

__all__ = ["ServerFeatures", "check", "gpu_count", "server_features"]

ERROR, WARNING = "error", "warning"
DOCS = (
    "https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/"
    "user_guide/"
)
PYTHON_BACKEND = "https://github.com/triton-inference-server/python_backend"

# Each platform with its backend, and the file that a backend looks for.
PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime",
    "tensorrt_plan": "tensorrt",
    "pytorch_libtorch": "pytorch",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
    "ensemble": "",
}
# Triton looks for them in this order where a config names no backend.
INFERRED = {
    "model.savedmodel": "tensorflow",
    "model.graphdef": "tensorflow",
    "model.plan": "tensorrt",
    "model.onnx": "onnxruntime",
    "model.xml": "openvino",
    "model.pt": "pytorch",
    "model.py": "python",
}
FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan", "python": "model.py"}
TYPES = {
    TensorProto.BOOL: "TYPE_BOOL",
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.UINT16: "TYPE_UINT16",
    TensorProto.UINT32: "TYPE_UINT32",
    TensorProto.UINT64: "TYPE_UINT64",
    TensorProto.INT8: "TYPE_INT8",
    TensorProto.INT16: "TYPE_INT16",
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.BFLOAT16: "TYPE_BF16",
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.DOUBLE: "TYPE_FP64",
    TensorProto.STRING: "TYPE_STRING",
}
BYTES = {"BOOL": 1, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "FP16": 2}
BYTES |= {"BF16": 2, "UINT32": 4, "INT32": 4, "FP32": 4}
BYTES |= {"UINT64": 8, "INT64": 8, "FP64": 8}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        severity: ``error`` where the server refuses the model, else ``warning``.
        model: its folder's name.
        file: path within the repository.
        line: in that file, from 1; None where no line is to blame.
        field: such as ``input[0].dims``; "" where it is not about a field.
        found, expected, fix: in words.
        link: the part of Triton's documentation.
    """

    severity: str
    model: str
    file: str
    line: int | None
    field: str
    found: str
    expected: str
    fix: str
    link: str

    def __str__(self):
        where = f"{self.file}:{self.line}" if self.line else self.file
        field = f" {self.field}" if self.field else ""
        return (
            f"{self.severity}: {where}:{field} found {self.found}, "
            f"expected {self.expected}. {self.fix}"
        )


# ------------------------------------------------------------- reading a config

_TOKEN = re.compile(
    r"""#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[][{}<>:,;]|[^][\s{}<>:,;"'#]+"""
)


def _locate(text):
    """The line of each field, by its path, such as ``("input", 0, "dims", 0)``.

    protobuf's parser keeps no positions. The text has passed that parser.
    """
    ends = [match.end() for match in re.finditer("\n", text)]
    tokens = [
        (match.group(), bisect(ends, match.start()) + 1)
        for match in _TOKEN.finditer(text)
        if not match.group().startswith("#")
    ]
    lines, i = {}, 0

    def message(path):
        nonlocal i
        counts = Counter()
        while i < len(tokens) and tokens[i][0] not in "}>":
            name, line = tokens[i]
            i += 1
            if name in ",;":
                continue
            while i < len(tokens) and tokens[i][0] == ":":
                i += 1
            several = tokens[i][0] == "["
            i += several
            while True:
                where = (*path, name, counts[name])
                counts[name] += 1
                lines[where] = tokens[i][1] if several else line
                if tokens[i][0] in "{<":
                    i += 1
                    message(where)
                quoted = tokens[i][0][0] in "\"'"
                i += tokens[i][0] != "]"
                while quoted and i < len(tokens) and tokens[i][0][0] in "\"'":
                    i += 1  # strings side by side are one
                if not several:
                    break
                while tokens[i][0] == ",":
                    i += 1
                if tokens[i][0] == "]":
                    i += 1
                    break

    message(())
    return lines


def _field(path):
    """``("input", 0, "dims")`` as ``input[0].dims``."""
    text = "".join(f"[{x}]" if isinstance(x, int) else f".{x}" for x in path)
    return text.lstrip(".")


def _nearest(message):
    """The field or value that someone may have meant, from protobuf's complaint."""
    names = []
    if wrong := re.search(r'no field named "(\w+)"', message):
        owner = re.search(r'Message type "inference\.([\w.]+)"', message)[1]
        known = schema
        for part in owner.split("."):
            known = getattr(known, part, None)
        names = [field.name for field in known.DESCRIPTOR.fields] if known else []
    elif wrong := re.search(r"no value named (\w+)", message):
        enum = re.search(r'Enum type "inference\.([\w.]+)"', message)[1].split(".")
        owner = schema.DESCRIPTOR.message_types_by_name.get(enum[0])
        values = (
            owner.enum_types_by_name[enum[1]].values
            if owner
            else schema.DESCRIPTOR.enum_types_by_name[enum[0]].values
        )
        names = [value.name for value in values]
        if f"TYPE_{wrong[1]}" in names:
            return f"TYPE_{wrong[1]}"
    close = difflib.get_close_matches(wrong[1], names, 1) if wrong else []
    return close[0] if close else ""


# -------------------------------------------------------------------- one model


class _Model:
    """A model's folder, read as far as it can be read; collects findings."""

    def __init__(self, folder, server):
        self.folder, self.name, self.server = folder, folder.name, server
        self.findings, self.lines, self.readable = [], {}, True
        self.config = schema.ModelConfig()
        self.has_config = (folder / "config.pbtxt").exists()
        if self.has_config:
            self._read()

    def _read(self):
        path = self.folder / "config.pbtxt"
        try:
            # The server takes the file's bytes: any are allowed in a comment
            text = path.read_bytes().decode("utf-8", "surrogateescape")
        except OSError as error:
            self.readable = False
            self.add(
                ERROR,
                (),
                error.strerror.lower(),
                "a text file",
                "Make config.pbtxt a file that the server's user can read",
            )
            return
        try:
            text_format.Parse(text, self.config)
        except (text_format.ParseError, DecodeError, ValueError) as error:
            self.readable = False
            at = re.match(r"(\d+):(\d+) : (.*)", str(error), re.DOTALL)
            what = at[3] if at else str(error)
            near = _nearest(what)
            if text.startswith("\ufeff"):
                what = "a byte order mark"
            what = re.sub(r"^'.*?': ", "", what, flags=re.DOTALL)
            what = ascii(what).strip("\"'").replace('\\"', '"').replace("\\'", "'")
            self.add(
                ERROR,
                (),
                what.rstrip("."),
                "the text form of Triton's ModelConfig",
                f"Did you mean {near}?" if near else "See the line and column",
                line=int(at[1]) if at else None,
                field=f"column {at[2]}" if at else "",
            )
            return
        try:
            self.lines = _locate(text)
        except (IndexError, RecursionError):
            pass  # a text that this walk does not follow: findings without lines

    def add(
        self, severity, path, found, expected, fix, link="", line=None, **more
    ):  # fmt: skip
        """Note a finding about a field of the config, or about another file."""
        exact = _indexed(path)
        while exact and exact not in self.lines:  # what is missing: where it should be
            exact = exact[:-2]
        file = more.get("file", f"{self.name}/config.pbtxt")
        page = link or "model_configuration.html"
        self.findings.append(
            Finding(
                severity,
                self.name,
                file,
                line or self.lines.get(exact),
                more.get("field", _field(path)),
                found,
                expected,
                fix,
                page if page.startswith("http") else DOCS + page,
            )
        )

    @property
    def is_ensemble(self):
        config = self.config
        return config.platform == "ensemble" or config.HasField("ensemble_scheduling")

    @cached_property
    def numbers(self):
        """Versions that the folder holds, in order."""
        folders = [x.name for x in self.folder.iterdir() if x.is_dir()]
        return sorted(int(x) for x in folders if re.fullmatch(r"0|[1-9]\d*", x))

    @cached_property
    def served(self):
        """Versions that the policy chooses."""
        policy = self.config.version_policy
        if policy.HasField("all"):
            return self.numbers
        if policy.HasField("specific"):
            return [x for x in self.numbers if x in policy.specific.versions]
        count = policy.latest.num_versions if policy.HasField("latest") else 1
        return self.numbers[-count:] if count else []

    @cached_property
    def backend(self):
        """Name of the backend as Triton finds it; "" where it cannot."""
        config = self.config
        if config.backend or config.platform:
            return config.backend or PLATFORMS.get(config.platform, "")
        if config.default_model_filename in INFERRED:
            return INFERRED[config.default_model_filename]
        for version in self.numbers[:1]:
            for file, backend in INFERRED.items():
                if (self.folder / str(version) / file).exists():
                    return backend
        return self.name.partition(".")[2]  # a folder may be called model.BACKEND

    @cached_property
    def completes_itself(self):
        """Whether the backend may fill in tensors that nobody but it knows."""
        if self.is_ensemble or self.backend in ("", "onnxruntime"):
            return False
        if self.backend != "python":
            return True
        return any(
            b"auto_complete_config" in self.file(x).read_bytes()
            for x in self.served
            if self.file(x).is_file()
        )

    def file(self, version):
        """Path of the model file of a version."""
        name = self.config.default_model_filename or FILES.get(self.backend, "")
        return self.folder / str(version) / name

    @cached_property
    def graph(self):
        """The newest served ONNX file without its weights; None where unreadable."""
        for version in self.served[-1:] if self.backend == "onnxruntime" else ():
            try:
                model = onnx.load(self.file(version), load_external_data=False)
            except (OSError, DecodeError):
                return None
            return model if model.graph.node else None

    @cached_property
    def max_batch_size(self):
        """That of the config, or what auto-complete makes of it: 4 by default."""
        config = self.config
        if config.max_batch_size or not self.graph or (config.input and config.output):
            return config.max_batch_size
        tensors = [_onnx_tensors(self.graph, kind) for kind in ("input", "output")]
        shapes = [shape for each in tensors for _, shape in each.values()]
        return 4 if all(not x or x[0] == -1 for x in shapes) else 0

    def tensors(self, kind):
        """Inputs or outputs: a dict of name and (type, whole shape).

        From the config, and from the ONNX file where that leaves them to Triton.
        """
        if self.completes_itself and self.backend == "python":
            return None
        entries = getattr(self.config, kind)
        batch = [-1] * (self.max_batch_size > 0)
        if entries:
            return {
                x.name: (
                    _type_name(x.data_type),
                    None if x.HasField("reshape") else [*batch, *x.dims],
                )
                for x in entries
            }
        return _onnx_tensors(self.graph, kind) if self.graph else None


def _type_name(number):
    known = schema.DataType.values()
    return schema.DataType.Name(number) if number in known else f"type {number}"


def _indexed(path):
    """A path in which every field has its index, 0 where none is given."""
    exact = []
    for i, part in enumerate(path):
        exact.append(part)
        last = i + 1 == len(path) or isinstance(path[i + 1], str)
        if isinstance(part, str) and last:
            exact.append(0)
    return tuple(exact)


def _onnx_tensors(model, kind):
    """As ``_Model.tensors``; the type is None for what is no tensor, a map say."""
    stored = {x.name for x in model.graph.initializer}
    return {
        x.name: (
            TYPES.get(x.type.tensor_type.elem_type, "a type that Triton lacks")
            if x.type.HasField("tensor_type")
            else None,
            [
                d.dim_value if d.HasField("dim_value") else -1
                for d in x.type.tensor_type.shape.dim
            ]
            if x.type.tensor_type.HasField("shape")
            else None,
        )
        for x in getattr(model.graph, kind)
        if x.name not in stored
    }


# -------------------------------------------------------------------- the rules
# Each takes a model and adds findings; the order is that of a reader's repair.


def _check_names(model):
    if model.config.name not in ("", model.name):
        model.add(
            ERROR,
            ("name",),
            f'"{model.config.name}"',
            f'"{model.name}", the name of the folder',
            "Rename one of the two, or leave the field out",
            "model_configuration.html#name-platform-and-backend",
        )
    if quote(model.name) != model.name:
        model.add(
            WARNING,
            (),
            f"the folder name {model.name!r}",
            "letters, digits, '_', '-' and '.' only",
            "Rename the folder: over HTTP this model cannot be loaded or asked",
            "model_repository.html#repository-layout",
            file=model.name,
        )


def _check_versions(model):
    link = "model_repository.html#model-versions"
    if not model.numbers:
        model.add(
            ERROR,
            (),
            "no folder for a version",
            f"{model.name}/1/",
            "Make a folder named 1"
            + (", empty for an ensemble" if model.is_ensemble else " for the file"),
            link,
            file=model.name,
        )
    elif not model.served:
        model.add(
            ERROR,
            ("version_policy",),
            f"a policy that chooses none of the versions {_list(model.numbers)}",
            "at least one version that is there",
            "Name a version that is there, or leave the field out for the newest",
            "model_configuration.html#version-policy",
        )
    wanted = model.config.version_policy.specific.versions
    if model.served and (absent := sorted({*wanted} - {*model.numbers})):
        model.add(
            WARNING,
            ("version_policy",),
            f"the versions {_list(absent)}, which are not there",
            f"some of {_list(model.numbers)}",
            "Remove them, or add their folders",
            "model_configuration.html#version-policy",
        )
    for folder in model.folder.iterdir():
        number = re.fullmatch(r"0|[1-9]\d*", folder.name)
        if folder.is_dir() and not number and any(folder.glob("model.*")):
            model.add(
                WARNING,
                (),
                f"a model file in {folder.name}/",
                "a folder named by a whole number without leading zeros",
                "Triton ignores this folder: rename or remove it",
                link,
                file=f"{model.name}/{folder.name}",
            )


def _check_backend(model):
    config, known = model.config, model.server.backends
    link = "model_configuration.html#name-platform-and-backend"
    if model.is_ensemble:
        return
    meant = PLATFORMS.get(config.backend)
    if meant:
        model.add(
            ERROR,
            ("backend",),
            f'"{config.backend}", which is a platform',
            f'"{meant}"',
            f'Write backend: "{meant}"',
            link,
        )
    elif (
        config.platform not in ("", *PLATFORMS)
        and not config.backend
        and not config.default_model_filename
    ):
        near = {x: y for y, x in PLATFORMS.items()}.get(config.platform)
        model.add(
            ERROR,
            ("platform",),
            f'"{config.platform}"' + (", which is a backend" if near else ""),
            f'"{near}"' if near else f"one of {_list(PLATFORMS)}",
            f'Write backend: "{config.platform}" instead' if near else "Use backend",
            link,
        )
    elif (
        config.platform
        and config.backend in PLATFORMS.values()
        and config.backend
        and PLATFORMS.get(config.platform) != config.backend
    ):
        model.add(
            ERROR,
            ("platform",),
            f'"{config.platform}" with backend "{config.backend}"',
            "a platform and a backend that belong together",
            "Leave platform out",
            link,
        )
    elif not model.backend and model.served:
        model.add(
            ERROR,
            (),
            "no backend, and no file that tells",
            f"a backend, or a file named {_list(INFERRED)}",
            'Write backend: "..." into config.pbtxt',
            link,
            file=f"{model.name}/config.pbtxt" if model.has_config else model.name,
        )
    elif known is not None and model.backend and model.backend not in known:
        model.add(
            ERROR,
            ("backend",),
            f'"{model.backend}"',
            f"one of this server's: {_list(sorted(known))}",
            "Correct the name, or use a server that has this backend",
            link,
        )


def _check_files(model):
    if model.is_ensemble or model.backend not in FILES:
        return
    for version in model.served:
        path = model.file(version)
        if model.config.cc_model_filenames:
            return
        place = f"{model.name}/{version}/{path.name}"
        if not path.exists():
            near = [x.name for x in path.parent.iterdir() if x.suffix == path.suffix]
            model.add(
                ERROR,
                ("default_model_filename",)
                if model.config.default_model_filename
                else (),
                "no such file" + (f"; there is {_list(near)}" if near else ""),
                place,
                "Put the file there, or name another in default_model_filename",
                "model_repository.html#model-files",
                **({} if model.config.default_model_filename else {"file": place}),
            )
        elif path.is_file():
            _READERS.get(model.backend, lambda *_: None)(model, path, place)


def _read_onnx(model, path, place):
    def bad(found, expected, fix, severity=ERROR):
        link = "model_repository.html#onnx-models"
        model.add(severity, (), found, expected, fix, link, file=place)

    again = "Export it again, or download it again and look at its first bytes"
    try:
        loaded = onnx.load(path, load_external_data=False)
    except OSError as error:
        return bad(error.strerror.lower(), "a file that can be read", again)
    except DecodeError:
        found = f"a file that is not ONNX; it begins with {path.read_bytes()[:12]!r}"
        return bad(found, "an ONNX file", again)
    if not loaded.graph.node and not loaded.graph.output:
        return bad("a file without a graph", "an ONNX file", again)
    for file in sorted(
        {
            entry.value
            for tensor in loaded.graph.initializer
            for entry in tensor.external_data
            if entry.key == "location" and not (path.parent / entry.value).exists()
        }
    ):
        bad(
            f"weights that are said to be in {file}, which is not there",
            f"{file} beside {path.name}",
            "Copy that file too, or export with external_data=False",
        )
    for what, found, highest in find_too_new(loaded, model.server):
        bad(
            f"{what} {found}",
            f"at most {highest}, for ONNX Runtime {model.server.onnxruntime}",
            "Export with a lower opset_version, or use a newer server",
        )


def _read_plan(model, path, place):
    with path.open("rb") as file:
        head = file.read(4)
    if head == b"vtrt":
        found = "an engine of TensorRT-RTX"
    elif not head or head[:1] in b"<{" or head[:1].isspace():
        found = f"a file that begins with {head!r}"
    else:
        return
    model.add(
        ERROR,
        (),
        found,
        "an engine that TensorRT built for this server's version and GPU",
        "Build it with tensorrt, on the GPU that will run it",
        "model_repository.html#tensorrt-models",
        file=place,
    )


def _read_python(model, path, place):
    def note(severity, found, expected, fix, line=None):
        link = PYTHON_BACKEND + "#usage"
        model.add(severity, (), found, expected, fix, link, line, file=place)

    if "EXECUTION_ENV_PATH" in model.config.parameters:
        return  # another Python may know another syntax
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        return note(ERROR, str(error), "Python", "Correct the syntax", line)
    defined, starred = {}, False
    for node in ast.walk(tree):  # perhaps below an if or a try
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            defined.setdefault(node.name, node)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            starred |= any(x.name == "*" for x in node.names)
            defined |= {x.asname or x.name: node for x in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined[node.id] = node
    found = defined.get("TritonPythonModel")
    if not found and not starred:
        note(
            ERROR,
            f"the names {_list(sorted(defined))}" if defined else "no class",
            "a class TritonPythonModel",
            "Name the class TritonPythonModel: the backend looks for that name",
        )
    elif isinstance(found, ast.ClassDef) and not found.bases:
        methods = {x.name for x in found.body if hasattr(x, "name")}
        if "execute" not in methods:
            note(
                WARNING,
                f"the methods {_list(sorted(methods))}" if methods else "no methods",
                "a method execute(self, requests)",
                "Add it: the model loads without, and every request fails",
                found.lineno,
            )


_READERS = {"onnxruntime": _read_onnx, "tensorrt": _read_plan, "python": _read_python}


def _check_tensors(model):
    config = model.config
    link = "model_configuration.html#inputs-and-outputs"
    if config.max_batch_size < 0:
        model.add(
            ERROR,
            ("max_batch_size",),
            str(config.max_batch_size),
            "0, or the largest batch",
            "0 means that the model has no batch axis of Triton's",
            "model_configuration.html#maximum-batch-size",
        )
    for kind in "input", "output":
        entries = getattr(config, kind)
        for i, entry in enumerate(entries):
            where = (kind, i)
            for field, missing in (
                ("name", not entry.name),
                ("data_type", not entry.data_type),
                ("dims", not entry.dims),
            ):
                if missing and (field == "name" or not model.completes_itself):
                    model.add(
                        ERROR,
                        where,
                        f"no {field}",
                        f"{field} of the tensor",
                        f"Add {field}, as the model file has it",
                        link,
                    )
            if any(x == 0 or x < -1 for x in entry.dims):
                model.add(
                    ERROR,
                    (*where, "dims"),
                    str(list(entry.dims)),
                    "sizes from 1 on, or -1 for one that varies",
                    "Write -1 where a size is not fixed",
                    link,
                )
            shape = entry.reshape.shape
            if entry.HasField("reshape") and min([*entry.dims, *shape], default=0) > 0:
                if prod(entry.dims) != prod(shape):
                    model.add(
                        ERROR,
                        (*where, "reshape"),
                        f"{list(shape)} for dims {list(entry.dims)}",
                        "as many elements in both",
                        "Correct one of the two",
                        "model_configuration.html#reshape",
                    )
        counts = Counter(x.name for x in entries)
        for name in [x for x, count in counts.items() if count > 1 and x]:
            model.add(
                WARNING,
                (kind, [x.name for x in entries].index(name)),
                f'"{name}" {counts[name]} times',
                "each tensor once",
                "Remove or rename all but one",
                link,
            )
    for i, entry in enumerate(config.output):
        if entry.label_filename:
            _check_labels(model, i, entry)


def _check_labels(model, i, entry):
    where = ("output", i, "label_filename")
    link = "model_configuration.html#inputs-and-outputs"
    path = model.folder / entry.label_filename
    if not path.is_file():
        model.add(
            ERROR,
            where,
            f'"{entry.label_filename}", which is not there',
            f"{model.name}/{entry.label_filename}, beside config.pbtxt",
            "Put the file there, one label a line, or leave the field out",
            link,
        )
        return
    if len([x for x in entry.dims if x != 1]) > 1:
        model.add(
            WARNING,
            where,
            f"labels for an output of dims {list(entry.dims)}",
            "an output with one axis, the classes",
            "Remove label_filename, or flatten the output",
            link,
        )
    elif -1 not in entry.dims:
        count = len(path.read_bytes().splitlines())
        if count != prod(entry.dims):
            model.add(
                WARNING,
                where,
                f"{count} labels",
                f"{prod(entry.dims)}, one for each class",
                "Compare the file with the model's classes",
                link,
            )


def _check_against_onnx(model):
    """The words of the C++ backend for these are in tests/."""
    config, graph = model.config, model.graph
    # Inputs that the server makes itself are not in the config's list
    made = config.HasField("sequence_batching") or config.batch_input
    if not graph or config.max_batch_size < 0 or made:
        return
    batches = model.max_batch_size > 0
    link = "model_configuration.html#inputs-and-outputs"
    stored = {x.name for x in graph.graph.initializer}
    for kind in "input", "output":
        provided = _onnx_tensors(graph, kind)
        entries = getattr(config, kind)
        required = [x for x in entries if not (kind == "input" and x.optional)]
        if not entries:
            continue  # Triton takes them from the file
        if kind == "input" and len(required) != len(provided):
            model.add(
                ERROR,
                ("input",),
                f"{len(required)} inputs: {_list(x.name for x in required)}",
                f"{len(provided)}: {_list(provided)}, as in the ONNX file",
                "List each of the file's inputs once",
                link,
            )
            continue
        for i, entry in enumerate(entries):
            if not _is_complete(entry) or (kind == "input" and entry.name in stored):
                continue
            if entry.name not in provided:
                model.add(
                    ERROR,
                    (kind, i, "name"),
                    f'"{entry.name}"',
                    f"one of the ONNX file's: {_list(provided)}",
                    "Use the name in the file",
                    link,
                )
                continue
            if None in provided[entry.name]:
                continue
            if batches and provided[entry.name][1][:1] != [-1]:
                model.add(
                    ERROR,
                    ("max_batch_size",),
                    f"{config.max_batch_size}, where {entry.name!r} is "
                    f"{provided[entry.name][1]} in the ONNX file",
                    "0, since the file's first axis is no free batch",
                    "Export with a dynamic batch, or write max_batch_size: 0 and all "
                    "dims",
                    "model_configuration.html#maximum-batch-size",
                )
                return
            _compare(model, kind, i, entry, *provided[entry.name], batches)


def _is_complete(entry):
    """Whether there is something to compare; what is missing has a finding."""
    sizes = [*entry.dims]
    return entry.name and entry.data_type and sizes and min(sizes) >= -1 and all(sizes)


def _compare(model, kind, i, entry, type_name, shape, batches):
    """One entry of the config with the tensor of the ONNX file."""
    if _type_name(entry.data_type) != type_name:
        model.add(
            ERROR,
            (kind, i, "data_type"),
            _type_name(entry.data_type),
            f"{type_name}, as in the ONNX file",
            f"Write data_type: {type_name}",
            "model_configuration.html#datatypes",
        )
    dims = list(entry.reshape.shape if entry.HasField("reshape") else entry.dims)
    own = shape[batches:]
    if len(dims) != len(own) or any(
        b not in (a, -1)
        for a, b in zip(dims, own)  # what is free may be inferred
    ):
        holds_batch = batches and len(dims) == len(own) + 1 and dims[1:] == own
        model.add(
            ERROR,
            (kind, i, "dims"),
            f"{dims}" + (", which contain the batch" if holds_batch else ""),
            f"{own}" + (" (without the batch)" if batches else ""),
            f"Write dims: {own}",
            "model_configuration.html#maximum-batch-size",
        )


def _check_instances(model):
    gpus = model.server.gpus
    link = "model_configuration.html#instance-groups"
    kinds = schema.ModelInstanceGroup
    for i, group in enumerate(model.config.instance_group):
        if group.kind not in kinds.Kind.values():
            continue
        kind = kinds.Kind.Name(group.kind)
        on_cpu = group.kind == kinds.KIND_CPU or (
            group.kind == kinds.KIND_AUTO and gpus == 0
        )
        absent = [x for x in group.gpus if gpus and x >= gpus]
        if group.gpus and on_cpu:
            model.add(
                ERROR,
                ("instance_group", i, "gpus"),
                f"GPUs {_list(group.gpus)} for {kind}"
                + (" without a GPU" if group.kind != kinds.KIND_CPU else ""),
                "no gpus on the CPU",
                "Remove gpus, or use KIND_GPU on a machine with a GPU",
                link,
            )
        elif group.kind == kinds.KIND_GPU and gpus == 0:
            model.add(
                ERROR,
                ("instance_group", i),
                "KIND_GPU on a machine without a GPU",
                "KIND_CPU, or KIND_AUTO for either",
                "Write kind: KIND_AUTO, or serve it where there is a GPU",
                link,
            )
        elif absent:
            model.add(
                ERROR,
                ("instance_group", i, "gpus"),
                f"GPU {_list(absent)}",
                f"0 to {gpus - 1}, the GPUs of this machine",
                "Remove what is not there",
                link,
            )


def _check_batcher(model):
    config = model.config
    if not config.HasField("dynamic_batching"):
        return
    batcher, most = config.dynamic_batching, config.max_batch_size
    link = "batcher.html#dynamic-batcher"
    where = ("dynamic_batching",)
    if not most and config.input:
        model.add(
            WARNING,
            where,
            "a dynamic batcher with max_batch_size: 0",
            "max_batch_size above 0",
            "Nothing is ever batched: raise max_batch_size, and leave the batch out "
            "of dims",
            link,
        )
    for i, size in enumerate(batcher.preferred_batch_size):
        if not 1 <= size <= most:  # compared before auto-complete
            model.add(
                ERROR,
                (*where, "preferred_batch_size", i),
                str(size),
                f"1 to max_batch_size, which is {most}" + " here" * (not most),
                "Leave the field out: the batcher takes what waits"
                if most
                else "Set max_batch_size: the size is compared before auto-complete",
                link,
            )
    levels, default = batcher.priority_levels, batcher.default_priority_level
    if levels and not 1 <= default <= levels:
        model.add(
            ERROR,
            where,
            f"default_priority_level {default}",
            f"1 to priority_levels, which is {levels}",
            "Set default_priority_level",
            "batcher.html#priority-levels",
        )


def _check_warmup(model):
    graph = model.graph  # what the config has wrong is said once
    inputs = _onnx_tensors(graph, "input") if graph else model.tensors("input")
    reshaped = {x.name for x in model.config.input if x.HasField("reshape")}
    if not inputs or model.is_ensemble or model.config.HasField("sequence_batching"):
        return
    optional = {x.name for x in model.config.input if x.optional}
    most = model.max_batch_size
    for i, sample in enumerate(model.config.model_warmup):

        def bad(found, expected, fix, field=(), i=i):
            link = "model_configuration.html#model-warmup"
            model.add(ERROR, ("model_warmup", i, *field), found, expected, fix, link)

        if 0 < most < sample.batch_size:
            bad(
                f"a batch of {sample.batch_size}",
                f"at most max_batch_size, which is {most}",
                "Lower batch_size",
            )
        unknown = sorted({*sample.inputs} - {*inputs})
        absent = sorted({*inputs} - {*sample.inputs} - optional)
        if sample.batch_size and (unknown or absent):
            bad(
                f"the inputs {_list(sorted(sample.inputs))}"
                if sample.inputs
                else "no inputs",
                f"{_list(inputs)}, those of the model",
                "Give each input of the model a value, under its own name",
            )
        for name in sorted({*sample.inputs} & {*inputs} - reshaped):
            _check_sample(model, name, sample.inputs[name], inputs[name], bad, most > 0)


def _check_sample(model, name, value, tensor, bad, batches):
    type_name, shape = tensor
    if shape is None:
        return
    dims, own = list(value.dims), shape[batches:]
    given = _type_name(value.data_type)
    if given != type_name:
        bad(f"{given} for {name!r}", type_name, f"Write data_type: {type_name}")
    if min(dims, default=1) < 1:
        bad(f"dims {dims} for {name!r}", "a size for each axis", "Choose sizes")
    elif len(dims) != len(own) or any(b not in (-1, a) for a, b in zip(dims, own)):
        bad(f"dims {dims} for {name!r}", f"{own}, without the batch", "Correct dims")
    elif not value.WhichOneof("input_data_type"):
        bad(
            f"no data for {name!r}",
            "zero_data, random_data or input_data_file",
            "Write zero_data: true",
        )
    elif value.WhichOneof("input_data_type") == "input_data_file":
        path = model.folder / "warmup" / value.input_data_file
        size = prod(dims) * BYTES.get(given.removeprefix("TYPE_"), 0)
        if not path.is_file():
            bad(
                f'"{value.input_data_file}", which is not there',
                f"{model.name}/warmup/{value.input_data_file}",
                "Put the file there",
            )
        elif path.stat().st_size < size:
            bad(
                f"{path.stat().st_size} bytes in {path.name}",
                f"{size} for {given} of {dims}",
                "Write the whole tensor, in row-major order",
            )


def _check_cache(model):
    if model.config.response_cache.enable and model.server.cache is False:
        model.add(
            WARNING,
            ("response_cache",),
            "a response cache for the model and none in the server",
            "a server that was started with --cache-config",
            "Start it with --cache-config=local,size=1048576, or remove the field",
            "response_cache.html",
        )


_RULES = (
    _check_names,
    _check_versions,
    _check_backend,
    _check_files,
    _check_tensors,
    _check_against_onnx,
    _check_instances,
    _check_batcher,
    _check_warmup,
    _check_cache,
)

# -------------------------------------------------------------------- ensembles


def _check_ensemble(model, models):
    config = model.config
    steps = config.ensemble_scheduling.step
    root = ("ensemble_scheduling",)

    def bad(path, found, expected, fix):
        model.add(ERROR, path, found, expected, fix, "ensemble_models.html")

    if config.backend or config.platform != "ensemble":
        bad(
            ("backend",) if config.backend else (),
            f'platform "{config.platform}" and backend "{config.backend}"',
            'platform: "ensemble" and no backend',
            'Write platform: "ensemble" alone',
        )
    if config.instance_group:
        bad(
            ("instance_group",),
            "instances for an ensemble",
            "none: its models have theirs",
            "Remove instance_group",
        )
    if config.model_warmup:
        bad(
            ("model_warmup",),
            "a warm-up for an ensemble",
            "none: its models have theirs",
            "Remove model_warmup",
        )
    if not steps:
        bad(root, "no step", "a step for each model", "Write ensemble_scheduling")
    elif all(step.input_map and step.output_map for step in steps):
        _check_connections(steps, config, bad, root)
    for i, step in enumerate(steps):
        _check_step(model, models, i, step, bad)


def _check_connections(steps, config, bad, root):
    """Whether each tensor is made once and used, and the steps can run."""
    made = Counter(x for step in steps for x in step.output_map.values())
    made.update({x.name for x in config.input} - {*made})
    used = Counter(x for step in steps for x in step.input_map.values())
    used.update(x.name for x in config.output)
    for name in sorted(made | used):
        if made[name] > 1:
            found, fix = f"{made[name]} times", "Rename all but one"
            bad(root, f"{name!r} is made {found}", "each tensor made once", fix)
        elif not used[name]:
            fix = "Connect it, or remove it"
            bad(root, f"{name!r} is used by nothing", "every tensor used", fix)
        elif not made[name]:
            fix = "Correct the name in input_map or output_map"
            bad(root, f"{name!r} comes from nowhere", "every tensor made", fix)
    known = {x.name for x in config.input}
    left = list(steps)
    while ready := [x for x in left if {*x.input_map.values()} <= known]:
        known |= {y for x in ready for y in x.output_map.values()}
        left = [x for x in left if x not in ready]
    produced = {y for x in steps for y in x.output_map.values()}
    waiting = {y for x in left for y in x.input_map.values()} - known
    if left and waiting <= produced:
        bad(
            root,
            f"a loop through {_list(sorted(waiting))}",
            "steps that can run one after the other",
            "Let no step wait for what depends on it",
        )


def _check_step(model, models, i, step, bad):
    where = ("ensemble_scheduling", 0, "step", i)
    for field in "input_map", "output_map":
        if not getattr(step, field):
            fix = f'Write {field} {{ key: "of the model" value: "of the ensemble" }}'
            bad(where, f"no {field}", f"{field} in every step", fix)
    part = models.get(step.model_name)
    if part is None:
        bad(
            (*where, "model_name"),
            f'"{step.model_name}"',
            f"a model of this repository: {_list(sorted(models))}",
            "Correct the name, or add the model",
        )
        return
    if not part.readable:
        return
    if step.model_version != -1 and step.model_version not in part.served:
        bad(
            (*where, "model_version") if step.model_version else where,
            f"version {step.model_version} of {part.name}"
            + ("" if step.model_version else " (the default where none is given)"),
            f"-1 for the newest, or one of {_list(part.served)}",
            "Write model_version: -1",
        )
    most, limit = model.config.max_batch_size, part.max_batch_size
    if most > limit > 0:  # one without a batch axis is let through
        bad(
            ("max_batch_size",),
            f"{most}, where {part.name} has {limit}",
            f"at most {limit}",
            "Lower it here, or raise it there",
        )
    optional = {x.name for x in part.config.input if x.optional}
    inputs = {*(part.tensors("input") or ())}
    absent = sorted(inputs - {*step.input_map} - optional)
    if absent and step.input_map and {*step.input_map} <= inputs:
        bad(
            (*where, "input_map"),
            f"no value for {_list(absent)} of {part.name}",
            "every input of the model",
            "Add an input_map for it",
        )
    for field, kind in ("input_map", "input"), ("output_map", "output"):
        tensors = part.tensors(kind)
        for name, outer in getattr(step, field).items():
            if tensors is not None and name not in tensors:
                bad(
                    (*where, field),
                    f"key {name!r}",
                    f"an {kind} of {part.name}: {_list(tensors)}",
                    "The key is the model's name, the value the ensemble's",
                )
            elif tensors is not None:
                _match(model, models, part, name, outer, tensors[name], bad, where)


def _match(model, models, part, name, outer, tensor, bad, where):
    """A tensor of a step with the ensemble's own of that name."""
    own = {**(model.tensors("input") or {}), **(model.tensors("output") or {})}
    if outer not in own:
        return
    (inner_type, inner), (type_name, shape) = tensor, own[outer]
    if inner_type != type_name and "TYPE_INVALID" not in (inner_type, type_name):
        bad(
            where,
            f"{type_name} for {outer!r}, {inner_type} for {part.name}'s {name!r}",
            "one type",
            "Correct the ensemble's data_type",
        )
    if inner is None or shape is None:
        return
    one, other = part.max_batch_size > 0, model.max_batch_size > 0
    if not (_fits(inner, shape) or _fits(inner[one:], shape[other:])):
        bad(
            where,
            f"{shape} for {outer!r}, {inner} for {part.name}'s {name!r}",
            "one shape, the batch included",
            "Correct the ensemble's dims",
        )


def _fits(one, other):
    """Whether two shapes can be the same, -1 being any size."""
    same = (a == b or -1 in (a, b) for a, b in zip(one, other))
    return len(one) == len(other) and all(same)


def _check_circles(models):
    """Ensembles that contain each other."""
    parts = {
        name: {x.model_name for x in model.config.ensemble_scheduling.step}
        for name, model in models.items()
    }
    for name, model in models.items():
        seen, new = set(), parts[name] & {*models}
        while new:
            seen |= new
            new = {y for x in new for y in parts[x] & {*models}} - seen
        if name in seen:
            model.add(
                ERROR,
                ("ensemble_scheduling",),
                "an ensemble that contains itself",
                "models that end in something other than an ensemble",
                "Take it out of its own steps",
                "ensemble_models.html",
            )


# ------------------------------------------------------------------ the checker


def _list(items):
    return ", ".join(map(str, items)) or "nothing"


def check(repository, models=None, server=None):
    """Find what is wrong with a model repository.

    Args:
        repository: its folder.
        models: names of the models to check, with those that their ensembles need;
            None for all.
        server: ``ServerFeatures``; None checks what holds for any server.

    Returns:
        A list of ``Finding``, model by model.

    Raises:
        NotADirectoryError: there is no such folder.
    """
    repository, server = Path(repository), server or ServerFeatures()
    if not repository.is_dir():
        raise NotADirectoryError(
            f"there is no folder {repository}: expected a model repository"
        )
    folders = sorted(
        x
        for x in repository.iterdir()
        if x.is_dir() and not x.name.startswith(".") and os.access(x, os.R_OK | os.X_OK)
    )
    if (repository / "config.pbtxt").exists() and any(
        re.fullmatch(r"\d+", x.name) for x in folders
    ):
        parent = os.path.relpath(repository.resolve().parent)
        fix = f"Name the folder above it instead: {parent}"
        return [
            Finding(
                ERROR,
                repository.name,
                "config.pbtxt",
                None,
                "",
                "a model's folder",
                "the repository, a folder of models",
                fix,
                DOCS + "model_repository.html#repository-layout",
            )
        ]
    known = {x.name: _Model(x, server) for x in folders}
    wanted = list(known) if models is None else [x for x in models if x in known]
    for name in wanted:  # grows: the parts of ensembles are checked too
        for step in known[name].config.ensemble_scheduling.step:
            if step.model_name in known and step.model_name not in wanted:
                wanted.append(step.model_name)
    for name in wanted:
        model = known[name]
        if not model.readable:
            continue
        for rule in _RULES:
            try:
                rule(model)
            except OSError as error:
                model.add(
                    ERROR,
                    (),
                    (error.strerror or str(error)).lower(),
                    "a file that the server's user can read",
                    "Change its permissions",
                    "model_repository.html",
                    file=os.path.relpath(error.filename or model.folder, repository),
                )
        if model.is_ensemble:
            _check_ensemble(model, known)
    _check_circles({x: known[x] for x in wanted if known[x].readable})
    return [finding for name in sorted(wanted) for finding in known[name].findings]


def _print(findings, colour):
    codes = {ERROR: "\033[31m", WARNING: "\033[33m"} if colour else {}
    for x in findings:
        where = f"{x.file}:{x.line}" if x.line else x.file
        reset = "\033[0m" if colour else ""
        print(f"{codes.get(x.severity, '')}{x.severity:<8}{reset}{where}  {x.field}")
        for label, value in (
            ("found", x.found),
            ("expected", x.expected),
            ("fix", x.fix),
            ("see", x.link),
        ):
            print(f"  {label:<10}{value}")
    counts = Counter(x.severity for x in findings)
    totals = [f"{counts[x]} {x}{'s' * (counts[x] != 1)}" for x in (ERROR, WARNING)]
    print(", ".join(totals))


def main(arguments=None):
    """Command line; returns 1 where there is an error, 0 otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m repository_check", description=__doc__.split("\n")[0]
    )
    parser.add_argument("repository", type=Path)
    parser.add_argument("models", nargs="*", help="check these only")
    parser.add_argument("--json", action="store_true", help="print JSON")
    kinds = ["any", "embedded", "container"]
    parser.add_argument(
        "--server", choices=kinds, default="any", help="what it is checked for"
    )
    options = parser.parse_args(arguments)
    try:
        server = server_features(options.server)
        findings = check(options.repository, options.models or None, server)
        unknown = [x for x in options.models if not (options.repository / x).is_dir()]
        if unknown:
            parser.error(f"{options.repository} holds no model {_list(unknown)}")
    except NotADirectoryError as error:
        parser.error(str(error))
    if options.json:
        print(json.dumps([asdict(x) for x in findings], indent=1))
    else:
        _print(findings, sys.stdout.isatty())
    return int(any(x.severity == ERROR for x in findings))
