"""Every room of the project has its size, and imports go one way."""

import ast
import subprocess
import sys

import pytest

from helpers import paths

# A package may import those behind it in this line, and none before it.
ORDER = ["tools", "helpers", "embedded_triton", "repository_check"]


def modules(package):
    return sorted((paths.ROOT / package).rglob("*.py"))


def imported(file):
    """The first name of everything that a file imports, wherever it does so."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {x.name.partition(".")[0] for x in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", ORDER)
def test_imports_go_one_way(package):
    files = modules(package)
    assert files
    for file in files:
        forbidden = {*ORDER[: ORDER.index(package)]} & imported(file)
        assert not forbidden, f"{file} imports {forbidden}"


def test_no_notebook_imports_tools():
    for file in sorted(paths.NOTEBOOKS.rglob("*.ipynb")):
        assert "tools" not in names_in(file), file


def names_in(notebook):
    import nbformat

    cells = nbformat.read(notebook, as_version=4).cells
    lines = [
        line.split()
        for cell in cells
        if cell.cell_type == "code"
        for line in cell.source.splitlines()
        if line.lstrip().startswith(("import ", "from "))
    ]
    return {words[1].partition(".")[0] for words in lines}


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
    known = {file.stem for file in modules("helpers")} - {"__init__"}
    texts = [file.read_text() for file in paths.NOTEBOOKS.rglob("*.ipynb")]
    needed = {x for x in known if any(f" {x}" in y or f".{x}" in y for y in texts)}
    assert known == needed


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
