"""`mlferry scaffold`."""

from __future__ import annotations

from pathlib import Path

import click

from mlferry.cli.common import FILE, json_option, model_argument, print_json

EPILOG = """\b
examples:
  mlferry scaffold digits.mlmodel
  mlferry scaffold digits.mlmodel -o Sources/Layers --gpu
  mlferry scaffold digits.mlmodel --language python -o .
"""


@click.command(epilog=EPILOG)
@model_argument
@click.option(
    "-o",
    "--out",
    default=Path(),
    type=FILE,
    metavar="FOLDER",
    help="Where to write the files; by default here.",
)
@click.option(
    "--language",
    type=click.Choice(["swift", "python", "both"]),
    default="both",
    show_default=True,
    help="Which classes are written.",
)
@click.option("--gpu", is_flag=True, help="Add encode(commandBuffer:inputs:outputs:) in Swift.")
@click.option("--force", is_flag=True, help="Write over files that are there.")
@json_option
def scaffold(model: Path, out: Path, language: str, gpu: bool, force: bool, as_json: bool) -> None:
    """Write the classes that MODEL's custom layers and custom models need."""
    from mlferry.models.scaffold import python_files, swift_files, write_files
    from mlferry.spec.io import load_spec

    spec = load_spec(model)
    files: dict[str, str] = {}
    if language != "python":
        files |= swift_files(spec, gpu=gpu)
    if language != "swift":
        files |= python_files(spec)
    written = write_files(files, out, force=force)
    if as_json:
        print_json([str(path) for path in written])
    else:
        for path in written:
            click.echo(f"written to {path}")
