"""Convolution and pooling over depth, height and width."""

from __future__ import annotations

from typing import Any

from mlferry.layers.convolution.onnx import Edges, pads_of, pool_node, spread_out, with_edges
from mlferry.layers.exports import op, refuse
from mlferry.layers.onnx_weights import weight
from mlferry.layers.params import Params
from mlferry.layers.volumes.definition import convolved, custom_edges, edges_of, spans_of, triple
from mlferry.numerics.shapes import Shape
from mlferry.onnx_graph.emitter import Emitter


@op(
    "convolution3d",
    limits="SAME padding with dilation, and `outputShape`, for an input whose size is not known",
)
def convolution3d(e: Emitter, p: Params, x: str) -> str:
    kernel, stride, dilation = (triple(p, f) for f in ("kernel", "stride", "dilation"))
    shape = (p.outputChannels, p.inputChannels // p.nGroups, *kernel)
    if p.isDeconvolution:
        shape = (p.inputChannels, p.outputChannels // p.nGroups, *kernel)
    stored = [weight(e, p, "weights", shape, channel_axis=1 if p.isDeconvolution else 0)]
    if p.hasBias:
        stored.append(weight(e, p, "bias", (p.outputChannels,)))
    attributes = {
        "kernel_shape": list(kernel), "strides": list(stride), "dilations": list(dilation),
        "group": p.nGroups,
    }  # fmt: skip
    spans, extents = spans_of(p), e.shape(x)[2:]
    if not p.isDeconvolution:
        padding = _volume_padding(p, extents, spans)
        return e.node("Conv", x, *stored, **attributes, **padding)
    full = [
        None if n is None else (n - 1) * s + span
        for n, s, span in zip(extents, stride, spans, strict=True)
    ]
    wanted = convolved(p, extents)
    edges: Edges = custom_edges(p)
    if p.paddingType == "SAME" or (p.outputShape and not any(map(any, edges))):
        if None in full:
            raise refuse("SAME padding or outputShape for a volume whose size is not known")
        pairs = zip(full, wanted, strict=True)
        edges = [(max(0, (f or 0) - (n or 0)) // 2, 0) for f, n in pairs]
    return spread_out(e, [x, *stored], attributes, tuple(full), wanted, edges)


def _volume_padding(p: Params, extents: Shape, spans: tuple[int, int, int]) -> dict[str, Any]:
    if p.paddingType == "SAME" and None in extents:
        if max(triple(p, "dilation") if p.kind == "convolution3d" else (1,)) > 1:
            raise refuse("SAME padding and dilation for a volume whose size is not known")
        return {"auto_pad": "SAME_UPPER"}
    return {"pads": pads_of(edges_of(p, extents, spans))}


@op("pooling3d", limits="averages that leave out padding as wide as the kernel")
def pooling3d(e: Emitter, p: Params, x: str) -> str:
    kernel, stride = triple(p, "kernel"), triple(p, "stride")
    attributes = {"kernel_shape": list(kernel), "strides": list(stride)}
    extents = e.shape(x)[2:]
    if p.paddingType == "SAME" and None in extents:
        padding = _volume_padding(p, extents, kernel)
        return pool_node(e, p.type, x, attributes, padding, p.countExcludePadding)
    edges = edges_of(p, extents, kernel)
    exclude = p.countExcludePadding and p.type == "AVERAGE"
    return with_edges(e, p.type, x, attributes, edges, exclude)


@op("globalPooling3d")
def global_pooling3d(e: Emitter, p: Params, x: str) -> str:
    return e.node("GlobalMaxPool" if p.type == "MAX" else "GlobalAveragePool", x)
