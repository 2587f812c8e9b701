"""Layers against onnxruntime, which shares no code with the kernels or the naive loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.layers.case import Array, network, run
from tests.layers.naive import values

Library = Callable[[str], Any]
Oracle = Callable[..., list[Array]]


@pytest.fixture(scope="module")
def oracle(library: Library) -> Oracle:
    onnx, onnxruntime = library("onnx"), library("onnxruntime")

    def evaluate(
        op: str, inputs: list[Array | None], outputs: int = 1, **attributes: Any
    ) -> list[Array]:
        helper = onnx.helper
        names = ["" if x is None else f"x{index}" for index, x in enumerate(inputs)]
        result = [f"y{index}" for index in range(outputs)]
        node = helper.make_node(op, names, result, **attributes)
        sample = {name: x for name, x in zip(names, inputs, strict=True) if x is not None}
        described = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for name, x in sample.items()
        ]
        kind = onnx.TensorProto.INT64 if op == "NonMaxSuppression" else onnx.TensorProto.FLOAT
        kinds = [kind, onnx.TensorProto.INT64] if op == "TopK" else [kind] * outputs
        results = [
            helper.make_tensor_value_info(name, k, None)
            for name, k in zip(result, kinds, strict=True)
        ]
        graph = helper.make_graph([node], "one", described, results)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return [np.asarray(y) for y in session.run(result, sample)]

    return evaluate


def layer(kind: str, inputs: list[Array], outputs: int = 1, **params: Any) -> list[Array]:
    return run(network(kind, params, len(inputs), outputs), inputs)


def same(actual: list[Array], expected: list[Array], tolerance: float = 2e-5) -> None:
    for mine, other in zip(actual, expected, strict=True):
        assert mine.size == other.size
        np.testing.assert_allclose(mine.reshape(other.shape), other, tolerance, tolerance)


def edges(top: int, left: int, bottom: int, right: int) -> dict[str, Any]:
    amounts = [
        {"startEdgeSize": top, "endEdgeSize": bottom},
        {"startEdgeSize": left, "endEdgeSize": right},
    ]
    return {"paddingAmounts": {"borderAmounts": amounts}}


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 3)])
def test_convolution(oracle: Oracle, groups: int, dilation: tuple[int, int]) -> None:
    x, w, b = values(2, 4, 17, 15), values(8, 4 // groups, 3, 4, seed=1), values(8, seed=2)
    common = {"pads": (1, 2, 0, 3), "strides": (2, 1), "dilations": dilation}
    expected = oracle("Conv", [x, w, b], group=groups, kernel_shape=(3, 4), **common)
    actual = layer(
        "convolution", [x], outputChannels=8, kernelChannels=4 // groups, nGroups=groups,
        kernelSize=(3, 4), stride=(2, 1), dilationFactor=dilation, valid=edges(1, 2, 0, 3),
        weights=w, hasBias=True, bias=b,
    )  # fmt: skip
    same(actual, expected, 1e-4)


@pytest.mark.parametrize("groups", [1, 2])
def test_deconvolution(oracle: Oracle, groups: int) -> None:
    x, w = values(2, 4, 6, 5), values(4, 6 // groups, 3, 4, seed=1)
    expected = oracle(
        "ConvTranspose", [x, w], group=groups, strides=(2, 3), pads=(1, 2, 0, 1),
        kernel_shape=(3, 4),
    )  # fmt: skip
    actual = layer(
        "convolution", [x], outputChannels=6, kernelChannels=4, nGroups=groups,
        kernelSize=(3, 4), stride=(2, 3), valid=edges(1, 2, 0, 1), isDeconvolution=True,
        weights=w,
    )  # fmt: skip
    same(actual, expected, 1e-4)


def test_deconvolution_to_an_output_shape(oracle: Oracle) -> None:
    x, w = values(1, 2, 4, 5), values(2, 3, 3, 3, seed=1)
    attributes = {"strides": (2, 2), "auto_pad": "SAME_UPPER", "kernel_shape": (3, 3)}
    expected = oracle("ConvTranspose", [x, w], output_shape=(8, 10), **attributes)
    params = {
        "outputChannels": 3, "kernelChannels": 2, "stride": (2, 2), "isDeconvolution": True,
        "weights": w,
    }  # fmt: skip
    same(layer("convolution", [x], outputShape=(8, 10), **params), expected, 1e-4)
    same(layer("convolution", [x], same={}, **params), expected, 1e-4)


@pytest.mark.parametrize(("op", "kind"), [("MaxPool", "MAX"), ("AveragePool", "AVERAGE")])
@pytest.mark.parametrize("shape", [(2, 3, 9, 8), (1, 2, 7, 10)])
def test_pooling(oracle: Oracle, op: str, kind: str, shape: tuple[int, ...]) -> None:
    x = values(*shape)
    common = {"kernel_shape": (3, 2), "strides": (2, 3)}
    params = {"type": kind, "kernelSize": (3, 2), "stride": (2, 3)}
    expected = oracle(op, [x], pads=(1, 0, 1, 1), **common)
    exclude = {**params, "avgPoolExcludePadding": True}
    same(layer("pooling", [x], valid=edges(1, 0, 1, 1), **exclude), expected)
    for mode, heavy in (("SAME_UPPER", "BOTTOM_RIGHT_HEAVY"), ("SAME_LOWER", "TOP_LEFT_HEAVY")):
        expected = oracle(op, [x], auto_pad=mode, **common)
        same(layer("pooling", [x], same={"asymmetryMode": heavy}, **exclude), expected)
    if kind == "AVERAGE":
        expected = oracle(op, [x], pads=(1, 0, 1, 1), count_include_pad=1, **common)
        same(layer("pooling", [x], valid=edges(1, 0, 1, 1), **params), expected)


@pytest.mark.parametrize(("op", "kind"), [("MaxPool", "MAX"), ("AveragePool", "AVERAGE")])
@pytest.mark.parametrize("shape", [(2, 3, 9, 8), (1, 2, 7, 10)])
def test_pooling_to_the_last_pixel(
    library: Library, oracle: Oracle, op: str, kind: str, shape: tuple[int, ...]
) -> None:
    version = library("onnxruntime").__version__
    if tuple(map(int, version.split(".")[:2])) < (1, 21):
        pytest.skip(f"onnxruntime {version} makes windows that start behind the padded end")
    x = values(*shape)
    common = {"kernel_shape": (3, 2), "strides": (2, 3), "pads": (1, 1, 1, 1)}
    params = {"type": kind, "kernelSize": (3, 2), "stride": (2, 3), "avgPoolExcludePadding": True}
    actual = layer("pooling", [x], includeLastPixel={"paddingAmounts": (1, 1)}, **params)
    same(actual, oracle(op, [x], ceil_mode=1, **common))


def test_l2_pooling(oracle: Oracle) -> None:
    x = values(2, 3, 8, 8)
    expected = oracle("LpPool", [x], kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1), p=2)
    params = {"type": "L2", "kernelSize": (3, 3), "stride": (2, 2)}
    same(layer("pooling", [x], valid=edges(1, 1, 1, 1), **params), expected)
    matches = layer("pooling", [x], type="L2", globalPooling=True)
    same(matches, oracle("GlobalLpPool", [x], p=2))


def test_convolution_in_three_dimensions(oracle: Oracle) -> None:
    x, w = values(1, 4, 5, 6, 7), values(4, 2, 2, 3, 3, seed=1)
    expected = oracle(
        "Conv", [x, w], group=2, strides=(1, 2, 2), dilations=(2, 1, 1),
        pads=(1, 0, 1, 0, 1, 1), kernel_shape=(2, 3, 3),
    )  # fmt: skip
    actual = layer(
        "convolution3d", [x], inputChannels=4, outputChannels=4, nGroups=2, weights=w,
        kernelDepth=2, kernelHeight=3, kernelWidth=3, strideHeight=2, strideWidth=2,
        dilationDepth=2, paddingType="CUSTOM", customPaddingFront=1, customPaddingLeft=1,
        customPaddingTop=0, customPaddingBottom=1, customPaddingRight=1,
    )  # fmt: skip
    same(actual, expected, 1e-4)
    w = values(4, 3, 2, 3, 3, seed=2)
    expected = oracle("ConvTranspose", [x, w], strides=(2, 1, 2), kernel_shape=(2, 3, 3))
    actual = layer(
        "convolution3d", [x], inputChannels=4, outputChannels=3, weights=w, kernelDepth=2,
        kernelHeight=3, kernelWidth=3, strideDepth=2, strideWidth=2, isDeconvolution=True,
        paddingType="VALID",
    )  # fmt: skip
    same(actual, expected, 1e-4)


def test_pooling_in_three_dimensions(oracle: Oracle) -> None:
    x = values(1, 2, 5, 6, 7) - 3
    sizes = {"kernelDepth": 2, "kernelHeight": 3, "kernelWidth": 3, "strideHeight": 2}
    pads = {"customPaddingFront": 1, "customPaddingTop": 1, "customPaddingBottom": 1}
    common = {"kernel_shape": (2, 3, 3), "strides": (1, 2, 1), "pads": (1, 1, 0, 0, 1, 0)}
    same(layer("pooling3d", [x], **sizes, **pads), oracle("MaxPool", [x], **common))
    params = {"type": "AVERAGE", **sizes, **pads}
    expected = oracle("AveragePool", [x], count_include_pad=1, **common)
    same(layer("pooling3d", [x], **params), expected)
    same(
        layer("pooling3d", [x], countExcludePadding=True, **params),
        oracle("AveragePool", [x], **common),
    )


def test_normalization(oracle: Oracle) -> None:
    x = values(2, 5, 4, 3)
    gamma, beta, mean = (values(5, seed=k) for k in (1, 2, 3))
    variance = np.abs(values(5, seed=4))
    stored = {"channels": 5, "gamma": gamma, "beta": beta}
    expected = oracle("BatchNormalization", [x, gamma, beta, mean, variance], epsilon=1e-3)
    actual = layer("batchnorm", [x], mean=mean, variance=variance, epsilon=1e-3, **stored)
    same(actual, expected)
    expected = oracle("InstanceNormalization", [x, gamma, beta], epsilon=1e-3)
    actual = layer(
        "batchnorm", [x], computeMeanVar=True, instanceNormalization=True, epsilon=1e-3, **stored
    )
    same(actual, expected)
    for size in (1, 3, 5):
        expected = oracle("LRN", [x], alpha=0.5, beta=0.6, bias=1.5, size=size)
        same(layer("lrn", [x], alpha=0.5, beta=0.6, k=1.5, localSize=size), expected)
    same(layer("softmax", [x]), oracle("Softmax", [x], axis=1))


@pytest.mark.parametrize(
    ("mode", "transformation"),
    [
        ("ALIGN_CORNERS_TRUE", "align_corners"),
        ("ALIGN_CORNERS_FALSE", "half_pixel"),
        ("DEFAULT", "asymmetric"),
    ],
)
def test_upsampling(oracle: Oracle, mode: str, transformation: str) -> None:
    x = values(1, 2, 4, 5)
    scales = np.array([1, 1, 2, 3], np.float32)
    expected = oracle(
        "Resize", [x, None, scales], mode="linear",
        coordinate_transformation_mode=transformation,
    )  # fmt: skip
    params = {"mode": "BILINEAR", "linearUpsampleMode": mode}
    same(layer("upsample", [x], scalingFactor=(2, 3), **params), expected)


def test_resizing(oracle: Oracle) -> None:
    x = values(1, 2, 4, 5)
    size = np.array([1, 2, 7, 3])
    for mode, transformation in (
        ("STRICT_ALIGN_ENDPOINTS_MODE", "align_corners"),
        ("UPSAMPLE_MODE", "asymmetric"),
    ):
        expected = oracle(
            "Resize", [x, None, None, size], mode="linear",
            coordinate_transformation_mode=transformation,
        )  # fmt: skip
        actual = layer("resizeBilinear", [x], targetSize=(7, 3), mode={"samplingMethod": mode})
        same(actual, expected)


STEPS, BATCH, SIZE, UNITS = 6, 3, 4, 5
LSTM_ORDER = ("inputGate", "outputGate", "forgetGate", "blockInput")
PEEPHOLES = ("inputGate", "outputGate", "forgetGate")
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


def recurrent_weights(gates: int, directions: int) -> tuple[Array, Array, Array]:
    return (
        values(directions, gates * UNITS, SIZE, seed=1),
        values(directions, gates * UNITS, UNITS, seed=2),
        values(directions, 2 * gates * UNITS, seed=3),
    )


def gate(array: Array, direction: int, index: int) -> Array:
    return array[direction, index * UNITS : (index + 1) * UNITS]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("peephole", [False, True])
def test_lstm(oracle: Oracle, direction: str, peephole: bool) -> None:
    """ONNX gives the outputs of a reversed layer in the order of the input."""
    count = DIRECTIONS[direction]
    x = values(STEPS, BATCH, SIZE)
    w, r, b = recurrent_weights(4, count)
    h, c = values(count, BATCH, UNITS, seed=4), values(count, BATCH, UNITS, seed=5)
    p = values(count, 3 * UNITS, seed=6)
    inputs = [x, w, r, b, None, h, c, *([p] if peephole else [])]
    y, y_h, y_c = oracle("LSTM", inputs, 3, hidden_size=UNITS, direction=direction)
    stored = []
    for d in range(count):
        fields = {}
        for index, name in enumerate(LSTM_ORDER):
            fields[f"{name}WeightMatrix"] = gate(w, d, index)
            fields[f"{name}RecursionMatrix"] = gate(r, d, index)
            fields[f"{name}BiasVector"] = gate(b, d, index) + gate(b, d, index + 4)
        if peephole:
            for index, name in enumerate(PEEPHOLES):
                fields[f"{name}PeepholeVector"] = gate(p, d, index)
        stored.append(fields)
    options = {"sequenceOutput": True, "hasBiasVectors": True, "hasPeepholeVectors": peephole}
    params: dict[str, Any] = {"inputVectorSize": SIZE, "outputVectorSize": UNITS, "params": options}
    acts = [{"sigmoid": {}}, {"tanh": {}}, {"tanh": {}}]
    blobs = [x[..., None, None]]
    for d in range(count):
        blobs += [h[d : d + 1, ..., None, None], c[d : d + 1, ..., None, None]]
    if count == 2:
        params |= {"activationsForwardLSTM": acts, "activationsBackwardLSTM": acts}
        actual = layer("biDirectionalLSTM", blobs, 5, weightParams=stored, **params)
        expected = [np.concatenate([y[:, 0], y[:, 1]], -1), y_h[0], y_c[0], y_h[1], y_c[1]]
    else:
        reverse = direction == "reverse"
        params |= {"activations": acts, "reverseInput": reverse}
        actual = layer("uniDirectionalLSTM", blobs, 3, weightParams=stored[0], **params)
        expected = [y[::-1] if reverse else y, y_h, y_c]
    same(actual, expected)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_gru_and_simple_recurrent(oracle: Oracle, direction: str) -> None:
    x, reverse = values(STEPS, BATCH, SIZE), direction == "reverse"
    h = values(1, BATCH, UNITS, seed=4)
    blobs = [x[..., None, None], h[..., None, None]]
    common = {
        "inputVectorSize": SIZE, "outputVectorSize": UNITS, "sequenceOutput": True,
        "reverseInput": reverse,
    }  # fmt: skip
    w, r, b = recurrent_weights(3, 1)
    y, last = oracle("GRU", [x, w, r, b, None, h], 2, hidden_size=UNITS, direction=direction)
    params: dict[str, Any] = {
        "activations": [{"sigmoid": {}}, {"tanh": {}}],
        "hasBiasVectors": True,
    }
    for index, name in enumerate(("update", "reset", "output")):
        params[f"{name}GateWeightMatrix"] = gate(w, 0, index)
        params[f"{name}GateRecursionMatrix"] = gate(r, 0, index)
        params[f"{name}GateBiasVector"] = gate(b, 0, index) + gate(b, 0, index + 3)
    same(layer("gru", blobs, 2, **common, **params), [y[::-1] if reverse else y, last])
    w, r, b = recurrent_weights(1, 1)
    y, last = oracle("RNN", [x, w, r, b, None, h], 2, hidden_size=UNITS, direction=direction)
    params = {
        "activation": {"tanh": {}}, "hasBiasVector": True, "weightMatrix": w[0],
        "recursionMatrix": r[0], "biasVector": gate(b, 0, 0) + gate(b, 0, 1),
    }  # fmt: skip
    same(layer("simpleRecurrent", blobs, 2, **common, **params), [y[::-1] if reverse else y, last])


def test_top_k(oracle: Oracle) -> None:
    x = np.round(values(3, 20, 4))
    for largest in (0, 1):
        expected = oracle("TopK", [x, np.array([7])], 2, axis=1, largest=largest)
        same(layer("topK", [x], 2, axis=1, K=7, useBottomK=not largest), expected)


def test_depth_and_space(oracle: Oracle) -> None:
    x = values(2, 12, 3, 2)
    for mode, kind in (("DCR", "DEPTH_TO_SPACE"), ("CRD", "PIXEL_SHUFFLE")):
        expected = oracle("DepthToSpace", [x], blocksize=2, mode=mode)
        same(layer("reorganizeData", [x], mode=kind, blockSize=2), expected)
    expected = oracle("SpaceToDepth", [values(2, 3, 4, 6)], blocksize=2)
    same(layer("reorganizeData", [values(2, 3, 4, 6)], blockSize=2), expected)


@pytest.mark.parametrize("iou", [0.1, 0.5, 0.9])
def test_suppression(oracle: Oracle, iou: float) -> None:
    rng = np.random.default_rng(3)
    boxes = rng.uniform(0.2, 1, (1, 60, 4)).astype(np.float32)
    scores = rng.uniform(0, 1, (1, 60, 1)).astype(np.float32)
    limits = [np.array([100]), np.float32([iou]), np.float32([0.3])]
    chosen = oracle(
        "NonMaxSuppression", [boxes, scores.swapaxes(1, 2), *limits], center_point_box=1
    )[0]
    actual = layer(
        "NonMaximumSuppression", [boxes, scores], 4, iouThreshold=iou, scoreThreshold=0.3,
        maxBoxes=60,
    )  # fmt: skip
    count = int(actual[3][0])
    assert actual[2][0, :count].tolist() == chosen[:, 2].tolist()
