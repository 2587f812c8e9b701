"""What is used of the objects of Keras, which come without types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class KerasLayer(Protocol):
    """A layer or a model of Keras 2 or 3, or of a user's class that is derived from them."""

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
        """What it computes."""

    def get_config(self) -> dict[str, Any]:
        """Its options."""

    def get_weights(self) -> list[Any]:
        """The arrays of its variables."""
