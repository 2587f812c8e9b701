"""How a function says that another format cannot express what it should write."""

from __future__ import annotations


class CannotExpressError(Exception):
    """The format cannot express a layer or an operation; those who call functions collect why."""


class RankHiddenError(CannotExpressError):
    """The rank of an input is unknown, so the layer cannot be written."""


def refuse(reason: str) -> CannotExpressError:
    """The error to raise if the format cannot express something."""
    return CannotExpressError(reason)
