"""Planned parts on arrays: the same numbers as layer by layer, whatever the network."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="Numba is not installed: nothing on arrays is planned")

import mlferry
from mlferry import lanes
from mlferry.errors import PredictionError, SpecError
from mlferry.layers.builder import Builder
from mlferry.runtime.planned import worth
from mlferry.runtime.planned.arrays import parts
from mlferry.runtime.planned.arrays.plan import ArrayPlan
from mlferry.runtime.planned.arrays.region import ArrayRegion
from mlferry.runtime.session import Session
from mlferry.runtime.threads import blas

STEPS, SIZE = 18, 20
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


def comparisons(n: Network) -> str:
    """Of whole numbers, some of which are the same, and of what broadcasts."""
    line = {"linear": {"alpha": -2.5, "beta": 0.5}}
    whole = n.put("round", n.put("activation", n.dense("x", SIZE), **line))
    row, total = n.put("round", n.dense("x", 1)), whole
    for kind in ("equal", "notEqual", "lessThan", "lessEqual", "greaterThan", "greaterEqual"):
        with_number = n.put(kind, whole, alpha=1.0)
        total = n.put("add", total, with_number, n.put(kind, row, total))
    return total


def gathered(n: Network) -> str:
    """Of a constant and of what is computed, by places of any shape, backwards, with fractions."""
    places = n.put("clip", n.put("activation", n.dense("x", 3), linear={"alpha": 40.0}),
                   minVal=-6.9, maxVal=6.9)  # fmt: skip
    a = n.put("gather", n.constant(7, 5), places)
    b = n.put("gather", n.put("transpose", n.dense("x", 4), axes=(1, 0, 2)), places)
    c = n.put("reduceSum", b, axes=[-2, -1], keepDims=False)
    few = n.put("clip", n.put("reduceMax", places, axes=[0, 1]), minVal=-4.9, maxVal=4.9)
    d = n.put("gather", a, few, axis=-1)
    return n.put("addBroadcastable", n.put("reduceSum", d, axes=[-1], keepDims=False), c)


def one_entry(n: Network) -> str:
    """NumPy copies a single entry, where it looks at several."""
    x = n.dense("x", SIZE)
    entry = n.put(
        "sliceStatic", x, beginIds=[0, 2, 3], endIds=[1, 3, 4], strides=[1, 1, 1],
        beginMasks=[False] * 3, endMasks=[False] * 3, squeezeMasks=[True] * 3,
    )  # fmt: skip
    return n.norm(n.put("multiplyBroadcastable", x, entry))


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
    "comparisons": comparisons,
    "gathered": gathered,
    "one entry": one_entry,
}


def agree(network: Any, inputs: dict[str, Array], expected: list[str]) -> list[Any]:
    """Run both ways; returns what the plan runs as one."""
    planned, plain = Session(network), Session(network, planned=False, compiled=False)
    for change in (1, 1, -2):  # later times on memory that is full
        given = {name: np.float32(change) * x for name, x in inputs.items()}
        actual, right = planned.run(given, expected), plain.run(given, expected)
        for name in expected:
            assert actual[name].shape == right[name].shape
            whole = right[name]
            span = max(float(np.ptp(whole) if whole.size > 1 else np.abs(whole).max()), 1e-3)
            assert np.abs(actual[name] - right[name]).max() <= 1e-5 * span, name
    each = planned.run_each({name: np.stack([0 * x, x, x]) for name, x in inputs.items()}, expected)
    if each is not None:
        single = planned.run(inputs, expected)
        for name, blobs in each.blobs.items():
            np.testing.assert_array_equal(blobs[1:], [single[name]] * 2, name)
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


def test_views_that_are_shown_lie_as_without_a_plan() -> None:
    """NumPy sums in the order of the memory: what follows has the same bits either way."""
    network = Network()
    view = network.put("transpose", network.dense("x", SIZE), axes=(2, 1, 0))
    sample = {"x": normal(1, STEPS, SIZE)}
    planned, plain = (Session(network.network, planned=each) for each in (True, False))
    one, other = (session.run(sample, [view])[view] for session in (planned, plain))
    assert all(is_planned(part.region) for part in planned._program(frozenset([view])).parts)
    assert one.strides == other.strides
    assert not one.flags.c_contiguous


def lstm(n: int, units: int, directions: int, place: int = 0, **how: Any) -> dict[str, Any]:
    """The parameters of an LSTM with sigmoid and tanh."""
    gates = ("inputGate", "forgetGate", "blockInput", "outputGate")
    weights = [
        {
            f"{gate}{what}": normal(*shape, seed=place + 7 * number + d)
            for number, gate in enumerate(gates)
            for what, shape in (
                ("WeightMatrix", (units, n)),
                ("RecursionMatrix", (units, units)),
                ("BiasVector", (units,)),
            )
        }
        for d in range(directions)
    ]
    kinds = [{"sigmoid": {}}, {"tanh": {}}, {"tanh": {}}]
    options = {"hasBiasVectors": True, "cellClipThreshold": 2.0, "sequenceOutput": True} | how
    names = ("activationsForwardLSTM", "activationsBackwardLSTM")[:directions]
    activations = dict.fromkeys(names if directions > 1 else ("activations",), kinds)
    return {
        "inputVectorSize": n, "outputVectorSize": units, "params": options, **activations,
        "weightParams": weights if directions > 1 else weights[0],
    }  # fmt: skip


RECURRENT = {
    "forward": {"directions": 1},
    "backward": {"directions": 1, "reverseInput": True},
    "both": {"directions": 2},
    "the last step of both": {"directions": 2, "sequenceOutput": False},
    "the last step": {"directions": 1, "sequenceOutput": False},
}


@pytest.mark.parametrize("units", [3, 16])
@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("given", [False, True], ids=["from zeros", "from states"])
@pytest.mark.parametrize("name", list(RECURRENT))
def test_lstm(name: str, given: bool, batch: int, units: int) -> None:
    """Two of them, the second with the last states of the first where states are given."""
    how = dict(RECURRENT[name])
    directions = how.pop("directions")
    back = {"reverseInput": how.pop("reverseInput")} if "reverseInput" in how else {}
    kind = "biDirectionalLSTM" if directions > 1 else "uniDirectionalLSTM"
    network = Network((STEPS, batch, SIZE, 1, 1))
    inputs, sizes, states = ["x"], SIZE, 2 * directions
    every = []
    for number in range(2):
        outputs = [f"y{number}", *(f"s{number}_{state}" for state in range(states))]
        whole = {**how, "sequenceOutput": True} if number == 0 else how
        params = lstm(sizes, units, directions, number, **whole)
        network.layer(kind, f"l{number}", inputs, outputs, **params, **back)
        sizes, every = units * directions, [*every, *outputs]
        inputs = outputs if given else outputs[:1]
    sample = {"x": normal(STEPS, batch, SIZE, 1, 1)}
    assert all(map(is_planned, agree(network.network, sample, every)))


@pytest.mark.parametrize("seed", range(40))
def test_networks_put_together_at_random(seed: int) -> None:
    """Layers that take any of the blobs before, several of which are shown."""
    rng = np.random.default_rng(seed)
    n = Network()
    names = ["x"]
    for number in range(int(rng.integers(4, 16))):
        one, other = (names[int(rng.integers(max(0, len(names) - 4), len(names)))] for _ in "ab")
        choices: list[Callable[[], str]] = [
            lambda x=one, odd=bool(number % 2): n.dense(x, SIZE, bias=odd),
            lambda x=one: n.relu(n.dense(x, SIZE)),
            lambda x=one, y=other: n.put("addBroadcastable", n.dense(x, SIZE), y),
            lambda x=one, y=other: n.put("multiplyBroadcastable", x, y),
            lambda x=one: n.norm(x),
            lambda x=one: n.put("softmaxND", x, axis=int(rng.integers(-3, 0))),
            lambda x=one: n.put("tanh", x),
            lambda x=one: n.put("sliceStatic", x, beginIds=[0] * 3, endIds=[-1] * 3,
                                strides=[1, -1, 1], beginMasks=[True] * 3, endMasks=[True] * 3),
            lambda x=one, y=other: n.put(
                "batchedMatmul", n.put("batchedMatmul", x, y, transposeB=True), y
            ),
            lambda x=one: n.put("transpose", n.put("batchedMatmul", x, x, transposeA=True),
                                axes=[0, 2, 1]),
            lambda x=one: n.put("reverse", x, reverseDim=[False, True, False]),
        ]  # fmt: skip
        made = choices[int(rng.integers(len(choices)))]()
        if n.shapes[made] == (1, STEPS, SIZE):
            names.append(made)
    every = [name for layer in n.network.layers for name in layer.output]
    shown = sorted({every[-1], *rng.choice(every, 3)})
    agree(n.network, {"x": normal(1, STEPS, SIZE, seed=seed)}, shown)


def test_a_copy_in_the_place_of_a_view_is_made_in_each_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would hold what was there when the plan was made."""
    start = parts.Viewed.__init__

    def copying(part: parts.Viewed, views: Any) -> None:
        start(part, lambda x: tuple(view.copy() for view in views(x)))

    monkeypatch.setattr(parts.Viewed, "__init__", copying)
    network = Network()
    last = pieces(network)
    assert all(map(is_planned, agree(network.network, {"x": normal(1, STEPS, SIZE)}, [last])))


@pytest.fixture
def as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are made where they are for users, not everywhere."""
    for name, value in (("LEAST_STEPS", 3), ("LEAST_WORTH", 2)):
        monkeypatch.setattr(worth, name, value)


def test_rare_shapes_do_not_displace_others() -> None:
    """Sixteen sets of shapes are planned at once; later ones only when they have come often."""
    network = Network()
    last = attention(network)
    session = Session(network.network)
    (part,) = session._program(frozenset([last])).parts
    assert isinstance(part.region, ArrayRegion)
    planned = part.region.pool.plans

    def run(batch: int) -> None:
        session.run({"x": normal(batch, STEPS, SIZE)}, [last])

    for batch in range(1, 20):
        run(batch)
        assert [shape[0] for (shape,) in planned] == list(range(1, 1 + min(batch, 16)))
    for _ in range(worth.OFTEN - 2):
        run(18)
    assert ((18, STEPS, SIZE),) not in planned
    run(18)
    assert [shape[0] for (shape,) in planned] == [*range(2, 17), 18]


@pytest.mark.usefixtures("as_usual")
def test_a_few_cheap_layers_are_not_planned() -> None:
    network = Network()
    last = network.put("softmaxND", network.relu(network.dense("x", 5)), axis=-1)
    one, two = Network(), Network()
    regions = [
        [part.region is not None for part in Session(n.network)._program(frozenset([end])).parts]
        for n, end in (
            (network, last),
            (one, one.norm(one.dense("x", 5))),
            (two, two.relu(two.put("tanh", two.relu("x")))),
        )
    ]
    assert regions == [[True], [False, False], [False, False, False]]


def test_without_numba_nothing_is_planned() -> None:
    network = Network()
    last = attention(network)
    session = Session(network.network, compiled=False)
    session.run({"x": normal(1, STEPS, SIZE)}, [last])
    assert not any(part.region for part in session._program(frozenset([last])).parts)


def test_memory_is_reused() -> None:
    """A chain needs memory to read and to write, however long it is."""
    sizes = []
    for count in (4, 24):
        network, x = Network(), "x"
        for _ in range(count):
            x = network.norm(network.put("tanh", network.dense(x, SIZE)))
        session = Session(network.network)
        session.run({"x": normal(1, STEPS, SIZE)}, [x])
        (part,) = session._program(frozenset([x])).parts
        ((plan,),) = part.region.pool.plans.values()
        memories = {id(m): m.values.size for each in plan._memory.values() for m in each}
        sizes.append(sum(memories.values()))
    assert sizes[0] == sizes[1] <= 4 * STEPS * SIZE


def test_results_are_not_overwritten_by_the_next_run() -> None:
    network = Network()
    last = attention(network)
    session = Session(network.network)
    samples = [normal(1, STEPS, SIZE, seed=seed) for seed in range(3)]
    kept = [session.run({"x": x}, [last])[last] for x in samples]
    before = [x.copy() for x in kept]
    session.run({"x": samples[0] * 9}, [last])
    for one, other in zip(kept, before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_session_in_many_threads() -> None:
    network = Network()
    last = encoder(network)
    session, plain = Session(network.network), Session(network.network, planned=False)
    samples = [normal(1, STEPS, SIZE, seed=seed) for seed in range(24)]
    results: dict[int, Array] = {}

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
        np.testing.assert_allclose(results[index], right, rtol=0, atol=1e-5 * np.ptp(right))


@pytest.mark.parametrize("name", ["encoder", "functions"])
def test_the_bits_are_the_same_on_any_number_of_cores(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes the tasks, and however they are cut."""
    network = Network()
    last = NETWORKS[name](network)
    sample = {"x": normal(5, STEPS, SIZE)}
    right = Session(network.network, threads=1).run(sample, [last])[last]
    monkeypatch.setattr("mlferry.compiled.tasks._LEAST", 100)
    monkeypatch.setattr("mlferry.runtime.planned.arrays.plan.WORTH_A_THREAD", 0)
    for cores in (1, 3):
        monkeypatch.setattr(lanes, "cores", lambda cores=cores: cores)
        monkeypatch.setattr(lanes, "free_cores", lambda awake, cores=cores: cores - 1)
        monkeypatch.setattr(lanes, "_helpers", lanes._Helpers())
        session = Session(network.network)
        for _ in range(20):
            np.testing.assert_array_equal(session.run(sample, [last])[last], right)


def test_layers_that_are_left_to_numpy_multiply_on_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And never warn, whether the plan is all of the network or a part of it."""
    seen, number = [], [4]
    monkeypatch.setattr(
        blas, "control", lambda: blas.Control(lambda: number[0], lambda n: number.__setitem__(0, n))
    )
    evaluate = ArrayPlan.evaluate

    def watched(plan: ArrayPlan, step: Any, kernel: Any) -> None:
        def seeing(*operands: Array) -> Any:
            seen.append((number[0], {*np.geterr().values()}))
            return kernel(*operands)

        evaluate(plan, step, seeing)

    monkeypatch.setattr(ArrayPlan, "evaluate", watched)
    network = Network()
    last = functions(network)
    alone = Session(network.network)
    alone.run({"x": normal(1, STEPS, SIZE)}, [last])
    assert len(alone._program(frozenset([last])).parts) == 1
    count = len(seen)
    partly = Session(network.network)
    partly.run({"x": normal(1, STEPS, SIZE)}, [last, "x"])
    assert seen == [(1, {"ignore"})] * 2 * count
    assert count
    assert number == [4]


def test_a_plan_that_cannot_run_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network((1, 4))
    table = network.constant(7, SIZE)
    network.layer("gather", "look up", [table, "x"], ["rows"], axis=0)
    last = network.norm(network.dense("rows", SIZE))
    tried: list[object] = []
    run = ArrayRegion.run
    monkeypatch.setattr(ArrayRegion, "run", lambda self, x: tried.append(x) or run(self, x))
    session = Session(network.network)
    with pytest.raises(PredictionError, match=r"running gather 'look up'"):
        session.run({"x": np.array([[0, 1, 2, 7]], np.float32)}, [last])
    assert len(tried) == 1
    session.run({"x": np.array([[0, 1, 2, 6]], np.float32)}, [last])
    assert len(tried) == 2


def test_an_error_of_a_layer_names_it_and_leaves_the_plan_usable() -> None:
    network = Network((1, 4))
    table = network.constant(7, SIZE)
    network.layer("gather", "look up", [table, "x"], ["rows"], axis=0)
    last = network.norm(network.dense("rows", SIZE))
    session = Session(network.network)
    right = session.run({"x": np.array([[0, 1, 2, 6]], np.float32)}, [last])[last]
    for index in (7, -8, 1e9):
        with pytest.raises(PredictionError, match=r"running gather 'look up'"):
            session.run({"x": np.array([[0, 1, 2, index]], np.float32)}, [last])
    again = session.run({"x": np.array([[0, 1, 2, 6]], np.float32)}, [last])[last]
    np.testing.assert_array_equal(right, again)


def test_shapes_that_do_not_fit_are_refused_as_layer_by_layer() -> None:
    network = Network()
    last = attention(network)
    session = Session(network.network)
    for _ in range(2):
        with pytest.raises(SpecError, match=r"running innerProduct 'innerProduct_0'"):
            session.run({"x": normal(1, STEPS, SIZE + 1)}, [last])


# ---- several samples in one call -------------------------------------------------------

COMPILED = ("attention", "encoder", "transposed products", "merged ends", "late operand", "joins")
"""Networks of which no layer is left to NumPy."""


@pytest.fixture
def three_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "cores", lambda: 3)
    monkeypatch.setattr(lanes, "free_cores", lambda awake=0: 2)
    monkeypatch.setattr(lanes, "_helpers", lanes._Helpers())


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.usefixtures("three_cores")
def test_samples_in_one_call_have_the_bits_of_single_ones(name: str, threads: int) -> None:
    network = Network()
    last = NETWORKS[name](network)
    session, single = (Session(network.network, threads=n) for n in (threads, 1))
    samples = normal(11, 1, STEPS, SIZE)
    right = [single.run({"x": x}, [last])[last] for x in samples]
    for count in (1, 2, 11, 11):
        x = np.asfortranarray(samples[:count]) if count == 2 else samples[:count]
        found = session.run_each({"x": x}, [last])
        assert found is not None
        assert found.fails == [False] * count
        np.testing.assert_array_equal(found.blobs[last], right[:count])
    (region,) = (part.region for part in session._program(frozenset([last])).parts)
    assert isinstance(region, ArrayRegion)
    ((plans),) = region.pool.plans.values()
    assert len(plans) == threads


@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {*COMPILED, "twice"}))
@pytest.mark.usefixtures("three_cores")
def test_layers_that_are_left_to_numpy_run_for_each_sample(name: str) -> None:
    network = Network()
    last = NETWORKS[name](network)
    session = Session(network.network)
    assert session.run_each({"x": normal(4, 1, STEPS, SIZE)}, [last]) is None
    network.output(last)
    model = mlferry.MLModel(network.model())
    samples = [{"x": normal(1, STEPS, SIZE, seed=seed)} for seed in range(40)]
    for sample, found in zip(samples, model.predict(samples), strict=True):
        np.testing.assert_array_equal(found[last], session.run(sample, [last])[last])


def test_results_that_are_views() -> None:
    network = Network()
    dense = network.dense("x", SIZE)
    views = [
        network.put("transpose", dense, axes=(2, 1, 0)),
        network.put(
            "sliceStatic", dense, beginIds=[0, 1, 3], endIds=[1, STEPS, SIZE], strides=[1, 2, 5],
            beginMasks=[False] * 3, endMasks=[False] * 3,
        ),
        dense,
    ]  # fmt: skip
    session = Session(network.network)
    samples = normal(7, 1, STEPS, SIZE)
    found = session.run_each({"x": samples}, views)
    assert found is not None
    for number, sample in enumerate(samples):
        for name, right in session.run({"x": sample}, views).items():
            np.testing.assert_array_equal(found.blobs[name][number], right)


@pytest.mark.parametrize("at_once", [1, 1 << 40])
@pytest.mark.usefixtures("three_cores")
def test_what_single_runs_refuse_is_refused_in_a_list(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those before it have results, and those after it, too, once it is left out."""
    monkeypatch.setattr("mlferry.runtime.planned.arrays.region._AT_ONCE", at_once)
    network = Network((1, 4))
    table = network.constant(7, SIZE)
    network.layer("gather", "look up", [table, "x"], ["rows"], axis=0)
    last = network.norm(network.dense("rows", SIZE))
    network.output(last)
    model = mlferry.MLModel(network.model())
    indices = np.random.default_rng(1).integers(0, 7, (40, 1, 4)).astype(np.float32)
    right = [model.predict({"x": x})[last] for x in indices]
    for place, index in ((0, 7), (21, -8), (39, 1e9)):
        wrong = indices.copy()
        wrong[place, 0, 3] = index
        before: list[Array] = []
        results = model.predict(iter([{"x": x} for x in wrong]))
        with pytest.raises(PredictionError, match=r"running gather 'look up'"):
            before.extend(result[last] for result in results)
        np.testing.assert_array_equal(before, right[:place] if place else [])
        with pytest.raises(PredictionError, match=r"running gather 'look up'"):
            model.predict([{"x": x} for x in wrong])
        after = model.predict([{"x": x} for x in np.delete(wrong, place, axis=0)])
        kept = [x for number, x in enumerate(right) if number != place]
        np.testing.assert_array_equal([each[last] for each in after], kept)


GIVEN: dict[str, Callable[[Array], Any]] = {
    "float32": lambda x: x,
    "float64": lambda x: x.astype(np.float64),
    "float16": lambda x: x.astype(np.float16),
    "integers": lambda x: (x * 9).astype(np.int64),
    "lists of lists": lambda x: x.tolist(),
    "parts of others": lambda x: np.repeat(x, 2, axis=2)[..., ::2],
    "transposed": np.asfortranarray,
    "nothing may write to it": lambda x: np.frombuffer(x.tobytes(), np.float32).reshape(x.shape),
}


@pytest.mark.parametrize("threads", [1, None])
@pytest.mark.parametrize("given", list(GIVEN))
@pytest.mark.usefixtures("three_cores")
def test_lists_of_anything_that_single_runs_take(given: str, threads: int | None) -> None:
    network = Network()
    last = encoder(network)
    network.output(last)
    model = mlferry.MLModel(network.model(), threads=threads)
    samples = [{"x": GIVEN[given](normal(1, STEPS, SIZE, seed=seed))} for seed in range(40)]
    right = [model.predict(sample)[last] for sample in samples]
    for found in (model.predict(samples), list(model.predict(iter(samples)))):
        np.testing.assert_array_equal([each[last] for each in found], right)
        assert {each[last].dtype for each in found} == {right[0].dtype}
    mixed = [*samples, {"x": normal(1, STEPS, SIZE + 1)}]
    with pytest.raises(PredictionError, match=f"{SIZE + 1}"):
        model.predict(mixed)
    found[0][last][:] = 0  # nobody else's
    for each, expected in zip(found[1:], right[1:], strict=True):
        np.testing.assert_array_equal(each[last], expected)


@pytest.mark.parametrize("most", [40 * STEPS * SIZE, 40 * STEPS * SIZE - 1])
def test_large_inputs_are_not_copied_for_one_call(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlferry.runtime.evaluators.network._JOINED_MOST", most)
    run_each, found = Session.run_each, []

    def noted(session: Session, samples: Any, outputs: Any) -> Any:
        found.append(len(samples["x"]))
        return run_each(session, samples, outputs)

    monkeypatch.setattr(Session, "run_each", noted)
    network = Network()
    last = encoder(network)
    network.output(last)
    model = mlferry.MLModel(network.model())
    samples = [{"x": normal(1, STEPS, SIZE, seed=seed)} for seed in range(40)]
    right = [model.predict(sample)[last] for sample in samples]
    np.testing.assert_array_equal([each[last] for each in model.predict(samples)], right)
    assert found == ([40] if most == 40 * STEPS * SIZE else [])


@pytest.mark.usefixtures("three_cores")
def test_lists_of_several_shapes() -> None:
    network = Network()
    x = "x"
    for _ in range(4):
        x = network.norm(network.put("tanh", network.dense(x, SIZE)))
    last = x
    session = Session(network.network)
    network.output(last)
    spec = network.model()
    kind = spec.description.input[0].type.multiArrayType
    for low, high in ((1, 1), (2, 40), (SIZE, SIZE)):
        kind.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
    model = mlferry.MLModel(spec)
    lengths = [9] * 20 + [STEPS, 9, 33] * 6 + [9] * 20
    samples = [{"x": normal(1, n, SIZE, seed=number)} for number, n in enumerate(lengths)]
    for chosen in (samples[:20], samples, samples[-20:]):
        for sample, found in zip(chosen, model.predict(chosen), strict=True):
            right = session.run(sample, [last])[last]
            np.testing.assert_array_equal(found[last], right)
