"""The layer kinds that a plan takes, and the part that each of them becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlferry.layers.borders import borders
from mlferry.layers.convolution import definition as sizes
from mlferry.layers.kernels import KERNELS
from mlferry.layers.params import Params
from mlferry.registry import Registry
from mlferry.runtime.planned import parts
from mlferry.runtime.planned.convolution import Window
from mlferry.runtime.planned.finish import Clipping, NamedFunction, Pointwise
from mlferry.runtime.planned.maps import Array
from mlferry.runtime.planned.plan import Part, Shape

Describe = Callable[[Params, int], "Part | None"]

LAYERS: Registry[Describe] = Registry("planned layer kind")
planned = LAYERS.register
"""Registers what a layer is, for its parameters and the number of its inputs; None where no plan
takes it."""


def part_of(params: Params, inputs: int, outputs: int) -> Part | None:
    """What a plan knows of a layer."""
    entry = LAYERS.find(params.kind)
    if entry is None or outputs != 1 or not inputs:
        return None
    return entry.value(params, inputs)


# ---- value by value --------------------------------------------------------------------


@planned("activation", "clip")
def valuewise(params: Params, inputs: int) -> Part | None:
    function = _function(params)
    return None if function is None else parts.Valuewise(function)


def _function(params: Params) -> Pointwise | None:
    kind = params.which("NonlinearityType") if params.kind == "activation" else params.kind
    if kind == "ReLU":
        return Clipping(np.float32(0))
    if kind == "clip":
        return Clipping(np.float32(params.minVal), np.float32(params.maxVal))
    if kind in ("PReLU", "parametricSoftplus", None):
        return None
    kernel = KERNELS.find(params.kind).value  # type: ignore[union-attr] # `Session` checked it
    return NamedFunction(kind, lambda x, out: np.copyto(out, kernel(params, x)))


@planned("batchnorm", "scale", "bias")
def by_channel(params: Params, inputs: int) -> Part:
    p = params
    if p.kind == "batchnorm" and p.computeMeanVar and p.instanceNormalization:
        gamma, beta = (
            lambda _, field=field: p.weight(field, (p.channels,)) for field in ("gamma", "beta")
        )
        return parts.InstanceNormalization(gamma, beta, p.epsilon)
    return parts.ByChannel(lambda channels: _affine(p, channels))


def _affine(params: Params, channels: int) -> tuple[Array, Array] | None:
    """The factor and the shift per channel of a normalization, scale or bias."""
    if params.kind == "batchnorm":
        if params.computeMeanVar:
            return None
        scale, shift = params.once("factor and shift", lambda: _statistics(params))
        return scale, shift
    one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    pair: list[Array] = []
    for name, shape, default in (
        ("scale", params.shapeScale if params.kind == "scale" else (), one),
        (
            "bias",
            params.shape if params.kind == "bias" else params.shapeBias if params.hasBias else (),
            zero,
        ),
    ):
        if not shape:
            pair.append(default)
        elif tuple(shape) in ((channels, 1, 1), (channels,), (1,), (1, 1, 1)):
            values = params.weight(name, (int(np.prod(shape)),))
            pair.append(np.broadcast_to(values, (channels,)).astype(np.float32))
        else:
            return None
    return pair[0], pair[1]


def _statistics(params: Params) -> tuple[Array, Array]:
    gamma, beta, mean, variance = (
        params.weight(name, (params.channels,)) for name in ("gamma", "beta", "mean", "variance")
    )
    scale = gamma / np.sqrt(variance + np.float32(params.epsilon))
    return scale, beta - mean * scale


# ---- several inputs --------------------------------------------------------------------

_JOINED = {
    "add": np.add,
    "addBroadcastable": np.add,
    "multiply": np.multiply,
    "multiplyBroadcastable": np.multiply,
    "subtractBroadcastable": np.subtract,
    "divideBroadcastable": np.divide,
    "maxBroadcastable": np.maximum,
    "minBroadcastable": np.minimum,
    "max": np.maximum,
    "min": np.minimum,
}


@planned(*_JOINED)
def joined(params: Params, inputs: int) -> Part | None:
    if inputs < 2:
        return None
    kind = params.kind
    return parts.Joined(_JOINED[kind], broadcasts=kind.endswith("Broadcastable"))


@planned("concat")
def concat(params: Params, inputs: int) -> Part | None:
    return None if params.sequenceConcat else parts.Concatenation()


@planned("concatND")
def concat_nd(params: Params, inputs: int) -> Part | None:
    of_channels = params.axis in (1, -3) and not params.interleave
    return parts.Concatenation() if of_channels else None


# ---- windows ---------------------------------------------------------------------------


@planned("convolution")
def convolution(params: Params, inputs: int) -> Part | None:
    p = params
    if inputs > 1:
        return None

    def bias() -> Array | None:
        return p.weight("bias", (p.outputChannels,)) if p.hasBias else None

    window = Window(p.kernelSize, p.stride, p.dilationFactor)
    shape = (p.outputChannels, p.kernelChannels, *p.kernelSize)
    if not p.isDeconvolution:
        filters = parts.Filters(
            p.outputChannels,
            p.kernelChannels,
            window,
            p.nGroups,
            lambda: p.decoded("weights", shape),
            bias,
        )
        return parts.PlannedConvolution(filters, lambda size: sizes.edges_of(p, size))
    if p.nGroups > 1 or p.dilationFactor != (1, 1):
        return None
    stored_shape = (p.kernelChannels, p.outputChannels, *p.kernelSize)
    filters = parts.Filters(
        p.outputChannels,
        p.kernelChannels,
        window,
        1,
        lambda: p.decoded("weights", stored_shape, channel_axis=1),
        bias,
    )

    def cuts(full: parts.Pair, result: parts.Pair) -> parts.Pair:
        (above, _), (left, _) = sizes.deconvolution_edges(p, full, result)
        return above, left

    return parts.Transposed(filters, cuts)


@planned("pooling")
def pooling(params: Params, inputs: int) -> Part | None:
    p = params
    if p.type == "L2":
        return None
    if p.globalPooling:
        return parts.OverSpace(np.max if p.type == "MAX" else np.mean, worth=True)

    def edges(shape: Shape) -> Any:
        return sizes.pooling_size(p, shape[-2:])[1]

    def divisor(shape: Shape) -> Array:
        counts: Array = sizes.pooling_divisor(p, shape[-2:], *sizes.pooling_size(p, shape[-2:]))
        return counts

    window = Window(p.kernelSize, p.stride, (1, 1))
    return parts.Pooling(window, edges, divisor if p.type == "AVERAGE" else None)


@planned("reduceMean", "reduceMax")
def reduce_space(params: Params, inputs: int) -> Part | None:
    p = params
    if p.reduceAll or not p.keepDims or {axis % 4 for axis in p.axes} != {2, 3}:
        return None
    return parts.OverSpace(np.mean if p.kind == "reduceMean" else np.max)


@planned("padding")
def padding(params: Params, inputs: int) -> Part | None:
    if (params.which("PaddingType") or "constant") != "constant":
        return None
    return parts.Padded(borders(params), float(params.constant.value))


@planned("upsample")
def upsample(params: Params, inputs: int) -> Part | None:
    if params.mode != "NN" or params.fractionalScalingFactor:
        return None
    return parts.Repeated(params.scalingFactor)
