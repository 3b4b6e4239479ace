"""What the lessons' stored outputs say holds on a processor that rounds otherwise."""

import os
import subprocess
import sys

import pytest

from helpers import paths

ROUNDS_OTHERWISE = paths.ROOT / "tests" / "data" / "other_processor"
WITHOUT_AVX512 = {
    "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # PyTorch's convolutions
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX",
    "OPENCV_CPU_DISABLE": "AVX2,AVX512-SKX",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", ["01", "02", "03", "05", "06", "07", "09", "13", "15", "16"]
)
def test_stored_outputs_hold_on_another_processor(number):
    (lesson,) = paths.NOTEBOOKS.glob(f"{number}_*.ipynb")
    one_core = "taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))
    result = subprocess.run(
        [*one_core, sys.executable, "-m", "pytest", "-q", "--nbval", lesson],
        env={**os.environ, **WITHOUT_AVX512, "PYTHONPATH": ROUNDS_OTHERWISE},
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
    )
    assert not result.returncode, result.stdout[-3000:] + result.stderr[-1000:]
