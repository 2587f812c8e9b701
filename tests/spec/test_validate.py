"""One broken model for every rule: what is found, how severe, where, and in which words."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlferry.spec import features, fields, io, networks, versions, weights
from mlferry.spec.builder import LAYER_KINDS, Builder
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn
from mlferry.spec.reflection import is_map, is_repeated
from mlferry.spec.validate import Problem, validate
from mlferry.spec.validate.arity import ARITIES, EVALUATED, MANY
from mlferry.spec.validate.layer_weights import NEEDS
from mlferry.spec.validate.rules import FEATURE_RULES, LAYER_RULES, MODEL_RULES, Feature

Model = model_pb2.Model
Change = Callable[[Model], Any]


# ---- sane models -------------------------------------------------------------------------------


def plain() -> Model:
    builder = Builder()
    builder.input("x", (1, 3, 4, 4))
    builder.layer("activation", "relu", ["x"], ["a"], ReLU={})
    builder.layer(
        "convolution", "conv", ["a"], ["y"], outputChannels=2, kernelChannels=3,
        kernelSize=[1, 1], valid={}, weights=np.ones(6), hasBias=True, bias=np.ones(2),
    )  # fmt: skip
    builder.output("y")
    return builder.model()


def image(flexible: str = "") -> Model:
    builder = Builder()
    picture = features.image(4, 6, "RGB")
    if flexible == "range":
        size = picture.imageType.imageSizeRange
        size.widthRange.lowerBound, size.widthRange.upperBound = 2, -1
        size.heightRange.lowerBound, size.heightRange.upperBound = 2, 8
    elif flexible:
        picture.imageType.enumeratedSizes.sizes.add(width=4, height=6)
    builder.input("picture", (1, 3, 6, 4), picture)
    builder.network.preprocessing.add(featureName="picture").scaler.channelScale = 1
    builder.layer("activation", "relu", ["picture"], ["y"], ReLU={})
    builder.output("y", features.image(4, 6, "RGB"))
    return builder.model()


def classifier(labels: Any = ("cat", "dog")) -> Model:
    builder = Builder()
    builder.input("x", (1, 2))
    builder.layer("softmaxND", "softmax", ["x"], ["p"], axis=-1)
    builder.output("p")
    return builder.model(builder.classifier(labels, "p"))


def regressor() -> Model:
    source = plain()
    spec = Model(specificationVersion=source.specificationVersion, description=source.description)
    spec.neuralNetworkRegressor.layers.extend(source.neuralNetwork.layers)
    spec.neuralNetworkRegressor.arrayInputShapeMapping = nn.EXACT_ARRAY_MAPPING
    spec.description.predictedFeatureName = "y"
    return spec


def legacy(shape: Any = (3,), **layer: Any) -> Model:
    """A network of the classic mapping."""
    spec = Model(specificationVersion=1)
    spec.description.input.add(name="x").type.CopyFrom(features.multi_array(shape))
    added = spec.neuralNetwork.layers.add(name="relu", input=["x"], output=["y"])
    fields.fill(added, layer or {"activation": {"ReLU": {}}})
    spec.description.output.add(name="y").type.CopyFrom(features.multi_array(None))
    return spec


def flexible(kind: str) -> Model:
    spec = plain()
    array = spec.description.input[0].type.multiArrayType
    if kind == "range":
        for low, high in ((1, 1), (3, 3), (1, -1), (4, 8)):
            array.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
    else:
        array.enumeratedShapes.shapes.add(shape=[1, 3, 4, 4])
        array.enumeratedShapes.shapes.add(shape=[1, 3, 8, 8])
    return spec


def typed(kind: str) -> Model:
    """A model that is no network, with an input of some type."""
    spec = Model(specificationVersion=3)
    spec.identity.SetInParent()
    fields.fill(spec.description.input.add(name="x"), {"type": {kind: {}}})
    return spec


def pipeline() -> Model:
    first, second = plain(), plain()
    second.description.input[0].CopyFrom(first.description.output[0])
    second.neuralNetwork.layers[0].input[0] = "y"
    second.neuralNetwork.layers[1].output[0] = second.description.output[0].name = "z"
    second.neuralNetwork.layers[1].convolution.kernelChannels = 3
    spec = Model(specificationVersion=4)
    spec.pipeline.models.extend([first, second])
    spec.pipeline.names.extend(["first", "second"])
    spec.description.input.add().CopyFrom(first.description.input[0])
    spec.description.output.add().CopyFrom(second.description.output[0])
    return spec


def updatable_pipeline() -> Model:
    spec = pipeline()
    spec.isUpdatable = spec.pipeline.models[1].isUpdatable = True
    return spec


def custom_model() -> Model:
    spec = Model(specificationVersion=3)
    spec.customModel.className = "Mine"
    spec.customModel.parameters["n"].intValue = 3
    return spec


def control() -> Model:
    """A loop with a condition, and in it a branch that ends it."""
    spec = legacy((1,))
    network = spec.neuralNetwork
    network.arrayInputShapeMapping = nn.EXACT_ARRAY_MAPPING
    spec.specificationVersion = 4
    del network.layers[:]
    network.layers.add(name="start", input=["x"], output=["n"]).copy.SetInParent()
    loop = network.layers.add(name="loop").loop
    loop.conditionVar = "go"
    condition = loop.conditionNetwork.layers.add(name="test", input=["n"], output=["go"])
    condition.greaterThan.alpha = 0
    body = loop.bodyNetwork
    body.layers.add(name="step", input=["n"], output=["m"]).round.SetInParent()
    branch = body.layers.add(name="if", input=["m"]).branch
    branch.ifBranch.layers.add(name="yes", input=["m"], output=["k"]).sign.SetInParent()
    branch.elseBranch.layers.add(name="no", input=["m"], output=["k"]).ceil.SetInParent()
    branch.elseBranch.layers.add(name="stop").loopBreak.SetInParent()
    body.layers.add(name="next", input=["k"], output=["n"]).copy.SetInParent()
    network.layers.add(name="last", input=["n"], output=["y"]).round.SetInParent()
    return spec


SANE: dict[str, Callable[[], Model]] = {
    "plain": plain,
    "image": image,
    "image with a range of sizes": lambda: image("range"),
    "image with some sizes": lambda: image("some"),
    "classifier": classifier,
    "classifier with int labels": lambda: classifier([3, 5]),
    "regressor": regressor,
    "classic vector": legacy,
    "classic image": lambda: legacy((3, 4, 4)),
    "range of shapes": lambda: flexible("range"),
    "some shapes": lambda: flexible("some"),
    "pipeline": pipeline,
    "updatable pipeline": updatable_pipeline,
    "custom model": custom_model,
    "loop and branch": control,
}


@pytest.mark.parametrize("name", SANE)
def test_sane_models_have_no_problems(name: str) -> None:
    assert validate(SANE[name]()) == []


# ---- rules about models, their inputs and outputs, and blobs -----------------------------------


def on(base: Callable[[], Model], *changes: Change) -> Callable[[], Model]:
    def make() -> Model:
        spec = base()
        for change in changes:
            change(spec)
        return spec

    return make


def put(path: str, value: Any) -> Change:
    """Set one field: ``description.input[0].name``."""

    def change(spec: Model) -> None:
        *before, last = path.replace("[", ".[").split(".")
        target: Any = spec
        for part in before:
            target = target[int(part[1:-1])] if part[0] == "[" else getattr(target, part)
        current = getattr(target, last)
        if value is None:
            target.ClearField(last)
        elif isinstance(value, list):
            current[:] = value
        elif isinstance(value, dict):
            target.ClearField(last)
            current = getattr(target, last)
            current.SetInParent()
            fields.fill(current, value)
        else:
            setattr(target, last, value)

    return change


def twice(path: str) -> Change:
    """Repeat the first entry of a list of messages."""

    def change(spec: Model) -> None:
        *before, last = path.split(".")
        target: Any = spec
        for part in before:
            target = getattr(target, part)
        getattr(target, last).append(getattr(target, last)[0])

    return change


INPUT, OUTPUT = "description.input[0]", "description.output[0]"
LAYER = "neuralNetwork.layers[0]"
ARRAY, PICTURE = f"{INPUT}.type.multiArrayType", f"{INPUT}.type.imageType"
BODY, CONDITION = (f"neuralNetwork.layers[1].loop.{part}Network" for part in ("body", "condition"))
E, W, N = "error", "warning", "note"

Case = tuple[str, Callable[[], Model], str, str, str]
CASES: list[Case] = [
    # the model as a whole
    ("version 0", on(plain, put("specificationVersion", 0)), E, "model", "versions go from 1 to"),
    ("version -1", on(plain, put("specificationVersion", -1)), E, "model", "is -1"),
    ("newer version", on(plain, put("specificationVersion", 99)), W, "model", "99 is newer than"),
    ("small version", on(plain, put("specificationVersion", 3)), W, "model",
     "is 3, but exact array mapping needs version 4, rank-4 image mapping needs version 4; "
     "write 4"),
    ("float16 input", on(plain, put(f"{ARRAY}.dataType", 65552)), W, "model",
     "the float16 multi-array 'x' needs version 7"),
    ("int8 input", on(plain, put(f"{ARRAY}.dataType", 131080)), W, "model", "needs version 10"),
    ("updatable in version 3", on(legacy, put("isUpdatable", True)), W, "model",
     "an updatable model needs version 4"),
    ("no kind", lambda: Model(specificationVersion=1), E, "model", "it has no kind"),
    ("updatable kind", on(custom_model, put("isUpdatable", True)), W, "model",
     "isUpdatable is set on a customModel"),
    ("custom class", on(custom_model, put("customModel.className", "")), E, "customModel",
     "className is empty"),
    ("custom value", on(custom_model, lambda s: s.customModel.parameters["a"].SetInParent()), W,
     "customModel", "'a' has no value"),
    ("custom name", on(custom_model, lambda s: s.customModel.parameters[""].SetInParent()), W,
     "customModel", "empty name"),
    # inputs and outputs
    ("two inputs of a name", on(plain, twice("description.input")), E, "input 'x'", "2 inputs"),
    ("two outputs of a name", on(plain, twice("description.output")), E, "output 'y'", "2 outp"),
    ("unnamed input", on(plain, put(f"{INPUT}.name", "")), W, "input ''", "no name"),
    ("untyped input", on(plain, put(f"{INPUT}.type", {})), E, "input 'x'", "no type"),
    ("optional output", on(plain, put(f"{OUTPUT}.type.isOptional", True)), W, "output 'y'",
     "only inputs can be optional"),
    ("no inputs", on(plain, put("description.input", None), put(f"{LAYER}.input", [])), W,
     "description", "it has no inputs"),
    ("optional inputs", on(plain, put(f"{INPUT}.type.isOptional", True)), W, "description",
     "all inputs are optional"),
    ("no outputs", on(plain, put("description.output", None)), W, "description", "no outputs"),
    ("number type", on(plain, put(f"{ARRAY}.dataType", 0)), W, "input 'x'",
     "dataType 0 is unknown; known are float32 (65568)"),
    ("no shape", on(plain, put(f"{ARRAY}.shape", [])), W, "input 'x'", "shape is empty"),
    ("extent 0", on(plain, put(f"{ARRAY}.shape", [1, 0, 4])), E, "input 'x'",
     "shape is [1, 0, 4]; extents are positive"),
    ("extent of output", on(plain, put(f"{OUTPUT}.type.multiArrayType.shape", [-1])), W,
     "output 'y'", "shape is [-1]"),
    ("extent, flexible", on(lambda: flexible("range"), put(f"{ARRAY}.shape", [1, 3, 0, 4])), W,
     "input 'x'", "shape is [1, 3, 0, 4]"),
    ("outside of the range", on(lambda: flexible("range"), put(f"{ARRAY}.shape", [1, 3, 4, 9])),
     W, "input 'x'", "default shape [1, 3, 4, 9] is outside"),
    ("below the range", on(lambda: flexible("range"), put(f"{ARRAY}.shape", [1, 3, 4, 3])),
     W, "input 'x'", "default shape [1, 3, 4, 3] is outside"),
    ("number of ranges", on(lambda: flexible("range"), put(f"{ARRAY}.shape", [1, 3])), W,
     "input 'x'", "4 ranges for the 2 extents"),
    ("empty range", on(lambda: flexible("range"),
                       put(f"{ARRAY}.shapeRange.sizeRanges[3].upperBound", 3)), E,
     "input 'x'", "the range of its axis 3 goes from 4 to 3"),
    ("empty range of an output", on(
        lambda: flexible("range"),
        lambda s: s.description.output[0].type.CopyFrom(s.description.input[0].type),
        put(f"{OUTPUT}.type.multiArrayType.shapeRange.sizeRanges[3].upperBound", 3)), W,
     "output 'y'", "the range of its axis 3"),
    ("no enumerated shapes", on(plain, put(f"{ARRAY}.enumeratedShapes", {})), W, "input 'x'",
     "enumeratedShapes is empty"),
    ("not enumerated", on(lambda: flexible("some"), put(f"{ARRAY}.shape", [1, 3, 9, 9])), W,
     "input 'x'", "[1, 3, 9, 9] is not among enumeratedShapes"),
    ("enumerated extent", on(lambda: flexible("some"),
                             put(f"{ARRAY}.enumeratedShapes.shapes[1].shape", [1, 0])), W,
     "input 'x'", "with one below 1"),
    ("default value", on(plain, put(f"{ARRAY}.doubleDefaultValue", 1.0),
                         put("specificationVersion", 5)), W, "input 'x'",
     "doubleDefaultValue does not go with numbers of type float32"),
    ("colours", on(image, put(f"{PICTURE}.colorSpace", 0)), E, "input 'picture'",
     "colorSpace 0 is unknown; known are RGB"),
    ("colours of an output", on(image, put(f"{OUTPUT}.type.imageType.colorSpace", 7)), E,
     "output 'y'", "colorSpace 7 is unknown"),
    ("image size", on(image, put(f"{PICTURE}.width", 0)), E, "input 'picture'",
     "0 wide and 6 high"),
    ("image size of an output", on(image, put(f"{OUTPUT}.type.imageType.height", -2)), W,
     "output 'y'", "4 wide and -2 high"),
    ("outside of the sizes", on(lambda: image("range"), put(f"{PICTURE}.height", 9)), W,
     "input 'picture'", "default size 4 x 9"),
    ("empty range of sizes", on(lambda: image("range"),
                                put(f"{PICTURE}.imageSizeRange.widthRange.upperBound", 1)), E,
     "input 'picture'", "the range of its width goes from 2 to 1"),
    ("size not enumerated", on(lambda: image("some"), put(f"{PICTURE}.width", 5)), W,
     "input 'picture'", "size 5 x 6 (width x height) is not among"),
    ("no sizes", on(lambda: image("some"), put(f"{PICTURE}.enumeratedSizes", {})), W,
     "input 'picture'", "enumeratedSizes is empty"),
    ("enumerated size", on(lambda: image("some"), put(
        f"{PICTURE}.enumeratedSizes.sizes[0].width", 0), put(f"{PICTURE}.width", 0)), W,
     "input 'picture'", "not positive"),
    ("dictionary", lambda: typed("dictionaryType"), W, "input 'x'", "no type of keys"),
    ("sequence", lambda: typed("sequenceType"), W, "input 'x'", "no type of values"),
    ("range of a sequence", on(lambda: typed("sequenceType"), put(
        f"{INPUT}.type.sequenceType", {"int64Type": {}, "sizeRange": {"lowerBound": 2}})), E,
     "input 'x'", "the range of its sizeRange goes from 2 to 0"),
    # mapping of inputs
    ("number input", on(plain, put(f"{INPUT}.type", {"doubleType": {}})), W, "input 'x'",
     "its type is doubleType; neural networks have imageType and multiArrayType"),
    ("number output", on(plain, put(f"{OUTPUT}.type", {"int64Type": {}})), W, "output 'y'",
     "its type is int64Type"),
    ("text input", on(plain, put(f"{INPUT}.type", {"stringType": {}})), E, "input 'x'",
     "its type is stringType"),
    ("text output of a regressor", on(regressor, put(f"{OUTPUT}.type", {"stringType": {}})), E,
     "output 'y'", "its type is stringType"),
    ("array mapping", on(plain, put("neuralNetwork.arrayInputShapeMapping", 7)), E, "network",
     "arrayInputShapeMapping 7 is unknown; known are RANK5_ARRAY_MAPPING, EXACT"),
    ("image mapping", on(plain, put("neuralNetwork.imageInputShapeMapping", 7)), E, "network",
     "imageInputShapeMapping 7"),
    ("exact mapping for a layer", on(legacy, put("specificationVersion", 4),
                                     put(LAYER + ".gelu", {})), W, "network",
     "RANK5_ARRAY_MAPPING, which gelu 'relu' does not allow for the multi-array input 'x'"),
    ("exact mapping for a feature", on(
        legacy, put("specificationVersion", 5), put(f"{LAYER}.upsample", {
            "mode": "BILINEAR", "linearUpsampleMode": "ALIGN_CORNERS_TRUE"})), W,
     "network", "which upsample 'relu' does not allow"),
    ("exact mapping with images", on(
        legacy, put("specificationVersion", 4),
        put("neuralNetwork.imageInputShapeMapping", 1)), W, "network",
     "imageInputShapeMapping is not RANK5_IMAGE_MAPPING"),
    ("classic rank", lambda: legacy((3, 4)), W, "input 'x'", "its shapes have [2] extents"),
    ("classic range", on(legacy, put("specificationVersion", 3), put(
        f"{ARRAY}.shapeRange", {"sizeRanges": [{"upperBound": -1}] * 2})), W, "input 'x'",
     "[1, 2] extents; in RANK5_ARRAY_MAPPING they have 1 (C) or 3"),
    # layers and blobs
    ("no layers", on(plain, put("neuralNetwork.layers", None)), E, "network", "no layers"),
    ("unnamed layer", on(plain, put(f"{LAYER}.name", "")), N, "network", "1 layers have no name"),
    ("layers of a name", on(plain, put(f"{LAYER}.name", "conv")), N, "network",
     "2 layers have the name 'conv'"),
    ("layer without a kind", on(plain, put(f"{LAYER}.activation", None)), E, "layer 'relu'",
     "it has no kind"),
    ("unnamed layer without a kind", on(plain, put(f"{LAYER}.name", ""),
                                        put(f"{LAYER}.activation", None)), E,
     "layer without a name (layer 0)", "it has no kind"),
    ("missing blob", on(plain, put(f"{LAYER}.input", ["q"])), E, "activation 'relu'",
     "its input 'q' is no input of the model, and no layer before it makes it"),
    ("wrong order", on(plain, put(f"{LAYER}.input", ["y"])), E, "activation 'relu'", "input 'y'"),
    ("blob twice", on(plain, put(f"{LAYER}.output", ["x"]),
                      put("neuralNetwork.layers[1].input", ["x"])), W, "activation 'relu'",
     "its output 'x' is there already, from the inputs"),
    ("blob of two layers", on(plain, put("neuralNetwork.layers[1].output", ["a"]),
                              put(f"{OUTPUT}.name", "a")), W, "convolution 'conv'",
     "'a' is there already, from activation 'relu'; only a copy"),
    ("no such output", on(plain, put(f"{OUTPUT}.name", "yy")), E, "output 'yy'",
     "no layer makes it. Did you mean 'y'?"),
    ("input as output", on(plain, put(f"{OUTPUT}.name", "x")), W, "output 'x'", "is an input"),
    ("no such output of a classifier", on(
        classifier, lambda s: s.description.output.add(name="z").type.CopyFrom(
            features.multi_array((1,)))), E, "output 'z'", "no layer makes it"),
    # branches and loops
    ("inner missing blob", on(control, put(f"{BODY}.layers[0].input", ["q"])), E,
     "loop 'loop' > bodyNetwork > round 'step'", "its input 'q'"),
    ("blob of one way", on(control, put(f"{BODY}.layers[1].branch.elseBranch.layers[0].output",
                                        ["other"])), E,
     "loop 'loop' > bodyNetwork > copy 'next'", "its input 'k'"),
    ("blob of a way alone", on(control, put(f"{BODY}.layers[1].branch.elseBranch", {})), E,
     "loop 'loop' > bodyNetwork > copy 'next'", "its input 'k'"),
    ("blob of the body", on(control, put("neuralNetwork.layers[2].input", ["m"])), E,
     "round 'last'", "its input 'm'"),
    ("inner blob twice", on(control, put(f"{BODY}.layers[2].sign", {})), W, "loop 'loop' > bodyNetwork > sign 'next'",
     "its output 'n' is there already, from copy 'start'"),
    ("break outside", on(legacy, put(f"{LAYER}.loopBreak", {}), put(f"{LAYER}.input", []),
                         put(f"{LAYER}.output", [])), E, "loopBreak 'relu'", "outside"),
    ("continue in a condition", on(control, lambda s: s.neuralNetwork.layers[
        1].loop.conditionNetwork.layers.add(name="c").loopContinue.SetInParent()), E,
     "loop 'loop' > conditionNetwork > loopContinue 'c'", "outside of the bodyNetwork"),
    ("condition not made", on(control, put(f"{CONDITION}.layers[0].output", ["g"])), E,
     "loop 'loop'", "conditionVar 'go' is made by no layer"),
    ("condition not made anew", on(control, put("neuralNetwork.layers[1].loop.conditionVar", "n")),
     W, "loop 'loop'", "conditionVar 'n' is not made anew"),
    ("condition without a name", on(control, put("neuralNetwork.layers[1].loop.conditionVar", "")),
     E, "loop 'loop'", "conditionVar is '' and conditionNetwork has 1 layers"),
    ("endless", on(control, put("neuralNetwork.layers[1].loop.conditionVar", ""),
                   put(CONDITION, {})), E, "loop 'loop'", "nothing ends it"),
    ("empty body", on(control, put(BODY, {})), E, "loop 'loop'", "bodyNetwork has no layers"),
    ("empty branch", on(control, put(f"{BODY}.layers[1].branch.ifBranch", {})), E,
     "loop 'loop' > bodyNetwork > branch 'if'", "ifBranch has no layers"),
    ("inner rule", on(control, put(f"{CONDITION}.layers[0].activation", {})), E,
     "loop 'loop' > conditionNetwork > activation 'test'", "NonlinearityType is not set"),
    # preprocessing
    ("preprocessing of nothing", on(image, put("neuralNetwork.preprocessing[0].featureName",
                                               "pictur")), W, "preprocessing 0",
     "'pictur' is no image input. Did you mean 'picture'?"),
    ("scale 0", on(image, put("neuralNetwork.preprocessing[0].scaler.channelScale", 0)), W,
     "preprocessing 0", "channelScale is 0"),
    ("no preprocessing", on(image, put("neuralNetwork.preprocessing[0].scaler", None)), W,
     "preprocessing 0", "neither scaler nor meanImage"),
    ("mean image", on(image, put("neuralNetwork.preprocessing[0].meanImage",
                                 {"meanImage": [0] * 71})), E, "preprocessing 0",
     "meanImage has 71 values; input 'picture' has 3 x 6 x 4 = 72"),
    ("mean image of every image", on(image, put("neuralNetwork.preprocessing[0].featureName", ""),
                                     put("neuralNetwork.preprocessing[0].meanImage", {})), E,
     "preprocessing 0", "meanImage has 0 values"),
    # classifiers and regressors
    ("no labels", on(classifier, put("neuralNetworkClassifier.stringClassLabels", None)), E,
     "classifier", "it has no labels"),
    ("empty labels", on(classifier, put("neuralNetworkClassifier.stringClassLabels.vector", [])),
     E, "classifier", "it has no labels"),
    ("labels twice", lambda: classifier(["a", "b", "a"]), W, "classifier", "more than once: ['a']"),
    ("no label name", on(classifier, put("description.predictedFeatureName", "")), W,
     "description", "predictedFeatureName is empty"),
    ("label name", on(classifier, put("description.predictedFeatureName", "clasLabel")), W,
     "description", "'clasLabel' is no output. Did you mean 'classLabel'?"),
    ("label type", on(classifier, put("description.output[1].type", {"int64Type": {}})), W,
     "output 'classLabel'", "its type is int64Type; for these labels it is stringType"),
    ("probabilities name", on(classifier, put("description.predictedProbabilitiesName", "q")), W,
     "description", "predictedProbabilitiesName 'q' is no output"),
    ("probabilities type", on(classifier, put(f"{OUTPUT}.type", {"stringType": {}})), W,
     "output 'p'", "its type is stringType; probabilities are a dictionaryType"),
    ("probabilities as array", on(classifier, put(f"{OUTPUT}.type", {"multiArrayType": {
        "dataType": "FLOAT32"}})), N, "output 'p'", "its type is multiArrayType"),
    ("keys", on(classifier, put(f"{OUTPUT}.type", {"dictionaryType": {"int64KeyType": {}}})), W,
     "output 'p'", "its keys are int64KeyType; for these labels they are stringKeyType"),
    ("blob of the probabilities", on(classifier, put(
        "neuralNetworkClassifier.labelProbabilityLayerName", "x")), E, "classifier",
     "'x' is made by no layer"),
    ("no blob for the probabilities", on(
        classifier, put("neuralNetworkClassifier.labelProbabilityLayerName", ""),
        put("neuralNetworkClassifier.layers[0].output", [])), E, "classifier",
     "labelProbabilityLayerName is empty"),
    ("regression name", on(regressor, put("description.predictedFeatureName", "q")), W,
     "description", "predictedFeatureName 'q' is no output"),
    ("regression type", on(regressor, put(f"{OUTPUT}.type", {"imageType": {
        "width": 4, "height": 4, "colorSpace": "RGB"}})), W,
     "output 'y'", "its type is imageType; a regression gives doubleType or multiArrayType"),
    # pipelines
    ("empty pipeline", on(plain, put("pipeline", {})), E, "pipeline", "it holds no models"),
    ("inner problem", on(pipeline, put("pipeline.models[1].neuralNetwork.layers[0].activation",
                                       {})), E, "model 1 'second' > activation 'relu'",
     "NonlinearityType is not set"),
    ("inner problem, unnamed", on(
        pipeline, put("pipeline.names", []),
        put("pipeline.models[0].neuralNetwork.layers[0].activation", {})), E,
     "model 0 > activation 'relu'", "NonlinearityType is not set"),
    ("number of names", on(pipeline, put("pipeline.names", ["a"])), W, "pipeline",
     "1 names for 2 models"),
    ("names twice", on(pipeline, put("pipeline.names", ["a", "a"])), W, "pipeline",
     "names are used twice"),
    ("inner version", on(pipeline, put("pipeline.models[1].specificationVersion", 0)), W,
     "model 1 'second'", "specificationVersion is 0"),
    ("no such input", on(pipeline, put("description.input[0].name", "xx")), E,
     "model 0 'first' > input 'x'", "no model before it gives it. Did you mean 'xx'?"),
    ("no such optional input", on(
        pipeline, put("description.input[0].name", "q"),
        put("pipeline.models[0].description.input[0].type.isOptional", True)), W,
     "model 0 'first' > input 'x'", "no model before it gives it"),
    ("other type", on(pipeline, put("pipeline.models[0].description.output[0].type",
                                    {"multiArrayType": {"dataType": "DOUBLE", "shape": [2]}})), W,
     "model 1 'second' > input 'y'",
     "float32 1 x 2 x 4 x 4, is not the one that it is given: multi-array float64 2"),
    ("no such pipeline output", on(pipeline, put(f"{OUTPUT}.name", "q")), E, "output 'q'",
     "no model before it gives it"),
    ("updatable in the middle", on(updatable_pipeline, put("pipeline.models[0].isUpdatable", True)),
     W, "model 0 'first'", "isUpdatable is true; only the last model"),
    ("nothing updatable", on(updatable_pipeline, put("pipeline.models[1].isUpdatable", False)), W,
     "model 1 'second'", "isUpdatable is false"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_broken_model(case: Case) -> None:
    _, make, severity, where, text = case
    problems = validate(make())
    found = [p for p in problems if p.severity == severity and p.where == where]
    assert any(text in problem.message for problem in found), [*map(repr, problems)]


def test_optional_input_beside_another() -> None:
    spec = plain()
    spec.description.input.add(name="z").type.CopyFrom(features.multi_array((2,)))
    spec.description.input[1].type.isOptional = True
    assert validate(spec) == []


def test_all_problems_come_at_once() -> None:
    spec = on(
        plain,
        put("specificationVersion", 0),
        put(f"{LAYER}.activation", {}),
        put(f"{OUTPUT}.name", "q"),
        put(f"{ARRAY}.dataType", 0),
    )()
    assert {problem.where for problem in validate(spec)} == {
        "model", "input 'x'", "output 'q'", "activation 'relu'",
    }  # fmt: skip


def test_many_missing_features_are_told_in_short() -> None:
    spec = plain()
    for index in range(20):
        layer = spec.neuralNetwork.layers.add(name=f"r{index}", input=["x"], output=[f"o{index}"])
        layer.round.SetInParent()
    spec.specificationVersion = 1
    (problem,) = validate(spec)
    assert problem.message.count("needs version 4") == 5
    assert "and 17 more; write 4" in problem.message


def test_problems_are_shown_with_their_place() -> None:
    problem = Problem("error", "convolution 'c'", "something is wrong")
    assert str(problem) == "convolution 'c': something is wrong"


# ---- rules about layers ------------------------------------------------------------------------


def layer_model(
    kind: str, params: dict[str, Any], inputs: int | None = None, outputs: int | None = None
) -> Model:
    """A model of one layer, by default with the fewest inputs and outputs that it needs."""
    arity = ARITIES[kind]
    spec = Model()
    network = spec.neuralNetwork
    network.arrayInputShapeMapping = nn.EXACT_ARRAY_MAPPING
    names = [f"x{i}" for i in range(arity.inputs[0] if inputs is None else inputs)]
    made = [f"y{i}" for i in range(arity.outputs[0] if outputs is None else outputs)]
    for name in names or ["unused"]:
        feature = features.multi_array((1, 1, 1, 1, 1))
        spec.description.input.add(name=name).type.CopyFrom(feature)
    layer = network.layers.add(name="it", input=names, output=made)
    getattr(layer, kind).SetInParent()
    fields.fill(getattr(layer, kind), params)
    network.layers.add(input=["x0" if names else "unused"], output=["end"], name="end")
    network.layers[-1].round.SetInParent()
    spec.description.output.add(name="end").type.CopyFrom(features.multi_array(None))
    spec.specificationVersion = versions.required(spec)
    return spec


RELU: dict[str, Any] = {"ReLU": {}}
LSTM_FUNCTIONS = [{"sigmoid": {}}, {"tanh": {}}, {"tanh": {}}]
GATES = ("inputGate", "forgetGate", "blockInput", "outputGate")


def lstm_weights(out: int = 2, width: int = 3) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for gate in GATES:
        made[f"{gate}WeightMatrix"] = np.ones(out * width)
        made[f"{gate}RecursionMatrix"] = np.ones(out * out)
        made[f"{gate}BiasVector"] = np.ones(out)
    for gate in ("inputGate", "forgetGate", "outputGate"):
        made[f"{gate}PeepholeVector"] = np.ones(out)
    return made


SIZES = {"inputVectorSize": 3, "outputVectorSize": 2}
CONV = {"outputChannels": 2, "kernelChannels": 3, "kernelSize": [1, 2], "valid": {},
        "weights": np.ones(12), "hasBias": True, "bias": np.ones(2)}  # fmt: skip
DECONV = {"outputChannels": 4, "kernelChannels": 6, "nGroups": 2, "kernelSize": [1, 1],
          "same": {}, "isDeconvolution": True, "weights": np.ones(12)}  # fmt: skip
DENSE = {"inputChannels": 3, "outputChannels": 2, "weights": np.ones(6), "hasBias": True,
         "bias": np.ones(2)}  # fmt: skip
EMBED = {"inputDim": 3, "outputChannels": 2, "weights": np.ones(6)}
EMBED_ND = {"vocabSize": 3, "embeddingSize": 2, "weights": np.ones(6)}
MATMUL = {"weightMatrixFirstDimension": 3, "weightMatrixSecondDimension": 2,
          "weights": np.ones(6)}  # fmt: skip
NORM = {"channels": 2, **{name: np.ones(2) for name in ("gamma", "beta", "mean", "variance")}}
SCALE = {"shapeScale": [2, 1, 1], "scale": np.ones(2), "hasBias": True, "shapeBias": [2],
         "bias": np.ones(2)}  # fmt: skip
RNN = {**SIZES, "activation": {"tanh": {}}, "weightMatrix": np.ones(6),
       "recursionMatrix": np.ones(4), "hasBiasVector": True, "biasVector": np.ones(2)}  # fmt: skip
GRU = {**SIZES, "activations": [{"sigmoid": {}}, {"tanh": {}}], "hasBiasVectors": True}
for _gate in ("update", "reset", "output"):
    GRU[f"{_gate}GateWeightMatrix"] = np.ones(6)
    GRU[f"{_gate}GateRecursionMatrix"] = np.ones(4)
    GRU[f"{_gate}GateBiasVector"] = np.ones(2)
LSTM = {**SIZES, "activations": LSTM_FUNCTIONS, "weightParams": lstm_weights(),
        "params": {"hasBiasVectors": True, "hasPeepholeVectors": True}}  # fmt: skip
BILSTM = {**SIZES, "activationsForwardLSTM": LSTM_FUNCTIONS,
          "activationsBackwardLSTM": LSTM_FUNCTIONS, "params": {
              "hasBiasVectors": True, "hasPeepholeVectors": True},
          "weightParams": [lstm_weights(), lstm_weights()]}  # fmt: skip
CONV3D = {"inputChannels": 4, "outputChannels": 2, "nGroups": 2, "weights": np.ones(32),
          **{f"{what}{axis}": size for what, size in (("kernel", 2), ("stride", 1),
             ("dilation", 1)) for axis in ("Depth", "Height", "Width")}}  # fmt: skip
POOL3D = {f"{what}{axis}": 2 for what in ("kernel", "stride")
          for axis in ("Depth", "Height", "Width")}  # fmt: skip
LAYERNORM = {"normalizedShape": [2, 3], "gamma": np.ones(6), "beta": np.ones(6)}
SLICE = {"beginIds": [0, 1], "endIds": [1, 2], "strides": [1, 1], "beginMasks": [False, True],
         "endMasks": [False, False]}  # fmt: skip
INT8 = {"inputChannels": 3, "outputChannels": 2, "int8DynamicQuantize": True, "weights": {
    "int8RawValue": b"abcdef", "quantization": {
        "numberOfBits": 8, "linearQuantization": {"scale": [0.5]}}}}  # fmt: skip
SANE_PARAMS: dict[str, dict[str, Any]] = {
    "convolution": CONV, "innerProduct": DENSE, "embedding": EMBED, "embeddingND": EMBED_ND,
    "batchedMatmul": MATMUL, "batchnorm": NORM, "scale": SCALE, "simpleRecurrent": RNN,
    "gru": GRU, "uniDirectionalLSTM": LSTM, "biDirectionalLSTM": BILSTM,
    "convolution3d": CONV3D, "pooling3d": POOL3D, "layerNormalization": LAYERNORM,
    "bias": {"shape": [2], "bias": np.ones(2)},
    "loadConstant": {"shape": [1, 2, 3], "data": np.ones(6)},
    "loadConstantND": {"shape": [2, 3], "data": np.ones(6)},
    "activation": RELU, "pooling": {"valid": {}}, "lrn": {"localSize": 3},
    "crop": {"cropAmounts": {"borderAmounts": [{}, {}]}}, "padding": {"constant": {}},
    "reshape": {"targetShape": [1, 2, 3]}, "permute": {"axis": [0, 2, 1, 3]},
    "transpose": {"axes": [1, 0]}, "split": {"nOutputs": 2}, "splitND": {"numSplits": 2},
    "slice": {"stride": 1, "endIndex": -1}, "reorganizeData": {"blockSize": 2},
    "custom": {"className": "Mine", "weights": [np.ones(3), np.ones(2, np.uint8)],
               "parameters": {"a": {"boolValue": False}}},
    "branch": {"ifBranch": {"layers": [{"name": "in", "round": {}, "input": ["x0"],
                                        "output": ["in"]}]}},
    "loop": {"maxLoopIterations": 3, "bodyNetwork": {"layers": [
        {"name": "in", "loadConstantND": {"shape": [1], "data": [1]}, "output": ["in"]}]}},
    "tile": {"reps": [2]}, "topK": {"K": 3}, "oneHot": {"oneHotVectorSize": 3},
    "sliceStatic": SLICE,
    "sliceDynamic": {"endIds": [1], "strides": [1], "beginMasks": [True], "endMasks": [False]},
    "slidingWindows": {"windowSize": 2, "step": 1}, "sliceBySize": {"size": 2},
    "fillStatic": {"targetShape": [2]}, "broadcastToStatic": {"targetShape": [2]},
    "squeeze": {"squeezeAll": True}, "expandDims": {"axes": [0]},
    "reshapeStatic": {"targetShape": [2, -1]}, "rankPreservingReshape": {"targetShape": [0, -1]},
    "constantPad": {"padAmounts": [1, 2]}, "categoricalDistribution": {"numSamples": 1},
    "randomNormalStatic": {"outputShape": [2]}, "randomUniformStatic": {"outputShape": [2]},
    "randomBernoulliStatic": {"outputShape": [2]},
}  # fmt: skip
OUTSIDE_OF_LOOPS = ("loopBreak", "loopContinue")


def at_the_layer(spec: Model) -> list[Problem]:
    layer = spec.neuralNetwork.layers[0]
    return [p for p in validate(spec) if p.where == f"{layer.WhichOneof('layer')} 'it'"]


@pytest.mark.parametrize("kind", [kind for kind in LAYER_KINDS if kind not in OUTSIDE_OF_LOOPS])
def test_a_sane_layer_of_every_kind(kind: str) -> None:
    spec = layer_model(kind, SANE_PARAMS.get(kind, {}))
    layer = spec.neuralNetwork.layers[0]
    if kind == "rankPreservingReshape":
        layer.inputTensor.add(rank=2)
        layer.outputTensor.add(rank=2)
    assert validate(spec) == []


MORE_SANE: list[tuple[str, str, dict[str, Any], int]] = [
    ("weights as an input", "convolution", {"outputChannels": 2, "valid": {}}, 2),
    ("deconvolution", "convolution", DECONV, 1),
    ("deconvolution with a shape", "convolution", {**DECONV, "outputShape": [4, 4]}, 1),
    ("default kernel", "convolution", {**CONV, "kernelSize": [], "weights": np.ones(54)}, 1),
    ("two matrices", "batchedMatmul", {}, 2),
    ("int8", "innerProduct", INT8, 1),
    ("half", "innerProduct", {**DENSE, "weights": np.ones(6, np.float16),
                              "bias": np.ones(2, np.float16)}, 1),
    ("bytes and half", "innerProduct", {**DENSE, "bias": np.ones(2, np.float16), "weights": {
        "rawValue": b"abcdef", "quantization": {
            "numberOfBits": 8, "linearQuantization": {"scale": [1, 2], "bias": [1, 2]}}}}, 1),
    ("more bytes than needed", "innerProduct", {**DENSE, "weights": {
        "rawValue": b"abcdef", "quantization": {
            "numberOfBits": 1, "lookupTableQuantization": {"floatValue": [1, 2]}}}}, 1),
    ("global pooling", "pooling", {"globalPooling": True, "valid": {}, "kernelSize": [0, 0]}, 1),
    ("last pixel", "pooling", {"includeLastPixel": {"paddingAmounts": [1, 1]}}, 1),
    ("instance norm", "batchnorm", {"channels": 2, "gamma": [1, 1], "beta": [1, 1],
                                    "computeMeanVar": True}, 1),
    ("crop like another", "crop", {"offset": [1, 2]}, 2),
    ("pad by an input", "constantPad", {}, 2),
    ("pad to a size", "constantPad", {"padAmounts": [0, 9, 8, 0],
                                      "padToGivenOutputSizeMode": True}, 1),
    ("tile by an input", "tile", {}, 2),
    ("K by an input", "topK", {}, 2),
    ("size by an input", "oneHot", {}, 2),
    ("slice by inputs", "sliceDynamic", {}, 7),
    ("strides alone", "sliceDynamic", {"strides": [1, 2]}, 3),
    ("split sizes", "splitND", {"splitSizes": [1, 2]}, 1),
    ("fractions", "upsample", {"fractionalScalingFactor": [1.5, 2], "mode": "BILINEAR",
                               "linearUpsampleMode": "ALIGN_CORNERS_TRUE"}, 1),
    ("PReLU", "activation", {"PReLU": {"alpha": [1, 2, 3]}}, 1),
    ("softplus", "activation", {"parametricSoftplus": {"alpha": [1, 2], "beta": [3]}}, 1),
    ("hard sigmoid of coremltools", "simpleRecurrent", {**RNN, "activation": {
        "sigmoidHard": {}}}, 2),
    ("hard sigmoid", "simpleRecurrent", {**RNN, "activation": {
        "sigmoidHard": {"alpha": 0.2, "beta": 0.5}}}, 2),
    ("scaled tanh", "simpleRecurrent", {**RNN, "activation": {
        "scaledTanh": {"alpha": 1.7159, "beta": 2 / 3}}}, 2),
    ("axes", "squeeze", {"axes": [0, -1]}, 1),
    ("loop by an input", "loop", {"bodyNetwork": SANE_PARAMS["loop"]["bodyNetwork"]}, 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind", "params", "inputs"), MORE_SANE, ids=[row[0] for row in MORE_SANE]
)
def test_other_sane_layers(name: str, kind: str, params: dict[str, Any], inputs: int) -> None:
    assert validate(layer_model(kind, params, inputs)) == []


def quantized(bits: int = 8, raw: bytes = b"abcdef", **table: Any) -> dict[str, Any]:
    return {"rawValue": raw, "quantization": {"numberOfBits": bits, **table}}


def linear(*scales: float, bias: tuple[float, ...] = (), bits: int = 8) -> dict[str, Any]:
    return quantized(bits, linearQuantization={"scale": scales, "bias": bias})


def table(bits: int, entries: int, raw: bytes = b"abcdef") -> dict[str, Any]:
    return quantized(bits, raw, lookupTableQuantization={"floatValue": [0.0] * entries})


HALF2, HALF6 = np.ones(2, np.float16), np.ones(6, np.float16)
BORDER3 = {"borderAmounts": [{}, {}, {}]}
INNER: dict[str, Any] = {"ifBranch": {"layers": [{"name": "i", "round": {}, "output": ["i"]}]}}

LayerCase = tuple[str, dict[str, Any], str, str]
LAYER_CASES: list[LayerCase] = [
    # windows
    ("convolution", {**CONV, "outputChannels": 0}, E, "outputChannels is 0; it must be at least"),
    ("convolution", {**CONV, "kernelChannels": 0}, E, "kernelChannels is 0"),
    ("convolution", {**CONV, "nGroups": 3}, E, "nGroups 3 does not divide outputChannels 2"),
    ("convolution", {**DECONV, "kernelChannels": 5, "weights": np.ones(10)}, E,
     "nGroups 2 does not divide kernelChannels 5"),
    ("convolution", {**CONV, "kernelSize": [3]}, E, "kernelSize has 1 entries; possible are 0 or"),
    ("convolution", {**CONV, "kernelSize": [1, 0]}, E, "kernelSize is [1, 0]; entries must be at"),
    ("convolution", {**CONV, "stride": [1, 1, 1]}, E, "stride has 3 entries"),
    ("convolution", {**CONV, "stride": [0, 1]}, E, "stride is [0, 1]"),
    ("convolution", {**CONV, "dilationFactor": [1]}, E, "dilationFactor has 1 entries"),
    ("convolution", {**DECONV, "outputShape": [1]}, E, "outputShape has 1 entries"),
    ("convolution", {**CONV, "outputShape": [1, 1]}, N, "outputShape is ignored"),
    ("convolution", {**CONV, "valid": None}, E, "ConvolutionPaddingType is not set"),
    ("convolution", {**CONV, "valid": {"paddingAmounts": BORDER3}}, E,
     "valid.paddingAmounts has amounts for 3 axes"),
    ("convolution", {**CONV, "valid": None, "same": {"asymmetryMode": 5}}, E,
     "same.asymmetryMode 5 is unknown; known are BOTTOM_RIGHT_HEAVY"),
    ("convolution3d", {**CONV3D, "inputChannels": 0}, E, "inputChannels is 0"),
    ("convolution3d", {**CONV3D, "nGroups": 3}, E, "nGroups 3 does not divide inputChannels 4"),
    ("convolution3d", {**CONV3D, "nGroups": -1}, E, "nGroups is -1"),
    ("convolution3d", {**CONV3D, "strideDepth": 0}, W, "strideDepth is not set"),
    ("convolution3d", {**CONV3D, "kernelWidth": -2}, E, "kernelWidth is -2"),
    ("convolution3d", {**CONV3D, "customPaddingTop": -2}, E, "customPaddingTop is -2"),
    ("convolution3d", {**CONV3D, "outputShape": [1]}, E, "outputShape has 1 entries"),
    ("convolution3d", {**CONV3D, "outputShape": [1, 1, 1]}, N, "outputShape is ignored"),
    ("convolution3d", {**CONV3D, "paddingType": 9}, E, "paddingType 9 is unknown"),
    ("pooling", {}, E, "PoolingPaddingType is not set; possible are valid, same, includeLast"),
    ("pooling", {"globalPooling": True}, W, "PoolingPaddingType is not set"),
    ("pooling", {"valid": {}, "type": 3}, E, "type 3 is unknown; known are MAX, AVERAGE, L2"),
    ("pooling", {"valid": {}, "kernelSize": [2]}, E, "kernelSize has 1 entries"),
    ("pooling", {"valid": {}, "stride": [0, 1]}, E, "stride is [0, 1]"),
    ("pooling", {"valid": {"paddingAmounts": BORDER3}}, E, "amounts for 3 axes"),
    ("pooling", {"includeLastPixel": {"paddingAmounts": [1]}}, E,
     "includeLastPixel.paddingAmounts has 1 entries"),
    ("pooling3d", {**POOL3D, "kernelWidth": 0}, E, "kernelWidth is 0"),
    ("pooling3d", {**POOL3D, "customPaddingLeft": -1}, E, "customPaddingLeft is -1"),
    ("pooling3d", {**POOL3D, "customPaddingLeft": 1, "paddingType": "SAME"}, W,
     "customPaddingLeft is 1, but paddingType is not CUSTOM"),
    ("globalPooling3d", {"type": 2}, E, "type 2 is unknown"),
    ("padding", {}, E, "PaddingType is not set; possible are constant, reflection, replication"),
    ("padding", {"constant": {}, "paddingAmounts": BORDER3}, E, "amounts for 3 axes"),
    ("crop", {}, W, "cropAmounts is empty"),
    ("crop", {"cropAmounts": BORDER3}, E, "cropAmounts has amounts for 3 axes"),
    ("constantPad", {}, E, "padAmounts has 0 entries"),
    ("constantPad", {"padAmounts": [1, 2, 3]}, E, "padAmounts has 3 entries"),
    ("constantPad", {"padAmounts": [0, 1, 2, 3], "padToGivenOutputSizeMode": True}, E,
     "only one amount of an axis"),
    # values
    ("activation", {}, E, "NonlinearityType is not set"),
    ("unary", {"type": 8}, E, "type 8 is unknown; known are SQRT"),
    ("reduce", {"mode": 10}, E, "mode 10 is unknown"),
    ("reduce", {"axis": 5}, E, "axis 5 is unknown; known are CHW"),
    ("gelu", {"mode": 3}, E, "mode 3 is unknown"),
    ("scatter", {"mode": -1}, E, "mode -1 is unknown"),
    ("resizeBilinear", {"mode": {"samplingMethod": 4}}, E, "mode.samplingMethod 4 is unknown"),
    ("cropResize", {"boxIndicesMode": {"boxMode": 4}}, E, "boxIndicesMode.boxMode 4"),
    ("resizeBilinear", {"targetSize": [1]}, E, "targetSize has 1 entries"),
    ("cropResize", {"targetSize": [0, 1]}, E, "targetSize is [0, 1]"),
    ("upsample", {"scalingFactor": [2]}, E, "scalingFactor has 1 entries"),
    ("upsample", {"fractionalScalingFactor": [0, 1]}, E, "entries must be above 0"),
    ("upsample", {"scalingFactor": [2, 2], "fractionalScalingFactor": [2, 2],
                  "mode": "BILINEAR", "linearUpsampleMode": 1}, E, "are both set"),
    ("upsample", {"fractionalScalingFactor": [2, 2], "mode": "BILINEAR"}, W,
     "fractionalScalingFactor needs mode BILINEAR"),
    ("upsample", {"linearUpsampleMode": "ALIGN_CORNERS_TRUE"}, W, "but mode is not BILINEAR"),
    ("lrn", {"localSize": 0}, E, "localSize is 0"),
    ("lrn", {"localSize": 3, "k": -1}, W, "k is -1; it must be positive"),
    ("reorganizeData", {}, E, "blockSize is 0"),
    ("reorganizeData", {"blockSize": 1}, W, "blockSize is 1; it must be at least 2"),
    ("clip", {"minVal": 2, "maxVal": 1}, W, "minVal 2 is above maxVal 1"),
    ("randomUniformLike", {"minVal": 2}, W, "minVal 2 is above maxVal 0"),
    ("randomUniformStatic", {"minVal": 2, "outputShape": [1]}, W, "minVal 2 is above maxVal 0"),
    ("randomUniformDynamic", {"minVal": 2}, W, "minVal 2 is above maxVal 0"),
    ("randomBernoulliLike", {"prob": 1.5}, W, "prob is 1.5; it must be from 0 to 1"),
    ("randomBernoulliStatic", {"prob": -1, "outputShape": [1]}, W, "prob is -1"),
    ("randomBernoulliDynamic", {"prob": float("nan")}, W, "prob is nan"),
    ("categoricalDistribution", {}, E, "numSamples is 0"),
    # axes and slices
    ("permute", {"axis": [0, 1, 2]}, E, "axis has 3 entries; possible are 4"),
    ("permute", {"axis": [0, 1, 2, 2]}, E, "[0, 1, 2, 2] is no permutation of the axes 0 to 3"),
    ("transpose", {}, E, "axes has 0 entries"),
    ("transpose", {"axes": [1, 2]}, E, "[1, 2] is no permutation"),
    ("transpose", {"axes": [1, 2, 3, 4, 5, 0]}, W, "axes has 6 entries"),
    ("squeeze", {}, W, "axes is empty"),
    ("squeeze", {"axes": [0, 0]}, W, "axes [0, 0] name one axis twice"),
    ("expandDims", {}, W, "axes is empty"),
    ("expandDims", {"axes": [1, 1]}, E, "axes [1, 1] name one axis twice"),
    ("argSort", {"axis": -1}, W, "axis is -1; here it must not be negative"),
    ("reshapeStatic", {}, E, "targetShape has 0 entries"),
    ("reshapeStatic", {"targetShape": [-2]}, E, "targetShape is [-2]; entries must be at least -1"),
    ("reshapeStatic", {"targetShape": [-1, -1]}, E, "only one extent may be -1"),
    ("rankPreservingReshape", {"targetShape": [-1, -1]}, E, "only one extent may be -1"),
    ("rankPreservingReshape", {"targetShape": [1]}, W, "must tell the ranks"),
    ("reshape", {"targetShape": [1, 2]}, E, "targetShape has 2 entries; possible are 3 or 4"),
    ("reshape", {"targetShape": [1, 2, -1]}, E, "targetShape is [1, 2, -1]"),
    ("fillStatic", {}, E, "targetShape has 0 entries"),
    ("broadcastToStatic", {}, E, "targetShape has 0 entries"),
    ("randomNormalStatic", {}, E, "outputShape has 0 entries"),
    ("slice", {}, E, "stride is 0"),
    ("slice", {"stride": 1, "startIndex": 5, "endIndex": 3}, E, "endIndex 3 is before start"),
    ("slice", {"stride": 1, "startIndex": -1, "endIndex": -3}, E, "endIndex -3 is before"),
    ("slice", {"stride": 1, "axis": 3}, E, "axis 3 is unknown"),
    ("sliceStatic", {}, E, "one entry for each axis is needed; found: beginIds 0"),
    ("sliceStatic", {**SLICE, "endIds": [1]}, E, "endIds 1, strides 2"),
    ("sliceStatic", {**SLICE, "squeezeMasks": [True]}, E, "squeezeMasks 1"),
    ("sliceStatic", {**SLICE, "strides": [1, 0]}, E, "strides is [1, 0]; a stride is not 0"),
    ("sliceDynamic", {"endIds": [1]}, E, "found: endIds 1, strides 0"),
    ("sliceDynamic", {"endIds": [1], "strides": [1], "endMasks": [True, True]}, E, "endMasks 2"),
    ("sliceDynamic", {"endIds": [1], "strides": [0]}, E, "strides is [0]"),
    ("slidingWindows", {"windowSize": 2}, E, "step is 0"),
    ("sliceBySize", {}, E, "size is 0"),
    ("topK", {}, E, "K is 0"),
    ("oneHot", {}, E, "oneHotVectorSize is 0"),
    ("tile", {}, E, "reps is empty"),
    ("split", {}, E, "nOutputs is 0"),
    ("split", {"nOutputs": 3}, E, "nOutputs is 3; it has 2 outputs"),
    ("splitND", {}, E, "numSplits is 0; it has 2 outputs"),
    ("splitND", {"splitSizes": [1, 2, 3]}, E, "splitSizes has 3 entries; it has 2 outputs"),
    # recurrent layers
    ("simpleRecurrent", {**RNN, "outputVectorSize": 0}, E, "outputVectorSize is 0"),
    ("simpleRecurrent", {**RNN, "activation": None}, E, "activation[0] is not set"),
    ("simpleRecurrent", {**RNN, "activation": {"ELU": {}}}, W, "activation[0] is ELU; recurrent"),
    ("simpleRecurrent", {**RNN, "activation": {"sigmoidHard": {"alpha": 0.3, "beta": 0.5}}}, W,
     "with alpha 0.3 and beta 0.5; in recurrent layers these are 0.2 and 0.5"),
    ("simpleRecurrent", {**RNN, "activation": {"scaledTanh": {"alpha": 1, "beta": 1}}}, W,
     "these are 1.7159 and 0.666667"),
    ("gru", {**GRU, "activations": [{"tanh": {}}]}, E, "activations has 1 functions; 2 are"),
    ("uniDirectionalLSTM", {**LSTM, "activations": []}, E, "activations has 0 functions; 3 are"),
    ("biDirectionalLSTM", {**BILSTM, "activationsBackwardLSTM": LSTM_FUNCTIONS[:2]}, E,
     "activationsBackwardLSTM has 2 functions"),
    ("biDirectionalLSTM", {**BILSTM, "activationsBackwardLSTM": LSTM_FUNCTIONS[::-1]}, W,
     "activationsForwardLSTM and activationsBackwardLSTM must be the same"),
    ("biDirectionalLSTM", {**BILSTM, "weightParams": [lstm_weights()]}, E,
     "weightParams has 1 entries; 2 are needed"),
    # custom layers, control flow
    ("custom", {}, E, "className is empty"),
    ("custom", {"className": "A", "parameters": {"a": {}}}, W, "parameter 'a' has no value"),
    ("custom", {"className": "A", "weights": [{"floatValue": [1], "rawValue": b"a"}]}, E,
     "weights[0]: a weight holds values of several kinds"),
    ("custom", {"className": "A", "weights": [{}]}, W, "weights[0] is empty"),
    ("branch", {}, E, "ifBranch has no layers"),
    # weights: how many
    ("convolution", {**CONV, "weights": np.ones(11)}, E,
     "weights has 11 values; shape [2, 3, 1, 2] needs 12"),
    ("convolution", {**DECONV, "weights": np.ones(24)}, E,
     "weights has 24 values; shape [6, 2, 1, 1] needs 12"),
    ("convolution", {**CONV, "weights": None}, E,
     "weights of shape [2, 3, 1, 2] is not stored"),
    ("convolution", {**CONV, "bias": np.ones(3)}, E, "bias has 3 values; shape [2] needs 2"),
    ("convolution", {**CONV, "bias": None}, E,
     "bias of shape [2] is not stored, though hasBias is set"),
    ("convolution", {**CONV, "hasBias": False}, N,
     "bias is stored, but not used: hasBias is not set"),
    ("convolution3d", {**CONV3D, "weights": np.ones(64)}, E, "shape [2, 2, 2, 2, 2] needs 32"),
    ("convolution3d", {**CONV3D, "isDeconvolution": True, "weights": np.ones(3)}, E,
     "shape [4, 1, 2, 2, 2] needs 32"),
    ("convolution3d", {**CONV3D, "hasBias": True}, E, "bias of shape [2] is not stored"),
    ("innerProduct", {**DENSE, "weights": np.ones(7)}, E, "weights has 7 values; shape [2, 3]"),
    ("innerProduct", {**DENSE, "bias": np.ones(7)}, E, "bias has 7 values; shape [2]"),
    ("embedding", {**EMBED, "weights": np.ones(7)}, E, "weights has 7 values; shape [2, 3]"),
    ("embedding", {**EMBED, "hasBias": True}, E, "bias of shape [2] is not stored"),
    ("embedding", {**EMBED, "inputDim": 0}, E, "inputDim is 0"),
    ("embeddingND", {**EMBED_ND, "weights": np.ones(7)}, E, "weights has 7 values; shape [2, 3]"),
    ("embeddingND", {**EMBED_ND, "hasBias": True}, E, "bias of shape [2] is not stored"),
    ("batchedMatmul", {**MATMUL, "weights": np.ones(7)}, E, "weights has 7 values; shape [2, 3]"),
    ("batchedMatmul", {**MATMUL, "hasBias": True}, E, "bias of shape [2] is not stored"),
    ("batchedMatmul", {}, E, "weightMatrixFirstDimension is 0"),
    *[("batchnorm", {**NORM, field: np.ones(3)}, E, f"{field} has 3 values; shape [2] needs 2")
      for field in ("gamma", "beta", "mean", "variance")],
    ("batchnorm", {**NORM, "gamma": None}, E, "gamma of shape [2] is not stored"),
    ("batchnorm", {**NORM, "mean": None}, E, "mean of shape [2] is not stored"),
    ("batchnorm", {**NORM, "channels": 0}, E, "channels is 0"),
    ("batchnorm", {**NORM, "computeMeanVar": True}, N,
     "variance is stored, but not used: computeMeanVar is set"),
    ("scale", {**SCALE, "scale": np.ones(3)}, E, "scale has 3 values; shape [2, 1, 1] needs 2"),
    ("scale", {**SCALE, "bias": np.ones(3)}, E, "bias has 3 values; shape [2] needs 2"),
    ("scale", {**SCALE, "shapeScale": [2, 1]}, E, "shapeScale has 2 entries; possible are 1 or 3"),
    ("scale", {**SCALE, "shapeBias": []}, E, "shapeBias has 0 entries"),
    ("bias", {"shape": [2, 1]}, E, "shape has 2 entries; possible are 1 or 3"),
    ("bias", {"shape": [3], "bias": np.ones(2)}, E, "bias has 2 values; shape [3] needs 3"),
    ("loadConstant", {"shape": [2], "data": np.ones(2)}, E, "shape has 1 entries; possible are 3"),
    ("loadConstant", {"shape": [2, 1, 1], "data": [1]}, E, "data has 1 values; shape [2, 1, 1]"),
    ("loadConstantND", {}, E, "shape has 0 entries"),
    ("loadConstantND", {"shape": [2, 2]}, E, "data of shape [2, 2] is not stored"),
    ("loadConstantND", {"shape": [1] * 6, "data": [1]}, W, "shape has 6 entries"),
    ("layerNormalization", {**LAYERNORM, "gamma": np.ones(2)}, E, "gamma has 2 values"),
    ("layerNormalization", {**LAYERNORM, "beta": None}, E, "beta of shape [2, 3] is not stored"),
    ("layerNormalization", {**LAYERNORM, "normalizedShape": []}, E, "normalizedShape has 0"),
    ("layerNormalization", {**LAYERNORM, "gamma": HALF6}, W,
     "gamma is stored as float16; here it must be float32"),
    ("activation", {"PReLU": {}}, E, "PReLU.alpha is not stored"),
    ("activation", {"parametricSoftplus": {"alpha": [1]}}, E, "beta is not stored"),
    ("activation", {"parametricSoftplus": {"alpha": [1, 2], "beta": [1, 2, 3]}}, E,
     "parametricSoftplus has 2 alphas and 3 betas"),
    ("activation", {"parametricSoftplus": {"alpha": [1], "beta": np.ones(1, np.float16)}}, W,
     "parametricSoftplus.alpha is float32, beta float16"),
    *[("simpleRecurrent", {**RNN, field: np.ones(7)}, E, f"{field} has 7 values")
      for field in ("weightMatrix", "recursionMatrix", "biasVector")],
    *[("gru", {**GRU, f"{gate}Gate{what}": np.ones(7)}, E, f"{gate}Gate{what} has 7 values")
      for gate in ("update", "reset", "output")
      for what in ("WeightMatrix", "RecursionMatrix", "BiasVector")],
    *[("uniDirectionalLSTM", {**LSTM, "weightParams": {**lstm_weights(), field: np.ones(7)}}, E,
       f"weightParams.{field} has 7 values") for field in lstm_weights()],
    *[("biDirectionalLSTM", {**BILSTM, "weightParams": [
        lstm_weights(), {**lstm_weights(), field: None}]}, E,
       f"weightParams[1].{field} of shape") for field in lstm_weights()],
    ("uniDirectionalLSTM", {**LSTM, "params": {"hasBiasVectors": True}}, N,
     "weightParams.inputGatePeepholeVector is stored, but not used: hasPeepholeVectors is not set"),
    # weights: how
    ("innerProduct", {**DENSE, "weights": {"floatValue": [1], "rawValue": b"a"}}, E,
     "weights: a weight holds values of several kinds: floatValue, rawValue"),
    ("innerProduct", {**DENSE, "weights": {"float16Value": b"abc"}}, E,
     "weights has half a float16 value at its end"),
    ("innerProduct", {**DENSE, "weights": {"rawValue": b"abcdef"}}, E,
     "weights has raw bytes without quantization"),
    ("innerProduct", {**DENSE, "weights": linear(1, bits=9)}, E, "1 to 8 bits, not 9"),
    ("innerProduct", {**DENSE, "weights": linear(1, bits=0)}, E, "1 to 8 bits, not 0"),
    ("innerProduct", {**DENSE, "weights": linear()}, E,
     "weights has 0 quantization scales; possible are 1 or 2"),
    ("innerProduct", {**DENSE, "weights": linear(1, 2, 3)}, E, "weights has 3 quantization scales"),
    ("innerProduct", {**DENSE, "weights": linear(1, 2, bias=(1, 2, 3))}, E,
     "weights has 3 quantization biases for 2 scales"),
    ("innerProduct", {**DENSE, "weights": linear(1, 2, bias=(1,))}, W,
     "weights has 1 quantization biases for 2 scales"),
    ("innerProduct", {**DENSE, "weights": table(2, 3)}, E,
     "weights has a lookup table of 3 entries; 2 bits need 4"),
    ("innerProduct", {**DENSE, "weights": table(5, 32, b"abc")}, E,
     "weights has 3 bytes; 6 values of 5 bits, shape [2, 3], need 4"),
    ("innerProduct", {**DENSE, "bias": {**linear(1, 2), "rawValue": b"ab"}}, W,
     "bias has 2 quantization scales; devices allow 1"),
    ("convolution", {**DECONV, "weights": {**linear(1, 2), "rawValue": bytes(12)}}, W,
     "weights has 2 quantization scales; devices allow 1 or 4"),
    ("convolution", {**DECONV, "weights": {**linear(1, 2, 3, 4), "rawValue": bytes(12)}}, E,
     "weights has 4 quantization scales; possible are 1 or 2"),
    ("convolution3d", {**CONV3D, "weights": {**linear(1), "rawValue": bytes(32)}}, W,
     "weights is stored as linear 8; here it must be float32 or float16"),
    ("innerProduct", {**DENSE, "weights": HALF6}, W, "its weights mix float32 and float16"),
    ("convolution", {**CONV, "bias": HALF2}, W, "its weights mix float32 and float16"),
    ("simpleRecurrent", {**RNN, "biasVector": HALF2}, W, "its weights mix float32 and float16"),
    ("innerProduct", {**INT8, "int8DynamicQuantize": False}, W,
     "weights are stored as int8 and int8DynamicQuantize is false"),
    ("innerProduct", {**DENSE, "int8DynamicQuantize": True}, W,
     "weights are stored as float32 and int8DynamicQuantize is true"),
    ("innerProduct", {**DENSE, "bias": {**INT8["weights"], "int8RawValue": b"ab"}}, W,
     "bias is stored as int8; only weights"),
    ("innerProduct", {**INT8, "weights": {"int8RawValue": b"abcde"}}, E, "weights has 5 values"),
    ("innerProduct", {**INT8, "weights": {"int8RawValue": b"abcdef"}}, E,
     "weights has int8 values and 0 scales"),
    ("innerProduct", {**INT8, "weights": {"int8RawValue": b"abcdef"}}, W,
     "numberOfBits is 0; int8DynamicQuantize needs 8"),
    ("innerProduct", {**INT8, "weights": {"int8RawValue": b"abcdef"}}, W,
     "weights.quantization is not linear"),
    ("innerProduct", {**INT8, "weights": {**linear(1, bias=(1,)), "rawValue": None,
                                          "int8RawValue": b"abcdef"}}, E, "has a bias"),
    ("innerProduct", {**INT8, "hasBias": True, "bias": [1, 2]}, W,
     "hasBias is set; int8DynamicQuantize allows no bias"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "params", "severity", "text"),
    LAYER_CASES,
    ids=[f"{kind}: {text[:40]}" for kind, _, _, text in LAYER_CASES],
)
def test_broken_layer(kind: str, params: dict[str, Any], severity: str, text: str) -> None:
    problems = at_the_layer(layer_model(kind, params))
    found = [problem for problem in problems if problem.severity == severity]
    assert any(text in problem.message for problem in found), [*map(repr, problems)]


WITH_INPUTS: list[tuple[str, str, dict[str, Any], int, str, str]] = [
    ("dynamic deconvolution", "convolution", {**DECONV, "weights": None}, 2, E,
     "isDeconvolution is set, but its weights come as an input"),
    ("dynamic dilation", "convolution", {"outputChannels": 2, "valid": {},
                                         "dilationFactor": [1, 2]}, 2, W,
     "dilationFactor is [1, 2], but its weights come as an input"),
    ("dynamic bias", "convolution", {"outputChannels": 2, "valid": {}, "hasBias": True}, 2, W,
     "hasBias is set, but its weights"),
    ("stored and given", "convolution", CONV, 2, N,
     "weights is stored, but not used: they come as an input"),
    ("crop without offset", "crop", {}, 2, E, "offset has 0 entries; with two inputs it has 2"),
    ("two matrices and a bias", "batchedMatmul", {"hasBias": True}, 2, W,
     "hasBias is set, but its second matrix is an input"),
    ("two matrices, int8", "batchedMatmul", {"int8DynamicQuantize": True}, 2, W,
     "int8DynamicQuantize is set, but its second matrix is an input"),
]  # fmt: skip


@pytest.mark.parametrize("row", WITH_INPUTS, ids=[row[0] for row in WITH_INPUTS])
def test_broken_layer_with_more_inputs(
    row: tuple[str, str, dict[str, Any], int, str, str],
) -> None:
    _, kind, params, inputs, severity, text = row
    problems = at_the_layer(layer_model(kind, params, inputs))
    found = [problem for problem in problems if problem.severity == severity]
    assert any(text in problem.message for problem in found), [*map(repr, problems)]


def test_copy_to_itself() -> None:
    spec = layer_model("copy", {})
    spec.neuralNetwork.layers[0].output[0] = "x0"
    assert [problem.message for problem in at_the_layer(spec)] == ["it copies [x0] to itself"]


@pytest.mark.parametrize(
    ("ranks", "extents", "text"),
    [([1, 1], [], "inputTensor has 2 entries for 1 blobs"),
     ([2], [1, 2, 3], "inputTensor has rank 2 and 3 extents")],
)  # fmt: skip
def test_ranks_that_do_not_fit(ranks: list[int], extents: list[int], text: str) -> None:
    spec = layer_model("round", {})
    for rank in ranks:
        spec.neuralNetwork.layers[0].inputTensor.add(rank=rank, dimValue=extents)
    (problem,) = at_the_layer(spec)
    assert (problem.severity, problem.message) == ("warning", text)


# ---- numbers of inputs and outputs -------------------------------------------------------------


def test_every_kind_has_its_numbers_of_inputs_and_outputs() -> None:
    assert set(ARITIES) == set(LAYER_KINDS)
    assert set(EVALUATED) <= set(LAYER_KINDS)


def counts() -> Iterator[tuple[str, str, int, str]]:
    for kind, (inputs, outputs) in ARITIES.items():
        low, high = EVALUATED.get(kind, inputs)
        for count in {inputs[0] - 1, inputs[1] + 1} - {-1, MANY + 1}:
            yield kind, "inputs", count, "warning" if low <= count <= high else "error"
        for count in {outputs[0] - 1, outputs[1] + 1} - {-1, MANY + 1}:
            yield kind, "outputs", count, "warning" if count < outputs[0] else "error"


@pytest.mark.parametrize(("kind", "role", "count", "severity"), list(counts()))
def test_number_of_inputs_or_outputs(kind: str, role: str, count: int, severity: str) -> None:
    spec = layer_model(kind, SANE_PARAMS.get(kind, {}), **{role: count})
    problems = [p for p in at_the_layer(spec) if f"it has {count} {role}; needed" in p.message]
    assert [problem.severity for problem in problems] == [severity]


# ---- the rules as a whole ----------------------------------------------------------------------


def every_broken_model() -> Iterator[Model]:
    yield from (case[1]() for case in CASES)
    yield from (layer_model(kind, params) for kind, params, _, _ in LAYER_CASES)
    yield from (layer_model(row[1], row[2], row[3]) for row in WITH_INPUTS)
    yield layer_model("round", {}, 3, 0)
    ranked = layer_model("round", {})
    ranked.neuralNetwork.layers[0].inputTensor.add(dimValue=[1])
    yield ranked
    copied = layer_model("copy", {})
    copied.neuralNetwork.layers[0].output[0] = "x0"
    yield copied


def broken_rules(spec: Model) -> Iterator[object]:
    """The rules that find something in a model, each asked alone."""
    for model_rule in MODEL_RULES:
        if any(model_rule(spec)):
            yield model_rule
    for role, described in (("input", spec.description.input), ("output", spec.description.output)):
        for item in described:
            feature = Feature(item.name, item.type, role == "input", spec)
            for kind in ("", item.type.WhichOneof("Type") or ""):
                yield from (rule for rule in FEATURE_RULES.get(kind, ()) if any(rule(feature)))
    network = networks.network_of(spec)
    for layer in networks.layers_of(network) if network is not None else ():
        kind = layer.WhichOneof("layer")
        if kind is not None:
            rules = [*LAYER_RULES[""], *LAYER_RULES.get(kind, ())]
            yield from (rule for rule in rules if any(rule(layer, getattr(layer, kind))))


def test_every_rule_is_broken_by_some_model() -> None:
    broken = {rule for spec in every_broken_model() for rule in broken_rules(spec)}
    rules = {*MODEL_RULES}
    for family in (*FEATURE_RULES.values(), *LAYER_RULES.values()):
        rules.update(family)
    assert {rule.__name__ for rule in rules - broken} == set()


def test_every_kind_with_weights_tells_which_it_needs() -> None:
    layer = nn.NeuralNetworkLayer()
    for kind in LAYER_KINDS:
        params = getattr(layer, kind)
        params.SetInParent()
        own = any(
            field.message_type is not None and "Weight" in field.message_type.name
            for field in params.DESCRIPTOR.fields
        )
        assert (kind in NEEDS) == ((own and kind != "custom") or kind == "activation"), kind


# ---- hostile models ----------------------------------------------------------------------------


def nested(kind: str, depth: int) -> Model:
    spec = plain()
    if kind == "pipeline":
        outer = Model(specificationVersion=4)
        inner = outer
        for _ in range(depth):
            inner = inner.pipeline.models.add()
        inner.CopyFrom(spec)
        return outer
    layers = spec.neuralNetwork.layers
    for _ in range(depth):
        layers = layers.add(name="if", input=["x"]).branch.ifBranch.layers
    return spec


@pytest.mark.parametrize("kind", ["pipeline", "branch"])
def test_models_in_models_without_end(kind: str) -> None:
    (problem,) = validate(nested(kind, 3000))
    assert problem.severity == "error"
    assert "nested in more than 50 levels" in problem.message


@pytest.mark.parametrize("kind", ["pipeline", "branch"])
def test_models_in_models(kind: str) -> None:
    assert not any("nested" in problem.message for problem in validate(nested(kind, 20)))


NAMES = ["a", "b", "x", ""]


def scramble(message: Any, source: random.Random, depth: int) -> None:
    """Fill a message with anything that its fields can hold."""
    for oneof in message.DESCRIPTOR.oneofs:
        field = source.choice(oneof.fields)
        if isinstance(message, Model):
            kind = source.choice((*networks.NETWORK_KINDS, *networks.PIPELINE_KINDS, "customModel"))
            field = message.DESCRIPTOR.fields_by_name[kind]
        scramble_field(message, field, source, depth)
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof is None and source.random() < 0.6:
            scramble_field(message, field, source, depth)


def scramble_field(message: Any, field: Any, source: random.Random, depth: int) -> None:
    many = source.randint(0, 4)
    if is_map(field):
        if field.message_type.fields_by_name["value"].message_type is not None:
            getattr(message, field.name)[source.choice(NAMES)].SetInParent()
    elif field.message_type is not None:
        if depth == 0:
            return
        value = getattr(message, field.name)
        for _ in range(many if is_repeated(field) else 1):
            inner = value.add() if is_repeated(field) else value
            inner.SetInParent()
            scramble(inner, source, depth - 1)
    elif is_repeated(field):
        getattr(message, field.name).extend(anything(field, source) for _ in range(many))
    else:
        setattr(message, field.name, anything(field, source))


def anything(field: Any, source: random.Random) -> Any:
    if field.type == field.TYPE_BYTES:
        return bytes(source.randint(0, 9))
    return source.choice(
        {
            field.CPPTYPE_STRING: NAMES,
            field.CPPTYPE_BOOL: [True, False],
            field.CPPTYPE_ENUM: [0, 1, 2, 10, 65568, -1, 2**31 - 1],
            field.CPPTYPE_FLOAT: [0, 1, -1, 1e30, float("nan"), float("inf")],
            field.CPPTYPE_DOUBLE: [0, 1, -1, 1e300, float("nan"), float("-inf")],
            field.CPPTYPE_UINT64: [0, 1, 2, 3, 8, 2**64 - 1],
            field.CPPTYPE_INT64: [0, 1, 3, -1, -(2**63), 2**63 - 1],
            field.CPPTYPE_UINT32: [0, 1, 2**32 - 1],
            field.CPPTYPE_INT32: [0, 1, 4, -1, -(2**31), 2**31 - 1],
        }[field.cpp_type]
    )


def test_anything_is_judged_and_nothing_raises() -> None:
    source = random.Random(5)
    severities = set()
    for _ in range(400):
        spec = Model()
        scramble(spec, source, 7)
        for problem in validate(spec):
            assert problem.where
            assert problem.message
            severities.add(problem.severity)
    assert severities == {"error", "warning", "note"}


# ---- real models -------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["mlmodel", "rank5_cases"])
def test_models_that_apples_tools_took_have_no_errors(shared_data: Path, folder: str) -> None:
    paths = sorted((shared_data / folder).glob("*.mlmodel"))
    assert paths
    for path in paths:
        problems = validate(io.load_spec(path))
        assert [problem for problem in problems if problem.severity != "note"] == [], path.name


def test_weights_are_counted_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stored", "read", "unpack_bits"):
        monkeypatch.setattr(weights, name, None)
    for kind in NEEDS:
        assert validate(layer_model(kind, SANE_PARAMS[kind])) == []


def test_features_keep_their_model() -> None:
    spec = plain()
    feature = Feature("x", ft.FeatureType(), True, spec)
    assert feature.misfit("text") == Problem("error", "", "text")
    assert Feature("y", ft.FeatureType(), False, spec).misfit("text").severity == "warning"
