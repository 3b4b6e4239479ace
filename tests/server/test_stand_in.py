"""docs/stand_in.md, row by row: what the onnxruntime stand-in does in a server.

The first line of a test's docstring is the feature of its row.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from conftest import parse_graph, save_model, started
from helpers import paths

pytestmark = pytest.mark.server

BACKEND = 'backend: "onnxruntime"\n'
ONE_INSTANCE = "instance_group [ { count: 1 kind: KIND_CPU } ]\n"
BATCH = BACKEND + "max_batch_size: 8\n" + ONE_INSTANCE
# The first request waits until there are two, so that both run as one batch.
PAIR = (
    BATCH + "dynamic_batching { preferred_batch_size: 2 "
    "max_queue_delay_microseconds: 60000000 }\n"
)
DOUBLE = "(float[batch,4] x) => (float[batch,4] y) { y = Add(x, x) }"
DOUBLE_IO = (
    'input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
    'output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
)
START = (
    '{ name: "START" control [ { kind: CONTROL_SEQUENCE_START '
    "int32_false_true: [ 0, 1 ] } ] }"
)
CORRID = (
    '{ name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID '
    "data_type: TYPE_UINT64 } ] }"
)


class Stand:
    """A server without models, and a client that puts them there."""

    def __init__(self, server, repository):
        self.server, self.repository = server, repository
        self.client = grpcclient.InferenceServerClient(server.grpc)

    def save(self, name, graph, config=BACKEND):
        """Write a model: its graph as ``onnx.parser`` reads it."""
        save_model(self.repository, name, config, parse_graph(graph))

    def load(self, name, graph, config=BACKEND):
        """Serve a model and return its config."""
        self.save(name, graph, config)
        self.client.load_model(name)
        return self.client.get_model_config(name).config

    def refused(self, name, graph, config=BACKEND):
        """The reason why a model does not load."""
        self.save(name, graph, config)
        with pytest.raises(InferenceServerException) as refusal:
            self.client.load_model(name)
        return refusal.value.message()

    def infer(self, model, sequence=None, **inputs):
        """Ask a model; ``sequence`` is (id, whether it starts, whether it ends)."""
        tensors = []
        for name, value in inputs.items():
            types = {"f": "FP32", "i": "INT32", "O": "BYTES"}
            tensors.append(
                grpcclient.InferInput(name, value.shape, types[value.dtype.kind])
            )
            tensors[-1].set_data_from_numpy(value)
        options = {}
        if sequence:
            keys = "sequence_id", "sequence_start", "sequence_end"
            options = dict(zip(keys, sequence))
        answer = self.client.infer(model, tensors, **options)
        names = [output.name for output in answer.get_response().outputs]
        return {name: answer.as_numpy(name) for name in names}

    def infer_together(self, model, *requests):
        """Answers, or errors, of requests that are sent at the same time."""
        with ThreadPoolExecutor(len(requests)) as pool:
            asked = [pool.submit(self.infer, model, **inputs) for inputs in requests]
        return [answer.exception() or answer.result() for answer in asked]


@pytest.fixture(scope="module")
def stand(tmp_path_factory):
    repository = tmp_path_factory.mktemp("stand")
    with started(repository, models=[]) as server:
        yield Stand(server, repository)


def parameter(key, value):
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


def column(*values):
    return np.array(values, np.int32)[:, None]


def row(*values):
    return np.array([values], np.float32)


def test_controls(stand):
    """Sequence controls: start, end, ready and the sequence's id"""
    stand.load(
        "controls",
        "(int32[batch,1] x, int32[batch,1] START, uint64[batch,1] CORRID) => "
        "(int32[batch,1] y, uint64[batch,1] id) "
        "{ y = Add(x, START)  id = Identity(CORRID) }",
        BATCH + f"sequence_batching {{ control_input [ {START}, {CORRID} ] }}\n"
        'input [ { name: "x" data_type: TYPE_INT32 dims: [ 1 ] } ]\n'
        'output [ { name: "y" data_type: TYPE_INT32 dims: [ 1 ] },'
        ' { name: "id" data_type: TYPE_UINT64 dims: [ 1 ] } ]\n',
    )
    first = stand.infer("controls", (42, True, False), x=column(10))
    assert (first["y"].item(), first["id"].item()) == (11, 42)
    assert stand.infer("controls", (42, False, True), x=column(10))["y"].item() == 10


def test_text_as_control(stand):
    """A sequence's id that is a text, as a control (`TYPE_STRING`)"""
    stand.load(
        "text_id",
        "(int32[batch,1] x, string[batch,1] CORRID) => "
        "(int32[batch,1] y, string[batch,1] id) "
        "{ y = Neg(x)  id = Identity(CORRID) }",
        BATCH
        + "sequence_batching { control_input [ "
        + CORRID.replace("UINT64", "STRING")
        + " ] }\n"
        'input [ { name: "x" data_type: TYPE_INT32 dims: [ 1 ] } ]\n'
        'output [ { name: "y" data_type: TYPE_INT32 dims: [ 1 ] },'
        ' { name: "id" data_type: TYPE_STRING dims: [ 1 ] } ]\n',
    )
    with pytest.raises(
        InferenceServerException,
        match="unexpected number of string elements 2 for inference input 'CORRID', "
        "expecting 1",
    ):
        stand.infer("text_id", ("a" * 124, True, True), x=column(1))
    answer = stand.infer("text_id", ("a" * 128, True, True), x=column(1))
    assert answer["id"].item() == b"a" * 128


def test_controls_refused(stand):
    """A control that the model lacks, or has in another type or shape"""
    io = (
        'input [ { name: "x" data_type: TYPE_INT32 dims: [ 1 ] } ]\n'
        'output [ { name: "y" data_type: TYPE_INT32 dims: [ 1 ] } ]\n'
    )
    config = BATCH + f"sequence_batching {{ control_input [ {START} ] }}\n" + io
    plain = "(int32[batch,1] x) => (int32[batch,1] y) { y = Neg(x) }"
    assert (
        "configuration specified sequence control 'START', but model does not provide "
        "that input"
    ) in stand.refused("no_start", plain, config)
    graph = "(int32[batch,1] x, %s START) => (int32[batch,1] y) { y = Neg(x) }"
    assert (
        "sequence control 'START', the model expects data-type FLOAT but the model "
        "configuration specifies data-type TYPE_INT32"
    ) in stand.refused("float_start", graph % "float[batch,1]", config)
    assert (
        "sequence control 'START' in model has dims [2] but dims [1] is expected"
    ) in stand.refused("wide_start", graph % "int32[batch,2]", config)


SUM = (
    "(int32[batch,1] x, int32[batch,1] START, int32[batch,1] old) => "
    "(int32[batch,1] sum, int32[batch,1] new) "
    "{ starts = Cast <to = 9> (START)  zero = Sub(x, x) "
    "kept = Where(starts, zero, old)  sum = Add(kept, x)  new = Identity(sum) }"
)
STATE = (
    '{ input_name: "old" output_name: "new" data_type: TYPE_INT32 dims: [ 1 ]'
    ' initial_state: { name: "zero" data_type: TYPE_INT32 dims: [ 1 ]'
    " zero_data: true } }"
)
SUM_IO = (
    'input [ { name: "x" data_type: TYPE_INT32 dims: [ 1 ] } ]\n'
    'output [ { name: "sum" data_type: TYPE_INT32 dims: [ 1 ] } ]\n'
)


@pytest.mark.parametrize("strategy", ["direct { }", "oldest { }"])
def test_implicit_state(stand, strategy):
    """Implicit state of a sequence"""
    name = "sum_" + strategy.partition(" ")[0]
    stand.load(
        name,
        SUM,
        BATCH + f"sequence_batching {{ {strategy} control_input [ {START} ] "
        f"state [ {STATE} ] }}\n" + SUM_IO,
    )
    sums = {}
    for step in range(4):  # two sequences, a step of each in turn
        for sequence in 1, 2:
            control = sequence, step == 0, step == 3
            answer = stand.infer(name, control, x=column(sequence))
            assert set(answer) == {"sum"}  # the state is not an output
            sums[sequence] = answer["sum"].item()
    assert sums == {1: 4, 2: 8}
    assert stand.infer(name, (1, True, True), x=column(7))["sum"].item() == 7


RAGGED = (
    PAIR + 'input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] '
    "allow_ragged_batch: true } ]\n"
    'output [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
)
KINDS = {  # the values for requests of these sizes
    "BATCH_ELEMENT_COUNT": lambda a, b: [a, b],
    "BATCH_ACCUMULATED_ELEMENT_COUNT": lambda a, b: [a, a + b],
    "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO": lambda a, b: [0, a, a + b],
    "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE": lambda a, b: [0, 0, 0],
    "BATCH_ITEM_SHAPE": lambda a, b: [a, b],
    "BATCH_ITEM_SHAPE_FLATTEN": lambda a, b: [a, b],
}


@pytest.mark.parametrize("kind", KINDS)
def test_batch_input(stand, kind):
    """Ragged inputs, and every kind of `batch_input`"""
    sources = ("info", kind), ("count", "BATCH_ELEMENT_COUNT")
    batch_inputs = ", ".join(
        f'{{ kind: {source} target_name: "{name}" data_type: TYPE_FP32 '
        'source_input: "x" }'
        for name, source in sources
    )
    # Each request gets all that the run saw: x, and the batch input.
    stand.load(
        kind.lower(),
        f"(float[n] x, float[{'i,j' if kind == 'BATCH_ITEM_SHAPE' else 'i'}] info, "
        "float[requests] count) => (float[batch,a] y, float[batch,b] seen) "
        "{ rows = Shape(count)  one = Constant <value_ints = [1]> () "
        "repeats = Concat <axis = 0> (rows, one) "
        "row = Constant <value_ints = [1, -1]> () "
        "x_row = Reshape(x, row)  y = Tile(x_row, repeats) "
        "info_row = Reshape(info, row)  seen = Tile(info_row, repeats) }",
        RAGGED
        + 'output [ { name: "seen" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
        + f"batch_input [ {batch_inputs} ]\n",
    )
    answers = stand.infer_together(kind.lower(), {"x": row(1, 2, 3)}, {"x": row(4)})
    sizes = (3, 1) if answers[0]["y"].ravel().tolist() == [1, 2, 3, 4] else (1, 3)
    for answer in answers:
        assert answer["seen"].ravel().tolist() == KINDS[kind](*sizes)


def test_batch_output(stand):
    """`batch_output`: an output that is cut as the requests were"""
    stand.load(
        "scatter",
        "(float[n] x) => (float[n] y) { y = Neg(x) }",
        RAGGED
        + 'batch_output [ { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "y"'
        ' source_input: "x" } ]\n',
    )
    long, short = stand.infer_together("scatter", {"x": row(1, 2, 3)}, {"x": row(4)})
    assert (long["y"].tolist(), short["y"].tolist()) == ([[-1, -2, -3]], [[-4]])


def test_ragged_refused(stand):
    """A ragged input whose tensor is not of one free axis"""
    assert (
        "configuration expects model provides input with shape [-1]  for ragged input "
        "'x', model provides [-1,-1]"
    ) in stand.refused(
        "not_flat", "(float[batch,n] x) => (float[batch,n] y) { y = Neg(x) }", RAGGED
    )


def test_scalars(stand):
    """A scalar: `dims: [ 1 ]` in the config"""
    config = stand.load("scalar", "(float x) => (float y) { y = Neg(x) }")
    assert (list(config.input[0].dims), list(config.output[0].dims)) == ([1], [1])
    assert not config.input[0].HasField("reshape")
    assert stand.infer("scalar", x=np.float32([3]))["y"].tolist() == [-3]
    io = DOUBLE_IO.replace("[ 4 ]", "[ 2 ]")
    assert (
        "scalar tensor 'x', should only provide 1 in the model configuration when the "
        "model doesn't support batching. Model configuration provided: [2]."
    ) in stand.refused("two", "(float x) => (float y) { y = Neg(x) }", BACKEND + io)


def test_batch_alone(stand):
    """A tensor whose only axis is the batch: `dims: [ 1 ]` and an empty reshape"""
    config = stand.load("flat", "(float[batch] x) => (float[batch] y) { y = Neg(x) }")
    assert list(config.input[0].dims) == [1] and config.input[0].HasField("reshape")
    assert stand.infer("flat", x=np.float32([[3], [4]]))["y"].tolist() == [[-3], [-4]]


def test_sequences_and_maps(stand):
    """Sequences and maps as inputs or outputs, listed in the config or not"""
    graph = "(float[batch,4] x) => (float[batch,4] y, seq(float[batch,4]) z) %s"
    body = "{ y = Neg(x)  z = SequenceConstruct(x, x) }"
    config = BATCH + DOUBLE_IO
    for name, text in ("unlisted", config), ("completed", BACKEND):
        assert (
            "Unsupported ONNX Type 'ONNX_TYPE_SEQUENCE' for I/O 'z', expected "
            "'ONNX_TYPE_TENSOR'."
        ) in stand.refused(name, graph % body, text)


def test_bfloat16(stand):
    """BF16"""
    graph = "(bfloat16[batch,4] x) => (bfloat16[batch,4] y) { y = Identity(x) }"
    io = DOUBLE_IO.replace("FP32", "BF16")
    assert (
        "unsupported datatype TYPE_BF16 for input 'x' for model 'bf16'"
    ) in stand.refused("bf16", graph, BATCH + io)


@pytest.mark.parametrize(
    ("name", "lines", "words"),
    [
        (
            "accelerator",
            "optimization { execution_accelerators { cpu_execution_accelerator : "
            '[ { name : "tensorrt" } ] } }\n',
            "unknown Execution Accelerator 'tensorrt' is requested",
        ),
        (
            "library",
            'model_operations { op_library_filename: "/nowhere/libops.so" }\n',
            "onnx runtime error",
        ),
        (
            "mode",
            parameter("execution_mode", "7"),
            "Expected values for  execution_mode are 0 or 1 but got 7 .",
        ),
        (
            "arena",
            parameter("enable_mem_arena", "maybe"),
            "failed to convert 'maybe' to boolean",
        ),
        (
            "count",
            parameter("intra_op_thread_count", "many"),
            "failed to convert 'many' to integral number",
        ),
    ],
)
def test_options_refused(stand, name, lines, words):
    """Options with a value that means nothing"""
    config = BATCH + DOUBLE_IO + lines
    assert words in stand.refused(f"bad_{name}", DOUBLE, config)


def test_openvino(stand):
    """OpenVINO as `cpu_execution_accelerator`"""
    stand.load(
        "openvino",
        DOUBLE,
        BATCH + DOUBLE_IO + "optimization { execution_accelerators { "
        'cpu_execution_accelerator : [ { name : "openvino" } ] } }\n',
    )
    assert stand.infer("openvino", x=row(1, 2, 3, 4))["y"].tolist() == [[2, 4, 6, 8]]
    assert "openvino runs without openvino here" in stand.server.log.read_text()


def threads(stand, model):
    """How many threads the process of a model has."""
    file = str(stand.repository / model / "1" / "model.onnx")
    (process,) = [
        process
        for process in psutil.process_iter(["cmdline"])
        if file in (process.info["cmdline"] or ())
    ]
    return process.num_threads()


def test_options(stand):
    """Graph level, execution mode, memory arena and pattern, thread counts"""
    lines = {
        "one": parameter("intra_op_thread_count", "1"),
        "four": parameter("intra_op_thread_count", "4 ")
        + parameter("execution_mode", "1")
        + parameter("inter_op_thread_count", "1")
        + parameter("enable_mem_arena", "0")
        + parameter("enable_mem_pattern", "OFF")
        + parameter("memory.enable_memory_arena_shrinkage", "cpu:0")
        + "optimization { graph { level: 2 } }\n",
        "default": parameter("intra_op_thread_count", "-1"),
    }
    for name, text in lines.items():
        stand.load(name, DOUBLE, BATCH + DOUBLE_IO + text)
    assert threads(stand, "four") - threads(stand, "one") == 3
    # What the parameters do to onnxruntime's own options: test_onnxruntime_backend.py.


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--backend-config=default-max-batch-size=16", 16),
        ("--backend-config=onnxruntime,default-max-batch-size=0", 0),
    ],
)
def test_default_max_batch_size(tmp_path, argument, expected):
    """`default-max-batch-size` on the command line"""
    with started(tmp_path, models=[], arguments=[argument]) as server:
        config = Stand(server, tmp_path).load("double", DOUBLE)
    assert config.max_batch_size == expected
    assert config.HasField("dynamic_batching") == (expected > 1)
    assert list(config.input[0].dims) == ([4] if expected else [-1, 4])


def test_no_batch_to_complete(stand):
    """`max_batch_size` above 0 without inputs and outputs, for a model with no batch"""
    assert (
        "autofill failed for model 'fixed': model does not support batching while "
        "non-zero max_batch_size is specified"
    ) in stand.refused(
        "fixed", DOUBLE.replace("batch", "1"), BACKEND + "max_batch_size: 4\n"
    )


def test_folder(stand):
    """`1/model.onnx` is a folder that holds `model.onnx`"""
    stand.save("folder", DOUBLE)
    version = stand.repository / "folder" / "1"
    (version / "model.onnx").rename(version / "file")
    (version / "model.onnx").mkdir()
    (version / "file").rename(version / "model.onnx" / "model.onnx")
    stand.client.load_model("folder")
    assert stand.infer("folder", x=row(1, 2, 3, 4))["y"].tolist() == [[2, 4, 6, 8]]


def test_decoupled(stand):
    """`decoupled: true`"""
    stand.load(
        "decoupled",
        DOUBLE,
        BATCH + DOUBLE_IO + "model_transaction_policy { decoupled: true }\n",
    )
    answers = Queue()
    tensor = grpcclient.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(row(1, 2, 3, 4))
    with grpcclient.InferenceServerClient(stand.server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("decoupled", [tensor])
        result, error = answers.get(timeout=30)
    assert error is None and result.as_numpy("y").tolist() == [[2, 4, 6, 8]]


def test_text(stand):
    """Text that is not UTF-8"""
    stand.load(
        "label",
        "(string[batch,1] x) => (int64[batch,1] y) "
        '{ y = ai.onnx.ml.LabelEncoder <keys_strings = ["cat", "dog"], '
        "values_int64s = [1, 2], default_int64 = 0> (x) }",
    )
    texts = np.array([[b"caf\xe9"], [b"dog"], [b"cat\0fish"]], object)
    assert stand.infer("label", x=texts)["y"].ravel().tolist() == [0, 2, 1]
    stand.load("echo", "(string[batch,1] x) => (string[batch,1] y) { y = Identity(x) }")
    with pytest.raises(InferenceServerException, match="text that is not UTF-8"):
        stand.infer("echo", x=texts)
    assert stand.infer("echo", x=texts[1:2])["y"].item() == b"dog"


def test_bad_request(stand):
    """One bad request in a batch"""
    stand.load(
        "pick",
        "(int32[batch,1] x) => (float[batch,1] y) "
        "{ table = Constant <value_floats = [0., 10.]> ()  y = Gather(table, x) }",
        PAIR + 'input [ { name: "x" data_type: TYPE_INT32 dims: [ 1 ] } ]\n'
        'output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } ]\n',
    )
    good, bad = stand.infer_together("pick", {"x": column(1)}, {"x": column(9)})
    assert good["y"].item() == 10
    assert "indices element out of data bounds" in bad.message()


def test_no_file(stand):
    """A file that is not there, or is no ONNX"""
    stand.save("nothing", DOUBLE)
    (stand.repository / "nothing" / "1" / "model.onnx").unlink()
    with pytest.raises(InferenceServerException, match="failed to stat file"):
        stand.client.load_model("nothing")


def test_every_row_of_the_table_is_proved_here():
    text = (paths.ROOT / "docs" / "stand_in.md").read_text()
    rows = re.findall(r"^\| (?!Feature|---)(.+?) \|", text, re.MULTILINE)
    tests = [value for name, value in globals().items() if name.startswith("test_")]
    proved = [test.__doc__ for test in tests if test.__doc__]
    assert sorted(rows) == sorted(proved)
