"""Rates of agreement: intervals, and what margins between scores tell beyond counting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlferry.models import agreement
from mlferry.models.compare import compare_models
from tests.oracles import oracle

stats = oracle("scipy.stats")
special = oracle("scipy.special")


@pytest.mark.parametrize(("same", "count"), [(0, 1), (46, 50), (97, 100), (100, 100), (13, 900)])
def test_interval(same: int, count: int) -> None:
    right = stats.binomtest(same, count).proportion_ci(method="wilson")
    np.testing.assert_allclose(agreement.wilson(same / count, count), right, atol=1e-12)


@pytest.mark.parametrize(
    ("rate", "target"), [(1.0, 0.95), (1.0, 0.99), (0.98, 0.95), (0.9, 0.95), (0.951, 0.95)]
)
def test_needed_samples_are_the_fewest(rate: float, target: float) -> None:
    count = agreement.samples_needed(rate, target)
    assert count is not None

    def apart(count: int) -> bool:
        low, high = agreement.wilson(rate, count)
        return low >= target or high < target

    assert apart(count)
    assert not apart(count - 1)


@pytest.mark.parametrize(("rate", "target"), [(0.95, 0.95), (1.0, 1.0), (1.0, 2.0)])
def test_no_number_of_samples_is_enough(rate: float, target: float) -> None:
    assert agreement.samples_needed(rate, target) is None


def scores(rng: np.random.Generator, count: int, noise: float) -> tuple[Any, Any]:
    """Logits of two models: the second one's have noise, and are a tenth smaller."""
    first = rng.normal(size=(count, 12)) * 2
    return first, 0.9 * first + noise * rng.normal(size=first.shape)


@pytest.mark.parametrize(("noise", "top"), [(0.05, 1), (0.1, 1), (1.0, 5)])
def test_expected_rate_is_nearer_than_a_count(noise: float, top: int) -> None:
    rng = np.random.default_rng(5)

    def agree(first: Any, second: Any) -> Any:
        best = np.take_along_axis(second, first.argmax(axis=1)[:, None], 1)
        return ((second > best).sum(axis=1) < top).mean()

    right = agree(*scores(rng, 200_000, noise))
    counted, expected = [], []
    for _ in range(40):
        first, second = scores(rng, 50, noise)
        logs = [[agreement.log_chances(row) for row in each] for each in (first, second)]
        margins = [agreement.margins(one, other) for one, other in zip(*logs, strict=True)]
        counted.append(agree(first, second) - right)
        expected.append(agreement.expected(margins, top) - right)
    assert abs(np.mean(expected)) < 0.01
    assert np.mean(np.square(expected)) <= 0.8 * np.mean(np.square(counted))


@pytest.mark.parametrize("form", [(6,), (1, 6), (6, 1, 1)])
@pytest.mark.parametrize("chances", [False, True])
def test_arrays_of_scores(form: tuple[int, ...], chances: bool) -> None:
    rng = np.random.default_rng(3)
    logits = [3 * rng.normal(size=6) for _ in range(8)]
    moved = [each + rng.normal(size=6) for each in logits]
    answers = [
        [(special.softmax(each) if chances else each).reshape(form) for each in those]
        for those in (logits, moved)
    ]
    first, second = (iter(each) for each in answers)
    report = compare_models(lambda _: next(first), lambda _: next(second), [{"x": 0}] * 8)
    (output,) = report.outputs.values()
    pairs = [*zip(logits, moved, strict=True)]
    kl = [stats.entropy(special.softmax(one), special.softmax(other)) for one, other in pairs]
    np.testing.assert_allclose(output.numbers["kl"], np.mean(kl), rtol=1e-6)
    same = [one.argmax() == other.argmax() for one, other in pairs]
    assert report.top1 == np.mean(same)
    assert output.intervals["top1"] == agreement.wilson(report.top1, 8)
    assert 0 < output.numbers["expected_top1"] < 1
    assert output.numbers["snr"] == output.numbers["snr"] != np.inf


@pytest.mark.parametrize("shape", [(2, 3), (1, 1), ()])
def test_other_arrays_have_no_ranks(shape: tuple[int, ...]) -> None:
    report = compare_models(lambda _: np.ones(shape), lambda _: np.ones(shape), [{"x": 0}] * 2)
    assert "top1" not in report.outputs["output 0"].numbers


def test_scores_that_are_no_numbers_have_no_expected_rate() -> None:
    report = compare_models(
        lambda x: x["x"], lambda x: x["x"] * np.float32(np.nan), [{"x": np.eye(4)[0]}]
    )
    numbers = report.outputs["output 0"].numbers
    assert "expected_top1" not in numbers
    assert "kl" not in numbers
