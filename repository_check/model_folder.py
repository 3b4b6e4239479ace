"""A model's folder, read as far as it can be read: what the rules ask about."""

import re
from functools import cached_property

import onnx
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tritonclient.grpc import model_config_pb2 as schema

from .config_text import (
    add_missing_indexes,
    explain_parse_error,
    find_lines,
    write_path,
)
from .data_types import name_data_type, read_onnx_tensors
from .findings import ERROR, WARNING, Finding, complete_link

# Each platform with its backend.
PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime",
    "tensorrt_plan": "tensorrt",
    "pytorch_libtorch": "pytorch",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
    "ensemble": "",
}
# Triton looks for these files in this order where a config names no backend.
BACKEND_OF_FILE = {
    "model.savedmodel": "tensorflow",
    "model.graphdef": "tensorflow",
    "model.plan": "tensorrt",
    "model.onnx": "onnxruntime",
    "model.xml": "openvino",
    "model.pt": "pytorch",
    "model.py": "python",
}
# The file that a backend opens where the config names no other.
FILE_OF_BACKEND = {
    "onnxruntime": "model.onnx",
    "tensorrt": "model.plan",
    "python": "model.py",
}
VERSION = re.compile(r"0|[1-9]\d*")


class ModelFolder:
    """A model's folder with its findings.

    Attributes:
        folder: its path.
        name: its name, which is the model's.
        server: the ``ServerFeatures`` to check for.
        config: a ``ModelConfig``; empty where there is no config.pbtxt, and filled
            up to the mistake where the text is not ``readable``.
        has_config: whether there is a config.pbtxt.
        readable: whether the config could be read.
        lines: the line of each field of the config, by its path.
        findings: a list of ``Finding``, in the order of the rules.
    """

    def __init__(self, folder, server):
        self.folder, self.name, self.server = folder, folder.name, server
        self.findings, self.lines, self.readable = [], {}, True
        self.config = schema.ModelConfig()
        self.has_config = (folder / "config.pbtxt").exists()
        if self.has_config:
            self._read_config()

    def _read_config(self):
        path = self.folder / "config.pbtxt"
        try:
            # The server takes the file's bytes: any are allowed in a comment
            text = path.read_bytes().decode("utf-8", "surrogateescape")
        except OSError as error:
            self.readable = False
            self.add_error(
                found=error.strerror.lower(),
                expected="a text file",
                fix="Make config.pbtxt a file that the server's user can read",
            )
            return
        try:
            text_format.Parse(text, self.config)
        except (text_format.ParseError, DecodeError, ValueError) as error:
            self.readable = False
            self.add_error(**explain_parse_error(text, error))
            return
        try:
            self.lines = find_lines(text)
        except (IndexError, RecursionError):
            pass  # findings without lines

    def add_error(self, *path, **words):
        """Note what the server refuses.

        Args:
            path: the field of the config, such as ``"input", 0, "dims"``; nothing
                where the finding is not about a field.
            found, expected, fix: in words.
            link: a page of Triton's user guide, or a whole address.
            file: path within the repository; None for the config.
            line: None for that of the field, or of what should contain it.
            field: None for the path, written out.
        """
        self._add_finding(ERROR, path, **words)

    def add_warning(self, *path, **words):
        """Note what the server accepts and a user hardly wants, as ``add_error``."""
        self._add_finding(WARNING, path, **words)

    def _add_finding(
        self,
        severity,
        path,
        *,
        found,
        expected,
        fix,
        link="model_configuration.html",
        file=None,
        line=None,
        field=None,
    ):
        indexed = add_missing_indexes(path)
        while indexed and indexed not in self.lines:
            indexed = indexed[:-2]
        self.findings.append(
            Finding(
                severity=severity,
                model=self.name,
                file=file or f"{self.name}/config.pbtxt",
                line=line or self.lines.get(indexed),
                field=write_path(path) if field is None else field,
                found=found,
                expected=expected,
                fix=fix,
                link=complete_link(link),
            )
        )

    @property
    def is_ensemble(self):
        config = self.config
        return config.platform == "ensemble" or config.HasField("ensemble_scheduling")

    @cached_property
    def versions(self):
        """Versions that the folder holds, in order."""
        names = [x.name for x in self.folder.iterdir() if x.is_dir()]
        return sorted(int(x) for x in names if VERSION.fullmatch(x))

    @cached_property
    def served_versions(self):
        """Versions that the policy chooses, in order."""
        policy = self.config.version_policy
        if policy.HasField("all"):
            return self.versions
        if policy.HasField("specific"):
            return [x for x in self.versions if x in policy.specific.versions]
        count = policy.latest.num_versions if policy.HasField("latest") else 1
        return self.versions[-count:] if count else []

    @cached_property
    def backend(self):
        """Name of the backend as Triton finds it; "" where it cannot."""
        config = self.config
        if config.backend or config.platform:
            return config.backend or PLATFORMS.get(config.platform, "")
        if config.default_model_filename in BACKEND_OF_FILE:
            return BACKEND_OF_FILE[config.default_model_filename]
        for version in self.versions[:1]:
            for file, backend in BACKEND_OF_FILE.items():
                if (self.folder / str(version) / file).exists():
                    return backend
        return self.name.partition(".")[2]  # a folder may be called model.BACKEND

    @cached_property
    def is_completed_by_backend(self):
        """Whether the backend may fill in tensors that nobody but it knows."""
        if self.is_ensemble or self.backend in ("", "onnxruntime"):
            return False
        if self.backend != "python":
            return True
        files = [self.find_file(x) for x in self.served_versions]
        return any(
            b"auto_complete_config" in file.read_bytes()
            for file in files
            if file.is_file()
        )

    def find_file(self, version):
        """Path of the model file of a version."""
        default = FILE_OF_BACKEND.get(self.backend, "")
        name = self.config.default_model_filename or default
        return self.folder / str(version) / name

    @cached_property
    def onnx_model(self):
        """The newest served ONNX file without its weights; None where unreadable."""
        if self.backend != "onnxruntime" or not self.served_versions:
            return None
        path = self.find_file(self.served_versions[-1])
        try:
            model = onnx.load(path, load_external_data=False)
        except (OSError, DecodeError):
            return None
        return model if model.graph.node else None

    @cached_property
    def inferred_outputs(self):
        """Outputs of the ONNX file, with the sizes that follow from its nodes."""
        inferred = onnx.shape_inference.infer_shapes(self.onnx_model)
        return read_onnx_tensors(inferred, "output")

    @cached_property
    def max_batch_size(self):
        """That of the config, or what auto-complete makes of it: 4 by default."""
        config = self.config
        if config.max_batch_size or (config.input and config.output):
            return config.max_batch_size
        if not self.onnx_model:
            return 0
        for kind in "input", "output":
            for _, shape in read_onnx_tensors(self.onnx_model, kind).values():
                if shape and shape[0] != -1:
                    return 0
        return 4

    @property
    def has_batch_axis(self):
        """Whether each tensor has an axis more than its dims, the batch."""
        return self.max_batch_size > 0

    def find_tensors(self, kind):
        """Inputs or outputs, as ``read_onnx_tensors`` gives them.

        From the config, and from the ONNX file where the config leaves them to
        Triton. Shapes contain the batch; a shape is None where a reshape changes it.

        Returns:
            A dict of name and (data type, shape), or None where nobody can know.
        """
        if self.is_completed_by_backend and self.backend == "python":
            return None
        entries = getattr(self.config, kind)
        if not entries:
            model = self.onnx_model
            return read_onnx_tensors(model, kind) if model else None
        batch = [-1] * self.has_batch_axis
        return {
            x.name: (
                name_data_type(x.data_type),
                None if x.HasField("reshape") else [*batch, *x.dims],
            )
            for x in entries
        }
