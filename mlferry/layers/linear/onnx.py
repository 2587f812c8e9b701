"""Matrix products and embeddings."""

from __future__ import annotations

from mlferry.layers.exports import op
from mlferry.layers.onnx_weights import weight
from mlferry.layers.params import Params
from mlferry.onnx_graph.emitter import Emitter
from mlferry.spec import weights

_FLOATS = (weights.FLOAT32, weights.FLOAT16)


@op("innerProduct")
def inner_product(e: Emitter, p: Params, x: str) -> str:
    """Weights are [outC, inC]; from rank 4 on, C, H and W are flattened first."""
    if e.rank(x) < 4:
        return _multiplied(e, p, x, p.inputChannels, p.outputChannels)
    rows = e.reshape(x, [-1, p.inputChannels])
    y = _multiplied(e, p, rows, p.inputChannels, p.outputChannels)
    return e.reshape(y, [*e.extents(x)[:-3], p.outputChannels, 1, 1])


def _multiplied(e: Emitter, p: Params, x: str, inputs: int, outputs: int) -> str:
    """The last axis of `x` multiplied by stored weights [outputs, inputs], and the bias added.

    onnxruntime fuses a `MatMul` with a `DequantizeLinear` before it, and rounds the other side to
    int8 then; a `Gemm` that transposes its weights stays as it is.
    """
    if p.int8DynamicQuantize:
        x = rounded_to_int8(e, x)
    bias = [weight(e, p, "bias", (outputs,))] if p.hasBias else []
    floats = str(weights.encoding(p.weights.message)) in _FLOATS
    if e.rank(x) != 2 and floats:
        y = e.node("MatMul", x, weight(e, p, "weights", (outputs, inputs), axes=(1, 0)))
        e.shapes[y] = (*e.shape(x)[:-1], outputs)
        return e.node("Add", y, bias[0]) if bias else y
    rows = e.reshape(x, [-1, inputs]) if e.rank(x) != 2 else x
    y = e.node("Gemm", rows, weight(e, p, "weights", (outputs, inputs)), *bias, transB=1)
    e.shapes[y] = (e.shape(rows)[0], outputs)
    return e.reshape(y, [*e.extents(x)[:-1], outputs])


def rounded_to_int8(e: Emitter, x: str) -> str:
    """What is left of an input when it is quantized to int8 on the way into a product.

    One scale for the whole input, so that its largest magnitude is 127.
    """
    largest = e.node("ReduceMax", e.node("Abs", x), keepdims=0)
    scale = e.node("Div", largest, e.number(127))
    divisor = e.node("Where", e.node("Equal", scale, e.number(0)), e.number(1), scale)
    y = e.node("Mul", e.node("Round", e.node("Div", x, divisor)), scale)
    e.shapes[y] = e.shape(x)
    return y


def _never_from_the_end(e: Emitter, indices: str, count: int) -> str:
    """Indices of an embedding, negative ones behind its end: an error, where ONNX would wrap."""
    negative = e.node("Less", indices, e.integers([0]))
    y = e.node("Where", negative, e.integers([count]), indices)
    e.shapes[y] = e.shapes.get(indices)
    return y


@op("embedding")
def embedding(e: Emitter, p: Params, x: str) -> str:
    """Weights are [outputChannels, inputDim]; one index a position."""
    shape = (p.outputChannels, p.inputDim)
    indices = e.reshape(e.whole(x), e.extents(x)[:-3])
    table = weight(e, p, "weights", shape, axes=(1, 0))
    y = e.node("Gather", table, _never_from_the_end(e, indices, p.inputDim))
    e.shapes[y] = (*e.shape(x)[:-3], p.outputChannels)
    if p.hasBias:
        y = e.node("Add", y, weight(e, p, "bias", (p.outputChannels,)))
    return e.reshape(y, [*e.extents(x)[:-3], p.outputChannels, 1, 1])


@op("embeddingND")
def embedding_nd(e: Emitter, p: Params, x: str) -> str:
    """Weights are [embeddingSize, vocabSize]; the last extent of the input is 1."""
    table = weight(e, p, "weights", (p.embeddingSize, p.vocabSize), axes=(1, 0))
    indices = _never_from_the_end(e, e.squeeze(e.whole(x), [-1]), p.vocabSize)
    y = e.node("Gather", table, indices)
    return e.node("Add", y, weight(e, p, "bias", (p.embeddingSize,))) if p.hasBias else y


@op("batchedMatmul")
def batched_matmul(e: Emitter, p: Params, left: str, *right: str) -> str:
    """With one input, it is multiplied by stored weights, kept column-major.

    A vector is a row at the left, a column at the right; the result is a matrix all the same.
    """
    if not right:
        return _multiplied(e, p, left, p.weightMatrixFirstDimension, p.weightMatrixSecondDimension)
    a = e.unsqueeze(left, [0]) if e.rank(left) == 1 else _turned(e, left, p.transposeA)
    b = right[0]
    b = e.unsqueeze(b, [1]) if e.rank(b) == 1 else _turned(e, b, p.transposeB)
    return e.node("MatMul", a, b)


def _turned(e: Emitter, x: str, turn: bool) -> str:
    if not turn:
        return x
    *outer, rows, columns = range(e.rank(x))
    return e.transpose(x, [*outer, columns, rows])


@op("dot")
def dot(e: Emitter, p: Params, left: str, right: str) -> str:
    """Of vectors along the channels; the cosine with a vector of length 0 is 0."""
    axis = e.integers([-3])
    product = e.node("ReduceSum", e.node("Mul", left, right), axis)
    if not p.cosineSimilarity:
        return product
    squares = [e.node("ReduceSumSquare", x, axis) for x in (left, right)]
    lengths = e.node("Sqrt", e.node("Mul", *squares))
    positive = e.node("Greater", lengths, e.number(0))
    divisor = e.node("Where", positive, lengths, e.number(1))
    return e.node("Where", positive, e.node("Div", product, divisor), e.number(0))
