"""`MLModel.gradient`, beside TensorFlow's and beside differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import PredictionError, UnsupportedModelError
from mlferry.layers.builder import Builder
from mlferry.models import utils
from mlferry.spec.proto import neural_network_pb2 as nn

RNG = np.random.default_rng(1)
X = RNG.normal(size=(1, 9, 9, 3)).astype(np.float32)


def network(k: Any) -> Any:
    """A network with a branch that joins again, and every blob of which is used twice."""
    layers = k.layers
    x = layers.Input((9, 9, 3), name="image")
    y = layers.Conv2D(6, 3, activation="relu", name="first")(x)
    side = layers.Conv2D(6, 1, activation="sigmoid", name="side")(y)
    y = layers.Add(name="sum")([y, layers.Multiply()([side, y]), y])
    y = layers.BatchNormalization()(y)
    y = layers.DepthwiseConv2D(3, padding="same", name="deep")(y)
    y = layers.MaxPooling2D(2, name="pool")(y)
    y = layers.Concatenate()([y, layers.LeakyReLU(negative_slope=0.2)(y)])
    y = layers.GlobalAveragePooling2D()(y)
    model = k.Model(x, layers.Dense(4, activation="softmax", name="p")(y))
    rng = np.random.default_rng(2)
    model.set_weights([rng.uniform(0.2, 1, w.shape) * (1 if w.ndim == 1 else rng.choice([-1, 1],
                       w.shape)) for w in model.get_weights()])  # fmt: skip
    return model


def test_keras() -> None:
    """Of one probability, and of a blob inside, with respect to the input and to blobs inside."""
    k, tf = pytest.importorskip("keras"), pytest.importorskip("tensorflow")
    theirs = network(k)
    model = mlferry.convert(theirs)
    inner = k.Model(theirs.input, [theirs.get_layer("first").output, theirs.output])
    x = tf.constant(X)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        first, p = inner(x)
        chosen = p[0, 2]
        total = tf.reduce_sum(first)
    found = model.gradient({"image": X}, ("p", 2))
    assert found["image"].shape == X.shape
    np.testing.assert_allclose(found["image"], tape.gradient(chosen, x), 1e-4, 1e-7)
    name = next(blob for blob, (layer, _) in model.makers().items() if layer == "first/relu")
    found = model.gradient({"image": X}, name)
    np.testing.assert_allclose(found["image"], tape.gradient(total, x), 1e-4, 1e-6)
    found = model.gradient({"image": X}, ("p", (0, 2)), blobs=[name, "image"])
    wanted = tape.gradient(chosen, first).numpy()
    np.testing.assert_allclose(found[name], wanted.transpose(0, 3, 1, 2), 1e-4, 1e-7)
    np.testing.assert_allclose(found["image"], tape.gradient(chosen, x), 1e-4, 1e-7)


def classifier(mapping: str, colors: str) -> mlferry.MLModel:
    """x, an image -> convolution -> softmax over two labels."""
    rng = np.random.default_rng(3)
    builder = Builder()
    builder.input("x", (1, 3, 5, 4))
    builder.layer("convolution", "fc", ["x"], ["s"], outputChannels=2, kernelChannels=3,
                  kernelSize=[5, 4], valid={}, weights=rng.normal(size=(2, 3, 5, 4)))  # fmt: skip
    builder.layer("softmax", "soft", ["s"], ["p"])
    builder.output("p")
    spec = builder.model()
    if mapping == "classic":
        spec.neuralNetwork.arrayInputShapeMapping = nn.RANK5_ARRAY_MAPPING
        spec.neuralNetwork.imageInputShapeMapping = nn.RANK5_IMAGE_MAPPING
    model = utils.attach_class_labels(mlferry.MLModel(spec), ["cat", "dog"])
    model = utils.change_input_output_types(model, {"x": colors})
    spec = model.get_spec()
    scaler = spec.neuralNetworkClassifier.preprocessing.add(featureName="x").scaler
    scaler.channelScale, scaler.redBias, scaler.blueBias = 1 / 255, -0.5, 0.25
    return mlferry.MLModel(spec)


@pytest.mark.parametrize("colors", ["RGB", "BGR"])
@pytest.mark.parametrize("mapping", ["exact", "classic"])
def test_pixels(mapping: str, colors: str) -> None:
    """One pixel's colour at a time, brighter by one."""
    model = classifier(mapping, colors)
    name = model.spec.description.predictedProbabilitiesName
    image = np.random.default_rng(4).integers(60, 190, (5, 4, 3)).astype(np.uint8)
    found = model.gradient({"x": image}, (name, "dog"))["x"]
    assert found.shape == image.shape
    for place in ((0, 0, 0), (2, 3, 1), (4, 1, 2)):
        chances = []
        for change in (-1, 1):
            other = image.astype(np.int64)
            other[place] += change
            chances.append(model.predict({"x": other.astype(np.uint8)})[name]["dog"])
        assert (chances[1] - chances[0]) / 2 == pytest.approx(found[place], rel=2e-2, abs=1e-6)


def test_what_does_not_exist() -> None:
    model = classifier("exact", "RGB")
    name = model.spec.description.predictedProbabilitiesName
    data = {"x": np.zeros((5, 4, 3), np.uint8)}
    with pytest.raises(PredictionError, match=r"'dot' is none of the 2 labels.*Did you mean 'dog'"):
        model.gradient(data, (name, "dot"))
    with pytest.raises(PredictionError, match="no output or blob 'q'"):
        model.gradient(data, "q")
    with pytest.raises(PredictionError, match=r"no value 7 in 's', which has the shape"):
        model.gradient(data, ("s", 7))
    with pytest.raises(PredictionError, match=r"no value \(0, 5\) in 's'"):
        model.gradient(data, ("s", (0, 5)))
    with pytest.raises(PredictionError, match="by its place, an integer"):
        model.gradient(data, ("s", "dog"))
    with pytest.raises(PredictionError, match="no blob 'inside'"):
        model.gradient(data, "s", ["inside"])
    assert not model.gradient(data, "s", ["p"])["p"].any()  # which lies behind


def test_layers_that_have_none_are_named() -> None:
    builder = Builder()
    builder.input("boxes", (1, 4, 4))
    builder.input("scores", (1, 4, 2))
    names = ["b", "s", "i", "n"]
    builder.layer("NonMaximumSuppression", "nms", ["boxes", "scores"], names, maxBoxes=2,
                  iouThreshold=0.5)  # fmt: skip
    builder.output("s")
    model = mlferry.MLModel(builder.model())
    data = {"boxes": RNG.random((1, 4, 4)), "scores": RNG.random((1, 4, 2))}
    with pytest.raises(UnsupportedModelError, match="'nms' is a NonMaximumSuppression, which has"):
        model.gradient(data, "s")


def test_programs_are_told() -> None:
    k = pytest.importorskip("keras")
    source = k.Sequential([k.layers.Input((3,)), k.layers.Dense(2)])
    program = mlferry.convert(source, convert_to="mlprogram")
    name = program.spec.description.input[0].name
    with pytest.raises(UnsupportedModelError, match='convert_to="neuralnetwork"'):
        program.gradient({name: np.zeros((1, 3))}, "y")


def test_pipelines_are_told() -> None:
    models = []
    for source, result in (("x", "y"), ("y", "z")):
        builder = Builder()
        builder.input(source, (3,))
        builder.layer("activation", result, [source], [result], tanh={})
        builder.output(result)
        models.append(mlferry.MLModel(builder.model()))
    pipeline = utils.make_pipeline(*models)
    with pytest.raises(UnsupportedModelError, match="take one of its models"):
        pipeline.gradient({"x": np.zeros(3)}, "z")
