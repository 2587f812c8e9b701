"""One function a layer kind: an emitter, parameters and values in, values out.

A function has the name of its kind and writes the nodes that compute what the runtime's kernel of
that kind computes; every value is float32. It works in both array mappings: "width" is axis -1,
"height" -2, "channel" -3.
"""

from mlferry.exporters.onnx.ops import (  # noqa: F401 (they register their functions)
    arrays,
    convolution,
    detection,
    dynamic,
    elementwise,
    indexing,
    linear,
    normalization,
    random,
    recurrent,
    reduction,
    reshaping,
    resizing,
    slicing,
)
from mlferry.exporters.onnx.ops.registry import OPS

__all__ = ["OPS"]
