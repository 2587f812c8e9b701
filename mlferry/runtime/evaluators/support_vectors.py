"""Support vector machines, as libsvm computes them: Core ML's format is libsvm's.

The kernels are those of the format's own comments. The decision of class i against class j, i
before j, is ``sum(coefficient * kernel(vector, x)) - rho`` over the vectors of both: those of i
have their coefficients in row j - 1, those of j in row i. Pairs are in the order (0, 1), (0, 2),
..., (1, 2), ...
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import PredictionError, SpecError
from mlferry.runtime.evaluators.network import classify
from mlferry.runtime.evaluators.predictors import NO_NUMBER, Vector, logistic, regressor, row
from mlferry.runtime.evaluators.registry import CustomClasses, Evaluator, checked, evaluator
from mlferry.spec.networks import class_labels
from mlferry.spec.proto import model_pb2, predictors_pb2 as pp

Table = NDArray[np.float64]
Kernel = Callable[[Table, Vector], Vector]


# ---- kernels ---------------------------------------------------------------------------


def kernel_of(params: pp.Kernel) -> Kernel:
    """The kernel of every row of a table with a vector.

    Raises:
        SpecError: none is set.
    """
    kind = params.WhichOneof("kernel")
    if kind == "linearKernel":
        return lambda table, x: table @ x
    if kind == "rbfKernel":
        gamma = params.rbfKernel.gamma
        return lambda table, x: np.exp(-gamma * np.square(table - x).sum(axis=1))
    if kind == "polyKernel":
        poly = params.polyKernel
        return lambda table, x: (poly.gamma * (table @ x) + poly.c) ** float(poly.degree)
    if kind == "sigmoidKernel":
        sigmoid = params.sigmoidKernel
        return lambda table, x: np.tanh(sigmoid.gamma * (table @ x) + sigmoid.c)
    raise SpecError("a support vector machine has a kernel: linear, RBF, polynomial or sigmoid")


_AT_ONCE = 1 << 20  # numbers of a sparse vector that is stored dense


class SupportVectors:
    """The vectors of a machine, dense or sparse, and their kernel with an input.

    Sparse vectors have the values of some elements, counted from 1 as in libsvm; the others
    are 0.

    Raises:
        SpecError: dense vectors differ in length, or a sparse one has an element below 1 or one
            of them twice.
    """

    def __init__(self, params: pp.SupportVectorClassifier | pp.SupportVectorRegressor) -> None:
        self._kernel = kernel_of(params.kernel)
        self._dense: Table | None = None
        self._sparse: list[tuple[NDArray[np.int64], Vector]] = []
        if params.WhichOneof("supportVectors") == "denseSupportVectors":
            rows = [np.array(v.values, np.float64) for v in params.denseSupportVectors.vectors]
            if len({vector.size for vector in rows}) > 1:
                raise SpecError("support vectors are of several lengths")
            self._dense = np.stack(rows) if rows else np.zeros((0, 0))
            self._size = self._dense.shape[1]
        else:
            self._sparse = [_sparse(v) for v in params.sparseSupportVectors.vectors]
            self._size = max((int(at.max(initial=-1)) + 1 for at, _ in self._sparse), default=0)

    def __len__(self) -> int:
        return len(self._sparse) if self._dense is None else len(self._dense)

    def kernels(self, x: Vector) -> Vector:
        """The kernel of every support vector with an input."""
        fits = self._size <= x.size if self._dense is None else self._size == x.size
        if len(self) and not fits:
            raise PredictionError(
                f"the inputs have {x.size} values together, the support vectors {self._size}"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            if self._dense is not None:
                return self._kernel(self._dense, x) if len(self) else np.zeros(0)
            count = max(1, _AT_ONCE // max(1, x.size))
            parts = [
                self._kernel(self._written_out(start, count, x.size), x)
                for start in range(0, len(self), count)
            ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _written_out(self, start: int, count: int, size: int) -> Table:
        rows = self._sparse[start : start + count]
        table = np.zeros((len(rows), size))
        for line, (places, values) in zip(table, rows, strict=True):
            line[places] = values
        return table


def _sparse(vector: pp.SparseVector) -> tuple[NDArray[np.int64], Vector]:
    places = np.array([node.index for node in vector.nodes], np.int64) - 1
    if places.min(initial=0) < 0:
        raise SpecError(f"a sparse vector has an element {places.min() + 1}; they count from 1")
    if np.unique(places).size < places.size:
        raise SpecError("a sparse vector has a value for the same element twice")
    return places, np.array([node.value for node in vector.nodes], np.float64)


# ---- regression ------------------------------------------------------------------------


@evaluator("supportVectorRegressor")
def support_vector_regressor(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """sum(coefficient * kernel(vector, x)) - rho."""
    params = model.supportVectorRegressor
    vectors, coefficients = SupportVectors(params), np.array(params.coefficients.alpha)
    if coefficients.size != len(vectors):
        raise SpecError(f"{coefficients.size} coefficients for {len(vectors)} support vectors")
    return regressor(model, lambda x: coefficients @ vectors.kernels(x) - params.rho)


# ---- classification --------------------------------------------------------------------


@evaluator("supportVectorClassifier")
def support_vector_classifier(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """The class with the most votes of the pairs, or with `probA` and `probB` the likeliest one.

    Raises:
        SpecError: counts do not fit; see `mlferry.spec.validate`.
        PredictionError: probabilities are described, and the model has no `probA` and `probB`.
    """
    params, labels = model.supportVectorClassifier, class_labels(model.supportVectorClassifier)
    decide = _Decisions(params, len(labels))
    name = model.description.predictedProbabilitiesName
    if name and not decide.has_chances:
        raise PredictionError(
            f"the model describes probabilities, {name!r}, and has no probA and probB to compute "
            "them; without that output it predicts the label"
        )

    def run(data: Mapping[str, Any]) -> dict[str, Any]:
        decisions = decide(row(model, data))
        scores = decide.chances(decisions) if decide.has_chances else decide.votes(decisions)
        if np.isnan(decisions).any() or np.isnan(scores).any():
            raise PredictionError(NO_NUMBER)
        return classify(scores, labels, model.description)

    return checked(model, run)


class _Decisions:
    """The decisions of all pairs of classes, what they vote for, and their probabilities."""

    def __init__(self, params: pp.SupportVectorClassifier, classes: int) -> None:
        self._vectors = SupportVectors(params)
        counts = list(params.numberOfSupportVectorsPerClass)
        self._classes, pairs = classes, classes * (classes - 1) // 2
        self._rho = np.array(params.rho)
        self._prob_a, self._prob_b = np.array(params.probA), np.array(params.probB)
        rows = [list(row.alpha) for row in params.coefficients]
        fits = (
            classes >= 2
            and len(counts) == classes
            and min(counts) >= 0
            and sum(counts) == len(self._vectors)
            and len(rows) == classes - 1
            and all(len(row) == len(self._vectors) for row in rows)
            and self._rho.size == pairs
            and {self._prob_a.size, self._prob_b.size} in ({0}, {pairs})
        )
        if not fits:
            raise SpecError("counts of the support vector classifier do not fit together")
        self._pairs = list(itertools.combinations(range(classes), 2))
        self._coefficients = np.array(rows).reshape(classes - 1, len(self._vectors))
        ends = list(itertools.accumulate(counts, initial=0))
        self._of = [slice(start, end) for start, end in itertools.pairwise(ends)]

    @property
    def has_chances(self) -> bool:
        return self._prob_a.size > 0

    def __call__(self, x: Vector) -> Vector:
        kernels = self._vectors.kernels(x)
        with np.errstate(over="ignore", invalid="ignore"):
            sums = [
                self._coefficients[j - 1, self._of[i]] @ kernels[self._of[i]]
                + self._coefficients[i, self._of[j]] @ kernels[self._of[j]]
                for i, j in self._pairs
            ]
            decisions: Vector = np.array(sums) - self._rho
        return decisions

    def votes(self, decisions: Vector) -> Vector:
        """How many pairs each class wins; a decision of 0 is for the second of a pair."""
        votes = np.zeros(self._classes)
        for (i, j), decision in zip(self._pairs, decisions, strict=True):
            votes[i if decision > 0 else j] += 1
        return votes

    def chances(self, decisions: Vector) -> Vector:
        """Each pair's chance 1 / (1 + exp(A * decision + B)), coupled to those of the classes.

        For two classes there is nothing to couple. (libsvm before 3.31, and scikit-learn with
        it, also iterates there, and stops up to 0.005 away.)
        """
        with np.errstate(over="ignore", invalid="ignore"):
            won = logistic(-(self._prob_a * decisions + self._prob_b))
        won = np.clip(won, _LEAST_CHANCE, 1 - _LEAST_CHANCE)
        if self._classes == 2:
            return np.array([won[0], 1 - won[0]])
        table = np.zeros((self._classes, self._classes))
        for (i, j), chance in zip(self._pairs, won, strict=True):
            table[i, j], table[j, i] = chance, 1 - chance
        return coupled(table)


_LEAST_CHANCE = 1e-7  # libsvm's min_prob


def coupled(pairwise: Table) -> Vector:
    """Class probabilities from pairwise ones, [K, K], r[i, j] the chance of i against j.

    Method 2 of Wu, Lin and Weng, "Probability Estimates for Multi-class Classification by Pairwise
    Coupling", 2004, solved as in libsvm: Gauss-Seidel steps until no equation is off by 0.005 / K,
    at most 100 rounds. The result depends on where the iteration stops.
    """
    count = len(pairwise)
    q = -pairwise.T * pairwise
    np.fill_diagonal(q, np.square(pairwise).sum(axis=0))
    p = np.full(count, 1 / count)
    for _ in range(max(100, count)):
        qp = q @ p
        if np.abs(qp - p @ qp).max() < 0.005 / count:
            break
        total = p @ qp
        for t in range(count):
            step = (total - qp[t]) / q[t, t]
            p[t] += step
            total = (total + step * (step * q[t, t] + 2 * qp[t])) / (1 + step) ** 2
            qp = (qp + step * q[t]) / (1 + step)
            p /= 1 + step
    return p
