"""One layer of a session's plan."""

from __future__ import annotations

from dataclasses import dataclass

from mlferry.layers.kernels import Kernel
from mlferry.layers.params import Params


@dataclass(frozen=True)
class Step:
    """One layer of the plan.

    Attributes:
        kernel: what computes it; None for control flow.
        params: its parameters.
        inputs: blobs that it takes.
        outputs: blobs that it makes.
        bodies: the plans of the networks inside a branch or a loop.
        reads: every blob that it, or a network inside it, may read.
        writes: every blob that it, or a network inside it, may make.
    """

    kernel: Kernel | None
    params: Params
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    bodies: tuple[tuple[Step, ...], ...] = ()
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.params.kind} {self.params.name!r}"
