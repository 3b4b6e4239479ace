"""Rules about the folder: its name, its versions and the backend they are for."""

from urllib.parse import quote

from .findings import join_items
from .model_folder import BACKEND_OF_FILE, PLATFORMS, VERSION

NAME_AND_BACKEND = "model_configuration.html#name-platform-and-backend"
VERSIONS = "model_repository.html#model-versions"
VERSION_POLICY = "model_configuration.html#version-policy"


def check_names(model):
    if model.config.name not in ("", model.name):
        model.add_error(
            "name",
            found=f'"{model.config.name}"',
            expected=f'"{model.name}", the name of the folder',
            fix="Rename one of the two, or leave the field out",
            link=NAME_AND_BACKEND,
        )
    if quote(model.name) != model.name:
        model.add_warning(
            found=f"the folder name {model.name!r}",
            expected="letters, digits, '_', '-' and '.' only",
            fix="Rename the folder: over HTTP this model cannot be loaded or asked",
            link="model_repository.html#repository-layout",
            file=model.name,
        )


def check_versions(model):
    if not model.versions:
        content = ", empty for an ensemble" if model.is_ensemble else " for the file"
        is_hidden = model.name.startswith(".")  # .git, .ipynb_checkpoints
        model.add_error(
            found="no folder for a version",
            expected=f"{model.name}/1/",
            fix="Move it out of the repository: Triton takes each folder for a model"
            if is_hidden
            else f"Make a folder named 1{content}",
            link=VERSIONS,
            file=model.name,
        )
    elif not model.served_versions:
        versions = join_items(model.versions)
        model.add_error(
            "version_policy",
            found=f"a policy that chooses none of the versions {versions}",
            expected="at least one version that is there",
            fix="Name a version that is there, or leave the field out for the newest",
            link=VERSION_POLICY,
        )
    wanted = {*model.config.version_policy.specific.versions}
    absent = sorted(wanted - {*model.versions})
    if model.served_versions and absent:
        model.add_warning(
            "version_policy",
            found=f"the versions {join_items(absent)}, which are not there",
            expected=f"some of {join_items(model.versions)}",
            fix="Remove them, or add their folders",
            link=VERSION_POLICY,
        )
    for folder in model.folder.iterdir():
        is_version = VERSION.fullmatch(folder.name)
        if folder.is_dir() and not is_version and any(folder.glob("model.*")):
            model.add_warning(
                found=f"a model file in {folder.name}/",
                expected="a folder named by a whole number without leading zeros",
                fix="Triton ignores this folder: rename or remove it",
                link=VERSIONS,
                file=f"{model.name}/{folder.name}",
            )


def check_backend(model):
    config, known = model.config, model.server.backends
    platform, backend = config.platform, config.backend
    if model.is_ensemble:
        return
    if meant := PLATFORMS.get(backend):
        model.add_error(
            "backend",
            found=f'"{backend}", which is a platform',
            expected=f'"{meant}"',
            fix=f'Write backend: "{meant}"',
            link=NAME_AND_BACKEND,
        )
    elif (
        platform not in ("", *PLATFORMS)
        and not backend
        and not config.default_model_filename
    ):
        _report_platform(model, platform)
    elif (
        platform
        and backend
        and backend in PLATFORMS.values()
        and PLATFORMS.get(platform) != backend
    ):
        model.add_error(
            "platform",
            found=f'"{platform}" with backend "{backend}"',
            expected="a platform and a backend that belong together",
            fix="Leave platform out",
            link=NAME_AND_BACKEND,
        )
    elif not model.backend and model.served_versions:
        model.add_error(
            found="no backend, and no file that tells",
            expected=f"a backend, or a file named {join_items(BACKEND_OF_FILE)}",
            fix='Write backend: "..." into config.pbtxt',
            link=NAME_AND_BACKEND,
            file=f"{model.name}/config.pbtxt" if model.has_config else model.name,
        )
    elif known is not None and model.backend and model.backend not in known:
        model.add_error(
            "backend",
            found=f'"{model.backend}"',
            expected=f"one of this server's: {join_items(sorted(known))}",
            fix="Correct the name, or use a server that has this backend",
            link=NAME_AND_BACKEND,
        )


def _report_platform(model, platform):
    """Add the error for a platform that is none; it may be a backend's name."""
    meant = {backend: name for name, backend in PLATFORMS.items()}.get(platform)
    if meant:
        found, expected = f'"{platform}", which is a backend', f'"{meant}"'
        fix = f'Write backend: "{platform}" instead'
    else:
        found, expected = f'"{platform}"', f"one of {join_items(PLATFORMS)}"
        fix = "Use backend"
    model.add_error(
        "platform", found=found, expected=expected, fix=fix, link=NAME_AND_BACKEND
    )
