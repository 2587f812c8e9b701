"""Core ML networks in other formats: one package a format."""

from mlferry import lazy

__getattr__, __dir__ = lazy.names(__name__)
