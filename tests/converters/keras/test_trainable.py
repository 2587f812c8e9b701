"""`respect_trainable`: what Keras trains a device trains, and the numbers stay Keras's."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlferry.converters.keras import convert
from mlferry.errors import ConversionError, ValidationError
from mlferry.layers.validate import validate
from mlferry.spec import networks

Library = Callable[[str], Any]


def transfer(k: Any, **last: Any) -> Any:
    """A convolution that is kept, and dense layers that are trained."""
    return k.Sequential(
        [
            k.layers.Input((6, 6, 2)),
            k.layers.Conv2D(3, 3, activation="relu", name="kept", trainable=False),
            k.layers.Flatten(),
            k.layers.Dense(5, activation="relu", name="hidden"),
            k.layers.Dense(3, name="last", **last),
        ]
    )


def sgd(k: Any) -> Any:
    return k.optimizers.SGD(0.02, momentum=0.5)


def adam(k: Any) -> Any:
    return k.optimizers.Adam(0.002, beta_1=0.75, beta_2=0.875, epsilon=1e-3)


def source_of(model: Any, where: str, folder: Path) -> Any:
    if where == "memory":
        return model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras has an opinion on its older format
        model.save(folder / f"m.{where}")
    return folder / f"m.{where}"


LOSSES = {
    "categorical_crossentropy": "softmax",
    "sparse_categorical_crossentropy": "softmax",
    "mean_squared_error": None,
}


@pytest.mark.parametrize("where", ["memory", "h5", "keras"])
@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        *((loss, None) for loss in LOSSES),
        *((loss, ["a", "b", "c"]) for loss, activation in LOSSES.items() if activation),
    ],
)
def test_compiled_models(
    library: Library, tmp_path: Path, loss: str, where: str, labels: Any
) -> None:
    k = library("keras")
    model = transfer(k, activation=LOSSES[loss])
    make = sgd if where == "memory" else adam
    model.compile(optimizer=make(k), loss=loss)
    converted = convert(source_of(model, where, tmp_path), "image", "p", class_labels=labels,
                   respect_trainable=True)  # fmt: skip
    spec = converted.get_spec()
    assert validate(spec) == []
    assert spec.isUpdatable
    network: Any = networks.network_of(spec)
    assert [layer.name for layer in network.layers if layer.isUpdatable] == ["hidden", "last"]
    target = "classLabel" if labels else "p_true"
    assert [f.name for f in spec.description.trainingInput] == ["image", target]
    optimizer = network.updateParams.optimizer
    kind = optimizer.WhichOneof("OptimizerType")
    numbers = getattr(optimizer, kind)
    expected = (
        {"learningRate": 0.02, "momentum": 0.5}
        if make is sgd
        else {"learningRate": 0.002, "beta1": 0.75, "beta2": 0.875, "eps": 1e-3}
    )
    for name, value in expected.items():
        assert getattr(numbers, name).defaultValue == pytest.approx(value)
    x = np.random.default_rng(0).random((1, 6, 6, 2)).astype(np.float32)
    actual = converted.predict({"image": x})["p"]
    shown = np.array(list(actual.values())) if labels else actual
    np.testing.assert_allclose(np.ravel(shown), np.ravel(model(x)), atol=1e-6)
    assert np.shape(shown) == ((3,) if labels else (1, 3))


def test_a_file_of_keras_2(library: Library, tmp_path: Path) -> None:
    k = library("tf_keras")
    model = transfer(k, activation="softmax")
    model.compile(adam(k), k.losses.CategoricalCrossentropy())
    converted = convert(source_of(model, "h5", tmp_path), respect_trainable=True)
    assert converted.spec.neuralNetwork.updateParams.optimizer.HasField("adamOptimizer")
    assert validate(converted.spec) == []


def test_a_model_that_is_not_compiled(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    k = library("keras")
    model = k.Sequential([k.layers.Input((4,)), k.layers.Dense(3), k.layers.BatchNormalization()])
    with caplog.at_level(logging.WARNING, "mlferry"):
        converted = convert(model, respect_trainable=True)
    assert "no loss and no optimizer" in caplog.text
    assert "but not batch_normalization" in caplog.text
    assert converted.spec.isUpdatable
    assert {p.message for p in validate(converted.spec)} >= {
        "the model is updatable and has 0 losses; it has one"
    }


def shared(k: Any) -> Any:
    layer, inputs = k.layers.Dense(4), k.layers.Input((4,))
    return k.Model(inputs, layer(layer(inputs)))


def frozen(k: Any) -> Any:
    model = transfer(k)
    model.trainable = False
    return model


def through_flatten(k: Any) -> Any:
    model = transfer(k, activation="softmax")
    model.layers[0].trainable = True
    return model


WRONG: dict[str, tuple[Callable[[Any], Any], Any, Any, type[Exception], str]] = {
    "loss": (transfer, "hinge", sgd, ConversionError, "the loss hinge is not one"),
    "logits": (
        transfer, lambda k: k.losses.CategoricalCrossentropy(from_logits=True), sgd,
        ConversionError, "from_logits",
    ),
    "no softmax": (transfer, "categorical_crossentropy", sgd, ConversionError, "softmax"),
    "optimizer": (transfer, "mse", lambda k: k.optimizers.RMSprop(), ConversionError, "RMSprop"),
    "nesterov": (
        transfer, "mse", lambda k: k.optimizers.SGD(0.1, 0.5, nesterov=True), ConversionError,
        "nesterov",
    ),
    "schedule": (
        transfer, "mse",
        lambda k: k.optimizers.SGD(k.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)),
        ConversionError, "a schedule for lr",
    ),
    "shared": (shared, "mse", sgd, ConversionError, "share their weights"),
    "frozen": (frozen, "mse", sgd, ConversionError, "no layer is trainable"),
    "no gradient": (
        through_flatten, "categorical_crossentropy", sgd, ValidationError, "cannot train 'kept'"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_a_device_cannot_train(library: Library, case: str) -> None:
    k = library("keras")
    build, loss, optimizer, error, message = WRONG[case]
    model = build(k)
    model.compile(optimizer(k), loss(k) if callable(loss) else loss)
    with pytest.raises(error, match=message):
        convert(model, respect_trainable=True)
