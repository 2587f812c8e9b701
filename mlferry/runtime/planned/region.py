"""What a session runs as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from mlferry.runtime.planned.maps import Array


class Region(ABC):
    """Some steps that a plan runs.

    Attributes:
        steps: the layers.
        shown: what later steps, or the caller, read of it.
        reads: the blobs that it is given.
    """

    steps: Sequence[Any]
    shown: Sequence[str]
    reads: Sequence[str]

    @abstractmethod
    def run(self, blobs: Mapping[str, Array]) -> dict[str, Array] | None:
        """What is shown; None where the layers have to run one by one."""
