"""However a server or its owner ends, nothing is left."""

import os
import queue
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpcclient

import embedded_triton
from conftest import DOUBLE, NULL_CONFIG, ask_to_double, triton_processes
from embedded_triton import TritonServerError
from embedded_triton.supervisor import start_supervised
from helpers.null_model import write_null_model

pytestmark = pytest.mark.server


def shared_memory(prefix):
    return list(Path("/dev/shm").glob(f"{prefix}*"))


def shm_prefix(server):
    (prefix,) = {x.partition("shm-region-prefix-name=")[2] for x in server.command} - {
        ""
    }
    return prefix


def kill(server):
    """SIGKILL to the server itself, not to its supervisor."""
    (tritonserver,) = psutil.Process(server._supervisor.pid).children()
    tritonserver.kill()


def nothing_new(before, seconds=5):
    """Whether all that started since is gone; what is killed stays for a moment."""
    return wait_until(lambda: {*triton_processes()} <= {*before}, seconds)


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def test_stop_leaves_nothing(make_repository):
    before = triton_processes()
    server = embedded_triton.start(make_repository({"double": DOUBLE}))
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    assert np.array_equal(ask_to_double(server, x), 2 * x)
    assert shared_memory(shm_prefix(server))
    server.stop()
    server.stop()  # a second time does nothing
    assert not server.is_alive()
    assert nothing_new(before)
    assert not shared_memory(shm_prefix(server))
    ports = server.ports  # which are free again
    embedded_triton.start(models=[], ports=ports).stop()


OWNER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
import embedded_triton
server = embedded_triton.start(sys.argv[1])
print(server.http, flush=True)
time.sleep(600)
"""


def start_owner(repository):
    """A process that starts a server on this repository, and keeps it."""
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, str(repository)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def wait_for_its_server(owner):
    assert owner.stdout.readline().startswith("127.0.0.1:")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_ends_with_its_owner(make_repository, number):
    before = triton_processes()
    owner = start_owner(make_repository({"double": DOUBLE}))
    wait_for_its_server(owner)
    assert len(triton_processes()) > len(before)
    owner.send_signal(number)
    owner.wait(timeout=60)
    assert nothing_new(before, seconds=40)
    assert wait_until(lambda: not shared_memory(f"triton-{owner.pid}-"))


def test_twenty_starts_and_stops_leave_nothing(make_repository):
    before = triton_processes()
    repository = make_repository({"double": DOUBLE})
    x = np.ones((1, 4), np.float32)

    def cycle(_):
        with embedded_triton.start(repository) as server:
            assert np.array_equal(ask_to_double(server, x), 2 * x)
        return shm_prefix(server)

    with ThreadPoolExecutor(10) as pool:
        prefixes = list(pool.map(cycle, range(20)))
    assert nothing_new(before)
    assert not any(map(shared_memory, prefixes))


def test_five_killed_owners_leave_nothing(make_repository):
    before = triton_processes()
    repository = make_repository({"double": DOUBLE})
    owners = [start_owner(repository) for _ in range(5)]
    for owner in owners:
        wait_for_its_server(owner)
    for owner in owners:
        owner.kill()
        owner.wait()
    assert nothing_new(before, seconds=40)
    assert not any(shared_memory(f"triton-{owner.pid}-") for owner in owners)


def test_a_request_to_a_server_that_is_killed_ends_with_an_error(tmp_path):
    write_null_model(tmp_path, "endless", NULL_CONFIG)
    file = tmp_path / "endless/1/model.py"
    endless = "__import__('time').sleep(600)\n        return [self"
    file.write_text(file.read_text().replace("return [self", endless))
    server = embedded_triton.start(tmp_path)
    client = grpcclient.InferenceServerClient(server.grpc)
    tensor = grpcclient.InferInput("x", (1, 4), "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
    answers = queue.Queue()
    client.async_infer(
        "endless", [tensor], callback=lambda result, error: answers.put(error)
    )
    time.sleep(0.1)  # it is under way by then, or is refused
    kill(server)
    assert "UNAVAILABLE" in str(answers.get(timeout=20))
    server.stop()


def test_a_killed_server_takes_its_stubs_along(make_repository):
    before = triton_processes()
    server = embedded_triton.start(make_repository({"double": DOUBLE}))
    kill(server)
    assert wait_until(lambda: not server.is_alive())
    server.stop()
    assert nothing_new(before)
    assert not shared_memory(shm_prefix(server))


def test_a_server_that_does_not_get_ready_in_time_is_stopped():
    before = triton_processes()
    with pytest.raises(TritonServerError, match="was not ready after 0 s"):
        embedded_triton.start(models=[], timeout=0)
    assert nothing_new(before)


def test_an_interrupted_start_leaves_nothing(monkeypatch):
    def interrupt(http):
        raise KeyboardInterrupt

    before = triton_processes()
    monkeypatch.setattr(embedded_triton.server, "_is_ready", interrupt)
    with pytest.raises(KeyboardInterrupt):
        embedded_triton.start(models=[])
    assert nothing_new(before)


def test_a_forked_child_does_not_keep_the_server():
    with embedded_triton.start(models=[]) as server:
        child = os.fork()
        if child == 0:  # holds what it inherits until it is killed
            time.sleep(60)
            os._exit(0)
        server.stop()
        assert os.waitpid(child, os.WNOHANG) == (0, 0)  # it did not wait for the child
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def is_gone(pid):
    """Whether a process has ended, whether or not its parent has taken notice."""
    return (
        not psutil.pid_exists(pid)
        or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    )


HOLDER = """
import os, pathlib, sys, time
from embedded_triton.supervisor import start_supervised
command = ["sh", "-c", "echo $$; exec sleep 600"]  # prints its process id
supervisor = start_supervised("triton-held-", command, pathlib.Path(sys.argv[1]))
child = os.fork()  # holds the write end of the supervisor's pipe
if child:
    print(child, flush=True)
time.sleep(600)
"""


def test_ends_with_its_owner_though_another_process_holds_the_pipe(tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", HOLDER, str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        child = psutil.Process(int(owner.stdout.readline()))
        assert wait_until(lambda: log.exists() and log.read_text().endswith("\n"))
        owner.kill()
        owner.wait()
        try:
            assert wait_until(lambda: is_gone(int(log.read_text())))
        finally:
            child.kill()  # then the pipe ends as well


def test_ends_with_its_supervisor(tmp_path):
    command = ["sh", "-c", "echo $$; exec sleep 600"]
    log = tmp_path / "log"
    supervisor = start_supervised("triton-held-", command, log)
    assert os.getsid(supervisor.pid) != os.getsid(0)  # Ctrl-C does not reach it
    assert wait_until(lambda: log.read_text().endswith("\n"))
    supervisor.kill()
    supervisor.communicate()
    assert wait_until(lambda: is_gone(int(log.read_text())))


@pytest.mark.parametrize(("what", "status"), [("exit 3", 3), ("kill -9 $$", 137)])
def test_the_status_is_that_of_the_server(tmp_path, what, status):
    command = ["sh", "-c", what]
    supervisor = start_supervised("triton-held-", command, tmp_path / "log")
    assert supervisor.wait() == status
    supervisor.stdin.close()


def test_a_stop_is_a_sigterm(tmp_path):
    """Which lets Triton answer what it has under way."""
    script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done"
    log = tmp_path / "log"
    supervisor = start_supervised("triton-held-", ["sh", "-c", script], log)
    assert wait_until(lambda: log.read_text() == "up\n")
    supervisor.communicate(b"stop", timeout=20)
    assert supervisor.returncode == 5


def test_what_the_server_has_started_ends_with_it(tmp_path):
    log = tmp_path / "log"
    command = ["sh", "-c", "sleep 600 & echo $!"]
    supervisor = start_supervised("triton-held-", command, log)
    assert supervisor.wait(timeout=20) == 0
    supervisor.stdin.close()
    assert wait_until(lambda: is_gone(int(log.read_text())))


IMPATIENT = """
import sys
from embedded_triton import supervisor
supervisor.GRACE = 0.2
sys.exit(supervisor.main("triton-held-", supervisor.REPORT, "sh", "-c", sys.argv[1]))
"""


def test_what_ignores_a_sigterm_is_killed():
    script = "trap '' TERM; echo up; while :; do sleep 0.1; done"
    with subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as supervisor:
        try:
            assert supervisor.stdout.readline() == b"up\n"
            supervisor.communicate(b"stop", timeout=20)
            assert supervisor.returncode == 128 + signal.SIGKILL
        finally:
            supervisor.kill()
