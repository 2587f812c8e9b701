"""The registry of kernels: one function for each op; arrays by parameter in, arrays out.

Values of float16 come as float32, and results are rounded to the type that the program declares: a
kernel accumulates in float32, as devices do. Constants that an op needs in advance come as Python
values: scalars, and tuples for vectors of integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlferry.programs.types import ValueType
from mlferry.rooms import PROGRAMS, RoomRegistry

Array = NDArray[Any]
T = TypeVar("T")
Kernel = Callable[..., Any]

KERNELS: RoomRegistry[Kernel] = RoomRegistry("kernel of a program op", PROGRAMS, "kernel")
kernel = KERNELS.register
"""Registers kernels: `kernel("relu")`. Options:

    raw: it gets values of float16 as they are.
    moves: it gets them in either type: it only moves values, which are not rounded again.
    exact: what it makes of values of float16 are such values, too.
    columns: parameters whose constants it reads by columns.
"""


@dataclass
class StateCell:
    """The value of a state, which ops read and write."""

    value: Array


@dataclass(frozen=True)
class Call:
    """One operation that is running.

    Attributes:
        op: what it is.
        name: its own.
        opset: the number of the function's opset.
        outputs: the types that the program declares.
        blocks: functions that run its blocks: values in, values out.
        rounds: counts the rounds of all loops of a run.
        random: the generator for random ops without a seed.
        stays: the parameters whose constants stay in memory as the kernel gets them.
    """

    op: str
    name: str
    opset: int
    outputs: tuple[ValueType, ...]
    blocks: Sequence[Callable[..., list[Any]]] = ()
    rounds: Iterator[int] = field(default_factory=lambda: count(1))
    random: np.random.Generator = field(default_factory=np.random.default_rng)
    stays: frozenset[str] = frozenset()
    _derived: dict[str, Any] = field(default_factory=dict, compare=False)

    def once(self, key: str, make: Callable[[], T]) -> T:
        """The result of `make`, made of constants that stay, at the first call and kept."""
        if key not in self._derived:
            self._derived[key] = make()
        return self._derived[key]  # type: ignore[no-any-return] # of `make`
