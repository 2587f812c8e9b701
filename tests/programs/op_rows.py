"""Small programs, one or more for each op of the opsets, each with what it computes.

coremltools' builder writes the programs; what they compute is said by formulas and naive loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Build = Callable[..., Any]


@dataclass(frozen=True)
class Row:
    """A program.

    Attributes:
        op: what it is about.
        build: makes it of coremltools' builder and of its inputs.
        want: what it computes, of arrays of float64.
        inputs: values of its inputs.
        since: the opset that it is written for.
        half: whether it is run in half precision as well.
        close: how far values may be off, as a part of the largest one.
        label: what is special about it.
    """

    op: str
    build: Build
    want: Callable[..., Any]
    inputs: tuple[Array, ...]
    since: int = 5
    half: bool = True
    close: float = 1e-5
    label: str = ""

    @property
    def id(self) -> str:
        """What the test is called."""
        return f"{self.op}-{self.since}" + (f"-{self.label}" if self.label else "")


ROWS: list[Row] = []


def row(op: str, build: Build, want: Callable[..., Any], *inputs: Array, **options: Any) -> None:
    ROWS.append(Row(op, build, want, inputs, **options))


def f(*shape: int, seed: int = 0) -> Array:
    """Numbers around 0, of few digits: half precision holds them."""
    result = np.random.default_rng(seed).uniform(-2, 2, shape)
    return (np.round(result * 64) / 64).astype(np.float32)


def positive(*shape: int) -> Array:
    result: Array = np.abs(f(*shape)) + np.float32(0.25)
    return result


def i(*values: Any) -> Array:
    return np.array(values, np.int32)


# ---- each value by itself ------------------------------------------------------------------------

_erf = np.vectorize(math.erf)


def sigmoid(x: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-x))
    return result


def _unary(op: str, want: Callable[[Array], Any], *inputs: Array, **options: Any) -> None:
    row(op, lambda mb, x: getattr(mb, op)(x=x), want, *(inputs or (f(2, 3, 4),)), **options)


for _name, _want in {
    "abs": np.abs, "atan": np.arctan, "ceil": np.ceil, "cos": np.cos, "cosh": np.cosh,
    "erf": _erf, "exp": np.exp, "exp2": np.exp2, "floor": np.floor, "round": np.rint,
    "sign": np.sign, "sin": np.sin, "sinh": np.sinh, "square": np.square, "tanh": np.tanh,
    "identity": lambda x: x, "relu": lambda x: np.maximum(x, 0), "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x), "softplus": lambda x: np.log1p(np.exp(x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
}.items():  # fmt: skip
    _unary(_name, _want)
_unary("relu6", lambda x: np.minimum(np.maximum(x, 0), 6), f(3, 4) * 8)
for _name, _want in {"acos": np.arccos, "asin": np.arcsin, "atanh": np.arctanh,
                     "tan": np.tan}.items():  # fmt: skip
    _unary(_name, _want, f(2, 3) * np.float32(0.25))
_unary("sqrt", np.sqrt, positive(2, 3))
_unary("gelu", lambda x: x / 2 * (1 + _erf(x / math.sqrt(2))))
row("gelu", lambda mb, x: mb.gelu(x=x, mode="TANH_APPROXIMATION"),
    lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))), f(2, 3),
    label="tanh")  # fmt: skip
row("gelu", lambda mb, x: mb.gelu(x=x, mode="SIGMOID_APPROXIMATION"),
    lambda x: x * sigmoid(1.702 * x), f(2, 3), label="sigmoid")  # fmt: skip
for _name, _want in {"inverse": lambda x: 1 / (x + 0.25), "log": lambda x: np.log(x + 0.25),
                     "rsqrt": lambda x: 1 / np.sqrt(x + 0.25)}.items():  # fmt: skip
    for _opset in (5, 7):
        row(_name, lambda mb, x, op=_name: getattr(mb, op)(x=x, epsilon=0.25), _want,
            positive(2, 3), since=_opset)  # fmt: skip
for _opset in (5, 7):
    row("clip", lambda mb, x: mb.clip(x=x, alpha=-0.5, beta=0.75),
        lambda x: np.clip(x, -0.5, 0.75), f(2, 5), since=_opset)  # fmt: skip
    for _name, _want in {
        "elu": lambda x: np.where(x > 0, x, 0.5 * np.expm1(x)),
        "leaky_relu": lambda x: np.where(x > 0, x, 0.5 * x),
        "thresholded_relu": lambda x: np.where(x >= 0.5, x, 0),
    }.items():
        row(_name, lambda mb, x, op=_name: getattr(mb, op)(x=x, alpha=0.5), _want, f(2, 5),
            since=_opset)  # fmt: skip
    for _name, _want in {
        "clamped_relu": lambda x: np.minimum(np.where(x > 0, x, 0.5 * x), 0.75),
        "linear_activation": lambda x: 0.5 * x + 0.75,
        "scaled_tanh": lambda x: 0.5 * np.tanh(0.75 * x),
        "sigmoid_hard": lambda x: np.clip(0.5 * x + 0.75, 0, 1),
    }.items():
        row(_name, lambda mb, x, op=_name: getattr(mb, op)(x=x, alpha=0.5, beta=0.75), _want,
            f(2, 5), since=_opset)  # fmt: skip
    row("prelu", lambda mb, x: mb.prelu(x=x, alpha=np.float32([0.5, -1])),
        lambda x: np.where(x > 0, x, x * np.array([0.5, -1]).reshape(2, 1, 1)), f(1, 2, 3, 4),
        since=_opset)  # fmt: skip
    row("softplus_parametric",
        lambda mb, x: mb.softplus_parametric(x=x, alpha=np.float32([0.5, -1]),
                                             beta=np.float32([2, 0.25])),
        lambda x: np.array([0.5, -1]).reshape(2, 1) * np.log1p(
            np.exp(np.array([2, 0.25]).reshape(2, 1) * x)), f(1, 2, 3), since=_opset)  # fmt: skip
    row("cast", lambda mb, x: mb.cast(x=x, dtype="int32"), np.trunc, f(2, 5) * 4, since=_opset)
row("cast", lambda mb, x: mb.cast(x=mb.cast(x=x, dtype="bool"), dtype="fp32"),
    lambda x: x != 0, i(0, 3, -1), label="bool")  # fmt: skip
row("threshold", lambda mb, x: mb.threshold(x=x, alpha=0.5), lambda x: np.maximum(x, 0.5), f(2, 5))
row("logical_not", lambda mb, x: mb.logical_not(x=mb.greater(x=x, y=0.0)), lambda x: x <= 0, f(7))


def softmax(x: Array, axis: int) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    result: Array = e / e.sum(axis, keepdims=True)
    return result


row("softmax", lambda mb, x: mb.softmax(x=x, axis=1), lambda x: softmax(x, 1), f(2, 3, 4))
row("softmax", lambda mb, x: mb.softmax(x=x), lambda x: softmax(x, -1), f(2, 3), label="last")

# ---- pairs ---------------------------------------------------------------------------------------

for _name, _want2 in {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "maximum": np.maximum,
    "minimum": np.minimum, "real_div": np.divide, "floor_div": np.floor_divide, "mod": np.mod,
    "equal": np.equal, "not_equal": np.not_equal, "greater": np.greater,
    "greater_equal": np.greater_equal, "less": np.less, "less_equal": np.less_equal,
}.items():  # fmt: skip
    row(_name, lambda mb, x, y, op=_name: getattr(mb, op)(x=x, y=y), _want2,
        np.round(f(2, 1, 4) * 2), np.round(f(3, 1, seed=1) * 2) + np.float32(0.5))  # fmt: skip
    if _name != "real_div":
        row(_name, lambda mb, x, y, op=_name: getattr(mb, op)(x=x, y=y), _want2,
            i(-7, 7, 5, -5), i(3, -3, 5, 2), half=False, label="int32")  # fmt: skip
row("pow", lambda mb, x, y: mb.pow(x=x, y=y), np.power, positive(2, 3), f(3))
for _name, _want2 in {"logical_and": np.logical_and, "logical_or": np.logical_or,
                      "logical_xor": np.logical_xor}.items():  # fmt: skip
    row(_name,
        lambda mb, x, y, op=_name: getattr(mb, op)(x=mb.greater(x=x, y=0.0),
                                                   y=mb.greater(x=y, y=0.0)),
        lambda x, y, want=_want2: want(x > 0, y > 0), f(9), f(9, seed=1))  # fmt: skip
row("select", lambda mb, x, y: mb.select(cond=mb.greater(x=x, y=0.0), a=x, b=y),
    lambda x, y: np.where(x > 0, x, y), f(2, 3), f(2, 3, seed=1))  # fmt: skip

# ---- reductions ----------------------------------------------------------------------------------

for _name, _over in {
    "reduce_l1_norm": lambda x, **o: np.abs(x).sum(**o),
    "reduce_l2_norm": lambda x, **o: np.sqrt(np.square(x).sum(**o)),
    "reduce_log_sum": lambda x, **o: np.log(x.sum(**o)),
    "reduce_log_sum_exp": lambda x, **o: np.log(np.exp(x).sum(**o)),
    "reduce_max": np.max, "reduce_mean": np.mean, "reduce_min": np.min, "reduce_prod": np.prod,
    "reduce_sum": np.sum, "reduce_sum_square": lambda x, **o: np.square(x).sum(**o),
}.items():  # fmt: skip
    row(_name, lambda mb, x, op=_name: getattr(mb, op)(x=x, axes=[0, -1], keep_dims=True),
        lambda x, over=_over: over(x, axis=(0, 2), keepdims=True), positive(2, 3, 2))  # fmt: skip
    row(_name, lambda mb, x, op=_name: getattr(mb, op)(x=x), lambda x, over=_over: over(x),
        positive(2, 2), label="all")  # fmt: skip
for _name, _over in {"reduce_argmax": np.argmax, "reduce_argmin": np.argmin}.items():
    for _opset in (5, 7):
        row(_name, lambda mb, x, op=_name: getattr(mb, op)(x=x, axis=1),
            lambda x, over=_over: over(x, axis=1), f(3, 5, 2), since=_opset)  # fmt: skip

# ---- shapes --------------------------------------------------------------------------------------

for _opset in (5, 7):
    row("transpose", lambda mb, x: mb.transpose(x=x, perm=[2, 0, 1]),
        lambda x: x.transpose(2, 0, 1), f(2, 3, 4), since=_opset)  # fmt: skip
    row("reshape", lambda mb, x: mb.reshape(x=x, shape=[0, 2, -1]),
        lambda x: x.reshape(4, 2, 3), f(4, 3, 2), since=_opset)  # fmt: skip
    row("expand_dims", lambda mb, x: mb.expand_dims(x=x, axes=[0, -1]),
        lambda x: x[None, ..., None], f(2, 3), since=_opset)  # fmt: skip
    row("squeeze", lambda mb, x: mb.squeeze(x=x, axes=[0]), lambda x: x[0], f(1, 3, 1),
        since=_opset)  # fmt: skip
    row("reverse", lambda mb, x: mb.reverse(x=x, axes=[1]), lambda x: x[:, ::-1], f(2, 3),
        since=_opset)  # fmt: skip
    row("reverse_sequence",
        lambda mb, x: mb.reverse_sequence(x=x, lengths=[2, 3], seq_axis=1, batch_axis=0),
        lambda x: np.stack([np.r_[x[0, :2][::-1], x[0, 2:]], np.r_[x[1, :3][::-1], x[1, 3:]]]),
        f(2, 4), since=_opset)  # fmt: skip
    row("slice_by_index",
        lambda mb, x: mb.slice_by_index(
            x=x, begin=[1, 3, 0], end=[2, 0, 3], stride=[1, -2, 2],
            begin_mask=[False, False, True], end_mask=[False, False, True],
            squeeze_mask=[True, False, False]),
        lambda x: x[1, 3:0:-2, ::2], f(2, 4, 5), since=_opset)  # fmt: skip
    row("slice_by_size", lambda mb, x: mb.slice_by_size(x=x, begin=[1, 0], size=[1, -1]),
        lambda x: x[1:2], f(3, 2), since=_opset)  # fmt: skip
    row("sliding_windows", lambda mb, x: mb.sliding_windows(x=x, axis=1, size=3, stride=2),
        lambda x: np.stack([x[:, 0:3], x[:, 2:5]], 1), f(2, 6), since=_opset)  # fmt: skip
row("slice_update",
    lambda mb, x, y: mb.slice_update(x=x, update=y, begin=[0, 1], end=[2, 4], stride=[1, 2]),
    lambda x, y: np.stack([[a[0], b[0], a[2], b[1]] for a, b in zip(x, y, strict=True)]),
    f(2, 4), f(2, 2, seed=1), since=8)  # fmt: skip
row("flatten2d", lambda mb, x: mb.flatten2d(x=x, axis=-1), lambda x: x.reshape(6, 4), f(2, 3, 4))
row("shape", lambda mb, x: mb.shape(x=x), lambda x: np.array([2, 3]), f(2, 3))
for _opset in (6, 7):
    row("reshape_like",
        lambda mb, x, y: mb.reshape_like(x=x, ref_tensors=(y,), begins=[0], ends=[2],
                                         end_masks=[False]),
        lambda x, y: x.reshape(3, 2), f(6), f(3, 2, 5), since=_opset)  # fmt: skip


def depth_to_space(x: Array, b: int) -> Array:
    n, c, h, w = x.shape
    result = np.zeros((n, c // b // b, h * b, w * b))
    for k, y, z in np.ndindex(c, h, w):
        result[:, k % (c // b // b), y * b + k // (c // b // b) // b,
             z * b + k // (c // b // b) % b] = x[:, k, y, z]  # fmt: skip
    return result


def pixel_shuffle(x: Array, b: int) -> Array:
    n, c, h, w = x.shape
    result = np.zeros((n, c // b // b, h * b, w * b))
    for k, y, z in np.ndindex(c, h, w):
        result[:, k // (b * b), y * b + k % (b * b) // b, z * b + k % b] = x[:, k, y, z]
    return result


row("depth_to_space", lambda mb, x: mb.depth_to_space(x=x, block_size=2),
    lambda x: depth_to_space(x, 2), f(2, 8, 2, 3))  # fmt: skip
row("space_to_depth",
    lambda mb, x: mb.space_to_depth(x=mb.depth_to_space(x=x, block_size=2), block_size=2),
    lambda x: x, f(2, 8, 2, 3))  # fmt: skip
row("pixel_shuffle", lambda mb, x: mb.pixel_shuffle(x=x, upscale_factor=2),
    lambda x: pixel_shuffle(x, 2), f(2, 8, 2, 3))  # fmt: skip
row("pixel_unshuffle",
    lambda mb, x: mb.pixel_unshuffle(x=mb.pixel_shuffle(x=x, upscale_factor=2),
                                     downscale_factor=np.uint32(2)),
    lambda x: x, f(2, 8, 2, 3), since=6)  # fmt: skip
row("space_to_batch",
    lambda mb, x: mb.space_to_batch(x=x, block_shape=[2, 2], paddings=[[1, 1], [0, 0]]),
    lambda x: np.concatenate([np.pad(x, [(0, 0), (0, 0), (1, 1), (0, 0)])[..., a::2, b::2]
                              for a in (0, 1) for b in (0, 1)]), f(1, 2, 2, 4))  # fmt: skip
row("batch_to_space",
    lambda mb, x: mb.batch_to_space(
        x=mb.space_to_batch(x=x, block_shape=[2, 2], paddings=[[1, 1], [0, 0]]),
        block_shape=[2, 2], crops=[[1, 1], [0, 0]]),
    lambda x: x, f(1, 2, 2, 4))  # fmt: skip

# ---- arrays --------------------------------------------------------------------------------------

row("concat", lambda mb, x, y: mb.concat(values=(x, y), axis=-1),
    lambda x, y: np.concatenate([x, y], -1), f(2, 3), f(2, 1))  # fmt: skip
row("concat", lambda mb, x, y: mb.concat(values=(x, y), axis=0, interleave=True),
    lambda x, y: np.stack([x[0], y[0], x[1], y[1]]), f(2, 3), f(2, 3, seed=1),
    label="interleave")  # fmt: skip
row("stack", lambda mb, x, y: mb.stack(values=(x, y), axis=1),
    lambda x, y: np.stack([x, y], 1), f(2, 3), f(2, 3, seed=1))  # fmt: skip
row("split", lambda mb, x: mb.split(x=x, split_sizes=[1, 3], axis=1),
    lambda x: (x[:, :1], x[:, 1:]), f(2, 4))  # fmt: skip
row("split", lambda mb, x: mb.split(x=x, num_splits=2, axis=1),
    lambda x: (x[:, :2], x[:, 2:]), f(2, 4), label="equal")  # fmt: skip
row("tile", lambda mb, x: mb.tile(x=x, reps=[2, 3]), lambda x: np.tile(x, (2, 3)), f(1, 2))
for _mode, _numpy in {"constant": "constant", "reflect": "reflect", "replicate": "edge"}.items():
    row("pad", lambda mb, x, mode=_mode: mb.pad(x=x, pad=[1, 0, 2, 1], mode=mode),
        lambda x, mode=_numpy: np.pad(x, [(0, 0), (1, 0), (2, 1)], mode), f(2, 3, 4),
        label=_mode)  # fmt: skip
row("fill", lambda mb, x: mb.add(x=x, y=mb.fill(shape=[2, 3], value=1.5)), lambda x: x + 1.5,
    f(2, 3))  # fmt: skip
row("fill_like", lambda mb, x: mb.fill_like(ref_tensor=x, value=1.5),
    lambda x: np.full(x.shape, 1.5), f(2, 3), since=6)  # fmt: skip
row("range_1d", lambda mb, x: mb.range_1d(start=mb.squeeze(x=x), end=7, step=2),
    lambda x: np.arange(x[0], 7, 2), i(-2), half=False)  # fmt: skip
row("band_part", lambda mb, x: mb.band_part(x=x, lower=1, upper=0),
    lambda x: np.tril(x) * (np.arange(3)[:, None] - np.arange(4) <= 1), f(3, 4))  # fmt: skip
row("cumsum", lambda mb, x: mb.cumsum(x=x, axis=1), lambda x: np.cumsum(x, 1), f(2, 4))
row("cumsum", lambda mb, x: mb.cumsum(x=x, axis=1, exclusive=True, reverse=True),
    lambda x: np.stack([[r[j + 1 :].sum() for j in range(4)] for r in x]), f(2, 4),
    label="from the end")  # fmt: skip
row("one_hot", lambda mb, x: mb.one_hot(indices=x, one_hot_vector_size=3, on_value=2.0,
                                        off_value=-1.0),
    lambda x: np.where(np.eye(3)[x.astype(int)], 2, -1), i(2, 0), half=False)  # fmt: skip
row("non_zero", lambda mb, x: mb.non_zero(x=x), np.argwhere,
    np.float32([[0, 1, 2], [3, 0, 0]]))  # fmt: skip

# ---- places --------------------------------------------------------------------------------------

for _opset in (5, 6, 7):
    row("gather", lambda mb, x: mb.gather(x=x, indices=[2, 0], axis=1), lambda x: x[:, [2, 0]],
        f(2, 3), since=_opset)  # fmt: skip
    row("gather_along_axis",
        lambda mb, x: mb.gather_along_axis(x=x, indices=[[2, 0], [1, 1]], axis=1),
        lambda x: np.array([[x[0, 2], x[0, 0]], [x[1, 1], x[1, 1]]]), f(2, 3),
        since=_opset)  # fmt: skip
    row("gather_nd", lambda mb, x: mb.gather_nd(x=x, indices=[[0, 2], [1, 0]]),
        lambda x: np.array([x[0, 2], x[1, 0]]), f(2, 3), since=_opset)  # fmt: skip
row("gather", lambda mb, x: mb.gather(x=x, indices=[[1, 0], [2, 2]], axis=1, batch_dims=1),
    lambda x: np.array([[x[0, 1], x[0, 0]], [x[1, 2], x[1, 2]]]), f(2, 3), since=6,
    label="batch")  # fmt: skip
row("gather_nd", lambda mb, x: mb.gather_nd(x=x, indices=[[1], [2]], batch_dims=1),
    lambda x: np.array([x[0, 1], x[1, 2]]), f(2, 3), since=6, label="batch")  # fmt: skip
_SCATTERS: dict[str, Callable[[float, float], float]] = {
    "update": lambda old, new: new, "add": lambda old, new: old + new,
    "sub": lambda old, new: old - new, "mul": lambda old, new: old * new,
    "div": lambda old, new: old / new, "max": max, "min": min,
}  # fmt: skip


def scattered(x: Array, places: Sequence[Any], updates: Array, mode: str) -> Array:
    result = x.copy()
    for place, value in zip(places, updates, strict=True):
        result[place] = np.vectorize(_SCATTERS[mode])(result[place], value)
    return result


for _mode in _SCATTERS:
    for _opset in (5, 7):
        row("scatter",
            lambda mb, x, y, mode=_mode: mb.scatter(data=x, indices=[2, 0], updates=y, axis=0,
                                                    mode=mode),
            lambda x, y, mode=_mode: scattered(x, [2, 0], y, mode), f(3, 2), positive(2, 2),
            since=_opset, label=_mode)  # fmt: skip
        row("scatter_nd",
            lambda mb, x, y, mode=_mode: mb.scatter_nd(data=x, indices=[[2, 1], [0, 0]],
                                                       updates=y, mode=mode),
            lambda x, y, mode=_mode: scattered(x, [(2, 1), (0, 0)], y, mode), f(3, 2),
            positive(2), since=_opset, label=_mode)  # fmt: skip
        row("scatter_along_axis",
            lambda mb, x, y, mode=_mode: mb.scatter_along_axis(data=x, indices=[[2, 0]],
                                                               updates=y, axis=0, mode=mode),
            lambda x, y, mode=_mode: scattered(x, [(2, 0), (0, 1)], y[0], mode), f(3, 2),
            positive(1, 2), since=_opset, label=_mode)  # fmt: skip
row("argsort", lambda mb, x: mb.argsort(x=x, axis=1), lambda x: np.argsort(-x, 1), f(2, 5))
for _opset in (5, 6, 7):
    row(
        "topk",
        lambda mb, x: mb.topk(x=x, k=2, axis=1, ascending=True),
        lambda x: (np.sort(x, 1)[:, :2], np.argsort(x, 1)[:, :2]),
        f(2, 5),
        since=_opset,
    )


def suppressed(boxes: Array, scores: Array, overlap: float, count: int) -> tuple[Array, ...]:
    """Boxes are centre x, centre y, width, height."""
    left = list(np.argsort(-scores[0, :, 0]))
    kept: list[int] = []
    for index in left:
        if all(_overlap(boxes[0, index], boxes[0, other]) <= overlap for other in kept):
            kept.append(int(index))
    kept = kept[:count]
    rest = count - len(kept)
    return (
        np.concatenate([boxes[:, kept], np.zeros((1, rest, 4))], 1),
        np.concatenate([scores[:, kept], np.zeros((1, rest, 1))], 1),
        np.array([[*kept, *[-1] * rest]]), np.array([len(kept)]),
    )  # fmt: skip


def _overlap(one: Array, two: Array) -> float:
    size = 1.0
    for axis in (0, 1):
        low = max(box[axis] - box[axis + 2] / 2 for box in (one, two))
        high = min(box[axis] + box[axis + 2] / 2 for box in (one, two))
        size *= max(0.0, high - low)
    return float(size / (one[2] * one[3] + two[2] * two[3] - size))


_BOXES = np.float32([[[1, 1, 2, 2], [1.25, 1, 2, 2], [4, 4, 2, 2], [4, 4.5, 2, 2]]])
_SCORES = np.float32([[[0.5], [0.75], [0.25], [1.0]]])
row("non_maximum_suppression",
    lambda mb, x, y: mb.non_maximum_suppression(
        boxes=x, scores=y, iou_threshold=0.5, score_threshold=0.125, max_boxes=3),
    lambda x, y: suppressed(x, y, 0.5, 3), _BOXES, _SCORES)  # fmt: skip
row("non_maximum_suppression",
    lambda mb, x, y: mb.non_maximum_suppression(boxes=x, scores=y, iou_threshold=0.5,
                                                max_boxes=3),
    lambda x, y: (
        suppressed(x.swapaxes(1, 2), y.swapaxes(1, 2), 0.5, 3)[0].swapaxes(1, 2),
        suppressed(x.swapaxes(1, 2), y.swapaxes(1, 2), 0.5, 3)[1].swapaxes(1, 2),
        suppressed(x.swapaxes(1, 2), y.swapaxes(1, 2), 0.5, 3)[2]),
    np.ascontiguousarray(_BOXES.swapaxes(1, 2)), np.ascontiguousarray(_SCORES.swapaxes(1, 2)),
    since=7)  # fmt: skip

# ---- products ------------------------------------------------------------------------------------

_W, _B = f(4, 3, seed=2), f(4, seed=3)
for _opset in (5, 7):
    row("linear", lambda mb, x: mb.linear(x=x, weight=_W, bias=_B), lambda x: x @ _W.T + _B,
        f(2, 3), since=_opset)  # fmt: skip
    row("matmul", lambda mb, x, y: mb.matmul(x=x, y=y, transpose_y=True),
        lambda x, y: x @ y.swapaxes(-1, -2), f(2, 3, 4), f(5, 4, seed=1), since=_opset)  # fmt: skip
row("einsum", lambda mb, x, y: mb.einsum(values=(x, y), equation="nchw,nwhu->nchu"),
    lambda x, y: np.einsum("nchw,nwhu->nchu", x, y), f(1, 2, 3, 4), f(1, 4, 3, 2))  # fmt: skip
row("scaled_dot_product_attention",
    lambda mb, x, y, z: mb.scaled_dot_product_attention(query=x, key=y, value=z),
    lambda x, y, z: softmax(x @ y.swapaxes(-1, -2) / 2, -1) @ z, f(1, 3, 4), f(1, 5, 4, seed=1),
    f(1, 5, 2, seed=2), since=8)  # fmt: skip

# ---- windows -------------------------------------------------------------------------------------

Ints = Sequence[int]


def windows(x: Array, kernel: Ints, strides: Ints, pads: Ints, dilations: Ints, fill: float) -> Any:
    """Each place of a window, and what it sees."""
    edges = [(0, 0), (0, 0), *zip(pads[::2], pads[1::2], strict=True)]
    padded = np.pad(x, edges, constant_values=fill)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    counts = [(n - s) // t + 1 for n, s, t in zip(padded.shape[2:], spans, strides, strict=True)]
    for place in np.ndindex(*counts):
        slices = [slice(p * t, p * t + s, d)
                  for p, t, s, d in zip(place, strides, spans, dilations, strict=True)]  # fmt: skip
        yield counts, place, padded[(slice(None), slice(None), *slices)]


def conv(x: Array, w: Array, b: Array, strides: Ints, pads: Ints, dilations: Ints,
         groups: int) -> Array:  # fmt: skip
    result: Any = None
    for counts, place, seen in windows(x, w.shape[2:], strides, pads, dilations, 0):
        if result is None:
            result = np.zeros((len(x), len(w), *counts))
        for n, o in np.ndindex(len(x), len(w)):
            group = o // (len(w) // groups)
            part = seen[n, group * w.shape[1] : (group + 1) * w.shape[1]]
            result[(n, o, *place)] = (part * w[o]).sum() + b[o]
    return np.asarray(result)


_K1, _K2, _K3 = f(4, 2, 3, seed=2), f(4, 1, 3, 2, seed=2), f(2, 2, 2, 2, 2, seed=2)
for _opset in (5, 7):
    row("conv", lambda mb, x: mb.conv(x=x, weight=_K1, bias=_B, strides=[2], pad_type="custom",
                                      pad=[1, 2], dilations=[2]),
        lambda x: conv(x, _K1, _B, [2], [1, 2], [2], 1), f(2, 2, 9), since=_opset,
        label="1d")  # fmt: skip
    row("conv", lambda mb, x: mb.conv(x=x, weight=_K2, bias=_B, groups=2, pad_type="same",
                                      strides=[2, 1]),
        lambda x: conv(x, _K2, _B, [2, 1], [1, 1, 0, 1], [1, 1], 2), f(1, 2, 5, 4),
        since=_opset, label="same")  # fmt: skip
    row("conv", lambda mb, x: mb.conv(x=x, weight=_K3),
        lambda x: conv(x, _K3, np.zeros(2), [1] * 3, [0] * 6, [1] * 3, 1), f(1, 2, 3, 3, 3),
        since=_opset, label="3d")  # fmt: skip
row("conv", lambda mb, x: mb.conv(x=x, weight=_K2, pad_type="same_lower", groups=2),
    lambda x: conv(x, _K2, np.zeros(4), [1, 1], [1, 1, 1, 0], [1, 1], 2), f(1, 2, 4, 4), since=6,
    label="same lower")  # fmt: skip


def conv_transpose(x: Array, w: Array, b: Array, stride: int, pads: Ints, groups: int) -> Array:
    count = w.shape[1] * groups
    size = [(n - 1) * stride + k for n, k in zip(x.shape[2:], w.shape[2:], strict=True)]
    result = np.zeros((len(x), count, *size))
    for n, c, y, z in np.ndindex(*x.shape):
        group = c // (x.shape[1] // groups)
        for o in range(w.shape[1]):
            result[n, group * w.shape[1] + o, y * stride : y * stride + w.shape[2],
                 z * stride : z * stride + w.shape[3]] += x[n, c, y, z] * w[c, o]  # fmt: skip
    top, bottom, left, right = pads
    cut = result[:, :, top : size[0] - bottom, left : size[1] - right]
    return np.asarray(cut + b.reshape(1, -1, 1, 1))


_T = f(2, 2, 3, 2, seed=4)
for _opset in (5, 7):
    row("conv_transpose",
        lambda mb, x: mb.conv_transpose(x=x, weight=_T, bias=_B, strides=[2, 2], groups=2,
                                        pad_type="custom", pad=[1, 0, 0, 1]),
        lambda x: conv_transpose(x, _T, _B, 2, [1, 0, 0, 1], 2), f(1, 2, 3, 3),
        since=_opset)  # fmt: skip


def pooled(x: Array, over: Callable[..., Any], pads: Ints, fill: float) -> Array:
    result: Any = None
    for counts, place, seen in windows(x, [2, 3], [1, 2], pads, [1, 1], fill):
        if result is None:
            result = np.zeros((*x.shape[:2], *counts))
        result[(slice(None), slice(None), *place)] = over(seen, axis=(2, 3))
    return np.asarray(result)


for _name, _over, _fill in (
    ("max_pool", np.max, -np.inf), ("avg_pool", np.mean, 0.0),
    ("l2_pool", lambda x, axis: np.sqrt(np.square(x).sum(axis)), 0.0),
):  # fmt: skip
    row(_name, lambda mb, x, op=_name: getattr(mb, op)(
            x=x, kernel_sizes=[2, 3], strides=[1, 2], pad_type="custom", pad=[1, 0, 1, 1]),
        lambda x, over=_over, fill=_fill: pooled(x, over, [1, 0, 1, 1], fill),
        f(1, 2, 3, 5))  # fmt: skip
    row(_name, lambda mb, x, op=_name: getattr(mb, op)(
            x=x, kernel_sizes=[2, 3], strides=[1, 2], pad_type="valid"),
        lambda x, over=_over, fill=_fill: pooled(x, over, [0] * 4, fill), f(1, 2, 3, 5),
        label="valid")  # fmt: skip
row("avg_pool", lambda mb, x: mb.avg_pool(
        x=x, kernel_sizes=[2, 3], strides=[1, 2], pad_type="custom", pad=[1, 0, 1, 1],
        exclude_padding_from_average=True),
    lambda x: pooled(x, np.nanmean, [1, 0, 1, 1], np.nan), f(1, 2, 3, 5),
    label="without padding")  # fmt: skip

# ---- normalization -------------------------------------------------------------------------------

_M, _V, _G, _S = f(2), positive(2), f(2, seed=1), f(2, seed=2)


def channels(values: Array) -> Array:
    return values.reshape(-1, 1, 1)


def standard(x: Array, axis: Any, epsilon: float) -> Array:
    mean = x.mean(axis, keepdims=True)
    return np.asarray((x - mean) / np.sqrt(x.var(axis, keepdims=True) + epsilon))


def neighbours(x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    result = np.zeros_like(x)
    for c in range(x.shape[1]):
        low = max(0, c - (size - 1) // 2)
        total = np.square(x[:, low : c + size // 2 + 1]).sum(1)
        result[:, c] = x[:, c] / (k + alpha / size * total) ** beta
    return result


for _opset in (5, 7):
    row("batch_norm",
        lambda mb, x: mb.batch_norm(x=x, mean=_M, variance=_V, gamma=_G, beta=_S, epsilon=0.25),
        lambda x: (x - channels(_M)) / np.sqrt(channels(_V) + 0.25) * channels(_G)
        + channels(_S), f(1, 2, 3, 2), since=_opset)  # fmt: skip
    row("instance_norm", lambda mb, x: mb.instance_norm(x=x, gamma=_G, beta=_S, epsilon=0.25),
        lambda x: standard(x, (2, 3), 0.25) * channels(_G) + channels(_S), f(1, 2, 3, 2),
        since=_opset, close=1e-4)  # fmt: skip
    row(
        "layer_norm",
        lambda mb, x: mb.layer_norm(x=x, axes=[-1], gamma=_G, beta=_S, epsilon=0.25),
        lambda x: standard(x, -1, 0.25) * _G + _S,
        f(3, 4, 2),
        since=_opset,
        close=1e-4,
    )
    row("l2_norm", lambda mb, x: mb.l2_norm(x=x, epsilon=0.25),
        lambda x: x / np.sqrt(np.square(x).sum((1, 2, 3), keepdims=True) + 0.25),
        f(2, 3, 2, 2), since=_opset)  # fmt: skip
    row("local_response_norm",
        lambda mb, x: mb.local_response_norm(x=x, size=3, alpha=0.5, beta=0.75, k=1.0),
        lambda x: neighbours(x, 3, 0.5, 0.75, 1.0), f(1, 5, 2, 2), since=_opset)  # fmt: skip

# ---- recurrent -----------------------------------------------------------------------------------

_IH, _HH, _BIAS = f(12, 2, seed=5) / 2, f(12, 3, seed=6) / 2, f(12, seed=7) / 2


def lstm(x: Array, h: Array, c: Array, backwards: bool = False) -> tuple[Array, ...]:
    result = []
    for step in x[::-1] if backwards else x:
        i, g, o, n = np.split(step @ _IH.T + h @ _HH.T + _BIAS, 4, -1)
        c = sigmoid(g) * c + sigmoid(i) * np.tanh(n)
        h = sigmoid(o) * np.tanh(c)
        result.append(h)
    return np.stack(result), h, c  # of "reverse" in the order in which they are made


def gru(x: Array, h: Array) -> tuple[Array, ...]:
    result = []
    w, r, b = np.split(_IH[:9], 3), np.split(_HH[:9], 3), np.split(_BIAS[:9], 3)
    for step in x:
        reset = sigmoid(step @ w[0].T + h @ r[0].T + b[0])
        update = sigmoid(step @ w[2].T + h @ r[2].T + b[2])
        new = np.tanh(step @ w[1].T + (reset * h) @ r[1].T + b[1])
        h = (1 - update) * new + update * h
        result.append(h)
    return np.stack(result), h


def rnn(x: Array, h: Array) -> tuple[Array, ...]:
    result = []
    for step in x:
        h = np.tanh(step @ _IH[:3].T + h @ _HH[:3].T + _BIAS[:3])
        result.append(h)
    return np.stack(result), h


for _opset in (5, 7):
    row("lstm", lambda mb, x, y, z: mb.lstm(
            x=x, initial_h=y, initial_c=z, weight_ih=_IH, weight_hh=_HH, bias=_BIAS,
            output_sequence=True), lstm, f(4, 1, 2), f(1, 3, seed=1), f(1, 3, seed=2),
        since=_opset, close=1e-4)  # fmt: skip
    row("lstm", lambda mb, x, y, z: mb.lstm(
            x=x, initial_h=y, initial_c=z, weight_ih=_IH, weight_hh=_HH, bias=_BIAS,
            output_sequence=True, direction="reverse"),
        lambda x, y, z: lstm(x, y, z, True), f(4, 1, 2), f(1, 3, seed=1), f(1, 3, seed=2),
        since=_opset, close=1e-4, label="reverse")  # fmt: skip
    row("rnn", lambda mb, x, y: mb.rnn(
            x=x, initial_h=y, weight_ih=_IH[:3], weight_hh=_HH[:3], bias=_BIAS[:3],
            output_sequence=True), rnn, f(4, 1, 2), f(1, 3, seed=1), since=_opset,
        close=1e-4)  # fmt: skip
for _opset in (5, 7, 8):
    row("gru", lambda mb, x, y: mb.gru(
            x=x, initial_h=y, weight_ih=_IH[:9], weight_hh=_HH[:9], bias=_BIAS[:9],
            output_sequence=True), gru, f(4, 1, 2), f(1, 3, seed=1), since=_opset,
        close=1e-4)  # fmt: skip
row("rnn", lambda mb, x, y: mb.rnn(x=x, initial_h=y, weight_ih=_IH[:3], weight_hh=_HH[:3],
                                   bias=_BIAS[:3]),
    lambda x, y: (rnn(x, y)[1][None], rnn(x, y)[1]), f(4, 1, 2), f(1, 3, seed=1), close=1e-4,
    label="last")  # fmt: skip

# ---- images --------------------------------------------------------------------------------------


def along(x: Array, axis: int, places: Array) -> Array:
    """Values between entries of an axis, by straight lines."""
    low = np.clip(np.floor(places).astype(int), 0, x.shape[axis] - 1)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    shape = [-1 if n == axis % x.ndim else 1 for n in range(x.ndim)]
    share = np.clip(places - low, 0, 1).reshape(shape)
    return np.asarray(x.take(low, axis) * (1 - share) + x.take(high, axis) * share)


def bilinear(x: Array, rows: Array, columns: Array) -> Array:
    return along(along(x, -2, rows), -1, columns)


row("upsample_nearest_neighbor",
    lambda mb, x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=3),
    lambda x: x.repeat(2, -2).repeat(3, -1), f(1, 2, 2, 2))  # fmt: skip
row("resize_nearest_neighbor",
    lambda mb, x: mb.resize_nearest_neighbor(x=x, target_size_height=4, target_size_width=6),
    lambda x: x.repeat(2, -2).repeat(2, -1), f(1, 2, 2, 3))  # fmt: skip
for _opset in (5, 6):
    row("upsample_bilinear",
        lambda mb, x: mb.upsample_bilinear(x=x, scale_factor_height=2, scale_factor_width=3,
                                           align_corners=True),
        lambda x: bilinear(x, np.linspace(0, 2, 6), np.linspace(0, 3, 12)), f(1, 2, 3, 4),
        since=_opset)  # fmt: skip
    row("upsample_bilinear",
        lambda mb, x: mb.upsample_bilinear(x=x, scale_factor_height=2, scale_factor_width=2,
                                           align_corners=False),
        lambda x: bilinear(x, np.clip((np.arange(6) + 0.5) / 2 - 0.5, 0, 2),
                           np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)), f(1, 2, 3, 4),
        since=_opset, label="centres")  # fmt: skip
row("resize_bilinear",
    lambda mb, x: mb.resize_bilinear(x=x, target_size_height=5, target_size_width=7,
                                     sampling_mode="STRICT_ALIGN_CORNERS"),
    lambda x: bilinear(x, np.linspace(0, 2, 5), np.linspace(0, 3, 7)), f(1, 2, 3, 4))  # fmt: skip
row("resize_bilinear",
    lambda mb, x: mb.resize_bilinear(x=x, target_size_height=6, target_size_width=8,
                                     sampling_mode="DEFAULT"),
    lambda x: bilinear(x, np.arange(6) * 3 / 6,
                       np.arange(8) * 4 / 8), f(1, 2, 3, 4), label="default")  # fmt: skip
row("resize", lambda mb, x: mb.resize(x=x, shape=[5, 7], resized_dims=np.uint32(2),
                                      interpolation_mode="LINEAR",
                                      sampling_mode="STRICT_ALIGN_CORNERS"),
    lambda x: bilinear(x, np.linspace(0, 2, 5), np.linspace(0, 3, 7)), f(1, 2, 3, 4),
    since=7)  # fmt: skip
row("crop", lambda mb, x: mb.crop(x=x, crop_height=[1, 0], crop_width=[0, 2]),
    lambda x: x[..., 1:, :-2], f(1, 2, 3, 4))  # fmt: skip
_ROI = np.float32([0.5, 1, 2, 2.5]).reshape(1, 1, 4, 1, 1)
for _opset in (5, 6):
    row("crop_resize",
        lambda mb, x: mb.crop_resize(x=x, roi=_ROI, target_height=4, target_width=3,
                                     sampling_mode="STRICT_ALIGN_CORNERS"),
        lambda x: bilinear(x, np.linspace(0.5, 2, 4), np.linspace(1, 2.5, 3))[None],
        f(1, 2, 4, 4), since=_opset)  # fmt: skip
row("crop_resize",
    lambda mb, x: mb.crop_resize(x=x, boxes=_ROI.reshape(1, 4), box_indices=i(0),
                                 target_height=4, target_width=3,
                                 sampling_mode="STRICT_ALIGN_CORNERS"),
    lambda x: bilinear(x, np.linspace(0.5, 2, 4), np.linspace(1, 2.5, 3)), f(1, 2, 4, 4),
    since=7)  # fmt: skip
_POINTS = np.float32([[[[0.5, 1], [2.25, 0]], [[1, 1.5], [0, 2]]]])
for _opset in (5, 6, 7):
    row("resample",
        lambda mb, x: mb.resample(
            x=x, coordinates=_POINTS, sampling_mode="bilinear", padding_mode="border",
            padding_value=0.0, coordinates_mode="unnormalized", align_corners=True),
        lambda x: np.stack([[bilinear(x, np.array([p[1]]), np.array([p[0]]))[0, :, 0, 0]
                             for p in points] for points in _POINTS[0]]).transpose(2, 0, 1)[None],
        f(1, 2, 3, 4), since=_opset)  # fmt: skip
row("affine",
    lambda mb, x: mb.affine(
        x=x, transform_matrix=np.float32([[0.5, 0, 0.25, 0, 0.5, -0.25]]), output_height=2,
        output_width=3, sampling_mode="bilinear", padding_mode="constant", padding_value=0.0,
        coordinates_mode="normalized_minus_one_to_one", align_corners=True),
    lambda x: bilinear(x, (np.linspace(-1, 1, 2) * 0.5 + 0.75) / 2 * 2,
                       (np.linspace(-1, 1, 3) * 0.5 + 1.25) / 2 * 3), f(1, 2, 3, 4))  # fmt: skip

# ---- bytes ---------------------------------------------------------------------------------------

row(
    "quantize",
    lambda mb, x: mb.quantize(input=x, scale=0.25, zero_point=np.uint8(10), output_dtype="uint8"),
    lambda x: np.clip(np.rint(x / 0.25) + 10, 0, 255),
    f(2, 5) * 4,
    since=7,
    half=False,
)
row("quantize",
    lambda mb, x: mb.quantize(input=x, scale=np.float32([0.25, 0.5]), axis=0,
                              output_dtype="int8"),
    lambda x: np.clip(np.rint(x / np.array([[0.25], [0.5]])), -128, 127), f(2, 5) * 32, since=7,
    half=False, label="axis")  # fmt: skip
row("dequantize",
    lambda mb, x: mb.dequantize(input=mb.cast(x=x, dtype="int8"), scale=np.float32([0.25, 0.5]),
                                zero_point=np.int8([3, -4]), axis=0),
    lambda x: (np.trunc(x) - np.array([[3], [-4]])) * np.array([[0.25], [0.5]]), f(2, 3) * 16,
    since=7, half=False)  # fmt: skip


def _constant(op: str, since: int, label: str = "", **inputs: Any) -> None:
    """A compressed constant: what it means is what coremltools says."""

    def build(mb: Any, x: Any) -> Any:
        result = getattr(mb, op)(**inputs)
        return mb.add(x=x, y=result)

    def want(x: Array) -> Any:
        import coremltools as ct
        from coremltools.converters.mil.mil import Builder as mb

        matches = []

        @mb.program(input_specs=[], opset_version=getattr(ct.target, f"iOS{since + 10}"))  # type: ignore[untyped-decorator]
        def program() -> Any:
            result = getattr(mb, op)(**inputs)
            matches.append(result.op.materialized_val_inference())
            return result

        return x + matches[0]

    row(op, build, want, f(4, 6), since=since, half=False, label=label)


_CODES = np.random.default_rng(3).integers(0, 256, (4, 6)).astype(np.uint8)
_constant("constexpr_affine_dequantize", 6, quantized_data=_CODES, scale=np.float32(0.125),
          zero_point=np.uint8(7), axis=0)  # fmt: skip
_constant("constexpr_affine_dequantize", 6, "axis", quantized_data=_CODES,
          scale=positive(6), zero_point=np.arange(6).astype(np.uint8), axis=1)  # fmt: skip
for _opset in (6, 8):
    _constant("constexpr_cast", _opset, source_val=f(4, 6).astype(np.float16),
              output_dtype="fp32")  # fmt: skip
_constant("constexpr_lut_to_dense", 6, indices=_CODES.ravel()[:6], lut=f(4),
          shape=np.uint32([4, 6]))  # fmt: skip
_MASK = np.random.default_rng(4).integers(0, 2, 24).astype(np.uint8)
_constant("constexpr_sparse_to_dense", 6, nonzero_data=f(int(_MASK.sum())),
          mask=np.packbits(_MASK, bitorder="little"), shape=np.uint32([4, 6]))  # fmt: skip
_constant("constexpr_blockwise_shift_scale", 8, data=_CODES, scale=positive(2, 3),
          offset=_CODES[:2, :3])  # fmt: skip


def _small(values: Array, bits: int) -> Array:
    """Numbers of few bits, as coremltools has them."""
    from coremltools.converters.mil.mil import types

    result: Array = values.astype(types.nptype_from_builtin(types.string_to_builtin(f"uint{bits}")))
    return result


def _sub_byte(op: str, label: str, inputs: Callable[[], dict[str, Any]]) -> None:
    def want(x: Array) -> Any:
        import coremltools as ct
        from coremltools.converters.mil.mil import Builder as mb

        matches = []

        @mb.program(input_specs=[], opset_version=ct.target.iOS18)  # type: ignore[untyped-decorator]
        def program() -> Any:
            result = getattr(mb, op)(**inputs())
            matches.append(result.op.materialized_val_inference())
            return result

        return x + matches[0]

    row(op, lambda mb, x: mb.add(x=x, y=getattr(mb, op)(**inputs())), want, f(4, 6), since=8,
        half=False, label=label)  # fmt: skip


for _bits in (1, 2, 3, 4, 6):
    _sub_byte("constexpr_lut_to_dense", f"{_bits} bits", lambda bits=_bits: {
        "indices": _small(_CODES % (1 << bits), bits),
        "lut": f(2, 1, 1 << bits, 1, seed=bits)})  # fmt: skip
_sub_byte("constexpr_sparse_to_dense", "bits", lambda: {
    "nonzero_data": f(int(_MASK.sum())), "mask": _small(_MASK.reshape(4, 6), 1)})  # fmt: skip

_LUT, _SCALE = f(1, 1, 4, 1, seed=8), positive(4, 1)


def _dense(mask: Array, values: Array) -> Array:
    result = np.zeros(mask.shape)
    result[mask != 0] = values
    return result


def _joint(op: str, want: Callable[[], Array], **inputs: Callable[[], Any]) -> None:
    def build(mb: Any, x: Any) -> Any:
        mask, data = getattr(mb, op)(**{name: make() for name, make in inputs.items()})
        return mb.add(x=x, y=mb.constexpr_sparse_to_dense(nonzero_data=data, mask=mask))

    row(op, build, lambda x: x + want(), f(4, 6), since=8, half=False)


_FEW = _CODES.ravel()[: int(_MASK.sum())]
_joint("constexpr_lut_to_sparse", lambda: _dense(_MASK.reshape(4, 6), _LUT.ravel()[_FEW % 4]),
       indices_mask=lambda: _small(_MASK.reshape(4, 6), 1),
       indices_nonzero_data=lambda: _small(_FEW % 4, 2), lut=lambda: _LUT)  # fmt: skip
_joint("constexpr_sparse_blockwise_shift_scale",
       lambda: _dense(_MASK.reshape(4, 6), _FEW.astype(float)) * _SCALE,
       data_mask=lambda: _small(_MASK.reshape(4, 6), 1), nonzero_data=lambda: _FEW,
       scale=lambda: _SCALE)  # fmt: skip

# ---- control -------------------------------------------------------------------------------------

row("cond", lambda mb, x: mb.cond(
        pred=mb.greater(x=mb.reduce_sum(x=x, keep_dims=False), y=0.0),
        _true_fn=lambda: mb.mul(x=x, y=2.0), _false_fn=lambda: mb.sub(x=x, y=1.0)),
    lambda x: x * 2 if x.sum() > 0 else x - 1, f(2, 3), half=False)  # fmt: skip
row("while_loop", lambda mb, x: mb.while_loop(
        _cond=lambda n, a: mb.less(x=n, y=3),
        _body=lambda n, a: (mb.add(x=n, y=1), mb.mul(x=a, y=0.5)), loop_vars=(0, x)),
    lambda x: (3, x / 8), f(2, 3))  # fmt: skip


def _lists(mb: Any, x: Any) -> Any:
    result = mb.make_list(init_length=3, dynamic_length=False, elem_shape=(2,), dtype="fp32")
    result = mb.list_scatter(ls=result, indices=[0, 2], value=x)
    result = mb.list_write(ls=result, index=1, value=np.float32([5, 6]))
    return (mb.list_read(ls=result, index=2), mb.list_gather(ls=result, indices=[1, 0]),
            mb.list_length(ls=result))  # fmt: skip


for _name in ("make_list", "list_scatter", "list_write", "list_read", "list_gather",
              "list_length"):  # fmt: skip
    row(_name, _lists, lambda x: (x[1], np.stack([[5, 6], x[0]]), 3), f(2, 2))
