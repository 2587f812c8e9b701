"""The output types of ordinary ops after an `ai.onnx.ml` op, where ONNX's own inference stops."""

from __future__ import annotations

from collections.abc import Sequence

from mlferry.converters.graph import Node

_BOOL = (
    *("And", "Not", "Or", "Xor", "IsInf", "IsNaN"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
)
_INT64 = ("ArgMax", "ArgMin", "NonZero", "Shape", "Size")
_CASTS = {1: "float32", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}


def of_outputs(node: Node, inputs: Sequence[str]) -> list[str]:
    """The type of each output; "unknown" if only the op's own definition has it."""
    options = node.attrs.as_dict()
    if node.op in _BOOL:
        first = "bool"
    elif node.op in _INT64:
        first = "int64"
    elif node.op == "Cast":
        first = _CASTS.get(int(options.get("to", 0)), "unknown")
    elif node.op == "ConstantOfShape":
        value = options.get("value")
        first = "float32" if value is None else str(value.dtype)
    else:
        values = inputs[1:] if node.op == "Where" else inputs
        first = next((dtype for dtype in values if dtype != "unknown"), "unknown")
    rest = "int64" if node.op == "TopK" else first
    return [first, *[rest] * (len(node.outputs) - 1)]
