"""Matrix products and embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.layers.linear.definition import matrix_shape
from mlferry.layers.params import Params
from mlferry.layers.program_weights import weight
from mlferry.layers.programs import as_program
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Value


@as_program("innerProduct")
def inner_product(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """Weights are [outC, inC]; from rank 4 on, C, H and W are flattened first."""
    if x.rank < 4:
        return _multiplied(builder, params, x, params.inputChannels, params.outputChannels)
    lead = builder.extents(x)[:-3]
    rows = builder.reshape(x, [*lead, params.inputChannels])
    y = _multiplied(builder, params, rows, params.inputChannels, params.outputChannels)
    return builder.expand(y, [-2, -1])


def _multiplied(
    builder: ProgramBuilder, params: Params, x: Value, inputs: int, outputs: int
) -> Value:
    """The last axis of `x` multiplied by stored weights [outputs, inputs], and the bias added."""
    x = builder.as_float(x)
    if params.int8DynamicQuantize:
        x = rounded_to_int8(builder, x)
    bias = params.decoded("bias", (outputs,)) if params.hasBias else None
    weights = weight(builder, params, "weights", (outputs, inputs))
    return builder.op("linear", x=x, weight=weights, bias=bias)


def rounded_to_int8(builder: ProgramBuilder, x: Value) -> Value:
    """An input as it is after quantization to int8 before a product.

    One scale for the whole input, so that its largest magnitude is 127.
    """
    axes = list(range(x.rank))
    largest = builder.op("reduce_max", x=builder.op("abs", x=x), axes=axes, keep_dims=True)
    scale = builder.binary("real_div", largest, 127)
    zero = builder.op("equal", x=scale, y=np.float32(0))
    divisor = builder.where(zero, builder.number(1), scale)
    steps = builder.op("round", x=builder.op("real_div", x=x, y=divisor))
    return builder.op("mul", x=steps, y=scale)


@as_program("embedding", "embeddingND")
def embedding(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """Weights are [size, rows of the table]; one index a position."""
    shape, whole = matrix_shape(params), builder.as_integer(x)
    single = params.kind == "embeddingND"
    lead = builder.extents(x)[:-3]
    indices = builder.squeeze(whole, [-1]) if single else builder.reshape(whole, lead)
    table = weight(builder, params, "weights", shape, axes=(1, 0))
    y = builder.op("gather", x=table, indices=indices, axis=0)
    if params.hasBias:
        y = builder.op("add", x=y, y=params.decoded("bias", shape[:1]))
    return y if single else builder.expand(y, [-2, -1])


@as_program("batchedMatmul")
def batched_matmul(builder: ProgramBuilder, params: Params, left: Value, *right: Value) -> Value:
    """A single input is multiplied by stored weights in column-major order.

    A vector is a row on the left, a column on the right; the result is still a matrix.
    """
    if not right:
        inputs, outputs = params.weightMatrixFirstDimension, params.weightMatrixSecondDimension
        return _multiplied(builder, params, left, inputs, outputs)
    a, b = builder.as_float(left), builder.as_float(right[0])
    turns: dict[str, Any] = {
        "transpose_x": params.transposeA and a.rank > 1,
        "transpose_y": params.transposeB and b.rank > 1,
    }
    if a.rank == 1:
        a = builder.expand(a, [0])
    if b.rank == 1:
        b = builder.expand(b, [1])
    return builder.op("matmul", x=a, y=b, **turns)


@as_program("dot")
def dot(builder: ProgramBuilder, params: Params, left: Value, right: Value) -> Value:
    """The dot product of vectors along the channels; the cosine with a vector of length 0 is 0."""
    a, b = builder.as_float(left), builder.as_float(right)
    along: dict[str, Any] = {"axes": [-3], "keep_dims": True}
    if params.cosineSimilarity:
        a, b = (_of_length_one(builder, x, along) for x in (a, b))
    return builder.op("reduce_sum", x=builder.op("mul", x=a, y=b), **along)


def _of_length_one(builder: ProgramBuilder, x: Value, along: dict[str, Any]) -> Value:
    """A vector divided by its length; products of lengths would soon exceed float16's range."""
    length = builder.op("reduce_l2_norm", x=x, **along)
    positive = builder.op("greater", x=length, y=np.float32(0))
    return builder.op("real_div", x=x, y=builder.where(positive, length, builder.number(1)))
