"""The model that does nothing, or only sleeps."""

import numpy as np
import pytest
import tritonclient.http as httpclient

from conftest import NULL_CONFIG, started, wait_for
from helpers.null_model import write_null_model


def test_it_has_the_tensors_of_the_other_and_answers_with_zeros(tmp_path):
    config = NULL_CONFIG.replace("[ 2 ]", "[ 2, 3 ]").replace(
        '"y" data_type: TYPE_FP32', '"y" data_type: TYPE_INT64'
    )
    write_null_model(tmp_path, "nothing", config)
    write_null_model(tmp_path, "slow", config, seconds=0.3)
    tensor = httpclient.InferInput("x", [5, 4], "FP32")
    tensor.set_data_from_numpy(np.ones((5, 4), np.float32))
    with (
        started(tmp_path) as server,
        httpclient.InferenceServerClient(server.http) as client,
    ):
        found = client.infer("nothing", [tensor]).as_numpy("y")
        assert found.shape == (5, 2, 3) and found.dtype == np.int64
        assert not found.any()
        client.infer("slow", [tensor])

        def read_run():
            (stats,) = client.get_inference_statistics("slow")["model_stats"]
            return stats["inference_stats"]["compute_infer"]

        wait_for(lambda: read_run()["count"])  # the statistics follow the answer
        assert read_run()["ns"] >= 0.3e9


@pytest.mark.parametrize(
    "config",
    [
        NULL_CONFIG.replace("backend:", "platform:"),
        NULL_CONFIG.replace("max_batch_size: 8", "max_batch_size: 0"),
        NULL_CONFIG.replace("max_batch_size: 8", ""),
    ],
    ids=["no backend", "no batches", "no batch size"],
)
def test_a_config_that_will_not_do_is_named(tmp_path, config):
    with pytest.raises(ValueError, match="backend and a max_batch_size above 0"):
        write_null_model(tmp_path, "nothing", config)
    assert not list(tmp_path.iterdir())
