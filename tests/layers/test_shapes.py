"""Random layers: the shape rule tells what the kernel makes, and refuses what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from mlferry.errors import MlferryError, SpecError
from mlferry.layers import definitions as shapes
from mlferry.layers.elementwise import definition as elementwise
from mlferry.layers.params import Params
from mlferry.layers.reduction import definition as reduction
from mlferry.spec.proto import neural_network_pb2 as nn
from tests.layers.case import network, run
from tests.layers.test_kernels import fits

Draw = Callable[[st.SearchStrategy[Any]], Any]
Layer = tuple[dict[str, Any], list[Any]]
Strategy = Callable[[Draw], Layer]
STRATEGIES: dict[str, Strategy] = {}


def strategy(*kinds: str) -> Callable[[Strategy], Strategy]:
    """Use a function that draws parameters and inputs for these kinds."""

    def decorate(function: Strategy) -> Strategy:
        STRATEGIES.update(dict.fromkeys(kinds, function))
        return function

    return decorate


def shape_of(draw: Draw, least: int = 1, most: int = 5, largest: int = 4) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.integers(1, largest), min_size=least, max_size=most)))


def number(draw: Draw, low: int, high: int) -> int:
    return int(draw(st.integers(low, high)))


def pair(draw: Draw, low: int, high: int) -> tuple[int, int]:
    return number(draw, low, high), number(draw, low, high)


def borders(draw: Draw) -> dict[str, Any]:
    edges = [
        {"startEdgeSize": number(draw, 0, 2), "endEdgeSize": number(draw, 0, 2)} for _ in range(2)
    ]
    return {"borderAmounts": edges}


def flag(draw: Draw) -> bool:
    return bool(draw(st.booleans()))


def zeros(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


def near(draw: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that often broadcasts with another."""
    tail = shape[number(draw, 0, len(shape) - 1) :]
    return tuple(draw(st.sampled_from([n, 1, n, 1, 3])) for n in tail)


@strategy("activation", "unary", *elementwise.UNARY, "fillLike", "copy", "getShape", "whereNonZero")
def unary(draw: Draw) -> Layer:
    return {}, [zeros(*shape_of(draw))]


@strategy(
    *elementwise.N_ARY,
    *elementwise.BROADCASTABLE,
    *elementwise.COMPARISONS,
    *elementwise.BINARY,
    "broadcastToLike",
)
def binary(draw: Draw) -> Layer:
    shape = shape_of(draw)
    inputs = [zeros(*shape), zeros(*near(draw, shape))]
    return {}, inputs if flag(draw) else inputs[::-1]


@strategy("whereBroadcastable")
def where(draw: Draw) -> Layer:
    shape = shape_of(draw)
    return {}, [zeros(*near(draw, shape)), zeros(*shape), zeros(*near(draw, shape))]


@strategy(*reduction.REDUCTIONS)
def reduce_nd(draw: Draw) -> Layer:
    shape = shape_of(draw)
    axes = draw(st.lists(st.integers(-len(shape), len(shape)), max_size=3))
    return {"axes": axes, "keepDims": flag(draw), "reduceAll": flag(draw)}, [zeros(*shape)]


@strategy("reduce")
def reduce_(draw: Draw) -> Layer:
    modes = nn.ReduceLayerParams.ReduceOperation.keys()
    axes = nn.ReduceLayerParams.ReduceAxis.keys()
    params = {"mode": draw(st.sampled_from(modes)), "axis": draw(st.sampled_from(axes))}
    return params, [zeros(*shape_of(draw))]


@strategy("softmax", "mvn", "l2normalize")
def across(draw: Draw) -> Layer:
    return {}, [zeros(*shape_of(draw))]


@strategy("lrn")
def lrn(draw: Draw) -> Layer:
    return {"localSize": number(draw, 0, 3)}, [zeros(*shape_of(draw))]


@strategy("softmaxND", "argSort", "cumSum", "argMax", "argMin", "flattenTo2D")
def along_axis(draw: Draw) -> Layer:
    shape = shape_of(draw)
    return {"axis": number(draw, -len(shape) - 1, len(shape))}, [zeros(*shape)]


@strategy("convolution")
def convolution(draw: Draw) -> Layer:
    groups, per_in, per_out = (number(draw, 1, 2) for _ in range(3))
    channels, out = groups * per_in, groups * per_out
    kernel, turned = pair(draw, 1, 3), flag(draw)
    stored = (channels, per_out, *kernel) if turned else (out, per_in, *kernel)
    params: dict[str, Any] = {
        "outputChannels": out, "kernelChannels": channels if turned else per_in,
        "nGroups": groups, "kernelSize": kernel, "stride": pair(draw, 1, 3),
        "dilationFactor": pair(draw, 1, 2), "isDeconvolution": turned, "weights": zeros(*stored),
    }  # fmt: skip
    if flag(draw):
        heavy = draw(st.sampled_from(["BOTTOM_RIGHT_HEAVY", "TOP_LEFT_HEAVY"]))
        params["same"] = {"asymmetryMode": heavy}
    else:
        params["valid"] = {"paddingAmounts": borders(draw)}
    if turned and flag(draw):
        params["outputShape"] = pair(draw, 1, 9)
    lead = shape_of(draw, 1, 2, 2)
    return params, [zeros(*lead, channels, *pair(draw, 1, 6))]


@strategy("pooling")
def pooling(draw: Draw) -> Layer:
    params: dict[str, Any] = {
        "type": draw(st.sampled_from(["MAX", "AVERAGE", "L2"])),
        "kernelSize": pair(draw, 1, 4), "stride": pair(draw, 1, 4),
        "globalPooling": draw(st.sampled_from([False, False, True])),
        "avgPoolExcludePadding": flag(draw),
    }  # fmt: skip
    mode = draw(st.sampled_from(["same", "valid", "includeLastPixel"]))
    params[mode] = {
        "same": {},
        "valid": {"paddingAmounts": borders(draw)},
        "includeLastPixel": {"paddingAmounts": pair(draw, 0, 2)},
    }[mode]
    return params, [zeros(*shape_of(draw, 2, 3, 2), *pair(draw, 1, 7))]


@strategy("padding")
def padding(draw: Draw) -> Layer:
    kind = draw(st.sampled_from(["constant", "replication", "reflection"]))
    return {kind: {}, "paddingAmounts": borders(draw)}, [zeros(*shape_of(draw))]


@strategy("crop")
def crop(draw: Draw) -> Layer:
    shape = shape_of(draw, 3, 5, 5)
    if flag(draw):
        return {"cropAmounts": borders(draw)}, [zeros(*shape)]
    like = (*shape[:-2], *(number(draw, 1, n) for n in shape[-2:]))
    offset = pair(draw, 0, 4)
    return {"offset": offset}, [zeros(*shape), zeros(*like)]


@strategy("upsample")
def upsample(draw: Draw) -> Layer:
    params: dict[str, Any] = {"mode": draw(st.sampled_from(["NN", "BILINEAR"]))}
    if flag(draw):
        factor = st.floats(1, 3, width=32)
        params["fractionalScalingFactor"] = (draw(factor), draw(factor))
    else:
        params["scalingFactor"] = pair(draw, 1, 3)
    return params, [zeros(*shape_of(draw))]


@strategy("resizeBilinear")
def resize(draw: Draw) -> Layer:
    modes = nn.SamplingMode.Method.keys()
    params = {
        "targetSize": pair(draw, 0, 5),
        "mode": {"samplingMethod": draw(st.sampled_from(modes))},
    }
    return params, [zeros(*shape_of(draw))]


@strategy("cropResize")
def crop_resize(draw: Draw) -> Layer:
    boxes = zeros(number(draw, 1, 3), 1, number(draw, 3, 5), 1, 1)
    image = zeros(1, *shape_of(draw, 4, 4))
    return {"targetSize": pair(draw, 1, 4)}, [image, boxes]


@strategy("innerProduct")
def inner_product(draw: Draw) -> Layer:
    shape, out = shape_of(draw), number(draw, 1, 3)
    size = int(np.prod(shape[-3:])) if len(shape) > 3 else shape[-1]
    size += draw(st.sampled_from([0, 0, 0, 1]))
    params = {"inputChannels": size, "outputChannels": out, "weights": zeros(out, size)}
    return params, [zeros(*shape)]


@strategy("batchedMatmul")
def batched_matmul(draw: Draw) -> Layer:
    turned_left, turned_right = flag(draw), flag(draw)
    inner = number(draw, 1, 3)
    left, right = [number(draw, 1, 3), inner], [inner, number(draw, 1, 3)]
    lead = shape_of(draw, 0, 2)
    left = left[::-1] if turned_left else left
    right = right[::-1] if turned_right else right
    a = [inner] if flag(draw) and not turned_left else [*lead, *left]
    b = [inner] if flag(draw) and not turned_right else [*lead[number(draw, 0, 2) :], *right]
    return {"transposeA": turned_left, "transposeB": turned_right}, [zeros(*a), zeros(*b)]


@strategy("dot")
def dot(draw: Draw) -> Layer:
    shape = (*shape_of(draw, 1, 3), 1, draw(st.sampled_from([1, 1, 2])))
    return {"cosineSimilarity": flag(draw)}, [zeros(*shape), zeros(*shape)]


def _embedding(draw: Draw) -> Layer:
    params = {"inputDim": 3, "outputChannels": 2, "weights": zeros(2, 3)}
    return params, [zeros(*shape_of(draw, 1, 2), 1, 1, 1)]


def _embedding_nd(draw: Draw) -> Layer:
    params = {"vocabSize": 3, "embeddingSize": 2, "weights": zeros(2, 3)}
    return params, [zeros(*shape_of(draw, 1, 4), 1)]


STRATEGIES |= {"embedding": _embedding, "embeddingND": _embedding_nd}


@strategy("batchnorm")
def batchnorm(draw: Draw) -> Layer:
    shape = shape_of(draw, 3, 5)
    weights = {name: zeros(shape[-3]) for name in ("gamma", "beta", "mean", "variance")}
    return {"channels": shape[-3], "computeMeanVar": flag(draw), **weights}, [zeros(*shape)]


def _per_channel(draw: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    return draw(st.sampled_from([(1,), shape[-3:-2], shape[-3:], (1, *shape[-2:])]))


def _scale(draw: Draw) -> Layer:
    shape = shape_of(draw, 3, 5)
    stored = _per_channel(draw, shape)
    return {"shapeScale": stored, "scale": zeros(*stored)}, [zeros(*shape)]


def _bias(draw: Draw) -> Layer:
    shape = shape_of(draw, 3, 5)
    stored = _per_channel(draw, shape)
    return {"shape": stored, "bias": zeros(*stored)}, [zeros(*shape)]


STRATEGIES |= {"scale": _scale, "bias": _bias}


@strategy("layerNormalization")
def layer_normalization(draw: Draw) -> Layer:
    shape = shape_of(draw)
    inner = shape[number(draw, 0, len(shape) - 1) :]
    params = {"normalizedShape": inner, "gamma": zeros(*inner), "beta": zeros(*inner)}
    return params, [zeros(*shape)]


@strategy("transpose")
def transpose(draw: Draw) -> Layer:
    shape = shape_of(draw)
    return {"axes": draw(st.permutations(range(len(shape))))}, [zeros(*shape)]


@strategy("permute")
def permute(draw: Draw) -> Layer:
    return {"axis": draw(st.permutations(range(4)))}, [zeros(*shape_of(draw, 5))]


def target(draw: Draw, size: int, rank: int) -> list[int]:
    """A shape of about so many elements, where -1 may stand for one extent."""
    matches = []
    for _ in range(rank - 1):
        factor = draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
        matches.append(factor)
        size //= factor
    matches.append(size + draw(st.sampled_from([0, 0, 0, 0, 1])))
    if flag(draw):
        matches[number(draw, 0, rank - 1)] = -1
    return matches


def _reshape_static(draw: Draw) -> Layer:
    shape = shape_of(draw)
    return {"targetShape": target(draw, int(np.prod(shape)), number(draw, 1, 5))}, [zeros(*shape)]


def _reshape_dynamic(draw: Draw) -> Layer:
    params, inputs = _reshape_static(draw)
    rest = int(np.prod(inputs[0].shape))
    expected = [n for n in params["targetShape"] if n != -1]
    fitting = params["targetShape"] if rest == np.prod(expected) else [-1]
    return {}, [*inputs, np.array(fitting)]


STRATEGIES |= {"reshapeStatic": _reshape_static, "reshapeDynamic": _reshape_dynamic}


@strategy("reshapeLike")
def reshape_like(draw: Draw) -> Layer:
    shape = shape_of(draw)
    return {}, [
        zeros(*shape),
        zeros(*draw(st.sampled_from([shape[::-1], (int(np.prod(shape)),), (2,)]))),
    ]


@strategy("rankPreservingReshape")
def rank_preserving_reshape(draw: Draw) -> Layer:
    shape = shape_of(draw)
    expected = [draw(st.sampled_from([0, n])) for n in shape]
    if flag(draw):
        expected[number(draw, 0, len(shape) - 1)] = -1
    return {"targetShape": expected}, [zeros(*shape)]


@strategy("reshape")
def reshape(draw: Draw) -> Layer:
    shape = shape_of(draw, 5, 5, 3)
    last = draw(st.sampled_from(["CHANNEL_FIRST", "CHANNEL_LAST"]))
    if flag(draw):
        return {"targetShape": target(draw, int(np.prod(shape[2:])), 3), "mode": last}, [
            zeros(*shape)
        ]
    size = shape[0] * int(np.prod(shape[2:]))
    return {"targetShape": target(draw, size, 4), "mode": last}, [zeros(*shape)]


@strategy("flatten")
def flatten(draw: Draw) -> Layer:
    mode = draw(st.sampled_from(["CHANNEL_FIRST", "CHANNEL_LAST"]))
    return {"mode": mode}, [zeros(*shape_of(draw))]


@strategy("squeeze")
def squeeze(draw: Draw) -> Layer:
    shape = shape_of(draw, largest=2)
    axes = draw(st.lists(st.integers(-len(shape), len(shape)), max_size=3))
    return {"axes": axes, "squeezeAll": flag(draw)}, [zeros(*shape)]


@strategy("expandDims")
def expand_dims(draw: Draw) -> Layer:
    axes = draw(st.lists(st.integers(-4, 4), max_size=3))
    return {"axes": axes}, [zeros(*shape_of(draw, 1, 3))]


@strategy("reorganizeData")
def reorganize_data(draw: Draw) -> Layer:
    block = number(draw, 1, 3)
    modes = nn.ReorganizeDataLayerParams.ReorganizationType.keys()
    lead = shape_of(draw, 0, 2, 2)
    sizes = number(draw, 1, 2) * block**2, number(draw, 1, 3) * block, number(draw, 1, 3) * block
    params = {"mode": draw(st.sampled_from(modes)), "blockSize": block}
    return params, [zeros(*lead, *sizes)]


@strategy("constantPad")
def constant_pad(draw: Draw) -> Layer:
    shape, up_to = shape_of(draw), flag(draw)
    amounts = [number(draw, 0, 5) for _ in range(2 * len(shape))]
    if up_to:
        amounts = [0 if k % 2 == number(draw, 0, 1) else n for k, n in enumerate(amounts)]
        amounts = [0 if k % 2 and amounts[k - 1] else n for k, n in enumerate(amounts)]
    return {"padAmounts": amounts, "padToGivenOutputSizeMode": up_to}, [zeros(*shape)]


def joined(draw: Draw, shape: tuple[int, ...], axis: int) -> list[Any]:
    result = []
    for _ in range(number(draw, 1, 3)):
        other = list(shape)
        other[axis] = number(draw, 1, 3)
        result.append(zeros(*other))
    return result


@strategy("concat")
def concat(draw: Draw) -> Layer:
    shape = shape_of(draw, 3, 5)
    sequence = len(shape) == 5 and flag(draw)
    return {"sequenceConcat": sequence}, joined(draw, shape, -5 if sequence else -3)


@strategy("concatND")
def concat_nd(draw: Draw) -> Layer:
    shape = shape_of(draw)
    axis = number(draw, -len(shape), len(shape) - 1)
    return {"axis": axis, "interleave": flag(draw)}, joined(draw, shape, axis)


@strategy("stack")
def stack(draw: Draw) -> Layer:
    shape = shape_of(draw, 1, 4)
    axis = number(draw, -len(shape) - 2, len(shape) + 1)
    return {"axis": axis}, [zeros(*shape)] * number(draw, 1, 3)


@strategy("tile")
def tile(draw: Draw) -> Layer:
    shape = shape_of(draw, largest=3)
    return {"reps": draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))}, [zeros(*shape)]


@strategy("split")
def split(draw: Draw) -> Layer:
    return {"nOutputs": number(draw, 1, 3)}, [zeros(*shape_of(draw, 2))]


@strategy("splitND")
def split_nd(draw: Draw) -> Layer:
    shape = shape_of(draw)
    params: dict[str, Any] = {"axis": number(draw, -len(shape), len(shape) - 1)}
    if flag(draw):
        params["numSplits"] = number(draw, 1, 3)
    else:
        params["splitSizes"] = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    return params, [zeros(*shape)]


@strategy("loadConstant", "loadConstantND")
def constant(draw: Draw) -> Layer:
    shape = shape_of(draw, 3, 3)
    return {"shape": shape, "data": zeros(*shape)}, []


@strategy("sequenceRepeat")
def sequence_repeat(draw: Draw) -> Layer:
    return {"nRepetitions": number(draw, 0, 3)}, [zeros(*shape_of(draw, 4))]


@strategy("slice")
def slice_(draw: Draw) -> Layer:
    axes = nn.SliceLayerParams.SliceAxis.keys()
    params = {
        "startIndex": number(draw, -4, 4), "endIndex": number(draw, -4, 4),
        "stride": number(draw, 1, 3), "axis": draw(st.sampled_from(axes)),
    }  # fmt: skip
    return params, [zeros(*shape_of(draw))]


def slicing(draw: Draw, rank: int) -> dict[str, Any]:
    def per_axis(values: st.SearchStrategy[Any]) -> Any:
        return draw(st.lists(values, min_size=rank, max_size=rank))

    return {
        "beginIds": per_axis(st.integers(-4, 4)), "beginMasks": per_axis(st.booleans()),
        "endIds": per_axis(st.integers(-4, 4)), "endMasks": per_axis(st.booleans()),
        "strides": per_axis(st.sampled_from([-2, -1, 1, 2])),
        "squeezeMasks": per_axis(st.sampled_from([False, False, True])),
    }  # fmt: skip


@strategy("sliceStatic")
def slice_static(draw: Draw) -> Layer:
    shape = shape_of(draw)
    return slicing(draw, len(shape)), [zeros(*shape)]


@strategy("sliceDynamic")
def slice_dynamic(draw: Draw) -> Layer:
    shape = shape_of(draw)
    params = slicing(draw, len(shape))
    params["squeezeMasks"] = [False] * len(shape)
    dynamic = [params.pop("beginIds")]
    for name in ("endIds", "strides", "beginMasks", "endMasks", "squeezeMasks"):
        if not flag(draw):
            break
        dynamic.append(params.pop(name))
    return params, [zeros(*shape), *map(np.array, dynamic)]


@strategy("sliceBySize")
def slice_by_size(draw: Draw) -> Layer:
    shape = shape_of(draw)
    axis = number(draw, -len(shape), len(shape) - 1)
    return {"axis": axis, "size": number(draw, 1, 5)}, [zeros(*shape), zeros(1)]


@strategy("slidingWindows")
def sliding_windows(draw: Draw) -> Layer:
    shape = shape_of(draw, 1, 4)
    params = {
        "axis": number(draw, -len(shape), len(shape) - 1), "windowSize": number(draw, 1, 5),
        "step": number(draw, 1, 3),
    }  # fmt: skip
    return params, [zeros(*shape)]


@strategy("gather")
def gather(draw: Draw) -> Layer:
    shape = shape_of(draw, 1, 3)
    axis = number(draw, -len(shape), len(shape) - 1)
    return {"axis": axis}, [zeros(*shape), zeros(*shape_of(draw, 1, 2))]


@strategy("scatter")
def scatter(draw: Draw) -> Layer:
    shape, indices = shape_of(draw, 1, 3), shape_of(draw, 1, 2)
    axis = number(draw, 0, len(shape) - 1)
    updates = (*shape[:axis], *indices, *shape[axis + 1 :])
    updates = draw(st.sampled_from([updates, updates, (*updates, 1)]))
    return {"axis": axis}, [zeros(*shape), zeros(*indices), zeros(*updates)]


def _points(draw: Draw) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return shape_of(draw, 1, 3), (*shape_of(draw, 0, 2), number(draw, 1, 4))


@strategy("gatherND")
def gather_nd(draw: Draw) -> Layer:
    shape, indices = _points(draw)
    return {}, [zeros(*shape), zeros(*indices)]


@strategy("scatterND")
def scatter_nd(draw: Draw) -> Layer:
    shape, indices = _points(draw)
    updates = (*indices[:-1], *shape[indices[-1] :]) or (1,)
    return {}, [zeros(*shape), zeros(*indices), zeros(*updates)]


def _gather_along(draw: Draw) -> Layer:
    shape = shape_of(draw)
    axis = number(draw, -len(shape), len(shape) - 1)
    indices = list(shape)
    indices[axis] = number(draw, 1, 5)
    return {"axis": axis}, [zeros(*shape), zeros(*indices)]


def _scatter_along(draw: Draw) -> Layer:
    params, (x, indices) = _gather_along(draw)
    return params, [x, indices, zeros(*indices.shape)]


STRATEGIES |= {"gatherAlongAxis": _gather_along, "scatterAlongAxis": _scatter_along}


@strategy("oneHot")
def one_hot(draw: Draw) -> Layer:
    shape = shape_of(draw, 1, 4)
    axis = number(draw, -len(shape) - 1, len(shape))
    return {"axis": axis, "oneHotVectorSize": number(draw, 1, 4)}, [zeros(*shape)]


@strategy("topK")
def top_k(draw: Draw) -> Layer:
    shape = shape_of(draw)
    axis = number(draw, -len(shape), len(shape) - 1)
    return {"axis": axis, "K": number(draw, 0, 4), "useBottomK": flag(draw)}, [zeros(*shape)]


@strategy("reverse")
def reverse(draw: Draw) -> Layer:
    return {"reverseDim": draw(st.lists(st.booleans(), max_size=5))}, [zeros(*shape_of(draw))]


@strategy("reverseSeq")
def reverse_seq(draw: Draw) -> Layer:
    shape = shape_of(draw, 2)
    batch, sequence = number(draw, 0, len(shape) - 1), number(draw, 0, len(shape) - 1)
    return {"batchAxis": batch, "sequenceAxis": sequence}, [zeros(*shape), zeros(shape[batch])]


@strategy("matrixBandPart", "lowerTriangular", "upperTriangular")
def matrices(draw: Draw) -> Layer:
    return {}, [zeros(*shape_of(draw))]


def _broadcast_static(draw: Draw) -> Layer:
    shape = shape_of(draw)
    return {"targetShape": shape}, [zeros(*near(draw, shape))]


STRATEGIES |= {
    "fillStatic": lambda draw: ({"targetShape": shape_of(draw)}, []),
    "broadcastToStatic": _broadcast_static,
    "broadcastToDynamic": lambda draw: ({}, [zeros(1), np.array(shape_of(draw))]),
}


@strategy("fillDynamic", "randomNormalDynamic", "randomUniformDynamic", "randomBernoulliDynamic")
def dynamic_target(draw: Draw) -> Layer:
    return {}, [np.array(shape_of(draw))]


@strategy("randomNormalStatic", "randomUniformStatic", "randomBernoulliStatic")
def random_static(draw: Draw) -> Layer:
    return {"outputShape": shape_of(draw)}, []


@strategy("randomNormalLike", "randomUniformLike", "randomBernoulliLike", "categoricalDistribution")
def random_like(draw: Draw) -> Layer:
    return {}, [zeros(*shape_of(draw))]


@strategy("rangeStatic")
def range_static(draw: Draw) -> Layer:
    numbers = st.floats(-5, 5, width=32)
    step = draw(st.floats(0.125, 3, width=32)) * draw(st.sampled_from([-1, 1]))
    ends = {"startValue": draw(numbers), "endValue": draw(numbers)}
    return {**ends, "stepSizeValue": step}, []


@strategy("rangeDynamic")
def range_dynamic(draw: Draw) -> Layer:
    return {}, [np.array([number(draw, 0, 5)])]


def volume(draw: Draw) -> dict[str, Any]:
    params: dict[str, Any] = {"paddingType": draw(st.sampled_from(["CUSTOM", "VALID", "SAME"]))}
    for axis in ("Depth", "Height", "Width"):
        params["kernel" + axis] = number(draw, 1, 3)
        params["stride" + axis] = number(draw, 1, 2)
    for side in ("Front", "Back", "Top", "Bottom", "Left", "Right"):
        params["customPadding" + side] = number(draw, 0, 1)
    return params


@strategy("pooling3d")
def pooling3d(draw: Draw) -> Layer:
    kind = draw(st.sampled_from(["MAX", "AVERAGE"]))
    return {"type": kind, **volume(draw)}, [zeros(*shape_of(draw, 4))]


@strategy("globalPooling3d")
def global_pooling3d(draw: Draw) -> Layer:
    return {}, [zeros(*shape_of(draw, 4))]


@strategy("convolution3d")
def convolution3d(draw: Draw) -> Layer:
    params, turned, groups = volume(draw), flag(draw), number(draw, 1, 2)
    kernel = [params["kernel" + axis] for axis in ("Depth", "Height", "Width")]
    stored = (2, 4 // groups) if turned else (4, 2 // groups)
    params |= {
        "inputChannels": 2, "outputChannels": 4, "nGroups": groups, "isDeconvolution": turned,
        "weights": zeros(*stored, *kernel),
    }  # fmt: skip
    if turned and flag(draw):
        params["outputShape"] = [number(draw, 1, 6) for _ in range(3)]
    return params, [zeros(number(draw, 1, 2), 2, *shape_of(draw, 3, 3))]


@strategy("NonMaximumSuppression")
def suppression(draw: Draw) -> Layer:
    batch, count = pair(draw, 1, 4)
    boxes, scores = zeros(batch, count, 4), zeros(batch, count, number(draw, 1, 3))
    return {"maxBoxes": number(draw, 1, 5), "perClassSuppression": flag(draw)}, [boxes, scores]


def states(draw: Draw, count: int, units: int, batch: int) -> list[Any]:
    return [zeros(1, batch, units, 1, 1)] * draw(st.sampled_from([0, count]))


def sizes(draw: Draw) -> tuple[dict[str, Any], Any, int, int]:
    steps, batch, size, units = (number(draw, 1, 3) for _ in range(4))
    params = {"inputVectorSize": size, "outputVectorSize": units}
    return params, zeros(steps, batch, size, 1, 1), units, batch


@strategy("simpleRecurrent")
def simple_recurrent(draw: Draw) -> Layer:
    params, x, units, batch = sizes(draw)
    params |= {
        "activation": {"tanh": {}}, "sequenceOutput": flag(draw),
        "weightMatrix": zeros(units, x.shape[2]), "recursionMatrix": zeros(units, units),
    }  # fmt: skip
    return params, [x, *states(draw, 1, units, batch)]


@strategy("gru")
def gru(draw: Draw) -> Layer:
    params, x, units, batch = sizes(draw)
    params |= {"activations": [{"sigmoid": {}}, {"tanh": {}}], "sequenceOutput": flag(draw)}
    for gate in ("update", "reset", "output"):
        params[f"{gate}GateWeightMatrix"] = zeros(units, x.shape[2])
        params[f"{gate}GateRecursionMatrix"] = zeros(units, units)
    return params, [x, *states(draw, 1, units, batch)]


def lstm_weights(units: int, size: int) -> dict[str, Any]:
    gates = ("inputGate", "forgetGate", "blockInput", "outputGate")
    return {f"{gate}WeightMatrix": zeros(units, size) for gate in gates} | {
        f"{gate}RecursionMatrix": zeros(units, units) for gate in gates
    }


@strategy("uniDirectionalLSTM")
def lstm(draw: Draw) -> Layer:
    params, x, units, batch = sizes(draw)
    params |= {
        "activations": [{"sigmoid": {}}, {"tanh": {}}, {"tanh": {}}],
        "params": {"sequenceOutput": flag(draw)}, "weightParams": lstm_weights(units, x.shape[2]),
    }  # fmt: skip
    return params, [x, *states(draw, 2, units, batch)]


@strategy("biDirectionalLSTM")
def bidirectional_lstm(draw: Draw) -> Layer:
    params, x, units, batch = sizes(draw)
    params |= {
        "activationsForwardLSTM": [{"sigmoid": {}}, {"tanh": {}}, {"tanh": {}}],
        "params": {"sequenceOutput": flag(draw)},
        "weightParams": [lstm_weights(units, x.shape[2])] * 2,
    }
    return params, [x, *states(draw, 4, units, batch)]


OUTPUTS = {
    "topK": 2, "NonMaximumSuppression": 4, "simpleRecurrent": 2, "gru": 2,
    "uniDirectionalLSTM": 3, "biDirectionalLSTM": 5,
}  # fmt: skip


def outputs(params: dict[str, Any]) -> int:
    """How many outputs a layer of one of the other kinds has."""
    many = params.get("splitSizes", ())
    return len(many) or params.get("numSplits", 0) or params.get("nOutputs", 1)


@pytest.mark.parametrize("kind", sorted(STRATEGIES))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_rule_and_kernel_agree(kind: str, data: st.DataObject) -> None:
    params, inputs = STRATEGIES[kind](data.draw)
    count = OUTPUTS.get(kind, outputs(params))
    model = network(kind, params, len(inputs), count)
    try:
        inferred = shapes.infer(Params.of(model.layers[0]), [x.shape for x in inputs])
    except SpecError:
        with pytest.raises(MlferryError):
            run(model, inputs)
        return
    actual = run(model, inputs)
    if inferred is None:
        assert kind == "sliceDynamic"
        return
    assert len(inferred) == len(actual)
    assert all(map(fits, inferred, [y.shape for y in actual])), (inferred, params)


def test_every_kind_has_a_strategy() -> None:
    elsewhere = {"branch", "loop", "loopBreak", "loopContinue", "custom"}
    assert set(shapes.DEFINITIONS) - set(STRATEGIES) == elsewhere
