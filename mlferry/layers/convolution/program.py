"""Convolution, transposed convolution and pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlferry.layers.borders import borders
from mlferry.layers.convolution import definition as sizes
from mlferry.layers.convolution.either import Edges, cut_and_added, within_kernels
from mlferry.layers.params import Params
from mlferry.layers.program_weights import weight
from mlferry.layers.programs import as_program
from mlferry.numerics.shapes import Array, Shape
from mlferry.programs.builder import NewerOpsetError, ProgramBuilder
from mlferry.programs.graph import Value

_SAME_LOWER = 6  # the opset that brought this padding
_POOLS = {"MAX": "max_pool", "AVERAGE": "avg_pool", "L2": "l2_pool"}


def over_maps(builder: ProgramBuilder, x: Value, compute: Callable[[Value], Value]) -> Value:
    """Apply a function of [N, C, H, W] to a blob with any number of axes before the channels."""
    if x.rank == 4:
        return compute(x)
    extents = builder.extents(x)
    y = compute(builder.reshape(x, [-1, *extents[-3:]]))
    return builder.reshape(y, [*extents[:-3], *builder.extents(y)[1:]])


def custom(edges: Edges) -> dict[str, Any]:
    """The parameters for known padding."""
    if not any(map(any, edges)):
        return {"pad_type": "valid"}
    return {"pad_type": "custom", "pad": [n for edge in edges for n in edge]}


def same(builder: ProgramBuilder, mode: str, maps: Value, edges: Edges) -> dict[str, Any]:
    """The parameters for SAME padding, which is `edges` if the size of maps is known."""
    if mode == "BOTTOM_RIGHT_HEAVY":
        return {"pad_type": "same"}
    if maps.is_fixed:
        return custom(edges)
    if builder.opset < _SAME_LOWER:
        raise NewerOpsetError("padding that is larger in front", _SAME_LOWER)
    return {"pad_type": "same_lower"}


def padded(builder: ProgramBuilder, x: Value, edges: Edges, value: float) -> Value:
    """A blob with its last axes padded."""
    amounts = [n for edge in edges for n in edge]
    if not any(amounts):
        return x
    return builder.op("pad", x=x, pad=amounts, constant_val=np.float32(value))


# ---- convolution --------------------------------------------------------------------------------


@as_program("convolution", limits="`outputShape` for an input whose size is not known")
def convolution(builder: ProgramBuilder, params: Params, x: Value, *more: Value) -> Value:
    """Weights, and a bias, may come as inputs."""
    x = builder.as_float(x)
    transposed = params.isDeconvolution
    shape, axis = sizes.kernel_shape(params), 1 if transposed else 0
    weights = (
        builder.as_float(more[0])
        if more
        else weight(builder, params, "weights", shape, channel_axis=axis)
    )
    bias = params.decoded("bias", (params.outputChannels,)) if params.hasBias else None
    options: dict[str, Any] = {
        "weight": weights,
        "strides": list(params.stride),
        "dilations": list(params.dilationFactor),
        "groups": params.nGroups,
    }

    def compute(maps: Value) -> Value:
        if transposed:
            around = sizes.transposed_sizes(params, maps.shape[-2:])
            return spread_out(builder, maps, options, bias, *around)
        if params.which("ConvolutionPaddingType") == "same":
            edges = sizes.edges_of(params, tuple(n or 0 for n in maps.shape))
            padding = same(builder, params.same.asymmetryMode, maps, edges)
        else:
            padding = custom(borders(params.valid))
        return builder.op("conv", x=maps, bias=bias, **options, **padding)

    y = over_maps(builder, x, compute)
    if len(more) < 2:
        return y
    shift = builder.reshape(builder.as_float(more[1]), [params.outputChannels, 1, 1])
    return builder.op("add", x=y, y=shift)


def spread_out(
    builder: ProgramBuilder,
    x: Value,
    options: dict[str, Any],
    bias: Array | None,
    full: Shape,
    target: Shape,
    edges: Edges | None,
) -> Value:
    """A transposed convolution whose full result is cut, or padded with zeros at the end.

    Args:
        options: weight, strides, dilations and groups.
        bias: an array, or None.
        full: the sizes before the cut.
        target: the sizes of the result.
        edges: how much to cut off in front; the rest follows from the sizes.
    """
    cuts, more = cut_and_added(full, target, edges)
    if not any(more):
        return builder.op("conv_transpose", x=x, bias=bias, **options, **custom(cuts))
    y = builder.op("conv_transpose", x=x, **options, **custom(cuts))
    y = padded(builder, y, [(0, n) for n in more], 0)
    if bias is None:
        return y
    return builder.op("add", x=y, y=bias.reshape(-1, *[1] * len(more)))


# ---- pooling ------------------------------------------------------------------------------------


@as_program("pooling")
def pooling(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """MAX, AVERAGE, or L2: the square root of the sum of squares."""
    x = builder.as_float(x)
    if params.globalPooling:
        return global_pooling(builder, params.type, x, [-2, -1])
    return over_maps(builder, x, lambda maps: _pooled(builder, params, maps))


_GLOBAL = {"MAX": "reduce_max", "AVERAGE": "reduce_mean", "L2": "reduce_l2_norm"}


def global_pooling(builder: ProgramBuilder, kind: str, x: Value, axes: list[int]) -> Value:
    return builder.op(_GLOBAL[kind], x=x, axes=axes, keep_dims=True)


def _pooled(builder: ProgramBuilder, params: Params, maps: Value) -> Value:
    window = {"kernel_sizes": list(params.kernelSize), "strides": list(params.stride)}
    size, mode = maps.shape[-2:], params.which("PoolingPaddingType")
    average = params.type == "AVERAGE"
    exclude = params.avgPoolExcludePadding and average
    if None in size:
        return _pooled_at_any_size(builder, params, maps, window, exclude)
    known = tuple(n or 0 for n in size)
    out, edges = sizes.pooling_size(params, known)
    padding: dict[str, Any] | None = None
    if mode == "same":
        padding = same(builder, params.same.asymmetryMode, maps, edges)
    if not average:
        return pool(builder, params.type, maps, window, edges, padding=padding)
    divisor = sizes.pooling_divisor(params, known, out, edges)
    area = math.prod(params.kernelSize)
    if (divisor == area).all():
        return pool(builder, "AVERAGE", maps, window, edges, padding=padding)
    if params.avgPoolExcludePadding and (divisor > 0).all():
        return pool(builder, "AVERAGE", maps, window, edges, exclude=True, padding=padding)
    mean = pool(builder, "AVERAGE", maps, window, edges, padding=padding)
    return builder.op("mul", x=mean, y=(area / divisor).astype(np.float32))


def _pooled_at_any_size(
    builder: ProgramBuilder, params: Params, maps: Value, window: dict[str, Any], exclude: bool
) -> Value:
    mode = params.which("PoolingPaddingType")
    if mode == "same":
        padding = same(builder, params.same.asymmetryMode, maps, [])
        return pool(builder, params.type, maps, window, [], exclude=exclude, padding=padding)
    if mode != "includeLastPixel":
        return pool(builder, params.type, maps, window, borders(params.valid), exclude=exclude)
    pads = params.includeLastPixel.paddingAmounts or (0, 0)
    if params.type == "AVERAGE":
        return _average_to_last(builder, maps, window, pads, exclude)
    padding = custom([(n, n) for n in pads]) | {"ceil_mode": True}
    return pool(builder, params.type, maps, window, [], padding=padding)


def _average_to_last(
    builder: ProgramBuilder, maps: Value, window: dict[str, Any], pads: Sequence[int], exclude: bool
) -> Value:
    """An average with `includeLastPixel` at any size: that of the map, divided by that of ones.

    Padding by `min(pad + stride, span) - 1` behind gives exactly its number of windows: rounded
    up, and none that starts in the padding.
    """
    behind = [
        min(pad + stride, span) - 1
        for pad, stride, span in zip(pads, window["strides"], window["kernel_sizes"], strict=True)
    ]
    edges = list(zip(pads, behind, strict=True))
    extents: list[int | Value] = []
    for axis, pad in zip((-2, -1), pads, strict=True):
        extent = builder.extent(maps, axis)
        if isinstance(extent, int):
            extents.append(extent if exclude else extent + 2 * pad)
        else:
            extents.append(extent if exclude else builder.op("add", x=extent, y=np.int32(2 * pad)))
    ones = builder.op("fill", shape=builder.vector([1, 1, *extents]), value=np.float32(1))
    counted = edges if exclude else [(0, max(0, end - pad)) for pad, end in edges]
    share = pool(builder, "AVERAGE", ones, window, counted)
    mean = pool(builder, "AVERAGE", maps, window, edges)
    return builder.op("real_div", x=mean, y=share)


def pool(
    builder: ProgramBuilder,
    kind: str,
    x: Value,
    window: dict[str, Any],
    edges: Edges,
    *,
    exclude: bool = False,
    padding: dict[str, Any] | None = None,
) -> Value:
    """Pooling with known padding, or with padding that the op computes.

    Padding as wide as the kernel is an operation of its own.
    """
    if padding is None:
        filler = within_kernels(kind, edges, window["kernel_sizes"], exclude=exclude)
        if filler is not None:
            x = padded(builder, x, edges, filler)
            edges = [(0, 0)] * len(edges)
    options = dict(window) | (padding if padding is not None else custom(edges))
    if kind == "AVERAGE":
        options["exclude_padding_from_average"] = exclude
    return builder.op(_POOLS[kind], x=x, **options)
