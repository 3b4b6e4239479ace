"""Every notebook was run once, top to bottom, and keeps the house style."""

import ast
import contextlib
import os
import re
import socket
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager

import embedded_triton
from conftest import taught
from helpers import images, paths
from tools import write_readme
from tools.lessons import lesson_paths

NOTEBOOKS = lesson_paths()
TAG = re.compile(r"copyable|raises-exception|nbval-ignore-output|timeout=\d+")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
ANCHOR = re.compile(r"\]\(#([^)]+)\)")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture
def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def prose(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def tags(cell):
    return cell.metadata.get("tags", ())


def copyable(path):
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if "copyable" in tags(cell))


def test_was_run_once_from_top_to_bottom(code):
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


def test_stores_an_error_only_where_one_is_taught(code):
    for cell in code:
        failed = any(output.output_type == "error" for output in cell.outputs)
        assert failed == ("raises-exception" in tags(cell)), cell.source


def test_provokes_a_failure(code):
    assert any("raises-exception" in tags(cell) for cell in code)


def test_stores_no_stderr(code):
    for cell in code:
        streams = {output.get("name") for output in cell.outputs}
        assert "stderr" not in streams, cell.source


def test_what_is_printed_is_not_blank(code):
    """Lesson 02 once printed what a command had said, which was nothing."""
    for cell in code:
        printed = [x.text for x in cell.outputs if x.output_type == "stream"]
        assert not printed or "".join(printed).strip(), cell.source


def test_stores_no_path_of_a_machine(path):
    text = path.read_text()
    assert not re.search(r"/(home|root|Users|tmp|work)/(?!tritonbuild)", text)


def test_tags_are_known(code):
    for cell in code:
        for tag in tags(cell):
            assert TAG.fullmatch(tag), f"unknown tag {tag!r}"


def test_copyable_cells_say_so(code):
    for cell in code:
        marked = cell.source.startswith("# copyable\n")
        assert marked == ("copyable" in tags(cell)), cell.source


def test_no_cell_ends_in_a_semicolon(code):
    for cell in code:
        assert not cell.source.endswith(";"), cell.source


def test_cells_are_short(code):
    for cell in code:
        whole_file = cell.source.startswith("%%writefile ")
        whole_file |= "\nNETWORK = " in cell.source  # the reader's part of lesson 08
        assert whole_file or cell.source.count("\n") < 25, cell.source


def test_a_cell_writes_a_whole_file(code):
    """One that appends makes a wrong file when it is run twice."""
    for cell in code:
        assert not re.match(r"%%writefile\s+(-a|--append)\b", cell.source), cell.source


def test_title_carries_the_file_number(path, prose):
    number = path.stem.split("_")[0]
    assert re.match(rf"# {number} · \S", prose[0])


def test_has_the_parts_that_every_lesson_has(prose):
    text = "\n".join(prose)
    parts = "**You will**", "**You need**", "## What can go wrong", "## Summary"
    for part in (*parts, "## Exercises"):
        assert part in text, part


def test_links_resolve(path, prose):
    text = "\n".join(prose)
    for target in LINK.findall(text):
        assert (path.parent / target).exists(), target
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    anchors = {heading.replace("`", "").replace(" ", "-") for heading in headings}
    for anchor in ANCHOR.findall(text):
        assert anchor in anchors, anchor


def test_every_exercise_has_its_solution_in_one_notebook(path, prose):
    (solutions,) = path.parent.glob(f"solutions/{path.stem[:2]}_*.ipynb")
    exercises = "\n".join(prose).partition("## Exercises")[2]
    numbered = re.split(r"^\d\. ", exercises, flags=re.M)[1:]
    assert 1 <= len(numbered) <= 3
    for exercise in numbered:
        assert exercise.count(f"([solution](solutions/{solutions.name}))") == 1
    text = nbformat.read(solutions, as_version=4).cells[0].source
    assert text.startswith(f"# {path.stem[:2]} · Solutions: ")


def test_later_parts_stand_on_part_1(path, code):
    """Test_15 runs two of them there; here, what each asks for by name."""
    if path.stem > "09":
        source = "\n".join(cell.source for cell in code)
        for name in re.findall(r'artifact\("([^"]+)"\)', source):
            its_own = f'ARTIFACTS / "{name}"' in source
            made_by = path.stem if its_own else paths.MADE_BY[name]
            assert made_by < "09" or made_by == path.stem, name


# ----------------------------------------------------------------------- budgets

LONGER = "10", "11", "12", "17"  # they measure
WEIGHT = {"You will", "You need", "No container and no cluster ran here"}


def test_is_short_enough_to_read(code, prose, notebook):
    assert len(code) <= 35
    assert write_readme.minutes_to_read(notebook) <= 25
    terms = set(re.findall(r"\*\*([^*\n]+)\*\*", "\n".join(prose))) - WEIGHT
    assert len(terms) <= 10, terms


def test_ran_in_time(path):
    seconds = write_readme.read_runs()[path.stem]["seconds"]
    assert seconds <= (90 if path.stem[:2] in LONGER else 60)


def test_the_first_cell_imports_what_two_sections_need(notebook, code):
    tree = ast.parse(TransformerManager().transform_cell(code[0].source))
    imported = {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    headings, used = 0, ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            headings += len(re.findall(r"^## ", cell.source, re.M))
        elif headings <= 2:
            used += cell.source + "\n"
    for name in imported:
        uses = re.findall(rf"\b{name}\b", used)
        assert len(uses) > 1, f"{name} is needed later than in two sections"


def test_all_lessons_together_are_short_enough():
    runs, first = write_readme.read_runs(), [x for x in NOTEBOOKS if x.stem < "09"]
    assert [*runs] == [path.stem for path in NOTEBOOKS]
    minutes = [
        write_readme.minutes_to_read(nbformat.read(path, as_version=4))
        for path in first
    ]
    assert sum(minutes) <= 120
    assert sum(runs[path.stem]["seconds"] for path in first) <= 180
    assert sum(runs[path.stem]["seconds"] for path in NOTEBOOKS) <= 480


# What goes behind the copyable cells where they define something, and what they print
# then. Those of 08 have their own tests.
OUTSIDE = {
    "00_check_your_machine": ("", "GPUs"),
    "01_export_to_onnx": ("", "25,557,032 parameters"),
    "02_validate_onnx": (
        "print(measure_milliseconds({'sum': lambda: sum(range(9))}))",
        "sum",
    ),
    "03_build_tensorrt_engine": ("", "MB"),
    "04_run_and_inspect_an_engine": ("print(run_engine)", "CONVOLUTION"),
    "06_serve_with_triton": ("", "exit status 0"),
    "07_classify_from_a_client": (
        "client = httpclient.InferenceServerClient(URL)\n"
        "print(classify(client, read_picture(IMAGE)))",
        "espresso",
    ),
    "09_quantise_to_int8": (
        "file = '../artifacts/classifier.onnx'\n"
        "pictures = np.load('../artifacts/reference.npz')['input']\n"
        "quantise(file, 'int8.onnx', pictures[:2])\n"
        "print(*{node.op_type for node in onnx.load('int8.onnx').graph.node})",
        "DequantizeLinear",
    ),
    "10_measure_a_server": (
        "_, row = run_perf_analyzer(GRPC, 'classifier_onnx', '-s', '1000')\n"
        "print(float(row['Inferences/Second']) > 0)",
        "True",
    ),
    "13_preprocess_on_the_server": (
        "httpclient.InferenceServerClient(URL).load_model('classify')\n"
        "print(classify(IMAGE, URL))",
        "espresso",
    ),
    "15_roll_out_versions": ("print(roll_out.__name__)", "roll_out"),
    "16_watch_and_protect": (
        "import numpy as np\n"
        "import tritonclient.grpc as grpcclient\n"
        "tensor = grpcclient.InferInput('input', [1, 3, 224, 224], 'FP32')\n"
        "tensor.set_data_from_numpy(np.zeros((1, 3, 224, 224), np.float32))\n"
        "client = grpcclient.InferenceServerClient(GRPC)\n"
        "print(infer(client, 'classifier_onnx', [tensor]).as_numpy('logits').shape)",
        "(1, 1000)",
    ),
    "17_scale_out": (
        "import numpy as np\n"
        "pixels = grpcclient.InferInput('input', [1, 3, 224, 224], 'FP32')\n"
        "pixels.set_data_from_numpy(np.zeros(pixels.shape(), np.float32))\n"
        "answer = connect(GRPC).infer('classifier_onnx', [pixels])\n"
        "print(answer.as_numpy('logits').shape)",
        "made certificate.pem key.pem both.pem\n(1, 1000)",
    ),
    "18_plan_a_cluster": (
        "print(plan_replicas(10, 0.1, [0.02]), 'replicas')",
        "2 replicas",
    ),
}


# What they read; 06 and 10 also take programs from PATH.
ONNX = "artifacts/classifier.onnx"
READ = {
    "02_validate_onnx": (ONNX, "artifacts/resnet50.onnx", "artifacts/reference.npz"),
    "03_build_tensorrt_engine": (ONNX,),
    "04_run_and_inspect_an_engine": (ONNX,),
    "06_serve_with_triton": ("model_repository/classifier_onnx",),
    "09_quantise_to_int8": (ONNX, "artifacts/reference.npz"),
}


def test_every_lesson_with_copyable_cells_is_tried():
    copied = {path.stem for path in NOTEBOOKS if copyable(path)}
    assert copied == {*OUTSIDE, "08_serve_your_own_network"}


@pytest.mark.parametrize("lesson", OUTSIDE)
def test_copyable_cells_run_outside_the_project(
    lesson, artifacts, server, tmp_path, monkeypatch
):
    call, expected = OUTSIDE[lesson]
    for folder in "notebooks", "artifacts", "model_repository":
        (tmp_path / folder).mkdir()
    for name in READ.get(lesson, ()):
        (tmp_path / name).symlink_to(paths.ROOT / name)
    programs = embedded_triton.paths.TRITONSERVER.parent
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    program = "import sys\nsys.modules['helpers'] = None\n"
    program += copyable(paths.NOTEBOOKS / f"{lesson}.ipynb")
    given = str(images.sample("coffee")), server.http, server.grpc
    program += f"\nIMAGE, URL, GRPC = {given}\n{call}"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path / "notebooks",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert expected in result.stdout


def test_06_starts_no_server_where_one_listens():
    """An old server on the port once answered in place of the new one."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # something listens there already
            listener.bind(("127.0.0.1", 8100))
            listener.listen()
        with pytest.raises(OSError, match="Address already in use"):
            taught("06_serve_with_triton", "command = [")


def test_preprocess_in_01_is_the_helper(artifacts):
    namespace = taught("01_export_to_onnx", "def preprocess(")
    for numbers in (
        {"resize": 232, "crop": 224, "mean": [0.485, 0.456, 0.406], "std": [0.2] * 3},
        {"resize": 256, "crop": 224, "mean": [127 / 255] * 3, "std": [128 / 255] * 3},
    ):
        for name in images.SAMPLES:
            image = images.read(images.sample(name))
            ours = images.preprocess(image, **numbers)
            assert np.array_equal(namespace["preprocess"](image, **numbers), ours)
