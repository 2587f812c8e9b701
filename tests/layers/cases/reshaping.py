"""Layers that move values: the expected ones are written out or gathered one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.layers.case import Case, classic, exact, five
from tests.layers.naive import Array, values

X = np.arange(24.0).reshape(2, 3, 4)
CHW = np.arange(1.0, 13.0).reshape(1, 2, 3, 2)
FIVE = values(2, 3, 4, 2, 3)


def placed(x: Array, shape: tuple[int, ...], where: Callable[..., Any]) -> Array:
    """Each value of `x` put where `where` says for its position."""
    y = np.full(shape, np.nan)
    for place in np.ndindex(x.shape):
        y[where(*place)] = x[place]
    assert not np.isnan(y).any()
    return y


def channel_last(x: Array, steps: int, channels: int, height: int, width: int) -> Array:
    """[Seq, B, C, H, W] read in the order H, W, C and written so."""
    y = np.zeros((steps, x.shape[1], channels, height, width))
    for batch in range(x.shape[1]):
        stream = [
            x[s, batch, c, h, w]
            for s in range(x.shape[0])
            for h in range(x.shape[3])
            for w in range(x.shape[4])
            for c in range(x.shape[2])
        ]
        targets = [
            (s, batch, c, h, w)
            for s in range(steps)
            for h in range(height)
            for w in range(width)
            for c in range(channels)
        ]
        for target, value in zip(targets, stream, strict=True):
            y[target] = value
    return y


def permuted(axes: tuple[int, ...]) -> Array:
    order = [(0, 2, 3, 4)[axis] for axis in axes]
    order.insert(1, 1)
    shape = tuple(FIVE.shape[axis] for axis in order)
    y = np.zeros(shape)
    for place in np.ndindex(shape):
        source = [0] * 5
        for axis, index in zip(order, place, strict=True):
            source[axis] = index
        y[place] = FIVE[tuple(source)]
    return y


DEPTH = np.arange(1.0, 17.0).reshape(1, 8, 1, 2)
SPACE = np.array([[[[1, 5, 2, 6], [9, 13, 10, 14]], [[3, 7, 4, 8], [11, 15, 12, 16]]]])
SHUFFLED = np.array([[[[1, 3, 2, 4], [5, 7, 6, 8]], [[9, 11, 10, 12], [13, 15, 14, 16]]]])

CASES: list[Case] = [
    exact("transpose", {"axes": (2, 0, 1)}, [X], placed(X, (4, 2, 3), lambda a, b, c: (c, a, b))),
    exact("transpose", {"axes": (0,)}, [[1, 2, 3]], [1, 2, 3]),
    exact(
        "reshapeStatic", {"targetShape": (4, 6)}, [X], [[*range(k, k + 6)] for k in (0, 6, 12, 18)]
    ),
    exact("reshapeStatic", {"targetShape": (3, -1, 2)}, [X], np.reshape([*range(24)], (3, 4, 2))),
    exact("reshapeLike", {}, [X, np.zeros((12, 2))], [[k, k + 1] for k in range(0, 24, 2)]),
    exact("reshapeDynamic", {}, [X, [12, 2]], [[k, k + 1] for k in range(0, 24, 2)]),
    exact("reshapeDynamic", {}, [X, [-1, 12]], [[*range(12)], [*range(12, 24)]]),
    exact(
        "rankPreservingReshape",
        {"targetShape": (5, -1)},
        [np.arange(20.0).reshape(10, 2)],
        np.arange(20).reshape(5, 4),
    ),
    exact(
        "rankPreservingReshape",
        {"targetShape": (0, 2, 6)},
        [X],
        np.reshape([*range(24)], (2, 2, 6)),
    ),
    exact(
        "rankPreservingReshape",
        {"targetShape": (12, 0, -1)},
        [np.arange(72.0).reshape(3, 6, 4)],
        np.arange(72).reshape(12, 6, 1),
    ),
    *(
        exact("flattenTo2D", {"axis": axis}, [np.zeros(shape)], np.zeros(result))
        for shape, axis, result in (
            ((3,), -1, (1, 3)),
            ((3,), 1, (3, 1)),
            ((4, 3), -1, (4, 3)),
            ((5, 2), 0, (1, 10)),
            ((5, 5, 3), -2, (5, 15)),
            ((2, 3, 2), -1, (6, 2)),
            ((2, 3, 2), 3, (12, 1)),
        )
    ),
    exact("flattenTo2D", {"axis": 1}, [X], [[*range(12)], [*range(12, 24)]]),
    *classic("flatten", {}, [CHW], np.arange(1.0, 13.0).reshape(1, 12, 1, 1)),
    *classic(
        "flatten",
        {"mode": "CHANNEL_LAST"},
        [CHW],
        np.reshape([1, 7, 2, 8, 3, 9, 4, 10, 5, 11, 6, 12], (1, 12, 1, 1)),
    ),
    exact("flatten", {}, [CHW[0]], np.arange(1.0, 13.0).reshape(12, 1, 1)),
    *five(
        "reshape",
        {"targetShape": (2, 3, 4)},
        [FIVE],
        np.stack([[np.reshape(b, (2, 3, 4)) for b in s] for s in FIVE]),
    ),
    *five(
        "reshape",
        {"targetShape": (-1, 1, 1)},
        [FIVE],
        np.stack([[np.reshape(b, (24, 1, 1)) for b in s] for s in FIVE]),
    ),
    *five(
        "reshape",
        {"targetShape": (4, 12, 1, 1)},
        [FIVE],
        placed(
            FIVE,
            (4, 3, 12, 1, 1),
            lambda s, b, c, h, w: (
                2 * s + (c * 6 + h * 3 + w) // 12,
                b,
                (c * 6 + h * 3 + w) % 12,
                0,
                0,
            ),
        ),
    ),
    *five(
        "reshape",
        {"targetShape": (6, 2, 2), "mode": "CHANNEL_LAST"},
        [FIVE],
        np.concatenate([channel_last(FIVE[s : s + 1], 1, 6, 2, 2) for s in range(2)]),
    ),
    *five(
        "reshape",
        {"targetShape": (8, 2, 3, 1), "mode": "CHANNEL_LAST"},
        [FIVE],
        channel_last(FIVE, 8, 2, 3, 1),
    ),
    *(
        row
        for axes in ((0, 3, 1, 2), (3, 1, 2, 0), (0, 3, 2, 1), (2, 1, 0, 3), (1, 0, 2, 3))
        for row in five("permute", {"axis": axes}, [FIVE], permuted(axes))
    ),
    *five("permute", {}, [FIVE], FIVE),
    exact("squeeze", {"axes": (0, 1)}, [X.reshape(1, 1, 6, 4)], X.reshape(6, 4)),
    exact("squeeze", {"axes": (0, 3)}, [X.reshape(1, 6, 4, 1)], X.reshape(6, 4)),
    exact("squeeze", {"axes": (-2, -1)}, [X.reshape(6, 4, 1, 1)], X.reshape(6, 4)),
    exact("squeeze", {"axes": (0,)}, [[3]], [3]),
    exact("squeeze", {"squeezeAll": True}, [X.reshape(1, 6, 1, 4)], X.reshape(6, 4)),
    exact("squeeze", {"squeezeAll": True}, [[[[3]]]], [3]),
    exact("expandDims", {"axes": (0, 1)}, [X], X.reshape(1, 1, 2, 3, 4)),
    exact("expandDims", {"axes": (0, 2)}, [X[0]], X[0].reshape(1, 3, 1, 4)),
    exact("expandDims", {"axes": (-2, -1)}, [X[0]], X[0].reshape(3, 4, 1, 1)),
    *classic("reorganizeData", {"mode": "DEPTH_TO_SPACE", "blockSize": 2}, [DEPTH], SPACE),
    *classic("reorganizeData", {"mode": "SPACE_TO_DEPTH", "blockSize": 2}, [SPACE], DEPTH),
    exact("reorganizeData", {"mode": "PIXEL_SHUFFLE", "blockSize": 2}, [DEPTH], SHUFFLED),
    exact("reorganizeData", {"mode": "DEPTH_TO_SPACE", "blockSize": 2}, [DEPTH[0]], SPACE[0]),
    exact(
        "constantPad",
        {"value": 9, "padAmounts": (0, 1, 2, 0)},
        [[[1, 2], [3, 4]]],
        [[9, 9, 1, 2], [9, 9, 3, 4], [9, 9, 9, 9]],
    ),
    exact(
        "constantPad",
        {"value": 9},
        [[[1, 2], [3, 4]], [1, 0, 0, 1]],
        [[9, 9, 9], [1, 2, 9], [3, 4, 9]],
    ),
    exact(
        "constantPad",
        {"value": 9, "padAmounts": (0, 3, 4, 0), "padToGivenOutputSizeMode": True},
        [[[1, 2], [3, 4]]],
        [[9, 9, 1, 2], [9, 9, 3, 4], [9, 9, 9, 9]],
    ),
    exact(
        "constantPad",
        {"value": 9, "padToGivenOutputSizeMode": True},
        [[[1, 2], [3, 4]], [0, 0, 3, 0]],
        [[9, 1, 2], [9, 3, 4]],
    ),
    exact(
        "constantPad",
        {"padAmounts": (0, 1, 0, 3), "padToGivenOutputSizeMode": True},
        [[[1, 2], [3, 4]]],
        [[1, 2, 0], [3, 4, 0]],
    ),
]
