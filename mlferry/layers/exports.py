"""The registry of layer kinds that become ONNX: an emitter, parameters and values in, values out.

A function has the name of its kind and writes the nodes that compute what the kernel of that kind
computes; every value is float32. It works in both array mappings: "width" is axis -1, "height" -2,
"channel" -3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlferry.rooms import LAYERS, RoomRegistry

Op = Callable[..., Any]

# Options:
#   five_axes: whether a layer, or one with such parameters, gets its inputs with all of their five
#       axes in the classic mapping; others get them without a sequence of one step.
#   limits: what is refused, for the documentation.
#   random: the kind draws values, which differ from those of mlferry's own runtime.
OPS: RoomRegistry[Op] = RoomRegistry("ONNX export of a layer kind", LAYERS, "onnx", "either")
op = OPS.register
