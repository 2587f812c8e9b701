"""Branches, loops, lists, states and labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry import limits
from mlferry.errors import PredictionError
from mlferry.programs.kernels import Array, Call, kernel


@kernel("select")
def select(call: Call, cond: Array, a: Array, b: Array) -> Array:
    return np.where(cond, a, b)


@kernel("cond")
def cond(call: Call, pred: Array) -> tuple[Any, ...]:
    return tuple(call.blocks[0]() if np.all(pred) else call.blocks[1]())


@kernel("while_loop", raw=True)
def while_loop(call: Call, loop_vars: list[Any]) -> tuple[Any, ...]:
    """As long as the first block says so, the second makes the next values."""
    values, rounds = list(loop_vars), 0
    while bool(np.all(call.blocks[0](*values)[0])):
        rounds += 1
        limits.check("rounds", rounds, f"rounds of the loop {call.name!r}:")
        values = call.blocks[1](*values)
    return tuple(values)


# ---- lists: Python's own; elements that were not written are None --------------------------------


@kernel("make_list", raw=True)
def make_list(
    call: Call, init_length: Any, dynamic_length: bool, elem_shape: Any, dtype: str
) -> list[Any]:
    length = int(init_length)
    limits.check("rounds", length, f"elements of the list {call.name!r}:")
    return [None] * length


@kernel("list_length", raw=True)
def list_length(call: Call, ls: list[Any]) -> Array:
    return np.asarray(len(ls), np.int32)


def _element(ls: list[Any], index: int) -> Any:
    if not -len(ls) <= index < len(ls) or ls[index] is None:
        raise PredictionError(f"element {index} of a list of {len(ls)} was not written")
    return ls[index]


@kernel("list_read", raw=True)
def list_read(call: Call, ls: list[Any], index: Array) -> Any:
    return _element(ls, int(index))


@kernel("list_write", raw=True)
def list_write(call: Call, ls: list[Any], index: Array, value: Array) -> list[Any]:
    return _written(ls, int(index), value)


def _written(ls: list[Any], index: int, value: Array) -> list[Any]:
    if index < 0:
        raise PredictionError(f"element {index} of a list is written; the first is 0")
    limits.check("rounds", index, "elements of a list:")
    longer = [*ls, *[None] * (index + 1 - len(ls))]
    longer[index] = value
    return longer


@kernel("list_gather", raw=True)
def list_gather(call: Call, ls: list[Any], indices: Array) -> Array:
    return np.stack([_element(ls, int(index)) for index in indices])


@kernel("list_scatter", raw=True)
def list_scatter(call: Call, ls: list[Any], indices: Array, value: Array) -> list[Any]:
    for index, each in zip(indices, value, strict=True):
        ls = _written(ls, int(index), each)
    return ls


# ---- states and labels ---------------------------------------------------------------------------


@kernel("read_state", raw=True)
def read_state(call: Call, input: Any) -> Array:
    return np.array(input.value)


@kernel("write_state", raw=True)
def write_state(call: Call, input: Any, data: Array) -> tuple[Any, ...]:
    if np.shape(data) != input.value.shape:
        raise PredictionError(f"a state of shape {input.value.shape} gets shape {np.shape(data)}")
    input.value = np.array(data, input.value.dtype)
    return ()


@kernel("classify")
def classify(call: Call, probabilities: Array, classes: list[Any]) -> tuple[Any, dict[Any, float]]:
    labels = [np.asarray(label).item() for label in classes]
    flat = np.ravel(probabilities)
    if len(labels) != flat.size:
        raise PredictionError(f"there are {len(labels)} labels and {flat.size} probabilities")
    likeliest = labels[int(np.argmax(flat))]
    return likeliest, dict(zip(labels, flat.astype(float).tolist(), strict=True))
