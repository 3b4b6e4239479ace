"""What lesson 15 teaches about versions, held against a running server."""

import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpcclient
from onnx import helper, numpy_helper
from served import answer_of, as_json, request, states
from tritonclient.utils import InferenceServerException

import embedded_triton
from conftest import make_model, started, taught, wait_for
from helpers import paths, triton_config

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


@pytest.fixture
def repository(tmp_path):
    """One model, ``factor``, whose version N multiplies by N; version 1 only."""
    repository = tmp_path / "repository"
    triton_config.write(CONFIG, repository / "factor")
    add_version(repository / "factor", 1)
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


def test_a_roll_out_that_fails_leaves_nothing_behind(tmp_path):
    """So that it can be repeated; and the server is told of nothing."""
    roll_out = taught("15_roll_out_versions", "def roll_out(")["roll_out"]
    loaded, model = [], tmp_path / "repository" / "classifier"
    client = SimpleNamespace(load_model=loaded.append)
    (model / "1").mkdir(parents=True)
    (model / "1/model.onnx").write_text("old")
    (tmp_path / "new.onnx").write_text("new")
    for file, version in ("missing.onnx", "2"), ("new.onnx", "1"):
        with pytest.raises(OSError):
            roll_out(client, tmp_path / file, model, version)
        assert not loaded and [x.name for x in model.iterdir()] == ["1"]
        assert {x.name for x in tmp_path.iterdir()} == {"new.onnx", "repository"}
    assert (model / "1/model.onnx").read_text() == "old"
    roll_out(client, tmp_path / "new.onnx", model, "2")
    assert (model / "2/model.onnx").read_text() == "new" and loaded == ["classifier"]


@pytest.mark.slow
def test_the_lessons_on_a_service_stand_on_part_1_alone(artifacts, tmp_path):
    """In a copy of the project with what 01, 02 and 05 leave, and nothing else."""
    left = [name for name, lesson in paths.MADE_BY.items() if lesson < "03"]
    if not all((artifacts / name).exists() for name in left):
        series = [sys.executable, "-m", "tools.run_series", "02"]
        subprocess.run(series, check=True, cwd=paths.ROOT)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.check_output(listed, cwd=paths.ROOT, text=True)
    for name in filter(None, files.split("\0")):
        if (paths.ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(paths.ROOT / name, tmp_path / name)
    for name in ".venv", embedded_triton.paths.ENVIRONMENT.name:
        (tmp_path / name).symlink_to(paths.ROOT / name)
    (tmp_path / "artifacts").mkdir()
    models = [
        x.relative_to(paths.ROOT) for x in paths.MODEL_REPOSITORY.glob("*/1/*.onnx")
    ]
    for name in [*(f"artifacts/{x}" for x in left), *models]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(paths.ROOT / name, tmp_path / name)
    result = subprocess.run(
        [sys.executable, "-m", "tools.run_series", "15", "16"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert not result.returncode, result.stdout[-2000:] + result.stderr[-2000:]
    assert str(tmp_path) in result.stdout
    assert (tmp_path / "artifacts/rolled_out").is_dir()
