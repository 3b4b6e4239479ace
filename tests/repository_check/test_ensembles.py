"""Rules about ensembles: their steps, and how the steps are connected."""

import pytest
import test_tensors
from case_models import WARM, X2, X, Y, assert_case, ensemble, step

# What the ensembles below are made of.
NAMES = "good", "no_config", "two_inputs", "optional"
PARTS = {name: test_tensors.CASES[name][1] for name in NAMES}
Z = Y.replace('"y"', '"z"')
FIRST, SECOND = step(outputs={"y": "m"}), step(inputs={"x": "m"})
BACK = step(inputs={"x": "y"}, outputs={"y": "m"})

CASES = {
    "ensemble": (None, ensemble(step())),
    "ensemble_chain": (None, ensemble(FIRST, SECOND)),
    "ensemble_of_ensemble": (None, ensemble(step("ensemble_chain"))),
    "ensemble_free_shape": (None, ensemble(step(), x=X.replace("[ 4 ]", "[ -1 ]"))),
    "ensemble_auto": (None, ensemble(step("no_config"), batch=4)),
    "ensemble_auto_8": ("error: 8, where no_config has 4", ensemble(step("no_config"))),
    "ensemble_no_version": (
        "error: no folder for a version",
        ensemble(step(), files={"readme.txt": ""}),
    ),
    "ensemble_no_model": ('error: "nosuch"', ensemble(step("nosuch"))),
    "ensemble_no_steps": ("error: no step", ensemble()),
    "ensemble_input_key": (
        "error: key 'q', expected an input of good: x",
        ensemble(step(inputs={"q": "x"})),
    ),
    "ensemble_output_key": (
        "error: key 'q', expected an output of good: y",
        ensemble(step(outputs={"q": "y"})),
    ),
    "ensemble_nowhere": (
        "error: 'q' comes from nowhere",
        ensemble(step(inputs={"x": "q"})),
    ),
    "ensemble_unused_input": (
        "error: 'x2' is used by nothing",
        ensemble(step(), x=X + X2),
    ),
    "ensemble_unused": ("error: 'm' is used by nothing", ensemble(step(), BACK)),
    "ensemble_made_twice": ("error: 'y' is made 2 times", ensemble(step(), step())),
    "ensemble_loop": (
        "error: a loop through m, y",
        ensemble(SECOND, BACK, step(outputs={"y": "z"}), y=Y + Z),
    ),
    "ensemble_nowhere_late": (
        "error: 'q' comes from nowhere",
        ensemble(FIRST, SECOND, step(inputs={"x": "q"}, outputs={"y": "z"}), y=Y + Z),
    ),
    "ensemble_part_of_inputs": (
        "error: no value for x2 of two_inputs",
        ensemble(step("two_inputs")),
    ),
    "ensemble_type": (
        "error: TYPE_FP16 for 'x', TYPE_FP32 for good's 'x'",
        ensemble(step(), x=X.replace("FP32", "FP16")),
    ),
    "ensemble_no_type": (
        "error: no data_type",
        ensemble(step(), x=X.replace("data_type: TYPE_FP32 ", "")),
    ),
    "ensemble_shape": (
        "error: [-1, 5] for 'x', [-1, 4] for good's 'x'",
        ensemble(step(), x=X.replace("[ 4 ]", "[ 5 ]")),
    ),
    "ensemble_batch": ("error: 16, where good has 8", ensemble(step(), batch=16)),
    "ensemble_version": (
        "error: version 3 of good",
        ensemble(step(version=3)),
    ),
    "ensemble_default_version": (
        "error: version 0 of good (the default",
        ensemble(step(version=None)),
    ),
    "ensemble_no_input_map": ("error: no input_map", ensemble(step(inputs={}))),
    "ensemble_no_output_map": ("error: no output_map", ensemble(step(outputs={}))),
    "ensemble_of_itself": (
        "error: an ensemble that contains itself",
        ensemble(step("ensemble_of_itself")),
    ),
    "ensemble_circle": (
        "error: an ensemble that contains itself",
        ensemble(step("ensemble_other_half")),
    ),
    "ensemble_other_half": (
        "error: an ensemble that contains itself",
        ensemble(step("ensemble_circle")),
    ),
    "ensemble_optional": (None, ensemble(step("optional"))),
    "ensemble_overwrites": (None, ensemble(step(outputs={"y": "x"}), step())),
    "ensemble_instances": (
        "error: instances for an ensemble",
        ensemble(step(), more="instance_group { kind: KIND_CPU }\n"),
    ),
    "ensemble_warm": ("error: a warm-up for an ensemble", ensemble(step(), more=WARM)),
    "ensemble_backend": (
        'error: platform "ensemble" and backend "onnxruntime"',
        ensemble(step(), more='backend: "onnxruntime"\n'),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_says_what_is_wrong_and_nothing_else(tmp_path, name):
    names = "ensemble_chain", "ensemble_circle", "ensemble_other_half"
    parts = {**PARTS, **{x: CASES[x][1] for x in names}}
    assert_case(tmp_path, name, CASES, parts)
