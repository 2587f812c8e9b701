"""Calibrated rounding, compiled and with NumPy, beside loops over single inputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from mlferry import lanes
from mlferry.compiled import is_available, using
from mlferry.models.quantization.in_turn import Floats
from mlferry.models.quantization.rounding import (
    Course,
    Dense,
    Diagonal,
    Grid,
    LinearGrid,
    Moments,
    Sharing,
    TableGrid,
    VectorGrid,
    best_range,
    choose,
)

WAYS = [False, True] if is_available() else [False]
PASSES = 2


def vectors(target: Floats, bits: int, length: int, sharing: Sharing) -> VectorGrid:
    """Tables of any vectors, which takes less time than to look for good ones."""
    which = sharing.tables(*target.shape)
    which = None if which is None else which[:, :, ::length]
    count = 1 if which is None else which.max() + 1
    tables = np.random.default_rng(bits).normal(size=(count, 1 << bits, length))
    return VectorGrid(tables, which, sharing.rows)


# a grid for target weights and the importance of every input
GRIDS: dict[str, Callable[[Floats, Floats], Grid]] = {
    "linear": lambda t, i: LinearGrid.fitted(t, i, 4),
    "linear, 1 bit": lambda t, i: LinearGrid.fitted(t, i, 1),
    "linear, 8 bits": lambda t, i: LinearGrid.fitted(t, i, 8),
    "symmetric": lambda t, i: LinearGrid.fitted(t, i, 4, centre=8),
    "shared": lambda t, i: LinearGrid.fitted(t, i, 3, shared=True),
    "one table": lambda t, i: TableGrid.fitted(t, 4),
    "one table, 6 bits": lambda t, i: TableGrid.fitted(t, 6),
    "tables of outputs": lambda t, i: TableGrid.fitted(t, 2, Sharing(6, 0)),
    "tables of inputs": lambda t, i: TableGrid.fitted(t, 3, Sharing(0, 5)),
    "tables of both": lambda t, i: TableGrid.fitted(t, 2, Sharing(6, 5, 3)),
    "vectors": lambda t, i: vectors(t, 4, 2, Sharing()),
    "vectors of outputs": lambda t, i: vectors(t, 2, 3, Sharing(6, 0)),
    "vectors of inputs": lambda t, i: vectors(t, 3, 2, Sharing(0, 15)),
}
# groups, inputs, outputs, and where the inputs are cut into blocks that are independent
SHAPES = {
    "one block": (1, 75, 12, []),
    "many outputs": (1, 15, 150, []),
    "groups": (3, 30, 6, []),
    "independent blocks": (2, 135, 12, [75]),
}


def blocks_of(inputs: int, cuts: list[int]) -> list[slice]:
    return [slice(*ends) for ends in itertools.pairwise([0, *cuts, inputs])]


def second_moments(groups: int, blocks: list[slice]) -> list[Floats]:
    """Of inputs of which neighbours go together, [groups, size, size] for each block."""
    rng = np.random.default_rng(groups)
    own = []
    for block in blocks:
        size = block.stop - block.start
        rows = rng.normal(size=(groups, size, 3 * size)).cumsum(axis=1)
        own.append(rows @ rows.swapaxes(1, 2) / rows.shape[2])
    return own


def case(groups: int, inputs: int, outputs: int, cuts: list[int]) -> tuple[Floats, Dense, Floats]:
    """Weights, moments, and these as whole matrices, [groups, inputs, inputs]."""
    blocks = blocks_of(inputs, cuts)
    moments = Dense(second_moments(groups, blocks), None, blocks)
    whole = np.zeros((groups, inputs, inputs))
    for block, each in zip(blocks, moments.own, strict=True):
        whole[:, block, block] = each
    weights = np.random.default_rng((inputs, outputs)).normal(size=(groups, inputs, outputs))
    return weights, moments, whole


def error_of(target: Floats, quantized: Floats, whole: Floats) -> float:
    off = target - quantized
    return float(((whole @ off) * off).sum())


def rounded_in_turn(target: Floats, whole: Floats, grid: Grid, blocks: list[slice]) -> Floats:
    """Each error is spread over the inputs that are left, which then are fewer by one."""
    left, quantized = target.copy(), np.empty_like(target)
    for block in blocks:
        inverse = np.linalg.inv(whole[:, block, block])
        for j in np.argsort(-np.einsum("gii->i", whole[:, block, block]), kind="stable"):
            row = block.start + j
            quantized[:, row] = grid.near_row(left[:, row], int(row))
            error = (left[:, row] - quantized[:, row]) / inverse[:, j, j, None]
            left[:, block] -= inverse[:, :, j, None] * error[:, None]
            gone = inverse[:, :, j, None] * inverse[:, None, j] / inverse[:, j, j, None, None]
            inverse = inverse - gone
            inverse[:, j, j] = 1  # it is not asked for again
    return quantized


def descended_in_turn(target: Floats, start: Floats, whole: Floats, grid: Grid) -> Floats:
    quantized = start.copy()
    for _ in range(PASSES):
        for row in range(target.shape[1]):
            pull = np.einsum("gi,gio->go", whole[:, row], target - quantized)
            wanted = quantized[:, row] + pull / whole[:, row, row, None]
            quantized[:, row] = grid.near_row(wanted, row)
    return quantized


@pytest.mark.parametrize("compiled", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", GRIDS)
def test_rounding_and_descent_beside_loops(name: str, shape: str, compiled: bool) -> None:
    target, moments, whole = case(*SHAPES[shape])
    grid = GRIDS[name](target, moments.diagonal)
    with using(compiled):
        rounded = moments.round(target, grid)
        start = grid.near(target)
        course = Course(target, start, moments)
        moments.descend(course, grid)
    moved = course.quantized
    scale = np.abs(course.goal).max()
    np.testing.assert_allclose(course.pull, whole @ (target - moved), rtol=0, atol=1e-9 * scale)
    for actual, right in (
        (rounded, rounded_in_turn(target, whole, grid, list(moments.blocks))),
        (moved, descended_in_turn(target, start, whole, grid)),
    ):
        assert (np.abs(actual - right) < 1e-9).mean() > 0.99  # where two are as near, either
        error = error_of(target, right, whole)
        assert error_of(target, actual, whole) == pytest.approx(error, rel=0.02)
        np.testing.assert_allclose(grid.near(actual), actual, rtol=0, atol=1e-12)
    assert error_of(target, moved, whole) < error_of(target, start, whole)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_target_solves_for_the_quantized_inputs(shape: str) -> None:
    groups, inputs, outputs, cuts = SHAPES[shape]
    rng = np.random.default_rng(1)
    weights, blocks = rng.normal(size=(groups, inputs, outputs)), blocks_of(inputs, cuts)
    own = second_moments(groups, blocks)
    cross = [rng.normal(size=each.shape) for each in own]
    right = np.empty_like(weights)
    for group, (block, q, f) in itertools.product(
        range(groups), zip(blocks, own, cross, strict=True)
    ):
        damping = 0.01 * np.trace(q[group]) / len(q[group]) * np.eye(len(q[group]))
        pulled = (f[group].T + damping) @ weights[group, block]
        right[group, block] = np.linalg.solve(q[group] + damping, pulled)
    moments = Dense(own, cross, blocks)
    actual = moments.target(weights)
    np.testing.assert_allclose(actual, right, rtol=1e-6, atol=1e-8 * np.abs(right).max())


def least_error(target: Floats, codes: Floats, grid: LinearGrid, whole: Floats) -> float:
    """Of all scales and biases for some indices, by the square root of the moments."""
    root = np.linalg.cholesky(whole).swapaxes(1, 2)
    goals = root @ target
    if grid.centre is not None:
        columns = [root @ (codes.astype(float) - grid.centre)]
    else:
        columns = [root @ codes.astype(float), root @ np.ones(target.shape)]
    alone = [(group, slice(n, n + 1)) for group, n in np.ndindex(len(target), target.shape[2])]
    total = 0.0
    for group, some in [(slice(None), slice(None))] if grid.scale.size == 1 else alone:
        basis = np.stack([column[group, ..., some].reshape(-1) for column in columns], axis=1)
        goal = goals[group, ..., some].reshape(-1)
        total += np.square(goal - basis @ np.linalg.lstsq(basis, goal, rcond=None)[0]).sum()
    return total


@pytest.mark.parametrize("compiled", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_is_fitted_to_its_weights(name: str, shape: str, compiled: bool) -> None:
    """To the least error; what pulls at the weights of an entry together all but vanishes."""
    target, moments, whole = case(*SHAPES[shape])
    grid = GRIDS[name](target, moments.diagonal)
    with using(compiled):
        course = Course(target, grid.near(target), moments)
        start, before = course.quantized, course.pull
        codes = start.round(9)
        grid.refit(course)
    after = whole @ (target - course.quantized)
    np.testing.assert_allclose(course.pull, after, rtol=0, atol=1e-9 * np.abs(course.goal).max())
    assert error_of(target, course.quantized, whole) < error_of(target, start, whole)
    if isinstance(grid, LinearGrid):
        least = least_error(target, grid.indices(course.quantized), grid, whole)
        gain = error_of(target, start, whole) - error_of(target, course.quantized, whole)
        assert gain > 0.8 * (error_of(target, start, whole) - least)  # the fit is damped a little
        return
    part = [
        np.abs([pull[codes == code].sum() for code in np.unique(codes)]).sum()
        for pull in (after, before)
    ]
    assert part[0] < 0.2 * part[1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", GRIDS)
def test_both_ways_choose_about_as_well(name: str, shape: str) -> None:
    weights, _, whole = case(*SHAPES[shape])
    found = {}
    for compiled in WAYS:
        _, moments, _ = case(*SHAPES[shape])
        with using(compiled):
            grid, quantized = choose(weights, moments, GRIDS[name])
        found[compiled] = error_of(weights, quantized, whole)
        np.testing.assert_allclose(grid.near(quantized), quantized, rtol=0, atol=1e-9)
        start = GRIDS[name](weights, moments.diagonal).near(weights)
        assert found[compiled] < 0.5 * error_of(weights, start, whole)
    assert found[WAYS[-1]] == pytest.approx(found[False], rel=0.05)


@pytest.mark.skipif(not is_available(), reason="Numba is not installed")
@pytest.mark.parametrize("kind", ["dense", "diagonal"])
@pytest.mark.parametrize("shape", SHAPES)
def test_how_entries_go_together_beside_one_hot_codes(shape: str, kind: str) -> None:
    _, dense, whole = case(*SHAPES[shape])
    groups, inputs, vectors = SHAPES[shape][:3]
    moments: Moments = dense
    if kind == "diagonal":
        moments = Diagonal(np.random.default_rng(2).uniform(size=(groups, inputs)))
        whole = moments.diagonal[:, :, None] * np.eye(inputs)
    rng = np.random.default_rng(3)
    entries, tables = 5, 4
    codes = rng.integers(0, entries, (groups, inputs, vectors))
    which = rng.integers(0, tables, (groups, vectors))
    which[0, 0] = tables - 1
    right = np.zeros((tables, entries, entries))
    for group, vector in np.ndindex(groups, vectors):
        chosen = np.eye(entries)[codes[group, :, vector]]
        right[which[group, vector]] += chosen.T @ whole[group] @ chosen
    np.testing.assert_allclose(moments.normal(codes, which, entries), right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("compiled", WAYS)
@pytest.mark.parametrize("centre", [None, 8])
@pytest.mark.parametrize("shape", [(7, 40), (1, 700), (300, 5)])
def test_ranges_beside_a_loop(shape: tuple[int, int], centre: int | None, compiled: bool) -> None:
    rng = np.random.default_rng(4)
    rows, share = rng.normal(size=shape), rng.uniform(0.1, 1, shape)
    limits = rows.min(axis=1), rows.max(axis=1)
    if centre is not None:
        limits = -np.abs(rows).max(axis=1), np.abs(rows).max(axis=1)
    with using(compiled):
        scale, bias = best_range(rows, share, limits, 4, centre)

    def error(row: int, step: float, start: float) -> float:
        near = np.clip(np.rint((rows[row] - start) / step), 0, 15) * step + start
        return float((share[row] * np.square(rows[row] - near)).sum())

    for row in range(min(shape[0], 20)):
        low, middle, high = limits[0][row], rows[row].mean(), limits[1][row]
        least = np.inf
        for upper in np.linspace(0.4, 1, 13):
            for lower in [upper] if centre is not None else np.linspace(0.4, 1, 13):
                start, step = -8 * high * upper / 7, high * upper / 7
                if centre is None:
                    start = middle + (low - middle) * lower
                    step = (middle + (high - middle) * upper - start) / 15
                least = min(least, error(row, step, start))
        assert error(row, scale[row], bias[row]) == pytest.approx(least, rel=1e-3)


def test_rows_without_a_range() -> None:
    """Values that are all the same keep a step; what is no number takes no other's range."""
    rows = np.array([[2.0, 2, 2], [0, np.nan, 1], [0, 1, 3]])
    for compiled in WAYS:
        with using(compiled):
            scale, bias = best_range(rows, np.ones((3, 3)), (rows[:, 0], rows[:, 2]), 4)
        assert np.isfinite(scale).all()
        assert bias[0] == 2
        assert 0 < scale[2] < 0.21


@pytest.mark.parametrize("name", ["linear", "one table", "tables of outputs", "vectors of outputs"])
@pytest.mark.parametrize(("groups", "inputs", "outputs"), [(1, 180, 600), (24, 90, 66)])
def test_threads_change_nothing(
    name: str, groups: int, inputs: int, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = case(groups, inputs, outputs, [])[0]
    results = []
    for threads in (1, 4):
        monkeypatch.setattr(lanes, "cores", lambda threads=threads: threads)
        monkeypatch.setattr(lanes, "free_cores", lambda awake, threads=threads: threads - 1)
        moments = case(groups, inputs, outputs, [])[1]
        with lanes.at_most(threads):
            results.append(choose(weights, moments, GRIDS[name])[1])
    np.testing.assert_array_equal(*results)
