"""The registries of rules about models, features and networks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlferry.spec import networks
from mlferry.spec.problems import Problem, Problems, error, warning, within
from mlferry.spec.proto import features_pb2 as ft, model_pb2


@dataclass(frozen=True)
class Feature:
    """An input or output of a model."""

    name: str
    type: ft.FeatureType
    is_input: bool
    model: model_pb2.Model

    def misfit(self, message: str) -> Problem:
        """For an input, no value would fit; the type of an output is only information."""
        return error(message) if self.is_input else warning(message)


KindRule = Callable[[model_pb2.Model, Any], Problems]
ModelRule = Callable[[model_pb2.Model], Problems]
FeatureRule = Callable[[Feature], Problems]
NetworkRule = Callable[[model_pb2.Model, networks.Network], Problems]

MODEL_RULES: list[ModelRule] = []
FEATURE_RULES: dict[str, list[FeatureRule]] = {}
EVERY = ""


def model_rule(rule: ModelRule) -> ModelRule:
    """Register a rule about a model and its description."""
    MODEL_RULES.append(rule)
    return rule


def kind_rule(*kinds: str) -> Callable[[KindRule], KindRule]:
    """Register a rule about models of some kinds; it takes the model and its parameters."""

    def register(rule: KindRule) -> KindRule:
        @functools.wraps(rule)
        def checked(spec: model_pb2.Model) -> Problems:
            kind = spec.WhichOneof("Type")
            if kind in kinds:
                yield from within(kind, rule(spec, getattr(spec, kind)))

        MODEL_RULES.append(checked)
        return rule

    return register


def network_rule(rule: NetworkRule) -> NetworkRule:
    """Register a rule about the neural network of a model."""

    @functools.wraps(rule)
    def checked(spec: model_pb2.Model) -> Problems:
        network = networks.network_of(spec)
        if network is not None:
            yield from rule(spec, network)

    MODEL_RULES.append(checked)
    return rule


def feature_rule(*types: str) -> Callable[[FeatureRule], FeatureRule]:
    """Register a rule about inputs and outputs of some types, by default of all."""

    def register(rule: FeatureRule) -> FeatureRule:
        for name in types or (EVERY,):
            FEATURE_RULES.setdefault(name, []).append(rule)
        return rule

    return register
