"""Core ML networks in other formats, one package for each format."""

from mlferry import lazy

__getattr__, __dir__ = lazy.names(__name__)
