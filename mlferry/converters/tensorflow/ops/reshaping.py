"""Ops that move values without computing."""

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
from mlferry.converters.slices import padded, sliced
from mlferry.converters.tensorflow.ops.convolution import windows
from mlferry.converters.tensorflow.ops.registry import blob, maps, op, source
from mlferry.converters.values import CHANNELS_FIRST, SOURCE, UNFLATTENED, Blob, Constant, Layout
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import product


@op("Reshape", raw=True, sizes=True)
def reshape(low: Lowering, node: Node, x: Any, shape: Any) -> Blob:
    """Flattened channels-first data stay as they lie; who reads them permutes weights."""
    given = blob(low, x)
    if isinstance(shape, Blob):
        target = node.outputs[0].shape
        if target is not None and sum(n is None for n in target) <= 1 and target:
            return reshaped(low, low.source_order(given), target)
        return low.layer("reshapeDynamic", vector(source(low, x)), shape, layout=SOURCE)
    wanted = ints(shape.array)
    for known_way in (_flattened, _as_pixel):
        made = known_way(low, given, wanted)
        if made is not None:
            low.sizes.use(low.sizes.behind(shape))
            return made
    return to_shape(low, low.source_order(given), shape)


def _as_pixel(low: Lowering, x: Blob, wanted: tuple[int, ...]) -> Blob | None:
    """[N, C] as [N, 1, ..., C]: channels first, it only gets more axes."""
    if x.shape is None or x.rank != 2 or len(wanted) not in (4, 5) or x.layout != SOURCE:
        return None
    batch, channels = x.known
    if set(wanted[1:-1]) != {1} or wanted[0] not in (batch, -1) or wanted[-1] not in (channels, -1):
        return None
    if None in (batch, channels) or wanted.count(-1) > 1:
        return None
    return replace(low.expand(x, *range(2, len(wanted))), layout=CHANNELS_FIRST)


def _flattened(low: Lowering, x: Blob, wanted: tuple[int, ...]) -> Blob | None:
    """[N, ..., C] as [N, ...] without a transpose, where it is that."""
    if x.shape is None or x.layout != CHANNELS_FIRST or x.rank < 3 or len(wanted) != 2:
        return None
    shape = x.source_shape or ()
    size = product(shape[1:])
    batch, rest = wanted
    keeps = batch == shape[0] if batch != -1 else rest == size
    if size is None or not keeps or rest not in (size, -1) or (batch, rest) == (-1, -1):
        return None
    alone = shape[-1] == 1 or product(shape[1:-1]) == 1
    layout = SOURCE if alone else Layout("flat", shape[1:])
    return low.reshape(x, (shape[0], size), layout=layout)


@op("Squeeze", layouts=UNFLATTENED)
def squeeze(low: Lowering, node: Node, x: Blob) -> Blob:
    """Of channels-first data the axes between batch and channels may go."""
    given = node.attrs.get("squeeze_dims") or node.attrs.get("axis") or []
    shape = x.source_shape or ()
    gone = {positive(a, x.rank) for a in given} or {i for i, n in enumerate(shape) if n == 1}
    if not gone or x.is_scalar:
        return x
    rest = tuple(n for i, n in enumerate(shape) if i not in gone)
    if not rest:
        return shaped(low, low.source_order(x), ())
    inner = gone <= set(range(1, x.rank - 1))
    if x.layout == CHANNELS_FIRST and not inner:
        x = low.source_order(x)
    layout = x.layout if len(rest) > 2 else SOURCE
    axes = sorted(x.axis(a) for a in gone)
    return replace(low.squeeze(x, *axes), layout=layout)


@op("ExpandDims", raw=True)
def expand_dims(low: Lowering, node: Node, x: Any, axis: Any) -> Blob:
    """Between batch and channels, channels-first data stay so."""
    given = blob(low, x)
    place = positive(ints(array_of(node, 1, axis))[0], rank(given) + 1)
    if given.is_scalar:
        return shaped(low, vector(given), (1,))
    if given.layout == CHANNELS_FIRST and 0 < place < given.rank:
        return low.expand(given, place + 1)
    return low.expand(low.source_order(given), place)


@op("Transpose", raw=True)
def transpose(low: Lowering, node: Node, x: Any, perm: Any) -> Blob:
    """What the layout has done already costs nothing."""
    axes = list(ints(array_of(node, 1, perm)))
    given = blob(low, x)
    if given.layout.kind == "flat":
        given = low.source_order(given)
    if given.layout == CHANNELS_FIRST and given.rank == len(axes):
        order = [given.axis(a) for a in axes]
        if order == list(range(given.rank)):
            return low.relabel(given, SOURCE)
        return low.layer("transpose", given, layout=SOURCE, axes=order)
    last = (0, *range(2, len(axes)), 1)
    if tuple(axes) == last and 3 <= given.rank <= 5:
        return low.relabel(low.source_order(given), CHANNELS_FIRST)
    return transposed(low, given, axes)


@op("ConcatV2", "Concat", raw=True)
def concat(low: Lowering, node: Node, *operands: Any) -> Any:
    """Parts without elements add nothing; constants are stored."""
    node.attrs.get("N")
    place = -1 if node.op == "ConcatV2" else 0
    axis = ints(array_of(node, place % len(operands), operands[place]))[0]
    parts = operands[:-1] if node.op == "ConcatV2" else operands[1:]
    full = [x for x in parts if not (isinstance(x, Constant) and not x.array.size)]
    blobs = [blob(low, x) for x in full]
    return _joined(low, blobs, axis)


def _joined(low: Lowering, blobs: list[Blob], axis: int) -> Blob:
    """Along an axis of the source; channels-first where one is and all can be."""
    first = any(x.layout == CHANNELS_FIRST for x in blobs) and all(x.rank > 2 for x in blobs)
    layout = CHANNELS_FIRST if first else SOURCE
    arranged = [arrange(low, x, layout) for x in blobs]
    place = layout.axis(axis, arranged[0].rank)
    if len(arranged) == 1:
        return arranged[0]
    return low.layer("concatND", *arranged, layout=layout, axis=place)


@op("ParallelConcat", raw=True)
def parallel_concat(low: Lowering, node: Node, *operands: Any) -> Blob:
    for name in ("N", "shape"):
        node.attrs.get(name)
    return joined(low, [source(low, x) for x in operands], 0)


@op("Pack", raw=True)
def pack(low: Lowering, node: Node, *operands: Any) -> Blob:
    """Side by side along a new axis."""
    node.attrs.get("N")
    blobs = [source(low, x) for x in operands]
    ranks = rank(blobs[0])
    axis = positive(node.attrs.get("axis", 0), ranks + 1)
    if not ranks:
        return joined(low, [vector(x) for x in blobs], 0)
    return joined(low, [low.expand(x, axis) for x in blobs], axis)


@op("Unpack", raw=True)
def unpack(low: Lowering, node: Node, x: Any) -> list[Blob]:
    given = source(low, x)
    count = node.attrs["num"]
    axis = positive(node.attrs.get("axis", 0), given.rank)
    parts = _parts(low, given, axis, [1] * count)
    if given.rank == 1:
        return [shaped(low, part, ()) for part in parts]
    return [low.squeeze(part, axis) for part in parts]


def _parts(low: Lowering, x: Blob, axis: int, sizes: list[int]) -> list[Blob]:
    """Slices of an axis of the blob, one after another."""
    if len(sizes) == 1:
        return [x]
    return list(
        low.outputs(
            len(sizes), "splitND", x, layout=x.layout, axis=axis, numSplits=len(sizes),
            splitSizes=sizes,
        )
    )  # fmt: skip


@op("Split", constants=(0,), layouts=UNFLATTENED)
def split(low: Lowering, node: Node, axis: Any, x: Blob) -> list[Blob]:
    count = node.attrs["num_split"]
    place = x.axis(ints(axis)[0])
    return _parts(low, x, place, [extent(x, place) // count] * count)


@op("SplitV", constants=(1, 2), layouts=UNFLATTENED)
def split_v(low: Lowering, node: Node, x: Blob, sizes: Any, axis: Any) -> list[Any]:
    """One size may be -1; parts without elements are constants."""
    node.attrs.get("num_split")
    place = x.axis(ints(axis)[0])
    given = list(ints(sizes))
    if -1 in given:
        given[given.index(-1)] = extent(x, place) - sum(n for n in given if n != -1)
    if not any(given):
        raise ConversionError(f"a split into {tuple(given)}: parts without elements")
    made = iter(_parts(low, x, place, [n for n in given if n]))
    shape = list(x.source_shape or ())
    shape[positive(ints(axis)[0], x.rank)] = 0
    nothing = np.zeros([n or 0 for n in shape], np.float32)
    return [next(made) if size else nothing for size in given]


@op("Slice", raw=True)
def slice_(low: Lowering, node: Node, x: Any, begin: Any, size: Any) -> Any:
    """A size of -1 goes to the end."""
    if not (isinstance(begin, Constant) and isinstance(size, Constant)):
        return _slice_of_computed(low, source(low, x), begin, size)
    given = low.arranged_inputs([blob(low, x)], UNFLATTENED)[0]
    pairs = zip(ints(begin.array), ints(size.array), strict=True)
    return cut(low, given, [slice(b, None if s == -1 else b + s) for b, s in pairs])


def _slice_of_computed(low: Lowering, x: Blob, begin: Any, size: Any) -> Blob:
    """Core ML takes begins and ends, as further inputs."""
    sizes = ints(size.array) if isinstance(size, Constant) else (None,) * x.rank
    first, many = (low.stored(v) if isinstance(v, Constant) else v for v in (begin, size))
    end = low.layer("addBroadcastable", first, many, layout=SOURCE)
    if None in sizes:
        whole = blob(low, _shape(low, x))
        to_end = low.layer("lessThan", many, layout=SOURCE, alpha=0.0)
        end = low.layer("whereBroadcastable", to_end, whole, end, layout=SOURCE)
    masks = [n == -1 for n in sizes]
    shape = tuple(None if n is None or n < 0 else n for n in sizes)
    return _dynamic_slice(
        low, x, first, end, shape, strides=[1] * x.rank, beginMasks=[False] * x.rank,
        endMasks=masks, squeezeMasks=[False] * x.rank,
    )  # fmt: skip


def _dynamic_slice(
    low: Lowering, x: Blob, begin: Blob, end: Blob, shape: tuple[int | None, ...], **params: Any
) -> Blob:
    """A slice whose bounds are computed; `shape` is what is known of the result."""
    made = low.layer("sliceDynamic", x, begin, end, layout=SOURCE, **params)
    return _of_shape(low, made, shape)


def _of_shape(low: Lowering, x: Blob, shape: tuple[int | None, ...]) -> Blob:
    """A blob of which more is known than its layer tells."""
    low.builder.shapes[x.name] = shape
    return replace(x, shape=shape)


class _Axis(NamedTuple):
    """What a StridedSlice does to one axis.

    Attributes:
        place: of its bounds among the operands; None where it is taken whole.
        begins: whether its first bound counts.
        ends: whether its second bound counts.
        single: whether one entry is taken and the axis goes.
    """

    place: int | None = None
    begins: bool = False
    ends: bool = False
    single: bool = False


def _axes_of(node: Node, count: int, rank: int) -> tuple[list[_Axis], list[int]]:
    """What happens to each axis of the operand, and where the result has new ones.

    Args:
        node: the StridedSlice.
        count: of its bounds.
        rank: of its operand.
    """
    masks = {
        name: node.attrs.get(f"{name}_mask", 0)
        for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    axes: list[_Axis] = []
    added: list[int] = []
    for index in range(count):
        masked = {name for name, mask in masks.items() if mask >> index & 1}
        if "ellipsis" in masked:
            later = sum(bool(masks["new_axis"] >> i & 1) for i in range(index + 1, count))
            axes += [_Axis()] * (rank - len(axes) - (count - index - 1 - later))
        elif "new_axis" in masked:
            added.append(len(axes) + len(added) - sum(axis.single for axis in axes))
        elif "shrink_axis" in masked:
            axes.append(_Axis(index, begins=True, single=True))
        else:
            axes.append(_Axis(index, "begin" not in masked, "end" not in masked))
    return axes + [_Axis()] * (rank - len(axes)), added


@op("StridedSlice", raw=True)
def strided_slice(low: Lowering, node: Node, x: Any, begin: Any, end: Any, strides: Any) -> Any:
    """Python's slices: masks leave bounds open, add axes and take single entries."""
    given = blob(low, x)
    steps = ints(array_of(node, 3, strides))
    axes, added = _axes_of(node, len(steps), rank(given))
    if not (isinstance(begin, Constant) and isinstance(end, Constant)):
        made = _sliced_at_computed(low, low.source_order(given), axes, begin, end, steps)
        return _with_axes(low, made, [], added)
    starts, stops = (ints(v.array) for v in (begin, end))
    gone = [i for i, axis in enumerate(axes) if axis.single]
    given = low.source_order(given) if gone or added or given.layout.kind == "flat" else given
    made = cut(low, given, [_part(axis, starts, stops, steps) for axis in axes])
    return _with_axes(low, made, gone, added)


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
    low: Lowering, x: Blob, axes: Sequence[_Axis], begin: Any, end: Any, steps: Sequence[int]
) -> Blob:
    """Bounds as further inputs of Core ML's layer; those that do not count are masked."""
    shape = tuple(
        n if axis.place is None or (not (axis.begins or axis.ends) and abs(steps[axis.place]) == 1)
        else None
        for n, axis in zip(x.known, axes, strict=True) if not axis.single
    )  # fmt: skip
    first, last = (_bounds(low, axes, v) for v in (begin, end))
    made = _dynamic_slice(
        low, x, first, last, shape or (1,),
        strides=[1 if a.place is None or a.single else steps[a.place] for a in axes],
        beginMasks=[not a.begins for a in axes], endMasks=[not a.ends for a in axes],
        squeezeMasks=[a.single for a in axes],
    )  # fmt: skip
    return made if shape else scalar(made)


def _bounds(low: Lowering, axes: Sequence[_Axis], given: Any) -> Blob:
    """The bounds of all axes as a vector; any where an axis has none."""
    places = [axis.place or 0 for axis in axes]
    if isinstance(given, Constant):
        chosen = np.clip(given.array.ravel()[places].astype(np.float64), -_FAR, _FAR)
        return low.constant(chosen)
    if places == list(range(*given.known)):
        return vector(given)
    return low.layer("gather", vector(given), low.constant(places), layout=SOURCE, axis=0)


_FAR = 2**24  # beyond any axis, and exact in float32


def _with_axes(low: Lowering, x: Blob, gone: list[int], added: list[int]) -> Blob:
    """Without some axes of extent 1, and with new ones at places of the result."""
    if gone:
        x = shaped(low, x, ()) if len(gone) == x.rank else low.squeeze(x, *gone)
    for place in added:
        x = shaped(low, vector(x), (1,)) if x.is_scalar else low.expand(x, place)
    return x


def cut(low: Lowering, x: Blob, parts: list[slice]) -> Blob:
    """Slices of the axes of the source, in the blob's layout."""
    flat = low.source_order(x) if x.layout.kind == "flat" else x
    axes = [flat.axis(i) for i in range(len(parts))]
    made = sliced(
        low, flat, [p.start for p in parts], [p.stop for p in parts], axes,
        [p.step or 1 for p in parts],
    )  # fmt: skip
    return replace(made, layout=flat.layout)


@op("Pad", "PadV2", raw=True)
def pad(low: Lowering, node: Node, x: Any, amounts: Any, value: Any = None) -> Blob:
    filler = 0.0 if value is None else float(array_of(node, 2, value).ravel()[0])
    if isinstance(amounts, Blob):
        pairs = low.reshape(amounts, (-1,), layout=SOURCE)
        return low.layer("constantPad", source(low, x), pairs, layout=SOURCE, value=filler)
    return _padded(low, x, array_of(node, 1, amounts), "constant", filler)


@op("MirrorPad", raw=True)
def mirror_pad(low: Lowering, node: Node, x: Any, amounts: Any) -> Blob:
    mode = {"REFLECT": "reflect", "SYMMETRIC": "symmetric"}[node.attrs["mode"]]
    return _padded(low, x, array_of(node, 1, amounts), mode, 0.0)


def _padded(low: Lowering, x: Any, amounts: Any, mode: str, value: float) -> Blob:
    given = blob(low, x)
    flat = low.source_order(given) if given.layout.kind == "flat" else given
    order = [flat.axis(i) for i in range(flat.rank)]
    pairs: list[Any] = [None] * flat.rank
    for axis, place in enumerate(order):
        pairs[place] = tuple(int(n) for n in amounts[axis])
    starts, ends = zip(*pairs, strict=True)
    return replace(padded(low, flat, (*starts, *ends), mode, value), layout=flat.layout)


@op("Tile", raw=True)
def tile(low: Lowering, node: Node, operand: Any, repeats: Any) -> Blob:
    if isinstance(repeats, Blob):
        return low.layer("tile", source(low, operand), repeats, layout=SOURCE)
    x = low.arranged_inputs([blob(low, operand)], UNFLATTENED)[0]
    given = ints(repeats.array)
    if any(n < 1 for n in given):
        raise ConversionError(f"multiples={given}: a value without elements")
    if x.is_scalar or set(given) == {1}:
        return x
    return low.layer("tile", x, layout=x.layout, reps=x.layout.to_blob(given))


@op("BroadcastTo", raw=True)
def broadcast_to(low: Lowering, node: Node, operand: Any, shape: Any) -> Blob:
    x = source(low, operand)
    if isinstance(shape, Blob):
        return low.layer("broadcastToDynamic", vector(x), shape, layout=SOURCE)
    target = ints(shape.array)
    if target == (() if x.is_scalar else x.known):
        return x
    return low.layer("broadcastToStatic", vector(x), layout=SOURCE, targetShape=target)


@op("ReverseV2", constants=(1,), layouts=UNFLATTENED)
def reverse(low: Lowering, node: Node, x: Blob, axes: Any) -> Blob:
    turned = {x.axis(a) for a in ints(axes)}
    if not turned:
        return x
    return low.layer("reverse", x, layout=x.layout, reverseDim=[i in turned for i in range(x.rank)])


@op("ReverseSequence", constants=(1,))
def reverse_sequence(low: Lowering, node: Node, x: Blob, lengths: Any) -> Blob:
    return low.layer(
        "reverseSeq", x, low.constant(lengths), layout=SOURCE,
        batchAxis=node.attrs.get("batch_dim", 0), sequenceAxis=node.attrs["seq_dim"],
    )  # fmt: skip


@op("Roll", constants=(1, 2))
def roll(low: Lowering, node: Node, x: Blob, shifts: Any, axes: Any) -> Blob:
    """The end of each axis moves to its front."""
    for moved, axis in zip(ints(shifts), ints(axes), strict=True):
        place = positive(axis, x.rank)
        size = x.known[place]
        inside = size is not None and -size < moved < size
        shift = moved if inside else moved % extent(x, place)
        if shift:
            front = sliced(low, x, [-shift], [None], [place], None)
            rest = sliced(low, x, [0], [-shift], [place], None)
            x = low.layer("concatND", front, rest, layout=SOURCE, axis=place)
    return x


@op("DepthToSpace", "SpaceToDepth", raw=True)
def depth_to_space(low: Lowering, node: Node, x: Any) -> Blob:
    """The depth counts blocks first, channels last, in both libraries."""
    given = maps(low, node, x)
    mode = "DEPTH_TO_SPACE" if node.op == "DepthToSpace" else "SPACE_TO_DEPTH"
    size = node.attrs["block_size"]
    return low.layer("reorganizeData", given, layout=given.layout, mode=mode, blockSize=size)


@op("SpaceToBatchND", constants=(1, 2))
def space_to_batch(low: Lowering, node: Node, x: Blob, block: Any, amounts: Any) -> Blob:
    """One axis at a time: what is apart in space gets a place in the batch."""
    sizes = ints(block)
    pairs = [(0, 0), *((int(a), int(b)) for a, b in amounts)]
    pairs += [(0, 0)] * (x.rank - len(pairs))
    starts, ends = zip(*pairs, strict=True)
    x = padded(low, x, (*starts, *ends), "constant", 0.0)
    for axis, size in reversed(list(enumerate(sizes, 1))):
        shape = known(x)
        before, after = math.prod(shape[1:axis]), math.prod(shape[axis + 1 :])
        apart = low.reshape(x, (shape[0], before, shape[axis] // size, size, after), layout=SOURCE)
        turned = low.layer("transpose", apart, layout=SOURCE, axes=(3, 0, 1, 2, 4))
        made = (size * shape[0], *shape[1:axis], shape[axis] // size, *shape[axis + 1 :])
        x = low.reshape(turned, made, layout=SOURCE)
    return x


@op("BatchToSpaceND", constants=(1, 2))
def batch_to_space(low: Lowering, node: Node, x: Blob, block: Any, crops: Any) -> Blob:
    """The inverse of `space_to_batch`."""
    for axis, size in enumerate(ints(block), 1):
        shape = known(x)
        before, after = math.prod(shape[1:axis]), math.prod(shape[axis + 1 :])
        apart = low.reshape(x, (size, shape[0] // size, before, shape[axis], after), layout=SOURCE)
        turned = low.layer("transpose", apart, layout=SOURCE, axes=(1, 2, 3, 0, 4))
        made = (shape[0] // size, *shape[1:axis], shape[axis] * size, *shape[axis + 1 :])
        x = low.reshape(turned, made, layout=SOURCE)
    cuts = [slice(None), *(slice(int(a), -int(b) if b else None) for a, b in crops)]
    return cut(low, x, cuts + [slice(None)] * (x.rank - len(cuts)))


@op("MatrixBandPart", constants=(1, 2))
def matrix_band_part(low: Lowering, node: Node, x: Blob, lower: Any, upper: Any) -> Blob:
    return low.layer(
        "matrixBandPart", x, layout=SOURCE, numLower=ints(lower)[0], numUpper=ints(upper)[0]
    )


@op("MatrixDiag", "MatrixDiagV2", "MatrixDiagV3", raw=True)
def matrix_diag(low: Lowering, node: Node, x: Any, *rest: Any) -> Blob:
    """The last axis as a diagonal: times the unit matrix."""
    node.attrs.get("align")
    for place, (operand, default) in enumerate(zip(rest, (0, -1, -1, 0), strict=False), 1):
        if ints(array_of(node, place, operand)) != (default,):
            raise ConversionError("diagonals other than the main one, of square matrices")
    given = source(low, x)
    unit = low.constant(np.eye(extent(given, -1), dtype=np.float32))
    wide = low.expand(given, -1)
    return low.layer("multiplyBroadcastable", wide, unit, layout=SOURCE)


@op("MatrixDiagPart", "MatrixDiagPartV2", "MatrixDiagPartV3", raw=True)
def matrix_diag_part(low: Lowering, node: Node, x: Any, *rest: Any) -> Blob:
    """The main diagonal: times the unit matrix, summed."""
    node.attrs.get("align")
    if rest and ints(array_of(node, 1, rest[0])) != (0,):
        raise ConversionError("diagonals other than the main one")
    given = source(low, x)
    rows, columns = known(given)[-2:]
    unit = low.constant(np.eye(rows, columns, dtype=np.float32))
    kept = low.layer("multiplyBroadcastable", given, unit, layout=SOURCE)
    axis = -1 if rows <= columns else -2
    return low.layer("reduceSum", kept, layout=SOURCE, axes=(axis,), keepDims=False)


@op("MatrixSetDiag", "MatrixSetDiagV2", "MatrixSetDiagV3", raw=True)
def matrix_set_diag(low: Lowering, node: Node, x: Any, diagonal: Any, k: Any = None) -> Blob:
    """The values of a vector on the main diagonal."""
    node.attrs.get("align")
    if k is not None and ints(array_of(node, 2, k)) != (0,):
        raise ConversionError("diagonals other than the main one")
    given = source(low, x)
    rows, columns = extent(given, -2), extent(given, -1)
    unit = low.constant(np.eye(rows, columns, dtype=np.float32))
    wide = low.expand(source(low, diagonal), -1 if rows <= columns else -2)
    return low.layer("whereBroadcastable", unit, wide, given, layout=SOURCE)


@op("Diag", raw=True)
def diag(low: Lowering, node: Node, x: Any) -> Blob:
    """[*shape] on the diagonal of [*shape, *shape]."""
    given = source(low, x)
    shape = known(given)
    count = math.prod(shape)
    column = shaped(low, given, (count, 1))
    zero = low.constant([0.0])
    unit = low.constant(np.eye(count, dtype=np.float32))
    made = low.layer("whereBroadcastable", unit, column, zero, layout=SOURCE)
    return reshaped(low, made, (*shape, *shape))


@op("DiagPart", raw=True)
def diag_part(low: Lowering, node: Node, x: Any) -> Blob:
    """The inverse of `diag`."""
    given = source(low, x)
    shape = known(given)[: given.rank // 2]
    count = math.prod(shape)
    flat = shaped(low, given, (count * count,))
    places = low.constant(np.arange(count) * (count + 1))
    made = low.layer("gather", flat, places, layout=SOURCE, axis=0)
    return shaped(low, made, shape)


@op("ExtractImagePatches", layouts=(CHANNELS_FIRST,))
def extract_image_patches(low: Lowering, node: Node, x: Blob) -> Blob:
    """A convolution by single ones; a patch counts its pixels first, their channels last."""
    sizes, strides, rates = (list(node.attrs[n][1:-1]) for n in ("ksizes", "strides", "rates"))
    channels = extent(x, 1)
    places = math.prod(sizes)
    single = np.eye(places * channels, dtype=np.float32).reshape(-1, places, channels)
    weights = single.transpose(0, 2, 1).reshape(-1, channels, *sizes)
    how = windows(node, x, sizes, strides, rates)
    return convolved(low, x, np.ascontiguousarray(weights), how, layout=x.layout)


# ---- shapes ----------------------------------------------------------------------------


@op("Shape", "ShapeN", raw=True)
def shape_of(low: Lowering, node: Node, *operands: Any) -> list[Any]:
    """Known shapes are constants: the arithmetic on them vanishes."""
    node.attrs.get("N")
    return [_shape(low, x) for x in operands]


def _shape(low: Lowering, x: Any) -> Any:
    if isinstance(x, Constant):
        return np.array(x.array.shape, np.int32)
    shape = x.source_shape
    if shape is not None and None not in shape:
        return as_constant(low.sizes, x, np.array(shape, np.int32), range(len(shape)))
    return low.layer("getShape", as_stored(low, low.source_order(x)), layout=SOURCE)


@op("Size", raw=True)
def size_of(low: Lowering, node: Node, x: Any) -> Any:
    return np.array(math.prod(known(blob(low, x))), np.int32)


@op("Rank", raw=True)
def rank_of(low: Lowering, node: Node, x: Any) -> Any:
    return np.array(rank(blob(low, x)), np.int32)
