"""Ops that only move values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.extents import (
    UNKNOWN,
    Element,
    Elements,
    as_vector,
    elements_of,
    extents,
    noted,
    refined,
    shape_of as extents_of,
    size_of,
)
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import (
    affine,
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
from mlferry.converters.reshapes import (
    MOST_AXES,
    as_stored,
    of_same_rank,
    reshaped,
    to_shape,
    transposed,
)
from mlferry.converters.sizes import spelled, use
from mlferry.converters.slices import can_be_padded, first_within, padded, sliced, sliced_anywhere
from mlferry.converters.values import Blob, Constant, Operand, Result, Results
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array, broadcast


@op("Reshape", raw=True, sizes=True)
def reshape(context: Lowering, node: Node, x: Operand, shape: Operand | None = None) -> Result:
    """0 copies the input's extent, unless `allowzero` is set; -1 is the rest."""
    node.attrs.get("consumed_inputs")
    x = as_blob(context, x)
    zero = node.attrs.get("allowzero", 0)
    if isinstance(shape, Blob):
        elements = elements_of(context, shape)
        if elements is None:
            return context.layer("reshapeDynamic", as_stored(context, vector(x)), shape)
        return _to_elements(context, x, elements if zero else _copied(context, x, elements), shape)
    requested = list(ints(node.attrs["shape"] if shape is None else shape.array))
    flat = elements_of(context, x) if isinstance(x, Blob) and x.shape is not None else None
    if flat is not None and requested in ([-1], [len(flat)]) and (x.is_scalar or x.rank == 1):
        return noted(context, vector(x), flat)
    if 0 in requested and zero:
        raise ConversionError("a value without elements")
    if shape is not None and 0 not in requested:
        return to_shape(context, x, shape)
    source = () if x.is_scalar else x.known
    if sum(n == -1 or (n == 0 and source[i] is None) for i, n in enumerate(requested)) > 1:
        elements = elements_of(context, Constant("", np.array(requested))) or ()
        return _to_elements(context, x, _copied(context, x, elements), None)
    target: list[int | None] = []
    for index, size in enumerate(requested):
        if size == 0:
            use(x, [index])
        target.append(source[index] if size == 0 else size)
    context.sizes.use(context.sizes.behind(shape))
    return reshaped(context, x, target)


def _copied(context: Lowering, x: Blob, elements: Elements) -> Elements:
    """A shape whose zeros are replaced by extents of the input."""
    if all(e.value != 0 for e in elements):
        return elements
    own = extents(context, x)
    return tuple(own[i] if e.value == 0 else e for i, e in enumerate(elements))


def _to_elements(context: Lowering, x: Blob, elements: Elements, shape: Blob | None) -> Blob:
    """To a shape whose extents are known, extents of blobs, or computed."""
    free = [i for i, e in enumerate(elements) if e.value is None or e.value == -1]
    if len(free) <= 1:
        context.sizes.use(frozenset().union(*(e.made_of for e in elements)))
        return reshaped(
            context, x, [None if i in free else e.value for i, e in enumerate(elements)]
        )
    result = _with_leading_axes(context, x, elements)
    if result is not None:
        return result
    target = as_vector(context, elements, shape)
    output = context.layer("reshapeDynamic", as_stored(context, vector(x)), target)
    return refined(
        context, output, [None if i in free else e.value for i, e in enumerate(elements)]
    )


def _with_leading_axes(context: Lowering, x: Blob, elements: Elements) -> Blob | None:
    """The first axes stay, whatever their extents; at most one of the others is free."""
    remaining = 0
    while remaining < min(x.rank, len(elements)) and (
        elements[remaining].is_extent(x, remaining)
        or (x.known[remaining] is not None and elements[remaining].value == x.known[remaining])
    ):
        remaining += 1
    rest = [-1 if e.value is None else e.value for e in elements[remaining:]]
    before = x.known[remaining:]
    if rest.count(-1) > 1 or max(x.rank, len(elements)) > MOST_AXES:
        return None
    if None in before and -1 not in rest:
        return None
    made_of = [
        e.made_of - {(x.name, i)} if i < remaining else e.made_of for i, e in enumerate(elements)
    ]
    context.sizes.use(frozenset().union(*made_of))
    longer = len(rest) - len(before)
    if longer > 0:
        x = context.layer("expandDims", x, axes=range(x.rank, x.rank + longer))
    target = [0] * remaining + rest + [1] * -longer
    output = of_same_rank(context, x, target)
    if longer >= 0:
        return output
    return context.layer("squeeze", output, axes=range(len(elements), output.rank))


@op("Flatten")
def flatten(context: Lowering, node: Node, x: Blob) -> Blob:
    """To two axes, split before `axis`."""
    if x.is_scalar:
        return shaped(context, x, (1, 1))
    axis = node.attrs.get("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    if x.rank == 2 and axis == 1:
        return x
    if x.rank <= MOST_AXES:
        return context.layer("flattenTo2D", x, axis=axis)
    shape = known(x)
    return shaped(context, x, (math.prod(shape[:axis]), math.prod(shape[axis:])))


@op("Squeeze", constants=(1,))
def squeeze(context: Lowering, node: Node, x: Blob, axes: Array | None = None) -> Operand:
    option = node.attrs.get("axes") if axes is None else ints(axes)
    if x.is_scalar:
        return x
    shape = x.known
    if option is None:
        gone = {i for i, n in enumerate(known(x)) if n == 1}
    else:
        gone = {positive(a, x.rank) for a in option}
    if any(shape[i] not in (1, None) for i in gone):
        raise ConversionError(f"axes {sorted(gone)} of {shape} are not all 1")
    rest = tuple(n for i, n in enumerate(shape) if i not in gone)
    if not gone:
        return x
    if not rest:
        return noted(context, shaped(context, x, ()), elements_of(context, x))
    return context.layer("squeeze", x, axes=sorted(gone))


@op("Unsqueeze", constants=(1,))
def unsqueeze(context: Lowering, node: Node, x: Blob, axes: Array | None = None) -> Operand:
    new_axes = ints(node.attrs["axes"] if axes is None else axes)
    total = rank(x) + len(new_axes)
    places = sorted(positive(a, total) for a in new_axes)
    if len(set(places)) < len(places):
        raise ConversionError(f"axes {new_axes} name one axis twice")
    if x.is_scalar and total == 1:
        return noted(context, vector(x), elements_of(context, x))
    if x.is_scalar:
        return shaped(context, vector(x), (1,) * total)
    return context.layer("expandDims", x, axes=places) if places else x


@op("Transpose")
def transpose(context: Lowering, node: Node, x: Blob) -> Blob:
    axes = list(node.attrs.get("perm") or list(range(rank(x)))[::-1])
    return transposed(context, x, axes)


@op("Concat", raw=True)
def concat(context: Lowering, node: Node, *operands: Operand) -> Operand:
    """Opset 1 has a default, axis 1; parts without elements add nothing."""
    full = [x for x in operands if not (isinstance(x, Constant) and not x.array.size)]
    inputs = [as_blob(context, x) for x in full]
    axis = positive(node.attrs.get("axis", 1), inputs[0].rank)
    output = joined(context, inputs, axis)
    values = [elements_of(context, x) for x in full] if output.rank == 1 else [None]
    parts = [part for part in values if part is not None]
    if len(parts) < len(values):
        return output
    return noted(context, output, [element for part in parts for element in part])


@op("Split", raw=True)
def split(context: Lowering, node: Node, x: Operand, sizes: Operand | None = None) -> Results:
    """Into parts of given sizes, or equal ones; the last of these may be smaller."""
    x = as_blob(context, x)
    axis = positive(node.attrs.get("axis", 0), x.rank)
    if isinstance(sizes, Blob):
        return split_at_computed(context, x, sizes, axis, len(node.outputs))
    if sizes is not None:
        context.sizes.use(context.sizes.behind(sizes))
    option = node.attrs.get("split") if sizes is None else ints(sizes.array)
    count = len(node.outputs)
    if node.attrs.get("num_outputs") not in (None, 0, count):
        raise ConversionError(f"num_outputs={node.attrs['num_outputs']}, and {count} outputs")
    if option is None and x.known[axis] is None and not node.attrs.get("num_outputs"):
        return context.split(x, count, axis)
    if option is None:
        size = extent(x, axis)
        part = -(-size // count)
        option = [min(part, size - part * i) for i in range(count)]
    sizes_left = [size for size in option if size]
    if not sizes_left:
        raise ConversionError(f"a split into {tuple(option)}: parts without elements")
    output = iter(context.split(x, sizes_left, axis))
    nothing = np.zeros([0 if i == axis else n or 1 for i, n in enumerate(x.known)], np.float32)
    return [next(output) if size else nothing for size in option]


def split_at_computed(context: Lowering, x: Blob, sizes: Blob, axis: int, count: int) -> list[Blob]:
    """Slices between the sums of the sizes; the last one ends with the axis."""
    ends = context.layer("cumSum", sizes, axis=0)
    bounds: list[Any] = [0]
    bounds += [sliced(context, ends, [i], [i + 1], [0], None) for i in range(count - 1)]
    bounds.append(None)
    return [
        sliced_anywhere(context, x, [start], [end], [axis], None)
        for start, end in itertools.pairwise(bounds)
    ]


@op("Expand", raw=True, sizes=True)
def expand(context: Lowering, node: Node, operand: Operand, shape: Operand) -> Blob:
    """To the shape of a blob for any size, to a fixed shape, or to a computed one."""
    x: Blob = as_blob(context, operand)
    source = vector(x) if x.is_scalar else x
    if not isinstance(shape, Constant):
        elements = elements_of(context, shape)
        if elements is None:
            raise ConversionError("an Expand to a shape whose rank is computed")
        context.sizes.use(frozenset().union(*(e.made_of for e in elements)))
        ones = context.layer("fillDynamic", as_vector(context, elements, shape), value=1.0)
        ones = refined(context, ones, [e.value for e in elements])
        return context.multiply(source, ones)
    extents = ints(array_of(node, 1, shape))
    like = spelled(context.sizes, shape)
    fits = like and not x.is_scalar and broadcast(x.known, extents) == extents
    if fits and extents == context.builder.shapes[like]:
        return context.layer("broadcastToLike", x, Blob(like, extents))
    context.sizes.use(context.sizes.behind(shape))
    if 0 in extents:
        raise ConversionError("a value without elements")
    if None in x.known:  # an extent of 1 would become the one that is wanted
        ones = context.layer("fillStatic", targetShape=extents, value=1.0)
        return context.multiply(source, ones)
    target = np.broadcast_shapes(known(x), extents)
    if target == known(x):
        return x
    return context.layer("broadcastToStatic", source, targetShape=target)


@op("Tile", constants=(1, 2))
def tile_1(context: Lowering, node: Node, x: Blob, tiles: Array, axis: Array) -> Blob:
    reps = [1] * x.rank
    reps[positive(ints(axis)[0], x.rank)] = ints(tiles)[0]
    return context.layer("tile", x, reps=reps)


@op("Tile", since=6, raw=True)
def tile_6(context: Lowering, node: Node, x: Operand, repeats: Operand) -> Blob:
    """The number of repetitions may be computed."""
    x = as_blob(context, x)
    if isinstance(repeats, Blob):
        elements = elements_of(context, repeats) or (UNKNOWN,) * x.rank
        output = context.layer("tile", x, repeats)
        pairs = zip(x.known, elements, strict=True)
        return refined(context, output, [n and e.value and n * e.value for n, e in pairs])
    reps = ints(repeats.array)
    if any(n < 1 for n in reps):
        raise ConversionError(f"repeats={reps}: a value without elements")
    return context.layer("tile", x, reps=reps) if not x.is_scalar else x


@op("Slice")
def slice_1(context: Lowering, node: Node, x: Blob) -> Blob:
    starts, ends = node.attrs["starts"], node.attrs["ends"]
    return sliced(context, x, starts, ends, node.attrs.get("axes"), None)


@op("Slice", since=10, raw=True)
def slice_10(
    context: Lowering,
    node: Node,
    x: Operand,
    starts: Operand,
    ends: Operand,
    axes: Operand | None = None,
    steps: Operand | None = None,
) -> Operand:
    """Bounds may be computed; axes and steps are constants."""
    x = as_blob(context, x)
    chosen, strides = (
        None if v is None else ints(array_of(node, place, v))
        for place, v in ((3, axes), (4, steps))
    )
    if isinstance(starts, Constant) and isinstance(ends, Constant):
        first, last = (ints(v.array) for v in (starts, ends))
        context.sizes.use(context.sizes.behind(starts, ends))
        elements = elements_of(context, x) if x.rank == 1 else None
        output = sliced_anywhere(context, x, first, last, chosen, strides, starts_within=True)
        if elements is None:
            return output
        (step,) = strides or (1,)
        start = first_within(first[0], step, len(elements))
        return noted(context, output, elements[start : last[0] : step])
    bounds = [elements_of(context, v) for v in (starts, ends)]
    if bounds[0] is None or bounds[1] is None:
        raise ConversionError("a slice whose number of bounds is computed")
    places = range(len(bounds[0])) if chosen is None else chosen
    parts = []
    for bound, elements in ((starts, bounds[0]), (ends, bounds[1])):
        context.sizes.use(frozenset().union(*(e.made_of for e in elements)))
        parts.append(
            [
                as_vector(context, [e], None)
                if e.extent is not None
                else e.value
                if e.value is not None
                else sliced(context, vector(as_blob(context, bound)), [i], [i + 1], [0], None)
                for i, e in enumerate(elements)
            ]
        )
    return sliced_anywhere(
        context, x, parts[0], parts[1], list(places), strides, starts_within=True
    )


@op("Pad")
def pad_1(context: Lowering, node: Node, x: Blob) -> Blob:
    amounts = node.attrs.get("pads") or node.attrs["paddings"]
    return padded(
        context, x, amounts, node.attrs.get("mode", "constant"), node.attrs.get("value", 0.0)
    )


@op("Pad", since=11, raw=True)
def pad_11(
    context: Lowering,
    node: Node,
    x: Operand,
    pads: Operand,
    value: Operand | None = None,
    axes: Operand | None = None,
) -> Blob:
    """The amounts may be computed."""
    x = as_blob(context, x)
    elements = elements_of(context, pads)
    if elements is None:
        raise ConversionError("a padding of which the number of axes is computed")
    chosen = range(x.rank) if axes is None else ints(array_of(node, 3, axes))
    full: list[Element | Blob] = [Element(0)] * (2 * x.rank)
    for index, axis in enumerate(chosen):
        place = positive(axis, x.rank)
        for target, at in ((place, index), (place + x.rank, index + len(chosen))):
            element: Element | Blob = elements[at]
            if isinstance(pads, Blob) and elements[at] == UNKNOWN:
                element = sliced(context, pads, [at], [at + 1], [0], None)
            full[target] = element
    filler = array_of(node, 2, value).ravel() if value is not None else np.zeros(0)
    mode, number = node.attrs.get("mode", "constant"), float(filler[0]) if filler.size else 0.0
    known_amounts = [e.value if isinstance(e, Element) else None for e in full]
    if None not in known_amounts:
        context.sizes.use(context.sizes.behind(pads))
        amounts = tuple(n or 0 for n in known_amounts)
        if not _varies(x, amounts, mode):
            return padded(context, x, amounts, mode, number)
    return _padded_at_run_time(context, x, full, mode, number)


def _varies(x: Blob, amounts: Sequence[int], mode: str) -> bool:
    """Whether an axis of any extent is padded and Core ML has no layer for it."""
    pairs = list(zip(amounts[: x.rank], amounts[x.rank :], strict=True))
    padded_axes = [n for n, pair in zip(x.known, pairs, strict=True) if any(pair)]
    return mode != "constant" and None in padded_axes and not can_be_padded(x, pairs, mode)


def _padded_at_run_time(
    context: Lowering, x: Blob, amounts: Sequence[Element | Blob], mode: str, value: float
) -> Blob:
    """Core ML's layer with a vector of amounts, or gathering along each axis."""
    pairs = list(zip(amounts[: x.rank], amounts[x.rank :], strict=True))
    if mode == "constant":
        vector_of = as_vector(context, [e for pair in pairs for e in pair])
        output = context.layer("constantPad", x, vector_of, value=value)
        still = [pair == (Element(0), Element(0)) for pair in pairs]
        return refined(
            context, output, [n if s else None for n, s in zip(x.known, still, strict=True)]
        )
    if mode not in ("reflect", "edge", "wrap"):
        raise ConversionError(f"mode={mode!r}")
    for axis, (before, after) in enumerate(pairs):
        if (before, after) == (Element(0), Element(0)):
            continue
        first, last = as_vector(context, [before]), as_vector(context, [after])
        size = size_of(context, x, axis)
        end = context.add(size, last)
        places = context.layer("rangeDynamic", end, affine(context, first, -1.0), stepSizeValue=1.0)
        most = affine(context, size, 1.0, -1.0)
        if mode == "edge":
            places = context.minimum(context.emit("activation", places, ReLU={}), most)
        elif mode == "wrap":
            places = context.emit("modBroadcastable", places, size)
        else:
            magnitude = context.emit("unary", places, type="ABS")
            beyond = context.subtract(most, magnitude)
            beyond = context.emit("unary", beyond, type="ABS")
            places = context.subtract(most, beyond)
        x = context.gather(x, places, axis)
    return x


@op("DepthToSpace")
def depth_to_space(context: Lowering, node: Node, x: Blob) -> Blob:
    mode = node.attrs.get("mode", "DCR")
    kind = {"DCR": "DEPTH_TO_SPACE", "CRD": "PIXEL_SHUFFLE"}[mode]
    size = node.attrs["blocksize"]
    return context.layer("reorganizeData", x, mode=kind, blockSize=size)


@op("SpaceToDepth")
def space_to_depth(context: Lowering, node: Node, x: Blob) -> Blob:
    """The mode CRD keeps the channels outermost, a permutation of those of DCR."""
    size = node.attrs["blocksize"]
    if node.attrs.get("mode", "DCR") == "CRD":
        output = context.layer("reorganizeData", x, mode="SPACE_TO_DEPTH", blockSize=size)
        channels = known(x)[1]
        order = np.arange(channels * size * size).reshape(size * size, channels).T.ravel()
        return context.gather(output, context.constant(order), 1)
    return context.layer("reorganizeData", x, mode="SPACE_TO_DEPTH", blockSize=size)


@op("ReverseSequence", constants=(1,))
def reverse_sequence(context: Lowering, node: Node, x: Blob, lengths: Array) -> Blob:
    batch, time = node.attrs.get("batch_axis", 1), node.attrs.get("time_axis", 0)
    return context.layer(
        "reverseSeq", x, context.constant(lengths), batchAxis=batch, sequenceAxis=time
    )


@op("Trilu", constants=(1,))
def trilu(context: Lowering, node: Node, x: Blob, k: Array | None = None) -> Blob:
    shift = 0 if k is None else ints(k)[0]
    kind = "upperTriangular" if node.attrs.get("upper", 1) else "lowerTriangular"
    return context.layer(kind, x, k=shift)


@op("Shape", raw=True)
def shape_of(context: Lowering, node: Node, x: Operand) -> Result:
    """Known shapes are constants, so that arithmetic with them vanishes."""
    start, end = node.attrs.get("start", 0), node.attrs.get("end")
    if not isinstance(x, Constant) and x.is_scalar:
        return np.zeros(0, np.int64)
    if isinstance(x, Constant):
        return np.array(x.array.shape, np.int64)[start:end]
    return extents_of(context, x, start, end)


@op("Size", raw=True)
def size(context: Lowering, node: Node, x: Operand) -> Result:
    if isinstance(x, Constant) or None not in x.known:
        return np.array(x.array.size if isinstance(x, Constant) else math.prod(known(x)), np.int64)
    shape = context.layer("getShape", x)
    return scalar(context.reduce("reduceProd", shape, (0,)))


@op("CenterCropPad", constants=(1,))
def center_crop_pad(context: Lowering, node: Node, x: Blob, shape: Array) -> Blob:
    """If the number of pixels to cut or pad is odd, the end gets one more."""
    axes = node.attrs.get("axes") or list(range(x.rank))
    starts, ends, pads = [0] * x.rank, list(known(x)), [0] * (2 * x.rank)
    for axis, wanted in zip(axes, ints(shape), strict=True):
        place = positive(axis, x.rank)
        size = known(x)[place]
        if wanted < size:
            starts[place] = (size - wanted) // 2
            ends[place] = starts[place] + wanted
        else:
            pads[place] = (wanted - size) // 2
            pads[place + x.rank] = wanted - size - pads[place]
    return padded(context, sliced(context, x, starts, ends, None, None), pads, "constant", 0.0)
