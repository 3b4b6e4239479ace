"""Find what matters in a server's log, and say what it means."""

import re
from pathlib import Path

# What a reader of a failed start needs: errors, and the reason behind each model.
_ERROR_LINE = re.compile(r"^E\d{4} |^error:|ERROR|UNAVAILABLE|^Traceback|^\w*Error:")
_NOISE = re.compile(r"CudaDriverHelper|NVML")


def find_error_lines(log, most=12):
    """The last lines of a log file that say what went wrong.

    Args:
        log: path of the log.
        most: how many lines at the most.

    Returns:
        A list of lines, oldest first, without the noise of a machine without a GPU.
    """
    lines = Path(log).read_text(errors="replace").splitlines()
    kept = [x for x in lines if _ERROR_LINE.search(x) and not _NOISE.search(x)]
    return (kept or lines)[-most:]


# What Triton says, and what it means. The repository's checker says most of it first.
_MEANINGS = (
    (
        r"unable to find backend library for backend '(\w+)'",
        "this server has no backend {0}: correct the name in config.pbtxt (a "
        "platform is no backend), or serve with NVIDIA's container",
    ),
    (
        r"failed to read text proto from (\S+)",
        "the config has a syntax error or an unknown field; python -m "
        "repository_check names line and column",
    ),
    (
        r"at least one version must be available",
        "the model's folder holds no version that its policy chooses: make a "
        "folder 1/ with the model file in it",
    ),
    (
        r"failed to stat file (\S+)",
        "the model file is not there, or has another name",
    ),
    (
        r"kind KIND_GPU but no GPUs",
        "this machine shows no GPU: use KIND_AUTO or KIND_CPU",
    ),
    (
        r"the model expects \d+ dimensions",
        "dims are those of one item where max_batch_size is above 0, and all of "
        "them where it is 0",
    ),
    (
        r"first dimension must be -1",
        "the model has a fixed batch: export it with a dynamic one, or set "
        "max_batch_size: 0",
    ),
    (
        r"configuration expects \d+ inputs",
        "list every input of the model in the config, and no other",
    ),
    (
        r"configuration expects datatype",
        "the type in the config is not the model's",
    ),
    (
        r"unexpected inference (?:in|out)put '",
        "the name in the config is not the model's",
    ),
    (
        r"Protobuf parsing failed|No graph was found",
        "the file is no ONNX model, or only a part of one",
    ),
    (
        r"External data path validation failed",
        "the weights lie in a second file, which was not copied: export with "
        "external_data=False",
    ),
    (
        r"Unsupported model IR version|ONNX Runtime only \*guarantees\*",
        "the model is newer than this server's ONNX Runtime: export it with a "
        "lower opset_version",
    ),
    (
        r"directory name must equal model name",
        "the field name and the folder differ",
    ),
    (
        r"Could not determine backend",
        "the config names no backend, and no file tells it",
    ),
    (
        r"models that are not available or ambiguous",
        "a step of the ensemble names a model that is not in the repository",
    ),
    (
        r"whose required version 0 is not loaded",
        "a step lacks model_version: -1",
    ),
    (
        r"failed to open text file for read (\S+)",
        "a label or warm-up file is not there",
    ),
    (
        r"No space left on device|[Uu]nable to (?:create|initialize) shared memory",
        "/dev/shm is full (df -h /dev/shm); a container gets more of it with "
        "--shm-size=1g",
    ),
    (
        r"process (\d+) of model (.+) has ended|Stub process '(\S+)' is not healthy",
        "a Python process that served a model has ended: unload and load the model, or "
        "start the server with repair=True; dmesg tells if memory ran out",
    ),
    (
        r"magicTag|header\.size|is not compatible|different version of TensorRT",
        "the plan is damaged, or was built by another TensorRT or for another "
        "GPU: build it here",
    ),
    (
        r"unrecognized option",
        "this version of tritonserver does not know that argument",
    ),
    (
        r"no attribute 'TritonPythonModel'",
        "model.py has no class of that name",
    ),
)


def explain(text):
    """What a server's log means, for the messages that people meet most.

    Args:
        text: lines of the log, or the message of an error.

    Returns:
        A list of sentences, each once, in the order of the table.
    """
    found = ((re.search(pattern, text), x) for pattern, x in _MEANINGS)
    return [x.format(*match.groups()) for match, x in found if match]
