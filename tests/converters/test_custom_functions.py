"""Custom conversion functions: how they are found, what they may return, what layers see."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.custom import WEIGHTS_KEY
from mlferry.errors import ConversionError, CustomLayerError, UnsupportedOpError
from mlferry.layers.trace import trace
from mlferry.models.scaffold import python_files

Library = Callable[[str], Any]


@pytest.fixture
def keras(library: Library) -> Any:
    module = library("keras")
    module.backend.clear_session()
    return module


@pytest.fixture
def scaled(keras: Any) -> Any:
    """A Keras layer that mlferry does not know, with an option and two weights."""

    @keras.saving.register_keras_serializable(package="lab")
    class Scaled(keras.layers.Layer):
        def __init__(self, factor: float = 2.0, **options: Any) -> None:
            super().__init__(**options)
            self.factor = factor

        def build(self, shape: Any) -> None:
            self.gain = self.add_weight(name="gain", shape=(shape[-1],), initializer="ones")
            self.shift = self.add_weight(name="shift", shape=(1,), initializer="zeros")

        def call(self, x: Any) -> Any:
            return self.factor * x * self.gain + self.shift

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "factor": self.factor}

    return Scaled


@pytest.fixture
def model(keras: Any, scaled: Any) -> Any:
    """A convolution, the unknown layer, and a convolution."""
    built = keras.Sequential(
        [
            keras.layers.Input((5, 4, 3), name="x"),
            keras.layers.Conv2D(2, 1, name="first"),
            scaled(3.0, name="mine"),
            keras.layers.Conv2D(2, 2, name="second"),
        ]
    )
    return built


class ScaledLayer(mlferry.CustomLayer):
    """The Python class of `Scaled`; it remembers the shapes that it saw."""

    seen: Sequence[tuple[int, ...]] = ()

    def set_weights(self, weights: list[np.ndarray]) -> None:
        self.gain, self.shift = weights

    def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        (x,) = inputs
        type(self).seen = [x.shape]
        gain = self.gain if x.shape[-1] == self.gain.size else self.gain.reshape(-1, 1, 1)
        return [self.parameters["factor"] * x * gain + self.shift]


def entry(node: Any) -> mlferry.CustomLayerParams:
    """What a conversion function returns in the simplest case."""
    return mlferry.CustomLayerParams(
        class_name="Scaled",
        description="multiplies",
        parameters={"factor": node.factor},
        weights=node.get_weights(),
    )


def custom_layers(converted: mlferry.MLModel) -> list[Any]:
    layers = converted.get_spec().neuralNetwork.layers
    return [layer for layer in layers if layer.WhichOneof("layer") == "custom"]


def run(converted: mlferry.MLModel, x: np.ndarray, **classes: Any) -> np.ndarray:
    loaded = mlferry.MLModel(converted.get_spec(), custom_layers=classes)
    (actual,) = loaded.predict({"x": x}).values()
    return actual


# ---- finding ---------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["mine", "Scaled", "lab>Scaled"])
def test_found_by_layer_name_and_by_class_with_and_without_package(model: Any, key: str) -> None:
    converted = mlferry.convert(model, custom_conversion_functions={key: entry})
    (layer,) = custom_layers(converted)
    assert layer.name == "mine"
    assert layer.custom.className == "Scaled"
    assert layer.custom.description == "multiplies"
    assert layer.custom.parameters["factor"].doubleValue == 3.0
    assert len(layer.custom.weights) == 2


def test_the_layer_name_comes_before_the_class(model: Any) -> None:
    def other(node: Any) -> mlferry.CustomLayerParams:
        return mlferry.CustomLayerParams("Other")

    functions = {"Scaled": entry, "mine": other}
    converted = mlferry.convert(model, custom_conversion_functions=functions)
    assert custom_layers(converted)[0].custom.className == "Other"


def test_the_user_comes_before_the_built_in_converter(model: Any) -> None:
    def mine(node: Any) -> mlferry.CustomLayerParams:
        return mlferry.CustomLayerParams("MyConvolution", output_shapes=[(1, 5, 4, 2)])

    functions = {"Scaled": entry, "first": mine}
    converted = mlferry.convert(model, custom_conversion_functions=functions)
    names = [layer.custom.className for layer in custom_layers(converted)]
    assert names == ["MyConvolution", "Scaled"]


def test_activations_inside_layers_reach_the_hook_without_transposes(keras: Any) -> None:
    @keras.saving.register_keras_serializable(package="lab")
    def bent(x: Any) -> Any:
        return keras.ops.sin(x)

    built = keras.Sequential(
        [
            keras.layers.Input((6, 6, 3), name="x"),
            keras.layers.Conv2D(2, 3, activation=bent),
            keras.layers.Activation(bent),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation=bent),
        ]
    )
    with pytest.raises(UnsupportedOpError) as caught:
        mlferry.convert(built)
    assert list(caught.value.ops) == ["bent"]
    assert len(caught.value.ops["bent"]) == 3

    class Sine(mlferry.CustomLayer):
        def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
            return [np.sin(x) for x in inputs]

    functions = {"bent": lambda node: mlferry.CustomLayerParams("Sine")}
    image = [mlferry.ImageType(name="x", scale=1 / 255)]
    converted = mlferry.convert(built, inputs=image, custom_conversion_functions=functions)
    kinds = [la.WhichOneof("layer") for la in converted.get_spec().neuralNetwork.layers]
    assert "transpose" not in kinds
    converted = mlferry.convert(built, custom_conversion_functions=functions)
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(run(converted, x, Sine=Sine), built(x), atol=1e-5)


def test_a_key_that_matches_nothing_warns(model: Any) -> None:
    functions = {"Scaled": entry, "Scalled": entry}
    with pytest.warns(UserWarning, match="'Scalled'"):
        mlferry.convert(model, custom_conversion_functions=functions)


def test_a_key_that_matches_nothing_is_part_of_the_error(model: Any) -> None:
    with pytest.raises(UnsupportedOpError, match="match nothing: Scalled"):
        mlferry.convert(model, custom_conversion_functions={"Scalled": entry})


# ---- the error -------------------------------------------------------------------------


def test_the_error_names_every_op_and_shows_lines_that_work(keras: Any, scaled: Any) -> None:
    built = keras.Sequential(
        [
            keras.layers.Input((4,), name="x"),
            scaled(1.0, name="one"),
            scaled(2.0, name="two"),
            keras.layers.Lambda(lambda x: x, name="anything"),
        ]
    )
    with pytest.raises(UnsupportedOpError) as caught:
        mlferry.convert(built)
    assert caught.value.ops == {"Scaled": ["one", "two"], "Lambda": ["anything"]}
    text = str(caught.value)
    assert "custom_conversion_functions={'Scaled': convert_Scaled, 'Lambda': convert_Lambda}" in (
        text
    )
    start, end = text.index("def convert_Scaled"), text.index("mlferry.convert(")
    scope: dict[str, Any] = {"mlferry": mlferry}
    exec(text[start:end], scope)
    functions = {op: scope[f"convert_{op}"] for op in caught.value.ops}
    converted = mlferry.convert(built, custom_conversion_functions=functions)
    first = custom_layers(converted)[0].custom
    assert first.parameters["factor"].doubleValue == 1.0
    assert len(first.weights) == 2


# ---- what a function may return --------------------------------------------------------


def test_protobuf_params_of_ours_and_of_coremltools(model: Any, library: Library) -> None:
    from mlferry.spec.proto import neural_network_pb2

    library("coremltools")
    theirs = library("coremltools.proto.NeuralNetwork_pb2")
    for module in (neural_network_pb2, theirs):

        def function(node: Any, module: Any = module) -> Any:
            params = module.CustomLayerParams(className="Scaled", description="proto")
            params.parameters["factor"].doubleValue = node.factor
            for array in node.get_weights():
                params.weights.add().floatValue.extend(array.ravel())
            return params

        converted = mlferry.convert(model, custom_conversion_functions={"Scaled": function})
        (layer,) = custom_layers(converted)
        assert layer.custom.description == "proto"
        x = np.ones((1, 5, 4, 3), np.float32)
        np.testing.assert_allclose(run(converted, x, Scaled=ScaledLayer), model(x), atol=1e-5)


def test_two_arguments_compose_built_in_layers(model: Any) -> None:
    def compose(node: Any, builder: Any) -> None:
        params = {"linear": {"alpha": node.factor}}
        builder.layer("activation", node.name, node.input_names, node.output_names, **params)

    converted = mlferry.convert(model, custom_conversion_functions={"Scaled": compose})
    assert not custom_layers(converted)
    x = np.random.default_rng(0).normal(size=(1, 5, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(run(converted, x), model(x), atol=1e-5)


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "nothing": (lambda node: None, "returned None; return mlferry.CustomLayerParams"),
    "a pair": (lambda node: ({}, []), "return mlferry.CustomLayerParams"),
    "raises": (lambda node: 1 / 0, "raised ZeroDivisionError"),
    "no such option": (lambda node: node.factr, "no option 'factr'"),
    "classic ONNX": (lambda builder, node, graph, err: None, "takes 4 arguments"),
    "no output": (lambda node, builder: None, "made no blob"),
    "a list": (
        lambda node: mlferry.CustomLayerParams("S", parameters={"size": [1, 2]}),
        "not size=\\[1, 2\\] \\(list\\)",
    ),
    "huge": (
        lambda node: mlferry.CustomLayerParams("S", parameters={"n": 2**80}),
        "bool, int, float or str",
    ),
    "no name": (lambda node: mlferry.CustomLayerParams(""), "no class name"),
    "shapes": (
        lambda node: mlferry.CustomLayerParams("S", output_shapes=[(1, 2), (3, 4)]),
        "2 output_shapes for 1 outputs",
    ),
    "no shapes": (lambda node: mlferry.CustomLayerParams("S", output_shapes=3), "has one shape"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_a_function_must_not_do(model: Any, name: str) -> None:
    function, message = WRONG[name]
    with pytest.raises(ConversionError, match=message) as caught:
        mlferry.convert(model, custom_conversion_functions={"Scaled": function})
    assert "converting Scaled 'mine'" in str(caught.value)


PARAMETERS = [
    (True, "boolValue"), (7, "intValue"), (2**40, "longValue"), (0.5, "doubleValue"),
    ("text", "stringValue"), (np.int64(3), "intValue"), (np.float32(0.25), "doubleValue"),
    (np.bool_(False), "boolValue"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "field"), PARAMETERS)
def test_parameters_keep_their_types(model: Any, value: Any, field: str) -> None:
    def function(node: Any) -> mlferry.CustomLayerParams:
        return mlferry.CustomLayerParams("Scaled", parameters={"p": value})

    converted = mlferry.convert(model, custom_conversion_functions={"Scaled": function})
    stored = custom_layers(converted)[0].custom.parameters["p"]
    assert stored.WhichOneof("value") == field
    assert getattr(stored, field) == value


def test_weights_keep_half_and_bytes(model: Any) -> None:
    arrays = [np.ones(3, np.float16), np.arange(4, dtype=np.uint8), np.ones(2)]

    class Keeps(mlferry.CustomLayer):
        def set_weights(self, weights: list[np.ndarray]) -> None:
            type(self).held = weights

        def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
            return inputs

    def function(node: Any) -> mlferry.CustomLayerParams:
        return mlferry.CustomLayerParams("Keeps", weights=arrays)

    converted = mlferry.convert(model, custom_conversion_functions={"Scaled": function})
    run(converted, np.ones((1, 5, 4, 3), np.float32), Keeps=Keeps)
    assert [a.dtype.name for a in Keeps.held] == ["float16", "uint8", "float32"]
    for held, sample in zip(Keeps.held, arrays, strict=True):
        np.testing.assert_array_equal(held, sample)


# ---- what the layer sees ---------------------------------------------------------------


def test_a_custom_layer_sees_the_axes_of_keras(model: Any, rng: np.random.Generator) -> None:
    converted = mlferry.convert(model, custom_conversion_functions={"Scaled": entry})
    x = rng.normal(size=(1, 5, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(run(converted, x, Scaled=ScaledLayer), model(x), atol=1e-5)
    assert ScaledLayer.seen == [(1, 5, 4, 2)]


def test_channels_first_on_demand(model: Any, rng: np.random.Generator) -> None:
    def function(node: Any) -> mlferry.CustomLayerParams:
        params = entry(node)
        params.channels_first = True
        return params

    converted = mlferry.convert(model, custom_conversion_functions={"Scaled": function})
    x = rng.normal(size=(1, 5, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(run(converted, x, Scaled=ScaledLayer), model(x), atol=1e-5)
    assert ScaledLayer.seen == [(1, 2, 5, 4)]
    kinds = [la.WhichOneof("layer") for la in converted.get_spec().neuralNetwork.layers]
    assert kinds.count("transpose") == 2  # at the model's ends only


def test_add_custom_layers_writes_options_and_weights(model: Any) -> None:
    converted = mlferry.convert(model, add_custom_layers=True)
    (layer,) = custom_layers(converted)
    assert layer.custom.className == "Scaled"
    # nothing that every Keras layer has
    assert set(layer.custom.parameters) == {"factor", WEIGHTS_KEY}
    assert layer.custom.parameters["factor"].doubleValue == 3.0
    assert [len(weight.floatValue) for weight in layer.custom.weights] == [2, 1]
    x = np.ones((1, 5, 4, 3), np.float32)
    np.testing.assert_allclose(run(converted, x, Scaled=ScaledLayer), model(x), atol=1e-5)


def test_weights_by_name_keep_their_shapes(model: Any, tmp_path: Path) -> None:
    """In the model, in the class that runs it, through saving, quantizing and ONNX."""
    sample = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.float16([7, 8])}

    def function(node: Any) -> Any:
        return mlferry.CustomLayerParams("Shaped", parameters={"a": 1}, weights=sample)

    seen = []

    class Shaped(mlferry.CustomLayer):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters)
            assert parameters == {"a": 1}

        def set_weights(self, weights: Any) -> None:
            seen.append([(w.shape, w.dtype.name) for w in weights])
            np.testing.assert_array_equal(weights[0], sample["kernel"])

        def evaluate(self, inputs: Any) -> Any:
            return inputs

    own = {"Shaped": Shaped}
    converted = mlferry.convert(model, custom_conversion_functions={"Scaled": function})
    (layer,) = custom_layers(converted)
    told = json.loads(layer.custom.parameters[WEIGHTS_KEY].stringValue)
    assert told == [{"name": "kernel", "shape": [2, 3]}, {"name": "bias", "shape": [2]}]
    converted.save(tmp_path / "m.mlmodel")
    small = mlferry.quantize_weights(tmp_path / "m.mlmodel", 8)
    small.save(tmp_path / "s.mlmodel")
    x = np.ones((1, 5, 4, 3), np.float32)
    for engine in ("numpy", "onnxruntime"):
        run_by = mlferry.MLModel(tmp_path / "s.mlmodel", custom_layers=own, engine=engine)
        run_by.predict({"x": x})
    assert set(map(tuple, seen)) == {(((2, 3), "float32"), ((2,), "float16"))}
    scaffolded = python_files(small.get_spec())["shaped.py"]
    assert "# weight 0: kernel: 2 x 3, float32" in scaffolded
    spec = converted.get_spec()
    (broken,) = [la for la in spec.neuralNetwork.layers if la.WhichOneof("layer") == "custom"]
    broken.custom.parameters[WEIGHTS_KEY].stringValue = '[{"name": "kernel", "shape": [4]}]'
    with pytest.raises(CustomLayerError, match=r"weights of \[6, 2\] values.*says kernel \(4,\)"):
        mlferry.MLModel(spec, custom_layers=own).predict({"x": x})


def test_what_is_automatic_is_what_the_error_suggests() -> None:
    helper = pytest.importorskip("onnx.helper")
    x, y = (helper.make_tensor_value_info(name, 1, [1, 3]) for name in "xy")
    node = helper.make_node("Twist", ["x"], ["y"], name="t", domain="lab", by=[2, 3], mode="near",
                            gain=0.5, table=[1, 2, 3, 4, 5])  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("lab", 1)]
    graph = helper.make_graph([node], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with pytest.raises(UnsupportedOpError) as caught:
        mlferry.convert(model)
    text = str(caught.value)
    assert "# it has more options: table" in text
    scope: dict[str, Any] = {"mlferry": mlferry}
    exec(text[text.index("def convert_") : text.index("mlferry.convert(")], scope)
    functions = dict.fromkeys(caught.value.ops, scope["convert_lab_Twist"])
    (suggested,) = custom_layers(mlferry.convert(model, custom_conversion_functions=functions))
    (automatic,) = custom_layers(mlferry.convert(model, add_custom_layers=True))
    actual = dict(automatic.custom.parameters)
    assert json.loads(actual.pop("table").stringValue) == [1, 2, 3, 4, 5]
    assert actual == dict(suggested.custom.parameters)
    assert {"by_0", "by_1", "mode", "gain"} == set(actual)
    assert automatic.custom.className == suggested.custom.className == "lab_Twist"


def test_options_without_the_class_being_importable(model: Any, tmp_path: Any, keras: Any) -> None:
    """The file is read as data: Keras need not know the class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "m.h5")
    seen: dict[str, Any] = {}

    def function(node: Any) -> mlferry.CustomLayerParams:
        seen.update(
            factor=node.factor,
            config=node.get_config()["factor"],
            weights=[w.shape for w in node.get_weights()],
            shape=node.input_shape,
            layer=node.layer,
            name=node.name,
            op=node.op,
        )
        return entry(node)

    mlferry.convert(tmp_path / "m.h5", custom_conversion_functions={"lab>Scaled": function})
    assert seen == {
        "factor": 3.0, "config": 3.0, "weights": [(2,), (1,)], "shape": (1, 5, 4, 2),
        "layer": None, "name": "mine", "op": "Scaled",
    }  # fmt: skip
    mlferry.convert(model, custom_conversion_functions={"mine": function})
    assert seen["layer"] is model.layers[1]


# ---- shapes behind a custom layer ------------------------------------------------------


def tf_keras_model(library: Library, tmp_path: Any, *tail: str) -> Any:
    """Keras 2 files do not tell shapes: what lies behind a custom layer is hidden."""
    k = library("tf_keras")

    class Halved(k.layers.Layer):
        def call(self, x: Any) -> Any:
            return x[:, ::2, ::2]

    makers = {
        "conv": lambda: k.layers.Conv2D(3, 2),
        "norm": k.layers.BatchNormalization,
        "pool": k.layers.MaxPooling2D,
        "flat": k.layers.Flatten,
        "dense": lambda: k.layers.Dense(4),
        "relu": k.layers.ReLU,
    }
    layers = [k.layers.Input((8, 6, 2), name="x"), Halved(name="halved")]
    built = k.Sequential([*layers, *(makers[name]() for name in tail)])
    built.set_weights([np.random.default_rng(1).uniform(0.1, 1, w.shape) for w in built.weights])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        built.save(tmp_path / "m.h5")
    return built, tmp_path / "m.h5"


class HalvedLayer(mlferry.CustomLayer):
    def output_shapes(self, input_shapes: list[Any]) -> list[Any]:
        n, h, w, c = input_shapes[0]
        return [(n, -(-h // 2), -(-w // 2), c)]

    def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return [inputs[0][:, ::2, ::2]]


@pytest.mark.parametrize(
    "tail",
    [("conv", "relu", "pool", "flat", "dense"), ("flat",), ("relu",), ("conv", "norm", "conv")],
)
def test_nobody_tells_the_shape_and_nobody_needs_it(
    tail: tuple[str, ...], library: Library, tmp_path: Any, rng: np.random.Generator
) -> None:
    built, path = tf_keras_model(library, tmp_path, *tail)
    functions = {"Halved": lambda node: mlferry.CustomLayerParams("Halved")}
    converted = mlferry.convert(path, custom_conversion_functions=functions)
    x = rng.normal(size=(1, 8, 6, 2)).astype(np.float32)
    actual = run(converted, x, Halved=HalvedLayer)
    np.testing.assert_allclose(actual, built(x), atol=1e-5)


def test_who_needs_the_shape_names_the_layer_that_hides_it(library: Library, tmp_path: Any) -> None:
    _, path = tf_keras_model(library, tmp_path, "dense")
    functions = {"Halved": lambda node: mlferry.CustomLayerParams("Halved")}
    with pytest.raises(
        ConversionError, match=r"unknown after custom layer 'halved'.*output_shapes"
    ):
        mlferry.convert(path, custom_conversion_functions=functions)


@pytest.mark.parametrize("how", ["fixed", "function", "class"])
def test_three_ways_to_tell_the_shape(
    how: str, library: Library, tmp_path: Any, rng: np.random.Generator
) -> None:
    built, path = tf_keras_model(library, tmp_path, "dense")
    told: Any = {
        "fixed": [(1, 4, 3, 2)],
        "function": lambda shapes: [(1, shapes[0][1] // 2, shapes[0][2] // 2, 2)],
        "class": None,
    }[how]
    if how == "class":
        mlferry.register_custom_layer("HalvedForTest")(HalvedLayer)
    name = "HalvedForTest" if how == "class" else "Halved"
    params = mlferry.CustomLayerParams(name, output_shapes=told)
    converted = mlferry.convert(path, custom_conversion_functions={"Halved": lambda node: params})
    x = rng.normal(size=(1, 8, 6, 2)).astype(np.float32)
    np.testing.assert_allclose(run(converted, x, **{name: HalvedLayer}), built(x), atol=1e-5)


def test_shapes_that_the_source_told_stay_in_the_model(keras: Any, tmp_path: Path) -> None:
    """Without a class, what is behind a custom layer is known at the size that was converted."""

    class Pool(keras.layers.Layer):  # type: ignore[misc,name-defined]
        def call(self, x: Any) -> Any:
            return keras.ops.mean(x, 1)

    x = keras.layers.Input((8, 6, 3), name="x", batch_size=1)
    network = keras.Model(x, keras.layers.Dense(2, name="last")(Pool()(x)))
    functions = {"Pool": lambda node: mlferry.CustomLayerParams("PoolWithoutClass")}
    converted = mlferry.convert(network, custom_conversion_functions=functions)
    converted.save(tmp_path / "m.mlmodel")
    spec = mlferry.MLModel(tmp_path / "m.mlmodel").get_spec()
    actual = trace(spec.neuralNetwork, {"x": (1, 8, 6, 3)})
    assert actual.shapes["last"] == (1, 6, 2)
    assert not actual.opaque
    other = trace(spec.neuralNetwork, {"x": (1, 9, 6, 3)})  # nobody told of this size
    assert other.shapes["last"] is None
    assert len(other.opaque) == 1
