"""Stub, being written."""

from __future__ import annotations

from typing import Any


class Job:
    """Stub."""

    def __init__(self, *a: Any) -> None:
        self.done: set[Any] = set()


def calibrate(*a: Any) -> None:
    """Stub."""
