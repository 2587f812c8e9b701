"""Categories: one-hot encoding, and maps between texts and integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.onnx.ml.flow import Flow
from mlferry.converters.onnx.ml.registry import op
from mlferry.converters.onnx.ml.values import Cell, Held, Parts, Row, joined, pieces
from mlferry.errors import ConversionError


@op("OneHotEncoder")
def one_hot_encoder(flow: Flow, node: Node, x: Held) -> Row | Cell | Parts:
    """One model for each column; floats lose their fraction, as ONNX says."""
    texts = node.attrs.get("cats_strings")
    categories = texts or node.attrs.get("cats_int64s")
    if not categories:
        raise ConversionError("it has no categories")
    _check_once(categories)
    unknown = "IgnoreUnknown" if node.attrs.get("zeros", 1) else "ErrorOnUnknown"
    params = {
        "stringCategories" if texts else "int64Categories": {"vector": list(categories)},
        "handleUnknown": unknown,
    }
    if not isinstance(x, Cell | Parts) or _has_floats(x):
        x = flow.row(x)
        if x.dtype != "int32":
            x = flow.row(flow.plain("Cast", [x], x.shape, "int64", to=7))
    cells, shape = _typed(flow.cells(x), "string" if texts else "int64"), x.shape
    size = len(categories)
    parts = [
        flow.to_row("oneHotEncoder", params, cell, f"{node.name}_encoded", size) for cell in cells
    ]
    return joined(parts, (*shape, size))


def _has_floats(x: Cell | Parts) -> bool:
    return any(isinstance(part, Row) and part.dtype != "int32" for part in pieces(x))


def _typed(cells: Sequence[Cell], kind: str) -> Sequence[Cell]:
    for cell in cells:
        if cell.kind != kind:
            raise ConversionError(f"its input is {cell.kind}, and its categories are {kind}")
    return cells


# ---- maps ------------------------------------------------------------------------------

_KEYS = {"keys_strings": "string", "keys_int64s": "int64", "keys_floats": "float"}
_VALUES = {
    "values_strings": ("string", "default_string", "_Unused"),
    "values_int64s": ("int64", "default_int64", -1),
    "values_floats": ("float", "default_float", -0.0),
}


@op("LabelEncoder")
def label_encoder(flow: Flow, node: Node, x: Held) -> Held:
    """One value for each key, and another for everything else."""
    if "classes_strings" in node.attrs:
        texts = list(node.attrs["classes_strings"])
        numbers = list(range(len(texts)))
        _check_once(texts)
        if _is_text(x):
            default = node.attrs.get("default_int64", -1)
            node.attrs.get("default_string")
            return _mapped(flow, node, x, dict(zip(texts, numbers, strict=True)), default)
        node.attrs.get("default_int64")
        default = node.attrs.get("default_string", "_Unused")
        return _mapped(flow, node, x, dict(zip(numbers, texts, strict=True)), default)
    keys, key_kind = _listed(node, "keys", _KEYS)
    values, value_kind = _listed(node, "values", {n: v[0] for n, v in _VALUES.items()})
    if len(keys) != len(values):
        raise ConversionError(f"{len(keys)} keys for {len(values)} values")
    _check_once(keys)
    table = dict(zip(keys, values, strict=True))
    default = _default(node, value_kind)
    kinds = {"string": str, "int64": int, "float": float}
    if key_kind == "float":
        return _of_floats(flow, node, x, keys, values, kinds[value_kind](default))
    return _mapped(flow, node, x, table, kinds[value_kind](default))


def _check_once(keys: Sequence[Any]) -> None:
    """Refuse a key that appears twice: ONNX takes its last value, onnxruntime the first."""
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if list(keys).count(key) > 1)
        raise ConversionError(f"the key {twice!r} appears twice: runtimes do not agree on it")


def _listed(node: Node, prefix: str, names: Mapping[str, str]) -> tuple[list[Any], str]:
    for name, kind in names.items():
        if name in node.attrs:
            return list(node.attrs[name]), kind
    tensor = node.attrs.get(f"{prefix}_tensor")
    if tensor is not None:
        array = np.asarray(tensor).ravel()
        kind = (
            "string"
            if array.dtype.kind in "OUS"
            else ("float" if array.dtype.kind == "f" else "int64")
        )
        if kind in names.values():
            texts = [v.decode() if isinstance(v, bytes) else str(v) for v in array]
            return texts if kind == "string" else array.tolist(), kind
    raise ConversionError(f"it has no {' or '.join(names)}: ONNX has no others")


def _default(node: Node, kind: str) -> object:
    result: Any = None
    for own_kind, name, default in _VALUES.values():
        value = node.attrs.get(name, default)
        if own_kind == kind:
            result = value
    tensor = node.attrs.get("default_tensor")
    if tensor is not None:
        value = np.asarray(tensor).ravel()[0]
        return value.decode() if isinstance(value, bytes) else value
    return result


@op("CategoryMapper")
def category_mapper(flow: Flow, node: Node, x: Held) -> Row | Cell | Parts:
    """Maps texts to integers, or integers to texts."""
    texts, numbers = node.attrs.get("cats_strings"), node.attrs.get("cats_int64s")
    if not texts or not numbers or len(texts) != len(numbers):
        raise ConversionError("the numbers of its texts and integers differ")
    _check_once(texts if _is_text(x) else numbers)
    to_text = node.attrs.get("default_string", "_Unused")
    to_number = node.attrs.get("default_int64", -1)
    if _is_text(x):
        return _mapped(flow, node, x, dict(zip(texts, numbers, strict=True)), to_number)
    return _mapped(flow, node, x, dict(zip(numbers, texts, strict=True)), to_text)


def _is_text(x: Held) -> bool:
    return isinstance(x, Cell | Parts) and any(
        isinstance(part, Cell) and part.kind == "string" for part in pieces(x)
    )


def _mapped(
    flow: Flow, node: Node, x: Held, table: Mapping[Any, Any], default: float | str | None
) -> Row | Cell | Parts:
    """Map every value: by one model from texts to integers or back, by several otherwise."""
    key_kind = "string" if isinstance(next(iter(table), ""), str) else "int64"
    value_kind = {str: "string", int: "int64", float: "float"}[type(default)]
    through = _STEPS[key_kind, value_kind]
    cells = _typed(flow.cells(x), key_kind)
    parts = [through(flow, cell, table, default, node.name) for cell in cells]
    shape = x.shape if isinstance(x, Cell | Parts | Row) else (1, len(cells))
    return joined(parts, shape)


def _of_floats(
    flow: Flow,
    node: Node,
    x: Held,
    keys: Sequence[float],
    values: Sequence[Any],
    default: float | str | None,
) -> Held:
    """The index of the key that equals a float, by a network; NaN equals NaN here."""
    rounded = np.array(keys, np.float32)
    _check_once([str(key) for key in rounded.tolist()])
    row = flow.row(x)
    wide = (*row.shape, len(keys))
    column_of_row = flow.plain("Reshape", [row, np.array((*row.shape, 1))], (*row.shape, 1))
    same = flow.plain("Equal", [column_of_row, rounded], wide, "bool")
    if np.isnan(rounded).any():
        missing = flow.plain("IsNaN", [column_of_row], (*row.shape, 1), "bool")
        lost = flow.plain("And", [missing, np.isnan(rounded)], wide, "bool")
        same = flow.plain("Or", [same, lost], wide, "bool")
    result = flow.plain("Cast", [same], wide, to=1)
    numbers = np.arange(len(keys)) if isinstance(default, str) else np.array(values)
    other = float(len(keys)) if isinstance(default, str) else default
    if not np.isfinite([*numbers, other]).all():
        raise ConversionError("its values are not finite")
    if isinstance(default, int) and max(map(abs, [*values, default])) >= _EXACT:
        raise ConversionError("its values are integers above 2**24, which float32 cannot hold")
    column = numbers.astype(np.float32)[:, None]
    picked = flow.plain("MatMul", [result, column], column_of_row.shape)
    known = flow.plain("ReduceMax", [result], column_of_row.shape, axes=[-1], keepdims=1)
    unknown = flow.plain("Sub", [np.ones(1, np.float32), known], column_of_row.shape)
    rest = flow.plain("Mul", [unknown, np.array([other], np.float32)], column_of_row.shape)
    both = flow.plain("Add", [picked, rest], column_of_row.shape)
    output = flow.plain("Reshape", [both, np.array(row.shape)], row.shape)
    if isinstance(default, float):
        return output
    whole = flow.row(flow.plain("Cast", [output], row.shape, "int64", to=7))
    if isinstance(default, int):
        return whole
    return _mapped(flow, node, whole, dict(enumerate(values)), default)


_EXACT = 2**24

_Step = Callable[[Flow, Cell, Mapping[Any, Any], Any, str], Row | Cell]


def _to_number(flow: Flow, cell: Cell, table: Mapping[Any, Any], default: float, name: str) -> Cell:
    params = {"stringToInt64Map": {"map": dict(table)}, "int64Value": int(default)}
    return flow.to_cell("categoricalMapping", params, cell, f"{name}_number", "int64")


def _to_text(flow: Flow, cell: Cell, table: Mapping[Any, Any], default: str, name: str) -> Cell:
    params = {"int64ToStringMap": {"map": dict(table)}, "strValue": default}
    return flow.to_cell("categoricalMapping", params, cell, f"{name}_text", "string")


def _text_to_text(
    flow: Flow, cell: Cell, table: Mapping[Any, Any], default: str, name: str
) -> Cell:
    place = _to_number(flow, cell, {key: i for i, key in enumerate(table)}, -1, name)
    return _to_text(flow, place, dict(enumerate(table.values())), default, name)


def _number_to_number(
    flow: Flow, cell: Cell, table: Mapping[Any, Any], default: float, name: str
) -> Cell:
    text = _to_text(flow, cell, {key: str(key) for key in table}, "", name)
    return _to_number(flow, text, {str(key): v for key, v in table.items()}, default, name)


def _to_float(flow: Flow, cell: Cell, table: Mapping[Any, Any], default: float, name: str) -> Cell:
    """The index of the key, one-hot encoded, multiplied by the weights of a linear model."""
    places = {key: i for i, key in enumerate(table)}
    by_text = cell.kind == "string"
    place = (_to_number if by_text else _number_to_number)(flow, cell, places, len(places), name)
    size = len(places) + 1
    encoded = flow.to_row(
        "oneHotEncoder",
        {"int64Categories": {"vector": range(size)}},
        place,
        f"{name}_encoded",
        size,
    )
    weights = [float(np.float32(v)) for v in (*table.values(), default)]
    if not np.isfinite(weights).all():
        raise ConversionError("its values are not finite")
    params = {"weights": [{"value": weights}], "offset": [0.0]}
    return flow.to_cell("glmRegressor", params, encoded, f"{name}_value", "double")


_STEPS: Mapping[tuple[str, str], _Step] = {
    ("string", "int64"): _to_number,
    ("int64", "string"): _to_text,
    ("string", "string"): _text_to_text,
    ("int64", "int64"): _number_to_number,
    ("string", "float"): _to_float,
    ("int64", "float"): _to_float,
}
