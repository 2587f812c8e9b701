"""What evaluates networks: the NumPy kernels, or onnxruntime where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlferry.errors import RegistrationError
from mlferry.registry import did_you_mean
from mlferry.runtime.custom import CustomClasses
from mlferry.runtime.session import Session
from mlferry.spec import networks

NAMES = ("numpy", "onnxruntime")


@dataclass(frozen=True)
class Engine:
    """What evaluates a network: a kind of session, and its options by name."""

    session: Callable[..., Session]
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, network: networks.Network, classes: CustomClasses) -> Session:
        """A session of this engine for a network."""
        return self.session(network, classes, **dict(self.options))


NUMPY = Engine(Session)


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
        return NUMPY if winograd else Engine(Session, (("winograd", False),))
    if not winograd:
        raise RegistrationError("winograd is for engine='numpy'; leave it out")
    from mlferry.runtime.onnx_session import OnnxSession, import_onnxruntime

    import_onnxruntime()
    return Engine(OnnxSession, (("threads", threads),))
