"""When a part on arrays is worth a plan."""

from __future__ import annotations

Shapes = tuple[tuple[int, ...], ...]
LEAST_STEPS, LEAST_WORTH = 3, 2
"""How many steps a part has at least, and what they are worth together; see `ArrayPart`."""
PLANNED_AT = 2
"""At which time a set of shapes is planned: a plan takes as long to make as several runs."""
_REMEMBERED = 256  # sets of shapes that have come


class Due:
    """Counts how often shapes come."""

    def __init__(self) -> None:
        self._seen: dict[Shapes, int] = {}

    def is_due(self, shapes: Shapes) -> bool:
        """Whether shapes have come often enough, this time included."""
        if len(self._seen) > _REMEMBERED:
            self._seen = {}
        self._seen[shapes] = self._seen.get(shapes, 0) + 1
        return self._seen[shapes] >= PLANNED_AT
