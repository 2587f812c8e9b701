"""The size of a source after its functions are inlined.

A few functions, each of which calls the next one twice, make more nodes than fit in memory.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from mlferry.errors import ConversionError

Key = TypeVar("Key", bound=Hashable)


def nodes(main: Sequence[Key], functions: Mapping[Key, Sequence[Key]]) -> int:
    """The number of nodes of a graph with everything inlined.

    Args:
        main: the nodes of the graph, or the functions that they call.
        functions: likewise for each function.

    Raises:
        ConversionError: a function calls itself.
    """
    sizes: dict[Key, int] = {}
    for start in functions:
        stack, active = [start], set[Key]()
        while stack:
            key = stack[-1]
            waiting = [
                called for called in functions[key] if called in functions and called not in sizes
            ]
            if key not in sizes and not waiting:
                sizes[key] = 1 + sum(sizes.get(called, 1) for called in functions[key])
            if key in sizes:
                active.discard(stack.pop())
                continue
            if key in active:
                raise ConversionError(f"the function {key!r} of the model calls itself")
            active.add(key)
            stack += waiting
    return sum(sizes.get(key, 1) for key in main)
