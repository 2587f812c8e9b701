"""`MLModel.gradient`, beside TensorFlow's and beside differences."""

from __future__ import annotations

import runpy
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry import examples
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
    actual = model.gradient({"image": X}, ("p", 2))
    assert actual["image"].shape == X.shape
    np.testing.assert_allclose(actual["image"], tape.gradient(chosen, x), 1e-4, 1e-7)
    name = next(blob for blob, (layer, _) in model.makers().items() if layer == "first/relu")
    actual = model.gradient({"image": X}, name)
    np.testing.assert_allclose(actual["image"], tape.gradient(total, x), 1e-4, 1e-6)
    actual = model.gradient({"image": X}, ("p", (0, 2)), blobs=[name, "image"])
    expected = tape.gradient(chosen, first).numpy()
    np.testing.assert_allclose(actual[name], expected.transpose(0, 3, 1, 2), 1e-4, 1e-7)
    np.testing.assert_allclose(actual["image"], tape.gradient(chosen, x), 1e-4, 1e-7)


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
    actual = model.gradient({"x": image}, (name, "dog"))["x"]
    assert actual.shape == image.shape
    for place in ((0, 0, 0), (2, 3, 1), (4, 1, 2)):
        chances = []
        for change in (-1, 1):
            other = image.astype(np.int64)
            other[place] += change
            chances.append(model.predict({"x": other.astype(np.uint8)})[name]["dog"])
        assert (chances[1] - chances[0]) / 2 == pytest.approx(actual[place], rel=2e-2, abs=1e-6)


def test_through_a_custom_layer() -> None:
    """The sampler of the example, alone against differences, and in its network."""
    cls = runpy.run_path(str(examples.path("grid_sampler.py")))["GridSampler"]
    layer = cls({"output_height": 5, "output_width": 4})
    rng = np.random.default_rng(6)
    inputs = [rng.random((2, 7, 6, 3)), np.tile([0.8, 0.1, 0.05, -0.2, 0.9, 0.1], (2, 1))]
    inputs[1] += rng.uniform(-0.05, 0.05, inputs[1].shape)
    projection = rng.normal(size=(2, 5, 4, 3))
    actual = layer.backward(inputs, layer.evaluate(inputs), [projection])
    for x, gradient in zip(inputs, actual, strict=True):
        assert gradient.shape == x.shape
        for place in rng.choice(x.size, 10):
            values = []
            for change in (1e-6, -2e-6):
                x.reshape(-1)[place] += change
                values.append((layer.evaluate(inputs)[0] * projection).sum())
            x.reshape(-1)[place] += 1e-6
            slope = (values[0] - values[1]) / 2e-6
            assert slope == pytest.approx(gradient.reshape(-1)[place], rel=1e-3, abs=1e-4)
    hooks = runpy.run_path(str(examples.path("hooks.py")))
    model = mlferry.convert(
        examples.path("digits_stn.h5"),
        custom_conversion_functions=hooks["custom_conversion_functions"],
    )
    test = np.load(examples.path("digits_stn.npz"))
    image, label = test["x"][:1].astype(np.float32) / 255, int(test["y"][0])
    image = image + rng.uniform(0, 0.2, image.shape).astype(np.float32)  # no two pixels are equal
    map_ = model.gradient({"image": image}, ("digit/inner", label))["image"]
    direction = map_ * np.float32(1e-3 / np.linalg.norm(map_))
    scores = [
        model.intermediate({"image": image + sign * direction}, ["digit/inner"])["digit/inner"]
        for sign in (1, -1)
    ]
    moved = (scores[0] - scores[1]).reshape(-1)[label]
    assert moved == pytest.approx(2 * (map_ * direction).sum(), rel=0.02)
    assert np.linalg.norm(map_) > 1


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
    with pytest.raises(PredictionError, match="by its index, an integer"):
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
