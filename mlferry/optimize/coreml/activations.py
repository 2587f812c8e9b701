"""`linear_quantize_activations`: 8-bit values between operations, from sample data."""

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

    `quantize` and `dequantize` (iOS 17) are inserted before each of them, and after it or after the
    activation that follows it: a value becomes a whole number of steps of its range over the
    samples. The inputs and the output of a concatenation share one range. Together with
    `linear_quantize_weights`, this lets a device compute with 8 bits.

    If the program has several functions, the one that the model runs is quantized. Operations
    inside branches and loops do not change.

    Args:
        mlmodel: an `MLModel`, or what it takes.
        config: of `OpLinearQuantizerConfig`; only `mode` and an 8-bit `dtype` matter. None for an
            op, or for an operation by its name, excludes it.
        sample_data: typical inputs of the model, as for `compare_models`; the name of a single
            input may be None. A range covers all samples.
        calibration_op_group_size: how many values one run of a sample measures, if they do not fit
            into memory together; -1 for all.

    Raises:
        SpecError: the model is not a program, a configuration is of another kind, or a value to
            quantize is infinite or NaN.
        PredictionError: the samples do not fit the model, or there are none.
    """
    model = mlmodel if isinstance(mlmodel, MLModel) else MLModel(mlmodel)
    if model.spec.WhichOneof("Type") != "mlProgram":
        raise SpecError(
            "linear_quantize_activations takes an ML Program: mlferry.to_program(model) makes one "
            "from a network"
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
                f"this function takes OpLinearQuantizerConfig, not {type(each).__name__}"
            )
        if each.bits != _BITS:
            raise SpecError(
                f"dtype is {each.dtype!r}; values between operations have dtype='int8' or 'uint8'"
            )


def _named(
    spec: model_pb2.Model,
    sample_data: Sequence[Mapping[str | None, object]] | str | os.PathLike[str],
) -> list[Sample]:
    """The samples; a single input may have None as its name, as in coremltools."""
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
        value: the value.
        config: how it is quantized.
        reader: the operation that reads it in 8 bits; None for all of its readers.
        parameter: the parameter of the reader.
    """

    value: Value
    config: OpLinearQuantizerConfig
    reader: Operation | None = None
    parameter: str = ""


def _uses(block: Block, config: OptimizationConfig) -> list[_Use]:
    """In the order of the program: the inputs and the outputs of operations."""
    reading = readers(block)
    before = [use for each in block.operations for use in _before(each, config)]
    quantized = {(use.reader, use.parameter) for use in before}
    uses = []
    for operation in block.operations:
        own = [use for use in before if use.reader is operation]
        uses += own
        last = _last(operation, reading, quantized) if own else None
        if last is not None:
            uses.append(_Use(last, own[0].config))
    return uses


def _before(operation: Operation, config: OptimizationConfig) -> Iterator[_Use]:
    """The values that an operation reads in 8 bits."""
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
    """The configuration of an operation: by its name, its outputs, its op, or the global one."""
    own: OpCompressorConfig | None = config.op_type_configs.get(operation.op, config.global_config)
    for name in (operation.source, *(value.name for value in operation.outputs)):
        own = config.op_name_configs.get(name, own)
    assert own is None or isinstance(own, OpLinearQuantizerConfig)
    return own


def _is_float(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.dtype in ("fp16", "fp32")


def _last(
    operation: Operation,
    reading: Mapping[Value, Sequence[Operation]],
    quantized: set[tuple[Operation | None, str]],
) -> Value | None:
    """The output of an operation, or of its activation, that is quantized for all readers.

    None if nothing but an output of the function reads it, or if it is already quantized where it
    is read.
    """

    def ready(value: Value) -> bool:
        users = reading.get(value, ())
        return len(users) == 1 and any(
            (users[0], name) in quantized and value_at(users[0], name) is value
            for name in _READS.get(users[0].op, ())
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
    """The smallest and the largest number in each value over the samples."""
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
                        f"{name!r} is infinite or NaN, for the sample {sample.name}; exclude it "
                        f"with set_op_name({name!r}, None)"
                    )
                lows[name] = min(lows[name], float(np.min(array, initial=np.inf)))
                highs[name] = max(highs[name], float(np.max(array, initial=-np.inf)))
    ranges = {value: (lows[name], highs[name]) for name, value in by_name.items()}
    for value in [*ranges]:
        alike = [each for each in together.get(value, (value,)) if each in ranges]
        bounds = np.array([ranges[each] for each in alike])
        ranges[value] = (float(bounds[:, 0].min()), float(bounds[:, 1].max()))
    return ranges


def _together(block: Block) -> dict[Value, set[Value]]:
    """The values that share a range: those of a concatenation, or of several in a row."""
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
    """One `quantize` for each value, and a separate `dequantize` for each of its readers."""
    places = {op: at for at, op in enumerate(rewriter.root.operations)}
    holders = {
        inner: op for op in places for block in op.blocks for inner in block.all_operations()
    }
    pairs: dict[tuple[Value, str, str], tuple[Value, dict[str, Argument]]] = {}
    read_so = {(use.value, use.reader) for use in uses}
    reading = {value: [*operations] for value, operations in readers(rewriter.root).items()}

    def place_of(operation: Operation) -> Operation:
        return holders.get(operation, operation)

    for use in uses:
        operations = list(dict.fromkeys(map(place_of, reading[use.value])))
        key = (use.value, use.config.dtype, use.config.mode)
        if key not in pairs:
            first = min(operations, key=places.__getitem__)
            pairs[key] = _quantized(rewriter, first, use, ranges[use.value])
        codes, steps = pairs[key]
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
    """The codes of a value before an operation, and the scale and zero point to read them with."""
    scale, zero_point = _steps(limits, use.config)
    stored_scale = np.asarray(scale, DTYPES[use.value.dtype].array)
    if not stored_scale:  # a value that is zero, or nearly so in half precision
        stored_scale = np.ones_like(stored_scale)
    steps: dict[str, Argument] = {"scale": constant(stored_scale, use.value.dtype)}
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
