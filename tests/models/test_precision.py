"""`check_precision`: where half precision goes wrong, on networks that go wrong on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.cli import main
from mlferry.errors import PredictionError, SpecError, UnsupportedModelError
from mlferry.layers.builder import Builder
from mlferry.models import precision
from mlferry.models.utils import make_pipeline, rename_feature

ct = pytest.importorskip("coremltools")
mb = ct.converters.mil.Builder

SAMPLES = [
    {"x": np.random.default_rng(seed).standard_normal((1, 8)).astype(np.float32)}
    for seed in range(4)
]


def made(network: Callable[[Any], Any], path: Path, precision: Any = None) -> mlferry.MLModel:
    """A program that coremltools writes, in half precision unless told otherwise."""

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 8))], opset_version=ct.target.iOS16)  # type: ignore[untyped-decorator]
    def program(x: Any) -> Any:
        return mb.identity(x=network(x), name="y")

    converted = ct.convert(
        program,
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=precision or ct.precision.FLOAT16,
        skip_model_load=True,
    )
    converted.save(str(path))
    return mlferry.MLModel(path)


def overflow(x: Any) -> Any:
    """e to the power of 12 is more than float16 has."""
    grown = mb.exp(x=mb.add(x=x, y=12.0, name="shift"), name="grow")
    return mb.log(x=grown, name="back")


def vanish(x: Any) -> Any:
    small = mb.mul(x=mb.sigmoid(x=x, name="share"), y=1e-5, name="small")
    smaller = mb.mul(x=small, y=0.003, name="smaller")
    return mb.mul(x=smaller, y=60000.0, name="large")


def cancel(x: Any) -> Any:
    """Ten of eleven bits go into the thousands; what is left is a difference of roundings."""
    far = mb.relu(x=mb.add(x=x, y=1000.0, name="far"), name="positive")
    return mb.sub(x=far, y=1000.0, name="near")


WRONG = {"overflow": (overflow, "grow"), "vanish": (vanish, "smaller"), "cancel": (cancel, "far")}


@pytest.mark.parametrize("name", WRONG)
def test_cause_is_named_and_mends_the_model(name: str, tmp_path: Path) -> None:
    network, cause = WRONG[name]
    report = mlferry.check_precision(made(network, tmp_path / "half.mlpackage"), SAMPLES)
    kept = {value.removesuffix("_cast_fp16") for value in report.keep_in_float32}
    assert cause in kept
    assert report.ranked[0].is_cause
    assert max(report.outputs.values()) > 0.01
    mended = made(
        network,
        tmp_path / "mended.mlpackage",
        ct.transform.FP16ComputePrecision(op_selector=lambda op: op.name not in kept),
    )
    after = mlferry.check_precision(mended, SAMPLES)
    assert not after.keep_in_float32
    assert max(after.outputs.values()) < 0.005


def test_sound_network_has_no_cause(tmp_path: Path) -> None:
    model = made(lambda x: mb.tanh(x=mb.mul(x=x, y=0.5)), tmp_path / "sound.mlpackage")
    report = mlferry.check_precision(model, SAMPLES)
    assert report.keep_in_float32 == []
    assert max(report.outputs.values()) < 0.002
    assert "no operation goes wrong" in str(report)


def test_numbers_are_those_of_numpy(tmp_path: Path) -> None:
    report = mlferry.check_precision(made(overflow, tmp_path / "half.mlpackage"), SAMPLES)
    (grown,) = (each for each in report.operations if each.name.startswith("grow"))
    exact = [np.exp(sample["x"].astype(np.float16).astype(np.float64) + 12) for sample in SAMPLES]
    assert grown.largest == pytest.approx(max(value.max() for value in exact), rel=1e-3)
    assert grown.overflows == pytest.approx(sum((value > 65519).sum() for value in exact), abs=1)
    assert grown.count == sum(value.size for value in exact)


NUMBERS: dict[str, tuple[list[float], list[float], dict[str, float]]] = {
    "rounded": ([1, -3.5, 2], [1, -4, 2.5], {"error": 0.125, "largest": 4}),
    "beyond float16": (
        [1, np.inf, np.nan], [1, 1e5, 7e4],
        {"error": np.inf, "largest": 1e5, "overflows": 2},
    ),
    "beyond float32 as well": ([1, np.inf], [2, np.inf], {"error": 0.5, "largest": 2}),
    "vanished": ([0, 0, 2], [0, 1e-8, 2], {"error": 5e-9, "largest": 2, "vanishes": 1}),
    "nothing but zeros": ([0, 0], [0, 0], {"error": 0}),
    "zeros that become something": ([0, 1], [0, 0], {"error": np.inf}),
    "none": ([], [], {"error": 0}),
}  # fmt: skip


@pytest.mark.parametrize("times", [1, 50_000])
@pytest.mark.parametrize("row", NUMBERS)
def test_numbers_of_one_value(row: str, times: int) -> None:
    """However many slices its entries are looked at in."""
    half, exact, expected = NUMBERS[row]
    one, two = (np.tile(np.float32(each), (times, 1)) for each in (half, exact))
    actual = precision._statistics(one, two)
    counts = {name: times * expected.get(name, 0) for name in ("overflows", "vanishes")}
    assert actual.error == pytest.approx(expected["error"], rel=1e-6)
    assert actual.largest == np.float32(expected.get("largest", 0))
    assert {name: getattr(actual, name) for name in counts} == counts
    assert actual.count == one.size
    json.dumps(vars(actual))


@pytest.mark.parametrize(
    ("half", "exact"),
    [(np.arange(3), np.arange(3)), (np.zeros(3), np.zeros(4)), ("a", "a"), ([1.0], [2.0])],
)
def test_values_without_precision_tell_nothing(half: object, exact: object) -> None:
    assert precision._statistics(half, exact) == precision._Statistics(0.0)


def test_what_has_one_precision_is_refused(tmp_path: Path) -> None:
    model = made(overflow, tmp_path / "single.mlpackage", ct.precision.FLOAT32)
    with pytest.raises(UnsupportedModelError, match="float32 throughout"):
        mlferry.check_precision(model, SAMPLES)
    builder = Builder()
    builder.input("x", (1, 3))
    builder.layer("activation", "relu", ["x"], ["y"], ReLU={})
    builder.output("y")
    network = mlferry.MLModel(builder.model())
    with pytest.raises((UnsupportedModelError, SpecError)):
        mlferry.check_precision(network, [{"x": np.ones((1, 3))}])


def test_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, folder, page = tmp_path / "half.mlpackage", tmp_path / "samples", tmp_path / "p.html"
    made(overflow, path)
    folder.mkdir()
    for index, sample in enumerate(SAMPLES):
        np.savez(folder / f"{index}.npz", **sample)  # type: ignore[arg-type]
    assert main(["precision", str(path), str(folder), "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert "4 samples" in said
    assert "keep in float32: ['grow" in said
    assert main(["precision", str(path), str(folder), "--json"]) == 0
    actual = json.loads(capsys.readouterr().out)
    assert actual == mlferry.check_precision(mlferry.MLModel(path), folder).to_dict()
    text = page.read_text()
    assert text.count("<circle") == len(actual["operations"])
    assert "grow" in text


def test_folder_of_arrays(tmp_path: Path) -> None:
    model = made(cancel, tmp_path / "half.mlpackage")
    folder = tmp_path / "samples"
    folder.mkdir()
    for index, sample in enumerate(SAMPLES):
        np.save(folder / f"{index}.npy", sample["x"])
    assert (
        mlferry.check_precision(model, folder).to_dict()
        == mlferry.check_precision(model, SAMPLES).to_dict()
    )
    (folder / "cat.png").write_bytes(b"")
    with pytest.raises(PredictionError, match="pictures and arrays"):
        mlferry.check_precision(model, folder)


def test_a_pipeline_says_how_to_check_its_programs(tmp_path: Path) -> None:
    first = made(overflow, tmp_path / "first.mlpackage")
    second = made(cancel, tmp_path / "second.mlpackage")
    spec = second.get_spec()
    rename_feature(spec, "y", "z")
    rename_feature(spec, "x", "y")
    pipeline = make_pipeline(first, second.with_spec(spec))
    with pytest.raises(UnsupportedModelError, match="check its programs one by one"):
        mlferry.check_precision(pipeline, SAMPLES)
    one = mlferry.MLModel(pipeline.spec.pipeline.models[0])
    assert mlferry.check_precision(one, SAMPLES).keep_in_float32


def test_both_engines_find_the_same(tmp_path: Path) -> None:
    made(overflow, tmp_path / "half.mlpackage")
    problems = [
        mlferry.check_precision(
            mlferry.MLModel(tmp_path / "half.mlpackage", engine=engine), SAMPLES
        )
        for engine in ("numpy", "onnxruntime")
    ]
    assert problems[0].keep_in_float32 == problems[1].keep_in_float32
    assert [each.overflows for each in problems[0].operations] == [
        each.overflows for each in problems[1].operations
    ]


# ---- programs that mlferry writes ----------------------------------------------------------------


def _grows(b: Builder) -> np.ndarray:
    b.input("x", (1, 8))
    b.layer("innerProduct", "d", ["x"], ["logits"], inputChannels=8, outputChannels=4,
            weights=np.random.default_rng(0).normal(size=(4, 8)))  # fmt: skip
    b.layer("unary", "e", ["logits"], ["grown"], type="EXP", scale=1, shift=12)
    b.layer("unary", "l", ["grown"], ["y"], type="LOG", scale=1)
    return np.linspace(-1, 1, 8)[None]


def _large_input(b: Builder) -> np.ndarray:
    b.input("x", (1, 8))
    b.layer("multiply", "m", ["x"], ["small"], alpha=1e-5)
    b.layer("innerProduct", "d", ["small"], ["y"], inputChannels=8, outputChannels=4,
            weights=np.random.default_rng(0).normal(size=(4, 8)))  # fmt: skip
    return np.linspace(-1e6, 1e6, 8)[None]


def _large_output(b: Builder) -> np.ndarray:
    b.input("x", (1, 8))
    b.layer("softmaxND", "s", ["x"], ["s"], axis=-1)
    b.layer("multiply", "m", ["s"], ["y"], alpha=6e4)
    b.layer("multiply", "n", ["y"], ["z"], alpha=3.0)
    return np.linspace(-10, 10, 8)[None]


def _cancels(b: Builder) -> np.ndarray:
    b.input("x", (1, 4, 8, 8))
    b.layer("activation", "r", ["x"], ["r"], ReLU={})
    b.layer("mvn", "m", ["r"], ["y"], acrossChannels=True, normalizeVariance=True, epsilon=1e-5)
    return 1e4 + np.random.default_rng(0).normal(size=(1, 4, 8, 8))


@pytest.mark.parametrize("build", [_grows, _large_input, _large_output, _cancels])
def test_what_it_names_is_what_to_program_keeps(build: Callable[[Builder], np.ndarray]) -> None:
    b = Builder()
    sample = {"x": build(b).astype(np.float32)}
    b.output("z" if "z" in b.shapes else "y")
    half = mlferry.to_program(b.model())
    report = mlferry.check_precision(half, [sample])
    assert max(report.outputs.values()) > 0.05
    assert report.keep_in_float32
    mended = mlferry.to_program(b.model(), compute_precision=report.keep_in_float32)
    right = mlferry.MLModel(b.model()).predict(sample)
    for name, value in mended.predict(sample).items():
        np.testing.assert_allclose(value, right[name], atol=5e-3 * np.abs(right[name]).max())
