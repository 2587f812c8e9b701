"""Planned parts on arrays of programs: the same numbers as operation by operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="Numba is not installed: nothing on arrays is planned")

from mlferry.runtime.planned.arrays.region import ArrayRegion
from tests.programs.test_planned import Net

STEPS, SIZE = 18, 20


def normal(*shape: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).normal(0, 0.4, shape).astype(np.float32)


class Rows(Net):
    """A function of rows [batch, STEPS, SIZE]."""

    def __init__(self, half: bool, shape: tuple[int, ...] = (1, STEPS, SIZE)) -> None:
        super().__init__(half)
        self.shapes, self.inputs = {}, {}
        self.input("x", shape)

    def dense(self, x: str, count: int) -> str:
        place, inside = len(self.operations), self.shapes[x][-1]
        return self.op(
            "linear", x=x, weight=normal(count, inside, seed=place), bias=normal(count, seed=place)
        )

    def rows_normalized(self, x: str) -> str:
        n = self.shapes[x][-1]
        return self.op(
            "layer_norm", x=x, axes=[-1], gamma=normal(n), beta=normal(n, seed=2), epsilon=1e-2
        )

    def heads(self, x: str) -> str:
        apart = self.op("reshape", x=x, shape=[1, STEPS, 4, SIZE // 4])
        return self.op("transpose", x=apart, perm=[0, 2, 1, 3])


def attention(n: Rows) -> str:
    q, k, v = (n.heads(n.dense("x", SIZE)) for _ in range(3))
    scores = n.op("mul", x=n.op("matmul", x=q, y=k, transpose_x=False, transpose_y=True), y=0.5)
    chances = n.op("softmax", x=scores, axis=-1)
    mixed = n.op("matmul", x=chances, y=v, transpose_x=False, transpose_y=False)
    mixed = n.op("transpose", x=mixed, perm=[0, 2, 1, 3])
    merged = n.op("reshape", x=mixed, shape=[1, STEPS, SIZE])
    return n.rows_normalized(n.op("add", x=n.dense(merged, SIZE), y="x"))


def feed_forward(n: Rows) -> str:
    inner = n.relu(n.dense("x", 3 * SIZE))
    a = n.op("add", x="x", y=n.dense(inner, SIZE))
    b = n.op("clip", x=n.dense(a, SIZE), alpha=-0.3, beta=0.6)
    c = n.op("linear_activation", x=b, alpha=-1.7, beta=0.3)
    return n.op("gelu", x=n.op("sub", x=c, y=a), mode="EXACT")


def constants(n: Rows) -> str:
    """Constant operands on either side, with vectors, and shapes that broadcast."""
    a = n.op("matmul", x="x", y=normal(SIZE, 8), transpose_x=False, transpose_y=False)
    b = n.op("matmul", x=normal(2, 3, STEPS), y=a, transpose_x=False, transpose_y=False)
    c = n.op("real_div", x=1.5, y=n.op("exp", x=b))
    d = n.op("maximum", x=n.op("mul", x=normal(1, 3, 1), y=c), y=normal(8))
    return n.op("matmul", x=d, y=normal(8), transpose_x=False, transpose_y=False)


def other_axes(n: Rows) -> str:
    a = n.op("softmax", x=n.dense("x", SIZE), axis=1)
    b = n.op("transpose", x=a, perm=[1, 2, 0])
    c = n.op("squeeze", x=b, axes=[2])
    d = n.op("tanh", x=n.op("expand_dims", x=c, axes=[0]))
    return n.op("softmax", x=n.op("leaky_relu", x=d, alpha=0.1), axis=0)


def lstm(n: Rows, **how: Any) -> str:
    two = how.get("direction") == "bidirectional"
    units, both = 7, 14 if two else 7
    weights = {
        f"weight_{what}{end}": normal(4 * units, inner, seed=len(end))
        for what, inner in (("ih", SIZE), ("hh", units))
        for end in ("", "_back")[: 1 + two]
    }
    batch = n.shapes["x"][1]
    first = {name: normal(batch, both, seed=9) for name in ("initial_h", "initial_c")}
    rows = n.dense("x", SIZE)
    y = n.op("lstm", x=rows, bias=normal(4 * units), **first, **weights, **how)
    return n.op("tanh", x=y)


def one_entry(n: Rows) -> str:
    """NumPy copies a single entry, where it looks at several."""
    x = n.dense("x", SIZE)
    entry = n.op(
        "slice_by_index", x=x, begin=[0, 2, 3], end=[1, 3, 4], squeeze_mask=[True, True, True]
    )
    return n.op("tanh", x=n.op("mul", x=x, y=entry))


NETS: dict[str, Callable[[Rows], str]] = {
    "attention": attention,
    "feed forward": feed_forward,
    "constants": constants,
    "other axes": other_axes,
    "one entry": one_entry,
}


def agree(net: Rows, expected: list[str]) -> list[Any]:
    """Run both ways; returns what the plan runs as one."""
    half = net.dtype == "fp16"
    planned, plain = net.session(expected), net.session(expected, planned=False, compiled=False)
    for change in (1, 1, -2):  # later times on memory that is full
        inputs = {"x": change * normal(*net.shapes["x"])}
        actual, right = planned.run(inputs), plain.run(inputs)
        for name in expected:
            assert actual[name].dtype == right[name].dtype == (np.float16 if half else np.float32)
            one, other = (np.asarray(each[name], np.float64) for each in (actual, right))
            assert one.shape == other.shape
            span = max(np.ptp(other) if other.size > 1 else np.abs(other).max(), 1e-3)
            assert np.abs(one - other).max() <= (4e-3 if half else 1e-5) * span
    (parts,) = planned._plan.schedules.values()
    return [part.region for part in parts]


def is_planned(region: Any) -> bool:
    return isinstance(region, ArrayRegion) and bool(region.pool.plans) and not region.pool.refused


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", list(NETS))
def test_planned_and_plain_agree(name: str, half: bool) -> None:
    net = Rows(half)
    last = NETS[name](net)
    assert all(map(is_planned, agree(net, [last])))
    agree(net, [value.name for each in net.operations for value in each.outputs])


@pytest.mark.parametrize("half", [False, True])
def test_pieces(half: bool) -> None:
    """An operation of several outputs, which are views."""
    net = Rows(half)
    left = net.op("split", x=net.dense("x", SIZE), num_splits=2, axis=-1)
    last = net.op("mul", x=net.op("sigmoid", x=left), y=f"{left}_1")
    assert all(map(is_planned, agree(net, [last, f"{left}_1"])))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("sequence", [True, False])
def test_lstm(direction: str, sequence: bool, batch: int, half: bool) -> None:
    net = Rows(half, (STEPS, batch, SIZE))
    last = lstm(net, direction=direction, output_sequence=sequence, clip=0.9)
    assert all(map(is_planned, agree(net, [last])))


@pytest.mark.parametrize("seed", range(40))
def test_programs_put_together_at_random(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = Rows(half=bool(seed % 2))
    names = ["x"]
    for _ in range(int(rng.integers(4, 14))):
        one, other = (names[int(rng.integers(max(0, len(names) - 4), len(names)))] for _ in "ab")
        makers: list[Callable[[], str]] = [
            lambda x=one: net.dense(x, SIZE),
            lambda x=one: net.relu(net.dense(x, SIZE)),
            lambda x=one, y=other: net.op("add", x=net.dense(x, SIZE), y=y),
            lambda x=one, y=other: net.op("maximum", x=x, y=y),
            lambda x=one: net.op("mul", x=x, y=normal(1, STEPS, 1)),
            lambda x=one: net.rows_normalized(x),
            lambda x=one: net.op("softmax", x=x, axis=int(rng.integers(-3, 0))),
            lambda x=one: net.op("sigmoid", x=x),
            lambda x=one: net.op("square", x=x),
            lambda x=one: net.op("identity", x=x),
            lambda x=one, y=other: net.op(
                "matmul", y=y, transpose_x=False, transpose_y=False,
                x=net.op("matmul", x=x, y=y, transpose_x=False, transpose_y=True),
            ),
        ]  # fmt: skip
        names.append(makers[int(rng.integers(len(makers)))]())
    agree(net, sorted({names[-1], *map(str, rng.choice(names[1:], 2))}))


def test_every_value_is_rounded_where_the_program_rounds_it() -> None:
    """A sum that float16 loses on the way, merged into the product before it: it stays lost."""
    net = Rows(half=True)
    large = net.op("add", x=net.dense("x", SIZE), y=net.op("add", x="x", y=2048.0))
    last = net.op("sub", x=net.relu(large), y=2048.0)
    assert all(map(is_planned, agree(net, [last])))
    actual = net.session([last]).run({"x": normal(1, STEPS, SIZE)})[last].astype(np.float32)
    assert set(np.unique(actual % 1)) <= {0.0}
    assert len(np.unique(actual)) > 2


def test_a_constant_is_packed_once_for_all_shapes() -> None:
    net = Rows(half=True)
    last = net.op("matmul", x="x", y=normal(SIZE, 64), transpose_x=False, transpose_y=False)
    session = net.session([last])
    session.run({"x": normal(1, STEPS, SIZE)})
    ((part,),) = session._plan.schedules.values()
    (step,) = part.steps
    first = step.array_part._kept
    part.region.pool.plans.clear()
    session.run({"x": normal(1, STEPS, SIZE)})
    assert first is not None
    assert step.array_part._kept is first


def test_constants_that_do_not_stay_widened_are_not_kept() -> None:
    net = Rows(half=True)
    table = normal(SIZE, 400)
    last = net.op("matmul", x="x", y=table, transpose_x=False, transpose_y=False)
    last = net.op("add", x=last, y=normal(1, STEPS, 400))
    session = net.session([last], widened=False)
    session.run({"x": normal(1, STEPS, SIZE)})
    (parts,) = session._plan.schedules.values()
    assert [part.region for part in parts] == [None, None]
