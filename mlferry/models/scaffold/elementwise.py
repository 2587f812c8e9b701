"""Layers that compute each value by itself, detected by what their Python class computes.

If a class computes a known function, up to rounding, its template gets this function in Swift and
as a Metal kernel. The expressions are C, which reads the same in both languages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlferry.custom import CUSTOM_LAYERS, CustomLayer, Instance, class_parameters_of
from mlferry.errors import CustomLayerError
from mlferry.models.scaffold.needs import needed_name
from mlferry.spec.proto import neural_network_pb2 as nn

Values = NDArray[np.float64]
_SHAPES = ((1, 64), (2, 3, 5, 7), (1, 8, 4, 4))
_CLOSE = 1e-5  # of the value, and of 1 where it is smaller


@dataclass(frozen=True)
class Formula:
    """A function of one value.

    Attributes:
        text: the expression, of ``x`` and of the parameter ``p`` if there is one.
        compute: the same on arrays.
        has_parameter: whether it has one.
    """

    text: str
    compute: Callable[[Values, float], Values]
    has_parameter: bool = False


def _sigmoid(x: Values) -> Values:
    return np.exp(-np.logaddexp(0, -x))


FORMULAS = (
    Formula("x / (1 + exp(-x))", lambda x, p: x * _sigmoid(x)),
    Formula("x / (1 + exp(-p * x))", lambda x, p: x * _sigmoid(p * x), True),
    Formula(
        "x * tanh(max(x, 0.0) + log(1 + exp(-abs(x))))",
        lambda x, p: x * np.tanh(np.logaddexp(0, x)),
    ),
    Formula("x * min(max(x + 3, 0.0), 6.0) / 6", lambda x, p: x * np.clip(x + 3, 0, 6) / 6),
    Formula("min(max(x + 3, 0.0), 6.0) / 6", lambda x, p: np.clip(x + 3, 0, 6) / 6),
    Formula("min(max(x, 0.0), 6.0)", lambda x, p: np.clip(x, 0, 6)),
    Formula("min(max(x, 0.0), p)", lambda x, p: np.clip(x, 0, p), True),
    Formula(
        "0.5 * x * (1 + tanh(0.7978845608 * (x + 0.044715 * x * x * x)))",
        lambda x, p: 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3))),
    ),
    Formula("max(x, 0.0)", lambda x, p: np.maximum(x, 0)),
    Formula("max(x, 0.0) + p * min(x, 0.0)", lambda x, p: np.where(x > 0, x, p * x), True),
    Formula("abs(x)", lambda x, p: np.abs(x)),
    Formula("x * x", lambda x, p: x * x),
    Formula("tanh(x)", lambda x, p: np.tanh(x)),
    Formula("x / (1 + abs(x))", lambda x, p: x / (1 + np.abs(x))),
    Formula("x * p", lambda x, p: x * p, True),
    Formula("x + p", lambda x, p: x + p, True),
)


@dataclass(frozen=True)
class Elementwise:
    """The function of a layer, and the Swift property that holds its parameter."""

    formula: Formula
    parameter: str = ""


def elementwise(
    layers: Sequence[nn.NeuralNetworkLayer], classes: Mapping[str, type[CustomLayer]]
) -> Elementwise | None:
    """The function that a class of layers computes; None if it is unknown.

    Args:
        layers: all that use the class.
        classes: those given beside the registered ones, by name.
    """
    name = layers[0].custom.className
    entry = CUSTOM_LAYERS.find(name)
    cls = classes.get(name) or (entry.value if entry is not None else None)
    if cls is None or any(
        len(layer.input) != 1 or len(layer.output) != 1 or layer.custom.weights for layer in layers
    ):
        return None
    samples = [_tried(layer, cls) for layer in layers]
    if any(pairs is None for pairs in samples):
        return None
    users = [class_parameters_of(layer.custom) for layer in layers]
    for formula in FORMULAS:
        keys = [key for key in users[0] if all(_is_number(each.get(key)) for each in users)]
        for key in keys if formula.has_parameter else ("",):
            values = [float(each[key]) if key else 0.0 for each in users]
            if all(
                _is(formula, value, pairs or ())
                for value, pairs in zip(values, samples, strict=True)
            ):
                return Elementwise(formula, needed_name(key) if key else "")
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tried(
    layer: nn.NeuralNetworkLayer, cls: type[CustomLayer]
) -> list[tuple[Values, Values]] | None:
    """Values, and what the class computes for them; None if it fails."""
    random = np.random.default_rng(0)
    pairs = []
    try:
        instance = Instance(layer.name, cls, layer.custom, 1)
        for shape in _SHAPES:
            x = (random.standard_normal(shape) * 4).astype(np.float32)
            (y,) = instance.evaluate([x])
            pairs.append((x.astype(np.float64), np.asarray(y, np.float64)))
    except CustomLayerError:
        return None
    return pairs


def _is(formula: Formula, parameter: float, pairs: Sequence[tuple[Values, Values]]) -> bool:
    for x, y in pairs:
        if x.shape != y.shape:
            return False
        expected = formula.compute(x, parameter)
        if not (np.abs(expected - y) <= _CLOSE * np.maximum(np.abs(expected), 1)).all():
            return False
    return True
