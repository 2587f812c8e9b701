"""Core ML networks as ONNX models: one function a layer kind, in `ops/`."""

from mlferry.exporters.onnx.api import export

__all__ = ["export"]
