"""An ONNX graph under construction: nodes and arrays as plain objects, a message at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from google.protobuf.message import EncodeError, Message

from mlferry.errors import ExportError, MissingDependencyError
from mlferry.numerics.shapes import Array
from mlferry.version import VERSION

if TYPE_CHECKING:
    import onnx

# What onnxruntime 1.17 and onnx 1.16 read; 18 brought reductions by max and min to the scatters.
OPSET, IR_VERSION = 18, 8
CUSTOM_DOMAIN = "ai.mlferry.custom"
# Operators that compute each value on its own.
BY_VALUE = {
    *("Abs", "Cast", "Ceil", "Clip", "Erf", "Exp", "Floor", "Log", "Neg", "Not", "Reciprocal"),
    *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Sin", "Sinh", "Tan"),
    *("Elu", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Softplus", "Softsign", "Tanh"),
    *("Round", "Sign", "Sqrt"),
}

Extent = int | str | None
Attribute: TypeAlias = (
    "int | float | str | bytes | Sequence[int] | Sequence[float] | Sequence[str] | Array | Body"
)
"""The type of a node's attribute."""


@dataclass
class Node:
    """One operator.

    Attributes:
        op: its ONNX name.
        inputs: values; an empty name is an omitted optional input.
        outputs: values.
        attributes: numbers, strings, lists of them, arrays, or a `Body` for a subgraph.
        domain: empty for ONNX's own.
        name: the name of its layer.
    """

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)
    domain: str = ""
    name: str = ""

    @property
    def bodies(self) -> Iterator[Body]:
        """The graphs inside the node."""
        return (value for value in self.attributes.values() if isinstance(value, Body))


@dataclass(frozen=True)
class Port:
    """An input or output: its name, NumPy's name of its type, and its shape.

    A string is an extent of any size, the same wherever the string appears; None is any size.
    """

    name: str
    dtype: str = "float32"
    shape: Sequence[Extent] | None = None


@dataclass
class Body:
    """A graph inside a node; it sees the values around it."""

    nodes: list[Node]
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)


@dataclass
class Graph:
    """A whole graph; `arrays` are its constants."""

    nodes: list[Node] = field(default_factory=list)
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    arrays: dict[str, Array] = field(default_factory=dict)

    def message(self, metadata: Mapping[str, str] | None = None, name: str = "network") -> Any:
        """The `ModelProto`.

        Args:
            metadata: what `metadata_props` holds.

        Raises:
            MissingDependencyError: the onnx package is not installed.
            ExportError: the model is too large for one message.
        """
        onnx = import_onnx()
        helper = onnx.helper
        opsets = [helper.make_opsetid("", OPSET)]
        if any(node.domain for node in walk(self.nodes)):
            opsets.append(helper.make_opsetid(CUSTOM_DOMAIN, 1))
        model = onnx.ModelProto(
            ir_version=IR_VERSION,
            producer_name="mlferry",
            producer_version=VERSION,
            opset_import=opsets,
        )
        model.graph.name = name
        for key, array in self.arrays.items():  # in place, because every copy of the weights counts
            tensor = model.graph.initializer.add(name=key, dims=array.shape)
            tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
            tensor.raw_data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        _fill(model.graph, self.nodes, self.inputs, self.outputs)
        helper.set_model_props(model, dict(metadata or {}))
        return model


def serialized(message: Message) -> bytes:
    """A `ModelProto` as bytes.

    Raises:
        ExportError: it is larger than a protobuf message may be.
    """
    try:
        data: bytes = message.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ExportError(
            f"the ONNX model is larger than 2 GB, which is a message's limit ({error}); shrink it: "
            "mlferry.quantize_weights(model, 16)"
        ) from error
    return data


def import_onnx() -> Any:
    """The onnx package.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import onnx
        import onnx.numpy_helper
    except ImportError as error:
        raise MissingDependencyError(
            "writing ONNX models needs the onnx package: pip install 'mlferry[onnx]'"
        ) from error
    return onnx


def walk(nodes: Iterable[Node]) -> Iterator[Node]:
    """Every node, with those of the graphs inside."""
    for node in nodes:
        yield node
        for body in node.bodies:
            yield from walk(body.nodes)


def _fill(
    target: onnx.GraphProto, nodes: Sequence[Node], inputs: Sequence[Port], outputs: Sequence[Port]
) -> None:
    target.node.extend(_node(node) for node in nodes)
    target.input.extend(map(_value_info, inputs))
    target.output.extend(map(_value_info, outputs))


def _value_info(port: Port) -> Any:
    helper = import_onnx().helper
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype))
    return helper.make_tensor_value_info(port.name, kind, port.shape)


def _node(node: Node) -> Any:
    onnx = import_onnx()
    node_proto = onnx.NodeProto(
        op_type=node.op, input=node.inputs, output=node.outputs, domain=node.domain, name=node.name
    )
    for key, value in node.attributes.items():
        if isinstance(value, Body):
            attribute = onnx.AttributeProto(name=key, type=onnx.AttributeProto.GRAPH)
            attribute.g.name = key
            _fill(attribute.g, value.nodes, value.inputs, value.outputs)
        elif isinstance(value, np.ndarray):
            attribute = onnx.helper.make_attribute(key, onnx.numpy_helper.from_array(value))
        else:
            attribute = onnx.helper.make_attribute(key, value)
        node_proto.attribute.append(attribute)
    return node_proto
