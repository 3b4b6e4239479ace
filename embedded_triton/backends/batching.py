"""Run concurrent requests as one batch. Lies beside each backend in the server."""

import numpy as np
import triton_python_backend_utils as pb_utils


class BatchingModel:
    """What the stand-in backends have in common.

    A backend sets ``batches`` (whether the first axis is a batch) and ``input_names``,
    and defines ``compute(names, feed)`` and ``words(error)``.
    """

    def execute(self, requests):
        """Run a batch of requests in one go; where that fails, one at a time."""
        if self.batches and len(requests) > 1:
            try:
                return self.run_together(requests)
            except Exception:  # one bad request must not fail its neighbours
                pass
        return [self.run_alone(request) for request in requests]

    def run_together(self, requests):
        feeds = [self.feed(request) for request in requests]
        batch = {
            name: self.join([feed[name] for feed in feeds]) for name in self.input_names
        }
        wanted = [request.requested_output_names() for request in requests]
        names = sorted(set().union(*wanted))
        values = dict(zip(names, self.compute(names, batch)))
        ends = np.cumsum([len(feed[self.input_names[0]]) for feed in feeds])
        if any(len(value) != ends[-1] for value in values.values()):
            raise ValueError("the first axis of an output is not the batch")
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, values[name][begin:end]) for name in own]
            )
            for own, begin, end in zip(wanted, [0, *ends], ends)
        ]

    def run_alone(self, request):
        names = sorted(request.requested_output_names())  # Triton gives a set
        try:
            values = self.compute(names, self.feed(request))
            tensors = [pb_utils.Tensor(*pair) for pair in zip(names, values)]
        except Exception as error:
            return pb_utils.InferenceResponse(
                error=pb_utils.TritonError(self.words(error))
            )
        return pb_utils.InferenceResponse(tensors)

    def join(self, parts):
        return np.concatenate(parts)

    def feed(self, request):
        return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
