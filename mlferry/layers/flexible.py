"""Which sizes of a flexible input the layers accept, by their shape rules: nothing is run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mlferry.layers.trace import (
    CustomShapes,
    Known,
    ShapeTrace,
    blob_shapes,
    bound_to_sizes,
    nothing_known,
    steps_of,
    trace,
)
from mlferry.numerics.shapes import show
from mlferry.spec import networks, sizes as size_record
from mlferry.spec.proto import features_pb2 as ft, model_pb2
from mlferry.text import paragraph

Sizes = dict[str, tuple[int, ...]]  # by input: shape of an array, (height, width) of an image
_MOST = 1024  # sizes tried along one axis
_WORK = 40_000  # layers looked at along one axis
_LISTED = 6


@dataclass
class Axis:
    """One flexible extent of one input, or the list of shapes that it may have.

    Attributes:
        input: the name of the input.
        axis: its index in the shape of the array, or in (height, width); -1 for a list.
        wanted: the range, or the list, as text.
        listed: the shapes of the list.
        tried: extents that were tried, or indices into the list.
        accepted: those that every layer takes.
        complete: whether every size of the range was tried.
        together: whether they were accepted only with the same extent on all flexible axes of this
            range.
        reasons: by rejected extent, which layer does not accept it.
    """

    input: str
    axis: int
    wanted: str
    listed: list[tuple[int, ...]] = field(default_factory=list)
    tried: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    complete: bool = True
    together: bool = False
    reasons: dict[int, str] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether all that was tried is accepted."""
        return len(self.accepted) == len(self.tried)

    def __str__(self) -> str:
        subject = f"input {self.input!r}, {self.wanted}"
        if not self.complete:
            subject = f"{subject} (tried: {_series(self.tried)})"
        if self.is_whole:
            return f"{subject}: the layers take all of it"
        first = min(self.reasons)
        alike = ", with all flexible axes of this range alike" if self.together else ""
        if self.listed:
            accepted = ", ".join(show(self.listed[i]) for i in self.accepted) or "none of it"
            refused = show(self.listed[first])
        else:
            accepted, refused = _series(self.accepted), str(first)
        why = f"{refused} is refused by {self.reasons[first]}"
        return f"{subject}: the layers take {accepted}{alike}; {why}"


def _series(values: Sequence[int]) -> str:
    """A sorted list of extents as text."""
    if not values:
        return "none of it"
    steps = {b - a for a, b in itertools.pairwise(values)}
    if len(values) > 2 and len(steps) == 1 and steps != {1}:
        (step,) = steps
        if values[0] % step == 0:
            return f"multiples of {step}, {values[0]} to {values[-1]}"
        return f"{values[0]}, {values[1]}, ... {values[-1]}, in steps of {step}"
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    shown = [f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs[:_LISTED]]
    return ", ".join([*shown, *(["..."] if len(runs) > _LISTED else [])])


@dataclass(frozen=True)
class Acceptance:
    """The sizes of flexible inputs that the layers accept; prints as text.

    Attributes:
        axes: every flexible extent.
        opaque: custom layers of unknown shapes; layers after them are not checked.
        varying: outputs that are described as fixed but vary with the inputs.
    """

    axes: list[Axis]
    opaque: list[str]
    varying: list[str]

    @property
    def is_whole(self) -> bool:
        """Whether all sizes are accepted."""
        return all(axis.is_whole for axis in self.axes)

    def __str__(self) -> str:
        lines = [str(axis) for axis in self.axes]
        if self.opaque:
            lines.append(f"not checked behind custom layers: {', '.join(self.opaque)}")
        if self.varying:
            lines.append(f"described as fixed, but varying: {', '.join(self.varying)}")
        return paragraph(lines) or "no input is flexible"


@dataclass(frozen=True)
class _Tried:
    """The result of trying sizes: the shapes of all blobs, and reasons for a rejection."""

    shapes: Known
    reasons: list[str]


class _FlexibleNetwork:
    """A network to try sizes on.

    Attributes:
        base: the described sizes, by input.
        plain: their result.
    """

    def __init__(
        self, spec: model_pb2.Model, custom: CustomShapes, new: Mapping[str, Collection[int]]
    ) -> None:
        blob_shapes(spec)  # raises if it is not a network
        network = networks.network_of(spec)
        assert network is not None
        self._spec, self._custom, self._new, self._network = spec, custom, new, network
        self._record = size_record.read(spec)
        defaults = {f.name: _default(f.type) for f in spec.description.input}
        self.base: Sizes = {name: shape for name, shape in defaults.items() if shape}
        self.layers = sum(1 for _ in networks.layers_of(network))
        self._steps = steps_of(network)
        self.plain = self._traced({})

    def _traced(self, changes: Sizes) -> ShapeTrace:
        inputs = blob_shapes(self._spec, self.base | changes)
        return trace(self._network, inputs, self._custom, self._steps)

    def run(self, changes: Sizes) -> _Tried:
        """Try some sizes, with the described ones for the others."""
        traced = self._traced(changes)
        reasons = list(map(str, traced.refusals))
        changed = [
            (name, axis - len(shape))
            for name, shape in changes.items()
            for axis, (extent, old) in enumerate(zip(shape, self.base.get(name, ()), strict=False))
            if extent != old
        ]
        record = self._record or {}
        reasons += [
            f"{source}, which was converted for the described size alone: convert with "
            "mlferry.RangeDim in the shape"
            for name, axis in changed
            for source in [record.get(name, {}).get(axis)]
            if source is not None
        ]
        if any(axis in self._new.get(name, ()) for name, axis in changed):
            reasons += map(
                str,
                bound_to_sizes(
                    self._network,
                    self.plain.shapes,
                    traced.shapes,
                    recorded=self._record is not None,
                ),
            )
        return _Tried(traced.shapes, reasons)


def acceptance(
    spec: model_pb2.Model,
    custom: CustomShapes = nothing_known,
    most: int = _MOST,
    new: Mapping[str, Collection[int]] | None = None,
) -> Acceptance:
    """Try the sizes of every flexible input of a network.

    Along a range, the first `most` sizes (fewer in networks of hundreds of layers) and the largest
    are tried; the other axes keep their default. A size that is rejected alone is tried again with
    the same extent on all flexible axes of this range.

    Args:
        custom: gives the shapes of custom layers.
        most: how many sizes of a range are tried.
        new: axes by input, counted from the end, that the model was not converted for: layers that
            hold for the described size only are rejected there.

    Raises:
        SpecError: the model is not a neural network.
    """
    tester = _FlexibleNetwork(spec, custom, new or {})
    base, run = tester.base, tester.run
    most = max(16, min(most, _WORK // max(1, tester.layers)))
    ranges = [
        result
        for f in spec.description.input
        for result in _ranges(f.name, f.type)
        if result.axis < len(base.get(f.name, ()))  # validate reports further ones
    ]
    axes = [_along(result, ranges, base, run, most) for result in ranges]
    axes += [_listed(f.name, f.type, run) for f in spec.description.input if _shapes(f.type)]
    plain = tester.plain
    seen = [(axis, value) for axis in axes for value in axis.accepted[-1:]]
    return Acceptance(axes, sorted(set(plain.opaque)), _varying(spec, plain, seen, base, run))


def reasons_against(
    spec: model_pb2.Model, changed: Sizes, custom: CustomShapes = nothing_known
) -> list[str]:
    """Why a network does not hold for other sizes than the described ones; [] if it does.

    Args:
        spec: the model, converted for the described sizes.
        changed: shapes of arrays, (height, width) of images, by input.
        custom: gives the shapes of custom layers.

    Raises:
        SpecError: the model is not a neural network.
    """
    axes = {name: range(-len(shape), 0) for name, shape in changed.items()}
    return _FlexibleNetwork(spec, custom, axes).run(changed).reasons


@dataclass(frozen=True)
class _Range:
    input: str
    axis: int
    lower: int
    upper: int  # -1: unbounded
    name: str

    @property
    def wanted(self) -> str:
        return f"{self.name} {self.lower}..{'' if self.upper < 0 else self.upper}"


def _default(feature: ft.FeatureType) -> tuple[int, ...]:
    """The described shape; if only its flexibility is described, the smallest one."""
    if feature.HasField("imageType"):
        return feature.imageType.height, feature.imageType.width
    array = feature.multiArrayType
    if not array.shape and array.WhichOneof("ShapeFlexibility") == "shapeRange":
        return tuple(max(1, size.lowerBound) for size in array.shapeRange.sizeRanges)
    return tuple(array.shape) or next(iter(_shapes(feature)), ())


def flexible_axes(feature: ft.FeatureType) -> set[int]:
    """The axes along which a feature has several extents, counted from the end."""
    ranges = {result.axis for result in _ranges("", feature)}
    listed = [shape for shape in (_default(feature), *_shapes(feature)) if shape]
    if feature.WhichOneof("Type") is None or len({len(shape) for shape in listed}) != 1:
        return set()
    rank = len(listed[0])
    if _shapes(feature):
        ranges |= {axis for axis in range(rank) if len({shape[axis] for shape in listed}) > 1}
    return {axis - rank for axis in ranges}


def varying_shape(feature: ft.FeatureType) -> tuple[int | None, ...]:
    """The described shape, [height, width] for an image, with None along axes that vary."""
    shape = _default(feature)
    varying = flexible_axes(feature)
    return tuple(None if i - len(shape) in varying else n for i, n in enumerate(shape))


def _ranges(name: str, feature: ft.FeatureType) -> Iterator[_Range]:
    image, array = feature.imageType, feature.multiArrayType
    sizes: Sequence[ft.SizeRange] = ()
    names: Sequence[str] = ("height", "width")
    if image.WhichOneof("SizeFlexibility") == "imageSizeRange":
        sizes = (image.imageSizeRange.heightRange, image.imageSizeRange.widthRange)
    elif array.WhichOneof("ShapeFlexibility") == "shapeRange":
        sizes = array.shapeRange.sizeRanges
        names = [f"axis {axis}" for axis in range(len(sizes))]
    for axis, size in enumerate(sizes):
        if size.upperBound < 0 or size.upperBound > size.lowerBound:
            yield _Range(name, axis, max(1, size.lowerBound), size.upperBound, names[axis])


def _shapes(feature: ft.FeatureType) -> list[tuple[int, ...]]:
    image, array = feature.imageType, feature.multiArrayType
    if image.WhichOneof("SizeFlexibility") == "enumeratedSizes":
        return [(size.height, size.width) for size in image.enumeratedSizes.sizes]
    if array.WhichOneof("ShapeFlexibility") == "enumeratedShapes":
        return [tuple(shape.shape) for shape in array.enumeratedShapes.shapes]
    return []


def _along(
    span: _Range, ranges: Sequence[_Range], base: Sizes, run: Callable[[Sizes], _Tried], most: int
) -> Axis:
    alike = [r for r in ranges if (r.lower, r.upper) == (span.lower, span.upper)]
    last = span.lower + most - 1
    axis = Axis(span.input, span.axis, span.wanted, complete=0 <= span.upper <= last + 1)
    extents = list(range(span.lower, (last if span.upper < 0 else min(last, span.upper)) + 1))
    if span.upper > extents[-1]:
        extents.append(span.upper)
    alone: list[int] = []
    for value in extents:
        reasons = run(_changed(base, [span], value)).reasons
        if not reasons:
            alone.append(value)
        else:
            axis.reasons[value] = reasons[0]
    axis.tried, axis.accepted = extents, alone
    if len(alone) < len(extents) and len(alike) > 1:
        joint = [v for v in extents if not run(_changed(base, alike, v)).reasons]
        if len(joint) > len(alone):
            axis.accepted, axis.together = joint, True
            axis.reasons = {v: why for v, why in axis.reasons.items() if v not in joint}
    return axis


def _changed(base: Sizes, ranges: Sequence[_Range], value: int) -> Sizes:
    results = dict(base)
    for each in ranges:
        shape = list(results[each.input])
        shape[each.axis] = value
        results[each.input] = tuple(shape)
    return results


def _listed(name: str, feature: ft.FeatureType, run: Callable[[Sizes], _Tried]) -> Axis:
    shapes = _shapes(feature)
    axis = Axis(name, -1, f"one of {', '.join(map(show, shapes))}", shapes)
    for index, shape in enumerate(shapes):
        reasons = run({name: shape}).reasons
        axis.tried.append(index)
        if reasons:
            axis.reasons[index] = reasons[0]
        else:
            axis.accepted.append(index)
    return axis


def _varying(
    spec: model_pb2.Model,
    plain: ShapeTrace,
    seen: Sequence[tuple[Axis, int]],
    base: Sizes,
    run: Callable[[Sizes], _Tried],
) -> list[str]:
    """Outputs that are described as fixed, but whose shape depends on the sizes."""
    fixed = [
        feature.name
        for feature in spec.description.output
        if _default(feature.type)
        and not _shapes(feature.type)
        and not list(_ranges(feature.name, feature.type))
    ]
    results: list[str] = []
    for axis, value in seen:
        if axis.axis < 0:
            feature = next(f for f in spec.description.input if f.name == axis.input)
            shapes = run({axis.input: _shapes(feature.type)[value]}).shapes
        else:
            shapes = run(_changed(base, [_Range(axis.input, axis.axis, 0, 0, "")], value)).shapes
        results += [n for n in fixed if n not in results and shapes.get(n) != plain.shapes.get(n)]
    return results
