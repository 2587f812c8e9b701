"""Shapes that are computed from sizes that vary; onnxruntime is the oracle at several sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import mlferry
from mlferry.errors import ConversionError

RNG = np.random.default_rng(17)
R = mlferry.RangeDim
node = helper.make_node


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


class Row(NamedTuple):
    """A network from x to y.

    Attributes:
        nodes: of the network.
        shape: of x, with ranges.
        sizes: the shapes of x that are compared.
        constants: by name.
        opset: of the network.
    """

    nodes: Sequence[onnx.NodeProto]
    shape: tuple[Any, ...]
    sizes: Sequence[tuple[int, ...]]
    constants: dict[str, Any] = {}
    opset: int = 17


def integers(**named: Any) -> dict[str, np.ndarray]:
    return {name: np.array(value, np.int64) for name, value in named.items()}


IMAGE, IMAGES = (1, 3, R(4, 40), R(4, 40)), [(1, 3, 8, 12), (1, 3, 9, 13), (1, 3, 30, 7)]
TEXT, TEXTS = (1, R(1, 20), 8), [(1, 1, 8), (1, 5, 8), (1, 20, 8)]
BOTH, MANY = (R(1, 4), R(1, 20), 8), [(1, 5, 8), (3, 1, 8), (4, 20, 8)]
BOUNDS = integers(zero=[0], one=[1], two=[2], three=[3], four=[4])


def to_size_of_another(**attributes: Any) -> Row:
    """What PyTorch writes for F.interpolate(p, size=x.shape[-2:]): FPN, DeepLab, face detectors."""
    nodes = [
        node("MaxPool", ["x"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", ["x"], ["sx"]),
        node("Slice", ["sx", "two", "four", "zero"], ["hw"]),
        node("Shape", ["p"], ["sp"]),
        node("Slice", ["sp", "zero", "two", "zero"], ["nc"]),
        node("Cast", ["hw"], ["hw64"], to=7),
        node("Concat", ["nc", "hw64"], ["size"], axis=0),
        node("Resize", ["p", "", "", "size"], ["u"], **attributes),
        node("Concat", ["x", "u"], ["c"], axis=1),
        node("Conv", ["c", "w"], ["y"]),
    ]
    return Row(nodes, IMAGE, IMAGES, {**BOUNDS, "w": normal(2, 6, 1, 1)})


def resized(scales: Any = None, sizes: Any = None, opset: int = 17, **attributes: Any) -> Row:
    name = "scales" if sizes is None else "sizes"
    names = ["x", "", "scales"] if sizes is None else ["x", "", "", "sizes"]
    array = np.array(scales, np.float32) if sizes is None else np.array(sizes, np.int64)
    return Row([node("Resize", names, ["y"], **attributes)], IMAGE, IMAGES, {name: array}, opset)


def headed(name: str, perm: list[int]) -> list[onnx.NodeProto]:
    return [
        node("MatMul", ["n", f"w{name}"], [f"{name}0"]),
        node("Reshape", [f"{name}0", "split"], [f"{name}1"]),
        node("Transpose", [f"{name}1"], [f"{name}2"], perm=perm),
    ]


TRANSFORMER = [
    node("LayerNormalization", ["x", "g", "h"], ["n"]),
    *headed("q", [0, 2, 1, 3]),
    *headed("k", [0, 2, 3, 1]),
    *headed("v", [0, 2, 1, 3]),
    node("MatMul", ["q2", "k2"], ["s"]),
    node("Softmax", ["s"], ["t"]),
    node("MatMul", ["t", "v2"], ["o"]),
    node("Transpose", ["o"], ["o1"], perm=[0, 2, 1, 3]),
    node("Reshape", ["o1", "joined"], ["o2"]),
    node("Add", ["o2", "x"], ["y"]),
]
MATRICES = {f"w{name}": normal(8, 8) for name in "qkv"} | {"g": normal(8), "h": normal(8)}
# The same with the shapes computed, as PyTorch's exporter writes x.view(b, t, 2, 4).
VIEWED = [
    node("Shape", ["x"], ["sx"]),
    node("Gather", ["sx", "i0"], ["b"]),
    node("Gather", ["sx", "i1"], ["t_"]),
    node("Unsqueeze", ["b", "zero"], ["b1"]),
    node("Unsqueeze", ["t_", "zero"], ["t1"]),
    node("Concat", ["b1", "t1", "two", "four"], ["split"], axis=0),
    node("Concat", ["b1", "t1", "eight"], ["joined"], axis=0),
    *TRANSFORMER,
]
ATTENTION = [
    node("Attention", ["x", "w", "b"], ["a"], num_heads=2, unidirectional=1,
         domain="com.microsoft"),
    node("SkipLayerNormalization", ["a", "x", "g", "h"], ["y"], domain="com.microsoft"),
]  # fmt: skip

ROWS: dict[str, Row] = {
    "nearest to the size of another": to_size_of_another(
        mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    ),
    "linear to the size of another": to_size_of_another(mode="linear"),
    "linear to the corners of another": to_size_of_another(
        mode="linear", coordinate_transformation_mode="align_corners"
    ),
    "linear to the size of another, as PyTorch": to_size_of_another(
        mode="linear", coordinate_transformation_mode="pytorch_half_pixel"
    ),
    "cubic to the size of another": to_size_of_another(
        mode="cubic", coordinate_transformation_mode="pytorch_half_pixel"
    ),
    "cubic, what is outside left out": to_size_of_another(
        mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1
    ),
    "linear to a fixed size": resized(sizes=[1, 3, 16, 11], mode="linear"),
    "nearest to a fixed size": resized(sizes=[1, 3, 16, 11], nearest_mode="ceil"),
    "cubic to a fixed size": resized(sizes=[1, 3, 9, 5], mode="cubic"),
    "linear to one pixel": resized(
        sizes=[1, 3, 1, 1], mode="linear", coordinate_transformation_mode="pytorch_half_pixel"
    ),
    "corners to one pixel": resized(
        sizes=[1, 3, 1, 1], mode="linear", coordinate_transformation_mode="align_corners"
    ),
    "not larger than a size": resized(
        sizes=[20, 20], opset=18, mode="linear", axes=[2, 3],
        keep_aspect_ratio_policy="not_larger",
    ),
    "cubic by two": resized([1, 1, 2, 2], mode="cubic"),
    "linear by a fraction": resized([1, 1, 1.5, 0.6], mode="linear"),
    "nearest by a fraction": resized(
        [1, 1, 1.5, 0.6], coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    ),
    "nearest by a fraction, rounded": resized([1, 1, 0.5, 1.5]),
    "corners by two": resized(
        [1, 1, 2, 2], mode="linear", coordinate_transformation_mode="align_corners"
    ),
    "symmetric by a fraction": resized(
        [1, 1, 1.3, 0.7], opset=19, mode="linear",
        coordinate_transformation_mode="half_pixel_symmetric",
    ),
    "upsample before opset 10": Row(
        [node("Upsample", ["x", "s"], ["y"], mode="linear")], IMAGE, IMAGES,
        {"s": np.float32([1, 1, 1.5, 2])}, 9,
    ),
    "scales computed of sizes": Row(
        [
            node("Shape", ["x"], ["s"]), node("Cast", ["s"], ["f"], to=1),
            node("Div", ["wanted", "f"], ["q"]), node("Resize", ["x", "", "q"], ["y"],
                                                     mode="linear"),
        ],
        IMAGE, IMAGES, {"wanted": np.float32([1, 3, 32, 32])},
    ),
    "sizes by twos": Row(
        [
            node("Shape", ["x"], ["s"]), node("Mul", ["s", "k"], ["d"]),
            node("Resize", ["x", "", "", "d"], ["r"], mode="linear"),
            node("Conv", ["r", "w"], ["y"]),
        ],
        IMAGE, IMAGES, {**integers(k=[1, 1, 2, 3]), "w": normal(4, 3, 2, 2)},
    ),
    "a product of four axes": Row(
        [node("MatMul", ["x", "w"], ["a"]), node("ReduceMax", ["a"], ["m"], keepdims=0),
         node("Sub", ["m", "k"], ["l"]), node("Max", ["a", "l"], ["y"])],
        (1, 1, R(1, 30), 8), [(1, 1, 1, 8), (1, 1, 7, 8)],
        {"w": normal(8, 5), "k": np.float32(0.3)},
    ),
    "a product of five axes": Row(
        [node("MatMul", ["x", "w"], ["y"])], (1, 2, 1, R(1, 30), 8),
        [(1, 2, 1, 1, 8), (1, 2, 1, 7, 8)], {"w": normal(8, 5)},
    ),
    "a product with a vector": Row([node("MatMul", ["x", "w"], ["y"])], TEXT, TEXTS,
                                   {"w": normal(8)}),
    "a transformer of any length": Row(
        TRANSFORMER, TEXT, TEXTS, {**MATRICES, **integers(split=[0, 0, 2, 4], joined=[0, 0, 8])}
    ),
    "a transformer of any length and batch": Row(
        TRANSFORMER, BOTH, MANY, {**MATRICES, **integers(split=[0, 0, 2, 4], joined=[0, 0, 8])}
    ),
    "a transformer, -1 for the length": Row(
        TRANSFORMER, BOTH, MANY, {**MATRICES, **integers(split=[0, -1, 2, 4], joined=[0, 0, 8])}
    ),
    "a transformer that views": Row(
        VIEWED, BOTH, MANY, {**MATRICES, **BOUNDS, **integers(i0=0, i1=1, eight=[8])}
    ),
    "attention of any length and batch": Row(
        ATTENTION, BOTH, MANY,
        {"w": normal(8, 24), "b": normal(24), "g": normal(8), "h": normal(8)},
    ),
    "attention of as many words as a mask counts": Row(
        [node("ReduceSum", ["x", "two"], ["r"], keepdims=0),
         node("Greater", ["r", "nought"], ["k"]),
         node("Cast", ["k"], ["k32"], to=6), node("ReduceSum", ["k32", "one"], ["n"], keepdims=0),
         node("Attention", ["x", "w", "b", "n"], ["y"], num_heads=2, domain="com.microsoft")],
        BOTH, MANY,
        {**BOUNDS, "nought": np.float32(0), "w": normal(8, 24), "b": normal(24)},
    ),
    "a recognizer of text": Row(  # its height goes, its width stays
        [
            node("Conv", ["x", "w"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
            node("AveragePool", ["c"], ["p"], kernel_shape=[4, 1]),
            node("Squeeze", ["p", "two"], ["q"]),
            node("Transpose", ["q"], ["t"], perm=[0, 2, 1]),
            node("MatMul", ["t", "m"], ["k"]),
            node("Shape", ["k"], ["s"]),
            node("Slice", ["s", "zero", "two"], ["bt"]),
            node("Concat", ["bt", "parts"], ["r"], axis=0),
            node("Reshape", ["k", "r"], ["h"]),
            node("Transpose", ["h"], ["z"], perm=[2, 0, 3, 1, 4]),
            node("Slice", ["z", "zero", "one", "zero"], ["f"]),
            node("Squeeze", ["f", "zero"], ["y"]),
        ],
        (1, 3, 8, R(32, 128)), [(1, 3, 8, 32), (1, 3, 8, 101)],
        {**BOUNDS, "w": normal(6, 3, 3, 3), "m": normal(6, 24), **integers(parts=[3, 2, 4])},
    ),
    "groups of images": Row(
        [node("Reshape", ["x", "g"], ["a"]), node("InstanceNormalization", ["a", "s", "b"], ["n"]),
         node("Shape", ["x"], ["sx"]), node("Reshape", ["n", "sx"], ["y"])],
        (R(1, 3), 4, R(2, 9), R(2, 9)), [(1, 4, 3, 5), (3, 4, 9, 2)],
        {**integers(g=[0, 2, -1]), "s": normal(2), "b": normal(2)},
    ),
    "group normalization": Row(
        [node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)],
        (R(1, 3), 4, R(2, 9), R(2, 9)), [(1, 4, 3, 5), (3, 4, 9, 2)],
        {"s": normal(4), "b": normal(4)}, 21,
    ),
    "group normalization of lines": Row(
        [node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)],
        (1, 4, R(2, 9)), [(1, 4, 3), (1, 4, 9)], {"s": normal(4), "b": normal(4)}, 21,
    ),
    "the first entries": Row(
        [node("Slice", ["x", "zero", "n", "one"], ["y"])], TEXT, TEXTS, {**BOUNDS, "n": [3]}
    ),
    "entries between": Row(
        [node("Slice", ["x", "a", "n", "one", "two"], ["y"])], (1, R(6, 12), 8),
        [(1, 6, 8), (1, 12, 8)], {**BOUNDS, **integers(a=[-5], n=[9])},
    ),
    **{
        f"a crop {mode} {corners} to {size}": Row(
            [node("Resize", ["x", "roi", "", "size"], ["y"], mode=mode, extrapolation_value=0.5,
                  coordinate_transformation_mode="tf_crop_and_resize")], IMAGE, IMAGES,
            {"roi": np.float32([0, 0, *corners[:2], 1, 1, *corners[2:]]),
             **integers(size=[1, 3, *size])})
        for mode in ("linear", "nearest", "cubic")
        for corners, size in (((0.1, 0.2, 0.8, 0.9), (5, 5)), ((-0.3, 0.4, 0.9, 1.2), (3, 1)))
    },
    **{
        f"regions of images {transform}": Row(
            [node("RoiAlign", ["x", "rois", "which"], ["y"], output_height=3, output_width=2,
                  sampling_ratio=2, spatial_scale=0.9, coordinate_transformation_mode=transform)],
            IMAGE, IMAGES,
            {"rois": np.float32([[0, 1, 6, 5.5], [-2, 3, 4.2, 9], [3, 3, 3.3, 3.1]]),
             **integers(which=[0, 0, 0])})
        for transform in ("half_pixel", "output_half_pixel")
    },
    "largest values of regions": Row(
        [node("MaxRoiPool", ["x", "rois"], ["y"], pooled_shape=[3, 2], spatial_scale=0.9)],
        IMAGE, IMAGES,
        {"rois": np.float32([[0, 0, 1, 6, 5.5], [0, -2, 3, 4.2, 19], [0, 3, 3, 3.3, 3.1]])},
    ),
    "entries backwards from one on": Row(
        [node("Slice", ["x", "a", "n", "one", "m"], ["y"])], TEXT, TEXTS,
        {**BOUNDS, **integers(a=[4], n=[-100], m=[-1])},
    ),
    **{
        f"entries backwards from {a} to {n} by {m}": Row(
            [node("Slice", ["x", "a", "n", "one", "m"], ["y"])], (1, R(6, 20), 8),
            [(1, 6, 8), (1, 7, 8), (1, 20, 8)],
            {**BOUNDS, **integers(a=[a], n=[n], m=[m])},
        )
        for a, n, m in ((-2, 0, -1), (100, 1, -2), (4, -(2**63) + 1, -3), (-1, -5, -1))
    },
    **{  # going backward, onnxruntime starts with the first entry where the start is before it
        f"entries backwards from {a}, before the axis, to {n} by {m}": Row(
            [node("Slice", ["x", "a", "n", "one", "m"], ["y"])], (1, R(2, 20), 8),
            [(1, 2, 8), (1, 4, 8)], {**BOUNDS, **integers(a=[a], n=[n], m=[m])},
        )
        for a, n, m in ((-9, -30, -1), (-(2**31), -(2**63) + 1, -2), (-4, -100, -3))
    },
    "entries backwards from before the axis, as computed": Row(
        [node("Shape", ["x"], ["s"]), node("Slice", ["s", "one", "two"], ["t"]),
         node("Mul", ["t", "k"], ["b"]), node("Slice", ["x", "b", "n", "one", "m"], ["y"])],
        (1, R(2, 20), 8), [(1, 2, 8), (1, 7, 8)],
        {**BOUNDS, **integers(k=[-3], n=[-100], m=[-1])},
    ),
    "extents backwards from before the first": Row(
        [node("Shape", ["x"], ["s"]), node("Slice", ["s", "a", "n", "zero", "m"], ["t"]),
         node("Concat", ["t", "m", "two"], ["r"], axis=0), node("Reshape", ["x", "r"], ["y"])],
        (R(1, 3), 4, 2), [(1, 4, 2), (3, 4, 2)], {**BOUNDS, **integers(a=[-9], n=[-100], m=[-1])},
    ),
    "constants backwards from before the first": Row(
        [node("Slice", ["table", "a", "n", "zero", "m"], ["t"]), node("Add", ["x", "t"], ["y"])],
        TEXT, TEXTS, {**BOUNDS, "table": normal(5, 8), **integers(a=[-9], n=[-100], m=[-1])},
    ),
    "entries backwards from the middle": Row(
        [node("Shape", ["x"], ["s"]), node("Slice", ["s", "one", "two"], ["t"]),
         node("Div", ["t", "two"], ["h"]), node("Slice", ["x", "h", "n", "one", "m"], ["y"])],
        (1, R(2, 20), 8), [(1, 2, 8), (1, 7, 8), (1, 20, 8)],
        {**BOUNDS, **integers(n=[-100], m=[-1])},
    ),
    "parts whose sizes are computed": Row(
        [node("Shape", ["x"], ["s"]), node("Slice", ["s", "one", "two"], ["t"]),
         node("Div", ["t", "two"], ["h"]), node("Sub", ["t", "h"], ["r"]),
         node("Concat", ["h", "r"], ["p"], axis=0),
         node("Split", ["x", "p"], ["z", "v"], axis=1), node("Concat", ["v", "z"], ["y"], axis=1)],
        (1, R(4, 20), 8), [(1, 4, 8), (1, 7, 8)], BOUNDS,
    ),
    **{
        f"antialias {mode} {factors} {outside}": resized(
            [1, 1, *factors], opset=18, mode=mode, antialias=1, exclude_outside=outside
        )
        for mode in ("linear", "cubic") for factors in ((0.5, 0.5), (0.3, 1.7))
        for outside in (0, 1)
    },
    "antialias to a size": resized(
        sizes=[1, 3, 5, 3], opset=18, mode="linear", antialias=1
    ),
    "entries backwards": Row(
        [node("Slice", ["x", "a", "n", "one", "a"], ["y"])], TEXT, TEXTS,
        {**BOUNDS, **integers(a=[-1], n=[-(2**63) + 1])},
    ),
    "half of the entries": Row(
        [node("Shape", ["x"], ["s"]), node("Gather", ["s", "i1"], ["t"]),
         node("Div", ["t", "k"], ["h"]), node("Unsqueeze", ["h", "zero"], ["e"]),
         node("Slice", ["x", "zero", "e", "one"], ["y"])],
        (1, R(2, 20), 8), [(1, 2, 8), (1, 7, 8), (1, 20, 8)], {**BOUNDS, **integers(i1=1, k=2)},
    ),
    "a table of positions": Row(
        [node("Shape", ["x"], ["s"]), node("Slice", ["s", "one", "two"], ["t"]),
         node("Slice", ["table", "zero", "t", "zero"], ["p"]), node("Add", ["x", "p"], ["y"])],
        TEXT, TEXTS, {**BOUNDS, "table": normal(30, 8)},
    ),
    "positions in a range": Row(
        [node("Shape", ["x"], ["s"]), node("Gather", ["s", "i1"], ["t"]),
         node("Range", ["i0", "t", "i1"], ["r"]), node("Gather", ["table", "r"], ["p"]),
         node("Add", ["x", "p"], ["y"])],
        TEXT, TEXTS, {**integers(i0=0, i1=1), "table": normal(30, 8)},
    ),
    "a token before the others": Row(
        [node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["b"]),
         node("Concat", ["b", "m", "m"], ["e"], axis=0), node("Expand", ["token", "e"], ["k"]),
         node("Concat", ["k", "x"], ["y"], axis=1)],
        BOTH, MANY, {**BOUNDS, **integers(m=[1]), "token": normal(1, 1, 8)},
    ),
    "expanded as PyTorch writes it": Row(  # v.expand(b, t, -1)
        [node("Shape", ["x"], ["s"]), node("Gather", ["s", "i0"], ["b"]),
         node("Gather", ["s", "i1"], ["t"]), node("Reshape", ["b", "m"], ["b1"]),
         node("Unsqueeze", ["t", "zero"], ["t1"]),
         node("Concat", ["b1", "t1", "m"], ["e0"], axis=0),
         node("Equal", ["e0", "m3"], ["q"]), node("Where", ["q", "one3", "e0"], ["e"]),
         node("Expand", ["v", "e"], ["k"]), node("MatMul", ["k", "w"], ["l"]),
         node("Concat", ["x", "l"], ["y"], axis=2)],
        BOTH, MANY,
        {**BOUNDS, **integers(i0=0, i1=1, m=[-1], m3=[-1, -1, -1], one3=[1, 1, 1]),
         "v": normal(1, 1, 6), "w": normal(6, 2)},
    ),
    "expanded to the shape": Row(
        [node("Shape", ["x"], ["s"]), node("Expand", ["v", "s"], ["e"]),
         node("Mul", ["e", "x"], ["y"])], BOTH, MANY, {"v": normal(8)},
    ),
    "expanded by a constant": Row(
        [node("Expand", ["x", "s"], ["y"])], (1, 1, R(1, 9)), [(1, 1, 1), (1, 1, 9)],
        integers(s=[2, 5, 1]),
    ),
    "filled": Row(
        [node("Shape", ["x"], ["s"]),
         node("ConstantOfShape", ["s"], ["o"], value=numpy_helper.from_array(np.float32([2]))),
         node("Add", ["o", "x"], ["a"]), node("MatMul", ["a", "w"], ["y"])],
        BOTH, MANY, {"w": normal(8, 3)},
    ),
    "causal": Row(
        [node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("MatMul", ["x", "t"], ["m"]),
         node("Trilu", ["m"], ["y"], upper=0)], TEXT, TEXTS,
    ),
    "tiled by the length": Row(
        [node("Shape", ["x"], ["s"]), node("Slice", ["s", "one", "two"], ["t"]),
         node("Concat", ["one", "t", "two"], ["r"], axis=0), node("Tile", ["v", "r"], ["y"])],
        TEXT, TEXTS, {**BOUNDS, "v": normal(1, 2, 4)},
    ),
    "padded to a multiple": Row(
        [node("Shape", ["x"], ["s"]), node("Slice", ["s", "one", "two"], ["t"]),
         node("Mod", ["t", "four"], ["m"]), node("Sub", ["four", "m"], ["a"]),
         node("Concat", ["zero", "zero", "zero", "zero", "a", "zero"], ["p"], axis=0),
         node("Pad", ["x", "p", "v"], ["y"])],
        TEXT, TEXTS, {**BOUNDS, "v": np.float32(-1.5)},
    ),
    "mirrored by a part": Row(
        [node("Shape", ["x"], ["s"]), node("Slice", ["s", "one", "two"], ["t"]),
         node("Div", ["t", "two"], ["a"]),
         node("Concat", ["zero", "one", "zero", "zero", "a", "zero"], ["p"], axis=0),
         node("Pad", ["x", "p"], ["y"], mode="reflect")],
        (1, R(3, 20), 8), [(1, 3, 8), (1, 20, 8)], BOUNDS,
    ),
    "mirrored along three axes": Row(
        [node("Pad", ["x", "p"], ["y"], mode="reflect")], (R(2, 4), R(3, 9), R(3, 9)),
        [(2, 3, 9), (4, 9, 5)], integers(p=[1, 2, 0, 1, 0, 2]),
    ),
    "equal parts": Row(
        [node("Split", ["x"], ["a", "b"], axis=1), node("Sub", ["b", "a"], ["y"])],
        (1, R(2, 20, 2), 8), [(1, 2, 8), (1, 20, 8)],
    ),
    "edges repeated by a part": Row(
        [node("Shape", ["x"], ["s"]), node("Slice", ["s", "one", "two"], ["t"]),
         node("Concat", ["zero", "t", "zero", "zero", "two", "zero"], ["p"], axis=0),
         node("Pad", ["x", "p"], ["y"], mode="edge")], TEXT, TEXTS, BOUNDS,
    ),
    "the largest half": Row(
        [node("Shape", ["x"], ["s"]), node("Slice", ["s", "one", "two"], ["t"]),
         node("Div", ["t", "two"], ["k"]), node("TopK", ["x", "k"], ["y", "i"], axis=1)],
        (1, R(2, 20), 8), [(1, 2, 8), (1, 20, 8)], BOUNDS,
    ),
    "the three largest": Row(
        [node("TopK", ["x", "three"], ["v", "y"], axis=1)],
        (1, R(3, 20), 8), [(1, 3, 8), (1, 20, 8)], BOUNDS,
    ),
    "one of the length": Row(
        [node("Shape", ["x"], ["s"]), node("Gather", ["s", "i1"], ["t"]),
         node("OneHot", ["j", "t", "v"], ["o"]), node("MatMul", ["o", "x"], ["y"])],
        (1, R(4, 20), 8), [(1, 4, 8), (1, 20, 8)],
        {**integers(i1=1, j=[[0, -1, 3]]), "v": np.float32([-0.5, 2])},
    ),
    "one of the length along the first axis": Row(
        [node("Shape", ["x"], ["s"]), node("Gather", ["s", "i1"], ["t"]),
         node("OneHot", ["j", "t", "v"], ["y"], axis=0)],
        (1, R(4, 20), 8), [(1, 4, 8), (1, 20, 8)],
        {**integers(i1=1, j=[[0, -1, 3]]), "v": np.float32([-0.5, 2])},
    ),
    "a number of all": Row(
        [node("Size", ["x"], ["n"]), node("Cast", ["n"], ["f"], to=1),
         node("ReduceSum", ["x"], ["t"], keepdims=0), node("Div", ["t", "f"], ["y"])],
        BOTH, MANY,
    ),
    "gathered from the end": Row(
        [node("Gather", ["x", "i"], ["y"], axis=1)], (1, R(3, 20), 8), [(1, 3, 8), (1, 20, 8)],
        integers(i=[[-1, 0], [1, -2]]),
    ),
    "the last of the best": Row(
        [node("ArgMax", ["x"], ["y"], axis=1, select_last_index=1)], TEXT, TEXTS
    ),
    "lines of maps": Row(
        [node("Shape", ["x"], ["s"]), node("Gather", ["s", "i0"], ["n"]),
         node("Unsqueeze", ["n", "zero"], ["n1"]), node("Concat", ["n1", "c", "m"], ["r"], axis=0),
         node("Reshape", ["x", "r"], ["f"]), node("Transpose", ["f"], ["t"], perm=[0, 2, 1]),
         node("MatMul", ["t", "w"], ["y"])],
        (R(1, 3), 4, R(2, 9), R(2, 9)), [(1, 4, 3, 5), (3, 4, 9, 2)],
        {**BOUNDS, **integers(i0=0, c=[4], m=[-1]), "w": normal(4, 5)},
    ),
    "windows of maps": Row(  # as transformers of images cut them: two reshapes and a transpose
        [node("Shape", ["x"], ["s"]), node("Slice", ["s", "one", "two"], ["h"]),
         node("Div", ["h", "two"], ["h2"]),
         node("Concat", ["h2", "two", "four"], ["r"], axis=0), node("Reshape", ["x", "r"], ["a"]),
         node("Transpose", ["a"], ["t"], perm=[1, 0, 2]), node("MatMul", ["t", "w"], ["y"])],
        (1, R(2, 20, 2), 4), [(1, 2, 4), (1, 6, 4)], {**BOUNDS, "w": normal(4, 5)},
    ),
}  # fmt: skip


def model(row: Row) -> onnx.ModelProto:
    names: list[Any] = [n if isinstance(n, int) else f"d{i}" for i, n in enumerate(row.shape)]
    graph = helper.make_graph(
        list(row.nodes),
        "g",
        [helper.make_tensor_value_info("x", 1, names)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in row.constants.items()],
    )
    opsets = [helper.make_opsetid("", row.opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("name", list(ROWS))
def test_at_several_sizes(name: str, library: Callable[[str], Any]) -> None:
    row = ROWS[name]
    network = model(row)
    session = library("onnxruntime").InferenceSession(network.SerializeToString())
    converted = mlferry.convert(network, inputs=[mlferry.TensorType(shape=row.shape)])
    for shape in row.sizes:
        x = RNG.normal(size=shape).astype(np.float32)
        (expected,) = session.run(None, {"x": x})
        (actual,) = converted.predict({"x": x}).values()
        assert actual.shape == (expected.shape or (1,))
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", list(ROWS))
def test_at_one_size(name: str, library: Callable[[str], Any]) -> None:
    """The same networks of a fixed size."""
    row = ROWS[name]
    network, shape = model(row), row.sizes[-1]
    session = library("onnxruntime").InferenceSession(network.SerializeToString())
    converted = mlferry.convert(network, inputs=[mlferry.TensorType(shape=shape)])
    x = RNG.normal(size=shape).astype(np.float32)
    (expected,) = session.run(None, {"x": x})
    (actual,) = converted.predict({"x": x}).values()
    assert actual.shape == (expected.shape or (1,))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-5)


def test_an_image_as_large_as_the_one_given() -> None:
    """The size of a result that is resized to the size of the input is known at every size."""
    row = to_size_of_another(mode="linear")
    network = model(row._replace(constants={**row.constants, "w": normal(3, 6, 1, 1)}))
    image = mlferry.ImageType(shape=(1, 3, R(8, 64), R(8, 32)))
    converted = mlferry.convert(network, inputs=[image], outputs=[mlferry.ImageType(name="y")])
    sizes = converted.get_spec().description.output[0].type.imageType.imageSizeRange
    assert (sizes.heightRange.upperBound, sizes.widthRange.upperBound) == (64, 32)
    picture = np.asarray(converted.predict({"x": np.zeros((9, 20, 3), np.uint8)})["y"])
    assert picture.shape[:2] == (9, 20)


# What needs a fixed size, and a part of its reason.
REFUSED: dict[str, tuple[Row, str]] = {
    "a crop by factors": (
        Row([node("Resize", ["x", "roi", "factors"], ["y"], mode="linear",
                  coordinate_transformation_mode="tf_crop_and_resize")], IMAGE, IMAGES,
            {"roi": np.float32([0, 0, 0.1, 0.2, 1, 1, 0.8, 0.9]),
             "factors": np.float32([1, 1, 0.5, 0.5])}),
        "is flexible",
    ),
    "nearest entries of half pixels, symmetric": (
        resized([1, 1, 0.6, 0.6], opset=19, mode="nearest", nearest_mode="floor",
                coordinate_transformation_mode="half_pixel_symmetric"),
        "double precision",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_needs_a_fixed_size_says_so(name: str) -> None:
    """The line that it says converts."""
    row, reason = REFUSED[name]
    network = model(row)
    described = [mlferry.TensorType(shape=row.shape)]
    with pytest.raises(ConversionError, match="the size that varies is the cause") as caught:
        mlferry.convert(network, inputs=described)
    assert reason in str(caught.value)
    written = str(caught.value).rsplit("inputs=", 1)[1]
    mlferry.convert(network, inputs=eval(written, {"mlferry": mlferry}))


def test_other_causes_are_not_blamed_on_the_size() -> None:
    network = model(Row([node("LRN", ["x"], ["y"], size=3)], TEXT, TEXTS))
    with pytest.raises(ConversionError, match="rank 3") as caught:
        mlferry.convert(network, inputs=[mlferry.TensorType(shape=TEXT)])
    assert "the cause" not in str(caught.value)
