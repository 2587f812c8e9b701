"""The ONNX frontend: files, bytes and `ModelProto` of every opset."""
