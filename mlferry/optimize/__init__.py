"""Programs in fewer bits, under the names of coremltools: `mlferry.optimize.coreml`."""

from mlferry.optimize import coreml

__all__ = ["coreml"]
