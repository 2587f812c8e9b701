"""The operands and results of converters: blobs, constants, and the layouts of blobs.

Core ML computes channels-first, and most sources channels-last: a `Layout` says how the order of a
blob's axes differs from that of the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array, Shape, axis_of


@dataclass(frozen=True)
class Layout:
    """An order of axes: one of this module's constants, or `flattened`.

    Attributes:
        kind: "source", "channels first", or "flat": values of [N, H, W, C] in the order of [N, C,
            H, W], already flattened to two axes.
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
        shape: in the blob's own order; None if a custom layer hides it.
        layout: how it lies.
        hidden_by: the layer from which on the shape is unknown.
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

    codes: Array
    bits: int
    scale: Array
    zero: Array
    axis: int


@dataclass(frozen=True)
class Constant:
    """A value known while converting, in the source's own type.

    Attributes:
        name: of the value.
        array: what it is.
        quantized: for a weight that the source keeps quantized: its integers, with scale, zero
            point and their axis.
        origins: of one that is made of the extents of blobs, a code an element; see `sizes`.
    """

    name: str
    array: Array
    quantized: Quantized | None = None
    origins: NDArray[np.int64] | None = None

    @property
    def floats(self) -> NDArray[np.float32]:
        """The value in float32, which cannot be written: it may be the array itself."""
        view: NDArray[np.float32] = self.array.astype(np.float32, copy=False).view()
        view.flags.writeable = False
        return view


class Opaque:
    """An operand that only a frontend's own converters understand, such as a list of tensors.

    Attributes:
        what: it is, for messages.
    """

    what = "a list of tensors"
    source_shape: Shape | None = None


# What a converter reads: a blob, or a value that is known while converting.
Operand = Blob | Constant

# What the table of values holds for a name; None stands for an operand that is left out.
AnyOperand = Operand | Opaque | None

# What a converter returns: one value, or one for each output of its node.
Result = Operand | Opaque | Array | np.generic | None
Results = Result | Sequence[Result]


def blob_of(result: Results) -> Blob:
    """The blob that a converter of one output returns.

    Raises:
        ConversionError: it returns something else.
    """
    if not isinstance(result, Blob):
        raise ConversionError(f"a blob is needed, not {type(result).__name__}")
    return result


# What a function of the source is called with: a tensor, or numbers as the source has them.
Argument = Blob | Array | float | Sequence[float]
