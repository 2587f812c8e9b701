"""A task of a table, as compiled code reads it; see `tasks`.

What it does with maps: write `least`; copy; a convolution; one to a few channels, as dot products;
one in Winograd's tiles; of windows the sum, the largest value, and the sum of values times weights;
or with one weight for each channel the sum of squared differences from it, or one value times it.
What it does with rows: normalize; softmax; a function of each value; a function of two values; move
values that lie apart; gather rows by their indices; and go through a sequence of rows as a
recurrent layer does.
"""

from __future__ import annotations

import numpy as np
from numba import from_dtype, types
from numpy.typing import NDArray

FILL, COPY, CONVOLVE, DOTS, WINOGRAD, SUM, LARGEST, WEIGHTED, SQUARES, SCALED = range(10)
NORMALIZED, SOFTMAX, FUNCTION, COMBINED, MOVED, GATHERED, RECURRENT = range(10, 17)

_NUMBERS = (
    "function", "x", "line", "step", "spread", "offsets", "segments", "run", "weights",
    "weight_step", "bias", "addends", "addend_line", "addend_step", "addend_spread", "rounds", "y",
    "y_line", "y_step", "height", "width", "columns", "tile", "side", "number",
)  # fmt: skip
TASK = np.dtype(
    [*((name, np.int64) for name in _NUMBERS), ("least", np.float32), ("most", np.float32)]
)
AT_ITS_PLACE = np.zeros(1, np.int64)
"""The offsets of a window of one pixel."""
TABLE = types.Array(from_dtype(TASK), 1, "C")


def one_task() -> NDArray[np.void]:
    """A table of one task, whose numbers are 0."""
    return np.zeros(1, TASK)
