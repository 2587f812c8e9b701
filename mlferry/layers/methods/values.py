"""Arguments that several methods share: weights, borders, activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mlferry.errors import SpecError
from mlferry.layers.methods.table import Params, one_of
from mlferry.spec import weights


def floats(value: ArrayLike | None) -> Any:
    """Weights as float32 or float64 arrays; None stays None."""
    if value is None:
        return None
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.itemsize < 4 else array


def upper_as(field: str) -> Callable[[Any], Params]:
    """A setter of an enum by name, in any case."""
    return lambda value: {field: value.upper()}


def number_as(field: str) -> Callable[[Any], Params]:
    """A setter of an integer in a field of floats."""
    return lambda value: {field: float(value)}


def choice_as(field: str, choices: Mapping[Any, Any]) -> Callable[[Any], Params]:
    """A setter of the value of a choice."""
    return lambda value: {field: one_of(choices, value, field)}


def integers_as(field: str) -> Callable[[Any], Params]:
    """A setter of a list of integers; None sets nothing."""
    return lambda value: {} if value is None else {field: [int(n) for n in value]}


def positive_as(field: str, least: int = 1) -> Callable[[Any], Params]:
    """A setter of an integer that is at least `least`."""

    def set_positive(value: int) -> Params:
        if value < least:
            raise SpecError(f"{field} is {value}; it is at least {least}")
        return {field: value}

    return set_positive


def borders(*edges: tuple[int, int]) -> Params:
    """`BorderAmounts`: the start and the end of every axis."""
    return {"borderAmounts": [{"startEdgeSize": start, "endEdgeSize": end} for start, end in edges]}


def edges_of(arguments: SimpleNamespace) -> tuple[tuple[int, int], tuple[int, int]]:
    """The padding of height and width, from the arguments of that name."""
    return (
        (arguments.padding_top, arguments.padding_bottom),
        (arguments.padding_left, arguments.padding_right),
    )


def same_padding(arguments: SimpleNamespace) -> Params:
    """`SamePadding`, from the argument `same_padding_asymmetry_mode`."""
    return {"same": {"asymmetryMode": arguments.same_padding_asymmetry_mode.upper()}}


QUANTIZATION = ("quantization_type", "nbits", "quant_scale", "quant_bias", "quant_lut")


def quantization_of(arguments: SimpleNamespace) -> Params:
    """The arguments that describe quantized weights."""
    return {name: getattr(arguments, name) for name in QUANTIZATION}


def quantized(
    data: bytes,
    channels: int,
    *,
    int8: bool = False,
    quantization_type: str = "linear",
    nbits: int = 8,
    quant_scale: ArrayLike | None = None,
    quant_bias: ArrayLike | None = None,
    quant_lut: Sequence[float] | None = None,
) -> Params:
    """Quantized weights, as fields of `WeightParams`.

    Args:
        data: the packed bits.
        channels: how many output channels the weights have.
        int8: whether activations are quantized at run time; then the bytes are signed.
        quantization_type: "linear" or "lut".
        nbits: of every value, 1 to 8.
        quant_scale: of linear quantization: one, or one per channel.
        quant_bias: likewise.
        quant_lut: the table, of ``2 ** nbits`` values.

    Raises:
        SpecError: arguments that do not fit.
    """
    if not isinstance(data, bytes):
        raise SpecError(f"quantized weights are bytes, not {type(data).__name__}")
    if not 1 <= nbits <= 8:
        raise SpecError(f"nbits={nbits}: 1 to 8 are possible")
    kind = one_of(
        {"LINEAR": "linearQuantization", "LUT": "lookupTableQuantization"},
        quantization_type,
        "quantization_type",
    )
    if kind == "linearQuantization":
        encoding = _linear(channels, quant_scale, quant_bias, nbits, int8=int8)
    else:
        if quant_lut is None or len(quant_lut) != 2**nbits:
            raise SpecError(f"quant_lut has {2**nbits} values for {nbits} bits")
        encoding = {"floatValue": _listed(quant_lut)}
    field = "int8RawValue" if int8 else "rawValue"
    return {field: data, "quantization": {"numberOfBits": nbits, kind: encoding}}


def _linear(
    channels: int, scale: ArrayLike | None, bias: ArrayLike | None, bits: int, *, int8: bool
) -> Params:
    if int8 and (bits != 8 or bias is not None or scale is None or np.size(scale) != 1):
        raise SpecError("int_8_dynamic_quantize takes 8 bits, one quant_scale and no quant_bias")
    fields: Sequence[tuple[str, Any]] = [("scale", scale), *([] if int8 else [("bias", bias)])]
    for name, value in fields:
        if value is None or np.size(value) not in (1, channels):
            raise SpecError(f"quant_{name} has one value, or one for each of {channels} channels")
    return {name: _listed(value) for name, value in fields}


def _listed(values: ArrayLike) -> list[float]:
    return [float(value) for value in np.ravel(values)]


def reordered(
    data: ArrayLike, shape: Sequence[int], axes: Sequence[int], bits: int, *, quantized_: bool
) -> Any:
    """Weights with their axes in another order; quantized ones are unpacked and packed again.

    Args:
        data: an array, or packed bits.
        shape: of the weights before; arrays have their own.
        axes: where the axes come from.
        bits: of every quantized value.
        quantized_: whether `data` are packed bits.
    """
    if not quantized_:
        return floats(data).transpose(axes)
    count = int(np.prod(shape))
    if not isinstance(data, bytes) or len(data) < -(-count * bits // 8):
        raise SpecError(f"{count} weights of {bits} bits are {-(-count * bits // 8)} bytes")
    values = weights.unpack_bits(data, bits, count).reshape(shape)
    return weights.pack_bits(values.transpose(axes), bits)


_RECURRENT = {
    "SIGMOID": "sigmoid",
    "TANH": "tanh",
    "LINEAR": "linear",
    "SIGMOID_HARD": "sigmoidHard",
    "SCALED_TANH": "scaledTanh",
    "RELU": "ReLU",
}


def recurrent_activation(name: object) -> Params:
    """The activation of a recurrent layer, as fields of `ActivationParams`."""
    text = name.decode() if isinstance(name, bytes) else name
    return {one_of(_RECURRENT, text, "activation"): {}}


def gates(names: Iterable[str], suffix: str, values: Sequence[ArrayLike] | None) -> Params:
    """One array per gate, as fields; None sets nothing."""
    if values is None:
        return {}
    listed = list(names)
    if len(values) != len(listed):
        raise SpecError(f"{len(values)} arrays of {suffix}; there is one for {', '.join(listed)}")
    return {f"{name}{suffix}": floats(value) for name, value in zip(listed, values, strict=True)}
