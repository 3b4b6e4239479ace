"""Notebook 05: the model repository that it leaves."""

import pytest
from tritonclient.grpc import model_config_pb2

from helpers import classifiers, paths, triton_config


def test_the_repository_is_what_notebook_05_writes():
    for name in "classifier_onnx", "resnet50":
        folder = paths.MODEL_REPOSITORY / name
        assert triton_config.parse(read_config_of(name)).name == name
        assert (folder / "labels.txt").read_text().splitlines() == classifiers.labels()


def read_config_of(name):
    return (paths.MODEL_REPOSITORY / name / "config.pbtxt").read_text()


def test_the_configs_of_one_kind_differ_in_the_words_that_the_lessons_name():
    text = read_config_of("classifier_onnx").replace("classifier_onnx", "NAME")
    assert read_config_of("resnet50") == text.replace("NAME", "resnet50")
    on_gpu = text.replace('"onnxruntime"', '"tensorrt"').replace("AUTO", "GPU")
    found = read_config_of("classifier_tensorrt")
    assert found == on_gpu.replace("NAME", "classifier_tensorrt")


@pytest.mark.parametrize("name", ["classifier_onnx", "resnet50", "classifier_tensorrt"])
def test_image_clients_of_nvidia_accept_the_configs(name):
    """What ``parse_model`` of image_client.py and grpc_image_client.py wants.
    https://github.com/triton-inference-server/client/tree/main/src/python/examples
    """
    config = triton_config.parse(read_config_of(name))
    (tensor,), (output,) = config.input, config.output
    assert tensor.format == model_config_pb2.ModelInput.FORMAT_NCHW
    channels, height, width = tensor.dims
    assert channels == 3 and height == width
    assert output.data_type == model_config_pb2.TYPE_FP32
    assert sum(size > 1 for size in output.dims) == 1  # a vector
