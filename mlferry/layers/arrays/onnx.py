"""Layers that join, split, repeat or make arrays."""

from __future__ import annotations

from mlferry.layers.exports import op, refuse
from mlferry.layers.onnx_weights import weight
from mlferry.layers.params import Params
from mlferry.numerics.shapes import axis_of
from mlferry.onnx_graph.emitter import Emitter


@op("concat", five_axes=lambda p: p.sequenceConcat)
def concat(e: Emitter, p: Params, *inputs: str) -> str:
    return e.joined(inputs, -5 if p.sequenceConcat else -3)


@op("concatND")
def concat_nd(e: Emitter, p: Params, *inputs: str) -> str:
    """`interleave` takes one entry of each input in turn."""
    axis = axis_of(p.axis, e.rank(inputs[0]))
    if not p.interleave:
        return e.joined(inputs, axis)
    extents = e.extents(inputs[0])
    extents[axis] = -1
    return e.reshape(_stacked(e, inputs, axis + 1), extents)


def _stacked(e: Emitter, inputs: tuple[str, ...], axis: int) -> str:
    return e.joined([e.unsqueeze(x, [axis]) for x in inputs], axis)


@op("stack")
def stack(e: Emitter, p: Params, *inputs: str) -> str:
    return _stacked(e, inputs, axis_of(p.axis, e.rank(inputs[0]) + 1))


@op("tile", limits="repetitions that come as an input of unknown length")
def tile(e: Emitter, p: Params, x: str, *reps: str) -> str:
    """Fewer repetitions than axes are those of the last axes."""
    rank = e.rank(x)
    if not reps:
        return e.node("Tile", x, e.integers((1,) * (rank - len(p.reps)) + p.reps))
    count = e.shape(reps[0])[0]
    if count is None or count > rank:
        raise refuse("the number of repetitions is unknown, or larger than the rank")
    return e.node("Tile", x, e.vector([*[1] * (rank - count), e.whole(reps[0])]))


@op("loadConstantND")
def load_constant_nd(e: Emitter, p: Params) -> str:
    return weight(e, p, "data", p.shape)


@op("loadConstant", five_axes=True)
def load_constant(e: Emitter, p: Params) -> str:
    return e.unsqueeze(weight(e, p, "data", p.shape), [0, 1])


@op("sequenceRepeat", five_axes=True)
def sequence_repeat(e: Emitter, p: Params, x: str) -> str:
    ones = [1] * e.rank(x)
    ones[-5] = p.nRepetitions
    return e.node("Tile", x, e.integers(ones))


@op("split")
def split(e: Emitter, p: Params, x: str) -> tuple[str, ...]:
    return e.nodes("Split", [x], p.nOutputs, axis=-3, num_outputs=p.nOutputs)


@op("splitND")
def split_nd(e: Emitter, p: Params, x: str) -> tuple[str, ...]:
    """Into parts of `splitSizes`, or into `numSplits` of which the first take what is over."""
    axis = axis_of(p.axis, e.rank(x))
    extent = e.extent(x, axis)
    count = len(p.splitSizes) or p.numSplits
    if p.splitSizes:
        sizes = e.integers(p.splitSizes)
    elif isinstance(extent, int):
        sizes = e.integers([(extent + count - 1 - index) // count for index in range(count)])
    else:
        over = e.integers(range(count - 1, -1, -1))
        sizes = e.node("Div", e.node("Add", extent, over), e.integers([count]))
    return e.nodes("Split", [x, sizes], count, axis=axis)
