"""The registry of ONNX converters; see `mlferry.converters.operands` for what they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlferry.converters.graph import Graph, Node
from mlferry.converters.lower import Converter, Frontend
from mlferry.converters.operands import decorator
from mlferry.registry import Registry

OPS: Registry[Converter] = Registry("ONNX op")
op = decorator(OPS)


def fold(node: Node, graph: Graph, arrays: Sequence[Any]) -> Sequence[Any] | None:
    """Evaluate a node of constants in ONNX's own types, with onnx's reference evaluator."""
    if node.op in _NOT_FOLDED or node.proto is None:
        return None
    import onnx
    from onnx.reference import ReferenceEvaluator

    feeds = {
        value.name: array for value, array in zip(node.inputs, arrays, strict=True) if value.name
    }
    infos = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in feeds.items()
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(v.name) for v in node.outputs if v.name]
    opsets = [onnx.helper.make_opsetid(d, v) for d, v in graph.opsets.items()]
    built = onnx.helper.make_model(
        onnx.helper.make_graph([node.proto], "constant", infos, outputs), opset_imports=opsets
    )
    try:
        with np.errstate(all="ignore"):
            made = iter(ReferenceEvaluator(built).run(None, feeds))
    except Exception:
        return None  # what the evaluator lacks is converted like any other node
    found = [next(made) if value.name else None for value in node.outputs]
    if not all(x is None or isinstance(x, np.ndarray | np.generic) for x in found):
        return None
    return [None if x is None else np.asarray(x) for x in found]


_NOT_FOLDED = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike",
               "Bernoulli", "Multinomial", "DequantizeLinear", "If", "Loop", "Scan"}  # fmt: skip

FRONTEND = Frontend("ONNX", OPS, frozenset(), (None,), fold)
