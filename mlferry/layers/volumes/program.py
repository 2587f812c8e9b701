"""Convolution and pooling over depth, height and width."""

from __future__ import annotations

from typing import Any

from mlferry.layers.convolution.program import custom, global_pooling, pool, spread_out
from mlferry.layers.params import Params
from mlferry.layers.program_weights import weight
from mlferry.layers.programs import as_program
from mlferry.layers.volumes.definition import (
    edges_of,
    kernel_shape,
    spans_of,
    transposed_sizes,
    triple,
)
from mlferry.numerics.shapes import Shape
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Value


@as_program(
    "convolution3d", limits="a transposed one by SAME or `outputShape` whose size is not known"
)
def convolution3d(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    x = builder.as_float(x)
    transposed = params.isDeconvolution
    axis = 1 if transposed else 0
    weights = weight(builder, params, "weights", kernel_shape(params), channel_axis=axis)
    bias = params.decoded("bias", (params.outputChannels,)) if params.hasBias else None
    options: dict[str, Any] = {
        "weight": weights,
        "strides": list(triple(params, "stride")),
        "dilations": list(triple(params, "dilation")),
        "groups": params.nGroups,
    }
    spans, extents = spans_of(params), x.shape[2:]
    if not transposed:
        padding = _padding(params, extents, spans)
        return builder.op("conv", x=x, bias=bias, **options, **padding)
    return spread_out(builder, x, options, bias, *transposed_sizes(params, extents))


def _padding(params: Params, extents: Shape, spans: tuple[int, ...]) -> dict[str, Any]:
    if params.paddingType == "SAME":
        return {"pad_type": "same"}
    return custom(edges_of(params, extents, spans))


@as_program("pooling3d", limits="averages that leave out padding as wide as the kernel")
def pooling3d(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    x = builder.as_float(x)
    kernel = triple(params, "kernel")
    window = {"kernel_sizes": list(kernel), "strides": list(triple(params, "stride"))}
    exclude = params.countExcludePadding and params.type == "AVERAGE"
    if params.paddingType == "SAME":
        return pool(
            builder, params.type, x, window, [], exclude=exclude, padding={"pad_type": "same"}
        )
    edges = edges_of(params, x.shape[2:], kernel)
    return pool(builder, params.type, x, window, edges, exclude=exclude)


@as_program("globalPooling3d")
def global_pooling3d(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    return global_pooling(builder, params.type, builder.as_float(x), [-3, -2, -1])
