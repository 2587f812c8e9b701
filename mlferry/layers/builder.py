"""Build a Core ML neural network layer by layer.

`Builder.layer` is driven by the schema: a layer's kind and parameters have Core ML's own
names, whatever the kind, and the shapes of its outputs are known as soon as it is added::

    builder = Builder()
    builder.input("image", (1, 3, 224, 224))
    builder.layer("activation", "relu_1", ["image"], ["y"], ReLU={})
    builder.output("y")
    spec = builder.model()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from mlferry.errors import SpecError, context
from mlferry.layers import definitions as shapes, versions
from mlferry.layers.params import Params
from mlferry.layers.recurrent.definition import RECURRENT
from mlferry.numerics.shapes import Shape
from mlferry.registry import did_you_mean
from mlferry.spec import features, fields, networks, weights
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn
from mlferry.text import numbered

LAYER_KINDS: tuple[str, ...] = tuple(
    field.name for field in nn.NeuralNetworkLayer.DESCRIPTOR.oneofs_by_name["layer"].fields
)


class Builder:
    """Layers, inputs and outputs of one network, in exact array mapping."""

    def __init__(self) -> None:
        self._spec = model_pb2.Model()
        self.network = self._spec.neuralNetwork
        self.network.arrayInputShapeMapping = nn.EXACT_ARRAY_MAPPING
        self.network.imageInputShapeMapping = nn.RANK4_IMAGE_MAPPING
        self.description = self._spec.description
        self.shapes: dict[str, Shape | None] = {}
        self._names: set[str] = set()
        self._inner: set[str] = set()
        self._bytes = 0

    def layer(
        self,
        kind: str,
        name: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        output_shapes: Sequence[Shape] | None = None,
        **params: Any,
    ) -> nn.NeuralNetworkLayer:
        """Add a layer.

        Args:
            kind: Core ML's name of the layer kind, e.g. ``"innerProduct"``.
            name: name of the layer; no other layer may have it.
            inputs: blobs that it reads; each must exist.
            outputs: blobs that it makes; none may exist, except that a copy may overwrite one.
            output_shapes: shapes of the outputs, if no rule knows them (custom layers).
            params: fields of the layer's parameters; see `mlferry.spec.fields.fill`.

        Raises:
            SpecError: an unknown kind, field or blob, a name used twice, or shapes that do
                not fit the layer.
        """
        with context(f"adding {kind} {name!r}"):
            self._check(kind, name, inputs, outputs)
            self._bytes += sum(map(stored_bytes, params.values()))
            weights.check_room(self._bytes)
            # filled in place: appending a message would copy its weights
            layer = self.network.layers.add(name=name, input=inputs, output=outputs)
            try:
                message = getattr(layer, kind)
                message.SetInParent()
                fields.fill(message, params)
                inferred: Sequence[Shape] | None = output_shapes
                if inferred is None and kind != "custom":
                    input_shapes = [self.shapes[blob] for blob in inputs]
                    inferred = shapes.infer(Params.of(layer), input_shapes)
                least = 1 if kind in RECURRENT else len(inferred or ())
                if inferred is not None and not least <= len(outputs) <= len(inferred):
                    raise SpecError(f"it makes {len(inferred)} outputs, {len(outputs)} are named")
            except Exception:
                del self.network.layers[-1]
                raise
            self._names.add(name)
            for index, blob in enumerate(outputs):
                self.shapes[blob] = None if inferred is None else tuple(inferred[index])
        return layer

    def _check(self, kind: str, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        if kind not in LAYER_KINDS:
            kinds = list(LAYER_KINDS)
            raise SpecError(f"there is no layer kind {kind!r}.{did_you_mean(kind, kinds)}")
        if name in self._names:
            raise SpecError(f"there is a layer {name!r} already")
        for blob in inputs:
            if blob not in self.shapes:
                close = did_you_mean(blob, list(self.shapes))
                raise SpecError(f"no layer or input before it makes the blob {blob!r}.{close}")
        for index, blob in enumerate(outputs):
            exists = kind != "copy" and (blob in self.shapes or blob in self._inner)
            if exists or blob in outputs[:index]:
                raise SpecError(f"the blob {blob!r} exists already")

    @contextmanager
    def inside(self, *, kept: bool = True) -> Iterator[nn.NeuralNetwork]:
        """Add the layers of a `with` block to a separate network, for a branch or a loop.

        They see the blobs around it; their own are not visible outside, see `made_inside`.

        Args:
            kept: whether the network will be used; otherwise its names are free again.
        """
        outer, shapes_outside, names = self.network, dict(self.shapes), set(self._names)
        size = self._bytes
        self.network = nn.NeuralNetwork()
        try:
            yield self.network
        finally:
            self.network = outer
            if kept:
                self._inner |= self.shapes.keys() - shapes_outside.keys()
            else:
                self._names, self._bytes = names, size
            self.shapes.clear()
            self.shapes.update(shapes_outside)

    def made_inside(self, blob: str, shape: Shape | None) -> None:
        """Declare a blob that a branch or a loop always makes."""
        self.shapes[blob] = shape

    def input(self, name: str, shape: Shape, feature: features.FeatureType | None = None) -> None:
        """Add an input: a float32 multi-array of this shape, unless `feature` says otherwise."""
        if name in self.shapes:
            raise SpecError(f"there is an input {name!r} already")
        described = self.description.input.add(name=name)
        described.type.CopyFrom(feature or features.multi_array(shape))
        self.shapes[name] = shape

    def output(
        self, name: str, feature: features.FeatureType | None = None, description: str = ""
    ) -> None:
        """Make a blob an output of the model.

        Raises:
            SpecError: there is no such blob, or it is an output already.
        """
        if name not in self.shapes:
            raise SpecError(f"no blob {name!r}.{did_you_mean(name, list(self.shapes))}")
        if any(name == output.name for output in self.description.output):
            raise SpecError(f"{name!r} is an output already")
        described = self.description.output.add(name=name, shortDescription=description)
        described.type.CopyFrom(feature or features.multi_array(self.shapes[name]))

    def shapes_at(self, inputs: Mapping[str, Shape]) -> dict[str, Shape | None]:
        """The shapes of all blobs for other shapes of the inputs.

        Raises:
            SpecError: a layer does not accept them.
        """
        entries: dict[str, Shape | None] = {
            feature.name: inputs.get(feature.name, self.shapes[feature.name])
            for feature in self.description.input
        }
        for layer in self.network.layers:
            input_shapes = [entries.get(blob) for blob in layer.input]
            custom = layer.WhichOneof("layer") == "custom"
            inferred = None if custom else shapes.infer(Params.of(layer), input_shapes)
            for index, blob in enumerate(layer.output):
                entries[blob] = (
                    self.shapes.get(blob) if inferred is None else tuple(inferred[index])
                )
        return entries

    def is_taken(self, name: str) -> bool:
        """Whether a layer or a blob has this name."""
        return name in self._names or name in self.shapes or name in self._inner

    def unused_blob(self, name: str) -> str:
        """`name`, or `name` with a number appended, that no blob has."""
        return numbered(name, lambda each: each in self.shapes or each in self._inner)

    def unused_layer(self, name: str) -> str:
        """`name`, or `name` with a number appended, that no layer has."""
        return numbered(name, self._names.__contains__)

    def is_input(self, name: str) -> bool:
        """Whether a blob is an input of the network."""
        return any(feature.name == name for feature in self.description.input)

    def rename_output(self, layer: nn.NeuralNetworkLayer, old: str, new: str) -> None:
        """Rename an output of a layer that no other layer reads yet, to a name that no blob has."""
        layer.output[list(layer.output).index(old)] = new
        self.shapes[new] = self.shapes.pop(old)

    def rename_blob(self, old: str, new: str) -> None:
        """Rename a blob that a layer makes.

        Raises:
            SpecError: there is no such blob, the new name is taken, or the blob is an input.
        """
        if old not in self.shapes:
            raise SpecError(f"no blob {old!r}.{did_you_mean(old, list(self.shapes))}")
        if self.is_input(old):
            raise SpecError(f"{old!r} is an input of the network and keeps its name")
        if new in self.shapes or new in self._inner - {old}:
            raise SpecError(f"the blob {new!r} exists already")
        networks.rename_blob(self.network, old, new)
        self.shapes[new] = self.shapes.pop(old)

    def prune(self, keep: Iterable[str]) -> None:
        """Drop layers that none of the blobs in `keep` depends on."""
        needed = set(keep)
        for index in range(len(self.network.layers) - 1, -1, -1):
            layer = self.network.layers[index]
            reads, writes = networks.touched(layer)
            if needed & writes:
                needed |= reads
            else:
                self._names.discard(layer.name)
                for blob in layer.output:
                    self.shapes.pop(blob, None)
                del self.network.layers[index]

    def classifier(
        self,
        labels: Sequence[str] | Sequence[int],
        probabilities: str,
        *,
        predicted_feature_name: str = "classLabel",
        predicted_probabilities_name: str | None = None,
    ) -> Mapping[str, Any]:
        """The data that `model` needs to write a classifier."""
        if probabilities not in self.shapes:
            blobs = list(self.shapes)
            raise SpecError(
                f"no blob {probabilities!r} for the probabilities."
                + did_you_mean(probabilities, blobs)
            )
        if len(labels) == 0:
            raise SpecError("a classifier needs class labels; none are given")
        return {
            "labels": list(labels),
            "blob": probabilities,
            "label_name": predicted_feature_name,
            "probabilities_name": predicted_probabilities_name or probabilities,
        }

    def model(self, classifier: Mapping[str, Any] | None = None) -> model_pb2.Model:
        """The whole model, with the smallest specification version that its features need."""
        spec = model_pb2.Model()
        if classifier is None:
            spec.CopyFrom(self._spec)
        else:
            spec.description.CopyFrom(self.description)
            write_classifier(spec, self.network, classifier)
        spec.specificationVersion = versions.required(spec)
        return spec

    def finished(self, classifier: Mapping[str, Any] | None = None) -> model_pb2.Model:
        """As `model`, without copying the weights; the builder cannot be used again."""
        if classifier is not None:
            return self.model(classifier)
        self._spec.specificationVersion = versions.required(self._spec)
        return self._spec


def write_classifier(
    spec: model_pb2.Model,
    network: nn.NeuralNetwork | nn.NeuralNetworkRegressor,
    classifier: Mapping[str, Any],
) -> None:
    """Make a classifier of a network; `classifier` comes from `Builder.classifier`."""
    target = spec.neuralNetworkClassifier
    target.layers.extend(network.layers)
    target.preprocessing.extend(network.preprocessing)
    target.arrayInputShapeMapping = network.arrayInputShapeMapping
    target.imageInputShapeMapping = network.imageInputShapeMapping
    if network.HasField("updateParams"):
        target.updateParams.CopyFrom(network.updateParams)
    target.labelProbabilityLayerName = classifier["blob"]
    labels = classifier["labels"]
    strings = isinstance(labels[0], str)
    (target.stringClassLabels if strings else target.int64ClassLabels).vector.extend(labels)
    description = spec.description
    description.predictedFeatureName = classifier["label_name"]
    description.predictedProbabilitiesName = classifier["probabilities_name"]
    others = [out for out in description.output if out.name != classifier["blob"]]
    del description.output[:]
    chances = description.output.add(name=classifier["probabilities_name"])
    chances.type.CopyFrom(features.dictionary(strings))
    label = description.output.add(name=classifier["label_name"])
    label.type.CopyFrom(features.string() if strings else features.int64())
    description.output.extend(others)


def stored_bytes(value: object) -> int:
    """The size of the arrays of a layer's parameter in a file, in bytes."""
    if isinstance(value, np.ndarray):
        return value.size * {"float16": 2, "uint8": 1}.get(str(value.dtype), 4)
    if isinstance(value, weights.Linear):
        return value.indices.size * value.bits // 8
    if isinstance(value, Mapping):
        return sum(map(stored_bytes, value.values()))
    return sum(map(stored_bytes, value)) if isinstance(value, list | tuple) else 0
