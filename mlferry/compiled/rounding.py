"""Steps of calibrated quantization that go through the inputs of a layer one by one.

Arrays are [groups, inputs, outputs] in float64. What lies between blocks of inputs are products;
the kernels do what lies inside a block, for some outputs at a time, whose values stay in the cache.
"""

from __future__ import annotations

import copy

import numpy as np
from numba import types
from numpy.typing import NDArray

from mlferry.compiled.vectors import REAL, WHOLE, Array, arrays, kernel, subroutine

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Places = NDArray[np.uint64]
_TOGETHER = 64  # outputs
_PANEL = 64  # inputs
_ADDED = 256  # values that are added up in float32
_INDICES = types.Array(types.intp, 3, "A", readonly=True)
_ROW, _WRITTEN_ROW = (types.Array(types.float64, 1, "C", readonly=fixed) for fixed in (True, False))


def _floats(rank: int, *, written: bool = False) -> types.Type:
    return types.Array(types.float64, rank, "A", readonly=not written)


_ENTRIES = types.Array(types.float64, 3, "C", readonly=True)
_WRITTEN = types.Array(types.float64, 3, "C")
_PLACES = types.Array(types.uint64, 1, "C")  # numbers without a sign are none from the end
_ENDS = types.Array(types.float64, 2, "C", readonly=True)


@subroutine(_ENDS, _ROW, WHOLE, _PLACES)
def _find_values(limits: Floats, values: Floats, count: int, places: Places) -> None:
    """The nearest entries of tables of single values.

    Args:
        limits: above which the next entry is nearer, [tables, entries].
        values: [count] or more.
        count: of the values.
        places: where the table of each value begins among all entries; where its nearest entry is
            afterwards.
    """
    all_limits, one = limits.reshape(-1), np.uint64(1)
    half = np.uint64(limits.shape[1]) >> one
    while half:
        for at in range(count):
            beyond = places[at] + half
            places[at] = beyond if values[at] > all_limits[beyond - one] else places[at]
        half >>= one


@subroutine(_ENTRIES, _ENDS, WHOLE, _ROW, _WRITTEN_ROW, returns=WHOLE)
def _nearest_vector(
    entries: Floats, limits: Floats, table: int, vector: Floats, scores: Floats
) -> int:
    """The nearest entry of a table of vectors, the first of several."""
    _, length, size = entries.shape
    for entry in range(size):
        scores[entry] = vector[0] * entries[table, 0, entry] - limits[table, entry]
    for at in range(1, length):
        for entry in range(size):
            scores[entry] += vector[at] * entries[table, at, entry]
    found, largest = 0, scores[0]
    for entry in range(1, size):
        if scores[entry] > largest:
            found, largest = entry, scores[entry]
    return found


@subroutine(
    _ENTRIES, _ENDS, _INDICES, WHOLE, WHOLE, WHOLE, WHOLE, _ROW,
    _PLACES, _WRITTEN_ROW,
)  # fmt: skip
def _find_nearest(
    entries: Floats, limits: Floats, which: Indices, group: int, block: int, first: int, count: int,
    values: Floats, places: Places, nearest: Floats,
) -> None:  # fmt: skip
    """The nearest entries for the `count` values of outputs from `first` on.

    Args:
        places: where the entry of each vector is among all.
        nearest: its values.
    """
    _, length, size = entries.shape
    if length == 1:
        for at in range(count):
            places[at] = np.uint64(which[group, block, first + at] * size)
        _find_values(limits, values, count, places)
        all_entries = entries.reshape(-1)
        for at in range(count):
            nearest[at] = all_entries[places[at]]
        return
    scores = np.empty(size)
    for start in range(0, count, length):
        table = which[group, block, (first + start) // length]
        found = _nearest_vector(entries, limits, table, values[start : start + length], scores)
        places[start // length] = np.uint64(table * size + found)
        for at in range(length):
            nearest[start + at] = entries[table, at, found]


@kernel(
    _floats(3), types.Array(types.intp, 1, "C"), _ENTRIES, _ENDS, _INDICES,
    types.Array(types.intp, 3, "C"),
)  # fmt: skip
def _find_places(
    weights: Floats, blocks: Indices, entries: Floats, limits: Floats, which: Indices,
    places: Indices,
) -> None:  # fmt: skip
    groups, size, outputs = weights.shape
    length = entries.shape[1]
    most = max(1, _TOGETHER // length) * length
    values, nearest, found = np.empty(most), np.empty(most), np.empty(most, np.uint64)
    for group in range(groups):
        for row in range(size):
            for first in range(0, outputs, most):
                count = min(most, outputs - first)
                for place in range(count):
                    values[place] = weights[group, row, first + place]
                _find_nearest(
                    entries, limits, which, group, blocks[row], first, count, values, found, nearest
                )
                for vector in range(count // length):
                    places[group, row, first // length + vector] = np.intp(found[vector])


@subroutine(
    _ENTRIES, _WRITTEN, _WRITTEN, WHOLE, WHOLE, WHOLE, types.float64, returns=types.boolean
)  # fmt: skip
def _set_weight(
    moments: Floats, pull: Floats, quantized: Floats, group: int, output: int, row: int,
    value: float,
) -> bool:  # fmt: skip
    """Move a weight and what pulls at the others of its output; whether it has moved."""
    step = value - quantized[group, output, row]
    if step == 0:
        return False
    quantized[group, output, row] = value
    for other in range(quantized.shape[2]):
        pull[group, output, other] -= moments[group, row, other] * step
    return True


_DESCENT = (
    _ENTRIES, _floats(2), _WRITTEN, _WRITTEN, types.Array(types.intp, 1, "C"), _ENTRIES, _ENDS,
    _INDICES, WHOLE,
)  # fmt: skip


@kernel(*_DESCENT)
def _descend_values(
    moments: Floats, diagonal: Floats, pull: Floats, quantized: Floats, blocks: Indices,
    entries: Floats, limits: Floats, which: Indices, passes: int,
) -> None:  # fmt: skip
    """With tables of single values; here [groups, outputs, inputs]."""
    groups, outputs, size = quantized.shape
    count = entries.shape[2]
    all_entries, all_limits = entries.reshape(-1), limits.reshape(-1)
    low, high = np.empty(size), np.empty(size)  # between these a weight stays
    places = np.empty(size, np.uint64)
    for group in range(groups):
        for output in range(outputs):
            for row in range(size):
                places[row] = np.uint64(which[group, blocks[row], output] * count)
            _find_values(limits, quantized[group, output], size, places)
            for row in range(size):
                place = np.intp(places[row])
                low[row] = all_limits[place - 1] if place % count else -np.inf
                high[row] = all_limits[place]
            has_moved, done = True, 0
            while has_moved and done < passes:
                has_moved, done = False, done + 1
                for row in range(size):
                    gain = pull[group, output, row] / diagonal[group, row]
                    wanted = quantized[group, output, row] + gain
                    if low[row] < wanted <= high[row]:
                        continue
                    place, half = which[group, blocks[row], output] * count, count >> 1
                    while half:
                        place += half if wanted > all_limits[place + half - 1] else 0
                        half >>= 1
                    low[row] = all_limits[place - 1] if place % count else -np.inf
                    high[row] = all_limits[place]
                    has_moved |= _set_weight(
                        moments, pull, quantized, group, output, row, all_entries[place]
                    )


@kernel(*_DESCENT)
def _descend_vectors(
    moments: Floats, diagonal: Floats, pull: Floats, quantized: Floats, blocks: Indices,
    entries: Floats, limits: Floats, which: Indices, passes: int,
) -> None:  # fmt: skip
    """With tables of vectors; here [groups, outputs, inputs]."""
    groups, outputs, size = quantized.shape
    _, length, count = entries.shape
    wanted, scores = np.empty(length), np.empty(count)
    for group in range(groups):
        for first in range(0, outputs, length):
            has_moved, done = True, 0
            while has_moved and done < passes:
                has_moved, done = False, done + 1
                for row in range(size):
                    for place in range(length):
                        gain = pull[group, first + place, row] / diagonal[group, row]
                        wanted[place] = quantized[group, first + place, row] + gain
                    table = which[group, blocks[row], first // length]
                    found = _nearest_vector(entries, limits, table, wanted, scores)
                    for place in range(length):
                        has_moved |= _set_weight(
                            moments, pull, quantized, group, first + place, row,
                            entries[table, place, found],
                        )  # fmt: skip


@kernel(
    _floats(3), _floats(3), types.Array(types.intp, 1, "C"), _ENTRIES, _ENDS, _INDICES,
    _floats(3, written=True), _floats(3, written=True),
)  # fmt: skip
def _compensate(
    factor: Floats, target: Floats, blocks: Indices, entries: Floats, limits: Floats,
    which: Indices, quantized: Floats, errors: Floats,
) -> None:  # fmt: skip
    groups, size, outputs = quantized.shape
    length = entries.shape[1]
    most = max(1, _TOGETHER // length) * length
    left = np.empty((size, most))
    found, error, places = np.empty(most), np.empty(most), np.empty(most, np.uint64)
    for group in range(groups):
        for first in range(0, outputs, most):
            count = min(most, outputs - first)
            for row in range(size):
                for place in range(count):
                    left[row, place] = target[group, row, first + place]
            for row in range(size):
                own = factor[group, row, row]
                _find_nearest(
                    entries,
                    limits,
                    which,
                    group,
                    blocks[row],
                    first,
                    count,
                    left[row],
                    places,
                    found,
                )
                for place in range(count):
                    quantized[group, row, first + place] = found[place]
                    error[place] = (left[row, place] - found[place]) / own
                    errors[group, row, first + place] = error[place]
                for other in range(row + 1, size):
                    share = factor[group, row, other]
                    for place in range(count):
                        left[other, place] -= share * error[place]


@kernel(*[arrays(2)] * 4, REAL, _floats(2, written=True))
def range_errors(
    values: Array, counts: Array, starts: Array, steps: Array, last: np.float32, errors: Floats
) -> None:
    """The weighted squared error of rows of values on evenly spaced numbers.

    Args:
        values: [rows, values].
        counts: likewise; how much the error of each value counts.
        starts: the smallest number of each range that is tried, [rows, tries].
        steps: between its numbers, likewise.
        last: how many steps there are.
        errors: the result, [rows, tries].
    """
    rows, width = values.shape
    tries = starts.shape[1]
    start, step = np.empty(tries, np.float32), np.empty(tries, np.float32)
    some = np.empty(tries, np.float32)
    zero = np.float32(0)
    for row in range(rows):
        for index in range(tries):
            start[index], step[index] = starts[row, index], steps[row, index]
            errors[row, index] = 0
        for first in range(0, width, _ADDED):
            some[:] = 0
            for place in range(first, min(first + _ADDED, width)):
                value, count = values[row, place], counts[row, place]
                for index in range(tries):
                    off = (value - start[index]) / step[index]
                    off -= min(max(np.rint(off), zero), last)
                    some[index] += off * off * count
            for index in range(tries):
                errors[row, index] += some[index]
        for index in range(tries):
            errors[row, index] *= step[index] * step[index]


@kernel(
    _floats(3), _INDICES, types.Array(types.intp, 2, "A", readonly=True), _floats(3, written=True)
)
def add_normal_sums(moments: Floats, codes: Indices, which: Indices, sums: Floats) -> None:
    """Add up the moments of inputs by the entries that stand for their weights.

    Args:
        moments: symmetric, [groups, inputs, inputs].
        codes: the entry of each vector, [groups, inputs, vectors].
        which: its table, [groups, vectors].
        sums: is added to, [tables, entries, entries].
    """
    groups, size, vectors = codes.shape
    entries = sums.shape[1]
    upper, near = np.empty((entries, _PANEL)), np.empty((entries, _PANEL))
    for group in range(groups):
        for first in range(0, size, _PANEL):
            width = min(_PANEL, size - first)
            panel = np.zeros((first + width, _PANEL))
            for row in range(first + width):
                for place in range(width):
                    panel[row, place] = moments[group, row, first + place]
            for vector in range(vectors):
                upper.fill(0.0)
                near.fill(0.0)
                for row in range(first):
                    code = np.uint64(codes[group, row, vector])
                    for place in range(_PANEL):
                        upper[code, place] += panel[np.uint64(row), place]
                for row in range(first, first + width):
                    code = np.uint64(codes[group, row, vector])
                    for place in range(_PANEL):
                        near[code, place] += panel[np.uint64(row), place]
                table = which[group, vector]
                for place in range(width):
                    own = codes[group, first + place, vector]
                    for entry in range(entries):
                        sums[table, own, entry] += upper[entry, place] + near[entry, place]
                        sums[table, entry, own] += upper[entry, place]


class CompiledSteps:
    """What is done inside of a block of inputs, whose numbers are `inputs`.

    Args:
        tables: the values that weights may have, [tables, entries, length]; single values rise, and
            are a power of two.
        which: the table of each vector, [groups, blocks of inputs, outputs / length].
        rows: the inputs of a block; 0 for all.
    """

    def __init__(self, tables: Floats, which: Indices, rows: int) -> None:
        self.length = tables.shape[2]
        self._entries = np.ascontiguousarray(tables.swapaxes(1, 2))
        if self.length == 1:  # above its limit, the next entry is nearer
            self._limits = np.full(tables.shape[:2], np.inf)
            self._limits[:, :-1] = (tables[:, 1:, 0] + tables[:, :-1, 0]) / 2
        else:
            self._limits = np.square(tables).sum(axis=2) / 2
        self._which, self._rows = which, rows

    def of(self, groups: slice, outputs: slice) -> CompiledSteps:
        """For some of the weights; vectors are whole."""
        part = copy.copy(self)
        ends = (
            None if end is None else end // self.length for end in (outputs.start, outputs.stop)
        )
        part._which = self._which[groups, :, slice(*ends)]
        return part

    def places(self, weights: Floats) -> Indices:
        """Where the nearest entries are among those of all tables.

        Args:
            weights: [groups, inputs, outputs].

        Returns:
            one for each vector, [groups, inputs, outputs / length].
        """
        groups, inputs, outputs = weights.shape
        places = np.empty((groups, inputs, outputs // self.length), np.intp)
        blocks = self._blocks(np.arange(inputs))
        _find_places(weights, blocks, self._entries, self._limits, self._which, places)
        return places

    def _blocks(self, inputs: Indices) -> Indices:
        return inputs // self._rows if self._rows else np.zeros_like(inputs)

    def compensate(
        self, factor: Floats, target: Floats, quantized: Floats, inputs: Indices
    ) -> Floats:
        """Round each input, and make up for its error by those that follow.

        Args:
            factor: how much of an error each input takes, upper triangular, [groups, inputs,
                inputs].
            target: [groups, inputs, outputs].
            quantized: the result, [groups, inputs, outputs].
            inputs: the numbers of the inputs.

        Returns:
            the errors, in units of the factor's diagonal, [groups, inputs, outputs].
        """
        errors = np.empty(target.shape)
        _compensate(
            factor, target, self._blocks(inputs), self._entries, self._limits, self._which,
            quantized, errors,
        )  # fmt: skip
        return errors

    def descend(
        self, moments: Floats, pull: Floats, quantized: Floats, inputs: Indices, passes: int
    ) -> None:
        """Move each weight to its best value while the others stay, in turn.

        Args:
            moments: second moments of the inputs, symmetric, [groups, inputs, inputs].
            pull: the moments times what is missing to the target, [groups, inputs, outputs]; it
                follows what moves.
            quantized: is changed, likewise.
            inputs: the numbers of the inputs.
            passes: through all inputs, at most.
        """
        moved, pulled = (np.ascontiguousarray(each.swapaxes(1, 2)) for each in (quantized, pull))
        diagonal = np.einsum("gii->gi", moments)
        walk = _descend_values if self.length == 1 else _descend_vectors
        walk(
            np.ascontiguousarray(moments), diagonal, pulled, moved, self._blocks(inputs),
            self._entries, self._limits, self._which, passes,
        )  # fmt: skip
        quantized[:], pull[:] = moved.swapaxes(1, 2), pulled.swapaxes(1, 2)
