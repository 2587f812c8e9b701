"""Branches and loops as `If` and `Loop`; lists as arrays whose first axis grows; states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlferry.numerics.shapes import Shape
from mlferry.onnx_graph.emitter import Emitter
from mlferry.onnx_graph.graph import Port
from mlferry.programs.exports import Call, body_of, carrier_of, export, int32, shape_of
from mlferry.refusals import refuse


@export("select", moves=True)
def select(emitter: Emitter, call: Call, cond: str, a: str, b: str) -> str:
    if call.dtype != "bool":
        return emitter.node("Where", cond, a, b)
    one = emitter.node("And", cond, a)
    return emitter.node("Or", one, emitter.node("And", emitter.node("Not", cond), b))


def _truth(emitter: Emitter, flag: str) -> str:
    """A flag without axes."""
    return flag if emitter.shapes.get(flag) == () else emitter.reshape(flag, [])


@export("cond", moves=True)
def cond(emitter: Emitter, call: Call, pred: str) -> tuple[str, ...]:
    assert call.states is not None
    dtypes = [*(carrier_of(kind) for kind in call.outputs), *call.cells.values()]
    before = [call.states.read(cell) for cell in call.cells]
    bodies = []
    for block in call.blocks:
        with emitter.inside() as nodes:
            values = [*block(), *(call.states.read(cell) for cell in call.cells)]
            bodies.append(body_of(emitter, nodes, values, dtypes))
        _write(call, before)
    outputs = emitter.nodes(
        "If", [_truth(emitter, pred)], len(dtypes), then_branch=bodies[0], else_branch=bodies[1]
    )
    return _written_back(emitter, call, before, outputs)


def _write(call: Call, values: Sequence[str]) -> None:
    """Give new values to the states that blocks may write."""
    assert call.states is not None
    for cell, value in zip(call.cells, values, strict=True):
        call.states.write(cell, value)


def _written_back(
    emitter: Emitter, call: Call, before: Sequence[str], outputs: tuple[str, ...]
) -> tuple[str, ...]:
    """The results of a node, without the states, which take their values from it."""
    count = len(call.outputs)
    for old, new in zip(before, outputs[count:], strict=True):
        emitter.shapes[new] = emitter.shapes.get(old)
    _write(call, outputs[count:])
    return outputs[:count]


@export("while_loop", moves=True)
def while_loop(emitter: Emitter, call: Call, loop_vars: list[str]) -> tuple[str, ...]:
    """The condition is written before the loop and at the end of a round."""
    assert call.states is not None
    condition, step = call.blocks
    dtypes = [*(carrier_of(kind) for kind in call.outputs), *call.cells.values()]
    first = _truth(emitter, condition(*loop_vars)[0])
    before = [call.states.read(cell) for cell in call.cells]
    names = [emitter.fresh(f"{call.name}/{index}") for index in range(len(loop_vars))]
    for name, kind in zip(names, call.outputs, strict=True):
        emitter.shapes[name] = shape_of(kind)
    cells = [emitter.fresh(f"{call.name}/{cell}") for cell in call.cells]
    for old, new in zip(before, cells, strict=True):
        emitter.shapes[new] = emitter.shapes.get(old)
    counter, going = emitter.fresh(f"{call.name}/round"), emitter.fresh(f"{call.name}/go")
    with emitter.inside() as nodes:
        _write(call, cells)
        call.states.round()
        values = step(*names)
        again = _truth(emitter, condition(*values)[0])
        after = [call.states.read(cell) for cell in call.cells]
        ports = [Port(counter, "int64", ()), Port(going, "bool", ())]
        ports += [Port(name, dtype) for name, dtype in zip([*names, *cells], dtypes, strict=True)]
        body = body_of(emitter, nodes, [again, *values, *after], ["bool", *dtypes], ports)
    outputs = emitter.nodes("Loop", ["", first, *loop_vars, *before], len(dtypes), body=body)
    return _written_back(emitter, call, before, outputs)


# ---- lists ---------------------------------------------------------------------------------------


def _element(call: Call) -> Shape:
    kind = call.types["ls"][0] if "ls" in call.types else call.outputs[0]
    shape = shape_of(kind)
    if shape is None:
        raise refuse("the rank of the elements of the list is not known")
    return shape[1:]


@export("make_list", moves=True)
def make_list(
    emitter: Emitter,
    call: Call,
    init_length: str | int,
    dynamic_length: bool,
    elem_shape: list[str],
    dtype: str,
) -> str:
    """Elements are 0 before they are written."""
    length = call.value("init_length")
    count = emitter.reshape(emitter.whole(length), [1]) if length else emitter.integers([1])
    extents = [extent or 0 for extent in _element(call)]
    shape = emitter.joined([count, emitter.integers(extents)], 0)
    filler = np.zeros(1, carrier_of(call.outputs[0]))
    return emitter.node("ConstantOfShape", shape, value=filler)


@export("list_length", moves=True)
def list_length(emitter: Emitter, call: Call, ls: str) -> str:
    count = emitter.node("Shape", ls, start=0, end=1)
    emitter.shapes[count] = (1,)
    return int32(emitter, emitter.squeeze(count, [0]))


@export("list_read", moves=True)
def list_read(emitter: Emitter, call: Call, ls: str, index: str) -> str:
    return emitter.node("Gather", ls, emitter.reshape(index, []), axis=0)


@export("list_gather", moves=True)
def list_gather(emitter: Emitter, call: Call, ls: str, indices: str) -> str:
    return emitter.node("Gather", ls, indices, axis=0)


@export("list_write", moves=True)
def list_write(emitter: Emitter, call: Call, ls: str, index: str, value: str) -> str:
    place = emitter.reshape(emitter.whole(index), [1])
    rows = emitter.node("Unsqueeze", value, emitter.integers([0]))
    return _written(emitter, call, ls, place, rows)


@export("list_scatter", moves=True)
def list_scatter(emitter: Emitter, call: Call, ls: str, indices: str, value: str) -> str:
    return _written(emitter, call, ls, emitter.reshape(emitter.whole(indices), [-1]), value)


def _written(emitter: Emitter, call: Call, ls: str, places: str, rows: str) -> str:
    """The list with other elements; it grows if it is too short, or has no elements yet."""
    one, zero = emitter.integers([1]), emitter.integers([0])
    last = emitter.node("ReduceMax", places, zero, keepdims=1)
    longest = emitter.node("Add", last, one)
    element = emitter.node("Shape", rows, start=1)
    needed = emitter.node("Concat", longest, element, axis=0)
    size = emitter.node("Shape", ls)
    missing = emitter.node("Sub", emitter.node("Max", size, needed), size)
    before = emitter.integers([0] * (len(_element(call)) + 1))
    amounts = emitter.node("Concat", before, missing, axis=0)
    dtype = carrier_of(call.outputs[0])
    filler = emitter.constant(np.zeros((), dtype))
    padded = emitter.node("Pad", ls, amounts, filler)
    return emitter.node(
        "ScatterND", padded, emitter.node("Unsqueeze", places, emitter.integers([-1])), rows
    )


# ---- states and labels ---------------------------------------------------------------------------


@export("read_state", moves=True)
def read_state(emitter: Emitter, call: Call, input: str) -> str:
    assert call.states is not None
    return call.states.read(input)


@export("write_state", moves=True)
def write_state(emitter: Emitter, call: Call, input: str, data: str) -> tuple[str, ...]:
    assert call.states is not None
    call.states.write(input, data)
    return ()


@export("classify", moves=True, outside=True)
def classify(emitter: Emitter, call: Call, probabilities: str, classes: object) -> tuple[str, str]:
    """The probabilities stand for both outputs; the labels belong to the model."""
    return probabilities, probabilities
