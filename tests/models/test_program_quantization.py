"""ML Programs in fewer bits: every scheme, decoded by coremltools as well, and pruning."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.cli import main
from mlferry.errors import SpecError, UnsupportedModelError
from mlferry.exporters.program import ProgramOptions, to_program
from mlferry.layers.builder import Builder
from mlferry.models.quantization import but, by_kind, by_name
from mlferry.models.utils import make_pipeline
from mlferry.programs.graph import constant
from mlferry.programs.passes.opset import raise_opset
from mlferry.programs.reading import read_function
from mlferry.programs.sites import sites
from mlferry.programs.types import TensorType
from mlferry.spec import features
from tests.exporters.program.support import checked, kinds, read_by_coremltools
from tests.oracles import oracle

ct = oracle("coremltools")

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(11)
MATRICES = {"c": (32, 16, 3, 3), "t": (32, 16, 3, 3), "d": (256, 16), "e": (100, 64)}


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def network() -> mlferry.MLModel:
    """A convolution, a transposed one, a product and an embedding."""
    b = Builder()
    b.input("x", (1, 16, 8, 8))
    b.input("i", (4, 1), features.multi_array((4, 1), "int32"))
    window = {"stride": (1, 1), "dilationFactor": (1, 1), "nGroups": 1, "valid": {}}
    b.layer(
        "convolution", "c", ["x"], ["c"], outputChannels=32, kernelChannels=16, kernelSize=(3, 3),
        hasBias=True, weights=normal(32, 16, 3, 3), bias=normal(32), **window,
    )  # fmt: skip
    b.layer(
        "convolution", "t", ["c"], ["t"], outputChannels=16, kernelChannels=32, kernelSize=(3, 3),
        isDeconvolution=True, weights=normal(32, 16, 3, 3), **window,
    )  # fmt: skip
    b.layer("pooling", "p", ["t"], ["p"], type="AVERAGE", globalPooling=True, valid={})
    b.layer("squeeze", "s", ["p"], ["s"], axes=(2, 3))
    b.layer(
        "innerProduct", "d", ["s"], ["d"], inputChannels=16, outputChannels=256, hasBias=True,
        weights=normal(256, 16), bias=normal(256),
    )  # fmt: skip
    b.layer("embeddingND", "e", ["i"], ["e"], vocabSize=100, embeddingSize=64,
            weights=normal(64, 100))  # fmt: skip
    b.output("d")
    b.output("e")
    return mlferry.MLModel(b.model())


NETWORK = network()
GIVEN = {"x": normal(1, 16, 8, 8), "i": np.array([[0], [5], [99], [7]], np.int32)}
PROGRAMS = {
    precision: mlferry.to_program(NETWORK, compute_precision=precision)
    for precision in ("float32", "float16")
}


def weights_of(model: mlferry.MLModel) -> dict[str, Array]:
    """The matrices of a program by the first letter of what they are for."""
    block, opset = read_function(model.spec.mlProgram.functions["main"], model.program_weights)
    matches = [site for site in sites(block, opset) if site.is_matrix]
    return {site.name[0]: site.array for site in matches}


# Scheme, the specification version that it needs, the op, and how many steps of the weight's range
# an error has at most; None where it is a table, which is compared with coremltools' own.
SCHEMES: dict[str, tuple[dict[str, Any], int, str, float | None]] = {
    "8 bits": ({"nbits": 8}, 7, "constexpr_affine_dequantize", 255),
    "8 bits, one scale": (
        {"nbits": 8, "granularity": "per_tensor"}, 7, "constexpr_affine_dequantize", 255),
    "8 bits, symmetric": (
        {"nbits": 8, "quantization_mode": "linear_symmetric"}, 7,
        "constexpr_affine_dequantize", 254),
    "4 bits": ({"nbits": 4}, 9, "constexpr_blockwise_shift_scale", 15),
    "4 bits, symmetric, blocks": (
        {"nbits": 4, "quantization_mode": "linear_symmetric", "granularity": "per_block",
         "block_size": 8}, 9, "constexpr_blockwise_shift_scale", 14),
    "8 bits, blocks": (
        {"nbits": 8, "granularity": "per_block", "block_size": 4}, 9,
        "constexpr_blockwise_shift_scale", 255),
    "table of 1 bit": (
        {"nbits": 1, "quantization_mode": "kmeans"}, 7, "constexpr_lut_to_dense", None),
    "table of 2 bits": (
        {"nbits": 2, "quantization_mode": "kmeans"}, 7, "constexpr_lut_to_dense", None),
    "table of 3 bits": (
        {"nbits": 3, "quantization_mode": "kmeans"}, 9, "constexpr_lut_to_dense", None),
    "table of 4 bits": (
        {"nbits": 4, "quantization_mode": "kmeans"}, 7, "constexpr_lut_to_dense", None),
    "table of 6 bits": (
        {"nbits": 6, "quantization_mode": "kmeans"}, 7, "constexpr_lut_to_dense", None),
    "even table of 8 bits": (
        {"nbits": 8, "quantization_mode": "linear_lut"}, 7, "constexpr_lut_to_dense", 255),
    "tables for groups": (
        {"nbits": 4, "quantization_mode": "kmeans", "granularity": "per_grouped_channel",
         "group_size": 4}, 9, "constexpr_lut_to_dense", None),
    "table of vectors": (
        {"nbits": 4, "quantization_mode": "kmeans", "cluster_dim": 2}, 9,
        "constexpr_lut_to_dense", None),
    "tables of vectors for groups": (
        {"nbits": 6, "quantization_mode": "kmeans", "granularity": "per_grouped_channel",
         "group_size": 4, "cluster_dim": 2}, 9, "constexpr_lut_to_dense", None),
    "tables for blocks": (
        {"nbits": 3, "quantization_mode": "kmeans", "granularity": "per_block", "group_size": 4,
         "block_size": 8}, 9, "constexpr_lut_to_dense", None),
    "tables of vectors for inputs": (
        {"nbits": 4, "quantization_mode": "kmeans", "granularity": "per_block", "group_size": 0,
         "block_size": 8, "cluster_dim": 2}, 9, "constexpr_lut_to_dense", None),
    "tables for channels": (
        {"nbits": 2, "quantization_mode": "kmeans", "granularity": "per_channel"}, 9,
        "constexpr_lut_to_dense", None),
}  # fmt: skip


@pytest.mark.parametrize("precision", PROGRAMS)
@pytest.mark.parametrize("name", SCHEMES)
def test_scheme(name: str, precision: str, tmp_path: Path) -> None:
    options, version, op, steps = SCHEMES[name]
    program = PROGRAMS[precision]
    small = checked(mlferry.quantize_weights(program, **options))
    assert small.spec.specificationVersion == version
    stored = [kind for kind in kinds(small.spec) if kind.startswith("constexpr_")]
    assert stored == [op] * len(MATRICES)
    before, after = weights_of(program), weights_of(small)
    assert {key: array.shape for key, array in after.items()} == MATRICES
    if steps is not None:
        for key, array in before.items():
            symmetric = "symmetric" in name
            span = 2 * np.abs(array).max() if symmetric else np.ptp(np.append(array, 0))
            largest = 0.5 * span / steps + 2e-3 * np.abs(array).max()
            assert np.abs(after[key] - array).max() <= largest
    _same_by_coremltools(small, after, tmp_path)
    again = mlferry.MLModel(small.save(tmp_path / "again.mlpackage"), engine="onnxruntime")
    actual, other = small.predict(GIVEN), again.predict(GIVEN)
    for key, right in actual.items():
        np.testing.assert_allclose(other[key], right, rtol=1e-2, atol=1e-2 * np.abs(right).max())


def _same_by_coremltools(model: mlferry.MLModel, ours: Mapping[str, Array], folder: Path) -> None:
    """What coremltools decodes of each constant is what we do."""
    from coremltools.converters.mil.frontend.milproto import load

    path = model.save(folder / "small.mlpackage")
    spec = ct.utils.load_spec(str(path))
    program = load.load(
        spec, spec.specificationVersion, str(path / "Data/com.apple.CoreML/weights")
    )
    results = {}
    for op in program.functions["main"].operations:
        if op.op_type.startswith("constexpr_"):
            results[op.outputs[0].child_ops[0].outputs[0].name[0]] = op.materialized_val_inference()
    assert results.keys() == ours.keys()
    for key, array in results.items():
        np.testing.assert_array_equal(np.asarray(array, np.float32), ours[key])


@pytest.mark.parametrize("precision", PROGRAMS)
@pytest.mark.parametrize("name", SCHEMES)
def test_back(name: str, precision: str) -> None:
    small = mlferry.quantize_weights(PROGRAMS[precision], **SCHEMES[name][0])
    back = checked(mlferry.quantize_weights(small, 8, "dequantization"))
    assert not [kind for kind in kinds(back.spec) if kind.startswith("constexpr_")]
    for key, array in weights_of(small).items():
        np.testing.assert_array_equal(weights_of(back)[key], array)


PALETTES = {"table of 2 bits": {"nbits": 2}, "table of 4 bits": {"nbits": 4},
            "tables for groups": {"nbits": 4, "granularity": "per_grouped_channel",
                                  "group_size": 4}}  # fmt: skip


@pytest.mark.parametrize("name", PALETTES)
def test_no_table_is_worse_than_that_of_coremltools(name: str, tmp_path: Path) -> None:
    path = PROGRAMS["float32"].save(tmp_path / "net.mlpackage")
    theirs = ct.models.MLModel(str(path), skip_model_load=True)
    coreml = ct.optimize.coreml
    config = coreml.OptimizationConfig(coreml.OpPalettizerConfig(mode="kmeans", **PALETTES[name]))
    if "granularity" in PALETTES[name]:
        theirs = ct.models.MLModel(str(_at_opset_8(tmp_path)), skip_model_load=True)
    coreml.palettize_weights(theirs, config).save(str(tmp_path / "theirs.mlpackage"))
    right = weights_of(PROGRAMS["float32"])
    other = weights_of(mlferry.MLModel(tmp_path / "theirs.mlpackage"))
    ours = weights_of(mlferry.quantize_weights(PROGRAMS["float32"], **SCHEMES[name][0]))
    for key, array in right.items():
        mine, yours = (np.square(each[key] - array).sum() for each in (ours, other))
        assert mine <= yours * (1 + 1e-4), key


def _at_opset_8(folder: Path) -> Path:
    """The program in an opset that coremltools' groups need."""
    spec, weights = to_program(NETWORK.spec, ProgramOptions(half=False, at_least=8))
    return NETWORK.with_spec(spec, weights=weights).save(folder / "newer.mlpackage")


# ---- joint compression --------------------------------------------------------------------------

FURTHER = {"joint_compression": True}
# The steps, the ops that make a constant, and the weight's scheme without what was before.
JOINT: dict[str, tuple[list[dict[str, Any]], tuple[str, ...]]] = {
    "pruned, then a table": (
        [{"sparsity": 0.75}, {"nbits": 4, "quantization_mode": "kmeans", **FURTHER}],
        ("constexpr_lut_to_sparse", "constexpr_sparse_to_dense")),
    "pruned, then tables for groups": (
        [{"sparsity": 0.5}, {"nbits": 2, "quantization_mode": "kmeans", "group_size": 4,
                             "granularity": "per_grouped_channel", **FURTHER}],
        ("constexpr_lut_to_sparse", "constexpr_sparse_to_dense")),
    "pruned, then codes": (
        [{"sparsity": 0.6}, {"nbits": 8, "quantization_mode": "linear_symmetric", **FURTHER}],
        ("constexpr_sparse_blockwise_shift_scale", "constexpr_sparse_to_dense")),
    "pruned, then codes of blocks": (
        [{"n_m_ratio": (2, 4)}, {"nbits": 4, "granularity": "per_block", "block_size": 8,
                                 **FURTHER}],
        ("constexpr_sparse_blockwise_shift_scale", "constexpr_sparse_to_dense")),
    "a table, quantized": (
        [{"nbits": 4, "quantization_mode": "kmeans"},
         {"nbits": 8, "quantization_mode": "linear_symmetric", "granularity": "per_tensor",
          **FURTHER}],
        ("constexpr_blockwise_shift_scale", "constexpr_lut_to_dense")),
    "tables for groups, quantized": (
        [{"nbits": 6, "quantization_mode": "kmeans", "granularity": "per_grouped_channel",
          "group_size": 4}, {"nbits": 8, **FURTHER}],
        ("constexpr_blockwise_shift_scale", "constexpr_lut_to_dense")),
    "pruned, then a table, quantized": (
        [{"sparsity": 0.5}, {"nbits": 6, "quantization_mode": "kmeans", **FURTHER},
         {"nbits": 8, **FURTHER}],
        ("constexpr_blockwise_shift_scale", "constexpr_lut_to_sparse",
         "constexpr_sparse_to_dense")),
    "a table, then pruned": (
        [{"nbits": 8, "quantization_mode": "kmeans"}, {"sparsity": 0.5, **FURTHER}],
        ("constexpr_lut_to_sparse", "constexpr_sparse_to_dense")),
    "a quantized table, then pruned": (
        [{"nbits": 3, "quantization_mode": "kmeans"}, {"nbits": 8, **FURTHER},
         {"sparsity": 0.5, **FURTHER}],
        ("constexpr_blockwise_shift_scale", "constexpr_lut_to_sparse",
         "constexpr_sparse_to_dense")),
    "codes, then pruned": (
        [{"nbits": 8}, {"sparsity": 0.5, **FURTHER}],
        ("constexpr_sparse_blockwise_shift_scale", "constexpr_sparse_to_dense")),
}  # fmt: skip


def step(model: mlferry.MLModel, options: Mapping[str, Any]) -> mlferry.MLModel:
    if "nbits" in options:
        return mlferry.quantize_weights(model, **options)
    return mlferry.prune_weights(model, **options)


@pytest.mark.parametrize("precision", PROGRAMS)
@pytest.mark.parametrize("name", JOINT)
def test_joint(name: str, precision: str, tmp_path: Path) -> None:
    steps, ops = JOINT[name]
    program = PROGRAMS[precision]
    stages = [program]
    for options in steps:
        stages.append(step(stages[-1], options))
    small = checked(stages[-1])
    assert small.spec.specificationVersion == 9
    assert [op for op in kinds(small.spec) if op in ops] == [*ops] * len(MATRICES)
    before, after = weights_of(stages[-2]), weights_of(small)
    for key, array in after.items():
        zeros = before[key] == 0
        pruning = "sparsity" in steps[-1]
        assert (array == 0).mean() >= (steps[-1]["sparsity"] if pruning else zeros.mean())
        assert (array[zeros] == 0).all()
        kept = array != 0
        if pruning:
            np.testing.assert_array_equal(array[kept], before[key][kept])
        else:
            levels = 2 ** steps[-1]["nbits"] - 2
            span = 2 * np.abs(before[key]).max()
            limit = 0.5 * span / levels if steps[-1].get("quantization_mode") != "kmeans" else span
            assert np.abs(array - before[key]).max() <= 1.01 * limit + 1e-3 * span
    path = small.save(tmp_path / "small.mlpackage")
    theirs = ct.optimize.coreml.decompress_weights(
        ct.models.MLModel(str(path), skip_model_load=True)
    )
    theirs.save(str(tmp_path / "theirs.mlpackage"))
    for key, array in weights_of(mlferry.MLModel(tmp_path / "theirs.mlpackage")).items():
        np.testing.assert_array_equal(array, after[key])
    back = checked(mlferry.quantize_weights(small, 8, "dequantization"))
    assert not [op for op in kinds(back.spec) if op.startswith("constexpr_")]
    for key, array in weights_of(back).items():
        np.testing.assert_array_equal(array, after[key])
    actual, plain = small.predict(GIVEN), back.predict(GIVEN)
    again = mlferry.MLModel(small.save(tmp_path / "again.mlpackage"), engine="onnxruntime")
    other = again.predict(GIVEN)
    for key, right in plain.items():
        largest = np.abs(right).max()
        np.testing.assert_allclose(actual[key], right, rtol=1e-3, atol=1e-3 * largest)
        np.testing.assert_allclose(other[key], right, rtol=1e-2, atol=1e-2 * largest)


def test_what_is_left_of_pruned_weights_has_the_table_to_itself() -> None:
    pruned = mlferry.prune_weights(PROGRAMS["float32"], sparsity=0.5)
    options = {"nbits": 2, "quantization_mode": "kmeans"}
    joint = weights_of(mlferry.quantize_weights(pruned, **options, **FURTHER))
    anew = weights_of(mlferry.quantize_weights(pruned, **options))
    for key, array in weights_of(pruned).items():
        assert len(np.unique(joint[key][array != 0])) == 4
        mine, other = (np.square(each[key] - array).sum() for each in (joint, anew))
        assert mine < 0.6 * other


NOT_TWICE: dict[str, tuple[list[dict[str, Any]], str]] = {
    "a table in a table": (
        [{"nbits": 4, "quantization_mode": "kmeans"},
         {"nbits": 4, "quantization_mode": "kmeans", **FURTHER}],
        "it is in a table already; joint_compression=False stores it anew"),
    "codes in codes": ([{"nbits": 8}, {"nbits": 4, **FURTHER}], "it is in codes with scales"),
    "a quantized table": (
        [{"nbits": 4, "quantization_mode": "kmeans"}, {"nbits": 8, **FURTHER},
         {"nbits": 8, **FURTHER}], "it is in a quantized table already"),
    "blocks of a table": (
        [{"nbits": 4, "quantization_mode": "kmeans"},
         {"nbits": 8, "granularity": "per_block", **FURTHER}],
        "a table has granularity='per_tensor', or 'per_channel'"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_TWICE)
def test_what_cannot_be_compressed_further(name: str) -> None:
    steps, words = NOT_TWICE[name]
    model = PROGRAMS["float32"]
    for options in steps[:-1]:
        model = step(model, options)
    with pytest.raises(SpecError, match=words):
        step(model, steps[-1])


def test_joint_compression_in_a_shell(tmp_path: Path) -> None:
    names = [str(tmp_path / f"{name}.mlpackage") for name in "abc"]
    PROGRAMS["float16"].save(names[0])
    for words in (
        ["prune", *names[:1], "-o", names[1], "--sparsity", "0.5"],
        ["quantize", names[1], "-o", names[2], "--bits", "4", "--mode", "kmeans", "--joint"],
    ):
        assert main(words) == 0
    assert "constexpr_lut_to_sparse" in kinds(mlferry.MLModel(names[2]).spec)


def test_joint_compression_is_for_programs() -> None:
    with pytest.raises(SpecError, match="convert_to='mlprogram'"):
        mlferry.quantize_weights(NETWORK, 8, joint_compression=True)


# ---- with sample data ----------------------------------------------------------------------------


def samples(count: int) -> list[dict[str, Array]]:
    """Channels that go together, as those of real models do."""
    mixed = RNG.normal(size=(16, 16)) * 0.9 ** np.arange(16)
    return [
        {
            "x": np.einsum("oi,nihw->nohw", mixed, RNG.normal(size=(1, 16, 8, 8))).astype("f"),
            "i": RNG.integers(0, 100, (4, 1)).astype(np.int32),
        }
        for _ in range(count)
    ]


@pytest.mark.parametrize("granularity", ["per_grouped_channel", "per_channel"])
def test_tables_for_channels_with_samples(granularity: str) -> None:
    options = {"quantization_mode": "kmeans", "convert_to": "mlprogram", "granularity": granularity}
    small = checked(
        mlferry.quantize_weights(NETWORK, 3, sample_data=samples(4), group_size=4, **options)
    )
    assert kinds(small.spec).count("constexpr_lut_to_dense") == len(MATRICES)
    size = 1 if granularity == "per_channel" else 4
    axes = {"c": 0, "t": 1, "d": 0, "e": 1}
    for key, array in weights_of(small).items():
        for group in np.split(array, array.shape[axes[key]] // size, axes[key]):
            assert np.unique(group).size <= 8


# Outputs and inputs of a table, 0 for all. The inputs of an embedding are its entries in networks.
@pytest.mark.parametrize(
    ("outputs", "inputs", "length"),
    [(0, 4, 1), (4, 4, 1), (4, 0, 1), (2, 4, 1), (0, 4, 2), (4, 4, 4)],
)
@pytest.mark.parametrize("calibrated", [True, False], ids=["samples", "weights"])
def test_tables_for_blocks(
    calibrated: bool, outputs: int, inputs: int, length: int, tmp_path: Path
) -> None:
    small = checked(
        mlferry.quantize_weights(
            NETWORK, 3, "kmeans", samples(4) if calibrated else None, convert_to="mlprogram",
            granularity="per_block", group_size=outputs, block_size=inputs, cluster_dim=length,
        )
    )  # fmt: skip
    assert kinds(small.spec).count("constexpr_lut_to_dense") == len(MATRICES)
    actual = weights_of(small)
    axes = {"c": (0, 1), "t": (1, 0), "d": (0, 1), "e": (1, 0) if calibrated else (0, 1)}
    for key, array in actual.items():
        parts = [array]
        for axis, size in zip(axes[key], (outputs, inputs), strict=True):
            count = array.shape[axis] // (size or array.shape[axis])
            parts = [each for part in parts for each in np.split(part, count, axis)]
        assert len(parts) > 1
        assert max(np.unique(part).size for part in parts) <= 8 * length
    assert np.unique(actual["c"]).size > 8 * length
    _same_by_coremltools(small, actual, tmp_path)


def test_tables_for_inputs_of_different_sizes() -> None:
    """Channels that differ 30-fold share no table; with samples, too, and in another way."""
    spread = np.exp(np.linspace(0, 3.4, 16)).astype(np.float32)
    b = Builder()
    b.input("x", (1, 16, 8, 8))
    b.layer("convolution", "c", ["x"], ["c"], outputChannels=32, kernelChannels=16, same={},
            kernelSize=(3, 3), stride=(1, 1), dilationFactor=(1, 1), nGroups=1,
            weights=normal(32, 16, 3, 3) * spread[:, None, None])  # fmt: skip
    b.output("c")
    whole = mlferry.MLModel(b.model())
    inputs = [{"x": one["x"] / spread[:, None, None]} for one in samples(12)]
    options = {"quantization_mode": "kmeans", "convert_to": "mlprogram"}

    def snr(outputs: int, size: int, given: Any) -> float:
        small = mlferry.quantize_weights(
            whole, 2, sample_data=given, granularity="per_block", group_size=outputs,
            block_size=size, **options,
        )  # fmt: skip
        return mlferry.compare_models(whole, small, inputs[8:]).outputs["c"].numbers["snr"]

    for given in (inputs[:8], None):
        assert snr(0, 2, given) > snr(4, 0, given) + 3  # dB, both with 8 tables
    assert snr(0, 2, inputs[:8]) > snr(0, 2, None)


@pytest.mark.parametrize("mode", ["kmeans", "linear_lut"])
@pytest.mark.parametrize(("bits", "version", "kind"), [(2, 7, "uint8"), (3, 9, "uint3")])
def test_tables_with_samples_take_no_more_bits_than_asked(
    mode: str, bits: int, version: int, kind: str
) -> None:
    small = checked(
        mlferry.quantize_weights(NETWORK, bits, mode, samples(4), convert_to="mlprogram")
    )
    assert small.spec.specificationVersion == version
    block, _ = read_function(small.spec.mlProgram.functions["main"], small.program_weights)
    tables = [op for op in block.operations if op.op == "constexpr_lut_to_dense"]
    assert {op.arguments["indices"].dtype for op in tables} == {kind}
    assert {np.size(op.arguments["lut"].constant) for op in tables} == {1 << bits}


@pytest.mark.parametrize(
    ("options", "lengths"),
    [({}, [2, 2, 2, 2]),
     ({"granularity": "per_grouped_channel", "group_size": 4}, [2, 2, 1, 2])],
    ids=["one table", "groups"],
)  # fmt: skip
def test_vectors_with_samples(options: dict[str, Any], lengths: list[int], tmp_path: Path) -> None:
    """They lie nearer to the float network on samples than those chosen by the weights alone.

    Tables of pairs for groups of 4 x 16 weights would take more than they save.
    """
    inputs = samples(24)
    off = []
    for sample_data in (inputs[:16], None):
        small = checked(
            mlferry.quantize_weights(
                NETWORK, 4, "kmeans", sample_data, cluster_dim=2, convert_to="mlprogram", **options
            )
        )
        assert small.spec.specificationVersion == 9
        block, _ = read_function(small.spec.mlProgram.functions["main"], small.program_weights)
        tables = [op for op in block.operations if op.op == "constexpr_lut_to_dense"]
        assert [op.arguments["lut"].shape[-1] for op in tables] == lengths
        assert {op.arguments["indices"].dtype for op in tables} == {"uint4"}
        report = mlferry.compare_models(NETWORK, small, inputs[16:])
        off.append(report.outputs["d"].numbers["snr"])
    assert off[0] > off[1] + 0.5  # dB
    _same_by_coremltools(small, weights_of(small), tmp_path)


def test_samples_help_tables_for_channels() -> None:
    """On the mean of three networks: which rows of inputs are looked at is drawn."""
    window = {"kernelSize": (3, 3), "stride": (1, 1), "dilationFactor": (1, 1), "nGroups": 1}
    result = []
    for _ in range(3):
        b = Builder()
        b.input("x", (1, 16, 8, 8))
        b.layer("convolution", "c", ["x"], ["c"], outputChannels=32, kernelChannels=16, same={},
                weights=normal(32, 16, 3, 3), **window)  # fmt: skip
        b.layer("activation", "r", ["c"], ["r"], ReLU={})
        b.layer("convolution", "k", ["r"], ["k"], outputChannels=16, kernelChannels=32, same={},
                weights=normal(16, 32, 3, 3), **window)  # fmt: skip
        b.output("k")
        result.append(mlferry.MLModel(b.model()))
    inputs = [{"x": one["x"]} for one in samples(24)]
    options = {"quantization_mode": "kmeans", "convert_to": "mlprogram"}

    def snr(**more: Any) -> float:
        small = [mlferry.quantize_weights(network, 3, **options, **more) for network in result]
        reports = [
            mlferry.compare_models(network, other, inputs[16:])
            for network, other in zip(result, small, strict=True)
        ]
        return float(np.mean([report.outputs["k"].numbers["snr"] for report in reports]))

    groups = {"granularity": "per_grouped_channel", "group_size": 4}
    both = snr(sample_data=inputs[:16], **groups)
    assert both > snr(**groups) + 1
    assert both > snr(sample_data=inputs[:16])


def test_groups_that_do_not_divide_stay(caplog: pytest.LogCaptureFixture) -> None:
    small = mlferry.quantize_weights(
        NETWORK, 4, "kmeans", samples(2), convert_to="mlprogram",
        granularity="per_grouped_channel", group_size=64,
    )  # fmt: skip
    assert kinds(small.spec).count("constexpr_lut_to_dense") == 2
    assert "no groups of 64 of its outputs" in caplog.text


def test_blocks_that_do_not_divide_stay(caplog: pytest.LogCaptureFixture) -> None:
    small = mlferry.quantize_weights(
        NETWORK, 4, "kmeans", samples(2), convert_to="mlprogram", granularity="per_block",
        group_size=64, block_size=4,
    )  # fmt: skip
    assert kinds(small.spec).count("constexpr_lut_to_dense") == 2
    assert "weights of convolution 'c' stays as it is: no blocks of 64 outputs of 4 inputs" in (
        caplog.text
    )


@pytest.mark.parametrize(
    ("mode", "granularity", "words"),
    [("linear", "per_block", "mode 'linear' has per_channel; mode 'kmeans' has"),
     ("linear_lut", "per_grouped_channel", "mode 'linear_lut' has per_tensor"),
     ("kmeans", "per_channel", "mode 'kmeans' has 1, 2, 3, 4, 6, 8")],
)  # fmt: skip
def test_granularities_that_samples_have_not(mode: str, granularity: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        mlferry.quantize_weights(
            NETWORK, 5, mode, samples(2), convert_to="mlprogram", granularity=granularity
        )


# ---- which weights -------------------------------------------------------------------------------


def test_biases_and_small_matrices_stay() -> None:
    small = mlferry.quantize_weights(PROGRAMS["float32"], 8)
    block, _ = read_function(small.spec.mlProgram.functions["main"], small.program_weights)
    plain = [op.arguments["bias"] for op in block.operations if "bias" in op.arguments]
    assert plain
    assert all(value.is_constant for value in plain)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("selector", "count"),
    [(by_kind("conv"), 1), (by_name("d*"), 1), (but(by_kind("conv")), 3),
     (lambda site: site.count > 4500, 3)],
)  # fmt: skip
def test_selector(selector: Callable[[Any], bool], count: int) -> None:
    def chosen(site: Any) -> bool:
        return site.is_matrix and selector(site)

    small = checked(mlferry.quantize_weights(PROGRAMS["float32"], 8, selector=chosen))
    assert sum(kind.startswith("constexpr_") for kind in kinds(small.spec)) == count


def test_own_table() -> None:
    def thirds(bits: int, values: Array) -> tuple[Array, Array]:
        table = np.linspace(-2, 2, 1 << bits).astype(np.float32)
        return table, np.abs(values[..., None] - table).argmin(axis=-1)

    small = checked(
        mlferry.quantize_weights(PROGRAMS["float16"], 4, "custom_lut", lut_function=thirds)
    )
    for array in weights_of(small).values():
        assert len(np.unique(array)) <= 16
        assert np.abs(array).max() <= 2


def test_half_weights_of_a_float32_program(tmp_path: Path) -> None:
    small = checked(mlferry.quantize_weights(PROGRAMS["float32"], 16))
    assert kinds(small.spec).count("constexpr_cast") >= len(MATRICES)
    read_by_coremltools(small, tmp_path)
    for key, array in weights_of(PROGRAMS["float32"]).items():
        np.testing.assert_array_equal(weights_of(small)[key], array.astype(np.float16))


def test_numbers_stay_as_they_are() -> None:
    """An epsilon that half precision rounds to 0 is no weight, whatever is chosen."""
    b = Builder()
    b.input("x", (1, 4, 6, 6))
    b.layer(
        "batchnorm", "n", ["x"], ["n"], channels=4, epsilon=1e-9, gamma=normal(4), beta=normal(4),
        mean=normal(4), variance=np.zeros(4, np.float32),
    )  # fmt: skip
    b.layer("activation", "a", ["n"], ["y"], linear={"alpha": 0.3, "beta": -0.2})
    b.output("y")
    program = mlferry.to_program(mlferry.MLModel(b.model()), compute_precision="float32")
    x = {"x": normal(1, 4, 6, 6)}
    small = checked(mlferry.quantize_weights(program, 16))
    block, opset = read_function(small.spec.mlProgram.functions["main"], small.program_weights)
    assert {len(site.shape) for site in sites(block, opset)} == {1}
    np.testing.assert_allclose(small.predict(x)["y"], program.predict(x)["y"], rtol=2e-3, atol=20)
    every = mlferry.quantize_weights(program, 8, selector=lambda site: True)
    assert np.isfinite(every.predict(x)["y"]).all()


def test_network_becomes_a_program() -> None:
    small = mlferry.quantize_weights(NETWORK, 4, "kmeans", convert_to="mlprogram")
    assert small.spec.WhichOneof("Type") == "mlProgram"
    assert "constexpr_lut_to_dense" in kinds(small.spec)


def test_quantized_network_keeps_its_codes() -> None:
    tables = mlferry.quantize_weights(NETWORK, 4, "kmeans", sample_data=[GIVEN])
    program = checked(mlferry.to_program(tables, compute_precision="float32"))
    assert kinds(program.spec).count("constexpr_lut_to_dense") == len(MATRICES)
    right = tables.predict(GIVEN)
    for key, value in program.predict(GIVEN).items():
        np.testing.assert_allclose(value, right[key], rtol=1e-4, atol=1e-4)


def test_programs_in_a_pipeline_and_pickling() -> None:
    second = Builder()
    second.input("d", (1, 256))
    second.layer("activation", "r", ["d"], ["y"], ReLU={})
    second.output("y")
    whole = make_pipeline(PROGRAMS["float32"], mlferry.MLModel(second.model()))
    small = mlferry.quantize_weights(whole, 8)
    again = pickle.loads(pickle.dumps(small))
    np.testing.assert_array_equal(again.predict(GIVEN)["y"], small.predict(GIVEN)["y"])


# ---- newer opsets --------------------------------------------------------------------------------


def test_negative_indices_count_from_the_end_in_newer_opsets_too() -> None:
    b = Builder()
    b.input("i", (3,), features.multi_array((3,), "int32"))
    b.layer("loadConstantND", "k", [], ["k"], shape=(64, 40), data=normal(64, 40))
    b.layer("gather", "g", ["k", "i"], ["y"], axis=0)
    b.output("y")
    program = mlferry.to_program(b.model(), compute_precision="float32")
    inputs = {"i": np.array([-1, 0, -64], np.int32)}
    right = program.predict(inputs)["y"]
    block, opset = read_function(program.spec.mlProgram.functions["main"], program.program_weights)
    raise_opset(block, opset, 8)
    assert [op.op for op in block.operations][:4] == ["less", "add", "select", "gather"]
    newer = checked(mlferry.quantize_weights(program, 4))
    np.testing.assert_allclose(newer.predict(inputs)["y"], right, atol=0.3)


def test_older_constants_become_those_of_newer_opsets(tmp_path: Path) -> None:
    """Tables, codes and masks that a newer opset writes otherwise, beside blocks that need it."""
    program = PROGRAMS["float32"]
    mixed = mlferry.quantize_weights(program, 4, "kmeans", selector=by_kind("conv"))
    mixed = mlferry.quantize_weights(mixed, 8, selector=by_kind("conv_transpose"))
    mixed = mlferry.prune_weights(mixed, sparsity=0.5, selector=by_kind("gather"))
    assert mixed.spec.specificationVersion == 7
    newer = checked(mlferry.quantize_weights(mixed, 4, selector=by_kind("linear")))
    assert newer.spec.specificationVersion == 9
    read_by_coremltools(newer, tmp_path)
    before, after = weights_of(mixed), weights_of(newer)
    for key in "cte":
        np.testing.assert_array_equal(after[key], before[key])


@pytest.mark.parametrize(
    ("op", "part", "message"),
    [
        ("constexpr_sparse_to_dense", "nonzero_data", "a mask of .* values has 3"),
        ("constexpr_lut_to_dense", "indices", "3 bytes of indices"),
        ("constexpr_lut_to_dense", "lut", "into 3 entries"),
    ],
)
def test_parts_of_older_constants_that_do_not_fit(op: str, part: str, message: str) -> None:
    small = mlferry.quantize_weights(PROGRAMS["float32"], 4, "kmeans", selector=by_kind("conv"))
    small = mlferry.prune_weights(small, sparsity=0.5, selector=by_kind("linear"))
    block, opset = read_function(small.spec.mlProgram.functions["main"], small.program_weights)
    broken = next(each for each in block.operations if each.op == op)
    value = broken.arguments[part]
    broken.arguments[part] = constant(value.constant.ravel()[:3], value.dtype)
    with pytest.raises(SpecError, match=message):
        raise_opset(block, opset, 8)


def test_an_older_constant_of_another_shape_than_it_says() -> None:
    small = mlferry.prune_weights(PROGRAMS["float32"], sparsity=0.5, selector=by_kind("linear"))
    block, opset = read_function(small.spec.mlProgram.functions["main"], small.program_weights)
    broken = next(each for each in block.operations if each.op == "constexpr_sparse_to_dense")
    shape = broken.outputs[0].shape
    broken.outputs[0].type = TensorType("fp32", shape[::-1])
    with pytest.raises(SpecError, match=r"it makes .*, and is"):
        raise_opset(block, opset, 8)


def detector(score_threshold: float, **options: Any) -> mlferry.MLModel:
    """Suppression of boxes beside a matrix with weights."""
    b = Builder()
    b.input("boxes", (2, 20, 4))
    b.input("scores", (2, 20, 3))
    b.layer("NonMaximumSuppression", "n", ["boxes", "scores"], ["a", "b", "i", "k"],
            iouThreshold=0.3, scoreThreshold=score_threshold, maxBoxes=8, **options)  # fmt: skip
    b.layer("innerProduct", "d", ["scores"], ["y"], inputChannels=3, outputChannels=1024,
            weights=normal(1024, 3))  # fmt: skip
    for name in "abiky":
        b.output(name)
    return mlferry.to_program(b.model(), compute_precision="float32")


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("threshold", [0.1, 0.6, 2.0])
def test_suppressed_boxes_are_the_same_in_a_newer_opset(
    threshold: float, per_class: bool, tmp_path: Path
) -> None:
    program = detector(threshold, perClassSuppression=per_class)
    boxes = np.abs(normal(2, 20, 4)) + np.float32(0.5)
    inputs = {"boxes": boxes, "scores": np.abs(normal(2, 20, 3)) * np.float32(0.4)}
    right = program.predict(inputs)
    newer = checked(mlferry.quantize_weights(program, 4))
    assert newer.spec.specificationVersion == 9
    read_by_coremltools(newer, tmp_path)
    for engine in ("numpy", "onnxruntime"):
        again = mlferry.MLModel(newer.spec, engine=engine, weights_dir=newer.weights_dir)
        actual = again.predict(inputs)
        for name in "abik":
            np.testing.assert_allclose(actual[name], right[name], rtol=1e-6, err_msg=name)


def test_what_a_newer_opset_cannot_say() -> None:
    program = detector(0.0)
    assert mlferry.quantize_weights(program, 8).spec.specificationVersion == 7
    with pytest.raises(SpecError, match=r"non_maximum_suppression .*a score threshold of 0.0") as e:
        mlferry.quantize_weights(program, 4)
    assert "nbits=8" in str(e.value)
    table = mlferry.quantize_weights(
        program, 4, quantization_mode="kmeans", granularity="per_tensor"
    )
    assert table.spec.specificationVersion == 7


def test_crops_do_not_change_what_is_beyond_the_image() -> None:
    b = Builder()
    b.input("x", (1, 1, 3, 8, 8))
    b.input("boxes", (2, 1, 4, 1, 1))
    b.layer("cropResize", "c", ["x", "boxes"], ["y"], targetSize=[2, 2])
    b.layer("innerProduct", "d", ["y"], ["z"], inputChannels=12, outputChannels=256,
            weights=normal(256, 12))  # fmt: skip
    b.output("z")
    program = mlferry.to_program(b.model(), compute_precision="float32")
    for bits, mode, reason in ((4, "linear", "boxes come apart"), (8, "kmeans", "pixels of its")):
        with pytest.raises(SpecError, match=reason):
            mlferry.quantize_weights(program, bits, mode)


# ---- pruning -------------------------------------------------------------------------------------

PRUNED: dict[str, tuple[dict[str, Any], Callable[[Array], bool]]] = {
    "a part": ({"sparsity": 0.75}, lambda w: (w == 0).mean() == 0.75),
    "a threshold": ({"threshold": 0.5}, lambda w: not ((w != 0) & (np.abs(w) <= 0.5)).any()),
}


@pytest.mark.parametrize("precision", PROGRAMS)
@pytest.mark.parametrize("name", PRUNED)
def test_pruned(name: str, precision: str, tmp_path: Path) -> None:
    options, holds = PRUNED[name]
    small = checked(mlferry.prune_weights(PROGRAMS[precision], **options))
    assert kinds(small.spec).count("constexpr_sparse_to_dense") == len(MATRICES)
    after, before = weights_of(small), weights_of(PROGRAMS[precision])
    for key, array in after.items():
        assert holds(array)
        kept = array != 0
        np.testing.assert_array_equal(array[kept], before[key][kept])
        assert np.abs(before[key][~kept]).max() <= np.abs(before[key][kept]).min()
    _same_by_coremltools(small, after, tmp_path)


def test_pruned_by_ratio(tmp_path: Path) -> None:
    small = checked(mlferry.prune_weights(PROGRAMS["float32"], n_m_ratio=(3, 4)))
    after = weights_of(small)
    for key, axis in {"c": 1, "t": 0, "d": 1, "e": 1}.items():
        groups = np.moveaxis(after[key], axis, -1).reshape(-1, 4)
        assert ((groups == 0).sum(axis=1) == 3).all()
    _same_by_coremltools(small, after, tmp_path)


def test_what_would_take_more_room_stays() -> None:
    same = mlferry.prune_weights(PROGRAMS["float32"], threshold=0.0)
    assert not [kind for kind in kinds(same.spec) if kind.startswith("constexpr_")]


# ---- errors --------------------------------------------------------------------------------------

WRONG: dict[str, tuple[Callable[[mlferry.MLModel], Any], str]] = {
    "bits": (lambda m: mlferry.quantize_weights(m, 5), "mode 'linear' has 4, 8; mode 'linear_lut'"),
    "bits of tables": (lambda m: mlferry.quantize_weights(m, 5, "kmeans"), "has 1, 2, 3, 4, 6, 8"),
    "granularity of tables": (
        lambda m: mlferry.quantize_weights(m, 4, "kmeans", granularity="per_row"),
        "possible are per_tensor, per_channel, per_block, per_grouped_channel"),
    "blocks of tables": (
        lambda m: mlferry.quantize_weights(
            m, 4, "kmeans", granularity="per_block", group_size=0, block_size=5),
        "block_size 5 does not divide its 16 inputs; 4 does"),
    "groups of 0": (
        lambda m: mlferry.quantize_weights(
            m, 4, "kmeans", granularity="per_grouped_channel", group_size=0),
        "group_size is 0; it is a positive integer"),
    "blocks of 0 with scales": (
        lambda m: mlferry.quantize_weights(m, 8, granularity="per_block", block_size=0),
        "block_size is 0; it is a positive integer"),
    "blocks below 0": (
        lambda m: mlferry.quantize_weights(
            m, 4, "kmeans", granularity="per_block", group_size=0, block_size=-1),
        "block_size is -1; it is a positive integer, or 0 for all"),
    "several blocks": (
        lambda m: mlferry.quantize_weights(
            m, 4, "kmeans", granularity="per_block", block_size=(4, 8)),
        r"block_size is \(4, 8\); several go with mean_bits"),
    "granularity of scales": (
        lambda m: mlferry.quantize_weights(m, 8, granularity="per_row"),
        "possible are per_tensor, per_channel, per_block"),
    "blocks": (
        lambda m: mlferry.quantize_weights(m, 4, granularity="per_block", block_size=7),
        "block_size 7 does not divide its 16 inputs; 4 does"),
    "groups": (
        lambda m: mlferry.quantize_weights(
            m, 4, "kmeans", granularity="per_grouped_channel", group_size=5),
        "group_size 5 does not divide its 32 channels; 4 does"),
    "vectors of codes": (
        lambda m: mlferry.quantize_weights(m, 4, cluster_dim=2),
        "write quantization_mode='kmeans'"),
    "vectors and groups": (
        lambda m: mlferry.quantize_weights(
            m, 4, "kmeans", granularity="per_grouped_channel", group_size=6, cluster_dim=4),
        "does not divide groups of 6 channels: group_size=4"),
    "length of vectors": (
        lambda m: mlferry.quantize_weights(m, 4, "kmeans", cluster_dim=0), "cluster_dim is 0"),
    "size": (lambda m: mlferry.quantize_weights(m, 4, block_size=0), "block_size is 0"),
    "two ways": (lambda m: mlferry.prune_weights(m, sparsity=0.5, threshold=1), "takes one of"),
    "no way": (mlferry.prune_weights, "not none"),
    "sparsity": (lambda m: mlferry.prune_weights(m, sparsity=1.5), "from 0 to 1"),
    "threshold": (lambda m: mlferry.prune_weights(m, threshold=-1), "0 or more"),
    "ratio": (lambda m: mlferry.prune_weights(m, n_m_ratio=(5, 4)), "n is not above m"),
    "no ratio": (lambda m: mlferry.prune_weights(m, n_m_ratio=2), "a pair such as"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name: str) -> None:
    run, text = WRONG[name]
    with pytest.raises(SpecError, match=text):
        run(PROGRAMS["float32"])


def test_sample_data_is_for_networks() -> None:
    with pytest.raises(UnsupportedModelError, match=r"to_program\(quantized\)"):
        mlferry.quantize_weights(PROGRAMS["float32"], 8, sample_data=[GIVEN])


def test_vectors_are_for_programs() -> None:
    with pytest.raises(SpecError, match="add convert_to='mlprogram'"):
        mlferry.quantize_weights(NETWORK, 4, "kmeans", cluster_dim=2)


def test_granularity_is_for_programs() -> None:
    with pytest.raises(SpecError, match="convert_to='mlprogram'"):
        mlferry.quantize_weights(NETWORK, 8, granularity="per_block")


def test_search_of_a_program() -> None:
    """The bits that programs have, and sizes with the file of weights."""
    inputs = samples(12)
    actual = mlferry.search_quantization(PROGRAMS["float32"], inputs, "snr", 25.0)
    assert not any(trial.calibrated for trial in actual.trials)
    tried = {
        mode: [t.bits for t in actual.trials if t.mode == mode] for mode in ("linear", "kmeans")
    }
    assert set(tried["linear"]) <= {8, 4}
    assert set(tried["kmeans"]) <= {1, 2, 3, 4, 6, 8}
    assert actual.model.stored_size == actual.best.size < actual.full_size
    assert (
        actual.full_size
        == PROGRAMS["float32"].stored_size
        > 4 * sum(np.prod(shape) for shape in MATRICES.values())
    )
    report = mlferry.compare_models(PROGRAMS["float32"], checked(actual.model), inputs)
    assert report.outputs["d"].numbers["snr"] == pytest.approx(actual.best.score)
    with pytest.raises(UnsupportedModelError, match="'convert_to': 'mlprogram'"):
        mlferry.search_quantization(PROGRAMS["float32"], inputs, calibrate=True)


def test_search_of_a_network_as_a_program() -> None:
    actual = mlferry.search_quantization(
        NETWORK, samples(12), "snr", 5.0, modes=("kmeans",), bits=(6, 4),
        options={"convert_to": "mlprogram", "cluster_dim": 2},
    )  # fmt: skip
    block, _ = read_function(actual.model.spec.mlProgram.functions["main"],
                             actual.model.program_weights)  # fmt: skip
    tables = [op for op in block.operations if op.op == "constexpr_lut_to_dense"]
    assert {op.arguments["lut"].shape[-1] for op in tables} == {2}
    assert {trial.calibrated for trial in actual.trials} == {True, False}
