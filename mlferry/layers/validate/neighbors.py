"""Rules about nearest neighbours, as in Apple's checker."""

from __future__ import annotations

from mlferry.layers.validate.rules import kind_rule
from mlferry.spec import networks
from mlferry.spec.problems import Problems, error, warning
from mlferry.spec.proto import features_pb2 as ft, model_pb2, predictors_pb2 as pp

_KIND = "kNearestNeighborsClassifier"


@kind_rule(_KIND)
def number_of_neighbors(spec: model_pb2.Model, params: pp.KNearestNeighborsClassifier) -> Problems:
    """There is at least one neighbour, and the default is among the allowed numbers."""
    count = params.numberOfNeighbors
    if count.defaultValue < 1:
        yield error(f"numberOfNeighbors is {count.defaultValue}; it must be at least 1")
    allowed = count.WhichOneof("AllowedValues")
    if allowed is None:
        yield warning("numberOfNeighbors has neither a range nor a set of allowed values")
    elif not _allows(count):
        text = f"numberOfNeighbors is {count.defaultValue}, which its {allowed} does not allow"
        yield warning(text)
    least = min(count.set.values, default=1) if allowed == "set" else count.range.minValue
    if allowed is not None and least < 1:
        yield warning(f"its {allowed} of numbers of neighbours begins at {least}; the least is 1")


def _allows(count: ft.Int64Parameter) -> bool:
    if count.WhichOneof("AllowedValues") == "set":
        return count.defaultValue in count.set.values
    return bool(count.range.minValue <= count.defaultValue <= count.range.maxValue)


@kind_rule(_KIND)
def neighbor_samples(spec: model_pb2.Model, params: pp.KNearestNeighborsClassifier) -> Problems:
    """Each sample has a label and a value per dimension; a default label makes samples optional."""
    index, labels = params.nearestNeighborsIndex, len(networks.class_labels(params))
    samples = index.floatSamples
    if len(samples) != labels:
        yield error(f"{labels} labels for {len(samples)} samples")
    others = [len(s.vector) for s in samples if len(s.vector) != index.numberOfDimensions]
    if others:
        text = f"a sample has {others[0]} values; there are {index.numberOfDimensions} dimensions"
        yield error(text)
    default = params.WhichOneof("DefaultClassLabel")
    if not labels and default is None:
        yield error("it has no samples and no default label")
    field = params.WhichOneof("ClassLabels") or ""
    if labels and default and default.removeprefix("default")[:5] != field.title()[:5]:
        yield warning(f"{default} is of another type than {field}")


@kind_rule(_KIND)
def neighbor_search(spec: model_pb2.Model, params: pp.KNearestNeighborsClassifier) -> Problems:
    """An index, a distance and a weighting are set."""
    index = params.nearestNeighborsIndex
    if params.WhichOneof("WeightingScheme") is None:
        yield error("it has neither uniformWeighting nor inverseDistanceWeighting")
    if index.WhichOneof("DistanceFunction") is None:
        yield error("it has no distance function; use squaredEuclideanDistance")
    if index.WhichOneof("IndexType") is None:
        yield warning("it has neither a linearIndex nor a singleKdTreeIndex")
    if index.HasField("singleKdTreeIndex") and index.singleKdTreeIndex.leafSize < 1:
        result = index.singleKdTreeIndex.leafSize
        yield warning(f"leafSize of its k-d tree is {result}; the smallest is 1")
