"""Matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.converters import einsums
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.elementwise import activated
from mlferry.converters.onnx.ops.quantization import weights_of
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import affine, array_of, as_blob, shaped
from mlferry.converters.values import Blob, Constant, Operand, Quantized
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array
from mlferry.spec.weights import Linear


@op("MatMul", raw=True)
def matmul(context: Lowering, node: Node, left: Operand, right: Operand) -> Blob:
    """A layer with weights for a constant matrix, otherwise Core ML's batched product."""
    fixed = right if isinstance(right, Constant) and right.array.ndim == 2 else None
    if fixed is not None and isinstance(left, Blob) and left.rank > 0:
        matrix = fixed.floats
        stored = weights_of(fixed, matrix.T, 0, turned=True)
        if left.rank > 1:
            return _inner(context, left, matrix, None, stored)
        row = _inner(context, context.expand(left, 0), matrix, None, stored)
        return context.layer("squeeze", row, axes=[0])
    left = as_blob(context, left)
    right = as_blob(context, right)
    return product(context, left, right)


def product(
    context: Lowering,
    left: Blob,
    right: Blob,
    *,
    transpose_x: bool = False,
    transpose_y: bool = False,
) -> Blob:
    """NumPy's matmul for any ranks and sizes."""
    first = context.expand(left, 0) if left.rank == 1 else left
    second = context.expand(right, -1) if right.rank == 1 else right
    output = context.matmul(first, second, transpose_x=transpose_x, transpose_y=transpose_y)
    gone = [output.rank - 2] * (left.rank == 1) + [output.rank - 1] * (right.rank == 1)
    if len(gone) == output.rank:
        return shaped(context, output, ())
    return context.layer("squeeze", output, axes=gone) if gone else output


def _inner(
    context: Lowering,
    x: Blob,
    matrix: Array,
    bias: Array | None,
    stored: Linear | Array | None = None,
) -> Blob:
    """x @ matrix + bias; `stored` is the transposed matrix as it is stored.

    An inner product would flatten the last three of more than three axes.
    """
    options: dict[str, Any] = {} if bias is None else {"hasBias": True, "bias": bias}
    options["weights"] = np.ascontiguousarray(matrix.T) if stored is None else stored
    inputs, outputs = matrix.shape
    if x.rank <= 3:
        sizes = {"inputChannels": inputs, "outputChannels": outputs}
        return context.layer("innerProduct", x, **sizes, **options)
    sizes = {"weightMatrixFirstDimension": inputs, "weightMatrixSecondDimension": outputs}
    return context.layer("batchedMatmul", x, **sizes, **options)


@op("Gemm", raw=True)
def gemm(context: Lowering, node: Node, a: Operand, b: Operand, c: Operand | None = None) -> Blob:
    """alpha * A' * B' + beta * C"""
    alpha, beta = node.attrs.get("alpha", 1.0), node.attrs.get("beta", 1.0)
    turn_a, turn_b = node.attrs.get("transA", 0), node.attrs.get("transB", 0)
    node.attrs.get("broadcast")
    left = as_blob(context, a)
    if isinstance(b, Constant) and not turn_a:
        matrix = b.floats.T if turn_b else b.floats
        matrix = matrix if alpha == 1 else np.float32(alpha) * matrix
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
        right = as_blob(context, b)
        product = context.matmul(left, right, transpose_x=bool(turn_a), transpose_y=bool(turn_b))
        product = product if alpha == 1 else affine(context, product, alpha)
    if c is None:
        return product
    extra = as_blob(context, c)
    extra = extra if beta == 1 else affine(context, extra, beta)
    return context.add(product, extra)


@op("com.microsoft.FusedMatMul", "com.microsoft.TransposeMatMul", raw=True)
def fused_matmul(context: Lowering, node: Node, left: Operand, right: Operand) -> Blob:
    """alpha * A' * B'; `transBatch` moves the first axis to the place before the last."""
    turns = [bool(node.attrs.get(f"trans{side}", 0)) for side in "AB"]
    batch = [bool(node.attrs.get(f"transBatch{side}", 0)) for side in "AB"]
    alpha = node.attrs.get("alpha", 1.0)
    if (
        isinstance(right, Constant)
        and right.array.ndim == 2
        and isinstance(left, Blob)
        and left.rank > 1
        and not any(batch)
        and not turns[0]
    ):
        matrix = right.floats.T if turns[1] else right.floats
        stored = weights_of(right, matrix.T, 0, turned=not turns[1], factor=alpha)
        if right.quantized is None and alpha != 1:
            stored = np.ascontiguousarray(matrix.T) * np.float32(alpha)
        return _inner(context, left, matrix, None, stored)
    blobs = [as_blob(context, v) for v in (left, right)]
    for place, (blob, moves) in enumerate(zip(blobs, batch, strict=True)):
        if moves and blob.rank > 2:
            axes = [*range(1, blob.rank - 1), 0, blob.rank - 1]
            blobs[place] = context.transpose(blob, axes)
    flags = [turn and blob.rank > 1 for turn, blob in zip(turns, blobs, strict=True)]
    output = product(context, *blobs, transpose_x=flags[0], transpose_y=flags[1])
    return output if alpha == 1 else affine(context, output, alpha)


@op("com.microsoft.FusedGemm", raw=True)
def fused_gemm(
    context: Lowering, node: Node, a: Operand, b: Operand, c: Operand | None = None
) -> Blob:
    """Gemm, followed by an activation."""
    output: Blob = gemm(context, node, a, b, c)
    options = {name: node.attrs.get(f"activation_{name}") for name in ("alpha", "beta", "gamma")}
    return activated(context, node, output, options)


@op("com.microsoft.MatMulNBits", raw=True)
def matmul_n_bits(
    context: Lowering, node: Node, x: Operand, b: Operand, scales: Operand, *rest: Operand
) -> Blob:
    """The matrix has few bits, and scales for blocks of its inputs; several blocks become floats.

    Bytes hold the first values in their lowest bits.
    """
    node.attrs.get("accuracy_level")  # how exactly activations are taken
    if node.attrs.get("weight_prepacked", 0):
        raise ConversionError("weight_prepacked: the layout of one kind of processor")
    zeros, groups, bias = (*rest, None, None, None)[:3]
    inputs, outputs, bits = node.attrs["K"], node.attrs["N"], node.attrs.get("bits", 4)
    size = node.attrs["block_size"]
    if bits not in (2, 4, 8):
        raise ConversionError(f"bits={bits}: 2, 4 and 8 are possible")
    blocks = -(-inputs // size)
    packed = array_of(node, 1, b)
    if not packed.size:
        raise ConversionError("the matrix is missing")
    codes = _unpacked(packed.reshape(outputs, -1), bits)[:, :inputs].astype(np.int32)
    if codes.shape[1] != inputs:
        raise ConversionError(f"K={inputs}, but there are {codes.shape[1]} values for each output")
    steps = array_of(node, 2, scales).astype(np.float32).reshape(outputs, blocks)
    offsets = np.full((outputs, blocks), 2.0 ** (bits - 1), np.float32)
    if zeros is not None:
        points = array_of(node, 3, zeros)
        whole = points.dtype == np.uint8
        points = _unpacked(points.reshape(outputs, -1), bits)[:, :blocks] if whole else points
        offsets = points.astype(np.float32).reshape(outputs, blocks)
    block = np.arange(inputs) // size if groups is None else array_of(node, 4, groups)
    quantized = None
    if blocks == 1:
        quantized = Quantized(codes.astype(np.uint8), bits, steps.ravel(), offsets.ravel(), 0)
    matrix = ((codes - offsets[:, block]) * steps[:, block]).astype(np.float32)
    known_bias = None if bias is None else array_of(node, 5, bias).astype(np.float32)
    left = as_blob(context, x)
    if left.rank > 3:
        output = product(context, left, context.constant(matrix.T))
        if known_bias is None:
            return output
        return context.add(output, context.constant(known_bias))
    stored = weights_of(Constant("", matrix, quantized), matrix, 0)
    return _inner(context, left, matrix.T, known_bias, stored)


def _unpacked(rows: Array, bits: int) -> Array:
    """The values in the bytes of each row, from the lowest bits up."""
    parts = [(rows >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, -1).reshape(len(rows), -1)


@op("Einsum")
def einsum(context: Lowering, node: Node, *inputs: Blob) -> Blob:
    return einsums.einsum(context, node.attrs["equation"], inputs)
