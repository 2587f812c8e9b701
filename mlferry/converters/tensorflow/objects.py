"""What is used of TensorFlow's own objects and messages, which come without types."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, Protocol


class GraphTensor(Protocol):
    """An edge of a graph of operations; its type and shape are TensorFlow's own objects."""

    name: str
    op: GraphOperation
    dtype: Any
    shape: Any
    value_index: int

    def consumers(self) -> Sequence[GraphOperation]:
        """The operations that read it."""


class GraphOperation(Protocol):
    """A node of a graph of operations."""

    name: str
    type: str
    inputs: Sequence[GraphTensor]
    outputs: Sequence[GraphTensor]
    control_inputs: Sequence[GraphOperation]
    graph: Any
    node_def: NodeDef
    op_def: Any

    def get_attr(self, name: str) -> Any:
        """The value of an attribute, as TensorFlow has it."""


class FunctionBody(Protocol):
    """A graph with ends of its own: of a function, or a part of a graph of TensorFlow 1."""

    @property
    def inputs(self) -> Sequence[GraphTensor]:
        """The tensors that it starts from."""

    @property
    def outputs(self) -> Sequence[GraphTensor]:
        """The tensors that it ends with."""


class FrozenFunction(FunctionBody, Protocol):
    """A function without variables.

    Attributes:
        graph: TensorFlow's own.
    """

    graph: Any


class NodeDef(Protocol):
    """The message of a node."""

    name: str
    op: str
    input: Any
    attr: MutableMapping[str, Any]

    def SerializeToString(self) -> bytes:
        """Its bytes."""


class GraphDef(Protocol):
    """The message of a graph."""

    node: Any
    library: Any
    versions: Any

    def CopyFrom(self, other: object) -> None:
        """Become the same as another one."""


class ConcreteFunction(Protocol):
    """A function of TensorFlow for inputs of certain types, or a signature of a SavedModel."""

    inputs: Sequence[GraphTensor]
    outputs: Sequence[GraphTensor]
    captured_inputs: Sequence[Any]
    structured_input_signature: Any
    structured_outputs: Any
    graph: Any
