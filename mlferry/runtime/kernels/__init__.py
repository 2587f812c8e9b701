"""One function a layer kind: parameters and float32 arrays in, arrays out.

A kernel has the name of its kind and takes the layer's `Params` and its inputs. It works in
both array mappings: "width" is axis -1, "height" -2, "channel" -3, "batch" -4, "sequence" -5.
"""

from mlferry.runtime.kernels import (  # noqa: F401 (they register their functions)
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
    volumes,
)
from mlferry.runtime.kernels.registry import KERNELS, Array

__all__ = ["KERNELS", "Array"]
