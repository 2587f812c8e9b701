"""Rules about stored weights: how they are encoded, and how many values there are.

Nothing is decoded: counting is enough.
"""

from __future__ import annotations

import math

from google.protobuf.message import Message

from mlferry.errors import SpecError
from mlferry.layers.definitions import FLOATS, WEIGHTS, StoredWeight, layer_rule
from mlferry.spec import weights
from mlferry.spec.problems import Problems, error, note, warning
from mlferry.spec.proto import neural_network_pb2 as nn


@layer_rule()
def weights_fit(layer: nn.NeuralNetworkLayer, params: Message) -> Problems:
    """Each weight is stored in one encoding, with as many values as its shape requires."""
    kind = layer.WhichOneof("layer") or ""
    precisions = set()
    entry = WEIGHTS.find(kind)
    for weight in entry.value(layer, params) if entry is not None else ():
        try:
            result = weights.encoding(weight.message)
        except SpecError as problem:
            yield error(f"{weight.field}: {problem}")
            continue
        if result is None:
            yield from _missing(weight)
        elif not weight.used:
            because = f"{weight.switch} is not set" if weight.is_flag else weight.switch
            yield note(f"{weight.field} is stored, but not used: {because}")
        else:
            precisions.add(result.kind)
            yield from _count(weight, result)
            yield from _quantization(weight, result)
            yield from _encoding_is_allowed(weight, result, params)
    if precisions.issuperset(FLOATS):
        yield warning("its weights mix float32 and float16; a layer has one of them")


def _missing(weight: StoredWeight) -> Problems:
    if weight.used and (weight.shape is None or 0 not in weight.shape):
        because = f", though {weight.switch} is set" if weight.is_flag else ""
        shape = f" of shape {list(weight.shape)}" if weight.shape else ""
        yield error(f"{weight.field}{shape} is not stored{because}")


def _count(weight: StoredWeight, encoding: weights.Encoding) -> Problems:
    if weight.shape is None:
        return
    expected, shape = math.prod(weight.shape), list(weight.shape)
    if encoding.kind in (weights.LINEAR, weights.LUT):
        size, least = len(weight.message.rawValue), -(-encoding.bits * expected // 8)
        if size < least:
            yield error(
                f"{weight.field} has {size} bytes; {expected} values of {encoding.bits} bits, "
                f"shape {shape}, need {least}"
            )
        return
    if encoding.kind == weights.FLOAT16 and len(weight.message.float16Value) % 2:
        yield error(f"{weight.field} has half a float16 value at its end")
        return
    count = weights.count(weight.message)
    if encoding.kind != weights.RAW and count != expected:
        yield error(f"{weight.field} has {count} values; shape {shape} needs {expected}")


def _quantization(weight: StoredWeight, encoding: weights.Encoding) -> Problems:
    table = weight.message.quantization
    if encoding.kind == weights.RAW:
        yield error(f"{weight.field} has raw bytes without quantization: their meaning is unknown")
    elif encoding.kind == weights.LUT:
        size = len(table.lookupTableQuantization.floatValue)
        if size != 1 << encoding.bits:
            yield error(
                f"{weight.field} has a lookup table of {size} entries; {encoding.bits} bits need "
                f"{1 << encoding.bits}"
            )
    elif encoding.kind == weights.LINEAR:
        yield from _linear(weight, table.linearQuantization)
    elif encoding.kind == weights.INT8 and len(table.linearQuantization.scale) != 1:
        count = len(table.linearQuantization.scale)
        yield error(f"{weight.field} has int8 values and {count} scales; 1 is needed")


def _linear(weight: StoredWeight, linear: nn.LinearQuantizationParams) -> Problems:
    scales, biases = len(linear.scale), len(linear.bias)
    channels = weight.shape[weight.channel_axis] if weight.shape else 1
    if scales not in (1, channels):
        yield error(
            f"{weight.field} has {scales} quantization scales; possible are 1 or {channels}"
        )
    elif scales not in (1, weight.scales):
        yield warning(
            f"{weight.field} has {scales} quantization scales; devices allow "
            + ("1" if weight.scales == 1 else f"1 or {weight.scales}")
        )
    if biases in (0, scales):
        return
    text = f"{weight.field} has {biases} quantization biases for {scales} scales"
    yield warning(text) if biases in (1, channels) else error(text)


_INT8_FIELD = "int8DynamicQuantize"


def _encoding_is_allowed(
    weight: StoredWeight, encoding: weights.Encoding, params: Message
) -> Problems:
    if weight.floats and encoding.kind not in weight.floats:
        yield warning(
            f"{weight.field} is stored as {encoding}; here it must be {' or '.join(weight.floats)}"
        )
    dynamic = getattr(params, _INT8_FIELD, False)
    if weight.field == "weights" and dynamic != (encoding.kind == weights.INT8):
        advice = "int8 values are needed" if dynamic else "int8 values need it"
        flag = str(dynamic).lower()
        yield warning(f"weights are stored as {encoding} and {_INT8_FIELD} is {flag}: {advice}")
    elif weight.field != "weights" and encoding.kind == weights.INT8:
        yield warning(
            f"{weight.field} is stored as int8; only weights of innerProduct and "
            "batchedMatmul can be"
        )
