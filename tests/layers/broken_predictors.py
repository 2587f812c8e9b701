"""Linear models, support vector machines and nearest neighbours, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlferry.spec import features, fields
from mlferry.spec.proto import model_pb2
from tests.layers.broken_models import E, W, on, put

Model = model_pb2.Model
GLM, SVC, SVR, KNN = ("glmClassifier", "supportVectorClassifier", "supportVectorRegressor",
                      "kNearestNeighborsClassifier")  # fmt: skip
LABELS = {"stringClassLabels": {"vector": ["a", "b", "c"]}}
TWO = {"stringClassLabels": {"vector": ["a", "b"]}}


def model(kind: str, params: dict[str, Any]) -> Model:
    spec = Model(specificationVersion=4 if kind == KNN else 1)
    getattr(spec, kind).SetInParent()
    fields.fill(getattr(spec, kind), params)
    spec.description.input.add(name="x").type.CopyFrom(features.multi_array((2,), "float64"))
    output = spec.description.output.add(name="y").type
    if kind.endswith("Regressor"):
        output.doubleType.SetInParent()
    else:
        output.stringType.SetInParent()
    spec.description.predictedFeatureName = "y"
    return spec


def linear(rows: int = 3, labels: Any = LABELS, **params: Any) -> Callable[[], Model]:
    weights = [{"value": [1.0, 2.0]}] * rows
    inputs = {"weights": weights, "offset": [0.0] * rows, "classEncoding": "OneVsRest"}
    return lambda: model(GLM, {**inputs, **labels, **params})


def machine() -> Model:
    vectors = [{"values": [1.0, float(i)]} for i in range(4)]
    return model(SVC, {
        "kernel": {"polyKernel": {"degree": 2, "gamma": 0.5}},
        "denseSupportVectors": {"vectors": vectors}, "numberOfSupportVectorsPerClass": [1, 2, 1],
        "coefficients": [{"alpha": [1.0, 2, 3, 4]}] * 2, "rho": [0.1, 0.2, 0.3],
        "probA": [-1.0] * 3, "probB": [0.0] * 3, **LABELS,
    })  # fmt: skip


def regression() -> Model:
    nodes = [{"nodes": [{"index": 1, "value": 2.0}, {"index": 2, "value": 1.0}]}]
    return model(SVR, {"kernel": {"rbfKernel": {"gamma": 0.5}}, "coefficients": {"alpha": [2.0]},
                       "sparseSupportVectors": {"vectors": nodes}})  # fmt: skip


def neighbors() -> Model:
    return model(KNN, {
        "nearestNeighborsIndex": {
            "numberOfDimensions": 2, "floatSamples": [{"vector": [1, 2]}, {"vector": [3, 4]}],
            "singleKdTreeIndex": {"leafSize": 2}, "squaredEuclideanDistance": {}},
        "numberOfNeighbors": {"defaultValue": 1, "range": {"minValue": 1, "maxValue": 9}},
        "uniformWeighting": {}, "defaultStringLabel": "a", **TWO,
    })  # fmt: skip


def forest() -> Model:
    """A tree of one branch: class a below 0.5, else class b."""
    leaves = [
        {
            "nodeId": node,
            "nodeBehavior": "LeafNode",
            "evaluationInfo": [{"evaluationIndex": 0, "evaluationValue": value}],
        }
        for node, value in ((1, -1.0), (2, 1.0))
    ]
    root = {"nodeId": 0, "nodeBehavior": "BranchOnValueLessThan", "branchFeatureValue": 0.5,
            "trueChildNodeId": 1, "falseChildNodeId": 2}  # fmt: skip
    return model("treeEnsembleClassifier", {**TWO, "treeEnsemble": {
        "nodes": [root, *leaves], "numPredictionDimensions": 1, "basePredictionValue": [0.0]},
        "postEvaluationTransform": "Regression_Logistic"})  # fmt: skip


def line() -> Model:
    return model("glmRegressor", {"weights": [{"value": [1.0, 2.0]}], "offset": [0.5]})


SANE = {
    "forest": forest, "line": line, "one-vs-rest": linear(),
    "one row for two classes": linear(1, TWO),
    "reference class": linear(2, classEncoding="ReferenceClass"),
    "Probit": linear(1, TWO, postEvaluationTransform="Probit"),
    "support vector classifier": machine, "support vector regressor": regression,
    "nearest neighbours": neighbors,
}  # fmt: skip
TREES = "treeEnsembleClassifier"
ENSEMBLE = f"{TREES}.treeEnsemble"
ROOT, LEAF = (f"{ENSEMBLE}.nodes[{index}]" for index in (0, 1))
NODE = f"{SVR}.sparseSupportVectors.vectors[0].nodes"
INDEX = f"{KNN}.nearestNeighborsIndex"

Case = tuple[str, Callable[[], Model], str, str, str]
CASES: list[Case] = [
    ("trees of no output", on(forest, put(f"{ENSEMBLE}.numPredictionDimensions", 0)), W, TREES,
     "numPredictionDimensions is not set"),
    ("trees of many outputs", on(forest, put(f"{ENSEMBLE}.numPredictionDimensions", 1 << 40)), E,
     TREES, "it must be at most 2147483647"),
    ("two base values", on(forest, put(f"{ENSEMBLE}.basePredictionValue", [1, 2])), E, TREES,
     "basePredictionValue has 2 values for 1 outputs"),
    ("three classes of trees", on(forest, put(f"{TREES}.stringClassLabels.vector",
     ["a", "b", "c"])), W, TREES, "numPredictionDimensions is 1, and there are 3 classes"),
    ("an empty leaf", on(forest, put(f"{LEAF}.evaluationInfo", None)), W, TREES,
     "leaves that add nothing: node 1 of tree 0"),
    ("a leaf beyond", on(forest, put(f"{LEAF}.evaluationInfo[0].evaluationIndex", 1)), E, TREES,
     "add to an output beyond 1: node 1 of tree 0"),
    ("a leaf twice", on(forest, lambda spec: spec.treeEnsembleClassifier.treeEnsemble.nodes[
        1].evaluationInfo.add(evaluationIndex=0)), W, TREES, "add to the same output twice"),
    ("a node twice", on(forest, put(f"{LEAF}.nodeId", 2)), E, TREES, "a tree has twice: node 2"),
    ("a behavior", on(forest, put(f"{ROOT}.nodeBehavior", 9)), E, TREES, "nodeBehavior [9]"),
    ("a missing child", on(forest, put(f"{ROOT}.trueChildNodeId", 7)), E, TREES,
     "lead to nodes that do not exist: node 7 of tree 0"),
    ("a shared child", on(forest, put(f"{ROOT}.trueChildNodeId", 2)), E, TREES,
     "children of two branches: node 2"),
    ("two roots", on(forest, put(f"{LEAF}.treeId", 1), put(f"{ROOT}.trueChildNodeId", 2),
     lambda spec: spec.treeEnsembleClassifier.treeEnsemble.nodes.add(
         treeId=1, nodeId=5, nodeBehavior="LeafNode")), E, TREES, "trees [1] have none, or"),
    ("a circle", on(forest, lambda spec: [
        spec.treeEnsembleClassifier.treeEnsemble.nodes.add(
            nodeId=a, trueChildNodeId=b, falseChildNodeId=leaf) for a, b, leaf in
        ((8, 9, 1), (9, 8, 2))], put(f"{ROOT}.trueChildNodeId", 3),
     put(f"{ROOT}.falseChildNodeId", 4), lambda spec: [
        spec.treeEnsembleClassifier.treeEnsemble.nodes.add(
            nodeId=leaf, nodeBehavior="LeafNode", evaluationInfo=[{}]) for leaf in (3, 4)]), E,
     TREES, "nodes that no root leads to: node 1 of tree 0, node 2 of tree 0, node 8"),
    ("no weights", linear(0), E, GLM, "it has no weights"),
    ("an empty row", on(linear(), put(f"{GLM}.weights[0].value", [])), E, GLM, "row of its"),
    ("transform", on(linear(), put(f"{GLM}.postEvaluationTransform", 9)), E, GLM,
     "postEvaluationTransform 9 is unknown; known are Logit, Probit"),
    ("weights of two lengths", on(linear(), put(f"{GLM}.weights[0].value", [1])), E, GLM,
     "differ in length"),
    ("two offsets", on(linear(), put(f"{GLM}.offset", [1, 2])), E, GLM, "2 offsets for 3 rows"),
    ("no offsets", on(linear(), put(f"{GLM}.offset", [])), W, GLM, "write a 0 for each of 3"),
    ("two rows for three", linear(2), E, GLM, "2 rows of weights for 3 classes; there are 3"),
    ("three rows for two", linear(3, TWO), E, GLM, "3 rows of weights for 2 classes; there are 1"),
    ("a row for each of two", linear(2, TWO), W, GLM, "one-vs-rest has one row"),
    ("a row for the reference", linear(3, classEncoding="ReferenceClass"), E, GLM,
     "3 rows of weights for 3 classes; there are 2"),
    ("Probit of three", linear(postEvaluationTransform="Probit"), E, GLM,
     "Probit is defined for two classes; there are 3"),
    ("glm without labels", on(linear(), put(f"{GLM}.stringClassLabels", None)), E, "classifier",
     "it has no labels"),
    ("label of another type", on(linear(), put("description.output[0].type.int64Type", {})), W,
     "output 'y'", "for these labels it is stringType"),
    ("kernel", on(machine, put(f"{SVC}.kernel", {})), E, SVC, "it has no kernel"),
    ("degree", on(machine, put(f"{SVC}.kernel.polyKernel.degree", -1)), E, SVC, "degree of its"),
    ("gamma", on(regression, put(f"{SVR}.kernel.rbfKernel.gamma", -0.5)), W, SVR, "is -0.5"),
    ("no vectors", on(machine, put(f"{SVC}.denseSupportVectors", None)), E, SVC, "neither"),
    ("vectors of two lengths", on(machine, put(f"{SVC}.denseSupportVectors.vectors[0].values",
     [1])), E, SVC, "of several lengths: [1, 2]"),
    ("element 0", on(regression, put(f"{NODE}[0].index", 0)), E, SVR, "they count from 1"),
    ("element -3", on(regression, put(f"{NODE}[0].index", -3)), E, SVR, "an element -3"),
    ("element twice", on(regression, put(f"{NODE}[0].index", 2)), E, SVR, "twice"),
    ("coefficients", on(regression, put(f"{SVR}.coefficients.alpha", [1, 2])), E, SVR,
     "2 coefficients for 1 support vectors"),
    ("coefficients of a row", on(machine, put(f"{SVC}.coefficients[1].alpha", [1, 2])), E, SVC,
     "2 coefficients for 4 support vectors"),
    ("one class", on(machine, put(f"{SVC}.stringClassLabels.vector", ["a"])), E, SVC,
     "it has 1 classes"),
    ("rows", on(machine, put(f"{SVC}.stringClassLabels.vector", ["a", "b"])), E, SVC,
     "2 rows of coefficients for 2 classes; there are 1"),
    ("vectors per class", on(machine, put(f"{SVC}.numberOfSupportVectorsPerClass", [2, 2])), E,
     SVC, "2 numberOfSupportVectorsPerClass for 3 classes"),
    ("sum of vectors", on(machine, put(f"{SVC}.numberOfSupportVectorsPerClass", [1, 1, 1])), E,
     SVC, "are [1, 1, 1], and there are 4"),
    ("negative count", on(machine, put(f"{SVC}.numberOfSupportVectorsPerClass", [5, -2, 1])), E,
     SVC, "are [5, -2, 1]"),
    ("rho", on(machine, put(f"{SVC}.rho", [1])), E, SVC, "1 rho for 3 pairs"),
    ("probA", on(machine, put(f"{SVC}.probA", [1])), E, SVC, "1 probA for 3 pairs"),
    ("probA alone", on(machine, put(f"{SVC}.probB", [])), E, SVC, "one of probA and probB"),
    ("probabilities of none", on(machine, put(f"{SVC}.probA", []), put(f"{SVC}.probB", []),
     put("description.predictedProbabilitiesName", "p")), W, SVC, "cannot be computed"),
    ("no neighbour", on(neighbors, put(f"{KNN}.numberOfNeighbors.defaultValue", 0)), E, KNN,
     "numberOfNeighbors is 0"),
    ("neighbours of no range", on(neighbors, put(f"{KNN}.numberOfNeighbors",
     {"defaultValue": 1})), W, KNN, "neither a range nor a set"),
    ("a range from 0", on(neighbors, put(f"{KNN}.numberOfNeighbors.range.minValue", 0)), W, KNN,
     "its range of numbers of neighbours begins at 0"),
    ("a set with 0", on(neighbors, put(f"{KNN}.numberOfNeighbors",
     {"defaultValue": 1, "set": {"values": [0, 1]}})), W, KNN, "its set of numbers of neighbours"),
    ("neighbours out of range", on(neighbors, put(f"{KNN}.numberOfNeighbors.defaultValue", 10)),
     W, KNN, "is 10, which its range does not allow"),
    ("neighbours out of a set", on(neighbors, put(f"{KNN}.numberOfNeighbors",
     {"defaultValue": 2, "set": {"values": [1, 3]}})), W, KNN, "its set does not allow"),
    ("labels of samples", on(neighbors, put(f"{KNN}.stringClassLabels.vector", ["a"])), E, KNN,
     "1 labels for 2 samples"),
    ("dimensions", on(neighbors, put(f"{INDEX}.numberOfDimensions", 3)), E, KNN,
     "a sample has 2 values; there are 3 dimensions"),
    ("nothing known", on(neighbors, put(f"{KNN}.stringClassLabels", None),
     put(f"{INDEX}.floatSamples", None), put(f"{KNN}.defaultStringLabel", None)), E, KNN,
     "no samples and no default label"),
    ("default of another type", on(neighbors, put(f"{KNN}.defaultInt64Label", 3)), W, KNN,
     "defaultInt64Label is of another type than stringClassLabels"),
    ("weighting", on(neighbors, put(f"{KNN}.uniformWeighting", None)), E, KNN, "neither uniform"),
    ("distance", on(neighbors, put(f"{INDEX}.squaredEuclideanDistance", None)), E, KNN,
     "no distance function"),
    ("index", on(neighbors, put(f"{INDEX}.singleKdTreeIndex", None)), W, KNN, "neither a linear"),
    ("leaf size", on(neighbors, put(f"{INDEX}.singleKdTreeIndex.leafSize", 0)), W, KNN,
     "leafSize of its k-d tree is 0"),
    ("regression's name", on(regression, put("description.predictedFeatureName", "z")), W,
     "description", "'z' is not an output"),
]  # fmt: skip
