"""The `mlferry` command: convert, predict, quantize, compare, inspect."""

from __future__ import annotations

import argparse
import json
import logging
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlferry.errors import MissingDependencyError, MlferryError, ModelFileError

logger = logging.getLogger("mlferry")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 1 after an error, 2 for wrong usage."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except MlferryError as error:
        if arguments.debug:
            raise
        sys.stderr.write(f"mlferry: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlferry", description="Keras models to Core ML, run and checked without a Mac."
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    convert = commands.add_parser(
        "convert",
        help="convert a model to .mlmodel",
        epilog="example: mlferry convert digits.h5 digits.mlmodel --custom hooks.py",
    )
    convert.add_argument("source", nargs="+", help="an .h5 or .keras file, or .json and .h5")
    convert.add_argument("target", help="the .mlmodel file to write")
    convert.add_argument(
        "--custom", metavar="FILE", help="Python file with custom_conversion_functions = {...}"
    )
    convert.add_argument(
        "--add-custom-layers",
        action="store_true",
        help="make a custom layer of every layer without a converter",
    )
    convert.add_argument("--deployment-target", metavar="SYSTEM", help='e.g. "iOS13"')
    convert.set_defaults(run=_convert)

    predict = commands.add_parser(
        "predict",
        help="evaluate a model on one sample",
        epilog="example: mlferry predict digits.mlmodel image=digit.npy --custom layers.py",
    )
    predict.add_argument("model", help="an .mlmodel file")
    predict.add_argument(
        "inputs", nargs="+", metavar="NAME=FILE", help=".npy array, or picture for image inputs"
    )
    predict.add_argument(
        "--custom", metavar="FILE", help="Python file that registers custom layer classes"
    )
    predict.add_argument("--out", metavar="FILE", help="write the outputs to an .npz file")
    predict.set_defaults(run=_predict)

    quantize = commands.add_parser(
        "quantize",
        help="write a model with smaller weights",
        epilog="example: mlferry quantize net.mlmodel -o small.mlmodel --bits 8 --mode kmeans",
    )
    quantize.add_argument("model", help="an .mlmodel file")
    quantize.add_argument("-o", "--out", required=True, help="the .mlmodel file to write")
    quantize.add_argument("--bits", type=int, required=True, help="1 to 8, or 16 for half")
    quantize.add_argument("--mode", default="linear", help="linear, kmeans, ... (linear)")
    quantize.add_argument("--samples", metavar="FOLDER", help="pictures to keep outputs close on")
    quantize.add_argument(
        "--custom", metavar="FILE", help="Python file that registers custom layer classes"
    )
    quantize.set_defaults(run=_quantize)

    compare = commands.add_parser(
        "compare",
        help="compare two models on a folder of pictures",
        epilog="example: mlferry compare net.mlmodel small.mlmodel photos/",
    )
    compare.add_argument("models", nargs=2, metavar="MODEL", help="two .mlmodel files")
    compare.add_argument("folder", help="jpg, png, bmp or webp pictures")
    compare.add_argument(
        "--custom", metavar="FILE", help="Python file that registers custom layer classes"
    )
    compare.add_argument("--json", action="store_true", help="all numbers, for scripts")
    compare.set_defaults(run=_compare)

    inspect = commands.add_parser("inspect", help="show what a model is")
    inspect.add_argument("model", help="an .mlmodel file")
    inspect.set_defaults(run=_inspect)
    return parser


def _convert(arguments: argparse.Namespace) -> None:
    from mlferry.converters.convert import convert

    sources = arguments.source
    hooks = _run_file(arguments.custom).get("custom_conversion_functions", {})
    model = convert(
        sources[0] if len(sources) == 1 else tuple(sources),
        custom_conversion_functions=hooks,
        add_custom_layers=arguments.add_custom_layers,
        minimum_deployment_target=arguments.deployment_target,
    )
    path = model.save(arguments.target)
    sys.stdout.write(f"{model!r}\nwritten to {path}\n")


def _predict(arguments: argparse.Namespace) -> None:
    from mlferry.models.model import MLModel

    _run_file(arguments.custom)
    model = MLModel(arguments.model)
    data = dict(_input(item) for item in arguments.inputs)
    outputs = model.predict(data)
    assert isinstance(outputs, dict)
    if arguments.out:
        _write_arrays(Path(arguments.out), outputs)
        return
    shown = {name: _plain(value) for name, value in outputs.items()}
    sys.stdout.write(json.dumps(shown, indent=2) + "\n")


def _quantize(arguments: argparse.Namespace) -> None:
    from mlferry.models.model import MLModel
    from mlferry.models.quantization import quantize_weights

    _run_file(arguments.custom)
    model = MLModel(arguments.model)
    small = quantize_weights(model, arguments.bits, arguments.mode, arguments.samples)
    path = small.save(arguments.out)
    before, after = Path(arguments.model).stat().st_size, path.stat().st_size
    sys.stdout.write(f"{small!r}\nwritten to {path}: {before / after:.2f} times smaller\n")


def _compare(arguments: argparse.Namespace) -> None:
    from mlferry.models.compare import compare_models
    from mlferry.models.model import MLModel

    _run_file(arguments.custom)
    first, second = (MLModel(path) for path in arguments.models)
    report = compare_models(first, second, arguments.folder)
    shown = json.dumps(report.to_dict(), default=_plain) if arguments.json else str(report)
    sys.stdout.write(f"{shown}\n")


def _inspect(arguments: argparse.Namespace) -> None:
    from mlferry.models.model import MLModel

    sys.stdout.write(f"{MLModel(arguments.model)!r}\n")


def _run_file(path: str | None) -> Mapping[str, Any]:
    """What the user's own Python file defines."""
    if path is None:
        return {}
    if not Path(path).is_file():
        raise ModelFileError(f"there is no file {path}")
    return runpy.run_path(path)


def _input(item: str) -> tuple[str, Any]:
    name, separator, path = item.partition("=")
    if not separator:
        raise ModelFileError(f"{item!r}: inputs are written NAME=FILE")
    try:
        if path.endswith(".npy"):
            return name, np.load(path, allow_pickle=False)
        return name, _picture(path)
    except (OSError, ValueError) as error:
        raise ModelFileError(f"cannot read {path}: {error}") from error


def _picture(path: str) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError(
            "reading pictures needs Pillow: pip install 'mlferry[images]'"
        ) from error
    with Image.open(path) as image:
        image.load()
        return image


def _write_arrays(path: Path, outputs: Mapping[str, Any]) -> None:
    import io

    from mlferry.spec.io import write_atomic

    buffer = io.BytesIO()
    arrays = {name: np.asarray(_plain_labels(value)) for name, value in outputs.items()}
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())


def _plain_labels(value: Any) -> Any:
    return list(value.values()) if isinstance(value, Mapping) else value


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


if __name__ == "__main__":
    sys.exit(main())
