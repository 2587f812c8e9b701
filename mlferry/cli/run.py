"""`mlferry predict`."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from mlferry.cli import options
from mlferry.cli.common import (
    custom_classes_option,
    model_argument,
    print_json,
    run_file,
    run_options,
)
from mlferry.errors import ModelFileError
from mlferry.spec.features import FeatureType, show

if TYPE_CHECKING:
    from mlferry.models.model import MLModel

EPILOG = """\b
examples:
  mlferry predict net.mlmodel cat.jpg
  mlferry predict digits.mlmodel image=digit.npy --custom grid_sampler.py --out digit.npz
  mlferry predict net.mlmodel image=cat.jpg --engine onnxruntime --threads 2
  mlferry predict net.mlmodel image=cat.jpg --json | jq .classLabel
"""


@click.command(epilog=EPILOG)
@model_argument
@click.argument("inputs", nargs=-1, required=True, metavar="NAME=FILE...")
@custom_classes_option
@options.file("--out", "FILE.npz", "Write the outputs to an .npz file.")
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON: every class of a classifier.")
def predict(
    model: Path,
    inputs: tuple[str, ...],
    custom: Path | None,
    out: Path | None,
    engine: str,
    threads: int | None,
    precision: str,
    function: str | None,
    as_json: bool,
) -> None:
    """Evaluate MODEL on one sample: .npy arrays, or pictures for image inputs.

    Pictures are scaled to cover the input's size, their shape kept, and cut to the middle. NAME=
    may be omitted if the model has one input. Of a classifier it prints the likeliest classes,
    of other models JSON.
    """
    from mlferry.models.model import MLModel
    from mlferry.models.ranking import ranking

    run_file(custom)
    loaded = MLModel(
        model,
        engine=engine,
        threads=threads,
        precision=precision,
        function_name=function,
        images="array",
    )
    outputs = loaded.predict(sample_of(inputs, loaded))
    assert isinstance(outputs, dict)
    if out is not None:
        _write_arrays(out, outputs)
        return
    ranked = ranking(loaded.spec.description, outputs)
    if as_json or ranked is None:
        print_json(outputs)
    else:
        click.echo(str(ranked))


def sample_of(items: Iterable[str], model: MLModel) -> dict[str, Any]:
    """A sample of ``NAME=FILE`` arguments: arrays, and pictures for image inputs.

    The name may be omitted if the model has one input.

    Raises:
        ModelFileError: a file cannot be read, or does not fit its input. click.UsageError: an
            argument has another form.
    """
    types = {feature.name: feature.type for feature in model.get_spec().description.input}
    arguments = list(items)
    if len(types) == len(arguments) == 1 and "=" not in arguments[0]:
        arguments = [f"{next(iter(types))}={arguments[0]}"]
    return dict(_input(item, types) for item in arguments)


def _input(item: str, types: Mapping[str, FeatureType]) -> tuple[str, Any]:
    from mlferry.models.samples import picture_for

    name, separator, path = item.partition("=")
    if not separator:
        raise click.UsageError(f"{item!r}: inputs are written NAME=FILE")
    try:
        if path.endswith(".npy"):
            return name, np.load(path, allow_pickle=False)
        if name in types and types[name].HasField("imageType"):
            return name, picture_for(types[name].imageType, Path(path))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"cannot read {path}: {error}") from error
    if name in types:
        described = show(types[name])
        raise ModelFileError(
            f"{item}: {name} is {described}; its file is an array, .npy. For pictures, convert the "
            f"model with --image {name}"
        )
    return name, None  # predict tells which inputs there are


def _write_arrays(path: Path, outputs: Mapping[str, Any]) -> None:
    from mlferry.spec.io import write_atomic

    buffer = io.BytesIO()
    arrays = {
        name: np.asarray(list(value.values()) if isinstance(value, Mapping) else value)
        for name, value in outputs.items()
    }
    # as numpy.savez, which takes no array that is named as one of its own parameters, "file"
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
    write_atomic(path, buffer.getvalue())
