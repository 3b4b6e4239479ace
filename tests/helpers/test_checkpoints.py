"""The weights that people bring: what is around them, and what is not a state_dict."""

import pickle

import pytest
import torch
import torchvision

from helpers import classifiers
from helpers.checkpoints import read_state_dict


class Network(torch.nn.Module):
    """Small, with the kinds of names that ResNet-50 has."""

    def __init__(self, classes=1000):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 4, 1)
        self.bn1 = torch.nn.BatchNorm2d(4)
        self.fc = torch.nn.Linear(4, classes)


class RunsCode:
    """What a hostile file does while it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


STATE = Network().state_dict()


def prefixed(prefix):
    return {prefix + name: value for name, value in STATE.items()}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (STATE, ""),
        ({"state_dict": STATE, "epoch": 3}, "what is around 'state_dict'"),
        ({"model": STATE, "args": {"lr": 0.1}}, "what is around 'model'"),
        ({"model_state_dict": STATE, "optimizer": {}}, "around 'model_state_dict'"),
        (prefixed("module."), "the prefix 'module.'"),
        (prefixed("_orig_mod."), "the prefix '_orig_mod.'"),
        ({"state_dict": prefixed("model.")}, "'state_dict', the prefix 'model.'"),
        (prefixed("module._orig_mod."), "'module.', the prefix '_orig_mod.'"),
        ({k: v.half() for k, v in STATE.items()}, "the type float16"),
        ({k: v for k, v in STATE.items() if "num_batches" not in k}, ""),
    ],
)
def test_what_training_puts_around_the_weights_is_taken_off(
    tmp_path, capsys, content, said
):
    torch.save(content, tmp_path / "mine.pth")
    state = read_state_dict(tmp_path / "mine.pth", STATE)
    network = Network()
    network.load_state_dict(state)
    assert network.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(
        network.conv1.weight, STATE["conv1.weight"], atol=1e-3, rtol=1e-3
    )
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(said) and said in "".join(lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Network(10).state_dict(), r"fc\.\w+ with the shape \(10,( 4)?\); .*\(1000"),
        (
            torch.nn.Linear(2, 2).state_dict(),
            "another network: 8 of the 9 names are mis",
        ),
        (
            STATE | {"layer9.weight": torch.zeros(1)},
            r"0 of the .* 1 are not known here",
        ),
        (Network(), "holds more than tensors, such as a whole network"),
        ([1, 2], "holds a list, not tensors by their names"),
        ({"epoch": 3}, "holds a dict, not tensors by their names"),
    ],
)
def test_what_is_no_state_dict_of_this_network_is_named(tmp_path, content, message):
    torch.save(content, tmp_path / "mine.pth")
    with pytest.raises(ValueError, match=message) as raised:
        read_state_dict(tmp_path / "mine.pth", STATE)
    assert "delete" not in str(raised.value)


def test_only_a_counter_that_is_missing_is_filled_in(tmp_path):
    counted = STATE | {"bn1.num_batches_tracked": torch.tensor(7)}
    torch.save(counted, tmp_path / "mine.pth")
    state = read_state_dict(tmp_path / "mine.pth", STATE)
    assert state["bn1.num_batches_tracked"] == 7


def test_the_number_of_classes_is_named(tmp_path):
    torch.save(Network(10).state_dict(), tmp_path / "mine.pth")
    with pytest.raises(ValueError, match="it has 10 classes, expected"):
        read_state_dict(tmp_path / "mine.pth", STATE)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mine.pth", b"<html>log in first</html>", r"no file of torch.save.*25 bytes"),
        ("mine.pth", b"", "0 bytes"),
        ("mine.pth", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("mine.safetensors", b"\0" * 16, "safetensors.torch.load_file"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_state_dict(tmp_path / name, STATE)


def test_half_a_file_and_torchscript_are_named(tmp_path):
    path = tmp_path / "mine.pth"
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ValueError, match="or a part of one: 1,500 bytes"):
        read_state_dict(path, STATE)
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    with pytest.raises(ValueError, match=r"open it with torch\.jit\.load"):
        read_state_dict(path, STATE)


@pytest.mark.parametrize("save", [torch.save, None], ids=["torch.save", "pickle"])
def test_code_in_a_checkpoint_is_not_run(tmp_path, save):
    marker, path = tmp_path / "was_here", tmp_path / "mine.pth"
    content = {"state_dict": STATE, "extra": RunsCode(marker)}
    if save:
        save(content, path)
    else:
        path.write_bytes(pickle.dumps(RunsCode(marker)))
    with pytest.raises(ValueError, match=r"more than tensors|no file of torch\.save"):
        read_state_dict(path, STATE)
    assert not marker.exists()
    pickle.loads(pickle.dumps(RunsCode(marker)))
    assert marker.exists()  # the file would have done it


def test_a_resnet50_from_a_training_loop_answers(tmp_path, monkeypatch):
    trained = torchvision.models.resnet50(weights=None).eval()
    torch.save({"model": trained.state_dict(), "epoch": 90}, tmp_path / "mine.pth")
    monkeypatch.setenv("TUTORIAL_WEIGHTS", str(tmp_path / "mine.pth"))
    module, about = classifiers.resnet50()
    assert about.trained and "mine.pth" in about.weights
    assert torch.equal(module.fc.weight, trained.fc.weight)
