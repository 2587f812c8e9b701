"""Joining, splitting, repeating and filling arrays."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.numerics.shapes import Extent, axis_of, replaced, total
from mlferry.programs.definitions import (
    ANY,
    BOOL,
    INT32,
    NUMBERS,
    STRING,
    Operand,
    Operands,
    const,
    need,
    one_of,
    op_kind,
    option,
    several,
)
from mlferry.programs.reshaping.definition import vector
from mlferry.programs.types import TensorType, compatible

_ELEMENTS = {"T": NUMBERS | BOOL}


@op_kind("concat", values=several(ANY), axis=const(INT32), interleave=option(BOOL, default=False))
def concat(operands: Operands) -> TensorType:
    """Scalars count as vectors of one element."""
    values = [
        value if value.shape else Operand(TensorType(value.dtype, (1,)))
        for value in operands.values
    ]
    first = values[0]
    axis = axis_of(operands.axis.known, first.rank)
    for value in values[1:]:
        fits = value.rank == first.rank and all(
            i == axis or a == b or None in (a, b)
            for i, (a, b) in enumerate(zip(value.shape, first.shape, strict=True))
        )
        if operands.interleave.known:
            fits = compatible(value.shape, first.shape)
        if not fits or value.dtype != first.dtype:
            raise SpecError(f"{first.type} and {value.type} cannot be joined along axis {axis}")
    shape = tuple(
        next((v.shape[i] for v in values if v.shape[i] is not None), None)
        for i in range(first.rank)
    )
    return TensorType(
        first.dtype, replaced(shape, axis, total(value.shape[axis] for value in values))
    )


@op_kind("stack", values=several(ANY), axis=const(INT32))
def stack(operands: Operands) -> TensorType:
    first = operands.values[0]
    axis = axis_of(operands.axis.known, first.rank + 1)
    shape = [
        next((v.shape[i] for v in operands.values if v.shape[i] is not None), None)
        for i in range(first.rank)
    ]
    shape.insert(axis, len(operands.values))
    return TensorType(first.dtype, tuple(shape))


@op_kind(
    "split",
    variables=_ELEMENTS,
    x=need("T"),
    num_splits=option(INT32),
    split_sizes=option(INT32),
    axis=const(INT32),
)
def split(operands: Operands) -> tuple[TensorType, ...]:
    """Parts of one size, or of the sizes given."""
    x = operands.x
    axis = axis_of(operands.axis.known, x.rank)
    sizes: list[Extent]
    if operands.split_sizes is not None:
        sizes = list(vector(operands.split_sizes.known))
        if x.shape[axis] is not None and sum(size or 0 for size in sizes) != x.shape[axis]:
            raise SpecError(f"parts of {sizes} do not make axis {axis} of {x.type}")
    elif operands.num_splits is not None:
        count, extent = operands.num_splits.known, x.shape[axis]
        if count < 1 or (extent is not None and extent % count):
            raise SpecError(f"axis {axis} of {x.type} does not fall into {count} equal parts")
        sizes = [None if extent is None else extent // count] * count
    else:
        raise SpecError("num_splits or split_sizes is needed")
    return tuple(TensorType(x.dtype, replaced(x.shape, axis, size)) for size in sizes)


@op_kind("tile", variables=_ELEMENTS, x=need("T"), reps=need(INT32))
def tile(operands: Operands) -> TensorType:
    x, reps = operands.x, operands.reps
    if reps.value is None:
        return TensorType(x.dtype, (None,) * x.rank)
    counts = vector(reps.known)
    if len(counts) != x.rank or min(counts, default=1) < 1:
        raise SpecError(f"reps is {list(counts)}; {x.type} needs a positive one for each axis")
    extents = zip(x.shape, counts, strict=True)
    return TensorType(x.dtype, tuple(None if n is None else n * r for n, r in extents))


@op_kind(
    "pad",
    x=need("T"),
    pad=need(INT32),
    mode=option(STRING, "constant"),
    constant_val=option("T", 0.0),
)
def pad(operands: Operands) -> TensorType:
    """Two amounts of padding for each of the last axes."""
    x, mode = operands.x, operands.mode.known
    one_of(operands, "mode", ("constant", "reflect", "replicate"))
    if operands.pad.value is None:
        return TensorType(x.dtype, (None,) * x.rank)
    amounts = vector(operands.pad.known)
    if len(amounts) % 2 or len(amounts) > 2 * x.rank or min(amounts, default=0) < 0:
        raise SpecError(f"pad is {list(amounts)}; {x.type} takes two amounts for each last axis")
    shape = list(x.shape)
    for place in range(len(amounts) // 2):
        axis = x.rank - len(amounts) // 2 + place
        extent = shape[axis]
        edges = amounts[2 * place : 2 * place + 2]
        if mode == "reflect" and extent is not None and max(edges) >= extent:
            raise SpecError(f"a reflection of {list(edges)} is not inside axis {axis} of {x.type}")
        shape[axis] = None if extent is None else extent + sum(edges)
    return TensorType(x.dtype, tuple(shape))


@op_kind("fill", variables=_ELEMENTS, shape=need(INT32), value=option("T", 0.0))
def fill(operands: Operands) -> TensorType:
    dtype = operands.value.dtype
    if operands.shape.value is None:
        rank = operands.shape.shape[0]
        return TensorType(dtype, None if rank is None else (None,) * rank)
    return TensorType(dtype, sizes("shape", operands.shape))


def sizes(name: str, operand: Operand) -> tuple[int, ...]:
    """The extents that a constant gives.

    Raises:
        SpecError: one is negative.
    """
    extents = vector(operand.known)
    if min(extents, default=0) < 0:
        raise SpecError(f"{name} is {list(extents)}; no extent is negative")
    return extents


@op_kind(
    "fill_like",
    since=6,
    variables={"T": NUMBERS | BOOL, "U": NUMBERS | BOOL},
    ref_tensor=need("T"),
    value=option("U", 0.0),
)
def fill_like(operands: Operands) -> TensorType:
    return TensorType(operands.value.dtype, operands.ref_tensor.shape)


@op_kind("range_1d", variables={"T": NUMBERS}, end=need("T"), start=need("T"), step=need("T"))
def range_1d(operands: Operands) -> TensorType:
    ends = (operands.start, operands.end, operands.step)
    if operands.step.value is not None and not operands.step.known:
        raise SpecError("step is 0")
    if any(end.value is None for end in ends):
        return TensorType(operands.start.dtype, (None,))
    start, end, step = (end.known for end in ends)
    return TensorType(operands.start.dtype, (max(0, -int(-(end - start) // step)),))


@op_kind(
    "band_part", variables=_ELEMENTS, x=need("T"), lower=option(INT32, -1), upper=option(INT32, -1)
)
def band_part(operands: Operands) -> TensorType:
    if operands.x.rank < 2:
        raise SpecError(f"x is {operands.x.type}; it needs at least 2 axes")
    return operands.x.tensor
