"""Models and questions that the tests of lessons 15 and 16 share."""

import http.client
import json

import numpy as np
import tritonclient.grpc as grpcclient
from google.protobuf import json_format
from tritonclient.utils import InferenceServerException

from helpers import triton_config


def request(value=1.0, client=grpcclient):
    tensor = client.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.full((1, 4), value, np.float32))
    return [tensor]


def raw_request(address, model):
    """A request over HTTP without a client library; its status and body."""
    connection = http.client.HTTPConnection(*address.split(":"), timeout=30)
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}
    body = json.dumps({"inputs": [tensor]})
    connection.request("POST", f"/v2/models/{model}/infer", body)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def as_json(text):
    return json_format.MessageToJson(triton_config.parse(text))


def states(client):
    index = client.get_model_repository_index().models
    return {(x.name, x.version): x.state for x in index}


def answer_of(call):
    """The status and the words of an error, or None."""
    try:
        call()
    except InferenceServerException as error:
        return error.status(), error.message()
