"""Convolutional parts and what follows on arrays: as one, with the numbers of layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="Numba is not installed: nothing on arrays is planned")

import mlferry
from mlferry import lanes
from mlferry.errors import PredictionError
from mlferry.layers.builder import Builder
from mlferry.runtime.planned.arrays.chain import ChainEnd, ChainRegion
from mlferry.runtime.session import Session

SIZE = (12, 10)
Array = np.ndarray


def normal(*shape: int, seed: int = 5) -> Array:
    return np.random.default_rng((seed, *shape)).normal(0, 0.4, shape).astype(np.float32)


class Network(Builder):
    """A builder whose layers are named by number; every method returns a blob."""

    def __init__(self, *outer: int, channels: int = 20) -> None:
        super().__init__()
        self.input("x", (*(outer or (1,)), channels, *SIZE))

    def put(self, kind: str, *inputs: str, **params: Any) -> str:
        name = f"{kind}_{len(self.network.layers)}"
        self.layer(kind, name, inputs, [name], **params)
        return name

    def conv(self, x: str = "x", count: int = 24) -> str:
        inside, place = (self.shapes[x] or ())[-3] or 0, len(self.network.layers)
        return self.put(
            "convolution", x, outputChannels=count, kernelChannels=inside, nGroups=1,
            kernelSize=(3, 3), weights=normal(count, inside, 3, 3, seed=place), valid={},
            hasBias=True, bias=normal(count, seed=place),
        )  # fmt: skip

    def mean(self, x: str) -> str:
        return self.put("pooling", x, type="AVERAGE", globalPooling=True, valid={})

    def flat(self, x: str) -> str:
        return self.put("flattenTo2D", x, axis=1)

    def dense(self, x: str, count: int = 17) -> str:
        inside = (self.shapes[x] or ())[-1] or 0
        return self.put(
            "innerProduct", x, inputChannels=inside, outputChannels=count,
            weights=normal(count, inside), hasBias=True, bias=normal(count),
        )  # fmt: skip

    def constant(self, *shape: int) -> str:
        return self.put("loadConstantND", shape=shape, data=normal(*shape))

    def softmax(self, x: str) -> str:
        return self.put("softmaxND", x, axis=-1)


def classifier(n: Network) -> list[str]:
    return [n.softmax(n.dense(n.flat(n.mean(n.conv(n.conv())))))]


def no_product(n: Network) -> list[str]:
    """As SqueezeNet ends."""
    return [n.softmax(n.flat(n.mean(n.conv())))]


def all_pixels(n: Network) -> list[str]:
    """Planes, not pixels, lie one after another."""
    return [n.dense(n.flat(n.conv(count=7)))]


def pixels_first(n: Network) -> list[str]:
    return [n.softmax(n.put("transpose", n.conv(), axes=[0, 2, 3, 1]))]


def map_is_wanted(n: Network) -> list[str]:
    a = n.conv()
    return [n.softmax(n.flat(n.mean(a))), a]


def map_is_read_later(n: Network) -> list[str]:
    """By what runs after the part on arrays."""
    a = n.conv()
    b = n.dense(n.flat(a), 24)
    scale = n.put("reshapeStatic", b, targetShape=[1, 24, 1, 1])
    c = n.put("multiplyBroadcastable", a, scale)
    return [n.conv(c), b]


def two_maps(n: Network) -> list[str]:
    means = [n.mean(x) for x in (n.conv(), n.conv(count=8))]
    left, right = [n.dense(n.flat(x), 9) for x in means]
    return [n.put("addBroadcastable", left, right)]


def also_other_inputs(n: Network) -> list[str]:
    """The part on arrays reads the input of the network, too, and so follows no map alone."""
    a, b = (n.dense(n.flat(x), 6) for x in (n.conv(), "x"))
    return [n.softmax(n.put("addBroadcastable", a, b))]


def left_to_numpy(n: Network) -> list[str]:
    """Functions of arrays that no compiled code knows."""
    a = n.dense(n.flat(n.conv()))
    return [n.dense(n.put("cumSum", a, axis=1))]


NETWORKS: dict[str, Callable[[Network], list[str]]] = {
    "classifier": classifier,
    "no product": no_product,
    "all pixels": all_pixels,
    "pixels first": pixels_first,
    "map is wanted": map_is_wanted,
    "map is read later": map_is_read_later,
    "two maps": two_maps,
    "left to NumPy": left_to_numpy,
}


@pytest.fixture
def three_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "cores", lambda: 3)
    monkeypatch.setattr(lanes, "free_cores", lambda awake=0: 2)
    monkeypatch.setattr(lanes, "_helpers", lanes._Helpers())


def regions(session: Session, outputs: list[str]) -> list[Any]:
    return [part.region for part in session._program(frozenset(outputs)).parts]


def agree(network: Any, x: Array, outputs: list[str], threads: int | None = None) -> Session:
    """The same numbers, also on memory that is full; returns the planned session."""
    session, plain = (
        Session(network, threads=threads),
        Session(network, planned=False, compiled=False),
    )
    for factor in (1, 1, -2):
        found = session.run({"x": np.float32(factor) * x}, outputs)
        for name, right in plain.run({"x": np.float32(factor) * x}, outputs).items():
            assert found[name].shape == right.shape
            span = max(float(np.ptp(right)), 1e-3)
            np.testing.assert_allclose(found[name], right, rtol=0, atol=1e-5 * span)
    return session


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.usefixtures("three_cores")
def test_chained_and_plain_agree(name: str, threads: int) -> None:
    network = Network()
    outputs = NETWORKS[name](network)
    x = normal(1, 20, *SIZE)
    session = agree(network.network, x, outputs, threads)
    chain, end = regions(session, outputs)[:2]
    assert isinstance(chain, ChainRegion)
    assert isinstance(end, ChainEnd)
    assert chain.pool.plans
    assert not chain.maps.pool.plans  # neither part has run alone
    assert not end.arrays.pool.plans
    single = Session(network.network, threads=1).run({"x": x}, outputs)
    for blob, found in session.run({"x": x}, outputs).items():
        np.testing.assert_array_equal(found, single[blob])


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_blob_may_be_wanted(name: str) -> None:
    network = Network()
    NETWORKS[name](network)
    every = [name for layer in network.network.layers for name in layer.output]
    agree(network.network, normal(1, 20, *SIZE), every)
    for blob in every:
        agree(network.network, normal(1, 20, *SIZE), [blob])


@pytest.mark.parametrize("name", ["classifier", "no product", "pixels first", "map is wanted"])
def test_several_samples_at_once_go_part_by_part(name: str) -> None:
    network = Network(3)
    outputs = NETWORKS[name](network)
    session = agree(network.network, normal(3, 20, *SIZE), outputs)
    chain, end = regions(session, outputs)
    assert not chain.pool.plans
    assert chain.maps.pool.plans
    assert end.arrays.pool.plans
    agree(network.network, normal(1, 20, *SIZE), outputs)
    for batch in (1, 3, 1):  # one session, by turns
        x = normal(batch, 20, *SIZE)
        right = Session(network.network, planned=False).run({"x": x}, outputs)
        for blob, found in session.run({"x": x}, outputs).items():
            np.testing.assert_allclose(found, right[blob], rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_end_may_make_a_blob_of_the_name_of_an_input(batch: int) -> None:
    """Whether both parts have run is not told by the names that are there."""
    network = Network(batch)
    network.softmax(network.flat(network.mean(network.conv())))
    network.network.layers[-1].output[0] = "x"  # as a builder refuses
    session, plain = Session(network.network), Session(network.network, planned=False)
    x = normal(batch, 20, *SIZE)
    for _ in range(2):
        found, right = (each.run({"x": x}, ["x"])["x"] for each in (session, plain))
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-5)


def test_other_shapes_of_the_input() -> None:
    network = Network()
    outputs = pixels_first(network)
    session, plain = Session(network.network), Session(network.network, planned=False)
    for size in ((12, 10), (7, 31), (12, 10), (3, 3)):
        x = normal(1, 20, *size)
        found, right = (each.run({"x": x}, outputs) for each in (session, plain))
        np.testing.assert_allclose(found[outputs[0]], right[outputs[0]], rtol=0, atol=1e-5)
    assert len(regions(session, outputs)[0].pool.plans) == 3


def test_what_reads_other_blobs_too_is_no_end() -> None:
    network = Network()
    outputs = also_other_inputs(network)
    session = agree(network.network, normal(1, 20, *SIZE), outputs)
    assert not any(isinstance(region, ChainRegion) for region in regions(session, outputs))


def test_a_wrong_index_is_an_error_of_its_layer() -> None:
    """And the plans go on afterwards."""
    network = Network()
    chosen = network.flat(network.conv(count=2))
    table = network.constant(60, 5)
    network.layer("gather", "look up", [table, chosen], ["rows"], axis=0)
    outputs = [network.put("reduceSum", "rows", axes=[1], keepDims=False)]
    session, plain = Session(network.network), Session(network.network, planned=False)
    x = np.zeros((1, 20, *SIZE), np.float32)
    right = plain.run({"x": x}, outputs)
    for _ in range(2):
        for name, found in session.run({"x": x}, outputs).items():
            np.testing.assert_allclose(found, right[name], rtol=1e-5)
        for each in (session, plain):
            with pytest.raises(PredictionError, match="running gather 'look up'"):
                each.run({"x": x + 1e6}, outputs)
    assert isinstance(regions(session, outputs)[0], ChainRegion)


def test_results_are_not_overwritten_by_the_next_run() -> None:
    network = Network()
    outputs = map_is_wanted(network)
    session = Session(network.network)
    first = session.run({"x": normal(1, 20, *SIZE)}, outputs)
    before = {name: x.copy() for name, x in first.items()}
    session.run({"x": normal(1, 20, *SIZE, seed=9)}, outputs)
    for name, x in first.items():
        np.testing.assert_array_equal(x, before[name])


@pytest.mark.usefixtures("three_cores")
def test_lists_share_threads() -> None:
    network = Network()
    outputs = map_is_wanted(network)
    for name in outputs:
        network.output(name)
    model = mlferry.MLModel(network.model())
    samples = [{"x": normal(1, 20, *SIZE, seed=seed)} for seed in range(40)]
    right = [model.predict(sample) for sample in samples]
    for found, expected in zip(model.predict(samples), right, strict=True):
        for name in outputs:
            np.testing.assert_array_equal(found[name], expected[name])
