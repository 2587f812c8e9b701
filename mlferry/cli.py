"""The `mlferry` command: convert, predict, inspect."""

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
