"""What a problem is, what a rule is, and the registries of rules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mlferry.registry import did_you_mean
from mlferry.spec import networks
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn


@dataclass(frozen=True)
class Problem:
    """One broken rule.

    Attributes:
        severity: "error": the numbers would be undefined; "warning": a device would refuse
            the model, though it can be evaluated; "note": worth knowing.
        where: the layer, feature or part of the model.
        message: what was found and what is allowed.
    """

    severity: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


Problems = Iterator[Problem]


def error(message: str, where: str = "") -> Problem:
    """The numbers would be undefined."""
    return Problem("error", where, message)


def warning(message: str, where: str = "") -> Problem:
    """A device, or Apple's checker, would refuse the model; it can be evaluated."""
    return Problem("warning", where, message)


def note(message: str, where: str = "") -> Problem:
    """Worth knowing."""
    return Problem("note", where, message)


def within(place: str, problems: Iterable[Problem]) -> Problems:
    """The problems of a part, told from outside of it."""
    for problem in problems:
        where = f"{place} > {problem.where}" if problem.where else place
        yield Problem(problem.severity, where, problem.message)


@dataclass(frozen=True)
class Feature:
    """An input or output of a model."""

    name: str
    type: ft.FeatureType
    is_input: bool
    model: model_pb2.Model

    def misfit(self, message: str) -> Problem:
        """For an input, no value would fit; the type of an output is only told to users."""
        return error(message) if self.is_input else warning(message)


ModelRule = Callable[[model_pb2.Model], Problems]
FeatureRule = Callable[[Feature], Problems]
NetworkRule = Callable[[model_pb2.Model, networks.Network], Problems]
LayerRule = Callable[[nn.NeuralNetworkLayer, Any], Problems]

MODEL_RULES: list[ModelRule] = []
FEATURE_RULES: dict[str, list[FeatureRule]] = {}
LAYER_RULES: dict[str, list[LayerRule]] = {}
EVERY = ""


def model_rule(rule: ModelRule) -> ModelRule:
    """Register a rule about a model and its description."""
    MODEL_RULES.append(rule)
    return rule


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


def layer_rule(*kinds: str) -> Callable[[LayerRule], LayerRule]:
    """Register a rule about layers of some kinds, by default of all."""

    def register(rule: LayerRule) -> LayerRule:
        for kind in kinds or (EVERY,):
            LAYER_RULES.setdefault(kind, []).append(rule)
        return rule

    return register


def show(values: Iterable[Any]) -> str:
    """Numbers for people: ``[3, 3]``; a long list is cut."""
    listed = list(values)
    shown = ", ".join(map(str, listed[:8]))
    return f"[{shown}{', ...' if len(listed) > 8 else ''}]"


def hint(name: str, known: Iterable[str]) -> str:
    """`did_you_mean`, where the names are few enough to compare."""
    names = list(known)
    return did_you_mean(name, names) if len(names) <= 2000 else ""
