"""The small helpers, on good input and on bad."""

import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import cv2
import numpy as np
import onnx
import pandas as pd
import pytest
import torch

from helpers import (
    classifiers,
    images,
    machine,
    onnx_tools,
    parity,
    paths,
    plots,
    triton_config,
)

NUMBERS = {"resize": 256, "crop": 224, "mean": [0.5] * 3, "std": [0.25] * 3}


def test_a_missing_artifact_names_its_notebook(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path)
    for name, notebook in paths.MADE_BY.items():
        with pytest.raises(FileNotFoundError, match=f"run notebooks/{notebook}.ipynb"):
            paths.artifact(name)
        assert (paths.NOTEBOOKS / f"{notebook}.ipynb").exists()


def test_every_sample_image_loads():
    for name in images.SAMPLES:
        image = images.read(images.sample(name))
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((4, 4), 80, np.uint8),
        np.full((4, 4, 4), 80, np.uint8),
        np.full((4, 4), 80 * 257, np.uint16),
    ],
    ids=["grey", "alpha", "16-bit"],
)
def test_every_kind_of_png_becomes_rgb_bytes(tmp_path, pixels):
    cv2.imwrite(str(tmp_path / "x.png"), pixels)
    image = images.read(tmp_path / "x.png")
    assert image.shape == (4, 4, 3) and image.dtype == np.uint8
    assert (image == 80).all()


def test_load_is_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((2, 2, 3), [0, 0, 255], np.uint8))
    assert images.read(tmp_path / "red.png")[0, 0].tolist() == [255, 0, 0]


def test_bad_images_are_named(tmp_path):
    (tmp_path / "text.jpg").write_text("not a picture")
    with pytest.raises(ValueError, match="is not an image that OpenCV"):
        images.read(tmp_path / "text.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match="OpenCV can read: 0 bytes"):
        images.read(tmp_path / "empty.jpg")
    with pytest.raises(FileNotFoundError, match="there is no image at"):
        images.read(tmp_path / "none.jpg")
    with pytest.raises(ValueError, match="no sample image 'dog'; there are coffee"):
        images.sample("dog")


def test_an_image_comes_from_a_url_or_an_error_says_why(tmp_path):
    (tmp_path / "cat.png").write_bytes(images.sample("chelsea").read_bytes())
    (tmp_path / "page.png").write_text("<html>log in first</html>")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        Thread(target=site.serve_forever).start()
        url = f"http://127.0.0.1:{site.server_port}"
        found = images.read(f"{url}/cat.png")
        assert np.array_equal(found, images.read(images.sample("chelsea")))
        with pytest.raises(OSError, match=r"cannot fetch .*/dog\.png: HTTP Error 404"):
            images.read(f"{url}/dog.png")
        with pytest.raises(ValueError, match=r"page\.png is not an image.*b'<html>"):
            images.read(f"{url}/page.png")
        site.shutdown()
    with pytest.raises(OSError, match=r"cannot fetch .*refused.*this machine online"):
        images.read(f"{url}/cat.png")
    with pytest.raises(OSError, match=r"cannot fetch http://no\.invalid/a\.jpg: "):
        images.read("http://no.invalid/a.jpg")


@pytest.mark.parametrize("size", [(300, 500), (500, 300), (64, 64), (224, 1000)])
def test_preprocess_crops_the_centre_and_normalises(size):
    image = np.zeros((*size, 3), np.uint8)
    height, width = size
    image[height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4] = 255
    tensor = images.preprocess(image, **NUMBERS)
    assert tensor.shape == (3, 224, 224) and tensor.dtype == np.float32
    assert tensor.min() == -2 and tensor[:, 111:113, 111:113].max() == 2
    assert tensor.flags["C_CONTIGUOUS"]


def test_parity_measures_what_it_says():
    reference = np.array([[3.0, 4, 0, 0, 0, 0], [0, 0, 0, 0, 6, 8]])
    candidate = reference.copy()
    candidate[0] = [4, 3, 0, 0, 0, 0]
    measures = parity.compare(reference, candidate)
    assert measures["max abs error"] == 1
    assert measures["relative L2"] == pytest.approx(np.sqrt(2 / 125))
    assert measures["cosine"] == pytest.approx(124 / 125)
    assert measures["top-1 agree"] == 0.5
    assert measures["top-5 agree"] == 1


def test_parity_refuses_what_cannot_be_compared():
    with pytest.raises(ValueError, match=r"found \(2, 3\) and \(2, 4\)"):
        parity.compare(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="not finite"):
        parity.compare(np.ones((1, 5)), np.full((1, 5), np.nan))


def test_parity_table_grows_and_replaces(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path)
    rows = np.eye(5)[:2]
    parity.record("one", "PyTorch", parity.compare(rows, rows))
    parity.record("two", "PyTorch", parity.compare(rows, 2 * rows))
    parity.record("one", "PyTorch", parity.compare(rows, 3 * rows))
    table = parity.table()
    assert list(table.index) == ["two", "one"]
    assert table.loc["one", "relative L2"] == "2.0e+00"
    parity.reset()
    with pytest.raises(FileNotFoundError, match="run notebooks/02_validate_onnx"):
        parity.table()


def test_onnx_file_is_described(tmp_path, doubling_model):
    onnx.save(doubling_model, tmp_path / "double.onnx")
    column = onnx_tools.describe(tmp_path / "double.onnx")["double.onnx"]
    assert column["inputs"] == "x: FLOAT [batch, 4]"
    assert (column["opset"], column["IR version"], column["nodes"]) == (
        "ai.onnx 17",
        8,
        1,
    )
    assert onnx_tools.count_operators(tmp_path / "double.onnx") == {"Mul": 1}


def test_a_wrong_config_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r'2:1 : .* no field named "max_batchsize"'):
        triton_config.write('name: "x"\nmax_batchsize: 3\n', tmp_path / "x")
    assert not (tmp_path / "x").exists()
    config = triton_config.write('name: "x"\nmax_batch_size: 3\n', tmp_path / "x")
    assert config.max_batch_size == 3
    assert (tmp_path / "x/config.pbtxt").read_text().startswith('name: "x"')


def test_the_repository_is_what_notebook_05_writes():
    texts = {}
    for name in "classifier_onnx", "resnet50":
        folder = paths.MODEL_REPOSITORY / name
        texts[name] = (folder / "config.pbtxt").read_text()
        assert triton_config.parse(texts[name]).name == name
        assert (folder / "labels.txt").read_text().splitlines() == classifiers.labels()
    assert texts["resnet50"] == texts["classifier_onnx"].replace(
        "classifier_onnx", "resnet50"
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
    again, _ = classifiers.resnet50()
    assert torch.equal(module.fc.weight, again.fc.weight)


def test_resnet50_by_name_needs_weights(no_weights, monkeypatch):
    monkeypatch.setenv("TUTORIAL_MODEL", "resnet50")
    with pytest.raises(RuntimeError, match="set TUTORIAL_WEIGHTS to a checkpoint"):
        classifiers.choose()
    monkeypatch.setenv("TUTORIAL_WEIGHTS", "/no/such.pth")
    with pytest.raises(FileNotFoundError, match="TUTORIAL_WEIGHTS names /no/such"):
        classifiers.choose()


@pytest.mark.parametrize("content", ["text", "other network", "half"])
def test_a_file_that_is_no_checkpoint_is_named(no_weights, monkeypatch, content):
    file = no_weights / "mine.pth"
    if content == "text":
        file.write_text("<html>log in first</html>")
    else:
        torch.save(torch.nn.Linear(2, 2).state_dict(), file)
    if content == "half":
        file.write_bytes(file.read_bytes()[:500])
    monkeypatch.setenv("TUTORIAL_WEIGHTS", str(file))
    with pytest.raises(RuntimeError, match=r"mine\.pth does not hold the state_dict"):
        classifiers.resnet50()


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


def test_what_a_client_must_know_survives_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path)
    _, classifier = classifiers.efficientnet_lite0()
    classifiers.write_description(classifier, tmp_path / "classifier.json")
    assert classifiers.read_description() == classifier
    assert json.loads((tmp_path / "classifier.json").read_text())["trained"] is True


def test_machine_reports_every_row():
    text = machine.report().to_html()
    for row in "processor", "embedded Triton", "ResNet-50 weights", "Docker":
        assert row in text
    assert machine.import_tensorrt().__name__.startswith("tensorrt")


@pytest.mark.parametrize(
    ("machine_name", "libc", "words"),
    [
        ("aarch64", ("glibc", "2.36"), "found Linux on aarch64"),
        ("x86_64", ("glibc", "2.31"), "glibc 2.31; the series needs"),
        ("x86_64", ("", ""), "an unknown libc"),
    ],
)
def test_an_unfit_machine_is_told_so(monkeypatch, machine_name, libc, words):
    monkeypatch.setattr(machine.platform, "machine", lambda: machine_name)
    monkeypatch.setattr(machine.platform, "libc_ver", lambda: libc)
    with pytest.raises(RuntimeError, match=words):
        machine.check()


def test_figures_are_drawn():
    table = pd.DataFrame({"a": [1.0, 2], "b": [2.0, 3]}, index=["x", "y"])
    pictures = [images.read(images.sample(name)) for name in ("coffee", "camera")]
    labels = [f"class {i}" for i in range(10)]
    figures = [
        plots.bars({"Conv": 53, "Relu": 49}, "nodes"),
        plots.bars(
            {"on": 9, "off": 5}, "images/s", ranges={"on": (8, 9), "off": (5, 5)}
        ),
        plots.grouped_bars(table, "milliseconds"),
        plots.stacked_bars(table, "milliseconds"),
        plots.curves({"a": ([1, 2], [3, 4], ["x", "y"])}, "x", "y"),
        plots.curves({"a": ([1, 2], [3, 4000])}, "x", "y", log=True),
        plots.over_time([0, 1], {"a": [0, 0], "b": [1, 2]}),
        plots.over_time([0, 1], {"a": [0, 0]}, marks={"start": 0.5}),
        plots.waterfall(
            {"x": {"queue": (0, 1), "run": (1, 3)}, "y": {"run": (2, 3)}}, "ms"
        ),
        plots.predictions(pictures, np.eye(10)[:2], labels, ["one", "two"]),
        plots.preprocessing(pictures[0], images.preprocess(pictures[0], **NUMBERS)),
    ]
    for figure in figures:
        figure.canvas.draw()
        plots.plt.close(figure)
