"""Fuses operations: those that follow a convolution, and patterns that have an op of their own."""

from __future__ import annotations

from collections.abc import Callable

from mlferry.programs.graph import Block, Operation, sweep
from mlferry.programs.passes.fusions import (
    activations,
    arranging,
    attention,
    into_weights,
    normalization,
)
from mlferry.programs.passes.rewriting import Rewriter

Fusion = Callable[[Rewriter, Operation], bool]


def fuse(block: Block, opset: int) -> None:
    """Fuse all that is possible, in place, until nothing changes."""
    while True:
        rewriter, changed = Rewriter(block, opset), False
        for operation in list(block.all_operations()):
            changed |= any(
                rewriter.is_there(operation) and fusion(rewriter, operation) for fusion in FUSIONS
            )
        sweep(block)
        if not changed:
            return


def same_again(rewriter: Rewriter, operation: Operation) -> bool:
    """Drop an operation that computes the same as another."""
    return rewriter.is_repeated(operation)


FUSIONS: tuple[Fusion, ...] = (
    same_again,
    into_weights.into_weights,
    into_weights.padding_into_window,
    activations.sigmoid_weighted,
    activations.gaussian_weighted,
    activations.bounded_below_and_above,
    arranging.parts_put_together,
    arranging.joined_at_once,
    arranging.squeezed_reduction,
    arranging.transposed_reduction,
    arranging.turned_factor,
    arranging.between_axes_of_one,
    normalization.normalized_over_axes,
    attention.attention,
)
