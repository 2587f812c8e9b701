"""Normalization and softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.layout import UNFLATTENED, Blob, Constant
from mlferry.converters.lower import Lowering
from mlferry.converters.operands import rank
from mlferry.converters.tensorflow.ops.registry import joint, maps, op
from mlferry.errors import ConversionError


@op("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", raw=True)
def fused_batch_norm(low: Lowering, node: Node, x: Any, *rest: Any) -> Any:
    """By stored statistics, along the channels; these are the second and third output."""
    if node.attrs.get("is_training", True):
        raise ConversionError("batch normalization in training mode")
    node.attrs.get("exponential_avg_factor")
    given = maps(low, node, x)
    if not all(isinstance(v, Constant) for v in rest):
        raise ConversionError("computed statistics")
    gamma, beta, mean, variance = (v.array.astype(np.float32).ravel() for v in rest)
    epsilon = node.attrs.get("epsilon", 1e-4)
    if given.rank == 5:
        scale = gamma / np.sqrt(variance + np.float32(epsilon))
        shape = (1, -1, 1, 1, 1)
        factor, shift = (
            low.constant(v.reshape(shape), layout=given.layout)
            for v in (scale, beta - mean * scale)
        )
        made = joint(low, "addBroadcastable", joint(low, "multiplyBroadcastable", given, factor),
                     shift)  # fmt: skip
    else:
        made = low.layer(
            "batchnorm", given, layout=given.layout, channels=gamma.size, epsilon=epsilon,
            gamma=gamma, beta=beta, mean=mean, variance=variance,
        )  # fmt: skip
    nothing = np.zeros_like(mean)  # what TensorFlow leaves undefined, for gradients
    return (made, mean, variance, nothing, nothing, np.float32(0))[: len(node.outputs)]


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
