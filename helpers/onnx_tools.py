"""Describe an ONNX file, and draw it."""

import logging
from math import prod
from pathlib import Path

import netron
import onnx
import pandas as pd
from IPython.display import HTML
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


def show_graph(file, height=450):
    """Netron's drawing of a model, in a frame that opens on a click.

    Not before: Netron takes the keyboard, and the next Shift+Enter would consent to its
    usage reports. It serves the file on a free port of 127.0.0.1 until the process ends
    or the next call.

    Args:
        file: path of an ONNX file.
        height: of the frame, in pixels.

    Returns:
        An ``IPython.display.HTML``.

    Raises:
        FileNotFoundError: there is no such file.
    """
    logging.basicConfig(level=logging.WARNING)  # otherwise Netron prints all of INFO
    netron.stop()
    host, port = netron.start(str(file), ("127.0.0.1", 0), browse=False)
    frame = f'src="http://{host}:{port}" width="100%" height="{height}" loading="lazy"'
    return HTML(
        f"<details><summary>Open Netron</summary><iframe {frame}></iframe></details>"
    )
