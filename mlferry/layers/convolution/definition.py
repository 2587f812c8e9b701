"""Convolution, transposed convolution and pooling."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import SpecError
from mlferry.layers.borders import borders, borders_are_two, padding_is_set
from mlferry.layers.definitions import (
    SECOND_INPUT,
    TWO_OR_DEFAULT,
    Change,
    LaterOption,
    StoredWeight,
    StoredWeights,
    layer_kind,
    layer_rule,
    size_check,
    stored_bias,
    stored_weights,
)
from mlferry.layers.params import Params
from mlferry.numerics import windows
from mlferry.numerics.shapes import Extent, Shape, need_rank, show
from mlferry.spec.problems import Problems, error, listed, note, warning
from mlferry.spec.proto import neural_network_pb2 as nn


@layer_kind(
    "convolution",
    inputs=(1, 2),
    evaluated=(1, 3),
    defaults={"kernelSize": (3, 3), "stride": (1, 1), "dilationFactor": (1, 1), "nGroups": 1},
    positive=("outputChannels",),
    positive_alone=("kernelChannels",),
    lists={
        "kernelSize": TWO_OR_DEFAULT,
        "stride": TWO_OR_DEFAULT,
        "dilationFactor": TWO_OR_DEFAULT,
        "outputShape": TWO_OR_DEFAULT,
    },
    features=(LaterOption(lambda layer: len(layer.input) > 1, 4, "the weights as an input"),),
    updatable=True,
    gradient=True,
)
def convolution(
    params: Params, shape: Shape, weights: Shape | None = None, *_: Shape
) -> list[Shape]:
    need_rank(shape, 4)
    *outer, channels, height, width = shape
    expected = (
        params.kernelChannels if params.isDeconvolution else params.kernelChannels * params.nGroups
    )
    if channels not in (expected, None):
        raise SpecError(f"input {show(shape)} has {channels} channels, the layer takes {expected}")
    if weights is not None:
        weight_shape = kernel_shape(params)
        if len(weights) != 4 or any(
            extent not in (other, None) for extent, other in zip(weights, weight_shape, strict=True)
        ):
            raise SpecError(f"weights of shape {show(weights)}; {show(weight_shape)} is needed")
    if params.isDeconvolution:
        spatial = deconvolution_size(params, (height, width))
    else:
        spatial = tuple(
            windows.slide_same(size, stride)
            if params.which("ConvolutionPaddingType") == "same"
            else windows.slide(size, span, stride, edges)
            for size, span, stride, edges in zip(
                (height, width), spans_of(params), params.stride, borders(params.valid), strict=True
            )
        )
    return [(*outer, params.outputChannels, *spatial)]


def kernel_shape(params: Params) -> tuple[int, ...]:
    """[outC, kernC, kH, kW]; of a deconvolution [inC, outC / groups, kH, kW]."""
    first, second = params.outputChannels, params.kernelChannels
    if params.isDeconvolution:
        first, second = params.kernelChannels, params.outputChannels // params.nGroups
    return (first, second, *params.kernelSize)


def spans_of(params: Params) -> list[int]:
    """How far a dilated kernel reaches, along height and width."""
    return windows.spans_of(params.kernelSize, params.dilationFactor)


def full_size(params: Params, sizes: Shape) -> Shape:
    """Height and width of a transposed convolution before anything is cut off."""
    axes = zip(sizes, spans_of(params), params.stride, strict=True)
    return tuple(windows.spread(size, span, stride, (0, 0)) for size, span, stride in axes)


def deconvolution_size(params: Params, sizes: tuple[Extent, Extent]) -> tuple[Extent, ...]:
    """Output height and width: `outputShape` if set, else what the padding leaves."""
    if params.outputShape:
        return tuple(params.outputShape)
    if params.which("ConvolutionPaddingType") == "same":
        return tuple(
            None if size is None else size * stride
            for size, stride in zip(sizes, params.stride, strict=True)
        )
    axes = zip(sizes, spans_of(params), params.stride, borders(params.valid), strict=True)
    return tuple(windows.spread(*axis) for axis in axes)


def edges_of(params: Params, shape: tuple[int, ...]) -> tuple[windows.Edges, ...]:
    """The padding of height and width of an input of a shape."""
    if params.which("ConvolutionPaddingType") != "same":
        return borders(params.valid)
    axes = zip(shape[-2:], spans_of(params), params.stride, strict=True)
    return tuple(windows.same_edges(*axis, params.same.asymmetryMode) for axis in axes)


def deconvolution_edges(
    params: Params, full: tuple[int, int], target: tuple[int, int]
) -> tuple[windows.Edges, ...]:
    """How much to cut off the full result of a transposed convolution."""
    mode = params.which("ConvolutionPaddingType")
    if mode == "valid" and not params.outputShape:
        return borders(params.valid)
    if mode == "valid" and any(map(any, borders(params.valid))):
        return borders(params.valid)
    heavy_start = mode == "same" and params.same.asymmetryMode == "TOP_LEFT_HEAVY"
    edges = []
    for size, out in zip(full, target, strict=True):
        excess = max(0, size - out)
        small, large = excess // 2, excess - excess // 2
        edges.append((large, small) if heavy_start else (small, large))
    return tuple(edges)


def transposed_sizes(
    params: Params, size: Shape
) -> tuple[Shape, Shape, tuple[windows.Edges, ...] | None]:
    """The size of a transposed convolution before and after the cut, and how much is cut off.

    With SAME padding the difference is the same for every input: if the size is not known, one
    pixel stands for all. The last is None if it depends on a size that is not known.
    """
    if params.which("ConvolutionPaddingType") == "same" and not params.outputShape and None in size:
        size = (1, 1)
    full, target = full_size(params, size), deconvolution_size(params, (size[0], size[1]))
    if None not in (*full, *target):
        (a, b), (c, d) = (tuple(n or 0 for n in each) for each in (full, target))
        return full, target, deconvolution_edges(params, (a, b), (c, d))
    return full, target, None if params.outputShape else borders(params.valid)


@layer_kind("pooling", inputs=1, defaults={"kernelSize": (3, 3), "stride": (1, 1)}, gradient=True)
def pooling(params: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 4)
    *outer, height, width = shape
    if params.globalPooling:
        return [(*outer, 1, 1)]
    mode = params.which("PoolingPaddingType")
    spatial: list[Extent] = []
    for axis, size in enumerate((height, width)):
        span, stride = params.kernelSize[axis], params.stride[axis]
        if mode == "same":
            spatial.append(windows.slide_same(size, stride))
        elif mode == "includeLastPixel":
            pads = params.includeLastPixel.paddingAmounts or (0, 0)
            spatial.append(windows.slide_complete(size, span, stride, (pads[axis],) * 2))
        else:
            edges = borders(params.valid)[axis]
            spatial.append(windows.slide(size, span, stride, edges))
    return [(*outer, *spatial)]


def pooling_size(
    params: Params, size: tuple[int, ...]
) -> tuple[tuple[int, int], tuple[windows.Edges, ...]]:
    """Output height and width, and the padding that makes the windows fit exactly."""
    mode = params.which("PoolingPaddingType")
    out, edges = [], []
    for axis, extent in enumerate(size):
        span, stride = params.kernelSize[axis], params.stride[axis]
        if mode == "same":
            edge = windows.same_edges(extent, span, stride, params.same.asymmetryMode)
            count = windows.slide_same(extent, stride)
        elif mode == "includeLastPixel":
            pad = (params.includeLastPixel.paddingAmounts or (0, 0))[axis]
            count = windows.slide_complete(extent, span, stride, (pad, pad))
            edge = (pad, max(pad, ((count or 1) - 1) * stride + span - extent - pad))
        else:
            edge = borders(params.valid)[axis]
            count = windows.slide(extent, span, stride, edge)
        out.append(count or 0)
        edges.append(edge)
    return (out[0], out[1]), tuple(edges)


def pooling_divisor(
    params: Params, size: tuple[int, ...], out: tuple[int, int], edges: tuple[windows.Edges, ...]
) -> NDArray[np.float32]:
    """How many entries each window of an average counts."""
    counts = []
    for axis, extent in enumerate(size):
        starts = np.arange(out[axis]) * params.stride[axis] - edges[axis][0]
        ends = starts + params.kernelSize[axis]
        if params.avgPoolExcludePadding:
            low, high = 0, extent
        elif params.which("PoolingPaddingType") == "includeLastPixel":
            pad = (params.includeLastPixel.paddingAmounts or (0, 0))[axis]
            low, high = -pad, extent + pad
        else:
            low, high = -edges[axis][0], extent + edges[axis][1]
        counts.append(np.minimum(ends, high) - np.maximum(starts, low))
    return np.multiply.outer(counts[0], counts[1]).astype(np.float32)


@size_check("convolution")
def bound_convolution(params: Params, change: Change) -> str:
    """Only a transposed convolution has an output size of its own."""
    bound = (
        params.isDeconvolution and params.outputShape and (change.varies(-1) or change.varies(-2))
    )
    return f"its output has the fixed size {show(params.outputShape)}" if bound else ""


# ---- rules and stored weights ------------------------------------------------------------------


@layer_rule("convolution")
def check_convolution_groups(
    layer: nn.NeuralNetworkLayer, params: nn.ConvolutionLayerParams
) -> Problems:
    """Groups divide the channels."""
    groups = params.nGroups or 1
    fields = ["outputChannels"]
    if params.isDeconvolution and len(layer.input) < 2:
        fields.append("kernelChannels")
    yield from groups_divide(params, groups, fields)


def groups_divide(
    params: nn.Convolution3DLayerParams | nn.ConvolutionLayerParams, groups: int, fields: list[str]
) -> Problems:
    """Groups divide these numbers of channels."""
    for field in fields:
        if groups < 1 or getattr(params, field) % groups:
            yield error(f"nGroups {groups} does not divide {field} {getattr(params, field)}")


@layer_rule("convolution")
def check_convolution_padding(
    layer: nn.NeuralNetworkLayer, params: nn.ConvolutionLayerParams
) -> Problems:
    """The padding is set."""
    yield from padding_is_set(params, "ConvolutionPaddingType", ("valid", "same"))
    yield from borders_are_two(params.valid.paddingAmounts, "valid.paddingAmounts")


@layer_rule("convolution")
def check_convolution_weights_as_input(
    layer: nn.NeuralNetworkLayer, params: nn.ConvolutionLayerParams
) -> Problems:
    """Restrictions on a convolution whose weights are an input."""
    if len(layer.input) < 2:
        return
    if params.isDeconvolution:
        yield error("isDeconvolution is set, but its weights come as an input")
    if any(factor > 1 for factor in params.dilationFactor):
        yield warning(
            f"dilationFactor is {listed(params.dilationFactor)}, but its weights come as an input"
        )
    if params.hasBias:
        yield warning("hasBias is set, but its weights come as an input: it has no stored bias")


@layer_rule("convolution", "convolution3d")
def check_output_shape_of_deconvolution(
    layer: nn.NeuralNetworkLayer, params: nn.Convolution3DLayerParams | nn.ConvolutionLayerParams
) -> Problems:
    """`outputShape` is for deconvolutions."""
    if params.outputShape and not params.isDeconvolution:
        yield note("outputShape is ignored: isDeconvolution is not set")


@stored_weights("convolution")
def weights_of_convolution(
    layer: nn.NeuralNetworkLayer, params: nn.ConvolutionLayerParams
) -> StoredWeights:
    has_stored_weights = len(layer.input) < 2
    kernel = tuple(params.kernelSize) or (3, 3)
    out, groups = params.outputChannels, params.nGroups or 1
    shape = (
        (params.kernelChannels, out // groups)
        if params.isDeconvolution
        else (out, params.kernelChannels)
    )
    axis = 1 if params.isDeconvolution else 0
    full = (*shape, *kernel) if len(kernel) == 2 else None
    yield StoredWeight(
        "weights",
        params.weights,
        full,
        SECOND_INPUT,
        has_stored_weights,
        scales=out,
        channel_axis=axis,
    )
    yield stored_bias(params, out, stored=has_stored_weights)
