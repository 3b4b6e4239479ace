"""The rules in their order, and the check of a repository by them."""

import os
import re
from pathlib import Path

from . import layout, model_files, onnx_tensors, scheduling, sequences, tensors
from .ensembles import check_circles, check_ensemble
from .findings import ERROR, Finding, complete_link
from .model_folder import ModelFolder
from .servers import ServerFeatures

# Each takes a ModelFolder and adds findings; the order is that of a reader's repair.
# How to add one: the docstring of the package.
RULES = (
    layout.check_names,
    layout.check_versions,
    layout.check_backend,
    model_files.check_fields,
    model_files.check_files,
    model_files.check_environment,
    tensors.check_tensors,
    tensors.check_batch_tensors,
    sequences.check_sequences,
    onnx_tensors.check_against_onnx,
    scheduling.check_instances,
    scheduling.check_batcher,
    scheduling.check_warmup,
    scheduling.check_cache,
)


def check(repository, models=None, server=None):
    """Find what is wrong with a model repository.

    Args:
        repository: its folder.
        models: names of the models to check, with those that their ensembles need;
            None for all.
        server: ``ServerFeatures``; None checks what holds for any server.

    Returns:
        A list of ``Finding``, model by model.

    Raises:
        NotADirectoryError: there is no such folder.
    """
    repository, server = Path(repository), server or ServerFeatures()
    if not repository.is_dir():
        raise NotADirectoryError(
            f"there is no folder {repository}: expected a model repository"
        )
    folders = _find_model_folders(repository)
    if _is_model_folder(repository, folders):
        return [_explain_model_folder(repository)]
    known = {x.name: ModelFolder(x, server) for x in folders}
    names = list(known) if models is None else [x for x in models if x in known]
    for name in names:  # grows: the parts of ensembles are checked too
        for step in known[name].config.ensemble_scheduling.step:
            if step.model_name in known and step.model_name not in names:
                names.append(step.model_name)
    readable = [name for name in names if known[name].readable]
    for name in readable:
        _apply_rules(known[name])
        if known[name].is_ensemble:
            check_ensemble(known[name], known)
    check_circles({name: known[name] for name in readable})
    return [finding for name in sorted(names) for finding in known[name].findings]


def _find_model_folders(repository):
    """What Triton takes for models: every folder that it can enter, hidden ones too."""
    return sorted(
        x
        for x in repository.iterdir()
        if x.is_dir() and os.access(x, os.R_OK | os.X_OK)
    )


def _is_model_folder(repository, folders):
    """Whether this is a model in place of a repository."""
    has_version = any(re.fullmatch(r"\d+", x.name) for x in folders)
    return has_version and (repository / "config.pbtxt").exists()


def _explain_model_folder(repository):
    parent = os.path.relpath(repository.resolve().parent)
    return Finding(
        severity=ERROR,
        model=repository.name,
        file="config.pbtxt",
        line=None,
        field="",
        found="a model's folder",
        expected="the repository, a folder of models",
        fix=f"Name the folder above it instead: {parent}",
        link=complete_link("model_repository.html#repository-layout"),
    )


def _apply_rules(model):
    """Apply each rule; a file that a rule cannot read is a finding as well."""
    repository = model.folder.parent
    for rule in RULES:
        try:
            rule(model)
        except OSError as error:
            model.add_error(
                found=(error.strerror or str(error)).lower(),
                expected="a file that the server's user can read",
                fix="Change its permissions",
                link="model_repository.html",
                file=os.path.relpath(error.filename or model.folder, repository),
            )
