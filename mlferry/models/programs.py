"""Neural networks as ML Programs, Core ML's main format since iOS 15."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from mlferry.errors import ExportError, SpecError
from mlferry.exporters.program import ProgramOptions, opset_of, to_program as written
from mlferry.models.model import MLModel, ModelSource
from mlferry.models.splitting import has_custom_layers, to_pipeline
from mlferry.numerics.shapes import Shape
from mlferry.runtime.custom import shapes_of_classes
from mlferry.spec import weights as stored_weights

__all__ = ["ProgramOptions", "as_program", "is_program", "program_options", "to_program"]


def to_program(
    model: ModelSource,
    *,
    compute_precision: object = "float16",
    minimum_deployment_target: str | int | None = None,
    states: Mapping[str, str] | bool = False,
) -> MLModel:
    """Convert a Core ML neural network to an ML Program, even one of 2017 whose source is lost.

    The program has the inputs and outputs of the network, computes the same, and runs here as the
    network does. In names, every character other than a letter, a digit or _ becomes _; a log line
    says so. Quantized weights stay quantized if the format of programs has their scheme. Programs
    have no custom layers: a model with some becomes a pipeline of programs and of small networks
    with the custom layers. Save it as an `.mlpackage`.

    Args:
        model: a neural network: an `MLModel`, or what it takes.
        compute_precision: "float16", as coremltools writes programs by default: values between
            operations are float16; "float32"; or names of values that stay in float32 while all
            others are float16, as `check_precision` lists them.
        minimum_deployment_target: the oldest system that has to run it, "iOS15" to "iOS26":
            operations of newer ones raise. By default the oldest that has every operation.
        states: inputs that become states, which the model keeps from one prediction to the next
            (iOS 18), each with the output that is its next value: ``{"past": "present"}``. True
            takes all pairs with matching names: those of stateful Keras layers, NAME_in and
            NAME_out, and caches called past... and present....

    Returns:
        the program, with the engine and options of the model.

    Raises:
        UnsupportedLayersError: layers that no operations of programs can express; all are named.
        ExportError: the model is not a neural network, or has inputs that no program can have;
            or there is no such precision.
    """
    loaded = model if isinstance(model, MLModel) else MLModel(model)
    if loaded.spec.WhichOneof("Type") == "mlProgram":
        raise ExportError("the model is an ML Program already")
    return as_program(loaded, program_options(compute_precision, minimum_deployment_target, states))


def is_program(convert_to: str | None) -> bool:
    """Whether to convert to ML Programs instead of neural networks.

    Raises:
        SpecError: it is neither.
    """
    if convert_to not in (None, "neuralnetwork", "mlprogram"):
        raise SpecError(
            f"convert_to={convert_to!r}: possible are 'neuralnetwork' (.mlmodel, for all systems "
            "since iOS 11; the default) and 'mlprogram' (.mlpackage, since iOS 15)"
        )
    return convert_to == "mlprogram"


def as_program(
    network: MLModel,
    options: ProgramOptions,
    shapes: Mapping[str, Shape | None] = MappingProxyType({}),
) -> MLModel:
    """Convert a network to a program; see `to_program`.

    Args:
        network: the network.
        options: of the program.
        shapes: shapes of blobs that the network itself does not determine, after custom layers.
    """
    if has_custom_layers(network.spec):
        custom = shapes_of_classes(network.custom_layers)
        spec, weights = to_pipeline(network.spec, options, custom, shapes)
    else:
        spec, weights = written(network.spec, options)
    stored_weights.put_inside(spec)
    return network.with_spec(spec, weights=weights)


def program_options(
    compute_precision: object,
    minimum_deployment_target: str | int | None = None,
    states: Mapping[str, str] | bool = False,
) -> ProgramOptions:
    """The options of a program as users give them; see `to_program`.

    Raises:
        ExportError: there is no such precision, or the target has no programs.
    """
    opset = None if minimum_deployment_target is None else opset_of(minimum_deployment_target)
    name = getattr(compute_precision, "value", compute_precision)
    if name in (None, "float16"):
        return ProgramOptions(half=True, opset=opset, states=states)
    if name == "float32":
        return ProgramOptions(half=False, opset=opset, states=states)
    keep = [*name] if isinstance(name, Iterable) and not isinstance(name, str) else None
    if keep is None or not all(isinstance(each, str) for each in keep):
        raise ExportError(
            f"compute_precision={compute_precision!r}: possible are 'float16', 'float32', and a "
            "list of names of values that stay in float32"
        )
    return ProgramOptions(half=True, keep=tuple(keep), opset=opset, states=states)
