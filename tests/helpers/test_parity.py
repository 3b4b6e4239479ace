"""The measures of the parity table, and the table."""

import numpy as np
import pytest

from helpers import (
    parity,
    paths,
)


def test_parity_measures_what_it_says():
    reference = np.array([[3.0, 4, 0, 0, 0, 0], [0, 0, 0, 0, 6, 8]])
    candidate = reference.copy()
    candidate[0] = [4, 3, 0, 0, 0, 0]
    measures = parity.compare(reference, candidate)
    assert measures["max abs error"] == 1
    assert measures["relative L2"] == pytest.approx(np.sqrt(2 / 125))
    assert measures["cosine"] == pytest.approx(124 / 125)
    assert measures["top-1 agree"] == 0.5
    assert measures["top-5 agree"] == 1


def test_the_fifth_class_counts_and_the_sixth_does_not():
    reference = np.array([[6.0, 5, 4, 3, 2, 1]] * 2)
    candidate = reference.copy()
    candidate[1] = [6, 5, 4, 3, 1, 2]
    assert parity.compare(reference, candidate)["top-5 agree"] == 0.5


def test_half_precision_is_compared_in_double():
    logits = np.full((1, 6), 300, np.float16)  # whose squares it cannot hold
    measures = parity.compare(logits, logits)
    assert measures["relative L2"] == 0 and measures["cosine"] == pytest.approx(1)


def test_parity_refuses_what_cannot_be_compared():
    with pytest.raises(ValueError, match=r"found \(2, 3\) and \(2, 4\)"):
        parity.compare(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"found \(5,\) and \(5,\)"):
        parity.compare(np.ones(5), np.ones(5))
    good, bad = np.ones((1, 5)), np.full((1, 5), np.nan)
    for pair in (good, bad), (bad, good):
        with pytest.raises(ValueError, match="not finite"):
            parity.compare(*pair)


def test_parity_table_grows_and_replaces(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path)
    rows = np.eye(5)[:2]
    parity.record("one", "PyTorch", parity.compare(rows, rows))
    parity.record("two", "PyTorch", parity.compare(rows, 2 * rows))
    parity.record("one", "PyTorch", parity.compare(rows, 3 * rows))
    table = parity.table()
    assert list(table.index) == ["two", "one"]
    shown = ["PyTorch", "2.0e+00", "2.0e+00", "1.000000", "100%", "100%"]
    assert list(table.loc["one"]) == shown
    parity.reset()
    with pytest.raises(FileNotFoundError, match="run notebooks/02_validate_onnx"):
        parity.table()
