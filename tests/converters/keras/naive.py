"""A Sequential Keras 1 or 2 file evaluated by loops: nothing here knows of mlferry.

For files that no installed Keras can load, and for those that Theano wrote, whose convolutions
turn the kernel around.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.where(x > 0, x, 0),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True),
}


def evaluate(path: Path, x: np.ndarray) -> np.ndarray:
    """The model's output for one batch, in double precision."""
    with h5py.File(path) as file:
        config = json.loads(file.attrs["model_config"])["config"]
        layers = config if isinstance(config, list) else config["layers"]
        theano = file.attrs.get("backend", b"") in ("theano", b"theano")
        group = file.get("model_weights", file)
        x = x.astype(np.float64)
        for layer in layers:
            options = layer["config"]
            held = group[options["name"]]
            weights = [held[name][()].astype(np.float64) for name in held.attrs["weight_names"]]
            x = KINDS[layer["class_name"]](x, options, weights, theano)
            x = ACTIVATIONS[options.get("activation", "linear")](x)
    return x


def dense(x: np.ndarray, options: dict[str, Any], weights: list[np.ndarray], _: bool) -> Any:
    return x @ weights[0] + weights[1]


def embedding(x: np.ndarray, options: dict[str, Any], weights: list[np.ndarray], _: bool) -> Any:
    return np.array([[weights[0][int(index)] for index in row] for row in x])


def batch_normalization(
    x: np.ndarray, options: dict[str, Any], weights: list[np.ndarray], _: bool
) -> Any:
    gamma, beta, mean, variance = weights
    return gamma * (x - mean) / np.sqrt(variance + options["epsilon"]) + beta


def conv2d(x: np.ndarray, options: dict[str, Any], weights: list[np.ndarray], theano: bool) -> Any:
    kernel = weights[0][::-1, ::-1] if theano else weights[0]
    stride = options.get("strides", options.get("subsample"))
    assert options.get("padding", options.get("border_mode")) == "valid"
    rows, columns = kernel.shape[:2]
    out = []
    for top in range(0, x.shape[1] - rows + 1, stride[0]):
        line = []
        for left in range(0, x.shape[2] - columns + 1, stride[1]):
            window = x[:, top : top + rows, left : left + columns]
            line.append(np.einsum("nhwc,hwco->no", window, kernel))
        out.append(line)
    return np.array(out).transpose(2, 0, 1, 3) + weights[1]


def conv1d(x: np.ndarray, options: dict[str, Any], weights: list[np.ndarray], theano: bool) -> Any:
    kernel = weights[0]
    if kernel.ndim == 4:  # Keras 1 stored [length, 1, in, out]
        kernel = kernel[:, 0]
    flat = {"strides": (1, 1), "padding": "valid"}
    assert options.get("strides", [1]) == [1]
    assert options.get("subsample_length", 1) == 1
    return conv2d(x[:, :, None], flat, [kernel[:, None], weights[1]], theano)[:, :, 0]


def hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(0.2 * x + 0.5, 0, 1)


def simple_rnn(x: np.ndarray, options: dict[str, Any], weights: list[np.ndarray], _: bool) -> Any:
    matrix, recursion, bias = weights
    assert options["activation"] == "tanh"
    h = np.zeros((len(x), len(recursion)))
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ matrix + h @ recursion + bias)
    return np.arctanh(h)  # the activation is applied once more outside


def lstm(x: np.ndarray, options: dict[str, Any], weights: list[np.ndarray], _: bool) -> Any:
    """The gates of Keras 1 lie apart, in the order i, c, f, o."""
    assert options["activation"] == "tanh"
    assert options["inner_activation"] == "hard_sigmoid"
    units = len(weights[1])
    h = c = np.zeros((len(x), units))
    sequence = []
    for t in range(x.shape[1]):
        i, g, f, o = (x[:, t] @ w + h @ u + b for w, u, b in zip(*[iter(weights)] * 3, strict=True))
        c = hard_sigmoid(f) * c + hard_sigmoid(i) * np.tanh(g)
        h = hard_sigmoid(o) * np.tanh(c)
        sequence.append(h)
    y = np.stack(sequence, axis=1) if options["return_sequences"] else h
    return np.arctanh(y)


def bidirectional(
    x: np.ndarray, options: dict[str, Any], weights: list[np.ndarray], _: bool
) -> Any:
    inner = options["layer"]["config"]
    assert options["merge_mode"] == "concat"
    half = len(weights) // 2
    ahead = np.tanh(lstm(x, inner, weights[:half], False))
    back = np.tanh(lstm(x[:, ::-1], inner, weights[half:], False))
    back = back[:, ::-1] if inner["return_sequences"] else back
    return np.concatenate([ahead, back], axis=-1)


KINDS: dict[str, Callable[..., Any]] = {
    "Dense": dense,
    "Embedding": embedding,
    "BatchNormalization": batch_normalization,
    "Conv2D": conv2d,
    "Convolution2D": conv2d,
    "Conv1D": conv1d,
    "Convolution1D": conv1d,
    "SimpleRNN": simple_rnn,
    "LSTM": lstm,
    "Bidirectional": bidirectional,
    "Dropout": lambda x, *_: x,
    "Activation": lambda x, *_: x,
    "Flatten": lambda x, *_: x.reshape(len(x), -1),
    "Reshape": lambda x, options, *_: x.reshape(len(x), *options["target_shape"]),
    "Lambda": lambda x, *_: x / 127.5 - 1,  # the one Lambda of these files
}
