"""Layers that move values without computing."""

from __future__ import annotations

import numpy as np

from mlferry import limits
from mlferry.layers.borders import borders
from mlferry.layers.kernels import Array, kernel
from mlferry.layers.params import Params
from mlferry.layers.reshaping.definition import (
    expand_dims as expanded,
    fit,
    flatten_to_2d as flattened,
    rank_preserving_reshape as same_rank,
    reshape as reshaped,
    squeeze as squeezed,
)
from mlferry.numerics.shapes import Shape


def _reshaped(x: Array, shape: Shape) -> Array:
    """Reshape to the shape of a rule, whose extents are all known here."""
    return x.reshape(shape)


@kernel("transpose")
def transpose(params: Params, x: Array) -> Array:
    return x.transpose(params.axes)


@kernel("reshapeStatic")
def reshape_static(params: Params, x: Array) -> Array:
    return _reshaped(x, fit(x.shape, params.targetShape))


@kernel("reshape")
def reshape(params: Params, x: Array) -> Array:
    """To [C, H, W] of each step, or to [Seq, C, H, W], batch by batch.

    CHANNEL_LAST reads and writes the values in the order H, W, C.
    """
    steps, batch, *size = (extent or 0 for extent in reshaped(params, x.shape)[0])
    samples = np.moveaxis(x, 1, 0)
    if params.mode == "CHANNEL_FIRST":
        y = samples.reshape(batch, steps, *size)
    else:
        channels, height, width = size
        last = np.moveaxis(samples, -3, -1).reshape(batch, steps, height, width, channels)
        y = np.moveaxis(last, -1, -3)
    return np.moveaxis(y, 0, 1)


@kernel("permute")
def permute(params: Params, x: Array) -> Array:
    """Axes count in [Seq, C, H, W]; the batch stays."""
    steps, *inner = ((0, 2, 3, 4)[axis] for axis in params.axis)
    return x.transpose(steps, 1, *inner)


@kernel("flattenTo2D")
def flatten_to_2d(params: Params, x: Array) -> Array:
    rows, columns = (extent or 0 for extent in flattened(params, x.shape)[0])
    return x.reshape(rows, columns)


@kernel("rankPreservingReshape")
def rank_preserving_reshape(params: Params, x: Array) -> Array:
    return x.reshape([extent or 0 for extent in same_rank(params, x.shape)[0]])


@kernel("flatten")
def flatten(params: Params, x: Array) -> Array:
    """CHANNEL_LAST flattens in the order H, W, C."""
    if params.mode == "CHANNEL_LAST":
        x = np.moveaxis(x, -3, -1)
    return x.reshape(*x.shape[:-3], -1, 1, 1)


@kernel("squeeze")
def squeeze(params: Params, x: Array) -> Array:
    return _reshaped(x, squeezed(params, x.shape)[0])


@kernel("expandDims")
def expand_dims(params: Params, x: Array) -> Array:
    return _reshaped(x, expanded(params, x.shape)[0])


_PAD_MODES = {"constant": "constant", "reflection": "reflect", "replication": "edge"}


@kernel("padding")
def padding(params: Params, x: Array) -> Array:
    """Pad height and width; a reflection does not repeat the edge."""
    widths = [(0, 0)] * (x.ndim - 2) + list(borders(params))
    kind = params.which("PaddingType") or "constant"
    if kind == "constant":
        return np.pad(x, widths, constant_values=params.constant.value)
    return np.pad(x, widths, mode=_PAD_MODES[kind])  # type: ignore[call-overload]


@kernel("crop")
def crop(params: Params, x: Array, like: Array | None = None) -> Array:
    """Crop by border amounts, or with two inputs, to the size of the second from an offset on."""
    if like is not None:
        top, left = params.offset or (0, 0)
        height, width = like.shape[-2:]
        return x[..., top : top + height, left : left + width]
    (top, bottom), (left, right) = borders(params, "cropAmounts")
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


@kernel("reorganizeData")
def reorganize_data(params: Params, x: Array) -> Array:
    """Blocks of space into channels and back; PIXEL_SHUFFLE keeps channels outermost."""
    *outer, channels, height, width = x.shape
    n, lead = params.blockSize, len(outer)
    keep = tuple(range(lead))
    if params.mode == "SPACE_TO_DEPTH":
        blocks = x.reshape(*outer, channels, height // n, n, width // n, n)
        order = (lead + 2, lead + 4, lead, lead + 1, lead + 3)
        return blocks.transpose(*keep, *order).reshape(
            *outer, channels * n * n, height // n, width // n
        )
    depth = channels // (n * n)
    if params.mode == "DEPTH_TO_SPACE":
        blocks = x.reshape(*outer, n, n, depth, height, width)
        order = (lead + 2, lead + 3, lead, lead + 4, lead + 1)
    else:
        blocks = x.reshape(*outer, depth, n, n, height, width)
        order = (lead, lead + 3, lead + 1, lead + 4, lead + 2)
    return blocks.transpose(*keep, *order).reshape(*outer, depth, height * n, width * n)


@kernel("constantPad")
def constant_pad(params: Params, x: Array, amounts: Array | None = None) -> Array:
    """By amounts before and after each axis; see `pad_widths`."""
    widths = pad_widths(params, x.shape, amounts)
    limits.check_blob(n + sum(edges) for n, edges in zip(x.shape, widths, strict=True))
    return np.pad(x, widths, constant_values=params.value)


def pad_widths(
    params: Params, shape: tuple[int, ...], amounts: Array | None
) -> list[tuple[int, int]]:
    """The amounts that a `constantPad` adds before and after each axis.

    With `padToGivenOutputSizeMode` the amounts are sizes: an axis is padded to the one that is not
    0, at its start if that comes first, otherwise at its end; a longer axis stays.
    """
    flat = params.padAmounts if amounts is None else amounts.astype(int).ravel().tolist()
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    if not params.padToGivenOutputSizeMode:
        return pairs
    return [
        (max(0, before - extent), 0) if before else (0, max(0, after - extent))
        for (before, after), extent in zip(pairs, shape, strict=True)
    ]
