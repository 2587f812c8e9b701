"""A program of half precision: floats between operations are float16.

As in coremltools, an operation computes in float16 if all of its inputs and outputs may be float16
and none of its constants is out of range. Constants that would become zero become the smallest
float16 of their sign. Inputs and outputs of the function keep their types. Unlike in coremltools,
floats that stand for whole numbers between integers stay float32, because float16 has no odd
numbers beyond 2048.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from mlferry import lanes
from mlferry.errors import SpecError
from mlferry.numerics.half import narrow_into
from mlferry.programs.builder import inferred
from mlferry.programs.definitions import Definition, definition_of
from mlferry.programs.graph import (
    Argument,
    Array,
    Block,
    Operation,
    Value,
    constant,
    constant_bytes,
    names,
    readers,
    string,
)
from mlferry.programs.types import FLOATS, TensorType
from mlferry.progress import progress_of
from mlferry.spec import mapped
from mlferry.spec.mapped import Scratch
from mlferry.text import unused

_LARGEST = float(np.finfo(np.float16).max)
_STAY = {
    *("cast", "while_loop", "cond", "read_state", "write_state", "classify"),
    *("make_list", "list_length", "list_read", "list_write", "list_gather", "list_scatter"),
}

# Endings of the names of outputs before their cast, and of casts.
_HALF_OUTPUT, _TO_HALF = "_fp16", "_to_fp16"


def to_half(
    block: Block,
    opset: int,
    keep: Collection[str] = (),
    wide: Collection[str] = (),
    scratch: Scratch | None = None,
) -> list[str]:
    """Change a function to compute in float16, in place.

    Args:
        block: the block of the function.
        keep: names of values whose operations stay in float32; names of this program, or of the
            half-precision program that it becomes if none are kept.
        wide: names of inputs whose numbers may be beyond the range of float16: they are clipped.
        scratch: where large constants of float16 are kept.

    Returns:
        the names in `keep` that exist.
    """
    by_name = {name: _named(block, name) for name in keep}
    kept = set().union(*by_name.values())
    pass_ = _Pass(opset, kept, names(block), _wide(block, wide), scratch or Scratch())
    pass_.whole = _kept_whole(block) | _of_whole_numbers(block)
    pass_.shared = {value for value, operations in readers(block).items() if len(operations) > 1}
    pass_.block(block, {}, {})
    return sorted(name for name, values in by_name.items() if values & pass_.found)


def _wide(block: Block, inputs: Collection[str]) -> set[Value]:
    """What a function or a block inside it is given, if it may be beyond the range of float16.

    For a loop or a branch that is anything, once there is a constant beyond it.
    """
    results = {value for value in block.inputs if value.name in inputs}
    inner = [value for each in block.all_blocks() if each is not block for value in each.inputs]
    operands = (value for op in block.all_operations() for value in op.operands())
    if inner and not all(_fits(value) for value in operands if _is_float(value)):
        results.update(inner)
    return results


def _named(block: Block, name: str) -> set[str]:
    """The names of the values that a name means.

    For an output it is the value before its cast; for a cast to float16 all values computed from
    what it casts.
    """
    names_in_use = names(block)
    before, source = name.removesuffix(_HALF_OUTPUT), name.removesuffix(_TO_HALF)
    if name not in names_in_use and before in {value.name for value in block.outputs}:
        return {before}
    if name not in names_in_use and source in names_in_use:
        operations = [
            op for op in block.all_operations() if any(v.name == source for v in op.operands())
        ]
        return {value.name for op in operations for value in op.outputs}
    return {name}


def _of_whole_numbers(block: Block) -> set[Operation]:
    """The operations that turn integers into floats, for others that turn those back."""
    whole = whole_numbers(block)
    return {
        operation
        for operation in block.all_operations()
        if not whole.isdisjoint(operation.outputs)
        or (
            not whole.isdisjoint(operation.operands())
            and not all(map(_is_of_floats, operation.outputs))
        )
    }


def whole_numbers(block: Block) -> set[Value]:
    """Floats computed from integers and whole constants, from which integers are computed."""
    operations = [operation for operation in block.all_operations() if not operation.blocks]
    whole_values: set[Value] = set()
    for operation in operations:
        floats = [value for value in operation.operands() if _is_float(value)]
        if operation.op == "cast":
            (x,) = (value for value in operation.operands() if not _is_text(value))
            whole = x in whole_values or (isinstance(x.type, TensorType) and x.dtype not in FLOATS)
        else:
            computed = [value for value in floats if not value.is_constant]
            constants = [value for value in floats if value.is_constant]
            whole = (
                bool(computed)
                and whole_values.issuperset(computed)
                and all(map(_is_dyadic, constants))
            )
        if whole:
            whole_values.update(value for value in operation.outputs if _is_float(value))
    results: set[Value] = set()
    for operation in reversed(operations):
        if not all(map(_is_of_floats, operation.outputs)) or not results.isdisjoint(
            operation.outputs
        ):
            results.update(whole_values.intersection(operation.operands()))
    return results


def _is_dyadic(value: Value) -> bool:
    """Whether a constant has whole numbers, or such parts of them as a shift by 16 bits leaves."""
    for part in mapped.pieces(np.asarray(value.constant)):
        numbers = part.astype(np.float64) * 2.0**16
        if not (np.isfinite(numbers).all() and np.array_equal(numbers, np.trunc(numbers))):
            return False
    return True


class _Pass:
    def __init__(
        self, opset: int, keep: set[str], used: set[str], wide: set[Value], scratch: Scratch
    ) -> None:
        self._opset, self._keep, self._wide, self._scratch = opset, keep, wide, scratch
        self._halves: dict[Value, Value] = {}  # of shared constants
        self._taken = used
        self.found: set[str] = set()
        self.shared: set[Value] = set()  # values that are read more than once
        self.whole: set[Operation] = set()  # they hold whole numbers, which may not fit float16

    def block(
        self, block: Block, outer: dict[Value, Value], outer_replaced: dict[Value, Value]
    ) -> None:
        """Rewrite the operations of a block.

        Args:
            outer: float32 values from around the block, by the float16 values that replace them.
            outer_replaced: those of them that no longer exist.
        """
        narrow = dict(outer)  # float32 values by the float16 values that replace them
        wide: dict[Value, Value] = {}
        written: list[Operation] = []
        replaced = dict(outer_replaced)

        def as_half(value: Value) -> Value:
            if value.is_constant:
                half = self._halves.get(value) or _half_constant(value, self._scratch)
                if value in self.shared:
                    self._halves[value] = half
                return half
            if value not in narrow:
                source = _whole_source(value) or self._in_range(written, value)
                narrow[value] = self._cast(written, source, "fp16", value)
            return narrow[value]

        def as_single(value: Value) -> Value:
            if value in replaced and value.dtype == "fp16":
                return replaced[value]
            if value in replaced:
                if value not in wide:
                    wide[value] = self._cast(written, replaced[value], "fp32", value)
                return wide[value]
            return value

        size = constant_bytes(block)
        for operation in progress_of(block.operations, "rounding to float16", size):
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
            operation.change(as_single)
            for inner in operation.blocks:
                self.block(inner, narrow, replaced)
            written.append(operation)
        outputs = [(value, as_single(value)) for value in block.outputs]
        for value, output in outputs:
            if output is not value:  # the output keeps its name
                replaced[value].name, output.name = (
                    unused(value.name + _HALF_OUTPUT, self._taken),
                    value.name,
                )
        block.operations = written
        block.outputs = [output for _, output in outputs]

    def _recast(
        self, operation: Operation, narrow: dict[Value, Value], replaced: dict[Value, Value]
    ) -> bool:
        """Rewrite a cast from float16 values without conversion, or one of booleans to float16.

        False for any other cast: whole numbers become float32, and operations in float16 cast the
        integers again.
        """
        x, output = operation.arguments["x"], operation.outputs[0]
        assert isinstance(x, Value)
        if output.name in self._keep or operation in self.whole:
            return False
        source = replaced.get(x, x)
        if source.dtype == "fp16" and output.dtype in ("fp16", "fp32"):
            narrow[output] = replaced[output] = source
            operation.outputs = ()
            return True
        if x in replaced:
            operation.arguments["x"] = source
        if output.dtype != "fp32" or source.dtype != "bool":
            return x in replaced
        new = Value(output.name, TensorType("fp16", output.tensor.shape), maker=operation)
        operation.arguments["dtype"] = string("fp16")
        operation.outputs = (new,)
        narrow[output] = replaced[output] = new
        return True

    def _cast(
        self, written: list[Operation], value: Value, dtype: str, like: Value | None = None
    ) -> Value:
        ending = _TO_HALF if dtype == "fp16" else "_from_fp16"
        name = unused((like or value).name + ending, self._taken)
        result = Value(name, TensorType(dtype, value.tensor.shape))
        arguments: dict[str, Argument] = {"x": value, "dtype": string(dtype)}
        result.maker = Operation("cast", arguments, (result,), source=name)
        written.append(result.maker)
        return result

    def _in_range(self, written: list[Operation], value: Value) -> Value:
        """Clip the results of a constant beyond float16, such as a mask of -1e9, to its range.

        From infinities alone softmax would make NaN.
        """
        operands = [] if value.maker is None else [*value.maker.operands()]
        if value not in self._wide and all(_fits(each) for each in operands if _is_float(each)):
            return value
        result = Value(unused(f"{value.name}_in_range", self._taken), value.type)
        bounds = {"alpha": -_LARGEST, "beta": _LARGEST}
        arguments: dict[str, Argument] = {"x": value}
        arguments |= {name: constant(np.float32(n), "fp32") for name, n in bounds.items()}
        result.maker = Operation("clip", arguments, (result,), source=result.name)
        written.append(result.maker)
        return result

    def _computes_in_half(self, operation: Operation, definition: Definition) -> bool:
        names = {value.name for value in operation.outputs}
        kept_names = names & self._keep
        self.found |= kept_names
        if kept_names or operation.op in _STAY or operation in self.whole:
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
            operands = argument if isinstance(argument, tuple) else (argument,)
            if any(_is_float(value) for value in operands) and "fp16" not in allowed:
                return False
        return True

    def _narrow(
        self, operation: Operation, definition: Definition, as_half: Callable[[Value], Value]
    ) -> None:
        """Give an operation float16 values, except for parameters that may stay float32."""
        operation.change(
            lambda value: as_half(value) if _is_float(value) else value,
            keep=_left_in_single(operation, definition),
        )

    def _retyped(self, operation: Operation, definition: Definition) -> list[tuple[Value, Value]]:
        """The outputs that are now float16, each with the value that it replaces."""
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


# Ops that whole numbers pass on their way to a cast: float16 holds them only up to 2,048.
_CARRY = {
    *("reshape", "transpose", "squeeze", "expand_dims", "slice_by_index", "slice_by_size"),
    *("concat", "stack", "split", "tile", "pad", "reverse"),
    *("gather", "gather_nd", "gather_along_axis", "select", "identity"),
    *("add", "sub", "mul", "real_div", "floor_div", "mod", "maximum", "minimum"),
    *("floor", "ceil", "round", "clip", "abs", "relu", "square"),
    *("reduce_max", "reduce_min", "reduce_sum", "cumsum"),
}


def _kept_whole(block: Block) -> set[Operation]:
    """The operations before a cast to whole numbers, back to those that compute floats."""
    results: set[Operation] = set()
    waiting = [
        value
        for operation in block.all_operations()
        if operation.op == "cast" and "int" in operation.outputs[0].dtype
        for value in operation.operands()
    ]
    while waiting:
        maker = waiting.pop().maker
        if maker is not None and maker.op in _CARRY and maker not in results:
            results.add(maker)
            waiting += [value for value in maker.operands() if _is_float(value)]
    return results


def _whole_source(value: Value) -> Value | None:
    """The integers from which a float32 value was cast."""
    maker = value.maker
    x = maker.arguments["x"] if maker is not None and maker.op == "cast" else None
    return x if isinstance(x, Value) and "int" in x.dtype else None


def _is_of_floats(value: Value) -> bool:
    """Whether the value has floats of any size, or is not a tensor."""
    return not isinstance(value.type, TensorType) or value.type.dtype in FLOATS


def _is_text(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype == "string"


def _is_float(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype == "fp32"


def _fits(value: Value) -> bool:
    """Whether the numbers of a constant are in the range of float16, which includes infinities."""
    if not value.is_constant or not value.constant.size:
        return True
    for part in mapped.pieces(np.asarray(value.constant)):
        if part.max() <= _LARGEST and part.min() >= -_LARGEST:
            continue
        finite = part[np.isfinite(part)]
        if bool((np.abs(finite) > _LARGEST).any()):
            return False
    return True


def _half_constant(value: Value, scratch: Scratch) -> Value:
    """A constant in float16; a number that would become zero becomes the smallest of its sign."""
    array = np.asarray(value.constant)
    half = scratch.keep_pieces(mapped.pieces(array), array.shape, np.float16, _narrow_into)
    name = f"{value.name}{_TO_HALF}" if value.name else ""
    return constant(half, "fp16", name)


def _narrow_into(part: Array, out: Array) -> None:
    lanes.in_slices(lambda at: narrow_into(part[at], out[at]), part)


def _variable_of_data(definition: Definition) -> str | None:
    """The type variable of the data: that of the first parameter that has one."""
    for parameter in definition.parameters.values():
        if isinstance(parameter.dtypes, str):
            return parameter.dtypes
    return None


# Parameters that coremltools leaves in float32 if an op may mix both.
_SMALL = {"alpha", "beta", "epsilon"}


def _left_in_single(operation: Operation, definition: Definition) -> set[str]:
    """The parameters that stay in float32 beside float16 data: numbers with a type of their own.

    Parameters that share a type stay together, or not at all.
    """
    by_variable: dict[str, list[str]] = {}
    for name in operation.arguments:
        variable = definition.parameters[name].dtypes
        if isinstance(variable, str) and variable != _variable_of_data(definition):
            by_variable.setdefault(variable, []).append(name)

    def is_small(name: str) -> bool:
        argument = operation.arguments[name]
        single = isinstance(argument, Value) and np.size(argument.constant) == 1
        return name in _SMALL and definition.parameters[name].constant and single

    return {name for group in by_variable.values() if all(map(is_small, group)) for name in group}
