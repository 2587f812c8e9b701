"""The layers, the loss and the optimizer that Keras trains a compiled model with."""

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
        ConversionError: Core ML has no such loss or optimizer.
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
            config = json.loads(archive.read("config.json")).get("compile_config")
    else:
        with hdf5.opened(path) as file:
            text = file.attrs.get("training_config")
            config = None if text is None else json.loads(text)
    return config if isinstance(config, Mapping) else {}


def _named(option: object) -> tuple[str, Mapping[str, Any]]:
    """The name and options of something that Keras gives as text, a config or an object."""
    if isinstance(option, str):
        return option, {}
    if isinstance(option, Mapping) and "class_name" in option:
        config = option.get("config")
        if isinstance(config, str):  # a function
            return config, {}
        return str(option["class_name"]).split(">")[-1], config or {}
    config = option.get_config() if hasattr(option, "get_config") else {}
    return getattr(option, "__name__", type(option).__name__), config


def _loss(option: object) -> str | None:
    if isinstance(option, list | tuple) and len(option) == 1:
        option = option[0]
    if option is None or option in ({}, []):
        return None
    if isinstance(option, list | tuple) or (
        isinstance(option, Mapping) and "class_name" not in option and len(option) != 1
    ):
        raise ConversionError("respect_trainable: several losses; Core ML trains with one")
    if isinstance(option, Mapping) and "class_name" not in option:
        option = next(iter(option.values()))
    name, config = _named(option)
    known = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    if known not in _LOSSES or config.get("from_logits") or config.get("label_smoothing"):
        options = [k for k in ("from_logits", "label_smoothing") if config.get(k)]
        raise ConversionError(
            f"respect_trainable: the loss {name}{f' with {options[0]}' if options else ''} is not "
            "one that Core ML trains with. Compile the model with 'categorical_crossentropy', on a "
            "softmax, or 'mean_squared_error'"
        )
    return _LOSSES[known]


def _optimizer(option: object) -> tuple[str | None, dict[str, float]]:
    if option is None or option == {}:
        return None, {}
    name, config = _named(option)
    kind = next((known for known in _NUMBERS if known.lower() == name.lower()), None)
    if kind is None:
        raise ConversionError(
            f"respect_trainable: the optimizer {name} is not one that Core ML trains with: SGD and "
            "Adam are. Compile the model with one of them"
        )
    fields = {"learning_rate": "lr", "lr": "lr", **_NUMBERS[kind]}
    entries = {ours: config[theirs] for theirs, ours in fields.items() if theirs in config}
    odd = [name for name, value in entries.items() if not isinstance(value, int | float)]
    if odd or config.get("nesterov") or config.get("amsgrad"):
        feature = f"a schedule for {odd[0]}" if odd else "nesterov or amsgrad"
        raise ConversionError(
            f"respect_trainable: {name} with {feature}, which Core ML does not have; compile the "
            "model without it"
        )
    return kind, {name: float(value) for name, value in entries.items()}


def trained_layers(graph: Graph, spec: model_pb2.Model) -> tuple[list[str], list[str]]:
    """The layers of a converted network that Keras trains: those that Core ML can, and the others.

    Raises:
        ConversionError: a layer is called several times: its copies would be trained separately.
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
    ids = [id(next(iter(node.weights.values()))) for node in possible]
    twice = [n.name for n, weight in zip(possible, ids, strict=True) if ids.count(weight) > 1]
    if twice:
        raise ConversionError(
            f"respect_trainable: {', '.join(twice)} share their weights, and a device would train "
            "each separately: set trainable=False, or call the layer once"
        )
    return [n.name for n in possible], [n.name for n in trained if n not in possible]
