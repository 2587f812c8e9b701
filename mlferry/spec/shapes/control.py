"""Control flow makes no blobs itself: the networks inside do."""

from __future__ import annotations

from mlferry.spec.params import Params
from mlferry.spec.shapes.rules import Change, RankUnknownError, Shape, rule, size_check


@rule("branch", "loop", "loopBreak", "loopContinue")
def control_flow(p: Params, *shapes: Shape) -> list[Shape]:
    return []


@size_check("loop")
def bound_loop(p: Params, change: Change) -> str:
    """The inputs are all blobs that the loop, or a network inside it, reads."""
    bound = p.maxLoopIterations and not change.recorded
    return f"it makes {p.maxLoopIterations} rounds, whatever the size" if bound else ""


@rule("custom")
def custom(p: Params, *shapes: Shape) -> list[Shape]:
    """Only the class of the layer knows."""
    raise RankUnknownError
