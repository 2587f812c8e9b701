"""Adds layers to the network being built, named after their node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mlferry import limits
from mlferry.converters.values import SOURCE, Blob, Layout
from mlferry.errors import ConversionError
from mlferry.layers.builder import Builder
from mlferry.spec.proto import neural_network_pb2 as nn


class LayerWriter:
    """Adds layers for the current node.

    Attributes:
        builder: the network.
        arranged: blobs by name and layout, so that none is transposed twice.
    """

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.arranged: dict[tuple[str, str], Blob] = {}
        self._inverse: dict[tuple[str, str, tuple[int, ...]], Blob] = {}
        self._numbers: dict[str, int] = {}  # of the last layers by their names without it
        self._node_name = ""
        self._layout = SOURCE

    @property
    def node_name(self) -> str:
        """The name of the current node."""
        return self._node_name

    def layer(
        self,
        kind: str,
        *inputs: Blob,
        name: str | None = None,
        layout: Layout | None = None,
        **params: object,
    ) -> Blob:
        """Add a layer and return its output blob.

        Args:
            kind: Core ML's name of the layer kind.
            inputs: the blobs that it reads.
            name: of the layer; by default the node's, and then the node's followed by the kind.
            layout: of the output; by default that of the node's inputs.
        """
        return self.outputs(1, kind, *inputs, name=name, layout=layout, **params)[0]

    def outputs(
        self,
        count: int,
        kind: str,
        *inputs: Blob,
        name: str | None = None,
        layout: Layout | None = None,
        **params: Any,
    ) -> tuple[Blob, ...]:
        """Add a layer of several outputs; see `layer`."""
        for x in inputs:
            self.check_axes(x)
        label = self._unique(name or self._node_name, kind)
        blobs = [label] if count == 1 else [f"{label}:{index}" for index in range(count)]
        layer = self.builder.layer(kind, label, [x.name for x in inputs], blobs, **params)
        hidden = next((x.hidden_by for x in inputs if x.shape is None), "")
        return tuple(
            Blob(blob, self.builder.shapes[blob], layout or self._layout, hidden)
            for blob in layer.output
        )

    def renamed(self, layer: nn.NeuralNetworkLayer, x: Blob) -> Blob:
        """An output of a layer, which no other layer reads yet, named after the current node."""
        label = self._unique(self._node_name, layer.WhichOneof("layer") or "")
        self.builder.rename_output(layer, x.name, label)
        return replace(x, name=label)

    # ---- value by value ----------------------------------------------------------------------

    def emit(self, kind: str, *inputs: Blob, **params: Any) -> Blob:
        """Add a layer that computes value by value, in the layout of its inputs.

        Inputs of several layouts go by the one with the most axes; the result has no axes if none
        of them has any.
        """
        axes = [x for x in inputs if not x.is_scalar] or inputs
        layouts = {x.layout for x in axes}
        layout = layouts.pop() if len(layouts) == 1 else max(axes, key=lambda x: x.rank).layout
        return self.layer(kind, *inputs, layout=layout, **params)

    def add(self, *inputs: Blob) -> Blob:
        """x + y, which broadcast; see `emit`."""
        return self.emit("addBroadcastable", *inputs)

    def subtract(self, x: Blob, y: Blob) -> Blob:
        """x - y, which broadcast; see `emit`."""
        return self.emit("subtractBroadcastable", x, y)

    def multiply(self, *inputs: Blob) -> Blob:
        """x * y, which broadcast; see `emit`."""
        return self.emit("multiplyBroadcastable", *inputs)

    def divide(self, x: Blob, y: Blob) -> Blob:
        """x / y, which broadcast; see `emit`."""
        return self.emit("divideBroadcastable", x, y)

    def maximum(self, x: Blob, y: Blob) -> Blob:
        """The larger value at each place; see `emit`."""
        return self.emit("maxBroadcastable", x, y)

    def minimum(self, x: Blob, y: Blob) -> Blob:
        """The smaller value at each place; see `emit`."""
        return self.emit("minBroadcastable", x, y)

    def where(self, condition: Blob, x: Blob, y: Blob) -> Blob:
        """x where the condition holds, y elsewhere; see `emit`."""
        return self.emit("whereBroadcastable", condition, x, y)

    # ---- of blobs in the source's order of axes ----------------------------------------------

    def transpose(self, x: Blob, axes: Sequence[int]) -> Blob:
        """The axes in another order."""
        return self.layer("transpose", x, layout=SOURCE, axes=axes)

    def gather(self, x: Blob, indices: Blob, axis: int) -> Blob:
        """The entries of an axis at indices."""
        return self.layer("gather", x, indices, layout=SOURCE, axis=axis)

    def concat(self, blobs: Iterable[Blob], axis: int) -> Blob:
        """Blobs one after another along an axis."""
        return self.layer("concatND", *blobs, layout=SOURCE, axis=axis)

    def split(self, x: Blob, parts: int | Sequence[int], axis: int) -> list[Blob]:
        """The parts of an axis: so many equal ones, or of these sizes.

        Raises:
            LimitError: there are too many.
        """
        sizes: dict[str, Any] = {} if isinstance(parts, int) else {"splitSizes": parts}
        count = parts if isinstance(parts, int) else len(parts)
        if count == 1:
            return [x]
        limits.check("unrolled", count, "the parts of an axis are blobs of their own; there are:")
        return list(
            self.outputs(count, "splitND", x, layout=x.layout, axis=axis, numSplits=count, **sizes)
        )

    def matmul(
        self, x: Blob, y: Blob, *, transpose_x: bool = False, transpose_y: bool = False
    ) -> Blob:
        """Products of matrices, which lie along the last two axes."""
        return self.layer(
            "batchedMatmul", x, y, layout=SOURCE, transposeA=transpose_x, transposeB=transpose_y
        )

    def reduce(self, kind: str, x: Blob, axes: Sequence[int], *, keep: bool = True) -> Blob:
        """A reduction, "reduceSum" for example; `keep` leaves axes of extent 1."""
        return self.layer(kind, x, layout=SOURCE, axes=axes, keepDims=keep)

    # ------------------------------------------------------------------------------------------

    def fresh(self, name: str) -> str:
        """A new name for a blob, made from the node's."""
        return self.builder.unused_blob(f"{self._node_name}/{name}")

    def copy(self, x: Blob, target: str) -> None:
        """Copy a blob into another one, which may exist."""
        label = self.builder.unused_layer(f"{target}/copy")
        self.builder.layer("copy", label, [x.name], [target])

    def check_axes(self, x: Blob) -> None:
        """Raise a `ConversionError` if a value has more axes than the blob that holds it."""
        if x.shape is not None and x.shape != self.builder.shapes[x.name]:
            raise ConversionError(
                f"a value of {len(x.shape)} axes, {x.shape}: Core ML has at most five, and only a "
                "transpose between two reshapes can do with more"
            )

    def constant(self, array: ArrayLike, *, layout: Layout | None = None) -> Blob:
        """A blob that holds an array of at least one axis."""
        values = np.atleast_1d(np.asarray(array, np.float32))
        return self.layer(
            "loadConstantND",
            name=f"{self._node_name}/constant",
            layout=layout,
            shape=values.shape,
            data=values,
        )

    def expand(self, x: Blob, *axes: int) -> Blob:
        """Insert axes of extent 1; undoes a `squeeze` of the same axes."""
        return self._or_undone("expandDims", "squeeze", "expand", x, axes)

    def squeeze(self, x: Blob, *axes: int) -> Blob:
        """Remove axes of extent 1; undoes an `expand` of the same axes."""
        return self._or_undone("squeeze", "expandDims", "squeeze", x, axes)

    def _or_undone(
        self, kind: str, inverse: str, name: str, x: Blob, axes: tuple[int, ...]
    ) -> Blob:
        undone = self._inverse.get((x.name, kind, axes))
        if undone is not None:
            return undone
        output = self.layer(kind, x, name=f"{self._node_name}/{name}", layout=x.layout, axes=axes)
        self._inverse[(output.name, inverse, axes)] = x
        return output

    def relabel(self, x: Blob, layout: Layout) -> Blob:
        """The same blob in another layout, without a copy."""
        return replace(x, layout=layout)

    def _unique(self, name: str, kind: str) -> str:
        is_taken = self.builder.is_taken
        if not is_taken(name):
            return name
        stem = name if name.endswith(f"/{kind}") else f"{name}/{kind}"
        index = self._numbers.get(stem, 0)
        label = f"{stem}_{index}" if index else stem
        while is_taken(label):
            index += 1
            label = f"{stem}_{index}"
        self._numbers[stem] = index
        return label

    def start(self, name: str) -> None:
        """Name the following layers after `name`."""
        self._node_name, self._layout = name, SOURCE
