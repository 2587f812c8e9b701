"""Hands a graph from one process to another: JSON, and the bytes of its arrays."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mlferry.converters.graph import Attribute, Attributes, Graph, Node, Value
from mlferry.converters.tensorflow.evaluation import (
    Computable,
    LocalOperation,
    OperationDescription,
)
from mlferry.converters.tensorflow.subgraphs import Subgraph
from mlferry.numerics.shapes import Array

_PLAIN = bool | int | float | str | None
_Tagged = dict[str, dict[str, Any]]  # an attribute that JSON lacks, by its kind
Parts = list[memoryview]
# Makes the object that computes an operation of the other process.
Computing = Callable[[OperationDescription], Computable]


# ---- arrays ----------------------------------------------------------------------------


def array_to_json(array: Array, parts: Parts) -> dict[str, Any]:
    """Shape and type of an array; its bytes are added to `parts`, strings are in the JSON."""
    shape = list(array.shape)
    if array.dtype == object:
        items = (item if isinstance(item, bytes) else item.encode() for item in array.ravel())
        texts = [base64.b64encode(item).decode() for item in items]
        return {"texts": texts, "shape": shape}
    flat = np.ascontiguousarray(array).reshape(-1)
    parts.append(flat.view(np.uint8).data)
    kind: Any = array.dtype.name
    if array.dtype.fields is not None:  # a quantized type of TensorFlow
        kind = [list(field) for field in array.dtype.descr]
    return {"part": len(parts) - 1, "dtype": kind, "shape": shape}


def array_from_json(fields: Mapping[str, Any], parts: Sequence[bytes]) -> Array:
    """The inverse of `array_to_json`."""
    shape = tuple(fields["shape"])
    if "texts" in fields:
        result = np.empty(math.prod(shape), object)
        result[:] = [base64.b64decode(text) for text in fields["texts"]]
        return result.reshape(shape)
    return np.frombuffer(parts[fields["part"]], _dtype(fields["dtype"])).reshape(shape)


def _dtype(kind: str | list[list[str]]) -> np.dtype[Any]:
    if isinstance(kind, list):
        return np.dtype([(name, code) for name, code in kind])
    if kind not in np.sctypeDict:
        import ml_dtypes  # for bfloat16 and others; comes with TensorFlow

        kind = getattr(ml_dtypes, kind)
    return np.dtype(kind)


# ---- graphs ----------------------------------------------------------------------------


def graph_to_json(graph: Graph, parts: Parts) -> dict[str, Any]:
    """A graph from `read`; the bytes of its arrays are added to `parts`."""
    return {
        "version": graph.version,
        "release": graph.release,
        "inputs": [_value_to_json(v) for v in graph.inputs],
        "outputs": [[name, _value_to_json(v)] for name, v in graph.outputs],
        "nodes": [_node_to_json(node, parts) for node in graph.nodes],
        "constants": _constants_to_json(graph.constants, parts),
        "functions": {n: _body_to_json(f, parts) for (_, n), f in graph.functions.items()},
    }


def graph_from_json(
    fields: Mapping[str, Any], parts: Sequence[bytes], source: str, computing: Computing
) -> Graph:
    """The inverse of `graph_to_json`.

    Args:
        source: the path of the file.
        computing: for the nodes that can be computed if their operands are known.
    """
    reader = _Reader(parts, computing)
    return Graph(
        source=source,
        framework="TensorFlow",
        version=fields["version"],
        inputs=[_value_from_json(v) for v in fields["inputs"]],
        outputs=[(name, _value_from_json(v)) for name, v in fields["outputs"]],
        nodes=[reader.node(node) for node in fields["nodes"]],
        release=fields["release"],
        is_file=True,
        constants=reader.constants(fields["constants"]),
        functions={("", n): reader.body(f) for n, f in fields["functions"].items()},
    )


def _value_to_json(value: Value) -> list[Any]:
    return [value.name, None if value.shape is None else list(value.shape), value.dtype]


def _value_from_json(fields: Sequence[Any]) -> Value:
    name, shape, dtype = fields
    return Value(name, None if shape is None else tuple(shape), dtype)


def _constants_to_json(constants: Mapping[str, Array], parts: Parts) -> dict[str, Any]:
    return {name: array_to_json(array, parts) for name, array in constants.items()}


def _body_to_json(body: Subgraph, parts: Parts) -> dict[str, Any]:
    return {
        "inputs": [_value_to_json(v) for v in body.inputs],
        "outputs": [_value_to_json(v) for v in body.outputs],
        "nodes": [_node_to_json(node, parts) for node in body.nodes],
        "constants": _constants_to_json(body.constants, parts),
    }


def _node_to_json(node: Node, parts: Parts) -> dict[str, Any]:
    computed = node.proto.description() if isinstance(node.proto, LocalOperation) else None
    return {
        "op": node.op,
        "name": node.name,
        "inputs": [_value_to_json(v) for v in node.inputs],
        "outputs": [_value_to_json(v) for v in node.outputs],
        "attrs": {k: _option_to_json(v, parts) for k, v in node.attrs.as_dict().items()},
        "keys": list(node.keys),
        "computed": None if computed is None else computed.as_json(),
    }


def _option_to_json(option: object, parts: Parts) -> Any:
    """An attribute: numbers, strings and lists as they are, anything else as an object with a key.

    Raises:
        TypeError: it is not a type of attributes.
    """
    if isinstance(option, _PLAIN):
        return option
    if isinstance(option, list | tuple):
        return [_option_to_json(item, parts) for item in option]
    if isinstance(option, np.ndarray):
        return {"array": array_to_json(option, parts)}
    if isinstance(option, Subgraph):
        return {"body": _body_to_json(option, parts)}
    raise TypeError(f"an attribute is a {type(option).__name__}")


class _Reader:
    """Reads nodes back.

    Args:
        parts: the bytes of arrays.
        computing: see `graph_from_json`.
    """

    def __init__(self, parts: Sequence[bytes], computing: Computing) -> None:
        self._parts, self._computing = parts, computing

    def constants(self, fields: Mapping[str, Any]) -> dict[str, Array]:
        return {name: array_from_json(item, self._parts) for name, item in fields.items()}

    def body(self, fields: Mapping[str, Any]) -> Subgraph:
        return Subgraph(
            inputs=tuple(_value_from_json(v) for v in fields["inputs"]),
            outputs=tuple(_value_from_json(v) for v in fields["outputs"]),
            nodes=tuple(self.node(node) for node in fields["nodes"]),
            constants=self.constants(fields["constants"]),
        )

    def node(self, fields: Mapping[str, Any]) -> Node:
        described = fields["computed"]
        operation = None
        if described is not None:
            operation = self._computing(OperationDescription.from_json(described))
        return Node(
            op=fields["op"],
            name=fields["name"],
            inputs=tuple(_value_from_json(v) for v in fields["inputs"]),
            outputs=tuple(_value_from_json(v) for v in fields["outputs"]),
            attrs=Attributes({k: self._option(v) for k, v in fields["attrs"].items()}),
            keys=tuple(fields["keys"]),
            proto=operation,
        )

    def _option(self, option: Attribute | _Tagged) -> Any:
        if isinstance(option, list):
            return [self._option(item) for item in option]
        if not isinstance(option, dict):
            return option
        if "array" in option:
            return array_from_json(option["array"], self._parts)
        return self.body(option["body"])
