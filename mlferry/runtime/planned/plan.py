"""One convolutional part of a network, ready for inputs of given shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlferry.errors import SpecError
from mlferry.registry import Registry
from mlferry.runtime.planned.maps import NO_BORDER, Array, Border, Map
from mlferry.runtime.planned.products import Finish, Pointwise
from mlferry.spec.shapes import infer

if TYPE_CHECKING:
    from mlferry.runtime.session import Step

Shape = tuple[int, ...]
Planner = Callable[["Plan", "Step"], None]
Follower = Callable[["Plan", "Step"], "Pointwise | None"]
Padding = Callable[["Plan", "Step", Shape], "tuple[Border, float]"]

PLANNERS: Registry[Planner] = Registry("planned layer kind")
planned = PLANNERS.register


class NotPlannedError(Exception):
    """A layer, or its shapes, that the plan cannot take: the layers run one by one instead."""


class Plan:
    """Buffers and steps for one sample of a region.

    Args:
        steps: the layers, in an order in which blobs are made before they are read.
        given: shapes [1, C, H, W] of the blobs that come from outside.
        shown: the blobs that are wanted outside.
        winograd: whether convolutions may go by tiles, which round more.

    Raises:
        NotPlannedError: a layer cannot be planned for these shapes.
    """

    def __init__(
        self, steps: Sequence[Step], given: Mapping[str, Shape], shown: Sequence[str], *,
        winograd: bool = True,
    ) -> None:  # fmt: skip
        self.steps, self.shown, self.winograd = steps, list(shown), winograd
        self.shapes = _shapes(steps, given)
        self.readers: dict[str, list[Step]] = {}
        for step in steps:
            for name in dict.fromkeys(step.inputs):
                self.readers.setdefault(name, []).append(step)
        self._runs: list[Callable[[], None]] = []
        self._maps: dict[str, Map] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._padded: dict[tuple[str, Border, float], Map] = {}
        self._fused: set[int] = set()
        self.made: set[str] = set(given)
        self.inputs = {name: self.map(name).inner for name in given}
        for step in steps:
            self._reserve(step)
        for step in steps:
            if id(step) not in self._fused:
                PLANNERS.find(step.params.kind).value(self, step)  # type: ignore[union-attr]
                self.made.update(step.outputs)
        self.outputs = {name: self.map(name).inner for name in self.shown}

    def run(self) -> None:
        """Compute the outputs of what `inputs` hold."""
        for run in self._runs:
            run()

    # ---- what planners use -------------------------------------------------------------

    def add(self, run: Callable[[], None]) -> None:
        """Add something to do."""
        self._runs.append(run)

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
                self._maps[name] = Map.new(self.size(name), *self._border(name))
        return self._maps[name]

    def padded(self, name: str, border: Border, fill: float) -> Array:
        """A blob within a border: its own map where that has it, otherwise a copy."""
        found = self.map(name)
        if border == NO_BORDER:
            return found.inner
        inside = [have - wanted for have, wanted in zip(found.border, border, strict=True)]
        if found.fill == fill and min(inside) >= 0:
            above, below, left, right = inside
            height, width, _ = found.outer.shape
            return found.outer[above : height - below, left : width - right]
        key = (name, border, fill)
        if key not in self._padded:
            copy = self._padded[key] = Map.new(self.size(name), border, fill)
            self.add(lambda: np.copyto(copy.inner, found.inner))
        return self._padded[key].outer

    def finish(self, step: Step, finish: Finish) -> tuple[Finish, str]:
        """What can follow a layer at once, and the blob that is made in the end.

        Layers that work value by value, and a sum with a blob that is there already, are done
        with it where nobody else reads what is between.
        """
        (name,) = step.outputs
        while name not in self.shown and len(self.readers.get(name, ())) == 1:
            (reader,) = self.readers[name]
            follow = FOLLOWERS.find(reader.params.kind)
            if follow is None or not follow.value(self, reader, name, finish):
                break
            self._fused.add(id(reader))
            (name,) = reader.outputs
        self.made.add(name)
        return finish, name

    # ---- inside ------------------------------------------------------------------------

    def _reserve(self, step: Step) -> None:
        """Give the parts of a concatenation along the channels their places in it."""
        if step.params.kind not in ("concat", "concatND"):
            return
        start = 0
        (whole,) = step.outputs
        own = len(set(step.inputs)) == len(step.inputs)
        for name in step.inputs:
            if own and name not in self._places and name not in self._maps:
                self._places[name] = (whole, start)
            start += self.size(name)[2]

    def _border(self, name: str) -> tuple[Border, float]:
        """The padding of the first reader that pads."""
        for reader in self.readers.get(name, ()):
            padding = PADDINGS.find(reader.params.kind)
            if padding is not None:
                border, fill = padding.value(self, reader, self.shapes[name])
                if border != NO_BORDER:
                    return border, fill
        return NO_BORDER, 0.0


FOLLOWERS: Registry[Callable[[Plan, Step, str, Finish], bool]] = Registry("follower")
follower = FOLLOWERS.register
PADDINGS: Registry[Padding] = Registry("padding")
padding_of = PADDINGS.register


def _shapes(steps: Sequence[Step], given: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes of all blobs, [1, C, H, W]."""
    found: dict[str, Shape] = dict(given)
    for step in steps:
        try:
            made = infer(step.params, [found[name] for name in step.inputs])
        except SpecError as error:
            raise NotPlannedError(str(error)) from error
        for name, shape in zip(step.outputs, made or (), strict=False):
            if len(shape) != 4 or shape[0] != 1 or None in shape:
                raise NotPlannedError(f"{name} has shape {shape}")
            found[name] = tuple(n or 0 for n in shape)
    return found
