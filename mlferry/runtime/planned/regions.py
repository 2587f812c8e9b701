"""Parts of a plan of steps that run as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

from mlferry.compiled import is_active
from mlferry.runtime.planned.map_region import MapRegion
from mlferry.runtime.planned.maps import Array
from mlferry.runtime.planned.plan import PlannedStep
from mlferry.runtime.planned.region import Region

if TYPE_CHECKING:  # plans on arrays need Numba
    from mlferry.runtime.planned.arrays.plan import ArrayStep

    class ScheduledStep(PlannedStep, ArrayStep, Protocol):
        """A step as both kinds of plans see it."""


S = TypeVar("S", bound="ScheduledStep")


@dataclass(frozen=True)
class PlannedRegion(Generic[S]):
    """What runs as one.

    Attributes:
        region: a part that is planned, or None for a single step.
        steps: the layers, where they run one by one.
        frees: blobs that nothing reads after it.
    """

    region: Region | None
    steps: Sequence[S]
    frees: tuple[str, ...]


Groups: TypeAlias = list[tuple[Region | None, Sequence[S]]]


def scheduled(
    steps: Sequence[S],
    outputs: frozenset[str],
    constants: Mapping[str, Array],
    *,
    planned: bool,
    winograd: bool,
    chains: bool = False,
) -> list[PlannedRegion[S]]:
    """What to run for the wanted blobs, each with the blobs that it uses last.

    Args:
        steps: the layers.
        outputs: the wanted blobs.
        constants: blobs that are the same in every run.
        planned: whether some may run as one.
        winograd: whether convolutions may go by tiles, which round more.
        chains: whether the results of one part may come with those of the part before; see
            `arrays.chain`.
    """
    groups: Groups[S] = [(None, [step]) for step in steps]
    if planned:
        groups = _with_maps(steps, outputs, winograd)
    if planned and is_active():
        groups = _with_arrays(groups, outputs, constants, chains)
    last_use = set(outputs)
    plan: list[PlannedRegion[S]] = []
    for region, inner in reversed(groups):
        used = {name for step in inner for name in step.reads | step.writes}
        plan.append(PlannedRegion(region, inner, tuple(sorted(used - last_use))))
        last_use |= used
    return plan[::-1]


def _with_maps(steps: Sequence[S], outputs: frozenset[str], winograd: bool) -> Groups[S]:
    """The steps reordered so that each convolutional part is one region."""
    return _grouped(
        [(None, [step]) for step in steps],
        outputs,
        lambda step: step.part is not None,
        lambda inner, before: _is_worth(inner),
        lambda inner, shown: MapRegion(inner, shown, winograd),
    )


def _with_arrays(
    groups: Groups[S], outputs: frozenset[str], constants: Mapping[str, Array], chains: bool
) -> Groups[S]:
    """The same with parts on arrays as regions, of steps that are in none."""
    from mlferry.runtime.planned.arrays.region import ArrayRegion, is_worth

    def follows(inner: Sequence[S], before: Region | None) -> bool:
        written = {name for step in inner for name in step.outputs}
        read = {name for step in inner for name in step.inputs} - written - constants.keys()
        return chains and isinstance(before, MapRegion) and bool(read) and read <= {*before.shown}

    result = _grouped(
        groups,
        outputs,
        lambda step: step.array_part is not None,
        lambda inner, before: follows(inner, before) or is_worth(inner),
        lambda inner, shown: ArrayRegion(inner, shown, constants),
    )
    return _chained(result, outputs) if chains else result


def _chained(groups: Groups[S], outputs: frozenset[str]) -> Groups[S]:
    """The same with parts on arrays as the ends of what makes all that they read."""
    from mlferry.runtime.planned.arrays.chain import ChainEnd, ChainRegion
    from mlferry.runtime.planned.arrays.region import ArrayRegion

    result = list(groups)
    for place, (before, after) in enumerate(pairwise(groups)):
        maps, arrays = before[0], after[0]
        if not isinstance(maps, MapRegion) or not isinstance(arrays, ArrayRegion):
            continue
        if arrays.reads and {*arrays.reads} <= {*maps.shown}:
            later = {
                name for _, inner in groups[place + 2 :] for step in inner for name in step.reads
            }
            kept = [name for name in maps.shown if name in later | outputs]
            result[place] = ChainRegion(maps, arrays, kept), before[1]
            result[place + 1] = ChainEnd(arrays), after[1]
    return result


def _grouped(
    groups: Groups[S],
    outputs: frozenset[str],
    takes: Callable[[S], bool],
    is_worth: Callable[[Sequence[S], Region | None], bool],
    region_of: Callable[[Sequence[S], Sequence[str]], Region],
) -> Groups[S]:
    """Groups reordered so that single steps that a plan takes are one region."""
    result: Groups[S] = []
    waiting: list[S] = []
    several = overwritten([step for _, inner in groups for step in inner])

    def close(rest: Groups[S]) -> None:
        if not waiting:
            return
        written = {name for step in waiting for name in step.outputs}
        later = {name for _, inner in rest for step in inner for name in step.reads} | outputs
        if is_worth(waiting, result[-1][0] if result else None):
            region = region_of(list(waiting), sorted(written & later))
            result.append((region, region.steps))
        else:
            result.extend((None, [step]) for step in waiting)
        waiting.clear()

    for index, (region, inner) in enumerate(groups):
        made = {name for other in waiting for name in other.writes}
        read = {name for other in waiting for name in other.reads}
        flows = any(step.is_flow for step in inner)
        touched = {name for step in inner for name in step.reads | step.writes}
        clashes = made & touched or read & {name for step in inner for name in step.writes}
        if region is None and not flows and not touched & several and takes(inner[0]):
            waiting.extend(inner)
        elif not flows and not clashes:
            result.append((region, inner))  # it can run before the waiting steps
        else:
            close(groups[index:])
            result.append((region, inner))
    close([])
    return result


def overwritten(steps: Sequence[PlannedStep]) -> frozenset[str]:
    """Blobs that several layers write; their order matters."""
    seen: set[str] = set()
    twice: set[str] = set()
    for step in steps:
        twice |= seen & step.writes
        seen |= step.writes
    return frozenset(twice)


def _is_worth(steps: Sequence[PlannedStep]) -> bool:
    """Whether planning outweighs copying the inputs and outputs."""
    parts = [step.part for step in steps if step.part is not None]
    return any(part.worth for part in parts) if len(parts) > 1 else parts[0].worth_alone
