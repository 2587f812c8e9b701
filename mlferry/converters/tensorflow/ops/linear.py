"""Matrix products."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np

from mlferry.converters import einsums
from mlferry.converters.graph import Node
from mlferry.converters.layout import arrange
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import inner_product
from mlferry.converters.tensorflow.ops.quantization import stored
from mlferry.converters.tensorflow.ops.registry import op, source
from mlferry.converters.values import SOURCE, Blob, Constant, Operand
from mlferry.converters.vectors import cross_product
from mlferry.numerics.shapes import Array


def _is_matrix(x: Operand) -> TypeGuard[Constant]:
    return isinstance(x, Constant) and x.array.ndim == 2


@op("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", raw=True)
def matmul(context: Lowering, node: Node, left: Operand, right: Operand) -> Blob:
    """An inner product for a constant matrix, otherwise Core ML's batched product."""
    complex_ = node.op != "MatMul"
    turn_left = node.attrs.get("adj_x" if complex_ else "transpose_a", False)
    turn_right = node.attrs.get("adj_y" if complex_ else "transpose_b", False)
    for name in ("grad_x", "grad_y", "grad_a", "grad_b"):
        node.attrs.get(name)
    single = not turn_left and not context.is_repeated
    if single and isinstance(left, Blob) and left.rank in (2, 3) and _is_matrix(right):
        return _inner(context, left, right, transposed=turn_right)
    return context.matmul(
        source(context, left),
        source(context, right),
        transpose_x=bool(turn_left),
        transpose_y=bool(turn_right),
    )


def _inner(context: Lowering, x: Blob, right: Constant, *, transposed: bool) -> Blob:
    """x @ matrix; a flattening of channels-first data permutes the rows of the matrix."""

    def rows(array: Array) -> Array:
        return array if transposed else array.T

    flat = x.layout.kind == "flat"
    blob = x if flat else arrange(context, x, SOURCE)
    matrix = rows(right.floats)
    remaining = None if flat else stored(right, rows, 0)
    if flat:
        inner = [n or 1 for n in x.layout.inner]
        order = np.moveaxis(np.arange(matrix.shape[1]).reshape(-1, inner[-1]), -1, 0).ravel()
        matrix = matrix[:, order]
        remaining = stored(right, lambda array: rows(array)[:, order], 0)
    return inner_product(context, blob, np.ascontiguousarray(matrix), stored=remaining)


@op("Einsum", raw=True)
def einsum(context: Lowering, node: Node, *operands: Operand) -> Blob:
    """A product of an image's channels with a matrix stays a convolution of single pixels."""
    node.attrs.get("N")
    return einsums.einsum(context, node.attrs["equation"], [source(context, x) for x in operands])


@op("Cross", raw=True)
def cross(context: Lowering, node: Node, left: Operand, right: Operand) -> Blob:
    """Takes vectors of three values."""
    return cross_product(context, source(context, left), source(context, right))
