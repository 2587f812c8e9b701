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
_TRIED_AXES = 8
_MOST_AXES = 32  # the most axes of blobs to try; real ones have fewer


@network_rule
def ranks_agree(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """Ranks that are described or declared agree with each other and with the kinds of layers.

    In the classic mapping every blob has five axes, and declarations are ignored.
    """
    if not versions.uses_rank5(network):
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
        yield warning(f"for the ranks of its inputs: {str(error).splitlines()[0]}")
        return
    except (ValueError, TypeError, IndexError, ArithmeticError):
        return  # the rules about the kind reject its parameters
    if output_shapes is None and len(layer.input) == 1:
        yield from _can_make(layer, ranks)
    for name, shape in zip(layer.output, output_shapes or (), strict=False):
        known = ranks.get(name)
        if known is not None and known.axes != len(shape):
            yield warning(f"it makes {name!r} of rank {len(shape)}, {known.source} {known.axes}")


def _can_make(layer: nn.NeuralNetworkLayer, ranks: Ranks) -> Problems:
    """Some rank of the input, which is not known, gives the known rank of the first output."""
    known = ranks.get(layer.output[0]) if layer.output else None
    if known is None or layer.input[0] in ranks:
        return
    params = Params.of(layer)
    for axes in range(_TRIED_AXES + 1):
        try:
            shapes = infer(params, [(None,) * axes])
        except SpecError:
            continue
        except (ValueError, TypeError, IndexError, ArithmeticError):
            return
        if not shapes or len(shapes[0]) == known.axes:
            return
    yield warning(
        f"no input gives {layer.output[0]!r} the rank {known.axes}, which {known.source} tells"
    )
