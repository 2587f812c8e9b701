"""Attention of a query to keys and values, which is one operation from CoreML8 on."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mlferry.programs.builder import covers
from mlferry.programs.graph import Operation, Value, constant
from mlferry.programs.passes.rewriting import Rewriter, array_at, known_at, matches, value_at

ATTENTION = 8  # the opset that brought the op


def attention(rewriter: Rewriter, operation: Operation) -> bool:
    """softmax(q k^T scale + mask) v is `scaled_dot_product_attention`, from CoreML8 on."""
    if operation.op != "softmax" or rewriter.opset < ATTENTION:
        return False
    scores, chances = value_at(operation, "x"), operation.outputs[0]
    last = rewriter.follows(operation, "matmul")
    if scores is None or last is None or value_at(last, "x") is not chances:
        return False
    if known_at(operation, "axis", -1) % scores.rank != scores.rank - 1:
        return False
    if known_at(last, "transpose_x", False) or known_at(last, "transpose_y", False):
        return False
    product = _scaled_product(scores)
    value = value_at(last, "y")
    if product is None or value is None or value.rank != product.query.rank:
        return False
    query, key, mask = product.query, product.key, product.mask
    width = query.shape[-1]
    leads = {each.shape[:-2] for each in (query, key, value)}
    if width is None or len(leads) != 1 or None in query.shape[:-2]:
        return False
    rest = product.factor * math.sqrt(width)
    if not matches(rest, 1):
        query = rewriter.before(last, "mul", x=query, y=constant(np.float32(rest), "fp32"))
    rewriter.set(
        last, "scaled_dot_product_attention", query=query, key=key, value=value, attn_mask=mask
    )
    return True


class _Scores(NamedTuple):
    """query key^T factor + mask."""

    query: Value
    key: Value
    factor: float
    mask: Value | None


def _scaled_product(scores: Value) -> _Scores | None:
    mask, factor, product = None, 1.0, scores.maker
    if product is not None and product.op == "select":
        mask, inner = _where_seen(product)
        if inner is None or not _is_scores(inner):
            return None
        product = inner.maker
    elif product is not None and product.op == "add":
        one, two = value_at(product, "x"), value_at(product, "y")
        inner, mask = (one, two) if _is_scores(one) else (two, one)
        product = None if inner is None else inner.maker
    if product is not None and product.op in ("mul", "real_div"):
        by, inner = known_at(product, "y"), value_at(product, "x")
        if not isinstance(by, float) or inner is None:
            return None
        if by == 0:
            return None
        factor, product = (by if product.op == "mul" else 1 / by), inner.maker
    if product is None or product.op != "matmul" or known_at(product, "transpose_x", False):
        return None
    query, key = value_at(product, "x"), value_at(product, "y")
    if query is None or key is None or not 3 <= query.rank == key.rank:
        return None
    if not known_at(product, "transpose_y", False):
        return None
    shape = (*query.shape[:-1], key.shape[-2])
    if mask is not None and (mask.dtype not in ("fp32", "bool") or not covers(shape, mask.shape)):
        return None
    return _Scores(query, key, factor, mask)


_UNSEEN = -1e4  # scores up to this take no part


def _where_seen(operation: Operation) -> tuple[Value | None, Value | None]:
    """A constant mask of what is visible, and the scores; every row has something visible."""
    mask, scores = value_at(operation, "cond"), value_at(operation, "a")
    hidden = array_at(operation, "b")
    if mask is None or not mask.is_constant or mask.rank < 2 or hidden is None:
        return None, None
    if hidden.size != 1 or hidden.max() > _UNSEEN or not mask.constant.any(axis=-1).all():
        return None, None
    return mask, scores


def _is_scores(value: Value | None) -> bool:
    """Whether a value is a product of matrices, scaled or not."""
    if value is None or value.maker is None:
        return False
    maker = value.maker
    if maker.op in ("mul", "real_div"):
        inner = value_at(maker, "x")
        maker = inner.maker if inner is not None and inner.maker is not None else maker
    return maker.op == "matmul"
