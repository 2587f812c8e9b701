"""Evaluate a model of any kind: features by name in, features by name out.

Each kind of model has a factory that takes the `Model` and the custom classes and returns a
function from features to features. `prepare` picks it; for kinds that cannot run here it says why.
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
