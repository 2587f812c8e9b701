"""`mlferry upgrade`."""

from __future__ import annotations

from pathlib import Path

import click

from mlferry.cli import options
from mlferry.cli.common import (
    custom_classes_option,
    json_option,
    model_argument,
    precision_of,
    run_file,
    save,
)

EPILOG = """\b
examples:
  mlferry upgrade net.mlmodel net.mlpackage
  mlferry upgrade net.mlmodel net.mlpackage --precision float32
  mlferry upgrade net.mlmodel net.mlpackage --keep softmax --keep logits
  mlferry upgrade speller.mlmodel speller.mlpackage --states
"""


@click.command(epilog=EPILOG)
@model_argument
@click.argument("target", type=options.FILE, metavar="FILE.mlpackage")
@options.choice(
    "--precision", ["float16", "float32"], "The precision to compute with.", default="float16"
)
@click.option(
    "--keep",
    multiple=True,
    metavar="NAME",
    help="A value to keep in float32, as `mlferry precision` lists them; repeat it for another.",
)
@click.option(
    "--deployment-target",
    "--target",
    "deployment_target",
    metavar="SYSTEM",
    help='Fail if the program needs a newer system than this, e.g. "iOS16".',
)
@options.flag(
    "--states", "Make states of inputs NAME_in and outputs NAME_out, and of past... and present...."
)
@custom_classes_option
@json_option
def upgrade(
    model: Path,
    target: Path,
    precision: str,
    keep: tuple[str, ...],
    deployment_target: str | None,
    states: bool,
    custom: Path | None,
    as_json: bool,
) -> None:
    """Write MODEL, a neural network of any year, as the ML Program FILE.mlpackage."""
    from mlferry.models.programs import to_program

    run_file(custom)
    program = to_program(
        model,
        compute_precision=precision_of(precision, keep),
        minimum_deployment_target=deployment_target,
        states=states,
    )
    save(program, target, as_json=as_json)
