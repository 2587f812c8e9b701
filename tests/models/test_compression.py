"""Compressed models: how their weights are told, compared, checked in half precision, and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.cli import main
from mlferry.models.facts import WeightFacts
from tests.models.test_program_quantization import (
    GIVEN,
    JOINT,
    NETWORK,
    PROGRAMS,
    SCHEMES,
    step,
    weights_of,
)

HALF = PROGRAMS["float16"]
KMEANS = {"quantization_mode": "kmeans"}
FURTHER = {"joint_compression": True}
# The steps, how the convolution [32, 16, 3, 3] is stored, bits of a code, a block, and all bits.
TOLD: dict[str, tuple[list[dict[str, Any]], str, int | None, list[int], float]] = {
    "table": ([{"nbits": 4, **KMEANS}], "4-bit table", 4, [32, 16, 3, 3],
              4 + 16 * 16 / 4608),
    "tables": (
        [{"nbits": 2, "granularity": "per_grouped_channel", "group_size": 4, **KMEANS}],
        "2-bit table, blocks of 4 x 16 x 3 x 3", 2, [4, 16, 3, 3], 2 + 8 * 4 * 16 / 4608),
    "codes": ([{"nbits": 8, "quantization_mode": "linear_symmetric"}],
              "int8 codes, blocks of 1 x 16 x 3 x 3", 8, [1, 16, 3, 3], 8 + 32 * (16 + 8) / 4608),
    "blocks": ([{"nbits": 4, "granularity": "per_block", "block_size": 8}],
               "uint4 codes with zero points, blocks of 1 x 8 x 3 x 3", 4, [1, 8, 3, 3],
               4 + 64 * (16 + 4) / 4608),
    "pruned": ([{"sparsity": 0.75}], "75.0% zeros", None, [], 1 + 0.25 * 16),
    "pruned, and a table": (
        [{"sparsity": 0.75}, {"nbits": 4, **KMEANS, **FURTHER}], "75.0% zeros, 4-bit table", 4,
        [32, 16, 3, 3], 1 + 0.25 * 4 + 16 * 16 / 4608),
    "a table in codes": (
        [{"nbits": 6, **KMEANS}, {"nbits": 8, "quantization_mode": "linear_symmetric", **FURTHER}],
        "6-bit table in int8", 6, [32, 16, 3, 3], 6 + (64 * 8 + 16) / 4608),
}  # fmt: skip


def made(steps: list[dict[str, Any]], program: mlferry.MLModel = HALF) -> mlferry.MLModel:
    for options in steps:
        program = step(program, options)
    return program


def convolution(actual: list[WeightFacts]) -> WeightFacts:
    return next(each for each in actual if each.weight.startswith("weight of conv '"))


@pytest.mark.parametrize("name", TOLD)
def test_told(name: str) -> None:
    steps, scheme, bits, block, each = TOLD[name]
    small = made(steps)
    told = convolution(small.describe().compressed)
    assert (told.scheme, told.bits, told.block, told.snr) == (scheme, bits, block, None)
    assert told.bits_per_value == pytest.approx(each)
    beside = small.describe(against=HALF).compressed
    assert len(beside) == len(small.describe().compressed) == 4
    before, after = weights_of(HALF)["c"].astype(np.float64), weights_of(small)["c"]
    noise = np.square(after - before).sum()
    right = 10 * np.log10(np.square(before).sum() / noise)
    assert convolution(beside).snr == pytest.approx(right)
    text = str(small.describe(against=HALF))
    assert f"{scheme}, {each:.2f} bits a value, {right:.1f} dB" in text


def test_older_forms_are_told_alike() -> None:
    newer = mlferry.quantize_weights(HALF, 4, "kmeans", granularity="per_channel", selector=last)
    assert newer.spec.specificationVersion == 9
    old = convolution(mlferry.quantize_weights(HALF, 4, "kmeans").describe().compressed)
    again = mlferry.quantize_weights(mlferry.quantize_weights(HALF, 4, "kmeans"), 4, selector=last)
    assert again.spec.specificationVersion == 9
    assert convolution(again.describe().compressed) == old


def last(site: Any) -> bool:
    return bool(site.kind == "gather" and site.is_matrix)


def test_networks_are_told_too() -> None:
    small = mlferry.quantize_weights(NETWORK, 4, "kmeans")
    actual = small.describe(against=NETWORK).compressed
    assert {each.scheme for each in actual} == {"lut 4"}
    assert all(each.snr is not None and 15 < each.snr < 30 for each in actual)
    exact = mlferry.quantize_weights(NETWORK, 16).describe(against=NETWORK).compressed
    assert all(each.bits is None and each.snr is not None and each.snr > 60 for each in exact)


def test_float_models_have_none() -> None:
    assert HALF.describe().compressed == []
    assert "compressed" not in str(HALF)


def test_the_same_weights_are_exact() -> None:
    small = made(TOLD["table"][0])
    assert {each.snr for each in small.describe(against=small).compressed} == {np.inf}
    assert "exact" in str(small.describe(against=small))
    facts = small.describe(against=small).to_dict()["compressed"]
    assert {each["snr"] for each in facts} == {"inf"}


def test_in_a_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, whole = tmp_path / "small.mlpackage", tmp_path / "net.mlpackage"
    made(TOLD["blocks"][0]).save(small)
    HALF.save(whole)
    page = tmp_path / "facts.html"
    assert main(["inspect", str(small), "--against", str(whole), "--html", str(page)]) == 0
    text = page.read_text()
    assert "<h2>Compressed weights (4)</h2>" in text
    assert "blocks of 1 x 8 x 3 x 3</td><td>4." in text
    assert " dB</td>" in text
    capsys.readouterr()
    assert main(["inspect", str(small), "--json"]) == 0
    (actual,) = (
        each
        for each in json.loads(capsys.readouterr().out)["compressed"]
        if each["weight"].startswith("weight of conv '")
    )
    assert (actual["bits"], actual["block"], actual["snr"]) == (4, [1, 8, 3, 3], None)


@pytest.mark.parametrize("model", ["program", "network"])
def test_drawn(model: str, tmp_path: Path) -> None:
    pytest.importorskip("igraph")
    whole = HALF if model == "program" else NETWORK
    small = mlferry.quantize_weights(whole, 4, "kmeans")
    path = mlferry.visualize_spec(
        small, path=tmp_path / "page.html", open_browser=False, against=whole
    )
    text = path.read_text()
    told = convolution(small.describe(against=whole).compressed) if model == "program" else None
    assert (told.text() if told is not None else "lut 4, 4.") in text
    assert " dB" in text


SCHEMES_AND_JOINT = {name: [options] for name, (options, *_) in SCHEMES.items()} | {
    name: steps for name, (steps, _) in JOINT.items()
}


@pytest.mark.parametrize("name", SCHEMES_AND_JOINT)
def test_compared_and_checked(name: str) -> None:
    """Both work on every scheme, and tell the same of a model with its weights in floats."""
    small = made(SCHEMES_AND_JOINT[name])
    floats = mlferry.quantize_weights(small, 32, "dequantization")
    ours, right = (mlferry.compare_models(HALF, m, [GIVEN]) for m in (small, floats))
    for key, output in right.outputs.items():
        for measure, value in output.numbers.items():
            got = ours.outputs[key].numbers[measure]
            assert got == pytest.approx(value, rel=1e-3, abs=1e-4), (key, measure)
    checks = [mlferry.check_precision(each, [GIVEN]) for each in (small, floats)]
    mine, other = ({each.name: each for each in check.operations} for check in checks)
    assert checks[0].keep_in_float32 == []
    assert other.keys() <= mine.keys()
    for key, operation in other.items():
        assert mine[key].largest == pytest.approx(operation.largest, rel=1e-2)
        assert mine[key].error == pytest.approx(operation.error, abs=2e-3)
