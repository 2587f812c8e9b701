"""An ML Program as boxes and edges; inner blocks and other functions open up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mlferry.errors import MlferryError
from mlferry.models.view.boxes import Box, BoxGraph
from mlferry.models.view.families import operation_brief, operation_family
from mlferry.models.view.stored import WeightDetail
from mlferry.programs.contents import STORED, reads_of
from mlferry.programs.types import TensorType, type_of
from mlferry.spec.proto import mil_pb2 as mil, model_pb2

T = TypeVar("T")

_TITLES = {"cond": ("if true", "else"), "while_loop": ("condition", "body")}
_SHOWN = 24  # elements of a constant
_CONSTANT = frozenset({"const", *STORED})


def draw(
    graph: BoxGraph,
    spec: model_pb2.Model,
    texts: Mapping[tuple[str, str], str],
    details: Mapping[tuple[str, str], WeightDetail],
) -> dict[str, str]:
    """Add the operations of the default function, and a box for every other function.

    Args:
        graph: to which they are added.
        spec: of the program.
        texts: the encodings of compressed constants, by function and name.
        details: facts about the values of constants, likewise.

    Returns:
        the type of each value of the default function.
    """
    program = spec.mlProgram
    default = spec.description.defaultFunctionName or "main"
    labels: dict[str, str] = {}
    if default in program.functions:
        function = program.functions[default]
        block = _block(function)
        labels = _labels(function, block, {})
        _operations(graph, block, labels, _Constants(_of(default, texts), _of(default, details)))
    for name in sorted(program.functions):
        if name != default:
            function = program.functions[name]
            constants = _Constants(_of(name, texts), _of(name, details))
            graph.add(_function(name, function, constants), [], [])
    return labels


@dataclass(frozen=True)
class _Constants:
    """Facts about the constants of a function, by name."""

    stored_forms: Mapping[str, str]
    details: Mapping[str, WeightDetail]


def _of(function: str, texts: Mapping[tuple[str, str], T]) -> dict[str, T]:
    """Facts about the constants of a function."""
    return {name: text for (where, name), text in texts.items() if where == function}


def _block(function: mil.Function) -> mil.Block:
    """The block of the function's opset; an empty one if it is missing, which is a problem."""
    if function.opset in function.block_specializations:
        return function.block_specializations[function.opset]
    return mil.Block()


def _function(name: str, function: mil.Function, constants: _Constants) -> Box:
    block = _block(function)
    labels = _labels(function, block, {})
    inside = BoxGraph()
    for each in function.inputs:
        label = labels[each.name]
        inside.add(
            Box(each.name, "input", [("type", label)], role="input"), [], [(each.name, label)]
        )
    _operations(inside, block, labels, constants)
    for output in block.outputs:
        label = labels.get(output, "?")
        inside.add(Box(output, "output", [("type", label)], role="output"), [(output, label)], [])
    return Box(name, "function", [("opset", function.opset)], inside=[(name, inside)])


def _labels(
    function: mil.Function | None, block: mil.Block, outside: Mapping[str, str]
) -> dict[str, str]:
    inputs = [*(function.inputs if function is not None else ()), *block.inputs]
    outputs = [each for operation in block.operations for each in operation.outputs]
    return {**outside, **{each.name: _type(each.type) for each in (*inputs, *outputs)}}


def _type(message: mil.ValueType) -> str:
    try:
        return str(type_of(message))
    except MlferryError:
        return "?"


def _operations(
    graph: BoxGraph, block: mil.Block, labels: Mapping[str, str], known: _Constants
) -> None:
    """The operations that compute something; constants are rows of those that read them."""
    constants: dict[str, str] = {}
    for operation in block.operations:
        if operation.type in _CONSTANT:
            for output in operation.outputs:
                label = labels.get(output.name, "?")
                constants[output.name] = (
                    f"{label}: {known.stored_forms[output.name]}"
                    if output.name in known.stored_forms
                    else _constant(operation, label, constants)
                )
            continue
        rows = list(_rows(operation, constants))
        name = operation.outputs[0].name if operation.outputs else ""
        box = Box(name, operation.type, rows, family=operation_family(operation.type))
        _weigh(box, operation, known, labels)
        for title, inner in zip(_TITLES.get(operation.type, ()), operation.blocks, strict=False):
            box.inside.append((title, _inner(inner, labels, known)))
        reads = [operand for operand in reads_of(operation) if operand not in constants]
        graph.add(
            box,
            [(operand, labels.get(operand, "?")) for operand in reads],
            [(each.name, labels.get(each.name, "?")) for each in operation.outputs],
        )


def _weigh(
    box: Box, operation: mil.Operation, constants: _Constants, labels: Mapping[str, str]
) -> None:
    """The facts about the weights of a box; the largest and the main attribute are shown in it."""
    box.weights = [
        (parameter, constants.details[binding.name])
        for parameter in sorted(operation.inputs)
        for binding in operation.inputs[parameter].arguments
        if binding.name in constants.details
    ]
    shapes = {name: detail.shape for name, detail in box.weights}
    kernel = shapes.get("weight", ()) if operation.type.startswith("conv") else ()
    box.write_brief(operation_brief(dict(box.rows), frozenset(labels), kernel))


def _inner(block: mil.Block, outside: Mapping[str, str], constants: _Constants) -> BoxGraph:
    """The inside of a branch or loop; values from outside are its inputs."""
    labels = _labels(None, block, outside)
    graph = BoxGraph()
    for each in block.inputs:
        label = labels[each.name]
        graph.add(
            Box(each.name, "carried", [("type", label)], role="input"), [], [(each.name, label)]
        )
    inside = {each.name for operation in block.operations for each in operation.outputs}
    for operation in block.operations:
        for operand in reads_of(operation):
            if operand not in inside and operand not in graph.makers:
                label = labels.get(operand, "?")
                box = Box(operand, "from outside", [("type", label)], role="input")
                graph.add(box, [], [(operand, label)])
    _operations(graph, block, labels, constants)
    for output in block.outputs:
        label = labels.get(output, "?")
        graph.add(Box(output, "result", [("type", label)], role="output"), [(output, label)], [])
    return graph


def _rows(operation: mil.Operation, constants: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for parameter in sorted(operation.inputs):
        texts = [
            constants.get(binding.name, binding.name)
            if binding.WhichOneof("binding") == "name"
            else _value(binding.value)
            for binding in operation.inputs[parameter].arguments
        ]
        yield parameter, ", ".join(texts)
    for attribute in sorted(operation.attributes):
        if attribute != "name":
            yield attribute, _value(operation.attributes[attribute])


def _constant(operation: mil.Operation, label: str, constants: Mapping[str, str]) -> str:
    """A constant as text: its value if it is short, otherwise its encoding."""
    rows = dict(_rows(operation, constants))
    if operation.type == "const":
        return rows.get("val", label)
    row = rows.get(STORED[operation.type], "?")
    return f"{label}: {operation.type} of {row}"


def _value(value: mil.Value) -> str:
    kind = _type(value.type)
    if value.WhichOneof("value") == "blobFileValue":
        return f"{kind}, in {value.blobFileValue.fileName.rsplit('/', 1)[-1]}"
    tensor = value.immediateValue.tensor
    if value.type.WhichOneof("type") != "tensorType" or tensor.WhichOneof("value") is None:
        return kind
    which = tensor.WhichOneof("value")
    if which == "bytes":
        if not kind.startswith("fp16"):
            return kind
        elements = np.frombuffer(tensor.bytes.values, "<f2").astype(float).tolist()
    else:
        elements = list(getattr(tensor, which).values)
    text = ", ".join(f"{e:g}" if isinstance(e, float) else str(e) for e in elements[:_SHOWN])
    more = f", ... ({len(elements)})" if len(elements) > _SHOWN else ""
    scalar = isinstance(type_of(value.type), TensorType) and len(elements) == 1
    return f"{text}{more}" if scalar else f"{kind}: {text}{more}"
