"""An engine, and its backend, say what they need; with a fake GPU they also run.

TensorRT runs nothing without a GPU. So most tests here load the backend with a fake of
TensorRT, of CUDA's runtime and of what Triton gives to a Python model: a plan is JSON,
and an engine adds and subtracts in the memory of this process. They show that the
backend reads a config, joins and splits requests and addresses memory as it should, and
nothing of TensorRT itself: that is in the recordings.
"""

import ctypes
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tensorrt_rtx

import embedded_triton
from conftest import FakeModelError, FakeRequest, FakeTensor, read_config, taught
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


# --------------------------------------------------------------------- the fake

DONE = SimpleNamespace(value=0, name="cudaSuccess")
FAILED = SimpleNamespace(value=2, name="cudaErrorMemoryAllocation")


class FakeCUDA:
    """CUDA's runtime: what is put into its stream is done when someone waits."""

    cudaMemcpyKind = SimpleNamespace(
        cudaMemcpyHostToDevice=("host", "GPU"),
        cudaMemcpyDeviceToDevice=("GPU", "GPU"),
        cudaMemcpyDeviceToHost=("GPU", None),  # any memory of this process
    )

    def __init__(self):
        self.devices, self.device, self.runs, self.full = 1, None, 0, False
        self.memory, self.streams, self.events = {"GPU": {}, "host": {}}, [], []
        self.stream = []

    def cudaGetDeviceCount(self):
        return DONE, self.devices

    def cudaSetDevice(self, device):
        self.device = device
        return (DONE,)

    def allocate(self, where, size):
        if self.full:
            return FAILED, None
        buffer = ctypes.create_string_buffer(size)
        self.memory[where][ctypes.addressof(buffer)] = buffer
        return DONE, ctypes.addressof(buffer)

    def cudaMalloc(self, size):
        return self.allocate("GPU", size)

    def cudaMallocHost(self, size):
        return self.allocate("host", size)

    def cudaFree(self, pointer):
        del self.memory["GPU"][pointer]
        return (DONE,)

    def cudaFreeHost(self, pointer):
        del self.memory["host"][pointer]
        return (DONE,)

    def is_inside(self, where, pointer, size):
        return any(
            begin <= pointer and pointer + size <= begin + len(buffer)
            for begin, buffer in self.memory[where].items()
        )

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        for where, pointer in zip(kind, (source, target)):
            assert where is None or self.is_inside(where, pointer, size)
        return self.later(lambda: ctypes.memmove(target, source, size), stream)

    def cudaMemcpy(self, target, source, size, kind):
        """At once: what the stream still has to do comes too late for it."""
        for where, pointer in zip(kind, (source, target)):
            assert where in (None, "host") or self.is_inside(where, pointer, size)
        ctypes.memmove(target, source, size)
        return (DONE,)

    def cudaMemsetAsync(self, pointer, value, size, stream):
        assert self.is_inside("GPU", pointer, size)
        return self.later(lambda: ctypes.memset(pointer, value, size), stream)

    def later(self, act, stream):
        assert stream in self.streams
        self.stream.append(act)
        return (DONE,)

    def cudaStreamCreate(self):
        self.streams.append(7)
        return DONE, 7

    def cudaStreamDestroy(self, stream):
        self.streams.remove(stream)
        return (DONE,)

    def cudaStreamSynchronize(self, stream):
        while self.stream:
            self.stream.pop(0)()
        return (DONE,)

    def cudaEventCreate(self):
        self.events.append(f"event {len(self.events)}")
        return DONE, self.events[-1]

    def cudaEventDestroy(self, event):
        self.events.remove(event)
        return (DONE,)

    def cudaEventRecord(self, event, stream):
        return self.later(lambda: None, stream)

    def cudaEventSynchronize(self, event):
        return self.cudaStreamSynchronize(None)

    def cudaEventElapsedTime(self, begin, end):
        assert not self.stream and begin != end
        return DONE, 0.5


class FakeContext:
    """``sum`` is a + b, ``difference`` is a - b; an engine may have other outputs."""

    def __init__(self, engine, cuda):
        self.engine, self.cuda, self.shapes, self.addresses = engine, cuda, {}, {}
        self.profiler = None

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        smallest, _, largest = self.engine.plan["inputs"][name]
        return all(x <= y <= z for x, y, z in zip(smallest, shape, largest))

    def set_tensor_address(self, name, pointer):
        self.addresses[name] = pointer

    def get_tensor_shape(self, name):
        return self.shapes.get(name, self.shapes["a"])

    def execute_async_v3(self, stream):
        if reason := self.engine.plan.get("refuses"):
            self.engine.logger.log("info", "began")
            self.engine.logger.log("internal error", reason)
            return False
        self.cuda.later(self.compute, stream)
        return True

    def compute(self):
        a, b = (self.read(name) for name in "ab")
        for name, value in ("sum", a + b), ("difference", a - b):
            if name in self.engine.plan["writes"]:
                ctypes.memmove(self.addresses[name], value.ctypes.data, value.nbytes)
        self.cuda.runs += 1
        if self.profiler:  # the first runs are slow
            self.profiler.report_layer_time("add", 1 if self.cuda.runs > 5 else 9)

    def read(self, name):
        shape = self.shapes[name]
        place = (ctypes.c_float * int(np.prod(shape))).from_address(
            self.addresses[name]
        )
        return np.array(place, np.float32).reshape(shape)


class FakeEngine:
    """An engine as its plan has it; see PLAN."""

    def __init__(self, plan, logger, cuda):
        self.plan, self.logger, self.cuda = plan, logger, cuda
        self.names = [*plan["inputs"], *plan["outputs"]]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, i):
        return self.names[i]

    def get_tensor_mode(self, name):
        return "input" if name in self.plan["inputs"] else "output"

    def get_tensor_shape(self, name):
        return self.plan["shape"]

    def get_tensor_dtype(self, name):
        return SimpleNamespace(name=self.plan["type"])

    def get_tensor_profile_shape(self, name, profile):
        assert profile == 0
        return self.plan["inputs"][name]

    def create_execution_context(self):
        return FakeContext(self, self.cuda)


class FakeLogger:
    INFO, ERROR, INTERNAL_ERROR = "info", "error", "internal error"


class FakeProfiler:
    pass


def make_tensorrt(cuda):
    """A fake of the module ``tensorrt``."""

    class Runtime:
        def __init__(self, logger):
            self.logger = logger

        def deserialize_cuda_engine(self, plan):
            try:
                return FakeEngine(json.loads(plan), self.logger, cuda)
            except ValueError:
                self.logger.log("info", "reading")
                self.logger.log("error", "no magicTag")

    return SimpleNamespace(
        __name__="tensorrt",
        __version__="8.6.0",
        ILogger=FakeLogger,
        IProfiler=FakeProfiler,
        Runtime=Runtime,
        TensorIOMode=SimpleNamespace(INPUT="input", OUTPUT="output"),
    )


CONFIG = """\
name: "fake"
max_batch_size: 8
input [ { name: "a" data_type: TYPE_FP32 dims: [ 4 ] } ]
input [ { name: "b" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "sum" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "difference" data_type: TYPE_FP32 dims: [ 4 ] } ]
"""
PLAN = {  # smallest, best and largest shape of each input
    "inputs": {"a": [[1, 4], [4, 4], [16, 4]], "b": [[1, 4], [4, 4], [8, 4]]},
    "outputs": ["sum", "difference"],
    "writes": ["sum", "difference"],
    "shape": [-1, 4],
    "type": "FLOAT",
}


@pytest.fixture
def cuda(monkeypatch):
    fake = FakeCUDA()
    monkeypatch.setitem(sys.modules, "tensorrt", make_tensorrt(fake))
    bindings = SimpleNamespace(runtime=fake)
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    return fake


@pytest.fixture
def load(cuda, load_backend, tmp_path):
    """A function that loads a model as Triton does, from the text of its config."""
    backend = load_backend("tensorrt")
    (tmp_path / "1").mkdir()

    def load_model(config=CONFIG, plan=PLAN, file="model.plan"):
        text = plan if isinstance(plan, str) else json.dumps(plan)
        (tmp_path / "1" / file).write_text(text)
        model = backend.TritonPythonModel()
        model.initialize(
            {
                "model_config": json.dumps(read_config(config)),
                "model_repository": str(tmp_path),
                "model_version": "1",
                "model_instance_device_id": "3",
            }
        )
        return model

    return load_model


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        (
            "max_batch_size: 8",
            "max_batch_size: 9",
            "maximum batch size 9 for 'fake', model maximum is 8",
        ),
        ("max_batch_size: 8", "", r"\(shape \[-1, 4\]\) but .* \(shape \[4\]"),
        ("dims: [ 4 ]", "dims: [ 5 ]", r"'a': .* \(shape \[-1, 5\]"),
        (
            'difference" data_type: TYPE_FP32 dims: [ 4 ]',
            'difference" data_type: TYPE_FP32 dims: [ 1, 4 ]',
            r"'difference': the model expects 2 .* specifies 3 dimensions",
        ),
        (
            "TYPE_FP32",
            "TYPE_FP16",
            "unexpected datatype TYPE_FP16 for inference input 'a', .* has float32",
        ),
        ('"a"', '"q"', "unexpected inference input 'q', allowed inputs are: a, b"),
        ('"sum"', '"q"', "inference output 'q', .* outputs are: difference, sum"),
    ],
)
def test_a_config_that_the_engine_cannot_serve_is_refused(load, right, wrong, words):
    load()  # the right one is accepted
    assert right in CONFIG
    with pytest.raises(FakeModelError, match=words):
        load(CONFIG.replace(right, wrong, 1))


def test_a_plan_that_cannot_be_loaded_is_refused(load, cuda, monkeypatch, tmp_path):
    reason = r"tensorrt 8\.6\.0 cannot load this plan: no magicTag\."
    with pytest.raises(FakeModelError, match=reason):
        load(plan="not JSON")
    with pytest.raises(FakeModelError, match="tensor a is BF16; expected one of FLOAT"):
        load(plan={**PLAN, "type": "BF16"})
    with pytest.raises(FakeModelError, match=r"failed to stat file .*/1/other\.plan"):
        load(CONFIG + 'default_model_filename: "other.plan"\n')
    assert load(CONFIG + 'default_model_filename: "o.plan"\n', file="o.plan")
    cuda.devices = 0
    with pytest.raises(FakeModelError, match="needs an NVIDIA GPU and its driver"):
        load()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(FakeModelError, match="environment has no TensorRT"):
        load()


def rows(count, first=1, width=4):
    """(count, width) float32, with another number everywhere."""
    numbers = np.arange(first, first + count * width, dtype=np.float32)
    return numbers.reshape(count, width)


def both(a, b):
    return {"sum": a + b, "difference": a - b}


def assert_answers(answers, *expected):
    for answer, values in zip(answers, expected, strict=True):
        assert answer.keys() == values.keys()
        for name in values:
            np.testing.assert_array_equal(answer[name], values[name])


def test_requests_run_together_and_each_gets_its_own_answer(load, cuda):
    model = load()
    a, b, c = rows(2), rows(2, 100), rows(1, 50)
    requests = [
        FakeRequest("difference", b=c, a=2 * c),
        FakeRequest("difference", "sum", a=a, b=b),
        FakeRequest("sum", "difference", a=b[:1], b=c),
    ]
    answers = model.execute(requests)
    assert_answers(answers, {"difference": c}, both(a, b), both(b[:1], c))
    assert (cuda.runs, cuda.device) == (1, 3)
    assert_answers(model.execute(requests[:1]), {"difference": c})


def test_requests_that_exceed_the_profile_together_run_one_by_one(load, cuda):
    model, a, b = load(), rows(5), rows(5, 100)
    requests = [FakeRequest("sum", a=x, b=b) for x in (a, 3 * a)]
    assert_answers(model.execute(requests), {"sum": a + b}, {"sum": 3 * a + b})
    assert cuda.runs == 2


def test_a_model_without_a_batch_axis_answers_one_request_at_a_time(load, cuda):
    config = CONFIG.replace("max_batch_size: 8", "").replace("[ 4 ]", "[ -1, 4 ]")
    model, a, b = load(config), rows(1), rows(1, 9)
    requests = [FakeRequest("sum", "difference", a=x, b=b) for x in (a, 2 * a)]
    assert_answers(model.execute(requests), both(a, b), both(2 * a, b))
    assert cuda.runs == 2


def test_an_error_in_one_request_is_its_own(load):
    model, a, b = load(), rows(1), rows(1, 9)
    good = FakeRequest("sum", a=a, b=b)
    for bad, words in (
        (FakeRequest("sum", a=rows(1, width=5), b=b), "limits of its optimisation pro"),
        (FakeRequest("sum", a=rows(9), b=rows(9)), "b is float32 of shape (9, 4); the"),
        (FakeRequest("sum", a=a.astype(float), b=b), "a is float64 of shape (1, 4)"),
        (FakeRequest("sum", a=a), "expected the inputs ['a', 'b'], found ['a']"),
    ):
        first, error, last = model.execute([good, bad, good])
        assert_answers([first, last], {"sum": a + b}, {"sum": a + b})
        assert isinstance(error, str) and words in error


def test_what_tensorrt_and_cuda_refuse_is_told(load, cuda):
    refused = load(plan={**PLAN, "refuses": "no workspace"})
    request = FakeRequest("sum", a=rows(1), b=rows(1))
    (error,) = refused.execute([request])
    assert error == "TensorRT did not run the engine: no workspace"
    model, cuda.full = load(), True
    assert model.execute([request]) == ["CUDA: cudaErrorMemoryAllocation"]


def test_an_output_that_the_engine_did_not_write_is_seen(load):
    model = load(plan={**PLAN, "writes": ["sum"]})
    request = FakeRequest("difference", a=rows(1), b=rows(1))
    (answer,) = model.execute([request])
    assert np.isnan(answer["difference"]).all()


def test_a_tensor_in_the_gpus_memory_is_copied_there(load, cuda):
    model, a, b = load(), rows(2), rows(2, 100)
    _, pointer = cuda.cudaMalloc(a.nbytes)
    ctypes.memmove(pointer, a.ctypes.data, a.nbytes)
    place = (ctypes.c_float * a.size).from_address(pointer)
    on_gpu = FakeTensor("a", np.frombuffer(place, np.float32).reshape(2, 4), True)
    requests = [FakeRequest("sum", a=on_gpu, b=b), FakeRequest("sum", a=b, b=b)]
    assert_answers(model.execute(requests), {"sum": a + b}, {"sum": 2 * b})
    assert cuda.runs == 1


@pytest.mark.parametrize("kind", ["int32", "uint8", "float16"])
def test_a_tensor_in_the_gpus_memory_is_described_as_dlpack_has_it(load_backend, kind):
    backend, array = load_backend("tensorrt"), np.zeros((2, 3), kind)
    tensor = FakeTensor("a", array, on_gpu=True)
    capsule = tensor.to_dlpack()
    found = backend.DLTensor.from_address(backend._pointer(capsule, b"dltensor"))
    found.data, found.byte_offset = found.data - 16, 16  # as other libraries have it
    tensor.to_dlpack = lambda: capsule
    on_gpu = backend.OnGPU(tensor)
    assert (on_gpu.shape, on_gpu.dtype, len(on_gpu)) == ((2, 3), array.dtype, 2)
    assert on_gpu.nbytes == array.nbytes
    interface = on_gpu.__cuda_array_interface__
    assert interface["data"][0] == array.ctypes.data
    assert interface["version"] == 3  # of NVIDIA's interface: numba's documentation


def test_the_memory_grows_and_is_given_back(load, cuda):
    model = load()
    for count in 1, 8, 2:
        a = rows(count)
        (answer,) = model.execute([FakeRequest("sum", a=a, b=a[::-1])])
        np.testing.assert_array_equal(answer["sum"], a + a[::-1])
        assert len(cuda.memory["GPU"]) == 4 and len(cuda.memory["host"]) == 2
    model.finalize()
    model.finalize()  # a second time does nothing
    assert cuda.memory == {"GPU": {}, "host": {}} and not cuda.streams


def test_single_runs_are_timed_after_a_warm_up(cuda):
    feeds = {"a": rows(1), "b": rows(1)}
    with Engine(json.dumps(PLAN).encode(), sys.modules["tensorrt"]) as engine:
        times = engine.time(feeds, runs=3, warm_up=2)
    assert times.tolist() == [0.5] * 3
    assert cuda.runs == 5 and not cuda.events


def test_layers_are_timed_without_the_first_runs(cuda):
    with Engine(json.dumps(PLAN).encode(), sys.modules["tensorrt"]) as engine:
        times = engine.time_layers({"a": rows(1), "b": rows(1)}, runs=3)
    assert times == {"add": 1.0} and cuda.runs == 8


NUMPY = {"FLOAT": "f4", "HALF": "f2", "INT8": "i1", "UINT8": "u1", "INT32": "i4"}


@pytest.mark.parametrize(("kind", "dtype"), (NUMPY | {"BOOL": "?"}).items())
def test_each_type_is_that_of_numpy(cuda, kind, dtype):
    plan = json.dumps({**PLAN, "type": kind}).encode()
    assert Engine(plan, sys.modules["tensorrt"]).dtypes["a"] == np.dtype(dtype)


def test_outputs_have_the_type_of_the_engine(cuda):
    plan = json.dumps({**PLAN, "type": "INT32"}).encode()
    with Engine(plan, sys.modules["tensorrt"]) as engine:
        found = engine.run({"a": np.ones((1, 4), "i4"), "b": np.ones((1, 4), "i4")})
    assert {x.dtype for x in found.values()} == {np.dtype("i4")}


LESSON = "04_run_and_inspect_an_engine"


@pytest.fixture
def lesson(cuda):
    """What lesson 04 gives away to run an engine, on the fake."""
    names = {"trt": sys.modules["tensorrt"], "np": np}
    names |= {"logger": SimpleNamespace(log=lambda severity, message: None)}
    names |= taught(LESSON, "def check(result)", cuda=cuda, **names)
    names |= taught(LESSON, "def reserve_memory(", cuda=cuda, check=names["check"])
    return names | taught(LESSON, "def run_engine(", **names | {"cuda": cuda})


def test_the_lesson_runs_an_engine_and_gives_the_memory_back(lesson, cuda):
    loaded = lesson["load_engine"](json.dumps(PLAN))
    (_, stream), a = cuda.cudaStreamCreate(), rows(3)
    found = lesson["run_engine"](loaded, {"a": a, "b": a[::-1]}, stream)
    np.testing.assert_array_equal(found["sum"], a + a[::-1])
    np.testing.assert_array_equal(found["difference"], a - a[::-1])
    assert set(found) == {"sum", "difference"}
    assert not cuda.memory["GPU"] and not cuda.events


def test_the_lesson_says_what_was_refused(lesson, cuda):
    loaded, inputs = lesson["load_engine"](json.dumps(PLAN)), {"b": rows(9)}
    _, stream = cuda.cudaStreamCreate()
    with pytest.raises(ValueError, match=r"b: \(9, 4\) does not fit the profile"):
        lesson["run_engine"](loaded, inputs | {"a": rows(9)}, stream)
    refusing = lesson["load_engine"](json.dumps({**PLAN, "refuses": "no"}))
    with pytest.raises(RuntimeError, match="did not run the engine"):
        lesson["run_engine"](refusing, {"a": rows(2), "b": rows(2)}, stream)
    cuda.full = True
    with pytest.raises(RuntimeError, match="CUDA: cudaErrorMemoryAllocation"):
        lesson["run_engine"](loaded, {"a": rows(2), "b": rows(2)}, stream)
    assert not cuda.memory["GPU"]
    with pytest.raises(RuntimeError, match="TensorRT refuses this plan"):
        lesson["load_engine"]("no plan")
