"""Upsampling and resizing of height and width."""

from __future__ import annotations

import math

from mlferry.errors import SpecError
from mlferry.layers.definitions import (
    TWO_OR_DEFAULT,
    Change,
    Entries,
    LaterOption,
    layer_kind,
    layer_rule,
    size_check,
)
from mlferry.layers.params import Params
from mlferry.numerics.resizing import scaled
from mlferry.numerics.shapes import Shape, need_rank, show
from mlferry.spec.problems import Problems, error, warning
from mlferry.spec.proto import neural_network_pb2 as nn


@layer_kind(
    "upsample",
    inputs=1,
    defaults={"scalingFactor": (1, 1)},
    lists={
        "scalingFactor": TWO_OR_DEFAULT,
        "fractionalScalingFactor": Entries((0, 2), math.ulp(0.0)),
    },
    features=(
        LaterOption(
            lambda layer: layer.upsample.linearUpsampleMode != 0, 5, "the linear upsample mode"
        ),
        LaterOption(
            lambda layer: bool(layer.upsample.fractionalScalingFactor), 5, "the fractional factor"
        ),
    ),
)
def upsample(params: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 3)
    factors = params.fractionalScalingFactor or params.scalingFactor
    spatial = (
        None if size is None else scaled(size, factor)
        for size, factor in zip(shape[-2:], factors, strict=True)
    )
    return [(*shape[:-2], *spatial)]


@layer_kind(
    "resizeBilinear",
    inputs=1,
    defaults={"targetSize": (1, 1)},
    lists={"targetSize": TWO_OR_DEFAULT},
)
def resize_bilinear(params: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 3)
    return [(*shape[:-2], *target_size(params))]


def target_size(params: Params) -> tuple[int, int]:
    """The target height and width; unset or 0 is 1."""
    height, width = params.targetSize
    return height or 1, width or 1


@layer_kind(
    "cropResize",
    inputs=2,
    defaults={"targetSize": (1, 1), "spatialScale": 1.0},
    lists={"targetSize": TWO_OR_DEFAULT},
)
def crop_resize(params: Params, shape: Shape, boxes: Shape) -> list[Shape]:
    """[1, Batch, C, H, W] and boxes [N, 1, 4, 1, 1], or [N, 1, 5, 1, 1] with a batch index."""
    if len(shape) != 5 or shape[0] not in (1, None):
        raise SpecError(f"the image {show(shape)} is (1, Batch, C, H, W)")
    if len(boxes) != 5 or boxes[1] not in (1, None) or boxes[2] not in (4, 5, None):
        raise SpecError(f"the boxes {show(boxes)} are (N, 1, 4 or 5, 1, 1)")
    batch = {4: shape[1], 5: 1}.get(boxes[2] or 0)
    return [(boxes[0], batch, shape[2], *target_size(params))]


@size_check("resizeBilinear")
def bound_resize_bilinear(params: Params, change: Change) -> str:
    bound = not change.recorded and (change.varies(-1) or change.varies(-2))
    return f"it resizes to the fixed size {show(target_size(params))}" if bound else ""


@size_check("cropResize")
def bound_crop_resize(params: Params, change: Change) -> str:
    bound = change.constant[1] and not change.recorded and (change.varies(-1) or change.varies(-2))
    return "its constant boxes are those of the described size" if bound else ""


# ---- rules and stored weights ------------------------------------------------------------------


@layer_rule("upsample")
def check_upsample(layer: nn.NeuralNetworkLayer, params: nn.UpsampleLayerParams) -> Problems:
    """There is one kind of factor; linear modes need BILINEAR, and fractions need a linear mode."""
    if params.scalingFactor and params.fractionalScalingFactor:
        yield error("scalingFactor and fractionalScalingFactor are both set")
    linear = params.mode == nn.UpsampleLayerParams.BILINEAR and params.linearUpsampleMode
    if params.fractionalScalingFactor and not linear:
        yield warning(
            "fractionalScalingFactor needs mode BILINEAR and a linearUpsampleMode other than "
            "DEFAULT"
        )
    if params.linearUpsampleMode and not linear:
        yield warning("linearUpsampleMode is set, but mode is not BILINEAR")
