"""The Keras frontend: `.h5` of Keras 1, 2 and 3, `.keras`, JSON with weights, and objects.

Nothing here imports Keras, and no code that a file carries is ever run: configs are JSON,
weights are arrays.
"""

from mlferry.converters.keras.api import convert, convertToSpec

__all__ = ["convert", "convertToSpec"]
