"""`mlferry inspect`, `view`, `validate`, `precision` and `verify`."""

from __future__ import annotations

import sys
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

INSPECT_EPILOG = """\b
examples:
  mlferry inspect net.mlmodel
  mlferry inspect net.mlmodel --json | jq .dependencies
  mlferry inspect net.mlmodel --html net.html
  mlferry inspect small.mlpackage --against net.mlpackage
"""
VIEW_EPILOG = """\b
examples:
  mlferry view net.mlmodel
  mlferry view net.mlmodel -o net.html --no-open
  mlferry view net.mlmodel --shape image=1,3,512,512
  mlferry view net.mlmodel --netron
"""
VALIDATE_EPILOG = """\b
example:
  mlferry validate net.mlmodel && echo fine
"""
PRECISION_EPILOG = """\b
examples:
  mlferry precision net.mlpackage photos/
  mlferry precision net.mlpackage photos/ --html precision.html
  mlferry precision net.mlpackage photos/ --json | jq .keep_in_float32
"""

against_option = options.file(
    "--against", "MODEL", "The model before compression: show how far each weight is from it."
)

VERIFY_EPILOG = """\b
examples:
  mlferry verify net.onnx net.mlmodel
  mlferry verify net.keras net.mlpackage --samples arrays/ --tolerance 0.01
  mlferry verify saved_model/ net.mlmodel --json | jq .agrees
"""


@click.command(epilog=INSPECT_EPILOG)
@model_argument
@json_option
@options.file("--html", "FILE.html", "Write the facts as a page.")
@against_option
def inspect(model: Path, as_json: bool, html: Path | None, against: Path | None) -> None:
    """Show what MODEL is: interface, dependencies, precision, systems, layers, problems."""
    from mlferry.models.inspect import describe
    from mlferry.models.inspect_html import page
    from mlferry.models.problems import read, validate as check
    from mlferry.spec.io import write_atomic

    spec, weights = read(model)
    original = None if against is None else read(against)
    facts = describe(spec, check(spec, weights), weights, original)
    if html is not None:
        write_atomic(html, page(facts, model.name).encode())
    if as_json:
        print_json(facts.to_dict())
    elif html is not None:
        click.echo(f"written to {html}")
    elif sys.stdout.isatty():
        from rich.console import Console

        from mlferry.models.inspect_rich import renderables

        Console().print(*renderables(facts))
    else:
        click.echo(str(facts))


@click.command(epilog=VIEW_EPILOG)
@model_argument
@click.option(
    "-o",
    "--out",
    type=options.FILE,
    metavar="FILE.html",
    help="The page to write; by default a temporary file.",
)
@click.option("--open/--no-open", "opens", default=True, help="Open it in the browser.")
@options.repeated(
    "--shape", "shapes", "NAME=SHAPE", "Shape of an input, where it is flexible: image=1,3,512,512."
)
@options.flag("--netron", "Open the model in Netron instead.")
@against_option
@custom_classes_option
def view(
    model: Path,
    out: Path | None,
    opens: bool,
    shapes: tuple[str, ...],
    netron: bool,
    against: Path | None,
    custom: Path | None,
) -> None:
    """Draw MODEL as a graph, in a page of its own."""
    from mlferry.models import view as drawing
    from mlferry.models.model import MLModel
    from mlferry.models.visualize import visualize_spec

    if netron:
        drawing.open_netron(model)
        return
    run_file(custom)
    input_shapes = {
        name: drawing.parse_shape(text) for name, text in pairs(shapes, "shapes").items()
    }
    path = visualize_spec(
        MLModel(model),
        input_shapes,
        path=out,
        open_browser=opens,
        title=model.name,
        against=against,
    )
    click.echo(f"written to {path}")


@click.command(epilog=VALIDATE_EPILOG)
@model_argument
@json_option
def validate(model: Path, as_json: bool) -> int:
    """Check MODEL against the format's rules; exit code 1 if a device would refuse it."""
    from mlferry.models.problems import read, validate as check

    problems = check(*read(model))
    if as_json:
        print_json([vars(problem) for problem in problems])
    else:
        for problem in problems:
            click.echo(f"{problem.severity}: {problem}")
        if not problems:
            click.echo("no problems")
    return int(any(problem.severity != "note" for problem in problems))


@click.command(epilog=PRECISION_EPILOG)
@model_argument
@click.argument("folder", type=options.FILE)
@options.file("--html", "FILE.html", "Also write the report as a page.")
@json_option
def precision(model: Path, folder: Path, html: Path | None, as_json: bool) -> None:
    """Show where the ML Program MODEL loses accuracy by computing in float16.

    It runs in both precisions on every sample in FOLDER.
    """
    from mlferry.models.model import MLModel
    from mlferry.models.precision import check_precision
    from mlferry.spec.io import write_atomic

    report = check_precision(MLModel(model), folder)
    if html is not None:
        write_atomic(html, report.html().encode())
    if as_json:
        print_json(report.to_dict())
    else:
        click.echo(str(report))


@click.command(epilog=VERIFY_EPILOG)
@click.argument("source", type=options.FILE)
@model_argument
@options.file("--samples", "FOLDER", "Pictures or arrays to run both on; by default random values.")
@click.option(
    "--count",
    type=int,
    default=3,
    show_default=True,
    help="How many random samples to run for each size.",
)
@click.option(
    "--tolerance",
    type=float,
    help="How large a difference may be, as a part of an output's largest value; by default "
    "0.001, and 0.02 for ML Programs that compute in float16.",
)
@custom_classes_option
@json_option
def verify(
    source: Path,
    model: Path,
    samples: Path | None,
    count: int,
    tolerance: float | None,
    custom: Path | None,
    as_json: bool,
) -> int:
    """Check that MODEL gives what its SOURCE gives; exit code 1 if it does not.

    SOURCE is an .onnx, .keras or .h5 file or the folder of a SavedModel. Its own library runs it;
    nothing is converted.
    """
    from mlferry.models.verify import verify as run_both

    run_file(custom)
    result = run_both(source, model, samples, tolerance=tolerance, count=count)
    if as_json:
        print_json(result.to_dict())
    else:
        click.echo(str(result))
    return int(not result)
