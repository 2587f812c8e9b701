"""What a conversion keeps in memory: the weights of the source go before a program is written."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.converters import convert as converting
from mlferry.converters.graph import Graph
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import constant
from mlferry.programs.passes.fusions.into_weights import into_weights
from mlferry.programs.passes.rewriting import Rewriter
from mlferry.programs.types import TensorType

Library = Callable[[str], Any]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many graphs of sources were there when programs were written, without a collection."""
    counts: list[int] = []
    # proxies of objects that are gone fail when they are asked for their class
    before = {id(each) for each in gc.get_objects() if type(each) is Graph}
    as_program = converting.as_program

    def counting(*arguments: Any) -> Any:
        matches = [each for each in gc.get_objects() if type(each) is Graph]
        counts.append(sum(id(each) not in before for each in matches))
        return as_program(*arguments)

    monkeypatch.setattr(converting, "as_program", counting)
    gc.collect()
    gc.disable()
    try:
        yield counts
    finally:
        gc.enable()


def of_keras(library: Library, folder: Path) -> str:
    layers = library("keras").layers
    model = library("keras").Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    model.save(folder / "model.h5")
    return str(folder / "model.h5")


def of_onnx(library: Library, folder: Path) -> str:
    onnx = library("onnx")
    helper, numbers = onnx.helper, np.ones((4, 4), np.float32)

    def branch(name: str, op: str) -> Any:
        node = helper.make_node(op, ["x"], [name])
        value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, 4))
        return helper.make_graph([node], name, [], [value])

    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("ReduceSum", ["y"], ["sum"], keepdims=0),
            helper.make_node("Cast", ["sum"], ["is_more"], to=onnx.TensorProto.BOOL),
            helper.make_node(
                "If",
                ["is_more"],
                ["z"],
                then_branch=branch("a", "Relu"),
                else_branch=branch("b", "Neg"),
            ),
        ],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 4))],
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, (1, 4))],
        [onnx.numpy_helper.from_array(numbers, "w")],
    )
    onnx.save(helper.make_model(graph), folder / "model.onnx")
    return str(folder / "model.onnx")


def of_tensorflow(library: Library, folder: Path) -> str:
    tf = library("tensorflow")
    weight = tf.constant(np.ones((4, 2), np.float32))
    x = tf.TensorSpec((1, 4), tf.float32, name="x")
    graph = tf.function(lambda x: tf.nn.relu(x @ weight)).get_concrete_function(x).graph
    (folder / "model.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return str(folder / "model.pb")


@pytest.mark.parametrize("source", [of_keras, of_onnx, of_tensorflow])
def test_the_source_is_let_go_before_a_program_is_written(
    source: Callable[[Library, Path], str], library: Library, tmp_path: Path, graphs: list[int]
) -> None:
    mlferry.convert(source(library, tmp_path), convert_to="mlprogram")
    assert graphs == [0]


def test_a_weight_is_let_go_when_a_factor_is_folded_into_it() -> None:
    builder = ProgramBuilder(5)
    x = builder.input("x", TensorType("fp32", (1, 3, 8, 8)))
    weight = np.ones((4, 3, 3, 3), np.float32)
    result = builder.op("conv", x=x, weight=constant(weight, "fp32"))
    factor = constant(np.arange(1, 5, dtype=np.float32).reshape(1, 4, 1, 1), "fp32")
    builder.block.outputs.append(builder.op("mul", x=result, y=factor))
    held = weakref.ref(weight)
    del weight
    rewriter = Rewriter(builder.block, 5)
    assert into_weights(rewriter, builder.block.operations[0])
    assert held() is None
