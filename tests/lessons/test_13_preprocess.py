"""Preprocessing on the server: the client's numbers, and no harm from hostile files."""

import ast
import asyncio
import importlib.util
import inspect
import json
import shutil
import struct
import subprocess
import sys
import threading
import time
import zlib
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from types import SimpleNamespace

import cv2
import nbformat
import numpy as np
import onnx
import psutil
import pytest
import requests
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from onnx import helper
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

import repository_check
from conftest import PB_UTILS, FakeRequest, FakeTensor, started, triton_processes
from helpers import classifiers, images, paths, triton_config

MODELS = ["classify", "classify_bls", "classify_pixels", "resnet50_numbers"]
RAW = {"Inference-Header-Content-Length": "0"}
NUMBERS = {
    "preprocess": classifiers.EFFICIENTNET_LITE0_PREPROCESSING,
    "resnet50_numbers": classifiers.RESNET50_PREPROCESSING,
}


def config_with(numbers, name, **changes):
    """The config of ``preprocess`` with other parameters."""
    text = (paths.MODEL_REPOSITORY / "preprocess/config.pbtxt").read_text()
    text = text.partition("parameters")[0].replace('"preprocess"', f'"{name}"')
    parameters = {"max_pixels": 25_000_000, **numbers, **changes}
    for key, value in parameters.items():
        text += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    return text


def add(repository, name, config, source="preprocess"):
    shutil.copytree(repository / source, repository / name)
    (repository / name / "config.pbtxt").write_text(config)


@pytest.fixture(scope="module")
def repository(artifacts, tmp_path_factory):
    """A copy of the repository of the series, which tests may change."""
    folder = tmp_path_factory.mktemp("models") / "repository"
    ignored = shutil.ignore_patterns("__pycache__", "resnet50", "classifier_tensorrt")
    shutil.copytree(paths.MODEL_REPOSITORY, folder, ignore=ignored)
    shutil.rmtree(folder / "classifier_onnx/2", ignore_errors=True)
    numbers = classifiers.EFFICIENTNET_LITE0_PREPROCESSING
    (folder / "preprocess/config.pbtxt").write_text(config_with(numbers, "preprocess"))
    other = classifiers.RESNET50_PREPROCESSING
    add(folder, "resnet50_numbers", config_with(other, "resnet50_numbers"))
    for name in "preprocess", "classify":  # as the lesson's solution makes them
        text = (folder / name / "config.pbtxt").read_text()
        text = text.replace('"preprocess"', '"preprocess_pixels"')
        text = text.replace('"classify"', '"classify_pixels"')
        text = text.replace("STRING  dims: [ 1 ]", "UINT8  dims: [ -1, -1, 3 ]")
        add(folder, f"{name}_pixels", text, source=name)
    return folder


@pytest.fixture(scope="module")
def serving(repository):
    with started(repository, models=MODELS) as server:
        yield server


@pytest.fixture(scope="module")
def client(serving):
    with grpcclient.InferenceServerClient(serving.grpc) as client:
        yield client


def encoded(*files, module=grpcclient):
    column = np.array(files, object).reshape(-1, 1)
    tensor = module.InferInput("image", column.shape, "BYTES")
    tensor.set_data_from_numpy(column)
    return [tensor]


def pixels(frame):
    tensor = grpcclient.InferInput("image", [1, *frame.shape], "UINT8")
    tensor.set_data_from_numpy(frame[np.newaxis])
    return [tensor]


def saved(image, kind, **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo(width=240, height=160):
    return Image.open(images.sample("coffee")).convert("RGB").resize((width, height))


def words(call, *arguments):
    """The message of the error that a call has to raise."""
    with pytest.raises(InferenceServerException) as refusal:
        call(*arguments)
    return refusal.value.message()


SOURCE = nbformat.read(paths.NOTEBOOKS / "13_preprocess_on_the_server.ipynb", 4)


def test_the_notebook_writes_the_files_of_the_project():
    written, texts = {}, {}
    for cell in SOURCE.cells:
        first, _, body = cell.source.partition("\n")
        if first.startswith("%%writefile"):
            _, name = first.split()  # no -a: a file that is appended to twice is wrong
            assert name not in written, name
            written[name] = body + "\n"
        elif '"""\\\n' in cell.source and cell.cell_type == "code":
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.Assign) and node.targets[0].id != "header":
                    if isinstance(node.value, ast.Constant):
                        texts[node.targets[0].id] = node.value.value
    repository = paths.MODEL_REPOSITORY
    names = "preprocess/1/model.py", "classify_bls/1/model.py"
    for name in names:
        text = written.pop(f"../model_repository/{name}")
        assert (repository / name).read_text() == text
    assert [*written] == ["../artifacts/shortest/shortest/1/model.py"]
    for name, text in (
        ("preprocess", texts["config"]),
        ("classify", texts["ensemble"]),
        ("classify_bls", texts["script"]),
    ):
        assert (repository / name / "config.pbtxt").read_text().startswith(text)


def body(tree, name):
    """What a function of a module does, without its docstring."""
    (found,) = (x for x in tree.body if getattr(x, "name", None) == name)
    return [ast.dump(x) for x in found.body[1:]]


def test_the_server_reads_and_prepares_with_the_code_of_the_client():
    server = paths.MODEL_REPOSITORY / "preprocess/1/pictures.py"
    one, other = ast.parse(server.read_text()), ast.parse(inspect.getsource(images))
    names = "is_animated", "drop_colour_profile", "decode", "make_rgb", "preprocess"
    for name in names:
        assert body(one, name) == body(other, name), name
    constants = [
        {
            ast.unparse(x.targets[0]): ast.dump(x.value)
            for x in tree.body
            if isinstance(x, ast.Assign)
        }
        for tree in (one, other)
    ]
    for name in "FORMATS", "TURNED":
        assert constants[0][name] == constants[1][name]


def test_the_checker_finds_nothing(repository):
    assert repository_check.check(repository, MODELS[:3]) == []


@pytest.mark.parametrize("model", NUMBERS)
def test_tensors_are_those_of_the_client_bit_for_bit(client, model):
    files = [images.sample(name).read_bytes() for name in images.SAMPLES]
    found = client.infer(model, encoded(*files)).as_numpy("tensor")
    assert np.array_equal(found, images.sample_batch(NUMBERS[model]))


def odd_files():
    """Pictures as they come from cameras, printers and browsers."""
    image = photo()
    yield "progressive", saved(image, "JPEG", progressive=True)
    yield "grey JPEG", saved(image.convert("L"), "JPEG")
    yield "CMYK", saved(image.convert("CMYK"), "JPEG")
    yield "with a trailer", saved(image, "JPEG") + b"\xff\xd8\xff thumbnail"
    faded = image.convert("RGBA")
    faded.putalpha(Image.linear_gradient("L").resize(image.size))
    yield "opaque", saved(image.convert("RGBA"), "PNG")
    yield "transparent", saved(faded, "PNG")
    yield "transparent grey", saved(faded.convert("LA"), "PNG")
    yield "transparent WebP", saved(faded, "WEBP", lossless=True)
    yield "transparent lossy WebP", saved(faded, "WEBP")
    yield "transparent, 16 bits", cv2.imencode(".png", np.uint16(faded) * 257)[1]
    yield "palette", saved(image.convert("P"), "PNG")
    yield "transparent palette", saved(image.convert("P"), "PNG", transparency=9)
    yield "one bit", saved(image.convert("1"), "PNG")
    yield "16 bits", cv2.imencode(".png", np.uint16(image)[..., 0] * 257)[1].tobytes()
    yield "lossy WebP", saved(image, "WEBP")
    yield "lossless WebP", saved(image.convert("RGBA"), "WEBP", lossless=True)
    yield "one pixel", saved(image.resize((1, 1)), "PNG")
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"orientation {orientation}", saved(image, "JPEG", exif=exif)


def test_odd_files_are_read_as_the_client_reads_them(client, tmp_path):
    path = tmp_path / "picture"
    for name, file in odd_files():
        path.write_bytes(file)
        expected = images.preprocess(images.read(path), **NUMBERS["preprocess"])
        found = client.infer("preprocess", encoded(bytes(file))).as_numpy("tensor")
        assert np.array_equal(found[0], expected), name


def test_pixels_give_the_same_tensors(client):
    for name in images.SAMPLES:
        frame = images.read(images.sample(name))
        found = client.infer("preprocess_pixels", pixels(frame)).as_numpy("tensor")
        assert np.array_equal(
            found[0], images.preprocess(frame, **NUMBERS["preprocess"])
        )


def png_header(width, height):
    """A PNG file of one pixel that promises more."""
    file = saved(Image.new("L", (1, 1)), "PNG")
    header = file[12:16] + struct.pack(">II", width, height) + file[24:29]
    return file[:12] + header + struct.pack(">I", zlib.crc32(header)) + file[33:]


def hostile():
    """Files by name, and what the server has to say about each."""
    jpeg, frames = saved(photo(), "JPEG"), [photo(), photo().rotate(90)]
    several = {"save_all": True, "append_images": frames[1:]}
    png, webp = saved(photo(), "PNG"), saved(photo(), "WEBP")
    lying = Image.Exif()
    lying[0x0112] = 6
    dark = cv2.imencode(".png", np.full((80, 80), 4095, np.uint16))[1].tobytes()
    key = saved(photo().convert("L"), "PNG", transparency=9)
    return {
        "nothing": (b"", "found 0 bytes; expected a JPEG, PNG or WebP file"),
        "text": (b"<html>", "found 6 bytes that begin with b'<html>'; expected"),
        "GIF": (saved(photo(), "GIF"), "begin with b'GIF87a"),
        "animated WebP": (saved(frames[0], "WEBP", **several), "an animated WebP"),
        "animated PNG": (saved(frames[0], "PNG", **several), "an animated PNG"),
        "cut JPEG": (jpeg[:-2], "of JPEG that cannot be decoded; expected a whole"),
        "half a JPEG": (jpeg[: len(jpeg) // 2], "of JPEG that cannot be decoded"),
        "start of a JPEG": (jpeg[:3], "found 3 bytes of JPEG that cannot be decoded"),
        "half a PNG": (png[: len(png) // 2], "of PNG that cannot be decoded"),
        "lying PNG": (saved(photo(), "PNG", exif=lying), "a PNG that its EXIF data"),
        "lying WebP": (saved(photo(), "WEBP", exif=lying), "a WebP that its EXIF data"),
        "12 bits in 16": (dark, "found 16 bits, of which 4,095 is the brightest"),
        "see-through grey": (key, "found a PNG with a see-through grey"),
        "other RIFF": (b"RIFF1234WAVEfmt ", "expected a JPEG, PNG or WebP file"),
        "half a WebP": (webp[: len(webp) // 2], "of WebP that cannot be decoded"),
        "bomb": (
            png_header(30_000, 30_000),
            "a PNG that promises more than 25,000,000",
        ),
        "line": (saved(Image.new("L", (20_000, 4)), "PNG"), "found 20,000 × 4 pixels"),
    }


def test_hostile_files_are_refused_with_a_reason(client, serving):
    for name, (file, expected) in hostile().items():
        for model in "preprocess", "classify", "classify_bls":
            found = words(client.infer, model, encoded(file))
            assert "picture 1 of 1" in found and expected in found, (name, model)
    for model in "preprocess", "classify", "classify_bls":
        url = f"http://{serving.http}/v2/models/{model}/infer"
        answer = requests.post(url, b"<html>", headers=RAW, timeout=60)
        assert answer.status_code == 400, model  # the client's fault, not the server's


def test_the_page_about_hostile_pictures_quotes_the_server():
    page = (paths.ROOT / "docs/hostile_pictures.md").read_text()
    rows = [x.split(" | ") for x in page.splitlines() if x.count(" | ") == 2]
    quoted = [row[2].strip(" |`") for row in rows if row[2].startswith("`")]
    reasons = [reason for _, reason in hostile().values()]
    assert len(quoted) == 9
    for text in quoted:
        assert any(reason in text or text in reason for reason in reasons), text


def test_the_client_refuses_what_the_server_refuses():
    for name, (file, expected) in hostile().items():
        if name == "line":  # of pixels, which are prepared in another place
            continue
        if name == "bomb":  # more than OpenCV's own limit, which is a client's
            file = png_header(40_000, 40_000)
            expected = "a PNG that promises more than 1,073,741,824"
        with pytest.raises(ValueError) as refusal:
            images.decode(file)
        assert expected in str(refusal.value), name


def test_hostile_pixels_are_refused_with_a_reason(client):
    for height, width in (0, 5), (4, 20_000):
        frame = np.zeros((height, width, 3), np.uint8)
        found = words(client.infer, "classify_pixels", pixels(frame))
        assert f"found {width:,} × {height:,} pixels" in found


def test_bytes_that_are_no_strings_harm_nobody(client, serving):
    body = {"name": "image", "shape": [1, 1], "datatype": "BYTES"}
    body["parameters"] = {"binary_data_size": 8}
    header = json.dumps({"inputs": [body]}).encode()
    lengths = {"Inference-Header-Content-Length": str(len(header))}
    url = f"http://{serving.http}/v2/models/preprocess/infer"
    for rubbish in b"\xff\xff\xff\x7fabcd", b"\x01\0\0\0abcd", b"\0" * 8:
        answer = requests.post(url, header + rubbish, headers=lengths, timeout=60)
        assert answer.status_code == 400
    assert client.infer("preprocess", encoded(saved(photo(), "PNG")))


def test_names_the_bad_picture_of_a_batch(client):
    good, bad = saved(photo(), "PNG"), b"rubbish"
    assert "picture 3 of 4: " in words(
        client.infer, "classify", encoded(good, good, bad, good)
    )


def test_many_requests_with_hostile_ones_among_them(client, serving):
    good = [saved(photo(200 + 8 * i, 150), "JPEG") for i in range(8)]
    bad = list(hostile().values())
    expected = [client.infer("classify", encoded(x)).as_numpy("logits") for x in good]
    before = set(triton_processes())

    def one(i):
        if i % 10:
            logits = client.infer("classify", encoded(good[i % 8])).as_numpy("logits")
            return np.allclose(logits, expected[i % 8], atol=1e-3)
        file, reason = bad[i // 10 % len(bad)]
        return reason in words(client.infer, "classify", encoded(file))

    memory = []
    with ThreadPoolExecutor(8) as pool:
        for count in 200, 400, 400, 400:
            assert all(pool.map(one, range(count)))
            memory.append(resident())
    assert set(triton_processes()) == before
    # An allocator grows once, for the first batch of a size; a leak in each round.
    assert np.median(np.diff(memory)) < 400 * 50e3  # bytes a request


def resident():
    """Bytes that the server and its Python processes occupy, shared ones once."""
    found = [psutil.Process(pid) for pid, _ in triton_processes()]
    return sum(x.memory_full_info().pss for x in found)


def test_labels_come_over_both_protocols_and_from_plain_clients(client, serving):
    file = images.sample("coffee").read_bytes()
    for module, address in (httpclient, serving.http), (grpcclient, serving.grpc):
        best = module.InferRequestedOutput("logits", class_count=2)
        tensors = encoded(file, file, module=module)
        with module.InferenceServerClient(address) as each:
            answer = each.infer("classify", tensors, outputs=[best])
        text = answer.as_numpy("logits")
        assert text.shape == (2, 2) and text[1, 0].decode().endswith(":967:espresso")
    url = f"http://{serving.http}/v2/models/classify/infer"
    answer = requests.post(url, file, headers=RAW, timeout=60)
    logits = np.frombuffer(answer.content[-4000:], np.float32)
    assert answer.ok and logits.argmax() == 967


def test_a_client_needs_no_extension_over_grpc(serving):
    request = service_pb2.ModelInferRequest(model_name="classify")
    tensor = request.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
    tensor.contents.bytes_contents.append(images.sample("coffee").read_bytes())
    with grpcclient.grpc.insecure_channel(serving.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(request, timeout=60)
    logits = np.frombuffer(answer.raw_output_contents[0], np.float32)
    assert logits.argmax() == 967


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_curl_sends_a_file_and_nothing_else(serving, tmp_path):
    file = tmp_path / "coffee.jpg"
    file.write_bytes(saved(photo(), "JPEG"))
    command = ["curl", "-s", "--data-binary", f"@{file}"]
    command += ["-H", "Inference-Header-Content-Length: 0"]
    url = f"http://{serving.http}/v2/models/classify_bls/infer"
    answer = subprocess.run([*command, url], capture_output=True, timeout=60)
    assert b":967:espresso" in answer.stdout


def test_the_script_runs_the_classifier_for_large_pictures_only(client, repository):
    for name in "classifier_onnx", "classify_bls":  # copies that nobody else asks
        shutil.copytree(repository / name, repository / f"counted_{name}")
        path = repository / f"counted_{name}" / "config.pbtxt"
        text = path.read_text().partition("model_warmup")[0]
        for known in "classifier_onnx", "classify_bls":
            text = text.replace(f'"{known}"', f'"counted_{known}"')
        path.write_text(text)
        client.load_model(f"counted_{name}")

    def count(name):
        found = client.get_inference_statistics(f"counted_{name}").model_stats
        return found[0].inference_count

    large, small = saved(photo(64, 70), "PNG"), saved(photo(63, 70), "PNG")
    files = encoded(small, large, small)
    classes = client.infer("counted_classify_bls", files).as_numpy("classes")
    first = [row[0].decode() for row in classes]
    assert first[0] == first[2] == "0:-1:too small, 63 × 70"
    probabilities = [float(text.decode().split(":")[0]) for text in classes[1]]
    assert probabilities == sorted(probabilities, reverse=True) and probabilities[0] > 0
    client.infer("counted_classify_bls", encoded(small))
    end = time.monotonic() + 30  # the statistics follow the answer
    while count("classify_bls") < 4 or count("classifier_onnx") < 1:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert count("classify_bls") == 4 and count("classifier_onnx") == 1


def test_the_script_agrees_with_the_ensemble(client):
    files = encoded(*(images.sample(x).read_bytes() for x in images.SAMPLES))
    best = [grpcclient.InferRequestedOutput("logits", class_count=3)]
    one = client.infer("classify", files, outputs=best).as_numpy("logits")
    other = client.infer("classify_bls", files).as_numpy("classes")
    for a, b in zip(one.ravel(), other.ravel()):
        assert a.split(b":")[1:] == b.split(b":")[1:]


REFUSED = {
    "no_mean": (("mean",), {}, "KeyError('mean')"),
    "no_number": ((), {"crop": "large"}, "expected JSON for each of"),
    "other_crop": ((), {"crop": 192}, "crop has to be that of the output"),
}


def test_a_config_that_cannot_work_is_refused(client, repository):
    for name, (left_out, changes, expected) in REFUSED.items():
        numbers = {**NUMBERS["preprocess"], **changes}
        numbers = {x: y for x, y in numbers.items() if x not in left_out}
        add(repository, name, config_with(numbers, name))
        assert expected in words(client.load_model, name), name


def test_another_size_needs_no_new_code(client, repository):
    numbers = {**NUMBERS["preprocess"], "resize": 100, "crop": 96, "max_pixels": 10_000}
    text = config_with(numbers, "small").replace("[ 3, 224, 224 ]", "[ 3, 96, 96 ]")
    add(repository, "small", text)
    client.load_model("small")
    found = client.infer("small", encoded(saved(photo(90, 90), "PNG")))
    assert found.as_numpy("tensor").shape == (1, 3, 96, 96)
    large = encoded(saved(photo(101, 100), "PNG"))
    assert "more than 10,000 pixels" in words(client.infer, "small", large)
    client.unload_model("small")


def test_a_part_changes_under_the_ensemble(client, repository):
    file = encoded(images.sample("coffee").read_bytes())
    old = client.infer("classify", file).as_numpy("logits")
    model = onnx.load(repository / "classifier_onnx/1/model.onnx")
    for node in model.graph.node:
        node.output[:] = ["before" if x == "logits" else x for x in node.output]
    model.graph.node.append(helper.make_node("Neg", ["before"], ["logits"]))
    (repository / "classifier_onnx/2").mkdir()
    onnx.save(model, repository / "classifier_onnx/2/model.onnx")
    stop, answers = threading.Event(), []

    def ask():
        while not stop.is_set():
            answers.append(client.infer("classify", file).as_numpy("logits"))

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        client.load_model("classifier_onnx")
        stop.set()
        for future in asking:
            future.result()
    for found in answers:
        assert any(np.allclose(found, x, atol=1e-4) for x in (old, -old))
    new = client.infer("classify", file).as_numpy("logits")
    assert np.allclose(new, -old, atol=1e-4)


def test_the_script_passes_on_what_a_part_says(client, repository):
    config = (repository / "classify_bls/config.pbtxt").read_text()
    shutil.copytree(repository / "classify_bls", repository / "nowhere")
    text = config.replace("classify_bls", "nowhere").replace("classifier_onnx", "gone")
    (repository / "nowhere/config.pbtxt").write_text(text)
    client.load_model("nowhere")
    file = encoded(saved(photo(), "PNG"))
    assert "'gone'" in words(client.infer, "nowhere", file)
    client.unload_model("nowhere")


class FakeTritonError:
    """An error with its code, as a model makes it for a response."""

    INTERNAL, INVALID_ARG = "INTERNAL", "INVALID_ARG"

    def __init__(self, message, code="INTERNAL"):
        self.text, self.code = message, code
        self.message = lambda: message


@pytest.fixture
def load_model(monkeypatch):
    """A function that imports a ``model.py`` of the repository without a server."""

    def load(name, **fakes):
        utils = SimpleNamespace(**{**vars(PB_UTILS), "TritonError": FakeTritonError})
        utils.logged = []
        utils.Logger = SimpleNamespace(log_error=utils.logged.append)
        vars(utils).update(fakes)
        monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
        path = paths.MODEL_REPOSITORY / name / "1/model.py"
        monkeypatch.syspath_prepend(path.parent)
        monkeypatch.delitem(sys.modules, "pictures", raising=False)
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def initialized(module):
    numbers = {**NUMBERS["preprocess"], "max_pixels": 25_000_000}
    parameters = {x: {"string_value": str(y)} for x, y in numbers.items()}
    config = {"parameters": parameters, "output": [{"dims": [3, 224, 224]}]}
    model = module.TritonPythonModel()
    model.initialize({"model_config": json.dumps(config)})
    return model


def test_only_what_is_wrong_with_a_picture_is_blamed_on_the_client(
    load_model, monkeypatch
):
    threads = []  # of OpenCV's own, beside those of the model's pool
    monkeypatch.setattr(cv2, "setNumThreads", threads.append)
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "")  # the model sets it
    module = load_model("preprocess")
    model = initialized(module)
    assert threads == [1]
    good = np.zeros((1, 300, 300, 3), np.uint8)
    bad, broken = np.zeros((1, 0, 5, 3), np.uint8), np.ones((2, 300, 300, 3), np.uint8)
    prepare = module.pictures.preprocess

    def fail(image, **numbers):
        if image.any():
            raise MemoryError("17 GB of secrets")
        return prepare(image, **numbers)

    monkeypatch.setattr(module.pictures, "preprocess", fail)
    pictures = good, bad, broken
    answers = model.execute([FakeRequest("tensor", image=x) for x in pictures])
    assert answers[0]["tensor"].shape == (1, 3, 224, 224)
    assert answers[0]["size"].tolist() == [[300, 300]]
    assert answers[1].code == "INVALID_ARG"
    assert answers[1].text.startswith("picture 1 of 1: found 5 × 0 pixels")
    assert answers[2].code == "INTERNAL"
    assert answers[2].text == "failed at picture 1 of 2"
    assert module.pb_utils.logged == ["picture 1 of 2: MemoryError('17 GB of secrets')"]


class FakeCalls:
    """The models that a script calls: a request holds what it was made with."""

    def __init__(self, answers):
        self.answers, self.made = answers, []

    def __call__(self, **options):
        self.made.append(options)

        async def answer():
            found = self.answers[options["model_name"]]
            if callable(found):
                found = found(*options["inputs"])
            failed = isinstance(found, str)
            return SimpleNamespace(
                has_error=lambda: failed,
                error=lambda: FakeTritonError(found),
                tensors={} if failed else found,
            )

        return SimpleNamespace(async_exec=answer)


def load_script(load_model, answers):
    calls = FakeCalls(answers)
    module = load_model(
        "classify_bls",
        InferenceRequest=calls,
        TRITONSERVER_MEMORY_CPU="CPU",
        TRITONSERVER_MEMORY_GPU="GPU",
        PreferredMemory=lambda kind, device: (kind, device),
        get_output_tensor_by_name=lambda x, name: FakeTensor(name, x.tensors[name]),
    )
    parameters = {"classifier": "network", "min_side": "64"}
    config = {"parameters": {x: {"string_value": y} for x, y in parameters.items()}}
    model = module.TritonPythonModel()
    folder = str(paths.MODEL_REPOSITORY / "classify_bls")
    model.initialize({"model_config": json.dumps(config), "model_repository": folder})
    return model, calls


def call(model, *names):
    requests = [FakeRequest("classes", image=np.array([[x]], object)) for x in names]
    return asyncio.run(model.execute(requests))


def test_the_script_wants_its_tensors_in_the_memory_of_the_cpu(load_model):
    logits = np.zeros((1, 1000), np.float32)
    logits[0, 967] = 9
    prepared = {
        "tensor": np.zeros((1, 3, 224, 224), np.float32),
        "size": np.int32([[64, 64]]),
    }
    answers = {"preprocess": prepared, "network": {"logits": logits}}
    model, calls = load_script(load_model, answers)
    (answer,) = call(model, b"")
    assert answer["classes"][0, 0] == b"0.89:967:espresso"
    assert [x["model_name"] for x in calls.made] == ["preprocess", "network"]
    assert [x["preferred_memory"] for x in calls.made] == [("CPU", 0)] * 2
    assert [x["requested_output_names"] for x in calls.made] == [
        ["tensor", "size"],
        ["logits"],
    ]


def test_logits_of_any_size_become_probabilities(load_model):
    model, _ = load_script(load_model, {})
    first, second, third = model.best(np.float32([900, 901, -900]))
    assert (first[:7], second[:7], third[:7]) == (b"0.73:1:", b"0.27:0:", b"0.00:2:")


@pytest.mark.parametrize(
    "words, code",
    [
        ("picture 1 of 1: found 0 bytes", "INVALID_ARG"),
        ("failed at picture 1 of 1", "INTERNAL"),
        ("the server has no model of that name", "INTERNAL"),
    ],
)
def test_the_script_keeps_whose_fault_it_was(load_model, words, code):
    model, _ = load_script(load_model, {"preprocess": words})
    (answer,) = call(model, b"")
    assert (answer.text, answer.code) == (words, code)


def test_a_fault_of_the_script_is_the_servers_and_of_one_request(load_model):
    def prepare(pictures):
        side = 64 if pictures.as_numpy()[0, 0] == b"bad" else 63
        return {"tensor": None, "size": np.int32([[side, 64]])}

    model, _ = load_script(load_model, {"preprocess": prepare})
    good, bad, also_good = call(model, b"good", b"bad", b"good")
    for answer in good, also_good:
        assert answer["classes"][0, 0].decode() == "0:-1:too small, 63 × 64"
    assert bad.code == "INTERNAL"


def test_json_carries_text_so_a_picture_in_base64_is_text(serving):
    text = b64encode(saved(photo(), "JPEG")).decode()
    body = {"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": [text]}
    url = f"http://{serving.http}/v2/models/preprocess/infer"
    answer = requests.post(url, json={"inputs": [body]}, timeout=60)
    assert answer.status_code == 400
    assert f"found {len(text):,} bytes that begin with b'/9j/" in answer.text


def test_a_batch_of_nothing_harms_nobody(client):
    with pytest.raises(InferenceServerException):
        client.infer("preprocess", encoded())
    assert client.infer("preprocess", encoded(saved(photo(), "PNG")))


def test_ensembles_take_the_newest_version_of_their_models():
    configs = paths.MODEL_REPOSITORY.glob("*/config.pbtxt")
    texts = [file.read_text() for file in configs]
    steps = [
        x for text in texts for x in triton_config.parse(text).ensemble_scheduling.step
    ]
    assert len(steps) == 2
    assert {step.model_version for step in steps} == {-1}
