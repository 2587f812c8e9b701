"""Layers that people write, in `keras.ops` and layers inside: what tracing is tried on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers as L, ops


class Layer(L.Layer):  # type: ignore[misc]
    """Takes its options as keywords, and gives them back."""

    def __init__(self, name: Any = None, dtype: Any = None, **options: Any) -> None:
        keep = {"trainable": options.pop("trainable")} if "trainable" in options else {}
        super().__init__(name=name, **keep)
        self.options = options
        for key, value in options.items():
            setattr(self, key, value)

    def get_config(self) -> Any:
        return {**super().get_config(), **self.options}

    def weight(self, name: str, *shape: int, trainable: bool = True) -> Any:
        return self.add_weight(
            shape=shape, name=name, initializer="glorot_uniform", trainable=trainable
        )


# ---- attention -------------------------------------------------------------------------


class SelfAttention(Layer):
    def build(self, shape: Any) -> None:
        size = self.heads * self.size
        self.q, self.k, self.v = (L.Dense(size, use_bias=False) for _ in range(3))
        self.out = L.Dense(shape[-1])
        for part in (self.q, self.k, self.v):
            part.build(shape)
        self.out.build((*shape[:-1], size))

    def split(self, x: Any) -> Any:
        return ops.transpose(ops.reshape(x, (-1, x.shape[1], self.heads, self.size)), (0, 2, 1, 3))

    def call(self, x: Any) -> Any:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / math.sqrt(self.size)
        result = ops.transpose(ops.matmul(ops.softmax(scores, axis=-1), v), (0, 2, 1, 3))
        return self.out(ops.reshape(result, (-1, x.shape[1], self.heads * self.size)))


class BahdanauAttention(Layer):
    def build(self, shape: Any) -> None:
        self.w = self.weight("w", shape[-1], shape[-1])
        self.b = self.weight("b", shape[-1])
        self.u = self.weight("u", shape[-1], 1)

    def call(self, x: Any) -> Any:
        scores = ops.matmul(ops.tanh(ops.matmul(x, self.w) + self.b), self.u)
        return ops.sum(x * ops.softmax(scores, axis=1), axis=1)


class MaskedAttentionPooling(Layer):
    def build(self, shape: Any) -> None:
        self.u = self.weight("u", shape[-1], 1)

    def call(self, x: Any, mask: Any = None) -> Any:
        scores = ops.squeeze(ops.matmul(x, self.u), -1)
        if mask is not None:
            scores = ops.where(mask, scores, -1e9)
        return ops.einsum("bt,btf->bf", ops.softmax(scores), x)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return None


class LuongAttention(Layer):
    """Two inputs, two outputs."""

    def build(self, shapes: Any) -> None:
        self.w = self.weight("w", shapes[1][-1], shapes[0][-1])

    def call(self, inputs: Any) -> Any:
        queries, values = inputs
        scores = ops.einsum("bqf,bvf->bqv", queries, ops.matmul(values, self.w))
        weights = ops.softmax(scores, axis=-1)
        return ops.matmul(weights, values), weights


class RelativeBias(Layer):
    def build(self, shape: Any) -> None:
        self.table = self.weight("table", 2 * shape[1] - 1, 1)

    def call(self, x: Any) -> Any:
        count = x.shape[1]
        places = np.arange(count)[:, None] - np.arange(count)[None] + count - 1
        bias = ops.reshape(ops.take(self.table, places.reshape(-1), axis=0), (count, count))
        return ops.matmul(ops.softmax(ops.matmul(x, ops.transpose(x, (0, 2, 1))) + bias), x)


# ---- attention over channels and places ------------------------------------------------


class SqueezeExcite(Layer):
    def build(self, shape: Any) -> None:
        self.down = L.Dense(max(shape[-1] // self.ratio, 1), activation="relu")
        self.up = L.Dense(shape[-1], activation="sigmoid")
        self.down.build((None, shape[-1]))
        self.up.build((None, max(shape[-1] // self.ratio, 1)))

    def call(self, x: Any) -> Any:
        gate = self.up(self.down(ops.mean(x, axis=(1, 2))))
        return x * ops.expand_dims(ops.expand_dims(gate, 1), 1)


class CBAM(Layer):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.mlp = keras.Sequential([L.Dense(2, activation="relu"), L.Dense(4)])
        self.conv = L.Conv2D(1, 3, padding="same", activation="sigmoid")

    def call(self, x: Any) -> Any:
        both = self.mlp(ops.mean(x, (1, 2))) + self.mlp(ops.max(x, (1, 2)))
        x = x * ops.sigmoid(both)[:, None, None, :]
        pooled = [ops.mean(x, -1, keepdims=True), ops.max(x, -1, keepdims=True)]
        return x * self.conv(ops.concatenate(pooled, axis=-1))


class EfficientChannelAttention(Layer):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.conv = L.Conv1D(1, 3, padding="same", use_bias=False)

    def call(self, x: Any) -> Any:
        pooled = ops.mean(x, axis=(1, 2))[..., None]
        return x * ops.sigmoid(ops.reshape(self.conv(pooled), (-1, 1, 1, x.shape[-1])))


class GlobalContext(Layer):
    def build(self, shape: Any) -> None:
        self.key = self.weight("key", shape[-1], 1)
        self.value = self.weight("value", shape[-1], shape[-1])

    def call(self, x: Any) -> Any:
        flat = ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3]))
        weights = ops.softmax(ops.matmul(flat, self.key), axis=1)
        context = ops.matmul(ops.transpose(weights, (0, 2, 1)), flat)
        return x + ops.expand_dims(ops.matmul(context, self.value), 1)


# ---- places ----------------------------------------------------------------------------


class SpatialTransformer(Layer):
    """The talk's own layer, by gathers."""

    def call(self, inputs: Any) -> Any:
        image, theta = inputs
        _, height, width, channels = image.shape
        ys, xs = np.meshgrid(
            np.linspace(-1, 1, self.rows), np.linspace(-1, 1, self.columns), indexing="ij"
        )
        grid = np.stack([xs.ravel(), ys.ravel(), np.ones(xs.size)]).astype(np.float32)
        moved = ops.matmul(ops.reshape(theta, (-1, 2, 3)), grid)
        x = (moved[:, 0] + 1) / 2 * (width - 1)
        y = (moved[:, 1] + 1) / 2 * (height - 1)
        left, top = ops.floor(x), ops.floor(y)
        flat = ops.reshape(image, (-1, height * width, channels))
        total: Any = 0.0
        for dy in (0, 1):
            for dx in (0, 1):
                column, row = left + dx, top + dy
                weight = (1 - ops.abs(x - column)) * (1 - ops.abs(y - row))
                inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
                weight = weight * ops.cast(inside, "float32")
                place = ops.clip(row, 0, height - 1) * width + ops.clip(column, 0, width - 1)
                index = ops.cast(place, "int32")[..., None]
                index = ops.broadcast_to(
                    index, (image.shape[0], self.rows * self.columns, channels)
                )
                total = total + weight[..., None] * ops.take_along_axis(flat, index, axis=1)
        return ops.reshape(total, (-1, self.rows, self.columns, channels))


class CoordConv(Layer):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.conv = L.Conv2D(3, 2)

    def call(self, x: Any) -> Any:
        batch, height, width, _ = x.shape
        rows = np.linspace(-1, 1, height, dtype="float32").reshape(1, -1, 1, 1)
        columns = np.linspace(-1, 1, width, dtype="float32").reshape(1, 1, -1, 1)
        rows = ops.broadcast_to(rows, (batch, height, width, 1))
        columns = ops.broadcast_to(columns, (batch, height, width, 1))
        return self.conv(ops.concatenate([x, rows, columns], axis=-1))


class SubPixel(Layer):
    def call(self, x: Any) -> Any:
        _, height, width, channels = x.shape
        r = self.block
        x = ops.reshape(x, (-1, height, width, r, r, channels // r**2))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, height * r, width * r, channels // r**2))


class Patches(Layer):
    def build(self, shape: Any) -> None:
        self.project = L.Dense(5)
        self.project.build((None, None, self.size**2 * shape[-1]))

    def call(self, x: Any) -> Any:
        _, height, width, channels = x.shape
        s = self.size
        x = ops.reshape(x, (-1, height // s, s, width // s, s * channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4))
        return self.project(ops.reshape(x, (-1, height * width // s**2, s * s * channels)))


class BlurPool(Layer):
    def call(self, x: Any) -> Any:
        line = np.array([1, 2, 1], np.float32)
        kernel = np.repeat((line[:, None] * line / 16)[..., None, None], x.shape[-1], axis=2)
        return ops.depthwise_conv(x, kernel, strides=2, padding="same")


class Upsample(Layer):
    def build(self, shape: Any) -> None:
        self.kernel = self.weight("kernel", 3, 3, 2, shape[-1])

    def call(self, x: Any) -> Any:
        return ops.conv_transpose(x, self.kernel, 2, "same")


class Anchors(Layer):
    """Boxes for every place of a feature map, moved by what the network says."""

    def call(self, x: Any) -> Any:
        batch, height, width, _ = x.shape
        ys, xs = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
        centers = np.stack([xs, ys], -1).reshape(1, -1, 2).astype("float32") * self.stride
        moved = ops.reshape(x, (batch, height * width, 4))
        middle = centers + moved[..., :2] * self.stride
        half = ops.exp(moved[..., 2:]) * (self.stride / 2)
        return ops.concatenate([middle - half, middle + half], axis=-1)


# ---- normalization ---------------------------------------------------------------------


class PixelNorm(Layer):
    def call(self, x: Any) -> Any:
        return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-8)


class InstanceNorm(Layer):
    def build(self, shape: Any) -> None:
        self.scale = self.weight("scale", shape[-1])
        self.shift = self.weight("shift", shape[-1])

    def call(self, x: Any) -> Any:
        mean, variance = ops.moments(x, axes=(1, 2), keepdims=True)
        return self.scale * (x - mean) / ops.sqrt(variance + 1e-3) + self.shift


class GroupNorm(Layer):
    def build(self, shape: Any) -> None:
        self.scale = self.weight("scale", shape[-1])

    def call(self, x: Any) -> Any:
        batch, height, width, channels = x.shape
        g = ops.reshape(x, (batch, height, width, self.groups, channels // self.groups))
        mean = ops.mean(g, (1, 2, 4), keepdims=True)
        variance = ops.var(g, (1, 2, 4), keepdims=True)
        return ops.reshape((g - mean) / ops.sqrt(variance + 1e-5), x.shape) * self.scale


class WeightStandardization(Layer):
    """A convolution whose kernel is brought to a mean of 0 and a deviation of 1."""

    def build(self, shape: Any) -> None:
        self.kernel = self.weight("kernel", 3, 3, shape[-1], self.filters)
        self.bias = self.weight("bias", self.filters)

    def call(self, x: Any) -> Any:
        mean = ops.mean(self.kernel, axis=(0, 1, 2), keepdims=True)
        deviation = ops.std(self.kernel, axis=(0, 1, 2), keepdims=True)
        kernel = (self.kernel - mean) / (deviation + 1e-5)
        return ops.conv(x, kernel, strides=1, padding="same") + self.bias


class Squash(Layer):
    """Of capsules."""

    def call(self, x: Any) -> Any:
        square = ops.sum(ops.square(x), axis=-1, keepdims=True)
        return square / (1 + square) / ops.sqrt(square + 1e-7) * x


class UnitSphere(Layer):
    def call(self, x: Any) -> Any:
        return ops.normalize(x, axis=-1)


# ---- activations and gates -------------------------------------------------------------


class Mish(Layer):
    def call(self, x: Any) -> Any:
        return x * ops.tanh(ops.softplus(x))


class SwishBeta(Layer):
    def build(self, shape: Any) -> None:
        self.beta = self.weight("beta", 1)

    def call(self, x: Any) -> Any:
        return x * ops.sigmoid(self.beta * x)


class Snake(Layer):
    def call(self, x: Any) -> Any:
        return x + ops.square(ops.sin(self.a * x)) / self.a


class SReLU(Layer):
    def build(self, shape: Any) -> None:
        self.low = self.weight("low", shape[-1])
        self.high = self.weight("high", shape[-1])

    def call(self, x: Any) -> Any:
        return ops.where(x < self.low, 0.1 * x, ops.minimum(x, ops.abs(self.high)))


class GatedLinearUnit(Layer):
    def build(self, shape: Any) -> None:
        self.both = L.Dense(2 * self.units)
        self.both.build(shape)

    def call(self, x: Any) -> Any:
        value, gate = ops.split(self.both(x), 2, axis=-1)
        return value * ops.sigmoid(gate)


class Highway(Layer):
    def build(self, shape: Any) -> None:
        self.change, self.gate = L.Dense(shape[-1], activation="relu"), L.Dense(shape[-1])
        self.change.build(shape)
        self.gate.build(shape)

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            x = x + 1.0
        gate = ops.sigmoid(self.gate(x))
        return gate * self.change(x) + (1 - gate) * x


class Maxout(Layer):
    def build(self, shape: Any) -> None:
        self.w = self.weight("w", shape[-1], self.units * self.pieces)
        self.b = self.weight("b", self.units * self.pieces)

    def call(self, x: Any) -> Any:
        result = ops.matmul(x, self.w) + self.b
        return ops.max(ops.reshape(result, (-1, self.units, self.pieces)), axis=-1)


class RBF(Layer):
    def build(self, shape: Any) -> None:
        self.centers = self.weight("centers", self.units, shape[-1])

    def call(self, x: Any) -> Any:
        apart = ops.expand_dims(x, 1) - self.centers
        return ops.exp(-self.gamma * ops.sum(ops.square(apart), axis=-1))


class FactorizationMachine(Layer):
    def build(self, shape: Any) -> None:
        self.v = self.weight("v", shape[-1], self.factors)

    def call(self, x: Any) -> Any:
        together = ops.square(ops.matmul(x, self.v))
        apart = ops.matmul(ops.square(x), ops.square(self.v))
        return 0.5 * ops.sum(together - apart, axis=1, keepdims=True)


# ---- positions and words ---------------------------------------------------------------


class Sinusoids(Layer):
    def call(self, x: Any) -> Any:
        count, size = x.shape[1:]
        angles = np.arange(count)[:, None] / 10000 ** (2 * (np.arange(size) // 2) / size)
        table = np.where(np.arange(size) % 2, np.cos(angles), np.sin(angles))
        return x + table[None].astype("float32")


class PositionEmbedding(Layer):
    def build(self, shape: Any) -> None:
        self.words = L.Embedding(self.vocabulary, self.size)
        self.places = L.Embedding(shape[1], self.size)
        self.words.build(shape)
        self.places.build((shape[1],))

    def call(self, ids: Any) -> Any:
        return self.words(ids) + self.places(ops.arange(ids.shape[1]))


class Rotary(Layer):
    def call(self, x: Any) -> Any:
        count, size = x.shape[1:]
        angles = np.arange(count)[:, None] / 100 ** (np.arange(size // 2) / (size // 2))
        cos, sin = (f(angles)[None].astype("float32") for f in (np.cos, np.sin))
        one, two = x[..., : size // 2], x[..., size // 2 :]
        return ops.concatenate([one * cos - two * sin, two * cos + one * sin], axis=-1)


# ---- layers inside layers --------------------------------------------------------------


class TransformerBlock(Layer):
    """Layers of Keras's and of one's own inside."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.attention = SelfAttention(heads=2, size=3)
        self.norms = [L.LayerNormalization(), L.LayerNormalization()]
        self.feed = keras.Sequential([GatedLinearUnit(units=8), L.Dropout(0.5), L.Dense(6)])

    def call(self, x: Any) -> Any:
        x = self.norms[0](x + self.attention(x))
        return self.norms[1](x + self.feed(x))


class ResidualTower(Layer):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.blocks = {
            "a": [L.Conv2D(4, 3, padding="same"), InstanceNorm(), Mish()],
            "b": [L.Conv2D(4, 3, padding="same"), L.BatchNormalization(), SqueezeExcite(ratio=2)],
        }
        self.parts = [*self.blocks["a"], *self.blocks["b"]]

    def call(self, x: Any) -> Any:
        for block in self.blocks.values():
            y = x
            for part in block:
                y = part(y)
            x = x + y
        return x


class TaggerInside(Layer):
    """A masked recurrent layer inside, and its mask passed on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rnn = L.Bidirectional(L.LSTM(3, return_sequences=True))
        self.supports_masking = True

    def call(self, x: Any) -> Any:
        return self.rnn(x)


class Row(NamedTuple):
    """A layer, and the shapes of its inputs without the batch; whole numbers are words."""

    make: Callable[[], Any]
    shapes: tuple[Any, ...]
    words: bool = False


IMAGE, STEPS, VECTOR = (6, 4, 4), (5, 6), (6,)
ROWS: list[Row] = [
    Row(lambda: SelfAttention(heads=2, size=3), (STEPS,)),
    Row(BahdanauAttention, (STEPS,)),
    Row(MaskedAttentionPooling, (STEPS,)),
    Row(LuongAttention, ((3, 6), (5, 4))),
    Row(RelativeBias, (STEPS,)),
    Row(lambda: SqueezeExcite(ratio=2), (IMAGE,)),
    Row(CBAM, (IMAGE,)),
    Row(EfficientChannelAttention, (IMAGE,)),
    Row(GlobalContext, (IMAGE,)),
    Row(lambda: SpatialTransformer(rows=3, columns=5), (IMAGE, (6,))),
    Row(CoordConv, (IMAGE,)),
    Row(lambda: SubPixel(block=2), (IMAGE,)),
    Row(lambda: Patches(size=2), (IMAGE,)),
    Row(BlurPool, (IMAGE,)),
    Row(Upsample, (IMAGE,)),
    Row(lambda: Anchors(stride=8.0), (IMAGE,)),
    Row(PixelNorm, (IMAGE,)),
    Row(InstanceNorm, (IMAGE,)),
    Row(lambda: GroupNorm(groups=2), (IMAGE,)),
    Row(lambda: WeightStandardization(filters=3), (IMAGE,)),
    Row(Squash, (STEPS,)),
    Row(UnitSphere, (VECTOR,)),
    Row(Mish, (IMAGE,)),
    Row(SwishBeta, (IMAGE,)),
    Row(lambda: Snake(a=0.7), (STEPS,)),
    Row(SReLU, (STEPS,)),
    Row(lambda: GatedLinearUnit(units=3), (STEPS,)),
    Row(Highway, (VECTOR,)),
    Row(lambda: Maxout(units=3, pieces=2), (VECTOR,)),
    Row(lambda: RBF(units=3, gamma=0.2), (VECTOR,)),
    Row(lambda: FactorizationMachine(factors=2), (VECTOR,)),
    Row(Sinusoids, (STEPS,)),
    Row(lambda: PositionEmbedding(vocabulary=9, size=4), ((5,),), words=True),
    Row(Rotary, (STEPS,)),
    Row(TransformerBlock, (STEPS,)),
    Row(ResidualTower, (IMAGE,)),
    Row(TaggerInside, (STEPS,)),
]
CLASSES = {
    name: value
    for name, value in globals().items()
    if isinstance(value, type) and issubclass(value, Layer) and value is not Layer
}
