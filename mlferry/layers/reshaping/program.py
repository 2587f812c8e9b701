"""Layers that move values without computing."""

from __future__ import annotations

import numpy as np

from mlferry.layers.borders import borders
from mlferry.layers.convolution.program import over_maps, padded
from mlferry.layers.params import Params
from mlferry.layers.programs import as_program
from mlferry.layers.reshaping.definition import flatten_to_2d as flattened
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Value


@as_program("flattenTo2D")
def flatten_to_2d(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    ((rows, columns),) = flattened(params, x.shape)
    if rows is None and columns is None:
        axis = params.axis + (params.axis < 0) * x.rank
        return builder.op("flatten2d", x=builder.as_float(x), axis=axis)
    return builder.reshape(x, [-1 if n is None else n for n in (rows, columns)])


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
    0, at its start if that comes first, otherwise at its end; a longer axis stays.
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
