"""What the classic entry points share: Keras models with coremltools' arguments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlferry.errors import ConversionError


def is_keras_model(model: str) -> bool:
    """Whether a source is a model saved by Keras, as a file or a pair of files."""
    if isinstance(model, tuple | list):
        return True
    if not isinstance(model, str | os.PathLike) or not Path(model).is_file():
        return False
    with Path(model).open("rb") as stream:
        magic = stream.read(8)
    return magic.startswith((b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"))


def convert_keras_model(model: Any, outputs: Sequence[str] | None, **arguments: Any) -> Any:
    """Convert a Keras model whose features are named as in TensorFlow.

    Args:
        model: path or paths.
        outputs: names of tensors: ``dense_1/Softmax``, or ``Identity`` for the first output.
        arguments: those of `mlferry.converters.keras.convert`, by Keras's names.

    Raises:
        ConversionError: there is no such output.
    """
    from mlferry.converters import keras
    from mlferry.converters.keras import read

    functions = arguments.get("custom_conversion_functions") or ()
    graph = read.read(model, list(functions), arguments.get("custom_objects"))
    own = [name for name, _ in graph.outputs]
    names = dict(zip(own, own, strict=True))
    for output in outputs or ():
        names[_output_meant(output, own)] = output.replace("/", "__")
    chosen = arguments["predicted_probabilities_output"]
    if chosen:
        arguments["predicted_probabilities_output"] = names[_output_meant(chosen, own)]
    return keras.api.convert(
        graph,
        input_names=[value.name for value in graph.inputs],
        output_names=list(names.values()),
        **arguments,
    )


def _output_meant(output: str, own: Sequence[str]) -> str:
    """The Keras output that has this name in TensorFlow."""
    identities = ["Identity", *(f"Identity_{index}" for index in range(1, len(own)))]
    if output in identities:
        return own[identities.index(output)]
    layer = output.split("/", 1)[0]
    if layer in own:
        return layer
    raise ConversionError(
        f"output_feature_names: the Keras model has no output {output!r}; its outputs are "
        f"{', '.join(map(repr, own))}, in TensorFlow Identity, Identity_1 and so on"
    )
