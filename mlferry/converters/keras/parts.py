"""Layers inside layers: cells, wrapped layers, the projections of an attention.

The keys are the folders in which a `.keras` file keeps the arrays of a part, in the order in which
Keras lists the weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Entries = dict[str, Mapping[str, Any]]


def _wrapped(config: Mapping[str, Any]) -> Entries:
    return {"layer": config["layer"]}


def _bidirectional(config: Mapping[str, Any]) -> Entries:
    forward = config["layer"]
    inner = dict(forward["config"])
    backward = {
        **forward,
        "config": {**inner, "go_backwards": not inner.get("go_backwards", False)},
    }
    return {"forward_layer": forward, "backward_layer": config.get("backward_layer") or backward}


def _stacked(config: Mapping[str, Any]) -> Entries:
    used: dict[str, int] = {}
    entries: Entries = {}
    for cell in config["cells"]:
        label = snake_case(str(cell["class_name"]).rsplit(">", 1)[-1])
        used[label] = used.get(label, -1) + 1
        entries[f"cells/{label}_{used[label]}" if used[label] else f"cells/{label}"] = cell
    return entries


def _projections(config: Mapping[str, Any]) -> Entries:
    inner = {"bias_axes": "any" if config.get("use_bias", True) else None}
    names = ["query", "key", "value", "output"]
    if config.get("use_gate"):
        names.insert(2, "gate")
    return {
        f"{name}_dense": {"class_name": "EinsumDense", "config": {**inner, "name": name}}
        for name in names
    }


def _pipeline(config: Mapping[str, Any]) -> Entries:
    return {f"layers/{index}": layer for index, layer in enumerate(config["layers"])}


PARTS: dict[str, Callable[[Mapping[str, Any]], Entries]] = {
    "TimeDistributed": _wrapped,
    "SpectralNormalization": _wrapped,
    "Bidirectional": _bidirectional,
    "RNN": lambda config: {"cell": config["cell"]},
    "StackedRNNCells": _stacked,
    "Pipeline": _pipeline,
    "MultiHeadAttention": _projections,
    "GroupedQueryAttention": _projections,
}

# Layers that run a loop over a cell with the layer's own options.
CELLS = {
    "SimpleRNN": "SimpleRNNCell",
    "LSTM": "LSTMCell",
    "GRU": "GRUCell",
    "ConvLSTM1D": "ConvLSTMCell",
    "ConvLSTM2D": "ConvLSTMCell",
    "ConvLSTM3D": "ConvLSTMCell",
}


def snake_case(name: str) -> str:
    """Keras's own rule for turning class names into folder names."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
