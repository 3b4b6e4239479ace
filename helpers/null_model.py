"""A model that does nothing, to measure what is not the model."""

import re
from pathlib import Path

MODEL = """\
import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.outputs = [
            (x["name"], x["dims"], pb_utils.triton_string_to_numpy(x["data_type"]))
            for x in json.loads(args["model_config"])["output"]
        ]

    def execute(self, requests):
        time.sleep({seconds})
        return [self.answer(len(x.inputs()[0].as_numpy())) for x in requests]

    def answer(self, batch):
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor(name, np.zeros((batch, *map(int, dims)), kind))
                for name, dims, kind in self.outputs
            ]
        )
"""


def write_null_model(repository, name, config, seconds=0):
    """Write a model that has the tensors of another one and answers with zeros.

    Its throughput is the most that client, wire and server can carry without a model;
    or, made slow, one that is known: 1 / ``seconds`` runs a second at most.

    Args:
        repository: a model repository.
        name: of the new model.
        config: text of the other model's config.
        seconds: that a run takes, on every machine.

    Raises:
        ValueError: the config names no backend, or does not allow batches.
    """
    text, changed = re.subn(r'backend: *"\w+"', 'backend: "python"', config)
    if not changed or not re.search(r"max_batch_size: *[1-9]", config):
        raise ValueError(
            "the config has to hold backend and a max_batch_size above 0, and is\n"
            + config
        )
    folder = Path(repository, name)
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "1" / "model.py").write_text(MODEL.replace("{seconds}", str(seconds)))
    (folder / "config.pbtxt").write_text(text)
