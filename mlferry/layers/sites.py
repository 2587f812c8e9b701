"""The weights of a model that may be re-encoded, with their shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import SpecError, context
from mlferry.layers.definitions import WEIGHTS, StoredWeight
from mlferry.spec import networks, weights
from mlferry.spec.proto import neural_network_pb2 as nn

_NORMALIZATION = ("batchnorm", "scale", "bias", "layerNormalization", "activation")
_CONSTANTS = ("loadConstant", "loadConstantND")
_LARGE_CONSTANT = 1024


@dataclass(frozen=True)
class Site:
    """A stored weight that may be re-encoded.

    Attributes:
        layer: the layer that holds it.
        kind: the kind of the layer.
        field: its path in the layer's parameters, e.g. ``"weights"``.
        message: the stored weight.
        shape: its shape.
        axis: the axis along which the format allows a linear scale for each entry; None if it
            allows one scale only.
        read_axis: the axis along which stored scales go.
        floats: the only encodings that the format allows; empty for all.
    """

    layer: nn.NeuralNetworkLayer
    kind: str
    field: str
    message: nn.WeightParams
    shape: tuple[int, ...]
    axis: int | None
    read_axis: int
    floats: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the layer."""
        return self.layer.name

    @property
    def count(self) -> int:
        """How many values it has."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def encoding(self) -> weights.Encoding | None:
        """Its encoding."""
        return weights.encoding(self.message)

    @property
    def is_matrix(self) -> bool:
        """Whether it is neither a vector (bias, normalization) nor a small or integral constant.

        Constants of integers are often indices or shapes, which must stay exact.
        """
        if self.kind in _NORMALIZATION or len(self.shape) < 2:
            return False
        if self.kind not in _CONSTANTS:
            return True
        values = self.read() if self.count >= _LARGE_CONSTANT else None
        return values is not None and not np.array_equal(values, np.rint(values))

    def read(self) -> NDArray[np.float32]:
        """The values as float32 in `shape`."""
        with context(f"reading {self}"):
            return weights.read(self.message, self.shape, channel_axis=self.read_axis)

    def __str__(self) -> str:
        return f"{self.field} of {self.kind} {self.name!r}"


def sites(holder: nn.NeuralNetworkLayer | networks.Network) -> Iterator[list[Site]]:
    """The weights of every layer that has any, layer by layer; inner networks included.

    It leaves out the weights of custom layers, all weights of a layer with updatable ones, unused
    weights, and those that a device quantizes its inputs for (int8).
    """
    layers: dict[int, tuple[nn.NeuralNetworkLayer, list[weights.Weight]]] = {}
    for weight in weights.iter_weights(holder):
        layers.setdefault(id(weight.layer), (weight.layer, []))[1].append(weight)
    for layer, stored in layers.values():
        if layer.isUpdatable or any(weight.message.isUpdatable for weight in stored):
            continue
        result = list(_sites_of(layer, stored))
        if result:
            yield result


def _sites_of(layer: nn.NeuralNetworkLayer, entries: list[weights.Weight]) -> Iterator[Site]:
    kind = layer.WhichOneof("layer") or ""
    entry = WEIGHTS.find(kind)
    if entry is None:
        return
    used = {
        f"{kind}.{stored.field}": stored
        for stored in entry.value(layer, getattr(layer, kind))
        if stored.used
    }
    for weight in entries:
        stored = used.get(weight.path)
        if stored is None or not _is_values(weight.message):
            continue
        shape = stored.shape if stored.shape is not None else (weights.count(weight.message),)
        axis = stored.channel_axis if _per_channel(stored, shape) else None
        yield Site(
            layer,
            kind,
            stored.field,
            weight.message,
            shape,
            axis,
            stored.channel_axis,
            stored.floats,
        )


def _is_values(message: nn.WeightParams) -> bool:
    try:
        encoding = weights.encoding(message)
    except SpecError:
        return False
    return encoding is not None and encoding.kind not in (weights.RAW, weights.INT8)


def _per_channel(stored: StoredWeight, shape: tuple[int, ...]) -> bool:
    """Devices allow one scale, or as many as outputs; those of grouped deconvolutions are more
    than the axis has, so that one scale remains.
    """
    if len(shape) <= stored.channel_axis:
        return False  # of a broken model, which you can still inspect
    channels = shape[stored.channel_axis]
    return stored.scales == channels and int(np.prod(shape, dtype=np.int64)) > channels > 1
