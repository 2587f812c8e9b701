"""Branches, loops, lists, states and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlferry import limits
from mlferry.errors import PredictionError
from mlferry.programs.kernels import Array, Call, StateCell, kernel
from mlferry.programs.types import DTYPES


@kernel("select")
def select(call: Call, cond: Array, a: Array, b: Array) -> Array:
    return np.where(cond, a, b)


@kernel("cond")
def cond(call: Call, pred: Array) -> tuple[Any, ...]:
    return tuple(call.blocks[0]() if np.all(pred) else call.blocks[1]())


@kernel("while_loop", raw=True)
def while_loop(call: Call, loop_vars: list[Any]) -> tuple[Any, ...]:
    """Run the second block for the next values as long as the first one gives true."""
    values = list(loop_vars)
    while bool(np.all(call.blocks[0](*values)[0])):
        limits.check("rounds", next(call.rounds), "the rounds of its loops are")
        values = call.blocks[1](*values)
    return tuple(values)


# ---- lists ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Elements:
    """A list: its elements, and the value of elements not yet written."""

    values: tuple[Array | None, ...]
    empty: Array | None

    def read(self, index: int) -> Array:
        """An element; its index counts from the start."""
        if not 0 <= index < len(self.values):
            raise PredictionError(f"element {index} of a list of {len(self.values)} is read")
        element = self.values[index]
        if element is not None:
            return element
        if self.empty is None:
            raise PredictionError(f"element {index} of a list is read before it is written")
        return self.empty

    def written(self, index: int, value: Array) -> Elements:
        """The list with another element; it grows if it is too short."""
        if index < 0:
            raise PredictionError(f"element {index} of a list is written; the first is 0")
        limits.check("rounds", index, "elements of a list:")
        longer = [*self.values, *[None] * (index + 1 - len(self.values))]
        longer[index] = value
        return Elements(tuple(longer), self.empty)


@kernel("make_list", raw=True)
def make_list(
    call: Call, init_length: Array | int, dynamic_length: bool, elem_shape: list[Array], dtype: str
) -> Elements:
    """Elements are 0 before they are written, if their shape is known."""
    length = int(init_length)
    limits.check("rounds", length, f"elements of the list {call.name!r}:")
    extents = [np.asarray(extent) for extent in elem_shape]
    are_integers = all(extent.dtype.kind in "iu" for extent in extents)
    empty = np.zeros([int(n) for n in extents], DTYPES[dtype].array) if are_integers else None
    return Elements((None,) * length, empty)


@kernel("list_length", raw=True)
def list_length(call: Call, ls: Elements) -> Array:
    return np.asarray(len(ls.values), np.int32)


@kernel("list_read", raw=True)
def list_read(call: Call, ls: Elements, index: Array) -> Array:
    return ls.read(int(index))


@kernel("list_write", raw=True)
def list_write(call: Call, ls: Elements, index: Array, value: Array) -> Elements:
    return ls.written(int(index), value)


@kernel("list_gather", raw=True)
def list_gather(call: Call, ls: Elements, indices: Array) -> Array:
    return np.stack([ls.read(int(index)) for index in indices])


@kernel("list_scatter", raw=True)
def list_scatter(call: Call, ls: Elements, indices: Array, value: Array) -> Elements:
    for index, each in zip(indices, value, strict=True):
        ls = ls.written(int(index), each)
    return ls


# ---- states and labels ---------------------------------------------------------------------------


@kernel("read_state", raw=True)
def read_state(call: Call, input: StateCell) -> Array:
    return np.array(input.value)


@kernel("write_state", raw=True)
def write_state(call: Call, input: StateCell, data: Array) -> tuple[Any, ...]:
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
