"""Support vector machines beside scikit-learn, whose own code is libsvm.

The models are written from the estimators' attributes as coremltools' converters do.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import MlferryError, PredictionError
from mlferry.layers.validate import validate
from mlferry.runtime.evaluators import support_vectors
from mlferry.spec import features as ft
from mlferry.spec.proto import model_pb2
from tests.oracles import oracle

svm = oracle("sklearn.svm")
SVC, SVR, NuSVC, NuSVR = svm.SVC, svm.SVR, svm.NuSVC, svm.NuSVR
RANDOM = np.random.default_rng(4)
X = RANDOM.normal(size=(120, 4))
VALUES = X @ [1.0, -2.0, 0.5, 0.3] + np.sin(3 * X[:, 0])
NEW = RANDOM.normal(size=(80, 4))
KERNELS: list[dict[str, Any]] = [
    {"kernel": "linear"},
    {"kernel": "rbf", "gamma": 0.7},
    {"kernel": "poly", "gamma": 0.4, "coef0": 0.5, "degree": 3},
    {"kernel": "poly", "gamma": 0.4, "coef0": 1.0, "degree": 2},
    {"kernel": "sigmoid", "gamma": 0.1, "coef0": -0.2},
]
IDS = [f"{row['kernel']} {row.get('degree', '')}".strip() for row in KERNELS]


def classes(count: int) -> np.ndarray:
    return np.digitize(VALUES, np.quantile(VALUES, np.arange(1, count) / count))


def set_kernel(estimator: Any, target: Any) -> None:
    if estimator.kernel == "linear":
        target.linearKernel.SetInParent()
    elif estimator.kernel == "rbf":
        target.rbfKernel.gamma = estimator._gamma
    elif estimator.kernel == "poly":
        target.polyKernel.gamma, target.polyKernel.c = estimator._gamma, estimator.coef0
        target.polyKernel.degree = estimator.degree
    else:
        target.sigmoidKernel.gamma = estimator._gamma
        target.sigmoidKernel.c = estimator.coef0


def set_vectors(estimator: Any, target: Any, sparse: bool) -> None:
    for vector in estimator.support_vectors_:
        if sparse:
            added = target.sparseSupportVectors.vectors.add()
            for place, value in enumerate(vector, 1):
                if value:
                    added.nodes.add(index=place, value=value)
        else:
            target.denseSupportVectors.vectors.add().values.extend(vector)


def classifier(
    estimator: Any, labels: list[Any], sparse: bool = False, chances: bool = False
) -> model_pb2.Model:
    spec = model_pb2.Model(specificationVersion=1)
    svm, strings = spec.supportVectorClassifier, isinstance(labels[0], str)
    set_kernel(estimator, svm.kernel)
    set_vectors(estimator, svm, sparse)
    svm.numberOfSupportVectorsPerClass.extend(map(int, estimator.n_support_))
    for row in estimator._dual_coef_:
        svm.coefficients.add().alpha.extend(row)
    svm.rho.extend(-estimator._intercept_)
    getattr(svm, "stringClassLabels" if strings else "int64ClassLabels").vector.extend(labels)
    spec.description.input.add(name="x").type.CopyFrom(ft.multi_array((4,), "float64"))
    label = ft.string() if strings else ft.int64()
    spec.description.output.add(name="label").type.CopyFrom(label)
    spec.description.predictedFeatureName = "label"
    if chances:
        svm.probA.extend(estimator.probA_)
        svm.probB.extend(estimator.probB_)
        spec.description.output.add(name="p").type.CopyFrom(ft.dictionary(strings))
        spec.description.predictedProbabilitiesName = "p"
    return spec


def regressor(estimator: Any, sparse: bool = False) -> model_pb2.Model:
    spec = model_pb2.Model(specificationVersion=1)
    svm = spec.supportVectorRegressor
    set_kernel(estimator, svm.kernel)
    set_vectors(estimator, svm, sparse)
    svm.coefficients.alpha.extend(estimator.dual_coef_[0])
    svm.rho = -float(estimator.intercept_[0])
    for index in range(4):
        spec.description.input.add(name=f"f{index}").type.doubleType.SetInParent()
    spec.description.output.add(name="y").type.doubleType.SetInParent()
    spec.description.predictedFeatureName = "y"
    return spec


def predict(spec: model_pb2.Model) -> list[dict[str, Any]]:
    assert validate(spec) == []
    return mlferry.MLModel(spec).predict([{"x": row} for row in NEW])


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("options", KERNELS, ids=IDS)
def test_labels(options: dict[str, Any], count: int, sparse: bool) -> None:
    data, new = (np.where(abs(a) < 0.3, 0, a) if sparse else a for a in (X, NEW))
    estimator = SVC(**options).fit(data, classes(count))
    spec = classifier(estimator, [int(label) for label in estimator.classes_], sparse)
    model = mlferry.MLModel(spec)
    actual = [model.predict({"x": row})["label"] for row in new]
    np.testing.assert_array_equal(actual, estimator.predict(new))


def test_other_impurity() -> None:
    estimator = NuSVC(nu=0.3, gamma=0.5).fit(X, classes(3))
    actual = [row["label"] for row in predict(classifier(estimator, ["a", "b", "c"]))]
    assert actual == ["abc"[label] for label in estimator.predict(NEW)]


@pytest.mark.filterwarnings("ignore")  # scikit-learn announces the end of this option
@pytest.mark.parametrize("options", KERNELS, ids=IDS)
@pytest.mark.parametrize("count", [2, 3, 5])
def test_probabilities(options: dict[str, Any], count: int) -> None:
    estimator = SVC(**options, probability=True, random_state=0).fit(X, classes(count))
    labels = list("vwxyz"[:count])
    actual = predict(classifier(estimator, labels, chances=True))
    matches = np.array([[row["p"][label] for label in labels] for row in actual])
    expected = estimator.predict_proba(NEW)
    # for two classes libsvm's iteration stops up to 0.005 away from the chance of the one pair
    np.testing.assert_allclose(matches, expected, atol=0.005 if count == 2 else 1e-9)
    assert [row["label"] for row in actual] == [labels[i] for i in matches.argmax(axis=1)]
    np.testing.assert_allclose(matches.sum(axis=1), 1)


@pytest.mark.parametrize("options", KERNELS, ids=IDS)
@pytest.mark.parametrize("kind", [SVR, NuSVR])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_regression(kind: type, options: dict[str, Any], sparse: bool) -> None:
    estimator = kind(**options).fit(X, VALUES)
    spec = regressor(estimator, sparse)
    assert validate(spec) == []
    model = mlferry.MLModel(spec)
    actual = [model.predict({f"f{i}": v for i, v in enumerate(row)})["y"] for row in NEW]
    np.testing.assert_allclose(actual, estimator.predict(NEW), rtol=1e-9, atol=1e-9)


def test_sparse_vectors_are_written_out_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support_vectors, "_AT_ONCE", 12)
    test_regression(SVR, KERNELS[1], sparse=True)


def test_coupling_solves_the_equations_of_the_paper() -> None:
    """p minimizes the sum over pairs of (r[j, i] p[i] - r[i, j] p[j]) ** 2."""
    p = np.array([0.5, 0.3, 0.2])
    r = p[:, None] / (p[:, None] + p)
    np.fill_diagonal(r, 0)
    np.testing.assert_allclose(support_vectors.coupled(r), p, atol=0.01)

    def cost(p: np.ndarray) -> float:
        pairs = itertools.combinations(range(3), 2)
        return sum((r[j, i] * p[i] - r[i, j] * p[j]) ** 2 for i, j in pairs)

    assert cost(support_vectors.coupled(r)) < 0.01 * cost(np.full(3, 1 / 3))


def test_what_is_no_number_has_no_class() -> None:
    spec = classifier(SVC().fit(X, classes(3)), [1, 2, 3])
    with pytest.raises(PredictionError, match="Look for NaN or infinity"):
        mlferry.MLModel(spec).predict({"x": [np.nan, 0, 0, 0]})


def test_probabilities_need_their_parameters() -> None:
    spec = classifier(SVC().fit(X, classes(3)), [1, 2, 3])
    spec.description.output.add(name="p").type.CopyFrom(ft.dictionary(False))
    spec.description.predictedProbabilitiesName = "p"
    with pytest.raises(PredictionError, match="no probA and probB"):
        mlferry.MLModel(spec).predict({"x": NEW[0]})


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_inputs_of_another_length(sparse: bool) -> None:
    spec = classifier(SVC().fit(X, classes(2)), [1, 2], sparse)
    del spec.description.input[0].type.multiArrayType.shape[:]
    with pytest.raises(MlferryError, match="2 values together, the support vectors 4"):
        mlferry.MLModel(spec).predict({"x": [1.0, 2.0]})


def test_a_sparse_vector_far_out_takes_no_memory() -> None:
    spec = regressor(SVR().fit(X, VALUES), sparse=True)
    nodes = spec.supportVectorRegressor.sparseSupportVectors.vectors[0].nodes
    nodes.add(index=2**31 - 1, value=1.0)
    with pytest.raises(PredictionError, match="the support vectors 2147483647"):
        mlferry.MLModel(spec).predict(dict.fromkeys(("f0", "f1", "f2", "f3"), 0.0))
