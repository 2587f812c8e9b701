"""Rules about the outputs of the layers for the described inputs."""

from __future__ import annotations

import math

from mlferry.layers import versions
from mlferry.layers.trace import blob_shapes, trace
from mlferry.layers.validate.rules import network_rule
from mlferry.numerics.shapes import Shape, show
from mlferry.spec import features, networks
from mlferry.spec.problems import Problems, note, warning, within
from mlferry.spec.proto import features_pb2 as ft, model_pb2


@network_rule
def outputs_have_their_shapes(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """Outputs have the shapes that the layers give, if shape rules know them.

    Every system loads a model that breaks this, and returns what the layers make.
    """
    described = [f for f in spec.description.output if _extents(f.type)]
    if not described:
        return
    shapes = trace(network, blob_shapes(spec)).shapes
    classic = versions.uses_rank5(network)
    for feature in described:
        result = shapes.get(feature.name)
        if result is not None and None not in result:
            where = f"output {feature.name!r}"
            yield from within(where, _fits(feature.type, result, classic=classic))


def _extents(feature: ft.FeatureType) -> tuple[int, ...]:
    """The described shape; channels, height and width of an image; () without a shape."""
    if feature.HasField("imageType"):
        image = feature.imageType
        channels = features.CHANNELS.get(features.LAYOUTS.get(image.colorSpace, ""), 0)
        results: tuple[int, ...] = (channels, image.height, image.width)
    else:
        results = tuple(feature.multiArrayType.shape)
    return results if all(extent > 0 for extent in results) else ()


def _fits(feature: ft.FeatureType, actual: Shape, *, classic: bool) -> Problems:
    expected = _extents(feature)
    entries = actual[2:] if classic and len(actual) == 5 else actual  # each step of each sequence
    known = tuple(extent for extent in entries if extent is not None)
    if feature.HasField("imageType"):
        fits, alike = known[-3:] == expected, False
    else:
        alike = math.prod(known) == math.prod(expected)
        fits = alike if classic else known == expected
    if fits:
        return
    report = note if alike else warning
    yield report(f"it is described as {features.show(feature)}; the layers make {show(actual)}")
