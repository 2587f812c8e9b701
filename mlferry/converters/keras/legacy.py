"""Translates configs of Keras 1 and 2 to those of Keras 3."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mlferry.converters.graph import Attribute
from mlferry.numerics.shapes import Array

Config = dict[str, Any]

_CLASSES_1 = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
}
_ALIASES = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution1DTranspose": "Conv1DTranspose",
    "Convolution2DTranspose": "Conv2DTranspose",
    "SeparableConvolution1D": "SeparableConv1D",
    "SeparableConvolution2D": "SeparableConv2D",
    "MaxPool1D": "MaxPooling1D",
    "MaxPool2D": "MaxPooling2D",
    "AvgPool1D": "AveragePooling1D",
    "AvgPool2D": "AveragePooling2D",
    "GlobalMaxPool1D": "GlobalMaxPooling1D",
    "GlobalMaxPool2D": "GlobalMaxPooling2D",
    "GlobalAvgPool1D": "GlobalAveragePooling1D",
    "GlobalAvgPool2D": "GlobalAveragePooling2D",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "GroupQueryAttention": "GroupedQueryAttention",
    "CuDNNLSTM": "LSTM",
    "CuDNNGRU": "GRU",
}
# What the CuDNN layers compute, which their configs omit.
_CUDNN: dict[str, Config] = {
    "CuDNNLSTM": {"activation": "tanh", "recurrent_activation": "sigmoid"},
    "CuDNNGRU": {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True},
}
_RENAMED_1 = {
    "nb_filter": "filters",
    "border_mode": "padding",
    "subsample": "strides",
    "bias": "use_bias",
    "pool_length": "pool_size",
    "stride": "strides",
    "filter_length": "kernel_size",
    "subsample_length": "strides",
    "atrous_rate": "dilation_rate",
    "p": "rate",
    "mode": "mode",
    "length": "size",
    "inner_activation": "recurrent_activation",
}
_DATA_FORMATS = {"tf": "channels_last", "th": "channels_first"}
_MERGES = {
    "sum": "Add",
    "mul": "Multiply",
    "ave": "Average",
    "max": "Maximum",
    "concat": "Concatenate",
    "dot": "Dot",
    "cos": "Dot",
}
_DROPPED_1 = (
    *("init", "W_regularizer", "b_regularizer", "W_constraint", "b_constraint", "input_dim"),
    *("input_length", "weights", "beta_init", "gamma_init", "gamma_regularizer"),
    *("beta_regularizer", "dropout", "consume_less", "dropout_W", "dropout_U", "inner_init"),
    *("forget_bias_init", "U_regularizer", "input_shape"),
)


def modern(class_name: str, config: Config, version: int) -> tuple[str, Config]:
    """Class and config in the terms of Keras 3; anything unknown stays as it is."""
    config = dict(config)
    if version == 1:
        class_name, config = _from_1(class_name, config)
    config = {**_CUDNN.get(class_name, {}), **config}
    class_name = _ALIASES.get(class_name, class_name)
    change = _CHANGES.get(class_name)
    if change is not None:
        change(config, version)
    return class_name, config


def _from_1(class_name: str, config: Config) -> tuple[str, Config]:
    class_name = _CLASSES_1.get(class_name, class_name)
    if class_name == "Merge":
        return _merge(config)
    if class_name not in _KNOWN_1:
        return class_name, config
    for old, new in _RENAMED_1.items():
        if old in config and (old, class_name) not in _NOT_RENAMED and old != new:
            config[new] = config.pop(old)
    if "nb_row" in config:
        config["kernel_size"] = [config.pop("nb_row"), config.pop("nb_col")]
    if "dim_ordering" in config:
        ordering = config.pop("dim_ordering")
        config["data_format"] = _DATA_FORMATS.get(ordering, "channels_last")
    if "output_dim" in config and class_name != "Embedding":
        config["units"] = config.pop("output_dim")
    if class_name in GATES_1:
        config["gates_apart"] = GATES_1[class_name]
    if class_name == "BatchNormalization" and config.pop("mode", 0) not in (0, 2):
        config["mode"] = "1 (sample-wise)"
    for name in _DROPPED_1:
        if name not in ("input_dim", "input_length") or class_name != "Embedding":
            config.pop(name, None)
    return class_name, config


_NOT_RENAMED = {("mode", "BatchNormalization"), ("stride", "SpatialDropout2D")}
_KNOWN_1 = {
    *("Dense", "Activation", "Dropout", "Flatten", "Reshape", "Permute"),
    *("RepeatVector", "Embedding", "Merge", "InputLayer"),
    *("Conv1D", "Conv2D", "SeparableConv2D", "Conv2DTranspose", "BatchNormalization"),
    *("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D"),
    *("GlobalMaxPooling1D", "GlobalMaxPooling2D"),
    *("GlobalAveragePooling1D", "GlobalAveragePooling2D"),
    *("ZeroPadding1D", "ZeroPadding2D", "Cropping1D", "Cropping2D", "UpSampling1D", "UpSampling2D"),
    *("LeakyReLU", "PReLU", "ELU", "ThresholdedReLU", "SimpleRNN", "LSTM", "GRU", "Masking"),
    *("SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"),
}
# Recurrent layers of Keras 1 kept the arrays of each gate separately, in this order.
GATES_1 = {"LSTM": ("i", "c", "f", "o"), "GRU": ("z", "r", "h")}
_GATES_3 = {"LSTM": ("i", "f", "c", "o"), "GRU": ("z", "r", "h")}


def _merge(config: Config) -> tuple[str, Config]:
    mode = config.pop("mode", "sum")
    if mode not in _MERGES or not isinstance(mode, str):
        return "Merge", {**config, "mode": mode}
    name = _MERGES[mode]
    axis, axes = config.pop("concat_axis", -1), config.pop("dot_axes", -1)
    remaining: Config = {"name": config.get("name")}
    if name == "Concatenate":
        remaining["axis"] = axis
    if name == "Dot":
        remaining |= {"axes": axes, "normalize": mode == "cos"}
    if config.get("layers"):
        # a Merge that contains its branches (Sequential models of Keras 1)
        remaining["layers_of_merge"] = config["layers"]
    return name, remaining


# ---- Keras 2 ---------------------------------------------------------------------------


def _leaky_relu(config: Config, version: int) -> None:
    if "alpha" in config:
        config["negative_slope"] = _number(config.pop("alpha"))


def _number(value: Attribute) -> Any:
    """Numbers that Keras 2 wrote as arrays: ``{"type": "ndarray", "value": 0.3}``."""
    if isinstance(value, Mapping) and "value" in value:
        return value["value"]
    return value


def _numbers(config: Config, version: int) -> None:
    for name, value in config.items():
        config[name] = _number(value)


def _batch_normalization(config: Config, version: int) -> None:
    axis = config.get("axis")
    if isinstance(axis, list) and len(axis) == 1:
        config["axis"] = axis[0]


def _depthwise(config: Config, version: int) -> None:
    """tf.keras also wrote options of the convolutions from which these layers derive."""
    if config.get("groups") == 1:
        del config["groups"]


_CHANGES: dict[str, Callable[[Config, int], None]] = {
    "LeakyReLU": _leaky_relu,
    "ELU": _numbers,
    "ReLU": _numbers,
    "ThresholdedReLU": _numbers,
    "BatchNormalization": _batch_normalization,
    "DepthwiseConv2D": _depthwise,
    "DepthwiseConv1D": _depthwise,
    "SeparableConv1D": _depthwise,
    "SeparableConv2D": _depthwise,
}


# ---- kernels ---------------------------------------------------------------------------

_FLIPPED_BY_THEANO = {"Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "Conv3DTranspose"}


def _gates_together(arrays: list[tuple[str, Any]], gates: tuple[str, ...]) -> list[tuple[str, Any]]:
    entries = dict(arrays)
    order = next(remaining for remaining in _GATES_3.values() if set(remaining) == set(gates))
    names = {"kernel": "W", "recurrent_kernel": "U", "bias": "b"}
    return [
        (name, np.concatenate([entries[f"{old}_{gate}"] for gate in order], axis=-1))
        for name, old in names.items()
    ]


_CUDNN_GATES = {"LSTMCell": 4, "GRUCell": 3}


def _of_cudnn(arrays: list[tuple[str, Any]], gates: int) -> list[tuple[str, Any]]:
    """Arrays in Keras's form, from those of CuDNN, which files of either layer may hold.

    CuDNN keeps two biases one after the other, and the matrices of each gate transposed; those of
    the input are also in the other order, under the shape of Keras's.
    """
    entries = dict(arrays)
    bias, recurrent = entries.get("bias"), entries.get("recurrent_kernel")
    if bias is None or recurrent is None or bias.shape != (2 * gates * recurrent.shape[0],):
        return arrays

    def each(matrix: Array, change: Callable[[Any], Any]) -> Any:
        return np.concatenate([change(part) for part in np.split(matrix, gates, axis=1)], axis=1)

    kernel = each(entries["kernel"], lambda part: part.reshape(part.shape[::-1]).T)
    biases = bias.reshape(2, -1)
    return [
        ("kernel", kernel),
        ("recurrent_kernel", each(recurrent, lambda part: part.T)),
        ("bias", biases.sum(axis=0) if gates == 4 else biases),
    ]


def kernels(
    class_name: str, config: Config, arrays: list[tuple[str, Any]], version: int, backend: str
) -> list[tuple[str, Any]]:
    """Kernels in the order of Keras 3.

    Keras 1 stored kernels in Theano's order for channels-first layers, those of Conv1D with an
    extra axis, and those of transposed convolutions with input and output exchanged. Theano itself
    flipped kernels; only files that say ``backend: theano`` are flipped.
    """
    if not arrays:
        return arrays
    if "gates_apart" in config:
        return _gates_together(arrays, config.pop("gates_apart"))
    if class_name in _CUDNN_GATES:
        return _of_cudnn(arrays, _CUDNN_GATES[class_name])
    (name, kernel), *rest = arrays
    if version == 1:
        first = config.get("data_format") == "channels_first"
        if class_name == "Conv1D" and kernel.ndim == 4:
            if kernel.shape[1] != 1 or kernel.shape[3] != config.get("filters"):
                kernel = kernel.transpose(2, 3, 1, 0)
            kernel = kernel[:, 0]
        elif class_name == "Conv2D" and first and kernel.ndim == 4:
            kernel = kernel.transpose(2, 3, 1, 0)
        elif class_name == "Conv2DTranspose" and kernel.ndim == 4:
            kernel = kernel.transpose((2, 3, 0, 1) if first else (0, 1, 3, 2))
        elif class_name == "SeparableConv2D" and first:
            rest = [(n, a.transpose(2, 3, 1, 0) if a.ndim == 4 else a) for n, a in rest]
            kernel = kernel.transpose(2, 3, 1, 0)
    if backend == "theano" and class_name in _FLIPPED_BY_THEANO:
        flip = (slice(None, None, -1),) * (kernel.ndim - 2)
        kernel = kernel[flip]
    return [(name, kernel), *rest]
