"""Rules about the model file: whether it is there, and what its first look shows.

What its tensors are is in tensors.py.
"""

import ast
import re
from functools import partial
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from .findings import join_items
from .model_folder import FILE_OF_BACKEND
from .servers import find_too_new

PYTHON_BACKEND = "https://github.com/triton-inference-server/python_backend#usage"


def check_files(model):
    """The file of each served version; those of other backends are not known."""
    if model.is_ensemble or model.backend not in FILE_OF_BACKEND:
        return
    if model.config.cc_model_filenames:
        return
    for version in model.served_versions:
        path = model.find_file(version)
        place = f"{model.name}/{version}/{path.name}"
        if not path.exists():
            _report_missing_file(model, path, place)
        elif path.is_file():
            FILE_CHECKS[model.backend](model, path, place)


def _report_missing_file(model, path, place):
    """The field of the config is to blame where it names the file."""
    near = [x.name for x in path.parent.iterdir() if x.suffix == path.suffix]
    is_named = model.config.default_model_filename
    model.add_error(
        *(["default_model_filename"] if is_named else []),
        found="no such file" + (f"; there is {join_items(near)}" if near else ""),
        expected=place,
        fix="Put the file there, or name another in default_model_filename",
        link="model_repository.html#model-files",
        file=None if is_named else place,
    )


def check_onnx_file(model, path, place):
    add_error = partial(
        model.add_error, link="model_repository.html#onnx-models", file=place
    )
    again = "Export it again, or download it again and look at its first bytes"
    try:
        onnx_model = onnx.load(path, load_external_data=False)
    except OSError as error:
        add_error(
            found=error.strerror.lower(), expected="a file that can be read", fix=again
        )
        return
    except DecodeError:
        head = path.read_bytes()[:12]
        found = f"a file that is not ONNX; it begins with {head!r}"
        add_error(found=found, expected="an ONNX file", fix=again)
        return
    if not onnx_model.graph.node and not onnx_model.graph.output:
        add_error(found="a file without a graph", expected="an ONNX file", fix=again)
        return
    weights = {
        entry.value
        for tensor in onnx_model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for file in sorted(weights):
        if not (path.parent / file).exists():
            add_error(
                found=f"weights that are said to be in {file}, which is not there",
                expected=f"{file} beside {path.name}",
                fix="Copy that file too, or export with external_data=False",
            )
    for what, found, highest in find_too_new(onnx_model, model.server):
        add_error(
            found=f"{what} {found}",
            expected=f"at most {highest}, for ONNX Runtime {model.server.onnxruntime}",
            fix="Export with a lower opset_version, or use a newer server",
        )
    _check_onnx_rules(model, onnx_model, place)


# What of onnx.checker's findings ONNX Runtime refuses too. It loads other files that
# the checker refuses: nodes in any order, a graph without a name.
REFUSED = re.compile(
    "single static assignment|Unrecognized attribute|input size|output size|"
    "is deprecated|not an output of any node"
)


def _check_onnx_rules(model, onnx_model, place):
    """What ``onnx.checker`` says of the graph. Empties the model's weights, so that it
    takes milliseconds for a model of any size."""
    for tensor in onnx_model.graph.initializer:
        name, data_type = tensor.name, tensor.data_type
        tensor.Clear()
        tensor.name, tensor.data_type = name, data_type
        tensor.dims.append(0)
    try:
        onnx.checker.check_model(onnx_model)
    except onnx.checker.ValidationError as error:
        found = str(error).partition("\n")[0].strip()
        if found.startswith("Field '"):
            return  # a shape or a name is missing; no server needs them
        twice = re.search("however '(.+)' has been used as (in|out)put names", found)
        fix = "Export it again with the current exporter"
        add = model.add_error
        if twice:
            fix = f"Export it with another name than {twice[1]} in output_names"
        elif not REFUSED.search(found):
            fix += "; ONNX Runtime may load it all the same"
            add = model.add_warning
        add(
            found=f"onnx.checker says: {found}",
            expected="a graph that follows the rules of ONNX",
            fix=fix,
            link="model_repository.html#onnx-models",
            file=place,
        )


def check_plan_file(model, path, place):
    """The first bytes only: nothing but TensorRT reads the rest."""
    with path.open("rb") as file:
        head = file.read(4)
    if head == b"vtrt":
        found = "an engine of TensorRT-RTX"
    elif not head or head[:1] in b"<{" or head[:1].isspace():
        found = f"a file that begins with {head!r}"
    else:
        return
    model.add_error(
        found=found,
        expected="an engine that TensorRT built for this server's version and GPU",
        fix="Build it with tensorrt, on the GPU that will run it",
        link="model_repository.html#tensorrt-models",
        file=place,
    )


def check_python_file(model, path, place):
    if "EXECUTION_ENV_PATH" in model.config.parameters:
        return  # another Python may know another syntax
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        model.add_error(
            found=str(error),
            expected="Python",
            fix="Correct the syntax",
            link=PYTHON_BACKEND,
            file=place,
            line=getattr(error, "lineno", None),
        )
        return
    defined, imports_all = _find_names(tree)
    found = defined.get("TritonPythonModel")
    if not found and not imports_all:
        names = join_items(sorted(defined))
        model.add_error(
            found=f"the names {names}" if defined else "no class",
            expected="a class TritonPythonModel",
            fix="Name the class TritonPythonModel: the backend looks for that name",
            link=PYTHON_BACKEND,
            file=place,
        )
    elif isinstance(found, ast.ClassDef) and not found.bases:
        methods = {x.name for x in found.body if hasattr(x, "name")}
        if "execute" not in methods:
            names = join_items(sorted(methods))
            model.add_warning(
                found=f"the methods {names}" if methods else "no methods",
                expected="a method execute(self, requests)",
                fix="Add it: the model loads without, and every request fails",
                link=PYTHON_BACKEND,
                file=place,
                line=found.lineno,
            )


def _find_names(tree):
    """Names that a module defines with their nodes, and whether it has ``import *``."""
    defined, imports_all = {}, False
    for node in ast.walk(tree):  # perhaps below an if or a try
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            defined.setdefault(node.name, node)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            imports_all |= any(x.name == "*" for x in node.names)
            defined |= {x.asname or x.name: node for x in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined[node.id] = node
    return defined, imports_all


FILE_CHECKS = {
    "onnxruntime": check_onnx_file,
    "tensorrt": check_plan_file,
    "python": check_python_file,
}


def check_fields(model):
    """Fields that are newer than the server, which reads no config that has them."""
    for *path, name in model.server.lacks:
        message = model.config
        for part in path:
            message = getattr(message, part)
        if any(field.name == name for field, _ in message.ListFields()):
            model.add_error(
                *path,
                name,
                found=f"the field {name}",
                expected="a field that this server's release knows",
                fix="Remove it, or serve the model with a newer release",
                link="model_configuration.html",
            )


def check_environment(model):
    """The Python environment that a Python model brings along."""
    parameters = model.config.parameters
    if model.backend != "python" or "EXECUTION_ENV_PATH" not in parameters:
        return
    value = parameters["EXECUTION_ENV_PATH"].string_value
    path = Path(value.replace("$$TRITON_MODEL_DIRECTORY", str(model.folder)))
    is_elsewhere = model.server.backends is None and "$$" not in value
    if not (is_elsewhere or path.exists()):
        model.add_error(
            "parameters",
            found=f'EXECUTION_ENV_PATH "{value}", which is not there',
            expected="a path; $$TRITON_MODEL_DIRECTORY is the folder of the model",
            fix="Correct the path, or put the environment there",
            link="https://github.com/triton-inference-server/python_backend",
        )
