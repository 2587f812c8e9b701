"""All problems of an ML Program, at once.

Compares the file with the definitions of its opset (operations, parameters, types, names), and the
inputs and outputs of the program with the model's description.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from mlferry.errors import MlferryError
from mlferry.programs.definitions import (
    OPSETS,
    Definition,
    Operand,
    Operands,
    UnknownRankError,
    definition_of,
)
from mlferry.programs.operands import default_operand, misfits, mixtures
from mlferry.programs.rename import NAME
from mlferry.programs.types import (
    DictionaryType,
    ListType,
    StateType,
    TensorType,
    ValueType,
    compatible,
    type_of,
)
from mlferry.programs.values import Weights, check_value, value_of
from mlferry.spec.problems import Problem, Problems, error, listed, warning, within
from mlferry.spec.proto import features_pb2 as ft, mil_pb2 as mil, model_pb2

Ends = model_pb2.ModelDescription | model_pb2.FunctionDescription

_SMALL = 4096  # the most elements of constants that are examined
_DEEPEST = 50  # blocks in blocks
_ENDS = {
    ft.ArrayFeatureType.FLOAT32: "fp32",
    ft.ArrayFeatureType.FLOAT16: "fp16",
    ft.ArrayFeatureType.INT32: "int32",
    ft.ArrayFeatureType.INT8: "int8",
    ft.ArrayFeatureType.DOUBLE: "fp64",
}


def validate_program(spec: model_pb2.Model, weights: Weights) -> list[Problem]:
    """Every problem of a model's program; none for a model of another kind.

    Args:
        weights: the files of its constants.
    """
    if spec.WhichOneof("Type") != "mlProgram":
        return []
    return list(_program(spec, weights))


def _program(spec: model_pb2.Model, weights: Weights) -> Problems:
    program = spec.mlProgram
    if not program.functions:
        yield error("it has no functions", "program")
    described = _descriptions(spec)
    functions = [each.name for each in spec.description.functions]
    for name in sorted({name for name in functions if functions.count(name) > 1}):
        yield error(f"the function {name!r} is described twice", "program")
    default = spec.description.defaultFunctionName
    if functions and default not in functions:
        yield error(f"the default function {default!r} is not described", "program")
    for name in sorted(described.keys() - set(program.functions)):
        yield error(f"the function {name!r} is described, and not there", "program")
    for name in sorted(program.functions):
        function = program.functions[name]
        yield from within(f"function {name!r}", _function(function, weights))
        opset = OPSETS.get(function.opset)
        if opset is not None and spec.specificationVersion < opset + 1:
            yield error(
                f"the opset {function.opset} needs version {opset + 1}; the model has version "
                f"{spec.specificationVersion}",
                f"function {name!r}",
            )
        if name in described:
            yield from within(f"function {name!r}", _ends(function, described[name]))


def _descriptions(spec: model_pb2.Model) -> dict[str, Ends]:
    """The description of each function: its inputs, outputs and states."""
    description = spec.description
    if description.functions:
        return {each.name: each for each in description.functions}
    return {"main": description}


# ---- the ends ------------------------------------------------------------------------------------


def _ends(function: mil.Function, described: Ends) -> Problems:
    block = function.block_specializations.get(function.opset)
    inputs = {value.name: value for value in function.inputs}
    states = {feature.name for feature in described.state}
    yield from _apart(described, states)
    for feature in (*described.input, *described.state):
        value = inputs.get(feature.name)
        if value is None:
            yield error(f"the function has no input {feature.name!r}, which is described")
            continue
        try:
            kind = type_of(value.type)
        except MlferryError:
            continue  # reported where the inputs are checked
        yield from within(f"input {feature.name!r}", _end(kind, feature.type))
    described_names = {feature.name for feature in described.input} | states
    for name in sorted(set(inputs) - described_names):
        yield error(f"its input {name!r} is not described")
    types = _types_of(block) if block is not None else {}
    outputs = set(block.outputs) if block is not None else set()
    for feature in described.output:
        if feature.name not in outputs:
            yield error(f"the function does not give {feature.name!r}, which is described")
        elif feature.name in types:
            yield from within(f"output {feature.name!r}", _end(types[feature.name], feature.type))
    shown = {feature.name for feature in described.output}
    for name in sorted(outputs - shown):
        yield warning(f"its output {name!r} is not described")
    for field_name in ("predictedFeatureName", "predictedProbabilitiesName"):
        name = getattr(described, field_name)
        if name and name not in shown:
            yield warning(f"{field_name} {name!r} is no output")


def _apart(described: Ends, states: set[str]) -> Problems:
    """Inputs and states are described separately."""
    for feature in described.input:
        if feature.type.WhichOneof("Type") == "stateType" or feature.name in states:
            yield error(f"the state {feature.name!r} is described among the inputs")
    for feature in described.state:
        if feature.type.WhichOneof("Type") != "stateType":
            yield error(f"{feature.name!r} is described among the states, and not as one")


def _types_of(block: mil.Block) -> dict[str, ValueType]:
    types = {}
    for operation in block.operations:
        for value in operation.outputs:
            try:
                types[value.name] = type_of(value.type)
            except MlferryError:
                continue  # reported where the operation is checked
    return types


def _end(kind: ValueType, feature: ft.FeatureType) -> Problems:
    """The differences between a value of the program and its description."""
    form = feature.WhichOneof("Type")
    if form == "multiArrayType":
        yield from _array_end(kind, feature.multiArrayType)
    elif form == "imageType":
        yield from _image_end(kind, feature.imageType)
    elif form == "stateType":
        wrapped = kind.wrapped if isinstance(kind, StateType) else None
        if wrapped is None:
            yield error(f"it is described as a state, and is {kind}")
        else:
            yield from _array_end(wrapped, feature.stateType.arrayType)
    elif form == "dictionaryType":
        keys = feature.dictionaryType.WhichOneof("KeyType")
        key_dtype = {"stringKeyType": "string", "int64KeyType": "int64"}.get(keys or "", "")
        if not isinstance(kind, DictionaryType):
            yield error(f"it is described as a dictionary, and is {kind}")
        elif not isinstance(kind.key, TensorType) or kind.key.dtype != key_dtype:
            yield error(
                f"it is described as a dictionary of {key_dtype or 'nothing'}, and is {kind}"
            )
    elif form in ("stringType", "int64Type", "doubleType"):
        dtypes = {"stringType": ("string",), "int64Type": ("int64", "int32")}.get(
            form, ("fp32", "fp64", "fp16")
        )
        single = isinstance(kind, TensorType) and kind.shape in ((), (1,), None)
        if not isinstance(kind, TensorType) or kind.dtype not in dtypes or not single:
            yield error(f"it is described as {form.removesuffix('Type')}, and is {kind}")
    else:
        yield error(f"it is described as {form}, which no program has")


def _array_end(kind: ValueType, array: ft.ArrayFeatureType) -> Problems:
    if not isinstance(kind, TensorType):
        yield error(f"it is described as a multi-array, and is {kind}")
        return
    dtype = _ENDS.get(array.dataType)
    if dtype != kind.dtype:
        yield error(f"it is described as {dtype}, and is {kind}")
    if kind.shape is None:
        return
    extents = kind.shape or (1,)
    shapes = [tuple(each.shape) for each in array.enumeratedShapes.shapes]
    if array.shape:
        shapes.insert(0, tuple(array.shape))
    for shape in shapes:
        if len(shape) != len(extents) or any(
            a != b for a, b in zip(shape, extents, strict=True) if b is not None
        ):
            yield error(f"it is described with the shape {listed(shape)}, and is {kind}")
            return
    ranges = array.shapeRange.sizeRanges
    for axis, (span, extent) in enumerate(zip(ranges, extents, strict=False)):
        low, high = span.lowerBound, span.upperBound
        if extent is not None and (low, high) != (extent, extent):
            text = "any size" if high < 0 else str(high)
            yield error(f"axis {axis} is described as {low} to {text}, and is {kind}")
    if array.shape and None in extents and array.WhichOneof("ShapeFlexibility") is None:
        yield error(f"it is described with one shape, and is {kind}")


def _image_end(kind: ValueType, image: ft.ImageFeatureType) -> Problems:
    grey = image.colorSpace in (
        ft.ImageFeatureType.GRAYSCALE,
        ft.ImageFeatureType.GRAYSCALE_FLOAT16,
    )
    channels = 1 if grey else 3
    if not isinstance(kind, TensorType) or kind.shape is None or len(kind.shape) != 4:
        yield error(f"it is described as an image, and is {kind}; [1, C, H, W] is needed")
        return
    expected = (1, channels, image.height, image.width)
    pairs = zip(kind.shape, expected, strict=True)
    if any(a not in (b, None) for a, b in pairs) or kind.dtype not in ("fp32", "fp16"):
        yield error(f"it is described as an image of {listed(expected)}, and is {kind}")


# ---- functions and blocks ------------------------------------------------------------------------


@dataclass
class _Scope:
    """The context of a block.

    Attributes:
        opset: of the function.
        weights: the files of constants.
        values: operands by name, including those around the block.
        names: every name that is defined here or around the block.
        deep: the number of blocks around it.
    """

    opset: int
    weights: Weights
    values: dict[str, Operand]
    names: set[str] = field(default_factory=set)
    deep: int = 0

    def inside(self) -> _Scope:
        """The context of a block inside this one."""
        return _Scope(self.opset, self.weights, dict(self.values), set(self.names), self.deep + 1)


def _function(function: mil.Function, weights: Weights) -> Problems:
    opset = OPSETS.get(function.opset)
    if opset is None:
        yield error(f"the opset {function.opset!r} is not known; known are {', '.join(OPSETS)}")
        return
    block = function.block_specializations.get(function.opset)
    if block is None:
        yield error(f"it has no block for its opset {function.opset}")
        return
    scope = _Scope(opset, weights, {})
    for value in function.inputs:
        yield from _named(value, scope)
    if block.inputs:
        yield error("the block of a function has no inputs of its own")
    yield from _block(block, scope)


def _named(value: mil.NamedValueType, scope: _Scope) -> Problems:
    """A name is defined once, and is valid in the language."""
    if not NAME.fullmatch(value.name):
        yield error(f"{value.name!r} is no name: letters, digits, _ and @, no digit in front")
    if value.name in scope.names:
        yield error(f"the name {value.name!r} is given twice")
    scope.names.add(value.name)
    try:
        scope.values[value.name] = Operand(type_of(value.type))
    except MlferryError as problem:
        yield error(f"the type of {value.name!r}: {problem}")


def _block(block: mil.Block, scope: _Scope) -> Problems:
    if scope.deep > _DEEPEST:
        yield error(f"blocks are nested in more than {_DEEPEST} levels")
        return
    for operation in block.operations:
        where = f"{operation.type} {_name(operation)!r}"
        yield from within(where, _operation(operation, scope))
    for name in block.outputs:
        if name not in scope.values:
            yield error(f"it gives {name!r}, which nothing makes")


def _name(operation: mil.Operation) -> str:
    return operation.outputs[0].name if operation.outputs else ""


def _operation(operation: mil.Operation, scope: _Scope) -> Problems:
    try:
        definition = definition_of(operation.type, scope.opset)
    except MlferryError as problem:
        yield error(str(problem))
        definition = None
    operands: dict[str, Any] = {}
    if definition is not None:
        problems = list(_arguments(operation, definition, scope, operands))
        yield from problems
        blocks: list[tuple[ValueType, ...]] = []
        yield from _blocks(operation, definition, scope, operands, blocks)
        if not any(problem.severity == "error" for problem in problems):
            yield from _types(operation, definition, operands, blocks)
    for value in operation.outputs:
        yield from _named(value, scope)
    yield from _known(operation, scope)
    if "name" in operation.attributes:
        yield from _called(operation.attributes["name"], scope)


def _known(operation: mil.Operation, scope: _Scope) -> Problems:
    """A constant has a value of its type; compressed constants are also known."""
    if operation.type.startswith("constexpr_"):
        for output in operation.outputs:
            if output.name in scope.values:
                scope.values[output.name] = Operand(scope.values[output.name].type, _Large())
    if operation.type != "const":
        return
    value = operation.attributes.get("val")
    if value is None:
        yield error("it has no value")
        return
    if len(operation.outputs) != 1:
        yield error(f"a constant has one output, not {len(operation.outputs)}")
        return
    try:
        kind = type_of(value.type)
        if kind != type_of(operation.outputs[0].type):
            yield error(f"its value is {kind}, its output {type_of(operation.outputs[0].type)}")
        scope.values[operation.outputs[0].name] = _constant(value, scope.weights)
    except MlferryError as problem:
        yield error(str(problem))


def _called(value: mil.Value, scope: _Scope) -> Problems:
    """The name of an operation must be text."""
    try:
        if type_of(value.type) != TensorType("string", ()):
            yield error(f"its attribute 'name' is {type_of(value.type)}, not a text")
            return
        value_of(value, scope.weights)
    except MlferryError as problem:
        yield error(f"its attribute 'name': {problem}")


class _Large:
    """A constant that is known but too large to examine."""


def _constant(value: mil.Value, weights: Weights) -> Operand:
    """A constant with its value, if that is small; that it is stored is checked in any case."""
    kind = type_of(value.type)
    shape = kind.shape if isinstance(kind, TensorType) else ()
    if shape is not None and math.prod(n or 0 for n in shape) > _SMALL:
        check_value(value, weights)
        return Operand(kind, _Large())
    return Operand(kind, value_of(value, weights))


def _arguments(
    operation: mil.Operation, definition: Definition, scope: _Scope, operands: dict[str, Any]
) -> Problems:
    if operation.type == "const":
        return
    parameters = definition.parameters
    by_name: dict[str, list[Operand]] = {}
    yield from _operands_of(operation, scope, by_name)
    for name in sorted(by_name.keys() - parameters.keys()):
        yield error(f"it has no parameter {name!r}; it has {', '.join(parameters)}")
    for name, parameter in parameters.items():
        if name not in by_name:
            if parameter.required:
                yield error(f"the parameter {name!r} is missing")
            operands[name] = default_operand(parameter)
            continue
        given_operands = by_name[name]
        if not given_operands or (len(given_operands) > 1 and not parameter.many):
            yield error(f"{name} has {len(given_operands)} values")
            continue
        yield from map(error, misfits(name, parameter, given_operands, definition))
        operands[name] = given_operands if parameter.many else given_operands[0]
    yield from map(error, mixtures(definition, by_name))


def _operands_of(
    operation: mil.Operation, scope: _Scope, by_name: dict[str, list[Operand]]
) -> Problems:
    """The arguments of an operation: earlier values, and constants."""
    for name, argument in sorted(operation.inputs.items(), key=itemgetter(0)):
        by_name[name] = []
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "name" and binding.name in scope.values:
                by_name[name].append(scope.values[binding.name])
            elif binding.WhichOneof("binding") == "name":
                yield error(f"{name} is {binding.name!r}, which nothing before it makes")
            else:
                yield from _literal(name, binding.value, scope, by_name)
    for name, value in sorted(operation.attributes.items(), key=itemgetter(0)):
        if name != "name":
            yield from _literal(name, value, scope, by_name)


def _literal(
    name: str, value: mil.Value, scope: _Scope, by_name: dict[str, list[Operand]]
) -> Problems:
    try:
        by_name.setdefault(name, []).append(_constant(value, scope.weights))
    except MlferryError as problem:
        yield error(f"{name}: {problem}")


def _blocks(
    operation: mil.Operation,
    definition: Definition,
    scope: _Scope,
    operands: dict[str, Any],
    types: list[tuple[ValueType, ...]],
) -> Problems:
    if len(operation.blocks) != definition.blocks:
        yield error(f"it has {len(operation.blocks)} blocks; {definition.blocks} are needed")
        return
    carried = operands.get("loop_vars")
    for index, block in enumerate(operation.blocks):
        inside = scope.inside()
        where = f"block {index}"
        for value in block.inputs:
            yield from within(where, _named(value, inside))
        count = 0 if carried is None else len(carried)
        if len(block.inputs) != count:
            yield error(f"it takes {len(block.inputs)} values; {count} are given", where)
        for value, operand in zip(block.inputs, carried or (), strict=False):
            input = inside.values.get(value.name)
            if input is not None and not _agree(input.type, operand.type):
                yield error(
                    f"{where} takes {input.type} for {value.name!r}, and is given {operand.type}"
                )
        yield from within(where, _block(block, inside))
        outputs = [inside.values[name].type for name in block.outputs if name in inside.values]
        types.append(tuple(outputs))
    if operation.type == "while_loop" and types and not _is_flag(types[0]):
        yield error(f"block 0 tells whether to go on, and gives {', '.join(map(str, types[0]))}")


def _is_flag(types: tuple[ValueType, ...]) -> bool:
    return types in ((TensorType("bool", ()),), (TensorType("bool", (1,)),))


def _types(
    operation: mil.Operation,
    definition: Definition,
    operands: dict[str, Any],
    blocks: list[tuple[ValueType, ...]],
) -> Problems:
    """The types of the results are those that the file declares."""
    if operation.type == "const":
        return
    if any(isinstance(o, Operand) and isinstance(o.value, _Large) for o in operands.values()):
        operands = {
            name: Operand(o.type) if isinstance(o, Operand) and isinstance(o.value, _Large) else o
            for name, o in operands.items()
        }
    try:
        inferred = definition.rule(Operands(operands, blocks))
    except UnknownRankError:
        return
    except MlferryError as problem:
        yield error(str(problem))
        return
    except Exception as problem:
        yield error(f"its parameters do not fit together: {problem!r:.200}")
        return
    types = inferred if isinstance(inferred, tuple) else (inferred,)
    if len(types) != len(operation.outputs):
        yield error(f"it has {len(operation.outputs)} outputs; it makes {len(types)}")
        return
    for value, kind in zip(operation.outputs, types, strict=True):
        try:
            described = type_of(value.type)
        except MlferryError:
            continue  # reported where the name is defined
        if not _agree(described, kind):
            yield error(f"its output {value.name!r} is described as {described}; it is {kind}")


def _agree(described: ValueType, inferred: ValueType) -> bool:
    if isinstance(described, TensorType) and isinstance(inferred, TensorType):
        return described.dtype == inferred.dtype and compatible(described.shape, inferred.shape)
    if isinstance(described, ListType) and isinstance(inferred, ListType):
        return _agree(described.element, inferred.element)
    if isinstance(described, DictionaryType) and isinstance(inferred, DictionaryType):
        return _agree(described.key, inferred.key) and _agree(described.value, inferred.value)
    return type(described) is type(inferred)
