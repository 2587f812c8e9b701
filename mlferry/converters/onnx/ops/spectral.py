"""Fourier transforms as products with constant matrices."""

from __future__ import annotations

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import ints, known, positive, shaped
from mlferry.converters.values import Blob
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array


@op("DFT", constants=(1, 2))
def dft(
    context: Lowering, node: Node, x: Blob, length: Array | None = None, axis: Array | None = None
) -> Blob:
    """Real and imaginary parts lie along the last axis; the matrix has both."""
    default = 1 if context.graph.version < 20 else -2
    option = node.attrs.get("axis", default) if axis is None else ints(axis)[0]
    place = positive(option, x.rank)
    inverse, onesided = node.attrs.get("inverse", 0), node.attrs.get("onesided", 0)
    shape = known(x)
    size = ints(length)[0] if length is not None else shape[place]
    full = inverse and onesided
    if full and length is None:
        size = 2 * (shape[place] - 1)
    matrix = _matrix(context, shape[place], size, shape[-1], inverse=inverse, onesided=onesided)
    rest = [i for i in range(x.rank - 1) if i != place]
    order = [*rest, place, x.rank - 1]
    turned = context.transpose(x, order)
    outer = [shape[i] for i in rest]
    flat = context.reshape(turned, (*outer, shape[place] * shape[-1]))
    product = context.matmul(flat, context.constant(matrix))
    parts = 1 if full else 2
    split = context.reshape(product, (*outer, matrix.shape[1] // parts, parts))
    back = [order.index(i) for i in range(x.rank)]
    return context.transpose(split, back)


def _matrix(
    context: Lowering, rows: int, size: int, parts: int, *, inverse: int, onesided: int
) -> Array:
    """[rows * parts, out * 2]: the transform of every unit vector, in double precision."""
    if parts not in (1, 2):
        raise ConversionError(f"the last axis holds real and imaginary parts, not {parts} values")
    context.compute(16 * rows * parts * max(rows, size))
    units = np.eye(rows * parts).reshape(rows * parts, rows, parts)
    values = units[..., 0] + 1j * units[..., 1] if parts == 2 else units[..., 0].astype(complex)
    if inverse and onesided:
        return np.fft.irfft(values, size, axis=1).astype(np.float32)
    output = (np.fft.ifft if inverse else np.fft.fft)(values, size, axis=1)
    if onesided:
        output = output[:, : size // 2 + 1]
    return np.stack([output.real, output.imag], -1).reshape(rows * parts, -1).astype(np.float32)


@op("STFT", constants=(1, 2, 3))
def stft(
    context: Lowering,
    node: Node,
    x: Blob,
    step: Array,
    window: Array | None = None,
    length: Array | None = None,
) -> Blob:
    """Frames times the transform's matrix: a convolution with a kernel per part and frequency."""
    onesided = node.attrs.get("onesided", 1)
    if length is not None:
        size = ints(length)[0]
    elif window is not None:
        size = window.size
    else:
        raise ConversionError("neither a window nor a frame_length")
    shape = known(x)
    parts = shape[2] if len(shape) == 3 else 1
    if parts != 1:
        raise ConversionError("a complex signal")
    matrix = _matrix(context, size, size, 1, inverse=0, onesided=onesided)
    if window is not None:
        matrix = matrix * np.asarray(window, np.float32).reshape(-1, 1)
    batch, samples = shape[:2]
    line = context.reshape(x, (batch, 1, 1, samples))
    output = context.layer(
        "convolution",
        line,
        outputChannels=matrix.shape[1],
        kernelChannels=1,
        nGroups=1,
        kernelSize=(1, size),
        stride=(1, ints(step)[0]),
        dilationFactor=(1, 1),
        weights=np.ascontiguousarray(matrix.T).reshape(-1, 1, 1, size),
        valid={},
    )
    frames = known(output)[3]
    split = context.reshape(output, (batch, matrix.shape[1] // 2, 2, frames))
    return context.transpose(split, (0, 3, 1, 2))


@op("Det")
def det(context: Lowering, node: Node, x: Blob) -> Blob:
    """ad - bc, for matrices of two rows."""
    shape = known(x)
    if shape[-2:] != (2, 2):
        raise ConversionError(f"determinants of {shape}: only of 2 x 2")
    flat = context.reshape(x, (*shape[:-2], 4))
    a, b, c, d = context.split(flat, 4, -1)
    left, right = (context.multiply(*p) for p in ((a, d), (b, c)))
    difference = context.subtract(left, right)
    return shaped(context, difference, shape[:-2])
