"""The methods of `NeuralNetworkBuilder` for training on a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlferry.errors import SpecError
from mlferry.layers.training import mark_updatable, updatable_kinds
from mlferry.models.datatypes import Array, add_features, training_inputs
from mlferry.models.neural_network.update_optimizer_utils import AdamParams, SgdParams
from mlferry.registry import did_you_mean
from mlferry.spec import fields, networks, weights
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn
from mlferry.text import logger_of

logger = logger_of(__name__)


class Training:
    """The methods that make a network updatable."""

    nn_spec: networks.Network
    layers: list[str]
    layer_specs: dict[str, Any]

    @property
    def model(self) -> model_pb2.Model:
        """The model that is built."""
        raise NotImplementedError

    def needs_version(self, version: int) -> None:
        """Raise the specification version of the model to this one if it is lower."""
        raise NotImplementedError

    def set_training_input(self, training_input: Sequence[tuple[str, Any]]) -> None:
        """Add training inputs: pairs of a name and a type."""
        training_inputs(self.model, training_input)

    def make_updatable(self, trainables: Sequence[str]) -> None:
        """Allow apps to train these layers, with shuffled samples.

        You also have to set a loss, an optimizer and epochs.

        Args:
            trainables: names of convolutions and inner products, with weights of float32.

        Raises:
            SpecError: there is no such layer, it is of another kind, or a weight of the model is
                of half precision.
        """
        for name in trainables:
            self._check_trainable(name)
        halves = [
            weight.layer.name
            for weight in weights.iter_weights(self.nn_spec)
            if weight.message.float16Value
        ]
        if halves:
            raise SpecError(
                f"layer {halves[0]!r} has weights of half precision, and such networks cannot be "
                "trained: train before quantize_weights, or put the layers to be trained into a "
                "model of their own, the last one of a pipeline"
            )
        self.model.isUpdatable = True
        self.needs_version(4)
        self.set_shuffle()
        for name in trainables:
            mark_updatable(self.layer_specs[name])

    def _check_trainable(self, name: str) -> None:
        layer = self.layer_specs.get(name)
        kind = layer.WhichOneof("layer") if isinstance(layer, nn.NeuralNetworkLayer) else "loss"
        if layer is None:
            raise SpecError(f"there is no layer {name!r}.{did_you_mean(name, self.layers)}")
        if kind not in updatable_kinds():
            raise SpecError(
                f"layer {name!r} is of the kind {kind}; an app can train "
                f"{' and '.join(updatable_kinds())}"
            )

    def set_categorical_cross_entropy_loss(self, name: str, input: str) -> None:
        """Set the loss to the cross entropy of probabilities and labels.

        The inputs become training inputs, and so does the target: ``<input>_true``, an index,
        or of a classifier's probabilities its label.

        Args:
            name: of the loss.
            input: the output of a softmax.

        Raises:
            SpecError: the name is used, or there is no softmax that makes `input`.
        """
        kinds = {
            blob: layer.WhichOneof("layer")
            for layer in self.nn_spec.layers
            for blob in layer.output
        }
        if kinds.get(input) != "softmax":
            softmaxes = [blob for blob, kind in kinds.items() if kind == "softmax"]
            raise SpecError(
                f"the cross entropy is of what a softmax layer makes; {input!r} is not. There "
                f"{'is ' + ', '.join(map(repr, softmaxes)) if softmaxes else 'is none'}"
            )
        target = self._new_target(name, input)
        loss = self._add_loss(name).categoricalCrossEntropyLossLayer
        loss.input, loss.target = input, target
        description = self.model.description
        label = description.predictedFeatureName
        is_classifier = isinstance(self.nn_spec, nn.NeuralNetworkClassifier)
        inputs = description.trainingInput
        inputs.extend(description.input)
        if is_classifier and input == description.predictedProbabilitiesName:
            inputs.add().CopyFrom(next(out for out in description.output if out.name == label))
        else:
            add_features(inputs, [(target, Array(1))], array_type=ft.ArrayFeatureType.INT32)
        logger.info("%r is a training input: the target of the loss %r", inputs[-1].name, name)

    def set_mean_squared_error_loss(
        self, name: str, input_feature: tuple[str, Array] | None = None
    ) -> None:
        """Set the loss to the mean squared difference from given numbers.

        The inputs become training inputs, and so does the target, ``<input>_true``.

        Args:
            name: of the loss.
            input_feature: the blob to compare, and its `datatypes.Array`.

        Raises:
            SpecError: the name is used, or `input_feature` is not such a pair.
        """
        match input_feature:
            case (str(blob), Array() as kind):
                pass
            case _:
                raise SpecError(
                    "input_feature is a pair of a name and a datatypes.Array: "
                    f"('scores', Array(10)), not {input_feature!r}"
                )
        target = self._new_target(name, blob)
        loss = self._add_loss(name).meanSquaredErrorLossLayer
        loss.input, loss.target = blob, target
        inputs = self.model.description.trainingInput
        inputs.extend(self.model.description.input)
        add_features(inputs, [(target, kind)])
        logger.info("%r is a training input: the target of the loss %r", target, name)

    def _new_target(self, name: str, blob: str) -> str:
        target = f"{blob}_true"
        if name in self.layer_specs:
            raise SpecError(f"there is a layer {name!r} already")
        if any(output.name == target for output in self.model.description.output):
            raise SpecError(f"the loss compares with {target!r}, which is an output: rename it")
        return target

    def _add_loss(self, name: str) -> Any:
        loss = self._update_params().lossLayers.add(name=name)
        self.layers.append(name)
        self.layer_specs[name] = loss
        return loss

    def _update_params(self) -> nn.NetworkUpdateParameters:
        """The training parameters; a network without a model around it has none."""
        assert self.model is not None
        return self.nn_spec.updateParams

    def set_sgd_optimizer(self, sgd_params: SgdParams) -> None:
        """Train by stochastic gradient descent.

        Raises:
            SpecError: `sgd_params` is not an `SgdParams`.
        """
        self._set_optimizer("sgdOptimizer", sgd_params, SgdParams)

    def set_adam_optimizer(self, adam_params: AdamParams) -> None:
        """Train by Adam.

        Raises:
            SpecError: `adam_params` is not an `AdamParams`.
        """
        self._set_optimizer("adamOptimizer", adam_params, AdamParams)

    def _set_optimizer(
        self, kind: str, value: object, expected: type[SgdParams | AdamParams]
    ) -> None:
        if not isinstance(value, expected):
            raise SpecError(f"give a {expected.__name__}, not a {type(value).__name__}")
        optimizer = self._update_params().optimizer
        optimizer.Clear()
        fields.fill(getattr(optimizer, kind), value.fields())

    def set_epochs(self, epochs: int = 1, allowed_set: Sequence[int] | None = None) -> None:
        """Set how often training goes through the samples.

        Args:
            epochs: the default.
            allowed_set: what an app may choose from; by default `epochs` alone.

        Raises:
            SpecError: `epochs` is none of them, or one is not positive.
        """
        allowed = [epochs] if allowed_set is None else list(allowed_set)
        if epochs not in allowed or any(number < 1 for number in allowed):
            raise SpecError(f"epochs={epochs} and allowed_set={allowed}: positive, one of the set")
        target = self._update_params().epochs
        target.defaultValue = epochs
        target.set.values[:] = allowed

    def set_shuffle(self, seed: int | None = None) -> None:
        """Shuffle the samples before every epoch.

        Raises:
            SpecError: the seed is not an integer.
        """
        if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
            raise SpecError(f"the seed is an integer, not {seed!r}")
        params = self._update_params()
        params.shuffle.defaultValue = True
        if seed is not None:
            params.seed.defaultValue = seed
