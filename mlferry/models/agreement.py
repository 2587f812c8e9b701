"""How often two classifiers agree: rates with intervals, and what scores add to counting.

A rate over few samples varies by chance: with 100 samples, each is a percent. Where there are
scores, the *expected* agreement uses all of them: whether a sample's best class stays the best
depends on its margins before the others and on how far these move. The margins of each sample are
paired with the movements of half of the samples, so that n samples make n * n / 2 pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TOP = 5
_Z = 1.959963984540054  # of the normal distribution: 95 % lie within this
_RIVALS = 24  # classes after the best one whose margins are kept
_LEAST = 1e-12  # the least chance: float16 rounds smaller ones to 0


def wilson(rate: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a rate that was measured on `count` samples.

    The score interval of E. B. Wilson, "Probable inference, the law of succession, and statistical
    inference", Journal of the American Statistical Association 22 (1927).
    """
    part = _Z * _Z / count
    middle = (rate + part / 2) / (1 + part)
    half = math.sqrt(rate * (1 - rate) * part + part * part / 4) / (1 + part)
    return (middle - half if rate > 0 else 0.0), (middle + half if rate < 1 else 1.0)


def samples_needed(rate: float, target: float) -> int | None:
    """How many samples separate a rate from a target, so that its interval lies on one side.

    With a rate of 1: the least number of samples that can show the target at all.

    Returns:
        the number; None if the rate is the target, or no number is enough.
    """
    if not 0 <= target < 1 or rate == target:
        return None
    count = 1
    while not _apart(rate, target, count):
        count *= 2
        if count > 1 << 40:
            return None
    least, most = count // 2, count
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if _apart(rate, target, middle) else (middle, most)
    return most


def _apart(rate: float, target: float, count: int) -> bool:
    low, high = wilson(rate, count)
    return low >= target if rate > target else high < target


class Margins(NamedTuple):
    """The scores of one sample in two models, as logarithms of chances.

    Attributes:
        before: [rivals], the first model's margin of its best class over each of the next ones, the
            nearest first.
        moved: [rivals], how much larger these margins are in the second model.
    """

    before: Floats
    moved: Floats


def are_chances(scores: Floats) -> bool:
    """Whether numbers are not negative and sum to 1, to a percent."""
    return bool(scores.min() >= 0 and abs(scores.sum() - 1) <= 0.01)


def log_chances(scores: Floats) -> Floats:
    """Logarithms of chances: scores that are not chances go through softmax.

    Chances are numbers from 0 whose sum is 1, to a percent.
    """
    flat = scores.reshape(-1)
    if are_chances(flat):
        return np.log(np.maximum(flat, _LEAST))
    shifted = flat - flat.max()
    logs: Floats = shifted - np.log(np.exp(shifted).sum())
    return logs


def divergence(first: Floats, second: Floats) -> float:
    """The Kullback-Leibler divergence of logarithms of chances, in nats: 0 if they are the same."""
    chances = np.exp(first)
    return max(0.0, float((chances * (first - second)).sum()))


def margins(first: Floats, second: Floats) -> Margins:
    """The margins of one sample, from logarithms of chances in two models."""
    count = min(_RIVALS + 1, first.size)
    order = np.argsort(-first, kind="stable")[:count]
    before = first[order[0]] - first[order[1:]]
    return Margins(before, second[order[0]] - second[order[1:]] - before)


def expected(samples: Sequence[Margins], top: int) -> float:
    """The expected part of samples whose best class is among the second model's best `top`.

    How far margins move in proportion to themselves is fitted to all samples. The rest of the
    movement is taken from the half of the samples whose margins are most like a sample's own, each
    as likely as the others. On SqueezeNet, counting needs about three times as many samples for
    the same precision, and both tell the same wherever at least half of the samples agree.
    """
    before = np.stack([each.before for each in samples])
    moves = np.stack([each.moved for each in samples])
    size = float((before * before).sum())
    slope = float((before * moves).sum()) / size if size else 0.0
    order = np.argsort(before[:, 0], kind="stable")
    before, rest = before[order], (moves - slope * before)[order]
    count = len(before)
    near = -(-count // 2)
    total = 0
    for index, own in enumerate((1 + slope) * before):
        first = min(max(0, index - near // 2), count - near)
        after = own + rest[first : first + near]
        total += int(((after < 0).sum(axis=1) < top).sum())
    return total / (count * near)


def is_vector(shape: Sequence[int]) -> bool:
    """Whether an array may be the scores of classes: one axis alone has more than one entry."""
    return sum(extent > 1 for extent in shape) == 1
