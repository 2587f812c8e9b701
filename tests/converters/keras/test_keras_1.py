"""Keras 1 files, written here without Keras, against loops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import mlferry


def write(path: Path, layers: list[tuple[str, dict[str, Any], list[np.ndarray]]]) -> Path:
    config = [{"class_name": kind, "config": options} for kind, options, _ in layers]
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": config})
        file.attrs["keras_version"] = "1.2.2"
        group = file.create_group("model_weights")
        for _, options, arrays in layers:
            inner = group.create_group(options["name"])
            names = [f"{options['name']}_{index}" for index in range(len(arrays))]
            inner.attrs["weight_names"] = names
            for name, array in zip(names, arrays, strict=True):
                inner[name] = array
    return path


def convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """[N, C, H, W] with [out, in, kH, kW], windows that fit."""
    rows, columns = kernel.shape[2:]
    out = np.zeros((len(x), len(kernel), x.shape[2] - rows + 1, x.shape[3] - columns + 1))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            window = x[:, :, i : i + rows, j : j + columns]
            out[:, :, i, j] = np.einsum("nchw,ochw->no", window, kernel)
    return out


@pytest.mark.parametrize("ordering", ["th", "tf"])
def test_theano_and_tensorflow_ordering(
    ordering: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    first = ordering == "th"
    kernel = rng.normal(size=(4, 3, 3, 2)).astype(np.float32)  # out, in, rows, columns
    bias = rng.normal(size=4).astype(np.float32)
    matrix = rng.normal(size=(4 * 2 * 2, 5)).astype(np.float32)
    common = {"dim_ordering": ordering}
    conv = {
        "name": "c", "nb_filter": 4, "nb_row": 3, "nb_col": 2, "border_mode": "valid",
        "subsample": [1, 1], "activation": "relu", "bias": True, "init": "glorot_uniform",
        "batch_input_shape": [None, 3, 6, 5] if first else [None, 6, 5, 3], **common,
    }  # fmt: skip
    pool = {"name": "p", "pool_size": [2, 2], "strides": [2, 2], "border_mode": "valid", **common}
    dense = {"name": "d", "output_dim": 5, "activation": "linear", "bias": False, "input_dim": 16}
    stored = kernel if first else kernel.transpose(2, 3, 1, 0)
    path = write(
        tmp_path / "m.h5",
        [
            ("Convolution2D", conv, [stored, bias]),
            ("MaxPooling2D", pool, []),
            ("Dropout", {"name": "o", "p": 0.5}, []),
            ("Flatten", {"name": "f"}, []),
            ("Dense", dense, [matrix]),
        ],
    )
    x = rng.normal(size=(1, 3, 6, 5)).astype(np.float32)
    y = np.maximum(convolve(x, kernel) + bias[:, None, None], 0)
    y = y[:, :, :4, :4].reshape(1, 4, 2, 2, 2, 2).max(axis=(3, 5))
    flat = y.reshape(1, -1) if first else y.transpose(0, 2, 3, 1).reshape(1, -1)
    inputs = x if first else x.transpose(0, 2, 3, 1)
    (actual,) = mlferry.convert(path).predict({"c_input": inputs}).values()
    np.testing.assert_allclose(actual, flat @ matrix, rtol=1e-4, atol=1e-5)


def test_batch_normalization_by_sample_is_refused(tmp_path: Path) -> None:
    ones = [np.ones(3, np.float32)] * 4
    options = {"name": "b", "mode": 1, "axis": -1, "epsilon": 1e-3, "batch_input_shape": [None, 3]}
    path = write(tmp_path / "m.h5", [("BatchNormalization", options, ones)])
    with pytest.raises(mlferry.errors.ConversionError, match="sample-wise"):
        mlferry.convert(path)
