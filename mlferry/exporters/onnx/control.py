"""Branches and loops as ONNX's `If` and `Loop`.

Core ML shows the blobs of an inner network outside of it; ONNX shows only its named outputs. So
each blob that something later may read becomes an output. A branch that may leave the round of its
loop takes the rest of the round into both of its paths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mlferry.errors import SpecError
from mlferry.exporters.liveness import LEAVES, leaves, needs, read_first, read_first_in_rounds
from mlferry.exporters.onnx.translation import ROUNDS, Translation
from mlferry.layers.control.definition import TRUE_ABOVE
from mlferry.numerics.shapes import Shape
from mlferry.onnx_graph import rounds
from mlferry.onnx_graph.graph import Body, Node, Port
from mlferry.onnx_graph.refusals import refuse
from mlferry.spec import networks
from mlferry.spec.proto import neural_network_pb2 as nn

Layer = nn.NeuralNetworkLayer
Shapes = list[Shape | None]


def outside(t: Translation, layer: Layer, live: set[str]) -> None:
    """Refuse a break or continue that stands in no loop."""
    raise SpecError(f"{layer.WhichOneof('layer')} {layer.name!r} is not inside a loop")


def _truth(t: Translation, blob: str) -> str:
    if blob not in t.values:
        raise refuse(f"nothing before it surely makes its condition {blob!r}")
    value = t.whole(blob)
    if t.e.is_flag(value):
        flag = t.e.flag(value)
    else:
        flag = t.e.node("Greater", t.e.node("Abs", value), t.e.number(TRUE_ABOVE))
        t.e.shapes[flag] = t.e.shapes.get(value)
    return t.e.reshape(flag, [])


def branch(t: Translation, layer: Layer, live: set[str]) -> None:
    """Run the first network if the input is true, else the second, which may be empty."""
    condition = _truth(t, layer.input[0])
    blobs = sorted(networks.touched(layer)[1] & live) + _counters(t, layer)
    bodies, shapes = [], []
    for network in networks.subnetworks(layer):
        with t.inside() as nodes:
            t.run(network.layers, {*live, *_counters(t, layer)})
            unmade = [blob for blob in blobs if blob not in t.values]
            if unmade:
                raise refuse(f"one of its ways leaves {unmade[0]!r}, which is read later, unmade")
            values = [t.whole(blob) for blob in blobs]
            bodies.append(_body(t, nodes, values))
            shapes.append([t.shape(blob) for blob in blobs])
    if not blobs:
        return
    t.e.layer = layer.name
    outputs = t.e.nodes("If", [condition], len(blobs), then_branch=bodies[0], else_branch=bodies[1])
    for blob, value, one, other in zip(blobs, outputs, *shapes, strict=True):
        _becomes(t, blob, value, _agreed(one, other))


def _becomes(t: Translation, blob: str, value: str, shape: Shape | None) -> None:
    t.add_input(blob, value, shape)
    if blob != ROUNDS:
        t.assign(blob, t.values[blob])


def _counters(t: Translation, layer: Layer) -> list[str]:
    """The count of rounds, if it is kept and a layer may change it."""
    inside = [layer, *(i for body in networks.subnetworks(layer) for i in networks.layers_of(body))]
    has_loop = any(inner.WhichOneof("layer") == "loop" for inner in inside)
    return [ROUNDS] if t.most_rounds is not None and has_loop else []


def _body(
    t: Translation, nodes: list[Node], values: Sequence[str], inputs: Sequence[Port] = ()
) -> Body:
    """A body in which every output has a node of its own."""
    own = {output for node in nodes for output in node.outputs}
    outputs: list[str] = []
    for value in values:
        shown = value
        if value not in own or value in outputs:
            shown = t.e.fresh(f"{t.e.layer}/Identity")
            nodes.append(Node("Identity", [value], [shown], name=t.e.fresh(f"{shown}/op")))
        outputs.append(shown)
    return Body(
        nodes,
        list(inputs),
        [Port(name, t.e.dtype(value)) for name, value in zip(outputs, values, strict=True)],
    )


def _agreed(one: Shape | None, other: Shape | None) -> Shape | None:
    if one is None or other is None or len(one) != len(other):
        return None
    return tuple(a if a == b else None for a, b in zip(one, other, strict=True))


def loop(t: Translation, layer: Layer, live: set[str]) -> None:
    """A loop that is counted, or that runs while a condition holds, or both.

    The condition network runs before each round and, when the count ends the loop, once more. So it
    is written twice: before the node, and at the end of a round.
    """
    p = layer.loop
    condition_layers = list(p.conditionNetwork.layers) if p.conditionVar else []
    body = list(p.bodyNetwork.layers)
    limit = ""
    if layer.input:
        limit = t.e.reshape(t.e.whole(t.whole(layer.input[0])), [])
    elif p.maxLoopIterations or not p.conditionVar:
        limit = t.e.constant(np.int64(p.maxLoopIterations))
    exposed = read_first_in_rounds(body, condition_layers)
    condition = ""
    if p.conditionVar:
        t.run(condition_layers, live | exposed | {p.conditionVar})
        condition = _truth(t, p.conditionVar)
    writes = {blob for inner in [*body, *condition_layers] for blob in networks.touched(inner)[1]}
    states = sorted(writes & (live | exposed))
    if not states:
        return
    states += _counters(t, layer)
    t.e.layer = layer.name
    first = [_start(t, layer, blob, exposed) for blob in states]
    shapes: Shapes = [t.shape(blob) if blob in t.values else None for blob in states]
    while True:  # each round knows fewer extents, until one changes nothing
        round_body, ends = _round(t, layer, condition_layers, body, states, shapes)
        after = [
            end if blob not in t.values else _agreed(shape, end)
            for blob, shape, end in zip(states, shapes, ends, strict=True)
        ]
        if after == shapes:
            break
        shapes = after
    t.e.layer = layer.name
    outputs = t.e.nodes("Loop", [limit, condition, *first], len(states), body=round_body)
    for blob, value, shape in zip(states, outputs, shapes, strict=True):
        _becomes(t, blob, value, shape)


def _start(t: Translation, layer: Layer, blob: str, exposed: set[str]) -> str:
    """The value of a blob before the first round.

    A blob that only the rounds write has none there, which is correct if a round surely runs.
    """
    if blob in t.values:
        return t.whole(blob)
    p = layer.loop
    body = p.bodyNetwork.layers
    sure = p.maxLoopIterations > 0 and not layer.input and not p.conditionVar
    if blob in exposed or not sure or blob not in read_first(body)[1]:
        raise refuse(f"its rounds may leave {blob!r}, which is read later, unmade")
    return t.e.constant(np.zeros(1, np.float32))


def _round(
    t: Translation,
    layer: Layer,
    condition_layers: list[Layer],
    body: list[Layer],
    states: list[str],
    shapes: Shapes,
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
            t.run(condition_layers, {*states, layer.loop.conditionVar})
            go = _truth(t, layer.loop.conditionVar) if condition_layers else _flag(t, True)
            return leave(go)

        def leave(go: str) -> list[str]:
            ends.append([t.shape(blob) if blob in t.values else None for blob in states])
            return [go, *(t.whole(blob) for blob in states)]

        condition_reads, _ = read_first(condition_layers)
        values = _steps(t, body, {*states, *condition_reads}, finish, leave)
        ports = [Port(names[0], "int64", ()), Port(names[1], "bool", ())]
        ports += [Port(name) for name in names[2:]]
        round_body = _body(t, nodes, values, ports)
    known = ends[0]
    for other in ends[1:]:
        known = [_agreed(a, b) for a, b in zip(known, other, strict=True)]
    return round_body, known


def _flag(t: Translation, value: bool) -> str:
    return t.e.constant(np.array(value))


def _steps(
    t: Translation,
    layers: Sequence[Layer],
    after: set[str],
    finish: Callable[[], list[str]],
    leave: Callable[[str], list[str]],
) -> list[str]:
    """The rest of a round: whether another one follows, and the new states."""
    for index, (layer, live) in enumerate(zip(layers, needs(layers, after), strict=True)):
        kind = layer.WhichOneof("layer")
        if kind in LEAVES:
            return leave(_flag(t, False)) if kind == "loopBreak" else finish()
        if kind != "branch" or not leaves(layer):
            t.layer(layer, live)
            continue
        condition = _truth(t, layer.input[0])
        bodies = []
        for network in networks.subnetworks(layer):
            with t.inside() as nodes:
                rest = [*network.layers, *layers[index + 1 :]]
                values = _steps(t, rest, after, finish, leave)
                bodies.append(_body(t, nodes, values))
        t.e.layer = layer.name
        outputs = t.e.nodes(
            "If",
            [condition],
            len(bodies[0].outputs),
            then_branch=bodies[0],
            else_branch=bodies[1],
        )
        t.e.booleans.add(outputs[0])
        return list(outputs)
    return finish()
