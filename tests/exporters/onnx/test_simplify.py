"""What the graph of a network does without: nodes that change nothing, and what nobody reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlferry.exporters.onnx import export
from mlferry.runtime.session import Session
from mlferry.spec.proto import neural_network_pb2 as nn
from tests.exporters.onnx.support import run, spec_of
from tests.runtime.test_control_flow import Row, network

X = np.arange(24, dtype=np.float32).reshape(1, 4, 2, 3) - 7
DENSE: dict[str, Any] = {
    "inputChannels": 4, "outputChannels": 4, "weights": np.eye(4) * 2 - 1, "hasBias": True,
    "bias": np.arange(4) - 2,
}  # fmt: skip


def relu(source: str, target: str) -> Row:
    return "activation", [source], [target], {"ReLU": {}}


def turn(source: str, target: str, *axes: int) -> Row:
    return "transpose", [source], [target], {"axes": axes}


def reshape(source: str, target: str, *shape: int) -> Row:
    return "reshapeStatic", [source], [target], {"targetShape": shape}


# Rows of layers, and the nodes that are left.
EXACT: dict[str, tuple[list[Row], list[str]]] = {
    "reshapes one after the other": (
        [reshape("x", "a", 24), reshape("a", "b", 2, 12), reshape("b", "y", 4, 6)], ["Reshape"],
    ),
    "reshapes there and back": (
        [reshape("x", "a", 24), reshape("a", "b", 1, 4, 2, 3), relu("b", "y")], ["Relu"],
    ),
    "reshapes around an activation": (
        [reshape("x", "a", 4, 6), relu("a", "b"), reshape("b", "c", 1, 4, 2, 3), relu("c", "y")],
        ["Relu", "Relu"],
    ),
    "a number added between reshapes": (
        [reshape("x", "a", 4, 6), ("add", ["a"], ["b"], {"alpha": 2}), reshape("b", "y", 24)],
        ["Add", "Reshape"],
    ),
    "softmax along an axis that only gets neighbours of 1": (
        [("expandDims", ["x"], ["a"], {"axes": (1, 3)}),
         ("softmaxND", ["a"], ["b"], {"axis": 2}), ("squeeze", ["b"], ["y"], {"axes": (1, 3)})],
        ["Softmax"],
    ),
    "softmax along an axis that is split": (
        [reshape("x", "a", 2, 12), ("softmaxND", ["a"], ["b"], {"axis": 1}),
         reshape("b", "y", 1, 4, 2, 3)], ["Reshape", "Softmax", "Reshape"],
    ),
    "a value that two layers read in its new shape": (
        [reshape("x", "a", 4, 6), relu("a", "b"), ("add", ["a", "b"], ["y"], {})],
        ["Reshape", "Relu", "Add"],
    ),
    "transposes one after the other": (
        [turn("x", "a", 0, 2, 1, 3), turn("a", "y", 0, 3, 2, 1)], ["Transpose"],
    ),
    "an output that is a reshape of another output": (
        [relu("x", "y"), reshape("y", "z", 24), reshape("z", "w", 1, 4, 2, 3)],
        ["Relu", "Reshape", "Reshape"],
    ),
    "layers that nothing needs": (
        [relu("x", "y"), ("exp2", ["x"], ["unused"], {}), relu("unused", "more")], ["Relu"],
    ),
}  # fmt: skip


def results(result: nn.NeuralNetwork, x: np.ndarray) -> tuple[list[str], float]:
    """The nodes of the exported graph, and how far it is from the kernels."""
    names = [
        name for name in ("y", "z", "w") if any(name in layer.output for layer in result.layers)
    ]
    model = export(spec_of(result, {"x": x.shape}, names))
    expected = Session(result).run({"x": x}, names)
    actual = run(model, {"x": x})
    far = max(float(np.abs(actual[name] - expected[name]).max()) for name in names)
    assert all(actual[name].shape == expected[name].shape for name in names)
    return [node.op_type for node in model.graph.node], far


@pytest.mark.parametrize("name", EXACT)
def test_exact_mapping(name: str) -> None:
    rows, left = EXACT[name]
    nodes, far = results(network(*rows), X)
    assert nodes == left
    assert far < 1e-6


def wrapped(extent: int) -> list[Row]:
    return [
        ("lessThan", ["x"], ["below"], {"alpha": 0}),
        ("activation", ["below"], ["more"], {"linear": {"alpha": extent}}),
        ("addBroadcastable", ["x", "more"], ["places"], {}),
        ("loadConstantND", [], ["table"], {"shape": (4, 2), "data": np.arange(8)}),
        ("gather", ["table", "places"], ["y"], {}),
    ]


@pytest.mark.parametrize(("extent", "count"), [(4, 2), (3, 6)])
def test_negative_indices_are_left_to_onnx(extent: int, count: int) -> None:
    """Where layers add the extent of the axis to them; anything else is computed."""
    nodes, far = results(network(*wrapped(extent)), np.array([-1, 0, -2, 2], np.float32))
    assert (len(nodes), far) == (count, 0)


# The same in the classic mapping, where every blob has five axes.
CLASSIC: dict[str, tuple[list[Row], list[str]]] = {
    "dense layers": (
        [("flatten", ["x"], ["a"], {}), ("innerProduct", ["a"], ["b"], DENSE), relu("b", "c"),
         ("innerProduct", ["c"], ["d"], DENSE), ("softmax", ["d"], ["y"], {})],
        ["Reshape", "Gemm", "Relu", "Gemm", "Softmax", "Reshape"],
    ),
    "maps": (
        [("unary", ["x"], ["a"], {"type": "ABS"}), ("pooling", ["a"], ["b"], {
            "type": "MAX", "kernelSize": (1, 1), "stride": (1, 1), "valid": {}}),
         ("concat", ["a", "b"], ["y"], {})],
        ["Abs", "Reshape", "MaxPool", "Concat", "Unsqueeze"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSIC)
def test_classic_mapping(name: str) -> None:
    rows, left = CLASSIC[name]
    model = network(*rows)
    model.arrayInputShapeMapping = nn.RANK5_ARRAY_MAPPING
    nodes, far = results(model, X.reshape(1, 1, 4, 6, 1)[:, :, :, :1])
    assert nodes == left
    assert far < 1e-6
