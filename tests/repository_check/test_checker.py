"""The check of a whole repository."""

import time
from pathlib import Path

import onnx
import pytest
import test_model_files
import test_tensors
from case_models import GOOD, SERVER, ensemble, model, step, write_models

import repository_check
from helpers import paths


def test_our_own_repository_is_accepted(artifacts):
    names = ["classifier_onnx", "resnet50"]
    server = repository_check.server_features("embedded")
    assert not repository_check.check(paths.MODEL_REPOSITORY, names, server)


def test_a_models_folder_is_told_from_a_repository(tmp_path):
    write_models(tmp_path, {"good": model(GOOD)})
    (finding,) = repository_check.check(tmp_path / "good")
    assert finding.found == "a model's folder"


def test_a_repository_may_hold_a_model_called_7_or_a_config_of_nobody(tmp_path):
    write_models(tmp_path, {"7": model(GOOD), "good": model(GOOD)})
    assert not repository_check.check(tmp_path)
    (tmp_path / "7").rename(tmp_path / "seven")
    (tmp_path / "config.pbtxt").write_text(GOOD)
    assert not repository_check.check(tmp_path)


def test_the_models_of_an_ensemble_are_checked_with_it(tmp_path):
    models = {"all": ensemble(step("part")), "part": model("max_batch: 8\n")}
    write_models(tmp_path, {**models, "other": model("max_batch: 8\n")})
    assert {x.model for x in repository_check.check(tmp_path, ["all"])} == {"part"}


@pytest.mark.parametrize("name", ["labels", "rtx_plan", "python", "good"])
def test_an_unreadable_file_gives_a_finding(tmp_path, monkeypatch, name):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    _, content = (test_tensors.CASES | test_model_files.CASES)[name]
    write_models(tmp_path, {name: content})
    config = (tmp_path / name / "config.pbtxt").read_bytes()
    monkeypatch.setattr(onnx, "load", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(
        Path, "read_bytes", lambda x: config if x.suffix == ".pbtxt" else refuse(x)
    )
    found = repository_check.check(tmp_path, [name])
    assert "permission denied" in {x.found for x in found}


def test_200_models_take_less_than_2_seconds_of_a_processor(tmp_path):
    write_models(tmp_path, {f"m{i}": model(GOOD) for i in range(200)})
    begin = time.process_time()
    assert not repository_check.check(tmp_path, server=SERVER)
    assert time.process_time() - begin < 2  # 0.1 on two cores
