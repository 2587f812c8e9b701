"""Training of an updatable network, as `MLUpdateTask` does it on a device."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlferry.errors import PredictionError, SpecError
from mlferry.layers.gradients import Array
from mlferry.runtime.custom import CustomClasses
from mlferry.runtime.planned.regions import overwritten
from mlferry.runtime.session import Session
from mlferry.spec import networks, weights
from mlferry.training.batches import Batches, Blobs
from mlferry.training.losses import Loss, loss_of
from mlferry.training.options import Moment, Parameters, Progress, TrainingParameters
from mlferry.training.tape import Tape

# The most bytes to keep of what layers before the first trained one return for all samples.
_REMEMBERED = 1 << 29


@dataclass(frozen=True)
class TrainingSample:
    """The inputs of a sample, and the target that the loss compares with."""

    blobs: Blobs
    target: Array


class NetworkTrainer:
    """Trains a network.

    Args:
        network: an updatable network; it is changed only by `write`.
        custom_layers: classes for its custom layers.
        session: evaluates the layers before the first trained one.
        parameters: see `TrainingParameters`.

    Raises:
        SpecError: the network has no loss, no optimizer, or no layer to train.
    """

    def __init__(
        self,
        network: networks.Network,
        custom_layers: CustomClasses | None,
        session: Session,
        parameters: Parameters,
    ) -> None:
        self.network, self.session = network, session
        self.loss: Loss = loss_of(network)
        self.parameters = TrainingParameters(network, parameters)
        self.tape = Tape(network, custom_layers, planned=False)
        self.messages = _trained_weights(network)
        self.weights: dict[Hashable, Array] = {}
        for (layer, path), weight in self.messages.items():
            values = weights.stored(weight.message)
            self.weights[layer, path] = np.array(values, np.float32)
        self.trained = {
            layer: frozenset(path for other, path in self.messages if other == layer)
            for layer, _ in self.messages
        }
        for params in self.tape.layer_params():
            for path in self.trained.get(params.name, ()):
                params.give(path, self.weights[params.name, path])
        self.batches = Batches(self.tape, [self.loss.input])

    # ---- what comes before what is trained ---------------------------------------------------

    def _border(self) -> list[str]:
        """The blobs of other layers that the trained layers, and those after them, read."""
        outputs = frozenset([self.loss.input])
        steps = self.tape.needed(outputs)
        live: set[str] = set()
        behind = []
        for step in steps:
            inner = {params.name for params in self.tape.layer_params([step])}
            if step.reads & live or inner & self.trained.keys():
                live |= step.writes
                behind.append(step)
        several = overwritten(steps)
        reads = {name for step in behind for name in step.reads} - live
        fixed = self._independent()
        border = sorted(reads - fixed)
        is_random = any(step.params.kind.startswith(("random", "categorical")) for step in steps)
        return [] if is_random or several & set(border) else border

    def _independent(self) -> set[str]:
        """The blobs that are the same for every sample."""
        computed = {
            name for step in self.tape.needed(frozenset(self.tape.blobs)) for name in step.writes
        }
        varying = self.tape.blobs - computed  # the inputs
        for step in self.tape.needed(frozenset(self.tape.blobs)):
            if step.reads & varying:
                varying |= step.writes
        return set(self.tape.blobs) - varying

    def _prepared(self, samples: Sequence[TrainingSample]) -> list[TrainingSample]:
        """The samples as the trained layers read them, if that is worth the memory."""
        border = self._border()
        if not border or all(name in samples[0].blobs for name in border):
            return list(samples)
        prepared: list[TrainingSample] = []
        for sample in samples:
            blobs = self.session.run(sample.blobs, border)
            if not prepared and sum(x.nbytes for x in blobs.values()) * len(samples) > _REMEMBERED:
                return list(samples)
            prepared.append(
                TrainingSample({name: x.copy() for name, x in blobs.items()}, sample.target)
            )
        return prepared

    # ---- training ------------------------------------------------------------------------------

    def train(self, samples: Sequence[TrainingSample], progress: Progress | None) -> list[float]:
        """Train, and return the losses of all mini-batches, each before its step.

        Args:
            samples: at least one.
            progress: called after every epoch.

        Raises:
            PredictionError: a sample does not fit, or a loss is not a finite number.
            SpecError: `progress` asks for a parameter that the model does not allow.
        """
        prepared = self._prepared(samples)
        optimizer = self.parameters.optimizer()
        numbers = self.parameters.values
        rng = np.random.default_rng(int(numbers["seed"]) % 2**64)
        losses: list[float] = []
        epoch = 0
        while epoch < int(numbers["epochs"]):
            epoch += 1
            order = np.arange(len(prepared))
            if numbers["shuffle"]:
                rng.shuffle(order)
            size = int(numbers["miniBatchSize"])
            step_losses: list[float] = []
            total = 0.0
            for first in range(0, len(order), size):
                batch = [prepared[index] for index in order[first : first + size]]
                with np.errstate(all="ignore"):
                    value, gradients = self.gradients(batch)
                if not np.isfinite(value):
                    raise PredictionError(
                        f"the loss is {value} in step {len(step_losses) + 1} of epoch {epoch}: "
                        f"a smaller rate may hold, parameters={{'learningRate': "
                        f"{numbers['learningRate'] / 10:g}}}"
                    )
                optimizer.step(self.weights, gradients)
                step_losses.append(value)
                total += value * len(batch)
            losses += step_losses
            if progress is None:
                continue
            moment = Moment(
                epoch, int(numbers["epochs"]), total / len(order), tuple(step_losses), dict(numbers)
            )
            answer = progress(moment)
            if answer is False:
                break
            if isinstance(answer, Mapping):
                self.parameters.change(answer)
        return losses

    def gradients(self, batch: Sequence[TrainingSample]) -> tuple[float, dict[Hashable, Array]]:
        """The loss of a batch and its gradients, by layer and field, in the weights' shapes.

        Raises:
            PredictionError: a sample does not fit the network.
        """
        value, total = 0.0, dict[Hashable, Array]()
        for places in self.batches.parts([sample.blobs for sample in batch]):
            share = len(places) / len(batch)
            loss, slopes = self._of_joined([batch[place] for place in places])
            value += loss * share
            for key, gradient in slopes.items():
                flat = gradient.reshape(-1)
                flat = flat if share == 1 else flat * np.float32(share)
                total[key] = flat if key not in total else total[key] + flat
        return value, total

    def _of_joined(
        self, batch: Sequence[TrainingSample]
    ) -> tuple[float, dict[tuple[str, str], Array]]:
        blobs = self.batches.joined([sample.blobs for sample in batch])
        outputs, recording = self.tape.record(blobs, [self.loss.input], trained=self.trained)
        value, blob, gradient = self.loss.start(
            recording, outputs[self.loss.input], [sample.target for sample in batch]
        )
        slopes = self.tape.back(recording, {blob: gradient})
        return value, slopes.weights

    def write(self) -> None:
        """Store the trained weights in the network."""
        for key, weight in self.messages.items():
            weights.write(weight.message, self.weights[key])
            weight.message.isUpdatable = True


def _trained_weights(network: networks.Network) -> dict[tuple[str, str], weights.Weight]:
    """The weights of updatable layers, by layer and field."""
    trained: dict[tuple[str, str], weights.Weight] = {}
    names = [layer.name for layer in networks.layers_of(network)]
    for weight in weights.iter_weights(network):
        if not weight.layer.isUpdatable or not weight.message.isUpdatable:
            continue
        name = weight.layer.name
        if names.count(name) > 1:
            raise SpecError(f"{names.count(name)} layers are named {name!r}; trained ones differ")
        encoding = weights.encoding(weight.message)
        if encoding is None or encoding.kind != weights.FLOAT32:
            raise SpecError(
                f"{weight.path} of layer {name!r} are {encoding}; trained weights are float32"
            )
        trained[name, weight.path.partition(".")[2]] = weight
    if not trained:
        raise SpecError(
            "the model is updatable, and none of its weights is: mark layers with "
            "NeuralNetworkBuilder(spec=...).make_updatable(['name'])"
        )
    return trained
