"""Ports on the loopback address."""

import socket

from embedded_triton.errors import TritonServerError

_handed_out = set()


def free_ports(count=3):
    """Ports on 127.0.0.1 that nobody uses, and that this function never gave before.

    A server listens only a moment after its port was chosen: another one that starts
    meanwhile must not get the same.

    Args:
        count: how many.

    Returns:
        A list of port numbers.
    """
    sockets, ports = [], []
    while len(ports) < count:
        each = socket.socket()
        each.bind(("127.0.0.1", 0))
        sockets.append(each)  # open until all are found, so that each is another one
        port = each.getsockname()[1]
        if port not in _handed_out:
            _handed_out.add(port)
            ports.append(port)
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
