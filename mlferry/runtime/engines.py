"""Engines that evaluate networks and programs: the NumPy kernels, or onnxruntime if installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlferry.compiled import checked
from mlferry.errors import RegistrationError
from mlferry.programs.values import Weights
from mlferry.registry import did_you_mean
from mlferry.runtime.custom import CustomClasses
from mlferry.runtime.program_session import ProgramSession
from mlferry.runtime.session import Session
from mlferry.spec import networks
from mlferry.spec.proto import mil_pb2 as mil

NAMES = ("numpy", "onnxruntime")


@dataclass(frozen=True)
class Engine:
    """An engine: its kinds of sessions, and their options by name."""

    session: Callable[..., Session]
    options: tuple[tuple[str, Any], ...] = ()
    program_session: Callable[..., ProgramSession] = ProgramSession
    program_options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, network: networks.Network, classes: CustomClasses) -> Session:
        """A session of this engine for a network."""
        return self.session(network, classes, **dict(self.options))

    def for_program(
        self, function: mil.Function, weights: Weights, precision: str
    ) -> ProgramSession:
        """A session of this engine for a function of a program."""
        options = dict(self.program_options)
        return self.program_session(function, weights, precision=precision, **options)


NUMPY = Engine(Session)


def engine_named(
    name: str,
    threads: int | None = None,
    *,
    winograd: bool = True,
    widened: bool | None = None,
    compiled: bool | None = None,
) -> Engine:
    """An engine by its name.

    Args:
        name: "numpy" or "onnxruntime".
        threads: how many it uses; by default one per core.
        winograd: whether convolutions on NumPy may go by tiles; see `Session`.
        compiled: whether NumPy's sessions use what Numba compiles; see `Session`.
        widened: whether weights of float16 stay in memory as float32; see `ProgramSession`.

    Raises:
        RegistrationError: there is no such engine, it does not take an option, or `threads` is
            below 1.
        MissingDependencyError: it is not installed, or Numba where `compiled` is true.
    """
    if name not in NAMES:
        close = did_you_mean(name, list(NAMES))
        raise RegistrationError(f"no engine {name!r}: {' and '.join(NAMES)} are known.{close}")
    if threads is not None and threads < 1:
        raise RegistrationError(f"{threads} threads: at least 1 is needed")
    if name == "numpy":
        checked(compiled)
        if winograd and widened is None and threads is None and compiled is None:
            return NUMPY
        options = (("winograd", winograd), ("threads", threads), ("compiled", compiled))
        return Engine(Session, options, ProgramSession, (*options, ("widened", widened)))
    if not winograd:
        raise RegistrationError("winograd is for engine='numpy'; leave it out")
    for option, value in (("widened", widened), ("compiled", compiled)):
        if value is not None:
            raise RegistrationError(f"{option} is for engine='numpy'; leave it out")
    from mlferry.runtime.onnx_program_session import OnnxProgramSession
    from mlferry.runtime.onnx_session import OnnxSession, import_onnxruntime

    import_onnxruntime()
    chosen = (("threads", threads),)
    return Engine(OnnxSession, chosen, OnnxProgramSession, chosen)
