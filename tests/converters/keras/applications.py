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
            found = {} if size is None else {"input_shape": size}
            return getattr(keras.applications, name)(**options, **found)
        except ValueError:
            continue
    raise ValueError(f"{name} takes none of {SIZES}")


def randomize(model: Any, rng: np.random.Generator) -> None:
    """Statistics and shifts of normalizations that let signals through every depth."""
    ranges = {
        "gamma": (0.5, 1.5), "beta": (-0.5, 0.5), "moving_mean": (-0.2, 0.2),
        "moving_variance": (0.5, 1.5),
    }  # fmt: skip
    for weight in model.weights:
        low_high = ranges.get(weight.name)
        if low_high is not None:
            weight.assign(rng.uniform(*low_high, weight.shape))


def check(keras: Any, name: str) -> Result:
    """Convert one architecture and compare it."""
    rng = np.random.default_rng(7)
    model = build(keras, name)
    randomize(model, rng)
    converted = mlferry.convert(model)
    x = rng.uniform(-1, 1, (1, *model.input_shape[1:])).astype(np.float32)
    description = converted.get_spec().description
    made = converted.predict({description.input[0].name: x})[description.output[0].name]
    expected = np.asarray(model(x, training=False))
    kinds = [layer.WhichOneof("layer") for layer in converted.get_spec().neuralNetwork.layers]
    error = float(np.abs(made - expected).max() / np.ptp(expected))
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
