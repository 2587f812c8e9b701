"""The registry of evaluators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.custom import CustomLayer, CustomModel
from mlferry.errors import (
    MlferryError,
    PredictionError,
    RegistrationError,
    SpecError,
    UnsupportedModelError,
)
from mlferry.programs.values import Weights
from mlferry.registry import Registry
from mlferry.runtime import features, inputs
from mlferry.runtime.engines import NUMPY, Engine
from mlferry.spec.proto import model_pb2

Features = Mapping[str, Any]
Evaluator = Callable[[Features], dict[str, Any]]


@dataclass(frozen=True)
class RunOptions:
    """How ML Programs run.

    Attributes:
        weights: the files of their constants.
        precision: "half" rounds values of float16 where the program does, "exact" computes in
            float32 what it means.
        function: the function that runs; None for the default one.
    """

    weights: Weights = field(default_factory=Weights)
    precision: str = "half"
    function: str | None = None

    def joined(self, other: RunOptions) -> RunOptions:
        """The options of a model made of two; the weights are those of the first that has any.

        Raises:
            SpecError: the precisions differ.
        """
        if self.precision != other.precision:
            raise SpecError(
                f"one model runs in precision {self.precision!r}, another in {other.precision!r}: "
                "give both the same with model.with_precision('half')"
            )
        return replace(self, weights=self.weights if self.weights.has_files else other.weights)


@dataclass(frozen=True)
class CustomClasses:
    """The classes given with a model, which come before registered ones, and its engine."""

    layers: Mapping[str, type[CustomLayer]] = field(default_factory=dict)
    models: Mapping[str, type[CustomModel]] = field(default_factory=dict)
    engine: Engine = NUMPY
    program: RunOptions = field(default_factory=RunOptions)

    def joined(self, other: CustomClasses) -> CustomClasses:
        """What a model made of two needs; its engine is the first that is not the default.

        Raises:
            RegistrationError: both have a class of the same name, and not the same class.
            SpecError: their programs run in different precisions.
        """
        for ours, theirs in ((self.layers, other.layers), (self.models, other.models)):
            for name in ours.keys() & theirs.keys():
                if ours[name] is not theirs[name]:
                    raise RegistrationError(
                        f"two models have different classes for {name!r}: "
                        f"{ours[name].__qualname__} and {theirs[name].__qualname__}. Rename one "
                        "with replace_custom_layer_name"
                    )
        engine = other.engine if self.engine == CustomClasses().engine else self.engine
        return CustomClasses(
            {**self.layers, **other.layers},
            {**self.models, **other.models},
            engine,
            self.program.joined(other.program),
        )


class Transparent(ABC):
    """What evaluators of layers and operations show of their inside."""

    @abstractmethod
    def makers(self) -> dict[str, tuple[str, str]]:
        """The name and kind of what makes each value inside, in order."""

    @abstractmethod
    def inside(self, data: Features, names: Sequence[str]) -> dict[str, Any]:
        """Values inside, or of inputs, for one sample.

        Raises:
            PredictionError: there is no such value, or the sample does not fit.
        """

    def as_described(self, name: str, value: NDArray[Any]) -> NDArray[Any]:
        """A value in the shape that it has as an output."""
        return value


Factory = Callable[[model_pb2.Model, CustomClasses], Evaluator]

EVALUATORS: Registry[Factory] = Registry("evaluator")
evaluator = EVALUATORS.register

_DATA = (
    "its trained part is in the file (modelParameterData), in a format that Apple has not "
    "described: only Apple's systems read it"
)
_PART_OF_SYSTEM = (
    "the file names a network that is part of Apple's systems; its weights are not in the file"
)
_WHY_NOT = {
    "bayesianProbitRegressor": "Bayesian probit regression is not evaluated yet",
    "itemSimilarityRecommender": "recommenders are not evaluated yet",
    "classConfidenceThresholding": "confidence thresholding is not evaluated yet",
    "linkedModel": "a linked model lies in another file, named at build time of an app",
    "serializedModel": "its content is opaque",
    **dict.fromkeys(("textClassifier", "wordTagger", "gazetteer", "wordEmbedding"), _DATA),
    **dict.fromkeys(("visionFeaturePrint", "audioFeaturePrint"), _PART_OF_SYSTEM),
    "soundAnalysisPreprocessing": (
        "the file names a step of Apple's systems, the spectrogram that VGGish takes; how they "
        "compute it is not in the file"
    ),
    "none": "the file names no kind, or one of a newer format than is known here",
}


def prepare(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """The function that evaluates a model; everything is resolved here, once.

    Raises:
        UnsupportedModelError: models of this kind cannot be evaluated here.
        MissingCustomLayerError: custom classes are missing.
    """
    kind = model.WhichOneof("Type") or "none"
    entry = EVALUATORS.find(kind)
    if entry is None:
        raise UnsupportedModelError(
            f"a model of kind {kind!r} loads, shows itself and saves here, but cannot predict: "
            + _WHY_NOT[kind]
        )
    with _our_errors(f"this model of kind {kind!r} cannot be evaluated"):
        return entry.value(model, classes)


@contextmanager
def _our_errors(task: str) -> Iterator[None]:
    """Parameters that no rule of `validate` looks at may be anything."""
    try:
        yield
    except MlferryError:
        raise
    except Exception as error:
        raise PredictionError(f"{task}: {error!r:.300}") from error


def checked(model: model_pb2.Model, evaluate: Evaluator) -> Evaluator:
    """An evaluator that checks its inputs and outputs against the model's description."""
    description = model.description

    def run(data: Features) -> dict[str, Any]:
        inputs.check_names(data, description)
        arguments = {
            feature.name: features.to_feature(feature.name, data[feature.name], feature.type)
            for feature in description.input
            if data.get(feature.name) is not None
        }
        task = f"what it is given does not fit a {model.WhichOneof('Type')}"
        with _our_errors(task), np.errstate(all="ignore"):
            outputs = evaluate(arguments)
        missing = [feature.name for feature in description.output if feature.name not in outputs]
        if missing:
            raise PredictionError(
                f"the model describes an output {missing[0]!r}; it makes {', '.join(outputs)}"
            )
        with _our_errors("what the model makes does not fit its description"):
            return {
                feature.name: inputs.to_user(feature.name, outputs[feature.name], feature.type)
                for feature in description.output
            }

    return run


def only_input(model: model_pb2.Model) -> str:
    """The name of a model's one input."""
    return model.description.input[0].name


def only_output(model: model_pb2.Model) -> str:
    """The name of a model's one output."""
    return model.description.output[0].name
