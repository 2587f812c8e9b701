"""Complex numbers, as pairs of blobs.

Ops that only move values, or are linear, convert the two parts one after the other; see
`registry.PARTWISE`.
"""

from __future__ import annotations

from mlferry.converters import fourier
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import affine, ints
from mlferry.converters.tensorflow.ops.elementwise import atan2
from mlferry.converters.tensorflow.ops.registry import (
    Complex,
    joint,
    of_complex,
    op,
    pair_of,
    source,
)
from mlferry.converters.values import AnyOperand, Blob, Constant, Opaque, Operand, Result
from mlferry.errors import ConversionError


def _pair(context: Lowering, x: AnyOperand) -> fourier.Pair:
    """Both parts as blobs in the source's order."""
    pair = pair_of(x)
    return source(context, pair.real), source(context, pair.imag)


@op("Complex", raw=True)
def complex_(context: Lowering, node: Node, real: Operand, imag: Operand) -> Complex:
    return Complex(real, imag)


@op("Real", raw=True, takes_complex=True)
def real_part(context: Lowering, node: Node, x: Operand | Opaque) -> Operand:
    return pair_of(x).real


@op("Imag", raw=True, takes_complex=True)
def imaginary_part(context: Lowering, node: Node, x: Operand | Opaque) -> Operand:
    return pair_of(x).imag


@op("Conj", raw=True, takes_complex=True)
def conjugate(context: Lowering, node: Node, x: Operand) -> Complex:
    real, imag = _pair(context, x)
    return Complex(real, affine(context, imag, -1.0))


@op("ComplexAbs", raw=True, takes_complex=True)
def magnitude(context: Lowering, node: Node, x: Operand | Opaque) -> Blob:
    squares = [joint(context, "multiplyBroadcastable", part, part) for part in _pair(context, x)]
    return context.emit("unary", joint(context, "addBroadcastable", *squares), type="SQRT")


@op("Angle", raw=True, takes_complex=True)
def angle(context: Lowering, node: Node, x: Operand) -> Blob:
    real, imag = _pair(context, x)
    output: Blob = atan2(context, node, imag, real)
    return output


@of_complex("Mul")
def multiplied(context: Lowering, node: Node, x: AnyOperand, y: Operand) -> Complex:
    """(a + bi)(c + di)"""
    (a, b), (c, d) = _pair(context, x), _pair(context, y)

    def product(left: Blob, right: Blob) -> Blob:
        return joint(context, "multiplyBroadcastable", left, right)

    real = joint(context, "subtractBroadcastable", product(a, c), product(b, d))
    return Complex(real, joint(context, "addBroadcastable", product(a, d), product(b, c)))


@of_complex("Square")
def squared(context: Lowering, node: Node, x: Operand) -> Complex:
    output: Complex = multiplied(context, node, x, x)
    return output


@of_complex("Exp")
def exponential(context: Lowering, node: Node, x: Operand) -> Complex:
    """e^a (cos b + i sin b)"""
    real, imag = _pair(context, x)
    size = context.emit("unary", real, type="EXP")
    parts = [
        joint(context, "multiplyBroadcastable", size, context.emit(wave, imag))
        for wave in ("cos", "sin")
    ]
    return Complex(*parts)


@of_complex("Cast")
def cast(context: Lowering, node: Node, x: Operand) -> Result:
    """Casts to the other precision of complex numbers, or to the real part."""
    node.attrs.get("Truncate")
    after = node.outputs[0].dtype
    pair = pair_of(x)
    if after.startswith("complex"):
        return pair
    if after not in ("float32", "float64"):
        raise ConversionError(f"a cast of complex numbers to {after}")
    return pair.real


# ---- transforms ------------------------------------------------------------------------


@op("RFFT", raw=True)
def rfft(context: Lowering, node: Node, x: Operand, length: Operand) -> Complex:
    return Complex(*fourier.rfft(context, source(context, x), _length(node, length)))


@op("IRFFT", raw=True, takes_complex=True)
def irfft(context: Lowering, node: Node, x: Operand | Opaque, length: Operand) -> Blob:
    return fourier.irfft(context, _pair(context, x), _length(node, length))


def _length(node: Node, operand: Operand) -> int:
    if not isinstance(operand, Constant):
        raise ConversionError("a length of the transform that the model computes")
    return ints(operand.array)[0]


@op("FFT", "IFFT", raw=True, takes_complex=True)
def fft(context: Lowering, node: Node, x: Operand) -> Complex:
    return Complex(*fourier.fft(context, _pair(context, x), inverse=node.op == "IFFT"))


@op("FFT2D", "IFFT2D", raw=True, takes_complex=True)
def fft2d(context: Lowering, node: Node, x: Operand) -> Complex:
    """Along the last axis, and along the one before it."""
    parts = _pair(context, x)
    for _ in range(2):
        output = fourier.fft(context, parts, inverse=node.op == "IFFT2D")
        rank = output[0].rank
        axes = (*range(rank - 2), rank - 1, rank - 2)
        real, imag = (context.layer("transpose", part, axes=axes) for part in output)
        parts = real, imag
    return Complex(*parts)
