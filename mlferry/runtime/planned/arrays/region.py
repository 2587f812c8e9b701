"""A part of a network on arrays, for whatever shapes come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mlferry.compiled import is_active
from mlferry.runtime.planned import worth
from mlferry.runtime.planned.arrays.plan import ArrayPlan, ArrayStep, part_of
from mlferry.runtime.planned.maps import Array
from mlferry.runtime.planned.pool import Pool, Shapes
from mlferry.runtime.planned.region import Region
from mlferry.runtime.planned.worth import Visits


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
        self.pool: Pool[ArrayPlan] = Pool()
        self._visits = Visits()

    def run(self, blobs: Mapping[str, Array]) -> dict[str, Array] | None:
        """What is shown; None where the layers have to run one by one."""
        if not is_active() or any(name not in blobs for name in self.reads):
            return None
        inputs = [blobs[name] for name in self.reads]
        shapes = tuple(x.shape for x in inputs)
        if self.pool.would_displace(shapes) and not self._visits.are_many(shapes):
            return None
        plan = self.pool.take(shapes, self._planned)
        if plan is None:
            return None
        try:
            for name, x in zip(self.reads, inputs, strict=True):
                np.copyto(plan.inputs[name], x)
            if not plan.run():
                return None
            return {name: x.copy("K") for name, x in plan.outputs.items()}
        finally:
            self.pool.give_back(shapes, plan)

    def _planned(self, shapes: Shapes) -> ArrayPlan:
        inputs = dict(zip(self.reads, shapes, strict=True))
        return ArrayPlan(self.steps, inputs, self._constants, self.shown)


def is_worth(steps: Sequence[ArrayStep]) -> bool:
    """Whether planning outweighs copying the inputs and outputs."""
    total = sum(part_of(step).worth for step in steps)
    return len(steps) >= worth.LEAST_STEPS and total >= worth.LEAST_WORTH
