"""The definition of an op of ML Programs: its parameters in each opset, and its output types.

`op_kind` registers an op by its type rule, which takes the operands by the names of parameters and
returns the types of the outputs; None stands for an unknown extent. An op that changed with an
opset is registered again, by `newer`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mlferry.errors import SpecError
from mlferry.numerics.shapes import Shape
from mlferry.programs.types import Scalar, TensorType, ValueType
from mlferry.rooms import PROGRAMS, RoomRegistry

F = TypeVar("F", bound=Callable[..., Any])

OPSETS = {"CoreML5": 5, "CoreML6": 6, "CoreML7": 7, "CoreML8": 8, "CoreML9": 9}
UNKNOWN: Any = None  # the value of an operand that is computed while the program runs

# Sets of types of elements, for the parameters of ops.
FLOATS = frozenset({"fp16", "fp32"})
NUMBERS = FLOATS | {"int32"}
SMALL = frozenset({"int8", "uint8", "int16", "uint16"})
SIGNED = frozenset({"int8", "int16", "int32"})
ANY = NUMBERS | SMALL | {"bool"}
ALL = (
    ANY
    | {"uint32", "int64", "uint64", "fp64", "string", "int4"}
    | {f"uint{bits}" for bits in (1, 2, 3, 4, 6)}
)
INT32, BOOL, STRING = frozenset({"int32"}), frozenset({"bool"}), frozenset({"string"})


@dataclass(frozen=True)
class Parameter:
    """A parameter of an op.

    Attributes:
        dtypes: the types of its elements, or the name of a variable that several parameters share.
        required: whether it must be given.
        constant: whether its value must be known in advance.
        default: its value if it is omitted; None if it then has no effect.
        many: whether it takes several values.
        tensor: whether it takes tensors, and not lists, states or labels.
    """

    dtypes: frozenset[str] | str
    required: bool = True
    constant: bool = False
    default: Scalar | None = None
    many: bool = False
    tensor: bool = True


def need(dtypes: frozenset[str] | str) -> Parameter:
    """A required tensor."""
    return Parameter(dtypes)


def maybe(dtypes: frozenset[str] | str) -> Parameter:
    """An optional tensor."""
    return Parameter(dtypes, required=False)


def const(dtypes: frozenset[str] | str) -> Parameter:
    """A required value that must be known in advance."""
    return Parameter(dtypes, constant=True)


def option(dtypes: frozenset[str] | str, default: Scalar | None = None) -> Parameter:
    """An optional value that must be known in advance."""
    return Parameter(dtypes, required=False, constant=True, default=default)


def several(dtypes: frozenset[str] | str) -> Parameter:
    """One or more tensors."""
    return Parameter(dtypes, many=True)


def other() -> Parameter:
    """A list, a state, or a list of labels."""
    return Parameter(frozenset(), tensor=False)


class Operand(NamedTuple):
    """The argument of an op for a parameter.

    Attributes:
        type: its type.
        value: its value, if that is known in advance: an array or a list; otherwise `UNKNOWN`.
    """

    type: ValueType
    value: Any = UNKNOWN

    @property
    def tensor(self) -> TensorType:
        """The type of a tensor.

        Raises:
            SpecError: it is not a tensor.
        """
        if not isinstance(self.type, TensorType):
            raise SpecError(f"a {self.type} is given where a tensor is needed")
        return self.type

    @property
    def dtype(self) -> str:
        """The type of the elements of a tensor."""
        return self.tensor.dtype

    @property
    def shape(self) -> Shape:
        """The shape of a tensor.

        Raises:
            UnknownRankError: not even its rank is known.
        """
        if self.tensor.shape is None:
            raise UnknownRankError
        return self.tensor.shape

    @property
    def rank(self) -> int:
        """The number of axes of a tensor."""
        return len(self.shape)

    @property
    def known(self) -> Any:
        """The value of a constant in Python: a scalar or a tuple."""
        array = np.asarray(self.value)
        return array.item() if array.ndim == 0 else tuple(array.tolist())


class UnknownRankError(Exception):
    """The rank of an operand is unknown, so nothing is known about the outputs."""


class Operands:
    """The operands of an op, as attributes; None for one that is omitted and has no default."""

    def __init__(self, values: Mapping[str, Any], blocks: Sequence[Any] = ()) -> None:
        self._values = dict(values)
        self.blocks = blocks

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(name)
        return self._values[name]


TypeRule = Callable[[Operands], Any]


@dataclass(frozen=True)
class Definition:
    """An op, from one opset on.

    Attributes:
        rule: the types of its outputs.
        parameters: by name, in their order.
        variables: the element types that a variable may stand for.
        blocks: the number of its blocks.
    """

    rule: TypeRule
    parameters: Mapping[str, Parameter]
    variables: Mapping[str, frozenset[str]] = field(default_factory=dict)
    blocks: int = 0


DEFINITIONS: RoomRegistry[Definition] = RoomRegistry("program op", PROGRAMS, "definition")


def op_kind(
    *names: str,
    since: int = 5,
    variables: Mapping[str, frozenset[str]] | None = None,
    blocks: int = 0,
    shared: Mapping[str, Parameter] | None = None,
    **parameters: Parameter,
) -> Callable[[F], F]:
    """Register ops; see `Definition`.

    Args:
        names: their names in the format.
        since: the opset that brought them in this form.
        variables: names for element types that several parameters share; T stands for FLOATS unless
            it is given.
        blocks: how many blocks they have.
        shared: parameters that other ops have, too.
        parameters: those of their own.
    """

    def register(rule: F) -> F:
        types = {"T": FLOATS, **(variables or {})}
        definition = Definition(rule, {**parameters, **(shared or {})}, types, blocks)
        for name in names:
            DEFINITIONS.add(name, definition, since=since)
        return rule

    return register


def newer(
    since: int,
    *names: str,
    variables: Mapping[str, frozenset[str]] | None = None,
    **parameters: Parameter,
) -> Callable[[F], F]:
    """Register the changes that an opset made to ops; the rest stays as in the opset before.

    Args:
        names: of ops that are registered already.
        variables: the variables that stand for other types, or are new.
        parameters: the parameters that are different, or new.
    """

    def register(rule: F) -> F:
        for name in names:
            entry = DEFINITIONS.registered(name, since - 1)
            assert entry is not None
            before = entry.value
            definition = replace(
                before,
                rule=rule,
                parameters={**before.parameters, **parameters},
                variables={**before.variables, **(variables or {})},
            )
            DEFINITIONS.add(name, definition, since=since)
        return rule

    return register


def apart(since: int, *names: str, **parameters: Parameter) -> Callable[[F], F]:
    """As `newer`: parameters of the type of x, T, may be of another float type than x from now on.

    Args:
        names: of ops that are registered already.
        parameters: those that are otherwise different, or new.
    """

    def register(rule: F) -> F:
        for name in names:
            entry = DEFINITIONS.registered(name, since - 1)
            assert entry is not None
            others = {
                key: replace(parameter, dtypes="U")
                for key, parameter in entry.value.parameters.items()
                if parameter.dtypes == "T" and key != "x"
            }
            newer(since, name, variables={"U": FLOATS}, **{**others, **parameters})(rule)
        return rule

    return register


def one_of(operands: Operands, name: str, possible: Collection[str]) -> None:
    """Raise a `SpecError` if an operand has a value that is none of these names."""
    operand = getattr(operands, name, None)
    if operand is not None and operand.known not in possible:
        raise SpecError(f"{name} is {operand.known!r}; possible are {', '.join(possible)}")


def definition_of(name: str, opset: int) -> Definition:
    """The definition of an op in an opset.

    Raises:
        SpecError: the opset has no such op.
    """
    entry = DEFINITIONS.find(name, opset)
    if entry is not None:
        return entry.value
    later = DEFINITIONS.find(name)
    if later is None:
        close = DEFINITIONS.suggest(name)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise SpecError(f"there is no op {name!r} in ML Programs.{hint}")
    first = min(n for n in OPSETS.values() if DEFINITIONS.find(name, n) is not None)
    raise SpecError(f"the op {name!r} came with the opset CoreML{first}, not with CoreML{opset}")
