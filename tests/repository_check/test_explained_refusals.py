"""A refusal is explained: by the check before the start, by the log after it."""

import pytest
import test_config_text
import test_tensors
from case_models import GOOD, REFUSALS, model, write_models

import embedded_triton
from embedded_triton import TritonServerError
from embedded_triton.log_messages import explain


@pytest.mark.server
def test_a_server_is_not_started_on_what_it_would_refuse(tmp_path):
    _, misspelt = test_config_text.CASES["misspelt"]
    write_models(tmp_path, {"good": model(GOOD), "misspelt": misspelt})
    with pytest.raises(TritonServerError, match=r"misspelt/config\.pbtxt:2: column"):
        embedded_triton.start(tmp_path, models=["good", "misspelt"])


@pytest.mark.server
def test_the_log_is_explained_where_the_check_is_off(tmp_path):
    write_models(tmp_path, {"wrong_dims": test_tensors.CASES["wrong_dims"][1]})
    with pytest.raises(TritonServerError, match="That means: dims are those of one"):
        embedded_triton.start(tmp_path, models=["wrong_dims"], check=False)


@pytest.mark.server
def test_an_argument_that_this_version_lacks_is_named():
    with pytest.raises(TritonServerError, match="does not know --allow-client-shm"):
        embedded_triton.start(models=[], arguments=["--allow-client-shm=true"])
    with pytest.raises(TritonServerError, match="did you mean --exit-on-error"):
        embedded_triton.start(models=[], arguments=["--exit-on-eror=false"])


def test_every_explanation_fits_a_message_that_servers_write():
    for name in "dims", "free", "type", "name", "count":
        assert explain(REFUSALS[name]["words"])
    for text, meaning in (
        ("unable to find backend library for backend 'x', try", "no backend x"),
        ("tritonserver: unrecognized option '--nosuch=1'", "not know that argument"),
        ("Serialization assertion plan->header.magicTag == ", "another TensorRT"),
        ("whose required version 0 is not loaded", "model_version: -1"),
        ("No space left on device", "--shm-size"),
    ):
        assert meaning in " ".join(explain(text))
