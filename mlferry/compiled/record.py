"""A task of a table, as compiled code reads it; see `tasks`.

`code` is the address of a `kinds.Kind`; `function` says which function, where a kind has several.
"""

from __future__ import annotations

import numpy as np
from numba import from_dtype, types
from numpy.typing import NDArray

_NUMBERS = (
    "code", "function", "x", "line", "step", "spread", "offsets", "segments", "run", "weights",
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
