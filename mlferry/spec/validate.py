"""`mlferry.models.problems.validate` at its documented address."""

from mlferry.models.problems import validate
from mlferry.spec.problems import Problem

__all__ = ["Problem", "validate"]
