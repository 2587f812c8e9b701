"""Weights that Keras keeps quantized (`model.quantize`), and the values they represent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.graph import Node
from mlferry.errors import ConversionError, ModelFileError
from mlferry.numerics.shapes import Array
from mlferry.spec.weights import Linear

_ADDED = {"": (), "int8": ("scale",), "int4": ("scale", "zero", "g_idx")}


def policy(config: Mapping[str, Any]) -> str:
    """The mode of a layer's dtype policy with its details, e.g. "int4/128", or ""."""
    dtype = config.get("dtype")
    inner = dtype.get("config") if isinstance(dtype, Mapping) else None
    match = inner.get("mode") if isinstance(inner, Mapping) else None
    return str(match or "")


def mode(config: Mapping[str, Any]) -> str:
    """How a layer keeps its weight: "int8", "int4", ..., or ""."""
    return policy(config).split("/", maxsplit=1)[0]


def names(config: Mapping[str, Any], weight: str) -> list[str]:
    """The arrays that quantization adds to a layer whose weight has this name.

    Raises:
        ModelFileError: the layer is quantized in an unknown way.
    """
    result = mode(config)
    if result not in _ADDED:
        raise ModelFileError(
            f"layer {config.get('name')!r} is quantized as {result!r}; int8 and int4 can be read"
        )
    suffixes = _ADDED[result][:1] if policy(config) == "int4/-1" else _ADDED[result]
    return [name if name == "g_idx" else f"{weight}_{name}" for name in suffixes]


def is_fixed(config: Mapping[str, Any], name: str) -> bool:
    """Whether quantization makes an array untrained."""
    return bool(mode(config)) and name != "bias"


def recognize(config: dict[str, Any], arrays: Sequence[Array], plain: int) -> None:
    """Derive the mode of a part from its arrays if its own config does not say it.

    Args:
        arrays: what it keeps.
        plain: how many arrays it has without quantization.
    """
    if mode(config) or not arrays or arrays[0].dtype != np.int8:
        return
    match = {len(kinds): name for name, kinds in _ADDED.items()}.get(len(arrays) - plain)
    if match:
        config["dtype"] = {"config": {"mode": match}}


@dataclass(frozen=True)
class QuantizedMatrix:
    """A matrix [n, m] of a layer, and how it is stored.

    Attributes:
        floats: what it stands for.
        parts: for each run of rows the quantized [m, rows] with its first and last row.
    """

    floats: NDArray[np.float32]
    parts: tuple[tuple[int, int, Linear], ...] = ()


def codes_of(node: Node, name: str, columns: int) -> NDArray[np.int64]:
    """The integers of a weight [..., columns]; a byte holds two of 4 bits, the lower first."""
    packed = node.weights[name]
    if mode(node.get_config()) != "int4":
        return packed.astype(np.int64)
    octets = packed.view(np.uint8)
    pairs = np.stack([octets & 15, octets >> 4], axis=-1).astype(np.int64)
    flat = pairs.reshape(*packed.shape[:-1], -1)[..., :columns]
    return np.where(flat > 7, flat - 16, flat)


def groups_of(node: Node, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and zero point of each group: ``(codes - zero) * scale``, [groups, ...]."""
    scale = node.weight(f"{name}_scale")
    if f"{name}_zero" not in node.weights:
        return np.reciprocal(scale), np.zeros_like(scale)
    return scale, node.weight(f"{name}_zero")


def matrix(node: Node, rows: int, columns: int, name: str = "kernel") -> QuantizedMatrix:
    """The weight of a layer as a matrix.

    Raises:
        ConversionError: it has another size, or groups that are not contiguous.
    """
    kind = mode(node.get_config())
    if not kind:
        array = node.weight(name)
        if array.size != rows * columns:
            raise ConversionError(
                f"weight {name!r} has shape {array.shape}; the layer's config asks for "
                f"{rows} x {columns}"
            )
        return QuantizedMatrix(array.reshape(rows, columns))
    codes = codes_of(node, name, columns).reshape(rows, columns)
    scale, zero = groups_of(node, name)
    grouped = f"{name}_zero" in node.weights
    scale, zero = (v.reshape(-1, columns) if grouped else v.reshape(1, -1) for v in (scale, zero))
    if scale.shape[1] != columns:
        raise ConversionError(f"{scale.shape[1]} scales for {columns} columns of {name!r}")
    owner = node.weight("g_idx").astype(int) if grouped else np.zeros(rows, int)
    if len(owner) != rows or (np.diff(owner) < 0).any():
        raise ConversionError(f"the groups of {name!r} are not contiguous")
    floats = ((codes - zero[owner]) * scale[owner]).astype(np.float32)
    bits = 8 if kind == "int8" else 4
    offset = 1 << (bits - 1)
    parts = []
    for group in np.unique(owner):
        places = np.flatnonzero(owner == group)
        first, last = int(places[0]), int(places[-1]) + 1
        stored = np.ascontiguousarray(codes[first:last].T + offset).astype(np.uint8)
        shift = -(offset + zero[group]) * scale[group]
        parts.append((first, last, Linear(stored, bits, scale[group], shift)))
    return QuantizedMatrix(floats, tuple(parts))
