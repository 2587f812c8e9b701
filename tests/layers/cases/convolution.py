"""Convolution, pooling, padding and cropping, against loops over every value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlferry.spec import weights
from mlferry.spec.proto import neural_network_pb2 as nn
from tests.layers import naive
from tests.layers.case import Case, classic, exact
from tests.layers.naive import values

Edges = tuple[tuple[int, int], tuple[int, int]]
NONE: Edges = ((0, 0), (0, 0))


def amounts(edges: Edges) -> dict[str, Any]:
    return {"borderAmounts": [{"startEdgeSize": a, "endEdgeSize": b} for a, b in edges]}


def conv(
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    *,
    out: int = 4,
    groups: int = 1,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    pads: Edges | None = None,
    same: str | None = None,
    bias: bool = False,
) -> list[Case]:
    x, w = values(*shape), values(out, shape[1] // groups, *kernel, seed=1)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    edges = pads or NONE
    if same:
        edges = naive.same_pads(shape[2:], spans, stride, same == "TOP_LEFT_HEAVY")
    y = naive.convolution(x, w, stride=stride, dilation=dilation, pads=edges, groups=groups)
    params: dict[str, Any] = {
        "outputChannels": out,
        "kernelChannels": shape[1] // groups,
        "kernelSize": kernel,
        "weights": w,
    }
    params |= {"nGroups": groups} if groups > 1 else {}
    params |= {"stride": stride} if stride != (1, 1) else {}
    params |= {"dilationFactor": dilation} if dilation != (1, 1) else {}
    if same:
        params["same"] = {"asymmetryMode": same}
    else:
        params["valid"] = {"paddingAmounts": amounts(pads)} if pads else {}
    if bias:
        b = values(out, seed=2)
        params |= {"hasBias": True, "bias": b}
        y = y + b[:, None, None]
    return classic("convolution", params, [x], y)


def deconv(
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    *,
    start: tuple[int, int],
    size: tuple[int, int],
    out: int = 4,
    groups: int = 1,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    **padding: Any,
) -> list[Case]:
    x, w = values(*shape), values(shape[1], out // groups, *kernel, seed=1)
    y = naive.transposed(
        x, w, stride=stride, dilation=dilation, groups=groups, start=start, size=size
    )
    params = {
        "outputChannels": out,
        "kernelChannels": shape[1],
        "kernelSize": kernel,
        "stride": stride,
        "dilationFactor": dilation,
        "nGroups": groups,
        "isDeconvolution": True,
        "weights": w,
        **padding,
    }
    return classic("convolution", params, [x], y)


def quantized_conv() -> list[Case]:
    x = values(1, 2, 4, 4)
    indices = np.random.default_rng(3).integers(0, 16, (3, 2, 3, 3))
    scale, bias = np.array([0.1, 0.2, 0.3]), np.array([-1.0, -2.0, 0.5])
    message, table = nn.WeightParams(), np.linspace(-1, 1, 16)
    weights.write_linear(message, indices, 4, scale, bias)
    w = indices * scale[:, None, None, None] + bias[:, None, None, None]
    common: dict[str, Any] = {"outputChannels": 3, "kernelChannels": 2, "valid": {}}
    lut = nn.WeightParams()
    weights.write_lut(lut, indices, 4, table)
    half = values(3, 2, 3, 3).astype(np.float16)
    rows = []
    for stored, real in ((message, w), (lut, table[indices]), (half, half.astype(float))):
        y = naive.convolution(x, real, stride=(1, 1), pads=NONE)
        rows += classic("convolution", {**common, "weights": stored}, [x], y)
    # A deconvolution's scales go along the second axis.
    turned = nn.WeightParams()
    weights.write_linear(turned, indices.transpose(1, 0, 2, 3), 4, scale, bias)
    y = naive.transposed(x, w.transpose(1, 0, 2, 3), stride=(1, 1), start=(0, 0), size=(6, 6))
    params = {**common, "weights": turned, "isDeconvolution": True}
    return rows + classic("convolution", params, [x], y)


def dynamic_conv() -> list[Case]:
    x, w, b = values(2, 4, 5, 5), values(6, 2, 3, 2, seed=1), values(6, seed=2)
    y = naive.convolution(x, w, stride=(1, 1), pads=NONE, groups=2)
    params = {"outputChannels": 6, "kernelChannels": 2, "kernelSize": (3, 2), "nGroups": 2}
    x2, w2 = values(1, 2, 3, 3), values(2, 3, 2, 2, seed=1)
    y2 = naive.transposed(x2, w2, stride=(2, 2), start=(0, 0), size=(6, 6))
    return [
        exact("convolution", {**params, "valid": {}}, [x, w], y),
        exact(
            "convolution",
            {**params, "hasBias": True, "bias": b},
            [x, w],
            y + b[:, None, None],
        ),
        exact(
            "convolution",
            {
                "outputChannels": 3, "kernelChannels": 2, "kernelSize": (2, 2),
                "stride": (2, 2), "isDeconvolution": True,
            },
            [x2, w2],
            y2,
        ),
    ]  # fmt: skip


def mean_all(real: list[float], total: int) -> float:
    return sum(real) / total


def mean_real(real: list[float], total: int) -> float:
    return sum(real) / len(real)


def largest(real: list[float], total: int) -> float:
    return max(real)


def norm(real: list[float], total: int) -> float:
    return math.sqrt(sum(v * v for v in real))


KINDS = {
    "MAX": ({}, largest),
    "AVERAGE": ({"type": "AVERAGE"}, mean_all),
    "EXCLUDE": ({"type": "AVERAGE", "avgPoolExcludePadding": True}, mean_real),
    "L2": ({"type": "L2"}, norm),
}


def pool(
    kind: str,
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pads: Edges = NONE,
    same: str | None = None,
) -> list[Case]:
    inputs, combine = KINDS[kind]
    x = values(*shape)
    params = {**inputs, "kernelSize": kernel, "stride": stride}
    if same:
        pads = naive.same_pads(shape[2:], kernel, stride, same == "TOP_LEFT_HEAVY")
        params["same"] = {"asymmetryMode": same}
    else:
        params["valid"] = {"paddingAmounts": amounts(pads)}
    y = naive.pooling(x, kernel=kernel, stride=stride, pads=pads, combine=combine)
    return classic("pooling", params, [x], y)


def complete(
    kind: str,
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    counts: tuple[int, int],
) -> list[Case]:
    """`includeLastPixel`; the number of windows is worked out by hand."""
    inputs, combine = KINDS[kind]
    x = values(*shape)
    pads = [(pad[0], pad[0]), (pad[1], pad[1])]
    params = {**inputs, "kernelSize": kernel, "stride": stride}
    params["includeLastPixel"] = {"paddingAmounts": pad} if any(pad) else {}
    y = naive.pooling(
        x,
        kernel=kernel,
        stride=stride,
        pads=pads,
        combine=combine,
        counts=counts,
        counted=pads,
    )
    return classic("pooling", params, [x], y)


def global_pools() -> list[Case]:
    x = values(2, 3, 4, 5)
    flat = x.reshape(2, 3, -1)
    result: list[Case] = []
    for kind, y in (
        ("MAX", [[max(map(float, c)) for c in b] for b in flat]),
        ("AVERAGE", [[sum(map(float, c)) / 20 for c in b] for b in flat]),
        ("L2", [[math.sqrt(sum(float(v) ** 2 for v in c)) for c in b] for b in flat]),
    ):
        params = {"type": kind, "globalPooling": True, "kernelSize": (2, 2), "valid": {}}
        result += classic("pooling", params, [x], np.reshape(y, (2, 3, 1, 1)))
    return result


IMAGE = np.arange(1.0, 13.0).reshape(1, 1, 3, 4)
PICTURE = values(1, 2, 5, 6)

CASES: list[Case] = [
    *conv((2, 3, 5, 6), (3, 2)),
    *conv((1, 3, 5, 6), (1, 1), bias=True),
    *conv((1, 4, 6, 7), (3, 3), groups=2, stride=(2, 1), pads=((1, 0), (2, 1)), bias=True),
    *conv((1, 4, 6, 7), (3, 2), groups=4, out=8, pads=((1, 1), (0, 1))),
    *conv((1, 2, 9, 8), (3, 2), dilation=(2, 3), stride=(1, 2)),
    *conv((1, 2, 7, 6), (3, 4), same="BOTTOM_RIGHT_HEAVY", stride=(2, 2)),
    *conv((1, 2, 7, 6), (3, 4), same="TOP_LEFT_HEAVY", stride=(2, 2)),
    *conv((1, 2, 6, 6), (2, 3), same="TOP_LEFT_HEAVY", dilation=(2, 2)),
    *conv((1, 2, 5, 5), (1, 1), same="BOTTOM_RIGHT_HEAVY", stride=(3, 3)),
    *classic(
        "convolution",
        {"outputChannels": 2, "kernelChannels": 1, "weights": values(2, 1, 3, 3, seed=1)},
        [values(1, 1, 4, 4)],
        naive.convolution(values(1, 1, 4, 4), values(2, 1, 3, 3, seed=1), stride=(1, 1), pads=NONE),
    ),
    *deconv((2, 3, 4, 3), (3, 2), start=(0, 0), size=(6, 4), valid={}),
    *deconv((1, 4, 4, 3), (3, 3), groups=2, stride=(2, 2), start=(0, 0), size=(9, 7), valid={}),
    *deconv(
        (1, 2, 4, 3),
        (3, 4),
        stride=(2, 3),
        start=(1, 0),
        size=(6, 9),
        valid={"paddingAmounts": amounts(((1, 2), (0, 1)))},
    ),
    *deconv((1, 2, 3, 3), (2, 3), dilation=(2, 1), start=(0, 0), size=(5, 5), valid={}),
    *deconv((1, 2, 3, 4), (3, 3), stride=(2, 2), start=(0, 0), size=(6, 8), same={}),
    *deconv((1, 2, 3, 4), (4, 5), stride=(2, 2), start=(1, 1), size=(6, 8), same={}),
    *deconv(
        (1, 2, 3, 4),
        (3, 3),
        stride=(2, 2),
        start=(1, 1),
        size=(6, 8),
        same={"asymmetryMode": "TOP_LEFT_HEAVY"},
    ),
    *deconv((1, 2, 3, 3), (1, 2), stride=(3, 3), start=(0, 0), size=(9, 9), same={}),
    *deconv((1, 2, 3, 3), (4, 4), stride=(2, 2), start=(1, 1), size=(6, 5), outputShape=(6, 5)),
    *deconv((1, 2, 3, 3), (2, 2), stride=(2, 2), start=(0, 0), size=(7, 6), outputShape=(7, 6)),
    *quantized_conv(),
    *dynamic_conv(),
    *pool("MAX", (2, 3, 6, 5), (2, 3), (2, 1)),
    *pool("MAX", (1, 2, 5, 5), (3, 3), (2, 2), ((1, 2), (0, 1))),
    *pool("AVERAGE", (1, 2, 5, 5), (3, 3), (2, 2), ((1, 2), (0, 1))),
    *pool("EXCLUDE", (1, 2, 5, 5), (3, 3), (2, 2), ((1, 2), (0, 1))),
    *pool("L2", (1, 2, 5, 5), (3, 3), (2, 2), ((1, 2), (0, 1))),
    *(
        row
        for kind in KINDS
        for row in pool(kind, (1, 2, 5, 6), (2, 3), (2, 2), same="BOTTOM_RIGHT_HEAVY")
    ),
    *(
        row
        for kind in KINDS
        for row in pool(kind, (1, 2, 5, 6), (3, 4), (1, 2), same="TOP_LEFT_HEAVY")
    ),
    *complete("MAX", (1, 2, 8, 7), (3, 3), (2, 2), (0, 0), (4, 3)),
    *complete("AVERAGE", (1, 2, 8, 8), (3, 3), (2, 2), (0, 0), (4, 4)),
    *complete("AVERAGE", (1, 2, 6, 5), (3, 3), (2, 3), (1, 1), (4, 2)),
    *complete("EXCLUDE", (1, 2, 6, 5), (3, 3), (2, 3), (1, 1), (4, 2)),
    *complete("MAX", (1, 1, 4, 5), (2, 2), (2, 2), (1, 1), (3, 3)),
    *complete("L2", (1, 1, 4, 5), (2, 2), (3, 2), (1, 0), (2, 3)),
    *global_pools(),
    *classic(
        "pooling",
        {"valid": {}},
        [IMAGE],
        [[[[11, 12]]]],
    ),
    *classic(
        "padding",
        {"constant": {"value": 7}, "paddingAmounts": amounts(((1, 0), (0, 2)))},
        [IMAGE],
        [[[[7, 7, 7, 7, 7, 7], [1, 2, 3, 4, 7, 7], [5, 6, 7, 8, 7, 7], [9, 10, 11, 12, 7, 7]]]],
    ),
    *classic(
        "padding",
        {"reflection": {}, "paddingAmounts": amounts(((2, 0), (2, 0)))},
        [IMAGE],
        [
            [
                [
                    [11, 10, 9, 10, 11, 12],
                    [7, 6, 5, 6, 7, 8],
                    [3, 2, 1, 2, 3, 4],
                    [7, 6, 5, 6, 7, 8],
                    [11, 10, 9, 10, 11, 12],
                ]
            ]
        ],
    ),
    *classic(
        "padding",
        {"replication": {}, "paddingAmounts": amounts(((2, 0), (2, 0)))},
        [IMAGE],
        [
            [
                [
                    [1, 1, 1, 2, 3, 4],
                    [1, 1, 1, 2, 3, 4],
                    [1, 1, 1, 2, 3, 4],
                    [5, 5, 5, 6, 7, 8],
                    [9, 9, 9, 10, 11, 12],
                ]
            ]
        ],
    ),
    *classic("padding", {"constant": {}}, [IMAGE], IMAGE),
    exact(
        "padding",
        {"constant": {}, "paddingAmounts": amounts(((0, 1), (1, 0)))},
        [[[1, 2]]],
        [[0, 1, 2], [0, 0, 0]],
    ),
    *classic(
        "crop",
        {"cropAmounts": amounts(((1, 0), (2, 1)))},
        [IMAGE],
        [[[[7], [11]]]],
    ),
    *classic("crop", {}, [IMAGE], IMAGE),
    *classic(
        "crop",
        {"offset": (1, 2)},
        [IMAGE, np.zeros((1, 1, 2, 2))],
        [[[[7, 8], [11, 12]]]],
    ),
    *classic("crop", {}, [IMAGE, np.zeros((1, 1, 1, 3))], [[[[1, 2, 3]]]]),
]
