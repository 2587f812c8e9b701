"""From a graph with `ai.onnx.ml` nodes to the Core ML model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlferry import limits
from mlferry.converters.graph import Graph, Node, Value
from mlferry.converters.lower import as_conversion_errors
from mlferry.converters.onnx.ml import networks, ops  # noqa: F401 (it registers its functions)
from mlferry.converters.onnx.ml.flow import Flow
from mlferry.converters.onnx.ml.outputs import finished
from mlferry.converters.onnx.ml.registry import DOMAIN, MOVES, OPS
from mlferry.converters.onnx.ml.values import (
    Cell,
    Held,
    Pending,
    RefusedResult,
    Row,
    Sizes,
    Table,
    joined,
)
from mlferry.converters.onnx.ops import OPS as ORDINARY
from mlferry.converters.options import Options
from mlferry.converters.types import RangeDim, TensorType
from mlferry.errors import ConversionError, OpenShapesError, UnsupportedOpError, context
from mlferry.numerics.shapes import show
from mlferry.spec.proto import model_pb2
from mlferry.text import paragraph


def claims(graph: Graph, options: Options) -> bool:
    """Whether a graph has `ai.onnx.ml` nodes that become predictors.

    The user's conversion functions come first: if they convert all of these nodes, or custom layers
    are made of unknown ones, the graph becomes one network.
    """
    if graph.framework != "ONNX":
        return False
    functions = options.custom_conversion_functions or {}
    results = [node for node in graph.nodes if node.op.startswith(f"{DOMAIN}.")]
    ours = [node for node in results if not any(key in functions for key in node.keys)]
    all_known = all(node.op.removeprefix(f"{DOMAIN}.") in OPS for node in ours)
    return bool(ours) and (all_known or not options.add_custom_layers)


def build(graph: Graph, options: Options) -> model_pb2.Model:
    """The Core ML model of a graph.

    Args:
        options: of the conversion, as `mlferry.convert` takes them.

    Raises:
        UnsupportedOpError: ops without a converter; all are named.
        ConversionError: Core ML's models cannot express some attributes; all nodes are named.
        OpenShapesError: the number of columns of an input is not known.
    """
    _check_options(options)
    _check_ops(graph, options.custom_conversion_functions or {})
    _tell_unused(graph, options.custom_conversion_functions or {})
    flow = Flow(graph, options.custom_conversion_functions or {}, networks.materialized)
    tensors = [kind for kind in options.inputs or () if isinstance(kind, TensorType)]
    inputs = _inputs(flow, graph, tensors)
    refusals: list[ConversionError] = []
    for node in graph.nodes:
        try:
            _convert(flow, node)
        except ConversionError as error:
            refusals.append(error)
            for value in node.outputs:
                flow.values[value.name] = RefusedResult()
    if refusals:
        raise _all_of(refusals)
    selected = _wanted(graph, options)
    with context(f"making the outputs of {graph.source}"), as_conversion_errors():
        return finished(flow, inputs, selected)


# ---- what is asked ---------------------------------------------------------------------


def _check_options(options: Options) -> None:
    if options.classifier_config is not None:
        raise ConversionError(
            "classifier_config: a model with ai.onnx.ml nodes has its own labels; leave it out"
        )
    for kind in (*(options.inputs or ()), *(options.outputs or ())):
        if not isinstance(kind, str | TensorType):
            raise ConversionError(
                f"{type(kind).__name__}: a model with ai.onnx.ml nodes takes and returns "
                "numbers and texts; leave it out"
            )


def _wanted(graph: Graph, options: Options) -> list[tuple[str, Value]]:
    """The values that the model returns, with the names of their outputs."""
    known = dict(graph.outputs)
    requested = [o if isinstance(o, str) else o.name for o in options.outputs or ()]
    names = [str(name) for name in requested] or list(known)
    for name in names:
        if name not in known:
            raise graph.unknown("output", name, list(known))
    shown = list(options.output_names or names)
    if len(shown) != len(names):
        raise ConversionError(f"{len(shown)} names {shown} for {len(names)} outputs")
    return [(new, known[old]) for new, old in zip(shown, names, strict=True)]


def _check_ops(graph: Graph, functions: Mapping[str, Any]) -> None:
    missing: dict[str, list[str]] = {}
    for node in graph.nodes:
        is_ours = node.op.startswith(f"{DOMAIN}.")
        names = OPS if is_ours else {*ORDINARY, *MOVES}
        by_user = any(key in functions for key in node.keys)
        known = by_user or node.op.removeprefix(f"{DOMAIN}.") in names
        if not known:
            missing.setdefault(node.op, []).append(node.name)
    if missing:
        lines = [
            f"{graph.source} has ops that mlferry does not convert in a model with {DOMAIN} ops:",
            *(f"  - {op}: {', '.join(map(repr, names))}" for op, names in missing.items()),
            f"of {DOMAIN}, there are {', '.join(OPS)}",
        ]
        raise UnsupportedOpError(paragraph(lines), missing)


def _tell_unused(graph: Graph, functions: Mapping[str, Any]) -> None:
    names = {key for node in graph.nodes for key in node.keys}
    unused = [key for key in functions if key not in names]
    if unused:
        listed = ", ".join(map(repr, unused))
        warnings.warn(
            f"custom_conversion_functions: nothing in {graph.source} is named {listed}",
            stacklevel=5,
        )


# ---- inputs ----------------------------------------------------------------------------


def _inputs(flow: Flow, graph: Graph, kinds: Sequence[TensorType]) -> list[Row | Cell | Table]:
    """Bind every input, and return the features of the model's inputs."""
    chosen = _by_name(graph, kinds)
    results: list[Row | Cell | Table] = []
    missing: dict[str, tuple[int, ...]] = {}
    for value in graph.inputs:
        table = _table(graph, value)
        if table is not None:
            flow.values[value.name] = table
            results.append(table)
            continue
        shape = _shape(value, chosen.get(value.name))
        if shape is None:
            missing[value.name] = (1, 4)
            continue
        entry = _input(flow, value, shape)
        flow.values[value.name] = entry
        results += list(entry.parts) if not isinstance(entry, Row | Cell) else [entry]
    if missing:
        raise _open(graph, missing)
    return results


def _by_name(graph: Graph, kinds: Sequence[TensorType]) -> dict[str, TensorType]:
    known = [value.name for value in graph.inputs]
    entries = {}
    for index, kind in enumerate(kinds):
        name = kind.name or (known[index] if len(kinds) == len(known) else "")
        if name not in known:
            raise graph.unknown("input", name, known)
        if kind.value is not None:
            raise ConversionError(f"input {name!r}: value= is possible in networks only")
        entries[name] = kind
    return entries


def _shape(value: Value, kind: TensorType | None) -> Sizes | None:
    declared = kind.shape if kind is not None and kind.shape is not None else value.shape
    if declared is None:
        return None
    listed = list(declared) if isinstance(declared, Sequence) else [None]
    if any(isinstance(n, RangeDim) for n in listed):
        raise ConversionError(
            f"input {value.name!r}: sizes of a model with ai.onnx.ml nodes are fixed"
        )
    shape = tuple(
        1 if i == 0 and n is None and len(listed) > 1 else n for i, n in enumerate(listed)
    )
    if any(n is None for n in shape):
        return None
    sizes: Sizes = tuple(n for n in shape if isinstance(n, int))
    if value.shape is not None and (
        len(sizes) != len(value.shape)
        or any(described not in (None, n) for n, described in zip(sizes, value.shape, strict=True))
    ):
        raise ConversionError(
            f"input {value.name!r} has shape {show(value.shape)} (? is free), not {sizes}"
        )
    if len(sizes) > 1 and sizes[0] != 1:
        raise ConversionError(
            f"input {value.name!r} has {sizes[0]} rows; a Core ML model takes one sample"
        )
    return sizes


def _open(graph: Graph, missing: Mapping[str, tuple[int, ...]]) -> OpenShapesError:
    example = ", ".join(
        f"mlferry.TensorType(name={name!r}, shape={shape})" for name, shape in missing.items()
    )
    lines = [
        f"{graph.source} leaves the number of columns of inputs open:",
        *(f"  - {name}" for name in missing),
        f"give it: mlferry.convert(..., inputs=[{example}])",
    ]
    return OpenShapesError(paragraph(lines), dict(missing))


def _table(graph: Graph, value: Value) -> Table | None:
    """An input that a DictVectorizer reads becomes a dictionary."""
    for node in graph.readers(value.name):
        if node.op == f"{DOMAIN}.DictVectorizer":
            return Table(value.name, "string_vocabulary" in node.attrs)
    return None


def _input(flow: Flow, value: Value, shape: Sizes) -> Any:
    size = 1
    for n in shape:
        size *= n
    limits.check_blob((size,))
    if value.dtype == "string":
        limits.check("unrolled", size, "each text is an input of its own; there are:")
        columns = [f"{value.name}_{i}" for i in range(size)]
        names = [value.name] if size == 1 else [flow.fresh(name) for name in columns]
        return joined([Cell(name, "string") for name in names], shape)
    if value.dtype.startswith(("int", "uint")) and size == 1:
        return Cell(value.name, "int64", shape)
    dtype = {"float64": "float64", "float32": "float32"}.get(value.dtype)
    if dtype is None and not value.dtype.startswith(("int", "uint", "bool")):
        raise ConversionError(
            f"input {value.name!r} is of type {value.dtype}; float, double, integers and texts are "
            "possible in a model with ai.onnx.ml nodes"
        )
    return Row(value.name, size, dtype or "int32", shape)


# ---- nodes -----------------------------------------------------------------------------


def _convert(flow: Flow, node: Node) -> None:
    inputs = [flow.values.get(value.name) if value.name else None for value in node.inputs]
    if any(isinstance(value, RefusedResult) for value in inputs):
        outputs: Held | tuple[Held, ...] | None = tuple(RefusedResult() for _ in node.outputs)
    else:
        with context(f"converting {node} of {flow.graph.source}"), as_conversion_errors():
            outputs = _made(flow, node, inputs)
    results = outputs if isinstance(outputs, tuple) else (outputs,)
    for value, result in zip(node.outputs, results, strict=False):
        if value.name and result is not None:
            flow.values[value.name] = result


def _made(flow: Flow, node: Node, inputs: Sequence[Held | None]) -> Any:
    by_user = any(key in flow.functions for key in node.keys)
    if node.op.startswith(f"{DOMAIN}.") and not by_user:
        entry = OPS.find(node.op.removeprefix(f"{DOMAIN}."))
        assert entry is not None
        _check_finite(node)
        result = entry.value(flow, node, *inputs)
        unread = node.attrs.unread()
        if unread:
            listed = ", ".join(f"{name}={value!r:.60}" for name, value in unread.items())
            raise ConversionError(f"{listed} cannot be converted: Core ML has nothing like it")
        return result
    entry = None if by_user else MOVES.find(node.op)
    result = entry.value(flow, node, *inputs) if entry is not None else None
    if result is not None:
        return result
    flow.postpone(node)
    return tuple(Pending(value.name, _one_sample(value)) for value in node.outputs)


_MAY_BE_INFINITE = (
    *("imputed_value_floats", "replaced_value_float", "membership_values"),
    *("keys_floats", "keys_tensor", "nodes_values", "nodes_values_as_tensor", "nodes_splits"),
    *("nodes_hitrates", "nodes_hitrates_as_tensor"),
)


def _check_finite(node: Node) -> None:
    """Refuse NaN and infinity among weights, which would spoil every prediction."""
    for name, value in node.attrs.as_dict().items():
        array = np.asarray(value)
        if array.dtype.kind == "f" and name not in _MAY_BE_INFINITE:
            wrong = array[~np.isfinite(array)].ravel()
            if wrong.size:
                raise ConversionError(f"{name} has the value {wrong[0]}; weights are finite")


def _one_sample(value: Value) -> Sizes | None:
    if value.shape is None or any(n is None for n in value.shape[1:]):
        return None
    return tuple(1 if n is None else n for n in value.shape)


def _all_of(refusals: Sequence[ConversionError]) -> ConversionError:
    """A single error for all nodes that cannot be converted."""
    if len(refusals) == 1:
        return refusals[0]
    lines = ["several nodes cannot be converted:", *(f"  - {error}" for error in refusals)]
    return ConversionError("\n".join(lines).replace("\n  while", "\n    while"))
