"""What a user holds: a model that loads, predicts, shows itself and saves."""

from mlferry.models import neural_network, utils
from mlferry.models.model import MLModel

__all__ = ["MLModel", "neural_network", "utils"]
