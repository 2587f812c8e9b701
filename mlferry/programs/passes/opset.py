"""A function in a newer opset; operations that mean something else there are rewritten."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mlferry.errors import SpecError, context
from mlferry.numerics.bits import unpacked
from mlferry.numerics.shapes import show
from mlferry.programs.builder import evaluated, inferred
from mlferry.programs.compressed import BLOCKS, Compressed, looked_up, scaled, sparse
from mlferry.programs.definitions import definition_of
from mlferry.programs.graph import Block, Operation, Value, constant
from mlferry.programs.indexing.suppression import suppression_by_columns
from mlferry.programs.passes.rewriting import Rewriter, known_at, value_at

_FROM_THE_END = 7  # the opset from which negative indices no longer count from the end
_INDEXED = {
    "gather": "x",
    "gather_along_axis": "x",
    "scatter": "data",
    "scatter_along_axis": "data",
}
_POINTS = ("gather_nd", "scatter_nd")
_PADDED = 6  # the opset from which crops have a number of their own beyond the image
_BOXES_APART = 7  # the opset from which boxes of crops come apart from the indices of images
_COLUMNS = 7  # the opset from which boxes to suppress are columns
_POSITIVE = {"reduce_argmax", "reduce_argmin", "argsort", "topk", "shape", "non_zero"}


def raise_opset(block: Block, old: int, new: int) -> None:
    """Change a function, in place, so that it means the same in a newer opset.

    Raises:
        SpecError: the newer opset cannot express an operation; all are named.
    """
    if old >= new:
        return
    problems = []
    if old < BLOCKS <= new:
        for operation in block.all_operations():
            renewal = renewed(operation, old)
            operation.op, operation.arguments = renewal.op, dict(renewal.arguments)
    rewriter = Rewriter(block, new)
    for operation in list(block.all_operations()):
        reason = _reason_against(operation, old, new)
        if reason:
            problems.append(f"{operation.op} {_name(operation)!r}: {reason}")
            continue
        try:
            if operation.op == "non_maximum_suppression" and old < _COLUMNS <= new:
                _suppress_columns(rewriter, operation)
                continue
            if old < _FROM_THE_END <= new:
                _count_from_the_start(rewriter, operation)
            inferred(
                operation.op,
                definition_of(operation.op, new),
                operation.arguments,
                operation.blocks,
            )
        except SpecError as error:
            problems.append(f"{operation.op} {_name(operation)!r}: {error}")
    if problems:
        raise SpecError(
            f"the program cannot go from CoreML{old} to CoreML{new}:\n  - "
            + "\n  - ".join(problems)
        )


def renewed(operation: Operation, old: int) -> Compressed:
    """A compressed constant in the form of CoreML8: indices, codes and bits in its own shape.

    Raises:
        SpecError: its parts do not fit, such as a mask and the values for it.
    """
    renew = _RENEWED.get(operation.op)
    if renew is None or old >= BLOCKS:
        return Compressed(operation.op, dict(operation.arguments))
    with context(f"reading {operation.op} {_name(operation)!r}"):
        kind, definition = operation.outputs[0].tensor, definition_of(operation.op, old)
        (array,) = evaluated(operation.op, old, definition, operation.arguments, [kind])
        if array.shape != kind.shape:
            raise SpecError(f"it makes {show(array.shape)}, and is {kind}")
    return renew(operation, operation.outputs[0], BLOCKS)


def _table(operation: Operation, value: Value, opset: int) -> Compressed:
    shape, table = [n or 0 for n in value.shape], _array(operation, "lut")
    bits = (table.size - 1).bit_length() or 1
    codes = _array(operation, "indices")
    if bits < 8:
        codes = unpacked(codes, bits, math.prod(shape))
    return looked_up(opset, codes.reshape(shape), table, bits, value.dtype)


def _codes(operation: Operation, value: Value, opset: int) -> Compressed:
    codes, rank = _array(operation, "quantized_data"), value.rank
    spread = [1] * rank
    spread[int(known_at(operation, "axis", 0)) % rank if rank else 0] = -1
    scale = _array(operation, "scale").astype(np.float32)
    zero_point = _array(operation, "zero_point")
    if scale.size == zero_point.size == 1:
        spread = [1] * rank
    count = max(scale.size, zero_point.size)
    wide = [np.resize(each, count).reshape(spread) for each in (scale, zero_point)]
    return scaled(opset, codes, wide[0], wide[1].astype(codes.dtype), 8, value.dtype)


def _sparse(operation: Operation, value: Value, opset: int) -> Compressed:
    shape = [n or 0 for n in value.shape]
    mask = unpacked(_array(operation, "mask"), 1, math.prod(shape)).reshape(shape)
    values = np.zeros(shape, np.float32)
    values[mask != 0] = _array(operation, "nonzero_data")
    compressed = sparse(opset, values, value.dtype)
    compressed.arguments["nonzero_data"] = operation.arguments["nonzero_data"]  # with stored zeros
    compressed.arguments["mask"] = constant(mask, "uint1")
    return compressed


_RENEWED: dict[str, Callable[[Operation, Value, int], Compressed]] = {
    "constexpr_lut_to_dense": _table,
    "constexpr_affine_dequantize": _codes,
    "constexpr_sparse_to_dense": _sparse,
}


def _array(operation: Operation, name: str) -> Any:
    value = value_at(operation, name)
    assert value is not None
    return value.constant


def _name(operation: Operation) -> str:
    return operation.outputs[0].name if operation.outputs else operation.source


def _reason_against(operation: Operation, old: int, new: int) -> str:
    if operation.op == "crop_resize" and old < _BOXES_APART <= new:
        return "boxes come apart from the indices of images there"
    if operation.op == "crop_resize" and old < _PADDED <= new:
        return "beyond the image it has a number there, and the pixels of its edge here"
    if operation.op == "reshape" and old < _FROM_THE_END <= new:
        x, target = value_at(operation, "x"), known_at(operation, "shape")
        zeros = isinstance(target, tuple) and 0 in target
        if zeros and x is not None and (x.tensor.shape is None or len(target) != x.rank):
            return "a 0 in its shape stands for another extent there"
    return ""


def _suppress_columns(rewriter: Rewriter, operation: Operation) -> None:
    def emit(op: str, /, **arguments: Value) -> tuple[Value, ...]:
        return rewriter.all_before(operation, op, **arguments)

    boxes, scores = value_at(operation, "boxes"), value_at(operation, "scores")
    assert boxes is not None
    assert scores is not None
    outputs = suppression_by_columns(
        emit,
        boxes,
        scores,
        iou_threshold=float(known_at(operation, "iou_threshold", 0.0)),
        score_threshold=float(known_at(operation, "score_threshold", 0.0)),
        max_boxes=int(known_at(operation, "max_boxes", 0)),
        per_class_suppression=bool(known_at(operation, "per_class_suppression", False)),
    )
    rewriter.remake(operation, outputs)


def _count_from_the_start(rewriter: Rewriter, operation: Operation) -> None:
    """Replace negative indices of an operation."""
    indices = value_at(operation, "indices")
    if indices is None or operation.op not in {*_INDEXED, *_POINTS}:
        return
    if indices.maker is not None and indices.maker.op in _POSITIVE:
        return
    if indices.is_constant and bool((indices.constant >= 0).all()):
        return
    extents = _extents(operation, indices)
    if indices.is_constant:
        array = indices.constant
        operation.arguments["indices"] = constant(
            np.where(array < 0, array + extents, array).astype(array.dtype), indices.dtype
        )
        return
    more = constant(np.asarray(extents, np.int32), "int32")
    negative = rewriter.before(operation, "less", x=indices, y=constant(np.int32(0), "int32"))
    from_end = rewriter.before(operation, "add", x=indices, y=more)
    operation.arguments["indices"] = rewriter.before(
        operation, "select", cond=negative, a=from_end, b=indices
    )


def _extents(
    operation: Operation, indices: Value
) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    """The extent of the axis of the indices, or of each axis that points name."""
    data = value_at(operation, _INDEXED.get(operation.op, ""))
    if data is None:
        data = value_at(operation, "x") or value_at(operation, "data")
    assert data is not None
    if operation.op in _POINTS:
        shape = data.shape[: indices.shape[-1] or 0]
    else:
        shape = (data.shape[int(known_at(operation, "axis", 0)) % data.rank],)
    if None in shape:
        raise SpecError(
            f"{operation.op} {_name(operation)!r}: its indices may be negative, and the extent "
            "from whose end they count varies"
        )
    extents = np.array(shape, np.int32)
    return extents if operation.op in _POINTS else extents.reshape(())
