"""Suggestions for shapes that a file leaves open: followed literally, the model predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import helper

import mlferry
from mlferry.errors import ConversionError, OpenShapesError

node = helper.make_node


class Row(NamedTuple):
    """A model: its nodes, the shapes of its inputs, what is suggested for those that need it."""

    nodes: Sequence[onnx.NodeProto]
    inputs: dict[str, list[Any]]
    suggested: dict[str, tuple[int, ...]]


ROWS: dict[str, Row] = {
    "a state beside a sequence": Row(
        [node("Add", ["x", "state"], ["y"])],
        {"x": ["batch", "sequence"], "state": [2, "batch", "sequence"]},
        {"x": (1, 16), "state": (2, 1, 16)},
    ),
    "a state alone": Row(
        [node("Relu", ["state"], ["y"])], {"state": [2, "batch", 128]}, {"state": (2, 1, 128)}
    ),
    "a state beside a fixed batch": Row(
        [node("Add", ["x", "state"], ["y"])], {"x": ["n", 5], "state": [2, "n", 5]},
        {"state": (2, 1, 5)},
    ),
    "a picture": Row(
        [node("GlobalAveragePool", ["x"], ["y"])], {"x": ["batch", 3, "height", "width"]},
        {"x": (1, 3, 224, 224)},
    ),
    "a picture without names": Row(
        [node("GlobalAveragePool", ["x"], ["y"])], {"x": [None, None, None, None]},
        {"x": (1, 3, 224, 224)},
    ),
    "a mask beside a picture": Row(
        [node("ReduceMean", ["x"], ["g"], axes=[1], keepdims=0), node("Mul", ["g", "m"], ["y"])],
        {"x": ["b", 3, "h", "w"], "m": ["b", "h", "w"]},
        {"x": (1, 3, 224, 224), "m": (1, 224, 224)},
    ),
    "keys of the past": Row(
        [node("Concat", ["past", "new"], ["k"], axis=2), node("Unsqueeze", ["m", "a"], ["m4"]),
         node("Mul", ["k", "m4"], ["y"])],
        {"past": ["batch", 2, "past_length", 4], "new": ["batch", 2, "length", 4],
         "m": ["batch", "past_length + length"]},
        {"past": (1, 2, 16, 4), "new": (1, 2, 16, 4), "m": (1, 32)},
    ),
    "features of many channels": Row(
        [node("Relu", ["x"], ["y"])], {"x": ["batch", 64, "h", "w"]}, {"x": (1, 64, 16, 16)}
    ),
    "a line of sound": Row(
        [node("Relu", ["x"], ["y"])], {"x": [1, "samples"]}, {"x": (1, 16)}
    ),
}  # fmt: skip


def model(row: Row) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(row.nodes),
        "g",
        [helper.make_tensor_value_info(n, 1, shape) for n, shape in row.inputs.items()],
        [helper.make_tensor_value_info("y", 1, None)],
        [helper.make_tensor("a", 7, [2], [1, 3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def error_of(row: Row, **options: Any) -> OpenShapesError:
    with pytest.raises(OpenShapesError) as caught:
        mlferry.convert(model(row), **options)
    return caught.value


@pytest.mark.parametrize("name", list(ROWS))
def test_suggestions_convert_and_predict(name: str) -> None:
    row = ROWS[name]
    error = error_of(row)
    assert error.shapes == row.suggested
    line = next(line for line in str(error).splitlines() if line.startswith("give them: "))
    written = line.removeprefix("give them: mlferry.convert(..., inputs=").split("; mlferry.")[0]
    inputs = eval(written.removesuffix(")"), {"mlferry": mlferry})
    converted = mlferry.convert(model(row), inputs=inputs)
    sample = {
        feature.name: np.zeros(feature.type.multiArrayType.shape, np.float32)
        for feature in converted.get_spec().description.input
    }
    assert converted.predict(sample)["y"].size


def test_axes_are_shown_by_their_names() -> None:
    message = str(error_of(ROWS["a state beside a sequence"]))
    assert "- state: (2, batch, sequence)" in message
    assert "mlferry.RangeDim" in message


def test_what_is_given_counts_for_the_same_name() -> None:
    row = ROWS["a state beside a sequence"]
    inputs = [mlferry.TensorType("x", shape=(3, mlferry.RangeDim(2, 9, 5)))]
    assert error_of(row, inputs=inputs).shapes == {"state": (2, 3, 5)}


def _constant(name: str, value: Any) -> onnx.NodeProto:
    return node("Constant", [], [name], value=helper.make_tensor(name, 7, np.shape(value),
                                                                 np.ravel(value)))  # fmt: skip


def optional(compared: int) -> onnx.ModelProto:
    """One of two networks by a rate; only one takes the input."""
    ways = [
        helper.make_graph(
            [node("Reshape", ["x", shape], [f"{way}0"])], way, [],
            [helper.make_tensor_value_info(f"{way}0", 1, None)],
        )
        for way, shape in (("then", "s1"), ("else", "s2"))
    ]  # fmt: skip
    graph = helper.make_graph(
        [
            _constant("s1", [1, 512]), _constant("s2", [1, 256]), _constant("k", compared),
            node("Equal", ["sr", "k"], ["c"]),
            node("If", ["c"], ["y"], then_branch=ways[0], else_branch=ways[1]),
        ],
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 512]),
         helper.make_tensor_value_info("sr", 7, [])],
        [helper.make_tensor_value_info("y", 1, None)],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def test_a_condition_on_an_input_that_is_always_the_same() -> None:
    """The error names the way on, which converts when it is typed."""
    network = optional(16000)
    with pytest.raises(ConversionError, match="512 elements") as caught:
        mlferry.convert(network)
    message = str(caught.value)
    assert "the branch 'else' of a condition" in message
    written = message.split("inputs=")[1].splitlines()[0]
    assert written == "[mlferry.TensorType('sr', value=16000)]"
    converted = mlferry.convert(network, inputs=eval(written, {"mlferry": mlferry}))
    x = np.arange(512, dtype=np.float32)[None]
    np.testing.assert_array_equal(converted.predict({"x": x})["y"], x)
