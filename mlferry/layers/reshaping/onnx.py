"""Layers that move values without computing."""

from __future__ import annotations

from mlferry.layers.borders import borders
from mlferry.layers.convolution.onnx import over_maps, padded
from mlferry.layers.exports import op, refuse
from mlferry.layers.params import Params
from mlferry.layers.reshaping.definition import reshape as reshaped
from mlferry.numerics.shapes import axis_of, product
from mlferry.onnx_graph.emitter import INT64, Emitter


@op("transpose")
def transpose(e: Emitter, p: Params, x: str) -> str:
    return e.transpose(x, p.axes)


@op("reshapeStatic")
def reshape_static(e: Emitter, p: Params, x: str) -> str:
    return e.reshape(x, p.targetShape)


@op("reshape", five_axes=True, limits="extents of the result that are not known")
def reshape(e: Emitter, p: Params, x: str) -> str:
    """To [C, H, W] of each step, or to [Seq, C, H, W], batch by batch.

    CHANNEL_LAST reads and writes the values in the order H, W, C.
    """
    last = p.mode == "CHANNEL_LAST"
    steps, batch, channels, height, width = reshaped(p, e.shape(x))[0]
    if None in (channels, height, width) or (steps is None and batch is None):
        raise refuse("the extents of the result are not known")
    lead = [batch if batch is not None else -1, steps if steps is not None else -1]
    samples = e.transpose(x, [1, 0, 3, 4, 2] if last else [1, 0, 2, 3, 4])
    inner = [height, width, channels] if last else [channels, height, width]
    y = e.reshape(samples, [*lead, *(n or 0 for n in inner)])
    return e.transpose(y, [1, 0, 4, 2, 3] if last else [1, 0, 2, 3, 4])


@op("permute", five_axes=True)
def permute(e: Emitter, p: Params, x: str) -> str:
    """Axes count in [Seq, C, H, W]; the batch stays."""
    steps, *inner = ((0, 2, 3, 4)[axis] for axis in p.axis)
    return e.transpose(x, [steps, 1, *inner])


@op("flattenTo2D")
def flatten_to_2d(e: Emitter, p: Params, x: str) -> str:
    shape = e.shape(x)
    axis = len(shape) if p.axis == len(shape) else axis_of(p.axis, len(shape))
    rows, columns = product(shape[:axis]), product(shape[axis:])
    if rows is None and columns is None:
        return e.node("Flatten", x, axis=axis)
    return e.reshape(x, [-1 if n is None else n for n in (rows, columns)])


@op("rankPreservingReshape")
def rank_preserving_reshape(e: Emitter, p: Params, x: str) -> str:
    """A 0 keeps an extent."""
    return e.reshape(x, [n or e.extent(x, axis) for axis, n in enumerate(p.targetShape)])


@op("flatten")
def flatten(e: Emitter, p: Params, x: str) -> str:
    """CHANNEL_LAST flattens in the order H, W, C."""
    lead, size = e.extents(x)[:-3], product(e.shape(x)[-3:])
    if p.mode == "CHANNEL_LAST":
        rank = e.rank(x)
        x = e.transpose(x, [*range(rank - 3), rank - 2, rank - 1, rank - 3])
    return e.reshape(x, [*lead, -1 if size is None else size, 1, 1])


@op("squeeze", limits="`squeezeAll` where extents are not known")
def squeeze(e: Emitter, p: Params, x: str) -> str:
    """Without axes, or with `squeezeAll`, every axis of extent 1 goes; never all of them."""
    shape = e.shape(x)
    if p.squeezeAll or not p.axes:
        if None in shape:
            raise refuse("which extents are 1 is not known, so the rank of the result is not")
        axes = [axis for axis, extent in enumerate(shape) if extent == 1]
    else:
        axes = sorted({axis_of(axis, len(shape)) for axis in p.axes})
    if len(axes) == len(shape):
        return e.reshape(x, [1])
    return e.squeeze(x, axes)


@op("expandDims")
def expand_dims(e: Emitter, p: Params, x: str) -> str:
    rank = e.rank(x) + len(p.axes)
    return e.unsqueeze(x, sorted(axis_of(axis, rank) for axis in p.axes))


_PAD_MODES = {"reflection": "reflect", "replication": "edge"}


@op("padding")
def padding(e: Emitter, p: Params, x: str) -> str:
    """Of height and width; a reflection leaves the edge itself out."""
    edges = borders(p)
    kind = p.which("PaddingType") or "constant"
    if kind == "constant":
        return padded(e, x, edges, p.constant.value)
    lead = [0] * (e.rank(x) - 2)
    pads = [*lead, *(edge[0] for edge in edges), *lead, *(edge[1] for edge in edges)]
    return e.node("Pad", x, e.integers(pads), mode=_PAD_MODES[kind])


@op("crop")
def crop(e: Emitter, p: Params, x: str, *like: str) -> str:
    """By border amounts, or, with two inputs, to the size of the second from an offset on."""
    starts, ends = [], []
    if like:
        for axis, first in zip((-2, -1), p.offset or (0, 0), strict=True):
            extent = e.extent(like[0], axis)
            starts.append(first)
            if isinstance(extent, int):
                ends.append(extent + first)
            else:
                ends.append(e.node("Add", extent, e.integers([first])) if first else extent)
        return _rows_and_columns(e, x, starts, ends)
    for axis, (before, after) in zip((-2, -1), borders(p, "cropAmounts"), strict=True):
        found = e.shape(x)[axis]
        starts.append(before)
        ends.append(-after if after and found is None else (found or _ALL) - after)
    return _rows_and_columns(e, x, starts, ends)


_ALL = 1 << 62


def _rows_and_columns(e: Emitter, x: str, starts: list[int], ends: list[int | str]) -> str:
    given = (e.integers(starts), e.vector(ends), e.integers([-2, -1]))
    return e.node("Slice", x, *given)


@op("reorganizeData")
def reorganize_data(e: Emitter, p: Params, x: str) -> str:
    """Blocks of space into channels and back; PIXEL_SHUFFLE keeps channels outermost."""

    def compute(maps: str) -> str:
        if p.mode == "SPACE_TO_DEPTH":
            return e.node("SpaceToDepth", maps, blocksize=p.blockSize)
        order = "DCR" if p.mode == "DEPTH_TO_SPACE" else "CRD"
        return e.node("DepthToSpace", maps, blocksize=p.blockSize, mode=order)

    return over_maps(e, x, compute)


@op("constantPad")
def constant_pad(e: Emitter, p: Params, x: str, *amounts: str) -> str:
    """By amounts before and after each axis.

    With `padToGivenOutputSizeMode` the amounts are sizes: an axis grows to the one that is not
    0, in front if it stands first, else behind; a longer axis stays.
    """
    if amounts:
        pairs = e.reshape(e.whole(amounts[0]), [e.rank(x), 2])
    else:
        pairs = e.reshape(e.integers(p.padAmounts), [e.rank(x), 2])
    if p.padToGivenOutputSizeMode:
        # what is missing, where a size is given; of two sizes the one in front counts
        extents = e.reshape(e.shape_vector(x), [e.rank(x), 1])
        zero = e.integers([0])
        missing = e.node("Max", e.node("Sub", pairs, extents), zero)
        before = e.sliced(pairs, 1, 0, 1)
        in_front = e.node("Cast", e.node("Not", e.node("Equal", before, zero)), to=INT64)
        behind = e.node("Sub", e.integers([1]), in_front)
        pairs = e.node("Mul", missing, e.node("Concat", in_front, behind, axis=1))
    pads = e.reshape(e.transpose(pairs, [1, 0]), [-1])
    return e.node("Pad", x, pads, e.number(p.value))
