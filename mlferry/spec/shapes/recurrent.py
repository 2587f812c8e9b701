"""Recurrent layers: [Seq, Batch, C, 1, 1] in; the output and the last states out."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.spec.params import Params
from mlferry.spec.shapes.rules import Shape, product, rule, show

# Their states may be left out of the outputs.
RECURRENT = ("simpleRecurrent", "gru", "uniDirectionalLSTM", "biDirectionalLSTM")


def recurrent(
    p: Params, shape: Shape, states: tuple[Shape, ...], sequence: bool, names: int, directions: int
) -> list[Shape]:
    """The output and `names` states; initial states are given all or not at all."""
    if len(shape) != 5:
        raise SpecError(f"input of shape {show(shape)} needs 5 axes: Seq, Batch, C, 1, 1")
    size = product(shape[2:])
    if size not in (p.inputVectorSize, None):
        raise SpecError(
            f"input {show(shape)} has vectors of {size}, the layer takes {p.inputVectorSize}"
        )
    if len(states) not in (0, names):
        raise SpecError(f"{len(states)} initial states; it takes none or {names}")
    units = p.outputVectorSize
    for state in states:
        if product(state[-3:]) not in (units, None):
            raise SpecError(f"an initial state of shape {show(state)}; {units} units are needed")
    batch = shape[1]
    steps = shape[0] if sequence else 1
    return [(steps, batch, directions * units, 1, 1), *[(1, batch, units, 1, 1)] * names]


@rule("simpleRecurrent", "gru")
def one_state(p: Params, shape: Shape, *states: Shape) -> list[Shape]:
    return recurrent(p, shape, states, p.sequenceOutput, 1, 1)


@rule("uniDirectionalLSTM")
def lstm(p: Params, shape: Shape, *states: Shape) -> list[Shape]:
    return recurrent(p, shape, states, p.params.sequenceOutput, 2, 1)


@rule("biDirectionalLSTM")
def bidirectional_lstm(p: Params, shape: Shape, *states: Shape) -> list[Shape]:
    return recurrent(p, shape, states, p.params.sequenceOutput, 4, 2)
