"""Convolution and pooling over depth, height and width, against loops over every value."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.layers import naive
from tests.layers.case import Case, exact
from tests.layers.naive import values

AXES = ("Depth", "Height", "Width")
SIDES = ("Front", "Back", "Top", "Bottom", "Left", "Right")
Triple = tuple[int, int, int]
NONE = [(0, 0)] * 3


def per_axis(field: str, numbers: Triple) -> dict[str, int]:
    return {field + axis: number for axis, number in zip(AXES, numbers, strict=True)}


def padding(kind: str, pads: list[tuple[int, int]]) -> dict[str, Any]:
    flat = [number for pair in pads for number in pair]
    inputs = {f"customPadding{side}": number for side, number in zip(SIDES, flat, strict=True)}
    return {"paddingType": kind, **(inputs if kind == "CUSTOM" else {})}


def conv(
    shape: tuple[int, ...],
    kernel: Triple,
    *,
    out: int = 2,
    groups: int = 1,
    stride: Triple = (1, 1, 1),
    dilation: Triple = (1, 1, 1),
    kind: str = "VALID",
    pads: list[tuple[int, int]] = NONE,
    bias: bool = False,
) -> Case:
    x, w = values(*shape), values(out, shape[1] // groups, *kernel, seed=1)
    if kind == "SAME":
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        pads = naive.same_pads(shape[2:], spans, stride, False)
    y = naive.convolution(x, w, stride=stride, dilation=dilation, pads=pads, groups=groups)
    params = {
        "inputChannels": shape[1], "outputChannels": out, "nGroups": groups, "weights": w,
        **per_axis("kernel", kernel), **per_axis("stride", stride),
        **per_axis("dilation", dilation), **padding(kind, pads),
    }  # fmt: skip
    if bias:
        b = values(out, seed=2)
        params |= {"hasBias": True, "bias": b}
        y = y + b[:, None, None, None]
    return exact("convolution3d", params, [x], y, tolerance=1e-4)


def deconv(
    shape: tuple[int, ...],
    kernel: Triple,
    *,
    start: Triple,
    size: Triple,
    out: int = 2,
    groups: int = 1,
    stride: Triple = (1, 1, 1),
    kind: str = "VALID",
    pads: list[tuple[int, int]] = NONE,
    **more: Any,
) -> Case:
    x, w = values(*shape), values(shape[1], out // groups, *kernel, seed=1)
    y = naive.transposed(x, w, stride=stride, groups=groups, start=start, size=size)
    params = {
        "inputChannels": shape[1], "outputChannels": out, "nGroups": groups, "weights": w,
        "isDeconvolution": True, **per_axis("kernel", kernel), **per_axis("stride", stride),
        **padding(kind, pads), **more,
    }  # fmt: skip
    return exact("convolution3d", params, [x], y, tolerance=1e-4)


def pool(
    kind: str,
    shape: tuple[int, ...],
    kernel: Triple,
    stride: Triple,
    pads: list[tuple[int, int]] = NONE,
    *,
    mode: str = "CUSTOM",
    exclude: bool = False,
) -> Case:
    x = values(*shape)
    if mode == "SAME":
        pads = naive.same_pads(shape[2:], kernel, stride, False)

    def combine(real: list[float], total: int) -> float:
        if kind == "MAX":
            return max(real)
        return sum(real) / (len(real) if exclude else total)

    y = naive.pooling(x, kernel=kernel, stride=stride, pads=pads, combine=combine)
    params = {
        "type": kind, **per_axis("kernel", kernel), **per_axis("stride", stride),
        **padding(mode, pads), "countExcludePadding": exclude,
    }  # fmt: skip
    return exact("pooling3d", params, [x], y)


PADS = [(1, 0), (0, 1), (1, 1)]
COMMENT = np.arange(1.0, 10.0).reshape(3, 3), np.arange(10.0, 19.0).reshape(3, 3)
CUBES = np.stack(COMMENT)[None, None]

CASES: list[Case] = [
    conv((2, 2, 3, 4, 4), (2, 3, 2)),
    conv((1, 2, 4, 4, 5), (2, 2, 3), stride=(2, 1, 2), kind="CUSTOM", pads=PADS, bias=True),
    conv((1, 4, 3, 3, 3), (2, 2, 2), groups=2, out=4),
    conv((1, 2, 5, 4, 4), (2, 2, 2), dilation=(2, 1, 3), kind="SAME"),
    conv((1, 1, 3, 8, 8), (3, 3, 3), stride=(2, 2, 2), kind="SAME"),
    deconv((1, 2, 2, 3, 2), (2, 3, 2), start=(0, 0, 0), size=(3, 5, 3)),
    deconv(
        (1, 4, 2, 2, 2),
        (2, 2, 2),
        groups=2,
        out=6,
        stride=(2, 2, 1),
        start=(0, 0, 0),
        size=(4, 4, 3),
    ),
    deconv(
        (1, 2, 2, 3, 2),
        (2, 3, 2),
        stride=(2, 2, 2),
        kind="CUSTOM",
        pads=PADS,
        start=(1, 0, 1),
        size=(3, 6, 2),
    ),
    deconv(
        (1, 2, 2, 2, 2), (3, 3, 3), stride=(2, 2, 2), kind="SAME", start=(0, 0, 0), size=(4, 4, 4)
    ),
    deconv(
        (1, 2, 2, 2, 2),
        (2, 2, 2),
        stride=(2, 2, 2),
        start=(0, 0, 0),
        size=(5, 4, 4),
        outputShape=(5, 4, 4),
    ),
    pool("MAX", (1, 2, 4, 4, 5), (2, 2, 3), (1, 2, 2), PADS),
    pool("AVERAGE", (1, 2, 4, 4, 5), (2, 2, 3), (1, 2, 2), PADS),
    pool("AVERAGE", (1, 2, 4, 4, 5), (2, 2, 3), (1, 2, 2), PADS, exclude=True),
    pool("AVERAGE", (1, 1, 3, 4, 5), (2, 3, 3), (2, 2, 2), mode="SAME"),
    pool("AVERAGE", (1, 1, 3, 4, 5), (2, 3, 3), (2, 2, 2), mode="SAME", exclude=True),
    pool("MAX", (1, 1, 3, 4, 5), (2, 3, 3), (2, 2, 2), mode="SAME"),
    pool("AVERAGE", (2, 1, 3, 4, 5), (2, 3, 3), (1, 1, 1), mode="VALID"),
    exact(
        "pooling3d",
        {**per_axis("kernel", (2, 2, 2)), "paddingType": "VALID"},
        [CUBES],
        [[[[[14, 15], [17, 18]]]]],
    ),
    exact("globalPooling3d", {}, [CUBES], [[[[[18]]]]]),
    exact("globalPooling3d", {"type": "AVERAGE"}, [CUBES], [[[[[9.5]]]]]),
]
