"""What a graph has besides its nodes: functions, and names of inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from mlferry.converters.graph import Attributes, Node, Value
from mlferry.numerics.shapes import Array


@dataclass(frozen=True)
class FeatureNames:
    """The names of inputs and outputs, in the source and as features.

    Attributes:
        inputs: the source's names.
        outputs: the source's names.
        input_features: the names of the features for the inputs.
        output_features: likewise.
    """

    inputs: list[str]
    outputs: list[str]
    input_features: list[str]
    output_features: list[str]


@dataclass(frozen=True)
class Subgraph:
    """A graph with inputs and outputs: of a function, or a part of a graph of TensorFlow 1.

    Attributes:
        inputs: its input values.
        outputs: its output values.
        nodes: in an order in which every value exists before it is read.
        constants: values that are known.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]

    def named(self, prefix: str) -> Subgraph:
        """The same graph with a prefix before all names; options of its nodes count as unread."""

        def moved(value: Value) -> Value:
            return replace(value, name=f"{prefix}/{value.name}") if value.name else value

        def values(known: tuple[Value, ...]) -> tuple[Value, ...]:
            return tuple(map(moved, known))

        nodes = (
            replace(
                node,
                name=f"{prefix}/{node.name}",
                inputs=values(node.inputs),
                outputs=values(node.outputs),
                attrs=Attributes(node.attrs.as_dict()),
                input_shapes=[],
            )
            for node in self.nodes
        )
        constants = {f"{prefix}/{name}": array for name, array in self.constants.items()}
        return Subgraph(values(self.inputs), values(self.outputs), tuple(nodes), constants)

    def handed_on(self) -> list[Value]:
        """Each output after looking through identities."""
        shown = {n.outputs[0].name: n.inputs[0] for n in self.nodes if n.op == "Identity"}
        results = []
        for output in self.outputs:
            value = output
            while value.name in shown:
                value = shown[value.name]
            results.append(value)
        return results

    def all_nodes(self) -> Iterator[Node]:
        """The nodes of the graph, and those of the parts of a graph in them."""
        for node in self.nodes:
            yield node
            for option in node.attrs.as_dict().values():
                if isinstance(option, Subgraph):
                    yield from option.all_nodes()
