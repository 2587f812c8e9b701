"""Images as the arguments of the classic entry points describe them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlferry.converters.types import ImageType

PerInput = float | Mapping[str, float]
PIXELS = ("is_bgr", "red_bias", "green_bias", "blue_bias", "gray_bias", "image_scale")


def image_of(
    key: str, pixels: Mapping[str, object], *, is_gray: bool, **options: object
) -> ImageType:
    """An image as the classic arguments describe it.

    Args:
        key: the name of the input in these arguments.
        pixels: the arguments in `PIXELS`, each one value for all inputs, or values by name.
        is_gray: whether the image has one channel.
        options: further ones of `ImageType`.
    """

    def pick(name: str, default: float) -> Any:
        value = pixels.get(name, default)
        return value.get(key, default) if isinstance(value, Mapping) else value

    bgr = bool(pick("is_bgr", False))
    colors = tuple(pick(f"{color}_bias", 0.0) for color in ("red", "green", "blue"))
    fields: dict[str, Any] = {"name": key, **options}
    return ImageType(
        scale=pick("image_scale", 1.0),
        bias=pick("gray_bias", 0.0) if is_gray else colors[::-1] if bgr else colors,
        color_layout="GRAYSCALE" if is_gray else "BGR" if bgr else "RGB",
        **fields,
    )
