"""`keras.ops` of Fourier transforms; a complex value is a pair of blobs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlferry.converters import fourier
from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.functions import function
from mlferry.converters.keras.ops.signals import window_of
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import known
from mlferry.converters.slices import padded, sliced
from mlferry.converters.values import Blob
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array


@function("RFFT")
def rfft(context: Lowering, node: Node, x: Blob, fft_length: int | None = None) -> fourier.Pair:
    return fourier.rfft(context, x, fft_length)


@function("IRFFT")
def irfft(context: Lowering, node: Node, x: fourier.Pair, fft_length: int | None = None) -> Blob:
    return fourier.irfft(context, x, fft_length)


def _window(window: str | Array | None, length: int, size: int) -> NDArray[np.float64]:
    """A window of `length` samples in the middle of `size`; None is ones over the whole transform.

    Raises:
        ConversionError: it has another length.
    """
    if window is None:
        return np.ones(size)
    values = np.asarray(
        window_of(window, length) if isinstance(window, str) else window, np.float64
    )
    if values.shape != (length,) or length > size:
        raise ConversionError(
            f"a window of shape {values.shape} for frames of {length} and transforms of {size}"
        )
    before = (size - length) // 2
    return np.pad(values, (before, size - length - before))


@function("STFT")
def stft(
    context: Lowering,
    node: Node,
    x: Blob,
    sequence_length: int,
    sequence_stride: int,
    fft_length: int,
    window: str | Array | None = None,
    center: bool = True,
) -> fourier.Pair:
    if center:
        half = fft_length // 2
        amounts = [0] * (x.rank - 1) + [half]
        x = padded(context, x, amounts * 2, "reflect", 0.0)
    frame = _window(window, sequence_length, fft_length)
    return fourier.stft(context, x, frame, sequence_stride, fft_length)


@function("ISTFT")
def istft(
    context: Lowering,
    node: Node,
    x: fourier.Pair,
    sequence_length: int,
    sequence_stride: int,
    fft_length: int,
    length: int | None = None,
    window: str | Array | None = None,
    center: bool = True,
) -> Blob:
    frame = _window(window, sequence_length, fft_length)
    if window is not None:
        frame = fourier.inverse_window(frame, sequence_stride)
    output = fourier.istft(context, x, frame, sequence_stride, fft_length)
    samples = known(output)[-1]
    start = fft_length // 2 if center else 0
    end = samples - start
    if length is not None:
        end = min(samples, start + length)
    return sliced(context, output, [start], [end], [output.rank - 1], None)
