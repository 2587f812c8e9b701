"""Optimal k-means of numbers, by dynamic programming on sorted values.

Values are sorted and gathered into cells whose density follows the cube root of the density
of the values, as the centres of an optimal table do. A full dynamic programme over coarse
cells finds the best partition among them; a second one, over fine cells and in a band around
the first, moves its boundaries. Where the distinct values are few every one is a cell, and
the result is the optimum.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import SpecError

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

_WORK = 32  # cells of the full programme for each cluster
_CELLS = (512, 2048)  # the fewest and the most of its cells
_DISTINCT = 1024  # so many different values are cells of their own
_FINE = 16  # fine cells for each of them
_STEPS = ((4, 64), (1, 12))  # of bounds that move, and how far, in fine cells
_ROUNDS = 40
_CHUNK = 1 << 20
_NEAR = 1 << 16  # likewise, where each is compared with all
_COMPARED = 40  # bounds up to which that takes less time than searching
_FEW = 16  # clusters up to which several rows go together
_TOGETHER = 32  # more different values for each of them
_COARSE = 12  # cells for each of these clusters
_ROWS_FINE = 16  # fine cells for each of them in rows, of which every so many ends a coarse one
_ROWS_STEP = 3
_ROWS_BAND = 6
_ROWS_ROUNDS = 5
_STRIPS = 8  # of a matrix of which half is needed
_SPAN = 4  # times the mean number of cells that a cluster may have, at least
_LLOYD = 4  # rounds


def kmeans(values: NDArray[np.float32], clusters: int) -> NDArray[np.float32]:
    """The centres, rising, that leave the smallest squared error; fewer where fewer suffice.

    Deterministic. Values with at most `clusters` distinct numbers come back as these numbers.

    Raises:
        SpecError: a value is not finite.
    """
    ordered = np.sort(np.asarray(values, np.float32), axis=None)
    if not ordered.size:
        return ordered
    if not (np.isfinite(ordered[0]) and np.isfinite(ordered[-1])):
        raise SpecError("weights that are infinite or no number have no lookup table")
    limit = max(2 * clusters, min(max(_WORK * clusters, _CELLS[0]), _CELLS[1]))
    starts = _distinct(ordered, max(limit, _DISTINCT))
    if starts is not None and starts.size <= clusters:
        return ordered[starts]
    shift = float(ordered[ordered.size // 2])
    if starts is not None:
        cells = Cells(ordered, starts, shift)
        return cells.centres(full_search(cells, clusters))
    few = clusters <= _FEW
    coarse = _edges(ordered, _COARSE * clusters if few else limit)
    edges = _rising(np.concatenate([coarse, _edges(ordered, limit * _FINE)]))
    fine, every = Cells(ordered, edges, shift), np.searchsorted(edges, coarse)
    ends = np.append(every, fine.count)
    if few:
        (bounds,) = _matrix_search(fine.weight[None, ends], fine.total[None, ends], clusters)
    else:
        bounds = full_search(fine.merged(every), clusters)
    return fine.centres(band_search(fine, ends[bounds]))


def kmeans_rows(rows: NDArray[np.float32], clusters: int) -> NDArray[np.float32]:
    """`kmeans` of each row, [rows, clusters]; where fewer suffice the last one is repeated.

    Several rows of few clusters go together: a full programme over a few cells for each cluster,
    from whose bounds Lloyd's algorithm goes on, with each value by itself.

    Raises:
        SpecError: a value is not finite.
    """
    tables = np.empty((len(rows), clusters), np.float32)
    least = _TOGETHER * clusters
    together = len(rows) > 1 and clusters <= _FEW and rows.shape[1] > least
    step = max(1, _CHUNK // max(1, rows.shape[1])) if together else 1
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        ordered = np.sort(np.asarray(rows[part], np.float32), axis=1)
        finite = np.isfinite(ordered[:, :1]) & np.isfinite(ordered[:, -1:])
        if together and finite.all() and _all_have_more(ordered, least):
            tables[part] = _batch(ordered, clusters)
            continue
        for index, row in enumerate(ordered, start):
            centres = kmeans(row, clusters)
            tables[index] = centres[-1] if centres.size else 0
            tables[index, : centres.size] = centres
    return tables


def _all_have_more(ordered: NDArray[np.float32], least: int) -> bool:
    """Whether each row of rising values has more than so many steps."""
    some = ordered[:, :: max(1, ordered.shape[1] // (4 * least))]
    if np.count_nonzero(some[:, 1:] != some[:, :-1], axis=1).min() > least:
        return True
    return all(np.count_nonzero(row[1:] != row[:-1]) > least for row in ordered)


def _batch(ordered: NDArray[np.float32], clusters: int) -> NDArray[np.float32]:
    """Centres of rows of rising values."""
    count, size = ordered.shape
    values = ordered - ordered[:, size // 2 : size // 2 + 1]
    sums = np.empty((count, size + 1))
    sums[:, 0], sums[:, 1:] = 0, values
    np.cumsum(sums, axis=1, out=sums)
    edges = _edges_of_rows(values, _ROWS_FINE * clusters)
    total = np.take_along_axis(sums, edges, 1)
    last = edges.shape[1] - 1
    ends = np.arange(_ROWS_FINE)
    some = _rising(np.concatenate([np.arange(0, last, _ROWS_STEP), ends, last - ends]))
    chosen = some[_matrix_search(edges[:, some], total[:, some], clusters)]
    bounds = np.take_along_axis(edges, _rows_band_search(edges, total, chosen), 1)
    for _ in range(_LLOYD):
        weight = np.maximum(np.diff(bounds, axis=1), 1)
        means = np.diff(np.take_along_axis(sums, bounds, 1), axis=1) / weight
        middles = ((means[:, 1:] + means[:, :-1]) / 2).astype(np.float32)
        for own, row, middle in zip(bounds, values, middles, strict=True):
            own[1:-1] = row.searchsorted(middle)
        np.maximum.accumulate(bounds, axis=1, out=bounds)
    shift = ordered[:, size // 2 : size // 2 + 1].astype(np.float64)
    weight = np.diff(bounds, axis=1)
    means = np.diff(np.take_along_axis(sums, bounds, 1), axis=1) / np.maximum(weight, 1) + shift
    means[weight == 0] = np.inf  # a cluster that lost its values
    centres = np.sort(means.astype(np.float32), axis=1)
    last = np.where(np.isfinite(centres), centres, -np.inf).max(axis=1, keepdims=True)
    return np.where(np.isfinite(centres), centres, last)


def _rows_band_search(weight: Indices, total: Floats, bounds: Indices) -> Indices:
    """As `band_search`, of several rows at once and for a few rounds.

    Args:
        weight: [rows, edges], how many values lie before each edge.
        total: likewise, their sums.
        bounds: [rows, clusters + 1], as indices of edges.
    """
    offsets = np.arange(-_ROWS_BAND, _ROWS_BAND + 1)
    for _ in range(_ROWS_ROUNDS):
        moved = _rows_moved(weight, total, bounds, offsets)
        if np.array_equal(moved, bounds):
            break
        bounds = moved
    return bounds


def _rows_moved(weight: Indices, total: Floats, bounds: Indices, offsets: Indices) -> Indices:
    """With the best offsets for all bounds of each row together."""
    rows = np.arange(len(bounds))
    inner = bounds[:, 1:-1]
    places = np.clip(inner[:, :, None] + offsets, 1, weight.shape[1] - 2)
    flat = places.reshape(len(bounds), -1)
    before = np.take_along_axis(weight, flat, 1).reshape(places.shape).astype(np.float64)
    sums = np.take_along_axis(total, flat, 1).reshape(places.shape)
    best = sums[:, 0] ** 2 / np.maximum(before[:, 0], 1)
    trace = []
    for at in range(1, inner.shape[1]):
        between = before[:, at, None, :] - before[:, at - 1, :, None]
        gain = sums[:, at, None, :] - sums[:, at - 1, :, None]
        gain *= gain
        gain /= np.where(between > 0, between, 1)
        gain += best[:, :, None]
        gain[between < 0] = -np.inf
        trace.append(gain.argmax(axis=1))
        best = np.take_along_axis(gain, trace[-1][:, None], 1)[:, 0]
    rest = np.maximum(weight[:, -1:] - before[:, -1], 1)
    at = (best + (total[:, -1:] - sums[:, -1]) ** 2 / rest).argmax(axis=1)
    chosen = [at]
    for pick in reversed(trace):
        at = pick[rows, at]
        chosen.append(at)
    moved = np.take_along_axis(places, np.stack(chosen[::-1], 1)[:, :, None], 2)[:, :, 0]
    return np.concatenate([bounds[:, :1], moved, bounds[:, -1:]], axis=1)


def _edges_of_rows(ordered: NDArray[np.float32], most: int) -> Indices:
    """As `_edges`, with their ends, of rows that have more different values than cells."""
    count, size = ordered.shape
    tail = 1.5 ** np.arange(0, np.log(size) / np.log(1.5) - 12)
    even = np.linspace(0, size, min(size, most) + 1)
    ranks = _rising(np.concatenate([even, tail, size - tail]).astype(np.intp))
    widths = np.diff(ordered[:, np.minimum(ranks, size - 1)].astype(np.float64), axis=1)
    lengths = np.diff(ranks)
    share = np.cbrt(lengths) * np.cbrt(widths) ** 2
    cells = np.zeros_like(share)
    for _ in range(4):  # what full runs leave goes to the others
        left = most - cells.sum(axis=1, keepdims=True)
        room = np.where(cells < lengths, share, 0)
        whole = room.sum(axis=1, keepdims=True)
        cells += room * (left / np.where(whole > 0, whole, 1))
        np.minimum(cells, lengths, out=cells)
    grown = np.zeros((count, ranks.size))
    np.cumsum(cells / cells.sum(axis=1, keepdims=True), axis=1, out=grown[:, 1:])
    goals = np.arange(1, most) / most
    ends = _rising(tail.astype(np.intp))
    fixed = np.concatenate([[0], ends, size - ends, [size]])
    edges = np.empty((count, goals.size + fixed.size), np.intp)
    edges[:, goals.size :] = fixed
    for row, own in zip(edges, grown, strict=True):
        row[: goals.size] = np.interp(goals, own, ranks)
    edges.sort(axis=1)
    return edges


def _matrix_search(weight: NDArray[Any], total: Floats, clusters: int) -> Indices:
    """The best bounds of each row among its edges, as their indices: all partitions are compared.

    Args:
        weight: [rows, edges], how many values lie before each edge.
        total: likewise, their sums.
        clusters: how many there are.
    """
    cells = np.diff(total, axis=1) ** 2 / np.maximum(np.diff(weight, axis=1), 1)
    most = np.zeros_like(total)  # what clusters of a cell each would take off the error
    np.cumsum(cells, axis=1, out=most[:, 1:])
    count = weight.shape[1]
    # for each edge, how many values lie before it, their sums, and `most` as a part of all
    ends = np.stack([weight, total, most])
    ends[1:] /= np.sqrt(np.maximum(most[:, -1:], 1e-300))
    ends[2] /= np.sqrt(np.maximum(most[:, -1:], 1e-300))
    ends = ends.astype(np.float32)
    places = np.linspace(0, count, _STRIPS + 1).astype(np.intp)
    strips = []  # from, to and end, and what clusters lose there, [row, to, from]
    for start, end in itertools.pairwise(places):
        first = max(0, start - _SPAN * count // clusters)
        strips.append(
            (first, start, end, _lost(ends[:, :, start:end, None], ends[:, :, None, first:end]))
        )
    spaces = [np.empty_like(strip[-1]) for strip in strips]
    best = [_lost(ends, ends[:, :, :1])]  # up to each edge
    for _ in range(1, clusters):
        centres = np.empty_like(best[0])
        for (first, start, end, gain), space in zip(strips, spaces, strict=True):
            np.add(gain, best[-1][:, None, first:end], out=space)
            space.max(axis=2, out=centres[:, start:end])
        best.append(centres)
    at = np.full((len(weight), 1), count - 1)
    bounds = [at]
    for before in best[-2::-1]:
        here = np.take_along_axis(ends, np.broadcast_to(at, (3, *at.shape)), 2)
        value = _lost(here, ends)
        value += before
        at = value.argmax(axis=1, keepdims=True)
        bounds.append(at)
    bounds.append(np.zeros_like(at))
    return np.concatenate(bounds[::-1], axis=1)


def _lost(to: Floats, since: Floats) -> NDArray[np.float32]:
    """What clusters between edges take off the error less than clusters of a cell each."""
    between = to[0] - since[0]
    gain = to[1] - since[1]
    gain *= gain
    gain /= np.maximum(between, 1)
    gain += since[2]
    gain -= to[2]
    gain[between < 0] = -np.inf  # from an edge to one before it
    gains: NDArray[np.float32] = gain.astype(np.float32)
    return gains


def nearest(values: NDArray[np.float32], table: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The index of the nearest entry of a rising table for every value, flat."""
    (codes,) = nearest_in_rows(values.reshape(1, -1), table[None])
    indices: NDArray[np.uint8] = codes
    return indices


def nearest_in_rows(rows: NDArray[np.float32], tables: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The index of the nearest entry of each row's own rising table.

    Args:
        rows: [rows, values].
        tables: [rows, entries], 256 at most.
    """
    middles = ((tables[:, 1:].astype(np.float64) + tables[:, :-1]) / 2).astype(np.float32)
    # between neighbours is nothing
    middles = np.where(middles < tables[:, 1:], middles, tables[:, :-1])
    places = np.zeros(rows.shape, np.uint8)
    few = middles.shape[1] < _COMPARED
    at_once = _NEAR if few else _CHUNK
    step = max(1, at_once // max(1, rows.shape[1])) if few else 1
    for top in range(0, len(rows), step):
        lines = slice(top, top + step)
        for left in range(0, rows.shape[1], at_once):
            part = lines, slice(left, left + at_once)
            if not few:
                places[part] = np.searchsorted(middles[top], rows[part][0])
                continue
            some, codes = rows[part], places[part]
            is_above = np.empty(some.shape, bool)
            for middle in middles[lines].T:
                np.greater(some, middle[:, None], out=is_above)
                codes += is_above.view(np.uint8)
    return places


def _rising(values: Indices) -> Indices:
    """Each value once."""
    ordered = np.sort(values)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if ordered.size else ordered


class Cells:
    """Runs of sorted values, through the sums that tell the error of any union of them."""

    def __init__(
        self,
        ordered: NDArray[np.float32],
        starts: Indices,
        shift: float,
        counts_and_sums: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    ) -> None:
        if counts_and_sums is None:
            counts = np.diff(np.append(starts, ordered.size)).astype(np.float64)
            sums = np.add.reduceat(ordered, starts, dtype=np.float64) - shift * counts
        else:
            counts, sums = counts_and_sums
        self.shift = shift
        self.count = counts.size
        self.weight = np.concatenate([[0.0], np.cumsum(counts)])
        self.total = np.concatenate([[0.0], np.cumsum(sums)])

    def merged(self, starts: Indices) -> Cells:
        """Coarser cells: those from each start to the next."""
        ends = np.append(starts, self.count)
        sums = np.diff(self.weight[ends]), np.diff(self.total[ends])
        return Cells(np.zeros(0, np.float32), starts, self.shift, sums)

    def gain(self, first: Indices, end: Indices) -> Floats:
        """How much a centre of its own takes off the error of the cells first..end-1."""
        weight = self.weight[end] - self.weight[first]
        total = self.total[end] - self.total[first]
        gains: Floats = total * total / np.maximum(weight, 1e-30)
        return gains

    def centres(self, bounds: Indices) -> NDArray[np.float32]:
        """The means between successive bounds."""
        remaining = np.unique(bounds)
        means = np.diff(self.total[remaining]) / np.diff(self.weight[remaining])
        entries: NDArray[np.float32] = np.unique((means + self.shift).astype(np.float32))
        return entries


def _distinct(ordered: NDArray[np.float32], limit: int) -> Indices | None:
    """Where each distinct value starts, or None for more than `limit` of them."""
    some = ordered[:: max(1, ordered.size // (2 * limit))]
    if np.count_nonzero(some[1:] != some[:-1]) >= limit:
        return None
    bounds: list[Indices] = [np.zeros(1, np.intp)]
    size = 1
    for start in range(1, ordered.size, _CHUNK):
        end = min(start + _CHUNK, ordered.size)
        steps = np.flatnonzero(ordered[start:end] != ordered[start - 1 : end - 1]) + start
        size += steps.size
        if size > limit:
            return None
        bounds.append(steps)
    return np.concatenate(bounds)


def _edges(ordered: NDArray[np.float32], most: int) -> Indices:
    """Where about `wanted` cells start, each with an equal share of density ** (1/3).

    A run of n values over a width w has the share n ** (1/3) * w ** (2/3), but never more
    cells than values. Equal values are never parted.
    """
    size = ordered.size
    tail = _rising((1.2 ** np.arange(np.log(size) / np.log(1.2))).astype(np.intp))
    even = np.linspace(0, size, min(size, most // 4) + 1).astype(np.intp)
    ranks = _rising(np.concatenate([even, tail, size - tail]))
    lengths = np.diff(ranks).astype(np.float64)
    widths = ordered[np.minimum(ranks[1:], size - 1)].astype(np.float64) - ordered[ranks[:-1]]
    share = np.cbrt(lengths) * np.cbrt(widths) ** 2
    cells = np.ones(lengths.size)
    room = share > 0
    for _ in range(20):  # what full runs leave goes to the others
        left = most - cells[~room].sum()
        cells[room] = left * share[room] / share[room].sum() if room.any() else 0
        full = room & (cells >= lengths)
        if not full.any():
            break
        cells[full] = lengths[full]
        room &= ~full
    grown = np.concatenate([[0.0], np.cumsum(np.clip(cells, 1, lengths))])
    at = np.interp(np.arange(int(grown[-1])), grown, ranks).astype(np.intp)
    chosen = ordered[np.minimum(np.concatenate([at, ranks]), size - 1)]
    ends = np.searchsorted(ordered, ordered[ranks[:-1]][widths == 0], side="right")
    starts = np.concatenate([[0], np.searchsorted(ordered, chosen), ends[ends < size]])
    edges: Indices = _rising(starts)
    return edges


def full_search(cells: Cells, clusters: int) -> Indices:
    """The best bounds of all, with the ends: dynamic programming, divide and conquer.

    The best last bound of a prefix moves with the length of the prefix, so that each level of
    prefixes lies between those of the level before; nor is it before the best last bound with
    a cluster less.
    """
    count = cells.count
    ends = np.arange(count + 1)
    best = cells.gain(np.zeros(count + 1, np.intp), ends)
    levels = _levels(count)
    trace = []
    before = np.zeros(count + 1, np.int64)
    for used in range(1, clusters):
        choice = np.zeros(count + 1, np.int64)
        sums = np.full(count + 1, -np.inf)
        for step, at in levels:
            at = at[at > used]  # noqa: PLW2901 - a prefix has a cell for each cluster
            if not at.size:
                continue
            behind = at + step
            inside = behind <= count
            high = np.where(inside, choice[np.minimum(behind, count)], at - 1)
            high = np.minimum(high, at - 1)
            low = np.maximum(np.maximum(choice[at - step], before[at]), used)
            low = np.minimum(low, high)
            length = high - low + 1
            first = np.cumsum(length) - length
            where = np.arange(int(length.sum())) + np.repeat(low - first, length)
            value = best[where] + cells.gain(where, np.repeat(at, length))
            top = np.maximum.reduceat(value, first)
            hits = np.flatnonzero(value == np.repeat(top, length))
            choice[at] = where[hits[np.searchsorted(hits, first)]]
            sums[at] = top
        trace.append(choice)
        best, before = sums, choice
    bounds = [count]
    for choice in reversed(trace):
        bounds.append(int(choice[bounds[-1]]))
    return np.array([0, *bounds[::-1]])


def _levels(count: int) -> list[tuple[int, NDArray[np.int64]]]:
    """Prefix lengths 1..count from the coarsest level to the finest, with the level's step."""
    step = 1 << int(np.ceil(np.log2(count + 1)))
    levels: list[tuple[int, NDArray[np.int64]]] = []
    while step > 1:
        step //= 2
        levels.append((step, np.arange(step, count + 1, 2 * step)))
    return levels


def band_search(cells: Cells, bounds: Indices) -> Indices:
    """Move every bound by a few cells, all at once and at best, until none moves.

    At first by steps of some cells, and then by single ones around.
    """
    bounds = np.unique(bounds)
    for step, reach in _STEPS:
        offsets = np.arange(-reach, reach + 1, step)
        for _ in range(_ROUNDS):
            moved = _moved(cells, bounds, offsets)
            if np.array_equal(moved, bounds):
                break
            bounds = moved
    return bounds


def _moved(cells: Cells, bounds: Indices, offsets: Indices) -> Indices:
    """With the best offsets for all bounds together."""
    inner = bounds[1:-1]
    if not inner.size:
        return bounds
    places = np.clip(inner[:, None] + offsets, 1, cells.count - 1)
    weight, total = cells.weight[places], cells.total[places]
    best = total[0] ** 2 / np.maximum(weight[0], 1e-30)
    trace = []
    for at in range(1, inner.size):
        between = weight[at] - weight[at - 1, :, None]
        gain = total[at] - total[at - 1, :, None]
        gain *= gain
        gain /= np.maximum(between, 1e-30)
        gain += best[:, None]
        gain[between < 0] = -np.inf
        trace.append(gain.argmax(axis=0))
        best = gain[trace[-1], np.arange(offsets.size)]
    rest = np.maximum(cells.weight[-1] - weight[-1], 1e-30)
    at = int((best + (cells.total[-1] - total[-1]) ** 2 / rest).argmax())
    chosen = [at]
    for pick in reversed(trace):
        at = int(pick[at])
        chosen.append(at)
    moved = places[np.arange(inner.size), chosen[::-1]]
    return np.concatenate([bounds[:1], moved, bounds[-1:]])
