"""Networks of every source as programs: a slice of the tables of the frontends, in every way that
`tests.programs_too` tries them. ``pytest --programs`` tries all."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import mlferry
from tests import programs_too
from tests.converters.keras.cases import CASES as KERAS
from tests.converters.keras.test_layers import build, samples
from tests.converters.onnx.test_ops import CASES as ONNX, model as onnx_model
from tests.converters.tensorflow.cases import CASES as TENSORFLOW
from tests.converters.tensorflow.test_ops import RANDOM, function_of

Library = Callable[[str], Any]
IDS = np.array([[4, 2, 7, 0, 0, 3]], np.int32)


def check(model: mlferry.MLModel, given: Mapping[str, Any]) -> None:
    """A network is right as a program, which `model` itself tells."""
    tried = programs_too.check(model, given, model.predict(dict(given)))
    assert tried.result == "right", tried


# ---- rows of the frontends -----------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ONNX][::7])
def test_an_op_of_onnx(name: str) -> None:
    network, given = onnx_model(ONNX[name])
    check(mlferry.convert(network), given)


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


@pytest.mark.parametrize(("make", "given"), BUILT, ids=lambda value: getattr(value, "__name__", ""))
def test_a_model_of_keras(
    make: Callable[[Any], Any], given: dict[str, np.ndarray], library: Library
) -> None:
    check(mlferry.convert(make(library("keras"))), given)


def test_a_stateful_model(library: Library) -> None:
    """Its states as inputs and outputs, and as states of the program over three predictions."""
    k = library("keras")
    memory = k.layers.LSTM(3, stateful=True, name="memory")
    network = mlferry.convert(k.Sequential([k.layers.Input(batch_shape=(1, 5, 4)), memory]))
    (x, *states), (y, *_) = (
        [feature.name for feature in features]
        for features in (network.spec.description.input, network.spec.description.output)
    )
    given = {name: np.zeros((1, 3), np.float32) for name in states}
    sample = np.linspace(-1, 1, 20, dtype=np.float32).reshape(1, 5, 4)
    check(network, {x: sample, **given})
    program = mlferry.to_program(network, states=True, compute_precision="float32")
    kept = program.make_state()
    for step in range(3):
        wanted = network.predict({x: sample + step, **given})
        made = program.predict({x: sample + step}, kept)
        np.testing.assert_allclose(made[y], wanted[y], atol=2e-3)  # states are float16
        given = {name: wanted[name.replace("_in", "_out")] for name in states}


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
