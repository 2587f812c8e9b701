"""Conversion functions with the signatures of coremltools' converters of 2018."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mlferry
from mlferry.errors import ConversionError
from mlferry.proto import NeuralNetwork_pb2

Library = Callable[[str], Any]
X = np.linspace(-2, 2, 24, dtype=np.float32).reshape(1, 2, 3, 4)
TABLE = np.array([2.0, 3.0], np.float32)


class Scaled(mlferry.CustomLayer):
    """factor * x * table, along the second axis."""

    def evaluate(self, inputs: Any) -> Any:
        table = np.asarray(self.weights[0], np.float32).reshape(1, 2, 1, 1)
        return [self.parameters["factor"] * inputs[0] * table]


CLASSES = {"Scaled": Scaled}


def params_of(factor: float, table: np.ndarray) -> Any:
    params = NeuralNetwork_pb2.CustomLayerParams()
    params.className = "Scaled"
    params.parameters["factor"].doubleValue = factor
    weight = params.weights.add()
    weight.floatValue.extend(map(float, table))
    return params


# ---- ONNX: f(builder, node, graph, err) ------------------------------------------------


def network() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Mine", ["r", "table"], ["m"], "mine", domain="own", factor=1.5),
        helper.make_node("Abs", ["m"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, X.shape) for n in ("x", "y")]
    graph = helper.make_graph(
        nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(TABLE, "table")]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def as_custom_layer(builder: Any, node: Any, graph: Any, err: Any) -> None:
    assert (node.op_type, node.name) == ("Mine", "mine")
    assert node.inputs == ["r", "table"]
    assert graph.shape_dict["r"] == X.shape
    params = params_of(node.attrs["factor"], node.input_tensors["table"])
    builder.add_custom(
        name=node.name, input_names=node.inputs[:1], output_names=node.outputs,
        custom_proto_spec=params,
    )  # fmt: skip


def as_layers(builder: Any, node: Any, graph: Any, err: Any) -> None:
    table = node.input_tensors["table"].reshape(2, 1, 1) * node.attrs["factor"]
    builder.add_load_constant_nd(
        name=f"{node.name}_table", output_name=f"{node.name}_table", constant_value=table,
        shape=table.shape,
    )  # fmt: skip
    builder.add_multiply_broadcastable(
        name=node.name, input_names=[node.inputs[0], f"{node.name}_table"],
        output_name=node.outputs[0],
    )  # fmt: skip


def refused(builder: Any, node: Any, graph: Any, err: Any) -> None:
    err.unsupported_op_configuration(builder, node, graph, "factor must be 1")


def silent(builder: Any, node: Any, graph: Any, err: Any) -> None:
    """Adds nothing."""


def wrong(builder: Any, node: Any, graph: Any, err: Any) -> None:
    builder.add_softmax(name=node.name, input="x", output="y")


@pytest.mark.parametrize("function", [as_custom_layer, as_layers])
@pytest.mark.parametrize("key", ["Mine", "mine"])
def test_onnx(function: Any, key: str) -> None:
    converted = mlferry.convert(network(), custom_conversion_functions={key: function})
    model = mlferry.MLModel(converted.get_spec(), custom_layers=CLASSES)
    (y,) = model.predict({"x": X}).values()
    expected = np.abs(1.5 * np.maximum(X, 0) * TABLE.reshape(1, 2, 1, 1))
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (refused, "Mine 'mine': factor must be 1"),
        (silent, "silent made no value 'm'"),
        (wrong, r"wrong raised TypeError: add_softmax\(\)"),
    ],
)
def test_what_an_onnx_function_must_not_do(function: Any, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        mlferry.convert(network(), custom_conversion_functions={"Mine": function})


# ---- TensorFlow: f(op=, nn_builder=, context=, constant_inputs=) -----------------------


def by_keywords(**kwargs: Any) -> None:
    op, builder, context = kwargs["op"], kwargs["nn_builder"], kwargs["context"]
    constants = kwargs["constant_inputs"]
    assert op.type == "Cumsum"
    table = np.array([1.0, 1.0])
    params = params_of(float(constants[op.inputs[1].name]) + 1.0, table)
    builder.add_custom(
        name=op.name, input_names=[op.inputs[0].name], output_names=[op.outputs[0].name],
        custom_proto_spec=params,
    )  # fmt: skip
    context.translated[op.outputs[0].name] = True


def by_names(op: Any, nn_builder: Any, context: Any, constant_inputs: Any) -> None:
    assert op.get_attr("reverse") is False
    nn_builder.add_activation(
        op.name, "LINEAR", op.inputs[0].name, op.outputs[0].name, params=[2.0, 0.0]
    )


@pytest.mark.parametrize("function", [by_keywords, by_names])
def test_tensorflow(function: Any, library: Library) -> None:
    tf = library("tensorflow")

    @tf.function(input_signature=[tf.TensorSpec(X.shape, name="x")])  # type: ignore[misc]
    def source(x: Any) -> Any:
        return tf.abs(tf.cumsum(tf.nn.relu(x), axis=1))

    converted = mlferry.convert(source, custom_conversion_functions={"Cumsum": function})
    model = mlferry.MLModel(converted.get_spec(), custom_layers=CLASSES)
    (y,) = model.predict({"x": X}).values()
    np.testing.assert_allclose(y, 2 * np.maximum(X, 0), rtol=1e-6)  # what the functions say
