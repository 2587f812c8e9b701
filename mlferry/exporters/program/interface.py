"""The inputs and outputs of a network as those of a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mlferry.errors import ExportError
from mlferry.exporters.ends import described, ones_around, outputs_of, preprocessing
from mlferry.exporters.program.states import state_name
from mlferry.exporters.program.translation import Translation
from mlferry.layers import versions
from mlferry.layers.recurrent.definition import RECURRENT
from mlferry.numerics.shapes import Shape
from mlferry.programs.builder import NewerOpsetError, ProgramBuilder, list_of, sanitized
from mlferry.programs.graph import Value
from mlferry.programs.types import StateType, TensorType
from mlferry.spec import features, networks
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn
from mlferry.text import logger_of, paragraph, unused

logger = logger_of(__name__)

HALF_ENDS = 6  # the opset that brought inputs and outputs of float16, and image outputs
NO_INPUTS = 8  # the opset that brought programs without inputs
STATES = 8  # the opset that brought states
_ELEMENTS = {"float32": "fp32", "float64": "fp32", "int32": "int32", "float16": "fp16"}


def program_names(
    description: model_pb2.ModelDescription, states: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """The name of every input and output in a program; changed names are logged.

    Names in programs consist of letters, digits and _, and do not begin with a digit. Changed names
    of states, and of their next values, which are no longer outputs, are not logged.
    """
    names: dict[str, str] = {}
    used: set[str] = set()
    for feature in (*description.input, *description.output):
        if feature.name in names:
            continue
        original = state_name(feature.name) if feature.name in states else feature.name
        name = names[feature.name] = unused(sanitized(original), used)
        if name != original:
            logger.warning(
                "%r is called %r in the program: names there consist of letters, digits and _",
                feature.name,
                name,
            )
    return names


def check_inputs(description: model_pb2.ModelDescription) -> None:
    """Raise an `ExportError` that names all inputs which a program cannot have."""
    outputs = {feature.name for feature in description.output}
    problems = [
        f"input {feature.name!r} is also an output: remove it from description.output, or let a "
        "copy under another name be the output"
        for feature in description.input
        if feature.name in outputs
    ]
    for feature in description.input:
        kind = feature.type.WhichOneof("Type")
        if kind not in ("imageType", "multiArrayType", "doubleType", "int64Type"):
            problems.append(
                f"input {feature.name!r} is a {features.show(feature.type)}, not an array"
            )
            continue
        if kind == "multiArrayType" and not feature.type.multiArrayType.shape:
            problems.append(f"input {feature.name!r} is described without a shape")
        ranges = _ranges(feature.type)
        open_axes = [axis for axis, (_, upper) in enumerate(ranges) if upper < 0]
        if open_axes:
            problems.append(_without_bounds(feature, ranges, open_axes))
    if problems:
        raise ExportError("no program can have these inputs:\n  - " + "\n  - ".join(problems))


def with_one_step(spec: model_pb2.Model, network: networks.Network) -> str:
    """How to describe inputs that have one step in the program but any number in the network.

    In the classic mapping an input described as [C] may be given as [steps, batch, C]. The text is
    empty if no layer runs along the steps.
    """
    if not versions.uses_rank5(network) or not any(map(_works_along_sequence, network.layers)):
        return ""
    lines = []
    fed = {
        blob
        for layer in network.layers
        if layer.WhichOneof("layer") in RECURRENT
        for blob in layer.input[1:]
    }
    for index, feature in enumerate(spec.description.input):
        array = feature.type.multiArrayType
        fixed = len(array.shape) == 1 and not array.WhichOneof("ShapeFlexibility")
        if fixed and feature.name not in fed:
            lines.append(
                f"spec.description.input[{index}].type.multiArrayType.shape[:] = "
                f"[STEPS, 1, {array.shape[0]}, 1, 1]  # {feature.name}"
            )
    if not lines:
        return ""
    return (
        "in the network an input described by its channels alone may have any number of steps; in "
        "the program it has one. For another number, describe all five axes first:\n"
        + paragraph(f"    {line}" for line in ["spec = model.get_spec()", *lines])
        + "\n    mlferry.to_program(spec)"
    )


def _works_along_sequence(layer: nn.NeuralNetworkLayer) -> bool:
    kind = layer.WhichOneof("layer")
    return kind in RECURRENT or (kind == "permute" and layer.permute.axis[:1] != [0])


def _without_bounds(
    feature: model_pb2.FeatureDescription, ranges: list[tuple[int, int]], axes: list[int]
) -> str:
    """The error for an input whose extents have no upper bound, with the line to type."""
    bounded = [(low, high if high >= 0 else max(_LARGEST_SIZE, low)) for low, high in ranges]
    low, high = ([pair[place] for pair in bounded] for place in (0, 1))
    tools = "mlferry.models.flexible_shapes"
    if feature.type.HasField("imageType"):
        line = (
            f"{tools}.update_image_size_range(spec, {feature.name!r}, "
            f"{tools}.NeuralNetworkImageSizeRange({bounded[0]}, {bounded[1]}))"
        )
    else:
        line = f"{tools}.set_multiarray_ndshape_range(spec, {feature.name!r}, {low}, {high})"
    lower, upper = bounded[axes[0]]
    return (
        f"input {feature.name!r} has no largest size along axis "
        f"{', '.join(map(str, axes))}, which a program needs: convert with "
        f"RangeDim({lower}, {upper}), or spec = model.get_spec() and {line}"
    )


_LARGEST_SIZE = 1024  # an upper bound to suggest


def _ranges(feature: ft.FeatureType) -> list[tuple[int, int]]:
    """The bounds of the extents of an array, or of height and width, where they are ranges."""
    ranges: Sequence[ft.SizeRange] = feature.multiArrayType.shapeRange.sizeRanges
    if feature.WhichOneof("Type") == "imageType":
        bounds = feature.imageType.imageSizeRange
        present = feature.imageType.HasField("imageSizeRange")
        ranges = [bounds.heightRange, bounds.widthRange] if present else []
    return [(span.lowerBound, span.upperBound) for span in ranges]


# ---- inputs -------------------------------------------------------------------------------------


def add_inputs(
    translation: Translation,
    spec: model_pb2.Model,
    network: networks.Network,
    names: dict[str, str],
    result: model_pb2.ModelDescription,
    states: Mapping[str, str],
) -> None:
    """Add every input, turn it into a blob, and describe it.

    Args:
        names: what inputs are called in the program.
        result: the description of the program's model.
        states: the inputs that become states, each with the output that is its next value.
    """
    if not spec.description.input and translation.builder.opset < NO_INPUTS:
        raise NewerOpsetError("a model without inputs", NO_INPUTS)
    for feature in spec.description.input:
        if feature.name in states:
            _state_input(translation, feature, network, names, result)
            continue
        entry = result.input.add()
        entry.CopyFrom(feature)
        entry.name = names[feature.name]
        shape = described(feature.type)
        translation.builder.layer = entry.name
        if feature.type.WhichOneof("Type") == "imageType":
            _image_input(translation, feature, network, shape, entry)
        else:
            _array_input(translation, feature, network, shape, entry)


def _state_input(
    translation: Translation,
    feature: model_pb2.FeatureDescription,
    network: networks.Network,
    names: dict[str, str],
    result: model_pb2.ModelDescription,
) -> None:
    """Add a state of float16, the only type Core ML keeps, and read it in place of the input."""
    builder = translation.builder
    if builder.opset < STATES:
        raise NewerOpsetError("states", STATES)
    shape = described(feature.type)
    front, behind = ones_around(feature, network, shape)
    entry = result.state.add(name=names[feature.name])
    entry.type.stateType.arrayType.CopyFrom(
        features.multi_array(tuple(shape), "float16").multiArrayType
    )
    kind = StateType(TensorType("fp16", tuple(shape)))
    builder.layer = entry.name
    value = builder.as_float(builder.op("read_state", input=builder.input(entry.name, kind)))
    value = builder.expand(value, [*range(front), *range(-behind, 0)])
    translation.become(feature.name, value)


def _array_input(
    translation: Translation,
    feature: model_pb2.FeatureDescription,
    network: networks.Network,
    shape: list[int | None],
    entry: model_pb2.FeatureDescription,
) -> None:
    builder = translation.builder
    dtype = "float32"
    if feature.type.HasField("multiArrayType"):
        dtype = features.DTYPES.get(feature.type.multiArrayType.dataType, "float32")
        dtype = "float32" if dtype == "float64" else dtype
    else:
        shape = [1]
        entry.type.CopyFrom(features.multi_array((1,)))
        entry.type.isOptional = feature.type.isOptional
    if dtype not in _ELEMENTS:
        raise ExportError(f"input {feature.name!r} has values of {dtype}: float32 or int32")
    if dtype == "float16" and builder.opset < HALF_ENDS:
        raise NewerOpsetError("an input of float16", HALF_ENDS)
    entry.type.multiArrayType.dataType = features.ARRAY_TYPES[dtype]
    front, behind = ones_around(feature, network, shape)
    value = builder.input(entry.name, TensorType(_ELEMENTS[dtype], tuple(shape)))
    if value.dtype == "fp16":
        value = builder.as_float(value)
    if not shape and not versions.uses_rank5(network):
        value = builder.expand(value, [0])
    value = builder.expand(value, [*range(front), *range(-behind, 0)])
    translation.become(feature.name, value)


def _image_input(
    translation: Translation,
    feature: model_pb2.FeatureDescription,
    network: networks.Network,
    size: list[int | None],
    entry: model_pb2.FeatureDescription,
) -> None:
    """Add an image as [1, C, H, W], scaled and shifted by operations of the program."""
    builder, image = translation.builder, feature.type.imageType
    layout = features.LAYOUTS.get(image.colorSpace, "RGB")
    if layout == "GRAYSCALE_FLOAT16" and builder.opset < HALF_ENDS:
        raise NewerOpsetError("an image of float16", HALF_ENDS)
    channels = features.CHANNELS[layout]
    dtype = "fp16" if layout == "GRAYSCALE_FLOAT16" else "fp32"
    value: Value = builder.input(entry.name, TensorType(dtype, (1, channels, *size)))
    value = builder.as_float(value)
    for op, operand in preprocessing(network, feature.name, layout, value.shape):
        value = builder.op(op, x=value, y=operand)
    if network.imageInputShapeMapping == 0:
        value = builder.expand(value, [0])
    translation.become(feature.name, value)


# ---- outputs ------------------------------------------------------------------------------------


def add_outputs(
    translation: Translation,
    spec: model_pb2.Model,
    network: networks.Network,
    names: dict[str, str],
    result: model_pb2.ModelDescription,
    states: Mapping[str, str],
) -> None:
    """Turn blobs into outputs of the function, in the described types, and describe them."""
    builder, description = translation.builder, spec.description
    types = {feature.name: feature for feature in description.output}
    classifies = isinstance(network, nn.NeuralNetworkClassifier)
    label = description.predictedFeatureName if classifies else ""
    chances = description.predictedProbabilitiesName if classifies else ""
    blobs = outputs_of(spec, network)
    scores = next(iter(blobs)) if classifies else None
    values: dict[str, Value] = {}
    for name, blob in blobs.items():
        builder.layer = name
        value = translation.whole(blob)
        if name == scores:
            values |= _classified(builder, value, network, label, chances)
        if name in types and name not in (label, chances):
            values[name] = _as_described(translation, value, types[name])
    written = {following: name for name, following in states.items()}
    for feature in description.output:
        if feature.name in written:
            _write_state(translation, values[feature.name], names[written[feature.name]])
            continue
        entry = result.output.add()
        entry.CopyFrom(feature)
        entry.name = names[feature.name]
        value = values[feature.name]
        if feature.name not in (label, chances):
            _describe(entry, value)
        builder.block.outputs.append(_called(builder, value, entry.name))
    if classifies:
        result.predictedFeatureName = names.get(label, label)
        result.predictedProbabilitiesName = names.get(chances, chances)


def _write_state(translation: Translation, value: Value, name: str) -> None:
    builder = translation.builder
    state = next(each for each in builder.block.inputs if each.name == name)
    assert isinstance(state.type, StateType)
    wrapped = state.type.wrapped
    assert isinstance(wrapped, TensorType)
    shaped = builder.reshape(builder.as_float(value), [n or 0 for n in wrapped.shape or ()])
    builder.layer = f"{name}_next"
    builder.ops("write_state", input=state, data=builder.cast(shaped, "fp16"))


def _classified(
    builder: ProgramBuilder, value: Value, network: networks.Network, label: str, chances: str
) -> dict[str, Value]:
    """Add the likeliest label, and the probability of every label."""
    assert isinstance(network, nn.NeuralNetworkClassifier)
    labels = networks.class_labels(network)
    scores = builder.as_float(value)
    if scores.rank > 1:
        scores = builder.reshape(scores, [len(labels)])
    best, every = builder.ops("classify", probabilities=scores, classes=list_of(labels))
    return {name: value for name, value in ((label, best), (chances, every)) if name}


def _as_described(
    translation: Translation, value: Value, feature: model_pb2.FeatureDescription
) -> Value:
    """A blob in its type and shape as an output."""
    builder, kind = translation.builder, feature.type.WhichOneof("Type")
    if kind == "imageType":
        if builder.opset < HALF_ENDS:
            raise NewerOpsetError("an image output", HALF_ENDS)
        image = feature.type.imageType
        channels = features.CHANNELS[features.LAYOUTS.get(image.colorSpace, "RGB")]
        size = builder.extents(value)[-2:]
        return builder.reshape(builder.as_float(value), [1, channels, *size])
    dtype = "fp32"
    if kind == "multiArrayType":
        array_dtype = features.DTYPES.get(feature.type.multiArrayType.dataType, "float32")
        dtype = _ELEMENTS.get(array_dtype, "fp32")
        if dtype == "fp16" and builder.opset < HALF_ENDS:
            raise NewerOpsetError("an output of float16", HALF_ENDS)
    if translation.rank5:
        target: Shape = features.output_shape(feature.type, value.shape)
        if target != value.shape:
            value = builder.reshape(value, [n or 0 for n in target])
    if kind in ("doubleType", "int64Type"):
        return builder.reshape(builder.as_float(value), [1])
    return builder.cast(value, dtype)


def _describe(entry: model_pb2.FeatureDescription, value: Value) -> None:
    """Describe an output: a multi-array has the shape of its value, if that is known."""
    kind = entry.type.WhichOneof("Type")
    if kind in ("doubleType", "int64Type"):
        entry.type.CopyFrom(features.multi_array((1,)))
    elif kind == "multiArrayType":
        array = entry.type.multiArrayType
        dtype = {"fp32": "float32", "fp16": "float16", "int32": "int32"}[value.dtype]
        array.dataType = features.ARRAY_TYPES[dtype]
        del array.shape[:]
        array.ClearField("ShapeFlexibility")
        if value.is_fixed:
            array.shape.extend(n or 0 for n in value.shape)


def _called(builder: ProgramBuilder, value: Value, name: str) -> Value:
    """A value as an output under this name, made by an operation of the block."""
    own = value.maker is not None and value.maker in builder.block.operations
    if not own or value in builder.block.outputs:
        builder.layer = name
        value = builder.op("identity", x=value, folded=False)
    value.name = name
    return value
