"""Normalization and softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import extent, rank, valuewise, vector
from mlferry.converters.tensorflow.ops.registry import blob, joint, maps, op, source
from mlferry.converters.values import SOURCE, UNFLATTENED, Blob, Constant
from mlferry.errors import ConversionError


@op("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", raw=True)
def fused_batch_norm(low: Lowering, node: Node, x: Any, *rest: Any) -> Any:
    """Along the channels, by stored statistics or by those of the batch."""
    factor = node.attrs.get("exponential_avg_factor", 1.0)
    epsilon = node.attrs.get("epsilon", 1e-4)
    given = maps(low, node, x)
    if node.attrs.get("is_training", True):
        return _of_the_batch(low, node, given, rest, epsilon, factor)
    scale, offset, mean, variance = rest
    if given.rank == 4 and all(isinstance(v, Constant) for v in rest):
        gamma, beta, *known = (v.array.astype(np.float32).ravel() for v in rest)
        made = low.layer(
            "batchnorm", given, layout=given.layout, channels=gamma.size, epsilon=epsilon,
            gamma=gamma, beta=beta, mean=known[0], variance=known[1],
        )  # fmt: skip
    else:
        centre, spread = (_by_channel(low, given, v) for v in (mean, variance))
        made = _normalized(low, given, centre, spread, scale, offset, epsilon)
    found = [v.array if isinstance(v, Constant) else v for v in (mean, variance)]
    return (made, *found, *_reserved(scale))[: len(node.outputs)]


def _reserved(scale: Any) -> list[Any]:
    """What TensorFlow leaves undefined, for gradients."""
    size = scale.array.size if isinstance(scale, Constant) else (scale.known[0] or 1)
    nothing = np.zeros(size, np.float32)
    return [nothing, nothing, np.float32(0)]


def _by_channel(low: Lowering, like: Blob, x: Any) -> Blob:
    """A vector over the channels, as it broadcasts with channels-first data."""
    shape = (1, -1, *(1,) * (like.rank - 2))
    if isinstance(x, Constant):
        return low.constant(x.array.reshape(shape), layout=like.layout)
    return low.reshape(vector(x), shape, layout=like.layout)


def _normalized(
    low: Lowering, x: Blob, mean: Blob, variance: Blob, scale: Any, offset: Any, epsilon: float
) -> Blob:
    """(x - mean) / sqrt(variance + epsilon) * scale + offset"""
    root = valuewise(low, "unary", variance, type="SQRT", shift=epsilon)
    factor = joint(low, "divideBroadcastable", _by_channel(low, x, scale), root)
    centred = joint(low, "subtractBroadcastable", x, mean)
    scaled = joint(low, "multiplyBroadcastable", centred, factor)
    return joint(low, "addBroadcastable", scaled, _by_channel(low, x, offset))


def _of_the_batch(
    low: Lowering, node: Node, x: Blob, rest: Any, epsilon: float, factor: float
) -> Any:
    """The variance that comes out is that of a sample: divided by one less than their number."""
    scale, offset, *before = rest
    axes = [axis for axis in range(x.rank) if axis != 1]
    mean = low.layer("reduceMean", x, layout=x.layout, axes=axes, keepDims=True)
    gap = joint(low, "subtractBroadcastable", x, mean)
    square = joint(low, "multiplyBroadcastable", gap, gap)
    variance = low.layer("reduceMean", square, layout=x.layout, axes=axes, keepDims=True)
    made = _normalized(low, x, mean, variance, scale, offset, epsilon)
    told = (mean, _of_a_sample(low, x, variance, axes))
    moved = [
        _moved(low, low.relabel(low.squeeze(v, *axes), SOURCE), old, factor)
        for v, old in zip(told, before, strict=True)
    ]
    return (made, *moved, *_reserved(scale))[: len(node.outputs)]


def _of_a_sample(low: Lowering, x: Blob, variance: Blob, axes: Sequence[int]) -> Blob:
    """The variance times n / (n - 1), for any number n of values."""
    ones = low.layer("fillLike", x, layout=x.layout, value=1.0)
    count = low.layer("reduceSum", ones, layout=x.layout, axes=axes, keepDims=True)
    less = valuewise(low, "activation", count, linear={"alpha": 1.0, "beta": -1.0})
    divisor = joint(low, "maxBroadcastable", less, low.constant([1.0]))
    return joint(
        low, "divideBroadcastable", joint(low, "multiplyBroadcastable", variance, count), divisor
    )


def _moved(low: Lowering, new: Blob, old: Any, factor: float) -> Blob:
    """A running average."""
    if factor == 1:
        return new
    part = valuewise(low, "activation", new, linear={"alpha": factor})
    rest = valuewise(low, "activation", blob(low, old), linear={"alpha": 1 - factor})
    return joint(low, "addBroadcastable", rest, part)


@op("LRN", raw=True)
def lrn(low: Lowering, node: Node, x: Any) -> Blob:
    """TensorFlow does not divide alpha by the size of the window; Core ML does."""
    given = maps(low, node, x)
    size = 2 * node.attrs.get("depth_radius", 5) + 1
    return low.layer(
        "lrn", given, layout=given.layout, alpha=node.attrs.get("alpha", 1.0) * size,
        beta=node.attrs.get("beta", 0.5), k=node.attrs.get("bias", 1.0), localSize=size,
    )  # fmt: skip


@op("Softmax", "LogSoftmax", layouts=UNFLATTENED)
def softmax(low: Lowering, node: Node, x: Blob) -> Blob:
    """Over the last axis of the source."""
    if rank(x) == 0:
        raise ConversionError("softmax of a value without axes")
    axis = x.axis(-1)
    if node.op == "Softmax":
        return low.layer("softmaxND", x, layout=x.layout, axis=axis)
    total = low.layer("reduceLogSumExp", x, layout=x.layout, axes=(axis,), keepDims=True)
    return low.layer("subtractBroadcastable", x, total, layout=x.layout)


def _log_softmax(low: Lowering, x: Blob) -> Blob:
    total = low.layer("reduceLogSumExp", x, layout=SOURCE, axes=(-1,), keepDims=True)
    return joint(low, "subtractBroadcastable", x, total)


@op("SoftmaxCrossEntropyWithLogits", raw=True)
def softmax_cross_entropy(low: Lowering, node: Node, x: Any, labels: Any) -> list[Blob]:
    """The loss of each row, and its gradient."""
    return _cross_entropy(low, source(low, x), source(low, labels))


@op("SparseSoftmaxCrossEntropyWithLogits", raw=True)
def sparse_softmax_cross_entropy(low: Lowering, node: Node, x: Any, labels: Any) -> list[Blob]:
    """The labels are the numbers of the classes."""
    given = source(low, x)
    classes = low.constant(np.arange(extent(given, -1))[None])
    hits = joint(low, "equal", low.expand(source(low, labels), -1), classes)
    return _cross_entropy(low, given, hits)


def _cross_entropy(low: Lowering, x: Blob, labels: Blob) -> list[Blob]:
    logs = _log_softmax(low, x)
    products = joint(low, "multiplyBroadcastable", logs, labels)
    total = low.layer("reduceSum", products, layout=SOURCE, axes=(-1,), keepDims=False)
    likely = low.layer("softmaxND", x, layout=SOURCE, axis=-1)
    loss = valuewise(low, "activation", total, linear={"alpha": -1.0})
    return [loss, joint(low, "subtractBroadcastable", likely, labels)]
