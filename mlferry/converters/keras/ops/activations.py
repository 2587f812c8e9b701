"""Activations: functions (lower case) and layers (upper case)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.keras import masks
from mlferry.converters.keras.ops.registry import op, weight
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import affine
from mlferry.converters.values import ANY, UNFLATTENED, Blob
from mlferry.errors import ConversionError

# The kind of the layer that an activation is, and its parameters.
_PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: ("activation", {name: {}}) for name in ("sigmoid", "tanh", "softplus", "softsign")},
    "sparse_sigmoid": ("activation", {"sigmoidHard": {"alpha": 0.5, "beta": 0.5}}),
    "exponential": ("unary", {"type": "EXP"}),
    "relu6": ("clip", {"minVal": 0.0, "maxVal": 6.0}),
    "hard_tanh": ("clip", {"minVal": -1.0, "maxVal": 1.0}),
}


def activation(context: Lowering, x: Blob, **kind: Mapping[str, Any]) -> Blob:
    """An `activation` layer in the layout of its input."""
    return context.emit("activation", x, **kind)


def multiply(context: Lowering, x: Blob, y: Blob) -> Blob:
    """Elementwise product of equal shapes."""
    return context.emit("multiply", x, y)


@op(*_PLAIN, layouts=ANY)
def plain(context: Lowering, node: Node, x: Blob) -> Blob:
    kind, params = _PLAIN[node.op]
    return context.emit(kind, x, **params)


@op("linear", layouts=ANY)
def linear(context: Lowering, node: Node, x: Blob) -> Blob:
    return x


@op("relu", "ReLU", layouts=ANY)
def relu(context: Lowering, node: Node, x: Blob) -> Blob:
    """x above `threshold`, up to `max_value`; negative_slope * (x - threshold) below."""
    ceiling = node.attrs.get("max_value")
    slope = node.attrs.get("negative_slope", 0.0) or 0.0
    threshold = node.attrs.get("threshold", 0.0) or 0.0
    if threshold == 0:
        kind: dict[str, Any] = {"leakyReLU": {"alpha": slope}} if slope else {"ReLU": {}}
        y = activation(context, x, **kind)
    elif slope == 0:
        y = activation(context, x, thresholdedReLU={"alpha": threshold})
    else:
        least = context.emit("clip", x, minVal=-3.4e38, maxVal=threshold)
        below = affine(context, least, slope, -slope * threshold)
        above = activation(context, x, thresholdedReLU={"alpha": threshold})
        y = context.emit("add", above, below)
    if ceiling is None:
        return y
    return context.emit("clip", y, minVal=-3.4e38, maxVal=ceiling)


@op("leaky_relu", layouts=ANY)
def leaky_relu(context: Lowering, node: Node, x: Blob) -> Blob:
    slope = node.attrs.get("negative_slope", node.attrs.get("alpha", 0.2))
    return activation(context, x, leakyReLU={"alpha": slope})


@op("LeakyReLU", layouts=ANY)
def leaky_relu_layer(context: Lowering, node: Node, x: Blob) -> Blob:
    return activation(context, x, leakyReLU={"alpha": node.attrs.get("negative_slope", 0.3)})


@op("elu", "ELU", layouts=ANY)
def elu(context: Lowering, node: Node, x: Blob) -> Blob:
    return activation(context, x, ELU={"alpha": node.attrs.get("alpha", 1.0)})


@op("selu", layouts=ANY)
def selu(context: Lowering, node: Node, x: Blob) -> Blob:
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    return affine(context, activation(context, x, ELU={"alpha": alpha}), scale)


@op("celu", layouts=ANY)
def celu(context: Lowering, node: Node, x: Blob) -> Blob:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1))"""
    alpha = node.attrs.get("alpha", 1.0)
    raised = activation(context, affine(context, x, 1 / alpha), ELU={"alpha": 1.0})
    return affine(context, raised, alpha)


@op("ThresholdedReLU", layouts=ANY)
def thresholded_relu(context: Lowering, node: Node, x: Blob) -> Blob:
    """x if it is above `theta`, else 0."""
    above = context.emit("greaterThan", x, alpha=node.attrs.get("theta", 1.0))
    return multiply(context, x, above)


@op("threshold", layouts=ANY)
def threshold(context: Lowering, node: Node, x: Blob) -> Blob:
    """x above `threshold`, else `default_value`."""
    limit, default = _needed(node, "threshold"), _needed(node, "default_value")
    passes = context.emit("greaterThan", x, alpha=limit)
    fails = affine(context, passes, -default, default)
    return context.emit("add", multiply(context, x, passes), fails)


def _needed(node: Node, name: str) -> float:
    if name not in node.attrs:
        raise ConversionError(f"the activation {node.op} needs {name}, which the config lacks")
    return float(node.attrs[name])


@op("PReLU", layouts=UNFLATTENED)
def prelu(context: Lowering, node: Node, x: Blob) -> Blob:
    """Core ML has one slope for each channel; other shapes are computed from two halves."""
    shared = list(node.attrs.get("shared_axes") or ())
    shape = x.source_shape or ()
    alpha = weight(node, "alpha", *(None,) * (len(shape) - 1))
    for axis, extent in enumerate(alpha.shape, start=1):
        if extent not in (1, shape[axis]) or (axis in shared and extent != 1):
            raise ConversionError(f"alpha of shape {alpha.shape} does not fit {shape}")
    slopes = alpha[None]
    if x.layout.kind == "channels first" and slopes.ndim >= 3:
        slopes = np.moveaxis(slopes, -1, 1)
    if slopes.ndim == 4 and slopes.shape[2:] == (1, 1):
        return activation(context, x, PReLU={"alpha": slopes.ravel()})
    positive = activation(context, x, ReLU={})
    negative = context.emit("clip", x, minVal=-3.4e38, maxVal=0.0)
    factor = context.constant(slopes, layout=x.layout)
    return context.add(positive, context.multiply(negative, factor))


@op("hard_sigmoid", layouts=ANY)
def hard_sigmoid_2(context: Lowering, node: Node, x: Blob) -> Blob:
    """Keras 1 and 2: 0.2 * x + 0.5, from 0 to 1."""
    return activation(context, x, sigmoidHard={"alpha": 0.2, "beta": 0.5})


@op("hard_sigmoid", since=3, layouts=ANY)
def hard_sigmoid_3(context: Lowering, node: Node, x: Blob) -> Blob:
    """Keras 3: x / 6 + 0.5, from 0 to 1."""
    return activation(context, x, sigmoidHard={"alpha": 1 / 6, "beta": 0.5})


@op("silu", "swish", layouts=ANY)
def silu(context: Lowering, node: Node, x: Blob) -> Blob:
    return multiply(context, x, activation(context, x, sigmoid={}))


@op("hard_silu", "hard_swish", layouts=ANY)
def hard_silu(context: Lowering, node: Node, x: Blob) -> Blob:
    return multiply(context, x, activation(context, x, sigmoidHard={"alpha": 1 / 6, "beta": 0.5}))


@op("tanh_shrink", layouts=ANY)
def tanh_shrink(context: Lowering, node: Node, x: Blob) -> Blob:
    return context.subtract(x, activation(context, x, tanh={}))


@op("hard_shrink", layouts=ANY)
def hard_shrink(context: Lowering, node: Node, x: Blob) -> Blob:
    """x if its magnitude is above `threshold`, else 0."""
    magnitude = context.emit("unary", x, type="ABS")
    limit = node.attrs.get("threshold", 0.5)
    return multiply(context, x, context.emit("greaterThan", magnitude, alpha=limit))


@op("soft_shrink", layouts=ANY)
def soft_shrink(context: Lowering, node: Node, x: Blob) -> Blob:
    """x moved towards 0 by `threshold`: x minus its part within the threshold."""
    limit = node.attrs.get("threshold", 0.5)
    inside = context.emit("clip", x, minVal=-limit, maxVal=limit)
    return context.subtract(x, inside)


@op("gelu", layouts=ANY)
def gelu(context: Lowering, node: Node, x: Blob) -> Blob:
    mode = "TANH_APPROXIMATION" if node.attrs.get("approximate", False) else "EXACT"
    return context.emit("gelu", x, mode=mode)


@op("mish", layouts=ANY)
def mish(context: Lowering, node: Node, x: Blob) -> Blob:
    return multiply(context, x, activation(context, activation(context, x, softplus={}), tanh={}))


@op("log_sigmoid", layouts=ANY)
def log_sigmoid(context: Lowering, node: Node, x: Blob) -> Blob:
    """-softplus(-x)"""
    return affine(context, activation(context, affine(context, x, -1.0), softplus={}), -1.0)


@op("squareplus", layouts=ANY)
def squareplus(context: Lowering, node: Node, x: Blob) -> Blob:
    """(x + sqrt(x * x + b)) / 2"""
    b = node.attrs.get("b", 4)
    root = context.emit("unary", affine(context, multiply(context, x, x), 1.0, b), type="SQRT")
    return affine(context, context.emit("add", x, root), 0.5)


@op("sparse_plus", layouts=ANY)
def sparse_plus(context: Lowering, node: Node, x: Blob) -> Blob:
    """0 up to -1, x from 1 on, (x + 1) ** 2 / 4 between."""
    inside = affine(context, context.emit("clip", x, minVal=-1.0, maxVal=1.0), 0.5, 0.5)
    beyond = activation(context, affine(context, x, 1.0, -1.0), ReLU={})
    return context.emit("add", multiply(context, inside, inside), beyond)


# ---- across values ---------------------------------------------------------------------


@op("Softmax", layouts=UNFLATTENED)
def softmax_layer(context: Lowering, node: Node, x: Blob) -> Blob:
    """Masked values count as -1e9; Keras 3 makes them 0 afterwards."""
    (result, *_) = masks.of(context, node)
    if result is None:
        return softmax(context, node, x)
    x = context.source_order(x)
    if result.rank > x.rank:
        raise ConversionError(f"a mask of rank {result.rank} for an input of rank {x.rank}")
    low_value = context.constant([-1e9])
    y = softmax(context, node, context.where(result, x, low_value))
    return context.multiply(y, result) if context.graph.version >= 3 else y


@op("softmax", layouts=UNFLATTENED)
def softmax(context: Lowering, node: Node, x: Blob) -> Blob:
    """Along one axis, or along several at once, by exponentials."""
    axis = node.attrs.get("axis", -1)
    if not isinstance(axis, list | tuple):
        return context.emit("softmaxND", x, axis=x.axis(axis))
    axes = tuple(x.axis(a) for a in axis)
    top = context.emit("reduceMax", x, axes=axes, keepDims=True)
    shifted = context.subtract(x, top)
    raised = context.emit("unary", shifted, type="EXP")
    total = context.emit("reduceSum", raised, axes=axes, keepDims=True)
    return context.divide(raised, total)


@op("log_softmax", layouts=UNFLATTENED)
def log_softmax(context: Lowering, node: Node, x: Blob) -> Blob:
    """x - logsumexp(x), which does not underflow like the logarithm of a softmax."""
    axis = x.axis(node.attrs.get("axis", -1))
    total = context.emit("reduceLogSumExp", x, axes=(axis,), keepDims=True)
    return context.subtract(x, total)


@op("glu", layouts=UNFLATTENED)
def glu(context: Lowering, node: Node, x: Blob) -> Blob:
    """The first half times the sigmoid of the second."""
    axis = x.axis(node.attrs.get("axis", -1))
    first, second = context.split(x, 2, axis)
    return multiply(context, first, activation(context, second, sigmoid={}))


@op("sparsemax", layouts=UNFLATTENED)
def sparsemax(context: Lowering, node: Node, x: Blob) -> Blob:
    """The largest values minus a threshold, by sorting, as in Keras.

    With z sorted downwards and s_k the sum of its first k values, the support has the k with
    1 + k * z_k > s_k. Martins and Astudillo (2016) take the last s_k of the support; Keras sums
    all of them, and so does this.
    """
    axis = x.axis(node.attrs.get("axis", -1))
    extent = x.known[axis]
    if extent is None:
        raise ConversionError("sparsemax along a flexible axis")
    shape = [1] * x.rank
    shape[axis] = extent
    ranks = context.constant(np.arange(1, extent + 1).reshape(shape), layout=x.layout)
    top, _ = context.outputs(2, "topK", x, layout=x.layout, axis=axis, K=extent)
    sums = context.emit("cumSum", top, axis=axis)
    bound = affine(context, context.multiply(top, ranks), 1.0, 1.0)
    inside = context.emit("greaterThan", bound, sums)
    size = context.emit("reduceSum", inside, axes=(axis,), keepDims=True)
    total = context.emit("reduceSum", multiply(context, sums, inside), axes=(axis,), keepDims=True)
    tau = context.divide(affine(context, total, 1.0, -1.0), size)
    return activation(context, context.subtract(x, tau), ReLU={})
