"""Special functions, value by value, as polynomials and Lanczos' sums in float32.

Core ML has no layer for them. The inverse of the error function is M. Giles' ("Approximating the
erfinv function", 2010); the logarithm of the gamma function and its derivative are those of XLA:
Lanczos' sum for g = 7, and reflection below 1/2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlferry.converters.elementwise import FLOAT_MAX
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import affine
from mlferry.converters.values import Blob

_CENTRAL = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
_TAIL = (
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
)
_LANCZOS_G = 7.0
_LANCZOS_BASE = 0.99999999999980993
_LANCZOS = (
    676.520368121885098567009190444019,
    -1259.13921672240287047156078755283,
    771.3234287776530788486528258894,
    -176.61502916214059906584551354,
    12.507343278686904814458936853,
    -0.13857109526572011689554707,
    9.984369578019570859563e-6,
    1.50563273514931155834e-7,
)


def _log(context: Lowering, x: Blob, shift: float = 0.0) -> Blob:
    return context.emit("unary", x, type="LOG", shift=shift)


def _abs(context: Lowering, x: Blob) -> Blob:
    return context.emit("unary", x, type="ABS")


def _over(context: Lowering, number: float, x: Blob) -> Blob:
    """number / x"""
    return context.divide(context.constant([number], layout=x.layout), x)


def _polynomial(context: Lowering, x: Blob, coefficients: Sequence[float]) -> Blob:
    """A polynomial by Horner's rule, the highest power first."""
    first, second, *rest = coefficients
    output = affine(context, x, first, second)
    for coefficient in rest:
        output = affine(context, context.multiply(output, x), 1.0, coefficient)
    return output


def erfinv(context: Lowering, x: Blob) -> Blob:
    """The inverse of the error function: infinite at -1 and 1, NaN beyond."""
    inside = context.multiply(affine(context, x, -1.0, 1.0), affine(context, x, 1.0, 1.0))
    far = affine(context, _log(context, inside), -1.0)
    far = context.emit("clip", far, minVal=-1.0, maxVal=17.0)  # of 1 - 2**-24: 15.9
    near = context.emit("lessThan", far, alpha=5.0)
    central = _polynomial(context, affine(context, far, 1.0, -2.5), _CENTRAL)
    root = context.emit("unary", _abs(context, far), type="SQRT")
    tail = _polynomial(context, affine(context, root, 1.0, -3.0), _TAIL)
    factor = context.layer("whereBroadcastable", near, central, tail, layout=x.layout)
    within = context.emit("notEqual", _abs(context, x), alpha=1.0)
    return context.divide(context.multiply(factor, x), within)


def _reflected(context: Lowering, x: Blob) -> tuple[Blob, Blob]:
    """Where x is below 1/2, and -x there, else x - 1."""
    low = context.emit("lessThan", x, alpha=0.5)
    moved = context.layer(
        "whereBroadcastable",
        low,
        affine(context, x, -1.0),
        affine(context, x, 1.0, -1.0),
        layout=x.layout,
    )
    return low, moved


def _log_of_shifted(context: Lowering, z: Blob) -> Blob:
    """log(z + g + 1/2)"""
    start = _LANCZOS_G + 0.5
    return affine(context, _log(context, affine(context, z, 1 / start), 1.0), 1.0, math.log(start))


def _lanczos(context: Lowering, z: Blob) -> list[Blob]:
    """The terms of Lanczos' sum but for the first, each divided by z + k."""
    return [
        _over(context, coefficient, affine(context, z, 1.0, float(place)))
        for place, coefficient in enumerate(_LANCZOS, 1)
    ]


def _total(context: Lowering, terms: Sequence[Blob], start: float) -> Blob:
    output = affine(context, terms[0], 1.0, start)
    for term in terms[1:]:
        output = context.add(output, term)
    return output


def lgamma(context: Lowering, x: Blob) -> Blob:
    """log |gamma(x)|: infinite at 0, at the negative integers and at infinity."""
    low, z = _reflected(context, x)
    total = _total(context, _lanczos(context, z), _LANCZOS_BASE)
    log_t = _log_of_shifted(context, z)
    quotient = context.divide(affine(context, z, 1.0, _LANCZOS_G + 0.5), log_t)
    power = context.subtract(affine(context, z, 1.0, 0.5), quotient)
    direct = affine(context, context.multiply(power, log_t), 1.0, 0.5 * math.log(2 * math.pi))
    direct = context.add(direct, _log(context, total))
    size = _abs(context, x)
    fraction = context.subtract(size, context.emit("floor", size))
    fraction = context.minimum(fraction, affine(context, fraction, -1.0, 1.0))
    sine = _log(context, context.emit("sin", affine(context, fraction, math.pi)))
    mirrored = context.subtract(affine(context, sine, -1.0, math.log(math.pi)), direct)
    output = context.layer("whereBroadcastable", low, mirrored, direct, layout=x.layout)
    huge = context.emit("greaterThan", size, alpha=FLOAT_MAX)
    return context.layer("whereBroadcastable", huge, size, output, layout=x.layout)


def digamma(context: Lowering, x: Blob) -> Blob:
    """The derivative of log gamma(x): NaN at 0 and at the negative integers."""
    low, z = _reflected(context, x)
    terms = _lanczos(context, z)
    below = _total(context, terms, _LANCZOS_BASE)
    slopes = [
        context.divide(term, affine(context, z, -1.0, -float(place)))
        for place, term in enumerate(terms, 1)
    ]
    slope = context.divide(_total(context, slopes, 0.0), below)
    shifted = affine(context, z, 1.0, _LANCZOS_G + 0.5)
    direct = context.add(_log_of_shifted(context, z), slope)
    direct = context.subtract(direct, _over(context, _LANCZOS_G, shifted))
    nearest = context.emit("floor", affine(context, x, 1.0, 0.5))
    angle = affine(context, context.subtract(x, nearest), math.pi)
    cotangent = context.divide(context.emit("cos", angle), context.emit("sin", angle))
    mirrored = context.subtract(direct, affine(context, cotangent, math.pi))
    output = context.layer("whereBroadcastable", low, mirrored, direct, layout=x.layout)
    whole = context.emit("equal", x, context.emit("floor", x))
    pole = context.layer(
        "logicalAnd", whole, context.emit("lessEqual", x, alpha=0.0), layout=x.layout
    )
    nothing = context.constant([np.nan], layout=x.layout)
    return context.layer("whereBroadcastable", pole, nothing, output, layout=x.layout)
