"""The element types that onnx does not infer: of onnxruntime's own ops, and after them.

The results of integer division, casts and rounding depend on them.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

_UINT8, _INT32 = 2, 6
_LIKE_THE_FIRST = (
    *("Attention", "BiasGelu", "FastGelu", "Gelu", "GroupQueryAttention", "MultiHeadAttention"),
    *("DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulNBits", "NhwcMaxPool", "QuickGelu"),
    *("FusedConv", "FusedGemm", "FusedMatMul", "RotaryEmbedding", "TransposeMatMul"),
    *("QLinearAdd", "QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearLeakyRelu"),
    *("QLinearMul", "QLinearSigmoid", "QLinearSoftmax"),
    *("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"),
)
# The operands whose type an output has: the first that exists.
RULES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(_LIKE_THE_FIRST, (0,)),
    **dict.fromkeys(("DequantizeLinear", "QLinearConcat", "QLinearWhere"), (1,)),
    **dict.fromkeys(("QuantizeLinear", "MatMulIntegerToFloat", "EmbedLayerNormalization"), (2,)),
    "QAttention": (3,),
    "QLinearConv": (7,),
    "QGemm": (8, 1),
    "QEmbedLayerNormalization": (8,),
}
_WITHOUT = {"QuantizeLinear": _UINT8}
# The same for single outputs.
_OF_OUTPUTS = {("GroupQueryAttention", 1): (3, 0), ("GroupQueryAttention", 2): (4, 0)}
_OTHERS = {("EmbedLayerNormalization", 1): _INT32, ("QEmbedLayerNormalization", 1): _INT32}
_RUNTIMES = "com.microsoft"


def complete(
    graph: onnx.GraphProto, types: MutableMapping[str, Any], opsets: Mapping[str, int]
) -> None:
    """Add types without shapes to those that are known.

    Args:
        graph: a `GraphProto`.
        types: `TypeProto`s by the names of values; is changed.
        opsets: versions by domain.
    """
    import onnx

    for node in graph.node:
        for place, name in enumerate(node.output):
            if not name or _element(types.get(name)):
                continue
            result = _of_output(node, place, types, opsets)
            if result:
                kind = onnx.TypeProto()
                kind.tensor_type.elem_type = result
                types[name] = kind
        for attribute in node.attribute:
            if attribute.HasField("g"):
                inside = {v.name: v.type for v in (*attribute.g.value_info, *attribute.g.input)}
                known = ChainMap(inside, types)
                complete(attribute.g, known, opsets)
                names = {v.name for v in attribute.g.value_info}
                for name in {n for item in attribute.g.node for n in item.output} - names:
                    if name in known:
                        attribute.g.value_info.add(name=name).type.CopyFrom(known[name])


def _element(kind: onnx.TypeProto | None) -> int:
    return kind.tensor_type.elem_type if kind is not None else 0


def _of_output(
    node: onnx.NodeProto, place: int, types: Mapping[str, Any], opsets: Mapping[str, int]
) -> int:
    if node.domain == _RUNTIMES:
        fixed = _OTHERS.get((node.op_type, place))
        places = _OF_OUTPUTS.get((node.op_type, place), RULES.get(node.op_type, ()))
        return fixed or _first(node, places, types) or _WITHOUT.get(node.op_type, 0)
    return _by_schema(node, place, types, opsets)


def _first(node: onnx.NodeProto, places: Sequence[int], types: Mapping[str, Any]) -> int:
    result = (_element(types.get(node.input[i])) for i in places if i < len(node.input))
    return next((kind for kind in result if kind), 0)


def _by_schema(
    node: onnx.NodeProto, place: int, types: Mapping[str, Any], opsets: Mapping[str, int]
) -> int:
    """From the definition of a standard op: a type of its own, or that of an operand."""
    import onnx

    for attribute in node.attribute:
        if attribute.name in ("to", "dtype", "output_dtype") and attribute.i:
            return int(attribute.i)
    domain = "" if node.domain == "ai.onnx" else node.domain
    if node.op_type == "SimplifiedLayerNormalization":
        return _first(node, (0,), types)
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, opsets.get(domain, 1), domain)
    except onnx.defs.SchemaError:
        return 0
    if not schema.outputs:
        return 0
    type_text = schema.outputs[min(place, len(schema.outputs) - 1)].type_str
    for constraint in schema.type_constraints:
        if constraint.type_param_str == type_text and len(constraint.allowed_type_strs) == 1:
            type_text = constraint.allowed_type_strs[0]
    if type_text.startswith("tensor("):
        name = {"float": "FLOAT", "double": "DOUBLE"}.get(type_text[7:-1], type_text[7:-1].upper())
        return int(onnx.TensorProto.DataType.Value(name))
    formal = schema.inputs
    same = [
        i
        for i in range(len(node.input))
        if formal and formal[min(i, len(formal) - 1)].type_str == type_text
    ]
    return _first(node, same, types)
