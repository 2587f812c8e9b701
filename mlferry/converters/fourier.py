"""Fourier transforms of real signals, for all frontends: products with constant matrices.

Complex values are two blobs: real and imaginary parts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.convolutions import Windows, convolved, transposed
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import extent
from mlferry.converters.values import SOURCE, Blob
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import product

Pair = tuple[Blob, Blob]


def _times(context: Lowering, x: Blob, matrix: NDArray[np.float64]) -> Blob:
    """[..., rows] by [rows, columns]."""
    line = x.rank == 1
    blob = context.expand(x, 0) if line else x
    columns = context.constant(matrix.astype(np.float32), layout=SOURCE)
    output = context.matmul(blob, columns)
    return context.layer("squeeze", output, layout=SOURCE, axes=(0,)) if line else output


def rfft(context: Lowering, x: Blob, length: int | None = None) -> Pair:
    """The frequencies 0 to length // 2 along the last axis.

    Args:
        x: real, in the source's order; the last extent is known.
        length: the signal is cut, or filled with zeros, to this length; by default its own.
    """
    matrix = np.fft.rfft(np.eye(extent(x, x.rank - 1)), length, axis=1)
    return _times(context, x, matrix.real), _times(context, x, matrix.imag)


def fft(context: Lowering, parts: Pair, *, inverse: bool = False) -> Pair:
    """All frequencies along the last axis, or the inverse, which is scaled by 1 / n."""
    real, imag = parts
    size = extent(real, real.rank - 1)
    matrix = (np.fft.ifft if inverse else np.fft.fft)(np.eye(size), axis=1)
    cosine, sine = matrix.real, matrix.imag

    def combined(kind: str, first: NDArray[np.float64], second: NDArray[np.float64]) -> Blob:
        left, right = _times(context, real, first), _times(context, imag, second)
        return context.layer(f"{kind}Broadcastable", left, right, layout=SOURCE)

    return combined("subtract", cosine, sine), combined("add", sine, cosine)


def irfft(context: Lowering, parts: Pair, length: int | None = None) -> Blob:
    """The real signal of `length` values, by default 2 * (frequencies - 1), along the last axis."""
    real, imag = parts
    matrix = _back(extent(real, real.rank - 1), length)
    left, right = _times(context, real, matrix[0]), _times(context, imag, matrix[1])
    return context.add(left, right)


def _back(frequencies: int, length: int | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[frequencies, length], for real and for imaginary parts."""
    size = 2 * (frequencies - 1) if length is None else length
    if size < 1:
        raise ConversionError(f"an inverse transform of {frequencies} frequencies to {size} values")
    unit = np.eye(frequencies)
    return np.fft.irfft(unit, size, axis=1), np.fft.irfft(1j * unit, size, axis=1)


def stft(context: Lowering, x: Blob, window: NDArray[np.float64], step: int, length: int) -> Pair:
    """Transforms of windows of a signal: [..., samples] to [..., frames, length // 2 + 1].

    Args:
        x: in the source's order; all extents but one of the leading ones are known.
        window: of as many samples as one frame has, at most `length`.
        step: samples from one frame to the next.
        length: of the transform.
    """
    size = len(window)
    *outer, samples = x.known
    if samples is not None and samples < size:
        raise ConversionError(f"frames of {size} samples in a signal of {samples}")
    signal = context.reshape(x, (product(outer), 1, samples), layout=SOURCE)
    matrix = np.fft.rfft(np.eye(size) * window[:, None], length, axis=1)
    parts = []
    for part in (matrix.real, matrix.imag):
        kernel = np.ascontiguousarray(part.T[:, None], np.float32)
        output = convolved(context, signal, kernel, Windows([step], [1], [(0, 0)]))
        transposed_output = context.transpose(output, (0, 2, 1))
        parts.append(
            context.reshape(
                transposed_output, (*outer, *transposed_output.known[1:]), layout=SOURCE
            )
        )
    return parts[0], parts[1]


def istft(
    context: Lowering, parts: Pair, window: NDArray[np.float64], step: int, length: int
) -> Blob:
    """Signals of frames, which overlap: [..., frames, frequencies] to [..., samples].

    Args:
        parts: in the source's order, all extents known.
        window: every frame is multiplied with it; at most `length` samples.
        step: samples from one frame to the next.
        length: of the inverse transform, of which each frame is the start.
    """
    *outer, frames, frequencies = parts[0].known
    if frequencies is None:
        raise ConversionError("an inverse transform of an unknown number of frequencies")
    matrix = np.concatenate(_back(frequencies, length))[:, : len(window)] * window
    flat = [
        context.reshape(part, (product(outer), frames, frequencies), layout=SOURCE)
        for part in parts
    ]
    both = context.concat(flat, 2)
    transposed_input = context.transpose(both, (0, 2, 1))
    kernel = np.ascontiguousarray(matrix[:, None], np.float32)
    output = transposed(context, transposed_input, kernel, Windows([step], [1], [(0, 0)]))
    return context.reshape(output, (*outer, output.known[2]), layout=SOURCE)


def inverse_window(window: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """The factors of frames that make their overlapping sum the signal again.

    Samples outside all windows are 0.
    """
    overlaps = -(-len(window) // step)
    squares = np.pad(window**2, (0, overlaps * step - len(window))).reshape(overlaps, step)
    weights = np.tile(squares.sum(axis=0), overlaps)[: len(window)]
    output = np.zeros(len(window))
    np.divide(window, weights, out=output, where=weights != 0)
    return output
