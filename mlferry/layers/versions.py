"""The specification version that a model needs.

Core ML does not reject a file whose version is too low for its features: an old system just fails
on it. So mlferry writes every model with the lowest version that has all its features.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlferry.errors import SpecError
from mlferry.layers.definitions import DEFINITIONS, LaterOption
from mlferry.spec import networks, weights
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn

UPDATABLE = 4  # the version from which on a device trains models
_MODEL_VERSIONS = {
    "customModel": 3,
    "nonMaximumSuppression": 3,
    "bayesianProbitRegressor": 3,
    "textClassifier": 3,
    "wordTagger": 3,
    "visionFeaturePrint": 3,
    "kNearestNeighborsClassifier": 4,
    "linkedModel": 4,
    "itemSimilarityRecommender": 4,
    "soundAnalysisPreprocessing": 4,
    "gazetteer": 4,
    "wordEmbedding": 4,
    "mlProgram": 6,
    "audioFeaturePrint": 6,
    "classConfidenceThresholding": 8,
}

_WITHOUT_INPUTS = (*networks.NETWORK_KINDS, *networks.PIPELINE_KINDS, "mlProgram")


def reasons(spec: model_pb2.Model) -> Iterator[tuple[int, str]]:
    """Every feature that a model uses, with the version that brought it."""
    yield 1, "a Core ML model"
    for model in networks.models_in(spec):
        kind = model.WhichOneof("Type") or ""
        yield _MODEL_VERSIONS.get(kind, 1), f"the model kind {kind}"
        if model.isUpdatable:
            yield UPDATABLE, "an updatable model"
        described = model.description
        if described.functions or described.defaultFunctionName:
            yield 9, "several functions"
        if kind in _WITHOUT_INPUTS and not (described.input or described.functions):
            yield 9, "a model without inputs"
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
    """The encoding of a weight; None if it breaks the format's rules."""
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
    yield layer_version(layer), f"the {kind} layer {layer.name!r}"
    if layer.isUpdatable:
        yield 4, f"the updatable layer {layer.name!r}"
    for feature in _used_features(layer):
        yield feature.version, f"{feature.what} of {layer.name!r}"


def _weight_reasons(holder: networks.Network | nn.NeuralNetworkLayer) -> Iterator[tuple[int, str]]:
    for weight in weights.iter_weights(holder):
        encoding = _encoding(weight.message)
        if encoding is not None and weight.kind != "custom":
            needs = _WEIGHT_VERSIONS.get(encoding.kind, 1)
            yield needs, f"the {encoding} weights of {weight.layer.name!r}"
        if weight.message.isUpdatable:
            yield 4, f"the updatable weights of {weight.layer.name!r}"


def required(spec: model_pb2.Model) -> int:
    """The lowest specification version that has every feature of a model."""
    return max(version for version, _ in reasons(spec))


def required_by_layer(layer: nn.NeuralNetworkLayer) -> int:
    """The lowest specification version that has a layer, with its options and weights."""
    reasons_found = (*_layer_reasons(layer), *_weight_reasons(layer))
    return max(version for version, _ in reasons_found)


def why(spec: model_pb2.Model, above: int) -> list[str]:
    """The features of a model that came after version `above`."""
    entries = {feature: version for version, feature in reasons(spec) if version > above}
    return [f"{feature} needs version {version}" for feature, version in entries.items()]


_VERSION_BY_NUMBER = ((500, 1), (501, 2), (1450, 4))


def layer_version(layer: nn.NeuralNetworkLayer) -> int:
    """The specification version that brought the kind of a layer."""
    kind = layer.WhichOneof("layer")
    if kind is None:
        return 1
    if kind in ("resizeBilinear", "cropResize"):
        return 3
    number = nn.NeuralNetworkLayer.DESCRIPTOR.fields_by_name[kind].number
    return next((version for limit, version in _VERSION_BY_NUMBER if number < limit), 5)


def uses_rank5(network: networks.Network) -> bool:
    """Whether blobs are [Seq, Batch, C, H, W], as in the classic mapping.

    This is not so for networks with a layer or feature of version 4 or later, or with a mapping
    set.
    """
    return (
        network.arrayInputShapeMapping == nn.RANK5_ARRAY_MAPPING
        and network.imageInputShapeMapping == nn.RANK5_IMAGE_MAPPING
        and not any(needs_exact_mapping(layer) for layer in networks.layers_of(network))
    )


def needs_exact_mapping(layer: nn.NeuralNetworkLayer) -> bool:
    """Whether a layer, or a feature of it, is of version 4 or later: not classic."""
    return layer_version(layer) >= 4 or any(
        feature.version >= 4 for feature in _used_features(layer)
    )


def _used_features(layer: nn.NeuralNetworkLayer) -> list[LaterOption]:
    entry = DEFINITIONS.find(layer.WhichOneof("layer") or "")
    features = entry.value.features if entry is not None else ()
    return [feature for feature in features if feature.is_used(layer)]
