"""Matrix products, dot products and embeddings, against loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlferry.spec import weights
from mlferry.spec.proto import neural_network_pb2 as nn
from tests.layers.case import Case, classic, exact
from tests.layers.naive import Array, values

W, B = values(4, 6, seed=1), values(4, seed=2)


def dense(rows: Array, matrix: Array, bias: Array | None = None) -> Array:
    """Each row times the transposed matrix, one product at a time."""
    y = np.zeros((len(rows), len(matrix)))
    for i, j in np.ndindex(y.shape):
        y[i, j] = math.fsum(float(a) * float(b) for a, b in zip(rows[i], matrix[j], strict=True))
        y[i, j] += 0 if bias is None else bias[j]
    return y


def inner(shape: tuple[int, ...], out: tuple[int, ...], bias: bool) -> tuple[Any, ...]:
    x = values(*shape)
    params: dict[str, Any] = {"inputChannels": 6, "outputChannels": 4, "weights": W}
    params |= {"hasBias": True, "bias": B} if bias else {}
    return params, [x], dense(x.reshape(-1, 6), W, B if bias else None).reshape(out)


def int8(array: Array) -> tuple[nn.WeightParams, Array]:
    """A weight for dynamic quantization, and the values that it stands for."""
    scale = float(np.abs(array).max()) / 127
    whole = np.array([[round(float(v) / scale) for v in row] for row in array])
    message = nn.WeightParams(int8RawValue=whole.astype(np.int8).tobytes())
    message.quantization.numberOfBits = 8
    message.quantization.linearQuantization.scale.append(scale)
    return message, whole * np.float32(scale)


def quantized(x: Array) -> Array:
    scale = float(np.abs(x).max()) / 127
    return np.vectorize(lambda v: round(float(v) / scale) * scale)(x)


def dynamic() -> list[Case]:
    x = values(2, 6)
    result = []
    message, real = int8(W)
    params = {"inputChannels": 6, "outputChannels": 4, "int8DynamicQuantize": True}
    result.append(
        exact("innerProduct", {**params, "weights": message}, [x], dense(quantized(x), real))
    )
    params = {
        "weightMatrixFirstDimension": 6, "weightMatrixSecondDimension": 4,
        "int8DynamicQuantize": True,
    }  # fmt: skip
    result.append(
        exact("batchedMatmul", {**params, "weights": message}, [x], dense(quantized(x), real))
    )
    result.append(
        exact("innerProduct", {**params_of_inner(), "weights": message}, [x * 0], 0 * x[:, :4])
    )
    return result


def params_of_inner() -> dict[str, Any]:
    return {"inputChannels": 6, "outputChannels": 4, "int8DynamicQuantize": True}


def lut() -> list[Case]:
    message, table = nn.WeightParams(), np.linspace(-1, 1, 8)
    indices = np.random.default_rng(1).integers(0, 8, (4, 6))
    weights.write_lut(message, indices, 3, table)
    x = values(2, 6, 1, 1)
    params = {"inputChannels": 6, "outputChannels": 4, "weights": message}
    y = dense(x.reshape(2, 6), table[indices]).reshape(2, 4, 1, 1)
    return classic("innerProduct", params, [x], y)


TABLE, EMBEDDED_BIAS = values(3, 5, seed=3), values(3, seed=4)


def embedded(indices: list[int], bias: bool = False) -> Array:
    return np.array(
        [[TABLE[c, i] + (EMBEDDED_BIAS[c] if bias else 0) for c in range(3)] for i in indices]
    )


def products(a: Array, b: Array) -> Array:
    """Batches of matrices of the same rank."""
    outer = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    left = np.broadcast_to(a, (*outer, *a.shape[-2:]))
    right = np.broadcast_to(b, (*outer, *b.shape[-2:]))
    y = np.zeros((*outer, a.shape[-2], b.shape[-1]))
    for place in np.ndindex(y.shape):
        *batch, i, j = place
        y[place] = sum(
            float(left[(*batch, i, k)]) * float(right[(*batch, k, j)]) for k in range(a.shape[-1])
        )
    return y


M, N, V = values(2, 1, 3, 4), values(5, 4, 2, seed=1), values(4, seed=2)
P, Q = values(2, 3, 1, 1), values(2, 3, 1, 1, seed=1)
TINY = np.zeros((2, 3, 1, 1))
DOTS = [
    sum(float(a) * float(b) for a, b in zip(P[i, :, 0, 0], Q[i, :, 0, 0], strict=True))
    for i in (0, 1)
]
NORMS = [
    math.sqrt(sum(float(v) ** 2 for v in P[i].ravel()))
    * math.sqrt(sum(float(v) ** 2 for v in Q[i].ravel()))
    for i in (0, 1)
]

CASES: list[Case] = [
    *classic("innerProduct", *inner((2, 6, 1, 1), (2, 4, 1, 1), True)),
    *classic("innerProduct", *inner((2, 3, 2, 1), (2, 4, 1, 1), False)),
    exact("innerProduct", *inner((6,), (4,), True)),
    exact("innerProduct", *inner((3, 6), (3, 4), False)),
    exact("innerProduct", *inner((2, 3, 6), (2, 3, 4), True)),
    exact("innerProduct", *inner((2, 3, 1, 2, 3), (2, 3, 4, 1, 1), True)),
    *dynamic(),
    *lut(),
    *classic(
        "embedding",
        {"inputDim": 5, "outputChannels": 3, "weights": TABLE},
        [np.reshape([4, 0, 2], (3, 1, 1, 1))],
        embedded([4, 0, 2]).reshape(3, 3, 1, 1),
    ),
    *classic(
        "embedding",
        {
            "inputDim": 5,
            "outputChannels": 3,
            "weights": TABLE,
            "hasBias": True,
            "bias": EMBEDDED_BIAS,
        },
        [np.reshape([1, 1], (2, 1, 1, 1))],
        embedded([1, 1], True).reshape(2, 3, 1, 1),
    ),
    exact(
        "embeddingND",
        {"vocabSize": 5, "embeddingSize": 3, "weights": TABLE},
        [[[4], [0]]],
        embedded([4, 0]),
    ),
    exact(
        "embeddingND",
        {
            "vocabSize": 5,
            "embeddingSize": 3,
            "weights": TABLE.astype(np.float16),
            "hasBias": True,
            "bias": EMBEDDED_BIAS.astype(np.float16),
        },
        [np.reshape([4, 0, 1, 2], (2, 2, 1))],
        embedded([4, 0, 1, 2], True).reshape(2, 2, 3),
        tolerance=5e-3,
    ),
    exact("batchedMatmul", {}, [M, N], products(M, N)),
    exact("batchedMatmul", {"transposeA": True}, [M.swapaxes(2, 3), N], products(M, N)),
    exact("batchedMatmul", {"transposeB": True}, [M, N.swapaxes(1, 2)], products(M, N)),
    exact("batchedMatmul", {}, [V, V], [[sum(float(v) ** 2 for v in V)]]),
    exact("batchedMatmul", {}, [M, V], products(M, V[:, None])),
    exact("batchedMatmul", {}, [V, N], products(V[None], N)),
    *(
        exact(
            "batchedMatmul",
            {
                "weightMatrixFirstDimension": 6,
                "weightMatrixSecondDimension": 4,
                "weights": W,
                "hasBias": True,
                "bias": B,
            },
            [values(*shape)],
            dense(values(*shape).reshape(-1, 6), W, B).reshape(*shape[:-1], 4),
        )
        for shape in ((6,), (3, 6), (2, 3, 6), (2, 1, 3, 6))
    ),
    *classic("dot", {}, [P, Q], np.reshape(DOTS, (2, 1, 1, 1))),
    *classic(
        "dot",
        {"cosineSimilarity": True},
        [P, Q],
        np.reshape([d / n for d, n in zip(DOTS, NORMS, strict=True)], (2, 1, 1, 1)),
    ),
    *classic("dot", {"cosineSimilarity": True}, [P, TINY], np.zeros((2, 1, 1, 1))),
]
