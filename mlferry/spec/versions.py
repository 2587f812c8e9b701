"""Which specification version a model needs, and which systems read it.

Core ML does not refuse a file whose version is too small for its features: an old system just
fails on it. So every model is written with the smallest version that has all its features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mlferry.errors import SpecError
from mlferry.spec import networks, weights
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn


@dataclass(frozen=True)
class Release:
    """The first system releases that read a specification version."""

    version: int
    ios: str
    macos: str
    tvos: str
    watchos: str


RELEASES = (
    Release(1, "11", "10.13", "11", "4"),
    Release(2, "11.2", "10.13.2", "11.2", "4.2"),
    Release(3, "12", "10.14", "12", "5"),
    Release(4, "13", "10.15", "13", "6"),
    Release(5, "14", "11", "14", "7"),
    Release(6, "15", "12", "15", "8"),
    Release(7, "16", "13", "16", "9"),
    Release(8, "17", "14", "17", "10"),
    Release(9, "18", "15", "18", "11"),
    Release(10, "26", "26", "26", "26"),
)
NEWEST = RELEASES[-1].version

_MODEL_VERSIONS = {
    "customModel": 3, "nonMaximumSuppression": 3, "bayesianProbitRegressor": 3,
    "textClassifier": 3, "wordTagger": 3, "visionFeaturePrint": 3,
    "kNearestNeighborsClassifier": 4, "linkedModel": 4, "itemSimilarityRecommender": 4,
    "soundAnalysisPreprocessing": 4, "gazetteer": 4, "wordEmbedding": 4,
    "mlProgram": 6, "audioFeaturePrint": 6, "classConfidenceThresholding": 8,
}  # fmt: skip


def release(version: int) -> Release:
    """The systems for a specification version.

    Raises:
        SpecError: there is no such version.
    """
    if not 1 <= version <= NEWEST:
        raise SpecError(f"specification versions go from 1 to {NEWEST}, not {version}")
    return RELEASES[version - 1]


def version_for(target: str | int) -> int:
    """The newest specification version that a deployment target reads.

    Args:
        target: ``"iOS13"``, ``"macOS10.15"``, ``"tvOS14"``, ``"watchOS6"`` (case, spaces and
            dots after the system's name do not matter), or a version number.

    Raises:
        SpecError: the target is none of these.
    """
    if isinstance(target, int):
        return release(target).version
    compact = target.lower().replace(" ", "").removeprefix("target.")
    for system in ("macos", "ios", "tvos", "watchos"):
        if compact.startswith(system):
            try:
                wanted = _release_key(compact.removeprefix(system).lstrip(".v"))
            except ValueError:
                break
            reads = [r for r in RELEASES if _release_key(getattr(r, system)) <= wanted]
            if not reads:
                break
            return reads[-1].version
    raise SpecError(
        f"deployment target {target!r} is not known; write e.g. 'iOS13', 'macOS10.15', "
        "'tvOS14' or 'watchOS6'"
    )


def _release_key(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.replace("_", ".").split("."))


def reasons(spec: model_pb2.Model) -> Iterator[tuple[int, str]]:
    """Every feature that a model uses, with the version that brought it."""
    yield 1, "a Core ML model"
    for model in networks.models_in(spec):
        kind = model.WhichOneof("Type") or ""
        yield _MODEL_VERSIONS.get(kind, 1), f"the model kind {kind}"
        if model.isUpdatable:
            yield 4, "an updatable model"
        described = model.description
        if described.functions or described.defaultFunctionName:
            yield 9, "several functions"
        if kind == "mlProgram" and not (described.input or described.functions):
            yield 9, "a program without inputs"
        for feature in (*described.input, *described.output, *described.state):
            yield from _feature_reasons(feature)
            array = feature.type.multiArrayType
            if kind == "nonMaximumSuppression" and array.dataType == ft.ArrayFeatureType.FLOAT32:
                yield 5, f"the float32 multi-array {feature.name!r} of nonMaximumSuppression"
        network = networks.network_of(model)
        if network is not None:
            yield from _network_reasons(network)


def _feature_reasons(feature: object) -> Iterator[tuple[int, str]]:
    name, kind = feature.name, feature.type  # type: ignore[attr-defined]
    array, picture = kind.multiArrayType, kind.imageType
    if array.WhichOneof("ShapeFlexibility") or picture.WhichOneof("SizeFlexibility"):
        yield 3, f"the flexible shape of {name!r}"
    if kind.WhichOneof("Type") == "sequenceType":
        yield 3, f"the sequence {name!r}"
    if array.WhichOneof("defaultOptionalValue"):
        yield 5, f"the default value of {name!r}"
    if array.dataType == ft.ArrayFeatureType.FLOAT16:
        yield 7, f"the float16 multi-array {name!r}"
    if picture.colorSpace == ft.ImageFeatureType.GRAYSCALE_FLOAT16:
        yield 7, f"the float16 grayscale image {name!r}"
    if array.dataType == ft.ArrayFeatureType.INT8:
        yield 10, f"the int8 multi-array {name!r}"
    if kind.WhichOneof("Type") == "stateType":
        yield 9, f"the state {name!r}"


def _encoding(message: nn.WeightParams) -> weights.Encoding | None:
    """How a weight is stored; None as well where it breaks the format's rules."""
    try:
        return weights.encoding(message)
    except SpecError:
        return None


_WEIGHT_VERSIONS = {weights.FLOAT16: 2, weights.LINEAR: 3, weights.LUT: 3, weights.INT8: 5}


def _network_reasons(network: networks.Network) -> Iterator[tuple[int, str]]:
    if network.arrayInputShapeMapping != nn.RANK5_ARRAY_MAPPING:
        yield 4, "exact array mapping"
    if network.imageInputShapeMapping != nn.RANK5_IMAGE_MAPPING:
        yield 4, "rank-4 image mapping"
    if network.HasField("updateParams"):
        yield 4, "parameters for updates on the device"
    for layer in networks.layers_of(network):
        yield from _layer_reasons(layer)
    yield from _weight_reasons(network)


def _layer_reasons(layer: nn.NeuralNetworkLayer) -> Iterator[tuple[int, str]]:
    kind = layer.WhichOneof("layer")
    yield networks.layer_version(layer), f"the {kind} layer {layer.name!r}"
    if layer.isUpdatable:
        yield 4, f"the updatable layer {layer.name!r}"
    for applies, version, what in _LAYER_FEATURES.get(kind or "", ()):
        if applies(layer):
            yield version, f"{what} of {layer.name!r}"


def _weight_reasons(
    holder: networks.Network | nn.NeuralNetworkLayer,
) -> Iterator[tuple[int, str]]:
    for weight in weights.iter_weights(holder):
        stored = _encoding(weight.message)
        if stored is not None and weight.kind != "custom":
            needs = _WEIGHT_VERSIONS.get(stored.kind, 1)
            yield needs, f"the {stored} weights of {weight.layer.name!r}"
        if weight.message.isUpdatable:
            yield 4, f"the updatable weights of {weight.layer.name!r}"


_Feature = tuple[Callable[[nn.NeuralNetworkLayer], bool], int, str]
_LAYER_FEATURES: dict[str, tuple[_Feature, ...]] = {
    "convolution": ((lambda layer: len(layer.input) > 1, 4, "the weights as an input"),),
    "upsample": (
        (lambda layer: layer.upsample.linearUpsampleMode != 0, 5, "the linear upsample mode"),
        (lambda layer: bool(layer.upsample.fractionalScalingFactor), 5, "the fractional factor"),
    ),
    "reorganizeData": ((lambda layer: layer.reorganizeData.mode == 2, 5, "PIXEL_SHUFFLE"),),
    "concatND": ((lambda layer: layer.concatND.interleave, 5, "the interleaving"),),
    "sliceStatic": ((lambda layer: any(layer.sliceStatic.squeezeMasks), 5, "the squeezing"),),
    "sliceDynamic": (
        (lambda layer: any(layer.sliceDynamic.squeezeMasks), 5, "the squeezing"),
        (lambda layer: len(layer.input) == 7, 5, "the seven inputs"),
    ),
    "innerProduct": (
        (lambda layer: layer.innerProduct.int8DynamicQuantize, 5, "the dynamic quantization"),
    ),
    "batchedMatmul": (
        (lambda layer: layer.batchedMatmul.int8DynamicQuantize, 5, "the dynamic quantization"),
    ),
}


def required(spec: model_pb2.Model) -> int:
    """The smallest specification version that has every feature of a model."""
    return max(version for version, _ in reasons(spec))


def required_by_layer(layer: nn.NeuralNetworkLayer) -> int:
    """The smallest specification version that has a layer, with its options and weights."""
    reasons_found = (*_layer_reasons(layer), *_weight_reasons(layer))
    return max(version for version, _ in reasons_found)


def why(spec: model_pb2.Model, above: int) -> list[str]:
    """The features of a model that came after version `above`."""
    found = {what: version for version, what in reasons(spec) if version > above}
    return [f"{what} needs version {version}" for what, version in found.items()]
