"""Convolution and pooling over depth, height and width."""

from __future__ import annotations

from typing import Any

from mlferry.layers.convolution.onnx import pads_of, pool_node, spread_out, with_edges
from mlferry.layers.exports import op
from mlferry.layers.onnx_weights import weight
from mlferry.layers.params import Params
from mlferry.layers.volumes.definition import (
    edges_of,
    kernel_shape,
    spans_of,
    transposed_sizes,
    triple,
)
from mlferry.numerics.shapes import Shape
from mlferry.onnx_graph.emitter import Emitter
from mlferry.refusals import refuse


@op(
    "convolution3d",
    limits="SAME padding with dilation, and `outputShape`, for an input whose size is not known",
)
def convolution3d(emitter: Emitter, params: Params, x: str) -> str:
    kernel, stride, dilation = (triple(params, f) for f in ("kernel", "stride", "dilation"))
    axis = 1 if params.isDeconvolution else 0
    weights = [weight(emitter, params, "weights", kernel_shape(params), channel_axis=axis)]
    if params.hasBias:
        weights.append(weight(emitter, params, "bias", (params.outputChannels,)))
    attributes = {
        "kernel_shape": list(kernel),
        "strides": list(stride),
        "dilations": list(dilation),
        "group": params.nGroups,
    }
    spans, extents = spans_of(params), emitter.shape(x)[2:]
    if not params.isDeconvolution:
        padding = _volume_padding(params, extents, spans)
        return emitter.node("Conv", x, *weights, **attributes, **padding)
    return spread_out(emitter, [x, *weights], attributes, *transposed_sizes(params, extents))


def _volume_padding(params: Params, extents: Shape, spans: tuple[int, ...]) -> dict[str, Any]:
    if params.paddingType == "SAME" and None in extents:
        if max(triple(params, "dilation") if params.kind == "convolution3d" else (1,)) > 1:
            raise refuse("SAME padding and dilation for a volume whose size is not known")
        return {"auto_pad": "SAME_UPPER"}
    return {"pads": pads_of(edges_of(params, extents, spans))}


@op("pooling3d", limits="averages that leave out padding as wide as the kernel")
def pooling3d(emitter: Emitter, params: Params, x: str) -> str:
    kernel, stride = triple(params, "kernel"), triple(params, "stride")
    attributes = {"kernel_shape": list(kernel), "strides": list(stride)}
    extents = emitter.shape(x)[2:]
    if params.paddingType == "SAME" and None in extents:
        padding = _volume_padding(params, extents, kernel)
        return pool_node(emitter, params.type, x, attributes, padding, params.countExcludePadding)
    edges = edges_of(params, extents, kernel)
    exclude = params.countExcludePadding and params.type == "AVERAGE"
    return with_edges(emitter, params.type, x, attributes, edges, exclude)


@op("globalPooling3d")
def global_pooling3d(emitter: Emitter, params: Params, x: str) -> str:
    return emitter.node("GlobalMaxPool" if params.type == "MAX" else "GlobalAveragePool", x)
