"""Convolutional parts of a plan of steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mlferry.layers.kernels import Array
from mlferry.runtime.planned import layers
from mlferry.runtime.planned.plan import PLANNERS, NotPlannedError, Plan, Shape
from mlferry.runtime.steps import Step

_WORTH = ("convolution", "pooling")
_REMEMBERED = 16  # sets of shapes that stay planned

assert layers.convolution is not None  # the module registers the planners


class Region:
    """Steps that run as one.

    Args:
        steps: the layers.
        shown: what later steps, or the caller, read of it.
        winograd: whether convolutions may go by tiles, which round more.
    """

    def __init__(self, steps: Sequence[Step], shown: Sequence[str], winograd: bool) -> None:
        self.steps, self.shown, self.winograd = list(steps), list(shown), winograd
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
        given = [blobs[name] for name in self.reads]
        axes = max((x.ndim for x in given), default=0)
        if axes not in (4, 5):
            return None
        wide: list[Array] = []
        for name, x in zip(self.reads, given, strict=True):
            if x.ndim != axes and not (x.ndim < 4 and name in self._broadcast):
                return None
            wide.append(x.reshape((1,) * (axes - x.ndim) + x.shape))
        outer = max((x.shape[:-3] for x in wide), key=math.prod)
        for name, x in zip(self.reads, wide, strict=True):
            if x.shape[:-3] != outer and (
                math.prod(x.shape[:-3]) > 1 or name not in self._broadcast
            ):
                return None  # what is made of one sample alone stays one sample
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
        made = {name: np.empty((count, *plan.shapes[name][1:]), np.float32) for name in self.shown}
        for sample in range(count):
            for name, x in zip(self.reads, maps, strict=True):
                np.copyto(plan.inputs[name], x[sample if len(x) == count else 0].transpose(1, 2, 0))
            plan.run()
            for name, result in plan.outputs.items():
                np.copyto(made[name][sample], result.transpose(2, 0, 1))
        free.append(plan)
        return {name: x.reshape(*outer, *x.shape[1:]) for name, x in made.items()}

    @staticmethod
    def _free(plans: list[Plan]) -> Plan | None:
        """A plan that no thread runs; another one may take the last at the same time."""
        try:
            return plans.pop()
        except IndexError:
            return None

    def _planned(self, key: tuple[Shape, ...]) -> Plan:
        if len(self._plans) > _REMEMBERED:
            self._plans = {key: []}
        given = {name: (1, *shape) for name, shape in zip(self.reads, key, strict=True)}
        return Plan(self.steps, given, self.shown, winograd=self.winograd)


def _broadcast_only(steps: Sequence[Step], reads: Sequence[str]) -> set[str]:
    """Blobs from outside that only broadcast with one from inside."""
    written = {name for step in steps for name in step.outputs}
    found = set()
    for name in reads:
        readers = [step for step in steps if name in step.inputs]
        if all(
            step.params.kind.endswith("Broadcastable") and written & set(step.inputs)
            for step in readers
        ):
            found.add(name)
    return found


def _is_worth(steps: Sequence[Step]) -> bool:
    """Whether planning pays for copying what goes in and out."""
    if len(steps) > 1:
        return any(step.params.kind in _WORTH for step in steps)
    p = steps[0].params
    depthwise = p.kind == "convolution" and p.kernelChannels == 1
    return p.kind == "convolution" and p.kernelSize != (1, 1) and (p.nGroups == 1 or depthwise)


def is_eligible(step: Step) -> bool:
    """Whether a plan may take a step."""
    entry = PLANNERS.find(step.params.kind)
    if entry is None or step.kernel is None or len(step.outputs) != 1 or not step.inputs:
        return False
    when = entry.options.get("when")
    return when is None or bool(when(step))


def grouped(
    steps: Sequence[Step], wanted: frozenset[str], winograd: bool
) -> list[tuple[Step | Region, frozenset[str], frozenset[str]]]:
    """The steps in an order in which convolutional parts stand together, each as one region.

    Returns:
        steps and regions, with what they read and what they write.
    """
    result: list[tuple[Step | Region, frozenset[str], frozenset[str]]] = []
    waiting: list[Step] = []
    several = overwritten(steps)

    def close(rest: Sequence[Step]) -> None:
        if not waiting:
            return
        written = {name for step in waiting for name in step.outputs}
        later = {name for step in rest for name in step.reads} | wanted
        if _is_worth(waiting):
            region = Region(waiting, sorted(written & later), winograd)
            result.append((region, frozenset(region.reads), frozenset(written)))
        else:
            result.extend((step, step.reads, step.writes) for step in waiting)
        waiting.clear()

    for index, step in enumerate(steps):
        pending = {name for other in waiting for name in other.outputs}
        if is_eligible(step) and not (step.reads | step.writes) & several:
            waiting.append(step)
        elif step.kernel is not None and not step.bodies and not pending & step.reads:
            result.append((step, step.reads, step.writes))  # it can run before what waits
        else:
            close(steps[index:])
            result.append((step, step.reads, step.writes))
    close(())
    return result


def overwritten(steps: Sequence[Step]) -> frozenset[str]:
    """Blobs that several layers write: their order matters."""
    seen: set[str] = set()
    twice: set[str] = set()
    for step in steps:
        twice |= seen & step.writes
        seen |= step.writes
    return frozenset(twice)
