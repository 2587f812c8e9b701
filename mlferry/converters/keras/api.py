"""`mlferry.converters.keras.convert`: the arguments of coremltools 2 to 5."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlferry.converters.classic_images import PIXELS, PerInput, image_of
from mlferry.converters.convert import Options, convert_graph
from mlferry.converters.custom_layers import CustomFunction
from mlferry.converters.graph import Graph
from mlferry.converters.keras import read
from mlferry.converters.keras.ops import FRONTEND
from mlferry.converters.keras.trainable import compiled, trained_layers
from mlferry.converters.lower import as_conversion_errors
from mlferry.converters.types import ClassifierConfig, ImageType, TensorType
from mlferry.errors import ConversionError, ValidationError
from mlferry.layers.training import TrainingOptions
from mlferry.layers.validate import validate
from mlferry.models.model import MLModel
from mlferry.models.neural_network.trainable import make_trainable
from mlferry.models.quantization import quantize_weights
from mlferry.models.utils import convert_float_to_double_multiarray_type
from mlferry.spec.proto import model_pb2
from mlferry.text import logger_of

logger = logger_of(__name__)


def convert(
    model: object,
    input_names: str | Sequence[str] | None = None,
    output_names: str | Sequence[str] | None = None,
    image_input_names: str | Sequence[str] | None = None,
    input_name_shape_dict: Mapping[str, Sequence[int | None]] | None = None,
    is_bgr: bool | Mapping[str, bool] = False,
    red_bias: PerInput = 0.0,
    green_bias: PerInput = 0.0,
    blue_bias: PerInput = 0.0,
    gray_bias: PerInput = 0.0,
    image_scale: PerInput = 1.0,
    class_labels: Sequence[str] | Sequence[int] | str | Path | None = None,
    predicted_feature_name: str | None = None,
    model_precision: str = "float32",
    predicted_probabilities_output: str = "",
    add_custom_layers: bool = False,
    custom_conversion_functions: Mapping[str, CustomFunction] | None = None,
    input_shapes: Sequence[Sequence[int | None]] | None = None,
    output_shapes: Sequence[Sequence[int | None]] | None = None,
    respect_trainable: bool = False,
    use_float_arraytype: bool = True,
    custom_objects: Mapping[str, Any] | None = None,
) -> MLModel:
    """Convert a Keras model with the arguments of the classic converters.

    Inputs are named "input1", "input2", ... and outputs "output1", ... by default, and custom
    layers get channels-first data, for which Swift classes of that time were written. Arrays
    keep Keras's shapes (exact array mapping), other than in the classic converters.

    Args:
        model: path, pair of paths, or model object; see `mlferry.convert`.
        input_names: names for the inputs, in Keras's order.
        output_names: names for the outputs, in Keras's order.
        image_input_names: the inputs that become images, by their new names.
        input_name_shape_dict: shapes, batch included, for inputs that leave them open.
        is_bgr: whether images come as B, G, R; one value, or one per input.
        red_bias: added to the red channel after scaling; likewise green, blue and gray.
        green_bias: see `red_bias`.
        blue_bias: see `red_bias`.
        gray_bias: see `red_bias`.
        image_scale: what pixels of 0 to 255 are multiplied by.
        class_labels: a list, or the path of a file with one label per line.
        predicted_feature_name: of the output with the likeliest label; "classLabel".
        model_precision: of the weights: "float32", or "float16", which is
            `quantize_weights` with 16 bits.
        predicted_probabilities_output: the output with the probabilities.
        add_custom_layers: see `mlferry.convert`.
        custom_conversion_functions: see `mlferry.convert`.
        input_shapes: as `input_name_shape_dict`, in Keras's order of the inputs.
        output_shapes: not needed, and not read: shapes of outputs are computed.
        respect_trainable: let an app train the layers that Keras trains; see
            `mlferry.converters.keras.trainable`.
        use_float_arraytype: whether arrays are of float32; False makes doubles of them, which
            coremltools did by default.
        custom_objects: see `mlferry.convert`.

    Raises:
        ConversionError: names, shapes or options do not fit the model; see also
            `mlferry.convert`.
    """
    _check_precision(model_precision, respect_trainable)
    graph = (
        model
        if isinstance(model, Graph)
        else read.read(model, list(custom_conversion_functions or ()), custom_objects)
    )
    inputs = _names(input_names, len(graph.inputs), "input")
    images = [image_input_names] if isinstance(image_input_names, str) else image_input_names or ()
    unknown = [name for name in images if name not in inputs]
    if unknown:
        raise ConversionError(
            f"image_input_names: no input {', '.join(map(repr, unknown))}; the inputs are "
            f"{', '.join(inputs)}"
        )
    shapes = dict(zip(inputs, input_shapes or (), strict=False)) | dict(input_name_shape_dict or {})
    numbers = (is_bgr, red_bias, green_bias, blue_bias, gray_bias, image_scale)
    pixels = dict(zip(PIXELS, numbers, strict=True))
    types: list[TensorType | ImageType] = []
    for name, value in zip(inputs, graph.inputs, strict=True):
        shape = shapes.pop(name, None) or shapes.pop(value.name, None)
        fixed = None if shape is None else [1 if n is None else n for n in shape]
        if name not in images:
            types.append(TensorType(name=name, shape=fixed))
            continue
        is_gray = _channels(graph, fixed or value.shape) == 1
        types.append(image_of(name, pixels, is_gray=is_gray, shape=fixed))
    if shapes:
        raise ConversionError(
            f"input_name_shape_dict: no input {', '.join(map(repr, shapes))}; the inputs are "
            f"{', '.join(inputs)}"
        )
    classifier = None
    if class_labels is not None:
        classifier = ClassifierConfig(
            class_labels,
            predicted_feature_name or "classLabel",
            predicted_probabilities_output or None,
        )
    options = Options(
        inputs=types,
        input_names=inputs,
        output_names=_names(output_names, len(graph.outputs), "output"),
        classifier_config=classifier,
        custom_conversion_functions=custom_conversion_functions,
        add_custom_layers=add_custom_layers,
        channels_first=True,
        custom_objects=custom_objects,
    )
    result = convert_graph(graph, FRONTEND, options)
    if respect_trainable:
        result = _trainable(result, graph, compiled(model))
    if not use_float_arraytype:
        convert_float_to_double_multiarray_type(result.spec)
    return quantize_weights(result, 16) if model_precision == "float16" else result


@functools.wraps(convert)
def convertToSpec(*args: Any, **kwargs: Any) -> model_pb2.Model:
    """As `convert`, but returns the message of the model."""
    return convert(*args, **kwargs).get_spec()


def _trainable(model: MLModel, graph: Graph, options: TrainingOptions) -> MLModel:
    """Make a converted model trainable on a device, as Keras trains it."""
    spec = model.get_spec()
    layers, others = trained_layers(graph, spec)
    if not layers:
        raise ConversionError(
            "respect_trainable: no layer is trainable that Core ML can train: convolutions and "
            "dense layers"
        )
    if others:
        logger.warning("a device trains %s, but not %s", ", ".join(layers), ", ".join(others))
    with as_conversion_errors():
        make_trainable(spec, layers, options)
    problems = validate(spec)
    missing = [option for option in ("loss", "optimizer") if getattr(options, option) is None]
    if missing:
        logger.warning(
            "the model has no %s to train with: set it with NeuralNetworkBuilder(spec=...)",
            " and no ".join(missing),
        )
    elif severe := [problem for problem in problems if problem.severity != "note"]:
        raise ValidationError("respect_trainable: a device could not train the model:", severe)
    return MLModel.adopt(spec, problems)


def _check_precision(precision: str, respect_trainable: bool) -> None:
    if precision not in ("float32", "float16"):
        raise ConversionError(
            f"model_precision={precision!r}: 'float32' and 'float16' are possible; for fewer bits "
            "convert first, and then write mlferry.quantize_weights(model, 8)"
        )
    if precision == "float16" and respect_trainable:
        raise ConversionError(
            "respect_trainable=True needs model_precision='float32': networks with weights of "
            "half precision cannot be trained"
        )


def _names(value: str | Sequence[str] | None, count: int, role: str) -> list[str]:
    names = (
        [f"{role}{index + 1}" for index in range(count)]
        if value is None
        else [value]
        if isinstance(value, str)
        else list(value)
    )
    if len(names) != count:
        raise ConversionError(f"{len(names)} {role}_names {names}; the model has {count} {role}s")
    return names


def _channels(graph: Graph, shape: Sequence[int | None] | None) -> int | None:
    if shape is None or len(shape) != 4:
        return None
    return shape[3] if graph.channels_last else shape[1]
