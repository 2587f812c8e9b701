"""Conversion functions as coremltools' converters of 2018 called them, whose bodies add layers.

- ONNX: ``f(builder, node, graph, err)``
- TensorFlow: ``f(op=, nn_builder=, context=, constant_inputs=)``

They use the source's names of values, which the builder replaces by mlferry's blobs. Data have the
source's own axes (exact array mapping), unlike the five axes of that time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from mlferry.converters.graph import Node
from mlferry.converters.values import Constant
from mlferry.errors import ConversionError
from mlferry.layers.builder import Builder
from mlferry.layers.methods import LayerMethods, NewLayer
from mlferry.spec.proto import neural_network_pb2 as nn

if TYPE_CHECKING:
    import onnx


def is_classic(function: Callable[..., Any], framework: str) -> bool:
    """Whether a function has the signature of the framework's converter of that time."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    kinds = {p.kind for p in parameters}
    if framework == "ONNX":
        return len(parameters) == 4 and kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    names = {p.name for p in parameters}
    takes_all = kinds == {inspect.Parameter.VAR_KEYWORD}
    return framework == "TensorFlow" and (takes_all or {"op", "nn_builder"} <= names)


class ClassicBuilder(LayerMethods):
    """Adds layers under coremltools' names between blobs of a network that is being built.

    Args:
        builder: of the network.
        names: the blobs, by the source's names of values.
        shapes_of_custom: returns the shapes of a custom layer's outputs.
    """

    def __init__(
        self,
        builder: Builder,
        names: Mapping[str, str],
        shapes_of_custom: Callable[[nn.CustomLayerParams, Sequence[str]], Any],
    ) -> None:
        self._builder, self._names = builder, dict(names)
        self._shapes_of_custom = shapes_of_custom

    @property
    def nn_spec(self) -> nn.NeuralNetwork:
        """The network so far."""
        return self._builder.network

    def add(
        self, name: str, inputs: Sequence[str], outputs: Sequence[str], layer: NewLayer
    ) -> nn.NeuralNetworkLayer:
        """Add a layer; see `LayerMethods`."""
        params, options = layer.params, {}
        values = [self._names.get(text, text) for text in inputs]
        if isinstance(params, Message):
            message = nn.CustomLayerParams.FromString(params.SerializeToString())
            options["output_shapes"] = self._shapes_of_custom(message, values)
            params = {
                "className": message.className,
                "description": message.description,
                "parameters": dict(message.parameters),
                "weights": list(message.weights),
            }
        results = [self._names.get(text, text) for text in outputs]
        label = self._builder.unused_layer(name) if self._builder.is_taken(name) else name
        return self._builder.layer(layer.kind, label, values, results, **options, **params)


def run(
    function: Callable[..., Any],
    node: Node,
    builder: ClassicBuilder,
    inputs: Sequence[Any],
    framework: str,
    guarded: Callable[..., Any],
) -> None:
    """Call a classic function.

    Args:
        node: of the source.
        inputs: the blobs and constants of the node, as it reads them.
        framework: whose signature it has.
        guarded: calls it, and turns what it raises into an error of ours.
    """
    constants = {
        value.name: x.array
        for value, x in zip(node.inputs, inputs, strict=True)
        if isinstance(x, Constant)
    }
    shapes = {
        value.name: x.array.shape if isinstance(x, Constant) else x.source_shape
        for value, x in zip(node.inputs, inputs, strict=True)
        if x is not None
    }
    if framework == "ONNX":
        onnx_node = SimpleNamespace(
            name=node.name,
            op_type=node.op.rsplit(".", 1)[-1],
            attrs=node.get_config(),
            inputs=[v.name for v in node.inputs if v.name],
            outputs=[v.name for v in node.outputs],
            input_tensors=constants,
            parents=[],
            children=[],
            metadata={},
        )
        graph = SimpleNamespace(
            shape_dict=shapes,
            onnx_coreml_shape_mapping={},
            nodes=[onnx_node],
            constants_loaded=set(),
            inputs=[],
            outputs=[],
        )
        guarded(function, builder, onnx_node, graph, _Errors())
        return
    context = SimpleNamespace(translated={}, shape_dict=shapes, builder=builder)
    arguments = {
        "op": _Operation(node, shapes),
        "nn_builder": builder,
        "context": context,
        "constant_inputs": constants,
    }
    names = inspect.signature(function).parameters
    takes_all = any(p.kind == p.VAR_KEYWORD for p in names.values())
    remaining = arguments if takes_all else {k: v for k, v in arguments.items() if k in names}
    guarded(lambda: function(**remaining))


class _Errors:
    """What ONNX functions report to."""

    def __init__(self) -> None:
        self.custom_layer_nodes: list[Any] = []

    def unsupported_op_configuration(
        self, builder: object, node: onnx.NodeProto, graph: object, err_message: str
    ) -> None:
        """Refuse the node.

        Raises:
            ConversionError: always.
        """
        raise ConversionError(f"{node.op_type} {node.name!r}: {err_message}")

    def missing_initializer(self, node: onnx.NodeProto, err_message: str) -> None:
        """Refuse the node.

        Raises:
            ConversionError: always.
        """
        raise ConversionError(f"{node.op_type} {node.name!r}: {err_message}")


class _Operation:
    """A TensorFlow operation as functions of that time read it."""

    def __init__(self, node: Node, shapes: Mapping[str, Any]) -> None:
        self.name, self.type = node.name, node.op
        self._node = node
        self.inputs = [
            SimpleNamespace(name=v.name, shape=shapes.get(v.name), dtype=v.dtype)
            for v in node.inputs
        ]
        self.outputs = [
            SimpleNamespace(name=v.name, shape=v.shape, dtype=v.dtype) for v in node.outputs
        ]

    def get_attr(self, name: str) -> Any:
        """One of its attributes."""
        return self._node.attrs[name]
