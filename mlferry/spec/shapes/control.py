"""Control flow makes no blobs itself: the networks inside do."""

from __future__ import annotations

from mlferry.spec.params import Params
from mlferry.spec.shapes.rules import RankUnknownError, Shape, rule


@rule("branch", "loop", "loopBreak", "loopContinue")
def control_flow(p: Params, *shapes: Shape) -> list[Shape]:
    return []


@rule("custom")
def custom(p: Params, *shapes: Shape) -> list[Shape]:
    """Only the class of the layer knows."""
    raise RankUnknownError
