"""`mlferry.converters.tensorflow.convert`: the arguments of tfcoreml."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlferry.converters.classic import convert_keras_model, is_keras_model
from mlferry.converters.classic_images import PIXELS, PerInput, image_of
from mlferry.converters.convert import Options, convert_graph
from mlferry.converters.custom_layers import CustomFunction
from mlferry.converters.graph import Graph
from mlferry.converters.settings import exact_target, listed
from mlferry.converters.tensorflow import read
from mlferry.converters.tensorflow.ops import FRONTEND
from mlferry.converters.types import ClassifierConfig, ImageType, TensorType
from mlferry.errors import ConversionError
from mlferry.models.model import MLModel

_FORMATS = {"NHWC": False, "NCHW": True}


def convert(
    tf_model_path: str,
    mlmodel_path: str | Path | None = None,
    output_feature_names: str | Sequence[str] | None = None,
    input_name_shape_dict: Mapping[str, Sequence[int | None]] | None = None,
    image_input_names: str | Sequence[str] | None = None,
    tf_image_format: str | None = None,
    is_bgr: bool | Mapping[str, bool] = False,
    red_bias: PerInput = 0.0,
    green_bias: PerInput = 0.0,
    blue_bias: PerInput = 0.0,
    gray_bias: PerInput = 0.0,
    image_scale: PerInput = 1.0,
    class_labels: Sequence[str] | Sequence[int] | str | Path | None = None,
    predicted_feature_name: str | None = None,
    predicted_probabilities_output: str = "",
    add_custom_layers: bool = False,
    custom_conversion_functions: Mapping[str, CustomFunction] | None = None,
    minimum_ios_deployment_target: str = "13",
    custom_objects: Mapping[str, Any] | None = None,
) -> MLModel:
    """Convert a TensorFlow model with the arguments of the classic converter.

    Features have the classic names: tensor ``scope/x:0`` is ``scope__x__0``. You can name tensors
    in either way. Features of a Keras model have the names that you give, or Keras's own;
    ``Identity`` and ``Identity_1`` are its outputs in order.

    Args:
        tf_model_path: a frozen graph, or whatever else `mlferry.convert` reads.
        mlmodel_path: where to save the model, too.
        output_feature_names: tensors wanted, such as ``"softmax:0"``.
        input_name_shape_dict: shapes, batch included, by tensor.
        image_input_names: the inputs that become images, by tensor.
        tf_image_format: "NHWC" (the default) or "NCHW".
        is_bgr: whether images come as B, G, R; one value, or one per input.
        red_bias: added to the red channel after scaling; likewise green, blue and gray.
        green_bias: see `red_bias`.
        blue_bias: see `red_bias`.
        gray_bias: see `red_bias`.
        image_scale: what pixels of 0 to 255 are multiplied by.
        class_labels: a list, or the path of a file with one label per line.
        predicted_feature_name: of the output with the likeliest label; "classLabel".
        predicted_probabilities_output: the output with the probabilities, by tensor.
        add_custom_layers: see `mlferry.convert`.
        custom_conversion_functions: see `mlferry.convert`; functions take the node, or the node
            and the builder.
        minimum_ios_deployment_target: the model needs iOS 13 even where an earlier release is
            given; a warning is logged then.
        custom_objects: see `mlferry.convert`.

    Raises:
        ConversionError: names or options that do not fit; see also `mlferry.convert`.
    """
    target = exact_target(minimum_ios_deployment_target)
    if tf_image_format not in (None, *_FORMATS):
        raise ConversionError(f"tf_image_format={tf_image_format!r}: {' or '.join(_FORMATS)}")
    shapes = {_plain(name): shape for name, shape in (input_name_shape_dict or {}).items()}
    input_types = [TensorType(name=n, shape=_fixed(s)) for n, s in shapes.items()]
    outputs = [_plain(name) for name in listed(output_feature_names)] or None
    numbers = (is_bgr, red_bias, green_bias, blue_bias, gray_bias, image_scale)
    pixels = dict(zip(PIXELS, numbers, strict=True))
    if is_keras_model(tf_model_path):
        arguments = {
            "image_input_names": [_plain(n) for n in listed(image_input_names)],
            "input_name_shape_dict": shapes,
            "class_labels": class_labels,
            "predicted_feature_name": predicted_feature_name,
            "predicted_probabilities_output": _plain(predicted_probabilities_output),
            "add_custom_layers": add_custom_layers,
            "custom_conversion_functions": custom_conversion_functions,
            "custom_objects": custom_objects,
        }
        by_name = {key: _plainly(value) for key, value in pixels.items()}
        model = convert_keras_model(tf_model_path, outputs, **arguments, **by_name)
        return _saved(model, mlmodel_path)
    result = read.read(tf_model_path, inputs=input_types or None, outputs=outputs)
    graph = result.graph
    names = [value.name for value in graph.inputs]
    images = [_spelled(result, n) for n in listed(image_input_names)]
    originals = {result.input_feature(n): n for n in (*images, *shapes)}
    unknown = [n for feature, n in originals.items() if feature not in names]
    if unknown:
        raise ConversionError(
            f"no input {', '.join(map(repr, unknown))}; the inputs are {', '.join(names)}"
        )
    features = [_classic(originals.get(n, n)) for n in names]
    _check_names(features, graph)
    kinds: list[TensorType | ImageType] = []
    sizes = {result.input_feature(n): _fixed(shape) for n, shape in shapes.items()}
    pictures = set(map(result.input_feature, images))
    by_tensor = {name: _by_feature(result, option) for name, option in pixels.items()}
    for value, feature in zip(graph.inputs, features, strict=True):
        shape = sizes.get(value.name)
        if value.name not in pictures:
            kinds.append(TensorType(name=feature, shape=shape))
            continue
        first, known = _FORMATS.get(tf_image_format or "NHWC", False), shape or value.shape
        is_gray = known is not None and len(known) == 4 and known[1 if first else 3] == 1
        options = {"name": feature, "shape": shape, "channel_first": first}
        kinds.append(image_of(value.name, by_tensor, is_gray=is_gray, **options))
    shown = [_classic(n) for n in outputs] if outputs else [name for name, _ in graph.outputs]
    classifier = None
    if class_labels is not None:
        chosen = predicted_probabilities_output
        classifier = ClassifierConfig(
            class_labels,
            predicted_feature_name or "classLabel",
            (_classic(chosen) if chosen else None),
        )
    settings = Options(
        inputs=kinds,
        input_names=features,
        output_names=shown,
        classifier_config=classifier,
        custom_conversion_functions=custom_conversion_functions,
        add_custom_layers=add_custom_layers,
        channels_first=True,
        minimum_deployment_target=target,
        custom_objects=custom_objects,
    )
    return _saved(convert_graph(graph, FRONTEND, settings), mlmodel_path)


def _saved(model: MLModel, path: str | Path | None) -> MLModel:
    if path is not None:
        model.save(path)
    return model


def _plainly(value: object) -> Any:
    """One value for all inputs, or values by their plain names."""
    return {_plain(n): v for n, v in value.items()} if isinstance(value, Mapping) else value


def _check_names(features: Sequence[str], graph: Graph) -> None:
    """Raise a `ConversionError` if two inputs, or an input and a value, have the same name."""
    inner = {v.name for node in graph.nodes for v in node.outputs} | set(graph.constants)
    clashing = [n for n, count in Counter(features).items() if count > 1 or n in inner]
    if clashing:
        raise ConversionError(
            f"in classic names, {', '.join(clashing)} stands for several tensors of "
            f"{graph.source}; convert it with mlferry.convert, which gives each a name"
        )


def _plain(name: str) -> str:
    """A tensor's name; that of its operation if it is the first output."""
    return name[:-2] if name.endswith(":0") else name


def _spelled(source: read.Read, name: str) -> str:
    """The tensor that a user names, in the spelling of TensorFlow or of a classic model."""
    known = {value.name for value in source.graph.inputs}
    short = name.removesuffix("__0")
    spellings = (_plain(name), short, short.replace("__", "/"))
    return next((s for s in spellings if source.input_feature(s) in known), _plain(name))


def _classic(name: str) -> str:
    """The name of a tensor's feature in the classic converter."""
    full = name if ":" in name else f"{name}:0"
    return full.replace(":", "__").replace("/", "__")


def _fixed(shape: Sequence[int | None]) -> list[int]:
    return [1 if n is None or n < 0 else n for n in shape]


def _by_feature(source: read.Read, option: object) -> object:
    """One value for all inputs, or values by the names of the graph's inputs."""
    if not isinstance(option, Mapping):
        return option
    return {source.input_feature(_spelled(source, n)): value for n, value in option.items()}
