"""The registry of Keras converters and what they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.graph import Node
from mlferry.converters.layout import CHANNELS_FIRST, SOURCE, Accepted
from mlferry.converters.lower import Converter, Frontend
from mlferry.errors import ConversionError
from mlferry.registry import Registry

OPS: Registry[Converter] = Registry("Keras layer")
op = OPS.register

_TRAINING = {
    "name", "trainable", "dtype", "batch_input_shape", "batch_shape", "input_dtype", "input_shape",
    "build_config", "activity_regularizer", "seed", "sparse", "ragged", "optional",
    "input_dim", "input_length", "momentum", "synchronized", "fused", "virtual_batch_size",
    "renorm_clipping", "renorm_momentum", "renorm", "embeddings_initializer", "lora_rank",
    "lora_alpha", "quantization_config", "autocast",
}  # fmt: skip
_WEIGHTS = (
    "kernel", "bias", "depthwise", "pointwise", "gamma", "beta", "moving_mean",
    "moving_variance", "alpha", "embeddings", "recurrent",
)  # fmt: skip
IGNORED = frozenset(
    _TRAINING
    | {
        f"{weight}_{what}"
        for weight in _WEIGHTS
        for what in ("initializer", "regularizer", "constraint")
    }
)

FRONTEND = Frontend("Keras", OPS, IGNORED)


def spatial(node: Node) -> Accepted:
    """Channels-first, or the source's order where that is channels-first already."""
    first = node.attrs.get("data_format") == "channels_first"
    return (SOURCE,) if first else (CHANNELS_FIRST,)


def sizes(value: Any, rank: int, what: str) -> tuple[int, ...]:
    """One number for all axes, or one an axis.

    Raises:
        ConversionError: it is neither.
    """
    found = tuple(value) if isinstance(value, Sequence) else (value,) * rank
    if len(found) != rank or not all(isinstance(n, int) for n in found):
        raise ConversionError(f"{what}={value!r}: {rank} integers are needed")
    return found


def choice(node: Node, name: str, allowed: Sequence[str], default: str | None = None) -> str:
    """An option that has one of a few values.

    Raises:
        ConversionError: it has another.
    """
    value = node.attrs.get(name, default)
    if value not in allowed:
        raise ConversionError(f"{name}={value!r}: one of {', '.join(allowed)} can be converted")
    return str(value)


def weight(node: Node, name: str, *shape: int | None) -> NDArray[np.float32]:
    """An array of the node in the shape that its config asks for; None allows any extent.

    Raises:
        ConversionError: it has another shape.
    """
    array = node.weight(name)
    fits = array.ndim == len(shape) and all(
        wanted in (None, got) for wanted, got in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = " x ".join("any" if n is None else str(n) for n in shape)
        raise ConversionError(
            f"weight {name!r} has shape {array.shape}; the layer's config asks for {wanted}"
        )
    return array
