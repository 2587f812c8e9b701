"""What is done to the rows of a result while they are still in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from mlferry.layers.elementwise.kernel import clipped
from mlferry.numerics import half
from mlferry.runtime.planned.maps import Array

T = TypeVar("T")
Pointwise = Callable[[Array, Array], None]
_INFINITE = np.float32(np.inf)


@dataclass(frozen=True)
class Clipping:
    """Clipping each value on both sides; NaN stays.

    Attributes:
        least: the lower limit.
        most: the upper limit.
    """

    least: np.float32 = -_INFINITE
    most: np.float32 = _INFINITE

    def __call__(self, x: Array, out: Array) -> None:
        """From the first argument into the second."""
        clipped(x, self.least, self.most, out=out)


@dataclass(frozen=True)
class Rounding:
    """Rounds each value to float16."""

    def __call__(self, x: Array, out: Array) -> None:
        """From the first argument into the second."""
        half.round_into(x, out)


@dataclass(frozen=True)
class NamedFunction:
    """A function of each value that has a name.

    Attributes:
        name: as `mlferry.compiled.functions` has it.
        function: from its first argument into the second.
    """

    name: str
    function: Pointwise

    def __call__(self, x: Array, out: Array) -> None:
        """From the first argument into the second."""
        self.function(x, out)


@dataclass(frozen=True)
class Affine:
    """A factor and a shift for each channel.

    Attributes:
        factor: [C].
        shift: [C].
    """

    factor: Array
    shift: Array

    def __call__(self, x: Array, out: Array) -> None:
        """From the first argument into the second."""
        np.multiply(x, self.factor, out=out)
        np.add(out, self.shift, out=out)


@dataclass(frozen=True)
class Combination:
    """A function of each value and that of another map.

    Attributes:
        combine: the function.
        other: the map, [H, W, C].
        swapped: whether the other value is its first argument.
    """

    combine: np.ufunc
    other: Array
    swapped: bool

    def __call__(self, x: Array, out: Array, top: int) -> None:
        """From some rows, the first of which is `top`, into others."""
        rows = self.other[top : top + len(x)]
        self.combine(*((rows, x) if self.swapped else (x, rows)), out=out)


@dataclass(frozen=True)
class TileEnds:
    """What a compiled product does to its sums before it writes them, in this order.

    Attributes:
        rounds: whether each result is rounded to float16.
        addend: a map to add, [H, W, C], or None.
        limits: of the values.
    """

    rounds: bool = False
    addend: Array | None = None
    limits: Clipping = Clipping()


@dataclass
class Finish:
    """What is done to rows [r, W, C] of a result before anything reads them.

    Attributes:
        factor: [C], to be multiplied into the weights that make the rows; None where impossible.
        folded: the layers whose factors these are.
        bias: [C], added first.
        steps: what follows, in its order.
    """

    factor: Array | None = None
    folded: tuple[str, ...] = ()
    bias: Array | None = None
    steps: list[Pointwise | Combination] = field(default_factory=list)
    _tiled: dict[int, Array] = field(default_factory=dict)

    @property
    def placed(self) -> bool:
        """Whether a step has to know which rows it works on."""
        return any(isinstance(step, Combination) for step in self.steps)

    def __call__(self, source: Array, target: Array, top: int) -> None:
        """Finish some rows, the first of which is `top`, from `source` into `target`."""
        if self.bias is not None:
            self._add_bias(source, target if not self.steps else source)
        elif not self.steps and target is not source:
            np.copyto(target, source)
        for step in self.steps[:-1]:
            _apply(step, source, source, top)
        for step in self.steps[-1:]:
            _apply(step, source, target, top)

    def from_map(self, x: Array, target: Array, top: int) -> None:
        """The same without a bias, and without changing `x`."""
        source = x
        for step in self.steps:
            _apply(step, source, target, top)
            source = target

    def at(self, places: tuple[slice, slice]) -> Finish:
        """What follows for some rows and columns of the result."""
        steps = [
            replace(step, other=step.other[places]) if isinstance(step, Combination) else step
            for step in self.steps
        ]
        return Finish(bias=self.bias, steps=steps)

    def split_for_tiles(self) -> tuple[TileEnds, Finish]:
        """What a compiled product can do itself after its bias, and what is left to do."""
        steps = list(self.steps)
        rounds = _popped(steps, Rounding) is not None
        addend = None
        if _is_sum(steps[:1]) and (not rounds or steps[1:2] == [Rounding()]):
            combination = _popped(steps, Combination)
            addend = None if combination is None else combination.other
            if rounds:
                _popped(steps, Rounding)
        clipping = _popped(steps, Clipping) or Clipping()
        if rounds:
            _popped(steps, Rounding)  # the results are rounded in any case
        return TileEnds(rounds, addend, clipping), Finish(steps=steps)

    def _add_bias(self, x: Array, out: Array) -> None:
        rows, width, channels = x.shape
        assert self.bias is not None
        if not (x.flags.c_contiguous and out.flags.c_contiguous):
            np.add(x, self.bias, out=out)
            return
        if width not in self._tiled:
            self._tiled[width] = np.tile(self.bias, width)
        shape = (rows, width * channels)
        np.add(x.reshape(shape), self._tiled[width], out=out.reshape(shape))


def _apply(step: Pointwise | Combination, x: Array, out: Array, top: int) -> None:
    if isinstance(step, Combination):
        step(x, out, top)
    else:
        step(x, out)


def _popped(steps: list[Pointwise | Combination], kind: type[T]) -> T | None:
    """The next step, taken out, if it is of a kind."""
    if not steps or not isinstance(steps[0], kind):
        return None
    first = steps[0]
    del steps[0]
    return first


def _is_sum(steps: Sequence[Pointwise | Combination]) -> bool:
    return any(isinstance(step, Combination) and step.combine is np.add for step in steps)
