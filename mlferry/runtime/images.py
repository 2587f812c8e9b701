"""Pixels to blobs and back: order of colours, size, scale and bias."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mlferry.errors import PredictionError
from mlferry.layers.kernels import Array
from mlferry.spec import features
from mlferry.spec.features import CHANNELS
from mlferry.spec.proto import features_pb2 as ft, neural_network_pb2 as nn

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIL_MODES = {"RGB": "RGB", "BGR": "RGB", "GRAYSCALE": "L", "GRAYSCALE_FLOAT16": "F"}


def color_layout(feature: ft.ImageFeatureType) -> str:
    """RGB, BGR, GRAYSCALE or GRAYSCALE_FLOAT16."""
    layout = features.LAYOUTS.get(feature.colorSpace)
    if layout is None:
        raise PredictionError(f"an image input with the unknown colour space {feature.colorSpace}")
    return layout


def to_blob(name: str, value: NDArray[Any], feature: ft.ImageFeatureType) -> Array:
    """An image as [1, C, H, W] in the order of the feature's colours, 0 to 255.

    Args:
        name: of the input, for messages.
        value: a PIL image (mode RGB also for BGR features, L for grayscale), or an array of
            0 to 255: [H, W, 3] in the order R, G, B, or [H, W] for grayscale.
        feature: the input's type.

    Raises:
        PredictionError: another mode, shape or size.
    """
    layout = color_layout(feature)
    pixels = _pixels(name, value, layout)
    _check_size(name, pixels.shape[:2], feature)
    blob = np.moveaxis(pixels.astype(np.float32), -1, 0)[None]
    return blob[:, ::-1] if layout == "BGR" else blob


def _pixels(name: str, value: NDArray[Any], layout: str) -> NDArray[Any]:
    mode = getattr(value, "mode", None)
    pil_mode = _PIL_MODES[layout]
    if isinstance(mode, str):
        if mode != pil_mode:
            raise PredictionError(
                f"input {name!r} takes a PIL image of mode {pil_mode!r}, not {mode!r}; "
                f"write image.convert({pil_mode!r})"
            )
        array = np.asarray(value)
    elif isinstance(value, np.ndarray):
        array = value
    else:
        raise PredictionError(
            f"input {name!r} is an image: give a PIL image or an array, not a "
            f"{type(value).__name__}"
        )
    if array.ndim == 2 and CHANNELS[layout] == 1:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] != CHANNELS[layout]:
        shape = "(height, width, 3) in the order R, G, B" if layout[:2] != "GR" else ""
        raise PredictionError(
            f"input {name!r} takes an array of shape {shape or '(height, width)'}, "
            f"not {value.shape if mode is None else array.shape}"
        )
    return array


def _check_size(name: str, size: tuple[int, ...], feature: ft.ImageFeatureType) -> None:
    height, width = size
    kind = feature.WhichOneof("SizeFlexibility")
    if kind == "enumeratedSizes":
        fits = any((s.height, s.width) == (height, width) for s in feature.enumeratedSizes.sizes)
        fits = fits or (feature.height, feature.width) == (height, width)
    elif kind == "imageSizeRange":
        bounds = feature.imageSizeRange
        fits = in_range(height, bounds.heightRange) and in_range(width, bounds.widthRange)
    else:
        fits = (feature.height, feature.width) == (height, width)
    if not fits:
        described = ft.FeatureType(imageType=feature)
        raise PredictionError(
            f"input {name!r} takes an {features.show(described)} (width x height); the image is "
            f"{width} x {height}: write image.resize(({feature.width}, {feature.height}))"
        )


def in_range(size: int, bounds: ft.SizeRange) -> bool:
    """Whether an extent lies in a range; a negative upper bound is no bound."""
    return size >= bounds.lowerBound and (bounds.upperBound < 0 or size <= bounds.upperBound)


def preprocess(
    name: str, blob: Array, layout: str, steps: Iterable[nn.NeuralNetworkPreprocessing]
) -> Array:
    """Apply the network's preprocessing of one input: ``scale * x + bias``, or minus a mean."""
    for step in steps:
        if step.featureName not in ("", name):
            continue
        if step.WhichOneof("preprocessor") == "meanImage":
            mean = np.array(step.meanImage.meanImage, np.float32)
            if mean.size != blob[0].size:
                raise PredictionError(
                    f"the mean image of input {name!r} has {mean.size} values, "
                    f"the image {blob[0].size}"
                )
            blob = blob - mean.reshape(blob.shape[-3:])
            continue
        if step.WhichOneof("preprocessor") is None:
            continue
        scaler = step.scaler
        if layout.startswith("GRAY"):
            bias = [scaler.grayBias]
        else:
            bias = [scaler.redBias, scaler.greenBias, scaler.blueBias]
            bias = bias[::-1] if layout == "BGR" else bias
        shift = np.array(bias, np.float32).reshape(-1, 1, 1)
        blob = np.float32(scaler.channelScale) * blob + shift
    return blob


def from_blob(name: str, blob: Array, feature: ft.ImageFeatureType) -> NDArray[Any]:
    """An image output: [C, H, W] clamped to 0..255 as uint8 [H, W, 3] in R, G, B, or [H, W].

    Values of GRAYSCALE_FLOAT16 are neither clamped nor rounded: float32 [H, W].
    """
    layout = color_layout(feature)
    channels = CHANNELS[layout]
    if blob.ndim < 3 or blob.shape[-3] != channels or blob.size != np.prod(blob.shape[-3:]):
        raise PredictionError(
            f"output {name!r} is an image of {channels} channels; the network made {blob.shape}"
        )
    if layout == "GRAYSCALE_FLOAT16":
        return blob.astype(np.float16).astype(np.float32).reshape(blob.shape[-2:])
    pixels: NDArray[np.uint8] = np.clip(np.rint(blob.reshape(blob.shape[-3:])), 0, 255).astype(
        np.uint8
    )
    if channels == 1:
        return pixels.reshape(pixels.shape[1:])
    return np.moveaxis(pixels[::-1] if layout == "BGR" else pixels, 0, -1)
