"""Kernels that Numba compiles for the machine, where it is installed.

NumPy's products pack their weights again in every call, and what lies between products passes over
memory once for each function. The kernels here keep weights packed and sums in registers, and
apply bias, sums, limits and rounding before a value is written.

`vectors` writes instructions, `matrices` packs weights, `tasks` holds tables of what is to do, and
the other modules what is compiled. Every kernel has a counterpart in NumPy, with which the tests
compare it.
"""

from __future__ import annotations

import contextvars
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import MissingDependencyError
from mlferry.settings import Setting

_choice: contextvars.ContextVar[bool | None] = contextvars.ContextVar("compiled", default=None)


@functools.cache
def is_available() -> bool:
    """Whether Numba is installed, and goes with this version of NumPy."""
    try:
        import numba  # noqa: F401 - is it there?
    except ImportError:
        return False
    return True


def checked(choice: bool | None) -> bool | None:
    """Whether to use the compiled kernels; None where Numba is installed.

    Raises:
        MissingDependencyError: they are wanted, and Numba is not there.
    """
    if choice and not is_available():
        raise MissingDependencyError(
            "compiled=True needs the numba package: pip install 'mlferry[compiled]'"
        )
    return choice


def using(choice: bool | None) -> Setting[bool | None]:
    """Use the compiled kernels inside, or do not; see `checked`."""
    return Setting(_choice, choice)


PACKED_MOST = 1 << 22  # weights of a product; packed ones are copies


def packs(rows: NDArray[Any], weights: int) -> bool:
    """Whether a product of rows with so many weights goes by the compiled kernels now."""
    return is_active() and rows.dtype == np.float32 and weights <= PACKED_MOST


_LEAST_ROWS = 16  # of a product whose weights are packed for it alone


def packs_once(left: NDArray[Any], right: NDArray[Any]) -> bool:
    """Whether a product of matrices goes by the compiled kernels now, packed for it alone."""
    return (
        is_active()
        and left.dtype == right.dtype == np.float32
        and min(left.ndim, right.ndim) >= 2
        and left.shape[-1] == right.shape[-2]
        and left.shape[-2] >= _LEAST_ROWS
        and 0 < right.shape[-2] * right.shape[-1] <= PACKED_MOST
    )


def is_active() -> bool:
    """Whether the compiled kernels are to be used now."""
    choice = _choice.get()
    return is_available() if choice is None else choice
