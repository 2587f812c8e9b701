"""`mlferry quantize`, `mlferry prune` and `mlferry compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlferry.cli import options
from mlferry.cli.common import (
    custom_classes_option,
    json_option,
    model_argument,
    out_option,
    print_json,
    run_file,
    run_options,
)

if TYPE_CHECKING:
    from mlferry.models.model import MLModel

QUANTIZE_EPILOG = """\b
examples:
  mlferry quantize net.mlmodel -o small.mlmodel --bits 8
  mlferry quantize net.mlmodel -o small.mlmodel --bits 4 --mode kmeans --samples photos/
  mlferry quantize net.mlmodel -o small.mlmodel --bits 4 --mode custom_lut --custom lut.py
  mlferry quantize net.mlpackage -o small.mlpackage --bits 4 --granularity per_block
  mlferry quantize net.mlmodel -o small.mlmodel --bits 2,3,4,6 --mean-bits 3.2 --mode kmeans \\
    --samples photos/
"""
PRUNE_EPILOG = """\b
examples:
  mlferry prune net.mlpackage -o sparse.mlpackage --sparsity 0.5
  mlferry prune net.mlpackage -o sparse.mlpackage --threshold 0.001
  mlferry prune net.mlpackage -o sparse.mlpackage --ratio 2:4
"""
COMPARE_EPILOG = """\b
examples:
  mlferry compare net.mlmodel small.mlmodel photos/
  mlferry compare net.mlmodel small.mlmodel photos/ --json
  mlferry compare net.mlmodel 8bit.mlmodel 4bit.mlmodel photos/ --html report.html
  mlferry compare net.mlmodel small.mlmodel photos/ --html report.html --engine onnxruntime
"""

joint_option = options.flag(
    "--joint", "Compress an ML Program's compressed weights further, instead of anew."
)


@click.command(epilog=QUANTIZE_EPILOG)
@model_argument
@out_option
@click.option(
    "--bits",
    required=True,
    help="1 to 8, or 16 for half precision; with --mean-bits several, such as 2,3,4,6.",
)
@click.option("--mean-bits", type=float, help="More bits for the weights that need them: the mean.")
@options.preset(
    "--mode",
    "linear",
    "linear, linear_symmetric, linear_lut, kmeans, dequantization, or custom_lut with the "
    "lut_function of --custom.",
)
@options.file("--samples", "FOLDER", "Pictures on which to keep the outputs close.")
@options.choice(
    "--granularity",
    ["per_tensor", "per_channel", "per_block", "per_grouped_channel"],
    "What gets a scale or a table of its own (ML Programs).",
)
@options.preset(
    "--block-size",
    "32",
    "Inputs of a block; of tables 0 is all, and with --mean-bits several, such as 0,4,16.",
)
@options.preset(
    "--group-size",
    "32",
    "Output channels of a group, or of a block of tables; 0 and several likewise.",
)
@options.preset(
    "--cluster-dim",
    "1",
    "Of ML Programs: how many weights an entry of a table stands for; with --mean-bits "
    "several, such as 1,2.",
)
@joint_option
@custom_classes_option
@json_option
def quantize(
    model: Path,
    out: Path,
    bits: str,
    mean_bits: float | None,
    mode: str,
    samples: Path | None,
    granularity: str | None,
    block_size: str,
    group_size: str,
    cluster_dim: str,
    joint: bool,
    custom: Path | None,
    as_json: bool,
) -> None:
    """Write MODEL with weights of fewer bits; a network as an .mlpackage becomes an ML Program."""
    from mlferry.models.model import MLModel
    from mlferry.models.quantization import quantize_weights

    choice = _integers("--bits", bits, "2,3,4,6")
    inputs = _integers("--block-size", block_size, "0,4,16")
    outputs = _integers("--group-size", group_size, "0,4")
    lengths = _integers("--cluster-dim", cluster_dim, "1,2")
    defined = run_file(custom)
    table = defined.get("lut_function") if mode == "custom_lut" else None
    small = quantize_weights(
        MLModel(model),
        choice,
        mode,
        samples,
        mean_bits=mean_bits,
        lut_function=table,
        granularity=granularity,
        block_size=inputs,
        group_size=outputs,
        cluster_dim=lengths,
        joint_compression=joint,
        convert_to="mlprogram" if out.suffix == ".mlpackage" else None,
    )
    _written(small, model, out, as_json)


def _integers(option: str, given: str, several: str) -> int | list[int]:
    """One integer, or several with commas between them."""
    try:
        numbers = [int(each) for each in given.split(",")]
        return numbers if len(numbers) > 1 else numbers[0]
    except ValueError:
        raise click.UsageError(f"{option} {given}: write it as 4, or as {several}") from None


def _written(small: MLModel, model: Path, out: Path, as_json: bool) -> None:
    """Save a smaller model, and say how much smaller it is."""
    path = small.save(out)
    before, after = _size(model), _size(path)
    if as_json:
        print_json(
            {"path": path, "before": before, "after": after, "model": small.describe().to_dict()}
        )
    else:
        click.echo(f"{small!r}\nwritten to {path}: {before / after:.2f} times smaller")


def _size(path: Path) -> int:
    """The bytes of a file, or of the files of a package."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


@click.command(epilog=PRUNE_EPILOG)
@model_argument
@out_option
@click.option("--sparsity", type=float, help="The fraction of each weight to set to zero.")
@click.option("--threshold", type=float, help="Set values up to this magnitude to zero.")
@options.value("--ratio", "N:M", "Set N of every M consecutive inputs to zero.")
@joint_option
@json_option
def prune(
    model: Path,
    out: Path,
    sparsity: float | None,
    threshold: float | None,
    ratio: str | None,
    joint: bool,
    as_json: bool,
) -> None:
    """Write MODEL as an ML Program without its smallest weights."""
    from mlferry.models.model import MLModel
    from mlferry.models.pruning import prune_weights

    pair = None
    if ratio is not None:
        n, colon, m = ratio.partition(":")
        if not (colon and n.isdigit() and m.isdigit()):
            raise click.UsageError(f"--ratio {ratio}: write it as 2:4")
        pair = int(n), int(m)
    small = prune_weights(
        MLModel(model),
        sparsity=sparsity,
        threshold=threshold,
        n_m_ratio=pair,
        joint_compression=joint,
    )
    _written(small, model, out, as_json)


@click.command(epilog=COMPARE_EPILOG)
@click.argument(
    "paths", nargs=-1, required=True, type=options.FILE, metavar="FIRST OTHER... FOLDER"
)
@custom_classes_option
@run_options
@options.flag("--nested", "Include pictures in the subfolders of FOLDER.")
@options.file("--html", "FILE.html", "Also write the report as a page.")
@json_option
def compare(
    paths: tuple[Path, ...],
    custom: Path | None,
    engine: str,
    threads: int | None,
    precision: str,
    function: str | None,
    nested: bool,
    html: Path | None,
    as_json: bool,
) -> None:
    """Compare the model FIRST with others on a FOLDER of pictures or arrays, or on one of them.

    The page of --html has the samples that agree least with both answers, agreement by class, and
    the difference over the depth of the network; of several models their sizes and agreement.
    """
    from mlferry.models.compare import compare_models
    from mlferry.models.compare_html import page
    from mlferry.models.model import MLModel
    from mlferry.spec.io import write_atomic

    if len(paths) < 3:
        raise click.UsageError("say what to compare: mlferry compare FIRST SECOND FOLDER")
    first, *others, folder = paths
    run_file(custom)
    reference, *models = (
        MLModel(path, engine=engine, threads=threads, precision=precision, function_name=function)
        for path in (first, *others)
    )
    reports = {
        str(path): compare_models(reference, model, folder, nested=nested, depth=html is not None)
        for path, model in zip(others, models, strict=True)
    }
    if html is not None:
        names = f"{first.name} and {', '.join(path.name for path in others)}"
        write_atomic(html, page(reports, names).encode())
    if as_json:
        plain = {name: report.to_dict() for name, report in reports.items()}
        print_json(plain if len(plain) > 1 else next(iter(plain.values())))
        return
    for name, report in reports.items():
        click.echo(f"{name}: {report}" if len(reports) > 1 else str(report))
    if html is not None:
        click.echo(f"\nwritten to {html}")
