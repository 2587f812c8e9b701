"""The ops of ML Programs that a plan on arrays takes, and the part that each of them becomes.

This holds for float32, and for float16 whose results are rounded one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlferry.compiled import PACKED_MOST
from mlferry.compiled.products import PackedProduct
from mlferry.numerics import half
from mlferry.programs.linear.kernel import packed_product
from mlferry.programs.recurrent import kernel as recurrent
from mlferry.programs.reshaping.definition import vector
from mlferry.programs.types import FLOATS, TensorType
from mlferry.registry import Registry
from mlferry.runtime.planned.arrays import parts
from mlferry.runtime.planned.arrays.plan import ArrayPart, Kernel
from mlferry.runtime.planned.maps import Array
from mlferry.runtime.planned.ops import Given

Describe = Callable[[Given], "ArrayPart | None"]

OPS: Registry[Describe] = Registry("op on arrays")
planned = OPS.register
"""Registers what an op is; None where no plan takes it. Option:

    moving: the parameters that may be computed while the program runs; "x" alone by default.
"""


def part_of(operation: Given) -> ArrayPart | None:
    """What a plan knows of an operation."""
    entry = OPS.find(operation.call.op)
    if entry is None or not all(map(_is_float, operation.call.outputs)):
        return None
    if tuple(operation.moving) not in entry.options.get("moving", (("x",),)):
        return None
    if any(len(argument.names) != 1 for argument in operation.moving.values()):
        return None
    return entry.value(operation)


def _is_float(kind: object) -> bool:
    return isinstance(kind, TensorType) and kind.dtype in FLOATS


def _kernel(operation: Given) -> Kernel:
    """What computes an operation from what moves, constants of float16 being widened."""
    fixed = {
        name: half.wide(value)
        if isinstance(value, np.ndarray) and value.dtype == np.float16
        else value
        for name, value in operation.fixed.items()
    }

    def kernel(*moving: Array) -> Any:
        return operation.kernel(
            operation.call, **fixed, **dict(zip(operation.moving, moving, strict=True))
        )

    return kernel


# ---- views -----------------------------------------------------------------------------


@planned("reshape", "expand_dims", "squeeze", "flatten2d")
def reshaped(operation: Given) -> ArrayPart:
    return parts.Reshaped()


@planned("transpose", "slice_by_index", "slice_by_size", "split")
def viewed(operation: Given) -> ArrayPart:
    """Kernels that return views."""

    def views(x: Array) -> tuple[Array, ...]:
        result = operation.kernel(operation.call, x=x, **operation.fixed)
        return tuple(result) if isinstance(result, tuple | list) else (result,)

    return parts.Viewed(views)


# ---- products --------------------------------------------------------------------------


@planned("linear")
def linear(operation: Given) -> ArrayPart | None:
    stays = {"weight", "bias"} <= operation.call.stays
    if not stays or np.size(operation.fixed["weight"]) > PACKED_MOST:
        return None

    def packed() -> PackedProduct:
        weight = operation.array("weight")
        assert weight is not None
        return packed_product(operation.call, weight, operation.array("bias"))

    return parts.DenseProduct(packed, np.shape(operation.fixed["weight"])[1])


@planned("matmul", moving=(("x", "y"), ("x",), ("y",)))
def matmul(operation: Given) -> ArrayPart | None:
    """Constants only where they stay in memory."""
    fixed = operation.fixed
    constants = [name for name in ("x", "y") if fixed.get(name) is not None]
    if not operation.call.stays.issuperset(constants):
        return None

    def constant(name: str) -> parts.Constant | None:
        return (lambda: _read(operation, name)) if name in constants else None

    return parts.MatrixProduct(
        (bool(fixed["transpose_x"]), bool(fixed["transpose_y"])),
        lambda *moving: operation.kernel(
            operation.call,
            transpose_x=fixed["transpose_x"],
            transpose_y=fixed["transpose_y"],
            **{name: _read(operation, name) for name in constants},
            **dict(zip(operation.moving, moving, strict=True)),
        ),
        (constant("x"), constant("y")),
    )


def _read(operation: Given, name: str) -> Array:
    array = operation.array(name)
    assert array is not None  # it is a constant
    return array


def _constant(operation: Given, name: str) -> Array | None:
    """An operand in float32, if it is one."""
    if operation.fixed.get(name) is None:
        return None
    return operation.array(name)


# ---- rows ------------------------------------------------------------------------------


@planned("layer_norm")
def layer_norm(operation: Given) -> ArrayPart | None:
    axes = vector(operation.fixed["axes"])
    if sorted(axes) != list(range(-len(axes), 0)):
        return None
    (kind,) = operation.call.outputs
    assert isinstance(kind, TensorType)  # see `part_of`
    shape = (kind.shape or ())[len(kind.shape or ()) - len(axes) :]
    if None in shape:
        return None
    extents = [extent or 0 for extent in shape]

    def values(name: str, default: float) -> Callable[[], Array]:
        def read() -> Array:
            array = operation.array(name)
            return np.full(extents, default, np.float32) if array is None else array

        return read

    epsilon = float(operation.fixed["epsilon"])
    return parts.Normalized(values("gamma", 1.0), values("beta", 0.0), epsilon)


@planned("softmax")
def softmax(operation: Given) -> ArrayPart:
    return parts.Softmax(int(operation.fixed["axis"]), _kernel(operation))


@planned("lstm", moving=(("x",), ("x", "initial_h", "initial_c")))
def lstm(operation: Given) -> ArrayPart | None:
    fixed = operation.fixed
    packed = recurrent.packed_lstm(operation.call, fixed)
    if packed is None:
        return None
    states = [_constant(operation, name) for name in ("initial_h", "initial_c")]
    two = fixed["direction"] == "bidirectional"
    clip = fixed["clip"]

    def entering(given: Sequence[Array], *targets: Array) -> parts.Moves:
        """From states of [Batch, directions * units]."""
        sources = given or [x for x in states if x is not None]
        return [
            (x.reshape(len(x), len(y), -1).transpose(1, 0, 2), y)
            for x, y in zip(sources, targets, strict=True)
        ]

    def leaving(last: Array, cells: Array, targets: Sequence[Array]) -> parts.Moves:
        return [
            (x.transpose(1, 0, 2), y.reshape(x.shape[1], len(x), -1))
            for x, y in zip((last, cells), targets, strict=True)
        ]

    return parts.LongShortTermMemory(
        packed,
        np.float32(np.inf if clip is None else clip),
        [fixed["direction"] == "reverse", True][: 1 + two],
        sequence=bool(fixed["output_sequence"]),
        entering=entering,
        leaving=leaving,
    )


# ---- value by value --------------------------------------------------------------------

_JOINED = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "real_div": "divide",
    "maximum": "maximum",
    "minimum": "minimum",
}


@planned(*_JOINED, moving=(("x", "y"), ("x",), ("y",)))
def joined(operation: Given) -> ArrayPart | None:
    """Large constants only where they stay in memory."""
    large = [name for name in ("x", "y") if np.asarray(operation.fixed.get(name)).size > parts.FEW]
    if not operation.call.stays.issuperset(large):
        return None
    numbers = _constant(operation, "x"), _constant(operation, "y")
    return parts.Combined(_JOINED[operation.call.op], numbers)


@planned("sigmoid", "tanh", "erf", "exp")
def function(operation: Given) -> ArrayPart:
    return parts.ValueFunction(operation.call.op)


@planned("gelu")
def gelu(operation: Given) -> ArrayPart | None:
    exact = operation.fixed["mode"] == "EXACT"
    return parts.ValueFunction("gelu") if exact else called(operation)


@planned("relu")
def relu(operation: Given) -> ArrayPart:
    return _within(0.0, np.inf)


@planned("relu6")
def relu6(operation: Given) -> ArrayPart:
    return _within(0.0, 6.0)


@planned("clip")
def clip(operation: Given) -> ArrayPart | None:
    least, most = (float(operation.fixed[name]) for name in ("alpha", "beta"))
    return _within(least, most) if least <= most else None


@planned("linear_activation")
def linear_activation(operation: Given) -> ArrayPart:
    return parts.Linear(float(operation.fixed["alpha"]), float(operation.fixed["beta"]))


@planned("identity", "cast")
def unchanged(operation: Given) -> ArrayPart:
    return _within(-np.inf, np.inf)


def _within(least: float, most: float) -> ArrayPart:
    return parts.ValueFunction("identity", np.float32(least), np.float32(most))


@planned("silu", "softplus", "softsign", "elu", "leaky_relu", "thresholded_relu", "clamped_relu",
         "scaled_tanh", "sigmoid_hard", "abs", "acos", "asin", "atan",
         "atanh", "ceil", "cos", "cosh", "exp2", "floor", "round", "sign", "sin", "sinh", "sqrt",
         "square", "tan", "inverse", "log", "rsqrt", "threshold")  # fmt: skip
def called(operation: Given) -> ArrayPart:
    """What no compiled code has."""
    return parts.KernelCall(_kernel(operation))
