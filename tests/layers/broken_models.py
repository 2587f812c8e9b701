"""Sane models, and models that break the rules about models, features and blobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlferry.layers.builder import Builder
from mlferry.models import datatypes
from mlferry.models.neural_network import NeuralNetworkBuilder, SgdParams
from mlferry.spec import features, fields
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn

Model = model_pb2.Model
Change = Callable[[Model], Any]


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
    """A model that is not a network, with an input of some type."""
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


def pipeline_of_a(predictor: Callable[[], Model], kind: str) -> Model:
    """A pipeline whose last model classifies or regresses."""
    last = predictor()
    first = Model(specificationVersion=4)
    first.identity.SetInParent()
    first.description.input.add().CopyFrom(last.description.input[0])
    first.description.input[0].name = "source"
    first.description.output.add().CopyFrom(last.description.input[0])
    spec = Model(specificationVersion=4)
    spec.description.CopyFrom(last.description)
    spec.description.input[0].name = "source"
    getattr(spec, kind).pipeline.models.extend([first, last])
    return spec


def updatable_pipeline() -> Model:
    spec = pipeline()
    builder = NeuralNetworkBuilder(spec=spec.pipeline.models[1])
    builder.make_updatable(["conv"])
    shape = spec.description.output[0].type.multiArrayType.shape
    blob = spec.description.output[0].name
    builder.set_mean_squared_error_loss("loss", (blob, datatypes.Array(*shape)))
    builder.set_sgd_optimizer(SgdParams())
    builder.set_epochs(3)
    spec.isUpdatable = True
    return spec


def custom_model() -> Model:
    spec = Model(specificationVersion=3)
    spec.customModel.className = "Mine"
    spec.customModel.parameters["n"].intValue = 3
    spec.description.input.add(name="x").type.CopyFrom(features.multi_array((2,)))
    spec.description.output.add(name="y").type.CopyFrom(features.multi_array((2,)))
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
    "pipeline of a classifier": lambda: pipeline_of_a(classifier, "pipelineClassifier"),
    "pipeline of a regressor": lambda: pipeline_of_a(regressor, "pipelineRegressor"),
    "updatable pipeline": updatable_pipeline,
    "custom model": custom_model,
    "loop and branch": control,
}


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
    ("output of another shape", on(plain, put(f"{OUTPUT}.type.multiArrayType.shape", [1, 2, 4, 5])),
     W, "output 'y'", "multi-array float32 1 x 2 x 4 x 5; the layers make (1, 2, 4, 4)"),
    ("output of another rank", on(plain, put(f"{OUTPUT}.type.multiArrayType.shape", [2, 4, 4])),
     N, "output 'y'", "the layers make (1, 2, 4, 4)"),
    ("output of other channels", on(plain, put(f"{OUTPUT}.type.imageType", {
        "width": 4, "height": 4, "colorSpace": "RGB"})), W, "output 'y'",
     "described as image RGB 4 x 4; the layers make (1, 2, 4, 4)"),
    ("classic output of another size", on(legacy, put(f"{OUTPUT}.type.multiArrayType.shape", [5])),
     W, "output 'y'", "the layers make (1, 1, 3, 1, 1)"),
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
    ("an updatable model of iOS 12", on(updatable_pipeline, put(
        "pipeline.models[1].specificationVersion", 3)), W, "model 1 'second'",
     "specificationVersion is 3; updatable models need 4"),
    ("custom model without inputs", on(custom_model, put("description.input", None)), W,
     "description", "it has no inputs; customModel models need some"),
    ("custom model without outputs", on(custom_model, put("description.output", None)), W,
     "description", "it has no outputs"),
    ("a range of nothing", on(plain, put(f"{ARRAY}.shape", []), put(f"{ARRAY}.shapeRange", {})),
     W, "input 'x'", "shapeRange has no ranges"),
    ("custom model, optional input", on(
        custom_model, put("description.input[0].type.isOptional", True)), W, "input 'x'",
     "customModel models take no optional inputs"),
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
     "model", "a model without inputs needs version 9; write 9"),
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
     "its input 'q' is not an input of the model, and no layer before it makes it"),
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
    ("inner blob twice", on(control, put(f"{BODY}.layers[2].sign", {})), W,
     "loop 'loop' > bodyNetwork > sign 'next'",
     "its output 'n' is there already, from copy 'start'"),
    ("break outside", on(legacy, put(f"{LAYER}.loopBreak", {}), put(f"{LAYER}.input", []),
                         put(f"{LAYER}.output", [])), E, "loopBreak 'relu'", "outside"),
    ("continue in a condition", on(control, lambda s: s.neuralNetwork.layers[
        1].loop.conditionNetwork.layers.add(name="c").loopContinue.SetInParent()), E,
     "loop 'loop' > conditionNetwork > loopContinue 'c'", "outside of the bodyNetwork"),
    ("condition not made", on(control, put(f"{CONDITION}.layers[0].output", ["g"])), E,
     "loop 'loop'", "conditionVar 'go' is made by no layer"),
    ("condition not written", on(control, put("neuralNetwork.layers[1].loop.conditionVar", "n")),
     W, "loop 'loop'", "conditionVar 'n' is not written again"),
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
     "'pictur' is not an image input. Did you mean 'picture'?"),
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
     "description", "'clasLabel' is not an output. Did you mean 'classLabel'?"),
    ("label type", on(classifier, put("description.output[1].type", {"int64Type": {}})), W,
     "output 'classLabel'", "its type is int64Type; for these labels it is stringType"),
    ("probabilities name", on(classifier, put("description.predictedProbabilitiesName", "q")), W,
     "description", "predictedProbabilitiesName 'q' is not an output"),
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
     "description", "predictedFeatureName 'q' is not an output"),
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
    ("image range from 0", on(image, put("description.input[0].type.imageType", {
        "colorSpace": "RGB", "imageSizeRange": {
            "widthRange": {"upperBound": -1}, "heightRange": {"upperBound": -1}}})), W,
     "input 'picture'", "begins at 0, and there is no default size"),
    ("pipeline without outputs", on(pipeline, put("description.output", None)), W,
     "description", "it has no outputs"),
    ("pipeline without inputs", on(pipeline, put("description.input", None)), W,
     "model", "a model without inputs needs version 9"),
    ("newer inner version", on(pipeline, put("pipeline.models[1].specificationVersion", 11)), W,
     "model 1 'second'", "specificationVersion is 11, newer than 10"),
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
