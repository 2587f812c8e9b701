"""A program in parts: those that become graphs, and those that stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlferry.exporters.onnx.program import ProgramTranslation, block_of, is_outside
from mlferry.onnx_graph.graph import Graph, Port
from mlferry.programs.contents import operations_of, reads_of
from mlferry.programs.exports import carrier_of
from mlferry.programs.types import StateType, TensorType, ValueType
from mlferry.programs.values import Weights
from mlferry.spec.proto import mil_pb2 as mil

Types = Mapping[str, ValueType]


@dataclass
class ProgramPart:
    """Operations that follow each other.

    Attributes:
        places: their places among the operations that are not constants.
        graph: the operations as a graph; None if they stay as they are.
        inputs: the graph's name of every value and state that it reads.
        outputs: the graph's name of every value that it makes and something later reads.
        states: the graph's name of the value that each state has afterwards.
    """

    places: list[int]
    graph: Graph | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)


def is_constant(operation: mil.Operation) -> bool:
    """Whether the result of an operation is known before a program runs."""
    return operation.type == "const" or operation.type.startswith("constexpr_")


@dataclass(frozen=True)
class Source:
    """A function, and how it becomes graphs."""

    function: mil.Function
    weights: Weights
    precision: str
    most_rounds: int | None = None

    @property
    def operations(self) -> list[mil.Operation]:
        """The operations that are not constants."""
        block = block_of(self.function)
        return [message for message in block.operations if not is_constant(message)]

    def translation(self, inputs: Types) -> tuple[ProgramTranslation, dict[str, str]]:
        """The walk that writes the operations; the graph's inputs are values of the types given."""
        t = ProgramTranslation(
            self.function.opset, self.weights, self.precision, most_rounds=self.most_rounds
        )
        ports: dict[str, str] = {}
        for name, kind in inputs.items():
            ports[name] = t.e.fresh(f"{name}/given")
            t.add_input(name, kind, ports[name])
            shape = t.e.shapes.get(ports[name])
            t.e.graph.inputs.append(Port(ports[name], carrier_of(kind), shape))
        t.run([each for each in block_of(self.function).operations if is_constant(each)])
        return t, ports


def split(source: Source, inputs: Types, outputs: Sequence[str]) -> list[ProgramPart]:
    """The parts of a function, in the order in which they run.

    Args:
        inputs: the types of its inputs and states.
        outputs: the values to compute; operations that they do not depend on are in no part, unless
            they write states.
    """
    operations = source.operations
    places = _needed(operations, outputs)
    t, ports = source.translation(inputs)
    apart: set[int] = set()
    for place in places:
        before = len(t.refusals)
        t.operation(operations[place])
        if is_outside(operations[place]) or len(t.refusals) > before:
            apart.add(place)
    _with_lists(operations, places, apart, t, outputs)
    parts: list[ProgramPart] = []
    for place in places:
        if parts and (parts[-1].places[-1] in apart) == (place in apart):
            parts[-1].places.append(place)
        else:
            parts.append(ProgramPart([place]))
    later = set(outputs)
    for part in reversed(parts):
        inside = [operations[place] for place in part.places]
        own = {value.name for operation in inside for value in operation.outputs}
        reads = {name for operation in inside for name in reads_of(operation)}
        if part.places[-1] not in apart:
            writes = sorted(own & later)
            if len(parts) == 1:
                _finish(part, t, ports, writes)
            else:
                outer = sorted(reads - own)
                # every graph has its own copies of compressed constants
                types = {n: t.type(n) for n in outer if n in t.values and n not in t.compressed}
                inner, names = source.translation(types)
                inner.known |= {n: t.known[n] for n in outer if n in t.known}
                inner.run(inside)
                _finish(part, inner, names, writes)
        later |= reads
    return parts


def _needed(operations: Sequence[mil.Operation], outputs: Sequence[str]) -> list[int]:
    needed, places = set(outputs), []
    for place in range(len(operations) - 1, -1, -1):
        operation = operations[place]
        results = {value.name for value in operation.outputs}
        if needed & results or _writes_state(operation):
            needed |= set(reads_of(operation))
            places.append(place)
    return places[::-1]


def _writes_state(operation: mil.Operation) -> bool:
    inside = operations_of(mil.Block(operations=[operation]))
    return any(inner.type == "write_state" for inner in inside)


def _with_lists(
    operations: Sequence[mil.Operation],
    places: Sequence[int],
    apart: set[int],
    t: ProgramTranslation,
    outputs: Sequence[str],
) -> None:
    """Keep all operations of lists together, because a list has another form in a graph."""

    def has_list(place: int) -> bool:
        operation = operations[place]
        names = [*reads_of(operation), *(value.name for value in operation.outputs)]
        kinds = [t.types.get(name) for name in names]
        return any(
            kind is not None and not isinstance(kind, TensorType | StateType) for kind in kinds
        )

    touching = {place for place in places if has_list(place)}
    if apart or any(not isinstance(t.types.get(name), TensorType) for name in outputs):
        apart |= touching


def _finish(
    part: ProgramPart, t: ProgramTranslation, ports: dict[str, str], writes: Sequence[str]
) -> None:
    for name in writes:
        part.outputs[name] = _add_output(t, f"{name}/made", t.value(name), t.type(name))
    for name in sorted(t.written):
        part.states[name] = _add_output(t, f"{name}/after", t.values[name], t.types[name])
    part.graph = t.finish()
    part.inputs = ports


def _add_output(t: ProgramTranslation, hint: str, value: str, kind: ValueType) -> str:
    name = t.e.fresh(hint)
    t.output(name, value)
    t.e.graph.outputs.append(Port(name, carrier_of(kind), t.e.shapes.get(name)))
    return name
