"""The ops of ML Programs, one folder for each family, as in `mlferry.layers`.

In a family's folder, `definition.py` says what its ops take and return in each opset, and
`kernel.py` computes them with NumPy.
"""

from mlferry import lazy

__getattr__, __dir__ = lazy.names(__name__)
