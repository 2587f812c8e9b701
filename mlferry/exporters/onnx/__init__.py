"""Core ML networks and programs as ONNX models, written by the functions of their families."""

from mlferry.exporters.onnx.api import export

__all__ = ["export"]
