"""Rules about nearest neighbours, as in Apple's checker."""

from __future__ import annotations

from mlferry.layers.validate.rules import model_rule
from mlferry.spec.problems import Problems, error, warning
from mlferry.spec.proto import features_pb2 as ft, model_pb2

_KIND = "kNearestNeighborsClassifier"


@model_rule
def number_of_neighbors(spec: model_pb2.Model) -> Problems:
    """There is at least one neighbour, and the default is among the allowed numbers."""
    if spec.WhichOneof("Type") != _KIND:
        return
    count = spec.kNearestNeighborsClassifier.numberOfNeighbors
    if count.defaultValue < 1:
        yield error(f"numberOfNeighbors is {count.defaultValue}; it must be at least 1", _KIND)
    allowed = count.WhichOneof("AllowedValues")
    if allowed is None:
        yield warning("numberOfNeighbors has neither a range nor a set of allowed values", _KIND)
    elif not _allows(count):
        text = f"numberOfNeighbors is {count.defaultValue}, which its {allowed} does not allow"
        yield warning(text, _KIND)


def _allows(count: ft.Int64Parameter) -> bool:
    if count.WhichOneof("AllowedValues") == "set":
        return count.defaultValue in count.set.values
    return bool(count.range.minValue <= count.defaultValue <= count.range.maxValue)


@model_rule
def neighbor_samples(spec: model_pb2.Model) -> Problems:
    """Each sample has a label and a value per dimension; a default label makes samples optional."""
    if spec.WhichOneof("Type") != _KIND:
        return
    params = spec.kNearestNeighborsClassifier
    index, field = params.nearestNeighborsIndex, params.WhichOneof("ClassLabels")
    labels = len(getattr(params, field).vector) if field else 0
    samples = index.floatSamples
    if len(samples) != labels:
        yield error(f"{labels} labels for {len(samples)} samples", _KIND)
    others = [len(s.vector) for s in samples if len(s.vector) != index.numberOfDimensions]
    if others:
        text = f"a sample has {others[0]} values; there are {index.numberOfDimensions} dimensions"
        yield error(text, _KIND)
    default = params.WhichOneof("DefaultClassLabel")
    if not labels and default is None:
        yield error("it has no samples and no default label", _KIND)
    if labels and default and default.removeprefix("default")[:5] != (field or "").title()[:5]:
        yield warning(f"{default} is of another type than {field}", _KIND)


@model_rule
def neighbor_search(spec: model_pb2.Model) -> Problems:
    """An index, a distance and a weighting are set."""
    if spec.WhichOneof("Type") != _KIND:
        return
    params = spec.kNearestNeighborsClassifier
    index = params.nearestNeighborsIndex
    if params.WhichOneof("WeightingScheme") is None:
        yield error("it has neither uniformWeighting nor inverseDistanceWeighting", _KIND)
    if index.WhichOneof("DistanceFunction") is None:
        yield error("it has no distance function; use squaredEuclideanDistance", _KIND)
    if index.WhichOneof("IndexType") is None:
        yield warning("it has neither a linearIndex nor a singleKdTreeIndex", _KIND)
    if index.HasField("singleKdTreeIndex") and index.singleKdTreeIndex.leafSize < 1:
        result = index.singleKdTreeIndex.leafSize
        yield warning(f"leafSize of its k-d tree is {result}; the smallest is 1", _KIND)
