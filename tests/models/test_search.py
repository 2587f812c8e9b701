"""The search for the smallest model that is good enough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import SpecError
from mlferry.layers.builder import Builder
from mlferry.models.quantization import search as searching, search_quantization
from mlferry.models.quantization.search import Search, Trial


def network(*, shape: tuple[int, ...] = (1, 12), last: str = "") -> mlferry.MLModel:
    """Two products; 12 scores in some shape, by a softmax if asked."""
    rng = np.random.default_rng(3)
    b = Builder()
    b.input("x", (1, 24))
    sizes = {"inputChannels": 24, "outputChannels": 24}
    weights = rng.normal(size=(24, 24)).astype(np.float32) / 4
    b.layer("innerProduct", "a", ["x"], ["a"], **sizes, weights=weights)
    b.layer("activation", "r", ["a"], ["r"], ReLU={})
    b.layer("innerProduct", "d", ["r"], ["d"], inputChannels=24, outputChannels=12,
            weights=rng.normal(size=(12, 24)).astype(np.float32) / 4)  # fmt: skip
    end = "d"
    if last:
        b.layer("softmaxND", "s", [end], ["s"], axis=-1)
        end = "s"
    b.layer("reshapeStatic", "y", [end], ["y"], targetShape=shape)
    b.output("y")
    return mlferry.MLModel(b.model())


RNG = np.random.default_rng(8)
DATA = [{"x": RNG.normal(size=(1, 24)).astype(np.float32)} for _ in range(30)]
MODEL = network()
BITS = (6, 5, 4)


def test_the_smallest_that_is_good_enough() -> None:
    actual = search_quantization(MODEL, DATA, "snr", 25, bits=BITS)
    assert actual.best.meets
    assert actual.best.size == min(trial.size for trial in actual.trials if trial.meets)
    assert actual.model.get_spec().ByteSize() == actual.best.size
    assert {trial.way for trial in actual.trials} == {
        "linear", "kmeans", "linear, calibrated", "kmeans, calibrated"}  # fmt: skip
    assert not all(trial.meets for trial in actual.trials)
    assert "<- smallest" in str(actual)
    assert actual.to_dict()["best"]["bits"] == actual.best.bits
    by_function = search_quantization(
        MODEL, DATA, lambda report: report.outputs["y"].numbers["snr"], 25, bits=BITS
    )
    assert by_function.trials == actual.trials


@pytest.mark.parametrize("folds", [2, 3])
def test_no_sample_measures_what_it_fitted(folds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[tuple[mlferry.MLModel, set[int]]] = []
    measured: list[tuple[set[int], set[int]]] = []
    quantize, predict = searching.quantize_weights, mlferry.MLModel.predict

    def numbers(samples: Any) -> set[int]:
        return {next(i for i, one in enumerate(DATA) if one["x"] is s["x"]) for s in samples}

    def spied(model: Any, bits: int, mode: str, samples: Any) -> mlferry.MLModel:
        result = quantize(model, bits, mode, samples)
        fitted.append((result, numbers(samples or ())))
        return result

    def predicted(self: mlferry.MLModel, samples: Any, **options: Any) -> Any:
        if isinstance(samples, dict):
            return predict(self, samples, **options)
        measured.extend((used, numbers(samples)) for result, used in fitted if result is self)
        return predict(self, samples, **options)

    monkeypatch.setattr(searching, "quantize_weights", spied)
    monkeypatch.setattr(mlferry.MLModel, "predict", predicted)
    search_quantization(MODEL, DATA, "snr", 10, modes=("kmeans",), bits=(6,), folds=folds)
    plain, *folded = measured
    assert plain == (set(), set(range(30)))
    assert len(folded) == folds
    assert all(not used & seen and used | seen == set(range(30)) for used, seen in folded)
    assert sorted(i for _, seen in folded for i in seen) == [*range(30)]
    assert fitted[-1][1] in (set(), set(range(30)))


@pytest.mark.parametrize("shape", [(12,), (1, 12), (12, 1, 1)])
@pytest.mark.parametrize("last", ["", "softmax"])
@pytest.mark.parametrize("metric", ["top1", "top5"])
def test_rates_of_arrays_of_scores(shape: tuple[int, ...], last: str, metric: str) -> None:
    model = network(shape=shape, last=last)
    actual = search_quantization(
        model, DATA, metric, 0.9, modes=("linear",), bits=(8, 2), calibrate=False
    )
    first, *_ = actual.trials
    assert first.interval is not None
    assert first.interval[0] < first.score <= first.interval[1]
    assert first.expected == pytest.approx(first.score, abs=0.07)
    assert first.kl is not None
    assert first.kl < 0.01
    assert (actual.count, actual.needed) == (30, 35)
    assert "too few to show 0.9 even where all agree, which takes 35" in str(actual)
    assert actual.to_dict()["needed"] == 35


def test_a_count_that_missed_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """46 of 50 samples agree; their margins say that 0.95 holds, as it does for 2,000 others."""
    others = [{"x": x} for x in RNG.normal(size=(2000, 1, 24)).astype(np.float32)]
    small = mlferry.quantize_weights(MODEL, 6)
    right = mlferry.compare_models(MODEL, small, others)
    assert right.top1 > 0.95
    agree = [row.numbers["top1"] for row in right.rows]
    picked = [i for i, one in enumerate(agree) if not one][:4]
    picked += [i for i, one in enumerate(agree) if one][:46]
    matches = search_quantization(
        MODEL, [others[i] for i in picked], "top1", 0.95, modes=("linear",), bits=(6,),
        calibrate=False,
    )  # fmt: skip
    (trial,) = matches.trials
    assert trial.score == 0.92
    assert trial.meets
    assert trial.interval is not None
    assert trial.interval[1] > 0.95
    assert trial.needed is not None


def test_labels_alone_are_counted() -> None:
    def label(report: Any) -> float:
        return float(report.top1)

    assert search_quantization(MODEL, DATA, label, 0.9, bits=(6,)).best.expected is None


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "target": (lambda: search_quantization(MODEL, DATA[:4], lambda report: 0.0, 1, bits=(4, 3)),
               r"no setting meets[\s\S]*float16 +16"),
    "metric": (lambda: search_quantization(MODEL, DATA, "sn", 1), "metric 'sn' is unknown"),
    "samples": (lambda: search_quantization(MODEL, DATA[:1], "snr", 1), "two samples"),
    "folds": (lambda: search_quantization(MODEL, DATA, "snr", 1, folds=1), "folds=2"),
    "another metric": (
        lambda: search_quantization(network(shape=(2, 6)), DATA, "top1", 1),
        r"no output of the model has the metric 'top1': 'y' has snr, psnr, cosine. "
        r"Write metric='snr'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_searches_that_cannot_end_well(name: str) -> None:
    run, words = WRONG[name]
    with pytest.raises(SpecError, match=words):
        run()


def test_plot() -> None:
    pytest.importorskip("matplotlib").use("agg")
    trials = [
        Trial("linear", 8, 8000, 1.0, True, interval=(0.96, 1.0)),
        Trial("kmeans", 4, 4000, 0.98, True, calibrated=True),
    ]
    search = Search(MODEL, trials[1], trials, "top1", 0.97, 32000)
    (axes,) = search.plot().axes
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["linear"].get_xdata().tolist() == [8.0]
    assert lines["kmeans, calibrated"].get_ydata().tolist() == [0.98]
    assert "smallest: kmeans, calibrated, 4 bits" in lines
    assert [text.get_text() for text in axes.texts] == ["8", "4"]
    assert len(axes.collections) == 1


def test_squeezenet(shared_data: Path) -> None:
    """8 bits meet 0.95, which half of the photos counted as missed."""
    images = pytest.importorskip("PIL.Image")
    model = mlferry.convert(shared_data / "squeezenet" / "squeezenet_v1.1.onnx")
    fast = mlferry.MLModel(model.spec, engine="onnxruntime")
    photos = []
    for path in sorted((shared_data / "photos_imagenet").glob("*.jpg")):
        pixels = np.asarray(images.open(path).convert("RGB"), np.float32)[..., ::-1]
        photos.append({"data": (pixels - (104, 117, 123)).transpose(2, 0, 1)[None]})
    actual = search_quantization(
        fast, photos, "top1", 0.95, modes=("linear",), bits=(8,), calibrate=False
    )
    assert actual.count == 100
    assert actual.best.expected is not None
    assert actual.best.expected > 0.955
