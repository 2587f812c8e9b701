"""The attributes used of TensorFlow's objects and messages, which have no type hints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol


class Dim(Protocol):
    """An extent in the message of a shape; below 0 if it varies."""

    size: int


class TensorShapeMessage(Protocol):
    """The message of a shape."""

    unknown_rank: bool
    dim: Sequence[Dim]


class TensorMessage(Protocol):
    """The message of an array."""

    tensor_shape: TensorShapeMessage
    dtype: int


class AttributeMessage(Protocol):
    """The message of an attribute, which holds a value of one of many types."""

    list: Any

    def WhichOneof(self, name: str, /) -> str | None:
        """The field that is set."""


class MetaGraph(Protocol):
    """The message of a graph of a SavedModel, with its signatures."""

    graph_def: GraphDef
    meta_info_def: Any
    signature_def: Mapping[str, Any]
    object_graph_def: Any


class SavedModelMessage(Protocol):
    """The message of a SavedModel."""

    meta_graphs: Sequence[MetaGraph]

    def SerializeToString(self) -> bytes:
        """Its bytes."""


class SavedModel(Protocol):
    """A loaded SavedModel."""

    signatures: Mapping[str, ConcreteFunction]


class Model(Protocol):
    """A model of Keras, or of a user's class."""

    call: Callable[..., Any]

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """Run it."""


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
        """The value of an attribute in TensorFlow."""


class FunctionBody(Protocol):
    """A graph with inputs and outputs: of a function, or a part of a graph of TensorFlow 1."""

    @property
    def inputs(self) -> Sequence[GraphTensor]:
        """The input tensors."""

    @property
    def outputs(self) -> Sequence[GraphTensor]:
        """The output tensors."""


class FrozenFunction(FunctionBody, Protocol):
    """A function without variables.

    Attributes:
        graph: TensorFlow's own.
    """

    graph: FunctionGraph


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
        """Become a copy of another message."""


class ConcreteFunction(Protocol):
    """A function of TensorFlow for inputs of certain types, or a signature of a SavedModel."""

    inputs: Sequence[GraphTensor]
    outputs: Sequence[GraphTensor]
    captured_inputs: Sequence[Any]
    structured_input_signature: Any
    structured_outputs: Any
    graph: Any
    _mlferry_owner: SavedModel


class FunctionGraph(Protocol):
    """A graph of operations of TensorFlow 2."""

    def get_operations(self) -> Iterable[GraphOperation]:
        """The nodes of the graph."""

    def as_graph_def(self) -> GraphDef:
        """The message of the graph."""


class OpDef(Protocol):
    """The message that defines an op."""

    input_arg: Sequence[Any]
    output_arg: Sequence[Any]
    attr: Sequence[Any]
