"""Batch normalization."""

from __future__ import annotations

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.core import affine
from mlferry.converters.keras.ops.registry import op, weight
from mlferry.converters.layout import UNFLATTENED, Blob
from mlferry.converters.lower import Lowering
from mlferry.errors import ConversionError


@op("BatchNormalization", layouts=UNFLATTENED)
def batch_normalization(low: Lowering, node: Node, x: Blob) -> Blob:
    """By the moving statistics, along any one axis.

    Core ML's layer works on axis -3 of at least three; other axes are scaled and shifted.
    """
    axis = node.attrs.get("axis", -1)
    if isinstance(axis, list | tuple):
        raise ConversionError(f"axis={axis}: one axis can be converted")
    channels = (x.source_shape or ())[axis]
    if channels is None:
        raise ConversionError("the normalized axis of the input is flexible")
    mean, variance = (weight(node, n, channels) for n in ("moving_mean", "moving_variance"))
    gamma = weight(node, "gamma", channels) if node.attrs.get("scale", True) else None
    beta = weight(node, "beta", channels) if node.attrs.get("center", True) else None
    epsilon = node.attrs.get("epsilon", 1e-3)
    gamma = np.ones(channels, np.float32) if gamma is None else gamma
    beta = np.zeros(channels, np.float32) if beta is None else beta
    place = x.axis(axis)
    if x.rank > 5 or place != 1 or x.rank == 5:
        scale = gamma / np.sqrt(variance + np.float32(epsilon))
        return affine(low, x, scale, beta - mean * scale, axis)
    missing = {2: (-1, -2), 3: (-2,), 4: ()}[x.rank]
    given = low.expand(x, *missing) if missing else x
    y = low.layer(
        "batchnorm",
        given,
        layout=x.layout,
        channels=channels,
        epsilon=epsilon,
        gamma=gamma,
        beta=beta,
        mean=mean,
        variance=variance,
    )
    return low.squeeze(y, *missing) if missing else y
