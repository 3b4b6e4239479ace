"""What notebook 15 teaches about a server in service, held against a running one."""

import http.client
import itertools
import json
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import psutil
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from google.protobuf import json_format
from onnx import helper, numpy_helper
from tritonclient.utils import InferenceServerException

import embedded_triton
from conftest import make_model, started, taught
from helpers import triton_config

pytestmark = pytest.mark.server

CONFIG = """\
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching { max_queue_delay_microseconds: 2000 }
version_policy { latest { num_versions: 2 } }
"""
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
LATEST, ONE = "latest { num_versions: 2 }", "specific { versions: [ 1 ] }"


def add_version(folder, factor):
    """Version N of a model multiplies by this factor; moved in whole."""
    model = make_model(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [("x", ["batch", 4])],
        [("y", ["batch", 4])],
        [numpy_helper.from_array(np.float32(factor), "factor")],
    )
    staged = folder.parent.parent / f"staged_{factor}"
    staged.mkdir()
    onnx.save(model, staged / "model.onnx")
    staged.rename(folder / str(factor))


def request(value=1.0, client=grpcclient):
    tensor = client.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.full((1, 4), value, np.float32))
    return [tensor]


def raw_request(address, model):
    """A request over HTTP without a client library; its status and body."""
    connection = http.client.HTTPConnection(*address.split(":"), timeout=30)
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}
    body = json.dumps({"inputs": [tensor]})
    connection.request("POST", f"/v2/models/{model}/infer", body)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def as_json(text):
    return json_format.MessageToJson(triton_config.parse(text))


def states(client):
    index = client.get_model_repository_index().models
    return {(x.name, x.version): x.state for x in index}


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def answer_of(call):
    """The status and the words of an error, or None."""
    try:
        call()
    except InferenceServerException as error:
        return error.status(), error.message()


@pytest.fixture
def repository(tmp_path):
    """One model, ``factor``, whose version N multiplies by N; version 1 only."""
    repository = tmp_path / "repository"
    triton_config.write(CONFIG, repository / "factor")
    add_version(repository / "factor", 1)
    return repository


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


class Clients:
    """Four clients without a break; each answer is a (version, factor, error)."""

    def __init__(self, address):
        self.answers, self.done = [], threading.Event()
        self.threads = [
            threading.Thread(target=self.ask, args=(address,)) for _ in range(4)
        ]

    def ask(self, address):
        with grpcclient.InferenceServerClient(address) as client:
            for value in itertools.cycle([3, 5, 7]):
                try:
                    result = client.infer("factor", request(value))
                    factors = {*(result.as_numpy("y")[0] / value).tolist()}
                    version = result.get_response().model_version
                    self.answers.append((version, factors, None))
                except InferenceServerException as error:
                    self.answers.append((None, None, str(error)))
                if self.done.is_set():
                    return

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exception):
        self.done.set()
        for thread in self.threads:
            thread.join()

    def count(self, version, start=0):
        return sum(found == version for found, _, _ in self.answers[start:])


def test_rolling_out_and_back_loses_nothing_and_mixes_nothing(repository):
    folder = repository / "factor"
    with started(repository, models=["factor"]) as server:
        client = grpcclient.InferenceServerClient(server.grpc)

        def counts():
            return client.get_inference_statistics("factor").model_stats

        with Clients(server.grpc) as clients:
            wait_for(lambda: clients.count("1") > 50)
            add_version(folder, 2)
            client.load_model("factor")
            wait_for(lambda: clients.count("2") > 50)
            pinned = as_json(CONFIG.replace(LATEST, ONE))
            client.load_model("factor", config=pinned)
            time.sleep(0.5)
            before = len(clients.answers)
            client.load_model("factor")  # no file has changed: nothing happens
            assert states(client)["factor", "2"] != "READY"
            wait_for(lambda: clients.count("1", before) > 4)
            (folder / "config.pbtxt").touch()
            client.load_model("factor")
            wait_for(lambda: clients.count("2", before) > 4)
            # batches are formed, so requests of two versions could have been mixed
            wait_for(
                lambda: all(x.execution_count < x.inference_count for x in counts())
            )
        assert states(client) == {("factor", "1"): "READY", ("factor", "2"): "READY"}
        assert {x.version for x in counts()} == {"1", "2"}
        named = {
            version: client.infer("factor", request(), model_version=version)
            for version in ("1", "2", "")
        }
        add_version(folder, 3)
        client.load_model("factor")
        wait_for(lambda: states(client)["factor", "1"] == "UNAVAILABLE")
        gone = answer_of(lambda: client.infer("factor", request(), model_version="1"))
        client.close()
    assert [x.as_numpy("y")[0, 0] for x in named.values()] == [1, 2, 2]
    assert gone == (  # and NOT_FOUND where the server never had it
        "StatusCode.UNAVAILABLE",
        "Request for unknown model: 'factor' version 1 is not at ready state",
    )
    assert not [error for _, _, error in clients.answers if error]
    assert all(factors == {float(v)} for v, factors, _ in clients.answers)
    assert {version for version, _, _ in clients.answers[before:]} == {"1", "2"}


def test_polling_follows_whatever_it_finds(repository, tmp_path):
    folder = repository / "factor"
    arguments = ["--model-control-mode=poll", "--repository-poll-secs=1"]
    with started(repository, arguments=arguments) as server:
        client = grpcclient.InferenceServerClient(server.grpc)
        add_version(folder, 2)
        whole = (folder / "2" / "model.onnx").read_bytes()
        (folder / "2" / "model.onnx").write_bytes(whole[:50])
        wait_for(lambda: states(client).get(("factor", "2")) == "UNAVAILABLE")
        assert client.infer("factor", request()).as_numpy("y")[0, 0] == 1
        (folder / "2" / "model.onnx").write_bytes(whole)
        wait_for(lambda: states(client)["factor", "2"] == "READY")
        assert client.infer("factor", request()).as_numpy("y")[0, 0] == 2
        refused = answer_of(lambda: client.load_model("factor"))
        folder.rename(tmp_path / "away")  # as some synchronisations do
        wait_for(lambda: not client.is_model_ready("factor"))
        (tmp_path / "away").rename(folder)
        wait_for(lambda: client.is_model_ready("factor"))
        client.close()
    assert refused == (
        "StatusCode.UNAVAILABLE",
        "explicit model load / unload is not allowed if polling is enabled",
    )


def test_the_cache_does_not_notice_a_new_file(repository):
    folder = repository / "factor"
    triton_config.write(CONFIG + "response_cache { enable: true }", folder)
    arguments = ["--cache-config=local,size=1048576"]
    with started(repository, ["factor"], arguments=arguments) as server:
        client = grpcclient.InferenceServerClient(server.grpc)
        for _ in range(3):
            client.infer("factor", request(3))
        time.sleep(0.5)
        (counts,) = client.get_inference_statistics("factor").model_stats
        add_version(folder, 7)
        shutil.copy(folder / "7/model.onnx", folder / "1/model.onnx")
        shutil.rmtree(folder / "7")
        client.load_model("factor")
        found = [client.infer("factor", request(x)).as_numpy("y")[0, 0] for x in (3, 4)]
        client.close()
    hits, misses = (
        x.count
        for x in (counts.inference_stats.cache_hit, counts.inference_stats.cache_miss)
    )
    assert (hits, misses, counts.execution_count) == (2, 1, 1)
    assert found == [3, 28]  # the old file's answer, and the new one's


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
          max_queue_size: 1 timeout_action: REJECT default_timeout_microseconds: 100000
        } }"""
    config = SLOW.replace("count: 2", "count: 1") + policy
    triton_config.write(config, slow_repository / "slow")
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


# ------------------------------------------------------------- the client's retry


@pytest.fixture(scope="module")
def infer():
    """The function that notebook 15 gives away."""
    return taught("15_operate_a_server", "\ndef infer(")["infer"]


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
