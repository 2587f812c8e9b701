"""A function of an ML Program: planned once, run many times with NumPy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlferry.compiled import checked, using
from mlferry.errors import MlferryError, PredictionError, SpecError, context
from mlferry.numerics import half
from mlferry.numerics.copies import by_columns
from mlferry.numerics.shapes import Shape
from mlferry.programs import sizes
from mlferry.programs.arguments import Argument, arguments_of, name_of
from mlferry.programs.contents import decoded_bytes, half_bytes
from mlferry.programs.definitions import OPSETS, Operand, Operands, TypeRule, definition_of
from mlferry.programs.kernels import KERNELS, Call, Kernel, StateCell
from mlferry.programs.types import (
    DTYPES,
    FLOATS,
    StateType,
    TensorType,
    ValueType,
    compatible,
    type_of,
)
from mlferry.programs.values import Weights, value_of
from mlferry.runtime.planned import ops, regions
from mlferry.runtime.planned.plan import Part
from mlferry.runtime.threads import at_most, on_numpy
from mlferry.spec.mapped import Scratch
from mlferry.spec.proto import mil_pb2 as mil

if TYPE_CHECKING:
    from mlferry.runtime.planned.arrays.plan import ArrayPart

T = TypeVar("T")
Array = NDArray[Any]
Values = dict[str, Any]

_HALF = np.dtype(np.float16)
_WIDE = (np.dtype(np.float32), np.dtype(np.float64))


_WIDENED_MOST = 64 << 20  # bytes of float16 weights that stay widened by default
# Bytes of weights, as the program decodes them, that stay in memory; others lie in a scratch file,
# and those of float16 are widened in each run.
_DECODED_MOST = 256 << 20


class State:
    """The values that stay from one prediction to the next; see `MLModel.make_state`."""

    def __init__(self, values: Mapping[str, Array]) -> None:
        self._cells = {name: StateCell(value) for name, value in values.items()}

    def __getitem__(self, name: str) -> Array:
        return self._cells[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def cell(self, name: str) -> StateCell:
        """Where a value is kept."""
        return self._cells[name]


@dataclass(frozen=True)
class PlannedOperation:
    """One operation of the plan.

    Attributes:
        call: its description for the kernel.
        kernel: what computes it.
        fixed: the arguments that are constants, in their own types.
        moving: the others, in the order of the op's parameters.
        outputs: the names of its values.
        rule: tells the sizes of results.
        open: whether these are known only while it runs.
        raw: whether the kernel gets float16 as it is.
        moves: whether it only moves values.
        rounded: whether values of float16 are rounded.
        exact: whether it makes values of float16 of such values without that.
        floats: whether what it reads are floats.
        columns: the arguments that the kernel reads by columns.
        widened: whether weights of float16 stay in memory as float32.
        release: lets the system take the memory of what was read from the files of constants.
        blocks: the plans of its blocks.
    """

    call: Call
    kernel: Kernel
    fixed: Values
    moving: Mapping[str, Argument]
    outputs: tuple[str, ...]
    rule: TypeRule
    open: bool = False
    raw: bool = False
    moves: bool = False
    rounded: bool = False
    exact: bool = False
    floats: bool = False
    columns: tuple[str, ...] = ()
    widened: bool = True
    release: Callable[[], None] = lambda: None
    blocks: tuple[BlockPlan, ...] = ()

    def __str__(self) -> str:
        return f"{self.call.op} {self.call.name!r}"

    def arguments(self) -> Values:
        """The constants as the kernel gets them."""
        if self.raw:
            return self.fixed
        return self._wide if self.widened else self._made_wide()

    @cached_property
    def _wide(self) -> Values:
        values = self._made_wide()
        for name in self.columns:
            if name in values:
                values[name] = by_columns(values[name])
        return values

    def _made_wide(self) -> Values:
        self.release()
        return {name: _widened(value) for name, value in self.fixed.items()}

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The names of the values that it is given."""
        return tuple(n for argument in self.moving.values() for n in argument.names if n)

    @cached_property
    def reads(self) -> frozenset[str]:
        """Every value that it, or a block of it, may read."""
        return frozenset(self.inputs).union(*(block.reads for block in self.blocks))

    @property
    def writes(self) -> frozenset[str]:
        """The values that it makes."""
        return frozenset(self.outputs)

    @property
    def rounds(self) -> bool:
        """Whether its result is rounded to float16."""
        return self.rounded and not self.exact and _is_float(self.call.outputs[0], "fp16")

    @property
    def is_flow(self) -> bool:
        """Whether it is a branch or a loop."""
        return bool(self.blocks)

    @cached_property
    def part(self) -> Part | None:
        """What a plan of a convolutional part knows of it; None where no plan may take it."""
        return self._described(ops.part_of)

    @cached_property
    def array_part(self) -> ArrayPart | None:
        """What a plan on arrays knows of it; None where no such plan may take it."""
        from mlferry.runtime.planned.arrays.ops import part_of

        return self._described(part_of)

    def _described(self, part_of: Callable[[ops.Given], T | None]) -> T | None:
        if not self.floats:
            return None
        try:
            return part_of(
                ops.Given(
                    self.call, self.kernel, self.fixed, self.moving, self.widened, self.release
                )
            )
        except Exception:  # its kernel says what is wrong with its constants
            return None

    def infer(self, shapes: Sequence[tuple[int, ...]]) -> Sequence[Shape]:
        """The shapes of its outputs, of one sample.

        Raises:
            SpecError: those of its inputs do not fit, or give others than those described.
        """
        inputs = iter(Operand(TensorType("fp32", shape)) for shape in shapes)
        operands = dict(self._known)
        for name, argument in self.moving.items():
            several = [next(inputs) for _ in argument.names]
            operands[name] = several if argument.many else several[0]
        try:
            types = self.rule(Operands(operands))
        except Exception as error:
            raise SpecError(f"{self} does not fit its inputs: {error}") from error
        inferred = []
        for kind, described in zip(
            types if isinstance(types, tuple) else (types,), self.call.outputs, strict=False
        ):
            if not isinstance(described, TensorType) or not compatible(
                kind.shape[1:], (described.shape or ())[1:]
            ):
                raise SpecError(f"{self} makes {kind}; {described} is described")
            inferred.append(kind.shape)
        return inferred

    @cached_property
    def _known(self) -> dict[str, Any]:
        return {name: sizes.operand(value) for name, value in self.fixed.items()}


@dataclass
class BlockPlan:
    """A block that is ready to run.

    Attributes:
        inputs: the names of what it is given.
        outputs: the names of what it gives.
        operations: in their order.
        constants: values that are known.
        schedules: how it runs, by the values that are wanted.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operations: list[PlannedOperation] = field(default_factory=list)
    constants: Values = field(default_factory=dict)
    schedules: dict[frozenset[str], list[regions.PlannedRegion[PlannedOperation]]] = field(
        default_factory=dict
    )

    @cached_property
    def reads(self) -> frozenset[str]:
        """The names that it reads from around it."""
        own = {*self.inputs, *self.constants}
        own.update(name for operation in self.operations for name in operation.outputs)
        names = frozenset(self.outputs).union(*(each.reads for each in self.operations))
        return names - own


class ProgramSession:
    """A function of a program.

    Args:
        function: its message.
        weights: the files of its constants.
        precision: "half" rounds every value of float16 where the program does; "exact" computes
            in float32 what the program means.
        seed: of random ops that have none of their own.
        planned: whether convolutional parts are planned for their shapes; without it every
            operation runs on its own, which is slower.
        winograd: whether planned convolutions may go by Winograd's tiles; see
            `mlferry.runtime.session.Session`.
        compiled: whether planned parts run on kernels that Numba compiles; see `Session`.
        threads: how many it uses at most; see `Session`.
        widened: whether weights of float16 stay in memory as float32 once they were used; without
            it they are widened in each run, which takes longer and half of the memory. By default
            they stay, unless they take more than 64 MB in their file.

    Attributes:
        inputs: names and types of what it takes, states left out.
        states: names and types of its states.
        outputs: the names of what it makes.
        widened: whether weights of float16 stay in memory as float32.

    Raises:
        SpecError: the function breaks the rules of the format.
        ModelFileError: constants do not lie where it says.
    """

    def __init__(
        self,
        function: mil.Function,
        weights: Weights,
        *,
        precision: str = "half",
        seed: int | None = None,
        planned: bool = True,
        winograd: bool = True,
        compiled: bool | None = None,
        threads: int | None = None,
        widened: bool | None = None,
    ) -> None:
        if precision not in ("half", "exact"):
            raise SpecError(f"precision={precision!r}: half or exact")
        opset = OPSETS.get(function.opset)
        if opset is None:
            raise SpecError(
                f"the opset {function.opset!r} is not known here; known are {', '.join(OPSETS)}"
            )
        block = function.block_specializations.get(function.opset)
        if block is None:
            raise SpecError(f"the function has no block for its opset {function.opset}")
        types = {value.name: type_of(value.type) for value in function.inputs}
        self.inputs = {n: kind for n, kind in types.items() if not isinstance(kind, StateType)}
        self.states = {n: kind for n, kind in types.items() if isinstance(kind, StateType)}
        self.precision = precision
        self.planned, self.winograd, self.threads = planned, winograd, threads
        self.compiled = checked(compiled)
        self._random = np.random.default_rng(seed)
        self._weights, self._used = weights, False
        if widened is None:
            widened = half_bytes(block) <= _WIDENED_MOST and decoded_bytes(block) <= _DECODED_MOST
        self.widened = widened
        planner = _Planner(opset, weights, precision == "half", self._random, widened)
        self._plan = planner.plan(block, {}, types, tuple(types))
        self._half = precision == "half"
        self._read = _HALF_READS if self._half else _EXACT_READS
        self.outputs = self._plan.outputs

    def makers(self) -> dict[str, tuple[str, str]]:
        """The name and the kind of the operation that makes each value, in their order.

        Constants and what is inside of blocks are left out.
        """
        return {
            name: (operation.call.name, operation.call.op)
            for operation in self._plan.operations
            for name in operation.outputs
        }

    def types(self) -> dict[str, ValueType]:
        """The type of each value that `makers` has."""
        return {
            name: kind
            for operation in self._plan.operations
            for name, kind in zip(operation.outputs, operation.call.outputs, strict=True)
        }

    def reads(self) -> dict[str, set[str]]:
        """The values that are read to make each value that `makers` has; constants left out."""
        return {
            name: set(operation.reads)
            for operation in self._plan.operations
            for name in operation.outputs
        }

    def make_state(self) -> State:
        """The state before the first prediction: zeros."""
        values = {}
        for name, kind in self.states.items():
            wrapped = kind.wrapped if isinstance(kind, StateType) else kind
            if not isinstance(wrapped, TensorType) or None in (wrapped.shape or (None,)):
                raise SpecError(f"the state {name!r} is a {kind}, which has no first value")
            shape = [extent or 0 for extent in wrapped.shape or ()]
            values[name] = np.zeros(shape, self._dtype(wrapped.dtype))
        return State(values)

    def run(
        self,
        values: Mapping[str, Any],
        outputs: Sequence[str] | None = None,
        state: State | None = None,
    ) -> dict[str, Any]:
        """The values of some outputs, or of any values inside.

        Args:
            values: by the names of inputs, in any type of elements.
            outputs: names of values; by default those of the function.
            state: read and changed; by default a new one.

        Raises:
            ModelFileError: a file of weights was changed since it was opened.
        """
        self._weights.check()
        scope = self._started(values, state)
        names = tuple(self.outputs if outputs is None else outputs)
        shown = frozenset(names)
        with at_most(self.threads), using(self.compiled):
            parts = self._scheduled(self._plan, shown)
            planned = all(part.region is not None for part in parts)
            with contextlib.nullcontext() if planned else on_numpy():
                results = self._run(self._plan, scope, None, shown)
        if not self._used:
            self._used = True
            self._weights.release()
        return self._chosen(results, names)

    def _started(self, values: Mapping[str, Any], state: State | None) -> Values:
        """What the function is given."""
        missing = [name for name in self.inputs if name not in values]
        if missing:
            raise PredictionError(f"the input {missing[0]!r} is missing")
        scope: Values = {}
        for name, kind in self.inputs.items():
            scope[name] = self._input(name, values[name], kind)
        if self.states:
            first = self.make_state()
            current = state if state is not None else first
            for name in self.states:
                if name not in current or current[name].shape != first[name].shape:
                    raise PredictionError(
                        f"the state is of another model: this one keeps {name!r}, a "
                        f"{self.states[name]}; state = model.make_state()"
                    )
                scope[name] = current.cell(name)
        return scope

    def _chosen(self, results: Values, names: Sequence[str]) -> dict[str, Any]:
        lacking = [name for name in names if name not in results]
        if lacking:
            raise PredictionError(f"the program makes no value {lacking[0]!r}")
        shown = self._read[True, False]
        return {name: shown(results[name]) for name in names}

    def _dtype(self, name: str) -> np.dtype[Any]:
        dtype = DTYPES[name].array
        return np.dtype(np.float32) if dtype == _HALF and not self._half else dtype

    def _input(self, name: str, value: NDArray[Any], kind: ValueType) -> Any:
        if not isinstance(kind, TensorType):
            return value
        array = np.asarray(value).astype(self._dtype(kind.dtype), copy=False)
        if not _fits(array.shape, kind):
            raise PredictionError(f"the input {name!r} takes {kind}, not shape {array.shape}")
        return array

    # ---- the walk ------------------------------------------------------------------------

    def _run(
        self, plan: BlockPlan, scope: Values, outer: Scope | None, shown: frozenset[str]
    ) -> Values:
        scope = {**plan.constants, **scope}
        chain = Scope(scope, outer)
        for planned in self._scheduled(plan, shown):
            outputs = self._of_region(planned, chain) if planned.region is not None else None
            if outputs is not None:
                scope.update(outputs)
            elif planned.region is None:
                self._operate_each(planned.steps, chain)
            else:
                with on_numpy():
                    self._operate_each(planned.steps, chain)
            for name in planned.frees:
                scope.pop(name, None)
        return scope

    def _scheduled(
        self, plan: BlockPlan, outputs: frozenset[str]
    ) -> list[regions.PlannedRegion[PlannedOperation]]:
        """The operations of a block in an order in which those that run as one stand together."""
        if outputs not in plan.schedules:
            plan.schedules[outputs] = regions.scheduled(
                plan.operations, outputs, {}, planned=self.planned, winograd=self.winograd
            )
        return plan.schedules[outputs]

    def _of_region(
        self, planned: regions.PlannedRegion[PlannedOperation], scope: Scope
    ) -> Values | None:
        """The outputs of a convolutional part; None if its operations have to run one by one."""
        region = planned.region
        assert region is not None
        inputs = {}
        for name in region.reads:
            value = _widened(scope.unconverted(name))
            if not isinstance(value, np.ndarray) or value.dtype != np.float32:
                return None
            inputs[name] = value
        outputs = region.run(inputs)
        if outputs is None:
            return None
        values: dict[str, Any] = dict(outputs)
        for name, kind in (
            made
            for operation in planned.steps
            for made in zip(operation.outputs, operation.call.outputs, strict=True)
        ):
            if name in outputs and isinstance(kind, TensorType):
                if not _fits(outputs[name].shape, kind):
                    return None
                if self._half and kind.dtype == "fp16":
                    values[name] = Rounded(outputs[name])
        return values

    def _operate_each(self, operations: Sequence[PlannedOperation], scope: Scope) -> None:
        for operation in operations:
            self._operate(operation, scope)

    def _operate(self, operation: PlannedOperation, scope: Scope) -> None:
        arguments = dict(operation.arguments())
        for name, argument in operation.moving.items():
            find = self._read[operation.raw, operation.moves]
            values = [
                find(constant if key is None else scope.unconverted(key))
                for key, constant in zip(argument.names, argument.constants, strict=True)
            ]
            arguments[name] = values if argument.many else values[0]
        call = operation.call
        if operation.blocks:
            blocks = [self._block(plan, scope) for plan in operation.blocks]
            call = replace(call, blocks=blocks, rounds=scope.rounds)
        try:
            if operation.open:
                sizes.check(operation.rule, arguments)
            output = operation.kernel(call, **arguments)
        except MlferryError as error:
            error.add_context(f"running {operation}")
            raise
        except Exception as error:
            raise PredictionError(f"{operation} does not fit its inputs: {error!r:.300}") from error
        results = output if isinstance(output, tuple) else (output,)
        if len(results) < len(operation.outputs):
            raise PredictionError(
                f"{operation} made {len(results)} values; {len(operation.outputs)} are described"
            )
        for name, kind, value in zip(operation.outputs, call.outputs, results, strict=False):
            scope.values[name] = self._typed(operation, kind, value)

    def _block(self, plan: BlockPlan, outer: Scope) -> Callable[..., list[Any]]:
        def run(*arguments: NDArray[Any]) -> list[Any]:
            inside = dict(zip(plan.inputs, arguments, strict=True))
            results = self._run(plan, inside, outer, frozenset(plan.outputs))
            scope = Scope(results, outer)
            return [scope.find(name) for name in plan.outputs]

        return run

    def _typed(self, operation: PlannedOperation, kind: ValueType, value: object) -> Any:
        if not isinstance(kind, TensorType) or kind.dtype == "string":
            return value
        array = np.asarray(value)
        if self._half and kind.dtype == "fp16" and array.dtype in _WIDE:
            self._check_fits(operation, kind, array)
            return Rounded(array if operation.exact else half.rounded(array))
        return self._fitted(operation, kind, array)

    def _fitted(self, maker: object, kind: TensorType, array: Array) -> Array:
        """An array in the type that the program says."""
        self._check_fits(maker, kind, array)
        return array.astype(self._dtype(kind.dtype), copy=False)

    @staticmethod
    def _check_fits(maker: object, kind: TensorType, array: Array) -> None:
        if not _fits(array.shape, kind):
            raise PredictionError(f"{maker} made the shape {array.shape}; {kind} is described")


class Scope:
    """Values by name, with those around them.

    Attributes:
        values: those of its own.
        rounds: counts the rounds of all loops of a run.
    """

    def __init__(self, values: Values, outer: Scope | None) -> None:
        self.values, self._outer = values, outer
        self.rounds: Iterator[int] = count(1) if outer is None else outer.rounds

    def find(self, name: str) -> Any:
        """A value in its own type, from here or from around.

        Raises:
            PredictionError: nothing has made it.
        """
        return _narrowed(self.unconverted(name))

    def unconverted(self, name: str) -> Any:
        """A value as it was computed: one of float16 may be `Rounded`."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope._outer
        raise PredictionError(f"nothing has made the value {name!r}")


@dataclass(frozen=True)
class Rounded:
    """A value of float16 that the next kernel wants in float32."""

    wide: NDArray[np.float32]


def _narrowed(value: object) -> Any:
    return value.wide.astype(_HALF) if isinstance(value, Rounded) else value


def _widened(value: object) -> Any:
    if isinstance(value, Rounded):
        return value.wide
    if isinstance(value, np.ndarray) and value.dtype == _HALF:
        return half.wide(value)
    if isinstance(value, list):
        return [_widened(each) for each in value]
    return value


def _as_stored(value: NDArray[Any] | Rounded) -> Any:
    return value.wide if isinstance(value, Rounded) else value


# How a kernel gets the values that it reads, by whether it is raw and whether it moves them only.
_Reads = Mapping[tuple[bool, bool], Callable[[Any], Any]]
_HALF_READS: _Reads = {(False, False): _widened, (True, False): _narrowed, (True, True): _as_stored}
_EXACT_READS: _Reads = {
    (False, False): _widened,
    (True, False): _widened,
    (True, True): _widened,
}


def _fits(shape: tuple[int, ...], kind: TensorType) -> bool:
    if kind.shape is None or shape == kind.shape:
        return True
    return len(shape) == len(kind.shape) and all(
        described in (extent, None) for extent, described in zip(shape, kind.shape, strict=True)
    )


class _Planner:
    """Resolves the operations of blocks."""

    def __init__(
        self, opset: int, weights: Weights, half: bool, random: np.random.Generator, widened: bool
    ) -> None:
        self._opset, self._weights, self._half, self._random = opset, weights, half, random
        self._widened = widened
        self._scratch = Scratch(_DECODED_MOST)

    def plan(
        self,
        block: mil.Block,
        constants: Values,
        types: Mapping[str, ValueType],
        inputs: tuple[str, ...] | None = None,
    ) -> BlockPlan:
        """The plan of a block, given the constants and types around it."""
        names = inputs if inputs is not None else tuple(value.name for value in block.inputs)
        plan = BlockPlan(names, tuple(block.outputs))
        inside = dict(constants)
        visible = {**types, **{value.name: type_of(value.type) for value in block.inputs}}
        for message in block.operations:
            with context(f"planning {message.type} {name_of(message)!r}"):
                self._operation(message, plan, inside, visible)
        return plan

    def _operation(
        self, message: mil.Operation, plan: BlockPlan, constants: Values, seen: dict[str, ValueType]
    ) -> None:
        outputs = tuple(value.name for value in message.outputs)
        types = tuple(type_of(value.type) for value in message.outputs)
        seen.update(zip(outputs, types, strict=True))
        if message.type == "const":
            value = self._constant(message)
            constants[outputs[0]] = plan.constants[outputs[0]] = value
            return
        definition = definition_of(message.type, self._opset)
        arguments = arguments_of(message, definition.parameters, constants, self._decoded)
        entry = KERNELS.find(message.type, self._opset)
        if entry is None:
            raise SpecError(f"there is no kernel for {message.type}")
        moves = bool(entry.options.get("moves"))
        raw = moves or bool(entry.options.get("raw"))
        fixed, moving = {}, {}
        for name, parameter in definition.parameters.items():
            argument = arguments.get(name)
            if argument is None:
                fixed[name] = parameter.default
            elif argument.is_constant:
                fixed[name] = self._fixed(argument, raw)
            else:
                moving[name] = argument
        blocks = tuple(self.plan(inner, constants, seen) for inner in message.blocks)
        stays = frozenset(fixed) if self._widened or raw else frozenset()
        call = Call(
            message.type, name_of(message), self._opset, types, random=self._random, stays=stays
        )
        operation = PlannedOperation(
            call,
            entry.value,
            fixed,
            moving,
            outputs,
            definition.rule,
            open=not (sizes.are_known(types) or blocks),
            raw=raw,
            moves=moves,
            rounded=self._half,
            exact=moves or bool(entry.options.get("exact")),
            floats=all(
                _is_float(seen.get(name), *FLOATS)
                for argument in moving.values()
                for name in argument.names
                if name
            ),
            columns=entry.options.get("columns", ()),
            widened=self._widened,
            release=self._release,
            blocks=blocks,
        )
        if message.type.startswith("constexpr_") and not moving:
            value = self._evaluated(operation)
            for name, each in zip(outputs, value, strict=False):
                constants[name] = plan.constants[name] = each
            return
        plan.operations.append(operation)

    def _release(self) -> None:
        """Let the system have the memory of the constants in files."""
        self._weights.release()
        self._scratch.let_go()

    def _evaluated(self, operation: PlannedOperation) -> tuple[Any, ...]:
        """What an operation of constants makes."""
        with np.errstate(all="ignore"):
            output = operation.kernel(operation.call, **operation.arguments())
        results = output if isinstance(output, tuple) else (output,)
        arrays = []
        for kind, value in zip(operation.call.outputs, results, strict=False):
            array = np.asarray(value)
            if isinstance(kind, TensorType):
                if not _fits(array.shape, kind):
                    raise SpecError(f"it makes the shape {array.shape}; {kind} is described")
                dtype = DTYPES[kind.dtype].array
                whole = np.dtype(np.float32) if dtype == _HALF and not self._half else dtype
                array = array.astype(whole, copy=False)
            arrays.append(self._scratch.keep(array))
        return tuple(arrays)

    def _constant(self, message: mil.Operation) -> Any:
        if "val" not in message.attributes:
            raise SpecError("a constant has no value")
        return self._decoded(message.attributes["val"])

    def _decoded(self, message: mil.Value) -> Any:
        return value_of(message, self._weights)

    def _fixed(self, argument: Argument, raw: bool) -> Any:
        """A constant; a kernel that takes float16 as it is gets it as it is computed here."""
        wide = raw and not self._half
        values = [_widened(value) if wide else value for value in argument.constants]
        return values if argument.many else values[0]


def _is_float(kind: ValueType | None, *dtypes: str) -> bool:
    return isinstance(kind, TensorType) and kind.dtype in dtypes
