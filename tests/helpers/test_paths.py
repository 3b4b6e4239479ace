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
        assert name in (paths.NOTEBOOKS / f"{notebook}.ipynb").read_text()


def test_a_served_model_is_that_of_its_version(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "MODEL_REPOSITORY", tmp_path)
    with pytest.raises(FileNotFoundError, match="notebooks/05_write_triton_config"):
        paths.served_model("m")
    (tmp_path / "m" / "2").mkdir(parents=True)
    (tmp_path / "m" / "2" / "model.onnx").touch()
    assert paths.served_model("m", 2) == tmp_path / "m/2/model.onnx"
