"""Say what is wrong with a model repository before a server does.

    python -m repository_check model_repository/

From Python:

- ``check(repository, models=None, server=None)`` returns a list of ``Finding``;
- ``Finding`` says in which file and line, what was found, what was expected and how
  to repair it; its ``severity`` is ``ERROR`` where the server refuses the model, and
  ``WARNING`` where the server accepts what a user hardly wants;
- ``server_features(kind)`` says what a kind of server can do, as ``ServerFeatures``;
  without it, ``check`` applies only what holds for any server;
- ``gpu_count()`` counts the GPUs that the driver shows.

Every error is a refusal of Triton's, seen with release 24.10. Rare features are left
to the server.

To add a rule, write a function that takes a ``ModelFolder`` and calls its
``add_error`` or ``add_warning``, and put the function into ``RULES`` in checker.py.
The tests of its module have a table CASES: add one good and one bad case there.

The folder stands alone and may be copied into another project, at any depth. It needs
the packages ``onnx``, ``protobuf`` and ``tritonclient[grpc]``.
"""

from .checker import check
from .findings import ERROR, WARNING, Finding
from .servers import ServerFeatures, gpu_count, server_features

__all__ = [
    "ERROR",
    "WARNING",
    "Finding",
    "ServerFeatures",
    "check",
    "gpu_count",
    "server_features",
]
