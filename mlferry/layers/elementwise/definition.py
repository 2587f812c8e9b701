"""Layers whose output has the shape of their input, or of their inputs broadcast."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.layers.definitions import (
    MANY,
    StoredWeight,
    StoredWeights,
    layer_kind,
    layer_rule,
    stored_weights,
)
from mlferry.layers.params import Params
from mlferry.numerics.shapes import Shape, broadcast
from mlferry.spec import weights
from mlferry.spec.problems import Problems, error, warning
from mlferry.spec.proto import neural_network_pb2 as nn

UNARY = (
    *("ceil", "floor", "sign", "round", "clip", "clampedReLU", "exp2", "erf", "gelu"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "logicalNot"),
    *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
)
N_ARY = ("add", "multiply", "average", "max", "min")
BROADCASTABLE = (
    "addBroadcastable",
    "multiplyBroadcastable",
    "maxBroadcastable",
    "minBroadcastable",
)
COMPARISONS = ("equal", "notEqual", "lessThan", "lessEqual", "greaterThan", "greaterEqual")
LOGICAL = ("logicalOr", "logicalXor", "logicalAnd")
BINARY = (
    *("subtractBroadcastable", "divideBroadcastable", "floorDivBroadcastable"),
    *("modBroadcastable", "powBroadcastable", *LOGICAL),
)


def _carries_gradient(layer: nn.NeuralNetworkLayer) -> bool:
    return layer.activation.WhichOneof("NonlinearityType") in ("ReLU", "sigmoid", "tanh")


@layer_kind("activation", inputs=1, gradient=_carries_gradient)
@layer_kind("unary", inputs=1, defaults={"epsilon": 1e-06, "scale": 1.0})
@layer_kind(*UNARY, inputs=1)
def unary(params: Params, shape: Shape) -> list[Shape]:
    return [shape]


@layer_kind(*N_ARY, inputs=(1, MANY))
@layer_kind(*BROADCASTABLE, inputs=2, evaluated=(1, MANY))
@layer_kind(*COMPARISONS, inputs=(1, 2))
def n_ary(params: Params, *shapes: Shape) -> list[Shape]:
    if not shapes:
        raise SpecError(f"a {params.kind} layer needs an input")
    return [broadcast(*shapes)]


@layer_kind(*BINARY, inputs=2)
def binary(params: Params, left: Shape, right: Shape) -> list[Shape]:
    return [broadcast(left, right)]


# ---- rules and stored weights ------------------------------------------------------------------


@layer_rule("activation")
def check_activation(layer: nn.NeuralNetworkLayer, params: nn.ActivationParams) -> Problems:
    """The function is set."""
    if params.WhichOneof("NonlinearityType") is None:
        yield error("NonlinearityType is not set")


@layer_rule("clip")
def bounds_are_ordered(layer: nn.NeuralNetworkLayer, params: nn.ClipLayerParams) -> Problems:
    """The lower bound is not above the upper."""
    if params.minVal > params.maxVal:
        yield warning(f"minVal {params.minVal:g} is above maxVal {params.maxVal:g}")


@stored_weights("activation")
def weights_of_activation(
    layer: nn.NeuralNetworkLayer, params: nn.ActivationParams
) -> StoredWeights:
    for function, fields in (("PReLU", ("alpha",)), ("parametricSoftplus", ("alpha", "beta"))):
        if params.WhichOneof("NonlinearityType") == function:
            for field in fields:
                yield StoredWeight(
                    f"{function}.{field}", getattr(getattr(params, function), field), None
                )


@layer_rule("activation")
def check_softplus_lengths(layer: nn.NeuralNetworkLayer, params: nn.ActivationParams) -> Problems:
    """alpha and beta are stored alike."""
    if params.WhichOneof("NonlinearityType") != "parametricSoftplus":
        return
    pair = params.parametricSoftplus
    try:
        results = [weights.encoding(each) for each in (pair.alpha, pair.beta)]
        counts = [weights.count(each) for each in (pair.alpha, pair.beta)]
    except SpecError:
        return
    if None in results:
        return
    if results[0] != results[1]:
        yield warning(
            f"parametricSoftplus.alpha is {results[0]}, beta {results[1]}; both must be one"
        )
    if 1 not in counts and counts[0] != counts[1]:
        yield error(f"parametricSoftplus has {counts[0]} alphas and {counts[1]} betas")
