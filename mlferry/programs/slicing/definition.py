"""Parts of arrays."""

from __future__ import annotations

from collections.abc import Sequence

from mlferry.errors import SpecError
from mlferry.numerics.shapes import Extent, axis_of, show
from mlferry.programs.definitions import (
    ANY,
    BOOL,
    INT32,
    NUMBERS,
    SIGNED,
    Operand,
    Operands,
    const,
    need,
    newer,
    op_kind,
    option,
)
from mlferry.programs.reshaping.definition import vector
from mlferry.programs.types import Entries, TensorType, compatible

OLD = {"T": NUMBERS | BOOL}
NEW = {"T": ANY, "U": SIGNED}


def masked(mask: Entries | None, rank: int) -> tuple[bool, ...]:
    """A mask for each axis; if it is omitted, none is set."""
    if mask is None:
        return (False,) * rank
    return tuple(bool(flag) for flag in vector(mask))


@newer(7, "slice_by_index", variables=NEW, begin=need("U"), end=need("U"), stride=option("U"))
@op_kind(
    "slice_by_index",
    variables=OLD,
    x=need("T"),
    begin=need(INT32),
    end=need(INT32),
    stride=option(INT32),
    begin_mask=option(BOOL),
    end_mask=option(BOOL),
    squeeze_mask=option(BOOL),
)
def slice_by_index(operands: Operands) -> TensorType:
    """From begin to end by stride; masks say where one of them is ignored."""
    return TensorType(operands.x.dtype, _sliced(operands, drop=True))


def _sliced(operands: Operands, *, drop: bool) -> tuple[Extent, ...]:
    x = operands.x
    steps = (1,) * x.rank if operands.stride is None else vector(operands.stride.known)
    masks = [
        masked(None if mask is None else mask.known, x.rank)
        for mask in (operands.begin_mask, operands.end_mask, operands.squeeze_mask)
    ]
    begins, ends = (_known(operand, x.rank) for operand in (operands.begin, operands.end))
    lengths = {len(steps), len(begins), len(ends), *map(len, masks)}
    if lengths != {x.rank} or 0 in steps:
        raise SpecError(f"begin, end, stride and masks need an entry for each axis of {x.type}")
    shape: list[Extent] = []
    for axis in range(x.rank):
        if masks[2][axis]:
            if not drop:
                shape.append(1)
            continue
        open_begin, open_end = masks[0][axis], masks[1][axis]
        begin = None if open_begin else begins[axis]
        end = None if open_end else ends[axis]
        unknown = (not open_begin and begin is None) or (not open_end and end is None)
        extent = x.shape[axis]
        if extent is None or unknown:
            shape.append(None)
        else:
            shape.append(len(range(*slice(begin, end, steps[axis]).indices(extent))))
    return tuple(shape)


def _known(operand: Operand, rank: int) -> Sequence[int | None]:
    return (None,) * rank if operand.value is None else vector(operand.known)


@op_kind(
    "slice_update",
    since=8,
    variables=NEW,
    x=need("T"),
    update=need("T"),
    begin=need("U"),
    end=need("U"),
    stride=option("U"),
    begin_mask=option(BOOL),
    end_mask=option(BOOL),
    squeeze_mask=option(BOOL),
)
def slice_update(operands: Operands) -> TensorType:
    shape = _sliced(operands, drop=True)
    if not compatible(operands.update.shape, shape):
        raise SpecError(f"update is {operands.update.type}; the shape {show(shape)} is needed")
    return operands.x.tensor


@newer(7, "slice_by_size", variables=NEW, begin=need("U"), size=need("U"))
@op_kind("slice_by_size", variables=OLD, x=need("T"), begin=need(INT32), size=need(INT32))
def slice_by_size(operands: Operands) -> TensorType:
    """-1 means the rest."""
    x = operands.x
    begins, sizes = (_known(operand, x.rank) for operand in (operands.begin, operands.size))
    if len(begins) != x.rank or len(sizes) != x.rank:
        raise SpecError(f"begin and size need an entry for each axis of {x.type}")
    shape: list[Extent] = []
    for extent, begin, size in zip(x.shape, begins, sizes, strict=True):
        if size != -1:
            shape.append(size)
        else:
            shape.append(None if extent is None or begin is None else extent - begin % extent)
    return TensorType(x.dtype, tuple(shape))


@newer(7, "sliding_windows", variables=NEW)
@op_kind(
    "sliding_windows",
    variables={"T": NUMBERS},
    x=need("T"),
    axis=const(INT32),
    size=const(INT32),
    stride=option(INT32, 1),
)
def sliding_windows(operands: Operands) -> TensorType:
    x, size, stride = operands.x, operands.size.known, operands.stride.known
    axis = axis_of(operands.axis.known, x.rank)
    extent = x.shape[axis]
    if size < 1 or stride < 1 or (extent is not None and extent < size):
        raise SpecError(f"windows of {size} by {stride} along axis {axis} of {x.type}")
    count = None if extent is None else (extent - size) // stride + 1
    return TensorType(x.dtype, (*x.shape[:axis], count, size, *x.shape[axis + 1 :]))
