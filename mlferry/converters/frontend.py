"""What the walker needs to know of a source framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mlferry.converters.graph import Graph, Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.values import Results
from mlferry.registry import Registry

Converter = Callable[..., Results]
C = TypeVar("C", bound=Converter)


@dataclass(frozen=True)
class Frontend:
    """What the walker needs to know of a source framework.

    Attributes:
        name: for messages.
        ops: its converters: ``convert(context, node, *operands)``, which return a `Result` or one
            for each output. An operand is a blob in one of the layouts that a converter is
            registered with (``layouts=``, by default the source's order).
        ignored: options that change training or names only.
        neutral: values of an option that ask for nothing, so that it may stay unread.
        fold: evaluates a node whose inputs are all constants, or returns None if it cannot.
        foldable: whether `fold` may evaluate a node that has no converter, too.
        raw: whether converters get their operands as they are: a blob, a `Constant`, what is known
            to the frontend alone, or None for one that is left out. The frontend's own decorator
            then says which are blobs and which are arrays.
        prepare: looks at all nodes before the first is converted.
        moving: ops that only move values, with the operands whose values they move.
    """

    name: str
    ops: Registry[Converter]
    ignored: frozenset[str] = frozenset()
    neutral: tuple[Any, ...] = (None, False)
    fold: Callable[[Lowering, Node, Sequence[Any]], Sequence[Any] | None] | None = None
    prepare: Callable[[Graph], None] | None = None
    moving: Mapping[str, slice] = field(default_factory=dict)
    foldable: Callable[[Node], bool] | None = None
    raw: bool = False
