"""Reads operations of TensorFlow's graphs as nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from mlferry import limits
from mlferry.converters.graph import Attributes, Node, Value
from mlferry.converters.tensorflow import frames, unknown_ops
from mlferry.converters.tensorflow.evaluation import LocalOperation
from mlferry.converters.tensorflow.loading import extents_of
from mlferry.converters.tensorflow.objects import (
    AttributeMessage,
    FunctionBody,
    GraphOperation,
    GraphTensor,
    NodeDef,
    TensorMessage,
)
from mlferry.converters.tensorflow.subgraphs import Subgraph
from mlferry.errors import ConversionError

_UNREAD = {
    *("container", "shared_name", "use_cudnn_on_gpu", "cudnn_off", "_output_shapes"),
    *("validate_shape", "parallel_iterations", "allowed_devices", "message"),
    *("incompatible_shape_error", "validate_indices", "output_shapes"),
    *("use_locking", "debug_name"),
}


class Naming:
    """The names of the values of a TensorFlow graph.

    Args:
        inputs: names of the tensors that are inputs, by TensorFlow's name.
    """

    def __init__(self, inputs: Mapping[str, str]) -> None:
        self.inputs = inputs
        self._taken = set(inputs.values())

    def is_input(self, tensor: GraphTensor) -> bool:
        """Whether a tensor is an input."""
        return tensor.name in self.inputs

    def name(self, tensor: GraphTensor) -> str:
        """The name of the value of a tensor."""
        if tensor.name in self.inputs:
            return self.inputs[tensor.name]
        result = tensor_name(tensor)
        return f"{result}:0" if result in self._taken else result  # features have no colon

    def value(self, tensor: GraphTensor) -> Value:
        """A tensor as a `Value`."""
        shape = tensor.shape
        known = None if shape.rank is None else tuple(shape.as_list())
        return Value(self.name(tensor), known, tensor.dtype.base_dtype.name)


def tensor_name(tensor: GraphTensor) -> str:
    """The name of a value: its operation's, with the number of the output unless that is 0."""
    name, _, index = tensor.name.rpartition(":")
    return name if index == "0" else f"{name}:{index}"


def operations(
    outputs: Iterable[Any], naming: Naming, source: str
) -> tuple[list[Node], dict[str, Any]]:
    """The nodes that these tensors need, in order, and the constants by name.

    Args:
        outputs: the tensors.
        naming: the inputs, and the names of all values.
    """
    import tensorflow as tf

    nodes: list[Node] = []
    constants: dict[str, Any] = {}
    done: set[str] = set()
    size = 0
    legacy = frames.Frames(source)
    stack = [(t.op, False) for t in outputs if not naming.is_input(t)][::-1]
    while stack:
        op, ready = stack.pop()
        whole = legacy.whole(op)
        step = op if whole is None else whole
        if step.name in done:
            continue
        if not ready:
            stack.append((op, True))
            stack += [
                (t.op, False)
                for t in reversed(step.inputs)
                if not naming.is_input(t) and t.op.name not in done
            ]
            continue
        done.add(step.name)
        if whole is not None:
            nodes.append(_node_of_whole(whole, naming, source))
        elif op.type == "Const":
            message = op.get_attr("value")
            size += _bytes(tf, message)
            limits.check("weights", size, f"{source}: its constants take bytes:")
            constants[naming.name(op.outputs[0])] = tf.make_ndarray(message)
        elif op.type == "Placeholder":
            raise ConversionError(f"{source}: nothing gives a value to the placeholder {op.name!r}")
        else:
            nodes.append(node(op, naming))
    return nodes, constants


def _bytes(tf: ModuleType, tensor: TensorMessage) -> int:
    """The bytes of the values of a TensorProto, in which one value may stand for all."""
    count: int = math.prod(dim.size for dim in tensor.tensor_shape.dim)
    return max(0, count) * int(tf.as_dtype(tensor.dtype).size or 1)


def node(op: GraphOperation, naming: Naming) -> Node:
    """An operation with its attributes as Python values."""
    unknown = unknown_ops.original(op)
    kind = op.type if unknown is None else unknown.op
    result = attributes(op) if unknown is None else _attributes_of_message(unknown)
    return Node(
        op=kind,
        name=op.name,
        inputs=tuple(map(naming.value, op.inputs)),
        outputs=tuple(map(naming.value, op.outputs)),
        attrs=Attributes(result),
        keys=(op.name, kind),
        proto=LocalOperation(op) if unknown is None else None,
    )


def body_of(function: FunctionBody, source: str) -> Subgraph:
    """A function, or a part of a graph of TensorFlow 1, without TensorFlow's objects.

    Args:
        function: its graph.
    """
    naming = Naming({t.name: tensor_name(t) for t in function.inputs})
    nodes, constants = operations(function.outputs, naming, source)
    inputs, outputs = (tuple(map(naming.value, t)) for t in (function.inputs, function.outputs))
    return Subgraph(inputs, outputs, tuple(nodes), constants)


def _node_of_whole(whole: frames.Whole, naming: Naming, source: str) -> Node:
    """A condition or a loop of TensorFlow 1, as one of TensorFlow 2."""
    nothing = Value("", None, "")
    return Node(
        op=whole.op,
        name=whole.name,
        inputs=tuple(map(naming.value, whole.inputs)),
        outputs=tuple(nothing if t is None else naming.value(t) for t in whole.outputs),
        attrs=Attributes({n: body_of(part, source) for n, part in whole.parts.items()}),
        keys=(whole.name, whole.op),
    )


def attributes(op: GraphOperation) -> dict[str, Any]:
    """The attributes of an operation, except for types and those that matter only to TensorFlow."""
    return {
        item.name: _plain(op.get_attr(item.name))
        for item in op.op_def.attr
        if _matters(item.name) and "type" not in item.type
    }


def _matters(name: str) -> bool:
    return not name.startswith("_") and name not in _UNREAD


def _attributes_of_message(node: NodeDef) -> dict[str, Any]:
    """The same for an op that TensorFlow does not know."""
    return {
        name: _plain(_value(node.attr[name]))
        for name in sorted(node.attr)
        if _matters(name) and not node.attr[name].type and not node.attr[name].list.type
    }


def _value(attr: AttributeMessage) -> Any:
    """The value in an AttrValue."""
    kind = attr.WhichOneof("value")
    if kind != "list":
        return None if kind is None else getattr(attr, kind)
    return next((list(items) for _, items in attr.list.ListFields()), [])


def _plain(attribute: object) -> Any:
    if isinstance(attribute, bytes):
        return attribute.decode("utf-8", "replace")
    if isinstance(attribute, list | tuple):
        return [_plain(item) for item in attribute]
    convert = _MESSAGES.get(type(attribute).__name__)
    return attribute if convert is None else convert(attribute)


def _array(tensor: object) -> Any:
    import tensorflow as tf

    return tf.make_ndarray(tensor)


_MESSAGES: dict[str, Callable[[Any], Any]] = {
    "NameAttrList": lambda given: given.name,
    "TensorShapeProto": extents_of,
    "TensorProto": _array,
}
