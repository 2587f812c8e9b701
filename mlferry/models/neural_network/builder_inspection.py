"""The methods ``inspect_*`` of `NeuralNetworkBuilder`, which print facts about a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mlferry.errors import SpecError
from mlferry.models.neural_network.summaries import parameters_of, write
from mlferry.registry import did_you_mean
from mlferry.spec import features, networks
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn


class Inspection:
    """The methods that show layers, features and training."""

    nn_spec: networks.Network
    layer_specs: dict[str, Any]

    @property
    def model(self) -> model_pb2.Model:
        """The model that is built."""
        raise NotImplementedError

    def inspect_layers(self, last: int = -1, verbose: bool = False) -> None:
        """Show layers, the last one first.

        Args:
            last: how many; by default all.
            verbose: whether to show their parameters as well.
        """
        layers = list(enumerate(self.nn_spec.layers))[::-1]
        for index, layer in layers if last < 0 else layers[:last]:
            details: list[tuple[str, Any]] = [("Updatable", layer.isUpdatable), *_blobs(layer)]
            if verbose:
                details += parameters_of(layer)
            _show(f"[Id: {index}] ", layer.name, layer.WhichOneof("layer"), details)

    def inspect_updatable_layers(self) -> None:
        """Show the layers that an app can train, the last one first."""
        for layer in reversed(self.nn_spec.layers):
            if layer.isUpdatable:
                _show("", layer.name, layer.WhichOneof("layer"), _blobs(layer))

    def inspect_loss_layers(self) -> None:
        """Show the losses."""
        losses = list(enumerate(self.nn_spec.updateParams.lossLayers))[::-1]
        if not losses:
            write("There is no loss.")
        for index, loss in losses:
            kind = loss.WhichOneof("LossLayerType")
            compared = getattr(loss, kind)
            details = [("Loss input", compared.input), ("Loss target", compared.target)]
            _show(f"[Id: {index}] ", loss.name, kind, details)

    def inspect_optimizer(self) -> None:
        """Show the optimizer: every number with its bounds or allowed values."""
        optimizer = self.nn_spec.updateParams.optimizer
        kind = optimizer.WhichOneof("OptimizerType")
        write(f"Optimizer: {kind or 'none'}")
        if kind is None:
            return
        for field, number in getattr(optimizer, kind).ListFields():
            if number.HasField("range"):
                allowed = f"{number.range.minValue} to {number.range.maxValue}"
            else:
                allowed = f"one of {list(number.set.values)}"
            write(f"{field.name}: {number.defaultValue}, {allowed}")

    def inspect_input_features(self) -> None:
        """Show the inputs, the last one first."""
        _show_features(self.model.description.input)

    def inspect_output_features(self) -> None:
        """Show the outputs, the last one first."""
        _show_features(self.model.description.output)

    def inspect_conv_channels(self, layer_name: str) -> None:
        """Show how many channels a convolution makes and reads.

        Raises:
            SpecError: there is no such convolution.
        """
        self._show_fields(layer_name, "convolution", ("outputChannels", "kernelChannels"))

    def inspect_innerproduct_channels(self, layer_name: str) -> None:
        """Show how many channels an inner product reads and makes.

        Raises:
            SpecError: there is no such inner product.
        """
        self._show_fields(layer_name, "innerProduct", ("inputChannels", "outputChannels"))

    def _show_fields(self, name: str, kind: str, fields: Sequence[str]) -> None:
        layer = self.layer_specs.get(name)
        if layer is None:
            close = did_you_mean(name, list(self.layer_specs))
            raise SpecError(f"there is no layer {name!r}.{close}")
        own_kind = layer.WhichOneof("layer") if isinstance(layer, nn.NeuralNetworkLayer) else "loss"
        if own_kind != kind:
            raise SpecError(f"layer {name!r} is of the kind {own_kind}, not {kind}")
        for field in fields:
            write(f"{field}: {getattr(getattr(layer, kind), field)}")


def _blobs(layer: nn.NeuralNetworkLayer) -> list[tuple[str, Any]]:
    return [("Input blobs", list(layer.input)), ("Output blobs", list(layer.output))]


def _show(number: str, name: str, kind: str | None, details: Iterable[tuple[str, Any]]) -> None:
    write(f"{number}Name: {name} (Type: {kind})")
    for label, value in details:
        write(f"{'':10}{label}: {value}")


def _show_features(described: Sequence[Any]) -> None:
    for index, feature in reversed(list(enumerate(described))):
        write(f"[Id: {index}] Name: {feature.name}")
        write(f"{'':10}Type: {features.show(feature.type)}")
