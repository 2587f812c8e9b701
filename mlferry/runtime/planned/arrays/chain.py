"""A convolutional part of a network and what follows on arrays, such as its last layers, as one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mlferry.compiled import arrays as tasks, is_active
from mlferry.compiled.tasks import Table, joined
from mlferry.runtime.planned.arrays.plan import ArrayPlan
from mlferry.runtime.planned.arrays.region import ArrayRegion
from mlferry.runtime.planned.map_region import MapRegion
from mlferry.runtime.planned.maps import Array
from mlferry.runtime.planned.plan import Plan
from mlferry.runtime.planned.pool import Pool, Shapes
from mlferry.runtime.planned.region import Region
from mlferry.runtime.threads import as_needed, run_steps


class ChainPlan:
    """The steps of two plans for one sample, of which the second reads what the first makes.

    Args:
        first: on maps.
        second: on arrays.

    Attributes:
        runs: what makes the outputs of the inputs.
    """

    def __init__(self, first: Plan, second: ArrayPlan) -> None:
        self.first, self.second = first, second
        handed = [
            task
            for name, x in second.inputs.items()
            for task in tasks.moved(first.outputs[name].transpose(2, 0, 1), _planes_of(x))
        ]
        self.runs = list(joined([*first.runs, Table([handed]), *second.runs]))
        self._surroundings = as_needed(self.runs)

    def run(self, inputs: Mapping[str, Array]) -> bool:
        """Compute what the outputs of both hold.

        Args:
            inputs: what the first one reads, [C, H, W].

        Returns:
            false where an index is wrong; see `ArrayPlan.run`.
        """

        def read() -> None:
            for name, x in inputs.items():
                self.first.read(name, x)

        self.second.wrong[0] = 0
        with self._surroundings():
            run_steps([read, *self.runs])
        return not self.second.wrong[0]


def _planes_of(x: Array) -> Array:
    """A blob of one sample as [C, H, W]."""
    return x.reshape(x.shape[-3:])


class ChainRegion(Region):
    """Two parts as one. So there is no Python between them, and threads share both.

    Where it cannot run both for what it is given, it runs the first one; see `ChainEnd`.

    Args:
        maps: the first part.
        arrays: the second one, which reads nothing else but what the first one shows.
        kept: what the first one shows and others read, too.
    """

    def __init__(self, maps: MapRegion, arrays: ArrayRegion, kept: Sequence[str]) -> None:
        self.maps, self.arrays, self._kept = maps, arrays, kept
        self.steps, self.reads = maps.steps, maps.reads
        self.shown = [*kept, *arrays.shown]
        self.pool: Pool[ChainPlan] = Pool()

    def run(self, blobs: Mapping[str, Array]) -> dict[str, Array] | None:
        """What is shown of both, or of the first one; None where its layers run one by one."""
        given = self.maps.given(blobs)
        if given is None:
            return None
        maps, outer = given
        shapes = outer, *(x.shape[1:] for x in maps)
        plan = None
        if is_active() and math.prod(outer) == 1:
            plan = self.pool.take(shapes, self._planned)
        if plan is None:
            return self.maps.run(blobs)
        try:
            inputs = {name: x[0] for name, x in zip(self.reads, maps, strict=True)}
            if not plan.run(inputs):
                return self.maps.run(blobs)
            results = {name: np.empty(plan.first.shapes[name], np.float32) for name in self._kept}
            for name, x in results.items():
                plan.first.write(name, x[0])
            return {
                **{name: x.reshape(*outer, *x.shape[1:]) for name, x in results.items()},
                **{name: x.copy("K") for name, x in plan.second.outputs.items()},
            }
        finally:
            self.pool.give_back(shapes, plan)

    def _planned(self, shapes: Shapes) -> ChainPlan:
        outer, *given = shapes
        first = self.maps.planned(tuple(given))
        made = tuple((*outer, *first.shapes[name][1:]) for name in self.arrays.reads)
        return ChainPlan(first, self.arrays.planned(made))


class ChainEnd(Region):
    """The second part of a chain, where it has not run with the first one.

    Args:
        arrays: the part.
    """

    def __init__(self, arrays: ArrayRegion) -> None:
        self.arrays = arrays
        self.steps, self.shown, self.reads = arrays.steps, arrays.shown, arrays.reads

    def run(self, blobs: Mapping[str, Array]) -> dict[str, Array] | None:
        """What is shown and not there yet; None where the layers have to run one by one."""
        if all(name in blobs for name in self.shown):
            return {}
        return self.arrays.run(blobs)
