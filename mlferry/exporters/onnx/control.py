"""Loops as ONNX's `Loop`, which shows only its named outputs."""

from __future__ import annotations

import numpy as np

from mlferry.exporters.control import (
    LoopParts,
    check_written,
    control_flow,
    loop_parts,
    rest_of_round,
)
from mlferry.exporters.onnx.translation import ROUNDS, Translation
from mlferry.exporters.walk import Layer
from mlferry.numerics.shapes import Shape, in_common
from mlferry.onnx_graph import rounds
from mlferry.onnx_graph.graph import Body, Port

Shapes = list[Shape | None]


def loop(t: Translation, layer: Layer, live: set[str]) -> None:
    """A loop that is counted, or that runs while a condition holds, or both.

    The condition network runs before each round and, when the count ends the loop, once more. So it
    is written twice: before the node, and at the end of a round.
    """
    params = layer.loop
    parts = loop_parts(layer, live)
    limit = ""
    if layer.input:
        limit = t.e.reshape(t.e.whole(t.whole(layer.input[0])), [])
    elif params.maxLoopIterations or not params.conditionVar:
        limit = t.e.constant(np.int64(params.maxLoopIterations))
    condition = ""
    if params.conditionVar:
        t.run(parts.condition, live | parts.exposed | {params.conditionVar})
        condition = t.truth(params.conditionVar)
    states = parts.states
    if not states:
        return
    states = [*states, *t.counters(layer)]
    t.start(layer.name)
    first = [_first(t, layer, blob, parts) for blob in states]
    shapes: Shapes = [t.shape(blob) if blob in t.values else None for blob in states]
    while True:  # each round knows fewer extents, until one changes nothing
        round_body, ends = _round(t, layer, parts, states, shapes)
        after = [
            end if blob not in t.values else in_common(shape, end)
            for blob, shape, end in zip(states, shapes, ends, strict=True)
        ]
        if after == shapes:
            break
        shapes = after
    t.start(layer.name)
    outputs = t.e.nodes("Loop", [limit, condition, *first], len(states), body=round_body)
    for blob, value, shape in zip(states, outputs, shapes, strict=True):
        t.e.shapes[value] = shape
        t.become(blob, value)


def _first(t: Translation, layer: Layer, blob: str, parts: LoopParts) -> str:
    """The value of a blob before the first round: any, if only the rounds write it."""
    if blob in t.values:
        return t.whole(blob)
    check_written(t, layer, blob, parts)
    return t.e.constant(np.zeros(1, np.float32))


def _round(
    t: Translation, layer: Layer, parts: LoopParts, states: list[str], shapes: Shapes
) -> tuple[Body, Shapes]:
    """The body of a `Loop`, and the shapes of the states afterwards."""
    ends: list[Shapes] = []
    with t.inside() as nodes:
        names = [t.e.fresh(f"{layer.name}/{part}") for part in ("round", "go", *states)]
        for blob, name, shape in zip(states, names[2:], shapes, strict=True):
            t.add_input(blob, name, shape)
        if t.most_rounds is not None:
            t.values[ROUNDS] = rounds.counted(t.e, t.values[ROUNDS], t.most_rounds)

        def finish() -> list[str]:
            t.run(parts.condition, {*states, layer.loop.conditionVar})
            go = t.truth(layer.loop.conditionVar) if parts.condition else t.flag(True)
            return leave(go)

        def leave(go: str) -> list[str]:
            ends.append([t.shape(blob) if blob in t.values else None for blob in states])
            return [go, *(t.whole(blob) for blob in states)]

        values = rest_of_round(t, parts.body, {*states, *parts.needed}, finish, leave)
        ports = [Port(names[0], "int64", ()), Port(names[1], "bool", ())]
        ports += [Port(name) for name in names[2:]]
        round_body = t.body(nodes, values, ports)
    known = ends[0]
    for other in ends[1:]:
        known = [in_common(a, b) for a, b in zip(known, other, strict=True)]
    return round_body, known


CONTROL_FLOW = control_flow(loop)
