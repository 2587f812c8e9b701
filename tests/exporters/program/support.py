"""Networks as programs: checked in every way that there is, and run by both engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mlferry
from mlferry.models.problems import validate
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.types import StateType, TensorType
from mlferry.programs.values import Weights
from mlferry.programs.writing import WEIGHT_FILE, ProgramWriter, program_of
from mlferry.spec import features
from mlferry.spec.proto import model_pb2

Array = np.ndarray[Any, Any]


def checked(model: mlferry.MLModel) -> mlferry.MLModel:
    """A program in which our own validator finds nothing."""
    problems = validate(model.spec, model.program_weights)
    assert not [str(p) for p in problems if p.severity != "note" and "no inputs" not in str(p)]
    return model


def results(
    model: mlferry.MLModel, given: Mapping[str, Array], names: Sequence[str]
) -> list[Array]:
    """Values of outputs."""
    made = model.predict(dict(given))
    return [np.asarray(made[name]) for name in names]


def read_by_coremltools(model: mlferry.MLModel, folder: Path) -> None:
    """Let coremltools' own reader infer every type again; it raises where one is another."""
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto import load

    path = str(model.save(folder / "model.mlpackage"))
    spec = ct.utils.load_spec(path)
    weights = str(folder / "model.mlpackage/Data/com.apple.CoreML/weights")
    load.load(spec, spec.specificationVersion, weights)


def kinds(spec: model_pb2.Model) -> list[str]:
    """The operations of a program, constants left out."""
    block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()))
    return [operation.type for operation in block.operations if operation.type != "const"]


def model_of(builder: ProgramBuilder) -> mlferry.MLModel:
    """A model of what a builder has written so far; its ends are the inputs and outputs."""
    spec = model_pb2.Model(specificationVersion=builder.opset + 1)
    for value in builder.block.inputs:
        if isinstance(value.type, StateType):
            state = spec.description.state.add(name=value.name)
            wrapped = value.type.wrapped
            assert isinstance(wrapped, TensorType)
            described = features.multi_array(wrapped.shape, "float16")
            state.type.stateType.arrayType.CopyFrom(described.multiArrayType)
            continue
        feature = spec.description.input.add(name=value.name)
        fixed = tuple(n or 1 for n in value.shape)
        feature.type.CopyFrom(features.multi_array(fixed, _ENDS[value.dtype]))
        if not value.is_fixed:
            for extent in value.shape:
                sizes = feature.type.multiArrayType.shapeRange.sizeRanges.add()
                sizes.lowerBound, sizes.upperBound = extent or 1, extent or 64
    for value in builder.block.outputs:
        feature = spec.description.output.add(name=value.name)
        shape = value.shape if value.is_fixed else None
        feature.type.CopyFrom(features.multi_array(shape, _ENDS[value.dtype]))
    writer = ProgramWriter()
    function = writer.function(builder.block, builder.opset)
    spec.mlProgram.CopyFrom(program_of([("main", function)]))
    return _any_model().with_spec(spec, weights=Weights(memory={WEIGHT_FILE: writer.store}))


def _any_model() -> mlferry.MLModel:
    spec = model_pb2.Model(specificationVersion=4)
    spec.neuralNetwork.arrayInputShapeMapping = 1
    spec.neuralNetwork.layers.add(name="y", input=["x"], output=["y"]).tanh.SetInParent()
    spec.description.input.add(name="x").type.CopyFrom(features.multi_array((1,)))
    spec.description.output.add(name="y").type.CopyFrom(features.multi_array((1,)))
    return mlferry.MLModel(spec)


_ENDS = {"fp32": "float32", "fp16": "float16", "int32": "int32"}


def written(builder: ProgramBuilder) -> list[str]:
    """The operations that a builder holds, those of inner blocks too."""
    return [operation.op for operation in builder.block.all_operations()]
