"""Dense, embeddings, preprocessing, and layers that do nothing when a model predicts."""

from __future__ import annotations

import numpy as np

from mlferry.converters.convolutions import Windows, convolved
from mlferry.converters.graph import Node
from mlferry.converters.keras import masks, quantization
from mlferry.converters.keras.ops.linear import projected
from mlferry.converters.keras.ops.registry import count, op, weight
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import affine, extent, inner_product
from mlferry.converters.values import ANY, CHANNELS_FIRST, SOURCE, UNFLATTENED, Argument, Blob
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array
from mlferry.spec.weights import Linear

# Layers that change images in training, and pass them on in prediction.
_AUGMENTATIONS = (
    *("AugMix", "CutMix", "Equalization", "MixUp", "RandAugment", "Solarization"),
    *("RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast"),
    *("RandomCrop", "RandomElasticTransform", "RandomErasing", "RandomFlip"),
    *("RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert"),
    *("RandomPerspective", "RandomPosterization", "RandomRotation", "RandomSaturation"),
    *("RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom"),
    "StochasticDepth",  # of keras.applications
)


PASSED_ON = (
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
    *("GaussianDropout", "GaussianNoise", "AlphaDropout", "ActivityRegularization", "Identity"),
    *_AUGMENTATIONS,
)


@op(*PASSED_ON, layouts=ANY)
def nothing(context: Lowering, node: Node, x: Blob) -> Blob:
    """Active only in training."""
    for name in node.attrs:
        node.attrs.get(name)
    return x


@op(masks.SET, layouts=(SOURCE,))
def masked(context: Lowering, node: Node, *inputs: Blob) -> list[Blob]:
    """An inner model is called with masks: readers of its inputs see them from here on."""
    return []


@op("Dense", layouts=ANY)
def dense(context: Lowering, node: Node, x: Blob) -> Blob:
    """A matrix product along the last axis; a flattening before it permutes its rows."""
    units = count(node, "units")
    bias = weight(node, "bias", units) if node.attrs.get("use_bias", True) else None
    if quantization.mode(node.get_config()):
        blob = context.source_order(x)
        weights = quantization.matrix(node, extent(blob, -1), units)
        return projected(context, blob, node, weights, bias)
    kernel = weight(node, "kernel", None, units)
    if x.layout.kind == "flat":
        rows = kernel.reshape(-1, x.layout.inner[-1] or 1, units)
        kernel = rows.swapaxes(0, 1).reshape(-1, units)
    if x.rank == 4 and x.layout == CHANNELS_FIRST:
        pixels = kernel.T[:, :, None, None]
        windows = Windows((1, 1), (1, 1), [(0, 0), (0, 0)])
        return convolved(context, x, pixels, windows, bias=bias, layout=x.layout)
    x = context.source_order(x) if x.layout != SOURCE and x.layout.kind != "flat" else x
    if x.rank <= 3:
        return inner_product(context, x, kernel.T, bias=bias)
    outer = x.known[:-1]
    flat = context.reshape(x, (None, kernel.shape[0]), layout=SOURCE)
    result = inner_product(context, flat, kernel.T, bias=bias)
    return context.reshape(result, (*outer, units), layout=SOURCE)


@op("Embedding", layouts=(SOURCE,))
def embedding(context: Lowering, node: Node, x: Blob) -> Blob:
    node.attrs.get("mask_zero")
    rows, size = node.attrs["input_dim"], node.attrs["output_dim"]
    if quantization.mode(node.get_config()):
        return _quantized_rows(context, node, x, rows, size)
    return _looked_up(context, x, weight(node, "embeddings", rows, size))


def _looked_up(
    context: Lowering, x: Blob, table: Array, stored: Linear | Array | None = None
) -> Blob:
    """The rows [rows, size] of a table at integers."""
    remaining = np.ascontiguousarray(table.T) if stored is None else stored
    rows, size = table.shape
    wide = context.expand(x, -1)
    return context.layer("embeddingND", wide, vocabSize=rows, embeddingSize=size, weights=remaining)


def _quantized_rows(context: Lowering, node: Node, x: Blob, rows: int, size: int) -> Blob:
    """Integers, minus the zero point of their row, times its scale.

    Core ML has a scale for each column of such a table, Keras one for each row, so the scales are a
    second table.
    """
    codes = quantization.codes_of(node, "embeddings", size)
    scale, zero = quantization.groups_of(node, "embeddings")
    bits = 8 if quantization.mode(node.get_config()) == "int8" else 4
    offset = 1 << (bits - 1)
    stored = Linear(
        np.ascontiguousarray(codes.T + offset).astype(np.uint8),
        bits,
        np.ones(1, np.float32),
        np.full(1, -offset, np.float32),
    )
    output = _looked_up(context, x, codes, stored)
    scale, zero = scale.reshape(rows, -1), zero.reshape(rows, -1)
    owner = node.weight("g_idx").astype(int) if "g_idx" in node.weights else None

    def spread(table: Array) -> Blob:
        result = _looked_up(context, x, table)
        if table.shape[1] == 1 or owner is None:
            return result
        return context.layer("gather", result, context.constant(owner), axis=result.rank - 1)

    if zero.any():
        output = context.layer("subtractBroadcastable", output, spread(zero))
    return context.layer("multiplyBroadcastable", output, spread(scale))


@op("ReversibleEmbedding", layouts=(SOURCE,))
def reversible_embedding(context: Lowering, node: Node, x: Blob) -> Blob:
    """An embedding, or the product with its table, transposed."""
    for name in ("tie_weights", "reverse_dtype", "mask_zero"):
        node.attrs.get(name)
    cap = node.attrs.get("logit_soft_cap")
    if quantization.mode(node.get_config()):
        raise ConversionError("a quantized ReversibleEmbedding")
    rows, size = node.attrs["input_dim"], node.attrs["output_dim"]
    tied = node.attrs.get("tie_weights", True)
    reverse = node.arguments.get("reverse", False)
    if not reverse:
        return _looked_up(context, x, weight(node, "embeddings", rows, size))
    table = (
        weight(node, "embeddings", rows, size).T
        if tied
        else weight(node, "reverse_embeddings", size, rows)
    )
    logits = projected(context, x, node, quantization.QuantizedMatrix(np.ascontiguousarray(table)))
    if cap is None:
        return logits
    flat = context.layer("activation", logits, scaledTanh={"alpha": float(cap), "beta": 1 / cap})
    return flat


@op("Rescaling", layouts=UNFLATTENED)
def rescaling(context: Lowering, node: Node, x: Blob) -> Blob:
    """scale * x + offset; lists apply along the last axis."""
    return rescaled(context, x, node.attrs["scale"], node.attrs.get("offset", 0.0))


def rescaled(context: Lowering, x: Blob, scale: Argument, offset: Argument, axis: int = -1) -> Blob:
    """scale * x + offset for numbers, or for one value for each entry of a source axis."""
    factors, shifts = (np.asarray(v, np.float32) for v in (scale, offset))
    if factors.size == 1 and shifts.size == 1:
        return affine(context, x, factors.item(), shifts.item())
    for values, kind, neutral in (
        (factors, "multiplyBroadcastable", 1.0),
        (shifts, "addBroadcastable", 0.0),
    ):
        if np.all(values == neutral):
            continue
        shape = [1] * x.rank
        shape[x.axis(axis)] = values.size
        constant = context.constant(values.reshape(shape), layout=x.layout)
        x = context.layer(kind, x, constant, layout=x.layout)
    return x


@op("Normalization", layouts=UNFLATTENED)
def normalization(context: Lowering, node: Node, x: Blob) -> Blob:
    """(x - mean) / sqrt(variance) along `axis`, or the inverse."""
    axis = node.attrs.get("axis", -1)
    option = node.attrs.get("mean")
    node.attrs.get("variance")
    if option is None:
        mean, variance = node.weight("mean"), node.weight("variance")
    else:
        mean, variance = (np.asarray(node.attrs[k], np.float32) for k in ("mean", "variance"))
    if isinstance(axis, list | tuple):
        if len(axis) > 1:
            raise ConversionError(f"axis={axis}: one axis can be converted")
        axis = axis[0] if axis else None
    if axis is None and mean.size > 1:
        raise ConversionError(f"axis=None with {mean.size} means")
    spread = np.maximum(np.sqrt(variance.ravel()), np.float32(1e-7))
    mean = mean.ravel()
    if node.attrs.get("invert", False):
        return rescaled(context, x, spread, mean, -1 if axis is None else axis)
    return rescaled(context, x, 1 / spread, -mean / spread, -1 if axis is None else axis)


@op("LayerScale", layouts=UNFLATTENED)
def layer_scale(context: Lowering, node: Node, x: Blob) -> Blob:
    """From keras.applications: each channel times its own number."""
    node.attrs.get("init_values")
    return rescaled(context, x, weight(node, "gamma", node.attrs["projection_dim"]), 0.0)


@op("CustomScaleLayer", layouts=UNFLATTENED)
def custom_scale(context: Lowering, node: Node, x: Blob, y: Blob) -> Blob:
    """From keras.applications: x + scale * y."""
    scaled = rescaled(context, y, node.attrs["scale"], 0.0)
    return context.layer("add", x, scaled, layout=x.layout)
