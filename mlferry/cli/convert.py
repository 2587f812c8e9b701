"""`mlferry convert`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mlferry.cli.common import FILE, json_option, numbers, pairs, print_json, run_file
from mlferry.errors import SpecError

EPILOG = """\b
examples:
  mlferry convert digits.h5 digits.mlmodel --custom hooks.py
  mlferry convert net.onnx net.mlmodel --image data --scale 0.00392 --labels labels.txt
  mlferry convert net.onnx net.mlmodel --shape data=1,3,1..512,1..512 --target iOS14
  mlferry convert model.json weights.h5 model.mlmodel
  mlferry convert saved_model/ model.mlmodel
  mlferry convert net.onnx net.mlpackage --target iOS16
"""


@click.command(epilog=EPILOG)
@click.argument("paths", nargs=-1, required=True, type=FILE, metavar="SOURCE... TARGET")
@click.option("-o", "--out", type=FILE, metavar="FILE", help="The same as TARGET.")
@click.option(
    "--custom",
    type=FILE,
    metavar="FILE.py",
    help="Python file with custom_conversion_functions = {...}.",
)
@click.option(
    "--add-custom-layers",
    is_flag=True,
    help="Make a custom layer of every layer without a converter.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="NAME",
    help="Make this input an image; again for another input.",
)
@click.option(
    "--color",
    metavar="LAYOUT",
    type=click.Choice(["RGB", "BGR", "GRAYSCALE"], case_sensitive=False),
    help="Order of the channels of images: RGB, BGR or GRAYSCALE.",
)
@click.option(
    "--scale", metavar="NUMBERS", help="Pixels are multiplied by it; one, or one a channel."
)
@click.option(
    "--bias",
    metavar="NUMBERS",
    help="Added to scaled pixels; one number, or one a channel: -104,-117,-123.",
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=SHAPE",
    help="Shape of an input, batch included: data=1,3,224,224; 1..512 for a range.",
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="NAME",
    help="An output that is wanted; by default all.",
)
@click.option(
    "--output-image",
    "output_images",
    multiple=True,
    metavar="NAME",
    help="Make this output an image.",
)
@click.option("--labels", type=FILE, metavar="FILE", help="Make a classifier; one label a line.")
@click.option(
    "--deployment-target",
    "--target",
    "deployment_target",
    metavar="SYSTEM",
    help='Fail where a newer system is needed than this, e.g. "iOS13".',
)
@click.option(
    "--to",
    "convert_to",
    type=click.Choice(["neuralnetwork", "mlprogram"]),
    help="What is written; by default an ML Program where TARGET is an .mlpackage.",
)
@click.option(
    "--precision",
    type=click.Choice(["float16", "float32"]),
    help="What an ML Program computes with; by default float16.",
)
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
    outputs: tuple[str, ...],
    output_images: tuple[str, ...],
    labels: Path | None,
    deployment_target: str | None,
    convert_to: str | None,
    precision: str | None,
    as_json: bool,
) -> None:
    """Convert SOURCE, a Keras, ONNX or TensorFlow model, to TARGET.

    An .mlmodel file is a neural network, an .mlpackage an ML Program.
    """
    from mlferry.converters.convert import convert as convert_model
    from mlferry.converters.types import ClassifierConfig

    source, target = (paths, out) if out is not None else (paths[:-1], paths[-1])
    if not source:
        target = paths[0].with_suffix(".mlmodel")
        raise click.UsageError(f"say where to write: mlferry convert {paths[0]} {target.name}")
    hooks = run_file(custom).get("custom_conversion_functions", {})
    if not isinstance(hooks, Mapping):
        raise SpecError(f"custom_conversion_functions in {custom} is no dict")
    model = convert_model(
        str(source[0]) if len(source) == 1 else tuple(map(str, source)),
        inputs=_inputs(images, pairs(shapes, "shapes"), _pixels(color, scale, bias)),
        outputs=_outputs(outputs, output_images),
        classifier_config=ClassifierConfig(labels) if labels is not None else None,
        custom_conversion_functions=hooks,
        add_custom_layers=add_custom_layers,
        minimum_deployment_target=deployment_target,
        convert_to=convert_to or ("mlprogram" if target.suffix == ".mlpackage" else None),
        compute_precision=precision,
    )
    path = model.save(target)
    if as_json:
        print_json({"path": path, "model": model.describe().to_dict()})
    else:
        click.echo(f"{model!r}\nwritten to {path}")


def _pixels(color: str | None, scale: str | None, bias: str | None) -> dict[str, Any]:
    made: dict[str, Any] = {"color_layout": color.upper() if color else None}
    for name, text in (("scale", scale), ("bias", bias)):
        if text is not None:
            found = numbers(text, name)
            made[name] = found[0] if len(found) == 1 else found
    return made


def _inputs(images: tuple[str, ...], shapes: Mapping[str, str], pixels: dict[str, Any]) -> Any:
    from mlferry.converters.types import ImageType, TensorType

    if any(value is not None for value in pixels.values()) and not images:
        raise SpecError("--color, --scale and --bias are for images: add --image NAME")
    made: list[Any] = [
        ImageType(name, _shape(shapes[name]) if name in shapes else None, **pixels)
        for name in images
    ]
    made += [TensorType(name, _shape(shapes[name])) for name in shapes if name not in images]
    return made or None


def _shape(text: str) -> list[Any]:
    from mlferry.converters.types import RangeDim

    made: list[Any] = []
    for part in text.split(","):
        low, is_range, high = part.partition("..")
        try:
            made.append(RangeDim(int(low), int(high or -1)) if is_range else int(part))
        except ValueError:
            raise SpecError(
                f"shape {text!r}: write extents with commas, ranges with two dots: 1,3,1..512,64"
            ) from None
    return made


def _outputs(names: tuple[str, ...], images: tuple[str, ...]) -> Any:
    from mlferry.converters.types import ImageType, TensorType

    made: list[Any] = [TensorType(name) for name in names if name not in images]
    return [*made, *(ImageType(name) for name in images)] or None
