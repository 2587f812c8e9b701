"""Make a converted network trainable on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlferry.errors import SpecError
from mlferry.layers.training import TrainingOptions, carries_gradient
from mlferry.models.datatypes import Array
from mlferry.models.neural_network.builder import NeuralNetworkBuilder
from mlferry.models.neural_network.update_optimizer_utils import AdamParams, SgdParams
from mlferry.spec import networks
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn

_BATCHES = [1, 16, 32]  # what an app chooses from, as in coremltools


_OPTIMIZERS = {"SGD": SgdParams, "Adam": AdamParams}


def make_trainable(spec: model_pb2.Model, layers: Sequence[str], options: TrainingOptions) -> None:
    """Allow apps to train layers of a network, in place.

    Args:
        spec: a network in exact array mapping.
        layers: names of convolutions and inner products.
        options: of the training; the loss is on the first output.

    Raises:
        SpecError: the loss does not fit the output.
    """
    network = networks.network_of(spec)
    assert network is not None
    blob = spec.description.output[0].name
    if isinstance(network, nn.NeuralNetworkClassifier):
        blob = network.labelProbabilityLayerName
    if options.loss == "cross entropy":
        blob = _with_classic_softmax(spec, network, blob)
    builder = NeuralNetworkBuilder(spec=spec)
    builder.make_updatable(layers)
    builder.set_epochs(1)
    if options.loss == "cross entropy":
        builder.set_categorical_cross_entropy_loss("loss_layer", blob)
        _name_target(spec, network, f"{spec.description.output[0].name}_true")
    elif options.loss is not None:
        shape = spec.description.output[0].type.multiArrayType.shape
        if not shape:
            raise SpecError("the squared error is of numbers of a known shape; see class_labels")
        builder.set_mean_squared_error_loss("loss_layer", (blob, Array(*shape)))
    if options.optimizer is not None:
        _set_optimizer(builder, options)


def _name_target(spec: model_pb2.Model, network: networks.Network, name: str) -> None:
    """Name the target after the output, as apps do, not after a blob before it."""
    loss = network.updateParams.lossLayers[-1].categoricalCrossEntropyLossLayer
    for feature in spec.description.trainingInput:
        if feature.name == loss.target:
            feature.name = name
    loss.target = name


def _set_optimizer(builder: NeuralNetworkBuilder, options: TrainingOptions) -> None:
    params: Any = _OPTIMIZERS[options.optimizer or ""]()
    for name, value in options.numbers.items():
        getattr(params, f"set_{name}")(value, 0.0, max(1.0, value))
    params.set_batch(16, _BATCHES)
    if isinstance(params, SgdParams):
        builder.set_sgd_optimizer(params)
    else:
        builder.set_adam_optimizer(params)


def _with_classic_softmax(spec: model_pb2.Model, network: networks.Network, blob: str) -> str:
    """The blob that the cross entropy reads: the output of a `softmax`, which takes [1, C, 1, 1].

    A `softmaxND` of [1, C] is moved to that shape, with the layers before it that have a gradient:
    one layer before it adds the axes, and one after the loss drops them.
    """
    makers = {name: layer for layer in network.layers for name in layer.output}
    last = makers.get(blob)
    if last is None or last.WhichOneof("layer") != "softmaxND":
        return blob
    chain = _chain(network, makers, last)
    names = [layer.name for layer in network.layers]
    classifies = isinstance(network, nn.NeuralNetworkClassifier)
    first = chain[0]
    source, wide = first.input[0], f"{first.input[0]}_as_channels"
    before = nn.NeuralNetworkLayer(name=wide, input=[source], output=[wide])
    before.expandDims.axes.extend([2, 3])
    first.input[0] = wide
    last.softmax.SetInParent()
    if not classifies:
        narrow = blob
        blob = f"{blob}_as_channels"
        last.output[0] = blob
        after = nn.NeuralNetworkLayer(name=blob, input=[blob], output=[narrow])
        after.squeeze.axes.extend([2, 3])
        network.layers.insert(names.index(last.name) + 1, after)
    network.layers.insert(names.index(first.name), before)
    return blob


def _chain(
    network: networks.Network,
    makers: Mapping[str, nn.NeuralNetworkLayer],
    last: nn.NeuralNetworkLayer,
) -> list[nn.NeuralNetworkLayer]:
    """The layers before a softmax that nothing else reads, back to one without a gradient.

    All of them take [1, C, 1, 1] in the place of [1, C].
    """
    readers: dict[str, int] = {}
    for layer in networks.layers_of(network):
        for name in layer.input:
            readers[name] = readers.get(name, 0) + 1
    chain = [last]
    while True:
        blob = chain[0].input[0]
        maker = makers.get(blob)
        if maker is None or readers[blob] > 1 or not _takes_channels(maker):
            return chain
        chain.insert(0, maker)


def _takes_channels(layer: nn.NeuralNetworkLayer) -> bool:
    kinds = ("innerProduct", "activation")
    return layer.WhichOneof("layer") in kinds and carries_gradient(layer)
