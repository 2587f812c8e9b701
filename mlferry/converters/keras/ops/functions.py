"""Registers functions of `keras.ops` and of TensorFlow inside a functional model.

A converter takes the `Lowering`, the node and the function's arguments by their Keras names:
tensors as blobs, everything else as in the source. Arguments that a call omits come from the node's
options or the converter's own defaults.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from mlferry.converters.frontend import C, Converter
from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.registry import OPS, bound
from mlferry.converters.lowering import Lowering
from mlferry.converters.values import (
    CHANNELS_FIRST,
    SOURCE,
    UNFLATTENED,
    Accepted,
    Argument,
    Blob,
    Results,
)
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Axes

_COMMON = {"axis": "axis", "keepdims": "keepdims"}


def function(
    *names: str,
    tf: Mapping[str, Mapping[str, str]] | None = None,
    layouts: Accepted | Callable[[Node], Accepted] = (SOURCE,),
) -> Callable[[C], C]:
    """Register a converter.

    Args:
        names: the classes of `keras.ops`.
        tf: TensorFlow's names of the same function, each with those argument names that differ from
            Keras's.
        layouts: see the package.
    """

    def decorate(convert: C) -> C:
        parameters = list(inspect.signature(convert).parameters)[2:]
        for name in names:
            OPS.register(f"keras.ops.{name}", layouts=layouts)(_called(convert, parameters, {}))
        for name, renamed in (tf or {}).items():
            OPS.register(f"tf.{name}", layouts=layouts)(_called(convert, parameters, renamed))
        return convert

    return decorate


def _called(convert: Converter, parameters: list[str], renamed: Mapping[str, str]) -> Converter:
    def converter(context: Lowering, node: Node, *inputs: Blob) -> Results:
        theirs = {ours: name for name, ours in renamed.items()}
        names = [theirs.get(name, name) for name in parameters]
        arguments = bound(node, inputs, names)
        entries = {}
        for name, ours in zip(names, parameters, strict=True):
            if name in arguments:
                entries[ours] = arguments[name]
            elif node.attrs.get(ours) is not None:
                entries[ours] = node.attrs[ours]
        node.attrs.get("function")
        node.arguments.get("name")
        return convert(context, node, **entries)

    return converter


def constant(context: Lowering, value: ArrayLike, like: Blob) -> Blob:
    """A number or array as a blob that broadcasts with another.

    Raises:
        ConversionError: it is not a number.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise ConversionError(f"{value!r} is not a number")
    array = array.astype(np.float32)
    if like.layout == CHANNELS_FIRST and array.ndim > 1 and like.rank >= 3:
        array = np.moveaxis(array.reshape((1,) * (like.rank - array.ndim) + array.shape), -1, 1)
    elif like.layout == CHANNELS_FIRST and array.ndim == 1 and like.rank >= 3:
        array = array.reshape((-1,) + (1,) * (like.rank - 2))
    return context.constant(array, layout=like.layout)


def operands(context: Lowering, *values: Argument) -> list[Blob]:
    """Blobs for the arguments of an elementwise function, at least one of which is a blob.

    Raises:
        ConversionError: none of them is a blob.
    """
    blobs = [value for value in values if isinstance(value, Blob)]
    if not blobs:
        raise ConversionError("a function of numbers alone")
    like = max(blobs, key=lambda blob: blob.rank)
    return [v if isinstance(v, Blob) else constant(context, v, like) for v in values]


def axes_of(x: Blob, axis: Axes) -> tuple[int, ...]:
    """The blob's axes for one or several source axes; None means all."""
    if axis is None:
        return tuple(range(x.rank))
    results = axis if isinstance(axis, list | tuple) else (axis,)
    return tuple(x.axis(int(a)) for a in results)


def is_integer(node: Node, place: int = 0) -> bool:
    """Whether an input holds integers."""
    values = node.inputs
    return place < len(values) and values[place].dtype.startswith(("int", "uint"))


ELEMENTWISE: Accepted = UNFLATTENED
