"""`.mlmodel` files that were made to harm: an error of ours, in little time and memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import LimitError, MlferryError, ModelFileError
from mlferry.layers.builder import Builder
from mlferry.spec import features, fields
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn

Model = model_pb2.Model
Layers = list[tuple[str, list[str], list[str], dict[str, Any]]]


def network(*layers: tuple[str, list[str], list[str], dict[str, Any]]) -> Model:
    """A network from "x" of shape (1, 1, 4, 4) to "y", without any check."""
    spec = Model(specificationVersion=5)
    spec.description.input.add(name="x").type.CopyFrom(features.multi_array((1, 1, 4, 4)))
    spec.description.output.add(name="y").type.CopyFrom(features.multi_array(None))
    spec.neuralNetwork.arrayInputShapeMapping = nn.EXACT_ARRAY_MAPPING
    for index, (kind, inputs, outputs, params) in enumerate(layers):
        layer = spec.neuralNetwork.layers.add(name=f"l{index}", input=inputs, output=outputs)
        getattr(layer, kind).SetInParent()
        fields.fill(getattr(layer, kind), params)
    return spec


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def wrapped(depth: int, *numbers: int) -> bytes:
    """Messages in messages by the numbers of their fields, each with a version in front."""
    data = b""
    for _ in range(depth):
        for number in numbers:
            tag = varint(number << 3 | 2)
            data = tag + varint(len(data)) + data
    return b"\x08\x04" + data


HUGE = 2**64 - 1
FOUR = ["x"], ["y"]
GIANT = [1 << 20, 1 << 20]
LUT = {"rawValue": bytes(4), "quantization": {
    "numberOfBits": 2, "lookupTableQuantization": {"floatValue": [1.0, 2.0]}}}  # fmt: skip
SCALES = {"rawValue": bytes(4), "quantization": {
    "numberOfBits": 8, "linearQuantization": {"scale": [1.0, 2.0, 3.0]}}}  # fmt: skip
INNER = {"inputChannels": 4, "outputChannels": 1}


def endless(**params: Any) -> Model:
    """A loop whose condition stays true."""
    one = {"name": "one", "loadConstantND": {"shape": [1], "data": [1]}, "output": ["go"]}
    body = {"name": "in", "copy": {}, "input": ["x"], "output": ["z"]}
    loop = {"conditionVar": "go", "conditionNetwork": {"layers": [one]},
            "bodyNetwork": {"layers": [body]}, **params}  # fmt: skip
    return network(("copy", ["x"], ["z"], {}), ("loop", [], [], loop), ("round", ["z"], ["y"], {}))


def loops_in_loops(depth: int) -> Model:
    inner: dict[str, Any] = {"name": "in", "round": {}, "input": ["x"], "output": ["z"]}
    for level in range(depth):
        inner = {"name": f"l{level}", "loop": {
            "maxLoopIterations": 1000, "bodyNetwork": {"layers": [inner]}}}  # fmt: skip
    return network(("loop", [], [], inner["loop"]), ("round", ["z"], ["y"], {}))


def made_of_data(kind: str, *values: float, **params: Any) -> Model:
    constant = ("loadConstantND", [], ["s"], {"shape": [len(values)], "data": list(values)})
    inputs = ["s"] if kind.endswith("Dynamic") and "broadcast" not in kind else ["x", "s"]
    return network(constant, (kind, inputs, ["y"], params))


HOSTILE: dict[str, tuple[Callable[[], Any], str]] = {
    "pipelines of pipelines": (lambda: wrapped(2000, 1, 202), "damaged"),
    "branches of branches": (lambda: wrapped(2000, 1, 605, 1), "damaged|known kind|no layers"),
    "too few weights": (
        lambda: network(("innerProduct", *FOUR, {**INNER, "weights": np.ones(3)})), "needs 4",
    ),
    "too many channels": (
        lambda: network(("innerProduct", *FOUR, {"inputChannels": HUGE, "outputChannels": HUGE,
                                                 "weights": np.ones(1)})), "weights",
    ),
    "channels whose product is 0 in 64 bits": (
        lambda: network(("innerProduct", *FOUR, {
            "inputChannels": 1 << 32, "outputChannels": 1 << 32})), "weights",
    ),
    "a lookup table of another length": (
        lambda: network(("innerProduct", *FOUR, {**INNER, "weights": LUT})), "entries",
    ),
    "scales of another number": (
        lambda: network(("innerProduct", *FOUR, {**INNER, "weights": SCALES})), "scale",
    ),
    "a constant of overflowing shape": (
        lambda: network(("loadConstantND", [], ["y"], {"shape": [1 << 32, 1 << 32]})),
        "is not stored",
    ),
    "a loop without end": (endless, r"the rounds of its loops are 100,001; .*rounds=131072\)"),
    "loops of loops": (lambda: loops_in_loops(6), "rounds="),
    "fillStatic": (lambda: network(("fillStatic", [], ["y"], {"targetShape": GIANT})), "blob="),
    "fillStatic of overflowing shape": (
        lambda: network(("fillStatic", [], ["y"], {"targetShape": [HUGE, 2]})), "blob=",
    ),
    "upsample": (
        lambda: network(("upsample", *FOUR, {"scalingFactor": [1 << 18, 1 << 18]})), "blob=",
    ),
    "resizeBilinear": (
        lambda: network(("resizeBilinear", *FOUR, {"targetSize": GIANT})), "blob=",
    ),
    "tile": (lambda: network(("tile", *FOUR, {"reps": [1, 1, *GIANT]})), "blob="),
    "tile by data": (lambda: made_of_data("tile", 1, 1, *GIANT), "blob="),
    "fillDynamic": (lambda: made_of_data("fillDynamic", *GIANT), "blob="),
    "rangeDynamic": (lambda: made_of_data("rangeDynamic", 1e12, stepSizeValue=1.0), "blob="),
    "randomNormalDynamic": (
        lambda: made_of_data("randomNormalDynamic", *GIANT, stdDev=1.0), "blob=",
    ),
    "oneHot": (
        lambda: network(("oneHot", *FOUR, {"oneHotVectorSize": 1 << 30, "axis": -1})), "blob=|rank",
    ),
    "constantPad": (
        lambda: network(("constantPad", *FOUR, {"padAmounts": [1 << 40] * 8})), "blob=",
    ),
    "padding": (
        lambda: network(("padding", *FOUR, {"constant": {}, "paddingAmounts": {"borderAmounts": [
            {"startEdgeSize": 1 << 40}, {"startEdgeSize": 1 << 40}]}})), "blob=",
    ),
    "a convolution of padding": (
        lambda: network(("convolution", *FOUR, {
            "outputChannels": 1, "kernelChannels": 1, "kernelSize": [1, 1], "weights": np.ones(1),
            "valid": {"paddingAmounts": {"borderAmounts": [
                {"startEdgeSize": 1 << 30}, {"startEdgeSize": 1 << 30}]}}})), "blob=",
    ),
    "broadcast, then computed": (
        lambda: network(
            ("squeeze", ["x"], ["a"], {"axes": [0, 1]}),
            ("sliceStatic", ["a"], ["b"], {
                "beginIds": [0, 0], "endIds": [1, 1], "strides": [1, 1],
                "beginMasks": [False, False], "endMasks": [False, False]}),
            ("broadcastToStatic", ["b"], ["c"], {"targetShape": GIANT}),
            ("round", ["c"], ["y"], {})), "blob=",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_models(name: str, tmp_path: Path) -> None:
    build, message = HOSTILE[name]
    result = build()
    path = tmp_path / "m.mlmodel"
    path.write_bytes(result if isinstance(result, bytes) else result.SerializeToString())
    start = time.monotonic()
    with pytest.raises(MlferryError, match=message):
        mlferry.MLModel(path).predict({"x": np.ones((1, 1, 4, 4))})
    assert time.monotonic() - start < 30


def test_a_large_default(tmp_path: Path) -> None:
    spec = network(("round", ["x"], ["y"], {}))
    array = spec.description.input[0].type
    array.isOptional = True
    array.multiArrayType.shape[:] = GIANT
    array.multiArrayType.floatDefaultValue = 1
    with pytest.raises(MlferryError, match="blob="):
        mlferry.MLModel(spec).predict({})


def test_limits_of_a_run_can_be_raised() -> None:
    builder = Builder()
    builder.input("x", (1, 4))
    builder.layer("round", "r", ["x"], ["y"])
    builder.output("y")
    model = mlferry.MLModel(builder.model())
    with mlferry.limits.changed(blob=15), pytest.raises(LimitError, match=r"shape \(1, 4\)"):
        model.predict({"x": np.ones((1, 4))})
    assert model.predict({"x": np.ones((1, 4))})["y"].shape == (1, 4)


def test_a_file_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.mlmodel")
    with pytest.raises(ModelFileError, match="not a plain file"):
        mlferry.MLModel(tmp_path / "m.mlmodel")
    (tmp_path / "big.mlmodel").touch()
    os.truncate(tmp_path / "big.mlmodel", 1 << 31)
    with pytest.raises(LimitError, match=r"has 2,147,483,648 bytes; a message of protobuf has"):
        mlferry.MLModel(tmp_path / "big.mlmodel")
