"""Rules about running a model: instances, batcher, warm-up and response cache."""

from functools import partial
from math import prod

from tritonclient.grpc import model_config_pb2 as schema

from .data_types import BYTES_PER_ELEMENT, name_data_type, read_onnx_tensors
from .findings import join_items

INSTANCE_GROUPS = "model_configuration.html#instance-groups"
DYNAMIC_BATCHER = "batcher.html#dynamic-batcher"


def check_instances(model):
    gpus = model.server.gpus
    kinds = schema.ModelInstanceGroup
    for i, group in enumerate(model.config.instance_group):
        if group.profile and model.backend != "tensorrt":
            model.add_error(
                "instance_group",
                i,
                "profile",
                found=f"profile {join_items(group.profile)}",
                expected="a model of the tensorrt backend, which alone has profiles",
                fix="Remove profile",
                link=INSTANCE_GROUPS,
            )
        if group.kind not in kinds.Kind.values():
            continue
        is_cpu = group.kind in (kinds.KIND_CPU, kinds.KIND_MODEL)
        is_auto_on_cpu = group.kind == kinds.KIND_AUTO and gpus == 0
        absent = [x for x in group.gpus if gpus and x >= gpus]
        if group.gpus and (is_cpu or is_auto_on_cpu):
            model.add_error(
                "instance_group",
                i,
                "gpus",
                found=f"GPUs {join_items(group.gpus)} for {kinds.Kind.Name(group.kind)}"
                + ("" if is_cpu else " without a GPU"),
                expected="no gpus for this kind",
                fix="Remove gpus, or use KIND_GPU on a machine with a GPU",
                link=INSTANCE_GROUPS,
            )
        elif group.kind == kinds.KIND_GPU and gpus == 0:
            model.add_error(
                "instance_group",
                i,
                found="KIND_GPU on a machine without a GPU",
                expected="KIND_CPU, or KIND_AUTO for either",
                fix="Write kind: KIND_AUTO, or serve it where there is a GPU",
                link=INSTANCE_GROUPS,
            )
        elif absent:
            model.add_error(
                "instance_group",
                i,
                "gpus",
                found=f"GPU {join_items(absent)}",
                expected=f"0 to {gpus - 1}, the GPUs of this machine",
                fix="Remove what is not there",
                link=INSTANCE_GROUPS,
            )


def check_batcher(model):
    config = model.config
    if not config.HasField("dynamic_batching"):
        return
    # The server compares these sizes before auto-complete, so with the config's own
    batcher, largest = config.dynamic_batching, config.max_batch_size
    if not largest and config.input:
        model.add_warning(
            "dynamic_batching",
            found="a dynamic batcher with max_batch_size: 0",
            expected="max_batch_size above 0",
            fix="Nothing is ever batched: raise max_batch_size, and leave the batch "
            "out of dims",
            link=DYNAMIC_BATCHER,
        )
    for i, size in enumerate(batcher.preferred_batch_size):
        if not 1 <= size <= largest:
            expected = f"1 to max_batch_size, which is {largest}"
            model.add_error(
                "dynamic_batching",
                "preferred_batch_size",
                i,
                found=str(size),
                expected=expected if largest else f"{expected} here",
                fix="Leave the field out: the batcher takes what waits"
                if largest
                else "Set max_batch_size: the size is compared before auto-complete",
                link=DYNAMIC_BATCHER,
            )
    levels, default = batcher.priority_levels, batcher.default_priority_level
    if levels and not 1 <= default <= levels:
        model.add_error(
            "dynamic_batching",
            found=f"default_priority_level {default}",
            expected=f"1 to priority_levels, which is {levels}",
            fix="Set default_priority_level",
            link="batcher.html#priority-levels",
        )
    _check_policies(model, batcher)


def _check_policies(model, batcher):
    """Queue policies: those of levels, and what preserve_ordering excludes."""
    levels = batcher.priority_levels
    unknown = [
        x for x in batcher.priority_queue_policy if levels and not 1 <= x <= levels
    ]
    policies = [batcher.default_queue_policy, *batcher.priority_queue_policy.values()]
    delays = any(
        x.default_timeout_microseconds and x.timeout_action == x.DELAY for x in policies
    )
    found = None
    if unknown:
        found = f"a policy for level {join_items(unknown)}"
        expected, fix = (
            f"levels from 1 to {levels}",
            "Remove it, or raise priority_levels",
        )
    elif batcher.preserve_ordering and levels > 1:
        found = f"preserve_ordering with {levels} priority levels"
        expected, fix = "one of the two", "Remove preserve_ordering or priority_levels"
    elif batcher.preserve_ordering and delays:
        found = "preserve_ordering with the timeout action DELAY"
        expected, fix = "one of the two", "Write timeout_action: REJECT"
    if found:
        model.add_error(
            "dynamic_batching",
            found=found,
            expected=expected,
            fix=fix,
            link="batcher.html#queue-policy",
        )


def check_warmup(model):
    config, onnx_model = model.config, model.onnx_model
    # Against the file where there is one: what the config has wrong is said once
    inputs = (
        read_onnx_tensors(onnx_model, "input")
        if onnx_model
        else model.find_tensors("input")
    )
    if not inputs or model.is_ensemble or config.HasField("sequence_batching"):
        return
    optional = {x.name for x in config.input if x.optional}
    reshaped = {x.name for x in config.input if x.HasField("reshape")}
    largest = model.max_batch_size
    for i, sample in enumerate(config.model_warmup):
        add_error = partial(
            model.add_error,
            "model_warmup",
            i,
            link="model_configuration.html#model-warmup",
        )
        if 0 < largest < sample.batch_size:
            add_error(
                found=f"a batch of {sample.batch_size}",
                expected=f"at most max_batch_size, which is {largest}",
                fix="Lower batch_size",
            )
        given = {*sample.inputs}
        unknown = given - {*inputs}
        absent = {*inputs} - given - optional
        if sample.batch_size and (unknown or absent):
            names = join_items(sorted(given))
            add_error(
                found=f"the inputs {names}" if given else "no inputs",
                expected=f"{join_items(inputs)}, those of the model",
                fix="Give each input of the model a value, under its own name",
            )
        for name in sorted((given & {*inputs}) - reshaped):
            value = sample.inputs[name]
            _check_sample_value(model, name, value, inputs[name], add_error)


def _check_sample_value(model, name, value, tensor, add_error):
    """What a sample of a warm-up gives to one input, whose type and shape are known."""
    data_type, shape = tensor
    if shape is None:
        return
    dims, model_dims = list(value.dims), shape[model.has_batch_axis :]
    given_type = name_data_type(value.data_type)
    if given_type != data_type:
        add_error(
            found=f"{given_type} for {name!r}",
            expected=data_type,
            fix=f"Write data_type: {data_type}",
        )
    if min(dims, default=0) < 0:
        add_error(
            found=f"dims {dims} for {name!r}",
            expected="a size for each axis",
            fix="Choose sizes",
        )
    elif len(dims) != len(model_dims) or any(
        wanted not in (-1, size) for size, wanted in zip(dims, model_dims)
    ):
        add_error(
            found=f"dims {dims} for {name!r}",
            expected=f"{model_dims}, without the batch",
            fix="Correct dims",
        )
    elif not value.WhichOneof("input_data_type"):
        add_error(
            found=f"no data for {name!r}",
            expected="zero_data, random_data or input_data_file",
            fix="Write zero_data: true",
        )
    elif value.WhichOneof("input_data_type") == "input_data_file":
        path = model.folder / "warmup" / value.input_data_file
        size = prod(dims) * BYTES_PER_ELEMENT.get(given_type, 0)
        if not path.is_file():
            add_error(
                found=f'"{value.input_data_file}", which is not there',
                expected=f"{model.name}/warmup/{value.input_data_file}",
                fix="Put the file there",
            )
        elif given_type == "TYPE_STRING":
            _check_texts(path, prod(dims), add_error)
        elif path.stat().st_size < size:
            add_error(
                found=f"{path.stat().st_size} bytes in {path.name}",
                expected=f"{size} for {given_type} of {dims}",
                fix="Write the whole tensor, in row-major order",
            )


def _check_texts(path, expected, add_error):
    """A file of texts: before each, 4 bytes with its length in bytes."""
    data, count, begin = path.read_bytes(), 0, 0
    while begin + 4 <= len(data):
        begin += 4 + int.from_bytes(data[begin : begin + 4], "little")
        count += 1
    if begin != len(data) or count != expected:
        add_error(
            found=f"{path.name}, which does not hold {expected} texts",
            expected="before each text its length in bytes, as 4 bytes, little-endian",
            fix="Write struct.pack('<I', len(text)) + text, the text encoded before",
        )


def check_cache(model):
    config = model.config
    for kind, is_used in (
        ("sequence batching", config.HasField("sequence_batching")),
        ("decoupled answers", config.model_transaction_policy.decoupled),
    ):
        if config.response_cache.enable and is_used:
            model.add_error(
                "response_cache",
                found=f"a response cache for a model with {kind}",
                expected="one of the two",
                fix="Remove response_cache",
                link="response_cache.html",
            )
            return
    if model.config.response_cache.enable and model.server.cache is False:
        model.add_warning(
            "response_cache",
            found="a response cache for the model and none in the server",
            expected="a server that was started with --cache-config",
            fix="Start it with --cache-config=local,size=1048576, or remove the field",
            link="response_cache.html",
        )
