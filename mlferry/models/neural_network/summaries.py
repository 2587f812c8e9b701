"""Lines about layers, for a terminal."""

from __future__ import annotations

import sys
from typing import Any

from mlferry.errors import SpecError
from mlferry.spec import weights
from mlferry.spec.proto import neural_network_pb2 as nn
from mlferry.spec.reflection import Field, is_map, is_repeated
from mlferry.text import printable

_LONGEST = 200


def write(line: str) -> None:
    """Print a line, as the tools of coremltools do."""
    sys.stdout.write(f"{printable(line, lines=True)}\n")


def parameters_of(layer: nn.NeuralNetworkLayer) -> list[tuple[str, str]]:
    """The parameters of a layer that are set; for weights, their count and encoding."""
    kind = layer.WhichOneof("layer")
    if kind is None:
        return []
    return [(field.name, _text(field, value)) for field, value in getattr(layer, kind).ListFields()]


def _text(field: Field, value: Any) -> str:
    if isinstance(value, nn.WeightParams):
        return _weight(value)
    if is_map(field):
        return ", ".join(sorted(map(str, value)))
    if is_repeated(field) and field.message_type is not None:
        return f"{len(value)} x {field.message_type.name}"
    if field.enum_type is not None:
        entry = field.enum_type.values_by_number.get(value)
        return str(value) if entry is None else str(entry.name)
    if field.message_type is not None:
        stored = (
            list(weights.iter_weights(value)) if not isinstance(value, nn.NeuralNetwork) else []
        )
        if stored or isinstance(value, nn.NeuralNetwork):
            return str(field.message_type.name)
    text = " ".join(str(list(value) if is_repeated(field) else value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _weight(value: nn.WeightParams) -> str:
    try:
        encoding = weights.encoding(value)
        return "no values" if encoding is None else f"{weights.count(value)} values, {encoding}"
    except SpecError as error:
        return str(error)
