"""Upsampling and resizing of height and width.

`Resize` is used if it has the grid of the layer. Any other grid becomes a product with two
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
    "DEFAULT": "asymmetric",
    "ALIGN_CORNERS_TRUE": "align_corners",
    "ALIGN_CORNERS_FALSE": "half_pixel",
}
_RESIZE = {
    "STRICT_ALIGN_ENDPOINTS_MODE": "align_corners",
    "ALIGN_ENDPOINTS_MODE": "align_corners",
    "UPSAMPLE_MODE": "asymmetric",
}


@op("upsample", limits="a fractional factor for an input whose size is not known")
def upsample(emitter: Emitter, params: Params, x: str) -> str:
    """NN repeats pixels; BILINEAR samples one of three grids."""
    factors = params.fractionalScalingFactor or params.scalingFactor
    height, width = upsampled(params, emitter.shape(x))[0][-2:]
    if params.mode != "NN":
        grid = _UPSAMPLE[params.linearUpsampleMode]
        if height is None or width is None:
            if any(factor != int(factor) for factor in factors):
                raise refuse("a fractional factor for an image whose size is not known")
            return over_maps(
                emitter, x, lambda maps: _scaled(emitter, maps, factors, "linear", grid)
            )
        return over_maps(emitter, x, lambda maps: _resized(emitter, maps, (height, width), grid))
    if all(factor == int(factor) for factor in factors):
        return over_maps(
            emitter, x, lambda maps: _scaled(emitter, maps, factors, "nearest", "asymmetric")
        )
    if height is None or width is None:
        raise refuse("a fractional factor for an image whose size is not known")
    for axis, size in ((-2, height), (-1, width)):
        extent = emitter.shape(x)[axis] or 0
        nearest = np.minimum(np.arange(size) * extent // size, extent - 1)
        shape = [*emitter.shape(x)]
        shape[axis] = size
        x = emitter.node("Gather", x, emitter.integers(nearest.tolist()), axis=axis)
        emitter.shapes[x] = tuple(shape)
    return x


def _scaled(emitter: Emitter, maps: str, factors: tuple[float, ...], mode: str, grid: str) -> str:
    """By whole factors."""
    scales = emitter.constant(np.array([1, 1, *(factor or 1 for factor in factors)], np.float32))
    return emitter.node(
        "Resize",
        maps,
        "",
        scales,
        mode=mode,
        coordinate_transformation_mode=grid,
        nearest_mode="floor" if mode == "nearest" else None,
    )


def _resized(emitter: Emitter, maps: str, size: tuple[int, int], grid: str) -> str:
    """Bilinear, to a size; outside of the image its edge counts."""
    target = emitter.vector([*emitter.extents(maps)[:2], *size])
    return emitter.node(
        "Resize", maps, "", "", target, mode="linear", coordinate_transformation_mode=grid
    )


@op("resizeBilinear")
def resize_bilinear(emitter: Emitter, params: Params, x: str) -> str:
    mode = params.mode.samplingMethod
    size = target_size(params)
    if mode in _RESIZE and not (mode == "ALIGN_ENDPOINTS_MODE" and 1 in size):
        return over_maps(emitter, x, lambda maps: _resized(emitter, maps, size, _RESIZE[mode]))
    ends = [emitter.vector([extent]) for extent in emitter.extents(x)[-2:]]
    zero = emitter.number(0)
    weights = [
        _hats(emitter, _SAMPLING[mode](emitter, zero, _minus_one(emitter, end), count), end)
        for end, count in zip(ends, size, strict=True)
    ]
    return _sampled(emitter, x, *weights)


def _minus_one(emitter: Emitter, extent: str) -> str:
    return affine(emitter, emitter.reshape(emitter.from_whole(extent), []), 1, -1)


def _hats(emitter: Emitter, positions: str, extent: str) -> str:
    """The weights [..., samples, pixels] of samples at [..., samples]; outside the edge counts."""
    last = _minus_one(emitter, extent)
    inside = emitter.node("Min", emitter.node("Max", positions, emitter.number(0)), last)
    known = emitter.known(extent)
    if known is not None:
        pixels = emitter.constant(np.arange(int(known[0]), dtype=np.float32))
    else:
        limits = (
            emitter.constant(np.int64(0)),
            emitter.squeeze(extent, [0]),
            emitter.constant(np.int64(1)),
        )
        places = emitter.node("Range", *limits)
        emitter.shapes[places] = (None,)
        pixels = emitter.node("Cast", places, to=FLOAT)
    away = emitter.node("Abs", emitter.node("Sub", emitter.unsqueeze(inside, [-1]), pixels))
    return emitter.node("Relu", emitter.node("Sub", emitter.number(1), away))


def _sampled(emitter: Emitter, x: str, rows: str, columns: str) -> str:
    """rows x columns^T, for the last two axes."""
    rank = len(emitter.shape(columns))
    transposed = emitter.transpose(columns, [*range(rank - 2), rank - 1, rank - 2])
    return emitter.node("MatMul", emitter.node("MatMul", rows, x), transposed)


# ---- grids: so many samples of an interval whose ends are float32 values -------------------------

Grid = Callable[[Emitter, str, str, int], str]


def _linspace(emitter: Emitter, start: str, end: str, count: int) -> str:
    if count == 1:
        return emitter.node("Add", start, emitter.constant(np.zeros(1, np.float32)))
    steps = emitter.constant(np.linspace(0, 1, count, dtype=np.float32))
    return emitter.node("Add", start, emitter.node("Mul", emitter.node("Sub", end, start), steps))


def _aligned(emitter: Emitter, start: str, end: str, count: int) -> str:
    if count > 1:
        return _linspace(emitter, start, end, count)
    return emitter.node(
        "Mul", emitter.node("Add", start, end), emitter.constant(np.full(1, 0.5, np.float32))
    )


def _spaced(emitter: Emitter, start: str, end: str, count: int) -> str:
    """UPSAMPLE_MODE: not behind the end."""
    length = affine(emitter, emitter.node("Sub", end, start), 1, 1)
    steps = emitter.constant((np.arange(count) / count).astype(np.float32))
    positions = emitter.node("Add", start, emitter.node("Mul", length, steps))
    return emitter.node("Min", positions, emitter.node("Max", start, end))


def _centres(emitter: Emitter, start: str, end: str, count: int) -> str:
    """ROI_ALIGN_MODE: the centres of equal parts of at least one pixel."""
    length = emitter.node("Max", emitter.node("Sub", end, start), emitter.number(1))
    steps = emitter.constant(((np.arange(count) + 0.5) / count).astype(np.float32))
    return emitter.node("Add", start, emitter.node("Mul", length, steps))


_SAMPLING: dict[str, Grid] = {
    "STRICT_ALIGN_ENDPOINTS_MODE": _linspace,
    "ALIGN_ENDPOINTS_MODE": _aligned,
    "UPSAMPLE_MODE": _spaced,
    "ROI_ALIGN_MODE": _centres,
}


@op("cropResize", five_axes=True, limits="boxes whose number of values is not known")
def crop_resize(emitter: Emitter, params: Params, x: str, boxes: str) -> str:
    """Each box of [N, 1, 4, 1, 1] out of every image of the batch.

    Boxes of 5 values start with the index of their image.
    """
    values = emitter.shape(boxes)[2]
    if values is None:
        raise refuse("whether boxes have 4 values or 5 is not known")
    rows = emitter.reshape(boxes, [emitter.extent(boxes, 0), values])
    images = x
    if values == 5:
        which = emitter.whole(emitter.squeeze(emitter.sliced(rows, 1, 0, 1), [1]))
        images = emitter.node("Gather", x, which, axis=1)
        emitter.shapes[images] = (1, emitter.shape(boxes)[0], *emitter.shape(x)[2:])
        images = emitter.transpose(images, [1, 0, 2, 3, 4])
    order, centered = BOX_CODINGS[params.boxIndicesMode.boxMode]
    first = values - 4
    top, left, bottom, right = (
        affine(
            emitter,
            emitter.sliced(rows, 1, first + place, first + place + 1),
            params.spatialScale,
            0,
        )
        for place in order
    )
    sides = []
    sizes = zip(((top, bottom), (left, right)), (-2, -1), target_size(params), strict=True)
    for (start, end), axis, count in sizes:
        extent = emitter.vector([emitter.extent(x, axis)])
        begin, finish = start, end
        if centered:
            half = affine(emitter, end, 0.5, 0)
            begin, finish = emitter.node("Sub", start, half), emitter.node("Add", start, half)
        if params.normalizedCoordinates:
            last = _minus_one(emitter, extent)
            begin, finish = emitter.node("Mul", begin, last), emitter.node("Mul", finish, last)
        positions = _SAMPLING[params.mode.samplingMethod](emitter, begin, finish, count)
        weights = _hats(emitter, positions, extent)
        emitter.shapes[weights] = (emitter.shape(boxes)[0], count, emitter.shape(x)[axis])
        sides.append(emitter.unsqueeze(weights, [1, 2]))
    return _sampled(emitter, images, *sides)
