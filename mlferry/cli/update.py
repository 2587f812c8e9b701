"""`mlferry update`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlferry.cli import options
from mlferry.cli.common import (
    custom_classes_option,
    json_option,
    model_argument,
    out_option,
    pairs,
    print_json,
    run_file,
)

if TYPE_CHECKING:
    from mlferry.training.options import Moment

EPILOG = """\b
examples:
  mlferry update reader.mlmodel photos/ -o mine.mlmodel --epochs 20
  mlferry update reader.mlmodel photos/ -o mine.mlmodel --set learningRate=0.01 --curve loss.png

photos/ has a folder for every label, with its pictures; or .npz files, whose arrays bear the names
of the training inputs.
"""


@click.command(epilog=EPILOG)
@model_argument
@click.argument("samples", type=options.FILE)
@out_option
@click.option("--epochs", type=int, help="How often to go through the samples.")
@options.repeated(
    "--set",
    "settings",
    "NAME=VALUE",
    "Set a parameter of the training: learningRate, momentum, beta1, beta2, eps, "
    "miniBatchSize, seed, shuffle, numberOfNeighbors.",
)
@options.file("--curve", "FILE.png", "Draw the loss of each epoch.")
@custom_classes_option
@json_option
def update(
    model: Path,
    samples: Path,
    out: Path,
    epochs: int | None,
    settings: tuple[str, ...],
    curve: Path | None,
    custom: Path | None,
    as_json: bool,
) -> None:
    """Train the updatable MODEL with the SAMPLES of a folder, as a device would."""
    from mlferry.models.curve import curve_picture, curve_text
    from mlferry.models.model import MLModel

    run_file(custom)
    loaded = MLModel(model)
    losses: list[float] = []
    with click.progressbar(
        length=1, label="training", file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:

        def tell(moment: Moment) -> None:
            losses.append(moment.loss)
            bar.length = moment.epochs
            bar.update(1)

        trained = loaded.update(samples, epochs, _parameters(settings), tell)
    path = trained.save(out)
    if curve is not None and losses:
        curve_picture(losses, curve)
    if as_json:
        print_json({"path": path, "losses": losses})
        return
    if losses:
        click.echo(f"the loss of {len(losses)} epochs: {losses[0]:.4g} to {losses[-1]:.4g}\n")
        click.echo(curve_text(losses))
    click.echo(f"written to {path}")


def _parameters(settings: tuple[str, ...]) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, text in pairs(settings, "parameters").items():
        try:
            values[name] = int(text) if text.lstrip("-").isdigit() else float(text)
        except ValueError:
            raise click.UsageError(f"{name}={text}: parameters are numbers") from None
    return values
