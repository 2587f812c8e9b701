"""Functions of each value, and of values in pairs."""

from __future__ import annotations

from collections.abc import Callable

from mlferry.onnx_graph.emitter import BINARY_NODES, Emitter
from mlferry.programs.exports import Call, carrier, cast, export, scalar

# ---- one value: ONNX has them under the same names -----------------------------------------------


@export("abs", "sign", moves=True)
def unchanged(emitter: Emitter, call: Call, x: str) -> str:
    return emitter.node(call.op.capitalize(), x)


@export("ceil", "floor", "round")
def rounded(emitter: Emitter, call: Call, x: str) -> str:
    """Halves are rounded to even."""
    return emitter.node(call.op.capitalize(), x) if call.carrier("x") == "float32" else x


@export(
    *("acos", "asin", "atan", "atanh", "cos", "cosh", "sin", "sinh", "tan", "tanh"),
    *("erf", "exp", "sqrt"),
)
def of_floats(emitter: Emitter, call: Call, x: str) -> str:
    y = emitter.node(call.op.capitalize(), _float(emitter, call, x))
    return y if call.dtype == "float32" else cast(emitter, y, call.dtype)


def _float(emitter: Emitter, call: Call, x: str) -> str:
    return x if call.carrier("x") == "float32" else cast(emitter, x, "float32")


@export("exp2")
def exp2(emitter: Emitter, call: Call, x: str) -> str:
    y = emitter.node("Pow", emitter.number(2), _float(emitter, call, x))
    return y if call.dtype == "float32" else cast(emitter, y, call.dtype)


@export("square")
def square(emitter: Emitter, call: Call, x: str) -> str:
    return emitter.node("Mul", x, x)


@export("logical_not")
def logical_not(emitter: Emitter, call: Call, x: str) -> str:
    return emitter.node("Not", x)


@export("inverse")
def inverse(emitter: Emitter, call: Call, x: str, epsilon: float) -> str:
    return emitter.node("Reciprocal", emitter.node("Add", x, emitter.number(epsilon)))


@export("log")
def log(emitter: Emitter, call: Call, x: str, epsilon: float) -> str:
    return emitter.node("Log", emitter.node("Add", x, emitter.number(epsilon)))


@export("rsqrt")
def rsqrt(emitter: Emitter, call: Call, x: str, epsilon: float) -> str:
    root = emitter.node("Sqrt", emitter.node("Add", x, emitter.number(epsilon)))
    return emitter.node("Reciprocal", root)


@export("clip")
def clip(emitter: Emitter, call: Call, x: str, alpha: float, beta: float) -> str:
    bounds = [scalar(emitter, bound, call.dtype) for bound in (alpha, beta)]
    if alpha <= beta:
        return emitter.node("Clip", x, *bounds)
    return emitter.node("Min", emitter.node("Max", x, bounds[0]), bounds[1])


@export("threshold")
def threshold(emitter: Emitter, call: Call, x: str, alpha: float) -> str:
    return emitter.node("Max", x, scalar(emitter, alpha, call.dtype))


@export("cast")
def casted(emitter: Emitter, call: Call, x: str, dtype: str) -> str:
    """Fractions are truncated towards 0; every value but 0 is true."""
    target = carrier(dtype)
    return x if target == call.carrier("x") else cast(emitter, x, target)


_CHOSEN = ("maximum", "minimum")


@export(*_CHOSEN, moves=True)
@export(*(name for name in BINARY_NODES if name not in (*_CHOSEN, "real_div", "pow")))
def binary(emitter: Emitter, call: Call, x: str, y: str) -> str:
    return emitter.node(BINARY_NODES[call.op], x, y)


@export("not_equal")
def not_equal(emitter: Emitter, call: Call, x: str, y: str) -> str:
    return emitter.node("Not", emitter.node("Equal", x, y))


Pair = Callable[[Emitter, str, str], str]


def _rest(emitter: Emitter, x: str, y: str) -> str:
    """The remainder has the sign of the divisor, which may be infinite; ONNX takes the other."""
    rest = emitter.node("Mod", x, y, fmod=1)
    signs = emitter.node("Mul", emitter.node("Sign", rest), emitter.node("Sign", y))
    differ = emitter.node("Less", signs, emitter.node("Abs", signs))
    return emitter.node("Where", differ, emitter.node("Add", rest, y), rest)


_REAL: dict[str, Pair] = {
    "real_div": lambda emitter, x, y: emitter.node("Div", x, y),
    "floor_div": lambda emitter, x, y: emitter.node("Floor", emitter.node("Div", x, y)),
    "mod": _rest,
    "pow": lambda emitter, x, y: emitter.node("Pow", x, y),
}


@export(*_REAL)
def of_reals(emitter: Emitter, call: Call, x: str, y: str) -> str:
    """Integers are computed in float64, which holds all of them and divides by 0 without a trap."""
    if call.carrier("x") == "float32":
        return _REAL[call.op](emitter, x, y)
    wide = [cast(emitter, value, "float64") for value in (x, y)]
    return cast(emitter, _REAL[call.op](emitter, *wide), "int32")
