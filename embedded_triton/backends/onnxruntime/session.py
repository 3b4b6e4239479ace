"""Open an ONNX file as the config asks for. Lies beside the onnxruntime backend."""

import os
import re
from pathlib import Path

import onnxruntime as ort
import triton_python_backend_utils as pb_utils

# optimization { graph { level } } and what release 24.10 makes of it
GRAPH_LEVEL = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
ARENA_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
BOOLEAN = dict.fromkeys(("true", "on", "1"), True)
BOOLEAN |= dict.fromkeys(("false", "off", "0"), False)


def refuse(reason):
    """End the load of a model; Triton shows the reason to whoever asked for it."""
    raise pb_utils.TritonModelException(reason)


def words(error):
    """The message of an ONNX Runtime error as the C++ backend passes it on."""
    return re.sub(
        r"^\[ONNXRuntimeError\] : (\d+) : \w+ : ",
        r"onnx runtime error \1: ",
        str(error),
    )


def read_int(value):
    """A parameter as C++'s ``std::stoi`` reads it: "4 " and "4x" are 4."""
    number = re.match(r"\s*[+-]?\d+", value)
    return (
        int(number[0])
        if number
        else refuse(f"failed to convert '{value}' to integral number")
    )


def read_bool(value):
    if value.lower() not in BOOLEAN:
        refuse(f"failed to convert '{value}' to boolean")
    return BOOLEAN[value.lower()]


def make_options(config):
    """What the config says about the session, as ``onnxruntime.SessionOptions``."""
    parameters = {k: v["string_value"] for k, v in config["parameters"].items()}
    optimization = config.get("optimization", {})
    options = ort.SessionOptions()
    # Threads that spin after a run take the cores that Triton answers with.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    level = int(optimization.get("graph", {}).get("level", 0))
    if level in GRAPH_LEVEL:
        options.graph_optimization_level = GRAPH_LEVEL[level]
    mode = read_int(parameters.get("execution_mode", "0"))
    if mode not in (0, 1):
        refuse(
            "Invalid configuration value provided. Expected values for  "
            f"execution_mode are 0 or 1 but got {mode} ."
        )
    options.execution_mode = (
        ort.ExecutionMode.ORT_PARALLEL if mode else ort.ExecutionMode.ORT_SEQUENTIAL
    )
    for key, attribute in (
        ("intra_op_thread_count", "intra_op_num_threads"),
        ("inter_op_thread_count", "inter_op_num_threads"),
    ):
        if (count := read_int(parameters.get(key, "0"))) > 0:
            setattr(options, attribute, count)
    for key, attribute in (
        ("enable_mem_arena", "enable_cpu_mem_arena"),
        ("enable_mem_pattern", "enable_mem_pattern"),
    ):
        if key in parameters:
            setattr(options, attribute, read_bool(parameters[key]))
    accelerators = optimization.get("execution_accelerators", {})
    for accelerator in accelerators.get("cpu_execution_accelerator", ()):
        name = accelerator["name"]
        if name != "openvino":
            refuse(f"unknown Execution Accelerator '{name}' is requested")
        pb_utils.Logger.log_warn(f"{config['name']} runs without {name} here")
    operations = config.get("model_operations", {})
    for library in operations.get("op_library_filename", ()):
        try:
            options.register_custom_ops_library(library)
        except Exception as error:  # see open_session
            refuse(words(error))
    return options


def make_run_options(config):
    """What the config says about each run, as ``onnxruntime.RunOptions``."""
    options = ort.RunOptions()
    if ARENA_SHRINKAGE in config["parameters"]:
        value = config["parameters"][ARENA_SHRINKAGE]["string_value"]
        options.add_run_config_entry(ARENA_SHRINKAGE, value)
    return options


def open_session(version, config):
    """Open the ONNX file of a version.

    Args:
        version: the model's version folder.
        config: the model's config, a dict as Triton gives it.

    Returns:
        An ``onnxruntime.InferenceSession`` on the CPU.

    Raises:
        TritonModelException: with the words of Triton's own backend.
    """
    options = make_options(config)
    path = Path(version) / (config["default_model_filename"] or "model.onnx")
    if not path.exists():
        refuse(f"failed to stat file {path}")
    if path.is_dir():
        path /= "model.onnx"
    if not path.exists():
        refuse(f"unable to find '{path}' for model instance '{config['name']}'")
    try:
        return ort.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime raises many kinds, all told in words
        refuse(words(error))


def default_max_batch_size():
    """``max_batch_size`` for a model that can batch and does not say how much.

    Triton gives a backend in C++ what the command line says under ``--backend-config``,
    and a Python model nothing of it: so the command line itself is read. A value for
    this backend goes before one for all of them.
    """
    arguments = Path(f"/proc/{os.getppid()}/cmdline").read_text().split("\0")
    found = {}
    for option, value in zip(arguments, [*arguments[1:], ""]):
        if option.startswith("--backend-config="):
            value = option.partition("=")[2]
        elif option != "--backend-config":
            continue
        setting, _, number = value.rpartition("=")
        found.setdefault(setting, number)  # of two, Triton's backend sees the first
    for setting in "onnxruntime,default-max-batch-size", "default-max-batch-size":
        if setting in found:
            return max(read_int(found[setting]), 0)
    return 4  # the server's own
