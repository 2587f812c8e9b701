"""Rules about the parameters of single layer kinds."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from mlferry.spec.proto import neural_network_pb2 as nn
from mlferry.spec.validate.rules import Problems, error, layer_rule, show, warning

POSITIVE: dict[str, tuple[str, ...]] = {
    "convolution": ("outputChannels",),
    "innerProduct": ("inputChannels", "outputChannels"),
    "embedding": ("inputDim", "outputChannels"),
    "embeddingND": ("vocabSize", "embeddingSize"),
    "batchnorm": ("channels",),
    "lrn": ("localSize",),
    "split": ("nOutputs",),
    "slice": ("stride",),
    "reorganizeData": ("blockSize",),
    "simpleRecurrent": ("inputVectorSize", "outputVectorSize"),
    "gru": ("inputVectorSize", "outputVectorSize"),
    "uniDirectionalLSTM": ("inputVectorSize", "outputVectorSize"),
    "biDirectionalLSTM": ("inputVectorSize", "outputVectorSize"),
    "slidingWindows": ("windowSize", "step"),
    "categoricalDistribution": ("numSamples",),
    "sliceBySize": ("size",),
    "pooling3d": (
        "kernelDepth", "kernelHeight", "kernelWidth", "strideDepth", "strideHeight",
        "strideWidth",
    ),
    "convolution3d": ("inputChannels", "outputChannels"),
}  # fmt: skip
POSITIVE_WITHOUT_SECOND_INPUT: dict[str, tuple[str, ...]] = {
    "convolution": ("kernelChannels",),
    "batchedMatmul": ("weightMatrixFirstDimension", "weightMatrixSecondDimension"),
    "topK": ("K",),
    "oneHot": ("oneHotVectorSize",),
}


@layer_rule(*{*POSITIVE, *POSITIVE_WITHOUT_SECOND_INPUT})
def sizes_are_positive(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """Sizes without a default are at least 1."""
    kind = layer.WhichOneof("layer") or ""
    fields = POSITIVE.get(kind, ())
    if len(layer.input) < 2:
        fields += POSITIVE_WITHOUT_SECOND_INPUT.get(kind, ())
    for field in fields:
        if getattr(params, field) < 1:
            yield error(f"{field} is {getattr(params, field)}; it must be at least 1")


class Entries(NamedTuple):
    """How many entries a list may have, and how small one may be."""

    lengths: tuple[int, ...]
    least: float = -math.inf

    def __str__(self) -> str:
        return " or ".join(map(str, self.lengths))


TWO_OR_DEFAULT = Entries((0, 2), 1)
_SHAPE = Entries(tuple(range(1, 6)), 0)
LISTS: dict[str, dict[str, Entries]] = {
    "convolution": dict.fromkeys(
        ("kernelSize", "stride", "dilationFactor", "outputShape"), TWO_OR_DEFAULT
    ),
    "upsample": {
        "scalingFactor": TWO_OR_DEFAULT,
        "fractionalScalingFactor": Entries((0, 2), math.ulp(0.0)),
    },
    "resizeBilinear": {"targetSize": TWO_OR_DEFAULT},
    "cropResize": {"targetSize": TWO_OR_DEFAULT},
    "scale": {"shapeScale": Entries((1, 3), 1)},
    "bias": {"shape": Entries((1, 3), 1)},
    "loadConstant": {"shape": Entries((3,), 1)},
    "loadConstantND": {"shape": _SHAPE},
    "reshape": {"targetShape": Entries((3, 4), 1)},
    "permute": {"axis": Entries((4,))},
    "transpose": {"axes": Entries(tuple(range(1, 6)))},
    "reshapeStatic": {"targetShape": _SHAPE._replace(least=-1)},
    "rankPreservingReshape": {"targetShape": _SHAPE._replace(least=-1)},
    "fillStatic": {"targetShape": _SHAPE},
    "broadcastToStatic": {"targetShape": _SHAPE},
    "randomNormalStatic": {"outputShape": _SHAPE},
    "randomUniformStatic": {"outputShape": _SHAPE},
    "randomBernoulliStatic": {"outputShape": _SHAPE},
    "layerNormalization": {"normalizedShape": _SHAPE._replace(least=1)},
    "convolution3d": {"outputShape": Entries((0, 3), 1)},
}


@layer_rule(*LISTS)
def lists_have_their_length(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """Lists have a length that is allowed, and entries that make sense.

    More than 5 axes are no error: it is devices that end there.
    """
    for field, wanted in LISTS[layer.WhichOneof("layer") or ""].items():
        yield from check_list(params, field, wanted)


def check_list(params: Any, field: str, wanted: Entries) -> Problems:
    """Check one list against what is wanted."""
    values = getattr(params, field)
    if len(values) not in wanted.lengths:
        text = f"{field} has {len(values)} entries; possible are {wanted}"
        yield warning(text) if len(values) > max(wanted.lengths) == 5 else error(text)
    if any(not value >= wanted.least for value in values):
        least = "above 0" if 0 < wanted.least < 1 else f"at least {wanted.least}"
        yield error(f"{field} is {show(values)}; entries must be {least}")


# ---- values -----------------------------------------------------------------------------------


@layer_rule("activation")
def activation(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """The function is told."""
    if params.WhichOneof("NonlinearityType") is None:
        yield error("NonlinearityType is not set")


@layer_rule("upsample")
def upsample(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """One kind of factor; linear modes only with BILINEAR, and fractions only with them."""
    if params.scalingFactor and params.fractionalScalingFactor:
        yield error("scalingFactor and fractionalScalingFactor are both set")
    linear = params.mode == nn.UpsampleLayerParams.BILINEAR and params.linearUpsampleMode
    if params.fractionalScalingFactor and not linear:
        yield warning(
            "fractionalScalingFactor needs mode BILINEAR and a linearUpsampleMode other than "
            "DEFAULT"
        )
    if params.linearUpsampleMode and not linear:
        yield warning("linearUpsampleMode is set, but mode is not BILINEAR")


@layer_rule("lrn")
def lrn(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """k is positive."""
    if params.k < 0:
        yield warning(f"k is {params.k:g}; it must be positive")


@layer_rule("reorganizeData")
def reorganize_data(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """Blocks are larger than a pixel."""
    if params.blockSize == 1:
        yield warning("blockSize is 1; it must be at least 2")


@layer_rule("clip", "randomUniformLike", "randomUniformStatic", "randomUniformDynamic")
def range_of_values(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """The lower bound is not above the upper."""
    if params.minVal > params.maxVal:
        yield warning(f"minVal {params.minVal:g} is above maxVal {params.maxVal:g}")


@layer_rule("randomBernoulliLike", "randomBernoulliStatic", "randomBernoulliDynamic")
def probability(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """A probability is in 0..1."""
    if not 0 <= params.prob <= 1:
        yield warning(f"prob is {params.prob:g}; it must be from 0 to 1")


# ---- axes and slices --------------------------------------------------------------------------


@layer_rule("permute", "transpose")
def permutation(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """Each axis is there once."""
    axes = list(params.axis if layer.HasField("permute") else params.axes)
    if sorted(axes) != list(range(len(axes))):
        yield error(f"{show(axes)} is no permutation of the axes 0 to {len(axes) - 1}")


@layer_rule("squeeze", "expandDims")
def axes_are_given(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """Axes are told, each once."""
    if layer.HasField("squeeze") and params.squeezeAll:
        return
    if not params.axes:
        yield warning("axes is empty")
    elif len(set(params.axes)) < len(params.axes):
        text = f"axes {show(params.axes)} name one axis twice"
        yield error(text) if layer.HasField("expandDims") else warning(text)


@layer_rule("argSort")
def axis_counts_from_the_front(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """Here, negative axes are not supported."""
    if params.axis < 0:
        yield warning(f"axis is {params.axis}; here it must not be negative")


@layer_rule("reshapeStatic", "rankPreservingReshape")
def one_extent_is_left_open(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """At most one extent of a reshape takes what is left."""
    if list(params.targetShape).count(-1) > 1:
        yield error(f"targetShape is {show(params.targetShape)}; only one extent may be -1")


@layer_rule("rankPreservingReshape")
def ranks_are_given(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """This kind must tell the ranks of its blobs."""
    if not (layer.inputTensor and layer.outputTensor):
        yield warning("inputTensor and outputTensor must tell the ranks of its blobs")


@layer_rule("slice")
def slice_bounds(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """Something is left."""
    start, end = params.startIndex, params.endIndex
    if 0 < end < start or end < start < 0:
        yield error(f"endIndex {end} is before startIndex {start}")


@layer_rule("sliceStatic")
def slice_lists(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """Each axis has a begin, an end, a stride and masks; strides are not 0."""
    fields = ("beginIds", "endIds", "strides", "beginMasks", "endMasks")
    lengths = {field: len(getattr(params, field)) for field in fields}
    if params.squeezeMasks:
        lengths["squeezeMasks"] = len(params.squeezeMasks)
    if len(set(lengths.values())) > 1 or not lengths["beginIds"]:
        found = ", ".join(f"{field} {length}" for field, length in lengths.items())
        yield error(f"one entry for each axis is needed; found: {found}")
    yield from _strides(params)


@layer_rule("sliceDynamic")
def slice_dynamic_lists(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """What no input gives has one entry for each axis."""
    fields = ("endIds", "strides", "beginMasks", "endMasks", "squeezeMasks")
    stored = list(fields[max(0, len(layer.input) - 2) :])
    lengths = {field: len(getattr(params, field)) for field in stored}
    optional = ("beginMasks", "endMasks", "squeezeMasks")
    counted = {length for field, length in lengths.items() if length or field not in optional}
    if len(counted) > 1 or 0 in counted:
        found = ", ".join(f"{field} {length}" for field, length in lengths.items())
        yield error(f"one entry for each axis is needed; found: {found}")
    if "strides" in stored:
        yield from _strides(params)


def _strides(params: Any) -> Problems:
    if 0 in params.strides:
        yield error(f"strides is {show(params.strides)}; a stride is not 0")


@layer_rule("tile")
def tile(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """With one input, the repetitions are stored."""
    if len(layer.input) < 2 and not params.reps:
        yield error("reps is empty; with one input it tells the repetitions")


@layer_rule("split")
def split_outputs(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """As many parts as outputs."""
    if params.nOutputs != len(layer.output):
        yield error(f"nOutputs is {params.nOutputs}; it has {len(layer.output)} outputs")


@layer_rule("splitND")
def split_nd_outputs(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """As many parts as outputs."""
    sizes = params.splitSizes
    parts = len(sizes) or params.numSplits
    if parts != len(layer.output):
        what = f"splitSizes has {parts} entries" if sizes else f"numSplits is {parts}"
        yield error(f"{what}; it has {len(layer.output)} outputs")


# ---- custom layers, control flow ---------------------------------------------------------------


@layer_rule("custom")
def custom(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """The class is named; parameters have values."""
    if not params.className:
        yield error("className is empty; it names the class that evaluates the layer")
    for name in sorted(params.parameters):
        if params.parameters[name].WhichOneof("value") is None:
            yield warning(f"parameter {name!r} has no value")


@layer_rule("branch")
def branch(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """There is something to do."""
    if not params.ifBranch.layers:
        yield error("ifBranch has no layers")


@layer_rule("loop")
def loop(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """There is something to do, and an end to it."""
    condition = params.conditionNetwork.layers
    if not params.bodyNetwork.layers:
        yield error("bodyNetwork has no layers")
    if bool(condition) != bool(params.conditionVar):
        yield error(
            f"conditionVar is {params.conditionVar!r} and conditionNetwork has {len(condition)} "
            "layers; both are needed, or none"
        )
    if not (condition or params.maxLoopIterations or layer.input):
        yield error("nothing ends it: no input, no conditionNetwork, maxLoopIterations 0")


@layer_rule("copy")
def copy(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """A copy has another name."""
    if list(layer.input[:1]) == list(layer.output[:1]):
        yield warning(f"it copies {show(layer.input)} to itself")
