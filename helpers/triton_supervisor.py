"""Run a command until its owner says stop, or ends; leave no process behind.

``triton_server`` is the owner, the parent of this process. Its ``stop()`` writes to
standard input. However else the owner ends, by an exception, a kernel restart or
``kill -9``, this process gets another parent, and the server ends too. A server that
dies by itself leaves its Python stubs behind, and they ignore SIGTERM: so the whole
process group is killed at the end, either way.

    python triton_supervisor.py SHM_PREFIX COMMAND [ARGUMENT ...]

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


def end_with_supervisor():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main(shm_prefix, *command):
    owner = os.getppid()
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a process group of its own, stubs included
        preexec_fn=end_with_supervisor,
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
