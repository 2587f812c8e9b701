"""Gradients of activations and arithmetic, value by value."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mlferry.layers.elementwise.definition import COMPARISONS, LOGICAL
from mlferry.layers.elementwise.kernel import per_channel
from mlferry.layers.gradients import (
    BOTH,
    INPUTS,
    OUTPUTS,
    SHAPES,
    Array,
    LayerRun,
    gradient,
    no_gradient,
)
from mlferry.layers.params import Params
from mlferry.numerics.functions import sigmoid
from mlferry.numerics.gradients import erf_slope, gelu_slope, reduced_to
from mlferry.spec import weights

_LN2 = np.float32(math.log(2))

# Of an activation, its slope where it went from x to y; None each where it is not read.
Slope = Callable[[Params, Array, Array], Array]

OF_OUTPUTS: dict[str, Slope] = {
    "ReLU": lambda a, x, y: y > 0,
    "tanh": lambda a, x, y: 1 - np.square(y),
    "scaledTanh": lambda a, x, y: scaled_tanh_slope(y, a.alpha, a.beta),
    "sigmoid": lambda a, x, y: y * (1 - y),
}
OF_INPUTS: dict[str, Slope] = {
    "leakyReLU": lambda a, x, y: np.where(x > 0, np.float32(1), np.float32(a.alpha)),
    "thresholdedReLU": lambda a, x, y: x >= a.alpha,
    "PReLU": lambda a, x, y: np.where(x >= 0, np.float32(1), per_channel(a, "alpha", x)),
    "sigmoidHard": lambda a, x, y: hard_sigmoid_slope(x, a.alpha, a.beta),
    "ELU": lambda a, x, y: np.where(
        x > 0, np.float32(1), np.float32(a.alpha) * np.exp(np.minimum(x, 0))
    ),
    "softsign": lambda a, x, y: 1 / np.square(1 + np.abs(x)),
    "softplus": lambda a, x, y: sigmoid(x),
    "parametricSoftplus": lambda a, x, y: (
        per_channel(a, "alpha", x)
        * per_channel(a, "beta", x)
        * sigmoid(per_channel(a, "beta", x) * x)
    ),
}


def scaled_tanh_slope(y: Array, alpha: float, beta: float) -> Array:
    """The derivative of `functions.scaled_tanh`, from its result."""
    if not alpha:
        return np.zeros_like(y)
    return np.float32(beta) * (np.float32(alpha) - np.square(y) / np.float32(alpha))


def hard_sigmoid_slope(x: Array, alpha: float, beta: float) -> Array:
    """The derivative of `functions.hard_sigmoid`."""
    inner = alpha * x + beta
    return np.where((inner > 0) & (inner < 1), np.float32(alpha), np.float32(0))


def _reads(params: Params) -> str:
    kind = params.which("NonlinearityType") or "linear"
    return OUTPUTS if kind in OF_OUTPUTS else SHAPES if kind == "linear" else INPUTS


@gradient("activation", keeps=_reads)
def activation(run: LayerRun, dy: Array) -> Array:
    kind = run.params.which("NonlinearityType") or "linear"
    a, x, y = getattr(run.params, kind), run.inputs[0], run.outputs[0]
    if kind == "linear":
        return dy * np.float32(a.alpha)
    if kind == "PReLU":
        run.weight("PReLU.alpha", lambda: _summed(a, "alpha", dy * np.minimum(x, 0)))
    if kind == "parametricSoftplus":
        alpha, beta = per_channel(a, "alpha", x), per_channel(a, "beta", x)
        run.weight(
            "parametricSoftplus.alpha",
            lambda: _summed(a, "alpha", dy * np.logaddexp(np.float32(0), beta * x)),
        )
        run.weight(
            "parametricSoftplus.beta",
            lambda: _summed(a, "beta", dy * alpha * x * sigmoid(beta * x)),
        )
    slope = OF_OUTPUTS[kind] if kind in OF_OUTPUTS else OF_INPUTS[kind]
    return dy * slope(a, x, y)


def _summed(a: Params, field: str, values: Array) -> Array:
    """The sum over all uses of a channel's value, or of one value for all channels."""
    one = weights.count(getattr(a.message, field)) == 1
    return reduced_to(values, (1,) if one else (values.shape[-3], 1, 1)).reshape(-1)


_UNARY: dict[str, Callable[[Params, Array, Array], Array]] = {
    "SQRT": lambda p, x, y: np.float32(0.5) / y,
    "RSQRT": lambda p, x, y: -0.5 * y / (x + p.epsilon),
    "INVERSE": lambda p, x, y: -np.square(y),
    "POWER": lambda p, x, y: p.alpha * np.power(x, p.alpha - 1),
    "EXP": lambda p, x, y: y,
    "LOG": lambda p, x, y: 1 / x,
    "ABS": lambda p, x, y: np.sign(x),
    "THRESHOLD": lambda p, x, y: x > p.alpha,
}


@gradient("unary", keeps=BOTH)
def unary(run: LayerRun, dy: Array) -> Array:
    params = run.params
    x = params.scale * run.inputs[0] + params.shift
    return dy * _UNARY[params.type](params, x, run.outputs[0]) * np.float32(params.scale)


@gradient("clip", keeps=INPUTS)
def clip(run: LayerRun, dy: Array) -> Array:
    x = run.inputs[0]
    return dy * ((x >= run.params.minVal) & (x <= run.params.maxVal))


@gradient("clampedReLU", keeps=INPUTS)
def clamped_relu(run: LayerRun, dy: Array) -> Array:
    x, alpha, beta = run.inputs[0], run.params.alpha, run.params.beta
    slope = np.where(x > 0, np.float32(1), np.float32(alpha))
    return dy * np.where(slope * x <= beta, slope, np.float32(0))


@gradient("gelu", keeps=INPUTS)
def gelu(run: LayerRun, dy: Array) -> Array:
    return dy * gelu_slope(run.inputs[0], run.params.mode)


@gradient("erf", keeps=INPUTS)
def erf(run: LayerRun, dy: Array) -> Array:
    return dy * erf_slope(run.inputs[0])


_SLOPES: dict[str, Callable[[Array, Array], Array]] = {
    "exp2": lambda x, y: y * _LN2,
    "sin": lambda x, y: np.cos(x),
    "cos": lambda x, y: -np.sin(x),
    "tan": lambda x, y: 1 + np.square(y),
    "asin": lambda x, y: 1 / np.sqrt(1 - np.square(x)),
    "acos": lambda x, y: -1 / np.sqrt(1 - np.square(x)),
    "atan": lambda x, y: 1 / (1 + np.square(x)),
    "sinh": lambda x, y: np.cosh(x),
    "cosh": lambda x, y: np.sinh(x),
    "tanh": lambda x, y: 1 - np.square(y),
    "asinh": lambda x, y: 1 / np.sqrt(1 + np.square(x)),
    "acosh": lambda x, y: 1 / np.sqrt(np.square(x) - 1),
    "atanh": lambda x, y: 1 / (1 - np.square(x)),
}
_OF_RESULT = ("exp2", "tan", "tanh")

no_gradient("ceil", "floor", "sign", "round", "logicalNot", *LOGICAL, *COMPARISONS)


@gradient(*_SLOPES, keeps=lambda params: OUTPUTS if params.kind in _OF_RESULT else INPUTS)
def function(run: LayerRun, dy: Array) -> Array:
    return dy * _SLOPES[run.params.kind](run.inputs[0], run.outputs[0])


@gradient("addBroadcastable", keeps=SHAPES)
def add_broadcastable(run: LayerRun, dy: Array) -> tuple[Array, ...]:
    return tuple(reduced_to(dy, shape) for shape in run.input_shapes)


@gradient("add", keeps=SHAPES)
def add(run: LayerRun, dy: Array) -> tuple[Array, ...]:
    return add_broadcastable(run, dy)


@gradient("average", keeps=SHAPES)
def average(run: LayerRun, dy: Array) -> tuple[Array, ...]:
    return add_broadcastable(run, dy / np.float32(len(run.input_shapes)))


@gradient("multiply", "multiplyBroadcastable", keeps=INPUTS)
def multiply(run: LayerRun, dy: Array) -> tuple[Array, ...]:
    """The gradient of each factor, times the product of the others."""
    if len(run.inputs) == 1:
        return (dy * np.float32(run.params.alpha),) if run.params.kind == "multiply" else (dy,)
    gradients = []
    for index, shape in enumerate(run.input_shapes):
        through = dy
        for other, factor in enumerate(run.inputs):
            through = through if other == index else through * factor
        gradients.append(reduced_to(through, shape))
    return tuple(gradients)


@gradient("max", "min", "maxBroadcastable", "minBroadcastable", keeps=BOTH)
def extreme(run: LayerRun, dy: Array) -> tuple[Array, ...]:
    """The gradient goes to the first of equal inputs."""
    left = np.ones(dy.shape, bool)
    gradients = []
    for x, shape in zip(run.inputs, run.input_shapes, strict=True):
        hit = (x == run.outputs[0]) & left
        left &= ~hit
        gradients.append(reduced_to(dy * hit, shape))
    return tuple(gradients)


_PAIRS: dict[str, Callable[[Array, Array, Array, Array], tuple[Array, Array]]] = {
    "subtractBroadcastable": lambda dy, a, b, y: (dy, -dy),
    "divideBroadcastable": lambda dy, a, b, y: (dy / b, -dy * y / b),
    "floorDivBroadcastable": lambda dy, a, b, y: (np.zeros_like(dy), np.zeros_like(dy)),
    "modBroadcastable": lambda dy, a, b, y: (dy, -dy * np.floor_divide(a, b)),
    "powBroadcastable": lambda dy, a, b, y: (
        dy * b * np.power(a, b - 1),
        dy * y * np.log(np.where(a > 0, a, 1)),
    ),
}


@gradient(*_PAIRS, keeps=lambda params: SHAPES if "subtract" in params.kind else BOTH)
def binary(run: LayerRun, dy: Array) -> tuple[Array, Array]:
    a, b = run.inputs
    left, right = _PAIRS[run.params.kind](dy, a, b, run.outputs[0])
    return reduced_to(left, run.input_shapes[0]), reduced_to(right, run.input_shapes[1])
