"""Ops that only move values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from mlferry.converters.convolutions import convolved
from mlferry.converters.graph import Node
from mlferry.converters.layout import arrange
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import (
    array_of,
    as_blob,
    extent,
    ints,
    joined,
    known,
    positive,
    rank,
    scalar,
    shaped,
    vector,
)
from mlferry.converters.reshapes import as_stored, reshaped, to_shape, transposed
from mlferry.converters.sizes import as_constant
from mlferry.converters.slices import padded, sliced, sliced_anywhere
from mlferry.converters.tensorflow.ops.convolution import windows
from mlferry.converters.tensorflow.ops.registry import maps, op, source
from mlferry.converters.values import (
    CHANNELS_FIRST,
    SOURCE,
    UNFLATTENED,
    Blob,
    Constant,
    Layout,
    Operand,
    Result,
)
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array, product


@op("Reshape", raw=True, sizes=True)
def reshape(context: Lowering, node: Node, x: Operand, shape: Operand) -> Blob:
    """Flattened channels-first data keep their order; their readers permute weights."""
    blob = as_blob(context, x)
    if isinstance(shape, Blob):
        target = node.outputs[0].shape
        if target is not None and sum(n is None for n in target) <= 1 and target:
            return reshaped(context, context.source_order(blob), target)
        return context.layer("reshapeDynamic", vector(source(context, x)), shape, layout=SOURCE)
    extents = ints(shape.array)
    for known_way in (_flattened, _as_pixel):
        output = known_way(context, blob, extents)
        if output is not None:
            context.sizes.use(context.sizes.behind(shape))
            return output
    return to_shape(context, context.source_order(blob), shape)


def _as_pixel(context: Lowering, x: Blob, target: tuple[int, ...]) -> Blob | None:
    """[N, C] as [N, 1, ..., C], which only needs more axes in channels-first order."""
    if x.shape is None or x.rank != 2 or len(target) not in (4, 5) or x.layout != SOURCE:
        return None
    batch, channels = x.known
    if set(target[1:-1]) != {1} or target[0] not in (batch, -1) or target[-1] not in (channels, -1):
        return None
    if None in (batch, channels) or target.count(-1) > 1:
        return None
    return replace(context.expand(x, *range(2, len(target))), layout=CHANNELS_FIRST)


def _flattened(context: Lowering, x: Blob, target: tuple[int, ...]) -> Blob | None:
    """[N, ..., C] as [N, ...] without a transpose, or None."""
    if x.shape is None or x.layout != CHANNELS_FIRST or x.rank < 3 or len(target) != 2:
        return None
    shape = x.source_shape or ()
    size = product(shape[1:])
    batch, rest = target
    keeps = batch == shape[0] if batch != -1 else rest == size
    if size is None or not keeps or rest not in (size, -1) or (batch, rest) == (-1, -1):
        return None
    alone = shape[-1] == 1 or product(shape[1:-1]) == 1
    layout = SOURCE if alone else Layout("flat", shape[1:])
    return context.reshape(x, (shape[0], size), layout=layout)


@op("Squeeze", layouts=UNFLATTENED)
def squeeze(context: Lowering, node: Node, x: Blob) -> Blob:
    """Channels-first data stay so if only axes between batch and channels are removed."""
    requested = node.attrs.get("squeeze_dims") or node.attrs.get("axis") or []
    shape = x.source_shape or ()
    dropped = {positive(a, x.rank) for a in requested} or {i for i, n in enumerate(shape) if n == 1}
    if not dropped or x.is_scalar:
        return x
    rest = tuple(n for i, n in enumerate(shape) if i not in dropped)
    if not rest:
        return shaped(context, context.source_order(x), ())
    inner = dropped <= set(range(1, x.rank - 1))
    if x.layout == CHANNELS_FIRST and not inner:
        x = context.source_order(x)
    layout = x.layout if len(rest) > 2 else SOURCE
    axes = sorted(x.axis(a) for a in dropped)
    return replace(context.squeeze(x, *axes), layout=layout)


@op("ExpandDims", raw=True)
def expand_dims(context: Lowering, node: Node, x: Operand, axis: Operand) -> Blob:
    """Channels-first data stay so if the new axis is between batch and channels."""
    blob = as_blob(context, x)
    place = positive(ints(array_of(node, 1, axis))[0], rank(blob) + 1)
    if blob.is_scalar:
        return shaped(context, vector(blob), (1,))
    if blob.layout == CHANNELS_FIRST and 0 < place < blob.rank:
        return context.expand(blob, place + 1)
    return context.expand(context.source_order(blob), place)


@op("Transpose", raw=True)
def transpose(context: Lowering, node: Node, x: Operand, perm: Operand) -> Blob:
    """A transpose that the layout already stands for costs nothing."""
    axes = list(ints(array_of(node, 1, perm)))
    blob = as_blob(context, x)
    if blob.layout.kind == "flat":
        blob = context.source_order(blob)
    if blob.layout == CHANNELS_FIRST and blob.rank == len(axes):
        order = [blob.axis(a) for a in axes]
        if order == list(range(blob.rank)):
            return context.relabel(blob, SOURCE)
        return context.transpose(blob, order)
    last = (0, *range(2, len(axes)), 1)
    if tuple(axes) == last and 3 <= blob.rank <= 5:
        return context.relabel(context.source_order(blob), CHANNELS_FIRST)
    return transposed(context, blob, axes)


@op("ConcatV2", "Concat", raw=True)
def concat(context: Lowering, node: Node, *operands: Operand) -> Blob:
    """Parts without elements add nothing; constants are stored."""
    node.attrs.get("N")
    place = -1 if node.op == "ConcatV2" else 0
    axis = ints(array_of(node, place % len(operands), operands[place]))[0]
    parts = operands[:-1] if node.op == "ConcatV2" else operands[1:]
    full = [x for x in parts if not (isinstance(x, Constant) and not x.array.size)]
    blobs = [as_blob(context, x) for x in full]
    return _joined(context, blobs, axis)


def _joined(context: Lowering, blobs: list[Blob], axis: int) -> Blob:
    """Along an axis of the source; channels-first if one is and all can be."""
    first = any(x.layout == CHANNELS_FIRST for x in blobs) and all(x.rank > 2 for x in blobs)
    layout = CHANNELS_FIRST if first else SOURCE
    arranged = [arrange(context, x, layout) for x in blobs]
    place = layout.axis(axis, arranged[0].rank)
    if len(arranged) == 1:
        return arranged[0]
    return context.layer("concatND", *arranged, layout=layout, axis=place)


@op("ParallelConcat", raw=True)
def parallel_concat(context: Lowering, node: Node, *operands: Operand) -> Blob:
    for name in ("N", "shape"):
        node.attrs.get(name)
    return joined(context, [source(context, x) for x in operands], 0)


@op("Pack", raw=True)
def pack(context: Lowering, node: Node, *operands: Operand) -> Blob:
    """Stacks values along a new axis."""
    node.attrs.get("N")
    blobs = [source(context, x) for x in operands]
    ranks = rank(blobs[0])
    axis = positive(node.attrs.get("axis", 0), ranks + 1)
    if not ranks:
        return joined(context, [vector(x) for x in blobs], 0)
    return joined(context, [context.expand(x, axis) for x in blobs], axis)


@op("Unpack", raw=True)
def unpack(context: Lowering, node: Node, x: Operand) -> list[Blob]:
    blob = source(context, x)
    count = node.attrs["num"]
    axis = positive(node.attrs.get("axis", 0), blob.rank)
    parts = context.split(blob, [1] * count, axis)
    if blob.rank == 1:
        return [shaped(context, part, ()) for part in parts]
    return [context.squeeze(part, axis) for part in parts]


@op("Split", constants=(0,), layouts=UNFLATTENED)
def split(context: Lowering, node: Node, axis: Array, x: Blob) -> list[Blob]:
    count = node.attrs["num_split"]
    place = x.axis(ints(axis)[0])
    return context.split(x, [extent(x, place) // count] * count, place)


@op("SplitV", constants=(1, 2), layouts=UNFLATTENED)
def split_v(context: Lowering, node: Node, x: Blob, sizes: Array, axis: Array) -> list[Any]:
    """One size may be -1, the rest; parts without elements are constants."""
    node.attrs.get("num_split")
    place = x.axis(ints(axis)[0])
    values = list(ints(sizes))
    if -1 in values:
        values[values.index(-1)] = extent(x, place) - sum(n for n in values if n != -1)
    if not any(values):
        raise ConversionError(f"a split into {tuple(values)}: parts without elements")
    output = iter(context.split(x, [n for n in values if n], place))
    shape = list(x.source_shape or ())
    shape[positive(ints(axis)[0], x.rank)] = 0
    nothing = np.zeros([n or 0 for n in shape], np.float32)
    return [next(output) if size else nothing for size in values]


@op("Slice", raw=True)
def slice_(context: Lowering, node: Node, x: Operand, begin: Operand, size: Operand) -> Blob:
    """A size of -1 reaches the end."""
    if not (isinstance(begin, Constant) and isinstance(size, Constant)):
        return _slice_of_computed(context, source(context, x), begin, size)
    source_blob = context.arranged_inputs([as_blob(context, x)], UNFLATTENED)[0]
    pairs = zip(ints(begin.array), ints(size.array), strict=True)
    return cut(context, source_blob, [slice(b, None if s == -1 else b + s) for b, s in pairs])


def _slice_of_computed(context: Lowering, x: Blob, begin: Operand, size: Operand) -> Blob:
    """Core ML takes begins and ends as additional inputs."""
    sizes = ints(size.array) if isinstance(size, Constant) else (None,) * x.rank
    first, many = (as_blob(context, v) for v in (begin, size))
    end = context.add(first, many)
    if None in sizes:
        whole = as_blob(context, _shape(context, x))
        to_end = context.emit("lessThan", many, alpha=0.0)
        end = context.where(to_end, whole, end)
    masks = [n == -1 for n in sizes]
    shape = tuple(None if n is None or n < 0 else n for n in sizes)
    return _dynamic_slice(
        context,
        x,
        first,
        end,
        shape,
        strides=[1] * x.rank,
        beginMasks=[False] * x.rank,
        endMasks=masks,
        squeezeMasks=[False] * x.rank,
    )


def _dynamic_slice(
    context: Lowering, x: Blob, begin: Blob, end: Blob, shape: tuple[int | None, ...], **params: Any
) -> Blob:
    """A slice with computed bounds; `shape` is what is known about the result."""
    output = context.layer("sliceDynamic", x, begin, end, layout=SOURCE, **params)
    return _of_shape(context, output, shape)


def _of_shape(context: Lowering, x: Blob, shape: tuple[int | None, ...]) -> Blob:
    """A blob with more known extents than its layer gives."""
    context.builder.shapes[x.name] = shape
    return replace(x, shape=shape)


class _Axis(NamedTuple):
    """What a StridedSlice does to one axis.

    Attributes:
        place: the index of its bounds in the operands; None if it is taken whole.
        begins: whether its first bound counts.
        ends: whether its second bound counts.
        single: whether one entry is taken and the axis removed.
    """

    place: int | None = None
    begins: bool = False
    ends: bool = False
    single: bool = False


def _axes_of(node: Node, count: int, rank: int) -> tuple[list[_Axis], list[int]]:
    """What so many bounds do to each axis of the operand, and the new axes of the result."""
    masks = {
        name: node.attrs.get(f"{name}_mask", 0)
        for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    axes: list[_Axis] = []
    new_axes: list[int] = []
    for index in range(count):
        masked = {name for name, mask in masks.items() if mask >> index & 1}
        if "ellipsis" in masked:
            later = sum(bool(masks["new_axis"] >> i & 1) for i in range(index + 1, count))
            axes += [_Axis()] * (rank - len(axes) - (count - index - 1 - later))
        elif "new_axis" in masked:
            new_axes.append(len(axes) + len(new_axes) - sum(axis.single for axis in axes))
        elif "shrink_axis" in masked:
            axes.append(_Axis(index, begins=True, single=True))
        else:
            axes.append(_Axis(index, "begin" not in masked, "end" not in masked))
    return axes + [_Axis()] * (rank - len(axes)), new_axes


@op("StridedSlice", raw=True)
def strided_slice(
    context: Lowering, node: Node, x: Operand, begin: Operand, end: Operand, strides: Operand
) -> Blob:
    """Python's slices; masks leave bounds open, add axes and take single entries."""
    blob = as_blob(context, x)
    steps = ints(array_of(node, 3, strides))
    axes, new_axes = _axes_of(node, len(steps), rank(blob))
    if not (isinstance(begin, Constant) and isinstance(end, Constant)):
        output = _sliced_at_computed(context, context.source_order(blob), axes, begin, end, steps)
        return _with_axes(context, output, [], new_axes)
    starts, stops = (ints(v.array) for v in (begin, end))
    dropped = [i for i, axis in enumerate(axes) if axis.single]
    blob = context.source_order(blob) if dropped or new_axes or blob.layout.kind == "flat" else blob
    output = cut(context, blob, [_part(axis, starts, stops, steps) for axis in axes])
    return _with_axes(context, output, dropped, new_axes)


def _part(axis: _Axis, starts: Sequence[int], stops: Sequence[int], steps: Sequence[int]) -> slice:
    if axis.place is None:
        return slice(None)
    start = starts[axis.place]
    if axis.single:
        return slice(start, start + 1 if start != -1 else None)
    return slice(
        start if axis.begins else None, stops[axis.place] if axis.ends else None, steps[axis.place]
    )


def _sliced_at_computed(
    context: Lowering,
    x: Blob,
    axes: Sequence[_Axis],
    begin: Operand,
    end: Operand,
    steps: Sequence[int],
) -> Blob:
    """Bounds as additional inputs of Core ML's layer; unused ones are masked."""
    shape = tuple(
        n
        if axis.place is None or (not (axis.begins or axis.ends) and abs(steps[axis.place]) == 1)
        else None
        for n, axis in zip(x.known, axes, strict=True)
        if not axis.single
    )
    first, last = (_bounds(context, axes, v) for v in (begin, end))
    output = _dynamic_slice(
        context,
        x,
        first,
        last,
        shape or (1,),
        strides=[1 if a.place is None or a.single else steps[a.place] for a in axes],
        beginMasks=[not a.begins for a in axes],
        endMasks=[not a.ends for a in axes],
        squeezeMasks=[a.single for a in axes],
    )
    return output if shape else scalar(output)


def _bounds(context: Lowering, axes: Sequence[_Axis], operand: Operand) -> Blob:
    """The bounds of all axes as a vector; an axis without bounds gets any number."""
    places = [axis.place or 0 for axis in axes]
    if isinstance(operand, Constant):
        chosen = np.clip(operand.array.ravel()[places].astype(np.float64), -_FAR, _FAR)
        return context.constant(chosen)
    if operand.known == (len(places),) and places == list(range(len(places))):
        return vector(operand)
    return context.gather(vector(operand), context.constant(places), 0)


_FAR = 2**24  # beyond any axis, and exact in float32


def _with_axes(context: Lowering, x: Blob, dropped: list[int], new_axes: list[int]) -> Blob:
    """Removes axes of extent 1, and adds new ones at positions of the result."""
    if dropped:
        x = shaped(context, x, ()) if len(dropped) == x.rank else context.squeeze(x, *dropped)
    for place in new_axes:
        x = shaped(context, vector(x), (1,)) if x.is_scalar else context.expand(x, place)
    return x


def cut(context: Lowering, x: Blob, parts: list[slice]) -> Blob:
    """Slices the axes of the source in the blob's layout."""
    flat = context.source_order(x) if x.layout.kind == "flat" else x
    axes = [flat.axis(i) for i in range(len(parts))]
    output = sliced_anywhere(
        context,
        flat,
        [p.start for p in parts],
        [p.stop for p in parts],
        axes,
        [p.step or 1 for p in parts],
    )
    return replace(output, layout=flat.layout)


@op("Pad", "PadV2", raw=True)
def pad(
    context: Lowering, node: Node, x: Operand, amounts: Operand, value: Operand | None = None
) -> Blob:
    filler = 0.0 if value is None else float(array_of(node, 2, value).ravel()[0])
    if isinstance(amounts, Blob):
        pairs = context.reshape(amounts, (-1,), layout=SOURCE)
        return context.layer("constantPad", source(context, x), pairs, layout=SOURCE, value=filler)
    return _padded(context, x, array_of(node, 1, amounts), "constant", filler)


@op("MirrorPad", raw=True)
def mirror_pad(context: Lowering, node: Node, x: Operand, amounts: Operand) -> Blob:
    mode = {"REFLECT": "reflect", "SYMMETRIC": "symmetric"}[node.attrs["mode"]]
    return _padded(context, x, array_of(node, 1, amounts), mode, 0.0)


def _padded(context: Lowering, x: Operand, amounts: Array, mode: str, value: float) -> Blob:
    blob = as_blob(context, x)
    flat = context.source_order(blob) if blob.layout.kind == "flat" else blob
    order = [flat.axis(i) for i in range(flat.rank)]
    pairs: list[Any] = [None] * flat.rank
    for axis, place in enumerate(order):
        pairs[place] = tuple(int(n) for n in amounts[axis])
    starts, ends = zip(*pairs, strict=True)
    return replace(padded(context, flat, (*starts, *ends), mode, value), layout=flat.layout)


@op("Tile", raw=True)
def tile(context: Lowering, node: Node, operand: Operand, repeats: Operand) -> Blob:
    if isinstance(repeats, Blob):
        return context.layer("tile", source(context, operand), repeats, layout=SOURCE)
    x = context.arranged_inputs([as_blob(context, operand)], UNFLATTENED)[0]
    counts = ints(repeats.array)
    if any(n < 1 for n in counts):
        raise ConversionError(f"multiples={counts}: a value without elements")
    if x.is_scalar or set(counts) == {1}:
        return x
    return context.layer("tile", x, layout=x.layout, reps=x.layout.to_blob(counts))


@op("BroadcastTo", raw=True)
def broadcast_to(context: Lowering, node: Node, operand: Operand, shape: Operand) -> Blob:
    x = source(context, operand)
    if isinstance(shape, Blob):
        return context.layer("broadcastToDynamic", vector(x), shape, layout=SOURCE)
    target = ints(shape.array)
    if target == (() if x.is_scalar else x.known):
        return x
    return context.layer("broadcastToStatic", vector(x), layout=SOURCE, targetShape=target)


@op("ReverseV2", constants=(1,), layouts=UNFLATTENED)
def reverse(context: Lowering, node: Node, x: Blob, axes: Array) -> Blob:
    flipped = {x.axis(a) for a in ints(axes)}
    if not flipped:
        return x
    return context.layer(
        "reverse", x, layout=x.layout, reverseDim=[i in flipped for i in range(x.rank)]
    )


@op("ReverseSequence", constants=(1,))
def reverse_sequence(context: Lowering, node: Node, x: Blob, lengths: Array) -> Blob:
    return context.layer(
        "reverseSeq",
        x,
        context.constant(lengths),
        layout=SOURCE,
        batchAxis=node.attrs.get("batch_dim", 0),
        sequenceAxis=node.attrs["seq_dim"],
    )


@op("Roll", constants=(1, 2))
def roll(context: Lowering, node: Node, x: Blob, shifts: Array, axes: Array) -> Blob:
    """Moves the end of each axis to its front."""
    for moved, axis in zip(ints(shifts), ints(axes), strict=True):
        place = positive(axis, x.rank)
        size = x.known[place]
        inside = size is not None and -size < moved < size
        shift = moved if inside else moved % extent(x, place)
        if shift:
            front = sliced(context, x, [-shift], [None], [place], None)
            rest = sliced(context, x, [0], [-shift], [place], None)
            x = context.concat([front, rest], place)
    return x


@op("DepthToSpace", "SpaceToDepth", raw=True)
def depth_to_space(context: Lowering, node: Node, x: Operand) -> Blob:
    """The depth counts blocks first, channels last, in both libraries."""
    blob = maps(context, node, x)
    mode = "DEPTH_TO_SPACE" if node.op == "DepthToSpace" else "SPACE_TO_DEPTH"
    size = node.attrs["block_size"]
    return context.layer("reorganizeData", blob, layout=blob.layout, mode=mode, blockSize=size)


@op("SpaceToBatchND", constants=(1, 2))
def space_to_batch(context: Lowering, node: Node, x: Blob, block: Array, amounts: Array) -> Blob:
    """Moves entries of spatial blocks into the batch, one axis at a time."""
    sizes = ints(block)
    pairs = [(0, 0), *((int(a), int(b)) for a, b in amounts)]
    pairs += [(0, 0)] * (x.rank - len(pairs))
    starts, ends = zip(*pairs, strict=True)
    x = padded(context, x, (*starts, *ends), "constant", 0.0)
    for axis, size in reversed(list(enumerate(sizes, 1))):
        shape = known(x)
        before, after = math.prod(shape[1:axis]), math.prod(shape[axis + 1 :])
        apart = context.reshape(
            x, (shape[0], before, shape[axis] // size, size, after), layout=SOURCE
        )
        ordered = context.transpose(apart, (3, 0, 1, 2, 4))
        outputs = (size * shape[0], *shape[1:axis], shape[axis] // size, *shape[axis + 1 :])
        x = context.reshape(ordered, outputs, layout=SOURCE)
    return x


@op("BatchToSpaceND", constants=(1, 2))
def batch_to_space(context: Lowering, node: Node, x: Blob, block: Array, crops: Array) -> Blob:
    """The inverse of `space_to_batch`."""
    for axis, size in enumerate(ints(block), 1):
        shape = known(x)
        before, after = math.prod(shape[1:axis]), math.prod(shape[axis + 1 :])
        apart = context.reshape(
            x, (size, shape[0] // size, before, shape[axis], after), layout=SOURCE
        )
        ordered = context.transpose(apart, (1, 2, 3, 0, 4))
        outputs = (shape[0] // size, *shape[1:axis], shape[axis] * size, *shape[axis + 1 :])
        x = context.reshape(ordered, outputs, layout=SOURCE)
    cuts = [slice(None), *(slice(int(a), -int(b) if b else None) for a, b in crops)]
    return cut(context, x, cuts + [slice(None)] * (x.rank - len(cuts)))


@op("MatrixBandPart", constants=(1, 2))
def matrix_band_part(context: Lowering, node: Node, x: Blob, lower: Array, upper: Array) -> Blob:
    return context.layer(
        "matrixBandPart", x, layout=SOURCE, numLower=ints(lower)[0], numUpper=ints(upper)[0]
    )


@op("MatrixDiag", "MatrixDiagV2", "MatrixDiagV3", raw=True)
def matrix_diag(context: Lowering, node: Node, x: Operand, *rest: Operand) -> Blob:
    """The last axis as a diagonal, by a product with the unit matrix."""
    node.attrs.get("align")
    for place, (operand, default) in enumerate(zip(rest, (0, -1, -1, 0), strict=False), 1):
        if ints(array_of(node, place, operand)) != (default,):
            raise ConversionError("diagonals other than the main one, of square matrices")
    blob = source(context, x)
    unit = context.constant(np.eye(extent(blob, -1), dtype=np.float32))
    wide = context.expand(blob, -1)
    return context.multiply(wide, unit)


@op("MatrixDiagPart", "MatrixDiagPartV2", "MatrixDiagPartV3", raw=True)
def matrix_diag_part(context: Lowering, node: Node, x: Operand, *rest: Operand) -> Blob:
    """The main diagonal, as the sum of the product with the unit matrix."""
    node.attrs.get("align")
    if rest and ints(array_of(node, 1, rest[0])) != (0,):
        raise ConversionError("diagonals other than the main one")
    blob = source(context, x)
    rows, columns = known(blob)[-2:]
    unit = context.constant(np.eye(rows, columns, dtype=np.float32))
    output = context.multiply(blob, unit)
    axis = -1 if rows <= columns else -2
    return context.reduce("reduceSum", output, (axis,), keep=False)


@op("MatrixSetDiag", "MatrixSetDiagV2", "MatrixSetDiagV3", raw=True)
def matrix_set_diag(
    context: Lowering, node: Node, x: Operand, diagonal: Operand, k: Operand | None = None
) -> Blob:
    """The values of a vector on the main diagonal."""
    node.attrs.get("align")
    if k is not None and ints(array_of(node, 2, k)) != (0,):
        raise ConversionError("diagonals other than the main one")
    blob = source(context, x)
    rows, columns = extent(blob, -2), extent(blob, -1)
    unit = context.constant(np.eye(rows, columns, dtype=np.float32))
    wide = context.expand(source(context, diagonal), -1 if rows <= columns else -2)
    return context.where(unit, wide, blob)


@op("Diag", raw=True)
def diag(context: Lowering, node: Node, x: Operand) -> Blob:
    """[*shape] on the diagonal of [*shape, *shape]."""
    blob = source(context, x)
    shape = known(blob)
    count = math.prod(shape)
    column = shaped(context, blob, (count, 1))
    zero = context.constant([0.0])
    unit = context.constant(np.eye(count, dtype=np.float32))
    output = context.where(unit, column, zero)
    return reshaped(context, output, (*shape, *shape))


@op("DiagPart", raw=True)
def diag_part(context: Lowering, node: Node, x: Operand) -> Blob:
    """The inverse of `diag`."""
    blob = source(context, x)
    shape = known(blob)[: blob.rank // 2]
    count = math.prod(shape)
    flat = shaped(context, blob, (count * count,))
    places = context.constant(np.arange(count) * (count + 1))
    output = context.gather(flat, places, 0)
    return shaped(context, output, shape)


@op("ExtractImagePatches", layouts=(CHANNELS_FIRST,))
def extract_image_patches(context: Lowering, node: Node, x: Blob) -> Blob:
    """A convolution whose kernels hold a single 1; channels are the last axis of a patch."""
    sizes, strides, rates = (list(node.attrs[n][1:-1]) for n in ("ksizes", "strides", "rates"))
    channels = extent(x, 1)
    places = math.prod(sizes)
    single = np.eye(places * channels, dtype=np.float32).reshape(-1, places, channels)
    weights = single.transpose(0, 2, 1).reshape(-1, channels, *sizes)
    window = windows(node, x, sizes, strides, rates)
    return convolved(context, x, np.ascontiguousarray(weights), window, layout=x.layout)


# ---- shapes ----------------------------------------------------------------------------


@op("Shape", "ShapeN", raw=True)
def shape_of(context: Lowering, node: Node, *operands: Operand) -> list[Result]:
    """Known shapes are constants, so that arithmetic with them vanishes."""
    node.attrs.get("N")
    return [
        np.array(x.array.shape, np.int32) if isinstance(x, Constant) else _shape(context, x)
        for x in operands
    ]


def _shape(context: Lowering, x: Blob) -> Operand:
    shape = x.source_shape
    if shape is not None and None not in shape:
        return as_constant(context.sizes, x, np.array(shape, np.int32), range(len(shape)))
    return context.layer("getShape", as_stored(context, context.source_order(x)), layout=SOURCE)


@op("Size", raw=True)
def size_of(context: Lowering, node: Node, x: Operand) -> Array:
    return np.array(math.prod(known(as_blob(context, x))), np.int32)


@op("Rank", raw=True)
def rank_of(context: Lowering, node: Node, x: Operand) -> Array:
    return np.array(rank(as_blob(context, x)), np.int32)
