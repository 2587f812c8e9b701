"""Matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.converters import einsums
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.quantization import weights_of
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import affine, emit, known, shaped
from mlferry.converters.values import SOURCE, Blob, Constant


@op("MatMul", raw=True)
def matmul(context: Lowering, node: Node, left: Any, right: Any) -> Blob:
    """By a constant matrix: an inner product; otherwise Core ML's batched one."""
    fixed = isinstance(right, Constant) and right.array.ndim == 2
    if fixed and isinstance(left, Blob) and left.rank in (2, 3):
        matrix = right.array.astype(np.float32)
        return _inner(context, left, matrix, None, weights_of(right, matrix.T, 0, turned=True))
    left = context.stored(left) if isinstance(left, Constant) else left
    right = context.stored(right) if isinstance(right, Constant) else right
    first = context.expand(left, 0) if left.rank == 1 else left
    second = context.expand(right, -1) if right.rank == 1 else right
    made = context.layer("batchedMatmul", first, second, layout=SOURCE)
    shape = known(made)
    if left.rank == 1:
        shape = (*shape[:-2], shape[-1])
    if right.rank == 1:
        shape = shape[:-1]
    return shaped(context, made, shape)


def _inner(context: Lowering, x: Blob, matrix: Any, bias: Any, stored: Any = None) -> Blob:
    """x @ matrix + bias; `stored` is the transposed matrix as it shall be kept."""
    kept = np.ascontiguousarray(matrix.T) if stored is None else stored
    extra = {} if bias is None else {"hasBias": True, "bias": bias}
    return context.layer(
        "innerProduct",
        x,
        layout=SOURCE,
        inputChannels=matrix.shape[0],
        outputChannels=matrix.shape[1],
        weights=kept,
        **extra,
    )


@op("Gemm", raw=True)
def gemm(context: Lowering, node: Node, a: Any, b: Any, c: Any = None) -> Blob:
    """alpha * A' * B' + beta * C"""
    alpha, beta = node.attrs.get("alpha", 1.0), node.attrs.get("beta", 1.0)
    turn_a, turn_b = node.attrs.get("transA", 0), node.attrs.get("transB", 0)
    node.attrs.get("broadcast")
    left = context.stored(a) if isinstance(a, Constant) else a
    if isinstance(b, Constant) and not turn_a:
        matrix = b.array.astype(np.float32)
        matrix = np.float32(alpha) * (matrix.T if turn_b else matrix)
        stored = weights_of(b, matrix.T, 0, turned=not turn_b, factor=alpha)
        if c is None:
            return _inner(context, left, matrix, None, stored)
        if (
            isinstance(c, Constant)
            and c.array.size in (1, matrix.shape[1])
            and (c.array.ndim < 2 or c.array.shape[0] == 1)
        ):
            bias = np.broadcast_to(np.float32(beta) * c.array.ravel(), (matrix.shape[1],))
            return _inner(context, left, matrix, bias.astype(np.float32), stored)
        product = _inner(context, left, matrix, None, stored)
    else:
        right = context.stored(b) if isinstance(b, Constant) else b
        product = context.layer(
            "batchedMatmul",
            left,
            right,
            layout=SOURCE,
            transposeA=bool(turn_a),
            transposeB=bool(turn_b),
        )
        product = product if alpha == 1 else affine(context, product, alpha)
    if c is None:
        return product
    extra = context.stored(c) if isinstance(c, Constant) else c
    extra = extra if beta == 1 else affine(context, extra, beta)
    return emit(context, "addBroadcastable", product, extra)


@op("Einsum")
def einsum(context: Lowering, node: Node, *inputs: Blob) -> Blob:
    return einsums.einsum(context, node.attrs["equation"], inputs)
