"""Threads of this process that share parts of one task.

NumPy lets other threads run while it computes. A thread takes the next part as soon as it is done
with one. The thread that asked does whatever no other has started, so that it never waits for a
core that another process uses.
"""

from __future__ import annotations

import contextvars
import functools
import math
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlferry.settings import Setting

Part = Callable[[], None]
R = TypeVar("R")
_MOST = 8  # threads: each has memory of its own to work in
_AT_ONCE = 1 << 16  # elements
WORTH_A_THREAD = 1 << 22  # multiplications: to wake a thread takes about as long
_MOST_PARTS = 16
_PASSES = 32  # multiplications that take as long as a function such as an exponential
_TRIES, _TRIED_AGAIN = 3, 128  # how often each way is timed, in so many runs
_EAGER, _PAUSE = 300, 5e-5  # how often a thread asks without a pause, and seconds of one


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def lane_count(parts: int) -> int:
    """The most threads that this many parts run on."""
    return min(parts, cores(), _MOST)


_allowed: contextvars.ContextVar[int] = contextvars.ContextVar("threads", default=_MOST)


def at_most(threads: int | None) -> Setting[int]:
    """Limit the threads that share parts inside; None changes nothing."""
    allowed = _allowed.get()
    return Setting(_allowed, allowed if threads is None else min(threads, allowed))


class _Request:
    """A request to a helper, which may be too late for it."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._context = contextvars.copy_context()
        self._begun, self._ended = threading.Lock(), threading.Lock()
        self._ended.acquire()
        self.error: BaseException | None = None

    def run(self) -> None:
        """Do it, unless it is too late."""
        if not self._begun.acquire(blocking=False):
            return
        try:
            self._context.run(self._work)
        except BaseException as error:  # the thread that asked raises it
            self.error = error
        finally:
            self._ended.release()

    def close(self, wait: bool) -> None:
        """Cancel it; if the helper has started already, wait for it, or let it go on."""
        if not self._begun.acquire(blocking=False) and wait:
            self._ended.acquire()


class Mailbox(ABC):
    """Where a helper looks for another `Walk` for a moment, before it sleeps.

    A core that sleeps takes up to half a millisecond to wake, longer than a small network takes.
    One thread at a time posts.
    """

    @abstractmethod
    def open(self) -> bool:
        """Let `attend` begin; false if the helper has not come back from the last time."""

    @abstractmethod
    def attend(self) -> None:
        """Take part in what is posted, until nothing is for a moment, or until `close`."""

    @abstractmethod
    def is_open(self) -> bool:
        """Whether something may be posted."""

    @abstractmethod
    def is_in_use(self) -> bool:
        """Whether the helper takes part in what was posted."""

    @abstractmethod
    def times(self) -> int:
        """How often the helper has taken part."""

    @abstractmethod
    def close(self) -> None:
        """Let the helper come back to its other requests."""

    @abstractmethod
    def keep(self, *posted: object) -> int:
        """Keep what is about to be posted, in place of what was; returns where to post it."""


class _Helper:
    """A thread that waits for requests.

    Attributes:
        mailbox: where it waits for a moment; None until `attending`.
    """

    def __init__(self) -> None:
        self._requests: SimpleQueue[Part] = SimpleQueue()
        self.mailbox: Mailbox | None = None
        threading.Thread(target=self._work, name="mlferry helper", daemon=True).start()

    @property
    def is_awake(self) -> bool:
        """Whether it looks at its mailbox, or is about to."""
        return self.mailbox is not None and self.mailbox.is_open()

    def ask(self, request: Part) -> None:
        """Let it do something as soon as it can."""
        self._requests.put(request)
        if self.mailbox is not None:
            self.mailbox.close()

    def attending(self, make: Callable[[], Mailbox]) -> Mailbox | None:
        """Its mailbox, to which it goes if it is not there; None if it is about to leave it."""
        self.mailbox = self.mailbox or make()
        if not self.mailbox.is_open():
            if not self.mailbox.open():
                return None
            self._requests.put(self.mailbox.attend)
        return self.mailbox

    def _work(self) -> None:
        with np.errstate(all="ignore"):  # NumPy 1 has these settings for each thread
            while True:
                self._requests.get()()


_STATISTICS = Path("/proc/stat")
_FRESH = 0.05  # seconds


def free_cores(awake: int = 0) -> int:
    """How many cores are idle now; if the system does not say, all but this thread's.

    Args:
        awake: how many threads of this process run without any work.
    """
    try:
        text = _STATISTICS.read_text(encoding="ascii")
        running = int(text.split("procs_running", 1)[1].split(None, 1)[0]) - awake
    except (OSError, ValueError, IndexError):
        running = 1
    return max(0, (os.cpu_count() or 1) - max(1, running))


class _Helpers:
    """The helpers: one per core, except for the thread that asks."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start over: a forked process has none of the threads."""
        self._lock = threading.Lock()
        self._idle: list[_Helper] = []
        self._count = 0
        self._looked = -1.0
        # the last two looks, so that a short-lived process does not count
        self._free = deque([0], maxlen=2)

    def take(self) -> _Helper | None:
        """An idle helper; None if all of them work, or other processes use the cores."""
        with self._lock:
            if not self._left():
                return None
            if self._idle:
                awake = (place for place, helper in enumerate(self._idle) if helper.is_awake)
                return self._idle.pop(next(awake, -1))
            if self._count >= cores() - 1:
                return None
            self._count += 1
        return _Helper()

    def _left(self) -> int:
        """How many more may work, as far as other processes use no core."""
        working = self._count - len(self._idle)
        now = time.monotonic()
        if not working and now - self._looked > _FRESH:
            self._looked = now
            self._free.append(free_cores(sum(helper.is_awake for helper in self._idle)))
        return max(0, max(self._free) - working)

    def give_back(self, helper: _Helper) -> None:
        with self._lock:
            self._idle.append(helper)


_helpers = _Helpers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.forget)


def share(lanes: Sequence[Sequence[Part]], is_done: Callable[[], bool] = lambda: False) -> None:
    """Run every part once, on the threads that are free.

    Args:
        lanes: for each thread the same parts, in memory of its own to work in.
        is_done: whether all is done although a part runs still; asked when this thread finds no
            other part. A thread that woke late is slow, as its core was asleep.

    Raises:
        Exception: what a part raises; others may have run.
    """
    if not lanes:
        return
    allowed = _allowed.get()
    planned = min(len(lanes), len(lanes[0]), allowed)
    inside = allowed // max(1, planned)  # for what the parts share themselves
    numbers = iter(range(len(lanes[0])))  # its `next` cannot be interrupted by another thread
    requests: list[tuple[_Helper, _Request]] = []
    for parts in lanes[1:planned]:
        helper = _helpers.take()
        if helper is None:
            break
        request = _Request(_taking(parts, numbers, inside))
        helper.ask(request.run)
        requests.append((helper, request))
    try:
        _taking(lanes[0], numbers, inside)()
    finally:
        waits = not is_done()
        for helper, request in requests:
            request.close(waits)
            _helpers.give_back(helper)
    for _, request in requests:
        if request.error is not None:
            raise request.error


class Shared:
    """What is done in parts, by as many threads as are free.

    Args:
        lanes: for each thread the same parts, in memory of its own to work in; see `share`.
    """

    def __init__(self, lanes: Sequence[Sequence[Part]]) -> None:
        self.lanes = lanes

    def __call__(self) -> None:
        """Do all of it."""
        share(self.lanes)


Way = Callable[[int, int], int]
"""What a thread calls with the step from which it goes on, 0 at first, and its number, which no
other has. It returns the step of which others have not ended their parts for a while, or the number
of steps."""


class Walk(ABC):
    """Steps that threads go through together without Python.

    Args:
        length: how many there are.
        threads: the most that can share one of them.
    """

    def __init__(self, length: int, threads: int) -> None:
        self.length, self.threads = length, threads

    @abstractmethod
    def mailbox(self) -> Mailbox:
        """Makes one for such steps."""

    @abstractmethod
    def begin(self, threads: int, mailboxes: Sequence[Mailbox] = ()) -> Way:
        """A new way through them.

        Args:
            threads: how many may take part, at least 1. Those that do not come leave their share
                to the others.
            mailboxes: of helpers that are asked here, the threads from 1 on.
        """

    def __call__(self) -> None:
        """Go through them on this thread."""
        _follow(self.begin(1), self.length)


def _follow(
    way: Way, length: int, thread: int = 0, failed: Callable[[], bool] = lambda: False
) -> None:
    """Go to the end of a `Walk`, or until another thread has failed."""
    step = 0
    while (step := way(step, thread)) < length and not failed():
        time.sleep(_PAUSE)


def may_share() -> bool:
    """Whether several threads may share anything here; see `at_most`."""
    return _allowed.get() > 1


def allowed_lanes(parts: int) -> int:
    """The most threads that so many parts may run on now; see `at_most`."""
    return min(lane_count(parts), _allowed.get())


def run_steps(steps: Sequence[Part]) -> None:
    """Run steps one after another; threads that share the parts of one stay for all of them.

    Waking a thread takes about as long as one step of a small network. So a thread that waits for
    the parts of others asks again and again whether they have ended, and lets them have the
    interpreter; after a while it asks less often.

    Raises:
        Exception: what a step raises; later ones do not run.
    """
    most = max(map(_threads, steps), default=1)
    if min(most, _allowed.get()) == 1:
        for step in steps:
            step()
        return
    together = _Together(steps, most)
    works = [functools.partial(together.run, thread) for thread in range(most)]
    share([works] * most, lambda: together.is_done)


class AwakeSteps:
    """Steps that run one after another, for which the threads that share each `Walk` stay awake.

    As `run_steps`, for short steps: threads look for the next ones for a moment, in one call and
    the next one. Other steps than a `Walk` run on the thread that calls.

    Args:
        steps: what is done.
    """

    def __init__(self, steps: Sequence[Part]) -> None:
        self._steps = [(step, _shared_walk(step)) for step in steps]
        self._walks = [walk for _, walk in self._steps if walk is not None]
        self._helpers = max((walk.threads for walk in self._walks), default=1) - 1

    def __call__(self) -> bool:
        """Do all of it.

        Returns:
            whether another thread took part. None does where none is free, or before it is awake.

        Raises:
            Exception: what a step raises; later ones do not run.
        """
        most = min(self._helpers, _allowed.get() - 1)
        helpers: list[_Helper] = []
        mailboxes: list[Mailbox] = []
        try:
            while len(helpers) < most and (helper := _helpers.take()) is not None:
                helpers.append(helper)
                mailbox = helper.attending(self._walks[0].mailbox)
                if mailbox is not None:
                    mailboxes.append(mailbox)
            before = [mailbox.times() for mailbox in mailboxes]
            self._go(mailboxes)
            return before != [mailbox.times() for mailbox in mailboxes]
        finally:
            for helper in helpers:
                _helpers.give_back(helper)

    def _go(self, mailboxes: Sequence[Mailbox]) -> None:
        opened = mailboxes
        try:
            for step, walk in self._steps:
                if walk is None:
                    step()
                    opened = [mailbox for mailbox in mailboxes if mailbox.is_open()]
                    continue
                _follow(walk.begin(1 + len(opened), opened), walk.length)
        except BaseException:
            # a helper may still write to what the caller uses again
            while any(mailbox.is_in_use() for mailbox in mailboxes):
                time.sleep(0)
            raise


def _shared_walk(step: Part) -> Walk | None:
    """A step, if several threads can go through it."""
    return step if isinstance(step, Walk) and step.threads > 1 else None


def _threads(step: Part) -> int:
    """How many may take part in a step."""
    if isinstance(step, Walk):
        return step.threads
    return len(step.lanes) if isinstance(step, Shared) else 1


class _Together:
    """Steps that several threads go through together.

    Attributes:
        is_done: whether a thread has come to the end, and so all steps have ended.
    """

    def __init__(self, steps: Sequence[Part], threads: int) -> None:
        self._ways = [
            (step.begin(threads), step.length) if isinstance(step, Walk) else None for step in steps
        ]
        self._lanes = [step.lanes if isinstance(step, Shared) else [[step]] for step in steps]
        self._claims = [iter(range(len(lanes[0]))) for lanes in self._lanes]
        self._ended = [[0] * len(steps) for _ in range(threads)]  # parts, of each thread
        self._failed = False
        self.is_done = False

    def run(self, thread: int) -> None:
        """Take part as one of the threads, until the end."""
        try:
            for index, (lanes, way) in enumerate(zip(self._lanes, self._ways, strict=True)):
                if way is not None:
                    _follow(*way, thread, lambda: self._failed)
                    if self._failed:
                        return
                    continue
                if thread < len(lanes):
                    for number in self._claims[index]:
                        lanes[thread][number]()
                        self._ended[thread][index] += 1
                asked = 0
                while sum(ended[index] for ended in self._ended) < len(lanes[0]):
                    if self._failed:
                        return
                    time.sleep(0 if asked < _EAGER else _PAUSE)
                    asked += 1
            self.is_done = True
        except BaseException:
            self._failed = True
            raise


class SharingTrial:
    """Does something short on several threads or on one, whichever takes less time.

    A core that sleeps takes up to half a millisecond to wake, and begins with empty caches. So both
    ways are timed, a few times each, and again now and then.
    """

    def __init__(self) -> None:
        self._count = _TRIED_AGAIN  # of runs since it began to time
        self._start()

    def _start(self) -> None:
        self._seconds = {True: math.inf, False: math.inf}  # the least, by whether threads share
        self._left = {True: _TRIES, False: _TRIES}
        self._is_timing = True

    def run(self, alone: Part, shared: Callable[[], bool]) -> None:
        """Do it in one of two ways that give the same.

        Args:
            alone: on this thread.
            shared: on all that are free; gives whether there was one.
        """
        if self._count >= _TRIED_AGAIN:
            self._count = 0
            self._start()
        self._count += 1
        if not self._is_timing:
            if self._seconds[True] < self._seconds[False]:
                shared()
            else:
                alone()
            return
        start = time.perf_counter()
        shares = self._left[True] > 0
        if shares:
            shares = shared()
        else:
            alone()
        self._seconds[shares] = min(self._seconds[shares], time.perf_counter() - start)
        self._left[shares] -= 1
        self._is_timing = max(self._left.values()) > 0


def in_slices(work: Callable[[slice], R], array: NDArray[Any]) -> list[R]:
    """Do work on slices of an array along its first axis, on the threads that are free.

    A slice has as many elements as stay in the cache of a processor, so that several passes over
    one are cheap.

    Returns:
        what the work returns for each slice.
    """
    row = array[:1].size
    step = max(1, _AT_ONCE // max(1, row))
    slices = [slice(start, start + step) for start in range(0, len(array), step)]
    results: dict[int, R] = {}

    def part(number: int) -> Part:
        return lambda: results.__setitem__(number, work(slices[number]))

    parts = [part(number) for number in range(len(slices))]
    share([parts] * lane_count(len(parts)))
    return [results[number] for number in range(len(slices))]


def in_parts(work: Callable[[slice], None], extent: int, multiplications: int) -> None:
    """Do work on even parts of an axis, on the threads that are free.

    The parts depend on the arguments alone, so that results are the same on any number of cores.

    Args:
        work: for some entries of the axis.
        extent: of the axis.
        multiplications: of all of it, or what takes as long. There is one part if it is less
            than twice `WORTH_A_THREAD`.
    """
    count = min(extent, _MOST_PARTS, multiplications // WORTH_A_THREAD)
    if count < 2:
        work(slice(0, extent))
        return
    step = -(-extent // count)
    slices = [slice(first, first + step) for first in range(0, extent, step)]
    parts = [functools.partial(work, part) for part in slices]
    share([parts] * lane_count(len(parts)))


def in_rows(work: Callable[[slice], None], array: NDArray[Any]) -> None:
    """Do some passes over an array on even parts of its first axis; see `in_parts`."""
    in_parts(work, len(array), array.size * _PASSES)


def _taking(parts: Sequence[Part], numbers: Iterator[int], threads: int) -> Part:
    def run() -> None:
        with at_most(threads):
            for number in numbers:
                parts[number]()

    return run
