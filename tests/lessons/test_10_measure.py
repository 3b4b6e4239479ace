"""What lessons 10 to 12 say of perf_analyzer, of queue policies and of recordings."""

import queue
import statistics

import numpy as np
import pytest
import tritonclient.grpc as grpcclient

from conftest import started, taught
from helpers import engine, perf_analyzer
from helpers.null_model import write_null_model

LESSON = "10_measure_a_server"


@pytest.fixture
def run_perf_analyzer(tmp_path, monkeypatch):
    """The lesson's function, in a folder like that of the notebooks."""
    from embedded_triton import paths

    for name in "notebooks", "artifacts":
        (tmp_path / name).mkdir()
    (tmp_path / ".venv-triton").symlink_to(paths.ENVIRONMENT)
    monkeypatch.chdir(tmp_path / "notebooks")
    return taught(LESSON, "def run_perf_analyzer(")["run_perf_analyzer"]


def test_an_unstable_measurement_is_told(null_server, run_perf_analyzer):
    with pytest.raises(RuntimeError, match="no three windows agree: close"):
        run_perf_analyzer(null_server.grpc, "nothing", "-p", "50", "-s", "0.0001")


def test_an_error_of_perf_analyzer_is_told(null_server, run_perf_analyzer, tmp_path):
    (tmp_path / "artifacts/report.csv").write_text("p95 latency\n1\n")  # an older one
    with pytest.raises(RuntimeError, match="unknown model: 'nosuch'"):
        run_perf_analyzer(null_server.grpc, "nosuch")


def test_it_reads_what_perf_analyzer_reports(null_server, run_perf_analyzer):
    wide = "-s", "1000000", "-p", "300"
    report, row = run_perf_analyzer(null_server.grpc, "sleeping", *wide)
    throughput = row["Inferences/Second"]
    assert f"Throughput: {throughput} infer/sec" in report
    assert f"p95 latency: {row['p95 latency']} usec" in report
    assert 0 < float(throughput) <= 20 + 1 / 0.3
    assert float(row["p95 latency"]) >= 50_000


def test_the_helper_sends_the_load_of_the_lesson(null_server, run_perf_analyzer):
    """The same protocol, concurrency and window; only the judgement differs."""
    lesson = taught(LESSON, "def run_perf_analyzer(")["run_perf_analyzer"].__code__
    command = perf_analyzer.command("host:1", "m")
    assert "grpc" in lesson.co_consts and "1000" in lesson.co_consts
    assert command[command.index("-i") + 1] == "grpc"
    assert command[command.index("-p") + 1] == "1000"


CONFIG = """\
backend: "python"
max_batch_size: 1
input [ { name: "x"  data_type: TYPE_FP32  dims: [ 1 ] } ]
output [ { name: "y"  data_type: TYPE_FP32  dims: [ 1 ] } ]
instance_group [ { count: 1  kind: KIND_CPU } ]
dynamic_batching { default_queue_policy { POLICY } }
"""
POLICIES = {
    "refusing": "max_queue_size: 2",
    "impatient": "timeout_action: REJECT  default_timeout_microseconds: 100000",
}
SECONDS = 0.2  # that a run takes


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of models that sleep, each with a queue policy."""
    repository = tmp_path_factory.mktemp("repository")
    for name, policy in POLICIES.items():
        config = CONFIG.replace("POLICY", policy)
        write_null_model(repository, name, config, seconds=SECONDS)
    with started(repository) as server:
        yield grpcclient.InferenceServerClient(server.grpc)


def send_at_once(client, model, count):
    """The errors of the requests, None for an answer."""
    tensor = grpcclient.InferInput("x", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 1), np.float32))
    errors = queue.Queue()
    for _ in range(count):
        client.async_infer(model, [tensor], lambda result, error: errors.put(error))
    found = [errors.get(timeout=60) for _ in range(count)]
    return [x and x.message() for x in found]


def test_a_full_queue_refuses(client):
    """One request runs and two wait: of twelve at once most are refused."""
    errors = send_at_once(client, "refusing", 12)
    assert any("Exceeds maximum queue size" in x for x in errors if x)
    assert errors.count(None) >= 2


def test_a_request_that_waits_too_long_is_refused(client):
    errors = send_at_once(client, "impatient", 12)
    assert "Request timeout expired" in errors
    assert errors.count(None) >= 1


def read(name):
    return engine.read_recording(name)


def test_the_recorded_steps_are_what_the_lesson_says():
    recording = read("throughput_steps")
    rates = {
        kind: {
            step: [each["images/s"] for each in rounds]
            for step, rounds in recording[kind].items()
        }
        for kind in ("images/s", "nothing")
    }
    rate, ceiling = rates["images/s"], rates["nothing"]
    one, four, uint8, shared, eight, many, cuda, stay = rate
    median = statistics.median
    assert median(rate[four]) / median(rate[one]) == pytest.approx(3, abs=0.1)
    assert 2 < min(rate[uint8]) / max(rate[four])
    assert min(ceiling[uint8]) > 3 * max(ceiling[four])
    assert min(ceiling[shared]) > max(ceiling[uint8])
    for step, other in (shared, uint8), (stay, many), (cuda, many):  # not told apart
        assert min(rate[step]) < max(rate[other])
        assert max(rate[step]) > min(rate[other])
    sizes = {
        step: median(x["inferences"] / x["runs"] for x in rounds)
        for step, rounds in recording["images/s"].items()
    }
    rounded = [round(sizes[x]) for x in (one, eight, many)]
    assert rounded == [33, 51, 64]
    compute = median(x["compute ms"] for x in recording["images/s"][one])
    assert round(compute, 1) == 26.5
    assert read("resnet50_fp16")["latency ms"]["64"] < 2


def test_the_recorded_curves_are_what_the_lesson_says():
    curves = read("throughput_curves")["curves"]
    rate = {
        name: {int(n): row["images/s"] for n, row in line.items()}
        for name, line in curves.items()
    }
    one = (rate[f"{x}, uint8 in shared memory"] for x in ("INT8", "FP16"))
    int8, fp16 = one
    assert max(int8[n] / fp16[n] for n in fp16) == pytest.approx(1.2, abs=0.03)
    many = (rate[f"{x}, 32 uint8 pictures in shared memory"] for x in ("INT8", "FP16"))
    int8, fp16 = many
    assert min(int8[n] / fp16[n] for n in (16, 64)) > 1.5
    assert fp16[4] / max(fp16.values()) == pytest.approx(0.87, abs=0.005)
    assert fp16[64] < fp16[16]
    latency = read("resnet50_fp16")["latency ms"]
    assert latency["8"] / latency["1"] == pytest.approx(1.15, abs=0.005)
