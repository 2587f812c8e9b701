"""A function in a newer opset: what means something else there is written so that it does not."""

from __future__ import annotations

import numpy as np

from mlferry.errors import SpecError
from mlferry.programs.builder import inferred
from mlferry.programs.definitions import definition_of
from mlferry.programs.graph import Block, Operation, Value, constant
from mlferry.programs.passes.rewriting import Rewriter, known_at, value_at
from mlferry.spec.releases import release

_FROM_THE_END = 7  # the opset from which negative indices do not count from the end any more
_INDEXED = {
    "gather": "x",
    "gather_along_axis": "x",
    "scatter": "data",
    "scatter_along_axis": "data",
}
_POINTS = ("gather_nd", "scatter_nd")
_CHANGED = {  # with other parameters from CoreML7 on
    "non_maximum_suppression": "boxes are columns there, and nothing tells how many stay",
    "crop_resize": "boxes come apart from the indices of images there",
}
_POSITIVE = {"reduce_argmax", "reduce_argmin", "argsort", "topk", "shape", "non_zero"}


def raise_opset(block: Block, old: int, new: int) -> None:
    """Let a function mean in a newer opset what it means in an older one, in place.

    Raises:
        SpecError: an operation cannot be said in the newer one; all are named.
    """
    if old >= new:
        return
    problems = []
    rewriter = Rewriter(block, new)
    for operation in list(block.all_operations()):
        reason = _reason_against(operation) if old < _FROM_THE_END <= new else ""
        if reason:
            problems.append(f"{operation.op} {_name(operation)!r}: {reason}")
            continue
        try:
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
            + f"\nconvert the source again with minimum_deployment_target='{_system(new)}'"
        )


def _system(opset: int) -> str:
    return f"iOS{release(opset + 1).ios}"


def _name(operation: Operation) -> str:
    return operation.outputs[0].name if operation.outputs else operation.source


def _reason_against(operation: Operation) -> str:
    if operation.op == "reshape":
        x, target = value_at(operation, "x"), known_at(operation, "shape")
        zeros = isinstance(target, tuple) and 0 in target
        if zeros and x is not None and (x.tensor.shape is None or len(target) != x.rank):
            return "a 0 in its shape stands for another extent there"
    return _CHANGED.get(operation.op, "")


def _count_from_the_start(rewriter: Rewriter, operation: Operation) -> None:
    """Let an operation get no negative indices."""
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
    """The extent of the axis that indices go along, or of each axis that points name.

    Raises:
        SpecError: one varies.
    """
    data = value_at(operation, _INDEXED.get(operation.op, ""))
    if data is None:
        data = value_at(operation, "x") or value_at(operation, "data")
    assert data is not None
    if operation.op in _POINTS:
        found = data.shape[: indices.shape[-1] or 0]
    else:
        found = (data.shape[int(known_at(operation, "axis", 0)) % data.rank],)
    if None in found:
        raise SpecError(
            f"{operation.op} {_name(operation)!r}: its indices may be negative, and the extent "
            "from whose end they count varies"
        )
    extents = np.array(found, np.int32)
    return extents if operation.op in _POINTS else extents.reshape(())
