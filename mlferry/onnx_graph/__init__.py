"""ONNX graphs under construction: nodes, constants, shapes, and simplification."""
