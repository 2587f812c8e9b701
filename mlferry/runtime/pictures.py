"""Image outputs as images of Pillow."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

from mlferry.errors import RegistrationError
from mlferry.spec.proto import model_pb2

KINDS = ("pil", "array")


def check_kind(images: str) -> None:
    """Raise a `RegistrationError` unless `images` is a known kind."""
    if images not in KINDS:
        raise RegistrationError(f"images={images!r}: {' and '.join(map(repr, KINDS))} are possible")


def names_of(outputs: Iterable[model_pb2.FeatureDescription]) -> list[str]:
    """The names of the outputs that are images."""
    return [output.name for output in outputs if output.type.WhichOneof("Type") == "imageType"]


def as_pictures(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Results with Pillow's images instead of arrays; unchanged if Pillow is not installed.

    Args:
        values: the results.
        names: those of images.
    """
    pillow = _pillow()
    if pillow is None:
        return values
    images = {name: pillow.fromarray(np.ascontiguousarray(values[name])) for name in names}
    return {**values, **images}


@functools.cache
def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        return None
    return Image
