"""`quantize_weights`: fewer bits for the weights of every neural network in a model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import SpecError, UnsupportedModelError, context
from mlferry.layers import versions
from mlferry.layers.sites import Site, sites
from mlferry.models.model import MLModel
from mlferry.models.problems import has_programs
from mlferry.models.programs import ProgramOptions, as_program, is_program, to_program
from mlferry.models.quantization import calibration, modes, selectors
from mlferry.models.quantization.allocation import codes_for
from mlferry.models.quantization.codes import Code, TableBlock
from mlferry.models.quantization.programs import (
    GRANULARITIES,
    UNIQUE,
    Encode,
    Scheme,
    apart,
    half,
    plain,
    recoded,
)
from mlferry.models.quantization.vectors import different
from mlferry.models.samples import SampleData, samples_for
from mlferry.models.workers import Executors
from mlferry.numerics.half import LEAST_WHOLE
from mlferry.programs.compressed import BLOCKS, FIRST, TABLE_BITS, Compressed, table_bits
from mlferry.programs.graph import Value
from mlferry.programs.sites import ProgramSite
from mlferry.progress import progress
from mlferry.registry import did_you_mean
from mlferry.spec import networks, weights
from mlferry.spec.proto import model_pb2
from mlferry.text import logger_of

logger = logger_of(__name__)

HALF, DEQUANTIZATION, CUSTOM = "half", "dequantization", "custom_lut"
ALIASES = {"kmeans_lut": "kmeans"}
MODES = (*modes.MODES, CUSTOM, DEQUANTIZATION)


@dataclass(frozen=True)
class Task:
    """What is to be done, checked."""

    mode: str
    bits: int
    selector: selectors.Selector
    lut_function: modes.LutFunction | None = None
    each: Mapping[str, Code] = field(default_factory=dict)

    def allows(self, site: Site) -> bool:
        """Whether the format lets a weight have the encoding of this mode."""
        kind = weights.LINEAR if self.mode in ("linear", "linear_symmetric") else weights.LUT
        return not site.floats or kind in site.floats

    def encode(self, site: Site) -> None:
        """Store a weight anew, by its values alone."""
        with context(f"quantizing {site}"):
            values = site.read()
            if self.mode == CUSTOM:
                assert self.lut_function is not None
                quantized: modes.Quantized = modes.custom_lut(values, self.bits, self.lut_function)
            else:
                quantized = modes.MODES[self.mode](values, site.axis, self.bits)
            quantized.write(site.message, self.bits)


def quantize_weights(
    full_precision_model: Any,
    nbits: int | Sequence[int],
    quantization_mode: str = "linear",
    sample_data: SampleData | None = None,
    *,
    mean_bits: float | None = None,
    lut_function: Callable[[int, Any], Any] | None = None,
    selector: Any = None,
    granularity: str | None = None,
    block_size: int | Sequence[int] = 32,
    group_size: int | Sequence[int] = 32,
    cluster_dim: int | Sequence[int] = 1,
    joint_compression: bool = False,
    convert_to: str | None = None,
    executor: Executors | None = None,
) -> MLModel:
    """A copy of a model whose weights take fewer bits. Its interface stays as it is.

    Quantized are the matrices of every layer kind, in pipelines, loops and branches too.
    Biases and normalization stay floats unless `selector` picks them; at 16 bits they become
    float16 with the rest, since a layer has one float precision. Layer normalization, 3-D
    convolutions below 16 bits, custom layers and updatable layers keep their encoding: Core
    ML's own checker refuses a model whose 3-D convolution has quantized weights, so that it
    would not open on a device; 16 bits are possible there. At 16 bits, a layer with a value
    beyond 65504, such as the constant that masks the scores of a transformer, or a single number
    below 6.1e-5, such as an epsilon, stays in float32; a log message names it.

    The weights of ML Programs are quantized likewise: matrices of more than 2,048 values, in the
    schemes that their format has. Linear ones have 8 bits (iOS 16) or 4 (iOS 18), tables 1, 2, 4, 6
    and 8 (iOS 16) or 3 (iOS 18); blocks, and tables for groups of channels, need iOS 18. The opset
    is raised only as far as the scheme needs.

    Args:
        full_precision_model: an `MLModel`, or what `MLModel` takes.
        nbits: 1 to 8, or 16 for float16. Not used by ``"dequantization"``. With `mean_bits`,
            several from 1 to 8: each weight gets one of them. They are the bits of an index.
        quantization_mode: ``"linear"`` (evenly spaced from the smallest to the largest weight
            of each output channel), ``"linear_symmetric"`` (8 bits), ``"linear_lut"`` (one
            evenly spaced table a weight), ``"kmeans"`` or ``"kmeans_lut"`` (the table with
            the smallest squared error), ``"custom_lut"``, or ``"dequantization"`` (back to
            float32).
        sample_data: inputs that are typical for the model, as for `compare_models`; about 100
            are enough. The weights are then chosen so that each layer's outputs stay near
            those of the float model, which keeps far more accuracy at few bits. Not used at
            16 bits, by ``"custom_lut"`` and by ``"dequantization"``. Programs are made of networks
            with it (`convert_to`): mode ``"kmeans"`` has "per_channel" and "per_grouped_channel"
            there, too; weights whose outputs the groups do not divide stay as they are, which a
            log message tells.
        mean_bits: with `sample_data`, of a network: how many bits a weight has at most on average,
            such as ``quantize_weights(model, (2, 3, 4, 6), "kmeans", samples, mean_bits=3.2)``. The
            weights whose bits change the outputs most get most; half of the samples tell by how
            much: of scores by their Kullback-Leibler divergence, of others by the energy lost.
            Tables count: together the weights take no more than with one table each (or those of
            `granularity`) and indices of `mean_bits`.
        lut_function: for ``"custom_lut"``: ``(nbits, weights) -> (lut, indices)``, called
            once a weight with the array in its stored shape; the table has ``2**nbits``
            entries, every weight one index.
        selector: which weights: see `mlferry.models.quantization.selectors`.
        granularity: of programs: for what there is a scale or a table of its own: "per_tensor"
            (by default for tables), "per_channel" (by default for linear modes),
            "per_grouped_channel" of outputs, for tables, or "per_block": for linear modes of
            inputs, for tables of `group_size` outputs and `block_size` inputs (iOS 18).
        block_size: how many inputs a block has; it divides them. For tables 0 is all of them, and
            with `mean_bits` several are possible, such as (0, 4, 16): each weight gets one of them.
        group_size: how many output channels a group has; it divides them. 0 and several likewise,
            with granularity "per_block".
        cluster_dim: of programs: how many outputs, one after another, an entry of a table of mode
            "kmeans" stands for (iOS 18), so that a weight takes ``nbits / cluster_dim`` bits and
            its part of the table. It divides the outputs, or those of a group; with `sample_data`,
            weights whose outputs it does not divide stay as they are, which a log message tells.
            A weight for which vectors would save nothing has single values with the same bits.
            With `mean_bits` several: each weight gets one of them.
        joint_compression: of programs: what is in fewer bits already is compressed further instead
            of anew (iOS 18): what is left of pruned weights goes into codes or tables, and tables
            into codes with a scale for all of them ("per_tensor") or for each ("per_channel").
        convert_to: "mlprogram" makes a program of a network first (`to_program`).
        executor: runs layers for several samples at a time, of `sample_data`, with up to four
            workers; see `MLModel.predict`. The result is the same.

    Raises:
        SpecError: an argument is not as described above, or `lut_function` gave something that
            does not fit.
        PredictionError: `sample_data` does not fit the model.
        MissingCustomLayerError: with `sample_data`, classes of custom layers are missing.
        UnsupportedModelError: `sample_data` for an ML Program.
        ExportError: the network cannot be made a program.
    """
    source = full_precision_model
    model = source if isinstance(source, MLModel) else MLModel(source)
    choice = _choice(nbits, cluster_dim, mean_bits)
    groups = tuple(_several("group_size", group_size, mean_bits, least=0))
    inputs = tuple(_several("block_size", block_size, mean_bits, least=0))
    task = _task(max(choice.bits), quantization_mode, lut_function, selector)
    for bits in choice.bits if mean_bits is not None else ():
        _task(bits, quantization_mode, lut_function, selector)
    sizes = _Sizes(granularity, inputs, groups, joint_compression, choice.lengths)
    _check_several(task.mode, sizes)
    if mean_bits is not None:
        task = _with_code_each(model, task, sample_data, sizes, choice, mean_bits, convert_to)
    if is_program(convert_to) and not has_programs(model.spec):
        if sample_data is not None and task.mode in _CALIBRATED:
            return _calibrated_program(model, task, sample_data, sizes, executor)
        model = to_program(model)
    if has_programs(model.spec):
        return _program(model, task, sample_data, sizes)
    return _network(model, task, sample_data, sizes, executor)


def _network(
    model: MLModel,
    task: Task,
    sample_data: SampleData | None,
    sizes: _Sizes,
    executor: Executors | None,
) -> MLModel:
    _check_no_sizes(sizes)
    if task.mode == "linear_symmetric" and task.bits == _OF_PROGRAMS_ONLY:
        raise SpecError("linear_symmetric has 8 bits, not 4; 'linear' has 1 to 8")
    spec = model.get_spec()
    work = _WORK.get(task.mode)
    if work is not None:
        too_large = _each_layer(spec, task, work)
        if too_large:
            logger.warning(
                "kept in float32, as half precision ends at %g, and has few digits below %.2g: %s",
                weights.HALF_MAX,
                LEAST_WHOLE,
                ", ".join(too_large),
            )
    elif sample_data is None or task.mode == CUSTOM:
        _by_values(spec, task)
    else:
        job = _job(model, task, None)
        calibration.calibrate(model, spec, sample_data, job, executor)
    for inner in networks.models_in(spec):
        needed = versions.required(inner)
        inner.specificationVersion = max(inner.specificationVersion, needed)
    return model.with_spec(spec)


class _Sizes(NamedTuple):
    """For what there is a scale or table of its own."""

    granularity: str | None
    inputs: tuple[int, ...]  # that a block may have
    groups: tuple[int, ...]  # the outputs that a group or a block of tables may have
    joint: bool
    lengths: tuple[int, ...]  # that vectors in tables may have

    @property
    def have_vectors(self) -> bool:
        """Whether entries of tables may stand for several values."""
        return self.lengths != (1,)

    @property
    def blocks(self) -> list[TableBlock]:
        """What may share a table."""
        if self.granularity == "per_block":
            return [
                TableBlock(outputs, inputs) for outputs in self.groups for inputs in self.inputs
            ]
        sizes = {"per_channel": 1, "per_grouped_channel": self.groups[0]}
        return [TableBlock(sizes.get(self.granularity or "", 0))]

    def codes(self, bits: Sequence[int]) -> list[Code]:
        """All codes with so many bits."""
        return [
            Code(each, length, block)
            for length in self.lengths
            for block in self.blocks
            for each in bits
            if not block.outputs % length
        ]


def _check_several(mode: str, sizes: _Sizes) -> None:
    """Raise a `SpecError` for several blocks or groups where nothing chooses among them."""
    if sizes.granularity == "per_block" and mode == "kmeans":
        return
    for name, numbers in (("block_size", sizes.inputs), ("group_size", sizes.groups)):
        if len(numbers) > 1:
            raise SpecError(
                f"{name} is {numbers!r}; several go with granularity='per_block' and mode 'kmeans'"
            )


def _check_no_sizes(sizes: _Sizes) -> None:
    """Raise a `SpecError` for what networks do not have."""
    for is_given, argument in (
        (sizes.joint, "joint_compression=True"),
        (sizes.granularity is not None, f"granularity={sizes.granularity!r}"),
        (sizes.have_vectors, f"cluster_dim={_shown(sizes.lengths)}"),
    ):
        if is_given:
            raise SpecError(f"{argument} is for ML Programs: add convert_to='mlprogram'")


def _shown(lengths: tuple[int, ...]) -> str:
    """As the argument was written."""
    return str(lengths[0] if len(lengths) == 1 else lengths)


_NEWER_TABLES = set(table_bits(BLOCKS)) - set(table_bits(FIRST))
_CALIBRATED = ("linear", "linear_symmetric", "linear_lut", "kmeans")


def _calibrated_program(
    model: MLModel, task: Task, sample_data: SampleData, sizes: _Sizes, executor: Executors | None
) -> MLModel:
    """A network quantized with samples, as a program.

    Networks have no tables for some channels: there the values that the tables stand for are
    floats, from which the program makes the tables.
    """
    _check_calibrated(task, sizes)
    spec, in_tables = model.get_spec(), _is_in_tables(task, sizes)
    job = _job(model, task, sizes if in_tables else None)
    calibration.calibrate(model, spec, sample_data, job, executor)
    if not in_tables:
        return as_program(model.with_spec(spec), _options(task))
    program = to_program(model.with_spec(spec))
    known: dict[Value, _Tables | None] = {}

    def tables(site: ProgramSite) -> _Tables | None:
        if site.value not in known:
            known[site.value] = _tables(site, task, sizes, job)
        return known[site.value]

    def encode(site: ProgramSite, opset: int) -> Compressed:
        choice = tables(site)
        assert choice is not None
        scheme = Scheme(
            UNIQUE,
            choice.code.bits,
            "per_block" if sizes.granularity else "per_tensor",
            blocks=tuple(
                extent // count for extent, count in zip(site.shape, choice.counts, strict=True)
            ),
            group_axis=choice.axis,
            vector=choice.code.length,
        )
        return scheme.encode(site, opset)

    what = f"{task.mode}, {task.bits} bits"
    return recoded(program, lambda site: tables(site) is not None, encode, what)


class _Tables(NamedTuple):
    """Of a program's weight: the axis along which vectors go, the blocks, and the code."""

    axis: int
    counts: tuple[int, ...]  # of tables along each axis
    code: Code


def _tables(site: ProgramSite, task: Task, sizes: _Sizes, job: calibration.Job) -> _Tables | None:
    """The smallest tables that hold a weight as it is; None where none do, or none pay.

    Weights of embeddings are turned round.
    """
    fitting: list[tuple[float, _Tables]] = []
    known = site.is_matrix or site.is_of_product
    # weights have single values where vectors would save nothing
    lengths = dict.fromkeys((*sizes.lengths, 1)) if known else ()
    for length, block in itertools.product(lengths, sizes.blocks):
        for axis, inputs in ((site.axis, site.input_axis), (site.input_axis, site.axis)):
            extents = site.shape[axis], site.shape[inputs]
            if not block.divides(*extents) or (block.outputs or extents[0]) % length:
                continue
            counts = [1] * len(site.shape)
            counts[axis], counts[inputs] = block.counts(*extents)
            parts = apart(site.array, counts)
            most = max(different(np.moveaxis(part, axis, 0), length) for part in parts)
            if most > 1 << task.bits:
                continue
            needed = max(1, (most - 1).bit_length()) if task.each else task.bits
            code = Code(next(each for each in TABLE_BITS if each >= needed), length)
            size = code.size(site.count, len(parts), job.entry_bits)
            if site.is_matrix or size < job.entry_bits * site.count:
                fitting.append((size, _Tables(axis, tuple(counts), code)))
            break
    return min(fitting, default=(0, None))[1]


def _is_in_tables(task: Task, sizes: _Sizes) -> bool:
    """Whether weights get tables that networks do not have."""
    grouped = sizes.granularity in ("per_channel", "per_block", "per_grouped_channel")
    return task.mode == "kmeans" and (grouped or sizes.have_vectors)


def _check_calibrated(task: Task, sizes: _Sizes) -> None:
    """Raise a `SpecError` for what programs have not, or not with samples."""
    usual = "per_tensor" if task.mode in calibration.TABLES else "per_channel"
    if sizes.have_vectors:
        _check_vectors(task.mode, sizes)
    if _is_in_tables(task, sizes):
        _check_sizes(task, sizes, TABLE_BITS)
    elif sizes.granularity not in (None, usual):
        raise SpecError(
            f"granularity={sizes.granularity!r} with sample_data: mode {task.mode!r} has {usual}; "
            "mode 'kmeans' has per_tensor, per_channel, per_block and per_grouped_channel"
        )


def _job(model: MLModel, task: Task, sizes: _Sizes | None) -> calibration.Job:
    """What is to be done of a network; with sizes, by tables that programs alone have."""
    if sizes is None:
        return calibration.Job(
            task.mode,
            Code(task.bits),
            lambda site: _is_chosen(site, task),
            model._classes,
            each=task.each,
        )
    codes = sizes.codes([task.bits])

    def chosen(site: Site) -> bool:
        return _is_chosen(site, task) and _in_groups(site, codes)

    return calibration.Job(
        task.mode, codes[-1], chosen, model._classes, as_floats=True, each=task.each
    )


_CHOICES = {
    "nbits": "nbits=(2, 3, 4, 6)",
    "cluster_dim": "cluster_dim=(1, 2)",
    "block_size": "block_size=(0, 4, 16)",
    "group_size": "group_size=(0, 4)",
}


class _Choice(NamedTuple):
    """What the code of a weight is chosen from."""

    bits: list[int]  # rising
    lengths: tuple[int, ...]  # of vectors, rising

    @property
    def codes(self) -> list[Code]:
        """All of them."""
        return [Code(bits, length) for length in self.lengths for bits in self.bits]


def _choice(
    nbits: int | Sequence[int], cluster_dim: int | Sequence[int], mean: float | None
) -> _Choice:
    lengths = _several("cluster_dim", cluster_dim, mean)
    if mean is None:
        return _Choice(_several("nbits", nbits, mean), tuple(lengths))
    bits = _several("nbits", nbits, mean)
    if len(bits) * len(lengths) < 2:
        raise SpecError(
            f"nbits is {nbits!r}; with mean_bits it is a choice, such as {_CHOICES['nbits']}"
        )
    choice = _Choice(bits, tuple(lengths))
    rates = [code.rate for code in choice.codes]
    whole = isinstance(mean, int | float) and not isinstance(mean, bool)
    if not whole or not min(rates) <= mean <= max(rates):
        vectors = "" if choice.lengths == (1,) else f", cluster_dim={_shown(choice.lengths)}"
        raise SpecError(
            f"mean_bits is {mean!r}; with nbits={tuple(bits)}{vectors} it is a number from "
            f"{min(rates):g} to {max(rates):g}"
        )
    return choice


def _several(
    name: str, argument: int | Sequence[int], mean: float | None, *, least: int = 1
) -> list[Any]:
    """An argument that is one number, or with a mean several; rising."""
    several = isinstance(argument, Sequence) and not isinstance(argument, str)
    if mean is None and not several:
        return [argument]
    if mean is None:
        raise SpecError(
            f"{name} is {argument!r}; several go with mean_bits=..., the bits of a weight on "
            "average"
        )
    numbers = list(argument) if isinstance(argument, Sequence) else [argument]
    if not numbers or not all(isinstance(each, int) and each >= least for each in numbers):
        raise SpecError(
            f"{name} is {argument!r}; with mean_bits it is a choice, such as {_CHOICES[name]}"
        )
    return sorted(set(numbers))


def _with_code_each(
    model: MLModel,
    task: Task,
    sample_data: SampleData | None,
    sizes: _Sizes,
    choice: _Choice,
    mean: float,
    convert_to: str | None,
) -> Task:
    """With a code for each weight, of as many bits as it needs."""
    if sample_data is None or task.mode not in _CALIBRATED:
        raise SpecError(
            "mean_bits needs sample_data, and one of the modes " + ", ".join(_CALIBRATED)
        )
    if networks.network_of(model.spec) is None:
        raise UnsupportedModelError(
            "mean_bits is for a neural network: quantize the models of a pipeline one by one, and "
            "a program as the network that it is made of, with convert_to='mlprogram'"
        )
    if is_program(convert_to):
        for bits in choice.bits if _is_in_tables(task, sizes) else ():
            _check_calibrated(replace(task, bits=bits), sizes)
        _check_calibrated(task, sizes)
    else:
        _check_no_sizes(sizes)
    job = _job(model, task, sizes if _is_in_tables(task, sizes) else None)
    samples = [dict(sample.data) for sample in samples_for(model.get_spec(), sample_data)]
    codes = sizes.codes(choice.bits)
    each = codes_for(model.get_spec(), samples, job, codes, mean)
    for name, code in each.items():
        logger.info("%s: %s", name, code)
    return replace(task, each=each)


def _options(task: Task) -> ProgramOptions:
    """With the opset that has tables of so many bits; an older one would store them wider."""
    table = task.mode in ("linear_lut", "kmeans")
    newer = table and not _NEWER_TABLES.isdisjoint(
        {task.bits, *(code.bits for code in task.each.values())}
    )
    return ProgramOptions(at_least=BLOCKS) if newer else ProgramOptions()


def _check_vectors(mode: str, sizes: _Sizes) -> None:
    if mode != "kmeans":
        raise SpecError(
            f"cluster_dim={_shown(sizes.lengths)} in mode {mode!r}: write "
            "quantization_mode='kmeans'"
        )
    for length in sizes.lengths:
        outputs = [block.outputs for block in sizes.blocks]
        if isinstance(length, int) and length > 0 and all(size % length for size in outputs):
            raise SpecError(
                f"cluster_dim={length} does not divide groups of {outputs[0]} channels: group_size="
                f"{length * max(1, outputs[0] // length)}, granularity='per_grouped_channel' fit"
            )


def _in_groups(site: Site, codes: Sequence[Code]) -> bool:
    """Whether such tables are possible for a weight; else it stays as it is."""
    if any(calibration.divides(site, code) for code in codes):
        return True
    least = codes[0]
    what = f"groups of {least.block.outputs or least.length} of its outputs"
    if least.block.inputs:
        what = f"blocks of {least.block}"
    logger.warning("%s stays as it is: no %s", site, what)
    return False


def _program(model: MLModel, task: Task, sample_data: SampleData | None, sizes: _Sizes) -> MLModel:
    if sample_data is not None:
        raise UnsupportedModelError(
            "sample_data is for neural networks: quantize the network with it, and "
            "mlferry.to_program(quantized) keeps its tables and codes"
        )
    if task.mode in _OF_PROGRAMS:
        return recoded(model, task.selector, _OF_PROGRAMS[task.mode], task.mode)
    linear = task.mode in ("linear", "linear_symmetric")
    granularity = sizes.granularity or ("per_channel" if linear else "per_tensor")
    fitting = GRANULARITIES[:3] if linear else GRANULARITIES
    if granularity not in fitting:
        raise SpecError(
            f"granularity={granularity!r}: of mode {task.mode!r} possible are {', '.join(fitting)}"
        )
    _check_sizes(task, sizes, program_bits(task.mode))
    if sizes.have_vectors:
        _check_vectors(task.mode, sizes)
    (length,) = sizes.lengths
    scheme = Scheme(
        task.mode,
        task.bits,
        granularity,
        sizes.inputs[0],
        sizes.groups[0],
        task.lut_function,
        sizes.joint,
        vector=length,
    )

    def encode(site: ProgramSite, opset: int) -> Compressed:
        return scheme.without_costly_vectors(site).encode(site, opset)

    return recoded(model, task.selector, encode, f"{task.mode}, {task.bits} bits")


def program_bits(mode: str) -> tuple[int, ...]:
    """The bits that a mode has in ML Programs."""
    return (4, 8) if mode in ("linear", "linear_symmetric") else TABLE_BITS


def _check_sizes(task: Task, sizes: _Sizes, possible: tuple[int, ...]) -> None:
    """Raise a `SpecError` for bits, blocks and groups that programs do not have."""
    if task.bits not in possible:
        other = "; mode 'linear_lut' has others" if possible != TABLE_BITS else ""
        raise SpecError(
            f"nbits is {task.bits}; in ML Programs mode {task.mode!r} has "
            f"{', '.join(map(str, possible))}{other}"
        )
    linear = task.mode in ("linear", "linear_symmetric")
    least = 0 if sizes.granularity == "per_block" and not linear else 1
    known = (
        ("block_size", sizes.inputs, least),
        ("group_size", sizes.groups, least),
        ("cluster_dim", sizes.lengths, 1),
    )
    for name, numbers, smallest in known:
        for size in numbers:
            if isinstance(size, bool) or not isinstance(size, int) or size < smallest:
                zero = "" if smallest else ", or 0 for all"
                raise SpecError(f"{name} is {size!r}; it is a positive integer{zero}")


_OF_PROGRAMS_ONLY = 4  # symmetric bits
_OF_PROGRAMS: dict[str, Encode] = {HALF: half, DEQUANTIZATION: plain}


def _task(
    nbits: int,
    quantization_mode: str,
    lut_function: Callable[[int, Any], Any] | None,
    selector: Any,
) -> Task:
    mode = ALIASES.get(quantization_mode, quantization_mode)
    if mode not in MODES:
        known = [*MODES, *ALIASES]
        close = did_you_mean(str(quantization_mode), known)
        raise SpecError(
            f"quantization mode {quantization_mode!r} is unknown.{close} "
            f"The modes are {', '.join(known)}"
        )
    default = selectors.matrices
    if mode == DEQUANTIZATION:
        return Task(mode, 32, selectors.resolve(selector, selectors.everything))
    if isinstance(nbits, bool) or nbits not in (*range(1, 9), 16):
        raise SpecError(
            f"nbits is {nbits!r}; possible are 1 to 8, and 16 for half precision"
            + ("; for float32 write quantization_mode='dequantization'" if nbits == 32 else "")
        )
    if mode == "linear_symmetric" and nbits not in (4, 8, 16):
        raise SpecError(
            f"linear_symmetric has 8 bits, and 4 in ML Programs, not {nbits}; 'linear' has 1 to 8"
        )
    if mode == CUSTOM and lut_function is None:
        raise SpecError(
            "custom_lut needs lut_function=..., a function (nbits, weights) -> (lut, indices)"
        )
    if lut_function is not None and not callable(lut_function):
        raise SpecError(
            f"lut_function is a {type(lut_function).__name__}; it must be a function "
            "(nbits, weights) -> (lut, indices)"
        )
    if lut_function is not None and mode != CUSTOM:
        raise SpecError(
            f"lut_function is given, but the mode is {mode!r}; write quantization_mode='custom_lut'"
        )
    if nbits == 16:
        return Task(HALF, 16, selectors.resolve(selector, selectors.everything))
    return Task(mode, int(nbits), selectors.resolve(selector, default), lut_function)


def _is_chosen(site: Site, task: Task) -> bool:
    if not task.selector(site):
        return False
    if not task.allows(site):
        logger.info("%s stays as it is: the format wants %s", site, " or ".join(site.floats))
        return False
    return True


def _by_values(spec: model_pb2.Model, task: Task) -> None:
    """Encode every chosen weight by its own values."""
    chosen = [
        site
        for network in _networks(spec)
        for layer in sites(network)
        for site in layer
        if _is_chosen(site, task)
    ]
    for site in progress(chosen, f"{task.mode}, {task.bits} bits"):
        task.encode(site)


def _networks(spec: model_pb2.Model) -> list[networks.Network]:
    every = (networks.network_of(model) for model in networks.models_in(spec))
    return [network for network in every if network is not None]


def _each_layer(
    spec: model_pb2.Model, task: Task, work: Callable[[list[Site]], list[str]]
) -> list[str]:
    """Change all layers; returns the weights that had to stay as they are."""
    layers = [layer for network in _networks(spec) for layer in sites(network)]
    left = []
    for layer in progress(layers, task.mode):
        if any(task.selector(site) for site in layer):
            left += work(layer)
    return left


def _to_half(layer: list[Site]) -> list[str]:
    """Float32 to float16: all of a layer, as a layer has one float precision."""
    if any(site.floats and weights.FLOAT16 not in site.floats for site in layer):
        return []
    floats = [site for site in layer if site.encoding == weights.Encoding(weights.FLOAT32, 32)]
    arrays = [site.read() for site in floats]
    if not all(map(weights.fits_half, arrays)) or any(map(_is_small_number, arrays)):
        return [str(layer[0])]
    for site, array in zip(floats, arrays, strict=True):
        weights.write_half(site.message, array)
    return []


def _is_small_number(array: NDArray[np.float32]) -> bool:
    """Whether it is one number, such as an epsilon, of which half precision leaves few digits."""
    return array.size == 1 and 0 < abs(array.item()) < LEAST_WHOLE


def _to_float(layer: list[Site]) -> list[str]:
    """Everything but float32 to float32: all of a layer, for the same reason."""
    for site in layer:
        if site.encoding != weights.Encoding(weights.FLOAT32, 32):
            weights.write(site.message, site.read())
    return []


_WORK: dict[str, Callable[[list[Site]], list[str]]] = {HALF: _to_half, DEQUANTIZATION: _to_float}
