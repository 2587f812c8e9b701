"""How many inputs and outputs each layer kind takes and makes."""

from __future__ import annotations

from typing import NamedTuple

MANY = 1 << 30


class Arity(NamedTuple):
    """Least and greatest numbers of inputs and of outputs."""

    inputs: tuple[int, int]
    outputs: tuple[int, int]


_SOURCES = (
    "loadConstant", "loadConstantND", "fillStatic", "rangeStatic", "randomNormalStatic",
    "randomUniformStatic", "randomBernoulliStatic",
)  # fmt: skip
_UNARY = (
    "pooling", "activation", "innerProduct", "embedding", "batchnorm", "mvn", "l2normalize",
    "softmax", "lrn", "padding", "upsample", "resizeBilinear", "unary", "scale", "bias",
    "reduce", "reshape", "flatten", "permute", "sequenceRepeat", "reorganizeData", "slice",
    "copy", "clip", "ceil", "floor", "sign", "round", "exp2", "sin", "cos", "tan", "asin",
    "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "gelu",
    "logicalNot", "softmaxND", "reverse", "transpose", "sliceStatic", "slidingWindows",
    "argMin", "argMax", "embeddingND", "getShape", "fillLike", "fillDynamic",
    "broadcastToStatic", "squeeze", "expandDims", "flattenTo2D", "reshapeStatic",
    "rankPreservingReshape", "randomNormalLike", "randomNormalDynamic", "randomUniformLike",
    "randomUniformDynamic", "randomBernoulliLike", "randomBernoulliDynamic",
    "categoricalDistribution", "reduceL1", "reduceL2", "reduceMax", "reduceMin", "reduceSum",
    "reduceProd", "reduceMean", "reduceLogSum", "reduceSumSquare", "reduceLogSumExp",
    "whereNonZero", "matrixBandPart", "lowerTriangular", "upperTriangular",
    "layerNormalization", "clampedReLU", "argSort", "pooling3d", "globalPooling3d",
    "convolution3d",
)  # fmt: skip
_ONE_OR_TWO = (
    "convolution", "crop", "equal", "notEqual", "lessThan", "lessEqual", "greaterThan",
    "greaterEqual", "tile", "batchedMatmul", "constantPad", "oneHot", "cumSum",
)  # fmt: skip
_BINARY = (
    "cropResize", "dot", "logicalOr", "logicalXor", "logicalAnd", "modBroadcastable",
    "minBroadcastable", "maxBroadcastable", "addBroadcastable", "powBroadcastable",
    "divideBroadcastable", "floorDivBroadcastable", "multiplyBroadcastable",
    "subtractBroadcastable", "gather", "gatherND", "gatherAlongAxis", "reverseSeq",
    "broadcastToLike", "broadcastToDynamic", "reshapeLike", "reshapeDynamic", "sliceBySize",
)  # fmt: skip
_TERNARY = ("scatter", "scatterND", "scatterAlongAxis", "whereBroadcastable")
_ONE_OR_MORE = ("add", "multiply", "average", "max", "min")
_TWO_OR_MORE = ("concat", "concatND", "stack")

ARITIES: dict[str, Arity] = {
    **dict.fromkeys(_SOURCES, Arity((0, 0), (1, 1))),
    **dict.fromkeys(_UNARY, Arity((1, 1), (1, 1))),
    **dict.fromkeys(_ONE_OR_TWO, Arity((1, 2), (1, 1))),
    **dict.fromkeys(_BINARY, Arity((2, 2), (1, 1))),
    **dict.fromkeys(_TERNARY, Arity((3, 3), (1, 1))),
    **dict.fromkeys(_ONE_OR_MORE, Arity((1, MANY), (1, 1))),
    **dict.fromkeys(_TWO_OR_MORE, Arity((2, MANY), (1, 1))),
    "rangeDynamic": Arity((0, 3), (1, 1)),
    "sliceDynamic": Arity((2, 7), (1, 1)),
    "split": Arity((1, 1), (2, MANY)),
    "splitND": Arity((1, 1), (2, MANY)),
    "topK": Arity((1, 2), (2, 2)),
    "simpleRecurrent": Arity((2, 2), (2, 2)),
    "gru": Arity((1, 2), (2, 2)),
    "uniDirectionalLSTM": Arity((1, 3), (3, 3)),
    "biDirectionalLSTM": Arity((1, 5), (5, 5)),
    "custom": Arity((1, MANY), (1, MANY)),
    "branch": Arity((1, 1), (0, 0)),
    "loop": Arity((0, 1), (0, 0)),
    "loopBreak": Arity((0, 0), (0, 0)),
    "loopContinue": Arity((0, 0), (0, 0)),
    "NonMaximumSuppression": Arity((2, 5), (4, 4)),
}

# Numbers of inputs with a clear meaning, though Core ML refuses them.
EVALUATED: dict[str, tuple[int, int]] = {
    **dict.fromkeys(_TWO_OR_MORE, (1, MANY)),
    "addBroadcastable": (1, MANY),
    "multiplyBroadcastable": (1, MANY),
    "maxBroadcastable": (1, MANY),
    "minBroadcastable": (1, MANY),
    "convolution": (1, 3),
    "simpleRecurrent": (1, 2),
}


def bounds(least: int, greatest: int) -> str:
    """Numbers for people: ``2``, ``1 to 3``, ``2 or more``."""
    if greatest == MANY:
        return f"{least} or more"
    return str(least) if least == greatest else f"{least} to {greatest}"
