"""Describe an ONNX file."""

from collections import Counter
from math import prod
from pathlib import Path

import onnx
import pandas as pd
from onnx.helper import tensor_dtype_to_string


def _tensor(value):
    tensor = value.type.tensor_type
    dims = [d.dim_param or d.dim_value for d in tensor.shape.dim]
    kind = tensor_dtype_to_string(tensor.elem_type).removeprefix("TensorProto.")
    return f"{value.name}: {kind} [{', '.join(map(str, dims))}]"


def describe(*files):
    """What ONNX files hold, side by side.

    Args:
        files: paths of ONNX files.

    Returns:
        A DataFrame with a column a file: inputs, outputs, opset, IR version, nodes,
        parameters, and bytes on disk (in MB of 10^6).

    Raises:
        FileNotFoundError: there is no such file.
    """
    columns = {}
    for file in map(Path, files):
        model = onnx.load(file)
        graph = model.graph
        columns[file.name] = {
            "inputs": ", ".join(map(_tensor, graph.input)),
            "outputs": ", ".join(map(_tensor, graph.output)),
            "opset": ", ".join(
                f"{x.domain or 'ai.onnx'} {x.version}" for x in model.opset_import
            ),
            "IR version": model.ir_version,
            "nodes": len(graph.node),
            "parameters": f"{sum(prod(w.dims) for w in graph.initializer):,}",
            "size": f"{file.stat().st_size / 1e6:.1f} MB",
        }
    return pd.DataFrame(columns)


def count_operators(file):
    """How often each operator occurs in an ONNX file, most frequent first.

    Raises:
        FileNotFoundError: there is no such file.
    """
    nodes = onnx.load(file, load_external_data=False).graph.node
    return dict(Counter(node.op_type for node in nodes).most_common())
