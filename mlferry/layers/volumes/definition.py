"""Convolution and pooling over depth, height and width."""

from __future__ import annotations

from dataclasses import replace

from mlferry.errors import SpecError
from mlferry.layers.borders import borders_are_two, padding_is_set
from mlferry.layers.convolution.definition import groups_divide
from mlferry.layers.definitions import (
    FLOATS,
    TWO_OR_DEFAULT,
    Change,
    Entries,
    StoredWeight,
    StoredWeights,
    check_list,
    layer_kind,
    layer_rule,
    size_check,
    stored_bias,
    stored_weights,
)
from mlferry.layers.params import Params
from mlferry.numerics import windows
from mlferry.numerics.shapes import Extent, Shape, show
from mlferry.refusals import refuse
from mlferry.spec.problems import Problems, error, warning
from mlferry.spec.proto import neural_network_pb2 as nn

_AXES = ("Depth", "Height", "Width")
_SIDES = (("Front", "Back"), ("Top", "Bottom"), ("Left", "Right"))


def _each(field: str, value: int = 0) -> dict[str, int]:
    """The fields of depth, height and width, with a value."""
    return {field + axis: value for axis in _AXES}


def triple(params: Params, field: str) -> tuple[int, ...]:
    """A parameter of depth, height and width."""
    return tuple(getattr(params, field + axis) for axis in _AXES)


def custom_edges(params: Params) -> list[windows.Edges]:
    """The custom padding, which counts only with this type of padding."""
    if params.paddingType != "CUSTOM":
        return [(0, 0)] * 3
    return [
        (getattr(params, f"customPadding{start}"), getattr(params, f"customPadding{end}"))
        for start, end in _SIDES
    ]


def spans_of(params: Params) -> tuple[int, ...]:
    """How far a dilated kernel reaches."""
    return tuple(windows.spans_of(triple(params, "kernel"), triple(params, "dilation")))


def kernel_shape(params: Params) -> tuple[int, ...]:
    """[outC, inC / groups, kD, kH, kW]; of a deconvolution [inC, outC / groups, kD, kH, kW]."""
    first, second = params.outputChannels, params.inputChannels
    if params.isDeconvolution:
        first, second = second, first
    return (first, second // params.nGroups, *triple(params, "kernel"))


def edges_of(params: Params, sizes: Shape, spans: tuple[int, ...]) -> list[windows.Edges]:
    """The padding of an input of these depths, heights and widths."""
    if params.paddingType != "SAME":
        return custom_edges(params)
    return [
        windows.same_edges(size, span, stride, "BOTTOM_RIGHT_HEAVY")
        for size, span, stride in zip(sizes, spans, triple(params, "stride"), strict=True)
    ]


def _need_five(shape: Shape) -> None:
    if len(shape) != 5:
        raise SpecError(f"input of shape {show(shape)} needs 5 axes: Batch, C, D, H, W")


@layer_kind(
    "convolution3d",
    inputs=1,
    defaults={"nGroups": 1, **_each("stride", 1), **_each("dilation", 1), **_each("kernel", 3)},
    positive=("inputChannels", "outputChannels"),
    lists={"outputShape": Entries((0, 3), 1)},
)
def convolution3d(params: Params, shape: Shape) -> list[Shape]:
    _need_five(shape)
    if shape[1] not in (params.inputChannels, None):
        raise SpecError(
            f"input {show(shape)} has {shape[1]} channels, the layer takes {params.inputChannels}"
        )
    return [(shape[0], params.outputChannels, *convolved(params, shape[2:]))]


def convolved(params: Params, sizes: Shape) -> Shape:
    """Depth, height and width of the output of a `convolution3d`."""
    if params.isDeconvolution and params.outputShape:
        return tuple(params.outputShape)
    result: list[Extent] = []
    for size, span, stride, edges in zip(
        sizes, spans_of(params), triple(params, "stride"), custom_edges(params), strict=True
    ):
        if not params.isDeconvolution:
            result.append(slid(params, size, span, stride, edges))
        elif params.paddingType == "SAME":
            result.append(None if size is None else size * stride)
        else:
            result.append(windows.spread(size, span, stride, edges))
    return tuple(result)


def slid(params: Params, size: Extent, span: int, stride: int, edges: windows.Edges) -> Extent:
    """How many windows there are along an axis."""
    if params.paddingType == "SAME":
        return windows.slide_same(size, stride)
    return windows.slide(size, span, stride, edges)


def transposed_sizes(params: Params, sizes: Shape) -> tuple[Shape, Shape, list[tuple[int, int]]]:
    """The sizes of the full result and of the output, and what is cut off before the latter."""
    full = tuple(
        None if size is None else (size - 1) * stride + span
        for size, stride, span in zip(
            sizes, triple(params, "stride"), spans_of(params), strict=True
        )
    )
    target, edges = convolved(params, sizes), custom_edges(params)
    if params.paddingType == "SAME" or (params.outputShape and not any(map(any, edges))):
        if None in full:
            raise refuse("SAME padding or outputShape for a volume whose size is not known")
        pairs = zip(full, target, strict=True)
        edges = [(max(0, (whole or 0) - (part or 0)) // 2, 0) for whole, part in pairs]
    return full, target, edges


@layer_kind(
    "pooling3d",
    inputs=1,
    defaults=_each("stride", 1),
    positive=(*_each("kernel"), *_each("stride")),
)
def pooling3d(params: Params, shape: Shape) -> list[Shape]:
    _need_five(shape)
    axes = zip(
        shape[2:],
        triple(params, "kernel"),
        triple(params, "stride"),
        custom_edges(params),
        strict=True,
    )
    return [(*shape[:2], *(slid(params, *axis) for axis in axes))]


@layer_kind("globalPooling3d", inputs=1)
def global_pooling3d(params: Params, shape: Shape) -> list[Shape]:
    _need_five(shape)
    return [(*shape[:2], 1, 1, 1)]


@size_check("convolution3d")
def bound_convolution3d(params: Params, change: Change) -> str:
    """Only a transposed convolution has an output size of its own."""
    bound = (
        params.isDeconvolution and params.outputShape and any(axis > 1 for axis in change.varying())
    )
    return f"its output has the fixed size {show(params.outputShape)}" if bound else ""


# ---- rules and stored weights ------------------------------------------------------------------


@stored_weights("convolution3d")
def weights_of_convolution3d(
    layer: nn.NeuralNetworkLayer, params: nn.Convolution3DLayerParams
) -> StoredWeights:
    kernel = tuple(getattr(params, f"kernel{axis}") or 3 for axis in ("Depth", "Height", "Width"))
    groups = params.nGroups or 1
    first, second = params.outputChannels, params.inputChannels
    if params.isDeconvolution:
        first, second = second, first
    shape = (first, second // groups, *kernel)
    yield StoredWeight("weights", params.weights, shape, floats=FLOATS)
    yield replace(stored_bias(params, params.outputChannels), floats=FLOATS)


@layer_rule("convolution3d")
def check_convolution3d_groups(
    layer: nn.NeuralNetworkLayer, params: nn.Convolution3DLayerParams
) -> Problems:
    """Groups divide the channels."""
    yield from groups_divide(params, params.nGroups or 1, ["inputChannels", "outputChannels"])


@layer_rule("convolution3d")
def check_convolution3d_windows(
    layer: nn.NeuralNetworkLayer, params: nn.Convolution3DLayerParams
) -> Problems:
    """Kernel, stride, dilation and groups are set: devices have no defaults here."""
    windows = [f"{option}{axis}" for option in ("kernel", "stride", "dilation") for axis in _AXES]
    for field in (*windows, "nGroups"):
        value = getattr(params, field)
        if value < 0:
            yield error(f"{field} is {value}; it must be at least 1")
        elif value == 0:
            yield warning(f"{field} is not set; it must be at least 1")


@layer_rule("convolution3d")
def check_output_shape3d(
    layer: nn.NeuralNetworkLayer, params: nn.Convolution3DLayerParams
) -> Problems:
    """Only a deconvolution has `outputShape`."""
    if params.outputShape and not params.isDeconvolution:
        yield warning("outputShape is set, and isDeconvolution is not")


@layer_rule("convolution3d", "pooling3d")
def check_padding3d(
    layer: nn.NeuralNetworkLayer, params: nn.Convolution3DLayerParams | nn.Pooling3DLayerParams
) -> Problems:
    """Custom padding is not negative, and a pooling layer has it only if it uses it."""
    custom = params.paddingType == 0
    for field in (f"customPadding{side}" for pair in _SIDES for side in pair):
        value = getattr(params, field)
        if value < 0:
            yield error(f"{field} is {value}; it must not be negative")
        elif value and not custom and layer.HasField("pooling3d"):
            yield warning(f"{field} is {value}, but paddingType is not CUSTOM")


@layer_rule("pooling")
def check_pooling_windows(layer: nn.NeuralNetworkLayer, params: nn.PoolingLayerParams) -> Problems:
    """Kernel, stride and padding are set, unless the pooling is global."""
    allowed = ("valid", "same", "includeLastPixel")
    if params.globalPooling:
        if params.WhichOneof("PoolingPaddingType") is None:
            yield warning(f"PoolingPaddingType is not set; possible are {', '.join(allowed)}")
        return
    yield from check_list(params, "kernelSize", TWO_OR_DEFAULT)
    yield from check_list(params, "stride", TWO_OR_DEFAULT)
    yield from padding_is_set(params, "PoolingPaddingType", allowed)
    yield from borders_are_two(params.valid.paddingAmounts, "valid.paddingAmounts")
    amounts = params.includeLastPixel.paddingAmounts
    if len(amounts) not in (0, 2):
        yield error(
            f"includeLastPixel.paddingAmounts has {len(amounts)} entries; possible are 0 or 2"
        )
