"""`keras.ops` and TensorFlow's functions inside functional models, against Keras 3 and Keras 2.

A row has the registered name, what is computed of two inputs, and their shapes. Inputs are
normal; rows with `positive` get values from 0.1 to 0.9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.converters.keras.ops import OPS
from mlferry.errors import ConversionError
from tests.converters.keras.cases import skip_if_older
from tests.converters.keras.test_models import kinds, quietly, same_outputs

Library = Callable[[str], Any]
CUBE = (3, 4, 5)
ONES = np.arange(5, dtype=np.float32)
MOVED = np.array([1.2, 0.3, -2.5, -0.2, 0.9, 1.3, 0.01, -0.02], np.float32)


@dataclass(frozen=True)
class Row:
    name: str
    compute: Callable[..., Any]
    shape: tuple[int, ...] = (3, 4)
    other: tuple[int, ...] | None = None
    positive: bool = False
    integers: bool = False


def kernel(*shape: int) -> np.ndarray:
    """Numbers that are the same in every run."""
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def row(name: str, compute: Callable[..., Any], *shapes: tuple[int, ...], **special: bool) -> Row:
    return Row(name, compute, *(shapes or ((3, 4),)), **special)


def _unary(names: str, *, positive: bool = False) -> list[Row]:
    """Functions whose classes have their names in capitals."""
    result = []
    for name in names.split():
        label = "".join(part.capitalize() for part in name.split("_"))
        result.append(
            row(label, lambda o, x, y, name=name: getattr(o, name)(x), CUBE, positive=positive)
        )
    return result


def _binary(names: str, **special: bool) -> list[Row]:
    result = []
    for name in names.split():
        label = "".join(part.capitalize() for part in name.split("_"))
        for compute in (
            lambda o, x, y, name=name: getattr(o, name)(x, y),
            lambda o, x, y, name=name: getattr(o, name)(x, 0.5),
            lambda o, x, y, name=name: getattr(o, name)(0.5, x),
            lambda o, x, y, name=name: getattr(o, name)(ONES + 0.5, x),
        ):
            result.append(row(label, compute, CUBE, **special))
    return result


ROWS = [
    *_unary(
        "square exp exp2 expm1 absolute negative sign floor ceil sin cos tan sinh cosh tanh "
        "arctan arcsinh erf erfc trunc round relu relu6 sigmoid sparse_sigmoid softplus softsign "
        "soft_shrink sparse_plus silu squareplus log_sigmoid leaky_relu hard_sigmoid hard_silu elu "
        "selu gelu celu tanh_shrink hard_tanh hard_shrink softmax log_softmax sparsemax isnan "
        "ones_like zeros_like stop_gradient copy"
    ),
    *_unary(
        "sqrt rsqrt reciprocal log log2 log10 log1p arcsin arccos arctanh", positive=True
    ),
    *_binary("add subtract multiply maximum minimum arctan2 logaddexp"),
    *_binary("divide true_divide floor_divide mod power divide_no_nan", positive=True),
    row("Arctan2", lambda o, x, y: o.arctan2(0.001 * x, o.abs(y) * -1.0 - 1.0)),  # beside pi
    *_binary("equal not_equal less less_equal greater greater_equal"),
    row("Abs", lambda o, x, y: o.abs(x)),
    row("Fabs", lambda o, x, y: o.abs(x)),
    row("Real", lambda o, x, y: o.real(x)),
    row("Fmax", lambda o, x, y: o.maximum(x, y)),
    row("Fmin", lambda o, x, y: o.minimum(x, y)),
    row("Arccosh", lambda o, x, y: o.arccosh(x + 2.0), positive=True),
    row("Glu", lambda o, x, y: o.glu(x), (3, 6)),
    row("Threshold", lambda o, x, y: o.threshold(x, 0.1, 0.7)),
    row("Round", lambda o, x, y: o.round(x, 1)),
    row("LogicalAnd", lambda o, x, y: o.logical_and(x > 0, y > 0)),
    row("LogicalOr", lambda o, x, y: o.logical_or(x > 0, y > 0)),
    row("LogicalXor", lambda o, x, y: o.logical_xor(x > 0, y > 0)),
    row("LogicalNot", lambda o, x, y: o.logical_not(x > 0)),
    row("Where", lambda o, x, y: o.where(x > 0, x, y)),
    row("Where", lambda o, x, y: o.where(x > 0, 1.0, y)),
    row("Clip", lambda o, x, y: o.clip(x, -0.5, 0.3)),
    row("Cast", lambda o, x, y: o.cast(x * 3, "int32")),
    row("Cast", lambda o, x, y: o.cast(o.cast(x > 0, "float32"), "bool")),
    row("SaturateCast", lambda o, x, y: o.saturate_cast(x * 3, "int8")),
    row("FullLike", lambda o, x, y: o.full_like(x, 0.5)),
    row("SquaredDifference", lambda o, x, y: o.square(x - y)),
    row("Power", lambda o, x, y: x**2 + x**3),
    row("Reshape", lambda o, x, y: o.reshape(x, (-1, 12))),
    row("Reshape", lambda o, x, y: o.reshape(x, (-1, 4, 1, 3))),
    row("Transpose", lambda o, x, y: o.transpose(x, (0, 3, 1, 2)), CUBE),
    row("Swapaxes", lambda o, x, y: o.swapaxes(x, 1, -1), CUBE),
    row("Moveaxis", lambda o, x, y: o.moveaxis(x, 1, -1), CUBE),
    row("Moveaxis", lambda o, x, y: o.moveaxis(x, [1, 2], [3, 1]), CUBE),
    row("ExpandDims", lambda o, x, y: o.expand_dims(x, -1)),
    row("ExpandDims", lambda o, x, y: o.expand_dims(x, 1)),
    row("Squeeze", lambda o, x, y: o.squeeze(x, 2), (3, 1, 4)),
    row("BroadcastTo", lambda o, x, y: o.broadcast_to(x, (1, 3, 4)), (1, 4)),
    row("Concatenate", lambda o, x, y: o.concatenate([x, y], axis=-1)),
    row("Concatenate", lambda o, x, y: o.concatenate([x, y, x], axis=1), CUBE),
    row("Append", lambda o, x, y: o.concatenate([x, y], axis=1)),
    row("Stack", lambda o, x, y: o.stack([x, y], axis=1)),
    row("Stack", lambda o, x, y: o.stack([x, y, y], axis=-1)),
    row("Hstack", lambda o, x, y: o.hstack([x, y])),
    row("Vstack", lambda o, x, y: o.vstack([x, y])),
    row("Split", lambda o, x, y: o.split(x, 2, axis=-1)[1]),
    row("Split", lambda o, x, y: o.split(x, [1, 3], axis=-1)[1]),
    row("ArraySplit", lambda o, x, y: o.array_split(x, 3, axis=-1)[0]),
    row("Unstack", lambda o, x, y: o.unstack(x, axis=1)[2]),
    row("Repeat", lambda o, x, y: o.repeat(x, 3, axis=1)),
    row("Tile", lambda o, x, y: o.tile(x, (1, 2, 3))),
    row("Flip", lambda o, x, y: o.flip(x, axis=1)),
    row("Flip", lambda o, x, y: o.flip(x, axis=(1, 2)), CUBE),
    row("Roll", lambda o, x, y: o.roll(x, 2, axis=2)),
    row("Pad", lambda o, x, y: o.pad(x, ((0, 0), (1, 2), (0, 1)))),
    row("Pad", lambda o, x, y: o.pad(x, ((0, 0), (1, 2), (0, 1)), mode="reflect")),
    row("Pad", lambda o, x, y: o.pad(x, ((0, 0), (1, 2), (0, 1)), constant_values=3.0)),
    row("Take", lambda o, x, y: o.take(x, [2, 0, -1], axis=1)),
    row("Take", lambda o, x, y: o.take(x, 1, axis=1)),
    row("TakeAlongAxis", lambda o, x, y: o.take_along_axis(x, np.array([[[1, 0, 3]]]), axis=2),
        (1, 4)),
    row("GetItem", lambda o, x, y: x[:, 1]),
    row("GetItem", lambda o, x, y: x[..., -1]),
    row("GetItem", lambda o, x, y: x[:, 1:3, ::2]),
    row("GetItem", lambda o, x, y: x[:, ::-1, None, 1]),
    row("GetItem", lambda o, x, y: x[:, -2:, ..., :-1], CUBE),
    row("Slice", lambda o, x, y: o.slice(x, (0, 1, 0), (1, 2, 3))),
    row("Tril", lambda o, x, y: o.tril(x)),
    row("Triu", lambda o, x, y: o.triu(x, 1)),
    row("DepthToSpace", lambda o, x, y: o.depth_to_space(x, 2), (2, 3, 8)),
    row("SpaceToDepth", lambda o, x, y: o.space_to_depth(x, 2), (4, 6, 3)),
    *(
        row(name.capitalize(), lambda o, x, y, n=name, a=a: getattr(o, n)(x, **a), CUBE)
        for name in ("sum", "mean", "max", "min", "prod", "amax", "amin", "logsumexp", "var", "std")
        for a in ({"axis": -1}, {"axis": (1, 2)}, {"axis": (1, 2), "keepdims": True}, {"axis": 1})
    ),
    row("Any", lambda o, x, y: o.any(x > 0.7, axis=-1)),
    row("All", lambda o, x, y: o.all(x > -0.7, axis=-1)),
    row("CountNonzero", lambda o, x, y: o.count_nonzero(o.relu(x), axis=1)),
    row("Norm", lambda o, x, y: o.norm(x, axis=-1)),
    row("Norm", lambda o, x, y: o.norm(x, ord=1, axis=-1, keepdims=True)),
    row("Normalize", lambda o, x, y: o.normalize(x, axis=-1)),
    row("Normalize", lambda o, x, y: o.normalize(x, axis=1, order=1)),
    row("Argmax", lambda o, x, y: o.argmax(x, axis=-1)),
    row("Argmax", lambda o, x, y: o.argmax(x, axis=1, keepdims=True)),
    row("Argmin", lambda o, x, y: o.argmin(x, axis=-1)),
    row("Cumsum", lambda o, x, y: o.cumsum(x, axis=1)),
    row("TopK", lambda o, x, y: o.top_k(x, 2)[0]),
    row("TopK", lambda o, x, y: o.top_k(x, 2)[1]),
    row("Sort", lambda o, x, y: o.sort(x, axis=-1)),
    row("Matmul", lambda o, x, y: o.matmul(x, o.transpose(y, (0, 2, 1)))),
    row("Conv", lambda o, x, y: o.conv(x, kernel(2, 3, 4, 5), 2, "same"), (7, 6, 4)),
    row("Conv", lambda o, x, y: o.conv(x, kernel(3, 4, 6), dilation_rate=2), (9, 4)),
    row("Conv", lambda o, x, y: o.conv(x, kernel(2, 2, 2, 3, 2)), (4, 3, 5, 3)),
    row("DepthwiseConv", lambda o, x, y: o.depthwise_conv(x, kernel(3, 3, 4, 2), 2, "same"),
        (7, 6, 4)),
    row("SeparableConv", lambda o, x, y: o.separable_conv(
        x, kernel(2, 2, 4, 2), kernel(1, 1, 8, 3), padding="same"), (7, 6, 4)),
    row("MaxPool", lambda o, x, y: o.max_pool(x, 2, 1, "same"), (5, 4, 3)),
    row("MaxPool", lambda o, x, y: o.max_pool(x, 3), (9, 3)),
    row("AveragePool", lambda o, x, y: o.average_pool(x, (2, 3), padding="same"), (5, 4, 3)),
    row("Moments", lambda o, x, y: o.moments(x, (1, 2))[1], (5, 4, 3)),
    row("Moments", lambda o, x, y: o.moments(x, (1, 2), keepdims=True)[0], (5, 4, 3)),
    row("Moments", lambda o, x, y: o.moments(x, -1)[1], (5, 4, 3)),
    row("BatchNorm", lambda o, x, y: o.batch_normalization(
        x, kernel(3), kernel(3) ** 2 + 1, -1, kernel(3), kernel(3)), (5, 4, 3)),
    row("LayerNorm", lambda o, x, y: o.layer_normalization(x, kernel(4), kernel(4)), (3, 4)),
    row("LayerNorm", lambda o, x, y: o.layer_normalization(x, epsilon=1e-3), (3, 4)),
    row("LayerNorm", lambda o, x, y: o.layer_normalization(
        x, kernel(4), rms_scaling=True), (3, 4)),
    row("LayerNorm", lambda o, x, y: o.layer_normalization(
        x, axis=1, rms_scaling=True), (3, 4)),
    row("ConvertToTensor", lambda o, x, y: o.convert_to_tensor(x * 2), (3, 4)),
    row("Matmul", lambda o, x, y: x @ np.ones((4, 2), np.float32)),
    row("Dot", lambda o, x, y: o.dot(x, np.ones((4, 2), np.float32))),
    row("Einsum", lambda o, x, y: o.einsum("btc,bsc->bts", x, y)),
    row("Einsum", lambda o, x, y: o.einsum("...c->...", x)),
    row("Tensordot", lambda o, x, y: o.tensordot(x, np.ones((4, 2), np.float32), axes=1)),
    row("Outer", lambda o, x, y: o.outer(o.reshape(x, (4,)), o.reshape(y, (4,))), (4,)),
    row("OneHot", lambda o, x, y: o.one_hot(o.cast(x, "int32"), 5), (4,), integers=True),
    row("Resize", lambda o, x, y: o.image.resize(x, (5, 9)), (4, 6, 3)),
    row("ExtractPatches", lambda o, x, y: o.image.extract_patches(x, 2), (4, 6, 3)),
    row(
        "ExtractPatches",
        lambda o, x, y: o.image.extract_patches(x, (3, 2), strides=2, padding="same"),
        (5, 6, 2),
    ),
    row("Resize", lambda o, x, y: o.image.resize(x, (9, 5), "nearest"), (4, 6, 3)),
    row(
        "DotProductAttention",
        lambda o, x, y: o.nn.dot_product_attention(x, y, y, is_causal=True),
        (5, 2, 3),
    ),
    row(
        "DotProductAttention",
        lambda o, x, y: o.nn.dot_product_attention(x, y, y, scale=0.3),
        (5, 2, 3),
        (6, 2, 3),
    ),
    row("Ravel", lambda o, x, y: o.ravel(x)),
    row("Argsort", lambda o, x, y: o.argsort(x, axis=-1)),
    row("Argsort", lambda o, x, y: o.argsort(x, axis=1)),
    row("Median", lambda o, x, y: o.median(x, axis=-1)),
    row("Median", lambda o, x, y: o.median(x, axis=(1, 2), keepdims=True), CUBE),
    row("Median", lambda o, x, y: o.median(o.where(x > 1.0, np.nan, x), axis=1), (6, 4)),
    row("Quantile", lambda o, x, y: o.quantile(x, 0.3, axis=-1), CUBE),
    row("Quantile", lambda o, x, y: o.quantile(x, np.array([0.0, 0.2, 1.0]), axis=1), CUBE),
    row("Quantile", lambda o, x, y: o.quantile(
        x, np.array([0.7, 0.2]), axis=(1, 3), keepdims=True), CUBE),
    row("Digitize", lambda o, x, y: o.digitize(x, np.array([-0.5, 0.0, 0.9]))),
    row("Digitize", lambda o, x, y: o.digitize(x, np.array([1, 2, 4])), integers=True),
    row("SearchSorted", lambda o, x, y: o.searchsorted(np.array([0.0, 2.0, 2.0, 3.0], np.float32),
        o.reshape(x, (5,))), (5,), integers=True),
    row("SearchSorted", lambda o, x, y: o.searchsorted(np.array([0.0, 2.0, 2.0, 3.0], np.float32),
        o.reshape(x, (5,)), side="right"), (5,), integers=True),
    row("Isclose", lambda o, x, y: o.isclose(x, o.round(x), 0.1, 0.2)),
    row("Isclose", lambda o, x, y: o.isclose(o.cast(x, "int32"), 3), integers=True),
    row("Isclose", lambda o, x, y: o.isclose(o.sqrt(x), o.sqrt(o.abs(x)), equal_nan=True)),
    row("NanToNum", lambda o, x, y: o.nan_to_num(o.sqrt(x) + y / o.relu(y), 0.5, 3.0, -2.0)),
    row("NanToNum", lambda o, x, y: o.nan_to_num(-x / o.relu(x)) * 1e-30),
    row("Erfinv", lambda o, x, y: o.erfinv(o.clip(x, -0.9999, 0.9999)), CUBE),
    row("Erfinv", lambda o, x, y: o.nan_to_num(o.erfinv(o.sign(x)), posinf=5.0, neginf=-6.0)),
    row("Cross", lambda o, x, y: o.cross(x, y), (4, 3)),
    row("Cross", lambda o, x, y: o.cross(x, y, axis=1), (3, 4)),
    row("Cross", lambda o, x, y: o.cross(x, y, axisa=1, axisb=-1, axisc=1), (2, 4), (4, 3)),
    row("Cross", lambda o, x, y: o.cross(x, np.array([[[0.5, -2.0]]], np.float32)), (4, 2)),
    row("Diagonal", lambda o, x, y: o.diagonal(x, 0, 1, 2)),
    row("Diagonal", lambda o, x, y: o.diagonal(x, -1, -1, 1), CUBE),
    row("Diagonal", lambda o, x, y: o.diagonal(x, 2, 3, 2), CUBE),
    row("Trace", lambda o, x, y: o.trace(x, 0, 1, 2)),
    row("Trace", lambda o, x, y: o.trace(x, 1, -1, -2), CUBE),
    row("Rot90", lambda o, x, y: o.rot90(x, 1, (1, 2)), CUBE),
    row("Rot90", lambda o, x, y: o.rot90(x, 3, (3, 1)), CUBE),
    row("Rot90", lambda o, x, y: o.rot90(x, -2, (1, 2)), (4, 4, 3)),
    row("SliceUpdate", lambda o, x, y: o.slice_update(x, [0, 1, 2], y), (3, 4), (2, 1)),
    row("SliceUpdate", lambda o, x, y: o.slice_update(x, [0, 0, 0, 9], y), CUBE, (3, 2, 2)),
    row("SliceUpdate", lambda o, x, y: o.slice_update(
        x, np.array([0, 2, 0]), np.ones((1, 1, 4), np.float32))),
    *(
        row("ScatterUpdate", lambda o, x, y, r=r: o.scatter_update(
            x, [[0, 1, 1], [0, 2, 0]], np.array([0.5, -0.5], np.float32), reduction=r))
        for r in (None, "add", "max", "min", "mul")
    ),
    row("ScatterUpdate", lambda o, x, y: o.scatter_update(x, np.array([[0, 1], [0, 2]]),
        o.reshape(y, (2, 4))), (3, 4), (2, 4)),
    row("RGBToGrayscale", lambda o, x, y: o.image.rgb_to_grayscale(x), (4, 5, 3)),
    row("RGBToGrayscale", lambda o, x, y: o.image.rgb_to_grayscale(
        x, data_format="channels_first"), (3, 4, 5)),
    row("RGBToGrayscale", lambda o, x, y: o.image.rgb_to_grayscale(x), (4, 5, 1)),
    row("CropImages", lambda o, x, y: o.image.crop_images(x, 1, 2, 1, 0), (5, 6, 3)),
    row("CropImages", lambda o, x, y: o.image.crop_images(
        x, top_cropping=1, right_cropping=2, target_height=3, target_width=2), (5, 6, 3)),
    row("CropImages", lambda o, x, y: o.image.crop_images(
        x, bottom_cropping=0, left_cropping=2, target_height=2, target_width=2,
        data_format="channels_first"), (3, 5, 6)),
    *(
        row("AffineTransform", lambda o, x, y, i=i, f=f: o.image.affine_transform(
            x, MOVED, interpolation=i, fill_mode=f, fill_value=0.3), (6, 7, 2))
        for i in ("nearest", "bilinear") for f in ("constant", "nearest", "reflect", "wrap")
    ),
    row("AffineTransform", lambda o, x, y: o.image.affine_transform(
        x, MOVED[None] * 0.5, data_format="channels_first"), (2, 6, 7)),
    *(
        row("AffineTransform", lambda o, x, y, i=i, f=f: o.image.affine_transform(
            x, 0.1 * y + MOVED, interpolation=i, fill_mode=f, fill_value=0.3), (6, 7, 2), (8,))
        for i in ("nearest", "bilinear") for f in ("constant", "nearest", "reflect", "wrap")
    ),
    row("AffineTransform", lambda o, x, y: o.image.affine_transform(
        o.tile(x, (8, 1, 1, 1)), o.reshape(0.1 * y + MOVED, (8,))), (6, 7, 2), (8,)),
    row("AffineTransform", lambda o, x, y: o.image.affine_transform(
        x, o.mean(x, (2, 3))[:, :1] * MOVED, data_format="channels_first"), (2, 6, 7)),
    row("RFFT", lambda o, x, y: o.rfft(x)[0]),
    row("RFFT", lambda o, x, y: o.rfft(x, fft_length=6)[1], (3, 9)),
    row("RFFT", lambda o, x, y: o.rfft(x, fft_length=16)[1], (3, 9)),
    row("IRFFT", lambda o, x, y: o.irfft((x, y)), (3, 5)),
    row("IRFFT", lambda o, x, y: o.irfft((x, y), fft_length=9), (3, 5)),
    row("IRFFT", lambda o, x, y: o.irfft(o.rfft(x)) - x, (3, 8)),
    row("STFT", lambda o, x, y: o.stft(x, 6, 2, 8)[0], (20,)),
    row("STFT", lambda o, x, y: o.stft(x, 5, 3, 9, window="hamming")[1], (3, 20)),
    row("STFT", lambda o, x, y: o.stft(x, 6, 4, 8, window=None, center=False)[1], (2, 20)),
    row("STFT", lambda o, x, y: o.stft(x, 4, 2, 4, window=[0.5, 1.0, 2.0, 0.0])[0], (9,)),
    row("ISTFT", lambda o, x, y: o.istft((x, y), 6, 2, 8), (7, 5)),
    row("ISTFT", lambda o, x, y: o.istft((x, y), 6, 2, 8, length=9), (2, 7, 5)),
    row("ISTFT", lambda o, x, y: o.istft(
        (x, y), 5, 2, 9, window="hamming", center=False), (4, 5)),
    row("ISTFT", lambda o, x, y: o.istft((x, y), 6, 3, 8, window=None), (4, 5)),
    row("ISTFT", lambda o, x, y: o.istft((x, y), 2, 2, 6, center=False), (4, 4)),
]  # fmt: skip

TF_ROWS = [
    row("__operators__.add", lambda t, x, y: x + y),
    row("math.multiply", lambda t, x, y: x * 2.0 - y / 3.0),
    row("math.subtract", lambda t, x, y: 1.0 - x),
    row("math.divide", lambda t, x, y: 1.0 / (2.0 + x), positive=True),
    row("math.pow", lambda t, x, y: x**3),
    row("math.greater", lambda t, x, y: t.cast(x > y, "float32")),
    row("where", lambda t, x, y: t.where(x > 0.0, x, y)),
    row("nn.relu", lambda t, x, y: t.nn.relu(x)),
    row("nn.relu6", lambda t, x, y: t.nn.relu6(x + 3.0) / 6.0),
    row("nn.leaky_relu", lambda t, x, y: t.nn.leaky_relu(x, alpha=0.3)),
    row("nn.gelu", lambda t, x, y: t.nn.gelu(x)),
    row("nn.softmax", lambda t, x, y: t.nn.softmax(x, axis=1)),
    row("math.sigmoid", lambda t, x, y: t.sigmoid(x)),
    row("math.exp", lambda t, x, y: t.exp(x) + t.sqrt(t.abs(y))),
    row("clip_by_value", lambda t, x, y: t.clip_by_value(x, -0.5, 0.5)),
    row("concat", lambda t, x, y: t.concat([x, y], axis=-1)),
    row("stack", lambda t, x, y: t.stack([x, y], axis=1)),
    row("split", lambda t, x, y: t.split(x, 2, axis=-1)[1]),
    row("split", lambda t, x, y: t.split(x, [1, -1], axis=-1)[1]),
    row("unstack", lambda t, x, y: t.unstack(x, axis=1)[0]),
    row("reshape", lambda t, x, y: t.reshape(x, (-1, 12))),
    row("transpose", lambda t, x, y: t.transpose(x, (0, 2, 1))),
    row("expand_dims", lambda t, x, y: t.expand_dims(x, 1)),
    row("squeeze", lambda t, x, y: t.squeeze(x, axis=[2]), (3, 1, 4)),
    row("tile", lambda t, x, y: t.tile(x, [1, 2, 1])),
    row("pad", lambda t, x, y: t.pad(x, [[0, 0], [1, 1], [0, 2]])),
    row("pad", lambda t, x, y: t.pad(x, [[0, 0], [1, 1], [2, 2], [0, 0]], "REFLECT"), (5, 6, 3)),
    row("gather", lambda t, x, y: t.gather(x, [1, 0], axis=1)),
    row("__operators__.getitem", lambda t, x, y: x[:, 1:, ::2]),
    row("__operators__.getitem", lambda t, x, y: x[..., 0]),
    row("math.reduce_mean", lambda t, x, y: t.reduce_mean(x, axis=[1, 2], keepdims=True), CUBE),
    row("math.reduce_sum", lambda t, x, y: t.reduce_sum(x * y, axis=-1)),
    row("math.reduce_max", lambda t, x, y: t.reduce_max(x, axis=1)),
    row("math.l2_normalize", lambda t, x, y: t.math.l2_normalize(x, axis=-1)),
    row("linalg.matmul", lambda t, x, y: t.matmul(x, y, transpose_b=True)),
    row("math.argmax", lambda t, x, y: t.argmax(x, axis=-1)),
    row("nn.space_to_depth", lambda t, x, y: t.nn.space_to_depth(x, 2), (4, 6, 3)),
    row("nn.depth_to_space", lambda t, x, y: t.nn.depth_to_space(x, 2), (2, 3, 8)),
    row("image.resize", lambda t, x, y: t.image.resize(x, (5, 9)), (4, 6, 3)),
    row("one_hot", lambda t, x, y: t.one_hot(t.cast(x, "int32"), 5), (4,), integers=True),
    row("math.squared_difference", lambda t, x, y: t.math.squared_difference(x, y)),
]


def data_of(row: Row, rng: np.random.Generator) -> list[np.ndarray]:
    shapes = [row.shape, row.other or row.shape]
    if row.integers:
        return [rng.integers(0, 5, (1, *shape)).astype(np.float32) for shape in shapes]
    if row.positive:
        return [rng.uniform(0.1, 0.9, (1, *shape)).astype(np.float32) for shape in shapes]
    return [rng.normal(size=(1, *shape)).astype(np.float32) for shape in shapes]


def built(k: Any, functions: Any, row: Row) -> Any:
    k.backend.clear_session()
    x, y = k.layers.Input(row.shape, name="x"), k.layers.Input(row.other or row.shape, name="y")
    try:
        result = row.compute(functions, x, y)
    except (AttributeError, UnboundLocalError) as error:
        skip_if_older(k, error)
        raise
    try:
        return k.Model([x, y], result)
    except ValueError as error:
        if "not connected" not in str(error):
            raise
        return k.Model(x, result)  # older ones want every input to be read


def labels(rows: list[Row]) -> list[Any]:
    return [pytest.param(row, id=f"{index}-{row.name}") for index, row in enumerate(rows)]


@pytest.mark.parametrize("row", labels(ROWS))
@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
def test_function(row: Row, library: Library, rng: np.random.Generator, tmp_path: Path) -> None:
    k = library("keras")
    model = built(k, k.ops, row)
    data = data_of(row, rng)[: len(model.inputs)]
    try:
        model(data if len(data) > 1 else data[0])
    except Exception as error:
        skip_if_older(k, error)
        raise
    same_outputs(mlferry.convert(model), model, data)
    model.save(tmp_path / "m.keras")
    same_outputs(mlferry.convert(tmp_path / "m.keras"), model, data)


@pytest.mark.parametrize("row", labels(TF_ROWS))
def test_function_of_keras_2(
    row: Row, library: Library, rng: np.random.Generator, tmp_path: Path
) -> None:
    model = built(library("tf_keras"), library("tensorflow"), row)
    data = data_of(row, rng)[: len(model.inputs)]
    same_outputs(mlferry.convert(model), model, data)
    quietly(lambda: model.save(tmp_path / "m.h5"))
    same_outputs(mlferry.convert(tmp_path / "m.h5"), model, data)


def test_every_function_has_a_row() -> None:
    names = {name.removeprefix("keras.ops.") for name in OPS if name.startswith("keras.ops.")}
    without = names - {row.name for row in ROWS}
    # TensorFlow's own, which stand beside Keras's; what Keras itself only runs outside of
    # functional models, which test_tracing has
    assert without == {"TfSplit", "TfShape", "L2Normalize", "ConvTranspose"}


@pytest.mark.parametrize(
    "key",
    [
        np.s_[:, ::-1],
        np.s_[:, :3],
        np.s_[:, -2:0:-1],
        np.s_[:, 1:40:2, ::-2],
        np.s_[:, :-5:-2],
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["keras", "tf_keras"])
def test_parts_of_any_length(key: Any, name: str, library: Library) -> None:
    k = library(name)
    x = k.layers.Input((None, 4))
    length = mlferry.RangeDim(5, 20)
    model = k.Model(x, x[key] * 2.0)
    converted = mlferry.convert(model, inputs=[mlferry.TensorType(shape=(1, length, 4))])
    for count in (5, 6, 20):
        data = np.random.default_rng(count).normal(size=(1, count, 4)).astype(np.float32)
        (feature,) = converted.get_spec().description.input
        (actual,) = converted.predict({feature.name: data}).values()
        np.testing.assert_allclose(actual, data[key] * 2.0, rtol=1e-6)


@pytest.mark.parametrize("turns", range(-1, 5))
def test_rotated_images_of_two_sizes(turns: int, library: Library) -> None:
    """As NumPy does; Keras on TensorFlow mixes up the values of two turns."""
    k = library("keras")
    x = k.layers.Input((2, 3, 4))
    converted = mlferry.convert(k.Model(x, k.ops.rot90(x, turns, (1, 2))))
    data = np.random.default_rng(0).normal(size=(1, 2, 3, 4)).astype(np.float32)
    actual = next(
        iter(converted.predict({converted.get_spec().description.input[0].name: data}).values())
    )
    np.testing.assert_array_equal(actual, np.rot90(data, turns, (1, 2)))


@pytest.mark.parametrize(
    ("compute", "said"),
    [
        (lambda o, x: o.quantile(x, o.mean(x, axis=(0, 1, 2))), "quantiles that the model"),
        (lambda o, x: o.quantile(x, 0.2, axis=1, method="nearest"), "method='nearest'"),
        (lambda o, x: o.digitize(x, np.array([1.0, 0.0])), "are not sorted"),
        (lambda o, x: o.diagonal(x, 3, 2, 1), "no elements"),
        (lambda o, x: o.scatter_update(x, [[0, 3]], x[:, 0]), "beyond the shape"),
    ],
)  # fmt: skip
def test_functions_of_what_cannot_be_converted(
    compute: Callable[..., Any], said: str, library: Library
) -> None:
    k = library("keras")
    x = k.layers.Input((3, 4))
    with pytest.raises(ConversionError, match=said):
        mlferry.convert(k.Model(x, compute(k.ops, x)))


def test_arithmetic_inside_a_convolutional_chain_needs_no_transpose(library: Library) -> None:
    k = library("keras")
    x = k.layers.Input((8, 8, 3))
    y = k.layers.Conv2D(4, 3, padding="same")(x)
    y = k.ops.relu(y * 0.5 + np.arange(4, dtype=np.float32))
    z = k.layers.Conv2D(4, 3, padding="same")(y) + y
    model = k.Model(x, k.ops.mean(z, axis=(1, 2)))
    converted = mlferry.convert(model, inputs=[mlferry.ImageType(channel_first=False)])
    assert "transpose" not in kinds(converted)
    data = [np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)]
    same_outputs(mlferry.convert(model), model, data)


def test_a_shape_that_is_computed_is_refused(library: Library) -> None:
    k, tf = library("tf_keras"), library("tensorflow")
    x = k.layers.Input((3, 4))
    model = k.Model(x, tf.reshape(x, (tf.shape(x)[0], 12)))
    with pytest.raises(ConversionError, match="computed"):
        mlferry.convert(model)


def test_functions_beside_layers_of_the_same_name(
    library: Library, rng: np.random.Generator, tmp_path: Path
) -> None:
    """Files count the folders of layers alone."""
    k = library("keras")
    k.backend.clear_session()
    x = k.layers.Input((4,))
    y = k.layers.Dense(4)(x) + x
    z = k.layers.Add()([y, k.layers.Dense(4)(y)])
    model = k.Model(x, k.ops.concatenate([k.layers.Concatenate()([y, z]), z], axis=-1))
    model.save(tmp_path / "m.keras")
    data = [rng.normal(size=(1, 4)).astype(np.float32)]
    same_outputs(mlferry.convert(tmp_path / "m.keras"), model, data)
