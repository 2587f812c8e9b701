"""Choose quantized weights so that a layer's outputs stay near those of the float model.

Arrays are [groups, inputs, outputs]: each group of outputs is a matrix product with its own
inputs. The error of weights Q against a target T is ``tr((T - Q)' H (T - Q))``, with H the
second moments of the inputs. The rounding follows GPTQ (Frantar et al. 2022); then grid and
indices are improved in turn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mlferry.compiled import is_active
from mlferry.lanes import in_parts
from mlferry.models.quantization.in_turn import (
    Floats,
    GridTables,
    Indices,
    RowGrid,
    compensated,
    descend,
    in_parts_of,
)
from mlferry.models.quantization.kmeans import kmeans_rows
from mlferry.models.quantization.vectors import kmeans_vectors

Singles = NDArray[np.float32]
DAMPING = 0.01  # of the mean of H's diagonal
ROUNDS = 3
_SMALL = 64  # matrices that are inverted as a whole
_GRADIENT_STEPS = 12
_RIDGE = 1e-4  # of the diagonal, in fits of tables
_FEW_ENTRIES = 32  # of a table, for which their normal matrix takes less time than these steps
_RANGE_COLUMNS = 512
_PASSES = 2  # how many multiplications take as long as the error of one value
# Which parts of the full range are tried, by bits: fewer bits gain from narrower ranges.
_PARTS = {
    1: np.linspace(0.05, 0.8, 16), 2: np.linspace(0.1, 1, 19), 3: np.linspace(0.3, 1, 15),
    4: np.linspace(0.4, 1, 13), 5: np.linspace(0.55, 1, 10), 6: np.linspace(0.7, 1, 7),
    7: np.linspace(0.8, 1, 5), 8: np.linspace(0.88, 1, 4),
}  # fmt: skip


class Course:
    """Weights on their way to a target: how they are quantized now, and what pulls at them.

    Args:
        target: [groups, inputs, outputs].
        quantized: likewise.
        moments: of the inputs.
    """

    def __init__(self, target: Floats, quantized: Floats, moments: Moments) -> None:
        self.target, self.quantized, self.moments = target, quantized, moments
        self.goal = moments.times(target)
        self._pull: Floats | None = None

    @property
    def pull(self) -> Floats:
        """``H @ (target - quantized)``."""
        if self._pull is None:
            self._pull = self.goal - self.moments.times(self.quantized)
        return self._pull

    def take(self, quantized: Floats, pull: Floats | None = None) -> None:
        """Go on with other weights, and their pull where it is known."""
        self.quantized, self._pull = quantized, pull


class Moments(ABC):
    """The damped second moments of a layer's inputs."""

    diagonal: Floats

    @abstractmethod
    def times(self, weights: Floats) -> Floats:
        """``H @ weights``."""

    @abstractmethod
    def normal(self, codes: Indices, which: Indices, entries: int) -> Floats:
        """How the entries of each table go together: ``S' H S``, S with a 1 for each code.

        Args:
            codes: the entry of each vector, [groups, inputs, vectors].
            which: its table, [groups, vectors].
            entries: of a table.

        Returns:
            [tables, entries, entries], the sums over all vectors.
        """

    @abstractmethod
    def target(self, weights: Floats) -> Floats:
        """The weights that, on the quantized model's inputs, come nearest to the float outputs."""

    @abstractmethod
    def round(self, target: Floats, grid: Grid) -> Floats:
        """The target rounded to the grid, each error made up for by the inputs that follow."""

    @abstractmethod
    def descend(self, course: Course, grid: Grid) -> None:
        """Move every weight to its best value while the others stay."""


class Diagonal(Moments):
    """Inputs of which one at a time is not zero: embeddings.

    Args:
        weight: how often each input is met, [groups, inputs].
    """

    def __init__(self, weight: Floats) -> None:
        damping = DAMPING * weight.mean(axis=1, keepdims=True)
        self.diagonal = weight + np.where(damping > 0, damping, 1)

    def times(self, weights: Floats) -> Floats:
        """``H @ weights``."""
        return self.diagonal[:, :, None] * weights

    def normal(self, codes: Indices, which: Indices, entries: int) -> Floats:
        """Diagonal as well."""
        places = (which[:, None] * entries + codes).reshape(-1)
        weight = np.broadcast_to(self.diagonal[:, :, None], codes.shape).reshape(-1)
        sums = np.bincount(places, weight, (which.max() + 1) * entries).reshape(-1, entries)
        result: Floats = sums[:, :, None] * np.eye(entries)
        return result

    def target(self, weights: Floats) -> Floats:
        """The weights: both models look up the same."""
        return weights

    def round(self, target: Floats, grid: Grid) -> Floats:
        """The nearest values."""
        return grid.near(target)

    def descend(self, course: Course, grid: Grid) -> None:
        """Take the nearest values."""
        course.take(grid.near(course.target))


class Dense(Moments):
    """Inputs that go together, in blocks of inputs that are taken as independent.

    Args:
        own: for each block E[q q'], [groups, size, size], q the inputs in the quantized model.
        cross: for each block E[f q'], f those in the float model; None where they are the same.
        blocks: the inputs of each block.
    """

    def __init__(
        self, own: list[Floats], cross: list[Floats] | None, blocks: Sequence[slice]
    ) -> None:
        self.blocks = blocks
        self.own, self._cross = own, cross
        self._factors: list[_Factor] = []
        self._damping: list[Floats] = []
        for moments in own:
            mean = np.trace(moments, axis1=1, axis2=2) / moments.shape[1]
            damping = np.where(mean > 0, DAMPING * mean, 1)
            _add_to_diagonal(moments, damping[:, None])
            self._damping.append(damping)
        parts = [np.einsum("gii->gi", moments) for moments in own]
        self.diagonal = np.concatenate(parts, axis=1)

    def times(self, weights: Floats) -> Floats:
        """``H @ weights``."""
        pairs = zip(self.own, self.blocks, strict=True)
        return self._joined([_product(h, weights[:, block]) for h, block in pairs])

    def normal(self, codes: Indices, which: Indices, entries: int) -> Floats:
        """Summed up in compiled code."""
        total = np.zeros((which.max() + 1, entries, entries))
        for own, block in zip(self.own, self.blocks, strict=True):
            _add_normal(own, codes[:, block], which, total)
        return total

    @staticmethod
    def _joined(parts: list[Floats]) -> Floats:
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def target(self, weights: Floats) -> Floats:
        """``(H + l)^-1 (E[q f'] + l) weights``, l the damping."""
        if self._cross is None:
            return weights
        parts: list[Floats] = []
        for own, damping, block in zip(self.own, self._damping, self.blocks, strict=True):
            crossed = _product(self._cross.pop(0).swapaxes(1, 2), weights[:, block])
            crossed += damping[:, None, None] * weights[:, block]
            self._factors.append(_Factor.of(own))
            parts.append(self._factors[-1].solved(crossed))
        self._cross = None
        return self._joined(parts)

    def round(self, target: Floats, grid: Grid) -> Floats:
        """GPTQ: inputs by falling diagonal, errors carried on by the inverse's factor."""
        parts = []
        for own, block in zip(self.own, self.blocks, strict=True):
            factor = self._factors.pop(0) if self._factors else _Factor.of(own)
            order = factor.order
            rounded = np.empty_like(target[:, block])
            rounded[:, order] = compensated(
                factor.upper, target[:, block][:, order], grid, block.start + order
            )
            parts.append(rounded)
        return self._joined(parts)

    def descend(self, course: Course, grid: Grid) -> None:
        """Coordinate descent over all inputs."""
        moved, pull = course.quantized.copy(), course.pull.copy()
        for own, block in zip(self.own, self.blocks, strict=True):
            inputs = np.arange(block.start, block.stop)
            descend(own, pull[:, block], moved[:, block], grid, inputs)
        course.take(moved, pull)


def _add_to_diagonal(moments: Floats, amount: Floats) -> None:
    every = np.arange(moments.shape[1])
    moments[:, every, every] += amount


def _product(left: Floats, right: Floats) -> Floats:
    """Moments times weights."""
    result = np.empty(right.shape)

    def work(groups: slice, outputs: slice) -> None:
        place = (groups, slice(None), outputs)
        np.matmul(left[groups], right[place], out=result[place])

    in_parts_of(work, right.shape, right.size * right.shape[1])
    return result


def _add_normal(moments: Floats, codes: Indices, which: Indices, total: Floats) -> None:
    """Add what `Moments.normal` gives for a block of inputs."""
    from mlferry.compiled.rounding import add_normal_sums

    found: dict[int, tuple[slice, Floats]] = {}

    def work(groups: slice, vectors: slice) -> None:
        tables = which[groups, vectors]
        some = slice(int(tables.min()), int(tables.max()) + 1)
        sums = np.zeros((some.stop - some.start, *total.shape[1:]))
        add_normal_sums(moments[groups], codes[groups, :, vectors], tables - some.start, sums)
        found[(groups.start or 0) + (vectors.start or 0)] = some, sums

    in_parts_of(work, codes.shape, codes.size * codes.shape[1])
    for part in sorted(found):  # in the same order, whichever thread is the first
        some, sums = found[part]
        total[some] += sums


class _Factor(NamedTuple):
    """The inverse of moments as U'U, their inputs by falling diagonal.

    Attributes:
        order: the inputs, [inputs].
        upper: U, upper triangular, [groups, inputs, inputs].
    """

    order: Indices
    upper: Floats

    @classmethod
    def of(cls, moments: Floats) -> _Factor:
        """Of moments [groups, inputs, inputs]."""
        order = np.argsort(-np.einsum("gii->i", moments), kind="stable")
        backward = order[::-1]
        sorted_moments = moments[:, backward[:, None], backward]
        lower = np.linalg.cholesky(sorted_moments).astype(np.float64, copy=False)
        upper = _inverse_of_lower(lower)[:, ::-1, ::-1]
        return cls(order, np.ascontiguousarray(upper))

    def solved(self, right: Floats) -> Floats:
        """The moments' inverse times [groups, inputs, outputs]."""
        result = np.empty_like(right)
        half = _product(self.upper, right[:, self.order])
        result[:, self.order] = _product(self.upper.swapaxes(1, 2), half)
        return result


def _inverse_of_lower(lower: Floats) -> Floats:
    """The inverse of lower triangular matrices [groups, size, size], by halves."""
    size = lower.shape[1]
    if size <= _SMALL:
        return np.tril(np.linalg.inv(lower))
    half = size // 2
    result = np.zeros_like(lower)
    first = result[:, :half, :half] = _inverse_of_lower(lower[:, :half, :half])
    last = result[:, half:, half:] = _inverse_of_lower(lower[:, half:, half:])
    result[:, half:, :half] = -(last @ lower[:, half:, :half] @ first)
    return result


class Grid(RowGrid, Protocol):
    """The values that quantized weights may have."""

    def near(self, weights: Floats) -> Floats:
        """The nearest values for [groups, inputs, outputs]."""

    def refit(self, course: Course) -> None:
        """Move the grid to its best place for the indices of the weights, and them with it."""

    def indices(self, quantized: Floats) -> NDArray[np.uint8]:
        """The indices of values of this grid."""


class LinearGrid:
    """Evenly spaced values: a scale and bias for every output, or one for all.

    Args:
        scale: [groups, outputs], or [1, 1] for all.
        bias: likewise.
        bits: the indices go from 0 to ``2**bits - 1``.
        centre: where set, the index of the value 0, so that the bias follows the scale.
    """

    def __init__(self, scale: Floats, bias: Floats, bits: int, centre: int | None = None) -> None:
        self.scale, self.bias, self.bits, self.centre = scale, bias, bits, centre

    @classmethod
    def fitted(
        cls,
        weights: Floats,
        importance: Floats,
        bits: int,
        *,
        shared: bool = False,
        centre: int | None = None,
    ) -> LinearGrid:
        """With the ranges that leave the smallest squared error, weighted by `importance`."""
        inputs = weights.shape[1]
        pick = np.linspace(0, inputs - 1, min(inputs, _RANGE_COLUMNS)).astype(np.intp)
        rows = weights[:, pick].swapaxes(1, 2)
        share = np.broadcast_to(importance[:, None, pick], rows.shape)
        low, high = weights.min(axis=1), weights.max(axis=1)
        if shared:
            rows, share = rows.reshape(1, 1, -1), share.reshape(1, 1, -1)
            low, high = np.min(low).reshape(1, 1), np.max(high).reshape(1, 1)
        if centre is not None:
            high = np.maximum(-low, high)
            low = -high
        scale, bias = best_range(
            rows.reshape(-1, rows.shape[-1]),
            share.reshape(-1, rows.shape[-1]),
            (low.reshape(-1), high.reshape(-1)),
            bits,
            centre,
        )
        return cls(scale.reshape(low.shape), bias.reshape(low.shape), bits, centre)

    def _steps(self, weights: Floats, scale: Floats, bias: Floats) -> Floats:
        steps = weights - bias
        steps /= scale
        np.rint(steps, out=steps)
        np.clip(steps, 0, (1 << self.bits) - 1, out=steps)
        return steps

    def near(self, weights: Floats) -> Floats:
        """The nearest values for [groups, inputs, outputs]."""
        scale, bias = self.scale[:, None], self.bias[:, None]
        return self._steps(weights, scale, bias) * scale + bias

    def near_row(self, weights: Floats, row: int) -> Floats:
        """The nearest values for [groups, outputs] of one input."""
        return self._steps(weights, self.scale, self.bias) * self.scale + self.bias

    def as_tables(self, groups: int, outputs: int) -> GridTables:
        """All values, for so many groups of so many outputs."""
        scale, bias = self.scale.reshape(-1, 1), self.bias.reshape(-1, 1)
        tables = np.arange(1 << self.bits) * scale + bias
        own = self.scale.size > 1
        every = np.arange(groups * outputs) if own else np.zeros(groups * outputs, np.intp)
        return GridTables(tables[:, :, None], every.reshape(groups, 1, outputs))

    def indices(self, quantized: Floats) -> NDArray[np.uint8]:
        """The indices of values of this grid."""
        return self._steps(quantized, self.scale[:, None], self.bias[:, None]).astype(np.uint8)

    def refit(self, course: Course) -> None:
        """Least squares for scale and bias of every output, or of all."""
        steps = self._steps(course.quantized, self.scale[:, None], self.bias[:, None])
        ones = np.ones((*steps.shape[:2], 1))
        even = course.moments.times(ones)
        pulled = course.goal - course.pull  # by the weights, and by the steps alone:
        if self.centre is not None:
            steps -= self.centre
        else:
            pulled -= even * self.bias[:, None]
        pulled /= self.scale[:, None]
        sums = [
            (pulled * steps).sum(axis=1),
            (even * steps).sum(axis=1),
            np.broadcast_to((even * ones).sum(axis=1), self._full(steps)),
            (pulled * course.target).sum(axis=1),
            (even * course.target).sum(axis=1),
        ]
        if self.scale.size == 1:
            sums = [each.sum().reshape(1, 1) for each in sums]
        bias = self._fit(*sums)
        quantized, pull = steps * self.scale[:, None], course.goal - pulled * self.scale[:, None]
        if bias is not None:
            quantized += bias[:, None]
            pull -= even * bias[:, None]
        course.take(quantized, pull)

    def _fit(self, a: Floats, b: Floats, c: Floats, r1: Floats, r2: Floats) -> Floats | None:
        """Solve the normal equations; the new bias, None where it follows the scale."""
        if self.centre is not None:
            scale = r1 / np.where(a > 0, a, 1)
            self.scale = np.where(scale > 0, scale, self.scale)
            self.bias = -self.centre * self.scale
            return None
        a = a * (1 + 1e-6) + 1e-12
        c = c * (1 + 1e-6) + 1e-12
        determinant = a * c - b * b
        safe = np.where(determinant > 1e-9 * a * c, determinant, np.inf)
        scale, bias = (r1 * c - b * r2) / safe, (a * r2 - b * r1) / safe
        good = scale > 0
        self.scale = np.where(good, scale, self.scale)
        self.bias = np.where(good, bias, self.bias)
        return self.bias

    @staticmethod
    def _full(steps: Floats) -> tuple[int, int]:
        return steps.shape[0], steps.shape[2]


def best_range(
    rows: Floats, share: Floats, limits: tuple[Floats, Floats], bits: int, centre: int | None = None
) -> tuple[Floats, Floats]:
    """Scale and bias of every row with the smallest squared error, weighted by `share`.

    Args:
        rows: [channels, weights].
        share: likewise; how much the error of each weight counts.
        limits: smallest and largest value of each row; parts of this range are tried.
        bits: the number of steps is ``2**bits - 1``.
        centre: where set, the index that stands for 0.
    """
    low, high = (limit.astype(np.float32) for limit in limits)
    values, counts = rows.astype(np.float32), share.astype(np.float32)
    scale, bias = np.ones_like(low), low.copy()
    parts = _PARTS[bits][::-1].astype(np.float32)
    tries = len(parts) if centre is not None else len(parts) ** 2

    def work(part: slice) -> None:
        middle = values[part].mean(axis=1)
        starts, steps = _ranges((low[part], middle, high[part]), parts, bits, centre)
        errors = _range_errors(values[part], counts[part], starts, steps, (1 << bits) - 1)
        best = np.where(errors < np.inf, errors, np.inf).argmin(axis=1)[:, None]
        is_better = np.take_along_axis(errors, best, 1)[:, 0] < np.inf
        for array, tried in ((scale, steps), (bias, starts)):
            np.copyto(array[part], np.take_along_axis(tried, best, 1)[:, 0], where=is_better)

    in_parts(work, len(values), values.size * tries * _PASSES)
    return scale.astype(np.float64), bias.astype(np.float64)


def _ranges(
    limits: tuple[Singles, Singles, Singles], parts: Singles, bits: int, centre: int | None
) -> tuple[Singles, Singles]:
    """The ranges that are tried: their starts and steps, [rows, tries].

    Args:
        limits: the smallest, mean and largest value of each row.
        parts: of the range on both sides of the mean.
        bits: the number of steps is ``2**bits - 1``.
        centre: where set, the index that stands for 0.
    """
    low, middle, high = (limit[:, None] for limit in limits)
    if centre is not None:
        steps = high * parts / np.float32(max(1, centre - 1))
        starts = -np.float32(centre) * steps
    else:
        upper, lower = np.repeat(parts, len(parts)), np.tile(parts, len(parts))
        starts = middle + (low - middle) * lower
        steps = (middle + (high - middle) * upper - starts) / np.float32((1 << bits) - 1)
    return starts, np.where(steps > 0, steps, np.float32(1))


def _range_errors(
    values: Singles, counts: Singles, starts: Singles, steps: Singles, last: int
) -> NDArray[np.floating]:
    """The weighted squared error of each row with each range, [rows, tries].

    Args:
        values: [rows, values].
        counts: likewise; how much the error of each value counts.
        starts: of the ranges, [rows, tries].
        steps: likewise.
        last: how many steps a range has.
    """
    if is_active():
        from mlferry.compiled.rounding import range_errors

        found = np.empty(starts.shape)
        range_errors(values, counts, starts, steps, np.float32(last), found)
        return found
    errors = np.empty_like(starts)
    for error, start, step in zip(errors.T, starts.T, steps.T, strict=True):
        off = values - start[:, None]
        off /= step[:, None]
        nearest = np.rint(off)
        np.clip(nearest, 0, last, out=nearest)
        off -= nearest
        off *= off
        off *= counts
        error[:] = off.sum(axis=1) * step**2
    return errors


class Sharing(NamedTuple):
    """Which outputs and inputs of a weight share a table.

    Attributes:
        outputs: of a table; 0 for all.
        inputs: likewise, as channels.
        taps: how many inputs, one after another, are of one channel.
    """

    outputs: int = 0
    inputs: int = 0
    taps: int = 1

    def tables(self, groups: int, inputs: int, outputs: int) -> Indices | None:
        """The table of each output, [groups, blocks of inputs, outputs]; None for one of all."""
        if not self.outputs and not self.inputs:
            return None
        every = np.arange(groups * outputs).reshape(groups, 1, outputs)
        along = inputs // (self.rows or inputs)
        return every // (self.outputs or groups * outputs) * along + np.arange(along)[:, None]

    @property
    def rows(self) -> int:
        """The inputs of a table, each tap one; 0 for all."""
        return self.inputs * self.taps


ONE_TABLE = Sharing()


class TableGrid:
    """The entries of lookup tables, rising: one table for all, or for each block of weights.

    Args:
        tables: [tables, entries].
        which: the table of each output, [groups, blocks of inputs, outputs]; None for one of all.
        rows: the inputs of a block; 0 for all.
    """

    def __init__(self, tables: Floats, which: Indices | None = None, rows: int = 0) -> None:
        self.which, self._rows = which, rows
        self._set(tables)

    @classmethod
    def fitted(cls, weights: Floats, bits: int, sharing: Sharing = ONE_TABLE) -> TableGrid:
        """With the tables of k-means.

        Args:
            weights: [groups, inputs, outputs].
            bits: of an index.
            sharing: what shares a table.
        """
        which = sharing.tables(*weights.shape)
        rows = _by_table(weights[..., None], which)[..., 0]
        tables = kmeans_rows(rows.astype(np.float32), 1 << bits)
        return cls(tables.astype(np.float64), which, sharing.rows)

    def _set(self, tables: Floats) -> None:
        self.tables = np.sort(tables, axis=1)
        self._middles = (self.tables[:, 1:] + self.tables[:, :-1]) / 2

    @property
    def table(self) -> Floats:
        """The only one."""
        table: Floats = self.tables[0]
        return table

    def _of_row(self, row: int) -> Indices | None:
        """The table of each output, [groups, outputs], for one input."""
        return None if self.which is None else self.which[:, row // self._rows if self._rows else 0]

    def _places(self, weights: Floats) -> Indices:
        """Where the nearest entries are among those of all tables, for [groups, inputs, outputs].

        Outputs are the last axis.
        """
        if is_active():
            return self._compiled_places(weights)
        if self.which is None:
            return self._places_in(weights, None)
        parts = np.split(weights, self.which.shape[1], axis=1)
        places = [
            self._places_in(part, self.which[:, block, None]) for block, part in enumerate(parts)
        ]
        return np.concatenate(places, axis=1)

    def _compiled_places(self, weights: Floats) -> Indices:
        from mlferry.compiled.rounding import CompiledSteps

        steps = CompiledSteps(*self.as_tables(weights.shape[0], weights.shape[2]))
        places: Indices = steps.places(weights)[..., None] * steps.length + np.arange(steps.length)
        return places.reshape(weights.shape)

    def _places_in(self, weights: Floats, which: Indices | None) -> Indices:
        """Likewise of any axes before the outputs, in tables that spread over them."""
        if which is None:
            alone: Indices = np.searchsorted(self._middles[0], weights)
            return alone
        nearest = np.zeros(weights.shape, np.intp)
        nearest += which * self.tables.shape[1]
        for middles in self._middles.T:
            nearest += weights > middles[which]
        return nearest

    def near(self, weights: Floats) -> Floats:
        """The nearest values."""
        values: Floats = self.tables.reshape(-1)[self._places(weights)]
        return values

    def near_row(self, weights: Floats, row: int) -> Floats:
        """The nearest values for [groups, outputs] of one input."""
        places = self._places_in(weights, self._of_row(row))
        values: Floats = self.tables.reshape(-1)[places]
        return values

    def as_tables(self, groups: int, outputs: int) -> GridTables:
        """All values, for so many groups of so many outputs."""
        length = self.tables[0, 0].size
        which = self.which
        if which is None:
            which = np.zeros((groups, 1, outputs // length), np.intp)
        return GridTables(self.tables.reshape(*self.tables.shape[:2], length), which, self._rows)

    def indices(self, quantized: Floats) -> NDArray[np.uint8]:
        """The indices of values of this grid."""
        return np.mod(self._places(quantized), self.tables.shape[1]).astype(np.uint8)

    def refit(self, course: Course) -> None:
        """Least squares for the entries; by a few steps, where they are many."""
        where, moments = self._places(course.quantized), course.moments
        size, flat = self.tables.size, where.reshape(-1)
        weight = np.broadcast_to(moments.diagonal[:, :, None], where.shape).reshape(-1)
        scale: Floats = np.bincount(flat, weight, size).astype(np.float64)
        scale += 1e-5 * scale.mean() + 1e-30

        def gathered(array: Floats) -> Floats:
            sums = np.bincount(flat, array.reshape(-1), size).astype(np.float64)
            return sums

        table = self.tables.reshape(-1)
        left = gathered(course.pull)
        normal = self._normal_matrices(where, moments)
        if normal is None:
            table = table + _gradient_steps(
                left,
                scale,
                lambda change: gathered(moments.times(change[where])) + _RIDGE * scale * change,
            )
        else:
            shape = (*normal.shape[:2], -1)
            _add_to_diagonal(normal, _RIDGE * scale.reshape(shape)[:, :, 0])
            table = table + np.linalg.solve(normal, left.reshape(shape)).reshape(-1)
        course.take(table[where])
        self._set(table.reshape(self.tables.shape))

    def _normal_matrices(self, where: Indices, moments: Moments) -> Floats | None:
        """For each table how its entries go together, [tables, entries, entries].

        None where blocks of inputs have tables of their own, or it takes longer than some steps.
        """
        groups, _, outputs = where.shape
        entries, length = self.tables.shape[1], self.tables[0, 0].size
        if self._rows or entries > _FEW_ENTRIES * length or not is_active():
            return None
        which = self.as_tables(groups, outputs).which[:, 0]
        codes = where[:, :, ::length] // length - which[:, None] * entries
        return moments.normal(codes, which, entries)


def _gradient_steps(goal: Floats, scale: Floats, times: Callable[[Floats], Floats]) -> Floats:
    """Some conjugate gradient steps towards x of ``times(x) = goal``, preconditioned by `scale`."""
    found = np.zeros_like(goal)
    left, ready = goal, goal / scale
    direction, power = ready, float(left @ ready)
    start = power
    for _ in range(_GRADIENT_STEPS):
        if power <= 1e-8 * start or power <= 0:
            break
        bent = times(direction)
        curve = float(direction @ bent)
        if curve <= 0:
            break
        found += power / curve * direction
        left = left - power / curve * bent
        ready = left / scale
        grown = float(left @ ready)
        direction, power = ready + grown / power * direction, grown
    return found


class VectorGrid(TableGrid):
    """Tables whose entries are vectors, for outputs one after another.

    Args:
        tables: [tables, entries, length].
        which: the table of each vector, [groups, blocks of inputs, outputs / length]; None for one
            of all.
        rows: the inputs of a block; 0 for all.
    """

    def __init__(self, tables: Floats, which: Indices | None = None, rows: int = 0) -> None:
        self.length = tables.shape[2]
        super().__init__(tables, which, rows)

    @classmethod
    def of_vectors(
        cls, weights: Floats, bits: int, length: int, sharing: Sharing = ONE_TABLE
    ) -> VectorGrid:
        """With the tables of k-means.

        Args:
            weights: [groups, inputs, outputs].
            bits: of an index.
            length: of a vector; it divides the outputs of a table.
            sharing: what shares a table.
        """
        groups, inputs, outputs = weights.shape
        vectors = weights.reshape(groups, inputs, outputs // length, length)
        which = sharing.tables(*weights.shape)
        which = None if which is None else which[:, :, ::length]
        rows = _by_table(vectors, which).astype(np.float32)
        tables = np.stack([kmeans_vectors(row, 1 << bits)[0] for row in rows])
        return cls(tables.astype(np.float64), which, sharing.rows)

    def _set(self, tables: Floats) -> None:
        self.tables = tables
        self._half_lengths = np.square(tables).sum(axis=2) / 2

    def _places_in(self, weights: Floats, which: Indices | None) -> Indices:
        """Where the nearest entries are among those of all tables; outputs are the last axis."""
        if weights.ndim == 3:
            own = None if which is None else which[:, 0]
            rows = [self._places_in(row, own) for row in weights.swapaxes(0, 1)]
            return np.stack(rows, axis=1)
        vectors = weights.reshape(weights.shape[0], -1, self.length)
        if which is None or (which == which[0, 0]).all():
            table = 0 if which is None else which[0, 0]
            near = vectors @ self.tables[table].T - self._half_lengths[table]
        else:
            near = np.einsum("gvl,gvel->gve", vectors, self.tables[which])
            near -= self._half_lengths[which]
        nearest = near.argmax(axis=2)
        if which is not None:
            nearest += which * self.tables.shape[1]
        places: Indices = nearest[:, :, None] * self.length + np.arange(self.length)
        return places.reshape(weights.shape)

    def indices(self, quantized: Floats) -> NDArray[np.uint8]:
        """The index of each vector, once for each of its values."""
        vectors = self._places(quantized) // self.length
        codes: NDArray[np.uint8] = np.mod(vectors, self.tables.shape[1]).astype(np.uint8)
        return codes


def _by_table(values: Floats, which: Indices | None) -> Floats:
    """[groups, inputs, outputs, length] as [tables, values of a table, length], in its order."""
    length = values.shape[3]
    if which is None:
        return np.ascontiguousarray(values.swapaxes(1, 2)).reshape(1, -1, length)
    rows = values.shape[1] // which.shape[1]
    apart = values.reshape(values.shape[0], which.shape[1], rows, -1, length).swapaxes(2, 3)
    order = np.argsort(which.reshape(-1), kind="stable")
    sorted_rows: Floats = apart.reshape(order.size, rows, length)[order]
    return sorted_rows.reshape(which.max() + 1, -1, length)


def choose(weights: Floats, moments: Moments, grid_for: GridFor) -> tuple[Grid, Floats]:
    """The grid and the values on it for a layer's weights, [groups, inputs, outputs]."""
    target = moments.target(weights)
    grid = grid_for(target, moments.diagonal)
    course = Course(target, moments.round(target, grid), moments)
    for _ in range(ROUNDS):
        grid.refit(course)
        moments.descend(course, grid)
    grid.refit(course)
    return grid, course.quantized


class GridFor(Protocol):
    """Makes the first grid for target weights and the importance of every input."""

    def __call__(self, target: Floats, importance: Floats) -> Grid:
        """The grid."""
