"""What a user holds: a model that loads, predicts, shows itself and saves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlferry import lazy

if TYPE_CHECKING:
    from mlferry.models import datatypes, neural_network, pipeline, utils
    from mlferry.models.model import MLModel

__all__ = ["MLModel", "datatypes", "neural_network", "pipeline", "utils"]

__getattr__, __dir__ = lazy.names(__name__, {"mlferry.models.model": ("MLModel",)})
