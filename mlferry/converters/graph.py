"""The graph into which every frontend reads its source: names, attributes, arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.values import Blob
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array, Shape
from mlferry.registry import did_you_mean


@dataclass(frozen=True)
class Value:
    """A value along an edge.

    Attributes:
        name: unique in its graph.
        shape: in the source's order of axes; None, or a None in it, if it is unknown.
        dtype: NumPy's name of the type.
        axes: the source's names of the axes, "" for an axis without one; may be empty.
    """

    name: str
    shape: Shape | None = None
    dtype: str = "float32"
    axes: tuple[str, ...] = ()


class Once(Protocol):
    """The part of `Lowering` that adds the layers of a mask."""

    def once(self, make: Callable[[Any], Any]) -> Any:
        """The blob that a function adds; the function is called only the first time."""


@dataclass(frozen=True, eq=False)
class Mask:
    """Which entries of an input count, in sources that track this: 1 where they do, else 0.

    It is computed when a layer asks for it.

    Attributes:
        origin: the nodes from which it comes.
        make: adds the layers that compute it, given the `Lowering`; None if a layer between does
            not pass it on.
        is_certain: whether the layer that receives it certainly computes with it.
        unless_listed: whether it does not apply to a layer whose call lists its masks.
    """

    origin: str
    make: Callable[[Any], Blob | None]
    is_certain: bool = True
    unless_listed: bool = False

    def blob(self, context: Once) -> Blob | None:
        """The mask as a blob in the source's order of axes, computed once for each `Lowering`."""
        output: Blob | None = context.once(self.make)
        return output

    def __repr__(self) -> str:
        return repr(self.origin)


# A value of a config or of an attribute, as in JSON.
Attribute = bool | int | float | str | Sequence["Attribute"] | Mapping[str, "Attribute"] | None


class Attributes(Mapping[str, Any]):
    """The options of a node, which remember which of them were read, so that none is overlooked."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self._read.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def add(self, name: str, value: bool) -> None:
        """Add an option that the source does not spell out."""
        self._values[name] = value

    def unread(self) -> dict[str, Any]:
        """The options that no converter has read."""
        return {name: value for name, value in self._values.items() if name not in self._read}

    def as_dict(self) -> dict[str, Any]:
        """A copy that does not count as reading."""
        return dict(self._values)


@dataclass(frozen=True)
class NodeCall:
    """How the source calls a node; a frontend's own class adds what it knows."""


@dataclass
class Node:
    """One operation of the source.

    Attributes:
        op: the source's name of the operation.
        name: unique in its graph.
        inputs: the values that it reads.
        outputs: the values that it makes.
        attrs: its options.
        weights: its arrays by the source's names, in the source's order.
        keys: the names under which a custom conversion function is looked up, in order.
        elementwise: whether each output value depends on one input value alone.
        layer: the source's own object, for models in memory.
        proto: the source's own message.
        parts: the layers inside it by their keys, as nodes without inputs.
        call: how the source calls it, where calls have arguments.
        arguments: what the source calls it with besides tensors, where calls have arguments.
        masks: which entries of each input count, where the node computes with it.
        passes_mask: whether a layer of the user's own passes masks on, where its conversion
            function says so.
        is_traced: whether what its layer computes is converted, not the layer.
        functions: those among the options, by the option's name, where a file names them.
        carried_masks: those of the inputs that the layers inside see, where it is traced.
        traced_masks: those of the outputs of a layer that was traced.
        input_shapes: shapes of the inputs in the source's order of axes, set while lowering.
        output_shapes: shapes of the outputs, where the source gives them.
        captures: names of values that graphs among its options read around them.
    """

    op: str
    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    attrs: Attributes
    weights: Mapping[str, Array] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    elementwise: bool = False
    layer: Any = None
    proto: Any = None
    parts: Mapping[str, Node] = field(default_factory=dict)
    call: NodeCall | None = None
    arguments: Attributes = field(default_factory=lambda: Attributes({}))
    masks: Sequence[Mask | None] = ()
    passes_mask: bool | None = None
    is_traced: bool = False
    functions: Mapping[str, Any] = field(default_factory=dict)
    carried_masks: Sequence[Mask | None] = ()
    traced_masks: Sequence[Mask | None] = ()
    input_shapes: list[Shape | None] = field(default_factory=list)
    captures: frozenset[str] = frozenset()

    def get_config(self) -> dict[str, Any]:
        """The options of the source, and the arguments of its call."""
        arguments = self.arguments.as_dict().items()
        return self.attrs.as_dict() | {f"argument {name}": value for name, value in arguments}

    def get_weights(self) -> list[Array]:
        """The arrays in the source's order."""
        return [np.asarray(array) for array in self.weights.values()]

    def weight(self, name: str) -> NDArray[np.float32]:
        """One array as float32, which cannot be written: it may be the source's own.

        Raises:
            ConversionError: the node has no such array, or it overflows float32.
        """
        if name not in self.weights:
            known = ", ".join(self.weights) or "none"
            raise ConversionError(f"there is no weight {name!r} in the file; it has {known}")
        with np.errstate(over="ignore"):
            array = np.asarray(self.weights[name])
            result: NDArray[np.float32] = array.astype(np.float32, copy=False).view()
        result.flags.writeable = False
        if array.dtype.itemsize > 4 and not np.array_equal(np.isinf(array), np.isinf(result)):
            raise ConversionError(f"weight {name!r} has values that do not fit into float32")
        return result

    @property
    def has_mask(self) -> bool:
        """Whether a mask says which entries of an input count; a custom layer gets it as well."""
        return any(mask is not None for mask in self.masks)

    @property
    def input_shape(self) -> Any:
        """The shape of the input, or the list of shapes of several."""
        return self.input_shapes[0] if len(self.input_shapes) == 1 else list(self.input_shapes)

    @property
    def output_shape(self) -> Any:
        """The shape of the output (or a list of several), if the source gives it."""
        shapes = [value.shape for value in self.outputs]
        return shapes[0] if len(shapes) == 1 else shapes

    @property
    def output_shapes(self) -> list[Shape] | None:
        """The fully known shapes of the outputs, or None."""
        shapes = [value.shape for value in self.outputs]
        return [shape for shape in shapes if shape] if all(shapes) else None

    def __getattr__(self, name: str) -> Any:
        attrs, layer = self.__dict__.get("attrs"), self.__dict__.get("layer")
        own = None if layer is None or name.startswith("_") else getattr(layer, name, None)
        if name in self.__dict__.get("functions", ()):
            return self.functions[name]
        if attrs is not None and name in attrs:
            value = attrs[name]
            # a config holds a function as its name or code; the object holds the function itself
            return own if callable(own) and not isinstance(value, str) else value
        if own is not None:
            return own
        known = ", ".join(attrs or ()) or "none"
        raise AttributeError(
            f"{self.__dict__.get('op')} {self.__dict__.get('name')!r} has no option {name!r}; "
            f"its options: {known}"
        )

    def __str__(self) -> str:
        return f"{self.op} {self.name!r}"


@dataclass
class Graph:
    """A source model.

    Attributes:
        source: where it came from, for messages.
        framework: the frontend's name.
        version: the version of the framework that wrote it, as the registry's `since` counts.
        inputs: the values that a user gives.
        outputs: the names of the outputs with the values that they show.
        nodes: in an order in which every value is made before it is read.
        channels_last: whether images lie as [N, H, W, C].
        release: the framework's own version.
        is_file: whether `source` is a path.
        constants: values that are known, in the source's own types.
        functions: the model's own functions by domain and name.
        opsets: versions by domain.
        masks: which entries of values count, by the names of the values.
        isolated: whether libraries that may crash on the source run in a process of their own.
    """

    source: str
    framework: str
    version: int
    inputs: Sequence[Value]
    outputs: Sequence[tuple[str, Value]]
    nodes: Sequence[Node]
    channels_last: bool = True
    release: str = ""
    is_file: bool = True
    constants: Mapping[str, Array] = field(default_factory=dict)
    functions: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    opsets: Mapping[str, int] = field(default_factory=dict)
    masks: Mapping[str, Mask] = field(default_factory=dict)
    isolated: bool = False

    def readers(self, name: str) -> Sequence[Node]:
        """The nodes that read a value, themselves or in a graph inside them."""
        return self._readers.get(name, ())

    @cached_property
    def _readers(self) -> dict[str, list[Node]]:
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in {value.name for value in node.inputs} | node.captures:
                readers.setdefault(name, []).append(node)
        return readers

    def unknown(self, role: str, name: str | None, names: list[str]) -> ConversionError:
        """The error for an input or output, whichever `role` says, that is none of the names."""
        close = did_you_mean(str(name), names)
        return ConversionError(
            f"{self.source} has no {role} {name!r}.{close} Its {role}s: {', '.join(names)}"
        )

    @property
    def expression(self) -> str:
        """How users name the source in code."""
        return repr(self.source) if self.is_file else "model"

    def with_input_names(self, names: Sequence[str]) -> Graph:
        """The same graph with new names for its inputs, in order."""
        renamed = {
            old.name: replace(old, name=new) for old, new in zip(self.inputs, names, strict=True)
        }
        nodes = [
            replace(node, inputs=tuple(renamed.get(v.name, v) for v in node.inputs))
            for node in self.nodes
        ]
        outputs = [(name, renamed.get(v.name, v)) for name, v in self.outputs]
        return replace(self, inputs=list(renamed.values()), nodes=nodes, outputs=outputs)


def distinct_names(names: Sequence[str]) -> list[str]:
    """The same names, with a number after each that appeared before.

    The first occurrence of a name stays as it is; only later ones change.
    """
    originals = set(names)
    seen: set[str] = set()
    results = []
    for name in names:
        label, count = name, 0
        while label in seen or (count and label in originals):
            count += 1
            label = f"{name}_{count}"
        seen.add(label)
        results.append(label)
    return results
