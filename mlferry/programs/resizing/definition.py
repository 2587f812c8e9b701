"""Upsampling, resizing, cropping and sampling of height and width."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import SpecError
from mlferry.numerics.resizing import BOX_CODINGS, SAMPLING, Grid
from mlferry.numerics.shapes import Extent
from mlferry.programs.definitions import (
    BOOL,
    FLOATS,
    INT32,
    NUMBERS,
    SMALL,
    STRING,
    Operand,
    Operands,
    const,
    maybe,
    need,
    newer,
    one_of,
    op_kind,
    option,
)
from mlferry.programs.reshaping.definition import vector
from mlferry.programs.types import TensorType

_FACTOR = {"F": frozenset({"fp32", "int32"})}
_FACTORS = {
    "x": need("T"),
    "scale_factor_height": option("F", 1),
    "scale_factor_width": option("F", 1),
}
_FP32 = frozenset({"fp32"})
_BOXES = {
    "target_height": option(INT32, 1),
    "target_width": option(INT32, 1),
    "normalized_coordinates": option(BOOL, default=False),
    "spatial_scale": option(_FP32, 1.0),
    "box_coordinate_mode": option(STRING, "CORNERS_HEIGHT_FIRST"),
    "sampling_mode": option(STRING, "DEFAULT"),
}
_SAMPLING = {
    "sampling_mode": const(STRING),
    "padding_mode": const(STRING),
    "padding_value": const("T"),
    "coordinates_mode": const(STRING),
    "align_corners": const(BOOL),
}
_INDICES = INT32 | {"int16", "uint16", "uint32"}
SAMPLINGS = (
    "DEFAULT",
    "STRICT_ALIGN_CORNERS",
    "ALIGN_CORNERS",
    "OFFSET_CORNERS",
    "UNALIGN_CORNERS",
)
COORDINATES = ("unnormalized", "normalized_minus_one_to_one", "normalized_zero_to_one")
PADDINGS = ("constant", "border", "reflection", "symmetric")


def unaligned(start: float, end: float, count: int) -> Grid:
    spacing = (end - start + 1) / count
    grid: Grid = np.arange(count, dtype=np.float64) * spacing + (start + 0.5 * spacing - 0.5)
    return grid


# The positions of so many samples between two pixels.
GRIDS: dict[str, Callable[[float, float, int], Grid]] = {
    "STRICT_ALIGN_CORNERS": SAMPLING["STRICT_ALIGN_ENDPOINTS_MODE"],
    "ALIGN_CORNERS": SAMPLING["ALIGN_ENDPOINTS_MODE"],
    "DEFAULT": SAMPLING["UPSAMPLE_MODE"],
    "OFFSET_CORNERS": SAMPLING["ROI_ALIGN_MODE"],
    "UNALIGN_CORNERS": unaligned,
}


def closest(extent: int, count: int, mode: str) -> NDArray[np.intp]:
    """The pixels with the nearest centres; halves are rounded up."""
    if mode in ("DEFAULT", "UNALIGN_CORNERS"):
        places = np.floor((np.arange(count) + 0.5) * (extent / count))
    else:
        places = np.floor(GRIDS[mode](0, extent - 1, count) + 0.5)
    return np.clip(places, 0, extent - 1).astype(np.intp)


def grown(extent: Extent, factor: float) -> Extent:
    """An extent times a factor, rounded down."""
    return None if extent is None else math.floor(extent * factor)


@newer(6, "upsample_bilinear", half_pixel_centers=option(BOOL))
@op_kind("upsample_bilinear", variables=_FACTOR, shared=_FACTORS, align_corners=option(BOOL, True))
@op_kind("upsample_nearest_neighbor", variables=_FACTOR, shared=_FACTORS)
def upsample(operands: Operands) -> TensorType:
    x = _image(operands.x)
    size = []
    for name, extent in zip(("height", "width"), x.shape[-2:], strict=True):
        factor = getattr(operands, f"scale_factor_{name}").known
        if not 0 < factor < math.inf:
            raise SpecError(f"scale_factor_{name} is {factor}")
        size.append(grown(extent, factor))
    return TensorType(x.dtype, (*x.shape[:-2], *size))


def _image(x: Operand, rank: int = 3) -> Operand:
    if x.rank < rank:
        raise SpecError(f"x is {x.type}; it needs at least {rank} axes")
    return x


@op_kind(
    "resize_nearest_neighbor",
    x=need("T"),
    target_size_height=const(INT32),
    target_size_width=const(INT32),
)
@op_kind(
    "resize_bilinear",
    x=need("T"),
    target_size_height=option(INT32, 1),
    target_size_width=option(INT32, 1),
    sampling_mode=option(STRING, "DEFAULT"),
)
def resize_to(operands: Operands) -> TensorType:
    x = _image(operands.x)
    size = (operands.target_size_height.known, operands.target_size_width.known)
    if min(size) < 1:
        raise SpecError(f"the target size is {size}")
    one_of(operands, "sampling_mode", SAMPLINGS)
    return TensorType(x.dtype, (*x.shape[:-2], *size))


@op_kind(
    "resize",
    since=7,
    variables={"T": NUMBERS},
    x=need("T"),
    shape=need(_INDICES),
    resized_dims=const(frozenset({"uint32"})),
    interpolation_mode=option(STRING, "LINEAR"),
    sampling_mode=option(STRING, "DEFAULT"),
)
def resize(operands: Operands) -> TensorType:
    """The last `resized_dims` axes become those of `shape`, where 0 keeps an extent."""
    x, count = operands.x, operands.resized_dims.known
    one_of(operands, "sampling_mode", SAMPLINGS)
    one_of(operands, "interpolation_mode", ("LINEAR", "NEAREST_NEIGHBOR"))
    if operands.shape.value is None:
        return TensorType(x.dtype, (*x.shape[: x.rank - count], *[None] * count))
    shape = vector(operands.shape.known)
    if not 0 <= count <= min(len(shape), x.rank, 2):
        raise SpecError(f"resized_dims is {count} for a shape of {len(shape)} and {x.type}")
    first = x.rank - count
    targets = shape[len(shape) - count :]
    sizes = tuple(n or x.shape[first + place] for place, n in enumerate(targets))
    return TensorType(x.dtype, (*x.shape[:first], *sizes))


@op_kind("crop", x=need("T"), crop_height=const(INT32), crop_width=const(INT32))
def crop(operands: Operands) -> TensorType:
    """How much is cut off at both ends."""
    x = _image(operands.x)
    shape = list(x.shape)
    for axis, amounts in ((-2, operands.crop_height), (-1, operands.crop_width)):
        pair, extent = vector(amounts.known), shape[axis]
        if len(pair) != 2 or min(pair) < 0 or (extent is not None and sum(pair) >= extent):
            raise SpecError(f"a crop of {list(pair)} from axis {axis} of {x.type}")
        shape[axis] = None if extent is None else extent - sum(pair)
    return TensorType(x.dtype, tuple(shape))


@newer(6, "crop_resize", pad_value=option("T", 0.0))
@op_kind("crop_resize", x=need("T"), roi=need("T"), shared=_BOXES)
def crop_resize(operands: Operands) -> TensorType:
    """Boxes [N, 1, 4, 1, 1] from every image, or from one if an index comes first."""
    x, roi = operands.x, operands.roi
    if x.rank != 4 or roi.rank != 5 or roi.shape[2] not in (4, 5):
        raise SpecError(f"x is {x.type} and roi {roi.type}; (N, 1, 4 or 5, 1, 1) is needed")
    one_of(operands, "box_coordinate_mode", BOX_CODINGS)
    one_of(operands, "sampling_mode", SAMPLINGS)
    batch = x.shape[0] if roi.shape[2] == 4 else 1
    size = (operands.target_height.known, operands.target_width.known)
    return TensorType(x.dtype, (roi.shape[0], batch, x.shape[1], *size))


@op_kind(
    "crop_resize",
    since=7,
    variables={"B": FLOATS | {"uint16"}, "I": frozenset({"uint16", "int32"})},
    x=need("T"),
    boxes=need("B"),
    box_indices=maybe("I"),
    shared=_BOXES,
    pad_value=option("T", 0.0),
)
def crop_boxes(operands: Operands) -> TensorType:
    """Each box from the image that its index names."""
    x, boxes = operands.x, operands.boxes
    if x.rank != 4 or boxes.rank != 2 or boxes.shape[1] not in (4, None):
        raise SpecError(f"x is {x.type} and boxes {boxes.type}; (N, 4) is needed")
    one_of(operands, "box_coordinate_mode", BOX_CODINGS)
    one_of(operands, "sampling_mode", SAMPLINGS)
    indices, batch = operands.box_indices, x.shape[0]
    if indices is not None and indices.value is not None and batch is not None:
        wrong = [index for index in vector(indices.known) if not 0 <= index < batch]
        if wrong:
            raise SpecError(f"box_indices has {wrong[0]}; x has {batch} images")
    size = (operands.target_height.known, operands.target_width.known)
    return TensorType(x.dtype, (boxes.shape[0], x.shape[1], *size))


def _sampling(operands: Operands) -> None:
    one_of(operands, "sampling_mode", ("bilinear", "nearest"))
    one_of(operands, "padding_mode", PADDINGS)
    one_of(operands, "coordinates_mode", COORDINATES)


@op_kind(
    "affine",
    x=need("T"),
    transform_matrix=need("T"),
    output_height=const(INT32),
    output_width=const(INT32),
    shared=_SAMPLING,
)
def affine(operands: Operands) -> TensorType:
    x, matrix = operands.x, operands.transform_matrix
    if x.rank != 4 or matrix.rank != 2 or matrix.shape[1] not in (6, None):
        raise SpecError(f"x is {x.type} and transform_matrix {matrix.type}; (B or 1, 6) is needed")
    _sampling(operands)
    size = (operands.output_height.known, operands.output_width.known)
    return TensorType(x.dtype, (*x.shape[:2], *size))


@newer(7, "resample", variables={"U": NUMBERS | SMALL})
@newer(6, "resample", variables={"U": NUMBERS})
@op_kind(
    "resample",
    variables={"U": frozenset({"fp32", "int32"})},
    x=need("T"),
    coordinates=need("U"),
    shared=_SAMPLING,
)
def resample(operands: Operands) -> TensorType:
    """The image at coordinates (x, y), [B, height, width, 2]."""
    x, coordinates = operands.x, operands.coordinates
    if x.rank != 4 or coordinates.rank != 4 or coordinates.shape[3] not in (2, None):
        raise SpecError(f"x is {x.type} and coordinates {coordinates.type}; (B, H, W, 2) is needed")
    _sampling(operands)
    return TensorType(x.dtype, (*x.shape[:2], *coordinates.shape[1:3]))
