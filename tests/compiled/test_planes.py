"""Pictures as planes and as pixels."""

from __future__ import annotations

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="Numba is not installed")

from mlferry.compiled import planes
from mlferry.compiled.vectors import LANES
from mlferry.runtime.planned import moves


@pytest.mark.parametrize("channels", [1, *planes.CHANNELS, 5])
@pytest.mark.parametrize("width", [1, LANES - 1, LANES, 3 * LANES + 2])
@pytest.mark.parametrize("border", [0, 2])
def test_planes_and_pixels(channels: int, width: int, border: int) -> None:
    x = np.random.default_rng(width).normal(0, 1, (channels, 5, width)).astype(np.float32)
    outer = np.zeros((5 + border, width + border, channels), np.float32)
    pixels, back = outer[border:, border:], np.empty_like(x)
    assert planes.takes(x, pixels) == (channels in planes.CHANNELS)
    moves.to_pixels(x, pixels, compiled=True)
    np.testing.assert_array_equal(pixels, x.transpose(1, 2, 0))
    np.testing.assert_array_equal(outer[:border], 0)
    np.testing.assert_array_equal(outer[:, :border], 0)
    moves.to_planes(pixels, back, compiled=True)
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize(
    ("x", "pixels"),
    [
        (np.zeros((3, 4, 8))[:, :, ::2], np.zeros((4, 4, 3))),
        (np.zeros((3, 4, 4)), np.zeros((4, 4, 6))[..., :3]),
        (np.zeros((3, 4, 4)), np.zeros((4, 8, 3))[:, ::2]),
    ],
    ids=["planes with gaps", "parts of pixels", "every other pixel"],
)
def test_others_go_by_numpy(x: np.ndarray, pixels: np.ndarray) -> None:
    x, pixels = (
        np.lib.stride_tricks.as_strided(
            np.zeros(400, np.float32), z.shape, [n // 2 for n in z.strides]
        )
        for z in (x, pixels)
    )
    x[...] = np.arange(48).reshape(3, 4, 4)
    assert not planes.takes(x, pixels)
    moves.to_pixels(x, pixels, compiled=True)
    np.testing.assert_array_equal(pixels, x.transpose(1, 2, 0))
