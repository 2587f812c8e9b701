"""Resizing: by Core ML's own upsampling, by gathering, or by a matrix an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.layout import SOURCE, Blob, Constant
from mlferry.converters.lower import Lowering
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import array_of, emit, known, positive
from mlferry.errors import ConversionError


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
    """By one matrix an axis."""
    x = low.stored(x) if isinstance(x, Constant) else x
    axes = [positive(a, x.rank) for a in node.attrs.get("axes") or range(x.rank)]
    factors = [1.0] * x.rank
    policy = node.attrs.get("keep_aspect_ratio_policy", "stretch")
    if sizes is not None:
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
    outside = node.attrs.get("extrapolation_value", 0.0)
    if how["transform"] != "tf_crop_and_resize":
        return _resize(low, x, target, factors, how)
    bounds = np.array([[0.0] * x.rank, [1.0] * x.rank])
    bounds[:, axes] = array_of(node, 1, roi).reshape(2, -1)
    how["bounds"] = bounds
    made = _resize(low, x, target, factors, how)
    inside = np.ones([1] * x.rank, bool)
    for axis, (size, out) in enumerate(zip(known(x), target, strict=True)):
        positions = _cropped(size, out or 1, bounds[:, axis])
        within = (positions >= 0) & (positions <= size - 1)
        inside = inside & within.reshape(-1, *(1,) * (x.rank - axis - 1))
    if inside.all():
        return made
    filler = low.constant([outside])
    return emit(low, "whereBroadcastable", low.constant(inside), made, filler)


def _cropped(size: int, out: int, bounds: Any) -> Any:
    """Positions from a start to an end, which are parts of the axis."""
    start, end = bounds
    if out == 1:
        return np.array([0.5 * (start + end) * (size - 1)])
    return start * (size - 1) + np.arange(out) * (end - start) * (size - 1) / (out - 1)


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
        cropped = how.get("bounds")
        if size == out and factor == 1 and (cropped is None or tuple(cropped[:, axis]) == (0, 1)):
            continue
        if out is None:
            known(x)  # the positions depend on the size
            continue
        positions = (
            _positions(size, out, factor, how["transform"])
            if cropped is None
            else _cropped(size, out, cropped[:, axis])
        )
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
