"""`mlferry export`."""

from __future__ import annotations

from pathlib import Path

import click

from mlferry.cli import options
from mlferry.cli.common import (
    custom_classes_option,
    json_option,
    model_argument,
    pairs,
    print_json,
    run_file,
)

EPILOG = """\b
examples:
  mlferry export net.mlmodel net.onnx
  mlferry export reader.mlmodel reader.onnx --pixels
  mlferry export net.mlmodel net.onnx --shape image=batch,3,height,width
  mlferry export net.mlpackage net.onnx --precision exact
"""


@click.command(epilog=EPILOG)
@model_argument
@click.argument("target", type=options.FILE, metavar="FILE.onnx")
@options.flag("--pixels", "Image inputs take pixels, scaled and ordered in the graph.")
@options.repeated(
    "--shape",
    "shapes",
    "NAME=SHAPE",
    "Shape of an input; a word in place of a number names an extent that varies.",
)
@options.choice(
    "--precision",
    ["half", "exact"],
    "Of ML Programs: whether values of float16 are rounded where the program does.",
)
@custom_classes_option
@json_option
def export(
    model: Path,
    target: Path,
    pixels: bool,
    shapes: tuple[str, ...],
    precision: str | None,
    custom: Path | None,
    as_json: bool,
) -> None:
    """Write MODEL, a neural network or ML Program, as the ONNX model FILE.onnx."""
    from mlferry.models.export import export_onnx

    run_file(custom)
    input_shapes = {name: _shape(text) for name, text in pairs(shapes, "shapes").items()}
    message = export_onnx(
        model, target, input_shapes=input_shapes, pixels=pixels, precision=precision
    )
    count = len(message.graph.node)
    custom_ops = sorted({node.op_type for node in message.graph.node if node.domain})
    if as_json:
        names = [
            [value.name for value in part] for part in (message.graph.input, message.graph.output)
        ]
        print_json(
            {
                "path": target,
                "nodes": count,
                "inputs": names[0],
                "outputs": names[1],
                "custom": custom_ops,
            }
        )
        return
    click.echo(f"{count} node{'' if count == 1 else 's'} written to {target}")
    if custom_ops:
        click.echo(f"custom ops that it needs: {', '.join(custom_ops)}")


def _shape(text: str) -> list[int | str]:
    """``batch,3,224,224``."""
    extents: list[int | str] = []
    for part in text.split(","):
        word = part.strip()
        if not word or (word.lstrip("-").isdigit() and int(word) < 1):
            raise click.UsageError(f"shape {text!r}: write extents with commas: batch,3,224,224")
        extents.append(int(word) if word.isdigit() else word)
    return extents
