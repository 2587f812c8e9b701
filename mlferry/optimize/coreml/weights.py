"""Quantizes, palettizes and prunes the weights of programs, as configurations say."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import SpecError
from mlferry.models.model import MLModel
from mlferry.models.problems import has_programs
from mlferry.models.pruning import stored_sparse, without_n_of_m, without_smallest
from mlferry.models.quantization import quantize_weights
from mlferry.models.quantization.programs import UNIQUE, Encode, Scheme, recoded
from mlferry.models.quantization.vectors import different
from mlferry.optimize.coreml.configs import (
    OpCompressorConfig,
    OpLinearQuantizerConfig,
    OpMagnitudePrunerConfig,
    OpPalettizerConfig,
    OpThresholdPrunerConfig,
    OptimizationConfig,
)
from mlferry.programs.compressed import TABLE_BITS, Compressed
from mlferry.programs.passes.rewriting import known_at
from mlferry.programs.sites import ProgramSite
from mlferry.text import logger_of

logger = logger_of(__name__)

Floats = NDArray[np.float32]
_MODES = {"uniform": "linear_lut", "custom": "custom_lut"}  # what a scheme calls them
Config = TypeVar("Config", bound=OpCompressorConfig)


def linear_quantize_weights(
    mlmodel: Any, config: OptimizationConfig, joint_compression: bool = False
) -> MLModel:
    """A copy of an ML Program whose weights are codes with scales.

    Args:
        mlmodel: an `MLModel`, or what it takes.
        config: of `OpLinearQuantizerConfig`.
        joint_compression: compress already compressed weights further, see
            `mlferry.quantize_weights`; otherwise they do not change.

    Raises:
        SpecError: the model is not a program, the configurations are of other kinds or contradict
            each other, or a weight cannot be compressed in this way.
    """
    return _compressed(mlmodel, config, joint_compression, {OpLinearQuantizerConfig: _quantized})


def palettize_weights(
    mlmodel: Any, config: OptimizationConfig, joint_compression: bool = False
) -> MLModel:
    """A copy of an ML Program whose weights are indices of tables.

    Args:
        mlmodel: an `MLModel`, or what it takes.
        config: of `OpPalettizerConfig`.
        joint_compression: give the remaining values of pruned weights a table, see
            `mlferry.quantize_weights`; otherwise compressed weights do not change.

    Raises:
        SpecError: as of `linear_quantize_weights`.
    """
    return _compressed(mlmodel, config, joint_compression, {OpPalettizerConfig: _palettized})


def prune_weights(
    mlmodel: Any, config: OptimizationConfig, joint_compression: bool = False
) -> MLModel:
    """A copy of an ML Program without the smallest values of its weights.

    Args:
        mlmodel: an `MLModel`, or what it takes.
        config: of `OpThresholdPrunerConfig` and `OpMagnitudePrunerConfig`.
        joint_compression: prune compressed weights, whose remaining values stay compressed;
            otherwise prune the others.

    Raises:
        SpecError: as of `linear_quantize_weights`.
    """
    ways: _Ways = {OpThresholdPrunerConfig: _pruned, OpMagnitudePrunerConfig: _pruned}
    return _compressed(mlmodel, config, joint_compression, ways)


def decompress_weights(mlmodel: Any) -> MLModel:
    """A copy of a model with decoded weights: floats again.

    Args:
        mlmodel: an `MLModel`, or what it takes.
    """
    return quantize_weights(mlmodel, 32, "dequantization")


# A weight and its configuration in; how it is stored out, or None if it stays as it is.
_Way = Callable[[ProgramSite, Any, bool], "Encode | None"]
_Ways = dict[type[OpCompressorConfig], _Way]


def _compressed(mlmodel: Any, config: OptimizationConfig, joint: bool, ways: _Ways) -> MLModel:
    model = mlmodel if isinstance(mlmodel, MLModel) else MLModel(mlmodel)
    if not has_programs(model.spec):
        raise SpecError(
            "mlferry.optimize.coreml takes ML Programs: mlferry.to_program(model) makes one from a "
            "network, and mlferry.quantize_weights takes networks"
        )
    if not isinstance(config, OptimizationConfig):
        raise SpecError(
            f"config is a {type(config).__name__}: write OptimizationConfig(global_config=...)"
        )
    for each in config.configs:
        if type(each) not in ways:
            names = " and ".join(kind.__name__ for kind in ways)
            raise SpecError(f"this function takes {names}, not {type(each).__name__}")
    encoders: dict[int, Encode] = {}

    def chosen(site: ProgramSite) -> bool:
        own = _config_of(site, config)
        if own is None or len(site.shape) < 2 or site.count <= own.weight_threshold:
            return False
        if not _fits(site, own, joint):
            return False
        encode = ways[type(own)](site, own, joint)
        if encode is not None:
            encoders[id(site)] = encode
        return encode is not None

    def encode(site: ProgramSite, opset: int) -> Compressed | None:
        return encoders[id(site)](site, opset)

    return recoded(model, chosen, encode, "compressing")


def _fits(site: ProgramSite, config: OpCompressorConfig, joint: bool) -> bool:
    """Whether a configuration applies to a weight in the encoding that it has."""
    parts = site.parts if joint else None
    if parts is None:
        pruner = isinstance(config, OpThresholdPrunerConfig | OpMagnitudePrunerConfig)
        return site.value.maker is None and not (joint and pruner)
    if isinstance(config, OpPalettizerConfig):
        return parts.codes is None
    if isinstance(config, OpLinearQuantizerConfig):
        return parts.codes is None or (parts.table is not None and parts.table.is_constant)
    return parts.codes is not None and parts.axis is None


def _config_of(site: ProgramSite, config: OptimizationConfig) -> OpCompressorConfig | None:
    """The configuration of a weight: by its name, its operation, its op, or the global one."""
    if site.value.name in config.op_name_configs:
        return config.op_name_configs[site.value.name]
    configs = []
    for reader in site.readers:
        names = [reader.source, *(output.name for output in reader.outputs)]
        name = next((each for each in names if each in config.op_name_configs), None)
        if name is not None:
            configs.append((name, config.op_name_configs[name]))
        else:
            configs.append((names[-1], config.op_type_configs.get(reader.op, config.global_config)))
    for name, other in configs[1:]:
        if other != configs[0][1]:
            raise SpecError(
                f"{site.value.name!r} is read by {configs[0][0]!r}, with {configs[0][1]}, and by "
                f"{name!r}, with {other}: write op_name_configs={{{site.value.name!r}: ...}}"
            )
    return configs[0][1]


def _stays(site: ProgramSite, why: str) -> None:
    logger.warning("%s stays as it is: %s", site, why)


def _quantized(site: ProgramSite, config: OpLinearQuantizerConfig, joint: bool) -> Encode | None:
    blocks = None
    size = config.block_size
    if config.granularity == "per_block":
        if isinstance(size, int):
            whole = [0] * len(site.shape)
            whole[site.axis], whole[site.input_axis] = 1, size
            blocks = tuple(whole)
        else:
            blocks = tuple(size)
        if len(blocks) != len(site.shape):
            raise SpecError(
                f"block_size {list(blocks)} has {len(blocks)} extents; {site} has "
                f"{len(site.shape)} axes: write block_size=32 for blocks of inputs"
            )
        pairs = zip(site.shape, blocks, strict=True)
        if any(each and extent % each for extent, each in pairs):
            _stays(site, f"blocks of {list(blocks)} do not divide {list(site.shape)}")
            return None
    scheme = Scheme(
        config.mode,
        config.bits,
        config.granularity,
        joint=joint,
        signed=config.signed,
        blocks=blocks,
    )
    return scheme.encode


def _palettized(site: ProgramSite, config: OpPalettizerConfig, joint: bool) -> Encode | None:
    grouped = config.granularity == "per_grouped_channel"
    chosen_axis = config.channel_axis if grouped else None
    axis = site.axis if chosen_axis is None else chosen_axis
    if not -len(site.shape) <= axis < len(site.shape):
        raise SpecError(f"channel_axis is {axis}; {site} has {len(site.shape)} axes")
    axis %= len(site.shape)
    extent = site.shape[axis]
    size = config.group_size if grouped else extent
    if extent % size:
        _stays(site, f"groups of {size} do not divide {extent} channels")
        return None
    length = config.cluster_dim
    alone = math.gcd(size, _in_a_group(site, axis))
    if alone % length:
        _stays(site, f"vectors of {length} do not divide {alone} channels that go together")
        return None
    groups = np.split(np.moveaxis(site.array, axis, 0), extent // size)
    mode, bits, function = config.mode, config.nbits, None
    if config.mode == UNIQUE:
        most = max(different(group, length) for group in groups)
        bits = next((each for each in TABLE_BITS if most <= 1 << each), None)
        if bits is None:
            _stays(site, f"it has {most} {'values' if length == 1 else 'vectors'}")
            return None
    elif config.mode == "custom":
        function = _Custom(config.lut_function)
        bits = function.bits(np.moveaxis(groups[0], 0, axis))
    assert bits is not None
    return Scheme(
        _MODES.get(mode, mode),
        bits,
        config.granularity,
        group_size=config.group_size,
        lut_function=function,
        joint=joint,
        group_axis=axis,
        vector=length,
        scales=config.enable_per_channel_scale,
    ).encode


def _in_a_group(site: ProgramSite, axis: int) -> int:
    """How many entries along an axis belong to one group of a convolution."""
    counts = {
        known_at(each, "groups", 1)
        for each in site.readers
        if each.op in ("conv", "conv_transpose")
    }
    return site.shape[axis] // (max(counts, default=1) if axis == 0 else 1)


class _Custom:
    """A user's function; the length of its table determines the number of bits."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._known: list[tuple[Floats, Any]] = []

    def bits(self, values: Floats) -> int:
        """The bits for its table: the least number in the format that suffices."""
        result = self._function(values.copy())
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise SpecError(
                f"lut_function returned a {type(result).__name__}; it returns a table and indices"
            )
        self._known = [(values, result)]
        count = len(np.asarray(result[0]).reshape(-1))
        return next((each for each in TABLE_BITS if count <= 1 << each), TABLE_BITS[-1])

    def __call__(self, bits: int, values: Floats) -> Any:
        known = next((result for seen, result in self._known if np.array_equal(seen, values)), None)
        table, indices = self._function(values) if known is None else known
        entries = np.asarray(table, np.float32).reshape(-1)
        return np.pad(entries, (0, max(0, (1 << bits) - entries.size))), indices


def _pruned(
    site: ProgramSite, config: OpThresholdPrunerConfig | OpMagnitudePrunerConfig, joint: bool
) -> Encode | None:
    pruned = (
        _above(site, config)
        if isinstance(config, OpThresholdPrunerConfig)
        else _largest(site, config)
    )
    if pruned is None:
        return None
    return lambda site, opset: stored_sparse(site, opset, pruned, joint=joint)


def _above(site: ProgramSite, config: OpThresholdPrunerConfig) -> Floats | None:
    pruned: Floats = np.where(np.abs(site.array) <= config.threshold, np.float32(0), site.array)
    zeros = 1 - np.count_nonzero(pruned) / pruned.size
    if zeros < config.minimum_sparsity_percentile:
        _stays(site, f"{zeros:.1%} of it are zero")
        return None
    return pruned


def _largest(site: ProgramSite, config: OpMagnitudePrunerConfig) -> Floats | None:
    array, dim = site.array, config.dim or 0
    if config.is_structured:
        try:
            for reader in site.readers:
                config.check_op(reader.op)
        except SpecError as error:
            _stays(site, str(error))
            return None
        together = config.block_size if config.n_m_ratio is None else config.n_m_ratio[1]
        assert together is not None
        if 2 * together > array.shape[dim]:
            _stays(site, f"{together} are more than half of its {array.shape[dim]} channels")
            return None
    if config.n_m_ratio is not None:
        return without_n_of_m(array, dim, *config.n_m_ratio)
    assert config.target_sparsity is not None
    sizes = np.abs(array)
    if config.block_size is not None:
        sizes = _norms(array, dim, config.block_size)
    return without_smallest(array, sizes, config.target_sparsity)


def _norms(array: Floats, dim: int, size: int) -> Floats:
    """For each value, the root of the sum of the squares of its block along an axis."""
    lines = np.moveaxis(array.astype(np.float64), dim, -1)
    starts = np.arange(0, lines.shape[-1], size)
    sums = np.sqrt(np.add.reduceat(lines * lines, starts, axis=-1))
    whole = np.repeat(sums, size, axis=-1)[..., : lines.shape[-1]]
    norms: Floats = np.ascontiguousarray(np.moveaxis(whole, -1, dim))
    return norms
