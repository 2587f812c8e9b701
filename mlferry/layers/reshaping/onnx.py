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
def transpose(emitter: Emitter, params: Params, x: str) -> str:
    return emitter.transpose(x, params.axes)


@op("reshapeStatic")
def reshape_static(emitter: Emitter, params: Params, x: str) -> str:
    return emitter.reshape(x, params.targetShape)


@op("reshape", five_axes=True, limits="extents of the result that are not known")
def reshape(emitter: Emitter, params: Params, x: str) -> str:
    """To [C, H, W] of each step, or to [Seq, C, H, W], batch by batch.

    CHANNEL_LAST reads and writes the values in the order H, W, C.
    """
    last = params.mode == "CHANNEL_LAST"
    steps, batch, channels, height, width = reshaped(params, emitter.shape(x))[0]
    if None in (channels, height, width) or (steps is None and batch is None):
        raise refuse("the extents of the result are not known")
    lead = [batch if batch is not None else -1, steps if steps is not None else -1]
    samples = emitter.transpose(x, [1, 0, 3, 4, 2] if last else [1, 0, 2, 3, 4])
    inner = [height, width, channels] if last else [channels, height, width]
    y = emitter.reshape(samples, [*lead, *(n or 0 for n in inner)])
    return emitter.transpose(y, [1, 0, 4, 2, 3] if last else [1, 0, 2, 3, 4])


@op("permute", five_axes=True)
def permute(emitter: Emitter, params: Params, x: str) -> str:
    """Axes count in [Seq, C, H, W]; the batch stays."""
    steps, *inner = ((0, 2, 3, 4)[axis] for axis in params.axis)
    return emitter.transpose(x, [steps, 1, *inner])


@op("flattenTo2D")
def flatten_to_2d(emitter: Emitter, params: Params, x: str) -> str:
    shape = emitter.shape(x)
    axis = len(shape) if params.axis == len(shape) else axis_of(params.axis, len(shape))
    rows, columns = product(shape[:axis]), product(shape[axis:])
    if rows is None and columns is None:
        return emitter.node("Flatten", x, axis=axis)
    return emitter.reshape(x, [-1 if n is None else n for n in (rows, columns)])


@op("rankPreservingReshape")
def rank_preserving_reshape(emitter: Emitter, params: Params, x: str) -> str:
    """A 0 keeps an extent."""
    return emitter.reshape(
        x, [n or emitter.extent(x, axis) for axis, n in enumerate(params.targetShape)]
    )


@op("flatten")
def flatten(emitter: Emitter, params: Params, x: str) -> str:
    """CHANNEL_LAST flattens in the order H, W, C."""
    lead, size = emitter.extents(x)[:-3], product(emitter.shape(x)[-3:])
    if params.mode == "CHANNEL_LAST":
        rank = emitter.rank(x)
        x = emitter.transpose(x, [*range(rank - 3), rank - 2, rank - 1, rank - 3])
    return emitter.reshape(x, [*lead, -1 if size is None else size, 1, 1])


@op("squeeze", limits="`squeezeAll` where extents are not known")
def squeeze(emitter: Emitter, params: Params, x: str) -> str:
    """Without axes, or with `squeezeAll`, all axes of extent 1 go, but one axis always stays."""
    shape = emitter.shape(x)
    if params.squeezeAll or not params.axes:
        if None in shape:
            raise refuse("which extents are 1 is not known, so the rank of the result is not")
        axes = [axis for axis, extent in enumerate(shape) if extent == 1]
    else:
        axes = sorted({axis_of(axis, len(shape)) for axis in params.axes})
    if len(axes) == len(shape):
        return emitter.reshape(x, [1])
    return emitter.squeeze(x, axes)


@op("expandDims")
def expand_dims(emitter: Emitter, params: Params, x: str) -> str:
    rank = emitter.rank(x) + len(params.axes)
    return emitter.unsqueeze(x, sorted(axis_of(axis, rank) for axis in params.axes))


_PAD_MODES = {"reflection": "reflect", "replication": "edge"}


@op("padding")
def padding(emitter: Emitter, params: Params, x: str) -> str:
    """Pad height and width; a reflection does not repeat the edge."""
    edges = borders(params)
    kind = params.which("PaddingType") or "constant"
    if kind == "constant":
        return padded(emitter, x, edges, params.constant.value)
    lead = [0] * (emitter.rank(x) - 2)
    pads = [*lead, *(edge[0] for edge in edges), *lead, *(edge[1] for edge in edges)]
    return emitter.node("Pad", x, emitter.integers(pads), mode=_PAD_MODES[kind])


@op("crop")
def crop(emitter: Emitter, params: Params, x: str, *like: str) -> str:
    """Crop by border amounts, or with two inputs, to the size of the second from an offset on."""
    starts, ends = [], []
    if like:
        for axis, first in zip((-2, -1), params.offset or (0, 0), strict=True):
            extent = emitter.extent(like[0], axis)
            starts.append(first)
            if isinstance(extent, int):
                ends.append(extent + first)
            else:
                ends.append(
                    emitter.node("Add", extent, emitter.integers([first])) if first else extent
                )
        return _rows_and_columns(emitter, x, starts, ends)
    for axis, (before, after) in zip((-2, -1), borders(params, "cropAmounts"), strict=True):
        result = emitter.shape(x)[axis]
        starts.append(before)
        ends.append(-after if after and result is None else (result or _ALL) - after)
    return _rows_and_columns(emitter, x, starts, ends)


_ALL = 1 << 62


def _rows_and_columns(emitter: Emitter, x: str, starts: list[int], ends: list[int | str]) -> str:
    limits = (emitter.integers(starts), emitter.vector(ends), emitter.integers([-2, -1]))
    return emitter.node("Slice", x, *limits)


@op("reorganizeData")
def reorganize_data(emitter: Emitter, params: Params, x: str) -> str:
    """Blocks of space into channels and back; PIXEL_SHUFFLE keeps channels outermost."""

    def compute(maps: str) -> str:
        if params.mode == "SPACE_TO_DEPTH":
            return emitter.node("SpaceToDepth", maps, blocksize=params.blockSize)
        order = "DCR" if params.mode == "DEPTH_TO_SPACE" else "CRD"
        return emitter.node("DepthToSpace", maps, blocksize=params.blockSize, mode=order)

    return over_maps(emitter, x, compute)


@op("constantPad")
def constant_pad(emitter: Emitter, params: Params, x: str, *amounts: str) -> str:
    """By amounts before and after each axis.

    With `padToGivenOutputSizeMode` the amounts are sizes: an axis is padded to the one that is not
    0, in front if it comes first, otherwise behind; a longer axis stays.
    """
    if amounts:
        pairs = emitter.reshape(emitter.whole(amounts[0]), [emitter.rank(x), 2])
    else:
        pairs = emitter.reshape(emitter.integers(params.padAmounts), [emitter.rank(x), 2])
    if params.padToGivenOutputSizeMode:
        # the missing amount, if a size is given; of two sizes the first counts
        extents = emitter.reshape(emitter.shape_vector(x), [emitter.rank(x), 1])
        zero = emitter.integers([0])
        missing = emitter.node("Max", emitter.node("Sub", pairs, extents), zero)
        before = emitter.sliced(pairs, 1, 0, 1)
        in_front = emitter.node(
            "Cast", emitter.node("Not", emitter.node("Equal", before, zero)), to=INT64
        )
        behind = emitter.node("Sub", emitter.integers([1]), in_front)
        pairs = emitter.node("Mul", missing, emitter.node("Concat", in_front, behind, axis=1))
    pads = emitter.reshape(emitter.transpose(pairs, [1, 0]), [-1])
    return emitter.node("Pad", x, pads, emitter.number(params.value))
