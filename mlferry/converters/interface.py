"""The model's inputs and outputs: what the source says, changed by what the user asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlferry.converters.graph import Graph, Value
from mlferry.converters.layout import CHANNELS_FIRST, SCALAR, SOURCE, Blob, arrange
from mlferry.converters.lower import Lowering
from mlferry.converters.types import ClassifierConfig, ImageType, RangeDim, TensorType
from mlferry.errors import ConversionError
from mlferry.registry import did_you_mean
from mlferry.spec import features
from mlferry.spec.features import CHANNELS
from mlferry.spec.proto import model_pb2
from mlferry.spec.shapes.rules import Shape, show

InputType = TensorType | ImageType
OutputType = TensorType | ImageType | str


def bind_inputs(low: Lowering, inputs: Sequence[InputType] | None) -> None:
    """Add every input of the graph and bind it.

    Raises:
        ConversionError: types for inputs that do not exist, or shapes that are not known;
            all inputs are reported together.
    """
    chosen = _by_name(low.graph, inputs or ())
    missing = []
    for value in low.graph.inputs:
        wanted = chosen.get(value.name) or TensorType()
        shape = _shape(value, wanted)
        if shape is None:
            missing.append(value)
        elif isinstance(wanted, ImageType):
            _bind_image(low, value, wanted, shape)
        else:
            _bind_array(low, value, wanted, shape)
    if missing:
        raise ConversionError(_explain_shapes(missing, low.graph))


def _by_name(graph: Graph, inputs: Sequence[InputType]) -> dict[str, InputType]:
    names = [value.name for value in graph.inputs]
    found: dict[str, InputType] = {}
    for index, wanted in enumerate(inputs):
        if not isinstance(wanted, TensorType | ImageType):
            raise ConversionError(
                f"inputs is a list of mlferry.TensorType and mlferry.ImageType, not {wanted!r}"
            )
        name = wanted.name
        if name is None:
            if len(inputs) != len(names):
                raise ConversionError(
                    f"{graph.source} has {len(names)} inputs: give each type its name out of "
                    f"{', '.join(names)}"
                )
            name = names[index]
        if name not in names:
            close = did_you_mean(name, names)
            raise ConversionError(
                f"{graph.source} has no input {name!r}.{close} Its inputs: {', '.join(names)}"
            )
        found[name] = wanted
    return found


def _shape(value: Value, wanted: InputType) -> list[int | RangeDim] | None:
    """The batch is 1 where nobody says otherwise; other unknown extents make it unknown."""
    if wanted.shape is None and value.shape is None:
        return None
    given: Sequence[Any] = wanted.shape if wanted.shape is not None else value.shape or ()
    if value.shape is not None and wanted.shape is not None:
        fits = len(given) == len(value.shape) and all(
            told is None or isinstance(asked, RangeDim) or asked in (told, None)
            for asked, told in zip(given, value.shape, strict=True)
        )
        if not fits:
            raise ConversionError(
                f"input {value.name!r} has shape {show(value.shape)} (? is free), "
                f"not {tuple(given)}"
            )
    shape = [1 if index == 0 and n is None else n for index, n in enumerate(given)]
    return None if any(n is None for n in shape) else shape


def _explain_shapes(missing: Sequence[Value], graph: Graph) -> str:
    lines = [f"{graph.source} leaves shapes of inputs open:"]
    lines += [f"  - {value.name}: {show(value.shape)}" for value in missing]
    example = ", ".join(
        f"mlferry.TensorType(name={value.name!r}, shape={_example(value.shape)})"
        for value in missing
    )
    lines.append(f"give them: mlferry.convert(..., inputs=[{example}])")
    return "\n".join(lines)


def _example(shape: Shape | None) -> str:
    if shape is None:
        return "(1, ...)"
    return str(tuple(1 if i == 0 and n is None else 224 if n is None else n
                     for i, n in enumerate(shape)))  # fmt: skip


def _bind_array(
    low: Lowering, value: Value, wanted: TensorType, shape: Sequence[int | RangeDim]
) -> None:
    dtype = wanted.dtype or feature_dtype(value)
    default = tuple(
        (n.default or n.lower_bound) if isinstance(n, RangeDim) else n for n in shape
    ) or (1,)
    feature = features.multi_array(default, dtype)
    if any(isinstance(n, RangeDim) for n in shape):
        for n in shape:
            size = feature.multiArrayType.shapeRange.sizeRanges.add()
            size.lowerBound = n.lower_bound if isinstance(n, RangeDim) else n
            size.upperBound = n.upper_bound if isinstance(n, RangeDim) else n
    known = tuple(None if isinstance(n, RangeDim) else n for n in shape) or (1,)
    low.builder.input(value.name, known, feature)
    low.bind(value, Blob(value.name, known, SOURCE if shape else SCALAR))


def feature_dtype(value: Value) -> str:
    """Core ML's type for a source's: integers and booleans are int32, double stays.

    Raises:
        ConversionError: Core ML has no such arrays.
    """
    if value.dtype.startswith(("int", "uint", "bool")):
        return "int32"
    if value.dtype in ("string", "complex64", "complex128"):
        raise ConversionError(f"{value.name!r} is of type {value.dtype}: no Core ML multi-array")
    return "float64" if value.dtype == "float64" else "float32"


def _bind_image(
    low: Lowering, value: Value, wanted: ImageType, shape: Sequence[int | RangeDim]
) -> None:
    first = not low.graph.channels_last if wanted.channel_first is None else wanted.channel_first
    fixed = tuple(n for n in shape if isinstance(n, int))
    if len(fixed) != 4 or len(shape) != 4 or fixed[0] != 1:
        raise ConversionError(
            f"input {value.name!r} of shape {show(value.shape)} cannot be an image: images have "
            "a batch of 1, a height, a width and channels"
        )
    channels, height, width = fixed[1:] if first else (fixed[3], fixed[1], fixed[2])
    layout = wanted.color_layout or ("GRAYSCALE" if channels == 1 else "RGB")
    if CHANNELS[layout] != channels:
        order = "[N, C, H, W]" if first else "[N, H, W, C]"
        raise ConversionError(
            f"input {value.name!r} has {channels} channels in {order}; a {layout} image has "
            f"{CHANNELS[layout]}"
        )
    low.builder.input(
        value.name, (1, channels, height, width), features.image(width, height, layout)
    )
    data = SOURCE if first else CHANNELS_FIRST
    blob = Blob(value.name, (1, channels, height, width), data)
    ready = _preprocess(low, blob, wanted, layout)
    # only frontends of channels-last sources follow layouts; others read shapes as they are
    low.bind(value, ready if low.graph.channels_last or first else low.source_order(ready))


def _preprocess(low: Lowering, x: Blob, wanted: ImageType, layout: str) -> Blob:
    """By the format's own scale and biases; a scale of several values needs a layer."""
    channels = CHANNELS[layout]
    scale = _values(wanted.scale, channels, "scale")
    bias = _values(0.0 if wanted.bias is None else wanted.bias, channels, "bias")
    if len(set(scale)) > 1:
        return low.layer(
            "scale",
            x,
            name=f"{x.name}/preprocessing",
            layout=x.layout,
            shapeScale=(channels, 1, 1),
            scale=np.array(scale, np.float32),
            hasBias=True,
            shapeBias=(channels, 1, 1),
            bias=np.array(bias, np.float32),
        )
    if scale[0] == 1 and not any(bias):
        return x
    step = low.builder.network.preprocessing.add(featureName=x.name)
    step.scaler.channelScale = scale[0]
    names = {1: ["grayBias"], 3: ["redBias", "greenBias", "blueBias"]}[channels]
    for name, value in zip(reversed(names) if layout == "BGR" else names, bias, strict=True):
        setattr(step.scaler, name, value)
    return x


def _values(value: Any, channels: int, what: str) -> list[float]:
    found = [float(value)] * channels if np.ndim(value) == 0 else [float(v) for v in value]
    if len(found) != channels:
        raise ConversionError(f"{what}={value!r}: one number, or {channels} of them")
    return found


# ---- outputs ---------------------------------------------------------------------------


def finish(
    low: Lowering,
    outputs: Sequence[OutputType] | None,
    classifier: ClassifierConfig | None,
    names: Sequence[str] | None = None,
) -> model_pb2.Model:
    """Add the outputs, drop layers that none needs, and make the model.

    Args:
        low: the lowered graph.
        outputs: the outputs wanted, by name; all by default.
        classifier: labels, to make a classifier of it.
        names: new names for the outputs, in their order.

    Raises:
        ConversionError: outputs that do not exist, or a classifier that does not fit.
    """
    known = dict(low.graph.outputs)
    wanted = _wanted(outputs, known, low.graph)
    shown = list(names) if names is not None else [name for name, _ in wanted]
    if len(shown) != len(wanted) or len(set(shown)) != len(shown):
        raise ConversionError(f"{len(shown)} names {shown} for {len(wanted)} outputs")
    blobs = []
    for name, kind in wanted:
        low.start(f"{name}/output")
        blob = low.blob(known[name])
        low.check_axes(blob)
        blobs.append(_as_image(low, name, blob, kind) if isinstance(kind, ImageType)
                     else (low.source_order(blob), None))  # fmt: skip
    final = _name_outputs(low, [blob for blob, _ in blobs], shown)
    low.builder.prune(final)
    for name, (_, feature), (asked, kind) in zip(final, blobs, wanted, strict=True):
        told = kind.dtype if isinstance(kind, TensorType) else None
        dtype = told or feature_dtype(known[asked])
        low.builder.output(name, feature or features.multi_array(low.builder.shapes[name], dtype))
    spec = low.builder.model(_classifier(low, classifier, final))
    metadata = spec.description.metadata.userDefined
    for key, text in low.metadata.items():
        metadata[key] = text
    return spec


def _wanted(
    outputs: Sequence[OutputType] | None, known: Mapping[str, Value], graph: Graph
) -> list[tuple[str, TensorType | ImageType]]:
    if outputs is None:
        return [(name, TensorType()) for name in known]
    found: list[tuple[str, TensorType | ImageType]] = []
    for output in outputs:
        kind = TensorType(name=output) if isinstance(output, str) else output
        name = kind.name
        if name is None and len(known) == 1:
            name = next(iter(known))
        if name is None or name not in known:
            close = did_you_mean(str(name), list(known))
            raise ConversionError(
                f"{graph.source} has no output {name!r}.{close} Its outputs: {', '.join(known)}"
            )
        found.append((name, kind))
    return found


def _as_image(
    low: Lowering, name: str, blob: Blob, kind: ImageType
) -> tuple[Blob, features.FeatureType]:
    first = not low.graph.channels_last if kind.channel_first is None else kind.channel_first
    x = low.source_order(blob) if first else arrange(low, blob, CHANNELS_FIRST)
    shape = x.known
    channels = shape[1] if len(shape) == 4 else None
    layout = kind.color_layout or ("GRAYSCALE" if channels == 1 else "RGB")
    if channels != CHANNELS[layout] or None in shape or shape[0] != 1:
        raise ConversionError(
            f"output {name!r} of shape {show(blob.source_shape)} cannot be a {layout} image"
        )
    scale = _values(kind.scale, channels, "scale")
    bias = _values(0.0 if kind.bias is None else kind.bias, channels, "bias")
    if set(scale) != {1.0} or any(bias):
        x = low.layer(
            "scale",
            x,
            name=f"{name}/postprocessing",
            layout=x.layout,
            shapeScale=(channels, 1, 1),
            scale=np.array(scale, np.float32),
            hasBias=True,
            shapeBias=(channels, 1, 1),
            bias=np.array(bias, np.float32),
        )
    return x, features.image(shape[3] or 0, shape[2] or 0, layout)


def _name_outputs(low: Lowering, blobs: Sequence[Blob], names: Sequence[str]) -> list[str]:
    """Give blobs the names of the outputs that they are; returns the names.

    An output that is an input, or is shown twice, gets a layer that copies it; blobs inside
    that have the name of an output get another; an output with the name of an input, too.
    """
    builder = low.builder
    final = [
        builder.unused_blob(f"{name}_output") if builder.is_input(name) else name for name in names
    ]
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
    low: Lowering, config: ClassifierConfig | None, names: Sequence[str]
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
    shape = low.builder.shapes[blob]
    size = None if shape is None or None in shape else int(np.prod([n or 0 for n in shape]))
    if size is not None and size != len(labels):
        raise ConversionError(f"{len(labels)} class labels for {size} values of output {blob!r}")
    if config.predicted_feature_name in names:
        raise ConversionError(
            f"predicted_feature_name={config.predicted_feature_name!r} is the name of an output"
        )
    return low.builder.classifier(
        labels, blob, predicted_feature_name=config.predicted_feature_name
    )
