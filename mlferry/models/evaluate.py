"""How well a model predicts known answers, with the functions of coremltools."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from mlferry.errors import ModelFileError, PredictionError
from mlferry.models.model import MLModel, ModelSource
from mlferry.spec.proto import model_pb2

_TOLERANCE = 1e-5

N = TypeVar("N", int, float)


class DataFrame(Protocol):
    """What is used of a data frame of pandas."""

    columns: Any

    def to_dict(self, orient: str, /) -> Any:
        """Its rows."""


Rows = str | os.PathLike[str] | DataFrame | Iterable[Mapping[str, Any]]
"""Dicts, a data frame, or the path of a CSV file."""


def _model(source: ModelSource) -> MLModel:
    return source if isinstance(source, MLModel) else MLModel(source)


def _rows(data: Rows) -> list[dict[str, Any]]:
    """Rows of a list of dicts, a data frame, or the path of a CSV file."""
    if isinstance(data, str | os.PathLike):
        import csv

        try:
            with open(data, encoding="utf-8", newline="") as file:  # noqa: PTH123
                return [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(file)]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ModelFileError(f"cannot read {data}: {error}") from error
    if hasattr(data, "to_dict") and hasattr(data, "columns"):
        return list(data.to_dict("records"))
    return [dict(row) for row in data]


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _split(model: MLModel, data: Rows, answer: str) -> list[tuple[dict[str, Any], Any]]:
    """The inputs in each row, and the known answer."""
    names = [feature.name for feature in model.get_spec().description.input]
    rows = _rows(data)
    if not rows:
        raise PredictionError("there are no samples")
    missing = [index for index, row in enumerate(rows) if answer not in row]
    if missing:
        raise PredictionError(
            f"sample {missing[0]} has no column {answer!r}; it has {[*rows[missing[0]]]}"
        )
    return [({n: row[n] for n in names if n in row}, row[answer]) for row in rows]


def _predict(model: MLModel, sample: Mapping[str, Any]) -> dict[str, Any]:
    outputs = model.predict(sample)
    assert isinstance(outputs, dict)
    return outputs


def _predicted(spec: model_pb2.Model) -> str:
    name = spec.description.predictedFeatureName
    if not name:
        raise PredictionError(
            f"a model of kind {spec.WhichOneof('Type')!r} has no predictedFeatureName: it is "
            "neither a classifier nor a regressor"
        )
    return name


def evaluate_regressor(
    model: ModelSource, data: Rows, target: str = "target", verbose: bool = False
) -> dict[str, float]:
    """The errors of a regressor: `samples`, `rmse` and `max_error`.

    Args:
        model: an `MLModel`, or what it takes.
        data: rows with the inputs and the answer: dicts, a data frame, or a CSV file's path.
        target: the column with the answer.
        verbose: whether to write the result to the standard output as well.

    Raises:
        PredictionError: the rows do not fit, or the model is not a regressor.
    """
    loaded = _model(model)
    name = _predicted(loaded.get_spec())
    pairs = _split(loaded, data, target)
    errors = [float(np.ravel(_predict(loaded, x)[name])[0]) - float(y) for x, y in pairs]
    result = {
        "samples": len(errors),
        "rmse": float(np.sqrt(np.mean(np.square(errors)))),
        "max_error": float(np.max(np.abs(errors))),
    }
    return _reported(result, verbose)


def evaluate_classifier(
    model: ModelSource, data: Rows, target: str = "target", verbose: bool = False
) -> dict[str, int]:
    """The wrong labels of a classifier: `num_samples` and `num_errors`.

    Args and Raises: as for `evaluate_regressor`.
    """
    loaded = _model(model)
    name = _predicted(loaded.get_spec())
    pairs = _split(loaded, data, target)
    wrong = sum(_predict(loaded, x)[name] != y for x, y in pairs)
    return _reported({"num_samples": len(pairs), "num_errors": int(wrong)}, verbose)


def evaluate_classifier_with_probabilities(
    model: ModelSource, data: Rows, probabilities: str = "probabilities", verbose: bool = False
) -> dict[str, float]:
    """The errors of a classifier's probabilities.

    Args:
        model: as for `evaluate_regressor`.
        data: rows with the inputs and, in the column `probabilities`, a dict by label.
        probabilities: the column.
        verbose: as for `evaluate_regressor`.

    Returns:
        `num_samples`, `max_probability_error`, and `num_key_mismatch`, the samples whose
        labels are others.
    """
    loaded = _model(model)
    name = loaded.get_spec().description.predictedProbabilitiesName
    if not name:
        raise PredictionError("the model has no predictedProbabilitiesName")
    largest, mismatches = 0.0, 0
    pairs = _split(loaded, data, probabilities)
    for sample, expected in pairs:
        chances = _predict(loaded, sample)[name]
        if set(chances) != set(expected):
            mismatches += 1
            continue
        largest = max([largest, *(abs(chances[key] - expected[key]) for key in expected)])
    result = {
        "num_samples": len(pairs),
        "max_probability_error": largest,
        "num_key_mismatch": mismatches,
    }
    return _reported(result, verbose)


def evaluate_transformer(
    model: ModelSource,
    input_data: Sequence[Mapping[str, Any]],
    reference_output: Sequence[Any],
    verbose: bool = False,
) -> dict[str, int]:
    """How many samples give wrong outputs: `num_samples` and `num_errors`.

    Args:
        model: as for `evaluate_regressor`.
        input_data: dicts of inputs.
        reference_output: dicts of outputs, as many.
        verbose: as for `evaluate_regressor`.
    """
    loaded = _model(model)
    if len(input_data) != len(reference_output):
        raise PredictionError(f"{len(input_data)} inputs, {len(reference_output)} outputs")
    pairs = zip(input_data, reference_output, strict=True)
    wrong = sum(
        any(not _same(_predict(loaded, x).get(name), value) for name, value in expected.items())
        for x, expected in pairs
    )
    return _reported({"num_samples": len(input_data), "num_errors": int(wrong)}, verbose)


def _reported(result: dict[str, N], verbose: bool) -> dict[str, N]:
    if verbose:
        sys.stdout.write(f"{result}\n")
    return result


def _same(value: object, expected: ArrayLike) -> bool:
    if isinstance(expected, Mapping):
        same_keys = isinstance(value, Mapping) and set(value) == set(expected)
        return same_keys and all(_same(value[key], expected[key]) for key in expected)
    if isinstance(expected, str) or value is None:
        return bool(value == expected)
    one, other = np.asarray(value, np.float64), np.asarray(expected, np.float64)
    return one.size == other.size and bool(
        np.allclose(one.ravel(), other.ravel(), rtol=_TOLERANCE, atol=_TOLERANCE)
    )
