"""The layer kinds of Core ML's neural networks: one folder a family.

In a family's folder, `definition.py` says what its kinds are (inputs and outputs, defaults, rules,
stored weights, shapes), `kernel.py` computes them with NumPy and `onnx.py` writes them as ONNX
nodes. Modules beside the families hold for all of them.
"""

from mlferry import lazy

__getattr__, __dir__ = lazy.names(__name__)
