"""Upsampling, resizing, cropping and sampling of height and width."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mlferry.errors import PredictionError
from mlferry.numerics.resizing import BOX_CODINGS, UPSAMPLE_GRIDS, Grid, corners, interpolate
from mlferry.programs.kernels import Array, Call, kernel
from mlferry.programs.reshaping.definition import vector
from mlferry.programs.resizing.definition import GRIDS, closest, grown
from mlferry.programs.types import Entries, Known


def _nearest(x: Array, size: tuple[int, ...]) -> Array:
    """Entry i of an axis is floor(i * in / out) of the input."""
    for axis, count in enumerate(size, -len(size)):
        extent = x.shape[axis]
        places = np.minimum(np.arange(count) * extent // max(count, 1), extent - 1)
        x = np.take(x, places, axis)
    return x


@kernel("upsample_nearest_neighbor", exact=True)
def upsample_nearest_neighbor(
    call: Call, x: Array, scale_factor_height: float, scale_factor_width: float
) -> Array:
    height, width = x.shape[-2:]
    size = (grown(height, scale_factor_height) or 0, grown(width, scale_factor_width) or 0)
    return _nearest(x, size)


@kernel("upsample_bilinear")
def upsample_bilinear(
    call: Call,
    x: Array,
    scale_factor_height: float,
    scale_factor_width: float,
    align_corners: bool,
    half_pixel_centers: bool | None = None,
) -> Array:
    """Pixels count from their centres, unless corners are aligned."""
    height, width = x.shape[-2:]
    size = (grown(height, scale_factor_height) or 0, grown(width, scale_factor_width) or 0)
    centered = not align_corners if half_pixel_centers is None else half_pixel_centers
    grid: Callable[[int, int], Grid]
    if align_corners:
        grid = UPSAMPLE_GRIDS["ALIGN_CORNERS_TRUE"]
    elif centered:
        grid = UPSAMPLE_GRIDS["ALIGN_CORNERS_FALSE"]
    else:
        grid = _from_the_edge
    return interpolate(x, grid(height, size[0]), grid(width, size[1]))


def _from_the_edge(extent: int, count: int) -> Grid:
    grid: Grid = np.arange(count, dtype=np.float64) * (extent / count)
    return grid


@kernel("resize_nearest_neighbor", exact=True)
def resize_nearest_neighbor(
    call: Call, x: Array, target_size_height: int, target_size_width: int
) -> Array:
    return _nearest(x, (target_size_height, target_size_width))


@kernel("resize_bilinear")
def resize_bilinear(
    call: Call, x: Array, target_size_height: int, target_size_width: int, sampling_mode: str
) -> Array:
    return _bilinear(x, (target_size_height, target_size_width), sampling_mode)


def _bilinear(x: Array, size: tuple[int, int], mode: str) -> Array:
    grid = GRIDS[mode]
    rows, columns = (grid(0, n - 1, count) for n, count in zip(x.shape[-2:], size, strict=True))
    return interpolate(x, rows, columns)


@kernel("resize")
def resize(
    call: Call,
    x: Array,
    shape: Array,
    resized_dims: int,
    interpolation_mode: str,
    sampling_mode: str,
) -> Array:
    if not resized_dims:
        return x
    targets = np.ravel(shape).tolist()[-resized_dims:]
    size = [int(n) or x.shape[place - resized_dims] for place, n in enumerate(targets)]
    whole = (x.shape[-2], size[0]) if resized_dims == 1 else (size[0], size[1])
    if interpolation_mode == "NEAREST_NEIGHBOR":
        for axis, count in enumerate(whole, -2):
            x = np.take(x, closest(x.shape[axis], count, sampling_mode), axis)
        return x
    return _bilinear(x.astype(np.float32), whole, sampling_mode)


@kernel("crop", moves=True)
def crop(call: Call, x: Array, crop_height: Entries, crop_width: Entries) -> Array:
    (top, bottom), (left, right) = vector(crop_height), vector(crop_width)
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def _patch(images: Array, box: Array, options: Mapping[str, Any]) -> Array:
    """A box of images [..., H, W], resized."""
    top, left, bottom, right = corners(
        np.asarray(box, np.float64) * options["spatial_scale"],
        BOX_CODINGS[options["box_coordinate_mode"]],
        images.shape[-2:],
        normalized=options["normalized_coordinates"],
    )
    height, width = images.shape[-2:]
    if top > height - 1 and left > width - 1:
        # a box that begins beyond the image reads all of it, as a test of coremltools expects
        top, bottom, left, right = 0.0, height - 1.0, 0.0, width - 1.0
    grid, filler = GRIDS[options["sampling_mode"]], options.get("pad_value")
    rows = grid(top, bottom, options["target_height"])
    columns = grid(left, right, options["target_width"])
    patch = interpolate(images, rows, columns)
    if filler is None:
        return patch
    inside = (rows >= 0) & (rows <= height - 1)
    across = (columns >= 0) & (columns <= width - 1)
    return np.where(inside[:, None] & across, patch, np.float32(filler))


def _image(x: Array, index: int) -> Array:
    if not 0 <= index < len(x):
        raise PredictionError(f"a box of image {index}; the batch has {len(x)}")
    return x[index]


@kernel("crop_resize")
def crop_resize(call: Call, x: Array, roi: Array, **options: Known) -> Array:
    patches = []
    for values in roi.reshape(len(roi), -1):
        images = x if len(values) == 4 else _image(x, int(values[0]))[None]
        patches.append(_patch(images, values[-4:], options))
    return np.stack(patches)


@kernel("crop_resize", since=7)
def crop_boxes(
    call: Call, x: Array, boxes: Array, box_indices: Array | None, **options: Known
) -> Array:
    indices = range(len(boxes)) if box_indices is None else np.ravel(box_indices).tolist()
    pairs = zip(boxes, indices, strict=True)
    return np.stack([_patch(_image(x, int(i)), box, options) for box, i in pairs])


# ---- sampling at coordinates ---------------------------------------------------------------------


def _pixels(values: Array, extent: int, mode: str, aligned: bool) -> Array:
    """Coordinates as positions in an axis; 0 is the centre of its first pixel."""
    if mode == "unnormalized":
        return values
    unit = (values + 1) / 2 if mode == "normalized_minus_one_to_one" else values
    return unit * (extent - 1) if aligned else unit * extent - 0.5


def _reflected(values: Array, low: float, high: float) -> Array:
    """Positions reflected back and forth between two ends."""
    span = high - low
    if span <= 0:
        return np.zeros_like(values)
    around = np.mod(values - low, 2 * span)
    return low + np.minimum(around, 2 * span - around)


def _bent(values: Array, extent: int, padding: str) -> Array:
    """Positions outside the image, as the padding mode maps them."""
    if padding == "border":
        return np.clip(values, 0, extent - 1)
    if padding == "reflection":
        return _reflected(values, 0, extent - 1)
    if padding == "symmetric":
        return np.clip(_reflected(values, -0.5, extent - 0.5), 0, extent - 1)
    return values


def _at(image: Array, rows: Array, columns: Array, filler: float) -> Array:
    """Pixels of an image [C, H, W] at whole positions, and the filler outside."""
    height, width = image.shape[-2:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    pixels = image[:, np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
    return np.where(inside, pixels, np.float32(filler))


def _sampled(
    image: Array, xs: Array, ys: Array, sampling: str, padding: str, filler: float
) -> Array:
    height, width = image.shape[-2:]
    rows, columns = _bent(ys, height, padding), _bent(xs, width, padding)
    rows, columns = (np.nan_to_num(np.clip(v, -1e6, 1e6), nan=-1e6) for v in (rows, columns))
    if sampling == "nearest":
        return _at(image, np.rint(rows).astype(int), np.rint(columns).astype(int), filler)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, across = (rows - top).astype(np.float32), (columns - left).astype(np.float32)
    upper = _at(image, top, left, filler) * (1 - across)
    upper = upper + _at(image, top, left + 1, filler) * across
    lower = _at(image, top + 1, left, filler) * (1 - across)
    lower = lower + _at(image, top + 1, left + 1, filler) * across
    return upper * (1 - down) + lower * down


@kernel("resample")
def resample(
    call: Call,
    x: Array,
    coordinates: Array,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Array:
    places = coordinates.astype(np.float32)
    xs = _pixels(places[..., 0], x.shape[-1], coordinates_mode, align_corners)
    ys = _pixels(places[..., 1], x.shape[-2], coordinates_mode, align_corners)
    samples = zip(x, xs, ys, strict=True)
    return np.stack(
        [_sampled(*each, sampling_mode, padding_mode, padding_value) for each in samples]
    )


@kernel("affine")
def affine(
    call: Call,
    x: Array,
    transform_matrix: Array,
    output_height: int,
    output_width: int,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Array:
    """(x', y') = (a0 x + a1 y + a2, b0 x + b1 y + b2), in the same kind of coordinates."""
    across, down = (
        _ends(count, coordinates_mode, align_corners) for count in (output_width, output_height)
    )
    matrices = np.broadcast_to(transform_matrix.reshape(-1, 6), (len(x), 6))
    images = []
    for image, (a0, a1, a2, b0, b1, b2) in zip(x, matrices, strict=True):
        xs = a0 * across + a1 * down[:, None] + a2
        ys = b0 * across + b1 * down[:, None] + b2
        xs = _pixels(xs, x.shape[-1], coordinates_mode, align_corners)
        ys = _pixels(ys, x.shape[-2], coordinates_mode, align_corners)
        images.append(_sampled(image, xs, ys, sampling_mode, padding_mode, padding_value))
    return np.stack(images)


def _ends(count: int, mode: str, aligned: bool) -> Array:
    """The coordinates of the pixels of the result along an axis."""
    if mode == "unnormalized":
        return np.arange(count, dtype=np.float32)
    unit: Array = (np.arange(count, dtype=np.float32) + 0.5) / count
    if aligned:
        unit = np.linspace(0, 1, count, dtype=np.float32)
    return 2 * unit - 1 if mode == "normalized_minus_one_to_one" else unit
