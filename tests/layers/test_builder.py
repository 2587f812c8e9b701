"""Networks are built from Core ML's own names; mistakes are told where they are made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings, strategies as st

from mlferry import limits
from mlferry.errors import LimitError, SpecError
from mlferry.layers.builder import LAYER_KINDS, Builder
from mlferry.layers.validate import validate
from mlferry.spec import features, fields, weights
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn
from mlferry.spec.reflection import is_map, is_repeated


@pytest.fixture
def builder() -> Builder:
    result = Builder()
    result.input("x", (1, 3, 8, 8))
    return result


def relu(builder: Builder, source: str, target: str) -> None:
    builder.layer("activation", f"to_{target}", [source], [target], ReLU={})


# ---- layers ------------------------------------------------------------------------------------


def test_a_layer_is_what_was_asked(builder: Builder) -> None:
    kernel = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    layer = builder.layer(
        "convolution",
        "conv",
        ["x"],
        ["y"],
        outputChannels=2,
        kernelChannels=3,
        kernelSize=(2, 2),
        stride=np.array([2, 2]),
        same={"asymmetryMode": "TOP_LEFT_HEAVY"},
        hasBias=True,
        weights=kernel,
        bias=[0.5, -0.5],
        isDeconvolution=None,
    )
    assert (layer.name, list(layer.input), list(layer.output)) == ("conv", ["x"], ["y"])
    params = layer.convolution
    assert (params.outputChannels, params.kernelChannels, params.hasBias) == (2, 3, True)
    assert (list(params.kernelSize), list(params.stride)) == ([2, 2], [2, 2])
    assert params.WhichOneof("ConvolutionPaddingType") == "same"
    assert params.same.asymmetryMode == 1
    np.testing.assert_array_equal(weights.read(params.weights, kernel.shape), kernel)
    assert list(params.bias.floatValue) == [0.5, -0.5]
    assert builder.shapes["y"] == (1, 2, 4, 4)
    assert builder.network.layers[-1] == layer


def test_parameters_of_every_form(builder: Builder) -> None:
    half = nn.WeightParams(float16Value=b"\0<")
    layer = builder.layer(
        "custom",
        "mine",
        ["x"],
        ["y", "z"],
        output_shapes=[(1,), (None, 2)],
        className="Mine",
        weights=[np.ones(3), np.zeros(2, np.uint8), half],
        parameters={"a": {"intValue": 3}, "b": {"stringValue": "text"}},
    )
    assert [list(each.floatValue) for each in layer.custom.weights] == [[1, 1, 1], [], []]
    assert [each.rawValue for each in layer.custom.weights] == [b"", b"\0\0", b""]
    assert layer.custom.weights[2] == half
    assert layer.custom.parameters["a"].intValue == 3
    assert layer.custom.parameters["b"].stringValue == "text"
    assert (builder.shapes["y"], builder.shapes["z"]) == ((1,), (None, 2))


def test_unknown_shapes_of_custom_layers_go_on(builder: Builder) -> None:
    builder.layer("custom", "mine", ["x"], ["y"], className="Mine")
    relu(builder, "y", "z")
    assert builder.shapes["z"] is None
    builder.output("z")
    assert list(builder.model().description.output[0].type.multiArrayType.shape) == []


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("kind", {"kind": "convoluton"}, "no layer kind 'convoluton'. Did you mean 'convolution'"),
    ("strange kind", {"kind": "qqqqqqqq"}, "there is no layer kind 'qqqqqqqq'."),
    ("field", {"alpa": 1}, "no field 'alpa'. Did you mean 'alpha'?"),
    ("strange field", {"qqqqqqqq": 1}, "no field 'qqqqqqqq'. Its fields: alpha"),
    ("value", {"alpha": "much"}, "AddLayerParams.alpha cannot be 'much'"),
    ("blob", {"inputs": ["X"]}, "makes the blob 'X'. Did you mean 'x'?"),
    ("taken name", {"name": "first"}, "there is a layer 'first' already"),
    ("taken blob", {"outputs": ["a"]}, "the blob 'a' exists already"),
    ("input as output", {"outputs": ["x"]}, "the blob 'x' exists already"),
    ("blob twice", {"outputs": ["b", "b"]}, "the blob 'b' exists already"),
    ("too many outputs", {"outputs": ["b", "c"]}, "it makes 1 outputs, 2 are named"),
    ("shapes", {"inputs": ["x", "v"]}, "shapes (1, 3, 8, 8), (5,) do not broadcast"),
    ("no inputs", {"inputs": []}, "needs an input"),
    ("inputs", {"kind": "subtractBroadcastable"}, "1 inputs do not fit"),
    ("enum number", {"kind": "reduce", "axis": 9}, "axis of reduce 'it' is unknown: 9"),
]


@pytest.mark.parametrize(("name", "change", "text"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_mistakes_are_told_and_change_nothing(
    name: str, change: dict[str, Any], text: str, builder: Builder
) -> None:
    builder.input("v", (5,))
    builder.layer("activation", "first", ["x"], ["a"], ReLU={})
    before = (builder.network.SerializeToString(), dict(builder.shapes))
    call: dict[str, Any] = {"kind": "add", "name": "it", "inputs": ["x"], "outputs": ["b"]}
    call |= change
    with pytest.raises(SpecError) as caught:
        builder.layer(**call)
    assert text in str(caught.value)
    assert f"while adding {call['kind']} '{call['name']}'" in str(caught.value)
    assert (builder.network.SerializeToString(), builder.shapes) == before


CHANNELS = {"shapeScale": [3], "scale": [1, 2, 3]}
SHAPES: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("scale", CHANNELS, [(1, 3, 8, 8)]),
    ("bias", {"shape": [3], "bias": [1, 2, 3]}, [(1, 3, 8, 8)]),
    ("tile", {"reps": [2, 3]}, [(1, 3, 16, 24)]),
    ("tile", {"reps": [4, 1, 1, 1]}, [(4, 3, 8, 8)]),
    ("constantPad", {"padAmounts": [0, 1] * 4}, [(2, 4, 9, 9)]),
    (
        "constantPad",
        {"padAmounts": [0, 0, 5, 0, 0, 9, 0, 8], "padToGivenOutputSizeMode": True},
        [(1, 5, 9, 8)],
    ),
    ("resizeBilinear", {}, [(1, 3, 1, 1)]),
    ("splitND", {"axis": 1, "numSplits": 2}, [(1, 2, 8, 8), (1, 1, 8, 8)]),
]


@pytest.mark.parametrize(("kind", "params", "shapes"), SHAPES)
def test_shapes_are_known_at_once(
    kind: str, params: dict[str, Any], shapes: list[Any], builder: Builder
) -> None:
    names = [f"y{index}" for index in range(len(shapes))]
    builder.layer(kind, "it", ["x"], names, **params)
    assert [builder.shapes[name] for name in names] == shapes


FIELD_MISTAKES: list[tuple[str, str, dict[str, Any], str]] = [
    ("enum", "unary", {"type": "SQRTT"}, "type is one of SQRT, RSQRT, INVERSE"),
    ("negative", "split", {"nOutputs": -1}, "nOutputs cannot be -1"),
    ("float", "split", {"nOutputs": 1.5}, "nOutputs cannot be 1.5"),
    ("no list", "permute", {"axis": 3}, "axis cannot be 3"),
    ("entry", "permute", {"axis": ["a"]}, "axis cannot be ['a']"),
    ("no message", "activation", {"ReLU": 3}, "ActivationReLU is set from a mapping, not from 3"),
    ("inner field", "activation", {"ELU": {"alph": 1}}, "ActivationELU has no field 'alph'."),
    ("no map", "custom", {"parameters": [1]}, "parameters is set from a mapping, not from [1]"),
    ("map value", "custom", {"parameters": {"a": 1}}, "is set from a mapping, not from 1"),
    ("weights", "bias", {"bias": ["a"]}, "weights must be numbers"),
]


@pytest.mark.parametrize(
    ("name", "kind", "values", "text"), FIELD_MISTAKES, ids=[row[0] for row in FIELD_MISTAKES]
)
def test_values_that_do_not_fit_a_field(
    name: str, kind: str, values: dict[str, Any], text: str
) -> None:
    with pytest.raises(SpecError) as caught:
        fields.fill(getattr(nn.NeuralNetworkLayer(), kind), values)
    assert text in str(caught.value)


def default_values(message: Any) -> dict[str, Any]:
    """Every field of a message with its own default; enums by name, messages as mappings."""
    results: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if is_map(field):
            results[field.name] = {}
        elif is_repeated(field):
            results[field.name] = []
        elif field.enum_type is not None:
            results[field.name] = field.enum_type.values_by_number[0].name
        elif field.message_type is not None:
            results[field.name] = {}
        else:
            results[field.name] = getattr(message, field.name)
    return results


@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_every_kind_is_filled_from_its_defaults(kind: str) -> None:
    layer = nn.NeuralNetworkLayer(name="it")
    params = getattr(layer, kind)
    params.SetInParent()
    values = default_values(params)
    fields.fill(params, values)
    assert layer.WhichOneof("layer") == kind
    again = default_values(params)
    assert again == values
    scalars = [field for field in params.DESCRIPTOR.fields if field.message_type is None]
    assert not {field.name for field in scalars} & {field.name for field, _ in params.ListFields()}


@st.composite
def values_of(draw: st.DrawFn, field: Any) -> Any:
    if field.enum_type is not None:
        return draw(st.sampled_from([value.name for value in field.enum_type.values]))
    result = {
        FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
        FieldDescriptor.CPPTYPE_STRING: st.text(max_size=3),
        FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32, allow_nan=False),
        FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
        FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
        FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    }[field.cpp_type]
    return draw(st.lists(result, max_size=3) if is_repeated(field) else result)


@given(st.sampled_from(LAYER_KINDS), st.data())
@settings(deadline=None, max_examples=300)
def test_filled_values_are_there(kind: str, data: st.DataObject) -> None:
    params = getattr(nn.NeuralNetworkLayer(), kind)
    plain = [field for field in params.DESCRIPTOR.fields if field.message_type is None]
    values = {field.name: data.draw(values_of(field)) for field in plain}
    fields.fill(params, values)
    for field in plain:
        actual = getattr(params, field.name)
        if field.enum_type is not None:
            actual = field.enum_type.values_by_number[actual].name
        assert (list(actual) if is_repeated(field) else actual) == values[field.name]


# ---- inputs, outputs, names --------------------------------------------------------------------


def test_inputs_and_outputs_are_described(builder: Builder) -> None:
    builder.input("picture", (1, 3, 4, 6), features.image(6, 4, "BGR"))
    relu(builder, "x", "y")
    builder.output("y", description="the answer")
    builder.output("picture", features.image(6, 4, "RGB"))
    spec = builder.model()
    assert [features.show(each.type) for each in spec.description.input] == [
        "multi-array float32 1 x 3 x 8 x 8", "image BGR 6 x 4",
    ]  # fmt: skip
    answer, picture = spec.description.output
    assert features.show(answer.type) == "multi-array float32 1 x 3 x 8 x 8"
    assert answer.shortDescription == "the answer"
    assert picture.type.imageType.colorSpace == ft.ImageFeatureType.RGB
    assert spec.specificationVersion == 4
    assert spec.neuralNetwork.arrayInputShapeMapping == nn.EXACT_ARRAY_MAPPING


def test_version_is_the_smallest_that_is_needed(builder: Builder) -> None:
    builder.layer("clampedReLU", "relu6", ["x"], ["y"], beta=6)
    assert builder.model().specificationVersion == 5


def test_input_twice(builder: Builder) -> None:
    with pytest.raises(SpecError, match="there is an input 'x' already"):
        builder.input("x", (1,))


def test_output_twice(builder: Builder) -> None:
    relu(builder, "x", "y")
    builder.output("y")
    with pytest.raises(SpecError, match="'y' is an output already"):
        builder.output("y")


def test_output_that_is_no_blob(builder: Builder) -> None:
    relu(builder, "x", "result")
    with pytest.raises(SpecError, match=r"no blob 'reslt'\. Did you mean 'result'\?"):
        builder.output("reslt")


def test_names_that_are_free(builder: Builder) -> None:
    relu(builder, "x", "y")
    assert builder.is_taken("x")
    assert builder.is_taken("to_y")
    assert not builder.is_taken("z")
    assert builder.unused_blob("z") == "z"
    assert builder.unused_blob("y") == "y_1"
    relu(builder, "x", "y_1")
    assert builder.unused_blob("y") == "y_2"


def test_rename_blob(builder: Builder) -> None:
    relu(builder, "x", "y")
    builder.layer("add", "sum", ["y", "y"], ["z"])
    relu(builder, "x", "other")
    builder.rename_blob("y", "better")
    first, second, third = builder.network.layers
    assert list(first.output) == ["better"]
    assert list(second.input) == ["better", "better"]
    assert list(third.output) == ["other"]
    assert builder.shapes["better"] == (1, 3, 8, 8)
    assert "y" not in builder.shapes


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [("y", "x", "'x' exists already"), ("Y", "z", r"no blob 'Y'\. Did you mean 'y'\?")],
)
def test_rename_that_cannot_be(old: str, new: str, text: str, builder: Builder) -> None:
    relu(builder, "x", "y")
    with pytest.raises(SpecError, match=text):
        builder.rename_blob(old, new)


def test_prune_keeps_what_is_needed(builder: Builder) -> None:
    for source, target in (("x", "a"), ("a", "b"), ("a", "dead"), ("dead", "deader"), ("b", "c")):
        relu(builder, source, target)
    builder.prune(["c"])
    assert [layer.name for layer in builder.network.layers] == ["to_a", "to_b", "to_c"]
    with pytest.raises(SpecError, match="no blob 'dead'"):
        builder.output("dead")
    relu(builder, "b", "dead")
    assert builder.shapes["dead"] == (1, 3, 8, 8)


def test_prune_of_nothing(builder: Builder) -> None:
    relu(builder, "x", "y")
    builder.prune(["y", "x"])
    assert len(builder.network.layers) == 1


# ---- classifiers -------------------------------------------------------------------------------


def classified(builder: Builder, labels: Any, **names: Any) -> model_pb2.Model:
    relu(builder, "x", "chances")
    relu(builder, "x", "extra")
    builder.output("chances")
    builder.output("extra")
    return builder.model(builder.classifier(labels, "chances", **names))


@pytest.mark.parametrize(
    ("labels", "field", "label_type", "key"),
    [
        (["cat", "dog"], "stringClassLabels", "stringType", "stringKeyType"),
        ([3, 5], "int64ClassLabels", "int64Type", "int64KeyType"),
        (np.array([3, 5]), "int64ClassLabels", "int64Type", "int64KeyType"),
        (("cat", "dog"), "stringClassLabels", "stringType", "stringKeyType"),
    ],
)
def test_classifier(labels: Any, field: str, label_type: str, key: str, builder: Builder) -> None:
    builder.network.preprocessing.add(featureName="x").scaler.channelScale = 1
    spec = classified(builder, labels)
    network = spec.neuralNetworkClassifier
    assert network.WhichOneof("ClassLabels") == field
    assert list(getattr(network, field).vector) == list(labels)
    assert network.labelProbabilityLayerName == "chances"
    assert network.layers == builder.network.layers
    assert network.preprocessing == builder.network.preprocessing
    assert network.arrayInputShapeMapping == nn.EXACT_ARRAY_MAPPING
    assert network.imageInputShapeMapping == nn.RANK4_IMAGE_MAPPING
    chances, label, extra = spec.description.output
    assert (chances.name, label.name, extra.name) == ("chances", "classLabel", "extra")
    assert chances.type.dictionaryType.WhichOneof("KeyType") == key
    assert label.type.WhichOneof("Type") == label_type
    assert spec.description.predictedFeatureName == "classLabel"
    assert spec.description.predictedProbabilitiesName == "chances"


def test_names_of_a_classifier(builder: Builder) -> None:
    names = {"predicted_feature_name": "animal", "predicted_probabilities_name": "p"}
    spec = classified(builder, ["cat"], **names)
    assert [each.name for each in spec.description.output] == ["p", "animal", "extra"]
    assert spec.description.predictedFeatureName == "animal"
    assert spec.description.predictedProbabilitiesName == "p"
    assert spec.neuralNetworkClassifier.labelProbabilityLayerName == "chances"


def test_classifier_of_an_unknown_blob(builder: Builder) -> None:
    relu(builder, "x", "chances")
    with pytest.raises(SpecError, match=r"'chance' for the probabilities\. Did you mean 'chances'"):
        builder.classifier(["cat"], "chance")


def test_classifier_without_labels(builder: Builder) -> None:
    relu(builder, "x", "chances")
    with pytest.raises(SpecError, match="needs class labels"):
        builder.classifier([], "chances")


def branching() -> Builder:
    builder = Builder()
    builder.input("x", (2, 3))
    builder.input("c", (1,))
    builder.layer("activation", "unneeded", ["x"], ["u"], tanh={})
    builder.layer("activation", "before", ["x"], ["h"], ReLU={})
    ways = []
    for kind in ("tanh", "sigmoid"):
        with builder.inside() as network:
            builder.layer("activation", kind, ["h"], [f"{kind}_out"], **{kind: {}})
            builder.layer("copy", f"copy_{kind}", [f"{kind}_out"], ["y"])
        ways.append(network)
    builder.layer("branch", "either", ["c"], [], ifBranch=ways[0], elseBranch=ways[1])
    builder.made_inside("y", (2, 3))
    return builder


def test_networks_inside_keep_their_blobs() -> None:
    builder = branching()
    assert builder.shapes["y"] == (2, 3)
    assert "tanh_out" not in builder.shapes
    assert builder.is_taken("tanh_out")
    assert builder.unused_blob("tanh_out") == "tanh_out_1"
    with pytest.raises(SpecError, match="no layer or input before it makes"):
        builder.layer("activation", "late", ["tanh_out"], ["z"], ReLU={})
    with pytest.raises(SpecError, match="exists already"):
        builder.layer("activation", "late", ["x"], ["tanh_out"], ReLU={})


def test_pruning_and_renaming_look_inside() -> None:
    builder = branching()
    builder.rename_blob("h", "hidden")
    builder.rename_blob("y", "result")
    builder.prune(["result"])
    builder.output("result")
    spec = builder.model()
    assert validate(spec) == []
    before, either = spec.neuralNetwork.layers
    assert list(before.output) == ["hidden"]
    for network in (either.branch.ifBranch, either.branch.elseBranch):
        first, second = network.layers
        assert (list(first.input), list(second.output)) == (["hidden"], ["result"])


def test_a_network_inside_that_is_not_kept_leaves_no_names() -> None:
    builder = Builder()
    builder.input("x", (2,))
    with builder.inside(kept=False):
        builder.layer("activation", "a", ["x"], ["y"], ReLU={})
    builder.layer("activation", "a", ["x"], ["y"], ReLU={})


def test_shapes_for_other_inputs() -> None:
    builder = Builder()
    builder.input("x", (1, 3, None, None))
    builder.layer("pooling", "p", ["x"], ["y"], kernelSize=(2, 2), stride=(2, 2), valid={})
    assert builder.shapes_at({"x": (1, 3, 8, 7)})["y"] == (1, 3, 4, 3)
    with pytest.raises(SpecError, match="does not fit"):
        builder.shapes_at({"x": (1, 3, 8, 1)})


def test_weights_beyond_what_a_file_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum is known before anything is written; what was only tried does not count."""
    monkeypatch.setattr(limits, "MODEL_BYTES", 1100)
    builder = Builder()
    builder.input("x", (1, 4))
    for _ in range(5):
        with builder.inside(kept=False):
            builder.layer("loadConstantND", "c", [], ["c"], shape=(200,), data=np.ones(200))
    kernel = np.ones((25, 4))
    for index, dtype in enumerate(("float32", "float16", "float64", "uint8")):
        builder.layer(
            "innerProduct" if dtype != "uint8" else "custom", f"d{index}", ["x"], [f"y{index}"],
            **({"inputChannels": 4, "outputChannels": 25, "weights": kernel.astype(dtype)}
               if dtype != "uint8" else {"className": "A", "weights": [kernel.astype(dtype)]})
        )  # fmt: skip
    with pytest.raises(LimitError, match=r"has at least 1,500 bytes; .*1,100.*quantize"):
        builder.layer("loadConstantND", "c", [], ["c"], shape=(100,), data=np.ones(100))
