"""Convolution and transposed convolution of channels-first blobs, in one to three dimensions.

One-dimensional data gets a height of 1 on the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import extent, known
from mlferry.converters.values import SOURCE, Blob, Layout
from mlferry.numerics.shapes import Array
from mlferry.numerics.windows import dilated, same_edges, spans_of
from mlferry.spec.weights import Linear

Pairs = Sequence[tuple[int, int]]
_AXES = ("Depth", "Height", "Width")
_SIDES = (("Front", "Back"), ("Top", "Bottom"), ("Left", "Right"))


def edges(pairs: Pairs, field: str = "paddingAmounts") -> dict[str, Any]:
    """`BorderAmounts` for height and width."""
    amounts = [{"startEdgeSize": a, "endEdgeSize": b} for a, b in pairs]
    return {field: {"borderAmounts": amounts}}


def padding(pairs: Pairs, same: str = "") -> dict[str, Any]:
    """Padding of height and width: amounts, or an asymmetry mode of SAME."""
    return {"same": {"asymmetryMode": same}} if same else {"valid": edges(pairs)}


def same_pairs(
    x: Blob, spans: Sequence[int], strides: Sequence[int], mode: str = "BOTTOM_RIGHT_HEAVY"
) -> list[tuple[int, int]]:
    """SAME padding of the last axes; with a stride of 1 it does not depend on the extent."""
    pairs = []
    for axis, (span, stride) in enumerate(zip(spans, strides, strict=True), -len(spans)):
        size = 1 if stride == 1 else extent(x, axis)
        pairs.append(same_edges(size, span, stride, mode))
    return pairs


def sides(pairs: Pairs) -> dict[str, Any]:
    """The custom padding of depth, height and width."""
    return {
        f"customPadding{side}": amount
        for names, pair in zip(_SIDES, pairs, strict=True)
        for side, amount in zip(names, pair, strict=True)
    }


def each(name: str, values: Sequence[int]) -> dict[str, Any]:
    """A parameter of depth, height and width."""
    return {f"{name}{axis}": value for axis, value in zip(_AXES, values, strict=True)}


@dataclass(frozen=True)
class Windows:
    """How a kernel moves over its input.

    Attributes:
        strides: one for each axis.
        dilations: one for each axis.
        pairs: padding before and after each axis; for a transposed convolution, how much is cut off
            its full result, or added if negative.
        groups: how many groups of channels are convolved separately.
        same: for one or two axes, an asymmetry mode in place of `pairs`, at any size.
    """

    strides: Sequence[int]
    dilations: Sequence[int]
    pairs: Pairs
    groups: int = 1
    same: str = ""


def convolved(
    context: Lowering,
    x: Blob,
    weights: NDArray[np.float32],
    windows: Windows,
    *,
    stored: Linear | Array | None = None,
    bias: Array | None = None,
    layout: Layout = SOURCE,
) -> Blob:
    """A convolution.

    Args:
        x: [N, C, *spatial].
        weights: [outputs, C / groups, *kernel].
        stored: what to store for the weights, if they are quantized.
        bias: [outputs].
    """
    return _layer(context, x, weights, windows, layout, stored=stored, bias=bias)


def convolved_by(
    context: Lowering, x: Blob, weights: Blob, windows: Windows, *, layout: Layout = SOURCE
) -> Blob:
    """A convolution of images with weights [outputs, C / groups, *kernel] that are computed."""
    outputs, inputs, *kernel = known(weights)
    return context.layer(
        "convolution",
        x,
        weights,
        layout=layout,
        outputChannels=outputs,
        kernelChannels=inputs,
        nGroups=windows.groups,
        kernelSize=kernel,
        stride=windows.strides,
        dilationFactor=windows.dilations,
        **padding(windows.pairs, windows.same),
    )


def channels_first(kernel: Array) -> Array:
    """[*kernel, a, b] as [b, a, *kernel]."""
    moved: Array = np.moveaxis(kernel, (-1, -2), (0, 1))
    return moved


def dilated_kernel(context: Lowering, kernel: Array, dilations: Sequence[int]) -> Array:
    """A kernel [a, b, *spatial] with zeros between its entries, counted before it is made.

    Raises:
        LimitError: the constants of this conversion take too much memory.
    """
    if max(dilations) == 1:
        return kernel
    spans = spans_of(kernel.shape[2:], dilations)
    context.compute(4 * math.prod((*kernel.shape[:2], *spans)))
    return dilated(kernel, dilations)


def transposed(
    context: Lowering,
    x: Blob,
    weights: NDArray[np.float32],
    windows: Windows,
    *,
    stored: Linear | Array | None = None,
    bias: Array | None = None,
    layout: Layout = SOURCE,
) -> Blob:
    """A transposed convolution; `pairs` cut the full result, or add only the bias to it.

    The arguments are those of `convolved`, but weights are [C, outputs / groups, *kernel]. Core ML
    does not dilate them, so dilated ones get zeros in between, and are not stored quantized.
    """
    stored = None if max(windows.dilations) > 1 else stored
    weights = dilated_kernel(context, weights, windows.dilations)
    dimensions = weights.ndim - 2
    beyond = [(max(0, -a), max(0, -b)) for a, b in windows.pairs]
    crops = [(max(0, a), max(0, b)) for a, b in windows.pairs]
    is_padded = any(map(any, beyond))
    output = _layer(
        context,
        x,
        weights,
        Windows(windows.strides, [1] * dimensions, crops, windows.groups),
        layout,
        stored=stored,
        bias=None if is_padded else bias,
        is_transposed=True,
    )
    if not is_padded:
        return output
    amounts = [0, 0, 0, 0, *(n for pair in beyond for n in pair)]
    output = context.layer("constantPad", output, layout=layout, padAmounts=amounts, value=0.0)
    if bias is None:
        return output
    shaped = np.reshape(bias, (1, -1, *(1,) * dimensions))
    return context.add(output, context.constant(shaped, layout=layout))


def _layer(
    context: Lowering,
    x: Blob,
    weights: NDArray[np.float32],
    windows: Windows,
    layout: Layout,
    *,
    stored: Linear | Array | None,
    bias: Array | None,
    is_transposed: bool = False,
) -> Blob:
    """A layer of two or three dimensions; one-dimensional data has a height of 1 inside."""
    kernel, rows, columns = weights.shape[2:], weights.shape[0], weights.shape[1]
    outputs, inputs = rows, columns * windows.groups
    params: dict[str, Any] = {} if bias is None else {"hasBias": True, "bias": bias}
    if is_transposed:
        outputs, inputs = inputs, outputs
        params["isDeconvolution"] = True
    params["outputChannels"], params["nGroups"] = outputs, windows.groups
    params["weights"] = weights if stored is None else stored
    if len(kernel) == 3:
        params |= {**each("kernel", kernel), **sides(windows.pairs), "paddingType": "CUSTOM"}
        params |= {**each("stride", windows.strides), **each("dilation", windows.dilations)}
        return context.layer("convolution3d", x, layout=layout, inputChannels=inputs, **params)
    maps, flat = _with_height(context, x, windows, len(kernel))
    if not is_transposed:
        params["dilationFactor"] = flat.dilations
    output = context.layer(
        "convolution",
        maps,
        layout=layout,
        kernelChannels=inputs if is_transposed else columns,
        kernelSize=(1, 1, *kernel)[-2:],
        stride=flat.strides,
        **padding(flat.pairs, windows.same),
        **params,
    )
    return context.squeeze(output, 2) if len(kernel) == 1 else output


def pooled(
    context: Lowering,
    x: Blob,
    kind: str,
    kernel: Sequence[int],
    windows: Windows,
    *,
    excludes: bool,
    layout: Layout = SOURCE,
) -> Blob:
    """Pooling of [N, C, *spatial].

    Args:
        kind: Core ML's name of it.
        kernel: the extents of a window.
        excludes: whether an average leaves out the padding.
    """
    if len(kernel) == 3:
        options = {**each("kernel", kernel), **each("stride", windows.strides)}
        options |= {**sides(windows.pairs), "countExcludePadding": excludes}
        return context.layer(
            "pooling3d", x, layout=layout, type=kind, paddingType="CUSTOM", **options
        )
    maps, flat = _with_height(context, x, windows, len(kernel))
    output = context.layer(
        "pooling",
        maps,
        layout=layout,
        type=kind,
        kernelSize=(1, *kernel)[-2:],
        stride=flat.strides,
        avgPoolExcludePadding=excludes,
        **padding(flat.pairs, flat.same),
    )
    return context.squeeze(output, 2) if len(kernel) == 1 else output


def _with_height(
    context: Lowering, x: Blob, windows: Windows, dimensions: int
) -> tuple[Blob, Windows]:
    """One-dimensional data with a height of 1."""
    if dimensions != 1:
        return x, windows
    wide = Windows(
        [1, *windows.strides],
        [1, *windows.dilations],
        [(0, 0), *windows.pairs],
        windows.groups,
        windows.same,
    )
    return context.expand(x, 2), wide
