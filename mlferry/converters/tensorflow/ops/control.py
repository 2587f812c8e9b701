"""Functions, conditions and loops.

What is already known is resolved: functions are inlined, a known condition chooses its branch, and
a loop whose condition is known in each round is unrolled. The rest becomes Core ML's branch and
loop.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from mlferry.converters import control_flow
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import as_blob
from mlferry.converters.tensorflow.ops.lists import Items, shaped_as, stacked
from mlferry.converters.tensorflow.ops.registry import op, read_all
from mlferry.converters.tensorflow.subgraphs import Subgraph
from mlferry.converters.values import Blob, Constant, Opaque, Operand
from mlferry.errors import ConversionError, SpecError

FEW_ROUNDS = 8  # that are rather unrolled
MOST_ROUNDS = 128  # that are unrolled where Core ML's loop cannot do what the body does


def inlined(context: Lowering, body: Subgraph, prefix: str, operands: Sequence[Any]) -> list[Any]:
    """Convert the nodes of a function in place, and return its outputs.

    Args:
        prefix: makes the names in it unique.
    """
    body = body.named(prefix)
    for value, operand in zip(body.inputs, operands, strict=True):
        context.alias(value.name, operand)
    for name, array in body.constants.items():
        context.give(name, array)
    for node in body.nodes:
        context.convert_inner(node)
    return [context.operand(value) for value in body.outputs]


def _body(context: Lowering, option: Subgraph | str) -> Subgraph:
    """The function that an attribute names, or a part of a graph of TensorFlow 1."""
    if isinstance(option, Subgraph):
        return option
    function: Subgraph | None = context.graph.functions.get(("", option))
    if function is None:
        raise ConversionError(f"{context.graph.source} has no function {option!r}")
    return function


@op("PartitionedCall", "StatefulPartitionedCall", raw=True)
def call(context: Lowering, node: Node, *operands: Operand) -> list[Any]:
    read_all(node)
    return inlined(context, _body(context, node.attrs["f"]), node.name, operands)


@op("If", "StatelessIf", raw=True)
def if_(context: Lowering, node: Node, condition: Operand, *operands: Operand) -> list[Any]:
    read_all(node)
    bodies = [_body(context, node.attrs[n]) for n in ("then_branch", "else_branch")]
    if isinstance(condition, Constant):
        chosen = bodies[0] if condition.array.ravel()[0] else bodies[1]
        return inlined(context, chosen, node.name, operands)
    yes, no = (
        functools.partial(inlined, context, body, f"{node.name}/{name}", operands)
        for body, name in zip(bodies, ("then", "else"), strict=True)
    )
    return list(control_flow.branch(context, condition, yes, no))


@op("Case", "StatelessCase", raw=True)
def case(context: Lowering, node: Node, index: Operand, *operands: Operand) -> list[Any]:
    """An index chooses a branch; one out of range takes the last."""
    read_all(node)
    names = node.attrs["branches"]
    last = len(names) - 1

    def taken(place: int) -> list[Any]:
        label = f"{node.name}/{place}"
        return inlined(context, _body(context, names[place]), label, operands)

    if isinstance(index, Constant):
        known = int(index.array.ravel()[0])
        return taken(known if 0 <= known < last else last)

    def from_on(place: int) -> list[Any]:
        """The branch of this index, or of one of those behind it."""
        if place == last:
            return taken(last)
        condition = context.emit("equal", index, alpha=float(place))
        yes, no = functools.partial(taken, place), functools.partial(from_on, place + 1)
        return list(control_flow.branch(context, condition, yes, no))

    return from_on(0)


@op("While", "StatelessWhile", raw=True)
def while_(context: Lowering, node: Node, *operands: Operand | Opaque) -> list[Any]:
    """A few rounds whose condition is known are unrolled; others become Core ML's loop.

    More are unrolled only if that loop cannot do what the body does.
    """
    read_all(node)
    condition, body = (_body(context, node.attrs[n]) for n in ("cond", "body"))
    # unrolling copies the weights of convolutions, which are a part of the layer
    few = 1 if any("Conv" in each.op for each in body.all_nodes()) else FEW_ROUNDS
    current: list[Any] = list(operands)
    before, context.is_repeated = context.is_repeated, True
    try:
        for index in range(MOST_ROUNDS):
            going = _asked(context, condition, f"{node.name}/{index}", current)
            if going is None:
                return _looped(context, node, condition, body, current)
            if not going:
                return current
            if index == few:
                pairs = zip(operands, current, strict=True)
                operands = tuple(shaped_as(context, x, now) for x, now in pairs)
                result = _tried(context, node, condition, body, operands)
                if result is not None:
                    return result  # what was unrolled is pruned
            current = inlined(context, body, f"{node.name}/{index}", current)
    finally:
        context.is_repeated = before
    return _looped(context, node, condition, body, operands)


def _tried(
    context: Lowering, node: Node, condition: Subgraph, body: Subgraph, operands: Sequence[Any]
) -> list[Any] | None:
    """Core ML's loop, or None if it cannot do what the body does."""
    try:
        return _looped(context, node, condition, body, operands)
    except (ConversionError, SpecError):
        return None  # what was begun is pruned


def _asked(
    context: Lowering, condition: Subgraph, prefix: str, operands: Sequence[Any]
) -> bool | None:
    """The value of a condition, or None if it is computed."""
    with context.inside(kept=False):
        (answer,) = inlined(context, condition, f"{prefix}/condition", operands)
    return bool(answer.array.ravel()[0]) if isinstance(answer, Constant) else None


def _looped(
    context: Lowering, node: Node, condition: Subgraph, body: Subgraph, operands: Sequence[Any]
) -> list[Any]:
    """Core ML's loop; operands that the body does not change stay outside."""
    handed_on = [value.name for value in body.handed_on()]
    changing = [i for i, name in enumerate(handed_on) if name != body.inputs[i].name]
    outside = [stacked(context, x) if isinstance(x, Items) else x for x in operands]
    states = [as_blob(context, outside[i]) for i in changing]

    def filled(values: Sequence[Any]) -> list[Any]:
        whole = list(outside)
        for place, x in zip(changing, values, strict=True):
            whole[place] = x
        return whole

    (start,) = inlined(context, condition, f"{node.name}/first", filled(states))

    def round_of(index: Blob, current: list[Blob]) -> tuple[Any, list[Any]]:
        output = inlined(context, body, f"{node.name}/round", filled(current))
        chosen = [output[i] for i in changing]
        (again,) = inlined(context, condition, f"{node.name}/again", filled(chosen))
        return again, chosen

    result = control_flow.loop(context, None, as_blob(context, start), states, round_of)
    return filled(result)
