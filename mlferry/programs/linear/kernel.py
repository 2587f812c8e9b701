"""Products with matrices, and attention."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mlferry.compiled import packs
from mlferry.numerics import products
from mlferry.numerics.functions import softmax_along
from mlferry.programs.kernels import Array, Call, kernel

if TYPE_CHECKING:
    from mlferry.compiled.products import PackedProduct


@kernel("linear", columns=("weight",))
def linear(call: Call, x: Array, weight: Array, bias: Array | None) -> Array:
    if {"weight", "bias"} <= call.stays and weight.dtype == x.dtype and packs(x, weight.size):
        product = packed_product(call, weight, bias)
        return product(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], len(weight))
    y = products.matmul(x, weight.T)
    return y if bias is None else y + bias


def packed_product(call: Call, weight: Array, bias: Array | None) -> PackedProduct:
    """Weights [outputs, inputs] and a bias that stay, as compiled products take them."""
    from mlferry.compiled.products import PackedProduct

    return call.once("product", lambda: PackedProduct.of(weight.T, bias))


@kernel("matmul")
def matmul(call: Call, x: Array, y: Array, transpose_x: bool, transpose_y: bool) -> Array:
    left = x.swapaxes(-1, -2) if transpose_x and x.ndim > 1 else x
    right = y.swapaxes(-1, -2) if transpose_y and y.ndim > 1 else y
    return products.matmul(left, right)


@kernel("einsum")
def einsum(call: Call, values: list[Array], equation: str) -> Array:
    return np.einsum(equation.replace(" ", ""), *values, optimize=True)


@kernel("scaled_dot_product_attention")
def attention(call: Call, query: Array, key: Array, value: Array, attn_mask: Array | None) -> Array:
    """A boolean mask excludes what is false; any other mask is added."""
    scores = products.matmul(query, key.swapaxes(-1, -2)) / np.float32(math.sqrt(query.shape[-1]))
    if attn_mask is not None and attn_mask.dtype == np.bool_:
        scores = np.where(attn_mask, scores, np.float32(-np.inf))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return products.matmul(softmax_along(scores, -1), value)
