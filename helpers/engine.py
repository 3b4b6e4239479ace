"""Read what TensorRT says of engines. Taught in notebooks 03 and 04.

Nothing here imports TensorRT: it comes as an argument, from ``machine`` or from your
own ``import``, and may be 8.6, 10, 11 or TensorRT-RTX.
"""

import json
import re

from helpers import paths

_PRECISIONS = (  # how formats spell them, from the longest on
    ("BFLOAT16", "BF16"),
    ("BF16", "BF16"),
    ("FLOAT16", "FP16"),
    ("HALF", "FP16"),
    ("FP16", "FP16"),
    ("FP32", "FP32"),
    ("FLOAT", "FP32"),
    ("INT8", "INT8"),
    ("FP8", "FP8"),
    ("INT64", "INT64"),
    ("INT32", "INT32"),
    ("BOOL", "BOOL"),
)


def _precision(tensor):
    """FP32, FP16, INT8 ... of one tensor; "" where it is not said."""
    # 8.6 and 10: "Format/Datatype"; 11: "Datatype" (NVIDIA's tools: "DataType")
    for key in "Format/Datatype", "Datatype", "DataType", "Format":
        text = str(tensor.get(key, "")).upper()
        for spelling, precision in _PRECISIONS:
            if spelling in text:
                return precision
    return ""


def _shape(tensors):
    return " ".join("×".join(map(str, x.get("Dimensions", []))) for x in tensors)


def read_layers(text):
    """The layers of an engine, from what TensorRT's engine inspector wrote.

    Args:
        text: JSON of ``EngineInspector.get_engine_information``, at any profiling
            verbosity. That of TensorRT 8.6 was seen; 10 and 11 are read as they are
            documented, and tested on samples made by hand.

    Returns:
        A list with a dict for each layer: ``name``; ``kind``, such as Convolution;
        ``nodes``, how many nodes of the network went into it; ``precision`` of its
        first output; ``shape`` of its outputs; ``tactic``, the kernel. What the
        verbosity leaves out is "".

    Raises:
        ValueError: it is no inspector JSON, or it holds no layers.
    """
    try:
        # 8.6 and 10 leave control characters between the names in "Metadata"
        document = json.loads(text, strict=False)
    except (json.JSONDecodeError, TypeError):
        raise ValueError(
            f"expected the engine inspector's JSON, found {str(text)[:60]!r}"
        ) from None
    layers = document.get("Layers") if isinstance(document, dict) else None
    if not layers:
        raise ValueError(
            'the JSON has no "Layers": expected what get_engine_information('
            "LayerInformationFormat.JSON) returns for a whole engine"
        )
    return [_read_layer(layer) for layer in layers]


def _read_layer(layer):
    if isinstance(layer, str):  # ProfilingVerbosity.LAYER_NAMES_ONLY
        layer = {"Name": layer}
    name, outputs = layer.get("Name", ""), layer.get("Outputs", [])
    kind = layer.get("ParameterType") or layer.get("LayerType") or ""
    origin = re.findall(r"\[ONNX Layer: ([^\]]+)\]", layer.get("Metadata") or "")
    return {
        "name": name,
        "kind": kind,
        "nodes": len(set(origin)) or name.count(" + ") + 1,
        "precision": _precision(outputs[0]) if outputs else "",
        "shape": _shape(outputs),
        "tactic": layer.get("TacticName") or layer.get("TacticValue") or "",
    }


def read_network(network, trt):
    """The layers of a network as the ONNX parser made it, before any fusion.

    Args:
        network: an ``INetworkDefinition``.
        trt: the module ``tensorrt`` or ``tensorrt_rtx``.

    Returns:
        A list with a dict for each layer: ``name``, ``kind``, ``parameters`` (how many
        weights it holds), ``shape`` of its first output; -1 for a free dimension.
    """
    rows = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kind, parameters = layer.type.name.capitalize(), 0
        # get_layer gives the base class; the weights belong to the derived one
        if layer.type == trt.LayerType.CONVOLUTION:
            layer.__class__ = trt.IConvolutionLayer
            parameters = layer.kernel.size + layer.bias.size
        elif layer.type == trt.LayerType.CONSTANT:
            layer.__class__ = trt.IConstantLayer
            parameters = layer.weights.size
        shape = tuple(layer.get_output(0).shape) if layer.num_outputs else ()
        rows.append(
            {
                "name": layer.name,
                "kind": kind,
                "parameters": parameters,
                "shape": "×".join(map(str, shape)),
            }
        )
    return rows


def read_recording(name, folder=paths.RECORDINGS):
    """What ``tools/record_engines.py`` measured on a real GPU.

    Args:
        name: such as ``classifier_fp16``.
        folder: the recordings of one kind of GPU.

    Returns:
        The recording as a dict; its ``environment`` names GPU, driver and versions.
        That of an engine has ``layers``: what ``read_layers`` says of it, with the time
        of each layer in milliseconds as ``ms``.

    Raises:
        FileNotFoundError: there is no such recording; the message lists those there.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        known = sorted(file.stem for file in path.parent.glob("*.json"))
        raise FileNotFoundError(f"no recording {name!r}; there are {', '.join(known)}")
    recording = json.loads(path.read_text())
    if "inspector" in recording:
        times = recording["layer times ms at batch 64"]
        layers = read_layers(json.dumps(recording["inspector"]))
        recording["layers"] = [x | {"ms": times.get(x["name"], 0.0)} for x in layers]
    return recording
