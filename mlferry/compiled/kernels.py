"""Loops over maps, and tiles of sums that stay in the registers of the machine.

Numba compiles loops over arrays, but keeps no array in registers. So the innermost loops are
written here as instructions of LLVM, through Numba's interface for such extensions, for vectors as
wide as those of the processor. Addresses and steps are in bytes.

The windows of a convolution are not unfolded: each tile reads them where they lie, at offsets that
are the same for every pixel (Dukhan, "The Indirect Convolution Algorithm", 2019).

What Numba keeps on disk is valid for the file of the compiled function, so that all of this is one
module.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

Array = NDArray[np.float32]
BYTES = 4  # of a float32
_FLOAT, _INT = ir.FloatType(), ir.IntType(64)
Value = Any  # of llvmlite, which has no types
Sums = list[list[Value]]  # variables [pixels][vectors]


@dataclass(frozen=True)
class Machine:
    """What a processor computes with.

    Attributes:
        lanes: float32 values in a vector.
        registers: how many vectors it holds.
    """

    lanes: int
    registers: int

    @property
    def most_pixels(self) -> int:
        """The pixels of the largest tile: two vectors of sums each, beside those being read."""
        return self.registers // 2 - 2


def _this_machine() -> Machine:
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return Machine(16, 32)
    if features.get("avx"):
        return Machine(8, 16)
    return Machine(4, 32 if features.get("neon") else 16)


MACHINE = _this_machine()
LANES = MACHINE.lanes
TILES = tuple(n for n in (14, 12, 10, 8, 6, 4, 2, 1) if n <= MACHINE.most_pixels)
WINDOW_TILES = TILES[-5:]


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called; what was compiled is kept on disk."""
    try:
        return njit(function, cache=True, nogil=True, error_model="numpy")
    except RuntimeError:  # no folder that it may write to
        return njit(function, nogil=True, error_model="numpy")


def tile_for(width: int) -> int:
    """The tile that covers so many pixels with the fewest sums, the largest of such.

    The last tile of a row starts earlier, where it would reach beyond the row.
    """
    fitting = [tile for tile in TILES if tile <= width]
    return min(fitting, key=lambda tile: -(-width // tile) * (tile + 1))


def window_tile_for(width: int) -> int:
    """Likewise for `reduce_windows`."""
    fitting = [tile for tile in WINDOW_TILES if tile <= width]
    return min(fitting, key=lambda tile: -(-width // tile) * (tile + 1))


class _Emitter:
    """Writes instructions on vectors where a builder stands."""

    def __init__(self, builder: Value) -> None:
        self.builder = builder
        self.vector = ir.VectorType(_FLOAT, LANES)

    def at(self, address: Value, count: Value | int, step: Value | int) -> Value:
        """The address so many steps further."""
        distance = self.builder.mul(self.whole(count), self.whole(step))
        return self.builder.add(address, distance)

    @staticmethod
    def whole(number: Value | int) -> Value:
        return ir.Constant(_INT, number) if isinstance(number, int) else number

    def load(self, address: Value, kind: Value | None = None) -> Value:
        kind = self.vector if kind is None else kind
        pointer = self.builder.inttoptr(address, kind.as_pointer())
        return self.builder.load(pointer, align=8 if kind is _INT else BYTES)

    def store(self, value: Value, address: Value) -> None:
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        self.builder.store(value, pointer, align=BYTES)

    def splat(self, value: Value) -> Value:
        """A value in every lane."""
        nothing = ir.Constant(self.vector, ir.Undefined)
        first = ir.Constant(ir.IntType(32), 0)
        one = self.builder.insert_element(nothing, value, first)
        every = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return self.builder.shuffle_vector(one, nothing, every)

    def multiply_add(self, left: Value, right: Value, total: Value) -> Value:
        """``left * right + total``, rounded once where the processor can."""
        signature = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fmuladd.v{LANES}f32"
        function = cgutils.get_or_insert_function(self.builder.module, signature, name)
        return self.builder.call(function, [left, right, total])

    def larger(self, total: Value, value: Value) -> Value:
        """The larger of two; NaN if one is."""
        taken = self.builder.or_(
            self.builder.fcmp_ordered("<", total, value),
            self.builder.fcmp_unordered("uno", value, value),
        )
        return self.builder.select(taken, value, total)

    def _limit(self, sums: Sums, least: Value, most: Value) -> None:
        """Limit every variable on both sides; NaN stays."""
        lower, upper = self.splat(least), self.splat(most)
        b = self.builder
        for total in itertools.chain(*sums):
            value = b.load(total)
            value = b.select(b.fcmp_ordered("<", value, lower), lower, value)
            b.store(b.select(b.fcmp_ordered(">", value, upper), upper, value), total)

    def round(self, sums: Sums, rounds: Value) -> None:
        """Round every variable to float16, if a number is not 0."""
        half = ir.VectorType(ir.HalfType(), LANES)
        b = self.builder
        with b.if_then(b.icmp_signed("!=", rounds, self.whole(0))):
            for total in itertools.chain(*sums):
                b.store(b.fpext(b.fptrunc(b.load(total), half), self.vector), total)

    def sums(self, initial: Value, pixels: int, vectors: int) -> Sums:
        """Variables [pixels][vectors] that start with those at an address."""
        places = [
            [cgutils.alloca_once(self.builder, self.vector) for _ in range(vectors)]
            for _ in range(pixels)
        ]
        for v in range(vectors):
            value = self.load(self.at(initial, v, BYTES * LANES))
            for row in places:
                self.builder.store(value, row[v])
        return places

    def finish(self, sums: Sums, ends: SimpleNamespace) -> None:
        """Limit every variable, round it, and write it to the result."""
        self._limit(sums, ends.least, ends.most)
        self.round(sums, ends.rounds)
        for p, row in enumerate(sums):
            for v, total in enumerate(row):
                place = self.at(self.at(ends.y, p, ends.y_step), v, BYTES * LANES)
                self.store(self.builder.load(total), place)

    def by_size(self, size: Value, sizes: Sequence[int], emit: Callable[[int], None]) -> None:
        """One of several pieces of code, by a number that is known only when it runs."""
        after = self.builder.append_basic_block("after")
        choice = self.builder.switch(size, after)
        for number in sizes:
            block = self.builder.append_basic_block(f"size.{number}")
            choice.add_case(ir.Constant(_INT, number), block)
            self.builder.position_at_end(block)
            emit(number)
            self.builder.branch(after)
        self.builder.position_at_end(after)

    @contextmanager
    def repeated(self, count: Value) -> Iterator[Value]:
        """A loop; gives its index."""
        with cgutils.for_range(self.builder, count, intp=_INT) as loop:
            yield loop.index


def _tile(*names: str) -> Callable[[Callable[[_Emitter, SimpleNamespace], None]], Any]:
    """Makes a function for compiled code of one that writes its instructions.

    It takes whole numbers as a tuple, which have these names inside, and the limits of results.
    """

    def made_of(write: Callable[[_Emitter, SimpleNamespace], None]) -> Any:
        @intrinsic
        def tile(
            typing: object, numbers: types.BaseTuple, least: types.Type, most: types.Type
        ) -> Any:
            def emit(context: Any, builder: Value, _: object, arguments: Sequence[Value]) -> Value:
                packed, *limits = arguments
                values = [*cgutils.unpack_tuple(builder, packed), *limits]
                named = dict(zip((*names, "least", "most"), values, strict=True))
                write(_Emitter(builder), SimpleNamespace(**named))
                return context.get_dummy_value()

            return types.void(numbers, least, most), emit

        return tile

    return made_of


@_tile("pixels", "vectors", "x", "x_step", "offsets", "segments", "run", "weights", "bias",
       "addends", "addend_step", "rounds", "y", "y_step")  # fmt: skip
def _multiply_tile(e: _Emitter, a: SimpleNamespace) -> None:
    """A tile of a product: some pixels, and one or two vectors of the result's channels.

    For pixel p and channel m, y[p, m] is the sum over segments s and values t < `run` of
    x[p, offsets[s] + t] * weights[s * run + t, m], plus bias[m], plus addends[p, m] unless
    that address is 0, limited to `least` and `most`; if `rounds`, every result is rounded to
    float16.
    """
    builder, vector = e.builder, BYTES * LANES

    def tile(pixels: int, vectors: int) -> None:
        sums = e.sums(a.bias, pixels, vectors)
        starts = [e.at(a.x, p, a.x_step) for p in range(pixels)]
        with e.repeated(a.segments) as segment:
            offset = e.load(e.at(a.offsets, segment, 8), _INT)
            places = [builder.add(start, offset) for start in starts]
            begin = e.at(a.weights, builder.mul(segment, a.run), vectors * vector)
            with e.repeated(a.run) as t:
                here = e.at(begin, t, vectors * vector)
                factors = [e.load(e.at(here, v, vector)) for v in range(vectors)]
                for place, row in zip(places, sums, strict=True):
                    value = e.splat(e.load(e.at(place, t, BYTES), _FLOAT))
                    for factor, total in zip(factors, row, strict=True):
                        added = e.multiply_add(value, factor, builder.load(total))
                        builder.store(added, total)
        e.round(sums, a.rounds)
        with builder.if_then(builder.icmp_signed("!=", a.addends, e.whole(0))):
            for p, row in enumerate(sums):
                for v, total in enumerate(row):
                    addend = e.load(e.at(e.at(a.addends, p, a.addend_step), v, vector))
                    builder.store(builder.fadd(builder.load(total), addend), total)
        e.finish(sums, a)

    def of_pixels(pixels: int) -> None:
        e.by_size(a.vectors, (1, 2), lambda vectors: tile(pixels, vectors))

    e.by_size(a.pixels, TILES, of_pixels)


def _window_tile(combine: Callable[[_Emitter, Value, Value, Value], Value]) -> Any:
    """A tile of a function of windows, channel by channel: pixels, and one vector of channels.

    For pixel p, y[p] starts with `initial` and takes x[p, offsets[s]] in, segment by segment, with
    weights[s]; then it is limited to `least` and `most`, and rounded to float16 if `rounds`.
    """

    @_tile("pixels", "x", "x_step", "offsets", "segments", "weights", "weight_step", "initial",
           "rounds", "y", "y_step")  # fmt: skip
    def tile(e: _Emitter, a: SimpleNamespace) -> None:
        builder = e.builder

        def of_pixels(pixels: int) -> None:
            sums = e.sums(a.initial, pixels, 1)
            starts = [e.at(a.x, p, a.x_step) for p in range(pixels)]
            with e.repeated(a.segments) as segment:
                offset = e.load(e.at(a.offsets, segment, 8), _INT)
                factor = e.load(e.at(a.weights, segment, a.weight_step))
                for start, (total,) in zip(starts, sums, strict=True):
                    value = e.load(builder.add(start, offset))
                    builder.store(combine(e, builder.load(total), value, factor), total)
            e.finish(sums, a)

        e.by_size(a.pixels, WINDOW_TILES, of_pixels)

    return tile


_weighted_tile = _window_tile(lambda e, total, value, factor: e.multiply_add(value, factor, total))
_largest_tile = _window_tile(lambda e, total, value, factor: e.larger(total, value))
_summed_tile = _window_tile(lambda e, total, value, factor: e.builder.fadd(total, value))


@kernel
def _address(array: NDArray[Any]) -> int:
    return np.intp(array.ctypes.data)  # as it is, it would make sums of addresses floats


@kernel
def convolve(
    x: Array,
    line: int,
    step: int,
    offsets: NDArray[np.int64],
    run: int,
    weights: Array,
    bias: Array,
    addends: Array,
    adds: bool,
    rounds: bool,
    y: Array,
    least: np.float32,
    most: np.float32,
    tile: int,
) -> None:
    """The rows [H, W, M] of a convolution; see `_multiply_tile`.

    Args:
        x: [H', W', C], which starts where the windows of the first pixel start.
        line: bytes from one row of windows to the next.
        step: bytes from one window of a row to the next.
        offsets: where the segments of a window lie, in bytes.
        run: values of a segment.
        weights: those of a `PackedMatrix`.
        bias: [M] of a `PackedMatrix`.
        addends: [H, W, M] to add, if `adds`.
        adds: see `addends`.
        rounds: whether every result is rounded to float16.
        y: the result, whose channels lie side by side.
        least: of the results; likewise `most`.
        most: see `least`.
        tile: pixels at a time, at most W.
    """
    height, width, columns = y.shape
    whole = columns // LANES * LANES
    inner = offsets.size * run
    # what is left of the channels goes through a vector of its own
    rest = np.zeros((2, tile, LANES), np.float32)
    first = 0
    while first < columns:
        direct = first < whole
        vectors = 2 if whole - first > LANES else 1
        panel = _address(weights) + first * inner * BYTES
        for row in range(height):
            done = 0
            while done < width:
                pixel = min(done, width - tile)
                source = _address(x) + row * line + pixel * step
                result, result_step = _address(rest[0]), LANES * BYTES
                addend, addend_step = _address(rest[1]), LANES * BYTES
                if direct:
                    result, result_step = _address(y[row, pixel, first:]), y.strides[1]
                    addend, addend_step = _address(addends[row, pixel, first:]), addends.strides[1]
                elif adds:
                    for p in range(tile):
                        for m in range(whole, columns):
                            rest[1, p, m - whole] = addends[row, pixel + p, m]
                numbers = (
                    tile, vectors, source, step, _address(offsets), offsets.size, run, panel,
                    _address(bias) + first * BYTES, addend if adds else 0, addend_step, int(rounds),
                    result, result_step,
                )  # fmt: skip
                _multiply_tile(numbers, least, most)
                if not direct:
                    for p in range(tile):
                        for m in range(whole, columns):
                            y[row, pixel + p, m] = rest[0, p, m - whole]
                done = pixel + tile
        first += vectors * LANES


SUM, LARGEST, WEIGHTED = range(3)


@kernel
def reduce_windows(
    function: int,
    x: Array,
    line: int,
    step: int,
    offsets: NDArray[np.int64],
    weights: Array,
    initial: Array,
    rounds: bool,
    y: Array,
    least: np.float32,
    most: np.float32,
    tile: int,
) -> None:
    """The rows [H, W, C] of a function of windows; see `_window_tile`.

    Args:
        function: `SUM`, `LARGEST`, or `WEIGHTED`, the sum of values times weights.
        x: [H', W', C], which starts where the windows of the first pixel start.
        line: bytes from one row of windows to the next.
        step: bytes from one window of a row to the next.
        offsets: where the pixels of a window lie, in bytes.
        weights: [pixels of a window, C]; of a function without weights any [1, C].
        initial: [C] that a result starts with.
        rounds: whether the result is rounded to float16.
        y: the result, at least `LANES` channels that lie side by side.
        least: of the results; likewise `most`.
        most: see `least`.
        tile: pixels at a time, at most W.
    """
    height, width, channels = y.shape
    weight_step = weights.strides[0] if function == WEIGHTED else 0
    for row in range(height):
        done = 0
        while done < width:
            pixel = min(done, width - tile)
            source = _address(x) + row * line + pixel * step
            ready = 0
            while ready < channels:
                channel = min(ready, channels - LANES)
                place = channel * BYTES
                numbers = (
                    tile, source + place, step, _address(offsets), offsets.size,
                    _address(weights) + place, weight_step, _address(initial) + place, int(rounds),
                    _address(y[row, pixel, channel:]), y.strides[1],
                )  # fmt: skip
                if function == WEIGHTED:
                    _weighted_tile(numbers, least, most)
                elif function == LARGEST:
                    _largest_tile(numbers, least, most)
                else:
                    _summed_tile(numbers, least, most)
                ready = channel + LANES
            done = pixel + tile
