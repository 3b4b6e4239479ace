"""Run a command until its owner says stop, or ends; leave no process behind.

The owner is the parent of this process, the one that called ``start_supervised``. To
stop the command it writes to standard input. However else the owner ends, by an
exception, a kernel restart or ``kill -9``, this process gets another parent, and the
command ends too. A server that
dies by itself leaves its Python stubs behind, and they ignore SIGTERM: so the whole
process group is killed at the end, either way.

Triton serves each instance of a Python model from a process of its own, and does not
notice where one ends. This process does: it says so in the log, and repairs the model
or ends the server, as the owner chose.

    python supervisor.py SHM_PREFIX REPAIR COMMAND [ARGUMENT ...]

REPAIR is ``report``, ``end``, or the ``host:port`` at which to unload and load a model.
Exits with the command's own status. Files that the killed processes left in
``/dev/shm`` under SHM_PREFIX are removed.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

INTERVAL = 0.25  # seconds between two looks at the server's processes
# A model that is unloaded leaves a zombie too, until Triton has waited for it.
LOOKS = 3
LOAD_TIMEOUT = 60  # seconds
REPORT, END = "report", "end"
ADVICE = "Requests to it fail until the model is unloaded and loaded."
GRACE = 15  # seconds from SIGTERM to SIGKILL; Triton drains its requests meanwhile
PR_SET_PDEATHSIG = 1  # prctl(2)


def start_supervised(name, command, log, environment=None, repair=REPORT):
    """Start a program that ends with this process at the latest.

    Args:
        name: prefix of what it leaves in ``/dev/shm``, which is removed at its end.
        command: list of arguments, the program first.
        log: path of the file for what it prints.
        environment: its variables; None for those of this process.
        repair: what to do about a dead process of a model; see above.

    Returns:
        The ``subprocess.Popen`` of the supervisor, which ends the program when it reads
        ``stop``.
    """
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, __file__, name, repair, *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupted cell does not interrupt the server
        )


def end_with_supervisor():
    """Have Linux end the server where the supervisor is killed; macOS cannot."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class ProcessWatch:
    """The Python processes ("stubs") of a server, and those that have ended."""

    def __init__(self, pid):
        self.pid = pid
        self.known = {}  # process id: model file and instance; a zombie tells no more
        self.looks = {}  # process id: how often it was found dead

    def find_dead(self):
        """Look once.

        Returns:
            The processes that have ended without another in their place: a dict of
            process id and model. Triton keeps their zombies as long as it runs.
        """
        children = set()
        for file in Path(f"/proc/{self.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # that thread has ended
                children |= {int(x) for x in file.read_text().split()}
        for pid in children:
            with contextlib.suppress(OSError):
                arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                if arguments[0].endswith("triton_python_backend_stub"):
                    self.known[pid] = arguments[1], arguments[8]
        self.known = {x: self.known[x] for x in self.known.keys() & children}
        zombies = {pid for pid in self.known if is_zombie(pid)}
        self.looks = {pid: self.looks.get(pid, 0) + 1 for pid in zombies}
        served = {self.known[pid] for pid in self.known.keys() - zombies}
        return {
            pid: Path(self.known[pid][0]).parts[-3]  # of MODEL/VERSION/FILE
            for pid, looks in self.looks.items()
            if looks >= LOOKS and self.known[pid] not in served
        }


def is_zombie(pid):
    with contextlib.suppress(OSError):
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        )
    return False


def reload(address, model):
    """Unload and load a model, over HTTP."""
    for action in "unload", "load":
        url = f"http://{address}/v2/repository/models/{model}/{action}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(url, data=b"{}", timeout=LOAD_TIMEOUT).close()


def end(server):
    server.terminate()
    try:
        server.wait(GRACE)
    except subprocess.TimeoutExpired:
        server.kill()


def repair_or_end(server, repair, models):
    """Load models again; where that cannot be, end the server."""
    reason = "it loads its models at the start alone"
    if repair != END:
        try:
            for model in models:
                reload(repair, model)
            return
        except OSError as error:
            reason = error
    print(f"error: supervisor: the server is ended: {reason}", flush=True)
    end(server)


def watch(server, repair):
    """Report the server's dead processes, and act on them, until it ends."""
    processes, reported = ProcessWatch(server.pid), {}
    while server.poll() is None:
        time.sleep(INTERVAL)
        dead = processes.find_dead()
        for pid in reported.keys() - dead.keys():
            print(f"supervisor: process {pid} of model {reported.pop(pid)} is replaced")
        new = {pid: model for pid, model in dead.items() if pid not in reported}
        reported |= new
        for pid, model in new.items():
            print(
                f"error: supervisor: process {pid} of model {model} has ended. {ADVICE}"
            )
        if new and repair != REPORT:
            repair_or_end(server, repair, sorted({*new.values()}))
        sys.stdout.flush()


def server_runs():
    """Whether a tritonserver runs on this machine."""
    for file in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if file.read_text().strip() == "tritonserver":
                return True
    return False


def remove_environments(folder="/tmp"):
    """Remove the folders for Python environments that killed servers have left."""
    for path in Path(folder).glob("python_env_??????"):
        with contextlib.suppress(OSError):  # it holds something, or is not ours
            path.rmdir()


def main(shm_prefix, repair, *command):
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
        end(server)

    threading.Thread(target=stop_when_owner_goes, daemon=True).start()
    threading.Thread(target=watch, args=(server, repair), daemon=True).start()
    status = server.wait()
    try:
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # nobody is left
    for region in Path("/dev/shm").glob(f"{shm_prefix}*"):
        region.unlink(missing_ok=True)
    if not server_runs():
        remove_environments()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
