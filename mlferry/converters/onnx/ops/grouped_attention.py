"""onnxruntime's attention with shared heads, whose cache of keys and values may be quantized."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mlferry.converters.elementwise import FLOAT_MAX
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.attention import Rotation, earlier_keys, numbered, split_heads
from mlferry.converters.onnx.ops.linear import product
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import affine, as_blob, extent, joined, shaped
from mlferry.converters.reshapes import heads_joined
from mlferry.converters.sizes import use
from mlferry.converters.slices import sliced
from mlferry.converters.values import Blob, Constant, Operand, Results
from mlferry.errors import ConversionError

_SCORES_BEFORE_SOFTMAX, _SCORES_AFTER_SOFTMAX = 1, 2


@op("com.microsoft.GroupQueryAttention", raw=True)
def group_query_attention(
    context: Lowering, node: Node, query: Operand, *rest: Operand | None
) -> Results:
    """Causal attention, in which several heads of queries share one of keys and values.

    New keys and values follow the earlier ones of each sentence, whose number is `seqlens_k` + 1
    minus that of the new ones. A quantized cache holds codes; attention uses the values that the
    codes stand for, even for new keys and values.
    """
    operands = (*rest, *[None] * 13)[:13]
    key, value, past_key, past_value, ends, _, cosines, sines, positions, bias, sink = operands[:11]
    caches = _caches(context, node, operands[11:])
    heads, shared = node.attrs["num_heads"], node.attrs["kv_num_heads"]
    query, key, value = as_blob(context, query), as_blob(context, key), as_blob(context, value)
    if key is None:
        units = extent(query, 2) // (heads + 2 * shared)
        widths = [heads * units, shared * units, shared * units]
        query, key, value = context.split(query, widths, 2)
    elif value is None:
        raise ConversionError("GroupQueryAttention with keys, but without values")
    q, k, v = (
        split_heads(context, x, n)
        for x, n in zip((query, key, value), (heads, shared, shared), strict=True)
    )
    earlier = earlier_keys(context, past_key, past_value)
    before = None if earlier is None else _before(context, q, earlier[0], ends)
    if node.attrs.get("do_rotary", 0):
        places = _numbers_after(context, q, before) if positions is None else positions
        interleaved = bool(node.attrs.get("rotary_interleaved", 0))
        if cosines is None or sines is None:
            raise ConversionError("do_rotary without cos_cache and sin_cache")
        rotation = Rotation(cosines, sines, interleaved)
        q, k = (rotation.of(context, x, places) for x in (q, k))
    node.attrs.get("rotary_interleaved")
    stored = [cache.encoded(context, x) for cache, x in zip(caches, (k, v), strict=True)]
    if earlier is not None and before is not None:
        stored = [
            _following(context, old, new, before, ends)
            for old, new in zip(earlier, stored, strict=True)
        ]
    k, v = (cache.decoded(context, x) for cache, x in zip(caches, stored, strict=True))
    output, scores = _grouped(context, node, (q, k, v), heads // shared, before, bias, sink)
    if scores is None and len(node.outputs) > 3 and node.outputs[3].name:
        raise ConversionError(
            f"its scores are an output, and qk_output={node.attrs.get('qk_output', 0)}: 1 gives "
            "those before the softmax, 2 those after it"
        )
    return (output, *stored, scores)[: len(node.outputs)]


# ---- caches ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cache:
    """How keys or values are stored: as they are, or as codes that are multiples of a scale.

    Attributes:
        bits: 8 or 4 for codes, None for values as they are. Two codes of 4 bits share a byte, the
            first in the lower half; 8 is added to each.
        scale: broadcasts against [batch, heads, length, units].
    """

    bits: int | None = None
    scale: Blob | None = None

    def encoded(self, context: Lowering, x: Blob) -> Blob:
        """Values [batch, heads, length, units] as they are stored."""
        if self.scale is None or self.bits is None:
            return x
        steps = context.emit("round", context.divide(x, self.scale))
        end = 2.0 ** (self.bits - 1)
        codes = context.emit("clip", steps, minVal=-end, maxVal=end - 1)
        if self.bits == _WHOLE_BYTES:
            return codes
        size = extent(x, 3)
        if size % 2:
            raise ConversionError(f"a cache of 4 bits, two in a byte, for heads of {size} units")
        halves = [context.gather(codes, context.constant(np.arange(k, size, 2)), 3) for k in (0, 1)]
        low, high = affine(context, halves[0], 1.0, end), affine(context, halves[1], 16.0, 16 * end)
        return context.add(low, high)

    def decoded(self, context: Lowering, stored: Blob) -> Blob:
        """The values that stored ones stand for."""
        if self.scale is None or self.bits is None:
            return stored
        codes = stored if self.bits == _WHOLE_BYTES else _halves_of_bytes(context, stored)
        return context.multiply(codes, self.scale)


_WHOLE_BYTES = 8


def _halves_of_bytes(context: Lowering, stored: Blob) -> Blob:
    """[..., units / 2] bytes as [..., units] numbers from -8 to 7."""
    size = extent(stored, 3)
    high = context.emit("floor", affine(context, stored, 1 / 16))
    low = context.subtract(stored, affine(context, high, 16.0))
    both = affine(context, joined(context, [low, high], 3), 1.0, -8.0)
    order = np.arange(2 * size).reshape(2, size).T.ravel()
    return context.gather(both, context.constant(order), 3)


def _caches(
    context: Lowering, node: Node, scales: tuple[Operand | None, ...]
) -> tuple[_Cache, _Cache]:
    """How keys and values are stored."""
    bits = node.attrs.get("kv_cache_bit_width", 0)
    shared = node.attrs["kv_num_heads"]

    def cache(letter: str, scale: Operand | None) -> _Cache:
        kind = node.attrs.get(f"{letter}_quant_type", "NONE")
        if kind == "NONE":
            return _Cache()
        if kind not in ("PER_TENSOR", "PER_CHANNEL") or bits not in (4, _WHOLE_BYTES):
            raise ConversionError(
                f"{letter}_quant_type={kind!r} with kv_cache_bit_width={bits}: PER_TENSOR and "
                "PER_CHANNEL with 8 or 4 bits are converted"
            )
        if scale is None:
            raise ConversionError(f"{letter}_quant_type={kind!r} without {letter}_scale")
        blob = as_blob(context, scale)
        shape = (1, 1, 1, 1) if kind == "PER_TENSOR" else (1, shared, 1, -1)
        return _Cache(bits, shaped(context, blob, shape))

    keys, values = (cache(letter, scale) for letter, scale in zip("kv", scales, strict=True))
    return keys, values


# ---- attention -------------------------------------------------------------------------


def _size(context: Lowering, x: Blob, axis: int) -> Blob:
    """An extent as a blob of one element."""
    if x.known[axis] is not None:
        return context.constant([float(extent(x, axis))])
    shape = context.layer("getShape", x)
    return sliced(context, shape, [axis], [axis + 1], None, None)


def _before(context: Lowering, q: Blob, past: Blob, ends: Operand | None) -> Blob:
    """The number of earlier keys of each sentence, [batch] or [1]."""
    if ends is None:
        raise ConversionError("past keys and values without seqlens_k")
    if not isinstance(ends, Constant):
        new = affine(context, _size(context, q, 2), -1.0, 1.0)
        return context.add(as_blob(context, ends), new)
    length, count = past.known[2], q.known[2]
    if length is not None and count is not None:
        use(past, [2])
        use(q, [2])
        lengths = ends.array.ravel().tolist()
        if set(lengths) != {length + count - 1}:
            raise ConversionError(
                f"seqlens_k={lengths} for {length} earlier and {count} new keys: where caches are "
                "not full, make seqlens_k an input of the model"
            )
    return _size(context, past, 2)


def _numbers_after(context: Lowering, q: Blob, before: Blob | None) -> Blob:
    """The positions of the queries, [batch or 1, length]."""
    numbers = context.expand(numbered(context, q, 2), 0)
    if before is None:
        return numbers
    return context.add(context.expand(before, 1), numbers)


def _following(
    context: Lowering, past: Blob, new: Blob, before: Blob, ends: Operand | None
) -> Blob:
    """Old and new entries [batch, heads, length, units] without a gap between them."""
    both = joined(context, [past, new], 2)
    if isinstance(ends, Constant):
        return both
    gap = context.subtract(_size(context, past, 2), before)
    places = numbered(context, both, 2)
    last = affine(context, _size(context, both, 2), 1.0, -1.0)
    if both.known[0] != 1:
        places, gap, before = (
            context.expand(places, 0),
            *(context.expand(x, 1) for x in (gap, before)),
        )
    beyond = context.emit("greaterEqual", places, before)
    moved = context.multiply(beyond, gap)
    chosen = context.add(places, moved)
    chosen = context.minimum(chosen, last)
    if both.known[0] == 1:
        return context.gather(both, chosen, 2)
    wide = context.layer("broadcastToLike", context.expand(chosen, 1, 3), both)
    return context.layer("gatherAlongAxis", both, wide, axis=2)


def _grouped(
    context: Lowering,
    node: Node,
    qkv: tuple[Blob, Blob, Blob],
    times: int,
    before: Blob | None,
    bias: Operand | None,
    sink: Operand | None,
) -> tuple[Blob, Blob | None]:
    """The output [batch, length, units], and the scores if the node has them.

    Each head of keys serves `times` heads of queries.
    """
    q, k, v = qkv
    if times > 1:
        which = context.constant(np.repeat(np.arange(extent(k, 1)), times))
        k, v = (context.gather(x, which, 1) for x in (k, v))
    scale = node.attrs.get("scale", 0.0) or 1 / math.sqrt(extent(q, 3))
    scores = product(context, affine(context, q, scale), k, transpose_y=True)
    cap = node.attrs.get("softcap", 0.0)
    if cap:
        soft = context.emit("activation", affine(context, scores, 1 / cap), tanh={})
        scores = affine(context, soft, cap)
    if bias is not None:
        scores = context.add(scores, as_blob(context, bias))
    last = context.expand(_numbers_after(context, q, before), 1, 3)  # [batch, 1, length, 1]
    places = numbered(context, k, 2)
    hidden = context.emit("greaterThan", places, last)
    window = node.attrs.get("local_window_size", -1)
    if window > 0:
        first = affine(context, last, 1.0, 1.0 - window)
        hidden = context.emit("logicalOr", hidden, context.emit("lessThan", places, first))
    least = context.constant([-FLOAT_MAX])
    scores = context.where(hidden, least, scores)
    weights = _weights(context, node, scores, sink)
    mixed = context.transpose(product(context, weights, v), (0, 2, 1, 3))
    asked = node.attrs.get("qk_output", 0)
    shown = {_SCORES_BEFORE_SOFTMAX: scores, _SCORES_AFTER_SOFTMAX: weights}.get(asked)
    return heads_joined(context, mixed), shown


def _weights(context: Lowering, node: Node, scores: Blob, sink: Operand | None) -> Blob:
    """The weights of the keys for each query: a softmax, which may include one more score.

    That score is a head's `head_sink`, or 0 with `smooth_softmax`.
    """
    smooth = node.attrs.get("smooth_softmax", 0)
    if smooth not in (-1, 0, 1):
        raise ConversionError(f"smooth_softmax={smooth}: it is 0 or 1, or -1 for neither")
    is_smooth = smooth == 1
    if sink is None and not is_smooth:
        return context.layer("softmaxND", scores, axis=-1)
    column = affine(context, sliced(context, scores, [0], [1], [3], None), 0.0)
    if sink is not None:
        share = shaped(context, as_blob(context, sink), (1, node.attrs["num_heads"], 1, 1))
        column = context.add(column, share)
    wide = joined(context, [scores, column], 3)
    weights = context.layer("softmaxND", wide, axis=-1)
    return sliced(context, weights, [0], [-1], [3], None)
