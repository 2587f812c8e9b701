"""Upsampling and resizing of height and width.

Where `Resize` has the grid of a layer it is used. Any other grid becomes a product with two
matrices: a row of a matrix is the hat function max(0, 1 - |position - pixel|) of one sample, which
is what bilinear interpolation weighs the pixels with.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlferry.layers.convolution.onnx import over_maps
from mlferry.layers.elementwise.onnx import affine
from mlferry.layers.exports import op, refuse
from mlferry.layers.params import Params
from mlferry.layers.resizing.definition import target_size, upsample as upsampled
from mlferry.numerics.resizing import BOX_CODINGS
from mlferry.onnx_graph.emitter import FLOAT, Emitter

_UPSAMPLE = {
    "DEFAULT": "asymmetric", "ALIGN_CORNERS_TRUE": "align_corners",
    "ALIGN_CORNERS_FALSE": "half_pixel",
}  # fmt: skip
_RESIZE = {
    "STRICT_ALIGN_ENDPOINTS_MODE": "align_corners", "ALIGN_ENDPOINTS_MODE": "align_corners",
    "UPSAMPLE_MODE": "asymmetric",
}  # fmt: skip


@op("upsample", limits="a fractional factor for an input whose size is not known")
def upsample(e: Emitter, p: Params, x: str) -> str:
    """NN repeats pixels; BILINEAR samples one of three grids."""
    factors = p.fractionalScalingFactor or p.scalingFactor
    height, width = upsampled(p, e.shape(x))[0][-2:]
    if p.mode != "NN":
        grid = _UPSAMPLE[p.linearUpsampleMode]
        if height is None or width is None:
            if any(factor != int(factor) for factor in factors):
                raise refuse("a fractional factor for an image whose size is not known")
            return over_maps(e, x, lambda maps: _scaled(e, maps, factors, "linear", grid))
        return over_maps(e, x, lambda maps: _resized(e, maps, (height, width), grid))
    if all(factor == int(factor) for factor in factors):
        return over_maps(e, x, lambda maps: _scaled(e, maps, factors, "nearest", "asymmetric"))
    if height is None or width is None:
        raise refuse("a fractional factor for an image whose size is not known")
    for axis, size in ((-2, height), (-1, width)):
        extent = e.shape(x)[axis] or 0
        nearest = np.minimum(np.arange(size) * extent // size, extent - 1)
        shape = [*e.shape(x)]
        shape[axis] = size
        x = e.node("Gather", x, e.integers(nearest.tolist()), axis=axis)
        e.shapes[x] = tuple(shape)
    return x


def _scaled(e: Emitter, maps: str, factors: tuple[float, ...], mode: str, grid: str) -> str:
    """By whole factors."""
    scales = e.constant(np.array([1, 1, *(factor or 1 for factor in factors)], np.float32))
    return e.node(
        "Resize", maps, "", scales, mode=mode, coordinate_transformation_mode=grid,
        nearest_mode="floor" if mode == "nearest" else None,
    )  # fmt: skip


def _resized(e: Emitter, maps: str, size: tuple[int, int], grid: str) -> str:
    """Bilinear, to a size; outside of the image its edge counts."""
    wanted = e.vector([*e.extents(maps)[:2], *size])
    return e.node(
        "Resize", maps, "", "", wanted, mode="linear", coordinate_transformation_mode=grid
    )


@op("resizeBilinear")
def resize_bilinear(e: Emitter, p: Params, x: str) -> str:
    mode = p.mode.samplingMethod
    size = target_size(p)
    if mode in _RESIZE and not (mode == "ALIGN_ENDPOINTS_MODE" and 1 in size):
        return over_maps(e, x, lambda maps: _resized(e, maps, size, _RESIZE[mode]))
    ends = [e.vector([extent]) for extent in e.extents(x)[-2:]]
    zero = e.number(0)
    weights = [
        _hats(e, _SAMPLING[mode](e, zero, _minus_one(e, end), count), end)
        for end, count in zip(ends, size, strict=True)
    ]
    return _sampled(e, x, *weights)


def _minus_one(e: Emitter, extent: str) -> str:
    return affine(e, e.reshape(e.from_whole(extent), []), 1, -1)


def _hats(e: Emitter, positions: str, extent: str) -> str:
    """The weights [..., samples, pixels] of samples at [..., samples]; outside the edge counts."""
    last = _minus_one(e, extent)
    inside = e.node("Min", e.node("Max", positions, e.number(0)), last)
    known = e.known(extent)
    if known is not None:
        pixels = e.constant(np.arange(int(known[0]), dtype=np.float32))
    else:
        limits = (e.constant(np.int64(0)), e.squeeze(extent, [0]), e.constant(np.int64(1)))
        places = e.node("Range", *limits)
        e.shapes[places] = (None,)
        pixels = e.node("Cast", places, to=FLOAT)
    away = e.node("Abs", e.node("Sub", e.unsqueeze(inside, [-1]), pixels))
    return e.node("Relu", e.node("Sub", e.number(1), away))


def _sampled(e: Emitter, x: str, rows: str, columns: str) -> str:
    """rows x columns^T, for the last two axes."""
    rank = len(e.shape(columns))
    turned = e.transpose(columns, [*range(rank - 2), rank - 1, rank - 2])
    return e.node("MatMul", e.node("MatMul", rows, x), turned)


# ---- grids: so many samples of an interval whose ends are float32 values -------------------------

Grid = Callable[[Emitter, str, str, int], str]


def _linspace(e: Emitter, start: str, end: str, count: int) -> str:
    if count == 1:
        return e.node("Add", start, e.constant(np.zeros(1, np.float32)))
    steps = e.constant(np.linspace(0, 1, count, dtype=np.float32))
    return e.node("Add", start, e.node("Mul", e.node("Sub", end, start), steps))


def _aligned(e: Emitter, start: str, end: str, count: int) -> str:
    if count > 1:
        return _linspace(e, start, end, count)
    return e.node("Mul", e.node("Add", start, end), e.constant(np.full(1, 0.5, np.float32)))


def _spaced(e: Emitter, start: str, end: str, count: int) -> str:
    """UPSAMPLE_MODE: not behind the end."""
    length = affine(e, e.node("Sub", end, start), 1, 1)
    steps = e.constant((np.arange(count) / count).astype(np.float32))
    positions = e.node("Add", start, e.node("Mul", length, steps))
    return e.node("Min", positions, e.node("Max", start, end))


def _centres(e: Emitter, start: str, end: str, count: int) -> str:
    """ROI_ALIGN_MODE: the middles of so many parts, of one pixel at least."""
    length = e.node("Max", e.node("Sub", end, start), e.number(1))
    steps = e.constant(((np.arange(count) + 0.5) / count).astype(np.float32))
    return e.node("Add", start, e.node("Mul", length, steps))


_SAMPLING: dict[str, Grid] = {
    "STRICT_ALIGN_ENDPOINTS_MODE": _linspace,
    "ALIGN_ENDPOINTS_MODE": _aligned,
    "UPSAMPLE_MODE": _spaced,
    "ROI_ALIGN_MODE": _centres,
}


@op("cropResize", five_axes=True, limits="boxes whose number of values is not known")
def crop_resize(e: Emitter, p: Params, x: str, boxes: str) -> str:
    """Each box of [N, 1, 4, 1, 1] out of every image of the batch.

    Boxes of 5 values start with the index of the image that they are cut out of.
    """
    values = e.shape(boxes)[2]
    if values is None:
        raise refuse("whether boxes have 4 values or 5 is not known")
    rows = e.reshape(boxes, [e.extent(boxes, 0), values])
    images = x
    if values == 5:
        which = e.whole(e.squeeze(e.sliced(rows, 1, 0, 1), [1]))
        images = e.node("Gather", x, which, axis=1)
        e.shapes[images] = (1, e.shape(boxes)[0], *e.shape(x)[2:])
        images = e.transpose(images, [1, 0, 2, 3, 4])
    order, centered = BOX_CODINGS[p.boxIndicesMode.boxMode]
    first = values - 4
    top, left, bottom, right = (
        affine(e, e.sliced(rows, 1, first + place, first + place + 1), p.spatialScale, 0)
        for place in order
    )
    sides = []
    sizes = zip(((top, bottom), (left, right)), (-2, -1), target_size(p), strict=True)
    for (start, end), axis, count in sizes:
        extent = e.vector([e.extent(x, axis)])
        begin, finish = start, end
        if centered:
            half = affine(e, end, 0.5, 0)
            begin, finish = e.node("Sub", start, half), e.node("Add", start, half)
        if p.normalizedCoordinates:
            last = _minus_one(e, extent)
            begin, finish = e.node("Mul", begin, last), e.node("Mul", finish, last)
        positions = _SAMPLING[p.mode.samplingMethod](e, begin, finish, count)
        weights = _hats(e, positions, extent)
        e.shapes[weights] = (e.shape(boxes)[0], count, e.shape(x)[axis])
        sides.append(e.unsqueeze(weights, [1, 2]))
    return _sampled(e, images, *sides)
