"""How a function of a layer kind says that ONNX cannot express a layer."""

from __future__ import annotations


class CannotExpressError(Exception):
    """ONNX cannot express a layer; the walker collects the reasons."""


class RankHiddenError(CannotExpressError):
    """The rank of an input is not known, so nothing can be said of a layer."""


def refuse(reason: str) -> CannotExpressError:
    """What to raise where ONNX cannot say what a layer does."""
    return CannotExpressError(reason)
