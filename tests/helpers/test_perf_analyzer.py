"""perf_analyzer measures what it says, and says what went wrong."""

import numpy as np
import psutil
import pytest

import embedded_triton
from conftest import wait_for
from helpers import perf_analyzer
from helpers.load_client import LoadError

QUICK = {"window": 0.3}
SECONDS = 0.05  # that ``sleeping`` takes for a run, on every machine


def test_a_model_that_takes_a_known_time(null_server):
    """What holds on a busy machine as well: it can only be slower."""
    row = perf_analyzer.measure(null_server, "sleeping", **QUICK)
    at_most = 1 / SECONDS + 1 / QUICK["window"]  # one answer at the edge of a window
    assert 0 < row["low"] <= row["high"] <= at_most
    assert row["low"] * 0.999 <= row["images/s"] <= row["high"] * 1.001  # rounded
    assert min(row["p50 ms"], row["mean ms"], row["compute ms"]) >= 1000 * SECONDS
    assert row["p50 ms"] <= row["p90 ms"] <= row["p95 ms"] <= row["p99 ms"]
    assert row["requests"] > 0


@pytest.mark.parametrize(
    "way",
    [
        {"concurrency": 4},
        {"protocol": "http"},
        {"shared_memory": "system"},
        {"batch": 4},
        {"rate": 100},
    ],
    ids=str,
)
def test_every_way_is_measured(null_server, way):
    row = perf_analyzer.measure(null_server, "nothing", **way, **QUICK)
    assert row["requests"] > 0
    assert 0 < row["runs"] <= row["inferences"]
    # about one for each image; client and server do not count in the same moment
    assert row["inferences"] > row["requests"] * way.get("batch", 1) / 2


def test_the_command_line_says_what_was_asked(null_server):
    def options(**way):
        _, *rest = perf_analyzer.command("host:1", "m", report="r.csv", **way)
        return " ".join(rest)

    usual = "-b 1 -p 1000 -r 3 -s 1000000 -f r.csv"
    start = "-m m -u host:1 -i grpc"
    end = "--verbose-csv -v"
    assert options() == f"{start} --concurrency-range 1 {usual} {end}"
    loop = "--request-rate-range 40 --request-distribution poisson"
    assert options(rate=40) == f"{start} {loop} {usual} {end} --async"
    found = options(
        protocol="http",
        concurrency=3,
        batch=2,
        window=0.5,
        data="d.json",
        shared_memory="cuda",
    )
    assert found == (
        "-m m -u host:1 -i http --concurrency-range 3 -b 2 -p 500 -r 3 -s 1000000 "
        f"-f r.csv --input-data d.json --shared-memory cuda {end}"
    )


def test_inputs_are_sent_and_answers_compared(null_server, tmp_path):
    x, y = np.ones((3, 4), np.float32), np.zeros((3, 2), np.float32)
    file = perf_analyzer.write_inputs(tmp_path / "data.json", {"x": x}, {"y": y})
    assert perf_analyzer.measure(null_server, "nothing", data=file, **QUICK)["requests"]
    file = perf_analyzer.write_inputs(tmp_path / "data.json", {"x": x}, {"y": y + 1})
    with pytest.raises(LoadError, match="an answer differs from what the input file"):
        perf_analyzer.measure(null_server, "nothing", data=file, **QUICK)
    with pytest.raises(ValueError, match=r"numbers of items differ: \[3, 2\]"):
        perf_analyzer.write_inputs(tmp_path / "data.json", {"x": x}, {"y": y[:2]})


def test_what_went_wrong_is_said(null_server):
    with pytest.raises(LoadError, match="the server has no model nosuch ready"):
        perf_analyzer.measure(null_server, "nosuch")
    with pytest.raises(LoadError, match="which counts them"):
        perf_analyzer.measure(null_server, "slow", concurrency=16)


def test_a_server_that_is_gone_is_named(null_server):
    gone = embedded_triton.Server("127.0.0.1:9", "127.0.0.1:9", "127.0.0.1:9")
    for protocol in "http", "grpc":
        with pytest.raises(LoadError, match="nobody answers there"):
            perf_analyzer.measure(gone, "nothing", protocol=protocol)


def test_windows_that_disagree_are_told(capsys):
    perf_analyzer._warn_of_spread("m, grpc, 1", [100, 95, 105])
    assert not capsys.readouterr().err
    perf_analyzer._warn_of_spread("m, grpc, 1", [100, 60, 105])
    assert "the windows gave 100, 60, 105 images/s" in capsys.readouterr().err


@pytest.fixture
def no_perf_analyzer(monkeypatch, tmp_path):
    """A server environment without perf_analyzer; returns where it would be."""
    perf_analyzer.find_perf_analyzer.cache_clear()
    monkeypatch.setattr(embedded_triton.paths, "ENVIRONMENT", tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (tmp_path / "bin").mkdir()
    yield tmp_path / "bin" / "perf_analyzer"
    perf_analyzer.find_perf_analyzer.cache_clear()


def test_without_perf_analyzer_it_says_what_to_do(null_server, no_perf_analyzer):
    with pytest.raises(LoadError, match="and no perf_analyzer on PATH: run make setup"):
        perf_analyzer.measure(null_server, "nothing")


# A perf_analyzer that measures nothing: it prints and writes what it is told here, and
# notes its windows. It finds no request in a window that is shorter than 4 s.
PROGRAM = """\
#!/bin/sh
echo "Perf Analyzer Version 2.51"
while [ $# -gt 0 ]; do
  [ "$1" = -f ] && report=$2
  [ "$1" = -p ] && window=$2
  [ "$1" = -m ] && model=$2
  shift
done
[ "$report" ] || exit 0
echo "$window" >> "$0.windows"
if [ "$model" = sparse ] && [ "$window" -lt 4000 ]; then
  echo "No valid requests recorded within time interval."
  exit 1
fi
[ "$model" = hurried ] && echo "Perf Analyzer was not able to keep up with the rate"
cat <<END
  Pass [1] throughput: 90.5 infer/sec. Avg latency: 11111 usec (std 1 usec).
  Pass [2] throughput: 120 infer/sec. Avg latency: 8333 usec (std 1 usec).
  Pass [3] throughput: 95 infer/sec. Avg latency: 10526 usec (std 1 usec).
    Request count: 306
    Inference count: 307
    Execution count: 77
END
cat > "$report" <<END
Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,\
Server Compute Input,Server Compute Infer,Server Compute Output,Client Recv,\
p50 latency,p90 latency,p95 latency,p99 latency,Avg latency,request/response,\
response wait
1,101.5,9,123,700,26,5792,510,3,9200,9900,10400,15164,9852,12,21488
END
"""


@pytest.fixture
def told_perf_analyzer(no_perf_analyzer):
    """A perf_analyzer that reports known numbers; returns the file of its windows."""
    no_perf_analyzer.write_text(PROGRAM)
    no_perf_analyzer.chmod(0o755)
    return no_perf_analyzer.with_suffix(".windows")


NOBODY = embedded_triton.Server("127.0.0.1:9", "127.0.0.1:9", "127.0.0.1:9")


def test_the_result_is_what_perf_analyzer_reports(told_perf_analyzer, capsys):
    assert perf_analyzer.measure(NOBODY, "m", concurrency=1) == {
        "images/s": 101.5,
        "low": 90.5,
        "high": 120,
        "p50 ms": 9.2,
        "p90 ms": 9.9,
        "p95 ms": 10.4,
        "p99 ms": 15.164,
        "mean ms": 9.852,
        "queue ms": 0.7,
        "compute ms": pytest.approx(6.328),
        "requests": 306,
        "inferences": 307,
        "runs": 77,
    }
    assert told_perf_analyzer.read_text().split() == ["1000"]
    assert "the windows gave 90, 120, 95 images/s" in capsys.readouterr().err


def test_a_rate_that_was_not_kept_is_told(told_perf_analyzer, capsys):
    perf_analyzer.measure(NOBODY, "m", rate=1e6)
    assert "could not send" not in capsys.readouterr().err
    perf_analyzer.measure(NOBODY, "hurried", rate=1e6)
    found = "hurried, grpc, 1000000.0/s: perf_analyzer could not send at this rate"
    assert found in capsys.readouterr().err


def test_an_empty_window_is_tried_again_with_more_time(told_perf_analyzer):
    assert perf_analyzer.measure(NOBODY, "sparse", rate=5)["images/s"] == 101.5
    assert told_perf_analyzer.read_text().split() == ["1000", "2000", "4000"]
    with pytest.raises(LoadError, match="no request ended in a window: make it longer"):
        perf_analyzer.measure(NOBODY, "sparse", rate=5, window=0.5)
    assert told_perf_analyzer.read_text().split()[3:] == ["500", "1000", "2000"]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("#!/bin/sh\necho libb64.so.0d: cannot open >&2", "libb64.so.0d: cannot open"),
        ("\x7fELF of another processor", "Exec format error"),
    ],
)
def test_a_perf_analyzer_that_cannot_run_is_named(no_perf_analyzer, program, reason):
    no_perf_analyzer.write_text(program)
    no_perf_analyzer.chmod(0o755)
    with pytest.raises(LoadError, match=f"cannot run here: .*{reason}"):
        perf_analyzer.find_perf_analyzer()


def test_an_interrupted_measurement_ends_perf_analyzer(no_perf_analyzer, monkeypatch):
    class Interrupted(perf_analyzer.tqdm):
        def update(self, n=1):
            raise KeyboardInterrupt

    file = no_perf_analyzer.with_suffix(".pid")
    no_perf_analyzer.write_text(
        f"#!/bin/sh\n[ $2 ] && echo $$ > {file}\n"
        "echo Perf Analyzer\n[ $2 ] && exec sleep 60\n"
    )
    no_perf_analyzer.chmod(0o755)
    monkeypatch.setattr(perf_analyzer, "tqdm", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        perf_analyzer.measure(NOBODY, "m")
    wait_for(lambda: is_gone(file), seconds=20)


def is_gone(file):
    """Whether the process whose number is in a file has ended."""
    try:
        process = psutil.Process(int(file.read_text()))
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
