"""Enumerations of coremltools 4 and later, under the same names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum, IntEnum

from mlferry.errors import ConversionError
from mlferry.spec.features import COLOR_SPACES
from mlferry.spec.releases import RELEASES
from mlferry.text import logger_of

logger = logger_of(__name__)

_EXACT = 13  # the iOS release that brought exact array mapping


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
    yield "macOS10_16", 5  # the first name of macOS 11


AvailableTarget = IntEnum("AvailableTarget", list(_targets()))  # type: ignore[misc] # computed names
AvailableTarget.__doc__ = "System releases, for `minimum_deployment_target`."

ColorLayout = Enum(  # type: ignore[misc] # computed names
    "ColorLayout", [(name, name) for name in COLOR_SPACES], type=str
)
ColorLayout.__doc__ = "The order of colours, for `ImageType`."


class ComputeUnit(Enum):
    """The compute units of a device. Nothing here depends on them: the app decides when it runs."""

    ALL = 1
    CPU_AND_GPU = 2
    CPU_ONLY = 3
    CPU_AND_NE = 4


class ComputePrecision(Enum):
    """The precision of an ML program. Neural networks have the precision of their weights."""

    FLOAT16 = "float16"
    FLOAT32 = "float32"


def exact_target(target: str | float) -> str:
    """The deployment target of a classic entry point: iOS 13, or a later one if given.

    Args:
        target: the iOS release, such as "12". A release before 13 is accepted with a warning.

    Raises:
        ConversionError: it is not a number.
    """
    try:
        release = float(target)
    except ValueError:
        raise ConversionError(
            f"minimum_ios_deployment_target={target!r}: a release of iOS, such as '13'"
        ) from None
    if release < _EXACT:
        logger.warning(
            "minimum_ios_deployment_target=%r: the model is written in exact array mapping, where "
            "arrays keep the shapes of the source, and needs iOS %d",
            target,
            _EXACT,
        )
        return f"iOS{_EXACT}"
    return f"iOS{target}"


def listed(names: str | Sequence[str] | None) -> list[str]:
    """Names given as one, as several, or not at all."""
    return [names] if isinstance(names, str) else list(names or ())


def check_network_precision(precision: object) -> None:
    """Raise a `ConversionError` if a neural network should have another precision than float32."""
    name = precision.value if isinstance(precision, ComputePrecision) else precision
    if name not in (None, "float32"):
        raise ConversionError(
            f"compute_precision={name!r}: a neural network computes as the device likes, and its "
            "weights are stored in float32: leave it out, and for weights of half precision write "
            "mlferry.quantize_weights(model, 16); programs compute in half precision: "
            "convert_to='mlprogram'"
        )
