"""Pooling and resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.layout import SOURCE, Blob, Constant
from mlferry.converters.lower import Lowering
from mlferry.converters.onnx.ops.convolution import edges, padding, pads_of
from mlferry.converters.onnx.ops.registry import array_of, emit, known, op, positive
from mlferry.errors import ConversionError
from mlferry.spec.shapes.rules import show

_KINDS = {"MaxPool": "MAX", "AveragePool": "AVERAGE", "LpPool": "L2"}


@op(*_KINDS)
def pool(low: Lowering, node: Node, x: Blob) -> Any:
    """Windows of `ceil_mode` that start in the padding at the end are dropped."""
    if len(node.outputs) > 1 and node.outputs[1].name:
        raise ConversionError("the indices of a MaxPool")
    node.attrs.get("storage_order")
    dimensions = x.rank - 2
    kernel = list(node.attrs["kernel_shape"])
    strides = list(node.attrs.get("strides") or [1] * dimensions)
    dilations = list(node.attrs.get("dilations") or [1] * dimensions)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pairs, how = padding(node, x, spans, strides)
    if dimensions == 2 and None in x.known[2:] and node.attrs.get("ceil_mode", 0):
        return _rounded_up(low, node, x, (kernel, strides, dilations, pairs))
    extra = _ceil(node, x, spans, strides, pairs)
    counts = bool(node.attrs.get("count_include_pad", 0))
    p = node.attrs.get("p", 2)
    if node.op == "LpPool" and (p != 2 or dimensions > 2 or max(dilations) > 1):
        return _power_mean(low, node, x, p)
    if dimensions > 2:
        return _volume(low, node, x, (kernel, strides, dilations, pairs, extra), counts=counts)
    beyond = node.op == "AveragePool" and counts and any(extra)
    if beyond or any(d > 1 for d in dilations):
        return _by_slices(low, node, x, (kernel, strides, dilations, pairs, extra), counts=counts)
    full = [(a, b + e) for (a, b), e in zip(pairs, extra, strict=True)]
    given = low.expand(x, 2) if dimensions == 1 else x
    if dimensions == 1:
        kernel, strides, full = [1, *kernel], [1, *strides], [(0, 0), *full]
    how = how if "same" in how else {"valid": edges(full)}
    made = low.layer(
        "pooling", given, layout=SOURCE, type=_KINDS[node.op], kernelSize=kernel, stride=strides,
        avgPoolExcludePadding=node.op == "AveragePool" and not counts, **how,
    )  # fmt: skip
    return low.squeeze(made, 2) if dimensions == 1 else made


def _power_mean(low: Lowering, node: Node, x: Blob, p: int) -> Blob:
    """(sum of |x| ** p) ** (1 / p): a convolution of ones, one group a channel."""
    kernel = list(node.attrs["kernel_shape"])
    strides = list(node.attrs.get("strides") or [1] * len(kernel))
    dilations = list(node.attrs.get("dilations") or [1] * len(kernel))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pairs = pads_of(node, x, spans, strides)
    extra = _ceil(node, x, spans, strides, pairs)
    magnitude = emit(low, "unary", x, type="ABS")
    raised = emit(low, "unary", magnitude, type="POWER", alpha=float(p))
    full = [(a, b + e) for (a, b), e in zip(pairs, extra, strict=True)]
    if any(map(any, full)):
        flat = [0, 0, 0, 0, *(n for pair in full for n in pair)]
        raised = low.layer("constantPad", raised, layout=SOURCE, padAmounts=flat)
    total = _sum_of_windows(low, raised, kernel, strides, dilations)
    return emit(low, "unary", total, type="POWER", alpha=1.0 / p)


def _sum_of_windows(
    low: Lowering, x: Blob, kernel: list[int], strides: list[int], dilations: list[int]
) -> Blob:
    """The sum over shifted slices."""
    parts = _slices(low, x, kernel, strides, dilations)
    return parts[0] if len(parts) == 1 else low.layer("add", *parts, layout=SOURCE)


def _slices(
    low: Lowering, x: Blob, kernel: list[int], strides: list[int], dilations: list[int]
) -> list[Blob]:
    """One slice of the padded input for every place of the kernel."""
    counts = [
        (n - ((k - 1) * d + 1)) // s + 1
        for n, k, d, s in zip(known(x)[2:], kernel, dilations, strides, strict=True)
    ]
    keep, cut = [True, True], [False] * len(kernel)
    parts = []
    for place in np.ndindex(*kernel):
        begin = [i * d for i, d in zip(place, dilations, strict=True)]
        end = [b + (c - 1) * s + 1 for b, c, s in zip(begin, counts, strides, strict=True)]
        parts.append(
            low.layer(
                "sliceStatic", x, layout=SOURCE, beginIds=[0, 0, *begin], endIds=[0, 0, *end],
                beginMasks=[*keep, *cut], endMasks=[*keep, *cut], strides=[1, 1, *strides],
            )
        )  # fmt: skip
    return parts


def _volume(low: Lowering, node: Node, x: Blob, how: Any, *, counts: bool) -> Blob:
    """Three dimensions without dilation and rounding up are Core ML's own; others are slices."""
    kernel, strides, dilations, pairs, extra = how
    average = node.op == "AveragePool"
    if max(dilations) == 1 and not any(extra):
        named: dict[str, Any] = {}
        axes = ("Depth", "Height", "Width")
        sides = (("Front", "Back"), ("Top", "Bottom"), ("Left", "Right"))
        for index, axis in enumerate(axes):
            named[f"kernel{axis}"], named[f"stride{axis}"] = kernel[index], strides[index]
            for side, amount in zip(sides[index], pairs[index], strict=True):
                named[f"customPadding{side}"] = amount
        return low.layer(
            "pooling3d", x, layout=SOURCE, type="AVERAGE" if average else "MAX",
            paddingType="CUSTOM", countExcludePadding=average and not counts, **named,
        )  # fmt: skip
    return _by_slices(low, node, x, how, counts=counts)


def _by_slices(low: Lowering, node: Node, x: Blob, how: Any, *, counts: bool) -> Blob:
    kernel, strides, dilations, pairs, extra = how
    average = node.op == "AveragePool"
    full = [(a, b + e) for (a, b), e in zip(pairs, extra, strict=True)]
    filler = 0.0 if average else float(np.finfo(np.float32).min)
    sizes = known(x)[2:]
    if any(map(any, full)):
        flat = [0, 0, 0, 0, *(n for pair in full for n in pair)]
        x = low.layer("constantPad", x, layout=SOURCE, padAmounts=flat, value=filler)
    parts = _slices(low, x, kernel, strides, dilations)
    if not average:
        return parts[0] if len(parts) == 1 else low.layer("max", *parts, layout=SOURCE)
    total = parts[0] if len(parts) == 1 else low.layer("add", *parts, layout=SOURCE)
    inside = np.ones(sizes)
    inside = np.pad(inside, pairs, constant_values=float(counts))
    inside = np.pad(inside, [(0, e) for e in extra])
    number = np.zeros(known(total)[2:])
    for place in np.ndindex(*kernel):
        number += inside[
            tuple(
                slice(i * d, i * d + (n - 1) * s + 1, s)
                for i, d, n, s in zip(place, dilations, number.shape, strides, strict=True)
            )
        ]
    return emit(low, "divideBroadcastable", total, low.constant(number[None, None]))


def _rounded_up(low: Lowering, node: Node, x: Blob, how: Any) -> Blob:
    """`ceil_mode` at any size: Core ML's own, where both ends have the same padding."""
    kernel, strides, dilations, pairs = how
    counts = node.attrs.get("count_include_pad", 0) and node.op == "AveragePool"
    if max(dilations) > 1 or counts or any(a != b for a, b in pairs):
        raise ConversionError(
            f"ceil_mode with dilations, unequal pads or count_include_pad needs the flexible "
            f"shape {show(x.known)} to be fixed: inputs=[mlferry.TensorType(shape=...)]"
        )
    return low.layer(
        "pooling", x, layout=SOURCE, type=_KINDS[node.op], kernelSize=kernel, stride=strides,
        avgPoolExcludePadding=node.op == "AveragePool",
        includeLastPixel={"paddingAmounts": [a for a, _ in pairs]},
    )  # fmt: skip


def _ceil(node: Node, x: Blob, spans: Any, strides: Any, pairs: Any) -> list[int]:
    """How much padding more the windows of `ceil_mode` need."""
    if not node.attrs.get("ceil_mode", 0):
        return [0] * len(spans)
    extra = []
    sizes = known(x)[2:]
    for size, span, stride, (before, after) in zip(sizes, spans, strides, pairs, strict=True):
        room = size + before + after - span
        count = -(-room // stride) + 1
        if (count - 1) * stride >= size + before:
            count -= 1
        extra.append(max(0, (count - 1) * stride + span - (size + before + after)))
    return extra


_GLOBAL = {"GlobalMaxPool": "reduceMax", "GlobalAveragePool": "reduceMean"}


@op(*_GLOBAL)
def global_pool(low: Lowering, node: Node, x: Blob) -> Blob:
    if x.rank == 4:
        kind = "MAX" if node.op == "GlobalMaxPool" else "AVERAGE"
        return low.layer("pooling", x, layout=SOURCE, type=kind, globalPooling=True, valid={})
    axes = range(2, x.rank)
    return low.layer(_GLOBAL[node.op], x, layout=SOURCE, axes=axes, keepDims=True)


@op("GlobalLpPool")
def global_lp_pool(low: Lowering, node: Node, x: Blob) -> Blob:
    p = node.attrs.get("p", 2)
    kind = {1: "reduceL1", 2: "reduceL2"}.get(int(p))
    if kind is None:
        raise ConversionError(f"p={p}: the L1 and L2 norms can be converted")
    return low.layer(kind, x, layout=SOURCE, axes=range(2, x.rank), keepDims=True)


# ---- resizing --------------------------------------------------------------------------


@op("Upsample", raw=True)
def upsample(low: Lowering, node: Node, x: Any, scales: Any = None) -> Blob:
    """By factors, from the corner: asymmetric, nearest by rounding down."""
    factors = node.attrs.get("scales")
    if factors is None:
        factors = (
            [1, 1, node.attrs["height_scale"], node.attrs["width_scale"]]
            if scales is None
            else array_of(node, 1, scales).tolist()
        )
    mode = node.attrs.get("mode", "nearest")
    sizes = _scaled(x, factors)
    how = {"mode": {"bilinear": "linear"}.get(mode, mode), "transform": "asymmetric",
           "nearest": "floor"}  # fmt: skip
    return _resize(low, x, sizes, list(factors), how)


@op("Resize", raw=True)
def resize_10(low: Lowering, node: Node, x: Any, scales: Any) -> Blob:
    if not isinstance(scales, Constant):
        raise ConversionError("computed scales")
    factors = scales.array.tolist()
    sizes = _scaled(x, factors)
    how = {"mode": node.attrs.get("mode", "nearest"), "transform": "asymmetric",
           "nearest": "floor"}  # fmt: skip
    return _resize(low, x, sizes, factors, how)


@op("Resize", since=11, raw=True)
def resize_11(
    low: Lowering, node: Node, x: Any, roi: Any = None, scales: Any = None, sizes: Any = None
) -> Blob:
    """Every coordinate transformation but `tf_crop_and_resize`, by one matrix an axis."""
    x = low.stored(x) if isinstance(x, Constant) else x
    axes = [positive(a, x.rank) for a in node.attrs.get("axes") or range(x.rank)]
    factors = [1.0] * x.rank
    if sizes is not None:
        if not isinstance(sizes, Constant):
            raise ConversionError("computed sizes")
        shape = known(x)
        target: list[int | None] = list(shape)
        policy = node.attrs.get("keep_aspect_ratio_policy", "stretch")
        wanted = dict(zip(axes, sizes.array.tolist(), strict=True))
        ratios = [wanted[a] / shape[a] for a in axes]
        if policy != "stretch":
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            wanted = {a: math.floor(shape[a] * ratio + 0.5) for a in axes}
            ratios = [ratio] * len(axes)
        for axis, ratio in zip(axes, ratios, strict=True):
            factors[axis], target[axis] = ratio, int(wanted[axis])
    else:
        if not isinstance(scales, Constant) or not scales.array.size:
            raise ConversionError("computed scales")
        for axis, factor in zip(axes, scales.array.tolist(), strict=True):
            factors[axis] = factor
        target = _scaled(x, factors)
    how = {
        "mode": node.attrs.get("mode", "nearest"),
        "transform": node.attrs.get("coordinate_transformation_mode", "half_pixel"),
        "nearest": node.attrs.get("nearest_mode", "round_prefer_floor"),
        "cubic": node.attrs.get("cubic_coeff_a", -0.75),
        "exclude": node.attrs.get("exclude_outside", 0),
        "antialias": node.attrs.get("antialias", 0),
    }
    node.attrs.get("extrapolation_value")
    return _resize(low, x, target, factors, how)


def _scaled(x: Blob, factors: Sequence[float]) -> list[int | None]:
    pairs = zip(x.known, factors, strict=True)
    return [None if n is None else math.floor(n * f) for n, f in pairs]


def _resize(
    low: Lowering, x: Blob, target: list[int | None], factors: list[float], how: dict[str, Any]
) -> Blob:
    if any(n is not None and n < 1 for n in target):
        raise ConversionError(f"a resize to {target}")
    whole = _by_whole_factors(low, x, factors, how)
    if whole is not None:
        return whole
    for axis, (size, out, factor) in enumerate(zip(known(x), target, factors, strict=True)):
        if size == out and factor == 1:
            continue
        if out is None:
            known(x)  # the positions depend on the size
            continue
        positions = _positions(size, out, factor, how["transform"])
        if how["mode"] == "nearest":
            places = np.clip(_ROUNDINGS[how["nearest"]](positions), 0, size - 1)
            x = low.layer("gather", x, low.constant(places), layout=SOURCE, axis=axis)
        else:
            x = _along(low, x, axis, _matrix(size, positions, factor, how))
    return x


# How whole factors repeat each pixel: the transformation with the roundings that do.
_REPEATS = {
    "asymmetric": ("floor",),
    "half_pixel": ("round_prefer_floor", "round_prefer_ceil"),
    "half_pixel_symmetric": ("round_prefer_floor", "round_prefer_ceil"),
    "pytorch_half_pixel": ("round_prefer_floor", "round_prefer_ceil"),
}


def _by_whole_factors(
    low: Lowering, x: Blob, factors: list[float], how: dict[str, Any]
) -> Blob | None:
    """Core ML's own upsampling of height and width, at any size, where it computes the same.

    Its half-pixel grid needs iOS 14, so a known size goes by matrices.
    """
    *outer, height, width = factors
    if x.rank != 4 or set(outer) != {1.0} or height % 1 or width % 1 or min(height, width) < 1:
        return None
    nearest = how["mode"] == "nearest" and how["nearest"] in _REPEATS.get(how["transform"], ())
    smooth = how["mode"] == "linear" and how["transform"] == "half_pixel"
    if not nearest and not (smooth and None in x.known):
        return None
    mode = {"mode": "NN"} if nearest else {
        "mode": "BILINEAR", "linearUpsampleMode": "ALIGN_CORNERS_FALSE"
    }  # fmt: skip
    return low.layer("upsample", x, layout=SOURCE, scalingFactor=(int(height), int(width)), **mode)


def _along(low: Lowering, x: Blob, axis: int, matrix: Any) -> Blob:
    """Multiply one axis by a matrix: as the last axis of an inner product or the last but one."""
    rank = x.rank
    weights = low.constant(matrix)
    if axis == rank - 2:
        return low.layer("batchedMatmul", weights, x, layout=SOURCE)
    if axis == rank - 1:
        return low.layer("batchedMatmul", x, weights, layout=SOURCE, transposeB=True)
    order = [i for i in range(rank) if i != axis] + [axis]
    turned = low.layer("transpose", x, layout=SOURCE, axes=order)
    made = low.layer("batchedMatmul", turned, weights, layout=SOURCE, transposeB=True)
    back = [order.index(i) for i in range(rank)]
    return low.layer("transpose", made, layout=SOURCE, axes=back)


def _positions(size: int, out: int, factor: float, transform: str) -> Any:
    """Where the samples lie, in entries of the input."""
    i = np.arange(out, dtype=np.float64)
    if transform == "half_pixel":
        return (i + 0.5) / factor - 0.5
    if transform == "half_pixel_symmetric":
        adjustment = out / (factor * size)
        center = size / 2
        return center * (1 - adjustment) + (i + 0.5) / factor - 0.5
    if transform == "pytorch_half_pixel":
        return (i + 0.5) / factor - 0.5 if out > 1 else np.zeros(1)
    if transform == "align_corners":
        whole = size * factor  # not rounded
        return i * (size - 1) / (whole - 1) if whole != 1 else np.zeros(out)
    if transform == "asymmetric":
        return i / factor
    raise ConversionError(f"coordinate_transformation_mode={transform!r}")


_ROUNDINGS: dict[str, Any] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
}


def _matrix(size: int, positions: Any, factor: float, how: dict[str, Any]) -> Any:
    """[out, size]: the weights of linear or cubic interpolation; edges repeat."""
    stretch = min(factor, 1.0) if how.get("antialias") else 1.0
    linear = how["mode"] == "linear"
    if not linear and how["mode"] != "cubic":
        raise ConversionError(f"mode={how['mode']!r}")
    radius = (1 if linear else 2) / stretch
    a = how.get("cubic", -0.75)
    matrix = np.zeros((len(positions), size))
    for row, position in enumerate(positions):
        first = math.ceil(position - radius)
        places = np.arange(first, math.floor(position + radius) + 1)
        distance = np.abs(places - position) * stretch
        weights = np.clip(1 - distance, 0, None) if linear else _cubic(distance, a)
        inside = (places >= 0) & (places < size)
        if how.get("exclude") or how.get("antialias"):
            weights = np.where(inside, weights, 0) if how.get("exclude") else weights
        total = weights.sum()
        weights = weights / total if total else weights
        np.add.at(matrix[row], np.clip(places, 0, size - 1), weights)
    return matrix.astype(np.float32)


def _cubic(x: Any, a: float) -> Any:
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
