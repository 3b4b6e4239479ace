"""The report and the command line; the package can be lifted out."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import test_config_text
import test_tensors
from case_models import write_models

import repository_check


@pytest.fixture
def repository(tmp_path):
    cases = test_config_text.CASES | test_tensors.CASES
    names = "good", "few_labels", "misspelt"
    return write_models(tmp_path, {name: cases[name][1] for name in names})


def run_check(*arguments, package="repository_check", folder=None):
    """``python -m repository_check`` with these arguments, from this folder."""
    command = [sys.executable, "-m", package, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_the_command_line(repository):
    good = run_check(repository, "good")
    assert (good.returncode, good.stdout) == (0, "0 errors, 0 warnings\n")
    warned = run_check(repository, "few_labels")
    assert warned.returncode == 0 and "0 errors, 1 warning" in warned.stdout
    bad = run_check(repository, "misspelt")
    assert bad.returncode == 1 and "misspelt/config.pbtxt:2" in bad.stdout
    assert "\033" not in bad.stdout  # no colour in a pipe
    (finding,) = json.loads(run_check(repository, "misspelt", "--json").stdout)
    assert (finding["line"], finding["severity"]) == (2, "error")
    wrong = run_check(repository / "nothing")
    assert wrong.returncode == 2 and "there is no folder" in wrong.stderr
    assert run_check().returncode == 2
    assert run_check(repository, "nosuch").returncode == 2


def test_the_folder_works_inside_another_package(repository, tmp_path_factory):
    project = tmp_path_factory.mktemp("project")
    (folder,) = repository_check.__path__
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(folder), project / "deeper" / "checker", ignore=ignored)
    lifted = run_check(repository, package="deeper.checker", folder=project)
    assert lifted.returncode == 1, lifted
    assert lifted.stdout == run_check(repository).stdout
