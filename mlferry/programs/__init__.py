"""The ops of ML Programs: one folder a family, as in `mlferry.layers`.

In a family's folder, `definition.py` says what its ops take and make in each opset, and `kernel.py`
computes them with NumPy.
"""

from mlferry import lazy

__getattr__, __dir__ = lazy.names(__name__)
