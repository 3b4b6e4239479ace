"""Read the weights that people have, whatever their training put around them."""

import sys
import zipfile

# torch takes seconds to import: the functions that need it do it

WRAPPERS = "state_dict", "model_state_dict", "model"
PREFIXES = "module.", "_orig_mod.", "model."  # DataParallel, torch.compile, Lightning
SAVE = "save it again with torch.save(network.state_dict(), path)"


def _load(path):
    """What a file of ``torch.save`` holds; code that it brings along is not run."""
    import torch

    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path} is a Git LFS pointer: fetch the file with git lfs pull"
        )
    if path.suffix == ".safetensors":
        raise ValueError(
            f"{path} is a safetensors file: open it with safetensors.torch.load_file, "
            f"and {SAVE}"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, of a file that is anything
        reason = str(error)
    if "TorchScript" in reason:
        raise ValueError(
            f"{path} is a TorchScript archive: open it with torch.jit.load, and {SAVE}"
        )
    if zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} holds more than tensors, such as a whole network. Loading it can "
            f"run code and is not done here: open it where you trust it, and {SAVE}"
        )
    raise ValueError(
        f"{path} is no file of torch.save, or a part of one: {path.stat().st_size:,} "
        f"bytes that begin with {head[:12]!r}"
    )


def _unwrap(state):
    """Take off what training loops put around a state_dict and before its names.

    Returns:
        The state_dict, and a list of what was taken off, in words.
    """
    removed = []
    while isinstance(state, dict) and (key := next(filter(state.get, WRAPPERS), None)):
        state = state[key]
        removed.append(f"what is around {key!r}")
    if isinstance(state, dict):
        names = [str(name) for name in state]
        while names and (
            prefix := next(
                (x for x in PREFIXES if all(name.startswith(x) for name in names)), None
            )
        ):
            names = [name.removeprefix(prefix) for name in names]
            removed.append(f"the prefix {prefix!r}")
        state = dict(zip(names, state.values()))
    return state, removed


def _check(path, state, expected):
    """Compare names and shapes with those of the network.

    Raises:
        ValueError: they differ.
    """
    missing, unknown = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or unknown:
        examples = ", ".join([*sorted(missing)[:2], *sorted(unknown)[:2]])
        raise ValueError(
            f"{path} holds the weights of another network: {len(missing)} of the "
            f"{len(expected)} names are missing, {len(unknown)} are not known here "
            f"({examples})"
        )
    for name, own in expected.items():
        found, wanted = tuple(state[name].shape), tuple(own.shape)
        if found != wanted:
            cause = f"it has {found[0]:,} classes, " if name == "fc.weight" else ""
            raise ValueError(
                f"{path} holds {name} with the shape {found}; {cause}expected {wanted}"
            )


def read_state_dict(path, expected):
    """Read the weights of a network.

    What training loops put around them is taken off, and said in one line on stderr.

    Args:
        path: ``Path`` of a file of ``torch.save``.
        expected: the network's own ``state_dict()``.

    Returns:
        A dict with the names of ``expected``, for ``load_state_dict``, which converts
        the types.

    Raises:
        ValueError: the file holds something else; the message says what.
    """
    import torch

    state, removed = _unwrap(_load(path))
    if not (
        isinstance(state, dict)
        and state
        and all(isinstance(value, torch.Tensor) for value in state.values())
    ):
        raise ValueError(
            f"{path} holds a {type(state).__name__}, not tensors by their names: {SAVE}"
        )
    counters = {k: v for k, v in expected.items() if k.endswith("num_batches_tracked")}
    state = counters | state  # files from before PyTorch 0.4.1 lack them
    _check(path, state, expected)
    kinds = {str(x.dtype).removeprefix("torch.") for x in state.values()}
    if kinds := kinds - {"float32", "int64"}:
        removed.append(f"the type {', '.join(sorted(kinds))} (it becomes float32)")
    if removed:
        print(f"{path.name}: left out {', '.join(removed)}", file=sys.stderr)
    return state
