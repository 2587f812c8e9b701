"""Instructions on vectors, of which the innermost loops of the kernels are made.

Numba compiles loops over arrays, but keeps no array in registers. So these loops are written as
instructions of LLVM, through Numba's interface for such extensions, for vectors as wide as those of
the processor. Addresses and steps are in bytes.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Generic, Literal, ParamSpec, TypeAlias, TypeVar

import numpy as np
from llvmlite import binding, ir
from numba import config, njit, types
from numba.core import cgutils
from numba.core.base import BaseContext
from numba.extending import intrinsic
from numpy.typing import NDArray

from mlferry.compiled.polynomials import ERF
from mlferry.memory import aligned

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
T = TypeVar("T")
_config: Any = config  # whose variables are made when it is imported
Array = NDArray[np.float32]
_LN2 = math.log(2)
_LN2_HIGH = 0.693359375  # eleven bits, so that its products with whole numbers are exact
_WHOLE = 1.5 * 2**23  # a number with this added has no fraction
_LEAST_EXPONENT = -87.0  # whose power is a normal number
_EXP = [1 / math.factorial(k) for k in range(7, 1, -1)]  # of (e**r - 1 - r) / r**2
BYTES = 4  # of a float32
FLOAT, INT = ir.FloatType(), ir.IntType(64)
Value: TypeAlias = ir.Value
Sums: TypeAlias = list[list[Value]]  # variables [pixels][vectors]
Places: TypeAlias = list[Value]  # addresses of pixels


@dataclass(frozen=True)
class Machine:
    """What a processor computes with.

    Attributes:
        lanes: float32 values in a vector.
        registers: how many vectors it holds.
        pause: the instruction of LLVM for a thread that waits, or nothing.
    """

    lanes: int
    registers: int
    pause: str = ""

    @property
    def most_pixels(self) -> int:
        """The pixels of the largest tile: two vectors of sums each, beside what is read.

        With more than ten, their addresses hardly stay in general registers.
        """
        return min(10, self.registers // 2 - 2)

    def most_vectors(self, pixels: int) -> int:
        """How many vectors of sums a tile has for each of so many pixels, at most.

        As many as stay in registers, with the weights and one value of a pixel, but at least
        eight sums in all: each waits for the one before, and a processor adds to eight at a time.
        """
        for vectors in (8, 4):
            if pixels * vectors <= 8 or (pixels + 1) * vectors < self.registers:
                return vectors
        return 2

    def dot_tiles(self, columns: int) -> tuple[int, ...]:
        """Tiles of a product with so few columns, whose sums have a register each.

        Only the largest, and one pixel where a map is narrower: each size takes time to compile.
        """
        most = (self.registers - 1 - columns) // columns
        return next(n for n in _TILES if n <= min(most, self.most_pixels)), 1


_TILES = (10, 8, 6, 4, 2, 1)  # numbers of pixels


def _this_machine() -> Machine:
    """That of which Numba's settings tell, otherwise the one that this process runs on."""
    chosen = _config.CPU_FEATURES
    if chosen is None:
        chosen = binding.get_host_cpu_features().flatten()
    features = {name[1:] for name in chosen.split(",") if name.startswith("+")}
    if platform.machine().lower() in ("arm64", "aarch64"):
        return Machine(4, 32)
    pause = "llvm.x86.sse2.pause" if "sse2" in features else ""
    if "avx512f" in features:
        return Machine(16, 32, pause)
    return Machine(8 if "avx" in features else 4, 16, pause)


MACHINE = _this_machine()
LANES = MACHINE.lanes
TILES = tuple(n for n in _TILES if n <= MACHINE.most_pixels)
WINDOW_TILES = TILES[-5:]
DOT_TILES = {columns: MACHINE.dot_tiles(columns) for columns in (1, 2, 3, 4)}
_SUMS = 4  # that are added to at the same time; each waits for the addition before
_WEIGHT = 1.4  # sums that take as long as reading a vector of weights
_PIXEL = 0.5  # likewise for a value of a pixel


def arrays(rank: int, order: Literal["A", "C"] = "A", *, written: bool = False) -> types.Type:
    """The type of float32 arrays: in any order in memory, or "C", row by row."""
    return types.Array(types.float32, rank, order, readonly=not written)


WHOLE, YES, REAL = types.intp, types.boolean, types.float32
FLAGS = types.Array(types.boolean, 1, "C", readonly=True)
OFFSETS = types.Array(types.int64, 1, "A", readonly=True)


SCRATCH_BYTES = 1 << 22  # of which most tasks use little
SCRATCH_SHAPE = SCRATCH_BYTES // BYTES // LANES, LANES
SCRATCH = arrays(2, "C", written=True)
"""The type of `scratch`."""
_rooms = threading.local()


def scratch() -> Array:
    """Room for vectors, which each thread has for itself; compiled code that allocates is slower.

    Returns:
        [n, LANES].
    """
    if not hasattr(_rooms, "room"):
        _rooms.room = aligned(*SCRATCH_SHAPE)
    room: Array = _rooms.room
    return room


class Kernel(Generic[P, T]):
    """Code for Python to call, compiled at the first call.

    Args:
        compiled: gives what Numba makes of it.
    """

    def __init__(self, compiled: Callable[[], Callable[P, T]]) -> None:
        self._compile = compiled

    @functools.cached_property
    def _compiled(self) -> Callable[P, T]:
        return self._compile()

    def __call__(self, *arguments: P.args, **named: P.kwargs) -> T:
        """Run it."""
        return self._compiled(*arguments, **named)


def kernel(
    *parameters: types.Type, returns: types.Type = types.void, any_order: bool = False
) -> Callable[[Callable[P, T]], Kernel[P, T]]:
    """Makes a kernel of a function, for arguments of these types.

    With `any_order`, sums may be taken in any order, several at a time.
    """
    compiled = subroutine(*parameters, returns=returns, any_order=any_order)
    return lambda function: Kernel(lambda: compiled(function))


def subroutine(
    *parameters: types.Type, returns: types.Type = types.void, any_order: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Compiles a function for compiled code that calls it, at once; see `kernel`."""
    signature = returns(*parameters)
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    options["fastmath"] = {"reassoc"} if any_order else False
    return lambda function: kept(lambda cache: njit(signature, cache=cache, **options)(function))


def kept(compiled: Callable[[bool], T]) -> T:
    """What Numba compiles; the argument says whether it is kept on disk."""
    with _LOCK:
        former = _config.CACHE_DIR
        _config.CACHE_DIR = former or str(_kept_in())
        try:
            return compiled(True)
        except RuntimeError:  # no folder that it may write to
            return compiled(False)
        finally:
            _config.CACHE_DIR = former


_LOCK = threading.Lock()


@functools.cache
def _kept_in() -> Path:
    """A folder of these sources: Numba looks at the file of a function, not at what it calls."""
    folder = Path(__file__).parent
    sources = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    return folder / "__pycache__" / hashlib.sha256(sources).hexdigest()[:16]


def called(function: F) -> F:
    """Makes a function part of the compiled code that calls it.

    An array lives until its name is used for the last time, also where its address is still used.
    So compiled code takes addresses of what it was given, or of what it uses again.
    """
    inlined: Any = njit(inline="always")(function)
    result: F = inlined
    return result


@called
def address(array: NDArray[Any]) -> int:
    """Where an array starts; of a signed type, as sums with an unsigned one would be floats."""
    return np.intp(array.ctypes.data)


instruction: Callable[..., Callable[..., Any]] = intrinsic


@instruction
def memory_at(typing: object, place: types.Type) -> Any:
    """What `carray` makes an array of, by its address."""

    def emit(_: BaseContext, code: ir.IRBuilder, __: object, arguments: Sequence[Value]) -> Value:
        return code.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(place), emit


@functools.lru_cache(4096)
def tile_for(width: int, height: int = 1) -> int:
    """The tile that covers the pixels of a map in the shortest time, the largest of such.

    A tile may reach from one line into the next one. The last tile starts earlier, where it would
    reach beyond the map.
    """

    def time(tile: int) -> float:  # of a vector, in sums
        return tile + _WEIGHT + tile * _PIXEL / MACHINE.most_vectors(tile)

    return _tile_of(TILES, width, height, time)


@functools.lru_cache(4096)
def window_tile_for(width: int, height: int) -> int:
    """Likewise for `reduce_windows`."""
    return _tile_of(WINDOW_TILES, width, height, lambda tile: tile + 1)


@functools.lru_cache(4096)
def dot_tile_for(width: int, height: int, columns: int) -> int:
    """Likewise for a product with so few columns, as `windows.dot_tile` takes it."""
    return _tile_of(DOT_TILES[columns], width, height, lambda tile: tile + 1)


def _tile_of(sizes: Sequence[int], width: int, height: int, time: Callable[[int], float]) -> int:
    fitting = [tile for tile in sizes if tile <= width]
    return min(fitting, key=lambda tile: -(-width * height // tile) * time(tile))


class Instructions:
    """Writes instructions on vectors where a builder stands."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder
        self.vector = ir.VectorType(FLOAT, LANES)
        self.bits = ir.VectorType(ir.IntType(32), LANES)

    def at(self, address: Value, count: Value | int, step: Value | int) -> Value:
        """The address so many steps further."""
        distance = self.builder.mul(self.whole(count), self.whole(step))
        return self.builder.add(address, distance)

    @staticmethod
    def whole(number: Value | int) -> Value:
        """A number as a constant."""
        return ir.Constant(INT, number) if isinstance(number, int) else number

    def load(self, address: Value, kind: Value | None = None) -> Value:
        """A vector, or a value of another type."""
        kind = self.vector if kind is None else kind
        pointer = self.builder.inttoptr(address, kind.as_pointer())
        return self.builder.load(pointer, align=8 if kind is INT else BYTES)

    def prefetch(self, place: Value, *, written: bool = False, nearest: bool = True) -> None:
        """Read the cache line at an address ahead, into the nearest cache or the one behind it."""
        number, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        signature = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        name = "llvm.prefetch.p0i8"
        function = cgutils.get_or_insert_function(self.builder.module, signature, name)
        kinds = int(written), 3 if nearest else 2, 1  # of the data, not of instructions
        given = [ir.Constant(number, kind) for kind in kinds]
        self.builder.call(function, [self.builder.inttoptr(place, pointer), *given])

    def store(self, value: Value, address: Value) -> None:
        """Write a vector, or one value."""
        pointer = self.builder.inttoptr(address, value.type.as_pointer())
        self.builder.store(value, pointer, align=BYTES)

    def splat(self, value: Value) -> Value:
        """A value in every lane."""
        nothing = ir.Constant(self.vector, ir.Undefined)
        first = ir.Constant(ir.IntType(32), 0)
        one = self.builder.insert_element(nothing, value, first)
        return self.shuffled(one, nothing, [0] * LANES)

    def shuffled(self, left: Value, right: Value, places: Sequence[int]) -> Value:
        """Values of two vectors, at places that count through both."""
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(places)), list(places))
        return self.builder.shuffle_vector(left, right, mask)

    def multiply_add(self, left: Value, right: Value, total: Value) -> Value:
        """``left * right + total``, rounded once where the processor can."""
        signature = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fmuladd.v{LANES}f32"
        function = cgutils.get_or_insert_function(self.builder.module, signature, name)
        return self.builder.call(function, [left, right, total])

    def larger(self, total: Value, value: Value) -> Value:
        """The larger of two; NaN if one is."""
        b = self.builder
        larger = b.select(b.fcmp_ordered(">", value, total), value, total)
        return b.select(b.fcmp_unordered("uno", value, value), value, larger)

    def _limit(self, sums: Sums, least: Value, most: Value) -> None:
        """Limit every variable on both sides; NaN stays."""
        lower, upper = self.splat(least), self.splat(most)
        for total in itertools.chain(*sums):
            self.builder.store(self.within(self.builder.load(total), lower, upper), total)

    def smaller(self, total: Value, value: Value) -> Value:
        """The smaller of two; NaN if one is."""
        b = self.builder
        smaller = b.select(b.fcmp_ordered("<", value, total), value, total)
        return b.select(b.fcmp_unordered("uno", value, value), value, smaller)

    def truth(self, holds: Value) -> Value:
        """1 in every lane where a comparison holds, and 0 elsewhere."""
        return self.builder.select(holds, self.constant(1), self.constant(0))

    def within(self, value: Value, least: Value, most: Value) -> Value:
        """A vector limited on both sides; NaN stays."""
        b = self.builder
        value = b.select(b.fcmp_ordered("<", value, least), least, value)
        return b.select(b.fcmp_ordered(">", value, most), most, value)

    def round(self, sums: Sums, rounds: Value) -> None:
        """Round every variable to float16, if a number is not 0."""
        b = self.builder
        with b.if_then(b.icmp_signed("!=", rounds, self.whole(0))):
            for total in itertools.chain(*sums):
                b.store(self.half(b.load(total)), total)

    def half(self, x: Value) -> Value:
        """Rounded to float16, as by `mlferry.numerics.half`; not all processors convert to it."""
        b = self.builder
        sign, size = self._apart(x)
        exponent = b.and_(b.bitcast(x, self.bits), self.bits_of(0x7F800000))
        least = self.bits_of((127 - 14) << 23)
        exponent = b.select(b.icmp_signed("<", exponent, least), least, exponent)
        addend = b.bitcast(b.add(exponent, self.bits_of((13 << 23) | 0x400000)), self.vector)
        result = b.fsub(b.fadd(size, addend), addend)
        beyond = b.fcmp_ordered(">=", size, self.constant(65520.0))
        result = b.select(beyond, self.constant(math.inf), result)
        return b.bitcast(b.or_(b.bitcast(result, self.bits), sign), self.vector)

    def bits_of(self, number: int) -> Value:
        """A pattern of bits in every lane."""
        return ir.Constant(self.bits, [number] * LANES)

    def _apart(self, x: Value) -> tuple[Value, Value]:
        """The bits of the signs, and magnitudes."""
        b = self.builder
        pattern = b.bitcast(x, self.bits)
        magnitude = b.bitcast(b.and_(pattern, self.bits_of(2**31 - 1)), self.vector)
        return b.and_(pattern, self.bits_of(-(2**31))), magnitude

    def constant(self, value: float) -> Value:
        """A number in every lane."""
        return ir.Constant(self.vector, [value] * LANES)

    def polynomial(self, coefficients: Sequence[float], x: Value) -> Value:
        """Of a vector, by Horner's rule; the coefficient of the highest power comes first."""
        first, *others = coefficients
        total = self.constant(first)
        for coefficient in others:
            total = self.multiply_add(total, x, self.constant(coefficient))
        return total

    def _parts_of_exponent(self, x: Value, least: float, most: float) -> tuple[Value, Value]:
        """A whole number n, as floats, and r with x = n ln 2 + r, where x is within limits."""
        b = self.builder
        x = self.within(x, self.constant(least), self.constant(most))
        n = self.floor(self.multiply_add(x, self.constant(1 / _LN2), self.constant(0.5)))
        n = b.select(b.fcmp_ordered("ord", n, n), n, self.constant(0.0))  # of NaN
        r = self.multiply_add(n, self.constant(-_LN2_HIGH), x)
        return n, self.multiply_add(n, self.constant(_LN2_HIGH - _LN2), r)

    def _expm1_near_zero(self, r: Value) -> Value:
        """e**r - 1, the largest part of which is added last, so that it is rounded once."""
        square = self.builder.fmul(r, r)
        return self.multiply_add(square, self.polynomial(_EXP, r), r)

    def _power_of_two(self, n: Value) -> Value:
        """2**n of whole numbers from -126 to 127."""
        b = self.builder
        biased = b.add(b.fptosi(n, self.bits), self.bits_of(127))
        return b.bitcast(b.shl(biased, self.bits_of(23)), self.vector)

    def exp(self, x: Value) -> Value:
        """e**x, rounded to 2 units of the last place; NaN stays."""
        b = self.builder
        n, r = self._parts_of_exponent(x, -104.0, 89.0)
        power = b.fadd(self._expm1_near_zero(r), self.constant(1.0))
        first = self.floor(b.fmul(n, self.constant(0.5)))  # a power of two within float32
        scaled = b.fmul(power, self._power_of_two(first))
        return b.fmul(scaled, self._power_of_two(b.fsub(n, first)))

    def exp_below_zero(self, x: Value) -> Value:
        """e**x of what is at most 0, likewise; 0 below the smallest normal number."""
        b = self.builder
        whole = self.constant(_WHOLE)
        shifted = self.multiply_add(x, self.constant(1 / _LN2), whole)
        n = b.fsub(shifted, whole)
        r = self.multiply_add(n, self.constant(-_LN2_HIGH), x)
        r = self.multiply_add(n, self.constant(_LN2_HIGH - _LN2), r)
        power = b.fadd(self._expm1_near_zero(r), self.constant(1.0))
        exponent = b.shl(b.bitcast(shifted, self.bits), self.bits_of(23))  # n, as `whole` has none
        scaled = b.bitcast(b.add(b.bitcast(power, self.bits), exponent), self.vector)
        tiny = b.fcmp_ordered("<", x, self.constant(_LEAST_EXPONENT))
        scaled = b.select(tiny, self.constant(0.0), scaled)
        return b.select(b.fcmp_unordered("uno", x, x), x, scaled)

    def folded(self, x: Value, combine: Callable[[Value, Value], Value]) -> Value:
        """All lanes of a vector, two by two, as one value."""
        lanes = LANES
        while lanes > 1:
            lanes //= 2
            others = [(lane + lanes) % LANES for lane in range(LANES)]
            x = combine(x, self.shuffled(x, x, others))
        return self.builder.extract_element(x, ir.Constant(ir.IntType(32), 0))

    def floor(self, x: Value) -> Value:
        """The whole numbers below."""
        return self._of_llvm("floor", x)

    def square_root(self, x: Value) -> Value:
        """The square root."""
        return self._of_llvm("sqrt", x)

    def _of_llvm(self, name: str, x: Value) -> Value:
        """A function that LLVM knows."""
        signature = ir.FunctionType(self.vector, [self.vector])
        name = f"llvm.{name}.v{LANES}f32"
        function = cgutils.get_or_insert_function(self.builder.module, signature, name)
        return self.builder.call(function, [x])

    def sigmoid(self, x: Value) -> Value:
        """The logistic function, 1 / (1 + e**-x)."""
        b, one = self.builder, self.constant(1.0)
        return b.fdiv(one, b.fadd(one, self.exp(b.fneg(x))))

    def erf(self, x: Value) -> Value:
        """The error function; see `polynomials.ERF`."""
        b = self.builder
        return self.tanh(b.fmul(x, self.polynomial(ERF, b.fmul(x, x))))

    def gelu(self, x: Value) -> Value:
        """x times the cumulative normal distribution of x."""
        b, half = self.builder, self.constant(0.5)
        erf = self.erf(b.fmul(x, self.constant(math.sqrt(0.5))))
        return b.fmul(x, self.multiply_add(erf, half, half))

    def tanh(self, x: Value) -> Value:
        """The hyperbolic tangent, m / (m + 2) with m = e**(2 |x|) - 1; NaN stays."""
        b = self.builder
        sign, size = self._apart(x)
        n, r = self._parts_of_exponent(b.fmul(size, self.constant(2.0)), 0.0, 20.0)
        scale = self._power_of_two(n)
        rest = self._expm1_near_zero(r)
        m = self.multiply_add(scale, rest, b.fsub(scale, self.constant(1.0)))
        result = b.fdiv(m, b.fadd(m, self.constant(2.0)))
        return b.bitcast(b.or_(b.bitcast(result, self.bits), sign), self.vector)

    def variable(self, value: Value) -> Value:
        """A variable, and its first value."""
        place = cgutils.alloca_once(self.builder, self.vector)
        self.builder.store(value, place)
        return place

    def sums(self, pixels: int, vectors: int, initial: float = 0.0) -> Sums:
        """Variables [pixels][vectors] that start with a number."""
        first = self.constant(initial)
        return [[self.variable(first) for _ in range(vectors)] for _ in range(pixels)]

    def totals(
        self, count: Value, vectors: int, values_at: Callable[[Value], Sequence[Value]]
    ) -> list[Value]:
        """The sums, in every lane apart, of some vectors that lie at each of so many places."""
        b = self.builder
        sums = self.sums(_SUMS, vectors)

        def add(totals: Sequence[Value], index: Value) -> None:
            for total, value in zip(totals, values_at(index), strict=True):
                b.store(b.fadd(b.load(total), value), total)

        whole = b.udiv(count, self.whole(_SUMS))
        with self.repeated(whole) as block:
            first = b.mul(block, self.whole(_SUMS))
            for number, totals in enumerate(sums):
                add(totals, b.add(first, self.whole(number)))
        done = b.mul(whole, self.whole(_SUMS))
        with self.repeated(b.sub(count, done)) as index:
            add(sums[0], b.add(done, index))
        one, two, three, four = ([b.load(total) for total in totals] for totals in sums)
        return [b.fadd(b.fadd(one[v], two[v]), b.fadd(three[v], four[v])) for v in range(vectors)]

    def pixels(self, count: int, first: Value, step: Value, until: Value, jump: Value) -> Places:
        """Addresses of pixels: `until` in one line of a map, others in the next, a jump further."""
        b, places = self.builder, []
        for p in range(count):
            beyond = b.icmp_signed(">=", self.whole(p), until)
            place = self.at(first, p, step)
            places.append(b.add(place, b.select(beyond, jump, self.whole(0))))
        return places

    def add(self, sums: Sums, addends: Places) -> None:
        """Add the vectors at an address for each pixel."""
        for addend, row in zip(addends, sums, strict=True):
            for v, total in enumerate(row):
                value = self.load(self.at(addend, v, BYTES * LANES))
                self.builder.store(self.builder.fadd(self.builder.load(total), value), total)

    def finish(self, sums: Sums, ends: SimpleNamespace, places: Places) -> None:
        """Limit every variable, round it, and write it to the address of its pixel."""
        self._limit(sums, ends.least, ends.most)
        self.round(sums, ends.rounds)
        for place, row in zip(places, sums, strict=True):
            for v, total in enumerate(row):
                self.store(self.builder.load(total), self.at(place, v, BYTES * LANES))

    def move(self, source: Value, target: Value, count: Value) -> None:
        """Copy so many values that lie side by side; the last vectors may overlap."""
        b = self.builder
        lanes = self.whole(LANES)

        def move_vector(first: Value) -> None:
            value = self.load(self.at(source, first, BYTES))
            self.store(value, self.at(target, first, BYTES))

        with b.if_else(b.icmp_signed(">=", count, lanes)) as (by_vectors, one_by_one):
            with by_vectors:
                last = b.sub(count, lanes)
                with self.repeated(b.udiv(b.add(last, self.whole(LANES - 1)), lanes)) as index:
                    move_vector(b.mul(index, lanes))
                move_vector(last)
            with one_by_one, self.repeated(count) as index:
                value = self.load(self.at(source, index, BYTES), FLOAT)
                self.store(value, self.at(target, index, BYTES))

    def by_size(self, size: Value, sizes: Sequence[int], emit: Callable[[int], None]) -> None:
        """One of several pieces of code, by a number that is known only when it runs."""
        after = self.builder.append_basic_block("after")
        choice = self.builder.switch(size, after)
        for number in sizes:
            block = self.builder.append_basic_block(f"size.{number}")
            choice.add_case(ir.Constant(INT, number), block)
            self.builder.position_at_end(block)
            emit(number)
            self.builder.branch(after)
        self.builder.position_at_end(after)

    @contextmanager
    def repeated(self, count: Value) -> Iterator[Value]:
        """A loop; gives its index."""
        with cgutils.for_range(self.builder, count, intp=INT) as loop:
            yield loop.index


def tile_of(
    *names: str, reals: tuple[str, str] = ("least", "most")
) -> Callable[[Callable[[Instructions, SimpleNamespace], None]], Any]:
    """Makes a function for compiled code of one that writes its instructions.

    It takes whole numbers as a tuple, which have these names inside, and two of float32.
    """

    def made_of(write: Callable[[Instructions, SimpleNamespace], None]) -> Any:
        @intrinsic
        def tile(
            typing: object, numbers: types.BaseTuple, first: types.Type, last: types.Type
        ) -> Any:
            def emit(
                context: BaseContext, builder: ir.IRBuilder, _: object, arguments: Sequence[Value]
            ) -> Value:
                packed, *limits = arguments
                values = [*cgutils.unpack_tuple(builder, packed), *limits]
                named = dict(zip((*names, *reals), values, strict=True))
                write(Instructions(builder), SimpleNamespace(**named))
                return context.get_dummy_value()

            return types.void(numbers, first, last), emit

        return tile

    return made_of


@tile_of("source", "target", "count", reals=("unused", "unused_too"))
def move(code: Instructions, args: SimpleNamespace) -> None:
    """Copy so many values that lie side by side."""
    code.move(args.source, args.target, args.count)
