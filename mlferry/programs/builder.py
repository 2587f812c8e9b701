"""The builder with which functions of layer kinds write programs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mlferry.errors import MlferryError, SpecError
from mlferry.numerics.shapes import Shape, axis_of, broadcast, runs
from mlferry.programs.arguments import plain
from mlferry.programs.definitions import (
    DEFINITIONS,
    OPSETS,
    Definition,
    Operands,
    Parameter,
    UnknownRankError,
    definition_of,
)
from mlferry.programs.graph import Argument, Array, Block, Operation, Value, constant
from mlferry.programs.kernels import KERNELS, Call
from mlferry.programs.operands import default_operand, misfits, mixtures
from mlferry.programs.types import DTYPES, ListType, TensorType, ValueType

Extents = Sequence[int | Value]  # a known extent, or the vector of one int32 that holds it
Given = Value | ArrayLike | str | Sequence[Value] | None

# The most elements of constants that are computed while a program is written.
_FOLDED_MOST = 1 << 16


class NewerOpsetError(Exception):
    """An op, or a form of it, that only a newer opset has."""

    def __init__(self, op: str, opset: int) -> None:
        super().__init__(f"{op} came with CoreML{opset}")
        self.op, self.opset = op, opset


class ProgramBuilder:
    """Adds operations to a function; types are inferred, and known values are computed at once.

    Numbers are written in float32; `passes.half` turns the program into one of half precision.

    Args:
        opset: the number of the function's opset.

    Attributes:
        layer: the name of the layer being written, after which operations are named.
        block: the block of the function.
    """

    def __init__(self, opset: int = min(OPSETS.values())) -> None:
        self.opset = opset
        self.layer = ""
        self.block = Block()
        self._blocks = [self.block]
        self._taken: set[str] = set()
        self._last: dict[str, int] = {}  # the number after the last name of a hint
        self._casts: dict[tuple[Value, str], Value] = {}

    # ---- names and blocks --------------------------------------------------------------------

    def fresh(self, hint: str) -> str:
        """A new name for a value, which the format allows."""
        hint = sanitized(hint)
        name = hint
        while name in self._taken:
            self._last[hint] = self._last.get(hint, 0) + 1
            name = f"{hint}_{self._last[hint]}"
        self._taken.add(name)
        return name

    def reserve(self, name: str) -> None:
        """Keep a name for an input or output."""
        self._taken.add(name)

    def input(self, name: str, kind: ValueType) -> Value:
        """Add an input of the function, or of the current block."""
        value = Value(name, kind)
        self._blocks[-1].inputs.append(value)
        return value

    @contextmanager
    def inside(self) -> Iterator[Block]:
        """Write operations into a block of their own, for control flow."""
        block, known = Block(), dict(self._casts)
        with self.within(block):
            self._casts = known
            yield block

    @contextmanager
    def within(self, block: Block) -> Iterator[None]:
        """Write operations at the end of a block that was left before."""
        self._blocks.append(block)
        casts, self._casts = self._casts, {}
        try:
            yield
        finally:
            self._blocks.pop()
            self._casts = casts

    # ---- constants ---------------------------------------------------------------------------

    def constant(self, array: ArrayLike, dtype: str | None = None, name: str = "") -> Value:
        """A constant; unless you give a type, floats become float32 and integers int32."""
        values = np.asarray(array)
        if dtype is None:
            dtype = {"f": "fp32", "b": "bool", "i": "int32", "u": "int32"}.get(values.dtype.kind)
            if dtype is None:
                raise SpecError(f"a constant of {values.dtype} has no place in a program")
        return constant(values.astype(DTYPES[dtype].array, copy=False), dtype, name)

    def number(self, value: float) -> Value:
        """One float32."""
        return self.constant(np.float32(value))

    def integers(self, values: Sequence[int]) -> Value:
        """A vector of int32."""
        return self.constant(np.array(values, np.int64).reshape(-1), "int32")

    # ---- operations --------------------------------------------------------------------------

    def op(
        self, op: str, *, blocks: Sequence[Block] = (), folded: bool = True, **operands: Given
    ) -> Value:
        """One operation with one output; see `ops`."""
        return self.ops(op, blocks=blocks, folded=folded, **operands)[0]

    def ops(
        self, op: str, *, blocks: Sequence[Block] = (), folded: bool = True, **operands: Given
    ) -> tuple[Value, ...]:
        """One operation.

        Args:
            blocks: those of control flow.
            folded: whether it is computed at once if all of its arguments are known.
            operands: values by the names of parameters; anything else becomes a constant of the
                type that the op takes. None omits a parameter.

        Returns:
            what it makes; constants, where all that it gets is known.

        Raises:
            NewerOpsetError: the opset does not have it in this form.
            SpecError: the arguments do not fit.
        """
        definition = self._definition(op)
        arguments = self._arguments(op, definition, operands)
        types = inferred(op, definition, arguments, blocks)
        results = self._folded(op, definition, arguments, types) if folded and not blocks else None
        if results is not None:
            return results
        outputs = tuple(Value(self.fresh(f"{self.layer}_{op}"), kind) for kind in types)
        operation = Operation(op, arguments, outputs, tuple(blocks), self.layer)
        for value in outputs:
            value.maker = operation
        self._blocks[-1].operations.append(operation)
        return outputs

    def _definition(self, op: str) -> Definition:
        if DEFINITIONS.find(op, self.opset) is None:
            later = [n for n in OPSETS.values() if DEFINITIONS.find(op, n) is not None]
            if later:
                raise NewerOpsetError(op, min(later))
        return definition_of(op, self.opset)

    def _arguments(
        self, op: str, definition: Definition, operands: Mapping[str, Given]
    ) -> dict[str, Argument]:
        """The arguments of an op, including constants, in the order of its parameters."""
        present = {name: value for name, value in operands.items() if value is not None}
        for name in present.keys() - definition.parameters.keys():
            later = [
                n
                for n in OPSETS.values()
                if n > self.opset
                and (entry := DEFINITIONS.find(op, n)) is not None
                and name in entry.value.parameters
            ]
            if later:
                raise NewerOpsetError(f"{name} of {op}", min(later))
            raise SpecError(f"{op} has no parameter {name!r}")
        shared = _shared_types(definition, present)
        arguments: dict[str, Argument] = {}
        for name, parameter in definition.parameters.items():
            if name not in present:
                continue
            value: Any = present[name]
            if parameter.many:
                arguments[name] = tuple(
                    each if isinstance(each, Value) else self.literal(each, parameter, shared)
                    for each in value
                )
            elif isinstance(value, Value):
                arguments[name] = value
            else:
                arguments[name] = self.literal(value, parameter, shared)
        return arguments

    def literal(
        self, value: ArrayLike, parameter: Parameter, shared: Mapping[str, str] | None = None
    ) -> Value:
        """A constant for a parameter, from Python's or NumPy's values."""
        values = np.asarray(value)
        if values.dtype.kind in "US":
            return Value("", TensorType("string", values.shape), values.astype(object))
        allowed = parameter.dtypes
        if isinstance(allowed, str):
            dtype = (shared or {}).get(allowed)
            if dtype is not None:
                return self.constant(values, dtype)
            return self.constant(values)
        guess = {"f": "fp32", "b": "bool"}.get(values.dtype.kind, "int32")
        if guess not in allowed and guess == "int32":
            guess = "fp32" if "fp32" in allowed else min(allowed)
        return self.constant(values, guess)

    def _folded(
        self,
        op: str,
        definition: Definition,
        arguments: Mapping[str, Argument],
        types: Sequence[ValueType],
    ) -> tuple[Value, ...] | None:
        """The results of an op of constants, if they are small."""
        entry = KERNELS.find(op, self.opset)
        if entry is None or op in _NEVER_FOLDED or op.startswith("constexpr_") or not arguments:
            return None
        values = [
            each
            for arg in arguments.values()
            for each in (arg if isinstance(arg, tuple) else [arg])
        ]
        tensors = [kind for kind in types if isinstance(kind, TensorType)]
        if len(tensors) < len(types) or not all(value.is_constant for value in values):
            return None
        sizes = [math.prod(n or 0 for n in kind.shape or ()) for kind in tensors]
        if max(sizes, default=0) > _FOLDED_MOST and op not in _MOVES:
            return None
        arrays = evaluated(op, self.opset, definition, arguments, tensors)
        return tuple(
            constant(array, kind.dtype) for array, kind in zip(arrays, tensors, strict=True)
        )

    # ---- types -------------------------------------------------------------------------------

    def cast(self, x: Value, dtype: str) -> Value:
        """A value in another element type; floats are truncated, and nonzero values are true.

        If the value is itself a cast that lost nothing, the value before that cast is used.
        """
        if x.dtype == dtype:
            return x
        if x.is_constant:
            array = x.constant != 0 if dtype == "bool" else x.constant
            return constant(np.asarray(array).astype(DTYPES[dtype].array), dtype)
        before = x.maker.arguments["x"] if x.maker is not None and x.maker.op == "cast" else None
        if isinstance(before, Value) and _keeps(before.dtype, x.dtype):
            return self.cast(before, dtype)
        if (x, dtype) not in self._casts:
            self._casts[x, dtype] = self.op("cast", x=x, dtype=dtype)
        return self._casts[x, dtype]

    def as_float(self, x: Value) -> Value:
        """A value as float32."""
        return self.cast(x, "fp32")

    def as_integer(self, x: Value) -> Value:
        """A value as int32; floats are truncated."""
        return self.cast(x, "int32")

    def as_boolean(self, x: Value) -> Value:
        """Whether values differ from 0."""
        return self.cast(x, "bool")

    def alike(self, *values: Value) -> list[Value]:
        """Values in one type: int32 if all are whole numbers, else float32.

        A constant counts as whole if all of its numbers are, and follows the others.
        """
        computed = {x.dtype for x in values if not x.is_constant}
        whole = computed <= {"int32", "bool"} and all(_is_whole(x) for x in values if x.is_constant)
        if whole and any(x.dtype == "int32" for x in values):
            return [self.as_integer(x) for x in values]
        return [self.as_float(x) for x in values]

    # ---- shapes ------------------------------------------------------------------------------

    def shape(self, x: Value) -> Shape:
        """The shape of a value; None is an extent known only at run time."""
        return x.shape

    def rank(self, x: Value) -> int:
        """How many axes a value has."""
        return x.rank

    def extent(self, x: Value, axis: int) -> int | Value:
        """The size of an axis: a number, or a vector of one int32 that is computed at run time."""
        axis = axis_of(axis, x.rank)
        extent = x.shape[axis]
        if extent is not None:
            return extent
        return self.sliced(self.op("shape", x=x), 0, axis, axis + 1)

    def size(self, x: Value, axis: int) -> Value:
        """The size of an axis, as one float."""
        extent = self.extent(x, axis)
        if isinstance(extent, int):
            return self.number(extent)
        return self.as_float(self.reshape(extent, []))

    def extents(self, x: Value) -> list[int | Value]:
        """The sizes of all axes; see `extent`."""
        return [self.extent(x, axis) for axis in range(x.rank)]

    def vector(self, extents: Extents) -> Value:
        """Sizes, known or computed, as a vector of int32."""
        parts = [
            self.integers(part) if isinstance(part, list) else self.as_integer(part)
            for part in runs(extents) or [[]]
        ]
        return self.joined(parts, 0)

    def reshape(self, x: Value, extents: Extents) -> Value:
        """`x` in another shape; one extent may be -1, which means the rest."""
        target = list(extents)
        computed = [index for index, extent in enumerate(target) if isinstance(extent, Value)]
        if len(computed) == 1 and -1 not in target:
            target[computed[0]] = -1
        numbers = [n if isinstance(n, int) else None for n in target]
        if x.is_fixed and None not in numbers and -1 in numbers:
            rest = math.prod(n for n in numbers if n not in (-1, None))
            if rest:
                size = math.prod(n or 0 for n in x.shape)
                target[numbers.index(-1)] = size // rest
        if [*x.shape] == target:
            return x
        if x.maker is not None and x.maker.op in _RESHAPES and x.is_fixed:
            before = x.maker.arguments["x"]
            if isinstance(before, Value):
                return self.reshape(before, target)
        if x.is_constant and all(isinstance(n, int) for n in target):
            return constant(np.reshape(x.constant, [int(n) for n in target]), x.dtype)  # type: ignore[arg-type]
        axes = _ones_added(x.shape, target)
        if axes is not None:
            return self.op("expand_dims", x=x, axes=axes)
        axes = _ones_dropped(x.shape, target)
        if axes is not None:
            return self.op("squeeze", x=x, axes=axes)
        if 0 in target:  # in a shape of `reshape` 0 would stand for the extent of the input
            raise SpecError(f"a program cannot give {x!r} the empty shape {target}")
        return self.op("reshape", x=x, shape=self.vector(target))

    def transpose(self, x: Value, axes: Sequence[int]) -> Value:
        """`x` with its axes in another order."""
        order = [axis_of(axis, x.rank) for axis in axes]
        if order == list(range(len(order))):
            return x
        if x.is_constant:
            return constant(np.ascontiguousarray(x.constant.transpose(order)), x.dtype)
        if x.maker is not None and x.maker.op == "transpose":
            before, perm = x.maker.arguments["x"], x.maker.arguments["perm"]
            if isinstance(before, Value) and isinstance(perm, Value):
                first = [int(n) % x.rank for n in np.ravel(perm.constant)]
                return self.transpose(before, [first[axis] for axis in order])
        if _moves_ones_only(x.shape, order):
            return self.reshape(x, [x.shape[axis] or 0 for axis in order])
        return self.op("transpose", x=x, perm=order)

    def expand(self, x: Value, axes: Sequence[int]) -> Value:
        """`x` with axes of extent 1 at places of the result."""
        if not axes:
            return x
        rank = x.rank + len(axes)
        places = {axis_of(axis, rank) for axis in axes}
        if x.is_constant:
            return constant(np.expand_dims(x.constant, tuple(places)), x.dtype)
        if x.is_fixed:
            rest = iter(x.shape)
            return self.reshape(x, [1 if i in places else next(rest) or 0 for i in range(rank)])
        return self.op("expand_dims", x=x, axes=sorted(places))

    def squeeze(self, x: Value, axes: Sequence[int]) -> Value:
        """`x` without axes of extent 1."""
        if not axes:
            return x
        dropped = {axis_of(axis, x.rank) for axis in axes}
        if x.is_constant:
            return constant(np.squeeze(x.constant, tuple(dropped)), x.dtype)
        if x.maker is not None and x.maker.op == "expand_dims":
            before, new_axes = x.maker.arguments["x"], x.maker.arguments["axes"]
            assert isinstance(before, Value)
            assert isinstance(new_axes, Value)
            if {int(n) % x.rank for n in np.ravel(new_axes.constant)} == dropped:
                return before
        if x.is_fixed:
            return self.reshape(x, [n or 0 for i, n in enumerate(x.shape) if i not in dropped])
        return self.op("squeeze", x=x, axes=sorted(dropped))

    def joined(self, values: Sequence[Value], axis: int) -> Value:
        """Values one after another along an axis."""
        if len(values) == 1:
            return values[0]
        return self.op("concat", values=list(values), axis=axis, interleave=False)

    def sliced(
        self, x: Value, axis: int, start: int | None, end: int | None, step: int = 1
    ) -> Value:
        """Part of an axis; None is its beginning or end, a negative number counts from the end."""
        parts = [slice(None)] * x.rank
        parts[axis_of(axis, x.rank)] = slice(start, end, step)
        return self.part(x, parts)

    def part(self, x: Value, parts: Sequence[slice], single: Sequence[bool] = ()) -> Value:
        """An interval of every axis, as NumPy takes it; `single` axes of one entry are dropped."""
        dropped = [axis for axis, is_single in enumerate(single) if is_single]
        if all(
            part == slice(None) or (n is not None and part.indices(n) == (0, n, 1))
            for part, n in zip(parts, x.shape, strict=True)
        ):
            return self.squeeze(x, dropped)
        return self.op(
            "slice_by_index",
            x=x,
            begin=[part.start or 0 for part in parts],
            end=[part.stop or 0 for part in parts],
            stride=[1 if part.step is None else part.step for part in parts],
            begin_mask=[part.start is None for part in parts],
            end_mask=[part.stop is None for part in parts],
            squeeze_mask=list(single) if dropped else None,
        )

    def broadcast(self, x: Value, extents: Extents) -> Value:
        """`x` broadcast to a shape: by repetition if its own extents are known."""
        target = list(extents)
        if not x.is_fixed or len(target) < x.rank:
            return self.broadcast_to(x, self.vector(target))
        if x.is_constant and all(isinstance(n, int) for n in target):
            spread = np.broadcast_to(x.constant, [n for n in target if isinstance(n, int)])
            return constant(np.ascontiguousarray(spread), x.dtype)
        wide = self.expand(x, list(range(len(target) - x.rank)))
        counts = [
            1 if extent == joint else joint
            for extent, joint in zip(wide.shape, target, strict=True)
        ]
        if all(count == 1 for count in counts):
            return wide
        if any(extent != 1 for extent, n in zip(wide.shape, counts, strict=True) if n != 1):
            return self.broadcast_to(x, self.vector(target))
        return self.op("tile", x=wide, reps=self.vector(counts))

    def broadcast_to(self, x: Value, shape: Value) -> Value:
        """`x` broadcast to a shape computed at run time, by adding zeros of that shape."""
        zero = np.float32(0) if x.dtype == "fp32" else np.int32(0)
        zeros = self.op("fill", shape=shape, value=zero)
        number = self.as_integer(x) if x.dtype == "bool" else x
        return self.cast(self.op("add", x=number, y=zeros), x.dtype)

    # ---- arithmetic --------------------------------------------------------------------------

    def unary(self, op: str, x: Value) -> Value:
        """A function of one value, of booleans if it is a logical one."""
        return self.op(op, x=self.as_boolean(x) if op.startswith("logical") else x)

    def binary(self, op: str, x: Value, y: Value | float) -> Value:
        """A function of two values, in one type; operations without effect are left out."""
        other = y if isinstance(y, Value) else self.number(y)
        if op.startswith("logical"):
            return self.op(op, x=self.as_boolean(x), y=self.as_boolean(other))
        one, two = self.alike(x, other)
        same = {"add": 0, "sub": 0, "mul": 1, "real_div": 1}.get(op)
        if same is not None and _is_everywhere(two, same) and covers(one.shape, two.shape):
            return one
        return self.op(op, x=one, y=two)

    def affine(self, x: Value, scale: float, shift: float) -> Value:
        """scale * x + shift, without operations that have no effect."""
        return self.binary("add", self.binary("mul", x, scale), shift)

    def matmul(self, x: Value, y: Value) -> Value:
        """The product of matrices, which lie along the last two axes."""
        return self.op("matmul", x=x, y=y)

    def positions(self, extent: int | Value) -> Value:
        """0, 1, ... below an extent, as floats."""
        if isinstance(extent, int):
            return self.constant(np.arange(extent, dtype=np.float32))
        return self.as_float(self.op("range_1d", start=0, end=extent, step=1))

    def where(self, condition: Value, x: Value, y: Value) -> Value:
        """x where a condition is true, y elsewhere; all three are broadcast."""
        one, two = self.alike(x, y)
        flags = self.as_boolean(condition)
        if not covers(broadcast(one.shape, two.shape), flags.shape):  # the op broadcasts only these
            one = self.broadcast(one, self._joint_extents(one, two, flags))
        return self.op("select", cond=flags, a=one, b=two)

    def _joint_extents(self, *values: Value) -> list[int | Value]:
        """The extents of the shape to which values broadcast."""
        shape = broadcast(*(x.shape for x in values))
        extents: list[int | Value] = []
        for axis in range(-len(shape), 0):
            extent = shape[axis]
            if extent is None:
                holders = [x for x in values if x.rank >= -axis and x.shape[axis] is None]
                extents.append(self.extent(holders[0], axis))
                for other in holders[1:]:  # one of them may be 1
                    more = self.vector([self.extent(other, axis)])
                    extents[-1] = self.binary("maximum", self.vector([extents[-1]]), more)
                continue
            extents.append(extent)
        return extents


# Operations whose results differ from call to call, or depend on those before.
CHANGING = {
    *("random_normal", "random_uniform", "random_bernoulli", "random_categorical"),
    *("make_list", "read_state", "write_state"),
}
_NEVER_FOLDED = {*CHANGING, "classify"}
_MOVES = {"transpose", "reshape", "expand_dims", "squeeze", "concat", "slice_by_index", "cast"}
_RESHAPES = ("reshape", "expand_dims", "squeeze")


def sanitized(name: str) -> str:
    """A name that the format allows: letters, digits and _, and no leading digit."""
    clean = re.sub(r"[^A-Za-z0-9_@]", "_", name)
    return clean if clean and not clean[0].isdigit() and clean[0] != "@" else f"_{clean}"


def inferred(
    op: str, definition: Definition, arguments: Mapping[str, Argument], blocks: Sequence[Block] = ()
) -> tuple[ValueType, ...]:
    """The types of an op's results.

    Raises:
        SpecError: its arguments do not fit.
    """
    operands: dict[str, Any] = {}
    by_name: dict[str, list[Any]] = {}
    problems: list[str] = []
    for name, parameter in definition.parameters.items():
        argument = arguments.get(name)
        if argument is None:
            if parameter.required:
                problems.append(f"the parameter {name!r} is missing")
            operands[name] = default_operand(parameter)
            continue
        values = argument if isinstance(argument, tuple) else (argument,)
        by_name[name] = [value.operand for value in values]
        known = [
            operand._replace(value=_STORED)
            if value.is_stored and not value.is_constant
            else operand
            for operand, value in zip(by_name[name], values, strict=True)
        ]
        problems += misfits(name, parameter, known, definition)
        operands[name] = by_name[name] if parameter.many else by_name[name][0]
    problems += mixtures(definition, by_name)
    if problems:
        raise SpecError(f"{op}: {'; '.join(problems)}")
    types = [tuple(value.type for value in block.outputs) for block in blocks]
    try:
        output = definition.rule(Operands(operands, types))
    except UnknownRankError:
        raise SpecError(f"{op}: the rank of an input is not known") from None
    except MlferryError as error:
        error.add_context(f"writing {op}")
        raise
    return output if isinstance(output, tuple) else (output,)


_STORED = object()  # the value of a compressed constant


def evaluated(
    op: str,
    opset: int,
    definition: Definition,
    arguments: Mapping[str, Argument],
    types: Sequence[TensorType],
) -> list[Array]:
    """The results of an op of constants."""
    entry = KERNELS.find(op, opset)
    assert entry is not None
    values: dict[str, Any] = {}
    for name, parameter in definition.parameters.items():
        argument = arguments.get(name)
        if argument is None:
            values[name] = parameter.default
        elif isinstance(argument, tuple):
            values[name] = [_as_kernels_get(each, parameter) for each in argument]
        else:
            values[name] = _as_kernels_get(argument, parameter)
    with np.errstate(all="ignore"):
        output = entry.value(Call(op, op, opset, tuple(types)), **values)
    results = output if isinstance(output, tuple) else (output,)
    return [
        np.asarray(result).astype(DTYPES[kind.dtype].array, order="C", copy=False)
        for result, kind in zip(results, types, strict=True)
    ]


def _as_kernels_get(value: Value, parameter: Parameter) -> Any:
    array = value.constant
    if isinstance(array, np.ndarray) and array.dtype == np.float16:
        array = array.astype(np.float32)
    return plain(array) if parameter.constant else array


def _shared_types(definition: Definition, arguments: Mapping[str, Any]) -> dict[str, str]:
    """The element type of each type variable of an op, from its arguments."""
    types: dict[str, str] = {}
    for name, parameter in definition.parameters.items():
        values = arguments.get(name)
        if not isinstance(parameter.dtypes, str):
            continue
        for value in values if isinstance(values, list | tuple) else (values,):
            if isinstance(value, Value) and isinstance(value.type, TensorType):
                types.setdefault(parameter.dtypes, value.dtype)
    return types


def _keeps(before: str, after: str) -> bool:
    """Whether a cast loses nothing."""
    return (before, after) in {("bool", "int32"), ("bool", "fp32"), ("int32", "fp32")}


def _is_whole(x: Value) -> bool:
    """Whether a constant has only whole numbers that int32 can hold."""
    if x.dtype in ("int32", "bool"):
        return True
    array = np.asarray(x.constant)
    with np.errstate(invalid="ignore"):
        return bool(np.all(np.abs(array) < 2**31) and np.array_equal(array, np.trunc(array)))


def _is_everywhere(x: Value, number: float) -> bool:
    return x.is_constant and x.constant.size > 0 and bool(np.all(x.constant == number))


def covers(shape: Shape, other: Shape) -> bool:
    """Whether broadcasting a shape with another gives the shape itself."""
    if len(other) > len(shape):
        return False
    pairs = zip(reversed(shape), reversed(other), strict=False)
    return all(two == 1 or (one == two and one is not None) for one, two in pairs)


def _ones_added(shape: Shape, target: Sequence[int | Value]) -> list[int] | None:
    """The axes of 1 that a reshape adds, if it does nothing else."""
    if len(target) <= len(shape) or not all(isinstance(n, int) for n in target):
        return None
    places, at = [], 0
    for place, extent in enumerate(target):
        if at < len(shape) and shape[at] == extent and shape[at] is not None:
            at += 1
        elif extent == 1:
            places.append(place)
        else:
            return None
    return places if at == len(shape) else None


def _ones_dropped(shape: Shape, target: Sequence[int | Value]) -> list[int] | None:
    """The axes of 1 that a reshape drops, if it does nothing else."""
    if None in shape or len(target) >= len(shape) or not all(isinstance(n, int) for n in target):
        return None
    return _ones_added(tuple(n for n in target if isinstance(n, int)), [n or 0 for n in shape])


def _moves_ones_only(shape: Shape, order: Sequence[int]) -> bool:
    """Whether a transposition leaves the order of the values unchanged."""
    if None in shape:
        return False
    wide = [axis for axis in order if shape[axis] != 1]
    return wide == sorted(wide)


def list_of(values: Sequence[str] | Sequence[int]) -> Value:
    """A list of labels in the form that `classify` takes."""
    dtype = "string" if any(isinstance(value, str) for value in values) else "int64"
    element = TensorType(dtype, ())
    return Value("", ListType(element, len(values)), list(values))
