"""What evaluates networks: the NumPy kernels, or onnxruntime where it is installed."""

from __future__ import annotations

import functools
from collections.abc import Callable

from mlferry.errors import RegistrationError
from mlferry.registry import did_you_mean
from mlferry.runtime.custom import CustomClasses
from mlferry.runtime.session import Session
from mlferry.spec import networks

Engine = Callable[[networks.Network, CustomClasses], Session]
NAMES = ("numpy", "onnxruntime")
NUMPY: Engine = Session


def engine_named(name: str, threads: int | None = None, *, winograd: bool = True) -> Engine:
    """An engine by its name.

    Args:
        name: "numpy" or "onnxruntime".
        threads: how many onnxruntime uses.
        winograd: whether convolutions on NumPy may go by tiles; see `Session`.

    Raises:
        RegistrationError: there is no such engine, an option is not for it, or `threads` is
            below 1.
        MissingDependencyError: it is not installed.
    """
    if name not in NAMES:
        close = did_you_mean(name, list(NAMES))
        raise RegistrationError(f"no engine {name!r}: {' and '.join(NAMES)} are known.{close}")
    if threads is not None and threads < 1:
        raise RegistrationError(f"{threads} threads: at least 1 is needed")
    if name == "numpy":
        if threads is not None:
            raise RegistrationError(
                "threads is for engine='onnxruntime'; NumPy's are set before it is imported, by "
                "OPENBLAS_NUM_THREADS"
            )
        return NUMPY if winograd else functools.partial(Session, winograd=False)
    if not winograd:
        raise RegistrationError("winograd is for engine='numpy'; leave it out")
    from mlferry.runtime.onnx_session import OnnxSession, import_onnxruntime

    import_onnxruntime()
    return functools.partial(OnnxSession, threads=threads)
