"""The ONNX frontend: files, bytes and `ModelProto` of every opset.

Nothing here imports onnx before a model is read.
"""

from mlferry.converters.onnx.api import convert

__all__ = ["convert"]
