"""The Python-based onnxruntime backend completes, refuses and batches like C++'s."""

import threading

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from helpers import triton_server

X = 'input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
Y = 'output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
HEAD = 'backend: "onnxruntime"\nmax_batch_size: 8\n'

REFUSED = {
    "dims": (
        HEAD + X.replace("[ 4 ]", "[ 5 ]") + Y,
        "model 'dims', tensor 'x': the model expects 2 dimensions (shape [-1,4]) but "
        "the model configuration specifies 2 dimensions (an initial batch dimension "
        "because max_batch_size > 0 followed by the explicit tensor shape, making "
        "complete shape [-1,5])",
    ),
    "type": (
        HEAD + X.replace("FP32", "FP16") + Y,
        "unable to load model 'type', configuration expects datatype TYPE_FP16 for "
        "input 'x', model provides TYPE_FP32",
    ),
    "name": (
        HEAD + X + Y.replace('"y"', '"probabilities"'),
        "unexpected inference output 'probabilities', allowed outputs are: y",
    ),
    "count": (
        HEAD + X + X.replace('"x"', '"x2"') + Y,
        "unable to load model 'count', configuration expects 2 inputs, "
        "model provides 1",
    ),
    "file": (
        HEAD + X + Y + 'default_model_filename: "other.onnx"\n',
        "failed to stat file",
    ),
}


@pytest.fixture(scope="module")
def make_server():
    """Start a server on a repository; it is stopped at the end of the module."""
    servers = []

    def make(repository, models):
        servers.append(triton_server.start(repository, models=models))
        return grpcclient.InferenceServerClient(servers[-1].grpc)

    yield make
    for server in servers:
        server.stop()


def test_refuses_in_the_words_of_the_real_backend(make_repository, make_server):
    repository = make_repository({name: text for name, (text, _) in REFUSED.items()})
    client = make_server(repository, [])
    for name, (_, words) in REFUSED.items():
        with pytest.raises(InferenceServerException) as refusal:
            client.load_model(name)
        assert words in refusal.value.message(), name


def test_refuses_a_file_that_is_not_onnx(make_repository, make_server):
    repository = make_repository({"text": HEAD + X + Y})
    (repository / "text/1/model.onnx").write_text("this is no model")
    client = make_server(repository, [])
    with pytest.raises(InferenceServerException, match="Protobuf parsing failed"):
        client.load_model("text")


def test_completes_an_empty_config(make_repository, make_server):
    client = make_server(make_repository({"double": ""}), ["double"])
    config = client.get_model_config("double").config
    assert (config.backend, config.platform) == ("onnxruntime", "onnxruntime_onnx")
    assert config.max_batch_size == 4
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    assert [(x.name, list(x.dims)) for x in config.input] == [("x", [4])]
    assert [(x.name, list(x.dims)) for x in config.output] == [("y", [4])]


def test_batches_requests_of_many_clients(make_repository, make_server):
    config = HEAD + X + Y + "dynamic_batching { max_queue_delay_microseconds: 50000 }\n"
    client = make_server(make_repository({"double": config}), ["double"])
    answers, lock = {}, threading.Lock()

    def ask(number):
        x = np.full((1 + number % 3, 4), number, np.float32)
        tensor = grpcclient.InferInput("x", x.shape, "FP32")
        tensor.set_data_from_numpy(x)
        y = client.infer("double", [tensor]).as_numpy("y")
        with lock:
            answers[number] = np.array_equal(y, 2 * x)

    threads = [threading.Thread(target=ask, args=[n]) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == dict.fromkeys(range(16), True)
    (statistics,) = client.get_inference_statistics("double").model_stats
    assert statistics.execution_count < 16
