"""The smallest specification version of every feature, and the systems that read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mlferry.errors import SpecError
from mlferry.layers import versions
from mlferry.layers.builder import LAYER_KINDS
from mlferry.spec import releases
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn

Model = model_pb2.Model
ADDED_IN_1 = {
    "convolution", "pooling", "activation", "innerProduct", "embedding", "batchnorm", "mvn",
    "l2normalize", "softmax", "lrn", "crop", "padding", "upsample", "unary", "add", "multiply",
    "average", "scale", "bias", "max", "min", "dot", "reduce", "loadConstant", "reshape",
    "flatten", "permute", "concat", "split", "sequenceRepeat", "reorganizeData", "slice",
    "simpleRecurrent", "gru", "uniDirectionalLSTM", "biDirectionalLSTM",
}  # fmt: skip
ADDED_IN = {
    1: ADDED_IN_1,
    2: {"custom"},
    3: {"resizeBilinear", "cropResize"},
    5: {
        "oneHot", "cumSum", "clampedReLU", "argSort", "pooling3d", "globalPooling3d",
        "sliceBySize", "convolution3d",
    },
}  # fmt: skip
ADDED_IN[4] = set(LAYER_KINDS).difference(*ADDED_IN.values())


def model(kind: str = "neuralNetwork", **fields: Any) -> Model:
    spec = with_input(Model(**fields))
    getattr(spec, kind).SetInParent()
    return spec


def with_input(spec: Model) -> Model:
    spec.description.input.add(name="x")
    return spec


def layer(kind: str, inputs: int = 1, **params: Any) -> Model:
    spec = model()
    output = spec.neuralNetwork.layers.add(name="it", input=[f"x{i}" for i in range(inputs)])
    getattr(output, kind).CopyFrom(type(getattr(output, kind))(**params))
    return spec


def weighted(**stored: Any) -> Model:
    return layer("innerProduct", weights=nn.WeightParams(**stored))


def quantized(table: str) -> nn.QuantizationParams:
    params = nn.QuantizationParams(numberOfBits=8)
    getattr(params, table).SetInParent()
    return params


def feature(role: str = "input", kind: str = "neuralNetwork", **fields: Any) -> Model:
    spec = model(kind)
    getattr(spec.description, role).add(name="it").type.CopyFrom(ft.FeatureType(**fields))
    return spec


def array(role: str = "input", kind: str = "neuralNetwork", **fields: Any) -> Model:
    return feature(role, kind, multiArrayType=ft.ArrayFeatureType(**fields))


def image(**fields: Any) -> Model:
    return feature(imageType=ft.ImageFeatureType(**fields))


def state() -> Model:
    spec = model("mlProgram")
    spec.description.input.add(name="x")
    spec.description.state.add(name="it").type.stateType.SetInParent()
    return spec


def several_functions() -> Model:
    spec = model("mlProgram")
    spec.description.functions.add(name="main")
    return spec


def without_inputs(spec: Model) -> Model:
    del spec.description.input[:]
    return spec


NETWORKS = ("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor")
FEATURES: list[tuple[str, Callable[[], Model], int]] = [
    *[(f"a {kind}", lambda kind=kind: model(kind), 1) for kind in NETWORKS],  # type: ignore[misc]
    ("a tree", lambda: model("treeEnsembleRegressor"), 1),
    ("float32 weights", lambda: weighted(floatValue=[1]), 1),
    ("half weights", lambda: weighted(float16Value=b"ab"), 2),
    ("half weights of a custom layer", lambda: layer(
        "custom", weights=[nn.WeightParams(float16Value=b"ab")]), 2),
    ("linear", lambda: weighted(rawValue=b"a", quantization=quantized("linearQuantization")), 3),
    ("table", lambda: weighted(
        rawValue=b"a", quantization=quantized("lookupTableQuantization")), 3),
    ("flexible shape", lambda: array(shapeRange=ft.ArrayFeatureType.ShapeRange()), 3),
    ("flexible shape of an output", lambda: array(
        "output", shapeRange=ft.ArrayFeatureType.ShapeRange()), 3),
    ("enumerated shapes", lambda: array(
        enumeratedShapes=ft.ArrayFeatureType.EnumeratedShapes()), 3),
    ("flexible image", lambda: image(imageSizeRange=ft.ImageFeatureType.ImageSizeRange()), 3),
    ("enumerated images", lambda: image(
        enumeratedSizes=ft.ImageFeatureType.EnumeratedImageSizes()), 3),
    ("sequence", lambda: feature(sequenceType=ft.SequenceFeatureType()), 3),
    ("custom model", lambda: model("customModel"), 3),
    ("NMS model", lambda: model("nonMaximumSuppression"), 3),
    ("bayesian probit", lambda: model("bayesianProbitRegressor"), 3),
    ("text classifier", lambda: model("textClassifier"), 3),
    ("word tagger", lambda: model("wordTagger"), 3),
    ("vision feature print", lambda: model("visionFeaturePrint"), 3),
    ("exact mapping", lambda: with_input(Model(neuralNetwork=nn.NeuralNetwork(
        arrayInputShapeMapping="EXACT_ARRAY_MAPPING"))), 4),
    ("rank-4 images", lambda: with_input(Model(neuralNetwork=nn.NeuralNetwork(
        imageInputShapeMapping="RANK4_IMAGE_MAPPING"))), 4),
    ("convolution with weights as input", lambda: layer("convolution", 2), 4),
    ("updatable model", lambda: model(isUpdatable=True), 4),
    ("updatable weights", lambda: weighted(floatValue=[1], isUpdatable=True), 4),
    ("update parameters", lambda: with_input(Model(neuralNetwork=nn.NeuralNetwork(
        updateParams=nn.NetworkUpdateParameters()))), 4),
    ("nearest neighbours", lambda: model("kNearestNeighborsClassifier"), 4),
    ("linked model", lambda: model("linkedModel"), 4),
    ("recommender", lambda: model("itemSimilarityRecommender"), 4),
    ("sound", lambda: model("soundAnalysisPreprocessing"), 4),
    ("gazetteer", lambda: model("gazetteer"), 4),
    ("word embedding", lambda: model("wordEmbedding"), 4),
    ("upsample, linear mode", lambda: layer("upsample", linearUpsampleMode=1), 5),
    ("upsample, fractions", lambda: layer("upsample", fractionalScalingFactor=[1.5, 1.5]), 5),
    ("pixel shuffle", lambda: layer("reorganizeData", mode=2), 5),
    ("depth to space", lambda: layer("reorganizeData", mode=1), 1),
    ("interleaved concat", lambda: layer("concatND", interleave=True), 5),
    ("squeezing slice", lambda: layer("sliceStatic", squeezeMasks=[True]), 5),
    ("slice that does not squeeze", lambda: layer("sliceStatic", squeezeMasks=[False]), 4),
    ("squeezing dynamic slice", lambda: layer("sliceDynamic", 2, squeezeMasks=[True]), 5),
    ("dynamic slice, masks that squeeze nothing", lambda: layer(
        "sliceDynamic", 2, squeezeMasks=[False]), 5),
    ("slice with 7 inputs", lambda: layer("sliceDynamic", 7), 5),
    ("slice with 6 inputs", lambda: layer("sliceDynamic", 6), 4),
    ("int8 inner product", lambda: layer("innerProduct", int8DynamicQuantize=True), 5),
    ("int8 matmul", lambda: layer("batchedMatmul", int8DynamicQuantize=True), 5),
    ("int8 weights", lambda: weighted(int8RawValue=b"a"), 5),
    ("default value", lambda: array(floatDefaultValue=1), 5),
    ("float32 NMS model", lambda: array(kind="nonMaximumSuppression", dataType="FLOAT32"), 5),
    ("float64 NMS model", lambda: array(kind="nonMaximumSuppression", dataType="DOUBLE"), 3),
    ("program", lambda: model("mlProgram"), 6),
    ("audio", lambda: model("audioFeaturePrint"), 6),
    ("float16 array", lambda: array(dataType="FLOAT16"), 7),
    ("float16 output", lambda: array("output", dataType="FLOAT16"), 7),
    ("float16 image", lambda: image(colorSpace="GRAYSCALE_FLOAT16"), 7),
    ("thresholds", lambda: model("classConfidenceThresholding"), 8),
    ("state", state, 9),
    ("several functions", several_functions, 9),
    *[(f"a {kind} without inputs", lambda kind=kind: without_inputs(model(kind)), 9)  # type: ignore[misc] - a lambda has no types
      for kind in (*NETWORKS, "pipelineRegressor", "mlProgram")],
    ("int8 array", lambda: array(dataType="INT8"), 10),
]  # fmt: skip
NAMES = [row[0] for row in FEATURES]


@pytest.mark.parametrize(("name", "make", "version"), FEATURES, ids=NAMES)
def test_smallest_version_of_a_feature(name: str, make: Callable[[], Model], version: int) -> None:
    spec = make()
    assert versions.required(spec) == version
    below = versions.why(spec, version - 1)
    assert below
    assert all(f"needs version {version}" in text for text in below)
    assert versions.why(spec, version) == []


@pytest.mark.parametrize(("name", "make", "version"), FEATURES, ids=NAMES)
def test_features_are_found_in_pipelines(
    name: str, make: Callable[[], Model], version: int
) -> None:
    spec = model("pipeline")
    spec.pipeline.models.add().CopyFrom(model("scaler"))
    inner = with_input(spec.pipeline.models.add())
    inner.pipelineClassifier.pipeline.models.add().CopyFrom(make())
    assert versions.required(spec) == version


@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_version_of_every_layer_kind(kind: str) -> None:
    (expected,) = [version for version, kinds in ADDED_IN.items() if kind in kinds]
    spec = layer(kind)
    assert versions.layer_version(spec.neuralNetwork.layers[0]) == expected
    assert versions.required(spec) == expected
    if expected > 1:
        assert versions.why(spec, 1) == [f"the {kind} layer 'it' needs version {expected}"]


def test_layers_are_counted_as_in_the_format() -> None:
    counts = {version: len(kinds) for version, kinds in ADDED_IN.items()}
    assert counts == {1: 36, 2: 1, 3: 2, 4: 111, 5: 8}


@pytest.mark.parametrize("field", ["conditionNetwork", "bodyNetwork"])
def test_features_are_found_in_subnetworks(field: str) -> None:
    spec = layer("loop")
    inner = getattr(spec.neuralNetwork.layers[0].loop, field).layers.add(name="inner")
    inner.oneHot.SetInParent()
    assert versions.why(spec, 4) == ["the oneHot layer 'inner' needs version 5"]


def test_weights_that_break_rules_do_not_hide_other_features() -> None:
    spec = weighted(floatValue=[1], float16Value=b"ab")
    spec.neuralNetwork.layers.add(name="later").cumSum.SetInParent()
    assert versions.required(spec) == 5


def test_a_feature_is_told_once() -> None:
    spec = model()
    for _ in range(3):
        spec.neuralNetwork.layers.add(name="same").custom.SetInParent()
    assert versions.why(spec, 1) == ["the custom layer 'same' needs version 2"]


@pytest.mark.parametrize(
    ("target", "version"),
    [
        ("iOS11", 1),
        ("iOS11.2", 2),
        ("iOS11.4", 2),
        ("iOS12", 3),
        ("iOS13", 4),
        ("ios 13.1", 4),
        ("iOS14", 5),
        ("IOS15", 6),
        ("iOS16", 7),
        ("iOS17", 8),
        ("iOS18", 9),
        ("iOS26", 10),
        ("iOS30", 10),
        ("target.iOS13", 4),
        ("macOS10.13", 1),
        ("macOS10.13.2", 2),
        ("macOS 10.14", 3),
        ("macOS10.15", 4),
        ("macOS10_15", 4),
        ("macOS11", 5),
        ("macOS12.3", 6),
        ("tvOS11", 1),
        ("tvOS14", 5),
        ("watchOS4", 1),
        ("watchOS4.2", 2),
        ("watchOS6", 4),
        ("watchOS11", 9),
        (4, 4),
        (10, 10),
    ],
)
def test_version_of_a_deployment_target(target: str | int, version: int) -> None:
    assert releases.version_for(target) == version


@pytest.mark.parametrize(
    "target", ["", "iOS", "iOS10", "macOS10.12", "watchOS3", "android13", "iOS thirteen", "13"]
)
def test_unknown_deployment_target(target: str) -> None:
    with pytest.raises(SpecError, match=r"write e\.g\. 'iOS13'"):
        releases.version_for(target)


@pytest.mark.parametrize("version", [0, -1, 11])
def test_unknown_version(version: int) -> None:
    with pytest.raises(SpecError, match="from 1 to 10"):
        releases.version_for(version)
    with pytest.raises(SpecError, match="from 1 to 10"):
        releases.release(version)


@pytest.mark.parametrize("release", releases.RELEASES, ids=str)
def test_each_system_of_a_release_reads_its_version(release: releases.Release) -> None:
    assert releases.release(release.version) is release
    for system in ("ios", "macos", "tvos", "watchos"):
        assert releases.version_for(system + getattr(release, system)) == release.version
