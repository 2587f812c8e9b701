"""Random Keras models."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tests.fuzz import halves
from tests.fuzz.network import Half, Network, Oracle

k = keras.layers
Array = np.ndarray[Any, Any]
Step = Callable[[random.Random, Any], Any]
ACTIVATIONS = ("relu", "tanh", "sigmoid", "elu", "selu", "softplus", "softsign", "swish", "gelu",
               "hard_sigmoid", "linear", "relu6", "mish", "exponential", "leaky_relu",
               "hard_silu", "softmax", "log_softmax", "silu", "celu", "tanh_shrink")  # fmt: skip


def each(*rows: tuple[int, Step]) -> dict[int, list[Step]]:
    """Steps by the rank that they take, 0 for any."""
    matches: dict[int, list[Step]] = {rank: [] for rank in (0, 2, 3, 4, 5)}
    for rank, step in rows:
        matches[rank].append(step)
    return matches


def padding(r: random.Random) -> str:
    return r.choice(("same", "valid"))


def some(r: random.Random, axes: int, *values: int) -> tuple[int, ...]:
    return tuple(r.choice(values) for _ in range(axes))


def strided(r: random.Random, axes: int) -> dict[str, Any]:
    """Strides or dilations: Keras allows one of them."""
    if r.random() < 0.3:
        return {"dilation_rate": some(r, axes, 1, 2)}
    return {"strides": r.choice((1, 1, 2, 3))}


def convolution(axes: int) -> Step:
    def step(r: random.Random, x: Any) -> Any:
        channels = x.shape[-1]
        groups = r.choice([n for n in range(1, channels + 1) if channels % n == 0])
        layer = getattr(k, f"Conv{axes}D")
        return layer(groups * r.randint(1, 3), some(r, axes, 1, 2, 3), padding=padding(r),
                     groups=groups, use_bias=r.random() < 0.7, activation=r.choice(ACTIVATIONS[:8]),
                     **strided(r, axes))(x)  # fmt: skip

    return step


def depthwise(name: str, axes: int, **options: Any) -> Step:
    def step(r: random.Random, x: Any) -> Any:
        size = r.choice((1, 2, 3))
        strides = r.choice((1, 1, 2))
        inputs = {"filters": r.randint(1, 4)} if name.startswith("Sep") else {}
        return getattr(k, name)(**inputs, kernel_size=size, strides=strides, padding=padding(r),
                                depth_multiplier=r.choice((1, 1, 2)))(x)  # fmt: skip

    return step


def transposed(axes: int) -> Step:
    def step(r: random.Random, x: Any) -> Any:
        layer = getattr(k, f"Conv{axes}DTranspose")
        return layer(r.randint(1, 4), some(r, axes, 1, 2, 3), padding=padding(r),
                     strides=some(r, axes, 1, 2, 3))(x)  # fmt: skip

    return step


def pooling(name: str, axes: int) -> Step:
    def step(r: random.Random, x: Any) -> Any:
        layer = getattr(k, f"{name}Pooling{axes}D")
        return layer(some(r, axes, 1, 2, 3), strides=r.choice((None, 1, 2)), padding=padding(r))(x)

    return step


def overall(name: str) -> Step:
    return lambda r, x: getattr(k, name)(keepdims=r.random() < 0.5)(x)


def normalization(r: random.Random, x: Any) -> Any:
    channels = x.shape[-1]
    groups = r.choice([n for n in range(1, channels + 1) if channels % n == 0])
    axis = r.choice((-1, r.randrange(1, len(x.shape))))
    return r.choice((
        lambda: k.BatchNormalization(axis, center=r.random() < 0.7, scale=r.random() < 0.7),
        lambda: k.LayerNormalization(axis),
        lambda: k.GroupNormalization(groups),
        lambda: k.UnitNormalization(axis),
        k.RMSNormalization,
    ))()(x)  # fmt: skip


def recurrent(r: random.Random, x: Any) -> Any:
    name = r.choice(("LSTM", "GRU", "SimpleRNN"))
    more = {"reset_after": r.random() < 0.5} if name == "GRU" else {}
    layer = getattr(k, name)(
        r.randint(1, 4), return_sequences=r.random() < 0.6, go_backwards=r.random() < 0.3,
        activation=r.choice(("tanh", "relu", "sigmoid")), use_bias=r.random() < 0.8, **more,
    )  # fmt: skip
    return k.Bidirectional(layer, merge_mode=r.choice(("concat", "sum", "mul", "ave")))(x) \
        if r.random() < 0.3 else layer(x)  # fmt: skip


def merged(r: random.Random, x: Any) -> Any:
    name = r.choice(("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"))
    other = k.Activation(r.choice(ACTIVATIONS))(x)
    options = {"axis": r.choice((-1, len(x.shape) - 1, 1))} if name == "Concatenate" else {}
    return getattr(k, name)(**options)([x, other])


def permuted(r: random.Random, x: Any) -> Any:
    order = list(range(1, len(x.shape)))
    r.shuffle(order)
    return k.Permute(order)(x)


def reshaped(r: random.Random, x: Any) -> Any:
    size = int(np.prod(x.shape[1:]))
    first = r.choice([n for n in range(1, size + 1) if size % n == 0])
    second = r.choice([n for n in range(1, size // first + 1) if (size // first) % n == 0])
    rest = (first, second, -1)
    return k.Reshape(r.choice((rest, rest[1:], (size,), (-1, second))))(x)


def attention(r: random.Random, x: Any) -> Any:
    if r.random() < 0.5:
        # heads of one value: Keras itself is off where there are as many as places
        return k.MultiHeadAttention(r.choice((1, 2)), r.randint(2, 3))(x, x)
    return k.Attention(use_scale=r.random() < 0.5)([x, x])


def function(r: random.Random, x: Any) -> Any:
    ops = keras.ops
    axis = r.randrange(1, len(x.shape))
    return r.choice((
        lambda: ops.sum(x, axis, keepdims=True), lambda: ops.mean(x, axis, keepdims=True),
        lambda: ops.max(x, axis, keepdims=True), lambda: ops.abs(x), lambda: ops.square(x),
        lambda: ops.flip(x, axis), lambda: ops.roll(x, 1, axis), lambda: ops.cumsum(x, axis),
        lambda: ops.clip(x, -0.5, 1.0), lambda: x * 2.0 + 1.0, lambda: 1.0 - x,
        lambda: ops.concatenate([x, x], axis), lambda: ops.expand_dims(x, axis),
        lambda: x[:, :1], lambda: x[:, ::-1], lambda: ops.maximum(x, 0.25),
        lambda: ops.repeat(x, 2, axis), lambda: ops.where(x > 0, x, 0.1 * x),
    ))()  # fmt: skip


STEPS = each(
    (0, lambda r, x: k.Dense(r.randint(1, 5), activation=r.choice(ACTIVATIONS))(x)),
    (0, lambda r, x: k.Activation(r.choice(ACTIVATIONS))(x)),
    (0, lambda r, x: k.LeakyReLU(r.choice((0.1, 0.3)))(x)),
    (0, lambda r, x: k.PReLU(alpha_initializer="uniform")(x)),
    (0, lambda r, x: k.ReLU(max_value=r.choice((None, 1.0)), negative_slope=r.choice((0.0, 0.2)),
                            threshold=r.choice((0.0, 0.3)))(x)),
    (0, lambda r, x: k.Softmax(r.randrange(1, len(x.shape)))(x)),
    (0, lambda r, x: k.Rescaling(r.choice((0.5, 2.0)), r.choice((0.0, -1.0)))(x)),
    (0, lambda r, x: k.Flatten()(x)),
    (0, normalization), (0, merged), (0, permuted), (0, reshaped), (0, function), (0, function),
    (2, lambda r, x: k.RepeatVector(r.randint(1, 3))(x)),
    (3, convolution(1)), (3, depthwise("DepthwiseConv1D", 1)), (3, transposed(1)),
    (3, depthwise("SeparableConv1D", 1)), (3, pooling("Max", 1)), (3, pooling("Average", 1)),
    (3, overall("GlobalMaxPooling1D")), (3, overall("GlobalAveragePooling1D")),
    (3, lambda r, x: k.ZeroPadding1D(some(r, 2, 0, 1, 2))(x)),
    (3, lambda r, x: k.Cropping1D(some(r, 2, 0, 1))(x)),
    (3, lambda r, x: k.UpSampling1D(r.randint(1, 3))(x)),
    (3, recurrent), (3, recurrent), (3, attention),
    (3, lambda r, x: k.TimeDistributed(k.Dense(r.randint(1, 3)))(x)),
    (4, convolution(2)), (4, convolution(2)), (4, convolution(2)), (4, transposed(2)),
    (4, depthwise("DepthwiseConv2D", 2)), (4, depthwise("SeparableConv2D", 2)),
    (4, pooling("Max", 2)), (4, pooling("Average", 2)), (4, overall("GlobalMaxPooling2D")),
    (4, overall("GlobalAveragePooling2D")),
    (4, lambda r, x: k.ZeroPadding2D((some(r, 2, 0, 1, 2), some(r, 2, 0, 1)))(x)),
    (4, lambda r, x: k.Cropping2D((some(r, 2, 0, 1), some(r, 2, 0, 1)))(x)),
    (4, lambda r, x: k.UpSampling2D(some(r, 2, 1, 2, 3),
                                    interpolation=r.choice(("nearest", "bilinear")))(x)),
    (4, lambda r, x: k.ConvLSTM1D(2, 2, padding="same", return_sequences=r.random() < 0.5)(x)),
    (5, convolution(3)), (5, pooling("Max", 3)), (5, pooling("Average", 3)),
    (5, overall("GlobalAveragePooling3D")),
    (5, lambda r, x: k.UpSampling3D(some(r, 3, 1, 2))(x)),
)  # fmt: skip


def network(rng: random.Random) -> Network:
    """A model, an input of it, and what Keras makes of inputs."""
    keras.utils.set_random_seed(rng.randrange(1 << 31))
    rank = rng.choice((2, 3, 3, 4, 4, 4, 5))
    shape = tuple(rng.choice((1, 2, 3, 4, 6)) for _ in range(rank - 1))
    inputs = x = keras.Input(shape, name="given", batch_size=1)
    values = [x]
    for _ in range(rng.randint(1, 6)):
        step = rng.choice(STEPS[0] + STEPS.get(len(x.shape), []) * 2)
        try:
            result = step(rng, x)
        except Exception:  # what Keras does not take is left out
            continue
        if len(result.shape) <= 5 and all(result.shape) and np.prod(result.shape) < 1 << 14:
            x = result
            values.append(x)
    outputs = [x] if rng.random() < 0.7 or len(values) < 3 else [values[-2], x]
    model = keras.Model(inputs, outputs)
    noise = np.random.default_rng(rng.randrange(1 << 32))
    model.set_weights([
        np.abs(w) + 0.5 if "variance" in v.name else w + 0.1 * noise.standard_normal(w.shape)
        for v, w in zip(model.weights, model.get_weights(), strict=True)
    ])  # fmt: skip

    values = noise.standard_normal((1, *shape)).astype(np.float32)
    return Network(model, {"given": values}, oracle_of(model), half=lambda: in_half(model))


def oracle_of(model: Any) -> Oracle:
    def oracle(data: Mapping[str, Array]) -> list[Array]:
        converted = model(data["given"], training=False)
        return [
            np.asarray(item)
            for item in (converted if isinstance(converted, list | tuple) else [converted])
        ]

    return oracle


def in_half(model: Any) -> Half:
    half = halves.keras_model(model)
    oracle = oracle_of(half)
    return Half(half, lambda data: oracle(halves.rounded(data)))
