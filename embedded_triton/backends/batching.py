"""Run concurrent requests as one batch. Lies beside each backend in the server."""

import numpy as np
import triton_python_backend_utils as pb_utils


class BatchingModel:
    """What the stand-in backends have in common.

    A backend sets ``batches`` (whether the first axis is a batch) and defines
    ``compute(names, feed)`` and ``words(error)``. A feed has the arrays of a request,
    or of a batch, by name.
    """

    decoupled = False

    def execute(self, requests):
        """Answer a batch of requests, each with one response."""
        responses = self.respond(requests)
        if not self.decoupled:
            return responses
        for request, response in zip(requests, responses):
            request.get_response_sender().send(
                response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            )

    def respond(self, requests):
        """Run requests in one go; where that fails, one at a time."""
        if self.batches and len(requests) > 1:
            try:
                return self.run(requests)
            except Exception:  # one bad request must not fail its neighbours
                pass
        return [response for request in requests for response in self.run_one(request)]

    def run_one(self, request):
        try:
            return self.run([request])
        except Exception as error:
            error = pb_utils.TritonError(self.words(error))
            return [pb_utils.InferenceResponse(error=error)]

    def run(self, requests):
        feeds = [self.feed(request) for request in requests]
        wanted = [request.requested_output_names() for request in requests]
        names = self.names(set().union(*wanted))
        values = dict(zip(names, self.compute(names, self.gather(feeds))))
        parts = self.scatter(values, feeds)
        self.remember(requests, parts)
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, part[name]) for name in sorted(own)]
            )
            for own, part in zip(wanted, parts)
        ]

    def names(self, wanted):
        """The outputs to compute where these are wanted."""
        return sorted(wanted)

    def feed(self, request):
        return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}

    def gather(self, feeds):
        """One feed for the batch."""
        if len(feeds) == 1:
            return feeds[0]
        return {name: self.join([feed[name] for feed in feeds]) for name in feeds[0]}

    def join(self, arrays):
        return np.concatenate(arrays)

    def scatter(self, values, feeds):
        """The outputs of each request, a list of dicts."""
        if len(feeds) == 1:
            return [values]
        ends = np.cumsum([len(next(iter(feed.values()))) for feed in feeds])
        if any(len(value) != ends[-1] for value in values.values()):
            raise ValueError("the first axis of an output is not the batch")
        return [
            {name: value[begin:end] for name, value in values.items()}
            for begin, end in zip([0, *ends], ends)
        ]

    def remember(self, requests, parts):
        """Keep what a next request of the same sequence needs: here nothing."""
