"""The registry of TensorFlow converters and what they share.

A converter takes the `Lowering`, the node and its operands. Operands are blobs in one of the
layouts that `layouts` names; those at the places in `constants` are arrays (negative places
count from the end), and with ``raw=True`` all come as they are: `Blob`, `Constant` or None.
Complex numbers reach those with ``takes_complex=True`` only; see `PARTWISE` for the others.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlferry.converters.frontend import C, Converter, Frontend
from mlferry.converters.graph import Node
from mlferry.converters.layout import arrange
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import affine, array_of, as_blob
from mlferry.converters.tensorflow.evaluation import Computable
from mlferry.converters.values import (
    CHANNELS_FIRST,
    SCALAR,
    SOURCE,
    Accepted,
    AnyOperand,
    Blob,
    Constant,
    Layout,
    Opaque,
    Operand,
    Results,
    blob_of,
)
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array
from mlferry.registry import Registry

OPS: Registry[Converter] = Registry("TensorFlow op")


@dataclass(frozen=True)
class Complex(Opaque):
    """Complex numbers: blobs or constants of one shape."""

    what = "of complex numbers"
    real: Operand
    imag: Operand


def is_complex(x: AnyOperand) -> bool:
    """Whether an operand is complex, known or computed."""
    return isinstance(x, Complex) or (isinstance(x, Constant) and x.array.dtype.kind == "c")


def pair_of(x: AnyOperand) -> Complex:
    """The parts of a complex operand; see `is_complex`."""
    if isinstance(x, Complex):
        return x
    if not isinstance(x, Constant):
        raise ConversionError("a value that is not complex")
    return Complex(
        *(replace(x, name="", array=part.copy()) for part in (x.array.real, x.array.imag))
    )


# Ops that do the same to the real and to the imaginary part of their operands.
PARTWISE = {
    *("Add", "AddN", "AddV2", "Cumsum", "Mean", "Neg", "Sub", "Sum", "ZerosLike"),
    *("BatchToSpaceND", "SpaceToBatchND", "Reshape", "EnsureShape", "ExpandDims", "Squeeze"),
    *("BroadcastTo", "Concat", "ConcatV2", "Pack", "Unpack", "Split", "SplitV", "Tile", "Pad"),
    *("Gather", "GatherNd", "GatherV2", "ReverseV2", "Roll", "Select", "SelectV2", "Transpose"),
    *("Slice", "StridedSlice"),
    *("Identity", "IdentityN", "PreventGradient", "Snapshot", "StopGradient"),
}


_OF_COMPLEX: dict[str, Converter] = {}


def of_complex(name: str) -> Callable[[C], C]:
    """Register a converter for complex operands; see `op` for others."""

    def decorate(function: C) -> C:
        _OF_COMPLEX[name] = function
        return function

    return decorate


def _paired(real: Results, imaginary: Results) -> Complex:
    parts = (
        x if isinstance(x, Operand) else Constant("", np.asarray(x)) for x in (real, imaginary)
    )
    return Complex(*parts)


def _by_parts(convert: Converter) -> Converter:
    """A converter that converts both parts of complex operands alike."""

    @functools.wraps(convert)
    def converted(context: Lowering, node: Node, *operands: AnyOperand) -> Results:
        if not any(map(is_complex, operands)):
            return convert(context, node, *operands)
        if node.op in _OF_COMPLEX:
            return _OF_COMPLEX[node.op](context, node, *operands)
        if node.op not in PARTWISE:
            raise ConversionError(
                f"{node.op} of complex numbers: Core ML has none. Take their parts first, by "
                "tf.math.real and tf.math.imag, or their size by tf.abs"
            )
        pairs = [
            Complex(x, x) if isinstance(x, Operand) and not is_complex(x) else pair_of(x)
            for x in operands
        ]
        real = convert(context, node, *(pair.real for pair in pairs))
        imaginary = convert(context, node, *(pair.imag for pair in pairs))
        if isinstance(real, list | tuple) and isinstance(imaginary, list | tuple):
            return [_paired(*parts) for parts in zip(real, imaginary, strict=True)]
        return _paired(real, imaginary)

    return converted


def op(
    *names: str,
    constants: Sequence[int] = (),
    raw: bool = False,
    takes_complex: bool = False,
    layouts: Accepted = (SOURCE,),
    sizes: bool = False,
) -> Callable[[C], C]:
    """Register a converter; see the module."""

    def decorate(function: C) -> C:
        @functools.wraps(function)
        def convert(context: Lowering, node: Node, *operands: Operand) -> Results:
            places = {place % max(len(operands), 1) for place in constants}
            results: list[Any] = list(operands)
            flowing = [i for i, x in enumerate(operands) if i not in places]
            blobs = context.arranged_inputs(
                [as_blob(context, operands[i]) for i in flowing], layouts
            )
            for place, output in zip(flowing, blobs, strict=True):
                results[place] = output
            for place in places:
                results[place] = array_of(node, place, operands[place])
            return function(context, node, *results)

        output = _within_range(function if raw else convert)
        OPS.register(*names, sizes=sizes)(output if takes_complex else _by_parts(output))
        return function

    return decorate


RANGES = {
    f"{sign}int{bits}": (least, least + 2**bits - 1)
    for bits in (8, 16, 32, 64)
    for sign, least in (("", -(2 ** (bits - 1))), ("u", 0))
}
SMALL = frozenset({"int8", "uint8", "int16", "uint16"})  # whose overflow float32 can tell
_OVERFLOWING = {
    *("Abs", "Add", "AddN", "AddV2", "Mul", "Neg", "Sub"),
    *("Cumsum", "MatMul", "Square", "SquaredDifference", "Sum"),
}
# Whose results may be above 2**24, where float32 does not tell how they overflow.
_BEYOND = {
    **dict.fromkeys(("Cumprod", "Pow", "Prod"), SMALL),
    **dict.fromkeys(
        ("MatMul", "Mul", "Square", "SquaredDifference"), SMALL - frozenset({"int8", "uint8"})
    ),
}


def _within_range(convert: Converter) -> Converter:
    """A converter whose results overflow like small integers."""

    @functools.wraps(convert)
    def converted(context: Lowering, node: Node, *operands: AnyOperand) -> Results:
        output = convert(context, node, *operands)
        dtype = node.outputs[0].dtype if node.outputs else ""
        if dtype in _BEYOND.get(node.op, ()):
            raise ConversionError(
                f"{node.op} of {dtype}: its results overflow, and Core ML's float32 cannot tell "
                "how. Cast its operands to int32 or to a float before"
            )
        overflows = node.op in _OVERFLOWING and dtype in SMALL
        return wrapped(context, blob_of(output), dtype) if overflows else output

    return converted


def wrapped(context: Lowering, x: Blob, dtype: str) -> Blob:
    """Whole numbers without the bits that do not fit a type; large types are left alone."""
    if dtype not in SMALL:
        return x
    least, most = RANGES[dtype]
    count = Constant("", np.float32(most - least + 1))
    moved = affine(context, x, 1.0, -least) if least else x
    rest = joint(context, "modBroadcastable", moved, count)
    return affine(context, rest, 1.0, least) if least else rest


def read_all(node: Node) -> None:
    """Mark every attribute as read: those of control flow only tell TensorFlow how to run it."""
    for name in node.attrs:
        node.attrs.get(name)


def source(context: Lowering, x: Operand) -> Blob:
    """An operand as a blob in the source's order of axes."""
    return context.source_order(as_blob(context, x))


def is_channels_first(node: Node) -> bool:
    """Whether the node itself reads [N, C, ...]."""
    return str(node.attrs.get("data_format", "NHWC")).startswith("NC")


def maps(context: Lowering, node: Node, x: Operand) -> Blob:
    """A channels-first operand, by its layout or because the source has it so."""
    result = as_blob(context, x)
    if is_channels_first(node):
        return context.source_order(result)
    return arrange(context, result, CHANNELS_FIRST)


def spatial(node: Node, values: Sequence[Any]) -> list[Any]:
    """The entries of an attribute for the axes between batch and channels."""
    return list(values[2:]) if is_channels_first(node) else list(values[1:-1])


def permuted(array: Array, x: Blob) -> Array | None:
    """A constant that broadcasts with a blob in the blob's layout; None if that is impossible."""
    if array.size == 1:
        return array.reshape(-1)
    if x.layout == CHANNELS_FIRST:
        if array.ndim > x.rank:
            return None
        full = array.reshape((1,) * (x.rank - array.ndim) + array.shape)
        return np.moveaxis(full, -1, 1)
    if x.layout.kind == "flat":
        inner = x.layout.inner
        sizes = [n for n in inner if n is not None]
        whole = math.prod(sizes) if len(sizes) == len(inner) else -1
        if array.shape[-1] != whole or array.size != whole:
            return None
        return np.moveaxis(array.reshape(sizes), -1, 0).reshape(1, -1)
    return array


def common(context: Lowering, *operands: Operand) -> tuple[list[Blob], Layout]:
    """Operands that broadcast with each other, in one layout.

    Constants are permuted now; blobs of several ranks go to the source's order.
    """
    flowing = [x for x in operands if isinstance(x, Blob) and not x.is_scalar]
    fixed = [x.array for x in operands if isinstance(x, Constant)]
    layout = _shared(flowing)
    lead = next((x for x in flowing if x.layout == layout), None)
    if layout != SOURCE and lead is not None:
        fitting = [permuted(array, lead) for array in fixed]
        if any(array is None for array in fitting):
            layout = SOURCE
    results = []
    for x in operands:
        if isinstance(x, Blob):
            results.append(x if x.is_scalar else arrange(context, x, layout))
        elif layout == SOURCE or lead is None:
            results.append(context.stored(x))
        else:
            ordered = permuted(x.array, lead)
            assert ordered is not None  # else the layout is SOURCE
            results.append(context.constant(ordered, layout=layout))
    if all(x.is_scalar for x in results):
        layout = SCALAR
    return results, layout


def _shared(flowing: Sequence[Blob]) -> Layout:
    """The layout in which blobs broadcast: their own if ranks and layouts are equal."""
    ranks = {None if x.shape is None else x.rank for x in flowing}
    layouts = {x.layout for x in flowing if x.layout.kind == "flat" or (x.shape and x.rank > 2)}
    if len(ranks) > 1 or not layouts:
        return SOURCE
    if len(layouts) == 1:
        return layouts.pop()
    return CHANNELS_FIRST if layouts == {SOURCE, CHANNELS_FIRST} else SOURCE


def joint(context: Lowering, kind: str, *operands: Operand, **params: Any) -> Blob:
    """A layer of several operands that broadcast."""
    result, layout = common(context, *operands)
    return context.layer(kind, *result, layout=layout, **params)


def fold(context: Lowering, node: Node, arrays: Sequence[Any]) -> Sequence[Any] | None:
    """Evaluate an operation of constants with TensorFlow itself."""
    operation = node.proto
    if not foldable(node) or not isinstance(operation, Computable):
        return None
    if node.op in _HANDED_ON:
        return arrays
    size = operation.size(arrays)
    if size is None and node.op not in _NO_LARGER:
        return None
    context.compute(sum(a.nbytes for a in arrays) if size is None else size)
    return operation.result(arrays)


def foldable(node: Node) -> bool:
    """Whether TensorFlow can evaluate an operation of constants on its own."""
    operation = node.proto  # nothing for what TensorFlow does not know
    return (
        isinstance(operation, Computable)
        and not operation.is_stateful
        and node.op not in _NOT_FOLDED
    )


# What shows its operands; every weight of a SavedModel comes through one.
_HANDED_ON = {"Identity", "IdentityN", "PreventGradient", "Snapshot", "StopGradient"}

# Whose size depends on the values, but is not larger than that of the operands.
_NO_LARGER = {
    *("Where", "Unique", "UniqueV2", "UniqueWithCounts", "UniqueWithCountsV2"),
    *("BooleanMask", "DynamicPartition", "ListDiff"),
    *("NonMaxSuppression", "NonMaxSuppressionV2", "NonMaxSuppressionV3"),
    *("NonMaxSuppressionV4", "NonMaxSuppressionV5"),
}


_NOT_FOLDED = {
    *("FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVars"),
    *("FakeQuantWithMinMaxVarsPerChannel", "Dequantize"),
    *("QuantizeAndDequantizeV2", "QuantizeAndDequantizeV3"),
    *("QuantizeAndDequantizeV4", "QuantizeAndDequantizeV4Grad"),
    *("If", "StatelessIf", "While", "StatelessWhile", "Case", "StatelessCase"),
    *("TensorListReserve", "TensorListFromTensor"),
}

# What of their operands they move: the values of one, or of several.
_MOVING = {
    **dict.fromkeys(("Cast", "ExpandDims", "Identity", "Reshape", "Squeeze"), slice(1)),
    **dict.fromkeys(("BroadcastTo", "Tile", "Transpose", "Gather", "GatherV2"), slice(1)),
    **dict.fromkeys(("Slice", "StridedSlice", "SplitV", "Unpack"), slice(1)),
    "Split": slice(1, 2),
    "Concat": slice(1, None),
    "ConcatV2": slice(-1),
    "Pack": slice(None),
}

FRONTEND = Frontend(
    "TensorFlow", OPS, frozenset(), (None,), fold, moving=_MOVING, foldable=foldable, raw=True
)


def refuse(node: Node, name: str, *allowed: object) -> None:
    """Raise a `ConversionError` if an attribute has another value than these."""
    option = node.attrs.get(name, allowed[0])
    if option not in allowed:
        raise ConversionError(
            f"{name}={option!r}: {', '.join(map(repr, allowed))} can be converted"
        )
