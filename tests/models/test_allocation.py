"""Bits for each weight under a mean: the choice beside brute force, and what it gains."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.cli import main
from mlferry.errors import PredictionError, SpecError, UnsupportedModelError
from mlferry.layers.builder import Builder
from mlferry.layers.sites import sites
from mlferry.models.quantization import allocation
from mlferry.models.quantization.allocation import allocated
from mlferry.models.utils import make_pipeline
from mlferry.programs.graph import Operation
from mlferry.programs.reading import read_function
from mlferry.spec import networks
from tests.exporters.program.support import checked

RNG = np.random.default_rng(8)
BITS = (2, 3, 4, 6)


def random_costs(count: int, *, convex: bool) -> tuple[list[list[float]], list[list[float]]]:
    """Costs of weights with each code, and their sizes."""
    scales = np.exp(RNG.normal(0, 2, count))
    costs = scales[:, None] * np.exp2(-2.0 * np.array(BITS))
    sizes = np.outer(RNG.integers(1, 20, count), BITS).astype(float)
    if not convex:
        costs *= np.exp(RNG.normal(0, 0.7, costs.shape))
        sizes += RNG.integers(0, 20, sizes.shape)  # tables: more bits may take less
        sizes, costs = sizes[:, ::-1], costs[:, ::-1]
    return costs.tolist(), sizes.tolist()


@pytest.mark.parametrize("convex", [True, False])
@pytest.mark.parametrize("part", [0, 0.12, 0.3, 0.5, 0.97, 1])
def test_beside_all_choices(part: float, convex: bool) -> None:
    more = []
    for _ in range(10):
        costs, sizes = random_costs(5, convex=convex)
        least, most = (sum(map(limit, sizes)) for limit in (min, max))
        limit = least + part * (most - least)
        actual = allocated(costs, sizes, limit)
        assert sum(own[place] for own, place in zip(sizes, actual, strict=True)) <= limit + 1e-6
        result = sum(own[place] for own, place in zip(costs, actual, strict=True))
        best = min(
            sum(own[place] for own, place in zip(costs, each, strict=True))
            for each in itertools.product(range(len(BITS)), repeat=5)
            if sum(own[place] for own, place in zip(sizes, each, strict=True)) <= limit + 1e-6
        )
        more.append(result / best)
    assert np.median(more) < 1.1  # a few weights of different sizes leave gaps
    assert min(more) >= 1 - 1e-9


def network() -> mlferry.MLModel:
    """Three products; the second one's outputs are nearly all dropped by the third."""
    b = Builder()
    b.input("x", (1, 24))
    for index, (inputs, outputs, size) in enumerate([(24, 96, 1.0), (96, 96, 0.02), (96, 8, 1.0)]):
        weights = (size * RNG.normal(size=(outputs, inputs)) / np.sqrt(inputs)).astype(np.float32)
        b.layer(
            "innerProduct", f"d{index}", [f"h{index}" if index else "x"], [f"p{index}"],
            inputChannels=inputs, outputChannels=outputs, weights=weights,
        )  # fmt: skip
        if index == 1:
            b.layer("add", "sum", ["p1", "h1"], ["h2"])
        elif index == 0:
            b.layer("activation", "a0", ["p0"], ["h1"], ReLU={})
    b.layer("softmaxND", "s", ["p2"], ["y"], axis=-1)
    b.output("y")
    return mlferry.MLModel(b.model())


def squares() -> mlferry.MLModel:
    b = Builder()
    b.input("y", (1, 8))
    b.layer("multiply", "z", ["y", "y"], ["z"])
    b.output("z")
    return mlferry.MLModel(b.model())


NETWORK = network()
SAMPLES = [{"x": 2 * RNG.normal(size=(1, 24)).astype(np.float32)} for _ in range(80)]


def bits_of(model: mlferry.MLModel) -> dict[str, tuple[int, int]]:
    result = networks.network_of(model.get_spec())
    assert result is not None
    results = {}
    for site in itertools.chain(*sites(result)):
        if site.is_matrix and site.encoding is not None:
            results[site.name] = (site.encoding.bits, site.count)
    return results


def divergence(model: mlferry.MLModel) -> float:
    return mlferry.compare_models(NETWORK, model, SAMPLES[40:]).outputs["y"].numbers["kl"]


@pytest.mark.parametrize("mode", ["linear", "kmeans"])
def test_bits_go_where_they_matter(mode: str) -> None:
    same = mlferry.quantize_weights(NETWORK, 3, mode, SAMPLES[:40])
    mixed = mlferry.quantize_weights(NETWORK, (1, 2, 3, 4, 6), mode, SAMPLES[:40], mean_bits=3)
    bits = bits_of(mixed)
    assert bits["d1"][0] < min(bits["d0"][0], bits["d2"][0])
    total = sum(count for _, count in bits.values())
    assert sum(each * count for each, count in bits.values()) <= 3 * total
    assert divergence(mixed) < 0.7 * divergence(same)


def test_the_same_bits_for_all_where_they_lose_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "allocated", lambda *_: [0, 2, 0])  # 1, 6 and 1 bits
    model = mlferry.quantize_weights(NETWORK, (1, 3, 6), "kmeans", SAMPLES[:40], mean_bits=4.5)
    assert {bits for bits, _ in bits_of(model).values()} == {3}


PROGRAM = {"quantization_mode": "kmeans", "sample_data": SAMPLES[:40], "convert_to": "mlprogram"}


def tables_of(model: mlferry.MLModel) -> list[Operation]:
    block, _ = read_function(checked(model).spec.mlProgram.functions["main"], model.program_weights)
    return [op for op in block.operations if op.op == "constexpr_lut_to_dense"]


def table_bytes(model: mlferry.MLModel) -> int:
    """Of the indices and entries of all tables."""
    total = 0
    for op in tables_of(model):
        indices, entries = (op.arguments[name].constant for name in ("indices", "lut"))
        bits = int(np.log2(entries.shape[-2]))
        total += indices.size * bits // 8 + entries.nbytes
    return total


def test_programs() -> None:
    mixed = mlferry.quantize_weights(NETWORK, (2, 3, 6), mean_bits=2, cluster_dim=2, **PROGRAM)
    same = mlferry.quantize_weights(NETWORK, 4, cluster_dim=2, **PROGRAM)
    tables = tables_of(mixed)
    assert len({op.arguments["indices"].dtype for op in tables}) > 1
    assert {op.arguments["lut"].shape[-1] for op in tables} == {2}
    assert divergence(mixed) < divergence(same)
    alone = mlferry.quantize_weights(NETWORK, (2, 3, 6), mean_bits=4, **PROGRAM)
    assert checked(alone).predict(SAMPLES[0])["y"].shape == (1, 8)


GROUPS = {"granularity": "per_grouped_channel", "group_size": 8}


@pytest.mark.parametrize(
    ("groups", "tables"), [({}, 3), (GROUPS, 12 + 12 + 1)], ids=["one", "for groups"]
)
def test_tables_count(groups: dict[str, Any], tables: int) -> None:
    inputs = {**PROGRAM, **groups, "sample_data": SAMPLES[:8]}
    mixed = mlferry.quantize_weights(
        NETWORK, (1, 2, 4), mean_bits=1.5, cluster_dim=(1, 2), **inputs
    )
    weights = 96 * 24 + 96 * 96 + 8 * 96
    assert 8 * table_bytes(mixed) <= 1.5 * weights + tables * 2**1.5 * 16


def test_vectors_where_they_pay() -> None:
    actual = {
        lengths: mlferry.quantize_weights(
            NETWORK, (1, 2, 4), mean_bits=1.5, cluster_dim=lengths, **PROGRAM
        )
        for lengths in ((1, 2), (1,), (2,))
    }
    pairs = [op.arguments["lut"].shape[-1] == 2 for op in tables_of(actual[1, 2])]
    assert any(pairs)
    assert not all(pairs)
    lost = {lengths: divergence(result) for lengths, result in actual.items()}
    assert lost[1, 2] < 0.9 * min(lost[1,], lost[2,])


@pytest.mark.parametrize("sample_data", [SAMPLES[:8], None], ids=["samples", "weights"])
def test_vectors_that_save_nothing_are_single_values(sample_data: Any) -> None:
    """256 entries of 4 values take 12,288 bits more than of one, and 2,048 weights save as much."""
    small = mlferry.quantize_weights(
        NETWORK, 8, "kmeans", sample_data, cluster_dim=4, convert_to="mlprogram",
        granularity="per_grouped_channel", group_size=48,
    )  # fmt: skip
    lengths = {op.outputs[0].shape: op.arguments["lut"].shape[-1] for op in tables_of(small)}
    assert lengths == {(96, 24): 1, (96, 96): 4}


UNEVEN = np.exp(np.repeat(np.linspace(0, 3, 8), 4)).astype(np.float32)


def uneven() -> mlferry.MLModel:
    """Two products, of which the first one's weights differ much from input to input."""
    b = Builder()
    b.input("x", (1, 32))
    rows = [(32, 128, UNEVEN, "x", "p"), (128, 8, np.ones(128), "h", "q")]
    for inputs, outputs, sizes, reads, writes in rows:
        weights = (sizes * RNG.normal(size=(outputs, inputs)) / np.sqrt(inputs)).astype(np.float32)
        b.layer(
            "innerProduct", f"d{writes}", [reads], [writes], inputChannels=inputs,
            outputChannels=outputs, weights=weights,
        )  # fmt: skip
        if writes == "p":
            b.layer("activation", "a", ["p"], ["h"], ReLU={})
    b.layer("softmaxND", "s", ["q"], ["y"], axis=-1)
    b.output("y")
    return mlferry.MLModel(b.model())


def test_blocks_where_they_pay() -> None:
    """Tables for inputs that differ, one table where they do not; bytes are those of one each."""
    whole = uneven()
    inputs = [{"x": RNG.normal(size=(1, 32)).astype(np.float32) / UNEVEN} for _ in range(80)]
    options = {"quantization_mode": "kmeans", "convert_to": "mlprogram", "granularity": "per_block"}
    result = {
        blocks: mlferry.quantize_weights(
            whole, (1, 2, 3), mean_bits=2.1, sample_data=inputs[:40], group_size=0,
            block_size=blocks, **options,
        )
        for blocks in ((0, 4), (0,))
    }  # fmt: skip
    counts = [math.prod(op.arguments["lut"].shape[:2]) for op in tables_of(result[0, 4])]
    assert counts == [8, 1]
    lost = [
        mlferry.compare_models(whole, model, inputs[40:]).outputs["y"].numbers["kl"]
        for model in result.values()
    ]
    assert lost[0] < 0.8 * lost[1]
    weights = 32 * 128 + 128 * 8
    assert 8 * table_bytes(result[0, 4]) <= 2.1 * weights + 2 * 2**2.1 * 16


def test_small_weights_have_tables() -> None:
    small = mlferry.quantize_weights(NETWORK, 4, cluster_dim=2, **PROGRAM)
    assert {op.outputs[0].shape for op in tables_of(small)} == {(96, 24), (96, 96), (8, 96)}


def test_in_a_shell(tmp_path: Path) -> None:
    model, folder = NETWORK.save(tmp_path / "net.mlmodel"), tmp_path / "samples"
    folder.mkdir()
    for index, sample in enumerate(SAMPLES[:8]):
        np.savez(folder / f"{index}.npz", **sample)
    small = tmp_path / "small.mlmodel"
    inputs = ["quantize", str(model), "-o", str(small), "--mode", "kmeans"]
    assert main([*inputs, "--bits", "2,4", "--mean-bits", "3", "--samples", str(folder)]) == 0
    bits = bits_of(mlferry.MLModel(small))
    assert {each for each, _ in bits.values()} == {2, 4}
    package = tmp_path / "small.mlpackage"
    inputs = ["quantize", str(model), "-o", str(package), "--mode", "kmeans", "--bits", "4"]
    assert main([*inputs, "--cluster-dim", "2"]) == 0
    schemes = {each.scheme for each in mlferry.MLModel(package).describe().compressed}
    assert schemes == {"4-bit table of vectors of 2"}
    inputs[-1] = "4,6"
    more = ["--cluster-dim", "1,2", "--mean-bits", "2.5", "--samples", str(folder)]
    assert main([*inputs, *more]) == 0
    schemes = {each.scheme for each in mlferry.MLModel(package).describe().compressed}
    assert "4-bit table of vectors of 2" in schemes
    blocks = ["--granularity", "per_block", "--group-size", "0,8", "--block-size", "24"]
    assert main([*inputs[:-1], "2", *blocks[:3], "0", *blocks[4:]]) == 0
    counts = [op.arguments["lut"].shape[:2] for op in tables_of(mlferry.MLModel(package))]
    assert counts == [(1, 1), (1, 4)]
    more = ["--mean-bits", "4.5", "--samples", str(folder)]
    assert main([*inputs, *blocks, *more]) == 0


Make = Callable[[], Any]


def run(*inputs: Any, model: Any = NETWORK, **options: Any) -> Make:
    return lambda: mlferry.quantize_weights(model, *inputs, **options)


WRONG: dict[str, tuple[Make, type[Exception], str]] = {
    "several without a mean": (run((2, 4), "kmeans", SAMPLES), SpecError, "go with mean_bits"),
    "one": (run(4, "kmeans", SAMPLES, mean_bits=4), SpecError, r"such as nbits=\(2, 3, 4, 6\)"),
    "several lengths without a mean": (
        run(4, "kmeans", SAMPLES, cluster_dim=(1, 2), convert_to="mlprogram"),
        SpecError, r"cluster_dim is \(1, 2\); several go with mean_bits"),
    "no length": (
        run((2, 4), "kmeans", SAMPLES, mean_bits=3, cluster_dim=(0, 1), convert_to="mlprogram"),
        SpecError, r"cluster_dim is \(0, 1\); with mean_bits it is a choice"),
    "lengths of a network": (
        run((2, 4), "kmeans", SAMPLES, mean_bits=3, cluster_dim=(1, 2)),
        SpecError, r"cluster_dim=\(1, 2\) is for ML Programs"),
    "lengths in another mode": (
        run((2, 4), "linear", SAMPLES, mean_bits=3, cluster_dim=(1, 2), convert_to="mlprogram"),
        SpecError, "write quantization_mode='kmeans'"),
    "bits that programs have not": (
        run((2, 5), "kmeans", SAMPLES, mean_bits=2, cluster_dim=2, convert_to="mlprogram"),
        SpecError, "nbits is 5"),
    "above all vectors": (
        run((2, 4), "kmeans", SAMPLES, mean_bits=4, cluster_dim=2, convert_to="mlprogram"),
        SpecError, r"cluster_dim=2 it is a number from 1 to 2"),
    "tables above the mean": (
        run((6, 8), "kmeans", SAMPLES, mean_bits=3, cluster_dim=2, convert_to="mlprogram"),
        SpecError, r"6 bits for 2 values.* take 3\.\d+ bits a weight with their tables"),
    "no block": (
        run((2, 4), "kmeans", SAMPLES, mean_bits=3, block_size=(-1, 4), convert_to="mlprogram",
            granularity="per_block"),
        SpecError, r"block_size is \(-1, 4\); with mean_bits it is a choice"),
    "several groups": (
        run((2, 4), "kmeans", SAMPLES, mean_bits=3, group_size=(4, 8), convert_to="mlprogram",
            granularity="per_grouped_channel"),
        SpecError, r"group_size is \(4, 8\); several go with granularity='per_block'"),
    "blocks in another mode": (
        run((4, 8), "linear", SAMPLES, mean_bits=5, block_size=(4, 8), convert_to="mlprogram",
            granularity="per_block"),
        SpecError, r"block_size is \(4, 8\); several go with .*mode 'kmeans'"),
    "several blocks without a granularity": (
        run((2, 4), "kmeans", SAMPLES, mean_bits=3, block_size=(4, 8)),
        SpecError, r"block_size is \(4, 8\); several go with granularity='per_block'"),
    "blocks of a network": (
        run((2, 4), "kmeans", SAMPLES, mean_bits=3, granularity="per_block"),
        SpecError, "granularity='per_block' is for ML Programs"),
    "words": (run((2, "a"), "kmeans", SAMPLES, mean_bits=3), SpecError, "it is a choice"),
    "below": (run((2, 4), "kmeans", SAMPLES, mean_bits=1), SpecError, "a number from 2 to 4"),
    "no number": (run((2, 4), "kmeans", SAMPLES, mean_bits=True), SpecError, "a number from 2"),
    "bits": (run((2, 9), "kmeans", SAMPLES, mean_bits=4), SpecError, "nbits is 9"),
    "no samples": (run((2, 4), "kmeans", mean_bits=3), SpecError, "needs sample_data"),
    "one sample": (
        run((2, 4), "kmeans", SAMPLES[:1], mean_bits=3), PredictionError, "two samples"),
    "mode": (
        run((2, 4), "dequantization", SAMPLES, mean_bits=3), SpecError, "one of the modes"),
    "pipeline": (
        run((2, 4), "kmeans", SAMPLES, mean_bits=3, model=make_pipeline(NETWORK, squares())),
        UnsupportedModelError, "one by one"),
    "program": (
        run((2, 4), "kmeans", SAMPLES, mean_bits=3, model=mlferry.to_program(NETWORK)),
        UnsupportedModelError, "convert_to='mlprogram'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name: str) -> None:
    make, kind, words = WRONG[name]
    with pytest.raises(kind, match=words):
        make()
