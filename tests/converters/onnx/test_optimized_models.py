"""What onnxruntime's optimizer and its quantizers write of small models; it is the oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import mlferry
from mlferry.errors import ConversionError

RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


class Small(NamedTuple):
    """A model, and what it is given."""

    nodes: list[onnx.NodeProto]
    given: dict[str, np.ndarray]
    constants: dict[str, np.ndarray]
    outputs: list[str] = ["y"]
    free: dict[str, list[Any]] = {}  # shapes with names of axes

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [
                helper.make_tensor_value_info(
                    n, helper.np_dtype_to_tensor_dtype(x.dtype), self.free.get(n, x.shape)
                )
                for n, x in self.given.items()
            ],
            [helper.make_tensor_value_info(n, 1, None) for n in self.outputs],
            [numpy_helper.from_array(np.asarray(c), n) for n, c in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


node = helper.make_node


def normalized(source: str, target: str, scale: str, shift: str) -> Iterator[onnx.NodeProto]:
    """A layer normalization as exporters before opset 17 spell it."""
    yield node("ReduceMean", [source], [f"{target}_m"], axes=[-1])
    yield node("Sub", [source, f"{target}_m"], [f"{target}_c"])
    yield node("Pow", [f"{target}_c", "two"], [f"{target}_s"])
    yield node("ReduceMean", [f"{target}_s"], [f"{target}_v"], axes=[-1])
    yield node("Add", [f"{target}_v", "eps"], [f"{target}_e"])
    yield node("Sqrt", [f"{target}_e"], [f"{target}_r"])
    yield node("Div", [f"{target}_c", f"{target}_r"], [f"{target}_n"])
    yield node("Mul", [f"{target}_n", scale], [f"{target}_g"])
    yield node("Add", [f"{target}_g", shift], [target])


def gelu(source: str, target: str) -> Iterator[onnx.NodeProto]:
    yield node("Div", [source, "root2"], [f"{target}_d"])
    yield node("Erf", [f"{target}_d"], [f"{target}_e"])
    yield node("Add", [f"{target}_e", "one"], [f"{target}_a"])
    yield node("Mul", [source, f"{target}_a"], [f"{target}_p"])
    yield node("Mul", [f"{target}_p", "half"], [target])


def projected(source: str, name: str) -> Iterator[onnx.NodeProto]:
    yield node("MatMul", [source, f"w{name}"], [f"{name}_0"])
    yield node("Add", [f"{name}_0", f"b{name}"], [f"{name}_1"])


def headed(name: str, perm: list[int]) -> Iterator[onnx.NodeProto]:
    yield from projected("x", name)
    yield node("Reshape", [f"{name}_1", "split"], [f"{name}_2"])
    yield node("Transpose", [f"{name}_2"], [f"{name}_3"], perm=perm)


def transformer() -> Small:
    """One layer of a text encoder, as PyTorch's exporter writes it: ids, a mask, 2 heads of 4."""
    nodes = [
        node("Gather", ["words", "ids"], ["ew"]),
        node("Gather", ["segments", "types"], ["es"]),
        node("Add", ["ew", "es"], ["e1"]),
        node("Gather", ["places", "order"], ["ep"]),
        node("Add", ["e1", "ep"], ["e2"]),
        *normalized("e2", "x", "g0", "h0"),
        node("Unsqueeze", ["mask", "axis1"], ["m1"]),
        node("Unsqueeze", ["m1", "axis2"], ["m2"]),
        node("Cast", ["m2"], ["m3"], to=1),
        node("Sub", ["one", "m3"], ["m4"]),
        node("Mul", ["m4", "far"], ["m5"]),
        *headed("q", [0, 2, 1, 3]),
        *headed("k", [0, 2, 3, 1]),
        *headed("v", [0, 2, 1, 3]),
        node("MatMul", ["q_3", "k_3"], ["s0"]),
        node("Div", ["s0", "root"], ["s1"]),
        node("Add", ["s1", "m5"], ["s2"]),
        node("Softmax", ["s2"], ["s3"], axis=3),
        node("MatMul", ["s3", "v_3"], ["o0"]),
        node("Transpose", ["o0"], ["o1"], perm=[0, 2, 1, 3]),
        node("Reshape", ["o1", "joined"], ["o2"]),
        *projected("o2", "o"),
        node("Add", ["o_1", "x"], ["r0"]),
        *normalized("r0", "r1", "g1", "h1"),
        *projected("r1", "f"),
        *gelu("f_1", "f2"),
        *projected("f2", "p"),
        node("Add", ["p_1", "r1"], ["r2"]),
        *normalized("r2", "y", "g2", "h2"),
    ]
    sizes = {"q": (8, 8), "k": (8, 8), "v": (8, 8), "o": (8, 8), "f": (8, 16), "p": (16, 8)}
    constants: dict[str, Any] = {f"w{n}": normal(*shape) for n, shape in sizes.items()}
    constants |= {f"b{n}": normal(shape[1]) for n, shape in sizes.items()}
    constants |= {f"{letter}{i}": normal(8) for letter in "gh" for i in range(3)}
    constants |= {
        "words": normal(30, 8), "segments": normal(2, 8), "places": normal(9, 8),
        "order": np.arange(6)[None],
        "two": np.float32(2), "eps": np.float32(1e-5), "one": np.float32(1),
        "half": np.float32(0.5), "root2": np.float32(2**0.5), "root": np.float32(2),
        "far": np.float32(-10000), "axis1": np.array([1]), "axis2": np.array([2]),
        "split": np.array([0, 0, 2, 4]), "joined": np.array([0, 0, 8]),
    }  # fmt: skip
    inputs = {
        "ids": RNG.integers(0, 30, (2, 6)), "types": RNG.integers(0, 2, (2, 6)),
        "mask": np.array([[1, 1, 1, 1, 0, 0], [1] * 6]),
    }  # fmt: skip
    return Small(nodes, inputs, constants)


CONVOLUTIONS = Small(
    [
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1] * 4),
        node("BatchNormalization", ["c1", "s", "b1", "b1", "s"], ["n1"]),
        node("Relu", ["n1"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1] * 4),
        node("Add", ["c2", "x"], ["a"]),
        node("Relu", ["a"], ["r2"]),
        node("Conv", ["r2", "w1"], ["c3"], strides=[2, 2]),
        node("LeakyRelu", ["c3"], ["l"], alpha=0.2),
        node("Conv", ["l", "w2"], ["c4"]),
        node("Clip", ["c4", "zero", "six"], ["k"]),
        node("GlobalAveragePool", ["k"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "g1", "b1"], ["h"], transB=1),
        node("Relu", ["h"], ["hr"]),
        node("Gemm", ["hr", "g2", "b2"], ["y0"]),
        node("Sigmoid", ["y0"], ["y"]),
    ],
    {"x": normal(1, 3, 12, 12)},
    {"w1": normal(4, 3, 3, 3), "b1": normal(4), "s": np.abs(normal(4)) + 0.5,
     "w2": normal(3, 4, 3, 3), "b2": normal(3), "g1": normal(4, 3), "g2": normal(4, 3),
     "zero": np.float32(0), "six": np.float32(6)},
)  # fmt: skip
PRODUCTS = Small(
    [
        node("Transpose", ["a"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["t", "b"], ["p"]),
        node("Mul", ["p", "k"], ["q"]),
        node("Cast", ["q"], ["i"], to=7),
        node("Div", ["i", "three"], ["d"]),
        node("Cast", ["d"], ["y"], to=1),
    ],
    {"a": normal(2, 5, 4) * 9, "b": normal(2, 5, 3) * 9},
    {"k": np.float32(0.25), "three": np.array(3)},
)
RECURRENT = Small(
    [
        node("LSTM", ["x", "w", "r", "b"], ["s", "h", "c"], hidden_size=8),
        node("Squeeze", ["s", "one"], ["s1"]),
        node("MatMul", ["s1", "m"], ["y0"]),
        node("Add", ["y0", "v"], ["y"]),
    ],
    {"x": normal(7, 1, 6)},
    {"w": normal(1, 32, 6), "r": normal(1, 32, 8), "b": normal(1, 64), "one": np.array([1]),
     "m": normal(8, 5), "v": normal(5)},
)  # fmt: skip
MAPS = Small(
    [
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1] * 4),
        node("LeakyRelu", ["c1"], ["l1"], alpha=0.1),
        node("MaxPool", ["l1"], ["m1"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["m1", "w2", "b1"], ["c2"], pads=[1] * 4),
        node("Sigmoid", ["c2"], ["g"]),
        node("Mul", ["c2", "g"], ["sw"]),
        node("Add", ["sw", "m1"], ["a1"]),
        node("Concat", ["a1", "m1"], ["cc"], axis=1),
        node("AveragePool", ["cc"], ["ap"], kernel_shape=[2, 2]),
        node("GlobalAveragePool", ["ap"], ["gp"]),
        node("Flatten", ["gp"], ["f"]),
        node("Gemm", ["f", "g1", "b1"], ["h"]),
        node("MatMul", ["h", "g2"], ["z"]),
        node("Softmax", ["z"], ["y"]),
    ],
    {"x": normal(1, 3, 12, 12)},
    {"w1": normal(4, 3, 3, 3), "b1": normal(4), "w2": normal(4, 4, 3, 3), "g1": normal(8, 4),
     "g2": normal(4, 4)},
)  # fmt: skip


def optimized(
    model: onnx.ModelProto, path: Path, runtime: Any, level: str = "EXTENDED"
) -> onnx.ModelProto:
    """What onnxruntime writes of a model."""
    options = runtime.SessionOptions()
    levels = runtime.GraphOptimizationLevel
    options.graph_optimization_level = getattr(levels, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    runtime.InferenceSession(model.SerializeToString(), options)
    return onnx.load(path)


def ops(model: onnx.ModelProto) -> set[str]:
    return {n.op_type for n in model.graph.node}


def compare(model: onnx.ModelProto, inputs: dict[str, Any], runtime: Any, most: float) -> None:
    expected = runtime.InferenceSession(model.SerializeToString()).run(None, inputs)
    actual = mlferry.convert(model).predict(inputs).values()
    for got, right in zip(actual, expected, strict=True):
        assert got.shape == right.shape
        np.testing.assert_allclose(got, right, rtol=1e-4, atol=most)


FUSED: dict[str, tuple[Small, set[str]]] = {
    "a transformer": (transformer(), {"FusedMatMul", "Gelu", "SkipLayerNormalization"}),
    "convolutions": (CONVOLUTIONS, {"FusedConv", "FusedGemm"}),
    "products, and integers behind them": (PRODUCTS, {"FusedMatMul"}),
}


@pytest.mark.parametrize("name", list(FUSED))
def test_what_the_optimizer_writes(
    name: str, tmp_path: Path, library: Callable[[str], Any]
) -> None:
    runtime = library("onnxruntime")
    small, expected = FUSED[name]
    model = optimized(small.model(), tmp_path / "optimized.onnx", runtime)
    assert expected <= ops(model), sorted(ops(model))
    compare(model, small.given, runtime, 1e-5)


def test_what_the_optimizer_of_transformers_writes(
    tmp_path: Path, library: Callable[[str], Any]
) -> None:
    runtime, small = library("onnxruntime"), transformer()
    from onnxruntime.transformers.optimizer import optimize_model

    source = tmp_path / "model.onnx"
    onnx.save(small.model(), source)
    result = optimize_model(str(source), "bert", num_heads=2, hidden_size=8, opt_level=0).model
    expected = {"Attention", "SkipLayerNormalization", "BiasGelu"}
    assert expected <= ops(result), sorted(ops(result))
    compare(result, small.given, runtime, 1e-5)
    from onnxruntime.quantization import quantize_dynamic

    target = tmp_path / "quantized.onnx"
    result.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    quantize_dynamic(result, target, reduce_range=True, extra_options={"DefaultTensorType": 1})
    quantized = onnx.load(target)
    assert "QAttention" in ops(quantized)
    compare(quantized, small.given, runtime, 2e-2)


@pytest.mark.parametrize("name", ["recurrent", "a transformer"])
def test_dynamic_quantization(name: str, tmp_path: Path, library: Callable[[str], Any]) -> None:
    """Weights in 7 bits, as onnxruntime asks for where a processor has no VNNI: its products of
    bytes are cut off there; activations are rounded by their own ranges.
    """
    library("onnxruntime")
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    small = RECURRENT if name == "recurrent" else transformer()
    source, target = tmp_path / "model.onnx", tmp_path / "quantized.onnx"
    onnx.save(small.model(), source)
    quantize_dynamic(source, target, weight_type=QuantType.QInt8, reduce_range=True)
    quantized = onnx.load(target)
    compare(quantized, small.given, onnxruntime, 2e-2)
    result = optimized(quantized, tmp_path / "optimized.onnx", onnxruntime)
    assert any(n.domain for n in result.graph.node)
    compare(result, small.given, onnxruntime, 2e-2)


class _Samples:
    """What the quantizer is calibrated with."""

    def __init__(self, inputs: dict[str, np.ndarray]) -> None:
        self.left = [inputs]

    def get_next(self) -> Any:
        return self.left.pop() if self.left else None


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("kind", ["QUInt8", "QInt8"])
def test_static_quantization(
    form: str, kind: str, tmp_path: Path, library: Callable[[str], Any]
) -> None:
    library("onnxruntime")
    import onnxruntime
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    reader = type("Reader", (_Samples, CalibrationDataReader), {})(MAPS.given)
    source, target = tmp_path / "model.onnx", tmp_path / "quantized.onnx"
    onnx.save(MAPS.model(), source)
    quantize_static(
        source, target, reader, quant_format=QuantFormat[form], activation_type=QuantType[kind],
        weight_type=QuantType.QInt8, per_channel=True,
    )  # fmt: skip
    quantized = onnx.load(target)
    compare(quantized, MAPS.given, onnxruntime, 2e-2)
    for level in ("EXTENDED", "ALL"):
        result = optimized(quantized, tmp_path / "optimized.onnx", onnxruntime, level)
        assert any(n.domain for n in result.graph.node), sorted(ops(result))
        compare(result, MAPS.given, onnxruntime, 2e-2)


def test_what_is_arranged_for_one_processor_says_how_to_write_it_again() -> None:
    nodes = [node("Conv", ["x", "w"], ["y"], domain="com.microsoft.nchwc")]
    network = Small(nodes, {"x": normal(1, 8, 4, 4)}, {"w": normal(8, 8, 1, 1)}).model()
    network.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    with pytest.raises(ConversionError, match="ORT_ENABLE_EXTENDED"):
        mlferry.convert(network)
