"""Random functions of TensorFlow."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tests.fuzz.network import Network

Array = np.ndarray[Any, Any]
Step = Callable[[random.Random, Any], Any]
UNARY = ("abs", "ceil", "cos", "exp", "floor", "negative", "round", "sigmoid", "sign", "sin",
         "square", "tanh", "identity", "erf", "atan", "softplus", "expm1")  # fmt: skip
NN = ("relu", "relu6", "elu", "selu", "softsign", "gelu", "silu", "leaky_relu")
BINARY = ("add", "subtract", "multiply", "maximum", "minimum", "squared_difference")
REDUCE = ("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_logsumexp",
          "reduce_euclidean_norm")  # fmt: skip


def normal(r: random.Random, *shape: int) -> Any:
    values = np.random.default_rng(r.randrange(1 << 32))
    return tf.constant(values.standard_normal(shape).astype(np.float32))


def axis(r: random.Random, x: Any) -> int:
    return r.randrange(-len(x.shape), len(x.shape))


def binary(r: random.Random, x: Any) -> Any:
    kept = x.shape[r.randrange(len(x.shape) + 1) :]
    other = normal(r, *(n if r.random() < 0.6 else 1 for n in kept))
    pair = (x, other) if r.random() < 0.5 else (other, x)
    return getattr(tf, r.choice(BINARY))(*pair)


def reduced(r: random.Random, x: Any) -> Any:
    axes = r.sample(range(len(x.shape)), r.randint(1, len(x.shape)))
    return getattr(tf, r.choice(REDUCE))(x, axes, keepdims=r.random() < 0.6)


def reshaped(r: random.Random, x: Any) -> Any:
    size = int(np.prod(x.shape))
    first = r.choice([n for n in range(1, size + 1) if size % n == 0])
    return tf.reshape(x, r.choice(((first, -1), (-1,), (1, first, -1), (-1, first))))


def sliced(r: random.Random, x: Any) -> Any:
    n = x.shape[0]
    return r.choice((
        lambda: x[..., ::-1], lambda: x[: max(1, n - 1)], lambda: x[..., :1], lambda: x[..., ::2],
        lambda: x[..., -1], lambda: x[tf.newaxis], lambda: x[-1:], lambda: x[..., tf.newaxis],
    ))()  # fmt: skip


def gathered(r: random.Random, x: Any) -> Any:
    along = r.randrange(len(x.shape))
    indices = [r.randrange(x.shape[along]) for _ in range(r.randint(1, 3))]
    return tf.gather(x, indices, axis=along)


def padded(r: random.Random, x: Any) -> Any:
    mode = r.choice(("CONSTANT", "REFLECT", "SYMMETRIC"))
    most = {"CONSTANT": 2, "REFLECT": -1, "SYMMETRIC": 0}[mode]
    amounts = [
        [r.randint(0, 2 if mode == "CONSTANT" else max(0, min(2, n + most))) for _ in range(2)]
        for n in x.shape
    ]
    return tf.pad(x, amounts, mode)


def transposed(r: random.Random, x: Any) -> Any:
    order = list(range(len(x.shape)))
    r.shuffle(order)
    return tf.transpose(x, order)


def split(r: random.Random, x: Any) -> Any:
    along = axis(r, x)
    parts = tf.split(x, [1, x.shape[along] - 1], axis=along) if x.shape[along] > 1 else [x, x]
    return r.choice((parts[-1], tf.concat(parts[::-1], along)))


def scattered(r: random.Random, x: Any) -> Any:
    return r.choice((
        lambda: tf.where(x > 0, x, normal(r, *x.shape)), lambda: tf.cumsum(x, axis(r, x)),
        lambda: tf.reverse(x, [axis(r, x)]), lambda: tf.clip_by_value(x, -0.5, 0.75),
        lambda: tf.tile(x, [r.randint(1, 2) for _ in x.shape]),
        lambda: tf.stack([x, x + 1], axis(r, x)), lambda: tf.nn.softmax(x, axis(r, x)),
        lambda: tf.nn.log_softmax(x, axis(r, x)), lambda: tf.nn.l2_normalize(x, axis(r, x)),
        lambda: tf.roll(x, 1, axis(r, x)), lambda: tf.linalg.band_part(x, 1, 0),
        lambda: tf.math.top_k(x, min(2, x.shape[-1])).values, lambda: tf.sort(x, axis(r, x)),
        lambda: tf.cast(x > 0.5, tf.float32), lambda: tf.cast(tf.argmax(x, -1), tf.float32),
        lambda: tf.broadcast_to(x, (2, *x.shape)), lambda: tf.squeeze(tf.expand_dims(x, 0), [0]),
    ))()  # fmt: skip


def product(r: random.Random, x: Any) -> Any:
    n = x.shape[-1]
    return r.choice((
        lambda: tf.linalg.matmul(x, normal(r, *x.shape[:-2], n, r.randint(1, 4))),
        lambda: tf.einsum("...i,ij->...j", x, normal(r, n, r.randint(1, 4))),
        lambda: tf.tensordot(x, normal(r, n, 2), 1),
        lambda: tf.linalg.matmul(x, x, transpose_b=True),
    ))()  # fmt: skip


def window(r: random.Random) -> dict[str, Any]:
    # strides that differ: TensorFlow's oneDNN reads memory that it never wrote
    return {"strides": r.choice((1, 1, 2, 3)), "padding": r.choice(("SAME", "VALID"))}


def convolved(r: random.Random, x: Any) -> Any:
    channels = x.shape[-1]
    kernel = [r.choice((1, 2, 3)) for _ in range(2)]
    groups = r.choice([n for n in range(1, channels + 1) if channels % n == 0])
    options = window(r)
    if r.random() < 0.25:
        options |= {"strides": 1, "dilations": [r.choice((1, 2))] * 2}
    return r.choice((
        lambda: tf.nn.conv2d(x, normal(r, *kernel, channels, r.randint(1, 4)), **options),
        lambda: tf.nn.conv2d(x, normal(r, *kernel, channels // groups, groups * 2), **options),
        lambda: tf.nn.bias_add(tf.nn.conv2d(x, normal(r, *kernel, channels, 3), **options),
                               normal(r, 3)),
        lambda: tf.nn.depthwise_conv2d(
            x, normal(r, *kernel, channels, r.randint(1, 2)), (1, 1, 1, 1), options["padding"]),
    ))()  # fmt: skip


def pooled(r: random.Random, x: Any) -> Any:
    pool = r.choice((tf.nn.max_pool2d, tf.nn.avg_pool2d))
    return pool(x, [r.choice((1, 2, 3)) for _ in range(2)], **window(r))


def images(r: random.Random, x: Any) -> Any:
    size = [r.randint(1, 8), r.randint(1, 8)]
    channels = x.shape[-1]
    numbers = normal(r, channels)
    return r.choice((
        lambda: tf.image.resize(x, size), lambda: tf.image.resize(x, size, "nearest"),
        lambda: tf.nn.depth_to_space(x, 2), lambda: tf.nn.space_to_depth(x, 2),
        lambda: tf.nn.batch_normalization(x, numbers, tf.abs(numbers) + 0.5, numbers, None, 0.01),
        lambda: tf.image.flip_left_right(x), lambda: tf.nn.local_response_normalization(x, 2),
    ))()  # fmt: skip


def controlled(r: random.Random, x: Any) -> Any:
    return r.choice((
        lambda: tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2.0, lambda: x - 1.0),
        lambda: tf.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, v * 0.5 + 1.0), (0, x))[1],
        lambda: tf.while_loop(lambda v: tf.reduce_max(v) > 1.0, lambda v: (v * 0.5,), (x,))[0],
    ))()  # fmt: skip


ANY: tuple[Step, ...] = (
    lambda r, x: getattr(tf.math, r.choice(UNARY[:12]), tf.identity)(x),
    lambda r, x: getattr(tf.math, r.choice(UNARY[12:]), tf.identity)(x),
    lambda r, x: getattr(tf.nn, r.choice(NN))(x),
    binary, binary, reduced, reshaped, sliced, sliced, gathered, padded, transposed, split,
    scattered, scattered, scattered, product, controlled,
)  # fmt: skip
IMAGES: tuple[Step, ...] = (convolved, convolved, pooled, images, images)


def network(rng: random.Random) -> Network:
    """A function, an input of it, and what TensorFlow makes of inputs."""
    rank = rng.choice((1, 2, 3, 4, 4, 4))
    shape = [rng.choice((1, 2, 3, 4, 6)) for _ in range(rank)]
    count, seed = rng.randint(1, 7), rng.randrange(1 << 32)

    @tf.function(input_signature=[tf.TensorSpec(shape, name="x")], autograph=False)  # type: ignore[misc]
    def function(x: Any) -> Any:
        r = random.Random(seed)
        for _ in range(count):
            step = r.choice(ANY + IMAGES * 4 if len(x.shape) == 4 else ANY)
            try:
                made = step(r, x)
            except Exception:  # what TensorFlow does not take is left out
                continue
            size = made.shape.num_elements()
            if size and size < 1 << 14 and 0 < len(made.shape) <= 5:
                x = made
        return tf.identity(x)

    def oracle(data: Mapping[str, Array]) -> list[Array]:
        return [np.asarray(function(tf.constant(data["x"])))]

    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return Network(function.get_concrete_function(), {"x": values}, oracle)
