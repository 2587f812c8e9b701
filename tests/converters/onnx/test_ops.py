"""Ops where the node suite has few cases; onnxruntime is the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import mlferry

RNG = np.random.default_rng(11)


class Case(NamedTuple):
    """One node; arrays of `given` are inputs of the model, those of `constants` initializers."""

    op: str
    given: list[np.ndarray]
    constants: list[np.ndarray | None] = []
    attributes: dict[str, Any] = {}
    opset: int = 17
    outputs: int | str = 1  # their number; or a letter each, "-" for one that is left out
    order: str = ""  # a letter each operand: "g" given, "c" constant; by default given first


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def corners(*shape: int) -> np.ndarray:
    """Boxes by any two opposite corners."""
    return RNG.uniform(0, 10, (*shape, 4)).astype(np.float32)


def regions(count: int) -> np.ndarray:
    start = RNG.uniform(-1, 6, (count, 2))
    size = RNG.uniform(0.1, 7, (count, 2))
    return np.concatenate([start, start + size], axis=1).astype(np.float32)


WHOLE = np.arange(-700, 700, 13, dtype=np.int32)
BYTES = np.arange(0, 256, 5, dtype=np.uint8)
IMAGES, WHICH = normal(2, 3, 7, 9), np.array([0, 1, 1, 0], np.int64)
MOST, IOU, LEAST = np.array(4, np.int64), np.array(0.3, np.float32), np.array(0.4, np.float32)
W3 = normal(4, 2, 2, 3, 2)
CASES: dict[str, Case] = {
    "integers to bytes": Case("Cast", [WHOLE], [], {"to": onnx.TensorProto.UINT8}),
    "integers to small ones": Case("Cast", [WHOLE], [], {"to": onnx.TensorProto.INT8}),
    "integers to 16 bits": Case("Cast", [WHOLE * 300], [], {"to": onnx.TensorProto.INT16}),
    "bytes to small integers": Case("Cast", [BYTES], [], {"to": onnx.TensorProto.INT8}),
    "small integers to 16 bits without a sign": Case(
        "Cast", [BYTES.astype(np.int8)], [], {"to": onnx.TensorProto.UINT16}
    ),
    "floats to bytes": Case("Cast", [np.abs(normal(4, 5)) * 80], [],
                            {"to": onnx.TensorProto.UINT8}),
    "floats to half and back": Case(
        "Cast", [np.float16([0.5, -2, 3.25])], [], {"to": onnx.TensorProto.FLOAT}
    ),
    "floats to half": Case("Cast", [np.float32([0.5, -2, 3.25])], [],
                           {"to": onnx.TensorProto.FLOAT16}),
    "nms": Case("NonMaxSuppression", [corners(2, 20), normal(2, 3, 20)], [MOST, IOU, LEAST]),
    "nms without threshold": Case(
        "NonMaxSuppression", [corners(1, 30), normal(1, 1, 30)], [np.array(100, np.int64), IOU]
    ),
    "a norm of negative values": Case(
        "LpNormalization", [-np.abs(normal(3, 4))], [], {"p": 1, "axis": 1}
    ),
    "one hot of floats": Case(
        "OneHot", [np.float32([-1.1, -0.4, 0.6, 1.9, -3.5, 5.2])],
        [np.array(4, np.float32), np.float32([0.5, 2])],
    ),
    "one hot of floats, a computed depth": Case(
        "OneHot", [np.float32([[-1.1, -0.4], [1.9, -3.5]]), np.array([4], np.float32)],
        [np.float32([0, 1])], {"axis": 0},
    ),
    "nms of centres": Case(
        "NonMaxSuppression", [np.abs(corners(1, 20)), normal(1, 2, 20)], [MOST, IOU, LEAST],
        {"center_point_box": 1},
    ),
    "nms that keeps nothing of a class": Case(
        "NonMaxSuppression",
        [corners(1, 9), np.stack([normal(9), normal(9) * 0 - 5])[None].astype(np.float32)],
        [MOST, IOU, LEAST],
    ),
    "roi align": Case(
        "RoiAlign", [IMAGES, regions(4), WHICH], [],
        {"output_height": 3, "output_width": 4, "sampling_ratio": 2, "spatial_scale": 0.9},
    ),
    "roi align, one sample": Case(
        "RoiAlign", [IMAGES, regions(4), WHICH], [],
        {"output_height": 5, "output_width": 2, "sampling_ratio": 1,
         "coordinate_transformation_mode": "output_half_pixel"},
    ),
    "roi align before opset 16": Case(
        "RoiAlign", [IMAGES, regions(4), WHICH], [],
        {"output_height": 2, "output_width": 2, "sampling_ratio": 3}, 12,
    ),
    **{
        f"max pool of regions {name}": Case(
            "MaxRoiPool", [IMAGES, np.concatenate([np.float32(WHICH)[:, None], boxes], 1)], [],
            {"pooled_shape": shape, "spatial_scale": scale},
        )
        for name, boxes, shape, scale in (
            ("of any size", regions(4), [3, 4], 1.0),
            ("of small maps", regions(4) * 8, [2, 3], 1 / 8),
            ("of one bin", regions(4), [1, 1], 1.0),
            ("of halves, and beyond the image", np.float32(
                [[0.5, 1.5, 2.5, 3.5], [-3, -2, 4, 20], [30, 30, 40, 40], [5, 4, 3, 2]]), [4, 3],
             1.0),
            ("smaller than their bins", np.float32([[2, 2, 3, 3]] * 4), [7, 7], 1.0),
        )
    },
    "max pool with indices": Case(
        "MaxPool", [normal(2, 3, 8, 7)], [],
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}, 12, 2,
    ),
    "max pool with indices, column major": Case(
        "MaxPool", [normal(2, 2, 6, 7)], [],
        {"kernel_shape": [2, 2], "strides": [2, 2], "storage_order": 1}, 12, 2,
    ),
    "max pool with indices, rounded up": Case(
        "MaxPool", [normal(1, 2, 7, 7)], [],
        {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, 12, 2,
    ),
    "max pool of lines with indices": Case(
        "MaxPool", [normal(2, 3, 9)], [], {"kernel_shape": [3], "strides": [2]}, 12, 2
    ),
    "transposed in three dimensions": Case(
        "ConvTranspose", [normal(2, 4, 3, 4, 5)], [W3, normal(2)],
        {"strides": [2, 1, 3], "pads": [1, 0, 1, 0, 1, 0]},
    ),
    "transposed volumes with output padding": Case(
        "ConvTranspose", [normal(1, 4, 3, 3, 3)], [W3, normal(2)],
        {"strides": [2, 2, 2], "output_padding": [1, 0, 1]},
    ),
    "transposed volumes, dilated": Case(
        "ConvTranspose", [normal(1, 4, 3, 3, 3)], [W3], {"dilations": [2, 1, 2]}
    ),
    "transposed volumes in groups": Case(
        "ConvTranspose", [normal(1, 4, 3, 3, 3)], [W3], {"group": 2}
    ),
    "computed points": Case("GatherND", [normal(3, 4, 2), np.array([[0, -1], [-3, 2]])]),
    "computed points in batches": Case(
        "GatherND", [normal(2, 4, 3), np.array([[[1], [-1]], [[0], [3]]])], [], {"batch_dims": 1}
    ),
    "scattered at computed points": Case(
        "ScatterND", [normal(4, 3), np.array([[1], [-1]]), normal(2, 3)]
    ),
    "scattered at computed places": Case(
        "ScatterElements", [normal(4, 3), np.array([[1, -1], [0, 2]]), normal(2, 2)], [],
        {"axis": 0},
    ),
    "scattered into a vector": Case(
        "ScatterElements", [normal(5), np.array([1, -1]), normal(2)]
    ),
    "resize that says it stretches": Case(
        "Resize", [normal(1, 2, 4, 5)],
        [np.array([], np.float32), np.array([1, 1, 2, 1.5], np.float32)],
        {"mode": "linear", "keep_aspect_ratio_policy": "stretch"}, 18,
    ),
    "crop and resize": Case(
        "Resize", [normal(1, 2, 6, 7)],
        [np.array([0, 0, 0.2, -0.3, 1, 1, 0.9, 1.4], np.float32), np.array([], np.float32),
         np.array([1, 2, 4, 5], np.int64)],
        {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize",
         "extrapolation_value": 7.0},
    ),
    "nearest by three": Case(
        "Resize", [normal(1, 2, 4, 5)],
        [np.array([], np.float32), np.array([1, 1, 3, 2], np.float32)],
        {"mode": "nearest", "nearest_mode": "round_prefer_floor"},
    ),
    "nearest by two, rounded down": Case(
        "Resize", [normal(1, 2, 4, 5)],
        [np.array([], np.float32), np.array([1, 1, 2, 2], np.float32)],
        {"mode": "nearest", "nearest_mode": "floor"},
    ),
    "nearest by two, rounded up": Case(
        "Resize", [normal(1, 2, 4, 5)],
        [np.array([], np.float32), np.array([1, 1, 2, 2], np.float32)],
        {"mode": "nearest", "nearest_mode": "ceil"},
    ),
    "deformable convolution": Case(
        "DeformConv", [normal(2, 3, 6, 7), normal(2, 18, 4, 5)], [normal(4, 3, 3, 3)], {}, 19,
        order="gcg",
    ),
    "deformable convolution with everything": Case(
        "DeformConv", [normal(1, 4, 6, 7), normal(1, 24, 4, 4) * 2, np.abs(normal(1, 12, 4, 4))],
        [normal(6, 2, 2, 3), normal(6)],
        {"group": 2, "offset_group": 2, "strides": [2, 2], "pads": [1, 2, 1, 1],
         "dilations": [1, 1], "kernel_shape": [2, 3]}, 19, order="gcgcg",
    ),
    "deformable convolution by computed weights": Case(
        "DeformConv",
        [normal(2, 4, 6, 7), normal(6, 2, 3, 3), normal(2, 18, 4, 5), normal(6)], [],
        {"group": 2}, 19,
    ),
    "deformable convolution, dilated": Case(
        "DeformConv", [normal(1, 2, 7, 6), normal(1, 8, 5, 3)], [normal(3, 2, 2, 2)],
        {"dilations": [2, 3]}, 19, order="gcg",
    ),
    **{
        f"nearest of half pixels, symmetric: {factor} {rounding}": Case(
            "Resize", [normal(1, 2, 10, 5)],
            [np.array([], np.float32), np.array([1, 1, factor, factor], np.float32)],
            {"coordinate_transformation_mode": "half_pixel_symmetric", "nearest_mode": rounding},
            19,
        )
        for factor in (0.3, 0.6, 0.8, 1.5, 2.6)
        for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    },
    "blocks to an image": Case(
        "Col2Im", [normal(2, 12, 15)], [np.array([6, 5]), np.array([2, 3])],
        {"strides": [2, 1], "pads": [0, 1, 0, 1]}, 18,
    ),
    "short Fourier transform": Case(
        "STFT", [normal(2, 40, 1)], [np.array(5), np.hanning(16).astype(np.float32)], {}, 17
    ),
    "short Fourier transform, both sides": Case(
        "STFT", [normal(2, 40, 1)], [np.array(7), None, np.array(9)], {"onesided": 0}, 17
    ),
}  # fmt: skip
SHIFTS = (BYTES % 9).astype(np.uint8)
SIGNED = np.arange(-128, 128, 5, dtype=np.int8)
OTHERS = np.roll(SIGNED, 7) * 3
for _op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
    CASES[f"{_op} of bytes"] = Case(_op, [BYTES, np.roll(BYTES, 9)], [], {}, 18)
    CASES[f"{_op} of small integers"] = Case(_op, [SIGNED, OTHERS], [], {}, 18)
    CASES[f"{_op} with a mask"] = Case(
        _op, [(WHOLE * 31).astype(np.int16).reshape(4, -1)], [np.array(0x0F0F, np.int16)], {}, 18
    )
CASES["BitwiseNot of bytes"] = Case("BitwiseNot", [BYTES], [], {}, 18)
for _way in ("LEFT", "RIGHT"):
    CASES[f"BitShift {_way} of bytes"] = Case("BitShift", [BYTES, SHIFTS], [], {"direction": _way})
    CASES[f"BitShift {_way} of 32 bits"] = Case(
        "BitShift", [BYTES.astype(np.uint32)], [np.array(3, np.uint32)], {"direction": _way}
    )
CASES["Det of one matrix"] = Case("Det", [normal(2, 2)])
ROWS, FOUR = normal(3, 4), [np.abs(normal(4)) + 0.5, normal(4), normal(4), np.abs(normal(4)) + 0.5]
SEQUENCE = normal(5, 2, 3)
LSTM = [SEQUENCE, *(x * 0.4 for x in (normal(1, 16, 3), normal(1, 16, 4), normal(1, 32)))]
GRU = [SEQUENCE, *(x * 0.4 for x in (normal(1, 12, 3), normal(1, 12, 4), normal(1, 24)))]
RNN = [SEQUENCE, *(x * 0.4 for x in (normal(1, 4, 3), normal(1, 4, 4), normal(1, 8)))]
SHORT = [None, np.array([5, 3], np.int32)]
TIED = np.float32([[3, 1, 3, 0], [0, 0, 0, 0], [-2, 5, 5, 5]])
SEVERAL: dict[str, Case] = {
    "TopK, one axis": Case("TopK", [normal(6)], [np.array([4])]),
    "TopK": Case("TopK", [TIED], [np.array([3])]),
    "TopK of the smallest": Case("TopK", [TIED], [np.array([2])], {"largest": 0, "axis": 0}),
    "Split": Case("Split", [normal(2, 6, 3)], [], {"axis": 1, "num_outputs": 3}, 18),
    "Split by sizes": Case("Split", [normal(2, 6, 3)], [np.array([1, 2, 3])], {"axis": -2}),
    "MaxPool": Case("MaxPool", [normal(1, 2, 6, 5)], [], {"kernel_shape": [2, 3], "pads": [1] * 4}),
    "Dropout": Case("Dropout", [ROWS], [], {}, 13),
    "LayerNormalization": Case("LayerNormalization", [normal(2, 3, 4)], FOUR[:2], {"axis": -1}),
    "LayerNormalization, two axes": Case(
        "LayerNormalization", [normal(2, 3, 4)], [normal(3, 4), normal(3, 4)], {"axis": 1}
    ),
    "LSTM": Case("LSTM", LSTM[:1], LSTM[1:], {"hidden_size": 4}),
    "LSTM backwards": Case("LSTM", LSTM[:1], LSTM[1:], {"hidden_size": 4, "direction": "reverse"}),
    "LSTM both ways": Case(
        "LSTM", LSTM[:1], [np.concatenate([x, x[:, ::-1]]) for x in LSTM[1:]],
        {"hidden_size": 4, "direction": "bidirectional"},
    ),
    "LSTM of lengths": Case("LSTM", LSTM[:1], [*LSTM[1:], SHORT[1]], {"hidden_size": 4}),
    "LSTM of lengths and many steps": Case(
        "LSTM", [normal(300, 2, 3)], [*LSTM[1:], np.array([300, 270], np.int32)],
        {"hidden_size": 4},
    ),
    "LSTM that forgets what it does not take in": Case(
        "LSTM", LSTM[:1], LSTM[1:], {"hidden_size": 4, "input_forget": 1}
    ),
    "GRU": Case("GRU", GRU[:1], GRU[1:], {"hidden_size": 4}),
    "GRU backwards, of lengths": Case(
        "GRU", GRU[:1], [*GRU[1:], SHORT[1]],
        {"hidden_size": 4, "direction": "reverse", "linear_before_reset": 1},
    ),
    "GRU backwards, of lengths and many steps": Case(
        "GRU", [normal(290, 2, 3)], [*GRU[1:], np.array([290, 280], np.int32)],
        {"hidden_size": 4, "direction": "reverse", "linear_before_reset": 1},
    ),
    "RNN": Case("RNN", RNN[:1], RNN[1:], {"hidden_size": 4}),
}  # fmt: skip
LEFT_OUT = {
    "TopK": ["yy"], "Split": ["yyy"], "MaxPool": ["yy"], "Dropout": ["yy"],
    "LayerNormalization": ["yyy", "y-y", "yy"], "LSTM": ["yyy", "-yy", "--y", "y-y", "yy"],
    "GRU": ["yy", "-y"], "RNN": ["yy", "-y"],
}  # fmt: skip
for _name, _case in SEVERAL.items():
    for _shown in LEFT_OUT[_case.op]:
        CASES[f"{_name}: {_shown}"] = _case._replace(outputs=_shown)
CASES["BatchNormalization"] = Case("BatchNormalization", [normal(3, 4, 5)], FOUR, {}, 15)


def model(case: Case) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    inputs = {f"x{index}": x for index, x in enumerate(case.given)}
    fixed = {f"c{index}": c for index, c in enumerate(case.constants) if c is not None}
    fixed_names = [f"c{i}" if c is not None else "" for i, c in enumerate(case.constants)]
    sources = {"g": iter(inputs), "c": iter(fixed_names)}
    order = case.order or "g" * len(inputs) + "c" * len(fixed_names)
    names = [next(sources[letter]) for letter in order]
    letters = case.outputs if isinstance(case.outputs, str) else "y" * case.outputs
    named = ["" if letter == "-" else f"y{index}" for index, letter in enumerate(letters)]
    outputs = [name for name in named if name]
    graph = helper.make_graph(
        [helper.make_node(case.op, names, named, **case.attributes)],
        "g",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for n, x in inputs.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(c, n) for n, c in fixed.items()],
    )
    result = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=8
    )
    return onnx.shape_inference.infer_shapes(result), inputs


def oracle_session(onnxruntime: Any, network: onnx.ModelProto) -> Any:
    """A session that runs the nodes as they are; older versions lack some of them."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(network.SerializeToString(), options)
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
        pytest.skip(f"onnxruntime {onnxruntime.__version__}: {error}")


@pytest.mark.parametrize("name", list(CASES))
def test_against_onnxruntime(name: str, library: Callable[[str], Any]) -> None:
    network, inputs = model(CASES[name])
    expected = oracle_session(library("onnxruntime"), network).run(None, inputs)
    actual = mlferry.convert(network).predict(inputs).values()
    for got, right in zip(actual, expected, strict=True):
        assert got.shape == (right.shape or (1,))
        np.testing.assert_allclose(got, right, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", list(CASES))
def test_constants_are_those_of_onnxruntime(name: str, library: Callable[[str], Any]) -> None:
    """The same nodes where all of their inputs are known."""
    network, inputs = model(CASES[name])
    known = onnx.ModelProto()
    known.CopyFrom(network)
    graph = known.graph
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.initializer.extend(numpy_helper.from_array(x, name) for name, x in inputs.items())
    graph.input.append(helper.make_tensor_value_info("zero", 1, [1]))
    for output in network.graph.output:
        graph.node.extend(
            [
                helper.make_node("Cast", [output.name], [f"{output.name}_single"], to=1),
                helper.make_node(
                    "Add", [f"{output.name}_single", "zero"], [f"{output.name}_shown"]
                ),
            ]
        )
        graph.output.append(helper.make_empty_tensor_value_info(f"{output.name}_shown"))
    feeds = {"zero": np.zeros(1, np.float32)}
    expected = oracle_session(library("onnxruntime"), known).run(None, feeds)
    actual = mlferry.convert(known).predict(feeds).values()
    for got, right in zip(actual, expected, strict=True):
        assert got.shape == (right.shape or (1,))
        np.testing.assert_allclose(got, right, rtol=1e-4, atol=2e-5)


def test_unpooling_undoes_pooling() -> None:
    """onnxruntime has no unpooling to compare with at every shape: NumPy's assignment is exact."""
    nodes = [
        helper.make_node("MaxPool", ["x"], ["m", "i"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("MaxUnpool", ["m", "i"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, [2, 3, 6, 4])],
        [helper.make_tensor_value_info("y", 1, [2, 3, 6, 4])],
    )  # fmt: skip
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8)
    x = normal(2, 3, 6, 4)
    blocks = x.reshape(2, 3, 3, 2, 2, 2)
    best = blocks.max(axis=(3, 5), keepdims=True)
    expected = np.where(blocks == best, blocks, 0).reshape(x.shape)
    (actual,) = mlferry.convert(network).predict({"x": x}).values()
    np.testing.assert_array_equal(actual, expected)
