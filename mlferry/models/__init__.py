"""What a user holds: a model that loads, predicts, shows itself and saves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlferry import lazy

if TYPE_CHECKING:
    from mlferry.models import datatypes, neural_network, pipeline, utils
    from mlferry.models.model import MLModel

__all__ = ["MLModel", "datatypes", "neural_network", "pipeline", "utils"]

__getattr__, __dir__ = lazy.names(
    __name__,
    {
        "MLModel": "mlferry.models.model:MLModel",
        "datatypes": "mlferry.models.datatypes",
        "neural_network": "mlferry.models.neural_network",
        "pipeline": "mlferry.models.pipeline",
        "utils": "mlferry.models.utils",
    },
)
