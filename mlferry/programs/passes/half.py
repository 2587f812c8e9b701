"""A program of half precision: floats between operations are float16.

As coremltools does it: an operation computes in float16 where all that it takes and makes may be
float16, and no constant of it lies beyond what float16 holds. Constants that would become zero
become the smallest float16 of their sign. What the function takes and gives keeps its type.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from mlferry.errors import SpecError
from mlferry.programs.builder import inferred
from mlferry.programs.definitions import Definition, definition_of
from mlferry.programs.graph import Argument, Block, Operation, Value, constant, string
from mlferry.programs.types import TensorType

_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = np.float32(np.finfo(np.float16).smallest_subnormal)
_STAY = {"cast", "while_loop", "cond", "make_list", "list_length", "list_read", "list_write",
         "list_gather", "list_scatter", "read_state", "write_state", "classify"}  # fmt: skip

# How values are called: those cast to float16 and back, and what an output is cast from.
_NARROWED, _WIDENED, _OF_HALF = "_to_fp16", "_from_fp16", "_fp16"
_AT_ONCE = 1 << 16  # elements that stay in the processor's cache


def to_half(block: Block, opset: int, keep: Collection[str] = ()) -> list[str]:
    """Let a function compute in float16, in place.

    Args:
        block: the block of the function.
        opset: its number.
        keep: names of values that stay in float32, as they are in the program of half precision
            or in the one of float32; with `_to_fp16` behind it, an input: what reads it stays.

    Returns:
        the names in `keep` that are there.
    """
    stays = {name: _stays(block, name) for name in keep}
    _Pass(opset, {operation for found in stays.values() for operation in found}).block(block, {})
    return sorted(name for name, found in stays.items() if found)


def _stays(block: Block, name: str) -> list[Operation]:
    """The operations that stay in float32 because of a name."""
    every = list(block.all_operations())
    source = name.removesuffix(_NARROWED)
    if source != name:
        found = [op for op in every if any(value.name == source for value in op.operands())]
        if found:
            return found
    made = {name, name.removesuffix(_OF_HALF), name.removesuffix(_WIDENED)}
    return [op for op in every if made & {value.name for value in op.outputs}]


class _Pass:
    def __init__(self, opset: int, keep: set[Operation]) -> None:
        self._opset, self._keep = opset, keep
        self._halves: dict[Value, Value] = {}  # of constants
        self._number = 0

    def block(self, block: Block, outer: dict[Value, Value]) -> None:
        """Rewrite the operations of a block; `outer` has float16 values from around it."""
        narrow = dict(outer)  # float32 values by the float16 ones that stand for them
        wide: dict[Value, Value] = {}
        written: list[Operation] = []
        replaced: dict[Value, Value] = {}

        def as_half(value: Value) -> Value:
            if value.is_constant:
                if value not in self._halves:
                    self._halves[value] = _half_constant(value)
                return self._halves[value]
            if value not in narrow:
                narrow[value] = self._cast(written, value, "fp16")
            return narrow[value]

        def as_single(value: Value) -> Value:
            if value in replaced and value.dtype == "fp16":
                return replaced[value]
            if value in replaced:
                if value not in wide:
                    wide[value] = self._cast(written, replaced[value], "fp32", value)
                return wide[value]
            return value

        for operation in block.operations:
            definition = definition_of(operation.op, self._opset)
            if operation.op == "cast" and self._recast(operation, narrow, replaced):
                if operation.outputs:
                    written.append(operation)
                continue
            if self._computes_in_half(operation, definition):
                self._narrow(operation, definition, as_half)
                written.append(operation)
                for old, new in self._retyped(operation, definition):
                    narrow[old] = replaced[old] = new
                continue
            _map(operation, as_single)
            for inner in operation.blocks:
                self.block(inner, narrow)
            written.append(operation)
        outputs = [(value, as_single(value)) for value in block.outputs]
        for value, shown in outputs:
            if shown is not value:  # the name stays that of the output
                replaced[value].name, shown.name = f"{value.name}{_OF_HALF}", value.name
        block.operations = written
        block.outputs = [shown for _, shown in outputs]

    def _recast(
        self, operation: Operation, narrow: dict[Value, Value], replaced: dict[Value, Value]
    ) -> bool:
        """A cast from float16 values as they are, or to float16; False for any other cast."""
        x, made = operation.arguments["x"], operation.outputs[0]
        assert isinstance(x, Value)
        if operation in self._keep:
            return False
        source = replaced.get(x, x)
        if source.dtype == "fp16" and made.dtype in ("fp16", "fp32"):
            narrow[made] = replaced[made] = source
            operation.outputs = ()
            return True
        if x in replaced:
            operation.arguments["x"] = source
        if made.dtype != "fp32":
            return x in replaced
        new = Value(made.name, TensorType("fp16", made.tensor.shape), maker=operation)
        operation.arguments["dtype"] = string("fp16")
        operation.outputs = (new,)
        narrow[made] = replaced[made] = new
        return True

    def _cast(
        self, written: list[Operation], value: Value, dtype: str, like: Value | None = None
    ) -> Value:
        self._number += 1
        name = f"{(like or value).name}{_NARROWED if dtype == 'fp16' else _WIDENED}"
        made = Value(name, TensorType(dtype, value.tensor.shape))
        arguments: dict[str, Argument] = {
            "x": value,
            "dtype": string(dtype),
        }
        made.maker = Operation("cast", arguments, (made,), source=name)
        written.append(made.maker)
        return made

    def _computes_in_half(self, operation: Operation, definition: Definition) -> bool:
        if operation in self._keep or operation.op in _STAY:
            return False
        values = [*operation.operands(), *operation.outputs]
        if not any(_is_float(value) for value in values):
            return False
        if any(_is_float(value) and not _fits(value) for value in operation.operands()):
            return False
        for name, argument in operation.arguments.items():
            allowed = definition.parameters[name].dtypes
            if isinstance(allowed, str):
                allowed = definition.variables[allowed]
            given = argument if isinstance(argument, tuple) else (argument,)
            if any(_is_float(value) for value in given) and "fp16" not in allowed:
                return False
        return True

    def _narrow(
        self, operation: Operation, definition: Definition, as_half: Callable[[Value], Value]
    ) -> None:
        """Give an operation float16 values; parameters that may stay float32 do."""
        shared = _variable_of_data(definition)
        for name, argument in operation.arguments.items():
            parameter = definition.parameters[name]
            apart = isinstance(parameter.dtypes, str) and parameter.dtypes != shared
            scalar = isinstance(argument, Value) and np.size(argument.constant) == 1
            if apart and parameter.constant and scalar and _is_small(name):
                continue
            if isinstance(argument, tuple):
                operation.arguments[name] = tuple(
                    as_half(each) if _is_float(each) else each for each in argument
                )
            elif _is_float(argument):
                operation.arguments[name] = as_half(argument)

    def _retyped(self, operation: Operation, definition: Definition) -> list[tuple[Value, Value]]:
        """The outputs that are float16 now, each with the value that stood for it before."""
        try:
            types = inferred(operation.op, definition, operation.arguments)
        except SpecError as error:
            error.add_context(f"making {operation.op} {operation.source!r} compute in float16")
            raise
        changed = []
        outputs = []
        for value, kind in zip(operation.outputs, types, strict=True):
            if not _is_float(value) or not isinstance(kind, TensorType) or kind.dtype != "fp16":
                outputs.append(value)
                continue
            new = Value(value.name, TensorType("fp16", value.tensor.shape), maker=operation)
            outputs.append(new)
            changed.append((value, new))
        operation.outputs = tuple(outputs)
        return changed


def _is_float(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype == "fp32"


def _fits(value: Value) -> bool:
    """Whether the numbers of a constant are in float16's range; infinities are."""
    if not value.is_constant or not value.constant.size:
        return True
    array = value.constant
    if array.max() <= _LARGEST and array.min() >= -_LARGEST:
        return True
    finite = array[np.isfinite(array)]
    return not bool((np.abs(finite) > _LARGEST).any())


def _half_constant(value: Value) -> Value:
    """A constant in float16; what would become zero is the smallest number of its sign."""
    flat = np.ascontiguousarray(value.constant).reshape(-1)
    half = np.empty(flat.shape, np.float16)
    for start in range(0, flat.size, _AT_ONCE):
        part = flat[start : start + _AT_ONCE]
        rounded = part.astype(np.float16)
        vanished = (rounded == 0) & (part != 0)
        if vanished.any():
            rounded[vanished] = np.copysign(_SMALLEST, part[vanished])
        half[start : start + _AT_ONCE] = rounded
    name = f"{value.name}{_NARROWED}" if value.name else ""
    return constant(half.reshape(value.constant.shape), "fp16", name)


def _variable_of_data(definition: Definition) -> str | None:
    """The variable of the parameter that is the data: the first that has one."""
    for parameter in definition.parameters.values():
        if isinstance(parameter.dtypes, str):
            return parameter.dtypes
    return None


def _is_small(name: str) -> bool:
    """Parameters that coremltools leaves in float32 where an op may mix both."""
    return name in ("alpha", "beta", "epsilon")


def _map(operation: Operation, change: Callable[[Value], Value]) -> None:
    for name, argument in operation.arguments.items():
        if isinstance(argument, tuple):
            operation.arguments[name] = tuple(change(each) for each in argument)
        else:
            operation.arguments[name] = change(argument)
