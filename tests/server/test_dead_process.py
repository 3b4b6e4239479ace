"""A model that loses its Python process: Triton is silent, the supervisor is not."""

import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import psutil
import pytest
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

import embedded_triton
from conftest import DOUBLE, ask_to_double, started, wait_for
from embedded_triton import TritonServerError, supervisor

pytestmark = pytest.mark.server

ONE_PROCESS = DOUBLE + "instance_group [ { count: 1 kind: KIND_CPU } ]\n"
X = np.ones((1, 4), np.float32)


def kill_process(server):
    """SIGKILL to one process of the server's models.

    The supervisor has to have seen it alive: a zombie no longer tells its model.
    """
    time.sleep(2 * supervisor.INTERVAL)
    (process, *_) = [
        child
        for child in psutil.Process(server.pid).children()
        if "triton_python_backend_stub" in " ".join(child.cmdline())
    ]
    process.kill()


def status(server, path):
    try:
        with urllib.request.urlopen(f"http://{server.http}{path}", timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:  # nobody is there
        return None


@contextmanager
def keep_asking(server):
    """Ask a model again and again; yields a list of (when asked, whether answered)."""
    answers, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            begin = time.monotonic()
            try:
                ask_to_double(server, X)
            except (InferenceServerException, OSError):
                answers.append((begin, False))
            else:
                answers.append((begin, True))
            time.sleep(0.01)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        stop.set()
        thread.join()


def test_a_lost_process_is_reported(make_repository):
    repository = make_repository({"double": ONE_PROCESS})
    with started(repository, models=["double"]) as server:
        assert server.is_alive() and server.dead_models == []
        kill_process(server)
        wait_for(lambda: server.dead_models == ["double"], seconds=5)
        assert not server.is_alive()
        with pytest.raises(TritonServerError, match="a process of double has ended"):
            server.check_models()
        # What Triton 24.10 says itself:
        assert status(server, "/v2/health/ready") == 200
        assert status(server, "/v2/models/double/ready") == 200
        with pytest.raises(InferenceServerException, match="is not healthy"):
            ask_to_double(server, X)
        text = urllib.request.urlopen(f"http://{server.metrics}/metrics").read()
        failures = b'nv_inference_request_failure{model="double",reason="BACKEND"'
        assert failures + b',version="1"} 1' in text
        # Its owner may repair it by hand.
        with httpclient.InferenceServerClient(server.http) as client:
            client.unload_model("double")
            client.load_model("double")
        wait_for(server.is_alive, seconds=5)
        assert np.array_equal(ask_to_double(server, X), 2 * X)


def test_a_lost_process_is_replaced(make_repository):
    """Only what was asked while it was down is lost."""
    repository = make_repository({"double": ONE_PROCESS})
    with started(repository, models=["double"], repair=True) as server:
        with keep_asking(server) as answers:
            wait_for(lambda: len(answers) > 5)
            killed = time.monotonic()
            kill_process(server)
            wait_for(lambda: server.dead_models, seconds=10)
            noticed = time.monotonic() - killed
            wait_for(server.is_alive, seconds=30)
            repaired = time.monotonic()
            wait_for(lambda: answers[-1][0] > repaired + 0.5)
        lost = [when for when, answered in answers if not answered]
        assert lost and killed - 1 < min(lost) and max(lost) < repaired
        print(f"noticed {noticed:.2f} s, repaired {repaired - killed:.2f} s")


def test_a_server_without_model_control_is_ended(make_repository):
    repository = make_repository({"double": ONE_PROCESS})
    with started(repository, repair=True) as server:
        kill_process(server)
        wait_for(lambda: server._supervisor.poll() is not None)
        assert status(server, "/v2/health/ready") is None
        assert "the server is ended" in server.log.read_text()


def test_what_is_unloaded_is_not_reported(make_repository):
    repository = make_repository({"double": ONE_PROCESS})
    with started(repository, models=["double"], repair=True) as server:
        with httpclient.InferenceServerClient(server.http) as client:
            for _ in range(2):
                client.unload_model("double")
                client.load_model("double")
        time.sleep(supervisor.INTERVAL * (supervisor.LOOKS + 1))
        assert "supervisor:" not in server.log.read_text()


class Silent(BaseHTTPRequestHandler):
    """A server that is ready, and never finishes a load."""

    def do_GET(self):
        self.send_response(200 if self.path == "/v2/health/ready" else 400)
        self.end_headers()

    def do_POST(self):
        time.sleep(1)

    def log_message(self, *arguments):
        pass


def test_a_load_that_does_not_end_is_told(monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as silent:
        threading.Thread(target=silent.serve_forever, daemon=True).start()
        monkeypatch.setenv("TUTORIAL_TRITON", f"127.0.0.1:{silent.server_port}")
        monkeypatch.setattr(embedded_triton.server, "LOAD_TIMEOUT", 0.2)
        with pytest.raises(TritonServerError, match=r"did not load double in 0\.2 s"):
            embedded_triton.serve(["double"])
        silent.shutdown()


def test_folders_of_killed_servers_are_removed(tmp_path):
    (tmp_path / "python_env_abcdef").mkdir()
    (tmp_path / "python_env_ABCDEF").mkdir()
    (tmp_path / "python_env_ABCDEF" / "bin").mkdir()  # in use
    supervisor.remove_environments(tmp_path)
    assert [x.name for x in tmp_path.iterdir()] == ["python_env_ABCDEF"]
