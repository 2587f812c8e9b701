"""The registry of ONNX converters; see `mlferry.converters.operands` for what they take."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlferry.converters.frontend import C, Converter, Frontend
from mlferry.converters.graph import Graph, Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx import read
from mlferry.converters.operands import prepared
from mlferry.converters.slices import first_within
from mlferry.converters.values import AnyOperand, Results
from mlferry.numerics.shapes import Array
from mlferry.registry import Registry

if TYPE_CHECKING:
    import onnx

OPS: Registry[Converter] = Registry("ONNX op")


def op(
    *names: str, since: int = 1, constants: Sequence[int] = (), raw: bool = False, **options: object
) -> Callable[[C], C]:
    """Register a converter; see `mlferry.converters.operands`."""

    def decorate(function: C) -> C:
        @functools.wraps(function)
        def convert(context: Lowering, node: Node, *operands: AnyOperand) -> Results:
            return function(context, node, *prepared(context, node, operands, constants))

        OPS.register(*names, since=since, **options)(function if raw else convert)
        return function

    return decorate


def fold(context: Lowering, node: Node, arrays: Sequence[Any]) -> Sequence[Any] | None:
    """Evaluate a node of constants in ONNX's own types, with onnx's reference evaluator."""
    if node.op in _NOT_FOLDED or node.proto is None:
        return None
    import onnx
    from onnx.reference import ReferenceEvaluator

    feeds: dict[str, Any] = {
        value.name: array for value, array in zip(node.inputs, arrays, strict=True) if value.name
    }
    infos = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in feeds.items()
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(v.name) for v in node.outputs if v.name]
    opsets = [onnx.helper.make_opsetid(d, v) for d, v in context.graph.opsets.items()]
    built = onnx.helper.make_model(
        onnx.helper.make_graph([node.proto], "constant", infos, outputs), opset_imports=opsets
    )
    sizes = _sizes(built, feeds, context.graph)
    if None in sizes and node.op not in _NO_LARGER:
        return None
    context.compute(sum(size or 0 for size in sizes))
    try:
        with np.errstate(all="ignore"):
            adapted = _ADAPTED[node.op](node, feeds) if node.op in _ADAPTED else feeds
            output = iter(ReferenceEvaluator(built).run(None, dict(adapted)))
    except Exception:
        return None  # what the evaluator lacks is converted like any other node
    results = [next(output) if value.name else None for value in node.outputs]
    if not all(x is None or isinstance(x, np.ndarray | np.generic) for x in results):
        return None
    return [None if x is None else np.asarray(x) for x in results]


def _starting_within(node: Node, feeds: dict[str, Any]) -> dict[str, Any]:
    """The operands of a slice for the evaluator, which takes its starts as Python's."""
    names = [value.name for value in node.inputs]
    if len(names) < 5 or not names[4]:
        return feeds  # without steps, it goes forward
    x, starts, steps = (feeds[names[place]] for place in (0, 1, 4))
    axes = feeds[names[3]] if names[3] else range(len(starts))
    first = [
        first_within(int(start), int(step), x.shape[axis])
        for start, step, axis in zip(starts, steps, axes, strict=True)
    ]
    return {**feeds, names[1]: np.array(first, starts.dtype)}


def _whole_indices(node: Node, feeds: dict[str, Any]) -> dict[str, Any]:
    """The operands of a one-hot encoding, whose indices the evaluator compares as they are."""
    name = node.inputs[0].name
    indices = feeds[name]
    return {**feeds, name: np.trunc(indices) if indices.dtype.kind == "f" else indices}


# what the evaluator takes otherwise than ONNX defines it
_ADAPTED = {"Slice": _starting_within, "OneHot": _whole_indices}
_SHAPES = 1024  # integers: what may be a shape, or what an op repeats
_NO_LARGER = {"NonZero", "Compress", "Unique", "NonMaxSuppression"}  # than what they are given


def _sizes(model: onnx.ModelProto, feeds: Mapping[str, Array], graph: Graph) -> list[int | None]:
    """The bytes of each output, which onnx infers from the shapes and small integers."""
    import onnx

    known = onnx.ModelProto()
    known.CopyFrom(model)
    known.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name)
        for name, array in feeds.items()
        if array.size <= _SHAPES and array.dtype.kind in "iufb"
    )
    inferred = read.infer(known, graph.source, graph.isolated)
    results: list[int | None] = []
    for value in inferred.graph.output:
        tensor = value.type.tensor_type
        extents = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim]
        whole = tensor.HasField("shape") and min(extents, default=0) >= 0
        size = _BYTES.get(tensor.elem_type, max(_BYTES.values()))
        results.append(math.prod(extents) * size if whole else None)
    return results


_BYTES = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8}  # of an element, by ONNX's type

_NOT_FOLDED = {
    *("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"),
    *("Bernoulli", "Multinomial", "DequantizeLinear", "If", "Loop", "Scan"),
    # Of windows, steps and places between two, onnx's evaluator has another opinion than runtimes:
    # paddings, ties, extents rounded up, axes of fewer than four, lengths of sequences.
    *("Conv", "ConvInteger", "ConvTranspose", "DeformConv", "QLinearConv", "Col2Im"),
    *("AveragePool", "LpPool", "MaxPool", "MaxRoiPool", "MaxUnpool"),
    *("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LRN", "GRU", "LSTM", "RNN"),
    *("Attention", "GridSample", "LpNormalization", "NonMaxSuppression"),
    *("Resize", "RoiAlign", "Upsample"),
}

# What of their operands they move: the values of one, or of all.
_MOVING = {
    **dict.fromkeys(
        (
            *("Cast", "Expand", "Flatten", "Gather", "Identity"),
            *("Reshape", "Slice", "Split", "Squeeze"),
            *("Tile", "Transpose", "Unsqueeze"),
        ),
        slice(1),
    ),
    "Concat": slice(None),
}

FRONTEND = Frontend("ONNX", OPS, frozenset(), (None,), fold, moving=_MOVING, raw=True)
