"""The client that puts a model under load from this process."""

import asyncio
import collections

import numpy as np
import pytest

import embedded_triton
from helpers import load_client
from helpers.load_client import LoadError

SECONDS = 0.05  # that ``sleeping`` takes for a run, on every machine
X = {"x": np.ones((2, 4), np.float32)}


def test_the_result_is_what_the_times_say():
    """Four clients for two seconds; of twelve answers three come after the window."""
    times = [(0, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, 2.4)]
    errors = collections.Counter(full=3, late=1)
    late = [0.001, 0.002, 0.003]
    row = load_client._summarise(3 * times, late, errors, seconds=2)
    assert row["images/s"] == 9 / 2
    assert row["mean ms"] == pytest.approx(600)
    assert row["p50 ms"] == pytest.approx(500)
    assert row["p99 ms"] == pytest.approx(1000)
    assert row["late ms"] == pytest.approx(2)
    assert row["requests"] == 16 and row["refused"] == 4 / 16
    assert row["errors"] == {"full": 3, "late": 1}


@pytest.mark.parametrize("clients", [1, 4])
def test_the_times_of_a_closed_loop_obey_littles_law(clients):
    times = [(i / 8, (i + 1) / 8) for i in range(16)]
    row = load_client._summarise(clients * times, [0], collections.Counter(), seconds=2)
    assert row["images/s"] * row["mean ms"] / 1000 == pytest.approx(clients)


def test_a_model_that_takes_a_known_time(null_server):
    """What holds on a busy machine as well: it can only be slower."""
    row = load_client.send_requests(null_server, "sleeping", X, seconds=1)
    assert 0 < row["images/s"] <= 1 / SECONDS
    assert min(row["p50 ms"], row["mean ms"]) >= 1000 * SECONDS
    assert row["p50 ms"] <= row["p90 ms"] <= row["p95 ms"] <= row["p99 ms"]
    # one client: at most one request is still under way when the window ends
    assert row["requests"] - row["images/s"] * 1 in (0, 1)
    assert row["refused"] == 0 and row["errors"] == {}
    assert row["late ms"] > 0


def test_as_many_clients_as_asked_for(null_server):
    row = load_client.send_requests(null_server, "nothing", concurrency=5, seconds=0.5)
    assert 0 <= row["requests"] - row["images/s"] * 0.5 <= 5


@pytest.mark.parametrize("rate", [50, 200])
def test_an_open_loop_sends_at_its_rate_whatever_the_server_does(null_server, rate):
    """Arrivals are drawn from a fixed seed, so their number is no matter of time."""
    row = load_client.send_requests(null_server, "sleeping", X, rate=rate, seconds=1)
    assert abs(row["requests"] - rate) < 3 * rate**0.5
    assert row["images/s"] <= 1 / SECONDS * 8  # batches of eight at most


def test_refusals_are_counted(null_server):
    """Sixteen clients, a run of eight at most, and room for one: more are refused."""
    row = load_client.send_requests(null_server, "slow", concurrency=16, seconds=0.5)
    assert row["refused"] > 0
    (message,) = row["errors"]
    assert "Exceeds maximum queue size" in message
    assert sum(row["errors"].values()) == round(row["refused"] * row["requests"])


def test_a_refused_request_counts_once(null_server):
    """The same arrivals, from the same seed, where some are refused and where none."""
    load = {"inputs": X, "rate": 200, "seconds": 1}
    refused = load_client.send_requests(null_server, "slow", **load)
    answered = load_client.send_requests(null_server, "nothing", **load)
    assert refused["requests"] == answered["requests"]
    assert refused["refused"] > 0 == answered["refused"]


@pytest.mark.parametrize(
    "options", [{"rate": 0}, {"rate": -1}, {"concurrency": 0}, {"seconds": 0}], ids=str
)
def test_a_load_that_cannot_be_made_is_named(options):
    with pytest.raises(ValueError, match="each has to be above 0"):
        load_client.send_requests(None, "slow", **options)


def test_what_went_wrong_is_said(null_server, monkeypatch):
    for inputs in None, X:
        with pytest.raises(LoadError, match=r"nosuch.* is not found"):
            load_client.send_requests(null_server, "nosuch", inputs, seconds=0.1)
    with pytest.raises(LoadError, match=r"nothing: .*unexpected inf.* 'z'") as error:
        load_client.send_requests(null_server, "nothing", {"z": X["x"]}, seconds=0.1)
    assert "no request was answered" not in str(error.value)  # the first one ends it
    monkeypatch.setattr(load_client, "TIMEOUT", SECONDS / 10)
    with pytest.raises(LoadError, match=r"sleeping: .*Deadline Exceeded"):
        load_client.send_requests(null_server, "sleeping", X, seconds=0.1)
    gone = embedded_triton.Server("127.0.0.1:9", "127.0.0.1:9", "127.0.0.1:9")
    with pytest.raises(LoadError, match=r"nothing: .*connect"):
        load_client.send_requests(gone, "nothing", X, seconds=0.1)


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": np.ones((2, 4), np.float32), "z": np.ones((3, 4), np.float32)},
        {"x": np.ones((0, 4), np.float32)},
    ],
    ids=["other numbers of items", "no item"],
)
def test_inputs_that_make_no_requests_are_named(inputs):
    with pytest.raises(ValueError, match="an item of every input goes into a request"):
        load_client._requests(inputs)


def test_a_request_holds_one_item_of_every_input():
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    first, second = load_client._requests({"x": values, "z": values + 1})
    assert [x.name() for x in first] == ["x", "z"]
    assert [x.shape() for x in second] == [[1, 4], [1, 4]]
    assert second[1]._get_content() == (values[1] + 1).tobytes()


class ClientOf:
    """A client whose server knows one model, with these inputs."""

    def __init__(self, **inputs):
        self.inputs = inputs

    async def get_model_config(self, model, as_json):
        inputs = [
            {"name": name, "data_type": kind, "dims": dims}
            for name, (kind, dims) in self.inputs.items()
        ]
        return {"config": {"input": inputs}}


def draw(**inputs):
    return asyncio.run(
        load_client._random_inputs(ClientOf(**inputs), "m", np.random.default_rng(0))
    )


def test_random_inputs_fit_the_config():
    found = draw(a=("TYPE_FP16", ["3", "2"]), b=("TYPE_UINT8", ["1"]))
    assert found["a"].shape == (1, 3, 2) and found["a"].dtype == np.float16
    assert found["b"].shape == (1, 1) and found["b"].dtype == np.uint8


@pytest.mark.parametrize("kind", [("TYPE_STRING", ["1"]), ("TYPE_FP32", ["-1", "4"])])
def test_inputs_without_random_numbers_are_named(kind):
    with pytest.raises(LoadError, match=r"m: the input a is .*: pass inputs"):
        draw(a=kind)
