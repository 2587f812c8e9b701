"""Image inputs of `NeuralNetworkBuilder`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mlferry.errors import SpecError
from mlferry.numerics.shapes import Axes
from mlferry.spec import networks
from mlferry.spec.proto import features_pb2 as ft, model_pb2

PerInput = Any
_BIASES = {
    "red_bias": "redBias",
    "green_bias": "greenBias",
    "blue_bias": "blueBias",
    "gray_bias": "grayBias",
}


class NetworkOfImages(Protocol):
    """The builder whose inputs become images."""

    nn_spec: networks.Network

    @property
    def model(self) -> model_pb2.Model:
        """The model that is built."""

    def add_transpose(
        self, name: str, axes: Sequence[int], input_name: str, output_name: str
    ) -> Any:
        """Add a transpose."""

    def add_squeeze(self, name: str, input_name: str, output_name: str, axes: Axes) -> Any:
        """Add a layer that drops axes."""

    def move_to_front(self, name: str) -> None:
        """Move a layer to the front."""

    def forget(self, name: str) -> None:
        """Remove a layer."""


@dataclass(frozen=True)
class PixelArguments:
    """The preprocessing of pixels: each value is for all inputs, or a mapping from names."""

    names: Sequence[str]
    is_bgr: PerInput
    red_bias: PerInput
    green_bias: PerInput
    blue_bias: PerInput
    gray_bias: PerInput
    image_scale: PerInput

    def __post_init__(self) -> None:
        for argument in ("is_bgr", *_BIASES, "image_scale"):
            value = getattr(self, argument)
            wrong = [key for key in value if key not in self.names] if _is_mapping(value) else []
            if wrong:
                raise SpecError(
                    f"{argument}: there is no image input {wrong[0]!r}; there are "
                    f"{', '.join(map(repr, self.names))}"
                )

    def of(self, argument: str, name: str, default: object) -> Any:
        """The value of an argument for an input."""
        value = getattr(self, argument)
        return value.get(name, default) if _is_mapping(value) else value


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def set_images(builder: NetworkOfImages, arguments: PixelArguments, image_format: str) -> None:
    """Turn inputs into images, and set their preprocessing; see the builder's method."""
    layout = image_format.upper()
    if layout not in ("NCHW", "NHWC"):
        raise SpecError(f"image_format={image_format!r}: 'NCHW' and 'NHWC' are possible")
    for feature in builder.model.description.input:
        if feature.name not in arguments.names:
            continue
        if feature.type.WhichOneof("Type") == "multiArrayType":
            channels_last, rank = layout == "NHWC", len(feature.type.multiArrayType.shape)
            _make_image(feature, channels_last, bool(arguments.of("is_bgr", feature.name, False)))
            if channels_last:
                _give_channels_last(builder, feature.name, rank)
        _add_scaler(builder, feature.name, arguments)


def _make_image(feature: model_pb2.FeatureDescription, channels_last: bool, is_bgr: bool) -> None:
    shape = tuple(feature.type.multiArrayType.shape)
    if len(shape) not in (3, 4):
        raise SpecError(f"input {feature.name!r} has {len(shape)} axes; an image has 3, or 4")
    if channels_last:
        height, width, channels = shape[-3:]
    else:
        channels, height, width = shape[-3:]
    if channels not in (1, 3):
        raise SpecError(f"input {feature.name!r} has {channels} channels; an image has 1 or 3")
    image = feature.type.imageType
    color = ft.ImageFeatureType.BGR if is_bgr else ft.ImageFeatureType.RGB
    image.colorSpace = ft.ImageFeatureType.GRAYSCALE if channels == 1 else color
    image.width, image.height = width, height


def _add_scaler(builder: NetworkOfImages, name: str, arguments: PixelArguments) -> None:
    step = builder.nn_spec.preprocessing.add(featureName=name)
    step.scaler.channelScale = arguments.of("image_scale", name, 1.0)
    for argument, field in _BIASES.items():
        setattr(step.scaler, field, arguments.of(argument, name, 0.0))


_TO_CHANNELS_FIRST, _TO_CHANNELS_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


def _give_channels_last(builder: NetworkOfImages, name: str, rank: int) -> None:
    """Keep layers working that read [N, H, W, C]: images are [1, C, H, W].

    If all of them are transposes to [N, C, H, W], drop these instead.
    """
    network, outputs = builder.nn_spec, builder.model.description.output
    readers = [layer for layer in networks.layers_of(network) if name in layer.input]
    dropped = [layer for layer in network.layers if name in layer.input]
    if (
        rank == 4
        and readers == dropped
        and all(list(layer.transpose.axes) == _TO_CHANNELS_FIRST for layer in readers)
        and not any(out.name in layer.output for out in outputs for layer in readers)
    ):
        for layer in readers:
            _read_instead(network, layer.output[0], name)
            builder.forget(layer.name)
        return
    target = f"{name}_to_nhwc"
    _read_instead(network, name, target)
    # an image has a batch axis; the array may have had none
    blob = target if rank == 4 else f"{target}_batch"
    builder.add_transpose(blob, _TO_CHANNELS_LAST, name, blob)
    if rank == 3:
        builder.add_squeeze(target, blob, target, axes=[0])
        builder.move_to_front(target)
    builder.move_to_front(blob)


def _read_instead(network: networks.Network, old: str, new: str) -> None:
    """Make every layer that reads a blob read another one."""
    for layer in networks.layers_of(network):
        layer.input[:] = [new if blob == old else blob for blob in layer.input]
