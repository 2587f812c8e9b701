"""Gradients of layers that use indices: the indices themselves have none."""

from __future__ import annotations

import numpy as np

from mlferry.errors import UnsupportedModelError
from mlferry.layers.gradients import INPUTS, OUTPUTS, SHAPES, Array, LayerRun, gradient, no_gradient
from mlferry.layers.indexing import kernel
from mlferry.layers.kernels import integer
from mlferry.numerics.gradients import reduced_to, scattered
from mlferry.numerics.shapes import axis_of

no_gradient("whereNonZero", "oneHot", "argSort", "argMax", "argMin")

_GATHERS = {
    "gather": kernel.gather,
    "gatherND": kernel.gather_nd,
    "gatherAlongAxis": kernel.gather_along_axis,
    "reverseSeq": kernel.reverse_seq,
}
_SCATTERS = {
    "scatter": kernel.scatter,
    "scatterND": kernel.scatter_nd,
    "scatterAlongAxis": kernel.scatter_along_axis,
}


@gradient(*_GATHERS, keeps=INPUTS)
def gather(run: LayerRun, dy: Array) -> tuple[Array, None]:
    return run.moved(_GATHERS[run.params.kind], dy), None


@gradient(*_SCATTERS, keeps=INPUTS)
def scatter(run: LayerRun, dy: Array) -> tuple[Array, None, Array]:
    """The gradients of values that are set, added or subtracted.

    Raises:
        UnsupportedModelError: they are multiplied, divided, or compared.
    """
    mode = run.params.mode
    if mode not in ("SCATTER_UPDATE", "SCATTER_ADD", "SCATTER_SUB"):
        raise UnsupportedModelError(
            f"the gradient of {mode} is not written; SCATTER_UPDATE, SCATTER_ADD and SCATTER_SUB "
            "have one"
        )
    x_shape, _, shape = run.input_shapes
    count = int(np.prod(shape))
    places = np.arange(1, count + 1, dtype=np.int64).reshape(shape)
    if mode == "SCATTER_UPDATE":  # which update is at each place; 0 for none
        target = np.zeros(x_shape, np.int64)
        last = _SCATTERS[run.params.kind](run.params, target, run.inputs[1], places)
        return dy * (last == 0), None, scattered(last - 1, dy, shape)
    targets = np.arange(int(np.prod(x_shape)), dtype=np.int64).reshape(x_shape)
    gathered = _GATHERS[run.params.kind.replace("scatter", "gather")](
        run.params, targets, run.inputs[1]
    )
    behind = dy.reshape(-1)[np.asarray(gathered)].reshape(shape)
    return dy, None, behind if mode == "SCATTER_ADD" else -behind


@gradient("whereBroadcastable", keeps=INPUTS)
def where_broadcastable(run: LayerRun, dy: Array) -> tuple[None, Array, Array]:
    chosen = run.inputs[0] != 0
    _, left, right = run.input_shapes
    return None, reduced_to(dy * chosen, left), reduced_to(dy * ~chosen, right)


@gradient("topK", keeps=OUTPUTS)
def top_k(run: LayerRun, dy: Array, *_: Array) -> tuple[Array | None, ...]:
    """The gradient of the values; the indices have none."""
    total = np.zeros(run.input_shapes[0], dy.dtype)
    order = run.outputs[1].astype(np.int64)
    np.put_along_axis(total, order, dy, axis_of(run.params.axis, total.ndim))
    return (total, None)[: len(run.input_shapes)]


@gradient("cumSum", keeps=INPUTS)
def cum_sum(run: LayerRun, dy: Array) -> tuple[Array | None, ...]:
    """Sums from the other end."""
    rank = dy.ndim
    axis = run.params.axis if len(run.inputs) < 2 else integer(run.inputs[1], "axis")
    along = axis_of(axis, rank)
    y = np.flip(dy, along) if run.params.reverse else dy
    total = np.flip(np.cumsum(np.flip(y, along), axis=along), along)
    if run.params.excludeFinalSum:
        total = total - y
    total = np.flip(total, along) if run.params.reverse else total
    return (total, None)[: len(run.input_shapes)]


@gradient("reverse", keeps=SHAPES)
def reverse(run: LayerRun, dy: Array) -> Array:
    return kernel.reverse(run.params, dy)


_PARTS = {
    "matrixBandPart": kernel.matrix_band_part,
    "lowerTriangular": kernel.lower_triangular,
    "upperTriangular": kernel.upper_triangular,
}


@gradient(*_PARTS, keeps=SHAPES)
def part(run: LayerRun, dy: Array) -> Array:
    """The gradient keeps the same part as the values."""
    return _PARTS[run.params.kind](run.params, dy)
