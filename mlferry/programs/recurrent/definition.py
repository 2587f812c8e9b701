"""Recurrent ops: x is [steps, batch, inputs]."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.numerics.shapes import Extent, Shape, show
from mlferry.programs.definitions import (
    BOOL,
    FLOATS,
    STRING,
    Operand,
    Operands,
    const,
    need,
    newer,
    one_of,
    op_kind,
    option,
)
from mlferry.programs.types import TensorType, compatible

# An lstm spells one of them differently.
ACTIVATIONS = ("hard_sigmoid", "linear", "relu", "scaled_tanh", "sigmoid", "tanh")
OF_ONE_STATE = (*ACTIVATIONS, "sigmoid_hard")
_FIVE = {"T": frozenset({"fp32"})}
_SEQUENCE = option(BOOL, default=False)
_TANH, _SIGMOID = option(STRING, "tanh"), option(STRING, "sigmoid")
_FORWARD = option(STRING, "forward")
_COMMON = {
    "x": need("T"),
    "initial_h": need("T"),
    "weight_ih": const("T"),
    "weight_hh": const("T"),
    "bias": option("T"),
    "direction": _FORWARD,
    "output_sequence": _SEQUENCE,
    "activation": _TANH,
}


def _checked(
    operands: Operands,
    gates: int,
    directions: tuple[str, ...],
    activations: tuple[str, ...] = OF_ONE_STATE,
) -> tuple[Extent, int]:
    """The batch, and the number of units."""
    x, weights, state = operands.x, operands.weight_ih, operands.weight_hh
    if x.rank != 3 or weights.rank != 2 or state.rank != 2:
        raise SpecError(f"x {x.type}, weight_ih {weights.type}, weight_hh {state.type}")
    units = state.shape[1] or 0
    shapes = ((gates * units, x.shape[2]), (gates * units, units))
    for name, operand, shape in (
        ("weight_ih", weights, shapes[0]),
        ("weight_hh", state, shapes[1]),
    ):
        if any(b is not None and a != b for a, b in zip(operand.shape, shape, strict=True)):
            raise SpecError(f"{name} is {operand.type}; {shape} is needed")
    _vector(operands, "bias", gates * units)
    one_of(operands, "direction", directions)
    for name in ("activation", "recurrent_activation", "cell_activation"):
        one_of(operands, name, activations)
    return x.shape[1], units


def _vector(operands: Operands, name: str, size: int) -> None:
    operand: Operand | None = getattr(operands, name, None)
    if operand is not None and operand.shape != (size,):
        raise SpecError(f"{name} is {operand.type}; it needs {size} values")


def _state(operands: Operands, name: str, shape: Shape) -> None:
    operand: Operand = getattr(operands, name)
    if not compatible(operand.shape, shape):
        raise SpecError(f"{name} is {operand.type}; the shape {show(shape)} is needed")


def _steps(operands: Operands) -> Extent:
    return operands.x.shape[0] if operands.output_sequence.known else 1


@newer(7, "rnn", variables={"T": FLOATS})
@op_kind("rnn", variables=_FIVE, shared=_COMMON)
def rnn(operands: Operands) -> tuple[TensorType, ...]:
    return _one_state(operands, 1)


@newer(8, "gru", reset_after=option(BOOL, default=False), input_bias=option("T"))
@newer(7, "gru", variables={"T": FLOATS})
@op_kind("gru", variables=_FIVE, shared=_COMMON, recurrent_activation=_SIGMOID)
def gru(operands: Operands) -> tuple[TensorType, ...]:
    """Gates are in the order reset, output, update."""
    return _one_state(operands, 3)


def _one_state(operands: Operands, gates: int) -> tuple[TensorType, ...]:
    batch, units = _checked(operands, gates, ("forward", "reverse"))
    _state(operands, "initial_h", (batch, units))
    dtype = operands.x.dtype
    whole = TensorType(dtype, (_steps(operands), batch, units))
    return whole, TensorType(dtype, (batch, units))


@newer(7, "lstm", variables={"T": FLOATS})
@op_kind(
    "lstm",
    variables=_FIVE,
    shared=_COMMON,
    initial_c=need("T"),
    peephole=option("T"),
    weight_ih_back=option("T"),
    weight_hh_back=option("T"),
    bias_back=option("T"),
    peephole_back=option("T"),
    recurrent_activation=_SIGMOID,
    cell_activation=_TANH,
    clip=option("T"),
)
def lstm(operands: Operands) -> tuple[TensorType, ...]:
    """Gates are in the order input, forget, output, cell."""
    batch, units = _checked(operands, 4, ("forward", "reverse", "bidirectional"), ACTIVATIONS)
    _vector(operands, "peephole", 3 * units)
    both = operands.direction.known == "bidirectional"
    if both and (operands.weight_ih_back is None or operands.weight_hh_back is None):
        raise SpecError("a bidirectional lstm needs weight_ih_back and weight_hh_back")
    width, dtype = units * (2 if both else 1), operands.x.dtype
    for name in ("initial_h", "initial_c"):
        _state(operands, name, (batch, width))
    state = TensorType(dtype, (batch, width))
    return TensorType(dtype, (_steps(operands), batch, width)), state, state
