"""Rules about the folder: its name, its versions and the backend they are for."""

import pytest
from case_models import DOUBLE, GOOD, assert_case, model, write_models

import repository_check
from repository_check import WARNING

CASES = {
    # versions
    "no_version": ("error: no folder for a version", model(GOOD, {"readme.txt": ""})),
    "nothing": ("error: no folder for a version", model(None, {"readme.txt": ""})),
    ".hidden": ("error: no folder for a version", model(None, {"a.ipynb": ""})),
    "named_version": (
        "error: no folder for a version",
        model(GOOD, {"v1/model.onnx": DOUBLE}),
    ),
    "leading_zero": (
        "error: no folder for a version",
        model(GOOD, {"01/model.onnx": DOUBLE}),
    ),
    "version_zero": (None, model(GOOD, {"0/model.onnx": DOUBLE})),
    "ignored_folder": (
        "warning: a model file in old/",
        model(GOOD, {"1/model.onnx": DOUBLE, "old/model.onnx": DOUBLE}),
    ),
    "policy_of_none": (
        "error: a policy that chooses none",
        model(GOOD + "version_policy { specific { versions: [ 3 ] } }\n"),
    ),
    "policy_latest_0": (
        "error: a policy that chooses none",
        model(GOOD + "version_policy { latest { } }\n"),
    ),
    "policy_in_part": (
        "warning: the versions 3",
        model(GOOD + "version_policy { specific { versions: [ 1, 3 ] } }\n"),
    ),
    "newest_version": (
        None,
        model(GOOD, {"1/model.onnx": "an old format", "2/model.onnx": DOUBLE}),
    ),
    "tenth_version": (
        None,
        model(GOOD, {"9/model.onnx": "an old format", "10/model.onnx": DOUBLE}),
    ),
    "policy_all": (None, model(GOOD + "version_policy { all { } }\n")),
    # names and backends
    "no_config_no_file": ("error: no backend", model(None, {"1/model.bin": "x"})),
    "other_name": ('error: "another"', model('name: "another"\n' + GOOD)),
    "platform_as_backend": (
        'error: "onnxruntime_onnx", which is a platform',
        model(GOOD.replace('"onnxruntime"', '"onnxruntime_onnx"')),
    ),
    "plan_as_backend": (
        'error: "tensorrt_plan", which is a platform',
        model(GOOD.replace('"onnxruntime"', '"tensorrt_plan"')),
    ),
    "backend_as_platform": (
        'error: "onnxruntime", which is a backend',
        model(GOOD.replace("backend:", "platform:")),
    ),
    "platform": (
        None,
        model(GOOD.replace('backend: "onnxruntime"', 'platform: "onnxruntime_onnx"')),
    ),
    "both": (None, model('platform: "onnxruntime_onnx"\n' + GOOD)),
    "both_differ": (
        'error: "tensorrt_plan" with backend',
        model('platform: "tensorrt_plan"\n' + GOOD),
    ),
    "unknown_platform": (
        'error: "custom" with backend',
        model('platform: "custom"\n' + GOOD),
    ),
    "unknown_platform_of_a_file": (
        "error: no backend, and no file that tells",
        model(
            GOOD.replace('backend: "onnxruntime"', 'platform: "custom"')
            + 'default_model_filename: "other.bin"\n',
            {"1/other.bin": "x"},
        ),
    ),
    "no_backend": (None, model(GOOD.replace('backend: "onnxruntime"\n', ""))),
    "unknown_backend": (
        'error: "nosuch"',
        model(GOOD.replace('"onnxruntime"', '"nosuch"')),
    ),
    "absent_backend": (
        'error: "pytorch"',
        model(
            GOOD.replace('backend: "onnxruntime"', 'platform: "pytorch_libtorch"'),
            {"1/model.pt": "x"},
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_says_what_is_wrong_and_nothing_else(tmp_path, name):
    assert_case(tmp_path, name, CASES)


def test_odd_names_and_files_give_findings(tmp_path):
    odd = {"with space": (GOOD, {"1/model.onnx": DOUBLE}), "café": (None, {"1/x": ""})}
    write_models(tmp_path, odd)
    (tmp_path / "a file").write_text("")
    (tmp_path / "broken link").symlink_to(tmp_path / "nothing")
    (tmp_path / ".git").mkdir()
    found = repository_check.check(tmp_path)
    assert {x.model for x in found} == {*odd, ".git"}
    (fix,) = (x.fix for x in found if x.model == ".git")
    assert fix.startswith("Move it out of the repository")
    assert {x.severity for x in found if x.model == "with space"} == {WARNING}
