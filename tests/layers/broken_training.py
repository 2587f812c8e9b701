"""A model that a device trains, and models that it refuses to train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlferry.models import datatypes
from mlferry.models.neural_network import AdamParams, NeuralNetworkBuilder, SgdParams
from mlferry.spec.proto import model_pb2

Model = model_pb2.Model
Case = tuple[str, Callable[[], Model], str, str, str]


def updatable(*, adam: bool = False, labels: bool = False, loss: str = "cross entropy") -> Model:
    """x [2] -> inner product fc, ReLU, inner product top -> softmax -> y: both are trained."""
    builder = NeuralNetworkBuilder(
        [("x", datatypes.Array(2))], [("y", datatypes.Array(2))],
        mode="classifier" if labels else None, use_float_arraytype=True,
    )  # fmt: skip
    square = np.eye(2, dtype=np.float32)
    builder.add_inner_product("fc", square, np.ones(2), 2, 2, True, "x", "a")
    builder.add_activation("relu", "RELU", "a", "b")
    builder.add_inner_product("top", square, None, 2, 2, False, "b", "s")
    builder.add_softmax("softmax", "s", "y")
    if labels:
        builder.set_class_labels(["no", "yes"])
    builder.make_updatable(["fc", "top"])
    if loss == "cross entropy":
        builder.set_categorical_cross_entropy_loss("loss", "y")
    else:
        builder.set_mean_squared_error_loss("loss", ("s", datatypes.Array(2)))
    if adam:
        builder.set_adam_optimizer(AdamParams())
    else:
        builder.set_sgd_optimizer(SgdParams())
    builder.set_epochs(5, [5, 10])
    return builder.spec


SANE: dict[str, Callable[[], Model]] = {
    "updatable": updatable,
    "updatable by Adam": lambda: updatable(adam=True),
    "updatable classifier": lambda: updatable(labels=True),
    "updatable by the squared error": lambda: updatable(loss="squared error"),
}


def after(change: Callable[[Any, Any], Any], **options: Any) -> Callable[[], Model]:
    """The model after a change, which gets the message and its network."""

    def make() -> Model:
        spec = updatable(**options)
        change(spec, getattr(spec, spec.WhichOneof("Type")))
        return spec

    return make


def cleared(path: str) -> Callable[[Any, Any], Any]:
    *inner, field = path.split(".")

    def clear(spec: Any, network: Any) -> None:
        target = network.updateParams
        for name in inner:
            target = getattr(target, name)
        target.ClearField(field)

    return clear


def half(spec: Any, network: Any) -> None:
    weights = network.layers[0].innerProduct.weights
    weights.float16Value = np.array(weights.floatValue, np.float16).tobytes()
    del weights.floatValue[:]


def between(kind: str) -> Callable[[Any, Any], None]:
    def insert(spec: Any, network: Any) -> None:
        layer = network.layers[1]
        layer.ClearField("activation")
        getattr(layer, kind).SetInParent()

    return insert


def loss_of(**fields: str) -> Callable[[Any, Any], None]:
    def change(spec: Any, network: Any) -> None:
        loss = network.updateParams.lossLayers[0].categoricalCrossEntropyLossLayer
        for name, value in fields.items():
            setattr(loss, name, value)

    return change


def trained(kind: str) -> Callable[[Any, Any], None]:
    return lambda spec, network: setattr(network.layers[1], "isUpdatable", True)


CASES: list[Case] = [
    (name, make, "warning", where, text)
    for name, make, where, text in [
        ("marks without the model", after(lambda s, n: s.ClearField("isUpdatable")), "model",
         "set on the layers [fc, top], but not on the model"),
        ("no trained layer", after(lambda s, n: [layer.ClearField("isUpdatable") for layer in
                                                 n.layers]), "model", "none of its layers is"),
        ("a trained activation", after(trained("activation")), "activation 'relu'",
         "isUpdatable is set on a activation; possible are convolution and innerProduct"),
        ("trained halves", after(half), "innerProduct 'fc'", "weights are float16"),
        ("a weight without its mark", after(
            lambda s, n: n.layers[0].innerProduct.bias.ClearField("isUpdatable")),
         "innerProduct 'fc'", "its bias are not marked"),
        ("a table beside", after(
            lambda s, n: n.layers[0].innerProduct.bias.quantization.SetInParent()),
         "innerProduct 'fc'", "its bias have a quantization"),
        ("a softmax inside", after(between("softmax")), "softmax 'relu'",
         "through which a device cannot train 'fc'"),
        ("no loss", after(cleared("lossLayers")), "model", "has 0 losses"),
        ("two losses", after(lambda s, n: n.updateParams.lossLayers.append(
            n.updateParams.lossLayers[0])), "model", "has 2 losses"),
        ("a loss of no kind", after(lambda s, n: n.updateParams.lossLayers[0].ClearField(
            "categoricalCrossEntropyLossLayer")), "loss 'loss'", "it has no kind"),
        ("a loss on nothing", after(loss_of(input="yy")), "loss 'loss'",
         "no layer makes its input"),
        ("no softmax", after(loss_of(input="s")), "loss 'loss'",
         "'s' is made by a innerProduct"),
        ("a target inside", after(loss_of(target="s")), "loss 'loss'",
         "its target 's' is a blob of the network"),
        ("a target outside", after(loss_of(target="x")), "loss 'loss'", "an input or output"),
        ("no gradient", after(between("erf")), "erf 'relu'",
         "a device cannot train 'fc'"),
        ("no optimizer", after(cleared("optimizer")), "optimizer", "no optimizer: SGD or Adam"),
        ("no learning rate", after(cleared("optimizer.sgdOptimizer.learningRate")), "optimizer",
         "it has no learningRate"),
        ("no batch size", after(cleared("optimizer.sgdOptimizer.miniBatchSize")), "optimizer",
         "it has no miniBatchSize"),
        ("no beta", after(cleared("optimizer.adamOptimizer.beta2"), adam=True), "optimizer",
         "it has no beta2"),
        ("a number outside", after(lambda s, n: setattr(
            n.updateParams.optimizer.sgdOptimizer.momentum, "defaultValue", 2)), "optimizer",
         "momentum is 2.0, not in 0.0 to 1.0"),
        ("no epochs", after(cleared("epochs")), "model", "it has no epochs"),
        ("epochs outside", after(lambda s, n: setattr(n.updateParams.epochs, "defaultValue", 7)),
         "model", "epochs is 7, none of [5, 10]"),
        ("no epoch at all", after(lambda s, n: n.updateParams.epochs.set.values.append(0)),
         "model", "they are positive"),
        ("a name twice", after(lambda s, n: setattr(n.layers[0], "name", n.layers[1].name)),
         "model", "2 layers and losses have the name 'relu'"),
        ("a loss by the name of a layer", after(lambda s, n: setattr(
            n.updateParams.lossLayers[0], "name", "fc")), "model",
         "2 layers and losses have the name 'fc'"),
        ("seeds outside", after(lambda s, n: n.updateParams.seed.set.values.append(3)), "model",
         "seed is 0, none of [3]"),
        ("a range of epochs from 0", after(lambda s, n: (
            setattr(n.updateParams.epochs.range, "maxValue", 20))), "model",
         "epochs is 5, of [0, 20]; they are positive"),
        ("an input of another type", after(lambda s, n: setattr(
            s.description.trainingInput[0].type.multiArrayType, "dataType", 65600)),
         "training input 'x'", "its type is multi-array float64"),
        ("no target", after(lambda s, n: s.description.trainingInput.pop()), "model",
         "trainingInput lacks 'y_true'"),
        ("no label", after(lambda s, n: s.description.trainingInput.pop(), labels=True), "model",
         "trainingInput lacks 'classLabel'"),
        ("no input", after(lambda s, n: s.description.trainingInput.pop(0)), "model",
         "trainingInput lacks 'x'"),
    ]
]  # fmt: skip
