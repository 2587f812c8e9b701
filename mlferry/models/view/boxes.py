"""Boxes and edges: what a page draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from mlferry.models.view.stored import WeightDetail

Rows = list[tuple[str, str]]


@dataclass
class Box:
    """A layer, a model of a pipeline, or an input or output.

    Attributes:
        name: of the layer.
        kind: of the layer; "input" and "output" for those.
        rows: its parameters as label and value.
        inputs, outputs: blobs with their shapes.
        role: "layer", "custom", "group", "input" or "output".
        inside: graphs that open up, with titles.
        family: its group of kinds, which determines its colour.
        brief: lines below its name: the attribute that matters, and the largest weight.
        weights: facts about its weights, by parameter.
    """

    name: str
    kind: str
    rows: Rows
    inputs: list[tuple[str, str]] = field(default_factory=list)
    outputs: list[tuple[str, str]] = field(default_factory=list)
    role: str = "layer"
    inside: list[tuple[str, BoxGraph]] = field(default_factory=list)
    family: str = "other"
    brief: list[str] = field(default_factory=list)
    weights: list[tuple[str, WeightDetail]] = field(default_factory=list)

    def write_brief(self, attribute: str) -> None:
        """Show the attribute that matters, and the largest weight, below the name."""
        sizes = [(math.prod(detail.shape), detail.brief) for _, detail in self.weights]
        size, largest = max(sizes, key=itemgetter(0), default=(0, ""))
        self.brief = [each for each in (attribute, largest if size > 1 else "") if each]


@dataclass(frozen=True)
class Edge:
    """A blob from the box that makes it to one that reads it; `label` is its shape."""

    start: int
    end: int
    blob: str
    label: str


@dataclass
class BoxGraph:
    """Boxes in an order in which every edge goes forward."""

    boxes: list[Box] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    makers: dict[str, int] = field(default_factory=dict)

    def add(
        self, box: Box, reads: Sequence[tuple[str, str]], writes: Sequence[tuple[str, str]]
    ) -> None:
        """Add a box after the boxes that make what it reads."""
        box.inputs, box.outputs = list(reads), list(writes)
        place = len(self.boxes)
        self.boxes.append(box)
        for blob, label in dict(reads).items():
            if blob in self.makers:
                self.edges.append(Edge(self.makers[blob], place, blob, label))
        for blob, _ in writes:
            self.makers[blob] = place
