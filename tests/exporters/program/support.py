"""Networks as programs: checked in every way that there is, and run by both engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mlferry
from mlferry.errors import MlferryError
from mlferry.exporters.program import ProgramOptions, to_program
from mlferry.layers import versions
from mlferry.models.problems import validate
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.types import StateType, TensorType
from mlferry.programs.values import Weights
from mlferry.programs.writing import WEIGHT_FILE, ProgramWriter, program_of
from mlferry.spec import features, fields
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn
from tests.exporters.onnx.support import spec_of
from tests.layers.case import Case, network

Array = np.ndarray[Any, Any]


def checked(model: mlferry.MLModel) -> mlferry.MLModel:
    """A program in which our own validator finds nothing."""
    problems = validate(model.spec, model.program_weights)
    assert not [str(p) for p in problems if p.severity != "note" and "no inputs" not in str(p)]
    return model


def results(
    model: mlferry.MLModel, inputs: Mapping[str, Array], names: Sequence[str]
) -> list[Array]:
    """Values of outputs."""
    actual = model.predict(dict(inputs))
    return [np.asarray(actual[name]) for name in names]


def read_by_coremltools(model: mlferry.MLModel, folder: Path) -> None:
    """Let coremltools' own reader infer every type again; it raises where one is another.

    It cannot read the labels of a classifier.
    """
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto import load

    path = str(model.save(folder / "model.mlpackage"))
    spec = ct.utils.load_spec(path)
    weights = str(folder / "model.mlpackage/Data/com.apple.CoreML/weights")
    if spec.WhichOneof("Type") == "mlProgram" and "classify" not in kinds(spec):
        load.load(spec, spec.specificationVersion, weights)


def kinds(spec: model_pb2.Model) -> list[str]:
    """The operations of a program, constants left out."""
    block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()))
    return [operation.type for operation in block.operations if operation.type != "const"]


def operations_of(case: Case) -> list[str]:
    """The operations of a row of the runtime's tables, as a program; none where it is refused."""
    model = network(case.kind, case.params, len(case.inputs), len(case.expected), case.mapping)
    shapes = {f"x{index}": x.shape for index, x in enumerate(case.inputs)}
    spec = spec_of(model, shapes, list(model.layers[0].output))
    try:
        actual, _ = to_program(spec, ProgramOptions(half=False))
    except MlferryError:
        return []
    return [kind for kind in kinds(actual) if kind != "identity"]


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


Layers = Sequence[tuple[str, Sequence[str], Sequence[str], Mapping[str, Any]]]


def network_of(
    inputs: Mapping[str, Any],
    layers: Layers,
    outputs: Mapping[str, Any],
    *,
    classic: bool = False,
    labels: Sequence[Any] = (),
    probabilities: str = "",
    chances: str = "chances",
) -> model_pb2.Model:
    """A network: features are shapes of float32, or types.

    Args:
        inputs: by name.
        layers: kind, inputs, outputs and parameters of each.
        outputs: by name.
        classic: whether the blobs have five axes.
        labels: of a classifier.
        probabilities: its blob with the probabilities; "" for the last layer's.
        chances: what its probabilities are called; "" for none.
    """
    spec = model_pb2.Model(specificationVersion=5)
    result = spec.neuralNetworkClassifier if labels else spec.neuralNetwork
    if not classic:
        result.arrayInputShapeMapping = nn.EXACT_ARRAY_MAPPING
        result.imageInputShapeMapping = nn.RANK4_IMAGE_MAPPING
    for number, (kind, reads, makes, params) in enumerate(layers):
        layer = result.layers.add(name=f"{kind}_{number}", input=reads, output=makes)
        getattr(layer, kind).SetInParent()
        fields.fill(getattr(layer, kind), params)
    for described, names in (
        (spec.description.input, inputs),
        (spec.description.output, outputs),
    ):
        for name, kind in names.items():
            sample = kind if isinstance(kind, ft.FeatureType) else features.multi_array(kind)
            described.add(name=name).type.CopyFrom(sample)
    if labels:
        classifier, texts = spec.neuralNetworkClassifier, isinstance(labels[0], str)
        field = classifier.stringClassLabels if texts else classifier.int64ClassLabels
        field.vector.extend(labels)
        classifier.labelProbabilityLayerName = probabilities
        spec.description.predictedFeatureName = "label"
        label = features.string() if texts else features.int64()
        spec.description.output.add(name="label").type.CopyFrom(label)
        if chances:
            spec.description.predictedProbabilitiesName = chances
            spec.description.output.add(name=chances).type.CopyFrom(features.dictionary(texts))
    spec.specificationVersion = versions.required(spec)
    return spec


def same_as_network(
    spec: model_pb2.Model | mlferry.MLModel,
    folder: Path,
    samples: Sequence[Mapping[str, Any]],
    tolerance: float = 1e-5,
    **options: Any,
) -> mlferry.MLModel:
    """The program of a network, after every check; it gives what the network gives."""
    model = spec if isinstance(spec, mlferry.MLModel) else mlferry.MLModel(spec)
    program = checked(mlferry.to_program(model, compute_precision="float32", **options))
    read_by_coremltools(program, folder)
    again = mlferry.MLModel(folder / "model.mlpackage", engine="onnxruntime", threads=1,
                            custom_layers=dict(model.custom_layers))  # fmt: skip
    assert again.spec.SerializeToString(deterministic=True) == program.spec.SerializeToString(
        deterministic=True
    )
    old, new = model.spec.description, program.spec.description
    names = dict(
        zip(
            [f.name for f in (*old.input, *old.output)],
            [f.name for f in (*new.input, *new.output)],
            strict=True,
        )
    )
    for sample in samples:
        right = model.predict(dict(sample))
        for each in (program, again):
            actual = each.predict({names[name]: value for name, value in sample.items()})
            assert [*actual] == [names[name] for name in right]
            for name, expected in right.items():
                alike(actual[names[name]], expected, tolerance)
    return program


def alike(actual: Any, expected: Any, tolerance: float) -> None:
    """Raise where an output is another one: a label, probabilities, or an array."""
    if isinstance(expected, dict):
        assert [*actual] == [*expected]
        actual, expected = [*actual.values()], [*expected.values()]
    elif isinstance(expected, str | int):
        assert type(actual) is type(expected)
        assert actual == expected
        return
    one, two = np.asarray(actual), np.asarray(expected)
    assert one.size == two.size
    if two.ndim:
        assert one.shape == two.shape
    if one.dtype.kind in "iu":
        assert two.dtype.kind in "iu"
    scale = max(1.0, float(np.abs(two).max())) if two.size else 1.0
    np.testing.assert_allclose(
        one.ravel().astype(np.float64), two.ravel().astype(np.float64), tolerance, tolerance * scale
    )
