"""Upsampling, resizing, cropping and sampling of height and width.

`Resize` is used if it has the grid of an op. Any other grid becomes a product with two matrices,
each row of which holds the weights of one sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mlferry.numerics.resizing import BOX_CODINGS, Grid, interpolate
from mlferry.numerics.shapes import Extent
from mlferry.onnx_graph.emitter import FARTHEST, Emitter
from mlferry.programs.exports import Call, cast, counted, export, scalar, values_of
from mlferry.programs.reshaping.definition import vector
from mlferry.programs.resizing.definition import GRIDS, closest, grown
from mlferry.programs.types import Entries, Known
from mlferry.refusals import refuse

Size = tuple[int | str, int | str]
# The grids that `Resize` has; ALIGN_CORNERS differs for a single sample.
_RESIZE = {
    "STRICT_ALIGN_CORNERS": "align_corners",
    "ALIGN_CORNERS": "align_corners",
    "DEFAULT": "asymmetric",
    "UNALIGN_CORNERS": "half_pixel",
}


def _size(emitter: Emitter, x: str) -> tuple[int, int]:
    height, width = emitter.shape(x)[-2:]
    if height is None or width is None:
        raise refuse("the size of the image varies")
    return height, width


def _resized(emitter: Emitter, x: str, size: Size, grid: str) -> str:
    """Uses `Resize`, which has two axes before height and width."""
    *lead, height, width = emitter.extents(x)
    maps = x if len(lead) == 2 else emitter.reshape(x, [1, -1, height, width])
    front: list[int | str] = [*lead]
    if len(lead) != 2:
        front = [1, emitter.extent(maps, 1)]
    y = emitter.node(
        "Resize",
        maps,
        "",
        "",
        emitter.vector([*front, *size]),
        mode="linear",
        coordinate_transformation_mode=grid,
    )
    if len(lead) == 2:
        return y
    known = [n if isinstance(n, int) else None for n in size]
    emitter.shapes[y] = (1, emitter.shape(maps)[1], *known)
    return emitter.reshape(y, [*lead, *size])


def _nearest(emitter: Emitter, x: str, size: Size) -> str:
    """Entry i of an axis is floor(i * in / out) of the input."""
    for axis, count in zip((-2, -1), size, strict=True):
        extent = emitter.extent(x, axis)
        if isinstance(extent, int) and isinstance(count, int):
            places = np.minimum(np.arange(count) * extent // max(count, 1), extent - 1)
            x = _gathered(emitter, x, places.tolist(), axis)
        else:
            x = _gathered_by(emitter, x, (extent, count), axis, (1, 0, 1))
    return x


def _gathered_by(
    emitter: Emitter, x: str, sizes: Size, axis: int, steps: tuple[int, int, int]
) -> str:
    """Entries (a * i + b) * in // (c * out), for steps a, b and c."""
    extent, count = sizes
    places = counted(emitter, count)
    for op, value in (("Mul", steps[0]), ("Add", steps[1])):
        places = emitter.node(op, places, emitter.integers([value]))
    places = emitter.node("Mul", places, emitter.vector([extent]))
    whole = emitter.node("Mul", emitter.vector([count]), emitter.integers([steps[2]]))
    places = emitter.node("Div", places, whole)
    shape = [*emitter.shape(x)]
    shape[axis] = count if isinstance(count, int) else None
    y = emitter.node("Gather", x, places, axis=axis)
    emitter.shapes[y] = tuple(shape)
    return y


def _gathered(emitter: Emitter, x: str, places: list[int], axis: int) -> str:
    if places == list(range(emitter.shape(x)[axis] or 0)):
        return x
    shape = [*emitter.shape(x)]
    shape[axis] = len(places)
    y = emitter.node("Gather", x, emitter.integers(places), axis=axis)
    emitter.shapes[y] = tuple(shape)
    return y


def _grown(emitter: Emitter, x: str, *factors: float) -> Size:
    """Height and width times factors, rounded down."""
    sizes: list[int | str] = []
    for axis, factor in zip((-2, -1), factors, strict=True):
        known = grown(emitter.shape(x)[axis], factor)
        if known is not None:
            sizes.append(known)
            continue
        wide = cast(emitter, emitter.vector([emitter.extent(x, axis)]), "float64")
        product = emitter.node("Mul", wide, scalar(emitter, factor, "float64"))
        sizes.append(cast(emitter, emitter.node("Floor", product), "int64"))
    return sizes[0], sizes[1]


@export("upsample_nearest_neighbor", moves=True)
def upsample_nearest_neighbor(
    emitter: Emitter, call: Call, x: str, scale_factor_height: float, scale_factor_width: float
) -> str:
    size = _grown(emitter, x, scale_factor_height, scale_factor_width)
    return _nearest(emitter, x, size)


@export("upsample_bilinear")
def upsample_bilinear(
    emitter: Emitter,
    call: Call,
    x: str,
    scale_factor_height: float,
    scale_factor_width: float,
    align_corners: bool,
    half_pixel_centers: bool | None = None,
) -> str:
    """Pixels count from their centres, unless corners are aligned."""
    size = _grown(emitter, x, scale_factor_height, scale_factor_width)
    centered = not align_corners if half_pixel_centers is None else half_pixel_centers
    grid = "half_pixel" if centered else "asymmetric"
    return _resized(emitter, x, size, "align_corners" if align_corners else grid)


@export("resize_nearest_neighbor", moves=True)
def resize_nearest_neighbor(
    emitter: Emitter, call: Call, x: str, target_size_height: int, target_size_width: int
) -> str:
    return _nearest(emitter, x, (target_size_height, target_size_width))


@export("resize_bilinear")
def resize_bilinear(
    emitter: Emitter,
    call: Call,
    x: str,
    target_size_height: int,
    target_size_width: int,
    sampling_mode: str,
) -> str:
    return _bilinear(emitter, x, (target_size_height, target_size_width), sampling_mode)


def _bilinear(emitter: Emitter, x: str, size: Size, mode: str) -> str:
    known = tuple(n for n in size if isinstance(n, int))
    alone = mode == "ALIGN_CORNERS" and (1 in size or len(known) < 2)
    if mode in _RESIZE and not alone:
        return _resized(emitter, x, size, _RESIZE[mode])
    if len(known) < 2:
        raise refuse(f"{mode} for a target size that is computed")
    rows, columns = (
        _weights(extent, GRIDS[mode](0, extent - 1, count))
        for extent, count in zip(_size(emitter, x), known, strict=True)
    )
    y = emitter.node("MatMul", emitter.constant(rows), x)
    return emitter.node("MatMul", y, emitter.constant(np.ascontiguousarray(columns.T)))


def _weights(extent: int, positions: Grid) -> Any:
    """The weight of each pixel in each sample, [samples, pixels]."""
    pixels = np.eye(extent, dtype=np.float32)
    return interpolate(pixels, positions, np.arange(extent, dtype=np.float64))


@export("resize")
def resize(
    emitter: Emitter,
    call: Call,
    x: str,
    shape: str,
    resized_dims: int,
    interpolation_mode: str,
    sampling_mode: str,
) -> str:
    if not resized_dims:
        return x
    sizes = values_of(emitter, shape)
    if sizes is None or None in emitter.shape(x)[-2:]:
        whole = _targets(emitter, x, shape, resized_dims)
    else:
        extents = _size(emitter, x)
        targets = (0,) * (2 - resized_dims) + sizes[-resized_dims:]
        whole = (targets[0] or extents[0], targets[1] or extents[1])
    if resized_dims == 1:  # the last axis alone
        whole = (emitter.extent(x, -2), whole[1])
    if interpolation_mode == "NEAREST_NEIGHBOR":
        return _closest(emitter, x, whole, sampling_mode)
    if call.dtype == "float32":
        return _bilinear(emitter, x, whole, sampling_mode)
    floats = cast(emitter, x, "float32")
    emitter.shapes[floats] = emitter.shape(x)
    return cast(emitter, _bilinear(emitter, floats, whole, sampling_mode), call.dtype)


def _targets(emitter: Emitter, x: str, shape: str, count: int) -> Size:
    """The extents of height and width, where 0 keeps one; computed."""
    sizes = emitter.reshape(emitter.whole(shape), [-1])
    extents = []
    for axis in (-2, -1):
        if -axis > count:
            extents.append(emitter.extent(x, axis))
            continue
        target = emitter.sliced(sizes, 0, axis, axis + 1 or FARTHEST)
        keeps = emitter.node("Equal", target, emitter.integers([0]))
        extent = emitter.vector([emitter.extent(x, axis)])
        extents.append(emitter.node("Where", keeps, extent, target))
    return extents[0], extents[1]


def _closest(emitter: Emitter, x: str, size: Size, mode: str) -> str:
    """The pixels with the nearest centres; halves are rounded up."""
    for axis, count in zip((-2, -1), size, strict=True):
        extent = emitter.extent(x, axis)
        if isinstance(extent, int) and isinstance(count, int):
            x = _gathered(emitter, x, closest(extent, count, mode).tolist(), axis)
        elif mode in ("DEFAULT", "UNALIGN_CORNERS"):
            x = _gathered_by(emitter, x, (extent, count), axis, (2, 1, 2))
        else:
            raise refuse(f"{mode} for a size that varies")
    return x


@export("crop", moves=True)
def crop(emitter: Emitter, call: Call, x: str, crop_height: Entries, crop_width: Entries) -> str:
    for axis, amounts in ((-2, crop_height), (-1, crop_width)):
        before, after = vector(amounts)
        if before or after:
            x = emitter.sliced(x, axis, before, -after or FARTHEST)
    return x


# ---- boxes: positions are float64, as those of the kernel ----------------------------------------

Positions = Callable[[Emitter, str, str, int], str]


def _double(emitter: Emitter, values: ArrayLike) -> str:
    return emitter.constant(np.asarray(values, np.float64))


def _steps(emitter: Emitter, start: str, length: str, steps: ArrayLike) -> str:
    return emitter.node("Add", start, emitter.node("Mul", length, _double(emitter, steps)))


def _linspace(emitter: Emitter, start: str, end: str, count: int) -> str:
    length = emitter.node("Sub", end, start)
    y = _steps(emitter, start, length, np.linspace(0, 1, count))
    inside = emitter.node("Max", y, emitter.node("Min", start, end))
    return emitter.node("Min", inside, emitter.node("Max", start, end))


def _aligned(emitter: Emitter, start: str, end: str, count: int) -> str:
    if count > 1:
        return _linspace(emitter, start, end, count)
    return emitter.node("Mul", emitter.node("Add", start, end), _double(emitter, [0.5]))


def _spaced(emitter: Emitter, start: str, end: str, count: int) -> str:
    length = emitter.node("Add", emitter.node("Sub", end, start), _double(emitter, 1))
    y = _steps(emitter, start, length, np.arange(count) / count)
    return emitter.node("Min", y, emitter.node("Max", start, end))


def _middles(emitter: Emitter, start: str, end: str, count: int) -> str:
    length = emitter.node("Max", emitter.node("Sub", end, start), _double(emitter, 1))
    return _steps(emitter, start, length, (np.arange(count) + 0.5) / count)


def _unaligned(emitter: Emitter, start: str, end: str, count: int) -> str:
    length = emitter.node("Add", emitter.node("Sub", end, start), _double(emitter, 1))
    first = emitter.node("Sub", start, _double(emitter, 0.5))
    return _steps(emitter, first, length, (np.arange(count) + 0.5) / count)


_POSITIONS: dict[str, Positions] = {
    "STRICT_ALIGN_CORNERS": _linspace,
    "ALIGN_CORNERS": _aligned,
    "DEFAULT": _spaced,
    "OFFSET_CORNERS": _middles,
    "UNALIGN_CORNERS": _unaligned,
}


def _sides(
    emitter: Emitter, boxes: str, size: tuple[int, int], call: Call
) -> list[tuple[str, str]]:
    """Both ends of boxes [N, 4] along height and width, [N, 1] each, in pixels."""
    coding = BOX_CODINGS[call.options["box_coordinate_mode"]]
    scale = _double(emitter, call.options["spatial_scale"])
    wide = emitter.node("Mul", cast(emitter, boxes, "float64"), scale)
    top, left, bottom, right = (emitter.sliced(wide, 1, place, place + 1) for place in coding.order)
    sides = []
    for extent, (start, end) in zip(size, ((top, bottom), (left, right)), strict=True):
        begin, finish = start, end
        if coding.centered:
            half = emitter.node("Mul", end, _double(emitter, 0.5))
            begin, finish = emitter.node("Sub", start, half), emitter.node("Add", start, half)
        if call.options["normalized_coordinates"]:
            last = _double(emitter, extent - 1)
            begin, finish = emitter.node("Mul", begin, last), emitter.node("Mul", finish, last)
        sides.append((begin, finish))
    return _or_all(emitter, sides, size)


def _or_all(
    emitter: Emitter, sides: list[tuple[str, str]], size: tuple[int, int]
) -> list[tuple[str, str]]:
    """A box that begins beyond the image reads all of it."""
    lasts = [_double(emitter, extent - 1) for extent in size]
    behind = [
        emitter.node("Greater", start, last) for (start, _), last in zip(sides, lasts, strict=True)
    ]
    outside = emitter.node("And", *behind)
    return [
        (
            emitter.node("Where", outside, _double(emitter, 0), start),
            emitter.node("Where", outside, last, end),
        )
        for (start, end), last in zip(sides, lasts, strict=True)
    ]


def _patches(emitter: Emitter, call: Call, images: str, boxes: str, lead: int) -> str:
    """Images [..., H, W] at boxes [N, 4], with N before `lead` axes."""
    size = _size(emitter, images)
    counts = (call.options["target_height"], call.options["target_width"])
    filler = call.options.get("pad_value")
    matrices, insides = [], []
    places = zip(_sides(emitter, boxes, size, call), size, counts, strict=True)
    for (start, end), extent, count in places:
        positions = _POSITIONS[call.options["sampling_mode"]](emitter, start, end, count)
        last, zero = _double(emitter, extent - 1), _double(emitter, 0)
        inside = emitter.node(
            "And",
            emitter.node("GreaterOrEqual", positions, zero),
            emitter.node("LessOrEqual", positions, last),
        )
        insides.append(inside)
        clipped = emitter.node("Min", emitter.node("Max", positions, zero), last)
        away = emitter.node(
            "Sub", emitter.expand(clipped, [-1]), _double(emitter, np.arange(extent))
        )
        near = emitter.node("Sub", _double(emitter, 1), emitter.node("Abs", away))
        matrices.append(emitter.node("Relu", cast(emitter, near, "float32")))
    rows = emitter.expand(matrices[0], range(1, 1 + lead))
    columns = emitter.expand(emitter.transpose(matrices[1], [0, 2, 1]), range(1, 1 + lead))
    y = emitter.node("MatMul", emitter.node("MatMul", rows, images), columns)
    if filler is None:
        return y
    across = emitter.expand(insides[1], [1])
    whole = emitter.node("And", emitter.expand(insides[0], [2]), across)
    expanded = emitter.expand(whole, range(1, 1 + lead))
    return emitter.node("Where", expanded, y, emitter.number(filler))


@export("crop_resize")
def crop_resize(emitter: Emitter, call: Call, x: str, roi: str, **options: Known) -> str:
    """Boxes of 5 values start with the index of their image."""
    count = emitter.shape(roi)[2]
    if count is None:
        raise refuse("whether boxes have 4 values or 5 is not known")
    boxes = emitter.reshape(roi, [emitter.extent(roi, 0), count])
    if count == 4:
        return _patches(emitter, call, x, boxes, 2)
    which = emitter.squeeze(emitter.sliced(boxes, 1, 0, 1), [1])
    images = _images(emitter, x, cast(emitter, which, "int64"), emitter.shape(roi)[0])
    return _patches(emitter, call, emitter.expand(images, [1]), emitter.sliced(boxes, 1, 1, 5), 2)


def _images(emitter: Emitter, x: str, which: str, count: Extent) -> str:
    y = emitter.node("Gather", x, which, axis=0)
    emitter.shapes[y] = (count, *emitter.shape(x)[1:])
    return y


@export("crop_resize", since=7)
def crop_boxes(
    emitter: Emitter, call: Call, x: str, boxes: str, box_indices: str | None, **options: Known
) -> str:
    """Each box from the image of its index, or from the image at its own place."""
    which = box_indices or counted(emitter, emitter.extent(boxes, 0))
    flat = emitter.reshape(which, [-1])
    wide = cast(emitter, boxes, "float32") if call.carrier("boxes") != "float32" else boxes
    images = _images(emitter, x, flat, emitter.shape(boxes)[0])
    return _patches(emitter, call, images, wide, 1)


# ---- sampling at coordinates ---------------------------------------------------------------------


def _pixels(emitter: Emitter, values: str, extent: int, mode: str, aligned: bool) -> str:
    """Coordinates as positions in an axis; 0 is the centre of its first pixel."""
    if mode == "unnormalized":
        return values
    if mode == "normalized_minus_one_to_one":
        values = emitter.node("Add", values, emitter.number(1))
        values = emitter.node("Mul", values, emitter.number(0.5))
    if aligned:
        return emitter.node("Mul", values, emitter.number(extent - 1))
    values = emitter.node("Mul", values, emitter.number(extent))
    return emitter.node("Sub", values, emitter.number(0.5))


def _reflected(emitter: Emitter, values: str, low: float, high: float) -> str:
    """Positions reflected back and forth between two ends."""
    span = high - low
    if span <= 0:
        return emitter.node("Mul", values, emitter.number(0))
    twice = emitter.number(2 * span)
    shifted = emitter.node("Sub", values, emitter.number(low))
    turns = emitter.node("Floor", emitter.node("Div", shifted, twice))
    around = emitter.node("Sub", shifted, emitter.node("Mul", turns, twice))
    back = emitter.node("Sub", twice, around)
    return emitter.node("Add", emitter.node("Min", around, back), emitter.number(low))


def _border(emitter: Emitter, values: str, extent: int) -> str:
    return emitter.node("Clip", values, emitter.number(0), emitter.number(extent - 1))


def _symmetric(emitter: Emitter, values: str, extent: int) -> str:
    return _border(emitter, _reflected(emitter, values, -0.5, extent - 0.5), extent)


_PADDINGS: dict[str, Callable[[Emitter, str, int], str]] = {
    "constant": lambda emitter, values, extent: values,
    "border": _border,
    "reflection": lambda emitter, values, extent: _reflected(emitter, values, 0, extent - 1),
    "symmetric": _symmetric,
}


def _at(
    emitter: Emitter, image: str, rows: str, columns: str, size: tuple[int, int], filler: float
) -> str:
    """Pixels [B, P, C] of images [B, H * W, C] at whole positions [B, P]; the filler outside."""
    zero, inside, places = emitter.number(0), [], []
    for values, extent in ((rows, size[0]), (columns, size[1])):
        last = emitter.number(extent - 1)
        inside.append(emitter.node("GreaterOrEqual", values, zero))
        inside.append(emitter.node("LessOrEqual", values, last))
        clipped = cast(emitter, emitter.node("Clip", values, zero, last), "int64")
        places.append(clipped)
    flat = emitter.node("Mul", places[0], emitter.constant(np.int64(size[1])))
    flat = emitter.node("Add", flat, places[1])
    index = emitter.node("Unsqueeze", flat, emitter.integers([-1]))
    pixels = emitter.node("GatherND", image, index, batch_dims=1)
    whole = inside[0]
    for other in inside[1:]:
        whole = emitter.node("And", whole, other)
    expanded = emitter.node("Unsqueeze", whole, emitter.integers([-1]))
    return emitter.node("Where", expanded, pixels, emitter.number(filler))


def _sampled(
    emitter: Emitter, call: Call, x: str, coordinates: str, axis: int, target: Size
) -> str:
    """The image [B, C, H, W] at P coordinates x and y, which lie along an axis of 2."""
    size, options = _size(emitter, x), call.options
    mode, aligned = options["coordinates_mode"], options["align_corners"]
    xs, ys = (
        _pixels(
            emitter,
            emitter.squeeze(emitter.sliced(coordinates, axis, place, place + 1), [axis]),
            extent,
            mode,
            aligned,
        )
        for place, extent in enumerate(reversed(size))
    )
    bend, filler = _PADDINGS[options["padding_mode"]], float(options["padding_value"])
    far = emitter.number(-1e6), emitter.number(1e6)
    rows, columns = (
        emitter.node("Clip", bend(emitter, values, extent), *far)
        for values, extent in zip((ys, xs), size, strict=True)
    )
    rows, columns = (
        emitter.node("Where", emitter.node("IsNaN", values), far[0], values)
        for values in (rows, columns)
    )
    n, c = emitter.extents(x)[:2]
    image = emitter.transpose(emitter.reshape(x, [n, c, size[0] * size[1]]), [0, 2, 1])

    def at(down: str, across: str) -> str:
        return _at(emitter, image, down, across, size, filler)

    if options["sampling_mode"] == "nearest":
        y = at(emitter.node("Round", rows), emitter.node("Round", columns))
    else:
        one, ends = emitter.number(1), emitter.integers([-1])
        top, left = emitter.node("Floor", rows), emitter.node("Floor", columns)
        bottom, right = emitter.node("Add", top, one), emitter.node("Add", left, one)
        down, across = (
            emitter.node("Unsqueeze", emitter.node("Sub", *pair), ends)
            for pair in ((rows, top), (columns, left))
        )
        upper = _between(emitter, at(top, left), at(top, right), across)
        lower = _between(emitter, at(bottom, left), at(bottom, right), across)
        y = _between(emitter, upper, lower, down)
    y = emitter.node("Transpose", y, perm=[0, 2, 1])
    return emitter.node("Reshape", y, emitter.vector([n, c, *target]))


def _between(emitter: Emitter, one: str, other: str, share: str) -> str:
    rest = emitter.node("Sub", emitter.number(1), share)
    first, second = emitter.node("Mul", one, rest), emitter.node("Mul", other, share)
    return emitter.node("Add", first, second)


@export("resample")
def resample(emitter: Emitter, call: Call, x: str, coordinates: str, **options: Known) -> str:
    n, *target, _ = emitter.extents(coordinates)
    places = coordinates
    if call.carrier("coordinates") != "float32":
        places = cast(emitter, coordinates, "float32")
        emitter.shapes[places] = emitter.shape(coordinates)
    flat = emitter.reshape(places, [n, -1, 2])
    return _sampled(emitter, call, x, flat, 2, (target[0], target[1]))


@export("affine")
def affine(
    emitter: Emitter,
    call: Call,
    x: str,
    transform_matrix: str,
    output_height: int,
    output_width: int,
    coordinates_mode: str,
    align_corners: bool,
    **options: Known,
) -> str:
    """(x', y') = (a0 x + a1 y + a2, b0 x + b1 y + b2), in the same kind of coordinates."""
    across, down = (
        _ends(count, coordinates_mode, align_corners) for count in (output_width, output_height)
    )
    ones = np.ones((output_height, output_width), np.float32)
    grid = np.stack([ones * across, ones * down[:, None], ones]).reshape(3, -1)
    matrices = emitter.reshape(transform_matrix, [emitter.extent(transform_matrix, 0), 2, 3])
    if emitter.shape(x)[0] != 1 or emitter.shape(transform_matrix)[0] != 1:
        whole = emitter.vector([emitter.extent(x, 0), 2, 3])
        matrices = emitter.node("Expand", matrices, whole)
    places = emitter.node("MatMul", matrices, emitter.constant(grid))
    emitter.shapes[places] = (emitter.shape(x)[0], 2, grid.shape[1])
    return _sampled(emitter, call, x, places, 1, (output_height, output_width))


def _ends(count: int, mode: str, aligned: bool) -> Any:
    """The coordinates of the pixels of the result along an axis."""
    places = np.arange(count, dtype=np.float32)
    if mode == "unnormalized":
        return places
    unit = np.linspace(0, 1, count, dtype=np.float32) if aligned else (places + 0.5) / count
    return 2 * unit - 1 if mode == "normalized_minus_one_to_one" else unit
