"""Rules about ensembles: their steps, and how the steps are connected.

A step's maps have the model's name of a tensor as key, the ensemble's as value.
"""

from collections import Counter
from functools import partial

from .findings import join_items

ENSEMBLE_MODELS = "ensemble_models.html"


def check_ensemble(model, models):
    """Whether an ensemble can run.

    Args:
        model: a ``ModelFolder``.
        models: those of the whole repository, by name.
    """
    config = model.config
    steps = config.ensemble_scheduling.step
    add_error = partial(model.add_error, link=ENSEMBLE_MODELS)
    if config.backend or config.platform != "ensemble":
        add_error(
            *(["backend"] if config.backend else []),
            found=f'platform "{config.platform}" and backend "{config.backend}"',
            expected='platform: "ensemble" and no backend',
            fix='Write platform: "ensemble" alone',
        )
    for field, what in (
        ("instance_group", "instances"),
        ("model_warmup", "a warm-up"),
    ):
        if getattr(config, field):
            add_error(
                field,
                found=f"{what} for an ensemble",
                expected="none: its models have theirs",
                fix=f"Remove {field}",
            )
    if not steps:
        add_error(
            "ensemble_scheduling",
            found="no step",
            expected="a step for each model",
            fix="Write ensemble_scheduling",
        )
    elif all(step.input_map and step.output_map for step in steps):
        add_error = partial(add_error, "ensemble_scheduling")
        _check_connections(steps, config, add_error)
        _check_order(steps, config, add_error)
    for i, step in enumerate(steps):
        _check_step(model, models, i, step)


def _check_connections(steps, config, add_error):
    """Whether each tensor is made once and used."""
    made = Counter(x for step in steps for x in step.output_map.values())
    made.update({x.name for x in config.input} - {*made})
    used = Counter(x for step in steps for x in step.input_map.values())
    used.update(x.name for x in config.output)
    for name in sorted(made | used):
        if made[name] > 1:
            add_error(
                found=f"{name!r} is made {made[name]} times",
                expected="each tensor made once",
                fix="Rename all but one",
            )
        elif not used[name]:
            add_error(
                found=f"{name!r} is used by nothing",
                expected="every tensor used",
                fix="Connect it, or remove it",
            )
        elif not made[name]:
            add_error(
                found=f"{name!r} comes from nowhere",
                expected="every tensor made",
                fix="Correct the name in input_map or output_map",
            )


def _check_order(steps, config, add_error):
    """Whether the steps can run one after the other."""
    known = {x.name for x in config.input}
    left = list(steps)
    while ready := [x for x in left if {*x.input_map.values()} <= known]:
        known |= {name for x in ready for name in x.output_map.values()}
        left = [x for x in left if x not in ready]
    made = {name for x in steps for name in x.output_map.values()}
    awaited = {name for x in left for name in x.input_map.values()} - known
    if left and awaited <= made:
        add_error(
            found=f"a loop through {join_items(sorted(awaited))}",
            expected="steps that can run one after the other",
            fix="Let no step wait for what depends on it",
        )


def _check_step(model, models, i, step):
    """One step of an ensemble, with the model that it runs."""
    path = ("ensemble_scheduling", 0, "step", i)
    add_error = partial(model.add_error, *path, link=ENSEMBLE_MODELS)
    for field in "input_map", "output_map":
        if not getattr(step, field):
            example = f'{field} {{ key: "of the model" value: "of the ensemble" }}'
            add_error(
                found=f"no {field}",
                expected=f"{field} in every step",
                fix=f"Write {example}",
            )
    part = models.get(step.model_name)
    if part is None:
        add_error(
            "model_name",
            found=f'"{step.model_name}"',
            expected=f"a model of this repository: {join_items(sorted(models))}",
            fix="Correct the name, or add the model",
        )
        return
    if not part.readable:
        return
    version = step.model_version
    if version != -1 and version not in part.served_versions:
        found = f"version {version} of {part.name}"
        add_error(
            *(["model_version"] if version else []),
            found=found if version else f"{found} (the default where none is given)",
            expected=f"-1 for the newest, or one of {join_items(part.served_versions)}",
            fix="Write model_version: -1",
        )
    largest, part_largest = model.config.max_batch_size, part.max_batch_size
    if largest > part_largest > 0:  # Triton lets one without a batch axis through
        model.add_error(
            "max_batch_size",
            found=f"{largest}, where {part.name} has {part_largest}",
            expected=f"at most {part_largest}",
            fix="Lower it here, or raise it there",
            link=ENSEMBLE_MODELS,
        )
    _check_maps(model, part, step, add_error)


def _check_maps(model, part, step, add_error):
    """The input_map and the output_map of a step, whose model is ``part``."""
    optional = {x.name for x in part.config.input if x.optional}
    inputs = {*(part.find_tensors("input") or ())}
    absent = sorted(inputs - {*step.input_map} - optional)
    if absent and step.input_map and {*step.input_map} <= inputs:
        add_error(
            "input_map",
            found=f"no value for {join_items(absent)} of {part.name}",
            expected="every input of the model",
            fix="Add an input_map for it",
        )
    for field, kind in ("input_map", "input"), ("output_map", "output"):
        tensors = part.find_tensors(kind)
        if tensors is None:
            continue
        for name, outer_name in getattr(step, field).items():
            if name in tensors:
                _compare_mapped_tensor(
                    model, part, name, tensors[name], outer_name, add_error
                )
            else:
                add_error(
                    field,
                    found=f"key {name!r}",
                    expected=f"an {kind} of {part.name}: {join_items(tensors)}",
                    fix="The key is the model's name, the value the ensemble's",
                )


def _compare_mapped_tensor(model, part, name, tensor, outer_name, add_error):
    """A tensor of a step with the ensemble's own of that name, if it has one."""
    tensors = {
        **(model.find_tensors("input") or {}),
        **(model.find_tensors("output") or {}),
    }
    if outer_name not in tensors:
        return
    (inner_type, inner), (outer_type, outer) = tensor, tensors[outer_name]
    if inner_type != outer_type and "TYPE_INVALID" not in (inner_type, outer_type):
        add_error(
            found=f"{outer_type} for {outer_name!r}, "
            f"{inner_type} for {part.name}'s {name!r}",
            expected="one type",
            fix="Correct the ensemble's data_type",
        )
    if inner is None or outer is None:
        return
    inner_dims, outer_dims = inner[part.has_batch_axis :], outer[model.has_batch_axis :]
    if not _can_be_equal(inner, outer) and not _can_be_equal(inner_dims, outer_dims):
        add_error(
            found=f"{outer} for {outer_name!r}, {inner} for {part.name}'s {name!r}",
            expected="one shape, the batch included",
            fix="Correct the ensemble's dims",
        )


def _can_be_equal(shape, other):
    """Whether two shapes can be the same, where -1 stands for any size."""
    sizes_fit = (a == b or -1 in (a, b) for a, b in zip(shape, other))
    return len(shape) == len(other) and all(sizes_fit)


def check_circles(models):
    """Ensembles that contain each other.

    Args:
        models: those to check, by name.
    """
    parts = {
        name: {x.model_name for x in model.config.ensemble_scheduling.step}
        for name, model in models.items()
    }
    for name, model in models.items():
        seen, new = set(), parts[name] & {*models}
        while new:
            seen |= new
            new = {y for x in new for y in parts[x] & {*models}} - seen
        if name in seen:
            model.add_error(
                "ensemble_scheduling",
                found="an ensemble that contains itself",
                expected="models that end in something other than an ensemble",
                fix="Take it out of its own steps",
                link=ENSEMBLE_MODELS,
            )
