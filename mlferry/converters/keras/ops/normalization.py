"""Normalization by stored or by computed statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.core import rescaled
from mlferry.converters.keras.ops.registry import op, weight
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import extent
from mlferry.converters.values import CHANNELS_FIRST, SOURCE, UNFLATTENED, Accepted, Blob
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array, product


@op("BatchNormalization", layouts=UNFLATTENED)
def batch_normalization(context: Lowering, node: Node, x: Blob) -> Blob:
    """Uses the moving statistics, along any one axis.

    Core ML's layer works on axis -3 of at least three axes; for others, values are scaled and
    shifted.
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
        return rescaled(context, x, scale, beta - mean * scale, axis)
    missing = {2: (-1, -2), 3: (-2,), 4: ()}[x.rank]
    blob = context.expand(x, *missing) if missing else x
    y = context.layer(
        "batchnorm",
        blob,
        layout=x.layout,
        channels=channels,
        epsilon=epsilon,
        gamma=gamma,
        beta=beta,
        mean=mean,
        variance=variance,
    )
    return context.squeeze(y, *missing) if missing else y


def _axes(x: Blob, axis: int) -> tuple[list[int], list[int]]:
    """Axes of the source in order, and their places in the blob."""
    results = axis if isinstance(axis, list | tuple) else [axis]
    order = sorted(int(a) % x.rank for a in results)
    return order, [x.axis(a) for a in order]


def _affine(
    context: Lowering,
    x: Blob,
    order: list[int],
    gamma: Array | None,
    beta: Array | None,
    sizes: Sequence[int],
) -> Blob:
    """gamma * x + beta, for arrays over some axes of the source."""
    for array, kind in ((gamma, "multiplyBroadcastable"), (beta, "addBroadcastable")):
        if array is None:
            continue
        shape = [1] * x.rank
        for axis, size in zip(order, sizes, strict=True):
            shape[axis] = size
        # gamma's axes are in the source's order, which channels-first data only rotates
        wide = array.reshape(shape)
        wide = np.moveaxis(wide, -1, 1) if x.layout == CHANNELS_FIRST and x.rank > 2 else wide
        x = context.layer(kind, x, context.constant(wide, layout=x.layout), layout=x.layout)
    return x


def _over(
    context: Lowering,
    x: Blob,
    axes: Sequence[int],
    epsilon: float,
    *,
    center: bool,
    move: bool = True,
) -> Blob:
    """x divided by the root of its mean square along axes of the blob.

    With `center` it is divided by the root of its variance, and with `move` its mean is subtracted.
    """
    layout = x.layout
    centered = x
    if center:
        mean = context.layer("reduceMean", x, layout=layout, axes=axes, keepDims=True)
        centered = context.layer("subtractBroadcastable", x, mean, layout=layout)
        x = centered if move else x
    squares = context.layer("multiply", centered, centered, layout=layout)
    power = context.layer("reduceMean", squares, layout=layout, axes=axes, keepDims=True)
    root = context.layer("unary", power, layout=layout, type="SQRT", shift=epsilon)
    return context.layer("divideBroadcastable", x, root, layout=layout)


@op("LayerNormalization", layouts=UNFLATTENED)
def layer_normalization(context: Lowering, node: Node, x: Blob) -> Blob:
    """Core ML's own layer over the last axes; over others, as for channels-first data, composed."""
    order, axes = _axes(x, node.attrs.get("axis", -1))
    sizes = [extent(x, axis) for axis in axes]
    epsilon = float(node.attrs.get("epsilon", 1e-3))
    uncentered = bool(node.attrs.get("rms_scaling", False))
    scaled = node.attrs.get("scale", True) or uncentered
    centered = node.attrs.get("center", True) and not uncentered
    gamma = weight(node, "gamma", *sizes) if scaled else None
    beta = weight(node, "beta", *sizes) if centered else None
    last = axes == list(range(x.rank - len(axes), x.rank))
    if last and not uncentered:
        gamma = np.ones(sizes, np.float32) if gamma is None else gamma
        beta = np.zeros(sizes, np.float32) if beta is None else beta
        return context.layer(
            "layerNormalization",
            x,
            layout=x.layout,
            normalizedShape=sizes,
            eps=epsilon,
            gamma=gamma,
            beta=beta,
        )
    # Keras's `rms_scaling` divides by the deviation but does not subtract the mean
    output = _over(context, x, axes, epsilon, center=True, move=not uncentered)
    return _affine(context, output, order, gamma, beta, sizes)


@op("RMSNormalization", layouts=UNFLATTENED)
def rms_normalization(context: Lowering, node: Node, x: Blob) -> Blob:
    order, axes = _axes(x, node.attrs.get("axis", -1))
    sizes = [extent(x, axis) for axis in axes]
    output = _over(context, x, axes, float(node.attrs.get("epsilon", 1e-6)), center=False)
    return _affine(context, output, order, weight(node, "scale", *sizes), None, sizes)


def _channels_before(node: Node) -> Accepted:
    """Channels on axis 1: in their own order, or by the layout."""
    axis = node.attrs.get("axis", -1)
    return (SOURCE,) if axis == 1 else (CHANNELS_FIRST,)


@op("GroupNormalization", layouts=_channels_before)
def group_normalization(context: Lowering, node: Node, x: Blob) -> Blob:
    """Normalize each group of neighbouring channels over all places."""
    axis = int(node.attrs.get("axis", -1))
    if x.axis(axis) != 1:
        raise ConversionError(f"axis={axis}: the channels' axis can be converted")
    channels = extent(x, 1)
    groups = int(node.attrs.get("groups", 32))
    groups = channels if groups == -1 else groups
    gamma = weight(node, "gamma", channels) if node.attrs.get("scale", True) else None
    beta = weight(node, "beta", channels) if node.attrs.get("center", True) else None
    shape = x.known
    size = product(shape[1:])
    inner = None if size is None else size // groups
    folded = context.reshape(x, (shape[0], groups, inner), layout=SOURCE)
    output = _over(context, folded, [2], float(node.attrs.get("epsilon", 1e-3)), center=True)
    back = context.reshape(output, shape, layout=x.layout)
    return _affine(context, back, [axis % x.rank], gamma, beta, [channels])


@op("UnitNormalization", layouts=UNFLATTENED)
def unit_normalization(context: Lowering, node: Node, x: Blob) -> Blob:
    """x divided by its length, which is at least 1e-12."""
    _, axes = _axes(x, node.attrs.get("axis", -1))
    length = context.layer("reduceL2", x, layout=x.layout, axes=axes, keepDims=True)
    least = 1e-12 if context.graph.version >= 3 else 1e-6  # Keras 2: of the square
    safe = context.layer("clip", length, layout=x.layout, minVal=least, maxVal=3.4e38)
    return context.divide(x, safe)
