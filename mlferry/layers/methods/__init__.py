"""The methods of coremltools' `NeuralNetworkBuilder` that add layers, as one table.

`METHODS` has a row for every method: its signature, and how it turns arguments into fields. A
builder gets the methods by deriving from `LayerMethods` and saying how a layer is added.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mlferry.layers.methods.table import METHODS, Method, NewLayer
from mlferry.spec.proto import neural_network_pb2 as nn

__all__ = ["METHODS", "LayerMethods", "Method", "NewLayer"]

for _family in (
    *("control", "convolution", "elementwise", "indexing"),
    *("linear", "normalization", "recurrent", "reshaping"),
):
    importlib.import_module(f"{__name__}.{_family}")


class LayerMethods(ABC):
    """Every method of the table; they all call `add`."""

    @abstractmethod
    def add(
        self, name: str, inputs: Sequence[str], outputs: Sequence[str], layer: NewLayer
    ) -> nn.NeuralNetworkLayer:
        """Add a layer and return its message.

        Raises:
            SpecError: a name or a field does not fit.
        """

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[..., nn.NeuralNetworkLayer]: ...


def _function(method: Method) -> Callable[..., nn.NeuralNetworkLayer]:
    def add_layer(self: LayerMethods, /, *args: Any, **kwargs: Any) -> nn.NeuralNetworkLayer:
        return self.add(*method.layer(*args, **kwargs))

    add_layer.__name__ = method.name
    add_layer.__qualname__ = f"{LayerMethods.__name__}.{method.name}"
    add_layer.__doc__ = method.doc
    add_layer.__signature__ = method.bound_signature  # type: ignore[attr-defined] # `inspect` reads it
    return add_layer


for _name in METHODS:
    if (_entry := METHODS.find(_name)) is not None:
        setattr(LayerMethods, _name, _function(_entry.value))
