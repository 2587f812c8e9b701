"""Gradients of layers that take parts of an array: zero where nothing was taken."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.layers.gradients import INPUTS, SHAPES, Array, LayerRun, gradient
from mlferry.layers.slicing import kernel
from mlferry.layers.slicing.definition import AXIS_OF_SLICE, classic_slice, static_indices


def _into(run: LayerRun, dy: Array, index: tuple[Any, ...]) -> Array:
    """The gradient at the entries taken; no entry was taken twice."""
    total = np.zeros(run.input_shapes[0], dy.dtype)
    total[index] = dy.reshape(total[index].shape)
    return total


@gradient("slice", keeps=SHAPES)
def slice_(run: LayerRun, dy: Array) -> Array:
    axis = AXIS_OF_SLICE[run.params.axis] + dy.ndim
    return _into(run, dy, (slice(None),) * axis + (classic_slice(run.params),))


@gradient("sliceStatic", keeps=SHAPES)
def slice_static(run: LayerRun, dy: Array) -> Array:
    return _into(run, dy, static_indices(run.params, len(run.input_shapes[0])))


_KERNELS = {"sliceDynamic": kernel.slice_dynamic, "sliceBySize": kernel.slice_by_size}


@gradient(*_KERNELS, keeps=INPUTS)
def taken(run: LayerRun, dy: Array) -> tuple[Array | None, ...]:
    others = (None,) * (len(run.input_shapes) - 1)
    return (run.moved(_KERNELS[run.params.kind], dy), *others)


@gradient("slidingWindows", keeps=SHAPES)
def sliding_windows(run: LayerRun, dy: Array) -> Array:
    """The sum over all windows that contain an entry."""
    return run.moved(kernel.sliding_windows, dy)


@gradient("split", keeps=SHAPES)
def split(run: LayerRun, *dys: Array) -> Array:
    return np.concatenate(dys, axis=-3)
