"""Random values: Core ML draws its own, so only their distribution is the same."""

from __future__ import annotations

from typing import Any

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import array_of, extent, ints, scalar, vector
from mlferry.converters.tensorflow.ops.registry import op, source
from mlferry.converters.values import SOURCE, Blob, Operand

_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "RandomUniform": ("randomUniform", {"minVal": 0.0, "maxVal": 1.0}),
    "RandomStandardNormal": ("randomNormal", {"mean": 0.0, "stdDev": 1.0}),
}


@op(*_KINDS, raw=True)
def random(context: Lowering, node: Node, shape: Operand) -> Blob:
    seed = node.attrs.get("seed", 0)
    node.attrs.get("seed2")
    kind, params = _KINDS[node.op]
    return drawn(context, kind, shape, seed=seed or -1, **params)


def drawn(context: Lowering, kind: str, shape: Operand, **params: Any) -> Blob:
    """Random values of a shape that is known or computed.

    Args:
        kind: "randomUniform" or "randomNormal".
        shape: an operand.
    """
    if isinstance(shape, Blob):
        return context.layer(f"{kind}Dynamic", shape, layout=SOURCE, **params)
    extents = ints(shape.array)
    output = context.layer(f"{kind}Static", layout=SOURCE, outputShape=extents or (1,), **params)
    return output if extents else scalar(output)


@op("Multinomial", raw=True)
def multinomial(context: Lowering, node: Node, logits: Operand, count: Operand) -> Blob:
    seed = node.attrs.get("seed", 0)
    node.attrs.get("seed2")
    return context.layer(
        "categoricalDistribution",
        vector(source(context, logits)),
        layout=SOURCE,
        isLogits=True,
        numSamples=ints(array_of(node, 1, count))[0],
        seed=seed or -1,
    )


@op("RandomUniformInt", raw=True)
def random_integers(
    context: Lowering, node: Node, shape: Operand, least: Operand, end: Operand
) -> Blob:
    """From the first number up to, but not including, the second."""
    node.attrs.get("seed2")
    first, last = (int(ints(array_of(node, place, v))[0]) for place, v in ((1, least), (2, end)))
    numbers = drawn(
        context,
        "randomUniform",
        shape,
        seed=node.attrs.get("seed", 0) or -1,
        minVal=float(first),
        maxVal=float(last),
    )
    whole = context.emit("floor", numbers)
    return context.emit("clip", whole, minVal=float(first), maxVal=float(last - 1))


@op("RandomShuffle", raw=True)
def random_shuffle(context: Lowering, node: Node, x: Operand) -> Blob:
    """Sorts the rows by random numbers."""
    node.attrs.get("seed2")
    blob = source(context, x)
    keys = context.layer(
        "randomUniformStatic",
        layout=SOURCE,
        outputShape=(extent(blob, 0),),
        seed=node.attrs.get("seed", 0) or -1,
        minVal=0.0,
        maxVal=1.0,
    )
    order = context.layer("argSort", keys, layout=SOURCE, axis=0, descending=False)
    return context.gather(blob, order, 0)
