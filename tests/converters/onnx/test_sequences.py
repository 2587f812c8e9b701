"""Sequences and optional values inside of a graph, beside onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

import mlferry
from mlferry.errors import ConversionError

RNG = np.random.default_rng(7)
HEAD = '<ir_version: 8, opset_import: ["" : 17]> '
X = RNG.normal(size=(4, 6)).astype(np.float32)
PARTS = "two = Constant<value = int64 {2}>() s = SplitToSequence<axis = 0>(x, two) "
AT = "one = Constant<value = int64 {1}>() last = Constant<value = int64 {-1}>() "

# The nodes between float[4, 6] x and float y; the opset is 17.
ROWS = {
    "constructed, then joined": "a = Relu(x) s = SequenceConstruct(x, a, x) "
    "y = ConcatFromSequence<axis = 1>(s)",
    "stacked": "a = Relu(x) s = SequenceConstruct(x, a) "
    "y = ConcatFromSequence<axis = -1, new_axis = 1>(s)",
    "an entry": PARTS + AT + "y = SequenceAt(s, one)",
    "the last entry": PARTS + AT + "y = SequenceAt(s, last)",
    "inserted at the end": PARTS + "a = SequenceEmpty() b = SequenceInsert(a, x) "
    "c = SequenceInsert(b, x) y = ConcatFromSequence<axis = 0>(c)",
    "inserted before the last": PARTS + AT + "r = Relu(x) t = SequenceInsert(s, r, last) "
    "y = ConcatFromSequence<axis = 0>(t)",
    "inserted first": PARTS + "zero = Constant<value = int64 {0}>() r = Relu(x) "
    "t = SequenceInsert(s, r, zero) y = ConcatFromSequence<axis = 0>(t)",
    "erased": PARTS + "zero = Constant<value = int64 {0}>() t = SequenceErase(s, zero) "
    "y = ConcatFromSequence<axis = 0>(t)",
    "the last one erased": PARTS + "t = SequenceErase(s) y = ConcatFromSequence<axis = 0>(t)",
    "its length": PARTS + "n = SequenceLength(s) f = Cast<to = 1>(n) y = Mul(x, f)",
    "split into entries": "s = SplitToSequence<axis = 1, keepdims = 0>(x) "
    "one = Constant<value = int64 {1}>() y = SequenceAt(s, one)",
    "split into entries that keep the axis": "s = SplitToSequence<axis = 1>(x) "
    "one = Constant<value = int64 {1}>() y = SequenceAt(s, one)",
    "split into sizes": "z = Constant<value = int64[3] {1, 3, 2}>() "
    "s = SplitToSequence<axis = -1>(x, z) one = Constant<value = int64 {1}>() "
    "y = SequenceAt(s, one)",
    "split into parts and a rest": "z = Constant<value = int64 {4}>() "
    "s = SplitToSequence<axis = 1>(x, z) one = Constant<value = int64 {1}>() "
    "y = SequenceAt(s, one)",
    "split of a shape": "d = Shape(x) s = SplitToSequence<axis = 0, keepdims = 0>(d) "
    "one = Constant<value = int64 {1}>() n = SequenceAt(s, one) "
    "all = Constant<value = int64[1] {-1}>() m = Unsqueeze(n, zero) "
    "t = Concat<axis = 0>(all, m) y = Reshape(x, t)",
    "passed on": PARTS + AT + "t = Identity(s) y = SequenceAt(t, one)",
    "an optional value": "o = Optional(x) y = OptionalGetElement(o)",
    "whether a value is there": "o = Optional(x) h = OptionalHasElement(o) f = Cast<to = 1>(h) "
    "y = Mul(x, f)",
}  # fmt: skip
ROWS["split of a shape"] = "zero = Constant<value = int64[1] {0}>() " + ROWS["split of a shape"]


def model(nodes: str, more: str = "") -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEAD} g (float[4, 6] x{more}) => (float y) {{ {nodes} }}")


def agree(source: onnx.ModelProto, sample: dict[str, Any], **options: Any) -> None:
    session = onnxruntime.InferenceSession(source.SerializeToString())
    (expected,) = session.run(["y"], sample)
    for target in ("neuralnetwork", "mlprogram"):
        precision = {"compute_precision": "float32"} if target == "mlprogram" else {}
        converted = mlferry.convert(source, convert_to=target, **precision, **options)
        actual = np.asarray(converted.predict(sample)["y"])
        assert actual.size == np.size(expected)
        np.testing.assert_allclose(actual.reshape(np.shape(expected)), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ROWS)
def test_rows(name: str) -> None:
    source = model(ROWS[name])
    source.graph.output[0].type.tensor_type.ClearField("shape")
    agree(source, {"x": X})


@pytest.mark.parametrize("sizes", [(1, 3), (3, 1), (2, 2)])
def test_computed_sizes(sizes: tuple[int, int]) -> None:
    source = model(
        "s = SplitToSequence<axis = 0>(x, n) one = Constant<value = int64 {1}>() "
        "p = SequenceAt(s, one) y = ReduceSum<keepdims = 0>(p)", ", int64[2] n",
    )  # fmt: skip
    agree(source, {"x": X, "n": np.array(sizes)})


@pytest.mark.parametrize("position", [0, 1, -1, -2])
def test_a_computed_position(position: int) -> None:
    source = model(PARTS + "y = SequenceAt(s, i)", ", int64 i")
    source.graph.output[0].type.tensor_type.ClearField("shape")
    agree(source, {"x": X, "i": np.array(position)})


LOOP = """
    n = Constant<value = int64 {{{count}}}>() go = Constant<value = bool {{1}}>()
    first = SequenceEmpty()
    s = Loop(n, go, first) <body = b (int64 i, bool c, seq(float[4, 6]) before)
        => (bool again, seq(float[4, 6]) after)
        {{ again = Identity(c) f = Cast<to = 1>(i) e = Add(x, f)
           after = SequenceInsert(before, e) }}>
    y = ConcatFromSequence<axis = 0>(s)
"""


@pytest.mark.parametrize("count", [3, 20])
def test_a_loop_that_collects_entries(count: int) -> None:
    source = model(LOOP.format(count=count))
    source.graph.output[0].type.tensor_type.ClearField("shape")
    agree(source, {"x": X})


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "a position beyond the end": (
        lambda: model(PARTS + "n = Constant<value = int64 {7}>() y = SequenceAt(s, n)"),
        "position 7 in a sequence of 2 tensors",
    ),
    "nothing to join": (
        lambda: model("s = SequenceEmpty() y = ConcatFromSequence<axis = 0>(s)"),
        "a sequence without entries is joined",
    ),
    "another op": (
        lambda: model("s = SequenceConstruct(x, x) y = Relu(s)"),
        "its input 's' is a list of tensors, for which Core ML has no blob",
    ),
    "nothing to erase": (
        lambda: model("s = SequenceEmpty() t = SequenceErase(s) n = SequenceLength(t) "
                      "f = Cast<to = 1>(n) y = Mul(x, f)"),
        "position -1 in a sequence of 0 tensors",
    ),
    "a computed size": (
        lambda: model("s = SplitToSequence<axis = 0>(x, n) zero = Constant<value = int64 {0}>() "
                      "y = SequenceAt(s, zero)", ", int64 n"),
        "a sequence of parts whose number is computed",
    ),
    "a position of an entry that is added": (
        lambda: model(PARTS + "t = SequenceInsert(s, x, i) y = ConcatFromSequence<axis = 0>(t)",
                      ", int64 i"),
        "a computed position, at which a sequence changes",
    ),
    "a loop of computed length": (
        lambda: model(LOOP.format(count=3).replace("n = Constant<value = int64 {3}>()", ""),
                      ", int64 n"),
        "a loop of computed length, or of many rounds, that keeps a list of tensors",
    ),
    "an optional value that is not there": (
        lambda: model("o = Optional<type = float[4, 6]>() y = OptionalGetElement(o)"),
        "an optional value without content",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ConversionError, match=message):
        mlferry.convert(make())


def test_a_sequence_as_an_output() -> None:
    source = model(PARTS + "y = Relu(x)")
    source.graph.output.append(
        onnx.helper.make_tensor_sequence_value_info("s", onnx.TensorProto.FLOAT, None)
    )
    with pytest.raises(
        ConversionError, match="is a list of tensors, for which Core ML has no blob"
    ):
        mlferry.convert(source)
