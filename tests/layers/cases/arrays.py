"""Layers that join, split, repeat and slice."""

from __future__ import annotations

import numpy as np

from tests.layers.case import Case, classic, exact, five
from tests.layers.naive import values

A, B = np.arange(12.0).reshape(1, 3, 2, 2), np.arange(100.0, 104.0).reshape(1, 1, 2, 2)
S, T = values(2, 1, 3, 1, 1), values(3, 1, 3, 1, 1, seed=1)
ONE, TWO = [[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 10], [11, 12]]
CUBE = np.arange(125.0).reshape(5, 5, 5)
LINE = [float(v) for v in range(7)]
SIX = np.arange(24.0).reshape(1, 6, 2, 2)


def picked(*lists: list[int]) -> np.ndarray:
    """The entries of the cube at all combinations of these indices."""
    return np.array(
        [[[a * 25 + b * 5 + c for c in lists[2]] for b in lists[1]] for a in lists[0]], float
    )


MASKED = {
    "beginIds": (1, 2, 3), "beginMasks": (True, False, True), "endIds": (3, -3, 2),
    "endMasks": (False, True, True), "strides": (2, 2, 2),
}  # fmt: skip
BEGIN, END, STRIDES = [1, 2, 3], [3, -3, 2], [2, 2, 2]
BEGIN_MASKS, END_MASKS, SQUEEZE = [1, 0, 1], [0, 1, 1], [0, 1, 0]
WHOLE = picked([0, 2], [2, 4], [0, 2, 4])
WITHOUT = picked([0, 2], [2], [0, 2, 4])[:, 0]


def slices() -> list[Case]:
    """`slice`: an end of 0 is the end of the axis, a negative one counts from there."""
    result: list[Case] = []
    for axis, name in ((1, "CHANNEL_AXIS"), (2, "HEIGHT_AXIS"), (3, "WIDTH_AXIS")):
        for start, end, stride, expected in (
            (0, 3, 1, [0, 1, 2]),
            (1, -1, 1, [1, 2, 3]),
            (-3, -1, 1, [2, 3]),
            (2, 0, 1, [2, 3, 4]),
            (-2, 0, 1, [3, 4]),
            (0, 0, 2, [0, 2, 4]),
            (1, 5, 3, [1, 4]),
            (-4, 4, 2, [1, 3]),
        ):
            x = values(1, 5, 5, 5)
            y = np.stack([np.moveaxis(x, axis, 0)[k] for k in expected], axis=axis)
            params = {"startIndex": start, "endIndex": end, "stride": stride, "axis": name}
            result += classic("slice", params, [x], y)
    return [*result, exact("slice", {"endIndex": 2, "axis": "WIDTH_AXIS"}, [LINE], [0, 1])]


def dynamic() -> list[Case]:
    """What comes as inputs wins over the parameters, which are wrong here where they lose."""
    inputs = [BEGIN, END, STRIDES, BEGIN_MASKS, END_MASKS]
    names = ("endIds", "strides", "beginMasks", "endMasks")
    result = []
    for count in range(1, 6):
        params = {key: MASKED[key] for key in names[count - 1 :]}
        params |= dict.fromkeys(names[: count - 1], (1, 1, 1))
        result.append(exact("sliceDynamic", params, [CUBE, *inputs[:count]], WHOLE))
    result.append(
        exact(
            "sliceDynamic",
            {**{k: MASKED[k] for k in names}, "squeezeMasks": (0, 1, 0)},
            [CUBE, BEGIN],
            WITHOUT,
        )
    )
    result.append(exact("sliceDynamic", {}, [CUBE, *inputs, SQUEEZE], WITHOUT))
    result.append(exact("sliceDynamic", {"endIds": (2,)}, [LINE], [0, 1]))
    return result


CASES: list[Case] = [
    *classic(
        "concat",
        {},
        [A, B, A],
        np.reshape([*range(12), 100, 101, 102, 103, *range(12)], (1, 7, 2, 2)),
    ),
    *five("concat", {"sequenceConcat": True}, [S, T], np.array([*S, *T])),
    exact("concatND", {"axis": 1}, [ONE, TWO], [[1, 2, 7, 8], [3, 4, 9, 10], [5, 6, 11, 12]]),
    exact("concatND", {"axis": -2}, [ONE, [[0, 0]]], [*ONE, [0, 0]]),
    exact(
        "concatND",
        {"axis": 0, "interleave": True},
        [ONE, TWO],
        [[1, 2], [7, 8], [3, 4], [9, 10], [5, 6], [11, 12]],
    ),
    exact(
        "concatND",
        {"axis": -1, "interleave": True},
        [ONE, TWO],
        [[1, 7, 2, 8], [3, 9, 4, 10], [5, 11, 6, 12]],
    ),
    exact("stack", {"axis": 0}, [ONE, TWO], [ONE, TWO]),
    exact(
        "stack", {"axis": -1}, [ONE, TWO], [[[1, 7], [2, 8]], [[3, 9], [4, 10]], [[5, 11], [6, 12]]]
    ),
    exact(
        "stack",
        {"axis": 1},
        [ONE, TWO, ONE],
        [[[1, 2], [7, 8], [1, 2]], [[3, 4], [9, 10], [3, 4]], [[5, 6], [11, 12], [5, 6]]],
    ),
    exact("tile", {"reps": (2, 1)}, [ONE], [*ONE, *ONE]),
    exact("tile", {"reps": (3,)}, [ONE], [[1, 2] * 3, [3, 4] * 3, [5, 6] * 3]),
    exact("tile", {"reps": (9,)}, [ONE, [1, 2]], [[1, 2] * 2, [3, 4] * 2, [5, 6] * 2]),
    exact("tile", {}, [ONE, [2]], [[1, 2] * 2, [3, 4] * 2, [5, 6] * 2]),
    *classic(
        "split",
        {"nOutputs": 3},
        [SIX],
        *(np.arange(8.0 * k, 8 * k + 8).reshape(1, 2, 2, 2) for k in range(3)),
    ),
    exact("splitND", {"axis": -3, "splitSizes": (3, 2)}, [CUBE], CUBE[[0, 1, 2]], CUBE[[3, 4]]),
    exact("splitND", {"axis": 1, "numSplits": 2}, [[[1, 2, 3, 4]]], [[1, 2]], [[3, 4]]),
    exact("splitND", {"axis": 0, "numSplits": 3}, [LINE], [0, 1, 2], [3, 4], [5, 6]),
    exact("splitND", {"axis": 0, "numSplits": 7, "splitSizes": (1, 6)}, [LINE], [0], LINE[1:]),
    exact("loadConstantND", {"shape": (2, 3), "data": np.arange(6)}, [], [[0, 1, 2], [3, 4, 5]]),
    exact("loadConstantND", {"shape": (1,), "data": np.array([2.0], np.float16)}, [], [2]),
    *five("loadConstant", {"shape": (3, 2, 2), "data": np.arange(12)}, [], A[None]),
    *five("sequenceRepeat", {"nRepetitions": 3}, [S], np.array([*S, *S, *S])),
    *five("sequenceRepeat", {}, [S], S),
    *slices(),
    exact("sliceStatic", MASKED, [CUBE], WHOLE),
    exact("sliceStatic", {**MASKED, "squeezeMasks": (False, True, False)}, [CUBE], WITHOUT),
    exact(
        "sliceStatic",
        {"beginIds": (-1, 3, 0), "endIds": (-4, 0, 5), "strides": (-1, -2, 4)},
        [CUBE],
        picked([4, 3, 2], [3, 1], [0, 4]),
    ),
    exact(
        "sliceStatic",
        {
            "beginIds": (0, 3, 1),
            "beginMasks": (True, False, False),
            "endIds": (0, 0, 9),
            "endMasks": (True, True, False),
            "strides": (-2, -1, 2),
        },
        [CUBE],
        picked([4, 2, 0], [3, 2, 1, 0], [1, 3]),
    ),
    exact(
        "sliceStatic",
        {"beginIds": (2,), "endIds": (0,), "strides": (1,), "squeezeMasks": (True,)},
        [LINE],
        [2],
    ),
    *dynamic(),
    exact(
        "sliceBySize", {"size": 2, "axis": 1}, [CUBE, [3]], picked([*range(5)], [3, 4], [*range(5)])
    ),
    exact("sliceBySize", {"size": 3, "axis": -1}, [[LINE], [2]], [[2, 3, 4]]),
    exact(
        "slidingWindows",
        {"axis": 0, "windowSize": 3, "step": 2},
        [LINE],
        [[0, 1, 2], [2, 3, 4], [4, 5, 6]],
    ),
    exact(
        "slidingWindows",
        {"axis": 1, "windowSize": 2, "step": 3},
        [CUBE],
        np.stack(
            [picked([*range(5)], [0, 1], [*range(5)]), picked([*range(5)], [3, 4], [*range(5)])], 1
        ),
    ),
    exact("slidingWindows", {"axis": -1, "windowSize": 7, "step": 1}, [[LINE]], [[LINE]]),
]
