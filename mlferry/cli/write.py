"""`mlferry scaffold` and `mlferry examples`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from mlferry.cli import options
from mlferry.cli.common import (
    custom_classes_option,
    json_option,
    model_argument,
    print_json,
    run_file,
)

EPILOG = """\b
examples:
  mlferry scaffold digits.mlmodel
  mlferry scaffold digits.mlmodel -o Sources/Layers --gpu
  mlferry scaffold digits.mlmodel --language python -o .
  mlferry scaffold digits.mlmodel --test image=digit.npy --custom grid_sampler.py
  mlferry scaffold digits.mlmodel --app DigitReader --test image=digit.npy -o DigitReader
"""
EXAMPLES_EPILOG = """\b
example:
  mlferry examples digits
"""


@click.command(epilog=EPILOG)
@model_argument
@click.option(
    "-o",
    "--out",
    default=Path(),
    type=options.FILE,
    metavar="FOLDER",
    help="Where to write the files; by default here.",
)
@options.choice(
    "--language", ["swift", "python", "both"], "The language of the classes.", default="both"
)
@options.flag("--gpu", "Add encode(commandBuffer:inputs:outputs:) in Swift.")
@options.flag(
    "--accelerate",
    "Compute with Accelerate what is written whole: layers of single values, with --custom.",
)
@options.repeated(
    "--test",
    "sample",
    "NAME=FILE",
    "Also write a unit test in Swift, with what the Python classes give for this input.",
)
@options.value(
    "--app",
    "NAME",
    "Write a Swift package around the model instead, with tests that compare with what it "
    "gives here for the sample of --test.",
)
@custom_classes_option
@options.flag("--force", "Overwrite existing files.")
@json_option
def scaffold(
    model: Path,
    out: Path,
    language: str,
    gpu: bool,
    accelerate: bool,
    sample: tuple[str, ...],
    app: str | None,
    custom: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write the classes that MODEL's custom layers and custom models need."""
    from mlferry.cli.run import sample_of
    from mlferry.models.model import MLModel
    from mlferry.models.scaffold import (
        app_files,
        python_files,
        swift_files,
        swift_tests,
        write_files,
    )
    from mlferry.spec.io import load_spec

    if app is not None and not sample:
        raise click.UsageError("--app compares with a sample: add --test NAME=FILE")
    spec = load_spec(model)
    files: dict[str, str | bytes] = {}
    if app is not None:
        run_file(custom)
        loaded = MLModel(spec, images="array")
        _written(
            write_files(app_files(loaded, app, sample_of(sample, loaded)), out, force=force),
            as_json,
        )
        return
    run_file(custom)
    if language != "python":
        files |= swift_files(spec, gpu=gpu, accelerate=accelerate)
    if language != "swift":
        files |= python_files(spec)
    if sample:
        loaded = MLModel(spec)
        files |= swift_tests(loaded, sample_of(sample, loaded))
    _written(write_files(files, out, force=force), as_json)


def _written(paths: list[Path], as_json: bool) -> None:
    if as_json:
        print_json([str(path) for path in paths])
        return
    for path in paths:
        click.echo(f"written to {path}")


@click.command(epilog=EXAMPLES_EPILOG)
@click.argument("folder", type=options.FILE)
@json_option
def examples(folder: Path, as_json: bool) -> None:
    """Write the files of README and guides into FOLDER: models, samples, pictures, code."""
    from mlferry import examples as files

    target = files.copy(folder)
    if as_json:
        print_json([str(target / name) for name in files.names()])
        return
    there = shlex.quote(str(target))
    click.echo(f"{len(files.names())} files written to {target}; go there with: cd {there}")
