"""Branches, loops and custom layers."""

from __future__ import annotations

from typing import Any

from mlferry.layers.methods.table import Layer, Params, method, row
from mlferry.spec.proto import neural_network_pb2 as nn

row("add_loop_break(name)")
row("add_loop_continue(name)")


@method("add_branch(name, input_name, if_branch=None, else_branch=None)")
def _branch(given: Any) -> Params:
    """The branches are networks, or are filled in the layer that is returned."""
    return {"ifBranch": _network(given.if_branch), "elseBranch": _network(given.else_branch)}


@method(
    "add_loop(name, body_network=None, input_name=None, condition=None, condition_network=None, "
    "max_iterations=None)"
)
def _loop(given: Any) -> Params:
    """The networks are given, or are filled in the layer that is returned."""
    return {
        "conditionNetwork": _network(given.condition_network),
        "bodyNetwork": _network(given.body_network),
        "conditionVar": None if given.condition is None else str(given.condition),
        "maxLoopIterations": given.max_iterations,
    }


def _network(network: Any) -> Any:
    return {} if network is None else network


@method("add_custom(name, input_names, output_names, custom_proto_spec=None)")
def _custom(given: Any) -> Layer:
    """`custom_proto_spec` is a `CustomLayerParams` message."""
    params = nn.CustomLayerParams()
    if given.custom_proto_spec is not None:
        params.ParseFromString(given.custom_proto_spec.SerializeToString())
    return Layer("custom", params)
