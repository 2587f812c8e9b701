"""Random values: Core ML draws its own, so that only their distribution is the same."""

from __future__ import annotations

from typing import Any

from mlferry.converters.graph import Node
from mlferry.converters.layout import SOURCE, Blob
from mlferry.converters.lower import Lowering
from mlferry.converters.operands import array_of, ints, scalar, vector
from mlferry.converters.tensorflow.ops.registry import op, source

_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "RandomUniform": ("randomUniform", {"minVal": 0.0, "maxVal": 1.0}),
    "RandomStandardNormal": ("randomNormal", {"mean": 0.0, "stdDev": 1.0}),
}


@op(*_KINDS, raw=True)
def random(low: Lowering, node: Node, shape: Any) -> Blob:
    seed = node.attrs.get("seed", 0)
    node.attrs.get("seed2")
    kind, params = _KINDS[node.op]
    return drawn(low, kind, shape, seed=seed or -1, **params)


def drawn(low: Lowering, kind: str, shape: Any, **params: Any) -> Blob:
    """Random values of a shape that is known or computed.

    Args:
        low: the lowering.
        kind: "randomUniform" or "randomNormal".
        shape: an operand.
        params: of the layer.
    """
    if isinstance(shape, Blob):
        return low.layer(f"{kind}Dynamic", shape, layout=SOURCE, **params)
    extents = ints(shape.array)
    made = low.layer(f"{kind}Static", layout=SOURCE, outputShape=extents or (1,), **params)
    return made if extents else scalar(made)


@op("Multinomial", raw=True)
def multinomial(low: Lowering, node: Node, logits: Any, count: Any) -> Blob:
    seed = node.attrs.get("seed", 0)
    node.attrs.get("seed2")
    return low.layer(
        "categoricalDistribution", vector(source(low, logits)), layout=SOURCE, isLogits=True,
        numSamples=ints(array_of(node, 1, count))[0], seed=seed or -1,
    )  # fmt: skip
