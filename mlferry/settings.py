"""Settings that hold inside a block, in its thread or task."""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Setting(Generic[T]):
    """Gives a context variable a value inside a block.

    A prediction enters several; a class takes a fraction of the time of a generator.

    Args:
        variable: which one.
        value: what it is inside.
    """

    def __init__(self, variable: ContextVar[T], value: T) -> None:
        self._variable, self._value = variable, value
        self._token: Token[T] | None = None

    def __enter__(self) -> T:
        self._token = self._variable.set(self._value)
        return self._value

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._token is not None
        self._variable.reset(self._token)
