"""The ``GridSampler`` layer of ``train.py`` in NumPy, for running the converted model.

Importing this module registers the class, so that a model with a custom layer of that name can be
run. The class has the parts of an implementation of Core ML's ``MLCustomLayer`` protocol: it is
created from the layer's parameters, tells the shapes of its outputs, and evaluates its inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import mlferry


@mlferry.register_custom_layer("GridSampler")
class GridSampler(mlferry.CustomLayer):
    """Resample an image on a grid moved by an affine map, with bilinear interpolation.

    The inputs are an image of shape ``(N, H, W, C)`` and ``theta`` of shape ``(N, 6)``, the output
    has shape ``(N, output_height, output_width, C)``. ``theta`` is a 2x3 matrix, stored row by
    row, that takes ``(gx, gy, 1)``, running from -1 to 1 over the output, to a point of the image
    in the same coordinates: -1 is the centre of the first pixel and 1 that of the last one.
    Pixels outside the image count as zero. The docstring of the Keras layer in ``train.py`` has
    every step; this is a direct port of it.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        super().__init__(parameters)
        self.output_height = int(parameters["output_height"])
        self.output_width = int(parameters["output_width"])

    def output_shapes(self, input_shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        (n, _, _, c), _ = input_shapes
        return [(n, self.output_height, self.output_width, c)]

    def evaluate(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        image, theta = inputs
        return [sum(weight * pixels for pixels, weight, _, _ in self._neighbours(image, theta))]

    def backward(
        self,
        inputs: Sequence[np.ndarray],
        outputs: Sequence[np.ndarray],
        output_gradients: Sequence[np.ndarray],
    ) -> list[np.ndarray]:
        """How much a value changes with the image and with theta, if it does with the output."""
        image, theta = inputs
        (gradient,) = output_gradients
        of_image = np.zeros_like(image)
        of_x = of_y = np.float32(0)
        for pixels, weight, place, (slope_x, slope_y) in self._neighbours(image, theta):
            np.add.at(of_image, place, weight * gradient)
            through = (pixels * gradient).sum(axis=-1)
            of_x, of_y = of_x + slope_x * through, of_y + slope_y * through
        gx, gy = self._grid()
        _, height, width, _ = image.shape
        rows = [
            (of * along).sum(axis=(1, 2)) * (size - 1) / 2
            for of, size in ((of_x, width), (of_y, height))
            for along in (gx, gy, np.float32(1))
        ]
        return [of_image, np.stack(rows, axis=1)]

    def _grid(self) -> tuple[np.ndarray, np.ndarray]:
        gx = np.linspace(-1, 1, self.output_width, dtype=np.float32)
        return gx, np.linspace(-1, 1, self.output_height, dtype=np.float32)[:, np.newaxis]

    def _neighbours(self, image: np.ndarray, theta: np.ndarray) -> Iterator[tuple[Any, ...]]:
        """The four pixels around each sampling point.

        Each with its weight, its place, and how its weight changes with x and y of the point.
        """
        count, height, width, _ = image.shape

        # The sampling points, in pixels: both (N, output_height, output_width).
        gx, gy = self._grid()
        a, b, c, d, e, f = theta.T[:, :, np.newaxis, np.newaxis]
        x = (a * gx + b * gy + c + 1) / 2 * (width - 1)
        y = (d * gx + e * gy + f + 1) / 2 * (height - 1)

        x0, y0 = np.floor(x), np.floor(y)
        wx, wy = x - x0, y - y0
        batch = np.arange(count)[:, np.newaxis, np.newaxis]
        for row, of_row, down in ((y0, 1 - wy, -1), (y0 + 1, wy, 1)):
            for column, of_column, right in ((x0, 1 - wx, -1), (x0 + 1, wx, 1)):
                inside = (row >= 0) & (row <= height - 1) & (column >= 0) & (column <= width - 1)
                place = (
                    batch,
                    np.clip(row, 0, height - 1).astype(np.int32),
                    np.clip(column, 0, width - 1).astype(np.int32),
                )
                weight = (of_row * of_column * inside)[..., np.newaxis]
                slopes = (right * of_row * inside, down * of_column * inside)
                yield image[place], weight, place, slopes
