"""The small helpers, on good input and on bad."""

import pytest

from helpers import (
    machine,
)


def test_machine_reports_every_row():
    text = machine.report().to_html()
    for row in "processor", "embedded Triton", "ResNet-50 weights", "Docker":
        assert row in text
    assert machine.import_tensorrt().__name__.startswith("tensorrt")


@pytest.mark.parametrize(
    ("machine_name", "libc", "words"),
    [
        ("aarch64", ("glibc", "2.36"), "found Linux on aarch64"),
        ("x86_64", ("glibc", "2.31"), "glibc 2.31; the series needs"),
        ("x86_64", ("", ""), "an unknown libc"),
    ],
)
def test_an_unfit_machine_is_told_so(monkeypatch, machine_name, libc, words):
    monkeypatch.setattr(machine.platform, "machine", lambda: machine_name)
    monkeypatch.setattr(machine.platform, "libc_ver", lambda: libc)
    with pytest.raises(RuntimeError, match=words):
        machine.check()
