"""Write lesson 08 as programs: ``python -m new_project FOLDER``.

The lesson's cells name, in their metadata, the programs to which they belong. Nothing
in the new folder imports this project.
"""

import argparse
import ast
import re
import shutil
import subprocess
import symtable
import sys
import tempfile
from importlib.metadata import packages_distributions, version
from pathlib import Path

import nbformat

from embedded_triton.paths import TRITONSERVER
from helpers import paths

LESSON = paths.NOTEBOOKS / "08_serve_your_own_network.ipynb"
EXTRAS = {"tritonclient": "[grpc,http]"}
TITLES = {
    "network.py": "The network, its examples, and what PyTorch answers to them.",
    "export.py": "Export the network, compare it, and write config and serve.sh.",
    "client.py": "Ask the server over HTTP and gRPC, and compare with PyTorch.",
    "smoke_test.py": "Export, start the server, ask it, and stop it.",
}
RUN = """\
import subprocess
import sys
subprocess.run([sys.executable, FOLDER / "{}"], check=True)"""


def read_cells(notebook):
    """Sources of the cells that belong to programs: {program: list of str}.

    Raises:
        SystemExit: a cell is not plain Python.
    """
    cells = {name: [] for name in TITLES}
    for cell in nbformat.read(notebook, as_version=4).cells:
        for name in cell.metadata.get("files", ()):
            cells[name].append(cell.source.removeprefix("# copyable\n"))
            try:
                ast.parse(cell.source)
            except SyntaxError as error:
                sys.exit(
                    f"{notebook.name} has a cell that is not plain Python ({error}): "
                    f"take out lines that begin with ! or %\n\n{cell.source}"
                )
    return cells


def split_imports(source):
    """The import statements at the top level, and the source without them."""
    statements, lines = [], source.splitlines()
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            statements.append(ast.unparse(node))
            del lines[node.lineno - 1 : node.end_lineno]
    return statements, "\n".join(lines).strip("\n")


def find_names(source):
    """What a module defines at its top level, and which globals it uses: two sets."""
    module = symtable.symtable(source, "program", "exec")
    defined = {x.get_name() for x in module.get_symbols() if x.is_assigned()}
    used, tables = set(), [module]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        used |= {
            x.get_name()
            for x in table.get_symbols()
            if x.is_referenced() and (table is module or x.is_global())
        }
    return defined, used


def write_imports(statements):
    """Import statements as text: first the standard library's, last the project's."""
    blocks = [], [], []
    for statement in sorted(statements, key=lambda x: (x.startswith("from"), x)):
        module = re.split(r"[ .]", statement)[1]
        if module == "network":
            blocks[2].append(statement)
        else:
            blocks[module not in sys.stdlib_module_names].append(statement)
    return "\n\n".join("\n".join(block) for block in blocks if block)


def write_programs(cells):
    """The texts of the programs, {name: str}, from what ``read_cells`` returned."""
    first, *others = cells["network.py"]
    here = "FOLDER = Path(__file__).resolve().parent"
    first = "from pathlib import Path\n" + re.sub(
        "^FOLDER =.*", here, first, flags=re.M
    )
    check_ports, *start, stop = cells["smoke_test.py"]
    cells = cells | {
        "network.py": [first, *others],
        "smoke_test.py": [
            check_ports,
            "check_ports()\n" + RUN.format("export.py"),
            *start,
            RUN.format("client.py"),
            stop,
        ],
    }
    split = {name: [split_imports(x) for x in each] for name, each in cells.items()}
    imports = {}  # what a name needs; the reader's own cell comes first, ours win
    for statement in (x for parts in split.values() for part in parts for x in part[0]):
        for alias in ast.parse(statement).body[0].names:
            imports[alias.asname or alias.name.partition(".")[0]] = statement
    in_network, _ = find_names("\n".join(cells["network.py"]))
    programs = {}
    for name, parts in split.items():
        body = "\n\n\n".join(text for _, text in parts)
        defined, used = find_names(body)
        if name == "network.py":
            needed = {x for statements, _ in parts for x in statements}
        else:
            needed = {imports[x] for x in used - defined if x in imports}
            own = ",\n    ".join(sorted((used - defined) & in_network))
            needed.add(f"from network import (\n    {own},\n)")
        head = f'"""{TITLES[name]}"""\n\n{write_imports(needed)}'
        lines = "\n\n\n" if body.startswith(("class ", "def ")) else "\n\n"
        programs[name] = f"{head}{lines}{body}\n"
    return programs


def list_requirements(programs):
    """What the programs import, as lines of a requirements.txt with this machine's
    versions, and the modules that come from no package: two lists."""
    trees = map(ast.parse, programs.values())
    modules = {"onnxscript"}  # torch.onnx.export needs it
    for node in (x for tree in trees for x in ast.walk(tree)):
        if isinstance(node, ast.Import):
            modules |= {x.name.partition(".")[0] for x in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.partition(".")[0])
    modules -= {*sys.stdlib_module_names, "network"}
    known = packages_distributions()
    lines = {
        f"{known[x][0]}{EXTRAS.get(x, '')}=={version(known[x][0]).partition('+')[0]}"
        for x in modules
        if x in known
    }
    return sorted(lines), sorted(modules - known.keys())


def write_project(folder):
    """Write the programs and run ``export.py``; all of it or nothing.

    Args:
        folder: path of a folder that is not there yet, or is empty.

    Raises:
        SystemExit: the folder holds something, or the lesson's first cell cannot be
            exported; the message says what to do.
    """
    folder = Path(folder).expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        sys.exit(f"{folder} is there already: name a new folder")
    programs = write_programs(read_cells(LESSON))
    requirements, missing = list_requirements(programs)
    if missing:
        sys.exit(
            f"{LESSON.name} imports {', '.join(missing)}, which pip did not install: "
            "define the network in the first cell, or install it as a package"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as parent:
        new = Path(parent) / folder.name
        new.mkdir()
        for name, text in programs.items():
            (new / name).write_text(text)
        (new / "requirements.txt").write_text("\n".join([*requirements, ""]))
        readme = Path(__file__).with_name("README.md.in").read_text()
        (new / "README.md").write_text(readme.format(tritonserver=TRITONSERVER))
        if subprocess.run([sys.executable, new / "export.py"]).returncode:
            sys.exit(
                "export.py failed, so nothing was written: change the first cell of "
                f"{LESSON.name}, save it, and try again"
            )
        shutil.rmtree(new / "__pycache__", ignore_errors=True)
        new.rename(folder)
    files = ", ".join(sorted(x.name for x in folder.iterdir()))
    print(
        f"\n{folder} holds {files}.\nGo on with its README.md, or python smoke_test.py."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="a new folder, such as ~/tagger")
    folder = parser.parse_args().folder
    if not folder:
        parser.error("name a new folder: make project FOLDER=~/tagger")
    write_project(folder)


if __name__ == "__main__":
    main()
