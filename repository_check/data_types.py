"""Triton's data types, and the tensors of an ONNX file in them."""

from onnx import TensorProto
from tritonclient.grpc import model_config_pb2 as schema

FROM_ONNX = {
    TensorProto.BOOL: "TYPE_BOOL",
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.UINT16: "TYPE_UINT16",
    TensorProto.UINT32: "TYPE_UINT32",
    TensorProto.UINT64: "TYPE_UINT64",
    TensorProto.INT8: "TYPE_INT8",
    TensorProto.INT16: "TYPE_INT16",
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.BFLOAT16: "TYPE_BF16",
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.DOUBLE: "TYPE_FP64",
    TensorProto.STRING: "TYPE_STRING",
}
BYTES_PER_ELEMENT = {
    **dict.fromkeys(("TYPE_BOOL", "TYPE_UINT8", "TYPE_INT8"), 1),
    **dict.fromkeys(("TYPE_UINT16", "TYPE_INT16", "TYPE_FP16", "TYPE_BF16"), 2),
    **dict.fromkeys(("TYPE_UINT32", "TYPE_INT32", "TYPE_FP32"), 4),
    **dict.fromkeys(("TYPE_UINT64", "TYPE_INT64", "TYPE_FP64"), 8),
}


def name_data_type(number):
    """``TYPE_FP32`` for 11, say; a number that Triton lacks gets a name too."""
    known = schema.DataType.values()
    return schema.DataType.Name(number) if number in known else f"type {number}"


def read_onnx_tensors(model, kind):
    """Inputs or outputs of an ONNX model, without those that are stored in it.

    Args:
        model: an ``onnx.ModelProto``.
        kind: ``input`` or ``output``.

    Returns:
        A dict of name and (data type, shape). A free size is -1. The type is None
        for what is no tensor, such as a map; the shape where the file has none.
    """
    stored = {x.name for x in model.graph.initializer}
    return {
        x.name: (
            FROM_ONNX.get(x.type.tensor_type.elem_type, "a type that Triton lacks")
            if x.type.HasField("tensor_type")
            else None,
            [
                size.dim_value if size.HasField("dim_value") else -1
                for size in x.type.tensor_type.shape.dim
            ]
            if x.type.tensor_type.HasField("shape")
            else None,
        )
        for x in getattr(model.graph, kind)
        if x.name not in stored
    }
