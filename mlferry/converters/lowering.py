"""The values of one conversion, and the interface that converters use."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from mlferry import limits
from mlferry.converters import layout as layouts, sizes
from mlferry.converters.graph import Graph, Mask, Node, Value
from mlferry.converters.values import (
    CHANNELS_FIRST,
    SCALAR,
    SOURCE,
    Accepted,
    AnyOperand,
    Blob,
    Constant,
    Layout,
    Opaque,
    Result,
    Results,
)
from mlferry.converters.writer import LayerWriter
from mlferry.errors import ConversionError
from mlferry.layers.builder import Builder
from mlferry.numerics.shapes import Array, Shape
from mlferry.spec import mapped
from mlferry.spec.proto import neural_network_pb2 as nn

_EXACT = 2**24  # the largest range in which float32 holds every integer


def _digest(array: Array) -> bytes:
    digest = hashlib.sha256()
    for part in mapped.pieces(array):
        digest.update(part.view(np.uint8).data)
    return digest.digest()


def _no_graphs(*arguments: object) -> tuple[list[Blob], list[Mask | None]]:
    raise ConversionError("a graph inside another, before the walk has begun")


class Lowering(LayerWriter):
    """Adds layers node by node, and knows what each value of the graph has become."""

    def __init__(self, builder: Builder, graph: Graph) -> None:
        super().__init__(builder)
        self.graph = graph
        self.metadata: dict[str, str] = {}
        self.sizes = sizes.SizeLog()
        self.elements: dict[str, Any] = {}  # what is known about blobs that hold shapes
        self.rounds_activations = True
        self._values: dict[str, Blob] = {}
        self._names: dict[str, tuple[str, ...]] = {}  # of the values that a blob holds
        self._opaque: dict[str, Opaque] = {}
        self._contents: dict[Any, Blob] = {}  # blobs of constants, by shape, type and numbers
        self.is_repeated = False
        self._constants = {name: Constant(name, a) for name, a in graph.constants.items()}
        self._computed = -4 * sum(a.nbytes for a in graph.constants.values())
        self._made_once: dict[Callable[[Lowering], Any], Any] = {}
        self.is_traced = False
        self.convert_inner: Callable[[Node], None] = lambda node: None
        self.convert_inside: Callable[..., tuple[list[Blob], list[Mask | None]]] = _no_graphs

    @contextmanager
    def inside(self, *, kept: bool = True) -> Iterator[nn.NeuralNetwork]:
        """Add layers to a network of their own; see `Builder.inside`."""
        caches: list[dict[Any, Any]] = [
            self._values,
            self._names,
            self._constants,
            self.arranged,
            self._inverse,
            self._numbers,
            self._opaque,
            self._made_once,
            self._contents,
        ]
        before = [dict(cache) for cache in caches]
        name, layout = self._node_name, self._layout
        try:
            with self.builder.inside(kept=kept) as network:
                yield network
        finally:
            for cache, old in zip(caches, before, strict=True):
                cache.clear()
                cache.update(old)
            self._node_name, self._layout = name, layout

    def reshape(self, x: Blob, shape: Shape, *, layout: Layout | None = None) -> Blob:
        """Reshape a blob; one unknown extent is allowed."""
        if x.shape == shape and None not in shape:
            sizes.use(x)
            return replace(x, layout=layout or self._layout)
        target = tuple(-1 if extent is None else extent for extent in shape)
        if target.count(-1) > 1:
            raise ConversionError(
                f"a reshape to {target} with more than one flexible extent; "
                "convert with fixed shapes"
            )
        return self.layer("reshapeStatic", x, layout=layout, targetShape=target)

    def source_order(self, x: Blob) -> Blob:
        """The blob in the source's order of axes."""
        return layouts.arrange(self, x, SOURCE)

    def bind(self, value: Value, blob: Blob) -> None:
        """Record which blob holds a value of the graph."""
        self._hold(value.name, blob)

    def _hold(self, name: str, blob: Blob) -> None:
        self._values[name] = blob
        self._names[blob.name] = (*self._names.get(blob.name, ()), name)

    def is_for_node_alone(self, x: Blob, node: Node) -> bool:
        """Whether nothing but a node, which is being converted, will ever read a blob.

        Nodes that only give the blob another name may have read it.
        """
        names = self._names.get(x.name, ())
        if any(value.name in names for _, value in self.graph.outputs):
            return False
        readers = {id(each): each for name in names for each in self.graph.readers(name)}
        own = {value.name for value in node.outputs}
        others = [each for each in readers.values() if own.isdisjoint(v.name for v in each.outputs)]
        return len(others) == len(readers) - 1 and all(
            value.name in names for each in others for value in each.outputs if value.name
        )

    def blob(self, value: Value) -> Blob:
        """The blob that holds a value; a constant is written into the model now.

        Raises:
            ConversionError: no blob can hold it.
        """
        if value.name in self._opaque:
            raise ConversionError(
                f"{value.name!r} is {self._opaque[value.name].what}, for which Core ML has no blob"
            )
        if value.name not in self._values:
            self._hold(value.name, self.stored(self._constants[value.name]))
        return self._values[value.name]

    def give(self, name: str, operand: Result) -> None:
        """Record what a name stands for: a blob, or something known."""
        if isinstance(operand, Blob):
            self._hold(name, operand)
        elif isinstance(operand, Opaque):
            self._opaque[name] = operand
        else:
            known = (
                operand if isinstance(operand, Constant) else Constant(name, np.asarray(operand))
            )
            self._constants[name] = replace(known, name=name)

    def alias(self, name: str, operand: Result) -> None:
        """Give an operand another name; a constant stays the same and is stored once."""
        if isinstance(operand, Constant) and operand.name:
            self._constants[name] = operand
        else:
            self.give(name, operand)

    def operand(self, value: Value) -> AnyOperand:
        """The operand of a converter for a value: its blob, its constant, or None for no name."""
        if not value.name:
            return None
        known = self._constants.get(value.name) or self._opaque.get(value.name)
        return known or self.blob(value)

    def stored(self, constant: Constant) -> Blob:
        """The blob of a constant; equal constants are written once.

        Raises:
            ConversionError: the constant has no elements, or integers that float32 cannot hold.
        """
        if constant.name and constant.name in self._values:
            return self._values[constant.name]
        self.sizes.use(self.sizes.behind(constant))
        array = constant.array
        if array.size == 0:
            raise ConversionError(
                f"constant {constant.name!r} of shape {array.shape} has no elements, which Core "
                "ML cannot hold"
            )
        if array.dtype.kind in "iu" and np.abs(array.astype(np.float64)).max() > _EXACT:
            raise ConversionError(
                f"constant {constant.name!r} has integers above 2**24, which Core ML's float32 "
                "cannot hold exactly"
            )
        content = (array.shape, array.dtype.str, _digest(array))
        if content not in self._contents:
            layout = SCALAR if array.ndim == 0 else self._layout
            self._contents[content] = self.constant(array.astype(np.float32), layout=layout)
        output = self._contents[content]
        if constant.name:
            self._hold(constant.name, output)
        return output

    def compute(self, size: int) -> None:
        """Count an array that is computed from constants, before it is computed.

        Args:
            size: its number of bytes.

        Raises:
            LimitError: the constants of this conversion take too much memory.
        """
        self._computed += size
        limits.check("constants", self._computed, "arrays computed from constants take bytes:")

    def filled(self, shape: Sequence[int], value: float = 0.0) -> Blob:
        """A blob of one number, in the source's order of axes; counted before it is made.

        Raises:
            LimitError: the constants of this conversion take too much memory.
        """
        self.compute(4 * math.prod(shape))
        return self.constant(np.full(shape, value, np.float32), layout=SOURCE)

    def run(self, node: Node, convert: Callable[[Node, Sequence[AnyOperand]], Results]) -> None:
        """Convert one node with its inputs, and bind the results to its outputs.

        Raises:
            ModelFileError: a file in which constants of the node lie was changed.
        """
        self.start(node.name)
        self.sizes.node = str(node)
        inputs = [self.operand(value) for value in node.inputs]
        node.input_shapes = [
            x.array.shape if isinstance(x, Constant) else x.source_shape if x is not None else None
            for x in inputs
        ]
        arrays = [x.array for x in inputs if isinstance(x, Constant)]
        arrays += node.weights.values()
        for array in arrays:
            mapped.check(array)
        output = convert(node, inputs)
        results = output if isinstance(output, tuple | list) else (output,)
        if len(results) < len(node.outputs):
            raise ConversionError(f"{len(results)} outputs were made, not {len(node.outputs)}")
        for array in arrays:
            mapped.let_go(array)
        for value, result in zip(node.outputs, results, strict=False):
            if isinstance(result, Blob):
                self.bind(value, result)
            elif value.name:
                self.give(value.name, result)

    def once(self, make: Callable[[Lowering], Any]) -> Any:
        """The blob that a function adds; the function is called only the first time."""
        if make not in self._made_once:
            self._made_once[make] = make(self)
        return self._made_once[make]

    def assume_rank(self, x: Blob, rank: int) -> Blob:
        """A blob whose shape a custom layer hides, with the rank that its reader takes.

        Its batch is that of the graph's inputs; the other extents stay unknown.
        """
        if x.shape is not None:
            return x
        batches = {
            blob.known[0] for blob in map(self.blob, self.graph.inputs) if blob.shape is not None
        }
        batch = batches.pop() if len(batches) == 1 else None
        shape = (batch, *(None,) * (rank - 1))
        self.builder.shapes[x.name] = shape
        return replace(x, shape=shape)

    def arranged_inputs(self, inputs: Sequence[Blob], accepted: Accepted) -> list[Blob]:
        """The inputs in one of the accepted layouts, which new layers also use."""
        chosen = layouts.choose(inputs, accepted)
        results = [layouts.arrange(self, x, chosen) for x in inputs]
        self._layout = results[0].layout if results else SOURCE
        if any(x.layout.kind != chosen.kind and x.rank >= 3 for x in results):
            raise ConversionError("inputs of different layouts")
        if chosen == CHANNELS_FIRST:
            self._layout = CHANNELS_FIRST
        return results
