"""Plans for sets of shapes, each of which one thread uses at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from mlferry.runtime.planned.plan import NotPlannedError

P = TypeVar("P")
Shape = tuple[int, ...]
Shapes = tuple[Shape, ...]
_REMEMBERED = 16  # sets of shapes whose plans are kept


class Pool(Generic[P]):
    """The plans of a part of a network.

    Attributes:
        plans: those that no thread uses now.
        refused: the shapes that no plan takes.
    """

    def __init__(self) -> None:
        self.plans: dict[Shapes, list[P]] = {}
        self.refused: set[Shapes] = set()

    def would_displace(self, shapes: Shapes) -> bool:
        """Whether plans for other shapes would be given up for these."""
        return shapes not in self.plans and len(self.plans) >= _REMEMBERED

    def take(self, shapes: Shapes, make: Callable[[Shapes], P]) -> P | None:
        """A plan that no other thread uses, or None where no plan takes these shapes.

        Args:
            shapes: of the inputs.
            make: gives a plan for them, or raises a `NotPlannedError`.
        """
        try:
            return self.plans[shapes].pop()
        except LookupError:  # none is there, or threads raced for the last one
            pass
        if shapes in self.refused:
            return None
        try:
            return make(shapes)
        except NotPlannedError:
            self.refused.add(shapes)
            return None

    def give_back(self, shapes: Shapes, plan: P) -> None:
        """Let other threads use a plan; the oldest shapes may have to go for it."""
        if self.would_displace(shapes):
            for oldest in list(self.plans)[:1]:
                self.plans.pop(oldest, None)
        self.plans.setdefault(shapes, []).append(plan)
