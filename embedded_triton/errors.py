"""The one kind of error that this package raises of its own."""


class TritonServerError(RuntimeError):
    """The server cannot be installed, did not start, or cannot be reached."""
