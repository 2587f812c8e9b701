"""A network in parts: those that become graphs, and those that stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mlferry.exporters.liveness import needs, read_first
from mlferry.exporters.onnx.network import translation_of
from mlferry.exporters.onnx.translation import Translation
from mlferry.layers.trace import CustomShapes, nothing_known
from mlferry.numerics.shapes import Shape
from mlferry.onnx_graph.graph import Graph, Port
from mlferry.spec import networks
from mlferry.spec.proto import neural_network_pb2 as nn

CONSTANTS = ("loadConstant", "loadConstantND", "fillStatic", "rangeStatic")
Known = Mapping[str, Shape | None]


@dataclass
class NetworkPart:
    """Layers that follow each other.

    Attributes:
        layers: their places in the network.
        reads: the blobs that they need from earlier parts.
        writes: the blobs that they write and something later reads.
        graph: the layers as a graph; None if they stay as they are.
        inputs: the graph's name of every blob that it reads.
        outputs: the graph's name of every blob that it writes.
    """

    layers: list[int]
    reads: set[str] = field(default_factory=set)
    writes: set[str] = field(default_factory=set)
    graph: Graph | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


def split(
    network: networks.Network,
    inputs: Known,
    outputs: set[str],
    stays: Callable[[nn.NeuralNetworkLayer], bool],
    custom: CustomShapes = nothing_known,
    most_rounds: int | None = None,
) -> list[NetworkPart]:
    """The parts of a network, in the order in which they run.

    Args:
        inputs: the shapes of its input blobs.
        outputs: the blobs to compute; layers that they do not depend on are in no part.
        stays: whether a layer must stay outside of any graph.
        custom: tells the output shapes of custom layers.
        most_rounds: the limit of the rounds of all loops; None if they are not counted.
    """
    layers = list(network.layers)
    places = _needed(layers, outputs)
    chosen = [layers[place] for place in places]
    t, names = _started(network, inputs, custom, most_rounds)
    apart: set[int] = set()
    known: dict[int, Known] = {}
    for place, layer, live in zip(places, chosen, needs(chosen, outputs), strict=True):
        reads, _ = networks.touched(layer)
        known[place] = {blob: t.shape(blob) for blob in reads if blob in t.values}
        before = len(t.refusals)
        t.layer(layer, live)
        if stays(layer) or len(t.refusals) > before:
            apart.add(place)
    parts: list[NetworkPart] = []
    for place in places:
        if parts and (parts[-1].layers[-1] in apart) == (place in apart):
            parts[-1].layers.append(place)
        else:
            parts.append(NetworkPart([place]))
    _repeat_constants(parts, layers)
    parts = _connected(parts, layers, outputs, set(inputs))
    if not apart and parts:
        _finish(parts[0], t, names)
        return parts
    for part in parts:
        if part.layers[-1] in apart:
            continue
        shapes: dict[str, Shape | None] = {}
        for place in reversed(part.layers):
            shapes |= known[place]
        inner_shapes = {blob: shapes[blob] for blob in sorted(part.reads)}
        inner, names = _started(network, inner_shapes, custom, most_rounds)
        inner.run([layers[place] for place in part.layers], part.writes)
        _finish(part, inner, names)
    return parts


def _needed(layers: Sequence[nn.NeuralNetworkLayer], outputs: set[str]) -> list[int]:
    needed, places = set(outputs), []
    for place in range(len(layers) - 1, -1, -1):
        reads, writes = networks.touched(layers[place])
        if needed & writes:
            needed |= reads
            places.append(place)
    return places[::-1]


def _repeat_constants(parts: list[NetworkPart], layers: Sequence[nn.NeuralNetworkLayer]) -> None:
    """Give every part the constants that it reads, instead of passing them from part to part."""
    makers: dict[str, list[int]] = {}
    for place in (place for part in parts for place in part.layers):
        for blob in networks.touched(layers[place])[1]:
            makers.setdefault(blob, []).append(place)
    constants = {
        blob: places[0]
        for blob, places in makers.items()
        if len(places) == 1 and layers[places[0]].WhichOneof("layer") in CONSTANTS
    }
    for part in parts:
        operands, _ = read_first([layers[place] for place in part.layers])
        more = {constants[blob] for blob in operands if blob in constants}
        part.layers = [*sorted(more - set(part.layers)), *part.layers]


def _connected(
    parts: list[NetworkPart],
    layers: Sequence[nn.NeuralNetworkLayer],
    outputs: set[str],
    inputs: set[str],
) -> list[NetworkPart]:
    """The parts that do something, with what each reads from earlier and writes for later ones."""
    known = set(inputs)
    for part in parts:
        inside = [layers[place] for place in part.layers]
        part.reads = read_first(inside)[0] & known
        part.writes = {blob for layer in inside for blob in networks.touched(layer)[1]}
        known |= part.writes
    later = set(outputs)
    for part in reversed(parts):
        part.writes &= later
        later |= part.reads if part.writes else set()
    return [part for part in parts if part.writes]


def _started(
    network: networks.Network, inputs: Known, custom: CustomShapes, most_rounds: int | None
) -> tuple[Translation, dict[str, str]]:
    """A translation, and the names of its inputs by blob: a part may write a blob that it reads."""
    t = translation_of(network, custom, most_rounds)
    names = {blob: t.e.fresh(f"{blob}/given") for blob in inputs}
    for blob, shape in inputs.items():
        t.e.graph.inputs.append(Port(names[blob], shape=shape))
        t.add_input(blob, names[blob], shape)
    return t, names


def _finish(part: NetworkPart, t: Translation, names: dict[str, str]) -> None:
    t.check()
    for blob in sorted(part.writes):
        t.output(blob, t.whole(blob))
        part.outputs[blob] = blob
    part.graph = t.finish()
    part.inputs = names
