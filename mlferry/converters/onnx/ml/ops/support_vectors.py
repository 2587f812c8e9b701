"""Support vector machines. ONNX adds rho, Core ML subtracts it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry import limits
from mlferry.converters.graph import Node
from mlferry.converters.onnx.ml.flow import Flow
from mlferry.converters.onnx.ml.ops.linear import glm, labels_of
from mlferry.converters.onnx.ml.ops.transforms import no_transform
from mlferry.converters.onnx.ml.registry import op
from mlferry.converters.onnx.ml.values import (
    Cell,
    Classes,
    Held,
    Label,
    Labels,
    Row,
    Scores,
    joined,
)
from mlferry.errors import ConversionError

_Matrix = NDArray[np.float64]


def _kernel(node: Node) -> dict[str, Any]:
    kind = node.attrs.get("kernel_type", "LINEAR")
    params = [float(p) for p in node.attrs.get("kernel_params", ())]
    if kind == "LINEAR":
        return {"linearKernel": {}}
    if len(params) != 3:
        raise ConversionError(f"kernel_params={params}: there are gamma, coef0 and degree")
    gamma, c, degree = params
    if gamma < 0:
        raise ConversionError(f"gamma={gamma} of its kernel; the smallest in Core ML is 0")
    if kind == "RBF":
        return {"rbfKernel": {"gamma": gamma}}
    if kind == "SIGMOID":
        return {"sigmoidKernel": {"gamma": gamma, "c": c}}
    if kind != "POLY":
        raise ConversionError(f"kernel_type={kind!r}: LINEAR, RBF, POLY and SIGMOID are possible")
    if degree != int(degree) or degree < 0:
        raise ConversionError(f"degree={degree} of its kernel; Core ML has whole ones from 0")
    return {"polyKernel": {"gamma": gamma, "c": c, "degree": int(degree)}}


def _vectors(node: Node, count: int, row: Row) -> _Matrix:
    result = np.array(node.attrs.get("support_vectors", ()), np.float64)
    if result.size != count * row.size:
        raise ConversionError(
            f"{result.size} numbers of support vectors for {count} of {row.size} columns"
        )
    return result.reshape(count, row.size)


def _dense(vectors: _Matrix) -> dict[str, Any]:
    return {"vectors": [{"values": vector} for vector in vectors.tolist()]}


@op("SVMRegressor")
def svm_regressor(flow: Flow, node: Node, x: Held) -> Cell:
    """Without support vectors it is a linear model."""
    row = flow.sample(x)
    no_transform(node)
    if node.attrs.get("one_class", 0):
        raise ConversionError(
            "one_class=1 gives the sign of the score; take the score itself, with one_class=0"
        )
    coefficients = np.array(node.attrs.get("coefficients", ()), np.float64)
    rho = [float(value) for value in node.attrs.get("rho", ())]
    if len(rho) != 1:
        raise ConversionError(f"it has {len(rho)} values of rho; there is one")
    count, kernel = int(node.attrs.get("n_supports", 0)), _kernel(node)
    name = f"{node.name}_value"
    if count == 0:
        node.attrs.get("support_vectors")
        if coefficients.size != row.size:
            raise ConversionError(f"{coefficients.size} coefficients for {row.size} columns")
        return flow.to_cell(
            "glmRegressor", glm(coefficients[None], np.array(rho)), row, name, "double"
        )
    if coefficients.size != count:
        raise ConversionError(f"{coefficients.size} coefficients for {count} support vectors")
    params = {
        "kernel": kernel,
        "rho": -rho[0],
        "coefficients": {"alpha": coefficients.tolist()},
        "denseSupportVectors": _dense(_vectors(node, count, row)),
    }
    return flow.to_cell("supportVectorRegressor", params, row, name, "double")


@op("SVMClassifier")
def svm_classifier(flow: Flow, node: Node, x: Held) -> tuple[Label, Held]:
    """The label is chosen by votes, as in onnxruntime; a second machine gives probabilities.

    Without probabilities, the scores are the decisions between pairs: a regressor for each.
    """
    row = flow.sample(x)
    labels = labels_of(node, "classlabels_strings", "classlabels_ints")
    counts = [int(n) for n in node.attrs.get("vectors_per_class", ())]
    no_transform(node)
    if not sum(counts):
        raise ConversionError("it has no support vectors; write it as a LinearClassifier")
    vectors, kernel = _vectors(node, sum(counts), row), _kernel(node)
    coefficients = np.array(node.attrs.get("coefficients", ()), np.float64)
    rho = [float(value) for value in node.attrs.get("rho", ())]
    count = len(labels) * (len(labels) - 1) // 2
    prob_a, prob_b = (list(node.attrs.get(name) or ()) for name in ("prob_a", "prob_b"))
    if (
        len(labels) < 2
        or len(counts) != len(labels)
        or min(counts) < 0
        or coefficients.size != (len(labels) - 1) * sum(counts)
        or len(rho) != count
        or {len(prob_a), len(prob_b)} not in ({0}, {count})
    ):
        raise ConversionError(
            "the numbers of its classes, vectors, coefficients and rho do not fit"
        )
    rows = coefficients.reshape(len(labels) - 1, sum(counts))
    params = {
        "kernel": kernel,
        "numberOfSupportVectorsPerClass": counts,
        "denseSupportVectors": _dense(vectors),
        "rho": [-value for value in rho],
        "coefficients": [{"alpha": alpha} for alpha in rows.tolist()],
    }

    def add_label(labels: Labels, label: str) -> None:
        flow.add_classifier("supportVectorClassifier", params, row, labels, label)

    def add_scores(labels: Labels, label: str, scores: str) -> None:
        flow.add_classifier(
            "supportVectorClassifier",
            {**params, "probA": prob_a, "probB": prob_b},
            row,
            labels,
            label,
            scores,
        )

    if prob_a:
        classes = Classes(
            labels,
            add_label,
            lambda: flow.scores_of(add_scores, len(labels), node.name),
            add_scores=add_scores,
            is_distribution=True,
        )
        return Label(classes), Scores(classes)
    classes = Classes(labels, add_label, lambda: flow.row(decisions))
    pairs = itertools.combinations(range(len(labels)), 2)
    limits.check("weights", 8 * (len(labels) - 1) * vectors.size, "its pairs of classes take:")
    starts = [0, *itertools.accumulate(counts)]
    cells = []
    for (i, j), offset in zip(pairs, rho, strict=True):
        of_i, of_j = (slice(starts[k], starts[k + 1]) for k in (i, j))
        pair = {
            "kernel": kernel,
            "rho": -offset,
            "coefficients": {"alpha": [*rows[j - 1, of_i].tolist(), *rows[i, of_j].tolist()]},
            "denseSupportVectors": _dense(np.concatenate([vectors[of_i], vectors[of_j]])),
        }
        name = f"{node.name}_decision_{i}_{j}"
        cells.append(flow.to_cell("supportVectorRegressor", pair, row, name, "double"))
    decisions: Held = joined(cells, (1, len(cells)))
    if len(labels) == 2:  # onnxruntime: that of the first class with the other sign, then as it is
        first = flow.plain("Neg", [decisions], (1, 1))
        decisions = flow.plain("Concat", [first, decisions], (1, 2), axis=1)
    return Label(classes), decisions
