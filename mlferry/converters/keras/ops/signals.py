"""Spectrograms: Fourier transforms of windows, as convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.convolutions import Windows, convolved
from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.arithmetic import arctan2
from mlferry.converters.keras.ops.registry import choice, op, weight
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import extent, known
from mlferry.converters.slices import padded
from mlferry.converters.values import SOURCE, Blob
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array
from mlferry.numerics.windows import same_edges

_MODES = ("log", "magnitude", "psd", "real", "imag", "angle", "stft")


def _squares(context: Lowering, real: Blob, imag: Blob) -> Blob:
    first, second = (context.layer("multiply", part, part, layout=SOURCE) for part in (real, imag))
    return context.layer("add", first, second, layout=SOURCE)


def _at_least(context: Lowering, x: Blob, least: float) -> Blob:
    return context.emit("clip", x, minVal=least, maxVal=3.4e38)


@op("STFTSpectrogram", layouts=(SOURCE,))
def stft_spectrogram(context: Lowering, node: Node, x: Blob) -> Blob:
    """The transform of each channel, [batch, channels, frequencies, time] inside."""
    attrs = node.attrs
    for name in ("window", "periodic", "scaling", "fft_length", "trainable"):
        attrs.get(name)
    mode = choice(node, "mode", _MODES, "log")
    length = int(attrs["frame_length"])
    step = int(attrs.get("frame_step") or length // 2)
    first = attrs.get("data_format") == "channels_first"
    x = x if first else context.layer("transpose", x, axes=(0, 2, 1))
    batch, channels, time = known(x)
    signal = context.reshape(x, (batch * channels, 1, time))
    pairs = [(0, 0)]
    if choice(node, "padding", ("valid", "same"), "valid") == "same":
        pairs = [same_edges(time, length, step)]

    def transformed(name: str) -> Blob:
        kernel = weight(node, name, length, 1, None)
        output = convolved(context, signal, kernel.transpose(2, 1, 0), Windows([step], [1], pairs))
        return context.reshape(output, (batch, channels, *known(output)[1:]))

    output = _shown(context, node, mode, transformed)
    if attrs.get("expand_dims", False):
        return context.layer("transpose", output, axes=(0, 1, 3, 2) if first else (0, 3, 2, 1))
    _, _, frequencies, steps = known(output)
    flat = context.reshape(output, (batch, channels * frequencies, steps))
    return flat if first else context.layer("transpose", flat, axes=(0, 2, 1))


def _shown(context: Lowering, node: Node, mode: str, transformed: Callable[..., Any]) -> Blob:
    """The result of a transform in this mode."""
    output: Blob
    if mode in ("real", "imag"):
        output = transformed(f"{mode}_kernel")
        return output
    real, imag = transformed("real_kernel"), transformed("imag_kernel")
    if mode == "angle":
        output = arctan2(context, node, imag, real)
        return output
    if mode == "stft":
        return context.layer("concatND", real, imag, axis=2)
    power = _squares(context, real, imag)
    if mode == "psd":
        twice = np.full((1, 1, extent(power, 2), 1), 2.0)
        twice[:, :, [0, -1]] = 1.0
        return context.layer("multiplyBroadcastable", power, context.constant(twice))
    size = context.emit("unary", _at_least(context, power, 1e-7), type="SQRT")
    if mode == "magnitude":
        return size
    return context.layer("unary", _at_least(context, size, 1e-7), type="LOG")


@op("MelSpectrogram", layouts=(SOURCE,))
def mel_spectrogram(context: Lowering, node: Node, x: Blob) -> Blob:
    """[batch, samples] to [batch, bins, time]."""
    attrs = node.attrs
    size, step = int(attrs["fft_length"]), int(attrs["sequence_stride"])
    length = int(attrs.get("sequence_length") or size)
    rate = float(attrs["sampling_rate"])
    batch, samples = known(x)
    half = size // 2
    wide = padded(context, x, [0, half, 0, half], "reflect", 0.0)
    signal = context.reshape(wide, (batch, 1, samples + 2 * half))
    window = window_of(attrs.get("window"), length)
    before = (size - length) // 2
    window = np.pad(window, (before, size - length - before))
    angles = 2 * np.pi * np.outer(np.arange(half + 1), np.arange(size)) / size
    parts = [
        convolved(
            context,
            signal,
            (wave(angles) * window)[:, None].astype(np.float32),
            Windows([step], [1], [(0, 0)]),
        )
        for wave in (np.cos, np.sin)
    ]
    power = _squares(context, *parts)
    exponent = float(attrs.get("mag_exp", 2.0))
    if exponent != 2:
        power = context.layer("unary", power, type="POWER", alpha=exponent / 2)
    low_edge, high_edge = float(attrs["min_freq"]), float(attrs.get("max_freq") or int(rate / 2))
    bins = _mel(int(attrs["num_mel_bins"]), half + 1, rate, low_edge, high_edge)
    output = context.layer("batchedMatmul", context.constant(bins.T[None]), power)
    least = float(attrs.get("min_power", 1e-10))
    reference, top = float(attrs.get("ref_power", 1.0)), float(attrs.get("top_db", 80.0))
    if not attrs.get("power_to_db", True):
        return output
    logs = context.layer("unary", _at_least(context, output, least), type="LOG")
    shift = -10 * math.log10(max(abs(reference), least))
    decibels = context.layer("activation", logs, linear={"alpha": 10 / math.log(10), "beta": shift})
    most = context.layer("reduceMax", decibels, axes=(0, 1, 2), keepDims=True)
    floor = context.layer("activation", most, linear={"alpha": 1.0, "beta": -top})
    return context.layer("maxBroadcastable", decibels, floor)


def window_of(name: object, length: int) -> NDArray[np.float64]:
    """A periodic window; TensorFlow makes those of an odd length symmetric."""
    if name is None or length == 1:
        return np.ones(length)
    shapes = {"hann": (0.5, 0.5), "hamming": (0.54, 0.46)}
    if name not in shapes:
        raise ConversionError(f"window={name!r}: {', '.join(shapes)} can be converted")
    first, second = shapes[name]
    period = max(length - length % 2, 1)
    return first - second * np.cos(2 * np.pi * np.arange(length) / period)


def _mel(
    count: int, frequencies: int, rate: float, lowest: float, highest: float
) -> NDArray[np.float32]:
    """[frequencies, count]: triangles on the mel scale of HTK, which leaves out 0 Hz."""

    def mel(hertz: object) -> Array:
        return 1127.0 * np.log(1.0 + np.asarray(hertz) / 700.0)

    places = mel(np.linspace(0, rate / 2, frequencies)[1:])[:, None]
    edges = np.linspace(mel(lowest), mel(highest), count + 2)
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (places - left) / (middle - left), (right - places) / (right - middle)
    triangles = np.maximum(0, np.minimum(rising, falling))
    return np.pad(triangles, ((1, 0), (0, 0))).astype(np.float32)
