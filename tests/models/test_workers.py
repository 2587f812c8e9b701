"""Executors: the same results, in order, whatever works, and whatever is lost on the way."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry import errors
from mlferry.errors import MissingCustomLayerError, PredictionError, SpecError, WorkerError
from mlferry.layers.builder import Builder
from mlferry.models import workers
from mlferry.models.quantization import calibration, search as search_module, walks
from mlferry.models.workers import in_order
from mlferry.runtime.evaluators.registry import CustomClasses
from mlferry.spec.proto import model_pb2


class Plus(mlferry.CustomLayer):
    def evaluate(self, inputs: list[Any]) -> list[Any]:
        return [inputs[0] + self.parameters["amount"]]


def network() -> model_pb2.Model:
    builder = Builder()
    builder.input("x", (1, 4))
    builder.layer(
        "innerProduct", "dense", ["x"], ["y"], inputChannels=4, outputChannels=3,
        weights=np.arange(12).reshape(3, 4) / 10,
    )  # fmt: skip
    builder.output("y")
    return builder.model()


def custom() -> model_pb2.Model:
    builder = Builder()
    builder.input("x", (1, 4))
    builder.layer(
        "custom", "plus", ["x"], ["y"], output_shapes=[(1, 4)], className="Plus",
        parameters={"amount": {"intValue": 2}},
    )  # fmt: skip
    builder.output("y")
    return builder.model()


def samples(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    return [{"x": rng.normal(0, 1, (1, 4)).astype(np.float32)} for _ in range(count)]


# Forked from a server without threads: Python 3.12 warns of forks of a process that has some.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["mlferry", "pytest"])


def processes() -> Executor:
    return ProcessPoolExecutor(2, CONTEXT)


def doubled(shared: int, item: int) -> int:
    return shared * item


def careful(shared: str, item: int) -> int:
    """Kills its process at one item, the first time."""
    if item == 13 and not os.path.exists(shared):  # noqa: PTH110
        Path(shared).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def deadly(shared: None, item: int) -> int:
    if item == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def refusing(shared: int, item: int) -> int:
    if item == shared:
        raise PredictionError(f"{item} does not fit")
    return item


EXECUTORS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "threads": lambda: ThreadPoolExecutor(2),
    "processes": processes,
    "a function": lambda: processes,
}


@pytest.fixture
def opened() -> Iterator[Callable[[str], Any]]:
    result: list[Executor] = []

    def of(name: str) -> Any:
        actual = EXECUTORS[name]()
        if isinstance(actual, Executor):
            result.append(actual)
        return actual

    yield of
    for executor in result:
        executor.shutdown()


@pytest.mark.parametrize("size", [1, 5, 100])
@pytest.mark.parametrize("name", EXECUTORS)
def test_results_come_in_order(name: str, size: int, opened: Callable[[str], Any]) -> None:
    result = in_order(doubled, 3, range(40), opened(name), chunk_size=size)
    assert list(result) == [3 * i for i in range(40)]


@pytest.mark.parametrize("name", EXECUTORS)
def test_an_error_comes_at_its_place(name: str, opened: Callable[[str], Any]) -> None:
    result = in_order(refusing, 21, range(40), opened(name))
    assert [next(result) for _ in range(21)] == list(range(21))
    with pytest.raises(PredictionError, match="21 does not fit"):
        next(result)


BEGUN = threading.Event()


def begin(shared: int, item: int) -> int:
    BEGUN.set()
    return shared + item


def test_a_team_begins_before_a_result_is_asked_for() -> None:
    BEGUN.clear()
    with ThreadPoolExecutor(2) as executor, workers.Team(begin, 1, executor) as team:
        results = team.run([2, 3])
        assert BEGUN.wait(timeout=30)
        assert list(results) == [3, 4]


def test_samples_are_read_when_they_are_needed() -> None:
    """Two workers, two chunks each, of four: no more than 16 samples ahead of the results."""
    read = 0

    def items() -> Iterator[int]:
        nonlocal read
        for item in range(1, 1001):
            read = item
            yield item

    with ThreadPoolExecutor(2) as executor:
        result = in_order(doubled, 1, items(), executor, chunk_size=4)
        for count in range(1, 101):
            next(result)
            assert read <= count + 20
        result.close()  # type: ignore[attr-defined]
    assert read < 200


def test_the_chunk_of_a_lost_process_is_done_again(tmp_path: Path) -> None:
    result = in_order(careful, str(tmp_path / "died"), range(60), processes, chunk_size=4)
    assert list(result) == list(range(60))
    assert (tmp_path / "died").exists()


def test_a_pool_that_cannot_be_replaced() -> None:
    with ProcessPoolExecutor(2, CONTEXT) as executor, pytest.raises(WorkerError) as caught:
        list(in_order(deadly, None, range(40), executor))
    assert "executor=lambda: concurrent.futures.ProcessPoolExecutor(2)" in str(caught.value)


def test_a_sample_that_kills_every_worker() -> None:
    with pytest.raises(WorkerError, match=r"samples (8 to 15|0 to 7|16 to 23).* cost 3 workers"):
        list(in_order(deadly, None, range(40), processes))


def test_what_does_not_pickle() -> None:
    with pytest.raises(WorkerError, match="a sample cannot be sent to a worker"):
        list(in_order(doubled, 1, [threading.Lock()], processes))
    with pytest.raises(WorkerError, match="the model cannot be sent to a worker"):
        list(in_order(doubled, threading.Lock(), [1], processes))


def test_what_a_worker_cannot_import() -> None:
    payload = pickle.dumps((doubled, 1)).replace(b"test_workers", b"not_a_module")
    result = workers._worked("digest", payload, pickle.dumps([1]))
    assert isinstance(result, workers._Done)
    assert "cloudpickle.register_pickle_by_value(module)" in str(result.error)


def test_what_is_shared_travels_once_to_each_worker() -> None:
    assert isinstance(workers._worked("unknown", None, pickle.dumps([1])), workers._Missing)
    sent = []

    class Counting(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **named: Any) -> Any:
            sent.append(args[1] is not None)
            return super().submit(fn, *args, **named)

    workers._HELD.clear()
    with Counting(2) as executor:
        list(in_order(doubled, 5, range(200), executor))
    assert sum(sent) <= 4
    assert len(sent) >= 25


@pytest.mark.parametrize("name", EXECUTORS)
def test_predicting(name: str, opened: Callable[[str], Any]) -> None:
    model, inputs = mlferry.MLModel(network()), samples(30)
    expected = [model.predict(sample) for sample in inputs]
    executor = opened(name)
    for result in (
        model.predict(inputs, executor=executor),
        list(model.predict(iter(inputs), executor=executor)),
    ):
        for one, other in zip(result, expected, strict=True):
            np.testing.assert_array_equal(one["y"], other["y"])


@pytest.mark.parametrize("registered", [False, True])
def test_custom_classes_travel(registered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given ones and registered ones; a worker that never saw the registration has them."""
    monkeypatch.setattr(mlferry.custom.CUSTOM_LAYERS, "_entries", {})
    if registered:
        mlferry.register_custom_layer("Plus")(Plus)
    model = mlferry.MLModel(custom(), custom_layers={} if registered else {"Plus": Plus})
    assert len(model.predict(samples(3), executor=processes)) == 3
    data = pickle.dumps(model)
    monkeypatch.setattr(mlferry.custom.CUSTOM_LAYERS, "_entries", {})
    actual = pickle.loads(data).predict({"x": np.zeros((1, 4))})["y"]
    assert actual.tolist() == [[2, 2, 2, 2]]


def test_a_missing_class_is_told_by_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlferry.custom.CUSTOM_LAYERS, "_entries", {})
    model = mlferry.MLModel(custom())
    model._evaluator = lambda data: {}  # as if it were there in this process alone
    with pytest.raises(MissingCustomLayerError) as caught:
        model.predict(samples(3), executor=processes)
    assert caught.value.class_names == ["Plus"]


@pytest.mark.parametrize("name", EXECUTORS)
def test_comparing_and_searching(name: str, opened: Callable[[str], Any]) -> None:
    model, inputs = mlferry.MLModel(network()), samples(40)
    small = mlferry.quantize_weights(model, 4)
    expected = mlferry.compare_models(model, small, inputs)
    executor = opened(name)
    assert mlferry.compare_models(model, small, inputs, executor=executor) == expected
    searched = mlferry.search_quantization(model, inputs, "snr", 20, modes=("linear",))
    again = mlferry.search_quantization(
        model, inputs, "snr", 20, modes=("linear",), executor=executor
    )
    assert again.to_dict() == searched.to_dict()


def precise() -> mlferry.MLModel:
    """A program, some values of which are beyond float16."""
    builder = Builder()
    builder.input("x", (1, 4))
    builder.layer("unary", "square", ["x"], ["s"], type="POWER", alpha=2.0)
    builder.layer("activation", "grown", ["s"], ["g"], linear={"alpha": 3e4})
    builder.layer("activation", "less", ["g"], ["y"], linear={"alpha": 1e-4})
    builder.output("y")
    return mlferry.to_program(mlferry.MLModel(builder.model()))


@pytest.mark.parametrize("name", EXECUTORS)
def test_precision(name: str, opened: Callable[[str], Any]) -> None:
    model, inputs = precise(), samples(40)
    expected = mlferry.check_precision(model, inputs)
    assert expected.keep_in_float32
    assert expected.samples == 40
    result = mlferry.check_precision(model, inputs, executor=opened(name))
    assert result.to_dict() == expected.to_dict()


def two_layers(size: int = 6) -> model_pb2.Model:
    """What the second layer gets depends on how the first one was quantized."""
    rng = np.random.default_rng(2)
    builder = Builder()
    builder.input("x", (1, 4))
    last = "x"
    for index, (inputs, outputs) in enumerate(((4, size), (size, size), (size, 3))):
        builder.layer(
            "innerProduct", f"l{index}", [last], [f"h{index}"], inputChannels=inputs,
            outputChannels=outputs, weights=rng.normal(size=outputs * inputs).astype(np.float32),
        )  # fmt: skip
        builder.layer("activation", f"a{index}", [f"h{index}"], [f"r{index}"], tanh={})
        last = f"r{index}"
    builder.output(last)
    return builder.model()


QUANTIZATIONS: dict[str, tuple[Any, ...]] = {
    "linear": (4, "linear"),
    "kmeans": (3, "kmeans"),
    "symmetric": (8, "linear_symmetric"),
    "grouped, a program": (2, "kmeans", {"granularity": "per_channel", "convert_to": "mlprogram"}),
}


def calibrated(row: str, count: int, executor: Any = None) -> mlferry.MLModel:
    bits, mode, *rest = QUANTIZATIONS[row]
    options = rest[0] if rest else {}
    model = mlferry.MLModel(two_layers())
    return mlferry.quantize_weights(model, bits, mode, samples(count), **options, executor=executor)


def same_model(one: mlferry.MLModel, other: mlferry.MLModel) -> None:
    assert one.spec == other.spec
    sample = samples(1)[0]
    np.testing.assert_array_equal(*(next(iter(m.predict(sample).values())) for m in (one, other)))


CALIBRATIONS = [
    (row, name, count)
    for row in QUANTIZATIONS
    for name in EXECUTORS
    for count in ((1, 3, 30) if name in ("none", "threads") else (30,))
]


@pytest.mark.parametrize(("row", "name", "count"), CALIBRATIONS)
def test_quantizing_with_samples(
    row: str, name: str, count: int, opened: Callable[[str], Any]
) -> None:
    """The bytes are the same, however many share the samples."""
    same_model(calibrated(row, count, opened(name)), calibrated(row, count))


@pytest.mark.parametrize("count", [1, 2])
def test_workers_quantize_again(count: int) -> None:
    """The same network, with the same and with other samples; nothing of before is left."""
    model, inputs = mlferry.MLModel(two_layers()), samples(30)
    submitted = 0

    class Patient(ThreadPoolExecutor):
        def submit(self, *arguments: Any, **options: Any) -> Any:
            nonlocal submitted
            submitted += 1
            assert submitted < 1000, "nobody answers"
            return super().submit(*arguments, **options)

    with Patient(count) as executor:
        for some in (inputs, inputs, inputs[7:], inputs):
            actual = mlferry.quantize_weights(model, 4, sample_data=some, executor=executor)
            same_model(actual, mlferry.quantize_weights(model, 4, sample_data=some))


def test_workers_run_a_layer_while_its_weights_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is stored until every group of samples has looked ahead."""
    groups, ahead = 4, threading.Semaphore(0)
    look, store, stored = walks.WalkedNetwork.look_ahead, calibration.store, []

    def looking(*arguments: Any) -> None:
        look(*arguments)
        ahead.release()

    def waiting(site: Any, *arguments: Any) -> None:
        if len(stored) < 2:  # no layer follows the last one
            assert all(ahead.acquire(timeout=30) for _ in range(groups))
        stored.append(site)
        store(site, *arguments)

    expected = calibrated("linear", 30)
    monkeypatch.setattr(walks.WalkedNetwork, "look_ahead", looking)
    monkeypatch.setattr(calibration, "store", waiting)
    with ThreadPoolExecutor(2) as executor:
        model = calibrated("linear", 30, executor)
    assert len(stored) == 3
    assert not ahead.acquire(blocking=False)
    same_model(model, expected)


@pytest.mark.parametrize("looks", [False, True])
def test_what_a_layer_made_ahead_is_used(looks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The float layer runs once for each sample, and the blobs are the same."""
    network = two_layers().neuralNetwork
    first, second, *_ = network.layers
    classes = CustomClasses({}, {})
    session, count = walks.alone(network, [first], classes), 0
    run = session.run

    def counted(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        return run(*arguments)

    monkeypatch.setattr(session, "run", counted)
    changed = type(first)()
    changed.CopyFrom(first)
    changed.innerProduct.weights.floatValue[:] = [1.0] * len(first.innerProduct.weights.floatValue)
    after = walks.alone(network, [changed], classes)
    blobs = [{name: np.float32(x).reshape(1, 4) for name, x in each.items()} for each in samples(5)]
    streams = walks.Streams([dict(each) for each in blobs], [dict(each) for each in blobs])
    if looks:
        streams.look_ahead(session, first, {"h0"})
    assert count == (5 if looks else 0)
    streams.step(session, after, first, {"h0"})
    assert count == 5
    for one, other, sample in zip(streams.floats, streams.quantized, blobs, strict=True):
        np.testing.assert_array_equal(one["h0"], run(sample, ["h0"])["h0"])
        np.testing.assert_allclose(other["h0"], [[sample["x"].sum()] * 6], rtol=1e-5)
        assert one.keys() == other.keys() == {"h0"}
    following = walks.alone(network, [second], classes)
    streams.step(following, following, second, {"r0"})
    assert [*streams.floats[0]] == ["r0"]


def test_samples_travel_to_the_workers_that_use_them() -> None:
    """None is part of what every worker gets."""
    inputs = samples(30)
    marks = [np.float32(each["x"]).tobytes() for each in inputs]
    sent: list[tuple[bytes | None, bytes]] = []

    class Seeing(ThreadPoolExecutor):
        def submit(self, *arguments: Any, **options: Any) -> Any:
            sent.append(arguments[2:4])
            return super().submit(*arguments, **options)

    with Seeing(2) as executor:
        model = mlferry.MLModel(two_layers())
        mlferry.quantize_weights(model, 4, sample_data=inputs, executor=executor)
    assert any(payload for payload, _ in sent)
    for mark in marks:
        assert not any(mark in payload for payload, _ in sent if payload)
        assert any(mark in chunk for _, chunk in sent)
    assert max(sum(mark in chunk for mark in marks) for _, chunk in sent) == 8  # of four groups


class Deadly(mlferry.CustomLayer):
    """Kills its process the first time that it is asked in a worker."""

    def evaluate(self, inputs: list[Any]) -> list[Any]:
        died = Path(self.parameters["died"])
        if multiprocessing.parent_process() is not None and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [inputs[0] * 2]


def with_a_deadly_layer(died: Path) -> mlferry.MLModel:
    """It lies between layers that are quantized: groups of samples are lost midway."""
    spec = two_layers()
    network = spec.neuralNetwork
    custom = network.layers.add(name="deadly", input=["h1"], output=["d"])
    custom.custom.className = "Deadly"
    custom.custom.parameters["died"].stringValue = str(died)
    moved = list(network.layers)
    order = [*moved[:3], moved[-1], *moved[3:-1]]
    copies = []
    for layer in order:
        copies.append(type(layer)())
        copies[-1].CopyFrom(layer)
    del network.layers[:]
    network.layers.extend(copies)
    next(each for each in network.layers if each.name == "a1").input[0] = "d"
    return mlferry.MLModel(spec, custom_layers={"Deadly": Deadly})


def test_a_lost_process_loses_no_samples(tmp_path: Path) -> None:
    died = tmp_path / "died"
    model, inputs = with_a_deadly_layer(died), samples(12)
    expected = mlferry.quantize_weights(model, 4, "linear", inputs)
    assert not died.exists()
    converted = mlferry.quantize_weights(model, 4, "linear", inputs, executor=processes)
    assert died.exists()
    assert converted.spec == expected.spec


SEARCHES: dict[str, dict[str, Any]] = {
    "a rate": {"metric": "top1", "target": 0.8},
    "a ratio, with samples": {"target": 25.0, "calibrate": True, "folds": 3},
    "by weights": {"target": 20.0, "calibrate": False, "modes": ("kmeans", "linear", "linear_lut")},
    "a function": {"metric": lambda report: report.outputs["y"].numbers["cosine"], "target": 0.999},
    "none but half precision": {"target": 50.0, "bits": (3, 2)},
    "a program": {"target": 20.0, "options": {"convert_to": "mlprogram"}, "calibrate": False},
}


@pytest.mark.parametrize("workers_said", [1, 2, 40])
@pytest.mark.parametrize("search", SEARCHES)
def test_searching_in_workers(
    search: str, workers_said: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many settings are tried ahead, and however samples are dealt."""
    model, inputs = mlferry.MLModel(network()), samples(11)
    options = {"metric": "snr", **SEARCHES[search]}
    expected = mlferry.search_quantization(model, inputs, **options)
    monkeypatch.setattr(workers, "workers_of", lambda _: workers_said)
    with ThreadPoolExecutor(3) as executor:
        result = mlferry.search_quantization(model, inputs, **options, executor=executor)
    assert result.to_dict() == expected.to_dict()
    assert result.model.spec == expected.model.spec


def test_settings_that_nobody_asks_for_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker tries one that cannot be made, ahead of what decides that it does not matter."""
    model, inputs = mlferry.MLModel(network()), samples(6)

    def few(actual: Any, bits: int, *rest: Any, **options: Any) -> mlferry.MLModel:
        if bits < 3:
            raise SpecError("too few")
        return mlferry.quantize_weights(actual, bits, *rest, **options)

    monkeypatch.setattr(search_module, "quantize_weights", few)
    monkeypatch.setattr(workers, "workers_of", lambda _: 40)
    options: dict[str, Any] = {"metric": "snr", "modes": ("linear",)}
    with ThreadPoolExecutor(3) as executor:
        result = mlferry.search_quantization(model, inputs, target=35, executor=executor, **options)
        assert result.best.bits == 4
        with pytest.raises(SpecError, match="too few"):
            mlferry.search_quantization(model, inputs, target=-10, executor=executor, **options)


@pytest.mark.parametrize("name", EXECUTORS)
def test_a_folder_with_a_broken_picture(
    name: str, tmp_path: Path, opened: Callable[[str], Any]
) -> None:
    image = pytest.importorskip("PIL.Image")
    for index in range(10):
        image.new("RGB", (20 + index, 24), (index * 20, 10, 0)).save(tmp_path / f"{index}.png")
    (tmp_path / "5.png").write_bytes(b"no picture")
    builder = Builder()
    builder.input("image", (1, 3, 8, 8))
    builder.layer("activation", "relu", ["image"], ["y"], ReLU={})
    builder.output("y")
    spec = builder.model()
    kind = spec.description.input[0].type
    kind.imageType.width = kind.imageType.height = 8
    kind.imageType.colorSpace = kind.imageType.RGB
    model = mlferry.MLModel(spec)
    expected = [actual["y"] for actual in model.predict(tmp_path)]
    assert len(expected) == 9
    executor = opened(name)
    actual = [actual["y"] for actual in model.predict(tmp_path, executor=executor)]
    np.testing.assert_array_equal(actual, expected)
    report = mlferry.compare_models(model, model, tmp_path, executor=executor)
    assert (report.count, [*report.unreadable]) == (9, ["5.png"])


ERRORS = [
    errors.MlferryError("one"),
    errors.ValidationError("two", ["a", "b"]),
    errors.UnsupportedOpError("three", {"Op": ["n"]}),
    errors.OpenShapesError("four", {"x": (1, 2)}),
    errors.MissingCustomLayerError("five", ["A"]),
    errors.UnsupportedLayersError("six", [("l", "kind", "why")]),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_travel(error: errors.MlferryError) -> None:
    error.add_context("testing")
    actual = pickle.loads(pickle.dumps(error))
    assert type(actual) is type(error)
    assert str(actual) == str(error)
    assert actual.__dict__ == error.__dict__


def test_the_models_of_a_comparison_that_cannot_run() -> None:
    with pytest.raises(PredictionError, match="a float cannot be compared"):
        mlferry.compare_models(mlferry.MLModel(network()), 1.5, samples(2), executor=processes)
    with pytest.raises(SpecError, match="metric"):
        mlferry.search_quantization(mlferry.MLModel(network()), samples(4), "best")


# ---- a cluster --------------------------------------------------------------------------


def slowly(shared: float, item: int) -> tuple[int, int]:
    time.sleep(shared)
    return item, os.getpid()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes of Dask, each with a nanny that starts it again."""
    distributed = pytest.importorskip("distributed")
    with (
        warnings.catch_warnings(),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as actual,
        distributed.Client(actual) as client,
    ):
        yield client


@pytest.mark.filterwarnings("default")
def test_a_worker_of_a_cluster_is_killed_midway(cluster: Any) -> None:
    """Its samples are done again; the results are those of one process, in order."""
    pids = list(cluster.run(os.getpid).values())
    result = in_order(slowly, 0.02, range(120), cluster.get_executor(), chunk_size=4)
    matches = [next(result) for _ in range(10)]
    os.kill(pids[0], signal.SIGKILL)
    matches += list(result)
    assert [item for item, _ in matches] == list(range(120))
    seen = {pid for _, pid in matches}
    assert pids[1] in seen
    assert len(seen) >= 2


@pytest.mark.filterwarnings("default")
def test_comparing_on_a_cluster(cluster: Any) -> None:
    model, inputs = mlferry.MLModel(custom(), custom_layers={"Plus": Plus}), samples(40)
    other = mlferry.MLModel(custom(), custom_layers={"Plus": Plus})
    expected = mlferry.compare_models(model, other, inputs)
    import cloudpickle

    cloudpickle.register_pickle_by_value(__import__("sys").modules[__name__])
    executor = cluster.get_executor()
    assert mlferry.compare_models(model, other, inputs, executor=executor) == expected


def killed(report: Any) -> float:
    """A metric, at whose first use a worker is killed."""
    if KILLED:
        os.kill(KILLED.pop(), signal.SIGKILL)
    return float(report.outputs["y"].numbers["cosine"])


KILLED: list[int] = []


@pytest.mark.filterwarnings("default")
def test_a_worker_is_killed_while_layers_are_quantized(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its samples are taken over by others, from the first layer on."""
    expected = calibrated("linear", 40)
    pids = list(cluster.run(os.getpid).values())
    store, stored = calibration.store, []

    def killing(*arguments: Any) -> None:
        store(*arguments)
        stored.append(1)
        if len(stored) == 2:
            os.kill(pids[0], signal.SIGKILL)

    monkeypatch.setattr(calibration, "store", killing)
    model = calibrated("linear", 40, cluster.get_executor())
    assert len(stored) == 3
    same_model(model, expected)


@pytest.mark.filterwarnings("default")
def test_a_worker_is_killed_while_others_search(cluster: Any) -> None:
    model, inputs = mlferry.MLModel(network()), samples(60)
    expected = mlferry.search_quantization(model, inputs, killed, 0.99)
    KILLED.append(next(iter(cluster.run(os.getpid).values())))
    result = mlferry.search_quantization(
        model, inputs, killed, 0.99, executor=cluster.get_executor()
    )
    assert KILLED == []
    assert result.to_dict() == expected.to_dict()
