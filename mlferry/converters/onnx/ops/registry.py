"""The registry of ONNX converters and what they share.

A converter takes the `Lowering`, the node and its operands. Operands are blobs; those at the
places named in `constants` are arrays (or None where they are left out), and with ``raw=True``
all come as they are: `Blob`, `Constant` or None.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.graph import Graph, Node
from mlferry.converters.layout import SCALAR, SOURCE, Blob, Constant
from mlferry.converters.lower import Converter, Frontend, Lowering
from mlferry.errors import ConversionError
from mlferry.registry import Registry
from mlferry.spec.shapes.rules import show

OPS: Registry[Converter] = Registry("ONNX op")


def op(
    *names: str, since: int = 1, constants: Sequence[int] = (), raw: bool = False
) -> Callable[[Converter], Converter]:
    """Register a converter; see the module."""

    def decorate(function: Converter) -> Converter:
        @functools.wraps(function)
        def convert(low: Lowering, node: Node, *operands: Any) -> Any:
            return function(low, node, *prepared(low, node, operands, constants))

        OPS.register(*names, since=since)(function if raw else convert)
        return function

    return decorate


def prepared(
    low: Lowering, node: Node, operands: Sequence[Any], constants: Sequence[int]
) -> list[Any]:
    """Blobs, and arrays at the places in `constants`.

    Raises:
        ConversionError: an operand that must be constant is computed.
    """
    found: list[Any] = []
    for place, x in enumerate(operands):
        if x is None:
            found.append(None)
        elif place in constants:
            found.append(array_of(node, place, x))
        else:
            found.append(low.stored(x) if isinstance(x, Constant) else x)
    return found


def array_of(node: Node, place: int, x: Any) -> NDArray[Any]:
    """The array of a constant operand.

    Raises:
        ConversionError: it is computed.
    """
    if isinstance(x, Constant):
        return x.array
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


def refuse_types(node: Node, *kinds: str) -> None:
    """Raise a `ConversionError` where an input is of one of these types."""
    for value in node.inputs:
        if value.dtype in kinds:
            raise ConversionError(f"inputs of type {value.dtype} cannot be converted")


def known(x: Blob) -> tuple[int, ...]:
    """The shape of a blob, all extents known.

    Raises:
        ConversionError: an extent is flexible.
    """
    if x.is_scalar:
        return ()
    shape = x.known
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
    found = x.known[axis]
    return known(x)[axis] if found is None else found


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
    """A blob of one element read as a value without axes."""
    return Blob(x.name, x.shape, SCALAR, x.hidden_by)


def vector(x: Blob) -> Blob:
    """A value without axes read as one of one axis."""
    return Blob(x.name, x.shape, SOURCE, x.hidden_by)


def shaped(low: Lowering, x: Blob, shape: Sequence[int | None]) -> Blob:
    """Reshape to a source shape; ``()`` is a value without axes."""
    if not shape:
        return scalar(x if x.shape == (1,) else low.reshape(x, (1,), layout=SOURCE))
    if x.shape == tuple(shape):
        return vector(x) if x.is_scalar else x
    return low.reshape(x, tuple(shape), layout=SOURCE)


def like(x: Blob, *inputs: Blob) -> Blob:
    """A result that has no axes where none of the inputs has."""
    return scalar(x) if all(i.is_scalar for i in inputs) else x


def emit(low: Lowering, kind: str, *inputs: Blob, **params: Any) -> Blob:
    """A layer whose result has no axes where none of its inputs has."""
    return like(low.layer(kind, *inputs, layout=SOURCE, **params), *inputs)


def affine(low: Lowering, x: Blob, scale: float, shift: float = 0.0) -> Blob:
    """scale * x + shift"""
    return emit(low, "activation", x, linear={"alpha": scale, "beta": shift})


def ints(value: Any) -> tuple[int, ...]:
    """Integers from an attribute or an array."""
    return tuple(int(n) for n in np.asarray(value).ravel())


def fold(node: Node, graph: Graph, arrays: Sequence[Any]) -> Sequence[Any] | None:
    """Evaluate a node of constants in ONNX's own types, with onnx's reference evaluator."""
    if node.op in _NOT_FOLDED or node.proto is None:
        return None
    import onnx
    from onnx.reference import ReferenceEvaluator

    feeds = {
        value.name: array for value, array in zip(node.inputs, arrays, strict=True) if value.name
    }
    infos = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in feeds.items()
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(v.name) for v in node.outputs if v.name]
    opsets = [onnx.helper.make_opsetid(d, v) for d, v in graph.opsets.items()]
    built = onnx.helper.make_model(
        onnx.helper.make_graph([node.proto], "constant", infos, outputs), opset_imports=opsets
    )
    try:
        with np.errstate(all="ignore"):
            made = iter(ReferenceEvaluator(built).run(None, feeds))
    except Exception:
        return None  # what the evaluator lacks is converted like any other node
    found = [next(made) if value.name else None for value in node.outputs]
    if not all(x is None or isinstance(x, np.ndarray | np.generic) for x in found):
        return None
    return [None if x is None else np.asarray(x) for x in found]


_NOT_FOLDED = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike",
               "Bernoulli", "Multinomial", "DequantizeLinear", "If", "Loop", "Scan"}  # fmt: skip

FRONTEND = Frontend("ONNX", OPS, frozenset(), (None,), fold)
