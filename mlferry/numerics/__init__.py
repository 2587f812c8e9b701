"""The arithmetic of the formats, once for layers and programs: arrays and numbers in and out.

It knows nothing of messages, files or ONNX.
"""
