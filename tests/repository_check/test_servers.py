"""What a server can do, as far as that decides what it accepts."""

import pytest
from case_models import GOOD, model, write_models

import repository_check
from repository_check import servers


@pytest.mark.parametrize("kind", ["any", "embedded", "container"])
def test_each_kind_of_server_can_be_checked_for(tmp_path, kind):
    write_models(tmp_path, {"good": model(GOOD)})
    repository_check.check(tmp_path, ["good"], repository_check.server_features(kind))


@pytest.mark.parametrize("kind", ["embedded", "container"])
def test_a_server_sees_the_gpus_of_this_machine(monkeypatch, kind):
    monkeypatch.setattr(servers, "gpu_count", lambda: 2)
    assert repository_check.server_features(kind).gpus == 2
    assert repository_check.server_features("any").gpus is None
