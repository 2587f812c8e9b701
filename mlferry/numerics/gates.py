"""The fixed constants of Core ML's recurrent layers."""

from __future__ import annotations

CELL_CLIP = 50.0  # the bounds of a cell's state unless the format sets others
# alpha and beta of the functions whose parameters recurrent layers ignore
FIXED = {"scaledTanh": (1.7159, 2 / 3), "sigmoidHard": (0.2, 0.5)}
