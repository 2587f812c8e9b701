"""One convolutional part of a network, ready for inputs of given shapes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from mlferry import limits
from mlferry.compiled import is_active
from mlferry.errors import SpecError, context
from mlferry.numerics.shapes import Shape as OpenShape
from mlferry.runtime.planned import moves
from mlferry.runtime.planned.finish import Finish, Rounding
from mlferry.runtime.planned.maps import NO_BORDER, Array, Border, Map, Workspace, size_of
from mlferry.runtime.threads import Part as Run, as_needed, run_steps

T = TypeVar("T")
Shape = tuple[int, ...]


class NotPlannedError(Exception):
    """The plan cannot take a layer, or its shapes; the layers run one by one instead."""


class Part(ABC):
    """What a plan knows of a layer of a network, or of an operation of a program.

    Attributes:
        in_place: whether its result may lie where its input does.
        joins: whether its inputs may lie in its result, one after another.
        broadcasts: whether an input with fewer axes may come from outside.
        worth: whether planning pays if it is one of several.
        exact: whether it makes values of float16 of such values, which need no rounding.
        worth_alone: whether it pays if it is the only one.
    """

    in_place: ClassVar[bool] = False
    joins: ClassVar[bool] = False
    broadcasts: ClassVar[bool] = False
    worth: ClassVar[bool] = False
    exact: bool = False

    def __init__(self) -> None:
        self._derived: dict[str, Any] = {}

    @property
    def worth_alone(self) -> bool:
        """See the attributes of `Part`."""
        return False

    @abstractmethod
    def plan(self, plan: Plan, step: PlannedStep) -> None:
        """Add to a plan what computes it."""

    def follow(self, plan: Plan, name: str, step: PlannedStep, finish: Finish) -> bool:
        """Whether it can be merged into the step that makes its input `name`, by `finish`."""
        return False

    def padding(self, plan: Plan, step: PlannedStep, shape: Shape) -> tuple[Border, float]:
        """The border that it reads around an input of a shape [1, C, H, W], and its values."""
        return NO_BORDER, 0.0

    def once(self, key: str, make: Callable[[], T]) -> T:
        """The result of `make`, made at the first call and kept: plans for other shapes share."""
        if key not in self._derived:
            self._derived[key] = make()
        return self._derived[key]  # type: ignore[no-any-return]


class AnyStep(Protocol):
    """A layer of a network, or an operation of a program, as all plans see it."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The blobs that it takes."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The blobs that it makes."""

    @property
    def rounds(self) -> bool:
        """Whether its result is rounded to float16."""

    def infer(self, shapes: Sequence[Shape]) -> Sequence[OpenShape] | None:
        """The shapes of its outputs for those of its inputs.

        Raises:
            SpecError: they do not fit.
        """


class PlannedStep(AnyStep, Protocol):
    """The same as plans of convolutional parts see it."""

    @property
    def reads(self) -> frozenset[str]:
        """Every blob that it, or something inside it, may read."""

    @property
    def writes(self) -> frozenset[str]:
        """Every blob that it, or something inside it, may make."""

    @property
    def part(self) -> Part | None:
        """What a plan knows of it; None where no plan may take it."""

    @property
    def is_flow(self) -> bool:
        """Whether it is a branch, a loop, or anything else that must keep its place."""


class Plan:
    """Buffers and steps for one sample of a region.

    Args:
        steps: the layers, in an order in which blobs are made before they are read.
        given: shapes [1, C, H, W] of the blobs that come from outside.
        shown: the blobs that are wanted outside.
        winograd: whether convolutions may go by tiles, which round more.

    Attributes:
        runs: what makes the outputs of the inputs.

    Raises:
        NotPlannedError: a layer cannot be planned for these shapes.
    """

    def __init__(
        self,
        steps: Sequence[PlannedStep],
        inputs: Mapping[str, Shape],
        outputs: Sequence[str],
        winograd: bool = True,
    ) -> None:
        self.steps, self.shown = steps, list(outputs)
        self.compiled = is_active()
        self.winograd = winograd
        self.shapes = _shapes(steps, inputs)
        self.readers: dict[str, list[PlannedStep]] = {}
        for step in steps:
            for name in dict.fromkeys(step.inputs):
                self.readers.setdefault(name, []).append(step)
        self.work = Workspace()
        self._runs: list[Run] = []
        self._maps: dict[str, Map] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._padded: dict[str, dict[tuple[str, Border, float], Map]] = {}
        self._free: list[Map] = []
        self._first: set[int] = set()
        self._fused: set[int] = set()
        self.made: set[str] = set(inputs)
        self.inputs = {name: self.map(name).inner for name in inputs}
        for step in steps:
            self._reserve(step)
        self._waiting = self._uses()
        for step in steps:
            if id(step) not in self._fused:
                with context(f"running {step}"):
                    _part(step).plan(self, step)
                self.made.update(step.outputs)
            self._release(step)
        self.outputs = {name: self.map(name).inner for name in self.shown}
        self.runs = moves.joined(self._runs, self.compiled)
        self._surroundings = as_needed(self.runs)

    def read(self, name: str, planes: Array) -> None:
        """Take an input [C, H, W]."""
        moves.to_pixels(planes, self.inputs[name], self.compiled)

    def write(self, name: str, planes: Array) -> None:
        """Give an output, as [C, H, W]."""
        moves.to_planes(self.outputs[name], planes, self.compiled)

    def run(self, read: Run) -> None:
        """Compute the outputs of what `inputs` hold.

        Args:
            read: takes the inputs, while other threads wake.
        """
        with self._surroundings():
            run_steps([read, *self.runs])

    # ---- what planners use -------------------------------------------------------------

    def add(self, *runs: Run) -> None:
        """Add something to do; its part of the workspace is free for the next one."""
        self._runs += runs
        self.work.restart()

    def copy(self, target: Array, source: Array) -> None:
        """Add copying a map."""
        self.add(moves.copying(source, target, self.compiled))

    def fill(self, parts: Sequence[Array], value: float) -> None:
        """Add writing a value to maps."""
        self.add(moves.filling(parts, value, self.compiled))

    def size(self, name: str) -> tuple[int, int, int]:
        """Height, width and channels of a blob."""
        _, channels, height, width = self.shapes[name]
        return height, width, channels

    def map(self, name: str) -> Map:
        """Where a blob lies: in a map of its own, or in a part of a concatenation."""
        if name not in self._maps:
            if name in self._places:
                whole, start = self._places[name]
                self._maps[name] = self.map(whole).channels(start, self.size(name)[2])
            else:
                self._maps[name] = self._new(self.size(name), *self._border(name))
        return self._maps[name]

    def padded(self, name: str, border: Border, fill: float) -> Array:
        """A blob with a border: its own map if that has the border, otherwise a copy."""
        unpadded = self.map(name)
        if border == NO_BORDER:
            return unpadded.inner
        inside = [have - least for have, least in zip(unpadded.border, border, strict=True)]
        if unpadded.fill == fill and min(inside) >= 0:
            above, below, left, right = inside
            height, width, _ = unpadded.outer.shape
            return unpadded.outer[above : height - below, left : width - right]
        copies = self._padded.setdefault(self._whole(name), {})
        key = (name, border, fill)
        if key not in copies:
            copy = copies[key] = self._new(self.size(name), border, fill)
            self.copy(copy.inner, unpadded.inner)
        return copies[key].outer

    def finish(self, step: PlannedStep, finish: Finish) -> tuple[Finish, str]:
        """What can be merged into a layer, and the blob that results.

        Layers that work value by value, and a sum with a blob that exists already, are merged if
        nothing else reads the blobs between. Values of float16 are rounded.
        """
        (name,) = step.outputs
        if _rounds(step):
            finish.steps.append(Rounding())
        while name not in self.shown and len(self.readers.get(name, ())) == 1:
            (reader,) = self.readers[name]
            if not _part(reader).follow(self, name, reader, finish):
                break
            if _rounds(reader):
                finish.steps.append(Rounding())
            self._fused.add(id(reader))
            (name,) = reader.outputs
        self.made.add(name)
        return finish, name

    # ---- inside ------------------------------------------------------------------------

    def _whole(self, name: str) -> str:
        """The blob whose map holds this one."""
        while name in self._places:
            name = self._places[name][0]
        return name

    def _uses(self) -> dict[str, int]:
        """How many steps use each map that nothing outside the plan reads."""
        uses: dict[str, int] = {}
        for step in self.steps:
            for whole in self._maps_of(step):
                uses[whole] = uses.get(whole, 0) + 1
        for name in self.shown:
            uses.pop(self._whole(name), None)
        return uses

    def _maps_of(self, step: PlannedStep) -> set[str]:
        return {self._whole(name) for name in (*step.inputs, *step.outputs)}

    def _release(self, step: PlannedStep) -> None:
        """After a step, free the maps that no later one uses."""
        for whole in self._maps_of(step) & self._waiting.keys():
            self._waiting[whole] -= 1
            if self._waiting[whole] == 0:
                freed = [self._maps[whole]] if whole in self._maps else []
                self._free += [*freed, *self._padded.get(whole, {}).values()]

    def _new(self, size: tuple[int, int, int], border: Border, fill: float) -> Map:
        """A map whose border is filled: in memory that is free, or in memory of its own.

        A border stays until another map takes the memory. Then both fill theirs in each run: the
        first owner at the start, later ones when they take it over.
        """
        for index, free in enumerate(self._free):
            if (free.inner.shape, free.border, free.fill) == (size, border, fill):
                return self._free.pop(index)
        count = size_of(size, border)
        if 4 * count > limits.current().blob:
            raise NotPlannedError(f"a border of {border} around {size}")
        large = [
            index
            for index, free in enumerate(self._free)
            if free.memory.size >= count and (count >= _LARGE or free.border == border == NO_BORDER)
        ]
        if not large:
            result = Map.new(size, border, fill)
            self._first.add(id(result))
            return result
        former = self._free.pop(min(large, key=lambda index: self._free[index].memory.size))
        if id(former) in self._first and former.border != NO_BORDER:
            self._runs.insert(0, moves.filling(former.around, former.fill, self.compiled))
        result = Map.over(former.memory, size, border, fill)
        if border != NO_BORDER:
            self._runs.append(moves.filling(result.around, fill, self.compiled))
        return result

    def _reserve(self, step: PlannedStep) -> None:
        """Place the parts of a concatenation in it, and in-place results in their inputs."""
        part = _part(step)
        if part.in_place:
            (name,) = step.inputs
            if name not in self._maps and self._ends_in(name):
                self._places.setdefault(name, (step.outputs[0], 0))
        if not part.joins:
            return
        start = 0
        (whole,) = step.outputs
        own = len(set(step.inputs)) == len(step.inputs)
        for name in step.inputs:
            if own and name not in self._places and name not in self._maps:
                self._places[name] = (whole, start)
            start += self.size(name)[2]

    def _ends_in(self, name: str) -> bool:
        """Whether one step alone reads a blob and, before, what lies in its map."""
        if len(self.readers[name]) != 1 or name in self.shown:
            return False
        inside = [part for part, (whole, _) in self._places.items() if whole == name]
        return all(map(self._ends_in, inside))

    def _border(self, name: str) -> tuple[Border, float]:
        """The padding of the first reader that pads."""
        for reader in self.readers.get(name, ()):
            border, fill = _part(reader).padding(self, reader, self.shapes[name])
            if border != NO_BORDER:
                return border, fill
        return NO_BORDER, 0.0


_LARGE = 1 << 18  # values: beyond, filling a border is cheaper than more memory


def _part(step: PlannedStep) -> Part:
    assert step.part is not None  # `regions` gives others to no plan
    return step.part


def _rounds(step: PlannedStep) -> bool:
    return step.rounds and not _part(step).exact


def _shapes(steps: Sequence[PlannedStep], inputs: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes of all blobs, [1, C, H, W]."""
    shapes: dict[str, Shape] = dict(inputs)
    for step in steps:
        try:
            inferred = step.infer([shapes[name] for name in step.inputs])
        except SpecError as error:
            raise NotPlannedError(str(error)) from error
        for name, shape in zip(step.outputs, inferred or (), strict=False):
            if len(shape) != 4 or shape[0] != 1 or None in shape:
                raise NotPlannedError(f"{name} has shape {shape}")
            with context(f"running {step}"):
                limits.check_blob(shape)
            shapes[name] = tuple(n or 0 for n in shape)
    return shapes
