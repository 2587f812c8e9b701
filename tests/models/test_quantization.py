"""Fewer bits: every mode, every layer kind, optimal tables, and with sample data."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

import mlferry
from mlferry.compiled import is_available, using
from mlferry.errors import MissingCustomLayerError, PredictionError, SpecError
from mlferry.layers import versions
from mlferry.layers.builder import Builder
from mlferry.layers.definitions import WEIGHTS
from mlferry.layers.validate import validate
from mlferry.models.quantization import (
    AdvancedQuantizedLayerSelector,
    QuantizedLayerSelector,
    at_least,
    but,
    by_kind,
    by_name,
    everything,
    quantize_weights,
)
from mlferry.models.quantization.kmeans import kmeans, kmeans_rows, nearest, nearest_in_rows
from mlferry.models.quantization.modes import linear
from mlferry.models.quantization.rounding import Sharing, TableGrid, VectorGrid
from mlferry.spec import features, networks, weights
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn
from tests.layers.broken_layers import LSTM_FUNCTIONS, layer_model, lstm_weights

TABLE_MODES = ("linear_lut", "kmeans", "kmeans_lut")
RNG = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Every test gets the same numbers, whichever ran before."""
    RNG.bit_generator.state = np.random.default_rng(3).bit_generator.state


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def small(*, classifier: bool = False) -> model_pb2.Model:
    """Convolution, batch normalization, transposed convolution, and an inner product."""
    builder = Builder()
    builder.input("x", (1, 3, 8, 8))
    builder.layer(
        "convolution", "conv", ["x"], ["a"], outputChannels=8, kernelChannels=3,
        kernelSize=[3, 3], valid={}, hasBias=True, weights=normal(8, 3, 3, 3), bias=normal(8),
    )  # fmt: skip
    builder.layer(
        "batchnorm", "norm", ["a"], ["b"], channels=8, gamma=normal(8), beta=normal(8),
        mean=normal(8), variance=np.ones(8, np.float32),
    )  # fmt: skip
    builder.layer("activation", "relu", ["b"], ["c"], ReLU={})
    builder.layer(
        "convolution", "up", ["c"], ["d"], outputChannels=4, kernelChannels=8,
        kernelSize=[2, 2], stride=[2, 2], valid={}, isDeconvolution=True,
        weights=normal(8, 4, 2, 2),
    )  # fmt: skip
    builder.layer("reduceMean", "mean", ["d"], ["e"], axes=[2, 3], keepDims=False)
    builder.layer(
        "innerProduct", "dense", ["e"], ["y"], inputChannels=4, outputChannels=5,
        hasBias=True, weights=normal(5, 4), bias=normal(5),
    )  # fmt: skip
    builder.output("y")
    return builder.model(builder.classifier([*"abcde"], "y") if classifier else None)


def layer_of(model: mlferry.MLModel, name: str) -> nn.NeuralNetworkLayer:
    network = networks.network_of(model.get_spec())
    assert network is not None
    return next(layer for layer in networks.layers_of(network) if layer.name == name)


def stored(model: mlferry.MLModel) -> dict[str, str]:
    """The encoding of every weight by layer and path."""
    return {
        f"{w.layer.name}.{w.path}": str(weights.encoding(w.message))
        for w in weights.iter_weights(model.get_spec())
    }


def severe(model: mlferry.MLModel) -> list[str]:
    return [str(p) for p in validate(model.get_spec()) if p.severity != "note"]


# ---- modes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [*range(1, 9), 16])
@pytest.mark.parametrize("mode", ["linear", *TABLE_MODES])
def test_every_mode_and_bits(mode: str, bits: int) -> None:
    spec = small(classifier=True)
    spec.description.metadata.author = "someone"
    original = mlferry.MLModel(spec)
    before = original.get_spec().SerializeToString(deterministic=True)
    model = quantize_weights(original, bits, mode)
    assert original.get_spec().SerializeToString(deterministic=True) == before
    assert model.get_spec().description == spec.description
    assert not severe(model)
    if mode == "linear" or bits < 6:  # a table of many entries is larger than tiny weights
        assert model.get_spec().ByteSize() < spec.ByteSize()
    kind = "float16" if bits == 16 else f"{'linear' if mode == 'linear' else 'lut'} {bits}"
    vectors = "float16" if bits == 16 else "float32"
    actual = stored(model)
    for path in (
        "conv.convolution.weights",
        "up.convolution.weights",
        "dense.innerProduct.weights",
    ):
        assert actual[path] == kind
    for path in ("conv.convolution.bias", "norm.batchnorm.gamma", "dense.innerProduct.bias"):
        assert actual[path] == vectors
    sample = {"x": normal(1, 3, 8, 8)}
    assert set(model.predict(sample)) == set(original.predict(sample))


def test_linear_is_per_output_channel() -> None:
    model = quantize_weights(mlferry.MLModel(small()), 4)
    conv, up = (layer_of(model, name).convolution for name in ("conv", "up"))
    assert len(conv.weights.quantization.linearQuantization.scale) == 8
    assert len(up.weights.quantization.linearQuantization.scale) == 4


@given(
    arrays(np.float32, (3, 2, 2, 2), elements=st.floats(-100, 100, width=32)),
    st.integers(1, 8),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_linear_moves_no_weight_by_more_than_half_a_step(
    values: np.ndarray, bits: int, transposed: bool
) -> None:
    axis = 1 if transposed else 0
    builder = Builder()
    outputs, inputs = (2, 3) if transposed else (3, 2)
    builder.input("x", (1, inputs, 4, 4))
    builder.layer(
        "convolution", "it", ["x"], ["y"], outputChannels=outputs, kernelChannels=inputs,
        kernelSize=[2, 2], valid={}, isDeconvolution=transposed, weights=values,
    )  # fmt: skip
    builder.output("y")
    model = quantize_weights(mlferry.MLModel(builder.model()), bits)
    back = weights.read(layer_of(model, "it").convolution.weights, values.shape, channel_axis=axis)
    others = tuple(each for each in range(4) if each != axis)
    span = values.max(others, keepdims=True) - values.min(others, keepdims=True)
    half = span.astype(np.float64) / (2**bits - 1) / 2
    assert (abs(back.astype(np.float64) - values) <= half + 1e-5 * abs(values).max() + 1e-30).all()
    assert not severe(model)


def test_symmetric_keeps_zero() -> None:
    spec = small()
    message = next(iter(weights.iter_weights(spec))).message
    values = normal(8, 3, 3, 3)
    values[0, 0] = 0
    weights.write(message, values)
    model = quantize_weights(mlferry.MLModel(spec), 8, "linear_symmetric")
    back = weights.read(layer_of(model, "conv").convolution.weights, values.shape)
    np.testing.assert_array_equal(back[0, 0], 0)
    step = abs(values).max((1, 2, 3)) / 127
    assert (abs(back - values).max((1, 2, 3)) <= step * 0.501).all()


@pytest.mark.parametrize("mode", ["linear", "kmeans", "linear_lut"])
def test_back_to_floats(mode: str) -> None:
    model = quantize_weights(mlferry.MLModel(small()), 5, mode)
    back = quantize_weights(model, 32, "dequantization")
    assert set(stored(back).values()) == {"float32"}
    sample = {"x": normal(1, 3, 8, 8)}
    a, b = model.predict(sample)["y"], back.predict(sample)["y"]
    np.testing.assert_allclose(a, b, atol=1e-5)
    half = quantize_weights(quantize_weights(back, 16), 8, "dequantization")
    assert set(stored(half).values()) == {"float32"}


def test_table_of_few_values_is_exact() -> None:
    spec = small()
    for weight in weights.iter_weights(spec):
        weights.write(weight.message, RNG.choice([-1.5, 0, 0.1, 7], weights.count(weight.message)))
    original = mlferry.MLModel(spec)
    model = quantize_weights(original, 2, "kmeans", selector=everything)
    for mine, theirs in zip(
        weights.iter_weights(model.get_spec()), weights.iter_weights(spec), strict=True
    ):
        size = (weights.count(theirs.message),)
        np.testing.assert_array_equal(
            weights.read(mine.message, size), weights.read(theirs.message, size)
        )


def test_a_constant_channel_is_exact() -> None:
    spec = small()
    message = next(iter(weights.iter_weights(spec))).message
    values = normal(8, 3, 3, 3)
    values[3] = 0.3
    weights.write(message, values)
    model = quantize_weights(mlferry.MLModel(spec), 1)
    back = weights.read(layer_of(model, "conv").convolution.weights, values.shape)
    np.testing.assert_array_equal(back[3], values[3])


def test_the_version_is_raised_and_not_lowered() -> None:
    spec = small()
    spec.neuralNetwork.arrayInputShapeMapping = 0
    del spec.neuralNetwork.layers[1:]
    spec.description.output[0].name = "a"
    spec.description.output[0].type.CopyFrom(features.multi_array((8, 6, 6)))
    spec.description.input[0].type.CopyFrom(features.multi_array((3, 8, 8)))
    spec.neuralNetwork.imageInputShapeMapping = 0
    spec.specificationVersion = 1
    assert versions.required(spec) == 1
    model = mlferry.MLModel(spec)
    converted = [quantize_weights(model, bits).get_spec().specificationVersion for bits in (16, 8)]
    assert converted == [2, 3]
    spec.specificationVersion = 5
    assert quantize_weights(mlferry.MLModel(spec), 8).get_spec().specificationVersion == 5


# ---- custom tables ----------------------------------------------------------------------------


def test_lut_function_sees_each_weight_in_its_shape() -> None:
    seen = []

    def by_sign(bits: int, values: np.ndarray) -> Any:
        seen.append((bits, values.shape))
        return [-1.0, 1.0], (values > 0).astype(int)

    model = quantize_weights(mlferry.MLModel(small()), 1, "custom_lut", lut_function=by_sign)
    assert seen == [(1, (8, 3, 3, 3)), (1, (8, 4, 2, 2)), (1, (5, 4))]
    back = weights.read(layer_of(model, "dense").innerProduct.weights, (5, 4))
    assert set(back.ravel()) <= {-1, 1}
    assert not severe(model)


BAD_LUTS: list[tuple[str, Callable[..., Any], str]] = [
    ("no pair", lambda n, w: [1.0, 2.0, 3.0], "two things"),
    ("short table", lambda n, w: ([0.0] * 3, np.zeros(w.size, int)), "4 numbers"),
    ("few indices", lambda n, w: ([0.0] * 4, np.zeros(3, int)), "3 indices for"),
    ("large index", lambda n, w: ([0.0] * 4, np.full(w.size, 4)), "from 4 to 4"),
    ("negative", lambda n, w: ([0.0] * 4, np.full(w.size, -1)), "from -1"),
    ("fractions", lambda n, w: ([0.0] * 4, np.full(w.size, 0.5)), "no integers"),
    ("not finite", lambda n, w: ([0, 1, 2, np.nan], np.zeros(w.size, int)), "not finite"),
    ("words", lambda n, w: (["a"] * 4, np.zeros(w.size, int)), "4 numbers"),
]


@pytest.mark.parametrize(("function", "words"), [(f, w) for _, f, w in BAD_LUTS],
                         ids=[name for name, _, _ in BAD_LUTS])  # fmt: skip
def test_what_a_lut_function_returns_is_checked(function: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        quantize_weights(mlferry.MLModel(small()), 2, "custom_lut", lut_function=function)
    assert "conv" in str(caught.value)


def test_an_error_inside_a_lut_function_is_the_users() -> None:
    def broken(bits: int, values: Any) -> Any:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        quantize_weights(mlferry.MLModel(small()), 2, "custom_lut", lut_function=broken)


# ---- wrong arguments --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"nbits": 8, "quantization_mode": "kmean"}, "Did you mean 'kmeans'"),
        ({"nbits": 0}, "1 to 8, and 16"),
        ({"nbits": 9}, "1 to 8, and 16"),
        ({"nbits": 32}, "dequantization"),
        ({"nbits": True}, "nbits is True"),
        ({"nbits": 4, "quantization_mode": "linear_symmetric"}, "8 bits, not 4"),
        ({"nbits": 4, "quantization_mode": "custom_lut"}, "lut_function="),
        ({"nbits": 4, "quantization_mode": "custom_lut", "lut_function": 3}, "int"),
        ({"nbits": 4, "lut_function": lambda n, w: None}, "custom_lut"),
        ({"nbits": 4, "selector": "convolution"}, "do_quantize"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        quantize_weights(mlferry.MLModel(small()), **arguments)


def test_too_large_for_half(caplog: pytest.LogCaptureFixture) -> None:
    """The layer stays float32 as a whole, the others become half; it is named once."""
    spec = small()
    weights.write(next(iter(weights.iter_weights(spec))).message, np.full((8, 3, 3, 3), 7e4))
    with caplog.at_level(logging.WARNING):
        model = quantize_weights(mlferry.MLModel(spec), 16)
    assert [record.getMessage().count("'conv'") for record in caplog.records] == [1]
    kinds = stored(model)
    assert {kind for name, kind in kinds.items() if name.startswith("conv.")} == {"float32"}
    assert {kind for name, kind in kinds.items() if not name.startswith("conv.")} == {"float16"}


def test_too_small_for_half(caplog: pytest.LogCaptureFixture) -> None:
    """A single number, such as an epsilon, stays float32; in an array, none becomes zero."""
    b = Builder()
    b.input("x", (1, 3))
    b.layer("loadConstantND", "epsilon", [], ["e"], shape=(1,), data=np.float32([1e-9]))
    b.layer("loadConstantND", "several", [], ["s"], shape=(3,), data=np.float32([1, -1e-9, 2]))
    b.layer("addBroadcastable", "a", ["x", "e"], ["a"])
    b.layer("divideBroadcastable", "d", ["x", "a"], ["d"])
    b.layer("divideBroadcastable", "y", ["d", "s"], ["y"])
    b.output("d")
    b.output("y")
    model = mlferry.MLModel(b.model())
    with caplog.at_level(logging.WARNING):
        half = quantize_weights(model, 16)
    assert [record.getMessage().count("'epsilon'") for record in caplog.records] == [1]
    x = {"x": np.float32([[0, 1, 2]])}
    np.testing.assert_array_equal(half.predict(x)["d"], model.predict(x)["d"])
    assert np.isfinite(half.predict(x)["y"]).all()
    assert stored(half) == {
        "epsilon.loadConstantND.data": "float32",
        "several.loadConstantND.data": "float16",
    }


@pytest.mark.parametrize("mode", ["linear", "kmeans"])
def test_weights_that_are_not_finite(mode: str) -> None:
    spec = small()
    values = normal(8, 3, 3, 3)
    values[0, 0, 0, 0] = np.nan
    weights.write(next(iter(weights.iter_weights(spec))).message, values)
    with pytest.raises(SpecError, match="infinite or no number"):
        quantize_weights(mlferry.MLModel(spec), 4, mode)


# ---- which weights ----------------------------------------------------------------------------


class OnlyDense(QuantizedLayerSelector):
    def do_quantize(self, layer: Any, **kwargs: Any) -> bool:
        return bool(layer.WhichOneof("layer") == "innerProduct")


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        (by_kind("innerProduct"), {"dense.innerProduct.weights"}),
        (by_name("u*"), {"up.convolution.weights"}),
        (at_least(200), {"conv.convolution.weights"}),
        (but(by_kind("convolution")), {"dense.innerProduct.weights"}),
        (OnlyDense(), {"dense.innerProduct.weights"}),
        (AdvancedQuantizedLayerSelector(), {"dense.innerProduct.weights"}),
        (
            AdvancedQuantizedLayerSelector(["innerProduct"], 1, 1),
            {"conv.convolution.weights", "up.convolution.weights"},
        ),
        (lambda site: site.field == "bias", {"conv.convolution.bias", "dense.innerProduct.bias"}),
    ],
)
@pytest.mark.parametrize("mode", ["linear", "kmeans"])
def test_selectors(selector: Any, chosen: set[str], mode: str) -> None:
    model = quantize_weights(mlferry.MLModel(small()), 3, mode, selector=selector)
    assert {path for path, kind in stored(model).items() if kind != "float32"} == chosen
    assert not severe(model)


@pytest.mark.parametrize("mode", ["linear", "linear_symmetric", "linear_lut", "kmeans"])
def test_everything_is_valid_everywhere(mode: str) -> None:
    model = quantize_weights(mlferry.MLModel(small()), 8, mode, selector=everything)
    assert "float32" not in stored(model).values()
    assert not severe(model)


def test_half_goes_by_layers() -> None:
    model = quantize_weights(mlferry.MLModel(small()), 16, selector=by_name("dense"))
    actual = stored(model)
    assert actual["dense.innerProduct.weights"] == actual["dense.innerProduct.bias"] == "float16"
    assert actual["conv.convolution.weights"] == "float32"
    assert not severe(model)


def test_the_table_of_shapes_knows_every_kind_with_weights() -> None:
    with_weights = {
        field.name
        for field in nn.NeuralNetworkLayer.DESCRIPTOR.oneofs_by_name["layer"].fields
        if any(
            inner.message_type is not None and inner.message_type.name == "WeightParams"
            for inner in field.message_type.fields
        )
    }
    assert with_weights - {"custom"} <= set(WEIGHTS)


GROUPED_UP = {"outputChannels": 4, "kernelChannels": 6, "nGroups": 2, "kernelSize": [1, 1],
              "same": {}, "isDeconvolution": True, "weights": normal(12)}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "recurrent": ("simpleRecurrent", {
        "inputVectorSize": 3, "outputVectorSize": 2, "activation": {"tanh": {}},
        "weightMatrix": normal(6), "recursionMatrix": normal(4), "hasBiasVector": True,
        "biasVector": normal(2)}, "weightMatrix"),
    "lstm": ("uniDirectionalLSTM", {
        "inputVectorSize": 3, "outputVectorSize": 2, "activations": LSTM_FUNCTIONS,
        "params": {"hasBiasVectors": True, "hasPeepholeVectors": True},
        "weightParams": lstm_weights()}, "inputGateWeightMatrix"),
    "embedding": ("embeddingND", {
        "vocabSize": 5, "embeddingSize": 3, "weights": normal(15)}, "weights"),
    "grouped deconvolution": ("convolution", GROUPED_UP, "weights"),
    "matmul": ("batchedMatmul", {
        "weightMatrixFirstDimension": 3, "weightMatrixSecondDimension": 2,
        "weights": normal(6)}, "weights"),
    "volumes": ("convolution3d", {
        "outputChannels": 2, "inputChannels": 2, "nGroups": 1, "kernelDepth": 1,
        "kernelHeight": 1, "kernelWidth": 1, "strideDepth": 1, "strideHeight": 1,
        "strideWidth": 1, "dilationDepth": 1, "dilationHeight": 1, "dilationWidth": 1,
        "weights": normal(4)}, None),
    "layer normalization": ("layerNormalization", {
        "normalizedShape": [2, 2], "gamma": normal(4), "beta": normal(4), "eps": 1e-5}, None),
    "large constant": ("loadConstantND", {"shape": [40, 50], "data": normal(2000)}, "data"),
    "constant of integers": ("loadConstantND", {
        "shape": [40, 50], "data": np.arange(2000.0)}, None),
    "vector": ("loadConstantND", {"shape": [2000], "data": normal(2000)}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("mode", ["linear", "kmeans"])
def test_kinds(name: str, mode: str) -> None:
    kind, params, field = KINDS[name]
    spec = layer_model(kind, params)
    known = {str(problem) for problem in validate(spec)}
    model = quantize_weights(mlferry.MLModel(spec), 4, mode, selector=None)
    assert {str(problem) for problem in validate(model.get_spec())} <= known
    changed = {path.split(".")[-1] for path, how in stored(model).items() if how != "float32"}
    assert (field in changed) if field else not changed
    assert not any("ias" in each or "Peephole" in each for each in changed)
    half = quantize_weights(mlferry.MLModel(spec), 16)
    assert {str(problem) for problem in validate(half.get_spec())} <= known


def test_grouped_deconvolutions_have_one_scale() -> None:
    model = quantize_weights(mlferry.MLModel(layer_model("convolution", GROUPED_UP)), 4)
    table = layer_of(model, "it").convolution.weights.quantization.linearQuantization
    assert len(table.scale) == len(table.bias) == 1


def test_custom_and_updatable_weights_keep_their_encoding() -> None:
    spec = small()
    layer = spec.neuralNetwork.layers[2]
    layer.Clear()
    layer.name = "mine"
    layer.input.append("b")
    layer.output.append("c")
    layer.custom.className = "Mine"
    weights.write(layer.custom.weights.add(), normal(4, 4))
    spec.neuralNetwork.layers[-1].innerProduct.weights.isUpdatable = True
    spec.specificationVersion = versions.required(spec)
    for bits in (4, 16):
        model = stored(quantize_weights(mlferry.MLModel(spec), bits, selector=everything))
        assert model["mine.custom.weights[0]"] == "float32"
        assert model["dense.innerProduct.weights"] == model["dense.innerProduct.bias"] == "float32"
        assert model["conv.convolution.weights"] != "float32"


def looped() -> model_pb2.Model:
    """A convolution, then a loop of three rounds whose body has an inner product."""
    builder = Builder()
    builder.input("x", (1, 4))
    builder.layer("innerProduct", "first", ["x"], ["h"], inputChannels=4, outputChannels=4,
                  weights=normal(4, 4) / 2)  # fmt: skip
    builder.layer("loop", "loop", [], [], maxLoopIterations=3)
    body = builder.network.layers[-1].loop.bodyNetwork
    inner = body.layers.add(name="inner", input=["h"], output=["g"])
    inner.innerProduct.inputChannels = inner.innerProduct.outputChannels = 4
    weights.write(inner.innerProduct.weights, normal(4, 4) / 2)
    body.layers.add(name="back", input=["g"], output=["h"]).copy.SetInParent()
    builder.layer("innerProduct", "last", ["h"], ["y"], inputChannels=4, outputChannels=2,
                  weights=normal(2, 4))  # fmt: skip
    builder.output("y")
    return builder.model()


def piped() -> model_pb2.Model:
    first, second = small(), Builder()
    second.input("y", (1, 5))
    second.layer("innerProduct", "second", ["y"], ["z"], inputChannels=5, outputChannels=3,
                 weights=normal(3, 5))  # fmt: skip
    second.output("z")
    spec = model_pb2.Model(specificationVersion=4)
    spec.pipeline.models.extend([first, second.model()])
    spec.pipeline.names.extend(["one", "two"])
    spec.description.input.extend(first.description.input)
    spec.description.output.extend(spec.pipeline.models[1].description.output)
    return spec


@pytest.mark.parametrize("with_data", [False, True])
@pytest.mark.parametrize("mode", ["linear", "kmeans"])
@pytest.mark.parametrize("make", [looped, piped])
def test_loops_and_pipelines(make: Callable[[], Any], mode: str, with_data: bool) -> None:
    original = mlferry.MLModel(make())
    shape = tuple(original.get_spec().description.input[0].type.multiArrayType.shape)
    data = [{"x": normal(*shape)} for _ in range(6)]
    model = quantize_weights(original, 8, mode, data if with_data else None)
    matrices = {path for path in stored(model) if path.endswith("weights")}
    assert matrices
    assert {stored(model)[path] for path in matrices} == {
        f"{'linear' if mode == 'linear' else 'lut'} 8"
    }
    assert not severe(model)
    (name,) = original.predict(data[0])
    for sample in data:
        a, b = original.predict(sample)[name], model.predict(sample)[name]
        assert abs(a - b).max() <= 0.03 * max(1, abs(a).max())


# ---- k-means ----------------------------------------------------------------------------------


def best_error(values: np.ndarray, clusters: int) -> float:
    """The smallest squared error, by the textbook's dynamic programme in O(clusters * n^2)."""
    ordered = np.sort(values.astype(np.float64))
    ordered -= ordered.mean()
    one = np.concatenate([[0], np.cumsum(ordered)])
    two = np.concatenate([[0], np.cumsum(ordered**2)])
    size = len(ordered)
    i, j = np.arange(size + 1)[:, None], np.arange(size + 1)[None]
    count = np.maximum(j - i, 1)
    cost = np.where(j > i, two[j] - two[i] - (one[j] - one[i]) ** 2 / count, np.inf)
    best = cost[0]
    for _ in range(clusters - 1):
        best = np.minimum(best, (best[:, None] + cost).min(axis=0))
    return float(best[-1])


def error_of(values: np.ndarray, table: np.ndarray) -> float:
    chosen = table[nearest(values, table)].astype(np.float64)
    return float(np.square(chosen - values).sum())


SHAPES: dict[str, Callable[[int], np.ndarray]] = {
    "normal": RNG.standard_normal,
    "heavy tails": lambda n: RNG.standard_t(2, n),
    "two groups": lambda n: np.concatenate(
        [RNG.normal(-5, 0.01, n // 2), RNG.normal(3, 1, n - n // 2)]
    ),
    "sparse": lambda n: np.where(RNG.random(n) < 0.6, 0, RNG.standard_normal(n)),
    "an outlier": lambda n: np.append(RNG.standard_normal(n - 1), 1e5),
    "far from zero": lambda n: 100 + RNG.random(n),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("size", "clusters"), [(40, 16), (700, 16), (700, 256), (1500, 8)])
def test_kmeans_is_optimal(name: str, size: int, clusters: int) -> None:
    values = SHAPES[name](size).astype(np.float32)
    table = kmeans(values, clusters)
    assert table.size <= clusters
    assert (np.diff(table) > 0).all()
    scale = np.square(values - np.median(values)).sum() + np.square(values).max()
    assert error_of(values, table) <= best_error(values, clusters) * 1.001 + 1e-12 * scale


@pytest.mark.parametrize("name", SHAPES)
def test_large_kmeans_is_near_the_optimum(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large inputs go through cells; here with so few that an exact solution is at hand."""
    from mlferry.models.quantization import kmeans as module

    values = SHAPES[name](1400).astype(np.float32)
    monkeypatch.setattr(module, "_WORK", 0)
    monkeypatch.setattr(module, "_CELLS", (256, 256))
    error = error_of(values, kmeans(values, 32))
    assert error <= best_error(values, 32) * 1.001


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("scale", [1.0, 2.0**80])
def test_kmeans_of_rows(name: str, scale: float) -> None:
    """Rows that go together are about as near as each by itself."""
    rows = np.stack([SHAPES[name](3000) for _ in range(12)]).astype(np.float32) * np.float32(scale)
    tables = kmeans_rows(rows, 16)
    assert tables.shape == (12, 16)
    more = []
    for row, table in zip(rows, tables, strict=True):
        assert (np.diff(table) >= 0).all()
        assert np.isfinite(table).all()
        best, least = error_of(row, kmeans(row, 16)), np.square(row.astype(np.float64)).sum()
        more.append(max(0.0, (error_of(row, table) - 1e-9 * least) / best - 1))
    assert max(more) <= 0.1
    assert np.mean(more) <= 0.01


@pytest.mark.parametrize("entries", [1, 2, 16, 41, 256])
@pytest.mark.parametrize("shape", [(7, 30), (2, 70_000), (1, 1), (3, 0)])
def test_nearest_in_rows(entries: int, shape: tuple[int, int]) -> None:
    rows = RNG.normal(size=shape).astype(np.float32)
    tables = np.sort(RNG.normal(size=(shape[0], entries)), axis=1).astype(np.float32)
    actual = nearest_in_rows(rows, tables)
    for row, table, codes in zip(rows, tables, actual, strict=True):
        off = np.abs(row - table[codes])
        after, before = (np.clip(codes.astype(int) + step, 0, entries - 1) for step in (1, -1))
        assert (off <= np.abs(row - table[after]) + 1e-6).all()
        assert (off <= np.abs(row - table[before]) + 1e-6).all()


def test_kmeans_of_rows_with_few_values() -> None:
    rows = RNG.integers(0, 5, (3, 2000)).astype(np.float32)
    tables = kmeans_rows(rows, 16)
    for row, table in zip(rows, tables, strict=True):
        np.testing.assert_array_equal(table[nearest(row, table)], row)
    with pytest.raises(SpecError, match="infinite"):
        kmeans_rows(np.full((2, 2000), np.inf, np.float32), 16)


@given(
    st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=1, max_size=60), st.integers(1, 8)
)
@settings(deadline=None, max_examples=80)
def test_kmeans_of_anything(given_values: list[float], bits: int) -> None:
    values = np.array(given_values, np.float32)
    table = kmeans(values, 2**bits)
    assert table.size <= 2**bits
    assert np.array_equal(table, kmeans(values[::-1], 2**bits))
    if np.unique(values).size <= 2**bits:
        np.testing.assert_array_equal(table[nearest(values, table)], values)


# ---- with sample data -------------------------------------------------------------------------


def layer_case(name: str) -> tuple[model_pb2.Model, tuple[int, ...]]:
    """A model of two layers of one kind: its inputs go together, as those of real ones do."""
    builder = Builder()
    common: dict[str, Any] = {"kernelSize": [3, 3], "same": {}}
    shape: tuple[int, ...] = (1, 8, 9, 9)
    builder.input("x", (2, 24) if name in ("innerProduct", "batchedMatmul") else shape)
    if name in ("innerProduct", "batchedMatmul"):
        shape = (2, 24)
        sizes = ("inputChannels", "outputChannels")
        if name == "batchedMatmul":
            sizes = ("weightMatrixFirstDimension", "weightMatrixSecondDimension")
        for index, blobs in enumerate(("xa", "ay")):
            builder.layer(name, f"l{index}", [blobs[0]], [blobs[1]], weights=normal(24, 24),
                          **dict.fromkeys(sizes, 24))  # fmt: skip
    else:
        groups = {"grouped": 2, "depthwise": 8, "grouped up": 2}.get(name, 1)
        up = name in ("up", "grouped up")
        if name == "one dimension":
            common["kernelSize"] = [1, 5]
        if name == "strided":
            common = {"kernelSize": [3, 2], "stride": [2, 1], "dilationFactor": [1, 2], "valid": {
                "paddingAmounts": {"borderAmounts": [
                    {"startEdgeSize": 2, "endEdgeSize": 1}, {"startEdgeSize": 0, "endEdgeSize": 1}
                ]}}}  # fmt: skip
        if up:
            common = {"kernelSize": [3, 3], "stride": [2, 2], "valid": {}}
        kernels = 8 if up else 8 // groups
        stored_shape = (8, 8 // groups, *common["kernelSize"])
        for index, blobs in enumerate(("xa", "ay")):
            builder.layer(
                "convolution", f"l{index}", [blobs[0]], [blobs[1]], outputChannels=8,
                kernelChannels=kernels, nGroups=groups, isDeconvolution=up,
                weights=normal(*stored_shape), **common,
            )  # fmt: skip
    builder.output("y")
    return builder.model(), shape


def together(shape: tuple[int, ...], count: int) -> list[dict[str, Any]]:
    """Samples whose channels are mixtures of few signals, and never negative."""
    axis = 1
    mix = np.random.default_rng(5).standard_normal((shape[axis], 3))
    result = []
    for _ in range(count):
        signals = RNG.standard_normal((3, *(n for i, n in enumerate(shape) if i != axis)))
        mixed = np.moveaxis(np.tensordot(mix, signals, 1), 0, axis)
        result.append({"x": np.maximum(mixed + 0.1 * RNG.standard_normal(shape), 0)})
    return result


PRODUCTS = [
    "innerProduct", "batchedMatmul", "plain", "grouped", "depthwise", "one dimension", "strided",
    "up", "grouped up",
]  # fmt: skip


def noise(original: mlferry.MLModel, result: mlferry.MLModel, data: list[Any]) -> float:
    pairs = [(original.predict(s)["y"], result.predict(s)["y"]) for s in data]
    return float(sum(np.square(a - b).sum() for a, b in pairs))


@pytest.mark.parametrize("mode", ["linear", "kmeans", "linear_lut"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_data_lowers_the_error(name: str, mode: str) -> None:
    spec, shape = layer_case(name)
    original = mlferry.MLModel(spec)
    plain = quantize_weights(original, 3, mode)
    model = quantize_weights(original, 3, mode, together(shape, 24))
    assert stored(model) == stored(plain)
    assert not severe(model)
    unseen = together(shape, 8)
    part = 0.8 if name in ("depthwise", "grouped up") else 0.5
    assert noise(original, model, unseen) < part * noise(original, plain, unseen)


@pytest.mark.parametrize("compiled", [False, None])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_data_that_is_not_finite(value: float, compiled: bool | None) -> None:
    spec, shape = layer_case("plain")
    data = together(shape, 3)
    (name,) = data[0]
    data[1][name][...] = value
    with using(compiled), pytest.raises(PredictionError, match="infinite or no numbers") as raised:
        mlferry.quantize_weights(mlferry.MLModel(spec), 4, "kmeans", data)
    assert "quantizing weights of convolution" in str(raised.value)


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_data_of_any_scale_chooses_the_same(scale: float) -> None:
    """The sums of squares keep their digits where float32 would lose them."""
    spec, shape = layer_case("plain")
    data = together(shape, 8)
    (name,) = data[0]
    scaled = [{name: (sample[name] * np.float32(scale)).astype(np.float32)} for sample in data]
    outputs = [
        mlferry.quantize_weights(mlferry.MLModel(spec), 3, "kmeans", each).predict(data[0])
        for each in (data, scaled)
    ]
    for output, right in zip(*(each.values() for each in outputs), strict=True):
        np.testing.assert_allclose(output, right, atol=0.02 * np.abs(right).max())


@pytest.mark.skipif(not is_available(), reason="Numba is not installed")
@pytest.mark.parametrize("mode", ["linear", "kmeans", "linear_lut"])
@pytest.mark.parametrize("name", ["innerProduct", "plain", "depthwise", "grouped up"])
def test_data_with_and_without_compiled_kernels(name: str, mode: str) -> None:
    spec, shape = layer_case(name)
    original, data, unseen = mlferry.MLModel(spec), together(shape, 24), together(shape, 8)
    errors = []
    for choice in (False, True):
        with using(choice):
            model = quantize_weights(original, 4, mode, data)
        errors.append(noise(original, model, unseen))
    assert errors[0] == pytest.approx(errors[1], rel=0.1)


def test_data_and_symmetric_scales() -> None:
    spec, shape = layer_case("plain")
    original = mlferry.MLModel(spec)
    model = quantize_weights(original, 8, "linear_symmetric", together(shape, 16))
    table = layer_of(model, "l1").convolution.weights.quantization.linearQuantization
    np.testing.assert_allclose(table.bias, -128 * np.array(table.scale), rtol=1e-6)
    plain = quantize_weights(original, 8, "linear_symmetric")
    unseen = together(shape, 8)
    assert noise(original, model, unseen) < noise(original, plain, unseen)


@pytest.mark.parametrize("mode", ["linear", "kmeans"])
def test_embeddings_follow_how_often_words_come(mode: str) -> None:
    builder = Builder()
    builder.input("x", (6, 1))
    builder.layer("embeddingND", "words", ["x"], ["y"], vocabSize=50, embeddingSize=4,
                  weights=normal(4, 50))  # fmt: skip
    builder.output("y")
    original = mlferry.MLModel(builder.model())
    data = [{"x": np.minimum(RNG.geometric(0.3, (6, 1)) - 1, 49)} for _ in range(40)]
    model, plain = (quantize_weights(original, 2, mode, d) for d in (data, None))
    part = 0.6 if mode == "linear" else 0.8
    assert noise(original, model, data) < part * noise(original, plain, data)
    assert not severe(model)


@pytest.mark.parametrize("mode", ["linear", "kmeans", "linear_lut", "linear_symmetric"])
def test_recurrent_weights_with_data(mode: str) -> None:
    builder = Builder()
    builder.input("x", (4, 1, 3, 1, 1))
    params = KINDS["recurrent"][1] | {"sequenceOutput": True}
    builder.layer("simpleRecurrent", "r", ["x"], ["y"], **params)
    builder.output("y")
    original = mlferry.MLModel(builder.model())
    data = [{"x": normal(4, 1, 3, 1, 1)} for _ in range(3)]
    model = quantize_weights(original, 8, mode, data)
    assert stored(model)["r.simpleRecurrent.weightMatrix"].endswith(" 8")
    assert noise(original, model, data) < 1e-2


@pytest.mark.parametrize("mode", ["linear", "kmeans"])
def test_quantizing_with_data_is_deterministic(mode: str) -> None:
    original = mlferry.MLModel(small())
    data = [{"x": normal(1, 3, 8, 8)} for _ in range(5)]
    model = [quantize_weights(original, 4, mode, data).get_spec() for _ in range(2)]
    assert model[0] == model[1]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    from mlferry.models.quantization import calibration

    monkeypatch.setattr(calibration, "_BUDGET", 20_000)
    caplog.set_level("INFO", logger="mlferry")
    data = [{"x": normal(1, 3, 8, 8)} for _ in range(50)]
    model = quantize_weights(mlferry.MLModel(small()), 4, sample_data=data)
    assert "of 50 samples are used" in caplog.text
    assert not severe(model)


def test_inputs_that_are_always_zero() -> None:
    original = mlferry.MLModel(small())
    data = [{"x": np.zeros((1, 3, 8, 8))}]
    for mode in ("linear", "kmeans"):
        model = quantize_weights(original, 8, mode, data)
        assert np.isfinite(model.predict(data[0])["y"]).all()


def test_data_that_does_not_fit() -> None:
    original = mlferry.MLModel(small())
    for data in ([], [{"z": 1}], 3, "no_such_folder"):
        with pytest.raises(PredictionError):
            quantize_weights(original, 4, sample_data=data)


def test_custom_layers_need_their_class_only_with_data() -> None:
    spec = small()
    layer = spec.neuralNetwork.layers[2]
    layer.ClearField("activation")
    layer.custom.className = "QuantizedTestRelu"
    original = mlferry.MLModel(spec)
    data = [{"x": normal(1, 3, 8, 8)} for _ in range(4)]
    assert quantize_weights(original, 4)
    with pytest.raises(MissingCustomLayerError):
        quantize_weights(original, 4, sample_data=data)

    class Relu(mlferry.CustomLayer):
        def evaluate(self, inputs: Any) -> Any:
            return [np.maximum(inputs[0], 0)]

        def output_shapes(self, input_shapes: Any) -> Any:
            return list(input_shapes)

    known = mlferry.MLModel(spec, custom_layers={"QuantizedTestRelu": Relu})
    model = quantize_weights(known, 6, sample_data=data)
    assert np.isfinite(model.predict(data[0])["y"]).all()


# ---- beside coremltools, and a real model -----------------------------------------------------


@pytest.mark.parametrize("bits", [8, 5, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_linear_as_coremltools_has_it(bits: int, axis: int, library: Any) -> None:
    library("coremltools")
    theirs = library("coremltools.models.neural_network.quantization_utils")
    values = normal(6, 5, 3, 3)
    scale, bias, _, indices = theirs._quantize_wp(
        values, bits, library("coremltools.models")._QUANTIZATION_MODE_LINEAR_QUANTIZATION, axis
    )
    mine = linear(values, axis, bits)
    np.testing.assert_allclose(mine.scale, scale, rtol=1e-5)
    np.testing.assert_allclose(mine.bias, bias, rtol=1e-5)
    assert (mine.indices.ravel() == np.ravel(indices)).mean() > 0.99


def test_squeezenet(shared_data: Path) -> None:
    pytest.importorskip("PIL")
    pytest.importorskip("h5py")
    model = mlferry.convert(
        shared_data / "squeezenet" / "squeezenet_v1.1.h5",
        inputs=[mlferry.ImageType(color_layout="BGR", bias=[-104, -117, -123])],
        classifier_config=mlferry.ClassifierConfig([str(index) for index in range(1000)]),
    )
    for mode in ("linear", "kmeans"):
        converted = quantize_weights(model, 8, mode)
        assert converted.get_spec().ByteSize() <= 1_320_000
        assert not severe(converted)


@pytest.mark.parametrize(
    ("outputs", "inputs", "taps"), [(0, 0, 1), (4, 0, 1), (0, 3, 2), (2, 1, 2), (8, 2, 1)]
)
@pytest.mark.parametrize("length", [1, 2])
def test_grids_of_blocks_beside_loops(length: int, outputs: int, inputs: int, taps: int) -> None:
    """The nearest entry of the table of each block, for all weights and for those of one input."""
    rng = np.random.default_rng(4)
    weights = rng.normal(size=(2, 12, 8))
    sharing = Sharing(outputs, inputs, taps)
    if length == 1:
        grid = TableGrid.fitted(weights, 2, sharing)
    else:
        grid = VectorGrid.of_vectors(weights, 2, length, sharing)
    others = rng.normal(size=weights.shape)
    expected = np.empty_like(others)
    rows = inputs * taps or 12
    for group, row, first in np.ndindex(2, 12, 8 // length):
        place = slice(first * length, (first + 1) * length)
        block = (group * 8 + place.start) // (outputs or 16) * (12 // rows) + row // rows
        entries = grid.tables[block].reshape(-1, length)
        off = np.square(entries - others[group, row, place]).sum(axis=1)
        expected[group, row, place] = entries[off.argmin()]
    np.testing.assert_array_equal(grid.near(others), expected)
    for row in range(12):
        np.testing.assert_array_equal(grid.near_row(others[:, row], row), expected[:, row])
    codes = grid.indices(expected)
    assert codes.max() < 4
    assert len(grid.tables) == (16 // (outputs or 16)) * (12 // rows)
