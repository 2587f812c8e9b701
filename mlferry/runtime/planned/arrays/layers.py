"""The layer kinds that a plan on arrays takes, and the part that each of them becomes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from mlferry.compiled import PACKED_MOST
from mlferry.layers.kernels import KERNELS, Array
from mlferry.layers.linear.kernel import packed_product
from mlferry.layers.normalization.definition import softmax_axis
from mlferry.layers.params import Params
from mlferry.layers.recurrent.kernel import is_standard, packed_lstm
from mlferry.registry import Registry
from mlferry.runtime.planned.arrays import parts
from mlferry.runtime.planned.arrays.plan import ArrayPart, Kernel

Describe = Callable[[Params, int], "ArrayPart | None"]

LAYERS: Registry[Describe] = Registry("layer kind on arrays")
planned = LAYERS.register
"""Registers what a layer is, for its parameters and the number of its inputs; None where no plan
takes it."""


def part_of(params: Params, inputs: int) -> ArrayPart | None:
    """What a plan knows of a layer."""
    entry = LAYERS.find(params.kind)
    return entry.value(params, inputs) if entry is not None and inputs else None


def _kernel(params: Params) -> Kernel:
    """What computes a layer from its inputs."""
    kernel = KERNELS.find(params.kind).value  # type: ignore[union-attr] # `Session` checked it
    return functools.partial(kernel, params)


# ---- views -----------------------------------------------------------------------------


@planned("reshapeStatic", "squeeze", "expandDims", "flattenTo2D", "rankPreservingReshape")
def reshaped(params: Params, inputs: int) -> ArrayPart | None:
    return parts.Reshaped() if inputs == 1 else None


@planned("transpose", "permute", "sliceStatic", "slice", "splitND", "split")
def viewed(params: Params, inputs: int) -> ArrayPart | None:
    """Kernels that return views."""
    kernel = _kernel(params)

    def views(x: Array) -> tuple[Array, ...]:
        result = kernel(x)
        return result if isinstance(result, tuple) else (result,)

    return parts.Viewed(views) if inputs == 1 else None


# ---- products --------------------------------------------------------------------------


@planned("innerProduct")
def inner_product(params: Params, inputs: int) -> ArrayPart | None:
    return _product(params, params.inputChannels, params.outputChannels)


@planned("batchedMatmul")
def batched_matmul(params: Params, inputs: int) -> ArrayPart | None:
    if inputs == 1:
        first, second = params.weightMatrixFirstDimension, params.weightMatrixSecondDimension
        return _product(params, first, second)
    return parts.MatrixProduct((params.transposeA, params.transposeB), _kernel(params))


def _product(params: Params, inputs: int, outputs: int) -> ArrayPart | None:
    if params.int8DynamicQuantize or params.has_given or inputs * outputs > PACKED_MOST:
        return None
    return parts.DenseProduct(lambda: packed_product(params, (outputs, inputs)), inputs)


# ---- rows ------------------------------------------------------------------------------


@planned("layerNormalization")
def layer_normalization(params: Params, inputs: int) -> ArrayPart:
    gamma, beta = (
        lambda field=field: params.weight(field, params.normalizedShape)
        for field in ("gamma", "beta")
    )
    return parts.Normalized(gamma, beta, params.eps)


@planned("softmax", "softmaxND")
def softmax(params: Params, inputs: int) -> ArrayPart:
    return parts.Softmax(softmax_axis(params), _kernel(params))


@planned("uniDirectionalLSTM")
def one_direction(params: Params, inputs: int) -> ArrayPart | None:
    kinds = [a.which("NonlinearityType") for a in params.activations]
    return _lstm(params, [params.weightParams], kinds, [params.reverseInput], inputs)


@planned("biDirectionalLSTM")
def both_directions(params: Params, inputs: int) -> ArrayPart | None:
    ahead = params.activationsForwardLSTM
    behind = params.activationsBackwardLSTM or ahead
    kinds = [a.which("NonlinearityType") for a in ahead]
    if kinds != [a.which("NonlinearityType") for a in behind]:
        return None
    return _lstm(params, list(params.weightParams), kinds, [False, True], inputs)


def _lstm(
    params: Params,
    directions: list[Params],
    kinds: list[str | None],
    backward: list[bool],
    inputs: int,
) -> ArrayPart | None:
    if inputs not in (1, 1 + 2 * len(directions)) or not is_standard(params, directions, kinds):
        return None
    options = params.params
    return parts.LongShortTermMemory(
        lambda: packed_lstm(params, directions),
        np.float32(options.cellClipThreshold),
        backward,
        sequence=options.sequenceOutput,
        entering=_entering,
        leaving=_leaving,
    )


def _entering(given: Sequence[Array], states: Array, cells: Array) -> parts.Moves:
    """From states and cells, [1, Batch, units, 1, 1], of one direction after the other."""
    targets = [x for pair in zip(states, cells, strict=True) for x in pair]
    return [
        (np.broadcast_to(x.reshape(-1, y.shape[1]), y.shape), y)
        for x, y in zip(given, targets, strict=False)
    ]


def _leaving(states: Array, cells: Array, targets: Sequence[Array]) -> parts.Moves:
    """To states and cells likewise."""
    sources = [x for pair in zip(states, cells, strict=True) for x in pair]
    return [(x, y.reshape(x.shape)) for x, y in zip(sources, targets, strict=False)]


# ---- value by value --------------------------------------------------------------------

_JOINED = {
    "add": "add",
    "addBroadcastable": "add",
    "multiply": "multiply",
    "multiplyBroadcastable": "multiply",
    "subtractBroadcastable": "subtract",
    "divideBroadcastable": "divide",
    "maxBroadcastable": "maximum",
    "minBroadcastable": "minimum",
    "max": "maximum",
    "min": "minimum",
    "equal": "equal",
    "notEqual": "not_equal",
    "lessThan": "less",
    "lessEqual": "less_equal",
    "greaterThan": "greater",
    "greaterEqual": "greater_equal",
}
_WITH_ALPHA = {"add", "multiply", "equal", "notEqual", "lessThan", "lessEqual", "greaterThan",
               "greaterEqual"}  # fmt: skip


@planned("activation")
def activation(params: Params, inputs: int) -> ArrayPart | None:
    kind = params.which("NonlinearityType")
    if kind == "ReLU":
        return _function("identity", 0.0)
    if kind == "linear":
        return parts.Linear(params.linear.alpha, params.linear.beta)
    return _function(kind) if kind in ("sigmoid", "tanh") else called(params, inputs)


@planned("clip")
def clip(params: Params, inputs: int) -> ArrayPart:
    return _function("identity", params.minVal, params.maxVal)


@planned("tanh", "erf")
def function(params: Params, inputs: int) -> ArrayPart:
    return _function(params.kind)


@planned("gelu")
def gelu(params: Params, inputs: int) -> ArrayPart | None:
    return _function("gelu") if params.mode == "EXACT" else called(params, inputs)


def _function(name: str, least: float = -np.inf, most: float = np.inf) -> ArrayPart:
    return parts.ValueFunction(name, np.float32(least), np.float32(most))


@planned(*_JOINED)
def joined(params: Params, inputs: int) -> ArrayPart:
    name = _JOINED[params.kind]
    if inputs == 1 and params.kind in _WITH_ALPHA:
        return parts.Combined(name, (None, np.full(1, params.alpha, np.float32)))
    return parts.Combined(name)


@planned("gather")
def gathered(params: Params, inputs: int) -> ArrayPart:
    return parts.Gathered(params.axis, _kernel(params))


@planned("unary", "clampedReLU", "sin", "cos", "tan", "asin", "acos", "atan",
         "sinh", "cosh", "asinh", "acosh", "atanh", "exp2", "floor", "ceil", "round", "sign",
         "logicalNot", "logicalOr", "logicalXor", "logicalAnd", "floorDivBroadcastable",
         "modBroadcastable", "powBroadcastable", "average",
         "embeddingND", "batchnorm", "scale", "bias", "l2normalize", "concat", "concatND", "stack",
         "sequenceRepeat", "whereBroadcastable", "reduce", "reduceSum",
         "reduceMean", "reduceMax", "reduceMin", "reduceProd", "reduceL1", "reduceL2",
         "reduceLogSum", "reduceLogSumExp", "reduceSumSquare", "argMax", "argMin", "reverse",
         "lowerTriangular", "upperTriangular", "matrixBandPart", "flatten",
         "reshape")  # fmt: skip
def called(params: Params, inputs: int) -> ArrayPart:
    """What no compiled code has."""
    return parts.KernelCall(_kernel(params))
