"""The specification versions, and which systems read them."""

from __future__ import annotations

from dataclasses import dataclass

from mlferry.errors import SpecError


@dataclass(frozen=True)
class Release:
    """The first system releases that read a specification version."""

    version: int
    ios: str
    macos: str
    tvos: str
    watchos: str


RELEASES = (
    Release(1, "11", "10.13", "11", "4"),
    Release(2, "11.2", "10.13.2", "11.2", "4.2"),
    Release(3, "12", "10.14", "12", "5"),
    Release(4, "13", "10.15", "13", "6"),
    Release(5, "14", "11", "14", "7"),
    Release(6, "15", "12", "15", "8"),
    Release(7, "16", "13", "16", "9"),
    Release(8, "17", "14", "17", "10"),
    Release(9, "18", "15", "18", "11"),
    Release(10, "26", "26", "26", "26"),
)
NEWEST = RELEASES[-1].version


def release(version: int) -> Release:
    """The systems for a specification version.

    Raises:
        SpecError: there is no such version.
    """
    if not 1 <= version <= NEWEST:
        raise SpecError(f"specification versions go from 1 to {NEWEST}, not {version}")
    return RELEASES[version - 1]


def version_for(target: str | int) -> int:
    """The newest specification version that a deployment target reads.

    Args:
        target: ``"iOS13"``, ``"macOS10.15"``, ``"tvOS14"``, ``"watchOS6"`` (case, spaces and
            dots after the system's name do not matter), or a version number.

    Raises:
        SpecError: the target is none of these.
    """
    if isinstance(target, int):
        return release(target).version
    compact = target.lower().replace(" ", "").removeprefix("target.")
    for system in ("macos", "ios", "tvos", "watchos"):
        if compact.startswith(system):
            try:
                asked = _release_key(compact.removeprefix(system).lstrip(".v"))
            except ValueError:
                break
            reads = [r for r in RELEASES if _release_key(getattr(r, system)) <= asked]
            if not reads:
                break
            return reads[-1].version
    raise SpecError(
        f"deployment target {target!r} is not known; write e.g. 'iOS13', 'macOS10.15', "
        "'tvOS14' or 'watchOS6'"
    )


def _release_key(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.replace("_", ".").split("."))
