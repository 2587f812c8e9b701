"""Feature engineering: scaling, encoding, joining, filling in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry import limits
from mlferry.errors import PredictionError
from mlferry.runtime.evaluators.registry import (
    CustomClasses,
    Evaluator,
    Factory,
    checked,
    evaluator,
    only_input,
    only_output,
)
from mlferry.spec.proto import model_pb2

One = Callable[[model_pb2.Model, Any], Any]


def _of_one(*kinds: str) -> Callable[[One], One]:
    """Register a function from one input to one output."""

    def decorate(function: One) -> One:
        def factory(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
            source, target = only_input(model), only_output(model)
            return checked(model, lambda data: {target: function(model, data[source])})

        of_one: Factory = factory
        evaluator(*kinds)(of_one)
        return function

    return decorate


@evaluator("identity")
def identity(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """Outputs have the names of inputs, or take them in their order."""
    description = model.description

    def run(data: Mapping[str, Any]) -> dict[str, Any]:
        values = [data.get(feature.name) for feature in description.input]
        by_order = zip(description.output, values, strict=True)
        return {out.name: data.get(out.name, value) for out, value in by_order}

    return checked(model, run)


@_of_one("scaler")
def scaler(model: model_pb2.Model, value: NDArray[Any]) -> Any:
    """(x + shift) * scale; each one value, or one per element."""
    params, x = model.scaler, np.asarray(value, np.float64)
    for name, numbers in (("shiftValue", params.shiftValue), ("scaleValue", params.scaleValue)):
        if len(numbers) not in (0, 1, x.size):
            raise PredictionError(f"{name} has {len(numbers)} values for {x.size} elements")
    shift = np.array(params.shiftValue or [0.0])
    scale = np.array(params.scaleValue or [1.0])
    return ((x.ravel() + shift) * scale).reshape(x.shape)


@_of_one("normalizer")
def normalizer(model: model_pb2.Model, value: NDArray[Any]) -> Any:
    """Divide by the largest magnitude, the sum of magnitudes or the Euclidean length; 0 stays."""
    x = np.asarray(value, np.float64)
    norms = (
        lambda: np.abs(x).max(initial=0),
        lambda: np.abs(x).sum(),
        lambda: np.sqrt(np.square(x).sum()),
    )
    norm = norms[model.normalizer.normType]()
    return x / norm if norm else x


@_of_one("arrayFeatureExtractor")
def array_feature_extractor(model: model_pb2.Model, value: NDArray[Any]) -> Any:
    """The elements at some places of the flattened array."""
    x = np.asarray(value).ravel()
    indices = list(model.arrayFeatureExtractor.extractIndex)
    if indices and max(indices) >= x.size:
        raise PredictionError(f"there is no element {max(indices)} in an array of {x.size}")
    return x[indices]


@_of_one("oneHotEncoder")
def one_hot_encoder(model: model_pb2.Model, value: int | str) -> Any:
    """An array with a 1 at the category's place, or ``{place: 1}`` where sparse."""
    params = model.oneHotEncoder
    kind = params.WhichOneof("CategoryType")
    categories = list(getattr(params, kind).vector) if kind else []
    if value not in categories and params.handleUnknown == 0:
        raise PredictionError(f"{value!r} is none of the {len(categories)} categories")
    place = categories.index(value) if value in categories else None
    if params.outputSparse:
        return {} if place is None else {place: 1.0}
    encoded = np.zeros(len(categories))
    if place is not None:
        encoded[place] = 1
    return encoded


@_of_one("dictVectorizer")
def dict_vectorizer(model: model_pb2.Model, value: Mapping[str, Any]) -> Any:
    """The values at the places of their keys: ``{place: value}``, or an array if so described.

    Places without a key are 0 in an array and missing in a dictionary; unknown keys are ignored.
    """
    kind = model.dictVectorizer.WhichOneof("Map")
    keys = getattr(model.dictVectorizer, kind).vector if kind else ()
    if model.description.output[0].type.WhichOneof("Type") == "dictionaryType":
        return {place: value[key] for place, key in enumerate(keys) if key in value}
    return np.array([value.get(key, 0.0) for key in keys])


@_of_one("categoricalMapping")
def categorical_mapping(model: model_pb2.Model, value: int | str) -> Any:
    """Strings to integers or back, with a value for what is unknown."""
    params = model.categoricalMapping
    kind = params.WhichOneof("MappingType")
    table = getattr(params, kind).map if kind else {}
    if value in table:
        return table[value]
    unknown = params.WhichOneof("ValueOnUnknown")
    if unknown is None:
        raise PredictionError(f"{value!r} is not among the {len(table)} known values")
    return getattr(params, unknown)


@_of_one("imputer")
def imputer(model: model_pb2.Model, value: NDArray[Any]) -> Any:
    """Fill in missing values: NaN, or the value that stands for it."""
    params = model.imputer
    kind = params.WhichOneof("ImputedValue")
    if kind is None:
        raise PredictionError("the imputer has no value to fill in")
    filler = getattr(params, kind)
    replaced = params.WhichOneof("ReplaceValue")
    marker = getattr(params, replaced) if replaced else math.nan
    if isinstance(value, dict):
        table = filler.map
        return {k: table.get(k, v) if _missing(v, marker) else v for k, v in value.items()}
    if isinstance(value, np.ndarray):
        is_missing = (
            np.isnan(value)
            if isinstance(marker, float) and math.isnan(marker)
            else (value == marker)
        )
        values = np.array(filler.vector if hasattr(filler, "vector") else [filler], np.float64)
        if values.size not in (1, value.size):
            raise PredictionError(f"{values.size} values to fill in for {value.size} elements")
        return np.where(
            is_missing, np.broadcast_to(values, (value.size,)).reshape(value.shape), value
        )
    return filler if _missing(value, marker) else value


def _missing(value: object, marker: object) -> bool:
    if isinstance(marker, float) and math.isnan(marker):
        return isinstance(value, float) and math.isnan(value)
    return bool(value == marker)


@evaluator("featureVectorizer")
def feature_vectorizer(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """Numbers, arrays and sparse dictionaries joined to one array."""
    columns = list(model.featureVectorizer.inputList)
    target = only_output(model)

    def run(data: Mapping[str, Any]) -> dict[str, Any]:
        parts = [_column(data, c.inputColumn, c.inputDimensions) for c in columns]
        return {target: np.concatenate(parts) if parts else np.zeros(0)}

    return checked(model, run)


def _column(data: Mapping[str, Any], name: str, size: int) -> Any:
    if name not in data:
        raise PredictionError(f"no value for the column {name!r}")
    value = data[name]
    if isinstance(value, dict):
        limits.check_blob((size,))
        part = np.zeros(size)
        for key, number in value.items():
            if not isinstance(key, int) or not 0 <= key < size:
                raise PredictionError(f"column {name!r} has {size} places, not one at {key!r}")
            part[key] = number
        return part
    part = np.asarray(value, np.float64).ravel()
    if part.size != size:
        raise PredictionError(f"column {name!r} has {size} places; its value has {part.size}")
    return part
