"""A Core ML network as an ML Program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlferry.errors import ExportError, SpecError
from mlferry.exporters.ends import outputs_of
from mlferry.exporters.program import interface
from mlferry.exporters.program.control import CONTROL_FLOW
from mlferry.exporters.program.states import pairs_of
from mlferry.exporters.program.translation import Translation
from mlferry.programs.builder import NewerOpsetError, ProgramBuilder
from mlferry.programs.contents import operation_counts
from mlferry.programs.definitions import OPSETS
from mlferry.programs.graph import sweep
from mlferry.programs.passes.fuse import fuse
from mlferry.programs.passes.fusions.attention import ATTENTION
from mlferry.programs.passes.half import to_half
from mlferry.programs.values import Weights
from mlferry.programs.writing import WEIGHT_FILE, ProgramWriter, program_of
from mlferry.registry import did_you_mean
from mlferry.spec import networks, releases
from mlferry.spec.proto import model_pb2
from mlferry.text import logger_of

logger = logger_of(__name__)

_OLDEST, _NEWEST = min(OPSETS.values()), max(OPSETS.values())
MAIN = "main"


@dataclass(frozen=True)
class ProgramOptions:
    """How to turn a network into a program.

    Attributes:
        half: whether it computes in float16.
        keep: names of values that stay in float32.
        opset: the newest opset that may be used; None for any.
        states: inputs that become states, with the outputs that are their next values; True for
            all pairs whose names say it.
        at_least: the opset that the program uses even if an older one would do.
        wide_inputs: inputs whose numbers may be beyond the range of float16, in half precision.
    """

    half: bool = True
    keep: Sequence[str] = field(default_factory=tuple)
    opset: int | None = None
    states: Mapping[str, str] | bool = False
    at_least: int = _OLDEST
    wide_inputs: Sequence[str] = ()


def opset_of(target: str | int) -> int:
    """The newest opset that a deployment target reads: such as "iOS15" or "macOS12".

    Raises:
        ExportError: the target has no ML Programs, or is not known.
    """
    try:
        version = releases.version_for(target)
    except SpecError as error:
        raise ExportError(str(error)) from error
    if version <= _OLDEST:
        raise ExportError(
            f"{getattr(target, 'name', target)} has no ML Programs: they came with iOS 15 and "
            'macOS 12; convert_to="neuralnetwork" writes networks for older systems'
        )
    return min(version - 1, _NEWEST)


def to_program(spec: model_pb2.Model, options: ProgramOptions) -> tuple[model_pb2.Model, Weights]:
    """The model with an ML Program in place of its neural network, and its weights.

    Args:
        spec: a neural network of any of the three kinds, without custom layers.
        options: precision and opset.

    Raises:
        ExportError: the model is not a neural network, is updatable, or has an input that no
            program can have; or it needs a newer opset than `options` allow.
        UnsupportedLayersError: no ops express some layers; all are named.
    """
    network = networks.network_of(spec)
    if network is None:
        raise ExportError(
            f"a model of kind {spec.WhichOneof('Type')!r} is not a neural network: only those "
            "become ML Programs"
        )
    if spec.isUpdatable:
        raise ExportError(
            "an updatable model stays a neural network: Core ML trains no ML Programs; "
            "mlferry.models.utils.without_training(model) returns a copy that is not trainable"
        )
    interface.check_inputs(spec.description)
    steps = interface.with_one_step(spec, network)
    try:
        program = _best(spec, network, options)
    except SpecError as error:
        if not steps:
            raise
        raise ExportError(f"{error}\n{steps}") from error
    if steps:
        logger.warning("%s", steps)
    return program


def _best(
    spec: model_pb2.Model, network: networks.Network, options: ProgramOptions
) -> tuple[model_pb2.Model, Weights]:
    """The program in the oldest opset, or in a newer one that has attention, if that is allowed."""

    def write(opset: int) -> tuple[model_pb2.Model, Weights]:
        return _written(spec, network, options, opset)

    program = _at_the_oldest(options, write)
    if options.opset is not None and options.opset >= ATTENTION and _may_attend(program[0]):
        newer = _at_the_oldest(replace(options, at_least=ATTENTION), write)
        if operation_counts(newer[0].mlProgram)["scaled_dot_product_attention"]:
            return newer
    return program


def _may_attend(spec: model_pb2.Model) -> bool:
    """Whether the program holds the parts of attention, not yet as one operation."""
    counts = operation_counts(spec.mlProgram)
    return bool(counts["softmax"] and counts["matmul"] and spec.specificationVersion <= ATTENTION)


def _at_the_oldest(
    options: ProgramOptions, write: Callable[[int], tuple[model_pb2.Model, Weights]]
) -> tuple[model_pb2.Model, Weights]:
    """The program, written with the oldest opset that has every op."""
    opset, reasons = options.at_least, list[str]()
    while True:
        try:
            return write(opset)
        except NewerOpsetError as newer:
            reasons.append(newer.op)
            opset = newer.opset
            if options.opset is not None and opset > options.opset:
                needs, allows = (releases.release(n + 1) for n in (opset, options.opset))
                raise ExportError(
                    f"the program needs iOS {needs.ios} or macOS {needs.macos} for {newer.op}, "
                    f"newer than iOS {allows.ios} or macOS {allows.macos}: raise "
                    "minimum_deployment_target"
                ) from None


def _written(
    spec: model_pb2.Model, network: networks.Network, options: ProgramOptions, opset: int
) -> tuple[model_pb2.Model, Weights]:
    builder = ProgramBuilder(opset)
    translation = Translation(network, builder, CONTROL_FLOW)
    states = pairs_of(spec.description, options.states)
    names = interface.program_names(spec.description, states)
    for name in names.values():
        builder.reserve(name)
    model = model_pb2.Model()
    model.specificationVersion = opset + 1
    model.description.metadata.CopyFrom(spec.description.metadata)
    interface.add_inputs(translation, spec, network, names, model.description, states)
    translation.run(network.layers, set(outputs_of(spec, network).values()))
    translation.check()
    interface.add_outputs(translation, spec, network, names, model.description, states)
    sweep(builder.block)
    fuse(builder.block, opset)
    writer = ProgramWriter()
    if options.half:
        known = [v.name for op in builder.block.all_operations() for v in op.outputs]
        wide = [names[name] for name in options.wide_inputs if name in names]
        existing = to_half(builder.block, opset, options.keep, wide, writer.store.scratch)
        _check_kept(options.keep, existing, known)
        sweep(builder.block)
    program = program_of([(MAIN, writer.function(builder.block, opset))])
    model.mlProgram.CopyFrom(program)
    return model, Weights(memory={WEIGHT_FILE: writer.store})


def _check_kept(keep: Sequence[str], names: Sequence[str], known: list[str]) -> None:
    """Raise an `ExportError` if a name to keep in float32 does not exist."""
    missing = sorted(set(keep) - set(names))
    if not missing:
        return
    close = did_you_mean(missing[0], known)
    raise ExportError(
        f"the program has no operation {missing[0]!r} to keep in float32.{close} "
        "mlferry.check_precision names those of a program"
    )
