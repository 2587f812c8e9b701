"""The fixed constants of Core ML's recurrent layers."""

from __future__ import annotations

CELL_CLIP = 50.0  # what a cell's state is kept within where the format tells nothing else
# alpha and beta of the functions whose parameters recurrent layers ignore
FIXED = {"scaledTanh": (1.7159, 2 / 3), "sigmoidHard": (0.2, 0.5)}
