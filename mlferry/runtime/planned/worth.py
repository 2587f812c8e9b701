"""When a part on arrays is worth a plan."""

from __future__ import annotations

Shapes = tuple[tuple[int, ...], ...]
LEAST_STEPS, LEAST_WORTH = 3, 2
"""How many steps a part has at least, and what they are worth together; see `ArrayPart`."""
OFTEN = 16
"""How often shapes come before they are planned in the place of others: a plan takes as long to
make as some ten runs."""
_REMEMBERED = 256  # sets of shapes that have come


class Visits:
    """Counts how often shapes come."""

    def __init__(self) -> None:
        self._seen: dict[Shapes, int] = {}

    def are_many(self, shapes: Shapes) -> bool:
        """Whether shapes come often, this time included; then it counts anew."""
        if len(self._seen) > _REMEMBERED:
            self._seen = {}
        count = self._seen.pop(shapes, 0) + 1
        if count < OFTEN:
            self._seen[shapes] = count
        return count >= OFTEN
