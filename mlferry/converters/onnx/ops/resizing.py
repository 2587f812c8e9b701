"""Resizing with every coordinate transformation of ONNX."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mlferry.converters.flexible_resizing import Number, ResizedAxis, positions, resized, size_along
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.extents import UNKNOWN, elements_of, size_of, zeros_along
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import array_of, as_blob, ints, known, positive
from mlferry.converters.resizing import Sampling, by_whole_factors, resize, scaled
from mlferry.converters.sizes import use
from mlferry.converters.slices import sliced
from mlferry.converters.values import Blob, Constant, Operand
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array


def _half_pixel_symmetric(i: Array, size: int, out: int, factor: float) -> Array:
    """Rounding decides which entry is nearest: the offset is float32, the rest double."""
    ratio, extent = np.float32(factor), np.float32(size)
    offset = extent / 2 * (1 - np.float32(out) / (ratio * extent))
    middles = (i.astype(np.float64) + 0.5) / float(ratio)
    return np.asarray(offset + middles - 0.5, i.dtype)


def _align_corners(i: Array, size: int, out: int, factor: float) -> Array:
    whole = size * factor  # not rounded, but where it is the extent but for float32
    whole = out if abs(whole - out) < 1e-3 else whole
    return i * (size - 1) / (whole - 1) if whole != 1 else np.zeros(out)


# Where sample i lies, from the extents and their ratio.
_TRANSFORMS: dict[str, Callable[[Array, int, int, float], Array]] = {
    "half_pixel": lambda i, size, out, factor: (i + 0.5) / factor - 0.5,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": lambda i, size, out, factor: (
        (i + 0.5) / factor - 0.5 if out > 1 else np.zeros(1)
    ),
    "align_corners": _align_corners,
    "asymmetric": lambda i, size, out, factor: i / factor,
}
_ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
}
_TO_NEAREST = ("round_prefer_floor", "round_prefer_ceil")
# How whole factors repeat each pixel: the transformation with the roundings that do.
_REPEATS = {
    "asymmetric": ("floor",),
    "half_pixel": _TO_NEAREST,
    "half_pixel_symmetric": _TO_NEAREST,
    "pytorch_half_pixel": _TO_NEAREST,
}


def _sampling(mode: str, transform: str, rounding: str = "floor", **more: Any) -> Sampling:
    if transform not in _TRANSFORMS:
        raise ConversionError(f"coordinate_transformation_mode={transform!r}")

    # which entry is nearest depends on how runtimes round: they compute in float32
    number: Any = np.float32 if mode == "nearest" else np.float64

    def positions(axis: int, size: int, out: int, factor: float) -> Array:
        return _TRANSFORMS[transform](np.arange(out, dtype=number), size, out, number(factor))

    return Sampling(
        mode,
        positions,
        _ROUNDINGS[rounding],
        repeats=rounding in _REPEATS.get(transform, ()),
        half_pixel=transform == "half_pixel",
        **more,
    )


@op("Upsample", raw=True)
def upsample(context: Lowering, node: Node, x: Operand, scales: Operand | None = None) -> Blob:
    """By factors: asymmetric, nearest by rounding down."""
    factors = node.attrs.get("scales")
    if factors is None:
        factors = (
            [1, 1, node.attrs["height_scale"], node.attrs["width_scale"]]
            if scales is None
            else array_of(node, 1, scales).tolist()
        )
    mode = node.attrs.get("mode", "nearest")
    x = as_blob(context, x)
    sampling = _sampling({"bilinear": "linear"}.get(mode, mode), "asymmetric")
    if _moves(x, factors, sampling):
        requested, axes = Constant("", np.array(factors)), list(range(x.rank))
        return _at_run_time(
            context, x, axes, requested, False, sampling, ("asymmetric", "floor", "stretch")
        )
    return resize(context, x, scaled(x, factors), list(factors), sampling)


@op("Resize", raw=True)
def resize_10(context: Lowering, node: Node, x: Operand, scales: Operand) -> Blob:
    x = as_blob(context, x)
    sampling = _sampling(node.attrs.get("mode", "nearest"), "asymmetric")
    if not isinstance(scales, Constant) or _moves(x, scales.array.tolist(), sampling):
        axes = list(range(x.rank))
        return _at_run_time(
            context, x, axes, scales, False, sampling, ("asymmetric", "floor", "stretch")
        )
    factors = scales.array.tolist()
    return resize(context, x, scaled(x, factors), factors, sampling)


@op("Resize", since=11, raw=True)
def resize_11(
    context: Lowering,
    node: Node,
    x: Operand,
    roi: Operand | None = None,
    scales: Operand | None = None,
    sizes: Operand | None = None,
) -> Blob:
    x = as_blob(context, x)
    axes = [positive(a, x.rank) for a in node.attrs.get("axes") or range(x.rank)]
    transform = node.attrs.get("coordinate_transformation_mode", "half_pixel")
    rounding = node.attrs.get("nearest_mode", "round_prefer_floor")
    outside = node.attrs.get("extrapolation_value", 0.0)
    more = {
        "cubic": node.attrs.get("cubic_coeff_a", -0.75),
        "exclude_outside": bool(node.attrs.get("exclude_outside", 0)),
        "antialias": bool(node.attrs.get("antialias", 0)),
    }
    mode = node.attrs.get("mode", "nearest")
    policy = node.attrs.get("keep_aspect_ratio_policy", "stretch")
    requested = _requested(node, scales, sizes)
    if transform != "tf_crop_and_resize":
        sampling = _sampling(mode, transform, rounding, **more)
        if not isinstance(requested, Constant) or _is_flexible(
            x, axes, requested, sizes is not None, sampling
        ):
            method = transform, rounding, policy
            return _at_run_time(context, x, axes, requested, sizes is not None, sampling, method)
        factors, target = _extents(node, x, axes, requested, sizes is not None)
        return resize(context, x, target, factors, sampling)
    if not isinstance(requested, Constant):
        raise ConversionError(
            "a crop whose size is computed: give fixed shapes with "
            "inputs=[mlferry.TensorType(name=..., shape=...)]"
        )
    bounds = np.array([[0.0] * x.rank, [1.0] * x.rank])
    bounds[:, axes] = array_of(node, 1, roi).reshape(2, -1)
    if sizes is not None and policy == "stretch" and None in [x.known[axis] for axis in axes]:
        sampling = Sampling(mode, lambda *axis: np.zeros(0), _ROUNDINGS[rounding], **more)
        extents = dict(zip(axes, ints(requested.array), strict=True))
        return _cropped_at_run_time(context, x, extents, bounds, (sampling, rounding, outside))
    factors, target = _extents(node, x, axes, requested, sizes is not None)

    def positions(axis: int, size: int, out: int, factor: float) -> Array:
        return _cropped(size, out, bounds[:, axis])

    output = resize(
        context, x, target, factors, Sampling(mode, positions, _ROUNDINGS[rounding], **more)
    )
    inside = np.ones([1] * x.rank, bool)
    for axis, (size, out) in enumerate(zip(known(x), target, strict=True)):
        places = _cropped(size, out or 1, bounds[:, axis])
        within = (places >= 0) & (places <= size - 1)
        inside = inside & within.reshape(-1, *(1,) * (x.rank - axis - 1))
    if inside.all():
        return output
    filler = context.constant([outside])
    return context.where(context.constant(inside), output, filler)


def _cropped_at_run_time(
    context: Lowering,
    x: Blob,
    extents: Mapping[int, int],
    bounds: Array,
    method: tuple[Sampling, str, float],
) -> Blob:
    """Parts of axes that vary, resized to known extents; one value fills what lies beyond."""
    sampling, rounding, outside = method
    rank = x.rank
    for axis, out in extents.items():
        start, end = (float(n) for n in bounds[:, axis])
        size = size_along(context, x, axis)
        last = size - 1.0
        if (start, end, out) == (0.0, 1.0, x.known[axis]):
            continue
        if out == 1:
            shares = np.array([0.5 * (start + end)], np.float32)
        else:
            shares = np.float32(start + np.arange(out) * (end - start) / (out - 1))
        places = Number(context, shares) * last
        target = Number(context, np.float32(out))
        along = ResizedAxis(size, target, target / size, is_scaled=False)
        x = resized(context, x, axis, along, places, sampling, rounding)
        if 0 <= start <= 1 and 0 <= end <= 1:
            continue
        inside = context.emit(
            "logicalAnd",
            context.emit("greaterEqual", places.blob, alpha=0.0),
            context.emit("lessEqual", places.blob, last.blob),
        )
        if axis < rank - 1:
            inside = context.expand(inside, *range(1, rank - axis))
        x = context.where(inside, x, context.constant([outside]))
    return x


def _requested(node: Node, scales: Operand | None, sizes: Operand | None) -> Operand:
    """The sizes or the scales."""
    if sizes is not None:
        return sizes
    if scales is None or (isinstance(scales, Constant) and not scales.array.size):
        raise ConversionError("neither scales nor sizes")
    return scales


def _moves(x: Blob, factors: Sequence[float], sampling: Sampling) -> bool:
    """Whether an axis of unknown extent is resized in a way that depends on it."""
    open_axes = any(n is None and f != 1 for n, f in zip(x.known, factors, strict=True))
    return open_axes and not by_whole_factors(x, factors, sampling)


def _is_flexible(
    x: Blob, axes: Sequence[int], requested: Constant, is_size: bool, sampling: Sampling
) -> bool:
    if is_size:
        return any(x.known[axis] is None for axis in axes)
    factors = [1.0] * x.rank
    for axis, factor in zip(axes, requested.array.tolist(), strict=True):
        factors[axis] = factor
    return _moves(x, factors, sampling)


def _at_run_time(
    context: Lowering,
    x: Blob,
    axes: list[int],
    requested: Operand,
    is_size: bool,
    sampling: Sampling,
    method: tuple[str, str, str],
) -> Blob:
    """Resize if extents are computed, or vary: positions are computed, too."""
    transform, rounding, policy = method
    elements = elements_of(context, requested) if is_size else None
    ratios = []
    results: list[ResizedAxis] = []
    for place, axis in enumerate(axes):
        size = _size(context, x, axis)
        if not is_size:
            factor = Number(context, _entry(context, requested, place))
            out = (size * factor).floor()
            results.append(ResizedAxis(size, out, factor, is_scaled=True))
            continue
        element = elements[place] if elements is not None else UNKNOWN
        context.sizes.use(element.made_of)
        value = element.value
        if element.is_extent(x, axis) or (value is not None and value == x.known[axis]):
            out = size
        else:
            out = Number(context, _entry(context, requested, place) if value is None else value)
        ratios.append(out / size)
        like = zeros_along(context, element) if policy == "stretch" else None
        results.append(ResizedAxis(size, out, out / size, is_scaled=False, like=like))
    if policy != "stretch" and is_size:
        ratio = ratios[0]
        for other in ratios[1:]:
            ratio = ratio.at_most(other) if policy == "not_larger" else ratio.at_least(other)
        results = [
            ResizedAxis(a.size, (a.size * ratio + 0.5).floor(), ratio, is_scaled=False)
            for a in results
        ]
    for axis, resized_axis in zip(axes, results, strict=True):
        if resized_axis.out.value is resized_axis.size.value or _is_one(resized_axis.factor):
            continue
        if transform == "half_pixel_symmetric" and sampling.mode == "nearest":
            raise ConversionError(
                f"coordinate_transformation_mode={transform!r}: which entry is nearest takes "
                "double precision, which networks do not have; sizes and factors must be known"
            )
        places = positions(resized_axis, transform)
        x = resized(context, x, axis, resized_axis, places, sampling, rounding)
    return x


def _is_one(factor: Number) -> bool:
    return not isinstance(factor.value, Blob) and bool(factor.value == 1)


def _size(context: Lowering, x: Blob, axis: int) -> Number:
    known_size = x.known[axis]
    if known_size is None:
        return Number(context, size_of(context, x, axis))
    use(x, [axis])
    return Number(context, np.float32(known_size))


def _entry(context: Lowering, requested: Operand, place: int) -> Blob | np.float32:
    if isinstance(requested, Constant):
        factor: np.float32 = np.float32(requested.array.ravel()[place])
        return factor
    return sliced(context, requested, [place], [place + 1], [0], None)


def _extents(
    node: Node, x: Blob, axes: list[int], requested: Constant, is_size: bool
) -> tuple[list[float], list[int | None]]:
    """The factors and the new extents, one of which follows from the other."""
    factors = [1.0] * x.rank
    policy = node.attrs.get("keep_aspect_ratio_policy", "stretch")
    if not is_size:
        for axis, factor in zip(axes, requested.array.tolist(), strict=True):
            factors[axis] = factor
        return factors, scaled(x, factors)
    shape = known(x)
    target: list[int | None] = list(shape)
    extents = dict(zip(axes, requested.array.tolist(), strict=True))
    ratios = [extents[a] / shape[a] for a in axes]
    if policy != "stretch":
        ratio = min(ratios) if policy == "not_larger" else max(ratios)
        extents = {a: math.floor(shape[a] * ratio + 0.5) for a in axes}
        ratios = [ratio] * len(axes)
    for axis, ratio in zip(axes, ratios, strict=True):
        factors[axis], target[axis] = ratio, int(extents[axis])
    return factors, target


def _cropped(size: int, out: int, bounds: Array) -> Array:
    """Positions between a start and an end, which are fractions of the axis."""
    start, end = bounds
    if out == 1:
        return np.array([0.5 * (start + end) * (size - 1)])
    return np.asarray(start * (size - 1) + np.arange(out) * (end - start) * (size - 1) / (out - 1))
