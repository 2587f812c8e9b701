"""Normalization and softmax: the shape stays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import SpecError
from mlferry.layers.definitions import (
    EXTENTS,
    Entries,
    StoredWeight,
    StoredWeights,
    layer_kind,
    layer_rule,
    per_channel,
    stored_weights,
)
from mlferry.layers.params import Params
from mlferry.numerics.shapes import Shape, axis_of, broadcast, need_rank, show
from mlferry.spec import weights
from mlferry.spec.problems import Problems, error, warning
from mlferry.spec.proto import neural_network_pb2 as nn


@layer_kind(
    "batchnorm", inputs=1, defaults={"epsilon": 1e-05}, positive=("channels",), gradient=True
)
def batchnorm(params: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 3)
    if shape[-3] not in (params.channels, None):
        raise SpecError(
            f"input {show(shape)} has {shape[-3]} channels, the layer takes {params.channels}"
        )
    return [shape]


def scale_and_shift(params: Params) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What stored statistics and weights of a `batchnorm` do together, [channels, 1, 1] each."""
    gamma, beta, mean, variance = (
        params.weight(name, (params.channels, 1, 1))
        for name in ("gamma", "beta", "mean", "variance")
    )
    scale = gamma / np.sqrt(variance + np.float32(params.epsilon))
    return scale, beta - mean * scale


@layer_kind("lrn", inputs=1, defaults={"k": 1.0}, positive=("localSize",))
def lrn(params: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 3)
    if not params.localSize:
        raise SpecError("localSize, the number of channels of a window, is not set")
    return [shape]


@layer_kind("softmax", inputs=1, gradient=True)
@layer_kind("mvn", "l2normalize", inputs=1, defaults={"epsilon": 1e-06})
def across_channels(params: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 3)
    return [shape]


@layer_kind("softmaxND", inputs=1)
def softmax_nd(params: Params, shape: Shape) -> list[Shape]:
    axis_of(params.axis, len(shape))
    return [shape]


def softmax_axis(params: Params) -> int:
    """The axis of a softmax: the channels, if the layer does not say."""
    return -3 if params.kind == "softmax" else int(params.axis)


@layer_kind(
    "layerNormalization",
    inputs=1,
    defaults={"eps": 1e-05},
    lists={"normalizedShape": EXTENTS._replace(least=1)},
)
def layer_normalization(params: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, len(params.normalizedShape))
    inner = shape[len(shape) - len(params.normalizedShape) :]
    if not params.normalizedShape or any(
        extent not in (expected, None)
        for extent, expected in zip(inner, params.normalizedShape, strict=True)
    ):
        raise SpecError(f"input {show(shape)} does not end in {show(params.normalizedShape)}")
    return [shape]


@layer_kind("scale", inputs=1, lists={"shapeScale": Entries((1, 3), 1)})
def scale(params: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 3)
    shapes = [params.shapeScale, params.shapeBias if params.hasBias else (1,)]
    return [broadcast(shape, *map(broadcast_shape, shapes))]


@layer_kind("bias", inputs=1, lists={"shape": Entries((1, 3), 1)})
def bias(params: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 3)
    return [broadcast(shape, broadcast_shape(params.shape))]


def broadcast_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The stored shape of a scale or bias, [C] or [C, H, W], for broadcasting."""
    return (*shape, 1, 1) if len(shape) == 1 else shape


# ---- rules and stored weights ------------------------------------------------------------------


@layer_rule("lrn")
def check_lrn(layer: nn.NeuralNetworkLayer, params: nn.LRNLayerParams) -> Problems:
    """k is positive."""
    if params.k < 0:
        yield warning(f"k is {params.k:g}; it must be positive")


@stored_weights("batchnorm")
def weights_of_batchnorm(
    layer: nn.NeuralNetworkLayer, params: nn.BatchnormLayerParams
) -> StoredWeights:
    for field in ("gamma", "beta"):
        yield StoredWeight(field, getattr(params, field), (params.channels,))
    for field in ("mean", "variance"):
        stored = getattr(params, field)
        yield StoredWeight(
            field, stored, (params.channels,), "computeMeanVar is set", not params.computeMeanVar
        )


@stored_weights("scale")
def weights_of_scale(layer: nn.NeuralNetworkLayer, params: nn.ScaleLayerParams) -> StoredWeights:
    yield per_channel("scale", params, tuple(params.shapeScale))
    yield per_channel("bias", params, tuple(params.shapeBias), "hasBias", params.hasBias)


@stored_weights("bias")
def weights_of_bias_layer(
    layer: nn.NeuralNetworkLayer, params: nn.BiasLayerParams
) -> StoredWeights:
    yield per_channel("bias", params, tuple(params.shape))


@stored_weights("layerNormalization")
def weights_of_layer_normalization(
    layer: nn.NeuralNetworkLayer, params: nn.LayerNormalizationLayerParams
) -> StoredWeights:
    for field in ("gamma", "beta"):
        shape = tuple(params.normalizedShape)
        yield StoredWeight(field, getattr(params, field), shape, floats=(weights.FLOAT32,))


@layer_rule("layerNormalization")
def check_no_quantization(
    layer: nn.NeuralNetworkLayer, params: nn.LayerNormalizationLayerParams
) -> Problems:
    """Gamma and beta have no quantization, not even an empty message."""
    for field in ("gamma", "beta"):
        if getattr(params, field).HasField("quantization"):
            yield warning(f"{field} has a quantization; the format allows none here")


@layer_rule("scale")
def check_shape_of_scale_bias(
    layer: nn.NeuralNetworkLayer, params: nn.ScaleLayerParams
) -> Problems:
    """The bias of a scale layer has 1 or 3 axes."""
    if params.hasBias and len(params.shapeBias) not in (1, 3):
        yield error(f"shapeBias has {len(params.shapeBias)} entries; possible are 1 or 3")
