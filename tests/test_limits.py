"""Limits on what a file may ask for, and how they are raised."""

from __future__ import annotations

import threading

import pytest

from mlferry import limits
from mlferry.converters import expansion
from mlferry.errors import ConversionError, LimitError


def test_limits_are_raised_for_a_block_only() -> None:
    before = limits.current()
    with limits.changed(nodes=5, blob=7) as actual:
        assert (actual.nodes, actual.blob, actual.depth) == (5, 7, before.depth)
        with limits.changed(nodes=6):
            assert (limits.current().nodes, limits.current().blob) == (6, 7)
        assert limits.current() is actual
    assert limits.current() == before
    with pytest.raises(ZeroDivisionError), limits.changed(nodes=5):
        1 / 0  # noqa: B018
    assert limits.current() == before


def test_a_thread_has_limits_of_its_own() -> None:
    seen: list[int] = []
    with limits.changed(nodes=5):
        thread = threading.Thread(target=lambda: seen.append(limits.current().nodes))
        thread.start()
        thread.join()
    assert seen == [limits.Limits().nodes]


def test_an_unknown_limit() -> None:
    with pytest.raises(TypeError, match="no limit speed; there are weights, expansion"), \
            limits.changed(speed=3):  # fmt: skip
        pass


def test_the_message_names_what_to_type() -> None:
    limits.check("nodes", 200_000, "nodes:")
    with pytest.raises(LimitError, match=r"nodes: 200,001; the limit is 200,000.*nodes=262144\)"):
        limits.check("nodes", 200_001, "nodes:")
    limits.check_growth(1 << 30, 30 << 30, "it has")
    limits.check_growth(10, 256 << 20, "it has")
    with pytest.raises(LimitError, match=r"it has 268,435,457 bytes, 26,843,545 times.*512 << 20"):
        limits.check_growth(10, (256 << 20) + 1, "it has")
    limits.check_blob((1 << 15, None, 1 << 15))
    with pytest.raises(LimitError, match=r"shape \(32768, 32769, 1\)"):
        limits.check_blob((1 << 15, (1 << 15) + 1, None))


def doubling(levels: int) -> dict[str, list[str]]:
    return {f"f{n}": [f"f{n + 1}", f"f{n + 1}"] for n in range(levels)}


@pytest.mark.parametrize(
    ("main", "functions", "count"),
    [
        (["Add", "Mul"], {}, 2),
        (["f", "Mul", "f"], {"f": ["Add", "Add"]}, 7),
        (["f0"], doubling(3), 15),
        (["f0"], doubling(200), 2**201 - 1),
        (["g"], {f"f{n}": [f"f{n + 1}"] for n in range(5000)} | {"g": ["f0"]}, 5002),
    ],
)
def test_nodes_after_inlining(main: list[str], functions: dict[str, list[str]], count: int) -> None:
    assert expansion.nodes(main, functions) == count


@pytest.mark.parametrize("functions", [{"f": ["f"]}, {"f": ["g"], "g": ["Add", "h"], "h": ["f"]}])
def test_functions_that_call_themselves(functions: dict[str, list[str]]) -> None:
    with pytest.raises(ConversionError, match="calls itself"):
        expansion.nodes(["f"], functions)
