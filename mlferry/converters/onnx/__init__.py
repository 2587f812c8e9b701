"""The ONNX frontend: files, bytes and `ModelProto` of every opset.

onnx is imported only when a model is read.
"""

from mlferry.converters.onnx.api import convert

__all__ = ["convert"]
