"""Kernels that Numba compiles for the machine, where it is installed.

NumPy's products pack their weights again in every call, and what lies between products passes over
memory once for each function. The kernels here keep weights packed and sums in registers, and
apply bias, sums, limits and rounding before a value is written.

`matrices` packs the weights, `kernels` holds what is compiled. Every kernel has a counterpart in
NumPy, with which the tests compare it.
"""

from __future__ import annotations

import functools

from mlferry.errors import MissingDependencyError


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
