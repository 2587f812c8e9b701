"""One layer of a session's plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mlferry.custom import Instance
from mlferry.layers.definitions import infer
from mlferry.layers.kernels import Kernel
from mlferry.layers.params import Params
from mlferry.numerics.shapes import Shape
from mlferry.runtime.planned import layers
from mlferry.runtime.planned.plan import Part

if TYPE_CHECKING:
    from mlferry.runtime.planned.arrays.plan import ArrayPart


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
        instance: your object that computes a custom layer.
    """

    kernel: Kernel | None
    params: Params
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    bodies: tuple[tuple[Step, ...], ...] = ()
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    instance: Instance | None = None

    def __str__(self) -> str:
        return f"{self.params.kind} {self.params.name!r}"

    @cached_property
    def part(self) -> Part | None:
        """What a plan knows of it; None where no plan may take it."""
        return layers.part_of(self.params, len(self.inputs), len(self.outputs))

    @cached_property
    def array_part(self) -> ArrayPart | None:
        """What a plan on arrays knows of it; None where no such plan may take it."""
        from mlferry.runtime.planned.arrays.layers import part_of

        return part_of(self.params, len(self.inputs))

    @property
    def is_flow(self) -> bool:
        """Whether it is a branch or a loop, or part of one."""
        return self.kernel is None or bool(self.bodies)

    @property
    def rounds(self) -> bool:
        """Networks compute in float32."""
        return False

    def infer(self, shapes: Sequence[tuple[int, ...]]) -> Sequence[Shape] | None:
        """The shapes of its outputs.

        Raises:
            SpecError: those of its inputs do not fit.
        """
        return infer(self.params, shapes)
