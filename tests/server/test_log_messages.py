"""What a server's log says is explained."""

import pytest
import tomllib

import embedded_triton
from conftest import DOUBLE
from embedded_triton import TritonServerError
from embedded_triton.log_messages import explain, find_error_lines
from helpers import paths

WITH_THE_BATCH = """\
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
"""


@pytest.mark.server
def test_the_log_is_explained_where_the_check_is_off(make_repository):
    repository = make_repository({"wrong_dims": DOUBLE + WITH_THE_BATCH})
    with pytest.raises(TritonServerError, match="That means: dims are those of one"):
        embedded_triton.start(repository, models=["wrong_dims"], check=False)


def test_the_last_errors_of_a_log_are_found_or_its_last_lines(tmp_path):
    log = tmp_path / "log"
    errors = [f"E1126 13:51:13 number {i}" for i in range(20)]
    noise = "E1126 13:51:14 CudaDriverHelper has not been initialized"
    log.write_text("\n".join(["I1126 13:51:12 begin", *errors, noise, "end"]))
    assert find_error_lines(log) == errors[-12:]
    log.write_text("one\ntwo\nthree\n")
    assert find_error_lines(log, most=2) == ["two", "three"]


def test_every_explanation_fits_a_message_that_servers_write():
    refusals = tomllib.loads((paths.ROOT / "tests/data/refusals.toml").read_text())
    for name in "dims", "free", "type", "name", "count":
        assert explain(refusals[name]["words"])
    for text, meaning in (
        ("unable to find backend library for backend 'x', try", "no backend x"),
        ("tritonserver: unrecognized option '--nosuch=1'", "not know that argument"),
        ("Serialization assertion plan->header.magicTag == ", "another TensorRT"),
        ("whose required version 0 is not loaded", "model_version: -1"),
        ("No space left on device", "--shm-size"),
    ):
        assert meaning in " ".join(explain(text))
