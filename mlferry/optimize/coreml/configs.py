"""How weights are compressed: all of them, those of an op, or one by its name."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from mlferry.errors import MissingDependencyError, SpecError
from mlferry.programs.compressed import TABLE_BITS
from mlferry.registry import did_you_mean

_STRUCTURED = ("conv", "linear")  # whose weights may be pruned in blocks, or n of m


@dataclass
class OpCompressorConfig:
    """What the configurations of weights have in common.

    Attributes:
        weight_threshold: weights of more elements are compressed.
    """

    weight_threshold: int = field(default=2048, kw_only=True)

    def __post_init__(self) -> None:
        if not _is_whole(self.weight_threshold, 0):
            raise SpecError(
                f"weight_threshold is {self.weight_threshold!r}; it is a number of elements"
            )

    def check_op(self, op: str) -> None:
        """Raise a `SpecError` if the weights of an op cannot be compressed in this way."""

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> OpCompressorConfig:
        """A configuration from the parameters in a dict.

        Raises:
            SpecError: it has other parameters, or values that do not fit.
        """
        names = [each.name for each in dataclasses.fields(cls) if each.name != "lut_function"]
        for name in config:
            if name not in names:
                raise SpecError(
                    f"{cls.__name__} has no parameter {name!r} in a dict."
                    f"{did_you_mean(str(name), names)} It has {', '.join(names)}"
                )
        return cls(**config)


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _one_of(name: str, value: object, possible: tuple[Any, ...]) -> None:
    if value not in possible:
        raise SpecError(f"{name} is {value!r}; possible are {', '.join(map(str, possible))}")


@dataclass
class OpLinearQuantizerConfig(OpCompressorConfig):
    """Codes with scales.

    Attributes:
        mode: "linear_symmetric", or "linear", which has a zero point.
        dtype: the type of the codes: "int8", "uint8", "int4", "uint4", or NumPy's 8-bit types.
        granularity: "per_tensor", "per_channel" or "per_block".
        block_size: for "per_block", the number of inputs in a block of one output; or an extent for
            each axis of the weights, 0 for the whole axis. If it does not divide a weight, the
            weight does not change, and a log message says so.
        weight_threshold: weights of more elements are compressed.
    """

    mode: str = "linear_symmetric"
    dtype: Any = "int8"
    granularity: str = "per_channel"
    block_size: int | list[int] | tuple[int, ...] = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mode = str(self.mode).lower()
        _one_of("mode", self.mode, ("linear_symmetric", "linear"))
        self.dtype = _dtype(self.dtype)
        self.granularity = _granularity(self.granularity)
        _one_of("granularity", self.granularity, ("per_tensor", "per_channel", "per_block"))
        sizes = self.block_size
        whole = isinstance(sizes, list | tuple) and all(_is_whole(size, 0) for size in sizes)
        if not whole and not _is_whole(sizes, 1):
            raise SpecError(
                f"block_size is {sizes!r}; it is a number of inputs, or one for each axis, 0 for "
                "all of it"
            )

    @property
    def bits(self) -> int:
        """The bits of a code."""
        return int(self.dtype[-1])

    @property
    def signed(self) -> bool:
        """Whether codes may be negative."""
        return not self.dtype.startswith("u")


@dataclass
class OpActivationLinearQuantizerConfig(OpLinearQuantizerConfig):
    """As `OpLinearQuantizerConfig`, for values between operations: `mode` and `dtype` matter."""


def _dtype(dtype: Any) -> str:
    if isinstance(dtype, str):
        name = dtype
    else:
        try:
            name = np.dtype(dtype).name
        except TypeError:
            name = str(getattr(dtype, "__name__", dtype))
    _one_of("dtype", name, ("int8", "uint8", "int4", "uint4"))
    return name


def _granularity(value: object) -> str:
    """A name, or an enumeration's."""
    return str(getattr(value, "name", value)).lower()


@dataclass
class OpPalettizerConfig(OpCompressorConfig):
    """Indices of a table.

    Attributes:
        mode: "kmeans", "uniform" (evenly spaced), "unique" (the distinct values; weights with more
            than 256 of them do not change) or "custom".
        nbits: 1, 2, 3, 4, 6 or 8; only for "kmeans" and "uniform".
        lut_function: for "custom", maps weights to a table and the index of each weight.
        granularity: "per_tensor" or "per_grouped_channel".
        group_size: the number of channels that share a table. If it does not divide the channels of
            a weight, the weight does not change, and a log message says so.
        channel_axis: the axis of the groups; by default that of the outputs.
        cluster_dim: how many consecutive weights along `channel_axis` one table entry stands for
            (iOS 18); more than 1 only for "kmeans" and "unique". If it does not divide the channels
            of a weight, the weight does not change, and a log message says so.
        enable_per_channel_scale: divide weights by the largest magnitude along `channel_axis`
            before they get a table, and store that magnitude as a scale (iOS 18).
        num_kmeans_workers: ignored: one process is enough.
        weight_threshold: weights of more elements are compressed.
    """

    mode: str = "kmeans"
    nbits: int | None = None
    lut_function: Callable[..., Any] | None = None
    granularity: str = "per_tensor"
    group_size: int = 32
    channel_axis: int | None = None
    cluster_dim: int = 1
    enable_per_channel_scale: bool = False
    num_kmeans_workers: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mode = str(self.mode).lower()
        _one_of("mode", self.mode, ("kmeans", "uniform", "unique", "custom"))
        if self.mode in ("kmeans", "uniform"):
            _one_of(f"nbits of mode {self.mode!r}", self.nbits, TABLE_BITS)
        elif self.nbits is not None:
            raise SpecError(f"nbits is {self.nbits!r}; mode {self.mode!r} finds it by itself")
        if (self.mode == "custom") != callable(self.lut_function):
            raise SpecError(
                "mode='custom' takes lut_function=..., a function from weights to a table and "
                "indices; other modes take none"
            )
        self.granularity = _granularity(self.granularity)
        _one_of("granularity", self.granularity, ("per_tensor", "per_grouped_channel"))
        if not _is_whole(self.group_size, 1):
            raise SpecError(f"group_size is {self.group_size!r}; it is a number of channels")
        if self.channel_axis is not None and (
            isinstance(self.channel_axis, bool) or not isinstance(self.channel_axis, int)
        ):
            raise SpecError(f"channel_axis is {self.channel_axis!r}; it is the number of an axis")
        if not _is_whole(self.cluster_dim, 1):
            raise SpecError(
                f"cluster_dim is {self.cluster_dim!r}; it is a number of weights from 1"
            )
        if self.cluster_dim > 1 and self.mode not in ("kmeans", "unique"):
            raise SpecError(
                f"cluster_dim is {self.cluster_dim} in mode {self.mode!r}; the modes kmeans and "
                "unique have tables of vectors"
            )
        if not isinstance(self.enable_per_channel_scale, bool):
            raise SpecError(
                f"enable_per_channel_scale is {self.enable_per_channel_scale!r}; it is True or "
                "False"
            )


@dataclass
class OpThresholdPrunerConfig(OpCompressorConfig):
    """Values whose magnitude is not above a threshold become zero, and are not stored.

    Attributes:
        threshold: the magnitude.
        minimum_sparsity_percentile: a weight with a smaller part of zeros, 0 to 1, does not change.
        weight_threshold: weights of more elements are compressed.
    """

    threshold: float = 1e-12
    minimum_sparsity_percentile: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _number("threshold", self.threshold, np.inf)
        _number("minimum_sparsity_percentile", self.minimum_sparsity_percentile, 1)


def _number(name: str, value: object, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise SpecError(f"{name} is {value!r}; it is a number from 0 to {most:g}")


@dataclass
class OpMagnitudePrunerConfig(OpCompressorConfig):
    """The smallest values become zero, and are not stored.

    Attributes:
        target_sparsity: the part of values that become zero, 0 to 1.
        block_size: with `target_sparsity`, for convolutions and products: so many values along
            `dim` become zero together, chosen by the root of the sum of their squares.
        n_m_ratio: (n, m) in place of `target_sparsity`, for convolutions and products: of every m
            values along `dim`, the n smallest become zero.
        dim: 0 for outputs, the default with `block_size`, or 1 for inputs, the default with
            `n_m_ratio`.
        weight_threshold: weights of more elements are compressed.
    """

    target_sparsity: float | None = None
    block_size: int | None = None
    n_m_ratio: tuple[int, int] | None = None
    dim: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.target_sparsity is None) == (self.n_m_ratio is None):
            raise SpecError(
                "OpMagnitudePrunerConfig takes one of target_sparsity=0.5 and n_m_ratio=(2, 4)"
            )
        if self.target_sparsity is not None:
            _number("target_sparsity", self.target_sparsity, 1)
        if self.n_m_ratio is not None:
            self._check_ratio()
        if self.block_size is not None and not _is_whole(self.block_size, 2):
            raise SpecError(f"block_size is {self.block_size!r}; it is a whole number from 2")
        if not self.is_structured and self.dim is not None:
            raise SpecError("dim goes with block_size or n_m_ratio only")
        if self.is_structured and self.dim is None:
            self.dim = 0 if self.n_m_ratio is None else 1
        if self.is_structured:
            _one_of("dim", self.dim, (0, 1))

    def _check_ratio(self) -> None:
        if self.block_size is not None:
            raise SpecError("block_size goes with target_sparsity, not with n_m_ratio")
        ratio: Any = self.n_m_ratio
        pair = isinstance(ratio, list | tuple) and len(ratio) == 2
        if not pair or not all(_is_whole(n, 0) for n in ratio) or not ratio[0] <= ratio[1] > 0:
            raise SpecError(f"n_m_ratio is {ratio!r}; it is a pair such as (2, 4), n not above m")
        self.n_m_ratio = (ratio[0], ratio[1])

    @property
    def is_structured(self) -> bool:
        """Whether values become zero in blocks, or n of m."""
        return self.block_size is not None or self.n_m_ratio is not None

    def check_op(self, op: str) -> None:
        """Raise a `SpecError` if the weights of an op cannot be pruned in blocks, or n of m."""
        if self.is_structured and op not in _STRUCTURED:
            raise SpecError(
                f"block_size and n_m_ratio are for the weights of {' and '.join(_STRUCTURED)}, not "
                f"of {op!r}"
            )


KINDS: dict[str, type[OpCompressorConfig]] = {
    kind.__name__: kind
    for kind in (
        OpActivationLinearQuantizerConfig,
        OpLinearQuantizerConfig,
        OpPalettizerConfig,
        OpThresholdPrunerConfig,
        OpMagnitudePrunerConfig,
    )
}

_LEVELS = ("global_config", "op_type_configs", "op_name_configs")


@dataclass
class OptimizationConfig:
    """Which weights are compressed, and how; the most specific configuration counts.

    Attributes:
        global_config: for all weights; None leaves them unchanged.
        op_type_configs: for the weights of an op, by its name; None leaves them unchanged.
        op_name_configs: for one weight or operation, by its name; see `get_weights_metadata`.
    """

    global_config: OpCompressorConfig | None = None
    op_type_configs: dict[str, OpCompressorConfig | None] = field(default_factory=dict)
    op_name_configs: dict[str, OpCompressorConfig | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.op_type_configs = dict(self.op_type_configs or {})
        self.op_name_configs = dict(self.op_name_configs or {})
        _check_config("global_config", self.global_config)
        for op, config in self.op_type_configs.items():
            self.set_op_type(op, config)
        for name, config in self.op_name_configs.items():
            self.set_op_name(name, config)

    def set_global(self, op_config: OpCompressorConfig | None) -> None:
        """Set how all weights are compressed."""
        _check_config("global_config", op_config)
        self.global_config = op_config

    def set_op_type(self, op_type: str, op_config: OpCompressorConfig | None) -> None:
        """Set how the weights of an op are compressed."""
        _check_config(op_type, op_config)
        if op_config is not None:
            op_config.check_op(op_type)
        self.op_type_configs[op_type] = op_config

    def set_op_name(self, op_name: str, op_config: OpCompressorConfig | None) -> None:
        """Set how one weight is compressed, or the weights of one operation."""
        _check_config(op_name, op_config)
        self.op_name_configs[op_name] = op_config

    @property
    def configs(self) -> list[OpCompressorConfig]:
        """All configurations that are set."""
        levels = [*self.op_type_configs.values(), *self.op_name_configs.values()]
        return [each for each in (self.global_config, *levels) if each is not None]

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any]) -> OptimizationConfig:
        """A configuration from nested dicts.

        Args:
            config_dict: "config_type", the name of a class, and "global_config",
                "op_type_configs" and "op_name_configs" with its parameters; each may have a
                "config_type" of its own.

        Raises:
            SpecError: it has other keys, or values that do not fit.
        """
        _check_keys(config_dict)
        kind = config_dict.get("config_type")
        if kind is None:
            raise SpecError(f"config_type is missing: one of {', '.join(KINDS)}")
        optimization = cls()
        if config_dict.get("global_config") is not None:
            optimization.set_global(_of_dict(kind, config_dict["global_config"]))
        for level, set_config in (
            ("op_type_configs", optimization.set_op_type),
            ("op_name_configs", optimization.set_op_name),
        ):
            for name, config in _dict(level, config_dict.get(level) or {}).items():
                set_config(name, _of_dict(kind, config))
        return optimization

    @classmethod
    def from_yaml(cls, yml: str | Path | IO[Any]) -> OptimizationConfig:
        """A configuration from a YAML file with the structure that `from_dict` takes.

        Args:
            yml: its path, or the open file.

        Raises:
            MissingDependencyError: PyYAML is not installed.
            SpecError: the file is not YAML, or does not fit.
        """
        try:
            yaml = importlib.import_module("yaml")
        except ImportError as error:
            raise MissingDependencyError(
                "reading YAML needs PyYAML: pip install 'mlferry[yaml]'"
            ) from error
        text = Path(yml).read_text(encoding="utf-8") if isinstance(yml, str | Path) else yml.read()
        try:
            return cls.from_dict(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise SpecError(f"the configuration is not YAML: {error}") from error


def _check_config(where: str, config: object) -> None:
    if config is not None and not isinstance(config, OpCompressorConfig):
        raise SpecError(
            f"{where} is a {type(config).__name__}; it is None or one of {', '.join(KINDS)}"
        )


def _dict(where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SpecError(f"{where} is a {type(value).__name__}; it is a dict")
    return value


def _check_keys(value: object) -> None:
    known = ("config_type", *_LEVELS)
    for key in _dict("the configuration", value):
        if key not in known:
            raise SpecError(
                f"the configuration has no key {key!r}.{did_you_mean(str(key), list(known))} "
                f"It has {', '.join(known)}"
            )


def _of_dict(kind: object, value: object) -> OpCompressorConfig | None:
    if value is None:
        return None
    parameters = dict(_dict("a configuration of weights", value))
    name = parameters.pop("config_type", kind)
    if name not in KINDS:
        raise SpecError(
            f"config_type {name!r} is unknown.{did_you_mean(str(name), list(KINDS))} It is one of "
            f"{', '.join(KINDS)}"
        )
    return KINDS[name].from_dict(parameters)
