"""Turn a network with custom layers into a pipeline of programs and of networks of custom layers.

ML Programs have no custom layers. The layers around custom layers become programs, and the custom
layers stay in small neural networks between them, in as few parts as the order allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlferry.errors import ExportError
from mlferry.exporters.ends import outputs_of
from mlferry.exporters.liveness import read_first
from mlferry.exporters.program import ProgramOptions, to_program
from mlferry.exporters.program.interface import program_names
from mlferry.layers import versions
from mlferry.layers.flexible import flexible_axes, varying_shape
from mlferry.layers.trace import CustomShapes, blob_shapes, trace
from mlferry.models.rename import rename_feature
from mlferry.numerics.shapes import Shape, show
from mlferry.programs.builder import sanitized
from mlferry.programs.values import Weights, joined_weights
from mlferry.spec import features, networks, sizes
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn

Layers = list[nn.NeuralNetworkLayer]
_FLOATS = ("float32", "float64")


def has_custom_layers(spec: model_pb2.Model) -> bool:
    """Whether a network has custom layers, in branches and loops too."""
    network = networks.network_of(spec)
    return network is not None and any(map(_is_custom, network.layers))


def _is_custom(layer: nn.NeuralNetworkLayer) -> bool:
    """Whether a layer is a custom one, or has one in its networks."""
    inner = [each for body in networks.subnetworks(layer) for each in body.layers]
    return layer.WhichOneof("layer") == "custom" or any(map(_is_custom, inner))


@dataclass(eq=False)
class ModelPart:
    """Layers that form one model.

    Attributes:
        custom: whether it stays a network.
        layers: in their order.
        reads: the blobs that they get from outside.
        makes: the blobs that they make.
    """

    custom: bool
    layers: Layers = field(default_factory=list)
    reads: set[str] = field(default_factory=set)
    makes: set[str] = field(default_factory=set)

    def add(self, layer: nn.NeuralNetworkLayer) -> None:
        """One more layer."""
        reads, _ = read_first([layer])
        self.layers.append(layer)
        self.reads |= reads - self.makes
        self.makes |= networks.touched(layer)[1]


def parts_of(layers: Sequence[nn.NeuralNetworkLayer]) -> list[ModelPart]:
    """Split layers into as few parts as possible, each of custom layers only or of others only.

    A part takes every layer whose inputs are available, in any position. If a blob is made twice,
    the order of the layers stays.
    """
    blobs = [blob for layer in layers for blob in networks.touched(layer)[1]]
    movable = len(blobs) == len(set(blobs))
    left, parts = list(layers), list[ModelPart]()
    custom = bool(left) and _is_custom(left[0])
    while left:
        part, waiting = ModelPart(custom), Layers()
        blocked: set[str] = set()
        for index, layer in enumerate(left):
            reads, writes = networks.touched(layer)
            if _is_custom(layer) != custom or reads & blocked:
                if not movable:
                    waiting = left[index:]
                    break
                waiting.append(layer)
                blocked |= writes
            else:
                part.add(layer)
        if part.layers:
            parts.append(part)
        left, custom = waiting, not custom
    return parts


def to_pipeline(
    spec: model_pb2.Model,
    options: ProgramOptions,
    custom: CustomShapes,
    known: Mapping[str, Shape | None],
) -> tuple[model_pb2.Model, Weights]:
    """The pipeline of a network with custom layers, and the weights of its programs.

    Args:
        spec: the network.
        options: of the programs.
        custom: tells the output shapes of custom layers.
        known: shapes of blobs known from elsewhere.

    Raises:
        ExportError: the shape of a blob between two parts is not known, or varies.
        UnsupportedLayersError: layers that no ops can express.
    """
    network = networks.network_of(spec)
    assert network is not None
    varying = {
        feature.name: varying_shape(feature.type)
        for feature in spec.description.input
        if flexible_axes(feature.type)
    }
    shapes = dict(known) | {
        name: shape
        for name, shape in trace(network, blob_shapes(spec, varying), custom).shapes.items()
        if shape is not None
    }
    splitter = _Splitter(spec, network, parts_of(network.layers), shapes)
    return splitter.pipeline(options)


class _Splitter:
    def __init__(
        self,
        spec: model_pb2.Model,
        network: networks.Network,
        parts: list[ModelPart],
        shapes: Mapping[str, Shape | None],
    ) -> None:
        self._spec, self._network, self._parts, self._shapes = spec, network, parts, shapes
        self._outputs = outputs_of(spec, network)
        self._described = {feature.name: feature for feature in spec.description.output}
        self._inputs = {feature.name: feature for feature in spec.description.input}
        self._names = program_names(spec.description)

    def pipeline(self, options: ProgramOptions) -> tuple[model_pb2.Model, Weights]:
        """The parts as models, one after the other."""
        self._check_mapping()
        self._check_shapes()
        self._check_described()
        self._check_branches()
        models: list[tuple[model_pb2.Model, Weights]] = []
        for part in self._parts:
            model = self._model(part, {*self._outputs.values(), *self._read_after(part)})
            if part.custom:
                models.append((model, Weights()))
            else:
                inner = [f.name for f in model.description.input if f.name not in self._inputs]
                models.append(to_program(model, replace(options, wide_inputs=inner)))
        specs, weights = joined_weights(models)
        return self._joined(specs), weights

    def _read_after(self, part: ModelPart) -> set[str]:
        """The blobs that later parts read."""
        later = self._parts[self._parts.index(part) + 1 :]
        return {blob for other in later for blob in other.reads}

    def _check_shapes(self) -> None:
        """Raise an `ExportError` that names all blobs between parts without a fixed shape."""
        own = {blob for part in self._parts for blob in part.makes}
        between = {blob for part in self._parts for blob in part.reads & own}
        lost = sorted(blob for blob in between if None in (self._shapes.get(blob) or (None,)))
        if not lost:
            return
        listed = ", ".join(f"{blob!r} {show(self._shapes.get(blob))}" for blob in lost)
        varying = [name for name, f in self._inputs.items() if flexible_axes(f.type)]
        advice = (
            f"The sizes of {', '.join(map(repr, varying))} vary: convert with fixed ones"
            if varying
            else "Register the classes of the custom layers with output_shapes before, or give "
            "CustomLayerParams(output_shapes=...)"
        )
        raise ExportError(
            "ML Programs have no custom layers, so a model with some becomes a pipeline, and "
            f"blobs between its models need fixed shapes; these have none: {listed}. {advice}"
        )

    def _check_mapping(self) -> None:
        """Raise an `ExportError` if parts would have another mapping than the whole."""
        mapping = self._network.arrayInputShapeMapping
        if mapping == nn.RANK5_ARRAY_MAPPING and not versions.uses_rank5(self._network):
            raise ExportError(
                "a network with custom layers becomes a pipeline, and this one cannot be taken "
                "apart: it has layers of iOS 13 or later, but the classic mapping of arrays; "
                "convert it to a neural network instead"
            )

    def _check_described(self) -> None:
        """Raise an `ExportError` if a later part reads an output that is not an array of floats."""
        for part in self._parts:
            for blob in sorted(part.makes & self._read_after(part) & self._described.keys()):
                kind = self._described[blob].type
                if features.DTYPES.get(kind.multiArrayType.dataType) not in _FLOATS:
                    raise ExportError(
                        f"output {blob!r} is a {features.show(kind)}, and layers in another part "
                        "of the pipeline around the custom layers read its blob, which has "
                        "fractions: make it a multi-array of float32"
                    )

    def _check_branches(self) -> None:
        """Raise an `ExportError` if a branch with custom layers may leave a blob unchanged."""
        for part in self._parts:
            for layer in part.layers if part.custom else ():
                inside = networks.touched(layer)[1]
                others = {
                    blob
                    for other in self._network.layers
                    if other.name != layer.name
                    for blob in networks.touched(other)[1]
                } | self._inputs.keys()
                unsure = sorted((inside - read_first([layer])[1]) & others)
                if unsure:
                    raise ExportError(
                        f"{layer.WhichOneof('layer')} {layer.name!r} has custom layers and may "
                        f"leave blob {unsure[0]!r} as it was, which a model of its own cannot: "
                        "make the blob in both of its branches"
                    )

    def _model(self, part: ModelPart, needed: set[str]) -> model_pb2.Model:
        """A part as a network of its own."""
        model = model_pb2.Model(specificationVersion=self._spec.specificationVersion)
        outputs = [blob for blob in self._ordered(part) if blob in needed]
        probabilities = self._probabilities(part)
        network = model.neuralNetworkClassifier if probabilities else model.neuralNetwork
        network.layers.extend(part.layers)
        network.arrayInputShapeMapping = self._network.arrayInputShapeMapping
        network.imageInputShapeMapping = self._network.imageInputShapeMapping
        inputs = [name for name in self._available() if name in part.reads]
        for step in self._network.preprocessing:
            if step.featureName in ("", *inputs):
                network.preprocessing.add().CopyFrom(step)
        for name in inputs:
            feature = model.description.input.add(name=name)
            if name in self._inputs:
                feature.CopyFrom(self._inputs[name])
            else:
                feature.type.CopyFrom(features.multi_array(self._blob_shape(name)))
        if probabilities:
            self._classify(model, probabilities)
        names = {blob: name for name, blob in self._outputs.items()}
        # the dictionary of probabilities may have the name of their blob
        arrays = self._described.keys() - {self._spec.description.predictedProbabilitiesName}
        for blob in outputs:
            name = names.get(blob, blob)
            if blob == probabilities and blob not in {*arrays, *self._read_after(part)}:
                continue
            feature = model.description.output.add(name=blob)
            if name == blob and name in self._described:
                feature.CopyFrom(self._described[name])
            if name != blob or name not in self._described or blob in self._read_after(part):
                feature.type.CopyFrom(features.multi_array(self._blob_shape(blob)))
        self._rename(model)
        model.specificationVersion = versions.required(model)
        record = sizes.read(self._spec)
        if record is not None and part.custom:
            sizes.write(model, {n: r for n, r in record.items() if n in inputs})
        return model

    def _available(self) -> list[str]:
        """Every blob that a part may read from outside, in a fixed order."""
        return [*self._inputs, *(blob for part in self._parts for blob in self._ordered(part))]

    @staticmethod
    def _ordered(part: ModelPart) -> list[str]:
        outputs = [b for layer in part.layers for b in sorted(networks.touched(layer)[1])]
        return list(dict.fromkeys(outputs))

    def _blob_shape(self, blob: str) -> Shape:
        """The shape that describes a blob: that of an array in the classic mapping."""
        shape = self._shapes.get(blob) or ()
        if versions.uses_rank5(self._network) and len(shape) == 5:
            if shape[:2] != (1, 1):
                raise ExportError(
                    f"blob {blob!r} of shape {show(shape)} has a sequence or a batch, which "
                    "nothing can describe between the models of a pipeline"
                )
            return shape[2:3] if shape[3:] == (1, 1) else shape[2:]
        return shape

    def _probabilities(self, part: ModelPart) -> str:
        """The blob of a classifier's probabilities, if the part makes it."""
        if not isinstance(self._network, nn.NeuralNetworkClassifier):
            return ""
        last = self._network.layers[-1].output[0]
        blob = self._network.labelProbabilityLayerName or last
        return blob if blob in part.makes else ""

    def _classify(self, model: model_pb2.Model, blob: str) -> None:
        assert isinstance(self._network, nn.NeuralNetworkClassifier)
        labels = self._network.WhichOneof("ClassLabels")
        if labels:
            getattr(model.neuralNetworkClassifier, labels).CopyFrom(getattr(self._network, labels))
        model.neuralNetworkClassifier.labelProbabilityLayerName = blob
        old, new = self._spec.description, model.description
        new.predictedFeatureName = old.predictedFeatureName
        new.predictedProbabilitiesName = old.predictedProbabilitiesName
        for name in (old.predictedFeatureName, old.predictedProbabilitiesName):
            if name in self._described:
                new.output.add().CopyFrom(self._described[name])

    def _rename(self, model: model_pb2.Model) -> None:
        """Give features names that programs can have, the same in every part."""
        for feature in [*model.description.input, *model.description.output]:
            new = self._name(feature.name)
            if new != feature.name:
                rename_feature(model, feature.name, new)

    def _name(self, name: str) -> str:
        if name not in self._names:
            new, number = sanitized(name), 0
            while new in self._names.values():
                number += 1
                new = f"{sanitized(name)}_{number}"
            self._names[name] = new
        return self._names[name]

    def _joined(self, specs: Sequence[model_pb2.Model]) -> model_pb2.Model:
        model = model_pb2.Model(specificationVersion=max(s.specificationVersion for s in specs))
        classifies = isinstance(self._network, nn.NeuralNetworkClassifier)
        pipeline = model.pipelineClassifier.pipeline if classifies else model.pipeline
        description = model.description
        description.CopyFrom(self._spec.description)
        made_by = {f.name: f for spec in specs for f in spec.description.output}
        for feature in description.input:
            feature.name = self._name(feature.name)
        for feature in description.output:
            feature.name = self._name(feature.name)
            feature.type.CopyFrom(made_by[feature.name].type)
        for field_name in ("predictedFeatureName", "predictedProbabilitiesName"):
            name = getattr(description, field_name)
            if name:
                setattr(description, field_name, self._name(name))
        for index, spec in enumerate(specs):
            pipeline.models.add().CopyFrom(spec)
            pipeline.names.append(f"part_{index + 1}")
        return model
