"""Convolutional parts of a plan of steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from mlferry.runtime.planned.maps import Array
from mlferry.runtime.planned.plan import NotPlannedError, Plan, PlannedStep, Shape
from mlferry.runtime.threads import Part, lane_count, share

S = TypeVar("S", bound=PlannedStep)
_REMEMBERED = 16  # sets of shapes whose plans are kept


class Region:
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
        self._plans: dict[tuple[Shape, ...], list[Plan]] = {}
        self._refused: set[tuple[Shape, ...]] = set()

    def run(self, blobs: Mapping[str, Array]) -> dict[str, Array] | None:
        """What is shown; None where the layers have to run one by one."""
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
        return self._computed([x.reshape(-1, *x.shape[-3:]) for x in wide], outer)

    def _computed(self, maps: Sequence[Array], outer: Shape) -> dict[str, Array] | None:
        """All samples [N, C, H, W], one after another; `outer` are the axes that N stands for."""
        count = math.prod(outer)
        key = tuple(x.shape[1:] for x in maps)
        if key in self._refused:
            return None
        free = self._plans.setdefault(key, [])
        try:
            plan = self._free(free) or self._planned(key)
        except NotPlannedError:
            self._refused.add(key)
            return None
        outputs = {
            name: np.empty((count, *plan.shapes[name][1:]), np.float32) for name in self.shown
        }
        free.append(plan)

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
        free = self._plans.setdefault(key, [])
        plan = self._free(free) or self._planned(key)
        for name, x in zip(self.reads, maps, strict=True):
            plan.read(name, x[index if len(x) == count else 0])
        plan.run()
        for name, result in outputs.items():
            plan.write(name, result[index])
        free.append(plan)

    @staticmethod
    def _free(plans: list[Plan]) -> Plan | None:
        """A plan that no other thread uses; threads may race for the last one."""
        try:
            return plans.pop()
        except IndexError:
            return None

    def _planned(self, key: tuple[Shape, ...]) -> Plan:
        if len(self._plans) > _REMEMBERED:
            self._plans = {key: []}
        shapes = {name: (1, *shape) for name, shape in zip(self.reads, key, strict=True)}
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


def _is_worth(steps: Sequence[PlannedStep]) -> bool:
    """Whether planning outweighs copying the inputs and outputs."""
    parts = [step.part for step in steps if step.part is not None]
    return any(part.worth for part in parts) if len(parts) > 1 else parts[0].worth_alone


@dataclass(frozen=True)
class PlannedRegion(Generic[S]):
    """What runs as one.

    Attributes:
        region: a convolutional part, or None for a single step.
        steps: the layers, where they run one by one.
        frees: blobs that nothing reads after it.
    """

    region: Region | None
    steps: Sequence[S]
    frees: tuple[str, ...]


def scheduled(
    steps: Sequence[S], outputs: frozenset[str], *, planned: bool, winograd: bool
) -> list[PlannedRegion[S]]:
    """What to run for the wanted blobs, each with the blobs that it uses last."""
    groups: list[tuple[Region | None, Sequence[S]]] = (
        grouped(steps, outputs, winograd) if planned else [(None, [step]) for step in steps]
    )
    last_use = set(outputs)
    plan: list[PlannedRegion[S]] = []
    for region, inner in reversed(groups):
        used = {name for step in inner for name in step.reads | step.writes}
        plan.append(PlannedRegion(region, inner, tuple(sorted(used - last_use))))
        last_use |= used
    return plan[::-1]


def grouped(
    steps: Sequence[S], outputs: frozenset[str], winograd: bool
) -> list[tuple[Region | None, Sequence[S]]]:
    """The steps reordered so that each convolutional part is one region."""
    result: list[tuple[Region | None, Sequence[S]]] = []
    waiting: list[S] = []
    several = overwritten(steps)

    def close(rest: Sequence[S]) -> None:
        if not waiting:
            return
        written = {name for step in waiting for name in step.outputs}
        later = {name for step in rest for name in step.reads} | outputs
        if _is_worth(waiting):
            region = Region(waiting, sorted(written & later), winograd)
            result.append((region, region.steps))  # type: ignore[arg-type]
        else:
            result.extend((None, [step]) for step in waiting)
        waiting.clear()

    for index, step in enumerate(steps):
        pending = {name for other in waiting for name in other.outputs}
        if step.part is not None and not step.is_flow and not (step.reads | step.writes) & several:
            waiting.append(step)
        elif not step.is_flow and not pending & step.reads:
            result.append((None, [step]))  # it can run before the waiting steps
        else:
            close(steps[index:])
            result.append((None, [step]))
    close(())
    return result


def overwritten(steps: Sequence[PlannedStep]) -> frozenset[str]:
    """Blobs that several layers write; their order matters."""
    seen: set[str] = set()
    twice: set[str] = set()
    for step in steps:
        twice |= seen & step.writes
        seen |= step.writes
    return frozenset(twice)
