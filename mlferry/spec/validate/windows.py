"""Rules about windows that slide, and about borders: convolution, pooling, padding, cropping."""

from __future__ import annotations

from typing import Any

from mlferry.spec.proto import neural_network_pb2 as nn
from mlferry.spec.validate.parameters import TWO_OR_DEFAULT, check_list
from mlferry.spec.validate.rules import Problems, error, layer_rule, note, show, warning


@layer_rule("convolution")
def convolution_groups(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """Groups divide the channels."""
    groups = params.nGroups or 1
    fields = ["outputChannels"]
    if params.isDeconvolution and len(layer.input) < 2:
        fields.append("kernelChannels")
    yield from _groups_divide(params, groups, fields)


def _groups_divide(params: Any, groups: int, fields: list[str]) -> Problems:
    for field in fields:
        if groups < 1 or getattr(params, field) % groups:
            yield error(f"nGroups {groups} does not divide {field} {getattr(params, field)}")


@layer_rule("convolution")
def convolution_padding(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """The padding is told."""
    yield from _padding_is_set(params, "ConvolutionPaddingType", ("valid", "same"))
    yield from _borders(params.valid.paddingAmounts, "valid.paddingAmounts")


@layer_rule("convolution")
def convolution_weights_as_input(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """What a convolution cannot do when its weights are an input."""
    if len(layer.input) < 2:
        return
    if params.isDeconvolution:
        yield error("isDeconvolution is set, but its weights come as an input")
    if any(factor > 1 for factor in params.dilationFactor):
        yield warning(
            f"dilationFactor is {show(params.dilationFactor)}, but its weights come as an input"
        )
    if params.hasBias:
        yield warning("hasBias is set, but its weights come as an input: it has no stored bias")


@layer_rule("convolution", "convolution3d")
def output_shape_of_deconvolution(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """`outputShape` is for deconvolutions."""
    if params.outputShape and not params.isDeconvolution:
        yield note("outputShape is ignored: isDeconvolution is not set")


@layer_rule("convolution3d")
def convolution3d_groups(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """Groups divide the channels."""
    yield from _groups_divide(params, params.nGroups or 1, ["inputChannels", "outputChannels"])


_AXES3D = ("Depth", "Height", "Width")
_SIDES3D = ("Front", "Back", "Top", "Bottom", "Left", "Right")


@layer_rule("convolution3d")
def convolution3d_windows(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """Kernel, stride, dilation and groups are told: devices have no defaults here."""
    windows = [f"{what}{axis}" for what in ("kernel", "stride", "dilation") for axis in _AXES3D]
    for field in (*windows, "nGroups"):
        value = getattr(params, field)
        if value < 0:
            yield error(f"{field} is {value}; it must be at least 1")
        elif value == 0:
            yield warning(f"{field} is not set; it must be at least 1")


@layer_rule("convolution3d", "pooling3d")
def padding3d(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """Custom padding is not negative; a pooling has it only where it is used."""
    custom = params.paddingType == 0
    for field in (f"customPadding{side}" for side in _SIDES3D):
        value = getattr(params, field)
        if value < 0:
            yield error(f"{field} is {value}; it must not be negative")
        elif value and not custom and layer.HasField("pooling3d"):
            yield warning(f"{field} is {value}, but paddingType is not CUSTOM")


@layer_rule("pooling")
def pooling_windows(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """Kernel, stride and padding are told, unless the whole plane is pooled."""
    allowed = ("valid", "same", "includeLastPixel")
    if params.globalPooling:
        if params.WhichOneof("PoolingPaddingType") is None:
            yield warning(f"PoolingPaddingType is not set; possible are {', '.join(allowed)}")
        return
    yield from check_list(params, "kernelSize", TWO_OR_DEFAULT)
    yield from check_list(params, "stride", TWO_OR_DEFAULT)
    yield from _padding_is_set(params, "PoolingPaddingType", allowed)
    yield from _borders(params.valid.paddingAmounts, "valid.paddingAmounts")
    amounts = params.includeLastPixel.paddingAmounts
    if len(amounts) not in (0, 2):
        yield error(
            f"includeLastPixel.paddingAmounts has {len(amounts)} entries; possible are 0 or 2"
        )


def _padding_is_set(params: Any, oneof: str, allowed: tuple[str, ...]) -> Problems:
    if params.WhichOneof(oneof) is None:
        yield error(f"{oneof} is not set; possible are {', '.join(allowed)}")


def _borders(amounts: nn.BorderAmounts, field: str) -> Problems:
    count = len(amounts.borderAmounts)
    if count not in (0, 2):
        yield error(f"{field} has amounts for {count} axes; possible are 0 or 2 (H, W)")


@layer_rule("padding")
def padding(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """The padding is told."""
    yield from _padding_is_set(params, "PaddingType", ("constant", "reflection", "replication"))
    yield from _borders(params.paddingAmounts, "paddingAmounts")


@layer_rule("crop")
def crop(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """One input is cut by amounts; with two, the place of the cut is told."""
    if len(layer.input) > 1:
        if len(params.offset) != 2:
            yield error(f"offset has {len(params.offset)} entries; with two inputs it has 2")
        return
    yield from _borders(params.cropAmounts, "cropAmounts")
    if not params.cropAmounts.borderAmounts:
        yield warning("cropAmounts is empty; with one input it has amounts for 2 axes (H, W)")


@layer_rule("constantPad")
def constant_pad(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """With one input, two amounts an axis; an output size is on one side only."""
    if len(layer.input) > 1:
        return
    amounts = params.padAmounts
    if not amounts or len(amounts) % 2:
        yield error(f"padAmounts has {len(amounts)} entries; it has two for each axis")
    elif params.padToGivenOutputSizeMode and any(map(min, amounts[::2], amounts[1::2])):
        yield error(
            f"padAmounts is {show(amounts)}; with padToGivenOutputSizeMode only one amount of "
            "an axis is not 0"
        )
