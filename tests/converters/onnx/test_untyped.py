"""Files of IR version 1 and 2: attributes without types, models without an opset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper

import mlferry
from mlferry.errors import ModelFileError
from tests.converters.onnx.test_ops import CASES, model


def attributes(graph: onnx.GraphProto) -> Iterator[AttributeProto]:
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute
            yield from attributes(attribute.g)


def untyped(typed: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(typed)
    for attribute in attributes(result.graph):
        attribute.ClearField("type")
    return result


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.attributes])
def test_the_fields_tell(name: str) -> None:
    typed, _ = model(CASES[name])
    expected = mlferry.convert(typed).get_spec()
    assert mlferry.convert(untyped(typed)).get_spec() == expected


def network(nodes: list[onnx.NodeProto], opset: int | None, ir: int) -> onnx.ModelProto:
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 2, 4, 4]), ("y", None))
    ]
    result = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:]))
    del result.opset_import[:]
    if opset:
        result.opset_import.append(helper.make_opsetid("", opset))
    result.ir_version = ir
    return result


# What a writer leaves out, as it is the default of its format: 0, "" and lists without entries.
LEFT_OUT: list[tuple[str, dict[str, Any]]] = [
    ("Softmax", {"axis": 0}),
    ("Flatten", {"axis": 0}),
    ("LeakyRelu", {"alpha": 0.0}),
    ("ReduceSum", {"axes": [1], "keepdims": 0}),
]


@pytest.mark.parametrize(("op", "options"), LEFT_OUT)
def test_the_op_tells_where_nothing_is_held(op: str, options: dict[str, Any]) -> None:
    typed = network([helper.make_node(op, ["x"], ["y"], **options)], 1, 3)
    expected = mlferry.convert(typed).get_spec()
    converted = network([helper.make_node(op, ["x"], ["y"], **options)], None, 1)
    for attribute in attributes(converted.graph):
        for field in ("type", *(f for f in "if" if not getattr(attribute, f))):
            attribute.ClearField(field)
    assert mlferry.convert(converted.SerializeToString()).get_spec() == expected


def two_values(attribute: AttributeProto) -> None:
    attribute.i, attribute.f = 1, 0.5


def unknown_and_empty(attribute: AttributeProto) -> None:
    attribute.name = "what"
    attribute.ClearField("f")


BROKEN = [
    (two_values, r"'alpha' of LeakyRelu '\w*' holds values of 2 types"),
    (unknown_and_empty, "'what' of LeakyRelu '.*' holds no value, and has no type"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_what_nothing_tells_is_refused(change: Any, message: str) -> None:
    converted = untyped(network([helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.5)], None, 1))
    change(converted.graph.node[0].attribute[0])
    with pytest.raises(ModelFileError, match=message):
        mlferry.convert(converted)


def test_newer_files_tell_their_opset() -> None:
    with pytest.raises(ModelFileError, match="IR version 8 and no opset"):
        mlferry.convert(network([helper.make_node("Relu", ["x"], ["y"])], None, 8))
