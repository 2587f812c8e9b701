"""TensorFlow models: every kind of source, the hook, images, flexible shapes, bad input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.converters.tensorflow import convert as classic, loading, read
from mlferry.errors import ConversionError, MlferryError, ModelFileError, UnsupportedOpError
from mlferry.spec import weights

Library = Callable[[str], Any]
RNG = np.random.default_rng(5)
KERNEL = RNG.normal(0, 0.3, (3, 3, 3, 4)).astype(np.float32)
MATRIX = RNG.normal(0, 0.3, (4, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def tf() -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow
    return tensorflow


def network(tf: Any, x: Any) -> Any:
    """A convolution, a pool over the image, a product."""
    h = tf.nn.relu(tf.nn.conv2d(x, KERNEL, 1, "SAME") + np.float32([0.1, 0.2, 0.3, 0.4]))
    return tf.nn.softmax(tf.reduce_mean(h, (1, 2)) @ MATRIX)


def frozen(tf: Any, call: Callable[[Any], Any], shape: Any = (None, 6, 5, 3)) -> Any:
    """A GraphDef of TensorFlow 1 with the placeholder "scope/x" and the result "scope/y"."""
    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.name_scope("scope"):
        x = tf.compat.v1.placeholder(tf.float32, shape, name="x")
        tf.identity(call(x), name="y")
    return graph.as_graph_def()


@pytest.fixture
def picture() -> np.ndarray:
    return RNG.normal(size=(1, 6, 5, 3)).astype(np.float32)


def value(model: mlferry.MLModel, **inputs: Any) -> np.ndarray:
    (actual,) = model.predict(inputs).values()
    return actual


# ---- sources ---------------------------------------------------------------------------


def test_a_frozen_graph(tf: Any, tmp_path: Path, picture: np.ndarray) -> None:
    graph = frozen(tf, lambda x: network(tf, x))
    expected = network(tf, picture).numpy()
    (tmp_path / "net.pb").write_bytes(graph.SerializeToString())
    (tmp_path / "net.dat").write_bytes(graph.SerializeToString())
    for source in (graph, tmp_path / "net.pb", str(tmp_path / "net.dat")):
        model = mlferry.convert(source)
        np.testing.assert_allclose(value(model, scope_x=picture), expected, atol=1e-6)
        assert [f.name for f in model.get_spec().description.output] == ["scope_y"]


def test_a_part_of_a_frozen_graph(tf: Any) -> None:
    graph = frozen(tf, lambda x: tf.nn.relu(tf.exp(x, name="middle") - 2, name="late"), (2, 3))
    kinds = [mlferry.TensorType(name="scope/middle", shape=(2, 3))]
    model = mlferry.convert(graph, inputs=kinds, outputs=["scope/late"])
    x = RNG.normal(size=(2, 3)).astype(np.float32)
    np.testing.assert_allclose(value(model, scope_middle=x), np.maximum(x - 2, 0), atol=1e-6)
    with pytest.raises(ConversionError, match=r"no node 'scope/middel'.*Did you mean"):
        mlferry.convert(graph, outputs=["scope/middel"])


def saved_model(tf: Any, folder: Path) -> Any:
    class Net(tf.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.factor = tf.Variable(np.float32([1, 2, 3]))

        @tf.function(input_signature=[tf.TensorSpec((None, 3), name="x")])
        def scaled(self, x: Any) -> Any:
            return {"scaled": x * self.factor, "doubled": x * 2}

        @tf.function(
            input_signature=[tf.TensorSpec((2, 3), name="x"), tf.TensorSpec((3,), name="b")]
        )
        def shifted(self, x: Any, b: Any) -> Any:
            return {"sum": x * self.factor + b}

    net = Net()
    signatures = {"scaled": net.scaled, "shifted": net.shifted}
    tf.saved_model.save(net, str(folder), signatures=signatures)
    return net


def test_a_saved_model(tf: Any, tmp_path: Path) -> None:
    saved_model(tf, tmp_path)
    x = RNG.normal(size=(1, 3)).astype(np.float32)
    model = mlferry.convert(tmp_path, signature="scaled")
    actual = model.predict({"x": x})
    np.testing.assert_allclose(actual["scaled"], x * [1, 2, 3], rtol=1e-6)
    np.testing.assert_allclose(actual["doubled"], x * 2, rtol=1e-6)
    both = np.concatenate([x, x])
    for source in (tmp_path, tmp_path / "saved_model.pb", tf.saved_model.load(str(tmp_path))):
        shifted = mlferry.convert(source, signature="shifted")
        np.testing.assert_allclose(
            value(shifted, x=both, b=np.ones(3)), both * [1, 2, 3] + 1, rtol=1e-6
        )
    with pytest.raises(ConversionError, match=r"it has 'scaled', 'shifted'. Name one"):
        mlferry.convert(tmp_path)
    with pytest.raises(ConversionError, match="no signature 'other'"):
        mlferry.convert(tmp_path, signature="other")


def test_outputs_keep_their_names_whatever_their_order(tf: Any, tmp_path: Path) -> None:
    """A loaded signature lists its outputs in another order in every process."""
    keys = [f"{letter}{index}" for index in range(4) for letter in "qbzma"]

    class Net(tf.Module):  # type: ignore[misc, name-defined]
        @tf.function(input_signature=[tf.TensorSpec((1,), name="x")])
        def shifted(self, x: Any) -> Any:
            return {key: x + float(index) for index, key in enumerate(keys)}

    net = Net()
    tf.saved_model.save(net, str(tmp_path), signatures={"shifted": net.shifted})
    loaded = tf.saved_model.load(str(tmp_path))
    for source in (tmp_path, loaded.signatures["shifted"], net.shifted, loaded.shifted):
        actual = mlferry.convert(source).predict({"x": np.zeros(1, np.float32)})
        assert {key: float(y[0]) for key, y in actual.items()} == dict(
            zip(keys, range(20), strict=True)
        )


def test_a_function(tf: Any, picture: np.ndarray) -> None:
    expected = network(tf, picture).numpy()
    called = tf.function(lambda image: network(tf, image), autograph=False)
    model = mlferry.convert(called, inputs=[mlferry.TensorType(shape=(1, 6, 5, 3))])
    np.testing.assert_allclose(value(model, image=picture), expected, atol=1e-6)
    with pytest.raises(ConversionError, match=r"TensorType\(name='image', shape"):
        mlferry.convert(called)
    signed = tf.function(
        lambda image: network(tf, image), input_signature=[tf.TensorSpec((1, 6, 5, 3))],
        autograph=False,
    )  # fmt: skip
    np.testing.assert_allclose(value(mlferry.convert(signed), image=picture), expected, atol=1e-6)
    concrete = signed.get_concrete_function()
    np.testing.assert_allclose(value(mlferry.convert(concrete), image=picture), expected, atol=1e-6)


def test_a_subclassed_keras_model(library: Library) -> None:
    keras = library("keras")

    class Net(keras.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first = keras.layers.Dense(4, activation="relu")
            self.drop = keras.layers.Dropout(0.5)

        def call(self, x: Any, training: bool = False) -> Any:
            y = self.first(x)
            return self.drop(y, training=training) if training else y * 2

    net = Net()
    x = RNG.normal(size=(2, 3)).astype(np.float32)
    expected = np.asarray(net(x))
    model = mlferry.convert(net, inputs=[mlferry.TensorType(shape=(2, 3))])
    np.testing.assert_allclose(value(model, x=x), expected, atol=1e-6)
    with pytest.raises(ConversionError, match="does not know the shapes"):
        mlferry.convert(net)


# ---- the hook --------------------------------------------------------------------------


def with_unknown(tf: Any) -> Any:
    """CumulativeLogsumexp has no converter; Bessel functions, neither."""
    return frozen(
        tf, lambda x: tf.math.cumulative_logsumexp(tf.nn.relu(x, name="r"), 1, name="twist") + 1
    )


def test_unsupported_ops_are_all_named(tf: Any) -> None:
    graph = frozen(
        tf,
        lambda x: tf.math.cumulative_logsumexp(
            tf.math.bessel_i0e(tf.math.cumulative_logsumexp(x, 1)), 2, name="last"
        ),
    )
    with pytest.raises(UnsupportedOpError) as caught:
        mlferry.convert(graph)
    assert set(caught.value.ops) == {"CumulativeLogsumexp", "BesselI0e"}
    assert len(caught.value.ops["CumulativeLogsumexp"]) == 2


class Total(mlferry.CustomLayer):
    """Sees what the source's op saw: channels last."""

    shapes: list[tuple[int, ...]] = []

    def output_shapes(self, input_shapes: Any) -> Any:
        return input_shapes

    def evaluate(self, inputs: Any) -> Any:
        Total.shapes.append(inputs[0].shape)
        return [np.logaddexp.accumulate(inputs[0], self.parameters["axis"])]


@pytest.mark.parametrize(
    "key", ["CumulativeLogsumexp", "scope/twist/CumulativeLogsumexp", "scope/twist"]
)
def test_functions_by_op_and_by_name(tf: Any, key: str, picture: np.ndarray) -> None:
    graph = with_unknown(tf)
    names = {node.name for node in graph.node if node.op == "CumulativeLogsumexp"}
    key = key if key in ("CumulativeLogsumexp", *names) else next(iter(names))
    seen = []

    def total(node: Any) -> mlferry.CustomLayerParams:
        seen.append([w.tolist() for w in node.get_weights()])
        return mlferry.CustomLayerParams("Total", parameters={"axis": int(node.get_weights()[0])})

    model = mlferry.convert(graph, custom_conversion_functions={key: total})
    loaded = mlferry.MLModel(model.get_spec(), custom_layers={"Total": Total})
    expected = np.logaddexp.accumulate(np.maximum(picture, 0), 1) + 1
    np.testing.assert_allclose(value(loaded, scope_x=picture), expected, rtol=1e-5)
    assert seen == [[1]]  # constant inputs are offered as arrays
    assert Total.shapes[-1] == (1, 6, 5, 3)


def test_the_user_comes_first(tf: Any) -> None:
    def relu(node: Any, builder: Any) -> None:
        builder.layer("activation", node.name, node.input_names, node.output_names, tanh={})

    graph = frozen(tf, lambda x: tf.nn.relu(x, name="r"), (2, 3))
    model = mlferry.convert(graph, custom_conversion_functions={"Relu": relu})
    x = RNG.normal(size=(2, 3)).astype(np.float32)
    np.testing.assert_allclose(value(model, scope_x=x), np.tanh(x), rtol=1e-5)


# ---- layouts, images, classifiers, flexible shapes -------------------------------------


def kinds(model: mlferry.MLModel) -> Counter[str | None]:
    spec = model.get_spec()
    net = getattr(spec, spec.WhichOneof("Type") or "")
    return Counter(layer.WhichOneof("layer") for layer in net.layers)


def test_no_transposes_with_an_image(tf: Any) -> None:
    """The bias and what follows join the convolution; the image is channels-first already."""
    model = mlferry.convert(
        frozen(tf, lambda x: network(tf, x)), inputs=[mlferry.ImageType(scale=1 / 255)],
        classifier_config=mlferry.ClassifierConfig(list("abcde")),
    )  # fmt: skip
    assert kinds(model) == {
        "convolution": 1, "activation": 1, "reduceMean": 1, "innerProduct": 1, "softmaxND": 1
    }  # fmt: skip
    pixels = RNG.integers(0, 256, (6, 5, 3)).astype(np.uint8)
    actual = model.predict({"scope_x": pixels})
    expected = network(tf, (pixels[None] / 255).astype(np.float32)).numpy()[0]
    np.testing.assert_allclose(list(actual["scope_y"].values()), expected, atol=1e-5)
    assert actual["classLabel"] == "abcde"[int(expected.argmax())]


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50"])
def test_no_transposes_inside_known_networks(name: str, tf: Any, library: Library) -> None:
    keras = library("keras")
    keras.backend.clear_session()
    net = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=10)
    called = tf.function(lambda x: net(x, training=False), autograph=False)
    spec = tf.TensorSpec((1, 64, 64, 3), name="x")
    converted = mlferry.convert(called.get_concrete_function(spec))
    assert kinds(converted)["transpose"] == 1  # of the multi-array at the input
    x = RNG.uniform(0, 1, (1, 64, 64, 3)).astype(np.float32)
    expected = np.asarray(net(x, training=False))
    assert np.abs(value(converted, x=x) - expected).max() <= 1e-4 * np.ptp(expected) + 1e-7


def test_flexible_shapes(tf: Any) -> None:
    side = mlferry.RangeDim(4, 32)
    graph = frozen(tf, lambda x: network(tf, x), (None, None, None, 3))
    model = mlferry.convert(graph, inputs=[mlferry.TensorType(shape=(1, side, side, 3))])
    for size in ((4, 9), (31, 16)):
        x = RNG.normal(size=(1, *size, 3)).astype(np.float32)
        np.testing.assert_allclose(value(model, scope_x=x), network(tf, x).numpy(), atol=1e-6)
    with pytest.raises(ConversionError, match=r"scope_x: \(\?, \?, \?, 3\)"):
        mlferry.convert(graph)


def test_transposed_convolution_of_flexible_size(tf: Any) -> None:
    kernel = RNG.normal(0, 0.3, (4, 4, 2, 3)).astype(np.float32)

    def doubled(x: Any) -> Any:
        shape = tf.shape(x)
        return tf.nn.conv2d_transpose(
            x, kernel, tf.stack([shape[0], shape[1] * 2, shape[2] * 2, 2]), 2, "SAME"
        )

    side = mlferry.RangeDim(4, 32)
    graph = frozen(tf, doubled, (None, None, None, 3))
    model = mlferry.convert(graph, inputs=[mlferry.TensorType(shape=(1, side, side, 3))])
    x = RNG.normal(size=(1, 5, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(value(model, scope_x=x), doubled(x).numpy(), atol=1e-5)


# ---- quantization, randomness, loops ---------------------------------------------------


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_that_are_rounded_stay_quantized(tf: Any, bits: int, picture: np.ndarray) -> None:
    def net(x: Any) -> Any:
        rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            KERNEL, [-0.5] * 4, [0.4, 0.5, 0.6, 0.7], bits
        )
        x = tf.quantization.fake_quant_with_min_max_args(x, -2, 2, 8)
        return tf.nn.conv2d(x, rounded, 1, "SAME")

    graph = frozen(tf, net, (1, 6, 5, 3))
    model = mlferry.convert(graph)
    stored = [weights.encoding(w.message) for w in weights.iter_weights(model.get_spec())]
    assert weights.Encoding("linear", bits) in stored
    np.testing.assert_allclose(value(model, scope_x=picture), net(picture).numpy(), atol=1e-5)
    dropped = mlferry.convert(graph, activation_quantization="drop")
    assert kinds(dropped)["floor"] == 0


def test_random_values_have_the_right_distribution(tf: Any) -> None:
    graph = frozen(
        tf, lambda x: x + tf.random.normal((200, 300)) + tf.random.uniform((200, 300)), (200, 300)
    )
    actual = value(mlferry.convert(graph), scope_x=np.zeros((200, 300)))
    assert abs(actual.mean() - 0.5) < 0.03
    assert abs(actual.var() - (1 + 1 / 12)) < 0.03


def test_many_steps_become_a_loop(tf: Any, library: Library) -> None:
    keras = library("keras")
    net = keras.Sequential(
        [keras.Input((200, 3)), keras.layers.LSTM(4, return_sequences=True), keras.layers.GRU(3)]
    )
    called = tf.function(lambda x: net(x, training=False), autograph=False)
    model = mlferry.convert(called.get_concrete_function(tf.TensorSpec((1, 200, 3), name="x")))
    assert kinds(model)["loop"] == 2
    assert sum(kinds(model).values()) < 100
    x = RNG.normal(size=(1, 200, 3)).astype(np.float32)
    np.testing.assert_allclose(value(model, x=x), np.asarray(net(x)), atol=1e-5)


# ---- the classic entry point -----------------------------------------------------------


def test_the_classic_entry_point(tf: Any, tmp_path: Path) -> None:
    (tmp_path / "net.pb").write_bytes(
        frozen(tf, lambda x: network(tf, x), (None, None, None, 3)).SerializeToString()
    )
    model = classic(
        str(tmp_path / "net.pb"), mlmodel_path=tmp_path / "net.mlmodel",
        output_feature_names=["scope/y:0"], input_name_shape_dict={"scope/x:0": [1, 6, 5, 3]},
        image_input_names="scope/x:0", image_scale=1 / 127.5, red_bias=-1, green_bias=-1,
        blue_bias=-1, class_labels=list("abcde"),
    )  # fmt: skip
    assert (tmp_path / "net.mlmodel").exists()
    pixels = RNG.integers(0, 256, (6, 5, 3)).astype(np.uint8)
    actual = model.predict({"scope__x__0": pixels})
    expected = network(tf, (pixels[None] / 127.5 - 1).astype(np.float32)).numpy()[0]
    np.testing.assert_allclose(list(actual["scope__y__0"].values()), expected, atol=1e-5)
    for wrong in ({"minimum_ios_deployment_target": "new"}, {"image_input_names": "z"},
                  {"tf_image_format": "HWC"}, {"output_feature_names": ["z:0"]}):  # fmt: skip
        with pytest.raises(ConversionError):
            classic(str(tmp_path / "net.pb"), **wrong)


# ---- bad input -------------------------------------------------------------------------


def test_every_truncation(tf: Any, tmp_path: Path) -> None:
    data = frozen(tf, tf.nn.relu, (2, 3)).SerializeToString()
    for size in range(0, len(data), 3):
        (tmp_path / "net.pb").write_bytes(data[:size])
        try:
            mlferry.convert(tmp_path / "net.pb")
        except MlferryError:
            continue


def test_damaged_saved_models(tf: Any, tmp_path: Path) -> None:
    saved_model(tf, tmp_path)
    whole = (tmp_path / "saved_model.pb").read_bytes()
    (tmp_path / "saved_model.pb").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MlferryError):
        mlferry.convert(tmp_path, signature="scaled")
    (tmp_path / "saved_model.pb").write_bytes(whole)
    for part in (tmp_path / "variables").iterdir():
        part.write_bytes(b"")
    with pytest.raises(ModelFileError, match="cannot be read by TensorFlow"):
        mlferry.convert(tmp_path, signature="scaled")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConversionError, match="cannot tell what"):
        mlferry.convert(tmp_path / "empty")


def test_a_large_model_is_frozen_without_a_copy(
    tf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is that of the usual way, recurrent layers and scalars among its inputs."""

    class Model(tf.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.w = tf.Variable(np.arange(6, dtype=np.float32).reshape(2, 3))

        @tf.function(input_signature=[tf.TensorSpec([1, 2], name="x"), tf.TensorSpec([], name="s")])  # type: ignore[misc]
        def call(self, x: Any, s: Any) -> Any:
            def step(i: Any, y: Any) -> Any:
                return i + 1, y @ self.w @ tf.transpose(self.w) * s

            return {"y": tf.while_loop(lambda i, y: i < 12, step, (0, x))[1] @ self.w, "x": x}

    model = Model()
    tf.saved_model.save(model, str(tmp_path / "m"), signatures=model.call)
    data = {"x": np.float32([[1, -2]]), "s": np.float32(0.05)}
    right = model.call(**{name: tf.constant(value) for name, value in data.items()})
    arguments: dict[str, Any] = {"inputs": None, "outputs": None, "signature": None}
    for size in (0, 1 << 30):
        monkeypatch.setattr(loading, "_LARGE", size)

        def here(path: Path, name: str, _: Any) -> Any:
            frozen = loading.frozen_message(str(path), name, **arguments)
            function = loading.imported(frozen, name)
            return read.read_function(function, name, frozen.names, is_file=True)

        monkeypatch.setattr(read, "_read_apart", here)
        actual = mlferry.convert(tmp_path / "m").predict({**data, "s": np.float32([0.05])})
        np.testing.assert_allclose(actual["y"], right["y"], rtol=1e-5)
        assert set(actual) == {"y", "x_output"}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda tf, x: tf.signal.rfft(x), "is of complex numbers"),
        (lambda tf, x: tf.abs(tf.math.tanh(tf.signal.rfft(x))), "Tanh of complex numbers"),
        (lambda tf, x: tf.math.real(tf.math.reduce_prod(tf.signal.rfft(x))), "Prod of complex"),
    ],
)
def test_complex_numbers_that_cannot_be_converted(tf: Any, call: Any, said: str) -> None:
    function = tf.function(lambda x: call(tf, x), autograph=False)
    with pytest.raises(ConversionError, match=said):
        mlferry.convert(function, inputs=[mlferry.TensorType(name="x", shape=(2, 6))])


@pytest.mark.parametrize(
    "key", [np.s_[:, ::-1], np.s_[:, :3, 1], np.s_[:, -2:0:-1, ::2], np.s_[:, 4::-3]], ids=str
)
def test_parts_of_any_length(tf: Any, key: Any) -> None:
    function = tf.function(lambda x: x[key], autograph=False)
    shape = (1, mlferry.RangeDim(5, 20), 4)
    converted = mlferry.convert(function, inputs=[mlferry.TensorType(name="x", shape=shape)])
    for count in (5, 6, 20):
        data = RNG.normal(size=(1, count, 4)).astype(np.float32)
        np.testing.assert_array_equal(value(converted, x=data), data[key])


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [(4, 5), (1, 3)])
def test_crops_of_images_of_any_size(tf: Any, method: str, size: tuple[int, int]) -> None:
    boxes = np.float32([[0.1, 0.2, 0.8, 0.9], [-0.3, 0.0, 0.5, 1.4]])

    def call(x: Any) -> Any:
        return tf.image.crop_and_resize(x, boxes, [0, 0], size, method, 0.5)

    side = mlferry.RangeDim(4, 20)
    converted = mlferry.convert(
        tf.function(call, autograph=False),
        inputs=[mlferry.TensorType(name="x", shape=(1, side, side, 2))],
    )
    for shape in ((1, 4, 7, 2), (1, 20, 9, 2)):
        data = RNG.normal(size=shape).astype(np.float32)
        np.testing.assert_allclose(value(converted, x=data), call(data), atol=2e-5)


def test_branches_that_hold_variables(tf: Any) -> None:
    weights = tf.Variable(np.float32([[1, 2], [3, 4]]))

    @tf.function(
        input_signature=[tf.TensorSpec((1, 2), name="x"), tf.TensorSpec((), tf.int32, "i")]
    )
    def chosen(x: Any, i: Any) -> Any:
        return tf.switch_case(i, [lambda: x @ weights, lambda: x - weights[0]])

    model = mlferry.convert(chosen.get_concrete_function())
    x = np.float32([[5, 7]])
    for index in (0, 1, 4):
        (made,) = model.predict({"x": x, "i": np.float32([index])}).values()
        np.testing.assert_allclose(made, chosen(x, index))
