"""From a `Graph` to a Core ML network: the only walker.

For every node: the user's custom conversion function first, the frontend's converter next.
Ops with neither are collected before anything is built, and reported in one error.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from mlferry import limits
from mlferry.converters import layout as layouts, sizes
from mlferry.converters.custom_layers import (
    CustomFunction,
    Trace,
    add_custom,
    automatic,
    call_user,
    offered,
)
from mlferry.converters.graph import Graph, Mask, Node, Value
from mlferry.converters.layout import (
    CHANNELS_FIRST,
    SOURCE,
    Blob,
    Constant,
    Layout,
    Opaque,
    Operand,
)
from mlferry.converters.unsupported import unsupported
from mlferry.errors import ConversionError, MlferryError, SpecError, context
from mlferry.layers.builder import Builder
from mlferry.numerics.shapes import Shape
from mlferry.registry import Entry, Registry, did_you_mean
from mlferry.spec.proto import neural_network_pb2 as nn

Converter = Callable[..., Any]
_EXACT = 2**24  # the largest range in which float32 holds every integer


@dataclass(frozen=True)
class Frontend:
    """What the walker needs to know of a source framework.

    Attributes:
        name: for messages.
        ops: its converters: ``convert(low, node, *inputs) -> Blob | tuple[Blob, ...]``.
        ignored: options that change training or names only.
        neutral: values of an option that ask for nothing, so that it may stay unread.
        fold: evaluates a node whose inputs are all constants, or returns None where it cannot.
        foldable: whether `fold` may evaluate a node that has no converter, too.
        prepare: looks at all nodes before the first is converted.
        moving: ops that only move values, with the operands whose values they move.
    """

    name: str
    ops: Registry[Converter]
    ignored: frozenset[str] = frozenset()
    neutral: tuple[Any, ...] = (None, False)
    fold: Callable[[Lowering, Node, Sequence[Any]], Sequence[Any] | None] | None = None
    prepare: Callable[[Graph], None] | None = None
    moving: Mapping[str, slice] = field(default_factory=dict)
    foldable: Callable[[Node], bool] | None = None


class Lowering:
    """Adds layers for one node after another; what converters work with."""

    def __init__(self, builder: Builder, graph: Graph) -> None:
        self.builder = builder
        self.graph = graph
        self.arranged: dict[tuple[str, str], Blob] = {}
        self.metadata: dict[str, str] = {}
        self.sizes = sizes.SizeLog()
        self.rounds_activations = True
        self._values: dict[str, Blob] = {}
        self._opaque: dict[str, Opaque] = {}
        self._contents: dict[Any, Blob] = {}  # of constants, by shape, type and numbers
        self.is_repeated = False
        self._constants = {name: Constant(name, a) for name, a in graph.constants.items()}
        self._computed = -4 * sum(a.nbytes for a in graph.constants.values())
        self._inverse: dict[tuple[str, str, tuple[int, ...]], Blob] = {}
        self._made_once: dict[Callable[[Lowering], Any], Any] = {}
        self._node_name = ""
        self._layout = SOURCE
        self.is_traced = False
        self.convert_inner: Callable[[Node], None] = lambda node: None
        self.convert_inside: Callable[..., tuple[list[Blob], list[Mask | None]]] = _no_graphs

    @property
    def node_name(self) -> str:
        """The name of the node that is converted now."""
        return self._node_name

    # ---- what converters use -----------------------------------------------------------

    def layer(
        self,
        kind: str,
        *inputs: Blob,
        name: str | None = None,
        layout: Layout | None = None,
        **params: Any,
    ) -> Blob:
        """Add a layer and return its output blob.

        Args:
            kind: Core ML's name of the layer kind.
            inputs: the blobs that it reads.
            name: of the layer; by default the node's, then the node's with the kind behind it.
            layout: of the output; by default the one that the node's inputs came in.
            params: fields of the layer's parameters.
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
        added = self.builder.layer(kind, label, [x.name for x in inputs], blobs, **params)
        hidden = next((x.hidden_by for x in inputs if x.shape is None), "")
        return tuple(
            Blob(blob, self.builder.shapes[blob], layout or self._layout, hidden)
            for blob in added.output
        )

    @contextmanager
    def inside(self, *, kept: bool = True) -> Iterator[nn.NeuralNetwork]:
        """What is added in the block makes a network of its own; see `Builder.inside`."""
        caches: list[dict[Any, Any]] = [
            self._values, self._constants, self.arranged, self._inverse, self._opaque,
            self._made_once, self._contents,
        ]  # fmt: skip
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

    def fresh(self, name: str) -> str:
        """A name for a blob that no blob or layer has, made of the node's."""
        return self.builder.unused_blob(f"{self._node_name}/{name}")

    def copy(self, x: Blob, target: str) -> None:
        """Copy a blob into another one, which may exist."""
        label = self.builder.unused_layer(f"{target}/copy")
        self.builder.layer("copy", label, [x.name], [target])

    def check_axes(self, x: Blob) -> None:
        """Raise a `ConversionError` where a value has more axes than the blob that holds it."""
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
        made = self.layer(kind, x, name=f"{self._node_name}/{name}", layout=x.layout, axes=axes)
        self._inverse[(made.name, inverse, axes)] = x
        return made

    def reshape(self, x: Blob, shape: Shape, *, layout: Layout | None = None) -> Blob:
        """Reshape; one unknown extent is allowed."""
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

    def relabel(self, x: Blob, layout: Layout) -> Blob:
        """The same blob, read in another layout."""
        return replace(x, layout=layout)

    def _unique(self, name: str, kind: str) -> str:
        taken = self.builder.is_taken
        if not taken(name):
            return name
        stem = name if name.endswith(f"/{kind}") else f"{name}/{kind}"
        index = 0
        label = stem
        while taken(label):
            index += 1
            label = f"{stem}_{index}"
        return label

    # ---- the walk ----------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Name the layers that follow after `name`."""
        self._node_name, self._layout = name, SOURCE

    def bind(self, value: Value, blob: Blob) -> None:
        """Say which blob holds a value of the graph."""
        self._values[value.name] = blob

    def blob(self, value: Value) -> Blob:
        """The blob that holds a value; a constant is written into the model now."""
        if value.name not in self._values:
            self._values[value.name] = self.stored(self._constants[value.name])
        return self._values[value.name]

    def give(self, name: str, operand: Any) -> None:
        """Say what a name stands for: a blob, or what is known."""
        if isinstance(operand, Blob):
            self._values[name] = operand
        elif isinstance(operand, Opaque):
            self._opaque[name] = operand
        else:
            known = (
                operand if isinstance(operand, Constant) else Constant(name, np.asarray(operand))
            )
            self._constants[name] = replace(known, name=name)

    def alias(self, name: str, operand: Any) -> None:
        """Give an operand another name; a constant stays the same, and is stored once."""
        if isinstance(operand, Constant) and operand.name:
            self._constants[name] = operand
        else:
            self.give(name, operand)

    def operand(self, value: Value) -> Operand:
        """What a converter gets for a value: its blob, its constant, or None for no name."""
        if not value.name:
            return None
        known = self._constants.get(value.name) or self._opaque.get(value.name)
        return known or self.blob(value)

    def stored(self, constant: Constant) -> Blob:
        """The blob of a constant; what holds the same numbers is written once.

        Raises:
            ConversionError: it has no elements, or integers that float32 cannot hold.
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
        content = (array.shape, array.dtype.str, hashlib.sha256(array.tobytes()).digest())
        if content not in self._contents:
            layout = layouts.SCALAR if array.ndim == 0 else self._layout
            self._contents[content] = self.constant(array.astype(np.float32), layout=layout)
        made = self._contents[content]
        if constant.name:
            self._values[constant.name] = made
        return made

    def compute(self, size: int) -> None:
        """Account for an array that is computed from constants, before it is.

        Args:
            size: its number of bytes.

        Raises:
            LimitError: the constants of this conversion take too much memory.
        """
        self._computed += size
        limits.check("constants", self._computed, "arrays computed from constants take bytes:")

    def run(self, node: Node, convert: Callable[[Node, Sequence[Any]], Any]) -> None:
        """Convert one node with its inputs and bind what comes back to its outputs."""
        self.start(node.name)
        self.sizes.node = str(node)
        inputs = [self.operand(value) for value in node.inputs]
        node.input_shapes = [
            x.array.shape if isinstance(x, Constant) else x.source_shape if x is not None else None
            for x in inputs
        ]
        made = convert(node, inputs)
        results = made if isinstance(made, tuple | list) else (made,)
        if len(results) < len(node.outputs):
            raise ConversionError(f"{len(results)} outputs were made, not {len(node.outputs)}")
        for value, result in zip(node.outputs, results, strict=False):
            if isinstance(result, Blob):
                self.bind(value, result)
            elif value.name:
                self.give(value.name, result)

    def once(self, make: Callable[[Lowering], Any]) -> Any:
        """What a function adds, which is called the first time only."""
        if make not in self._made_once:
            self._made_once[make] = make(self)
        return self._made_once[make]

    def assume_rank(self, x: Blob, rank: int) -> Blob:
        """A blob whose shape a custom layer hides, as one of the rank that its reader takes.

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

    def arranged_inputs(self, inputs: Sequence[Blob], accepted: layouts.Accepted) -> list[Blob]:
        """The inputs in one layout out of those accepted; new layers take it, too."""
        chosen = layouts.choose(inputs, accepted)
        found = [layouts.arrange(self, x, chosen) for x in inputs]
        self._layout = found[0].layout if found else SOURCE
        if any(x.layout.kind != chosen.kind and x.rank >= 3 for x in found):
            raise ConversionError("inputs of different layouts")
        if chosen == CHANNELS_FIRST:
            self._layout = CHANNELS_FIRST
        return found


@dataclass(frozen=True)
class Choices:
    """What becomes of the nodes that a frontend has no converter for, as the user chose.

    Attributes:
        functions: the user's functions, by node name, op or activation name.
        add_custom_layers: make a custom layer of every op that has no converter and no
            function, with its options as parameters and its arrays as weights.
        tracer: converts what layers of the user's own compute.
        trace_custom_layers: trace every layer without a converter that can be.
        channels_first: the layout of custom layers whose function does not say.
    """

    functions: Mapping[str, CustomFunction] = field(default_factory=dict)
    add_custom_layers: bool = False
    tracer: Tracer | None = None
    trace_custom_layers: bool = False
    channels_first: bool = False


class Tracer(Protocol):
    """Converts what a layer of the user's own computes; see `mlferry.converters.tracing`."""

    def can(self, node: Node) -> bool:
        """Whether the layer's object is at hand, or can be made."""
        ...

    def works(self, node: Node) -> bool:
        """Whether everything that the layer computes has a converter."""
        ...

    def convert(self, low: Lowering, node: Node, inputs: Sequence[Any]) -> list[Blob]:
        """Add what a layer computes."""
        ...


_Convert = Callable[[Node, Sequence[Any]], Any]


class _Walker:
    """Converts the nodes of one graph: its own, or one that a layer was traced into."""

    def __init__(self, low: Lowering, graph: Graph, frontend: Frontend, choices: Choices) -> None:
        self.low, self.graph, self.frontend, self.choices = low, graph, frontend, choices
        self.count = itertools.count(1)
        low.convert_inner = self.run_inside
        low.convert_inside = self.run_graph

    def plan(self, unused: Mapping[str, str] | None = None) -> list[tuple[Node, _Convert]]:
        """How each node is converted.

        Raises:
            UnsupportedOpError: for all nodes that have neither a converter nor a function.
        """
        for node in self.graph.nodes:
            node.is_traced = self._is_traced(node)
        if self.frontend.prepare is not None:
            self.frontend.prepare(self.graph)
        known = set(self.graph.constants)
        found: list[tuple[Node, _Convert | None]] = []
        for node in self.graph.nodes:
            is_known = self._is_foldable(node) and all(v.name in known for v in node.inputs)
            if is_known:
                known |= {value.name for value in node.outputs}
            found.append((node, self._way(node) or (self._folded if is_known else None)))
        missing = [node for node, way in found if way is None]
        if missing:
            raise self._unsupported(missing, unused)
        return [(node, way) for node, way in found if way is not None]

    def _unsupported(
        self, missing: Sequence[Node], unused: Mapping[str, str] | None = None
    ) -> Exception:
        tracer = self.choices.tracer
        firsts = {node.op: node for node in reversed(missing)}
        traceable = [op for op, node in firsts.items() if tracer and tracer.works(node)]
        return unsupported(missing, self.graph, self.frontend, unused or {}, traceable[::-1])

    def run(self, node: Node, way: _Convert) -> None:
        """Convert one node."""
        with context(f"converting {node} of {self.graph.source}"), as_conversion_errors():
            self.low.run(node, way)

    def run_inside(self, node: Node) -> None:
        """Convert a node of a branch, or of a round of a loop."""
        limits.check("unrolled", next(self.count), "nodes of branches and of rounds of loops:")
        way = self._way(node) or self._folded
        with context(f"converting {node} inside"):
            self.low.run(node, way)

    def run_graph(
        self, graph: Graph, frontend: Frontend, inputs: Sequence[Blob], masks: Sequence[Mask | None]
    ) -> tuple[list[Blob], list[Mask | None]]:
        """Convert a graph that stands for the node that is converted now.

        Args:
            graph: with one input for each blob.
            frontend: its converters.
            inputs: in the source's order of axes.
            masks: those of the inputs.

        Returns:
            the blobs of the outputs, and their masks.
        """
        low = Lowering(self.low.builder, graph)
        low.metadata, low.rounds_activations = self.low.metadata, self.low.rounds_activations
        low.sizes = self.low.sizes
        nodes = [replace(n, name=f"{self.low.node_name}/{n.name}") for n in graph.nodes]
        given = [value.name for value in graph.inputs]
        known = {
            name: replace(mask, make=functools.partial(_made, mask.blob(self.low)))
            for name, mask in zip(given, masks, strict=False)
            if mask is not None
        }
        inside = replace(graph, nodes=nodes, masks=known)
        low.is_traced = True
        walker = _Walker(low, inside, frontend, self.choices)
        plan = walker.plan()
        for value, blob in zip(graph.inputs, inputs, strict=True):
            low.bind(value, blob)
        for node, way in plan:
            walker.run(node, way)
        made = [low.operand(value) for _, value in graph.outputs]
        blobs = [low.stored(x) if isinstance(x, Constant) else x for x in made]
        kept = [x for x in blobs if isinstance(x, Blob)]
        if len(kept) < len(blobs):
            raise ConversionError("a layer that gives what is no array")
        passed = [inside.masks.get(value.name) for _, value in graph.outputs]
        return kept, [
            None if mask is None else replace(mask, make=functools.partial(_late, mask, low))
            for mask in passed
        ]

    def _is_foldable(self, node: Node) -> bool:
        return self.frontend.foldable is not None and self.frontend.foldable(node)

    def _folded(self, node: Node, inputs: Sequence[Any]) -> Any:
        made = _fold(self.low, node, inputs, self.frontend)
        if made is None:
            raise self._unsupported([node])
        return made

    def _found(self, node: Node) -> CustomFunction | Entry[Converter] | None:
        for key in node.keys:
            if key in self.choices.functions:
                return self.choices.functions[key]
        return self.frontend.ops.find(node.op, self.graph.version)

    def _is_traced(self, node: Node) -> bool:
        found, tracer = self._found(node), self.choices.tracer
        if isinstance(found, Trace):
            return True
        every = self.choices.trace_custom_layers or self.low.is_traced
        return found is None and every and tracer is not None and tracer.can(node)

    def _way(self, node: Node) -> _Convert | None:
        found, low, tracer = self._found(node), self.low, self.choices.tracer
        first = self.choices.channels_first
        if node.is_traced and tracer is not None:
            return functools.partial(tracer.convert, low)
        if isinstance(found, Entry):
            return functools.partial(_built_in, low, self.frontend, found)
        if found is not None:
            return functools.partial(_users, low, found, first)
        return self._automatic if self.choices.add_custom_layers else None

    def _automatic(self, node: Node, inputs: Sequence[Any]) -> Any:
        """A custom layer with the options of a node, or what it makes of constants."""
        made = _fold(self.low, node, inputs, self.frontend) if self._is_foldable(node) else None
        if made is not None:
            return made
        blobs = offered(self.low, node, inputs)
        return add_custom(self.low, node, blobs, automatic(node), self.choices.channels_first)


def _users(
    low: Lowering, function: CustomFunction, first: bool, node: Node, inputs: Sequence[Any]
) -> Any:
    """What a user's function makes, which may be computed with any of the extents."""
    for x in inputs:
        if isinstance(x, Blob):
            sizes.use(x)
    low.sizes.use(low.sizes.behind(*inputs))
    return call_user(low, node, inputs, function, first)


def _no_graphs(*arguments: Any) -> tuple[list[Blob], list[Mask | None]]:
    raise ConversionError("a graph inside another, before the walk has begun")


def _made(blob: Blob | None, low: Lowering) -> Blob | None:
    return blob


def _late(mask: Mask, inside: Lowering, low: Lowering) -> Blob | None:
    return mask.blob(inside)


def lower(
    graph: Graph,
    frontend: Frontend,
    bind_inputs: Callable[[Lowering], None],
    choices: Choices,
    *,
    activation_quantization: str = "keep",
) -> Lowering:
    """Build the network of a graph.

    Args:
        graph: the source.
        frontend: its converters.
        bind_inputs: adds the inputs to the builder and binds them.
        choices: what becomes of ops without a converter.
        activation_quantization: "keep" or "drop"; see `mlferry.convert`.

    Raises:
        UnsupportedOpError: ops have neither a converter nor a function; it names all.
        ConversionError: a node cannot be converted.
    """
    if activation_quantization not in ("keep", "drop"):
        raise ConversionError(f"activation_quantization={activation_quantization!r}: keep or drop")
    low = Lowering(Builder(), graph)
    low.rounds_activations = activation_quantization == "keep"
    walker = _Walker(low, graph, frontend, choices)
    unused = _unused(choices.functions, graph)
    plan = walker.plan(unused)
    if unused:
        warnings.warn(
            f"custom_conversion_functions: nothing in {graph.source} is named "
            f"{', '.join(map(_with_hint, unused, unused.values()))}",
            stacklevel=3,
        )
    bind_inputs(low)
    with sizes.logged(low.sizes):
        for node, way in plan:
            walker.run(node, way)
    return low


def _with_hint(key: str, hint: str) -> str:
    return f"{key!r}.{hint}" if hint else repr(key)


def _unused(functions: Mapping[str, CustomFunction], graph: Graph) -> dict[str, str]:
    """The user's keys that match nothing, with a hint at what was near."""
    names = {key for node in graph.nodes for key in node.keys}
    return {key: did_you_mean(key, sorted(names)) for key in functions if key not in names}


def _built_in(
    low: Lowering, frontend: Frontend, found: Entry[Converter], node: Node, inputs: Sequence[Any]
) -> Any:
    folded = _fold(low, node, inputs, frontend)
    if folded is not None:
        return folded
    if not found.options.get("sizes"):
        low.sizes.use(low.sizes.behind(*inputs))
    if "layouts" not in found.options and frontend.fold is not None:
        made = found.value(low, node, *inputs)
        _check_options(node, frontend)
        return made
    accepted = found.options.get("layouts", (SOURCE,))
    if callable(accepted):
        accepted = accepted(node)
    rank = found.options.get("rank")
    given = inputs if rank is None else [low.assume_rank(x, rank) for x in inputs]
    made = found.value(low, node, *low.arranged_inputs(given, accepted))
    _check_options(node, frontend)
    return made


def _fold(
    low: Lowering, node: Node, inputs: Sequence[Any], frontend: Frontend
) -> Sequence[Any] | None:
    """What a node of constants makes, where the frontend can evaluate it."""
    known = all(x is None or isinstance(x, Constant) for x in inputs)
    if frontend.fold is None or not known:
        return None
    arrays = [None if x is None else x.array for x in inputs]
    made = frontend.fold(low, node, arrays)
    if made is None or not low.sizes.behind(*inputs):
        return made

    def moved() -> Sequence[Any] | None:
        which = range(len(inputs))[frontend.moving.get(node.op, slice(0))]
        if low.sizes.behind(*(x for i, x in enumerate(inputs) if i not in which)):
            return None
        codes = [sizes.codes_of(x) if i in which else a
                 for i, (x, a) in enumerate(zip(inputs, arrays, strict=True))]  # fmt: skip
        assert frontend.fold is not None
        return frontend.fold(low, node, codes)

    return sizes.folded(low.sizes, inputs, made, moved)


def _check_options(node: Node, frontend: Frontend) -> None:
    """Raise where an option that may matter was not looked at, of the layers inside too."""
    for part in node.parts.values():
        _check_options(part, frontend)
    left = {
        name: value
        for name, value in node.attrs.unread().items()
        if name not in frontend.ignored and not any(value is n for n in frontend.neutral)
    }
    if left:
        shown = ", ".join(f"{name}={value!r}" for name, value in left.items())
        raise ConversionError(
            f"options that mlferry cannot carry over: {shown}. Write a conversion function for "
            f"this layer: custom_conversion_functions={{{node.name!r}: function}}"
        )


@contextmanager
def as_conversion_errors() -> Iterator[None]:
    """Turn what the builder refuses, and what broken options cause, into `ConversionError`."""
    try:
        yield
    except SpecError as error:
        raise ConversionError(str(error)) from error
    except (MlferryError, NameError):  # a missing name is a fault of ours, whatever the input
        raise
    except Exception as error:
        raise ConversionError(f"its options or weights do not fit: {error!r}") from error
