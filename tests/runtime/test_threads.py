"""Threads of BLAS and of our own: each part once, settings come back, results are the same."""

from __future__ import annotations

import concurrent.futures
import functools
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry import lanes, limits
from mlferry.errors import PredictionError
from mlferry.models.neural_network import NeuralNetworkBuilder, datatypes
from mlferry.models.workers import in_order
from mlferry.runtime.evaluators import parallel
from mlferry.runtime.evaluators.parallel import Parallel
from mlferry.runtime.threads import blas
from mlferry.spec.proto import neural_network_pb2 as nn


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine of three cores, with helpers of this test's own."""
    monkeypatch.setattr(lanes, "cores", lambda: 3)
    monkeypatch.setattr(lanes, "free_cores", lambda awake=0: 2)
    monkeypatch.setattr(lanes, "_helpers", lanes._Helpers())


def counting(parts: int, threads: int, seconds: float = 0.0) -> tuple[Any, list[Any]]:
    """Lanes whose parts say that they ran, and by which thread."""
    ran: list[Any] = []

    def part(lane: int, number: int) -> lanes.Part:
        def run() -> None:
            time.sleep(seconds)
            ran.append((number, lane, threading.get_ident()))

        return run

    return [[part(lane, number) for number in range(parts)] for lane in range(threads)], ran


@pytest.mark.parametrize("parts", [0, 1, 2, 7, 50])
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.usefixtures("three_threads")
def test_each_part_runs_once(parts: int, threads: int) -> None:
    shared, ran = counting(parts, threads)
    lanes.share(shared)
    assert sorted(number for number, _, _ in ran) == list(range(parts))
    lanes.share([])


@pytest.mark.usefixtures("three_threads")
def test_threads_share_parts_and_no_two_use_one_lane() -> None:
    shared, ran = counting(12, 3, seconds=0.01)
    lanes.share(shared)
    assert len({(lane, thread) for _, lane, thread in ran}) == 3
    assert min(Counter(lane for _, lane, _ in ran).values()) >= 2


@pytest.mark.parametrize(
    ("statistics", "free"),
    [
        ("cpu 1 2\nprocs_running 1\nprocs_blocked 0\n", 3),
        ("cpu 1 2\nprocs_running 3\n", 1),
        ("cpu 1 2\nprocs_running 40\n", 0),
        ("cpu 1 2\n", 3),
        ("procs_running\n", 3),
        (None, 3),
    ],
)
def test_cores_that_other_processes_use_are_left_to_them(
    statistics: str | None, free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "stat"
    if statistics is not None:
        file.write_text(statistics)
    monkeypatch.setattr(lanes, "_STATISTICS", file)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(lanes, "cores", lambda: 4)
    helpers = lanes._Helpers()
    taken = [helpers.take() for _ in range(5)]
    assert sum(helper is not None for helper in taken) == free


@pytest.mark.usefixtures("three_threads")
def test_work_inside_of_shared_work_and_from_several_threads() -> None:
    total: list[int] = []

    def inner() -> None:
        shared, ran = counting(5, 3, seconds=0.001)
        lanes.share(shared)
        total.append(len(ran))

    threads = [threading.Thread(target=lanes.share, args=([[inner] * 4] * 3,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert total == [5] * 16
    assert len(lanes._helpers._idle) == lanes._helpers._count <= 2


@pytest.mark.usefixtures("three_threads")
def test_an_error_reaches_whoever_asked_and_helpers_go_on() -> None:
    def fail() -> None:
        time.sleep(0.005)
        raise PredictionError("of a part")

    for _ in range(3):
        with pytest.raises(PredictionError, match="of a part"):
            lanes.share([[fail] * 6] * 3)
    shared, ran = counting(9, 3)
    lanes.share(shared)
    assert len(ran) == 9


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("sizes", [[5], [1, 4, 2, 7, 1, 3], [2] * 40, []])
@pytest.mark.usefixtures("three_threads")
def test_a_step_begins_when_all_parts_of_the_one_before_have_ended(
    sizes: list[int], threads: int
) -> None:
    """Steps of one part are plain functions, as in plans."""
    events: list[tuple[str, int, int]] = []

    def part(step: int, number: int) -> lanes.Part:
        def run() -> None:
            events.append(("begin", step, number))
            time.sleep(0.0005 * (number % 3))
            events.append(("end", step, number))

        return run

    steps: list[lanes.Part] = []
    for step, size in enumerate(sizes):
        parts = [part(step, number) for number in range(size)]
        steps.append(parts[0] if size == 1 else lanes.Shared([parts] * min(size, 3)))
    with lanes.at_most(threads):
        lanes.run_steps(steps)
    assert [step for _, step, _ in events] == sorted(step for _, step, _ in events)
    ended = sorted((step, number) for what, step, number in events if what == "end")
    assert ended == [(step, number) for step, size in enumerate(sizes) for number in range(size)]


@pytest.mark.usefixtures("three_threads")
def test_threads_stay_for_all_steps_and_no_two_use_one_lane() -> None:
    shared, ran = zip(*(counting(6, 3, seconds=0.005) for _ in range(4)), strict=True)
    lanes.run_steps([lanes.Shared(each) for each in shared])
    used = {(lane, thread) for each in ran for _, lane, thread in each}
    assert len(used) == 3


@pytest.mark.parametrize("failing", [0, 1, 4])
@pytest.mark.usefixtures("three_threads")
def test_an_error_of_a_step_ends_all_threads(failing: int) -> None:
    """Whichever thread takes the part; what follows does not run, and the threads go on later."""
    later: list[int] = []

    def part(number: int) -> lanes.Part:
        def run() -> None:
            time.sleep(0.002)
            if number == failing:
                raise PredictionError("of a step")

        return run

    steps = [lanes.Shared([[part(number) for number in range(5)]] * 3), lambda: later.append(1)]
    for _ in range(5):
        with pytest.raises(PredictionError, match="of a step"):
            lanes.run_steps(steps)
    assert not later
    shared, ran = counting(9, 3, seconds=0.01)
    lanes.run_steps([lanes.Shared(shared)])
    assert len({thread for _, _, thread in ran}) == 3


@pytest.mark.parametrize("shape", [(0,), (1,), (17,), (40, 3), (5, 0), (3, 100)])
@pytest.mark.usefixtures("three_threads")
def test_slices_are_all_of_an_array(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_AT_ONCE", 12)
    array = np.arange(np.prod(shape)).reshape(shape)
    got = lanes.in_slices(lambda rows: array[rows].tolist(), array)
    assert [row for part in got for row in part] == array.tolist()
    assert all(len(part) == 1 or np.size(part) <= 12 for part in got)

    def fail(rows: slice) -> None:
        raise PredictionError(f"of {rows}")

    if len(array):
        with pytest.raises(PredictionError, match="of slice"):
            lanes.in_slices(fail, array)


@pytest.mark.usefixtures("three_threads")
def test_limits_hold_in_helpers() -> None:
    seen: list[int] = []

    def part() -> None:
        time.sleep(0.005)
        seen.append(limits.current().blob)

    with limits.changed(blob=12345):
        lanes.share([[part] * 6] * 3)
    assert seen == [12345] * 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.usefixtures("three_threads")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_forked_process_makes_helpers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    os.register_at_fork(after_in_child=lanes._helpers.forget)
    lanes.share(counting(6, 3, seconds=0.002)[0])

    def inside(pipe: Any) -> None:
        shared, ran = counting(9, 3, seconds=0.01)
        lanes.share(shared)
        pipe.send((len(ran), len({thread for _, _, thread in ran}), lanes._helpers._count))

    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=inside, args=(sender,))
    process.start()
    assert receiver.poll(20)
    assert receiver.recv() == (9, 3, 2)
    process.join(20)


def test_one_thread_of_blas_while_anybody_wants_it() -> None:
    control = blas.control()
    if control is None:
        pytest.skip("NumPy multiplies with a library whose threads cannot be told")
    before = control.get()
    try:
        control.set(2)
        with blas.one_thread():
            assert control.get() == 1
            with blas.one_thread():
                assert control.get() == 1
            assert control.get() == 1
        assert control.get() == 2
        with pytest.raises(PredictionError), blas.one_thread():
            raise PredictionError("inside")
        assert control.get() == 2
    finally:
        control.set(before)


def test_a_prediction_sets_the_threads_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, number = [], [4]
    monkeypatch.setattr(
        blas, "control", lambda: blas.Control(lambda: number[0], lambda n: number.__setitem__(0, n))
    )

    @mlferry.register_custom_layer("SeesThreads")
    class SeesThreads(mlferry.CustomLayer):
        def output_shapes(self, input_shapes: Any) -> Any:
            return input_shapes

        def evaluate(self, inputs: Any) -> Any:
            seen.append(number[0])
            return inputs

    builder = NeuralNetworkBuilder(
        [("x", datatypes.Array(2))], [("y", None)], disable_rank5_shape_mapping=True
    )
    builder.add_custom("sees", ["x"], ["y"], nn.CustomLayerParams(className="SeesThreads"))
    model = mlferry.MLModel(builder.spec)
    model.predict({"x": np.zeros(2, np.float32)})
    assert seen == [1]
    assert number == [4]


def photo_network(size: int) -> mlferry.MLModel:
    """Convolutions of every planned kind, pooling, a sum, a normalization."""
    rng = np.random.default_rng(3)
    builder = NeuralNetworkBuilder(
        [("x", datatypes.Array(1, 8, size, size))], [("y", None)], disable_rank5_shape_mapping=True
    )
    last, channels = "x", 8
    for index, (kernel, groups, out) in enumerate(
        [(3, 1, 32), (1, 1, 24), (3, 24, 24), (3, 1, 32), (5, 1, 16)]
    ):
        weights = rng.normal(0, 0.2, (kernel, kernel, channels // groups, out)).astype(np.float32)
        name = f"c{index}"
        builder.add_convolution(
            name, channels // groups, out, kernel, kernel, 1, 1, "same", groups, weights, None,
            False, input_name=last, output_name=name,
        )  # fmt: skip
        builder.add_activation(f"r{index}", "RELU", name, f"r{index}")
        last, channels = f"r{index}", out
    builder.add_pooling("p", 3, 3, 2, 2, "MAX", "VALID", last, "p")
    builder.add_batchnorm(
        "n", channels, np.ones(channels), np.zeros(channels), None, None, "p", "y",
        compute_mean_var=True, instance_normalization=True,
    )  # fmt: skip
    return mlferry.MLModel(builder.spec)


def picture_network(size: int) -> mlferry.MLModel:
    """A convolution to a few channels of many, plus what is pooled over the whole map."""
    rng = np.random.default_rng(4)
    builder = NeuralNetworkBuilder(
        [("x", datatypes.Array(1, 8, size, size))], [("y", None)], disable_rank5_shape_mapping=True
    )
    for name, source, kernel, channels, out in [
        ("c", "x", 3, 8, 32), ("few", "c", 5, 32, 3), ("shift", "mean", 1, 32, 3)
    ]:  # fmt: skip
        if source == "mean":
            builder.add_pooling(
                "mean", 1, 1, 1, 1, "AVERAGE", "VALID", "c", "mean", is_global=True
            )  # fmt: skip
        weights = rng.normal(0, 0.2, (kernel, kernel, channels, out)).astype(np.float32)
        builder.add_convolution(
            name, channels, out, kernel, kernel, 1, 1, "same", 1, weights, None, False,
            input_name=source, output_name=name,
        )  # fmt: skip
    builder.add_add_broadcastable("y", ["few", "shift"], "y")
    return mlferry.MLModel(builder.spec)


@pytest.mark.parametrize("make", [photo_network, picture_network])
@pytest.mark.parametrize("size", [3, 12, 31, 64])
def test_the_same_bits_on_any_number_of_cores(
    size: int, make: Callable[[int], mlferry.MLModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = [
        {"x": np.random.default_rng(i).normal(size=(1, 8, size, size)).astype(np.float32)}
        for i in range(5)
    ]
    result = []
    for number in (1, 2, 3):
        monkeypatch.setattr(lanes, "cores", lambda number=number: number)
        monkeypatch.setattr(lanes, "free_cores", lambda awake, number=number: number - 1)
        monkeypatch.setattr(lanes, "_helpers", lanes._Helpers())
        model = make(size)
        alone = [model.predict(sample)["y"] for sample in data]
        listed = [output["y"] for output in model.predict(data)]
        np.testing.assert_array_equal(listed, alone)
        result.append(alone)
    np.testing.assert_array_equal(result[1], result[0])
    np.testing.assert_array_equal(result[2], result[0])


@pytest.mark.usefixtures("three_threads")
def test_an_error_of_one_sample_comes_behind_the_results_before_it() -> None:
    model = photo_network(16)
    good = {"x": np.zeros((1, 8, 16, 16), np.float32)}
    outputs = model.predict(iter([good, good, good, {"x": np.zeros(3, np.float32)}, good]))
    assert len([next(outputs) for _ in range(3)]) == 3
    with pytest.raises(PredictionError, match="'x'"):
        next(outputs)


# on three cores: the samples of a list share the threads, and the rows of one
@pytest.mark.parametrize(
    ("kind", "threads", "helpers"),
    [(kind, threads, threads - 1) for kind in ("network", "program") for threads in (1, 2)]
    + [("network", None, 2), ("program", None, 2)],
)
@pytest.mark.usefixtures("three_threads")
def test_threads_of_a_model(kind: str, threads: int | None, helpers: int, tmp_path: Path) -> None:
    model = photo_network(24)
    path = tmp_path / ("m.mlpackage" if kind == "program" else "m.mlmodel")
    (mlferry.to_program(model) if kind == "program" else model).save(path)
    sample = {"x": np.ones((1, 8, 24, 24), np.float32)}
    mlferry.MLModel(path, threads=threads).predict([sample] * 8)
    assert lanes._helpers._count == helpers


def test_a_worker_predicts_on_one_thread() -> None:
    with concurrent.futures.ProcessPoolExecutor(1) as workers:
        model = list(in_order(_helpers_after, photo_network(40), [0], workers))
    assert model == [0]


def _helpers_after(model: mlferry.MLModel, _: int) -> int:
    lanes.cores, lanes.free_cores = lambda: 3, lambda: 2  # in the worker
    model.predict([{"x": np.ones((1, 8, 40, 40), np.float32)}] * 4)
    return lanes._helpers._count


class Timed(Parallel):
    """Takes as long as it is told, on a clock of its own."""

    def __init__(self, alone: float, together: float) -> None:
        super().__init__(2, shares=True)
        self.seconds = {"alone": alone, "together": together}
        self.now = 0.0

    def __call__(self, data: Any) -> dict[str, Any]:
        self.now += self.seconds[data["way"]]
        return {}

    def makers(self) -> dict[str, tuple[str, str]]:
        return {}

    def inside(self, data: Any, names: Any) -> dict[str, Any]:
        return {}

    def counts(self, rounds: int, held: int = 0) -> list[int]:
        """How many samples are evaluated at a time, and what follows from it."""
        found = []
        for _ in range(rounds):
            found.append(self.next_count(held))
            way = "alone" if found[-1] == 1 else "together"
            self.several([{"way": way}] * found[-1])
        return found


@pytest.mark.parametrize(
    ("alone", "together", "faster", "slower"), [(1.0, 0.6, 8, 1), (1.0, 1.2, 1, 8)]
)
@pytest.mark.usefixtures("three_threads")
def test_samples_share_threads_where_that_is_faster(
    alone: float, together: float, faster: int, slower: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = Timed(alone, together)
    monkeypatch.setattr(parallel.time, "perf_counter", lambda: timed.now)
    rounds = 64 // faster + 4
    assert timed.counts(4) == [1, 1, 8, 8]  # of each way, the first one does not count
    found = timed.counts(rounds)
    assert found[:3] == [faster] * 3
    assert found.count(slower) == 1  # it is timed again
    timed.seconds = {"alone": together, "together": alone}  # as other samples take
    timed.counts(rounds)
    assert timed.counts(3) == [slower] * 3


@pytest.mark.parametrize(("held", "counts"), [(3, [8, 8]), (16, [16, 16]), (500, [64, 1])])
@pytest.mark.usefixtures("three_threads")
def test_what_is_in_memory_goes_together_where_threads_share(
    held: int, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until both ways are timed again."""
    timed = Timed(1.0, 0.6)
    monkeypatch.setattr(parallel.time, "perf_counter", lambda: timed.now)
    assert timed.counts(4, held) == [1, 1, 8, 8]
    timed.counts(1)  # they count from the last time that one ran alone
    timed._since = 0
    assert timed.counts(2, held) == counts
    slower = Timed(1.0, 1.2)
    monkeypatch.setattr(parallel.time, "perf_counter", lambda: slower.now)
    assert slower.counts(6, held) == [1, 1, 8, 8, 1, 1]


@pytest.mark.usefixtures("three_threads")
def test_nobody_waits_for_a_thread_that_comes_when_all_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It finds nothing left, whatever has begun meanwhile."""
    me, late = threading.get_ident(), threading.Semaphore(0)
    run = lanes._Together.run

    def slow(self: lanes._Together, thread: int) -> None:
        if threading.get_ident() != me:
            time.sleep(0.5)
        run(self, thread)
        if threading.get_ident() != me:
            late.release()

    monkeypatch.setattr(lanes._Together, "run", slow)
    first, ran = counting(4, 3)
    start = time.perf_counter()
    lanes.run_steps([lanes.Shared(first), lanes.Shared(first)])
    assert time.perf_counter() - start < 0.4
    before = list(ran)
    assert sorted(number for number, _, _ in before) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert late.acquire(timeout=10)
    assert ran == before


@pytest.mark.parametrize("is_faster", [False, True])
def test_a_trial_takes_the_faster_way_and_asks_again(
    is_faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, ways = 0.0, []

    def work(shares: bool) -> bool:
        nonlocal clock
        ways.append(shares)
        clock += 1.0 if shares == is_faster else 2.0
        return True

    monkeypatch.setattr(lanes.time, "perf_counter", lambda: clock)
    trial = lanes.SharingTrial()
    for _ in range(lanes._TRIED_AGAIN):
        trial.run(functools.partial(work, False), functools.partial(work, True))
    tries = 2 * lanes._TRIES
    assert Counter(ways[:tries]) == {False: lanes._TRIES, True: lanes._TRIES}
    assert set(ways[tries:]) == {is_faster}
    is_faster = not is_faster  # what else runs on the machine has changed
    for _ in range(lanes._TRIED_AGAIN):
        trial.run(functools.partial(work, False), functools.partial(work, True))
    assert ways[-1] == is_faster


def test_a_trial_asks_until_a_thread_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs for which none was do not say how long it takes to share."""
    clock, free, ways = 0.0, False, []

    def alone() -> None:
        nonlocal clock
        ways.append("alone")
        clock += 2.0

    def shared() -> bool:
        nonlocal clock
        ways.append("shared" if free else "asked")
        clock += 1.0 if free else 2.0
        return free

    monkeypatch.setattr(lanes.time, "perf_counter", lambda: clock)
    trial = lanes.SharingTrial()
    for _ in range(10):
        trial.run(alone, shared)
    assert ways == ["asked"] * 10
    free = True
    for _ in range(20):
        trial.run(alone, shared)
    assert ways[10:] == ["shared"] * 20
