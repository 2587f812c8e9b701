"""Ops that move values without computing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import (
    array_of,
    emit,
    extent,
    ints,
    joined,
    known,
    positive,
    rank,
    shaped,
    vector,
)
from mlferry.converters.reshapes import MOST_AXES, as_stored, reshaped, to_shape, transposed
from mlferry.converters.sizes import as_constant, spelled, use
from mlferry.converters.slices import padded, sliced
from mlferry.converters.values import SOURCE, Blob, Constant
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import broadcast


@op("Reshape", raw=True, sizes=True)
def reshape(context: Lowering, node: Node, x: Any, shape: Any = None) -> Blob:
    """0 copies the input's extent, unless `allowzero`; -1 takes what is left."""
    node.attrs.get("consumed_inputs")
    x = context.stored(x) if isinstance(x, Constant) else x
    if isinstance(shape, Blob):
        node.attrs.get("allowzero")
        return context.layer("reshapeDynamic", as_stored(context, vector(x)), shape, layout=SOURCE)
    wanted = list(ints(node.attrs["shape"] if shape is None else shape.array))
    zero = node.attrs.get("allowzero", 0)
    if 0 in wanted and zero:
        raise ConversionError("a value without elements")
    if shape is not None and 0 not in wanted:
        return to_shape(context, x, shape)
    source = () if x.is_scalar else x.known
    target: list[int | None] = []
    for index, size in enumerate(wanted):
        if size == 0:
            use(x, [index])
        target.append(source[index] if size == 0 else size)
    context.sizes.use(context.sizes.behind(shape))
    return reshaped(context, x, target)


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
        return context.layer("flattenTo2D", x, layout=SOURCE, axis=axis)
    shape = known(x)
    return shaped(context, x, (math.prod(shape[:axis]), math.prod(shape[axis:])))


@op("Squeeze", constants=(1,))
def squeeze(context: Lowering, node: Node, x: Blob, axes: Any = None) -> Blob:
    given = node.attrs.get("axes") if axes is None else ints(axes)
    if x.is_scalar:
        return x
    shape = x.known
    if given is None:
        gone = {i for i, n in enumerate(known(x)) if n == 1}
    else:
        gone = {positive(a, x.rank) for a in given}
    if any(shape[i] not in (1, None) for i in gone):
        raise ConversionError(f"axes {sorted(gone)} of {shape} are not all 1")
    rest = tuple(n for i, n in enumerate(shape) if i not in gone)
    if not gone:
        return x
    if not rest:
        return shaped(context, x, ())
    return context.layer("squeeze", x, layout=SOURCE, axes=sorted(gone))


@op("Unsqueeze", constants=(1,))
def unsqueeze(context: Lowering, node: Node, x: Blob, axes: Any = None) -> Blob:
    given = ints(node.attrs["axes"] if axes is None else axes)
    total = rank(x) + len(given)
    places = sorted(positive(a, total) for a in given)
    if len(set(places)) < len(places):
        raise ConversionError(f"axes {given} name one axis twice")
    if x.is_scalar:
        return shaped(context, vector(x), (1,) * total)
    return context.layer("expandDims", x, layout=SOURCE, axes=places) if places else x


@op("Transpose")
def transpose(context: Lowering, node: Node, x: Blob) -> Blob:
    axes = list(node.attrs.get("perm") or list(range(rank(x)))[::-1])
    return transposed(context, x, axes)


@op("Concat", raw=True)
def concat(context: Lowering, node: Node, *operands: Any) -> Blob:
    """Opset 1 joins along axis 1 by default; parts without elements add nothing."""
    full = [x for x in operands if not (isinstance(x, Constant) and not x.array.size)]
    inputs = [context.stored(x) if isinstance(x, Constant) else x for x in full]
    axis = positive(node.attrs.get("axis", 1), inputs[0].rank)
    return joined(context, inputs, axis)


@op("Split", constants=(1,))
def split(context: Lowering, node: Node, x: Blob, sizes: Any = None) -> Any:
    """Into parts of given sizes, or equal ones, of which the last may be smaller."""
    axis = positive(node.attrs.get("axis", 0), x.rank)
    given = node.attrs.get("split") if sizes is None else ints(sizes)
    count = node.attrs.get("num_outputs") or len(node.outputs)
    if given is None:
        size = extent(x, axis)
        part = -(-size // count)
        given = [min(part, size - part * i) for i in range(count)]
    sizes_left = [size for size in given if size]
    if not sizes_left:
        raise ConversionError(f"a split into {tuple(given)}: parts without elements")
    made = iter(
        [x]
        if len(sizes_left) == 1
        else context.outputs(
            len(sizes_left),
            "splitND",
            x,
            layout=SOURCE,
            axis=axis,
            numSplits=len(sizes_left),
            splitSizes=sizes_left,
        )
    )
    nothing = np.zeros([0 if i == axis else n or 1 for i, n in enumerate(x.known)], np.float32)
    return [next(made) if size else nothing for size in given]


@op("Expand", raw=True, sizes=True)
def expand(context: Lowering, node: Node, given: Any, shape: Any) -> Blob:
    """To the shape of a blob, at any size, or to a fixed one."""
    x: Blob = context.stored(given) if isinstance(given, Constant) else given
    wanted = ints(array_of(node, 1, shape))
    like = spelled(context.sizes, shape)
    fits = like and not x.is_scalar and broadcast(x.known, wanted) == wanted
    if fits and wanted == context.builder.shapes[like]:
        return context.layer("broadcastToLike", x, Blob(like, wanted), layout=SOURCE)
    context.sizes.use(context.sizes.behind(shape))
    target = np.broadcast_shapes(known(x), wanted)
    if 0 in target:
        raise ConversionError("a value without elements")
    if target == known(x):
        return x
    source = vector(x) if x.is_scalar else x
    return context.layer("broadcastToStatic", source, layout=SOURCE, targetShape=target)


@op("Tile", constants=(1, 2))
def tile_1(context: Lowering, node: Node, x: Blob, tiles: Any, axis: Any) -> Blob:
    reps = [1] * x.rank
    reps[positive(ints(axis)[0], x.rank)] = ints(tiles)[0]
    return context.layer("tile", x, layout=SOURCE, reps=reps)


@op("Tile", since=6, constants=(1,))
def tile_6(context: Lowering, node: Node, x: Blob, repeats: Any) -> Blob:
    reps = ints(repeats)
    if any(n < 1 for n in reps):
        raise ConversionError(f"repeats={reps}: a value without elements")
    return context.layer("tile", x, layout=SOURCE, reps=reps) if not x.is_scalar else x


@op("Slice")
def slice_1(context: Lowering, node: Node, x: Blob) -> Blob:
    starts, ends = node.attrs["starts"], node.attrs["ends"]
    return sliced(context, x, starts, ends, node.attrs.get("axes"), None)


@op("Slice", since=10, constants=(1, 2, 3, 4))
def slice_10(
    context: Lowering,
    node: Node,
    x: Blob,
    starts: Any,
    ends: Any,
    axes: Any = None,
    steps: Any = None,
) -> Blob:
    given = (None if v is None else ints(v) for v in (starts, ends, axes, steps))
    return sliced(context, x, *given)


@op("Pad")
def pad_1(context: Lowering, node: Node, x: Blob) -> Blob:
    amounts = node.attrs.get("pads") or node.attrs["paddings"]
    return padded(
        context, x, amounts, node.attrs.get("mode", "constant"), node.attrs.get("value", 0.0)
    )


@op("Pad", since=11, constants=(1, 2, 3))
def pad_11(
    context: Lowering, node: Node, x: Blob, pads: Any, value: Any = None, axes: Any = None
) -> Blob:
    amounts = ints(pads)
    if axes is not None:
        full = [0] * (2 * x.rank)
        chosen = ints(axes)
        for index, axis in enumerate(chosen):
            place = positive(axis, x.rank)
            full[place] = amounts[index]
            full[place + x.rank] = amounts[index + len(chosen)]
        amounts = tuple(full)
    filler = 0.0 if value is None or value.size == 0 else float(value.ravel()[0])
    return padded(context, x, amounts, node.attrs.get("mode", "constant"), filler)


@op("DepthToSpace")
def depth_to_space(context: Lowering, node: Node, x: Blob) -> Blob:
    mode = node.attrs.get("mode", "DCR")
    kind = {"DCR": "DEPTH_TO_SPACE", "CRD": "PIXEL_SHUFFLE"}[mode]
    size = node.attrs["blocksize"]
    return context.layer("reorganizeData", x, layout=SOURCE, mode=kind, blockSize=size)


@op("SpaceToDepth")
def space_to_depth(context: Lowering, node: Node, x: Blob) -> Blob:
    """The mode CRD keeps the channels outermost: a permutation of those of DCR."""
    size = node.attrs["blocksize"]
    if node.attrs.get("mode", "DCR") == "CRD":
        made = context.layer(
            "reorganizeData", x, layout=SOURCE, mode="SPACE_TO_DEPTH", blockSize=size
        )
        channels = known(x)[1]
        order = np.arange(channels * size * size).reshape(size * size, channels).T.ravel()
        return context.layer("gather", made, context.constant(order), layout=SOURCE, axis=1)
    return context.layer("reorganizeData", x, layout=SOURCE, mode="SPACE_TO_DEPTH", blockSize=size)


@op("ReverseSequence", constants=(1,))
def reverse_sequence(context: Lowering, node: Node, x: Blob, lengths: Any) -> Blob:
    batch, time = node.attrs.get("batch_axis", 1), node.attrs.get("time_axis", 0)
    return context.layer(
        "reverseSeq",
        x,
        context.constant(lengths),
        layout=SOURCE,
        batchAxis=batch,
        sequenceAxis=time,
    )


@op("Trilu", constants=(1,))
def trilu(context: Lowering, node: Node, x: Blob, k: Any = None) -> Blob:
    shift = 0 if k is None else ints(k)[0]
    upper = node.attrs.get("upper", 1)
    rows, columns = known(x)[-2:]
    mask = np.tri(rows, columns, shift - 1 if upper else shift, dtype=np.float32)
    mask = 1 - mask if upper else mask
    zero = emit(context, "activation", x, linear={"alpha": 0.0})
    return emit(context, "whereBroadcastable", context.constant(mask), x, zero)


@op("Shape", raw=True)
def shape_of(context: Lowering, node: Node, x: Any) -> Any:
    """Known shapes are constants: the arithmetic that exporters write vanishes."""
    start, end = node.attrs.get("start", 0), node.attrs.get("end")
    if not isinstance(x, Constant) and x.is_scalar:
        return np.zeros(0, np.int64)
    if isinstance(x, Constant):
        return np.array(x.array.shape, np.int64)[start:end]
    parts = x.known[start:end]
    if None not in parts:
        axes = range(x.rank)[start:end]
        return as_constant(context.sizes, x, np.array(parts, np.int64), axes)
    made = context.layer("getShape", x, layout=SOURCE)
    return (
        made
        if (start, end) == (0, None)
        else sliced(context, made, [start], [x.rank if end is None else end], None, None)
    )


@op("Size", raw=True)
def size_of(context: Lowering, node: Node, x: Any) -> Any:
    return np.array(math.prod(known(x)), np.int64)


@op("CenterCropPad", constants=(1,))
def center_crop_pad(context: Lowering, node: Node, x: Blob, shape: Any) -> Blob:
    """An odd pixel is cut or padded at the end."""
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
