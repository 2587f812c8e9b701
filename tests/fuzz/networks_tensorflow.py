"""Random functions of TensorFlow."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import mlferry
from tests.fuzz import halves
from tests.fuzz.network import Half, Network

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


def computed(r: random.Random, x: Any) -> Any:
    """Operands that are computed at run time, and rows joined by numbers."""
    n, rest = x.shape[0], x.shape[1:]
    place = tf.cast(tf.reduce_sum(x) > 0, tf.int32)
    numbers = [r.randrange(-1, 4) for _ in range(n)]
    joined = getattr(tf.math, r.choice((
        "unsorted_segment_sum", "unsorted_segment_max", "unsorted_segment_min",
        "unsorted_segment_prod"
    )))  # fmt: skip
    ordered = getattr(tf.math, r.choice(("segment_sum", "segment_mean", "segment_max")))
    begin = [place] + [0] * len(rest)
    return r.choice((
        lambda: tf.slice(tf.concat([x, x + 1], 0), begin, x.shape),
        lambda: tf.ensure_shape(tf.concat([x, x], 0)[place : place + n], x.shape),
        lambda: tf.concat([x, x * 2], 0)[place],
        lambda: tf.ensure_shape(tf.broadcast_to(x, tf.concat([[2 + 0 * place], x.shape], 0)),
                                (2, *x.shape)),
        lambda: joined(x, numbers, 4) * tf.reshape(
            tf.constant([float(i in numbers) for i in range(4)]), (4, *(1 for _ in rest))),
        lambda: ordered(x, sorted(max(0, i) for i in numbers)),
        lambda: tf.dynamic_partition(x, [max(0, i) for i in numbers], 4)[max(0, numbers[0])],
        lambda: tf.math.cumprod(x, axis(r, x), r.random() < 0.5, r.random() < 0.5),
        lambda: tf.linalg.set_diag(x, normal(r, *x.shape[:-2], min(x.shape[-2:]))),
        lambda: tf.raw_ops.NthElement(input=x, n=r.randrange(x.shape[-1])),
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
    sizes, options = [r.choice((1, 2, 3)) for _ in range(2)], window(r)
    if options["padding"] == "VALID" and any(
        k > n for k, n in zip(sizes, x.shape[1:], strict=False)
    ):
        return x  # TensorFlow divides by the extent of 0, which ends the process
    return pool(x, sizes, **options)


def images(r: random.Random, x: Any) -> Any:
    size = [r.randint(1, 8), r.randint(1, 8)]
    channels = x.shape[-1]
    numbers = normal(r, channels)
    return r.choice((
        lambda: tf.image.resize(x, size), lambda: tf.image.resize(x, size, "nearest"),
        lambda: tf.nn.depth_to_space(x, 2), lambda: tf.nn.space_to_depth(x, 2),
        lambda: tf.nn.batch_normalization(x, numbers, tf.abs(numbers) + 0.5, numbers, None, 0.01),
        lambda: tf.nn.conv2d(x, normal(r, 2, 3, channels, 2) * tf.reduce_mean(x), **window(r)),
        lambda: tf.raw_ops.FusedBatchNormV3(
            x=x, scale=numbers, offset=numbers, mean=[], variance=[], is_training=True)[0],
        lambda: tf.image.adjust_contrast(x, 1.5), lambda: tf.image.adjust_hue(x, 0.2),
        lambda: tf.raw_ops.ResizeBicubic(images=x, size=size, half_pixel_centers=True),
        lambda: tf.raw_ops.ResizeArea(images=x, size=size),
        lambda: tf.nn.max_pool_with_argmax(x, 2, r.choice((1, 2)), "SAME"),
        lambda: tf.image.flip_left_right(x), lambda: tf.nn.local_response_normalization(x, 2),
    ))()  # fmt: skip


def controlled(r: random.Random, x: Any) -> Any:
    return r.choice((
        lambda: tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2.0, lambda: x - 1.0),
        lambda: tf.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, v * 0.5 + 1.0), (0, x))[1],
        lambda: tf.while_loop(lambda v: tf.reduce_max(v) > 1.0, lambda v: (v * 0.5,), (x,))[0],
    ))()  # fmt: skip


# ---- several outputs -------------------------------------------------------------------


def several(r: random.Random, x: Any) -> Any:
    """All outputs of an op that has several; the first one flows on."""
    channels = x.shape[-1]
    numbers = tf.abs(normal(r, channels)) + 0.5
    rows, rounds = r.randrange(len(x.shape)), rounds_of(r)
    return r.choice((
        lambda: tf.math.top_k(x, r.randint(1, channels), index_type=tf.int32),
        lambda: tf.unstack(x, axis=rows), lambda: tf.split(x, x.shape[rows], axis=rows),
        lambda: tf.split(x, [x.shape[rows] - 1, 1], axis=rows),
        lambda: list(tf.raw_ops.FusedBatchNormV3(
            x=x, scale=numbers, offset=-numbers, mean=numbers * 2, variance=numbers,
            is_training=False))[:3],
        lambda: tf.nn.moments(x, [rows], keepdims=r.random() < 0.5),
        lambda: tf.raw_ops.IdentityN(input=[x, x * 2, numbers]),
        lambda: tf.cond(tf.reduce_sum(x) > 0, lambda: (x, numbers), lambda: (x * 2, numbers - 1)),
        lambda: tf.while_loop(lambda i, a, b: i < rounds, lambda i, a, b: (i + 1, b, a * 0.9),
                              (0, x, x + 1))[1:],
    ))()  # fmt: skip


def rounds_of(r: random.Random) -> int:
    return r.choice((0, 1, 3, 9, 14))


# ---- loops -----------------------------------------------------------------------------


def block_lstm(r: random.Random, x: Any) -> Any:
    time, batch, inputs = x.shape
    units = r.randint(1, 4)
    state = normal(r, batch, units)
    return list(getattr(tf.raw_ops, r.choice(("BlockLSTM", "BlockLSTMV2")))(
        seq_len_max=np.int64(time), x=x, cs_prev=state, h_prev=state * 0.5,
        w=normal(r, inputs + units, 4 * units) * 0.4, wci=tf.zeros(units), wcf=tf.zeros(units),
        wco=tf.zeros(units), b=normal(r, 4 * units), cell_clip=r.choice((0.0, 0.6)),
    ))[::-1]  # fmt: skip


def scanned(r: random.Random, x: Any) -> Any:
    """Loops over the entries of the first axis."""
    n = x.shape[-1]
    weights, rounds = normal(r, n, n) * 0.3, rounds_of(r)

    def mixed(row: Any) -> Any:
        flat = tf.reshape(row, (-1, n))
        return tf.reshape(tf.tanh(flat @ weights), tf.shape(row))

    return r.choice((
        lambda: tf.scan(lambda a, row: a * 0.5 + row, x, tf.zeros(x.shape[1:])),
        lambda: tf.scan(lambda a, row: mixed(a) + row, x, tf.ones(x.shape[1:]), reverse=True),
        lambda: tf.map_fn(lambda row: mixed(row) * 2, x),
        lambda: tf.map_fn(lambda row: (row + 1, tf.reduce_sum(row)), x,
                          fn_output_signature=(tf.float32, tf.float32)),
        lambda: tf.while_loop(lambda i, v: i < rounds, lambda i, v: (i + 1, mixed(v)), (0, x))[1],
    ))()  # fmt: skip


def recurrent(r: random.Random, x: Any) -> Any:
    """A layer of Keras; its weights are made once, see `Layers`."""
    units = r.randint(1, 5)
    options = {"return_sequences": r.random() < 0.6, "go_backwards": r.random() < 0.3,
               "return_state": r.random() < 0.3}  # fmt: skip
    kind = r.choice(("LSTM", "GRU", "SimpleRNN"))
    if kind == "GRU":
        options["reset_after"] = r.random() < 0.5
    both, masked = r.random() < 0.25, r.random() < 0.3
    if both:
        options |= {"go_backwards": False, "return_state": False}

    def make() -> Any:
        layer = getattr(keras.layers, kind)(units, bias_initializer="random_normal", **options)
        layer = keras.layers.Bidirectional(layer) if both else layer
        return (keras.layers.Masking(), layer) if masked else (layer,)

    for layer in LAYERS.get(make):
        x = layer(x)
    return x


class Layers:
    """The layers of a network, by their place: tracing a function may not make variables."""

    def __init__(self) -> None:
        self.made: dict[int, Any] = {}
        self.place = 0

    def get(self, make: Callable[[], Any]) -> Any:
        if self.place not in self.made:
            self.made[self.place] = make()
        return self.made[self.place]


LAYERS = Layers()

ANY: tuple[Step, ...] = (
    lambda r, x: getattr(tf.math, r.choice(UNARY[:12]), tf.identity)(x),
    lambda r, x: getattr(tf.math, r.choice(UNARY[12:]), tf.identity)(x),
    lambda r, x: getattr(tf.nn, r.choice(NN))(x),
    binary, binary, reduced, reshaped, sliced, sliced, gathered, padded, transposed, split,
    scattered, scattered, scattered, product, controlled, several, several, scanned,
    computed, computed,
)  # fmt: skip
IMAGES: tuple[Step, ...] = (convolved, convolved, pooled, images, images)


SEQUENCES: tuple[Step, ...] = (recurrent, recurrent, recurrent, block_lstm, scanned)
NAMES = ("a/b", "a_b", "a_b_1", "y", "y_1", "a:b", "y_output", "out/y", "out_y")
FREE = 7  # the largest extent of a free axis


def steps_for(x: Any) -> tuple[Step, ...]:
    more = {3: SEQUENCES * 3, 4: IMAGES * 4}
    return ANY + more.get(len(x.shape), ())


def grown(seed: int, count: int, x: Any) -> list[Any]:
    """What a random network makes of a tensor."""
    r = random.Random(seed)
    kept = []
    for place in range(count):
        LAYERS.place = place
        step = r.choice(steps_for(x))
        try:
            result = step(r, x)
        except Exception:  # what TensorFlow does not take is left out
            continue
        first, *others = tf.nest.flatten(result)
        size = first.shape.num_elements()
        if first.dtype == tf.float32 and size and size < 1 << 14 and 0 < len(first.shape) <= 5:
            x = first
            kept += [tf.cast(other, tf.float32) for other in others if 0 not in other.shape]
    return [x, *r.sample(kept, min(len(kept), r.randint(0, 3)))]


def network(rng: random.Random) -> Network:
    """A function, an input of it, and what TensorFlow makes of inputs.

    A part of them are frozen graphs whose outputs a user names, or take several sizes.
    """
    rank = rng.choice((1, 2, 3, 3, 4, 4, 4))
    shape: list[int | None] = [rng.choice((1, 2, 3, 4, 6)) for _ in range(rank)]
    if rank == 3 and rng.random() < 0.4:
        shape[rng.randrange(2)] = 12
    values = np.random.default_rng(rng.randrange(1 << 32))
    x = values.standard_normal(shape).astype(np.float32)
    count, seed = rng.randint(1, 7), rng.randrange(1 << 32)
    LAYERS.made.clear()
    keras.utils.set_random_seed(seed % (1 << 31))
    grown(seed, count, tf.constant(x))  # makes the layers
    kind = rng.choice(("function", "function", "graph", "sizes"))
    if kind == "sizes":
        shape[0] = None
    names = rng.sample(NAMES, 4)
    tensors: list[str] = []

    @tf.function(input_signature=[tf.TensorSpec(shape, name="x")], autograph=False)  # type: ignore[misc]
    def function(x: Any) -> Any:
        result = grown(seed, count, x)
        named = {
            n: tf.identity(y, n.replace(":", ".")) for n, y in zip(names, result, strict=False)
        }
        tensors[:] = [y.op.name for y in named.values()]
        return named

    concrete = function.get_concrete_function()
    order = sorted(names[: len(tensors)])
    if kind == "graph":
        order = rng.sample(order, len(order))

    def oracle(data: Mapping[str, Array]) -> list[Array]:
        result = concrete(tf.constant(data["x"]))
        return [np.asarray(result[name]) for name in order]

    def in_half() -> Half:
        graph = halves.tensorflow_graph(frozen(concrete))
        half = halves.tensorflow_function(graph, dict(zip(names, tensors, strict=False)))

        def oracle(data: Mapping[str, Array]) -> list[Array]:
            result = half(tf.constant(data["x"], tf.float16))
            return [np.asarray(result[name]) for name in order]

        return Half(graph if kind == "graph" else half, oracle)

    if kind == "graph":
        by_name = dict(zip(names, tensors, strict=False))
        options = {"outputs": [by_name[name] for name in order]}
        return Network(frozen(concrete), {"x": x}, oracle, options, half=in_half)
    if kind == "function":
        return Network(concrete, {"x": x}, oracle, half=in_half)
    sizes = (mlferry.RangeDim(1, FREE, x.shape[0]), *x.shape[1:])
    others = [{"x": values.standard_normal((n, *x.shape[1:])).astype(np.float32)}
              for n in (1, FREE)]  # fmt: skip
    options = {"inputs": [mlferry.TensorType("x", shape=sizes)]}
    return Network(concrete, {"x": x}, oracle, options, others=others, half=in_half)


def frozen(concrete: Any) -> Any:
    """The graph of a function, whose variables are constants."""
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    model = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    return model.graph.as_graph_def()
