"""`mlferry.optimize.coreml` beside coremltools' functions on the same packages."""

from __future__ import annotations

import copy
import io
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import MissingDependencyError, SpecError
from mlferry.optimize import coreml as ours
from tests.exporters.program.support import checked, kinds
from tests.models.test_program_quantization import GIVEN, NETWORK, PROGRAMS, _at_opset_8, weights_of
from tests.oracles import oracle

ct = oracle("coremltools")
theirs = ct.optimize.coreml

Array = np.ndarray[Any, Any]
Made = dict[str, Array]


def both(
    folder: Path, program: mlferry.MLModel, steps: list[tuple[str, dict[str, Any], bool]]
) -> tuple[mlferry.MLModel, mlferry.MLModel]:
    """A program compressed by mlferry and by coremltools: functions with their configurations."""
    path = program.save(folder / "net.mlpackage")
    other = ct.models.MLModel(str(path), skip_model_load=True)
    for function, config, joint in steps:
        own = ours.OptimizationConfig.from_dict(copy.deepcopy(config))
        program = getattr(ours, function)(program, own, joint_compression=joint)
        inputs = theirs.OptimizationConfig.from_dict(copy.deepcopy(config))
        other = getattr(theirs, function)(other, inputs, joint_compression=joint)
    other.save(str(folder / "theirs.mlpackage"))
    return checked(program), mlferry.MLModel(folder / "theirs.mlpackage")


def linear(**options: Any) -> tuple[str, dict[str, Any], bool]:
    config = {"config_type": "OpLinearQuantizerConfig", "global_config": options}
    return "linear_quantize_weights", config, False


def table(**options: Any) -> tuple[str, dict[str, Any], bool]:
    config = {"config_type": "OpPalettizerConfig", "global_config": options}
    return "palettize_weights", config, False


def largest(**options: Any) -> tuple[str, dict[str, Any], bool]:
    config = {"config_type": "OpMagnitudePrunerConfig", "global_config": options}
    return "prune_weights", config, False


def above(**options: Any) -> tuple[str, dict[str, Any], bool]:
    config = {"config_type": "OpThresholdPrunerConfig", "global_config": options}
    return "prune_weights", config, False


def joint(step: tuple[str, dict[str, Any], bool]) -> tuple[str, dict[str, Any], bool]:
    return (*step[:2], True)


MIXED = {
    "config_type": "OpPalettizerConfig",
    "global_config": {"mode": "uniform", "nbits": 4},
    "op_type_configs": {"conv_transpose": None, "conv": {"mode": "uniform", "nbits": 6}},
    "op_name_configs": {"d": {"mode": "uniform", "nbits": 2}},
}
# Steps, whether they need CoreML8, and how near decoded weights are: as a part of the largest
# value, or None where those of mlferry have no larger squared error.
CASES: dict[str, tuple[list[tuple[str, dict[str, Any], bool]], bool, float | None]] = {
    "default": ([linear()], False, 1e-3),
    "asymmetric": ([linear(mode="linear", dtype="int8")], False, 1e-3),
    "asymmetric, unsigned": ([linear(mode="linear", dtype="uint8")], False, 1e-3),
    "symmetric, unsigned": ([linear(dtype="uint8")], False, 1e-3),
    "one scale": ([linear(granularity="per_tensor")], False, 1e-3),
    "int4": ([linear(dtype="int4")], True, 1e-3),
    "uint4, asymmetric": ([linear(dtype="uint4", mode="linear")], True, 1e-3),
    "blocks": ([linear(dtype="int4", granularity="per_block", block_size=8)], True, 1e-3),
    "blocks that do not divide": (
        [linear(dtype="int8", granularity="per_block", block_size=32)], True, 1e-3),
    "kmeans": ([table(nbits=4)], False, None),
    "uniform": ([table(mode="uniform", nbits=6)], False, 1e-3),
    "groups": ([table(nbits=2, granularity="per_grouped_channel", group_size=4)], True, None),
    "groups of another axis": (
        [table(mode="uniform", nbits=3, granularity="per_grouped_channel", group_size=8,
               channel_axis=1)], True, 1e-3),
    "groups that do not divide": (
        [table(mode="uniform", nbits=3, granularity="per_grouped_channel", group_size=16)],
        True, 1e-3),
    "vectors": ([table(nbits=4, cluster_dim=2)], True, None),
    "vectors, 8 bits": ([table(nbits=8, cluster_dim=4)], True, None),
    "vectors, 1 bit": ([table(nbits=1, cluster_dim=2)], True, None),
    "vectors in groups of another axis": (
        [table(nbits=3, granularity="per_grouped_channel", group_size=8, channel_axis=1,
               cluster_dim=4)], True, None),
    "vectors that do not divide": ([table(nbits=2, cluster_dim=64)], True, None),
    "vectors, then again": (
        [table(nbits=2, cluster_dim=2), ("decompress_weights", {}, False),
         table(mode="unique", cluster_dim=2)], True, 0),
    "scales beside a table": (
        [table(mode="uniform", nbits=6, enable_per_channel_scale=True)], True, 2e-3),
    "scales beside tables of k-means": (
        [table(nbits=4, enable_per_channel_scale=True, granularity="per_grouped_channel",
               group_size=8)], True, None),
    "a table of 3 bits": ([table(mode="uniform", nbits=3)], True, 1e-3),
    "levels": ([("palettize_weights", MIXED, False)], False, 1e-3),
    "threshold of size": ([table(mode="uniform", nbits=4, weight_threshold=4500)], False, 1e-3),
    "unique after uniform": ([table(mode="uniform", nbits=4), ("decompress_weights", {}, False),
                              table(mode="unique")], False, 0),
    "half pruned": ([largest(target_sparsity=0.5)], False, 0),
    "mostly pruned": ([largest(target_sparsity=0.9)], False, 0),
    "pruned by a threshold": ([above(threshold=0.9)], False, 0),
    "pruned too little": ([above(threshold=0.1)], False, 0),
    "pruned in blocks": ([largest(target_sparsity=0.5, block_size=4)], False, 0),
    "pruned in blocks of inputs": ([largest(target_sparsity=0.25, block_size=2, dim=1)], False, 0),
    "n of m": ([largest(n_m_ratio=[2, 4])], False, 0),
    "n of m outputs": ([largest(n_m_ratio=[1, 3], dim=0)], False, 0),
    "pruned, then a table": (
        [largest(target_sparsity=0.5), joint(table(nbits=4))], True, None),
    "pruned, then codes": ([largest(target_sparsity=0.5), joint(linear())], True, 1e-3),
    "a table, then codes": (
        [table(mode="uniform", nbits=4), joint(linear(granularity="per_tensor"))], True, 2e-3),
    "codes, then pruned": ([linear(), joint(largest(target_sparsity=0.5))], True, 1e-3),
    "compressed weights stay": ([table(mode="uniform", nbits=4), linear()], False, 1e-3),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_beside_coremltools(name: str, tmp_path: Path) -> None:
    steps, newer, near = CASES[name]
    program = PROGRAMS["float32"]
    if newer:
        program = mlferry.MLModel(_at_opset_8(tmp_path))
    if ("decompress_weights", {}, False) in steps:
        program = ours.decompress_weights(
            ours.palettize_weights(program, ours.OptimizationConfig.from_dict(steps[0][1]))
        )
        steps = steps[-1:]
    mine, other = both(tmp_path, program, steps)
    stored = [sorted(op for op in kinds(each.spec) if "constexpr_" in op) for each in (mine, other)]
    assert stored[0] == stored[1]
    again = mlferry.MLModel(mine.save(tmp_path / "again.mlpackage"), engine="onnxruntime")
    actual, by_graph = mine.predict(GIVEN), again.predict(GIVEN)
    for key, array in actual.items():
        np.testing.assert_allclose(by_graph[key], array, 1e-3, 1e-4 * np.abs(array).max())
    before, after, right = weights_of(program), weights_of(mine), weights_of(other)
    assert after.keys() == right.keys()
    for key, array in before.items():
        if near is None:
            errors = [np.square(each[key] - array).sum() for each in (after, right)]
            assert errors[0] <= errors[1] * (1 + 1e-4), key
        else:
            difference = np.abs(after[key] - right[key])
            # Of values between two steps either is right.
            assert (difference > near * np.abs(array).max()).mean() <= (0.002 if near else 0), key


def test_scales_beside_tables_of_vectors() -> None:
    """coremltools' own writer fails on these; the definition is computed here."""
    program = PROGRAMS["float32"]
    config = ours.OpPalettizerConfig(nbits=6, cluster_dim=2, enable_per_channel_scale=True)
    small = checked(ours.palettize_weights(program, ours.OptimizationConfig(config)))
    before, after = weights_of(program), weights_of(small)
    for name, axis in (("c", 0), ("t", 1), ("d", 0)):
        scale = np.abs(before[name]).max(axis=axis, keepdims=True)
        lines = np.moveaxis(after[name] / scale, axis, 0)
        pairs = np.stack([lines[0::2].ravel(), lines[1::2].ravel()], axis=1)
        assert len(np.unique(pairs.round(4), axis=0)) == 64
        assert np.abs(after[name] - before[name]).mean() < 0.2 * np.abs(before[name]).mean()
    facts = small.describe(against=program).compressed
    assert {each.scheme for each in facts} >= {
        "6-bit table of vectors of 2, scales, blocks of 32 x 1 x 1 x 1"
    }
    back = ours.linear_quantize_weights(
        small, ours.OptimizationConfig(ours.OpLinearQuantizerConfig(granularity="per_tensor")), True
    )
    actual, expected = checked(back).predict(GIVEN), small.predict(GIVEN)
    for key, array in expected.items():
        np.testing.assert_allclose(actual[key], array, atol=0.03 * np.abs(array).max())


def test_half_precision(tmp_path: Path) -> None:
    mine, other = both(tmp_path, PROGRAMS["float16"], [linear(mode="linear")])
    for key, array in weights_of(other).items():
        np.testing.assert_allclose(weights_of(mine)[key], array, atol=0.02 * np.abs(array).max())


def test_custom_table(tmp_path: Path) -> None:
    def signs(weight: Array) -> tuple[list[float], Array]:
        return [-1.0, 0.0, 1.0, 2.0], (np.sign(weight.flatten()) + 1).astype(np.uint8)

    path = PROGRAMS["float32"].save(tmp_path / "net.mlpackage")
    mine = ours.palettize_weights(
        str(path),
        ours.OptimizationConfig(ours.OpPalettizerConfig(mode="custom", lut_function=signs)),
    )
    for key, array in weights_of(PROGRAMS["float32"]).items():
        np.testing.assert_array_equal(weights_of(checked(mine))[key], np.sign(array))


def test_opsets_are_raised() -> None:
    config = ours.OptimizationConfig(ours.OpLinearQuantizerConfig(dtype="int4"))
    small = ours.linear_quantize_weights(PROGRAMS["float16"], config)
    assert small.spec.specificationVersion == 9
    back = ours.decompress_weights(small)
    assert not [op for op in kinds(back.spec) if op.startswith("constexpr_")]


def test_metadata(tmp_path: Path) -> None:
    program = mlferry.prune_weights(PROGRAMS["float32"], sparsity=0.5)
    program = ours.decompress_weights(program)
    path = program.save(tmp_path / "net.mlpackage")
    right = theirs.get_weights_metadata(ct.models.MLModel(str(path), skip_model_load=True), 3000)
    actual = ours.get_weights_metadata(path, 3000)
    assert [*actual] == [*right] or {*actual} == {*right}
    for name, weight in right.items():
        mine = actual[name]
        np.testing.assert_array_equal(mine.val, weight.val)
        assert mine.sparsity == pytest.approx(weight.sparsity)
        assert mine.unique_values == weight.unique_values
        assert [str(each) for each in mine.child_ops] == [str(each) for each in weight.child_ops]
        assert name in str(actual)
    decoded = ours.get_weights_metadata(mlferry.quantize_weights(program, 2, "kmeans"))
    assert {weight.unique_values for weight in decoded.values()} == {4}


TEXT = """
config_type: OpPalettizerConfig
global_config:
  mode: kmeans
  nbits: 4
op_type_configs:
  conv:
    mode: uniform
    nbits: 1
op_name_configs:
  d: null
"""


@pytest.mark.parametrize("form", ["path", "text of a path", "open file"])
def test_yaml(form: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(TEXT)
    inputs: Any = {"path": path, "text of a path": str(path), "open file": io.StringIO(TEXT)}[form]
    result = ours.OptimizationConfig.from_yaml(inputs)
    assert result == ours.OptimizationConfig(
        ours.OpPalettizerConfig(nbits=4),
        {"conv": ours.OpPalettizerConfig(mode="uniform", nbits=1)},
        {"d": None},
    )


def test_without_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mlferry\[yaml\]'"):
        ours.OptimizationConfig.from_yaml(io.StringIO(TEXT))


def test_what_stays_is_told(caplog: pytest.LogCaptureFixture) -> None:
    config = ours.OptimizationConfig(
        ours.OpLinearQuantizerConfig(dtype="int4", granularity="per_block", block_size=32)
    )
    with caplog.at_level(logging.WARNING):
        ours.linear_quantize_weights(PROGRAMS["float32"], config)
    assert (
        "'c_conv' stays as it is: blocks of [1, 32, 0, 0] do not divide [32, 16, 3, 3]"
        in caplog.text
    )


def a_config(**levels: Any) -> ours.OptimizationConfig:
    return ours.OptimizationConfig(**levels)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "mode": (lambda: ours.OpPalettizerConfig(mode="means", nbits=4), "possible are kmeans"),
    "bits": (lambda: ours.OpPalettizerConfig(nbits=5), "is 5; possible are 1, 2, 3, 4, 6, 8"),
    "no bits": (ours.OpPalettizerConfig, "nbits of mode 'kmeans' is None"),
    "bits of unique": (lambda: ours.OpPalettizerConfig("unique", 4), "finds it by itself"),
    "no function": (lambda: ours.OpPalettizerConfig("custom"), "takes lut_function"),
    "vectors": (lambda: ours.OpPalettizerConfig(nbits=4, cluster_dim=0), "cluster_dim is 0"),
    "even vectors": (
        lambda: ours.OpPalettizerConfig("uniform", 4, cluster_dim=2), "kmeans and unique have"),
    "scales": (
        lambda: ours.OpPalettizerConfig(nbits=4, enable_per_channel_scale=2), "True or False"),
    "granularity": (
        lambda: ours.OpPalettizerConfig(nbits=4, granularity="per_block"), "per_grouped_channel"),
    "dtype": (lambda: ours.OpLinearQuantizerConfig(dtype=np.int16), "possible are int8, uint8"),
    "block": (lambda: ours.OpLinearQuantizerConfig(block_size=-1), "number of inputs"),
    "threshold": (lambda: ours.OpThresholdPrunerConfig(threshold=-1.0), "threshold is -1"),
    "two": (
        lambda: ours.OpMagnitudePrunerConfig(target_sparsity=0.5, n_m_ratio=(1, 2)), "one of"),
    "none": (ours.OpMagnitudePrunerConfig, "one of target_sparsity=0.5"),
    "ratio": (lambda: ours.OpMagnitudePrunerConfig(n_m_ratio=(3, 2)), "n not above m"),
    "dim": (lambda: ours.OpMagnitudePrunerConfig(target_sparsity=0.5, dim=1), "dim goes with"),
    "structured": (
        lambda: a_config(
            op_type_configs={"gather": ours.OpMagnitudePrunerConfig(n_m_ratio=(1, 2))}),
        "not of 'gather'"),
    "no config": (lambda: a_config(global_config=4), "global_config is a int"),
    "key": (lambda: ours.OptimizationConfig.from_dict({"config_typ": 1}), "mean 'config_type'"),
    "no type": (lambda: ours.OptimizationConfig.from_dict({}), "config_type is missing"),
    "type": (
        lambda: ours.OptimizationConfig.from_dict(
            {"config_type": "OpPalettizerConfi", "global_config": {}}),
        "mean 'OpPalettizerConfig'"),
    "parameter": (
        lambda: ours.OptimizationConfig.from_dict(
            {"config_type": "OpPalettizerConfig", "global_config": {"nbit": 4}}),
        "no parameter 'nbit' in a dict. Did you mean 'nbits'"),
    "kind": (
        lambda: ours.prune_weights(
            PROGRAMS["float32"], a_config(global_config=ours.OpPalettizerConfig(nbits=4))),
        "OpThresholdPrunerConfig and OpMagnitudePrunerConfig, not OpPalettizerConfig"),
    "network": (
        lambda: ours.palettize_weights(NETWORK, a_config()), r"mlferry.to_program\(model\)"),
    "extents": (
        lambda: ours.linear_quantize_weights(
            PROGRAMS["float32"],
            a_config(global_config=ours.OpLinearQuantizerConfig(
                granularity="per_block", block_size=(1, 4)))),
        "write block_size=32"),
    "not YAML": (lambda: ours.OptimizationConfig.from_yaml(io.StringIO("a: [")), "not YAML"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_configurations(name: str) -> None:
    run, words = WRONG[name]
    with pytest.raises(SpecError, match=words):
        run()
