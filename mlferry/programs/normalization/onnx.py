"""Normalization over channels, axes and neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlferry.onnx_graph.emitter import FARTHEST, Emitter
from mlferry.programs.exports import Call, export
from mlferry.programs.reshaping.definition import axes_of, vector
from mlferry.refusals import refuse


def _standard(emitter: Emitter, x: str, axes: Sequence[int], epsilon: float) -> str:
    over = emitter.integers(axes)
    centered = emitter.node("Sub", x, emitter.node("ReduceMean", x, over))
    variance = emitter.node("ReduceMean", emitter.node("Mul", centered, centered), over)
    root = emitter.node("Sqrt", emitter.node("Add", variance, emitter.number(epsilon)))
    return emitter.node("Div", centered, root)


@export("batch_norm")
def batch_norm(
    emitter: Emitter,
    call: Call,
    x: str,
    mean: object,
    variance: object,
    gamma: object,
    beta: object,
    epsilon: float,
) -> str:
    statistics = [call.value(name) for name in ("mean", "variance")]
    count = emitter.shape(statistics[0])[0] or 0
    scale = call.value("gamma") or emitter.constant(np.ones(count, np.float32))
    shift = call.value("beta") or emitter.constant(np.zeros(count, np.float32))
    return emitter.node("BatchNormalization", x, scale, shift, *statistics, epsilon=float(epsilon))


def _affine(emitter: Emitter, y: str, gamma: str, beta: str, shape: Sequence[int]) -> str:
    if gamma:
        y = emitter.node("Mul", y, emitter.reshape(gamma, shape))
    return emitter.node("Add", y, emitter.reshape(beta, shape)) if beta else y


@export("instance_norm")
def instance_norm(
    emitter: Emitter, call: Call, x: str, gamma: object, beta: object, epsilon: float
) -> str:
    """Normalizes over all axes after the channels."""
    rank = emitter.rank(x)
    y = _standard(emitter, x, range(2, rank), epsilon)
    shape = [-1, *[1] * (rank - 2)]
    return _affine(emitter, y, call.value("gamma"), call.value("beta"), shape)


@export("layer_norm")
def layer_norm(
    emitter: Emitter,
    call: Call,
    x: str,
    axes: tuple[int, ...] | None,
    gamma: object,
    beta: object,
    epsilon: float,
) -> str:
    rank = emitter.rank(x)
    over = tuple(range(rank)) if axes is None else axes_of(vector(axes), rank)
    scale, shift = call.value("gamma"), call.value("beta")
    first = min(over)
    if scale and sorted(over) == list(range(first, rank)):
        return emitter.node(
            "LayerNormalization",
            x,
            scale,
            *([shift] if shift else []),
            axis=first,
            epsilon=float(epsilon),
        )
    y = _standard(emitter, x, over, epsilon)
    if not scale and not shift:
        return y
    extents = [emitter.shape(x)[axis] if axis in over else 1 for axis in range(rank)]
    known = [n for n in extents if n is not None]
    if len(known) < rank:
        raise refuse("an axis of gamma and beta varies")
    return _affine(emitter, y, scale, shift, known)


@export("l2_norm")
def l2_norm(emitter: Emitter, call: Call, x: str, epsilon: float) -> str:
    """Normalizes over the last three axes."""
    total = emitter.node("ReduceSumSquare", x, emitter.integers([-3, -2, -1]))
    root = emitter.node("Sqrt", emitter.node("Add", total, emitter.number(epsilon)))
    return emitter.node("Div", x, root)


@export("local_response_norm")
def local_response_norm(
    emitter: Emitter, call: Call, x: str, size: int, alpha: float, beta: float, k: float
) -> str:
    """Divides by the squares of neighbouring channels: axis 1, or axis 0 of three axes."""
    rank = emitter.rank(x)
    axis = 1 if rank > 3 else rank - 3
    before = (size - 1) // 2
    amounts = np.zeros((2, rank), np.int64)
    amounts[:, axis] = before, size - 1 - before
    squares = emitter.node("Mul", x, x)
    squares = emitter.node("Pad", squares, emitter.integers(amounts.ravel().tolist()))
    totals = [
        emitter.sliced(squares, axis, place, end)
        for place in range(size)
        for end in [place - size + 1 or FARTHEST]
    ]
    total = emitter.node("Sum", *totals)
    inner = emitter.node("Mul", total, emitter.number(alpha / size))
    inner = emitter.node("Add", inner, emitter.number(k))
    return emitter.node("Div", x, emitter.node("Pow", inner, emitter.number(beta)))
