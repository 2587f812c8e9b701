"""Every error that mlferry raises on purpose.

`MlferryError` is the base class. Messages say what was found, where, what is possible and what to
type next. `add_context` lets the code that walks over a model add, once, where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mlferry.text import printable


class MlferryError(Exception):
    """Base class of every error of this package."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.context: list[str] = []

    def add_context(self, where: str) -> None:
        """Append where the error happened, e.g. ``converting Conv2D 'conv_1'``."""
        self.context.append(where)

    def __str__(self) -> str:
        message = printable(super().__str__(), lines=True)
        return "\n".join([message, *(f"  while {printable(where)}" for where in self.context)])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the error whatever arguments its class takes: workers send errors back."""
        return _revived, (type(self), self.args, self.__dict__)


def _revived(cls: type[MlferryError], args: tuple[Any, ...], state: dict[str, Any]) -> MlferryError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ModelFileError(MlferryError, ValueError):
    """A file is missing, empty, cut off, of another format, or cannot be written."""


class LimitError(MlferryError, ValueError):
    """A file asks for more than a limit allows.

    Attributes:
        limit: the limit, an attribute of `mlferry.limits.Limits`, or the fixed `MODEL_BYTES`.
        enough: a value that would do; None if the limit cannot be raised.
    """

    def __init__(self, message: str, limit: str, enough: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        self.enough = enough


class SpecError(MlferryError, ValueError):
    """A Core ML specification, or what you asked to put into one, breaks the format's rules."""


class ValidationError(SpecError):
    """A model has problems that `mlferry.spec.validate` lists; all of them are reported."""

    def __init__(self, message: str, problems: Sequence[object]) -> None:
        super().__init__(
            "\n".join([message, *(f"  - {printable(str(problem))}" for problem in problems)])
        )
        self.problems = list(problems)


class ConversionError(MlferryError, ValueError):
    """A source model cannot be converted as asked."""


class UnsupportedOpError(ConversionError):
    """Ops without a converter; `ops` maps each op to the names of its nodes."""

    def __init__(self, message: str, ops: dict[str, list[str]]) -> None:
        super().__init__(message)
        self.ops = ops


class OpenShapesError(ConversionError):
    """The source leaves shapes of inputs open; `shapes` maps each input to one that would do."""

    def __init__(self, message: str, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__(message)
        self.shapes = shapes


class ExportError(MlferryError, ValueError):
    """A Core ML model cannot be written in another format as asked."""


class UnsupportedLayersError(ExportError):
    """Layers that the other format cannot express.

    `layers` has the name of each, its kind and the reason.
    """

    def __init__(self, message: str, layers: Sequence[tuple[str, str, str]]) -> None:
        super().__init__(message)
        self.layers = list(layers)


class UnsupportedOperationsError(ExportError):
    """Operations of a program that the other format cannot express.

    `operations` has the name of each, its op and the reason.
    """

    def __init__(self, message: str, operations: Sequence[tuple[str, str, str]]) -> None:
        super().__init__(message)
        self.operations = list(operations)


class PredictionError(MlferryError, ValueError):
    """A model cannot be evaluated with its inputs or options."""


class UnsupportedModelError(PredictionError):
    """A model of a kind that can be loaded, inspected and saved, but not evaluated here."""


class MissingCustomLayerError(PredictionError):
    """A model needs custom classes that are not registered; `class_names` lists them."""

    def __init__(self, message: str, class_names: Sequence[str]) -> None:
        super().__init__(message)
        self.class_names = list(class_names)


class CustomLayerError(PredictionError):
    """A user's custom class raised an error, or returned something that does not fit."""


class WorkerError(MlferryError, RuntimeError):
    """Work cannot be done in other processes."""


class MissingDependencyError(MlferryError, ImportError):
    """An optional package is needed; the message says which extra installs it."""


class RegistrationError(MlferryError, ValueError):
    """A name was registered twice, or with arguments that do not fit."""


@contextmanager
def context(where: str) -> Iterator[None]:
    """Add `where` to every `MlferryError` that leaves the block."""
    try:
        yield
    except MlferryError as error:
        error.add_context(where)
        raise
