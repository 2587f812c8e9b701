"""A function of an ML Program, planned once, run many times with NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import MlferryError, PredictionError, SpecError, context
from mlferry.numerics import half
from mlferry.programs import sizes
from mlferry.programs.arguments import Argument, arguments_of, name_of
from mlferry.programs.definitions import OPSETS, TypeRule, definition_of
from mlferry.programs.kernels import KERNELS, Call, Kernel
from mlferry.programs.types import DTYPES, StateType, TensorType, ValueType, type_of
from mlferry.programs.values import Weights, value_of
from mlferry.spec.proto import mil_pb2 as mil

Array = NDArray[Any]
Values = dict[str, Any]

_HALF = np.dtype(np.float16)
_WIDE = (np.dtype(np.float32), np.dtype(np.float64))


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


@dataclass
class StateCell:
    """One value of a state, which ops read and write."""

    value: Array


@dataclass(frozen=True)
class Operation:
    """One operation of the plan.

    Attributes:
        call: what the kernel is told of it.
        kernel: what computes it.
        fixed: the arguments that are constants.
        moving: the others.
        outputs: the names of its values.
        raw: whether the kernel gets float16 as it is.
        moves: whether it only moves values, so that those of float16 need no rounding.
        blocks: the plans of its blocks.
        last: values that nobody reads afterwards.
        rule: tells the sizes of results, where they are known only while it runs.
    """

    call: Call
    kernel: Kernel
    fixed: Values
    moving: Mapping[str, Argument]
    outputs: tuple[str, ...]
    raw: bool
    blocks: tuple[Plan, ...] = ()
    last: tuple[str, ...] = ()
    rule: TypeRule | None = None
    moves: bool = False

    def __str__(self) -> str:
        return f"{self.call.op} {self.call.name!r}"


@dataclass
class Plan:
    """A block that is ready to run.

    Attributes:
        inputs: the names of what it is given.
        outputs: the names of what it gives.
        operations: in their order.
        constants: values that are known.
        reads: names that it reads from around it.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operations: list[Operation] = field(default_factory=list)
    constants: Values = field(default_factory=dict)
    reads: set[str] = field(default_factory=set)


class ProgramSession:
    """A function of a program.

    Args:
        function: its message.
        weights: the files of its constants.
        precision: "half" rounds every value of float16 where the program does; "exact" computes
            in float32 what the program means.
        seed: of random ops that have none of their own.

    Attributes:
        inputs: names and types of what it takes, states left out.
        states: names and types of its states.
        outputs: the names of what it makes.

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
        given = {value.name: type_of(value.type) for value in function.inputs}
        self.inputs = {n: kind for n, kind in given.items() if not isinstance(kind, StateType)}
        self.states = {n: kind for n, kind in given.items() if isinstance(kind, StateType)}
        self.precision = precision
        self._random = np.random.default_rng(seed)
        planner = _Planner(opset, weights, precision == "half", self._random)
        self._plan = planner.plan(block, {}, tuple(given))
        self._half = precision == "half"
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
            name: {n for a in operation.moving.values() for n in a.names if n}.union(
                *(block.reads for block in operation.blocks)
            )
            for operation in self._plan.operations
            for name in operation.outputs
        }

    def make_state(self) -> State:
        """The state before the first prediction: zeros."""
        made = {}
        for name, kind in self.states.items():
            wrapped = kind.wrapped if isinstance(kind, StateType) else kind
            if not isinstance(wrapped, TensorType) or None in (wrapped.shape or (None,)):
                raise SpecError(f"the state {name!r} is a {kind}, which has no first value")
            shape = [extent or 0 for extent in wrapped.shape or ()]
            made[name] = np.zeros(shape, self._dtype(wrapped.dtype))
        return State(made)

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
        """
        scope = self._started(values, state)
        wanted = tuple(self.outputs if outputs is None else outputs)
        with np.errstate(all="ignore"):
            found = self._run(self._plan, scope, None, frozenset(wanted))
        return self._chosen(found, wanted)

    def _started(self, values: Mapping[str, Any], state: State | None) -> Values:
        """What the function is given."""
        missing = [name for name in self.inputs if name not in values]
        if missing:
            raise PredictionError(f"the input {missing[0]!r} is missing")
        scope: Values = {}
        for name, kind in self.inputs.items():
            scope[name] = self._given(name, values[name], kind)
        if self.states:
            first = self.make_state()
            kept = state if state is not None else first
            for name in self.states:
                if name not in kept or kept[name].shape != first[name].shape:
                    raise PredictionError(
                        f"the state is of another model: this one keeps {name!r}, a "
                        f"{self.states[name]}; state = model.make_state()"
                    )
                scope[name] = kept.cell(name)
        return scope

    @staticmethod
    def _chosen(found: Values, wanted: Sequence[str]) -> dict[str, Any]:
        lacking = [name for name in wanted if name not in found]
        if lacking:
            raise PredictionError(f"the program makes no value {lacking[0]!r}")
        return {name: _narrowed(found[name]) for name in wanted}

    def _dtype(self, name: str) -> np.dtype[Any]:
        dtype = DTYPES[name].array
        return np.dtype(np.float32) if dtype == _HALF and not self._half else dtype

    def _given(self, name: str, value: Any, kind: ValueType) -> Any:
        if not isinstance(kind, TensorType):
            return value
        array = np.asarray(value).astype(self._dtype(kind.dtype), copy=False)
        if not _fits(array.shape, kind):
            raise PredictionError(f"the input {name!r} takes {kind}, not shape {array.shape}")
        return array

    # ---- the walk ------------------------------------------------------------------------

    def _run(self, plan: Plan, scope: Values, outer: Scope | None, shown: frozenset[str]) -> Values:
        scope = {**plan.constants, **scope}
        chain = Scope(scope, outer)
        for operation in plan.operations:
            self._operate(operation, chain)
            for name in operation.last:
                if name not in shown:
                    scope.pop(name, None)
        return scope

    def _operate(self, operation: Operation, scope: Scope) -> None:
        arguments = dict(operation.fixed)
        for name, argument in operation.moving.items():
            find = _READS[operation.raw, operation.moves]
            values = [
                find(constant if key is None else scope.kept(key))
                for key, constant in zip(argument.names, argument.constants, strict=True)
            ]
            arguments[name] = values if argument.many else values[0]
        call = operation.call
        if operation.blocks:
            blocks = [self._block(plan, scope) for plan in operation.blocks]
            call = Call(call.op, call.name, call.opset, call.outputs, blocks, call.random)
        try:
            if operation.rule is not None:
                sizes.check(operation.rule, arguments)
            made = operation.kernel(call, **arguments)
        except MlferryError as error:
            error.add_context(f"running {operation}")
            raise
        except Exception as error:
            raise PredictionError(f"{operation} does not fit its inputs: {error!r:.300}") from error
        results = made if isinstance(made, tuple) else (made,)
        if len(results) < len(operation.outputs):
            raise PredictionError(
                f"{operation} made {len(results)} values; {len(operation.outputs)} are described"
            )
        for name, kind, value in zip(operation.outputs, call.outputs, results, strict=False):
            scope.values[name] = self._typed(operation, kind, value)

    def _block(self, plan: Plan, outer: Scope) -> Callable[..., list[Any]]:
        def run(*given: Any) -> list[Any]:
            inside = dict(zip(plan.inputs, given, strict=True))
            made = self._run(plan, inside, outer, frozenset(plan.outputs))
            scope = Scope(made, outer)
            return [scope.find(name) for name in plan.outputs]

        return run

    def _typed(self, operation: Operation, kind: ValueType, value: Any) -> Any:
        if not isinstance(kind, TensorType) or kind.dtype == "string":
            return value
        array = np.asarray(value)
        if self._half and kind.dtype == "fp16" and array.dtype in _WIDE:
            self._check_fits(operation, kind, array)
            return Rounded(array if operation.moves else half.rounded(array))
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
    """Values by name, with those around them."""

    def __init__(self, values: Values, outer: Scope | None) -> None:
        self.values, self._outer = values, outer

    def find(self, name: str) -> Any:
        """A value in its own type, from here or from around.

        Raises:
            PredictionError: nothing has made it.
        """
        return _narrowed(self.kept(name))

    def kept(self, name: str) -> Any:
        """A value as it was made: one of float16 may be `Rounded`."""
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


def _narrowed(value: Any) -> Any:
    return value.wide.astype(_HALF) if isinstance(value, Rounded) else value


def _widened(value: Any) -> Any:
    if isinstance(value, Rounded):
        return value.wide
    if isinstance(value, np.ndarray) and value.dtype == _HALF:
        return value.astype(np.float32)
    if isinstance(value, list):
        return [_widened(each) for each in value]
    return value


def _moved(value: Any) -> Any:
    return value.wide if isinstance(value, Rounded) else value


# How a kernel gets the values that it reads, by whether it is raw and whether it moves them only.
_READS: Mapping[tuple[bool, bool], Callable[[Any], Any]] = {
    (False, False): _widened,
    (True, False): _narrowed,
    (True, True): _moved,
}


def _fits(shape: tuple[int, ...], kind: TensorType) -> bool:
    if kind.shape is None:
        return True
    return len(shape) == len(kind.shape) and all(
        wanted in (extent, None) for extent, wanted in zip(shape, kind.shape, strict=True)
    )


class _Planner:
    """Resolves the operations of blocks."""

    def __init__(
        self, opset: int, weights: Weights, half: bool, random: np.random.Generator
    ) -> None:
        self._opset, self._weights, self._half, self._random = opset, weights, half, random

    def plan(self, block: mil.Block, known: Values, inputs: tuple[str, ...] | None = None) -> Plan:
        """A block, inside of which the constants around it are known."""
        names = inputs if inputs is not None else tuple(value.name for value in block.inputs)
        plan = Plan(names, tuple(block.outputs))
        inside = dict(known)
        for message in block.operations:
            with context(f"planning {message.type} {name_of(message)!r}"):
                self._operation(message, plan, inside)
        _set_last_reads(plan)
        return plan

    def _operation(self, message: mil.Operation, plan: Plan, known: Values) -> None:
        outputs = tuple(value.name for value in message.outputs)
        types = tuple(type_of(value.type) for value in message.outputs)
        if message.type == "const":
            value = self._constant(message)
            known[outputs[0]] = plan.constants[outputs[0]] = value
            return
        definition = definition_of(message.type, self._opset)
        arguments = arguments_of(message, definition.parameters, known, self._decoded)
        call = Call(message.type, name_of(message), self._opset, types, (), self._random)
        entry = KERNELS.find(message.type, self._opset)
        if entry is None:
            raise SpecError(f"there is no kernel for {message.type}")
        moves = bool(entry.options.get("moves"))
        raw = moves or bool(entry.options.get("raw"))
        fixed = {name: _fixed(a, raw) for name, a in arguments.items() if a.is_constant}
        moving = {name: a for name, a in arguments.items() if not a.is_constant}
        for name, parameter in definition.parameters.items():
            if name not in arguments:
                fixed[name] = parameter.default
        blocks = tuple(self.plan(inner, known) for inner in message.blocks)
        rule = None if sizes.are_known(types) or blocks else definition.rule
        operation = Operation(
            call, entry.value, fixed, moving, outputs, raw, blocks, rule=rule, moves=moves
        )
        if message.type.startswith("constexpr_") and not moving:
            value = self._evaluated(operation)
            for name, each in zip(outputs, value, strict=False):
                known[name] = plan.constants[name] = each
            return
        plan.operations.append(operation)

    def _evaluated(self, operation: Operation) -> tuple[Any, ...]:
        """What an operation of constants makes."""
        with np.errstate(all="ignore"):
            made = operation.kernel(operation.call, **operation.fixed)
        results = made if isinstance(made, tuple) else (made,)
        found = []
        for kind, value in zip(operation.call.outputs, results, strict=False):
            array = np.asarray(value)
            if isinstance(kind, TensorType):
                if not _fits(array.shape, kind):
                    raise SpecError(f"it makes the shape {array.shape}; {kind} is described")
                dtype = DTYPES[kind.dtype].array
                whole = np.dtype(np.float32) if dtype == _HALF and not self._half else dtype
                array = array.astype(whole, copy=False)
            found.append(array)
        return tuple(found)

    def _constant(self, message: mil.Operation) -> Any:
        if "val" not in message.attributes:
            raise SpecError("a constant has no value")
        return self._decoded(message.attributes["val"])

    def _decoded(self, message: mil.Value) -> Any:
        value = value_of(message, self._weights)
        if isinstance(value, np.ndarray) and value.dtype == _HALF and not self._half:
            return value.astype(np.float32)
        return value


def _fixed(argument: Argument, raw: bool) -> Any:
    values = [value if raw else _widened(value) for value in argument.constants]
    return values if argument.many else values[0]


def _set_last_reads(plan: Plan) -> None:
    """Say after which operation each value of a block is not read any more."""
    left = set(plan.outputs)
    own = set(plan.inputs) | {name for op in plan.operations for name in op.outputs}
    for index in range(len(plan.operations) - 1, -1, -1):
        operation = plan.operations[index]
        reads = {name for a in operation.moving.values() for name in a.names if name}
        for block in operation.blocks:
            reads |= block.reads
        plan.reads |= reads - own
        last = tuple(name for name in (*reads, *operation.outputs) if name not in left)
        left |= reads
        plan.operations[index] = Operation(
            **{**operation.__dict__, "last": tuple(name for name in last if name in own)}
        )
    plan.reads |= set(plan.outputs) - own - set(plan.constants)
