"""Operations with known operands, computed by TensorFlow itself."""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlferry.converters.tensorflow.objects import GraphOperation, GraphTensor
from mlferry.numerics.shapes import Array

Arrays = Sequence[Array]


class Computable(ABC):
    """The operation of a TensorFlow node, whose result can be computed."""

    @property
    @abstractmethod
    def is_stateful(self) -> bool:
        """Whether it has side effects."""

    @abstractmethod
    def size(self, arrays: Arrays) -> int | None:
        """The bytes of its result for these operands; None if they depend on the values."""

    @abstractmethod
    def result(self, arrays: Arrays) -> Sequence[Array] | None:
        """Its outputs for these operands, or None if TensorFlow cannot compute them alone."""


@dataclass(frozen=True)
class OperationDescription:
    """An operation without its graph.

    Attributes:
        op: what it does.
        node: its NodeDef, as bytes.
        inputs: the types of its operands, by TensorFlow's numbers.
        outputs: the types of its results.
        is_stateful: whether it has side effects.
        size: bytes of its result, if its graph says so.
    """

    op: str
    node: bytes
    inputs: list[int]
    outputs: list[int]
    is_stateful: bool
    size: int | None

    def as_json(self) -> dict[str, Any]:
        """The operation in a form that `json` can write."""
        return {**vars(self), "node": base64.b64encode(self.node).decode()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> OperationDescription:
        """The inverse of `as_json`."""
        return cls(**{**fields, "node": base64.b64decode(fields["node"])})

    def operation(self, arrays: Arrays) -> LocalOperation:
        """The operation in a graph of its own, for known operands."""
        import tensorflow as tf
        from tensorflow.core.framework import node_def_pb2

        message = node_def_pb2.NodeDef.FromString(self.node)
        with tf.Graph().as_default() as graph:
            operands = [
                tf.constant(array, tf.as_dtype(kind))
                for array, kind in zip(arrays, self.inputs, strict=True)
            ]
            kinds = [tf.as_dtype(kind) for kind in self.outputs]
            return LocalOperation(
                graph.create_op(self.op, operands, kinds, attrs=dict(message.attr))
            )


class LocalOperation(Computable):
    """An operation of a graph in this process."""

    def __init__(self, operation: GraphOperation) -> None:
        self._operation = operation

    @property
    def is_stateful(self) -> bool:
        """See `Computable`."""
        return bool(self._operation.op_def.is_stateful)

    def description(self) -> OperationDescription:
        """The operation without its graph."""
        op = self._operation
        inputs, outputs = (
            [int(tensor.dtype.as_datatype_enum) for tensor in tensors]
            for tensors in (op.inputs, op.outputs)
        )
        node = b"" if self.is_stateful else op.node_def.SerializeToString()
        return OperationDescription(
            op.type, node, inputs, outputs, self.is_stateful, _bytes(op.outputs)
        )

    def size(self, arrays: Arrays) -> int | None:
        """The bytes according to the graph, or else those that follow from known operands."""
        static = _bytes(self._operation.outputs)
        if static is not None:
            return static
        try:
            apart = self.description().operation(arrays)
        except Exception:
            return None  # computing it will fail in the same way
        return _bytes(apart._operation.outputs)

    def result(self, arrays: Arrays) -> Sequence[Array] | None:
        """The outputs of TensorFlow's eager execution on the processor."""
        import tensorflow as tf
        from tensorflow.python.eager import context as eager, execute

        op = self._operation
        try:
            with tf.device("CPU:0"):
                operands = [
                    tf.constant(array, tensor.dtype)
                    for array, tensor in zip(arrays, op.inputs, strict=True)
                ]
                output = execute.execute(
                    op.type.encode(), len(op.outputs), operands, self._attributes(), eager.context()
                )
        except Exception:
            return None  # operations that TensorFlow cannot compute alone are converted
        results = list(output) if isinstance(output, list | tuple) else [output]
        if len(results) != len(op.outputs) or not all(hasattr(r, "numpy") for r in results):
            return None
        entries = [np.asarray(r.numpy()) for r in results]
        return None if any(a.dtype.kind not in "biufc" for a in entries) else entries

    def _attributes(self) -> tuple[Any, ...]:
        """Alternating names and values; types as numbers."""
        parts: list[Any] = []
        for item in self._operation.op_def.attr:
            value = self._operation.get_attr(item.name)
            if "type" in item.type:
                kinds = value if isinstance(value, list) else [value]
                numbers = [kind.as_datatype_enum for kind in kinds]
                value = numbers if isinstance(value, list) else numbers[0]
            parts += [item.name, value]
        return tuple(parts)


def _bytes(tensors: Sequence[GraphTensor]) -> int | None:
    """The bytes of tensors, as TensorFlow infers them; None if it cannot."""
    total = 0
    for tensor in tensors:
        count = tensor.shape.num_elements()
        if count is None:
            return None
        total += count * max(tensor.dtype.size or 1, 1)
    return total
