"""Make models of models: parts, pipelines, other types of inputs and outputs, class labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from mlferry.errors import SpecError, ValidationError
from mlferry.layers import versions
from mlferry.layers.builder import write_classifier
from mlferry.layers.flexible import acceptance, flexible_axes, reasons_against
from mlferry.layers.trace import blob_shape, blob_shapes, trace
from mlferry.models import training
from mlferry.models.model import MLModel
from mlferry.models.problems import refuse_programs, validate
from mlferry.numerics.shapes import Shape, show
from mlferry.programs.values import Weights, joined_weights
from mlferry.registry import did_you_mean
from mlferry.runtime.custom import shapes_of_classes
from mlferry.spec import features, networks, sizes
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn


def _checked(
    spec: model_pb2.Model, like: Sequence[MLModel], subject: str, weights: Weights | None = None
) -> MLModel:
    """Make a model of a message that has no new problems; it runs like those that it is made of.

    Programs have the constants of `weights`, by default those of the first of them.

    Raises:
        ValidationError: it has new problems, or a layer no longer accepts the described inputs.
    """
    spec.specificationVersion = max(spec.specificationVersion, versions.required(spec))
    known = {str(problem) for model in like for problem in model._known_problems}
    problems = validate(spec, weights or like[0].program_weights)
    severe = [p for p in problems if p.severity != "note" and str(p) not in known]
    before = {text for model in like for text in _refusals(model.spec, [model])}
    refused = [text for text in _refusals(spec, like) if text not in before]
    if severe or refused:
        raise ValidationError(f"{subject} would have problems:", [*severe, *refused])
    return like[0].with_spec(spec, *like[1:], weights=weights)


def _refusals(spec: model_pb2.Model, like: Sequence[MLModel]) -> list[str]:
    """The layers of a model, and of those inside, that do not accept the described inputs."""
    classes = {name: cls for model in like for name, cls in model.custom_layers.items()}
    reasons: list[str] = []
    for each in networks.models_in(spec):
        network = networks.network_of(each)
        if network is not None:
            traced = trace(network, blob_shapes(each), shapes_of_classes(classes))
            reasons += map(str, traced.refusals)
    return reasons


def _network(spec: model_pb2.Model) -> networks.Network:
    network = networks.network_of(spec)
    if network is None:
        raise SpecError(f"a model of kind {spec.WhichOneof('Type')!r} has no layers and blobs")
    return network


# ---- parts ------------------------------------------------------------------------------------


def extract_submodel(
    model: MLModel, outputs: Sequence[str], inputs: Sequence[str] | None = None
) -> MLModel:
    """Extract the part of a network that computes some blobs from others.

    Args:
        model: a neural network.
        outputs: blobs, which become the outputs.
        inputs: blobs, which become the inputs; by default those of the model that are needed.

    Returns:
        a neural network; blobs that were no inputs or outputs are float32 multi-arrays.

    Raises:
        SpecError: there is no such blob, the outputs need other inputs, the shape of a blob
            is unknown (behind a custom layer without a registered class), or the model is
            updatable and the part would lose its loss.
    """
    spec = model.get_spec()
    network = _network(spec)
    shapes = trace(network, blob_shapes(spec), shapes_of_classes(model._classes.layers)).shapes
    for blob in (*outputs, *(inputs or ())):
        if blob not in shapes:
            raise SpecError(f"the network has no blob {blob!r}.{did_you_mean(blob, list(shapes))}")
    own = {feature.name: feature for feature in spec.description.input}
    layers, missing = _needed(network.layers, set(outputs), set(own if inputs is None else inputs))
    if inputs is None:
        inputs = [name for name in own if name in missing]
    unused = [name for name in inputs if name not in missing]
    if unused:
        raise SpecError(f"no layer needs {', '.join(map(repr, unused))} for the outputs")
    missing = missing - set(inputs)
    if missing:
        raise SpecError(
            f"{', '.join(map(repr, outputs))} also need {', '.join(map(repr, sorted(missing)))}; "
            "add them to inputs"
        )
    submodel = model_pb2.Model(specificationVersion=spec.specificationVersion)
    submodel.description.metadata.CopyFrom(spec.description.metadata)
    part = submodel.neuralNetwork
    part.layers.extend(layers)
    part.arrayInputShapeMapping = network.arrayInputShapeMapping
    part.imageInputShapeMapping = network.imageInputShapeMapping
    part.preprocessing.extend(p for p in network.preprocessing if p.featureName in inputs)
    described = {feature.name: feature for feature in spec.description.output}
    rank5 = versions.uses_rank5(network)
    for target, names, candidates in (
        (submodel.description.input, inputs, own),
        (submodel.description.output, outputs, described),
    ):
        for name in names:
            feature = target.add(name=name)
            if name in candidates and candidates[name].type.WhichOneof("Type") in _BLOB_TYPES:
                feature.CopyFrom(candidates[name])
            else:
                feature.type.CopyFrom(_array(name, shapes[name], rank5))
    inner = [name for name in inputs if name not in own]
    sizes.bind(submodel, inner, {name: len(shapes[name] or ()) for name in inner})
    training.carry_to_part(spec, submodel)
    return _checked(submodel, [model], "the part")


_BLOB_TYPES = ("multiArrayType", "imageType")


def _needed(
    layers: Iterable[nn.NeuralNetworkLayer], outputs: set[str], known: set[str]
) -> tuple[list[nn.NeuralNetworkLayer], set[str]]:
    """The layers that make blobs, and the blobs that nothing makes."""
    needed, remaining = set(outputs) - known, []
    for layer in reversed(list(layers)):
        reads, writes = networks.touched(layer)
        if not needed & writes:
            continue
        remaining.append(layer)
        if not networks.subnetworks(layer):
            needed -= writes
        needed |= reads - known
    own = {blob for layer in remaining for blob in networks.touched(layer)[1]}
    used = {blob for layer in remaining for blob in networks.touched(layer)[0]} | outputs
    return remaining[::-1], used - own


def _array(name: str, shape: Shape | None, rank5: bool) -> ft.FeatureType:
    if shape is None or None in shape:
        raise SpecError(
            f"the shape of blob {name!r} is {show(shape)}; an interface needs every extent"
        )
    if rank5:
        if shape[:2] != (1, 1):
            raise SpecError(f"blob {name!r} of shape {show(shape)} has a sequence or a batch")
        shape = shape[2:3] if shape[3:] == (1, 1) else shape[2:]
    return features.multi_array(shape)


# ---- pipelines --------------------------------------------------------------------------------


def make_pipeline(*models: MLModel) -> MLModel:
    """Chain models: outputs become inputs of the same name of later models.

    The pipeline's inputs are those that no earlier model makes, its outputs those of the last
    model. If the last model is a classifier, a regressor or updatable, so is the pipeline.

    Raises:
        SpecError: fewer than two models, an output that does not fit the input of its name, or
            a model that takes nothing from those before.
    """
    if len(models) < 2:
        raise SpecError("a pipeline needs at least two models")
    specs, weights = joined_weights([(model.spec, model.program_weights) for model in models])
    last = specs[-1]
    joined = model_pb2.Model(specificationVersion=max(s.specificationVersion for s in specs))
    kind = _pipeline_kind(last)
    holder = getattr(joined, kind)
    pipeline = holder if kind == "pipeline" else holder.pipeline
    made_by: dict[str, ft.FeatureType] = {}
    inputs: dict[str, model_pb2.FeatureDescription] = {}
    for index, spec in enumerate(specs):
        links = [f.name for f in spec.description.input if f.name in made_by]
        if index and not links:
            listed = ", ".join(feature.name for feature in spec.description.input)
            raise SpecError(
                f"model {index + 1} takes {listed}; the models before make "
                f"{', '.join(made_by)}. Rename one with rename_feature"
            )
        for feature in spec.description.input:
            before = made_by.get(feature.name) or (
                inputs[feature.name].type if feature.name in inputs else None
            )
            if before is not None and not _fits(before, feature.type):
                raise SpecError(
                    f"{feature.name!r} is {features.show(before)} before model {index + 1}, "
                    f"which takes {features.show(feature.type)}"
                )
            if before is None:
                inputs[feature.name] = feature
        made_by |= {feature.name: feature.type for feature in spec.description.output}
        pipeline.models.add().CopyFrom(spec)
        pipeline.names.append(f"model_{index + 1}")
    joined.description.input.extend(inputs.values())
    joined.description.output.extend(last.description.output)
    joined.description.predictedFeatureName = last.description.predictedFeatureName
    joined.description.predictedProbabilitiesName = last.description.predictedProbabilitiesName
    training.carry_to_pipeline(joined, last)
    return _checked(joined, models, "the pipeline", weights)


def _pipeline_kind(spec: model_pb2.Model) -> str:
    """Copy a classifier's predicted feature and labels, or a regressor's predicted feature."""
    kind = spec.WhichOneof("Type") or ""
    for role in ("Classifier", "Regressor"):
        if kind.endswith(role):
            return f"pipeline{role}"
    return "pipeline"


def _fits(output: ft.FeatureType, input: ft.FeatureType) -> bool:
    kind = output.WhichOneof("Type")
    if kind != input.WhichOneof("Type"):
        return {kind, input.WhichOneof("Type")} <= {"int64Type", "doubleType"}
    if kind == "multiArrayType":
        one, other = output.multiArrayType, input.multiArrayType
        fixed = other.WhichOneof("ShapeFlexibility") is None and one.shape and other.shape
        return not fixed or list(one.shape) == list(other.shape)
    if kind == "imageType" and input.imageType.WhichOneof("SizeFlexibility") is None:
        a, b = output.imageType, input.imageType
        return (a.height, a.width, a.colorSpace) == (b.height, b.width, b.colorSpace)
    return True


# ---- types and labels -------------------------------------------------------------------------


def change_input_output_types(model: MLModel, types: Mapping[str, str | ft.FeatureType]) -> MLModel:
    """Copy a model with other types of inputs and outputs.

    Args:
        model: the model.
        types: by feature: the type of a multi-array's numbers ("float32", "float64", "int32",
            "float16"), for multi-arrays [1, C, H, W] or [C, H, W] of a network "RGB", "BGR" or
            "GRAYSCALE" to make an image of it, "float32" for an image to make a multi-array
            of it, or a feature type as `mlferry.spec.features` makes them.

    Raises:
        SpecError: there is no such feature, or the type does not fit it.
        ValidationError: the model would break the format's rules.
        UnsupportedModelError: the model is an ML Program.
    """
    refuse_programs(
        model.spec,
        "changing the types of inputs and outputs",
        "the operations of a program contain its types; convert the source again with the new ones",
    )
    spec = model.get_spec()
    described = {f.name: f for f in (*spec.description.input, *spec.description.output)}
    had_images = any(feature.type.HasField("imageType") for feature in spec.description.input)
    for name, asked_type in types.items():
        if name not in described:
            close = did_you_mean(name, list(described))
            raise SpecError(f"the model has no input or output {name!r}.{close}")
        new_type = _new_type(name, described[name].type, asked_type, spec)
        if any(feature.name == name for feature in model.spec.description.input):
            _check_size(model, name, new_type)
        described[name].type.CopyFrom(new_type)
        training.set_type(spec, name, described[name].type)
    network = networks.network_of(spec)
    if network is not None and network.arrayInputShapeMapping != 0 and not had_images:
        network.imageInputShapeMapping = nn.RANK4_IMAGE_MAPPING
    return _checked(spec, [model], "the model")


def _check_size(model: MLModel, name: str, new_type: ft.FeatureType) -> None:
    """Raise a `SpecError` if an input gets a size or ranges that the layers do not accept."""
    network = networks.network_of(model.spec)
    if network is None:
        return
    old = next(f.type for f in model.spec.description.input if f.name == name)
    custom = shapes_of_classes(model.custom_layers)
    before, now = blob_shape(old, network), blob_shape(new_type, network)
    if before is not None and now is not None and len(before) == len(now) and before != now:
        size = now[-2:] if old.HasField("imageType") else now[-len(old.multiArrayType.shape) :]
        extents = tuple(extent for extent in size if extent is not None)
        reasons = reasons_against(model.spec, {name: extents}, custom)
        if reasons:
            raise SpecError(
                f"the layers do not take {name!r} as {features.show(new_type)}: {reasons[0]}"
            )
    new = flexible_axes(new_type) - flexible_axes(old)
    if new:
        spec = model.get_spec()
        next(f for f in spec.description.input if f.name == name).type.CopyFrom(new_type)
        broken = [
            str(axis)
            for axis in acceptance(spec, custom, new={name: new}).axes
            if axis.input == name and not axis.is_whole
        ]
        if broken:
            raise SpecError(
                "the layers do not take all of these sizes:\n  - " + "\n  - ".join(broken)
            )


def _new_type(
    name: str, old: ft.FeatureType, target: str | ft.FeatureType, spec: model_pb2.Model
) -> ft.FeatureType:
    if not isinstance(target, str):
        return target
    new_type = ft.FeatureType()
    new_type.CopyFrom(old)
    kind = old.WhichOneof("Type")
    if target in features.ARRAY_TYPES:
        if kind == "imageType":
            network, image = _network(spec), old.imageType
            channels = features.CHANNELS[features.LAYOUTS[image.colorSpace]]
            plane = (channels, image.height, image.width)
            exact = network.arrayInputShapeMapping != 0
            return features.multi_array((1, *plane) if exact else plane, target)
        if kind != "multiArrayType":
            raise SpecError(f"{name!r} is {features.show(old)}; {target} is for multi-arrays")
        new_type.multiArrayType.dataType = features.ARRAY_TYPES[target]
        return new_type
    if target not in features.COLOR_SPACES:
        types = ", ".join((*features.ARRAY_TYPES, *features.COLOR_SPACES))
        raise SpecError(f"the type {target!r} of {name!r} is none of {types}")
    if kind == "imageType":
        channels = features.CHANNELS[features.LAYOUTS[old.imageType.colorSpace]]
        if features.CHANNELS[target] != channels:
            raise SpecError(
                f"{name!r} is {features.show(old)}, of {channels} channels; an image {target} has "
                f"{features.CHANNELS[target]}, which the network does not "
                f"{'take' if any(f.name == name for f in spec.description.input) else 'make'}"
            )
        new_type.imageType.colorSpace = features.COLOR_SPACES[target]
        return new_type
    shape = tuple(old.multiArrayType.shape)
    channels = features.CHANNELS[target]
    if shape[-3:-2] != (channels,) or (len(shape) != 3 and shape[:-3] != (1,)):
        raise SpecError(
            f"{name!r} is {features.show(old)}; an image {target} comes from an array "
            f"[1, {channels}, height, width], or [{channels}, height, width]"
        )
    return features.image(shape[-1], shape[-2], target)


def attach_class_labels(
    model: MLModel,
    class_labels: Sequence[str] | Sequence[int],
    predicted_feature_name: str = "classLabel",
    probabilities: str | None = None,
) -> MLModel:
    """Make a classifier of a network, or give a classifier other labels.

    Args:
        model: a network with an output of probabilities, or a classifier.
        class_labels: in the order of the probabilities, all text or all integers.
        predicted_feature_name: of the output with the likeliest label.
        probabilities: the output with the probabilities; by default the only one.

    Raises:
        SpecError: the labels are too few or too many, or it is not clear which output is meant.
    """
    spec = model.get_spec()
    network = _network(spec)
    if not class_labels or len({type(label) for label in class_labels}) != 1:
        raise SpecError("class labels are text or integers, all of one kind, and at least one")
    if isinstance(network, nn.NeuralNetworkClassifier):
        which = "stringClassLabels" if isinstance(class_labels[0], str) else "int64ClassLabels"
        if which != network.WhichOneof("ClassLabels"):
            raise SpecError(
                f"the classifier has {network.WhichOneof('ClassLabels')}: labels keep their kind"
            )
        holder = getattr(network, which)
        if len(holder.vector) != len(class_labels):
            raise SpecError(f"{len(class_labels)} labels for {len(holder.vector)} classes")
        del holder.vector[:]
        holder.vector.extend(class_labels)
        return _checked(spec, [model], "the classifier")
    outputs = [feature.name for feature in spec.description.output]
    if probabilities is None and len(outputs) == 1:
        probabilities = outputs[0]
    if probabilities not in outputs:
        raise SpecError(f"probabilities={probabilities!r}: it is one of {', '.join(outputs)}")
    feature = next(f for f in spec.description.output if f.name == probabilities)
    shape: Shape | None = tuple(feature.type.multiArrayType.shape)
    if not shape:  # it varies: of the described inputs
        custom = shapes_of_classes(model._classes.layers)
        shape = trace(network, blob_shapes(spec), custom).shapes.get(probabilities)
    size = None if shape is None or None in shape else math.prod(n or 0 for n in shape)
    if size not in (None, len(class_labels)):
        raise SpecError(f"{len(class_labels)} labels for {size} values of {probabilities!r}")
    plain = nn.NeuralNetwork()  # writing the classifier clears the network of the message
    plain.ParseFromString(network.SerializeToString())
    write_classifier(
        spec,
        plain,
        {
            "labels": list(class_labels),
            "blob": probabilities,
            "label_name": predicted_feature_name,
            "probabilities_name": probabilities,
        },
    )
    training.label_target(spec, probabilities)
    return _checked(spec, [model], "the classifier")
