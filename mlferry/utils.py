"""`mlferry.models.utils` at the place where coremltools has it."""

from mlferry.models import utils as _utils
from mlferry.models.utils import *  # noqa: F403 - its `__all__` is the list

__all__ = _utils.__all__
