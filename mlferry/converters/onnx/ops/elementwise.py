"""Arithmetic, comparisons and activations, value by value."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.absorbing import absorbed
from mlferry.converters.elementwise import FLOAT_MAX, PLAIN
from mlferry.converters.graph import Attributes, Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.extents import chosen, combined, elements_of, equal_shapes, noted
from mlferry.converters.onnx.ops.registry import OPS, op
from mlferry.converters.operands import (
    affine,
    as_blob,
    dtype,
    is_integer,
    like,
    scalar,
    truncated,
    vector,
)
from mlferry.converters.values import Blob, Constant, Operand, Result, Results, blob_of
from mlferry.errors import ConversionError

_PLAIN = {**PLAIN, "Not": ("logicalNot", {})}


@op(*_PLAIN)
def plain(context: Lowering, node: Node, x: Blob) -> Blob:
    node.attrs.get("consumed_inputs")
    kind, params = _PLAIN[node.op]
    return context.emit(kind, x, **params)


@op("Identity", "Dropout", raw=True)
def nothing(context: Lowering, node: Node, x: Operand, *rest: Operand | None) -> Results:
    """Dropout does nothing when a model predicts; its mask is all ones."""
    for name in ("ratio", "is_test", "seed", "consumed_inputs"):
        node.attrs.get(name)
    training = rest[1] if len(rest) > 1 else None
    if training is not None and not (isinstance(training, Constant) and not training.array.any()):
        raise ConversionError("Dropout in training mode")
    output = x.array if isinstance(x, Constant) else x
    if len(node.outputs) > 1 and node.outputs[1].name:
        blob = as_blob(context, x)
        return output, context.emit("equal", blob, blob)
    return (output, None)[: len(node.outputs)]


@op("Reciprocal")
def reciprocal(context: Lowering, node: Node, x: Blob) -> Blob:
    """Core ML's own inverse adds an epsilon; a division does not."""
    node.attrs.get("consumed_inputs")
    return context.divide(context.constant([1.0]), x)


# ---- two operands ----------------------------------------------------------------------


def align(context: Lowering, node: Node, left: Blob, right: Blob) -> tuple[Blob, Blob]:
    """Opsets before 7 may broadcast the second operand from a given axis on."""
    node.attrs.get("consumed_inputs")
    axis = node.attrs.get("axis")
    broadcasts = node.attrs.get("broadcast", 0)
    if context.graph.version >= 7 or not broadcasts or axis is None or right.is_scalar:
        return left, right
    missing = left.rank - right.rank - (axis % left.rank)
    return left, context.expand(right, *range(-missing, 0)) if missing > 0 else right


_BINARY = {
    "Add": "addBroadcastable", "Sub": "subtractBroadcastable", "Mul": "multiplyBroadcastable",
    "And": "logicalAnd", "Or": "logicalOr", "Xor": "logicalXor", "Equal": "equal",
    "Greater": "greaterThan", "Less": "lessThan", "GreaterOrEqual": "greaterEqual",
    "LessOrEqual": "lessEqual",
}  # fmt: skip


@op(*_BINARY, raw=True)
def binary(context: Lowering, node: Node, left: Operand, right: Operand) -> Operand:
    if dtype(node) == "string":
        raise ConversionError("strings cannot be compared")
    joined = _into_the_layer_before(context, node, left, right)
    if joined is not None:
        return joined
    blobs = [as_blob(context, x) for x in (left, right)]
    output = context.emit(_BINARY[node.op], *align(context, node, blobs[0], blobs[1]))
    if node.op == "Equal" and is_integer(node):
        return equal_shapes(context, output, left, right)
    compute = _OF_SHAPES.get(node.op) if is_integer(node) else None
    return output if compute is None else combined(context, output, left, right, compute)


_ABSORBED: dict[str, Callable[[NDArray[np.float32]], tuple[str, NDArray[np.float32]]]] = {
    "Add": lambda array: ("shift", array),
    "Sub": lambda array: ("shift", -array),
    "Mul": lambda array: ("factor", array),
}


def _into_the_layer_before(
    context: Lowering, node: Node, left: Operand, right: Operand
) -> Blob | None:
    """A constant for each channel joins a convolution or product, if nothing else reads that."""
    bindings = _ABSORBED.get(node.op)
    if bindings is None or is_integer(node):
        return None
    pairs = [(left, right), (right, left)][: 1 if node.op == "Sub" else 2]
    for x, other in pairs:
        if isinstance(x, Blob) and isinstance(other, Constant):
            role, numbers = bindings(other.floats)
            options: dict[str, Any] = {role: numbers, "channels_first": True}
            output = absorbed(context, node, x, **options)
            if output is not None:
                return output
    return None


_OF_SHAPES: dict[str, Callable[[int, int], int]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
}


@op("Div")
def div(context: Lowering, node: Node, left: Blob, right: Blob) -> Blob:
    """Integers are divided towards zero."""
    quotient = context.divide(*align(context, node, left, right))
    return truncated(context, quotient) if is_integer(node) else quotient


@op("Mod")
def mod(context: Lowering, node: Node, left: Blob, right: Blob) -> Blob:
    """The sign is that of the divisor; with fmod=1, that of the dividend."""
    if not node.attrs.get("fmod", 0):
        return context.emit("modBroadcastable", left, right)
    quotient = truncated(context, context.divide(left, right))
    product = context.multiply(quotient, right)
    return context.subtract(left, product)


@op("Pow")
def power(context: Lowering, node: Node, left: Blob, right: Blob) -> Blob:
    raised = context.emit("powBroadcastable", *align(context, node, left, right))
    return truncated(context, raised) if is_integer(node) and not is_integer(node, 1) else raised


_VARIADIC = {
    "Sum": "addBroadcastable",
    "Max": "maxBroadcastable",
    "Min": "minBroadcastable",
}


@op(*_VARIADIC)
def variadic(context: Lowering, node: Node, *inputs: Blob) -> Blob:
    node.attrs.get("consumed_inputs")
    if len(inputs) == 1:
        return inputs[0]
    kind = _VARIADIC[node.op]
    return functools.reduce(lambda x, y: context.emit(kind, x, y), inputs)


@op("Mean")
def mean(context: Lowering, node: Node, *inputs: Blob) -> Blob:
    node.attrs.get("consumed_inputs")
    total = functools.reduce(context.add, inputs)
    return affine(context, total, 1 / len(inputs))


@op("Where", raw=True)
def where(context: Lowering, node: Node, condition: Operand, x: Operand, y: Operand) -> Operand:
    if dtype(node, 1) == "string":
        raise ConversionError("strings cannot be selected")
    blobs = [as_blob(context, v) for v in (condition, x, y)]
    output = context.where(*blobs)
    return chosen(context, output, condition, x, y) if is_integer(node, 1) else output


@op("IsNaN")
def is_nan(context: Lowering, node: Node, x: Blob) -> Blob:
    """Only NaN is not equal to itself."""
    return context.emit("notEqual", x, x)


@op("IsInf")
def is_inf(context: Lowering, node: Node, x: Blob) -> Blob:
    up = context.emit("greaterThan", x, alpha=FLOAT_MAX)
    down = context.emit("lessThan", x, alpha=-FLOAT_MAX)
    signs = node.attrs.get("detect_positive", 1), node.attrs.get("detect_negative", 1)
    if all(signs):
        return context.emit("logicalOr", up, down)
    if not any(signs):
        return context.emit("logicalAnd", up, down)
    return up if signs[0] else down


_NUMPY = ("float16", "float32", "float64", "int32", "int64", "bool")


@op("Cast", "CastLike", raw=True)
def cast(context: Lowering, node: Node, x: Operand, like: Operand | None = None) -> Result:
    """Floats lose their fraction to become integers; a bool is whether a value is not 0."""
    source, target = dtype(node), node.outputs[0].dtype
    node.attrs.get("to")
    node.attrs.get("saturate")
    node.attrs.get("round_mode")
    if isinstance(x, Constant) and target in _NUMPY:
        return x.array.astype(target)
    x = as_blob(context, x)
    if target == "bool":
        return context.emit("notEqual", x, alpha=0.0)
    if source not in _FLOATS | {*_BITS, "bool"} or target not in _FLOATS | {*_BITS}:
        raise ConversionError(f"a cast from {source} to {target}")
    if target in ("int32", "int64") and source in ("int32", "int64"):
        return noted(context, x, elements_of(context, x))
    if source in _FLOATS and target in _BITS:
        return truncated(context, x)  # what does not fit is undefined in ONNX
    if source in _BITS and target in _BITS and not _holds(target, source):
        if _BITS[target] >= 32:
            raise ConversionError(f"a cast to {target} of numbers that may be negative")
        return _modulo(context, x, target)
    return x


# Core ML computes all of them in float32: half precision is not rounded to.
_FLOATS = {"float16", "bfloat16", "float32", "float64"}
_BITS = {f"{sign}int{bits}": bits for sign in ("", "u") for bits in (8, 16, 32, 64)}


def _holds(target: str, source: str) -> bool:
    """Whether a type holds all integers of another one that float32 represents exactly."""
    if _BITS[target] >= 32:
        return not target.startswith("u") or source.startswith("u")
    one, other = np.iinfo(target), np.iinfo(source)
    return bool(one.min <= other.min and one.max >= other.max)


def _modulo(context: Lowering, x: Blob, target: str) -> Blob:
    """Integers modulo the size of a type."""
    size, least = 2.0 ** _BITS[target], float(np.iinfo(target).min)
    rounds = context.emit("floor", affine(context, x, 1 / size, -least / size))
    return context.subtract(x, affine(context, rounds, size))


# ---- activations -----------------------------------------------------------------------


@op("LeakyRelu")
def leaky_relu(context: Lowering, node: Node, x: Blob) -> Blob:
    node.attrs.get("consumed_inputs")
    return context.emit("activation", x, leakyReLU={"alpha": node.attrs.get("alpha", 0.01)})


@op("Elu")
def elu(context: Lowering, node: Node, x: Blob) -> Blob:
    node.attrs.get("consumed_inputs")
    return context.emit("activation", x, ELU={"alpha": node.attrs.get("alpha", 1.0)})


@op("Celu")
def celu(context: Lowering, node: Node, x: Blob) -> Blob:
    alpha = node.attrs.get("alpha", 1.0)
    inner = context.emit("activation", affine(context, x, 1 / alpha), ELU={"alpha": 1.0})
    return affine(context, inner, alpha)


@op("Selu")
def selu(context: Lowering, node: Node, x: Blob) -> Blob:
    """Opset 1 has shorter defaults than opset 6."""
    node.attrs.get("consumed_inputs")
    old = context.graph.version < 6
    alpha = node.attrs.get("alpha", 1.6732 if old else 1.67326319217681884765625)
    gamma = node.attrs.get("gamma", 1.0507 if old else 1.05070102214813232421875)
    return affine(context, context.emit("activation", x, ELU={"alpha": alpha}), gamma)


@op("ThresholdedRelu")
def thresholded_relu(context: Lowering, node: Node, x: Blob) -> Blob:
    """x if it is above alpha, else 0."""
    above = context.emit("greaterThan", x, alpha=node.attrs.get("alpha", 1.0))
    # no product: infinity times 0 is not a number
    return context.where(above, x, scalar(context.constant([0.0])))


@op("HardSigmoid")
def hard_sigmoid(context: Lowering, node: Node, x: Blob) -> Blob:
    node.attrs.get("consumed_inputs")
    line = {"alpha": node.attrs.get("alpha", 0.2), "beta": node.attrs.get("beta", 0.5)}
    return context.emit("activation", x, sigmoidHard=line)


@op("HardSwish")
def hard_swish(context: Lowering, node: Node, x: Blob) -> Blob:
    gate = context.emit("activation", x, sigmoidHard={"alpha": 1 / 6, "beta": 0.5})
    return context.multiply(x, gate)


@op("Swish", "com.microsoft.QuickGelu")
def swish(context: Lowering, node: Node, x: Blob) -> Blob:
    """x * sigmoid(alpha * x)"""
    alpha = node.attrs.get("alpha", 1.0 if node.op == "Swish" else 1.702)
    return context.multiply(x, context.emit("activation", affine(context, x, alpha), sigmoid={}))


@op("Mish")
def mish(context: Lowering, node: Node, x: Blob) -> Blob:
    gate = context.emit("activation", context.emit("activation", x, softplus={}), tanh={})
    return context.multiply(x, gate)


@op("Gelu", "com.microsoft.Gelu")
def gelu(context: Lowering, node: Node, x: Blob) -> Blob:
    tanh = node.attrs.get("approximate", "none") == "tanh"
    return context.emit("gelu", x, mode="TANH_APPROXIMATION" if tanh else "EXACT")


@op("com.microsoft.BiasGelu", "com.microsoft.FastGelu")
def gelu_of_sum(context: Lowering, node: Node, x: Blob, bias: Blob | None = None) -> Blob:
    """gelu(x + bias); the fast one computes a tanh, and its bias is optional."""
    moved = x if bias is None else context.add(x, bias)
    exact = node.op == "com.microsoft.BiasGelu"
    return context.emit("gelu", moved, mode="EXACT" if exact else "TANH_APPROXIMATION")


@op("Shrink")
def shrink(context: Lowering, node: Node, x: Blob) -> Blob:
    """x moved by bias towards 0 if its magnitude is above lambd, else 0."""
    limit, bias = node.attrs.get("lambd", 0.5), node.attrs.get("bias", 0.0)
    low_side = context.emit("lessThan", x, alpha=-limit)
    high_side = context.emit("greaterThan", x, alpha=limit)
    lifted = context.multiply(low_side, affine(context, x, 1.0, bias))
    lowered = context.multiply(high_side, affine(context, x, 1.0, -bias))
    return context.add(lifted, lowered)


@op("PRelu")
def prelu(context: Lowering, node: Node, x: Blob, slope: Blob) -> Blob:
    """Slopes broadcast; before opset 7, a slope per channel lies along axis 1."""
    node.attrs.get("consumed_inputs")
    if context.graph.version < 7 and slope.rank == 1 and slope.known[0] != 1 and x.rank > 2:
        slope = context.expand(slope, *range(-(x.rank - 2), 0))
    positive = context.emit("activation", x, ReLU={})
    negative = context.emit("clip", x, minVal=-FLOAT_MAX, maxVal=0.0)
    scaled = context.multiply(negative, slope)
    return context.add(positive, scaled)


@op("Clip")
def clip_6(context: Lowering, node: Node, x: Blob) -> Blob:
    node.attrs.get("consumed_inputs")
    least, most = node.attrs.get("min", -FLOAT_MAX), node.attrs.get("max", FLOAT_MAX)
    return context.emit("clip", x, minVal=max(least, -FLOAT_MAX), maxVal=min(most, FLOAT_MAX))


@op("Clip", since=11, raw=True)
def clip_11(
    context: Lowering,
    node: Node,
    x: Operand,
    least: Operand | None = None,
    most: Operand | None = None,
) -> Blob:
    """Either bound may be omitted; the upper one wins if they cross."""
    x = as_blob(context, x)
    if isinstance(least, Constant) and isinstance(most, Constant):
        bounds = [float(bound.array.ravel()[0]) for bound in (least, most)]
        if -FLOAT_MAX <= bounds[0] <= bounds[1] <= FLOAT_MAX:
            return context.emit("clip", x, minVal=bounds[0], maxVal=bounds[1])
    least, most = (as_blob(context, b) for b in (least, most))
    if least is not None:
        x = context.maximum(x, least)
    return x if most is None else context.minimum(x, most)


# ---- bits ------------------------------------------------------------------------------


@op("BitwiseNot")
def bitwise_not(context: Lowering, node: Node, x: Blob) -> Blob:
    """-x - 1 for signed integers; for others, the largest number minus x."""
    kind = dtype(node)
    if kind.startswith("int"):
        return affine(context, x, -1.0, -1.0)
    if kind not in ("uint8", "uint16"):
        raise ConversionError(f"bits of {kind}: Core ML's float32 has 24")
    return affine(context, x, -1.0, 2.0 ** _BITS[kind] - 1)


_BITWISE = {
    "BitwiseAnd": "multiplyBroadcastable",
    "BitwiseOr": "maxBroadcastable",
    "BitwiseXor": "notEqual",
}


@op(*_BITWISE)
def bitwise(context: Lowering, node: Node, left: Blob, right: Blob) -> Blob:
    """Bit by bit, along an additional axis; the highest bit of a signed integer is negative."""
    kind = dtype(node)
    count = _BITS.get(kind, 64)
    if count > 16:
        raise ConversionError(f"bits of {kind}: Core ML's float32 has 24")
    if max(left.rank, right.rank) > 4:
        raise ConversionError("bits of values of five axes: Core ML has no sixth for them")
    weights = 2.0 ** np.arange(count)
    bits = []
    for x in (left, right):
        wide = context.expand(vector(x), -1)
        quotient = context.divide(wide, context.constant(weights))
        whole = context.emit("floor", quotient)
        bits.append(context.emit("modBroadcastable", whole, context.constant([2.0])))
    output = context.emit(_BITWISE[node.op], *bits)
    weights[-1] *= -1 if kind.startswith("int") else 1
    weighted = context.multiply(output, context.constant(weights))
    total = context.reduce("reduceSum", weighted, (-1,), keep=False)
    return like(total, left, right)


@op("BitShift")
def bit_shift(context: Lowering, node: Node, x: Blob, by: Blob) -> Blob:
    """Multiplies by a power of two; a shift by the type's width, or a negative one, gives 0."""
    kind = dtype(node)
    width = float(_BITS[kind])
    outside = context.emit("lessThan", by, alpha=0.0)
    moved = context.add(by, affine(context, outside, 1e6))
    limited = context.emit("clip", moved, minVal=0.0, maxVal=width)
    factor = context.emit("exp2", limited)
    if node.attrs["direction"] == "RIGHT":
        return context.emit("floor", context.divide(x, factor))
    return _modulo(context, context.multiply(x, factor), kind)


# ---- activations that other ops hold -----------------------------------------------------

_HELD = {
    *("Relu", "LeakyRelu", "ThresholdedRelu", "Elu", "Selu", "Clip"),
    *("Sigmoid", "HardSigmoid", "Tanh", "Softplus", "Softsign"),
}
_BEFORE_OPERANDS = 6  # the opset of Clip whose bounds are options


def activated(context: Lowering, node: Node, x: Blob, options: Mapping[str, float | None]) -> Blob:
    """The activation that an op of onnxruntime names, with the options that are set."""
    name = node.attrs.get("activation", "")
    if not name:
        return x
    if name not in _HELD:
        raise ConversionError(f"activation={name!r}: {', '.join(sorted(_HELD))} are possible")
    attributes = {key: value for key, value in options.items() if value is not None}
    held = replace(node, op=name, attrs=Attributes(attributes))
    entry = OPS.find(name, _BEFORE_OPERANDS)
    assert entry is not None
    return blob_of(entry.value(context, held, x))
