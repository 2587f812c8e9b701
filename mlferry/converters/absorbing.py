"""Folds constants into the weights of the layer before: y = factor * (W x + b) + shift."""

from __future__ import annotations

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.values import CHANNELS_FIRST, Blob
from mlferry.numerics.shapes import Array
from mlferry.spec import networks, weights
from mlferry.spec.proto import neural_network_pb2 as nn

Weighted = (
    nn.ConvolutionLayerParams
    | nn.Convolution3DLayerParams
    | nn.InnerProductLayerParams
    | nn.BatchedMatMulLayerParams
)
_PRODUCTS = ("innerProduct", "batchedMatmul")  # whose channels are the last axis
_KINDS = ("convolution", "convolution3d", *_PRODUCTS)
_LOOK_BACK = 8  # layers that hold constants may come between


def absorbed(
    context: Lowering,
    node: Node,
    x: Blob,
    *,
    factor: Array | None = None,
    shift: Array | None = None,
    channels_first: bool = False,
) -> Blob | None:
    """Fold a constant for each channel into the layer that made a blob, if that is possible.

    It is for a convolution or an inner product with weights in float32, whose result is read
    here only.

    Args:
        node: that adds or multiplies.
        factor: broadcasts with the value.
        shift: likewise.
        channels_first: whether the channels of the source's images lie behind the batch.

    Returns:
        the result, named after the current node; None if the layer stays as it is.
    """
    array = factor if factor is not None else shift
    layer = _maker(context, x)
    if array is None or layer is None or not context.is_for_node_alone(x, node):
        return None
    kind = layer.WhichOneof("layer") or ""
    params: Weighted = getattr(layer, kind)
    channels = _channels(params)
    axis = 1 - x.rank if channels_first and kind not in _PRODUCTS else -1
    is_last = x.layout == CHANNELS_FIRST or x.rank <= 3 or kind == "batchedMatmul"
    numbers = _a_channel(array, x, channels, axis) if axis != -1 or is_last else None
    if numbers is None:
        return None
    bias = (
        weights.read(params.bias, (channels,)) if params.hasBias else np.zeros(channels, np.float32)
    )
    with np.errstate(all="ignore"):
        changed = bias * numbers if factor is not None else bias + numbers
        if factor is not None and not (np.isfinite(changed).all() and _scale(params, numbers)):
            return None
    if params.hasBias or changed.any():
        params.hasBias = True
        weights.write(params.bias, changed.astype(np.float32))
    return context.renamed(layer, x)


def _channels(params: Weighted) -> int:
    if isinstance(params, nn.BatchedMatMulLayerParams):
        return int(params.weightMatrixSecondDimension)
    return int(params.outputChannels)


def _maker(context: Lowering, x: Blob) -> nn.NeuralNetworkLayer | None:
    """The layer that made a blob, if it has weights and no layer after it reads the blob."""
    layers = context.builder.network.layers
    for layer in reversed(layers[max(0, len(layers) - _LOOK_BACK) :]):
        if x.name in layer.output:
            kind = layer.WhichOneof("layer")
            plain = kind in _KINDS and len(layer.input) == 1
            return layer if plain else None
        if x.name in networks.touched(layer)[0]:
            return None
    return None


def _a_channel(array: Array, x: Blob, channels: int, axis: int) -> Array | None:
    """One number for each channel, which is an axis from the end, if the constant has no others."""
    if array.size == 1 and (x.shape is None or array.ndim <= x.rank):
        return np.broadcast_to(array.reshape(1), (channels,))
    if array.size != channels or x.shape is None or array.ndim > x.rank:
        return None
    fits = array.ndim >= -axis and array.shape[axis] == channels
    return array.reshape(-1) if fits else None


def _scale(params: Weighted, numbers: Array) -> bool:
    """Multiply the weights of every output channel; false if that is not possible."""
    encoding = weights.encoding(params.weights)
    if encoding is None or encoding.kind != "float32":
        return False
    stored = weights.stored(params.weights)
    products = nn.InnerProductLayerParams | nn.BatchedMatMulLayerParams
    if isinstance(params, products) or not params.isDeconvolution:
        scaled = stored.reshape(len(numbers), -1) * numbers[:, None]
    elif params.nGroups > 1:
        return False
    else:
        inputs = (
            params.kernelChannels
            if isinstance(params, nn.ConvolutionLayerParams)
            else params.inputChannels
        )
        scaled = stored.reshape(inputs, params.outputChannels, -1) * numbers[:, None]
    if not np.isfinite(scaled).all():  # sums of infinities differ from an infinite multiple
        return False
    weights.write(params.weights, scaled.astype(np.float32).ravel())
    return True
