"""Optimizers: how weights change with their gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping

import numpy as np

from mlferry.layers.gradients import Array


class Optimizer(ABC):
    """Changes weights in place.

    Args:
        numbers: `learningRate` and others, by their names in the format; they may change.
    """

    def __init__(self, numbers: dict[str, float]) -> None:
        self.numbers = numbers
        self.steps = 0

    def step(self, weights: Mapping[Hashable, Array], gradients: Mapping[Hashable, Array]) -> None:
        """One step of all weights.

        Args:
            weights: float32 arrays, which are changed.
            gradients: arrays of the same shapes, by the same keys.
        """
        self.steps += 1
        for key, gradient in gradients.items():
            self.move(key, weights[key], gradient)

    @abstractmethod
    def move(self, key: Hashable, weight: Array, gradient: Array) -> None:
        """One step of one weight."""


class Sgd(Optimizer):
    """v = momentum v - rate g; w = w + v."""

    def __init__(self, numbers: dict[str, float]) -> None:
        super().__init__(numbers)
        self._speed: dict[Hashable, Array] = {}

    def move(self, key: Hashable, weight: Array, gradient: Array) -> None:
        """See `Optimizer.move`."""
        rate = np.float32(self.numbers["learningRate"])
        momentum = np.float32(self.numbers.get("momentum", 0))
        if not momentum:
            weight -= rate * gradient
            return
        speed = self._speed.setdefault(key, np.zeros_like(weight))
        speed *= momentum
        speed -= rate * gradient
        weight += speed


class Adam(Optimizer):
    """Adam, with both means corrected for starting at zero (Kingma and Ba, 2015).

    m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; w = w - a m / (sqrt(v) + eps),
    where a is rate sqrt(1 - beta2^t) / (1 - beta1^t).
    """

    def __init__(self, numbers: dict[str, float]) -> None:
        super().__init__(numbers)
        self._means: dict[Hashable, tuple[Array, Array]] = {}

    def move(self, key: Hashable, weight: Array, gradient: Array) -> None:
        """See `Optimizer.move`."""
        beta1, beta2 = self.numbers["beta1"], self.numbers["beta2"]
        if key not in self._means:
            self._means[key] = (np.zeros_like(weight), np.zeros_like(weight))
        mean, square = self._means[key]
        spare = gradient - mean
        spare *= np.float32(1 - beta1)
        mean += spare
        np.square(gradient, out=spare)
        spare -= square
        spare *= np.float32(1 - beta2)
        square += spare
        rate = self.numbers["learningRate"] * np.sqrt(1 - beta2**self.steps)
        rate /= 1 - beta1**self.steps
        np.sqrt(square, out=spare)
        spare += np.float32(self.numbers["eps"])
        np.divide(mean, spare, out=spare)
        spare *= np.float32(rate)
        weight -= spare


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgdOptimizer": Sgd, "adamOptimizer": Adam}
