"""Ops that change the numbers of a row, or pick some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.onnx.ml.flow import Flow, type_of
from mlferry.converters.onnx.ml.registry import op
from mlferry.converters.onnx.ml.values import (
    Cell,
    Held,
    Known,
    Label,
    Parts,
    Pending,
    Row,
    Scores,
    Table,
    Zipped,
    column,
    joined,
    pieces,
    size_of,
)
from mlferry.errors import ConversionError

_FLOAT32 = np.float32


def _of(flow: Flow, kind: str, params: dict[str, Any], row: Row, node: Node) -> Row:
    """A model from a row to a row of the same size."""
    return flow.to_row(kind, params, row, f"{node.name}_{kind}", row.size, shape=row.shape)


def _each(values: Sequence[float], size: int, name: str) -> list[float]:
    """One value for each element, or a single one for all."""
    results = [float(value) for value in values]
    if len(results) not in (1, size):
        raise ConversionError(f"{name} has {len(results)} values for {size} columns")
    return results


@op("Scaler")
def scaler(flow: Flow, node: Node, x: Held) -> Row:
    """(x - offset) * scale: Core ML's scaler adds its shift."""
    row = flow.sample(x)
    offset = _each(node.attrs.get("offset", [0.0]), row.size, "offset")
    scale = _each(node.attrs.get("scale", [1.0]), row.size, "scale")
    params = {"shiftValue": [-value for value in offset], "scaleValue": scale}
    return _of(flow, "scaler", params, row, node)


@op("Normalizer")
def normalizer(flow: Flow, node: Node, x: Held) -> Held:
    """Core ML has L1 and L2; MAX divides by the largest value, not the largest magnitude.

    Scores that add up to 1 stay as they are.
    """
    norm = node.attrs.get("norm", "MAX")
    if norm == "L1" and isinstance(x, Scores):
        if x.classes.is_distribution:
            return x
        if x.classes.normalized is not None:
            return Scores(replace(x.classes.normalized(), origin=x.classes))
    row = flow.sample(x)
    if norm in ("L1", "L2"):
        return _of(flow, "normalizer", {"normType": norm}, row, node)
    if norm != "MAX":
        raise ConversionError(f"norm={norm!r}: MAX, L1 and L2 are possible")
    largest = flow.plain("ReduceMax", [row], None, axes=[-1], keepdims=1)
    zero, one = np.zeros((1, 1), _FLOAT32), np.ones((1, 1), _FLOAT32)
    divisor = flow.plain(
        "Where", [flow.plain("Equal", [largest, zero], None, "bool"), one, largest], None
    )
    return flow.plain("Div", [row, divisor], row.shape)


@op("Imputer")
def imputer(flow: Flow, node: Node, x: Held) -> Row:
    """Replaces what equals a value; NaN equals NaN here."""
    row = flow.sample(x)
    if row.dtype == "int32" or "imputed_value_int64s" in node.attrs:
        values = node.attrs.get("imputed_value_int64s")
        replaced = float(node.attrs.get("replaced_value_int64", 0))
    else:
        values = node.attrs.get("imputed_value_floats")
        replaced = float(node.attrs.get("replaced_value_float", 0.0))
    if not values:
        raise ConversionError("it has no replacement values of the input's type")
    filled = _each(values, row.size, "imputed_value")
    if row.dtype == "int32" and any(abs(value) >= 2**31 for value in filled):
        raise ConversionError("its integers do not fit into the 32 bits of Core ML's arrays")
    params: dict[str, Any] = {"replaceDoubleValue": replaced}
    if len(filled) == row.size:
        params["imputedDoubleArray"] = {"vector": filled}
    else:
        params["imputedDoubleValue"] = filled[0]
    output = flow.to_row(
        "imputer", params, row, f"{node.name}_imputer", row.size, row.dtype, row.shape
    )
    return output


@op("Binarizer")
def binarizer(flow: Flow, node: Node, x: Held) -> Pending:
    """1 above the threshold, else 0, by a network."""
    row = flow.sample(x)
    threshold = np.array(node.attrs.get("threshold", 0.0), _FLOAT32)
    above = flow.plain("Greater", [row, threshold], row.shape, "bool")
    return flow.plain("Cast", [above], row.shape, to=1)


@op("FeatureVectorizer")
def feature_vectorizer(flow: Flow, node: Node, *values: Held) -> Row | Cell | Parts:
    """Columns side by side."""
    parts: list[Row | Cell] = []
    for value in values:
        entry = value if isinstance(value, Row | Cell | Parts) else flow.sample(value)
        parts += pieces(entry)
    sizes = [
        size_of(value if isinstance(value, Row | Cell | Parts) else flow.row(value))
        for value in values
    ]
    declared = [int(n) for n in node.attrs.get("inputdimensions", sizes)]
    if declared != sizes:
        raise ConversionError(f"inputdimensions={declared}, and the inputs have {sizes} columns")
    return flow.row(joined(parts, (1, sum(sizes))))


@op("ArrayFeatureExtractor")
def array_feature_extractor(flow: Flow, node: Node, x: Held, indices: Held) -> Held:
    """The columns at constant indices; the label, if constants are indexed by the largest score.

    A network gathers numbers at other computed indices.
    """
    if isinstance(x, Known) and isinstance(indices, Pending):
        label = _label(flow, x, indices)
        if label is not None:
            return label
    if not isinstance(indices, Known):
        return _gathered(flow, x, indices)
    return columns_of(flow, x, column(indices.array), node)


def columns_of(flow: Flow, x: Held, indices: list[int], node: Node) -> Row | Cell | Parts:
    """Some columns of a sample, as [1, count]."""
    shape = (1, len(indices))
    if isinstance(x, Cell | Parts) and all(isinstance(part, Cell) for part in pieces(x)):
        parts = pieces(x)
        _check_range(indices, len(parts))
        return joined([parts[i] for i in indices], shape)
    row = flow.sample(x)
    _check_range(indices, row.size)
    params = {"extractIndex": [i % row.size for i in indices]}
    return flow.to_row(
        "arrayFeatureExtractor", params, row, f"{node.name}_columns", len(indices), row.dtype, shape
    )


def _check_range(indices: list[int], size: int) -> None:
    if not indices or not -size <= min(indices) <= max(indices) < size:
        raise ConversionError(f"it picks the columns {indices[:8]} of {size}")


def _gathered(flow: Flow, x: Held, indices: Held) -> Pending:
    row: Any = x.array if isinstance(x, Known) else flow.sample(x)
    dtype = "float32"
    if isinstance(x, Known):
        if row.dtype.kind not in "iuf":
            raise ConversionError("it picks a text at a computed index that is not an ArgMax")
        if row.size != row.shape[-1]:
            raise ConversionError("it picks columns of several rows of constants")
        dtype = "float32" if row.dtype.kind == "f" else "int64"
        row = row.reshape(1, -1)
    places = indices if isinstance(indices, Pending) else flow.row(indices)
    flat = flow.plain("Reshape", [places, np.array([-1], np.int64)], None, "int64")
    return flow.plain("Gather", [row, flat], None, dtype, axis=1)


def _label(flow: Flow, labels: Known, index: Pending) -> Label | None:
    """The label at the index of the largest score, which is what a classifier predicts.

    None if the index is computed otherwise, or the labels are not those of a classifier.
    """
    maker = flow.pending[index.name]
    while maker.op in ("Reshape", "Cast", "Identity", "Squeeze") and (
        maker.inputs[0].name in flow.pending
    ):
        maker = flow.pending[maker.inputs[0].name]
    if maker.op != "ArgMax":
        return None
    if maker.attrs.get("select_last_index", 0):
        raise ConversionError("it picks the last of equal scores; Core ML the first")
    scores = flow.values[maker.inputs[0].name]
    row = flow.row(scores)
    if maker.attrs.as_dict().get("axis", 0) not in (1, -1) or row.shape != (1, row.size):
        raise ConversionError(
            f"its ArgMax is not along the classes: scores of shape {list(row.shape)}, axis "
            f"{maker.attrs.as_dict().get('axis', 0)}"
        )
    names = np.asarray(labels.array).ravel()
    if names.dtype.kind == "f" and (names != np.round(names)).any():
        return None
    texts = names.dtype.kind in "OUS"
    listed: Any = [str(n) if texts else int(n) for n in names]
    return Label(flow.classes_of(scores, listed))


@op("DictVectorizer")
def dict_vectorizer(flow: Flow, node: Node, x: Held) -> Row:
    """A dictionary by index, which Core ML's model makes, turned into a row."""
    if not isinstance(x, Table):
        raise ConversionError("it does not read a dictionary that is an input of the model")
    texts = node.attrs.get("string_vocabulary")
    keys = texts or node.attrs.get("int64_vocabulary")
    if not keys:
        raise ConversionError("it has no vocabulary")
    table = Table(flow.fresh(f"{node.name}_places"), string_keys=False)
    params = {"stringToIndex" if texts else "int64ToIndex": {"vector": keys}}
    flow.add("dictVectorizer", params, [x], {table.feature: type_of(table)})
    columns = {"inputList": [{"inputColumn": table.feature, "inputDimensions": len(keys)}]}
    return flow.to_row("featureVectorizer", columns, table, f"{node.name}_row", len(keys))


@op("ZipMap")
def zip_map(flow: Flow, node: Node, x: Held) -> Zipped:
    """Scores as a dictionary."""
    labels = node.attrs.get("classlabels_strings") or node.attrs.get("classlabels_int64s")
    if not labels:
        raise ConversionError("it has no labels")
    if not isinstance(x, Scores | Row | Parts | Pending | Cell):
        raise ConversionError("it reads no scores")
    return Zipped(list(labels), x)
