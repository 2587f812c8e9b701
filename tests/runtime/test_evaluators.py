"""Models that are not networks: values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import MlferryError, PredictionError, UnsupportedModelError
from mlferry.runtime.evaluators import EVALUATORS
from mlferry.runtime.evaluators.registry import _WHY_NOT
from mlferry.spec import features as ft, networks
from mlferry.spec.fields import fill
from mlferry.spec.proto import model_pb2


def double() -> Any:
    feature = ft.FeatureType()
    feature.doubleType.SetInParent()
    return feature


def array(*shape: int) -> Any:
    return ft.multi_array(shape, "float64")


def build(
    kind: str,
    params: dict[str, Any],
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    *,
    label: str = "",
    chances: str = "",
) -> model_pb2.Model:
    spec = model_pb2.Model(specificationVersion=3)
    getattr(spec, kind).SetInParent()
    fill(getattr(spec, kind), params)
    described = ((spec.description.input, inputs), (spec.description.output, outputs))
    for target, sample in described:
        for name, feature in sample.items():
            target.add(name=name).type.CopyFrom(feature)
    spec.description.predictedFeatureName = label
    spec.description.predictedProbabilitiesName = chances
    return spec


@dataclass
class Row:
    """A model, what goes in, what comes out."""

    kind: str
    params: dict[str, Any]
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    given: dict[str, Any]
    wanted: dict[str, Any]
    names: dict[str, str] = field(default_factory=dict)

    def spec(self) -> model_pb2.Model:
        return build(self.kind, self.params, self.inputs, self.outputs, **self.names)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


STRINGS = {"stringClassLabels": {"vector": ["no", "yes"]}}
CLASSES = {"names": {"label": "what", "chances": "p"}}
LABELLED = {"p": ft.dictionary(True), "what": ft.string()}
# value 0 at most 1.5: leaf -1; above: value 1 below 0: leaf 2, else leaf 3
TREE = [
    {"nodeId": 0, "nodeBehavior": "BranchOnValueLessThanEqual", "branchFeatureValue": 1.5,
     "trueChildNodeId": 1, "falseChildNodeId": 2, "missingValueTracksTrueChild": True},
    {"nodeId": 1, "nodeBehavior": "LeafNode", "evaluationInfo": [{"evaluationValue": -1.0}]},
    {"nodeId": 2, "nodeBehavior": "BranchOnValueLessThan", "branchFeatureIndex": 1,
     "trueChildNodeId": 3, "falseChildNodeId": 4},
    {"nodeId": 3, "nodeBehavior": "LeafNode", "evaluationInfo": [{"evaluationValue": 2.0}]},
    {"nodeId": 4, "nodeBehavior": "LeafNode", "evaluationInfo": [{"evaluationValue": 3.0}]},
]  # fmt: skip
ENSEMBLE = {"nodes": TREE, "numPredictionDimensions": 1, "basePredictionValue": [0.5]}
TWO = {"x": array(2)}
Y = {"y": double()}


def tree(value: list[float], expected: float) -> Row:
    params = {"treeEnsemble": ENSEMBLE}
    return Row("treeEnsembleRegressor", params, TWO, Y, {"x": value}, {"y": expected})


ROWS = [
    Row("identity", {}, TWO, {"x": array(2)}, {"x": [1, 2]}, {"x": [1, 2]}),
    Row("identity", {}, TWO, {"z": array(2)}, {"x": [1, 2]}, {"z": [1, 2]}),
    Row("scaler", {"shiftValue": [-1, 1], "scaleValue": [2]}, TWO, {"y": array(2)},
        {"x": [3, 4]}, {"y": [4, 10]}),
    Row("scaler", {"scaleValue": [0.5]}, {"x": double()}, Y, {"x": 3}, {"y": 1.5}),
    Row("normalizer", {"normType": "L2"}, TWO, {"y": array(2)}, {"x": [3, 4]}, {"y": [0.6, 0.8]}),
    Row("normalizer", {"normType": "L1"}, TWO, {"y": array(2)}, {"x": [-1, 3]},
        {"y": [-0.25, 0.75]}),
    Row("normalizer", {"normType": "LMax"}, TWO, {"y": array(2)}, {"x": [-4, 2]},
        {"y": [-1, 0.5]}),
    Row("normalizer", {}, TWO, {"y": array(2)}, {"x": [0, 0]}, {"y": [0, 0]}),
    Row("arrayFeatureExtractor", {"extractIndex": [1]}, TWO, Y, {"x": [3, 4]}, {"y": 4}),
    Row("arrayFeatureExtractor", {"extractIndex": [1, 0]}, TWO, {"y": array(2)}, {"x": [3, 4]},
        {"y": [4, 3]}),
    Row("oneHotEncoder", {"stringCategories": {"vector": ["a", "b", "c"]}},
        {"x": ft.string()}, {"y": array(3)}, {"x": "b"}, {"y": [0, 1, 0]}),
    Row("oneHotEncoder", {"int64Categories": {"vector": [5, 7]}, "outputSparse": True},
        {"x": ft.int64()}, {"y": ft.dictionary(False)}, {"x": 7}, {"y": {1: 1.0}}),
    Row("oneHotEncoder", {"int64Categories": {"vector": [5]}, "handleUnknown": "IgnoreUnknown"},
        {"x": ft.int64()}, {"y": array(1)}, {"x": 9}, {"y": [0]}),
    Row("dictVectorizer", {"stringToIndex": {"vector": ["a", "b"]}},
        {"x": ft.dictionary(True)}, {"y": array(2)}, {"x": {"b": 2.0, "z": 1.0}}, {"y": [0, 2]}),
    Row("dictVectorizer", {"stringToIndex": {"vector": ["a", "c", "b", "z"]}},
        {"x": ft.dictionary(True)}, {"y": ft.dictionary(False)}, {"x": {"c": 8.0, "a": 4.0}},
        {"y": {0: 4.0, 1: 8.0}}),
    Row("categoricalMapping", {"stringToInt64Map": {"map": {"a": 3}}, "int64Value": -1},
        {"x": ft.string()}, {"y": ft.int64()}, {"x": "q"}, {"y": -1}),
    Row("categoricalMapping", {"int64ToStringMap": {"map": {3: "a"}}},
        {"x": ft.int64()}, {"y": ft.string()}, {"x": 3}, {"y": "a"}),
    Row("imputer", {"imputedDoubleArray": {"vector": [7, 8]}}, TWO, {"y": array(2)},
        {"x": [math.nan, 1]}, {"y": [7, 1]}),
    Row("imputer", {"imputedDoubleValue": 5.0, "replaceDoubleValue": -1.0}, {"x": double()}, Y,
        {"x": -1.0}, {"y": 5.0}),
    Row("imputer", {"imputedStringDictionary": {"map": {"a": 2.0}}},
        {"x": ft.dictionary(True)}, {"y": ft.dictionary(True)},
        {"x": {"a": math.nan, "b": 1.0}}, {"y": {"a": 2.0, "b": 1.0}}),
    Row("featureVectorizer",
        {"inputList": [{"inputColumn": "x", "inputDimensions": 2},
                       {"inputColumn": "d", "inputDimensions": 3},
                       {"inputColumn": "n", "inputDimensions": 1}]},
        {**TWO, "d": ft.dictionary(False), "n": double()}, {"y": array(6)},
        {"x": [1, 2], "d": {2: 9.0}, "n": 4}, {"y": [1, 2, 0, 0, 9, 4]}),
    Row("glmRegressor", {"weights": [{"value": [2, -1]}], "offset": [0.5]}, TWO, Y,
        {"x": [3, 4]}, {"y": 2.5}),
    Row("glmRegressor", {"weights": [{"value": [2, -1]}], "postEvaluationTransform": "Logit"},
        {"a": double(), "b": double()}, Y, {"a": 1, "b": 1}, {"y": sigmoid(1)}),
    Row("glmRegressor", {"weights": [{"value": [1, 0]}], "postEvaluationTransform": "Probit"},
        TWO, Y, {"x": [1.96, 0]}, {"y": 0.9750021}),
    Row("glmClassifier", {"weights": [{"value": [1, 1]}], "offset": [-1], **STRINGS}, TWO,
        LABELLED, {"x": [1, 1]}, {"p": {"no": 1 - sigmoid(1), "yes": sigmoid(1)}, "what": "yes"},
        **CLASSES),
    Row("glmClassifier",
        {"weights": [{"value": [1, 0]}, {"value": [0, 1]}], "classEncoding": "OneVsRest",
         **STRINGS},
        TWO, LABELLED, {"x": [2, 0]},
        {"p": {"no": sigmoid(2) / (sigmoid(2) + 0.5), "yes": 0.5 / (sigmoid(2) + 0.5)},
         "what": "no"}, **CLASSES),
    Row("glmClassifier",
        {"weights": [{"value": [1, 0]}, {"value": [0, 1]}],
         "int64ClassLabels": {"vector": [7, 8, 9]}},
        TWO, {"p": ft.dictionary(False), "what": ft.int64()},
        {"x": [math.log(2), math.log(5)]}, {"p": {7: 1 / 8, 8: 2 / 8, 9: 5 / 8}, "what": 9},
        **CLASSES),
    Row("glmClassifier",
        {"weights": [{"value": [1, -1]}], "offset": [0.5], "classEncoding": "OneVsRest", **STRINGS},
        TWO, LABELLED, {"x": [1, 0]},
        {"p": {"no": sigmoid(-1.5), "yes": sigmoid(1.5)}, "what": "yes"}, **CLASSES),
    Row("glmClassifier",
        {"weights": [{"value": [1, -1]}], "postEvaluationTransform": "Probit", **STRINGS},
        TWO, LABELLED, {"x": [0, 1.96]}, {"p": {"no": 0.9750021, "yes": 0.0249979}, "what": "no"},
        **CLASSES),
    Row("glmClassifier",  # all three far below 0: no chance of a class, and still shares
        {"weights": [{"value": [1, 0]}, {"value": [0, 1]}, {"value": [1, 1]}],
         "classEncoding": "OneVsRest", "int64ClassLabels": {"vector": [7, 8, 9]}},
        TWO, {"p": ft.dictionary(False), "what": ft.int64()},
        {"x": [-800, -800 + math.log(3)]}, {"p": {7: 1 / 4, 8: 3 / 4, 9: 0}, "what": 8},
        **CLASSES),
    Row("supportVectorRegressor",
        {"kernel": {"linearKernel": {}}, "rho": 0.25, "coefficients": {"alpha": [0.5, -1]},
         "denseSupportVectors": {"vectors": [{"values": [1, 2]}, {"values": [3, 0]}]}},
        TWO, Y, {"x": [1, 1]}, {"y": -1.75}),
    Row("supportVectorClassifier",
        {"kernel": {"linearKernel": {}}, "rho": [0], "coefficients": [{"alpha": [1, -1]}],
         "numberOfSupportVectorsPerClass": [1, 1], "probA": [-1], "probB": [0.5],
         "sparseSupportVectors": {"vectors": [{"nodes": [{"index": 1, "value": 1}]},
                                              {"nodes": [{"index": 2, "value": 1}]}]}, **STRINGS},
        TWO, LABELLED, {"x": [1, 3]},
        {"p": {"no": sigmoid(-2.5), "yes": sigmoid(2.5)}, "what": "yes"}, **CLASSES),
    Row("kNearestNeighborsClassifier",
        {"numberOfNeighbors": {"defaultValue": 3}, "inverseDistanceWeighting": {},
         "nearestNeighborsIndex": {
             "numberOfDimensions": 2, "linearIndex": {}, "squaredEuclideanDistance": {},
             "floatSamples": [{"vector": [0, 0]}, {"vector": [3, 0]}, {"vector": [1, 2]}]},
         "stringClassLabels": {"vector": ["no", "yes", "no"]}},
        TWO, LABELLED, {"x": [1, 0]},
        {"p": {"no": 1.25 / 1.5, "yes": 0.25 / 1.5}, "what": "no"}, **CLASSES),
    tree([1.5, 0], -0.5),
    tree([2, -1], 2.5),
    tree([2, 0], 3.5),
    tree([math.nan, 0], -0.5),
    Row("treeEnsembleClassifier",
        {"treeEnsemble": ENSEMBLE, "postEvaluationTransform": "Regression_Logistic", **STRINGS},
        TWO, LABELLED, {"x": [2, 0]},
        {"p": {"no": 1 - sigmoid(3.5), "yes": sigmoid(3.5)}, "what": "yes"}, **CLASSES),
    Row("treeEnsembleClassifier",
        {"treeEnsemble": ENSEMBLE,
         "postEvaluationTransform": "Classification_SoftMaxWithZeroClassReference", **STRINGS},
        TWO, LABELLED, {"x": [2, 0]},
        {"p": {"no": 1 - sigmoid(3.5), "yes": sigmoid(3.5)}, "what": "yes"}, **CLASSES),
]  # fmt: skip


def same(result: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert list(result) == list(expected)
        for key, value in expected.items():
            same(result[key], value)
    elif isinstance(expected, str):
        assert result == expected
    else:
        assert np.shape(result) == np.shape(expected)
        np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize("row", ROWS, ids=[f"{i}-{row.kind}" for i, row in enumerate(ROWS)])
def test_values(row: Row) -> None:
    same(mlferry.MLModel(row.spec()).predict(row.given), row.wanted)


def test_every_evaluator_has_a_row() -> None:
    elsewhere = {*networks.NETWORK_KINDS, *networks.PIPELINE_KINDS, "customModel",
                 "nonMaximumSuppression", "mlProgram"}  # fmt: skip
    assert set(EVALUATORS) - elsewhere == {row.kind for row in ROWS}


WRONG: list[tuple[Row, str]] = [
    (Row("glmClassifier", {"weights": [{"value": [1, 0]}], **STRINGS}, TWO, LABELLED,
         {"x": [math.nan, 0]}, {}, **CLASSES), "no likeliest class"),
    (Row("treeEnsembleRegressor", {"treeEnsemble": {"nodes": [*TREE, TREE[1]]}}, TWO, Y,
         {"x": [2, 2]}, {}), "nodes that a tree has twice: node 1 of tree 0"),
    (Row("treeEnsembleRegressor",
         {"treeEnsemble": {**ENSEMBLE, "basePredictionValue": [0.5, 0.5]}}, TWO, Y,
         {"x": [2, 2]}, {}), "2 values for 1 outputs"),
    (Row("oneHotEncoder", {"stringCategories": {"vector": ["a"]}}, {"x": ft.string()},
         {"y": array(1)}, {"x": "z"}, {}), "'z' is none of the 1 categories"),
    (Row("categoricalMapping", {"stringToInt64Map": {"map": {"a": 3}}}, {"x": ft.string()},
         {"y": ft.int64()}, {"x": "z"}, {}), "not among the 1 known"),
    (Row("arrayFeatureExtractor", {"extractIndex": [5]}, TWO, Y, {"x": [1, 2]}, {}),
     "no element 5"),
    (Row("scaler", {"scaleValue": [1, 2, 3]}, TWO, {"y": array(2)}, {"x": [1, 2]}, {}),
     "3 values for 2 elements"),
    (Row("glmRegressor", {"weights": [{"value": [2]}]}, TWO, Y, {"x": [3, 4]}, {}),
     "2 values for 1 weights"),
    (Row("treeEnsembleRegressor", {"treeEnsemble": {"nodes": TREE[:3]}}, TWO, Y, {"x": [2, 2]}, {}),
     "nodes that do not exist: node 3 of tree 0"),
    (Row("scaler", {}, {"x": double()}, Y, {"x": "text"}, {}), "double, not str 'text'"),
    (Row("dictVectorizer", {"stringToIndex": {"vector": ["a"]}}, {"x": ft.dictionary(True)},
         {"y": array(1)}, {"x": {1: 2.0}}, {}), "dictionary string to double, not dict"),
    (Row("featureVectorizer", {"inputList": [{"inputColumn": "d", "inputDimensions": 2}]},
         {"d": ft.dictionary(False)}, {"y": array(2)}, {"d": {7: 1.0}}, {}), "not one at 7"),
]  # fmt: skip


@pytest.mark.parametrize("index", range(len(WRONG)))
def test_what_does_not_fit(index: int) -> None:
    row, message = WRONG[index]
    with pytest.raises(MlferryError, match=message):
        mlferry.MLModel(row.spec()).predict(row.given)


def test_an_array_holds_what_its_type_holds() -> None:
    """0.1 as float32 lies above 0.1, so that another leaf is reached."""
    nodes = [{**TREE[0], "branchFeatureValue": 0.1}, *TREE[1:]]
    feature = {"x": ft.multi_array((2,), "float32")}
    row = Row("treeEnsembleRegressor", {"treeEnsemble": {"nodes": nodes}}, feature, Y,
              {"x": [0.1, 0]}, {"y": 3.0})  # fmt: skip
    same(mlferry.MLModel(row.spec()).predict(row.given), row.wanted)


def test_an_array_of_integers_holds_32_bits() -> None:
    pick = Row("arrayFeatureExtractor", {"extractIndex": [1]}, {"x": ft.multi_array((2,), "int32")},
               {"y": ft.int64()}, {"x": [1, 2**31]}, {})  # fmt: skip
    with pytest.raises(PredictionError, match="values that int32 cannot hold"):
        mlferry.MLModel(pick.spec()).predict(pick.given)


def test_votes_in_float32_are_equal() -> None:
    """Ten trees of 0.1 each: five votes are half, as in the libraries that such trees come from."""
    nodes = [{**node, "treeId": tree,
              "evaluationInfo": [{"evaluationValue": float(np.float32(0.1)) * (tree < 5)}]}
             for tree in range(10) for node in [TREE[1]]]  # fmt: skip
    row = Row("treeEnsembleClassifier", {"treeEnsemble": {"nodes": nodes}, **STRINGS}, TWO,
              LABELLED, {"x": [0, 0]}, {"p": {"no": 0.5, "yes": 0.5}, "what": "no"},
              **CLASSES)  # fmt: skip
    same(mlferry.MLModel(row.spec()).predict(row.given), row.wanted)


def test_trees_without_labels_count_them() -> None:
    params = {"treeEnsemble": {**ENSEMBLE, "numPredictionDimensions": 2,
                               "basePredictionValue": [0.0, 2.5]}}  # fmt: skip
    outputs = {"what": ft.int64()}
    row = Row("treeEnsembleClassifier", params, TWO, outputs, {"x": [2, -1]}, {"what": 1},
              names={"label": "what"})  # fmt: skip
    same(mlferry.MLModel(row.spec()).predict(row.given), row.wanted)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("textClassifier", "is in the file"), ("wordTagger", "is in the file"),
        ("gazetteer", "is in the file"), ("wordEmbedding", "is in the file"),
        ("visionFeaturePrint", "is part of Apple's systems"),
        ("audioFeaturePrint", "is part of Apple's systems"),
        ("soundAnalysisPreprocessing", "how they compute it is not in the file"),
    ],
)  # fmt: skip
def test_apples_models_say_what_is_missing(kind: str, message: str) -> None:
    spec = build(kind, {}, {"text": ft.string()}, {"y": ft.string()}, label="y")
    spec.specificationVersion = 6
    with pytest.raises(UnsupportedModelError, match=message):
        mlferry.MLModel(spec).predict({"text": "good"})


def test_every_kind_is_evaluated_or_says_why_not() -> None:
    kinds = model_pb2.Model.DESCRIPTOR.oneofs_by_name["Type"].fields
    assert {kind.name for kind in kinds} <= {*EVALUATORS, *_WHY_NOT}
    assert not set(EVALUATORS) & set(_WHY_NOT)


# ---- detection -------------------------------------------------------------------------


def detector(**params: Any) -> model_pb2.Model:
    names = {
        "confidenceInputFeatureName": "c", "coordinatesInputFeatureName": "b",
        "confidenceOutputFeatureName": "confidence", "coordinatesOutputFeatureName": "coordinates",
        "iouThresholdInputFeatureName": "iou", "iouThreshold": 0.5, "confidenceThreshold": 0.3,
        "stringClassLabels": {"vector": ["cat", "dog"]},
    }  # fmt: skip
    optional = double()
    optional.isOptional = True
    free = ft.multi_array(None, "float64")
    return build(
        "nonMaximumSuppression",
        {**names, **params},
        {"c": array(4, 2), "b": array(4, 4), "iou": optional},
        {"confidence": free, "coordinates": free},
    )


BOXES = [[0, 0, 2, 2], [0.2, 0, 2, 2], [5, 5, 1, 1], [9, 9, 1, 1]]
SCORES = [[0.6, 0.1], [0.2, 0.9], [0.4, 0.1], [0.1, 0.2]]


@pytest.mark.parametrize(
    ("params", "extra", "kept"),
    [
        ({"pickTop": {"perClass": False}}, {}, [1, 2]),
        ({"pickTop": {"perClass": True}}, {}, [1, 0, 2]),
        ({"pickTop": {"perClass": False}}, {"iou": 0.9}, [1, 0, 2]),
        ({"pickTop": {}, "confidenceThreshold": 0.15}, {}, [1, 2, 3]),
    ],
)
def test_non_maximum_suppression(
    params: dict[str, Any], extra: dict[str, float], kept: list[int]
) -> None:
    actual = mlferry.MLModel(detector(**params)).predict({"c": SCORES, "b": BOXES, **extra})
    np.testing.assert_array_equal(actual["coordinates"], np.array(BOXES, float)[kept])
    np.testing.assert_array_equal(actual["confidence"], np.array(SCORES)[kept])


# ---- pipelines and custom models -------------------------------------------------------


def pipeline(*models: model_pb2.Model, outputs: dict[str, Any]) -> model_pb2.Model:
    spec = model_pb2.Model(specificationVersion=3)
    spec.pipeline.models.extend(models)
    spec.description.input.extend(models[0].description.input)
    for name, feature in outputs.items():
        spec.description.output.add(name=name).type.CopyFrom(feature)
    return spec


def test_a_pipeline_may_make_a_feature_anew() -> None:
    double_it = build("scaler", {"scaleValue": [2]}, TWO, {"x": array(2)})
    total = build("glmRegressor", {"weights": [{"value": [1, 1]}]}, TWO, Y)
    model = mlferry.MLModel(pipeline(double_it, total, outputs=Y))
    assert model.predict({"x": [1, 2]}) == {"y": 6.0}


def test_a_pipeline_says_which_model_failed() -> None:
    pick = build("arrayFeatureExtractor", {"extractIndex": [7]}, TWO, Y)
    with pytest.raises(PredictionError, match=r"no element 7[^$]*running model '0'"):
        mlferry.MLModel(pipeline(pick, outputs=Y)).predict({"x": [1, 2]})


class Summer(mlferry.CustomModel):
    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"total": self.parameters["scale"] * np.sum(inputs["x"])}


def custom_model() -> mlferry.MLModel:
    parameters = {"scale": 2.0, "big": 2**40, "n": 3, "flag": True, "blob": b"\x00\x01", "s": "t"}
    return mlferry.make_custom_model("Summer", TWO, {"total": double()}, parameters, "adds up")


def test_custom_models(tmp_path: Any) -> None:
    path = custom_model().save(tmp_path / "m.mlmodel")
    with pytest.raises(mlferry.errors.MissingCustomLayerError, match="adds up") as caught:
        mlferry.MLModel(path).predict({"x": [1, 2]})
    assert "@mlferry.register_custom_model('Summer')" in str(caught.value)
    model = mlferry.MLModel(path, custom_models={"Summer": Summer})
    assert model.predict({"x": [1, 2]}) == {"total": 6.0}
    held = {k: (v.WhichOneof("value")) for k, v in model.get_spec().customModel.parameters.items()}
    assert held == {
        "scale": "doubleValue", "big": "longValue", "n": "intValue", "flag": "boolValue",
        "blob": "bytesValue", "s": "stringValue",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"inputs": {}}, "description: it has no inputs"),
     ({"outputs": {}}, "description: it has no outputs"),
     ({"inputs": {"": double()}}, "input '': it has no name"),
     ({"inputs": {"x": ft.multi_array(None)}}, "an input needs a shape"),
     ({"parameters": {"": 1}}, "a parameter has an empty name"),
     ({"class_name": ""}, "className is empty")],
)  # fmt: skip
def test_custom_models_that_no_device_takes(changed: dict[str, Any], message: str) -> None:
    inputs: dict[str, Any] = {"class_name": "Summer", "inputs": TWO, "outputs": {"total": double()}}
    with pytest.raises(mlferry.errors.ValidationError, match=message):
        mlferry.make_custom_model(**(inputs | changed))


BROKEN: list[tuple[Callable[..., Any], str]] = [
    (lambda self, inputs: {}, "predict returns a dict with total"),
    (lambda self, inputs: 1 / 0, "predict raised ZeroDivisionError"),
    (lambda self, inputs: {"total": "text"}, "double, not str"),
]


@pytest.mark.parametrize("index", range(len(BROKEN)))
def test_broken_custom_models(index: int) -> None:
    method, message = BROKEN[index]
    cls = type("Broken", (mlferry.CustomModel,), {"predict": method})
    spec = custom_model().get_spec()
    with pytest.raises(MlferryError, match=message):
        mlferry.MLModel(spec, custom_models={"Summer": cls}).predict({"x": [1, 2]})


def test_a_network_with_a_custom_layer_inside_a_pipeline() -> None:
    from mlferry.layers.builder import Builder

    builder = Builder()
    builder.input("x", (2,))
    builder.layer("custom", "c", ["x"], ["x2"], className="Negate", output_shapes=[(2,)])
    builder.output("x2")
    final = build("scaler", {"scaleValue": [3]}, {"x2": array(2)}, {"y": array(2)})
    spec = pipeline(builder.model(), final, outputs={"y": array(2)})

    class Negate(mlferry.CustomLayer):
        def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
            return [-inputs[0]]

    model = mlferry.MLModel(spec, custom_layers={"Negate": Negate})
    np.testing.assert_allclose(model.predict({"x": [1, 2]})["y"], [-3, -6])
