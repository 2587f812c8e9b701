"""Reads files with TensorFlow, in a process of its own (`mlferry.converters.worker`)."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow  # noqa: F401 # loaded before memory is limited

from mlferry import limits
from mlferry.converters.tensorflow import handover, loading, read
from mlferry.converters.tensorflow.evaluation import Arrays, OperationDescription
from mlferry.errors import MlferryError

Answer = list[bytes | memoryview]


def load() -> None:
    """Nothing to do: this module has already loaded TensorFlow."""


def _read(request: Mapping[str, Any]) -> Answer:
    """The graph of a file, the names of its features, and its arrays."""
    arguments = pickle.loads(base64.b64decode(request["arguments"]))  # written by our own process
    name = request["name"]
    try:
        with limits.changed(**request["limits"]):
            frozen = loading.frozen_message(request["path"], name, **arguments)
            function, tensors = loading.imported(frozen, name), frozen.names
            del frozen  # a copy of the weights
            graph, names = read.read_function(function, name, tensors, is_file=True)
    except MlferryError as error:
        return [json.dumps({"error": _described(error)}).encode()]
    parts: handover.Parts = []
    fields = {"graph": handover.graph_to_json(graph, parts), "names": vars(names)}
    return [json.dumps(fields).encode(), *parts]


def _described(error: MlferryError) -> dict[str, Any]:
    return {
        "kind": type(error).__name__,
        "message": str(error),
        "limit": getattr(error, "limit", ""),
        "enough": getattr(error, "enough", None),
    }


def _operands(
    request: Mapping[str, Any], parts: tuple[bytes, ...]
) -> tuple[OperationDescription, Arrays]:
    arrays = [handover.array_from_json(array, parts) for array in request["arrays"]]
    return OperationDescription.from_json(request["operation"]), arrays


def _size(request: Mapping[str, Any], *parts: bytes) -> Answer:
    """The bytes of an operation's result."""
    operation, arrays = _operands(request, parts)
    try:
        size = operation.operation(arrays).size(arrays)
    except Exception:
        size = None  # computing it will fail in the same way
    return [json.dumps({"size": size}).encode()]


def _compute(request: Mapping[str, Any], *parts: bytes) -> Answer:
    """The results of an operation for known operands, or nothing if they cannot be computed."""
    operation, arrays = _operands(request, parts)
    try:
        outputs = operation.operation(arrays).result(arrays)
    except Exception:
        outputs = None  # operations that TensorFlow cannot compute alone are converted
    results: handover.Parts = []
    described = None if outputs is None else [handover.array_to_json(a, results) for a in outputs]
    return [json.dumps({"arrays": described}).encode(), *results]


CALLS: dict[str, Callable[..., Answer]] = {"read": _read, "size": _size, "compute": _compute}
