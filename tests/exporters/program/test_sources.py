"""Networks of every source as programs: a slice of the tables of the frontends, in every way that
`tests.programs_too` tries them. ``pytest --programs`` tries all."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx.helper
import pytest

import mlferry
from mlferry.errors import ExportError
from mlferry.models import datatypes
from mlferry.models.neural_network import NeuralNetworkBuilder
from mlferry.spec.features import multi_array
from tests import programs_too
from tests.converters.keras.cases import CASES as KERAS
from tests.converters.keras.test_layers import build, samples
from tests.converters.onnx.test_ops import CASES as ONNX, model as onnx_model
from tests.converters.tensorflow.cases import CASES as TENSORFLOW
from tests.converters.tensorflow.test_ops import RANDOM, function_of

Library = Callable[[str], Any]
IDS = np.array([[4, 2, 7, 0, 0, 3]], np.int32)


def check(model: mlferry.MLModel, inputs: Mapping[str, Any]) -> None:
    """A network is right as a program, which `model` itself tells."""
    tried = programs_too.check(model, inputs, model.predict(dict(inputs)))
    assert tried.result == "right", tried


# ---- rows of the frontends -----------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ONNX][::7])
def test_an_op_of_onnx(name: str) -> None:
    network, inputs = onnx_model(ONNX[name])
    check(mlferry.convert(network), inputs)


ROWS = [case for case in KERAS if case.only != "tf_keras"][::14]


@pytest.mark.parametrize("row", range(len(ROWS)), ids=lambda row: f"{row}-{ROWS[row].label}")
def test_a_layer_of_keras(row: int, library: Library, rng: np.random.Generator) -> None:
    case = ROWS[row]
    model = mlferry.convert(build(library("keras"), case, rng))
    names = [feature.name for feature in model.spec.description.input]
    check(model, dict(zip(names, samples(case, rng), strict=True)))


REPEATABLE = [name for name, case in TENSORFLOW.items() if not RANDOM & {*case.ops.split()}]


@pytest.mark.parametrize("name", REPEATABLE[::34])
def test_an_op_of_tensorflow(name: str, library: Library) -> None:
    case = TENSORFLOW[name]
    model = mlferry.convert(function_of(library("tensorflow"), case))
    check(model, {f"x{index}": x for index, x in enumerate(case.given)})


# ---- what models are made of ---------------------------------------------------------------------


def nested(k: Any) -> Any:
    x = k.layers.Input((5,))
    tower = k.Model(x, k.layers.Dense(4, activation="tanh")(x), name="tower")
    a, b = k.layers.Input((5,), name="a"), k.layers.Input((5,), name="b")
    return k.Model([a, b], k.layers.Dot(1)([tower(a), tower(b)]))


def masked(k: Any) -> Any:
    ids = k.layers.Input((6,), dtype="int32", name="ids")
    words = k.layers.Embedding(10, 4, mask_zero=True)(ids)
    return k.Model(ids, k.layers.Bidirectional(k.layers.GRU(3))(words))


def two_outputs(k: Any) -> Any:
    x = k.layers.Input((8, 8, 3), name="x")
    y = k.layers.Conv2D(4, 3, activation="relu")(x)
    return k.Model(x, [k.layers.GlobalAveragePooling2D()(y), k.layers.Conv2D(2, 1)(y)])


VECTOR = np.linspace(-1, 1, 5, dtype=np.float32)[None]
IMAGE = np.linspace(-1, 1, 192, dtype=np.float32).reshape(1, 8, 8, 3)
BUILT: list[tuple[Callable[[Any], Any], dict[str, np.ndarray]]] = [
    (nested, {"a": VECTOR, "b": VECTOR[:, ::-1].copy()}),
    (masked, {"ids": IDS}),
    (two_outputs, {"x": IMAGE}),
]


@pytest.mark.parametrize(
    ("make", "inputs"), BUILT, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_model_of_keras(
    make: Callable[[Any], Any], inputs: dict[str, np.ndarray], library: Library
) -> None:
    check(mlferry.convert(make(library("keras"))), inputs)


def test_a_stateful_model(library: Library) -> None:
    """Its states as inputs and outputs, and as states of the program over three predictions."""
    k = library("keras")
    memory = k.layers.LSTM(3, stateful=True, name="memory")
    network = mlferry.convert(k.Sequential([k.layers.Input(batch_shape=(1, 5, 4)), memory]))
    (x, *states), (y, *_) = (
        [feature.name for feature in features]
        for features in (network.spec.description.input, network.spec.description.output)
    )
    inputs = {name: np.zeros((1, 3), np.float32) for name in states}
    sample = np.linspace(-1, 1, 20, dtype=np.float32).reshape(1, 5, 4)
    check(network, {x: sample, **inputs})
    program = mlferry.to_program(network, states=True, compute_precision="float32")
    kept = program.make_state()
    for step in range(3):
        expected = network.predict({x: sample + step, **inputs})
        actual = program.predict({x: sample + step}, kept)
        np.testing.assert_allclose(actual[y], expected[y], atol=2e-3)  # states are float16
        inputs = {name: expected[name.replace("_in", "_out")] for name in states}


def test_a_model_of_several_sizes(library: Library) -> None:
    k = library("keras")
    x = k.layers.Input((None, None, 3), name="x")
    y = k.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x)
    model = k.Model(x, k.layers.UpSampling2D(interpolation="bilinear")(y))
    side = mlferry.RangeDim(4, 32)
    network = mlferry.convert(model, inputs=[mlferry.TensorType(shape=(1, side, side, 3))])
    for height, width in ((8, 8), (11, 6)):
        size = 3 * height * width
        check(network, {"x": np.linspace(-1, 1, size).astype(np.float32).reshape(1, height, -1, 3)})


class Doubled(mlferry.CustomLayer):
    def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return [2 * x for x in inputs]

    def output_shapes(self, input_shapes: list[Any]) -> list[Any]:
        return input_shapes


def test_a_custom_layer(library: Library) -> None:
    """It stays a network between two programs."""
    k = library("keras")
    x = k.layers.Input((5,), name="x")
    y = k.layers.Dense(3)(k.layers.Activation("relu", name="own")(k.layers.Dense(4)(x)))
    functions = {"Activation": lambda node: mlferry.CustomLayerParams("Doubled", "twice")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = mlferry.convert(k.Model(x, y), custom_conversion_functions=functions)
    spec = network.get_spec()
    known = mlferry.MLModel(spec, custom_layers={"Doubled": Doubled})
    check(known, {"x": VECTOR})
    parts = mlferry.to_program(known).spec.pipeline.models
    kinds = [part.WhichOneof("Type") for part in parts]
    assert kinds == ["mlProgram", "neuralNetwork", "mlProgram"]


def test_a_classifier_of_numbers(library: Library) -> None:
    k = library("keras")
    source = k.Sequential([k.layers.Input((5,), name="x"), k.layers.Dense(2, activation="softmax")])
    model = mlferry.convert(source, classifier_config=mlferry.ClassifierConfig([3, 7]))
    check(model, {"x": VECTOR})
    labels = mlferry.to_program(model).predict({"x": VECTOR})
    assert labels["classLabel"] in (3, 7)


# ---- networks in the classic mapping -------------------------------------------------------------


def classic(width: int) -> NeuralNetworkBuilder:
    return NeuralNetworkBuilder([("x", datatypes.Array(width))], [("y", None)])


def recurrent(rng: np.random.Generator) -> mlferry.MLModel:
    builder = classic(3)
    weights = [rng.normal(size=(4, n)).astype(np.float32) for n in (4, 3)]
    builder.add_simple_rnn("rnn", *weights, None, 4, 3, "TANH", ["x", "h"], ["y", "h_out"], True)
    builder.spec.description.input.add(name="h").type.CopyFrom(multi_array((4,)))
    builder.spec.description.output.add(name="h_out").type.CopyFrom(multi_array((4,)))
    return mlferry.MLModel(builder.spec)


def test_steps_of_a_network_of_channels(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    """One step is what a program of [C] takes, which the log tells, with the lines for others."""
    model = recurrent(rng)
    inputs = {"x": rng.normal(size=(5, 1, 3)).astype(np.float32), "h": np.zeros(4, np.float32)}
    check(model, inputs)
    mlferry.to_program(model)
    lines = [line.strip() for line in caplog.messages[-1].splitlines()[1:]]
    names = {"model": model, "mlferry": mlferry, "STEPS": 5}
    for line in lines:
        assert "'h'" not in line
        exec(line, names)
    converted = mlferry.to_program(names["spec"], compute_precision="float32")
    expected = model.predict(inputs)["y"]
    actual = converted.predict(inputs | {"x": inputs["x"].reshape(5, 1, 3, 1, 1)})["y"]
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_a_window_over_steps_needs_them() -> None:
    builder = classic(3)
    builder.add_permute("steps", (2, 1, 0, 3), "x", "t")
    builder.add_pooling("pool", 1, 2, 1, 1, "MAX", "VALID", "t", "y")
    with pytest.raises(ExportError, match=r"does not fit[\s\S]*\[STEPS, 1, 3, 1, 1\]"):
        mlferry.to_program(mlferry.MLModel(builder.spec))


# ---- what float16 holds --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Cast of integers to int8", "Cast of integers to int16", "int16 overflows"]
)
def test_whole_numbers_between_integers_stay_exact(name: str, library: Library) -> None:
    case = TENSORFLOW[name]
    model = mlferry.convert(function_of(library("tensorflow"), case))
    inputs = {f"x{index}": x for index, x in enumerate(case.given)}
    expected, actual = model.predict(inputs), mlferry.to_program(model).predict(inputs)
    for right, got in zip(expected.values(), actual.values(), strict=True):
        np.testing.assert_array_equal(got, right)


def test_a_row_that_is_masked_everywhere(library: Library) -> None:
    """Its scores are all masked, by a number beyond float16; infinities would make NaN."""
    k = library("keras")
    ids = k.layers.Input((6,), dtype="int32", name="ids")
    words = k.layers.Embedding(10, 4, mask_zero=True)(ids)
    model = mlferry.convert(k.Model(ids, k.layers.MultiHeadAttention(2, 4)(words, words)))
    (actual,) = mlferry.to_program(model).predict({"ids": IDS}).values()
    (expected,) = model.predict({"ids": IDS}).values()
    np.testing.assert_allclose(actual, expected, atol=0.05 * np.abs(expected).max())


def test_a_cosine_of_long_vectors() -> None:
    """The product of their squared lengths is beyond float16, the cosine is not."""
    builder = NeuralNetworkBuilder(
        [("a", datatypes.Array(64)), ("b", datatypes.Array(64))], [("y", None)]
    )
    builder.add_elementwise("dot", ["a", "b"], "y", "COS")
    a = np.linspace(-30, 60, 64, dtype=np.float32)
    inputs = {"a": a, "b": np.roll(a, 5)}
    model = mlferry.MLModel(builder.spec)
    half = mlferry.to_program(model).predict(inputs)["y"]
    np.testing.assert_allclose(half, model.predict(inputs)["y"], atol=0.01)
    assert mlferry.to_program(model).predict(inputs | {"a": 0 * a})["y"] == 0


def node(op: str, shape: list[int | str], **attributes: Any) -> onnx.ModelProto:
    tensors = [onnx.helper.make_tensor_value_info(n, 1, shape) for n in ("x", "y")]
    if "kernel_shape" in attributes:
        tensors[1] = onnx.helper.make_tensor_value_info("y", 1, [1, 1, None, None])
    nodes = [onnx.helper.make_node(op, ["x"], ["y"], **attributes)]
    graph = onnx.helper.make_graph(nodes, "g", tensors[:1], tensors[1:])
    opsets = [onnx.helper.make_opsetid("", 19)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)


@pytest.mark.parametrize(("op", "function"), [("Asinh", np.arcsinh), ("Acosh", np.arccosh)])
def test_inverses_of_large_numbers(op: str, function: Callable[[Any], Any]) -> None:
    x = np.array([1, 1.5, 300, 60000, 3e38, np.inf], np.float32)
    model = mlferry.convert(node(op, [6]))
    single = mlferry.to_program(model, compute_precision="float32")
    np.testing.assert_allclose(single.predict({"x": x})["y"], function(x), rtol=1e-5)
    half = mlferry.to_program(model).predict({"x": x})["y"]
    np.testing.assert_allclose(half[:4], function(x[:4]), rtol=2e-3)


def test_remainders_of_infinite_divisors(tmp_path: Path) -> None:
    builder = NeuralNetworkBuilder(
        [("x", datatypes.Array(8)), ("d", datatypes.Array(8))], [("y", None)],
        disable_rank5_shape_mapping=True,
    )  # fmt: skip
    builder.add_mod_broadcastable("mod", ["x", "d"], "y")
    program = mlferry.to_program(mlferry.MLModel(builder.spec), compute_precision="float32")
    x = np.array([-3, 3, -1, 1, -7, 7, -7, 1e7], np.float32)
    d = np.array([np.inf, np.inf, -np.inf, -np.inf, 3, -3, -3, 0.3], np.float32)
    program.save(tmp_path / "mod.mlpackage")
    for engine in ("numpy", "onnxruntime"):
        model = mlferry.MLModel(tmp_path / "mod.mlpackage", engine=engine)
        np.testing.assert_array_equal(model.predict({"x": x, "d": d})["y"], np.mod(x, d))


@pytest.mark.parametrize("included", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "pad"), [(3, 2, 1), (2, 3, 1), (3, 3, 0), (4, 3, 2)])
def test_averages_up_to_the_last_pixel_at_any_size(
    kernel: int, stride: int, pad: int, included: bool, library: Library
) -> None:
    options = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    source = node("AveragePool", [1, 1, "h", "w"], ceil_mode=1, **options)
    shape = mlferry.TensorType(shape=(1, 1, mlferry.RangeDim(4, 16), mlferry.RangeDim(4, 16)))
    network = mlferry.convert(source, inputs=[shape])
    spec = network.get_spec()
    (layer,) = [each for each in spec.neuralNetwork.layers if each.HasField("pooling")]
    layer.pooling.avgPoolExcludePadding = not included
    network = network.with_spec(spec)
    oracle = library("onnxruntime").InferenceSession(source.SerializeToString())
    program = mlferry.to_program(network, compute_precision="float32")
    for height in (7, 8, 9):
        x = np.linspace(1, 2, height * 10, dtype=np.float32).reshape(1, 1, height, 10)
        expected = network.predict({"x": x})["y"] if included else oracle.run(None, {"x": x})[0]
        np.testing.assert_allclose(program.predict({"x": x})["y"], expected, rtol=1e-5)
