"""Layers that join, split, repeat or make arrays."""

from __future__ import annotations

from mlferry.layers.exports import op
from mlferry.layers.onnx_weights import weight
from mlferry.layers.params import Params
from mlferry.numerics.shapes import axis_of
from mlferry.onnx_graph.emitter import Emitter
from mlferry.refusals import refuse


@op("concat", five_axes=lambda p: p.sequenceConcat)
def concat(emitter: Emitter, params: Params, *inputs: str) -> str:
    return emitter.joined(inputs, -5 if params.sequenceConcat else -3)


@op("concatND")
def concat_nd(emitter: Emitter, params: Params, *inputs: str) -> str:
    """`interleave` takes one entry of each input in turn."""
    axis = axis_of(params.axis, emitter.rank(inputs[0]))
    if not params.interleave:
        return emitter.joined(inputs, axis)
    extents = emitter.extents(inputs[0])
    extents[axis] = -1
    return emitter.reshape(_stacked(emitter, inputs, axis + 1), extents)


def _stacked(emitter: Emitter, inputs: tuple[str, ...], axis: int) -> str:
    return emitter.joined([emitter.expand(x, [axis]) for x in inputs], axis)


@op("stack")
def stack(emitter: Emitter, params: Params, *inputs: str) -> str:
    return _stacked(emitter, inputs, axis_of(params.axis, emitter.rank(inputs[0]) + 1))


@op("tile", limits="repetitions that come as an input of unknown length")
def tile(emitter: Emitter, params: Params, x: str, *reps: str) -> str:
    """With fewer repetitions than axes, they are those of the last axes."""
    rank = emitter.rank(x)
    if not reps:
        return emitter.node(
            "Tile", x, emitter.integers((1,) * (rank - len(params.reps)) + params.reps)
        )
    count = emitter.shape(reps[0])[0]
    if count is None or count > rank:
        raise refuse("the number of repetitions is unknown, or larger than the rank")
    return emitter.node("Tile", x, emitter.vector([*[1] * (rank - count), emitter.whole(reps[0])]))


@op("loadConstantND")
def load_constant_nd(emitter: Emitter, params: Params) -> str:
    return weight(emitter, params, "data", params.shape)


@op("loadConstant", five_axes=True)
def load_constant(emitter: Emitter, params: Params) -> str:
    return emitter.expand(weight(emitter, params, "data", params.shape), [0, 1])


@op("sequenceRepeat", five_axes=True)
def sequence_repeat(emitter: Emitter, params: Params, x: str) -> str:
    ones = [1] * emitter.rank(x)
    ones[-5] = params.nRepetitions
    return emitter.node("Tile", x, emitter.integers(ones))


@op("split")
def split(emitter: Emitter, params: Params, x: str) -> tuple[str, ...]:
    return emitter.nodes("Split", [x], params.nOutputs, axis=-3, num_outputs=params.nOutputs)


@op("splitND")
def split_nd(emitter: Emitter, params: Params, x: str) -> tuple[str, ...]:
    """Into parts of `splitSizes`, or into `numSplits` parts; the first ones take the remainder."""
    axis = axis_of(params.axis, emitter.rank(x))
    extent = emitter.extent(x, axis)
    count = len(params.splitSizes) or params.numSplits
    if params.splitSizes:
        sizes = emitter.integers(params.splitSizes)
    elif isinstance(extent, int):
        sizes = emitter.integers([(extent + count - 1 - index) // count for index in range(count)])
    else:
        over = emitter.integers(range(count - 1, -1, -1))
        sizes = emitter.node("Div", emitter.node("Add", extent, over), emitter.integers([count]))
    return emitter.nodes("Split", [x, sizes], count, axis=axis)
