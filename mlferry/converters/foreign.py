"""What is told to someone whose source is of a framework that mlferry does not read."""

from __future__ import annotations

import os
from pathlib import Path

_BY_ONNX = (
    "write it as ONNX and convert that: torch.onnx.export(model, inputs, 'model.onnx'); "
    "mlferry.convert('model.onnx')"
)
_WEIGHTS = "it holds weights alone: convert the model that they belong to, which holds its layers"
_SUFFIXES = {
    **dict.fromkeys((".pt", ".pth", ".pt2", ".ptl"), f"it is a file of PyTorch; {_BY_ONNX}"),
    ".tflite": "it is a TensorFlow Lite model: convert the Keras or SavedModel it was made of",
    **dict.fromkeys((".safetensors", ".ckpt", ".index", ".npz"), _WEIGHTS),
    ".mlmodelc": "it is a compiled Core ML model: use the .mlmodel or .mlpackage it was made of",
}
_OBJECTS = {
    "torch": f"it is an object of PyTorch; {_BY_ONNX}",
    "jax": "it is an object of JAX: write it as a SavedModel by jax2tf, and convert that",
    "coremltools": "it is a Core ML model already: mlferry.MLModel(model.get_spec()) runs it",
}


def advice(source: object) -> str:
    """The next step for a source that no frontend reads, by its suffix or its class; "" if none."""
    if isinstance(source, str | os.PathLike):
        return _SUFFIXES.get(Path(source).suffix.lower(), "")
    packages = [cls.__module__.split(".")[0] for cls in type(source).__mro__]
    return next((_OBJECTS[name] for name in packages if name in _OBJECTS), "")
