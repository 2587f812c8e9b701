"""Upsampling and resizing of height and width.

`Resize` is used if it has the grid of the layer. Any other grid becomes a product with two
matrices; see `either`.
"""

from __future__ import annotations

import numpy as np

from mlferry.layers.convolution.onnx import over_maps
from mlferry.layers.exports import op
from mlferry.layers.params import Params
from mlferry.layers.resizing.definition import target_size, upsample as upsampled
from mlferry.layers.resizing.either import crops, hats, last_position, sampled, spread
from mlferry.onnx_graph.emitter import Emitter
from mlferry.refusals import refuse

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
    zero = emitter.constant(np.zeros(1, np.float32))
    weights = [
        hats(emitter, x, axis, spread(emitter, mode, zero, last_position(emitter, x, axis), count))
        for axis, count in zip((-2, -1), size, strict=True)
    ]
    return sampled(emitter, x, *weights)


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
        rows = emitter.sliced(rows, 1, 1, 5)
    return crops(emitter, params, images, rows)
