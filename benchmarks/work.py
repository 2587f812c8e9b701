"""What a processor can do, and how much of that a network needs."""

from __future__ import annotations

import platform
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import shape_inference

FEATURES = ("avx2", "fma", "avx512f", "asimd", "sve")


def processor() -> str:
    """Its name, and the features that matter to products."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    entries = {key.strip(): value.split() for key, _, value in (x.partition(":") for x in lines)}
    flags = {*entries.get("flags", ()), *entries.get("Features", ())}
    name = " ".join(entries.get("model name", [platform.machine()]))
    return ", ".join([name, *(feature for feature in FEATURES if feature in flags)])


def rate_of_product(size: int = 1000, runs: int = 10) -> float:
    """Multiplications and additions a second of NumPy's product of two square matrices."""
    left, right = np.random.default_rng(0).normal(0, 1, (2, size, size)).astype(np.float32)
    out = left @ right
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        np.matmul(left, right, out=out)
        best = min(best, time.perf_counter() - start)
    return float(2 * size**3 / best)


def operations(model: onnx.ModelProto) -> int:
    """Multiplications and additions of the products of an ONNX model, whose shapes are fixed."""
    graph = shape_inference.infer_shapes(model).graph
    shapes = {x.name: tuple(x.dims) for x in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    return 2 * sum(_multiplications(node, shapes) for node in graph.node)


def _multiplications(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    inputs = [shapes.get(name, ()) for name in node.input]
    result = int(np.prod(shapes.get(node.output[0], ())))
    if node.op_type == "Conv":
        return result * int(np.prod(inputs[1][1:]))
    if node.op_type == "ConvTranspose":
        return int(np.prod(inputs[0])) * int(np.prod(inputs[1][1:]))
    if node.op_type in ("MatMul", "Gemm"):
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return result * inputs[0][-2 if transposed else -1]
    if node.op_type == "LSTM":
        steps, batch, _ = inputs[0]
        return steps * batch * int(np.prod(inputs[1]) + np.prod(inputs[2]))
    return 0
