"""The last step for scores: `post_transform` of ai.onnx.ml, as onnxruntime computes it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.graph import Node
from mlferry.converters.onnx.ml.flow import Flow
from mlferry.converters.onnx.ml.values import Held, Pending
from mlferry.errors import ConversionError

Transform = Callable[[Flow, Held, int], Held]
_ALMOST_ZERO = 1e-7  # onnxruntime's SOFTMAX_ZERO takes no share for scores up to this magnitude


def transform_of(node: Node) -> str:
    """The node's `post_transform`.

    Raises:
        ConversionError: ONNX has no such transform.
    """
    name = str(node.attrs.get("post_transform", "NONE"))
    if name not in TRANSFORMS:
        raise ConversionError(f"post_transform={name!r}: ONNX has {', '.join(TRANSFORMS)}")
    return name


def transformed(flow: Flow, scores: Held, size: int, name: str) -> Held:
    """Two or more scores, [1, size], transformed; see `TRANSFORMS` for the names."""
    return TRANSFORMS[name](flow, scores, size)


def no_transform(node: Node) -> None:
    """Refuse a transform of one score, which onnxruntime omits, against ONNX's definition.

    Raises:
        ConversionError: the node has one.
    """
    transform = transform_of(node)
    if transform != "NONE":
        raise refused_transform(node, transform)


def refused_transform(node: Node, transform: str) -> ConversionError:
    """The error for a transform that each runtime computes in its own way."""
    return ConversionError(
        f"post_transform={transform!r} of a {node.op.split('.')[-1]}: runtimes do not agree on "
        "it; only NONE is converted"
    )


def _softmax_of_nonzeros(flow: Flow, scores: Held, size: int) -> Held:
    """A softmax among the scores that are not 0; the others stay 0."""
    calc = _Calculator(flow)
    largest = flow.plain("ReduceMax", [scores], None, axes=[1], keepdims=1)
    power = flow.plain("Exp", [calc.binary("Sub", scores, largest)], (1, size))
    magnitude = flow.plain("Abs", [scores], (1, size))
    counts = flow.plain("Greater", [magnitude, calc.number(_ALMOST_ZERO)], (1, size), "bool")
    shares = flow.plain("Where", [counts, power, calc.number(0.0)], (1, size))
    total = flow.plain("ReduceSum", [shares, np.array([1], np.int64)], None, keepdims=1)
    least = flow.plain("Exp", [flow.plain("Neg", [largest], None)], None)
    rest = calc.binary("Mul", scores, least)
    terms = flow.plain("Where", [counts, power, rest], (1, size))
    return calc.binary("Div", terms, total)


def probit(flow: Flow, scores: Held, size: int) -> Held:
    """The quantile of the normal distribution, as onnxruntime approximates it.

    That is S. Winitzki's inverse of the error function, with a = 0.147 and pi = 3.14159.
    """
    calc = _Calculator(flow)
    binary, number = calc.binary, calc.number
    centred = binary("Sub", binary("Mul", scores, number(2.0)), number(1.0))
    square = binary("Mul", centred, centred)
    log = flow.plain("Log", [binary("Add", flow.plain("Neg", [square], None), number(1.0))], None)
    half = binary("Add", binary("Mul", log, number(0.5)), number(2 / (3.14159 * 0.147)))
    inner = binary("Sub", binary("Mul", half, half), binary("Mul", log, number(1 / 0.147)))
    root = flow.plain("Sqrt", [binary("Sub", flow.plain("Sqrt", [inner], None), half)], None)
    quantile = binary("Mul", flow.plain("Sign", [centred], None), root)
    return binary("Mul", quantile, number(1.41421356))


class _Calculator:
    """Arithmetic of values and numbers, as ordinary ops."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def number(self, value: float) -> NDArray[np.float32]:
        """A number that broadcasts against rows."""
        return np.array([[value]], np.float32)

    def binary(self, op: str, left: Held, right: Held | NDArray[np.float32]) -> Pending:
        """The result of an op of two operands."""
        return self._flow.plain(op, [left, right], None)


TRANSFORMS: dict[str, Transform] = {
    "NONE": lambda flow, scores, size: scores,
    "SOFTMAX": lambda flow, scores, size: flow.plain("Softmax", [scores], (1, size), axis=1),
    "LOGISTIC": lambda flow, scores, size: flow.plain("Sigmoid", [scores], (1, size)),
    "SOFTMAX_ZERO": _softmax_of_nonzeros,
    "PROBIT": probit,
}
