"""Notebook 05: the model repository that it leaves."""

from helpers import (
    classifiers,
    paths,
    triton_config,
)


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
