"""Upsampling and resizing of height and width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlferry.layers.params import Params
from mlferry.layers.programs import as_program
from mlferry.layers.resizing.definition import target_size, upsample as upsampled
from mlferry.layers.resizing.either import crops
from mlferry.numerics.resizing import BOX_CODINGS, SAMPLING, corners
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Value
from mlferry.refusals import refuse

_SAMPLINGS = {
    "STRICT_ALIGN_ENDPOINTS_MODE": "STRICT_ALIGN_CORNERS",
    "ALIGN_ENDPOINTS_MODE": "ALIGN_CORNERS",
    "UPSAMPLE_MODE": "DEFAULT",
    "ROI_ALIGN_MODE": "OFFSET_CORNERS",
}
_PADDED = 6  # the opset from which crops have a number of their own beyond the image
_BOXES = 7  # the opset from which boxes and indices of images are separate


@as_program("upsample", limits="a fractional factor for an input whose size is not known")
def upsample(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """NN repeats pixels; BILINEAR samples one of three grids."""
    factors = params.fractionalScalingFactor or params.scalingFactor
    x, maps = _as_maps(builder, builder.as_float(x))
    height, width = upsampled(params, x.shape)[0][-2:]
    whole = all(factor == int(factor) for factor in factors)
    if not whole and None in (height, width):
        raise refuse("a fractional factor for an image whose size is not known")
    if height is not None and width is not None and not (whole and params.mode == "NN"):
        return maps(_to_size(builder, params, x, height, width))
    names = ("scale_factor_height", "scale_factor_width")
    scale: dict[str, Any] = dict(zip(names, map(int, factors), strict=True))
    if params.mode == "NN":
        return maps(builder.op("upsample_nearest_neighbor", x=x, **scale))
    scale["align_corners"] = params.linearUpsampleMode == "ALIGN_CORNERS_TRUE"
    if params.linearUpsampleMode == "DEFAULT":  # before this parameter existed, centres counted
        scale["half_pixel_centers"] = False
    return maps(builder.op("upsample_bilinear", x=x, **scale))


_GRIDS = {
    "DEFAULT": "DEFAULT",
    "ALIGN_CORNERS_TRUE": "STRICT_ALIGN_CORNERS",
    "ALIGN_CORNERS_FALSE": "UNALIGN_CORNERS",
}


def _to_size(builder: ProgramBuilder, params: Params, x: Value, height: int, width: int) -> Value:
    size: dict[str, Any] = {"target_size_height": height, "target_size_width": width}
    if params.mode == "NN":
        return builder.op("resize_nearest_neighbor", x=x, **size)
    mode = _GRIDS[params.linearUpsampleMode]
    return builder.op("resize_bilinear", x=x, sampling_mode=mode, **size)


def _as_maps(builder: ProgramBuilder, x: Value) -> tuple[Value, Callable[[Value], Value]]:
    """[..., H, W] with the four axes that ops support best, and a function that undoes it."""
    if x.rank == 4:
        return x, lambda y: y
    lead = builder.extents(x)[:-2]
    flat = builder.reshape(x, [1, -1, *builder.extents(x)[-2:]])
    return flat, lambda y: builder.reshape(y, [*lead, *builder.extents(y)[-2:]])


@as_program("resizeBilinear")
def resize_bilinear(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    height, width = target_size(params)
    x, maps = _as_maps(builder, builder.as_float(x))
    return maps(
        builder.op(
            "resize_bilinear",
            x=x,
            target_size_height=height,
            target_size_width=width,
            sampling_mode=_SAMPLINGS[params.mode.samplingMethod],
        )
    )


@as_program("cropResize", five_axes=True, limits="boxes whose number of values is not known")
def crop_resize(builder: ProgramBuilder, params: Params, x: Value, boxes: Value) -> Value:
    """Each box of [N, 1, 4, 1, 1] out of every image of the batch.

    Boxes of 5 values start with the index of their image. Samples beyond an image are those of its
    edge: from CoreML6 on, the op of programs has a number there, so that only boxes that are known
    to stay inside are left to it.
    """
    values = boxes.shape[2]
    if values is None:
        raise refuse("whether boxes have 4 values or 5 is not known")
    images, boxes = builder.squeeze(builder.as_float(x), [0]), builder.as_float(boxes)
    if builder.opset >= _PADDED and not _stays_inside(params, images, boxes):
        return _by_products(builder, params, images, boxes)
    if builder.opset < _BOXES:
        if values == 5 and images.shape[0] != 1:
            return _by_products(builder, params, images, boxes)
        return builder.op("crop_resize", x=images, roi=boxes, **_options(params))
    rows = builder.reshape(boxes, [builder.extent(boxes, 0), values])
    if values == 5:
        which = builder.as_integer(builder.squeeze(builder.sliced(rows, 1, 0, 1), [1]))
        ends = builder.sliced(rows, 1, 1, 5)
        result = builder.op(
            "crop_resize", x=images, boxes=ends, box_indices=which, **_options(params)
        )
        return builder.expand(result, [1])
    batch = images.shape[0]
    if batch is None:
        return _by_products(builder, params, images, boxes)
    patches = []
    for image in range(batch):
        one = builder.sliced(images, 0, image, image + 1)
        zeros = builder.op("fill", shape=builder.vector([builder.extent(rows, 0)]), value=0)
        result = builder.op("crop_resize", x=one, boxes=rows, box_indices=zeros, **_options(params))
        patches.append(builder.expand(result, [1]))
    return builder.joined(patches, 1)


def _options(params: Params) -> dict[str, Any]:
    height, width = target_size(params)
    return {
        "target_height": height,
        "target_width": width,
        "normalized_coordinates": params.normalizedCoordinates,
        "spatial_scale": np.float32(params.spatialScale),
        "box_coordinate_mode": params.boxIndicesMode.boxMode,
        "sampling_mode": _SAMPLINGS[params.mode.samplingMethod],
    }


def _stays_inside(params: Params, images: Value, boxes: Value) -> bool:
    """Whether all samples of known boxes lie between pixels of the images."""
    size = images.shape[-2:]
    if not boxes.is_constant or None in size:
        return False
    extents = [int(n or 0) for n in size]
    coding, grid = BOX_CODINGS[params.boxIndicesMode.boxMode], SAMPLING[params.mode.samplingMethod]
    for numbers in boxes.constant.reshape(boxes.shape[0], -1)[:, -4:]:
        box = numbers.astype(np.float64) * params.spatialScale
        top, left, bottom, right = corners(
            box, coding, extents, normalized=params.normalizedCoordinates
        )
        sides = zip(((top, bottom), (left, right)), target_size(params), extents, strict=True)
        for ends, count, extent in sides:
            positions = grid(*ends, count)
            if positions.min() < 0 or positions.max() > extent - 1:
                return False
    return True


def _by_products(builder: ProgramBuilder, params: Params, images: Value, boxes: Value) -> Value:
    """Each box out of every image, or out of that of its index."""
    rows = builder.reshape(boxes, [builder.extent(boxes, 0), boxes.shape[2] or 0])
    if rows.shape[1] == 4:
        return crops(builder, params, builder.expand(images, [0]), rows)
    which = builder.as_integer(builder.squeeze(builder.sliced(rows, 1, 0, 1), [1]))
    chosen = builder.expand(builder.op("gather", x=images, indices=which, axis=0), [1])
    return crops(builder, params, chosen, builder.sliced(rows, 1, 1, 5))
