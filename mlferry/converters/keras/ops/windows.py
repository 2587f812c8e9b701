"""`keras.ops` of windows and statistics, converted as the layers that compute the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.graph import Attributes, Node
from mlferry.converters.keras.ops.functions import function
from mlferry.converters.keras.ops.registry import OPS, spatial
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import extent
from mlferry.converters.values import SOURCE, UNFLATTENED, Argument, Blob, Results
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array, Axes, Sizes


@dataclass(frozen=True)
class WindowOptions:
    """The windows of a function, in the terms of the layer that computes the same.

    Attributes:
        strides: one number, or one for each axis; None if each window begins where the last one
            ends.
        padding: "valid" or "same".
        data_format: "channels_last", "channels_first", or None for Keras's default.
        dilations: one number, or one for each axis; None if the layer has none.
    """

    strides: Sizes | None
    padding: str
    data_format: str | None
    dilations: Sizes | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options of the layer."""
        return {
            "strides": _listed(self.strides),
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": _listed(self.dilations),
        }


def _by_layer(
    context: Lowering,
    node: Node,
    name: str,
    x: Blob,
    options: Mapping[str, Any],
    weights: Mapping[str, Array] | None = None,
) -> Results:
    """The result of a layer with these options."""
    entry = OPS.find(name, context.graph.version)
    if entry is None:
        raise ConversionError(f"a function over {x.rank - 2} axes: one to three can be converted")
    bindings = {key: value for key, value in options.items() if value is not None}
    inner = Node(
        name, node.name, node.inputs[:1], node.outputs, Attributes(bindings), weights or {}
    )
    return entry.value(context, inner, x)


def _array(value: Argument, option: str) -> NDArray[np.float32]:
    """A kernel or table of numbers."""
    if isinstance(value, Blob):
        raise ConversionError(f"{option} that the model computes: a constant can be converted")
    return np.asarray(value, np.float32)


def _listed(value: Axes) -> Axes:
    return list(value) if isinstance(value, Sequence) else value


def _convolved(
    context: Lowering,
    node: Node,
    layer: str,
    x: Blob,
    window: WindowOptions,
    kernels: Mapping[str, NDArray[np.float32]],
    **options: Sizes | None,
) -> Results:
    """A convolution without a bias; `layer` has {} for the number of axes."""
    first = next(iter(kernels.values()))
    dimensions = first.ndim - 2
    size = list(first.shape[:dimensions])
    every = {**options, "kernel_size": size, **window.options, "use_bias": False}
    return _by_layer(context, node, layer.format(dimensions), x, every, kernels)


@function("Conv", layouts=spatial)
def conv(
    context: Lowering,
    node: Node,
    inputs: Blob,
    kernel: Argument,
    strides: Sizes = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Sizes = 1,
) -> Results:
    array = _array(kernel, "a kernel")
    channels = inputs.known[1]
    if channels is None:
        raise ConversionError(
            "the channels of the input are unknown, and so are the groups of the kernel: give the "
            "input of the model a fixed number of channels"
        )
    window = WindowOptions(strides, padding, data_format, dilation_rate)
    filters, groups = array.shape[-1], channels // array.shape[-2]
    kernels = {"kernel": array}
    return _convolved(
        context, node, "Conv{}D", inputs, window, kernels, filters=filters, groups=groups
    )


@function("DepthwiseConv", layouts=spatial)
def depthwise_conv(
    context: Lowering,
    node: Node,
    inputs: Blob,
    kernel: Argument,
    strides: Sizes = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Sizes = 1,
) -> Results:
    array = _array(kernel, "a kernel")
    window = WindowOptions(strides, padding, data_format, dilation_rate)
    multiplier = array.shape[-1]
    kernels = {"kernel": array}
    return _convolved(
        context, node, "DepthwiseConv{}D", inputs, window, kernels, depth_multiplier=multiplier
    )


@function("SeparableConv", layouts=spatial)
def separable_conv(
    context: Lowering,
    node: Node,
    inputs: Blob,
    depthwise_kernel: Argument,
    pointwise_kernel: Argument,
    strides: Sizes = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Sizes = 1,
) -> Results:
    depthwise = _array(depthwise_kernel, "a kernel")
    pointwise = _array(pointwise_kernel, "a kernel")
    return _convolved(
        context,
        node,
        "SeparableConv{}D",
        inputs,
        WindowOptions(strides, padding, data_format, dilation_rate),
        {"depthwise_kernel": depthwise, "pointwise_kernel": pointwise},
        filters=pointwise.shape[-1],
        depth_multiplier=depthwise.shape[-1],
    )


@function("ConvTranspose", layouts=spatial)
def conv_transpose(
    context: Lowering,
    node: Node,
    inputs: Blob,
    kernel: Argument,
    strides: Sizes = 1,
    padding: str = "valid",
    output_padding: Sizes | None = None,
    data_format: str | None = None,
    dilation_rate: Sizes = 1,
) -> Results:
    array = _array(kernel, "a kernel")
    return _convolved(
        context,
        node,
        "Conv{}DTranspose",
        inputs,
        WindowOptions(strides, padding, data_format, dilation_rate),
        {"kernel": array},
        filters=array.shape[-2],
        output_padding=output_padding,
    )


def _pooling(kind: str) -> None:
    @function(f"{kind}Pool", layouts=spatial)
    def pool(
        context: Lowering,
        node: Node,
        inputs: Blob,
        pool_size: Sizes,
        strides: Sizes | None = None,
        padding: str = "valid",
        data_format: str | None = None,
    ) -> Results:
        options = {
            "pool_size": _listed(pool_size),
            **WindowOptions(strides, padding, data_format).options,
        }
        return _by_layer(context, node, f"{kind}Pooling{inputs.rank - 2}D", inputs, options)


for _kind in ("Max", "Average"):
    _pooling(_kind)


# ---- statistics ------------------------------------------------------------------------


@function("Moments", layouts=UNFLATTENED)
def moments(
    context: Lowering,
    node: Node,
    x: Blob,
    axes: int,
    keepdims: bool = False,
    synchronized: bool = False,
) -> tuple[Blob, Blob]:
    """Mean and variance; the variance is taken around the mean, not from the mean of squares."""
    places = tuple(x.axis(a) for a in (axes if isinstance(axes, Sequence) else (axes,)))
    mean = context.emit("reduceMean", x, axes=places, keepDims=True)
    apart = context.subtract(x, mean)
    square = context.multiply(apart, apart)
    variance = context.emit("reduceMean", square, axes=places, keepDims=True)
    if keepdims:
        return mean, variance
    return _dropped(context, mean, places), _dropped(context, variance, places)


def _dropped(context: Lowering, x: Blob, places: Sequence[int]) -> Blob:
    ordered = context.source_order(x)
    axes = [axis for axis in range(x.rank) if x.axis(axis) in places]
    if len(axes) == ordered.rank:
        return context.layer("reshapeStatic", ordered, layout=SOURCE, targetShape=(1,))
    return context.layer("squeeze", ordered, layout=SOURCE, axes=tuple(axes))


@function("BatchNorm", layouts=UNFLATTENED)
def batch_norm(
    context: Lowering,
    node: Node,
    x: Blob,
    mean: Argument,
    variance: Argument,
    offset: Argument | None = None,
    scale: Argument | None = None,
    axis: int = -1,
    epsilon: float = 1e-3,
) -> Results:
    bindings = {"gamma": scale, "beta": offset, "moving_mean": mean, "moving_variance": variance}
    return _by_layer(
        context,
        node,
        "BatchNormalization",
        x,
        {
            "axis": axis,
            "epsilon": epsilon,
            "scale": scale is not None,
            "center": offset is not None,
        },
        {name: _array(value, name) for name, value in bindings.items() if value is not None},
    )


@function("LayerNorm", layouts=UNFLATTENED)
def layer_norm(
    context: Lowering,
    node: Node,
    x: Blob,
    gamma: Argument | None = None,
    beta: Argument | None = None,
    axis: Sizes = -1,
    epsilon: float | None = None,
    rms_scaling: bool = False,
) -> Results:
    if rms_scaling and gamma is None:  # the layer then always has a scale
        axes = axis if isinstance(axis, Sequence) else (axis,)
        order = sorted(place % x.rank for place in axes)
        gamma = np.ones([extent(x, x.axis(place)) for place in order], np.float32)
    bindings = {"gamma": gamma, "beta": beta}
    return _by_layer(
        context,
        node,
        "LayerNormalization",
        x,
        {
            "axis": _listed(axis),
            "epsilon": _EPSILON if epsilon is None else epsilon,
            "scale": gamma is not None,
            "center": beta is not None,
            "rms_scaling": rms_scaling,
        },
        {name: _array(value, name) for name, value in bindings.items() if value is not None},
    )


_EPSILON = 1e-7  # keras.config.epsilon()
