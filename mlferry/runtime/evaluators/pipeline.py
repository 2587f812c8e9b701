"""Models in sequence: each reads outputs of earlier ones, or the pipeline's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from mlferry.errors import PredictionError, context
from mlferry.registry import did_you_mean
from mlferry.runtime import inputs
from mlferry.runtime.evaluators.registry import (
    CustomClasses,
    Evaluator,
    Features,
    Transparent,
    evaluator,
    prepare,
)
from mlferry.spec import networks
from mlferry.spec.proto import model_pb2


@dataclass(frozen=True)
class _Member:
    """A model of a pipeline.

    Attributes:
        name: as the pipeline calls it, or its number.
        kind: of the model.
        description: its inputs and outputs.
        evaluate: gives its outputs.
    """

    name: str
    kind: str
    description: model_pb2.ModelDescription
    evaluate: Evaluator

    def __str__(self) -> str:
        return f"model {self.name!r} ({self.kind}) of the pipeline"

    def makers(self) -> dict[str, tuple[str, str]]:
        """What makes each value inside; the model itself where it shows nothing of its inside."""
        if isinstance(self.evaluate, Transparent):
            return {
                value: (f"{self.name}/{layer}", kind)
                for value, (layer, kind) in self.evaluate.makers().items()
            }
        return {feature.name: (self.name, self.kind) for feature in self.description.output}

    def arguments(self, features: Features) -> dict[str, Any]:
        """What the model reads, as far as it is there."""
        return {f.name: features[f.name] for f in self.description.input if f.name in features}


class PipelineEvaluator(Transparent):
    """A pipeline of any of the three kinds; a model may replace a feature under its old name.

    A value inside has the name that its model has for it; where an earlier model has one of that
    name, the name of the model and a slash stand before it.
    """

    def __init__(self, model: model_pb2.Model, classes: CustomClasses) -> None:
        pipeline = networks.pipeline_of(model)
        assert pipeline is not None
        self._description = model.description
        self._members: list[_Member] = []
        for index, inner in enumerate(pipeline.models):
            name = pipeline.names[index] if index < len(pipeline.names) else str(index)
            kind = inner.WhichOneof("Type") or "none"
            with context(f"preparing model {name!r} ({kind}) of the pipeline"):
                evaluate = prepare(inner, classes)
            self._members.append(_Member(name, kind, inner.description, evaluate))

    def __call__(self, data: Features) -> dict[str, Any]:
        """The outputs for the features of a sample.

        Raises:
            PredictionError: a name, shape or value does not fit.
        """
        inputs.check_names(data, self._description)
        features = dict(data)
        for member in self._members:
            with context(f"running {member}"):
                features |= member.evaluate(member.arguments(features))
        missing = [f.name for f in self._description.output if f.name not in features]
        if missing:
            raise PredictionError(f"no model of the pipeline makes its output {missing[0]!r}")
        return {feature.name: features[feature.name] for feature in self._description.output}

    def makers(self) -> dict[str, tuple[str, str]]:
        """See `Transparent`."""
        made_by = [member.makers() for member in self._members]
        return {name: made_by[index][inner] for name, (index, inner) in self._made.items()}

    def inside(self, data: Features, names: Sequence[str]) -> dict[str, Any]:
        """See `Transparent`; models behind the last value that is asked for do not run."""
        inputs.check_names(data, self._description)
        places = self._places
        unknown = [name for name in names if name not in places]
        if unknown:
            raise PredictionError(
                f"the pipeline has no value {unknown[0]!r}.{did_you_mean(unknown[0], list(places))}"
            )
        inner_names: dict[int, list[str]] = {}
        for name in names:
            index, inner = places[name]
            inner_names.setdefault(index, []).append(inner)
        features, sources = dict(data), dict[tuple[int, str], Any]()
        for index, member in enumerate(self._members[: max(inner_names, default=-1) + 1]):
            with context(f"running {member}"):
                arguments = member.arguments(features)
                outputs = member.evaluate(arguments)
                shown = inner_names.get(index, [])
                if isinstance(member.evaluate, Transparent) and shown:
                    values = member.evaluate.inside(arguments, shown)
                else:
                    values = {**arguments, **outputs}
            sources |= {(index, inner): values[inner] for inner in shown}
            features |= outputs
        return {name: sources[places[name]] for name in names}

    def as_described(self, name: str, value: NDArray[Any]) -> NDArray[Any]:
        """See `Transparent`."""
        index, inner = self._places[name]
        evaluate = self._members[index].evaluate
        return evaluate.as_described(inner, value) if isinstance(evaluate, Transparent) else value

    @cached_property
    def _places(self) -> dict[str, tuple[int, str]]:
        """The model that shows each value, and its own name for it.

        An input of the pipeline is shown by the first model that reads it.
        """
        names = {feature.name for feature in self._description.input}
        places: dict[str, tuple[int, str]] = {}
        for index, member in enumerate(self._members):
            for feature in member.description.input:
                if feature.name in names:
                    places.setdefault(feature.name, (index, feature.name))
        return places | self._made

    @cached_property
    def _made(self) -> dict[str, tuple[int, str]]:
        """The model that makes each value, and its own name for it."""
        places: dict[str, tuple[int, str]] = {}
        for index, member in enumerate(self._members):
            for value in member.makers():
                name = f"{member.name}/{value}" if value in places else value
                places[name] = (index, value)
        return places


@evaluator(*networks.PIPELINE_KINDS)
def pipeline(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """A pipeline of any of the three kinds."""
    return PipelineEvaluator(model, classes)
