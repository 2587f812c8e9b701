"""The walk over the layers of a network, each of which becomes nodes of a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from mlferry.custom import parameters_of
from mlferry.exporters.refusals import Refusal, check_refusals
from mlferry.exporters.walk import Layer, LayerWalk, Special
from mlferry.layers.control.definition import TRUE_ABOVE
from mlferry.layers.definitions import infer
from mlferry.layers.exports import OPS
from mlferry.layers.params import Params
from mlferry.layers.trace import CustomShapes
from mlferry.numerics.shapes import Shape, in_common
from mlferry.onnx_graph.emitter import Emitter
from mlferry.onnx_graph.graph import CUSTOM_DOMAIN, Body, Graph, Node, Port, walk
from mlferry.onnx_graph.simplify import simplified
from mlferry.programs.exports import body_of
from mlferry.refusals import RankHiddenError, refuse
from mlferry.spec import networks, weights

ROUNDS = "\0rounds"  # the count of loop rounds, kept among the blobs; no blob has this name
BLOB_INPUTS = "blob_inputs"  # the attribute that separates blobs from weights


class Translation(LayerWalk[str, list[Node]]):
    """Writes the nodes of layers; see `LayerWalk`.

    Args:
        network: the network, which says how arrays map to blobs.
        special: the functions that write layers of control flow, by kind.
        custom: gives the output shapes of custom layers.
        most_rounds: the limit of the rounds of all loops; None if they are not counted.

    Attributes:
        e: writes the nodes.
    """

    functions = OPS
    no_function = "there is no export of this kind"
    doing = "exporting {}"

    def __init__(
        self,
        network: networks.Network,
        special: Mapping[str, Special],
        custom: CustomShapes,
        most_rounds: int | None = None,
    ) -> None:
        super().__init__(network, {"custom": Translation.custom, **special})
        blobs = {name for layer in networks.layers_of(network) for name in layer.output}
        self.e = Emitter(sorted(blobs))
        self._custom = custom
        self._names: dict[str, str] = {}  # values that are named after a blob
        self._used: set[str] = set()
        self.most_rounds = most_rounds
        if most_rounds is not None:
            self.values[ROUNDS] = self.e.number(0)

    # ---- blobs -------------------------------------------------------------------------------

    def add_input(self, blob: str, value: str, shape: Shape | None) -> None:
        """Add a blob that comes from outside, in the shape that it has in the network."""
        self.e.shapes[value] = shape
        self.values[blob] = self._without_sequence(value)

    def shape(self, blob: str) -> Shape | None:
        """The shape of a blob in Core ML."""
        value = self.values[blob]
        shape = self.e.shapes.get(value)
        return (1, *shape) if shape is not None and value in self._cut else shape

    def _without_sequence(self, value: str) -> str:
        shape = self.e.shapes.get(value)
        if not self.rank5 or shape is None or len(shape) != 5 or shape[0] != 1:
            return value
        squeezed = self.e.squeeze(value, [0])
        self._cut.add(squeezed)
        return squeezed

    def _with_sequence(self, value: str) -> str:
        return self.e.expand(value, [0]) if value in self._cut else value

    # ---- layers ------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Name the nodes from here on after a layer."""
        self.e.layer = name

    def flag(self, value: bool) -> str:
        """A constant scalar that is true or false."""
        return self.e.constant(np.array(value))

    def truth(self, blob: str) -> str:
        """A scalar that says whether a blob of one value is true."""
        value = self.whole(blob)
        if self.e.is_flag(value):
            flag = self.e.flag(value)
        else:
            flag = self.e.node("Greater", self.e.node("Abs", value), self.e.number(TRUE_ABOVE))
            self.e.shapes[flag] = self.e.shapes.get(value)
        return self.e.reshape(flag, [])

    def choose(
        self,
        layer: Layer,
        condition: str,
        bodies: Sequence[list[Node]],
        results: Sequence[list[str]],
    ) -> Sequence[str]:
        """Write an `If`."""
        self.start(layer.name)
        branches = [self.body(nodes, values) for nodes, values in zip(bodies, results, strict=True)]
        outputs = self.e.nodes(
            "If", [condition], len(results[0]), then_branch=branches[0], else_branch=branches[1]
        )
        for output, one, other in zip(outputs, *results, strict=True):
            self.e.shapes[output] = in_common(self.e.shapes.get(one), self.e.shapes.get(other))
            if self.e.dtype(one) == "bool":
                self.e.booleans.add(output)
        return outputs

    def become(self, blob: str, value: str) -> None:
        """Give a blob a value that has all of its axes."""
        self.values[blob] = self._without_sequence(value)
        if blob != ROUNDS:
            self.assign(blob, self.values[blob])

    def counters(self, layer: Layer) -> list[str]:
        """The count of rounds, if it is kept and a layer may change it."""
        subnetworks = networks.subnetworks(layer)
        inside = [layer, *(inner for body in subnetworks for inner in networks.layers_of(body))]
        has_loop = any(inner.WhichOneof("layer") == "loop" for inner in inside)
        return [ROUNDS] if self.most_rounds is not None and has_loop else []

    def body(self, nodes: list[Node], values: Sequence[str], inputs: Sequence[Port] = ()) -> Body:
        """A body in which every output has a node of its own."""
        return body_of(self.e, nodes, values, [self.e.dtype(x) for x in values], inputs)

    def _body(self) -> AbstractContextManager[list[Node]]:
        return self.e.inside()

    def _refuse(self, layer: Layer, error: Exception, live: set[str]) -> None:
        follows = isinstance(error, RankHiddenError) and bool(self.refusals)
        self.refusals.append(Refusal(layer, str(error), follows))
        _, writes = networks.touched(layer)
        for blob in writes & (live | set(layer.output)):
            self.values[blob] = self.e.fresh(blob)

    def _write(
        self, layer: Layer, function: Callable[..., Any], params: Params, x: list[str]
    ) -> None:
        self.e.results = infer(params, [self.e.shapes.get(value) for value in x])
        results = self._results(layer, partial(function, self.e, params, *x))
        is_cut = self._are_cut(x)
        for index, blob in enumerate(layer.output):
            value = results[index]
            inferred = self.e.results[index] if self.e.results is not None else None
            before = self.e.shapes.get(value)
            if before is None or None in before:
                self.e.shapes[value] = inferred if inferred is not None else before
            if is_cut:
                self._cut.add(value)
            self.assign(blob, value if is_cut else self._without_sequence(value))

    def assign(self, blob: str, value: str) -> None:
        """Give a blob a new value; the value is named after its first blob."""
        self.values[blob] = value
        if value in self.e.made and value not in self._names and blob not in self._used:
            self._names[value] = blob
            self._used.add(blob)

    def custom(self, layer: Layer, live: set[str]) -> None:
        """Write a custom layer: an op in a domain of its own, named after its class.

        Its inputs are those of the layer, then its weights, flat and as they are stored; the
        attribute `blob_inputs` tells how many are blobs. Parameters are attributes.
        """
        inputs = self.inputs(layer, True)
        shapes = [self.e.shapes.get(x) for x in inputs]
        known = [shape for shape in shapes if shape is not None]
        result_shapes = self._custom(layer, known) if len(known) == len(shapes) else None
        stored = [
            self.e.constant(weights.stored(weight), f"{layer.name}.weights.{index}")
            for index, weight in enumerate(layer.custom.weights)
        ]
        attributes: dict[str, Any] = {
            key: int(value) if isinstance(value, bool) else value
            for key, value in parameters_of(layer.custom).items()
        }
        if BLOB_INPUTS in attributes:
            raise refuse(f"a parameter is called {BLOB_INPUTS!r}, which is taken")
        attributes[BLOB_INPUTS] = len(inputs)
        results = self.e.add(
            layer.custom.className, [*inputs, *stored], len(layer.output), attributes, CUSTOM_DOMAIN
        )
        for index, blob in enumerate(layer.output):
            value = results[index]
            self.e.shapes[value] = (
                tuple(result_shapes[index]) if result_shapes is not None else None
            )
            self.assign(blob, self._without_sequence(value))

    # ---- the end -----------------------------------------------------------------------------

    def output(self, name: str, value: str, dtype: str = "float32") -> None:
        """Make a value an output of the graph, under this name."""
        graph = self.e.graph
        own = {output for node in graph.nodes for output in node.outputs}
        if value not in own or self._names.get(value) in {port.name for port in graph.outputs}:
            value = self.e.node("Identity", value)
        for other, blob in list(self._names.items()):
            if blob == name:
                del self._names[other]
        self._names[value] = name
        graph.outputs.append(Port(name, dtype, self.e.shapes.get(value)))

    def finish(self) -> Graph:
        """The graph without what computes nothing, its values named after blobs.

        Raises:
            UnsupportedLayersError: ONNX cannot express some layers; all are named.
        """
        self.check()
        graph = self.e.graph
        for node in walk(graph.nodes):
            node.inputs = [self._names.get(name, name) for name in node.inputs]
            node.outputs = [self._names.get(name, name) for name in node.outputs]
            for body in node.bodies:
                body.inputs = [renamed(port, self._names) for port in body.inputs]
                body.outputs = [renamed(port, self._names) for port in body.outputs]
        shapes = {self._names.get(name, name): shape for name, shape in self.e.shapes.items()}
        return simplified(graph, shapes)

    def check(self) -> None:
        """Raise an `UnsupportedLayersError` that names every layer that cannot be expressed."""
        varying = [
            port.name
            for port in self.e.graph.inputs
            if not all(isinstance(n, int) for n in port.shape or ())
        ]
        advice = [
            *(
                f"sizes that vary can be given: input_shapes={{{name!r}: (...)}}"
                for name in varying
            ),
            'mlferry.MLModel(model, engine="onnxruntime") runs these on NumPy and the '
            "others with onnxruntime",
        ]
        check_refusals(self.refusals, "ONNX", advice)


def renamed(port: Port, names: Mapping[str, str]) -> Port:
    """A port under another name."""
    return replace(port, name=names.get(port.name, port.name))
