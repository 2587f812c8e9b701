"""The extents with which a conversion computes.

What a converter computes from a known extent is valid for that extent only: a constant, a
parameter, a choice between two methods. Each such use is logged, and finally traced back to the
input axes on which it depends; see `mlferry.spec.sizes`. Converters that write layers for any size
do not ask for extents, so nothing is logged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlferry.converters.values import AnyOperand, Blob, Constant
from mlferry.numerics.shapes import Array
from mlferry.settings import Setting

Extent = tuple[str, int]  # a blob and its axis
Extents = frozenset[Extent]


@dataclass
class SizeLog:
    """The extents that one conversion has used.

    Attributes:
        node: what is converted now.
        uses: each extent, with the first node that computed with it.
        sets: the extents from which an element of a constant may be made; its code is an index into
            this list.
    """

    node: str = ""
    uses: dict[Extent, str] = field(default_factory=dict)
    sets: list[Extents] = field(default_factory=lambda: [frozenset()])

    def use(self, extents: Extents) -> None:
        """Log that the layers of this node are valid only for these extents."""
        for extent in extents:
            self.uses.setdefault(extent, self.node)

    def code(self, extents: Extents) -> int:
        """The number that stands for a set of extents."""
        if extents not in self.sets:
            self.sets.append(extents)
        return self.sets.index(extents)

    def behind(self, *operands: AnyOperand) -> Extents:
        """The extents from which constants are made."""
        codes = {
            int(code)
            for x in operands
            if isinstance(x, Constant) and x.origins is not None
            for code in np.unique(x.origins)
        }
        return frozenset().union(*(self.sets[code] for code in codes))


_LOG: ContextVar[SizeLog | None] = ContextVar("sizes", default=None)


def logged(log: SizeLog) -> Setting[SizeLog | None]:
    """Log the extents used in the block."""
    return Setting(_LOG, log)


def use(x: Blob, axes: Iterable[int] | None = None) -> None:
    """Record that what follows depends on extents of a blob, by default on all."""
    log = _LOG.get()
    if log is not None and x.shape is not None and not x.is_scalar:
        chosen = range(x.rank) if axes is None else axes
        log.use(frozenset(_extent(x, axis % x.rank) for axis in chosen))


_MOST_AXES = 5
ANY_AXIS = -1


def _extent(x: Blob, axis: int) -> Extent:
    """An extent of a blob; any extent of it if the source's value has more axes than the blob."""
    return x.name, axis if x.rank <= _MOST_AXES else ANY_AXIS


def as_constant(log: SizeLog, x: Blob, array: Array, axes: Sequence[int]) -> Constant:
    """Extents of a blob as a constant that knows from which extents it is made.

    Args:
        array: its extents along `axes`, in the source's order.
        axes: of the source.
    """
    codes = [log.code(frozenset([_extent(x, x.axis(axis))])) for axis in axes]
    return Constant("", array, origins=np.array(codes, np.int64))


def folded(
    log: SizeLog,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    moves: Callable[[], Sequence[Any] | None],
) -> Sequence[Any]:
    """The result of a node of constants, which knows from which extents it is made.

    Args:
        moves: evaluates a node that only moves values, on codes in place of values; returns None
            for other nodes, of which every value depends on every operand.
    """
    behind = log.behind(*inputs)
    if not behind:
        return outputs
    codes = moves()
    if codes is None or any(np.asarray(c).dtype.kind == "b" for c in codes):
        code = log.code(behind)
        codes = [None if x is None else np.full(np.shape(x), code, np.int64) for x in outputs]
    return [
        None if x is None else Constant("", np.asarray(x), origins=np.asarray(c, np.int64))
        for x, c in zip(outputs, codes, strict=True)
    ]


def codes_of(x: Constant) -> Array:
    """The codes of a constant, in the type of its values."""
    known = x.origins if x.origins is not None else np.zeros(x.array.shape)
    codes: Array = np.asarray(known).astype(x.array.dtype)
    return codes


def spelled(log: SizeLog, x: Constant) -> str:
    """The blob whose complete shape a constant is, in order; "" if it is not one."""
    if x.origins is None or x.origins.ndim != 1:
        return ""
    extents = [log.sets[code] for code in x.origins.tolist()]
    names = {name for each in extents for name, _ in each}
    whole = all(each == frozenset([(name, i)]) for i, each in enumerate(extents) for name in names)
    return names.pop() if len(names) == 1 and whole else ""
