"""Operations that are one in a program: what follows a convolution, and patterns with an op of
their own.

Each function looks at one operation, and says whether it changed the program.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mlferry.programs.builder import covers
from mlferry.programs.graph import Array, Block, Operation, Value, constant, string, sweep
from mlferry.programs.passes.rewriting import (
    Rewriter,
    array_at,
    known_at,
    matches,
    other_operand,
    per_channel,
    value_at,
)

Fusion = Callable[[Rewriter, Operation], bool]


def fuse(block: Block, opset: int) -> None:
    """Fuse what can be, in place, until nothing changes any more."""
    while True:
        rewriter, changed = Rewriter(block, opset), False
        for operation in list(block.all_operations()):
            changed |= any(
                rewriter.is_there(operation) and fusion(rewriter, operation) for fusion in FUSIONS
            )
        sweep(block)
        if not changed:
            return


# ---- into the weights of what is before ----------------------------------------------------------

_CHANNELS = 1  # the axis that `batch_norm` normalizes
_OUTPUTS = {"conv": 0, "conv_transpose": 1, "linear": 0}  # the axis of outputs in their weights


def into_weights(rewriter: Rewriter, operation: Operation) -> bool:
    """A normalization, a factor or a shift for each channel behind a convolution or product."""
    if operation.op not in _OUTPUTS:
        return False
    weight, last = value_at(operation, "weight"), rewriter.only_reader(operation.outputs[0])
    if weight is None or not weight.is_constant or last is None or last.op not in _AFFINE:
        return False
    made = operation.outputs[0]
    axis = made.rank - 1 if operation.op == "linear" else 1
    channels = made.shape[axis]
    if channels is None:
        return False
    found = _AFFINE[last.op](last, made, channels, axis)
    if found is None:
        return False
    factor, shift = found
    bias = array_at(operation, "bias")
    if bias is None and value_at(operation, "bias") is not None:
        return False
    start = np.zeros(channels, np.float64) if bias is None else bias.astype(np.float64)
    moved = (start * factor + shift).astype(np.float32)
    if (factor != 1).any():
        scaled = _scaled(weight.constant, factor, operation)
        rewriter.put(operation, "weight", constant(scaled, "fp32", weight.name))
    if bias is not None or moved.any():
        rewriter.put(operation, "bias", constant(moved, "fp32"))
    rewriter.take_over(operation, last)
    return True


def _scaled(weight: Array, factor: Array, operation: Operation) -> Array:
    """Weights by a factor for each output."""
    groups = int(known_at(operation, "groups", 1))
    if operation.op != "conv_transpose" or groups == 1:
        shape = [1] * weight.ndim
        shape[_OUTPUTS[operation.op]] = -1
        return (weight * factor.reshape(shape)).astype(np.float32)
    apart = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    spread = factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    return (apart * spread).astype(np.float32).reshape(weight.shape)


Affine = tuple[Array, Array]


def _of_normalization(last: Operation, made: Value, channels: int, axis: int) -> Affine | None:
    if value_at(last, "x") is not made or axis != _CHANNELS:
        return None
    mean, variance = array_at(last, "mean"), array_at(last, "variance")
    gamma, beta = array_at(last, "gamma"), array_at(last, "beta")
    if mean is None or variance is None:
        return None
    epsilon = float(known_at(last, "epsilon", 1e-5))
    factor = 1 / np.sqrt(variance.astype(np.float64) + epsilon)
    if gamma is not None:
        factor = factor * gamma
    shift = -mean * factor
    return factor, shift if beta is None else shift + beta


def _of_product(last: Operation, made: Value, channels: int, axis: int) -> Affine | None:
    spread = _spread(last, made, channels, axis)
    return None if spread is None else (spread, np.zeros(channels))


def _of_sum(last: Operation, made: Value, channels: int, axis: int) -> Affine | None:
    spread = _spread(last, made, channels, axis)
    return None if spread is None else (np.ones(channels), spread)


def _spread(last: Operation, made: Value, channels: int, axis: int) -> Array | None:
    other = other_operand(last, made)
    if other is None or not other.is_constant or other.dtype != "fp32" or other.rank > made.rank:
        return None
    found = per_channel(other.constant, made.rank, channels, axis)
    return None if found is None else found.astype(np.float64)


_AFFINE: dict[str, Callable[[Operation, Value, int, int], Affine | None]] = {
    "batch_norm": _of_normalization,
    "mul": _of_product,
    "add": _of_sum,
}


def padding_into_window(rewriter: Rewriter, operation: Operation) -> bool:
    """Zeros around the input of a convolution are its own padding."""
    if operation.op != "pad" or known_at(operation, "mode", "constant") != "constant":
        return False
    last = rewriter.follows(operation, "conv")
    amounts, source = known_at(operation, "pad"), value_at(operation, "x")
    if last is None or amounts is None or source is None or known_at(operation, "constant_val", 0):
        return False
    axes = source.rank - 2
    kind = known_at(last, "pad_type", "valid")
    before = known_at(last, "pad", (0,) * 2 * axes) if kind == "custom" else (0,) * 2 * axes
    if kind not in ("valid", "custom") or value_at(last, "x") is not operation.outputs[0]:
        return False
    lead = len(amounts) - 2 * axes
    if lead > 0 and any(amounts[:lead]):
        return False
    inner = amounts[max(lead, 0) :]
    inner = (0,) * (2 * axes - len(inner)) + tuple(inner)
    pad = np.array([a + b for a, b in zip(before, inner, strict=True)], np.int32)
    changed = dict(last.arguments)
    changed["x"] = source
    changed["pad_type"] = string("custom")
    changed["pad"] = constant(pad, "int32")
    rewriter.set(last, "conv", **changed)
    return True


# ---- patterns with an op of their own ------------------------------------------------------------


def sigmoid_weighted(rewriter: Rewriter, operation: Operation) -> bool:
    """x sigmoid(x) is `silu`."""
    x = value_at(operation, "x")
    if operation.op != "sigmoid" or x is None:
        return False
    last = rewriter.follows(operation, "mul")
    if last is None or other_operand(last, operation.outputs[0]) is not x:
        return False
    rewriter.set(last, "silu", x=x)
    return True


def gaussian_weighted(rewriter: Rewriter, operation: Operation) -> bool:
    """0.5 x (1 + erf(x / sqrt(2))), its factors in any order, is `gelu`."""
    if operation.op != "erf":
        return False
    inner = value_at(operation, "x")
    x = None if inner is None else _divided_by_root(rewriter, inner)
    more = rewriter.follows(operation, "add")
    if x is None or more is None or not _is_number(more, operation.outputs[0], 1):
        return False
    last, value, halved = more, more.outputs[0], False
    weighted = False
    for _ in range(2):
        following = rewriter.follows(last, "mul")
        if following is None:
            return False
        other = other_operand(following, value)
        if other is x and not weighted:
            weighted = True
        elif other is not None and _is_half_of(other, x) and not weighted and not halved:
            weighted = halved = True
        elif _is_number(following, value, 0.5) and not halved:
            halved = True
        else:
            return False
        last, value = following, following.outputs[0]
        if weighted and halved:
            rewriter.set(last, "gelu", x=x, mode=string("EXACT"))
            return True
    return False


def _divided_by_root(rewriter: Rewriter, inner: Value) -> Value | None:
    """x of x / sqrt(2), or of x times its inverse."""
    maker = rewriter.made_by(inner, "real_div", "mul")
    if maker is None:
        return None
    wanted = math.sqrt(2) if maker.op == "real_div" else 1 / math.sqrt(2)
    by = known_at(maker, "y")
    if isinstance(by, float) and matches(by, wanted):
        return value_at(maker, "x")
    by = known_at(maker, "x")
    if maker.op == "mul" and isinstance(by, float) and matches(by, wanted):
        return value_at(maker, "y")
    return None


def _is_number(operation: Operation, value: Value, number: float) -> bool:
    other = other_operand(operation, value)
    return (
        other is not None
        and other.is_constant
        and other.constant.size == 1
        and matches(float(other.constant.reshape(-1)[0]), number)
        and other.rank <= value.rank
    )


def _is_half_of(value: Value, x: Value) -> bool:
    maker = value.maker
    return maker is not None and maker.op == "mul" and _is_number(maker, x, 0.5)


_MAPS = 4  # the rank of maps [N, C, H, W]


def normalized_over_axes(rewriter: Rewriter, operation: Operation) -> bool:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta.

    Over the last axes, or the channels of maps, it is `layer_norm`; over height and width with a
    factor for each channel `instance_norm`.
    """
    x, axes = value_at(operation, "x"), known_at(operation, "axes")
    if operation.op != "reduce_mean" or x is None or axes is None or x.tensor.shape is None:
        return False
    if not known_at(operation, "keep_dims", False):
        return False
    places = sorted(int(axis) % x.rank for axis in np.ravel(axes))
    trailing = places == list(range(x.rank - len(places), x.rank))
    channels = x.rank == _MAPS and places == [1]
    if not (trailing or channels):
        return False
    centered = _reader(rewriter, operation.outputs[0], "sub", x)
    if centered is None:
        return False
    difference = centered.outputs[0]
    found = _divided_by_deviation(rewriter, difference, axes)
    if found is None:
        return False
    last, epsilon = found
    small = constant(np.float32(epsilon), "fp32")
    if x.rank == _MAPS and places == [2, 3]:
        gamma, end = _stored_behind(rewriter, last, "mul", x, [1])
        beta, end = _stored_behind(rewriter, end, "add", x, [1])
        if gamma is not None or beta is not None:
            rewriter.set(end, "instance_norm", x=x, gamma=gamma, beta=beta, epsilon=small)
            return True
    gamma, last = _stored_behind(rewriter, last, "mul", x, places)
    beta, last = _stored_behind(rewriter, last, "add", x, places)
    rewriter.set(
        last,
        "layer_norm",
        x=x,
        axes=constant(np.array(places, np.int32) - x.rank, "int32"),
        gamma=gamma,
        beta=beta,
        epsilon=small,
    )
    return True


def _reader(rewriter: Rewriter, value: Value, op: str, x: Value) -> Operation | None:
    """The operation that alone reads a value, as what is taken from x."""
    reader = rewriter.only_reader(value)
    fits = reader is not None and reader.op == op and value_at(reader, "y") is value
    return reader if fits and reader is not None and value_at(reader, "x") is x else None


def _divided_by_deviation(
    rewriter: Rewriter, difference: Value, axes: object
) -> tuple[Operation, float] | None:
    """What divides a difference by the root of the mean of its squares, and the epsilon."""
    users = rewriter.readers_of(difference)
    squares = [u for u in users if u.op in ("mul", "square", "pow") and _is_square(u, difference)]
    if len(squares) != 1:
        return None
    mean = rewriter.follows(squares[0], "reduce_mean")
    if mean is None or not np.array_equal(known_at(mean, "axes"), axes):  # type: ignore[arg-type]
        return None
    epsilon, root = 0.0, rewriter.only_reader(mean.outputs[0])
    if root is not None and root.op == "add":
        other = other_operand(root, mean.outputs[0])
        if other is None or not other.is_constant or other.constant.size != 1:
            return None
        epsilon, root = float(other.constant.reshape(-1)[0]), rewriter.only_reader(root.outputs[0])
    if root is None or root.op not in ("sqrt", "rsqrt"):
        return None
    if root.op == "rsqrt":
        epsilon += float(known_at(root, "epsilon", 1e-12))
    last = rewriter.follows(root, "real_div" if root.op == "sqrt" else "mul")
    if last is None or other_operand(last, root.outputs[0]) is not difference:
        return None
    if last.op == "real_div" and value_at(last, "x") is not difference:
        return None
    rest = [user for user in users if user not in (squares[0], last)]
    return None if rest else (last, epsilon)


def _is_square(operation: Operation, value: Value) -> bool:
    if operation.op == "pow":
        return value_at(operation, "x") is value and known_at(operation, "y") == 2
    if operation.op == "square":
        return value_at(operation, "x") is value
    return value_at(operation, "x") is value and value_at(operation, "y") is value


def _stored_behind(
    rewriter: Rewriter, last: Operation, op: str, x: Value, axes: list[int]
) -> tuple[Value | None, Operation]:
    """A constant that the next operation multiplies by, or adds, in the shape of some axes of x."""
    following = rewriter.follows(last, op)
    if following is None:
        return None, last
    other = other_operand(following, last.outputs[0])
    shape = tuple(x.shape[axis] for axis in axes)
    if other is None or not other.is_constant or other.rank > x.rank or None in shape:
        return None, last
    spread = (1,) * (x.rank - other.rank) + other.constant.shape
    if spread != tuple(x.shape[axis] if axis in axes else 1 for axis in range(x.rank)):
        return None, last
    return constant(other.constant.reshape([n or 0 for n in shape]), "fp32", other.name), following


def bounded_below_and_above(rewriter: Rewriter, operation: Operation) -> bool:
    """The lesser of `relu` and a number is `clip`, and `relu6` where the number is 6."""
    last = rewriter.follows(operation, "minimum", "clip") if operation.op == "relu" else None
    x = value_at(operation, "x")
    if last is None or x is None:
        return False
    least, most = 0.0, None
    if last.op == "clip":
        least, most = max(0.0, known_at(last, "alpha")), known_at(last, "beta")
    else:
        other = other_operand(last, operation.outputs[0])
        if other is not None and other.is_constant and other.constant.size == 1:
            most = float(other.constant.reshape(-1)[0])
    if most is None or most <= least or (last.op != "clip" and last.outputs[0].rank != x.rank):
        return False
    if (least, most) == (0, 6):
        rewriter.set(last, "relu6", x=x)
        return True
    bounds = {
        name: constant(np.float32(n), "fp32") for name, n in (("alpha", least), ("beta", most))
    }
    rewriter.set(last, "clip", x=x, **bounds)
    return True


def parts_put_together(rewriter: Rewriter, operation: Operation) -> bool:
    """Parts of a value, joined as they were, are the value."""
    if operation.op != "concat" or known_at(operation, "interleave", False):
        return False
    parts = operation.arguments["values"]
    made = operation.outputs[0]
    if not isinstance(parts, tuple) or len(parts) < 2 or not made.is_fixed:
        return False
    axis, position, source = known_at(operation, "axis") % made.rank, 0, None
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
    if source is None or source.shape != made.shape or rewriter.is_given(made):
        return False
    rewriter.replace(made, source)
    return True


def joined_at_once(rewriter: Rewriter, operation: Operation) -> bool:
    """Values that are joined to be joined again along the same axis are joined once."""
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
    """What a slice takes of one axis, where it takes all of the others in their order."""
    begin, end = known_at(operation, "begin"), known_at(operation, "end")
    none = (False,) * x.rank
    masks = [known_at(operation, name, none) for name in ("begin_mask", "end_mask")]
    if begin is None or end is None or any(known_at(operation, "squeeze_mask", none)):
        return None
    found = (0, 0)
    for place, extent in enumerate(x.shape):
        step = known_at(operation, "stride", (1,) * x.rank)[place]
        first = None if masks[0][place] else begin[place]
        last = None if masks[1][place] else end[place]
        start, stop, step = slice(first, last, step).indices(extent or 0)
        if step != 1 or (place != axis and (start, stop) != (0, extent)):
            return None
        found = (start, stop) if place == axis else found
    return found


def squeezed_reduction(rewriter: Rewriter, operation: Operation) -> bool:
    """A reduction that keeps its axes, which are dropped behind it, does not keep them."""
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


def attention(rewriter: Rewriter, operation: Operation) -> bool:
    """softmax(q k^T scale + mask) v is `scaled_dot_product_attention`, from CoreML8 on."""
    if operation.op != "softmax" or rewriter.opset < ATTENTION:
        return False
    scores, chances = value_at(operation, "x"), operation.outputs[0]
    last = rewriter.follows(operation, "matmul")
    if scores is None or last is None or value_at(last, "x") is not chances:
        return False
    if known_at(operation, "axis", -1) % scores.rank != scores.rank - 1:
        return False
    if known_at(last, "transpose_x", False) or known_at(last, "transpose_y", False):
        return False
    found = _scaled_product(scores)
    value = value_at(last, "y")
    if found is None or value is None or value.rank != found.query.rank:
        return False
    query, key, mask = found.query, found.key, found.mask
    width = query.shape[-1]
    leads = {each.shape[:-2] for each in (query, key, value)}
    if width is None or len(leads) != 1 or None in query.shape[:-2]:
        return False
    rest = found.factor * math.sqrt(width)
    if not matches(rest, 1):
        query = rewriter.before(last, "mul", x=query, y=constant(np.float32(rest), "fp32"))
    rewriter.set(
        last,
        "scaled_dot_product_attention",
        query=query,
        key=key,
        value=value,
        attn_mask=mask,
    )
    return True


ATTENTION = 8  # the opset that brought the op


class _Scores(NamedTuple):
    """query key^T factor + mask."""

    query: Value
    key: Value
    factor: float
    mask: Value | None


def _scaled_product(scores: Value) -> _Scores | None:
    mask, factor, product = None, 1.0, scores.maker
    if product is not None and product.op == "select":
        mask, inner = _where_seen(product)
        if inner is None or not _is_scores(inner):
            return None
        product = inner.maker
    elif product is not None and product.op == "add":
        one, two = value_at(product, "x"), value_at(product, "y")
        inner, mask = (one, two) if _is_scores(one) else (two, one)
        product = None if inner is None else inner.maker
    if product is not None and product.op in ("mul", "real_div"):
        by, inner = known_at(product, "y"), value_at(product, "x")
        if not isinstance(by, float) or inner is None:
            return None
        if by == 0:
            return None
        factor, product = (by if product.op == "mul" else 1 / by), inner.maker
    if product is None or product.op != "matmul" or known_at(product, "transpose_x", False):
        return None
    query, key = value_at(product, "x"), value_at(product, "y")
    if query is None or key is None or not 3 <= query.rank == key.rank:
        return None
    if not known_at(product, "transpose_y", False):
        return None
    shape = (*query.shape[:-1], key.shape[-2])
    if mask is not None and (mask.dtype not in ("fp32", "bool") or not covers(shape, mask.shape)):
        return None
    return _Scores(query, key, factor, mask)


_UNSEEN = -1e4  # a score at most so high takes no part


def _where_seen(operation: Operation) -> tuple[Value | None, Value | None]:
    """A constant mask of what is seen, and the scores; every row sees something."""
    seen, scores = value_at(operation, "cond"), value_at(operation, "a")
    hidden = array_at(operation, "b")
    if seen is None or not seen.is_constant or seen.rank < 2 or hidden is None:
        return None, None
    if hidden.size != 1 or hidden.max() > _UNSEEN or not seen.constant.any(axis=-1).all():
        return None, None
    return seen, scores


def _is_scores(value: Value | None) -> bool:
    """Whether a value is a product of matrices, scaled or not."""
    if value is None or value.maker is None:
        return False
    maker = value.maker
    if maker.op in ("mul", "real_div"):
        inner = value_at(maker, "x")
        maker = inner.maker if inner is not None and inner.maker is not None else maker
    return maker.op == "matmul"


def same_again(rewriter: Rewriter, operation: Operation) -> bool:
    """Of two operations that compute the same, one is enough."""
    return rewriter.is_repeated(operation)


FUSIONS: tuple[Fusion, ...] = (
    same_again,
    into_weights,
    padding_into_window,
    sigmoid_weighted,
    gaussian_weighted,
    bounded_below_and_above,
    parts_put_together,
    joined_at_once,
    normalized_over_axes,
    squeezed_reduction,
    turned_factor,
    attention,
)
