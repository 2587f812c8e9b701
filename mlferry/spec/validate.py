"""`mlferry.layers.validate` at its documented address."""

from mlferry.layers.validate import Problem, validate

__all__ = ["Problem", "validate"]
