"""What ONNX and TensorFlow converters share: operands that are blobs, constants or None.

A converter takes the `Lowering`, the node and its operands. Operands are blobs; those at the places
named in `constants` are arrays (or None if omitted), and with ``raw=True`` all come as they are:
`Blob`, `Constant` or None. A value without axes is a blob of shape (1,) in the layout `SCALAR`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from mlferry.converters import sizes
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.values import SCALAR, SOURCE, AnyOperand, Blob, Constant, Opaque, Operand
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array, show


def prepared(
    context: Lowering, node: Node, operands: Sequence[Any], constants: Sequence[int]
) -> list[Any]:
    """Blobs, and arrays at the places in `constants`.

    Raises:
        ConversionError: an operand that must be constant is computed, or one is not an array.
    """
    results: list[Any] = []
    for place, x in enumerate(operands):
        if isinstance(x, Opaque):
            name = node.inputs[place].name
            raise ConversionError(f"its input {name!r} is {x.what}, for which Core ML has no blob")
        if x is None:
            results.append(None)
        elif place in constants:
            results.append(array_of(node, place, x))
        else:
            results.append(as_blob(context, x))
    return results


@overload
def as_blob(context: Lowering, x: Operand) -> Blob: ...


@overload
def as_blob(context: Lowering, x: Operand | None) -> Blob | None: ...


def as_blob(context: Lowering, x: Operand | None) -> Blob | None:
    """An operand as a blob: a constant is written into the model now; None stays None."""
    return context.stored(x) if isinstance(x, Constant) else x


def array_of(node: Node, place: int, x: AnyOperand) -> Array:
    """The array of a constant operand; see `constant_of`."""
    return constant_of(node, place, x).array


def constant_of(node: Node, place: int, x: AnyOperand) -> Constant:
    """An operand that must be constant.

    Raises:
        ConversionError: it is computed.
    """
    if isinstance(x, Constant):
        return x
    raise ConversionError(
        f"input {place} ({node.inputs[place].name!r}) must be a constant: Core ML takes it as a "
        "parameter of the layer"
    )


def dtype(node: Node, place: int = 0) -> str:
    """The source's type of an input."""
    return node.inputs[place].dtype


def is_integer(node: Node, place: int = 0) -> bool:
    """Whether an input holds integers."""
    return dtype(node, place).startswith(("int", "uint"))


def known(x: Blob) -> tuple[int, ...]:
    """The shape of a blob, all extents known.

    Raises:
        ConversionError: an extent is flexible.
    """
    if x.is_scalar:
        return ()
    shape = x.known
    sizes.use(x)
    if None in shape:
        raise ConversionError(
            f"the shape {show(shape)} of {x.name!r} is flexible and this op needs it: give fixed "
            "shapes with inputs=[mlferry.TensorType(name=..., shape=...)]"
        )
    return tuple(n for n in shape if n is not None)


def extent(x: Blob, axis: int) -> int:
    """One extent of a blob; others may be flexible.

    Raises:
        ConversionError: it is flexible.
    """
    result = x.known[axis]
    if result is not None:
        sizes.use(x, [axis])
    return known(x)[axis] if result is None else result


def rank(x: Blob) -> int:
    """The number of axes in the source."""
    return 0 if x.is_scalar else x.rank


def positive(axis: int, axes: int) -> int:
    """An axis counted from the front.

    Raises:
        ConversionError: there is no such axis.
    """
    if not -axes <= axis < max(axes, 1):
        raise ConversionError(f"axis {axis} does not exist in a value of rank {axes}")
    return axis % max(axes, 1)


def scalar(x: Blob) -> Blob:
    """A blob of one element as a value without axes."""
    return Blob(x.name, x.shape, SCALAR, x.hidden_by)


def vector(x: Blob) -> Blob:
    """A value without axes as a value of one axis."""
    return Blob(x.name, x.shape, SOURCE, x.hidden_by)


def shaped(context: Lowering, x: Blob, shape: Sequence[int | None]) -> Blob:
    """Reshape to a source shape; ``()`` is a value without axes."""
    if not shape:
        return scalar(x if x.shape == (1,) else context.reshape(x, (1,), layout=SOURCE))
    if x.shape == tuple(shape):
        return vector(x) if x.is_scalar else x
    return context.reshape(x, tuple(shape), layout=SOURCE)


def like(x: Blob, *inputs: Blob) -> Blob:
    """A result that has no axes if none of the inputs has any."""
    return scalar(x) if all(i.is_scalar for i in inputs) else x


def joined(context: Lowering, blobs: Sequence[Blob], axis: int) -> Blob:
    """Blobs one after another along an axis."""
    if len(blobs) == 1:
        return blobs[0]
    return context.concat(blobs, axis)


def channels_first(context: Lowering, x: Blob) -> Blob:
    """[N, *spatial, C] as [N, C, *spatial]."""
    return context.transpose(x, (0, x.rank - 1, *range(1, x.rank - 1)))


def channels_last(context: Lowering, x: Blob) -> Blob:
    """[N, C, *spatial] as [N, *spatial, C]."""
    return context.transpose(x, (0, *range(2, x.rank), 1))


def affine(context: Lowering, x: Blob, scale: float, shift: float = 0.0) -> Blob:
    """scale * x + shift"""
    return context.emit("activation", x, linear={"alpha": scale, "beta": shift})


def truncated(context: Lowering, x: Blob) -> Blob:
    """The integer part: sign(x) * floor(abs(x))."""
    whole = context.emit("floor", context.emit("unary", x, type="ABS"))
    return context.multiply(context.emit("sign", x), whole)


def to_nearest(context: Lowering, x: Blob) -> Blob:
    """The nearest integer; halves are rounded away from 0."""
    whole = context.emit("floor", affine(context, context.emit("unary", x, type="ABS"), 1.0, 0.5))
    return context.multiply(context.emit("sign", x), whole)


def ints(value: Array) -> tuple[int, ...]:
    """Integers of an attribute or an array."""
    return tuple(int(n) for n in np.asarray(value).ravel())


def inner_product(
    context: Lowering, x: Blob, weights: Array, *, stored: object = None, bias: Array | None = None
) -> Blob:
    """Products with each row of weights [outputs, inputs] along the last axis.

    Args:
        x: in the source's order, of up to three axes.
        stored: what to store for the weights, if they are quantized.
        bias: [outputs].
    """
    outputs, inputs = weights.shape
    shift: dict[str, Any] = {} if bias is None else {"hasBias": True, "bias": bias}
    return context.layer(
        "innerProduct",
        x,
        layout=SOURCE,
        inputChannels=inputs,
        outputChannels=outputs,
        weights=weights if stored is None else stored,
        **shift,
    )
