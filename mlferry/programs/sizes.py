"""The memory that the results of an op take, before they are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlferry import limits
from mlferry.programs.definitions import Operand, Operands, TypeRule
from mlferry.programs.types import DTYPES, Known, TensorType, ValueType

_NAMES = {dtype.array: name for name, dtype in reversed(DTYPES.items())}


def are_known(types: Sequence[ValueType]) -> bool:
    """Whether all extents of the results are known in advance; those of tensors are checked.

    Raises:
        LimitError: a result takes too much memory.
    """
    is_known = True
    for kind in types:
        if not isinstance(kind, TensorType):
            continue
        if kind.shape is None or None in kind.shape:
            is_known = False
        else:
            limits.check_blob(kind.shape)
    return is_known


def check(rule: TypeRule, arguments: Mapping[str, Any]) -> None:
    """Refuse results that would take too much memory, given the actual arguments.

    Raises:
        LimitError: a result takes too much memory.
    """
    try:
        operands = {name: operand(value) for name, value in arguments.items()}
        types = rule(Operands(operands))
    except Exception:  # the kernel reports what is wrong
        return
    are_known(types if isinstance(types, tuple) else (types,))


def operand(value: Known | list[Known] | None) -> Operand | list[Operand] | None:
    """An argument of an op in the form that its type rule takes."""
    if value is None:
        return None
    if isinstance(value, list):
        return [_operand(each) for each in value]
    return _operand(value)


def _operand(value: Known) -> Operand:
    array = np.asarray(value)
    if array.dtype.kind == "U":
        return Operand(TensorType("string", array.shape), value)
    narrow = {np.dtype(np.int64): "int32", np.dtype(np.float64): "fp32"}
    name = narrow.get(array.dtype) or _NAMES[array.dtype]
    return Operand(TensorType(name, array.shape), array)
