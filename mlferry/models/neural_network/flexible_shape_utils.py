"""`mlferry.models.flexible_shapes` under its coremltools address."""

from mlferry.models import flexible_shapes
from mlferry.models.flexible_shapes import *  # noqa: F403 - its `__all__` is the list

__all__ = flexible_shapes.__all__
