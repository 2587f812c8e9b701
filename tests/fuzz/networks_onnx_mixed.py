"""Random ONNX graphs where features meet: functions, branches, half precision, free axes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

import mlferry
from tests.fuzz.network import Network
from tests.fuzz.networks_onnx import OPSET, STEPS, Graph, in_half, oracle_of

Array = np.ndarray[Any, Any]
DOMAIN = "local"


def as_function(rng: random.Random, model: Any) -> None:
    """One or two nodes become calls of a function of the model's own."""
    for number in range(rng.randint(1, 2)):
        index = rng.randrange(len(model.graph.node))
        node = model.graph.node[index]
        if node.domain or not all(node.input) or len(set(node.input)) < len(node.input):
            continue
        name = f"F{number}"
        model.functions.append(
            helper.make_function(
                DOMAIN, name, list(node.input), list(node.output), [node],
                [helper.make_opsetid("", OPSET)],
            )
        )  # fmt: skip
        call = helper.make_node(name, list(node.input), list(node.output), domain=DOMAIN)
        model.graph.node[index].CopyFrom(call)
    if model.functions:
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def as_branch(rng: random.Random, model: Any) -> None:
    """A node moves into both branches of an `If`, whose condition is known or computed."""
    index = rng.randrange(len(model.graph.node))
    node = model.graph.node[index]
    (result,) = node.output

    def branch(name: str, negated: bool) -> Any:
        inner = onnx.NodeProto()
        inner.CopyFrom(node)
        inner.output[0] = f"{name}_0"
        last = helper.make_node("Neg" if negated else "Identity", [f"{name}_0"], [name])
        return helper.make_graph(
            [inner, last], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]
        )

    ahead = []
    if rng.random() < 0.5:
        condition = "known"
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array(rng.random() < 0.5), condition)
        )
    else:
        condition = "computed"
        zero = onnx.numpy_helper.from_array(np.float32(0.1), "limit")
        model.graph.initializer.append(zero)
        ahead = [
            helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
            helper.make_node("Greater", ["total", "limit"], [condition]),
        ]
    actual = helper.make_node(
        "If", [condition], [result], then_branch=branch("then", False),
        else_branch=branch("else", True),
    )  # fmt: skip
    nodes = list(model.graph.node)
    nodes[index] = actual
    del model.graph.node[:]
    model.graph.node.extend([*ahead, *nodes])


def through_half(rng: random.Random, model: Any) -> None:
    """A value goes through half precision and back."""
    index = rng.randrange(len(model.graph.node))
    node = model.graph.node[index]
    place = next((i for i, name in enumerate(node.input) if name == "x" or name[:1] == "v"), None)
    if place is None:
        return
    name = node.input[place]
    node.input[place] = "whole"
    casts = [
        helper.make_node("Cast", [name], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["half"], ["whole"], to=TensorProto.FLOAT),
    ]
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:index], *casts, *nodes[index:]])


def with_dead_nodes(rng: random.Random, model: Any) -> None:
    """Nodes that no output needs, one of an op that nobody knows."""
    value = rng.choice(["x", *(node.output[0] for node in model.graph.node)])
    model.graph.node.append(helper.make_node("Abs", [value], ["dead"]))


def with_known_values(g: Graph) -> None:
    """A part of the graph is computed of constants alone, and joined with the rest."""
    shape = g.shapes["x"]
    g.shapes = {g.normal(*shape): shape}
    for _ in range(g.rng.randint(1, 4)):
        g.rng.choice(STEPS)(g)
    g.shapes["x"] = shape
    g.node("ReduceMax", "x", keepdims=0)
    g.node("Add", *[name for name in g.shapes if name != "x"][-2:])


def network(rng: random.Random) -> Network:
    """A model, its input, and what onnxruntime makes of inputs."""
    g = Graph(rng)
    if rng.random() < 0.2:
        with_known_values(g)
    for _ in range(rng.randint(2, 9)):
        rng.choice(STEPS)(g)
    if not g.nodes:
        g.node("Relu", "x")
    outputs = list(dict.fromkeys([g.nodes[-1].output[0], rng.choice(g.nodes).output[0]]))
    model = g.model(*outputs)
    half = False
    for change, chance in ((as_function, 0.4), (as_branch, 0.4), (with_dead_nodes, 0.2)):
        if rng.random() < chance:
            change(rng, model)
    if rng.random() < 0.2:
        half = True
        through_half(rng, model)
    version = 8 if model.functions else rng.choice((3, 4, 7, 8, 9, 10, 11, 12))
    model.ir_version = version
    for tensor in model.graph.initializer:
        if version < 4 or rng.random() < 0.1:  # older files list all among the inputs
            model.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    shape = g.shapes["x"]
    options: dict[str, Any] = {}
    others: list[Mapping[str, Array]] = []
    if rng.random() < 0.25:
        axis = model.graph.input[0].type.tensor_type.shape.dim[0]
        axis.ClearField("dim_value")
        axis.dim_param = "batch"
        kind = mlferry.TensorType("x", shape=(mlferry.RangeDim(1, 9, shape[0]), *shape[1:]))
        options["inputs"] = [kind]
        others = [
            {"x": g.values.standard_normal((n, *shape[1:])).astype(np.float32)}
            for n in (1, shape[0] + 1)
        ]
    x = g.values.standard_normal(shape).astype(np.float32)
    if half:  # then half precision changes nothing at the start, and little later
        x = x.astype(np.float16).astype(np.float32)
    limits = {"close": 5e-3, "rounding": 2.0**-11} if half else {}
    return Network(
        model, {"x": x}, oracle_of(model), options, others=others, half=lambda: in_half(model),
        **limits,
    )  # fmt: skip
