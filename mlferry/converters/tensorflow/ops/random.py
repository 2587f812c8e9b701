"""Random values: Core ML draws its own, so that only their distribution is the same."""

from __future__ import annotations

from typing import Any

from mlferry.converters.graph import Node
from mlferry.converters.layout import SOURCE, Blob
from mlferry.converters.lower import Lowering
from mlferry.converters.operands import array_of, ints, vector
from mlferry.converters.tensorflow.ops.registry import op, source
from mlferry.errors import ConversionError

_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "RandomUniform": ("randomUniformStatic", {"minVal": 0.0, "maxVal": 1.0}),
    "RandomStandardNormal": ("randomNormalStatic", {"mean": 0.0, "stdDev": 1.0}),
}


@op(*_KINDS, raw=True)
def random(low: Lowering, node: Node, shape: Any) -> Blob:
    seed = node.attrs.get("seed", 0)
    node.attrs.get("seed2")
    kind, params = _KINDS[node.op]
    extents = ints(array_of(node, 0, shape))
    if not extents:
        raise ConversionError("a random value without axes")
    return low.layer(kind, layout=SOURCE, outputShape=extents, seed=seed or -1, **params)


@op("Multinomial", raw=True)
def multinomial(low: Lowering, node: Node, logits: Any, count: Any) -> Blob:
    seed = node.attrs.get("seed", 0)
    node.attrs.get("seed2")
    return low.layer(
        "categoricalDistribution", vector(source(low, logits)), layout=SOURCE, isLogits=True,
        numSamples=ints(array_of(node, 1, count))[0], seed=seed or -1,
    )  # fmt: skip
