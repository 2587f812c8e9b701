"""Convolution and transposed convolution in one, two and three dimensions.

One-dimensional data gets a height of 1 on the way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.layout import SOURCE, Blob, Constant, spread
from mlferry.converters.lower import Lowering
from mlferry.converters.onnx.ops.quantization import weights_of
from mlferry.converters.onnx.ops.registry import array_of, emit, extent, known, op, shaped
from mlferry.errors import ConversionError

Pairs = list[tuple[int, int]]


def pads_of(node: Node, x: Blob, spans: list[int], strides: list[int]) -> Pairs:
    """Padding before and after each of the last axes, by `pads` or `auto_pad`."""
    mode = node.attrs.get("auto_pad", "NOTSET")
    given = node.attrs.get("pads")
    if mode in ("NOTSET", "") or (mode == "VALID" and given is None):
        flat = given or [0] * (2 * len(spans))
        return list(zip(flat[: len(spans)], flat[len(spans) :], strict=True))
    if mode == "VALID":
        return [(0, 0)] * len(spans)
    pairs = []
    for axis, (span, stride) in enumerate(zip(spans, strides, strict=True), -len(spans)):
        size = 1 if stride == 1 else extent(x, axis)  # with a stride of 1 it does not matter
        total = max(0, (-(-size // stride) - 1) * stride + span - size)
        small, large = total // 2, total - total // 2
        pairs.append((small, large) if mode == "SAME_UPPER" else (large, small))
    return pairs


def padding(
    node: Node, x: Blob, spans: list[int], strides: list[int]
) -> tuple[Pairs, dict[str, Any]]:
    """Pads of two axes, and how a layer takes them: by amounts, or SAME at any size."""
    mode = node.attrs.get("auto_pad", "NOTSET")
    if len(spans) == 2 and mode in _SAME and None in x.known[2:] and max(strides) > 1:
        return [(0, 0)] * len(spans), {"same": {"asymmetryMode": _SAME[mode]}}
    pairs = pads_of(node, x, spans, strides)
    return pairs, {"valid": edges(pairs)} if len(pairs) == 2 else {}


_SAME = {"SAME_UPPER": "BOTTOM_RIGHT_HEAVY", "SAME_LOWER": "TOP_LEFT_HEAVY"}


def edges(pairs: Pairs) -> dict[str, Any]:
    """A `BorderAmounts` of height and width."""
    amounts = [{"startEdgeSize": a, "endEdgeSize": b} for a, b in pairs]
    return {"paddingAmounts": {"borderAmounts": amounts}}


def options(node: Node, dimensions: int, kernel: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Strides and dilations; the kernel's shape is checked."""
    told = node.attrs.get("kernel_shape")
    if told is not None and tuple(told) != kernel:
        raise ConversionError(f"kernel_shape={tuple(told)}, but the weights are {kernel}")
    strides = list(node.attrs.get("strides") or [1] * dimensions)
    dilations = list(node.attrs.get("dilations") or [1] * dimensions)
    return strides, dilations


@op("Conv", raw=True)
def conv(low: Lowering, node: Node, x: Any, w: Any, b: Any = None) -> Blob:
    x = low.stored(x) if isinstance(x, Constant) else x
    if not isinstance(w, Constant):
        return _dynamic(low, node, x, w, b)
    weights = w.array.astype(np.float32)
    kernel, dimensions = weights.shape[2:], weights.ndim - 2
    strides, dilations = options(node, dimensions, kernel)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pairs, how = padding(node, x, spans, strides)
    groups = node.attrs.get("group", 1)
    bias = _bias(node, b)
    if dimensions == 3:
        return _volume(low, x, weights, bias, (strides, dilations, pairs, groups))
    if dimensions == 1:
        x = low.expand(x, 2)
        weights, strides, dilations = weights[:, :, None], [1, *strides], [1, *dilations]
        how = {"valid": edges([(0, 0), *pairs])}
    made = low.layer(
        "convolution", x, layout=SOURCE, outputChannels=weights.shape[0],
        kernelChannels=weights.shape[1], nGroups=groups, kernelSize=weights.shape[2:],
        stride=strides, dilationFactor=dilations, weights=weights_of(w, weights, 0),
        **how, **bias,
    )  # fmt: skip
    return low.squeeze(made, 2) if dimensions == 1 else made


def _bias(node: Node, b: Any) -> dict[str, Any]:
    if b is None:
        return {}
    return {"hasBias": True, "bias": array_of(node, 2, b).astype(np.float32)}


def _dynamic(low: Lowering, node: Node, x: Blob, w: Blob, b: Any) -> Blob:
    """Weights that are computed: Core ML takes them as an input, in two dimensions."""
    shape = known(w)
    if len(shape) == 3:
        wide = _dynamic_2d(low, node, low.expand(x, 2), low.expand(w, 2), b, line=True)
        return low.squeeze(wide, 2)
    if len(shape) != 4:
        raise ConversionError("computed weights are possible in one and two dimensions")
    return _dynamic_2d(low, node, x, w, b, line=False)


def _dynamic_2d(low: Lowering, node: Node, x: Blob, w: Blob, b: Any, *, line: bool) -> Blob:
    shape = known(w)
    kernel = shape[3:] if line else shape[2:]
    strides, dilations = options(node, len(kernel), kernel)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pairs = pads_of(node, x, spans, strides)
    if line:
        strides, dilations, pairs = [1, *strides], [1, *dilations], [(0, 0), *pairs]
    if any(map(any, pairs)):
        x = low.layer("padding", x, layout=SOURCE, constant={"value": 0.0}, **edges(pairs))
    made = low.layer(
        "convolution", x, w, layout=SOURCE, outputChannels=shape[0], kernelChannels=shape[1],
        nGroups=node.attrs.get("group", 1), kernelSize=shape[2:], stride=strides,
        dilationFactor=dilations, valid={},
    )  # fmt: skip
    if b is None:
        return made
    bias = low.stored(b) if isinstance(b, Constant) else b
    return emit(low, "addBroadcastable", made, shaped(low, bias, (1, shape[0], 1, 1)))


_AXES = ("Depth", "Height", "Width")
_SIDES = (("Front", "Back"), ("Top", "Bottom"), ("Left", "Right"))


def _volume(low: Lowering, x: Blob, weights: Any, bias: dict[str, Any], how: Any) -> Blob:
    strides, dilations, pairs, groups = how
    named: dict[str, Any] = {}
    for index, axis in enumerate(_AXES):
        named[f"kernel{axis}"] = weights.shape[2 + index]
        named[f"stride{axis}"] = strides[index]
        named[f"dilation{axis}"] = dilations[index]
        for side, amount in zip(_SIDES[index], pairs[index], strict=True):
            named[f"customPadding{side}"] = amount
    return low.layer(
        "convolution3d", x, layout=SOURCE, outputChannels=weights.shape[0],
        inputChannels=weights.shape[1] * groups, nGroups=groups, weights=weights,
        paddingType="CUSTOM", **named, **bias,
    )  # fmt: skip


@op("ConvTranspose", raw=True)
def conv_transpose(low: Lowering, node: Node, x: Any, w: Any, b: Any = None) -> Blob:
    """Padding cuts the full result; what `output_padding` adds beyond it is bias alone."""
    x = low.stored(x) if isinstance(x, Constant) else x
    weights = array_of(node, 1, w).astype(np.float32)
    kernel, dimensions = weights.shape[2:], weights.ndim - 2
    if dimensions > 2:
        raise ConversionError("transposed convolution in three dimensions")
    strides, dilations = options(node, dimensions, kernel)
    groups = node.attrs.get("group", 1)
    cuts = _cuts(node, x, kernel, strides, dilations)
    bias = _bias(node, b)
    if dimensions == 1:
        x = low.expand(x, 2)
        weights, strides, dilations = weights[:, :, None], [1, *strides], [1, *dilations]
        cuts = [(0, 0), *cuts]
    beyond = [(max(0, -a), max(0, -b)) for a, b in cuts]
    cut = [(max(0, a), max(0, b)) for a, b in cuts]
    channels = weights.shape[1] * groups
    grown = any(map(any, beyond))
    weights = spread(weights, dilations)
    stored = weights if max(dilations) > 1 else weights_of(w, weights, 1)
    made = low.layer(
        "convolution", x, layout=SOURCE, isDeconvolution=True, outputChannels=channels,
        kernelChannels=weights.shape[0], nGroups=groups, kernelSize=weights.shape[2:],
        stride=strides, weights=stored,
        valid=edges(cut),
        **({} if grown else bias),
    )  # fmt: skip
    if grown:
        made = low.layer("padding", made, layout=SOURCE, constant={"value": 0.0}, **edges(beyond))
        if bias:
            made = low.layer("bias", made, layout=SOURCE, shape=(channels, 1, 1), bias=bias["bias"])
    return low.squeeze(made, 2) if dimensions == 1 else made


def _cuts(
    node: Node, x: Blob, kernel: tuple[int, ...], strides: list[int], dilations: list[int]
) -> Pairs:
    """What is cut off the full result before and after each axis; negative is added."""
    extra = list(node.attrs.get("output_padding") or [0] * len(kernel))
    shape = node.attrs.get("output_shape")
    mode = node.attrs.get("auto_pad", "NOTSET")
    pads = node.attrs.get("pads")
    cuts = []
    for axis, span in enumerate(kernel):
        reach = (span - 1) * dilations[axis] + 1
        if shape is not None or mode in ("SAME_UPPER", "SAME_LOWER"):
            total = reach - strides[axis] + extra[axis]  # without output_shape, at any size
            if shape is not None:
                full = (extent(x, axis - len(kernel)) - 1) * strides[axis] + reach
                total = full + extra[axis] - shape[-len(kernel) :][axis]
            small, large = total // 2, total - total // 2
            pair = (small, large) if mode == "SAME_UPPER" else (large, small)
            pair = (0, total) if total < 0 else pair
            cuts.append((pair[0], pair[1] - extra[axis]))
            continue
        flat = pads or [0] * (2 * len(kernel))
        cuts.append((flat[axis], flat[axis + len(kernel)] - extra[axis]))
    return cuts
