"""Matrix products and embeddings."""

from __future__ import annotations

from mlferry.layers.exports import op
from mlferry.layers.linear.definition import matrix_shape
from mlferry.layers.onnx_weights import weight
from mlferry.layers.params import Params
from mlferry.onnx_graph.emitter import Emitter
from mlferry.spec import weights

_FLOATS = (weights.FLOAT32, weights.FLOAT16)


@op("innerProduct")
def inner_product(emitter: Emitter, params: Params, x: str) -> str:
    """Weights are [outC, inC]; from rank 4 on, C, H and W are flattened first."""
    if emitter.rank(x) < 4:
        return _multiplied(emitter, params, x, params.inputChannels, params.outputChannels)
    rows = emitter.reshape(x, [-1, params.inputChannels])
    y = _multiplied(emitter, params, rows, params.inputChannels, params.outputChannels)
    return emitter.reshape(y, [*emitter.extents(x)[:-3], params.outputChannels, 1, 1])


def _multiplied(emitter: Emitter, params: Params, x: str, inputs: int, outputs: int) -> str:
    """The last axis of `x` multiplied by stored weights [outputs, inputs], and the bias added.

    onnxruntime fuses a `MatMul` with a preceding `DequantizeLinear` and then rounds the other
    operand to int8; it leaves a `Gemm` with transposed weights alone.
    """
    if params.int8DynamicQuantize:
        x = rounded_to_int8(emitter, x)
    bias = [weight(emitter, params, "bias", (outputs,))] if params.hasBias else []
    floats = str(weights.encoding(params.weights.message)) in _FLOATS
    if emitter.rank(x) != 2 and floats:
        y = emitter.node(
            "MatMul", x, weight(emitter, params, "weights", (outputs, inputs), axes=(1, 0))
        )
        emitter.shapes[y] = (*emitter.shape(x)[:-1], outputs)
        return emitter.node("Add", y, bias[0]) if bias else y
    rows = emitter.reshape(x, [-1, inputs]) if emitter.rank(x) != 2 else x
    y = emitter.node(
        "Gemm", rows, weight(emitter, params, "weights", (outputs, inputs)), *bias, transB=1
    )
    emitter.shapes[y] = (emitter.shape(rows)[0], outputs)
    return emitter.reshape(y, [*emitter.extents(x)[:-1], outputs])


def rounded_to_int8(emitter: Emitter, x: str) -> str:
    """An input as it is after quantization to int8 before a product.

    One scale for the whole input, so that its largest magnitude is 127.
    """
    largest = emitter.node("ReduceMax", emitter.node("Abs", x), keepdims=0)
    scale = emitter.node("Div", largest, emitter.number(127))
    divisor = emitter.node(
        "Where", emitter.node("Equal", scale, emitter.number(0)), emitter.number(1), scale
    )
    y = emitter.node("Mul", emitter.node("Round", emitter.node("Div", x, divisor)), scale)
    emitter.shapes[y] = emitter.shape(x)
    return y


def _never_from_the_end(emitter: Emitter, indices: str, count: int) -> str:
    """Indices of an embedding; negative ones go past its end, to be an error, not wrap."""
    negative = emitter.node("Less", indices, emitter.integers([0]))
    y = emitter.node("Where", negative, emitter.integers([count]), indices)
    emitter.shapes[y] = emitter.shapes.get(indices)
    return y


@op("embedding", "embeddingND")
def embedding(emitter: Emitter, params: Params, x: str) -> str:
    """Weights are [size, rows of the table]; one index a position."""
    size, rows = matrix_shape(params)
    single = params.kind == "embeddingND"
    lead = emitter.extents(x)[: -1 if single else -3]
    indices = emitter.whole(x)
    indices = emitter.squeeze(indices, [-1]) if single else emitter.reshape(indices, lead)
    table = weight(emitter, params, "weights", (size, rows), axes=(1, 0))
    y = emitter.node("Gather", table, _never_from_the_end(emitter, indices, rows))
    emitter.shapes[y] = (*emitter.shape(x)[: len(lead)], size)
    if params.hasBias:
        y = emitter.node("Add", y, weight(emitter, params, "bias", (size,)))
    return y if single else emitter.reshape(y, [*lead, size, 1, 1])


@op("batchedMatmul")
def batched_matmul(emitter: Emitter, params: Params, left: str, *right: str) -> str:
    """A single input is multiplied by stored weights in column-major order.

    A vector is a row on the left, a column on the right; the result is still a matrix.
    """
    if not right:
        return _multiplied(
            emitter,
            params,
            left,
            params.weightMatrixFirstDimension,
            params.weightMatrixSecondDimension,
        )
    a = (
        emitter.expand(left, [0])
        if emitter.rank(left) == 1
        else _turned(emitter, left, params.transposeA)
    )
    b = right[0]
    b = emitter.expand(b, [1]) if emitter.rank(b) == 1 else _turned(emitter, b, params.transposeB)
    return emitter.node("MatMul", a, b)


def _turned(emitter: Emitter, x: str, turn: bool) -> str:
    if not turn:
        return x
    *outer, rows, columns = range(emitter.rank(x))
    return emitter.transpose(x, [*outer, columns, rows])


@op("dot")
def dot(emitter: Emitter, params: Params, left: str, right: str) -> str:
    """The dot product of vectors along the channels; the cosine with a vector of length 0 is 0."""
    axis = emitter.integers([-3])
    product = emitter.node("ReduceSum", emitter.node("Mul", left, right), axis)
    if not params.cosineSimilarity:
        return product
    squares = [emitter.node("ReduceSumSquare", x, axis) for x in (left, right)]
    lengths = emitter.node("Sqrt", emitter.node("Mul", *squares))
    positive = emitter.node("Greater", lengths, emitter.number(0))
    divisor = emitter.node("Where", positive, lengths, emitter.number(1))
    return emitter.node("Where", positive, emitter.node("Div", product, divisor), emitter.number(0))
