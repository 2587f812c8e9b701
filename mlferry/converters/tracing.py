"""Converts users' own layers by tracing their `call`, so that the device needs no class for them.

Keras 3 records functions of `keras.ops` on symbolic tensors. Layers of Keras 2, and those written
in TensorFlow's functions, are recorded by TensorFlow.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlferry.converters.frontend import Frontend
from mlferry.converters.graph import Graph, Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.stored_functions import StoredFunction
from mlferry.converters.values import Blob
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Shape

if TYPE_CHECKING:
    from mlferry.converters.keras.objects import KerasLayer
    from mlferry.converters.keras.tracing import Called

_Traced = tuple[Graph, Frontend]


@dataclass(frozen=True)
class Tracer:
    """Traces the layers of one conversion.

    Attributes:
        custom_objects: the user's classes by name, for layers of files.
    """

    custom_objects: Mapping[str, Any]

    def can(self, node: Node) -> bool:
        """Whether the layer's object exists, or can be made."""
        if self._function_of(node) is not None:
            return True
        is_activation = node.elementwise or node.call is None
        has_object = hasattr(node.layer, "get_weights") and not is_activation
        return has_object or self._class_of(node) is not None

    def works(self, node: Node) -> bool:
        """Whether every op of the layer has a converter, as far as shapes are known."""
        shapes = [value.shape for value in node.inputs]
        if not self.can(node) or not all(shapes):
            return False
        known = [(1 if s[0] is None else s[0], *s[1:]) for s in shapes if s]
        try:
            graph, frontend = self._graph(node, known, None)
        except ConversionError:
            return False
        return all(frontend.ops.find(item.op, graph.version) for item in graph.nodes)

    def convert(self, context: Lowering, node: Node, inputs: Sequence[Any]) -> list[Blob]:
        """Add the computation of a layer.

        Raises:
            ConversionError: its code cannot be traced, or an op in it cannot be converted.
        """
        values = [
            context.source_order(x if isinstance(x, Blob) else context.stored(x)) for x in inputs
        ]
        shapes = [x.known for x in values]
        results = [mask for mask in node.masks if mask is not None]
        mask = results[0].blob(context) if results else None
        graph, frontend = self._graph(node, shapes, None if mask is None else mask.known)
        extra = [] if len(graph.inputs) == len(values) or mask is None else [mask]
        output, node.traced_masks = context.convert_inside(
            graph, frontend, [*values, *extra], [*node.carried_masks, *(None for _ in extra)]
        )
        return output

    def _graph(self, node: Node, shapes: Sequence[Shape], mask: Shape | None) -> _Traced:
        from mlferry.converters.keras import tracing

        function = self._function_of(node)
        layer = tracing.Called(function, node) if function else node.layer
        layer = layer or self._made(node, shapes, mask)
        inputs = list(zip(shapes, (value.dtype for value in node.inputs), strict=True))
        takes = mask if "mask" in inspect.signature(layer.call).parameters else None
        if function is None and not tracing.is_keras_3(layer):
            return self._by_tensorflow(layer, node, inputs, takes)
        from mlferry.converters.keras.calls import call_of
        from mlferry.converters.keras.ops import FRONTEND

        try:
            return tracing.layer_graph(layer, call_of(node), inputs, takes, str(node)), FRONTEND
        except tracing.NotTraceable as error:
            if "tensorflow" not in str(error).lower():  # it got a symbolic tensor
                raise
            return self._by_tensorflow(layer, node, inputs, takes)

    def _by_tensorflow(
        self,
        layer: KerasLayer | Called,
        node: Node,
        inputs: Sequence[tuple[Shape, str]],
        mask: Shape | None,
    ) -> _Traced:
        from mlferry.converters.keras.calls import call_of
        from mlferry.converters.keras.tracing import arguments
        from mlferry.converters.tensorflow import read
        from mlferry.converters.tensorflow.ops import FRONTEND

        types = [*inputs, *([] if mask is None else [(mask, "bool")])]

        def call(*tensors: object) -> Any:
            values = tensors if mask is None else tensors[:-1]
            args, kwargs = arguments(
                layer, call_of(node), values, None if mask is None else tensors[-1]
            )
            return layer.call(*args, **kwargs)

        return read.traced(call, types, str(node)), FRONTEND

    # ---- functions, and layers of files ------------------------------------------------

    def _function_of(self, node: Node) -> Any:
        """The function of an activation, or of a Lambda in a file, if it is available."""
        from mlferry.converters.keras.calls import call_of

        named = node.functions.get("function")
        names = (node.op, node.op.removeprefix("Custom>"), node.op.rsplit(">", 1)[-1])
        results = [*map(self.custom_objects.get, names), call_of(node).function]
        results += [named] if node.layer is None and not isinstance(named, StoredFunction) else []
        return next((item for item in results if inspect.isroutine(item)), None)

    def _class_of(self, node: Node) -> Any:
        result = (self.custom_objects.get(key) for key in (*node.keys, node.op.split(">")[-1]))
        return next((item for item in result if inspect.isclass(item)), None)

    def _made(self, node: Node, shapes: Sequence[Shape], mask: Shape | None) -> Any:
        """The layer of a file: the user's class, with the file's options and arrays."""
        output = self._class_of(node)
        if output is None:
            raise ConversionError(
                f"tracing {node} needs its class, which no file holds: pass custom_objects="
                f"{{{node.op.split('>')[-1]!r}: the class}}"
            )
        from mlferry.converters.keras import revival

        return revival.layer_of(output, node, shapes, mask)
