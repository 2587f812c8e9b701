"""The only walk from a `Graph` to a Core ML network.

For every node: the user's custom conversion function first, the frontend's converter next. Ops with
neither are collected before anything is built and reported in one error.
"""

from __future__ import annotations

import functools
import itertools
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar, cast

from mlferry import limits
from mlferry.converters import sizes
from mlferry.converters.custom_layers import (
    CustomFunction,
    Trace,
    add_custom,
    automatic,
    call_user,
    offered,
)
from mlferry.converters.frontend import Converter, Frontend
from mlferry.converters.graph import Graph, Mask, Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.unsupported import unsupported
from mlferry.converters.values import SOURCE, Blob, Constant
from mlferry.errors import ConversionError, MlferryError, SpecError, context
from mlferry.layers.builder import Builder
from mlferry.progress import progress_of
from mlferry.registry import Entry, did_you_mean


@dataclass(frozen=True)
class Choices:
    """The user's choices for nodes without a converter in the frontend.

    Attributes:
        functions: the user's functions, by node name, op or activation name.
        add_custom_layers: make a custom layer of every op that has no converter and no
            function, with its options as parameters and its arrays as weights.
        tracer: converts the computation of the user's own layers.
        trace_custom_layers: trace every layer without a converter that can be.
        channels_first: the layout of custom layers whose function does not say.
    """

    functions: Mapping[str, CustomFunction] = field(default_factory=dict)
    add_custom_layers: bool = False
    tracer: LayerTracer | None = None
    trace_custom_layers: bool = False
    channels_first: bool = False


class LayerTracer(Protocol):
    """Converts the computation of a user's own layer; see `mlferry.converters.tracing`."""

    def can(self, node: Node) -> bool:
        """Whether the layer's object exists, or can be made."""
        ...

    def works(self, node: Node) -> bool:
        """Whether every op of the layer has a converter."""
        ...

    def convert(self, lowering: Lowering, node: Node, inputs: Sequence[Any]) -> list[Blob]:
        """Add the computation of a layer."""
        ...


_Convert = Callable[[Node, Sequence[Any]], Any]
_Method = TypeVar("_Method", bound=Callable[..., Any])


class _Walker:
    """Converts the nodes of one graph: the source's, or that of a traced layer."""

    def __init__(
        self, lowering: Lowering, graph: Graph, frontend: Frontend, choices: Choices
    ) -> None:
        self.lowering, self.graph, self.frontend, self.choices = lowering, graph, frontend, choices
        self.count = itertools.count(1)
        lowering.convert_inner = _weakly(self.run_inside)
        lowering.convert_inside = _weakly(self.run_graph)

    def plan(self, unused: Mapping[str, str] | None = None) -> list[tuple[Node, _Convert]]:
        """How each node is converted.

        Raises:
            UnsupportedOpError: nodes have neither a converter nor a function; all are named.
        """
        for node in self.graph.nodes:
            node.is_traced = self._is_traced(node)
        if self.frontend.prepare is not None:
            self.frontend.prepare(self.graph)
        known = set(self.graph.constants)
        results: list[tuple[Node, _Convert | None]] = []
        for node in self.graph.nodes:
            is_known = self._is_foldable(node) and all(v.name in known for v in node.inputs)
            if is_known:
                known |= {value.name for value in node.outputs}
            results.append((node, self._way(node) or (self._folded if is_known else None)))
        missing = [node for node, way in results if way is None]
        if missing:
            raise self._unsupported(missing, unused)
        return [(node, way) for node, way in results if way is not None]

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
            self.lowering.run(node, way)

    def run_inside(self, node: Node) -> None:
        """Convert a node of a branch or of a loop's round."""
        limits.check("unrolled", next(self.count), "nodes of branches and of rounds of loops:")
        way = self._way(node) or self._folded
        with context(f"converting {node} inside"):
            self.lowering.run(node, way)

    def run_graph(
        self, graph: Graph, frontend: Frontend, inputs: Sequence[Blob], masks: Sequence[Mask | None]
    ) -> tuple[list[Blob], list[Mask | None]]:
        """Convert a graph in place of the current node.

        Args:
            graph: with one input for each blob.
            inputs: in the source's order of axes.
            masks: those of the inputs.

        Returns:
            the blobs of the outputs, and their masks.
        """
        lowering = Lowering(self.lowering.builder, graph)
        lowering.metadata, lowering.rounds_activations = (
            self.lowering.metadata,
            self.lowering.rounds_activations,
        )
        lowering.sizes = self.lowering.sizes
        nodes = [replace(n, name=f"{self.lowering.node_name}/{n.name}") for n in graph.nodes]
        values = [value.name for value in graph.inputs]
        known = {
            name: replace(mask, make=functools.partial(_made, mask.blob(self.lowering)))
            for name, mask in zip(values, masks, strict=False)
            if mask is not None
        }
        inside = replace(graph, nodes=nodes, masks=known)
        lowering.is_traced = True
        walker = _Walker(lowering, inside, frontend, self.choices)
        plan = walker.plan()
        for value, blob in zip(graph.inputs, inputs, strict=True):
            lowering.bind(value, blob)
        for node, way in plan:
            walker.run(node, way)
        outputs = [lowering.operand(value) for _, value in graph.outputs]
        blobs = [lowering.stored(x) if isinstance(x, Constant) else x for x in outputs]
        remaining = [x for x in blobs if isinstance(x, Blob)]
        if len(remaining) < len(blobs):
            raise ConversionError("a layer whose result is not an array")
        passed = [inside.masks.get(value.name) for _, value in graph.outputs]
        return remaining, [
            None if mask is None else replace(mask, make=functools.partial(_late, mask, lowering))
            for mask in passed
        ]

    def _is_foldable(self, node: Node) -> bool:
        return self.frontend.foldable is not None and self.frontend.foldable(node)

    def _folded(self, node: Node, inputs: Sequence[Any]) -> Any:
        output = _fold(self.lowering, node, inputs, self.frontend)
        if output is None:
            raise self._unsupported([node])
        return output

    def _found(self, node: Node) -> CustomFunction | Entry[Converter] | None:
        for key in node.keys:
            if key in self.choices.functions:
                return self.choices.functions[key]
        return self.frontend.ops.find(node.op, self.graph.version)

    def _is_traced(self, node: Node) -> bool:
        result, tracer = self._found(node), self.choices.tracer
        if isinstance(result, Trace):
            return True
        every = self.choices.trace_custom_layers or self.lowering.is_traced
        return result is None and every and tracer is not None and tracer.can(node)

    def _way(self, node: Node) -> _Convert | None:
        result, lowering, tracer = self._found(node), self.lowering, self.choices.tracer
        first = self.choices.channels_first
        if node.is_traced and tracer is not None:
            return functools.partial(tracer.convert, lowering)
        if isinstance(result, Entry):
            return functools.partial(_built_in, lowering, self.frontend, result)
        if result is not None:
            return functools.partial(_users, lowering, result, first)
        return self._automatic if self.choices.add_custom_layers else None

    def _automatic(self, node: Node, inputs: Sequence[Any]) -> Any:
        """A custom layer with the options of a node, or the result of constant inputs."""
        output = (
            _fold(self.lowering, node, inputs, self.frontend) if self._is_foldable(node) else None
        )
        if output is not None:
            return output
        blobs = offered(self.lowering, node, inputs)
        return add_custom(self.lowering, node, blobs, automatic(node), self.choices.channels_first)


def _weakly(method: _Method) -> _Method:
    """A method without a reference to its object: a cycle would keep the source's weights alive."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: object) -> Any:
        result = reference()
        if result is None:
            raise ConversionError("a node is converted after the walk over its graph has ended")
        return result(*arguments)

    return cast(_Method, call)


def _users(
    lowering: Lowering, function: CustomFunction, first: bool, node: Node, inputs: Sequence[Any]
) -> Any:
    """The result of a user's function, which may depend on any of the extents."""
    for x in inputs:
        if isinstance(x, Blob):
            sizes.use(x)
    lowering.sizes.use(lowering.sizes.behind(*inputs))
    return call_user(lowering, node, inputs, function, first)


def _made(blob: Blob | None, lowering: Lowering) -> Blob | None:
    return blob


def _late(mask: Mask, inside: Lowering, lowering: Lowering) -> Blob | None:
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
        bind_inputs: adds the inputs to the builder and binds them.
        choices: how to handle ops without a converter.
        activation_quantization: "keep" or "drop"; see `mlferry.convert`.

    Raises:
        UnsupportedOpError: ops have neither a converter nor a function; it names all.
        ConversionError: a node cannot be converted.
    """
    if activation_quantization not in ("keep", "drop"):
        raise ConversionError(f"activation_quantization={activation_quantization!r}: keep or drop")
    lowering = Lowering(Builder(), graph)
    lowering.rounds_activations = activation_quantization == "keep"
    walker = _Walker(lowering, graph, frontend, choices)
    unused = _unused(choices.functions, graph)
    plan = walker.plan(unused)
    if unused:
        warnings.warn(
            f"custom_conversion_functions: nothing in {graph.source} is named "
            f"{', '.join(map(_with_hint, unused, unused.values()))}",
            stacklevel=3,
        )
    bind_inputs(lowering)
    with sizes.logged(lowering.sizes):
        size = sum(array.nbytes for array in graph.constants.values())
        size += sum(array.nbytes for node in graph.nodes for array in node.weights.values())
        for node, way in progress_of(plan, "converting", size):
            walker.run(node, way)
    return lowering


def _with_hint(key: str, hint: str) -> str:
    return f"{key!r}.{hint}" if hint else repr(key)


def _unused(functions: Mapping[str, CustomFunction], graph: Graph) -> dict[str, str]:
    """The user's keys that match nothing, with close matches as a hint."""
    names = {key for node in graph.nodes for key in node.keys}
    return {key: did_you_mean(key, sorted(names)) for key in functions if key not in names}


def _built_in(
    lowering: Lowering,
    frontend: Frontend,
    entry: Entry[Converter],
    node: Node,
    inputs: Sequence[Any],
) -> Any:
    folded = _fold(lowering, node, inputs, frontend)
    if folded is not None:
        return folded
    if not entry.options.get("sizes"):
        lowering.sizes.use(lowering.sizes.behind(*inputs))
    operands = inputs if frontend.raw else _arranged(lowering, entry, node, inputs)
    output = entry.value(lowering, node, *operands)
    _check_options(node, frontend)
    return output


def _arranged(
    lowering: Lowering, entry: Entry[Converter], node: Node, inputs: Sequence[Any]
) -> Sequence[Blob]:
    """The inputs as blobs, in a layout and rank for which a converter is registered."""
    accepted = entry.options.get("layouts", (SOURCE,))
    if callable(accepted):
        accepted = accepted(node)
    rank = entry.options.get("rank")
    blobs = [lowering.stored(x) if isinstance(x, Constant) else x for x in inputs]
    if rank is not None:
        blobs = [lowering.assume_rank(x, rank) for x in blobs]
    return lowering.arranged_inputs(blobs, accepted)


def _fold(
    lowering: Lowering, node: Node, inputs: Sequence[Any], frontend: Frontend
) -> Sequence[Any] | None:
    """The results of a node of constants, if the frontend can evaluate it."""
    known = all(x is None or isinstance(x, Constant) for x in inputs)
    if frontend.fold is None or not known:
        return None
    arrays = [None if x is None else x.array for x in inputs]
    output = frontend.fold(lowering, node, arrays)
    if output is None or not lowering.sizes.behind(*inputs):
        return output

    def moved() -> Sequence[Any] | None:
        which = range(len(inputs))[frontend.moving.get(node.op, slice(0))]
        if lowering.sizes.behind(*(x for i, x in enumerate(inputs) if i not in which)):
            return None
        codes = [
            sizes.codes_of(x) if i in which else a
            for i, (x, a) in enumerate(zip(inputs, arrays, strict=True))
        ]
        assert frontend.fold is not None
        return frontend.fold(lowering, node, codes)

    return sizes.folded(lowering.sizes, inputs, output, moved)


def _check_options(node: Node, frontend: Frontend) -> None:
    """Raise an error if an option that may matter was not read, including those of inner layers."""
    for part in node.parts.values():
        _check_options(part, frontend)
    left = {
        f"{prefix}{name}": value
        for prefix, options in (("", node.attrs), ("argument ", node.arguments))
        for name, value in options.unread().items()
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
    """Turn errors of the builder, and those that broken options cause, into `ConversionError`."""
    try:
        yield
    except SpecError as error:
        raise ConversionError(str(error)) from error
    except (MlferryError, NameError):  # an undefined name is our own bug, whatever the input
        raise
    except Exception as error:
        raise ConversionError(f"its options or weights do not fit: {error!r}") from error
