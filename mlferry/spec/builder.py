"""`mlferry.layers.builder` at its documented address."""

from mlferry.layers.builder import LAYER_KINDS, Builder

__all__ = ["LAYER_KINDS", "Builder"]
