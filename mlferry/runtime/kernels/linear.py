"""Matrix products and embeddings."""

from __future__ import annotations

import numpy as np

from mlferry.errors import PredictionError
from mlferry.runtime.kernels.registry import Array, kernel
from mlferry.spec.params import Params


@kernel("innerProduct")
def inner_product(p: Params, x: Array) -> Array:
    """Weights are [outC, inC]; from rank 4 on, C, H and W are flattened first."""
    weights = p.weight("weights", (p.outputChannels, p.inputChannels))
    flattened = x.ndim >= 4
    rows = x.reshape(-1, p.inputChannels)
    y = rows @ weights.T
    if p.hasBias:
        y += p.weight("bias", (p.outputChannels,))
    outer = (*x.shape[:-3], p.outputChannels, 1, 1)
    return y.reshape(outer if flattened else (*x.shape[:-1], p.outputChannels))


def _look_up(table: Array, indices: Array) -> Array:
    rows = indices.astype(np.int64)
    if rows.size and (rows.min() < 0 or rows.max() >= len(table)):
        raise PredictionError(
            f"indices go from {rows.min()} to {rows.max()}; the embedding has {len(table)} rows"
        )
    return table[rows]


@kernel("embedding")
def embedding(p: Params, x: Array) -> Array:
    """Weights are [outputChannels, inputDim]; one index a position."""
    table = p.weight("weights", (p.outputChannels, p.inputDim)).T
    y = _look_up(table, x.reshape(x.shape[:-3]))
    if p.hasBias:
        y = y + p.weight("bias", (p.outputChannels,))
    return y.reshape(*x.shape[:-3], p.outputChannels, 1, 1)


@kernel("embeddingND")
def embedding_nd(p: Params, x: Array) -> Array:
    """Weights are [embeddingSize, vocabSize]; the last extent of the input is 1."""
    table = p.weight("weights", (p.embeddingSize, p.vocabSize)).T
    y = _look_up(table, x[..., 0])
    return y + p.weight("bias", (p.embeddingSize,)) if p.hasBias else y


@kernel("batchedMatmul")
def batched_matmul(p: Params, left: Array, right: Array | None = None) -> Array:
    """With one input, it is multiplied by stored weights, kept column-major."""
    if right is None:
        rows, columns = p.weightMatrixFirstDimension, p.weightMatrixSecondDimension
        y = left @ p.weight("weights", (columns, rows)).T
        return y + p.weight("bias", (columns,)) if p.hasBias else y
    if p.transposeA and left.ndim > 1:
        left = left.swapaxes(-1, -2)
    if p.transposeB and right.ndim > 1:
        right = right.swapaxes(-1, -2)
    return np.atleast_1d(np.matmul(left, right))
