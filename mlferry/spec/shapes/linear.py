"""Matrix products and embeddings."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.spec.params import Params
from mlferry.spec.shapes.rules import Shape, broadcast, need_rank, product, replaced, rule, show


@rule("innerProduct")
def inner_product(p: Params, shape: Shape) -> list[Shape]:
    """Ranks 1 to 3: the last axis is multiplied; 4 and 5: C, H and W flattened."""
    need_rank(shape, 1)
    flattened = len(shape) >= 4
    channels = product(shape[-3:]) if flattened else shape[-1]
    if channels is not None and channels != p.inputChannels:
        raise SpecError(
            f"input {show(shape)} has {channels} channels, the layer takes {p.inputChannels}"
        )
    if flattened:
        return [(*shape[:-3], p.outputChannels, 1, 1)]
    return [(*shape[:-1], p.outputChannels)]


@rule("embedding")
def embedding(p: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 4)
    return [(*shape[:-3], p.outputChannels, 1, 1)]


@rule("embeddingND")
def embedding_nd(p: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 2)
    if shape[-1] not in (1, None):
        raise SpecError(f"the last extent of the input {show(shape)} must be 1")
    return [(*shape[:-1], p.embeddingSize)]


@rule("batchedMatmul")
def batched_matmul(p: Params, left: Shape, right: Shape | None = None) -> list[Shape]:
    """Of two inputs, a vector is a row at the left, a column at the right, and stays a matrix."""
    if right is None:
        need_rank(left, 1)
        inner, columns = p.weightMatrixFirstDimension, p.weightMatrixSecondDimension
        if left[-1] not in (inner, None):
            raise SpecError(f"input {show(left)} ends in {left[-1]}, the weights take {inner}")
        return [(*left[:-1], columns)]
    a = (1, *left) if len(left) == 1 else left
    b = (*right, 1) if len(right) == 1 else right
    if p.transposeA and len(left) > 1:
        a = (*a[:-2], a[-1], a[-2])
    if p.transposeB and len(right) > 1:
        b = (*b[:-2], b[-1], b[-2])
    if None not in (a[-1], b[-2]) and a[-1] != b[-2]:
        raise SpecError(f"matrices {show(left)} and {show(right)} do not multiply")
    outer = broadcast(a[:-2], b[:-2]) if len(a) > 2 or len(b) > 2 else ()
    return [(*outer, a[-2], b[-1])]


@rule("dot")
def dot(p: Params, left: Shape, right: Shape) -> list[Shape]:
    need_rank(left, 3)
    need_rank(right, 3, "second input")
    for shape in (left, right):
        if any(extent not in (1, None) for extent in shape[-2:]):
            raise SpecError(f"{show(shape)}: height and width of a dot product's inputs are 1")
    if None not in (left[-3], right[-3]) and left[-3] != right[-3]:
        raise SpecError(f"vectors {show(left)} and {show(right)} differ in length")
    return [replaced(broadcast(left, right), -3, 1)]
