"""Templates of the classes that a model with custom layers or custom models needs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from mlferry.custom import CustomLayer
from mlferry.errors import ModelFileError
from mlferry.models.scaffold.app import app_files
from mlferry.models.scaffold.elementwise import elementwise
from mlferry.models.scaffold.needs import needs_of
from mlferry.models.scaffold.python import python_class
from mlferry.models.scaffold.swift import swift_class
from mlferry.models.scaffold.swift_test import swift_tests
from mlferry.spec import io, networks
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn

__all__ = ["app_files", "python_files", "swift_files", "swift_tests", "write_files"]


def swift_files(
    spec: model_pb2.Model,
    *,
    gpu: bool = False,
    accelerate: bool = False,
    classes: Mapping[str, type[CustomLayer]] = MappingProxyType({}),
) -> dict[str, str]:
    """A Swift file for each class, text by file name.

    Args:
        spec: a model with custom layers or custom models, inside of a pipeline too.
        gpu: whether custom layers also get the method that encodes for Metal.
        accelerate: whether complete classes use Accelerate on the CPU.
        classes: Python classes of custom layers by name, beside those that are registered. A class
            that computes each value by itself, with a function that mlferry knows, is complete.

    Raises:
        SpecError: the model needs no class.
    """
    users = _users(spec)
    files = {}
    for need in needs_of(spec):
        layers = users.get(need.class_name, [])
        arithmetic = elementwise(layers, classes) if layers and not need.is_model else None
        files[f"{need.identifier}.swift"] = swift_class(
            need, gpu=gpu, arithmetic=arithmetic, accelerate=accelerate
        )
    return files


def _users(spec: model_pb2.Model) -> dict[str, list[nn.NeuralNetworkLayer]]:
    """The custom layers of all networks by their class."""
    by_class: dict[str, list[nn.NeuralNetworkLayer]] = {}
    for model in networks.models_in(spec):
        network = networks.network_of(model)
        for layer in networks.layers_of(network) if network is not None else ():
            if layer.HasField("custom"):
                by_class.setdefault(layer.custom.className, []).append(layer)
    return by_class


def python_files(spec: model_pb2.Model) -> dict[str, str]:
    """A Python file for each class, for mlferry's own runtime; text by file name.

    Raises:
        SpecError: the model needs no class.
    """
    return {f"{need.module}.py": python_class(need) for need in needs_of(spec)}


def write_files(
    files: Mapping[str, str | bytes], folder: str | os.PathLike[str], *, force: bool = False
) -> list[Path]:
    """Write files into a folder, creating folders as needed, and return their paths.

    Raises:
        ModelFileError: a file exists already and `force` is not set; nothing is written.
    """
    paths = [Path(folder) / name for name in files]
    there = [str(path) for path in paths if path.exists()]
    if there and not force:
        raise ModelFileError(
            f"{', '.join(there)} exists already and may hold your work; write over it with "
            "--force, in Python force=True"
        )
    try:
        for place in {Path(folder), *(path.parent for path in paths)}:
            place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFileError(f"cannot make the folder {folder}: {error.strerror}") from error
    contents = (text.encode("utf-8") if isinstance(text, str) else text for text in files.values())
    io.write_all(dict(zip(paths, contents, strict=True)))
    return paths
