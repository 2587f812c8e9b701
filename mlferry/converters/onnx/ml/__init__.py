"""ONNX's `ai.onnx.ml` domain to Core ML's own predictors: trees, linear models, support vectors.

Models of scikit-learn, XGBoost and LightGBM come in it. A graph with such nodes becomes a pipeline:
each node a model of the kind that Core ML has for it, runs of ordinary ops neural networks between
them. It is read for one sample: a tensor [N, C] is the multi-array [C].
"""

from mlferry.converters.onnx.ml.build import build, claims
from mlferry.converters.onnx.ml.registry import OPS

__all__ = ["OPS", "build", "claims"]
