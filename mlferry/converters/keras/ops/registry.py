"""The registry of Keras converters, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.frontend import C, Converter, Frontend
from mlferry.converters.graph import Attribute, Attributes, Node
from mlferry.converters.keras import legacy, masks
from mlferry.converters.keras.calls import call_of, placed
from mlferry.converters.lowering import Lowering
from mlferry.converters.values import CHANNELS_FIRST, SOURCE, Accepted, Blob, blob_of
from mlferry.errors import ConversionError
from mlferry.registry import Registry

OPS: Registry[Converter] = Registry("Keras layer")


def op(*names: str, since: int = 1, **options: object) -> Callable[[C], C]:
    """Register a converter; see `mlferry.registry.Registry.register`."""

    def decorate(convert: C) -> C:
        OPS.register(*names, since=since, **options)(convert)
        return convert

    return decorate


_TRAINING = {
    *("name", "trainable", "dtype", "batch_input_shape", "batch_shape", "input_dtype"),
    *("input_shape", "input_dim", "input_length", "build_config", "sparse", "ragged", "optional"),
    *("activity_regularizer", "seed", "seed_mode", "momentum", "synchronized", "fused"),
    *("virtual_batch_size", "renorm", "renorm_clipping", "renorm_momentum", "autocast"),
    *("embeddings_initializer", "lora_rank", "lora_alpha", "quantization_config"),
    *("implementation", "unroll", "dropout", "recurrent_dropout", "rate"),
    *("unit_forget_bias", "use_cudnn", "flash_attention"),
}
_WEIGHTS = (
    *("kernel", "bias", "depthwise", "pointwise", "gamma"),
    *("beta", "moving_mean", "moving_variance"),
    *("alpha", "embeddings", "recurrent", "state"),
)
IGNORED = frozenset(
    _TRAINING
    | {
        f"{weight}_{what}"
        for weight in _WEIGHTS
        for what in ("initializer", "regularizer", "constraint")
    }
)

FRONTEND = Frontend("Keras", OPS, IGNORED, prepare=masks.follow)


def spatial(node: Node) -> Accepted:
    """Channels-first, or the source's order if that is already channels-first."""
    first = node.attrs.get("data_format") == "channels_first"
    return (SOURCE,) if first else (CHANNELS_FIRST,)


def sizes(value: int | Sequence[int], rank: int, option: str) -> tuple[int, ...]:
    """One number for all axes, or one for each axis.

    Raises:
        ConversionError: it is neither.
    """
    results = tuple(value) if isinstance(value, Sequence) else (value,) * rank
    if len(results) != rank or not all(isinstance(n, int) for n in results):
        raise ConversionError(f"{option}={value!r}: {rank} integers are needed")
    return results


def choice(node: Node, name: str, allowed: Sequence[str], default: str | None = None) -> str:
    """An option with one of a few values.

    Raises:
        ConversionError: it has another.
    """
    value = node.attrs.get(name, default)
    if value not in allowed:
        raise ConversionError(f"{name}={value!r}: one of {', '.join(allowed)} can be converted")
    return str(value)


def count(node: Node, name: str) -> int:
    """An option that the config must have: how many units or filters there are.

    Raises:
        ConversionError: it is no whole number.
    """
    value = node.attrs[name]
    if not isinstance(value, int):
        raise ConversionError(f"{name}={value!r}: a whole number is needed")
    return value


def weight(node: Node, name: str, *shape: int | None) -> NDArray[np.float32]:
    """An array of the node in the shape that its config requires; None allows any extent.

    Raises:
        ConversionError: it has another shape.
    """
    array = node.weight(name)
    fits = array.ndim == len(shape) and all(
        expected in (None, extent) for expected, extent in zip(shape, array.shape, strict=True)
    )
    if not fits:
        expected = " x ".join("any" if n is None else str(n) for n in shape)
        raise ConversionError(
            f"weight {name!r} has shape {array.shape}; the layer's config asks for {expected}"
        )
    return array


def activation_of(
    context: Lowering, option: Attribute, layer: str
) -> Callable[[Lowering, Blob], Blob]:
    """A function that applies an activation, which is given as in a config.

    Raises:
        ConversionError: there is no converter for it.
    """
    name, options = described(option, context.graph.version)
    entry = OPS.find(name, context.graph.version)
    if entry is None:
        raise ConversionError(f"the activation {name!r}; write a conversion function for {layer!r}")

    def apply(context: Lowering, x: Blob) -> Blob:
        node = Node(name, f"{layer}/{name}", (), (), Attributes(options))
        return blob_of(entry.value(context, node, x))

    return apply


def described(option: Attribute, version: int) -> tuple[str, dict[str, Any]]:
    """Name and options of an activation: ``"relu"``, a function, or a layer with its config."""
    if option is None:
        return "linear", {}
    if not isinstance(option, Mapping):
        return str(option).rsplit(">", 1)[-1], {}
    name, inner = option.get("class_name"), option.get("config")
    if name == "function":
        name, inner = (inner.get("name"), {}) if isinstance(inner, Mapping) else (inner, {})
    name = str(name).rsplit(">", 1)[-1]
    options = legacy.modern(name, dict(inner), version)[1] if isinstance(inner, Mapping) else {}
    return name, {key: value for key, value in options.items() if key != "name"}


def bound(node: Node, inputs: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    """The arguments of a call by name, with blobs in place of tensors.

    Inputs that the call does not name (states of stateful layers) are left out.
    """
    call = call_of(node)
    args, kwargs = call.args, call.kwargs
    entries = dict(zip(names, args, strict=False))
    for name in names:
        if name in kwargs:
            entries[name] = kwargs[name]
        node.arguments.get(name)
    if len(args) <= len(names):
        node.arguments.get("args")
    return {name: placed(value, inputs) for name, value in entries.items() if value is not None}
