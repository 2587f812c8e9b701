"""Rules about updatable models. A model that breaks them predicts, but cannot be trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from mlferry.errors import SpecError
from mlferry.layers.training import carries_gradient, updatable_kinds
from mlferry.layers.validate.rules import model_rule, network_rule
from mlferry.spec import features, networks, weights
from mlferry.spec.problems import Problems, hint, listed, warning
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn

# The required and the optional numbers of an optimizer.
_NUMBERS = {
    "sgdOptimizer": (("learningRate",), ("momentum",)),
    "adamOptimizer": (("learningRate", "beta1", "beta2", "eps"), ()),
}


@network_rule
def marks_belong_to_updatable_models(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """Only updatable models have trainable layers."""
    if spec.isUpdatable:
        return
    marked = [layer.name for layer in networks.layers_of(network) if layer.isUpdatable]
    if marked:
        yield warning(
            f"isUpdatable is set on the layers {listed(marked)}, but not on the model", "model"
        )


@network_rule
def updatable_layers(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """Trainable layers are convolutions and inner products, with marked float32 weights."""
    if not spec.isUpdatable:
        return
    trained = [layer for layer in networks.layers_of(network) if layer.isUpdatable]
    if not trained:
        yield warning("the model is updatable, and none of its layers is", "model")
    for layer in trained:
        kind = layer.WhichOneof("layer")
        if kind not in updatable_kinds():
            allowed = " and ".join(updatable_kinds())
            yield warning(
                f"isUpdatable is set on a {kind}; possible are {allowed}",
                f"{layer.WhichOneof('layer')} {layer.name!r}",
            )
            continue
        for weight in weights.iter_weights(layer):
            yield from _weight_is_trained(weight)


def _weight_is_trained(weight: weights.Weight) -> Problems:
    where, field = f"{weight.kind} {weight.layer.name!r}", weight.path.split(".")[-1]
    try:
        encoding = weights.encoding(weight.message)
    except SpecError:
        return  # the rules about weights report it
    if encoding is not None and encoding.kind != weights.FLOAT32:
        yield warning(f"its {field} are {encoding}; trained weights are float32", where)
    elif weight.message.HasField("quantization"):
        yield warning(f"its {field} have a quantization; trained weights have none", where)
    elif encoding is not None and not weight.message.isUpdatable:
        yield warning(f"the layer is updatable, its {field} are not marked", where)


@network_rule
def one_loss(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """There is one loss, on a blob of the network, whose target is not a blob."""
    if not spec.isUpdatable:
        return
    losses = network.updateParams.lossLayers
    if len(losses) != 1:
        yield warning(f"the model is updatable and has {len(losses)} losses; it has one", "model")
    results = {blob: layer for layer in network.layers for blob in layer.output}
    for loss in losses:
        yield from _loss(loss, results, spec)


def _loss(loss: nn.LossLayer, makers: dict[str, Any], spec: model_pb2.Model) -> Problems:
    where = f"loss {loss.name!r}"
    kind = loss.WhichOneof("LossLayerType")
    if kind is None:
        yield warning("it has no kind", where)
        return
    compared = getattr(loss, kind)
    maker = makers.get(compared.input)
    if maker is None:
        yield warning(
            f"no layer makes its input {compared.input!r}.{hint(compared.input, makers)}", where
        )
    elif kind == "categoricalCrossEntropyLossLayer" and maker.WhichOneof("layer") != "softmax":
        yield warning(
            f"the cross entropy is of what a softmax layer makes; {compared.input!r} is made by a "
            f"{maker.WhichOneof('layer')}",
            where,
        )
    features = (*spec.description.input, *spec.description.output)
    if not compared.target or compared.target in makers:
        yield warning(f"its target {compared.target!r} is a blob of the network", where)
    elif any(feature.name == compared.target for feature in features):
        yield warning(f"its target {compared.target!r} is an input or output of the model", where)


@network_rule
def names_are_told_apart(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """Layers and losses of updatable models have different names."""
    if not spec.isUpdatable:
        return
    names = Counter(layer.name for layer in network.layers)
    names.update(loss.name for loss in network.updateParams.lossLayers)
    for name, count in names.items():
        if count > 1:
            yield warning(
                f"{count} layers and losses have the name {name!r}; in an updatable model each "
                "has its own",
                "model",
            )


@network_rule
def gradients_reach_the_layers(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """Layers between trained ones and the loss pass gradients on devices."""
    if not spec.isUpdatable:
        return
    for loss in networks.losses_of(network):
        for layer, trained in _in_the_way(network, loss):
            yield warning(
                f"it is a {layer.WhichOneof('layer')}, through which a device cannot train "
                f"{trained!r}; possible are convolution, innerProduct, flatten, pooling, "
                "batchnorm, the softmax of a cross entropy, and the activations ReLU, sigmoid and "
                "tanh",
                f"{layer.WhichOneof('layer')} {layer.name!r}",
            )


def _in_the_way(
    network: networks.Network, loss: networks.Loss
) -> Iterator[tuple[nn.NeuralNetworkLayer, str]]:
    """Layers without a gradient between a loss and trained layers, with one of these."""
    needs = {loss.input}
    behind: list[nn.NeuralNetworkLayer] = []
    for layer in reversed(network.layers):
        if not needs & set(layer.output):
            continue
        needs |= set(layer.input)
        if layer.isUpdatable:
            yield from ((result, layer.name) for result in behind)
            behind = []
        if not carries_gradient(layer) or _is_softmax_inside(layer, loss):
            behind.append(layer)


def _is_softmax_inside(layer: nn.NeuralNetworkLayer, loss: networks.Loss) -> bool:
    """Devices train through the softmax of a cross entropy alone, together with it."""
    cross_entropy = isinstance(loss, nn.CategoricalCrossEntropyLossLayer)
    of_the_loss = cross_entropy and loss.input in layer.output
    return layer.WhichOneof("layer") == "softmax" and not of_the_loss


@network_rule
def training_is_complete(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """There are an optimizer and epochs, and every number has an allowed value."""
    if not spec.isUpdatable:
        return
    update = network.updateParams
    kind = update.optimizer.WhichOneof("OptimizerType")
    if kind is None:
        yield warning("the model is updatable and has no optimizer: SGD or Adam", "optimizer")
    else:
        optimizer = getattr(update.optimizer, kind)
        needed, others = _NUMBERS[kind]
        for field in (*needed, *filter(optimizer.HasField, others)):
            yield from _number(optimizer, field)
        yield from _count(optimizer, "miniBatchSize", "optimizer")
    yield from _count(update, "epochs", "model")
    if update.HasField("seed"):
        yield from _allowed(update.seed, "seed", "model")


def _number(optimizer: nn.SGDOptimizer | nn.AdamOptimizer, field: str) -> Problems:
    if not optimizer.HasField(field):
        yield warning(f"it has no {field}", "optimizer")
        return
    number = getattr(optimizer, field)
    low, high = number.range.minValue, number.range.maxValue
    if number.HasField("range") and not low <= number.defaultValue <= high:
        yield warning(f"{field} is {number.defaultValue}, not in {low} to {high}", "optimizer")


def _count(holder: Message, field: str, where: str) -> Problems:
    if not holder.HasField(field):
        yield warning(f"it has no {field}", where)
        return
    number = getattr(holder, field)
    value, allowed = number.defaultValue, list(number.set.values)
    if number.HasField("range"):
        allowed = [number.range.minValue, number.range.maxValue]
    if value < 1 or any(choice < 1 for choice in allowed):
        yield warning(f"{field} is {value}, of {listed(allowed)}; they are positive", where)
    else:
        yield from _allowed(number, field, where)


def _allowed(number: ft.Int64Parameter, field: str, where: str) -> Problems:
    """The default value is allowed."""
    value, allowed = number.defaultValue, list(number.set.values)
    if number.HasField("set") and value not in allowed:
        yield warning(f"{field} is {value}, none of {listed(allowed)}", where)
    elif number.HasField("range") and not (number.range.minValue <= value <= number.range.maxValue):
        yield warning(f"{field} is {value}, outside its range", where)


@model_rule
def training_inputs(spec: model_pb2.Model) -> Problems:
    """The training inputs are the inputs and the targets of losses."""
    network = networks.network_of(spec)
    if not spec.isUpdatable or network is None:
        return
    description = spec.description
    names = {feature.name for feature in description.trainingInput}
    missing = [feature.name for feature in description.input if feature.name not in names]
    types = {each.name: each.type for each in (*description.output, *description.input)}
    for feature in description.trainingInput:
        expected = types.get(feature.name, feature.type)
        if feature.type != expected:
            yield warning(
                f"its type is {features.show(feature.type)}; the model has "
                f"{features.show(expected)} by this name",
                f"training input {feature.name!r}",
            )
    for loss in networks.losses_of(network):
        of_label = (
            isinstance(network, nn.NeuralNetworkClassifier)
            and loss.input == description.predictedProbabilitiesName
        )
        target = description.predictedFeatureName if of_label else loss.target
        missing += [target] if target not in names | set(missing) else []
    if missing:
        yield warning(f"trainingInput lacks {', '.join(map(repr, missing))}", "model")
