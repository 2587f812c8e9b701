"""Kinds of tasks: compiled code that other compiled code calls by its address.

Numba copies what a function calls into it, and then optimizes and translates all of it again. So
each kind is compiled for itself, when the first task of that kind is made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import cfunc, types
from numba.core.base import BaseContext

from mlferry.compiled.vectors import INT, Value, instruction, kept

_SIGNATURE = types.void(types.intp, types.intp)


class Kind:
    """What some tasks do.

    Args:
        work: what is compiled. It takes the addresses of a task, as `record.TASK`, and of the
            scratch of a thread, as `vectors.scratch`. It allocates nothing, as nobody would learn
            that there is no memory.
    """

    def __init__(self, work: Callable[[int, int], None]) -> None:
        self._work = work
        self.__doc__ = work.__doc__

    @functools.cached_property
    def address(self) -> int:
        """Where the compiled code starts."""
        return int(self._compiled.address)

    @functools.cached_property
    def _compiled(self) -> Any:
        return kept(lambda cache: cfunc(_SIGNATURE, cache=cache, error_model="numpy")(self._work))

    def __repr__(self) -> str:
        return f"<{self._work.__name__}>"


@instruction
def work(typing: object, code: types.Type, task: types.Type, scratch: types.Type) -> Any:
    """Call the code at an address, of a `Kind`."""

    def emit(
        context: BaseContext, builder: ir.IRBuilder, _: object, arguments: Sequence[Value]
    ) -> Value:
        place, *given = arguments
        function = ir.FunctionType(ir.VoidType(), [INT, INT])
        builder.call(builder.inttoptr(place, function.as_pointer()), given)
        return context.get_dummy_value()

    return types.void(code, task, scratch), emit
