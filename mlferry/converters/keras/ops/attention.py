"""Attention: scores of queries and keys are masked, turned into weights, and applied to values.

Masks hold 1 where a place counts. A row of scores that is fully masked gets what Keras gives it in
its two implementations: equal weights, or weights of 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.keras import masks
from mlferry.converters.keras.calls import SIGNATURES, Ref, call_of
from mlferry.converters.keras.ops.functions import function
from mlferry.converters.keras.ops.linear import projected
from mlferry.converters.keras.ops.registry import bound, choice, op, weight
from mlferry.converters.keras.quantization import matrix
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import affine, extent, shaped
from mlferry.converters.values import SOURCE, Argument, Blob, Results, blob_of
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array, product

_SMALLEST = -1e9
_Mask = Blob | None


def _both(context: Lowering, masks: Sequence[_Mask]) -> _Mask:
    """One mask that is 1 where all masks are 1."""
    output: _Mask = None
    for mask in masks:
        if mask is not None:
            output = mask if output is None else context.multiply(output, mask)
    return output


def _truth(context: Lowering, mask: Argument | None) -> _Mask:
    """A mask given in the call; every value but 0 counts."""
    if mask is None:
        return None
    if not isinstance(mask, Blob):
        return context.constant(np.asarray(mask) != 0, layout=SOURCE)
    return context.emit("notEqual", context.source_order(mask), alpha=0.0)


def _triangle(context: Lowering, queries: int, keys: int, window: int | None = None) -> Blob:
    """[1, queries, keys]: no query sees a later key, or one too far away."""
    rows, columns = np.arange(queries)[:, None], np.arange(keys)[None]
    seen = rows >= columns if window is None else np.abs(rows - columns) < int(window)
    return context.constant(seen[None].astype(np.float32), layout=SOURCE)


# ---- Attention and AdditiveAttention ---------------------------------------------------


def _of_lists(
    context: Lowering, node: Node, inputs: Sequence[Blob]
) -> tuple[list[Blob], list[_Mask]]:
    """[query, value, key] and the masks of query and value."""
    arguments = bound(node, inputs, SIGNATURES["Attention"])
    result = arguments["inputs"]
    if not isinstance(result, list | tuple) or not 2 <= len(result) <= 3:
        raise ConversionError("an attention takes a list of query, value and perhaps key")
    if arguments.get("mask") is not None:
        raise ConversionError("a mask that is not a tensor of the model")
    tracked = masks.of(context, node)[: len(result)]
    query, value = result[:2]
    key = result[2] if len(result) > 2 else value
    causal = arguments.get("use_causal_mask") or node.attrs.get("causal", False)
    value_mask = tracked[1]
    if value_mask is not None:
        value_mask = context.expand(value_mask, 1)
    if causal:
        corner = _triangle(context, extent(query, 1), extent(key, 1))
        value_mask = _both(context, [value_mask, corner])
    return [query, value, key], [tracked[0], value_mask]


def _attended(
    context: Lowering, node: Node, scores: Blob, value: Blob, masks: Sequence[_Mask]
) -> tuple[Blob, ...]:
    query_mask, mask = masks
    if mask is not None:
        # masked places have no weight, unless all places of a row are masked
        lowered = affine(context, mask, -_SMALLEST, _SMALLEST)
        scores = context.layer("addBroadcastable", scores, lowered)
    weights = context.layer("softmaxND", scores, axis=-1)
    output = context.layer("batchedMatmul", weights, value)
    if query_mask is not None:
        output = context.layer("multiplyBroadcastable", output, context.expand(query_mask, 2))
    return (output, weights)


def _sums(context: Lowering, query: Blob, key: Blob) -> Blob:
    """tanh(query + key), [batch, queries, keys, values]."""
    rows, columns = context.expand(query, 2), context.expand(key, 1)
    return context.layer("activation", context.layer("addBroadcastable", rows, columns), tanh={})


@op("Attention", layouts=(SOURCE,))
def attention(context: Lowering, node: Node, *inputs: Blob) -> tuple[Blob, ...]:
    """Scores are products, or sums of tanh with a weight."""
    (query, value, key), masks = _of_lists(context, node, inputs)
    scale = float(weight(node, "scale")) if node.attrs.get("use_scale", False) else None
    if choice(node, "score_mode", ("dot", "concat"), "dot") == "dot":
        scores = context.layer("batchedMatmul", query, key, transposeB=True)
        scores = scores if scale is None else affine(context, scores, scale)
    else:
        if scale is not None:
            query, key = affine(context, query, scale), affine(context, key, scale)
        total = context.layer("reduceSum", _sums(context, query, key), axes=(3,), keepDims=False)
        scores = affine(context, total, float(weight(node, "concat_score_weight")))
    return _attended(context, node, scores, value, masks)


@op("AdditiveAttention", layouts=(SOURCE,))
def additive_attention(context: Lowering, node: Node, *inputs: Blob) -> tuple[Blob, ...]:
    """Scores are sums of tanh, each value with a weight."""
    (query, value, key), masks = _of_lists(context, node, inputs)
    node.attrs.get("score_mode")
    output = _sums(context, query, key)
    if node.attrs.get("use_scale", True):
        scale = context.constant(weight(node, "scale", None))
        output = context.layer("multiplyBroadcastable", output, scale)
    scores = context.layer("reduceSum", output, axes=(3,), keepDims=False)
    return _attended(context, node, scores, value, masks)


# ---- several heads ---------------------------------------------------------------------


def attend(
    context: Lowering,
    query: Blob,
    key: Blob,
    value: Blob,
    mask: _Mask,
    scale: float,
    *,
    zero: bool = False,
    bias: _Mask = None,
    cap: float | None = None,
) -> tuple[Blob, Blob]:
    """The values [batch, queries, heads, size] and the weights [batch, heads, queries, keys].

    Args:
        query: [batch, queries, heads, size]; key and value likewise, with their own length.
        mask: broadcasts with the weights; 1 where a place counts.
        scale: what scores are multiplied by.
        zero: whether masked places have no weight where a whole row is masked.
        bias: added to the scores.
        cap: scores are kept within, by tanh.
    """
    rows, columns, values = (context.transpose(x, (0, 2, 1, 3)) for x in (query, key, value))
    scores = context.matmul(rows, columns, transpose_y=True)
    scores = affine(context, scores, scale)
    if cap is not None:
        flat = context.emit("activation", affine(context, scores, 1 / cap), tanh={})
        scores = affine(context, flat, cap)
    if bias is not None:
        scores = context.add(scores, bias)
    if mask is not None:
        lowest = context.constant([_SMALLEST], layout=SOURCE)
        scores = context.where(mask, scores, lowest)
    weights = context.layer("softmaxND", scores, layout=SOURCE, axis=-1)
    if mask is not None and zero:
        weights = context.multiply(weights, mask)
    output = context.matmul(weights, values)
    return context.transpose(output, (0, 2, 1, 3)), weights


def _mask_of_heads(
    context: Lowering, node: Node, arguments: dict[str, Any], tracked: dict[str, _Mask]
) -> _Mask:
    """All masks together, [batch, 1 or heads, queries, keys]."""
    query, value = arguments["query"], arguments["value"]
    results: list[_Mask] = []
    for name, axis in (("query", 2), ("value", 1), ("key", 1)):
        explicit = arguments.get(f"{name}_mask")
        mask = tracked.get(name) if explicit is None else _truth(context, explicit)
        results.append(None if mask is None else context.expand(mask, axis))
    window = node.attrs.get("sliding_window")
    if arguments.get("use_causal_mask"):
        results.append(_triangle(context, extent(query, 1), extent(value, 1)))
    if window is not None:
        results.append(_triangle(context, extent(query, 1), extent(value, 1), window))
    explicit = _truth(context, arguments.get("attention_mask"))
    if explicit is not None and explicit.rank == 4:
        automatic = _both(context, results)
        wide = None if automatic is None else context.expand(automatic, 1)
        return _both(context, [explicit, wide])
    output = _both(context, [*results, explicit])
    if output is None:
        return None
    return context.expand(output, *((0, 1) if output.rank == 2 else (1,)))


def _tracked(context: Lowering, node: Node) -> dict[str, _Mask]:
    """The masks of the inputs, by the names of the arguments."""
    blobs = masks.of(context, node)
    call = call_of(node)
    arguments = {"query": call.args[0], **call.kwargs}
    return {
        name: blobs[arguments[name].index]
        for name in ("query", "value", "key")
        if isinstance(arguments.get(name), Ref)
    }


def _heads(
    context: Lowering, node: Node, x: Blob, key: str, heads: int, size: int, *, gate: bool = False
) -> Blob:
    """[batch, length, heads, size] of [batch, length, values]."""
    part = node.parts[f"{key}_dense"]
    weights = matrix(part, extent(x, -1), heads * size)
    bias = weight(part, "bias", heads, size) if part.attrs.get("bias_axes") else None
    output = projected(context, x, part, weights, bias)
    if gate:
        output = context.emit("activation", output, sigmoid={})
    return context.reshape(output, (*x.known[:2], heads, size), layout=SOURCE)


def _joined(context: Lowering, node: Node, x: Blob) -> Blob:
    """[batch, length, ...] of [batch, length, heads, size]."""
    part = node.parts["output_dense"]
    rows = extent(x, 2) * extent(x, 3)
    columns = _columns(part, rows)
    bias = weight(part, "bias", *columns) if part.attrs.get("bias_axes") else None
    flat = context.reshape(x, (*x.known[:2], rows), layout=SOURCE)
    output = projected(context, flat, part, matrix(part, rows, math.prod(columns)), bias)
    if len(columns) == 1:
        return output
    return context.reshape(output, (*x.known[:2], *columns), layout=SOURCE)


def _columns(part: Node, rows: int) -> tuple[int, ...]:
    """The shape of an output's values, from the kernel, or the bias if the kernel is packed."""
    kernel = part.weights.get("kernel")
    if kernel is not None and kernel.ndim > 2:
        return tuple(kernel.shape[2:])
    if "bias" in part.weights:
        return tuple(part.weights["bias"].shape)
    return (part.weight("kernel_scale").shape[-1],)


def _finished(
    context: Lowering,
    node: Node,
    arguments: dict[str, Any],
    sizes: tuple[int, int, int],
    values: int,
) -> Blob | tuple[Blob, Blob]:
    """What both multi-head layers share."""
    heads, groups, size = sizes
    shows = bool(arguments.get("return_attention_scores"))
    plain = context.graph.version >= 3 and not shows and not node.get_config().get("dropout")
    query = _heads(context, node, arguments["query"], "query", heads, size)
    key = _heads(context, node, arguments["key"], "key", groups, size)
    value = _heads(context, node, arguments["value"], "value", groups, values)
    if groups != heads:
        order = context.constant(np.repeat(np.arange(groups), heads // groups), layout=SOURCE)
        key, value = (context.gather(x, order, 2) for x in (key, value))
    zero = not plain and context.graph.version >= 3
    output, weights = attend(
        context, query, key, value, arguments["mask"], 1 / math.sqrt(size), zero=zero
    )
    if node.attrs.get("use_gate", False):
        gate = _heads(context, node, arguments["query"], "gate", heads, values, gate=True)
        output = context.layer("multiply", output, gate, layout=SOURCE)
    result = _joined(context, node, output)
    return (result, weights) if shows else result


@op("MultiHeadAttention", layouts=(SOURCE,))
def multi_head_attention(context: Lowering, node: Node, *inputs: Blob) -> Results:
    """Attends over all axes between batch and values, or over the last of them."""
    arguments = bound(node, inputs, SIGNATURES[node.op])
    arguments.setdefault("key", arguments["value"])
    heads, size = int(node.attrs["num_heads"]), int(node.attrs["key_dim"])
    values = int(node.attrs.get("value_dim") or size)
    for name in ("output_shape", "query_shape", "key_shape", "value_shape", "use_bias"):
        node.attrs.get(name)
    axes = node.attrs.get("attention_axes")
    inner = arguments["query"].rank - 2
    axes = (
        list(range(1, inner + 1))
        if axes is None
        else [a % (inner + 2) for a in np.atleast_1d(axes).tolist()]
    )
    if inner == 1:
        tracked = _tracked(context, node)
        arguments["mask"] = _mask_of_heads(context, node, arguments, tracked)
        return _finished(context, node, arguments, (heads, heads, size), values)
    parts = [name for name in arguments if name.endswith("_mask") and arguments[name] is not False]
    if parts or axes != list(range(inner + 1 - len(axes), inner + 1)):
        raise ConversionError(
            f"attention over axes {axes} of {inner + 2}, masks {parts}: the last axes without "
            "masks can be converted"
        )
    if arguments.get("return_attention_scores"):
        raise ConversionError("return_attention_scores of more than one axis of attention")
    masks.of(context, node)
    node.attrs.get("sliding_window")
    shape = arguments["query"].known
    outer = inner - len(axes)
    for name in ("query", "key", "value"):
        x = arguments[name]
        batch, length = product(x.known[: 1 + outer]), product(x.known[1 + outer : -1])
        arguments[name] = shaped(context, x, (batch, length, x.known[-1]))
    arguments["mask"] = None
    output = blob_of(_finished(context, node, arguments, (heads, heads, size), values))
    return shaped(context, output, (*shape[:-1], *output.known[2:]))


@op("GroupedQueryAttention", layouts=(SOURCE,))
def grouped_query_attention(context: Lowering, node: Node, *inputs: Blob) -> Results:
    """Several query heads share one head of keys and values."""
    arguments = bound(node, inputs, SIGNATURES[node.op])
    arguments.setdefault("key", arguments["value"])
    node.attrs.get("use_bias")
    size = int(node.attrs["head_dim"])
    heads, groups = (int(node.attrs[f"num_{name}_heads"]) for name in ("query", "key_value"))
    arguments["mask"] = _mask_of_heads(context, node, arguments, _tracked(context, node))
    return _finished(context, node, arguments, (heads, groups, size), size)


@function("DotProductAttention")
def dot_product_attention(
    context: Lowering,
    node: Node,
    query: Blob,
    key: Blob,
    value: Blob,
    bias: Blob | None = None,
    mask: Argument | None = None,
    scale: Array | None = None,
    is_causal: bool = False,
    attn_logits_soft_cap: float | None = None,
) -> Blob:
    size = extent(query, 3)
    result = _truth(context, mask)
    if is_causal:
        corner = context.expand(_triangle(context, extent(query, 1), extent(key, 1)), 1)
        result = _both(context, [result, corner])
    factor = 1 / math.sqrt(size) if scale is None else float(scale)
    cap = None if attn_logits_soft_cap is None else float(attn_logits_soft_cap)
    return attend(context, query, key, value, result, factor, bias=bias, cap=cap)[0]
