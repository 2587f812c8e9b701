"""Rules about stored weights: how they are encoded, and how many values there are.

No weight is decoded: counting is enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from mlferry.errors import SpecError
from mlferry.spec import weights
from mlferry.spec.proto import neural_network_pb2 as nn
from mlferry.spec.validate.rules import Problems, error, layer_rule, note, warning

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Need:
    """A weight that a layer stores.

    Attributes:
        field: its path in the layer's parameters.
        stored: the message.
        shape: its shape; None where only the data that flows through tells.
        switch: the boolean that turns it on, or why it is not used.
        used: whether it is used.
        scales: how many scales a device allows, beside one.
        channel_axis: the axis along which scales go.
        floats: the only encodings that a device allows; empty for all.
    """

    field: str
    stored: nn.WeightParams
    shape: Shape | None
    switch: str = ""
    used: bool = True
    scales: int = 1
    channel_axis: int = 0
    floats: tuple[str, ...] = ()

    @property
    def is_flag(self) -> bool:
        """Whether `switch` is a boolean."""
        return self.switch.startswith("has")


Needs = Iterator[Need]
NEEDS: dict[str, Callable[[nn.NeuralNetworkLayer, Any], Needs]] = {}
_ANY_FLOAT = (weights.FLOAT32, weights.FLOAT16)
_SECOND_INPUT = "they come as an input"


def _needs(
    *kinds: str,
) -> Callable[
    [Callable[[nn.NeuralNetworkLayer, Any], Needs]],
    Callable[[nn.NeuralNetworkLayer, Any], Needs],
]:
    def register(
        needs: Callable[[nn.NeuralNetworkLayer, Any], Needs],
    ) -> Callable[[nn.NeuralNetworkLayer, Any], Needs]:
        for kind in kinds:
            NEEDS[kind] = needs
        return needs

    return register


# ---- which weights each kind stores -----------------------------------------------------------


@_needs("convolution")
def _convolution(layer: nn.NeuralNetworkLayer, p: Any) -> Needs:
    stored = len(layer.input) < 2
    kernel = tuple(p.kernelSize) or (3, 3)
    out, groups = p.outputChannels, p.nGroups or 1
    shape = (p.kernelChannels, out // groups) if p.isDeconvolution else (out, p.kernelChannels)
    axis = 1 if p.isDeconvolution else 0
    full = (*shape, *kernel) if len(kernel) == 2 else None
    yield Need("weights", p.weights, full, _SECOND_INPUT, stored, scales=out, channel_axis=axis)
    yield _bias(p, out, p.hasBias, stored)


def _bias(p: Any, size: int, used: bool, stored: bool = True) -> Need:
    switch = "hasBias" if stored else _SECOND_INPUT
    return Need("bias", p.bias, (size,), switch, used and stored)


@_needs("convolution3d")
def _convolution3d(layer: nn.NeuralNetworkLayer, p: Any) -> Needs:
    kernel = tuple(getattr(p, f"kernel{axis}") or 3 for axis in ("Depth", "Height", "Width"))
    groups = p.nGroups or 1
    first, second = p.outputChannels, p.inputChannels
    if p.isDeconvolution:
        first, second = second, first
    shape = (first, second // groups, *kernel)
    yield Need("weights", p.weights, shape, floats=_ANY_FLOAT)
    yield replace(_bias(p, p.outputChannels, p.hasBias), floats=_ANY_FLOAT)


@_needs("innerProduct")
def _inner_product(layer: nn.NeuralNetworkLayer, p: Any) -> Needs:
    out = p.outputChannels
    yield Need("weights", p.weights, (out, p.inputChannels), scales=out)
    yield _bias(p, out, p.hasBias)


@_needs("batchedMatmul")
def _batched_matmul(layer: nn.NeuralNetworkLayer, p: Any) -> Needs:
    stored = len(layer.input) < 2
    rows, columns = p.weightMatrixFirstDimension, p.weightMatrixSecondDimension
    yield Need("weights", p.weights, (columns, rows), _SECOND_INPUT, stored, scales=columns)
    yield _bias(p, columns, p.hasBias, stored)


@_needs("embedding")
def _embedding(layer: nn.NeuralNetworkLayer, p: Any) -> Needs:
    out = p.outputChannels
    yield Need("weights", p.weights, (out, p.inputDim), scales=out)
    yield _bias(p, out, p.hasBias)


@_needs("embeddingND")
def _embedding_nd(layer: nn.NeuralNetworkLayer, p: Any) -> Needs:
    out = p.embeddingSize
    yield Need("weights", p.weights, (out, p.vocabSize), scales=out)
    yield _bias(p, out, p.hasBias)


@_needs("batchnorm")
def _batchnorm(layer: nn.NeuralNetworkLayer, p: Any) -> Needs:
    for field in ("gamma", "beta"):
        yield Need(field, getattr(p, field), (p.channels,))
    for field in ("mean", "variance"):
        stored = getattr(p, field)
        yield Need(field, stored, (p.channels,), "computeMeanVar is set", not p.computeMeanVar)


def _per_channel(field: str, p: Any, shape: Shape, switch: str = "", used: bool = True) -> Need:
    scales = shape[0] if len(shape) == 3 else 1
    return Need(field, getattr(p, field), shape, switch, used, scales=scales)


@_needs("scale")
def _scale(layer: nn.NeuralNetworkLayer, p: Any) -> Needs:
    yield _per_channel("scale", p, tuple(p.shapeScale))
    yield _per_channel("bias", p, tuple(p.shapeBias), "hasBias", p.hasBias)


@_needs("bias")
def _bias_layer(layer: nn.NeuralNetworkLayer, p: Any) -> Needs:
    yield _per_channel("bias", p, tuple(p.shape))


@_needs("loadConstant")
def _load_constant(layer: nn.NeuralNetworkLayer, p: Any) -> Needs:
    yield _per_channel("data", p, tuple(p.shape))


@_needs("loadConstantND")
def _load_constant_nd(layer: nn.NeuralNetworkLayer, p: Any) -> Needs:
    yield Need("data", p.data, tuple(p.shape))


@_needs("layerNormalization")
def _layer_normalization(layer: nn.NeuralNetworkLayer, p: Any) -> Needs:
    for field in ("gamma", "beta"):
        shape = tuple(p.normalizedShape)
        yield Need(field, getattr(p, field), shape, floats=(weights.FLOAT32,))


@_needs("activation")
def _activation(layer: nn.NeuralNetworkLayer, p: Any) -> Needs:
    for function, fields in (("PReLU", ("alpha",)), ("parametricSoftplus", ("alpha", "beta"))):
        if p.WhichOneof("NonlinearityType") == function:
            for field in fields:
                yield Need(f"{function}.{field}", getattr(getattr(p, function), field), None)


@_needs("simpleRecurrent")
def _simple_recurrent(layer: nn.NeuralNetworkLayer, p: Any) -> Needs:
    out = p.outputVectorSize
    yield Need("weightMatrix", p.weightMatrix, (out, p.inputVectorSize), scales=out)
    yield Need("recursionMatrix", p.recursionMatrix, (out, out), scales=out)
    yield Need("biasVector", p.biasVector, (out,), "hasBiasVector", p.hasBiasVector)


def _gates(p: Any, prefix: str, gates: tuple[str, ...], sizes: Shape, bias: bool) -> Needs:
    out, width = sizes
    for gate in gates:
        for name, shape in (("WeightMatrix", (out, width)), ("RecursionMatrix", (out, out))):
            field = f"{gate}{name}"
            yield Need(prefix + field, getattr(p, field), shape, scales=out)
        field = f"{gate}BiasVector"
        yield Need(prefix + field, getattr(p, field), (out,), "hasBiasVectors", bias)


@_needs("gru")
def _gru(layer: nn.NeuralNetworkLayer, p: Any) -> Needs:
    gates = ("updateGate", "resetGate", "outputGate")
    yield from _gates(p, "", gates, (p.outputVectorSize, p.inputVectorSize), p.hasBiasVectors)


@_needs("uniDirectionalLSTM")
def _lstm(layer: nn.NeuralNetworkLayer, p: Any) -> Needs:
    yield from _lstm_direction(p, p.weightParams, "weightParams.")


@_needs("biDirectionalLSTM")
def _bidirectional_lstm(layer: nn.NeuralNetworkLayer, p: Any) -> Needs:
    for index, stored in enumerate(p.weightParams):
        yield from _lstm_direction(p, stored, f"weightParams[{index}].")


def _lstm_direction(p: Any, stored: nn.LSTMWeightParams, prefix: str) -> Needs:
    out, options = p.outputVectorSize, p.params
    gates = ("inputGate", "forgetGate", "blockInput", "outputGate")
    sizes = (out, p.inputVectorSize)
    yield from _gates(stored, prefix, gates, sizes, options.hasBiasVectors)
    for gate in ("inputGate", "forgetGate", "outputGate"):
        field = f"{gate}PeepholeVector"
        used = options.hasPeepholeVectors
        message = getattr(stored, field)
        yield Need(prefix + field, message, (out,), "hasPeepholeVectors", used)


# ---- the rules --------------------------------------------------------------------------------


@layer_rule(*NEEDS)
def weights_fit(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """Each weight is stored in one encoding, with as many values as its shape has."""
    kind = layer.WhichOneof("layer") or ""
    precisions = set()
    for need in NEEDS[kind](layer, params):
        try:
            found = weights.encoding(need.stored)
        except SpecError as problem:
            yield error(f"{need.field}: {problem}")
            continue
        if found is None:
            yield from _missing(need)
        elif not need.used:
            because = f"{need.switch} is not set" if need.is_flag else need.switch
            yield note(f"{need.field} is stored, but not used: {because}")
        else:
            precisions.add(found.kind)
            yield from _count(need, found)
            yield from _quantization(need, found)
            yield from _encoding_is_allowed(need, found, params)
    if precisions.issuperset(_ANY_FLOAT):
        yield warning("its weights mix float32 and float16; a layer has one of them")


def _missing(need: Need) -> Problems:
    if need.used and (need.shape is None or 0 not in need.shape):
        because = f", though {need.switch} is set" if need.is_flag else ""
        what = f" of shape {list(need.shape)}" if need.shape else ""
        yield error(f"{need.field}{what} is not stored{because}")


def _count(need: Need, found: weights.Encoding) -> Problems:
    if need.shape is None:
        return
    wanted, shape = math.prod(need.shape), list(need.shape)
    if found.kind in (weights.LINEAR, weights.LUT):
        size, least = len(need.stored.rawValue), -(-found.bits * wanted // 8)
        if size < least:
            yield error(
                f"{need.field} has {size} bytes; {wanted} values of {found.bits} bits, shape "
                f"{shape}, need {least}"
            )
        return
    if found.kind == weights.FLOAT16 and len(need.stored.float16Value) % 2:
        yield error(f"{need.field} has half a float16 value at its end")
        return
    count = weights.count(need.stored)
    if found.kind != weights.RAW and count != wanted:
        yield error(f"{need.field} has {count} values; shape {shape} needs {wanted}")


def _quantization(need: Need, found: weights.Encoding) -> Problems:
    table = need.stored.quantization
    if found.kind == weights.RAW:
        yield error(f"{need.field} has raw bytes without quantization: their meaning is unknown")
    elif found.kind == weights.LUT:
        size = len(table.lookupTableQuantization.floatValue)
        if size != 1 << found.bits:
            yield error(
                f"{need.field} has a lookup table of {size} entries; {found.bits} bits need "
                f"{1 << found.bits}"
            )
    elif found.kind == weights.LINEAR:
        yield from _linear(need, table.linearQuantization)
    elif found.kind == weights.INT8 and len(table.linearQuantization.scale) != 1:
        count = len(table.linearQuantization.scale)
        yield error(f"{need.field} has int8 values and {count} scales; 1 is needed")


def _linear(need: Need, linear: nn.LinearQuantizationParams) -> Problems:
    scales, biases = len(linear.scale), len(linear.bias)
    channels = need.shape[need.channel_axis] if need.shape else 1
    if scales not in (1, channels):
        yield error(f"{need.field} has {scales} quantization scales; possible are 1 or {channels}")
    elif scales not in (1, need.scales):
        yield warning(
            f"{need.field} has {scales} quantization scales; devices allow "
            + ("1" if need.scales == 1 else f"1 or {need.scales}")
        )
    if biases in (0, scales):
        return
    text = f"{need.field} has {biases} quantization biases for {scales} scales"
    yield warning(text) if biases in (1, channels) else error(text)


_INT8_FIELD = "int8DynamicQuantize"


def _encoding_is_allowed(need: Need, found: weights.Encoding, params: Any) -> Problems:
    if need.floats and found.kind not in need.floats:
        yield warning(f"{need.field} is stored as {found}; here it must be "
                      f"{' or '.join(need.floats)}")  # fmt: skip
    dynamic = getattr(params, _INT8_FIELD, False)
    if need.field == "weights" and dynamic != (found.kind == weights.INT8):
        wanted = "int8 values are needed" if dynamic else "int8 values need it"
        flag = str(dynamic).lower()
        yield warning(f"weights are stored as {found} and {_INT8_FIELD} is {flag}: {wanted}")
    elif need.field != "weights" and found.kind == weights.INT8:
        yield warning(f"{need.field} is stored as int8; only weights of innerProduct and "
                      "batchedMatmul can be")  # fmt: skip


@layer_rule("innerProduct", "batchedMatmul")
def int8_dynamic(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """Dynamic quantization: 8 bits, linear without a bias, one input.

    The format's text rules out a bias of the layer as well, but devices compute it.
    """
    if not params.int8DynamicQuantize:
        return
    table = params.weights.quantization
    if table.numberOfBits != 8:
        yield warning(f"weights.quantization.numberOfBits is {table.numberOfBits}; "
                      f"{_INT8_FIELD} needs 8")  # fmt: skip
    if table.WhichOneof("QuantizationType") != "linearQuantization":
        yield warning(f"weights.quantization is not linear; {_INT8_FIELD} needs it")
    if table.linearQuantization.bias:
        yield error(f"weights.quantization has a bias; {_INT8_FIELD} allows none")
    if params.hasBias:
        yield note(f"hasBias is set; the format's text allows no bias with {_INT8_FIELD}")
    if len(layer.input) > 1:
        yield warning(f"{_INT8_FIELD} is set, but its second matrix is an input")


@layer_rule("batchedMatmul")
def bias_of_matmul(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """A product of two inputs has no bias."""
    if len(layer.input) > 1 and params.hasBias:
        yield warning("hasBias is set, but its second matrix is an input: it has no bias")


@layer_rule("scale")
def shape_of_scale_bias(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """The bias of a scale layer has 1 or 3 axes."""
    if params.hasBias and len(params.shapeBias) not in (1, 3):
        yield error(f"shapeBias has {len(params.shapeBias)} entries; possible are 1 or 3")


@layer_rule("activation")
def softplus_lengths(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """alpha and beta are stored alike."""
    if params.WhichOneof("NonlinearityType") != "parametricSoftplus":
        return
    pair = params.parametricSoftplus
    try:
        found = [weights.encoding(each) for each in (pair.alpha, pair.beta)]
        counts = [weights.count(each) for each in (pair.alpha, pair.beta)]
    except SpecError:
        return
    if None in found:
        return
    if found[0] != found[1]:
        yield warning(f"parametricSoftplus.alpha is {found[0]}, beta {found[1]}; both must be one")
    if 1 not in counts and counts[0] != counts[1]:
        yield error(f"parametricSoftplus has {counts[0]} alphas and {counts[1]} betas")


@layer_rule("custom")
def custom_weights(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """Each weight of a custom layer is stored in one encoding."""
    for index, stored in enumerate(params.weights):
        try:
            if weights.encoding(stored) is None:
                yield warning(f"weights[{index}] is empty")
        except SpecError as problem:
            yield error(f"weights[{index}]: {problem}")
