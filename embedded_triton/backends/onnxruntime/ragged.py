"""Tensors of a batch whose requests differ in size. Lies beside the backend.

What each kind means:
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/ragged_batching.md
"""

import numpy as np


def make_batch_input(entry, feeds):
    """The values of a ``batch_input``.

    Args:
        entry: of the config, a dict.
        feeds: the arrays of each request by name, the batch as the first axis.

    Returns:
        Array of FP32 or INT32.
    """
    arrays = [feed[entry["source_input"][0]] for feed in feeds]
    counts = [array.size for array in arrays]
    kind = entry["kind"]
    if kind == "BATCH_ELEMENT_COUNT":
        values = counts
    elif kind == "BATCH_ACCUMULATED_ELEMENT_COUNT":
        values = np.cumsum(counts)
    elif kind == "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO":
        values = [0, *np.cumsum(counts)]
    elif kind == "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE":
        values = np.zeros(max(counts))  # its size is what counts
    else:  # BATCH_ITEM_SHAPE, BATCH_ITEM_SHAPE_FLATTEN
        values = [array.shape[1:] for array in arrays for _ in range(len(array))]
        values = np.ravel(values) if kind.endswith("FLATTEN") else values
    return np.asarray(values, "f4" if entry["data_type"] == "TYPE_FP32" else "i4")


def scatter_batch_output(value, dims, arrays):
    """Each request's part of a ``batch_output``, which holds them end to end.

    Args:
        value: the output, of one axis.
        dims: its dims in the config, the batch as the first; -1 is as in the input.
        arrays: the source input of each request.

    Returns:
        List of arrays.
    """
    shapes = [
        [size if dim == -1 else dim for dim, size in zip(dims, array.shape)]
        for array in arrays
    ]
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])
    return [
        value.ravel()[begin:end].reshape(shape)
        for begin, end, shape in zip([0, *ends], ends, shapes)
    ]
