"""The same networks in half precision, by their own frameworks.

Every value, weight and constant of them that was single is half, and so are the inputs: an
independent answer to what a network in half precision computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Data = Mapping[str, Array]


def rounded(data: Data) -> dict[str, Array]:
    """Values as halves; whole numbers of other types stay."""
    return {name: x.astype(np.float16) if x.dtype == np.float32 else x for name, x in data.items()}


# ---- ONNX --------------------------------------------------------------------------------------

_SINGLE_INPUTS = {"Resize": (1, 2)}  # what ONNX gives no other type


def onnx_model(model: Any) -> Any:
    """An ONNX model whose floats are halves."""
    import onnx

    half = onnx.ModelProto()
    half.CopyFrom(model)
    graphs = [half.graph]
    while graphs:
        graph = graphs.pop()
        kept = _names_of_single_inputs(graph)
        for ends in (graph.input, graph.output, graph.value_info):
            for end in ends:
                if end.name not in kept:
                    _halve_type(end.type.tensor_type)
        for tensor in graph.initializer:
            if tensor.name not in kept:
                _halve_tensor(tensor)
        graphs += _halve_nodes(graph.node)
    for function in half.functions:
        _halve_nodes(function.node)
    return half


def _names_of_single_inputs(graph: Any) -> set[str]:
    return {
        node.input[place]
        for node in graph.node
        for place in _SINGLE_INPUTS.get(node.op_type, ())
        if place < len(node.input)
    }


def _halve_nodes(nodes: Sequence[Any]) -> list[Any]:
    """The graphs inside are given back."""
    inner = []
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _halve_tensor(attribute.t)
            if attribute.HasField("g"):
                inner.append(attribute.g)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == 1:
                attribute.i = 10
    return inner


def _halve_type(kind: Any) -> None:
    if kind.elem_type == 1:
        kind.elem_type = 10


def _halve_tensor(tensor: Any) -> None:
    from onnx import numpy_helper

    if tensor.data_type == 1:
        array = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


# ---- Keras -------------------------------------------------------------------------------------


def keras_model(model: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """A model of Keras 2 or 3 whose layers have the dtype policy float16, with the same weights."""
    half = type(model).from_config(_halved(model.get_config()), custom_objects=custom_objects)
    half.set_weights(model.get_weights())
    return half


def _halved(config: Any) -> Any:
    if isinstance(config, Mapping):
        return {key: _halved(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(map(_halved, config))
    return "float16" if isinstance(config, str) and config == "float32" else config


# ---- TensorFlow --------------------------------------------------------------------------------

_SINGLE, _HALF = 1, 19  # of TensorFlow's types
_RENAMED = "_in_half"  # TensorFlow knows the functions of the graph in single precision
_SINGLE_ATTRIBUTES = {"FusedBatchNormV3": ("U",)}


def tensorflow_graph(graph: Any) -> Any:
    """A frozen GraphDef whose floats are halves; not every op of TensorFlow takes them."""
    half = type(graph)()
    half.CopyFrom(graph)
    for nodes in (half.node, *(function.node_def for function in half.library.function)):
        for node in nodes:
            for name, value in node.attr.items():
                if name not in _SINGLE_ATTRIBUTES.get(node.op, ()):
                    _halve_attribute(value)
    for function in half.library.function:
        function.signature.name += _RENAMED
        for argument in (*function.signature.input_arg, *function.signature.output_arg):
            if argument.type == _SINGLE:
                argument.type = _HALF
    return half


def _halve_attribute(value: Any) -> None:
    import tensorflow as tf

    if value.type == _SINGLE:
        value.type = _HALF
    for function in (value.func, *value.list.func):
        if function.name:
            function.name += _RENAMED
    for place, kind in enumerate(value.list.type):
        if kind == _SINGLE:
            value.list.type[place] = _HALF
    if value.HasField("tensor") and value.tensor.dtype == _SINGLE:
        array = tf.make_ndarray(value.tensor).astype(np.float16)
        value.tensor.CopyFrom(tf.make_tensor_proto(array))


def tensorflow_function(graph: Any, outputs: Mapping[str, str]) -> Any:
    """The function of a graph with the input "x" that gives its tensors by names of outputs."""
    import tensorflow as tf
    from tensorflow.python.eager.context import context

    for function in graph.library.function:  # an imported graph keeps them to itself
        context().add_function_def(function)

    def imported(x: Any) -> dict[str, Any]:
        matches = tf.graph_util.import_graph_def(
            graph, {"x": x}, [f"{name}:0" for name in outputs.values()], name="half"
        )
        return dict(zip(outputs, matches, strict=True))

    (shape,) = (node.attr["shape"].shape for node in graph.node if node.name == "x")
    kind = tf.TensorSpec(tf.TensorShape(shape), tf.float16, "x")
    return tf.function(imported, autograph=False).get_concrete_function(kind)
