"""An engine, and its backend, say what they need."""

import pytest
import tensorrt_rtx

import embedded_triton
from embedded_triton import TritonServerError
from embedded_triton.backends.engine import Engine
from helpers import machine


@pytest.mark.skipif(machine.gpu_count() > 0, reason="there is a GPU")
def test_an_engine_without_a_gpu_is_refused(tmp_path):
    (tmp_path / "model.plan").write_bytes(b"a plan")
    with pytest.raises(RuntimeError, match="needs an NVIDIA GPU and its driver"):
        Engine(tmp_path / "model.plan", tensorrt_rtx)
    with pytest.raises(FileNotFoundError):
        Engine(tmp_path / "none.plan", tensorrt_rtx)


@pytest.mark.server
@pytest.mark.skipif(machine.gpu_count() > 0, reason="there is a GPU")
def test_the_stand_in_for_the_tensorrt_backend_says_what_it_needs(tmp_path):
    (tmp_path / "plan" / "1").mkdir(parents=True)
    (tmp_path / "plan" / "1" / "model.plan").write_bytes(b"a plan")
    (tmp_path / "plan" / "config.pbtxt").write_text(
        'backend: "tensorrt"\n'
        'input { name: "x" data_type: TYPE_FP32 dims: [4] }\n'
        'output { name: "y" data_type: TYPE_FP32 dims: [4] }\n'
        "instance_group { kind: KIND_CPU }\n"
    )
    with pytest.raises(TritonServerError, match="environment has no TensorRT"):
        embedded_triton.start(tmp_path)
