"""`keras.ops` of windows and of statistics, by the layers that compute the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.graph import Attributes, Node
from mlferry.converters.keras.ops.functions import function, layer
from mlferry.converters.keras.ops.registry import OPS, spatial
from mlferry.converters.lowering import Lowering
from mlferry.converters.values import SOURCE, UNFLATTENED, Blob
from mlferry.errors import ConversionError


def _by_layer(
    context: Lowering,
    node: Node,
    name: str,
    x: Blob,
    options: Mapping[str, Any],
    weights: Mapping[str, NDArray[Any]] | None = None,
) -> Any:
    """What a layer with these options makes of a blob."""
    entry = OPS.find(name, context.graph.version)
    if entry is None:
        raise ConversionError(f"a function over {x.rank - 2} axes: one to three can be converted")
    given = {key: value for key, value in options.items() if value is not None}
    inner = Node(name, node.name, node.inputs[:1], node.outputs, Attributes(given), weights or {})
    return entry.value(context, inner, x)


def _array(value: Any, what: str) -> NDArray[np.float32]:
    """A kernel or table of numbers.

    Raises:
        ConversionError: the model computes it.
    """
    if isinstance(value, Blob):
        raise ConversionError(f"{what} that the model computes: a constant can be converted")
    return np.asarray(value, np.float32)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) else value


@function("Conv", layouts=spatial)
def conv(
    context: Lowering,
    node: Node,
    inputs: Blob,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: Any = None,
    dilation_rate: Any = 1,
) -> Any:
    array = _array(kernel, "a kernel")
    dimensions = array.ndim - 2
    channels = inputs.known[1]
    if channels is None:
        raise ConversionError(
            "the channels of the input are unknown, so that the groups of the kernel are: give the "
            "input of the model a fixed number of channels"
        )
    return _by_layer(
        context,
        node,
        f"Conv{dimensions}D",
        inputs,
        {
            "filters": array.shape[-1],
            "kernel_size": list(array.shape[:dimensions]),
            "strides": _listed(strides),
            "padding": padding,
            "data_format": data_format,
            "dilation_rate": _listed(dilation_rate),
            "groups": channels // array.shape[-2],
            "use_bias": False,
        },
        {"kernel": array},
    )


@function("DepthwiseConv", layouts=spatial)
def depthwise_conv(
    context: Lowering,
    node: Node,
    inputs: Blob,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: Any = None,
    dilation_rate: Any = 1,
) -> Any:
    array = _array(kernel, "a kernel")
    dimensions = array.ndim - 2
    return _by_layer(
        context,
        node,
        f"DepthwiseConv{dimensions}D",
        inputs,
        {
            "kernel_size": list(array.shape[:dimensions]),
            "strides": _listed(strides),
            "padding": padding,
            "data_format": data_format,
            "dilation_rate": _listed(dilation_rate),
            "depth_multiplier": array.shape[-1],
            "use_bias": False,
        },
        {"kernel": array},
    )


@function("SeparableConv", layouts=spatial)
def separable_conv(
    context: Lowering,
    node: Node,
    inputs: Blob,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: Any = None,
    dilation_rate: Any = 1,
) -> Any:
    depthwise = _array(depthwise_kernel, "a kernel")
    pointwise = _array(pointwise_kernel, "a kernel")
    dimensions = depthwise.ndim - 2
    return _by_layer(
        context,
        node,
        f"SeparableConv{dimensions}D",
        inputs,
        {
            "filters": pointwise.shape[-1],
            "kernel_size": list(depthwise.shape[:dimensions]),
            "strides": _listed(strides),
            "padding": padding,
            "data_format": data_format,
            "dilation_rate": _listed(dilation_rate),
            "depth_multiplier": depthwise.shape[-1],
            "use_bias": False,
        },
        {"depthwise_kernel": depthwise, "pointwise_kernel": pointwise},
    )


@function("ConvTranspose", layouts=spatial)
def conv_transpose(
    context: Lowering,
    node: Node,
    inputs: Blob,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    output_padding: Any = None,
    data_format: Any = None,
    dilation_rate: Any = 1,
) -> Any:
    array = _array(kernel, "a kernel")
    dimensions = array.ndim - 2
    return _by_layer(
        context,
        node,
        f"Conv{dimensions}DTranspose",
        inputs,
        {
            "filters": array.shape[-2],
            "kernel_size": list(array.shape[:dimensions]),
            "strides": _listed(strides),
            "padding": padding,
            "output_padding": output_padding,
            "data_format": data_format,
            "dilation_rate": _listed(dilation_rate),
            "use_bias": False,
        },
        {"kernel": array},
    )


@function("MaxPool", layouts=spatial)
def max_pool(
    context: Lowering,
    node: Node,
    inputs: Blob,
    pool_size: Any,
    strides: Any = None,
    padding: str = "valid",
    data_format: Any = None,
) -> Any:
    return _pooled(context, node, "Max", inputs, pool_size, strides, padding, data_format)


@function("AveragePool", layouts=spatial)
def average_pool(
    context: Lowering,
    node: Node,
    inputs: Blob,
    pool_size: Any,
    strides: Any = None,
    padding: str = "valid",
    data_format: Any = None,
) -> Any:
    return _pooled(context, node, "Average", inputs, pool_size, strides, padding, data_format)


def _pooled(
    context: Lowering,
    node: Node,
    kind: str,
    x: Blob,
    pool_size: Any,
    strides: Any,
    padding: str,
    data_format: Any,
) -> Any:
    return _by_layer(
        context,
        node,
        f"{kind}Pooling{x.rank - 2}D",
        x,
        {
            "pool_size": _listed(pool_size),
            "strides": _listed(strides),
            "padding": padding,
            "data_format": data_format,
        },
    )


# ---- statistics ------------------------------------------------------------------------


@function("Moments", layouts=UNFLATTENED)
def moments(
    context: Lowering,
    node: Node,
    x: Blob,
    axes: Any,
    keepdims: bool = False,
    synchronized: bool = False,
) -> tuple[Blob, Blob]:
    """Mean and variance; the variance around the mean, not by the mean of squares."""
    places = tuple(x.axis(a) for a in (axes if isinstance(axes, Sequence) else (axes,)))
    mean = layer(context, "reduceMean", x, axes=places, keepDims=True)
    apart = layer(context, "subtractBroadcastable", x, mean)
    square = layer(context, "multiplyBroadcastable", apart, apart)
    variance = layer(context, "reduceMean", square, axes=places, keepDims=True)
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
    mean: Any,
    variance: Any,
    offset: Any = None,
    scale: Any = None,
    axis: int = -1,
    epsilon: float = 1e-3,
) -> Any:
    given = {"gamma": scale, "beta": offset, "moving_mean": mean, "moving_variance": variance}
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
        {name: _array(value, name) for name, value in given.items() if value is not None},
    )


@function("LayerNorm", layouts=UNFLATTENED)
def layer_norm(
    context: Lowering,
    node: Node,
    x: Blob,
    gamma: Any = None,
    beta: Any = None,
    axis: Any = -1,
    epsilon: float | None = None,
    rms_scaling: bool = False,
) -> Any:
    if rms_scaling:
        raise ConversionError("layer_normalization(rms_scaling=True)")
    given = {"gamma": gamma, "beta": beta}
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
        },
        {name: _array(value, name) for name, value in given.items() if value is not None},
    )


_EPSILON = 1e-7  # keras.config.epsilon()
