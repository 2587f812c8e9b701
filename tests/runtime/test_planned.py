"""Planned convolutional parts: the same numbers as layer by layer, whatever the network."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.compiled import using
from mlferry.layers.builder import Builder
from mlferry.runtime.planned import winograd
from mlferry.runtime.planned.map_region import MapRegion
from mlferry.runtime.planned.plan import Plan
from mlferry.runtime.session import Session
from mlferry.runtime.threads import blas
from mlferry.spec.proto import neural_network_pb2 as nn

RNG = np.random.default_rng(17)
SIZE = (11, 9)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.4, shape).astype(np.float32)


def edges(*amounts: tuple[int, int]) -> dict[str, Any]:
    return {
        "paddingAmounts": {
            "borderAmounts": [{"startEdgeSize": a, "endEdgeSize": b} for a, b in amounts]
        }
    }


class Network(Builder):
    """A builder whose layers are named by number; every method returns a blob."""

    def __init__(self, channels: int = 6, batch: int = 1) -> None:
        super().__init__()
        self.input("x", (batch, channels, *SIZE))

    def put(self, kind: str, *inputs: str, **params: Any) -> str:
        name = f"{kind}_{len(self.network.layers)}"
        self.layer(kind, name, inputs, [name], **params)
        return name

    def conv(
        self, x: str, count: int, size: tuple[int, int] = (3, 3), groups: int = 1, **how: Any
    ) -> str:
        shape = self.shapes[x]
        assert shape is not None
        inside = (shape[1] or 0) // groups
        options = {"valid": edges((1, 1), (1, 1)), "stride": (1, 1)} | how
        if "same" in how:
            del options["valid"]
        return self.put(
            "convolution", x, outputChannels=count, kernelChannels=inside, nGroups=groups,
            kernelSize=size, weights=normal(count, inside, *size), hasBias=True,
            bias=normal(count), **options,
        )  # fmt: skip

    def norm(self, x: str, **how: Any) -> str:
        count = (self.shapes[x] or ())[1] or 0
        return self.put(
            "batchnorm", x, channels=count, gamma=normal(count), beta=normal(count),
            mean=normal(count), variance=np.abs(normal(count)) + 0.2, **how,
        )  # fmt: skip

    def relu(self, x: str) -> str:
        return self.put("activation", x, ReLU={})


SAME = {"same": {"asymmetryMode": "BOTTOM_RIGHT_HEAVY"}}
Build = Callable[[Network], Any]


def residual(n: Network) -> str:
    a = n.relu(n.conv("x", 6))
    b = n.norm(n.conv(a, 6))
    return n.relu(n.put("addBroadcastable", b, a))


def late_shortcut(n: Network) -> str:
    """The other operand is made after the convolution."""
    a = n.conv("x", 6)
    b = n.relu(n.conv("x", 6))
    return n.put("add", a, b)


def fire(n: Network) -> str:
    s = n.relu(n.conv("x", 4, (1, 1), valid={}))
    both = n.put("concatND", n.relu(n.conv(s, 5, (1, 1), valid={})), n.relu(n.conv(s, 3)), axis=1)
    return n.put("pooling", both, type="MAX", kernelSize=(3, 3), stride=(2, 2), valid={})


def nested_concat(n: Network) -> str:
    a, b = n.conv("x", 3), n.conv("x", 2)
    inner = n.put("concatND", a, b, axis=-3)
    outer = n.put("concatND", inner, "x", n.conv(inner, 4), axis=1)
    return n.conv(outer, 5)


def same_twice(n: Network) -> str:
    a = n.conv("x", 3)
    return n.conv(n.put("concatND", a, a, axis=1), 4)


def squeeze_and_excite(n: Network, count: int = 8) -> str:
    a = n.conv("x", count, (3, 3), stride=(2, 2), **SAME)
    g = n.put("reduceMean", a, axes=(2, 3), keepDims=True)
    g = n.relu(n.conv(g, 4, (1, 1), valid={}))
    g = n.put("activation", n.conv(g, count, (1, 1), valid={}), sigmoid={})
    return n.conv(n.put("multiplyBroadcastable", a, g), 5)


def shared_with_padding(n: Network) -> str:
    """The map has a border that belongs to the convolution behind it alone."""
    a = n.put("activation", n.conv("x", 24), linear={"alpha": -1.0, "beta": -40.0})
    wide = n.conv(a, 24, (5, 5), valid=edges((2, 2), (2, 2)))
    return n.put("addBroadcastable", wide, n.put("reduceMax", a, axes=(2, 3), keepDims=True))


def inverted(n: Network) -> str:
    a = n.put("clip", n.norm(n.conv("x", 12, (1, 1), valid={})), minVal=0.0, maxVal=6.0)
    d = n.put("clip", n.norm(n.conv(a, 12, groups=12)), minVal=0.0, maxVal=6.0)
    return n.put("addBroadcastable", n.norm(n.conv(d, 6, (1, 1), valid={})), "x")


def paddings_that_differ(n: Network) -> str:
    a = n.relu(n.conv("x", 6))
    parts = [
        n.conv(a, 3, (5, 5), valid=edges((2, 2), (2, 2))),
        n.conv(a, 3, (3, 3)),
        n.put("pooling", a, type="MAX", kernelSize=(3, 3), stride=(1, 1),
              valid=edges((1, 1), (1, 1))),
        n.put("pooling", a, type="AVERAGE", kernelSize=(3, 3), stride=(1, 1),
              avgPoolExcludePadding=True, valid=edges((1, 1), (1, 1))),
    ]  # fmt: skip
    return n.put("concatND", *parts, axis=1)


def constants(n: Network) -> str:
    k = n.put("loadConstantND", shape=(6, 1, 1), data=normal(6))
    a = n.put("multiplyBroadcastable", n.conv("x", 6), k)
    whole = n.put("loadConstantND", shape=(1, 1, *SIZE), data=normal(1, 1, *SIZE))
    return n.conv(n.put("addBroadcastable", a, whole), 3)


def every_function(n: Network) -> str:
    x = n.conv("x", 6)
    for options in (
        {"linear": {"alpha": 2.0, "beta": 0.5}}, {"leakyReLU": {"alpha": 0.2}}, {"tanh": {}},
        {"scaledTanh": {"alpha": 2.0, "beta": 0.5}}, {"sigmoid": {}}, {"ELU": {"alpha": 1.5}},
        {"sigmoidHard": {"alpha": 0.3, "beta": 0.4}}, {"softsign": {}}, {"softplus": {}},
        {"thresholdedReLU": {"alpha": 0.4}}, {"PReLU": {"alpha": normal(6)}},
    ):  # fmt: skip
        x = n.put("activation", x, **options)
    return n.conv(x, 4)


def joined_functions(n: Network) -> str:
    one = n.put("activation", n.relu(n.conv("x", 18)), tanh={})
    other = n.put("activation", n.conv("x", 5), sigmoid={})
    scaled = n.put("scale", other, shapeScale=(5, 1, 1), scale=normal(5))
    return n.conv(n.put("concat", one, scaled), 4)


def joined_upsampling(n: Network) -> str:
    one, other = (
        n.put("upsample", n.conv("x", count), mode="NN", scalingFactor=(2, 3)) for count in (6, 20)
    )
    return n.conv(n.put("concat", one, n.put("activation", other, sigmoid={})), 4)


def alone_in_a_concatenation(then: Callable[[Network, str], str]) -> Build:
    """What reads a map of one channel whose values lie apart, between those of others."""

    def build(n: Network) -> str:
        one, others = n.conv("x", 1), n.conv("x", 3)
        result = then(n, one)
        height, width = n.shapes[result][2:]
        both = n.put("concat", one, others)
        if (height, width) != SIZE:
            both = n.put("upsample", both, mode="NN", scalingFactor=(2, 2))
        return n.conv(n.put("concat", both, n.conv(result, 2)), 4)

    return build


APART: dict[str, Callable[[Network, str], str]] = {
    "a function": lambda n, x: n.put("activation", x, sigmoid={}),
    "limits": lambda n, x: n.relu(x),
    "several functions": lambda n, x: n.relu(n.put("activation", x, tanh={})),
    "a factor": lambda n, x: n.put("scale", x, shapeScale=(1, 1, 1), scale=normal(1)),
    "a sum": lambda n, x: n.put("addBroadcastable", x, n.conv("x", 1)),
    "a sum, the other way": lambda n, x: n.put("addBroadcastable", n.conv("x", 1), x),
    "a product with more channels": lambda n, x: n.put("multiplyBroadcastable", x, n.conv("x", 5)),
    "the larger value": lambda n, x: n.put("max", x, n.conv("x", 1)),
    "upsampling": lambda n, x: n.put("upsample", x, mode="NN", scalingFactor=(2, 2)),
    "a normalization": lambda n, x: n.norm(
        x, computeMeanVar=True, instanceNormalization=True, epsilon=1e-3
    ),
}

NETWORKS: dict[str, Build] = {
    **{
        f"{name} of a channel of a concatenation": alone_in_a_concatenation(then)
        for name, then in APART.items()
    },
    "residual": residual,
    "late shortcut": late_shortcut,
    "fire": fire,
    "nested concatenations": nested_concat,
    "a part that stands twice": same_twice,
    "squeeze and excite": squeeze_and_excite,
    "squeeze and excite many channels": lambda n: squeeze_and_excite(n, 32),
    "inverted": inverted,
    "paddings that differ": paddings_that_differ,
    "constants": constants,
    "every function": every_function,
    "strides and dilations": lambda n: n.conv(
        n.conv("x", 4, (3, 2), stride=(2, 3)), 5, (2, 2), dilationFactor=(2, 1), valid={}
    ),
    "groups": lambda n: n.conv(n.relu(n.conv("x", 8, groups=2)), 4, groups=4),
    "groups, to a few channels of many": lambda n: n.conv(n.conv("x", 64), 4, groups=2),
    "multiplier": lambda n: n.relu(n.conv("x", 12, groups=6)),
    "depthwise, strided, SAME": lambda n: n.conv(
        n.conv("x", 6, groups=6, stride=(2, 2), **SAME), 3, groups=3
    ),
    "depthwise, dilated": lambda n: n.relu(n.conv("x", 6, groups=6, dilationFactor=(2, 3))),
    "scale and bias": lambda n: n.put(
        "bias", n.put("scale", n.conv("x", 4), shapeScale=(4, 1, 1), scale=normal(4)),
        shape=(4, 1, 1), bias=normal(4),
    ),
    "instance normalization": lambda n: n.relu(
        n.norm(n.conv("x", 4), computeMeanVar=True, instanceNormalization=True, epsilon=1e-3)
    ),
    "instance normalization of many channels": lambda n: n.put("activation", n.put(
        "add", n.norm(n.conv("x", 24), computeMeanVar=True, instanceNormalization=True,
                      epsilon=1e-3), n.conv("x", 24),
    ), tanh={}),
    "a function inside of a border": lambda n: n.conv(
        n.put("activation", n.conv("x", 20), sigmoid={}), 5
    ),
    "functions that a concatenation joins": joined_functions,
    "upsampling that a concatenation joins": joined_upsampling,
    "upsampling": lambda n: n.conv(
        n.put("upsample", n.conv("x", 4), mode="NN", scalingFactor=(2, 3)), 3
    ),
    "upsampling, smooth": lambda n: n.conv(
        n.put("upsample", n.conv("x", 4), mode="BILINEAR", scalingFactor=(2, 2)), 3
    ),
    "global pooling": lambda n: n.put(
        "pooling", n.conv("x", 4), type="AVERAGE", globalPooling=True, valid={}
    ),
    **{
        f"global pooling of many channels, {kind}": lambda n, k=kind: n.relu(
            n.put("pooling", n.conv("x", 21), type=k, globalPooling=True, valid={})
        )
        for kind in ("AVERAGE", "MAX")
    },
    "the largest of a map that is padded for others": shared_with_padding,
    "a few channels of many": lambda n: n.relu(n.conv(n.relu(n.conv("x", 32)), 3, (5, 5))),
    "a few channels of many, added": lambda n: n.put(
        "addBroadcastable", n.conv(n.conv("x", 32), 2), n.conv("x", 2)
    ),
    "transposed, to a few channels of many": lambda n: n.put(
        "convolution", n.conv("x", 64), isDeconvolution=True, outputChannels=2,
        kernelChannels=64, nGroups=1, kernelSize=(4, 4), stride=(2, 2),
        weights=normal(64, 2, 4, 4), valid={},
    ),
    "transposed in between": lambda n: n.conv(
        n.put("convolution", n.conv("x", 4), isDeconvolution=True, outputChannels=3,
              kernelChannels=4, nGroups=1, kernelSize=(2, 2), stride=(2, 2),
              weights=normal(4, 3, 2, 2), valid={}), 5,
    ),
    **{
        f"transposed {kernel} {stride} {options}": lambda n, k=kernel, s=stride, o=options: n.relu(
            n.put("convolution", n.conv("x", 4), isDeconvolution=True, outputChannels=3,
                  kernelChannels=4, nGroups=1, kernelSize=k, stride=s, hasBias=True,
                  bias=normal(3), weights=normal(4, 3, *k), **o)
        )
        for kernel, stride in (((3, 3), (2, 2)), ((4, 2), (2, 3)), ((2, 5), (3, 1)))
        for options in (
            {"valid": {}}, {"valid": edges((1, 0), (0, 1))}, SAME,
            {"valid": {}, "outputShape": (30, 28)},
        )
    },
    "Winograd, odd sizes": lambda n: n.relu(n.conv(n.conv("x", 16), 32)),
    "caffe's pooling": lambda n: n.put(
        "pooling", n.conv("x", 4), type="MAX", kernelSize=(3, 3), stride=(2, 2),
        includeLastPixel={"paddingAmounts": (1, 1)},
    ),
    "padding": lambda n: n.relu(
        n.conv(n.put("padding", n.conv("x", 4), constant={"value": 0.25},
                     **edges((0, 2), (1, 0))), 5, valid={})
    ),
    "padding by reflection": lambda n: n.conv(n.put(
        "padding", n.conv("x", 4), reflection={}, **edges((1, 1), (1, 1))), 5, valid={}
    ),
    "L2 pooling": lambda n: n.conv(
        n.put("pooling", n.conv("x", 4), type="L2", kernelSize=(2, 2), stride=(2, 2), valid={}), 3
    ),
}  # fmt: skip


def agree(network: Any, inputs: dict[str, np.ndarray], expected: list[str]) -> int:
    """Run both ways; returns how many regions the plan has."""
    planned, plain = Session(network), Session(network, planned=False)
    for _ in range(2):  # the second time on buffers that are full
        actual, right = planned.run(inputs, expected), plain.run(inputs, expected)
        for name in expected:
            assert actual[name].shape == right[name].shape
            span = max(float(np.ptp(right[name])), 1e-3)
            assert np.abs(actual[name] - right[name]).max() <= 1e-5 * span
    items = planned._program(frozenset(expected)).parts
    return sum(item.region is not None for item in items)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_planned_and_plain_agree(name: str, batch: int) -> None:
    network = Network(batch=batch)
    last = NETWORKS[name](network)
    inputs = {"x": normal(batch, 6, *SIZE)}
    agree(network.network, inputs, [last])
    every = [layer.output[0] for layer in network.network.layers]
    agree(network.network, inputs, every)


def test_regions_are_used() -> None:
    for name in ("residual", "fire", "inverted", "squeeze and excite", "paddings that differ"):
        network = Network()
        last = NETWORKS[name](network)
        session = Session(network.network)
        (item,) = session._program(frozenset([last])).parts
        assert isinstance(item.region, MapRegion)
        assert item.region.run({"x": normal(1, 6, *SIZE)}) is not None, name


def test_a_planned_part_multiplies_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is all of the network."""
    seen, number = [], [4]
    monkeypatch.setattr(
        blas, "control", lambda: blas.Control(lambda: number[0], lambda n: number.__setitem__(0, n))
    )
    read = Plan.read

    def watched(plan: Plan, name: str, planes: np.ndarray) -> None:
        seen.append((number[0], {*np.geterr().values()}))
        read(plan, name, planes)

    monkeypatch.setattr(Plan, "read", watched)
    network = Network()
    last = fire(network)
    session = Session(network.network, compiled=False)
    session.run({"x": normal(1, 6, *SIZE)}, [last])
    assert len(session._program(frozenset([last])).parts) == 1
    assert seen == [(1, {"ignore"})]
    assert number == [4]


def test_other_shapes_and_other_ranks() -> None:
    network = Network()
    last = residual(network)
    session, plain = Session(network.network), Session(network.network, planned=False)
    for shape in ((1, 6, 5, 7), (2, 6, 8, 8), (1, 6, 5, 7), (6, 5, 7), (2, 2, 6, 5, 5)):
        x = normal(*shape)
        if len(shape) == 3:
            continue
        actual, right = (s.run({"x": x}, [last])[last] for s in (session, plain))
        np.testing.assert_allclose(actual, right, rtol=1e-4, atol=1e-5)


def test_one_session_in_many_threads() -> None:
    network = Network()
    last = inverted(network)
    session, plain = Session(network.network), Session(network.network, planned=False)
    samples = [normal(1, 6, *SIZE) for _ in range(24)]
    results: dict[int, np.ndarray] = {}

    def work(start: int) -> None:
        for index in range(start, len(samples), 4):
            results[index] = session.run({"x": samples[index]}, [last])[last]

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, x in enumerate(samples):
        right = plain.run({"x": x}, [last])[last]
        np.testing.assert_allclose(results[index], right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("size", [(24, 24), (25, 31), (33, 26)])
@pytest.mark.parametrize("shortcut", [False, True])
def test_tiles_of_winograd(
    size: tuple[int, int], shortcut: bool, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Larger maps, whose convolutions go by tiles: within 1e-5 of the range of a plain sum."""
    if compiled:
        pytest.importorskip("numba", reason="Numba is not installed")
        from mlferry.runtime.planned import compiled_winograd as tiles
    else:
        tiles = winograd
    network = Network()
    network.input("big", (1, 32, *size))
    a = network.relu(network.conv("big", 48))
    b = network.norm(network.conv(a, 48))
    last = network.relu(network.put("add", b, a) if shortcut else b)
    inputs = {"big": normal(1, 32, *size), "x": normal(1, 6, *SIZE)}
    agree(network.network, inputs, [last])
    tiled = []
    convolved = tiles.convolved

    def counted(*arguments: Any) -> Any:
        tiled.append(arguments)
        return convolved(*arguments)

    monkeypatch.setattr(tiles, "convolved", counted)
    Session(network.network, compiled=compiled).run(inputs, [last])
    assert tiled
    tiled.clear()
    Session(network.network, winograd=False, compiled=compiled).run(inputs, [last])
    assert not tiled


def wide_fire(n: Network) -> str:
    s = n.relu(n.conv("big", 32, (1, 1), valid={}))
    both = n.put("concatND", n.relu(n.conv(s, 48, (1, 1), valid={})), n.relu(n.conv(s, 32)), axis=1)
    return n.conv(both, 64)


def wide_paddings(n: Network) -> str:
    """Two convolutions in tiles, a wider one and pooling read the same map."""
    a = n.relu(n.conv("big", 32))
    parts = [
        n.conv(a, 32), n.conv(a, 32, valid={}), n.conv(a, 32, (5, 5), valid=edges((1, 1), (1, 1))),
        n.put("pooling", a, type="MAX", kernelSize=(3, 3), stride=(1, 1), valid={}),
    ]  # fmt: skip
    amounts = edges((1, 1), (1, 1))["paddingAmounts"]
    return n.put("concatND", n.put("crop", parts[0], cropAmounts=amounts), *parts[1:], axis=1)


def wide_same_twice(n: Network) -> str:
    a = n.conv("big", 32)
    return n.conv(n.put("concatND", a, a, axis=1), 32)


TILED: dict[str, Build] = {
    "fire": wide_fire,
    "paddings that differ": wide_paddings,
    "a norm and a shortcut": lambda n: n.relu(
        n.put("addBroadcastable", n.norm(n.conv("big", 32)), "big")
    ),
    "a function that NumPy applies": lambda n: n.conv(
        n.put("activation", n.conv("big", 32), sigmoid={}), 32
    ),
    "both operands in tiles": lambda n: n.put("add", n.conv("big", 32), n.relu(n.conv("big", 32))),
    "the same one twice": wide_same_twice,
    "pooling over the map": lambda n: n.put(
        "pooling", n.relu(n.conv("big", 32)), type="AVERAGE", globalPooling=True, valid={}
    ),
}  # fmt: skip


@pytest.mark.parametrize("size", [(24, 25), (31, 22)])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", TILED)
def test_compiled_tiles_and_what_is_around_them(
    name: str, batch: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything shown or only the end; bits do not depend on threads; then other shapes."""
    pytest.importorskip("numba", reason="Numba is not installed")
    from mlferry.runtime.planned import compiled_winograd

    network = Network()
    network.input("big", (batch, 32, *size))
    last = TILED[name](network)
    inputs = {"big": normal(batch, 32, *size), "x": normal(1, 6, *SIZE)}
    tiled = []
    convolved = compiled_winograd.convolved
    monkeypatch.setattr(
        compiled_winograd, "convolved", lambda *given: tiled.append(given) or convolved(*given)
    )
    agree(network.network, inputs, [last])
    assert tiled
    agree(network.network, inputs, [layer.output[0] for layer in network.network.layers])
    sessions = [Session(network.network, threads=threads) for threads in (1, None)]
    one, several = (session.run(inputs, [last])[last] for session in sessions)
    np.testing.assert_array_equal(one, several)
    plain = Session(network.network, planned=False)
    for shape in ((1, 32, 17, 40), (2, 32, 4, 5), (1, 32, *size)):
        given = inputs | {"big": normal(*shape)}
        right = plain.run(given, [last])[last]
        for session in sessions:
            actual = session.run(given, [last])[last]
            assert np.abs(actual - right).max() <= 1e-5 * max(float(np.ptp(right)), 1e-3)


TABLES = (
    "residual", "instance normalization", "instance normalization of many channels",
    "a function inside of a border", "functions that a concatenation joins", "upsampling",
    "upsampling that a concatenation joins", "scale and bias", "squeeze and excite many channels",
)  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_compiled_code_goes_through_all_of_it(name: str) -> None:
    """Threads wait for each other at what Python does in between."""
    pytest.importorskip("numba", reason="Numba is not installed")
    from mlferry.compiled.tasks import Table

    network = Network()
    last = NETWORKS[name](network)
    with using(True):
        session = Session(network.network)
        session.run({"x": normal(1, 6, *SIZE)}, [last])
        parts = session._program(frozenset([last])).parts
        (region,) = [part.region for part in parts if part.region is not None]
        assert isinstance(region, MapRegion)
        ((plan,),) = region.pool.plans.values()
        assert [type(run) for run in plan.runs] == [Table]


@pytest.mark.parametrize("reader", ["shown", "read later", "alone"])
def test_a_part_outlives_what_follows_its_concatenation(reader: str) -> None:
    """An activation behind a concatenation may not work in place where a part is still needed."""
    network = Network()
    part, other = network.conv("x", 4), network.conv("x", 3)
    joined = network.relu(network.put("concatND", part, other, axis=1))
    last = network.norm(network.conv(joined, 4))
    if reader == "read later":
        last = network.put("addBroadcastable", last, part)
    inputs = {"x": normal(2, 6, *SIZE)}
    agree(network.network, inputs, [last, joined, *([part] if reader == "shown" else [])])
    agree(network.network, inputs, [last, *([part] if reader == "shown" else [])])


NOTHING_TO_PLAN = {5, 34, 149}  # seeds whose outputs need no convolution or pooling


COUNTS = (1, 2, 3, 6, 17, 33)  # channels: fewer than a vector has lanes, and more


@pytest.mark.parametrize("classic", [False, True])
@pytest.mark.parametrize("seed", range(150))
def test_networks_put_together_at_random(seed: int, classic: bool) -> None:
    """Every layer reads blobs at random: shortcuts, concatenations and outputs of all kinds.

    In both mappings; the classic one has a sequence axis in front.
    """
    rng = np.random.default_rng(seed)
    network = Network(batch=int(rng.integers(1, 3)))
    blobs = ["x"]

    def pick() -> str:
        return str(rng.choice(blobs[-4:]))

    for _ in range(int(rng.integers(4, 14))):
        x = pick()
        alike = [b for b in blobs if network.shapes[b] == network.shapes[x]]
        choice = int(rng.integers(0, 12))
        if choice == 0:
            actual = network.relu(x)
        elif choice == 1:
            actual = network.norm(x)
        elif choice == 2:
            kind = "add" if classic else "addBroadcastable"
            actual = network.put(kind, x, str(rng.choice(alike)))
        elif choice == 3:
            kind, how = ("concat", {}) if classic else ("concatND", {"axis": 1})
            actual = network.put(kind, x, str(rng.choice(alike)), **how)
        elif choice == 4:
            kind = str(rng.choice(["MAX", "AVERAGE"]))
            actual = network.put(
                "pooling", x, type=kind, kernelSize=(3, 3), stride=(1, 1),
                valid=edges((1, 1), (1, 1)),
            )  # fmt: skip
        elif choice == 5:
            count = (network.shapes[x] or ())[1] or 0
            actual = network.conv(x, count, groups=count)
        elif choice == 6:
            actual = network.put("activation", x, **{str(rng.choice(["sigmoid", "tanh"])): {}})
        elif choice == 7:
            actual = network.norm(x, computeMeanVar=True, instanceNormalization=True, epsilon=1e-1)
        elif choice == 8 and (network.shapes[x] or ())[2] < 20:
            actual = network.put("upsample", x, mode="NN", scalingFactor=(2, 1))
        else:
            size = (1, 1) if rng.integers(0, 2) else (3, 3)
            padding = {} if size == (1, 1) else edges((1, 1), (1, 1))
            actual = network.conv(x, int(rng.choice(COUNTS)), size, valid=padding)
        blobs.append(actual)
    chosen = {blobs[-1], *map(str, rng.choice(blobs[1:], 2))}
    inputs = {"x": normal(*(n or 0 for n in network.shapes["x"] or ()))}
    if classic:
        entries = [inputs["x"], inputs["x"][::-1] + 1]
        exact = [Session(network.network).run({"x": x}, sorted(chosen)) for x in entries]
        network.network.arrayInputShapeMapping = nn.RANK5_ARRAY_MAPPING
        inputs = {"x": np.stack(entries)}
        actual = Session(network.network).run(inputs, sorted(chosen))
        for name in chosen:  # both mappings compute the same
            expected = np.stack([one[name] for one in exact])
            np.testing.assert_allclose(actual[name], expected, 1e-4, 1e-5 * np.ptp(expected))
    assert agree(network.network, inputs, sorted(chosen)) or seed in NOTHING_TO_PLAN


def memory_of(plan: Any) -> int:
    """Values in the memory of all maps of a plan."""
    copies = [copy for copies in plan._padded.values() for copy in copies.values()]
    maps = [actual for actual in [*plan._maps.values(), *copies] if actual.memory.base is not None]
    return sum({id(m.memory.base): m.memory.size for m in maps}.values())


def plan_of(session: Session, last: str) -> Any:
    (item,) = session._program(frozenset([last])).parts
    assert item.region is not None
    (plan,) = next(iter(item.region.pool.plans.values()))
    return plan


@pytest.mark.parametrize("how", [{}, {"size": (5, 5), "valid": edges((2, 2), (2, 2))}])
@pytest.mark.parametrize("mixed", [False, True])
def test_maps_lie_in_memory_that_is_free(how: dict[str, Any], mixed: bool) -> None:
    """A chain needs a map to read and one to write, however long it is; borders stay right."""
    network = Network(channels=3)
    network.input("large", (1, 8, 90, 80))
    x = "large"
    for index in range(12):
        x = network.relu(network.conv(x, 40, **(how if mixed and index % 3 else {})))
    inputs = {"large": normal(1, 8, 90, 80), "x": normal(1, 3, *SIZE)}
    agree(network.network, inputs, [x])
    session = Session(network.network)
    session.run(inputs, [x])
    largest = 40 * (90 + 6) * (80 + 6)
    assert memory_of(plan_of(session, x)) <= (3 if mixed and how else 2) * largest + 8 * 96 * 86


def test_blobs_that_are_asked_for_stay(
) -> None:  # fmt: skip
    """All blobs of a chain at once, each in the model's own layout."""
    network = Network()
    result = ["x"]
    for _ in range(6):
        result.append(network.relu(network.conv(result[-1], 6)))
    agree(network.network, {"x": normal(2, 6, *SIZE)}, result[1:])


FOLDED: dict[str, tuple[list[tuple[str, list[str], dict[str, Any]]], int]] = {
    # layers before the last, which adds all of theirs to x; how many parts are left to run
    "a constant": ([("loadConstantND", [], {"shape": [1], "data": np.ones(1)})], 1),
    "made of constants": (
        [
            ("loadConstantND", [], {"shape": [3], "data": np.arange(3.0)}),
            ("reduceSum", ["l0"], {"axes": [0], "keepDims": True}),
        ],
        2,
    ),
    "made of the input": ([("reduceSum", ["x"], {"axes": [0], "keepDims": True})], 2),
    "a random number": (
        [("randomNormalStatic", [], {"seed": 3, "outputShape": [1], "stdDev": 1.0})],
        2,
    ),
}


@pytest.mark.parametrize("name", list(FOLDED))
def test_constants_are_computed_once(name: str) -> None:
    layers, left = FOLDED[name]
    network = Builder()
    network.input("x", (3,))
    last = "x"
    for index, (kind, inputs, params) in enumerate(layers):
        network.layer(kind, f"l{index}", inputs, [f"l{index}"], **params)
        network.layer("addBroadcastable", f"s{index}", [last, f"l{index}"], [f"s{index}"])
        last = f"s{index}"
    sample = {"x": np.arange(3, dtype=np.float32)}
    planned, plain = Session(network.network), Session(network.network, planned=False)
    parts = planned._program(frozenset([last])).parts
    assert sum(len(part.steps) for part in parts) == left
    for _ in range(2):
        np.testing.assert_array_equal(
            planned.run(sample, [last])[last], plain.run(sample, [last])[last]
        )


def test_a_constant_that_is_overwritten_is_not_folded() -> None:
    network = Builder()
    network.input("x", (1,))
    network.layer("loadConstantND", "first", [], ["c"], shape=[1], data=np.ones(1))
    network.layer("addBroadcastable", "sum", ["x", "c"], ["y"])
    network.layer("copy", "again", ["y"], ["c"])
    network.layer("addBroadcastable", "last", ["y", "c"], ["z"])
    actual = Session(network.network).run({"x": np.full(1, 4, np.float32)}, ["z", "c"])
    assert (actual["z"], actual["c"]) == (10, 5)


def test_a_part_of_one_sample_beside_one_of_many() -> None:
    """Convolutions of an input of one sample stay of one, whatever stands beside them."""
    builder = Builder()
    builder.input("one", (1, 2, 4, 4))
    builder.input("many", (3, 2, 4, 4))
    for name in ("one", "many"):
        builder.layer(
            "convolution", f"conv_{name}", [name], [f"c_{name}"], outputChannels=2,
            kernelChannels=2, kernelSize=[1, 1], valid={}, weights=np.ones(4, np.float32),
        )  # fmt: skip
        builder.layer("activation", f"relu_{name}", [f"c_{name}"], [f"y_{name}"], ReLU={})
        builder.output(f"y_{name}")
    data = {"one": np.ones((1, 2, 4, 4)), "many": np.ones((3, 2, 4, 4))}
    actual = mlferry.MLModel(builder.model()).predict(data)
    assert {name: array.shape for name, array in actual.items()} == {
        "y_one": (1, 2, 4, 4), "y_many": (3, 2, 4, 4),
    }  # fmt: skip
