"""Evaluate a model of any kind: features by name in, features by name out.

One factory a kind of model: it gets the `Model` and the custom classes and returns a function
from features to features. `prepare` picks it; kinds that cannot run here say why.
"""

from mlferry.runtime.evaluators import (  # noqa: F401 (they register their functions)
    custom,
    detection,
    neighbors,
    network,
    pipeline,
    predictors,
    program,
    support_vectors,
    transforms,
)
from mlferry.runtime.evaluators.registry import EVALUATORS, Evaluator, prepare

__all__ = ["EVALUATORS", "Evaluator", "prepare"]
