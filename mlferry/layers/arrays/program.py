"""Layers that join, split, repeat or make arrays."""

from __future__ import annotations

from mlferry.layers.params import Params
from mlferry.layers.program_weights import weight
from mlferry.layers.programs import as_program
from mlferry.numerics.shapes import axis_of
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Value
from mlferry.refusals import refuse


@as_program("concat", five_axes=lambda p: p.sequenceConcat)
def concat(builder: ProgramBuilder, params: Params, *inputs: Value) -> Value:
    axis = -5 if params.sequenceConcat else -3
    return builder.joined(builder.alike(*inputs), axis_of(axis, inputs[0].rank))


@as_program("concatND")
def concat_nd(builder: ProgramBuilder, params: Params, *inputs: Value) -> Value:
    """`interleave` takes one entry of each input in turn."""
    values, axis = builder.alike(*inputs), axis_of(params.axis, inputs[0].rank)
    if len(values) == 1:
        return values[0]
    return builder.op("concat", values=values, axis=axis, interleave=params.interleave)


@as_program("stack")
def stack(builder: ProgramBuilder, params: Params, *inputs: Value) -> Value:
    axis = axis_of(params.axis, inputs[0].rank + 1)
    return builder.op("stack", values=builder.alike(*inputs), axis=axis)


@as_program("tile", limits="repetitions that come as an input of unknown length")
def tile(builder: ProgramBuilder, params: Params, x: Value, *reps: Value) -> Value:
    """With fewer repetitions than axes, they are those of the last axes."""
    if not reps:
        counts = (1,) * (x.rank - len(params.reps)) + tuple(params.reps)
        return x if set(counts) == {1} else builder.op("tile", x=x, reps=list(counts))
    count = reps[0].shape[0]
    if count is None or count > x.rank:
        raise refuse("the number of repetitions is unknown, or larger than the rank")
    repetitions = builder.vector([*[1] * (x.rank - count), builder.as_integer(reps[0])])
    return builder.op("tile", x=x, reps=repetitions)


@as_program("loadConstantND")
def load_constant_nd(builder: ProgramBuilder, params: Params) -> Value:
    return weight(builder, params, "data", params.shape)


@as_program("loadConstant", five_axes=True)
def load_constant(builder: ProgramBuilder, params: Params) -> Value:
    return builder.expand(weight(builder, params, "data", params.shape), [0, 1])


@as_program("sequenceRepeat", five_axes=True)
def sequence_repeat(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    counts = [1] * x.rank
    counts[-5] = params.nRepetitions
    return builder.op("tile", x=x, reps=counts)


@as_program("split")
def split(builder: ProgramBuilder, params: Params, x: Value) -> tuple[Value, ...]:
    return builder.ops("split", x=x, num_splits=params.nOutputs, axis=axis_of(-3, x.rank))


@as_program("splitND")
def split_nd(builder: ProgramBuilder, params: Params, x: Value) -> tuple[Value, ...]:
    """Into parts of `splitSizes`, or into `numSplits` parts; the first ones take the remainder."""
    axis = axis_of(params.axis, x.rank)
    extent = x.shape[axis]
    count = len(params.splitSizes) or params.numSplits
    if count == 1:
        return (x,)
    if params.splitSizes:
        return builder.ops("split", x=x, split_sizes=list(params.splitSizes), axis=axis)
    if extent is None:
        return _parts(builder, x, axis, count)
    sizes = [(extent + count - 1 - index) // count for index in range(count)]
    if extent % count:
        return builder.ops("split", x=x, split_sizes=sizes, axis=axis)
    return builder.ops("split", x=x, num_splits=count, axis=axis)


def _parts(builder: ProgramBuilder, x: Value, axis: int, count: int) -> tuple[Value, ...]:
    """Parts of an axis whose extent is known at run time only."""
    extent = builder.vector([builder.extent(x, axis)])
    begin = builder.integers([0])
    results = []
    for index in range(count):
        more = builder.binary("add", extent, builder.integers([count - 1 - index]))
        size = builder.op("floor_div", x=more, y=builder.integers([count]))
        begins = builder.vector([begin if i == axis else 0 for i in range(x.rank)])
        sizes = builder.vector([size if i == axis else -1 for i in range(x.rank)])
        results.append(builder.op("slice_by_size", x=x, begin=begins, size=sizes))
        begin = builder.binary("add", begin, size)
    return tuple(results)
