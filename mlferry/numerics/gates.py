"""The fixed constants of Core ML's recurrent layers, and how they name their weights."""

from __future__ import annotations

from collections.abc import Sequence

CELL_CLIP = 50.0  # the bounds of a cell's state unless the format sets others
# alpha and beta of the functions whose parameters recurrent layers ignore
FIXED = {"scaledTanh": (1.7159, 2 / 3), "sigmoidHard": (0.2, 0.5)}


def fields_of(gates: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """The fields with the weights, the recursions and the biases of gates."""
    weights, recursions, biases = (
        [f"{gate}{what}" for gate in gates]
        for what in ("WeightMatrix", "RecursionMatrix", "BiasVector")
    )
    return weights, recursions, biases
