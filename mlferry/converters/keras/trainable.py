"""What Keras trains, and how: the layers, the loss and the optimizer of a compiled model."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlferry.converters.graph import Graph
from mlferry.converters.keras import hdf5
from mlferry.errors import ConversionError
from mlferry.layers.training import TrainingOptions, updatable_kinds
from mlferry.spec import networks
from mlferry.spec.proto import model_pb2

_LOSSES = {
    "categorical_crossentropy": "cross entropy",
    "sparse_categorical_crossentropy": "cross entropy",
    "mean_squared_error": "squared error",
    "mse": "squared error",
}
_NUMBERS = {
    "SGD": {"momentum": "momentum"},
    "Adam": {"beta_1": "beta1", "beta_2": "beta2", "epsilon": "eps"},
}


def compiled(source: object) -> TrainingOptions:
    """How a model is trained.

    Args:
        source: as for `mlferry.convert`.

    Raises:
        ConversionError: the loss or the optimizer is none that Core ML has.
    """
    if isinstance(source, str | os.PathLike):
        config = _of_file(Path(source))
    elif hasattr(source, "get_config"):
        config = {
            "loss": getattr(source, "loss", None),
            "optimizer_config": getattr(source, "optimizer", None),
        }
    else:
        config = {}
    optimizer = config.get("optimizer_config") or config.get("optimizer")
    kind, numbers = _optimizer(optimizer)
    return TrainingOptions(_loss(config.get("loss")), kind, numbers)


def _of_file(path: Path) -> Mapping[str, Any]:
    """The configuration that `compile` left in a file."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            told = json.loads(archive.read("config.json")).get("compile_config")
    else:
        with hdf5.opened(path) as file:
            text = file.attrs.get("training_config")
            told = None if text is None else json.loads(text)
    return told if isinstance(told, Mapping) else {}


def _named(given: object) -> tuple[str, Mapping[str, Any]]:
    """The name and the options of something that Keras has as text, a config or an object."""
    if isinstance(given, str):
        return given, {}
    if isinstance(given, Mapping) and "class_name" in given:
        config = given.get("config")
        if isinstance(config, str):  # a function
            return config, {}
        return str(given["class_name"]).split(">")[-1], config or {}
    config = given.get_config() if hasattr(given, "get_config") else {}
    return getattr(given, "__name__", type(given).__name__), config


def _loss(given: object) -> str | None:
    if isinstance(given, list | tuple) and len(given) == 1:
        given = given[0]
    if given is None or given in ({}, []):
        return None
    if isinstance(given, list | tuple) or (
        isinstance(given, Mapping) and "class_name" not in given and len(given) != 1
    ):
        raise ConversionError("respect_trainable: several losses; Core ML trains with one")
    if isinstance(given, Mapping) and "class_name" not in given:
        given = next(iter(given.values()))
    name, config = _named(given)
    known = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    if known not in _LOSSES or config.get("from_logits") or config.get("label_smoothing"):
        options = [k for k in ("from_logits", "label_smoothing") if config.get(k)]
        raise ConversionError(
            f"respect_trainable: the loss {name}{f' with {options[0]}' if options else ''} is none "
            "that Core ML trains with. Compile the model with 'categorical_crossentropy', on a "
            "softmax, or 'mean_squared_error'"
        )
    return _LOSSES[known]


def _optimizer(given: object) -> tuple[str | None, dict[str, float]]:
    if given is None or given == {}:
        return None, {}
    name, config = _named(given)
    kind = next((known for known in _NUMBERS if known.lower() == name.lower()), None)
    if kind is None:
        raise ConversionError(
            f"respect_trainable: the optimizer {name} is none that Core ML trains with: SGD and "
            "Adam are. Compile the model with one of them"
        )
    wanted = {"learning_rate": "lr", "lr": "lr", **_NUMBERS[kind]}
    entries = {ours: config[theirs] for theirs, ours in wanted.items() if theirs in config}
    odd = [name for name, value in entries.items() if not isinstance(value, int | float)]
    if odd or config.get("nesterov") or config.get("amsgrad"):
        what = f"a schedule for {odd[0]}" if odd else "nesterov or amsgrad"
        raise ConversionError(
            f"respect_trainable: {name} with {what}, which Core ML does not have; compile the "
            "model without it"
        )
    return kind, {name: float(value) for name, value in entries.items()}


def trained_layers(graph: Graph, spec: model_pb2.Model) -> tuple[list[str], list[str]]:
    """The layers of a converted network that Keras trains: those that Core ML can, and others.

    Raises:
        ConversionError: one is called several times: its copies would be trained apart.
    """
    network = networks.network_of(spec)
    assert network is not None
    kinds = {layer.name: layer.WhichOneof("layer") for layer in network.layers}
    trained = [
        node
        for node in graph.nodes
        if node.weights and node.get_config().get("trainable", True) is not False
    ]
    possible = [node for node in trained if kinds.get(node.name) in updatable_kinds()]
    held = [id(next(iter(node.weights.values()))) for node in possible]
    twice = [n.name for n, weight in zip(possible, held, strict=True) if held.count(weight) > 1]
    if twice:
        raise ConversionError(
            f"respect_trainable: {', '.join(twice)} share their weights, and a device would train "
            "each apart: set trainable=False, or call the layer once"
        )
    return [n.name for n in possible], [n.name for n in trained if n not in possible]
