"""Train a small spatial transformer digit classifier and save it as ``digits_stn.h5``.

A spatial transformer looks at the whole picture, decides where the interesting part is, and
resamples that part upright and centred for an ordinary classifier. The resampling step is no
standard Keras or Core ML layer, so it is written here as a custom layer, ``GridSampler``;
``grid_sampler.py`` holds the same layer in NumPy.

The pictures are made from the 8x8 digits shipped with scikit-learn, so nothing is downloaded.
Run it with ``python examples/spatial_transformer/train.py``; it writes two files next to itself:

``digits_stn.h5``
    the trained model (legacy HDF5, without optimizer state);
``digits_stn.npz``
    ``x`` (uint8 test images), ``y`` (uint8 labels) and ``predictions`` (float32, what Keras
    predicts for ``x / 255`` with the saved model).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

CANVAS = 40  # side of the square input image
GLIMPSE = 20  # side of the square the spatial transformer cuts out
DIGIT = 20  # side of an enlarged digit before it is distorted
CLASSES = 10

TEST_DIGITS = 300
VALIDATION_DIGITS = 200

MAX_ROTATION = np.radians(45)
MAX_SHEAR = 0.3
SCALE_RANGE = (0.75, 1.2)
MAX_SHIFT = 8  # of the digit's centre from the canvas's centre, in pixels
FRAGMENTS = 4  # pieces of other digits strewn over the canvas
FRAGMENT = 6  # side of such a piece, in pixels

Images = np.ndarray  # (N, CANVAS, CANVAS, 1), uint8
Labels = np.ndarray  # (N,), uint8


# --- The custom layer ---------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="digits")
class GridSampler(layers.Layer):
    """Resample an image on a grid moved by an affine map, with bilinear interpolation.

    Called on ``[image, theta]``, where ``image`` has shape ``(N, H, W, C)`` and ``theta`` has
    shape ``(N, 6)``; returns an array of shape ``(N, output_height, output_width, C)``. For every
    output pixel (row ``i``, column ``j``), in float32:

    1. The grid runs linearly from -1 to 1 over the output, both ends included::

           gx = linspace(-1, 1, output_width)[j]
           gy = linspace(-1, 1, output_height)[i]

    2. ``theta`` is a 2x3 matrix ``[[a, b, c], [d, e, f]]``, stored row by row, that takes the
       grid point to a point of the image, again from -1 to 1::

           gx' = a * gx + b * gy + c
           gy' = d * gx + e * gy + f

    3. In pixels, -1 is the centre of the first pixel and 1 the centre of the last one
       ("align corners")::

           x = (gx' + 1) / 2 * (W - 1)
           y = (gy' + 1) / 2 * (H - 1)

    4. The four neighbours and their weights follow from the position *before* any clipping::

           x0 = floor(x), x1 = x0 + 1, wx = x - x0
           y0 = floor(y), y1 = y0 + 1, wy = y - y0

           output = (1 - wy) * ((1 - wx) * P(y0, x0) + wx * P(y0, x1))
                  +      wy  * ((1 - wx) * P(y1, x0) + wx * P(y1, x1))

       ``P(y, x)`` is the image's pixel if ``0 <= y <= H - 1`` and ``0 <= x <= W - 1``, and zero
       otherwise. Each neighbour is judged on its own, so the image fades to zero over one pixel
       beyond its border; the border pixels are not repeated.

    Where a neighbour is outside, its indices are clipped into the image merely to have something
    to read; what is read there is multiplied by zero. The test for "outside" and the clipping are
    done on floats, before the cast to integers, so that far away points cannot overflow.
    """

    def __init__(self, output_height: int, output_width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.output_height = output_height
        self.output_width = output_width

    def call(self, inputs: list[Any]) -> Any:
        image, theta = inputs
        _, height, width, channels = image.shape
        count = ops.shape(image)[0]

        # The sampling points, in pixels: both (N, output_height, output_width).
        gx = ops.reshape(ops.linspace(-1.0, 1.0, self.output_width), (1, 1, -1))
        gy = ops.reshape(ops.linspace(-1.0, 1.0, self.output_height), (1, -1, 1))
        a, b, c, d, e, f = (ops.reshape(theta[:, k], (-1, 1, 1)) for k in range(6))
        x = (a * gx + b * gy + c + 1.0) / 2.0 * (width - 1)
        y = (d * gx + e * gy + f + 1.0) / 2.0 * (height - 1)

        x0, y0 = ops.floor(x), ops.floor(y)
        x1, y1 = x0 + 1.0, y0 + 1.0
        wx, wy = x - x0, y - y0

        # All images' pixels in one list; image number n starts at n * height * width.
        pixels = ops.reshape(image, (-1, channels))
        start = ops.reshape(ops.arange(count, dtype="int32") * (height * width), (-1, 1, 1))

        def neighbour(row: Any, column: Any, weight: Any) -> Any:
            inside = (row >= 0) & (row <= height - 1) & (column >= 0) & (column <= width - 1)
            weight = weight * ops.cast(inside, weight.dtype)
            row = ops.cast(ops.clip(row, 0, height - 1), "int32")
            column = ops.cast(ops.clip(column, 0, width - 1), "int32")
            values = ops.take(pixels, start + row * width + column, axis=0)
            return ops.expand_dims(weight, -1) * values

        return (
            neighbour(y0, x0, (1.0 - wy) * (1.0 - wx))
            + neighbour(y0, x1, (1.0 - wy) * wx)
            + neighbour(y1, x0, wy * (1.0 - wx))
            + neighbour(y1, x1, wy * wx)
        )

    def compute_output_shape(self, input_shape: list[tuple]) -> tuple:
        image_shape, _ = input_shape
        return (image_shape[0], self.output_height, self.output_width, image_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "output_height": self.output_height,
            "output_width": self.output_width,
        }


# --- The data -----------------------------------------------------------------------------------


class Digits(NamedTuple):
    """Enlarged, undistorted digits: ``images`` (N, DIGIT + 5, DIGIT + 5) uint8, and labels."""

    images: np.ndarray
    labels: Labels


def enlarge(digit: np.ndarray) -> np.ndarray:
    """Turn an 8x8 digit with values 0..16 into a smooth uint8 one with a blank border."""
    small = np.pad(np.round(digit * (255 / 16)).astype(np.uint8), 1)
    side = DIGIT * small.shape[0] // digit.shape[0]
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def load_split(seed: int) -> tuple[Digits, Digits, Digits]:
    """Split the original digits into training, validation and test ones.

    The split comes before any distortion, so that no original digit is in two of the sets.
    """
    source = load_digits()
    images = np.stack([enlarge(digit) for digit in source.images])
    labels = source.target.astype(np.uint8)
    images, test_images, labels, test_labels = train_test_split(
        images, labels, test_size=TEST_DIGITS, stratify=labels, random_state=seed
    )
    images, val_images, labels, val_labels = train_test_split(
        images, labels, test_size=VALIDATION_DIGITS, stratify=labels, random_state=seed
    )
    return (
        Digits(images, labels),
        Digits(val_images, val_labels),
        Digits(test_images, test_labels),
    )


def distort(digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rotate, scale and shear a digit at random, and put it at a random place on a canvas."""
    angle = rng.uniform(-MAX_ROTATION, MAX_ROTATION)
    shear = rng.uniform(-MAX_SHEAR, MAX_SHEAR)
    scale = np.diag(rng.uniform(*SCALE_RANGE, size=2))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # Pillow wants the map from the canvas to the digit, hence the inverse.
    inverse = np.linalg.inv(rotation @ np.array([[1, shear], [0, 1]]) @ scale)
    centre = CANVAS / 2 + rng.uniform(-MAX_SHIFT, MAX_SHIFT, size=2)
    offset = digit.shape[0] / 2 - inverse @ centre
    matrix = np.column_stack([inverse, offset]).ravel().tolist()
    canvas = Image.fromarray(digit).transform(
        (CANVAS, CANVAS), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    return np.asarray(canvas)


def clutter(digits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Strew fragments of randomly chosen digits over an empty canvas."""
    canvas = np.zeros((CANVAS, CANVAS), np.uint8)
    for digit in digits[rng.integers(len(digits), size=FRAGMENTS)]:
        row, column = rng.integers(digit.shape[0] - FRAGMENT + 1, size=2)
        fragment = digit[row : row + FRAGMENT, column : column + FRAGMENT]
        row, column = rng.integers(CANVAS - FRAGMENT + 1, size=2)
        target = canvas[row : row + FRAGMENT, column : column + FRAGMENT]
        np.maximum(target, fragment, out=target)
    return canvas


def make_images(digits: Digits, copies: int, seed: int) -> tuple[Images, Labels]:
    """Make ``copies`` different distorted images of every digit, with clutter.

    The fragments come from the same digits, so that none strays from one set into another.
    """
    rng = np.random.default_rng(seed)
    images = np.empty((copies * len(digits.images), CANVAS, CANVAS, 1), np.uint8)
    for image, digit in zip(images, np.tile(digits.images, (copies, 1, 1)), strict=True):
        image[..., 0] = np.maximum(distort(digit, rng), clutter(digits.images, rng))
    return images, np.tile(digits.labels, copies)


def to_input(images: Images) -> np.ndarray:
    """Scale uint8 images to what the model takes: float32 from 0 to 1."""
    return images.astype(np.float32) / np.float32(255)


# --- The model ----------------------------------------------------------------------------------


def build_model() -> keras.Model:
    """Build the spatial transformer (localisation net and sampler) and its classifier."""
    image = keras.Input((CANVAS, CANVAS, 1), name="image")

    # The localisation net works on the image at half size: it only has to find the digit.
    x = layers.MaxPooling2D(2, name="loc_pool1")(image)
    x = layers.Conv2D(16, 5, activation="relu", name="loc_conv1")(x)
    x = layers.MaxPooling2D(2, name="loc_pool2")(x)
    x = layers.Conv2D(32, 5, activation="relu", name="loc_conv2")(x)
    x = layers.Flatten(name="loc_flatten")(x)
    x = layers.Dense(48, activation="relu", name="loc_dense")(x)
    theta_layer = layers.Dense(6, name="theta")
    theta = theta_layer(x)
    # Start from the identity transform: the whole image, whatever it shows.
    identity = np.array([1, 0, 0, 0, 1, 0], np.float32)
    theta_layer.set_weights([np.zeros(theta_layer.kernel.shape, np.float32), identity])

    x = GridSampler(GLIMPSE, GLIMPSE, name="grid_sampler")([image, theta])

    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.BatchNormalization(name="batch_norm")(x)
    x = layers.Conv2D(32, 3, strides=2, activation="relu", name="conv2")(x)
    x = layers.Dropout(0.3, name="dropout")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(64, activation="relu", name="dense")(x)
    digit = layers.Dense(CLASSES, activation="softmax", name="digit")(x)
    return keras.Model(image, digit, name="digits_stn")


def accuracy(predictions: np.ndarray, labels: Labels) -> float:
    return float(np.mean(np.argmax(predictions, axis=-1) == labels))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the spatial transformer digit classifier.")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parents[2] / "mlferry" / "examples" / "files",
        help="folder to write digits_stn.h5 and digits_stn.npz to (default: the package's)",
    )
    parser.add_argument("--epochs", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=128, help="default: %(default)s")
    parser.add_argument(
        "--copies",
        type=int,
        default=40,
        help="distorted images made of every training digit (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=2018, help="default: %(default)s")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    keras.utils.set_random_seed(args.seed)

    train, validation, test = load_split(args.seed)
    train_x, train_y = make_images(train, args.copies, args.seed)
    val_x, val_y = make_images(validation, 5, args.seed + 1)
    test_x, test_y = make_images(test, 1, args.seed + 2)
    print(f"{len(train_x)} training, {len(val_x)} validation and {len(test_x)} test images")

    model = build_model()
    # A slow start and clipped gradients: a large early step can throw the sampling grid off the
    # image for good, since nothing is learned from a glimpse that is zero everywhere.
    steps = args.epochs * math.ceil(len(train_x) / args.batch_size)
    warmup = math.ceil(steps / 20)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warmup, warmup_target=1e-3, warmup_steps=warmup
    )
    model.compile(
        optimizer=keras.optimizers.Adam(schedule, clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(
        to_input(train_x),
        train_y,
        batch_size=args.batch_size,
        epochs=args.epochs,
        validation_data=(to_input(val_x), val_y),
        verbose=2,
    )

    model_path = args.output / "digits_stn.h5"
    model.save(model_path, include_optimizer=False)

    # What is kept as the reference is what the file predicts, not the model in memory.
    saved = keras.models.load_model(model_path, compile=False)
    predictions = saved.predict(to_input(test_x), verbose=0).astype(np.float32)
    np.savez_compressed(args.output / "digits_stn.npz", x=test_x, y=test_y, predictions=predictions)
    print(f"{model.count_params()} parameters")
    print(f"accuracy on the {len(test_x)} test images: {accuracy(predictions, test_y):.1%}")


if __name__ == "__main__":
    main()
