"""Models of one layer: sane ones of every kind, and ones that break the rules of their kind."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.layers import versions
from mlferry.layers.definitions import definition_of
from mlferry.spec import features, fields
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn

Model = model_pb2.Model
E, W, N = "error", "warning", "note"


def layer_model(
    kind: str, params: dict[str, Any], inputs: int | None = None, outputs: int | None = None
) -> Model:
    """A model of one layer, by default with the fewest inputs and outputs that it needs."""
    arity = definition_of(kind)
    spec = Model()
    network = spec.neuralNetwork
    network.arrayInputShapeMapping = nn.EXACT_ARRAY_MAPPING
    names = [f"x{i}" for i in range(arity.inputs[0] if inputs is None else inputs)]
    result = [f"y{i}" for i in range(arity.outputs[0] if outputs is None else outputs)]
    ranks = SANE_RANKS.get(kind, ())
    for index, name in enumerate(names or ["unused"]):
        rank = ranks[index] if index < len(ranks) else 5
        feature = features.multi_array((1,) * rank)
        spec.description.input.add(name=name).type.CopyFrom(feature)
    layer = network.layers.add(name="it", input=names, output=result)
    getattr(layer, kind).SetInParent()
    fields.fill(getattr(layer, kind), params)
    network.layers.add(input=["x0" if names else "unused"], output=["end"], name="end")
    network.layers[-1].round.SetInParent()
    spec.description.output.add(name="end").type.CopyFrom(features.multi_array(None))
    spec.specificationVersion = versions.required(spec)
    return spec


RELU: dict[str, Any] = {"ReLU": {}}
LSTM_FUNCTIONS = [{"sigmoid": {}}, {"tanh": {}}, {"tanh": {}}]
GATES = ("inputGate", "forgetGate", "blockInput", "outputGate")


def lstm_weights(out: int = 2, width: int = 3) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for gate in GATES:
        result[f"{gate}WeightMatrix"] = np.ones(out * width)
        result[f"{gate}RecursionMatrix"] = np.ones(out * out)
        result[f"{gate}BiasVector"] = np.ones(out)
    for gate in ("inputGate", "forgetGate", "outputGate"):
        result[f"{gate}PeepholeVector"] = np.ones(out)
    return result


SIZES = {"inputVectorSize": 3, "outputVectorSize": 2}
CONV = {"outputChannels": 2, "kernelChannels": 3, "kernelSize": [1, 2], "valid": {},
        "weights": np.ones(12), "hasBias": True, "bias": np.ones(2)}  # fmt: skip
DECONV = {"outputChannels": 4, "kernelChannels": 6, "nGroups": 2, "kernelSize": [1, 1],
          "same": {}, "isDeconvolution": True, "weights": np.ones(12)}  # fmt: skip
DENSE = {"inputChannels": 3, "outputChannels": 2, "weights": np.ones(6), "hasBias": True,
         "bias": np.ones(2)}  # fmt: skip
EMBED = {"inputDim": 3, "outputChannels": 2, "weights": np.ones(6)}
EMBED_ND = {"vocabSize": 3, "embeddingSize": 2, "weights": np.ones(6)}
MATMUL = {"weightMatrixFirstDimension": 3, "weightMatrixSecondDimension": 2,
          "weights": np.ones(6)}  # fmt: skip
NORM = {"channels": 2, **{name: np.ones(2) for name in ("gamma", "beta", "mean", "variance")}}
SCALE = {"shapeScale": [2, 1, 1], "scale": np.ones(2), "hasBias": True, "shapeBias": [2],
         "bias": np.ones(2)}  # fmt: skip
RNN = {**SIZES, "activation": {"tanh": {}}, "weightMatrix": np.ones(6),
       "recursionMatrix": np.ones(4), "hasBiasVector": True, "biasVector": np.ones(2)}  # fmt: skip
GRU = {**SIZES, "activations": [{"sigmoid": {}}, {"tanh": {}}], "hasBiasVectors": True}
for _gate in ("update", "reset", "output"):
    GRU[f"{_gate}GateWeightMatrix"] = np.ones(6)
    GRU[f"{_gate}GateRecursionMatrix"] = np.ones(4)
    GRU[f"{_gate}GateBiasVector"] = np.ones(2)
LSTM = {**SIZES, "activations": LSTM_FUNCTIONS, "weightParams": lstm_weights(),
        "params": {"hasBiasVectors": True, "hasPeepholeVectors": True}}  # fmt: skip
BILSTM = {**SIZES, "activationsForwardLSTM": LSTM_FUNCTIONS,
          "activationsBackwardLSTM": LSTM_FUNCTIONS, "params": {
              "hasBiasVectors": True, "hasPeepholeVectors": True},
          "weightParams": [lstm_weights(), lstm_weights()]}  # fmt: skip
CONV3D = {"inputChannels": 4, "outputChannels": 2, "nGroups": 2, "weights": np.ones(32),
          **{f"{what}{axis}": size for what, size in (("kernel", 2), ("stride", 1),
             ("dilation", 1)) for axis in ("Depth", "Height", "Width")}}  # fmt: skip
POOL3D = {f"{what}{axis}": 2 for what in ("kernel", "stride")
          for axis in ("Depth", "Height", "Width")}  # fmt: skip
LAYERNORM = {"normalizedShape": [2, 3], "gamma": np.ones(6), "beta": np.ones(6)}
SLICE = {"beginIds": [0, 1], "endIds": [1, 2], "strides": [1, 1], "beginMasks": [False, True],
         "endMasks": [False, False]}  # fmt: skip
INT8 = {"inputChannels": 3, "outputChannels": 2, "int8DynamicQuantize": True, "weights": {
    "int8RawValue": b"abcdef", "quantization": {
        "numberOfBits": 8, "linearQuantization": {"scale": [0.5]}}}}  # fmt: skip
# The ranks of inputs where they are not 5.
SANE_RANKS: dict[str, tuple[int, ...]] = {
    "convolution": (4, 4), "transpose": (2,), "sliceStatic": (2,), "constantPad": (1,),
    "broadcastToStatic": (1,), "fillDynamic": (1,), "randomNormalDynamic": (1,),
    "randomUniformDynamic": (1,), "randomBernoulliDynamic": (1,), "reshapeDynamic": (5, 1),
    "broadcastToDynamic": (5, 1), "scatter": (2, 1, 2), "NonMaximumSuppression": (3, 3),
    "reverseSeq": (5, 1),
}  # fmt: skip
SANE_PARAMS: dict[str, dict[str, Any]] = {
    "convolution": CONV, "innerProduct": DENSE, "embedding": EMBED, "embeddingND": EMBED_ND,
    "batchedMatmul": MATMUL, "batchnorm": NORM, "scale": SCALE, "simpleRecurrent": RNN,
    "gru": GRU, "uniDirectionalLSTM": LSTM, "biDirectionalLSTM": BILSTM,
    "convolution3d": CONV3D, "pooling3d": POOL3D, "layerNormalization": LAYERNORM,
    "bias": {"shape": [2], "bias": np.ones(2)},
    "loadConstant": {"shape": [1, 2, 3], "data": np.ones(6)},
    "loadConstantND": {"shape": [2, 3], "data": np.ones(6)},
    "activation": RELU, "pooling": {"valid": {}}, "lrn": {"localSize": 3},
    "crop": {"cropAmounts": {"borderAmounts": [{}, {}]}}, "padding": {"constant": {}},
    "reshape": {"targetShape": [1, 2, 3]}, "permute": {"axis": [0, 2, 1, 3]},
    "reverse": {"reverseDim": [True] * 5}, "reverseSeq": {"sequenceAxis": 1},
    "transpose": {"axes": [1, 0]}, "split": {"nOutputs": 2}, "splitND": {"numSplits": 2},
    "slice": {"stride": 1, "endIndex": -1}, "reorganizeData": {"blockSize": 2},
    "custom": {"className": "Mine", "weights": [np.ones(3), np.ones(2, np.uint8)],
               "parameters": {"a": {"boolValue": False}}},
    "branch": {"ifBranch": {"layers": [{"name": "in", "round": {}, "input": ["x0"],
                                        "output": ["in"]}]}},
    "loop": {"maxLoopIterations": 3, "bodyNetwork": {"layers": [
        {"name": "in", "loadConstantND": {"shape": [1], "data": [1]}, "output": ["in"]}]}},
    "tile": {"reps": [2]}, "topK": {"K": 3}, "oneHot": {"oneHotVectorSize": 3},
    "sliceStatic": SLICE,
    "sliceDynamic": {"endIds": [1], "strides": [1], "beginMasks": [True], "endMasks": [False]},
    "slidingWindows": {"windowSize": 2, "step": 1}, "sliceBySize": {"size": 2},
    "fillStatic": {"targetShape": [2]}, "broadcastToStatic": {"targetShape": [2]},
    "squeeze": {"squeezeAll": True}, "expandDims": {"axes": [0]},
    "reshapeStatic": {"targetShape": [2, -1]}, "rankPreservingReshape": {"targetShape": [0, -1]},
    "constantPad": {"padAmounts": [1, 2]}, "categoricalDistribution": {"numSamples": 1},
    "randomNormalStatic": {"outputShape": [2]}, "randomUniformStatic": {"outputShape": [2]},
    "randomBernoulliStatic": {"outputShape": [2]},
}  # fmt: skip

MORE_SANE: list[tuple[str, str, dict[str, Any], int]] = [
    ("weights as an input", "convolution", {"outputChannels": 2, "kernelChannels": 1, "valid": {}},
     2),
    ("deconvolution", "convolution", DECONV, 1),
    ("deconvolution with a shape", "convolution", {**DECONV, "outputShape": [4, 4]}, 1),
    ("default kernel", "convolution", {**CONV, "kernelSize": [], "weights": np.ones(54)}, 1),
    ("two matrices", "batchedMatmul", {}, 2),
    ("int8", "innerProduct", INT8, 1),
    ("half", "innerProduct", {**DENSE, "weights": np.ones(6, np.float16),
                              "bias": np.ones(2, np.float16)}, 1),
    ("bytes and half", "innerProduct", {**DENSE, "bias": np.ones(2, np.float16), "weights": {
        "rawValue": b"abcdef", "quantization": {
            "numberOfBits": 8, "linearQuantization": {"scale": [1, 2], "bias": [1, 2]}}}}, 1),
    ("more bytes than needed", "innerProduct", {**DENSE, "weights": {
        "rawValue": b"abcdef", "quantization": {
            "numberOfBits": 1, "lookupTableQuantization": {"floatValue": [1, 2]}}}}, 1),
    ("global pooling", "pooling", {"globalPooling": True, "valid": {}, "kernelSize": [0, 0]}, 1),
    ("last pixel", "pooling", {"includeLastPixel": {"paddingAmounts": [1, 1]}}, 1),
    ("instance norm", "batchnorm", {"channels": 2, "gamma": [1, 1], "beta": [1, 1],
                                    "computeMeanVar": True}, 1),
    ("crop like another", "crop", {"offset": [1, 2]}, 2),
    ("pad by an input", "constantPad", {}, 2),
    ("pad to a size", "constantPad", {"padAmounts": [0, 9],
                                      "padToGivenOutputSizeMode": True}, 1),
    ("tile by an input", "tile", {}, 2),
    ("K by an input", "topK", {}, 2),
    ("size by an input", "oneHot", {}, 2),
    ("slice by inputs", "sliceDynamic", {}, 7),
    ("strides alone", "sliceDynamic", {"strides": [1, 2]}, 3),
    ("split sizes", "splitND", {"splitSizes": [1, 2]}, 1),
    ("fractions", "upsample", {"fractionalScalingFactor": [1.5, 2], "mode": "BILINEAR",
                               "linearUpsampleMode": "ALIGN_CORNERS_TRUE"}, 1),
    ("PReLU", "activation", {"PReLU": {"alpha": [1, 2, 3]}}, 1),
    ("softplus", "activation", {"parametricSoftplus": {"alpha": [1, 2], "beta": [3]}}, 1),
    ("hard sigmoid of coremltools", "simpleRecurrent", {**RNN, "activation": {
        "sigmoidHard": {}}}, 2),
    ("hard sigmoid", "simpleRecurrent", {**RNN, "activation": {
        "sigmoidHard": {"alpha": 0.2, "beta": 0.5}}}, 2),
    ("scaled tanh", "simpleRecurrent", {**RNN, "activation": {
        "scaledTanh": {"alpha": 1.7159, "beta": 2 / 3}}}, 2),
    ("axes", "squeeze", {"axes": [0, -1]}, 1),
    ("loop by an input", "loop", {"bodyNetwork": SANE_PARAMS["loop"]["bodyNetwork"]}, 1),
]  # fmt: skip


def quantized(bits: int = 8, raw: bytes = b"abcdef", **table: Any) -> dict[str, Any]:
    return {"rawValue": raw, "quantization": {"numberOfBits": bits, **table}}


def linear(*scales: float, bias: tuple[float, ...] = (), bits: int = 8) -> dict[str, Any]:
    return quantized(bits, linearQuantization={"scale": scales, "bias": bias})


def table(bits: int, entries: int, raw: bytes = b"abcdef") -> dict[str, Any]:
    return quantized(bits, raw, lookupTableQuantization={"floatValue": [0.0] * entries})


HALF2, HALF6 = np.ones(2, np.float16), np.ones(6, np.float16)
BORDER3 = {"borderAmounts": [{}, {}, {}]}

LayerCase = tuple[str, dict[str, Any], str, str]
LAYER_CASES: list[LayerCase] = [
    # windows
    ("convolution", {**CONV, "outputChannels": 0}, E, "outputChannels is 0; it must be at least"),
    ("convolution", {**CONV, "kernelChannels": 0}, E, "kernelChannels is 0"),
    ("convolution", {**CONV, "nGroups": 3}, E, "nGroups 3 does not divide outputChannels 2"),
    ("convolution", {**DECONV, "kernelChannels": 5, "weights": np.ones(10)}, E,
     "nGroups 2 does not divide kernelChannels 5"),
    ("convolution", {**CONV, "kernelSize": [3]}, E, "kernelSize has 1 entries; possible are 0 or"),
    ("convolution", {**CONV, "kernelSize": [1, 0]}, E, "kernelSize is [1, 0]; entries must be at"),
    ("convolution", {**CONV, "stride": [1, 1, 1]}, E, "stride has 3 entries"),
    ("convolution", {**CONV, "stride": [0, 1]}, E, "stride is [0, 1]"),
    ("convolution", {**CONV, "dilationFactor": [1]}, E, "dilationFactor has 1 entries"),
    ("convolution", {**DECONV, "outputShape": [1]}, E, "outputShape has 1 entries"),
    ("convolution", {**CONV, "outputShape": [1, 1]}, N, "outputShape is ignored"),
    ("convolution", {**CONV, "valid": None}, E, "ConvolutionPaddingType is not set"),
    ("convolution", {**CONV, "valid": {"paddingAmounts": BORDER3}}, E,
     "valid.paddingAmounts has amounts for 3 axes"),
    ("convolution", {**CONV, "valid": None, "same": {"asymmetryMode": 5}}, E,
     "same.asymmetryMode 5 is unknown; known are BOTTOM_RIGHT_HEAVY"),
    ("convolution3d", {**CONV3D, "inputChannels": 0}, E, "inputChannels is 0"),
    ("convolution3d", {**CONV3D, "nGroups": 3}, E, "nGroups 3 does not divide inputChannels 4"),
    ("convolution3d", {**CONV3D, "nGroups": -1}, E, "nGroups is -1"),
    ("convolution3d", {**CONV3D, "outputShape": [2, 2, 2]}, W, "outputShape is set"),
    ("convolution3d", {**CONV3D, "strideDepth": 0}, W, "strideDepth is not set"),
    ("convolution3d", {**CONV3D, "kernelWidth": -2}, E, "kernelWidth is -2"),
    ("convolution3d", {**CONV3D, "customPaddingTop": -2}, E, "customPaddingTop is -2"),
    ("convolution3d", {**CONV3D, "outputShape": [1]}, E, "outputShape has 1 entries"),
    ("convolution3d", {**CONV3D, "outputShape": [1, 1, 1]}, N, "outputShape is ignored"),
    ("convolution3d", {**CONV3D, "paddingType": 9}, E, "paddingType 9 is unknown"),
    ("pooling", {}, E, "PoolingPaddingType is not set; possible are valid, same, includeLast"),
    ("pooling", {"globalPooling": True}, W, "PoolingPaddingType is not set"),
    ("pooling", {"valid": {}, "type": 3}, E, "type 3 is unknown; known are MAX, AVERAGE, L2"),
    ("pooling", {"valid": {}, "kernelSize": [2]}, E, "kernelSize has 1 entries"),
    ("pooling", {"valid": {}, "stride": [0, 1]}, E, "stride is [0, 1]"),
    ("pooling", {"valid": {"paddingAmounts": BORDER3}}, E, "amounts for 3 axes"),
    ("pooling", {"includeLastPixel": {"paddingAmounts": [1]}}, E,
     "includeLastPixel.paddingAmounts has 1 entries"),
    ("pooling3d", {**POOL3D, "kernelWidth": 0}, E, "kernelWidth is 0"),
    ("pooling3d", {**POOL3D, "customPaddingLeft": -1}, E, "customPaddingLeft is -1"),
    ("pooling3d", {**POOL3D, "customPaddingLeft": 1, "paddingType": "SAME"}, W,
     "customPaddingLeft is 1, but paddingType is not CUSTOM"),
    ("globalPooling3d", {"type": 2}, E, "type 2 is unknown"),
    ("padding", {}, E, "PaddingType is not set; possible are constant, reflection, replication"),
    ("padding", {"constant": {}, "paddingAmounts": BORDER3}, E, "amounts for 3 axes"),
    ("crop", {}, W, "cropAmounts is empty"),
    ("crop", {"cropAmounts": BORDER3}, E, "cropAmounts has amounts for 3 axes"),
    ("constantPad", {}, E, "padAmounts has 0 entries"),
    ("constantPad", {"padAmounts": [1, 2, 3]}, E, "padAmounts has 3 entries"),
    ("constantPad", {"padAmounts": [0, 1, 2, 3], "padToGivenOutputSizeMode": True}, E,
     "only one amount of an axis"),
    # values
    ("activation", {}, E, "NonlinearityType is not set"),
    ("unary", {"type": 8}, E, "type 8 is unknown; known are SQRT"),
    ("reduce", {"mode": 10}, E, "mode 10 is unknown"),
    ("reduce", {"axis": 5}, E, "axis 5 is unknown; known are CHW"),
    ("gelu", {"mode": 3}, E, "mode 3 is unknown"),
    ("scatter", {"mode": -1}, E, "mode -1 is unknown"),
    ("resizeBilinear", {"mode": {"samplingMethod": 4}}, E, "mode.samplingMethod 4 is unknown"),
    ("cropResize", {"boxIndicesMode": {"boxMode": 4}}, E, "boxIndicesMode.boxMode 4"),
    ("resizeBilinear", {"targetSize": [1]}, E, "targetSize has 1 entries"),
    ("cropResize", {"targetSize": [0, 1]}, E, "targetSize is [0, 1]"),
    ("upsample", {"scalingFactor": [2]}, E, "scalingFactor has 1 entries"),
    ("upsample", {"fractionalScalingFactor": [0, 1]}, E, "entries must be above 0"),
    ("upsample", {"scalingFactor": [2, 2], "fractionalScalingFactor": [2, 2],
                  "mode": "BILINEAR", "linearUpsampleMode": 1}, E, "are both set"),
    ("upsample", {"fractionalScalingFactor": [2, 2], "mode": "BILINEAR"}, W,
     "fractionalScalingFactor needs mode BILINEAR"),
    ("upsample", {"linearUpsampleMode": "ALIGN_CORNERS_TRUE"}, W, "but mode is not BILINEAR"),
    ("lrn", {"localSize": 0}, E, "localSize is 0"),
    ("lrn", {"localSize": 3, "k": -1}, W, "k is -1; it must be positive"),
    ("reorganizeData", {}, E, "blockSize is 0"),
    ("reorganizeData", {"blockSize": 1}, W, "blockSize is 1; it must be at least 2"),
    ("clip", {"minVal": 2, "maxVal": 1}, W, "minVal 2 is above maxVal 1"),
    ("randomUniformLike", {"minVal": 2}, W, "minVal 2 is above maxVal 0"),
    ("randomUniformStatic", {"minVal": 2, "outputShape": [1]}, W, "minVal 2 is above maxVal 0"),
    ("randomUniformDynamic", {"minVal": 2}, W, "minVal 2 is above maxVal 0"),
    ("randomBernoulliLike", {"prob": 1.5}, W, "prob is 1.5; it must be from 0 to 1"),
    ("randomBernoulliStatic", {"prob": -1, "outputShape": [1]}, W, "prob is -1"),
    ("randomBernoulliDynamic", {"prob": float("nan")}, W, "prob is nan"),
    ("categoricalDistribution", {}, E, "numSamples is 0"),
    # axes and slices
    ("permute", {"axis": [0, 1, 2]}, E, "axis has 3 entries; possible are 4"),
    ("permute", {"axis": [0, 1, 2, 2]}, E, "[0, 1, 2, 2] is not a permutation of the axes 0 to 3"),
    ("transpose", {}, E, "axes has 0 entries"),
    ("transpose", {"axes": [1, 2]}, E, "[1, 2] is not a permutation"),
    ("transpose", {"axes": [1, 2, 3, 4, 5, 0]}, W, "axes has 6 entries"),
    ("squeeze", {}, W, "axes is empty"),
    ("squeeze", {"axes": [0, 0]}, W, "axes [0, 0] name one axis twice"),
    ("expandDims", {}, W, "axes is empty"),
    ("expandDims", {"axes": [1, 1]}, E, "axes [1, 1] name one axis twice"),
    ("argSort", {"axis": -1}, W, "axis is -1; here it must not be negative"),
    ("reshapeStatic", {}, E, "targetShape has 0 entries"),
    ("reshapeStatic", {"targetShape": [-2]}, E, "targetShape is [-2]; entries must be at least -1"),
    ("reshapeStatic", {"targetShape": [-1, -1]}, E, "only one extent may be -1"),
    ("rankPreservingReshape", {"targetShape": [-1, -1]}, E, "only one extent may be -1"),
    ("rankPreservingReshape", {"targetShape": [1]}, W, "must tell the ranks"),
    ("reshape", {"targetShape": [1, 2]}, E, "targetShape has 2 entries; possible are 3 or 4"),
    ("reshape", {"targetShape": [1, 2, -1]}, E, "targetShape is [1, 2, -1]"),
    ("fillStatic", {}, E, "targetShape has 0 entries"),
    ("broadcastToStatic", {}, E, "targetShape has 0 entries"),
    ("randomNormalStatic", {}, E, "outputShape has 0 entries"),
    ("slice", {}, E, "stride is 0"),
    ("slice", {"stride": 1, "startIndex": 5, "endIndex": 3}, E, "endIndex 3 is before start"),
    ("slice", {"stride": 1, "startIndex": -1, "endIndex": -3}, E, "endIndex -3 is before"),
    ("slice", {"stride": 1, "axis": 3}, E, "axis 3 is unknown"),
    ("sliceStatic", {}, E, "one entry for each axis is needed; found: beginIds 0"),
    ("sliceStatic", {**SLICE, "endIds": [1]}, E, "endIds 1, strides 2"),
    ("sliceStatic", {**SLICE, "squeezeMasks": [True]}, E, "squeezeMasks 1"),
    ("sliceStatic", {**SLICE, "strides": [1, 0]}, E, "strides is [1, 0]; a stride is not 0"),
    ("sliceDynamic", {"endIds": [1]}, E, "found: endIds 1, strides 0"),
    ("sliceDynamic", {"endIds": [1], "strides": [1], "endMasks": [True, True]}, E, "endMasks 2"),
    ("sliceDynamic", {"endIds": [1], "strides": [0]}, E, "strides is [0]"),
    ("slidingWindows", {"windowSize": 2}, E, "step is 0"),
    ("sliceBySize", {}, E, "size is 0"),
    ("topK", {}, E, "K is 0"),
    ("oneHot", {}, E, "oneHotVectorSize is 0"),
    ("tile", {}, E, "reps is empty"),
    ("split", {}, E, "nOutputs is 0"),
    ("split", {"nOutputs": 3}, E, "nOutputs is 3; it has 2 outputs"),
    ("splitND", {}, E, "numSplits is 0; it has 2 outputs"),
    ("splitND", {"splitSizes": [1, 2, 3]}, E, "splitSizes has 3 entries; it has 2 outputs"),
    # recurrent layers
    ("simpleRecurrent", {**RNN, "outputVectorSize": 0}, E, "outputVectorSize is 0"),
    ("simpleRecurrent", {**RNN, "activation": None}, E, "activation[0] is not set"),
    ("simpleRecurrent", {**RNN, "activation": {"ELU": {}}}, W, "activation[0] is ELU; recurrent"),
    ("simpleRecurrent", {**RNN, "activation": {"sigmoidHard": {"alpha": 0.3, "beta": 0.5}}}, W,
     "with alpha 0.3 and beta 0.5; in recurrent layers these are 0.2 and 0.5"),
    ("simpleRecurrent", {**RNN, "activation": {"scaledTanh": {"alpha": 1, "beta": 1}}}, W,
     "these are 1.7159 and 0.666667"),
    ("gru", {**GRU, "activations": [{"tanh": {}}]}, E, "activations has 1 functions; 2 are"),
    ("uniDirectionalLSTM", {**LSTM, "activations": []}, E, "activations has 0 functions; 3 are"),
    ("biDirectionalLSTM", {**BILSTM, "activationsBackwardLSTM": LSTM_FUNCTIONS[:2]}, E,
     "activationsBackwardLSTM has 2 functions"),
    ("biDirectionalLSTM", {**BILSTM, "activationsBackwardLSTM": LSTM_FUNCTIONS[::-1]}, W,
     "activationsForwardLSTM and activationsBackwardLSTM must be the same"),
    ("biDirectionalLSTM", {**BILSTM, "weightParams": [lstm_weights()]}, E,
     "weightParams has 1 entries; 2 are needed"),
    # custom layers, control flow
    ("custom", {}, E, "className is empty"),
    ("custom", {"className": "A", "parameters": {"a": {}}}, W, "parameter 'a' has no value"),
    ("custom", {"className": "A", "weights": [{"floatValue": [1], "rawValue": b"a"}]}, E,
     "weights[0]: a weight holds values of several kinds"),
    ("custom", {"className": "A", "weights": [{}]}, W, "weights[0] is empty"),
    ("branch", {}, E, "ifBranch has no layers"),
    # weights: how many
    ("convolution", {**CONV, "weights": np.ones(11)}, E,
     "weights has 11 values; shape [2, 3, 1, 2] needs 12"),
    ("convolution", {**DECONV, "weights": np.ones(24)}, E,
     "weights has 24 values; shape [6, 2, 1, 1] needs 12"),
    ("convolution", {**CONV, "weights": None}, E,
     "weights of shape [2, 3, 1, 2] is not stored"),
    ("convolution", {**CONV, "bias": np.ones(3)}, E, "bias has 3 values; shape [2] needs 2"),
    ("convolution", {**CONV, "bias": None}, E,
     "bias of shape [2] is not stored, though hasBias is set"),
    ("convolution", {**CONV, "hasBias": False}, N,
     "bias is stored, but not used: hasBias is not set"),
    ("convolution3d", {**CONV3D, "weights": np.ones(64)}, E, "shape [2, 2, 2, 2, 2] needs 32"),
    ("convolution3d", {**CONV3D, "isDeconvolution": True, "weights": np.ones(3)}, E,
     "shape [4, 1, 2, 2, 2] needs 32"),
    ("convolution3d", {**CONV3D, "hasBias": True}, E, "bias of shape [2] is not stored"),
    ("innerProduct", {**DENSE, "weights": np.ones(7)}, E, "weights has 7 values; shape [2, 3]"),
    ("innerProduct", {**DENSE, "bias": np.ones(7)}, E, "bias has 7 values; shape [2]"),
    ("embedding", {**EMBED, "weights": np.ones(7)}, E, "weights has 7 values; shape [2, 3]"),
    ("embedding", {**EMBED, "hasBias": True}, E, "bias of shape [2] is not stored"),
    ("embedding", {**EMBED, "inputDim": 0}, E, "inputDim is 0"),
    ("embeddingND", {**EMBED_ND, "weights": np.ones(7)}, E, "weights has 7 values; shape [2, 3]"),
    ("embeddingND", {**EMBED_ND, "hasBias": True}, E, "bias of shape [2] is not stored"),
    ("batchedMatmul", {**MATMUL, "weights": np.ones(7)}, E, "weights has 7 values; shape [2, 3]"),
    ("batchedMatmul", {**MATMUL, "hasBias": True}, E, "bias of shape [2] is not stored"),
    ("batchedMatmul", {}, E, "weightMatrixFirstDimension is 0"),
    *[("batchnorm", {**NORM, field: np.ones(3)}, E, f"{field} has 3 values; shape [2] needs 2")
      for field in ("gamma", "beta", "mean", "variance")],
    ("batchnorm", {**NORM, "gamma": None}, E, "gamma of shape [2] is not stored"),
    ("batchnorm", {**NORM, "mean": None}, E, "mean of shape [2] is not stored"),
    ("batchnorm", {**NORM, "channels": 0}, E, "channels is 0"),
    ("batchnorm", {**NORM, "computeMeanVar": True}, N,
     "variance is stored, but not used: computeMeanVar is set"),
    ("scale", {**SCALE, "scale": np.ones(3)}, E, "scale has 3 values; shape [2, 1, 1] needs 2"),
    ("scale", {**SCALE, "bias": np.ones(3)}, E, "bias has 3 values; shape [2] needs 2"),
    ("scale", {**SCALE, "shapeScale": [2, 1]}, E, "shapeScale has 2 entries; possible are 1 or 3"),
    ("scale", {**SCALE, "shapeBias": []}, E, "shapeBias has 0 entries"),
    ("bias", {"shape": [2, 1]}, E, "shape has 2 entries; possible are 1 or 3"),
    ("bias", {"shape": [3], "bias": np.ones(2)}, E, "bias has 2 values; shape [3] needs 3"),
    ("loadConstant", {"shape": [2], "data": np.ones(2)}, E, "shape has 1 entries; possible are 3"),
    ("loadConstant", {"shape": [2, 1, 1], "data": [1]}, E, "data has 1 values; shape [2, 1, 1]"),
    ("loadConstantND", {}, E, "shape has 0 entries"),
    ("loadConstantND", {"shape": [2, 2]}, E, "data of shape [2, 2] is not stored"),
    ("loadConstantND", {"shape": [1] * 6, "data": [1]}, W, "shape has 6 entries"),
    ("layerNormalization", {**LAYERNORM, "gamma": np.ones(2)}, E, "gamma has 2 values"),
    ("layerNormalization", {**LAYERNORM, "beta": None}, E, "beta of shape [2, 3] is not stored"),
    ("layerNormalization", {**LAYERNORM, "normalizedShape": []}, E, "normalizedShape has 0"),
    ("layerNormalization", {**LAYERNORM, "gamma": HALF6}, W,
     "gamma is stored as float16; here it must be float32"),
    ("activation", {"PReLU": {}}, E, "PReLU.alpha is not stored"),
    ("activation", {"parametricSoftplus": {"alpha": [1]}}, E, "beta is not stored"),
    ("activation", {"parametricSoftplus": {"alpha": [1, 2], "beta": [1, 2, 3]}}, E,
     "parametricSoftplus has 2 alphas and 3 betas"),
    ("activation", {"parametricSoftplus": {"alpha": [1], "beta": np.ones(1, np.float16)}}, W,
     "parametricSoftplus.alpha is float32, beta float16"),
    *[("simpleRecurrent", {**RNN, field: np.ones(7)}, E, f"{field} has 7 values")
      for field in ("weightMatrix", "recursionMatrix", "biasVector")],
    *[("gru", {**GRU, f"{gate}Gate{what}": np.ones(7)}, E, f"{gate}Gate{what} has 7 values")
      for gate in ("update", "reset", "output")
      for what in ("WeightMatrix", "RecursionMatrix", "BiasVector")],
    *[("uniDirectionalLSTM", {**LSTM, "weightParams": {**lstm_weights(), field: np.ones(7)}}, E,
       f"weightParams.{field} has 7 values") for field in lstm_weights()],
    *[("biDirectionalLSTM", {**BILSTM, "weightParams": [
        lstm_weights(), {**lstm_weights(), field: None}]}, E,
       f"weightParams[1].{field} of shape") for field in lstm_weights()],
    ("uniDirectionalLSTM", {**LSTM, "params": {"hasBiasVectors": True}}, N,
     "weightParams.inputGatePeepholeVector is stored, but not used: hasPeepholeVectors is not set"),
    # weights: how
    ("innerProduct", {**DENSE, "weights": {"floatValue": [1], "rawValue": b"a"}}, E,
     "weights: a weight holds values of several kinds: floatValue, rawValue"),
    ("innerProduct", {**DENSE, "weights": {"float16Value": b"abc"}}, E,
     "weights has half a float16 value at its end"),
    ("innerProduct", {**DENSE, "weights": {"rawValue": b"abcdef"}}, E,
     "weights has raw bytes without quantization"),
    ("innerProduct", {**DENSE, "weights": linear(1, bits=9)}, E, "1 to 8 bits, not 9"),
    ("innerProduct", {**DENSE, "weights": linear(1, bits=0)}, E, "1 to 8 bits, not 0"),
    ("innerProduct", {**DENSE, "weights": linear()}, E,
     "weights has 0 quantization scales; possible are 1 or 2"),
    ("innerProduct", {**DENSE, "weights": linear(1, 2, 3)}, E, "weights has 3 quantization scales"),
    ("innerProduct", {**DENSE, "weights": linear(1, 2, bias=(1, 2, 3))}, E,
     "weights has 3 quantization biases for 2 scales"),
    ("innerProduct", {**DENSE, "weights": linear(1, 2, bias=(1,))}, W,
     "weights has 1 quantization biases for 2 scales"),
    ("innerProduct", {**DENSE, "weights": table(2, 3)}, E,
     "weights has a lookup table of 3 entries; 2 bits need 4"),
    ("innerProduct", {**DENSE, "weights": table(5, 32, b"abc")}, E,
     "weights has 3 bytes; 6 values of 5 bits, shape [2, 3], need 4"),
    ("innerProduct", {**DENSE, "bias": {**linear(1, 2), "rawValue": b"ab"}}, W,
     "bias has 2 quantization scales; devices allow 1"),
    ("convolution", {**DECONV, "weights": {**linear(1, 2), "rawValue": bytes(12)}}, W,
     "weights has 2 quantization scales; devices allow 1 or 4"),
    ("convolution", {**DECONV, "weights": {**linear(1, 2, 3, 4), "rawValue": bytes(12)}}, E,
     "weights has 4 quantization scales; possible are 1 or 2"),
    ("convolution3d", {**CONV3D, "weights": {**linear(1), "rawValue": bytes(32)}}, W,
     "weights is stored as linear 8; here it must be float32 or float16"),
    ("innerProduct", {**DENSE, "weights": HALF6}, W, "its weights mix float32 and float16"),
    ("convolution", {**CONV, "bias": HALF2}, W, "its weights mix float32 and float16"),
    ("simpleRecurrent", {**RNN, "biasVector": HALF2}, W, "its weights mix float32 and float16"),
    ("innerProduct", {**INT8, "int8DynamicQuantize": False}, W,
     "weights are stored as int8 and int8DynamicQuantize is false"),
    ("innerProduct", {**DENSE, "int8DynamicQuantize": True}, W,
     "weights are stored as float32 and int8DynamicQuantize is true"),
    ("innerProduct", {**DENSE, "bias": {**INT8["weights"], "int8RawValue": b"ab"}}, W,
     "bias is stored as int8; only weights"),
    ("innerProduct", {**INT8, "weights": {"int8RawValue": b"abcde"}}, E, "weights has 5 values"),
    ("innerProduct", {**INT8, "weights": {"int8RawValue": b"abcdef"}}, E,
     "weights has int8 values and 0 scales"),
    ("innerProduct", {**INT8, "weights": {"int8RawValue": b"abcdef"}}, W,
     "numberOfBits is 0; int8DynamicQuantize needs 8"),
    ("innerProduct", {**INT8, "weights": {"int8RawValue": b"abcdef"}}, W,
     "weights.quantization is not linear"),
    ("innerProduct", {**INT8, "weights": {**linear(1, bias=(1,)), "rawValue": None,
                                          "int8RawValue": b"abcdef"}}, E, "has a bias"),
    ("innerProduct", {**INT8, "hasBias": True, "bias": [1, 2]}, N,
     "hasBias is set; the format's text allows no bias with int8DynamicQuantize"),
]  # fmt: skip

WITH_INPUTS: list[tuple[str, str, dict[str, Any], int, str, str]] = [
    ("dynamic deconvolution", "convolution", {**DECONV, "weights": None}, 2, E,
     "isDeconvolution is set, but its weights come as an input"),
    ("dynamic dilation", "convolution", {"outputChannels": 2, "valid": {},
                                         "dilationFactor": [1, 2]}, 2, W,
     "dilationFactor is [1, 2], but its weights come as an input"),
    ("dynamic bias", "convolution", {"outputChannels": 2, "valid": {}, "hasBias": True}, 2, W,
     "hasBias is set, but its weights"),
    ("stored and given", "convolution", CONV, 2, N,
     "weights is stored, but not used: they come as an input"),
    ("crop without offset", "crop", {}, 2, E, "offset has 0 entries; with two inputs it has 2"),
    ("two matrices and a bias", "batchedMatmul", {"hasBias": True}, 2, W,
     "hasBias is set, but its second matrix is an input"),
    ("two matrices, int8", "batchedMatmul", {"int8DynamicQuantize": True}, 2, W,
     "int8DynamicQuantize is set, but its second matrix is an input"),
]  # fmt: skip
