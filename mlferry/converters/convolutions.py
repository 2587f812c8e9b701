"""Convolution and transposed convolution of channels-first blobs, in one to three dimensions.

One-dimensional data gets a height of 1 on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.lowering import Lowering
from mlferry.converters.values import SOURCE, Blob, Layout
from mlferry.numerics.windows import dilated
from mlferry.spec.weights import Linear

Pairs = Sequence[tuple[int, int]]
_AXES = ("Depth", "Height", "Width")
_SIDES = (("Front", "Back"), ("Top", "Bottom"), ("Left", "Right"))


def edges(pairs: Pairs) -> dict[str, Any]:
    """`BorderAmounts` for height and width."""
    amounts = [{"startEdgeSize": a, "endEdgeSize": b} for a, b in pairs]
    return {"paddingAmounts": {"borderAmounts": amounts}}


def padding(pairs: Pairs, same: str = "") -> dict[str, Any]:
    """Padding of height and width: amounts, or an asymmetry mode of SAME."""
    return {"same": {"asymmetryMode": same}} if same else {"valid": edges(pairs)}


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


def _with_bias(bias: NDArray[Any] | None) -> dict[str, Any]:
    return {} if bias is None else {"hasBias": True, "bias": bias}


def convolved(
    context: Lowering,
    x: Blob,
    weights: NDArray[np.float32],
    windows: Windows,
    *,
    stored: Linear | NDArray[Any] | None = None,
    bias: NDArray[Any] | None = None,
    layout: Layout = SOURCE,
) -> Blob:
    """A convolution.

    Args:
        context: what adds layers.
        x: [N, C, *spatial].
        weights: [outputs, C / groups, *kernel].
        windows: strides, dilations, padding and groups.
        stored: what to store for the weights, where they are quantized.
        bias: [outputs].
        layout: of the blobs.
    """
    remaining = weights if stored is None else stored
    kernel = weights.shape[2:]
    if len(kernel) == 3:
        return context.layer(
            "convolution3d",
            x,
            layout=layout,
            outputChannels=weights.shape[0],
            inputChannels=weights.shape[1] * windows.groups,
            nGroups=windows.groups,
            weights=remaining,
            paddingType="CUSTOM",
            **each("kernel", kernel),
            **each("stride", windows.strides),
            **each("dilation", windows.dilations),
            **sides(windows.pairs),
            **_with_bias(bias),
        )
    maps, flat = _with_height(context, x, windows, len(kernel))
    output = context.layer(
        "convolution",
        maps,
        layout=layout,
        outputChannels=weights.shape[0],
        kernelChannels=weights.shape[1],
        nGroups=windows.groups,
        kernelSize=(1, 1, *kernel)[-2:],
        stride=flat.strides,
        dilationFactor=flat.dilations,
        weights=remaining,
        **padding(flat.pairs, windows.same),
        **_with_bias(bias),
    )
    return context.squeeze(output, 2) if len(kernel) == 1 else output


def transposed(
    context: Lowering,
    x: Blob,
    weights: NDArray[np.float32],
    windows: Windows,
    *,
    stored: Linear | NDArray[Any] | None = None,
    bias: NDArray[Any] | None = None,
    layout: Layout = SOURCE,
) -> Blob:
    """A transposed convolution; `pairs` cut the full result, or add to it bias alone.

    Args:
        context: what adds layers.
        x: [N, C, *spatial].
        weights: [C, outputs / groups, *kernel]; dilations are written into them.
        windows: strides, dilations, cuts and groups.
        stored: what to store for the weights, where they are quantized and not dilated.
        bias: [outputs].
        layout: of the blobs.
    """
    is_dilated = max(windows.dilations) > 1
    weights = dilated(weights, windows.dilations)
    remaining = weights if stored is None or is_dilated else stored
    kernel, channels = weights.shape[2:], weights.shape[1] * windows.groups
    beyond = [(max(0, -a), max(0, -b)) for a, b in windows.pairs]
    crops = [(max(0, a), max(0, b)) for a, b in windows.pairs]
    is_padded = any(map(any, beyond))
    inner = Windows(windows.strides, [1] * len(kernel), crops, windows.groups)
    maps, flat = _with_height(context, x, inner, len(kernel))
    biased = {} if is_padded else _with_bias(bias)
    if len(kernel) == 3:
        output = context.layer(
            "convolution3d",
            maps,
            layout=layout,
            isDeconvolution=True,
            outputChannels=channels,
            inputChannels=weights.shape[0],
            nGroups=windows.groups,
            weights=remaining,
            paddingType="CUSTOM",
            **each("kernel", kernel),
            **each("stride", windows.strides),
            **each("dilation", flat.dilations),
            **sides(crops),
            **biased,
        )
    else:
        output = context.layer(
            "convolution",
            maps,
            layout=layout,
            isDeconvolution=True,
            outputChannels=channels,
            kernelChannels=weights.shape[0],
            nGroups=windows.groups,
            kernelSize=(1, 1, *kernel)[-2:],
            stride=flat.strides,
            weights=remaining,
            valid=edges(flat.pairs),
            **biased,
        )
    output = context.squeeze(output, 2) if len(kernel) == 1 else output
    if not is_padded:
        return output
    amounts = [0, 0, 0, 0, *(n for pair in beyond for n in pair)]
    output = context.layer("constantPad", output, layout=layout, padAmounts=amounts, value=0.0)
    if bias is None:
        return output
    shaped = np.reshape(bias, (1, channels, *(1,) * len(kernel)))
    return context.add(output, context.constant(shaped, layout=layout))


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
