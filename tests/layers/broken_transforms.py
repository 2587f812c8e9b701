"""Models that prepare features, that the system evaluates, that suppress boxes: what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlferry.spec import features, fields
from mlferry.spec.proto import features_pb2 as ft, model_pb2
from tests.layers.broken_models import E, W, on, put

Model = model_pb2.Model
INTEGER, DOUBLE, STRING = (ft.FeatureType(**{f"{name}Type": {}})
                           for name in ("int64", "double", "string"))  # fmt: skip
ARRAY, OTHER = features.multi_array((3,), "float64"), features.multi_array((4,), "float64")
KEYS = ft.FeatureType(dictionaryType={"stringKeyType": {}})
STRINGS = ft.FeatureType(sequenceType={"stringType": {}, "sizeRange": {"upperBound": -1}})
INTEGERS = ft.FeatureType(sequenceType={"int64Type": {}, "sizeRange": {"upperBound": -1}})
IMAGE = ft.FeatureType(imageType={"width": 4, "height": 4, "colorSpace": "RGB"})


def model(
    kind: str,
    params: dict[str, Any],
    inputs: dict[str, ft.FeatureType],
    outputs: dict[str, ft.FeatureType],
    version: int = 5,
) -> Callable[[], Model]:
    """A model of a kind that has no network."""

    def make() -> Model:
        spec = Model(specificationVersion=version)
        getattr(spec, kind).SetInParent()
        fields.fill(getattr(spec, kind), params)
        for described, sample in ((spec.description.input, inputs),
                                 (spec.description.output, outputs)):  # fmt: skip
            for name, feature in sample.items():
                described.add(name=name).type.CopyFrom(feature)
        return spec

    return make


def one(
    kind: str, source: ft.FeatureType, target: ft.FeatureType, version: int = 5, **params: Any
) -> Callable[[], Model]:
    return model(kind, params, {"x": source}, {"y": target}, version)


SCALER = one("scaler", ARRAY, ARRAY, scaleValue=[1, 2, 3], shiftValue=[1])
IMPUTER = one("imputer", ARRAY, ARRAY, imputedDoubleArray={"vector": [1, 2, 3]},
              replaceDoubleValue=0.0)  # fmt: skip
ONE_HOT = one("oneHotEncoder", STRING, ARRAY, stringCategories={"vector": ["a", "b", "c"]})
MAPPING = one("categoricalMapping", STRING, INTEGER, stringToInt64Map={"map": {"a": 1}},
              int64Value=0)  # fmt: skip
SEQUENCES = one("categoricalMapping", STRINGS, INTEGERS, stringToInt64Map={"map": {"a": 1}})
KEYED = one("dictVectorizer", KEYS, KEYS, stringToIndex={"vector": ["a"]})
NORM = one("normalizer", ARRAY, ARRAY)
JOINED = model("featureVectorizer", {"inputList": [{"inputColumn": "x", "inputDimensions": 3}]},
               {"x": ARRAY}, {"y": ARRAY})  # fmt: skip
PICKED = one("arrayFeatureExtractor", ARRAY, DOUBLE, extractIndex=[1])
TREES = on(one("treeEnsembleRegressor", DOUBLE, DOUBLE, treeEnsemble={
    "numPredictionDimensions": 1}), put("description.predictedFeatureName", "y"))  # fmt: skip

DATA = {"revision": 2, "modelParameterData": b"data"}
TEXT = one("textClassifier", STRING, STRING, stringClassLabels={"vector": ["a"]}, **DATA)
GAZETTEER = one("gazetteer", STRING, STRING, stringClassLabels={"vector": ["a"]}, **DATA)
WORDS = one("wordEmbedding", STRING, ARRAY, **DATA)
TAGGER = model("wordTagger", {**DATA, "stringTags": {"vector": ["a"]},
                              "tokenTagsOutputFeatureName": "tags",
                              "tokenLengthsOutputFeatureName": "lengths"},
               {"x": STRING}, {"tags": STRINGS, "lengths": INTEGERS})  # fmt: skip
SCENE = one("visionFeaturePrint", IMAGE, ARRAY, scene={"version": "SCENE_VERSION_1"})
OBJECTS = model("visionFeaturePrint", {
    "objects": {"version": "OBJECTS_VERSION_1", "output": ["a", "b"]}}, {"x": IMAGE},
    {"a": ARRAY, "b": ARRAY})  # fmt: skip
SOUND = one("audioFeaturePrint", features.multi_array((15600,)), ARRAY,
            sound={"version": "SOUND_VERSION_1"}, version=8)  # fmt: skip
FRAMES = one("soundAnalysisPreprocessing", features.multi_array((15600,)),
             features.multi_array((1, 96, 64)), vggish={})  # fmt: skip
LINKED = one("linkedModel", ARRAY, ARRAY, linkedModelFile={
    "linkedModelFileName": {"defaultValue": "other.mlmodelc"}})  # fmt: skip
SIMILAR = [{"itemId": 0, "similarItemList": [{"itemId": 1, "similarityScore": 0.5}]}]
RECOMMENDER = model("itemSimilarityRecommender", {
    "itemItemSimilarities": SIMILAR, "itemStringIds": {"vector": ["a", "b"]},
    "itemInputFeatureName": "x", "numRecommendationsInputFeatureName": "k",
    "recommendedItemListOutputFeatureName": "y"}, {"x": STRINGS, "k": INTEGER},
    {"y": STRINGS})  # fmt: skip
HALVES = {"vector": [0.5, 0.75]}
CURVES = one("classConfidenceThresholding", ARRAY, ARRAY, version=8, precisionRecallCurves=[{
    "precisionValues": HALVES, "precisionConfidenceThresholds": HALVES,
    "recallValues": HALVES, "recallConfidenceThresholds": HALVES}])  # fmt: skip
BAYESIAN = on(one("bayesianProbitRegressor", features.multi_array((1, 2), "int32"), DOUBLE),
              put("description.predictedFeatureName", "y"))  # fmt: skip
CONFIDENCE, BOXES = (features.multi_array((10, each), "float64") for each in (2, 4))
NMS = model("nonMaximumSuppression", {
    "confidenceInputFeatureName": "c", "coordinatesInputFeatureName": "b",
    "confidenceThresholdInputFeatureName": "t", "confidenceOutputFeatureName": "confidence",
    "coordinatesOutputFeatureName": "coordinates", "iouThreshold": 0.5,
    "stringClassLabels": {"vector": ["a", "b"]}}, {"c": CONFIDENCE, "b": BOXES, "t": DOUBLE},
    {"confidence": CONFIDENCE, "coordinates": BOXES})  # fmt: skip

SANE = {
    "scaler": SCALER, "scaler of a number": one("scaler", INTEGER, DOUBLE, scaleValue=[2]),
    "imputer": IMPUTER, "one-hot encoder": ONE_HOT,
    "sparse one-hot encoder": one("oneHotEncoder", INTEGER, KEYS, outputSparse=True,
                                  int64Categories={"vector": [1]}),
    "mapping": MAPPING, "mapping of sequences": SEQUENCES, "keys": KEYED, "normalizer": NORM,
    "joined": JOINED, "one element": PICKED, "trees": TREES, "text": TEXT,
    "gazetteer": GAZETTEER, "words": WORDS, "tagger": TAGGER, "scene": SCENE,
    "objects": OBJECTS, "sound": SOUND, "frames": FRAMES, "linked": LINKED,
    "recommender": RECOMMENDER, "curves": CURVES, "bayesian": BAYESIAN, "suppression": NMS,
}  # fmt: skip

RANGE = {"shapeRange": {"sizeRanges": [{"lowerBound": 0, "upperBound": -1},
                                       {"lowerBound": 3, "upperBound": 3}]}}  # fmt: skip
TYPE = "description.{}[{}].type"
SOURCE, TARGET = TYPE.format("input", 0), TYPE.format("output", 0)
CURVE = "classConfidenceThresholding.precisionRecallCurves[0]"
NMS_FEATURES = "nonMaximumSuppression"
RECOMMENDS = "itemSimilarityRecommender"


def second(spec: Model) -> None:
    spec.description.output.add(name="z").type.CopyFrom(ARRAY)


def state(spec: Model) -> None:
    spec.description.state.add(name="s").type.CopyFrom(ARRAY)


def optional(spec: Model) -> None:
    spec.description.input[0].type.isOptional = True


def default(spec: Model) -> None:
    spec.description.input[0].type.isOptional = True
    spec.description.input[0].type.multiArrayType.doubleDefaultValue = 1


Case = tuple[str, Callable[[], Model], str, str, str]
CASES: list[Case] = [
    ("two outputs", on(NORM, second), W, "model", "have 1 output at most; this has 2"),
    ("a string to scale", on(SCALER, put(SOURCE, {"stringType": {}})), W, "input 'x'",
     "inputs of scaler models are doubleType or int64Type or multiArrayType"),
    ("a double to tag", on(TAGGER, put(TARGET, {"doubleType": {}})), W, "output 'tags'",
     "outputs of wordTagger models are sequenceType"),
    ("a scaled string", one("scaler", DOUBLE, INTEGER), W, "scaler",
     "its input is a doubleType, and its output a int64Type"),
    ("two axes", on(SCALER, put(f"{SOURCE}.multiArrayType.shape", [1, 3])), W, "scaler",
     "arrays here have one axis"),
    ("another length", on(SCALER, put(f"{TARGET}.multiArrayType.shape", [4])), W, "scaler",
     "its input has the shape [3], its output [4]"),
    ("two shifts", on(SCALER, put("scaler.shiftValue", [1, 2])), W, "scaler",
     "shiftValue has 2 values; possible are 0 or 1 or 3"),
    ("nothing imputed", one("imputer", ARRAY, ARRAY), W, "imputer", "nothing to fill in"),
    ("imputed otherwise", on(IMPUTER, put(TARGET, {"doubleType": {}})), W, "imputer",
     "its input is a multiArrayType, and its output a doubleType"),
    ("imputed of another type", one("imputer", STRING, STRING, imputedDoubleValue=1.0), W,
     "imputer", "imputedDoubleValue is for inputs of doubleType or multiArrayType"),
    ("replaced of another type", on(IMPUTER, put("imputer.replaceStringValue", "a")), W,
     "imputer", "replaceStringValue does not go with imputedDoubleArray; replaceDoubleValue"),
    ("two imputed", on(IMPUTER, put("imputer.imputedDoubleArray.vector", [1, 2])), W, "imputer",
     "imputedDoubleArray has 2 values"),
    ("no categories", on(ONE_HOT, put("oneHotEncoder.stringCategories", None)), W,
     "oneHotEncoder", "it has no categories"),
    ("sparse array", on(ONE_HOT, put("oneHotEncoder.outputSparse", True)), W, "oneHotEncoder",
     "outputSparse is true, so its output must be a dictionaryType"),
    ("no mapping", one("categoricalMapping", STRING, INTEGER), W, "categoricalMapping",
     "it has no mapping"),
    ("unknown of another type", on(MAPPING, put("categoricalMapping.strValue", "a")), W,
     "categoricalMapping", "strValue is set, but stringToInt64Map gives int64Type"),
    ("mapped otherwise", on(MAPPING, put(TARGET, {"stringType": {}})), W, "categoricalMapping",
     "its output is a stringType; by the mapping it is a int64Type"),
    ("a sequence to one", on(SEQUENCES, put(TARGET, {"int64Type": {}})), W,
     "categoricalMapping", "its output must be a sequence of int64Type"),
    ("no keys", on(KEYED, put("dictVectorizer.stringToIndex", None)), W, "dictVectorizer",
     "it has no keys"),
    ("norm", on(NORM, put("normalizer.normType", 9)), E, "normalizer", "normType 9 is unknown"),
    ("a column without a size", on(JOINED, put("featureVectorizer.inputList[0].inputDimensions",
     0)), W, "featureVectorizer", "columns without a size: 'x'"),
    ("no array", on(PICKED, put("description.input", None)), W, "arrayFeatureExtractor",
     "no input to extract from"),
    ("two elements into one", on(PICKED, put("arrayFeatureExtractor.extractIndex", [0, 1])), W,
     "arrayFeatureExtractor", "extractIndex has 2 entries"),
    ("optional input", on(SCALER, optional), W, "input 'x'",
     "scaler models take no optional inputs"),
    ("default value", on(IMPUTER, default), W, "input 'x'",
     "doubleDefaultValue is set; default values are for networks alone"),
    ("revision", on(GAZETTEER, put("gazetteer.revision", 1)), W, "gazetteer",
     "its revision is 1; revisions start at 2"),
    ("no data", on(WORDS, put("wordEmbedding.modelParameterData", b"")), W, "wordEmbedding",
     "modelParameterData is empty"),
    ("no labels", on(TEXT, put("textClassifier.stringClassLabels", None)), W, "textClassifier",
     "stringClassLabels is empty"),
    ("no tags", on(TAGGER, put("wordTagger.tokenTagsOutputFeatureName", "")), W, "wordTagger",
     "tokenTagsOutputFeatureName is empty"),
    ("more outputs", on(TAGGER, second), W, "wordTagger", "no parameter names: 'z'"),
    ("missing lengths", on(TAGGER, put("wordTagger.tokenLengthsOutputFeatureName", "n")), W,
     "wordTagger", "tokenLengthsOutputFeatureName is 'n'; the description has no such feature"),
    ("tags as integers", on(TAGGER, put(TARGET, {"sequenceType": {"int64Type": {}}})), W,
     "wordTagger", "is a sequence of int64Type; it must be of stringType"),
    ("no scene", on(SCENE, put("visionFeaturePrint.scene", None)), W, "visionFeaturePrint",
     "its type is not set: scene or objects"),
    ("scene version", on(SCENE, put("visionFeaturePrint.scene.version", 7)), W,
     "visionFeaturePrint", "the version of its scene is 7; possible are 1 to 2"),
    ("two scenes", on(SCENE, second), W, "visionFeaturePrint", "a scene has 1"),
    ("one object", on(OBJECTS, put("visionFeaturePrint.objects.output", ["a"])), W,
     "visionFeaturePrint", "objects.output names 1 outputs; there are 2"),
    ("other objects", on(OBJECTS, put("visionFeaturePrint.objects.output", ["a", "c"])), W,
     "visionFeaturePrint", "objects.output names [a, c]"),
    ("no sound", on(SOUND, put("audioFeaturePrint.sound", None)), W, "audioFeaturePrint",
     "its type is not set: sound"),
    ("no frames", on(FRAMES, put("soundAnalysisPreprocessing.vggish", None)), W,
     "soundAnalysisPreprocessing", "its type is not set: vggish"),
    ("a shorter sound", on(FRAMES, put(f"{SOURCE}.multiArrayType.shape", [16000])), W,
     "soundAnalysisPreprocessing", "its input has the shape [16000]; it is [15600]"),
    ("a sound of doubles", on(FRAMES, put(f"{SOURCE}.multiArrayType.dataType", "DOUBLE")), W,
     "soundAnalysisPreprocessing", "the numbers of its input must be float32"),
    ("linked to nothing", on(LINKED, put("linkedModel.linkedModelFile", {})), W, "linkedModel",
     "linkedModelFileName has no defaultValue"),
    ("items of no input", on(RECOMMENDER, put(f"{RECOMMENDS}.itemInputFeatureName", "")), W,
     RECOMMENDS, "itemInputFeatureName is ''"),
    ("items as a string", on(RECOMMENDER, put(SOURCE, {"stringType": {}})), W, RECOMMENDS,
     "itemInputFeatureName 'x' is a stringType; it must be"),
    ("no recommendations", on(RECOMMENDER, put(
        f"{RECOMMENDS}.recommendedItemListOutputFeatureName", "")), W, RECOMMENDS,
     "it names no output"),
    ("missing items", on(RECOMMENDER, put(f"{RECOMMENDS}.itemStringIds.vector", ["a"])), W,
     RECOMMENDS, "itemStringIds has 1 entries; item 1 is used"),
    ("items twice", on(RECOMMENDER, put(f"{RECOMMENDS}.itemStringIds.vector", ["a", "a"])), W,
     RECOMMENDS, "itemStringIds has an item more than once"),
    ("both kinds of items", on(RECOMMENDER, put(f"{RECOMMENDS}.itemInt64Ids.vector", [1, 2])), W,
     RECOMMENDS, "itemInt64Ids and itemStringIds"),
    ("no curves", on(CURVES, put("classConfidenceThresholding.precisionRecallCurves", None)), W,
     "classConfidenceThresholding", "no precisionRecallCurves"),
    ("a shorter curve", on(CURVES, put(f"{CURVE}.recallValues.vector", [1])), W,
     "classConfidenceThresholding", "1 recallValues and 2 recallConfidenceThresholds"),
    ("a negative curve", on(CURVES, put(f"{CURVE}.recallValues.vector", [1, -1])), W,
     "classConfidenceThresholding", "negative or not finite"),
    ("bayesian floats", on(BAYESIAN, put(f"{SOURCE}.multiArrayType.dataType", "DOUBLE")), W,
     "bayesianProbitRegressor", "input 'x' must be an array of int32"),
    ("a state of another type", on(SCALER, state), W, "state 's'", "it must be stateType"),
    ("an input of no use", on(NMS, put(f"{NMS_FEATURES}.confidenceThresholdInputFeatureName",
     "")), W, NMS_FEATURES, "inputs that no parameter names: 't'"),
    ("boxes of no input", on(NMS, put(f"{NMS_FEATURES}.coordinatesInputFeatureName", "z")), W,
     NMS_FEATURES, "coordinatesInputFeatureName is 'z'; the description has no such"),
    ("overlap", on(NMS, put(f"{NMS_FEATURES}.iouThreshold", 1.5)), W, NMS_FEATURES,
     "iouThreshold is 1.5; it goes from 0 to 1"),
    ("threshold", on(NMS, put(f"{NMS_FEATURES}.confidenceThreshold", -1)), W, NMS_FEATURES,
     "confidenceThreshold is -1.0; it begins at 0"),
    ("two types", on(NMS, put(f"{TARGET}.multiArrayType.dataType", "FLOAT32")), W, NMS_FEATURES,
     "numbers of several types"),
    ("early float32", on(NMS, *(put(f"{TYPE.format(role, index)}.multiArrayType.dataType",
     "FLOAT32") for role in ("input", "output") for index in (0, 1)),
     put("specificationVersion", 3)), W, NMS_FEATURES, "must be float64, or float32 from"),
    ("three axes", on(NMS, put(f"{TARGET}.multiArrayType.shape", [1, 10, 2])), W, NMS_FEATURES,
     "the output of the confidences is described with 3 axes, not 2"),
    ("one shape", on(NMS, put(f"{TARGET}.multiArrayType.shape", [])), W, NMS_FEATURES,
     "one of its outputs is described with a shape, the other without"),
    ("other boxes", on(NMS, put(f"{TARGET}.multiArrayType.shape", [9, 2])), W, NMS_FEATURES,
     "its outputs are described with 9 and 10 boxes"),
    ("other classes", on(NMS, put(f"{TARGET}.multiArrayType.shape", [10, 3])), W, NMS_FEATURES,
     "it has 2 labels; its confidences are described with [3]"),
    ("a range of classes", on(NMS, *(put(f"{TYPE.format('output', index)}.multiArrayType", {
        **RANGE, "dataType": "DOUBLE"}) for index in (0, 1))), W, NMS_FEATURES,
     "it has 2 labels; its confidences are described with [3]"),
]  # fmt: skip
