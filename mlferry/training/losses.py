"""The losses of updatable networks: the loss of a batch, and the gradient it starts with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlferry.errors import PredictionError, SpecError
from mlferry.layers.gradients import Array
from mlferry.spec import networks
from mlferry.spec.proto import neural_network_pb2 as nn
from mlferry.training.tape import Recording

_LEAST = np.float32(1e-38)  # 0 has no logarithm


class Loss(ABC):
    """A loss of a network.

    Attributes:
        name: of its layer.
        input: the blob that is compared.
        target: the feature that it is compared with.
    """

    def __init__(self, name: str, input: str, target: str) -> None:
        self.name, self.input, self.target = name, input, target

    @abstractmethod
    def prepared(self, value: Array, name: str) -> Array:
        """The target of one sample in the form that `start` takes.

        Args:
            value: as the user gave it.
            name: of its feature, for messages.

        Raises:
            PredictionError: it does not fit the network's output.
        """

    @abstractmethod
    def start(
        self, recording: Recording, output: Array, targets: Sequence[Array]
    ) -> tuple[float, str, Array]:
        """The loss of a batch (its mean over the samples), and the gradient to start with.

        Args:
            recording: of the run that made `output`.
            output: the input of the loss, of all samples.
            targets: one for each sample, in the order of the batch axis.

        Returns:
            the loss, and a blob with its gradient.

        Raises:
            PredictionError: targets do not fit the values.
        """


class CrossEntropy(Loss):
    """The mean of the negative log probability of the true class; the targets are indices."""

    def prepared(self, value: Array, name: str) -> Array:
        """See `Loss.prepared`."""
        index = np.asarray(value)
        if index.size != 1 or index.reshape(-1)[0] != int(index.reshape(-1)[0]):
            raise PredictionError(
                f"the target {name!r} is the index of the true class, one integer; it is "
                f"{value!r:.80}"
            )
        return index.reshape(-1).astype(np.int64)

    def start(
        self, recording: Recording, output: Array, targets: Sequence[Array]
    ) -> tuple[float, str, Array]:
        """See `Loss.start`. It starts before the softmax, so that nothing is divided by 0."""
        chances = _apart(output, len(targets))
        truth = np.zeros_like(chances)
        for row, target in enumerate(targets):
            index = int(target[0])
            if not 0 <= index < chances.shape[1]:
                raise PredictionError(
                    f"a target of {self.target!r} is {index}; there are {chances.shape[1]} "
                    f"classes, 0 to {chances.shape[1] - 1}"
                )
            truth[row, index] = 1
        true = np.maximum(chances[truth == 1], _LEAST)
        value = float(-np.log(true).mean())
        softmax = next(
            (each for each in reversed(recording.runs) if self.input in each.step.outputs), None
        )
        if softmax is None or not softmax.step.params.kind.startswith("softmax"):
            gradient = -truth / np.maximum(chances, _LEAST) / np.float32(len(targets))
            return value, self.input, _like(gradient, output)
        recording.runs.remove(softmax)
        gradient = (chances - truth) / np.float32(len(targets))
        return value, softmax.step.inputs[0], _like(gradient, output)


class SquaredError(Loss):
    """The mean of the squared differences, over the samples and their values."""

    def prepared(self, value: Array, name: str) -> Array:
        """See `Loss.prepared`."""
        try:
            return np.asarray(value, np.float32).reshape(-1)
        except (TypeError, ValueError):
            raise PredictionError(
                f"the target {name!r} is an array of numbers, not {value!r:.80}"
            ) from None

    def start(
        self, recording: Recording, output: Array, targets: Sequence[Array]
    ) -> tuple[float, str, Array]:
        """See `Loss.start`."""
        values = _apart(output, len(targets))
        for target in targets:
            if target.size != values.shape[1]:
                raise PredictionError(
                    f"a target of {self.target!r} has {target.size} values; {self.input!r} has "
                    f"{values.shape[1]}"
                )
        difference = values - np.stack(targets)
        gradient = difference * np.float32(2 / difference.size)
        return float(np.square(difference).mean()), self.input, _like(gradient, output)


def _apart(output: Array, count: int) -> Array:
    """[samples, values]: the batch axis is the only leading one that is not 1."""
    return output.reshape(count, -1)


def _like(gradient: Array, output: Array) -> Array:
    return gradient.astype(output.dtype, copy=False).reshape(output.shape)


_KINDS: dict[str, type[Loss]] = {
    "categoricalCrossEntropyLossLayer": CrossEntropy,
    "meanSquaredErrorLossLayer": SquaredError,
}


def loss_of(network: networks.Network) -> Loss:
    """The loss of an updatable network.

    Raises:
        SpecError: there is none, or several.
    """
    layers = list(network.updateParams.lossLayers)
    if len(layers) != 1:
        raise SpecError(f"the model is updatable and has {len(layers)} losses; it needs one")
    return _made(layers[0])


def _made(layer: nn.LossLayer) -> Loss:
    kind = layer.WhichOneof("LossLayerType")
    if kind not in _KINDS:
        raise SpecError(f"the loss {layer.name!r} is of an unknown kind")
    message: Any = getattr(layer, kind)
    return _KINDS[kind](layer.name, message.input, message.target)
