"""Convolution, transposed convolution and pooling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlferry.numerics import convolution as numeric
from mlferry.numerics.shapes import Shape
from mlferry.numerics.windows import Edges
from mlferry.onnx_graph.emitter import Emitter
from mlferry.programs.convolution.definition import Sliding, slid, sliding
from mlferry.programs.exports import Call, export
from mlferry.programs.reshaping.definition import vector
from mlferry.programs.types import Entries
from mlferry.refusals import refuse

_AUTO_PAD = {"same": "SAME_UPPER", "same_lower": "SAME_LOWER"}


def _pads(edges: list[Edges]) -> list[int]:
    return [edge[0] for edge in edges] + [edge[1] for edge in edges]


def _kernel(emitter: Emitter, weight: str) -> tuple[int, ...]:
    extents = emitter.shape(weight)[2:]
    known = tuple(n for n in extents if n is not None)
    if len(known) < len(extents):
        raise refuse("the size of its kernel is not known")
    return known


def _padding(window: Sliding, size: Shape) -> dict[str, Any]:
    """The attribute for padding: amounts if they are known."""
    if window.pad_type in _AUTO_PAD and None in size:
        if max(window.dilations) > 1:
            raise refuse(f"pad_type {window.pad_type!r} with dilations for a size that varies")
        return {"auto_pad": _AUTO_PAD[window.pad_type]}
    return {"pads": _pads(window.edges(size))}


@export("conv")
def conv(
    emitter: Emitter,
    call: Call,
    x: str,
    weight: str,
    bias: object,
    strides: Entries | None,
    pad_type: str,
    pad: Entries | None,
    dilations: Entries | None,
    groups: int,
) -> str:
    kernel, shift = _kernel(emitter, weight), call.value("bias")
    window = sliding(kernel, strides, dilations, pad_type, pad)
    return emitter.node(
        "Conv",
        x,
        weight,
        *([shift] if shift else []),
        kernel_shape=list(kernel),
        strides=list(window.strides),
        dilations=list(window.dilations),
        group=groups,
        **_padding(window, emitter.shape(x)[2:]),
    )


@export("conv_transpose", stored=("weight",))
def conv_transpose(
    emitter: Emitter,
    call: Call,
    x: str,
    weight: str,
    bias: object,
    pad: Entries | None,
    output_shape: Entries | None,
    pad_type: str,
    strides: Entries | None,
    dilations: Entries | None,
    groups: int,
) -> str:
    """Surplus entries are cut off: by the padding, or on both sides, with an odd entry at the end.

    An extent that varies is cut by as much as any other, unless an output shape is given.
    """
    shift, kernel = call.value("bias"), _kernel(emitter, weight)
    window = sliding(kernel, strides, dilations, pad_type, pad)
    begins, ends, more = [], [], []
    for place, extent in enumerate(emitter.shape(x)[2:]):
        stride, span = window.strides[place], window.spans[place]
        if output_shape is not None:
            if extent is None:
                raise refuse("output_shape for an input whose size varies")
            excess = (extent - 1) * stride + span - vector(output_shape)[2 + place]
        elif pad_type in _AUTO_PAD:
            excess = span - stride
        else:
            excess = sum(window.pads[2 * place : 2 * place + 2])
        whole = max(0, excess)
        front = {"same": whole // 2, "same_lower": -(-whole // 2)}.get(
            pad_type, window.pads[2 * place]
        )
        begins.append(front)
        ends.append(max(0, excess - front))
        more.append(max(0, front - excess))
        if more[-1] >= max(stride, window.dilations[place]):
            raise refuse(f"{more[-1]} entries behind all that it makes")
    return emitter.node(
        "ConvTranspose",
        x,
        weight,
        *([shift] if shift else []),
        kernel_shape=list(kernel),
        strides=list(window.strides),
        dilations=list(window.dilations),
        group=groups,
        pads=[*begins, *ends],
        output_padding=more if any(more) else None,
    )


@export("max_pool", moves=True)
@export("avg_pool", "l2_pool")
def pool(
    emitter: Emitter,
    call: Call,
    x: str,
    kernel_sizes: Entries,
    strides: Entries | None,
    pad_type: str,
    pad: Entries | None,
    ceil_mode: bool,
    exclude_padding_from_average: bool = False,
) -> str:
    """Padding is never the maximum; the divisor of a sum depends on its place."""
    window = sliding(vector(kernel_sizes), strides, None, pad_type, pad)
    size = emitter.shape(x)[2:]
    count = math.prod(window.spans)
    source = emitter.node("Mul", x, x) if call.op == "l2_pool" else x
    if None not in size:
        known = tuple(n for n in size if n is not None)
        y = _of_known_size(
            emitter, call, source, window, known, ceil_mode, exclude_padding_from_average
        )
    else:
        y = _of_any_size(
            emitter, call, source, window, size, ceil_mode, exclude_padding_from_average
        )
    if call.op != "l2_pool":
        return y
    return emitter.node("Sqrt", emitter.node("Mul", y, emitter.number(count)))


def _settings(window: Sliding) -> dict[str, Any]:
    return {"kernel_shape": list(window.spans), "strides": list(window.strides)}


def _of_any_size(
    emitter: Emitter, call: Call, x: str, window: Sliding, size: Shape, ceil: bool, excluded: bool
) -> str:
    settings = {**_settings(window), **_padding(window, size)}
    pads = settings.get("pads", [])
    if ceil and (any(pads) or call.op == "l2_pool"):
        raise refuse("ceil_mode with padding for a size that varies")
    if any(pad >= span for pad, span in zip(pads, window.spans * 2, strict=False)):
        raise refuse("padding as wide as the kernel for a size that varies")
    if ceil:  # entries beyond the end are not counted
        settings["ceil_mode"], excluded = 1, True
    if call.op == "max_pool":
        return emitter.node("MaxPool", x, **settings)
    return emitter.node("AveragePool", x, **settings, count_include_pad=int(not excluded))


def _of_known_size(
    emitter: Emitter,
    call: Call,
    x: str,
    window: Sliding,
    size: tuple[int, ...],
    ceil: bool,
    excluded: bool,
) -> str:
    """The input is padded as far as windows reach; sums are divided by counts of their own."""
    edges = window.edges(size)
    output_size = [extent or 0 for extent in slid(window, size, ceil=ceil)]
    axes = zip(output_size, window.strides, window.spans, size, edges, strict=True)
    reach = [
        (begin, max(end, (n - 1) * stride + span - extent - begin))
        for n, stride, span, extent, (begin, end) in axes
    ]
    largest = call.op == "max_pool"
    settings = _settings(window)
    small = all(max(edge) < span for edge, span in zip(reach, window.spans, strict=True))
    if largest and small:
        return emitter.node("MaxPool", x, **settings, pads=_pads(reach))
    amounts = _pads([(0, 0), (0, 0), *reach])
    wide = x
    if any(amounts):
        filler = emitter.number(-math.inf if largest else 0.0)
        wide = emitter.node("Pad", x, emitter.integers(amounts), filler)
    if largest:
        return emitter.node("MaxPool", wide, **settings)
    y = emitter.node("AveragePool", wide, **settings)
    if call.op == "l2_pool":
        return y
    counted = np.ones(size, np.float32)
    inside = reach
    if not excluded:
        counted = numeric.padded(counted, edges, 1.0)
        pairs = zip(reach, edges, strict=True)
        inside = [(0, max(0, after - end)) for (_, after), (_, end) in pairs]
    counts = numeric.pool(counted, window.spans, window.strides, inside, output_size, np.add, 0.0)
    share = math.prod(window.spans) / counts
    if (share == 1).all():
        return y
    return emitter.node("Mul", y, emitter.constant(share.astype(np.float32)))
