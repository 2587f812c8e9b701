"""Functions of one value that are one layer of Core ML, under the names of ONNX and TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np

FLOAT_MAX = float(np.finfo(np.float32).max)

# The kind of the layer, and its parameters.
PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "Abs": ("unary", {"type": "ABS"}),
    "Exp": ("unary", {"type": "EXP"}),
    "Log": ("unary", {"type": "LOG"}),
    "Sqrt": ("unary", {"type": "SQRT"}),
    "Neg": ("activation", {"linear": {"alpha": -1.0}}),
    "Relu": ("activation", {"ReLU": {}}),
    "Sigmoid": ("activation", {"sigmoid": {}}),
    "Tanh": ("activation", {"tanh": {}}),
    "Softplus": ("activation", {"softplus": {}}),
    "Softsign": ("activation", {"softsign": {}}),
}
for _name in (
    *("Ceil", "Floor", "Round", "Sign", "Erf"),
    *("Sin", "Cos", "Tan", "Asin", "Acos", "Atan"),
    *("Sinh", "Cosh", "Asinh", "Acosh", "Atanh"),
):
    PLAIN[_name] = (_name.lower(), {})
