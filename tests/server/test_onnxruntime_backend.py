"""The Python-based onnxruntime backend completes, refuses and batches like C++'s."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import onnx
import psutil
import pytest
import tomllib
import tritonclient.grpc as grpcclient
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException

from conftest import FakeModelError, make_model, read_config, save_model, started
from helpers import paths
from repository_check.data_types import FROM_ONNX

pytestmark = pytest.mark.server

X = 'input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
Y = 'output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
HEAD = 'backend: "onnxruntime"\nmax_batch_size: 8\n'
PARAMETER = 'parameters { key: "%s" value { string_value: "%s" } }\n'

REFUSALS = tomllib.loads((paths.ROOT / "tests/data/refusals.toml").read_text())


@pytest.fixture(scope="module")
def make_server():
    """Start a server on a repository; it is stopped at the end of the module."""
    with ExitStack() as servers:

        def make(repository, models):
            server = servers.enter_context(started(repository, models=models))
            return grpcclient.InferenceServerClient(server.grpc)

        yield make


def test_refuses_in_the_words_of_the_real_backend(make_repository, make_server):
    configs = {name: refusal["config"] for name, refusal in REFUSALS.items()}
    client = make_server(make_repository(configs), [])
    for name in REFUSALS:
        with pytest.raises(InferenceServerException) as refused:
            client.load_model(name)
        assert REFUSALS[name]["words"] in refused.value.message(), name


def test_refuses_a_file_that_is_not_onnx(make_repository, make_server):
    repository = make_repository({"text": HEAD + X + Y})
    (repository / "text/1/model.onnx").write_text("this is no model")
    client = make_server(repository, [])
    with pytest.raises(InferenceServerException, match="Protobuf parsing failed"):
        client.load_model("text")


def test_completes_an_empty_config(make_repository, make_server):
    texts = {"double": "", "one": "max_batch_size: 1\n"}
    client = make_server(make_repository(texts), [*texts])
    one = client.get_model_config("one").config
    assert (one.max_batch_size, list(one.input[0].dims)) == (1, [4])
    assert not one.HasField("dynamic_batching")
    config = client.get_model_config("double").config
    assert (config.backend, config.platform) == ("onnxruntime", "onnxruntime_onnx")
    assert config.max_batch_size == 4
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    assert [(x.name, list(x.dims)) for x in config.input] == [("x", [4])]
    assert [(x.name, list(x.dims)) for x in config.output] == [("y", [4])]


def infer(client, model, outputs=None, **inputs):
    """Answers of a model by name, for float32 arrays given by name."""
    tensors = []
    for name, value in inputs.items():
        tensors.append(grpcclient.InferInput(name, value.shape, "FP32"))
        tensors[-1].set_data_from_numpy(value)
    if outputs:
        outputs = [grpcclient.InferRequestedOutput(name) for name in outputs]
    answer = client.infer(model, tensors, outputs=outputs)
    names = [tensor.name for tensor in answer.get_response().outputs]
    return {name: answer.as_numpy(name) for name in names}


def together(*calls):
    """Results, or exceptions, of calls that run at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(*call) for call in calls]
    return [future.exception() or future.result() for future in futures]


def save(repository, name, config, *model, **kind):
    """Put a model made of these nodes into a repository; see ``make_model``."""
    save_model(repository, name, config, make_model(*model, **kind))


# The first request waits a minute for as many rows as a test sends together.
WAIT = (
    "dynamic_batching { preferred_batch_size: %d "
    "max_queue_delay_microseconds: 60000000 }"
)


@pytest.fixture(scope="module")
def odd_models(tmp_path_factory, make_server):
    """A client of a server with models that a careless backend gets wrong."""
    repository = tmp_path_factory.mktemp("odd")
    node, batch4 = helper.make_node, ["batch", 4]
    save(
        repository,
        "run_size",  # answers x plus the number of rows of the whole run
        'backend: "onnxruntime" max_batch_size: 8 ' + WAIT % 8,
        [
            node("Shape", ["x"], ["rows"], start=0, end=1),
            node("Cast", ["rows"], ["count"], to=TensorProto.FLOAT),
            node("Add", ["x", "count"], ["y"]),
        ],
        [("x", batch4)],
        [("y", batch4)],
    )
    save(
        repository,
        "twice_the_rows",  # its output's first axis is not the batch
        'backend: "onnxruntime" max_batch_size: 8 ' + WAIT % 2,
        [node("Concat", ["x", "x"], ["y"], axis=0)],
        [("x", batch4)],
        [("y", ["rows", 4])],
    )
    save(
        repository,
        "pick",  # fails for an index above 3
        'backend: "onnxruntime" max_batch_size: 8 ' + WAIT % 3,
        [
            node("Cast", ["x"], ["index"], to=TensorProto.INT64),
            node("Gather", ["table", "index"], ["y"]),
        ],
        [("x", ["batch", 1])],
        [("y", ["batch", 1])],
        [numpy_helper.from_array(np.arange(4, dtype=np.float32) * 10, "table")],
    )
    save(
        repository,
        "sum_and_product",
        'backend: "onnxruntime" max_batch_size: 8 ' + WAIT % 2,
        [node("Add", ["a", "b"], ["sum"]), node("Mul", ["a", "b"], ["product"])],
        [("a", batch4), ("b", batch4)],
        [("sum", batch4), ("product", batch4)],
    )
    save(
        repository,
        "fixed",  # no batch axis
        'backend: "onnxruntime"',
        [node("Neg", ["x"], ["y"])],
        [("x", [2, 3])],
        [("y", [2, 3])],
    )
    save(
        repository,
        "largest",  # its output has no batch axis
        'backend: "onnxruntime"',
        [node("ReduceMax", ["x"], ["y"], axes=[0], keepdims=0)],
        [("x", batch4)],
        [("y", [4])],
    )
    save(
        repository,
        "text",
        'backend: "onnxruntime"',
        [node("Identity", ["x"], ["y"])],
        [("x", ["batch", 2])],
        [("y", ["batch", 2])],
        kind=TensorProto.STRING,
    )
    for threads in 1, 4:
        save(
            repository,
            f"threads_{threads}",
            'backend: "onnxruntime" instance_group { count: 1 kind: KIND_CPU } '
            'parameters { key: "intra_op_thread_count" '
            f'value {{ string_value: "{threads}" }} }}',
            [node("Neg", ["x"], ["y"])],
            [("x", batch4)],
            [("y", batch4)],
        )
    models = [folder.name for folder in repository.iterdir()]
    return make_server(repository, models)


def test_runs_requests_of_many_clients_together(odd_models):
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    calls = [(lambda n=n: infer(odd_models, "run_size", x=x + n),) for n in range(4)]
    for n, answer in enumerate(together(*calls)):
        assert np.array_equal(answer["y"], x + n + 8)


def test_does_not_mix_answers_where_the_first_axis_is_not_the_batch(odd_models):
    rows = [np.full((1, 4), n, np.float32) for n in (1, 2)]
    calls = [(lambda x=x: infer(odd_models, "twice_the_rows", x=x),) for x in rows]
    for x, answer in zip(rows, together(*calls)):
        assert np.array_equal(answer["y"], np.concatenate([x, x]))


def test_an_error_in_one_request_does_not_fail_its_neighbours(odd_models):
    values = 1, 99, 3
    calls = [
        (lambda n=n: infer(odd_models, "pick", x=np.array([[n]], np.float32)),)
        for n in values
    ]
    one, bad, three = together(*calls)
    assert (one["y"].item(), three["y"].item()) == (10, 30)
    assert isinstance(bad, InferenceServerException)
    assert "indices element out of data bounds" in bad.message()


def test_gives_each_request_the_outputs_that_it_asks_for(odd_models):
    a, b = np.full((1, 4), 3, np.float32), np.full((1, 4), 5, np.float32)
    model = "sum_and_product"
    every, product = together(
        (lambda: infer(odd_models, model, a=a, b=b),),
        (lambda: infer(odd_models, model, ["product"], b=b, a=a),),
    )
    assert {name: x[0, 0] for name, x in every.items()} == {"sum": 8, "product": 15}
    assert {name: x[0, 0] for name, x in product.items()} == {"product": 15}


def test_serves_a_model_without_a_batch_axis(odd_models):
    x = np.ones((2, 3), np.float32)
    assert odd_models.get_model_config("fixed").config.max_batch_size == 0
    assert np.array_equal(infer(odd_models, "fixed", x=x)["y"], -x)
    assert odd_models.get_model_config("largest").config.max_batch_size == 0
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    assert np.array_equal(infer(odd_models, "largest", x=x)["y"], x[1])


def test_serves_text(odd_models):
    text = np.array([["espresso", "Grüße"], ["", "猫"]], object)
    tensor = grpcclient.InferInput("x", text.shape, "BYTES")
    tensor.set_data_from_numpy(text)
    answer = odd_models.infer("text", [tensor]).as_numpy("y")
    assert [[x.decode() for x in row] for row in answer] == text.tolist()


def test_uses_the_threads_that_the_config_asks_for(odd_models):
    counts = {}
    for process in psutil.process_iter(["cmdline"]):
        for argument in process.info["cmdline"] or ():
            if match := re.search(r"/threads_(\d)/1/model.onnx$", argument):
                counts[match[1]] = process.num_threads()
    assert counts["4"] - counts["1"] == 3


def test_refuses_to_batch_a_model_without_a_batch_axis(make_server, tmp_path):
    save(
        tmp_path,
        "fixed",
        HEAD + X + Y,
        [helper.make_node("Neg", ["x"], ["y"])],
        [("x", [1, 4])],
        [("y", [1, 4])],
    )
    client = make_server(tmp_path, [])
    with pytest.raises(InferenceServerException) as refusal:
        client.load_model("fixed")
    assert (
        "for the model to support batching the shape should have at least 1 dimension "
        "and the first dimension must be -1; but shape expected by the model is [1,4]"
    ) in refusal.value.message()


def test_passes_the_threads_on_and_lets_them_not_spin(
    load_backend, doubling_model, tmp_path
):
    backend = load_backend("onnxruntime")
    onnx.save(doubling_model, tmp_path / "model.onnx")
    config = HEAD + PARAMETER % ("intra_op_thread_count", "2")
    config += PARAMETER % ("inter_op_thread_count", "3")
    session = backend.open_session(tmp_path, read_config(config))
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 3)
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


@pytest.mark.parametrize("number", sorted({*FROM_ONNX} - {TensorProto.BFLOAT16}))
def test_names_each_type_as_triton_does(load_backend, tmp_path, number):
    backend = load_backend("onnxruntime")
    node = helper.make_node("Identity", ["x"], ["y"])
    model = make_model([node], [("x", [1])], [("y", [1])], kind=number)
    onnx.save(model, tmp_path / "model.onnx")
    (tensor,) = backend.open_session(tmp_path, read_config(HEAD)).get_inputs()
    assert backend.triton_type(tensor) == FROM_ONNX[number]


def test_refuses_an_optional_input_where_requests_are_batched(
    load_backend, doubling_model, tmp_path
):
    """``two`` has a value in the file, and may be given with a request."""
    backend = load_backend("onnxruntime")
    two = helper.make_tensor_value_info("two", TensorProto.FLOAT, [])
    doubling_model.graph.input.append(two)
    onnx.save(doubling_model, tmp_path / "model.onnx")
    session = backend.open_session(tmp_path, read_config(HEAD))
    optional = X.replace('"x"', '"two"').replace(" } ]", " optional: true } ]")
    config = read_config(HEAD + X + optional + Y)
    with pytest.raises(FakeModelError, match="optional input 'two' is not supported"):
        backend.check(config, session)


def test_a_request_may_give_what_the_file_has_a_value_for(load_backend, tmp_path):
    backend = load_backend("onnxruntime")
    model = make_model(
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        [("x", ["batch", 4]), ("two", [1])],
        [("y", ["batch", 4])],
        [numpy_helper.from_array(np.float32([2]), "two")],
    )
    onnx.save(model, tmp_path / "model.onnx")
    session = backend.open_session(tmp_path, read_config(HEAD))
    inputs = X.replace("[ 4 ]", "[ -1, 4 ]")
    optional = inputs.replace('"x"', '"two"').replace("[ -1, 4 ] }", "[ 1 ] OPTIONAL }")
    head, output = 'backend: "onnxruntime"\n', Y.replace("[ 4 ]", "[ -1, 4 ]")
    given = optional.replace("OPTIONAL", "optional: true")
    backend.check(read_config(head + inputs + given + output), session)
    required = optional.replace("OPTIONAL", "")
    with pytest.raises(FakeModelError, match="expects 2 inputs, model provides 1"):
        backend.check(read_config(head + inputs + required + output), session)


def test_a_reshape_is_what_the_file_is_compared_with(
    load_backend, doubling_model, tmp_path
):
    backend = load_backend("onnxruntime")
    onnx.save(doubling_model, tmp_path / "model.onnx")
    session = backend.open_session(tmp_path, read_config(HEAD))
    reshaped = "[ 2, 2 ] reshape { shape: [ SIZE ] }"
    for size in 4, 3:
        text = X.replace("[ 4 ]", reshaped.replace("SIZE", str(size)))
        config = read_config(HEAD + text + Y)
        if size == 4:
            backend.check(config, session)
            continue
        with pytest.raises(FakeModelError, match="tensor 'x'"):
            backend.check(config, session)


def test_a_config_may_leave_out_an_output(load_backend, tmp_path):
    backend = load_backend("onnxruntime")
    nodes = [helper.make_node("Add", ["x", "x"], [name]) for name in "yz"]
    outputs = [(name, ["batch", 4]) for name in "yz"]
    onnx.save(
        make_model(nodes, [("x", ["batch", 4])], outputs), tmp_path / "model.onnx"
    )
    session = backend.open_session(tmp_path, read_config(HEAD))
    backend.check(read_config(HEAD + X + Y), session)


def test_a_config_may_fix_a_free_size_of_an_input_alone(load_backend, tmp_path):
    backend = load_backend("onnxruntime")
    free = ["batch", "n"]
    node = helper.make_node("Neg", ["x"], ["y"])
    onnx.save(make_model([node], [("x", free)], [("y", free)]), tmp_path / "model.onnx")
    session = backend.open_session(tmp_path, read_config(HEAD))
    backend.check(read_config(HEAD + X + Y.replace("[ 4 ]", "[ -1 ]")), session)
    with pytest.raises(FakeModelError, match="tensor 'y'"):
        backend.check(read_config(HEAD + X + Y), session)


def test_says_that_a_gpu_is_not_used(load_backend, doubling_model, tmp_path, capsys):
    backend = load_backend("onnxruntime")
    (tmp_path / "1").mkdir()
    onnx.save(doubling_model, tmp_path / "1" / "model.onnx")
    arguments = {
        "model_config": json.dumps(read_config(HEAD + X + Y)),
        "model_repository": str(tmp_path),
        "model_version": "1",
        "model_instance_name": "double_0",
    }
    for kind, said in ("CPU", ""), ("GPU", "double_0 is of KIND_GPU"):
        model = backend.TritonPythonModel()
        model.initialize(arguments | {"model_instance_kind": kind})
        assert capsys.readouterr().out.startswith(said)
        (y,) = model.compute(["y"], {"x": np.ones((1, 4), np.float32)})
        assert y.tolist() == [[2, 2, 2, 2]]
