"""Normalization and softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import as_blob, extent, rank, vector
from mlferry.converters.tensorflow.ops.registry import joint, maps, op, source
from mlferry.converters.values import SOURCE, UNFLATTENED, Blob, Constant, Operand
from mlferry.errors import ConversionError


@op("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", raw=True)
def fused_batch_norm(context: Lowering, node: Node, x: Operand, *rest: Operand) -> tuple[Blob, ...]:
    """Along the channels, with stored statistics or those of the batch."""
    factor = node.attrs.get("exponential_avg_factor", 1.0)
    epsilon = node.attrs.get("epsilon", 1e-4)
    blob = maps(context, node, x)
    if node.attrs.get("is_training", True):
        return _of_the_batch(context, node, blob, rest, epsilon, factor)
    scale, offset, mean, variance = rest
    fixed = [v.floats.ravel() for v in rest if isinstance(v, Constant)]
    if blob.rank == 4 and len(fixed) == len(rest):
        gamma, beta, *known = fixed
        output = context.layer(
            "batchnorm",
            blob,
            layout=blob.layout,
            channels=gamma.size,
            epsilon=epsilon,
            gamma=gamma,
            beta=beta,
            mean=known[0],
            variance=known[1],
        )
    else:
        centre, spread = (_by_channel(context, blob, v) for v in (mean, variance))
        output = _normalized(context, blob, centre, spread, scale, offset, epsilon)
    results = [v.array if isinstance(v, Constant) else v for v in (mean, variance)]
    return (output, *results, *_reserved(scale))[: len(node.outputs)]


def _reserved(scale: Operand) -> list[Any]:
    """Outputs for gradients, which TensorFlow leaves undefined."""
    size = scale.array.size if isinstance(scale, Constant) else scale.known[0] or 1
    nothing = np.zeros(size, np.float32)
    return [nothing, nothing, np.float32(0)]


def _by_channel(context: Lowering, like: Blob, x: Operand) -> Blob:
    """A vector over the channels in a shape that broadcasts with channels-first data."""
    shape = (1, -1, *(1,) * (like.rank - 2))
    if isinstance(x, Constant):
        return context.constant(x.array.reshape(shape), layout=like.layout)
    return context.reshape(vector(x), shape, layout=like.layout)


def _normalized(
    context: Lowering,
    x: Blob,
    mean: Blob,
    variance: Blob,
    scale: Operand,
    offset: Operand,
    epsilon: float,
) -> Blob:
    """(x - mean) / sqrt(variance + epsilon) * scale + offset"""
    root = context.emit("unary", variance, type="SQRT", shift=epsilon)
    factor = joint(context, "divideBroadcastable", _by_channel(context, x, scale), root)
    centred = joint(context, "subtractBroadcastable", x, mean)
    scaled = joint(context, "multiplyBroadcastable", centred, factor)
    return joint(context, "addBroadcastable", scaled, _by_channel(context, x, offset))


def _of_the_batch(
    context: Lowering, node: Node, x: Blob, rest: Sequence[Operand], epsilon: float, factor: float
) -> tuple[Blob, ...]:
    """The variance that is returned is that of a sample, divided by n - 1."""
    scale, offset, *before = rest
    axes = [axis for axis in range(x.rank) if axis != 1]
    mean = context.layer("reduceMean", x, layout=x.layout, axes=axes, keepDims=True)
    gap = joint(context, "subtractBroadcastable", x, mean)
    square = joint(context, "multiplyBroadcastable", gap, gap)
    variance = context.layer("reduceMean", square, layout=x.layout, axes=axes, keepDims=True)
    output = _normalized(context, x, mean, variance, scale, offset, epsilon)
    values = (mean, _of_a_sample(context, x, variance, axes))
    moved = [
        _moved(context, context.relabel(context.squeeze(v, *axes), SOURCE), old, factor)
        for v, old in zip(values, before, strict=True)
    ]
    return (output, *moved, *_reserved(scale))[: len(node.outputs)]


def _of_a_sample(context: Lowering, x: Blob, variance: Blob, axes: Sequence[int]) -> Blob:
    """The variance times n / (n - 1), for any number n of values."""
    ones = context.emit("fillLike", x, value=1.0)
    count = context.layer("reduceSum", ones, layout=x.layout, axes=axes, keepDims=True)
    less = context.emit("activation", count, linear={"alpha": 1.0, "beta": -1.0})
    divisor = joint(context, "maxBroadcastable", less, context.constant([1.0]))
    return joint(
        context,
        "divideBroadcastable",
        joint(context, "multiplyBroadcastable", variance, count),
        divisor,
    )


def _moved(context: Lowering, new: Blob, old: Operand, factor: float) -> Blob:
    """A running average."""
    if factor == 1:
        return new
    part = context.emit("activation", new, linear={"alpha": factor})
    rest = context.emit("activation", as_blob(context, old), linear={"alpha": 1 - factor})
    return joint(context, "addBroadcastable", rest, part)


@op("LRN", raw=True)
def lrn(context: Lowering, node: Node, x: Operand) -> Blob:
    """Core ML divides alpha by the size of the window; TensorFlow does not."""
    blob = maps(context, node, x)
    size = 2 * node.attrs.get("depth_radius", 5) + 1
    return context.layer(
        "lrn",
        blob,
        layout=blob.layout,
        alpha=node.attrs.get("alpha", 1.0) * size,
        beta=node.attrs.get("beta", 0.5),
        k=node.attrs.get("bias", 1.0),
        localSize=size,
    )


@op("Softmax", "LogSoftmax", layouts=UNFLATTENED)
def softmax(context: Lowering, node: Node, x: Blob) -> Blob:
    """Over the last axis of the source."""
    if rank(x) == 0:
        raise ConversionError("softmax of a value without axes")
    axis = x.axis(-1)
    if node.op == "Softmax":
        return context.layer("softmaxND", x, layout=x.layout, axis=axis)
    total = context.layer("reduceLogSumExp", x, layout=x.layout, axes=(axis,), keepDims=True)
    return context.subtract(x, total)


def _log_softmax(context: Lowering, x: Blob) -> Blob:
    total = context.reduce("reduceLogSumExp", x, (-1,))
    return joint(context, "subtractBroadcastable", x, total)


@op("SoftmaxCrossEntropyWithLogits", raw=True)
def softmax_cross_entropy(context: Lowering, node: Node, x: Operand, labels: Operand) -> list[Blob]:
    """The loss of each row, and its gradient."""
    return _cross_entropy(context, source(context, x), source(context, labels))


@op("SparseSoftmaxCrossEntropyWithLogits", raw=True)
def sparse_softmax_cross_entropy(
    context: Lowering, node: Node, x: Operand, labels: Operand
) -> list[Blob]:
    """The labels are the indices of the classes."""
    blob = source(context, x)
    classes = context.constant(np.arange(extent(blob, -1))[None])
    hits = joint(context, "equal", context.expand(source(context, labels), -1), classes)
    return _cross_entropy(context, blob, hits)


def _cross_entropy(context: Lowering, x: Blob, labels: Blob) -> list[Blob]:
    logs = _log_softmax(context, x)
    products = joint(context, "multiplyBroadcastable", logs, labels)
    total = context.reduce("reduceSum", products, (-1,), keep=False)
    likely = context.layer("softmaxND", x, layout=SOURCE, axis=-1)
    loss = context.emit("activation", total, linear={"alpha": -1.0})
    return [loss, joint(context, "subtractBroadcastable", likely, labels)]
