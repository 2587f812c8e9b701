"""Each fusion: what becomes one operation, what must not, and the same values either way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Value, constant, sweep
from mlferry.programs.passes.fuse import FUSIONS, fuse
from mlferry.programs.types import StateType, TensorType
from tests.exporters.program.support import (
    checked,
    model_of,
    read_by_coremltools,
    results,
    written,
)
from tests.layers.naive import values as some

Make = Callable[["Writer"], Sequence[Value] | Value]


class Writer(ProgramBuilder):
    """A builder with inputs by one letter, and short spellings."""

    def x(self, *shape: int | None, name: str = "x", dtype: str = "fp32") -> Value:
        return self.input(name, TensorType(dtype, shape))

    def conv(self, x: Value, weight: Any, **more: Any) -> Value:
        inputs = {"strides": [1, 1], "pad_type": "valid", "pad": [0] * 4, "dilations": [1, 1],
                 "groups": 1} | more  # fmt: skip
        return self.op("conv", x=x, weight=weight, **inputs)

    def turned(self, x: Value, weight: Any, **more: Any) -> Value:
        inputs = {"strides": [2, 2], "pad_type": "valid", "pad": [0] * 4, "dilations": [1, 1],
                 "groups": 1} | more  # fmt: skip
        return self.op("conv_transpose", x=x, weight=weight, **inputs)

    def mean(self, x: Value, *axes: int, keep: bool = True) -> Value:
        return self.op("reduce_mean", x=x, axes=list(axes), keep_dims=keep)

    def normalized(self, x: Value, *axes: int, root: str = "sqrt", square: str = "mul") -> Value:
        """(x - mean) / sqrt(variance + 1e-3), in one of the spellings."""
        centered = self.op("sub", x=x, y=self.mean(x, *axes))
        if square == "mul":
            squares = self.op("mul", x=centered, y=centered)
        elif square == "pow":
            squares = self.op("pow", x=centered, y=np.float32(2))
        else:
            squares = self.op("square", x=centered)
        variance = self.op("add", x=self.mean(squares, *axes), y=np.float32(1e-3))
        if root == "sqrt":
            return self.op("real_div", x=centered, y=self.op("sqrt", x=variance))
        inverse = self.op("rsqrt", x=variance, epsilon=np.float32(1e-12))
        return self.op("mul", x=centered, y=inverse)

    def widened(self, axis: int, *shape: int | None) -> Value:
        return self.op("expand_dims", x=self.x(*shape), axes=[axis])

    def narrowed(self, x: Value, axis: int) -> Value:
        return self.op("squeeze", x=x, axes=[axis])

    def pooled(self, kind: str, x: Value, kernel: Sequence[int], **more: Any) -> Value:
        inputs = {"kernel_sizes": list(kernel), "strides": [1, 1], "pad_type": "valid",
                 "pad": [0] * 4} | more  # fmt: skip
        return self.op(kind, x=x, **inputs)


W = some(4, 3, 3, 3) / 4
ACROSS, DOWN = some(4, 3, 1, 3) / 2, some(4, 3, 3, 1) / 2
CHANNEL = np.float32([0.5, -2, 3, 1.5])
SPREAD = CHANNEL.reshape(1, 4, 1, 1)
BATCH_NORM = {"mean": CHANNEL, "variance": CHANNEL**2, "gamma": CHANNEL + 1, "beta": CHANNEL - 1,
              "epsilon": np.float32(1e-3)}  # fmt: skip
ROOT = np.float32(math.sqrt(2))


def gelu(b: Writer, order: str, x: Value | None = None, by: float = 0.5) -> Value:
    x = b.x(2, 3) if x is None else x
    inner = (
        b.op("mul", x=np.float32(1 / ROOT), y=x)
        if order == "inverse"
        else b.op("real_div", x=x, y=ROOT)
    )
    one = b.op("add", x=b.op("erf", x=inner), y=np.float32(1))
    if order == "half first":
        return b.op("mul", x=b.op("mul", x=np.float32(by), y=x), y=one)
    if order == "half between":
        return b.op("mul", x=x, y=b.op("mul", x=one, y=np.float32(by)))
    return b.op("mul", x=b.op("mul", x=one, y=x), y=np.float32(by))


def attention(b: Writer, **how: Any) -> Value:
    """softmax(q k^T scale + mask) v."""
    lead = how.get("lead", (2, 3))
    q = b.x(*lead, 5, 8, name="q")
    k = b.x(*lead, 7, 8, name="k")
    v = b.x(*lead, 7, 4, name="v")
    scores = b.op("matmul", x=q, y=k, transpose_x=False, transpose_y=how.get("turned", True))
    factor = np.float32(how.get("factor", 1 / math.sqrt(8)))
    if how.get("divided"):
        scores = b.op("real_div", x=scores, y=1 / factor)
    elif np.ndim(factor) or factor != 1:
        scores = b.op("mul", x=scores, y=factor)
    if "mask" in how:
        scores = b.op("add", x=scores, y=some(*how["mask"]))
    chances = b.op("softmax", x=scores, axis=how.get("axis", -1))
    return b.op("matmul", x=chances, y=v, transpose_x=False, transpose_y=False)


def grouped(b: Writer) -> Value:
    turned = b.turned(b.x(1, 4, 3, 3), some(4, 2, 3, 3), groups=2)
    return b.op("mul", x=turned, y=SPREAD)


def shared_padding(b: Writer) -> Value:
    padded = b.op("pad", x=b.x(1, 3, 5, 5), pad=[1, 2, 0, 1], mode="constant",
                  constant_val=np.float32(0))  # fmt: skip
    return b.conv(padded, W, pad_type="custom", pad=[1, 0, 0, 2])


def slices(b: Writer, *bounds: tuple[int, int], axis: int = 1, joined: int = 1) -> Value:
    x = b.x(2, 4, 4)
    parts = [b.sliced(x, axis, *each) for each in bounds]
    return b.op("concat", values=parts, axis=joined, interleave=False)


def silu(b: Writer) -> Value:
    x = b.x(2, 3)
    return b.op("mul", x=x, y=b.op("sigmoid", x=x))


def silu_turned(b: Writer) -> Value:
    x = b.x(2, 3)
    return b.op("mul", x=b.op("sigmoid", x=x), y=x)


def two_exponentials(b: Writer) -> Value:
    x = b.x(2)
    return b.op("add", x=b.op("exp", x=x), y=b.op("exp", x=x))


def two_chains(b: Writer) -> Value:
    x = b.x(1, 3, 5, 5)
    one, two = (b.op("add", x=b.conv(x, W), y=SPREAD) for _ in range(2))
    return b.op("sub", x=one, y=b.op("exp", x=two))


def squared(b: Writer) -> Value:
    y = b.conv(b.x(1, 3, 5, 5), W)
    return b.op("mul", x=y, y=y)


def read_between(b: Writer) -> list[Value]:
    between = b.op("relu", x=b.widened(1, 2, 3))
    return [b.narrowed(between, 1), b.op("exp", x=between)]


# What is written, the operations before, and those after.
def _pair(b: Writer, axis: int, *, interleave: bool = False) -> Value:
    """Two inputs of (1, 4, 3), joined."""
    values = [b.x(1, 4, 3), b.x(1, 4, 3, name="y")]
    return b.op("concat", values=values, axis=axis, interleave=interleave)


FUSED: dict[str, tuple[Make, list[str], list[str]]] = {
    "conv, batch norm": (
        lambda b: b.op("batch_norm", x=b.conv(b.x(1, 3, 5, 5), W), **BATCH_NORM),
        ["conv", "batch_norm"], ["conv"],
    ),
    "conv with bias, batch norm without factors, relu": (
        lambda b: b.op("relu", x=b.op("batch_norm", x=b.conv(b.x(2, 3, 5, 5), W, bias=CHANNEL),
                                      mean=CHANNEL, variance=CHANNEL**2)),
        ["conv", "batch_norm", "relu"], ["conv", "relu"],
    ),
    "conv, product, sum": (
        lambda b: b.op("add", x=SPREAD, y=b.op("mul", x=b.conv(b.x(1, 3, 5, 5), W), y=SPREAD)),
        ["conv", "mul", "add"], ["conv"],
    ),
    "conv, one number": (
        lambda b: b.op("mul", x=b.conv(b.x(1, 3, 5, 5), W), y=np.float32(3)),
        ["conv", "mul"], ["conv"],
    ),
    "conv, factors without the axis of samples": (
        lambda b: b.op("mul", x=b.conv(b.x(2, 3, 5, 5), W), y=CHANNEL.reshape(4, 1, 1)),
        ["conv", "mul"], ["conv"],
    ),
    "conv of open sizes": (
        lambda b: b.op("mul", x=b.conv(b.x(1, 3, None, None), W), y=SPREAD),
        ["conv", "mul"], ["conv"],
    ),
    "grouped conv": (
        lambda b: b.op("mul", x=b.conv(b.x(1, 6, 5, 5), W, groups=2), y=SPREAD),
        ["conv", "mul"], ["conv"],
    ),
    "transposed conv": (
        lambda b: b.op("batch_norm", x=b.turned(b.x(1, 3, 4, 4), some(3, 4, 2, 2)), **BATCH_NORM),
        ["conv_transpose", "batch_norm"], ["conv_transpose"],
    ),
    "grouped transposed conv": (grouped, ["conv_transpose", "mul"], ["conv_transpose"]),
    "linear": (
        lambda b: b.op("add", x=b.op("linear", x=b.x(2, 5, 3), weight=some(4, 3)), y=CHANNEL),
        ["linear", "add"], ["linear"],
    ),
    "linear, factors": (
        lambda b: b.op("mul", x=b.op("linear", x=b.x(2, 3), weight=some(4, 3), bias=CHANNEL),
                       y=CHANNEL.reshape(1, 4)),
        ["linear", "mul"], ["linear"],
    ),
    "padding": (
        lambda b: b.conv(b.op("pad", x=b.x(1, 3, 5, 5), pad=[0, 0, 0, 0, 1, 2, 3, 0],
                              mode="constant", constant_val=np.float32(0)), W),
        ["pad", "conv"], ["conv"],
    ),
    "padding of a padded conv": (shared_padding, ["pad", "conv"], ["conv"]),
    "padding of the last axis": (
        lambda b: b.conv(b.op("pad", x=b.x(1, 3, 5, 5), pad=[1, 2], mode="constant",
                              constant_val=np.float32(0)), W, pad_type="valid"),
        ["pad", "conv"], ["conv"],
    ),
    "silu": (
        silu,
        ["sigmoid", "mul"], ["silu"],
    ),
    "silu, turned": (
        silu_turned,
        ["sigmoid", "mul"], ["silu"],
    ),
    "gelu": (lambda b: gelu(b, "half last"), ["real_div", "erf", "add", "mul", "mul"], ["gelu"]),
    "gelu, half first": (
        lambda b: gelu(b, "half first"), ["real_div", "erf", "add", "mul", "mul"], ["gelu"],
    ),
    "gelu, half between": (
        lambda b: gelu(b, "half between"), ["real_div", "erf", "add", "mul", "mul"], ["gelu"],
    ),
    "gelu, times the inverse": (
        lambda b: gelu(b, "inverse"), ["mul", "erf", "add", "mul", "mul"], ["gelu"],
    ),
    "layer norm": (
        lambda b: b.op("add", x=b.op("mul", x=b.normalized(b.x(2, 3, 4), -1), y=CHANNEL),
                       y=CHANNEL),
        ["reduce_mean", "sub", "mul", "reduce_mean", "add", "sqrt", "real_div", "mul", "add"],
        ["layer_norm"],
    ),
    "layer norm, rsqrt and square": (
        lambda b: b.normalized(b.x(2, 3, 4), 1, 2, root="rsqrt", square="square"),
        ["reduce_mean", "sub", "square", "reduce_mean", "add", "rsqrt", "mul"], ["layer_norm"],
    ),
    "layer norm, pow": (
        lambda b: b.op("mul", x=b.normalized(b.x(2, 4), 1, square="pow"), y=CHANNEL),
        ["reduce_mean", "sub", "pow", "reduce_mean", "add", "sqrt", "real_div", "mul"],
        ["layer_norm"],
    ),
    "layer norm over channels": (
        lambda b: b.op("mul", x=b.normalized(b.x(1, 4, 2, 3), 1), y=SPREAD),
        ["reduce_mean", "sub", "mul", "reduce_mean", "add", "sqrt", "real_div", "mul"],
        ["layer_norm"],
    ),
    "layer norm and factors of another shape": (
        lambda b: b.op("mul", x=b.normalized(b.x(1, 4, 3, 4), 3), y=SPREAD),
        ["reduce_mean", "sub", "mul", "reduce_mean", "add", "sqrt", "real_div", "mul"],
        ["layer_norm", "mul"],
    ),
    "instance norm": (
        lambda b: b.op("add", x=b.op("mul", x=b.normalized(b.x(2, 4, 3, 3), 2, 3), y=SPREAD),
                       y=SPREAD),
        ["reduce_mean", "sub", "mul", "reduce_mean", "add", "sqrt", "real_div", "mul", "add"],
        ["instance_norm"],
    ),
    "relu6": (
        lambda b: b.op("minimum", x=b.op("relu", x=b.x(2, 3)), y=np.float32(6)),
        ["relu", "minimum"], ["relu6"],
    ),
    "clip": (
        lambda b: b.op("minimum", x=np.float32(2.5), y=b.op("relu", x=b.x(2, 3))),
        ["relu", "minimum"], ["clip"],
    ),
    "relu and clip": (
        lambda b: b.op("clip", x=b.op("relu", x=b.x(2, 3)), alpha=np.float32(-1),
                       beta=np.float32(1)),
        ["relu", "clip"], ["clip"],
    ),
    "parts put together": (
        lambda b: b.op("exp", x=slices(b, (0, 1), (1, 4))),
        ["slice_by_index", "slice_by_index", "concat", "exp"], ["exp"],
    ),
    "squeezed reduction": (
        lambda b: b.op("squeeze", x=b.mean(b.x(2, 3, 4), -1, 1), axes=[1, 2]),
        ["reduce_mean", "squeeze"], ["reduce_mean"],
    ),
    "transposed factor": (
        lambda b: b.op("matmul", x=b.x(2, 3, 4), y=b.op("transpose", x=b.x(2, 5, 4, name="y"),
                                                      perm=[0, 2, 1])),
        ["transpose", "matmul"], ["matmul"],
    ),
    "both factors transposed, one twice": (
        lambda b: b.op("matmul", x=b.op("transpose", x=b.x(4, 3), perm=[1, 0]),
                       y=b.op("transpose", x=b.x(4, 5, name="y"), perm=[-1, -2]),
                       transpose_y=True),
        ["transpose", "transpose", "matmul"], ["matmul"],
    ),
    "the same twice": (
        two_exponentials,
        ["exp", "exp", "add"], ["exp", "add"],
    ),
    "the same twice with constants": (
        two_chains,
        ["conv", "add", "conv", "add", "exp", "sub"], ["conv", "exp", "sub"],
    ),
    "conv between axes of one": (
        lambda b: b.narrowed(b.op("relu", x=b.conv(b.widened(2, 2, 3, 7), ACROSS, bias=CHANNEL)),
                             2),
        ["expand_dims", "conv", "relu", "squeeze"], ["conv", "relu"],
    ),
    "padded convs with steps between axes of one": (
        lambda b: b.narrowed(b.conv(
            b.op("tanh", x=b.conv(b.widened(-1, 1, 3, 9), DOWN, pad_type="custom",
                                  pad=[2, 1, 0, 0], strides=[2, 1])),
            some(2, 4, 3, 1), pad_type="same", dilations=[2, 1]), 3),
        ["expand_dims", "conv", "tanh", "conv", "squeeze"], ["conv", "tanh", "conv"],
    ),
    "conv of open size between axes of one": (
        lambda b: b.narrowed(b.conv(b.widened(3, 1, 3, None), DOWN), -1),
        ["expand_dims", "conv", "squeeze"], ["conv"],
    ),
    "grouped conv between axes of one": (
        lambda b: b.narrowed(b.conv(b.widened(2, 1, 6, 5), ACROSS, groups=2), 2),
        ["expand_dims", "conv", "squeeze"], ["conv"],
    ),
    "poolings between axes of one": (
        lambda b: b.narrowed(b.pooled("avg_pool", b.pooled("max_pool", b.widened(2, 1, 3, 9),
                                                           [1, 2], strides=[1, 2]),
                                      [1, 3], pad_type="custom", pad=[0, 0, 1, 1],
                                      exclude_padding_from_average=True), 2),
        ["expand_dims", "max_pool", "avg_pool", "squeeze"], ["max_pool", "avg_pool"],
    ),
    "activation between axes of one": (
        lambda b: b.narrowed(b.op("leaky_relu", x=b.widened(1, 2, 3), alpha=np.float32(0.3)), 1),
        ["expand_dims", "leaky_relu", "squeeze"], ["leaky_relu"],
    ),
    "batch norm between axes of one": (
        lambda b: b.narrowed(b.conv(b.op("batch_norm", x=b.widened(2, 2, 4, 5), **BATCH_NORM),
                                    some(3, 4, 1, 2)), 2),
        ["expand_dims", "batch_norm", "conv", "squeeze"], ["batch_norm", "conv"],
    ),
    "an axis put in and dropped": (
        lambda b: b.op("exp", x=b.narrowed(b.widened(0, 2, 3), 0)),
        ["expand_dims", "squeeze", "exp"], ["exp"],
    ),
    "reduction of a transpose": (
        lambda b: b.mean(b.op("transpose", x=b.x(2, 3, 4, 5), perm=[0, 2, 3, 1]), 1, -2,
                         keep=False),
        ["transpose", "reduce_mean"], ["reduce_mean"],
    ),
    "reduction of a transpose, axes kept": (
        lambda b: b.op("reduce_max", x=b.op("transpose", x=b.x(2, 3, 4, 5), perm=[0, 3, 2, 1]),
                       axes=[1, 3], keep_dims=True),
        ["transpose", "reduce_max"], ["reduce_max"],
    ),
    "joined, and joined again": (
        lambda b: b.op("concat", values=[_pair(b, 1), b.x(1, 2, 3, name="z")], axis=1,
                       interleave=False),
        ["concat", "concat"], ["concat"],
    ),
}  # fmt: skip

ATTENTION: dict[str, tuple[dict[str, Any], list[str]]] = {
    "plain": ({}, []),
    "divided": ({"divided": True}, []),
    "without a factor": ({"factor": 1}, ["mul"]),
    "another factor": ({"factor": 0.1}, ["mul"]),
    "mask": ({"mask": (5, 7)}, []),
    "mask of all axes": ({"mask": (2, 1, 5, 7)}, []),
    "one row as mask": ({"mask": (1, 7)}, []),
}


def both_ways(
    make: Make, opset: int, before: list[str], after: list[str], folder: Path | None = None
) -> None:
    """Compare the values before and after, and the operations."""
    builder = Writer(opset)
    builder.layer = "it"
    result = make(builder)
    builder.block.outputs = list(result) if isinstance(result, tuple | list) else [result]
    assert written(builder) == before
    plain = model_of(builder)
    names = [value.name for value in builder.block.outputs]
    fuse(builder.block, opset)
    assert written(builder) == after
    assert [value.name for value in builder.block.outputs] == names
    fused = checked(model_of(builder))
    inputs = {
        value.name: some(*(n or 5 for n in value.shape)) * 3 for value in builder.block.inputs
    }
    models = [fused]
    if folder is not None:
        read_by_coremltools(fused, folder)
        models.append(type(fused)(folder / "model.mlpackage", engine="onnxruntime", threads=1))
    right = results(plain, inputs, names)
    for model in models:
        for actual, expected in zip(results(model, inputs, names), right, strict=True):
            assert actual.shape == expected.shape
            np.testing.assert_allclose(actual, expected, 1e-4, 1e-4)


@pytest.mark.parametrize("name", FUSED)
def test_fused(name: str, tmp_path: Path) -> None:
    both_ways(FUSED[name][0], 5, *FUSED[name][1:], tmp_path)


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name: str, tmp_path: Path) -> None:
    how, more = ATTENTION[name]
    scaled = ["mul"] if how.get("factor") != 1 and not how.get("divided") else []
    before = ["matmul", *scaled, *(["real_div"] if how.get("divided") else []),
              *(["add"] if "mask" in how else []), "softmax", "matmul"]  # fmt: skip
    both_ways(
        lambda b: attention(b, **how), 8, before, [*more, "scaled_dot_product_attention"], tmp_path
    )
    both_ways(lambda b: attention(b, **how), 7, before, before)


def test_every_fusion_has_a_row() -> None:
    ran: set[str] = set()
    for make, opset in [*((row[0], 5) for row in FUSED.values()), (attention, 8)]:
        builder = Writer(opset)
        result = make(builder)
        assert isinstance(result, Value)
        builder.block.outputs = [result]
        rewriters = [_recording(fusion, ran) for fusion in FUSIONS]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mlferry.programs.passes.fuse.FUSIONS", rewriters)
            fuse(builder.block, opset)
    assert ran == {fusion.__name__ for fusion in FUSIONS}


def _recording(fusion: Any, ran: set[str]) -> Any:
    def tried(rewriter: Any, operation: Any) -> bool:
        changed = bool(fusion(rewriter, operation))
        if changed:
            ran.add(fusion.__name__)
        return changed

    return tried


def read_twice(b: Writer) -> list[Value]:
    first = b.conv(b.x(1, 3, 5, 5), W)
    return [b.op("mul", x=first, y=SPREAD), b.op("relu", x=first)]


def is_output(b: Writer) -> list[Value]:
    first = b.conv(b.x(1, 3, 5, 5), W)
    return [first, b.op("mul", x=first, y=SPREAD)]


def in_an_inner_block(b: Writer) -> Value:
    first, other = b.conv(b.x(1, 3, 5, 5), W), b.x(1, 4, 3, 3, name="other")
    flag = b.op("greater", x=b.op("reduce_max", x=other, axes=[0, 1, 2, 3]), y=np.float32(0))
    with b.inside() as yes:
        yes.outputs = [b.op("mul", x=first, y=SPREAD)]
    with b.inside() as no:
        no.outputs = [b.op("exp", x=other)]
    return b.op("cond", pred=flag, blocks=[yes, no])


def computed_weight(b: Writer) -> Value:
    result = b.op("conv", x=b.x(1, 3, 5, 5), weight=b.x(4, 3, 3, 3, name="w"), strides=[1, 1],
                pad_type="valid", pad=[0] * 4, dilations=[1, 1], groups=1)  # fmt: skip
    return b.op("mul", x=result, y=SPREAD)


def tabled_weight(b: Writer) -> Value:
    table = b.op(
        "constexpr_lut_to_dense",
        indices=constant(np.arange(108, dtype=np.uint8), "uint8"),
        lut=constant(np.linspace(-1, 1, 256, dtype=np.float32), "fp32"),
        shape=constant(np.array([4, 3, 3, 3], np.uint32), "uint32"),
    )
    return b.op("mul", x=b.conv(b.x(1, 3, 5, 5), table), y=SPREAD)


def conv_before_its_scaled_twin(b: Writer) -> list[Value]:
    x = b.x(1, 3, 5, 5)
    one, two = b.conv(x, W), b.conv(x, W)
    return [b.op("mul", x=one, y=SPREAD), b.op("relu", x=two)]


def reduction_before_its_squeezed_twin(b: Writer) -> list[Value]:
    x = b.x(2, 3)
    one, two = b.mean(x, 1), b.mean(x, 1)
    return [b.op("squeeze", x=one, axes=[1]), b.op("exp", x=two)]


def only_part_of_mean(b: Writer) -> Value:
    x = b.x(2, 3, 4)
    centered = b.op("sub", x=x, y=b.mean(x, -1))
    variance = b.mean(b.op("mul", x=centered, y=centered), 1)
    return b.op("real_div", x=centered, y=b.op("sqrt", x=b.op("add", x=variance, y=ROOT)))


def centered_read_elsewhere(b: Writer) -> list[Value]:
    x = b.x(2, 4)
    centered = b.op("sub", x=x, y=b.mean(x, -1))
    variance = b.mean(b.op("mul", x=centered, y=centered), -1)
    root = b.op("sqrt", x=b.op("add", x=variance, y=ROOT))
    return [b.op("real_div", x=centered, y=root), b.op("exp", x=centered)]


def upside_down(b: Writer) -> Value:
    x = b.x(2, 4)
    centered = b.op("sub", x=x, y=b.mean(x, -1))
    variance = b.mean(b.op("mul", x=centered, y=centered), -1)
    root = b.op("sqrt", x=b.op("add", x=variance, y=ROOT))
    return b.op("real_div", x=root, y=centered)


def mean_minus(b: Writer) -> Value:
    x = b.x(2, 4)
    centered = b.op("sub", x=b.mean(x, -1), y=x)
    variance = b.mean(b.op("mul", x=centered, y=centered), -1)
    root = b.op("sqrt", x=b.op("add", x=variance, y=ROOT))
    return b.op("real_div", x=centered, y=root)


def other_x(b: Writer) -> Value:
    return b.op("mul", x=b.x(2, 3), y=b.op("sigmoid", x=b.x(2, 3, name="y")))


def gelu_of_two(b: Writer) -> Value:
    one = b.op("add", x=b.op("erf", x=b.op("real_div", x=b.x(2, 3), y=ROOT)), y=np.float32(1))
    return b.op("mul", x=b.op("mul", x=one, y=b.x(2, 3, name="y")), y=np.float32(0.5))


def two_halves(b: Writer) -> Value:
    x = b.x(2, 3)
    one = b.op("add", x=b.op("erf", x=b.op("real_div", x=x, y=ROOT)), y=np.float32(1))
    half = b.op("mul", x=one, y=np.float32(0.5))
    return b.op("mul", x=half, y=b.op("mul", x=x, y=np.float32(0.5)))


def wide_constant(b: Writer) -> Value:
    return b.op("mul", x=b.conv(b.x(1, 3, 3, 3), W), y=some(1, 4, 2, 2))


NORMALIZED = ["reduce_mean", "sub", "mul", "reduce_mean", "add", "sqrt", "real_div"]

# What looks like a fusion and is none: the operations stay.
NEAR_MISSES: dict[str, tuple[Make, list[str]]] = {
    "conv read twice": (read_twice, ["conv", "mul", "relu"]),
    "conv is an output": (is_output, ["conv", "mul"]),
    "weight is an input": (computed_weight, ["conv", "mul"]),
    "weight in a table": (tabled_weight, ["constexpr_lut_to_dense", "conv", "mul"]),
    "factors along another axis": (
        lambda b: b.op("mul", x=b.conv(b.x(1, 3, 6, 6), W), y=CHANNEL), ["conv", "mul"],
    ),
    "factors that widen the result": (wide_constant, ["conv", "mul"]),
    "a twin of a conv that is scaled": (
        conv_before_its_scaled_twin, ["conv", "conv", "relu"],
    ),
    "a twin of a reduction that is squeezed": (
        reduction_before_its_squeezed_twin, ["reduce_mean", "reduce_mean", "exp"],
    ),
    "batch norm of maps behind linear": (
        lambda b: b.op("batch_norm", x=b.op("linear", x=b.x(1, 4, 2, 3), weight=some(4, 3)),
                       **BATCH_NORM),
        ["linear", "batch_norm"],
    ),
    "product by what is computed": (
        lambda b: b.op("mul", x=b.conv(b.x(1, 3, 5, 5), W), y=b.x(1, 4, 1, 1, name="y")),
        ["conv", "mul"],
    ),
    "a conv by itself": (
        squared, ["conv", "mul"],
    ),
    "padding with another number": (
        lambda b: b.conv(b.op("pad", x=b.x(1, 3, 5, 5), pad=[1, 1, 1, 1], mode="constant",
                              constant_val=np.float32(1)), W),
        ["pad", "conv"],
    ),
    "padding that reflects": (
        lambda b: b.conv(b.op("pad", x=b.x(1, 3, 5, 5), pad=[1, 1, 1, 1], mode="reflect",
                              constant_val=np.float32(0)), W),
        ["pad", "conv"],
    ),
    "padding of channels": (
        lambda b: b.conv(b.op("pad", x=b.x(1, 2, 5, 5), pad=[0, 1, 0, 0, 0, 0], mode="constant",
                              constant_val=np.float32(0)), W),
        ["pad", "conv"],
    ),
    "padding of a conv that pads as it likes": (
        lambda b: b.conv(b.op("pad", x=b.x(1, 3, 5, 5), pad=[1, 1, 1, 1], mode="constant",
                              constant_val=np.float32(0)), W, pad_type="same"),
        ["pad", "conv"],
    ),
    "padding of a weight": (
        lambda b: b.op("conv", x=b.x(1, 3, 5, 5), weight=b.op(
            "pad", x=b.x(4, 3, 1, 1, name="w"), pad=[1, 1, 1, 1], mode="constant",
            constant_val=np.float32(0)), strides=[1, 1], pad_type="valid", pad=[0] * 4,
            dilations=[1, 1], groups=1),
        ["pad", "conv"],
    ),
    "sigmoid of another": (other_x, ["sigmoid", "mul"]),
    "gelu of two": (gelu_of_two, ["real_div", "erf", "add", "mul", "mul"]),
    "gelu by a quarter": (
        lambda b: gelu(b, "half last", by=0.25), ["real_div", "erf", "add", "mul", "mul"],
    ),
    "gelu with two halves": (two_halves, ["real_div", "erf", "add", "mul", "mul", "mul"]),
    "norm over two axes": (only_part_of_mean, NORMALIZED),
    "norm over axes in the middle": (lambda b: b.normalized(b.x(2, 3, 4), 1), NORMALIZED),
    "norm whose difference is read elsewhere": (centered_read_elsewhere, [*NORMALIZED, "exp"]),
    "norm upside down": (upside_down, NORMALIZED),
    "norm with the sign turned": (mean_minus, NORMALIZED),
    "lesser of a negative number": (
        lambda b: b.op("minimum", x=b.op("relu", x=b.x(2, 3)), y=np.float32(-1)),
        ["relu", "minimum"],
    ),
    "lesser of several numbers": (
        lambda b: b.op("minimum", x=b.op("relu", x=b.x(2, 4)), y=CHANNEL), ["relu", "minimum"],
    ),
    "lesser with an axis more": (
        lambda b: b.op("minimum", x=b.op("relu", x=b.x(2)), y=np.float32([[6]])),
        ["relu", "minimum"],
    ),
    "parts in another order": (
        lambda b: slices(b, (2, 4), (0, 2)), ["slice_by_index", "slice_by_index", "concat"],
    ),
    "joined along two axes": (
        lambda b: b.op("concat", values=[_pair(b, 1), b.x(1, 8, 3, name="z")], axis=2,
                       interleave=False),
        ["concat", "concat"],
    ),
    "joined in turns, and joined": (
        lambda b: b.op("concat", values=[_pair(b, 1, interleave=True), b.x(1, 2, 3, name="z")],
                       axis=1, interleave=False),
        ["concat", "concat"],
    ),
    "joined, and read twice": (
        lambda b: [b.op("concat", values=[made := _pair(b, 1), b.x(1, 2, 3, name="z")], axis=1,
                        interleave=False), b.op("relu", x=made)],
        ["concat", "concat", "relu"],
    ),
    "parts with a gap": (
        lambda b: slices(b, (0, 1), (2, 4)), ["slice_by_index", "slice_by_index", "concat"],
    ),
    "parts along another axis": (
        lambda b: slices(b, (0, 2), (2, 4), joined=2),
        ["slice_by_index", "slice_by_index", "concat"],
    ),
    "squeezed along other axes": (
        lambda b: b.op("squeeze", x=b.mean(b.x(1, 3, 4), 2), axes=[0]), ["reduce_mean", "squeeze"],
    ),
    "an index that is squeezed": (
        lambda b: b.op("cast", x=b.op("squeeze", x=b.op(
            "reduce_argmax", x=b.x(2, 3), axis=1, keep_dims=True), axes=[1]), dtype="fp32"),
        ["reduce_argmax", "squeeze", "cast"],
    ),
    "factor turned otherwise": (
        lambda b: b.op("matmul", x=b.x(2, 3, 4), y=b.op("transpose", x=b.x(4, 2, 5, name="y"),
                                                      perm=[1, 0, 2])),
        ["transpose", "matmul"],
    ),
    "conv that is wide on the axis of one": (
        lambda b: b.narrowed(b.conv(b.widened(2, 1, 3, 7), W, pad_type="custom",
                                    pad=[1, 1, 0, 0]), 2),
        ["expand_dims", "conv", "squeeze"],
    ),
    "conv that pads the axis of one": (
        lambda b: b.mean(b.narrowed(b.conv(b.widened(2, 1, 3, 7), ACROSS, strides=[3, 1],
                                           pad_type="custom", pad=[1, 1, 0, 0]), 2), 1),
        ["expand_dims", "conv", "squeeze", "reduce_mean"],
    ),
    "batch norm that has no axis but the one": (
        lambda b: b.narrowed(b.op("batch_norm", x=b.widened(2, 2, 4), **BATCH_NORM), 2),
        ["expand_dims", "batch_norm", "squeeze"],
    ),
    "prelu between axes of one, which has a value a channel for images only": (
        lambda b: b.narrowed(b.op("prelu", x=b.widened(2, 2, 4, 5), alpha=CHANNEL), 2),
        ["expand_dims", "prelu", "squeeze"],
    ),
    "another axis is dropped": (
        lambda b: b.narrowed(b.op("relu", x=b.widened(1, 2, 1, 3)), 2),
        ["expand_dims", "relu", "squeeze"],
    ),
    "the axis of one is read elsewhere": (
        read_between, ["expand_dims", "relu", "squeeze", "exp"],
    ),
    "softmax between axes of one": (
        lambda b: b.narrowed(b.op("softmax", x=b.widened(1, 2, 3), axis=1), 1),
        ["expand_dims", "softmax", "squeeze"],
    ),
    "an axis put in and dropped, at the end": (
        lambda b: b.narrowed(b.widened(0, 2, 3), 0), ["expand_dims", "squeeze"],
    ),
    "reduction of a transpose that turns what stays": (
        lambda b: b.mean(b.op("transpose", x=b.x(2, 3, 4), perm=[2, 1, 0]), 1, keep=False),
        ["transpose", "reduce_mean"],
    ),
    "reduction of a transpose, axes kept elsewhere": (
        lambda b: b.mean(b.op("transpose", x=b.x(2, 3, 4), perm=[0, 2, 1]), 1),
        ["transpose", "reduce_mean"],
    ),
    "arg max of a transpose": (
        lambda b: b.op("exp", x=b.as_float(b.op("reduce_argmax", x=b.op(
            "transpose", x=b.x(2, 3, 4), perm=[0, 2, 1]), axis=1, keep_dims=False))),
        ["transpose", "reduce_argmax", "cast", "exp"],
    ),
    "in an inner block": (
        in_an_inner_block, ["conv", "reduce_max", "greater", "cond", "mul", "exp"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_near_miss(name: str) -> None:
    make, ops = NEAR_MISSES[name]
    opset = 6 if "constexpr_lut_to_dense" in ops else 5
    builder = Writer(opset)
    builder.layer = "it"
    result = make(builder)
    builder.block.outputs = list(result) if isinstance(result, list) else [result]
    before = written(builder)
    both_ways(make, opset, before, ops)


NO_ATTENTION: dict[str, Callable[[Writer], Value]] = {
    "along another axis": lambda b: attention(b, axis=-2),
    "mask with an axis more": lambda b: attention(b, mask=(4, 2, 3, 5, 7)),
    "mask that widens": lambda b: attention(b, lead=(1, 3), mask=(2, 1, 5, 7)),
    "a factor for each": lambda b: attention(b, factor=[1.0, 2, 3, 4, 5, 6, 7]),
}


@pytest.mark.parametrize("name", NO_ATTENTION)
def test_no_attention(name: str) -> None:
    builder = Writer(8)
    builder.block.outputs = [NO_ATTENTION[name](builder)]
    ops = written(builder)
    both_ways(NO_ATTENTION[name], 8, ops, ops)


def draws(b: Writer) -> list[Value]:
    shape = np.int32([4, 4])
    more = {"mean": np.float32(0), "stddev": np.float32(1), "seed": np.int32(-1)}
    one, two = (b.op("random_normal", shape=shape, **more) for _ in range(2))
    return [b.op("exp", x=one), b.op("sin", x=two)]


def states(b: Writer) -> list[Value]:
    state = b.input("memory", StateType(TensorType("fp16", (2,))))
    first = b.as_float(b.op("read_state", input=state))
    b.ops("write_state", input=state, data=b.cast(b.op("add", x=first, y=np.float32(1)), "fp16"))
    second = b.op("read_state", input=state)
    return [b.op("exp", x=first), b.op("exp", x=b.as_float(second))]


UNLIKE = {
    "draws": (draws, 5, ["random_normal", "random_normal", "exp", "sin"]),
    "reads of a state": (
        states, 8,
        ["read_state", "cast", "add", "cast", "write_state", "read_state", "exp", "cast", "exp"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNLIKE)
def test_never_merged(name: str) -> None:
    make, opset, ops = UNLIKE[name]
    builder = Writer(opset)
    builder.block.outputs = make(builder)
    fuse(builder.block, opset)
    assert sorted(written(builder)) == sorted(ops)


def test_what_nobody_reads_goes() -> None:
    builder = Writer()
    x = builder.x(2, 3)
    kept = builder.op("exp", x=x)
    first = builder.op("sin", x=builder.op("cos", x=x))
    with builder.inside() as yes:
        builder.op("tan", x=first)
        yes.outputs = [builder.op("sqrt", x=x)]
    with builder.inside() as no:
        no.outputs = [builder.op("square", x=x)]
    flag = builder.op("greater", x=builder.op("reduce_max", x=x, axes=[0, 1]), y=np.float32(0))
    joined = builder.op("cond", pred=flag, blocks=[yes, no])
    builder.block.outputs = [kept, joined]
    sweep(builder.block)
    assert written(builder) == ["exp", "reduce_max", "greater", "cond", "sqrt", "square"]
    builder.block.outputs = [kept]
    sweep(builder.block)
    assert written(builder) == ["exp"]


def test_one_constant_for_all_that_read_it() -> None:
    builder = Writer()
    x = builder.x(1, 3, 5, 5)
    builder.block.outputs = [builder.conv(x, W), builder.op("exp", x=builder.conv(x, W.copy()))]
    model = model_of(builder)
    weights = model.program_weights.memory
    assert [len(store) for store in weights.values()] == [64 + 64 + W.nbytes]


@pytest.mark.parametrize(
    ("seen", "hidden", "fuses"),
    [(np.tri(5, dtype=bool), -1e9, True), (np.tri(5, dtype=bool), -10.0, False),
     (np.eye(5, dtype=bool)[::-1] & np.tri(5, dtype=bool), -1e9, False)],
)  # fmt: skip
def test_attention_of_what_is_seen(seen: np.ndarray, hidden: float, fuses: bool) -> None:
    """A constant mask by `select`; where a row sees nothing, or little is hidden, it stays."""
    builder = Writer(8)
    query, key, value = (builder.x(1, 2, 5, 4, name=name) for name in ("q", "k", "v"))
    scores = builder.op("matmul", x=query, y=key, transpose_y=True)
    scores = builder.op("mul", x=scores, y=np.float32(0.5))
    masked = builder.op("select", cond=seen[None, None], a=scores, b=np.float32([hidden]))
    result = builder.op("matmul", x=builder.op("softmax", x=masked, axis=-1), y=value)
    builder.block.outputs = [result]
    inputs = {name: some(1, 2, 5, 4, seed=place) for place, name in enumerate("qkv")}
    plain = checked(model_of(builder))
    right = results(plain, inputs, [result.name])
    fuse(builder.block, 8)
    kinds = [op.op for op in builder.block.operations]
    assert ("scaled_dot_product_attention" in kinds) == fuses
    problems = results(checked(model_of(builder)), inputs, [result.name])
    np.testing.assert_allclose(problems[0], right[0], 1e-5, 1e-6)
