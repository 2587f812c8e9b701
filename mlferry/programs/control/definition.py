"""Constants, branches, loops, lists, states and labels."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.numerics.shapes import broadcast, in_common, product, show
from mlferry.programs.definitions import (
    ANY,
    BOOL,
    INT32,
    NUMBERS,
    STRING,
    Operands,
    Parameter,
    need,
    op_kind,
    option,
    other,
)
from mlferry.programs.types import (
    DictionaryType,
    ListType,
    StateType,
    TensorType,
    ValueType,
    compatible,
)

_ELEMENTS = NUMBERS | BOOL


@op_kind("const", val=Parameter(frozenset(), constant=True, tensor=False))
def constant(operands: Operands) -> ValueType:
    return operands.val.type


@op_kind("select", variables={"T": _ELEMENTS}, cond=need(BOOL), a=need("T"), b=need("T"))
def select(operands: Operands) -> TensorType:
    """The condition is broadcast to the values, but not the values to it."""
    shape = broadcast(operands.a.shape, operands.b.shape)
    if not compatible(broadcast(operands.cond.shape, shape), shape):
        raise SpecError(f"cond is {operands.cond.type}, which does not spread over {show(shape)}")
    return TensorType(operands.a.dtype, shape)


@op_kind("cond", blocks=2, pred=need(BOOL))
def cond(operands: Operands) -> tuple[ValueType, ...]:
    """Both blocks return values of the same types."""
    return joined(*operands.blocks)


@op_kind("while_loop", blocks=2, loop_vars=Parameter(ANY, many=True, tensor=False))
def while_loop(operands: Operands) -> tuple[ValueType, ...]:
    """The first block says whether to continue; the second returns the next values."""
    started = tuple(operand.type for operand in operands.loop_vars)
    return joined(started, operands.blocks[1])


def joined(one: tuple[ValueType, ...], two: tuple[ValueType, ...]) -> tuple[ValueType, ...]:
    """The types of values that come from either of two blocks: extents that differ are open."""
    if len(one) != len(two):
        raise SpecError(f"there are {len(one)} values in one branch and {len(two)} in the other")
    return tuple(_either(a, b) for a, b in zip(one, two, strict=True))


def _either(one: ValueType, two: ValueType) -> ValueType:
    if not (isinstance(one, TensorType) and isinstance(two, TensorType)):
        if type(one) is not type(two):
            raise SpecError(f"a value is a {one} in one branch and a {two} in the other")
        return one
    if one.dtype != two.dtype:
        raise SpecError(f"a value is {one} in one branch and {two} in the other")
    return TensorType(one.dtype, in_common(one.shape, two.shape))


@op_kind(
    "make_list",
    init_length=Parameter(INT32, required=False, default=1),
    dynamic_length=option(BOOL, default=True),
    elem_shape=Parameter(INT32, many=True),
    dtype=option(STRING, "fp32"),
)
def make_list(operands: Operands) -> ListType:
    extents = tuple(
        None if extent.value is None or extent.dtype == "string" else int(extent.known)
        for extent in operands.elem_shape
    )
    length = operands.init_length.value
    if operands.init_length.shape:
        raise SpecError(f"init_length is {operands.init_length.type}, not one number")
    fixed = not operands.dynamic_length.known and length is not None
    return ListType(
        TensorType(operands.dtype.known, extents), operands.init_length.known if fixed else None
    )


def _list(operands: Operands) -> ListType:
    kind = operands.ls.type
    if not isinstance(kind, ListType):
        raise SpecError(f"ls is a {kind}, not a list")
    return kind


@op_kind("list_length", ls=other())
def list_length(operands: Operands) -> TensorType:
    _list(operands)
    return TensorType("int32", ())


@op_kind("list_read", ls=other(), index=need(INT32))
def list_read(operands: Operands) -> ValueType:
    return _list(operands).element


@op_kind("list_write", ls=other(), index=need(INT32), value=need(_ELEMENTS))
def list_write(operands: Operands) -> ListType:
    return _written(operands, operands.value.tensor)


def _written(operands: Operands, value: TensorType) -> ListType:
    kind = _list(operands)
    element = kind.element
    if (
        not isinstance(element, TensorType)
        or element.dtype != value.dtype
        or not compatible(element.shape, value.shape)
    ):
        raise SpecError(f"an element is {value}; ls is a {kind}")
    return kind


@op_kind("list_scatter", ls=other(), indices=need(INT32), value=need(_ELEMENTS))
def list_scatter(operands: Operands) -> ListType:
    """The first axis of the value belongs to the indices."""
    indices, value = operands.indices, operands.value
    if indices.rank != 1 or not value.rank or not compatible(indices.shape, value.shape[:1]):
        raise SpecError(f"indices are {indices.type}, value is {value.type}")
    return _written(operands, TensorType(value.dtype, value.shape[1:]))


@op_kind("list_gather", ls=other(), indices=need(INT32))
def list_gather(operands: Operands) -> TensorType:
    element = _list(operands).element
    if not isinstance(element, TensorType) or element.shape is None:
        raise SpecError(f"a list of {element} cannot be gathered")
    return TensorType(element.dtype, (operands.indices.shape[0], *element.shape))


@op_kind("read_state", since=8, input=other())
def read_state(operands: Operands) -> ValueType:
    if not isinstance(operands.input.type, StateType):
        raise SpecError(f"input is a {operands.input.type}, not a state")
    return operands.input.type.wrapped


@op_kind("write_state", since=8, input=other(), data=need(ANY))
def write_state(operands: Operands) -> tuple[ValueType, ...]:
    state, data = read_state(operands), operands.data.tensor
    if (
        not isinstance(state, TensorType)
        or state.dtype != data.dtype
        or not compatible(state.shape, data.shape)
    ):
        raise SpecError(f"data is {data}; the state takes {state}")
    return ()


@op_kind(
    "classify",
    probabilities=need(frozenset({"fp32"})),
    classes=Parameter(frozenset(), constant=True, tensor=False),
)
def classify(operands: Operands) -> tuple[ValueType, ...]:
    """The likeliest label, and the probability of every label."""
    labels = operands.classes.type
    if not isinstance(labels, ListType) or not isinstance(labels.element, TensorType):
        raise SpecError(f"classes is a {labels}, not a list of labels")
    count, chances = labels.length, product(operands.probabilities.shape)
    if None not in (count, chances) and count != chances:
        raise SpecError(f"there are {count} classes for {chances} probabilities")
    label = TensorType(labels.element.dtype, ())
    return label, DictionaryType(label, TensorType("fp64", ()))
