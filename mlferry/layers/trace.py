"""The shape of every blob of a network, by shape rules: nothing is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from mlferry.errors import SpecError
from mlferry.layers import versions
from mlferry.layers.definitions import SIZE_CHECKS, Change, infer
from mlferry.layers.params import Params
from mlferry.numerics.shapes import Shape, in_common
from mlferry.spec import features, networks
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn

Known = dict[str, Shape | None]
CustomShapes = Callable[[nn.NeuralNetworkLayer, Sequence[Shape]], Sequence[Shape] | None]


@dataclass(frozen=True)
class ShapeRefusal:
    """A layer that rejects the shapes of its inputs."""

    layer: nn.NeuralNetworkLayer
    inputs: tuple[Shape, ...]
    reason: str

    def __str__(self) -> str:
        kind = self.layer.WhichOneof("layer")
        return f"{kind} {self.layer.name!r}: {self.reason}"


@dataclass
class ShapeTrace:
    """Known shapes of the blobs of a network.

    Attributes:
        shapes: by blob; None if the rank is unknown; an extent is None if it is unknown.
        refusals: the layers that reject the shapes of their inputs.
        opaque: custom layers of unknown output shapes.
    """

    shapes: Known
    refusals: list[ShapeRefusal] = field(default_factory=list)
    opaque: list[str] = field(default_factory=list)


def nothing_known(layer: nn.NeuralNetworkLayer, shapes: Sequence[Shape]) -> None:
    """A function without classes of custom layers."""


def trace(
    network: networks.Network,
    inputs: Mapping[str, Shape | None],
    custom: CustomShapes = nothing_known,
    steps: Sequence[LayerStep] | None = None,
) -> ShapeTrace:
    """The shapes of all blobs for those of the inputs.

    Args:
        inputs: shapes by input; see `blob_shape`.
        custom: gives the output shapes of a custom layer, or None.
        steps: what `steps_of` gives for the network, if it is traced several times.
    """
    shape_trace = ShapeTrace(dict(inputs))
    rank5 = versions.uses_rank5(network)
    if steps is None:
        steps = _steps(network.layers, rank5=rank5)
    _walk(steps, shape_trace, custom, rank5=rank5)
    return shape_trace


class LayerStep:
    """A layer with what is read of its message, once for all shapes that are tried.

    Attributes:
        layer: the message.
        inputs: names of blobs.
        outputs: names of blobs.
        bodies: the networks inside it.
    """

    def __init__(self, layer: nn.NeuralNetworkLayer, *, rank5: bool) -> None:
        self.layer = layer
        self.inputs, self.outputs = tuple(layer.input), tuple(layer.output)
        self.bodies = networks.subnetworks(layer)
        self._rank5 = rank5

    @cached_property
    def params(self) -> Params:
        """The parameters; raises a `SpecError` for a layer of no kind."""
        return Params.of(self.layer, rank5=self._rank5)


def steps_of(network: networks.Network) -> list[LayerStep]:
    """The layers of a network, to be traced several times with `trace`."""
    return _steps(network.layers, rank5=versions.uses_rank5(network))


def _steps(layers: Sequence[nn.NeuralNetworkLayer], *, rank5: bool) -> list[LayerStep]:
    return [LayerStep(layer, rank5=rank5) for layer in layers]


def _walk(
    steps: Sequence[LayerStep], result: ShapeTrace, custom: CustomShapes, *, rank5: bool
) -> None:
    for step in steps:
        layer = step.layer
        if step.bodies:
            _walk_bodies(layer, step.bodies, result, custom, rank5=rank5)
            continue
        input_shapes = [result.shapes.get(name) for name in step.inputs]
        outputs: Sequence[Shape] | None
        known = tuple(shape for shape in input_shapes if shape is not None)
        try:
            if layer.HasField("custom"):
                outputs = custom(layer, known) if len(known) == len(input_shapes) else None
                outputs = _declared(layer, known) if outputs is None else outputs
                if outputs is None:
                    result.opaque.append(layer.name)
            else:
                outputs = infer(step.params, input_shapes)
        except SpecError as error:
            reason = str(error).splitlines()[0]
            result.refusals.append(ShapeRefusal(layer, known, reason))
            outputs = None
        except Exception as error:  # validate would reject its parameters
            result.refusals.append(
                ShapeRefusal(layer, known, f"its parameters do not fit: {error}")
            )
            outputs = None
        for index, name in enumerate(step.outputs):
            fits = outputs is not None and index < len(outputs)
            result.shapes[name] = tuple(outputs[index]) if outputs is not None and fits else None


def declare(
    layer: nn.NeuralNetworkLayer, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> None:
    """Declare the shapes of a layer's inputs and outputs in the layer, if no rule knows them."""
    for target, blob_shapes in ((layer.inputTensor, inputs), (layer.outputTensor, outputs)):
        for shape in blob_shapes:
            target.add(rank=len(shape), dimValue=[n or 0 for n in shape])


def _declared(layer: nn.NeuralNetworkLayer, inputs: Sequence[Shape]) -> list[Shape] | None:
    """The shapes that a layer declares for exactly these shapes of its inputs."""
    declared_inputs, result = (
        [tuple(tensor.dimValue) for tensor in tensors]
        for tensors in (layer.inputTensor, layer.outputTensor)
    )
    fits = declared_inputs == list(inputs) and len(result) == len(layer.output) > 0
    return list(result) if fits and all(all(shape) for shape in result) else None


def bound_to_sizes(
    network: networks.Network, before: Known, now: Known, *, recorded: bool
) -> list[ShapeRefusal]:
    """The layers that hold for the described sizes only, though they accept others.

    Args:
        before: shapes of all blobs for the described sizes of the inputs.
        now: for other sizes.
        recorded: whether the model says which sizes it was computed for; see `spec.sizes`.
    """
    constant: dict[str, bool] = {}
    results: list[ShapeRefusal] = []
    for layer in networks.layers_of(network):
        reads, writes = networks.touched(layer)
        kind = layer.WhichOneof("layer") or ""
        same = kind not in _NEVER_CONSTANT and all(constant.get(blob) for blob in reads)
        constant |= {blob: same and constant.get(blob, True) for blob in writes}
        entry = SIZE_CHECKS.find(kind)
        names = list(layer.input) if kind != "loop" else sorted(reads)
        shapes = [(before.get(name), now.get(name)) for name in names]
        if entry is None or all(one == other for one, other in shapes):
            continue
        known = [(a, b) for a, b in shapes if a is not None and b is not None and len(a) == len(b)]
        if len(known) < len(shapes):
            continue
        change = Change(
            tuple(a for a, _ in known),
            tuple(b for _, b in known),
            tuple(constant.get(name, False) for name in names),
            recorded,
        )
        reason = entry.value(Params.of(layer), change)
        if reason:
            results.append(ShapeRefusal(layer, change.now, reason))
    return results


_NEVER_CONSTANT = {
    *("custom", "branch", "loop", "categoricalDistribution"),
    *(
        f"random{distribution}{shape}"
        for distribution in ("Normal", "Uniform", "Bernoulli")
        for shape in ("Like", "Static", "Dynamic")
    ),
}


def _walk_bodies(
    layer: nn.NeuralNetworkLayer,
    bodies: Sequence[nn.NeuralNetwork],
    result: ShapeTrace,
    custom: CustomShapes,
    *,
    rank5: bool,
) -> None:
    """Of blobs that a branch or a loop may change, keep what all ways agree on."""
    before = dict(result.shapes)
    if layer.HasField("branch"):
        ends: list[Known] = []
        for body in bodies:
            result.shapes = dict(before)
            _walk(_steps(body.layers, rank5=rank5), result, custom, rank5=rank5)
            ends.append(result.shapes)
        result.shapes = _agreed(*ends)
        return
    for _ in range(2):  # the second round sees the shapes that the first one left
        for body in bodies:
            _walk(_steps(body.layers, rank5=rank5), result, custom, rank5=rank5)
        result.shapes = _agreed(before, result.shapes)
        before = dict(result.shapes)


def _agreed(first: Known, second: Known) -> Known:
    both = first.keys() & second.keys()
    return first | second | {name: in_common(first[name], second[name]) for name in both}


# ---- inputs -----------------------------------------------------------------------------------


def blob_shape(
    feature: ft.FeatureType, network: networks.Network, shape: Sequence[int | None] | None = None
) -> Shape | None:
    """The shape of the blob that a network reads for an input.

    Args:
        feature: the type of the input.
        network: defines the mapping of shapes.
        shape: of the array, or [height, width] of the image, instead of the described one.
    """
    kind = feature.WhichOneof("Type")
    if kind == "imageType":
        image = feature.imageType
        height, width = (image.height, image.width) if shape is None else shape
        layout = features.LAYOUTS.get(image.colorSpace, "RGB")
        blob = (1, features.CHANNELS[layout], height, width)
        return (1, *blob) if network.imageInputShapeMapping == 0 else blob
    extents = tuple(feature.multiArrayType.shape) if shape is None else tuple(shape)
    if kind in ("doubleType", "int64Type"):
        extents = (1,)
    elif kind != "multiArrayType" or not extents:
        return None
    if not (versions.uses_rank5(network) or network.arrayInputShapeMapping == 0):
        return extents
    if len(extents) == 1:
        return (1, 1, *extents, 1, 1)
    return (1, 1, *extents) if len(extents) == 3 else extents


def blob_shapes(
    spec: model_pb2.Model, own: Mapping[str, Sequence[int | None]] | None = None
) -> Known:
    """The shapes of all input blobs of a network; those in `own` replace the described ones.

    Raises:
        SpecError: there is no such input, or the model is not a neural network.
    """
    network = networks.network_of(spec)
    if network is None:
        raise SpecError(f"a model of kind {spec.WhichOneof('Type')!r} has no blobs")
    remaining = dict(own or {})
    shapes = {
        feature.name: blob_shape(feature.type, network, remaining.pop(feature.name, None))
        for feature in spec.description.input
    }
    if remaining:
        raise SpecError(f"no input {', '.join(map(repr, remaining))}; the inputs: {[*shapes]}")
    return shapes
