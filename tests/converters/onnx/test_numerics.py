"""The ends of float32, sizes of 0 and 1, and long sequences: as onnxruntime, or refused."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import mlferry
from mlferry.errors import MlferryError

Array = np.ndarray[Any, Any]
ENDS = np.array(
    [0, -0.0, 1, -1, 0.5, -2.5, 1e-45, -1e-45, 1e-38, 3e38, -3e38, np.inf, -np.inf, np.nan, 88.8,
     -104, 700, 0.49999997, 2.5, 1.5], np.float32,
)  # fmt: skip
LEFT, RIGHT = (side.ravel().copy() for side in np.meshgrid(ENDS, ENDS))
ROWS = np.stack([np.roll(ENDS, shift) for shift in range(20)])[:, :3].copy()
FINITE = ROWS[np.isfinite(ROWS).all(axis=1)]
NUMBERS = ROWS[~np.isnan(ROWS).any(axis=1)]
LAST = np.array([1])


def model(op: str, inputs: list[Array], constants: list[Any], attributes: dict[str, Any]) -> Any:
    names = [f"i{index}" for index in range(len(inputs))]
    held = [f"c{index}" for index in range(len(constants))]
    graph = helper.make_graph(
        [helper.make_node(op, names + held, ["y"], **attributes)], "g",
        [helper.make_tensor_value_info(n, 1, list(a.shape))
         for n, a in zip(names, inputs, strict=True)],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.asarray(c), n) for c, n in zip(constants, held, strict=True)],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def both(proto: Any, inputs: list[Array]) -> tuple[Array, Array]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    feeds = {f"i{index}": array for index, array in enumerate(inputs)}
    expected = np.asarray(session.run(None, feeds)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        actual = np.asarray(mlferry.convert(proto).predict(feeds)["y"])
    return actual.reshape(expected.shape), expected


def same(result: Array, expected: Array) -> None:
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


UNARY = ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Abs", "Neg", "Ceil", "Floor", "Sign",
         "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh",
         "Erf", "HardSwish", "Mish", "Selu", "Round", "Exp", "Log", "Sqrt", "Reciprocal",
         "HardSigmoid", "Elu", "Celu", "LeakyRelu", "Identity", "ThresholdedRelu")  # fmt: skip


@pytest.mark.parametrize("op", UNARY)
def test_each_value(op: str) -> None:
    version = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
    if op == "Erf" and version < (1, 32):
        pytest.skip(f"onnxruntime {onnxruntime.__version__} makes a number of what is none")
    # a value that is not a number is under every threshold for onnxruntime alone
    inputs = [ENDS[~np.isnan(ENDS)] if op == "ThresholdedRelu" else ENDS]
    same(*both(model(op, inputs, [], {}), inputs))


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Pow", "Min", "Max"])
def test_each_pair(op: str) -> None:
    same(*both(model(op, [LEFT, RIGHT], [], {}), [LEFT, RIGHT]))


# Where a value is not a number, onnxruntime's own extremes depend on the order; ours show it.
REDUCED = [
    *((op, ROWS) for op in ("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceLogSum",
                            "ReduceProd", "ReduceSumSquare")),
    *((op, NUMBERS) for op in ("ReduceMax", "ReduceMin", "ReduceLogSumExp")),
    *((op, np.full((3, 4), 3e38, np.float32)) for op in ("ReduceSum", "ReduceLogSumExp")),
]  # fmt: skip


@pytest.mark.parametrize(("op", "inputs"), REDUCED)
def test_reductions(op: str, inputs: Array) -> None:
    same(*both(model(op, [inputs], [LAST], {}), [inputs]))


# The logarithm beside an infinity is not a number for onnxruntime, minus infinity here.
@pytest.mark.parametrize(
    ("op", "inputs"), [("Softmax", ROWS), ("LogSoftmax", FINITE), ("LpNormalization", ROWS)]
)
def test_rows(op: str, inputs: Array) -> None:
    same(*both(model(op, [inputs], [], {"axis": -1}), [inputs]))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_windows(op: str) -> None:
    inputs = np.nan_to_num(np.tile(ENDS, 5), nan=1.0, posinf=np.inf, neginf=-np.inf)
    image = inputs.reshape(1, 1, 10, 10).astype(np.float32)
    same(*both(model(op, [image], [], {"kernel_shape": [2, 2]}), [image]))


EMPTY = [(0,), (1, 0), (0, 3), (2, 0, 3), (1, 3, 0, 4)]


@pytest.mark.parametrize("shape", EMPTY)
@pytest.mark.parametrize("op", ["Relu", "Softmax", "ReduceSum", "ReduceMax", "Transpose"])
def test_values_without_elements_are_refused(op: str, shape: tuple[int, ...]) -> None:
    """Core ML has no blob of no elements; an input's extent of 0 stands for a free axis."""
    network = model(op, [np.zeros(shape, np.float32)], [], {})
    kind = mlferry.TensorType(shape=shape)
    with pytest.raises(MlferryError, match=r"shape.*0|extents are positive|no elements"):
        mlferry.convert(network, inputs=[kind])
    constant = onnx.helper.make_tensor("i0", onnx.TensorProto.FLOAT, shape, [])
    inner = onnx.ModelProto()
    inner.CopyFrom(network)
    inner.graph.initializer.append(constant)
    if op.startswith("Reduce"):  # of a constant: what is left has elements
        same(*both(inner, []))
        return
    with pytest.raises(MlferryError, match=r"shape.*0|extents are positive|no elements"):
        mlferry.convert(inner)


@pytest.mark.parametrize("count", [1, 2, 20_000])
def test_lengths(count: int, rng: np.random.Generator) -> None:
    weights = [rng.standard_normal((1, 8, 2)).astype(np.float32) for _ in range(2)]
    rows: list[tuple[str, tuple[int, ...], list[Any], dict[str, Any]]] = [
        ("LSTM", (count, 1, 2), weights, {"hidden_size": 2}),
        ("CumSum", (count,), [np.int64(0)], {}),
        ("Softmax", (1, count), [], {}),
        ("GlobalAveragePool", (1, 2, count), [], {}),
        ("Conv", (1, 2, count), [np.ones((1, 2, 1), np.float32)], {}),
    ]
    for op, shape, constants, attributes in rows:
        inputs = [rng.standard_normal(shape).astype(np.float32)]
        actual, expected = both(model(op, inputs, constants, attributes), inputs)
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-3, err_msg=op)
