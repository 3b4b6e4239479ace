"""Every room of the project has its size, and imports go one way."""

import ast
import subprocess
import sys

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from helpers import paths

# A package may import those behind it in this line, and none before it.
ORDER = ["tools", "new_project", "helpers", "embedded_triton", "repository_check"]


def modules(package):
    return sorted((paths.ROOT / package).rglob("*.py"))


def imported(source):
    """Everything that a text imports, wherever it does so: ``package.module``."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {x.name for x in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {f"{node.module}.{x.name}" for x in node.names}
    return names


def packages(names):
    return {name.partition(".")[0] for name in names}


def imported_by_lessons():
    """The same for all cells of all notebooks, solutions included."""
    names = set()
    for file in sorted(paths.NOTEBOOKS.rglob("*.ipynb")):
        for cell in nbformat.read(file, as_version=4).cells:
            if cell.cell_type == "code" and not cell.source.startswith("%%"):
                names |= imported(TransformerManager().transform_cell(cell.source))
    return names


@pytest.mark.parametrize("package", ORDER)
def test_imports_go_one_way(package):
    files = modules(package)
    assert files
    for file in files:
        names = packages(imported(file.read_text()))
        forbidden = {*ORDER[: ORDER.index(package)]} & names
        assert not forbidden, f"{file} imports {forbidden}"


def test_no_notebook_imports_tools():
    assert "tools" not in packages(imported_by_lessons())


@pytest.mark.parametrize("package", ORDER[1:])
def test_modules_are_short(package):
    for file in modules(package):
        count = len(file.read_text().splitlines())
        assert count <= 400, f"{file} has {count} lines"


def test_helpers_are_small():
    lines = [len(file.read_text().splitlines()) for file in modules("helpers")]
    assert sum(lines) <= 2400


def test_every_helper_is_imported_by_a_lesson():
    """Directly, or by a helper that is."""
    files = {x.stem: x for x in modules("helpers") if x.stem != "__init__"}
    uses = {name: imported(file.read_text()) for name, file in files.items()}
    needed, new = set(), imported_by_lessons()
    while new:
        found = {x.split(".")[1] for x in new if x.startswith("helpers.")} & {*files}
        new = set().union(*(uses[x] for x in found - needed))
        needed |= found
    assert needed == {*files}


def test_the_checker_is_light():
    """Neither torch nor matplotlib: it runs where nothing but a server is."""
    heavy = "torch", "matplotlib", "pandas", "helpers", "embedded_triton"
    program = f"import repository_check, sys; print(*{{*sys.modules}} & {{*{heavy}}})"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, cwd=paths.ROOT)
    assert result.returncode == 0 and not result.stdout.strip(), result


def test_the_server_starts_to_install_with_nothing_but_python():
    """``embedded_triton`` is imported before there is an environment."""
    program = (
        "import sys; before = {x.partition('.')[0] for x in sys.modules}\n"
        "import embedded_triton\n"
        "new = {x.partition('.')[0] for x in sys.modules} - before\n"
        "print(*new - {*sys.stdlib_module_names} - {'embedded_triton'})"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, cwd=paths.ROOT)
    assert result.returncode == 0 and not result.stdout.strip(), result
