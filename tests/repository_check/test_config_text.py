"""The text of a config: what parses, where a field is, and what was meant."""

import re

import pytest
from case_models import (
    GOOD,
    MODEL_PY,
    PYTHON,
    SERVER,
    WARM,
    assert_case,
    model,
    write_models,
)

import repository_check
from repository_check.model_folder import ModelFolder

CASES = {
    "empty_config": (None, model("")),
    "other_style": (
        None,
        model(
            'backend: "onnxruntime", max_batch_size: 8;\n'
            "input: { name: 'x', data_type: TYPE_FP32, dims: 4 },\n"
            'output < name: "y" data_type: TYPE_FP32 dims: [4] > # end'
        ),
    ),
    "misspelt": (
        'error: Message type "inference.ModelConfig" has no field named '
        '"max_batchsize"',
        model(GOOD.replace("max_batch_size", "max_batchsize")),
    ),
    "unknown_value": (
        'error: Enum type "inference.DataType" has no value named FP32',
        model(GOOD.replace("TYPE_FP32", "FP32")),
    ),
    "unfinished": ('error: Expected "{"', model(GOOD + "input [\n")),
    "twice": (
        'error: Message type "inference.ModelConfig" should not have multiple',
        model(GOOD + "max_batch_size: 4\n"),
    ),
    "two_batchers": (
        'error: Field "sequence_batching" is specified along with',
        model(GOOD + "dynamic_batching { }\nsequence_batching { }\n"),
    ),
    "binary": ("error: Expected identifier", model(b"\x00\xff\xfe\x80 binary")),
    "byte_order_mark": (
        "error: a byte order mark",
        model(b"\xef\xbb\xbf" + GOOD.encode()),
    ),
    "latin_comment": (None, model(("# caf\xe9\n" + GOOD).encode("latin-1"))),
}


@pytest.mark.parametrize("name", CASES)
def test_it_says_what_is_wrong_and_nothing_else(tmp_path, name):
    assert_case(tmp_path, name, CASES)


def test_the_line_is_that_of_the_field(tmp_path):
    text = GOOD.replace("dims: [ 4 ] } ]\noutput", "\n\n dims: [ 5 ] } ]\noutput")
    write_models(tmp_path, {"m": model("# a comment\n" + text)})
    (finding,) = repository_check.check(tmp_path)
    assert (finding.file, finding.line) == ("m/config.pbtxt", 6)
    assert finding.field == "input[0].dims"
    assert str(finding).startswith("error: m/config.pbtxt:6: input[0].dims found [5]")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("dynamic_batching {\n preferred_batch_size: [ 4,\n 8,\n 64 ] }\n", 8),
        (
            'parameters { key: "a" value { string_value: "b"\n \'c\' } }\n'
            "dynamic_batching { priority_levels: 1 }\n",
            7,
        ),
    ],
)
def test_the_line_is_found_in_lists_and_behind_strings_side_by_side(
    tmp_path, text, line
):
    write_models(tmp_path, {"m": model(GOOD + text)})
    (finding,) = repository_check.check(tmp_path)
    assert finding.line == line


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("max_batchsize: 8", "max_batch_size"),
        ("input { dim: 4 }", "dims"),
        ("instance_group { knd: KIND_CPU }", "kind"),
        ("input { data_type: FP32 }", "TYPE_FP32"),
        ("instance_group { kind: KIND_GPUS }", "KIND_GPU"),
    ],
)
def test_the_nearest_known_name_is_offered(tmp_path, text, near):
    write_models(tmp_path, {"m": model("\n " + text)})
    (finding,) = repository_check.check(tmp_path)
    assert finding.fix == f"Did you mean {near}?"
    assert finding.line == 2 and re.match(r"column \d+", finding.field)


def test_numbers_that_no_enum_knows_give_no_traceback(tmp_path):
    text = PYTHON.replace("TYPE_FP32", "99") + "instance_group { kind: 9 }\n" + WARM
    write_models(tmp_path, {"m": (text, {"1/model.py": MODEL_PY})})
    repository_check.check(tmp_path, server=SERVER)


def test_a_field_that_is_missing_has_the_line_of_what_should_hold_it(tmp_path):
    warm_up = 'model_warmup [\n  { name: "w"\n    batch_size: 1 } ]\n'
    write_models(tmp_path, {"m": model(GOOD + warm_up)})
    folder = ModelFolder(tmp_path / "m", SERVER)
    path = "model_warmup", 0, "inputs", 0, "value"
    folder.add_error(*path, found="none", expected="one", fix="Write it")
    (finding,) = folder.findings
    assert finding.line == folder.lines["model_warmup", 0] == 6
    assert finding.field == "model_warmup[0].inputs[0].value"
