"""Planned parts on arrays: the same numbers as layer by layer, whatever the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="Numba is not installed: nothing on arrays is planned")

from mlferry.layers.builder import Builder
from mlferry.runtime.planned.arrays.region import ArrayRegion
from mlferry.runtime.session import Session

STEPS, SIZE = 6, 20
Array = np.ndarray


def normal(*shape: int, seed: int = 17) -> Array:
    return np.random.default_rng((seed, *shape)).normal(0, 0.4, shape).astype(np.float32)


class Network(Builder):
    """A builder whose layers are named by number; every method returns a blob."""

    def __init__(self, shape: tuple[int, ...] = (1, STEPS, SIZE)) -> None:
        super().__init__()
        self.input("x", shape)

    def put(self, kind: str, *inputs: str, **params: Any) -> str:
        name = f"{kind}_{len(self.network.layers)}"
        self.layer(kind, name, inputs, [name], **params)
        return name

    def extent(self, x: str) -> int:
        return (self.shapes[x] or ())[-1] or 0

    def dense(self, x: str, count: int, *, bias: bool = True) -> str:
        inside, place = self.extent(x), len(self.network.layers)
        given = {"hasBias": True, "bias": normal(count, seed=place)} if bias else {}
        return self.put(
            "innerProduct", x, inputChannels=inside, outputChannels=count,
            weights=normal(count, inside, seed=place), **given,
        )  # fmt: skip

    def norm(self, x: str) -> str:
        n = self.extent(x)
        return self.put(
            "layerNormalization", x, normalizedShape=[n], eps=1e-3, gamma=normal(n),
            beta=normal(n, seed=3),
        )  # fmt: skip

    def relu(self, x: str) -> str:
        return self.put("activation", x, ReLU={})

    def heads(self, x: str, axes: tuple[int, ...]) -> str:
        apart = self.put("reshapeStatic", x, targetShape=[-1, STEPS, 4, SIZE // 4])
        return self.put("transpose", apart, axes=axes)

    def constant(self, *shape: int) -> str:
        return self.put("loadConstantND", shape=shape, data=normal(*shape))


def attention(n: Network, x: str = "x") -> str:
    q = n.heads(n.dense(x, SIZE), (0, 2, 1, 3))
    k = n.heads(n.dense(x, SIZE), (0, 2, 3, 1))
    v = n.heads(n.dense(x, SIZE), (0, 2, 1, 3))
    chances = n.put(
        "softmaxND", n.put("multiply", n.put("batchedMatmul", q, k), alpha=0.5), axis=-1
    )
    mixed = n.put("transpose", n.put("batchedMatmul", chances, v), axes=(0, 2, 1, 3))
    merged = n.put("reshapeStatic", mixed, targetShape=[-1, STEPS, SIZE])
    return n.norm(n.put("addBroadcastable", x, n.dense(merged, SIZE)))


def encoder(n: Network) -> str:
    x = "x"
    for _ in range(2):
        y = attention(n, x)
        wide = n.relu(n.dense(y, 3 * SIZE))
        x = n.norm(n.put("addBroadcastable", y, n.dense(wide, SIZE)))
    return x


def transposed_products(n: Network) -> str:
    """Either operand transposed, with weights that are constants, and a batch of one for many."""
    square = n.put("batchedMatmul", "x", "x", transposeB=True)
    other = n.put("batchedMatmul", square, n.constant(STEPS, SIZE), transposeA=True)
    again = n.put("batchedMatmul", n.constant(2, 1, STEPS, SIZE), other, transposeB=True)
    return n.put("batchedMatmul", again, n.put("batchedMatmul", square, "x"), transposeA=True)


def merged_ends(n: Network) -> str:
    """A sum and limits behind a product; one of them, the other way round, or read twice."""
    a = n.relu(n.put("add", n.dense("x", SIZE), "x"))
    b = n.put("add", n.relu(n.dense(a, SIZE)), a)
    c = n.put("clip", n.relu(n.dense(b, SIZE)), minVal=0.1, maxVal=0.5)
    d = n.dense(c, SIZE)
    e = n.put("add", d, n.relu(d))
    return n.put("add", n.put("add", n.dense(e, SIZE), a), b)


def late_operand(n: Network) -> str:
    """The other operand of a sum is made after the product."""
    a = n.dense("x", SIZE)
    return n.norm(n.put("add", a, n.dense("x", SIZE)))


def twice(n: Network) -> str:
    a = n.dense("x", SIZE)
    return n.norm(n.put("multiply", a, a))


def pieces(n: Network) -> str:
    """Parts of an array, and what lies backwards."""
    n.layer("splitND", "split", ["x"], ["one", "two", "three"], axis=-1, splitSizes=[4, 9, 7])
    n.layer("splitND", "rows", ["x"], ["above", "below"], axis=1, numSplits=2)
    a = n.put("batchedMatmul", "one", "one", transposeB=True)
    b = n.put("batchedMatmul", a, "two")
    c = n.put("softmaxND", "three", axis=-1)
    d = n.put(
        "sliceStatic", b, beginIds=[0, 0, 8], endIds=[1, STEPS, 0], strides=[1, 1, -2],
        beginMasks=[True, True, False], endMasks=[True, True, True],
    )  # fmt: skip
    e = n.put("addBroadcastable", n.put("subtractBroadcastable", "above", "below"), n.constant(1))
    f = n.put("batchedMatmul", d, c, transposeA=True)
    return n.put("concatND", f, n.put("softmaxND", n.dense(e, 7), axis=-1), axis=1)


def softmax_of_other_axes(n: Network) -> str:
    a = n.put("softmaxND", n.dense("x", SIZE), axis=1)
    return n.put("softmaxND", n.dense(a, 5), axis=0)


def functions(n: Network) -> str:
    a = n.dense("x", SIZE)
    for kind, params in (
        ("gelu", {"mode": "EXACT"}), ("gelu", {"mode": "TANH_APPROXIMATION"}), ("tanh", {}),
        ("erf", {}), ("unary", {"type": "ABS", "scale": 1.0}), ("activation", {"sigmoid": {}}),
        ("activation", {"leakyReLU": {"alpha": 0.2}}), ("sign", {}),
    ):  # fmt: skip
        a = n.put("add", n.put(kind, a, **params), "x")
    return n.put("lessThan", n.dense(a, 4), alpha=0.2)


def joins(n: Network) -> str:
    a, b = n.dense("x", SIZE), n.constant(STEPS, 1)
    c = n.put("maxBroadcastable", a, b, n.constant(SIZE))
    d = n.put("minBroadcastable", c, a, n.constant(1, 1, 1))
    e = n.put("divideBroadcastable", d, n.put("add", n.put("activation", b, sigmoid={}), alpha=1.0))
    return n.norm(n.put("max", e, a, n.put("multiply", c, alpha=-1.0)))


NETWORKS: dict[str, Callable[[Network], str]] = {
    "attention": attention,
    "encoder": encoder,
    "transposed products": transposed_products,
    "merged ends": merged_ends,
    "late operand": late_operand,
    "twice": twice,
    "pieces": pieces,
    "softmax of other axes": softmax_of_other_axes,
    "functions": functions,
    "joins": joins,
}


def agree(network: Any, inputs: dict[str, Array], expected: list[str]) -> list[Any]:
    """Run both ways; returns what the plan runs as one."""
    planned, plain = Session(network), Session(network, planned=False, compiled=False)
    for change in (1, 1, -2):  # later times on memory that is full
        given = {name: np.float32(change) * x for name, x in inputs.items()}
        actual, right = planned.run(given, expected), plain.run(given, expected)
        for name in expected:
            assert actual[name].shape == right[name].shape
            span = max(float(np.ptp(right[name])), 1e-3)
            assert np.abs(actual[name] - right[name]).max() <= 1e-5 * span, name
    return [part.region for part in planned._program(frozenset(expected)).parts]


def is_planned(region: Any) -> bool:
    return isinstance(region, ArrayRegion) and bool(region.pool.plans) and not region.pool.refused


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_planned_and_plain_agree(name: str, batch: int) -> None:
    network = Network()
    last = NETWORKS[name](network)
    sample = {"x": normal(batch, STEPS, SIZE)}
    assert all(map(is_planned, agree(network.network, sample, [last])))
    every = [name for layer in network.network.layers for name in layer.output]
    agree(network.network, sample, every)
