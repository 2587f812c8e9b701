"""A function of a program as an ONNX model: its inputs, outputs and states."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlferry.errors import ExportError
from mlferry.exporters.onnx import interface
from mlferry.exporters.onnx.program import ProgramTranslation, block_of
from mlferry.onnx_graph.emitter import BOOL, FLOAT, INT32
from mlferry.onnx_graph.graph import Extent, Port, import_onnx
from mlferry.programs.arguments import arguments_of
from mlferry.programs.definitions import OPSETS, definition_of
from mlferry.programs.exports import carrier_of
from mlferry.programs.types import StateType, TensorType, ValueType, type_of
from mlferry.programs.values import Weights, value_of
from mlferry.spec import features
from mlferry.spec.proto import features_pb2 as ft, mil_pb2 as mil, model_pb2

STATES = "mlferry.states"
_CARRIERS = {"float32": FLOAT, "int32": INT32, "bool": BOOL}


@dataclass(frozen=True)
class Asked:
    """How to export a program.

    Attributes:
        input_shapes: extents of axes that vary, by input.
        pixels: whether images are pixels.
        precision: "half" rounds values of float16 where the program does, "exact" does not.
    """

    input_shapes: Mapping[str, Sequence[Extent]]
    pixels: bool
    precision: str


def export_program(
    function: mil.Function,
    described: model_pb2.ModelDescription,
    model: model_pb2.Model,
    weights: Weights,
    options: Asked,
) -> Any:
    """A `ModelProto` that computes what a function computes.

    Args:
        model: the model, whose metadata the graph gets.
        weights: the files of its constants.
        options: how it is written.

    Raises:
        ExportError: an input cannot be expressed. UnsupportedOperationsError: ONNX cannot express
            some operations; all are named.
        MissingDependencyError: the onnx package is not installed.
    """
    import_onnx()
    block = block_of(function)
    states = {
        value.name: f"{value.name}_out"
        for value in function.inputs
        if isinstance(type_of(value.type), StateType)
    }
    names = [f.name for f in (*described.input, *described.output)]
    t = ProgramTranslation(
        function.opset, weights, options.precision, [*names, *states, *states.values()]
    )
    _add_inputs(t, function, described, options)
    t.run(block.operations)
    t.check()
    _add_outputs(t, described, options)
    for name, shown in states.items():
        _add_state(t, name, shown, options)
    texts = interface.texts_of(model.description) | _labels(
        block, function.opset, described, weights
    )
    if states:
        texts[STATES] = json.dumps(states)
    return t.finish().message(texts, "program")


# ---- inputs --------------------------------------------------------------------------------------


def _add_inputs(
    t: ProgramTranslation,
    function: mil.Function,
    described: model_pb2.ModelDescription,
    options: Asked,
) -> None:
    interface.check_shapes(options.input_shapes, [feature.name for feature in described.input])
    kinds = {value.name: type_of(value.type) for value in function.inputs}
    for feature in described.input:
        kind = kinds.get(feature.name)
        if not isinstance(kind, TensorType):
            raise ExportError(
                f"input {feature.name!r} is a {features.show(feature.type)}, which is not an array"
            )
        extents = _extents(feature.name, kind, options.input_shapes.get(feature.name))
        if feature.type.HasField("imageType"):
            value = _image(t, feature, extents, options)
        else:
            value = _array(t, feature, extents)
        value = _carried(t, value, kind)
        fixed = TensorType(kind.dtype, interface.open_shape(extents))
        t.add_input(feature.name, fixed, value)
    for name, kind in kinds.items():
        if isinstance(kind, StateType):
            dtype = _state_dtype(kind, options)
            shape = kind.wrapped.shape if isinstance(kind.wrapped, TensorType) else None
            t.e.graph.inputs.append(Port(name, dtype, shape))
            t.e.shapes[name] = shape
            t.add_input(name, kind, _widened(t, name, dtype, carrier_of(kind)))


def _state_dtype(kind: ValueType, options: Asked) -> str:
    wrapped = kind.wrapped if isinstance(kind, StateType) else kind
    half = isinstance(wrapped, TensorType) and wrapped.dtype == "fp16"
    return "float16" if half and options.precision == "half" else carrier_of(kind)


def _extents(name: str, kind: TensorType, chosen: Sequence[Extent] | None) -> list[Extent]:
    """The shape of an input, with names for extents that vary."""
    if kind.shape is None:
        raise ExportError(f"the rank of the input {name!r} is not known")
    extents = list(kind.shape if chosen is None else chosen)
    fits = len(extents) == len(kind.shape) and all(
        described in (None, extent) for described, extent in zip(kind.shape, extents, strict=True)
    )
    if not fits:
        raise ExportError(
            f"input_shapes gives {name!r} the shape {tuple(extents)}; the program takes {kind}: "
            "only extents that it leaves open can be chosen"
        )
    return interface.named(name, extents)


def _widened(t: ProgramTranslation, value: str, dtype: str, target: str) -> str:
    return value if dtype == target else t.e.node("Cast", value, to=_CARRIERS[target])


def _array(
    t: ProgramTranslation, feature: model_pb2.FeatureDescription, extents: Sequence[Extent]
) -> str:
    dtype = interface.stored_dtype(feature.type)
    shape: list[Extent] = list(extents) or [1]
    t.e.graph.inputs.append(Port(feature.name, dtype, shape))
    t.e.shapes[feature.name] = interface.open_shape(shape)
    if feature.type.isOptional:
        interface.default_value(t.e, feature, feature.name, shape)
    value = _widened(t, feature.name, dtype, "int32" if dtype.startswith("int") else "float32")
    return value if extents else t.e.reshape(value, [])


def _image(
    t: ProgramTranslation,
    feature: model_pb2.FeatureDescription,
    extents: list[Extent],
    options: Asked,
) -> str:
    """[1, C, H, W], or pixels; scale and bias are operations of the program."""
    layout = features.LAYOUTS.get(feature.type.imageType.colorSpace, "RGB")
    if options.pixels:
        return interface.from_pixels(t.e, feature.name, layout, extents[-2:])
    t.e.graph.inputs.append(Port(feature.name, "float32", extents))
    t.e.shapes[feature.name] = interface.open_shape(extents)
    return feature.name


def _carried(t: ProgramTranslation, value: str, kind: TensorType) -> str:
    """Cast a value from its described type to its type in the program."""
    port = t.e.graph.inputs[-1]
    current = "int32" if port.dtype.startswith("int") else "float32"
    value = _widened(t, value, current, carrier_of(kind))
    exact = kind.dtype == "fp16" and port.dtype in ("float16", "uint8")
    return value if exact else t.rounded(value, kind.dtype)


# ---- outputs -------------------------------------------------------------------------------------


def _add_outputs(
    t: ProgramTranslation, described: model_pb2.ModelDescription, options: Asked
) -> None:
    for feature in described.output:
        kind = feature.type.WhichOneof("Type")
        if feature.name == getattr(described, "predictedFeatureName", ""):
            continue
        value = t.value(feature.name)
        if t.e.shapes.get(value) is None:
            raise ExportError(
                f"the rank of output {feature.name!r} is not known, which ONNX requires: a "
                "shape that is computed hides it"
            )
        own_type = t.type(feature.name)
        dtype = carrier_of(own_type) if isinstance(own_type, TensorType) else "float32"
        if kind == "imageType" and options.pixels:
            value, dtype = interface.picture(t.e, value, feature.type.imageType)
        elif kind == "multiArrayType":
            value, dtype = _described(t, value, dtype, feature.type)
        _show(t, feature.name, value, dtype)


def _described(
    t: ProgramTranslation, value: str, dtype: str, feature: ft.FeatureType
) -> tuple[str, str]:
    """An array in its described type and shape; a scalar becomes a vector of one element."""
    target = interface.stored_dtype(feature)
    if t.e.shapes.get(value) == ():
        value = t.e.reshape(value, [1])
    if target != dtype:
        value = t.e.node("Cast", value, to={**interface.NUMBERS, "float32": FLOAT}[target])
    return value, target


def _show(t: ProgramTranslation, name: str, value: str, dtype: str) -> None:
    for port in t.e.graph.inputs:
        if port.name == name:  # an input that is also an output, unchanged
            t.e.graph.outputs.append(port)
            return
    t.output(name, value)
    t.e.graph.outputs.append(Port(name, dtype, t.e.shapes.get(name)))


def _add_state(t: ProgramTranslation, name: str, shown: str, options: Asked) -> None:
    """The new value of a state, in the type in which it came."""
    value, dtype = t.values[name], _state_dtype(t.types[name], options)
    if dtype == "float16":
        value = t.e.node("Cast", value, to=interface.NUMBERS[dtype])
    _show(t, shown, value, dtype)


def _labels(
    block: mil.Block, opset: str, described: model_pb2.ModelDescription, weights: Weights
) -> dict[str, str]:
    """The metadata that hold the labels of a classifier."""
    for operation in block.operations:
        if operation.type != "classify":
            continue
        known = {
            each.outputs[0].name: value_of(each.attributes["val"], weights)
            for each in block.operations
            if each.type == "const"
        }
        parameters = definition_of("classify", OPSETS[opset]).parameters
        arguments = arguments_of(
            operation, parameters, known, lambda message: value_of(message, weights)
        )
        labels = [np.asarray(label).item() for label in arguments["classes"].constants[0]]
        return {
            interface.LABELS: json.dumps(labels, ensure_ascii=False),
            interface.PREDICTED: described.predictedFeatureName,
            interface.PROBABILITIES: described.predictedProbabilitiesName,
        }
    return {}
