"""Every architecture of `keras.applications` against Keras, with random weights.

Run by ``make keras-applications``; prints one line an architecture, and fails where one does not
convert or differs by more than 1e-4 of the range of its outputs.
"""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import mlferry

TOLERANCE = 1e-4
SIZES = ((64, 64, 3), (96, 96, 3), None)  # the smallest that an architecture takes


@dataclass(frozen=True)
class Result:
    """What came out for one architecture.

    Attributes:
        name: of the architecture.
        shape: of its input.
        error: the largest difference, over the range of Keras's outputs.
        transposes: how many layers of the converted model move axes.
        layers: how many layers it has.
    """

    name: str
    shape: tuple[int, ...]
    error: float
    transposes: int
    layers: int


def names(keras: Any) -> list[str]:
    """The architectures that this Keras has."""
    module = keras.applications
    return [name for name in dir(module) if inspect.isfunction(getattr(module, name))]


def build(keras: Any, name: str) -> Any:
    """The architecture at its smallest size, without a final softmax that hides differences."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(7)
    options = {"weights": None, "classes": 10, "classifier_activation": None}
    for size in SIZES:
        try:
            actual = {} if size is None else {"input_shape": size}
            return getattr(keras.applications, name)(**options, **actual)
        except ValueError:
            continue
    raise ValueError(f"{name} takes none of {SIZES}")


def pictures(model: Any, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random pictures in the range that a model takes: some scale pixels themselves."""
    scales = any(type(layer).__name__ == "Rescaling" for layer in model.layers[:4])
    low, high = (0, 255) if scales else (-1, 1)
    return rng.uniform(low, high, (count, *model.input_shape[1:])).astype(np.float32)


def calibrate(model: Any, rng: np.random.Generator) -> None:
    """Statistics of real activations: deep models neither vanish nor amplify rounding errors."""
    for weight in model.weights:
        if weight.name == "gamma":
            weight.assign(rng.uniform(0.2, 0.5, weight.shape))
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.momentum = 0.0
        if type(layer).__name__ == "Dropout":
            layer.rate = 0.0
    model(pictures(model, 8, rng), training=True)
    for weight in model.weights:
        if weight.name == "moving_variance":
            weight.assign(1.5 * weight.numpy())  # a little less than what deep models amplify


def check(keras: Any, name: str) -> Result:
    """Convert one architecture and compare it."""
    rng = np.random.default_rng(7)
    model = build(keras, name)
    calibrate(model, rng)
    converted = mlferry.convert(model)
    x = pictures(model, 1, rng)
    description = converted.get_spec().description
    actual = converted.predict({description.input[0].name: x})[description.output[0].name]
    expected = np.asarray(model(x, training=False))
    kinds = [layer.WhichOneof("layer") for layer in converted.get_spec().neuralNetwork.layers]
    error = float(np.abs(actual - expected).max() / np.ptp(expected))
    return Result(name, x.shape, error, kinds.count("transpose"), len(kinds))


def main(chosen: Sequence[str] = ()) -> int:
    """Check the architectures named, or all."""
    import keras

    failed = 0
    for name in chosen or names(keras):
        try:
            result = check(keras, name)
        except mlferry.errors.MlferryError as error:
            failed += 1
            print(f"{name}: {error}")
            continue
        failed += not result.error <= TOLERANCE
        shape = "x".join(map(str, result.shape))
        print(
            f"{name:20} {shape:14} {result.error:.1e} {result.layers:5} layers, "
            f"{result.transposes} transposes"
        )
    print(f"{failed} failed" if failed else "all within 1e-4 of the range of Keras's outputs")
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    sys.exit(main(sys.argv[1:]))
