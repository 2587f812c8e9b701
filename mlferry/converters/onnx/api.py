"""`mlferry.converters.onnx.convert`: the arguments of onnx-coreml and coremltools 3 to 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlferry.converters.classic_images import PIXELS, image_of
from mlferry.converters.convert import Options, convert_graph
from mlferry.converters.custom_layers import CustomFunction
from mlferry.converters.onnx import read
from mlferry.converters.onnx.ops import FRONTEND, OPS
from mlferry.converters.settings import exact_target, listed
from mlferry.converters.types import ClassifierConfig, ImageType, TensorType
from mlferry.errors import ConversionError
from mlferry.models.model import MLModel


def convert(
    model: object,
    mode: str | None = None,
    image_input_names: str | Sequence[str] = (),
    preprocessing_args: Mapping[str, Any] | None = None,
    image_output_names: str | Sequence[str] = (),
    deprocessing_args: Mapping[str, Any] | None = None,
    class_labels: Sequence[str] | Sequence[int] | str | Path | None = None,
    predicted_feature_name: str = "classLabel",
    add_custom_layers: bool = False,
    custom_conversion_functions: Mapping[str, CustomFunction] | None = None,
    onnx_coreml_input_shape_map: Mapping[str, Sequence[int]] | None = None,
    minimum_ios_deployment_target: str = "13",
    target_ios: str | None = None,
) -> MLModel:
    """Convert an ONNX model with the arguments of the classic converters.

    Args:
        model: path, bytes or `ModelProto`.
        mode: None or "classifier".
        image_input_names: the input or inputs that become images, [N, C, H, W] in the source.
        preprocessing_args: is_bgr, red_bias, green_bias, blue_bias, gray_bias, image_scale.
        image_output_names: the output or outputs that become images.
        deprocessing_args: likewise for image outputs.
        class_labels: a list, or the path of a file with one label per line.
        predicted_feature_name: of the output with the likeliest label.
        add_custom_layers: see `mlferry.convert`.
        custom_conversion_functions: see `mlferry.convert`; functions take the node, or the node
            and the builder.
        onnx_coreml_input_shape_map: not needed here, and refused: arrays keep ONNX's shapes.
        minimum_ios_deployment_target: the model needs iOS 13 even where an earlier release is
            given; a warning is logged then.
        target_ios: the same, as releases of onnx-coreml before 1.0 have it.

    Raises:
        ConversionError: arguments that do not fit; see also `mlferry.convert`.
    """
    if mode not in (None, "classifier"):
        raise ConversionError(f"mode={mode!r}: None and 'classifier' are possible")
    if onnx_coreml_input_shape_map:
        raise ConversionError(
            "onnx_coreml_input_shape_map belongs to the classic five-axis mapping; arrays keep "
            "ONNX's own shapes here: leave it out"
        )
    target = exact_target(target_ios or minimum_ios_deployment_target)
    pictures, shown = listed(image_input_names), listed(image_output_names)
    functions = dict(custom_conversion_functions or {})
    graph = read.read(model, keep={*OPS, *functions})
    shapes = {value.name: value.shape for value in graph.inputs}
    _check(pictures, list(shapes), "input")
    outputs = [name for name, _ in graph.outputs]
    _check(shown, outputs, "output")
    classifier = None
    if mode == "classifier" or class_labels is not None:
        if class_labels is None:
            raise ConversionError("mode='classifier' needs class_labels")
        classifier = ClassifierConfig(class_labels, predicted_feature_name)
    options = Options(
        inputs=[_image(n, shapes[n], preprocessing_args or {}) for n in pictures],
        outputs=[
            _image(n, None, deprocessing_args or {}) if n in shown else TensorType(name=n)
            for n in outputs
        ],
        classifier_config=classifier,
        custom_conversion_functions=functions,
        add_custom_layers=add_custom_layers,
        channels_first=True,
        minimum_deployment_target=target,
    )
    return convert_graph(graph, FRONTEND, options)


def _check(names: Sequence[str], known: Sequence[str], role: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConversionError(
            f"image_{role}_names: no {role} {', '.join(map(repr, unknown))}; there are "
            f"{', '.join(known)}"
        )


def _image(
    name: str, shape: Sequence[int | None] | None, arguments: Mapping[str, Any]
) -> ImageType:
    unknown = set(arguments) - set(PIXELS)
    if unknown:
        raise ConversionError(f"unknown: {', '.join(sorted(unknown))}")
    is_gray = shape is not None and len(shape) == 4 and shape[1] == 1
    return image_of(name, arguments, is_gray=is_gray, channel_first=True)
