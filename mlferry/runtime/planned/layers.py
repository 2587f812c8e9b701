"""The layer kinds that a plan takes: one function a kind, and what can follow another layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlferry.layers.convolution import definition as sizes
from mlferry.layers.elementwise.kernel import clipped
from mlferry.layers.kernels import KERNELS
from mlferry.layers.params import Params
from mlferry.runtime.planned import convolution as conv, transposed, winograd
from mlferry.runtime.planned.maps import NO_BORDER, Array, Border
from mlferry.runtime.planned.plan import NotPlannedError, Plan, follower, padding_of, planned
from mlferry.runtime.planned.pooling import pool
from mlferry.runtime.planned.products import Finish, Pointwise, blocks
from mlferry.runtime.steps import Step

Shape = tuple[int, ...]
_ZERO, _LARGEST = np.float32(0), np.float32(np.inf)


# ---- value by value --------------------------------------------------------------------


def _function(params: Params) -> Pointwise | None:
    """A layer that works value by value, on any order of axes; None for other layers."""
    kind = params.which("NonlinearityType") if params.kind == "activation" else params.kind
    if kind == "ReLU":
        return lambda x, out: clipped(x, _ZERO, _LARGEST, out=out)
    if kind == "clip":
        least, most = np.float32(params.minVal), np.float32(params.maxVal)
        return lambda x, out: clipped(x, least, most, out=out)
    if kind in ("PReLU", "parametricSoftplus", None):
        return None
    kernel = KERNELS.find(params.kind).value  # type: ignore[union-attr] # `Session` checked it
    return lambda x, out: np.copyto(out, kernel(params, x))


def _affine(params: Params, channels: int) -> tuple[Array, Array] | None:
    """The factor and the shift a channel of a normalization, scale or bias."""
    if params.kind == "batchnorm":
        if params.computeMeanVar:
            return None
        scale, shift = params.once("factor and shift", lambda: _statistics(params))
        return scale, shift
    one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    found: list[Array] = []
    for name, shape, default in (
        ("scale", params.shapeScale if params.kind == "scale" else (), one),
        (
            "bias",
            params.shape if params.kind == "bias" else params.shapeBias if params.hasBias else (),
            zero,
        ),
    ):
        if not shape:
            found.append(default)
        elif tuple(shape) in ((channels, 1, 1), (channels,), (1,), (1, 1, 1)):
            values = params.weight(name, (int(np.prod(shape)),))
            found.append(np.broadcast_to(values, (channels,)).astype(np.float32))
        else:
            return None
    return found[0], found[1]


def _statistics(params: Params) -> tuple[Array, Array]:
    gamma, beta, mean, variance = (
        params.weight(name, (params.channels,)) for name in ("gamma", "beta", "mean", "variance")
    )
    scale = gamma / np.sqrt(variance + np.float32(params.epsilon))
    return scale, beta - mean * scale


_VALUEWISE = ("activation", "clip")
_BY_CHANNEL = ("batchnorm", "scale", "bias")


@follower(*_VALUEWISE)
def follow_function(plan: Plan, step: Step, name: str, finish: Finish) -> bool:
    function = _function(step.params)
    if function is not None:
        finish.functions.append(function)
    return function is not None


@follower(*_BY_CHANNEL)
def follow_affine(plan: Plan, step: Step, name: str, finish: Finish) -> bool:
    """Into weights and bias where nothing came before it; otherwise one more function."""
    found = _affine(step.params, plan.size(name)[2])
    if found is None or finish.shortcut is not None or finish.functions:
        return False
    factor, shift = found
    if finish.factor is not None:
        finish.factor = finish.factor * factor
        finish.bias = shift if finish.bias is None else finish.bias * factor + shift
        finish.folded = (*finish.folded, step.params.name)
        return True
    finish.functions.append(_scaled(factor, shift))
    return True


def _scaled(factor: Array, shift: Array) -> Pointwise:
    def apply(x: Array, out: Array) -> None:
        np.multiply(x, factor, out=out)
        np.add(out, shift, out=out)

    return apply


@follower("add", "addBroadcastable")
def follow_sum(plan: Plan, step: Step, name: str, finish: Finish) -> bool:
    """With a blob of the same shape that is there already."""
    others = [other for other in step.inputs if other != name]
    if len(step.inputs) != 2 or len(others) != 1 or others[0] not in plan.made:
        return False
    if plan.shapes[others[0]] != plan.shapes[name] or finish.shortcut is not None:
        return False
    if finish.functions:
        return False
    finish.shortcut = plan.map(others[0]).inner
    return True


@planned(*_VALUEWISE, when=lambda step: _function(step.params) is not None, in_place=True)
def valuewise(plan: Plan, step: Step) -> None:
    function = _function(step.params)
    assert function is not None
    _alone(plan, step, Finish(functions=[function]))


@planned(*_BY_CHANNEL, in_place=True)
def by_channel(plan: Plan, step: Step) -> None:
    p = step.params
    if p.kind == "batchnorm" and p.computeMeanVar and p.instanceNormalization:
        instance_normalization(plan, step)
        return
    found = _affine(p, plan.size(step.inputs[0])[2])
    if found is None:
        raise NotPlannedError(p.kind)
    _alone(plan, step, Finish(functions=[_scaled(*found)]))


_ROWS = 60_000  # values that are worked on at a time


def _alone(plan: Plan, step: Step, finish: Finish) -> None:
    """A layer that follows nothing: it and what follows, some rows at a time."""
    finish, name = plan.finish(step, finish)
    x, y = plan.map(step.inputs[0]).inner, plan.map(name).inner
    height, width, channels = y.shape
    parts = blocks(height, _ROWS // (width * channels))

    def run() -> None:
        for top, number in parts:
            target = y[top : top + number]
            first, *rest = finish.functions
            first(x[top : top + number], target)
            for function in rest:
                function(target, target)

    plan.add(run)


def instance_normalization(plan: Plan, step: Step) -> None:
    """Mean and variance of each channel, by products with ones; then one pass."""
    p = step.params
    finish, name = plan.finish(step, Finish())
    x, y = plan.map(step.inputs[0]).inner, plan.map(name).inner
    gamma, beta = (p.weight(field, (p.channels,)) for field in ("gamma", "beta"))

    height, width, channels = x.shape
    parts = blocks(height, _ROWS // (width * channels))
    held = plan.work.take(parts[0][1], width, channels)
    ones = np.ones((1, parts[0][1] * width), np.float32)

    def sums(of: Callable[[Array, Array], None]) -> Array:
        total = np.zeros(channels)
        for top, number in parts:
            part = held[:number]
            of(x[top : top + number], part)
            total += (ones[:, : number * width] @ part.reshape(-1, channels))[0]
        mean: Array = (total / (height * width)).astype(np.float32)
        return mean

    def run() -> None:
        mean = sums(lambda given, out: np.copyto(out, given))

        def squares(given: Array, out: Array) -> None:
            np.subtract(given, mean, out=out)
            np.multiply(out, out, out=out)

        factor = gamma / np.sqrt(sums(squares) + np.float32(p.epsilon))
        shift = beta - mean * factor
        wide_factor, wide_shift = (np.tile(v, width) for v in (factor, shift))
        for top, number in parts:
            part = held[:number]
            np.copyto(part, x[top : top + number])
            rows = part.reshape(number, -1)
            np.multiply(rows, wide_factor, out=rows)
            np.add(rows, wide_shift, out=rows)
            finish(part, y[top : top + number], top)

    plan.add(run)


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


@planned(*_JOINED, when=lambda step: len(step.inputs) > 1)
def joined(plan: Plan, step: Step) -> None:
    """Of maps that broadcast, two at a time."""
    combine = _JOINED[step.params.kind]
    finish, name = plan.finish(step, Finish())
    first, *others = [plan.map(blob).inner for blob in step.inputs]
    y = plan.map(name).inner

    def run() -> None:
        current = first
        for other in others:
            combine(current, other, out=y)
            current = y
        finish(y, y, 0)

    plan.add(run)


def _is_of_channels(step: Step) -> bool:
    p = step.params
    if p.kind == "concat":
        return not p.sequenceConcat
    return p.axis in (1, -3) and not p.interleave


@planned("concat", "concatND", when=_is_of_channels)
def concat(plan: Plan, step: Step) -> None:
    """The parts lie in their places already, but for those that come from elsewhere."""
    (whole,) = step.outputs
    target = plan.map(whole).inner
    start = 0
    for name in step.inputs:
        count = plan.size(name)[2]
        part, source = target[..., start : start + count], plan.map(name).inner
        if not np.shares_memory(part, source):
            plan.add(_copying(part, source))
        start += count


def _copying(target: Array, source: Array) -> conv.Run:
    return lambda: np.copyto(target, source)


# ---- windows ---------------------------------------------------------------------------


def _border_of(edges: Any) -> Border:
    (above, below), (left, right) = edges
    return above, below, left, right


@padding_of("convolution")
def convolution_padding(plan: Plan, step: Step, shape: Shape) -> tuple[Border, float]:
    """Tiles of Winograd's may reach beyond the end."""
    if step.params.isDeconvolution:
        tall, wide = _phases(plan, step)
        return (*transposed.border(tall, shape[2]), *transposed.border(wide, shape[3])), 0.0
    above, below, left, right = _border_of(sizes.edges_of(step.params, shape))
    tile = _tile(plan, step)
    if tile:
        height, width, _ = plan.size(step.outputs[0])
        below, right = below + -height % tile, right + -width % tile
    return (above, below, left, right), 0.0


def _phases(plan: Plan, step: Step) -> tuple[list[transposed.Phase], list[transposed.Phase]]:
    p = step.params
    size, result = plan.size(step.inputs[0])[:2], plan.size(step.outputs[0])[:2]
    full = tuple((n - 1) * s + k for n, s, k in zip(size, p.stride, p.kernelSize, strict=True))
    (above, _), (left, _) = sizes.deconvolution_edges(p, (full[0], full[1]), result)
    tall, wide = (
        transposed.phases(k, s, before, n)
        for k, s, before, n in zip(p.kernelSize, p.stride, (above, left), result, strict=True)
    )
    return tall, wide


def _transposed(plan: Plan, step: Step) -> None:
    p = step.params
    (source,) = step.inputs
    bias = p.weight("bias", (p.outputChannels,)) if p.hasBias else None
    finish, name = plan.finish(step, Finish(bias=bias))
    around, fill = convolution_padding(plan, step, plan.shapes[source])
    x, y = plan.padded(source, around, fill), plan.map(name).inner
    weights = p.weight(
        "weights", (p.kernelChannels, p.outputChannels, *p.kernelSize), channel_axis=1
    )
    plan.add(
        transposed.transposed(
            x, weights, _phases(plan, step), p.stride, (around[0], around[2]), y, finish, plan.work
        )
    )


def _tile(plan: Plan, step: Step) -> int:
    p = step.params
    square = p.kernelSize == (3, 3) and p.stride == (1, 1) and p.dilationFactor == (1, 1)
    if not (plan.winograd and square and p.nGroups == 1) or p.isDeconvolution:
        return 0
    height, width, count = plan.size(step.outputs[0])
    return winograd.tile_for(height, width, p.kernelChannels, count)


def _is_plain(step: Step) -> bool:
    p = step.params
    simple = p.nGroups == 1 and p.dilationFactor == (1, 1)
    return len(step.inputs) == 1 and (simple or not p.isDeconvolution)


@planned("convolution", when=_is_plain)
def convolution(plan: Plan, step: Step) -> None:
    """A normalization behind it goes into the weights; so does a factor a channel."""
    p = step.params
    if p.isDeconvolution:
        _transposed(plan, step)
        return
    (source,) = step.inputs
    bias = p.weight("bias", (p.outputChannels,)) if p.hasBias else None
    one = np.ones(p.outputChannels, np.float32)
    finish, name = plan.finish(step, Finish(factor=one, bias=bias))
    border, fill = convolution_padding(plan, step, plan.shapes[source])
    x, y = plan.padded(source, border, fill), plan.map(name).inner
    window = conv.Window(p.kernelSize, p.stride, p.dilationFactor)
    weights = _weights(p, finish)

    def once(what: str, make: Callable[[], Any]) -> Any:
        return p.once(f"{what} with {finish.folded}", make)

    if p.nGroups > 1 and p.kernelChannels == 1 and p.nGroups == p.outputChannels:
        taps = once("taps", lambda: np.ascontiguousarray(weights()[:, 0].transpose(1, 2, 0)))
        plan.add(conv.depthwise(x, taps, window, y, finish, plan.work))
        return
    tile = _tile(plan, step)
    if tile:
        spread = once(f"tiles of {tile}", lambda: winograd.transformed(weights(), tile))
        plan.add(winograd.convolved(x, spread, tile, y, finish, plan.work))
        return
    matrices = once("matrices", lambda: _matrices(weights(), p.nGroups))
    if len(matrices) > 1:
        plan.add(conv.grouped(x, matrices, window, y, finish, plan.work))
        return
    run = None
    if p.kernelSize == (1, 1) and p.stride == (1, 1):
        run = conv.pointwise(x, matrices[0], y, finish, plan.work)
    plan.add(run or conv.unfolded(x, matrices[0], window, y, finish, plan.work))


def _weights(params: Params, finish: Finish) -> Callable[[], Array]:
    """[M, C, kH, kW], times the factors of what follows."""

    def read() -> Array:
        stored = params.decoded(
            "weights", (params.outputChannels, params.kernelChannels, *params.kernelSize)
        )
        if not finish.folded or finish.factor is None:
            return stored
        return stored * finish.factor[:, None, None, None]

    return read


def _matrices(weights: Array, groups: int) -> list[Array]:
    """[kH * kW * C, M] of every group."""
    count = weights.shape[0] // groups
    return [
        np.ascontiguousarray(
            weights[g * count : (g + 1) * count].transpose(2, 3, 1, 0).reshape(-1, count)
        )
        for g in range(groups)
    ]


@padding_of("pooling")
def pooling_padding(plan: Plan, step: Step, shape: Shape) -> tuple[Border, float]:
    p = step.params
    if p.globalPooling:
        return NO_BORDER, 0.0
    _, edges = sizes.pooling_size(p, shape[-2:])
    return _border_of(edges), -np.inf if p.type == "MAX" else 0.0


@planned("pooling", when=lambda step: step.params.type != "L2")
def pooling(plan: Plan, step: Step) -> None:
    p = step.params
    (source,) = step.inputs
    if p.globalPooling:
        _over_space(plan, step, np.max if p.type == "MAX" else np.mean)
        return
    border, fill = pooling_padding(plan, step, plan.shapes[source])
    finish, name = plan.finish(step, Finish())
    size, edges = sizes.pooling_size(p, plan.shapes[source][-2:])
    divisor = None
    if p.type == "AVERAGE":
        divisor = sizes.pooling_divisor(p, plan.shapes[source][-2:], size, edges)[..., None]
    combine = np.maximum if p.type == "MAX" else np.add
    window = conv.Window(p.kernelSize, p.stride, (1, 1))
    x = plan.padded(source, border, fill)
    plan.add(pool(x, window, plan.map(name).inner, finish, combine, divisor, plan.work))


def _over_space(plan: Plan, step: Step, reduce: Any) -> None:
    finish, name = plan.finish(step, Finish())
    x, y = plan.map(step.inputs[0]).inner, plan.map(name).inner

    def run() -> None:
        y[0, 0] = reduce(x, axis=(0, 1))
        finish(y, y, 0)

    plan.add(run)


def _is_over_space(step: Step) -> bool:
    p = step.params
    return not p.reduceAll and p.keepDims and {axis % 4 for axis in p.axes} == {2, 3}


@planned("reduceMean", "reduceMax", when=_is_over_space)
def reduce_space(plan: Plan, step: Step) -> None:
    p = step.params
    _over_space(plan, step, np.mean if p.kind == "reduceMean" else np.max)


def _repeats(step: Step) -> bool:
    return step.params.mode == "NN" and not step.params.fractionalScalingFactor


@planned("upsample", when=_repeats)
def upsample(plan: Plan, step: Step) -> None:
    """Each pixel repeated."""
    p = step.params
    (source,), (name,) = step.inputs, step.outputs
    height, width, channels = plan.size(source)
    down, across = p.scalingFactor
    x, y = plan.map(source).inner, plan.map(name).inner
    target = np.lib.stride_tricks.as_strided(
        y,
        (height, down, width, across, channels),
        (y.strides[0] * down, y.strides[0], y.strides[1] * across, y.strides[1], y.strides[2]),
    )
    plan.add(lambda: np.copyto(target, x[:, None, :, None]))
