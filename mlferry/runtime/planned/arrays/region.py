"""A part of a network on arrays, for whatever shapes come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mlferry.compiled import is_active
from mlferry.compiled.samples import SampleTable
from mlferry.lanes import AwakeSteps, allowed_lanes
from mlferry.runtime.planned import worth
from mlferry.runtime.planned.arrays.plan import ArrayPlan, ArrayStep, part_of
from mlferry.runtime.planned.maps import Array
from mlferry.runtime.planned.pool import Pool, Shapes
from mlferry.runtime.planned.region import BlobsOfEach, Region
from mlferry.runtime.planned.worth import Visits
from mlferry.runtime.threads import on_numpy


class ArrayRegion(Region):
    """Steps that run as one; see `planned.regions`.

    Args:
        steps: the layers.
        outputs: what later steps, or the caller, read of it.
        constants: blobs that are the same in every run.
    """

    def __init__(
        self,
        steps: Sequence[ArrayStep],
        outputs: Sequence[str],
        constants: Mapping[str, Array],
    ) -> None:
        self.steps, self.shown = list(steps), list(outputs)
        written = {name for step in steps for name in step.outputs}
        read = dict.fromkeys(name for step in steps for name in step.inputs)
        self._constants = {name: constants[name] for name in read if name in constants}
        self.reads = [name for name in read if name not in written and name not in constants]
        self._read = frozenset(self.reads)
        self.pool: Pool[ArrayPlan] = Pool()
        self._visits = Visits()

    def run(self, blobs: Mapping[str, Array]) -> dict[str, Array] | None:
        """What is shown; None where the layers have to run one by one."""
        inputs = self._inputs(blobs)
        if inputs is None:
            return None
        shapes = tuple([x.shape for x in inputs])
        plan = self._taken(shapes)
        if plan is None:
            return None
        try:
            for name, x in zip(self.reads, inputs, strict=True):
                plan.inputs[name][...] = x
            if not plan.run():
                return None
            return {name: x.copy("K") for name, x in plan.outputs.items()}
        finally:
            self.pool.give_back(shapes, plan)

    def run_each(self, samples: Mapping[str, Array]) -> BlobsOfEach | None:
        """See `Region`."""
        given = self._inputs(samples)
        if not given:
            return None
        inputs = [np.ascontiguousarray(x, np.float32) for x in given]
        shapes, count = tuple(x.shape[1:] for x in inputs), len(inputs[0])
        plans = self._several(shapes, count)
        try:
            alone = [plan.alone for plan in plans if plan.alone is not None]
            if not alone:
                return None
            at_once = max(_LEAST_AT_ONCE * len(alone), _AT_ONCE // max(1, plans[0].work))
            groups = [
                SampleTable(alone, [x[first : first + at_once] for x in inputs])
                for first in range(0, count, at_once)
            ]
            for group in groups:
                AwakeSteps([group])()
        finally:
            for plan in plans:
                self.pool.give_back(shapes, plan)
        outputs = zip(*(group.outputs for group in groups), strict=True)
        return BlobsOfEach(
            {name: _whole(parts) for name, parts in zip(self.shown, outputs, strict=True)},
            [bool(wrong) for group in groups for wrong in group.wrong],
        )

    def _inputs(self, blobs: Mapping[str, Array]) -> list[Array] | None:
        """What it reads; None where no plan can."""
        if not is_active() or not blobs.keys() >= self._read:
            return None
        return [blobs[name] for name in self.reads]

    def _taken(self, shapes: Shapes) -> ArrayPlan | None:
        if self.pool.would_displace(shapes) and not self._visits.are_many(shapes):
            return None
        return self.pool.take(shapes, self.planned)

    def _several(self, shapes: Shapes, samples: int) -> list[ArrayPlan]:
        """A plan for each thread that may take part; none where no plan takes these shapes."""
        plan = self._taken(shapes)
        if plan is None:
            return []
        if plan.alone is None:
            return [plan]
        more = [self.pool.take(shapes, self.planned) for _ in range(1, allowed_lanes(samples))]
        return [plan, *(each for each in more if each is not None)]

    def planned(self, shapes: Shapes) -> ArrayPlan:
        """A plan for the shapes of what it reads.

        Raises:
            NotPlannedError: no plan takes them.
        """
        inputs = dict(zip(self.reads, shapes, strict=True))
        with on_numpy():
            return ArrayPlan(self.steps, inputs, self._constants, self.shown)


def _whole(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


_LEAST_AT_ONCE = 4  # samples of a thread
_AT_ONCE = 1 << 31  # multiplications, after which Python may stop the rest


def is_worth(steps: Sequence[ArrayStep]) -> bool:
    """Whether planning outweighs copying the inputs and outputs."""
    total = sum(part_of(step).worth for step in steps)
    return len(steps) >= worth.LEAST_STEPS and total >= worth.LEAST_WORTH
