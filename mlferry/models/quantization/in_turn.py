"""Choose the weights of a layer one input after another.

Arrays are [groups, inputs, outputs], as in `rounding`. What an input changes for those that follow
is taken together for blocks of inputs, so that most of the work are products of matrices. Outputs
do not depend on each other: with the compiled kernels, threads that are free share them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mlferry.compiled import is_active
from mlferry.lanes import in_parts

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

_PASSES = 2
_BLOCK = 64  # inputs
_TOGETHER = 128  # outputs that a thread takes at least: products of few columns are slow


class GridTables(NamedTuple):
    """The values of a grid as tables.

    Attributes:
        tables: [tables, entries, length], 2**bits entries each; single values rise.
        which: the table of each vector, [groups, blocks of inputs, outputs / length].
        rows: the inputs of a block; 0 for all.
    """

    tables: Floats
    which: Indices
    rows: int = 0


class RowGrid(Protocol):
    """The values that the weights of an input may have."""

    def near_row(self, weights: Floats, row: int) -> Floats:
        """The nearest values for [groups, outputs] of one input."""

    def as_tables(self, groups: int, outputs: int) -> GridTables:
        """All values, for so many groups of so many outputs."""


class _Steps(Protocol):
    """What is done inside of a block of inputs, whose numbers are `inputs`."""

    def compensate(
        self, factor: Floats, target: Floats, quantized: Floats, inputs: Indices
    ) -> Floats:
        """Round each input, and make up for its error by those that follow.

        Args:
            factor: how much of an error each input takes, upper triangular.
            target: of this block; it may be changed.
            quantized: the result.
            inputs: the numbers of the inputs.

        Returns:
            the errors, in units of the factor's diagonal.
        """

    def descend(
        self, moments: Floats, pull: Floats, quantized: Floats, inputs: Indices, passes: int
    ) -> None:
        """Move each weight to its best value while the others stay, in turn.

        Args:
            moments: of these inputs, symmetric.
            pull: the moments times what is missing to the target; it follows what moves.
            quantized: is changed.
            inputs: the numbers of the inputs.
            passes: through all inputs, at most.
        """


class _NumPySteps:
    """The steps with NumPy.

    Args:
        grid: of all weights.
    """

    def __init__(self, grid: RowGrid) -> None:
        self._grid = grid

    def compensate(
        self, factor: Floats, target: Floats, quantized: Floats, inputs: Indices
    ) -> Floats:
        errors = np.empty_like(target)
        for j, row in enumerate(inputs):
            quantized[:, j] = self._grid.near_row(target[:, j], int(row))
            errors[:, j] = (target[:, j] - quantized[:, j]) / factor[:, j, j, None]
            target[:, j + 1 :] -= factor[:, j, j + 1 :, None] * errors[:, j, None]
        return errors

    def descend(
        self, moments: Floats, pull: Floats, quantized: Floats, inputs: Indices, passes: int
    ) -> None:
        for _ in range(passes):
            has_moved = False
            for block in _blocks(len(inputs)):
                here, near = quantized[:, block], moments[:, block, block]
                before = here.copy()
                if self._descend_in_block(near, pull[:, block].copy(), here, inputs[block]):
                    pull -= moments[:, :, block] @ (here - before)
                    has_moved = True
            if not has_moved:
                return

    def _descend_in_block(
        self, moments: Floats, pull: Floats, quantized: Floats, inputs: Indices
    ) -> bool:
        """The same once, for a block of inputs."""
        has_moved = False
        for j, row in enumerate(inputs):
            here = quantized[:, j]
            new = self._grid.near_row(here + pull[:, j] / moments[:, j, j, None], int(row))
            step = new - here
            if step.any():
                quantized[:, j] = new
                pull[:, j + 1 :] -= moments[:, j, j + 1 :, None] * step[:, None]
                has_moved = True
        return has_moved


def compensated(factor: Floats, target: Floats, grid: RowGrid, inputs: Indices) -> Floats:
    """Weights rounded to a grid, each error made up for by the inputs that follow.

    Args:
        factor: U of the moments' inverse U'U, upper triangular, [groups, inputs, inputs].
        target: [groups, inputs, outputs].
        grid: of the weights.
        inputs: the number of each input, for the grid.
    """
    left: Floats = target.copy()
    quantized: Floats = np.empty_like(left)

    def work(steps: _Steps, groups: slice, outputs: slice) -> None:
        own, here, result = factor[groups], left[groups, :, outputs], quantized[groups, :, outputs]
        for block in _blocks(len(inputs)):
            errors = steps.compensate(
                own[:, block, block], here[:, block], result[:, block], inputs[block]
            )
            here[:, block.stop :] -= own[:, block, block.stop :].swapaxes(1, 2) @ errors

    _share(work, grid, target.shape)
    return quantized


def descend(
    moments: Floats, pull: Floats, quantized: Floats, grid: RowGrid, inputs: Indices
) -> None:
    """Coordinate descent over all inputs, `_PASSES` times.

    Args:
        moments: [groups, inputs, inputs].
        pull: the moments times what is missing to the target, [groups, inputs, outputs]; it follows
            what moves.
        quantized: is changed, likewise.
        grid: of the weights.
        inputs: the number of each input, for the grid.
    """

    def work(steps: _Steps, groups: slice, outputs: slice) -> None:
        here = quantized[groups, :, outputs]
        steps.descend(moments[groups], pull[groups, :, outputs], here, inputs, _PASSES)

    _share(work, grid, pull.shape)


def _blocks(size: int) -> list[slice]:
    return [slice(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK)]


def _share(
    work: Callable[[_Steps, slice, slice], None], grid: RowGrid, shape: tuple[int, ...]
) -> None:
    """Work on weights [groups, inputs, outputs], some groups or outputs at a time."""
    groups, inputs, outputs = shape
    every = slice(None)
    if not is_active():
        work(_NumPySteps(grid), every, every)
        return
    from mlferry.compiled.rounding import CompiledSteps

    steps = CompiledSteps(*grid.as_tables(groups, outputs))
    in_parts_of(
        lambda groups, outputs: work(steps.of(groups, outputs), groups, outputs),
        shape,
        groups * outputs * inputs**2,
        steps.length,
    )


def in_parts_of(
    work: Callable[[slice, slice], None],
    shape: tuple[int, ...],
    multiplications: int,
    length: int = 1,
) -> None:
    """Work on weights on the threads that are free, some groups or outputs at a time.

    Args:
        work: for some groups, and some of their outputs.
        shape: of the weights, [groups, inputs, outputs].
        multiplications: of all of it.
        length: of the vectors of outputs that stay together.
    """
    groups, _, outputs = shape
    every = slice(None)
    if groups > 1:
        in_parts(lambda part: work(part, every), groups, multiplications)
        return
    together = -(-_TOGETHER // length) * length

    def some_outputs(part: slice) -> None:
        work(every, slice(part.start * together, min(part.stop * together, outputs)))

    in_parts(some_outputs, -(-outputs // together), multiplications)
