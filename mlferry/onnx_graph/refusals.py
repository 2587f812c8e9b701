"""How a function of a layer kind says that ONNX cannot express a layer."""

from __future__ import annotations


class CannotExpressError(Exception):
    """ONNX cannot express a layer; the walk over the network collects the reasons."""


class RankHiddenError(CannotExpressError):
    """The rank of an input is unknown, so the layer cannot be written."""


def refuse(reason: str) -> CannotExpressError:
    """The error to raise if ONNX cannot express a layer."""
    return CannotExpressError(reason)
