"""Rounds of loops, counted while a graph runs, so that no loop runs forever.

A graph cannot raise an error itself. So it gathers an element that does not exist, and the runtime
raises an error that names the node.
"""

from __future__ import annotations

import numpy as np

from mlferry.onnx_graph.emitter import INT64, Emitter

MARK = "limit of rounds"
MOST = 2**24 - 1
"""The largest limit: beyond it float32, in which networks count, has gaps."""


def counted(emitter: Emitter, before: str, limit: int, dtype: str = "float32") -> str:
    """The number of the next round, given that of the last; fails above a limit."""
    layer = emitter.layer
    emitter.layer = f"{layer}/{MARK}"
    most = emitter.constant(np.asarray(limit, dtype))
    over = emitter.node("Cast", emitter.node("GreaterOrEqual", before, most), to=INT64)
    one = emitter.node("Gather", emitter.constant(np.ones(1, dtype)), over, axis=0)
    result = emitter.node("Add", before, one)
    emitter.layer = layer
    emitter.shapes[result] = ()
    return result
