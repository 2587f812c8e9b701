"""What the formats mean, once, for layers and programs: arrays and numbers in and out.

Knows no messages, no files and no ONNX.
"""
