"""`mlferry convert`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from mlferry.cli import options
from mlferry.cli.common import json_option, numbers, pairs, precision_of, run_file, save, several
from mlferry.errors import CustomLayerError, ModelFileError

EPILOG = """\b
examples:
  mlferry convert digits.h5 digits.mlmodel --custom hooks.py
  mlferry convert net.onnx net.mlmodel --image data --scale 1/255 --labels labels.txt
  mlferry convert net.onnx net.mlmodel --shape data=1,3,1..512,1..512 --target iOS14
  mlferry convert net.onnx net.mlmodel --shape data=1,3,224,224 --shape data=1,3,320,320
  mlferry convert model.json weights.h5 model.mlmodel
  mlferry convert saved_model/ model.mlmodel --signature serving_default
  mlferry convert net.onnx net.mlpackage --target iOS16
"""


@click.command(epilog=EPILOG)
@click.argument("paths", nargs=-1, required=True, type=options.FILE, metavar="SOURCE... TARGET")
@click.option("-o", "--out", type=options.FILE, metavar="FILE", help="The same as TARGET.")
@options.file("--custom", "FILE.py", "Python file with custom_conversion_functions = {...}.")
@options.flag("--add-custom-layers", "Make a custom layer of every layer without a converter.")
@options.repeated(
    "--image", "images", "NAME", "Make this input an image; repeat it for another input."
)
@click.option(
    "--color",
    metavar="LAYOUT",
    type=click.Choice(["RGB", "BGR", "GRAYSCALE"], case_sensitive=False),
    help="Order of the channels of images: RGB, BGR or GRAYSCALE.",
)
@options.value(
    "--scale", "NUMBERS", "Multiply pixels by this: 1/255; one number, or one per channel."
)
@options.value(
    "--bias",
    "NUMBERS",
    "Add this to scaled pixels; one number, or one per channel: -104,-117,-123.",
)
@options.repeated(
    "--shape",
    "shapes",
    "NAME=SHAPE",
    "Shape of an input, batch included: data=1,3,224,224; 1..512 for a range; given again, "
    "one of a list of shapes.",
)
@click.option(
    "--channels-last/--channels-first",
    "channels_last",
    default=None,
    help="How the source takes images; by default as its framework does.",
)
@options.repeated(
    "--type",
    "types",
    "NAME=TYPE",
    "Numbers of an input: float32, float64, int32 or float16; by default the source's.",
)
@options.repeated(
    "--value",
    "values",
    "NAME=VALUE",
    "Fix an input to a number or an .npy file; the model then has no such input.",
)
@options.repeated("--output", "outputs", "NAME", "An output to keep; by default all.")
@options.repeated("--output-image", "output_images", "NAME", "Make this output an image.")
@options.file("--labels", "FILE", "Make a classifier of these labels, one per line.")
@options.value(
    "--label-output",
    "NAME",
    "A classifier's output with the likeliest label; by default classLabel.",
)
@options.value(
    "--probabilities",
    "NAME",
    "A classifier's output with the probabilities; by default the only one.",
)
@options.choice(
    "--source",
    ["keras", "onnx", "tensorflow"],
    "The framework of SOURCE; by default its content decides.",
)
@options.value(
    "--signature",
    "NAME",
    "The signature of a SavedModel; by default serving_default, or the only one.",
)
@options.flag(
    "--trace",
    "Convert what layers of your own compute; their classes are the custom_objects = {...} "
    "of --custom.",
)
@options.choice(
    "--activation-quantization",
    ["keep", "drop"],
    "What to do with activations that the source rounds to few bits.",
    default="keep",
)
@click.option(
    "--deployment-target",
    "--target",
    "deployment_target",
    metavar="SYSTEM",
    help='Fail if the model needs a newer system than this, e.g. "iOS13".',
)
@click.option(
    "--to",
    "--convert-to",
    "convert_to",
    type=click.Choice(["neuralnetwork", "mlprogram"]),
    help="What to write; by default an ML Program where TARGET is an .mlpackage.",
)
@options.choice(
    "--precision", ["float16", "float32"], "The precision of an ML Program; by default float16."
)
@click.option(
    "--keep",
    multiple=True,
    metavar="NAME",
    help="A value of an ML Program to keep in float32, as `mlferry precision` lists them.",
)
@options.flag("--states", "Make states of what stateful layers and caches keep (ML Programs).")
@json_option
def convert(
    paths: tuple[Path, ...],
    out: Path | None,
    custom: Path | None,
    add_custom_layers: bool,
    images: tuple[str, ...],
    color: str | None,
    scale: str | None,
    bias: str | None,
    shapes: tuple[str, ...],
    channels_last: bool | None,
    types: tuple[str, ...],
    values: tuple[str, ...],
    outputs: tuple[str, ...],
    output_images: tuple[str, ...],
    labels: Path | None,
    label_output: str | None,
    probabilities: str | None,
    source: str | None,
    signature: str | None,
    trace: bool,
    activation_quantization: str,
    deployment_target: str | None,
    convert_to: str | None,
    precision: str | None,
    keep: tuple[str, ...],
    states: bool,
    as_json: bool,
) -> None:
    """Convert SOURCE, a Keras, ONNX or TensorFlow model, to TARGET.

    An .mlmodel file is a neural network, an .mlpackage an ML Program.
    """
    from mlferry.converters.convert import convert as convert_model

    sources, target = (paths, out) if out is not None else (paths[:-1], paths[-1])
    if not sources:
        target = paths[0].with_suffix(".mlmodel")
        raise click.UsageError(f"say where to write: mlferry convert {paths[0]} {target.name}")
    compute_precision = precision_of(precision, keep)
    tensors = _tensors(pairs(types, "types"), pairs(values, "values"))
    inputs = _inputs(
        images, several(shapes, "shapes"), _pixels(color, scale, bias, channels_last), tensors
    )
    classifier = _classifier(labels, label_output, probabilities)
    defined = run_file(custom)
    model = convert_model(
        str(sources[0]) if len(sources) == 1 else tuple(map(str, sources)),
        source or "auto",
        inputs=inputs,
        outputs=_outputs(outputs, output_images),
        classifier_config=classifier,
        custom_conversion_functions=_dict("custom_conversion_functions", defined, custom),
        add_custom_layers=add_custom_layers,
        minimum_deployment_target=deployment_target,
        activation_quantization=activation_quantization,
        signature=signature,
        trace_custom_layers=trace,
        custom_objects=_dict("custom_objects", defined, custom) or None,
        convert_to=convert_to or ("mlprogram" if target.suffix == ".mlpackage" else None),
        compute_precision=compute_precision,
        states=states,
    )
    save(model, target, as_json=as_json)


def _dict(name: str, defined: Mapping[str, Any], path: Path | None) -> Mapping[str, Any]:
    """A dict that the file of ``--custom`` defines; empty where it defines the other one."""
    if path is None:
        return {}
    if not any(each in defined for each in _DICTS):
        functions = [key for key in defined if key.startswith("convert")]
        pairs = ", ".join(f"{key.removeprefix('convert_')!r}: {key}" for key in functions)
        raise CustomLayerError(
            f"{path} defines no custom_conversion_functions: end it with\n"
            f"    custom_conversion_functions = {{{pairs or repr('LAYER') + ': function'}}}"
        )
    mapping = defined.get(name, {})
    if not isinstance(mapping, Mapping):
        raise CustomLayerError(f"{name} in {path} is not a dict")
    return mapping


_DICTS = ("custom_conversion_functions", "custom_objects")


def _classifier(labels: Path | None, label: str | None, probabilities: str | None) -> Any:
    from mlferry.converters.types import ClassifierConfig

    names = {"predicted_feature_name": label, "predicted_probabilities_output": probabilities}
    arguments = {key: name for key, name in names.items() if name is not None}
    if labels is not None:
        return ClassifierConfig(labels, **arguments)
    if arguments:
        raise click.UsageError(
            "--label-output and --probabilities are for classifiers: add --labels FILE"
        )
    return None


def _pixels(
    color: str | None, scale: str | None, bias: str | None, channels_last: bool | None
) -> dict[str, Any]:
    options: dict[str, Any] = {"color_layout": color.upper() if color else None}
    if channels_last is not None:
        options["channel_first"] = not channels_last
    for name, text in (("scale", scale), ("bias", bias)):
        if text is not None:
            values = numbers(text, name)
            options[name] = values[0] if len(values) == 1 else values
    return options


def _tensors(types: Mapping[str, str], values: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The options of inputs that are not images, by name."""
    options: dict[str, dict[str, Any]] = {name: {"dtype": text} for name, text in types.items()}
    for name, text in values.items():
        options.setdefault(name, {})["value"] = _value(text)
    return options


def _value(text: str) -> Any:
    if not text.endswith(".npy"):
        values = numbers(text, "value")
        return values[0] if len(values) == 1 else values
    try:
        return np.load(text, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ModelFileError(f"cannot read {text}: {error}") from error


def _inputs(
    images: tuple[str, ...],
    shapes: Mapping[str, list[str]],
    pixels: dict[str, Any],
    tensors: Mapping[str, dict[str, Any]],
) -> Any:
    from mlferry.converters.types import ImageType, TensorType

    if any(value is not None for value in pixels.values()) and not images:
        raise click.UsageError(
            "--color, --scale, --bias, --channels-last and --channels-first are for images: "
            "add --image NAME"
        )
    both = [name for name in tensors if name in images]
    if both:
        raise click.UsageError(f"{both[0]!r} is an image: --type and --value are for other inputs")
    types: list[Any] = [ImageType(name, _shapes(shapes.get(name)), **pixels) for name in images]
    names = [name for name in dict.fromkeys([*shapes, *tensors]) if name not in images]
    types += [
        TensorType(name, _shapes(shapes.get(name)), **tensors.get(name, {})) for name in names
    ]
    return types or None


def _shapes(texts: list[str] | None) -> Any:
    """One shape, or a list of them."""
    from mlferry.converters.types import EnumeratedShapes, RangeDim

    shapes = [_shape(text) for text in texts or ()]
    if len(shapes) < 2:
        return shapes[0] if shapes else None
    if any(isinstance(extent, RangeDim) for shape in shapes for extent in shape):
        raise click.UsageError(
            f"shapes {' and '.join(texts or ())}: give one shape with ranges, or a list without"
        )
    return EnumeratedShapes(shapes)


def _shape(text: str) -> list[Any]:
    from mlferry.converters.types import RangeDim

    extents: list[Any] = []
    for part in text.split(","):
        low, is_range, high = part.partition("..")
        try:
            extents.append(RangeDim(int(low), int(high or -1)) if is_range else int(part))
        except ValueError:
            raise click.UsageError(
                f"shape {text!r}: write extents with commas, ranges with two dots: 1,3,1..512,64"
            ) from None
    return extents


def _outputs(names: tuple[str, ...], images: tuple[str, ...]) -> Any:
    from mlferry.converters.types import ImageType, TensorType

    types: list[Any] = [TensorType(name) for name in names if name not in images]
    return [*types, *(ImageType(name) for name in images)] or None
