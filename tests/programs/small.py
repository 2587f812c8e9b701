"""Small programs with everything that a program may have, written here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlferry.spec.proto import features_pb2 as ft, mil_pb2 as mil, model_pb2
from tests.programs import by_hand
from tests.programs.by_hand import block_of, constant, literal, operation, tensor

Model = model_pb2.Model
VECTOR = tensor("fp32", (3, 4))


def plain() -> Model:
    """y = relu(x + w)"""
    return by_hand.model(
        {"x": VECTOR},
        [constant("w", literal("fp32", np.ones((3, 4)))),
         operation("add", {"a": VECTOR}, {"x": "x", "y": "w"}),
         operation("relu", {"y": VECTOR}, {"x": "a"})],
        ["y"],
    )  # fmt: skip


def image() -> Model:
    shape = tensor("fp32", (1, 3, 4, 6))
    spec = by_hand.model({"x": shape}, [operation("relu", {"y": shape}, {"x": "x"})], ["y"], 7)
    for feature in (spec.description.input[0], spec.description.output[0]):
        feature.type.Clear()
        feature.type.imageType.height, feature.type.imageType.width = 4, 6
        feature.type.imageType.colorSpace = ft.ImageFeatureType.RGB
    return spec


def classes(*labels: str) -> mil.Value:
    result = mil.Value()
    result.type.listType.type.CopyFrom(tensor("string"))
    result.type.listType.length.constant.size = len(labels)
    for label in labels:
        result.immediateValue.list.values.add().CopyFrom(literal("string", label))
    result.immediateValue.list.SetInParent()
    return result


def classifier() -> Model:
    shape = tensor("fp32", (2,))
    spec = by_hand.model({"x": shape}, [operation("softmax", {"p": shape}, {"x": "x"})], [])
    both = mil.ValueType()
    both.dictionaryType.keyType.CopyFrom(tensor("string"))
    both.dictionaryType.valueType.CopyFrom(tensor("fp32"))
    both.dictionaryType.valueType.tensorType.dataType = mil.FLOAT64
    block = block_of(spec)
    block.operations.append(
        operation("classify", {"label": tensor("string"), "chances": both},
                  {"probabilities": "p", "classes": classes("cat", "dog")})
    )  # fmt: skip
    block.outputs.extend(["label", "chances"])
    spec.description.output.add(name="label").type.stringType.SetInParent()
    spec.description.output.add(name="chances").type.dictionaryType.stringKeyType.SetInParent()
    spec.description.predictedFeatureName = "label"
    spec.description.predictedProbabilitiesName = "chances"
    return spec


def flexible() -> Model:
    shape = tensor("fp32", (None, 4))
    spec = by_hand.model({"x": shape}, [operation("relu", {"y": shape}, {"x": "x"})], ["y"])
    array = spec.description.input[0].type.multiArrayType
    array.shape[0] = 2
    for low, high in ((1, 8), (4, 4)):
        array.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
    spec.description.output[0].type.multiArrayType.ClearField("shape")
    return spec


def stateful() -> Model:
    shape = tensor("fp16", (2,))
    state = mil.ValueType()
    state.stateType.wrappedType.CopyFrom(shape)
    spec = by_hand.model(
        {"x": shape},
        [operation("read_state", {"old": shape}, {"input": "s"}),
         operation("add", {"y": shape}, {"x": "x", "y": "old"}),
         operation("write_state", {}, {"input": "s", "data": "y"})],
        ["y"], 8,
    )  # fmt: skip
    spec.mlProgram.functions["main"].inputs.add(name="s", type=state)
    described = spec.description.state.add(name="s").type.stateType.arrayType
    described.shape.append(2)
    described.dataType = ft.ArrayFeatureType.FLOAT16
    return spec


def functions() -> Model:
    spec = plain()
    spec.specificationVersion = 9
    main = spec.mlProgram.functions["main"]
    main.opset = "CoreML8"
    main.block_specializations["CoreML8"].CopyFrom(main.block_specializations["CoreML6"])
    del main.block_specializations["CoreML6"]
    spec.mlProgram.functions["other"].CopyFrom(main)
    for name in ("main", "other"):
        described = spec.description.functions.add(name=name)
        described.input.add().CopyFrom(spec.description.input[0])
        described.output.add().CopyFrom(spec.description.output[0])
    spec.description.defaultFunctionName = "main"
    spec.description.ClearField("input")
    spec.description.ClearField("output")
    return spec


def branches() -> Model:
    """y = x where x is large, else relu(x)"""
    scalar = tensor("bool")
    choice = operation("cond", {"y": VECTOR}, {"pred": literal("bool", True)})
    for name in ("b", "c"):
        block = choice.blocks.add()
        block.operations.append(operation("relu", {name: VECTOR}, {"x": "x"}))
        block.outputs.append(name)
    assert scalar.tensorType.rank == 0
    return by_hand.model({"x": VECTOR}, [choice], ["y"])


def loop() -> Model:
    """The input is halved three times."""
    count = tensor("int32")
    result = operation("while_loop", {"n": count, "y": VECTOR})
    for binding in (literal("int32", 0), "x"):
        added = result.inputs["loop_vars"].arguments.add()
        if isinstance(binding, str):
            added.name = binding
        else:
            added.value.CopyFrom(binding)
    test = result.blocks.add()
    body = result.blocks.add()
    for block, names in ((test, ("n1", "x1")), (body, ("n2", "x2"))):
        block.inputs.add(name=names[0], type=count)
        block.inputs.add(name=names[1], type=VECTOR)
    test.operations.append(
        operation("less", {"go": tensor("bool")}, {"x": "n1", "y": literal("int32", 3)})
    )
    test.outputs.append("go")
    body.operations.extend([
        operation("add", {"n3": count}, {"x": "n2", "y": literal("int32", 1)}),
        operation("mul", {"x3": VECTOR}, {"x": "x2", "y": literal("fp32", 0.5)}),
    ])  # fmt: skip
    body.outputs.extend(["n3", "x3"])
    return by_hand.model({"x": VECTOR}, [result], ["y"])


SANE: dict[str, Callable[[], Model]] = {
    "plain": plain, "image": image, "classifier": classifier, "flexible": flexible,
    "stateful": stateful, "functions": functions, "branches": branches, "loop": loop,
}  # fmt: skip
