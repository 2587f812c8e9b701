"""Programs that break one rule: what is found, where, and in which words."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import mlferry
from mlferry.errors import ValidationError
from mlferry.models.problems import validate
from mlferry.programs.definitions import definition_of
from mlferry.programs.types import type_of
from mlferry.programs.values import Weights
from mlferry.spec.problems import Problem
from mlferry.spec.proto import features_pb2 as ft, mil_pb2 as mil, model_pb2
from tests.fuzz import mutate
from tests.programs import by_hand
from tests.programs.by_hand import block_of, literal, operation, tensor
from tests.programs.small import SANE, VECTOR, classes, classifier

make: Any = pytest.importorskip("tests.programs.make")
rows: Any = pytest.importorskip("tests.programs.op_rows")

Model = model_pb2.Model


# ---- each op, broken in each way -----------------------------------------------------------------


class Whole(NamedTuple):
    """A sane program of an op.

    Attributes:
        op: its name.
        opset: of the program.
        spec: the message.
        folder: where its weights lie.
        label: what the test is called.
    """

    op: str
    opset: int
    spec: Model
    folder: Path
    label: str

    def copy(self) -> tuple[Model, mil.Operation]:
        """A copy of the message, and the operation in it."""
        spec = Model()
        spec.CopyFrom(self.spec)
        return spec, next(o for o in block_of(spec).operations if o.type == self.op)

    @property
    def operation(self) -> mil.Operation:
        return next(o for o in block_of(self.spec).operations if o.type == self.op)

    @property
    def weights(self) -> Weights:
        return Weights.of_folder(self.folder)

    def at(self, operation: mil.Operation) -> str:
        return f"function 'main' > {operation.type} {operation.outputs[0].name!r}"


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Whole]:
    """A program of each version of each op."""
    result: dict[str, Whole] = {}
    for row in rows.ROWS:
        label = f"{row.op}-{row.since}"
        if label not in result:
            folder = tmp_path_factory.mktemp("weights")
            spec = make.message(make.program(row.build, row.inputs, row.since), row.since, folder)
            result[label] = Whole(row.op, row.since, spec, folder, label)
    return result


LABELS = list(dict.fromkeys(f"{row.op}-{row.since}" for row in rows.ROWS))
each_op = pytest.mark.parametrize("label", LABELS)


def refused(whole: Whole, spec: Model, operation: mil.Operation) -> list[str]:
    """What is wrong with the operation; the whole model is refused."""
    problems = validate(spec, whole.weights)
    with pytest.raises(ValidationError):
        mlferry.MLModel(spec, weights_dir=whole.folder)
    where = whole.at(operation)
    return [problem.message for problem in problems if problem.where == where]


def given_names(operation: mil.Operation) -> list[str]:
    return [*sorted(operation.inputs), *sorted(operation.attributes.keys() - {"name"})]


def drop(operation: mil.Operation, name: str) -> None:
    for where in (operation.inputs, operation.attributes):
        if name in where:
            del where[name]


@each_op
def test_sane(label: str, wholes: dict[str, Whole]) -> None:
    assert validate(wholes[label].spec, wholes[label].weights) == []


@each_op
def test_a_parameter_is_missing(label: str, wholes: dict[str, Whole]) -> None:
    whole = wholes[label]
    required = 0
    for name, parameter in definition_of(whole.op, whole.opset).parameters.items():
        spec, operation = whole.copy()
        if name not in given_names(operation):
            continue
        drop(operation, name)
        if parameter.required:
            required += 1
            assert refused(whole, spec, operation) == [f"the parameter {name!r} is missing"]
    assert required or not any(
        p.required for p in definition_of(whole.op, whole.opset).parameters.values()
    )


@each_op
def test_a_parameter_is_not_known(label: str, wholes: dict[str, Whole]) -> None:
    whole = wholes[label]
    spec, operation = whole.copy()
    operation.inputs["strange"].arguments.add().value.CopyFrom(literal("fp32", 1.0))
    known = ", ".join(definition_of(whole.op, whole.opset).parameters)
    assert refused(whole, spec, operation) == [f"it has no parameter 'strange'; it has {known}"]


def bindings(operation: mil.Operation) -> Iterator[tuple[str, mil.Argument.Binding]]:
    for name in sorted(operation.inputs):
        for binding in operation.inputs[name].arguments:
            yield name, binding


@each_op
def test_a_name_that_nothing_makes(label: str, wholes: dict[str, Whole]) -> None:
    whole = wholes[label]
    for index, (name, _) in enumerate(bindings(whole.operation)):
        spec, operation = whole.copy()
        _, binding = list(bindings(operation))[index]
        binding.name = "nowhere"
        text = f"{name} is 'nowhere', which nothing before it makes"
        assert text in refused(whole, spec, operation)


WRONG: tuple[tuple[str, Any], ...] = (
    ("string", "a"), ("bool", True), ("fp32", 1.5), ("int32", 1),
)  # fmt: skip


@each_op
def test_a_parameter_of_another_type(label: str, wholes: dict[str, Whole]) -> None:
    whole = wholes[label]
    definition = definition_of(whole.op, whole.opset)
    for name in sorted(whole.operation.inputs):
        parameter = definition.parameters[name]
        dtypes = parameter.dtypes
        allowed = definition.variables[dtypes] if isinstance(dtypes, str) else dtypes
        for dtype, value in WRONG:
            if dtype in allowed or not parameter.tensor:
                continue
            spec, operation = whole.copy()
            del operation.inputs[name].arguments[:]
            operation.inputs[name].arguments.add().value.CopyFrom(literal(dtype, value))
            possible = ", ".join(sorted(allowed))
            text = f"{name} is {dtype} (); possible are {possible}"
            assert text in refused(whole, spec, operation)


@each_op
def test_a_parameter_with_two_values(label: str, wholes: dict[str, Whole]) -> None:
    whole = wholes[label]
    definition = definition_of(whole.op, whole.opset)
    for name in sorted(whole.operation.inputs):
        for count in (0, 2):
            spec, operation = whole.copy()
            if count and definition.parameters[name].many:
                continue
            arguments = operation.inputs[name].arguments
            if count:
                arguments.add().CopyFrom(arguments[0])
            else:
                del arguments[:]
            assert refused(whole, spec, operation) == [f"{name} has {count} values"]


@each_op
def test_a_constant_that_is_computed(label: str, wholes: dict[str, Whole]) -> None:
    """A value of the same type, which an operation in front makes."""
    whole = wholes[label]
    definition = definition_of(whole.op, whole.opset)
    for name, parameter in definition.parameters.items():
        spec, operation = whole.copy()
        if not parameter.constant or name not in operation.inputs or not parameter.tensor:
            continue
        (binding,) = operation.inputs[name].arguments
        place = [o.outputs[0].name for o in block_of(spec).operations].index(
            operation.outputs[0].name
        )
        same = operation_like(spec, binding)
        binding.Clear()
        binding.name = "computed"
        block = block_of(spec)
        rest = list(block.operations[place:])
        del block.operations[place:]
        block.operations.extend([same, *rest])
        operation = next(o for o in block.operations if o.type == whole.op)
        text = f"{name} is computed while the program runs; it has to be a constant"
        assert refused(whole, spec, operation) == [text]


def operation_like(spec: Model, binding: mil.Argument.Binding) -> mil.Operation:
    """A value `computed` of the type of what is bound; what it is of is another matter."""
    if binding.WhichOneof("binding") == "value":
        kind = binding.value.type
    else:
        kind = next(
            value.type
            for each in block_of(spec).operations
            for value in each.outputs
            if value.name == binding.name
        )
    return operation("identity", {"computed": kind}, {"x": "x"})


@each_op
def test_a_shape_against_that_of_the_file(label: str, wholes: dict[str, Whole]) -> None:
    whole = wholes[label]
    for index, value in enumerate(whole.operation.outputs):
        kind = value.type.tensorType
        if value.type.WhichOneof("type") != "tensorType" or not kind.dimensions:
            continue
        if kind.dimensions[0].WhichOneof("dimension") != "constant":
            continue
        was = type_of(value.type)
        spec, operation = whole.copy()
        operation.outputs[index].type.tensorType.dimensions[0].constant.size += 7
        said = type_of(operation.outputs[index].type)
        text = f"its output {value.name!r} is described as {said}; it is {was}"
        assert text in refused(whole, spec, operation)
        spec, operation = whole.copy()
        longer = operation.outputs[index].type.tensorType
        longer.dimensions.add().constant.size = 1
        longer.rank += 1
        said = type_of(operation.outputs[index].type)
        text = f"its output {value.name!r} is described as {said}; it is {was}"
        assert text in refused(whole, spec, operation)


@each_op
def test_elements_against_those_of_the_file(label: str, wholes: dict[str, Whole]) -> None:
    whole = wholes[label]
    for index, value in enumerate(whole.operation.outputs):
        if value.type.WhichOneof("type") != "tensorType":
            continue
        was = type_of(value.type)
        spec, operation = whole.copy()
        other = mil.FLOAT64 if index % 2 else mil.INT64
        operation.outputs[index].type.tensorType.dataType = other
        said = type_of(operation.outputs[index].type)
        text = f"its output {value.name!r} is described as {said}; it is {was}"
        assert text in refused(whole, spec, operation)


@each_op
def test_outputs_are_as_many_as_it_makes(label: str, wholes: dict[str, Whole]) -> None:
    whole = wholes[label]
    spec, operation = whole.copy()
    count = len(operation.outputs)
    operation.outputs.add(name="more", type=tensor("fp32"))
    assert refused(whole, spec, operation) == [f"it has {count + 1} outputs; it makes {count}"]


@each_op
def test_blocks_are_as_many_as_it_has(label: str, wholes: dict[str, Whole]) -> None:
    whole = wholes[label]
    spec, operation = whole.copy()
    count = len(operation.blocks)
    operation.blocks.add()
    text = f"it has {count + 1} blocks; {count} are needed"
    assert text in refused(whole, spec, operation)


@each_op
def test_an_op_that_is_misspelled(label: str, wholes: dict[str, Whole]) -> None:
    whole = wholes[label]
    spec, operation = whole.copy()
    operation.type += "X"
    (text,) = refused(whole, spec, operation)
    assert text.startswith(f"there is no op {whole.op + 'X'!r} in ML Programs.")


FIRST = {row.op: min(other.since for other in rows.ROWS if other.op == row.op) for row in rows.ROWS}
LATER = [label for label in LABELS if FIRST[label.split("-")[0]] > 5]


@pytest.mark.parametrize("label", LATER)
def test_an_opset_that_is_too_old(label: str, wholes: dict[str, Whole]) -> None:
    whole = wholes[label]
    first = FIRST[whole.op]
    spec, operation = whole.copy()
    function = spec.mlProgram.functions["main"]
    function.block_specializations[f"CoreML{first - 1}"].CopyFrom(block_of(spec))
    del function.block_specializations[function.opset]
    function.opset = f"CoreML{first - 1}"
    assert refused(whole, spec, operation) == [
        f"the op {whole.op!r} came with the opset CoreML{first}, not with CoreML{first - 1}"
    ]


AXES = {
    "argsort", "concat", "cumsum", "gather", "gather_along_axis", "one_hot", "reduce_argmax",
    "reduce_argmin", "scatter", "scatter_along_axis", "sliding_windows", "softmax", "split",
    "stack", "topk", "expand_dims", "layer_norm", "reduce_l1_norm", "reduce_l2_norm",
    "reduce_log_sum", "reduce_log_sum_exp", "reduce_max", "reduce_mean", "reduce_min",
    "reduce_prod", "reduce_sum", "reduce_sum_square", "reverse", "squeeze", "reverse_sequence",
    "flatten2d", "transpose", "constexpr_affine_dequantize", "dequantize",
}  # fmt: skip
_NAMES = ("axis", "axes", "seq_axis", "batch_axis", "perm")


@pytest.mark.parametrize("wrong", [-99, -7, 7, 99, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("label", [name for name in LABELS if name.split("-")[0] in AXES])
def test_an_axis_that_is_not_there(label: str, wrong: int, wholes: dict[str, Whole]) -> None:
    whole = wholes[label]
    for name in _NAMES:
        spec, operation = whole.copy()
        if name not in given_names(operation):
            continue
        list_like = name in ("axes", "perm")
        value = literal("int32", [wrong] if list_like else wrong)
        if name in operation.attributes:
            operation.attributes[name].CopyFrom(value)
        else:
            (binding,) = operation.inputs[name].arguments
            binding.value.CopyFrom(value)
        (text,) = refused(whole, spec, operation)
        assert str(wrong) in text
        assert "do not fit together" not in text


def give(operation: mil.Operation, name: str, value: mil.Value | str) -> None:
    """Another value for a parameter."""
    if name in operation.attributes and isinstance(value, mil.Value):
        operation.attributes[name].CopyFrom(value)
        return
    del operation.inputs[name].arguments[:]
    binding = operation.inputs[name].arguments.add()
    if isinstance(value, str):
        binding.name = value
    else:
        binding.value.CopyFrom(value)


def number(value: int) -> mil.Value:
    return literal("int32", value)


def numbers(*values: int) -> mil.Value:
    return literal("int32", np.array(values))


def text(value: str) -> mil.Value:
    return literal("string", value)


def floats(*shape: int) -> mil.Value:
    return literal("fp32", np.zeros(shape))


# A program, a parameter, another value for it, and what is said.
VALUES: list[tuple[str, str, mil.Value, str]] = [
    ("cast-5", "dtype", text("int64"), "dtype is 'int64'; possible are"),
    ("cast-5", "dtype", text(""), "dtype is ''; possible are"),
    ("concat-5", "values", floats(2, 3, 1), "concat"),
    ("pad-5", "mode", text("edge"), "mode is 'edge'; possible are constant, reflect, replicate"),
    ("pad-5", "pad", numbers(1, 0, 2), "pad is [1, 0, 2]"),
    ("pad-5", "pad", numbers(*[1] * 8), "takes two amounts for each last axis"),
    ("pad-5", "pad", numbers(-1, 0, 2, 1), "pad is [-1, 0, 2, 1]"),
    ("tile-5", "reps", numbers(1, 0), "reps is [1, 0]"),
    ("tile-5", "reps", numbers(1, 2, 3), "reps is [1, 2, 3]"),
    ("split-5", "split_sizes", numbers(1, 2), "parts of [1, 2] do not make axis 1"),
    ("range_1d-5", "step", number(0), "step is 0"),
    ("transpose-5", "perm", numbers(0, 0, 1), "is not a permutation"),
    ("transpose-5", "perm", numbers(0, 1), "is not a permutation"),
    ("gelu-5", "mode", text("exact"), "mode is 'exact'; possible are EXACT, SIGMOID_APPROX"),
    ("clip-7", "alpha", literal("fp32", 0.75), "alpha 0.75 is not below beta 0.75"),
    ("avg_pool-5", "ceil_mode", literal("bool", True), "with ceil_mode both ends are padded alike"),
    ("constexpr_sparse_to_dense-8", "nonzero_data", floats(1, 12), "it has one axis"),
    ("concat-5", "interleave", literal("bool", True), "cannot be joined along axis 1"),
    ("crop_resize-7", "box_indices", numbers(1), "box_indices has 1; x has 1 images"),
    ("reshape-5", "shape", numbers(-1, -1, 2), "only one extent may be -1"),
    ("reshape-5", "shape", numbers(5, 5), "does not fit into the shape [5, 5]"),
    ("reshape-5", "shape", numbers(7, -1), "does not fit into the shape [7, -1]"),
    ("squeeze-5", "axes", numbers(1), "are not all 1"),
    ("expand_dims-5", "axes", numbers(0, 0), "name one axis twice"),
    ("reverse-5", "axes", numbers(1, -1), "name one axis twice"),
    ("reduce_sum-5", "axes", numbers(0, -3), "name one axis twice"),
    ("reduce_argmax-7", "output_dtype", text("fp32"), "output_dtype is 'fp32'"),
    ("slice_by_index-5", "begin", numbers(1), "need an entry for each axis"),
    ("slice_by_index-5", "stride", numbers(1, 0, 1), "need an entry for each axis"),
    ("slice_by_size-5", "size", numbers(1), "need an entry for each axis"),
    ("sliding_windows-5", "size", number(7), "windows of 7 by 2 along axis 1"),
    ("sliding_windows-5", "stride", number(0), "windows of 3 by 0 along axis 1"),
    ("sliding_windows-5", "size", number(-1), "windows of -1 by 2"),
    ("depth_to_space-5", "block_size", number(3), "is not divided by 9"),
    ("depth_to_space-5", "block_size", number(0), "is not divided by 0"),
    ("space_to_depth-5", "block_size", number(5), "is not divided by 5"),
    ("space_to_depth-5", "block_size", number(-2), "is not divided by -2"),
    ("pixel_shuffle-5", "upscale_factor", number(3), "is not divided by 9"),
    ("gather-6", "batch_dims", number(2), "batch_dims is 2"),
    ("gather-6", "batch_dims", number(-1), "batch_dims is -1"),
    ("gather_nd-5", "indices", literal("int32", [[0, 1, 2]]), "name 3 axes of"),
    ("gather_along_axis-5", "indices", literal("int32", [[0], [1], [2]]), "do not go along axis"),
    ("scatter-5", "mode", text("set"), "mode is 'set'; possible are add, div, max, min, mul"),
    ("scatter-5", "updates", floats(3, 2), "updates is fp32 (3, 2); the shape (2, 2) is needed"),
    ("scatter_nd-5", "updates", floats(3), "updates is fp32 (3,); the shape (2,) is needed"),
    ("scatter_nd-5", "indices", literal("int32", [[0, 0, 0]]), "name 3 axes of"),
    ("scatter_along_axis-5", "updates", floats(2, 2), "the shape (1, 2) is needed"),
    ("scatter_along_axis-5", "indices", literal("int32", [[0]]), "do not go along axis 0"),
    ("topk-5", "k", number(6), "k is 6; axis 1 of"),
    ("topk-5", "k", number(0), "k is 0; axis 1 of"),
    ("topk-5", "k", number(-2), "k is -2; axis 1 of"),
    ("linear-5", "weight", floats(4, 2), "weight is fp32 (4, 2); fp32 (2, 3) needs [outputs, 3]"),
    ("linear-5", "weight", floats(4), "weight is fp32 (4,)"),
    ("linear-5", "bias", floats(3), "bias is fp32 (3,); it needs 4 values"),
    ("matmul-5", "y", floats(3, 3), "do not multiply"),
    ("matmul-5", "y", floats(), "both need an axis"),
    ("conv-5", "weight", floats(4, 3, 3), "has 2 channels"),
    ("conv-5", "weight", floats(4, 2), "both need the same 3 to 5 axes"),
    ("conv-5", "groups", number(3), "groups is 3"),
    ("conv-5", "groups", number(0), "groups is 0"),
    ("conv-5", "pad_type", text("none"), "pad_type is 'none'; possible are valid, same"),
    ("conv-5", "strides", numbers(0), "are at least 1"),
    ("conv-5", "strides", numbers(1, 1), "a window of 1 axes has 2 strides"),
    ("conv-5", "dilations", numbers(-1), "are at least 1"),
    ("conv-5", "pad", numbers(1), "1 amounts of padding"),
    ("conv-5", "bias", floats(3), "bias is fp32 (3,)"),
    ("conv_transpose-5", "weight", floats(3, 2, 3, 2), "has 2 channels"),
    ("conv_transpose-5", "groups", number(0), "both need the same 3 to 5 axes"),
    ("conv_transpose-5", "bias", floats(3), "bias is fp32 (3,)"),
    ("max_pool-5", "kernel_sizes", numbers(2), "kernel_sizes [2]"),
    ("max_pool-5", "kernel_sizes", numbers(0, 2), "are at least 1"),
    ("avg_pool-5", "pad_type", text(""), "pad_type is ''; possible are"),
    ("l2_pool-5", "strides", numbers(1), "a window of 2 axes has 1 strides"),
    ("batch_norm-5", "mean", floats(3), "mean is fp32 (3,)"),
    ("batch_norm-5", "gamma", floats(1), "gamma is fp32 (1,)"),
    ("instance_norm-5", "gamma", floats(3), "gamma is fp32 (3,)"),
    ("layer_norm-5", "gamma", floats(3), "gamma is fp32 (3,)"),
    ("layer_norm-5", "axes", numbers(0, 0), "name one axis twice"),
    ("local_response_norm-5", "size", number(0), "size 0"),
    ("prelu-5", "alpha", floats(3), "alpha is fp32 (3,)"),
    ("softplus_parametric-5", "beta", floats(1), "beta is fp32 (1,)"),
    ("lstm-5", "weight_ih", floats(12, 3), "weight_ih is fp32 (12, 3)"),
    ("lstm-5", "weight_hh", floats(11, 3), "weight_hh is fp32 (11, 3)"),
    ("lstm-5", "bias", floats(11), "bias is fp32 (11,); it needs 12 values"),
    ("lstm-5", "direction", text("both"), "direction is 'both'; possible are forward, reverse"),
    ("lstm-5", "direction", text("bidirectional"), "needs weight_ih_back"),
    ("lstm-5", "activation", text("selu"), "activation is 'selu'; possible are hard_sigmoid"),
    ("lstm-5", "initial_h", floats(2, 3), "initial_h is fp32 (2, 3)"),
    ("lstm-5", "initial_c", floats(1, 4), "initial_c is fp32 (1, 4)"),
    ("gru-5", "direction", text("bidirectional"), "direction is 'bidirectional'"),
    ("gru-5", "initial_h", floats(1, 4), "initial_h is fp32 (1, 4)"),
    ("rnn-5", "weight_hh", floats(3, 4), "weight"),
    ("rnn-5", "initial_h", floats(3), "initial_h is fp32 (3,)"),
    ("crop-5", "crop_height", numbers(2, 1), "a crop of [2, 1] from axis -2"),
    ("crop-5", "crop_width", numbers(-1, 0), "a crop of [-1, 0] from axis -1"),
    ("resize_bilinear-5", "sampling_mode", text("x"), "sampling_mode is 'x'; possible are DEFAULT"),
    ("resize_bilinear-5", "target_size_height", number(0), "the target size is (0, 7)"),
    ("resize-7", "interpolation_mode", text("x"), "interpolation_mode is 'x'"),
    ("crop_resize-5", "box_coordinate_mode", text("x"), "box_coordinate_mode is 'x'"),
    ("crop_resize-5", "roi", floats(1, 4), "(N, 1, 4 or 5, 1, 1) is needed"),
    ("crop_resize-7", "boxes", floats(1, 5), "(N, 4) is needed"),
    ("resample-5", "padding_mode", text("x"), "padding_mode is 'x'"),
    ("resample-5", "coordinates", floats(1, 2, 2, 3), "(B, H, W, 2) is needed"),
    ("affine-5", "sampling_mode", text("x"), "sampling_mode is 'x'"),
    ("affine-5", "transform_matrix", floats(1, 5), "(B or 1, 6) is needed"),
    ("quantize-7", "output_dtype", text("int32"), "output_dtype is 'int32'; int8 or uint8"),
    ("quantize-7", "scale", floats(2), "with a vector axis is needed"),
    ("dequantize-7", "scale", floats(3), "scale is fp32 (3,), along axis 0"),
    ("constexpr_cast-6", "output_dtype", text("fp16"), "output_dtype is 'fp16'"),
    ("constexpr_affine_dequantize-6", "scale", floats(5), "scale is fp32 (5,)"),
    ("constexpr_blockwise_shift_scale-8", "scale", floats(3, 3), "does not divide data"),
    ("constexpr_blockwise_shift_scale-8", "scale", floats(4, 6), "offset is uint8 (2, 3)"),
    ("constexpr_blockwise_shift_scale-8", "scale", floats(4), "does not divide data"),
    ("constexpr_lut_to_dense-8", "lut", floats(1, 1, 2), "a table of 3 axes for indices of 2"),
    ("constexpr_lut_to_dense-8", "lut", floats(3, 1, 2, 1), "3 groups of an axis of 4 indices"),
    ("constexpr_lut_to_dense-8", "lut", floats(1, 1, 4, 1), "lut is fp32 (1, 1, 4, 1); indices of"),
    ("einsum-5", "equation", text("nchw->nchw"), ""),
    ("softmax-5", "axis", numbers(1, 2), ""),
    ("scaled_dot_product_attention-8", "key", floats(1, 5, 3), "differ in their last axis"),
    ("scaled_dot_product_attention-8", "query", floats(3, 4), "need the same 3 or more axes"),
    ("scaled_dot_product_attention-8", "value", floats(1, 4, 2), "value is fp32 (1, 4, 2)"),
    ("list_write-5", "value", floats(3), "an element is fp32 (3,); ls is a list of"),
    ("list_write-5", "value", literal("int32", [1, 2]), "an element is int32 (2,); ls is a list"),
    ("list_scatter-5", "value", floats(3, 2), "indices are int32 (2,), value is fp32 (3, 2)"),
    ("make_list-5", "init_length", numbers(3, 3), "init_length is int32 (2,), not one number"),
    ("slice_update-8", "update", floats(2, 3), "update is fp32 (2, 3)"),
    ("select-5", "a", floats(2, 4), "do not broadcast"),
    ("non_maximum_suppression-5", "boxes", floats(1, 4, 5), "boxes (n, B, 4)"),
    ("non_maximum_suppression-7", "boxes", floats(1, 5, 4), "boxes (n, 4, B)"),
    ("non_maximum_suppression-5", "max_boxes", number(-1), "max_boxes is -1"),
    ("one_hot-5", "one_hot_vector_size", number(-1), "one_hot_vector_size is -1"),
    ("fill-5", "shape", numbers(2, -3), "shape is [2, -3]"),
    ("batch_to_space-5", "block_shape", numbers(3, 3), "is not divided by 9"),
    ("space_to_batch-5", "block_shape", numbers(3, 3), "is not divided by 3"),
    ("reverse_sequence-5", "lengths", numbers(1, 2, 3), "lengths is int32 (3,)"),
    ("upsample_bilinear-5", "scale_factor_height", number(0), "scale_factor_height is 0"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("label", "name", "value", "message"), VALUES,
    ids=[f"{label} {name} {type_of(value.type)} {i}"
         for i, (label, name, value, _) in enumerate(VALUES)],
)  # fmt: skip
def test_values_of_parameters(
    label: str, name: str, value: mil.Value, message: str, wholes: dict[str, Whole]
) -> None:
    whole = wholes[label]
    spec, operation = whole.copy()
    give(operation, name, value)
    actual = refused(whole, spec, operation)
    assert any(message in text for text in actual), actual
    assert not message or "do not fit together" not in str(actual)


# ---- one rule each, of programs written here -----------------------------------------------------

MAIN = "function 'main'"


@pytest.mark.parametrize("name", SANE)
def test_sane_programs(name: str) -> None:
    assert validate(SANE[name]()) == []


Change = Callable[[Model], Any]


def given(spec: Model) -> ft.FeatureType:
    """What is said of the first input."""
    return spec.description.input[0].type


def ops_of(spec: Model) -> Any:
    return block_of(spec).operations


def swap(spec: Model) -> None:
    """The first operation comes last."""
    operations = list(ops_of(spec))
    del ops_of(spec)[:]
    ops_of(spec).extend([*operations[1:], operations[0]])


def op_rename(index: int, name: str) -> Change:
    return lambda spec: setattr(ops_of(spec)[index].outputs[0], "name", name)


def end(which: str, **fields: Any) -> Change:
    """Fields of the multi-array of an end."""

    def change(spec: Model) -> None:
        array = getattr(spec.description, which)[0].type.multiArrayType
        for name, value in fields.items():
            if name == "shape":
                array.ClearField("shape")
                array.shape.extend(value)
            else:
                setattr(array, name, value)

    return change


def retyped(which: str, kind: str) -> Change:
    def change(spec: Model) -> None:
        feature = getattr(spec.description, which)[0].type
        feature.Clear()
        getattr(feature, kind).SetInParent()

    return change


def function_of(spec: Model) -> mil.Function:
    return spec.mlProgram.functions["main"]


BROKEN: list[tuple[str, str, Change, str, str]] = [
    # the function
    ("no functions", "plain", lambda s: s.mlProgram.ClearField("functions"), "program",
     "it has no functions"),
    ("main is missing", "plain", lambda s: (
        s.mlProgram.functions["other"].CopyFrom(function_of(s)),
        s.mlProgram.functions.pop("main")), "program",
     "the function 'main' is described, and not there"),
    ("opset unknown", "plain", lambda s: setattr(function_of(s), "opset", "CoreML4"), MAIN,
     "the opset 'CoreML4' is not known; known are CoreML5, CoreML6, CoreML7, CoreML8, CoreML9"),
    ("opset empty", "plain", lambda s: setattr(function_of(s), "opset", ""), MAIN,
     "the opset '' is not known; known are CoreML5, CoreML6, CoreML7, CoreML8, CoreML9"),
    ("opset without block", "plain", lambda s: setattr(function_of(s), "opset", "CoreML5"), MAIN,
     "it has no block for its opset CoreML5"),
    ("version too small", "plain", lambda s: setattr(s, "specificationVersion", 6), MAIN,
     "the opset CoreML6 needs version 7; the model has version 6"),
    ("block with inputs", "plain",
     lambda s: block_of(s).inputs.add(name="z", type=VECTOR), MAIN,
     "the block of a function has no inputs of its own"),
    # names
    ("output twice", "plain", op_rename(1, "w"), f"{MAIN} > add 'w'",
     "the name 'w' is given twice"),
    ("output as input", "plain", op_rename(1, "x"), f"{MAIN} > add 'x'",
     "the name 'x' is given twice"),
    ("input twice", "plain", lambda s: function_of(s).inputs.add(name="x", type=VECTOR), MAIN,
     "the name 'x' is given twice"),
    ("outputs of one op twice", "loop",
     lambda s: setattr(ops_of(s)[0].outputs[1], "name", "n"), f"{MAIN} > while_loop 'n'",
     "the name 'n' is given twice"),
    ("name with a space", "plain", op_rename(1, "a b"), f"{MAIN} > add 'a b'",
     "'a b' is no name: letters, digits, _ and @, no digit in front"),
    ("name with a digit in front", "plain", op_rename(1, "1a"), f"{MAIN} > add '1a'",
     "'1a' is no name: letters, digits, _ and @, no digit in front"),
    ("name with a dot", "plain", op_rename(1, "a.b"), f"{MAIN} > add 'a.b'",
     "'a.b' is no name: letters, digits, _ and @, no digit in front"),
    ("name of another alphabet", "plain", op_rename(1, "ä"), f"{MAIN} > add 'ä'",
     "'ä' is no name: letters, digits, _ and @, no digit in front"),
    ("name of digits elsewhere", "plain", op_rename(1, "a\u0663"), f"{MAIN} > add 'a\u0663'",
     "'a\u0663' is no name: letters, digits, _ and @, no digit in front"),
    ("name with a new line", "plain", op_rename(1, "a\n"), f"{MAIN} > add 'a\\n'",
     "'a\\n' is no name: letters, digits, _ and @, no digit in front"),
    ("name empty", "plain", op_rename(1, ""), f"{MAIN} > add ''",
     "'' is no name: letters, digits, _ and @, no digit in front"),
    ("order", "plain", swap, f"{MAIN} > add 'a'", "y is 'w', which nothing before it makes"),
    ("reads itself", "plain",
     lambda s: setattr(ops_of(s)[1].inputs["x"].arguments[0], "name", "a"), f"{MAIN} > add 'a'",
     "x is 'a', which nothing before it makes"),
    ("reads what comes later", "plain",
     lambda s: setattr(ops_of(s)[1].inputs["x"].arguments[0], "name", "y"), f"{MAIN} > add 'a'",
     "x is 'y', which nothing before it makes"),
    ("output that nothing makes", "plain", lambda s: block_of(s).outputs.append("q"), MAIN,
     "it gives 'q', which nothing makes"),
    ("reads out of a branch", "branches",
     lambda s: ops_of(s).append(operation("relu", {"z": VECTOR}, {"x": "b"})),
     f"{MAIN} > relu 'z'", "x is 'b', which nothing before it makes"),
    ("reads out of the other branch", "branches",
     lambda s: setattr(ops_of(s)[0].blocks[1].operations[0].inputs["x"].arguments[0], "name",
                       "b"),
     f"{MAIN} > cond 'y' > block 1 > relu 'c'", "x is 'b', which nothing before it makes"),
    ("name of the outside in a branch", "branches",
     lambda s: (setattr(ops_of(s)[0].blocks[1].operations[0].outputs[0], "name", "x"),
                ops_of(s)[0].blocks[1].outputs.__setitem__(0, "x")),
     f"{MAIN} > cond 'y' > block 1 > relu 'x'", "the name 'x' is given twice"),
    ("branch gives nothing", "branches",
     lambda s: ops_of(s)[0].blocks[1].outputs.__setitem__(0, "q"),
     f"{MAIN} > cond 'y' > block 1", "it gives 'q', which nothing makes"),
    # branches and loops
    ("branches of several counts", "branches",
     lambda s: ops_of(s)[0].blocks[1].outputs.append("c"), f"{MAIN} > cond 'y'",
     "there are 1 values in one branch and 2 in the other"),
    ("branches of several types", "branches",
     lambda s: ops_of(s)[0].blocks[1].operations[0].CopyFrom(
         operation("cast", {"c": tensor("int32", (3, 4))},
                   {"x": "x", "dtype": literal("string", "int32")})),
     f"{MAIN} > cond 'y'", "a value is fp32 (3, 4) in one branch and int32 (3, 4) in the other"),
    ("branch with an input", "branches",
     lambda s: ops_of(s)[0].blocks[0].inputs.add(name="q", type=VECTOR),
     f"{MAIN} > cond 'y' > block 0", "it takes 1 values; 0 are given"),
    ("name that is a number", "plain",
     lambda s: ops_of(s)[1].attributes["name"].CopyFrom(literal("int32", 1)),
     f"{MAIN} > add 'a'", "its attribute 'name' is int32 (), not a text"),
    ("name without a value", "plain",
     lambda s: ops_of(s)[1].attributes["name"].ClearField("immediateValue"),
     f"{MAIN} > add 'a'", "its attribute 'name': a constant of type string () has no value"),
    ("condition of numbers", "branches",
     lambda s: ops_of(s)[0].inputs["pred"].arguments[0].value.CopyFrom(literal("int32", 1)),
     f"{MAIN} > cond 'y'", "pred is int32 (); possible are bool"),
    ("loop with few values", "loop",
     lambda s: ops_of(s)[0].blocks[1].inputs.pop(), f"{MAIN} > while_loop 'n' > block 1",
     "it takes 1 values; 2 are given"),
    ("loop whose test is a number", "loop",
     lambda s: ops_of(s)[0].blocks[0].outputs.__setitem__(0, "n1"), f"{MAIN} > while_loop 'n'",
     "block 0 tells whether to go on, and gives int32 ()"),
    ("loop whose test is two values", "loop",
     lambda s: ops_of(s)[0].blocks[0].outputs.append("go"), f"{MAIN} > while_loop 'n'",
     "block 0 tells whether to go on, and gives bool (), bool ()"),
    ("loop that gives few values", "loop",
     lambda s: ops_of(s)[0].blocks[1].outputs.pop(), f"{MAIN} > while_loop 'n'",
     "there are 2 values in one branch and 1 in the other"),
    ("loop that gives values in another order", "loop",
     lambda s: (ops_of(s)[0].blocks[1].outputs.reverse()), f"{MAIN} > while_loop 'n'",
     "a value is int32 () in one branch and fp32 (3, 4) in the other"),
    ("loop whose block takes another type", "loop",
     lambda s: ops_of(s)[0].blocks[1].inputs[0].type.CopyFrom(tensor("fp32")),
     f"{MAIN} > while_loop 'n'", "block 1 takes fp32 () for 'n2', and is given int32 ()"),
    # constants
    ("constant without a value", "plain", lambda s: ops_of(s)[0].attributes.pop("val"),
     f"{MAIN} > const 'w'", "it has no value"),
    ("constant of another shape", "plain",
     lambda s: ops_of(s)[0].outputs[0].type.CopyFrom(tensor("fp32", (4, 3))),
     f"{MAIN} > const 'w'", "its value is fp32 (3, 4), its output fp32 (4, 3)"),
    ("constant of another type", "plain",
     lambda s: ops_of(s)[0].outputs[0].type.CopyFrom(tensor("int32", (3, 4))),
     f"{MAIN} > const 'w'", "its value is fp32 (3, 4), its output int32 (3, 4)"),
    ("constant of few values", "plain",
     lambda s: ops_of(s)[0].attributes["val"].immediateValue.tensor.floats.values.pop(),
     f"{MAIN} > const 'w'", "a constant of type fp32 (3, 4) has 11 values; 12 are needed"),
    ("constant in another field", "plain",
     lambda s: ops_of(s)[0].attributes["val"].immediateValue.tensor.ints.values.append(1),
     f"{MAIN} > const 'w'",
     "a constant of type fp32 (3, 4) has its values in ints; floats is needed"),
    ("constant of an open type", "plain",
     lambda s: ops_of(s)[0].attributes["val"].type.CopyFrom(tensor("fp32", (None, 4))),
     f"{MAIN} > const 'w'", "a constant has the open type fp32 (?, 4)"),
    ("constant of two outputs", "plain",
     lambda s: ops_of(s)[0].outputs.add(name="w2", type=VECTOR), f"{MAIN} > const 'w'",
     "a constant has one output, not 2"),
    ("constant in a file of no folder", "plain",
     lambda s: ops_of(s)[0].attributes["val"].CopyFrom(by_hand.stored("fp32", (3, 4), 64)),
     f"{MAIN} > const 'w'", "the weights lie in '@model_path/weights/weight.bin', and the model "
     "comes from no folder: give its path, 'model.mlpackage', or the folder of the weights, "
     "weights_dir=model.weights_dir"),
    # types
    ("type without dimensions", "plain",
     lambda s: ops_of(s)[1].outputs[0].type.tensorType.ClearField("dimensions"),
     f"{MAIN} > add 'a'", "the type of 'a': a type of rank 2 has 0 dimensions"),
    ("elements of no known type", "plain",
     lambda s: setattr(ops_of(s)[1].outputs[0].type.tensorType, "dataType", 0),
     f"{MAIN} > add 'a'", "the type of 'a': elements of the type number 0 are not known here"),
    ("no type", "plain", lambda s: ops_of(s)[1].outputs[0].type.Clear(), f"{MAIN} > add 'a'",
     "the type of 'a': a value has no type, or one of a newer format"),
    ("input without a type", "plain", lambda s: function_of(s).inputs[0].type.Clear(), MAIN,
     "the type of 'x': a value has no type, or one of a newer format"),
    # the ends
    ("input not in the function", "plain",
     lambda s: setattr(s.description.input[0], "name", "q"), MAIN,
     "the function has no input 'q', which is described"),
    ("input not described", "plain", lambda s: function_of(s).inputs.add(
        name="z", type=VECTOR), MAIN, "its input 'z' is not described"),
    ("output not in the function", "plain",
     lambda s: setattr(s.description.output[0], "name", "a"), MAIN,
     "the function does not give 'a', which is described"),
    ("input of another shape", "plain", end("input", shape=[4, 3]), f"{MAIN} > input 'x'",
     "it is described with the shape [4, 3], and is fp32 (3, 4)"),
    ("input of another rank", "plain", end("input", shape=[3, 4, 1]), f"{MAIN} > input 'x'",
     "it is described with the shape [3, 4, 1], and is fp32 (3, 4)"),
    ("output of another shape", "plain", end("output", shape=[12]), f"{MAIN} > output 'y'",
     "it is described with the shape [12], and is fp32 (3, 4)"),
    ("input of half precision", "plain",
     end("input", dataType=ft.ArrayFeatureType.FLOAT16), f"{MAIN} > input 'x'",
     "it is described as fp16, and is fp32 (3, 4)"),
    ("input of integers", "plain", end("input", dataType=ft.ArrayFeatureType.INT32),
     f"{MAIN} > input 'x'", "it is described as int32, and is fp32 (3, 4)"),
    ("input of doubles", "plain", end("input", dataType=ft.ArrayFeatureType.DOUBLE),
     f"{MAIN} > input 'x'", "it is described as fp64, and is fp32 (3, 4)"),
    ("output of integers", "plain", end("output", dataType=ft.ArrayFeatureType.INT32),
     f"{MAIN} > output 'y'", "it is described as int32, and is fp32 (3, 4)"),
    ("input of one number", "plain", retyped("input", "int64Type"), f"{MAIN} > input 'x'",
     "it is described as int64, and is fp32 (3, 4)"),
    ("input of a double", "plain", retyped("input", "doubleType"), f"{MAIN} > input 'x'",
     "it is described as double, and is fp32 (3, 4)"),
    ("input of a text", "plain", retyped("input", "stringType"), f"{MAIN} > input 'x'",
     "it is described as string, and is fp32 (3, 4)"),
    ("input of a sequence", "plain", retyped("input", "sequenceType"), f"{MAIN} > input 'x'",
     "it is described as sequenceType, which no program has"),
    ("output that is a dictionary", "plain", retyped("output", "dictionaryType"),
     f"{MAIN} > output 'y'", "it is described as a dictionary, and is fp32 (3, 4)"),
    ("output that is an image", "plain", retyped("output", "imageType"), f"{MAIN} > output 'y'",
     "it is described as an image, and is fp32 (3, 4); [1, C, H, W] is needed"),
    ("image of another height", "image",
     lambda s: setattr(given(s).imageType, "height", 5), f"{MAIN} > input 'x'",
     "it is described as an image of [1, 3, 5, 6], and is fp32 (1, 3, 4, 6)"),
    ("image of another width", "image",
     lambda s: setattr(given(s).imageType, "width", 4), f"{MAIN} > input 'x'",
     "it is described as an image of [1, 3, 4, 4], and is fp32 (1, 3, 4, 6)"),
    ("grey image of three channels", "image",
     lambda s: setattr(given(s).imageType, "colorSpace", ft.ImageFeatureType.GRAYSCALE),
     f"{MAIN} > input 'x'",
     "it is described as an image of [1, 1, 4, 6], and is fp32 (1, 3, 4, 6)"),
    ("grey image output of three channels", "image",
     lambda s: setattr(s.description.output[0].type.imageType, "colorSpace",
                       ft.ImageFeatureType.GRAYSCALE),
     f"{MAIN} > output 'y'",
     "it is described as an image of [1, 1, 4, 6], and is fp32 (1, 3, 4, 6)"),
    ("open type with one shape", "flexible",
     lambda s: given(s).multiArrayType.ClearField("shapeRange"), f"{MAIN} > input 'x'",
     "it is described with one shape, and is fp32 (?, 4)"),
    ("open type with another axis", "flexible", end("input", shape=[2, 5]),
     f"{MAIN} > input 'x'", "it is described with the shape [2, 5], and is fp32 (?, 4)"),
    ("range beyond the type", "flexible",
     lambda s: setattr(given(s).multiArrayType.shapeRange.sizeRanges[1], "upperBound", 9),
     f"{MAIN} > input 'x'", "axis 1 is described as 4 to 9, and is fp32 (?, 4)"),
    ("enumerated shape beyond the type", "flexible",
     lambda s: given(s).multiArrayType.enumeratedShapes.shapes.add(shape=[2, 5]),
     f"{MAIN} > input 'x'", "it is described with the shape [2, 5], and is fp32 (?, 4)"),
    ("range of a fixed type", "plain",
     lambda s: [given(s).multiArrayType.shapeRange.sizeRanges.add(
         lowerBound=n, upperBound=n + (n == 3)) for n in (3, 4)],
     f"{MAIN} > input 'x'", "axis 0 is described as 3 to 4, and is fp32 (3, 4)"),
    # classifiers
    ("label that is a number", "classifier",
     lambda s: s.description.output[0].type.int64Type.SetInParent(), f"{MAIN} > output 'label'",
     "it is described as int64, and is string ()"),
    ("label that is an array", "classifier",
     lambda s: s.description.output[0].type.multiArrayType.SetInParent(),
     f"{MAIN} > output 'label'", "it is described as None, and is string ()"),
    ("chances that are an array", "classifier",
     lambda s: s.description.output[1].type.multiArrayType.SetInParent(),
     f"{MAIN} > output 'chances'",
     "it is described as a multi-array, and is dictionary of string () to fp64 ()"),
    ("keys of another type", "classifier",
     lambda s: s.description.output[1].type.dictionaryType.int64KeyType.SetInParent(),
     f"{MAIN} > output 'chances'",
     "it is described as a dictionary of int64, and is dictionary of string () to fp64 ()"),
    ("labels and chances of several counts", "classifier",
     lambda s: ops_of(s)[1].inputs["classes"].arguments[0].value.CopyFrom(classes("cat")),
     f"{MAIN} > classify 'label'", "there are 1 classes for 2 probabilities"),
    ("classes that are fewer than told", "classifier",
     lambda s: ops_of(s)[1].inputs["classes"].arguments[0].value.immediateValue.list.values.pop(),
     f"{MAIN} > classify 'label'", "classes: a constant of type list of 2 string () has 1 values"),
    ("classes of another type", "classifier",
     lambda s: ops_of(s)[1].inputs["classes"].arguments[0].value.immediateValue.list.values[0]
     .CopyFrom(literal("int32", 1)),
     f"{MAIN} > classify 'label'",
     "classes: a constant of type list of 2 string () has values of another type"),
    ("classes that are no list", "classifier",
     lambda s: ops_of(s)[1].inputs["classes"].arguments[0].value.CopyFrom(
         literal("string", ["cat", "dog"])),
     f"{MAIN} > classify 'label'", "classes is a string (2,), not a list of labels"),
    ("chances of half precision", "classifier",
     lambda s: (function_of(s).inputs[0].type.CopyFrom(tensor("fp16", (2,))),
                ops_of(s)[0].outputs[0].type.CopyFrom(tensor("fp16", (2,)))),
     f"{MAIN} > classify 'label'", "probabilities is fp16 (2,); possible are fp32"),
    # states
    ("state not in the function", "stateful",
     lambda s: setattr(s.description.state[0], "name", "q"), MAIN,
     "the function has no input 'q', which is described"),
    ("state among the inputs", "stateful",
     lambda s: (s.description.input.add().CopyFrom(s.description.state[0]),
                s.description.ClearField("state")), MAIN,
     "the state 's' is described among the inputs"),
    ("state among the inputs too", "stateful",
     lambda s: s.description.input.add().CopyFrom(s.description.state[0]), MAIN,
     "the state 's' is described among the inputs"),
    ("input among the states", "stateful",
     lambda s: (s.description.state.add().CopyFrom(s.description.input[0]),
                s.description.ClearField("input")), MAIN,
     "'x' is described among the states, and not as one"),
    ("state not described", "stateful", lambda s: s.description.ClearField("state"), MAIN,
     "its input 's' is not described"),
    ("state of another shape", "stateful",
     lambda s: s.description.state[0].type.stateType.arrayType.shape.__setitem__(0, 3),
     f"{MAIN} > input 's'", "it is described with the shape [3], and is fp16 (2,)"),
    ("state of another type", "stateful",
     lambda s: setattr(s.description.state[0].type.stateType.arrayType, "dataType",
                       ft.ArrayFeatureType.FLOAT32),
     f"{MAIN} > input 's'", "it is described as fp32, and is fp16 (2,)"),
    ("state that is a tensor", "stateful",
     lambda s: function_of(s).inputs[1].type.CopyFrom(tensor("fp16", (2,))),
     f"{MAIN} > input 's'", "it is described as a state, and is fp16 (2,)"),
    ("tensor that is read as a state", "stateful",
     lambda s: setattr(ops_of(s)[0].inputs["input"].arguments[0], "name", "x"),
     f"{MAIN} > read_state 'old'", "input is a fp16 (2,), not a state"),
    ("tensor that is written as a state", "stateful",
     lambda s: setattr(ops_of(s)[2].inputs["input"].arguments[0], "name", "x"),
     f"{MAIN} > write_state ''", "input is a fp16 (2,), not a state"),
    ("state that takes another shape", "stateful",
     lambda s: ops_of(s)[2].inputs["data"].arguments[0].value.CopyFrom(
         fp16_literal((3,))),
     f"{MAIN} > write_state ''", "data is fp16 (3,); the state takes fp16 (2,)"),
    ("state in an old opset", "stateful", lambda s: (
        function_of(s).block_specializations["CoreML7"].CopyFrom(block_of(s)),
        setattr(function_of(s), "opset", "CoreML7")), f"{MAIN} > read_state 'old'",
     "the op 'read_state' came with the opset CoreML8, not with CoreML7"),
    # functions
    ("function not there", "functions", lambda s: s.mlProgram.functions.pop("other"), "program",
     "the function 'other' is described, and not there"),
    ("default function not there", "functions",
     lambda s: setattr(s.description, "defaultFunctionName", "q"), "program",
     "the default function 'q' is not described"),
    ("function described twice", "functions",
     lambda s: s.description.functions.add().CopyFrom(s.description.functions[0]), "program",
     "the function 'main' is described twice"),
    ("second function broken", "functions",
     lambda s: setattr(block_of(s, "other").operations[2], "type", "rely"),
     "function 'other' > rely 'y'",
     "there is no op 'rely' in ML Programs. Did you mean 'relu' or 'relu6' or 'prelu'?"),
    ("end of the second function", "functions",
     lambda s: setattr(s.description.functions[1].output[0], "name", "a"), "function 'other'",
     "the function does not give 'a', which is described"),
    # ops
    ("shapes that do not broadcast", "plain",
     lambda s: ops_of(s)[1].inputs["y"].arguments[0].value.CopyFrom(literal("fp32", [1.0] * 3)),
     f"{MAIN} > add 'a'", "shapes (3, 4), (3,) do not broadcast"),
    ("a float and an integer", "plain",
     lambda s: ops_of(s)[1].inputs["y"].arguments[0].value.CopyFrom(literal("int32", 1)),
     f"{MAIN} > add 'a'",
     "its parameters differ in the type of their elements: x fp32, y int32"),
]  # fmt: skip


def fp16_literal(shape: tuple[int, ...]) -> mil.Value:
    result = mil.Value(type=tensor("fp16", shape))
    result.immediateValue.tensor.bytes.values = np.zeros(shape, np.float16).tobytes()
    return result


@pytest.mark.parametrize(
    ("name", "base", "change", "where", "text"), BROKEN, ids=[row[0] for row in BROKEN]
)
def test_broken(name: str, base: str, change: Change, where: str, text: str) -> None:
    spec = SANE[base]()
    change(spec)
    problems = validate(spec)
    assert Problem("error", where, text) in problems
    with pytest.raises(ValidationError):
        mlferry.MLModel(spec)


def test_classifiers_name_their_outputs() -> None:
    spec = classifier()
    spec.description.predictedFeatureName = "q"
    spec.description.predictedProbabilitiesName = "r"
    assert validate(spec) == [
        Problem("warning", MAIN, "predictedFeatureName 'q' is no output"),
        Problem("warning", MAIN, "predictedProbabilitiesName 'r' is no output"),
    ]


# ---- against coremltools -------------------------------------------------------------------------


def theirs(spec: Model, folder: Path) -> str:
    """Why coremltools refuses a model; nothing where it takes it."""
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.proto import Model_pb2

    message = Model_pb2.Model()
    message.ParseFromString(spec.SerializeToString())
    try:
        load(message, spec.specificationVersion, str(folder))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("name", SANE)
def test_coremltools_takes_sane_programs(name: str, tmp_path: Path) -> None:
    assert theirs(SANE[name](), tmp_path) == ""


def mutants(whole: Whole, rng: random.Random, count: int) -> Iterator[Model]:
    """Copies with one change in the operation, and as many with one elsewhere."""
    for index in range(2 * count):
        spec, operation = whole.copy()
        every = mutate.messages(spec.mlProgram.functions["main"])
        places = every if index % 2 else mutate.messages(operation)
        mutate.edit(rng.choice(places), every, rng)
        yield spec


# What coremltools refuses for reasons of its own.
ITS_OWN = (
    "Docstring would get lost",
    "Variadic dimensions not yet implemented",
    'to the "affine" not implemented',
    "Functions input of type",
    "should be immediateValue, but got blobFileValue",
    "Deserialization from milproto listType to pymil is not implemented yet",
)


def described(name: str, folder: Path) -> Whole:
    spec = SANE[name]()
    return Whole(block_of(spec).operations[-1].type, 0, spec, folder, name)


@pytest.mark.parametrize("label", [*LABELS, *SANE])
def test_what_coremltools_refuses_is_refused(
    label: str, wholes: dict[str, Whole], tmp_path: Path
) -> None:
    whole = wholes[label] if label in wholes else described(label, tmp_path)
    for spec in mutants(whole, random.Random(label), 4):
        why = theirs(spec, whole.folder)
        if why and not any(text in why for text in ITS_OWN):
            problems = validate(spec, whole.weights)
            assert [p for p in problems if p.severity == "error"], why
