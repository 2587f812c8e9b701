"""Folds operations into the weights or the window of a convolution or product."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlferry import lanes
from mlferry.programs.graph import Array, Operation, Value, constant, string
from mlferry.programs.passes.rewriting import (
    Rewriter,
    array_at,
    known_at,
    other_operand,
    per_channel,
    value_at,
)
from mlferry.spec import mapped

_CHANNELS = 1  # the axis that `batch_norm` normalizes
# The axis of outputs in the weights of these ops.
_OUTPUTS = {"conv": 0, "conv_transpose": 1, "linear": 0}


def into_weights(rewriter: Rewriter, operation: Operation) -> bool:
    """Fold a normalization, factor or shift of channels that follows a convolution or product."""
    if operation.op not in _OUTPUTS:
        return False
    weight, last = value_at(operation, "weight"), rewriter.only_reader(operation.outputs[0])
    if weight is None or not weight.is_constant or last is None or last.op not in _AFFINE:
        return False
    output = operation.outputs[0]
    axis = output.rank - 1 if operation.op == "linear" else 1
    channels = output.shape[axis]
    if channels is None:
        return False
    affine = _AFFINE[last.op](last, output, channels, axis)
    if affine is None:
        return False
    factor, shift = affine
    bias = array_at(operation, "bias")
    if bias is None and value_at(operation, "bias") is not None:
        return False
    start = np.zeros(channels, np.float64) if bias is None else bias.astype(np.float64)
    with np.errstate(all="ignore"):
        moved = (start * factor + shift).astype(np.float32)
        if (factor != 1).any():
            scaled = _scaled(weight.constant, factor, operation)
            if scaled is None:
                return False  # sums of infinities differ from an infinite multiple
            rewriter.put(operation, "weight", constant(scaled, "fp32", weight.name))
    if bias is not None or moved.any():
        rewriter.put(operation, "bias", constant(moved, "fp32"))
    rewriter.take_over(operation, last)
    return True


def _scaled(weight: Array, factor: Array, operation: Operation) -> Array | None:
    """Weights times a factor for each output; None if they are not all finite."""
    groups = int(known_at(operation, "groups", 1))
    apart, shape = weight, [1] * weight.ndim
    shape[_OUTPUTS[operation.op]] = -1
    if operation.op == "conv_transpose" and groups > 1:
        apart = weight.reshape(groups, len(weight) // groups, *weight.shape[1:])
        shape = [groups, *shape]
    spread = np.broadcast_to(factor.reshape(shape), apart.shape)
    scaled = np.empty(apart.shape, np.float32)

    def scale(rows: slice) -> bool:
        np.multiply(apart[rows], spread[rows], out=scaled[rows], casting="unsafe")
        return bool(np.isfinite(scaled[rows]).all())

    are_finite = all(lanes.in_slices(scale, apart))
    mapped.let_go(weight)
    return scaled.reshape(weight.shape) if are_finite else None


Affine = tuple[Array, Array]


def _of_normalization(last: Operation, output: Value, channels: int, axis: int) -> Affine | None:
    if value_at(last, "x") is not output or axis != _CHANNELS:
        return None
    mean, variance = array_at(last, "mean"), array_at(last, "variance")
    gamma, beta = array_at(last, "gamma"), array_at(last, "beta")
    if mean is None or variance is None:
        return None
    epsilon = float(known_at(last, "epsilon", 1e-5))
    factor = 1 / np.sqrt(variance.astype(np.float64) + epsilon)
    if gamma is not None:
        factor = factor * gamma
    shift = -mean * factor
    return factor, shift if beta is None else shift + beta


def _of_product(last: Operation, output: Value, channels: int, axis: int) -> Affine | None:
    spread = _spread(last, output, channels, axis)
    return None if spread is None else (spread, np.zeros(channels))


def _of_sum(last: Operation, output: Value, channels: int, axis: int) -> Affine | None:
    spread = _spread(last, output, channels, axis)
    return None if spread is None else (np.ones(channels), spread)


def _spread(last: Operation, output: Value, channels: int, axis: int) -> Array | None:
    other = other_operand(last, output)
    if other is None or not other.is_constant or other.dtype != "fp32" or other.rank > output.rank:
        return None
    values = per_channel(other.constant, output.rank, channels, axis)
    return None if values is None else values.astype(np.float64)


_AFFINE: dict[str, Callable[[Operation, Value, int, int], Affine | None]] = {
    "batch_norm": _of_normalization,
    "mul": _of_product,
    "add": _of_sum,
}


def padding_into_window(rewriter: Rewriter, operation: Operation) -> bool:
    """Fold zeros around the input of a convolution into its padding."""
    if operation.op != "pad" or known_at(operation, "mode", "constant") != "constant":
        return False
    last = rewriter.follows(operation, "conv")
    amounts, source = known_at(operation, "pad"), value_at(operation, "x")
    if last is None or amounts is None or source is None or known_at(operation, "constant_val", 0):
        return False
    axes = source.rank - 2
    kind = known_at(last, "pad_type", "valid")
    before = known_at(last, "pad", (0,) * 2 * axes) if kind == "custom" else (0,) * 2 * axes
    if kind not in ("valid", "custom") or value_at(last, "x") is not operation.outputs[0]:
        return False
    lead = len(amounts) - 2 * axes
    if lead > 0 and any(amounts[:lead]):
        return False
    inner = amounts[max(lead, 0) :]
    inner = (0,) * (2 * axes - len(inner)) + tuple(inner)
    pad = np.array([a + b for a, b in zip(before, inner, strict=True)], np.int32)
    changed = dict(last.arguments)
    changed["x"] = source
    changed["pad_type"] = string("custom")
    changed["pad"] = constant(pad, "int32")
    rewriter.set(last, "conv", **changed)
    return True
