"""Pooling."""

from __future__ import annotations

from typing import Any

from mlferry.converters.convolutions import each, padding, sides
from mlferry.converters.graph import Node
from mlferry.converters.layout import Blob
from mlferry.converters.lower import Lowering
from mlferry.converters.operands import array_of, ints
from mlferry.converters.tensorflow.ops.convolution import windows
from mlferry.converters.tensorflow.ops.registry import maps, op, spatial
from mlferry.errors import ConversionError

_KINDS = {"MaxPool": "MAX", "AvgPool": "AVERAGE", "MaxPool3D": "MAX", "AvgPool3D": "AVERAGE"}


def _pool(low: Lowering, node: Node, x: Any, kind: str, sizes: Any, strides: Any) -> Blob:
    """Averages leave the padding out."""
    given = maps(low, node, x)
    for name, values in (("ksize", sizes), ("strides", strides)):
        outer = [n for n in values if n != 1]
        inner = [n for n in spatial(node, values) if n != 1]
        if outer != inner:
            raise ConversionError(f"{name}={list(values)}: windows over batch or channels")
    kernel, steps = spatial(node, sizes), spatial(node, strides)
    how = windows(node, given, kernel, steps, [1] * len(kernel))
    if len(kernel) == 3:
        return low.layer(
            "pooling3d", given, layout=given.layout, type=kind, paddingType="CUSTOM",
            countExcludePadding=kind == "AVERAGE", **each("kernel", kernel),
            **each("stride", steps), **sides(how.pairs),
        )  # fmt: skip
    return low.layer(
        "pooling", given, layout=given.layout, type=kind, kernelSize=kernel, stride=steps,
        avgPoolExcludePadding=kind == "AVERAGE", **padding(how.pairs, how.same),
    )  # fmt: skip


@op(*_KINDS, raw=True)
def pool(low: Lowering, node: Node, x: Any) -> Blob:
    sizes, strides = node.attrs["ksize"], node.attrs["strides"]
    return _pool(low, node, x, _KINDS[node.op], sizes, strides)


@op("MaxPoolV2", raw=True)
def pool_v2(low: Lowering, node: Node, x: Any, sizes: Any, strides: Any) -> Blob:
    told = (ints(array_of(node, place, v)) for place, v in ((1, sizes), (2, strides)))
    return _pool(low, node, x, "MAX", *told)
