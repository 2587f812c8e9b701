"""ONNX graphs while they are written: nodes, constants, shapes, and what makes them simpler."""
