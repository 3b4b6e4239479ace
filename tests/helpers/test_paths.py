"""What one notebook leaves for the next is found, or its notebook is named."""

import pytest

from helpers import (
    paths,
)


def test_a_missing_artifact_names_its_notebook(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path)
    for name, notebook in paths.MADE_BY.items():
        with pytest.raises(FileNotFoundError, match=f"run notebooks/{notebook}.ipynb"):
            paths.artifact(name)
        assert (paths.NOTEBOOKS / f"{notebook}.ipynb").exists()
