"""The attributes used of Keras objects, which have no type hints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class SymbolicTensor(Protocol):
    """A tensor of Keras 3 without values, which knows its operation."""

    shape: Sequence[int | None]
    dtype: Any
    _keras_history: tuple[KerasOperation, int, int]


class SymbolicArguments(Protocol):
    """The arguments of a recorded call."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any]


class KerasNode(Protocol):
    """A recorded call of an operation."""

    arguments: SymbolicArguments
    is_input: bool


class KerasOperation(Protocol):
    """An operation whose calls Keras 3 records: a layer, or one of its functions."""

    name: str
    _inbound_nodes: list[KerasNode]
    _outbound_nodes: list[KerasNode]


class Functional(Protocol):
    """A model of recorded calls."""

    name: str
    inputs: Sequence[SymbolicTensor]
    outputs: Sequence[SymbolicTensor]
    operations: Sequence[KerasOperation]
    _nodes_by_depth: Mapping[int, Sequence[KerasNode]]


class KerasLayer(Protocol):
    """A layer or model of Keras 2 or 3, or of a user's class derived from them."""

    name: str
    built: bool
    layers: Sequence[KerasLayer]
    weights: Sequence[Any]
    trainable_weights: Sequence[Any]
    non_trainable_weights: Sequence[Any]
    variables: Sequence[Any]
    inputs: Any
    outputs: Any

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """Run it, or call it on symbolic tensors."""

    def call(self, *args: object, **kwargs: object) -> Any:
        """Compute the output."""

    def get_config(self) -> dict[str, Any]:
        """The options."""

    def _flatten_layers(self) -> Sequence[KerasOperation]:
        """This layer and the layers inside it."""

    def get_build_config(self) -> Mapping[str, Any] | None:
        """The shapes for which it was built."""

    def get_weights(self) -> list[Any]:
        """The arrays of its variables."""
