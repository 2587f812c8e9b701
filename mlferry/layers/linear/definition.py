"""Matrix products and embeddings."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.layers.definitions import (
    SECOND_INPUT,
    LaterOption,
    StoredWeight,
    StoredWeights,
    layer_kind,
    layer_rule,
    stored_bias,
    stored_weights,
)
from mlferry.layers.params import Params
from mlferry.numerics.shapes import Shape, broadcast, need_rank, product, replaced, show
from mlferry.spec.problems import Problems, error, note, warning
from mlferry.spec.proto import neural_network_pb2 as nn

_SIZES = {  # the fields with the rows and the columns of the stored matrix
    "innerProduct": ("outputChannels", "inputChannels"),
    "embedding": ("outputChannels", "inputDim"),
    "embeddingND": ("embeddingSize", "vocabSize"),
}


def matrix_shape(params: Params) -> tuple[int, int]:
    """The shape of the stored matrix of a product or an embedding."""
    rows, columns = (getattr(params, field) for field in _SIZES[params.kind])
    return rows, columns


@layer_kind(
    "innerProduct",
    inputs=1,
    positive=("inputChannels", "outputChannels"),
    features=(
        LaterOption(
            lambda layer: layer.innerProduct.int8DynamicQuantize, 5, "the dynamic quantization"
        ),
    ),
    updatable=True,
    gradient=True,
)
def inner_product(params: Params, shape: Shape) -> list[Shape]:
    """Ranks 1 to 3: the last axis is multiplied; 4 and 5: C, H and W flattened."""
    need_rank(shape, 1, most=5)
    flattened = len(shape) >= 4
    channels = product(shape[-3:]) if flattened else shape[-1]
    if channels is not None and channels != params.inputChannels:
        raise SpecError(
            f"input {show(shape)} has {channels} channels, the layer takes {params.inputChannels}"
        )
    if flattened:
        return [(*shape[:-3], params.outputChannels, 1, 1)]
    return [(*shape[:-1], params.outputChannels)]


@layer_kind("embedding", inputs=1, positive=("inputDim", "outputChannels"))
def embedding(params: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 4)
    return [(*shape[:-3], params.outputChannels, 1, 1)]


@layer_kind("embeddingND", inputs=1, positive=("vocabSize", "embeddingSize"))
def embedding_nd(params: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 2, most=5)
    if shape[-1] not in (1, None):
        raise SpecError(f"the last extent of the input {show(shape)} must be 1")
    return [(*shape[:-1], params.embeddingSize)]


@layer_kind(
    "batchedMatmul",
    inputs=(1, 2),
    positive_alone=("weightMatrixFirstDimension", "weightMatrixSecondDimension"),
    features=(
        LaterOption(
            lambda layer: layer.batchedMatmul.int8DynamicQuantize, 5, "the dynamic quantization"
        ),
    ),
)
def batched_matmul(params: Params, left: Shape, right: Shape | None = None) -> list[Shape]:
    """A vector on the left is a row, on the right a column; the result is still a matrix."""
    if right is None:
        need_rank(left, 1)
        inner, columns = params.weightMatrixFirstDimension, params.weightMatrixSecondDimension
        if left[-1] not in (inner, None):
            raise SpecError(f"input {show(left)} ends in {left[-1]}, the weights take {inner}")
        return [(*left[:-1], columns)]
    a = (1, *left) if len(left) == 1 else left
    b = (*right, 1) if len(right) == 1 else right
    if params.transposeA and len(left) > 1:
        a = (*a[:-2], a[-1], a[-2])
    if params.transposeB and len(right) > 1:
        b = (*b[:-2], b[-1], b[-2])
    if None not in (a[-1], b[-2]) and a[-1] != b[-2]:
        raise SpecError(f"matrices {show(left)} and {show(right)} do not multiply")
    outer = broadcast(a[:-2], b[:-2]) if len(a) > 2 or len(b) > 2 else ()
    return [(*outer, a[-2], b[-1])]


@layer_kind("dot", inputs=2)
def dot(params: Params, left: Shape, right: Shape) -> list[Shape]:
    need_rank(left, 3)
    need_rank(right, 3, "second input")
    if len(left) != len(right):
        raise SpecError(f"vectors {show(left)} and {show(right)} differ in their number of axes")
    for shape in (left, right):
        if any(extent not in (1, None) for extent in shape[-2:]):
            raise SpecError(f"{show(shape)}: height and width of a dot product's inputs are 1")
    if None not in (left[-3], right[-3]) and left[-3] != right[-3]:
        raise SpecError(f"vectors {show(left)} and {show(right)} differ in length")
    return [replaced(broadcast(left, right), -3, 1)]


_INT8_FIELD = "int8DynamicQuantize"


# ---- rules and stored weights ------------------------------------------------------------------


@stored_weights(*_SIZES)
def weights_of_matrix(
    layer: nn.NeuralNetworkLayer,
    params: nn.InnerProductLayerParams | nn.EmbeddingLayerParams | nn.EmbeddingNDLayerParams,
) -> StoredWeights:
    out, count = (getattr(params, field) for field in _SIZES[layer.WhichOneof("layer") or ""])
    yield StoredWeight("weights", params.weights, (out, count), scales=out)
    yield stored_bias(params, out)


@stored_weights("batchedMatmul")
def weights_of_batched_matmul(
    layer: nn.NeuralNetworkLayer, params: nn.BatchedMatMulLayerParams
) -> StoredWeights:
    has_stored_weights = len(layer.input) < 2
    rows, columns = params.weightMatrixFirstDimension, params.weightMatrixSecondDimension
    yield StoredWeight(
        "weights", params.weights, (columns, rows), SECOND_INPUT, has_stored_weights, scales=columns
    )
    yield stored_bias(params, columns, stored=has_stored_weights)


@layer_rule("innerProduct", "batchedMatmul")
def check_int8_dynamic(
    layer: nn.NeuralNetworkLayer, params: nn.BatchedMatMulLayerParams | nn.InnerProductLayerParams
) -> Problems:
    """Dynamic quantization: 8 bits, linear without a bias, one input.

    The format's text rules out a bias of the layer as well, but devices compute it.
    """
    if not params.int8DynamicQuantize:
        return
    table = params.weights.quantization
    if table.numberOfBits != 8:
        yield warning(
            f"weights.quantization.numberOfBits is {table.numberOfBits}; {_INT8_FIELD} needs 8"
        )
    if table.WhichOneof("QuantizationType") != "linearQuantization":
        yield warning(f"weights.quantization is not linear; {_INT8_FIELD} needs it")
    if table.linearQuantization.bias:
        yield error(f"weights.quantization has a bias; {_INT8_FIELD} allows none")
    if params.hasBias:
        yield note(f"hasBias is set; the format's text allows no bias with {_INT8_FIELD}")
    if len(layer.input) > 1:
        yield warning(f"{_INT8_FIELD} is set, but its second matrix is an input")


@layer_rule("batchedMatmul")
def check_bias_of_matmul(
    layer: nn.NeuralNetworkLayer, params: nn.BatchedMatMulLayerParams
) -> Problems:
    """A product of two inputs has no bias."""
    if len(layer.input) > 1 and params.hasBias:
        yield warning("hasBias is set, but its second matrix is an input: it has no bias")
