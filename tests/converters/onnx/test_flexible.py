"""Flexible shapes: carried where the layers allow, onnxruntime as the oracle at several sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import mlferry
from mlferry.errors import ConversionError, PredictionError

SIDE = mlferry.RangeDim(8, 64, 16)
SHAPE = (1, 3, SIDE, SIDE)
SIZES = ((8, 8), (16, 13), (31, 64))
RNG = np.random.default_rng(7)


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.2, shape).astype(np.float32)


def graph(*nodes: tuple[Any, ...], opset: int = 17, **constants: Any) -> onnx.ModelProto:
    """A chain from x to y; a node is its op, its constant inputs and its attributes."""
    result, current = [], "x"
    for index, (op, names, attributes) in enumerate(nodes):
        following = "y" if index == len(nodes) - 1 else f"v{index}"
        result.append(helper.make_node(op, [current, *names], [following], **attributes))
        current = following
    return helper.make_model(
        helper.make_graph(
            result,
            "g",
            [helper.make_tensor_value_info("x", 1, [1, 3, "h", "w"])],
            [helper.make_tensor_value_info("y", 1, None)],
            [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )


W, W2, WT = weights(4, 3, 3, 3), weights(3, 4, 3, 3), weights(3, 2, 4, 4)
CONV = ("Conv", ["w"], {"pads": [1, 1, 1, 1]})
SCALES = np.array([1, 1, 2, 3], np.float32)
NETWORKS: dict[str, onnx.ModelProto] = {
    "convolution": graph(("Conv", ["w"], {"pads": [1, 0, 2, 1], "strides": [2, 1]}), w=W),
    "convolution SAME_UPPER": graph(
        ("Conv", ["w"], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}), w=W
    ),
    "convolution SAME_LOWER": graph(
        ("Conv", ["w"], {"auto_pad": "SAME_LOWER", "strides": [2, 3]}), w=W
    ),
    "convolution SAME without stride": graph(("Conv", ["w"], {"auto_pad": "SAME_LOWER"}), w=W),
    "transposed": graph(
        ("ConvTranspose", ["w"], {"strides": [2, 2], "pads": [1, 1, 1, 1]}), w=WT
    ),
    "transposed, output padding": graph(
        ("ConvTranspose", ["w"], {"strides": [3, 2], "output_padding": [2, 1]}), w=WT
    ),
    "transposed SAME": graph(
        ("ConvTranspose", ["w"], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}), w=WT
    ),
    "max pool": graph(("MaxPool", [], {"kernel_shape": [3, 2], "strides": [2, 2]})),
    "max pool SAME": graph(
        ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"})
    ),
    "max pool, rounded up": graph(
        ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})
    ),
    "average pool, rounded up": graph(
        ("AveragePool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1],
                             "ceil_mode": 1})
    ),
    "average pool": graph(
        ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1],
                             "count_include_pad": 1})
    ),
    "nearest": graph(
        ("Resize", ["", "s"], {"coordinate_transformation_mode": "asymmetric",
                               "nearest_mode": "floor"}), s=SCALES
    ),
    "linear": graph(("Resize", ["", "s"], {"mode": "linear"}), s=SCALES),
    "reflect": graph(("Pad", ["p"], {"mode": "reflect"}), p=np.array([0, 0, 2, 1, 0, 0, 3, 1])),
    "edge": graph(("Pad", ["p"], {"mode": "edge"}), p=np.array([0, 0, 2, 1, 0, 0, 3, 1])),
    "zeros": graph(("Pad", ["p"], {}), p=np.array([0, 0, 2, 1, 0, 0, 3, 1])),
    "batch normalization": graph(
        ("BatchNormalization", ["a", "a", "a", "b"], {}), a=weights(3), b=np.abs(weights(3)) + 0.1
    ),
    "instance normalization": graph(
        ("InstanceNormalization", ["a", "a"], {}), a=weights(3)
    ),
    "softmax over channels": graph(("Softmax", [], {"axis": 1})),
    "softmax before opset 13": graph(("Softmax", [], {"axis": 1}), opset=11),
    "slope a channel": graph(("PRelu", ["a"], {}), a=weights(3, 1, 1)),
    "mean over space": graph(("ReduceMean", [], {"axes": [2, 3], "keepdims": 0})),
    "last pixels": graph(
        ("Slice", ["s", "e", "a"], {}), s=np.array([-4, 1]), e=np.array([2**62, -1]),
        a=np.array([2, 3]),
    ),
    "one channel": graph(("Gather", ["i"], {"axis": 1}), i=np.array(-1)),
    "classifier": graph(
        CONV, ("Relu", [], {}), ("GlobalAveragePool", [], {}), ("Flatten", [], {}),
        ("Gemm", ["g"], {"transB": 1}), ("Softmax", [], {}), w=W, g=weights(5, 4),
    ),
    "style": graph(
        ("Pad", ["p"], {"mode": "reflect"}), ("Conv", ["w"], {"strides": [2, 2]}),
        ("InstanceNormalization", ["a", "a"], {}), ("Relu", [], {}),
        ("Resize", ["", "s"], {"coordinate_transformation_mode": "asymmetric",
                               "nearest_mode": "floor"}),
        ("Conv", ["v"], {"pads": [1, 1, 1, 1]}), ("Tanh", [], {}),
        w=W, v=W2, p=np.array([0, 0, 2, 2, 0, 0, 2, 2]), a=weights(4), s=SCALES,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(NETWORKS))
def test_at_several_sizes(name: str, library: Callable[[str], Any]) -> None:
    network = NETWORKS[name]
    session = library("onnxruntime").InferenceSession(network.SerializeToString())
    converted = mlferry.convert(network, inputs=[mlferry.TensorType(shape=SHAPE)])
    for size in SIZES:
        x = RNG.normal(size=(1, 3, *size)).astype(np.float32)
        (expected,) = session.run(None, {"x": x})
        (actual,) = converted.predict({"x": x}).values()
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(PredictionError, match="64"):
        converted.predict({"x": np.zeros((1, 3, 65, 8))})


def test_shape_arithmetic_of_flexible_extents(library: Callable[[str], Any]) -> None:
    """What PyTorch writes for x.view(x.size(0), -1) with a flexible batch."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "minus"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    constants = {"zero": np.array(0), "axes": np.array([0]), "minus": np.array([-1]),
                 "w": weights(12, 2)}  # fmt: skip
    network = helper.make_model(
        helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("x", 1, ["n", 3, 4])],
            [helper.make_tensor_value_info("y", 1, None)],
            [numpy_helper.from_array(a, n) for n, a in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    kind = mlferry.TensorType(shape=(mlferry.RangeDim(1, 9), 3, 4))
    converted = mlferry.convert(network, inputs=[kind])
    for batch in (1, 5):
        x = RNG.normal(size=(batch, 3, 4)).astype(np.float32)
        (actual,) = converted.predict({"x": x}).values()
        np.testing.assert_allclose(actual, x.reshape(batch, 12) @ constants["w"], rtol=1e-5)


STYLE = NETWORKS["style"]


def test_an_image_of_flexible_size_becomes_one(library: Callable[[str], Any]) -> None:
    session = library("onnxruntime").InferenceSession(STYLE.SerializeToString())
    image = mlferry.ImageType(shape=SHAPE, scale=1 / 255)
    result = mlferry.ImageType(name="y", scale=127.0, bias=127.0)
    converted = mlferry.convert(STYLE, inputs=[image], outputs=[result])
    described = converted.get_spec().description
    sizes = described.input[0].type.imageType.imageSizeRange
    assert (sizes.heightRange.lowerBound, sizes.widthRange.upperBound) == (8, 64)
    actual = described.output[0].type.imageType
    # stride 2 of the padded 20 pixels makes 9, repeated 2 and 3 times
    assert (actual.height, actual.width) == (18, 27)
    bounds = actual.imageSizeRange
    assert (bounds.heightRange.lowerBound, bounds.heightRange.upperBound) == (10, 66)
    assert (bounds.widthRange.lowerBound, bounds.widthRange.upperBound) == (15, 99)
    for size in ((9, 12), (20, 40)):
        pixels = RNG.integers(0, 256, (*size, 3)).astype(np.uint8)
        x = (pixels.transpose(2, 0, 1)[None] / 255).astype(np.float32)
        (expected,) = session.run(None, {"x": x})
        got = np.asarray(converted.predict({"x": pixels})["y"])
        expected = np.clip(expected[0].transpose(1, 2, 0) * 127 + 127, 0, 255)
        assert np.abs(got[..., :3] - expected).max() <= 0.51


def test_enumerated_shapes() -> None:
    shapes = mlferry.EnumeratedShapes([(1, 3, 16, 16), (1, 3, 24, 40)], default=(1, 3, 24, 40))
    converted = mlferry.convert(STYLE, inputs=[mlferry.TensorType(shape=shapes)])
    array = converted.get_spec().description.input[0].type.multiArrayType
    assert tuple(array.shape) == (1, 3, 24, 40)
    listed = [tuple(item.shape) for item in array.enumeratedShapes.shapes]
    assert listed == [(1, 3, 24, 40), (1, 3, 16, 16)]
    for shape in listed:
        converted.predict({"x": np.zeros(shape, np.float32)})
    with pytest.raises(PredictionError, match="x"):
        converted.predict({"x": np.zeros((1, 3, 20, 20), np.float32)})


def test_enumerated_sizes_of_images() -> None:
    shapes = mlferry.EnumeratedShapes([(1, 3, 16, 16), (1, 3, 24, 40)])
    converted = mlferry.convert(
        STYLE, inputs=[mlferry.ImageType(shape=shapes)], outputs=[mlferry.ImageType(name="y")]
    )
    inputs, result = (
        [(size.height, size.width) for size in feature.type.imageType.enumeratedSizes.sizes]
        for feature in (
            converted.get_spec().description.input[0], converted.get_spec().description.output[0]
        )
    )  # fmt: skip
    assert inputs == [(16, 16), (24, 40)]
    assert result == [(18, 27), (26, 63)]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: mlferry.EnumeratedShapes([]),
        lambda: mlferry.EnumeratedShapes([(1, 2), (1, 2, 3)]),
        lambda: mlferry.EnumeratedShapes([(1, 2)], default=(1, 3)),
        lambda: mlferry.EnumeratedShapes([(1, -2)]),
    ],
)
def test_enumerations_that_make_no_sense(wrong: Callable[[], Any]) -> None:
    with pytest.raises(ConversionError):
        wrong()


def test_sizes_that_a_layer_does_not_take() -> None:
    """The smallest size of the range is too small for the padding of the image output."""
    network = graph(("Conv", ["w"], {}), ("Conv", ["v"], {"dilations": [9, 9]}), w=W, v=W2)
    with pytest.raises(ConversionError, match="do not go through the network"):
        mlferry.convert(
            network, inputs=[mlferry.ImageType(shape=SHAPE)], outputs=[mlferry.ImageType(name="y")]
        )


def test_an_op_that_needs_the_size_names_itself() -> None:
    crop = {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}
    roi = np.float32([0, 0, 0.1, 0.2, 1, 1, 0.8, 0.9])
    network = graph(("Resize", ["r", "s"], crop), opset=18, s=SCALES, r=roi)
    with pytest.raises(ConversionError, match=r"is flexible and this op needs it: give fixed"):
        mlferry.convert(network, inputs=[mlferry.TensorType(shape=SHAPE)])
