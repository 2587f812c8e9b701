"""`linear_quantize_activations`: what flows between operations in 8 bits, by sample data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mlferry.errors import PredictionError, SpecError
from mlferry.models.model import MLModel
from mlferry.models.quantization.programs import write_functions
from mlferry.models.samples import Sample, samples_for
from mlferry.optimize.coreml.configs import (
    OpCompressorConfig,
    OpLinearQuantizerConfig,
    OptimizationConfig,
)
from mlferry.programs.graph import Argument, Block, Operation, Value, constant, readers, string
from mlferry.programs.passes.opset import raise_opset
from mlferry.programs.passes.rewriting import Rewriter, value_at
from mlferry.programs.reading import read_function
from mlferry.programs.types import DTYPES, TensorType
from mlferry.programs.values import Weights
from mlferry.programs.writing import WEIGHT_FILE, ProgramWriter
from mlferry.progress import progress
from mlferry.spec.proto import model_pb2

_OPSET = 7  # which brought `quantize` and `dequantize`
_READS = dict.fromkeys(("conv", "avg_pool", "max_pool", "linear"), ("x",)) | {"add": ("x", "y")}
_ACTIVATIONS = {"leaky_relu", "tanh", "scaled_tanh", "sigmoid", "hard_sigmoid", "relu", "relu6"}
_BITS = 8
Ranges = dict[Value, tuple[float, float]]


def linear_quantize_activations(
    mlmodel: MLModel | str | os.PathLike[str],
    config: OptimizationConfig,
    sample_data: Sequence[Mapping[str | None, object]] | str | os.PathLike[str],
    calibration_op_group_size: int = -1,
) -> MLModel:
    """A copy of an ML Program in which convolutions, products, pools and sums read 8 bits.

    In front of each of them, and behind it, or behind the activation that follows it, stand
    `quantize` and `dequantize` (iOS 17): a value becomes a whole number of steps of the range that
    it has over the samples. What a concatenation reads and makes gets one range. Together with
    `linear_quantize_weights`, a device may compute with 8 bits.

    Of several functions it is the one that runs, and what is inside of branches and loops stays as
    it is.

    Args:
        mlmodel: an `MLModel`, or what it takes.
        config: of `OpLinearQuantizerConfig`, of which `mode` and a `dtype` of 8 bits count; None
            for an op, or for an operation by its name, leaves it as it is.
        sample_data: inputs that are typical for the model, as for `compare_models`; the name of a
            single input may be None. The range is that over all samples.
        calibration_op_group_size: how many values are looked at in one run of a sample, where
            they would not fit into memory together; -1 for all.

    Raises:
        SpecError: it is no program, a configuration is of another kind, or something that is to be
            quantized is infinite or no number.
        PredictionError: the samples do not fit the model, or there are none.
    """
    model = mlmodel if isinstance(mlmodel, MLModel) else MLModel(mlmodel)
    if model.spec.WhichOneof("Type") != "mlProgram":
        raise SpecError(
            "linear_quantize_activations is for an ML Program: mlferry.to_program(model) makes one "
            "of a network"
        )
    _check(config)
    size = calibration_op_group_size
    if isinstance(size, bool) or not isinstance(size, int) or not (size == -1 or size > 0):
        raise SpecError(
            f"calibration_op_group_size is {size!r}; it is a number of values, or -1 for all"
        )
    spec, weights = model.get_spec(), model.program_weights
    chosen = model.function_name or spec.description.defaultFunctionName or "main"
    functions = spec.mlProgram.functions
    read = [(name, *read_function(functions[name], weights)) for name in sorted(functions)]
    block = next(block for name, block, _ in read if name == chosen)
    opset = max(_OPSET, *(own for _, _, own in read))
    for _, each, own in read:
        raise_opset(each, own, opset)
    uses = _uses(block, config)
    ranges = _ranges(model, block, uses, _named(model.get_spec(), sample_data), size)
    _insert(Rewriter(block, opset), uses, ranges)
    writer = ProgramWriter()
    write_functions(spec, [(name, each) for name, each, _ in read], opset, writer)
    return model.with_spec(spec, weights=Weights(memory={WEIGHT_FILE: writer.store}))


def _check(config: object) -> None:
    if not isinstance(config, OptimizationConfig):
        raise SpecError(
            f"config is a {type(config).__name__}: write OptimizationConfig(global_config=...)"
        )
    for each in config.configs:
        if not isinstance(each, OpLinearQuantizerConfig):
            raise SpecError(
                f"this takes configurations of OpLinearQuantizerConfig, not {type(each).__name__}"
            )
        if each.bits != _BITS:
            raise SpecError(
                f"dtype is {each.dtype!r}; what flows between operations has dtype='int8' or "
                "'uint8'"
            )


def _named(
    spec: model_pb2.Model,
    sample_data: Sequence[Mapping[str | None, object]] | str | os.PathLike[str],
) -> list[Sample]:
    """Samples whose only input may have had no name, as coremltools takes them."""
    if isinstance(sample_data, str | os.PathLike):
        return list(samples_for(spec, sample_data))
    if not all(isinstance(sample, Mapping) for sample in sample_data):  # arrays, or one sample
        return list(samples_for(spec, sample_data))
    inputs = [feature.name for feature in spec.description.input]
    named = []
    for sample in sample_data:
        if None in sample:
            if len(sample) > 1 or len(inputs) > 1:
                raise PredictionError(
                    f"a sample has an input without a name; the model has {', '.join(inputs)}"
                )
            named.append({inputs[0]: sample[None]})
        else:
            named.append({str(name): value for name, value in sample.items()})
    return list(samples_for(spec, named))


# ---- what is quantized --------------------------------------------------------------------------


class _Use(NamedTuple):
    """A value that is quantized.

    Attributes:
        value: it.
        config: how.
        reader: the operation that reads it so; None for all that read it.
        parameter: of the reader.
    """

    value: Value
    config: OpLinearQuantizerConfig
    reader: Operation | None = None
    parameter: str = ""


def _uses(block: Block, config: OptimizationConfig) -> list[_Use]:
    """In the order of the program: what operations read, and what they make."""
    reading = readers(block)
    before = [use for each in block.operations for use in _before(each, config)]
    quantized = {(use.reader, use.parameter) for use in before}
    found = []
    for operation in block.operations:
        own = [use for use in before if use.reader is operation]
        found += own
        last = _last(operation, reading, quantized) if own else None
        if last is not None:
            found.append(_Use(last, own[0].config))
    return found


def _before(operation: Operation, config: OptimizationConfig) -> Iterator[_Use]:
    """What an operation reads in 8 bits."""
    own = _config_of(operation, config)
    if own is None:
        return
    values = [(name, value_at(operation, name)) for name in _READS.get(operation.op, ())]
    if any(value is None or value.is_stored or not _is_float(value) for _, value in values):
        return
    for name, value in values:
        assert value is not None
        yield _Use(value, own, operation, name)


def _config_of(operation: Operation, config: OptimizationConfig) -> OpLinearQuantizerConfig | None:
    """Of an operation: by its name, by what it makes, by the op, or that of all."""
    found: OpCompressorConfig | None = config.op_type_configs.get(
        operation.op, config.global_config
    )
    for name in (operation.source, *(value.name for value in operation.outputs)):
        found = config.op_name_configs.get(name, found)
    assert found is None or isinstance(found, OpLinearQuantizerConfig)
    return found


def _is_float(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.dtype in ("fp16", "fp32")


def _last(
    operation: Operation,
    reading: Mapping[Value, Sequence[Operation]],
    quantized: set[tuple[Operation | None, str]],
) -> Value | None:
    """The value behind an operation, or behind its activation, that is quantized for all readers.

    None for what is an output alone, and for what is quantized already where it is read.
    """

    def ready(value: Value) -> bool:
        found = reading.get(value, ())
        return len(found) == 1 and any(
            (found[0], name) in quantized and value_at(found[0], name) is value
            for name in _READS.get(found[0].op, ())
        )

    value = operation.outputs[0]
    following = reading.get(value, ())
    if not following or ready(value):
        return None
    if len(following) == 1 and following[0].op in _ACTIVATIONS:
        behind = following[0].outputs[0]
        if reading.get(behind):
            return None if ready(behind) else behind
    return value


# ---- ranges -------------------------------------------------------------------------------------


def _ranges(
    model: MLModel, block: Block, uses: Sequence[_Use], samples: Sequence[Sample], size: int
) -> Ranges:
    """The least and the largest of each value over the samples."""
    together = _together(block)
    wanted = {value for use in uses for value in (use.value, *together.get(use.value, ()))}
    by_name = {value.name: value for value in wanted if _is_float(value) and not value.is_stored}
    names = sorted(by_name)
    groups = [names] if size == -1 else [names[at : at + size] for at in range(0, len(names), size)]
    lows, highs = dict.fromkeys(names, np.inf), dict.fromkeys(names, -np.inf)
    for sample in progress(samples, "activations, 8 bits"):
        for group in groups:
            for name, array in model.blobs(sample.data, group).items():
                if not np.isfinite(array).all():
                    raise SpecError(
                        f"{name!r} has values that are infinite or no number, for the sample "
                        f"{sample.name}; leave it as it is with set_op_name({name!r}, None)"
                    )
                lows[name] = min(lows[name], float(np.min(array, initial=np.inf)))
                highs[name] = max(highs[name], float(np.max(array, initial=-np.inf)))
    found = {value: (lows[name], highs[name]) for name, value in by_name.items()}
    for value in [*found]:
        alike = [each for each in together.get(value, (value,)) if each in found]
        bounds = np.array([found[each] for each in alike])
        found[value] = (float(bounds[:, 0].min()), float(bounds[:, 1].max()))
    return found


def _together(block: Block) -> dict[Value, set[Value]]:
    """The values that share a range: what a concatenation reads and makes, through others too."""
    groups: dict[Value, set[Value]] = {}
    for operation in block.operations:
        if operation.op != "concat":
            continue
        values = operation.arguments["values"]
        joined = {*(values if isinstance(values, tuple) else (values,)), *operation.outputs}
        for value in [*joined]:
            joined |= groups.get(value, set())
        groups.update(dict.fromkeys(joined, joined))
    return groups


# ---- pairs --------------------------------------------------------------------------------------


def _insert(rewriter: Rewriter, uses: Sequence[_Use], ranges: Ranges) -> None:
    """One `quantize` a value, and a `dequantize` for each reader of its own."""
    places = {op: at for at, op in enumerate(rewriter.root.operations)}
    holders = {
        inner: op for op in places for block in op.blocks for inner in block.all_operations()
    }
    made: dict[tuple[Value, str, str], tuple[Value, dict[str, Argument]]] = {}
    read_so = {(use.value, use.reader) for use in uses}
    reading = {value: [*found] for value, found in readers(rewriter.root).items()}

    def place_of(operation: Operation) -> Operation:
        return holders.get(operation, operation)

    for use in uses:
        found = list(dict.fromkeys(map(place_of, reading[use.value])))
        key = (use.value, use.config.dtype, use.config.mode)
        if key not in made:
            first = min(found, key=places.__getitem__)
            made[key] = _quantized(rewriter, first, use, ranges[use.value])
        codes, steps = made[key]
        if use.reader is not None:
            whole = rewriter.before(use.reader, "dequantize", input=codes, **steps)
            rewriter.put(use.reader, use.parameter, whole)
            continue
        others = [op for op in reading[use.value] if (use.value, op) not in read_so]
        if others:
            first = min(map(place_of, others), key=places.__getitem__)
            whole = rewriter.before(first, "dequantize", input=codes, **steps)
            for operation in others:
                operation.replace({use.value: whole})


def _quantized(
    rewriter: Rewriter, place: Operation, use: _Use, limits: tuple[float, float]
) -> tuple[Value, dict[str, Argument]]:
    """The codes of a value in front of an operation, and what they are read with."""
    scale, zero_point = _steps(limits, use.config)
    held = np.asarray(scale, DTYPES[use.value.dtype].array)
    if not held:  # a value that is zero, or nearly so in half precision
        held = np.ones_like(held)
    steps: dict[str, Argument] = {"scale": constant(held, use.value.dtype)}
    if zero_point:
        array = np.asarray(zero_point, DTYPES[use.config.dtype].array)
        steps["zero_point"] = constant(array, use.config.dtype)
    kind = {"output_dtype": string(use.config.dtype)}
    return rewriter.before(place, "quantize", input=use.value, **steps, **kind), steps


def _steps(limits: tuple[float, float], config: OpLinearQuantizerConfig) -> tuple[float, int]:
    """The size of a step, and the code of zero."""
    low, high = min(0.0, limits[0]), max(0.0, limits[1])
    symmetric = config.mode == "linear_symmetric"
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    most = (1 << _BITS) - 1 - symmetric
    least = -(1 << (_BITS - 1)) + symmetric if config.signed else 0
    if low == high:
        return 1.0, 0
    if symmetric:
        return (high - low) / most, 0 if config.signed else most // 2
    scale = (high - low) / most
    return scale, int(np.clip(np.rint(least - low / scale), least, least + most))
