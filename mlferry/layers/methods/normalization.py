"""Normalization, reduction and sorting."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from mlferry.errors import SpecError
from mlferry.layers.methods.table import Params, method, row
from mlferry.layers.methods.values import floats, upper_as

row("add_lrn(name, input_name, output_name, alpha, beta, local_size, k=1.0)")
row(
    "add_mvn(name, input_name, output_name, across_channels=True, normalize_variance=True, "
    "epsilon=1e-05)"
)
row("add_l2_normalize(name, input_name, output_name, epsilon=1e-05)", kind="l2normalize")
row("add_softmax_nd(name, input_name, output_name, axis)")


@method(
    "add_batchnorm(name, channels, gamma, beta, mean=None, variance=None, input_name='data', "
    "output_name='out', compute_mean_var=False, instance_normalization=False, epsilon=1e-05)"
)
def _batchnorm(arguments: SimpleNamespace) -> Params:
    """Arrays of [channels]; mean and variance are computed where `compute_mean_var` says so."""
    computed = arguments.compute_mean_var
    if computed and not arguments.instance_normalization:
        raise SpecError("compute_mean_var=True goes with instance_normalization=True")
    if not computed and (arguments.mean is None or arguments.variance is None):
        raise SpecError("mean and variance are missing; compute_mean_var=True computes them")
    return {
        "channels": arguments.channels,
        "gamma": floats(arguments.gamma),
        "beta": floats(arguments.beta),
        "mean": None if computed else floats(arguments.mean),
        "variance": None if computed else floats(arguments.variance),
        "epsilon": arguments.epsilon,
        "computeMeanVar": computed,
        "instanceNormalization": arguments.instance_normalization,
    }


@method(
    "add_layer_normalization(name, input_name, output_name, normalized_shape, gamma, beta, "
    "eps=1e-05)"
)
def _layer_normalization(arguments: SimpleNamespace) -> Params:
    """Arrays of `normalized_shape`."""
    shape = tuple(arguments.normalized_shape)
    for name in ("gamma", "beta"):
        result = np.shape(getattr(arguments, name))
        if result != shape:
            raise SpecError(f"{name} has the shape {list(result)}, not {list(shape)}")
    return {
        "normalizedShape": shape,
        "gamma": floats(arguments.gamma),
        "beta": floats(arguments.beta),
        "eps": arguments.eps,
    }


row(
    "add_reduce(name, input_name, output_name, axis, mode, epsilon=1e-06)",
    axis=upper_as("axis"),
    mode=upper_as("mode"),
)


def _reduction(arguments: SimpleNamespace) -> Params:
    """Over `axes`, by default over all."""
    axes = [] if arguments.axes is None else [int(axis) for axis in arguments.axes]
    return {
        "axes": axes,
        "keepDims": arguments.keepdims,
        "reduceAll": not axes or arguments.reduce_all,
    }


for _name, _kind in {
    "sum": "Sum",
    "prod": "Prod",
    "mean": "Mean",
    "max": "Max",
    "min": "Min",
    "l2": "L2",
    "l1": "L1",
    "sumsquare": "SumSquare",
    "logsum": "LogSum",
    "logsumexp": "LogSumExp",
}.items():
    method(
        f"add_reduce_{_name}(name, input_name, output_name, axes=None, keepdims=True, "
        "reduce_all=False)",
        kind=f"reduce{_kind}",
    )(_reduction)


for _name, _kind in {"argmax": "argMax", "argmin": "argMin"}.items():
    row(
        f"add_{_name}(name, input_name, output_name, axis, keepdims=True)",
        kind=_kind,
        keepdims=lambda keepdims: {"removeDim": not keepdims},
    )

row("add_topk(name, input_names, output_names, k=0, axis=0, use_bottom_k=False)", "topK", k="K")
row("add_argsort(name, input_name, output_name, axis=0, descending=False)", kind="argSort")
row(
    "add_cumsum(name, input_names, output_name, axis=-1, reverse=False, exclusive=False)",
    kind="cumSum",
    exclusive="excludeFinalSum",
)
row(
    "add_nms(name, input_names, output_names, iou_threshold=0.5, score_threshold=0.0, "
    "max_boxes=1, per_class_suppression=False)",
    kind="NonMaximumSuppression",
)
