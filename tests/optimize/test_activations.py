"""`linear_quantize_activations` beside coremltools' passes, which get the same ranges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import PredictionError, SpecError
from mlferry.layers.builder import Builder
from mlferry.optimize import coreml as ours
from mlferry.optimize.coreml import experimental
from mlferry.programs.reading import read_function
from tests.exporters.program.support import checked, kinds, read_by_coremltools
from tests.oracles import oracle
from tests.programs.make import model

ct = oracle("coremltools")
theirs = ct.optimize.coreml
post_training = theirs._post_training_quantization

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(5)


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def network() -> mlferry.MLModel:
    """Two branches behind one activation, joined, with a pool, a sum and a product."""
    b = Builder()
    b.input("x", (1, 4, 10, 10))

    def convolution(name: str, sample: str, inputs: int, outputs: int) -> None:
        weights = normal(outputs, inputs, 3, 3) / np.sqrt(9 * inputs)
        b.layer(
            "convolution", name, [sample], [name], outputChannels=outputs, kernelChannels=inputs,
            kernelSize=(3, 3), stride=(1, 1), dilationFactor=(1, 1), nGroups=1, same={},
            hasBias=True, weights=weights, bias=normal(outputs),
        )  # fmt: skip

    convolution("c", "x", 4, 8)
    b.layer("activation", "r", ["c"], ["r"], ReLU={})
    convolution("one", "r", 8, 8)
    convolution("two", "r", 8, 8)
    b.layer("activation", "r2", ["two"], ["r2"], ReLU={})
    b.layer("concat", "j", ["one", "r2"], ["j"])
    b.layer("pooling", "m", ["j"], ["m"], type="MAX", kernelSize=(2, 2), stride=(2, 2), valid={})
    convolution("last", "m", 16, 16)
    b.layer("add", "a", ["last", "m"], ["a"])
    b.layer("pooling", "p", ["a"], ["p"], type="AVERAGE", globalPooling=True, valid={})
    b.layer("squeeze", "s", ["p"], ["s"], axes=(2, 3))
    b.layer(
        "innerProduct", "d", ["s"], ["d"], inputChannels=16, outputChannels=6, hasBias=True,
        weights=normal(6, 16), bias=normal(6),
    )  # fmt: skip
    b.output("d")
    return mlferry.MLModel(b.model())


PROGRAM = mlferry.to_program(network())
SAMPLES = [{"x": normal(1, 4, 10, 10)} for _ in range(6)]


def naive_ranges(program: mlferry.MLModel) -> dict[str, dict[str, Any]]:
    """The range of every value over the samples, concatenations as coremltools joins them."""
    names = ["x", *program.makers()]
    results: dict[str, dict[str, Any]] = {}
    for sample in SAMPLES:
        for name, array in program.intermediate(sample, names).items():
            known = results.setdefault(name, {"rmin": np.inf, "rmax": -np.inf})
            known["rmin"] = min(known["rmin"], float(np.min(array)))
            known["rmax"] = max(known["rmax"], float(np.max(array)))
    block = next(iter(program.spec.mlProgram.functions["main"].block_specializations.values()))
    joined = [
        [each.name for each in (*op.inputs["values"].arguments, *op.outputs)]
        for op in block.operations
        if op.type == "concat"
    ]
    ct.optimize.coreml.experimental._post_training_quantization._adjust_concat_surrounding_activation_stats(
        joined, results
    )
    return results


def config(**levels: Any) -> dict[str, Any]:
    return {"config_type": "OpLinearQuantizerConfig", **levels}


CASES: dict[str, dict[str, Any]] = {
    "symmetric": config(global_config={}),
    "symmetric, unsigned": config(global_config={"dtype": "uint8"}),
    "with zero points": config(global_config={"mode": "linear"}),
    "with zero points, unsigned": config(global_config={"mode": "linear", "dtype": "uint8"}),
    "convolutions alone": config(op_type_configs={"conv": {"mode": "linear"}}),
    "all but sums and one": config(
        global_config={"mode": "linear"}, op_type_configs={"add": None},
        op_name_configs={"two": None}),
    "pools alone": config(op_type_configs={"max_pool": {}, "avg_pool": {}}),
}  # fmt: skip


def steps_of(model: mlferry.MLModel) -> dict[tuple[str, str], tuple[float, int, str]]:
    """What each operation reads through 8 bits: scale, zero point and type, of every parameter."""
    block, _ = read_function(model.spec.mlProgram.functions["main"], model.program_weights)
    results = {}
    for operation in block.operations:
        if operation.op in ("quantize", "dequantize"):
            continue
        for parameter, argument in operation.arguments.items():
            for index, value in enumerate(argument if isinstance(argument, tuple) else (argument,)):
                maker = value.maker
                if maker is None or maker.op != "dequantize":
                    continue
                scale, zero = (maker.arguments.get(key) for key in ("scale", "zero_point"))
                codes = maker.arguments["input"]
                results[f"{operation.op} {operation.outputs[0].name}", f"{parameter} {index}"] = (
                    float(scale.constant),
                    int(zero.constant) if zero else 0,
                    codes.dtype,
                )
    return results


@pytest.mark.parametrize("name", CASES)
def test_beside_coremltools(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        post_training, "_get_activation_calibration_stats", lambda *_: naive_ranges(PROGRAM)
    )
    mine = checked(
        ours.linear_quantize_activations(
            PROGRAM, ours.OptimizationConfig.from_dict(CASES[name]), SAMPLES
        )
    )
    assert mine.spec.specificationVersion == 8
    read_by_coremltools(mine, tmp_path)
    path = PROGRAM.save(tmp_path / "net.mlpackage")
    other = theirs.linear_quantize_activations(
        ct.models.MLModel(str(path), skip_model_load=True),
        theirs.OptimizationConfig.from_dict(CASES[name]),
        [dict(sample) for sample in SAMPLES],
    )
    other.save(str(tmp_path / "theirs.mlpackage"))
    right = mlferry.MLModel(tmp_path / "theirs.mlpackage")
    ours_read, theirs_read = steps_of(mine), steps_of(right)
    assert ours_read.keys() == theirs_read.keys()
    for key, (scale, zero, kind) in theirs_read.items():
        if key[0].startswith("add"):  # rewritten there: both sides are divided by a scale
            continue
        # Ranges are rounded to float16 there.
        assert ours_read[key][0] == pytest.approx(scale, rel=3e-3), key
        assert abs(ours_read[key][1] - zero) <= 1, key
        assert ours_read[key][2] == kind, key
    graph = mlferry.MLModel(mine.save(tmp_path / "mine.mlpackage"), engine="onnxruntime")
    off, apart, engines = [], [], []
    for sample in SAMPLES:
        exact, expected = PROGRAM.predict(sample)["d"], right.predict(sample)["d"]
        actual = mine.predict(sample)["d"]
        off.append(np.abs(expected - exact).mean())
        apart.append(np.abs(actual - expected).mean())
        engines.append(np.abs(graph.predict(sample)["d"] - actual).mean())
    assert 0 < np.mean(off) < 0.02 * np.abs(exact).max()
    assert np.mean(apart) < 0.5 * np.mean(off)  # now and then a value goes to the next step
    assert np.mean(engines) < 0.5 * np.mean(off)


def test_ranges_are_those_of_all_samples() -> None:
    """The last sample is no more than another one; a value beyond the range is cut off."""
    config = ours.OptimizationConfig(ours.OpLinearQuantizerConfig(mode="linear"))
    one = ours.linear_quantize_activations(PROGRAM, config, SAMPLES)
    other = ours.linear_quantize_activations(PROGRAM, config, SAMPLES[::-1], 2)
    assert one.spec.SerializeToString(deterministic=True) == other.spec.SerializeToString(
        deterministic=True
    )
    arrays = np.stack([sample["x"] for sample in SAMPLES])
    third = ours.linear_quantize_activations(PROGRAM, config, arrays)  # type: ignore[arg-type] # bare arrays
    assert third.spec.SerializeToString(deterministic=True) == one.spec.SerializeToString(
        deterministic=True
    )
    narrow = ours.linear_quantize_activations(
        PROGRAM, config, [{"x": 0.01 * sample["x"]} for sample in SAMPLES]
    )
    exact = PROGRAM.predict(SAMPLES[0])["d"]
    off = [np.abs(each.predict(SAMPLES[0])["d"] - exact).max() for each in (one, narrow)]
    assert off[0] < off[1]


def test_with_weights_of_8_bits() -> None:
    config = ours.OptimizationConfig(ours.OpLinearQuantizerConfig(weight_threshold=200))
    both = ours.linear_quantize_weights(
        experimental.linear_quantize_activations(
            PROGRAM,
            ours.OptimizationConfig(experimental.OpActivationLinearQuantizerConfig()),
            [{None: SAMPLES[0]["x"]}, *SAMPLES[1:]],
        ),
        config,
    )
    assert Counter(kinds(checked(both).spec))["constexpr_affine_dequantize"] == 4
    exact, actual = PROGRAM.predict(SAMPLES[0])["d"], both.predict(SAMPLES[0])["d"]
    assert np.abs(actual - exact).max() < 0.1 * np.abs(exact).max()


def test_float32() -> None:
    whole = mlferry.to_program(network(), compute_precision="float32")
    config = ours.OptimizationConfig(ours.OpLinearQuantizerConfig(mode="linear"))
    small = checked(ours.linear_quantize_activations(whole, config, SAMPLES))
    exact, actual = whole.predict(SAMPLES[0])["d"], small.predict(SAMPLES[0])["d"]
    assert 0 < np.abs(actual - exact).max() < 0.1 * np.abs(exact).max()


def branching(mb: Any, x: Array) -> Any:
    """A branch and a sum read what a convolution makes, which is an output, too."""
    weight = normal(4, 4, 1, 1)
    y = mb.conv(x=x, weight=weight, pad_type="valid")
    chosen = mb.cond(
        pred=mb.greater(x=mb.reduce_sum(x=x), y=0.0),
        _true_fn=lambda: mb.conv(x=y, weight=weight, pad_type="valid"),
        _false_fn=lambda: mb.mul(x=y, y=2.0),
    )
    return chosen, mb.add(x=y, y=y), y


def test_branches_and_outputs(tmp_path: Path) -> None:
    features = [{"x": normal(1, 4, 3, 3) + shift} for shift in (-1, 1, -1, 1)]
    whole = model(branching, [features[0]["x"]], tmp_path, 7)
    inputs = [feature.name for feature in whole.spec.description.input]
    features = [{inputs[0]: sample["x"]} for sample in features]
    config = ours.OptimizationConfig(ours.OpLinearQuantizerConfig(mode="linear"))
    small = checked(ours.linear_quantize_activations(whole, config, features))
    read = steps_of(small)
    assert len([key for key in read if key[0].startswith("add")]) == 2
    assert Counter(kinds(small.spec))["quantize"] == 2  # of x and of y
    for sample in features:
        exact, actual = whole.predict(sample), small.predict(sample)
        for name, array in exact.items():
            off = np.abs(actual[name] - array).max()
            assert off < 0.05 * np.abs(array).max(), name


def run(program: Any = PROGRAM, samples: Any = SAMPLES, **options: Any) -> Callable[[], Any]:
    size = options.pop("size", -1)
    result = ours.OptimizationConfig(ours.OpLinearQuantizerConfig(**options))
    return lambda: ours.linear_quantize_activations(program, result, samples, size)


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "network": (run(network()), SpecError, r"mlferry.to_program\(model\) makes one"),
    "bits": (run(dtype="int4"), SpecError, "have dtype='int8' or 'uint8'"),
    "kind": (
        lambda: ours.linear_quantize_activations(
            PROGRAM, ours.OptimizationConfig(ours.OpPalettizerConfig(nbits=4)), SAMPLES),
        SpecError, "takes OpLinearQuantizerConfig, not OpPalettizerConfig"),
    "no config": (
        lambda: ours.linear_quantize_activations(PROGRAM, None, SAMPLES),  # type: ignore[arg-type] # no config
        SpecError, "write OptimizationConfig"),
    "size": (run(size=0), SpecError, "a number of values, or -1"),
    "two names": (
        run(samples=[{None: 1, "x": 2}]), PredictionError, "without a name; the model has x"),
    "no number": (
        run(samples=[{"x": np.full((1, 4, 10, 10), np.nan)}]), SpecError,
        "is infinite or NaN, for the sample"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name: str) -> None:
    make, kind, words = WRONG[name]
    with pytest.raises(kind, match=words):
        make()
