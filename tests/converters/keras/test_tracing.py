"""`mlferry.trace`: layers of a user's own converted by what they compute; Keras is the oracle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import ConversionError, UnsupportedOpError

Library = Callable[[str], Any]


@pytest.fixture(scope="module")
def table(library: Library) -> Any:
    library("keras")
    from tests.converters.keras import traced_layers

    return traced_layers


NAMES = [
    "SelfAttention", "BahdanauAttention", "MaskedAttentionPooling", "LuongAttention",
    "RelativeBias", "SqueezeExcite", "CBAM", "EfficientChannelAttention", "GlobalContext",
    "SpatialTransformer", "CoordConv", "SubPixel", "Patches", "BlurPool", "Upsample", "Anchors",
    "PixelNorm", "InstanceNorm", "GroupNorm", "WeightStandardization", "Squash", "UnitSphere",
    "Mish", "SwishBeta", "Snake", "SReLU", "GatedLinearUnit", "Highway", "Maxout", "RBF",
    "FactorizationMachine", "Sinusoids", "PositionEmbedding", "Rotary", "TransformerBlock",
    "ResidualTower", "TaggerInside",
]  # fmt: skip


def inputs_of(k: Any, row: Any) -> list[Any]:
    kind = "int32" if row.words else "float32"
    return [
        k.layers.Input(shape, name=f"x{index}", dtype=kind, batch_size=1)
        for index, shape in enumerate(row.shapes)
    ]


def compare(source: Any, model: Any, data: list[np.ndarray], **options: Any) -> mlferry.MLModel:
    converted = mlferry.convert(source, **options)
    actual = list(converted.predict({f"x{i}": x for i, x in enumerate(data)}).values())
    expected = model(data if len(data) > 1 else data[0], training=False)
    for one, other in zip(actual, expected if isinstance(expected, list | tuple) else [expected],
                          strict=True):  # fmt: skip
        np.testing.assert_allclose(one, np.asarray(other), atol=1e-5, rtol=1e-4)
    return converted


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")  # Keras's, of its own formats
def test_against_keras(
    name: str, table: Any, library: Library, rng: np.random.Generator, tmp_path: Path
) -> None:
    k = library("keras")
    k.utils.set_random_seed(1)
    (row,) = [row for row in table.ROWS if type(row.make()).__name__ == name]
    inputs = inputs_of(k, row)
    layer = row.make()
    output = layer(inputs if len(inputs) > 1 else inputs[0])
    model = k.Model(inputs, output)
    data = [
        rng.integers(0, 9, (1, *shape)).astype(np.int32)
        if row.words
        else rng.standard_normal((1, *shape)).astype(np.float32)
        for shape in row.shapes
    ]
    converted = compare(model, model, data, custom_conversion_functions={name: mlferry.trace})
    assert not mlferry.utils.has_custom_layer(converted.get_spec())
    for suffix in (".keras", ".h5"):
        path = tmp_path / f"m{suffix}"
        model.save(path)
        compare(path, model, data, trace_custom_layers=True, custom_objects=table.CLASSES)


def test_every_layer_of_the_table_is_here(table: Any) -> None:
    assert [type(row.make()).__name__ for row in table.ROWS] == NAMES
    assert len(NAMES) >= 25


@pytest.mark.filterwarnings("ignore")
def test_masks_go_in_and_through(table: Any, library: Library, rng: np.random.Generator) -> None:
    k = library("keras")
    ids = k.layers.Input((5,), dtype="int32", name="x0")
    x = k.layers.Embedding(9, 6, mask_zero=True)(ids)
    tagged = table.TaggerInside()(x)
    model = k.Model(ids, [table.MaskedAttentionPooling()(tagged), k.layers.LSTM(2)(tagged), tagged])
    for words in ([[1, 2, 0, 0, 3]], [[0, 4, 5, 0, 0]]):
        compare(model, model, [np.array(words, np.int32)], trace_custom_layers=True)


@pytest.mark.parametrize("name", ["PixelNorm", "Mish", "SwishBeta", "InstanceNorm", "CBAM"])
def test_sizes_that_vary(name: str, table: Any, library: Library, rng: np.random.Generator) -> None:
    k = library("keras")
    x = k.layers.Input((None, None, 4), name="x0")
    row = next(row for row in table.ROWS if type(row.make()).__name__ == name)
    model = k.Model(x, row.make()(k.layers.Conv2D(4, 3)(x)))
    side = mlferry.RangeDim(5, 12)
    kind = mlferry.TensorType(shape=(1, side, side, 4))
    converted = mlferry.convert(model, inputs=[kind], trace_custom_layers=True)
    for shape in ((5, 7), (12, 6)):
        data = rng.standard_normal((1, *shape, 4)).astype(np.float32)
        (actual,) = converted.predict({"x0": data}).values()
        np.testing.assert_allclose(actual, np.asarray(model(data)), atol=1e-5)


def test_the_error_suggests_it_where_it_works(table: Any, library: Library) -> None:
    k = library("keras")

    class Fourier(k.layers.Layer):  # type: ignore[misc,name-defined]
        def call(self, x: Any) -> Any:
            return k.ops.fft2((x, x))[0]

    x = k.layers.Input((6, 4, 4))
    model = k.Model(x, Fourier()(table.Mish()(x)))
    with pytest.raises(UnsupportedOpError) as caught:
        mlferry.convert(model)
    assert "custom_conversion_functions={'Mish': mlferry.trace})" in str(caught.value)


def test_a_layer_that_branches_on_values_says_where(library: Library) -> None:
    k = library("keras")

    class Branching(k.layers.Layer):  # type: ignore[misc,name-defined]
        def call(self, x: Any) -> Any:
            if isinstance(x, k.KerasTensor) and k.ops.sum(x) > 0:
                return x
            return -x

        def compute_output_spec(self, x: Any) -> Any:
            return k.KerasTensor(x.shape)

    x = k.layers.Input((3,), name="x0")
    model = k.Model(x, Branching()(x))
    with pytest.raises(ConversionError, match=r"test_tracing.py:\d+: if .*ops.sum\(x\) > 0"):
        mlferry.convert(model, trace_custom_layers=True)


def test_files_need_the_class(table: Any, library: Library, tmp_path: Path) -> None:
    k = library("keras")
    x = k.layers.Input((6, 4, 4), name="x0")
    k.Model(x, table.Mish()(x)).save(tmp_path / "m.keras")
    functions = {"Mish": mlferry.trace}
    with pytest.raises(ConversionError, match=r"pass custom_objects=\{'Mish': the class\}"):
        mlferry.convert(tmp_path / "m.keras", custom_conversion_functions=functions)


def test_layers_forget_that_they_were_traced(table: Any, library: Library) -> None:
    k = library("keras")
    x = k.layers.Input((6, 4, 4), name="x0")
    layer = table.SqueezeExcite(ratio=2)
    model = k.Model(x, layer(x))
    before = model.to_json()
    mlferry.convert(model, trace_custom_layers=True)
    assert model.to_json() == before
    assert not layer.down._inbound_nodes
    with pytest.raises(ConversionError, match="a value of custom_conversion_functions"):
        mlferry.trace(layer)


# ---- functions -------------------------------------------------------------------------


@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
@pytest.mark.filterwarnings("ignore")  # of Keras, of its own formats
def test_functions_are_the_sources_own(keras_name: str, library: Library, tmp_path: Path) -> None:
    """In memory a node has the very function; of a file, what the file tells."""
    k = library(keras_name)

    def swish(x: Any) -> Any:
        return x * 0.5

    seen: list[Any] = []

    def convert(node: Any) -> Any:
        seen.append(node.function if node.op == "Lambda" else node.activation)
        return mlferry.CustomLayerParams("Swish", output_shapes=lambda shapes: shapes)

    x = k.layers.Input((3,), name="x0")
    model = k.Model(x, k.layers.Dense(2, activation=swish)(k.layers.Lambda(swish)(x)))
    functions = {"Lambda": convert, "swish": convert}
    mlferry.convert(model, custom_conversion_functions=functions)
    assert seen[0] is swish
    assert seen[1] is swish
    for suffix in (".keras", ".h5"):
        model.save(tmp_path / f"m{suffix}")
        seen.clear()
        mlferry.convert(tmp_path / f"m{suffix}", custom_conversion_functions=functions)
        known = keras_name == "keras"  # Keras 2 stores code alone
        assert seen[0].__name__ == ("swish" if known else "<lambda>")
        assert (seen[0] == swish) is known
        with pytest.raises(ConversionError, match="whose code is never run: pass custom_objects="):
            seen[0](1)
    if keras_name == "keras":
        seen.clear()
        mlferry.convert(
            tmp_path / "m.keras", custom_conversion_functions=functions,
            custom_objects={"swish": swish},
        )  # fmt: skip
        assert seen == [swish, swish]


@pytest.mark.filterwarnings("ignore")
def test_options_that_no_config_has(library: Library) -> None:
    k = library("keras")

    class Proposals(k.layers.Layer):  # type: ignore[misc,name-defined]
        def __init__(self, most: int) -> None:
            super().__init__()
            self.pre_nms_max_proposals = most

        def call(self, x: Any) -> Any:
            return x

    x = k.layers.Input((3,))
    matches = []

    def convert(node: Any) -> Any:
        matches.append(node.pre_nms_max_proposals)
        with pytest.raises(AttributeError, match="has no option 'post_nms'"):
            node.post_nms  # noqa: B018 (the access itself is what is tried)
        return mlferry.CustomLayerParams("Proposals")

    model = k.Model(x, Proposals(7)(x))
    mlferry.convert(model, custom_conversion_functions={"Proposals": convert})
    assert matches == [7]


@pytest.mark.filterwarnings("ignore")
def test_functions_are_traced(library: Library, tmp_path: Path) -> None:
    k = library("keras")

    def swish(x: Any, beta: float = 1.0) -> Any:
        return x * k.ops.sigmoid(beta * x)

    x = k.layers.Input((3,), name="x0")
    y = k.layers.Lambda(swish, arguments={"beta": 2.0})(x)
    model = k.Model(x, k.layers.Activation(swish)(k.layers.Dense(2, activation=swish)(y)))
    data = [np.array([[-1.0, 0.5, 2.0]], np.float32)]
    compare(model, model, data, trace_custom_layers=True)
    functions = {"Lambda": mlferry.trace, "swish": mlferry.trace}
    compare(model, model, data, custom_conversion_functions=functions)
    for suffix in (".keras", ".h5"):
        model.save(tmp_path / f"m{suffix}")
        own = {"swish": swish}
        compare(tmp_path / f"m{suffix}", model, data, trace_custom_layers=True, custom_objects=own)


# ---- through TensorFlow, and on other backends -----------------------------------------


@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
@pytest.mark.filterwarnings("ignore")  # of Keras, of its own formats
def test_layers_in_the_functions_of_tensorflow(
    keras_name: str, library: Library, rng: np.random.Generator, tmp_path: Path
) -> None:
    k, tf = library(keras_name), library("tensorflow")

    class Norm(k.layers.Layer):  # type: ignore[misc,name-defined]
        def build(self, shape: Any) -> None:
            self.scale = self.add_weight(name="scale", shape=(shape[-1],), initializer="uniform")
            self.inner = k.layers.Dense(shape[-1])
            self.inner.build(shape)

        def call(self, x: Any, training: Any = None) -> Any:
            mean, variance = tf.nn.moments(x, (1, 2), keepdims=True)
            return self.inner((x - mean) / tf.sqrt(variance + 1e-3)) * self.scale

    class Masked(k.layers.Layer):  # type: ignore[misc,name-defined]
        def call(self, x: Any, mask: Any = None) -> Any:
            kept = tf.cast(mask, x.dtype)[..., None]
            return tf.reduce_sum(x * kept, 1) / tf.reduce_sum(kept, 1)

        def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
            return None

    images, ids = k.layers.Input((6, 5, 4), name="x0"), k.layers.Input((5,), name="x1")
    normed = k.layers.Flatten()(Norm()(k.layers.Conv2D(4, 3)(images)))
    model = k.Model(
        [images, ids], [normed, Masked()(k.layers.Embedding(9, 4, mask_zero=True)(ids))]
    )
    data = [
        rng.standard_normal((1, 6, 5, 4)).astype(np.float32),
        np.array([[1, 0, 3, 0, 2]], np.float32),
    ]
    compare(model, model, data, trace_custom_layers=True)
    own = {"Norm": Norm, "Masked": Masked}
    for suffix in (".keras", ".h5"):
        model.save(tmp_path / f"m{suffix}")
        compare(tmp_path / f"m{suffix}", model, data, trace_custom_layers=True, custom_objects=own)


@pytest.mark.filterwarnings("ignore")
def test_activations_of_packages(library: Library) -> None:
    """Found by their full name, two of one name apart, and never taken for Keras's own."""
    k = library("keras")
    register = k.saving.register_keras_serializable

    def first(x: Any) -> Any:
        return x * 2.0

    def second(x: Any) -> Any:
        return x * 3.0

    first.__name__ = second.__name__ = "relu"
    first, second = register("one", "relu")(first), register("two", "relu")(second)
    x = k.layers.Input((3,), name="x0")
    hidden = k.layers.Dense(2, activation=first)(x)
    model = k.Model(x, k.layers.Dense(2, activation=second)(hidden))
    with pytest.raises(UnsupportedOpError, match=r"one>relu[\s\S]*two>relu"):
        mlferry.convert(model)
    functions = {
        f"{name}>relu": lambda node, name=name: mlferry.CustomLayerParams(f"{name.title()}Relu")
        for name in ("one", "two")
    }
    converted = mlferry.convert(model, custom_conversion_functions=functions)
    assert mlferry.utils.get_custom_layer_names(converted.get_spec()) == {"OneRelu", "TwoRelu"}
    compare(model, model, [np.array([[-1, 2, 3]], np.float32)], trace_custom_layers=True)
    with pytest.warns(UserWarning, match=r"'one>rleu'. Did you mean 'one>relu'"):
        mlferry.convert(
            model, custom_conversion_functions={**functions, "one>rleu": functions["one>relu"]}
        )


def subclassed(k: Any, table: Any) -> Any:
    class Net(k.Model):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.blocks = [table.SqueezeExcite(ratio=2), table.Mish()]
            self.first, self.norm = k.layers.Conv2D(4, 3), k.layers.BatchNormalization()

        def call(self, image: Any, training: bool = False) -> Any:
            x = self.norm(self.first(image), training=training)
            for block in self.blocks:
                x = block(x)
            return {"pooled": k.ops.mean(x, (1, 2)), "map": x}

    return Net()


@pytest.mark.parametrize("told", [True, False])
def test_subclassed_models_without_tensorflow(
    told: bool, table: Any, library: Library, rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """On other backends they are traced; here TensorFlow runs what is traced, and is not asked."""
    k = library("keras")
    model = subclassed(k, table)
    x = rng.standard_normal((1, 6, 6, 3)).astype(np.float32)
    expected = model(x)
    monkeypatch.setattr(k.backend, "backend", lambda: "jax")
    monkeypatch.delattr("mlferry.converters.tensorflow.read.read")
    inputs = [mlferry.TensorType(name="image", shape=(1, 6, 6, 3))] if told else None
    actual = mlferry.convert(model, inputs=inputs).predict({"image": x})
    assert list(actual) == ["map", "pooled"]
    for name, values in actual.items():
        np.testing.assert_allclose(values, np.asarray(expected[name]), atol=1e-5)


def test_a_subclassed_model_that_was_never_built(
    table: Any, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    k = library("keras")
    model = subclassed(k, table)
    monkeypatch.setattr(k.backend, "backend", lambda: "jax")
    message = r"does not know the shape of its input 'image'; give it: .*TensorType\(name='image'"
    with pytest.raises(ConversionError, match=message):
        mlferry.convert(model)


# ---- the talk's layer, three ways ------------------------------------------------------


def sampled(image: np.ndarray, theta: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Bilinear samples of one image [height, width, channels], pixel by pixel."""
    height, width, channels = image.shape
    result = np.zeros((rows, columns, channels))
    for i, v in enumerate(np.linspace(-1, 1, rows)):
        for j, u in enumerate(np.linspace(-1, 1, columns)):
            x, y = theta.reshape(2, 3) @ [u, v, 1]
            x, y = (x + 1) / 2 * (width - 1), (y + 1) / 2 * (height - 1)
            for row in (int(np.floor(y)), int(np.floor(y)) + 1):
                for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= row < height and 0 <= column < width:
                        near = (1 - abs(x - column)) * (1 - abs(y - row))
                        result[i, j] += near * image[row, column]
    return result


class Sampler(mlferry.CustomLayer):
    def output_shapes(self, input_shapes: Any) -> Any:
        (batch, _, _, channels), _ = input_shapes
        return [(batch, self.parameters["rows"], self.parameters["columns"], channels)]

    def evaluate(self, inputs: Any) -> Any:
        size = self.parameters["rows"], self.parameters["columns"]
        return [np.stack([sampled(x, t, *size) for x, t in zip(*inputs, strict=True)])]


def composed(node: Any, builder: Any) -> None:
    """Weights of all pixels for each place, by the distance along both axes; then one product."""
    _, height, width, channels = node.input_shapes[0]
    rows, columns = node.rows, node.columns
    grid = np.stack(
        np.broadcast_arrays(
            np.linspace(-1, 1, columns)[None], np.linspace(-1, 1, rows)[:, None], 1.0
        )
    ).reshape(3, -1)

    def layer(kind: str, inputs: list[str], **params: Any) -> str:
        name = f"{node.name}/{len(builder.network.layers)}"
        builder.layer(kind, name, inputs, [name], **params)
        return name

    def constant(array: Any) -> str:
        values = np.asarray(array, np.float32)
        return layer("loadConstantND", [], shape=values.shape, data=values)

    image, theta = node.input_names
    matrix = layer("reshapeStatic", [theta], targetShape=(1, 2, 3))
    places = layer("batchedMatmul", [matrix, constant(grid[None])])
    near = []
    for index, size in enumerate((width, height)):
        one = layer(
            "sliceStatic",
            [places],
            beginIds=(0, index, 0),
            endIds=(1, index + 1, 0),
            beginMasks=(False,) * 3,
            endMasks=(False, False, True),
            strides=(1, 1, 1),
        )
        half = (size - 1) / 2
        at = layer("activation", [one], linear={"alpha": half, "beta": half})
        column = layer("transpose", [at], axes=(0, 2, 1))
        apart = layer("subtractBroadcastable", [column, constant(np.arange(size)[None, None])])
        away = layer("unary", [apart], type="ABS")
        left = layer("activation", [away], linear={"alpha": -1.0, "beta": 1.0})
        near.append(layer("activation", [left], ReLU={}))
    across = layer("expandDims", [near[0]], axes=(2,))
    down = layer("expandDims", [near[1]], axes=(3,))
    weights = layer("multiplyBroadcastable", [across, down])
    flat = layer("reshapeStatic", [weights], targetShape=(1, rows * columns, height * width))
    pixels = layer("reshapeStatic", [image], targetShape=(1, height * width, channels))
    samples = layer("batchedMatmul", [flat, pixels])
    builder.layer("reshapeStatic", node.name, [samples], node.output_names,
                  targetShape=(1, rows, columns, channels))  # fmt: skip


def test_the_spatial_transformer_three_ways(
    table: Any, library: Library, rng: np.random.Generator
) -> None:
    """A custom layer, Core ML's layers composed, and what its `call` computes: the same numbers."""
    k = library("keras")
    image = k.layers.Input((6, 5, 2), name="x0", batch_size=1)
    theta = k.layers.Input((6,), name="x1", batch_size=1)
    model = k.Model([image, theta], table.SpatialTransformer(rows=4, columns=3)([image, theta]))

    def as_custom(node: Any) -> Any:
        size = {"rows": node.rows, "columns": node.columns}
        return mlferry.CustomLayerParams("ThreeWaysSampler", parameters=size)

    mlferry.register_custom_layer("ThreeWaysSampler")(Sampler)
    data = [
        rng.standard_normal((1, 6, 5, 2)).astype(np.float32),
        np.array([[0.9, 0.2, 0.1, -0.3, 1.1, 0.05]], np.float32),
    ]
    for way, custom in ((as_custom, True), (composed, False), (mlferry.trace, False)):
        functions = {"SpatialTransformer": way}
        converted = compare(model, model, data, custom_conversion_functions=functions)
        assert mlferry.utils.has_custom_layer(converted.get_spec()) is custom
