"""The ops of ML Programs that a plan takes, and the part that each of them becomes.

This holds for float32, and for float16 whose results are rounded one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.numerics import half
from mlferry.programs.arguments import Argument
from mlferry.programs.convolution.definition import sliding
from mlferry.programs.convolution.kernel import counted, cut_off, reach_of
from mlferry.programs.kernels import Call, Kernel
from mlferry.programs.reshaping.definition import vector
from mlferry.programs.types import FLOATS, TensorType
from mlferry.registry import Registry
from mlferry.runtime.planned import parts
from mlferry.runtime.planned.convolution import Window
from mlferry.runtime.planned.finish import Clipping, NamedFunction
from mlferry.runtime.planned.maps import Array
from mlferry.runtime.planned.plan import Part, Shape

_RANK = 4  # of maps: [N, C, H, W]


@dataclass(frozen=True)
class Given:
    """What an operation is given.

    Attributes:
        call: its description for the kernel.
        kernel: what computes it.
        fixed: the arguments that are constants; values of float16 may be so.
        moving: the others, in the order of the op's parameters.
        widened: whether weights of float16 stay in memory as float32.
        release: lets the system take the memory of what was read from the files of constants.
    """

    call: Call
    kernel: Kernel
    fixed: Mapping[str, Any]
    moving: Mapping[str, Argument]
    widened: bool
    release: Callable[[], None]

    def array(self, name: str) -> Array | None:
        """A constant in float32."""
        value = self.fixed[name]
        if value is None:
            return None
        self.release()  # earlier reads have been copied by now
        array = np.asarray(value)
        return (
            half.wide(array) if array.dtype == np.float16 else array.astype(np.float32, copy=False)
        )


Describe = Callable[[Given], "Part | None"]

OPS: Registry[Describe] = Registry("planned op")
planned = OPS.register
"""Registers what an op is; None where no plan takes it. Option:

    moving: the parameters that may be computed while the program runs; "x" alone by default.
"""


def part_of(operation: Given) -> Part | None:
    """What a plan knows of an operation."""
    entry = OPS.find(operation.call.op)
    if entry is None or not _is_map(operation.call):
        return None
    if tuple(operation.moving) not in entry.options.get("moving", (("x",),)):
        return None
    if any(name is None for argument in operation.moving.values() for name in argument.names):
        return None
    return entry.value(operation)


def _is_map(call: Call) -> bool:
    """Whether an operation makes one value, of floats in four axes."""
    if len(call.outputs) != 1:
        return False
    (kind,) = call.outputs
    return isinstance(kind, TensorType) and kind.dtype in FLOATS and len(kind.shape or ()) == _RANK


# ---- value by value --------------------------------------------------------------------


@planned("sigmoid", "silu", "softplus", "softsign", "elu", "leaky_relu", "thresholded_relu",
         "clamped_relu", "linear_activation", "scaled_tanh", "sigmoid_hard", "gelu",
         "abs", "acos", "asin", "atan", "atanh", "ceil", "cos", "cosh", "erf", "exp", "exp2",
         "floor", "round", "sign", "sin", "sinh", "sqrt", "square", "tan", "tanh",
         "inverse", "log", "rsqrt", "threshold")  # fmt: skip
def valuewise(operation: Given) -> Part:
    fixed = {
        name: np.float32(value) if isinstance(value, np.ndarray) else value
        for name, value in operation.fixed.items()
    }

    def function(x: Array, out: Array) -> None:
        np.copyto(out, operation.kernel(operation.call, x=x, **fixed))

    is_exact = fixed.get("mode", "EXACT") == "EXACT"
    return parts.Valuewise(NamedFunction(operation.call.op, function) if is_exact else function)


@planned("cast", "identity")
def unchanged(operation: Given) -> Part:
    return parts.Valuewise(lambda x, out: np.copyto(out, x))


def _within(least: float, most: float) -> Part:
    return parts.Valuewise(Clipping(np.float32(least), np.float32(most)))


@planned("relu")
def relu(operation: Given) -> Part:
    return _within(0.0, np.inf)


@planned("relu6")
def relu6(operation: Given) -> Part:
    return _within(0.0, 6.0)


@planned("clip")
def clip(operation: Given) -> Part | None:
    least, most = (float(operation.fixed[name]) for name in ("alpha", "beta"))
    if not least <= most:
        return None
    part = _within(least, most)
    with np.errstate(over="ignore"):
        part.exact = all(np.float16(bound) == bound for bound in (least, most))
    return part


@planned("prelu")
def prelu(operation: Given) -> Part:
    alpha = np.asarray(operation.fixed["alpha"], np.float32)

    def function(x: Array, out: Array) -> None:
        np.copyto(out, np.where(x >= 0, x, alpha * x))

    return parts.Valuewise(function)


@planned("batch_norm")
def batch_norm(operation: Given) -> Part:
    epsilon = np.float32(operation.fixed["epsilon"])

    def affine(channels: int) -> tuple[Array, Array]:
        mean, variance = operation.array("mean"), operation.array("variance")
        gamma, beta = operation.array("gamma"), operation.array("beta")
        assert mean is not None
        assert variance is not None
        scale = 1 / np.sqrt(variance + epsilon)
        scale = scale if gamma is None else scale * gamma
        return scale, -mean * scale if beta is None else beta - mean * scale

    return parts.ByChannel(affine)


@planned("instance_norm")
def instance_norm(operation: Given) -> Part:
    def values(name: str, default: float) -> Callable[[int], Array]:
        def of(channels: int) -> Array:
            weight = operation.array(name)
            return np.full(channels, default, np.float32) if weight is None else weight

        return of

    return parts.InstanceNormalization(
        values("gamma", 1.0), values("beta", 0.0), float(operation.fixed["epsilon"])
    )


# ---- two operands ----------------------------------------------------------------------

_JOINED = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "real_div": np.true_divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
}
# What they are with a constant behind and in front: a factor and a shift.
_ONE, _ZERO = np.float32(1), np.float32(0)
_BEHIND: dict[str, Callable[[Array], tuple[Any, Any]]] = {
    "add": lambda c: (_ONE, c),
    "sub": lambda c: (_ONE, -c),
    "mul": lambda c: (c, _ZERO),
}
_IN_FRONT: dict[str, Callable[[Array], tuple[Any, Any]]] = {
    "add": lambda c: (_ONE, c),
    "sub": lambda c: (-_ONE, c),
    "mul": lambda c: (c, _ZERO),
}


def _by_channel(value: NDArray[Any]) -> Array | None:
    """A constant with one value, or one per channel, the channels as its last axis."""
    array = np.asarray(value, np.float32)
    shape = (1,) * (_RANK - array.ndim) + array.shape
    if len(shape) > _RANK or (shape[0], *shape[2:]) != (1, 1, 1):
        return None
    return array.reshape(-1)


def _with_constant(operation: Given, name: str, affine: Mapping[str, Any]) -> Part | None:
    constant = _by_channel(operation.fixed[name])
    if constant is None:
        return None
    op = operation.call.op
    moderate = bool((np.abs(constant) <= half.LARGEST).all())  # others make infinities of their own
    if op in affine and moderate:
        factor, shift = affine[op](constant)

        def wide(channels: int) -> tuple[Array, Array] | None:
            if len(constant) not in (1, channels):
                return None
            vectors = [np.broadcast_to(each, (channels,)) for each in (factor, shift)]
            return vectors[0].astype(np.float32), vectors[1].astype(np.float32)

        return parts.ByChannel(wide)
    if len(constant) > 1:
        return None
    combine = _JOINED[op]

    def behind(x: Array, out: Array) -> None:
        combine(x, constant, out=out)

    def in_front(x: Array, out: Array) -> None:
        combine(constant, x, out=out)

    return parts.Valuewise(behind if name == "y" else in_front)


@planned(*_JOINED, moving=(("x", "y"), ("x",), ("y",)))
def joined(operation: Given) -> Part | None:
    if len(operation.moving) == 2:
        return parts.Joined(_JOINED[operation.call.op], broadcasts=True)
    return _with_constant(
        operation, *(("y", _BEHIND) if "y" in operation.fixed else ("x", _IN_FRONT))
    )


@planned("concat", moving=(("values",),))
def concat(operation: Given) -> Part | None:
    of_channels = operation.fixed["axis"] in (1, 1 - _RANK) and not operation.fixed["interleave"]
    return parts.Concatenation() if of_channels else None


# ---- windows ---------------------------------------------------------------------------


def _pair(values: Sequence[Any]) -> parts.Pair:
    first, second = values
    return int(first), int(second)


@planned("conv", "conv_transpose")
def convolution(operation: Given) -> Part | None:
    fixed = operation.fixed
    weight = fixed["weight"]
    if weight.ndim != _RANK:
        return None
    slides = sliding(
        weight.shape[2:], fixed["strides"], fixed["dilations"], fixed["pad_type"], fixed["pad"]
    )
    window = Window(_pair(weight.shape[2:]), _pair(slides.strides), _pair(slides.dilations))
    groups = int(fixed["groups"])

    def weights() -> Array:
        weight = operation.array("weight")
        assert weight is not None
        return weight

    def filters(count: int, channels: int) -> parts.Filters:
        narrow = weight.dtype == np.float16 and not operation.widened and half.is_finite(weight)
        return parts.Filters(
            count,
            channels,
            window,
            groups,
            weights,
            lambda: operation.array("bias"),
            (lambda: weight) if narrow else None,
        )

    if operation.call.op == "conv":
        return parts.PlannedConvolution(
            filters(*weight.shape[:2]), lambda shape: slides.edges(shape[2:])
        )
    if groups > 1 or window.dilation != (1, 1):
        return None
    return parts.Transposed(
        filters(weight.shape[1], weight.shape[0]),
        lambda full, result: _pair(cut_off(slides, full, result)),
    )


@planned("max_pool", "avg_pool")
def pooling(operation: Given) -> Part | None:
    fixed = operation.fixed
    kernel, ceil = vector(fixed["kernel_sizes"]), bool(fixed["ceil_mode"])
    if len(kernel) != _RANK - 2:
        return None
    slides = sliding(kernel, fixed["strides"], None, fixed["pad_type"], fixed["pad"])
    window = Window(_pair(kernel), _pair(slides.strides), (1, 1))

    def edges(shape: Shape) -> parts.Edges:
        return reach_of(slides, shape[2:], ceil=ceil)

    def divisor(shape: Shape) -> Array:
        exclude = bool(fixed["exclude_padding_from_average"])
        return counted(slides, shape[2:], ceil=ceil, exclude=exclude)

    return parts.Pooling(window, edges, divisor if operation.call.op == "avg_pool" else None)


_REDUCED: dict[str, Callable[..., Any]] = {
    "reduce_mean": np.mean,
    "reduce_max": np.max,
    "reduce_sum": np.sum,
}


@planned(*_REDUCED)
def reduce_space(operation: Given) -> Part | None:
    axes = operation.fixed["axes"]
    if axes is None or not operation.fixed["keep_dims"]:
        return None
    if {axis % _RANK for axis in vector(axes)} != {2, 3}:
        return None
    return parts.OverSpace(_REDUCED[operation.call.op])


@planned("upsample_nearest_neighbor")
def upsample(operation: Given) -> Part | None:
    factors = [float(operation.fixed[f"scale_factor_{axis}"]) for axis in ("height", "width")]
    if not all(factor.is_integer() and factor >= 1 for factor in factors):
        return None
    return parts.Repeated(_pair(factors))


@planned("pad")
def pad(operation: Given) -> Part | None:
    """Of height and width, with one value."""
    if operation.fixed["mode"] != "constant":
        return None
    amounts = [int(amount) for amount in np.ravel(operation.fixed["pad"])]
    spatial, outer = amounts[-4:], amounts[:-4]
    if len(spatial) < 4 or any(outer):
        return None
    edges = ((spatial[0], spatial[1]), (spatial[2], spatial[3]))
    return parts.Padded(edges, float(operation.fixed["constant_val"]))
