"""The errors that this package raises of its own."""


class TritonServerError(RuntimeError):
    """The server cannot be installed, did not start, or cannot be reached."""


class NotOnThisMachine:
    """Mixed into an error that is the machine's, not the cell's."""

    def _render_traceback_(self):
        """What IPython shows instead of a traceback: nothing in the cell is wrong."""
        return [f"{type(self).__name__}: {self}"]


class NoServerError(NotOnThisMachine, TritonServerError):
    """Neither the embedded server nor a container can be started on this machine."""
