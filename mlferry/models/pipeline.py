"""coremltools' builders of pipelines; `mlferry.models.utils.make_pipeline` checks the models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlferry.errors import SpecError
from mlferry.layers import versions
from mlferry.models.datatypes import (
    Dictionary,
    Double,
    Int64,
    String,
    add_features,
    normalized,
    pairs,
    training_inputs,
)
from mlferry.models.model import MLModel
from mlferry.spec import networks
from mlferry.spec.proto import model_pb2

__all__ = ["Pipeline", "PipelineClassifier", "PipelineRegressor"]

Features = Sequence[tuple[str, Any]]


class Pipeline:
    """Models in sequence: each reads outputs of earlier ones, or the pipeline's inputs.

    Args:
        input_features: pairs of a name and a type of `datatypes`.
        output_features: likewise.
        training_features: what the last model is trained with, likewise.

    Attributes:
        spec: the model; `MLModel(pipeline.spec)` checks it.

    Raises:
        SpecError: something is not such a pair.
    """

    kind = "pipeline"

    def __init__(
        self,
        input_features: Features,
        output_features: Features,
        training_features: Features | None = None,
    ) -> None:
        self.spec = model_pb2.Model(specificationVersion=1)
        getattr(self.spec, self.kind).SetInParent()
        add_features(self.spec.description.input, input_features)
        add_features(self.spec.description.output, output_features)
        training_inputs(self.spec, training_features or ())

    @property
    def _models(self) -> Any:
        pipeline = networks.pipeline_of(self.spec)
        assert pipeline is not None
        return pipeline.models

    def add_model(self, spec: MLModel | model_pb2.Model) -> None:
        """Add a model at the end.

        Raises:
            SpecError: it is not a model, or the pipeline was made updatable.
        """
        if self.spec.isUpdatable:
            raise SpecError("add the models before make_updatable, which looks at the last one")
        message = spec.spec if isinstance(spec, MLModel) else spec
        if not isinstance(message, model_pb2.Model):
            raise SpecError(f"add_model takes an MLModel or its message, not {type(spec).__name__}")
        self._models.add().CopyFrom(message)
        self.spec.specificationVersion = max(
            self.spec.specificationVersion, message.specificationVersion, versions.required(message)
        )

    def make_updatable(self) -> None:
        """Allow apps to train the last model, which has to be updatable, unlike the others.

        Raises:
            SpecError: the last model is not updatable, or another one is.
        """
        updatable = [model.isUpdatable for model in self._models]
        if not updatable or not updatable[-1]:
            raise SpecError(
                "the last model of an updatable pipeline must be updatable; this one is not"
            )
        if any(updatable[:-1]):
            raise SpecError(
                f"model {updatable.index(True)} is updatable, and only the last one may be: "
                "see mlferry.models.utils.without_training"
            )
        self.spec.isUpdatable = True

    def set_training_input(self, training_input: Features) -> None:
        """Add training inputs of the last model: pairs of a name and a type."""
        training_inputs(self.spec, training_input)


class PipelineRegressor(Pipeline):
    """A pipeline that makes one number; see `Pipeline`.

    Args:
        input_features: pairs of a name and a type of `datatypes`.
        output_features: one pair of a name and `datatypes.Double()`, or its name.
        training_features: the training inputs of the last model, as pairs.

    Raises:
        SpecError: several outputs, or one that is not a number.
    """

    kind = "pipelineRegressor"

    def __init__(
        self,
        input_features: Features,
        output_features: Features | str,
        training_features: Features | None = None,
    ) -> None:
        if isinstance(output_features, str):
            output_features = [(output_features, Double())]
        outputs = pairs(output_features)
        if len(outputs) != 1 or normalized(outputs[0][1]) != Double():
            raise SpecError(f"a regressor has one output, a Double(), not {outputs}")
        super().__init__(input_features, outputs, training_features)
        self.spec.description.predictedFeatureName = outputs[0][0]


class PipelineClassifier(Pipeline):
    """A pipeline that makes a label; see `Pipeline`.

    Args:
        input_features: pairs of a name and a type of `datatypes`.
        class_labels: all text, or all integers.
        output_features: the names of the label and of the probabilities, or pairs with their
            types, or the label alone; by default "classLabel" and "classProbability".
        training_features: the training inputs of the last model, as pairs.

    Raises:
        SpecError: labels of several types, or outputs of other types than the labels.
    """

    kind = "pipelineClassifier"

    def __init__(
        self,
        input_features: Features,
        class_labels: Sequence[str] | Sequence[int],
        output_features: str | Sequence[str | tuple[str, Any]] | None = None,
        training_features: Features | None = None,
    ) -> None:
        labels: list[Any] = list(class_labels)
        kinds = {type(label) for label in labels}
        if kinds not in ({str}, {int}):
            raise SpecError("class labels are all text, or all integers, and one or more")
        key = String() if kinds == {str} else Int64()
        outputs = _outputs(output_features, key)
        super().__init__(input_features, outputs, training_features)
        description = self.spec.description
        description.predictedFeatureName = outputs[0][0]
        for name, _ in outputs[1:]:
            description.predictedProbabilitiesName = name


def _outputs(
    features: str | Sequence[str | tuple[str, Any]] | None, key: object
) -> list[tuple[str, Any]]:
    """The label and, if there are any, the probabilities, with their types."""
    kinds = (key, Dictionary(key))
    if features is None or isinstance(features, str):
        features = [features or "classLabel", "classProbability"]
    listed = list(features)
    if len(listed) not in (1, 2):
        raise SpecError(f"a classifier outputs a label and probabilities, not {listed}")
    outputs = []
    for item, kind in zip(listed, kinds, strict=False):
        name, datatype = (item, kind) if isinstance(item, str) else pairs([item])[0]
        if normalized(datatype) != kind:
            raise SpecError(f"the labels make {name!r} a {kind}, not a {datatype}")
        outputs.append((name, kind))
    return outputs
