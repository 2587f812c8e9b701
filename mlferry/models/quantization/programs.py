"""Fewer bits for the weights of ML Programs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import SpecError, context
from mlferry.models.model import MLModel
from mlferry.models.quantization import modes
from mlferry.models.quantization.codes import Code
from mlferry.models.quantization.kmeans import kmeans_rows, nearest, nearest_in_rows
from mlferry.models.quantization.vectors import Codes, as_vectors, distinct_vectors, kmeans_vectors
from mlferry.programs import compressed
from mlferry.programs.builder import NewerOpsetError
from mlferry.programs.compressed import Compressed
from mlferry.programs.graph import Block, Operation, Value, constant, names, sweep
from mlferry.programs.parts import CompressedParts
from mlferry.programs.passes.opset import raise_opset
from mlferry.programs.reading import read_function
from mlferry.programs.sites import Floats, ProgramSite, sites
from mlferry.programs.types import DTYPES
from mlferry.programs.values import Weights
from mlferry.programs.writing import WEIGHT_FILE, ProgramWriter, program_of
from mlferry.progress import progress
from mlferry.spec import mapped, networks
from mlferry.spec.proto import model_pb2
from mlferry.text import logger_of, unused

logger = logger_of(__name__)

_CHUNK = 1 << 17  # values worked on at a time
GRANULARITIES = ("per_tensor", "per_channel", "per_block", "per_grouped_channel")
_SELECTORS = "mlferry.models.quantization"
UNIQUE = "unique"  # the mode of tables of the values that there are
_VECTORS = {"kmeans": kmeans_vectors, UNIQUE: distinct_vectors}
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
                _changes(block, own, opset, selector, encode, what, writer.store.scratch)
                for _, block, own in read
            ]
            break
        except NewerOpsetError as newer:
            opset = newer.opset
            logger.info("CoreML%d is needed for %s", opset, newer.op)
    for (_, block, own), found in zip(read, changes, strict=True):
        _raise(block, own, opset)
        _put(block, found, writer.store.scratch)
    write_functions(spec, [(name, block) for name, block, _ in read], opset, writer)


def write_functions(
    spec: model_pb2.Model, functions: Sequence[tuple[str, Block]], opset: int, writer: ProgramWriter
) -> None:
    """Give a model other functions, in place; what else its program says stays.

    Args:
        spec: of a program.
        functions: names and blocks.
        opset: of them.
        writer: takes their constants.
    """
    program = spec.mlProgram
    attributes = dict(program.attributes)
    written = [(name, writer.function(block, opset)) for name, block in functions]
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
    block: Block,
    own: int,
    opset: int,
    selector: Selector,
    encode: Encode,
    what: str,
    scratch: mapped.Scratch,
) -> list[tuple[ProgramSite, Compressed | None]]:
    """The constants of a function of opset `own` as one of another opset holds them.

    Neither what was read nor what was made of it stays in memory if it is large.
    """
    chosen = [site for site in sites(block, own) if selector(site)]
    results = []
    for site in progress(chosen, what):
        with context(f"storing {site}"):
            result = encode(site, opset)
            if result is not None:
                _keep(result, scratch)
            results.append((site, result))
            site.let_go()
    return results


def _keep(compressed: Compressed, scratch: mapped.Scratch) -> None:
    """Put the large constants that an operation gets, and those before it, into a scratch file."""
    waiting = [compressed.arguments]
    while waiting:
        for argument in waiting.pop().values():
            for value in argument if isinstance(argument, tuple) else (argument,):
                if value.maker is not None:
                    waiting.append(value.maker.arguments)
                elif isinstance(value.constant, np.ndarray) and value.dtype != "string":
                    value.constant = scratch.keep(value.constant)


def _put(
    block: Block, changes: list[tuple[ProgramSite, Compressed | None]], scratch: mapped.Scratch
) -> None:
    """Let operations make constants, or constants stand by themselves, under the same names."""
    new: dict[Value, Value] = {}
    makers: list[Operation] = []
    used_names = names(block)
    for site, replacement in changes:
        old = site.value
        if replacement is None:
            array = scratch.keep(site.array.astype(DTYPES[old.dtype].array))
            site.let_go()
            new[old] = constant(array, old.dtype, old.name)
            continue
        name = old.name or f"{site.name}_{site.field}"
        new[old] = Value(name, old.type)
        maker = Operation(
            replacement.op, dict(replacement.arguments), (new[old],), source=site.name
        )
        new[old].maker = maker
        makers += _chain(maker, name, used_names)
    _share_axes(makers)
    block.replace(new)
    sweep(block)
    block.operations = makers + [each for each in block.operations if each not in makers]


def _share_axes(makers: Sequence[Operation]) -> None:
    """Let operations whose vectors go along the same axis read one constant."""
    known: dict[int, Value] = {}
    for maker in makers:
        axis = maker.arguments.get("vector_axis")
        if isinstance(axis, Value):
            maker.arguments["vector_axis"] = known.setdefault(int(axis.constant), axis)


def _chain(last: Operation, name: str, used_names: set[str]) -> list[Operation]:
    """An operation behind those that make what it gets, whose values get names of their own."""
    operations: list[Operation] = []
    for parameter, argument in last.arguments.items():
        for value in argument if isinstance(argument, tuple) else (argument,):
            if value.maker is None or value.maker in operations:
                continue
            operations += _chain(value.maker, f"{name}_{parameter}", used_names)
            for index, output in enumerate(value.maker.outputs):
                if output.name:
                    continue
                label = f"{name}_{parameter}" + (f"_{index}" if index else "")
                output.name = unused(label, used_names)
    return [*operations, last]


# ---- encodings ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scheme:
    """How weights of programs are stored in fewer bits.

    Attributes:
        mode: "linear", "linear_symmetric", or one that makes tables.
        bits: of a code.
        granularity: for what there is a scale, or a table, of its own.
        block_size: inputs of a block; of tables 0 is all of them.
        group_size: output channels of a group, or of a block of tables; likewise.
        lut_function: for "custom_lut".
        joint: whether what is stored in fewer bits is compressed further, instead of anew.
        signed: whether codes are; by default those of "linear_symmetric".
        blocks: instead of `block_size`: the extent of a block along each axis, 0 for all of it.
        group_axis: instead of that of outputs, the axis along which groups of tables, and the
            vectors in them, go.
        vector: how many values an entry of a table has.
        scales: whether values are divided by the largest magnitude along the axis of groups, so
            that a table holds values from -1 to 1.
    """

    mode: str
    bits: int
    granularity: str
    block_size: int = 32
    group_size: int = 32
    lut_function: modes.LutFunction | None = None
    joint: bool = False
    signed: bool | None = None
    blocks: tuple[int, ...] | None = None
    group_axis: int | None = None
    vector: int = 1
    scales: bool = False

    @property
    def is_linear(self) -> bool:
        """Whether codes have scales, not tables."""
        return self.mode in ("linear", "linear_symmetric")

    def without_costly_vectors(self, site: ProgramSite) -> Scheme:
        """This, or with tables of single values where those of vectors would save nothing."""
        if self.vector == 1:
            return self
        tables = math.prod(self._table_counts(site))
        entry = 8 * DTYPES[site.value.dtype].array.itemsize
        code = Code(self.bits, self.vector).or_single(site.count, tables, entry)
        return replace(self, vector=code.length)

    def _axis(self, site: ProgramSite) -> int:
        """Along which groups of tables, and the vectors in them, go."""
        return site.axis if self.group_axis is None else self.group_axis % len(site.shape)

    def encode(self, site: ProgramSite, opset: int) -> Compressed:
        """A constant in this scheme.

        Raises:
            NewerOpsetError: it needs a newer opset.
            SpecError: the format has no such scheme, or blocks do not divide the constant.
        """
        if not np.isfinite(site.array).all():
            raise SpecError("weights that are infinite or no number cannot be quantized")
        parts = site.parts if self.joint else None
        if parts is not None:
            return self._further(parts, site, opset)
        return self._linear(site, opset) if self.is_linear else self._table(site, opset)

    def _further(self, parts: CompressedParts, site: ProgramSite, opset: int) -> Compressed:
        if opset < compressed.BLOCKS:
            raise NewerOpsetError("joint compression", compressed.BLOCKS)
        dtype = site.value.dtype
        if parts.codes is None:
            scaled = (
                self._linear(site, opset)
                if self.is_linear
                else self._table(site, opset, parts.mask)
            )
            return parts.with_codes(scaled).written(opset, site.array, dtype)
        table = parts.table
        if not self.is_linear or table is None or not table.is_constant:
            raise SpecError(
                f"it is {parts.what} already; joint_compression=False stores it anew, "
                f"selector={_SELECTORS}.but({_SELECTORS}.by_name({site.name!r})) leaves it so"
            )
        entries = np.asarray(table.constant, np.float32)
        counts = [1] * entries.ndim
        if self.granularity == "per_channel":
            counts[:-2] = entries.shape[:-2]
        elif self.granularity != "per_tensor":
            raise SpecError(
                f"granularity={self.granularity!r}: a table has granularity='per_tensor', or "
                "'per_channel' for a scale of each table"
            )
        scaled = self._scaled(entries, counts, opset, dtype)
        return parts.with_table(scaled.outputs(opset)[0]).written(opset, site.array, dtype)

    def _linear(self, site: ProgramSite, opset: int) -> Compressed:
        return self._scaled(site.array, self._counts(site), opset, site.value.dtype)

    def _scaled(self, values: Floats, counts: list[int], opset: int, dtype: str) -> Compressed:
        """Codes; `counts` are how many scales there are along each axis."""
        shape = values.shape
        blocks = _in_blocks(values, counts)
        axes = tuple(range(1, 2 * len(shape), 2))
        symmetric = self.mode == "linear_symmetric"
        signed = symmetric if self.signed is None else self.signed
        least, most = _limits(self.bits, symmetric=symmetric, signed=signed)
        low = np.minimum(blocks.min(axis=axes, keepdims=True), 0).astype(np.float64)
        high = np.maximum(blocks.max(axis=axes, keepdims=True), 0).astype(np.float64)
        if symmetric:
            low, high = -np.maximum(-low, high), np.maximum(-low, high)
        scale = ((high - low) / (most - least)).astype(DTYPES[dtype].array).astype(np.float32)
        scale[scale == 0] = 1
        middle = np.full_like(scale, (least + most) // 2)
        zero_point = middle if symmetric else np.rint(least - low / scale)
        zero_point = np.clip(zero_point, least, most)
        kind = np.int8 if signed else np.uint8
        codes = np.empty(blocks.shape, kind)
        for part in _parts(blocks.shape):
            steps = blocks[part] / _share(scale, part)
            np.rint(steps, out=steps)
            steps += _share(zero_point, part)
            np.clip(steps, least, most, out=steps)
            codes[part] = steps
        return compressed.scaled(
            opset,
            codes.reshape(shape),
            scale.reshape(counts),
            zero_point.reshape(counts).astype(kind),
            self.bits,
            dtype,
        )

    def _counts(self, site: ProgramSite) -> list[int]:
        """How many scales there are along each axis."""
        counts = [1] * len(site.shape)
        if self.granularity == "per_tensor":
            return counts
        if self.granularity == "per_block" and self.blocks is not None:
            return [
                extent // (size or extent)
                for extent, size in zip(site.shape, self.blocks, strict=True)
            ]
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

    def _table(self, site: ProgramSite, opset: int, mask: NDArray[Any] | None = None) -> Compressed:
        """Indices; with a mask, of what it lets through alone."""
        values, dtype = site.array, site.value.dtype
        axis = self._axis(site)
        if mask is not None and (self.scales or self.vector > 1):
            raise SpecError(
                "what is left of pruned weights has neither tables of vectors nor scales beside "
                "tables: leave out joint_compression, cluster_dim and enable_per_channel_scale"
            )
        counts = self._table_counts(site)
        if not self.scales:
            return self._looked_up(values, counts, axis, opset, dtype, mask)
        if opset < compressed.BLOCKS:
            raise NewerOpsetError("scales beside tables", compressed.BLOCKS)
        scale = np.abs(values).max(axis=axis, keepdims=True)
        scale[scale == 0] = 1
        tables = self._looked_up(values / scale, counts, axis, opset, dtype)
        return compressed.rescaled(opset, tables, scale, dtype)

    def _looked_up(
        self,
        values: Floats,
        counts: list[int],
        axis: int,
        opset: int,
        dtype: str,
        mask: NDArray[Any] | None = None,
    ) -> Compressed:
        """Indices; `counts` are those of tables along each axis, and vectors go along `axis`."""
        if math.prod(counts) == 1 and self.granularity == "per_tensor" and self.vector == 1:
            codes, table = self._masked(values, mask)
            return compressed.looked_up(opset, codes, table, self.bits, dtype)
        size = values.shape[axis] // counts[axis]
        if size % self.vector:
            raise SpecError(
                f"vectors of {self.vector} do not divide groups of {size} channels; those of "
                f"{_divisor(size, self.vector)} do, or leave the weight out with a selector"
            )
        if opset < compressed.BLOCKS:
            raise NewerOpsetError("tables for groups of channels", compressed.BLOCKS)
        parts = apart(values, counts)
        if self.vector > 1:
            codes, tables = self._vectors(parts, axis)
            tables = tables.reshape(*counts, -1, self.vector)
            codes = _joined(codes, counts)
            return compressed.looked_up(opset, codes, tables, self.bits, dtype, axis)
        if self.mode == "kmeans" and mask is None:
            rows = parts.reshape(len(parts), -1)
            tables = kmeans_rows(rows, 1 << self.bits)
            codes = nearest_in_rows(rows, tables).reshape(parts.shape)
        else:
            masks = [None] * len(parts) if mask is None else apart(mask, counts)
            masked = [self._masked(part, each) for part, each in zip(parts, masks, strict=True)]
            codes = np.stack([own for own, _ in masked])
            tables = np.stack([table for _, table in masked])
        codes = _joined(codes, counts)
        return compressed.looked_up(opset, codes, tables.reshape(*counts, -1), self.bits, dtype)

    def _vectors(self, parts: Floats, axis: int) -> tuple[Codes, Floats]:
        """Indices of vectors along an axis of each part, and their tables."""
        find = _VECTORS.get(self.mode)
        if find is None:
            raise SpecError(
                f"mode {self.mode!r} has no tables of vectors: mode 'kmeans' has, or leave out "
                "cluster_dim"
            )
        codes, tables = [], []
        for part in parts:
            lines = np.moveaxis(part, axis, 0)
            table, own_codes = find(as_vectors(lines, self.vector), 1 << self.bits)
            tables.append(table)
            codes.append(np.moveaxis(own_codes.reshape(-1, *lines.shape[1:]), 0, axis))
        return np.stack(codes), np.stack(tables)

    def _table_counts(self, site: ProgramSite) -> list[int]:
        """How many tables there are along each axis."""
        counts, axis = [1] * len(site.shape), self._axis(site)
        if self.granularity == "per_block" and self.blocks is not None:
            return self._counts(site)
        sizes = [("group_size", axis, {"per_channel": 1}.get(self.granularity, self.group_size))]
        if self.granularity == "per_block":
            sizes.append(("block_size", site.input_axis, self.block_size))
        for name, along, size in sizes if self.granularity != "per_tensor" else ():
            extent = site.shape[along]
            if size and extent % size:
                what = "channels" if along == axis else "inputs"
                raise SpecError(
                    f"{name} {size} does not divide its {extent} {what}; "
                    f"{_divisor(extent, size)} does"
                )
            counts[along] = extent // (size or extent)
        return counts

    def _masked(self, values: Floats, mask: NDArray[Any] | None) -> tuple[Codes, Floats]:
        if mask is None:
            return self._codes(values)
        codes = np.zeros(values.shape, np.uint8)
        codes[mask != 0], table = self._codes(values[mask != 0])
        return codes, table

    def _codes(self, values: Floats) -> tuple[Codes, Floats]:
        """Indices, and a table of all entries that the bits can say."""
        if self.mode == "kmeans":
            (entries,) = kmeans_rows(values.reshape(1, -1), 1 << self.bits)
            return nearest(values, entries).reshape(values.shape), entries
        own = modes.distinct if self.mode == UNIQUE else self.lut_function
        if own is not None:
            result = modes.custom_lut(values, self.bits, own)
        else:
            table = modes.MODES[self.mode](np.ascontiguousarray(values), None, self.bits)
            assert isinstance(table, modes.Table)
            result = table
        entries = np.zeros(1 << self.bits, np.float32)
        entries[: result.table.size] = result.table
        if own is None:  # of the numbers that the file holds, the nearest
            entries[result.table.size :] = result.table[-1] if result.table.size else 0
            indices = nearest(values, np.sort(entries)).reshape(values.shape)
            return indices, np.sort(entries)
        return result.indices, entries


def _parts(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Slices of about `_CHUNK` elements, along the first axis or the second."""
    axis = 0 if shape[0] > 1 or len(shape) == 1 else 1
    step = max(1, _CHUNK * shape[axis] // max(1, math.prod(shape)))
    for start in range(0, shape[axis], step):
        yield (slice(None),) * axis + (slice(start, start + step),)


def _share(blocks: Floats, part: tuple[slice, ...]) -> Floats:
    """What goes with a part; axes of 1 are for all."""
    axis = len(part) - 1
    return blocks[part] if blocks.shape[axis] > 1 else blocks


def _limits(bits: int, *, symmetric: bool, signed: bool) -> tuple[int, int]:
    """The least and the largest code; symmetric ones have a middle."""
    count = (1 << bits) - symmetric
    least = -(count // 2) if signed else 0
    return least, least + count - 1


def _in_blocks(values: Floats, counts: list[int]) -> Floats:
    """[count, size] for each axis, one after another."""
    pairs = zip(values.shape, counts, strict=True)
    return values.reshape([n for extent, count in pairs for n in (count, extent // count)])


def apart(values: NDArray[Any], counts: list[int]) -> NDArray[Any]:
    """[blocks, ...]: one after another; `counts` are how many there are along each axis."""
    blocks = _in_blocks(values, counts)
    axes = range(blocks.ndim)
    parts = blocks.transpose(*axes[::2], *axes[1::2])
    return np.ascontiguousarray(parts).reshape(-1, *blocks.shape[1::2])


def _joined(parts: NDArray[Any], counts: list[int]) -> NDArray[Any]:
    """What `apart` took apart, each part in a shape of its own."""
    rank = len(counts)
    blocks = parts.reshape(*counts, *parts.shape[1:])
    order = [axis for pair in zip(range(rank), range(rank, 2 * rank), strict=True) for axis in pair]
    shape = [count * size for count, size in zip(counts, parts.shape[1:], strict=True)]
    return np.ascontiguousarray(blocks.transpose(order)).reshape(shape)


def _divisor(extent: int, size: int) -> int:
    """The largest number up to the one wanted that divides an extent."""
    return next(n for n in range(min(size, extent), 0, -1) if extent % n == 0)


def half(site: ProgramSite, opset: int) -> Compressed | None:
    """float32 as float16 in the file, where all of its values fit; others stay."""
    fits = np.abs(site.array).max(initial=0) <= np.finfo(np.float16).max
    if site.value.dtype == "fp16" or not fits:
        return None
    return compressed.widened(opset, site.array)


def plain(site: ProgramSite, opset: int) -> None:
    """As a constant by itself."""
