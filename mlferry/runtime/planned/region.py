"""What a session runs as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlferry.runtime.planned.maps import Array


@dataclass(frozen=True)
class BlobsOfEach:
    """What is shown of several samples.

    Attributes:
        blobs: [n, ...] of each.
        fails: [n], whether the layers of a sample have to run one by one, as one refuses its input.
    """

    blobs: dict[str, Array]
    fails: Sequence[bool]


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

    def run_each(self, samples: Mapping[str, Array]) -> BlobsOfEach | None:
        """What is shown of each of several samples; None where they have to run one at a time.

        Args:
            samples: of each blob those of all samples, [n, ...].
        """
        return None
