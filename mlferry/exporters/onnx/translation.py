"""The walk over the layers of a network, each of which becomes nodes of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from mlferry.custom import parameters_of
from mlferry.errors import MlferryError, SpecError, context
from mlferry.exporters import liveness
from mlferry.exporters.refusals import Refusal, check_refusals
from mlferry.layers import versions
from mlferry.layers.definitions import infer
from mlferry.layers.exports import OPS
from mlferry.layers.params import Params
from mlferry.layers.trace import CustomShapes
from mlferry.numerics.shapes import Shape
from mlferry.onnx_graph.emitter import Emitter
from mlferry.onnx_graph.graph import CUSTOM_DOMAIN, Graph, Port, walk
from mlferry.onnx_graph.refusals import CannotExpressError, RankHiddenError
from mlferry.onnx_graph.simplify import simplified
from mlferry.spec import networks, weights
from mlferry.spec.proto import neural_network_pb2 as nn

ROUNDS = "\0rounds"  # the count of loop rounds, kept among the blobs; no blob has this name
BLOB_INPUTS = "blob_inputs"  # the attribute that separates blobs from weights


Special = Callable[["Translation", nn.NeuralNetworkLayer, set[str]], None]


class Translation:
    """Walks over layers and writes their nodes.

    A blob that a copy writes again is a new value from there on. In the classic mapping a blob
    whose sequence has one step loses that axis, so that a convolution is one node.

    Args:
        network: the network, which says how arrays map to blobs.
        special: the functions that write layers of control flow, by kind.
        custom: gives the output shapes of custom layers.
        most_rounds: the limit of the rounds of all loops; None where they are not counted.

    Attributes:
        e: what writes.
        values: the value of every blob.
        refusals: the layers that cannot be expressed.
    """

    def __init__(
        self,
        network: networks.Network,
        special: Mapping[str, Special],
        custom: CustomShapes,
        most_rounds: int | None = None,
    ) -> None:
        self.rank5 = versions.uses_rank5(network)
        blobs = {name for layer in networks.layers_of(network) for name in layer.output}
        self.e = Emitter(sorted(blobs))
        self.values: dict[str, str] = {}
        self.refusals: list[Refusal] = []
        self._custom = custom
        self._special = {"custom": Translation.custom, **special}
        self._cut: set[str] = set()  # values that lost their sequence axis
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

    def whole(self, blob: str) -> str:
        """The value of a blob with all of its axes."""
        return self._with_sequence(self.values[blob])

    def _without_sequence(self, value: str) -> str:
        shape = self.e.shapes.get(value)
        if not self.rank5 or shape is None or len(shape) != 5 or shape[0] != 1:
            return value
        squeezed = self.e.squeeze(value, [0])
        self._cut.add(squeezed)
        return squeezed

    def _with_sequence(self, value: str) -> str:
        return self.e.unsqueeze(value, [0]) if value in self._cut else value

    # ---- layers ------------------------------------------------------------------------------

    def run(self, layers: liveness.Layers, outputs: set[str]) -> None:
        """Write layers; the blobs `outputs` are read after them."""
        for layer, live in zip(layers, liveness.needs(layers, outputs), strict=True):
            self.layer(layer, live)

    def layer(self, layer: nn.NeuralNetworkLayer, live: set[str]) -> None:
        """Write one layer; `live` are the blobs that something later may read."""
        self.e.layer = layer.name
        kind = layer.WhichOneof("layer") or ""
        write = self._special.get(kind)
        try:
            if write is not None:
                write(self, layer, live)
            else:
                with context(f"exporting {kind} {layer.name!r}"):
                    self._plain(layer)
        except CannotExpressError as error:
            self._refuse(layer, error, live)

    def _refuse(
        self, layer: nn.NeuralNetworkLayer, error: CannotExpressError, live: set[str]
    ) -> None:
        """Note that a layer cannot be expressed, and continue as if it could."""
        follows = isinstance(error, RankHiddenError) and bool(self.refusals)
        self.refusals.append(Refusal(layer, str(error), follows))
        _, writes = networks.touched(layer)
        for blob in writes & (live | set(layer.output)):
            self.values[blob] = self.e.fresh(blob)

    def _plain(self, layer: nn.NeuralNetworkLayer) -> None:
        p = Params.of(layer, rank5=self.rank5)
        entry = OPS.find(p.kind)
        if entry is None:
            raise CannotExpressError("there is no export of this kind")
        five = entry.options.get("five_axes", False)
        inputs = self._inputs(layer, five(p) if callable(five) else five)
        shapes = [self.e.shapes.get(x) for x in inputs]
        self.e.results = infer(p, shapes)
        try:
            output = entry.value(self.e, p, *inputs)
        except (CannotExpressError, MlferryError):
            raise
        except Exception as error:  # a layer whose parameters validate would refuse
            raise SpecError(f"its parameters do not fit: {error}") from error
        results = output if isinstance(output, tuple) else (output,)
        if len(results) < len(layer.output):
            raise SpecError(f"it makes {len(results)} outputs; {len(layer.output)} are named")
        is_cut = bool(inputs) and all(x in self._cut for x in inputs)
        for index, blob in enumerate(layer.output):
            value = results[index]
            inferred = self.e.results[index] if self.e.results is not None else None
            before = self.e.shapes.get(value)
            if before is None or None in before:
                self.e.shapes[value] = inferred if inferred is not None else before
            if is_cut:
                self._cut.add(value)
            self.assign(blob, value if is_cut else self._without_sequence(value))

    def _inputs(self, layer: nn.NeuralNetworkLayer, five: bool) -> list[str]:
        """The values of the inputs: all with the sequence axis, or all without."""
        missing = [blob for blob in layer.input if blob not in self.values]
        if missing:
            raise CannotExpressError(f"nothing before it surely makes {missing[0]!r}")
        values = [self.values[blob] for blob in layer.input]
        if five or not all(value in self._cut for value in values):
            values = [self._with_sequence(value) for value in values]
        return values

    def assign(self, blob: str, value: str) -> None:
        """Give a blob a new value; the value is named after its first blob."""
        self.values[blob] = value
        if value in self.e.made and value not in self._names and blob not in self._used:
            self._names[value] = blob
            self._used.add(blob)

    def custom(self, layer: nn.NeuralNetworkLayer, live: set[str]) -> None:
        """Write a custom layer: an op in a domain of its own, named after its class.

        Its inputs are those of the layer, then its weights, flat and as they are stored; the
        attribute `blob_inputs` tells how many are blobs. Parameters are attributes.
        """
        inputs = self._inputs(layer, True)
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
            raise CannotExpressError(f"a parameter is called {BLOB_INPUTS!r}, which is taken")
        attributes[BLOB_INPUTS] = len(inputs)
        results = self.e.add(
            layer.custom.className,
            [*inputs, *stored],
            len(layer.output),
            attributes,
            CUSTOM_DOMAIN,
        )
        for index, blob in enumerate(layer.output):
            value = results[index]
            self.e.shapes[value] = (
                tuple(result_shapes[index]) if result_shapes is not None else None
            )
            self.assign(blob, self._without_sequence(value))

    @contextmanager
    def inside(self) -> Iterator[list[Any]]:
        """Write the nodes of a body; blobs that change inside keep their values outside."""
        outer = dict(self.values)
        try:
            with self.e.inside() as nodes:
                yield nodes
        finally:
            self.values = outer

    # ---- the end -----------------------------------------------------------------------------

    def output(self, name: str, value: str, dtype: str = "float32") -> None:
        """Make a value an output of the graph, under this name."""
        graph = self.e.graph
        own = {output for node in graph.nodes for output in node.outputs}
        if value not in own or self._names.get(value) in {port.name for port in graph.outputs}:
            shape = self.e.shapes.get(value)
            value = self.e.node("Identity", value)
            self.e.shapes[value] = shape
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
