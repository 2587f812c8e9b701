"""Quantized products, blocks, and activations that are rounded; onnxruntime is the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mlferry
from mlferry.errors import ConversionError
from mlferry.spec import weights

RNG = np.random.default_rng(3)


def model(
    nodes: list[onnx.NodeProto], shape: tuple[int, ...], *, opset: int = 21, **constants: Any
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    result = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(result)


def ints(kind: str, *shape: int) -> np.ndarray:
    least, most = np.iinfo(kind).min, np.iinfo(kind).max
    return RNG.integers(least, most + 1, shape).astype(kind)


def scales(*shape: int) -> np.ndarray:
    return RNG.uniform(0.01, 0.05, shape).astype(np.float32)


node = helper.make_node
# The weights of QLinearConv are halved: on processors without VNNI, onnxruntime adds products of
# uint8 and int8 in 16 bits, which saturate.
ROUNDED = [node("QuantizeLinear", ["x", "xs", "xz"], ["q"])]
BACK = [node("DequantizeLinear", ["r", "ys", "yz"], ["y"])]
X = {"xs": np.float32(0.03), "xz": np.uint8(120)}
Y = {"ys": np.float32(0.2), "yz": np.uint8(110)}
WHOLE = [node("Cast", ["r"], ["y"], to=TensorProto.FLOAT)]
PRODUCTS: dict[str, onnx.ModelProto] = {
    "MatMulInteger": model(
        [*ROUNDED, node("MatMulInteger", ["q", "w", "xz", "wz"], ["r"]), *WHOLE], (4, 6),
        **X, w=ints("int8", 6, 5), wz=np.int8(3),
    ),
    "MatMulInteger of zero points by column": model(
        [*ROUNDED, node("MatMulInteger", ["q", "w", "xz", "wz"], ["r"]), *WHOLE], (4, 6),
        **X, w=ints("uint8", 6, 5), wz=ints("uint8", 5),
    ),
    "ConvInteger": model(
        [*ROUNDED, node("ConvInteger", ["q", "w", "xz"], ["r"], pads=[1, 1, 1, 1]), *WHOLE],
        (1, 2, 5, 6), **X, w=ints("uint8", 3, 2, 3, 3),
    ),
    "QLinearMatMul": model(
        [*ROUNDED, node("QLinearMatMul", ["q", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["r"]),
         *BACK], (4, 6), **X, **Y, w=ints("uint8", 6, 5), ws=np.float32(0.02), wz=np.uint8(120),
    ),
    "QLinearConv": model(
        [*ROUNDED, node("QLinearConv", ["q", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["r"],
                        strides=[2, 1]), *BACK],
        (1, 2, 7, 6), **X, **Y, w=ints("int8", 3, 2, 3, 3) // 2, ws=scales(3),
        wz=np.zeros(3, np.int8), b=RNG.integers(-500, 500, 3).astype(np.int32),
    ),
    "DynamicQuantizeLinear": model(
        [node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
         node("MatMulInteger", ["q", "w", "z"], ["r"]), node("Cast", ["r"], ["f"], to=1),
         node("Mul", ["f", "s"], ["y"])], (4, 6), w=ints("int8", 6, 5),
    ),
}  # fmt: skip
# half a step of the result where it is rounded to 8 bits: a value between two may go either way
STEPS = {"QLinearMatMul": 0.2, "QLinearConv": 0.2}


@pytest.mark.parametrize("name", list(PRODUCTS))
def test_products(name: str, library: Callable[[str], Any]) -> None:
    network = PRODUCTS[name]
    session = library("onnxruntime").InferenceSession(network.SerializeToString())
    converted = mlferry.convert(network)
    stored = [weights.encoding(w.message) for w in weights.iter_weights(converted.get_spec())]
    assert weights.Encoding("linear", 8) in stored
    shape = [d.dim_value for d in network.graph.input[0].type.tensor_type.shape.dim]
    x = RNG.normal(0, 2, shape).astype(np.float32)
    (expected,) = session.run(None, {"x": x})
    (actual,) = converted.predict({"x": x}).values()
    far = np.abs(actual - expected) > 1e-4 * np.abs(expected).max()
    assert far.mean() <= 0.01
    assert np.abs(actual - expected).max() <= STEPS.get(name, 1e-4 * np.abs(expected).max()) + 1e-5


def test_weights_in_blocks_become_floats() -> None:
    codes, step = ints("int8", 6, 4), scales(3, 4)
    network = model(
        [node("DequantizeLinear", ["q", "s"], ["w"], axis=0, block_size=2),
         node("MatMul", ["x", "w"], ["y"])], (2, 6), q=codes, s=step,
    )  # fmt: skip
    x = RNG.normal(size=(2, 6)).astype(np.float32)
    (actual,) = mlferry.convert(network).predict({"x": x}).values()
    np.testing.assert_allclose(actual, x @ (codes * np.repeat(step, 2, 0)), rtol=1e-5, atol=1e-5)


FAKE = model(
    [*ROUNDED, node("DequantizeLinear", ["q", "xs", "xz"], ["f"]),
     node("DequantizeLinear", ["k", "ws"], ["w"]), node("MatMul", ["f", "w"], ["y"])],
    (2, 6), **X, k=ints("int8", 6, 4), ws=np.float32(0.02),
)  # fmt: skip


def test_rounding_of_activations_is_kept_or_dropped() -> None:
    x = RNG.normal(size=(2, 6)).astype(np.float32)
    matrix = onnx.numpy_helper.to_array(FAKE.graph.initializer[2]) * np.float32(0.02)
    rounded = (np.clip(np.rint(x / X["xs"]) + 120, 0, 255) - 120) * X["xs"]
    for option, expected in (("keep", rounded @ matrix), ("drop", x @ matrix)):
        converted = mlferry.convert(FAKE, activation_quantization=option)
        (actual,) = converted.predict({"x": x}).values()
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
        spec = converted.get_spec()
        kinds = [layer.WhichOneof("layer") for layer in spec.neuralNetwork.layers]
        assert ("round" in kinds) == (option == "keep")
        assert [w.message.quantization.numberOfBits for w in weights.iter_weights(spec)
                if w.message.HasField("quantization")] == [8]  # fmt: skip
    with pytest.raises(ConversionError, match="keep or drop"):
        mlferry.convert(FAKE, activation_quantization="maybe")


def test_integers_that_are_read_as_such_are_never_dropped() -> None:
    network = PRODUCTS["MatMulInteger"]
    x = RNG.normal(size=(4, 6)).astype(np.float32)
    actual = [
        next(iter(mlferry.convert(network, activation_quantization=o).predict({"x": x}).values()))
        for o in ("keep", "drop")
    ]
    np.testing.assert_array_equal(*actual)
