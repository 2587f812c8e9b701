"""Fewer bits for the weights of ML Programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import SpecError, context
from mlferry.models.model import MLModel
from mlferry.models.progress import progress
from mlferry.models.quantization import modes
from mlferry.models.quantization.kmeans import nearest
from mlferry.programs import compressed
from mlferry.programs.builder import NewerOpsetError, evaluated
from mlferry.programs.compressed import Compressed
from mlferry.programs.definitions import definition_of
from mlferry.programs.graph import Block, Operation, Value, constant, readers, sweep
from mlferry.programs.passes.opset import raise_opset
from mlferry.programs.reading import read_function
from mlferry.programs.types import TensorType
from mlferry.programs.values import Weights
from mlferry.programs.writing import WEIGHT_FILE, ProgramWriter, program_of
from mlferry.spec import networks
from mlferry.spec.proto import model_pb2
from mlferry.text import logger_of

logger = logger_of(__name__)

Floats = NDArray[np.float32]
GRANULARITIES = ("per_tensor", "per_channel", "per_block", "per_grouped_channel")
_SELECTORS = "mlferry.models.quantization"
_THRESHOLD = 2048  # a constant of more elements is a weight, as in coremltools

# The axis of outputs in the weights of an op, and the axis of inputs; the others have 0 and 1.
_AXES = {("conv_transpose", "weight"): (1, 0), ("matmul", "y"): (-1, -2)}
_WEIGHTS = {"weight", "weight_ih", "weight_hh", "weight_ih_back", "weight_hh_back", "x", "y"}


@dataclass(frozen=True)
class ProgramSite:
    """A constant of a program that may be stored anew.

    Attributes:
        value: it.
        kind: the op that reads it.
        field: for which parameter.
        name: of what that makes.
        array: its values, float32.
    """

    value: Value
    kind: str
    field: str
    name: str
    array: Floats = dataclasses.field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.array.shape

    @property
    def count(self) -> int:
        """How many values it has."""
        return self.array.size

    @property
    def is_matrix(self) -> bool:
        """Whether it is a weight of more than 2,048 values, as in coremltools, and no vector."""
        return self.count > _THRESHOLD and len(self.shape) > 1 and self.field in _WEIGHTS

    @property
    def axis(self) -> int:
        """The axis of outputs."""
        return _AXES.get((self.kind, self.field), (0, 1))[0] % len(self.shape)

    @property
    def input_axis(self) -> int:
        """The axis of inputs, along which blocks go."""
        return _AXES.get((self.kind, self.field), (0, 1))[1] % len(self.shape)

    def __str__(self) -> str:
        return f"{self.field} of {self.kind} {self.name!r}"


Encode = Callable[[ProgramSite, int], "Compressed | None"]
Selector = Callable[[Any], bool]


def recoded(model: MLModel, selector: Selector, encode: Encode, what: str) -> MLModel:
    """A copy of a model whose programs have other constants; opsets are raised where needed.

    Args:
        model: with one program at least.
        selector: which constants.
        encode: a constant and the number of the opset in, an operation that makes it out; None
            for a plain constant.
        what: is done, for the progress bar.

    Raises:
        SpecError: what is asked needs a newer opset, in which an operation means something else.
    """
    spec, weights = model.get_spec(), model.program_weights
    memory = ProgramWriter()
    for inner in networks.models_in(spec):
        if inner.WhichOneof("Type") == "mlProgram":
            _recode(inner, weights, memory, selector, encode, what)
    return model.with_spec(spec, weights=Weights(memory={WEIGHT_FILE: memory.store}))


def _recode(
    spec: model_pb2.Model,
    weights: Weights,
    writer: ProgramWriter,
    selector: Selector,
    encode: Encode,
    what: str,
) -> None:
    program = spec.mlProgram
    functions = [(name, program.functions[name]) for name in sorted(program.functions)]
    read = [(name, *read_function(message, weights)) for name, message in functions]
    opset = max(own for _, _, own in read)
    while True:
        try:
            changes = [
                _changes(block, own, opset, selector, encode, what) for _, block, own in read
            ]
            break
        except NewerOpsetError as newer:
            opset = newer.opset
            logger.info("CoreML%d is needed for %s", opset, newer.op)
    attributes = dict(program.attributes)
    for (_, block, own), found in zip(read, changes, strict=True):
        _raise(block, own, opset)
        for site, made in found:
            _put(block, site, made)
    written = [(name, writer.function(block, opset)) for name, block, _ in read]
    program.CopyFrom(program_of(written))
    for name, value in attributes.items():
        program.attributes[name].CopyFrom(value)
    spec.specificationVersion = max(spec.specificationVersion, opset + 1)


def _raise(block: Block, own: int, opset: int) -> None:
    try:
        raise_opset(block, own, opset)
    except SpecError as error:
        if opset < compressed.BLOCKS:
            raise
        raise SpecError(
            f"{error}\nschemes of iOS 16 need no newer opset: nbits=8, or a table of 1, 2, 4, 6 or "
            "8 bits with quantization_mode='kmeans', and granularity='per_tensor'"
        ) from error


def _changes(
    block: Block, own: int, opset: int, selector: Selector, encode: Encode, what: str
) -> list[tuple[ProgramSite, Compressed | None]]:
    """The constants of a function of opset `own` as one of another opset holds them."""
    chosen = [site for site in sites(block, own) if selector(site)]
    made = []
    for site in progress(chosen, what):
        with context(f"storing {site}"):
            made.append((site, encode(site, opset)))
    return made


def sites(block: Block, opset: int) -> Iterator[ProgramSite]:
    """The constants of floats in a function that operations read, each once."""
    used = readers(block)
    for value, operations in used.items():
        kind = value.type
        if not isinstance(kind, TensorType) or kind.dtype not in ("fp16", "fp32"):
            continue
        maker = value.maker
        if not (value.is_constant or (maker is not None and maker.op.startswith("constexpr_"))):
            continue
        reader = operations[0]
        if reader.op.startswith("constexpr_"):
            continue
        parameter = next(n for n, a in reader.arguments.items() if value in _values(a))
        name = reader.outputs[0].name if reader.outputs else reader.source
        array = _whole(value, opset)
        yield ProgramSite(value, reader.op, parameter, name, array)


def _values(argument: Any) -> tuple[Value, ...]:
    return argument if isinstance(argument, tuple) else (argument,)


def _whole(value: Value, opset: int) -> Floats:
    """The values of a constant, however it is stored."""
    if value.is_constant:
        return np.asarray(value.constant, np.float32)
    maker = value.maker
    assert maker is not None
    known = {
        name: (argument if argument.is_constant else _known(argument, opset))
        for name, argument in maker.arguments.items()
        if isinstance(argument, Value)
    }
    kinds = [each.tensor for each in maker.outputs]
    made = evaluated(maker.op, opset, definition_of(maker.op, opset), known, kinds)
    return np.asarray(made[maker.outputs.index(value)], np.float32)


def _known(value: Value, opset: int) -> Value:
    return constant(_whole(value, opset).astype(_NUMPY[value.dtype]), value.dtype)


_NUMPY = {"fp16": np.float16, "fp32": np.float32}


def _put(block: Block, site: ProgramSite, made: Compressed | None) -> None:
    """Let an operation make a constant, or the constant stand by itself, under the same name."""
    old = site.value
    if made is None:
        new = constant(site.array.astype(_NUMPY[old.dtype]), old.dtype, old.name)
    else:
        new = Value(old.name or f"{site.name}_{site.field}", old.type)
        new.maker = Operation(made.op, dict(made.arguments), (new,), source=site.name)
    block.replace({old: new})
    sweep(block)
    if new.maker is not None:
        block.operations.insert(0, new.maker)


# ---- encodings ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scheme:
    """How weights of programs are stored in fewer bits.

    Attributes:
        mode: "linear", "linear_symmetric", or one that makes tables.
        bits: of a code.
        granularity: for what there is a scale, or a table, of its own.
        block_size: inputs of a block.
        group_size: output channels of a group.
        lut_function: for "custom_lut".
    """

    mode: str
    bits: int
    granularity: str
    block_size: int = 32
    group_size: int = 32
    lut_function: modes.LutFunction | None = None

    def encode(self, site: ProgramSite, opset: int) -> Compressed:
        """A constant in this scheme.

        Raises:
            NewerOpsetError: it needs a newer opset.
            SpecError: the format has no such scheme, or blocks do not divide the constant.
        """
        if not np.isfinite(site.array).all():
            raise SpecError("weights that are infinite or no number cannot be quantized")
        if self.mode in ("linear", "linear_symmetric"):
            return self._linear(site, opset)
        return self._table(site, opset)

    def _linear(self, site: ProgramSite, opset: int) -> Compressed:
        values, shape = site.array, site.shape
        counts = self._counts(site)
        blocks = _in_blocks(values, counts)
        axes = tuple(range(1, 2 * len(shape), 2))
        symmetric = self.mode == "linear_symmetric"
        least, most = _limits(self.bits, symmetric)
        low = np.minimum(blocks.min(axis=axes, keepdims=True), 0).astype(np.float64)
        high = np.maximum(blocks.max(axis=axes, keepdims=True), 0).astype(np.float64)
        if symmetric:
            low, high = -np.maximum(-low, high), np.maximum(-low, high)
        scale = ((high - low) / (most - least)).astype(_NUMPY[site.value.dtype]).astype(np.float32)
        scale[scale == 0] = 1
        zero_point = np.zeros_like(scale) if symmetric else np.rint(least - low / scale)
        zero_point = np.clip(zero_point, least, most)
        codes = np.clip(np.rint(blocks / scale) + zero_point, least, most)
        kind = np.int8 if symmetric else np.uint8
        return compressed.scaled(
            opset,
            np.ascontiguousarray(codes.reshape(shape), kind),
            scale.reshape(counts),
            zero_point.reshape(counts).astype(kind),
            self.bits,
            site.value.dtype,
        )

    def _counts(self, site: ProgramSite) -> list[int]:
        """How many scales there are along each axis."""
        counts = [1] * len(site.shape)
        if self.granularity == "per_tensor":
            return counts
        counts[site.axis] = site.shape[site.axis]
        if self.granularity == "per_block":
            extent = site.shape[site.input_axis]
            if extent % self.block_size:
                raise SpecError(
                    f"block_size {self.block_size} does not divide its {extent} inputs; "
                    f"{_divisor(extent, self.block_size)} does, or leave it out with "
                    f"selector={_SELECTORS}.but({_SELECTORS}.by_name({site.name!r}))"
                )
            counts[site.input_axis] = extent // self.block_size
        return counts

    def _table(self, site: ProgramSite, opset: int) -> Compressed:
        values = site.array
        if self.granularity == "per_tensor":
            codes, table = self._codes(values)
            return compressed.looked_up(opset, codes, table, self.bits, site.value.dtype)
        extent = site.shape[site.axis]
        size = 1 if self.granularity == "per_channel" else self.group_size
        if extent % size:
            raise SpecError(
                f"group_size {size} does not divide its {extent} channels; "
                f"{_divisor(extent, size)} does"
            )
        if opset < compressed.BLOCKS:
            raise NewerOpsetError("tables for groups of channels", compressed.BLOCKS)
        parts = np.split(values, extent // size, axis=site.axis)
        found = [self._codes(part) for part in parts]
        codes = np.concatenate([codes for codes, _ in found], axis=site.axis)
        shape = [1] * values.ndim
        shape[site.axis] = len(parts)
        tables = np.stack([table for _, table in found]).reshape(*shape, -1)
        return compressed.looked_up(opset, codes, tables, self.bits, site.value.dtype)

    def _codes(self, values: Floats) -> tuple[NDArray[np.uint8], Floats]:
        """Indices, and a table of all entries that the bits can say."""
        if self.lut_function is not None:
            made = modes.custom_lut(values, self.bits, self.lut_function)
        else:
            table = modes.MODES[self.mode](np.ascontiguousarray(values), None, self.bits)
            assert isinstance(table, modes.Table)
            made = table
        entries = np.zeros(1 << self.bits, np.float32)
        entries[: made.table.size] = made.table
        if self.lut_function is None:  # of the numbers that the file holds, the nearest
            entries[made.table.size :] = made.table[-1] if made.table.size else 0
            indices = nearest(values, np.sort(entries)).reshape(values.shape)
            return indices, np.sort(entries)
        return made.indices, entries


def _limits(bits: int, symmetric: bool) -> tuple[int, int]:
    if symmetric:
        return -(1 << (bits - 1)) + 1, (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1


def _in_blocks(values: Floats, counts: list[int]) -> Floats:
    """[count, size] for each axis, one after another."""
    pairs = zip(values.shape, counts, strict=True)
    return values.reshape([n for extent, count in pairs for n in (count, extent // count)])


def _divisor(extent: int, wanted: int) -> int:
    """The largest number up to the one wanted that divides an extent."""
    return next(n for n in range(min(wanted, extent), 0, -1) if extent % n == 0)


def half(site: ProgramSite, opset: int) -> Compressed | None:
    """float32 as float16 in the file, where all of its values fit; others stay."""
    fits = np.abs(site.array).max(initial=0) <= np.finfo(np.float16).max
    if site.value.dtype == "fp16" or not fits:
        return None
    return compressed.widened(opset, site.array)


def plain(site: ProgramSite, opset: int) -> None:
    """As a constant by itself."""
