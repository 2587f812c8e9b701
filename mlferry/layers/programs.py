"""The registry of layer kinds as ops of ML Programs: from parameters and values to values.

A function has the name of its kind and writes the ops that compute what the kernel of that kind
computes. Values have types: a comparison makes booleans, a search int32; a function converts its
operands with `builder.as_float` and its siblings, and leaves the type of its results as it is. It
works in both array mappings: "width" is axis -1, "height" -2, "channel" -3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlferry.rooms import LAYERS, RoomRegistry

PROGRAM_OPS: RoomRegistry[Callable[..., Any]] = RoomRegistry(
    "ML Program ops of a layer kind", LAYERS, "program", "either"
)
as_program = PROGRAM_OPS.register
"""Registers functions: `as_program("softmax")`. Options:

    five_axes: whether a layer, or one with such parameters, gets its inputs with all of their five
        axes in the classic mapping; others get them without a sequence of one step.
    limits: what is refused, for the documentation.
    random: the kind draws values, which differ from those of mlferry's own runtime.
"""
