"""`mlferry quantize` and `mlferry compare`."""

from __future__ import annotations

from pathlib import Path

import click

from mlferry.cli.common import (
    FILE,
    custom_classes_option,
    json_option,
    model_argument,
    out_option,
    print_json,
    run_file,
)

QUANTIZE_EPILOG = """\b
examples:
  mlferry quantize net.mlmodel -o small.mlmodel --bits 8
  mlferry quantize net.mlmodel -o small.mlmodel --bits 4 --mode kmeans --samples photos/
  mlferry quantize net.mlmodel -o small.mlmodel --bits 4 --mode custom_lut --custom lut.py
"""
COMPARE_EPILOG = """\b
examples:
  mlferry compare net.mlmodel small.mlmodel photos/
  mlferry compare net.mlmodel small.mlmodel photos/ --json
"""


@click.command(epilog=QUANTIZE_EPILOG)
@model_argument
@out_option
@click.option("--bits", type=int, required=True, help="1 to 8, or 16 for half precision.")
@click.option(
    "--mode",
    default="linear",
    show_default=True,
    help="linear, linear_symmetric, linear_lut, kmeans, dequantization, or custom_lut with the "
    "lut_function of --custom.",
)
@click.option(
    "--samples", type=FILE, metavar="FOLDER", help="Pictures on which outputs are kept close."
)
@custom_classes_option
@json_option
def quantize(
    model: Path,
    out: Path,
    bits: int,
    mode: str,
    samples: Path | None,
    custom: Path | None,
    as_json: bool,
) -> None:
    """Write MODEL with weights of fewer bits."""
    from mlferry.models.model import MLModel
    from mlferry.models.quantization import quantize_weights

    defined = run_file(custom)
    table = defined.get("lut_function") if mode == "custom_lut" else None
    small = quantize_weights(MLModel(model), bits, mode, samples, lut_function=table)
    path = small.save(out)
    before, after = model.stat().st_size, path.stat().st_size
    if as_json:
        print_json(
            {"path": path, "before": before, "after": after, "model": small.describe().to_dict()}
        )
    else:
        click.echo(f"{small!r}\nwritten to {path}: {before / after:.2f} times smaller")


@click.command(epilog=COMPARE_EPILOG)
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@click.argument("folder", type=FILE)
@custom_classes_option
@click.option("--html", type=FILE, metavar="FILE.html", help="Write the report as a page, too.")
@json_option
def compare(
    first: Path, second: Path, folder: Path, custom: Path | None, html: Path | None, as_json: bool
) -> None:
    """Compare the models FIRST and SECOND on a FOLDER of pictures."""
    from mlferry.models.compare import compare_models
    from mlferry.models.model import MLModel
    from mlferry.spec.io import write_atomic

    run_file(custom)
    report = compare_models(MLModel(first), MLModel(second), folder)
    if html is not None:
        write_atomic(html, report.html(f"{first.name} and {second.name}").encode())
    if as_json:
        print_json(report.to_dict())
    else:
        click.echo(str(report))
