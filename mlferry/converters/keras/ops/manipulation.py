"""`keras.ops` that move values: reshaping, slicing, joining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlferry.converters import reshapes
from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.functions import axes_of, function, operands
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import extent, known, positive
from mlferry.converters.slices import padded, sliced, sliced_anywhere
from mlferry.converters.values import CHANNELS_FIRST, SOURCE, UNFLATTENED, Argument, Blob
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Axes, Sizes, product


@function("Reshape", tf={"reshape": {"tensor": "x", "shape": "newshape"}})
def reshape(context: Lowering, node: Node, x: Blob, newshape: Sequence[Blob | int]) -> Blob:
    """None and -1 mean the rest; the batch is included."""
    target = [-1 if n is None else int(n) for n in _numbers(newshape, "newshape")]
    size = product(x.known)
    if target.count(-1) > 1 and target[0] == -1 and x.known[0] is not None:
        target[0] = x.known[0]
    if target.count(-1) > 1:
        raise ConversionError(f"a reshape to {tuple(target)}: only one extent may be left open")
    rest = product(n for n in target if n != -1)
    if size is not None and rest:
        if -1 in target:
            target[target.index(-1)] = size // rest
        if product(target) != size:
            raise ConversionError(f"a reshape of {x.known} to {tuple(target)}")
    if max(len(target), x.rank) > reshapes.MOST_AXES:
        return reshapes.reshaped(context, x, [None if n == -1 else n for n in target])
    return context.reshape(x, tuple(None if n == -1 else n for n in target))


def _numbers(value: Sequence[Blob | int] | int, option: str) -> Sequence[Any]:
    """A fixed shape."""
    results = value if isinstance(value, list | tuple | np.ndarray) else [value]
    if any(isinstance(n, Blob) for n in results):
        raise ConversionError(f"{option} is computed; convert with fixed shapes")
    return list(results)


@function("Ravel")
def ravel(context: Lowering, node: Node, x: Blob) -> Blob:
    return context.reshape(x, (product(known(x)),))


@function("Transpose", tf={"transpose": {"a": "x", "perm": "axes"}})
def transpose(context: Lowering, node: Node, x: Blob, axes: Sequence[int] | None = None) -> Blob:
    order = range(x.rank)[::-1] if axes is None else [positive(int(a), x.rank) for a in axes]
    return reshapes.transposed(context, x, tuple(order))


@function("Swapaxes")
def swapaxes(context: Lowering, node: Node, x: Blob, axis1: int, axis2: int) -> Blob:
    order = list(range(x.rank))
    first, second = positive(axis1, x.rank), positive(axis2, x.rank)
    order[first], order[second] = second, first
    return context.layer("transpose", x, axes=tuple(order))


@function("Moveaxis")
def moveaxis(context: Lowering, node: Node, x: Blob, source: Sizes, destination: Sizes) -> Blob:
    front = [positive(a, x.rank) for a in np.atleast_1d(source)]
    back = [positive(a, x.rank) for a in np.atleast_1d(destination)]
    rest = [a for a in range(x.rank) if a not in front]
    final = dict(zip(back, front, strict=True))
    axes = tuple(final[i] if i in final else rest.pop(0) for i in range(x.rank))
    return context.layer("transpose", x, axes=axes)


@function("ExpandDims", tf={"expand_dims": {"input": "x"}})
def expand_dims(context: Lowering, node: Node, x: Blob, axis: int) -> Blob:
    axes = axis if isinstance(axis, list | tuple) else (axis,)
    rank = x.rank + len(axes)
    return context.layer("expandDims", x, axes=tuple(sorted(positive(int(a), rank) for a in axes)))


@function("Squeeze", tf={"squeeze": {"input": "x"}})
def squeeze(context: Lowering, node: Node, x: Blob, axis: Axes = None) -> Blob:
    """The batch stays if no axis is given and Keras leaves it open."""
    if axis is None or axis in ([], ()):
        described = node.inputs[0].shape
        places = [
            i for i, n in enumerate(x.known) if n == 1 and (described is None or described[i] == 1)
        ]
    else:
        places = list(axes_of(x, axis))
    if not places:
        return x
    return context.layer("squeeze", x, axes=tuple(sorted(places)))


@function("BroadcastTo", tf={"broadcast_to": {"input": "x"}})
def broadcast_to(context: Lowering, node: Node, x: Blob, shape: Sequence[Blob | int]) -> Blob:
    target = [x.known[0] if n is None else int(n) for n in _numbers(shape, "shape")]
    return context.layer("broadcastToStatic", x, targetShape=target)


@function("Concatenate", "Append", tf={"concat": {"values": "xs"}}, layouts=UNFLATTENED)
def concatenate(context: Lowering, node: Node, xs: Sequence[Argument], axis: int = 0) -> Blob:
    blobs = operands(context, *xs)
    if len(blobs) == 1:
        return blobs[0]
    return context.emit("concatND", *blobs, axis=blobs[0].axis(int(axis)))


@function("Stack", tf={"stack": {"values": "x"}})
def stack(context: Lowering, node: Node, x: Sequence[Argument], axis: int = 0) -> Blob:
    blobs = operands(context, *x)
    place = positive(int(axis), blobs[0].rank + 1)
    wide = [context.layer("expandDims", blob, axes=(place,)) for blob in blobs]
    return wide[0] if len(wide) == 1 else context.layer("concatND", *wide, axis=place)


@function("Hstack")
def hstack(context: Lowering, node: Node, xs: Sequence[Argument]) -> Blob:
    blobs = operands(context, *xs)
    return context.layer("concatND", *blobs, axis=1 if blobs[0].rank > 1 else 0)


@function("Vstack")
def vstack(context: Lowering, node: Node, xs: Sequence[Argument]) -> Blob:
    return context.layer("concatND", *operands(context, *xs), axis=0)


@function("Split", "ArraySplit", layouts=UNFLATTENED)
def split(
    context: Lowering, node: Node, x: Blob, indices_or_sections: Sizes, axis: int = 0
) -> list[Blob]:
    """Split into equal parts, or at places."""
    place = x.axis(axis)
    size = extent(x, place)
    sections = indices_or_sections
    parts = np.array_split(
        np.arange(size), sections if isinstance(sections, int) else list(sections)
    )
    return context.split(x, [len(part) for part in parts], place)


@function("TfSplit", tf={"split": {"value": "x"}}, layouts=UNFLATTENED)
def tf_split(
    context: Lowering,
    node: Node,
    x: Blob,
    num_or_size_splits: Sizes,
    axis: int = 0,
    num: int | None = None,
) -> list[Blob]:
    """Split into equal parts, or into parts of given sizes."""
    place = x.axis(axis)
    size, sections = extent(x, place), num_or_size_splits
    if isinstance(sections, int):
        sizes = [size // sections] * sections
    else:
        sizes = [int(n) for n in sections]
        sizes = [size - sum(m for m in sizes if m > 0) if n < 0 else n for n in sizes]
    return context.split(x, sizes, place)


@function("Unstack", tf={"unstack": {"value": "x"}})
def unstack(
    context: Lowering, node: Node, x: Blob, num: int | None = None, axis: int = 0
) -> list[Blob]:
    place = positive(axis, x.rank)
    parts = context.split(x, [1] * extent(x, place), place)
    return [context.layer("squeeze", part, axes=(place,)) for part in parts]


@function("Repeat", tf={"repeat": {"input": "x"}})
def repeat(
    context: Lowering,
    node: Node,
    x: Blob,
    repeats: Sequence[Blob | int] | int,
    axis: int | None = None,
) -> Blob:
    """Repeat entries, by gathering."""
    if axis is None:
        raise ConversionError("axis=None: repeated over all axes")
    place = positive(axis, x.rank)
    counts = np.atleast_1d(np.asarray(_numbers(repeats, "repeats"), int))
    indices = np.repeat(np.arange(extent(x, place)), counts if counts.size > 1 else counts[0])
    return context.layer("gather", x, context.constant(indices), axis=place)


@function("Tile", tf={"tile": {"input": "x", "multiples": "repeats"}})
def tile(context: Lowering, node: Node, x: Blob, repeats: Sequence[Blob | int] | int) -> Blob:
    reps = [int(n) for n in _numbers(repeats, "repeats")]
    if len(reps) > x.rank:
        x = context.expand(x, *range(len(reps) - x.rank))
    return context.layer("tile", x, reps=[1] * (x.rank - len(reps)) + reps)


@function("Flip", tf={"reverse": {"tensor": "x"}}, layouts=UNFLATTENED)
def flip(context: Lowering, node: Node, x: Blob, axis: Axes = None) -> Blob:
    places = axes_of(x, axis)
    return context.emit("reverse", x, reverseDim=[i in places for i in range(x.rank)])


@function("Rot90")
def rot90(
    context: Lowering, node: Node, array: Blob, k: int = 1, axes: Sequence[int] = (0, 1)
) -> Blob:
    """Rotate from the first axis towards the second, k times."""
    first, second = axes_of(array, tuple(axes))
    flipped = {1: [second], 2: [first, second], 3: [first]}.get(k % 4, [])
    if not flipped:
        return array
    places = range(array.rank)
    output = context.layer("reverse", array, reverseDim=[i in flipped for i in places])
    if k % 2 == 0:
        return output
    order = list(places)
    order[first], order[second] = second, first
    return context.layer("transpose", output, axes=tuple(order))


@function("Diagonal")
def diagonal(
    context: Lowering, node: Node, x: Blob, offset: int = 0, axis1: int = 0, axis2: int = 1
) -> Blob:
    """The diagonal as a new last axis, gathered from rows and columns merged into one axis."""
    pair = positive(axis1, x.rank), positive(axis2, x.rank)
    rows, columns = (extent(x, axis) for axis in pair)
    rest = [axis for axis in range(x.rank) if axis not in pair]
    first = max(-offset, 0) * columns + max(offset, 0)
    count = min(rows - max(-offset, 0), columns - max(offset, 0))
    if count < 1:
        raise ConversionError(f"the diagonal {offset} of {rows} x {columns} has no elements")
    ordered = context.layer("transpose", x, axes=(*rest, *pair))
    flat = context.reshape(ordered, (*(x.known[axis] for axis in rest), rows * columns))
    places = context.constant(first + np.arange(count) * (columns + 1))
    return context.layer("gather", flat, places, axis=len(rest))


@function("Roll", tf={"roll": {"input": "x"}})
def roll(context: Lowering, node: Node, x: Blob, shift: Sizes, axis: Axes = None) -> Blob:
    """Gathers along each axis."""
    if axis is None:
        raise ConversionError("axis=None: rolled over all axes")
    shifts, axes = np.atleast_1d(shift), axes_of(x, axis)
    for amount, place in zip(np.broadcast_to(shifts, len(axes)), axes, strict=True):
        indices = np.roll(np.arange(extent(x, place)), int(amount))
        x = context.layer("gather", x, context.constant(indices), axis=place)
    return x


@function("Pad", tf={"pad": {"tensor": "x", "paddings": "pad_width"}})
def pad(
    context: Lowering,
    node: Node,
    x: Blob,
    pad_width: Sequence[Sequence[int]],
    mode: str = "constant",
    constant_values: float = 0,
) -> Blob:
    pairs = np.broadcast_to(np.asarray(pad_width, int), (x.rank, 2))
    if mode.lower() == "symmetric":
        raise ConversionError("mode='symmetric': constant, reflect and edge can be converted")
    amounts = [*(int(n) for n in pairs[:, 0]), *(int(n) for n in pairs[:, 1])]
    return padded(context, x, amounts, mode.lower(), float(constant_values or 0))


@function("Take", tf={"gather": {"params": "x"}})
def take(
    context: Lowering,
    node: Node,
    x: Blob,
    indices: Blob,
    axis: int | None = None,
    batch_dims: int = 0,
) -> Blob:
    """Computed indices count from the start."""
    if batch_dims:
        raise ConversionError(f"batch_dims={batch_dims}")
    table, place = operands(context, x, x if isinstance(x, Blob) else indices)[0], axis
    if place is None:
        if not node.op.startswith("tf."):
            raise ConversionError("axis=None: taken from all values in a row")
        place = 0
    place = positive(int(place), table.rank)
    if not isinstance(indices, Blob):
        chosen = np.asarray(indices, int)
        chosen = np.where(chosen < 0, chosen + extent(table, place), chosen)
        output = context.layer("gather", table, context.constant(np.atleast_1d(chosen)), axis=place)
        return context.layer("squeeze", output, axes=(place,)) if chosen.ndim == 0 else output
    output = context.layer("gather", table, indices, axis=place)
    shape = (*table.known[:place], *indices.known, *table.known[place + 1 :])
    return context.reshape(output, shape)


@function("TakeAlongAxis")
def take_along_axis(
    context: Lowering, node: Node, x: Blob, indices: Argument, axis: int = -1
) -> Blob:
    places = operands(context, indices, x)[0]
    return context.layer("gatherAlongAxis", x, places, axis=positive(axis, x.rank))


@function("GetItem", tf={"__operators__.getitem": {"slice_spec": "key"}})
def get_item(context: Lowering, node: Node, x: Blob, key: object) -> Blob:
    """Slices, integers, new axes, an ellipsis, and one array of indices."""
    items = [_item(item) for item in (key if isinstance(key, list | tuple) else [key])]
    arrays = [item for item in items if isinstance(item, np.ndarray | Blob)]
    if len(arrays) > 1:
        raise ConversionError("several arrays of indices at once")
    used = sum(item is not None and item is not Ellipsis for item in items)
    if Ellipsis not in [item for item in items if not isinstance(item, np.ndarray | Blob)]:
        items.append(Ellipsis)
    where = next(i for i, item in enumerate(items) if item is Ellipsis)
    items[where : where + 1] = [slice(None)] * (x.rank - used)
    bounds: list[slice] = []
    single_axes: list[int] = []
    new: list[int] = []
    shown = 0
    gathered: tuple[int, Any] | None = None
    for item in items:
        if item is None:
            new.append(shown)
            shown += 1
            continue
        place = len(bounds)
        if isinstance(item, int):
            bounds.append(slice(item, item + 1 if item != -1 else None))
            single_axes.append(place)
            continue
        if isinstance(item, slice):
            bounds.append(item)
        else:
            bounds.append(slice(None))
            gathered = (place, item)
        shown += 1
    if len(bounds) != x.rank:
        raise ConversionError(f"a key of {len(bounds)} axes for a value of {x.rank}")
    steps = [b.step or 1 for b in bounds]
    starts, stops = [b.start for b in bounds], [b.stop for b in bounds]
    output = sliced_anywhere(context, x, starts, stops, None, steps)
    if gathered is not None:
        output = take(context, node, output, gathered[1], gathered[0])
    if single_axes:
        output = context.layer("squeeze", output, axes=tuple(single_axes))
    return context.layer("expandDims", output, axes=tuple(new)) if new else output


def _item(item: object) -> Any:
    """An entry of a key; Keras 2 writes slices as objects."""
    if isinstance(item, dict) and {"start", "stop", "step"} <= set(item):
        return slice(item["start"], item["stop"], item["step"])
    if isinstance(item, dict):
        return Ellipsis
    if isinstance(item, list):
        return np.asarray(item)
    if isinstance(item, np.integer):
        return int(item)
    return item


@function("Slice", tf={"slice": {"input_": "inputs", "begin": "start_indices", "size": "shape"}})
def slice_(
    context: Lowering,
    node: Node,
    inputs: Blob,
    start_indices: Sequence[Blob | int],
    shape: Sequence[Blob | int],
) -> Blob:
    starts = [int(n) for n in _numbers(start_indices, "start_indices")]
    sizes = [-1 if n is None else int(n) for n in _numbers(shape, "shape")]
    ends = [None if n == -1 else a + n for a, n in zip(starts, sizes, strict=True)]
    return sliced(context, inputs, starts, ends, None, None)


@function("Tril", "Triu")
def triangle(context: Lowering, node: Node, x: Blob, k: int = 0) -> Blob:
    side = "lower" if node.op.endswith("Tril") else "upper"
    return context.layer(f"{side}Triangular", x, k=k)


@function(
    "DepthToSpace",
    "SpaceToDepth",
    tf={"nn.depth_to_space": {"input": "x"}, "nn.space_to_depth": {"input": "x"}},
    layouts=(CHANNELS_FIRST,),
)
def reorganize(
    context: Lowering, node: Node, x: Blob, block_size: int, data_format: str | None = None
) -> Blob:
    if data_format not in (None, "NHWC", "channels_last"):
        raise ConversionError(f"data_format={data_format!r}")
    deep = node.op in ("keras.ops.SpaceToDepth", "tf.nn.space_to_depth")
    mode = "SPACE_TO_DEPTH" if deep else "DEPTH_TO_SPACE"
    return context.layer("reorganizeData", x, mode=mode, blockSize=block_size)


@function("TfShape", tf={"shape": {"input": "x"}})
def shape(context: Lowering, node: Node, x: Blob, out_type: str | None = None) -> Blob:
    return context.layer("getShape", x, layout=SOURCE)
