"""Ports on the loopback address."""

import socket

from embedded_triton.errors import TritonServerError


def free_ports(count=3):
    """Ports on 127.0.0.1 that nobody uses, all different.

    Args:
        count: how many.

    Returns:
        A list of port numbers.
    """
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def check_free(ports):
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise TritonServerError(
                    f"port {port} on 127.0.0.1 cannot be used ({error.strerror}): stop "
                    "what listens there, or pass other ports, or none for free ones"
                ) from None
