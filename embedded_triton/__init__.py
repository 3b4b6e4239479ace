"""A Triton Inference Server without Docker, or one that runs already.

``install()`` makes its environment, ``start()`` starts it or NVIDIA's container,
``attach()`` uses one that runs elsewhere, and ``serve()`` chooses among them by the
variable ``TUTORIAL_TRITON``. ``find_tritonserver()`` is for who starts it by hand.

The embedded server is the real ``tritonserver`` from the wheel ``nvidia-pytriton``. It
has one C++ backend, for Python models; ``backends/`` adds the others as "Python-based
backends". https://github.com/triton-inference-server/python_backend

This package needs nothing but Python until a server is started.
"""

from embedded_triton.errors import NoServerError, TritonServerError
from embedded_triton.installation import find_tritonserver, install
from embedded_triton.ports import free_ports
from embedded_triton.server import Server, attach, serve, start

__all__ = [
    "NoServerError",
    "Server",
    "TritonServerError",
    "attach",
    "find_tritonserver",
    "free_ports",
    "install",
    "serve",
    "start",
]
