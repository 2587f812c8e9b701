"""The training parameters of a model, and which of them a caller may change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlferry import limits
from mlferry.errors import SpecError
from mlferry.registry import did_you_mean
from mlferry.spec import networks
from mlferry.spec.proto import features_pb2 as ft
from mlferry.training.optimizers import OPTIMIZERS, Optimizer

Parameters = Mapping[str, float]

_NUMBERS = {
    "sgdOptimizer": ("learningRate", "momentum"),
    "adamOptimizer": ("learningRate", "beta1", "beta2", "eps"),
}

_COUNTS = ("miniBatchSize", "epochs", "numberOfNeighbors")
_WHOLE = (*_COUNTS, "seed", "shuffle")


@dataclass(frozen=True)
class Moment:
    """The state of a training after an epoch.

    Attributes:
        epoch: the epoch that has ended, from 1.
        epochs: how many there are.
        loss: the mean over the samples of the epoch.
        losses: of each mini-batch of the epoch, before its step.
        parameters: the parameters of this epoch.
    """

    epoch: int
    epochs: int
    loss: float
    losses: Sequence[float]
    parameters: Parameters


# Called after every epoch; returns parameters to change from now on, False to stop, or None.
Progress = Callable[[Moment], Mapping[str, float] | bool | None]


class TrainingParameters:
    """The parameters of a training: the model's own, or those that a caller sets instead.

    Args:
        network: an updatable network.
        wanted: parameters by the names of `MLParameterKey`: learningRate, momentum, beta1,
            beta2, eps, miniBatchSize, epochs, seed, shuffle.

    Raises:
        SpecError: the model has no such parameter, or does not allow the value; or the model
            lacks an optimizer or one of its numbers.
        LimitError: the model asks for more epochs than `mlferry.limits` allows.
    """

    def __init__(self, network: networks.Network, own: Parameters) -> None:
        update = network.updateParams
        self.kind = update.optimizer.WhichOneof("OptimizerType") or ""
        if self.kind not in OPTIMIZERS:
            raise SpecError("the model is updatable and has no optimizer: SGD or Adam")
        optimizer: Any = getattr(update.optimizer, self.kind)
        self._messages: dict[str, Any] = {
            name: getattr(optimizer, name)
            for name in _NUMBERS[self.kind]
            if name != "momentum" or optimizer.HasField(name)
        }
        self._messages["miniBatchSize"] = optimizer.miniBatchSize
        self._messages["epochs"] = update.epochs
        self._messages["seed"] = update.seed
        self._messages["shuffle"] = update.shuffle
        self.values: dict[str, float] = {
            name: message.defaultValue for name, message in self._messages.items()
        }
        for name in ("miniBatchSize", "epochs"):
            if name not in own and self.values[name] < 1:
                raise SpecError(f"the model does not set {name}: give parameters={{{name!r}: 1}}")
        if "epochs" not in own:
            limits.check("rounds", self.values["epochs"], "the epochs that the model asks for are")
        self.change(own)

    def change(self, own: Parameters) -> None:
        """Set other values.

        Raises:
            SpecError: see the class.
        """
        for name, value in own.items():
            if name not in self._messages:
                names = list(self._messages)
                raise SpecError(
                    f"this model is trained with no parameter {name!r}; there are "
                    f"{', '.join(names)}.{did_you_mean(name, names)}"
                )
            check_number(name, value, self._messages[name])
            self.values[name] = value

    def optimizer(self) -> Optimizer:
        """A new optimizer with these numbers."""
        return OPTIMIZERS[self.kind](self.values)


def check_number(
    name: str, value: float, message: ft.Int64Parameter | ft.DoubleParameter | ft.BoolParameter
) -> None:
    """Raise a `SpecError` if a parameter cannot have a value, or the model does not allow it."""
    whole = name in _WHOLE
    if not isinstance(value, int | float) or (whole and value != int(value)):
        raise SpecError(f"{name} is {'an integer' if whole else 'a number'}, not {value!r:.80}")
    if name in _COUNTS and value < 1:
        raise SpecError(f"{name} is {value}; it is positive")
    if isinstance(message, ft.BoolParameter):
        return
    kind = message.WhichOneof("AllowedValues")
    if kind == "range" and not message.range.minValue <= value <= message.range.maxValue:
        raise SpecError(
            f"{name}={value} is outside of what the model allows, {message.range.minValue:g} to "
            f"{message.range.maxValue:g}; a device refuses it, too"
        )
    if isinstance(message, ft.Int64Parameter) and kind == "set" and value not in message.set.values:
        allowed = ", ".join(map(str, message.set.values))
        raise SpecError(
            f"{name}={value} is none of the values that the model allows: {allowed}; a device "
            "refuses it, too"
        )
