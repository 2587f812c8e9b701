"""Rules about the ranks of blobs that layers declare in `inputTensor` and `outputTensor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlferry.errors import SpecError
from mlferry.layers import versions
from mlferry.layers.definitions import infer
from mlferry.layers.params import Params
from mlferry.layers.validate.layers import place, subnetworks
from mlferry.layers.validate.rules import network_rule
from mlferry.numerics.shapes import Shape
from mlferry.spec import networks
from mlferry.spec.problems import Problems, warning, within
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn


@dataclass(frozen=True)
class Rank:
    """The rank of a blob, and where it comes from."""

    axes: int
    source: str


Ranks = dict[str, Rank]
_MOST_AXES = 32  # the most axes of blobs to try; real ones have fewer


@network_rule
def ranks_agree(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """The declared ranks agree with the description, with other layers and with the layer kind.

    In the classic mapping every blob has five axes, and declarations are ignored.
    """
    are_declared = any(
        layer.inputTensor or layer.outputTensor for layer in networks.layers_of(network)
    )
    if are_declared and not versions.uses_rank5(network):
        yield from _walk(network.layers, _described(spec, network))


def _described(spec: model_pb2.Model, network: networks.Network) -> Ranks:
    """The ranks of inputs and array outputs in the model's description."""
    image = 5 if network.imageInputShapeMapping == nn.RANK5_IMAGE_MAPPING else 4
    ranks: Ranks = {}
    for role, described in (("input", spec.description.input), ("output", spec.description.output)):
        for feature in described:
            source = f"the description of {role} {feature.name!r}"
            if feature.type.multiArrayType.shape:
                ranks[feature.name] = Rank(len(feature.type.multiArrayType.shape), source)
            elif role == "input" and feature.type.HasField("imageType"):
                ranks[feature.name] = Rank(image, source)
    return ranks


def _walk(layers: Sequence[nn.NeuralNetworkLayer], ranks: Ranks) -> Problems:
    """Follow the layers, and collect their declarations in `ranks`."""
    for index, layer in enumerate(layers):
        where = place(layer, index)
        yield from within(where, _one_layer(layer, where, ranks))
        for field, inner in subnetworks(layer):
            yield from within(where, within(field, _walk(inner.layers, ranks)))


def _one_layer(layer: nn.NeuralNetworkLayer, where: str, ranks: Ranks) -> Problems:
    for field, blobs, tensors in (
        ("inputTensor", layer.input, layer.inputTensor),
        ("outputTensor", layer.output, layer.outputTensor),
    ):
        if len(tensors) != len(blobs):
            continue  # the rule about their number reports it
        for blob, tensor in zip(blobs, tensors, strict=True):
            known = ranks.setdefault(blob, Rank(tensor.rank, where))
            if known.axes != tensor.rank:
                yield warning(
                    f"{field} tells rank {tensor.rank} of {blob!r}, {known.source} {known.axes}"
                )
    yield from _fits_the_kind(layer, ranks)


def _fits_the_kind(layer: nn.NeuralNetworkLayer, ranks: Ranks) -> Problems:
    """A layer accepts and makes blobs of the declared ranks."""
    kind = layer.WhichOneof("layer")
    if kind in (None, "custom") or networks.subnetworks(layer):
        return
    if any(ranks[name].axes > _MOST_AXES for name in layer.input if name in ranks):
        yield warning(f"a rank above {_MOST_AXES} is declared; blobs have few axes")
        return
    input_shapes: list[Shape | None] = [
        (None,) * ranks[name].axes if name in ranks else None for name in layer.input
    ]
    try:
        output_shapes = infer(Params.of(layer), input_shapes)
    except SpecError as error:
        yield warning(f"for the declared ranks: {str(error).splitlines()[0]}")
        return
    except (ValueError, TypeError, IndexError, ArithmeticError):
        return  # the rules about the kind reject its parameters
    for name, shape in zip(layer.output, output_shapes or (), strict=False):
        known = ranks.get(name)
        if known is not None and known.axes != len(shape):
            yield warning(f"it makes {name!r} of rank {len(shape)}, {known.source} {known.axes}")
