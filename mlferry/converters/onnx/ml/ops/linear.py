"""Linear models."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.graph import Node
from mlferry.converters.onnx.ml.flow import Flow
from mlferry.converters.onnx.ml.ops.transforms import (
    no_transform,
    refused_transform,
    transform_of,
    transformed,
)
from mlferry.converters.onnx.ml.registry import op
from mlferry.converters.onnx.ml.values import (
    Cell,
    Classes,
    Held,
    Label,
    Labels,
    Pending,
    Row,
    Scores,
)
from mlferry.errors import ConversionError

_Matrix = NDArray[np.float64]
_DIFFERS_WELL = 1e6  # below it the difference of two scores keeps the digits of float32


def glm(weights: _Matrix, offsets: NDArray[np.float64], **options: str) -> dict[str, Any]:
    """The parameters of a generalized linear model."""
    return {
        "weights": [{"value": row} for row in weights.tolist()],
        "offset": offsets.tolist(),
        **options,
    }


def labels_of(node: Node, strings: str, integers: str) -> Labels:
    """The labels of a classifier.

    Raises:
        ConversionError: there are none, or one appears twice.
    """
    texts, numbers = node.attrs.get(strings), node.attrs.get(integers)
    labels: Any = list(texts or numbers or ())
    if not labels:
        raise ConversionError(f"it has neither {strings} nor {integers}")
    if len(labels) < 2:
        raise ConversionError(f"it has one class, {labels[0]!r}; a classifier needs two or more")
    if len(set(labels)) < len(labels):
        raise ConversionError(f"a label appears twice: {labels[:10]}")
    return labels  # type: ignore[no-any-return] # lists of attributes


def _linear(flow: Flow, row: Row, weights: _Matrix, offsets: NDArray[np.float64]) -> Pending:
    """The scores as a network, [1, K]."""
    matrix, bias = weights.T.astype(np.float32), offsets.astype(np.float32)[None]
    shape = (1, len(offsets))
    return flow.plain(
        "Add", [flow.plain("MatMul", [_as_matrix(flow, row), matrix], shape), bias], shape
    )


def _as_matrix(flow: Flow, row: Row) -> Held:
    if row.shape == (1, row.size):
        return row
    return flow.plain("Reshape", [row, np.array([1, row.size], np.int64)], (1, row.size))


def _table(node: Node, count: int, row: Row) -> _Matrix:
    result = np.array(node.attrs.get("coefficients", ()), np.float64)
    if result.size != count * row.size:
        raise ConversionError(
            f"{result.size} coefficients for {count} scores of {row.size} columns"
        )
    return result.reshape(count, row.size)


@op("LinearRegressor")
def linear_regressor(flow: Flow, node: Node, x: Held) -> Cell | Pending:
    """One target by Core ML's linear model, which has one output; several by a network."""
    row = flow.sample(x)
    targets = int(node.attrs.get("targets", 1))
    if targets < 1:
        raise ConversionError(f"targets={targets}")
    weights = _table(node, targets, row)
    offsets = np.array(node.attrs.get("intercepts") or [0.0] * targets, np.float64)
    if offsets.size != targets:
        raise ConversionError(f"{offsets.size} intercepts for {targets} targets")
    no_transform(node)
    if targets == 1:
        return flow.to_cell(
            "glmRegressor", glm(weights, offsets), row, f"{node.name}_value", "double"
        )
    return _linear(flow, row, weights, offsets)


@op("LinearClassifier")
def linear_classifier(flow: Flow, node: Node, x: Held) -> tuple[Label, Scores]:
    """The class with the largest score, which no transform changes."""
    row = flow.sample(x)
    labels = labels_of(node, "classlabels_strings", "classlabels_ints")
    offsets = np.array(node.attrs.get("intercepts", ()), np.float64)
    weights = _table(node, offsets.size, row)
    node.attrs.get("multi_class")
    transform = transform_of(node)
    if offsets.size != len(labels) and (offsets.size, len(labels)) != (1, 2):
        raise ConversionError(f"{offsets.size} intercepts for {len(labels)} classes")
    if transform == "PROBIT" and offsets.size == 1:
        raise refused_transform(node, transform)
    classes = _classes(flow, node, row, labels, weights, offsets, transform)
    return Label(classes), Scores(classes)


def _classes(
    flow: Flow,
    node: Node,
    row: Row,
    labels: Labels,
    weights: _Matrix,
    offsets: NDArray[np.float64],
    transform: str,
) -> Classes:
    def model(weights: _Matrix, offsets: NDArray[np.float64], **options: str) -> Classes:
        params = glm(weights, offsets, **options)
        return flow.classifier(node, "glmClassifier", params, row, labels, is_distribution=True)

    is_mirrored = (
        len(offsets) == 2
        and np.array_equal(weights[0], -weights[1])
        and (offsets[0] == -offsets[1])
    )
    if transform == "LOGISTIC" and (is_mirrored or len(offsets) == 1):
        return model(weights[-1:], offsets[-1:])
    largest = max(np.abs(weights).max(initial=0), np.abs(offsets).max())
    if transform == "SOFTMAX" and len(offsets) > 1 and largest < _DIFFERS_WELL:
        return model(weights[1:] - weights[0], offsets[1:] - offsets[0])
    raw = _linear(flow, row, weights, offsets)
    if len(offsets) == 1:  # onnxruntime: 1 - score and score, and the second class above 0
        one = np.ones((1, 1), np.float32)
        both = flow.plain("Concat", [flow.plain("Sub", [one, raw], (1, 1)), raw], (1, 2), axis=1)
        sign = model(weights, offsets)
        return Classes(labels, sign.add_label, lambda: flow.row(both))
    if transform == "NONE":
        return flow.chosen(raw, labels)

    def normalized() -> Classes:
        return model(weights, offsets, classEncoding="OneVsRest")

    chances = transformed(flow, raw, len(labels), transform)
    return Classes(
        labels,
        lambda labels, label: flow.add_choice(flow.row(raw), labels, label),
        lambda: flow.row(chances),
        is_distribution=transform == "SOFTMAX",
        normalized=normalized if transform == "LOGISTIC" and len(labels) > 2 else None,
    )
