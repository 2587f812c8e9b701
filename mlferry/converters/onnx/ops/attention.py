"""onnxruntime's ops for transformers: embeddings, rotations, and attention as a single op."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlferry.converters.elementwise import FLOAT_MAX
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.integers import floats
from mlferry.converters.onnx.ops.linear import matmul, product
from mlferry.converters.onnx.ops.normalization import layer_normalized
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import affine, as_blob, extent, joined
from mlferry.converters.reshapes import heads_apart, heads_joined
from mlferry.converters.sizes import use
from mlferry.converters.slices import sliced
from mlferry.converters.values import Blob, Constant, Operand, Results
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import show

_MASKED = -10000.0  # what onnxruntime adds where a mask is 0


def numbered(context: Lowering, x: Blob, axis: int) -> Blob:
    """0, 1, ... along an axis of any extent."""
    size = x.known[axis]
    if size is not None:
        return context.constant(np.arange(extent(x, axis)))
    shape = context.layer("getShape", x)
    end = sliced(context, shape, [axis], [axis + 1], None, None)
    return context.layer("rangeDynamic", end, startValue=0.0, stepSizeValue=1.0)


# ---- embeddings ------------------------------------------------------------------------


@op("com.microsoft.EmbedLayerNormalization", raw=True)
def embed_layer_normalization(context: Lowering, node: Node, *operands: Operand) -> Results:
    """The sum of the embeddings of words, positions and segments, normalized.

    The second output counts the words of each sentence that the mask keeps, the third is the sum.
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
    total = context.add(total, _rows(context, position_table, places))
    if segments is not None:
        total = context.add(total, _rows(context, segment_table, segments))
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
    return context.gather(as_blob(context, table), indices, 0)


def _counted(context: Lowering, words: Blob, mask: Operand | None) -> Blob:
    """How many words of each sentence the mask keeps; 0 without a mask, as in onnxruntime."""
    output = affine(context, words, 0.0) if mask is None else as_blob(context, mask)
    output = context.emit("equal", output, alpha=1.0)
    return context.reduce("reduceSum", output, (1,), keep=False)


# ---- rotations -------------------------------------------------------------------------


@dataclass(frozen=True)
class Rotation:
    """Turns pairs of values of each head by an angle that depends on the position.

    Values of a head beyond the pairs stay.

    Attributes:
        cosines: [positions, pairs].
        sines: likewise.
        interleaved: whether a pair is adjacent; otherwise it is one value of each half.
    """

    cosines: Operand
    sines: Operand
    interleaved: bool

    def width(self) -> int:
        """The number of values of a head that are turned."""
        cosines = self.cosines
        pairs = cosines.array.shape[1] if isinstance(cosines, Constant) else extent(cosines, 1)
        return 2 * pairs

    def of(self, context: Lowering, x: Blob, places: Operand) -> Blob:
        """[batch, heads, length, units] with the first values of each head turned."""
        size, width = extent(x, 3), self.width()
        if width == size:
            return _rotated(context, x, places, self)
        output = _rotated(context, sliced(context, x, [0], [width], [3], None), places, self)
        return joined(context, [output, sliced(context, x, [width], [size], [3], None)], 3)


@op("com.microsoft.RotaryEmbedding", raw=True)
def rotary_embedding(
    context: Lowering, node: Node, x: Operand, positions: Operand, cosines: Operand, sines: Operand
) -> Blob:
    """Of values [batch, heads, length, units], or [batch, length, heads * units]."""
    if node.attrs.get("is_packed_batching", 0):
        raise ConversionError("is_packed_batching: sentences one after another without padding")
    node.attrs.get("scale")  # onnxruntime does not look at it
    x = as_blob(context, x)
    rotation = Rotation(cosines, sines, bool(node.attrs.get("interleaved", 0)))
    width = rotation.width()
    count, part = node.attrs.get("num_heads", 0), node.attrs.get("rotary_embedding_dim", 0)
    is_joined = x.rank == 3
    if is_joined:
        size = extent(x, 2) // count if part and count else width
        x = split_heads(context, x, extent(x, 2) // size)
    if part and part != width:
        raise ConversionError(f"rotary_embedding_dim={part} of a table for {width} values")
    output = rotation.of(context, x, _places(context, x, positions))
    if not is_joined:
        return output
    return heads_joined(context, context.transpose(output, (0, 2, 1, 3)))


def _places(context: Lowering, x: Blob, positions: Operand) -> Operand:
    """The positions [batch or 1, length] of values [batch, heads, length, units]."""
    shape = positions.array.shape if isinstance(positions, Constant) else positions.known
    if len(shape) == 2:
        return positions
    if isinstance(positions, Constant) and x.known[2] is not None:
        places = positions.array.ravel()[0] + np.arange(extent(x, 2))
        return Constant("", places[None])
    numbers = context.add(numbered(context, x, 2), as_blob(context, positions))
    return context.expand(numbers, 0)


def _rotated(context: Lowering, x: Blob, places: Operand, rotation: Rotation) -> Blob:
    """x * cos + partner * sin; the partner of the first value of a pair is minus the second."""
    interleaved = rotation.interleaved
    width = extent(x, 3)
    columns = np.arange(width)
    angle = columns // 2 if interleaved else columns % (width // 2)
    second = columns % 2 == 1 if interleaved else columns >= width // 2
    step = 1 if interleaved else width // 2
    partner = np.where(second, columns - step, columns + step)
    signs = np.where(second, 1.0, -1.0)
    tables = []
    for table, factors in ((rotation.cosines, None), (rotation.sines, signs)):
        if isinstance(table, Constant):
            full = table.floats[:, angle]
            wide: Operand = Constant("", full if factors is None else full * np.float32(factors))
        else:
            wide = context.gather(table, context.constant(angle), 1)
            if factors is not None:
                wide = context.multiply(wide, context.constant(factors))
        if isinstance(wide, Constant) and isinstance(places, Constant):
            rows = context.constant(wide.array[places.array])
        else:
            rows = _rows(context, wide, places)
        tables.append(context.expand(rows, 1))
    moved = context.gather(x, context.constant(partner), 3)
    return context.add(context.multiply(x, tables[0]), context.multiply(moved, tables[1]))


# ---- attention -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Options:
    """The inputs of attention besides queries, keys and values.

    Attributes:
        mask: integers that are 0 at keys to ignore, in one of onnxruntime's forms.
        bias: added to the scores.
        past: earlier keys and values, [batch, heads, length, units] each.
    """

    mask: Operand | None = None
    bias: Operand | None = None
    past: tuple[Blob, Blob] | None = None


@op("com.microsoft.Attention", raw=True)
def attention(
    context: Lowering, node: Node, x: Operand, weights: Operand, *rest: Operand
) -> Results:
    """Self-attention with its projection, one product for queries, keys and values."""
    bias, mask, past, extra, length = (*rest, *[None] * 5)[:5]
    if length is not None:
        raise ConversionError("past_sequence_length: past and present keys share a buffer")
    return _self_attention(context, node, x, weights, bias, mask, past, extra)


@op("com.microsoft.QAttention", raw=True)
def q_attention(context: Lowering, node: Node, *operands: Operand) -> Results:
    """The same with 8-bit integers."""
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
        raise ConversionError("past_present_share_buffer: past and present keys share a buffer")
    node.attrs.get("rotary_embedding_dim")
    if node.attrs.get("do_rotary", 0):
        raise ConversionError("do_rotary: onnxruntime does not compute it on CPUs, either")
    sizes = node.attrs.get("qkv_hidden_sizes")
    x = as_blob(context, x)
    result = matmul(context, node, x, weights)
    if bias is not None:
        result = context.add(result, as_blob(context, bias))
    widths = list(sizes) if sizes else [extent(result, 2) // 3] * 3
    parts = context.split(result, widths, 2)
    earlier = None
    if past is not None:
        halves = context.split(as_blob(context, past), 2, 0)
        keys, values = (context.layer("squeeze", half, axes=(0,)) for half in halves)
        earlier = keys, values
    q, k, v = (split_heads(context, part, node.attrs["num_heads"]) for part in parts)
    output, k, v, _ = _attend(context, node, q, k, v, _Options(mask, extra, earlier))
    if len(node.outputs) < 2 or not node.outputs[1].name:
        return (output, None)[: len(node.outputs)]
    present = joined(context, [context.expand(part, 0) for part in (k, v)], 0)
    return output, present


@op("com.microsoft.MultiHeadAttention", raw=True)
def multi_head_attention(
    context: Lowering, node: Node, query: Operand, *rest: Operand | None
) -> tuple[Blob, ...]:
    """Attention of projected values, which may be packed into one operand."""
    key, value, bias, mask, extra, past_key, past_value, length, beams = (*rest, *[None] * 9)[:9]
    if length is not None or beams is not None:
        raise ConversionError("past_sequence_length: past and present keys share a buffer")
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
    output, k, v, scores = _attend(context, node, q, k, v, _Options(mask, extra, past))
    return (output, k, v, scores)[: len(node.outputs)]


def earlier_keys(
    context: Lowering, key: Operand | None, value: Operand | None
) -> tuple[Blob, Blob] | None:
    """The keys and values of earlier words, if the node has them.

    Raises:
        ConversionError: it has only one of them.
    """
    if key is None and value is None:
        return None
    if key is None or value is None:
        raise ConversionError("past keys and past values: one without the other")
    return as_blob(context, key), as_blob(context, value)


def _packed(context: Lowering, x: Blob, count: int) -> list[Blob]:
    """The parts of [batch, length, heads, count, units], as [batch, heads, length, units]."""
    parts = context.split(x, count, 3)
    flat = [context.layer("squeeze", part, axes=(3,)) for part in parts]
    return [context.transpose(part, (0, 2, 1, 3)) for part in flat]


def _biased(context: Lowering, parts: Sequence[Blob], bias: Operand, heads: int) -> list[Blob]:
    """Each part, plus its section of the bias."""
    sizes = [extent(x, 2) if x.rank == 3 else extent(x, 3) * heads for x in parts]
    output, start = [], 0
    for x, size in zip(parts, sizes, strict=True):
        if isinstance(bias, Constant):
            stretch = context.constant(bias.floats[start : start + size])
        else:
            stretch = sliced(context, bias, [start], [start + size], [0], None)
        if x.rank == 4:
            stretch = context.reshape(stretch, (heads, 1, size // heads))
        output.append(context.add(x, stretch))
        start += size
    return output


def split_heads(context: Lowering, x: Blob, heads: int) -> Blob:
    """[batch, length, heads * units] as [batch, heads, length, units]."""
    return context.transpose(heads_apart(context, x, heads), (0, 2, 1, 3))


def _attend(
    context: Lowering, node: Node, q: Blob, k: Blob, v: Blob, options: _Options
) -> tuple[Blob, Blob, Blob, Blob]:
    """The output [batch, length, units], all keys and values, and their weights."""
    before = 0
    lengths = q.known[2], k.known[2]
    if node.attrs.get("unidirectional", 0) and lengths[0] != lengths[1]:
        raise ConversionError(
            f"unidirectional, of {show(lengths)} queries and keys: their order is not "
            "specified where their numbers differ"
        )
    if options.past is not None:
        before = extent(options.past[0], 2) if node.attrs.get("unidirectional", 0) else 0
        k, v = (
            joined(context, [old, new], 2) for old, new in zip(options.past, (k, v), strict=True)
        )
    scale = node.attrs.get("scale", 0.0) or 1 / math.sqrt(extent(q, 3))
    scores = product(context, affine(context, q, scale), k, transpose_y=True)
    filler = node.attrs.get("mask_filter_value", _MASKED)
    if options.mask is not None:
        scores = context.add(scores, _added(context, scores, options.mask, filler))
    if node.attrs.get("unidirectional", 0):
        scores = _causal(context, scores, before)
    if options.bias is not None:
        scores = context.add(scores, as_blob(context, options.bias))
    weighted = context.layer("softmaxND", scores, axis=-1)
    mixed = context.transpose(product(context, weighted, v), (0, 2, 1, 3))
    return heads_joined(context, mixed), k, v, weighted


def _causal(context: Lowering, scores: Blob, before: int) -> Blob:
    """Ignores keys that come later than the query."""
    ones = context.layer("fillLike", scores, value=1.0)
    later = context.layer("upperTriangular", ones, k=before + 1)
    least = context.constant([-FLOAT_MAX])
    return context.where(later, least, scores)


def _added(context: Lowering, scores: Blob, mask: Operand, filler: float) -> Blob:
    """What a mask adds to scores [batch, heads, length, keys]: 0 or a large negative number.

    A mask is [batch, keys], [batch, length, keys], or the number of keys that count, [batch],
    perhaps followed by the index of the first that counts.
    """
    rank = mask.array.ndim if isinstance(mask, Constant) else mask.rank
    if rank == 4:
        raise ConversionError("a mask of four axes: onnxruntime does not take it, either")
    if rank == 1:
        return _by_lengths(context, scores, as_blob(context, mask), filler)
    output = (
        context.constant(mask.array > 0)
        if isinstance(mask, Constant)
        else context.emit("greaterThan", mask, alpha=0.0)
    )
    axes = (1, 2) if rank == 2 else (1,)
    return context.expand(affine(context, output, -filler, filler), *axes)


def _by_lengths(context: Lowering, scores: Blob, counts: Blob, filler: float) -> Blob:
    batch, count = scores.known[0], counts.known[0]
    if batch is None or count is None:  # a number for each sentence; others do not fit
        last = sliced(context, scores, [-1] * 3, [2**31 - 1] * 3, [1, 2, 3], None)
        each = context.layer("squeeze", last, axes=(1, 2, 3))
        counts, count = context.layer("reshapeLike", counts, each), batch
    elif count in (batch, 2 * batch):
        use(scores, [0])
        use(counts, [0])
    else:
        raise ConversionError(f"a mask of {count} numbers for {batch} sentences")
    places = numbered(context, scores, 3)
    ends = counts if count == batch else sliced(context, counts, [0], [batch], [0], None)
    left_out = context.emit("greaterEqual", places, context.expand(ends, 1))
    if count != batch:
        starts = sliced(context, counts, [batch], [count], [0], None)
        early = context.emit("lessThan", places, context.expand(starts, 1))
        left_out = context.emit("logicalOr", left_out, early)
    return context.expand(affine(context, left_out, filler), 1, 2)
