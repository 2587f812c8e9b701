"""Layers that draw random values."""

from __future__ import annotations

from mlferry.spec.params import Params
from mlferry.spec.shapes.dynamic import held
from mlferry.spec.shapes.rules import Shape, need_rank, rule


@rule("randomNormalLike", "randomUniformLike", "randomBernoulliLike")
def random_like(p: Params, shape: Shape) -> list[Shape]:
    return [shape]


@rule("randomNormalStatic", "randomUniformStatic", "randomBernoulliStatic")
def random_static(p: Params) -> list[Shape]:
    return [p.outputShape]


@rule("randomNormalDynamic", "randomUniformDynamic", "randomBernoulliDynamic")
def random_dynamic(p: Params, target: Shape) -> list[Shape]:
    return [held(target)]


@rule("categoricalDistribution")
def categorical_distribution(p: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 1)
    return [(*shape[:-1], p.numSamples)]
