"""Matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.layout import SOURCE, Blob, Constant
from mlferry.converters.lower import Lowering
from mlferry.converters.onnx.ops.quantization import weights_of
from mlferry.converters.onnx.ops.registry import affine, emit, known, op, rank, scalar, shaped
from mlferry.errors import ConversionError


@op("MatMul", raw=True)
def matmul(low: Lowering, node: Node, left: Any, right: Any) -> Blob:
    """By a constant matrix: an inner product; otherwise Core ML's batched one."""
    fixed = isinstance(right, Constant) and right.array.ndim == 2
    if fixed and isinstance(left, Blob) and left.rank in (2, 3):
        matrix = right.array.astype(np.float32)
        return _inner(low, left, matrix, None, weights_of(right, matrix.T, 0, turned=True))
    left = low.stored(left) if isinstance(left, Constant) else left
    right = low.stored(right) if isinstance(right, Constant) else right
    first = low.expand(left, 0) if left.rank == 1 else left
    second = low.expand(right, -1) if right.rank == 1 else right
    made = low.layer("batchedMatmul", first, second, layout=SOURCE)
    shape = known(made)
    if left.rank == 1:
        shape = (*shape[:-2], shape[-1])
    if right.rank == 1:
        shape = shape[:-1]
    return shaped(low, made, shape)


def _inner(low: Lowering, x: Blob, matrix: Any, bias: Any, stored: Any = None) -> Blob:
    """x @ matrix + bias; `stored` is the transposed matrix as it shall be kept."""
    kept = np.ascontiguousarray(matrix.T) if stored is None else stored
    extra = {} if bias is None else {"hasBias": True, "bias": bias}
    return low.layer(
        "innerProduct", x, layout=SOURCE, inputChannels=matrix.shape[0],
        outputChannels=matrix.shape[1], weights=kept, **extra,
    )  # fmt: skip


@op("Gemm", raw=True)
def gemm(low: Lowering, node: Node, a: Any, b: Any, c: Any = None) -> Blob:
    """alpha * A' * B' + beta * C"""
    alpha, beta = node.attrs.get("alpha", 1.0), node.attrs.get("beta", 1.0)
    turn_a, turn_b = node.attrs.get("transA", 0), node.attrs.get("transB", 0)
    node.attrs.get("broadcast")
    left = low.stored(a) if isinstance(a, Constant) else a
    if isinstance(b, Constant) and not turn_a:
        matrix = b.array.astype(np.float32)
        matrix = np.float32(alpha) * (matrix.T if turn_b else matrix)
        stored = weights_of(b, matrix.T, 0, turned=not turn_b, factor=alpha)
        if c is None:
            return _inner(low, left, matrix, None, stored)
        if (
            isinstance(c, Constant)
            and c.array.size in (1, matrix.shape[1])
            and (c.array.ndim < 2 or c.array.shape[0] == 1)
        ):
            bias = np.broadcast_to(np.float32(beta) * c.array.ravel(), (matrix.shape[1],))
            return _inner(low, left, matrix, bias.astype(np.float32), stored)
        product = _inner(low, left, matrix, None, stored)
    else:
        right = low.stored(b) if isinstance(b, Constant) else b
        product = low.layer("batchedMatmul", left, right, layout=SOURCE,
                            transposeA=bool(turn_a), transposeB=bool(turn_b))  # fmt: skip
        product = product if alpha == 1 else affine(low, product, alpha)
    if c is None:
        return product
    extra = low.stored(c) if isinstance(c, Constant) else c
    extra = extra if beta == 1 else affine(low, extra, beta)
    return emit(low, "addBroadcastable", product, extra)


@op("Einsum")
def einsum(low: Lowering, node: Node, *inputs: Blob) -> Blob:
    """One or two operands without an ellipsis: a sum, a transpose, a matrix product."""
    equation = node.attrs["equation"].replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if "." in equation or len(terms) != len(inputs) or len(terms) > 2:
        raise ConversionError(f"equation {equation!r}: one or two operands without '...'")
    if any(len(set(term)) < len(term) for term in terms):
        raise ConversionError(f"equation {equation!r}: a letter twice in one operand")
    letters = sorted(set("".join(terms)))
    wanted = right if arrow else "".join(c for c in letters if "".join(terms).count(c) == 1)
    reduced = [_summed(low, x, term, "".join(terms[:i] + terms[i + 1 :]) + wanted)
               for i, (x, term) in enumerate(zip(inputs, terms, strict=True))]  # fmt: skip
    if len(reduced) == 1:
        return _permuted(low, *reduced[0], wanted)
    return _product(low, reduced[0], reduced[1], wanted)


def _summed(low: Lowering, x: Blob, term: str, others: str) -> tuple[Blob, str]:
    """Letters that appear nowhere else are summed away."""
    gone = [i for i, letter in enumerate(term) if letter not in others]
    if not gone:
        return x, term
    made = low.layer("reduceSum", x, layout=SOURCE, axes=gone, keepDims=False)
    rest = "".join(letter for letter in term if letter in others)
    return (made if rest else scalar(made)), rest


def _permuted(low: Lowering, x: Blob, term: str, wanted: str) -> Blob:
    if term == wanted:
        return x
    return low.layer("transpose", x, layout=SOURCE, axes=[term.index(c) for c in wanted])


def _product(low: Lowering, a: tuple[Blob, str], b: tuple[Blob, str], wanted: str) -> Blob:
    """As [batch, rows, inner] times [batch, inner, columns]."""
    (x, left), (y, right) = a, b
    sizes = dict(zip(left + right, (*known(x), *known(y)), strict=True))
    batch = [c for c in left if c in right and c in wanted]
    inner = [c for c in left if c in right and c not in wanted]
    rows = [c for c in left if c not in right]
    columns = [c for c in right if c not in left]

    def extent(group: list[str]) -> int:
        return int(np.prod([sizes[c] for c in group], dtype=np.int64))

    def matrix(blob: Blob, term: str, first: list[str], second: list[str]) -> Blob:
        order = "".join([*batch, *first, *second])
        turned = _permuted(low, blob, term, order) if rank(blob) else blob
        return shaped(low, turned, (extent(batch), extent(first), extent(second)))

    made = low.layer(
        "batchedMatmul", matrix(x, left, rows, inner), matrix(y, right, inner, columns),
        layout=SOURCE,
    )  # fmt: skip
    term = "".join([*batch, *rows, *columns])
    full = shaped(low, made, tuple(sizes[c] for c in term))
    return _permuted(low, full, term, wanted) if term else full
