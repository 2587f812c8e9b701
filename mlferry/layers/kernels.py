"""The registry of kernels: a function per layer kind, from parameters and float32 arrays to arrays.

A kernel has the name of its kind and takes the layer's `Params` and its inputs. It works in
both array mappings: "width" is axis -1, "height" -2, "channel" -3, "batch" -4, "sequence" -5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import PredictionError
from mlferry.rooms import LAYERS, RoomRegistry

Array = NDArray[np.float32]
Kernel = Callable[..., Any]

KERNELS: RoomRegistry[Kernel] = RoomRegistry("kernel", LAYERS, "kernel")
kernel = KERNELS.register


def number(blob: Array, subject: str) -> float:
    """The value of a blob of one element.

    Raises:
        PredictionError: it has several.
    """
    if blob.size != 1:
        raise PredictionError(f"{subject} is one number, not an array of shape {blob.shape}")
    return float(blob.reshape(-1)[0])


def integer(blob: Array, subject: str) -> int:
    """The value of a blob of one element as an integer; see `number`."""
    return int(number(blob, subject))


def integers(blob: Array) -> tuple[int, ...]:
    """The values of a blob as integers."""
    return tuple(int(value) for value in blob.reshape(-1))
