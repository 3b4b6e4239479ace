"""Run a command until its owner says stop, or ends; leave no process behind.

The owner is the parent of this process, the one that called ``start_supervised``. To
stop the command it writes to standard input. However else the owner ends, by an
exception, a kernel restart or ``kill -9``, this process gets another parent, and the
command ends too. A server that
dies by itself leaves its Python stubs behind, and they ignore SIGTERM: so the whole
process group is killed at the end, either way.

    python supervisor.py SHM_PREFIX COMMAND [ARGUMENT ...]

Exits with the command's own status. Files that the killed processes left in
``/dev/shm`` under SHM_PREFIX are removed.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

GRACE = 15  # seconds from SIGTERM to SIGKILL; Triton drains its requests meanwhile
PR_SET_PDEATHSIG = 1  # prctl(2)


def start_supervised(name, command, log, environment=None):
    """Start a program that ends with this process at the latest.

    Args:
        name: prefix of what it leaves in ``/dev/shm``, which is removed at its end.
        command: list of arguments, the program first.
        log: path of the file for what it prints.
        environment: its variables; None for those of this process.

    Returns:
        The ``subprocess.Popen`` of the supervisor, which ends the program when it reads
        ``stop``.
    """
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, __file__, name, *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupted cell does not interrupt the server
        )


def end_with_supervisor():
    """Have Linux end the server where the supervisor is killed; macOS cannot."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main(shm_prefix, *command):
    owner = os.getppid()
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a process group of its own, stubs included
        preexec_fn=end_with_supervisor if sys.platform == "linux" else None,
    )

    def stop_when_owner_goes():
        # Not the pipe's end alone: a forked child of the owner may hold it open.
        while os.getppid() == owner and not select.select([sys.stdin], [], [], 1)[0]:
            pass
        server.terminate()
        try:
            server.wait(GRACE)
        except subprocess.TimeoutExpired:
            server.kill()

    threading.Thread(target=stop_when_owner_goes, daemon=True).start()
    status = server.wait()
    try:
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # nobody is left
    for region in Path("/dev/shm").glob(f"{shm_prefix}*"):
        region.unlink(missing_ok=True)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
