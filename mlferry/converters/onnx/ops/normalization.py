"""Normalization and softmax."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import affine, as_blob, extent, known, positive, shaped
from mlferry.converters.reshapes import of_same_rank
from mlferry.converters.values import Blob, Constant, Operand, Results
from mlferry.errors import ConversionError


@op("BatchNormalization", raw=True)
def batch_normalization(context: Lowering, node: Node, x: Operand, *rest: Operand) -> Blob:
    """Uses stored statistics along axis 1; training mode is refused."""
    node.attrs.get("momentum")
    node.attrs.get("consumed_inputs")
    test = node.attrs.get("is_test", 0)
    if node.attrs.get("training_mode", 0) or (
        context.graph.version < 7 and not test and any(v.name for v in node.outputs[1:])
    ):
        raise ConversionError("batch normalization in training mode")
    if node.attrs.get("spatial", 1) != 1:
        raise ConversionError("spatial=0")
    if any(v.name for v in node.outputs[1:]):
        raise ConversionError("outputs of training")
    x = as_blob(context, x)
    epsilon = node.attrs.get("epsilon", 1e-5)
    channels = extent(x, 1)
    fixed = [v.floats.ravel() for v in rest if isinstance(v, Constant)]
    if len(fixed) == len(rest) and x.rank in (3, 4):
        statistics: dict[str, Any] = dict(
            zip(("gamma", "beta", "mean", "variance"), fixed, strict=True)
        )
        blob = context.expand(x, -1) if x.rank == 3 else x
        output = context.layer("batchnorm", blob, channels=channels, epsilon=epsilon, **statistics)
        return context.squeeze(output, -1) if x.rank == 3 else output
    shape = (1, channels, *(1,) * (x.rank - 2))
    if len(fixed) == len(rest):
        gamma, beta, mean, variance = fixed
        scale = gamma / np.sqrt(variance + np.float32(epsilon))
        factor, shift = (context.constant(v.reshape(shape)) for v in (scale, beta - mean * scale))
        return context.add(context.multiply(x, factor), shift)
    weight, bias, means, variances = (shaped(context, as_blob(context, v), shape) for v in rest)
    root = context.emit("unary", variances, type="SQRT", shift=epsilon)
    product = context.multiply(context.subtract(x, means), weight)
    return context.add(context.divide(product, root), bias)


def _centered(
    context: Lowering, x: Blob, axes: tuple[int, ...], epsilon: float = 0.0
) -> tuple[Blob, Blob, Blob]:
    """x - mean, sqrt(variance + epsilon) and the mean over axes."""
    mean = context.reduce("reduceMean", x, axes)
    centered = context.subtract(x, mean)
    variance = context.reduce("reduceMean", context.multiply(centered, centered), axes)
    return centered, context.emit("unary", variance, type="SQRT", shift=epsilon), mean


def _standardized(context: Lowering, node: Node, x: Blob, axes: tuple[int, ...]) -> Blob:
    """(x - mean) / sqrt(variance + epsilon) over axes."""
    centered, root, _ = _centered(context, x, axes, node.attrs.get("epsilon", 1e-5))
    return context.divide(centered, root)


def _scaled(
    context: Lowering, x: Blob, scale: Operand, bias: Operand, shape: tuple[int, ...]
) -> Blob:
    """x * scale + bias, after both get this shape."""
    factor, shift = (shaped(context, as_blob(context, v), shape) for v in (scale, bias))
    return context.add(context.multiply(x, factor), shift)


@op("InstanceNormalization", raw=True)
def instance_normalization(
    context: Lowering, node: Node, x: Operand, scale: Operand, bias: Operand
) -> Blob:
    """Core ML's own layer if the parameters are constant and the input is an image."""
    node.attrs.get("consumed_inputs")
    x = as_blob(context, x)
    if x.rank == 4 and isinstance(scale, Constant) and isinstance(bias, Constant):
        return context.layer(
            "batchnorm",
            x,
            channels=extent(x, 1),
            computeMeanVar=True,
            instanceNormalization=True,
            epsilon=node.attrs.get("epsilon", 1e-5),
            gamma=scale.floats.ravel(),
            beta=bias.floats.ravel(),
        )
    output = _standardized(context, node, x, tuple(range(2, x.rank)))
    return _scaled(context, output, scale, bias, (1, extent(x, 1), *(1,) * (x.rank - 2)))


@op("LayerNormalization", raw=True)
def layer_normalization(
    context: Lowering, node: Node, x: Operand, scale: Operand, bias: Operand | None = None
) -> tuple[Blob, ...]:
    """Over all axes from `axis` on; the mean and the inverse deviation are outputs, too."""
    node.attrs.get("stash_type")
    x = as_blob(context, x)
    axes = tuple(range(positive(node.attrs.get("axis", -1), x.rank), x.rank))
    epsilon = node.attrs.get("epsilon", 1e-5)
    return layer_normalized(context, x, axes, scale, bias, epsilon, len(node.outputs))


def layer_normalized(
    context: Lowering,
    x: Blob,
    axes: tuple[int, ...],
    scale: Operand,
    bias: Operand | None,
    epsilon: float,
    count: int,
) -> tuple[Blob, ...]:
    """The result, then its mean and its inverse deviation, as far as the node has them."""
    if count == 1:
        output = _native_layer_normalization(context, x, axes, scale, bias, epsilon)
        if output is not None:
            return (output,)
    shift = as_blob(context, bias)
    centered, root, mean = _centered(context, x, axes, epsilon)
    scaled = context.multiply(context.divide(centered, root), as_blob(context, scale))
    output = scaled if shift is None else context.add(scaled, shift)
    if count == 1:
        return (output,)
    inverse = context.divide(context.constant([1.0]), root)
    return (output, mean, inverse)[:count]


def _native_layer_normalization(
    context: Lowering,
    x: Blob,
    axes: tuple[int, ...],
    scale: Operand,
    bias: Operand | None,
    epsilon: float,
) -> Blob | None:
    """Core ML's own layer, if factors and shifts are constants for every value."""
    sizes = [x.known[axis] for axis in axes]
    if not isinstance(scale, Constant) or not isinstance(bias, Constant | None) or None in sizes:
        return None
    shape = tuple(n or 0 for n in sizes)
    arrays = (scale.array, np.zeros(shape) if bias is None else bias.array)
    if any(array.ndim > len(shape) for array in arrays):
        return None
    gamma, beta = (np.broadcast_to(a, shape).astype(np.float32) for a in arrays)
    return context.layer(
        "layerNormalization", x, normalizedShape=shape, eps=epsilon, gamma=gamma, beta=beta
    )


@op("RMSNormalization", "SimplifiedLayerNormalization")
def rms_normalization(context: Lowering, node: Node, x: Blob, scale: Blob) -> Results:
    """onnxruntime's op also has the inverse root as an output."""
    node.attrs.get("stash_type")
    axes = tuple(range(positive(node.attrs.get("axis", -1), x.rank), x.rank))
    output, root = _by_root_mean_square(context, x, axes, scale, node.attrs.get("epsilon", 1e-5))
    if len(node.outputs) == 1:
        return output
    return output, context.divide(context.constant([1.0]), root)


def _by_root_mean_square(
    context: Lowering, x: Blob, axes: tuple[int, ...], scale: Blob, epsilon: float
) -> tuple[Blob, Blob]:
    """x / root * scale, and the root of the mean square."""
    mean = context.reduce("reduceMean", context.multiply(x, x), axes)
    root = context.emit("unary", mean, type="SQRT", shift=epsilon)
    return context.multiply(context.divide(x, root), scale), root


@op(
    "com.microsoft.SkipLayerNormalization",
    "com.microsoft.SkipSimplifiedLayerNormalization",
    raw=True,
)
def skip_layer_normalization(
    context: Lowering, node: Node, x: Operand, skip: Operand, gamma: Operand, *rest: Operand
) -> Results:
    """Normalizes x + skip + bias along the last axis; the sum is the fourth output."""
    simple = node.op == "com.microsoft.SkipSimplifiedLayerNormalization"
    beta, bias = ([None, *rest] if simple else [*rest, None, None])[:2] if rest else (None, None)
    x, skip = (as_blob(context, v) for v in (x, skip))
    total = context.add(x, skip)
    if bias is not None:
        total = context.add(total, as_blob(context, bias))
    names = [*(value.name for value in node.outputs), "", "", ""]
    axes, epsilon = (total.rank - 1,), node.attrs.get("epsilon", 1e-12)
    if any(names[1:3]):
        raise ConversionError("the mean and the deviation, which onnxruntime leaves empty")
    if simple:
        output, _ = _by_root_mean_square(context, total, axes, as_blob(context, gamma), epsilon)
    else:
        (output,) = layer_normalized(context, total, axes, gamma, beta, epsilon, 1)
    return (output, None, None, total)[: len(node.outputs)]


@op("GroupNormalization")
def group_normalization(context: Lowering, node: Node, x: Blob, scale: Blob, bias: Blob) -> Blob:
    """Opset 18 has a scale per group, opset 21 one per channel."""
    node.attrs.get("stash_type")
    groups, channels, ones = node.attrs["num_groups"], extent(x, 1), (1,) * (x.rank - 2)
    is_fixed = None not in x.known
    if is_fixed:
        values = channels // groups * math.prod(known(x)[2:])
        apart = shaped(context, x, (known(x)[0], groups, values))
    else:  # [batch, groups, values, 1, ...]
        apart = of_same_rank(context, x, [0, groups, -1, *ones[1:]])
    output = _standardized(context, node, apart, (2,))
    by_group = context.graph.version < 21 and scale.known[0] == groups
    if by_group:
        output = _scaled(context, output, scale, bias, (1, groups, *(1,) * (apart.rank - 2)))
    output = (
        shaped(context, output, known(x)) if is_fixed else context.layer("reshapeLike", output, x)
    )
    return output if by_group else _scaled(context, output, scale, bias, (1, channels, *ones))


@op("MeanVarianceNormalization")
def mean_variance_normalization(context: Lowering, node: Node, x: Blob) -> Blob:
    """The function's own epsilon is 1e-9, added to the deviation."""
    axes = tuple(positive(a, x.rank) for a in node.attrs.get("axes", (0, 2, 3)))
    centered, deviation, _ = _centered(context, x, axes)
    return context.divide(centered, affine(context, deviation, 1.0, 1e-9))


@op("LRN")
def lrn(context: Lowering, node: Node, x: Blob) -> Blob:
    if x.rank != 4:
        raise ConversionError(f"an input of rank {x.rank}; Core ML's LRN takes 4")
    return context.layer(
        "lrn",
        x,
        alpha=node.attrs.get("alpha", 1e-4),
        beta=node.attrs.get("beta", 0.75),
        k=node.attrs.get("bias", 1.0),
        localSize=node.attrs["size"],
    )


_SOFTMAX = ("Softmax", "LogSoftmax", "Hardmax")


@op(*_SOFTMAX)
def softmax_1(context: Lowering, node: Node, x: Blob) -> Blob:
    """Before opset 13, the input is flattened to two axes at `axis`."""
    axis = positive(node.attrs.get("axis", 1), x.rank)
    if axis == x.rank - 1:
        return _softmax(context, node, x, axis)
    if None in x.known:
        flat = context.layer("flattenTo2D", x, axis=axis)
        return context.layer("reshapeLike", _softmax(context, node, flat, 1), x)
    shape = known(x)
    flat = shaped(context, x, (math.prod(shape[:axis]), math.prod(shape[axis:])))
    return shaped(context, _softmax(context, node, flat, 1), shape)


@op(*_SOFTMAX, since=13)
def softmax_13(context: Lowering, node: Node, x: Blob) -> Blob:
    if x.is_scalar:
        raise ConversionError("softmax of a value without axes")
    return _softmax(context, node, x, positive(node.attrs.get("axis", -1), x.rank))


def _softmax(context: Lowering, node: Node, x: Blob, axis: int) -> Blob:
    if node.op == "Softmax":
        return context.layer("softmaxND", x, axis=axis)
    if node.op == "LogSoftmax":
        total = context.reduce("reduceLogSumExp", x, (axis,))
        return context.subtract(x, total)
    best = context.layer("argMax", x, axis=axis, removeDim=True)
    place = -1 if x.rank == 1 else axis
    output = context.layer(
        "oneHot", best, oneHotVectorSize=extent(x, axis), axis=place, onValue=1.0, offValue=0.0
    )
    return shaped(context, output, known(x)) if x.rank == 1 else output
