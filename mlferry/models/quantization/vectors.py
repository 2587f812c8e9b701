"""k-means of vectors: tables whose entries stand for several weights at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import SpecError

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]

_SEEDED = 1 << 14  # vectors among which the first centres are looked for
_STARTS = (3, 24)  # at least, and at most: as many as `_WORK` distances allow
_WORK = 1 << 17
_PICKED = 256  # and centres
_MANY = 1 << 17  # vectors with which the best one goes on
_ROUNDS = (15, 60, 40)  # of a start, of the best one, and of that with all vectors
_SMALL_GAIN = (1e-5, 1e-5, 3e-5)  # of the error; less ends the rounds
_CHUNK = 1 << 20  # distances at a time


def kmeans_vectors(vectors: Floats, clusters: int) -> tuple[Floats, Codes]:
    """Centres and the nearest of each vector, with a small squared error.

    The best of a few starts (k-means++, Arthur and Vassilvitskii 2007), then Lloyd's algorithm.
    Deterministic. Vectors of which at most `clusters` differ come back as they are.

    Args:
        vectors: [count, length].
        clusters: at most 256.

    Returns:
        centres [clusters, length], zero where fewer suffice, and their indices [count].

    Raises:
        SpecError: a value is not finite.
    """
    rows = np.ascontiguousarray(vectors, np.float32)
    if not np.isfinite(rows).all():
        raise SpecError("weights that are infinite or no number have no lookup table")
    centres = np.zeros((clusters, rows.shape[1]), np.float32)
    random = np.random.default_rng(0)
    some = rows
    if len(rows) > _SEEDED:
        some = rows[np.sort(random.choice(len(rows), _SEEDED, replace=False))]
    first = np.unique(some[: 4 * clusters], axis=0)
    if len(first) <= clusters:
        different = np.unique(rows, axis=0)
        if len(different) <= clusters:
            centres[: len(different)] = different
            return centres, nearest_vector(rows, centres)[0]
    starts = []
    least, most = _STARTS
    tried = min(_WORK // (len(some) * clusters), _PICKED // clusters, most)
    for _ in range(max(least, tried)):
        found = _spread(some, clusters, random)
        starts.append(_moved(some, found, 0))
    best = min(starts, key=lambda start: start[2])[0]
    if len(rows) > _MANY:
        many = rows[np.sort(random.choice(len(rows), _MANY, replace=False))]
        best, _, _ = _moved(many, best, 1)
    made, codes, _ = _moved(rows, best, 2 if len(rows) > _MANY else 1)
    return made, codes


def distinct_vectors(vectors: Floats, most: int) -> tuple[Floats, Codes]:
    """The vectors that there are, filled with zeros up to `most`, and their indices.

    Raises:
        SpecError: there are more.
    """
    entries, codes = np.unique(vectors, axis=0, return_inverse=True)
    if len(entries) > most:
        raise SpecError(f"{len(entries)} different vectors do not fit into a table of {most}")
    return np.pad(entries, ((0, most - len(entries)), (0, 0))), codes.reshape(-1).astype(np.uint8)


def as_vectors(lines: Floats, length: int) -> Floats:
    """[channels, ...] as [count, length]: vectors of channels one after another."""
    apart = lines.reshape(len(lines) // length, length, -1)
    return np.ascontiguousarray(apart.swapaxes(1, 2)).reshape(-1, length)


def different(lines: Floats, length: int) -> int:
    """How many values, or vectors of channels one after another, [channels, ...] has."""
    if length == 1:
        return int(np.unique(lines).size)
    return len(np.unique(as_vectors(lines, length), axis=0))


def nearest_vector(vectors: Floats, centres: Floats) -> tuple[Codes, Floats]:
    """The index of the nearest centre of each vector, and the square of its distance."""
    codes = np.empty(len(vectors), np.uint8)
    least = np.empty(len(vectors), np.float32)
    lengths = np.square(centres).sum(axis=1)
    turned = np.ascontiguousarray(-2 * centres.T)
    step = max(1, _CHUNK // len(centres))
    for start in range(0, len(vectors), step):
        part = vectors[start : start + step]
        off = part @ turned
        off += lengths
        picked = off.argmin(axis=1)
        codes[start : start + step] = picked
        near = np.take_along_axis(off, picked[:, None], 1)[:, 0]
        least[start : start + step] = near + np.square(part).sum(axis=1)
    return codes, np.maximum(least, 0)


def _spread(vectors: Floats, clusters: int, random: np.random.Generator) -> Floats:
    """Vectors far from each other: each is the best of a few drawn by the squared distance."""
    picked = [int(random.integers(len(vectors)))]
    off = np.square(vectors - vectors[picked[0]]).sum(axis=1)
    tries = 2 + int(np.log(clusters))
    lengths = np.square(vectors).sum(axis=1)
    for _ in range(1, clusters):
        grown = np.cumsum(off, dtype=np.float64)
        draws = np.searchsorted(grown, random.random(tries) * grown[-1])
        draws = np.minimum(draws, len(vectors) - 1)
        others = vectors[draws] @ vectors.T
        others *= -2
        others += lengths
        others += lengths[draws, None]
        np.clip(others, 0, off, out=others)
        best = int(others.sum(axis=1).argmin())
        picked.append(int(draws[best]))
        off = others[best]
    found: Floats = vectors[picked]
    return found


def _moved(vectors: Floats, centres: Floats, stage: int) -> tuple[Floats, Codes, float]:
    """Lloyd's algorithm: the centres, the nearest of each vector, and the squared error."""
    codes, off = nearest_vector(vectors, centres)
    error = float(off.sum(dtype=np.float64))
    for _ in range(_ROUNDS[stage]):
        means = _means(vectors, codes, off, len(centres))
        nearest, moved_off = nearest_vector(vectors, means)
        after = float(moved_off.sum(dtype=np.float64))
        if after > error:
            break
        gain, error = error - after, after
        centres, codes, off = means, nearest, moved_off
        if gain <= _SMALL_GAIN[stage] * error:
            break
    return centres, codes, error


def _means(vectors: Floats, codes: Codes, off: Floats, clusters: int) -> Floats:
    """The mean of the vectors of each centre; one without any takes a vector far from its own."""
    counts = np.bincount(codes, minlength=clusters)
    sums = [np.bincount(codes, column, clusters) for column in vectors.T]
    means = np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None]
    empty = np.flatnonzero(counts == 0)
    if empty.size:
        means[empty] = vectors[np.argsort(-off, kind="stable")[: empty.size]]
    return means.astype(np.float32)
