"""The Core ML file format: messages, builder, weights, shapes, versions, checks, files.

It knows nothing of source frameworks or of evaluating a network.
"""

from mlferry import lazy

__getattr__, __dir__ = lazy.names(__name__)
