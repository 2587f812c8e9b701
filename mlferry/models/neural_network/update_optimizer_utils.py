"""Optimizers for training on a device: SGD or Adam, with the ranges that an app may choose from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlferry.errors import SpecError

__all__ = ["AdamParams", "Batch", "RangeParam", "SgdParams"]


class RangeParam:
    """A number, and the bounds within which an app may change it.

    Raises:
        SpecError: the lower bound is not below the upper, or the number lies outside.
    """

    value: float
    min: float
    max: float

    def __init__(self, value: float, min: float = 0, max: float = 1) -> None:
        if min >= max:
            raise SpecError(f"the lower bound {min} is not below the upper bound {max}")
        if not min <= value <= max:
            raise SpecError(f"{value} is not between {min} and {max}: give other bounds")
        self.value, self.min, self.max = value, min, max


class Batch:
    """The size of mini-batches, and the sizes that an app may choose from.

    Raises:
        SpecError: a size is not a positive integer or given twice, or the value is not among them.
    """

    value: int
    allowed_set: Sequence[int]

    def __init__(self, value: int, allowed_set: Sequence[int] | None = None) -> None:
        allowed = [value] if allowed_set is None else list(allowed_set)
        if any(number < 1 or int(number) != number for number in allowed):
            raise SpecError(f"batch sizes are positive integers, not {allowed}")
        if len(set(allowed)) < len(allowed):
            raise SpecError(f"allowed_set has a value twice: {allowed}")
        if value not in allowed:
            raise SpecError(f"the batch size {value} is none of {allowed}")
        self.value, self.allowed_set = value, allowed


class _Params:
    """The numbers of an optimizer: each is a `RangeParam`, the batch size a `Batch`."""

    lr: RangeParam
    batch: Batch

    def set_lr(self, value: float, min: float, max: float) -> None:
        """The learning rate, and its bounds."""
        self.lr = RangeParam(value, min, max)

    def set_batch(self, value: int, allowed_set: Sequence[int]) -> None:
        """The batch size, and those that are allowed."""
        self.batch = Batch(value, allowed_set)

    def fields(self) -> dict[str, dict[str, Any]]:
        """The fields of the optimizer's message, as `mlferry.spec.fields.fill` takes them."""
        numbers = {
            field: {
                "defaultValue": chosen.value,
                "range": {"minValue": chosen.min, "maxValue": chosen.max},
            }
            for field, chosen in self.numbers().items()
        }
        batch = {"defaultValue": self.batch.value, "set": {"values": self.batch.allowed_set}}
        return {**numbers, "miniBatchSize": batch}

    def numbers(self) -> dict[str, RangeParam]:
        """The numbers with bounds, by the names of their fields."""
        raise NotImplementedError


class SgdParams(_Params):
    """Stochastic gradient descent.

    Args:
        lr: the learning rate, 0 to 1 unless `set_lr` says otherwise.
        batch: the batch size.
        momentum: likewise, 0 to 1.
    """

    momentum: RangeParam

    def __init__(self, lr: float = 0.01, batch: int = 10, momentum: float = 0) -> None:
        self.lr, self.batch, self.momentum = RangeParam(lr), Batch(batch), RangeParam(momentum)

    def set_momentum(self, value: float, min: float, max: float) -> None:
        """The momentum, and its bounds."""
        self.momentum = RangeParam(value, min, max)

    def numbers(self) -> dict[str, RangeParam]:
        """See the base class."""
        return {"learningRate": self.lr, "momentum": self.momentum}


class AdamParams(_Params):
    """Adam.

    Args:
        lr: the learning rate, 0 to 1 unless `set_lr` says otherwise, like the others.
        batch: the batch size.
        beta1: the decay rate of the mean of the gradients.
        beta2: the decay rate of the mean of their squares.
        eps: added to the divisor.
    """

    beta1: RangeParam
    beta2: RangeParam
    eps: RangeParam

    def __init__(
        self,
        lr: float = 0.01,
        batch: int = 10,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        self.lr, self.batch = RangeParam(lr), Batch(batch)
        self.beta1, self.beta2, self.eps = RangeParam(beta1), RangeParam(beta2), RangeParam(eps)

    def set_beta1(self, value: float, min: float, max: float) -> None:
        """The decay rate of the mean of the gradients, and its bounds."""
        self.beta1 = RangeParam(value, min, max)

    def set_beta2(self, value: float, min: float, max: float) -> None:
        """The decay rate of the mean of the squares, and its bounds."""
        self.beta2 = RangeParam(value, min, max)

    def set_eps(self, value: float, min: float, max: float) -> None:
        """The number added to the divisor, and its bounds."""
        self.eps = RangeParam(value, min, max)

    def numbers(self) -> dict[str, RangeParam]:
        """See the base class."""
        return {
            "learningRate": self.lr,
            "beta1": self.beta1,
            "beta2": self.beta2,
            "eps": self.eps,
        }
