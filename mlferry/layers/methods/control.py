"""Branches, loops and custom layers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mlferry.layers.methods.table import NewLayer, Params, method, row
from mlferry.spec.proto import neural_network_pb2 as nn

row("add_loop_break(name)")
row("add_loop_continue(name)")


@method("add_branch(name, input_name, if_branch=None, else_branch=None)")
def _branch(arguments: SimpleNamespace) -> Params:
    """Pass the branches as networks, or fill them in the layer that this returns."""
    return {
        "ifBranch": _network(arguments.if_branch),
        "elseBranch": _network(arguments.else_branch),
    }


@method(
    "add_loop(name, body_network=None, input_name=None, condition=None, condition_network=None, "
    "max_iterations=None)"
)
def _loop(arguments: SimpleNamespace) -> Params:
    """Pass the networks, or fill them in the layer that this returns."""
    return {
        "conditionNetwork": _network(arguments.condition_network),
        "bodyNetwork": _network(arguments.body_network),
        "conditionVar": None if arguments.condition is None else str(arguments.condition),
        "maxLoopIterations": arguments.max_iterations,
    }


def _network(network: object) -> Any:
    return {} if network is None else network


@method("add_custom(name, input_names, output_names, custom_proto_spec=None)")
def _custom(arguments: SimpleNamespace) -> NewLayer:
    """`custom_proto_spec` is a `CustomLayerParams` message."""
    params = nn.CustomLayerParams()
    if arguments.custom_proto_spec is not None:
        params.ParseFromString(arguments.custom_proto_spec.SerializeToString())
    return NewLayer("custom", params)
