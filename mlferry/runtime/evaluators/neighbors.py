"""Nearest neighbours: the labels of the samples that lie closest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import PredictionError, SpecError
from mlferry.runtime.evaluators.predictors import Vector, row
from mlferry.runtime.evaluators.registry import CustomClasses, Evaluator, checked, evaluator
from mlferry.spec.networks import class_labels
from mlferry.spec.proto import model_pb2, predictors_pb2 as pp

_AT_ONCE = 1 << 20  # numbers


@evaluator("kNearestNeighborsClassifier")
def nearest_neighbors(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """The label with the most weight among the `numberOfNeighbors` closest samples.

    Every neighbour weighs 1, or the inverse of its distance: the squared Euclidean one, the only
    distance of the format. Samples that equal the input, if there are any, count alone. A k-d tree
    finds the same neighbours as an exhaustive search. Ties go to the earlier sample and to the
    first label in order, as in scikit-learn. With fewer samples than neighbours all of them count;
    without samples, the default label is predicted.

    Raises:
        SpecError: counts do not fit; see `mlferry.spec.validate`.
    """
    params = model.kNearestNeighborsClassifier
    index, labels = params.nearestNeighborsIndex, class_labels(params)
    samples = _samples(index)
    count = params.numberOfNeighbors.defaultValue
    if len(samples) != len(labels):
        raise SpecError(f"{len(labels)} labels for {len(samples)} samples")
    if count < 1:
        raise SpecError(f"numberOfNeighbors is {count}; it must be at least 1")
    if params.WhichOneof("WeightingScheme") is None:
        raise SpecError("no weighting is set: uniform or by inverse distance")
    if index.WhichOneof("DistanceFunction") is None:
        raise SpecError("no distance function is set; there is squaredEuclideanDistance")
    by_distance = params.WhichOneof("WeightingScheme") == "inverseDistanceWeighting"
    known = sorted(set(labels))  # type: ignore[type-var] # all text or all integers
    places = np.array([known.index(label) for label in labels], np.int64)
    default = params.WhichOneof("DefaultClassLabel")
    label_name = model.description.predictedFeatureName
    chances_name = model.description.predictedProbabilitiesName

    def run(data: Mapping[str, Any]) -> dict[str, Any]:
        x = row(model, data)
        if x.size != index.numberOfDimensions:
            raise PredictionError(f"{x.size} values for {index.numberOfDimensions} dimensions")
        if not np.isfinite(x).all():
            raise PredictionError("NaN and infinity have no distance from a sample")
        if not labels:
            return _nothing_known(params, default, label_name, chances_name)
        distances = _squared_distances(samples, x)
        nearest = np.argsort(distances, kind="stable")[:count]
        weights = np.bincount(
            places[nearest], _weights(distances[nearest], by_distance), len(known)
        )
        outputs = {label_name: known[int(np.argmax(weights))]}
        if chances_name:
            shares = (weights / weights.sum()).tolist()
            outputs[chances_name] = dict(zip(known, shares, strict=True))
        return outputs

    return checked(model, run)


def _samples(index: pp.NearestNeighborsIndex) -> NDArray[np.float32]:
    rows = [np.array(sample.vector, np.float32) for sample in index.floatSamples]
    if any(sample.size != index.numberOfDimensions for sample in rows):
        raise SpecError(f"samples have other than {index.numberOfDimensions} dimensions")
    samples = np.stack(rows) if rows else np.zeros((0, 0), np.float32)
    if not np.isfinite(samples).all():
        raise SpecError("samples have values that are not finite numbers")
    return samples


def _squared_distances(samples: NDArray[np.float32], x: Vector) -> Vector:
    count = max(1, _AT_ONCE // max(1, x.size))
    parts: list[Vector] = [
        np.square(samples[start : start + count] - x).sum(axis=1)
        for start in range(0, len(samples), count)
    ]
    return np.concatenate(parts)


def _weights(distances: Vector, by_distance: bool) -> Vector:
    if not by_distance:
        return np.ones_like(distances)
    here = distances == 0
    if here.any():
        counted: Vector = here.astype(np.float64)
        return counted
    scaled: Vector = distances.min() / distances  # the same shares, without overflow
    return scaled


def _nothing_known(
    params: pp.KNearestNeighborsClassifier, default: str | None, label: str, chances: str
) -> dict[str, Any]:
    if default is None:
        raise PredictionError("the model has no samples yet, and no default label")
    if chances:
        raise PredictionError(
            f"the model has no samples yet, and so no probabilities, {chances!r}; its default "
            f"label is {getattr(params, default)!r}"
        )
    return {label: getattr(params, default)}
