"""Control flow makes no blobs itself; the networks inside do."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.layers.definitions import (
    MANY,
    Change,
    RankUnknownError,
    layer_kind,
    layer_rule,
    size_check,
)
from mlferry.layers.params import Params
from mlferry.numerics.shapes import Shape
from mlferry.spec import weights
from mlferry.spec.problems import Problems, error, warning
from mlferry.spec.proto import neural_network_pb2 as nn

TRUE_ABOVE = 1e-6  # the absolute value above which a condition holds


@layer_kind("branch", inputs=1, outputs=0)
@layer_kind("loop", inputs=(0, 1), outputs=0)
@layer_kind("loopBreak", "loopContinue", inputs=0, outputs=0)
def control_flow(params: Params, *shapes: Shape) -> list[Shape]:
    return []


@size_check("loop")
def bound_loop(params: Params, change: Change) -> str:
    """The inputs are all blobs that the loop, or a network inside it, reads."""
    bound = params.maxLoopIterations and not change.recorded
    return f"it makes {params.maxLoopIterations} rounds, whatever the size" if bound else ""


@layer_kind("custom", inputs=(1, MANY), outputs=(1, MANY))
def custom(params: Params, *shapes: Shape) -> list[Shape]:
    """Only the class of the layer knows its output shapes."""
    raise RankUnknownError


# ---- rules and stored weights ------------------------------------------------------------------


@layer_rule("custom")
def check_custom(layer: nn.NeuralNetworkLayer, params: nn.CustomLayerParams) -> Problems:
    """The class is named; parameters have values."""
    if not params.className:
        yield error("className is empty; it names the class that evaluates the layer")
    for name in sorted(params.parameters):
        if params.parameters[name].WhichOneof("value") is None:
            yield warning(f"parameter {name!r} has no value")


@layer_rule("branch")
def check_branch(layer: nn.NeuralNetworkLayer, params: nn.BranchLayerParams) -> Problems:
    """There is something to do."""
    if not params.ifBranch.layers:
        yield error("ifBranch has no layers")


@layer_rule("loop")
def check_loop(layer: nn.NeuralNetworkLayer, params: nn.LoopLayerParams) -> Problems:
    """There is something to do, and an end to it."""
    condition = params.conditionNetwork.layers
    if not params.bodyNetwork.layers:
        yield error("bodyNetwork has no layers")
    if bool(condition) != bool(params.conditionVar):
        yield error(
            f"conditionVar is {params.conditionVar!r} and conditionNetwork has {len(condition)} "
            "layers; both are needed, or none"
        )
    if not (condition or params.maxLoopIterations or layer.input):
        yield error("nothing ends it: no input, no conditionNetwork, maxLoopIterations 0")


@layer_rule("custom")
def check_custom_weights(layer: nn.NeuralNetworkLayer, params: nn.CustomLayerParams) -> Problems:
    """Each weight of a custom layer is stored in one encoding."""
    for index, stored in enumerate(params.weights):
        try:
            if weights.encoding(stored) is None:
                yield warning(f"weights[{index}] is empty")
        except SpecError as problem:
            yield error(f"weights[{index}]: {problem}")
