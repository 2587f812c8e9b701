"""Where the axes of a blob lie, against the order of axes of the source.

Core ML computes channels-first. A converter says which layouts of its inputs it can handle;
the walker asks for one of them, and a transpose is made only where the order really changes.
Arranged copies are kept, so that no blob is transposed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Shape, axis_of, product

if TYPE_CHECKING:
    from mlferry.converters.lower import Lowering


@dataclass(frozen=True)
class Layout:
    """An order of axes: one of this module's constants, or `flattened`.

    Attributes:
        kind: "source", "channels first", or "flat": values of [N, H, W, C] lie in the order
            of [N, C, H, W], already flattened to two axes.
        inner: for "flat", the source's shape without the batch: channels last, and known.
    """

    kind: str
    inner: Shape = ()

    def axis(self, axis: int, rank: int) -> int:
        """The axis of the blob for an axis of the source."""
        axis = axis_of(axis, rank)
        if self != CHANNELS_FIRST or rank < 3 or axis == 0:
            return axis
        return 1 if axis == rank - 1 else axis + 1

    def shape(self, shape: Shape) -> Shape:
        """The source's order of a blob's shape."""
        if self == CHANNELS_FIRST and len(shape) >= 3:
            return (shape[0], *shape[2:], shape[1])
        return () if self.kind == "scalar" else shape

    def to_blob(self, shape: Shape) -> Shape:
        """The blob's order of a source shape."""
        if self == CHANNELS_FIRST and len(shape) >= 3:
            return (shape[0], shape[-1], *shape[1:-1])
        return shape


SOURCE = Layout("source")
CHANNELS_FIRST = Layout("channels first")
FLAT = Layout("flat")
SCALAR = Layout("scalar")  # Core ML has no blobs without axes: they are kept as shape (1,)

Accepted = Sequence[Layout]
ANY: Accepted = (SOURCE, CHANNELS_FIRST, FLAT)
UNFLATTENED: Accepted = (SOURCE, CHANNELS_FIRST)


@dataclass(frozen=True)
class Blob:
    """A blob of the network that is being built.

    Attributes:
        name: of the blob.
        shape: as the blob lies; None where a custom layer hides it.
        layout: how it lies.
        hidden_by: the layer after which the shape is unknown.
    """

    name: str
    shape: Shape | None
    layout: Layout = SOURCE
    hidden_by: str = ""

    @property
    def known(self) -> Shape:
        """The shape.

        Raises:
            ConversionError: it is unknown; the error names the custom layer that hides it.
        """
        if self.shape is None:
            raise ConversionError(
                f"the shape of {self.name!r} is unknown after custom layer {self.hidden_by!r}: "
                "return CustomLayerParams(..., output_shapes=[(1, 30, 30, 1)]) from its "
                "conversion function (output_shapes=lambda shapes: shapes where it keeps its "
                "shape), or register its CustomLayer class with output_shapes before converting"
            )
        return self.shape

    @property
    def rank(self) -> int:
        """The number of axes; the shape must be known."""
        return len(self.known)

    @property
    def source_shape(self) -> Shape | None:
        """The shape in the source's order of axes."""
        return None if self.shape is None else self.layout.shape(self.shape)

    @property
    def is_scalar(self) -> bool:
        """Whether the source's value has no axes."""
        return self.layout.kind == "scalar"

    def axis(self, axis: int) -> int:
        """The axis of the blob for an axis of the source."""
        return self.layout.axis(axis, self.rank)


@dataclass(frozen=True)
class Quantized:
    """Integers of `bits` bits that stand for ``(codes - zero) * scale``, along `axis`."""

    codes: NDArray[Any]
    bits: int
    scale: NDArray[Any]
    zero: NDArray[Any]
    axis: int


@dataclass(frozen=True)
class Constant:
    """A value that is known while converting, in the source's own type.

    Attributes:
        name: of the value.
        array: what it is.
        quantized: for a weight that the source keeps quantized, its integers with their scale
            and zero point, and the axis of these.
        origins: of one that is made of the extents of blobs, a code an element; see `sizes`.
    """

    name: str
    array: NDArray[Any]
    quantized: Quantized | None = None
    origins: NDArray[np.int64] | None = None


class Opaque:
    """An operand that only a frontend's own converters understand: a list of tensors, say."""

    source_shape: Shape | None = None


Operand = Blob | Constant | Opaque | None


def spread(kernel: NDArray[Any], dilations: Sequence[int]) -> NDArray[Any]:
    """A kernel with zeros between its entries: what a dilation of 1 then computes.

    For transposed convolutions: the format's comments say that devices ignore their dilation.

    Args:
        kernel: [a, b, *spatial].
        dilations: one an axis of `spatial`.
    """
    if all(d == 1 for d in dilations):
        return kernel
    spatial = [(n - 1) * d + 1 for n, d in zip(kernel.shape[2:], dilations, strict=True)]
    wide = np.zeros((*kernel.shape[:2], *spatial), kernel.dtype)
    place = (slice(None), slice(None), *(slice(None, None, d) for d in dilations))
    wide[place] = kernel
    return wide


def arrange(low: Lowering, x: Blob, layout: Layout) -> Blob:
    """The blob in another layout; blobs of one or two axes have only one, unless flat."""
    if x.layout.kind == layout.kind or (x.is_scalar and layout == SOURCE):
        return x
    if x.layout.kind == "flat":
        return _kept(low, x, SOURCE, _unflatten)
    if x.rank < 3:
        return replace(x, layout=layout if layout.kind != "flat" else SOURCE)
    if layout.kind == "flat":
        return arrange(low, x, SOURCE)
    return _kept(low, x, layout, _transpose)


def _kept(
    low: Lowering, x: Blob, layout: Layout, make: Callable[[Lowering, Blob, Layout], Blob]
) -> Blob:
    key = (x.name, layout.kind)
    if key not in low.arranged:
        made = make(low, x, layout)
        low.arranged[key] = made
        low.arranged[(made.name, x.layout.kind)] = x
    return low.arranged[key]


def _transpose(low: Lowering, x: Blob, layout: Layout) -> Blob:
    rank = x.rank
    first = (0, rank - 1, *range(1, rank - 1))
    last = (0, *range(2, rank), 1)
    name = f"{x.name}/{layout.kind.replace(' ', '_')}"
    axes = first if layout == CHANNELS_FIRST else last
    return low.layer("transpose", x, name=name, layout=layout, axes=axes)


def _unflatten(low: Lowering, x: Blob, layout: Layout) -> Blob:
    if None in x.layout.inner:
        raise ConversionError(
            f"the order of the flattened values {x.name!r} depends on a shape that a custom layer "
            "hides: return CustomLayerParams(..., output_shapes=...) from its conversion function"
        )
    *spatial, channels = x.layout.inner
    batch = -1 if x.known[0] is None else x.known[0]
    shape = (batch, channels, *spatial)
    name = f"{x.name}/source"
    maps = low.layer("reshapeStatic", x, name=f"{name}_maps", layout=SOURCE, targetShape=shape)
    axes = (0, *range(2, len(shape)), 1)
    turned = low.layer("transpose", maps, name=f"{name}_turned", layout=SOURCE, axes=axes)
    size = product(x.layout.inner)
    return low.layer("reshapeStatic", turned, name=name, layout=SOURCE, targetShape=(batch, size))


def choose(inputs: Sequence[Blob], accepted: Accepted) -> Layout:
    """The layout in which a converter gets its inputs: their own where all agree and it may."""
    kinds = {layout.kind for layout in accepted}
    layouts = {x.layout for x in inputs if x.layout.kind == "flat" or x.shape is None}
    layouts |= {x.layout for x in inputs if x.shape is not None and len(x.shape) >= 3}
    layouts = layouts or {SOURCE}
    if len(layouts) == 1:
        only = layouts.pop()
        if only.kind in kinds and (only == SOURCE or _same_rank(inputs) or len(inputs) == 1):
            return only
    elif CHANNELS_FIRST in layouts and CHANNELS_FIRST.kind in kinds and _same_rank(inputs):
        return CHANNELS_FIRST
    return accepted[0]


def _same_rank(inputs: Sequence[Blob]) -> bool:
    return len({None if x.shape is None else len(x.shape) for x in inputs}) == 1
