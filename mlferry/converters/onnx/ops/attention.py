"""onnxruntime's ops of transformers: embeddings, rotations, attention in one op."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.elementwise import FLOAT_MAX
from mlferry.converters.onnx.ops.integers import floats
from mlferry.converters.onnx.ops.linear import matmul, product
from mlferry.converters.onnx.ops.normalization import layer_normalized
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import affine, as_blob, emit, extent, joined
from mlferry.converters.reshapes import heads_apart, heads_joined
from mlferry.converters.sizes import use
from mlferry.converters.slices import sliced
from mlferry.converters.values import SOURCE, Blob, Constant, Operand, Results
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import show

_MASKED = -10000.0  # what onnxruntime adds where a mask is 0


def numbered(context: Lowering, x: Blob, axis: int) -> Blob:
    """0, 1, ... along an axis, of any extent."""
    size = x.known[axis]
    if size is not None:
        return context.constant(np.arange(extent(x, axis)))
    shape = context.layer("getShape", x, layout=SOURCE)
    end = sliced(context, shape, [axis], [axis + 1], None, None)
    return context.layer("rangeDynamic", end, layout=SOURCE, startValue=0.0, stepSizeValue=1.0)


# ---- embeddings ------------------------------------------------------------------------


@op("com.microsoft.EmbedLayerNormalization", raw=True)
def embed_layer_normalization(context: Lowering, node: Node, *operands: Operand) -> Results:
    """The sum of the embeddings of words, positions and segments, normalized.

    The second output counts what the mask keeps of each sentence, the third is the sum.
    """
    words, segments, *tables, gamma, beta = operands[:7]
    mask, positions = (*operands[7:], None, None)[:2]
    node.attrs.get("mask_index_type")
    return _embedded(context, node, words, segments, tables, (gamma, beta), mask, positions)


@op("com.microsoft.QEmbedLayerNormalization", raw=True)
def q_embed_layer_normalization(context: Lowering, node: Node, *operands: Operand) -> Results:
    """The same with tables in 8 bits; scales and zero points follow, in the same order."""
    words, segments = operands[:2]
    values = [
        None
        if operands[2 + i] is None
        else floats(context, node, 2 + i, operands[8 + i], operands[13 + i], 0)
        for i in range(5)
    ]
    return _embedded(context, node, words, segments, values[:3], values[3:], operands[7], None)


def _embedded(
    context: Lowering,
    node: Node,
    words: Operand,
    segments: Operand | None,
    tables: Sequence[Operand | None],
    norm: Sequence[Operand | None],
    mask: Operand | None,
    positions: Operand | None,
) -> Results:
    words = as_blob(context, words)
    word_table, position_table, segment_table = tables
    total = _rows(context, word_table, words)
    places = numbered(context, words, 1) if positions is None else positions
    total = emit(context, "addBroadcastable", total, _rows(context, position_table, places))
    if segments is not None:
        total = emit(context, "addBroadcastable", total, _rows(context, segment_table, segments))
    scale, bias = norm
    if scale is None:
        raise ConversionError("EmbedLayerNormalization without gamma")
    epsilon = node.attrs.get("epsilon", 1e-12)
    (output,) = layer_normalized(context, total, (2,), scale, bias, epsilon, 1)
    counted = None
    if len(node.outputs) > 1 and node.outputs[1].name:
        counted = _counted(context, words, mask)
    return (output, counted, total)[: len(node.outputs)]


def _rows(context: Lowering, table: Operand | None, indices: Operand) -> Blob:
    """The rows of a table, [..., units]."""
    if table is None:
        raise ConversionError("an embedding without its table")
    indices = as_blob(context, indices)
    return context.layer("gather", as_blob(context, table), indices, layout=SOURCE, axis=0)


def _counted(context: Lowering, words: Blob, mask: Operand | None) -> Blob:
    """How many words of each sentence count: none without a mask, as onnxruntime has it."""
    output = affine(context, words, 0.0) if mask is None else as_blob(context, mask)
    output = emit(context, "equal", output, alpha=1.0)
    return context.layer("reduceSum", output, layout=SOURCE, axes=(1,), keepDims=False)


# ---- rotations -------------------------------------------------------------------------


@op("com.microsoft.RotaryEmbedding", raw=True)
def rotary_embedding(
    context: Lowering,
    node: Node,
    x: Operand,
    positions: Operand,
    cosines: Operand,
    sines: Operand,
) -> Blob:
    """Pairs of values of each head turned by an angle of the position; values beyond stay."""
    if node.attrs.get("is_packed_batching", 0):
        raise ConversionError("is_packed_batching: sentences one after another without padding")
    node.attrs.get("scale")  # onnxruntime does not look at it
    x = as_blob(context, x)
    width = 2 * (cosines.array.shape[1] if isinstance(cosines, Constant) else extent(cosines, 1))
    count, part = node.attrs.get("num_heads", 0), node.attrs.get("rotary_embedding_dim", 0)
    split = x.rank == 3
    if split:
        size = extent(x, 2) // count if part and count else width
        x = heads_apart(context, x, extent(x, 2) // size)
        x = context.layer("transpose", x, layout=SOURCE, axes=(0, 2, 1, 3))
    size = extent(x, 3)
    if part and part != width:
        raise ConversionError(f"rotary_embedding_dim={part} of a table for {width} values")
    interleaved = bool(node.attrs.get("interleaved", 0))
    places = _places(context, x, positions)
    output = rotated_in_part(context, x, places, cosines, sines, interleaved)
    if not split:
        return output
    return heads_joined(
        context, context.layer("transpose", output, layout=SOURCE, axes=(0, 2, 1, 3))
    )


def _places(context: Lowering, x: Blob, positions: Operand) -> Operand:
    """The positions [batch or 1, length] of values [batch, heads, length, units]."""
    shape = positions.array.shape if isinstance(positions, Constant) else positions.known
    if len(shape) == 2:
        return positions
    if isinstance(positions, Constant) and x.known[2] is not None:
        places = positions.array.ravel()[0] + np.arange(extent(x, 2))
        return Constant("", places[None])
    numbers = emit(
        context, "addBroadcastable", numbered(context, x, 2), as_blob(context, positions)
    )
    return context.expand(numbers, 0)


def rotated_in_part(
    context: Lowering,
    x: Blob,
    places: Operand,
    cosines: Operand,
    sines: Operand,
    interleaved: bool,
) -> Blob:
    """[batch, heads, length, units] with the first values of each head rotated."""
    size = extent(x, 3)
    width = 2 * (cosines.array.shape[1] if isinstance(cosines, Constant) else extent(cosines, 1))
    if width == size:
        return _rotated(context, x, places, cosines, sines, interleaved)
    first = sliced(context, x, [0], [width], [3], None)
    output = _rotated(context, first, places, cosines, sines, interleaved)
    return joined(context, [output, sliced(context, x, [width], [size], [3], None)], 3)


def _rotated(
    context: Lowering,
    x: Blob,
    places: Operand,
    cosines: Operand,
    sines: Operand,
    interleaved: bool,
) -> Blob:
    """x * cos + partner * sin: the partner of the first of a pair is the second, negated."""
    width = extent(x, 3)
    columns = np.arange(width)
    angle = columns // 2 if interleaved else columns % (width // 2)
    second = columns % 2 == 1 if interleaved else columns >= width // 2
    step = 1 if interleaved else width // 2
    partner = np.where(second, columns - step, columns + step)
    signs = np.where(second, 1.0, -1.0)
    tables = []
    for table, factors in ((cosines, None), (sines, signs)):
        if isinstance(table, Constant):
            full = table.array.astype(np.float32)[:, angle]
            wide: Operand = Constant("", full if factors is None else full * np.float32(factors))
        else:
            wide = context.layer("gather", table, context.constant(angle), layout=SOURCE, axis=1)
            if factors is not None:
                wide = emit(context, "multiplyBroadcastable", wide, context.constant(factors))
        if isinstance(wide, Constant) and isinstance(places, Constant):
            rows = context.constant(wide.array[places.array])
        else:
            rows = _rows(context, wide, places)
        tables.append(context.expand(rows, 1))
    moved = context.layer("gather", x, context.constant(partner), layout=SOURCE, axis=3)
    return emit(
        context,
        "addBroadcastable",
        emit(context, "multiplyBroadcastable", x, tables[0]),
        emit(context, "multiplyBroadcastable", moved, tables[1]),
    )


# ---- attention -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Attended:
    """What goes into attention.

    Attributes:
        heads: their number.
        mask: integers that are 0 where nothing is attended to, in one of onnxruntime's forms.
        bias: what is added to the scores.
        past: earlier keys and values, [batch, heads, length, units] each.
    """

    heads: int
    mask: Operand | None = None
    bias: Operand | None = None
    past: tuple[Blob, Blob] | None = None


@op("com.microsoft.Attention", raw=True)
def attention(
    context: Lowering, node: Node, x: Operand, weights: Operand, *rest: Operand
) -> Results:
    """Self-attention with its projection: queries, keys and values are one product."""
    bias, mask, past, extra, filled = (*rest, *[None] * 5)[:5]
    if filled is not None:
        raise ConversionError("past_sequence_length: one buffer for what was and what is")
    return _self_attention(context, node, x, weights, bias, mask, past, extra)


@op("com.microsoft.QAttention", raw=True)
def q_attention(context: Lowering, node: Node, *operands: Operand) -> Results:
    """The same of 8-bit integers."""
    _, _, bias, scale, steps, mask, zero, shifts, past = (*operands, *[None] * 4)[:9]
    x = floats(context, node, 0, scale, zero, -1)
    weights = floats(context, node, 1, steps, shifts, -1)
    return _self_attention(context, node, x, weights, bias, mask, past, None)


def _self_attention(
    context: Lowering,
    node: Node,
    x: Operand,
    weights: Operand,
    bias: Operand | None,
    mask: Operand | None,
    past: Operand | None,
    extra: Operand | None,
) -> Results:
    if node.attrs.get("past_present_share_buffer", 0):
        raise ConversionError("past_present_share_buffer: one buffer for what was and what is")
    node.attrs.get("rotary_embedding_dim")
    if node.attrs.get("do_rotary", 0):
        raise ConversionError("do_rotary: onnxruntime does not compute it on processors, either")
    sizes = node.attrs.get("qkv_hidden_sizes")
    x = as_blob(context, x)
    result = matmul(context, node, x, weights)
    if bias is not None:
        result = emit(context, "addBroadcastable", result, as_blob(context, bias))
    total = extent(result, 2)
    parts = context.outputs(
        3,
        "splitND",
        result,
        layout=SOURCE,
        axis=2,
        numSplits=3,
        splitSizes=list(sizes) if sizes else [total // 3] * 3,
    )
    earlier = None
    if past is not None:
        halves = context.outputs(
            2, "splitND", as_blob(context, past), layout=SOURCE, axis=0, numSplits=2
        )
        earlier = tuple(context.layer("squeeze", h, layout=SOURCE, axes=(0,)) for h in halves)
    heads = node.attrs["num_heads"]
    q, k, v = (split_heads(context, part, heads) for part in parts)
    told = _Attended(heads, mask, extra, earlier)  # type: ignore[arg-type] # a pair
    output, k, v, _ = _attend(context, node, q, k, v, told)
    if len(node.outputs) < 2 or not node.outputs[1].name:
        return (output, None)[: len(node.outputs)]
    present = joined(context, [context.expand(part, 0) for part in (k, v)], 0)
    return output, present


@op("com.microsoft.MultiHeadAttention", raw=True)
def multi_head_attention(
    context: Lowering, node: Node, query: Operand, *rest: Operand | None
) -> tuple[Blob, ...]:
    """Attention of projected values, which may lie packed in one operand."""
    key, value, bias, mask, extra, past_key, past_value, filled, beams = (*rest, *[None] * 9)[:9]
    if filled is not None or beams is not None:
        raise ConversionError("past_sequence_length: one buffer for what was and what is")
    heads = node.attrs["num_heads"]
    query, key, value = as_blob(context, query), as_blob(context, key), as_blob(context, value)
    if key is None:
        parts = _packed(context, query, 3)
    elif value is None:
        parts = [query, *_packed(context, key, 2)]
    else:
        parts = [query, key, value]
    if bias is not None:
        parts = _biased(context, parts, bias, heads)
    q, k, v = (x if x.rank == 4 else split_heads(context, x, heads) for x in parts)
    past = earlier_keys(context, past_key, past_value)
    output, k, v, scores = _attend(context, node, q, k, v, _Attended(heads, mask, extra, past))
    return (output, k, v, scores)[: len(node.outputs)]


def earlier_keys(
    context: Lowering, key: Operand | None, value: Operand | None
) -> tuple[Blob, Blob] | None:
    """The keys and values of the words before, where a model is given them.

    Raises:
        ConversionError: it is given only one of them.
    """
    if key is None and value is None:
        return None
    if key is None or value is None:
        raise ConversionError("past keys and past values: one without the other")
    return as_blob(context, key), as_blob(context, value)


def _packed(context: Lowering, x: Blob, count: int) -> list[Blob]:
    """The parts of [batch, length, heads, count, units], as [batch, heads, length, units]."""
    parts = context.outputs(count, "splitND", x, layout=SOURCE, axis=3, numSplits=count)
    flat = [context.layer("squeeze", part, layout=SOURCE, axes=(3,)) for part in parts]
    return [context.layer("transpose", part, layout=SOURCE, axes=(0, 2, 1, 3)) for part in flat]


def _biased(context: Lowering, parts: Sequence[Blob], bias: Operand, heads: int) -> list[Blob]:
    """Each part with its stretch of the bias."""
    sizes = [extent(x, 2) if x.rank == 3 else extent(x, 3) * heads for x in parts]
    output, start = [], 0
    for x, size in zip(parts, sizes, strict=True):
        if isinstance(bias, Constant):
            stretch = context.constant(bias.array.astype(np.float32)[start : start + size])
        else:
            stretch = sliced(context, bias, [start], [start + size], [0], None)
        if x.rank == 4:
            stretch = context.reshape(stretch, (heads, 1, size // heads), layout=SOURCE)
        output.append(emit(context, "addBroadcastable", x, stretch))
        start += size
    return output


def split_heads(context: Lowering, x: Blob, heads: int) -> Blob:
    """[batch, length, heads * units] as [batch, heads, length, units]."""
    return context.layer(
        "transpose", heads_apart(context, x, heads), layout=SOURCE, axes=(0, 2, 1, 3)
    )


def _attend(
    context: Lowering, node: Node, q: Blob, k: Blob, v: Blob, told: _Attended
) -> tuple[Blob, Blob, Blob, Blob]:
    """The output [batch, length, units], all keys and values, and what they are weighted by."""
    before = 0
    lengths = q.known[2], k.known[2]
    if node.attrs.get("unidirectional", 0) and lengths[0] != lengths[1]:
        raise ConversionError(
            f"unidirectional, of {show(lengths)} queries and keys: which come before which is "
            "not specified where their numbers differ"
        )
    if told.past is not None:
        before = extent(told.past[0], 2) if node.attrs.get("unidirectional", 0) else 0
        k, v = (joined(context, [old, new], 2) for old, new in zip(told.past, (k, v), strict=True))
    scale = node.attrs.get("scale", 0.0) or 1 / math.sqrt(extent(q, 3))
    scores = product(context, affine(context, q, scale), k, transposeB=True)
    filler = node.attrs.get("mask_filter_value", _MASKED)
    if told.mask is not None:
        scores = emit(
            context, "addBroadcastable", scores, _added(context, scores, told.mask, filler)
        )
    if node.attrs.get("unidirectional", 0):
        scores = _causal(context, scores, before)
    if told.bias is not None:
        scores = emit(context, "addBroadcastable", scores, as_blob(context, told.bias))
    weighted = context.layer("softmaxND", scores, layout=SOURCE, axis=-1)
    mixed = context.layer(
        "transpose", product(context, weighted, v), layout=SOURCE, axes=(0, 2, 1, 3)
    )
    return heads_joined(context, mixed), k, v, weighted


def _causal(context: Lowering, scores: Blob, before: int) -> Blob:
    """Nothing is attended to that comes later."""
    ones = context.layer("fillLike", scores, layout=SOURCE, value=1.0)
    later = context.layer("upperTriangular", ones, layout=SOURCE, k=before + 1)
    least = context.constant([-FLOAT_MAX])
    return emit(context, "whereBroadcastable", later, least, scores)


def _added(context: Lowering, scores: Blob, mask: Operand, filler: float) -> Blob:
    """What a mask adds to scores [batch, heads, length, keys]: 0, or a large negative number.

    A mask is [batch, keys], [batch, length, keys], or the number of keys that count, [batch],
    perhaps followed by the place of the first that does.
    """
    rank = mask.array.ndim if isinstance(mask, Constant) else mask.rank
    if rank == 4:
        raise ConversionError("a mask of four axes: onnxruntime does not take it, either")
    if rank == 1:
        return _by_lengths(context, scores, as_blob(context, mask), filler)
    output = (
        context.constant(mask.array > 0)
        if isinstance(mask, Constant)
        else emit(context, "greaterThan", mask, alpha=0.0)
    )
    axes = (1, 2) if rank == 2 else (1,)
    return context.expand(affine(context, output, -filler, filler), *axes)


def _by_lengths(context: Lowering, scores: Blob, counts: Blob, filler: float) -> Blob:
    batch, given = scores.known[0], counts.known[0]
    if batch is None or given is None:  # a number for each sentence; others do not fit
        last = sliced(context, scores, [-1] * 3, [2**31 - 1] * 3, [1, 2, 3], None)
        each = context.layer("squeeze", last, layout=SOURCE, axes=(1, 2, 3))
        counts, given = context.layer("reshapeLike", counts, each, layout=SOURCE), batch
    elif given in (batch, 2 * batch):
        use(scores, [0])
        use(counts, [0])
    else:
        raise ConversionError(f"a mask of {given} numbers for {batch} sentences")
    places = numbered(context, scores, 3)
    ends = counts if given == batch else sliced(context, counts, [0], [batch], [0], None)
    left_out = emit(context, "greaterEqual", places, context.expand(ends, 1))
    if given != batch:
        starts = sliced(context, counts, [batch], [given], [0], None)
        early = emit(context, "lessThan", places, context.expand(starts, 1))
        left_out = emit(context, "logicalOr", left_out, early)
    return context.expand(affine(context, left_out, filler), 1, 2)
