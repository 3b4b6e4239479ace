"""Configs are checked before they are written."""

import pytest

from helpers import (
    triton_config,
)


def test_a_wrong_config_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r'2:1 : .* no field named "max_batchsize"'):
        triton_config.write('name: "x"\nmax_batchsize: 3\n', tmp_path / "x")
    assert not (tmp_path / "x").exists()
    text = '# a comment\nname: "x"\nmax_batch_size: 3\n'
    config = triton_config.write(text, tmp_path / "x")
    assert config.max_batch_size == 3
    assert (tmp_path / "x/config.pbtxt").read_text() == text
