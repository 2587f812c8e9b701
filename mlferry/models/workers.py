"""Process many samples with the workers of an executor: processes, or machines of a cluster.

`in_order` is a `map` over any `concurrent.futures.Executor` for work that shares something large:

- What is shared (models, with their custom classes) travels once to each worker, not with each
  piece of work: a worker that does not hold it says so, and gets it.
- Samples go in chunks. Only so many chunks are on their way at a time, so that samples are read
  when there is somebody to work on them, and results do not pile up.
- Results come in the order of the samples, whoever is ready first.
- The chunks of a worker that was lost are done again.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import os
import pickle
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mlferry.errors import MlferryError, WorkerError
from mlferry.runtime.threads import at_most

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

Executors = Executor | Callable[[], Executor]
"""An executor, or a function that makes one: only then can a process pool be replaced that
breaks, as `concurrent.futures` gives up a whole pool when one of its processes is lost."""

CHUNK = 8  # samples per chunk
_AHEAD = 2  # chunks in flight per worker: one running, one waiting
_ATTEMPTS = 3  # workers that may be lost to one chunk
_HELD_MOST = 4  # shared things that a worker keeps


def in_order(
    work: Callable[[S, T], R],
    shared: S,
    items: Iterable[T],
    executor: Executors | None = None,
    *,
    chunk_size: int = CHUNK,
) -> Iterator[R]:
    """``work(shared, item)`` for each item, in their order.

    Args:
        work: a function of a module.
        shared: what all items need; it must be picklable, like items and results.
        items: read as they are needed, in this process.
        executor: an executor, or a function that makes one, which is closed at the end; None for
            this process.
        chunk_size: items per chunk.

    Raises:
        WorkerError: something cannot be pickled, a worker cannot import what it gets, or three
            workers were lost to a chunk.
        MlferryError: what `work` raises, at the place of its item.
    """
    team = Team(work, shared, executor, chunk_size=chunk_size)
    return _once(team, items)


class Team(Generic[S, T, R]):
    """As `in_order`, for several runs: what is shared travels to a worker in the first one only.

    Args:
        work: as for `in_order`, like the others.
        shared: see there.
        executor: see there.
        chunk_size: see there.

    Raises:
        WorkerError: what is shared cannot be pickled.
    """

    def __init__(
        self,
        work: Callable[[S, T], R],
        shared: S,
        executor: Executors | None,
        *,
        chunk_size: int = CHUNK,
    ) -> None:
        self._work, self._shared = work, shared
        self._dispatcher = (
            None if executor is None else _Dispatcher(work, shared, executor, chunk_size)
        )

    @property
    def workers(self) -> int:
        """How many work at a time, as far as the executor says."""
        return 1 if self._dispatcher is None else self._dispatcher.workers

    def run(self, items: Iterable[T]) -> Generator[R, None, None]:
        """The results of items, in their order; see `in_order`.

        Workers begin before the first result is asked for.
        """
        if self._dispatcher is None:
            return (self._work(self._shared, item) for item in items)
        return self._dispatcher.run(items)

    def close(self) -> None:
        """Close the executor, if a function made it."""
        if self._dispatcher is not None:
            self._dispatcher.close()

    def __enter__(self) -> Team[S, T, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _once(team: Team[S, T, R], items: Iterable[T]) -> Iterator[R]:
    with team:
        yield from team.run(items)


# ---- in the worker ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Done(Generic[R]):
    """The results of a chunk, up to the first error."""

    results: list[R]
    error: BaseException | None = None


class _Missing:
    """The worker does not have what is shared."""


_HELD: OrderedDict[str, tuple[Callable[[Any, Any], Any], Any]] = OrderedDict()


def _worked(digest: str, payload: bytes | None, chunk: bytes) -> _Done[Any] | _Missing:
    """Process a chunk, in a worker."""
    entry = _HELD.get(digest)
    if entry is None:
        if payload is None:
            return _Missing()
        try:
            entry = pickle.loads(payload)
        except Exception as error:
            return _Done(
                [],
                WorkerError(
                    f"a worker cannot take the model: {type(error).__name__}: {error}. Classes and "
                    "functions of modules have to be importable there: install the module, or call "
                    "cloudpickle.register_pickle_by_value(module) first"
                ),
            )
        _HELD[digest] = entry
        while len(_HELD) > _HELD_MOST:
            _HELD.popitem(last=False)
    work, shared = entry
    results: list[Any] = []
    with at_most(1):  # the other workers use the cores
        for item in pickle.loads(chunk):
            try:
                results.append(work(shared, item))
            except Exception as error:
                return _Done(results, error)
    return _Done(results)


# ---- in the process that hands out the work --------------------------------------------


@dataclass
class _Chunk:
    """A chunk of items in flight.

    Attributes:
        items: pickled.
        first: the number of the first one.
        attempts: how often the chunk was handed out and lost.
        future: its result.
    """

    items: bytes
    first: int
    attempts: int = 0
    future: Future[Any] = field(default_factory=Future)


class _Dispatcher(Generic[S, T, R]):
    """Hands out chunks, some in advance."""

    def __init__(
        self, work: Callable[[S, T], R], shared: S, executor: Executors, chunk_size: int
    ) -> None:
        self._payload = dumped((work, shared), "the model")
        self._digest = hashlib.sha256(self._payload).hexdigest()
        self._make = None if isinstance(executor, Executor) else executor
        self._executor = executor if isinstance(executor, Executor) else executor()
        self._chunk_size = chunk_size
        self._is_known = False  # what is shared, by workers that had a chunk

    @property
    def workers(self) -> int:
        """How many work at a time."""
        return workers_of(self._executor)

    def close(self) -> None:
        """Close the executor, if a function made it."""
        if self._make is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def run(self, items: Iterable[T]) -> Generator[R, None, None]:
        """The results, in order; the first chunks are on their way when this returns."""
        chunks = self._chunks(iter(items))
        waiting: deque[_Chunk] = deque()
        ahead = _AHEAD * workers_of(self._executor)
        for chunk in itertools.islice(chunks, ahead):
            # one for each worker, which has nothing yet
            fresh = not self._is_known and len(waiting) < ahead // _AHEAD
            self._submit(chunk, self._payload if fresh else None, waiting)
            waiting.append(chunk)
        self._is_known = True
        return self._results(chunks, waiting)

    def _results(
        self, chunks: Iterator[_Chunk], waiting: deque[_Chunk]
    ) -> Generator[R, None, None]:
        try:
            while waiting:
                done = self._finished(waiting)
                waiting.popleft()
                for chunk in itertools.islice(chunks, 1):
                    self._submit(chunk, None, waiting)
                    waiting.append(chunk)
                yield from done.results
                if done.error is not None:
                    raise done.error
        finally:
            for chunk in waiting:
                chunk.future.cancel()

    def _chunks(self, items: Iterator[T]) -> Iterator[_Chunk]:
        for first in itertools.count(0, self._chunk_size):
            part = list(itertools.islice(items, self._chunk_size))
            if not part:
                return
            yield _Chunk(dumped(part, "a sample"), first)

    def _finished(self, waiting: Sequence[_Chunk]) -> _Done[R]:
        """The result of the first chunk, handed out again if necessary."""
        chunk = waiting[0]
        while True:
            try:
                result = chunk.future.result()
            except Exception as error:
                if not _is_lost(error):
                    raise
                self._recover(error, waiting)
                continue
            if isinstance(result, _Missing):
                self._submit(chunk, self._payload, waiting)
                continue
            done: _Done[R] = result
            return done

    def _submit(self, chunk: _Chunk, payload: bytes | None, waiting: Sequence[_Chunk]) -> None:
        try:
            chunk.future = self._executor.submit(_worked, self._digest, payload, chunk.items)
        except BrokenExecutor as error:
            self._recover(error, [*waiting, chunk])

    def _recover(self, error: Exception, waiting: Sequence[_Chunk]) -> None:
        """Hand out the chunks of a lost worker, or of a whole pool, again."""
        if isinstance(error, BrokenExecutor):
            if self._make is None:
                raise WorkerError(
                    f"the executor lost a worker and takes no more work ({error}). Give a function "
                    "that makes one, so that it can be replaced: "
                    "executor=lambda: concurrent.futures.ProcessPoolExecutor(2)"
                ) from error
            self._executor.shutdown(wait=False)
            self._executor = self._make()
        for chunk in waiting:
            if chunk.future.done() and not _is_lost(chunk.future.exception()):
                continue
            chunk.attempts += 1
            if chunk.attempts == _ATTEMPTS:
                last = chunk.first + self._chunk_size - 1
                raise WorkerError(
                    f"samples {chunk.first} to {last}, or others at the same time, have cost "
                    f"{_ATTEMPTS} workers; the last one ended with {type(error).__name__}: {error}"
                ) from error
            self._submit(chunk, self._payload, ())


def _is_lost(error: BaseException | None) -> bool:
    """Whether a worker was lost, as opposed to an error in the work.

    Dask's scheduler hands work out again by itself, and gives up with `KilledWorker`.
    """
    lost = isinstance(error, BrokenExecutor | CancelledError)
    return lost or type(error).__name__ in ("KilledWorker", "FutureCancelledError")


def workers_of(executor: Executor) -> int:
    """How many chunks an executor runs at a time, as far as it says."""
    most = getattr(executor, "_max_workers", None)
    if isinstance(most, int):
        return most
    cluster: Any = getattr(executor, "_client", None)  # of a Dask cluster
    if hasattr(cluster, "nthreads"):
        return max(1, sum(map(int, cluster.nthreads().values())))
    return os.cpu_count() or 1


def dumped(value: object, subject: str) -> bytes:
    """A value as bytes; cloudpickle, if installed, also handles classes of a script.

    Raises:
        WorkerError: it does not pickle.
    """
    try:
        pickler: Any = importlib.import_module("cloudpickle")
    except ImportError:
        pickler = pickle
    try:
        data: bytes = pickler.dumps(value)
    except MlferryError:
        raise
    except Exception as error:
        hint = "" if pickler is not pickle else " (pip install cloudpickle lets more pickle)"
        raise WorkerError(
            f"{subject} cannot be sent to a worker: {type(error).__name__}: {error}{hint}"
        ) from error
    return data
