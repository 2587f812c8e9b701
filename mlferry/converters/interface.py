"""The model's inputs and outputs: those of the source, changed as the user asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlferry import limits
from mlferry.converters import open_shapes, transposes
from mlferry.converters.graph import Graph, Value, distinct_names
from mlferry.converters.layout import arrange
from mlferry.converters.lowering import Lowering
from mlferry.converters.types import (
    ClassifierConfig,
    EnumeratedShapes,
    ImageType,
    RangeDim,
    TensorType,
)
from mlferry.converters.values import CHANNELS_FIRST, SCALAR, SOURCE, Blob, Constant
from mlferry.errors import ConversionError, SpecError
from mlferry.numerics.shapes import Shape, show
from mlferry.registry import did_you_mean
from mlferry.spec import features
from mlferry.spec.features import CHANNELS
from mlferry.spec.proto import features_pb2 as ft, model_pb2

InputType = TensorType | ImageType
OutputType = TensorType | ImageType | str


def bind_inputs(
    context: Lowering, inputs: Sequence[InputType] | None, *, takes_constants: bool
) -> None:
    """Add every input of the graph and bind it.

    Args:
        inputs: the user's types.
        takes_constants: whether the frontend's converters take known values; others receive blobs.

    Raises:
        ConversionError: types name inputs that do not exist, or shapes are unknown; all inputs are
            reported together.
    """
    chosen = _by_name(context.graph, inputs or ())
    missing = []
    bindings: dict[str, tuple[int, ...]] = {}
    for value in context.graph.inputs:
        kind = chosen.get(value.name) or TensorType()
        if isinstance(kind, TensorType) and kind.value is not None:
            _fix(context, value, kind.value, takes_constants)
            continue
        shape = _shape(value, kind)
        if shape is None:
            missing.append(value)
            continue
        bindings[value.name] = shape.default
        if isinstance(kind, ImageType):
            _bind_image(context, value, kind, shape)
        else:
            _bind_array(context, value, kind, shape)
    if missing:
        raise open_shapes.error(missing, context.graph, bindings)


def _fix(context: Lowering, value: Value, number: object, takes_constants: bool) -> None:
    """An input with a constant value."""
    dtype = value.dtype if value.dtype != "unknown" else "float32"
    try:
        array = np.asarray(number).astype(dtype)
    except (TypeError, ValueError) as error:
        raise ConversionError(f"value={number!r:.80} of input {value.name!r}: {error}") from error
    shape = value.shape
    if shape is not None and array.ndim == 0:
        array = np.full([1 if n is None else n for n in shape], array)
    fits = shape is None or (
        len(shape) == array.ndim
        and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    )
    if not fits:
        raise ConversionError(
            f"value of shape {array.shape} for input {value.name!r} of shape {show(shape or ())}"
        )
    context.give(value.name, array)
    if not takes_constants:
        context.start(value.name)
        context.bind(value, context.stored(Constant(value.name, array)))


def _by_name(graph: Graph, inputs: Sequence[InputType]) -> dict[str, InputType]:
    names = [value.name for value in graph.inputs]
    entries: dict[str, InputType] = {}
    for index, kind in enumerate(inputs):
        if not isinstance(kind, TensorType | ImageType):
            raise ConversionError(
                f"inputs is a list of mlferry.TensorType and mlferry.ImageType, not {kind!r}"
            )
        name = kind.name
        if name is None:
            if len(inputs) != len(names):
                raise ConversionError(
                    f"{graph.source} has {len(names)} inputs: give each type its name out of "
                    f"{', '.join(names)}"
                )
            name = names[index]
        if name not in names:
            raise graph.unknown("input", name, names)
        if name in entries:
            raise ConversionError(f"input {name!r} is given twice: {entries[name]} and {kind}")
        entries[name] = kind
    return entries


@dataclass(frozen=True)
class _Asked:
    """The shape of an input.

    Attributes:
        extents: fixed and flexible extents.
        choices: if only some shapes are allowed, all of them, the default first.
    """

    extents: tuple[int | RangeDim, ...]
    choices: tuple[tuple[int, ...], ...] = ()

    @property
    def default(self) -> tuple[int, ...]:
        """The default shape."""
        if self.choices:
            return self.choices[0]
        return tuple(
            (n.default or n.lower_bound) if isinstance(n, RangeDim) else n for n in self.extents
        )

    @property
    def known(self) -> Shape:
        """The shape, with None for an extent that may vary."""
        return tuple(None if isinstance(n, RangeDim) else n for n in self.extents)


def _shape(value: Value, kind: InputType) -> _Asked | None:
    """The batch is 1 by default; any other unknown extent makes the shape unknown."""
    choices: list[tuple[int, ...]] = []
    if isinstance(kind.shape, EnumeratedShapes):
        choices = kind.shape.ordered()
        values: Sequence[Any] = [_span(column) for column in zip(*choices, strict=True)]
    elif kind.shape is not None:
        values = kind.shape
    elif value.shape is not None:
        values = value.shape
    else:
        return None
    if value.shape is not None and kind.shape is not None:
        fits = len(values) == len(value.shape) and all(
            known is None or isinstance(extent, RangeDim) or extent in (known, None)
            for extent, known in zip(values, value.shape, strict=True)
        )
        if not fits:
            shown = [*choices] or tuple(values)
            raise ConversionError(
                f"input {value.name!r} has shape {show(value.shape)} (? is free), not {shown}"
            )
    shape = [1 if index == 0 and n is None else n for index, n in enumerate(values)]
    if any(n is None for n in shape):
        return None
    return _Asked(tuple(shape), tuple(choices) if len(choices) > 1 else ())


def _span(extents: Sequence[int]) -> int | RangeDim:
    """One extent that covers several shapes."""
    least, most = min(extents), max(extents)
    return least if least == most else RangeDim(least, most, extents[0])


def _bind_array(context: Lowering, value: Value, kind: TensorType, shape: _Asked) -> None:
    feature = features.multi_array(shape.default or (1,), kind.dtype or feature_dtype(value))
    array = feature.multiArrayType
    if shape.choices:
        for choice in shape.choices:
            array.enumeratedShapes.shapes.add(shape=choice)
    elif None in shape.known:
        for n in shape.extents:
            _set_range(array.shapeRange.sizeRanges.add(), n)
    known = shape.known or (1,)
    limits.check_blob(known)
    context.builder.input(value.name, known, feature)
    context.bind(value, Blob(value.name, known, SOURCE if shape.extents else SCALAR))


def _set_range(target: ft.SizeRange, extent: int | RangeDim) -> None:
    bounds = (
        (extent.lower_bound, extent.upper_bound)
        if isinstance(extent, RangeDim)
        else (extent, extent)
    )
    features.set_range(target, *bounds)


def feature_dtype(value: Value) -> str:
    """Core ML's type for a type of the source: integers and booleans become int32, double stays.

    Raises:
        ConversionError: Core ML has no such arrays.
    """
    if value.dtype.startswith(("int", "uint", "bool")):
        return "int32"
    if value.dtype in ("string", "complex64", "complex128"):
        raise ConversionError(f"{value.name!r} is of type {value.dtype}: no Core ML multi-array")
    return "float64" if value.dtype == "float64" else "float32"


def _is_channels_first(context: Lowering, kind: ImageType, shape: Shape) -> bool:
    """The layout that the user gives, else that of the source, or the only one that fits."""
    if kind.channel_first is not None:
        return kind.channel_first
    fits = [n in CHANNELS.values() for n in (shape[1], shape[-1])] if len(shape) == 4 else []
    usual = not context.graph.channels_last
    return fits[0] if fits in ([True, False], [False, True]) and not fits[not usual] else usual


def _bind_image(context: Lowering, value: Value, kind: ImageType, shape: _Asked) -> None:
    first = _is_channels_first(context, kind, shape.known)
    if len(shape.extents) != 4 or shape.extents[0] != 1:
        raise ConversionError(
            f"input {value.name!r} of shape {show(value.shape)} cannot be an image: images have "
            "a batch of 1, a height, a width and channels"
        )
    order = (1, 2, 3) if first else (3, 1, 2)  # channels, height, width
    channels = shape.known[order[0]]
    layout = kind.color_layout or ("GRAYSCALE" if channels == 1 else "RGB")
    if CHANNELS[layout] != channels:
        axes = "[N, C, H, W]" if first else "[N, H, W, C]"
        raise ConversionError(
            f"input {value.name!r} has {show([channels])[1:-2]} channels in {axes}; a {layout} "
            f"image has {CHANNELS[layout]}"
        )
    _, height, width = (shape.default[axis] for axis in order)
    feature = features.image(width, height, layout)
    if shape.choices:
        for choice in shape.choices:
            feature.imageType.enumeratedSizes.sizes.add(
                height=choice[order[1]], width=choice[order[2]]
            )
    elif None in shape.known:
        sizes = feature.imageType.imageSizeRange
        _set_range(sizes.heightRange, shape.extents[order[1]])
        _set_range(sizes.widthRange, shape.extents[order[2]])
    known = (1, *(shape.known[axis] for axis in order))
    limits.check_blob(known)
    context.builder.input(value.name, known, feature)
    data = SOURCE if first else CHANNELS_FIRST
    blob = Blob(value.name, known, data)
    ready = _preprocess(context, blob, kind, layout)
    # only frontends of channels-last sources track layouts; others read shapes unchanged
    context.bind(
        value, ready if context.graph.channels_last or first else context.source_order(ready)
    )


def _preprocess(context: Lowering, x: Blob, kind: ImageType, layout: str) -> Blob:
    """Uses the format's own scale and biases; a scale of several values needs a layer."""
    channels = CHANNELS[layout]
    scale = _values(kind.scale, channels, "scale")
    bias = _values(0.0 if kind.bias is None else kind.bias, channels, "bias")
    if len(set(scale)) > 1:
        return _scaled(context, x, f"{x.name}/preprocessing", scale, bias)
    if scale[0] == 1 and not any(bias):
        return x
    step = context.builder.network.preprocessing.add(featureName=x.name)
    step.scaler.channelScale = scale[0]
    names = {1: ["grayBias"], 3: ["redBias", "greenBias", "blueBias"]}[channels]
    for name, value in zip(reversed(names) if layout == "BGR" else names, bias, strict=True):
        setattr(step.scaler, name, value)
    return x


def _scaled(context: Lowering, x: Blob, name: str, scale: list[float], bias: list[float]) -> Blob:
    """Multiply each channel, and add to it."""
    shape = (len(scale), 1, 1)
    return context.layer(
        "scale",
        x,
        name=name,
        layout=x.layout,
        hasBias=True,
        shapeScale=shape,
        shapeBias=shape,
        scale=np.array(scale, np.float32),
        bias=np.array(bias, np.float32),
    )


def _values(value: float | Sequence[float], channels: int, argument: str) -> list[float]:
    numbers = np.asarray(value, float)
    results = [float(numbers)] * channels if numbers.ndim == 0 else [float(v) for v in numbers]
    if len(results) != channels:
        raise ConversionError(f"{argument}={value!r}: one number, or {channels} of them")
    return results


# ---- outputs ---------------------------------------------------------------------------


def finish(
    context: Lowering,
    outputs: Sequence[OutputType] | None,
    classifier: ClassifierConfig | None,
    names: Sequence[str] | None = None,
) -> model_pb2.Model:
    """Add the outputs, drop layers that none of them needs, and make the model.

    Args:
        outputs: the outputs wanted, by name; all by default.
        classifier: labels, to make the model a classifier.
        names: new names for the outputs, in order.

    Raises:
        ConversionError: an output does not exist, or a classifier does not fit.
    """
    known = dict(context.graph.outputs)
    selected = _wanted(outputs, known, context.graph)
    shown = list(names) if names is not None else [name for name, _ in selected]
    if len(shown) != len(selected) or len(set(shown)) != len(shown):
        raise ConversionError(f"{len(shown)} names {shown} for {len(selected)} outputs")
    blobs = []
    for name, kind in selected:
        context.start(f"{name}/output")
        blob = context.blob(known[name])
        context.check_axes(blob)
        blobs.append(
            _as_image(context, name, blob, kind)
            if isinstance(kind, ImageType)
            else (context.source_order(blob), None)
        )
    clashes = [name for name in names or () if context.builder.is_input(name)]
    if clashes:
        raise ConversionError(
            f"an output cannot have the name of an input: {', '.join(map(repr, clashes))}; "
            "choose another name for it"
        )
    transposes.merge(context.builder, {blob.name for blob, _ in blobs})
    final = _name_outputs(context, [blob for blob, _ in blobs], shown)
    context.builder.prune(final)
    for name, (_, feature), (source, kind) in zip(final, blobs, selected, strict=True):
        chosen = kind.dtype if isinstance(kind, TensorType) else None
        dtype = chosen or feature_dtype(known[source])
        context.builder.output(
            name, feature or features.multi_array(context.builder.shapes[name], dtype)
        )
    spec = context.builder.finished(_classifier(context, classifier, final))
    metadata = spec.description.metadata.userDefined
    for key, text in context.metadata.items():
        metadata[key] = text
    return spec


def _wanted(
    outputs: Sequence[OutputType] | None, known: Mapping[str, Value], graph: Graph
) -> list[tuple[str, TensorType | ImageType]]:
    if outputs is None:
        return [(name, TensorType()) for name in known]
    results: list[tuple[str, TensorType | ImageType]] = []
    for output in outputs:
        kind = TensorType(name=output) if isinstance(output, str) else output
        name = kind.name
        if name is None and len(known) == 1:
            name = next(iter(known))
        if name is None or name not in known:
            raise graph.unknown("output", name, list(known))
        results.append((name, kind))
    return results


def _as_image(
    context: Lowering, name: str, blob: Blob, kind: ImageType
) -> tuple[Blob, features.FeatureType]:
    first = not context.graph.channels_last if kind.channel_first is None else kind.channel_first
    x = context.source_order(blob) if first else arrange(context, blob, CHANNELS_FIRST)
    shape = x.known
    channels = shape[1] if len(shape) == 4 else None
    layout = kind.color_layout or ("GRAYSCALE" if channels == 1 else "RGB")
    if channels != CHANNELS[layout] or len(shape) != 4 or shape[0] != 1:
        raise ConversionError(
            f"output {name!r} of shape {show(blob.source_shape)} cannot be a {layout} image"
        )
    scale = _values(kind.scale, channels, "scale")
    bias = _values(0.0 if kind.bias is None else kind.bias, channels, "bias")
    if set(scale) != {1.0} or any(bias):
        x = _scaled(context, x, f"{name}/postprocessing", scale, bias)
    return x, _picture(context, name, x, layout)


def _picture(context: Lowering, name: str, x: Blob, layout: str) -> features.FeatureType:
    """Describe a blob as an image, whose size follows from those of the inputs."""
    if None not in x.known:
        _, _, height, width = x.known
        return features.image(width or 0, height or 0, layout)
    sizes = _sizes(context, name, x)
    (height, width), *others = sizes
    if height is None or width is None:
        raise ConversionError(f"the height and width of image output {name!r} depend on the data")
    feature = features.image(width, height, layout)
    if _has_choices(context):
        for tall, wide in dict.fromkeys([sizes[0], *others]):
            feature.imageType.enumeratedSizes.sizes.add(height=tall, width=wide)
        return feature
    (least_tall, least_wide), (most_tall, most_wide) = others[:2]
    ranges = feature.imageType.imageSizeRange
    features.set_range(ranges.heightRange, least_tall or 1, -1 if most_tall is None else most_tall)
    features.set_range(ranges.widthRange, least_wide or 1, -1 if most_wide is None else most_wide)
    return feature


def _sizes(context: Lowering, name: str, x: Blob) -> list[tuple[int | None, int | None]]:
    """Height and width of a blob for the default inputs, and for each choice or both bounds."""
    columns = [features.blob_shapes(f.type) for f in context.builder.description.input]
    count = max(map(len, columns))
    results = []
    for index in range(count):
        bindings = {
            feature.name: column[min(index, len(column) - 1)]
            for feature, column in zip(context.builder.description.input, columns, strict=True)
        }
        try:
            shape = context.builder.shapes_at(bindings)[x.name] or (1, 1, None, None)
        except SpecError as error:
            raise ConversionError(
                f"inputs of shape {', '.join(map(show, bindings.values()))}, which the flexible "
                f"shapes allow, do not go through the network: {error}"
            ) from error
        results.append((shape[2], shape[3]))
    return results


def _has_choices(context: Lowering) -> bool:
    return any(
        f.type.multiArrayType.HasField("enumeratedShapes")
        or f.type.imageType.HasField("enumeratedSizes")
        for f in context.builder.description.input
    )


def _name_outputs(context: Lowering, blobs: Sequence[Blob], names: Sequence[str]) -> list[str]:
    """Give blobs the names of their outputs, and return the names.

    An output that is an input, or appears twice, gets a layer that copies it. Inner blobs with the
    name of an output are renamed, as is an output with the name of an input.
    """
    builder = context.builder
    inputs = [f.name for f in builder.description.input]
    remaining = [name for name in names if name not in inputs]
    apart = [f"{name}_output" for name in names if name in inputs]
    free = iter(distinct_names([*inputs, *remaining, *apart])[len(inputs) + len(remaining) :])
    final = [next(free) if name in inputs else name for name in names]
    current = [blob.name for blob in blobs]
    for index, blob in enumerate(current):
        if builder.is_input(blob) or blob in current[:index]:
            label = builder.unused_layer(f"{final[index]}/copy")
            copied = builder.unused_blob(label)
            builder.layer("activation", label, [blob], [copied], linear={"alpha": 1.0})
            current[index] = copied
    for index, name in enumerate(final):
        if current[index] == name:
            continue
        if name in builder.shapes:
            aside = builder.unused_blob(f"{name}/inner")
            builder.rename_blob(name, aside)
            current = [aside if blob == name else blob for blob in current]
        builder.rename_blob(current[index], name)
        current[index] = name
    return final


def _classifier(
    context: Lowering, config: ClassifierConfig | None, names: Sequence[str]
) -> Mapping[str, Any] | None:
    if config is None:
        return None
    blob = config.predicted_probabilities_output or names[0]
    if blob not in names:
        close = did_you_mean(blob, list(names))
        raise ConversionError(f"no output {blob!r} for the probabilities.{close}")
    if config.predicted_probabilities_output is None and len(names) > 1:
        raise ConversionError(
            f"which of {', '.join(names)} holds the probabilities? Write ClassifierConfig(..., "
            f"predicted_probabilities_output={names[0]!r})"
        )
    labels = config.labels()
    shape = context.builder.shapes[blob]
    size = None if shape is None or None in shape else int(np.prod([n or 0 for n in shape]))
    if size is not None and size != len(labels):
        raise ConversionError(f"{len(labels)} class labels for {size} values of output {blob!r}")
    if config.predicted_feature_name in names:
        raise ConversionError(
            f"predicted_feature_name={config.predicted_feature_name!r} is the name of an output"
        )
    return context.builder.classifier(
        labels, blob, predicted_feature_name=config.predicted_feature_name
    )
