"""Matrix products and embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlferry.compiled import packs
from mlferry.errors import PredictionError
from mlferry.layers.kernels import Array, kernel
from mlferry.layers.linear.definition import matrix_shape
from mlferry.layers.params import Params
from mlferry.numerics.copies import by_columns
from mlferry.numerics.products import matmul

if TYPE_CHECKING:
    from mlferry.compiled.products import PackedProduct


@kernel("innerProduct")
def inner_product(params: Params, x: Array) -> Array:
    """Weights are [outC, inC]; from rank 4 on, C, H and W are flattened first.

    With `int8DynamicQuantize` the input is quantized to int8 as well.
    """
    flattened = x.ndim >= 4
    rows: Array = x.reshape(-1, params.inputChannels)
    if params.int8DynamicQuantize:
        rows = rounded_to_int8(rows)
    y = _product(params, rows, params.inputChannels, params.outputChannels)
    outer = (*x.shape[:-3], params.outputChannels, 1, 1)
    return y.reshape(outer if flattened else (*x.shape[:-1], params.outputChannels))


def _product(params: Params, rows: Array, inputs: int, outputs: int) -> Array:
    """Rows [n, inputs] times the weights, [outputs, inputs], plus the bias, if there is one."""
    shape = (outputs, inputs)
    if not params.has_given and packs(rows, inputs * outputs):
        return packed_product(params, shape)(rows)
    if params.is_given("weights"):
        y = matmul(rows, params.weight("weights", shape).T)
    else:
        matrix = params.once("matrix", lambda: by_columns(params.decoded("weights", shape)))
        y = matmul(rows, matrix.T)
    if params.hasBias:
        y += params.weight("bias", (outputs,))
    return y


def packed_product(params: Params, shape: tuple[int, int]) -> PackedProduct:
    """The weights [outputs, inputs] and the bias, as compiled products take them."""
    from mlferry.compiled.products import PackedProduct

    return params.once("product", lambda: PackedProduct.of(*_weights(params, shape)))


def _weights(params: Params, shape: tuple[int, int]) -> tuple[Array, Array | None]:
    """The weights [inputs, outputs], and the bias."""
    bias = params.weight("bias", shape[:1]) if params.hasBias else None
    return params.decoded("weights", shape).T, bias


def rounded_to_int8(x: Array) -> Array:
    """An input as it is after quantization to int8 before a product.

    One scale for the whole input, so that its largest magnitude is 127.
    """
    scale = np.abs(x).max(initial=0) / np.float32(127)
    return np.round(x / scale) * scale if scale else x


def _look_up(table: Array, indices: Array) -> Array:
    rows = indices.astype(np.int64)
    if rows.size and (np.min(rows) < 0 or np.max(rows) >= len(table)):
        raise PredictionError(
            f"indices go from {np.min(rows)} to {np.max(rows)}; the embedding has {len(table)} rows"
        )
    return table[rows]


@kernel("embedding", "embeddingND")
def embedding(params: Params, x: Array) -> Array:
    """Weights are [size, rows of the table]; one index a position."""
    shape = matrix_shape(params)
    single = params.kind == "embeddingND"
    indices = x[..., 0] if single else x.reshape(x.shape[:-3])
    y = _look_up(params.weight("weights", shape).T, indices)
    if params.hasBias:
        y = y + params.weight("bias", shape[:1])
    return y if single else y[..., None, None]


@kernel("batchedMatmul")
def batched_matmul(params: Params, left: Array, right: Array | None = None) -> Array:
    """A single input is multiplied by stored weights in column-major order.

    A vector is a row on the left, a column on the right; the result is still a matrix.
    """
    if right is None:
        if params.int8DynamicQuantize:
            left = rounded_to_int8(left)
        inputs, outputs = params.weightMatrixFirstDimension, params.weightMatrixSecondDimension
        y = _product(params, left.reshape(-1, inputs), inputs, outputs)
        return y.reshape(*left.shape[:-1], outputs)
    if params.transposeA and left.ndim > 1:
        left = left.swapaxes(-1, -2)
    if params.transposeB and right.ndim > 1:
        right = right.swapaxes(-1, -2)
    return matmul(np.atleast_2d(left), right[:, None] if right.ndim == 1 else right)


@kernel("dot")
def dot(params: Params, left: Array, right: Array) -> Array:
    """The dot product of vectors along the channels, or the cosine of their angle.

    The cosine with a vector of length 0 is 0.
    """
    product = (left * right).sum(axis=-3, keepdims=True)
    if not params.cosineSimilarity:
        return product
    lengths = np.sqrt(
        np.square(left).sum(axis=-3, keepdims=True) * np.square(right).sum(axis=-3, keepdims=True)
    )
    return np.where(lengths > 0, product / np.where(lengths > 0, lengths, 1), 0)
