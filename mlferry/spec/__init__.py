"""The Core ML file format: messages, builder, weights, shapes, versions, checks, files.

Knows nothing of source frameworks and nothing of evaluating a network.
"""

from mlferry import lazy

__getattr__, __dir__ = lazy.names(__name__)
