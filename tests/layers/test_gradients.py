"""Gradients of every layer kind: against differences in float64, and against TensorFlow's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mlferry.layers.definitions import DEFINITIONS
from mlferry.layers.gradients import GRADIENTS, LayerRun, kept
from mlferry.layers.kernels import KERNELS
from mlferry.layers.params import Params
from mlferry.spec import weights
from tests.layers.case import Array, Case, network
from tests.layers.test_kernels import CASES

STEP = 1e-6
# Kinds that nothing is differentiated through, with the reason.
WITHOUT = {
    "NonMaximumSuppression": "which boxes stay jumps",
    "custom": "its class has a method `backward`",
    "branch": "the layers inside are walked",
    "loop": "the layers inside are walked",
    "loopBreak": "it makes nothing",
    "loopContinue": "it makes nothing",
}


def test_every_kind_has_a_gradient() -> None:
    assert set(DEFINITIONS) - set(GRADIENTS) == WITHOUT.keys()


class Probe:
    """A layer of a case with its inputs in float64, and what the gradient makes of them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        model = network(case.kind, case.params, len(case.inputs), len(case.expected), case.mapping)
        self.layer = model.layers[0]
        self.params = Params.of(self.layer, rank5=case.mapping == "rank5")
        entry = KERNELS.find(case.kind)
        assert entry is not None
        self.kernel = entry.value
        self.inputs = [np.asarray(x, np.float64) for x in case.inputs]
        self.stored: dict[str, Array] = {}
        for weight in weights.iter_weights(self.layer):
            path = weight.path.split(".", 1)[1]
            stored = weights.encoding(weight.message)
            if stored is not None and stored.kind in (weights.FLOAT32, weights.FLOAT16):
                flat = weights.stored(weight.message).astype(np.float64)
                self.stored[path] = flat
                self.params.give(path, flat)
        self.rng = np.random.default_rng(3)
        self.projection: list[Array] = []

    def run(self) -> list[Array]:
        for path, values in self.stored.items():
            self.params.give(path, values)
        with np.errstate(all="ignore"):
            result = self.kernel(self.params, *self.inputs)
        return [
            np.asarray(y, np.float64) for y in (result if isinstance(result, tuple) else (result,))
        ]

    def value(self) -> float:
        pairs = zip(self.projection, self.run(), strict=False)
        return math.fsum((p * y).sum() for p, y in pairs)

    def gradients(self) -> tuple[list[Array | None], dict[str, Array]]:
        outputs = self.run()[: len(self.case.expected)]
        if not self.projection:
            self.projection = [self.rng.normal(size=y.shape) for y in outputs]
        keeps = kept(self.case.kind, self.params, trained=True)
        entry = GRADIENTS.find(self.case.kind)
        assert entry is not None
        run = LayerRun(
            self.params,
            self.inputs if "x" in keeps else [None] * len(self.inputs),
            outputs if "y" in keeps else [None] * len(outputs),
            [x.shape for x in self.inputs],
            [y.shape for y in outputs],
            [True] * len(self.inputs),
            frozenset(self.stored),
        )
        with np.errstate(all="ignore"):
            result = entry.value(run, *self.projection)
        results = result if isinstance(result, tuple) else (result,)
        return [*results, *[None] * (len(self.inputs) - len(results))], run.weights

    def slope(self, array: Array, direction: Array) -> float:
        """How the value changes when an array moves along a direction."""
        array += STEP * direction
        after = self.value()
        array -= 2 * STEP * direction
        before = self.value()
        array += STEP * direction
        return (after - before) / (2 * STEP)

    def check(self, array: Array, gradient: Array) -> None:
        assert gradient.shape == array.shape
        assert np.isfinite(gradient).all()
        scale = np.abs(gradient).max(initial=0) * math.sqrt(array.size) + 1e-3
        directions = [self.rng.normal(size=array.shape)]
        for place in self.rng.choice(array.size, min(3, array.size), replace=False):
            directions.append(np.zeros(array.shape))
            directions[-1].reshape(-1)[place] = 1
        for direction in directions:
            actual = self.slope(array, direction)
            assert abs(actual - (gradient * direction).sum()) <= 2e-5 * scale


# Where a small change of an input changes the result by a jump, or has no slope at all.
EDGES: dict[str, Callable[[Case], bool]] = {
    "reduce": lambda case: case.params.get("mode") == "ARGMAX",
    "unary": lambda case: not np.isfinite(case.expected[0]).all(),
    "innerProduct": lambda case: bool(case.params.get("int8DynamicQuantize")),
    "batchedMatmul": lambda case: bool(case.params.get("int8DynamicQuantize")),
    "scatter": lambda case: case.params.get("mode") in OTHER_MODES,
    "scatterND": lambda case: case.params.get("mode") in OTHER_MODES,
    "scatterAlongAxis": lambda case: case.params.get("mode") in OTHER_MODES,
}
OTHER_MODES = {"SCATTER_MUL", "SCATTER_DIV", "SCATTER_MAX", "SCATTER_MIN", 3, 4, 5, 6}
DIFFERENTIATED = [
    case
    for case in CASES
    if case.kind not in WITHOUT
    and not EDGES.get(case.kind, lambda _: False)(case)
    and all(np.isfinite(x).all() for x in case.inputs)
    and all(y.size for y in case.expected)
]


def test_every_gradient_is_compared() -> None:
    compared = {case.kind for case in DIFFERENTIATED}
    none = {kind for kind in GRADIENTS if _of(kind).__name__ == "_nothing"}
    assert set(GRADIENTS) - none <= compared


def _of(kind: str) -> Callable[..., Any]:
    entry = GRADIENTS.find(kind)
    assert entry is not None
    function: Callable[..., Any] = entry.value
    return function


@pytest.mark.parametrize("case", DIFFERENTIATED, ids=str)
def test_differences(case: Case) -> None:
    probe = Probe(case)
    actual, _ = probe.gradients()
    for index, gradient in enumerate(actual):
        x = probe.inputs[index]
        if gradient is not None:  # apart from kinks, and from values that are equal
            x *= 0.9 if case.kind in ("asin", "acos") else 1  # which end at 1
            x += probe.rng.uniform(0.001, 0.01, x.shape) * (1 if x.size > 1 else 0)
    actual, of_weights = probe.gradients()
    for x, gradient in zip(probe.inputs, actual, strict=True):
        if gradient is not None:
            probe.check(x, gradient)
    assert of_weights.keys() <= probe.stored.keys()
    for path, gradient in of_weights.items():
        probe.check(probe.stored[path], np.asarray(gradient, np.float64).reshape(-1))


# ---- TensorFlow -------------------------------------------------------------------------------

Row = tuple[str, dict[str, Any], list[tuple[int, ...]], Callable[..., Any]]
W = np.random.default_rng(5).normal(size=(4, 3, 3, 3)).astype(np.float32)
DEPTH = np.random.default_rng(6).normal(size=(3, 1, 3, 3)).astype(np.float32)
UP = np.random.default_rng(7).normal(size=(3, 4, 3, 3)).astype(np.float32)
DENSE = np.random.default_rng(8).normal(size=(5, 12)).astype(np.float32)
FOUR = np.random.default_rng(9).uniform(0.5, 2, (4, 3)).astype(np.float32)
CONVOLUTION = {"outputChannels": 4, "kernelChannels": 3, "kernelSize": [3, 3], "weights": W}
IMAGE = [(2, 3, 7, 6)]


def last(x: Any) -> Any:
    return tensorflow().transpose(x, [0, 2, 3, 1])


def first(x: Any) -> Any:
    return tensorflow().transpose(x, [0, 3, 1, 2])


def tensorflow() -> Any:
    return pytest.importorskip("tensorflow")


def conv(padding: str, strides: int = 1, dilations: int = 1) -> Callable[..., Any]:
    return lambda tf, x: first(
        tf.nn.conv2d(last(x), W.transpose(2, 3, 1, 0), strides, padding, dilations=dilations)
    )


def pooled(kind: str, padding: str) -> Callable[..., Any]:
    return lambda tf, x: first(getattr(tf.nn, kind)(last(x), [3, 2], 2, padding))


def depthwise(tf: Any, x: Any) -> Any:
    kernel = DEPTH.transpose(2, 3, 0, 1)
    return first(tf.nn.depthwise_conv2d(last(x), kernel, [1, 2, 2, 1], "SAME"))


def transposed(tf: Any, x: Any) -> Any:
    kernel = UP.transpose(2, 3, 1, 0)
    return first(tf.nn.conv2d_transpose(last(x), kernel, (2, 14, 12, 4), 2, "SAME"))


def normalized(tf: Any, x: Any) -> Any:
    gamma, beta, mean, variance = FOUR[:, :, None, None]
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)


def of_batch(tf: Any, x: Any) -> Any:
    mean, variance = tf.nn.moments(x, [0, 2, 3], keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, None, None, 1e-3)


def dense(tf: Any, x: Any) -> Any:
    return tf.reshape(tf.reshape(x, [2, 12]) @ DENSE.T, [2, 5, 1, 1])


def activation(kind: str, function: str, **values: float) -> Row:
    def run(tf: Any, x: Any) -> Any:
        return getattr(tf.nn, function)(x, **values)

    return ("activation", {kind: values}, IMAGE, run)


def same(**others: Any) -> dict[str, Any]:
    return {"same": {}, **others}


TENSORFLOW: list[Row] = [
    ("convolution", {**CONVOLUTION, "valid": {}}, IMAGE, conv("VALID")),
    ("convolution", {**CONVOLUTION, **same(stride=[2, 2])}, IMAGE, conv("SAME", 2)),
    ("convolution", {**CONVOLUTION, **same(dilationFactor=[2, 2])}, IMAGE, conv("SAME", 1, 2)),
    (
        "convolution",
        same(
            outputChannels=3, kernelChannels=1, nGroups=3, kernelSize=[3, 3], weights=DEPTH,
            stride=[2, 2],
        ),
        IMAGE,
        depthwise,
    ),
    (
        "convolution",
        same(
            outputChannels=4, kernelChannels=3, kernelSize=[3, 3], stride=[2, 2],
            isDeconvolution=True, weights=UP,
        ),
        IMAGE,
        transposed,
    ),
    (
        "pooling",
        {"type": "MAX", "kernelSize": [3, 2], "stride": [2, 2], "valid": {}},
        IMAGE,
        pooled("max_pool2d", "VALID"),
    ),
    (
        "pooling",
        same(type="MAX", kernelSize=[3, 2], stride=[2, 2]),
        IMAGE,
        pooled("max_pool2d", "SAME"),
    ),
    (
        "pooling",
        same(type="AVERAGE", kernelSize=[3, 2], stride=[2, 2], avgPoolExcludePadding=True),
        IMAGE,
        pooled("avg_pool2d", "SAME"),
    ),
    (
        "pooling",
        {"type": "AVERAGE", "globalPooling": True, "valid": {}},
        IMAGE,
        lambda tf, x: tf.reduce_mean(x, [2, 3], keepdims=True),
    ),
    (
        "batchnorm",
        {
            "channels": 3, "epsilon": 1e-3, "gamma": FOUR[0], "beta": FOUR[1], "mean": FOUR[2],
            "variance": FOUR[3],
        },
        IMAGE,
        normalized,
    ),
    (
        "batchnorm",
        {
            "channels": 3, "epsilon": 1e-3, "computeMeanVar": True, "gamma": np.ones(3),
            "beta": np.zeros(3),
        },
        IMAGE,
        of_batch,
    ),
    ("innerProduct", {"inputChannels": 12, "outputChannels": 5, "weights": DENSE}, [(2, 3, 2, 2)],
     dense),
    ("softmax", {}, IMAGE, lambda tf, x: tf.nn.softmax(x, 1)),
    ("softmaxND", {"axis": -1}, IMAGE, lambda tf, x: tf.nn.softmax(x)),
    activation("ReLU", "relu"),
    activation("sigmoid", "sigmoid"),
    activation("tanh", "tanh"),
    activation("softplus", "softplus"),
    activation("softsign", "softsign"),
    activation("leakyReLU", "leaky_relu", alpha=0.25),
    ("activation", {"ELU": {"alpha": 1.0}}, IMAGE, lambda tf, x: tf.nn.elu(x)),
    ("gelu", {"mode": "EXACT"}, IMAGE, lambda tf, x: tf.nn.gelu(x, approximate=False)),
    ("gelu", {"mode": "TANH_APPROXIMATION"}, IMAGE, lambda tf, x: tf.nn.gelu(x, approximate=True)),
    ("erf", {}, IMAGE, lambda tf, x: tf.math.erf(x)),
    ("addBroadcastable", {}, [(2, 3, 4), (3, 1)], lambda tf, a, b: a + b),
    ("multiplyBroadcastable", {}, [(2, 3, 4), (3, 1)], lambda tf, a, b: a * b),
    ("divideBroadcastable", {}, [(2, 3, 4), (3, 1)], lambda tf, a, b: a / b),
    ("subtractBroadcastable", {}, [(1, 4), (2, 3, 4)], lambda tf, a, b: a - b),
    ("maxBroadcastable", {}, [(1, 4), (2, 3, 4)], lambda tf, a, b: tf.maximum(a, b)),
    ("batchedMatmul", {"transposeB": True}, [(2, 3, 4), (2, 5, 4)],
     lambda tf, a, b: tf.matmul(a, b, transpose_b=True)),
    ("concatND", {"axis": 1}, [(2, 3), (2, 4)], lambda tf, a, b: tf.concat([a, b], 1)),
    ("transpose", {"axes": [2, 0, 1]}, [(2, 3, 4)], lambda tf, x: tf.transpose(x, [2, 0, 1])),
    ("reshapeStatic", {"targetShape": [4, 6]}, [(2, 3, 4)], lambda tf, x: tf.reshape(x, [4, 6])),
    ("sliceStatic", {"beginIds": [0, 1], "endIds": [3, 4], "strides": [2, 1]}, [(3, 5)],
     lambda tf, x: x[0:3:2, 1:4]),
    ("constantPad", {"padAmounts": [0, 1, 2, 0], "value": 3.0}, [(3, 5)],
     lambda tf, x: tf.pad(x, [[0, 1], [2, 0]], constant_values=3)),
    ("padding", {"reflection": {}, "paddingAmounts": {"borderAmounts": [
        {"startEdgeSize": 2, "endEdgeSize": 1}, {"startEdgeSize": 1, "endEdgeSize": 2}]}}, IMAGE,
     lambda tf, x: tf.pad(x, [[0, 0], [0, 0], [2, 1], [1, 2]], "REFLECT")),
    ("reduceMean", {"axes": [1], "keepDims": True}, [(2, 3, 4)],
     lambda tf, x: tf.reduce_mean(x, 1, keepdims=True)),
    ("reduceMax", {"axes": [0, 2]}, [(2, 3, 4)], lambda tf, x: tf.reduce_max(x, [0, 2])),
    ("reduceLogSumExp", {"axes": [1]}, [(2, 3)], lambda tf, x: tf.reduce_logsumexp(x, 1)),
    ("reduceProd", {"axes": [1]}, [(2, 3)], lambda tf, x: tf.reduce_prod(x, 1)),
    ("upsample", {"scalingFactor": [2, 3]}, IMAGE,
     lambda tf, x: first(tf.keras.layers.UpSampling2D((2, 3))(last(x)))),
    ("upsample", {"mode": "BILINEAR", "scalingFactor": [2, 2],
                  "linearUpsampleMode": "ALIGN_CORNERS_FALSE"}, IMAGE,
     lambda tf, x: first(tf.image.resize(last(x), (14, 12)))),
    ("lrn", {"alpha": 5e-1, "beta": 0.75, "localSize": 3, "k": 1.0}, IMAGE,
     lambda tf, x: first(tf.nn.lrn(last(x), 1, 1.0, 0.5 / 3, 0.75))),
    ("l2normalize", {"epsilon": 1e-6}, IMAGE,
     lambda tf, x: x / tf.sqrt(tf.reduce_sum(x * x, [1, 2, 3], keepdims=True) + 1e-6)),
    ("unary", {"type": "EXP", "scale": 0.5, "shift": 0.1}, IMAGE,
     lambda tf, x: tf.exp(0.5 * x + 0.1)),
    ("cumSum", {"axis": 1, "reverse": True, "excludeFinalSum": True}, [(3, 4)],
     lambda tf, x: tf.cumsum(x, 1, exclusive=True, reverse=True)),
    ("topK", {"K": 2, "axis": -1}, [(3, 6)], lambda tf, x: tf.math.top_k(x, 2)[0]),
]  # fmt: skip


@pytest.mark.parametrize("row", TENSORFLOW, ids=lambda row: row[0])
def test_tensorflow(row: Row) -> None:
    tf = tensorflow()
    kind, params, shapes, function = row
    rng = np.random.default_rng(11)
    sample = [rng.normal(size=shape).astype(np.float32) + 0.01 for shape in shapes]
    with tf.GradientTape() as tape:
        inputs = [tf.constant(x) for x in sample]
        tape.watch(inputs)
        y = function(tf, *inputs)
        projection = rng.normal(size=y.shape).astype(np.float32)
        value = tf.reduce_sum(y * projection)
    expected = tape.gradient(value, inputs)
    probe = Probe(Case(kind, params, sample, [y.numpy()], "exact", 1e-5))
    np.testing.assert_allclose(probe.run()[0], y, 1e-4, 1e-5)
    probe.projection = [projection.astype(np.float64)]
    if kind == "topK":  # their indices are an output, too
        probe.case.expected.append(y)  # type: ignore[attr-defined]
        probe.projection.append(np.zeros(y.shape))
    actual, _ = probe.gradients()
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, 1e-4, 1e-5)


GATES = {  # Keras' order of gates
    "LSTM": ["inputGate", "forgetGate", "blockInput", "outputGate"],
    "GRU": ["updateGate", "resetGate", "outputGate"],
}


@pytest.mark.parametrize("sequence", [True, False])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_through_time(kind: str, sequence: bool) -> None:
    """The input, and every weight, as Keras differentiates them."""
    tf = tensorflow()
    units, channels, length, batch = 3, 4, 5, 2
    options = {"reset_after": False} if kind == "GRU" else {}
    layer = getattr(tf.keras.layers, kind)(units, return_sequences=sequence, **options)
    rng = np.random.default_rng(12)
    x = rng.normal(size=(batch, length, channels)).astype(np.float32)
    layer.build(x.shape)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        y = layer(inputs)
        projection = rng.normal(size=y.shape).astype(np.float32)
        value = tf.reduce_sum(y * projection)
    expected = tape.gradient(value, [inputs, *layer.trainable_variables])
    matrices = [w.T for w in layer.get_weights()]
    shared = {"inputVectorSize": channels, "outputVectorSize": units}
    names = {"weight": "WeightMatrix", "recursion": "RecursionMatrix", "bias": "BiasVector"}
    params: dict[str, Any]
    if kind == "SimpleRNN":
        fields = dict(zip(["weightMatrix", "recursionMatrix", "biasVector"], matrices, strict=True))
        params = {
            **shared, **fields, "hasBiasVector": True, "sequenceOutput": sequence,
            "activation": {"tanh": {}},
        }  # fmt: skip
        core, outputs, prefix = "simpleRecurrent", 2, ""
    else:
        gates = GATES[kind]
        fields = {
            f"{gate}{name}": np.split(matrix, len(gates))[index]
            for matrix, name in zip(matrices, names.values(), strict=True)
            for index, gate in enumerate(gates)
        }
        functions = [{"sigmoid": {}}, {"tanh": {}}, {"tanh": {}}]
        if kind == "GRU":
            params = {
                **shared, **fields, "hasBiasVectors": True, "sequenceOutput": sequence,
                "activations": functions[:2],
            }  # fmt: skip
            core, outputs, prefix = "gru", 2, ""
        else:
            params = {
                **shared, "activations": functions, "weightParams": fields,
                "params": {"hasBiasVectors": True, "sequenceOutput": sequence},
            }  # fmt: skip
            core, outputs, prefix = "uniDirectionalLSTM", 3, "weightParams."
    steps = x.transpose(1, 0, 2)[..., None, None]
    probe = Probe(Case(core, params, [steps], [np.zeros(1)] * outputs, "exact", 1e-5))
    behind = (projection.transpose(1, 0, 2) if sequence else projection[None])[..., None, None]
    actual = probe.run()
    probe.projection = [behind.astype(np.float64), *(np.zeros(s.shape) for s in actual[1:])]
    result, of_weights = probe.gradients()
    assert result[0] is not None
    np.testing.assert_allclose(
        result[0][..., 0, 0], expected[0].numpy().transpose(1, 0, 2), 1e-4, 1e-5
    )
    for index, name in enumerate(names):
        if kind == "SimpleRNN":
            ours = of_weights[f"{name}Matrix" if index < 2 else "biasVector"]
        else:
            ours = np.concatenate([of_weights[f"{prefix}{g}{names[name]}"] for g in GATES[kind]])
        np.testing.assert_allclose(ours, expected[index + 1].numpy().T, 1e-4, 1e-5)
