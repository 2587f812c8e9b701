"""Resizing with every coordinate transformation of ONNX."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import array_of, emit, known, positive
from mlferry.converters.resizing import Sampling, resize, scaled
from mlferry.converters.values import Blob, Constant
from mlferry.errors import ConversionError


def _half_pixel_symmetric(i: Any, size: int, out: int, factor: float) -> Any:
    adjustment = out / (factor * size)
    return size / 2 * (1 - adjustment) + (i + 0.5) / factor - 0.5


def _align_corners(i: Any, size: int, out: int, factor: float) -> Any:
    whole = size * factor  # not rounded, but where it is the extent but for float32
    whole = out if abs(whole - out) < 1e-3 else whole
    return i * (size - 1) / (whole - 1) if whole != 1 else np.zeros(out)


# Where sample i lies, from the extents and their ratio.
_TRANSFORMS: dict[str, Callable[[Any, int, int, float], Any]] = {
    "half_pixel": lambda i, size, out, factor: (i + 0.5) / factor - 0.5,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": lambda i, size, out, factor: (
        (i + 0.5) / factor - 0.5 if out > 1 else np.zeros(1)
    ),
    "align_corners": _align_corners,
    "asymmetric": lambda i, size, out, factor: i / factor,
}
_ROUNDINGS: dict[str, Callable[[Any], Any]] = {
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

    def positions(axis: int, size: int, out: int, factor: float) -> Any:
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
def upsample(context: Lowering, node: Node, x: Any, scales: Any = None) -> Blob:
    """By factors, from the corner: asymmetric, nearest by rounding down."""
    factors = node.attrs.get("scales")
    if factors is None:
        factors = (
            [1, 1, node.attrs["height_scale"], node.attrs["width_scale"]]
            if scales is None
            else array_of(node, 1, scales).tolist()
        )
    mode = node.attrs.get("mode", "nearest")
    how = _sampling({"bilinear": "linear"}.get(mode, mode), "asymmetric")
    return resize(context, x, scaled(x, factors), list(factors), how)


@op("Resize", raw=True)
def resize_10(context: Lowering, node: Node, x: Any, scales: Any) -> Blob:
    if not isinstance(scales, Constant):
        raise ConversionError("computed scales")
    factors = scales.array.tolist()
    how = _sampling(node.attrs.get("mode", "nearest"), "asymmetric")
    return resize(context, x, scaled(x, factors), factors, how)


@op("Resize", since=11, raw=True)
def resize_11(
    context: Lowering, node: Node, x: Any, roi: Any = None, scales: Any = None, sizes: Any = None
) -> Blob:
    x = context.stored(x) if isinstance(x, Constant) else x
    axes = [positive(a, x.rank) for a in node.attrs.get("axes") or range(x.rank)]
    factors, target = _extents(node, x, axes, scales, sizes)
    transform = node.attrs.get("coordinate_transformation_mode", "half_pixel")
    rounding = node.attrs.get("nearest_mode", "round_prefer_floor")
    outside = node.attrs.get("extrapolation_value", 0.0)
    more = {
        "cubic": node.attrs.get("cubic_coeff_a", -0.75),
        "exclude_outside": bool(node.attrs.get("exclude_outside", 0)),
        "antialias": bool(node.attrs.get("antialias", 0)),
    }
    mode = node.attrs.get("mode", "nearest")
    if transform != "tf_crop_and_resize":
        return resize(context, x, target, factors, _sampling(mode, transform, rounding, **more))
    bounds = np.array([[0.0] * x.rank, [1.0] * x.rank])
    bounds[:, axes] = array_of(node, 1, roi).reshape(2, -1)

    def positions(axis: int, size: int, out: int, factor: float) -> Any:
        return _cropped(size, out, bounds[:, axis])

    made = resize(
        context, x, target, factors, Sampling(mode, positions, _ROUNDINGS[rounding], **more)
    )
    inside = np.ones([1] * x.rank, bool)
    for axis, (size, out) in enumerate(zip(known(x), target, strict=True)):
        places = _cropped(size, out or 1, bounds[:, axis])
        within = (places >= 0) & (places <= size - 1)
        inside = inside & within.reshape(-1, *(1,) * (x.rank - axis - 1))
    if inside.all():
        return made
    filler = context.constant([outside])
    return emit(context, "whereBroadcastable", context.constant(inside), made, filler)


def _extents(
    node: Node, x: Blob, axes: list[int], scales: Any, sizes: Any
) -> tuple[list[float], list[int | None]]:
    """The factors and the new extents, from whichever is given."""
    factors = [1.0] * x.rank
    policy = node.attrs.get("keep_aspect_ratio_policy", "stretch")
    if sizes is None:
        if not isinstance(scales, Constant) or not scales.array.size:
            raise ConversionError("computed scales")
        for axis, factor in zip(axes, scales.array.tolist(), strict=True):
            factors[axis] = factor
        return factors, scaled(x, factors)
    if not isinstance(sizes, Constant):
        raise ConversionError("computed sizes")
    shape = known(x)
    target: list[int | None] = list(shape)
    wanted = dict(zip(axes, sizes.array.tolist(), strict=True))
    ratios = [wanted[a] / shape[a] for a in axes]
    if policy != "stretch":
        ratio = min(ratios) if policy == "not_larger" else max(ratios)
        wanted = {a: math.floor(shape[a] * ratio + 0.5) for a in axes}
        ratios = [ratio] * len(axes)
    for axis, ratio in zip(axes, ratios, strict=True):
        factors[axis], target[axis] = ratio, int(wanted[axis])
    return factors, target


def _cropped(size: int, out: int, bounds: Any) -> Any:
    """Positions from a start to an end, which are parts of the axis."""
    start, end = bounds
    if out == 1:
        return np.array([0.5 * (start + end) * (size - 1)])
    return start * (size - 1) + np.arange(out) * (end - start) * (size - 1) / (out - 1)
