"""Layers that move values without computing."""

from __future__ import annotations

import numpy as np

from mlferry.layers.borders import borders
from mlferry.layers.convolution.program import over_maps, padded
from mlferry.layers.params import Params
from mlferry.layers.programs import as_program, refuse
from mlferry.layers.reshaping.definition import reshape as reshaped
from mlferry.numerics.shapes import axis_of, product
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Value


@as_program("transpose")
def transpose(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    return builder.transpose(x, params.axes)


@as_program("reshapeStatic")
def reshape_static(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    return builder.reshape(x, params.targetShape)


@as_program("reshape", five_axes=True, limits="extents of the result that are not known")
def reshape(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """To [C, H, W] of each step, or to [Seq, C, H, W], batch by batch.

    CHANNEL_LAST reads and writes the values in the order H, W, C.
    """
    last = params.mode == "CHANNEL_LAST"
    steps, batch, channels, height, width = reshaped(params, x.shape)[0]
    if None in (channels, height, width) or (steps is None and batch is None):
        raise refuse("the extents of the result are not known")
    lead = [batch if batch is not None else -1, steps if steps is not None else -1]
    samples = builder.transpose(x, [1, 0, 3, 4, 2] if last else [1, 0, 2, 3, 4])
    inner = [height, width, channels] if last else [channels, height, width]
    y = builder.reshape(samples, [*lead, *(n or 0 for n in inner)])
    return builder.transpose(y, [1, 0, 4, 2, 3] if last else [1, 0, 2, 3, 4])


@as_program("permute", five_axes=True)
def permute(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """Axes count in [Seq, C, H, W]; the batch stays."""
    steps, *inner = ((0, 2, 3, 4)[axis] for axis in params.axis)
    return builder.transpose(x, [steps, 1, *inner])


@as_program("flattenTo2D")
def flatten_to_2d(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    shape = x.shape
    axis = len(shape) if params.axis == len(shape) else axis_of(params.axis, len(shape))
    rows, columns = product(shape[:axis]), product(shape[axis:])
    if rows is None and columns is None:
        return builder.op("flatten2d", x=builder.as_float(x), axis=axis)
    return builder.reshape(x, [-1 if n is None else n for n in (rows, columns)])


@as_program("rankPreservingReshape")
def rank_preserving_reshape(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """A 0 keeps an extent."""
    target = [n or builder.extent(x, axis) for axis, n in enumerate(params.targetShape)]
    return builder.reshape(x, target)


@as_program("flatten")
def flatten(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """CHANNEL_LAST flattens in the order H, W, C."""
    lead, size = builder.extents(x)[:-3], product(x.shape[-3:])
    if params.mode == "CHANNEL_LAST":
        rank = x.rank
        x = builder.transpose(x, [*range(rank - 3), rank - 2, rank - 1, rank - 3])
    return builder.reshape(x, [*lead, -1 if size is None else size, 1, 1])


@as_program("squeeze", limits="`squeezeAll` where extents are not known")
def squeeze(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """Without axes, or with `squeezeAll`, all axes of extent 1 go, but one axis always stays."""
    if params.squeezeAll or not params.axes:
        if not x.is_fixed:
            raise refuse("which extents are 1 is not known, so the rank of the result is not")
        axes = [axis for axis, extent in enumerate(x.shape) if extent == 1]
    else:
        axes = sorted({axis_of(axis, x.rank) for axis in params.axes})
    if len(axes) == x.rank:
        return builder.reshape(x, [1])
    return builder.squeeze(x, axes)


@as_program("expandDims")
def expand_dims(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    return builder.expand(x, params.axes)


_PAD_MODES = {"reflection": "reflect", "replication": "replicate"}


@as_program("padding")
def padding(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """Pad height and width; a reflection does not repeat the edge."""
    x, edges = builder.as_float(x), borders(params)
    kind = params.which("PaddingType") or "constant"
    if kind == "constant":
        return padded(builder, x, edges, params.constant.value)
    return builder.op("pad", x=x, pad=[n for edge in edges for n in edge], mode=_PAD_MODES[kind])


@as_program("crop")
def crop(builder: ProgramBuilder, params: Params, x: Value, *like: Value) -> Value:
    """Crop by border amounts, or with two inputs, to the size of the second from an offset on."""
    if not like:
        edges = borders(params, "cropAmounts")
        inner = [slice(before or None, -after or None) for before, after in edges]
        return builder.part(x, [*[slice(None)] * (x.rank - 2), *inner])
    for axis, first in zip((-2, -1), params.offset or (0, 0), strict=True):
        extent = builder.extent(like[0], axis)
        if isinstance(extent, int):
            x = builder.sliced(x, axis, first or None, extent + first)
            continue
        begin = builder.vector([first if i == x.rank + axis else 0 for i in range(x.rank)])
        last = builder.binary("add", extent, builder.integers([first]))
        end = builder.vector([last if i == x.rank + axis else 0 for i in range(x.rank)])
        masks = [i != x.rank + axis for i in range(x.rank)]
        x = builder.op(
            "slice_by_index", x=x, begin=begin, end=end, begin_mask=masks, end_mask=masks
        )
    return x


_BLOCKS = {
    "SPACE_TO_DEPTH": ("space_to_depth", "block_size"),
    "DEPTH_TO_SPACE": ("depth_to_space", "block_size"),
    "PIXEL_SHUFFLE": ("pixel_shuffle", "upscale_factor"),
}


@as_program("reorganizeData")
def reorganize_data(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """Blocks of space into channels and back; PIXEL_SHUFFLE keeps channels outermost."""
    op, field = _BLOCKS[params.mode]
    size = {field: params.blockSize}
    return over_maps(builder, builder.as_float(x), lambda maps: builder.op(op, x=maps, **size))


@as_program("constantPad")
def constant_pad(builder: ProgramBuilder, params: Params, x: Value, *amounts: Value) -> Value:
    """By amounts before and after each axis.

    With `padToGivenOutputSizeMode` the amounts are sizes: an axis is padded to the one that is not
    0, in front if it comes first, otherwise behind; a longer axis stays.
    """
    x = builder.as_float(x)
    sizes = builder.as_integer(amounts[0]) if amounts else builder.integers(params.padAmounts)
    pads = builder.reshape(sizes, [2 * x.rank])
    if params.padToGivenOutputSizeMode:
        pads = _missing(builder, x, pads)
    if pads.is_constant and not pads.constant.any():
        return x
    return builder.op("pad", x=x, pad=pads, constant_val=np.float32(params.value))


def _missing(builder: ProgramBuilder, x: Value, target: Value) -> Value:
    """The missing amount, if a size is given; of two sizes the first counts."""
    pairs = builder.reshape(target, [x.rank, 2])
    extents = builder.reshape(builder.vector(builder.extents(x)), [x.rank, 1])
    missing = builder.binary("maximum", builder.binary("sub", pairs, extents), 0)
    before = builder.sliced(pairs, 1, 0, 1)
    in_front = builder.as_integer(builder.op("not_equal", x=before, y=0))
    behind = builder.op("sub", x=np.ones((x.rank, 1), np.int32), y=in_front)
    side = builder.joined([in_front, behind], 1)
    return builder.reshape(builder.op("mul", x=missing, y=side), [2 * x.rank])
