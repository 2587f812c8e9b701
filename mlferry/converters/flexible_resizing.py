"""Resizing with an extent that varies or is computed: layers compute positions and weights.

Each axis is gathered at positions that are computed from its extents when the model runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import affine, vector
from mlferry.converters.resizing import Sampling, along as by_matrix
from mlferry.converters.sizes import use
from mlferry.converters.slices import sliced
from mlferry.converters.values import SOURCE, Blob, Constant
from mlferry.errors import ConversionError

_EPSILON = 1e-3
_SHIFTS = {"floor": 0.0, "ceil": 0.0, "round_prefer_floor": -0.5, "round_prefer_ceil": 0.5}


@dataclass(frozen=True)
class Number:
    """A number or vector that is known, or computed by layers.

    Attributes:
        context: the lowering.
        value: an array of at most one axis, or a blob of one.
    """

    context: Lowering
    value: Any

    @property
    def blob(self) -> Blob:
        """The values as a blob of one axis."""
        if isinstance(self.value, Blob):
            return vector(self.value)
        return self.context.stored(Constant("", np.atleast_1d(np.asarray(self.value, np.float32))))

    def _known(self, other: float | Number) -> bool:
        return not isinstance(self.value, Blob) and not isinstance(_value(other), Blob)

    def _computed(
        self,
        function: Callable[[Any, Any], Any],
        kind: str,
        other: float | Number,
        affinely: Callable[[float], tuple[float, float]] | None = None,
    ) -> Number:
        """By NumPy, or by a layer: with one number by its factor and its shift, if there are."""
        if self._known(other):
            return Number(self.context, np.float32(function(self.value, _value(other))))
        if affinely is not None and _is_one(other):
            factors = affinely(float(_value(other)))
            return Number(self.context, affine(self.context, self.blob, *factors))
        two = _number(self.context, other).blob
        return Number(self.context, self.context.emit(kind, self.blob, two))

    def __add__(self, other: float | Number) -> Number:
        if _is_one(other) and _value(other) == 0:
            return self
        return self._computed(np.add, "addBroadcastable", other, lambda n: (1.0, n))

    __radd__ = __add__

    def __sub__(self, other: float | Number) -> Number:
        return self._computed(np.subtract, "subtractBroadcastable", other, lambda n: (1.0, -n))

    def __rsub__(self, other: float | Number) -> Number:
        return _number(self.context, other) - self

    def __mul__(self, other: float | Number) -> Number:
        return self._computed(np.multiply, "multiplyBroadcastable", other, lambda n: (n, 0.0))

    __rmul__ = __mul__

    def __truediv__(self, other: float | Number) -> Number:
        return self._computed(np.divide, "divideBroadcastable", other)

    def __rtruediv__(self, other: float | Number) -> Number:
        return _number(self.context, other) / self

    def at_least(self, other: float | Number) -> Number:
        """The larger of two."""
        if not self._known(other) and _is_one(other) and _value(other) == 0:
            return Number(self.context, self.context.emit("activation", self.blob, ReLU={}))
        return self._computed(np.maximum, "maxBroadcastable", other)

    def at_most(self, other: float | Number) -> Number:
        """The smaller of two."""
        return self._computed(np.minimum, "minBroadcastable", other)

    def floor(self) -> Number:
        """Rounded down."""
        if not isinstance(self.value, Blob):
            return Number(self.context, np.floor(self.value))
        return Number(self.context, self.context.emit("floor", self.blob))

    def ceil(self) -> Number:
        """Rounded up."""
        return 0.0 - (0.0 - self).floor()

    def is_above(self, other: float) -> Number:
        """1 if it is above a number, else 0."""
        if not isinstance(self.value, Blob):
            return Number(self.context, np.float32(self.value > other))
        return Number(self.context, self.context.emit("greaterThan", self.blob, alpha=other))

    def inside(self, size: Number) -> Number:
        """1 if a place is inside an axis of that size, else 0."""
        return self.is_above(-0.5) * (size - self).is_above(0.5)


def _value(x: float | Number) -> Any:
    return x.value if isinstance(x, Number) else np.float32(x)


def _number(context: Lowering, x: float | Number) -> Number:
    return x if isinstance(x, Number) else Number(context, np.float32(x))


def _is_one(x: float | Number) -> bool:
    return not isinstance(_value(x), Blob) and np.ndim(_value(x)) == 0


@dataclass(frozen=True)
class ResizedAxis:
    """How one axis is resized.

    Attributes:
        size: the old extent.
        out: the new one.
        factor: the new one over the old one, as the source computes it.
        is_scaled: whether the source gives the factor, from which the new extent follows.
        like: zeros, as many as the new extent, if a blob has that extent; it gives the shape.
    """

    size: Number
    out: Number
    factor: Number
    is_scaled: bool
    like: Blob | None = None


def size_along(context: Lowering, x: Blob, axis: int) -> Number:
    """An extent of a blob."""
    known = x.known[axis]
    if known is not None:
        use(x, [axis])
        return Number(context, np.float32(known))
    shape = context.layer("getShape", x, layout=SOURCE)
    return Number(context, sliced(context, shape, [axis], [axis + 1], None, None))


def numbers(count: Number) -> Number:
    """0, 1, ..., one less than a number."""
    if isinstance(count.value, Blob):
        output = count.context.layer(
            "rangeDynamic", count.blob, layout=SOURCE, startValue=0.0, stepSizeValue=1.0
        )
        return Number(count.context, output)
    return Number(count.context, np.arange(int(count.value), dtype=np.float32))


def positions(axis: ResizedAxis, transform: str) -> Number:
    """The positions of the samples, in entries of the input.

    Raises:
        ConversionError: a transformation that is not computed at run time.
    """
    context, size, out, factor = axis.out.context, axis.size, axis.out, axis.factor
    i = numbers(out)
    if axis.like is not None:
        i = Number(context, context.add(i.blob, axis.like))
    if transform == "asymmetric":
        return i / factor
    middle: Number = (i + 0.5) / factor
    half = middle - 0.5
    if transform == "half_pixel":
        return half
    if transform == "pytorch_half_pixel":
        return half * out.is_above(1.5)
    if transform == "half_pixel_symmetric":
        return size * 0.5 * (1.0 - out / (factor * size)) + middle - 0.5
    if transform == "align_corners":
        last = _end(axis) - 1.0
        return i * (size - 1.0) / (last + (1.0 - _nonzero(last)))
    raise ConversionError(
        f"coordinate_transformation_mode={transform!r} of a flexible size: give fixed shapes with "
        "inputs=[mlferry.TensorType(name=..., shape=...)]"
    )


def _end(axis: ResizedAxis) -> Number:
    """The new extent before it is rounded down, corrected for what float32 loses."""
    if not axis.is_scaled:
        return axis.out
    whole = axis.size * axis.factor
    apart = (whole - axis.out).at_least(axis.out - whole).is_above(_EPSILON)
    return axis.out + apart * (whole - axis.out)


def _nonzero(x: Number) -> Number:
    return x.is_above(0.0) + (0.0 - x).is_above(0.0)


def resized(
    context: Lowering,
    x: Blob,
    along: int,
    axis: ResizedAxis,
    places: Number,
    sampling: Sampling,
    rounding: str,
) -> Blob:
    """One axis of a blob, at computed places.

    Args:
        places: the positions of the samples.
        sampling: a `Sampling`: its mode and its cubic kernel count.
        rounding: of places, for "nearest": "floor", "ceil", "round_prefer_floor" or
            "round_prefer_ceil".
    """
    last = axis.size - 1.0
    if sampling.mode == "nearest":
        moved = places + _SHIFTS[rounding]
        chosen = moved.floor() if rounding in ("floor", "round_prefer_ceil") else moved.ceil()
        return _entries(context, x, along, chosen.at_least(0.0).at_most(last))
    if sampling.antialias:
        return _antialiased(context, x, along, axis, places, sampling)
    first = places.floor()
    part = places - first
    if sampling.mode == "linear":
        taps = [(0.0, 1.0 - part), (1.0, part)]
    elif sampling.mode == "cubic":
        taps = [(float(k), _keys(part, k, sampling.cubic)) for k in (-1, 0, 1, 2)]
    else:
        raise ConversionError(f"mode={sampling.mode!r}")
    if sampling.exclude_outside:
        taps = [(k, w * (first + k).inside(axis.size)) for k, w in taps]
        total = taps[0][1]
        for _, weight in taps[1:]:
            total = total + weight
        taps = [(k, w / total) for k, w in taps]
    output: Blob | None = None
    for k, weight in taps:
        entries = _entries(context, x, along, (first + k).at_least(0.0).at_most(last))
        wide = weight.blob
        if along < x.rank - 1:
            wide = context.expand(wide, *range(1, x.rank - along))
        product = context.multiply(entries, wide)
        output = product if output is None else context.add(output, product)
    assert output is not None
    return output


def _antialiased(
    context: Lowering, x: Blob, along: int, axis: ResizedAxis, places: Number, sampling: Sampling
) -> Blob:
    """Resize by a computed matrix: its kernel is as wide as the entries that a new one covers.

    Entries beyond the axis are those of the edge, or none.
    """
    stretch = axis.factor.at_most(1.0)
    radius = 1.0 if sampling.mode == "linear" else 2.0
    beyond = Number(context, np.float32(0))
    if not sampling.exclude_outside:
        beyond = (radius / stretch).ceil()
    end = axis.size + beyond * 2.0
    entries = numbers(end) - beyond
    gap = context.subtract(context.expand(places.blob, 1), entries.blob)
    distance = context.emit("unary", gap, type="ABS")
    distance = context.multiply(distance, stretch.blob)
    weights = _kernel(context, distance, sampling)
    total = context.reduce("reduceSum", weights, (1,))
    matrix = context.divide(weights, total)
    wide = x
    if not sampling.exclude_outside:
        wide = _entries(context, x, along, entries.at_least(0.0).at_most(axis.size - 1.0))
    return by_matrix(context, wide, along, matrix)


def _kernel(context: Lowering, distance: Blob, sampling: Sampling) -> Blob:
    """Weights by distance: a hat, or Keys's cubic."""
    if sampling.mode == "linear":
        return context.emit("activation", affine(context, distance, -1.0, 1.0), ReLU={})
    if sampling.mode != "cubic":
        raise ConversionError(f"mode={sampling.mode!r}")
    a = sampling.cubic

    def polynomial(*coefficients: float) -> Blob:
        output = affine(context, distance, coefficients[0], coefficients[1])
        for coefficient in coefficients[2:]:
            product = context.multiply(output, distance)
            output = affine(context, product, 1.0, coefficient)
        return output

    near, far = polynomial(a + 2, -(a + 3), 0.0, 1.0), polynomial(a, -5 * a, 8 * a, -4 * a)
    outer = context.multiply(far, context.emit("lessThan", distance, alpha=2.0))
    return context.where(context.emit("lessThan", distance, alpha=1.0), near, outer)


def _entries(context: Lowering, x: Blob, along: int, places: Number) -> Blob:
    return context.layer("gather", x, places.blob, layout=x.layout, axis=along)


def _keys(part: Number, k: int, a: float) -> Number:
    """Keys's cubic kernel of the entry at `k` from the one before the place."""
    x = part + 1.0 if k == -1 else part if k == 0 else float(k) - part
    if k in (0, 1):
        return (x * (a + 2) - (a + 3)) * x * x + 1.0
    return ((x * a - 5 * a) * x + 8 * a) * x - 4 * a
