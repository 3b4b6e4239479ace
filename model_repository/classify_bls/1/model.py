"""Classify pictures, but not those that are too small: an answer of its own."""

import asyncio
import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

BEST = 3  # classes in an answer


async def ask(model, tensor, *outputs):
    """Outputs of another model of this server, as arrays."""
    request = pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=list(outputs),
        inputs=[tensor],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    )
    response = await request.async_exec()
    if response.has_error():
        raise RuntimeError(response.error().message())
    found = (pb_utils.get_output_tensor_by_name(response, x) for x in outputs)
    return [x.as_numpy() for x in found]


class TritonPythonModel:
    def initialize(self, args):
        """Read the parameters and the labels."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.classifier = parameters["classifier"]["string_value"]
        self.min_side = int(parameters["min_side"]["string_value"])
        labels = Path(args["model_repository"], "labels.txt")
        self.labels = labels.read_text().splitlines()

    async def execute(self, requests):
        """Answer all requests concurrently."""
        return await asyncio.gather(*map(self.respond, requests))

    async def respond(self, request):
        """The answer to one request, or its error."""
        try:
            answers = await self.classify(request.inputs()[0])
        except Exception as error:  # only this request fails
            code = pb_utils.TritonError.INTERNAL  # a called model's own code is lost
            if str(error).startswith("picture "):  # preprocess refused it
                code = pb_utils.TritonError.INVALID_ARG
            error = pb_utils.TritonError(str(error), code)
            return pb_utils.InferenceResponse(error=error)
        return pb_utils.InferenceResponse([pb_utils.Tensor("classes", answers)])

    async def classify(self, pictures):
        """Best classes of each picture as text: ``0.96:967:espresso``."""
        tensor, size = await ask("preprocess", pictures, "tensor", "size")
        large = size.min(axis=1) >= self.min_side
        answers = np.full((len(size), BEST), b"", object)
        answers[:, 0] = [f"0:-1:too small, {w} × {h}".encode() for w, h in size]
        if large.any():  # the classifier runs for these only
            tensor = pb_utils.Tensor("input", tensor[large])
            (logits,) = await ask(self.classifier, tensor, "logits")
            answers[large] = [self.best(x) for x in logits]
        return answers

    def best(self, logits):
        """The best classes of one picture, with probabilities."""
        exponentials = np.exp(logits - logits.max())
        p = exponentials / exponentials.sum()
        best = np.argsort(-p)[:BEST]
        return [f"{p[i]:.2f}:{i}:{self.labels[i]}".encode() for i in best]
