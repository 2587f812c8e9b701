"""Rules about models that a part of the system evaluates, as in Apple's checker.

They read text, pictures and sound, recommend items, or name a model in another file.
"""

from __future__ import annotations

import math
from itertools import chain

from mlferry.layers.validate.rules import kind_rule, model_rule
from mlferry.layers.validate.signatures import described, type_of
from mlferry.spec.problems import Problems, listed, warning
from mlferry.spec.proto import (
    apple_pb2 as apple,
    features_pb2 as ft,
    model_pb2,
    predictors_pb2 as pp,
    transforms_pb2 as tf,
)

LanguageModel = apple.TextClassifier | apple.WordTagger | apple.Gazetteer | apple.WordEmbedding
_LEAST_REVISION = {"textClassifier": 1, "wordTagger": 1, "gazetteer": 2, "wordEmbedding": 2}
_TOKENS = {
    "tokensOutputFeatureName": "stringType",
    "tokenTagsOutputFeatureName": "stringType",
    "tokenLocationsOutputFeatureName": "int64Type",
    "tokenLengthsOutputFeatureName": "int64Type",
}
_SOUND = {"input": [15600], "output": [1, 96, 64]}  # samples; examples, frames and bands
_CURVES = (
    ("precisionValues", "precisionConfidenceThresholds"),
    ("recallValues", "recallConfidenceThresholds"),
)


@kind_rule(*_LEAST_REVISION)
def language_model(spec: model_pb2.Model, params: LanguageModel) -> Problems:
    """It has a revision, parameters, and labels where it gives some."""
    least = _LEAST_REVISION[spec.WhichOneof("Type") or ""]
    if params.revision < least:
        yield warning(f"its revision is {params.revision}; revisions start at {least}")
    if not params.modelParameterData:
        yield warning("modelParameterData is empty")
    for field in ("stringClassLabels", "stringTags"):
        if field in params.DESCRIPTOR.fields_by_name and not getattr(params, field).vector:
            yield warning(f"{field} is empty; at least one is needed")


@kind_rule("wordTagger")
def word_tagger(spec: model_pb2.Model, params: apple.WordTagger) -> Problems:
    """Its outputs are those that the parameters name, sequences of their types."""
    names = {field: getattr(params, field) for field in _TOKENS if getattr(params, field)}
    if "tokenTagsOutputFeatureName" not in names:
        yield warning("tokenTagsOutputFeatureName is empty; the tags are its output")
    outputs = {feature.name: feature for feature in spec.description.output}
    more = sorted(outputs.keys() - set(names.values()))
    if more:
        yield warning(f"outputs that no parameter names: {', '.join(map(repr, more))}")
    for field, name in names.items():
        yield from described(spec.description.output, name, field, ("sequenceType",))
        if name in outputs and type_of(outputs[name]) == "sequenceType":
            entries = outputs[name].type.sequenceType.WhichOneof("Type")
            if entries != _TOKENS[field]:
                yield warning(f"{field} is a sequence of {entries}; it must be of {_TOKENS[field]}")


@kind_rule("visionFeaturePrint")
def vision_feature_print(spec: model_pb2.Model, params: apple.VisionFeaturePrint) -> Problems:
    """It is of a known kind and version; objects have two outputs, a scene has one."""
    kind = params.WhichOneof("VisionFeaturePrintType")
    yield from _version(params, kind, "scene or objects")
    names = list(params.objects.output)
    outputs = [feature.name for feature in spec.description.output]
    if kind == "objects" and len(names) != 2:
        yield warning(f"objects.output names {len(names)} outputs; there are 2")
    elif kind == "objects" and not set(outputs) <= set(names):
        yield warning(f"its outputs are {listed(outputs)}; objects.output names {listed(names)}")
    elif kind == "scene" and len(outputs) > 1:
        yield warning(f"it has {len(outputs)} outputs; a scene has 1")


@kind_rule("audioFeaturePrint")
def audio_feature_print(spec: model_pb2.Model, params: apple.AudioFeaturePrint) -> Problems:
    """It is of a known kind and version."""
    yield from _version(params, params.WhichOneof("AudioFeaturePrintType"), "sound")


def _version(
    params: apple.VisionFeaturePrint | apple.AudioFeaturePrint, kind: str | None, kinds: str
) -> Problems:
    if kind is None:
        yield warning(f"its type is not set: {kinds}")
        return
    inner = getattr(params, kind)
    known = inner.DESCRIPTOR.fields_by_name["version"].enum_type.values_by_number
    if inner.version == 0 or inner.version not in known:
        most = max(known)
        allowed = "1" if most == 1 else f"1 to {most}"
        yield warning(f"the version of its {kind} is {inner.version}; possible are {allowed}")


@kind_rule("soundAnalysisPreprocessing")
def sound_analysis(spec: model_pb2.Model, params: apple.SoundAnalysisPreprocessing) -> Problems:
    """Its input is 0.975 s of sound at 16 kHz, its output the frames for VGGish."""
    if params.WhichOneof("SoundAnalysisPreprocessingType") is None:
        yield warning("its type is not set: vggish")
        return
    for role, features in (("input", spec.description.input), ("output", spec.description.output)):
        for feature in features:
            array, shape = feature.type.multiArrayType, _SOUND[role]
            if list(array.shape) != shape:
                yield warning(f"its {role} has the shape {listed(array.shape)}; it is {shape}")
            if array.dataType != ft.ArrayFeatureType.FLOAT32:
                yield warning(f"the numbers of its {role} must be float32")


@kind_rule("linkedModel")
def linked_model(spec: model_pb2.Model, params: pp.LinkedModel) -> Problems:
    """It names a file."""
    if not params.linkedModelFile.linkedModelFileName.defaultValue:
        yield warning("linkedModelFile.linkedModelFileName has no defaultValue: the file's name")


@kind_rule("itemSimilarityRecommender")
def recommender(spec: model_pb2.Model, params: pp.ItemSimilarityRecommender) -> Problems:
    """Its items are listed once, and its inputs and outputs exist."""
    inputs, outputs = spec.description.input, spec.description.output
    if params.itemInputFeatureName or len(inputs) != 1:
        kinds = ("dictionaryType", "sequenceType", "multiArrayType")
        yield from described(inputs, params.itemInputFeatureName, "itemInputFeatureName", kinds)
    lists, number = ("sequenceType", "multiArrayType"), ("int64Type",)
    for features, field, types in (
        (inputs, "numRecommendationsInputFeatureName", number),
        (inputs, "itemRestrictionInputFeatureName", lists),
        (inputs, "itemExclusionInputFeatureName", lists),
        (outputs, "recommendedItemListOutputFeatureName", lists[:1]),
        (outputs, "recommendedItemScoreOutputFeatureName", ("dictionaryType",)),
    ):
        if getattr(params, field):
            yield from described(features, getattr(params, field), field, types)
    if not (
        params.recommendedItemListOutputFeatureName or params.recommendedItemScoreOutputFeatureName
    ):
        yield warning(
            "it names no output: recommendedItemListOutputFeatureName or "
            "recommendedItemScoreOutputFeatureName"
        )
    yield from _items(params)


def _items(params: pp.ItemSimilarityRecommender) -> Problems:
    integers, strings = list(params.itemInt64Ids.vector), list(params.itemStringIds.vector)
    if integers and strings:
        yield warning("it has itemInt64Ids and itemStringIds; an item has one of them")
    similar = [
        entry.itemId for item in params.itemItemSimilarities for entry in item.similarItemList
    ]
    used = max([*similar, *(item.itemId for item in params.itemItemSimilarities)], default=0)
    for field, names in (("itemInt64Ids", integers), ("itemStringIds", strings)):
        if names and used >= len(names):
            yield warning(f"{field} has {len(names)} entries; item {used} is used")
        if len(set(names)) < len(names):
            yield warning(f"{field} has an item more than once")


@kind_rule("classConfidenceThresholding")
def confidence_curves(spec: model_pb2.Model, params: tf.ClassConfidenceThresholding) -> Problems:
    """There are curves, each with as many thresholds as values, none of them below 0."""
    if not params.precisionRecallCurves:
        yield warning("it has no precisionRecallCurves")
    for index, curve in enumerate(params.precisionRecallCurves):
        for pair in _CURVES:
            values = [list(getattr(curve, field).vector) for field in pair]
            if not values[0] or len(values[0]) != len(values[1]):
                lengths = " and ".join(
                    f"{len(each)} {field}" for each, field in zip(values, pair, strict=True)
                )
                yield warning(f"curve {index} has {lengths}; they go in pairs")
            if any(not (math.isfinite(number) and number >= 0) for number in chain(*values)):
                yield warning(f"curve {index} has a value that is negative or not finite")


@kind_rule("bayesianProbitRegressor")
def bayesian_inputs(spec: model_pb2.Model, params: pp.BayesianProbitRegressor) -> Problems:
    """Its inputs are arrays of int32, with one or two axes."""
    for feature in spec.description.input:
        array = feature.type.multiArrayType
        if array.dataType != ft.ArrayFeatureType.INT32 or len(array.shape) not in (1, 2):
            yield warning(
                f"input {feature.name!r} must be an array of int32 with 1 or 2 axes; it has "
                f"{len(array.shape)} axes"
            )


@model_rule
def states(spec: model_pb2.Model) -> Problems:
    """What the description lists as a state is one."""
    for feature in spec.description.state:
        kind = type_of(feature)
        if kind != "stateType":
            yield warning(f"its type is {kind}; it must be stateType", f"state {feature.name!r}")
