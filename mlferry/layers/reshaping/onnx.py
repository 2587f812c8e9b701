"""Layers that move values without computing."""

from __future__ import annotations

from mlferry.layers.borders import borders
from mlferry.layers.convolution.onnx import over_maps, padded
from mlferry.layers.exports import op
from mlferry.layers.params import Params
from mlferry.layers.reshaping.definition import flatten_to_2d as flattened
from mlferry.onnx_graph.emitter import INT64, Emitter


@op("flattenTo2D")
def flatten_to_2d(emitter: Emitter, params: Params, x: str) -> str:
    ((rows, columns),) = flattened(params, emitter.shape(x))
    if rows is None and columns is None:
        axis = params.axis + (params.axis < 0) * emitter.rank(x)
        return emitter.node("Flatten", x, axis=axis)
    return emitter.reshape(x, [-1 if n is None else n for n in (rows, columns)])


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
    0, at its start if that comes first, otherwise at its end; a longer axis stays.
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
