"""Removes joining, slicing, axes of 1 and transpositions that have no effect."""

from __future__ import annotations

import numpy as np

from mlferry.programs.graph import Argument, Operation, Value, constant
from mlferry.programs.passes.rewriting import Rewriter, known_at, value_at


def parts_put_together(rewriter: Rewriter, operation: Operation) -> bool:
    """Parts of a value, joined again in order, are the value."""
    if operation.op != "concat" or known_at(operation, "interleave", False):
        return False
    parts = operation.arguments["values"]
    output = operation.outputs[0]
    if not isinstance(parts, tuple) or len(parts) < 2 or not output.is_fixed:
        return False
    axis, position, source = known_at(operation, "axis") % output.rank, 0, None
    for part in parts:
        maker = rewriter.made_by(part, "slice_by_index")
        whole = None if maker is None else value_at(maker, "x")
        if maker is None or whole is None or source not in (None, whole):
            return False
        source = whole
        end = position + (part.shape[axis] or 0) if part.is_fixed else -1
        if not whole.is_fixed or _interval(maker, whole, axis) != (position, end):
            return False
        position = end
    if source is None or source.shape != output.shape or rewriter.is_given(output):
        return False
    rewriter.replace(output, source)
    return True


def joined_at_once(rewriter: Rewriter, operation: Operation) -> bool:
    """Values joined twice along the same axis are joined once."""
    last = rewriter.follows(operation, "concat") if operation.op == "concat" else None
    if last is None or known_at(last, "axis") != known_at(operation, "axis"):
        return False
    if known_at(last, "interleave", False) or known_at(operation, "interleave", False):
        return False
    inner, outer = operation.arguments["values"], last.arguments["values"]
    if not isinstance(inner, tuple) or not isinstance(outer, tuple):
        return False
    values: list[Value] = []
    for value in outer:
        values += inner if value is operation.outputs[0] else [value]
    rewriter.set(last, "concat", **{**last.arguments, "values": tuple(values)})
    return True


def _interval(operation: Operation, x: Value, axis: int) -> tuple[int, int] | None:
    """The part of one axis that a slice takes, if it takes all of the others in order."""
    begin, end = known_at(operation, "begin"), known_at(operation, "end")
    none = (False,) * x.rank
    masks = [known_at(operation, name, none) for name in ("begin_mask", "end_mask")]
    if begin is None or end is None or any(known_at(operation, "squeeze_mask", none)):
        return None
    interval = (0, 0)
    for place, extent in enumerate(x.shape):
        step = known_at(operation, "stride", (1,) * x.rank)[place]
        first = None if masks[0][place] else begin[place]
        last = None if masks[1][place] else end[place]
        start, stop, step = slice(first, last, step).indices(extent or 0)
        if step != 1 or (place != axis and (start, stop) != (0, extent)):
            return None
        interval = (start, stop) if place == axis else interval
    return interval


def squeezed_reduction(rewriter: Rewriter, operation: Operation) -> bool:
    """A reduction keeps no axes if they are dropped after it."""
    if not operation.op.startswith("reduce_") or operation.op in ("reduce_argmax", "reduce_argmin"):
        return False
    last, x = rewriter.follows(operation, "squeeze"), value_at(operation, "x")
    axes = known_at(operation, "axes")
    if last is None or x is None or axes is None or not known_at(operation, "keep_dims", False):
        return False
    dropped = known_at(last, "axes")
    if dropped is None or {int(n) % x.rank for n in np.ravel(axes)} != {
        int(n) % x.rank for n in np.ravel(dropped)
    }:
        return False
    operation.arguments["keep_dims"] = constant(np.bool_(False), "bool")
    rewriter.take_over(operation, last)
    return True


def turned_factor(rewriter: Rewriter, operation: Operation) -> bool:
    """A product of a transposed matrix transposes it itself."""
    if operation.op != "matmul":
        return False
    changed = False
    for side in ("x", "y"):
        value = value_at(operation, side)
        maker = None if value is None else rewriter.made_by(value, "transpose")
        if value is None or maker is None or not rewriter.is_read_once(value):
            continue
        order = [int(n) % value.rank for n in known_at(maker, "perm")]
        *lead, last_but_one, last = range(value.rank)
        source = value_at(maker, "x")
        if order != [*lead, last, last_but_one] or source is None:
            continue
        flag = not known_at(operation, f"transpose_{side}", False)
        arguments = dict(operation.arguments)
        arguments[side] = source
        arguments[f"transpose_{side}"] = constant(np.bool_(flag), "bool")
        rewriter.set(operation, "matmul", **arguments)
        changed = True
    return changed


def transposed_reduction(rewriter: Rewriter, operation: Operation) -> bool:
    """A reduction of a transposed value reduces the value itself, if the order stays the same."""
    if not operation.op.startswith("reduce_") or operation.op in ("reduce_argmax", "reduce_argmin"):
        return False
    x, axes = value_at(operation, "x"), known_at(operation, "axes")
    maker = None if x is None else rewriter.made_by(x, "transpose")
    if x is None or maker is None or axes is None or not rewriter.is_read_once(x):
        return False
    source, order = value_at(maker, "x"), [int(n) % x.rank for n in known_at(maker, "perm")]
    reduced = {int(axis) % x.rank for axis in np.ravel(axes)}
    left = {place: axis for place, axis in enumerate(order) if place not in reduced}
    if known_at(operation, "keep_dims", False):
        stays = all(place == axis for place, axis in left.items())
    else:
        stays = list(left.values()) == sorted(left.values())
    if source is None or not stays:
        return False
    places = np.array(sorted(order[place] for place in reduced), np.int32)
    arguments = {**operation.arguments, "x": source, "axes": constant(places, "int32")}
    rewriter.set(operation, operation.op, **arguments)
    return True


def between_axes_of_one(rewriter: Rewriter, operation: Operation) -> bool:
    """Drop an axis of 1 added before convolutions, poolings and activations and removed after."""
    axis, x = _only_axis(operation), value_at(operation, "x")
    if operation.op != "squeeze" or axis is None or x is None:
        return False
    chain: list[Operation] = []
    while x is not None and x.maker is not None and x.maker.op != "expand_dims":
        maker = x.maker
        if not rewriter.is_read_once(x) or not _goes_without(maker, axis):
            return False
        chain.append(maker)
        x = value_at(maker, "x")
    if x is None or x.maker is None or _only_axis(x.maker) != axis:
        return False
    value = value_at(x.maker, "x")
    if value is None or (not chain and rewriter.is_given(operation.outputs[0])):
        return False
    for each in reversed(chain):
        rewriter.set(each, each.op, **{**_without(each, axis), "x": value})
        value = each.outputs[0]
    if chain:
        rewriter.take_over(chain[0], operation)
    else:
        rewriter.replace(operation.outputs[0], value)
    return True


def _only_axis(operation: Operation) -> int | None:
    """The only axis, counted from the first, that `expand_dims` adds or `squeeze` drops."""
    axes, x = known_at(operation, "axes"), value_at(operation, "x")
    if axes is None or x is None or np.size(axes) != 1:
        return None
    rank = x.rank + (operation.op == "expand_dims")
    return int(np.ravel(axes)[0]) % rank


_ONE_BY_ONE = {
    *("relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh"),
    *("softplus", "softsign", "clip", "cast", "abs", "exp", "square", "sqrt"),
}
_WINDOWS = {"conv": "weight", "max_pool": "kernel_sizes", "avg_pool": "kernel_sizes"}
_IMAGES = 4  # the rank of an input whose windows have two axes


def _goes_without(operation: Operation, axis: int) -> bool:
    """Whether an operation computes the same without an axis of 1."""
    x = value_at(operation, "x")
    if x is None:
        return False
    if operation.op not in _WINDOWS:
        by_channel = operation.op == "batch_norm" and axis >= 2 and x.rank >= _IMAGES
        return operation.op in _ONE_BY_ONE or by_channel
    window, place = value_at(operation, _WINDOWS[operation.op]), axis - 2
    if x.rank != _IMAGES or place < 0 or window is None or not window.is_constant:
        return False
    size = window.shape[2:] if operation.op == "conv" else known_at(operation, "kernel_sizes")
    if size[place] != 1:
        return False
    pads = known_at(operation, "pad", (0, 0, 0, 0))
    padded = known_at(operation, "pad_type", "valid") == "custom" and any(pads[2 * place :][:2])
    return known_at(operation, "strides", (1, 1))[place] == 1 and not padded


def _without(operation: Operation, axis: int) -> dict[str, Argument]:
    """The arguments of an operation without an axis."""
    arguments, place = dict(operation.arguments), axis - 2
    if operation.op not in _WINDOWS:
        return arguments
    for name in ("strides", "dilations", "kernel_sizes"):
        value = known_at(operation, name)
        if value is not None:
            arguments[name] = constant(np.array(value[1 - place :][:1], np.int32), "int32")
    pads = known_at(operation, "pad")
    if pads is not None:
        arguments["pad"] = constant(np.array(pads[2 * (1 - place) :][:2], np.int32), "int32")
    if operation.op == "conv":
        weight = value_at(operation, "weight")
        assert weight is not None  # _goes_without has checked it
        arguments["weight"] = constant(weight.constant.squeeze(axis), weight.dtype, weight.name)
    return arguments
