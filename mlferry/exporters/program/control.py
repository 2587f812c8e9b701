"""Loops as `while_loop`, which shows only the outputs of its blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlferry.exporters.control import (
    LoopParts,
    check_written,
    control_flow,
    loop_parts,
    rest_of_round,
)
from mlferry.exporters.program.translation import Translation
from mlferry.exporters.walk import Layer
from mlferry.numerics.shapes import in_common
from mlferry.programs.graph import Block, Value
from mlferry.programs.types import TensorType
from mlferry.refusals import refuse


def loop(translation: Translation, layer: Layer, live: set[str]) -> None:
    """A loop that is counted, or that runs while a condition holds, or both.

    The condition network runs before each round and, when the count ends the loop, once more. So it
    is written twice: before the operation, and at the end of a round. A flag and a number of rounds
    are carried along with the blobs.
    """
    builder = translation.builder
    params = layer.loop
    parts = loop_parts(layer, live)
    limit: Value | None = None
    if layer.input:
        limit = builder.reshape(builder.as_integer(translation.whole(layer.input[0])), [])
    elif params.maxLoopIterations or not params.conditionVar:
        limit = builder.constant(np.int32(params.maxLoopIterations))
    go = builder.constant(np.bool_(True))
    if params.conditionVar:
        translation.run(parts.condition, live | parts.exposed | {params.conditionVar})
        go = translation.truth(params.conditionVar)
    states = parts.states
    translation.start(layer.name)
    first = [_first(translation, layer, blob, parts) for blob in states]
    kinds = [value.tensor for value in first]
    while True:  # each round knows less about the types, until one changes nothing
        blocks, ends = _round(translation, layer, parts, kinds, limit)
        after = [_widened(kind, end) for kind, end in zip(kinds, ends, strict=True)]
        if after == kinds:
            break
        kinds = after
    if not states:
        return
    translation.start(layer.name)
    started = [builder.cast(value, kind.dtype) for value, kind in zip(first, kinds, strict=True)]
    carried = [builder.constant(np.int32(0)), go, *started]
    outputs = builder.ops("while_loop", loop_vars=carried, blocks=blocks)
    for blob, value, kind in zip(states, outputs[2:], kinds, strict=True):
        value.type = kind
        translation.become(blob, value)


def _widened(one: TensorType, two: TensorType) -> TensorType:
    """A type that covers both: extents that differ are open, a float wins over an integer."""
    dtype = one.dtype
    if one.dtype != two.dtype:
        dtype = "fp32" if "fp32" in (one.dtype, two.dtype) else "int32"
    shape = in_common(one.shape, two.shape)
    if shape is None:
        raise refuse("a blob of its rounds changes the number of its axes")
    return TensorType(dtype, shape)


def _first(translation: Translation, layer: Layer, blob: str, parts: LoopParts) -> Value:
    """The value of a blob before the first round: any, if only the rounds write it."""
    if blob in translation.values:
        return translation.whole(blob)
    check_written(translation, layer, blob, parts)
    kind = _made_by(translation, parts.body, blob)
    shape = [extent if extent is not None else 1 for extent in kind.shape or ()]
    return translation.builder.constant(np.zeros(shape, np.float32), kind.dtype)


def _made_by(translation: Translation, body: Sequence[Layer], blob: str) -> TensorType:
    """The type that a blob has after one round."""
    with translation.inside():
        translation.run(body, {blob})
        return translation.whole(blob).tensor


def _round(
    translation: Translation,
    layer: Layer,
    parts: LoopParts,
    kinds: Sequence[TensorType],
    limit: Value | None,
) -> tuple[list[Block], list[TensorType]]:
    """The blocks of a `while_loop`, and the types of the blobs after a round."""
    builder, states = translation.builder, parts.states
    scalar, flag = TensorType("int32", ()), TensorType("bool", ())
    with translation.inside() as condition:
        count = builder.input(builder.fresh(f"{layer.name}_round"), scalar)
        go = builder.input(builder.fresh(f"{layer.name}_go"), flag)
        for blob, kind in zip(states, kinds, strict=True):
            builder.input(builder.fresh(f"{layer.name}_{blob}"), kind)
        if limit is not None:
            go = builder.op("logical_and", x=go, y=builder.op("less", x=count, y=limit))
    condition.outputs = [translation.in_block(condition, go, "bool")]
    ends: list[list[TensorType]] = []
    with translation.inside() as rounds:
        count = builder.input(builder.fresh(f"{layer.name}_round"), scalar)
        builder.input(builder.fresh(f"{layer.name}_go"), flag)
        for blob, kind in zip(states, kinds, strict=True):
            translation.become(blob, builder.input(builder.fresh(f"{layer.name}_{blob}"), kind))
        following = builder.op("add", x=count, y=np.int32(1))

        def finish() -> list[Value]:
            translation.run(parts.condition, {*states, layer.loop.conditionVar})
            if parts.condition:
                return leave(translation.truth(layer.loop.conditionVar))
            return leave(translation.flag(True))

        def leave(go_on: Value) -> list[Value]:
            values = [translation.whole(blob) for blob in states]
            ends.append([value.tensor for value in values])
            dtypes = ["bool", *(kind.dtype for kind in kinds)]
            return [
                value if value.dtype == dtype else builder.cast(value, dtype)
                for value, dtype in zip([go_on, *values], dtypes, strict=True)
            ]

        values = rest_of_round(translation, parts.body, parts.needed, finish, leave)
    dtypes = ["int32", "bool", *(kind.dtype for kind in kinds)]
    for value, dtype in zip([following, *values], dtypes, strict=True):
        rounds.outputs.append(translation.in_block(rounds, value, dtype))
    types = list(ends[0])
    for other in ends[1:]:
        types = [_widened(a, b) for a, b in zip(types, other, strict=True)]
    return [condition, rounds], types


CONTROL_FLOW = control_flow(loop)
