"""The checker says what the server says: each case is held against a live server."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import test_config_text
import test_core_rules
import test_ensembles
import test_layout
import test_model_files
import test_onnx_tensors
import test_scheduling
import test_tensors
import tritonclient.grpc as grpcclient
from case_models import DOUBLE, GOOD, SERVER, WARM, write_models
from tritonclient.utils import InferenceServerException

import embedded_triton
import repository_check
from conftest import started
from repository_check import ERROR

pytestmark = [pytest.mark.server, pytest.mark.slow]

CASES = {
    **test_config_text.CASES,
    **test_layout.CASES,
    **test_model_files.CASES,
    **test_tensors.CASES,
    **test_onnx_tensors.CASES,
    **test_core_rules.CASES,
    **test_scheduling.CASES,
    **test_ensembles.CASES,
}

# On these Triton 2.51 ends, with every model that it serves; on those of a warm-up now
# and then (with one input too many in most loads, with a large batch in one of thirty).
DEADLY = {
    "warm_batch": CASES["warm_batch"][1],
    "config_folder": (None, {"config.pbtxt/x": "", "1/model.onnx": DOUBLE}),
    "labels_folder": (
        test_tensors.LABELS.replace("labels.txt", "1"),
        {"1/model.onnx": DOUBLE},
    ),
    "warm_extra": (
        GOOD
        + WARM.replace(
            "} } } ]",
            '} } inputs { key: "q" value { data_type: TYPE_FP32 dims: [ 4 ] '
            "zero_data: true } } } ]",
        ),
        {"1/model.onnx": DOUBLE},
    ),
}

# Refused by the onnxruntime backend: its own words are held against C++'s in
# test_onnxruntime_backend.py, and each of these would start two processes here.
BY_THE_BACKEND = {
    *("wrong_dims", "wrong_type", "wrong_output", "wrong_input", "extra_input"),
    *("missing_input", "input_twice", "batch_in_dims", "fixed_batch", "page"),
    *("wrong_inputs_alone", "half_a_file", "empty_file", "other_file", "no_file"),
    "axis_too_many",
}

# Asked of one server that has to live through all of them.
ASKED = [name for name in CASES if name not in BY_THE_BACKEND | DEADLY.keys()]


def load_each(repository, names):
    """Which models a live server loads, one after the other.

    Several loads at once end Triton 2.51 now and then.
    """
    loaded = {}
    with (
        started(repository, models=[]) as server,
        grpcclient.InferenceServerClient(server.grpc) as client,
    ):
        for name in names:
            try:
                client.load_model(name)
                loaded[name] = client.is_model_ready(name)
            except InferenceServerException as error:
                assert "load" in error.message()
                loaded[name] = False
    return loaded


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Which models a live server loads; each of six servers is asked for a part.

    They see no GPU, as ``SERVER`` has none: CUDA hides those of this machine.
    """
    models = {name: content for name, (_, content) in CASES.items()}
    repository = write_models(tmp_path_factory.mktemp("repository"), models)
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(6) as pool:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        parts = pool.map(load_each, [repository] * 6, [ASKED[i::6] for i in range(6)])
        return {name: each for part in parts for name, each in part.items()}


@pytest.mark.parametrize("name", ASKED)
def test_the_server_is_of_the_same_opinion(loaded, name):
    expected = CASES[name][0] or ""
    assert loaded[name] != expected.startswith(ERROR)


@pytest.mark.parametrize("name", DEADLY)
def test_what_would_end_the_server_is_an_error(tmp_path, name):
    write_models(tmp_path, {name: DEADLY[name]})
    found = repository_check.check(tmp_path, server=SERVER)
    assert {x.severity for x in found} == {ERROR}
    with embedded_triton.start(tmp_path, models=[]) as server:
        with grpcclient.InferenceServerClient(server.grpc) as client:
            with pytest.raises(InferenceServerException):  # refused, or nobody there
                client.load_model(name)
        if not name.startswith("warm"):
            deadline = time.monotonic() + 20
            while server.is_alive() and time.monotonic() < deadline:
                time.sleep(0.1)
            assert not server.is_alive()
