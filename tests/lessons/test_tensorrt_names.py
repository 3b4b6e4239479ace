"""Every TensorRT name in the lessons exists in the versions that they are for."""

import csv
import re
from pathlib import Path

import nbformat
import pytest
import tensorrt_rtx

from helpers import paths

# What the project's variables hold.
CLASSES = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "inspector": "EngineInspector",
    "self._engine": "ICudaEngine",
    "context": "IExecutionContext",
    "self._context": "IExecutionContext",
    "self._trt_runtime": "Runtime",
    "flags": "NetworkDefinitionCreationFlag",
}


@pytest.fixture(scope="module")
def table():
    """Which name is in which version.

    RTX is checked below, and what tools/record_engines.py uses ran on 8.6. The columns
    of 10 and 11 were not compared with an installation.
    """
    with Path(__file__).parents[1].joinpath("data/tensorrt_names.csv").open() as file:
        return {row.pop("name"): row for row in csv.DictReader(file)}


def sources():
    """Text of everything in the project that talks to TensorRT."""
    files = [
        paths.ROOT / "helpers/engine.py",
        paths.ROOT / "tools/record_engines.py",
        paths.ROOT / "embedded_triton/backends/engine.py",
    ]
    yield from ((file.name, file.read_text()) for file in files)
    for file in paths.NOTEBOOKS.glob("*_engine.ipynb"):
        cells = nbformat.read(file, as_version=4).cells
        code = [x.source for x in cells if x.cell_type == "code"]
        yield file.name, "\n".join(code)


def names_in(text):
    """TensorRT's names in a source text, as ``Class`` or ``Class.member``."""
    found = set(re.findall(r"\btrt\.([A-Z]\w*(?:\.\w+)?)", text))
    for variable, owner in CLASSES.items():
        pattern = rf"(?<![\w./\"]){re.escape(variable)}\.(\w+)"  # no file's name
        found |= {f"{owner}.{member}" for member in re.findall(pattern, text)}
    return found


def test_every_name_is_in_the_table_and_guarded_where_a_version_lacks_it(table):
    count = 0
    for file, text in sources():
        lesson = file.endswith(".ipynb")  # for 10 and later; docs/tensorrt_8.md
        for name in names_in(text):
            assert name in table, f"{name} in {file} is not in tensorrt_names.csv"
            count += 1
            versions = {**table[name], "8.6": "-" if lesson else table[name]["8.6"]}
            if "no" in versions.values():
                guarded = re.search(r"hasattr\(|getattr\(|builds_for_others", text)
                assert guarded, f"{name} in {file} is not in every version"
    assert count > 60


def test_the_table_is_right_about_the_installed_bindings(table):
    for name, versions in table.items():
        value = tensorrt_rtx
        try:
            for part in name.split("."):
                value = getattr(value, part)
            found = "yes"
        except AttributeError:
            found = "no"
        assert found == versions["RTX"], name
