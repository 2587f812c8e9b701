"""Layers that draw random values."""

from __future__ import annotations

from mlferry.layers.definitions import EXTENTS, layer_kind, layer_rule
from mlferry.layers.dynamic.definition import held
from mlferry.layers.elementwise.definition import bounds_are_ordered
from mlferry.layers.params import Params
from mlferry.numerics.shapes import Shape, need_rank
from mlferry.spec.problems import Problems, warning
from mlferry.spec.proto import neural_network_pb2 as nn

_LIKE, _STATIC, _DYNAMIC = (
    [f"random{name}{form}" for name in ("Normal", "Uniform", "Bernoulli")]
    for form in ("Like", "Static", "Dynamic")
)
RANDOM = (*_LIKE, *_STATIC, *_DYNAMIC)


@layer_kind(*_LIKE, inputs=1)
def random_like(params: Params, shape: Shape) -> list[Shape]:
    return [shape]


@layer_kind(*_STATIC, inputs=0, lists={"outputShape": EXTENTS})
def random_static(params: Params) -> list[Shape]:
    return [params.outputShape]


@layer_kind(*_DYNAMIC, inputs=1)
def random_dynamic(params: Params, target: Shape) -> list[Shape]:
    return [held(target)]


@layer_kind(
    "categoricalDistribution",
    inputs=1,
    defaults={"numSamples": 1, "eps": 1e-10, "temperature": 1.0},
    positive=("numSamples",),
)
def categorical_distribution(params: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 1)
    return [(*shape[:-1], params.numSamples)]


# ---- rules ------------------------------------------------------------------


layer_rule("randomUniformLike", "randomUniformStatic", "randomUniformDynamic")(bounds_are_ordered)


@layer_rule("randomBernoulliLike", "randomBernoulliStatic", "randomBernoulliDynamic")
def check_probability(
    layer: nn.NeuralNetworkLayer,
    params: nn.RandomBernoulliDynamicLayerParams
    | nn.RandomBernoulliLikeLayerParams
    | nn.RandomBernoulliStaticLayerParams,
) -> Problems:
    """A probability is in 0..1."""
    if not 0 <= params.prob <= 1:
        yield warning(f"prob is {params.prob:g}; it must be from 0 to 1")
