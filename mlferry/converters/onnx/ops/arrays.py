"""Ops that make values."""

from __future__ import annotations

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.extents import elements_of, refined
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import as_blob, known, vector
from mlferry.converters.values import Blob, Operand
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array


@op("EyeLike")
def eye_like(context: Lowering, node: Node, x: Blob) -> Blob:
    node.attrs.get("dtype")
    rows, columns = known(x)
    return context.constant(np.eye(rows, columns, node.attrs.get("k", 0)))


@op("ConstantOfShape", raw=True)
def constant_of_shape(context: Lowering, node: Node, shape: Operand) -> Blob:
    value = node.attrs.get("value")
    filler = 0.0 if value is None else float(value.ravel()[0])
    output = context.layer("fillDynamic", as_blob(context, shape), value=filler)
    elements = elements_of(context, shape)
    if elements is None:
        return output
    context.sizes.use(frozenset().union(*(e.made_of for e in elements)))
    return refined(context, output, [e.value for e in elements])


@op("Range")
def range_of(context: Lowering, node: Node, start: Blob, limit: Blob, delta: Blob) -> Blob:
    """Core ML takes the end first; only the run tells how many values there are."""
    return context.layer("rangeDynamic", vector(limit), vector(start), vector(delta))


@op("Constant", raw=True)
def constant(context: Lowering, node: Node) -> Array:
    """Constants are folded in ONNX's own types before; only what is no array arrives here."""
    raise ConversionError(f"a constant of {', '.join(node.attrs)}: only arrays can be converted")
