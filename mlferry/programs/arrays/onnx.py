"""Joining, splitting, repeating and filling arrays."""

from __future__ import annotations

import numpy as np

from mlferry.onnx_graph.emitter import Emitter
from mlferry.programs.exports import Call, cast, counted, export, int32, scalar, values_of
from mlferry.programs.reshaping.definition import vector
from mlferry.programs.types import Entries
from mlferry.refusals import refuse

_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


@export("concat", moves=True)
def concat(emitter: Emitter, call: Call, values: list[str], axis: int, interleave: bool) -> str:
    """Scalars count as vectors of one element; interleaved entries come from each value in turn."""
    vectors = [x if emitter.rank(x) else emitter.expand(x, [0]) for x in values]
    if not interleave:
        return emitter.joined(vectors, axis)
    axis %= emitter.rank(vectors[0])
    extents = emitter.extents(vectors[0])
    y = emitter.joined([emitter.expand(x, [axis + 1]) for x in vectors], axis + 1)
    return emitter.reshape(y, [*extents[:axis], -1, *extents[axis + 1 :]])


@export("stack", moves=True)
def stack(emitter: Emitter, call: Call, values: list[str], axis: int) -> str:
    axis %= emitter.rank(values[0]) + 1
    return emitter.joined([emitter.expand(x, [axis]) for x in values], axis)


@export("split", moves=True)
def split(
    emitter: Emitter,
    call: Call,
    x: str,
    num_splits: int | None,
    split_sizes: Entries | None,
    axis: int,
) -> tuple[str, ...]:
    count = num_splits or 1
    if split_sizes is not None:
        sizes = emitter.integers(vector(split_sizes))
        return emitter.nodes("Split", [x, sizes], len(vector(split_sizes)), axis=axis)
    return emitter.nodes("Split", [x], count, axis=axis, num_outputs=count)


@export("tile", moves=True)
def tile(emitter: Emitter, call: Call, x: str, reps: str) -> str:
    return emitter.node("Tile", x, emitter.whole(reps))


@export("pad", moves=True)
def pad(emitter: Emitter, call: Call, x: str, pad: str, mode: str, constant_val: float) -> str:
    """ONNX lists the padding before every axis, then the padding after every axis."""
    filler = [scalar(emitter, constant_val, call.dtype)] if mode == "constant" else []
    known = values_of(emitter, pad)
    if known is not None:
        none = [0] * (emitter.rank(x) - len(known) // 2)
        amounts = emitter.integers([*none, *known[::2], *none, *known[1::2]])
    else:
        count = emitter.shape(pad)[0]
        if count is None:
            raise refuse("how many axes it pads is not known")
        pairs = emitter.transpose(emitter.reshape(emitter.whole(pad), [count // 2, 2]), [1, 0])
        zeros = emitter.constant(np.zeros((2, emitter.rank(x) - count // 2), np.int64))
        amounts = emitter.reshape(emitter.joined([zeros, pairs], 1), [2 * emitter.rank(x)])
    return emitter.node("Pad", x, amounts, *filler, mode=_MODES[mode])


@export("fill")
def fill(emitter: Emitter, call: Call, shape: str, value: float) -> str:
    return _filled(emitter, call, emitter.reshape(emitter.whole(shape), [-1]), value)


@export("fill_like")
def fill_like(emitter: Emitter, call: Call, ref_tensor: str, value: float) -> str:
    return _filled(emitter, call, emitter.shape_vector(ref_tensor), value)


def _filled(emitter: Emitter, call: Call, shape: str, value: float) -> str:
    filler = np.asarray(value).astype(call.dtype).reshape(1)
    return emitter.node("ConstantOfShape", shape, value=filler)


@export("range_1d")
def range_1d(emitter: Emitter, call: Call, end: str, start: str, step: str) -> str:
    """Each value is a product, not a sum of steps, whose errors would add up."""
    known = [emitter.known(x) for x in (start, end, step)]
    if None not in [None if x is None else 0 for x in known]:
        ends = [np.asarray(x).item() for x in known]
        return emitter.constant(np.arange(*ends).astype(call.dtype))
    first, last, by = (emitter.reshape(x, []) for x in (start, end, step))
    if call.dtype == "int32":
        return emitter.node("Range", first, last, by)
    count = emitter.node("Ceil", emitter.node("Div", emitter.node("Sub", last, first), by))
    places = emitter.positions(cast(emitter, count, "int64"))
    return emitter.node("Add", first, emitter.node("Mul", places, by))


@export("band_part", moves=True)
def band_part(emitter: Emitter, call: Call, x: str, lower: int, upper: int) -> str:
    """Keep `lower` bands below the diagonal and `upper` above it; a negative number keeps all."""
    rows = int32(emitter, emitter.expand(counted(emitter, emitter.extent(x, -2)), [-1]))
    columns = int32(emitter, counted(emitter, emitter.extent(x, -1)))
    y, zero = x, scalar(emitter, 0, "float32")
    for limit, pair in ((lower, (rows, columns)), (upper, (columns, rows))):
        if limit >= 0:
            away = emitter.node("Sub", *pair)
            stays = emitter.node("LessOrEqual", away, scalar(emitter, limit, "int32"))
            wide = y if call.dtype == "float32" else cast(emitter, y, "float32")
            y = emitter.node("Where", stays, wide, zero)
            y = y if call.dtype == "float32" else cast(emitter, y, call.dtype)
    return y
