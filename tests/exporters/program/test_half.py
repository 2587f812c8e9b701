"""Half precision: what computes in float16, what stays, and what coremltools makes of the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import ExportError
from mlferry.programs.builder import ProgramBuilder, list_of
from mlferry.programs.graph import Value, sweep
from mlferry.programs.passes.half import to_half
from mlferry.programs.types import TensorType
from mlferry.spec import features
from tests.exporters.onnx.support import spec_of
from tests.exporters.program.support import checked, model_of, read_by_coremltools, results
from tests.exporters.program.test_passes import Writer
from tests.layers.case import network
from tests.layers.naive import values as some

Typed = list[tuple[str, str]]


def typed(builder: ProgramBuilder) -> Typed:
    """Each operation, and the type of the first thing it makes."""
    return [
        (operation.op, operation.outputs[0].dtype)
        for operation in builder.block.all_operations()
        if operation.outputs and isinstance(operation.outputs[0].type, TensorType)
    ]


def half(builder: ProgramBuilder, *result: Value, keep: tuple[str, ...] = ()) -> Typed:
    builder.block.outputs = list(result)
    to_half(builder.block, builder.opset, keep)
    sweep(builder.block)
    return typed(builder)


def flag_of(b: Writer, x: Value) -> Value:
    peak = b.op("reduce_max", x=x, axes=list(range(x.rank)), keep_dims=False)
    return b.op("greater", x=peak, y=np.float32(0))


def branches(b: Writer) -> Value:
    x = b.x(2, 3)
    y, flag = b.op("exp", x=x), flag_of(b, x)
    with b.inside() as yes:
        yes.outputs = [b.op("add", x=y, y=np.float32(1e6))]  # float32, of what float16 stands for
    with b.inside() as no:
        no.outputs = [b.op("sin", x=y)]
    return b.op("cond", pred=flag, blocks=[yes, no])


def rounds(b: Writer) -> Value:
    start, count = b.op("exp", x=b.x(2, 3)), b.constant(np.int32(0))
    scalar = TensorType("int32", ())
    with b.inside() as condition:
        at = b.input("at", scalar)
        b.input("sum", start.tensor)
        condition.outputs = [b.op("less", x=at, y=np.int32(3))]
    with b.inside() as body:
        at, total = b.input("at2", scalar), b.input("sum2", start.tensor)
        body.outputs = [b.op("add", x=at, y=np.int32(1)), b.op("mul", x=total, y=start)]
    return b.ops("while_loop", loop_vars=[count, start], blocks=[condition, body])[1]


def read_by_two(b: Writer) -> Value:
    y, most = b.op("exp", x=b.x(2)), np.float32(1e5)
    return b.op("add", x=b.op("minimum", x=y, y=most), y=b.op("maximum", x=y, y=-most))


CAST_IN, CAST_OUT = ("cast", "fp16"), ("cast", "fp32")
LSTM = {"weight_ih": some(8, 3), "weight_hh": some(8, 2), "bias": some(8)}


def lstm(b: Writer) -> Value:
    zero = np.zeros((1, 2), np.float32)
    return b.ops("lstm", x=b.op("exp", x=b.x(4, 1, 3)), initial_h=zero, initial_c=zero, **LSTM,
                 direction="forward", output_sequence=True, recurrent_activation="sigmoid",
                 cell_activation="tanh", activation="tanh")[0]  # fmt: skip


# What is written, its opset, and its operations with the types of what they make.
ROWS: dict[str, tuple[Any, int, Typed]] = {
    "a chain": (
        lambda b: b.op("sin", x=b.op("exp", x=b.x(2))), 5,
        [CAST_IN, ("exp", "fp16"), ("sin", "fp16"), CAST_OUT],
    ),
    "constant that float16 just holds": (
        lambda b: b.op("add", x=b.x(2), y=np.float32(65504)), 5,
        [CAST_IN, ("add", "fp16"), CAST_OUT],
    ),
    "constant beyond float16": (
        lambda b: b.op("exp", x=b.op("add", x=b.op("sin", x=b.x(2)), y=np.float32(-65505))), 5,
        [CAST_IN, ("sin", "fp16"), CAST_OUT, ("add", "fp32"), ("clip", "fp32"), CAST_IN,
         ("exp", "fp16"), CAST_OUT],
    ),
    "infinity": (
        lambda b: b.op("minimum", x=b.x(2), y=np.float32(np.inf)), 5,
        [CAST_IN, ("minimum", "fp16"), CAST_OUT],
    ),
    "integers": (
        lambda b: b.op("add", x=b.x(2, dtype="int32"), y=np.int32(70000)), 5, [("add", "int32")],
    ),
    "float to integer": (
        lambda b: b.op("cast", x=b.op("exp", x=b.x(2)), dtype="int32"), 5,
        [CAST_IN, ("exp", "fp16"), ("cast", "int32")],
    ),
    "integer to float": (
        lambda b: b.op("exp", x=b.cast(b.x(2, dtype="int32"), "fp32")), 5,
        [CAST_IN, ("exp", "fp16"), CAST_OUT],
    ),
    "float16 from end to end": (
        lambda b: b.op("cast", x=b.op("exp", x=b.cast(b.x(2, dtype="fp16"), "fp32")),
                       dtype="fp16"), 6,
        [("exp", "fp16")],
    ),
    "what is computed once is cast once": (
        read_by_two, 5,
        [CAST_IN, ("exp", "fp16"), CAST_OUT, ("minimum", "fp32"), ("maximum", "fp32"),
         ("clip", "fp32"), CAST_IN, ("clip", "fp32"), CAST_IN, ("add", "fp16"), CAST_OUT],
    ),
    "branches": (
        branches, 5,
        [CAST_IN, ("exp", "fp16"), ("reduce_max", "fp16"), ("greater", "bool"), ("cond", "fp32"),
         CAST_OUT, ("add", "fp32"), ("sin", "fp16"), CAST_OUT],
    ),
    "rounds": (
        rounds, 5,
        [CAST_IN, ("exp", "fp16"), CAST_OUT, ("while_loop", "int32"), ("less", "bool"),
         ("add", "int32"), CAST_IN, ("mul", "fp16"), CAST_OUT],
    ),
    "lstm, which takes float32 only": (
        lstm, 5, [CAST_IN, ("exp", "fp16"), CAST_OUT, ("lstm", "fp32")],
    ),
    "lstm of iOS 17": (lstm, 7, [CAST_IN, ("exp", "fp16"), ("lstm", "fp16"), CAST_OUT]),
    "whole numbers on their way to a cast": (
        lambda b: b.op("cast", x=b.op("floor", x=b.op("add", x=b.op("reshape", x=b.op(
            "exp", x=b.x(2, 2)), shape=[4]), y=np.float32(1))), dtype="int32"), 5,
        [CAST_IN, ("exp", "fp16"), CAST_OUT, ("reshape", "fp32"), ("add", "fp32"),
         ("floor", "fp32"), ("cast", "int32")],
    ),
    "whole numbers that are given": (
        lambda b: b.cast(b.x(2, dtype="int32"), "fp32"), 5, [CAST_OUT],
    ),
    "one hot": (
        lambda b: b.op("one_hot", indices=b.x(2, dtype="int32"), one_hot_vector_size=np.int32(3),
                       on_value=np.float32(1), off_value=np.float32(0)), 5,
        [("one_hot", "fp16"), CAST_OUT],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_types(name: str, tmp_path: Path) -> None:
    make, opset, right = ROWS[name]
    builder = Writer(opset)
    builder.layer = "it"
    result = make(builder)
    builder.block.outputs = [result]
    names = [result.name]
    plain = model_of(builder)
    assert half(builder, result) == right
    assert [value.name for value in builder.block.outputs] == names
    model = checked(model_of(builder))
    read_by_coremltools(model, tmp_path)
    other = mlferry.MLModel(tmp_path / "model.mlpackage", engine="onnxruntime", threads=1)
    inputs = {
        value.name: np.rint(some(*value.shape)).astype(
            {"int32": np.int32, "fp16": np.float16}.get(value.dtype, np.float32)
        )
        for value in builder.block.inputs
    }
    (expected,) = results(plain, inputs, names)
    for each in (model, other):
        (actual,) = results(each, inputs, names)
        assert actual.dtype == expected.dtype
        np.testing.assert_allclose(actual, expected, rtol=2e-3, atol=2e-3)


def test_classify_gets_float32() -> None:
    builder = Writer()
    scores = builder.op("softmax", x=builder.x(3), axis=-1)
    result = builder.ops("classify", probabilities=scores, classes=list_of(["a", "b", "c"]))
    half(builder, *result)
    *_, last = builder.block.operations
    assert [value.dtype for value in last.operands() if isinstance(value.type, TensorType)] == [
        "fp32"
    ]


def test_numbers_that_would_become_zero() -> None:
    builder = Writer()
    tiny = np.float32([1e-12, -1e-12, 0, 1])
    result = builder.op("mul", x=builder.x(4), y=tiny)
    half(builder, result)
    (product,) = (op for op in builder.block.operations if op.op == "mul")
    constants = [value for value in product.operands() if value.is_constant]
    smallest = float(np.finfo(np.float16).smallest_subnormal)
    assert constants[0].constant.tolist() == [smallest, -smallest, 0, 1]


def root(b: Writer) -> Value:
    return b.op("rsqrt", x=b.x(2), epsilon=np.float32(1e-5))


def norm(b: Writer) -> Value:
    ones = np.ones(2, np.float32)
    return b.op("layer_norm", x=b.x(2), axes=[-1], gamma=ones, beta=ones, epsilon=np.float32(1e-5))


def bare_norm(b: Writer) -> Value:
    return b.op("layer_norm", x=b.x(2), axes=[-1], epsilon=np.float32(1e-5))


EPSILONS = {
    "root": (root, 5, "fp16"),
    "root of iOS 17": (root, 7, "fp32"),
    "norm": (norm, 5, "fp16"),
    "norm of iOS 17, whose factors are float16": (norm, 7, "fp16"),
    "norm of iOS 17 without factors": (bare_norm, 7, "fp32"),
}


@pytest.mark.parametrize("name", EPSILONS)
def test_parameters_may_be_of_another_type_from_ios_17_on(name: str, tmp_path: Path) -> None:
    make, opset, dtype = EPSILONS[name]
    builder = Writer(opset)
    result = make(builder)
    half(builder, result)
    (operation,) = (op for op in builder.block.operations if op.op != "cast")
    epsilon = operation.arguments["epsilon"]
    assert isinstance(epsilon, Value)
    assert epsilon.dtype == dtype
    read_by_coremltools(checked(model_of(builder)), tmp_path)


def test_names_that_casts_would_have() -> None:
    """Inputs and outputs keep theirs, whatever is added."""
    builder = Writer()
    x, other = builder.x(2), builder.x(2, name="x_to_fp16")
    one, two = builder.op("exp", x=x), builder.op("sin", x=other)
    one.name, two.name = "y", "y_fp16"
    half(builder, one, two)
    model = checked(model_of(builder))
    assert [f.name for f in model.spec.description.output] == ["y", "y_fp16"]
    actual = results(model, {"x": np.zeros(2), "x_to_fp16": np.zeros(2)}, ["y", "y_fp16"])
    assert [array.tolist() for array in actual] == [[1, 1], [0, 0]]


# ---- networks -----------------------------------------------------------------------------------


def of_network(kind: str, params: Any, shape: tuple[int, ...], dtype: str = "float32") -> Any:
    spec = spec_of(network(kind, params, 1, 1), {"x0": shape}, ["y0"])
    spec.description.output[0].type.CopyFrom(features.multi_array(None, dtype))
    return mlferry.MLModel(spec)


@pytest.mark.parametrize("engine", ["numpy", "onnxruntime"])
def test_indices_are_never_float16(engine: str, tmp_path: Path) -> None:
    """4,097 and odd numbers above 2,048 have no float16."""
    words = np.arange(5000, dtype=np.float32).reshape(5000, 1) % 2
    params = {"vocabSize": 5000, "embeddingSize": 1, "weights": {"floatValue": words.ravel()}}
    embedding = of_network("embeddingND", params, (3, 1))
    inputs = np.float32([[4097], [4999], [2050]])
    peak = np.zeros((1, 5000), np.float32)
    peak[0, 4097] = 3
    for model, x, expected in (
        (embedding, inputs, [[1], [1], [0]]),
        (of_network("argMax", {"axis": 1}, (1, 5000)), peak, [[4097]]),
        (of_network("argMax", {"axis": 1}, (1, 5000), "int32"), peak, [[4097]]),
    ):
        program = checked(mlferry.to_program(model))
        program.save(tmp_path / "m.mlpackage")
        again = mlferry.MLModel(tmp_path / "m.mlpackage", engine=engine)
        assert again.predict({"x0": x})["y0"].tolist() == expected


def sums() -> mlferry.MLModel:
    model = network("add", {"alpha": 1.0}, 1, 1)
    model.layers[0].name = "first"
    model.layers[0].output[0] = "h"
    model.layers.add(name="second", input=["h"], output=["y0"]).unary.type = 2  # inverse root
    model.layers[1].unary.scale = 1
    return mlferry.MLModel(spec_of(model, {"x0": (2,)}, ["y0"]))


def test_names_that_stay_in_float32() -> None:
    names = [
        op.outputs[0].name
        for op in _operations(mlferry.to_program(sums(), compute_precision="float32"))
        if op.type != "const"
    ]
    for name in names:
        program = checked(mlferry.to_program(sums(), compute_precision=[name]))
        types = {
            op.outputs[0].name: op.outputs[0].type.tensorType.dataType
            for op in _operations(program)
        }
        assert types[name] == 11  # FLOAT32
        assert (types[names[0]] == 11) == (name == names[0])


def _operations(model: mlferry.MLModel) -> Any:
    blocks = model.spec.mlProgram.functions["main"].block_specializations
    return next(iter(blocks.values())).operations


def test_names_that_check_precision_gives() -> None:
    """They are those of the program of half precision, whose outputs are cast."""
    model = mlferry.to_program(sums())
    report = mlferry.check_precision(model, [{"x0": np.float32([1, 2])}])
    matches = [each.name for each in report.operations]
    assert {"x0_to_fp16", "first_add", "y0_fp16"} <= set(matches)
    for name, kept in (("x0_to_fp16", "add"), ("first_add", "add"), ("y0_fp16", "inverse")):
        converted = checked(mlferry.to_program(sums(), compute_precision=[name]))
        types = {
            op.type: op.outputs[0].type.tensorType.dataType
            for op in _operations(converted)
            if op.type in ("add", "inverse")
        }
        assert types == {kind: 11 if kind == kept else 10 for kind in ("add", "inverse")}


def test_a_name_that_is_not_there() -> None:
    real = _operations(mlferry.to_program(sums(), compute_precision="float32"))[1].outputs[0].name
    with pytest.raises(ExportError, match=f"no operation '{real}x' .*Did you mean '{real}'"):
        mlferry.to_program(sums(), compute_precision=[f"{real}x"])


BAD_PRECISION = ["float17", "FLOAT16", 3, [3], {"a": 3.0}.values()]


@pytest.mark.parametrize("precision", BAD_PRECISION, ids=str)
def test_precision_that_is_none(precision: Any) -> None:
    with pytest.raises(ExportError, match="possible are 'float16', 'float32', and a list"):
        mlferry.to_program(sums(), compute_precision=precision)


# ---- coremltools' own ---------------------------------------------------------------------------


def perceptron() -> Any:
    from tests.programs.test_written_by_coremltools import keras, layers

    x = keras.Input((12,))
    y = layers.Dense(8, activation="relu")(x)
    return keras.Model(x, layers.Dense(3, activation="softmax")(layers.Dense(8)(y) * 0.5 + y))


def convolutions() -> Any:
    from tests.programs.test_written_by_coremltools import keras, layers

    x = keras.Input((16, 16, 3))
    y = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    y = layers.MaxPool2D()(layers.BatchNormalization()(layers.Conv2D(8, 3)(y)))
    return keras.Model(x, layers.Dense(5, activation="sigmoid")(layers.Flatten()(y)))


FLOATS = {10: "fp16", 11: "fp32"}


def float_types(model: mlferry.MLModel) -> dict[str, set[str]]:
    """The types of floats that each kind of operation makes."""
    matches: dict[str, set[str]] = {}
    for op in _operations(model):
        number = op.outputs[0].type.tensorType.dataType if op.outputs else 0
        if op.type != "const" and number in FLOATS:
            matches.setdefault(op.type, set()).add(FLOATS[number])
    return matches


@pytest.mark.parametrize("make", [perceptron, convolutions])
def test_as_coremltools_does_it(make: Any, tmp_path: Path) -> None:
    from tests.programs.test_written_by_coremltools import ct, tf

    model = make()
    call = tf.function(lambda data: model(data, training=False))
    sample = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name="data")
    converted = ct.convert(
        [call.get_concrete_function(sample)],
        source="tensorflow",
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS15,
        skip_model_load=True,
    )
    converted.save(str(tmp_path / "theirs.mlpackage"))
    theirs = float_types(mlferry.MLModel(tmp_path / "theirs.mlpackage"))
    ours = float_types(mlferry.convert(model, convert_to="mlprogram", compute_precision="float16"))
    common = theirs.keys() & ours.keys()
    assert {"cast", "relu"} <= common
    assert len(common) >= 4
    assert {kind: ours[kind] for kind in common} == {kind: theirs[kind] for kind in common}
    everywhere = set().union(*(types for kind, types in ours.items() if kind != "cast"))
    assert everywhere == {"fp16"}
