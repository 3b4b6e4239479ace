"""What lesson 16 teaches about a server in service, held against a running one."""

import http.client
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from served import answer_of, raw_request, request
from tritonclient.utils import InferenceServerException

import embedded_triton
from conftest import started, taught, wait_for
from helpers import triton_config

pytestmark = pytest.mark.server

SLOW = """\
backend: "python"
max_batch_size: 1
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
instance_group [ { count: 2 kind: KIND_CPU } ]
"""
SLOW_MODEL = """\
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        time.sleep(1)
        values = [request.inputs()[0].as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x)]) for x in values]
"""


@pytest.fixture
def slow_repository(tmp_path):
    """A model ``slow`` that takes a second, in two instances, and a fast copy."""
    repository = tmp_path / "repository"
    for name, text in (
        ("slow", SLOW_MODEL),
        ("fast", SLOW_MODEL.replace("sleep(1)", "sleep(0)")),
    ):
        triton_config.write(SLOW, repository / name)
        (repository / name / "1").mkdir()
        (repository / name / "1" / "model.py").write_text(text)
    return repository


def test_a_stopping_server_finishes_what_runs(slow_repository):
    with ThreadPoolExecutor() as pool:
        server = embedded_triton.start(slow_repository)
        client = grpcclient.InferenceServerClient(server.grpc)
        running = pool.submit(client.infer, "slow", request())
        time.sleep(0.3)
        stopped = pool.submit(server.stop)
        time.sleep(0.3)
        not_ready = answer_of(client.is_server_ready)
        refused = answer_of(lambda: client.infer("fast", request()))
        with pytest.raises(ConnectionRefusedError):
            httpclient.InferenceServerClient(server.http).is_server_ready()
        assert running.result().as_numpy("y")[0, 0] == 1
        stopped.result()
        client.close()
    assert not_ready == ("StatusCode.UNAVAILABLE", "Server exiting")
    assert refused == (
        "StatusCode.NOT_FOUND",
        "Request for unknown model: 'fast' has no available versions",
    )


def test_an_idle_http_connection_holds_the_exit(slow_repository):
    with ThreadPoolExecutor() as pool:
        server = embedded_triton.start(slow_repository)
        idle = http.client.HTTPConnection(*server.http.split(":"))
        idle.request("GET", "/v2/health/live")
        idle.getresponse().read()
        client = grpcclient.InferenceServerClient(server.grpc)
        running = pool.submit(raw_request, server.http, "slow")
        time.sleep(0.3)
        stopped = pool.submit(server.stop)
        time.sleep(0.3)
        assert client.is_server_ready()  # it says so, and takes requests
        assert client.infer("fast", request()).as_numpy("y")[0, 0] == 1
        status, body = running.result()
        assert (status, body["outputs"][0]["data"]) == (200, [1, 1, 1, 1])
        assert not stopped.done()
        stopped.result()
        client.close()
        idle.close()


def test_what_outlasts_the_exit_timeout_is_lost(slow_repository):
    arguments = ["--exit-timeout-secs=0"]
    with (
        embedded_triton.start(slow_repository, arguments=arguments) as server,
        ThreadPoolExecutor() as pool,
    ):
        running = pool.submit(raw_request, server.http, "slow")
        time.sleep(0.3)
        server.stop()
        with pytest.raises((http.client.HTTPException, OSError)):
            running.result()


def test_a_queue_policy_refuses_with_unavailable(slow_repository):
    policy = """
        dynamic_batching { default_queue_policy {
          max_queue_size: 1 timeout_action: REJECT default_timeout_microseconds: 800000
        } }"""
    config = SLOW.replace("count: 2", "count: 1") + policy
    triton_config.write(config, slow_repository / "slow")
    # With a policy, an idle instance may look only twice a second: lesson 11
    file = slow_repository / "slow/1/model.py"
    file.write_text(SLOW_MODEL.replace("sleep(1)", "sleep(2)"))
    with (
        started(slow_repository, models=["slow"]) as server,
        grpcclient.InferenceServerClient(server.grpc) as client,
        ThreadPoolExecutor() as pool,
    ):
        calls = []
        for _ in range(4):
            call = pool.submit(answer_of, lambda: client.infer("slow", request()))
            calls.append(call)
            time.sleep(0.05)
        found = [call.result() for call in calls]
    assert found[0] is None
    assert {status for status, _ in found[1:]} == {"StatusCode.UNAVAILABLE"}
    words = " ".join(message for _, message in found[1:])
    assert "Exceeds maximum queue size" in words
    assert "Request timeout expired" in words


ENSEMBLE = """\
platform: "ensemble"
max_batch_size: 1
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
ensemble_scheduling { step [ {
  model_name: "returns" model_version: -1
  input_map { key: "x" value: "x" } output_map { key: "y" value: "y" }
} ] }
"""
RETURNS = """\
        error = pb_utils.TritonError("no", pb_utils.TritonError.INVALID_ARG)
        return [pb_utils.InferenceResponse(error=error) for _ in requests]
"""


def test_which_errors_the_server_counts(slow_repository):
    """What a Python model raises is a failure, and what it returns is a success."""
    read_counter = taught("16_watch_and_protect", "def read_counter(")["read_counter"]
    head = SLOW_MODEL.partition("        time.sleep")[0]
    for name, end in ("raises", "        raise ValueError\n"), ("returns", RETURNS):
        triton_config.write(SLOW, slow_repository / name)
        (slow_repository / name / "1").mkdir()
        (slow_repository / name / "1/model.py").write_text(head + end)
    triton_config.write(ENSEMBLE, slow_repository / "together")
    (slow_repository / "together/1").mkdir()
    models = ["raises", "together"]
    with (
        started(slow_repository, models=models) as server,
        grpcclient.InferenceServerClient(server.grpc) as client,
    ):

        def count(model):
            counters = (f"nv_inference_request_{x}" for x in ("success", "failure"))
            return tuple(read_counter(server.metrics, x, model) for x in counters)

        for model in "raises", "returns", "together":
            with pytest.raises(InferenceServerException):
                client.infer(model, request())
        wait_for(lambda: count("together")[1])
        assert count("raises") == (0, 1)
        assert count("returns") == (2, 0)  # one of them by way of the ensemble
        assert count("together") == (0, 2)  # as documented


# ------------------------------------------------------------- the client's retry


@pytest.fixture(scope="module")
def infer():
    """The function that notebook 16 gives away."""
    return taught("16_watch_and_protect", "\ndef infer(")["infer"]


class Script:
    """A client that answers with these errors in turn, and then with 42."""

    def __init__(self, *errors):
        self.errors, self.timeouts = list(errors), []

    def infer(self, model, inputs, client_timeout):
        self.timeouts.append(client_timeout)
        if self.errors:
            status, words = self.errors.pop(0)
            raise InferenceServerException(words, f"StatusCode.{status}")
        return 42


GONE = "UNAVAILABLE", "failed to connect to all addresses"
STOPPING = "NOT_FOUND", "Request for unknown model: 'm' has no available versions"
UNKNOWN = "NOT_FOUND", "Request for unknown model: 'm' is not found"
WRONG = "INVALID_ARGUMENT", "unexpected inference input 'x' for model 'm'"
LATE = "DEADLINE_EXCEEDED", "Deadline Exceeded"


def test_a_retry_goes_on_until_there_is_an_answer(infer):
    script = Script(GONE, STOPPING, GONE)
    assert infer(script, "m", []) == 42
    assert len(script.timeouts) == 4
    assert script.timeouts == sorted(script.timeouts, reverse=True)  # one deadline


@pytest.mark.parametrize("error", [UNKNOWN, WRONG, LATE], ids=lambda x: x[0])
def test_what_cannot_get_better_is_raised_at_once(infer, error):
    script = Script(error)
    with pytest.raises(InferenceServerException, match=error[1]):
        infer(script, "m", [])
    assert len(script.timeouts) == 1


def test_a_retry_ends_at_the_deadline(infer):
    begin, script = time.monotonic(), Script(*50 * [GONE])
    with pytest.raises(InferenceServerException, match="failed to connect"):
        infer(script, "m", [], seconds=0.5)
    assert time.monotonic() - begin < 2
    assert len(script.timeouts) > 1
    assert all(timeout > 0 for timeout in script.timeouts)


# ---------------------------------------------------------------------- the doors

OPERATORS = "model-repository,model-config,shared-memory,statistics,trace,logging"


def make_certificate(folder, name):
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes"]
    command += ["-days", "1", "-subj", f"/CN={name}"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    files = folder / f"{name}.key", folder / f"{name}.pem"
    command += ["-keyout", str(files[0]), "-out", str(files[1])]
    subprocess.run(command, check=True, capture_output=True)
    return tuple(map(str, files))


def test_a_guarded_server(slow_repository, tmp_path):
    key, certificate = make_certificate(tmp_path, "server")
    own_key, own_certificate = make_certificate(tmp_path, "client")
    doors = [
        "--grpc-use-ssl-mutual=true",
        f"--grpc-server-key={key}",
        f"--grpc-server-cert={certificate}",
        f"--grpc-root-cert={own_certificate}",
        f"--http-restricted-api={OPERATORS}:admin-key=secret",
        f"--grpc-restricted-protocol={OPERATORS}:admin-key=secret",
    ]
    with started(slow_repository, ["fast"], arguments=doors) as server:
        known = grpcclient.InferenceServerClient(
            server.grpc,
            ssl=True,
            root_certificates=certificate,
            private_key=own_key,
            certificate_chain=own_certificate,
        )
        assert known.infer("fast", request()).as_numpy("y")[0, 0] == 1
        for stranger in (
            grpcclient.InferenceServerClient(server.grpc),
            grpcclient.InferenceServerClient(server.grpc, ssl=True),
            grpcclient.InferenceServerClient(
                server.grpc, ssl=True, root_certificates=certificate
            ),
        ):
            status, _ = answer_of(
                lambda x=stranger: x.infer("fast", request(), client_timeout=5)
            )
            assert status == "StatusCode.UNAVAILABLE"
            stranger.close()
        header = {"triton-grpc-protocol-admin-key": "secret"}
        known.load_model("slow", headers=header)
        over_http = httpclient.InferenceServerClient(server.http)
        assert over_http.is_model_ready("slow")
        assert over_http.get_model_metadata("slow")["name"] == "slow"
        for client, expected in (
            (known, "StatusCode.UNAVAILABLE"),
            (over_http, "403"),
        ):
            for call in (
                lambda x=client: x.load_model("slow"),
                lambda x=client: x.unload_model("fast"),
                client.get_model_repository_index,
                lambda x=client: x.get_model_config("fast"),
                client.get_system_shared_memory_status,
                client.get_inference_statistics,
                client.get_trace_settings,
                client.get_log_settings,
                lambda x=client: x.load_model("slow", headers={"admin-key": "wrong"}),
            ):
                status, words = answer_of(call)
                assert status == expected and "is restricted" in words
            client.close()


def listening(process):
    """Addresses on which a process and its children listen, or receive datagrams."""
    return [
        socket.laddr
        for each in (process, *process.children(recursive=True))
        for socket in each.net_connections("inet")
        if socket.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
    ]


def test_nobody_listens_beyond_this_machine(slow_repository):
    with started(slow_repository) as server:
        url = f"http://{server.metrics}/metrics"
        wait_for(lambda: embedded_triton.server._answers(url))  # the last to listen
        addresses = listening(psutil.Process(server._supervisor.pid))
    ports = {int(x.split(":")[1]) for x in (server.http, server.grpc, server.metrics)}
    assert {x.port for x in addresses} == ports
    assert {x.ip for x in addresses} <= {"127.0.0.1", "::ffff:127.0.0.1"}
