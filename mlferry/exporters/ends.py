"""The inputs and outputs of a network which is written in another format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import ExportError
from mlferry.layers import versions
from mlferry.spec import features, networks
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn


def described(feature: ft.FeatureType) -> list[int | None]:
    """The described shape of an input: that of an array, or [height, width] of an image.

    Extents that may vary are None.
    """
    shapes = features.blob_shapes(feature)
    if len(shapes) > 2 and feature.multiArrayType.HasField("shapeRange"):
        shapes = shapes[1:]
    varying = [set(extents) for extents in zip(*shapes, strict=True)]
    extents = [next(iter(candidates)) if len(candidates) == 1 else None for candidates in varying]
    return extents[-2:] if feature.HasField("imageType") else extents


# Axes of 1 before and after an array that becomes a blob of five axes, by the number of its
# described axes and of those that it has: a sequence and a batch may be given.
_CLASSIC = {
    1: {1: (2, 2), 2: (1, 2), 3: (0, 2), 5: (0, 0)},
    3: {3: (2, 0), 4: (1, 0), 5: (0, 0)},
}


def ones_around(
    feature: model_pb2.FeatureDescription,
    network: networks.Network,
    shape: Sequence[int | str | None],
) -> tuple[int, int]:
    """How many axes of 1 turn an array into a blob: those before it and those after it.

    Raises:
        ExportError: the classic mapping has no place for so many axes.
    """
    if not feature.type.HasField("multiArrayType"):
        return (2, 2) if versions.uses_rank5(network) else (0, 0)
    if not versions.uses_rank5(network) and network.arrayInputShapeMapping != 0:
        return 0, 0
    default = tuple(feature.type.multiArrayType.shape)
    possible = _CLASSIC.get(len(default), {len(default): (0, 0), 5: (0, 0)})
    if len(shape) not in possible:
        raise ExportError(
            f"input {feature.name!r} is described as {default}; with sequence and batch in front "
            f"of it, or all five axes, but not as {tuple(shape)}"
        )
    return possible[len(shape)]


def preprocessing(
    network: networks.Network, name: str, layout: str, shape: Sequence[int | None]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """What the network computes with the pixels of an image before its first layer.

    Args:
        shape: of the blob, [1, C, H, W].

    Yields:
        the names of operations, "add", "sub" or "mul", and their second operands.

    Raises:
        ExportError: a mean image does not fit.
    """
    for step in network.preprocessing:
        if step.featureName not in ("", name):
            continue
        kind, scaler = step.WhichOneof("preprocessor"), step.scaler
        if kind == "meanImage":
            mean = np.array(step.meanImage.meanImage, np.float32)
            sizes = [extent or 0 for extent in shape]
            if None in shape or mean.size != np.prod(sizes):
                raise ExportError(f"the mean image of input {name!r} does not fit its size")
            yield "sub", mean.reshape(sizes)
        elif kind == "scaler":
            bias = [scaler.redBias, scaler.greenBias, scaler.blueBias]
            if layout.startswith("GRAY"):
                bias = [scaler.grayBias]
            if scaler.channelScale != 1:
                yield "mul", np.array(scaler.channelScale, np.float32)
            if any(bias):
                ordered = bias[::-1] if layout == "BGR" else bias
                yield "add", np.array(ordered, np.float32).reshape(1, -1, 1, 1)


def outputs_of(spec: model_pb2.Model, network: networks.Network) -> dict[str, str]:
    """The blob of every output; a classifier's label has none, its probabilities do."""
    description = spec.description
    blobs: dict[str, str] = {}
    special: tuple[str, ...] = ()
    if isinstance(network, nn.NeuralNetworkClassifier):
        special = (description.predictedFeatureName, description.predictedProbabilitiesName)
        blob = network.labelProbabilityLayerName or network.layers[-1].output[0]
        blobs[description.predictedProbabilitiesName or blob] = blob
    return blobs | {f.name: f.name for f in description.output if f.name not in special}
