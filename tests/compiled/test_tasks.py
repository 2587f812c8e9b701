"""Steps that compiled code goes through: in order, each task once, on one or several threads."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="Numba is not installed")

from mlferry import lanes
from mlferry.compiled import tasks
from mlferry.compiled.tasks import MapTask, Table
from mlferry.compiled.vectors import LANES
from mlferry.compiled.windows import copy_pixels
from mlferry.errors import PredictionError


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine of three cores, with helpers of this test's own."""
    monkeypatch.setattr(lanes, "cores", lambda: 3)
    monkeypatch.setattr(lanes, "free_cores", lambda awake=0: 2)
    monkeypatch.setattr(lanes, "_helpers", lanes._Helpers())


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(0, 1, shape).astype(np.float32)


def relayed(source: np.ndarray, count: int, parts: int) -> tuple[Table, list[np.ndarray]]:
    """Steps that copy one map to the next, row by row in reverse, and what the last one holds."""
    maps = [source, *(np.full_like(source, np.nan) for _ in range(count))]
    height = len(source)
    cuts = np.linspace(0, height, parts + 1).astype(int)

    def copies(x: np.ndarray, y: np.ndarray) -> list[MapTask]:
        """Each takes the rows that another thread has probably written."""
        return [
            MapTask(copy_pixels, y[a:b], x[::-1][a:b], (-x.strides[0], x.strides[1]))
            for a, b in itertools.pairwise(cuts)
        ]

    return Table([copies(x, y) for x, y in itertools.pairwise(maps)]), maps


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("parts", [1, 2, 7])
@pytest.mark.usefixtures("three_threads")
def test_a_step_begins_when_all_tasks_of_the_one_before_have_ended(
    parts: int, threads: int
) -> None:
    table, maps = relayed(normal(14, 6, 50), 41, parts)
    right = maps[0][::-1].copy()
    for _ in range(20):
        with lanes.at_most(threads):
            lanes.run_steps([table])
        np.testing.assert_array_equal(maps[-1], right)
        for each in maps[1:]:
            each.fill(np.nan)


@pytest.mark.parametrize("patience", [0, 1])
@pytest.mark.usefixtures("three_threads")
def test_a_thread_that_has_waited_for_long_goes_on(
    patience: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_PATIENCE", patience)
    table, maps = relayed(normal(60, 40, 50), 6, 3)
    for _ in range(5):
        lanes.run_steps([table])
        np.testing.assert_array_equal(maps[-1], maps[0])
        for each in maps[1:]:
            each.fill(np.nan)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Helpers stay awake until they are called away."""
    monkeypatch.setattr(tasks, "_MOMENT", 1 << 60)


def is_awake(helpers: int) -> bool:
    """Whether so many helpers wait for more, after they have had time to."""
    idle, end = lanes._helpers._idle, time.monotonic() + 10
    while sum(helper.is_awake for helper in idle) < helpers and time.monotonic() < end:
        time.sleep(1e-4)
    return len(idle) == helpers and all(helper.is_awake for helper in idle)


@pytest.mark.parametrize("parts", [2, 7])
@pytest.mark.usefixtures("three_threads", "patient")
def test_helpers_that_are_awake_take_part(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wake for the first table; then nobody is asked."""
    made = [relayed(normal(14, 60, 50), 9, parts) for _ in range(3)]
    lanes.AwakeSteps([made[0][0]])()
    helpers = min(parts, 3) - 1
    assert is_awake(helpers)
    monkeypatch.setattr(lanes, "share", pytest.fail)
    for turn in range(300):
        table, maps = made[turn % 3]
        doubled = np.zeros_like(maps[-1])
        steps = [table, lambda maps=maps, y=doubled: np.multiply(maps[-1], 2, out=y), table]
        lanes.AwakeSteps(steps)()
        np.testing.assert_array_equal(doubled, maps[0][::-1] * 2)
        np.testing.assert_array_equal(maps[-1], maps[0][::-1])
        for each in maps[1:]:
            each.fill(np.nan)
        assert is_awake(helpers)
    for helper in lanes._helpers._idle:
        helper.mailbox.close()


@pytest.mark.usefixtures("three_threads", "patient")
def test_a_helper_does_all_of_what_is_posted_where_nobody_else_does() -> None:
    table, maps = relayed(normal(14, 6, 50), 3, 2)
    lanes.AwakeSteps([table])()
    assert is_awake(1)
    (helper,) = lanes._helpers._idle
    before = helper.mailbox.times()
    mailbox, counts = helper.mailbox, np.zeros((2, table.length, tasks._RECORD), np.int64)
    assert isinstance(mailbox, tasks.TableMailbox)
    mailbox.keep(table, counts)
    for each in maps[1:]:
        each.fill(np.nan)
    places = [tasks._number(each) for each in (table.rows, table._starts, counts)]
    mailbox._numbers[1 : tasks._TIMES] = *places, table.length, table.rows.size, 1, 2
    mailbox._numbers[tasks._STATE] = tasks._POSTED
    assert is_awake(1)
    np.testing.assert_array_equal(maps[-1], maps[0][::-1])
    np.testing.assert_array_equal(counts[:, :, tasks._ENDED], [[0, 0, 0], [2, 2, 2]])
    assert mailbox.times() == before + 1
    mailbox.close()


@pytest.mark.usefixtures("three_threads", "patient")
def test_helpers_that_are_awake_do_what_else_is_asked_of_them() -> None:
    table, _ = relayed(normal(14, 6, 50), 3, 3)
    lanes.AwakeSteps([table])()
    assert is_awake(2)
    who: set[int] = set()
    all_there = threading.Barrier(3, timeout=10)

    def part() -> None:
        who.add(threading.get_ident())
        all_there.wait()

    lanes.share([[part] * 3] * 3)
    assert len(who) == 3
    assert not any(helper.is_awake for helper in lanes._helpers._idle)


@pytest.mark.usefixtures("three_threads")
def test_helpers_go_to_sleep_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_MOMENT", 10)
    table, maps = relayed(normal(14, 6, 50), 3, 3)
    for _ in range(20):
        lanes.AwakeSteps([table])()
        np.testing.assert_array_equal(maps[-1], maps[0][::-1])
        for each in maps[1:]:
            each.fill(np.nan)
    end = time.monotonic() + 10
    while any(helper.is_awake for helper in lanes._helpers._idle) and time.monotonic() < end:
        time.sleep(1e-3)
    assert not any(helper.is_awake for helper in lanes._helpers._idle)


@pytest.mark.usefixtures("three_threads", "patient")
def test_an_error_while_helpers_are_awake() -> None:
    table, maps = relayed(normal(14, 6, 50), 3, 3)
    lanes.AwakeSteps([table])()
    assert is_awake(2)

    def fail() -> None:
        raise PredictionError("of a step")

    for _ in range(5):
        with pytest.raises(PredictionError, match="of a step"):
            lanes.AwakeSteps([table, fail, table])()
        assert not any(helper.mailbox.is_in_use() for helper in lanes._helpers._idle)
    lanes.AwakeSteps([table])()
    np.testing.assert_array_equal(maps[-1], maps[0][::-1])
    for helper in lanes._helpers._idle:
        helper.mailbox.close()


@pytest.mark.usefixtures("three_threads", "patient")
def test_threads_that_lead_the_same_helpers() -> None:
    """Each of four threads runs tables of its own; two helpers go from one to the other."""
    made = [relayed(normal(14, 6, 50), 9, 3) for _ in range(4)]
    wrong: list[int] = []

    def lead(number: int) -> None:
        table, maps = made[number]
        for _ in range(200):
            lanes.AwakeSteps([table])()
            if not np.array_equal(maps[-1], maps[0][::-1]):
                wrong.append(number)
            for each in maps[1:]:
                each.fill(np.nan)

    threads = [threading.Thread(target=lead, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    for helper in lanes._helpers._idle:
        helper.mailbox.close()


@pytest.mark.usefixtures("three_threads")
def test_tables_and_python_take_turns() -> None:
    table, maps = relayed(normal(9, 4, 5), 3, 3)
    doubled = np.zeros_like(maps[0])

    def double() -> None:
        np.multiply(maps[-1], 2, out=doubled)

    shares = [lambda row=row: doubled[row].__iadd__(1) for row in range(9)]
    table_again = tasks.copied(doubled, maps[0])
    for _ in range(10):
        right = maps[0][::-1] * 2 + 1
        lanes.run_steps([table, double, lanes.Shared([shares] * 3), table_again])
        np.testing.assert_array_equal(maps[0], right)


@pytest.mark.usefixtures("three_threads")
def test_an_error_between_tables_ends_all_threads() -> None:
    first, _ = relayed(normal(9, 4, 5), 3, 3)
    after, maps = relayed(normal(9, 4, 5), 3, 3)

    def fail() -> None:
        raise PredictionError("of a step")

    for _ in range(5):
        with pytest.raises(PredictionError, match="of a step"):
            lanes.run_steps([first, fail, after])
    lanes.run_steps([first, after])
    np.testing.assert_array_equal(maps[-1], maps[0][::-1])


def test_tables_next_to_each_other_become_one() -> None:
    one, two, three = (relayed(normal(3, 2, 2), count, 1)[0] for count in (1, 2, 3))
    runs: list[Callable[[], None]] = [one, two, print, three]
    lengths = [getattr(run, "length", None) for run in tasks.joined(runs)]
    assert lengths == [3, None, 3]


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 5), (7, 1, 3), (200, 30, 7)])
@pytest.mark.parametrize("place", ["whole", "part of the channels", "part of the pixels"])
@pytest.mark.parametrize("filled", [True, False])
@pytest.mark.usefixtures("three_threads")
def test_filled_and_copied(shape: tuple[int, int, int], place: str, filled: bool) -> None:
    height, width, channels = shape
    beyond = {
        "whole": (0, 0, 0),
        "part of the channels": (0, 0, 2),
        "part of the pixels": (1, 2, 0),
    }
    outer = np.zeros([n + m for n, m in zip(shape, beyond[place], strict=True)], np.float32)
    y = outer[:height, :width, :channels]
    right = np.zeros_like(outer)
    x = np.full(shape, 7, np.float32) if filled else normal(*shape)
    right[:height, :width, :channels] = x
    (tasks.filled([y], 7) if filled else tasks.copied(x, y))()
    np.testing.assert_array_equal(outer, right)


@pytest.mark.parametrize("cores", [1, 2, 3, 4])
@pytest.mark.parametrize("extent", [1, 5, 7, 13, 14, 27, 56, 1000])
def test_even_parts_are_even_for_threads_that_share_them(extent: int, cores: int) -> None:
    for shares in range(1, 3 * cores):
        parts = tasks.evenly(extent, shares * cores)
        assert [index for part in parts for index in range(part.start, part.stop)] == [
            *range(extent)
        ]
        assert len(parts) == min(extent, shares * cores)
        sizes = [part.stop - part.start for part in parts]
        assert max(sizes) - min(sizes) <= 1
        if len(parts) % cores == 0:
            each = len(parts) // cores
            of_threads = [sum(sizes[first : first + each]) for first in range(0, len(parts), each)]
            assert max(of_threads) - min(of_threads) <= 1


@pytest.mark.parametrize("panel", [LANES, 4 * LANES])
@pytest.mark.parametrize("count", [1, LANES, LANES + 1, 2 * LANES - 1, 72, 320, 1000])
def test_parts_of_columns_are_whole_panels(count: int, panel: int) -> None:
    for shares in range(1, 9):
        parts = tasks.columns_evenly(count, shares, panel)
        assert [index for part in parts for index in range(part.start, part.stop)] == [
            *range(count)
        ]
        assert all(part.start % panel == 0 for part in parts)
        assert len(parts) <= shares
        assert len(parts) == 1 or parts[-1].stop - parts[-1].start >= LANES


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_as_many_tasks_for_each_core(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "cores", lambda: number)
    for work in [0, 1, 10**5, 2 * 10**5, 3 * 10**5, 10**6, 10**7, 10**9]:
        shares = tasks.shares_of(work)
        assert shares >= 1
        assert shares < number or shares % number == 0
