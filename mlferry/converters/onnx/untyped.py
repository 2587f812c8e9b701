"""Attributes without a type, and models without an opset: files of IR version 1 and 2.

The field `type` of an attribute came with IR version 2, `opset_import` with 3. The type of an
attribute then follows from the field that it holds, or from the op if it holds none (a zero, or an
empty list, that the writer omitted).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from mlferry.errors import ModelFileError

if TYPE_CHECKING:
    import onnx

_OPSETS_SINCE = 3  # IR version


def complete(model: onnx.ModelProto, source: str) -> None:
    """Give every attribute its type, and the model its opset.

    Args:
        model: a `ModelProto`; is changed.

    Raises:
        ModelFileError: an attribute holds several values, or nothing gives its type; or a model of
            IR version 3 or newer has no opset.
    """
    import onnx

    if not model.opset_import:
        if model.ir_version >= _OPSETS_SINCE:
            raise ModelFileError(
                f"{source} has IR version {model.ir_version} and no opset, without which "
                "its ops have no meaning: export it again"
            )
        model.opset_import.append(onnx.helper.make_opsetid("", 1))
    versions = {opset.domain: opset.version for opset in model.opset_import}
    fields = _fields()
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    for node in (node for nodes in bodies for node in _nodes(nodes)):
        for attribute in node.attribute:
            if not attribute.type and not attribute.ref_attr_name:
                attribute.type = _type(attribute, node, versions, fields, source)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[Any]:
    """The nodes, and those of the graphs in their attributes."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def _fields() -> dict[str, int]:
    """The types by the fields that hold their values."""
    import onnx

    kinds = onnx.AttributeProto
    return {
        "f": kinds.FLOAT,
        "i": kinds.INT,
        "s": kinds.STRING,
        "t": kinds.TENSOR,
        "g": kinds.GRAPH,
        "floats": kinds.FLOATS,
        "ints": kinds.INTS,
        "strings": kinds.STRINGS,
        "tensors": kinds.TENSORS,
        "graphs": kinds.GRAPHS,
    }


def _type(
    attribute: onnx.AttributeProto,
    node: onnx.NodeProto,
    versions: dict[str, int],
    fields: dict[str, int],
    source: str,
) -> int:
    kinds = [kind for field, kind in fields.items() if _holds(attribute, field)]
    if len(kinds) == 1:
        return kinds[0]
    where = f"{source}: attribute {attribute.name!r} of {node.op_type} {node.name!r}"
    if kinds:
        raise ModelFileError(f"{where} holds values of {len(kinds)} types")
    known = _type_of_op(attribute.name, node, versions)
    if known is None:
        raise ModelFileError(f"{where} holds no value, and has no type")
    return known


def _holds(attribute: onnx.AttributeProto, field: str) -> bool:
    if field.endswith("s") and len(field) > 1:
        return len(getattr(attribute, field)) > 0
    return bool(attribute.HasField(field))


def _type_of_op(name: str, node: onnx.NodeProto, versions: dict[str, int]) -> int | None:
    """The definition of an attribute by its op."""
    import onnx

    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        schema = onnx.defs.get_schema(node.op_type, versions.get(domain, 1), domain)
    except onnx.defs.SchemaError:
        return None
    match = schema.attributes.get(name)
    if match is None:
        return None
    return onnx.AttributeProto.AttributeType.Value(str(match.type).rsplit(".", maxsplit=1)[-1])
