"""Gradients of matrix products and embeddings."""

from __future__ import annotations

import numpy as np

from mlferry.layers.gradients import INPUTS, SHAPES, Array, LayerRun, gradient
from mlferry.layers.linear.definition import matrix_shape
from mlferry.layers.params import Params
from mlferry.numerics.gradients import reduced_to


@gradient("innerProduct", keeps=SHAPES, weights_keep=INPUTS)
def inner_product(run: LayerRun, dy: Array) -> Array | None:
    """With `int8DynamicQuantize`, as if the input were not rounded."""
    params = run.params
    behind = dy.reshape(-1, params.outputChannels)
    run.weight("weights", lambda: behind.T @ run.inputs[0].reshape(-1, params.inputChannels))
    run.weight("bias", lambda: behind.sum(axis=0))
    if not run.wanted[0]:
        return None
    weights = params.weight("weights", (params.outputChannels, params.inputChannels))
    return (behind @ weights).reshape(run.input_shapes[0])


@gradient("embedding", "embeddingND", keeps=SHAPES, weights_keep=INPUTS)
def embedding(run: LayerRun, dy: Array) -> None:
    """Those of the looked-up rows, stored as columns, and of the bias; indices have none."""
    if not run.trained:
        return
    indices = run.inputs[0]
    behind = dy.reshape(-1, dy.size // max(1, indices.size))

    def of_rows() -> Array:
        total = np.zeros((matrix_shape(run.params)[1], behind.shape[1]), dy.dtype)
        np.add.at(total, indices.reshape(-1).astype(np.int64), behind)
        return total.T

    run.weight("weights", of_rows)
    run.weight("bias", lambda: behind.sum(axis=0))


def _reads(params: Params) -> str:
    return SHAPES if params.weightMatrixFirstDimension else INPUTS


@gradient("batchedMatmul", keeps=_reads, weights_keep=INPUTS)
def batched_matmul(run: LayerRun, dy: Array) -> tuple[Array, ...]:
    """With `int8DynamicQuantize`, as if the input were not rounded."""
    params = run.params
    if len(run.input_shapes) == 1:
        rows, columns = params.weightMatrixFirstDimension, params.weightMatrixSecondDimension
        behind = dy.reshape(-1, columns)
        run.weight("weights", lambda: behind.T @ run.inputs[0].reshape(-1, rows))
        run.weight("bias", lambda: behind.sum(axis=0))
        through = dy @ params.weight("weights", (columns, rows))
        return (through.reshape(run.input_shapes[0]),)
    left, right = run.inputs
    flip_left = params.transposeA and left.ndim > 1
    flip_right = params.transposeB and right.ndim > 1
    a = np.atleast_2d(left.swapaxes(-1, -2) if flip_left else left)
    b = right.swapaxes(-1, -2) if flip_right else right
    b = b[:, None] if b.ndim == 1 else b
    of_a = reduced_to(np.matmul(dy, b.swapaxes(-1, -2)), a.shape)
    of_b = reduced_to(np.matmul(a.swapaxes(-1, -2), dy), b.shape)
    of_a = of_a.swapaxes(-1, -2) if flip_left else of_a
    of_b = of_b.swapaxes(-1, -2) if flip_right else of_b
    return of_a.reshape(left.shape), of_b.reshape(right.shape)


@gradient("dot", keeps=INPUTS)
def dot(run: LayerRun, dy: Array) -> tuple[Array, Array]:
    left, right = run.inputs
    if not run.params.cosineSimilarity:
        return reduced_to(dy * right, left.shape), reduced_to(dy * left, right.shape)
    product = (left * right).sum(axis=-3, keepdims=True)
    squares = [np.square(x).sum(axis=-3, keepdims=True) for x in (left, right)]
    length = np.sqrt(squares[0] * squares[1])
    there = length > 0
    factor = np.where(there, dy / np.where(there, length, 1), 0)
    gradients = []
    for x, other, square in ((left, right, squares[0]), (right, left, squares[1])):
        along = product / np.where(square > 0, square, 1)
        gradients.append(reduced_to(factor * (other - along * x), x.shape))
    return gradients[0], gradients[1]
