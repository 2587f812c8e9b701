"""Sequences of ordinary ops, as neural networks between the other models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mlferry.converters.graph import Graph, Node, Value
from mlferry.converters.interface import bind_inputs, finish
from mlferry.converters.lower import Choices, lower
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx import read
from mlferry.converters.onnx.ml.flow import Flow
from mlferry.converters.onnx.ml.values import Pending, Row, Sizes
from mlferry.converters.onnx.ops import FRONTEND
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Shape
from mlferry.spec import features
from mlferry.spec.proto import model_pb2


def materialized(flow: Flow, pending: Pending) -> Row:
    """Add the network that computes a value; its inputs and its output are flat rows."""
    nodes, leaves, others = _needed(flow, pending.name)
    rows = {name: flow.row(flow.values[name]) for name in leaves}
    inputs = {row.feature: Value(row.feature, (row.size,), row.dtype) for row in rows.values()}
    constants = dict(flow.constants)
    tensors = {name: flow.fresh(f"{name}_tensor") for name in rows}
    before = [
        _reshape(flow, row.feature, tensors[name], row.shape, row.dtype, constants)
        for name, row in rows.items()
    ]
    renamed = {
        name: Value(tensors[name], row.shape, "int64" if row.dtype == "int32" else "float32")
        for name, row in rows.items()
    }
    renamed |= {
        name: Value(real, None, flow.dtype_of(Value(real))) for name, real in others.items()
    }
    nodes = [_reading(node, renamed) for node in nodes]
    result = next(v for node in nodes for v in node.outputs if v.name == pending.name)
    output = flow.fresh(f"{pending.name}_flat")
    after = _reshape(flow, pending.name, output, (-1,), result.dtype, constants)
    value = Value(output, None, result.dtype)
    network = replace(
        flow.graph,
        inputs=list(inputs.values()),
        outputs=[(output, value)],
        nodes=[*before, *nodes, after],
        constants=constants,
    )
    spec, shape = lowered(network, flow, Value(pending.name))
    feature = spec.description.output[0].type.multiArrayType
    size = math.prod(feature.shape)
    if len(feature.shape) != 1 or size < 1:
        raise ConversionError(
            f"the number of values of {pending.name!r} is unknown: mlferry converts it if it "
            "follows from the inputs' shapes"
        )
    dtype = features.DTYPES[feature.dataType]
    flow.append(spec)
    if shape is None or None in shape or math.prod(n for n in shape if n is not None) != size:
        raise ConversionError(f"the shape of {pending.name!r} is not known")
    return Row(output, size, dtype, tuple(n for n in shape if n is not None))


def lowered(graph: Graph, flow: Flow, value: Value) -> tuple[model_pb2.Model, Shape | None]:
    """The neural network of a graph of ordinary ops, and the shape of one of its values."""
    keys = {key for node in graph.nodes for key in node.keys}
    functions = {key: f for key, f in flow.functions.items() if key in keys}

    def bind(lowering: Lowering) -> None:
        bind_inputs(lowering, None, takes_constants=True)

    lowering = lower(graph, FRONTEND, bind, Choices(functions))
    shape = lowering.blob(value).shape
    return finish(lowering, None, None), shape


def _needed(flow: Flow, name: str) -> tuple[list[Node], list[str], dict[str, str]]:
    """The pending nodes that a value needs, in order, and the values that other models compute.

    The third result maps values to the names of the pending ones that they are.
    """
    nodes: dict[str, Node] = {}
    leaves: dict[str, None] = {}
    others: dict[str, str] = {}
    stack: list[tuple[str, bool]] = [(name, False)]
    while stack:
        value, is_done = stack.pop()
        node = flow.pending.get(value)
        if node is None:
            known = flow.values.get(value)
            if isinstance(known, Pending):
                others[value] = known.name
                stack.append((known.name, False))
            elif value and value not in flow.constants:
                leaves[value] = None
        elif is_done:
            nodes.setdefault(_key(node), node)
        elif _key(node) not in nodes:
            reads = [v.name for v in node.inputs] + sorted(node.captures)
            stack.append((value, True))
            stack.extend((each, False) for each in reversed(reads))
    return list(nodes.values()), list(leaves), others


def _key(node: Node) -> str:
    """The identity of a node, as names may appear twice."""
    return next(value.name for value in node.outputs if value.name)


def _reading(node: Node, names: dict[str, Value]) -> Node:
    """The node with new names for its inputs."""
    inside = node.captures & set(names)
    if inside:
        raise ConversionError(
            f"branches or loops of {node} read {', '.join(sorted(inside))}, which another model "
            "makes; they are possible in a model without ai.onnx.ml ops"
        )
    return replace(node, inputs=tuple(names.get(v.name, v) for v in node.inputs))


def _reshape(
    flow: Flow,
    source: str,
    target: str,
    shape: Sequence[int],
    dtype: str,
    constants: dict[str, Any],
) -> Node:
    import onnx

    name = flow.fresh(f"{target}_shape")
    constants[name] = np.array(shape, np.int64)
    proto = onnx.helper.make_node("Reshape", [source, name], [target], name=target)
    node = read.node(proto, {}, flow.graph.source)
    known: Sizes | None = tuple(shape) if -1 not in shape else None
    return replace(node, outputs=(Value(target, known, dtype),))
