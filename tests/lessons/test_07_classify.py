"""The client of lesson 07, outside the one model and the pictures of the lesson."""

import queue

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from onnx import helper, numpy_helper
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from conftest import make_model, save_model, started, taught
from helpers import images

LESSON = "07_classify_from_a_client"
SHAPE = 3, 224, 224
LABELS = ["chair: folding", "10:30 train", "cat", "dog"]
CONFIG = """\
backend: "onnxruntime"
max_batch_size: 4
input [ { name: "input"  data_type: TYPE_FP32  dims: [ 3, 224, 224 ] } ]
output [ { name: "logits"  data_type: TYPE_FP32  dims: [ 4 ] LABELS } ]
instance_group [ { kind: KIND_CPU } ]
"""


@pytest.fixture(scope="module")
def classify():
    return taught(LESSON, "def classify(")["classify"]


@pytest.fixture(scope="module")
def read_picture():
    return taught(LESSON, "def read_picture(")["read_picture"]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of three models whose logits are the first four numbers of a picture."""
    repository = tmp_path_factory.mktemp("repository")
    ends = {"first": [0], "last": [4], "axis": [1]}
    model = make_model(
        [
            helper.make_node("Flatten", ["input"], ["flat"], axis=1),
            helper.make_node("Slice", ["flat", *ends], ["logits"]),
        ],
        [("input", ["batch", *SHAPE])],
        [("logits", ["batch", 4])],
        [numpy_helper.from_array(np.int64(v), k) for k, v in ends.items()],
    )
    for name, labels in ("labelled", LABELS), ("bare", []), ("half", LABELS[:2]):
        line = 'label_filename: "labels.txt"' if labels else ""
        save_model(repository, name, CONFIG.replace("LABELS", line), model)
        (repository / name / "labels.txt").write_text("\n".join(labels))
    with started(repository) as server:
        yield httpclient.InferenceServerClient(server.http)


def picture_of(*logits):
    picture = np.zeros((1, *SHAPE), np.float32)
    picture.flat[:4] = logits
    return picture


def test_labels_with_colons_arrive_whole(client, classify):
    found = classify(client, picture_of(2, 1, 0, -1), "labelled", count=4)
    assert [label for _, label in found] == LABELS
    e = np.exp([2.0, 1, 0, -1])
    assert np.allclose([p for p, _ in found], e / e.sum())


def test_without_a_label_the_class_is_its_index(client, classify):
    found = classify(client, picture_of(0, 1, 3, 2), "bare")
    assert [label for _, label in found] == ["2", "3", "1"]
    found = classify(client, picture_of(2, 1, 4, 3), "half", count=4)
    assert [label for _, label in found] == ["2", "3", *LABELS[:2]]


def test_huge_logits_do_not_overflow(client, classify):
    with np.errstate(all="raise", under="ignore"):
        found = classify(client, picture_of(2000, 2000, -2000, 1e6), "labelled", 4)
    assert [p for p, _ in found] == [1, 0, 0, 0]
    assert found[0][1] == "dog"


def test_one_client_serves_many_pictures(client, classify):
    for best in range(4):
        ((probability, label),) = classify(
            client, picture_of(*np.eye(4)[best]), "labelled", count=1
        )
        assert label == LABELS[best] and 0.4 < probability < 0.5


def test_a_picture_becomes_what_lesson_01_makes_of_it(read_picture):
    for numbers in {}, {"resize": 232, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}:
        full = {"resize": 256, "crop": 224, "mean": 127 / 255, "std": 128 / 255}
        for path in map(images.sample, images.SAMPLES):
            expected = images.preprocess(images.read(path), **{**full, **numbers})
            found = read_picture(path, **numbers)
            assert found.dtype == np.float32 and found.shape == (1, *SHAPE)
            assert np.array_equal(found[0], expected)


def test_a_file_that_is_no_picture_is_named(read_picture, tmp_path):
    missing = tmp_path / "missing.jpg"
    with pytest.raises(ValueError, match=r"missing\.jpg: no such file"):
        read_picture(missing)
    for name, content in ("text.jpg", b"not a picture"), ("empty.jpg", b""):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: not a picture that OpenCV"):
            read_picture(tmp_path / name)


def test_every_answer_of_the_lesson_is_split_at_two_colons(path=LESSON):
    import nbformat

    from helpers import paths

    cells = nbformat.read(paths.NOTEBOOKS / f"{path}.ipynb", as_version=4).cells
    code = "\n".join(x.source for x in cells if x.cell_type == "code")
    assert code.count("split(") == code.count('split(":", 2)') == 2


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("image", "FP32", "unexpected inference input 'image' for model"),
        (
            "input",
            "FP64",
            "data-type is 'FP64', but model 'classifier_onnx' expects 'FP32'",
        ),
    ],
)
def test_a_wrong_name_or_type_is_named_by_the_server(server, name, kind, words):
    tensor = grpcclient.InferInput(name, [1, *SHAPE], kind)
    tensor.set_data_from_numpy(np.zeros((1, *SHAPE), triton_to_np_dtype(kind)))
    with grpcclient.InferenceServerClient(server.grpc) as client:
        with pytest.raises(InferenceServerException, match=words):
            client.infer("classifier_onnx", [tensor])


def test_a_stream_keeps_the_order_of_its_requests(server):
    tensor = grpcclient.InferInput("input", [1, *SHAPE], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, *SHAPE), np.float32))
    answers, names = queue.Queue(), [f"picture {i}" for i in range(8)]
    with grpcclient.InferenceServerClient(server.grpc) as client:
        client.start_stream(callback=lambda result, error: answers.put((result, error)))
        for name in names:
            client.async_stream_infer("classifier_onnx", [tensor], request_id=name)
        found = [answers.get(timeout=60) for _ in names]
        client.stop_stream()
    assert not any(error for _, error in found)
    assert [result.get_response().id for result, _ in found] == names
