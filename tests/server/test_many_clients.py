"""Many clients at once, some of them wrong: everyone gets their own answer."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from conftest import wait_for
from helpers.metrics import read_metrics

REQUESTS, CLIENTS = 500, 8

# What a client may get wrong (model, tensor, shape, type), and what it is told.
IMAGE = (1, 3, 224, 224)
WRONG = [
    ("nosuch", "input", IMAGE, "FP32", "unknown model: 'nosuch'"),
    (
        "classifier_onnx",
        "image",
        (1, 3, 224, 224),
        "FP32",
        "unexpected inference input",
    ),
    (
        "classifier_onnx",
        "input",
        (1, 3, 225, 224),
        "FP32",
        "unexpected shape for input",
    ),
    ("classifier_onnx", "input", IMAGE, "FP64", "data-type is 'FP64'"),
    ("classifier_onnx", "input", (33, 3, 224, 224), "FP32", "batch-size must be <= 32"),
]


def stubs(server):
    """The processes of the server's Python backend."""
    return set(psutil.Process(server.pid).children(recursive=True))


def ask(client, model, name, value, kind):
    tensor = grpcclient.InferInput(name, value.shape, kind)
    tensor.set_data_from_numpy(value)
    return client.infer(model, [tensor]).as_numpy("logits")


def test_every_one_of_500_requests_gets_its_own_answer(server, artifacts):
    with np.load(artifacts / "reference.npz") as file:
        reference = dict(file)  # the file is no place for several threads
    clients = [grpcclient.InferenceServerClient(server.grpc) for _ in range(CLIENTS)]
    images = read_metrics(server)["nv_inference_count"]
    stubs_before = stubs(server)

    def request(number):
        client = clients[number % CLIENTS]
        if number % 10 == 3:  # one in ten is wrong
            model, name, shape, kind, words = WRONG[number // 10 % len(WRONG)]
            value = np.zeros(shape, np.float64 if kind == "FP64" else np.float32)
            try:
                ask(client, model, name, value, kind)
            except InferenceServerException as error:
                return "refused" if words in error.message() else error.message()
            return "a wrong request was answered"
        which = number % len(reference["input"])
        image = reference["input"][which : which + 1]
        logits = ask(client, "classifier_onnx", "input", image, "FP32")
        right = np.allclose(logits[0], reference["logits"][which], atol=1e-3)
        return "right" if right else f"request {number} got another answer"

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(request, range(REQUESTS)))
    for client in clients:
        client.close()
    assert {x: answers.count(x) for x in answers} == {"right": 450, "refused": 50}
    # The metrics follow the answers.
    wait_for(
        lambda: read_metrics(server)["nv_inference_count"] - images == 450, seconds=20
    )
    assert stubs(server) == stubs_before
