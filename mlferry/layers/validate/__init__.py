"""Find everything that is wrong with a model at once.

Each module holds one family of rules; a rule is a small function in a registry (`rules`), so you
add one by decorating a function. The rules cover models of every kind.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlferry.layers.validate import (  # noqa: F401 (they register their functions)
    classifier,
    feature_engineering,
    interface,
    layer_weights,
    layers,
    linear,
    model,
    neighbors,
    outputs,
    pipeline,
    preprocessing,
    ranks,
    signatures,
    support_vectors,
    suppression,
    system_models,
    topology,
    training,
    trees,
)
from mlferry.layers.validate.rules import MODEL_RULES
from mlferry.spec import networks
from mlferry.spec.problems import Problem, error
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn

__all__ = ["Problem", "validate"]

_DEEPEST = 50  # protobuf reads 100 nested messages; a pipeline or a branch takes at least two


def validate(spec: model_pb2.Model) -> list[Problem]:
    """Every problem of a model."""
    if _is_too_deep(spec):
        text = f"pipelines, branches or loops are nested in more than {_DEEPEST} levels"
        return [error(text, "model")]
    return [problem for rule in MODEL_RULES for problem in rule(spec)]


def _is_too_deep(spec: model_pb2.Model) -> bool:
    models, inner = [spec], list[nn.NeuralNetwork]()
    for _ in range(_DEEPEST):
        inner = [result for network in inner for result in _inside(network)]
        for each in models:
            inner += _inside(networks.network_of(each))
        models = [result for each in models for result in _models_in(each)]
        if not models and not inner:
            return False
    return True


def _models_in(spec: model_pb2.Model) -> Iterator[model_pb2.Model]:
    pipeline_found = networks.pipeline_of(spec)
    if pipeline_found is not None:
        yield from pipeline_found.models


def _inside(network: networks.Network | None) -> list[nn.NeuralNetwork]:
    if network is None:
        return []
    return [result for layer in network.layers for result in networks.subnetworks(layer)]
