"""Upsampling and resizing, against the published grids, position by position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.layers import naive
from tests.layers.case import Case, classic, exact, five
from tests.layers.naive import Array, values

X = values(2, 3, 3, 4)
Grid = Callable[[int, int], list[float]]


def default(size: int, out: int) -> list[float]:
    return [min(size - 1, i * size / out) for i in range(out)]


def corners(size: int, out: int) -> list[float]:
    return [i * (size - 1) / (out - 1) if out > 1 else 0.0 for i in range(out)]


def half(size: int, out: int) -> list[float]:
    return [min(size - 1, max(0, (i + 0.5) * size / out - 0.5)) for i in range(out)]


def middle(size: int, out: int) -> list[float]:
    return [(size - 1) / 2] if out == 1 else corners(size, out)


def roi(size: int, out: int) -> list[float]:
    spacing = max(1, size - 1) / out
    return [min(size - 1, 0.5 * spacing + i * spacing) for i in range(out)]


def resized(grid: Grid, height: int, width: int) -> Array:
    return naive.sample(X, grid(3, height), grid(4, width))


def nearest(height: int, width: int) -> Array:
    y = np.zeros((2, 3, height, width))
    for i, j in np.ndindex(height, width):
        y[:, :, i, j] = X[:, :, int(i * 3 / height + 1e-9), int(j * 4 / width + 1e-9)]
    return y


MODES: list[tuple[str, Grid]] = [
    ("STRICT_ALIGN_ENDPOINTS_MODE", corners),
    ("ALIGN_ENDPOINTS_MODE", middle),
    ("UPSAMPLE_MODE", default),
    ("ROI_ALIGN_MODE", roi),
]
IMAGE = np.arange(1.0, 17.0).reshape(1, 1, 1, 4, 4)
TWO = np.concatenate([IMAGE, -IMAGE], axis=1)


def box(*numbers: float) -> Array:
    return np.array(numbers).reshape(1, 1, -1, 1, 1)


def crop(
    boxes: Array,
    expected: Any,
    *,
    size: tuple[int, int] = (2, 2),
    image: Array = IMAGE,
    **params: Any,
) -> list[Case]:
    inputs = {"targetSize": size, "mode": {"samplingMethod": "ALIGN_ENDPOINTS_MODE"}, **params}
    return five("cropResize", inputs, [image, boxes], np.asarray(expected, float))


def one(expected: list[list[float]]) -> Array:
    return np.array(expected)[None, None, None]


CORNER = one([[6, 7], [10, 11]])
WIDE = one([[7, 8], [11, 12]])

CASES: list[Case] = [
    *classic("upsample", {"scalingFactor": (2, 3)}, [X], nearest(6, 12)),
    *classic("upsample", {}, [X], X),
    *classic(
        "upsample", {"scalingFactor": (2, 3), "mode": "BILINEAR"}, [X], resized(default, 6, 12)
    ),
    *(
        exact(
            "upsample",
            {"scalingFactor": (2, 1), "mode": "BILINEAR", "linearUpsampleMode": mode},
            [X],
            resized(grid, 6, 4),
        )
        for mode, grid in (("ALIGN_CORNERS_TRUE", corners), ("ALIGN_CORNERS_FALSE", half))
    ),
    *(
        exact(
            "upsample",
            {
                "fractionalScalingFactor": (1.5, 0.75),
                "mode": "BILINEAR",
                "linearUpsampleMode": mode,
            },
            [X],
            resized(grid, 4, 3),
        )
        for mode, grid in (
            ("DEFAULT", default),
            ("ALIGN_CORNERS_TRUE", corners),
            ("ALIGN_CORNERS_FALSE", half),
        )
    ),
    exact("upsample", {"fractionalScalingFactor": (2.4, 1.0)}, [X], nearest(7, 4)),
    # A factor of 0.7 is stored as 0.69999999; ten rows are seven all the same.
    exact(
        "upsample",
        {"fractionalScalingFactor": (0.7, 1)},
        [np.arange(10.0).reshape(1, 10, 1)],
        np.array([0.0, 1, 2, 4, 5, 7, 8]).reshape(1, 7, 1),
    ),
    *(
        row
        for mode, grid in MODES
        for size in ((5, 7), (2, 3), (1, 1), (3, 4))
        for row in classic(
            "resizeBilinear",
            {"targetSize": size, "mode": {"samplingMethod": mode}},
            [X],
            resized(grid, *size),
        )
    ),
    *classic("resizeBilinear", {}, [X], X[..., :1, :1]),
    *crop(box(1, 1, 2, 2), CORNER),
    *crop(
        box(1, 1, 2, 2),
        one(
            [
                [6, 19 / 3, 20 / 3, 7],
                [22 / 3, 23 / 3, 8, 25 / 3],
                [26 / 3, 9, 28 / 3, 29 / 3],
                [10, 31 / 3, 32 / 3, 11],
            ]
        ),
        size=(4, 4),
    ),
    *crop(box(1, 1, 2, 2), one([[8.5]]), size=(1, 1)),
    *crop(box(1, 1, 2, 2), one([[6]]), size=(1, 1), mode={}),
    *crop(box(2, 2, 1, 1), one([[11, 10], [7, 6]])),
    *crop(box(0, 0, 0, 1 / 3, 1 / 3), one([[1, 2], [5, 6]]), normalizedCoordinates=True),
    *crop(box(1, 2, 2, 3), WIDE),
    *crop(box(2, 1, 3, 2), WIDE, boxIndicesMode={"boxMode": "CORNERS_WIDTH_FIRST"}),
    *crop(box(1.5, 2.5, 1, 1), WIDE, boxIndicesMode={"boxMode": "CENTER_SIZE_HEIGHT_FIRST"}),
    *crop(box(2.5, 1.5, 1, 1), WIDE, boxIndicesMode={"boxMode": "CENTER_SIZE_WIDTH_FIRST"}),
    *crop(box(2, 4, 4, 6), WIDE, spatialScale=0.5),
    *crop(
        box(0, 0, 3, 2),
        naive.sample(IMAGE, [0.75, 2.25], [0.5, 1.5]),
        mode={"samplingMethod": "ROI_ALIGN_MODE"},
    ),
    *crop(
        box(0, 1, 3, 2),
        naive.sample(IMAGE, [0.0, 2.0], [1.0, 2.0]),
        mode={"samplingMethod": "UPSAMPLE_MODE"},
    ),
    *crop(box(1, 1, 2, 2), np.stack([CORNER[0, 0], -CORNER[0, 0]])[None], image=TWO),
    *crop(
        np.concatenate([box(1, 1, 1, 2, 2), box(0, 1, 2, 2, 3)]),
        np.concatenate([-CORNER, WIDE]),
        image=TWO,
    ),
]
