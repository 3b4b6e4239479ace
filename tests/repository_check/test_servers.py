"""What a server can do, as far as that decides what it accepts."""

import dataclasses
from types import SimpleNamespace

import onnx
import pytest
from case_models import DOUBLE, GOOD, SERVER, model, write_models

import repository_check
from repository_check import servers


@pytest.mark.parametrize("kind", ["any", "embedded", "container"])
def test_each_kind_of_server_can_be_checked_for(tmp_path, kind):
    write_models(tmp_path, {"good": model(GOOD)})
    repository_check.check(tmp_path, ["good"], repository_check.server_features(kind))


@pytest.mark.parametrize(
    ("kind", "features"),
    [("embedded", servers.EMBEDDED), ("container", servers.CONTAINER)],
)
def test_a_server_sees_the_gpus_of_this_machine(monkeypatch, kind, features):
    monkeypatch.setattr(servers, "gpu_count", lambda: 2)
    expected = dataclasses.replace(features, gpus=2)
    assert repository_check.server_features(kind) == expected
    assert repository_check.server_features("any").gpus is None


@pytest.mark.parametrize("gpus", [0, 1, 8])
def test_the_gpus_of_this_machine_matter_where_they_are_asked_for_alone(
    tmp_path, monkeypatch, gpus
):
    """So the tests that check for ``SERVER`` hold on a machine with any number."""
    monkeypatch.setattr(servers, "gpu_count", lambda: gpus)
    write_models(tmp_path, {"m": model(GOOD + "instance_group { kind: KIND_GPU }\n")})
    assert len(repository_check.check(tmp_path, server=SERVER)) == 1
    assert not repository_check.check(tmp_path)
    here = repository_check.server_features("embedded")
    assert len(repository_check.check(tmp_path, server=here)) == (gpus == 0)


def test_gpus_are_counted_where_the_driver_works(monkeypatch):
    def count(number):
        number._obj.value = 2
        return 0

    driver = SimpleNamespace(cuInit=lambda flags: 0, cuDeviceGetCount=count)
    monkeypatch.setattr(servers.ctypes, "CDLL", lambda name: driver)
    assert repository_check.gpu_count() == 2
    driver.cuInit = lambda flags: 100  # CUDA_ERROR_NO_DEVICE
    assert repository_check.gpu_count() == 0


def test_only_the_operators_of_onnx_itself_have_a_highest_version():
    model = onnx.load_from_string(DOUBLE)
    model.opset_import.append(onnx.helper.make_opsetid("of.a.vendor", 99))
    assert not [*servers.find_too_new(model, servers.EMBEDDED)]


def test_the_newest_that_a_server_reads_is_not_too_new():
    model = onnx.load_from_string(DOUBLE)
    highest = servers.EMBEDDED.opset, servers.EMBEDDED.ir_version
    model.opset_import[0].version, model.ir_version = highest
    assert not [*servers.find_too_new(model, servers.EMBEDDED)]
    model.opset_import[0].version += 1
    model.ir_version += 1
    found = {
        what: (is_, of)
        for what, is_, of in servers.find_too_new(model, servers.EMBEDDED)
    }
    opset, version = highest
    assert found == {"opset": (opset + 1, opset), "IR version": (version + 1, version)}
