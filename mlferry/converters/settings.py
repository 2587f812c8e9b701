"""Choices that coremltools 4 and later have as enumerations, under its names."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, IntEnum

from mlferry.errors import ConversionError
from mlferry.spec.features import COLOR_SPACES
from mlferry.spec.versions import RELEASES


def _targets() -> Iterator[tuple[str, int]]:
    """The first system releases of every specification version: ``iOS13``, ``macOS10_15``."""
    for release in RELEASES:
        for system, number in (
            ("iOS", release.ios),
            ("macOS", release.macos),
            ("watchOS", release.watchos),
            ("tvOS", release.tvos),
        ):
            yield f"{system}{number.replace('.', '_')}", release.version


AvailableTarget = IntEnum("AvailableTarget", list(_targets()))  # type: ignore[misc]
AvailableTarget.__doc__ = "System releases, for `minimum_deployment_target`."

ColorLayout = Enum(  # type: ignore[misc]
    "ColorLayout", [(name, name) for name in COLOR_SPACES], type=str
)
ColorLayout.__doc__ = "The order of colours, for `ImageType`."


class ComputeUnit(Enum):
    """What a device computes on. Nothing here depends on it: the app decides when it runs."""

    ALL = 1
    CPU_AND_GPU = 2
    CPU_ONLY = 3
    CPU_AND_NE = 4


class ComputePrecision(Enum):
    """What an ML program computes with. Neural networks have the precision of their weights."""

    FLOAT16 = "float16"
    FLOAT32 = "float32"


def check_format(convert_to: str | None) -> None:
    """Raise a `ConversionError` unless neural networks are asked for."""
    if convert_to not in (None, "neuralnetwork"):
        raise ConversionError(
            f"convert_to={convert_to!r}: mlferry writes neural networks (.mlmodel), which all "
            "systems since iOS 11 run, and no ML programs: leave it out, or write 'neuralnetwork'"
        )


def check_precision(given: ComputePrecision | str | None) -> None:
    """Raise a `ConversionError` unless float32 is asked for."""
    name = given.value if isinstance(given, ComputePrecision) else given
    if name not in (None, "float32"):
        raise ConversionError(
            f"compute_precision={name!r}: a neural network computes as the device likes, and its "
            "weights are stored in float32: leave it out, and for weights of half precision write "
            "mlferry.quantize_weights(model, 16)"
        )
