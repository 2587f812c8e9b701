"""The inputs and outputs of an exported model: what `MLModel.predict` takes and returns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from mlferry.errors import ExportError
from mlferry.exporters.ends import described, ones_around, outputs_of, preprocessing
from mlferry.exporters.onnx.translation import Translation
from mlferry.layers import versions
from mlferry.numerics.shapes import Shape
from mlferry.onnx_graph.emitter import FLOAT, Emitter
from mlferry.onnx_graph.graph import Extent, Port
from mlferry.registry import did_you_mean
from mlferry.spec import features, networks
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn

NUMBERS = {"float16": 10, "int8": 3, "int32": 6, "uint8": 2}  # of TensorProto
LABELS, PREDICTED, PROBABILITIES = (
    f"mlferry.{what}" for what in ("class_labels", "predicted_feature", "predicted_probabilities")
)


def add_inputs(
    t: Translation,
    spec: model_pb2.Model,
    network: networks.Network,
    shapes: Mapping[str, Sequence[Extent]],
    *,
    pixels: bool,
) -> None:
    """Add every input and turn it into a blob.

    Args:
        shapes: shapes in place of the described ones; a string names an extent that varies.
        pixels: whether image inputs take pixels, which the graph scales and reorders.

    Raises:
        ExportError: a shape names no input, or does not fit it.
    """
    check_shapes(shapes, [feature.name for feature in spec.description.input])
    for feature in spec.description.input:
        shape = list(shapes.get(feature.name, described(feature.type)))
        kind = feature.type.WhichOneof("Type")
        if kind == "imageType":
            _image_input(t, feature, network, shape, pixels=pixels)
        elif kind in ("multiArrayType", "doubleType", "int64Type"):
            _array_input(t, feature, network, shape)
        else:
            raise ExportError(
                f"input {feature.name!r} is a {features.show(feature.type)}, which is not an array"
            )


def check_shapes(shapes: Mapping[str, Sequence[Extent]], names: Sequence[str]) -> None:
    """Raise an `ExportError` if a shape names no input."""
    for name in shapes:
        if name not in names:
            close = did_you_mean(name, list(names))
            raise ExportError(f"input_shapes has {name!r}; the inputs are {list(names)}.{close}")


def named(name: str, shape: Sequence[Extent]) -> list[Extent]:
    """A shape with a name for every extent that varies."""
    return [f"{name}_{axis}" if n is None else n for axis, n in enumerate(shape)]


def open_shape(shape: Sequence[Extent]) -> Shape:
    """A shape in which None stands for every extent that has a name."""
    return tuple(n if isinstance(n, int) else None for n in shape)


def stored_dtype(kind: ft.FeatureType) -> str:
    """The type of an array outside the graph: float32 for Core ML's DOUBLE."""
    dtype = features.DTYPES.get(kind.multiArrayType.dataType, "float32")
    return "float32" if dtype == "float64" else dtype


def _array_input(
    t: Translation,
    feature: model_pb2.FeatureDescription,
    network: networks.Network,
    shape: list[Extent],
) -> None:
    name, dtype = feature.name, stored_dtype(feature.type)
    if not feature.type.HasField("multiArrayType"):
        shape = [1]
    if not shape:
        raise ExportError(
            f"input {name!r} is described without a shape: add input_shapes={{{name!r}: (...)}}"
        )
    front, behind = ones_around(feature, network, shape)
    t.e.graph.inputs.append(Port(name, dtype, named(name, shape)))
    t.e.shapes[name] = open_shape(shape)
    if feature.type.isOptional:
        default_value(t.e, feature, name, shape)
    value = name if dtype == "float32" else t.e.node("Cast", name, to=FLOAT)
    value = t.e.expand(value, [*range(front), *range(-behind, 0)])
    t.add_input(name, value, (*[1] * front, *open_shape(shape), *[1] * behind))


def default_value(
    emitter: Emitter, feature: model_pb2.FeatureDescription, name: str, shape: Sequence[Extent]
) -> None:
    """Give an optional input an initializer, which makes it optional in ONNX."""
    known = tuple(n for n in shape if isinstance(n, int))
    if len(known) < len(shape):
        raise ExportError(f"the optional input {name!r} needs a fixed shape: give input_shapes")
    dtype = emitter.graph.inputs[-1].dtype
    emitter.graph.arrays[name] = np.full(known, features.default_of(feature.type), dtype)


# ---- images -------------------------------------------------------------------------------------


def _image_input(
    t: Translation,
    feature: model_pb2.FeatureDescription,
    network: networks.Network,
    shape: list[Extent],
    *,
    pixels: bool,
) -> None:
    """[1, C, H, W] as the network reads it, or pixels as `MLModel.predict` takes them.

    Pixels are uint8 [H, W, 3] in the order R, G, B, or [H, W].
    """
    name, image = feature.name, feature.type.imageType
    layout = features.LAYOUTS.get(image.colorSpace, "RGB")
    channels = features.CHANNELS[layout]
    height, width = named(name, shape)[-2:]
    size = open_shape((height, width))
    if pixels:
        value = from_pixels(t.e, name, layout, [height, width])
        for op, operand in preprocessing(network, name, layout, t.e.shape(value)):
            value = t.e.node(op.capitalize(), value, t.e.constant(operand))
    else:
        value = name
        t.e.graph.inputs.append(Port(name, "float32", [1, channels, height, width]))
    t.e.shapes[value] = (1, channels, *size)
    if network.imageInputShapeMapping == 0:
        value = t.e.expand(value, [0])
    t.add_input(name, value, t.e.shapes[value])


def from_pixels(emitter: Emitter, name: str, layout: str, size: Sequence[Extent]) -> str:
    """An input of pixels, uint8 [H, W, 3] or [H, W], as the network reads it: [1, C, H, W]."""
    channels = features.CHANNELS[layout]
    dtype = "float32" if layout == "GRAYSCALE_FLOAT16" else "uint8"
    shape: list[Extent] = [*size, 3] if channels == 3 else [*size]
    emitter.graph.inputs.append(Port(name, dtype, shape))
    emitter.shapes[name] = open_shape(shape)
    value = name if dtype == "float32" else emitter.node("Cast", name, to=FLOAT)
    value = emitter.expand(value, [0] if channels == 3 else [0, 1])
    if channels == 3:
        value = emitter.transpose(value, [0, 3, 1, 2])
    if layout == "BGR":
        value = emitter.node("Gather", value, emitter.integers([2, 1, 0]), axis=1)
    emitter.shapes[value] = (1, channels, *open_shape(size))
    return value


def picture(emitter: Emitter, value: str, feature: ft.ImageFeatureType) -> tuple[str, str]:
    """An image output as the array that `MLModel.predict` returns, and the type of its values."""
    layout = features.LAYOUTS.get(feature.colorSpace, "RGB")
    channels, shape = features.CHANNELS[layout], emitter.shape(value)
    if layout == "GRAYSCALE_FLOAT16":
        return emitter.reshape(value, emitter.extents(value)[-2:]), "float32"
    pixels = emitter.node(
        "Clip", emitter.node("Round", value), emitter.number(0), emitter.number(255)
    )
    size = emitter.extents(pixels)[-2:]
    if channels == 1:
        pixels = emitter.reshape(pixels, size)
    else:
        pixels = emitter.reshape(pixels, [channels, *size])
        if layout == "BGR":
            pixels = emitter.node("Gather", pixels, emitter.integers([2, 1, 0]), axis=0)
            emitter.shapes[pixels] = (channels, *shape[-2:])
        pixels = emitter.transpose(pixels, [1, 2, 0])
    return emitter.node("Cast", pixels, to=NUMBERS["uint8"]), "uint8"


# ---- outputs ------------------------------------------------------------------------------------


def add_outputs(
    t: Translation, spec: model_pb2.Model, network: networks.Network, *, pixels: bool
) -> None:
    """Turn blobs into outputs of the graph, in the types that the model describes."""
    types = {feature.name: feature.type for feature in spec.description.output}
    for name, blob in outputs_of(spec, network).items():
        value = t.whole(blob)
        if t.e.shapes.get(value) is None:
            raise ExportError(
                f"the rank of output {name!r} is not known, which ONNX requires: a shape "
                "that is computed, or a custom layer without output_shapes, hides it"
            )
        feature = types.get(name, ft.FeatureType())
        kind = feature.WhichOneof("Type")
        dtype = stored_dtype(feature)
        if versions.uses_rank5(network):
            value = _as_described(t, value, feature)
        if kind == "imageType" and pixels:
            value, dtype = picture(t.e, value, feature.imageType)
        elif dtype != "float32":
            value = t.e.node("Cast", value, to=NUMBERS[dtype])
        t.output(name, value, dtype)


def _as_described(t: Translation, value: str, feature: ft.FeatureType) -> str:
    """A blob of five axes in the shape that it has as an output."""
    shape = t.e.shape(value)
    target = features.output_shape(feature, shape)
    return value if target == shape else t.e.reshape(value, [n for n in target if n is not None])


def texts_of(description: model_pb2.ModelDescription) -> dict[str, str]:
    """The entries of `metadata_props` for a description: Core ML's metadata."""
    entries = description.metadata.userDefined
    texts = {key: entries[key] for key in sorted(entries)}
    for key in ("shortDescription", "versionString", "author", "license"):
        if getattr(description.metadata, key):
            texts[key] = getattr(description.metadata, key)
    return texts


def metadata(spec: model_pb2.Model, network: networks.Network) -> dict[str, str]:
    """The entries of `metadata_props`: a classifier's labels, and Core ML's metadata."""
    texts = texts_of(spec.description)
    if isinstance(network, nn.NeuralNetworkClassifier):
        texts[LABELS] = json.dumps(networks.class_labels(network), ensure_ascii=False)
        texts[PREDICTED] = spec.description.predictedFeatureName
        texts[PROBABILITIES] = next(iter(outputs_of(spec, network)))
    return texts
