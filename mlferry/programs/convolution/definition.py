"""Convolution, transposed convolution and pooling: [N, C, *spatial], of one to three axes."""

from __future__ import annotations

from typing import NamedTuple

from mlferry.errors import SpecError
from mlferry.numerics import windows
from mlferry.numerics.shapes import Extent, Shape
from mlferry.programs.definitions import (
    BOOL,
    FLOATS,
    INT32,
    STRING,
    Operands,
    const,
    maybe,
    need,
    newer,
    op_kind,
    option,
)
from mlferry.programs.reshaping.definition import vector
from mlferry.programs.types import Entries, TensorType, compatible

_MIXED = {"U": FLOATS}
_WINDOW = {
    "strides": option(INT32),
    "pad_type": option(STRING, "valid"),
    "pad": option(INT32),
    "dilations": option(INT32),
    "groups": option(INT32, 1),
}
PADDINGS = ("valid", "same", "same_lower", "custom")
_FIRST_PADDINGS = ("valid", "same", "custom")  # those of CoreML5
Ints = tuple[int, ...]


class Sliding(NamedTuple):
    """How a window moves over the spatial axes.

    Attributes:
        kernel: its size.
        strides: its steps.
        dilations: the distances between its entries.
        pad_type: one of `PADDINGS`.
        pads: for "custom", two amounts for each axis.
    """

    kernel: tuple[Extent, ...]
    strides: Ints
    dilations: Ints
    pad_type: str
    pads: Ints

    def edges(self, size: Shape) -> list[windows.Edges]:
        """The padding of each axis of an input.

        Raises:
            SpecError: "same" for an extent that varies.
        """
        count = len(self.kernel)
        if self.pad_type == "valid":
            return [(0, 0)] * count
        if self.pad_type == "custom":
            return [(self.pads[2 * i], self.pads[2 * i + 1]) for i in range(count)]
        heavy = "TOP_LEFT_HEAVY" if self.pad_type == "same_lower" else "BOTTOM_RIGHT_HEAVY"
        return [
            windows.same_edges(extent, span, stride, heavy)
            for extent, span, stride in zip(size, self.spans, self.strides, strict=True)
        ]

    @property
    def spans(self) -> list[int]:
        """The extent of the dilated window."""
        pairs = zip(self.kernel, self.dilations, strict=True)
        return [((k or 1) - 1) * d + 1 for k, d in pairs]


def sliding(
    kernel: tuple[Extent, ...],
    strides: Entries | None,
    dilations: Entries | None,
    pad_type: str,
    pads: Entries | None,
) -> Sliding:
    """The window that the parameters of an op describe.

    Raises:
        SpecError: a list does not have an entry for each spatial axis, or a number is too small.
    """
    count = len(kernel)
    if pad_type not in PADDINGS:
        raise SpecError(f"pad_type is {pad_type!r}; possible are {', '.join(PADDINGS)}")
    steps = (1,) * count if strides is None else vector(strides)
    apart = (1,) * count if dilations is None else vector(dilations)
    amounts = (0,) * (2 * count) if pads is None or pad_type != "custom" else vector(pads)
    if len(steps) != count or len(apart) != count or len(amounts) != 2 * count:
        raise SpecError(
            f"a window of {count} axes has {len(steps)} strides, {len(apart)} dilations and "
            f"{len(amounts)} amounts of padding"
        )
    if min((*steps, *apart, *(k if k is not None else 1 for k in kernel)), default=1) < 1:
        raise SpecError("sizes, strides and dilations of a window are at least 1")
    return Sliding(kernel, steps, apart, pad_type, amounts)


def _window(operands: Operands, kernel: tuple[Extent, ...]) -> Sliding:
    known = {
        name: None if operand is None else operand.known
        for name, operand in (
            ("strides", operands.strides),
            ("dilations", getattr(operands, "dilations", None)),
            ("pad", operands.pad),
        )
    }
    return sliding(
        kernel, known["strides"], known["dilations"], operands.pad_type.known, known["pad"]
    )


@op_kind("conv", x=need("T"), weight=need("T"), bias=option("T"), shared=_WINDOW)
def first_conv(operands: Operands) -> TensorType:
    _first_padding(operands)
    return conv(operands)


def _first_padding(operands: Operands) -> None:
    if operands.pad_type.known == "same_lower":
        raise SpecError(
            f"pad_type is 'same_lower', which came with CoreML6; possible are "
            f"{', '.join(_FIRST_PADDINGS)}"
        )


@newer(7, "conv", variables=_MIXED, weight=need("U"), bias=maybe("U"))
@newer(6, "conv")
def conv(operands: Operands) -> TensorType:
    """weight is [outputs, C / groups, *kernel]."""
    x, weight, groups = operands.x, operands.weight, operands.groups.known
    if not 3 <= x.rank <= 5 or weight.rank != x.rank:
        raise SpecError(f"x is {x.type} and weight {weight.type}; both need the same 3 to 5 axes")
    channels, outputs = x.shape[1], weight.shape[0]
    if groups < 1 or (outputs is not None and outputs % groups):
        raise SpecError(f"groups is {groups}; weight is {weight.type}")
    if None not in (channels, weight.shape[1]) and channels != weight.shape[1] * groups:
        raise SpecError(f"weight is {weight.type}; {x.type} has {channels} channels")
    _bias_fits(operands, outputs)
    window = _window(operands, weight.shape[2:])
    return TensorType(x.dtype, (x.shape[0], outputs, *slid(window, x.shape[2:])))


def _bias_fits(operands: Operands, outputs: Extent) -> None:
    bias = operands.bias
    if bias is not None and not compatible(bias.shape, (outputs,)):
        raise SpecError(f"bias is {bias.type}; it needs {outputs} values")


def slid(window: Sliding, size: Shape, *, ceil: bool = False) -> tuple[Extent, ...]:
    """The number of windows along each axis."""
    if window.pad_type.startswith("same"):
        pairs = zip(size, window.strides, strict=True)
        return tuple(windows.slide_same(extent, stride) for extent, stride in pairs)
    axes = zip(size, window.spans, window.strides, window.edges(size), strict=True)
    count = windows.slide_complete if ceil else windows.slide
    return tuple(count(*axis) for axis in axes)


@newer(7, "conv_transpose", variables=_MIXED, weight=need("U"), bias=maybe("U"))
@op_kind(
    "conv_transpose",
    x=need("T"),
    weight=const("T"),
    bias=option("T"),
    output_shape=option(INT32),
    shared=_WINDOW,
)
def conv_transpose(operands: Operands) -> TensorType:
    """weight is [C, outputs / groups, *kernel]."""
    x, weight, groups = operands.x, operands.weight, operands.groups.known
    if not 3 <= x.rank <= 5 or weight.rank != x.rank or groups < 1:
        raise SpecError(f"x is {x.type} and weight {weight.type}; both need the same 3 to 5 axes")
    if None not in (x.shape[1], weight.shape[0]) and x.shape[1] != weight.shape[0]:
        raise SpecError(f"weight is {weight.type}; {x.type} has {x.shape[1]} channels")
    per_group = weight.shape[1]
    outputs = None if per_group is None else per_group * groups
    _bias_fits(operands, outputs)
    if operands.output_shape is not None:
        return TensorType(x.dtype, vector(operands.output_shape.known))
    window = _window(operands, weight.shape[2:])
    size = tuple(
        None if extent is None else wide
        for extent, wide in zip(x.shape[2:], widened(window, x.shape[2:]), strict=True)
    )
    return TensorType(x.dtype, (x.shape[0], outputs, *size))


def widened(window: Sliding, size: Shape) -> tuple[Extent, ...]:
    """The extents of a transposed convolution."""
    extents: list[Extent] = []
    for place, (extent, span, stride) in enumerate(
        zip(size, window.spans, window.strides, strict=True)
    ):
        if extent is None:
            extents.append(None)
        elif window.pad_type.startswith("same"):
            extents.append(extent * stride)
        else:
            padding = sum(window.pads[2 * place : 2 * place + 2])
            extents.append((extent - 1) * stride + span - padding)
    return tuple(extents)


_POOL = {
    "x": need("T"),
    "kernel_sizes": const(INT32),
    "strides": option(INT32),
    "pad_type": const(STRING),
    "pad": option(INT32),
    "ceil_mode": option(BOOL, default=False),
}
_AVERAGE = {**_POOL, "exclude_padding_from_average": option(BOOL, default=False)}


@op_kind("max_pool", "l2_pool", shared=_POOL)
@op_kind("avg_pool", shared=_AVERAGE)
def first_pool(operands: Operands) -> TensorType:
    _first_padding(operands)
    return pool(operands)


@newer(6, "max_pool", "l2_pool", "avg_pool")
def pool(operands: Operands) -> TensorType:
    x, kernel = operands.x, vector(operands.kernel_sizes.known)
    if not 3 <= x.rank <= 5 or len(kernel) != x.rank - 2:
        raise SpecError(f"x is {x.type} and kernel_sizes {list(kernel)}")
    window = _window(operands, kernel)
    ends = zip(window.pads[::2], window.pads[1::2], strict=True)
    if operands.ceil_mode.known and any(begin != end for begin, end in ends):
        raise SpecError(f"with ceil_mode both ends are padded alike, not {list(window.pads)}")
    size = slid(window, x.shape[2:], ceil=operands.ceil_mode.known)
    return TensorType(x.dtype, (*x.shape[:2], *size))
