"""One broken model for every rule: what is found, how severe, where, and in which words."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from mlferry.layers.builder import LAYER_KINDS
from mlferry.layers.definitions import (
    DEFINITIONS,
    LAYER_RULES,
    MANY,
    WEIGHTS,
    definition_of,
    rules_of,
)
from mlferry.layers.validate import validate
from mlferry.layers.validate.rules import FEATURE_RULES, MODEL_RULES, Feature
from mlferry.spec import features, io, networks, weights
from mlferry.spec.problems import Problem
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn
from mlferry.spec.reflection import is_map, is_repeated
from tests.layers import broken_predictors, broken_training, broken_transforms
from tests.layers.broken_layers import LAYER_CASES, MORE_SANE, SANE_PARAMS, WITH_INPUTS, layer_model
from tests.layers.broken_models import ARRAY, CASES, LAYER, OUTPUT, SANE, Case, on, plain, put

Model = model_pb2.Model
OUTSIDE_OF_LOOPS = ("loopBreak", "loopContinue")


ALL_SANE = {
    **SANE,
    **broken_training.SANE,
    **broken_predictors.SANE,
    **broken_transforms.SANE,
}


@pytest.mark.parametrize("name", ALL_SANE)
def test_sane_models_have_no_problems(name: str) -> None:
    assert validate(ALL_SANE[name]()) == []


ALL = [*CASES, *broken_training.CASES, *broken_predictors.CASES, *broken_transforms.CASES]


@pytest.mark.parametrize("case", ALL, ids=[case[0] for case in ALL])
def test_broken_model(case: Case) -> None:
    _, make, severity, where, text = case
    problems = validate(make())
    result = [p for p in problems if p.severity == severity and p.where == where]
    assert any(text in problem.message for problem in result), [*map(repr, problems)]


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


def at_the_layer(spec: Model) -> list[Problem]:
    layer = spec.neuralNetwork.layers[0]
    return [p for p in validate(spec) if p.where == f"{layer.WhichOneof('layer')} 'it'"]


@pytest.mark.parametrize("kind", [kind for kind in LAYER_KINDS if kind not in OUTSIDE_OF_LOOPS])
def test_a_sane_layer_of_every_kind(kind: str) -> None:
    spec = layer_model(kind, SANE_PARAMS.get(kind, {}))
    layer = spec.neuralNetwork.layers[0]
    if kind == "rankPreservingReshape":
        spec.description.input[0].type.multiArrayType.shape[:] = [1, 1]
        layer.inputTensor.add(rank=2)
        layer.outputTensor.add(rank=2)
    assert validate(spec) == []


@pytest.mark.parametrize(
    ("name", "kind", "params", "inputs"), MORE_SANE, ids=[row[0] for row in MORE_SANE]
)
def test_other_sane_layers(name: str, kind: str, params: dict[str, Any], inputs: int) -> None:
    assert validate(layer_model(kind, params, inputs)) == []


@pytest.mark.parametrize(
    ("kind", "params", "severity", "text"),
    LAYER_CASES,
    ids=[f"{kind}: {text[:40]}" for kind, _, _, text in LAYER_CASES],
)
def test_broken_layer(kind: str, params: dict[str, Any], severity: str, text: str) -> None:
    problems = at_the_layer(layer_model(kind, params))
    result = [problem for problem in problems if problem.severity == severity]
    assert any(text in problem.message for problem in result), [*map(repr, problems)]


@pytest.mark.parametrize("row", WITH_INPUTS, ids=[row[0] for row in WITH_INPUTS])
def test_broken_layer_with_more_inputs(
    row: tuple[str, str, dict[str, Any], int, str, str],
) -> None:
    _, kind, params, inputs, severity, text = row
    problems = at_the_layer(layer_model(kind, params, inputs))
    result = [problem for problem in problems if problem.severity == severity]
    assert any(text in problem.message for problem in result), [*map(repr, problems)]


def test_copy_to_itself() -> None:
    spec = layer_model("copy", {})
    spec.neuralNetwork.layers[0].output[0] = "x0"
    matches = [(problem.severity, problem.message) for problem in at_the_layer(spec)]
    assert matches == [("warning", "it copies [x0] to itself")]


@pytest.mark.parametrize(
    ("ranks", "extents", "text"),
    [([1, 1], [], "inputTensor has 2 entries for 1 blobs"),
     ([5], [1, 2, 3], "inputTensor has rank 5 and 3 extents")],
)  # fmt: skip
def test_ranks_that_do_not_fit(ranks: list[int], extents: list[int], text: str) -> None:
    spec = layer_model("round", {})
    for rank in ranks:
        spec.neuralNetwork.layers[0].inputTensor.add(rank=rank, dimValue=extents)
    (problem,) = at_the_layer(spec)
    assert (problem.severity, problem.message) == ("warning", text)


# What layers tell of blobs; the description tells rank 5 of x0.
TOLD: list[tuple[str, dict[str, Any], list[int], list[int], str]] = [
    ("round", {}, [4], [], "inputTensor tells rank 4 of 'x0', the description of input 'x0' 5"),
    ("round", {}, [], [4], "it makes 'y0' of rank 5, round 'it' 4"),
    ("rangeStatic", {"endValue": 3}, [], [2], "it makes 'y0' of rank 1, rangeStatic 'it' 2"),
    ("squeeze", {"axes": [0]}, [], [5], "it makes 'y0' of rank 4, squeeze 'it' 5"),
    ("reshape", {"targetShape": [1, 1, 1]}, [], [3], "it makes 'y0' of rank 5"),
]


def told(kind: str, params: dict[str, Any], taken: list[int], result: list[int]) -> Model:
    spec = layer_model(kind, params)
    for target, ranks in (("inputTensor", taken), ("outputTensor", result)):
        for rank in ranks:
            getattr(spec.neuralNetwork.layers[0], target).add(rank=rank)
    return spec


@pytest.mark.parametrize("row", TOLD, ids=[f"{row[0]}: {row[-1]}" for row in TOLD])
def test_ranks_that_are_told_wrongly(row: Any) -> None:
    matches = [(problem.severity, problem.message) for problem in at_the_layer(told(*row[:-1]))]
    assert [severity for severity, _ in matches] == ["warning"]
    assert row[-1] in matches[0][1]


@pytest.mark.parametrize(
    ("kind", "rank", "text"),
    [("dot", 3, "vectors (?, ?, ?) and (?, ?, ?, ?, ?) differ in their number of axes"),
     ("innerProduct", 6, "may have 5 axes at most"), ("embeddingND", 6, "may have 5 axes"),
     ("permute", 4, "axes"), ("pooling3d", 4, "axes"), ("concat", 4, "of different ranks")],
)  # fmt: skip
def test_described_ranks_that_the_kind_does_not_take(kind: str, rank: int, text: str) -> None:
    spec = layer_model(kind, SANE_PARAMS.get(kind, {}))
    spec.description.input[0].type.multiArrayType.shape[:] = [1] * rank
    matches = [(problem.severity, problem.message) for problem in at_the_layer(spec)]
    assert [severity for severity, _ in matches] == ["warning"]
    assert text in matches[0][1]


def test_a_described_output_that_no_input_gives() -> None:
    """Where the rank of the input is unknown, as behind a custom layer."""
    spec = layer_model("convolution", SANE_PARAMS["convolution"])
    spec.neuralNetwork.layers[0].input[0] = "unknown"
    custom = nn.NeuralNetworkLayer(name="odd", input=["x0"], output=["unknown"])
    custom.custom.className = "Odd"
    rest = [custom, *spec.neuralNetwork.layers]
    del spec.neuralNetwork.layers[:]
    spec.neuralNetwork.layers.extend(rest)
    spec.description.output.add(name="y0").type.CopyFrom(features.multi_array((2, 4, 4)))
    messages = [problem.message for problem in validate(spec) if "'it'" in problem.where]
    assert messages == [
        "no input gives 'y0' the rank 3, which the description of output 'y0' tells"
    ]
    spec.description.output[1].type.multiArrayType.shape[:] = [1, 2, 4, 4]
    assert [problem for problem in validate(spec) if "'it'" in problem.where] == []


@pytest.mark.parametrize(
    ("kind", "params", "rank", "text"),
    [("softmaxND", {"axis": 3}, 2, "axis 3"), ("round", {}, 2**31 - 1, "blobs have few axes"),
     ("uniDirectionalLSTM", None, 3, "needs 5 axes"), ("convolution", None, 3, "axes"),
     ("round", {}, 2, "another layer says")],
)  # fmt: skip
def test_ranks_that_the_kind_does_not_take(
    kind: str, params: dict[str, Any] | None, rank: int, text: str
) -> None:
    """Of a blob that a custom layer makes, so that nothing else is known of it."""
    spec = layer_model(kind, SANE_PARAMS[kind] if params is None else params)
    network = spec.neuralNetwork
    layer = network.layers[0]
    layer.input[0] = "of the custom layer"
    for _ in layer.input:
        layer.inputTensor.add(rank=5)
    layer.inputTensor[0].rank = rank
    custom = nn.NeuralNetworkLayer(name="odd", input=["x0"], output=["of the custom layer"])
    custom.custom.className = "Odd"
    if text.startswith("another"):
        custom.outputTensor.add(rank=rank + 1)
        text = "inputTensor tells rank 2 of 'of the custom layer', custom 'odd' 3"
    layers = [custom, *network.layers]
    del network.layers[:]
    network.layers.extend(layers)
    at_it = f"{kind} 'it'"
    problems = [p.message for p in validate(spec) if (p.severity, p.where) == ("warning", at_it)]
    assert any(text in message for message in problems), problems


def test_layer_normalization_has_no_quantization() -> None:
    spec = layer_model("layerNormalization", SANE_PARAMS["layerNormalization"])
    spec.neuralNetwork.layers[0].layerNormalization.gamma.quantization.SetInParent()
    assert ("warning", "gamma has a quantization; the format allows none here") in [
        (problem.severity, problem.message) for problem in at_the_layer(spec)
    ]


# ---- numbers of inputs and outputs -------------------------------------------------------------


def test_every_kind_has_its_numbers_of_inputs_and_outputs() -> None:
    assert set(DEFINITIONS) == set(LAYER_KINDS)


def counts() -> Iterator[tuple[str, str, int, str]]:
    for kind in DEFINITIONS:
        definition = definition_of(kind)
        inputs, outputs = definition.inputs, definition.outputs
        low, high = definition.evaluated
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
    yield from (case[1]() for case in ALL)
    yield from (layer_model(kind, params) for kind, params, _, _ in LAYER_CASES)
    yield from (layer_model(row[1], row[2], row[3]) for row in WITH_INPUTS)
    yield layer_model("round", {}, 3, 0)
    halves = layer_model("layerNormalization", SANE_PARAMS["layerNormalization"])
    halves.neuralNetwork.layers[0].layerNormalization.gamma.quantization.SetInParent()
    yield halves
    yield from (told(*row[:-1]) for row in TOLD)
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
            params = getattr(layer, kind)
            yield from (rule for rule in rules_of(kind) if any(rule(layer, params)))


def test_every_rule_is_broken_by_some_model() -> None:
    broken = {rule for spec in every_broken_model() for rule in broken_rules(spec)}
    rules = {*MODEL_RULES}
    for family in (*FEATURE_RULES.values(), *LAYER_RULES.values()):
        rules.update(family)
    assert {rule.__name__ for rule in rules - broken} == set()
    families = (*FEATURE_RULES.values(), *LAYER_RULES.values())
    told = len(MODEL_RULES) + sum(map(len, families))  # a rule counts once for each kind it is of
    kinds = [definition_of(kind) for kind in DEFINITIONS]  # and what they say as data once
    told += sum(len(kind.lists) + bool(kind.positive or kind.positive_alone) for kind in kinds)
    assert told + len(WEIGHTS) >= 155
    assert len(list(every_broken_model())) >= told


@pytest.mark.parametrize("row", LAYER_CASES, ids=[f"{row[0]}: {row[3]}" for row in LAYER_CASES])
def test_problems_name_the_layer_and_what_was_found(row: Any) -> None:
    """Kind and name of the layer; what is wrong is looked for by the text of the row."""
    kind, params, _, text = row
    problems = [p for p in validate(layer_model(kind, params)) if text in p.message]
    assert problems
    for problem in problems:
        assert problem.where.startswith(f"{kind} 'it'")


def test_every_kind_with_weights_tells_which_it_needs() -> None:
    layer = nn.NeuralNetworkLayer()
    for kind in LAYER_KINDS:
        params = getattr(layer, kind)
        params.SetInParent()
        own = any(
            field.message_type is not None and "Weight" in field.message_type.name
            for field in params.DESCRIPTOR.fields
        )
        assert (kind in WEIGHTS) == ((own and kind != "custom") or kind == "activation"), kind


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
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes(source.randint(0, 9))
    return source.choice(
        {
            FieldDescriptor.CPPTYPE_STRING: NAMES,
            FieldDescriptor.CPPTYPE_BOOL: [True, False],
            FieldDescriptor.CPPTYPE_ENUM: [0, 1, 2, 10, 65568, -1, 2**31 - 1],
            FieldDescriptor.CPPTYPE_FLOAT: [0, 1, -1, 1e30, float("nan"), float("inf")],
            FieldDescriptor.CPPTYPE_DOUBLE: [0, 1, -1, 1e300, float("nan"), float("-inf")],
            FieldDescriptor.CPPTYPE_UINT64: [0, 1, 2, 3, 8, 2**64 - 1],
            FieldDescriptor.CPPTYPE_INT64: [0, 1, 3, -1, -(2**63), 2**63 - 1],
            FieldDescriptor.CPPTYPE_UINT32: [0, 1, 2**32 - 1],
            FieldDescriptor.CPPTYPE_INT32: [0, 1, 4, -1, -(2**31), 2**31 - 1],
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
    for kind in WEIGHTS:
        assert validate(layer_model(kind, SANE_PARAMS[kind])) == []


def test_features_keep_their_model() -> None:
    spec = plain()
    feature = Feature("x", ft.FeatureType(), True, spec)
    assert feature.misfit("text") == Problem("error", "", "text")
    assert Feature("y", ft.FeatureType(), False, spec).misfit("text").severity == "warning"
