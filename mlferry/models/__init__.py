"""What a user holds: a model that loads, predicts, shows itself and saves."""

from mlferry.models import datatypes, neural_network, pipeline, utils
from mlferry.models.model import MLModel

__all__ = ["MLModel", "datatypes", "neural_network", "pipeline", "utils"]
