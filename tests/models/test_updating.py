"""Training updatable models: step by step as Keras trains, and what does not fit is told."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import (
    CustomLayerError,
    LimitError,
    MlferryError,
    PredictionError,
    SpecError,
    UnsupportedModelError,
)
from mlferry.layers.builder import Builder
from mlferry.layers.training import mark_updatable
from mlferry.models import utils
from mlferry.models.neural_network import NeuralNetworkBuilder
from mlferry.spec import features, weights
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn
from mlferry.training.options import Moment

STEPS, BATCH = 20, 6
RNG = np.random.default_rng(7)
IMAGES = RNG.normal(size=(STEPS * BATCH, 8, 8, 2)).astype(np.float32)
CLASSES = RNG.integers(0, 4, STEPS * BATCH)
NUMBERS = RNG.normal(size=(STEPS * BATCH, 4)).astype(np.float32)

SGD = {"sgdOptimizer": {"learningRate": 0.05, "momentum": 0.0}}
MOMENTUM = {"sgdOptimizer": {"learningRate": 0.02, "momentum": 0.9}}
OPTIMIZERS: dict[str, Any] = {"SGD": SGD, "momentum": MOMENTUM}
OPTIMIZERS["Adam"] = ADAM = {
    "adamOptimizer": {"learningRate": 0.002, "beta1": 0.9, "beta2": 0.99, "eps": 1e-4}
}


def keras_model(k: Any, softmax: bool, trained: str) -> Any:
    layers = k.layers
    model = k.Sequential(
        [
            layers.Input((8, 8, 2)),
            layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="conv"),
            layers.BatchNormalization(name="norm", trainable=False),
            layers.Conv2D(6, 3, activation="tanh", padding="same", name="deep"),
            layers.MaxPooling2D(2, name="pool"),
            layers.Flatten(),
            layers.Dense(8, activation="sigmoid", name="hidden"),
            layers.Dense(4, activation="softmax" if softmax else None, name="last"),
        ]
    )
    rng = np.random.default_rng(1)
    model.set_weights(
        [rng.uniform(0.4, 0.8, w.shape) if w.ndim == 1 else rng.normal(0, 0.4, w.shape)
         for w in model.get_weights()]
    )  # fmt: skip
    for name in ("conv", "deep", "hidden", "last"):
        model.get_layer(name).trainable = trained == "all" or name in trained
    return model


def ours(model: Any, softmax: bool, trained: str, optimizer: Any, mapping: str) -> mlferry.MLModel:
    """The same network in Core ML's layers, with the same weights."""
    builder = Builder()
    builder.input("image", (1, 2, 8, 8))
    blob = "image"

    def add(kind: str, name: str, **params: Any) -> None:
        nonlocal blob
        builder.layer(kind, name, [blob], [name], **params)
        blob = name

    def convolution(name: str, stride: int) -> None:
        matrix, bias = model.get_layer(name).get_weights()
        add(
            "convolution", name, outputChannels=matrix.shape[3], kernelChannels=matrix.shape[2],
            kernelSize=[3, 3], stride=[stride, stride], same={}, hasBias=True,
            weights=matrix.transpose(3, 2, 0, 1), bias=bias,
        )  # fmt: skip

    def dense(name: str) -> None:
        matrix, bias = model.get_layer(name).get_weights()
        add(
            "innerProduct", name, inputChannels=matrix.shape[0], outputChannels=matrix.shape[1],
            hasBias=True, weights=matrix.T, bias=bias,
        )  # fmt: skip

    convolution("conv", 2)
    add("activation", "relu", ReLU={})
    gamma, beta, mean, variance = model.get_layer("norm").get_weights()
    add("batchnorm", "norm", channels=4, epsilon=1e-3, gamma=gamma, beta=beta, mean=mean,
        variance=variance)  # fmt: skip
    convolution("deep", 1)
    add("activation", "tanh", tanh={})
    add("pooling", "pool", type="MAX", kernelSize=[2, 2], stride=[2, 2], valid={})
    add("flatten", "flat", mode="CHANNEL_LAST")
    dense("hidden")
    add("activation", "sigmoid", sigmoid={})
    dense("last")
    if softmax:
        add("softmax", "p")
    builder.output(blob)
    spec = builder.model()
    if mapping == "classic":
        spec.neuralNetwork.arrayInputShapeMapping = nn.RANK5_ARRAY_MAPPING
        spec.description.input[0].type.CopyFrom(features.multi_array((2, 8, 8)))
    for layer in spec.neuralNetwork.layers:
        if layer.name in ("conv", "deep", "hidden", "last") and (
            trained == "all" or layer.name in trained
        ):
            mark_updatable(layer)
    train(spec, blob, softmax, optimizer, "numbers_true" if not softmax else "class_true")
    return mlferry.MLModel(spec)


def train(
    spec: model_pb2.Model, blob: str, softmax: bool, optimizer: Any, target: str, batch: int = BATCH
) -> None:
    spec.isUpdatable = True
    update = spec.neuralNetwork.updateParams
    if softmax:
        loss = update.lossLayers.add(name="loss").categoricalCrossEntropyLossLayer
    else:
        loss = update.lossLayers.add(name="loss").meanSquaredErrorLossLayer
    loss.input, loss.target = blob, target
    ((kind, numbers),) = optimizer.items()
    message = getattr(update.optimizer, kind)
    for name, value in numbers.items():
        getattr(message, name).defaultValue = value
    message.miniBatchSize.defaultValue = batch
    update.epochs.defaultValue = 1
    spec.description.trainingInput.add().CopyFrom(spec.description.input[0])
    kind = features.multi_array((1,), "int32") if softmax else features.multi_array((4,))
    spec.description.trainingInput.add(name=target).type.CopyFrom(kind)


def optimizer_of(k: Any, optimizer: Any) -> Any:
    ((kind, numbers),) = optimizer.items()
    if kind == "sgdOptimizer":
        return k.optimizers.SGD(numbers["learningRate"], numbers["momentum"])
    return k.optimizers.Adam(
        numbers["learningRate"], numbers["beta1"], numbers["beta2"], numbers["eps"]
    )


@functools.cache
def trained_by_keras(softmax: bool, name: str, trained: str) -> tuple[Any, Any, list[float]]:
    """The model before, the model after, and its losses on the way."""
    k = pytest.importorskip("keras")
    before, after = (keras_model(k, softmax, trained) for _ in range(2))
    return before, after, keras_losses(k, after, softmax, OPTIMIZERS[name])


def keras_losses(k: Any, model: Any, softmax: bool, optimizer: Any) -> list[float]:
    tf = pytest.importorskip("tensorflow")
    steps = optimizer_of(k, optimizer)
    losses = []
    for first in range(0, len(IMAGES), BATCH):
        part = slice(first, first + BATCH)
        with tf.GradientTape() as tape:
            converted = model(IMAGES[part])
            value = (
                k.losses.sparse_categorical_crossentropy(CLASSES[part], converted)
                if softmax
                else k.losses.mean_squared_error(NUMBERS[part], converted)
            )
            value = tf.reduce_mean(value)
        variables = model.trainable_variables
        steps.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))
        losses.append(float(value))
    return losses


@pytest.mark.parametrize("mapping", ["exact", "classic"])
@pytest.mark.parametrize("trained", ["all", "hidden last"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("softmax", [True, False], ids=["cross entropy", "squared error"])
def test_keras(softmax: bool, name: str, trained: str, mapping: str) -> None:
    """Twenty steps: every loss, and every weight at the end."""
    before, theirs, expected = trained_by_keras(softmax, name, trained)
    model = ours(before, softmax, trained, OPTIMIZERS[name], mapping)
    samples = samples_of(softmax, mapping)
    told: list[Moment] = []
    converted = model.update(samples, progress=told.append)
    np.testing.assert_allclose(told[0].losses, expected, 1e-5)
    assert told[0].loss == pytest.approx(np.mean(expected), rel=1e-5)
    for layer in converted.spec.neuralNetwork.layers:
        if layer.name not in ("conv", "deep", "hidden", "last"):
            continue
        matrix, bias = theirs.get_layer(layer.name).get_weights()
        order = (3, 2, 0, 1) if matrix.ndim == 4 else (1, 0)
        params = getattr(layer, layer.WhichOneof("layer") or "")
        for stored, reference in (
            (params.weights, matrix.transpose(order)),
            (params.bias, bias),
        ):
            actual = weights.read(stored, reference.shape)
            np.testing.assert_allclose(actual, reference, 1e-5, 1e-5 * np.abs(reference).max())
            assert stored.isUpdatable == (trained == "all" or layer.name in trained)
    # and what it predicts
    x = {"image": samples[0]["image"]}
    actual = converted.predict(x)["p" if softmax else "last"]
    np.testing.assert_allclose(np.ravel(actual), np.ravel(theirs(IMAGES[:1])), 1e-4, 1e-5)


def samples_of(softmax: bool, mapping: str) -> list[dict[str, Any]]:
    images = IMAGES.transpose(0, 3, 1, 2)
    return [
        {
            "image": image if mapping == "classic" else image[None],
            **({"class_true": int(index)} if softmax else {"numbers_true": numbers}),
        }
        for image, index, numbers in zip(images, CLASSES, NUMBERS, strict=True)
    ]


# ---- what is given, and what is not allowed ----------------------------------------------------


def small(
    softmax: bool = True, mapping: str = "exact", batch: int = 4, optimizer: Any = SGD
) -> mlferry.MLModel:
    """x [1, 6] -> hidden, trained -> tanh -> last, trained -> softmax, or the numbers."""
    rng = np.random.default_rng(2)
    builder = Builder()
    builder.input("x", (1, 6, 1, 1))
    builder.layer("innerProduct", "hidden", ["x"], ["h"], inputChannels=6, outputChannels=5,
                  hasBias=True, weights=rng.normal(size=(5, 6)), bias=np.zeros(5))  # fmt: skip
    builder.layer("activation", "tanh", ["h"], ["t"], tanh={})
    builder.layer("innerProduct", "last", ["t"], ["s"], inputChannels=5, outputChannels=4,
                  hasBias=True, weights=rng.normal(size=(4, 5)), bias=np.zeros(4))  # fmt: skip
    if softmax:
        builder.layer("softmax", "soft", ["s"], ["p"])
    builder.output("p" if softmax else "s")
    spec = builder.model()
    if mapping == "classic":
        spec.neuralNetwork.arrayInputShapeMapping = nn.RANK5_ARRAY_MAPPING
        spec.description.input[0].type.CopyFrom(features.multi_array((6,)))
    for layer in spec.neuralNetwork.layers:
        if layer.WhichOneof("layer") == "innerProduct":
            mark_updatable(layer)
    blob, target = ("p", "p_true") if softmax else ("s", "s_true")
    train(spec, blob, softmax, optimizer, target, batch)
    return mlferry.MLModel(spec)


def clusters(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Points around four corners, and which one."""
    rng = np.random.default_rng(3)
    which = np.arange(count) % 4
    corners = np.eye(6, dtype=np.float32)[:4] * 3
    points = corners[which] + rng.normal(0, 0.5, (count, 6)).astype(np.float32)
    return points.reshape(count, 1, 6, 1, 1).astype(np.float32), which


POINTS, WHICH = clusters()
PAIRS = [{"x": x, "p_true": int(index)} for x, index in zip(POINTS, WHICH, strict=True)]


def weights_of(model: mlferry.MLModel) -> list[bytes]:
    return [w.message.SerializeToString() for w in weights.iter_weights(model.spec)]


def right(model: mlferry.MLModel, output: str = "p") -> float:
    actual = [np.ravel(model.predict({"x": x})[output]) for x in POINTS]
    return float(np.mean(np.argmax(actual, axis=1) == WHICH))


@pytest.mark.parametrize("mapping", ["exact", "classic"])
def test_it_learns_and_the_model_stays(mapping: str) -> None:
    model = small(mapping=mapping)
    before = weights_of(model)
    pairs = (
        [{**pair, "x": pair["x"].reshape(6)} for pair in PAIRS] if mapping == "classic" else PAIRS
    )
    told: list[Moment] = []
    converted = model.update(pairs, epochs=40, progress=told.append)
    assert weights_of(model) == before
    assert [moment.epoch for moment in told] == list(range(1, 41))
    assert told[-1].loss < told[0].loss / 5
    assert converted.spec.isUpdatable
    if mapping == "exact":
        assert right(model) < 0.7
        assert right(converted) > 0.95


@pytest.mark.parametrize("labels", [["a", "b", "c", "d"], [10, 20, 30, 40]])
def test_labels_of_classifiers(labels: Any, tmp_path: Path) -> None:
    model = utils.attach_class_labels(small(), labels)
    name = model.spec.description.predictedFeatureName
    samples = [{"x": x, name: labels[index]} for x, index in zip(POINTS, WHICH, strict=True)]
    converted = model.update(iter(samples), epochs=40)
    assert weights_of(converted) == weights_of(small().update(PAIRS, epochs=40))
    converted.save(tmp_path / "m.mlmodel")
    loaded = mlferry.MLModel(tmp_path / "m.mlmodel")
    assert [loaded.predict({"x": s["x"]})[name] for s in samples[:4]] == labels
    with pytest.raises(PredictionError, match=r"sample 1 .*knows|sample 1 is (text|an integer)"):
        model.update([samples[0], {**samples[1], name: "e"}])
    with pytest.raises(PredictionError, match="has no"):
        model.update([{"x": POINTS[0]}])


def test_shuffling_is_by_seed() -> None:
    spec = small().get_spec()
    spec.neuralNetwork.updateParams.shuffle.defaultValue = True
    model = mlferry.MLModel(spec)
    one, same, other = (
        weights_of(model.update(PAIRS, epochs=2, parameters={"seed": seed})) for seed in (1, 1, 2)
    )
    plain = weights_of(model.update(PAIRS, epochs=2, parameters={"shuffle": False}))
    assert one == same
    assert one not in (other, plain)


def test_progress_changes_the_training_or_ends_it() -> None:
    def slower(moment: Moment) -> dict[str, float] | bool | None:
        if moment.epoch == 3:
            return False
        return {"learningRate": moment.parameters["learningRate"] / 2}

    told: list[float] = []

    def tell(moment: Moment) -> dict[str, float] | bool | None:
        told.append(moment.parameters["learningRate"])
        return slower(moment)

    model = small().update(PAIRS, epochs=9, progress=tell)
    assert told == [0.05, 0.025, 0.0125]
    by_hand = small()
    for rate in told:
        by_hand = by_hand.update(PAIRS, parameters={"learningRate": rate, "epochs": 1})
    assert weights_of(model) == weights_of(by_hand)


def bounded() -> mlferry.MLModel:
    spec = small(optimizer=MOMENTUM).get_spec()
    update = spec.neuralNetwork.updateParams
    sgd = update.optimizer.sgdOptimizer
    sgd.learningRate.range.minValue, sgd.learningRate.range.maxValue = 0.001, 0.1
    sgd.miniBatchSize.set.values.extend([4, 8])
    update.epochs.set.values.extend([1, 5])
    return mlferry.MLModel(spec)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"learningRate": 1.0}, "outside of what the model allows, 0.001 to 0.1"),
        ({"miniBatchSize": 5}, "none of the values that the model allows: 4, 8"),
        ({"epochs": 2}, "none of the values that the model allows: 1, 5"),
        ({"momentum": "fast"}, "momentum is a number"),
        ({"seed": 0.5}, "seed is an integer"),
        ({"learningrate": 0.1}, "no parameter 'learningrate'.*Did you mean 'learningRate'"),
        ({"beta1": 0.1}, "no parameter 'beta1'"),
    ],
)
def test_parameters_that_the_model_does_not_allow(parameters: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        bounded().update(PAIRS, parameters=parameters)


def test_parameters_that_it_does() -> None:
    told: list[Moment] = []
    expected = {"learningRate": 0.1, "miniBatchSize": 8, "epochs": 5, "momentum": 0.5}
    bounded().update(PAIRS, parameters=expected, progress=told.append)
    assert len(told) == 5
    assert len(told[0].losses) == 5
    assert expected.items() <= told[0].parameters.items()


def without_loss() -> mlferry.MLModel:
    spec = small().get_spec()
    del spec.neuralNetwork.updateParams.lossLayers[:]
    return mlferry.MLModel(spec)


def of_halves() -> mlferry.MLModel:
    return mlferry.quantize_weights(small(), 16)


Bad = tuple[Callable[[], mlferry.MLModel], Any, type[MlferryError], str]
BAD: list[Bad] = [
    (lambda: utils.without_training(small()), PAIRS, UnsupportedModelError, "make_updatable"),
    (without_loss, PAIRS, SpecError, "has 0 losses"),
    (small, [], PredictionError, "no sample"),
    (small, [{"x": POINTS[0], "p_tru": 1}], PredictionError, "Did you mean 'p_tru'"),
    (small, [{**PAIRS[0], "y": 1}], PredictionError, "has 'y'.*trained with 'x', 'p_true'"),
    (small, [{**PAIRS[0], "p_true": 4}], PredictionError, "4 classes, 0 to 3"),
    (small, [{**PAIRS[0], "p_true": 0.5}], PredictionError, "one integer"),
    (small, [{**PAIRS[0], "x": POINTS[0] * np.nan}], PredictionError, "the loss is nan"),
    (small, [{**PAIRS[0], "x": POINTS[0][:, :5]}], PredictionError, r"shape \(1, 5, 1, 1\)"),
    (lambda: small(False), [{"x": POINTS[0], "s_true": np.ones(3)}], PredictionError,
     "3 values; 's' has 4"),
    (lambda: small(False), [{"x": POINTS[0], "s_true": "text"}], PredictionError, "numbers"),
    (small, "nowhere", PredictionError, "no folder"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "samples", "error", "message"), BAD)
def test_what_does_not_fit(
    make: Callable[[], mlferry.MLModel], samples: Any, error: type[MlferryError], message: str
) -> None:
    with pytest.raises(error, match=message):
        make().update(samples)


def test_a_rate_that_is_too_large() -> None:
    numbers = [{"x": x, "s_true": np.full(4, 1e6)} for x in POINTS]
    with pytest.raises(PredictionError, match="a smaller rate may hold"):
        small(False).update(numbers, epochs=50, parameters={"learningRate": 1e6})


def test_epochs_that_a_file_asks_for() -> None:
    """A file cannot keep the processor busy for ever; who asks for it can."""
    spec = small().get_spec()
    spec.neuralNetwork.updateParams.epochs.defaultValue = 10**12
    model = mlferry.MLModel(spec)
    with pytest.raises(LimitError, match=r"epochs that the model asks for are 1,000,000,000,000"):
        model.update(PAIRS)
    assert weights_of(model.update(PAIRS, epochs=2)) == weights_of(small().update(PAIRS, epochs=2))


def test_halves_are_not_trained() -> None:
    spec = small().get_spec()
    for weight in weights.iter_weights(spec):
        weights.write_half(weight.message, weights.stored(weight.message))
        weight.message.isUpdatable = True
    with pytest.raises(SpecError, match="trained weights are float32"):
        mlferry.MLModel(spec).update(PAIRS)


# ---- kinds of models --------------------------------------------------------------------------


def with_prefix(cls: type[mlferry.CustomLayer] | None = None) -> mlferry.MLModel:
    """A layer in front of `small`: of its own class, or a scale."""
    spec = small().get_spec()
    network = spec.neuralNetwork
    layers = [type(network.layers[0]).FromString(x.SerializeToString()) for x in network.layers]
    del network.layers[:]
    first = network.layers.add(name="first", input=["x"], output=["inside"])
    if cls is None:
        first.activation.linear.alpha, first.activation.linear.beta = 2.0, 1.0
    else:
        first.custom.className = "Doubling"
    layers[0].input[0] = "inside"
    network.layers.extend(layers)
    return mlferry.MLModel(spec, custom_layers={"Doubling": cls} if cls else None)


class Doubling(mlferry.CustomLayer):
    def evaluate(self, inputs: Any) -> Any:
        return [2 * inputs[0] + 1]


class Differentiable(Doubling):
    def backward(self, inputs: Any, outputs: Any, output_gradients: Any) -> Any:
        return [2 * output_gradients[0]]


class Wrong(Doubling):
    def backward(self, inputs: Any, outputs: Any, output_gradients: Any) -> Any:
        return output_gradients[0]


def test_custom_layers_before_what_is_trained_need_no_gradient() -> None:
    model = with_prefix(Doubling).update(PAIRS, epochs=3)
    assert weights_of(model) == weights_of(with_prefix().update(PAIRS, epochs=3))
    assert model.custom_layers == {"Doubling": Doubling}


def between(cls: type[mlferry.CustomLayer]) -> mlferry.MLModel:
    """A custom layer between the two that are trained."""
    spec = small().get_spec()
    layer = spec.neuralNetwork.layers[1]
    layer.custom.className = "Doubling"
    return mlferry.MLModel(spec, custom_layers={"Doubling": cls})


def test_custom_layers_with_a_way_back() -> None:
    spec = small().get_spec()
    linear = spec.neuralNetwork.layers[1].activation.linear
    linear.alpha, linear.beta = 2.0, 1.0
    expected = mlferry.MLModel(spec).update(PAIRS, epochs=3)
    model = between(Differentiable).update(PAIRS, epochs=3)
    for actual, reference in zip(
        weights.iter_weights(model.spec), weights.iter_weights(expected.spec), strict=True
    ):
        np.testing.assert_allclose(
            weights.stored(actual.message), weights.stored(reference.message), 1e-5, 1e-6
        )
    with pytest.raises(CustomLayerError, match=r"(?s)class Doubling.*'tanh'.*def backward\(self"):
        between(Doubling).update(PAIRS)
    with pytest.raises(CustomLayerError, match="backward returns a list"):
        between(Wrong).update(PAIRS)


def test_a_layer_that_looks_at_the_whole_batch_sees_one_sample_at_a_time() -> None:
    """Statistics of the batch would join samples: on a device each goes alone."""
    spec = small().get_spec()
    layer = spec.neuralNetwork.layers[1]
    norm = layer.batchnorm
    norm.channels, norm.epsilon, norm.computeMeanVar = 5, 1.0, True
    weights.write(norm.gamma, np.ones(5))
    weights.write(norm.beta, np.full(5, 0.5))
    model = mlferry.MLModel(spec)
    told: list[Moment] = []
    model.update(PAIRS[:4], progress=told.append)
    alone: list[Moment] = []
    for pair in PAIRS[:4]:
        model.update([pair], progress=alone.append)
    assert told[0].losses[0] == pytest.approx(np.mean([one.loss for one in alone]), rel=1e-5)


def test_nothing_is_joined_where_samples_differ_in_size() -> None:
    """A pooling over all takes any size; the mean gradient is that of the samples."""
    builder = Builder()
    builder.input("image", (1, 3, 4, 4))
    builder.layer("pooling", "pool", ["image"], ["x"], type="AVERAGE", globalPooling=True, valid={})
    builder.layer("innerProduct", "fc", ["x"], ["s"], inputChannels=3, outputChannels=4,
                  weights=np.random.default_rng(1).normal(size=(4, 3)))  # fmt: skip
    builder.output("s")
    spec = builder.model()
    mark_updatable(spec.neuralNetwork.layers[1])
    train(spec, "s", False, SGD, "s_true", batch=3)
    mlferry.models.flexible_shapes.set_multiarray_ndshape_range(
        spec, "image", [1, 3, 2, 2], [1, 3, 9, 9]
    )
    rng = np.random.default_rng(4)
    sizes = [(4, 4), (2, 7), (9, 3)]
    images = [rng.normal(size=(1, 3, *size)).astype(np.float32) for size in sizes]
    means = [image.mean(axis=(2, 3), keepdims=True) for image in images]
    numbers = rng.normal(size=(3, 4))
    various = [{"image": x, "s_true": y} for x, y in zip(images, numbers, strict=True)]
    flat = [
        {"image": np.broadcast_to(m, (1, 3, 4, 4)), "s_true": y}
        for m, y in zip(means, numbers, strict=True)
    ]
    model = mlferry.MLModel(spec)
    output, expected = (
        weights.stored(model.update(each).spec.neuralNetwork.layers[1].innerProduct.weights)
        for each in (various, flat)
    )
    np.testing.assert_allclose(output, expected, 1e-5, 1e-6)


@pytest.mark.parametrize("engine", ["numpy", "onnxruntime"])
def test_pipelines_train_their_last_model(engine: str) -> None:
    if engine == "onnxruntime":
        pytest.importorskip("onnxruntime")
    builder = Builder()
    builder.input("photo", (1, 6, 1, 1))
    builder.layer("activation", "first", ["photo"], ["x"], linear={"alpha": 2.0, "beta": 1.0})
    builder.output("x")
    first = mlferry.MLModel(builder.model(), engine=engine)
    whole = utils.make_pipeline(first, small())
    samples = [{"photo": pair["x"], "p_true": pair["p_true"]} for pair in PAIRS]
    told: list[Moment] = []
    model = whole.update(samples, epochs=2, progress=told.append)
    expected: list[Moment] = []
    with_prefix().update(PAIRS, epochs=2, progress=expected.append)
    assert told[-1].loss == pytest.approx(expected[-1].loss, rel=1e-5)
    assert weights_of(model) != weights_of(whole)
    with pytest.raises(PredictionError, match="has no 'p_true'"):
        whole.update([{"photo": POINTS[0]}])


def neighbors(labels: Sequence[str | int]) -> mlferry.MLModel:
    spec = model_pb2.Model(specificationVersion=4, isUpdatable=True)
    description = spec.description
    description.input.add(name="x").type.CopyFrom(features.multi_array((2,)))
    kind = "stringType" if isinstance(labels[0], str) else "int64Type"
    label = description.output.add(name="label")
    getattr(label.type, kind).SetInParent()
    description.predictedFeatureName = "label"
    description.trainingInput.add().CopyFrom(description.input[0])
    description.trainingInput.add().CopyFrom(label)
    params = spec.kNearestNeighborsClassifier
    params.numberOfNeighbors.defaultValue = 1
    params.numberOfNeighbors.range.minValue, params.numberOfNeighbors.range.maxValue = 1, 5
    params.uniformWeighting.SetInParent()
    index = params.nearestNeighborsIndex
    index.numberOfDimensions = 2
    index.linearIndex.SetInParent()
    index.squaredEuclideanDistance.SetInParent()
    index.floatSamples.add().vector.extend([0.0, 0.0])
    holder = params.stringClassLabels if kind == "stringType" else params.int64ClassLabels
    holder.vector.append(labels[0])
    return mlferry.MLModel(spec)


@pytest.mark.parametrize("labels", [("near", "far"), (1, 2)])
def test_nearest_neighbours_remember(labels: Any, tmp_path: Path) -> None:
    model = neighbors(labels)
    far = {"x": np.array([9.0, 9.0])}
    assert model.predict(far)["label"] == labels[0]
    samples = [{"x": np.array([8.0, 8.0 + n]), "label": labels[1]} for n in range(3)]
    converted = model.update(samples, parameters={"numberOfNeighbors": 3})
    converted.save(tmp_path / "m.mlmodel")
    loaded = mlferry.MLModel(tmp_path / "m.mlmodel")
    assert loaded.predict(far)["label"] == labels[1]
    assert loaded.spec.kNearestNeighborsClassifier.numberOfNeighbors.defaultValue == 3
    for bad, message in (
        ({"numberOfNeighbors": 9}, "outside of what the model allows"),
        ({"learningRate": 1}, "no parameter 'learningRate'"),
    ):
        with pytest.raises(SpecError, match=message):
            model.update(samples, parameters=bad)
    with pytest.raises(PredictionError, match=r"is text|is an integer"):
        model.update([{**samples[0], "label": 0.5}])
    with pytest.raises(MlferryError):
        model.update([{**samples[0], "x": np.zeros(3)}])


def test_branches_and_loops_are_walked_back() -> None:
    """A loop that doubles three times, and a branch: what is trained lies before both."""
    spec = small().get_spec()
    network = spec.neuralNetwork
    layers = [type(network.layers[0]).FromString(x.SerializeToString()) for x in network.layers]
    plain, looped = (model_pb2.Model.FromString(spec.SerializeToString()) for _ in range(2))
    plain.neuralNetwork.layers[1].activation.linear.alpha = 8.0
    del looped.neuralNetwork.layers[:]
    grown = looped.neuralNetwork.layers
    grown.add().CopyFrom(layers[0])
    grown[0].output[0] = "t"
    loop = grown.add(name="loop").loop
    loop.maxLoopIterations = 3
    double = loop.bodyNetwork.layers.add(name="double", input=["t"], output=["t"])
    double.activation.linear.alpha = 2.0
    grown.extend(layers[2:])
    told: list[list[Moment]] = [[], []]
    for each, into in zip((plain, looped), told, strict=True):
        mlferry.MLModel(each).update(PAIRS, epochs=3, progress=into.append)
    assert told[0][-1].loss == pytest.approx(told[1][-1].loss, rel=1e-4)


def test_the_builder_makes_what_is_trained() -> None:
    """A model as scripts of coremltools build it."""
    spec = utils.without_training(small()).get_spec()
    builder = NeuralNetworkBuilder(spec=spec)
    builder.make_updatable(["last"])
    builder.set_categorical_cross_entropy_loss("loss", "p")
    from mlferry.models.neural_network import SgdParams

    builder.set_sgd_optimizer(SgdParams(lr=0.5, batch=8))
    builder.set_epochs(30, allowed_set=[30])
    told: list[Moment] = []
    model = mlferry.MLModel(spec).update(PAIRS, progress=told.append)
    assert told[-1].loss < told[0].loss / 3
    before, after = (
        {w.layer.name + w.path: weights.stored(w.message) for w in weights.iter_weights(s)}
        for s in (spec, model.spec)
    )
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"lastinnerProduct.weights", "lastinnerProduct.bias"}


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    """The folders inside tell the labels."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(5)
    builder = Builder()
    builder.input("x", (1, 3, 8, 8))
    builder.layer("convolution", "fc", ["x"], ["s"], outputChannels=2, kernelChannels=3,
                  kernelSize=[8, 8], valid={}, hasBias=True, bias=np.zeros(2),
                  weights=np.zeros((2, 3, 8, 8)))  # fmt: skip
    builder.layer("softmax", "soft", ["s"], ["p"])
    builder.output("p")
    spec = builder.model()
    mark_updatable(spec.neuralNetwork.layers[0])
    train(spec, "p", True, {"sgdOptimizer": {"learningRate": 1e-6}}, "p_true", batch=4)
    model = utils.attach_class_labels(mlferry.MLModel(spec), ["bright", "dark"])
    model = utils.change_input_output_types(model, {"x": "RGB"})
    for label, level in (("bright", 200), ("dark", 40)):
        (tmp_path / label).mkdir()
        for number in range(6):
            pixels = rng.integers(level - 30, level + 30, (8, 8, 3)).astype(np.uint8)
            image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    converted = model.update(tmp_path, epochs=60)
    for label in ("bright", "dark"):
        with image.open(tmp_path / label / "0.png") as picture:
            assert converted.predict({"x": picture})["classLabel"] == label
    image.fromarray(pixels).save(tmp_path / "stray.png")
    with pytest.raises(PredictionError, match="lies in no folder with the name of its label"):
        model.update(tmp_path)
