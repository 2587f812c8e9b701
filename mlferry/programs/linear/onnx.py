"""Products with matrices, and attention."""

from __future__ import annotations

import math

from mlferry.onnx_graph.emitter import Emitter
from mlferry.programs.exports import Call, cast, export


@export("linear", stored=("weight",))
def linear(emitter: Emitter, call: Call, x: str, weight: str, bias: object) -> str:
    shift = _side(emitter, call, "bias", call.value("bias"))
    rows, matrix = _side(emitter, call, "x", x), _side(emitter, call, "weight", weight)
    if emitter.rank(x) == 2 and call.dtype == "float32":
        return emitter.node("Gemm", rows, matrix, *([shift] if shift else []), transB=1)
    y = emitter.node("MatMul", rows, emitter.transpose(matrix, [1, 0]))
    return emitter.node("Add", y, shift) if shift else y


def _side(emitter: Emitter, call: Call, parameter: str, x: str) -> str:
    """An operand in the type of the result, as floats and integers may be mixed."""
    if not x or call.carrier(parameter) == call.dtype:
        return x
    return cast(emitter, x, call.dtype)


@export("matmul")
def matmul(
    emitter: Emitter, call: Call, x: str, y: str, transpose_x: bool, transpose_y: bool
) -> str:
    sides = []
    for parameter, value, turn in (("x", x, transpose_x), ("y", y, transpose_y)):
        rank = emitter.rank(value)
        side = _side(emitter, call, parameter, value)
        order = [*range(rank - 2), rank - 1, rank - 2]
        sides.append(emitter.transpose(side, order) if turn and rank > 1 else side)
    return emitter.node("MatMul", *sides)


@export("einsum")
def einsum(emitter: Emitter, call: Call, values: list[str], equation: str) -> str:
    """ONNX's node requires one extent for each letter, so axes of 1 are repeated."""
    plain = equation.replace(" ", "")
    letters = plain.split("->")[0].split(",")
    largest: dict[str, int] = {}
    for term, x in zip(letters, values, strict=True):
        for letter, extent in zip(term, emitter.shape(x), strict=False):
            largest[letter] = max(largest.get(letter, 1), extent or 1)
    spread = []
    for term, x in zip(letters, values, strict=True):
        shape = emitter.shape(x)
        sizes = [
            largest[letter] if extent == 1 else 1
            for letter, extent in zip(term, shape, strict=False)
        ]
        grows = "." not in term and max(sizes, default=1) > 1
        spread.append(emitter.node("Expand", x, emitter.integers(sizes)) if grows else x)
    return emitter.node("Einsum", *spread, equation=plain)


@export("scaled_dot_product_attention")
def attention(
    emitter: Emitter, call: Call, query: str, key: str, value: str, attn_mask: str | None
) -> str:
    """A boolean mask excludes what is false; any other mask is added."""
    rank = emitter.rank(key)
    transposed = emitter.transpose(key, [*range(rank - 2), rank - 1, rank - 2])
    scores = emitter.node("MatMul", query, transposed)
    width = emitter.extent(query, -1)
    if isinstance(width, int):
        root = emitter.number(math.sqrt(width))
    else:
        root = emitter.node("Sqrt", cast(emitter, width, "float32"))
    scores = emitter.node("Div", scores, root)
    if attn_mask is not None and call.carrier("attn_mask") == "bool":
        scores = emitter.node("Where", attn_mask, scores, emitter.number(-math.inf))
    elif attn_mask is not None:
        scores = emitter.node("Add", scores, attn_mask)
    return emitter.node("MatMul", emitter.node("Softmax", scores, axis=-1), value)
