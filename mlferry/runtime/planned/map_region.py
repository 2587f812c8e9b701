"""A convolutional part of a network, for whatever shapes come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mlferry.runtime.planned.maps import Array
from mlferry.runtime.planned.plan import Plan, PlannedStep, Shape
from mlferry.runtime.planned.pool import Pool
from mlferry.runtime.planned.region import Region
from mlferry.runtime.threads import Part, lane_count, on_numpy, share


class MapRegion(Region):
    """Steps that run as one.

    Args:
        steps: the layers.
        shown: what later steps, or the caller, read of it.
        winograd: whether convolutions may go by tiles, which round more.
    """

    def __init__(
        self, steps: Sequence[PlannedStep], outputs: Sequence[str], winograd: bool
    ) -> None:
        self.steps, self.shown, self.winograd = list(steps), list(outputs), winograd
        written = {name for step in steps for name in step.outputs}
        self.reads = [
            name
            for name in dict.fromkeys(name for step in steps for name in step.inputs)
            if name not in written
        ]
        self._broadcast = _broadcast_only(steps, self.reads)
        self.pool: Pool[Plan] = Pool()

    def run(self, blobs: Mapping[str, Array]) -> dict[str, Array] | None:
        """What is shown; None where the layers have to run one by one."""
        given = self.given(blobs)
        return None if given is None else self._computed(*given)

    def given(self, blobs: Mapping[str, Array]) -> tuple[list[Array], Shape] | None:
        """What it reads, as maps [N, C, H, W], and the axes that N stands for.

        Returns:
            None where the layers have to run one by one. A map that is the same for all samples
            has an N of 1.
        """
        if any(name not in blobs for name in self.reads):
            return None
        inputs = [blobs[name] for name in self.reads]
        axes = max((x.ndim for x in inputs), default=0)
        if axes not in (4, 5):
            return None
        wide: list[Array] = []
        for name, x in zip(self.reads, inputs, strict=True):
            if x.ndim != axes and not (x.ndim < 4 and name in self._broadcast):
                return None
            wide.append(x.reshape((1,) * (axes - x.ndim) + x.shape))
        outer = max((x.shape[:-3] for x in wide), key=math.prod)
        for name, x in zip(self.reads, wide, strict=True):
            if x.shape[:-3] != outer and (
                math.prod(x.shape[:-3]) > 1 or name not in self._broadcast
            ):
                return None  # made of one sample, it has one
        return [x.reshape(-1, *x.shape[-3:]) for x in wide], outer

    def _computed(self, maps: Sequence[Array], outer: Shape) -> dict[str, Array] | None:
        """All samples [N, C, H, W], one after another; `outer` are the axes that N stands for."""
        count = math.prod(outer)
        key = tuple(x.shape[1:] for x in maps)
        plan = self.pool.take(key, self.planned)
        if plan is None:
            return None
        outputs = {
            name: np.empty((count, *plan.shapes[name][1:]), np.float32) for name in self.shown
        }
        self.pool.give_back(key, plan)

        def sample(index: int) -> Part:
            return lambda: self._sample(key, index, count, maps, outputs)

        parts = [sample(index) for index in range(count)]
        share([parts] * lane_count(count))
        return {name: x.reshape(*outer, *x.shape[1:]) for name, x in outputs.items()}

    def _sample(
        self,
        key: tuple[Shape, ...],
        index: int,
        count: int,
        maps: Sequence[Array],
        outputs: Mapping[str, Array],
    ) -> None:
        """Run one of `count` samples, in the memory of a plan that no other thread uses."""
        plan = self.pool.take(key, self.planned)
        assert plan is not None  # one was made for these shapes

        def read() -> None:
            for name, x in zip(self.reads, maps, strict=True):
                plan.read(name, x[index if len(x) == count else 0])

        plan.run(read)
        for name, result in outputs.items():
            plan.write(name, result[index])
        self.pool.give_back(key, plan)

    def planned(self, key: tuple[Shape, ...]) -> Plan:
        """A plan for the shapes [C, H, W] of what it reads.

        Raises:
            NotPlannedError: no plan takes them.
        """
        shapes = {name: (1, *shape) for name, shape in zip(self.reads, key, strict=True)}
        with on_numpy():
            return Plan(self.steps, shapes, self.shown, winograd=self.winograd)


def _broadcast_only(steps: Sequence[PlannedStep], reads: Sequence[str]) -> set[str]:
    """Blobs from outside that only broadcast with one from inside."""
    written = {name for step in steps for name in step.outputs}
    names = set()
    for name in reads:
        readers = [step for step in steps if name in step.inputs]
        if all(_broadcasts(step) and written & set(step.inputs) for step in readers):
            names.add(name)
    return names


def _broadcasts(step: PlannedStep) -> bool:
    return step.part is not None and step.part.broadcasts
