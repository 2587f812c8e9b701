"""`convert`: one call for every source."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlferry import limits
from mlferry.converters import flexible_errors, foreign, plugins
from mlferry.converters.bound_axes import bound_axes
from mlferry.converters.custom_layers import CustomFunction, Trace, channels_first
from mlferry.converters.frontend import Frontend
from mlferry.converters.graph import Graph
from mlferry.converters.interface import InputType, OutputType, bind_inputs, finish
from mlferry.converters.lower import Choices, as_conversion_errors, lower
from mlferry.converters.lowering import Lowering
from mlferry.converters.options import Options
from mlferry.converters.settings import ComputePrecision, ComputeUnit, check_network_precision
from mlferry.converters.tracing import Tracer
from mlferry.converters.types import ClassifierConfig
from mlferry.errors import (
    ConversionError,
    MlferryError,
    ModelFileError,
    SpecError,
    ValidationError,
    context,
)
from mlferry.layers import versions
from mlferry.layers.validate import validate
from mlferry.models.flexible_shapes import accepted_sizes
from mlferry.models.model import MLModel
from mlferry.models.programs import ProgramOptions, as_program, is_program, program_options
from mlferry.numerics.shapes import Shape
from mlferry.spec import features, releases, sizes, weights
from mlferry.spec.io import load_spec
from mlferry.spec.problems import Problem
from mlferry.spec.proto import model_pb2
from mlferry.text import logger_of
from mlferry.version import VERSION

logger = logger_of(__name__)

__all__ = ["Options", "channels_first", "convert", "convert_graph", "trace"]

trace = Trace()

_Found = tuple[Graph, Frontend, Options]


def convert(
    model: object,
    source: str = "auto",
    *,
    inputs: Sequence[InputType] | None = None,
    outputs: Sequence[OutputType] | None = None,
    classifier_config: ClassifierConfig | None = None,
    custom_conversion_functions: Mapping[str, CustomFunction] | None = None,
    add_custom_layers: bool = False,
    minimum_deployment_target: str | int | None = None,
    activation_quantization: str = "keep",
    signature: str | None = None,
    trace_custom_layers: bool = False,
    custom_objects: Mapping[str, Any] | None = None,
    convert_to: str | None = None,
    compute_precision: ComputePrecision | str | Sequence[str] | None = None,
    compute_units: ComputeUnit = ComputeUnit.ALL,
    states: Mapping[str, str] | bool = False,
    skip_model_load: bool = False,
) -> MLModel:
    """Convert a model to Core ML.

    Args:
        model: a Keras model: path of an `.h5` or `.keras` file, a pair of paths
            (`.json`, `.h5`), or a model object; an ONNX model: path, bytes or `ModelProto`;
            a TensorFlow model: folder of a SavedModel, frozen graph (`.pb` or `GraphDef`),
            `tf.function`, concrete function, or subclassed Keras model.
            The content decides, not the suffix.
        source: "auto", or the framework that the model has to be of: "keras", "onnx" or
            "tensorflow", which has Keras models, too.
        inputs: `TensorType` or `ImageType` for inputs that differ from the source's.
        outputs: the outputs wanted, by name, as `TensorType` or as `ImageType`; by default
            all, as multi-arrays.
        classifier_config: labels, to make a classifier of the model.
        custom_conversion_functions: functions for layers that mlferry does not know, or that
            are to convert differently, by layer name, class or activation name. A function takes
            the node and returns `CustomLayerParams`, or takes the node and a `Builder` and adds
            layers itself.
        add_custom_layers: make a custom layer of every unknown layer, with its options as
            parameters and its arrays as weights.
        minimum_deployment_target: e.g. "iOS13": fail where the model would need a newer
            system. By default the oldest system that can run the model is supported.
        activation_quantization: what becomes of activations that the source rounds to few bits
            and back: "keep" computes the same rounding, "drop" leaves it out, which is faster on
            a device and usually as accurate. Quantized weights stay quantized either way.
        signature: of a SavedModel; by default "serving_default", or the only one.
        trace_custom_layers: convert what layers of your own compute, instead of making custom
            layers of them: their `call` runs once on symbolic tensors. `mlferry.trace` in the
            place of a conversion function asks for it layer by layer.
        custom_objects: your classes by name, for tracing the layers of a file, which holds
            their options and arrays only.
        convert_to: "neuralnetwork" (the default: an `.mlmodel` for all systems since iOS 13) or
            "mlprogram" (an `.mlpackage`, since iOS 15); see `to_program`.
        compute_precision: of programs "float16" (their default), "float32", or the names of
            values that stay in float32 while others are float16, as `check_precision` lists them;
            of networks None or "float32": see `quantize_weights` for half precision.
        compute_units: taken from scripts of coremltools; an app says what it computes on.
        states: of programs: inputs that become states, with the outputs that are their next
            values; True for those of stateful layers and of caches. See `to_program`.
        skip_model_load: likewise; nothing is loaded.

    Returns:
        the Core ML model: a network in exact array mapping, or a program.

    Raises:
        UnsupportedOpError: layers without a converter; all are named, with the lines to write.
        ConversionError: something of the source cannot be carried over.
        ExportError: a program cannot have what the model has: `UnsupportedLayersError` names
            layers, with reasons.
        ModelFileError: the source is damaged, or of a kind that mlferry does not read.
    """
    program = None
    with as_conversion_errors():
        as_a_program = is_program(convert_to)
    if as_a_program:
        program = program_options(compute_precision, minimum_deployment_target, states)
    elif states:
        raise ConversionError("states are for ML Programs: add convert_to='mlprogram'")
    else:
        check_network_precision(compute_precision)
    options = Options(
        inputs=inputs,
        outputs=outputs,
        classifier_config=classifier_config,
        custom_conversion_functions=custom_conversion_functions,
        add_custom_layers=add_custom_layers,
        minimum_deployment_target=minimum_deployment_target if program is None else None,
        activation_quantization=activation_quantization,
        signature=signature,
        trace_custom_layers=trace_custom_layers,
        custom_objects=custom_objects,
    )
    if program is None:
        return _as_model(_network(*_read(model, options, source)), None)
    with weights.outside():
        return _as_model(_network(*_read(model, options, source)), program)


def _read(source: object, options: Options, framework: str = "auto") -> _Found:
    if framework not in _SOURCES:
        hint = (
            ""
            if framework not in ("pytorch", "milinternal")
            else ("; export a PyTorch model with torch.onnx.export, and convert the .onnx file")
        )
        possible = ", ".join(map(repr, _SOURCES))
        raise ConversionError(f"source={framework!r}: possible are {possible}{hint}")
    for path in source if isinstance(source, tuple | list) else (source,):
        if isinstance(path, str | os.PathLike):
            limits.check_plain(Path(path))
            _check_is_source(Path(path))
    for name, claims, reader in _FRONTENDS:
        if name in _SOURCES[framework] and claims(source):
            try:
                return reader(source, options)
            except ModelFileError as error:
                if advice := foreign.advice(source):
                    raise ConversionError(f"{source} cannot be converted: {advice}") from error
                raise
    if framework != "auto":
        raise ConversionError(
            f"source={framework!r}, and {source!r:.200} is not such a model: leave source out"
        )
    if advice := foreign.advice(source):
        raise ConversionError(f"{source!r:.200} cannot be converted: {advice}")
    names = ", ".join(name for name, _ in plugins.readers())
    others = f"; of installed frontends, {names} do not know it" if names else ""
    raise ConversionError(
        f"mlferry cannot tell what {source!r:.200} is; it converts Keras models (.h5 and .keras "
        "files, ('model.json', 'weights.h5'), model objects), ONNX models (.onnx files, bytes, "
        "ModelProto) and TensorFlow models (folders of SavedModels, frozen .pb files, functions)"
        + others
    )


def _check_is_source(path: Path) -> None:
    """Raise a `ConversionError` for a file that is already a Core ML model."""
    if path.suffix not in (".mlmodel", ".mlpackage") or not path.exists():
        return
    try:
        kind = load_spec(path).WhichOneof("Type")
    except MlferryError:
        return
    if kind is not None:
        target = str(path.with_suffix(".mlpackage"))
        raise ConversionError(
            f"{path} is a Core ML model already; an ML Program of its neural network is written "
            f"by mlferry.to_program({str(path)!r}).save({target!r})"
        )


def _is_keras(source: object) -> bool:
    from mlferry.converters.keras import read

    return read.claims(source)


def _read_keras(source: object, options: Options) -> _Found:
    from mlferry.converters.keras import read
    from mlferry.converters.keras.ops import FRONTEND

    graph = read.read(source, _functions(options), options.custom_objects)
    return graph, FRONTEND, options


def _is_subclassed(source: object) -> bool:
    from mlferry.converters.keras import subclassed

    return subclassed.claims(source)


def _read_subclassed(source: object, options: Options) -> _Found:
    from mlferry.converters.keras import subclassed
    from mlferry.converters.keras.ops import FRONTEND

    assert subclassed.claims(source)
    graph = subclassed.read(source, options.inputs)
    return graph, FRONTEND, replace(options, trace_custom_layers=True)


def _is_onnx(source: object) -> bool:
    from mlferry.converters.onnx import read

    return read.claims(source)


def _read_onnx(source: object, options: Options) -> _Found:
    from mlferry.converters.onnx import read
    from mlferry.converters.onnx.ops import FRONTEND, OPS

    return read.read(source, keep={*OPS, *_functions(options)}), FRONTEND, options


def _is_tensorflow(source: object) -> bool:
    from mlferry.converters.tensorflow import read

    return read.claims(source)


def _read_tensorflow(source: object, options: Options) -> _Found:
    from mlferry.converters.tensorflow import read
    from mlferry.converters.tensorflow.ops import FRONTEND

    result = read.read(
        source, inputs=options.inputs, outputs=options.outputs, signature=options.signature
    )
    return result.graph, FRONTEND, replace(options, inputs=result.inputs, outputs=result.outputs)


def _functions(options: Options) -> list[str]:
    return list(options.custom_conversion_functions or ())


def _is_installed(source: object) -> bool:
    return any(reader.claims(source) for _, reader in plugins.readers())


def _read_installed(source: object, options: Options) -> _Found:
    match = next(reader for _, reader in plugins.readers() if reader.claims(source))
    return *match.read(source, _functions(options)), options


_FRONTENDS: tuple[tuple[str, Callable[[Any], bool], Callable[[Any, Options], _Found]], ...] = (
    ("keras", _is_subclassed, _read_subclassed),
    ("tensorflow", _is_tensorflow, _read_tensorflow),
    ("onnx", _is_onnx, _read_onnx),
    ("installed", _is_installed, _read_installed),
    ("keras", _is_keras, _read_keras),  # claims any path, to say what is wrong with it
)
_SOURCES = {
    "auto": ("tensorflow", "onnx", "installed", "keras"),
    "keras": ("keras",),
    "onnx": ("onnx",),
    "tensorflow": ("tensorflow", "keras"),
}


@dataclass(frozen=True)
class _Network:
    """A converted network with its own copy of the weights, so that the source can be freed.

    Attributes:
        spec: the specification.
        shapes: known shapes of blobs.
        notes: the notes of the check.
        source: the model it was converted from, for messages.
    """

    spec: model_pb2.Model
    shapes: Mapping[str, Shape | None]
    notes: list[Problem]
    source: str


def convert_graph(graph: Graph, frontend: Frontend, options: Options) -> MLModel:
    """Convert a graph that a frontend read."""
    return _as_model(_network(graph, frontend, options), None)


def _network(graph: Graph, frontend: Frontend, options: Options) -> _Network:
    if options.input_names is not None:
        graph = graph.with_input_names(options.input_names)

    try:
        spec, shapes = _converted(graph, frontend, options)
    except ConversionError as error:
        fixed = flexible_errors.fixed(options.inputs)
        if fixed is None or type(error) is not ConversionError:
            raise
        explained = flexible_errors.explained(
            error, fixed, lambda: _converted(graph, frontend, replace(options, inputs=fixed))
        )
        if explained is error:
            raise
        raise explained from error
    metadata = spec.description.metadata.userDefined
    metadata["com.github.mlferry.version"] = VERSION
    metadata["com.github.mlferry.source"] = f"{graph.framework} {graph.release}".strip()
    _check_target(spec, options.minimum_deployment_target)
    result = validate(spec)
    problems = [problem for problem in result if problem.severity != "note"]
    if problems:
        raise ValidationError(
            f"the model made of {graph.source} breaks the format's rules:", problems
        )
    return _Network(spec, shapes, result, graph.source)


def _as_model(network: _Network, program: ProgramOptions | None) -> MLModel:
    """The network as a model, or as a program if `program` holds its options."""
    model = MLModel.adopt(network.spec, network.notes)
    if program is not None:
        with context(f"converting {network.source}"):
            return as_program(model, program, network.shapes)
    if features.has_flexible_input(network.spec.description):
        _tell_sizes(model)
    return model


def _predictors(graph: Graph, options: Options) -> model_pb2.Model | None:
    """Predictors (trees, linear models and the like), if the source has such nodes."""
    if graph.framework != "ONNX":
        return None
    from mlferry.converters.onnx import ml

    return ml.build(graph, options) if ml.claims(graph, options) else None


def _converted(
    graph: Graph, frontend: Frontend, options: Options
) -> tuple[model_pb2.Model, Mapping[str, Shape | None]]:
    """The specification: predictors if the source has such nodes, else a network.

    Returns:
        the specification, and the known shapes of a network's blobs.
    """

    def bind(lowering: Lowering) -> None:
        bind_inputs(lowering, options.inputs, takes_constants=frontend.fold is not None)

    with context(f"converting {graph.source}"), as_conversion_errors():
        predictors = _predictors(graph, options)
        if predictors is not None:
            return predictors, {}
        lowering = lower(
            graph,
            frontend,
            bind,
            Choices(
                options.custom_conversion_functions or {},
                options.add_custom_layers,
                Tracer(options.custom_objects or {}),
                options.trace_custom_layers,
                options.channels_first,
            ),
            activation_quantization=options.activation_quantization,
        )
        record = bound_axes(lowering)
        spec = finish(lowering, options.outputs, options.classifier_config, options.output_names)
        sizes.write(spec, record)
    return spec, lowering.builder.shapes


_TRIED = 64  # how many sizes along each flexible axis a conversion checks


def _tell_sizes(model: MLModel) -> None:
    """Log the sizes of a flexible input that the layers do not accept."""
    for axis in accepted_sizes(model, most=_TRIED).axes:
        if not axis.is_whole:
            logger.warning("%s", axis)


def _check_target(spec: model_pb2.Model, target: str | int | None) -> None:
    if target is None:
        return
    try:
        allowed = releases.version_for(target)
    except SpecError as error:
        raise ConversionError(str(error)) from error
    if spec.specificationVersion > allowed:
        needs = releases.release(spec.specificationVersion)
        reasons = "".join(f"\n  - {reason}" for reason in versions.why(spec, allowed))
        raise ConversionError(
            f"the model needs iOS {needs.ios} or macOS {needs.macos}, newer than "
            f"{getattr(target, 'name', target)}:{reasons}"
        )
