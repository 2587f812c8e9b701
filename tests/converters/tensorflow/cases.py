"""One row an op: a function of TensorFlow and its inputs; eager TensorFlow is the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

RNG = np.random.default_rng(7)


class Case(NamedTuple):
    """What a row says.

    Attributes:
        ops: the ops that it is there for.
        call: takes the tensorflow module and the inputs.
        given: arrays.
        tolerance: of the difference, relative to the largest value.
    """

    ops: str
    call: Callable[..., Any]
    given: tuple[np.ndarray, ...]
    tolerance: float = 1e-5


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return RNG.uniform(0.2, 2.0, shape).astype(np.float32)


def whole(*shape: int, least: int = -9, most: int = 9) -> np.ndarray:
    return RNG.integers(least, most + 1, shape).astype(np.int32)


def truth(*shape: int) -> np.ndarray:
    return RNG.integers(0, 2, shape).astype(bool)


IMAGE, WIDE = normal(2, 6, 7, 3), normal(1, 9, 8, 4)
VOLUME = normal(1, 5, 6, 4, 2)
GROUPED = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 2, 1, 6)
MATRIX, VECTOR = normal(4, 5), normal(5)
CASES: dict[str, Case] = {}


def row(
    name: str, ops: str, call: Callable[..., Any], *inputs: np.ndarray, tol: float = 1e-5
) -> None:
    assert name not in CASES, name
    CASES[name] = Case(ops, call, inputs, tol)


# ---- value by value --------------------------------------------------------------------

for _op in ("Abs", "Exp", "Neg", "Relu", "Relu6", "Sigmoid", "Tanh", "Softplus", "Softsign", "Elu",
            "Selu", "Ceil", "Floor", "Rint", "Sign", "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh",
            "Asinh", "Erf", "Erfc", "Square", "Expm1", "OnesLike", "ZerosLike", "L2Loss",
            "LeakyRelu"):  # fmt: skip
    _name = "features" if _op in ("Relu", "Relu6", "Softplus", "Softsign", "Elu", "Selu",
                                  "LeakyRelu") else "t" if _op == "L2Loss" else "x"  # fmt: skip
    row(_op, _op, lambda tf, x, o=_op, n=_name: getattr(tf.raw_ops, o)(**{n: x}), MATRIX)
    if _op in ("Relu", "Tanh", "Square"):
        row(f"{_op} of an image", _op,
            lambda tf, x, o=_op, n=_name: getattr(tf.raw_ops, o)(**{n: x}), IMAGE)  # fmt: skip
for _op in ("Log", "Sqrt", "Rsqrt", "Reciprocal", "Log1p"):
    row(_op, _op, lambda tf, x, o=_op: getattr(tf.raw_ops, o)(x=x), positive(3, 4))
for _op in ("Asin", "Acos", "Atanh"):
    row(_op, _op, lambda tf, x, o=_op: getattr(tf.raw_ops, o)(x=x), normal(3, 4) * 0.2)
row("Acosh", "Acosh", lambda tf, x: tf.math.acosh(x), positive(3, 4) + 1)
row("Round", "Round", lambda tf, x: tf.round(x), np.float32([-1.5, -0.5, 0.5, 1.5, 2.5, 0.3]))
row("Inv", "Inv", lambda tf, x: tf.raw_ops.Inv(x=x), positive(3, 4))
row("LeakyRelu alpha", "LeakyRelu", lambda tf, x: tf.nn.leaky_relu(x, 0.3), IMAGE)

for _op in ("Add", "AddV2", "Sub", "Mul", "Maximum", "Minimum", "RealDiv", "SquaredDifference",
            "FloorDiv", "FloorMod"):  # fmt: skip
    _two = lambda tf, x, y, o=_op: getattr(tf.raw_ops, o)(x=x, y=y)  # noqa: E731
    row(_op, _op, _two, MATRIX, positive(4, 5))
    row(f"{_op}, broadcast", _op, _two, MATRIX, positive(5))
    row(f"{_op} of images", _op, _two, IMAGE, positive(2, 6, 7, 3))
    row(f"{_op} of an image and a vector", _op, _two, IMAGE, positive(3))
for _op in ("Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual"):
    row(_op, _op, lambda tf, x, y, o=_op: getattr(tf.raw_ops, o)(x=x, y=y), whole(4, 5),
        whole(4, 5))  # fmt: skip
for _op in ("LogicalAnd", "LogicalOr"):
    row(_op, _op, lambda tf, x, y, o=_op: getattr(tf.raw_ops, o)(x=x, y=y), truth(4, 5), truth(5))
row("LogicalXor", "NotEqual LogicalAnd", lambda tf, x, y: tf.math.logical_xor(x, y), truth(9),
    truth(9))  # fmt: skip
row("LogicalNot", "LogicalNot", lambda tf, x: tf.logical_not(x), truth(4, 5))
row("Pow", "Pow", lambda tf, x, y: tf.pow(x, y), positive(3, 4), normal(3, 4))
row("Div of integers", "Div", lambda tf, x, y: tf.raw_ops.Div(x=x, y=y), whole(30),
    whole(30, least=1))  # fmt: skip
row("TruncateDiv", "TruncateDiv", lambda tf, x, y: tf.truncatediv(x, y), whole(30),
    whole(30, least=1))  # fmt: skip
row("FloorDiv of integers", "FloorDiv", lambda tf, x, y: x // y, whole(30), whole(30, least=1))
row("TruncateMod", "TruncateMod", lambda tf, x, y: tf.truncatemod(x, y), whole(30),
    whole(30, least=1))  # fmt: skip
row("Mod", "Mod", lambda tf, x, y: tf.raw_ops.Mod(x=x, y=y), whole(30), whole(30, least=1))
ZEROS = np.float32([0, 1, 0, 2, 3])
row("DivNoNan", "DivNoNan", lambda tf, x, y: tf.math.divide_no_nan(x, y), VECTOR, ZEROS)
row("MulNoNan", "MulNoNan", lambda tf, x, y: tf.math.multiply_no_nan(x, y), VECTOR, ZEROS)
row("Xdivy", "Xdivy", lambda tf, x, y: tf.math.xdivy(x, y), ZEROS, positive(5))
row("Xlogy", "Xlogy", lambda tf, x, y: tf.math.xlogy(x, y), ZEROS, positive(5))
row("Xlog1py", "Xlog1py", lambda tf, x, y: tf.math.xlog1py(x, y), ZEROS, positive(5))
row("Atan2", "Atan2", lambda tf, y, x: tf.atan2(y, x), normal(40), normal(40))
row("AddN", "AddN", lambda tf, x, y, z: tf.add_n([x, y, z]), IMAGE, IMAGE * 2, IMAGE - 1)
row("SelectV2", "SelectV2", lambda tf, c, x, y: tf.where(c, x, y), truth(4, 5), MATRIX, VECTOR)
row("Select by rows", "Select", lambda tf, c, x, y: tf.raw_ops.Select(condition=c, x=x, y=y),
    truth(4), MATRIX, MATRIX * 2)  # fmt: skip
row("Select", "Select", lambda tf, c, x, y: tf.raw_ops.Select(condition=c, x=x, y=y),
    truth(2, 6, 7, 3), IMAGE, IMAGE * 2)  # fmt: skip
ODD = np.float32([1, np.nan, np.inf, -np.inf, 0])
row("IsNan", "IsNan", lambda tf, x: tf.math.is_nan(x), ODD)
row("IsInf", "IsInf", lambda tf, x: tf.math.is_inf(x), ODD)
row("IsFinite", "IsFinite", lambda tf, x: tf.math.is_finite(x), ODD)
row("Cast to integers", "Cast", lambda tf, x: tf.cast(x, tf.int32), normal(20) * 5)
row("Cast to bool", "Cast", lambda tf, x: tf.cast(x, tf.bool), whole(20, least=-1, most=1))
row("Cast to floats", "Cast", lambda tf, x: tf.cast(x, tf.float32) / 2, whole(20))
row("ClipByValue", "ClipByValue", lambda tf, x: tf.raw_ops.ClipByValue(
    t=x, clip_value_min=-0.5, clip_value_max=0.3), IMAGE)  # fmt: skip
row("Identity", "Identity IdentityN StopGradient CheckNumerics Snapshot PreventGradient",
    lambda tf, x: tf.identity_n([tf.stop_gradient(tf.debugging.check_numerics(x, "m")) + 1])[0],
    MATRIX)  # fmt: skip
row("BiasAdd", "BiasAdd", lambda tf, x: tf.nn.bias_add(x, np.float32([1, 2, 3])), IMAGE)
row(
    "BiasAdd of a computed bias",
    "BiasAdd",
    lambda tf, x, b: tf.nn.bias_add(x, b),
    IMAGE,
    VECTOR[:3],
)
row("BiasAddV1", "BiasAddV1", lambda tf, x: tf.raw_ops.BiasAddV1(value=x, bias=[1.0, 2, 3]), IMAGE)
row("scalars", "Mul Sum", lambda tf, x: x * tf.reduce_sum(x) + 1, MATRIX)

# ---- convolution, pooling, normalization -----------------------------------------------

K3 = normal(3, 2, 3, 5)
for _pad in ("SAME", "VALID"):
    for _stride in (1, 2):
        row(f"Conv2D {_pad} {_stride}", "Conv2D", lambda tf, x, p=_pad, s=_stride: tf.nn.conv2d(
            x, K3, s, p), IMAGE)  # fmt: skip
    row(f"Conv2D {_pad} dilated", "Conv2D", lambda tf, x, p=_pad: tf.raw_ops.Conv2D(
        input=x, filter=K3, strides=[1] * 4, padding=p, dilations=[1, 2, 3, 1]), IMAGE)  # fmt: skip
    row(
        f"dilated by space to batch {_pad}",
        "SpaceToBatchND BatchToSpaceND",
        lambda tf, x, p=_pad: tf.nn.convolution(x, K3, padding=p, dilations=(2, 2)),
        IMAGE,
    )
    row(f"depthwise {_pad}", "DepthwiseConv2dNative", lambda tf, x, p=_pad: tf.nn.depthwise_conv2d(
        x, normal_kernel, [1, 2, 2, 1], p), IMAGE)  # fmt: skip
    row(f"Conv3D {_pad}", "Conv3D", lambda tf, x, p=_pad: tf.nn.conv3d(
        x, VOLUME_KERNEL, [1, 2, 1, 2, 1], p), VOLUME)  # fmt: skip
    row(f"transposed {_pad}", "Conv2DBackpropInput", lambda tf, x, p=_pad: tf.nn.conv2d_transpose(
        x, normal_kernel.reshape(3, 2, 2, 3), (2, 12, 14, 2) if p == "SAME" else (2, 13, 14, 2),
        2, p), IMAGE)  # fmt: skip
    row(f"transposed volumes {_pad}", "Conv3DBackpropInputV2",
        lambda tf, x, p=_pad: tf.nn.conv3d_transpose(
            x, VOLUME_KERNEL.transpose(0, 1, 2, 4, 3),
            (1, 10, 12, 8, 3) if p == "SAME" else (1, 11, 12, 8, 3), 2, p), VOLUME)  # fmt: skip
    for _kind in ("max", "avg"):
        row(f"{_kind} pool {_pad}", "MaxPool AvgPool", lambda tf, x, p=_pad, k=_kind: getattr(
            tf.nn, f"{k}_pool2d")(x, (3, 2), 2, p), IMAGE)  # fmt: skip
        row(f"{_kind} pool of volumes {_pad}", "MaxPool3D AvgPool3D",
            lambda tf, x, p=_pad, k=_kind: getattr(tf.nn, f"{k}_pool3d")(x, (3, 2, 2), 2, p),
            VOLUME)  # fmt: skip
normal_kernel = normal(3, 2, 3, 2)
VOLUME_KERNEL = normal(3, 2, 2, 2, 3)
row("Conv2D explicit pads", "Conv2D", lambda tf, x: tf.nn.conv2d(
    x, K3, 1, [[0, 0], [1, 2], [0, 1], [0, 0]]), IMAGE)  # fmt: skip
row("Conv2D in groups", "Conv2D", lambda tf, x: tf.nn.conv2d(x, normal_groups, 1, "SAME"), WIDE)
normal_groups = normal(3, 3, 2, 6)
row("transposed, an odd size", "Conv2DBackpropInput", lambda tf, x: tf.nn.conv2d_transpose(
    x, normal_kernel.reshape(3, 2, 2, 3), (2, 11, 13, 2), 2, "SAME"), IMAGE)  # fmt: skip
row("1-D convolution", "Conv2D ExpandDims Squeeze", lambda tf, x: tf.nn.conv1d(
    x, normal_line, 1, "SAME"), normal(2, 9, 3))  # fmt: skip
row("1-D convolution, dilated", "SpaceToBatchND", lambda tf, x: tf.nn.convolution(
    x, normal_line, padding="SAME", dilations=[2]), normal(2, 9, 3))  # fmt: skip
normal_line = normal(3, 3, 4)
row("MaxPoolV2", "MaxPoolV2", lambda tf, x: tf.raw_ops.MaxPoolV2(
    input=x, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="VALID"), IMAGE)  # fmt: skip
row("convolution, bias, activation", "Conv2D BiasAdd Relu", lambda tf, x: tf.nn.relu(
    tf.nn.bias_add(tf.nn.conv2d(x, K3, 1, "SAME"), VECTOR)), IMAGE)  # fmt: skip
row("convolution, factor and shift", "Conv2D Mul AddV2", lambda tf, x: tf.nn.conv2d(
    x, K3, 1, "SAME") * VECTOR + VECTOR[::-1].copy(), IMAGE)  # fmt: skip


def _read_twice(tf: Any, x: Any) -> Any:
    y = tf.nn.conv2d(x, K3, 1, "SAME")
    return y * VECTOR + tf.nn.relu(y)


row("a convolution that two read", "Conv2D", _read_twice, IMAGE)
STATISTICS = (positive(3), normal(3), normal(3), positive(3))
for _op in ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"):
    row(_op, _op, lambda tf, x, o=_op: getattr(tf.raw_ops, o)(
        x=x, scale=STATISTICS[0], offset=STATISTICS[1], mean=STATISTICS[2], variance=STATISTICS[3],
        is_training=False, epsilon=0.01)[0], IMAGE)  # fmt: skip
    row(f"{_op}, its statistics", _op, lambda tf, x, o=_op: list(getattr(tf.raw_ops, o)(
        x=x, scale=STATISTICS[0], offset=STATISTICS[1], mean=STATISTICS[2], variance=STATISTICS[3],
        is_training=False))[:3], IMAGE)  # fmt: skip
row("FusedBatchNormV3 of volumes, its statistics", "FusedBatchNormV3",
    lambda tf, x: list(tf.raw_ops.FusedBatchNormV3(
        x=x, scale=STATISTICS[0][:2], offset=STATISTICS[1][:2], mean=STATISTICS[2][:2],
        variance=STATISTICS[3][:2], is_training=False, data_format="NDHWC"))[:3],
    VOLUME)  # fmt: skip


def _by_its_statistics(tf: Any, x: Any) -> Any:
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=tf.nn.relu(x), scale=STATISTICS[0], offset=STATISTICS[1], mean=STATISTICS[2],
        variance=STATISTICS[3], is_training=False)  # fmt: skip
    return (y - mean) * variance


row("FusedBatchNormV3, computed with its statistics", "FusedBatchNormV3", _by_its_statistics, IMAGE)
row("LRN", "LRN", lambda tf, x: tf.nn.lrn(x, 1, 2.0, 0.3, 0.6), WIDE)
for _axis in (-1, 1):
    row(f"Softmax {_axis}", "Softmax", lambda tf, x, a=_axis: tf.nn.softmax(x, a), IMAGE)
row("Softmax of rows", "Softmax", lambda tf, x: tf.nn.softmax(x), MATRIX)
row("LogSoftmax", "LogSoftmax", lambda tf, x: tf.nn.log_softmax(x), MATRIX)


def _layer_normalization(tf: Any, x: Any) -> Any:
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 1e-3) * STATISTICS[0]


row("layer normalization", "Mean SquaredDifference Rsqrt", _layer_normalization, IMAGE)
row("l2 normalize", "Square Maximum Rsqrt", lambda tf, x: tf.nn.l2_normalize(x, -1), IMAGE)

# ---- products --------------------------------------------------------------------------

row("MatMul", "MatMul", lambda tf, x: x @ MATRIX.T, MATRIX)
row("MatMul of computed matrices", "MatMul", lambda tf, x, y: tf.matmul(x, y, transpose_b=True),
    MATRIX, normal(3, 5))  # fmt: skip
row("MatMul transposed", "MatMul", lambda tf, x: tf.matmul(x, MATRIX, transpose_a=True), MATRIX)
row("BatchMatMulV2", "BatchMatMulV2", lambda tf, x, y: tf.matmul(x, y), normal(2, 3, 4),
    normal(2, 4, 5))  # fmt: skip
row("BatchMatMulV2 adjoint", "BatchMatMulV2", lambda tf, x, y: tf.matmul(x, y, adjoint_a=True),
    normal(2, 1, 4, 3), normal(3, 4, 5))  # fmt: skip
row("BatchMatMul", "BatchMatMul", lambda tf, x, y: tf.raw_ops.BatchMatMul(x=x, y=y),
    normal(2, 3, 4), normal(2, 4, 5))  # fmt: skip
row("BatchMatMulV3", "BatchMatMulV3", lambda tf, x, y: tf.raw_ops.BatchMatMulV3(
    x=x, y=y, Tout=tf.float32), normal(2, 3, 4), normal(2, 4, 5))  # fmt: skip
row("product with a matrix of rank 3", "BatchMatMulV2 Reshape", lambda tf, x: tf.tensordot(
    x, MATRIX.T, 1), normal(2, 3, 5))  # fmt: skip
row("Einsum", "Einsum", lambda tf, x, y: tf.einsum("bqhd,bkhd->bhqk", x, y), normal(1, 3, 2, 4),
    normal(1, 5, 2, 4))  # fmt: skip
row("Cross", "Cross", lambda tf, x, y: tf.linalg.cross(x, y), normal(4, 3), normal(4, 3))
row("flattened convolution", "Reshape MatMul", lambda tf, x: tf.reshape(
    tf.nn.conv2d(x, K3, 1, "VALID"), (2, -1)) @ FLAT, IMAGE)  # fmt: skip
FLAT = normal(4 * 6 * 5, 4)
row(
    "flattened, then scaled",
    "Reshape Mul MatMul",
    lambda tf, x: (
        (tf.reshape(tf.nn.relu(tf.nn.conv2d(x, K3, 1, "VALID")), (-1, 120)) * FLAT[:, 0] + 1) @ FLAT
    ),
    IMAGE,
)

# ---- reductions ------------------------------------------------------------------------

for _op in ("Sum", "Mean", "Max", "Min", "Prod", "EuclideanNorm"):
    for _axes in ([1, 2], [3], [0], [-1, 1], [0, 1, 2, 3], [2]):
        for _keep in (True, False):
            if _op in ("Sum", "EuclideanNorm") or (_axes in ([1, 2], [3]) and _keep):
                row(f"{_op} {_axes} {_keep}", _op,
                    lambda tf, x, o=_op, a=tuple(_axes), k=_keep: getattr(tf.raw_ops, o)(
                        input=tf.nn.relu(tf.nn.conv2d(x, K3, 1, "SAME")), axis=list(a),
                        keep_dims=k), IMAGE, tol=1e-4)  # fmt: skip
row("Any", "Any", lambda tf, x: tf.reduce_any(x, 1), truth(4, 3))
row("All", "All", lambda tf, x: tf.reduce_all(x, 1), truth(4, 3))
for _axis in (-1, 0, 1, 2):
    row(f"ArgMax {_axis}", "ArgMax", lambda tf, x, a=_axis: tf.argmax(tf.nn.conv2d(
        x, K3, 1, "SAME"), a), IMAGE)  # fmt: skip
row("ArgMin", "ArgMin", lambda tf, x: tf.argmin(x, 1), MATRIX)
row("TopKV2", "TopKV2", lambda tf, x: tf.math.top_k(x, 3), MATRIX)
for _more in ({}, {"exclusive": True}, {"reverse": True}, {"exclusive": True, "reverse": True}):
    row(f"Cumsum {_more}", "Cumsum", lambda tf, x, m=_more: tf.cumsum(x, 1, **m), MATRIX)
row("InTopKV2", "InTopKV2", lambda tf, x: tf.raw_ops.InTopKV2(
    predictions=x, targets=[0, 1, 2, 3], k=2), MATRIX)  # fmt: skip
row("logsumexp", "Max Sum Exp Log", lambda tf, x: tf.reduce_logsumexp(x, 1), MATRIX)

# ---- shapes and parts ------------------------------------------------------------------

row("Reshape", "Reshape", lambda tf, x: tf.reshape(x, (3, -1)), IMAGE)
row("Reshape to a scalar", "Reshape", lambda tf, x: tf.reshape(x[:1], ()) * 2, VECTOR)
row("Squeeze", "Squeeze", lambda tf, x: tf.squeeze(
    tf.reduce_mean(x, (1, 2), keepdims=True), (1, 2)), IMAGE)  # fmt: skip
row("Squeeze all", "Squeeze", lambda tf, x: tf.squeeze(x), normal(1, 3, 1))
row("ExpandDims", "ExpandDims", lambda tf, x: tf.expand_dims(x, -1), MATRIX)
row("Transpose", "Transpose", lambda tf, x: tf.transpose(tf.nn.relu(x), (0, 3, 1, 2)) * 2, IMAGE)
row("Transpose of a convolution", "Transpose", lambda tf, x: tf.transpose(
    tf.nn.conv2d(x, K3, 1, "SAME"), (0, 3, 1, 2)), IMAGE)  # fmt: skip
row("Transpose to channels last", "Transpose", lambda tf, x: tf.nn.conv2d(
    tf.transpose(x, (0, 2, 3, 1)), K3, 1, "SAME"), normal(2, 3, 6, 7))  # fmt: skip
row(
    "pixel shuffle by six axes",
    "Transpose Reshape",
    lambda tf, x: tf.reshape(
        tf.transpose(tf.reshape(x, (1, 4, 5, 2, 3, 2)), (0, 1, 3, 2, 4, 5)), (1, 8, 15, 2)
    ),
    normal(1, 4, 5, 12),
)
row("ConcatV2", "ConcatV2", lambda tf, x: tf.concat([tf.nn.conv2d(x, K3, 1, "SAME"), x], -1), IMAGE)
row("ConcatV2 of rows", "ConcatV2", lambda tf, x: tf.concat([x, MATRIX], 0), MATRIX)
row("Concat", "Concat", lambda tf, x: tf.raw_ops.Concat(concat_dim=1, values=[x, x]), MATRIX)
row("Pack", "Pack", lambda tf, x, y: tf.stack([x, y], 1), MATRIX, MATRIX * 2)
row("Pack of scalars", "Pack", lambda tf, x: tf.stack([x[0], x[2], 3.0]), VECTOR)
row("Unpack", "Unpack", lambda tf, x: tf.unstack(x, axis=1)[2], MATRIX)
row("Split", "Split", lambda tf, x: tf.split(tf.nn.conv2d(x, K6, 1, "SAME"), 3, -1)[1], IMAGE)
K6 = normal(1, 1, 3, 6)
row("SplitV", "SplitV", lambda tf, x: tf.split(x, [1, -1], 1)[1], MATRIX)
row("Slice", "Slice", lambda tf, x: tf.slice(tf.nn.relu(x), [0, 1, 2, 0], [-1, 3, 4, 2]), IMAGE)
row("StridedSlice", "StridedSlice", lambda tf, x: tf.nn.conv2d(x, K3, 1, "SAME")[:, 1:-1, ::2, 1:],
    IMAGE)  # fmt: skip
row("StridedSlice, one entry", "StridedSlice", lambda tf, x: x[:, -1], MATRIX)
row("StridedSlice, ellipsis", "StridedSlice", lambda tf, x: x[1, ..., :2], IMAGE)
row(
    "StridedSlice, new axes", "StridedSlice", lambda tf, x: x[:, tf.newaxis, 1:, tf.newaxis], MATRIX
)
row("StridedSlice, all at once", "StridedSlice", lambda tf, x: x[0, ..., tf.newaxis, 1], IMAGE)
row("StridedSlice backwards", "StridedSlice", lambda tf, x: x[::-1, 3:0:-2], MATRIX)
row("Pad", "Pad", lambda tf, x: tf.pad(
    tf.nn.conv2d(x, K3, 1, "SAME"), [[0, 0], [1, 2], [0, 3], [0, 1]]), IMAGE)  # fmt: skip
row("PadV2", "PadV2", lambda tf, x: tf.pad(x, [[1, 0], [0, 2]], constant_values=7.0), MATRIX)
for _mode in ("REFLECT", "SYMMETRIC"):
    row(f"MirrorPad {_mode}", "MirrorPad", lambda tf, x, m=_mode: tf.pad(
        x, [[0, 0], [2, 1], [1, 2], [0, 0]], m), IMAGE)  # fmt: skip
row("Tile", "Tile", lambda tf, x: tf.tile(tf.nn.conv2d(x, K3, 1, "SAME"), (1, 2, 1, 3)), IMAGE)
row("BroadcastTo", "BroadcastTo", lambda tf, x: tf.broadcast_to(x, (3, 4, 5)), VECTOR)
row(
    "ReverseV2",
    "ReverseV2",
    lambda tf, x: tf.reverse(tf.nn.conv2d(x, K3, 1, "SAME"), [1, 3]),
    IMAGE,
)
row("ReverseSequence", "ReverseSequence", lambda tf, x: tf.reverse_sequence(
    x, [2, 5, 1, 3], seq_axis=1, batch_axis=0), MATRIX)  # fmt: skip
row("Roll", "Roll", lambda tf, x: tf.roll(x, [1, -2], [0, 1]), MATRIX)
row("DepthToSpace", "DepthToSpace", lambda tf, x: tf.nn.depth_to_space(x, 2), normal(1, 3, 4, 12))
row("SpaceToDepth", "SpaceToDepth", lambda tf, x: tf.nn.space_to_depth(x, 2), normal(1, 6, 4, 3))
row("SpaceToBatchND", "SpaceToBatchND", lambda tf, x: tf.space_to_batch_nd(
    x, [2, 3], [[1, 1], [0, 2]]), IMAGE)  # fmt: skip
row("BatchToSpaceND", "BatchToSpaceND", lambda tf, x: tf.raw_ops.BatchToSpaceND(
    input=x, block_shape=[2, 2], crops=[[1, 0], [0, 2]]), normal(8, 3, 4, 2))  # fmt: skip
row("MatrixBandPart", "MatrixBandPart", lambda tf, x: tf.linalg.band_part(x, 1, 0), MATRIX)
row("MatrixDiagV3", "MatrixDiagV3", lambda tf, x: tf.linalg.diag(x), MATRIX)
row("MatrixDiag", "MatrixDiag", lambda tf, x: tf.raw_ops.MatrixDiag(diagonal=x), MATRIX)
row("MatrixDiagPartV3", "MatrixDiagPartV3", lambda tf, x: tf.linalg.diag_part(x), MATRIX)
row("ExtractImagePatches", "ExtractImagePatches", lambda tf, x: tf.image.extract_patches(
    x, [1, 3, 2, 1], [1, 2, 1, 1], [1, 1, 2, 1], "SAME"), IMAGE)  # fmt: skip
row("MatrixDiagV2", "MatrixDiagV2", lambda tf, x: tf.raw_ops.MatrixDiagV2(
    diagonal=x, k=0, num_rows=-1, num_cols=-1, padding_value=0.0), MATRIX)  # fmt: skip
row("MatrixDiagPart", "MatrixDiagPart", lambda tf, x: tf.raw_ops.MatrixDiagPart(input=x),
    normal(2, 4, 4))  # fmt: skip
row("MatrixDiagPartV2", "MatrixDiagPartV2", lambda tf, x: tf.raw_ops.MatrixDiagPartV2(
    input=x, k=0, padding_value=0.0), normal(2, 5, 4))  # fmt: skip
row("ShapeN", "ShapeN", lambda tf, x: tf.reshape(
    x, tf.reverse(tf.shape_n([x, x])[1], [0])), MATRIX)  # fmt: skip
row("PlaceholderWithDefault", "PlaceholderWithDefault EnsureShape", lambda tf, x: tf.ensure_shape(
    tf.raw_ops.PlaceholderWithDefault(input=x * 2, shape=(4, 5)), (4, 5)), MATRIX)  # fmt: skip
row("EnsureShape of computed extents", "EnsureShape", lambda tf, x: tf.nn.conv2d(tf.ensure_shape(
    tf.broadcast_to(x, tf.concat([[1 + tf.cast(tf.reduce_sum(x) > -1e9, tf.int32)], [4, 5, 3]], 0)),
    (2, 4, 5, 3)), GROUPED, 1, "SAME"), normal(1, 4, 5, 3))  # fmt: skip
row("EnsureShape of a scalar", "EnsureShape", lambda tf, x: x * tf.ensure_shape(
    tf.reduce_sum(x), ()), MATRIX)  # fmt: skip
row("EnsureShape of a flat map", "EnsureShape", lambda tf, x: tf.ensure_shape(
    tf.reshape(tf.nn.relu(x), (2, -1)), (2, 60)), normal(2, 4, 5, 3))  # fmt: skip
row(
    "indices that are known",
    "InvertPermutation ListDiff UniqueV2 BitwiseAnd BroadcastArgs",
    lambda tf, x: tf.gather(x, tf.math.invert_permutation([2, 0, 1]) & 3),
    MATRIX,
)
row("shape arithmetic", "Shape Pack Prod Size Rank", lambda tf, x: tf.reshape(
    x, [tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:])]) + tf.cast(tf.rank(x), tf.float32),
    IMAGE)  # fmt: skip
row("Fill", "Fill", lambda tf, x: tf.fill((3, 2), x[1]), VECTOR)
row("LinSpace", "LinSpace", lambda tf, x: tf.linspace(x[0], x[1], 5), VECTOR)
row("Range", "Range", lambda tf, x: tf.range(x[0], x[1], 0.5), np.float32([1, 3.7]))

# ---- gathering -------------------------------------------------------------------------

row(
    "GatherV2",
    "GatherV2",
    lambda tf, x, i: tf.gather(x, i, axis=1),
    MATRIX,
    whole(3, least=0, most=4),
)
row("GatherV2 of a table", "GatherV2", lambda tf, i: tf.nn.embedding_lookup(MATRIX, i),
    whole(2, 3, least=0, most=3))  # fmt: skip
row("GatherV2 of channels", "GatherV2", lambda tf, x: tf.gather(tf.nn.conv2d(
    x, K3, 1, "SAME"), [4, 0, 2], axis=3), IMAGE)  # fmt: skip
row("GatherV2 of one entry", "GatherV2", lambda tf, x: tf.gather(x, 1, axis=1), MATRIX)
row("GatherV2 in batches", "GatherV2", lambda tf, x, i: tf.gather(x, i, batch_dims=1, axis=1),
    normal(2, 5, 3), whole(2, 4, least=0, most=4))  # fmt: skip
row("GatherV2 in batches of rows", "GatherV2", lambda tf, x, i: tf.gather(
    x, i, batch_dims=1, axis=1), MATRIX, whole(4, 2, least=0, most=4))  # fmt: skip
row("Gather", "Gather", lambda tf, x: tf.raw_ops.Gather(params=x, indices=[2, 0]), MATRIX)
row("GatherNd", "GatherNd", lambda tf, x, i: tf.gather_nd(x, i), MATRIX, np.int32([[0, 1], [3, 4]]))
row("ScatterNd", "ScatterNd", lambda tf, i, u: tf.scatter_nd(i, u, (6, 5)), np.int32([[1], [4]]),
    normal(2, 5))  # fmt: skip
for _op in ("TensorScatterUpdate", "TensorScatterAdd", "TensorScatterSub", "TensorScatterMax",
            "TensorScatterMin"):  # fmt: skip
    row(_op, _op, lambda tf, x, i, u, o=_op: getattr(tf.raw_ops, o)(tensor=x, indices=i, updates=u),
        MATRIX, np.int32([[1], [3]]), normal(2, 5))  # fmt: skip
for _axis in (-1, 0, 1):
    row(f"OneHot {_axis}", "OneHot", lambda tf, i, a=_axis: tf.one_hot(
        i, 4, on_value=2.0, off_value=-1.0, axis=a), whole(2, 3, least=-1, most=5))  # fmt: skip
row("OneHot of one", "OneHot", lambda tf, i: tf.one_hot(i[0], 4), whole(2, least=0, most=3))
row("Where", "Where", lambda tf, x: tf.cast(tf.where(x > 0), tf.int32), MATRIX)

# ---- images and boxes ------------------------------------------------------------------

for _kind in ("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic"):
    for _how in ({}, {"half_pixel_centers": True}, {"align_corners": True}):
        for _size in ((12, 21), (4, 5), (9, 7)):
            row(f"{_kind} {_how} {_size}", _kind,
                lambda tf, x, o=_kind, h=_how, s=_size: getattr(tf.raw_ops, o)(
                    images=x, size=s, **h), IMAGE,
                tol=2e-3 if _kind == "ResizeBicubic" else 1e-5)  # fmt: skip
BOXES = np.float32(
    [[0, 0, 1, 1], [0.1, 0.2, 0.7, 0.9], [-0.2, 0.3, 1.3, 0.8], [0.9, 0.8, 0.1, 0.2]]
)
for _method in ("bilinear", "nearest"):
    row(f"CropAndResize {_method}", "CropAndResize", lambda tf, x, m=_method: (
        tf.image.crop_and_resize)(x, BOXES, [0, 1, 0, 1], (4, 5), m, 0.5), IMAGE)  # fmt: skip
row("CropAndResize to one pixel", "CropAndResize", lambda tf, x: tf.image.crop_and_resize(
    x, BOXES, [0, 1, 0, 1], (1, 1)), IMAGE)  # fmt: skip
CORNERS = RNG.uniform(0, 10, (20, 4)).astype(np.float32)
CHANCES = RNG.uniform(0, 1, 20).astype(np.float32)
row("NonMaxSuppressionV3", "NonMaxSuppressionV3", lambda tf, b, s: tf.image.non_max_suppression(
    b, s, 8, 0.3, 0.2), CORNERS, CHANCES)  # fmt: skip
row("NonMaxSuppressionV2", "NonMaxSuppressionV2", lambda tf, b, s: tf.raw_ops.NonMaxSuppressionV2(
    boxes=b, scores=s, max_output_size=30, iou_threshold=0.3), CORNERS, CHANCES)  # fmt: skip
row("NonMaxSuppression", "NonMaxSuppression", lambda tf, b, s: tf.raw_ops.NonMaxSuppression(
    boxes=b, scores=s, max_output_size=5), CORNERS, CHANCES)  # fmt: skip
row("NonMaxSuppressionV4", "NonMaxSuppressionV4", lambda tf, b, s: tf.raw_ops.NonMaxSuppressionV4(
    boxes=b, scores=s, max_output_size=25, iou_threshold=0.3, score_threshold=0.5,
    pad_to_max_output_size=True), CORNERS, CHANCES)  # fmt: skip
row("NonMaxSuppressionV5", "NonMaxSuppressionV5", lambda tf, b, s: tf.raw_ops.NonMaxSuppressionV5(
    boxes=b, scores=s, max_output_size=7, iou_threshold=0.3, score_threshold=0.5,
    soft_nms_sigma=0.0), CORNERS, CHANCES)  # fmt: skip
row("per-image standardization", "Mean Sqrt", lambda tf, x: tf.image.per_image_standardization(x),
    IMAGE)  # fmt: skip


def _adjust_contrast(tf: Any, x: Any) -> Any:
    mean = tf.reduce_mean(x, (1, 2), keepdims=True)
    return (x - mean) * 1.5 + mean


row("adjust contrast", "Mean Sub", _adjust_contrast, IMAGE)

# ---- rounding --------------------------------------------------------------------------

row("FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxArgs", lambda tf, x: (
    tf.quantization.fake_quant_with_min_max_args(x, -1, 2, 4)), MATRIX)  # fmt: skip
row(
    "FakeQuantWithMinMaxVars",
    "FakeQuantWithMinMaxVars",
    lambda tf, x: tf.quantization.fake_quant_with_min_max_vars(x, -1.0, 2.0, narrow_range=True),
    IMAGE,
)
row("FakeQuantWithMinMaxVarsPerChannel", "FakeQuantWithMinMaxVarsPerChannel", lambda tf, x: (
    tf.quantization.fake_quant_with_min_max_vars_per_channel(
        x, [-1.0, -2, -0.5], [2.0, 1, 0.7])), IMAGE)  # fmt: skip

# ---- control flow and recurrence -------------------------------------------------------


def _condition(tf: Any, x: Any) -> Any:
    return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.nn.relu(x), lambda: x * 2 - 1)


def _while_computed(tf: Any, x: Any) -> Any:
    return tf.while_loop(lambda y: tf.reduce_max(y) < 100, lambda y: (y * 2 + 1,), (tf.abs(x),))[0]


def _while_known(tf: Any, x: Any) -> Any:
    return tf.while_loop(lambda i, y: i < 4, lambda i, y: (i + 1, y @ SQUARE), (0, x))[1]


def _scanned(tf: Any, x: Any) -> Any:
    return tf.scan(lambda a, b: a * 0.5 + tf.tanh(b), x, initializer=tf.zeros(5))


def _mapped(tf: Any, x: Any) -> Any:
    return tf.map_fn(lambda v: tf.nn.softmax(v) * v[0], x)


SQUARE = normal(5, 5) * 0.3


def _case(tf: Any, x: Any, index: Any) -> Any:
    inner = [lambda: x - 5.0, lambda: tf.nn.softmax(x)]
    return tf.switch_case(
        index, [lambda: x + 1, lambda: x * 2, lambda: tf.switch_case(index - 2, inner)]
    )


for _index in (-1, 0, 1, 2, 3, 9):
    row(f"Case {_index}", "Case StatelessCase", _case, MATRIX, np.array(_index, np.int32))
row("If, yes", "If StatelessIf", _condition, positive(3, 4))
row("If, no", "If StatelessIf", _condition, -positive(3, 4))
row("While, computed", "While StatelessWhile", _while_computed, MATRIX)
row("While, known", "While StatelessWhile", _while_known, MATRIX)
row("scan", "TensorListReserve TensorListSetItem TensorListGetItem TensorListStack "
    "TensorListFromTensor", _scanned, MATRIX)  # fmt: skip
row("map", "TensorListReserve", _mapped, MATRIX)
GATES = normal(3 + 4, 16) * 0.4
row("LSTMBlockCell", "LSTMBlockCell", lambda tf, x, c, h: tf.raw_ops.LSTMBlockCell(
    x=x, cs_prev=c, h_prev=h, w=GATES, wci=np.zeros(4, "f"), wcf=np.zeros(4, "f"),
    wco=np.zeros(4, "f"), b=np.arange(16, dtype="f") / 9, forget_bias=0.7, cell_clip=0.9),
    normal(2, 3), normal(2, 4), normal(2, 4))  # fmt: skip
for _op in ("BlockLSTM", "BlockLSTMV2"):
    row(_op, _op, lambda tf, x, o=_op: getattr(tf.raw_ops, o)(
        seq_len_max=np.int64(5), x=x, cs_prev=np.zeros((2, 4), "f"), h_prev=np.ones((2, 4), "f"),
        w=GATES, wci=np.zeros(4, "f"), wcf=np.zeros(4, "f"), wco=np.zeros(4, "f"),
        b=np.arange(16, dtype="f") / 9, cell_clip=0.0)[6], normal(5, 2, 3))  # fmt: skip
row("GRUBlockCell", "GRUBlockCell", lambda tf, x, h: tf.raw_ops.GRUBlockCell(
    x=x, h_prev=h, w_ru=GATES[:, :8], w_c=GATES[:, 8:12], b_ru=np.arange(8, dtype="f") / 9,
    b_c=np.arange(4, dtype="f") / 9), normal(2, 3), normal(2, 4))  # fmt: skip


# ---- all outputs -----------------------------------------------------------------------

TIES = np.float32([[1, 3, 3, 2], [0, 0, 0, 0], [-1, 5, -1, 5]])
row("all of TopKV2", "TopKV2", lambda tf, x: list(tf.math.top_k(x, 3)), TIES)
row("all of TopKV2 of a vector", "TopKV2", lambda tf, x: list(tf.math.top_k(x, 5)), VECTOR)
row("all of TopKV2 of volumes", "TopKV2", lambda tf, x: list(tf.math.top_k(x, 2)), VOLUME)
row("all of Unpack", "Unpack", lambda tf, x: tf.unstack(x, axis=1), MATRIX)
row("all of Unpack, of channels", "Unpack", lambda tf, x: tf.unstack(
    tf.nn.conv2d(x, K3, 1, "SAME"), axis=-1), IMAGE)  # fmt: skip
row("all of Unpack of a vector", "Unpack", lambda tf, x: [
    v * 2 for v in tf.unstack(x)], VECTOR)  # fmt: skip
row("all of Split", "Split", lambda tf, x: tf.split(tf.nn.conv2d(x, K6, 1, "SAME"), 3, -1), IMAGE)
row("all of Split, the input among them", "Split", lambda tf, x: [*tf.split(x, 1, 0), x], MATRIX)
row("all of SplitV", "SplitV", lambda tf, x: tf.split(x, [1, -1, 2], 1), MATRIX)
row("all of IdentityN", "IdentityN", lambda tf, x, y: tf.raw_ops.IdentityN(input=[x, y, x]), MATRIX,
    VECTOR)  # fmt: skip
row("all of ShapeN", "ShapeN", lambda tf, x, y: [
    x + 1, *(tf.cast(s, tf.float32) for s in tf.shape_n([x, y]))], MATRIX, IMAGE)  # fmt: skip
row("all of UniqueV2", "UniqueV2", lambda tf, x: [
    tf.gather(x, part) for part in tf.raw_ops.UniqueV2(x=[3, 1, 3, 0], axis=[0])],
    VECTOR)  # fmt: skip
row("all of ListDiff", "ListDiff", lambda tf, x: [
    tf.gather(x, part) for part in tf.raw_ops.ListDiff(x=[4, 3, 1, 0], y=[3])], VECTOR)  # fmt: skip
for _pad in (False, True):
    row(f"all of NonMaxSuppressionV4, padded: {_pad}", "NonMaxSuppressionV4",
        lambda tf, b, s, pad=_pad: list(tf.raw_ops.NonMaxSuppressionV4(
            boxes=b, scores=s, max_output_size=9, iou_threshold=0.3, score_threshold=0.4,
            pad_to_max_output_size=pad)), CORNERS, CHANCES)  # fmt: skip
row("all of NonMaxSuppressionV5", "NonMaxSuppressionV5", lambda tf, b, s: list(
    tf.raw_ops.NonMaxSuppressionV5(boxes=b, scores=s, max_output_size=30, iou_threshold=0.5,
    score_threshold=0.1, soft_nms_sigma=0.0)), CORNERS, CHANCES)  # fmt: skip
for _op in ("BlockLSTM", "BlockLSTMV2"):
    for _clip in (0.0, 0.4):
        row(f"all of {_op}, clipped at {_clip}", _op,
            lambda tf, x, o=_op, clip=_clip: list(getattr(tf.raw_ops, o)(
                seq_len_max=np.int64(5), x=x, cs_prev=np.full((2, 4), 0.5, "f"),
                h_prev=np.ones((2, 4), "f"), w=GATES, wci=np.zeros(4, "f"), wcf=np.zeros(4, "f"),
                wco=np.zeros(4, "f"), b=np.arange(16, dtype="f") / 9, cell_clip=clip)),
            normal(5, 2, 3))  # fmt: skip
row("all of GRUBlockCell", "GRUBlockCell", lambda tf, x, h: list(tf.raw_ops.GRUBlockCell(
    x=x, h_prev=h, w_ru=GATES[:, :8], w_c=GATES[:, 8:12], b_ru=np.arange(8, dtype="f") / 9,
    b_c=np.arange(4, dtype="f") / 9)), normal(2, 3), normal(2, 4))  # fmt: skip
row("all of If", "If", lambda tf, x: tf.cond(
    tf.reduce_sum(x) > 0, lambda: (x, x * 2, tf.constant(1.0)),
    lambda: (x * 3, x, tf.reduce_max(x))), MATRIX)  # fmt: skip
row("all of While", "While", lambda tf, x: tf.while_loop(
    lambda i, a, b: i < 3, lambda i, a, b: (i + 1, b, a * 2), (0, x, x + 1)), MATRIX)  # fmt: skip
row("all of a long While", "While", lambda tf, x: tf.while_loop(
    lambda i, a, b: i < 30, lambda i, a, b: (i + 1, b, a * 0.9), (0, x, x + 1)),
    MATRIX)  # fmt: skip
row("all of a computed While", "While", lambda tf, x: tf.while_loop(
    lambda i, a, b: tf.reduce_max(a) > 0.5, lambda i, a, b: (i + 1, a * 0.5, b + a), (0, x, x + 1)),
    MATRIX)  # fmt: skip


# ---- colours ---------------------------------------------------------------------------

COLOURS = np.concatenate([
    RNG.uniform(0, 1, (2, 3, 4, 3)),
    np.float32([[0, 0, 0], [0.5, 0.5, 0.5], [1, 1, 0], [0, 1, 1]]) * np.ones((2, 1, 1, 1)),
], 1).astype(np.float32)  # fmt: skip
row("RGBToHSV", "RGBToHSV", lambda tf, x: tf.image.rgb_to_hsv(x), COLOURS)
row("HSVToRGB", "HSVToRGB", lambda tf, x: tf.image.hsv_to_rgb(x), COLOURS)
row("HSVToRGB of pixels", "HSVToRGB", lambda tf, x: tf.image.hsv_to_rgb(x), COLOURS[0, 0])
for _delta in (0.3, -0.7):
    row(f"AdjustHue {_delta}", "AdjustHue", lambda tf, x, d=_delta: tf.image.adjust_hue(x, d),
        COLOURS, tol=3e-5)  # fmt: skip
BELOW_ZERO = normal(3, 5, 3)  # as colours are behind other layers
row("AdjustHue of colours below 0", "AdjustHue", lambda tf, x: tf.image.adjust_hue(x, 0.4),
    BELOW_ZERO, tol=3e-5)  # fmt: skip
row("RGBToHSV of colours below 0", "RGBToHSV", lambda tf, x: tf.image.rgb_to_hsv(x), BELOW_ZERO)
row("AdjustSaturation of colours below 0", "AdjustSaturation",
    lambda tf, x: tf.image.adjust_saturation(x, 0.7), BELOW_ZERO)  # fmt: skip
row("AdjustHue by a computed angle", "AdjustHue", lambda tf, x, d: tf.image.adjust_hue(x, d),
    COLOURS, np.float32(0.2), tol=3e-5)  # fmt: skip
for _scale in (0.4, 3.0):
    row(f"AdjustSaturation {_scale}", "AdjustSaturation",
        lambda tf, x, s=_scale: tf.image.adjust_saturation(x, s), COLOURS)  # fmt: skip
row("AdjustContrastv2", "AdjustContrastv2", lambda tf, x: tf.image.adjust_contrast(
    tf.nn.max_pool2d(x, 1, 1, "SAME"), 2.5), COLOURS)  # fmt: skip

# ---- segments --------------------------------------------------------------------------

ROWS = normal(6, 3, 2)
for _kind in ("Sum", "Prod", "Max", "Min", "Mean"):
    row(f"Segment{_kind}", f"Segment{_kind}", lambda tf, x, k=_kind: getattr(
        tf.raw_ops, f"Segment{k}")(data=x, segment_ids=[0, 0, 1, 3, 3, 3]), ROWS)  # fmt: skip
    if _kind == "Mean":
        continue
    _unsorted = lambda tf, x, i, k=_kind: getattr(  # noqa: E731
        tf.raw_ops, f"UnsortedSegment{k}")(data=x, segment_ids=i, num_segments=5)  # fmt: skip
    row(f"UnsortedSegment{_kind}", f"UnsortedSegment{_kind}",
        lambda tf, x, f=_unsorted: f(tf, x, [3, 0, -1, 3, 1, 0]), ROWS)  # fmt: skip
    row(f"UnsortedSegment{_kind} by computed numbers", f"UnsortedSegment{_kind}", _unsorted, ROWS,
        np.int32([[3, 0, -1], [3, 1, 0]] * 3))  # fmt: skip
row("UnsortedSegmentMax of integers", "UnsortedSegmentMax",
    lambda tf, x: tf.math.unsorted_segment_max(x, [1, 1, 0, 2], 4), whole(4, 2))  # fmt: skip
row("SegmentSum of a vector", "SegmentSum", lambda tf, x: tf.math.segment_sum(x, [0, 0, 1, 1, 2]),
    VECTOR)  # fmt: skip
row("Bincount", "Bincount", lambda tf, x: tf.raw_ops.Bincount(
    arr=x, size=5, weights=np.zeros(0, np.float32)), whole(20, least=0, most=7))  # fmt: skip
row("Bincount of weights", "Bincount", lambda tf, x, w: tf.raw_ops.Bincount(
    arr=x, size=5, weights=w), whole(20, least=0, most=7), normal(20))  # fmt: skip
row("HistogramFixedWidth", "HistogramFixedWidth",
    lambda tf, x: tf.histogram_fixed_width(x, [-1.0, 1.5], 7), normal(60))  # fmt: skip
row(
    "SparseTensorDenseAdd",
    "SparseTensorDenseAdd",
    lambda tf, x, v: tf.raw_ops.SparseTensorDenseAdd(
        a_indices=np.int64([[0, 1], [3, 4]]), a_values=v, a_shape=np.int64([4, 5]), b=x
    ),
    MATRIX,
    normal(2),
)
row("DynamicPartition", "DynamicPartition", lambda tf, x: [
    y * 2 for y in tf.dynamic_partition(x, [[2, 0, 2], [0, 0, 2], [2] * 3, [0] * 3, [2] * 3,
                                            [0, 2, 0]], 3)[::2]], ROWS)  # fmt: skip
row("DynamicStitch", "DynamicStitch", lambda tf, x, y, z: tf.dynamic_stitch(
    [[[4, 1, 0]] * 1, 2, [3, 1]], [x, y, z]), normal(1, 3, 2), normal(2), normal(2, 2))  # fmt: skip

# ---- diagonals, products, orders -------------------------------------------------------

for _shape in ((3, 3), (2, 3, 5), (2, 5, 3)):
    _size = (*_shape[:-2], min(_shape[-2:]))
    row(
        f"MatrixSetDiag {_shape}",
        "MatrixSetDiag MatrixSetDiagV3" if len(_shape) == 2 else "MatrixSetDiagV2",
        lambda tf, x, d: (
            tf.linalg.set_diag(tf.raw_ops.MatrixSetDiag(input=x, diagonal=d * 2), d)
            if len(x.shape) == 2
            else tf.raw_ops.MatrixSetDiagV2(input=x, diagonal=d, k=0)
        ),
        normal(*_shape),
        normal(*_size),
    )
row("Diag", "Diag", lambda tf, x: tf.raw_ops.Diag(diagonal=x), VECTOR)
row("Diag of a matrix", "Diag", lambda tf, x: tf.raw_ops.Diag(diagonal=x), normal(2, 3))
row("DiagPart", "DiagPart", lambda tf, x: tf.raw_ops.DiagPart(input=x), normal(4, 4))
row("DiagPart of a matrix", "DiagPart", lambda tf, x: tf.raw_ops.DiagPart(input=x),
    normal(2, 3, 2, 3))  # fmt: skip
for _exclusive in (False, True):
    for _reverse in (False, True):
        row(f"Cumprod {_exclusive} {_reverse}", "Cumprod",
            lambda tf, x, e=_exclusive, r=_reverse: tf.math.cumprod(x, 1, e, r),
            positive(3, 4, 2))  # fmt: skip
row("NthElement", "NthElement", lambda tf, x: tf.raw_ops.NthElement(input=x, n=2), MATRIX)
row("NthElement from above", "NthElement",
    lambda tf, x: tf.raw_ops.NthElement(input=x, n=1, reverse=True), normal(2, 3, 7))  # fmt: skip
row("NthElement of a vector", "NthElement", lambda tf, x: tf.raw_ops.NthElement(input=x, n=4),
    VECTOR)  # fmt: skip
row("InvertPermutation", "InvertPermutation", lambda tf, x: tf.math.invert_permutation(x),
    np.int32([3, 0, 2, 4, 1]))  # fmt: skip
row("BroadcastArgs", "BroadcastArgs", lambda tf, x: tf.raw_ops.BroadcastArgs(s0=x, s1=[3, 1, 5]),
    np.int32([4, 1]))  # fmt: skip
row("DeepCopy", "DeepCopy", lambda tf, x: tf.raw_ops.DeepCopy(x=x) * 2, MATRIX)
row("Bitcast", "Bitcast", lambda tf, x: tf.bitcast(x, tf.float32) * 2, MATRIX)
row("Empty", "Empty", lambda tf, x: tf.raw_ops.Empty(shape=[5], dtype=tf.float32, init=True) + x,
    VECTOR)  # fmt: skip
row("Invert", "Invert", lambda tf, x: tf.bitwise.invert(x), whole(9))
row("Invert of bytes", "Invert", lambda tf, x: tf.bitwise.invert(tf.cast(x, tf.uint8)),
    whole(9, least=0, most=255))  # fmt: skip
row("RightShift", "RightShift", lambda tf, x: tf.bitwise.right_shift(x, [1, 2, 3]),
    whole(4, 3, least=-99, most=99))  # fmt: skip
row("LeftShift", "LeftShift", lambda tf, x: tf.bitwise.left_shift(x, 3), whole(9))
row("LeftShift of bytes", "LeftShift", lambda tf, x: tf.bitwise.left_shift(
    tf.cast(x, tf.int8), np.int8(3)), whole(30, least=-60, most=60))  # fmt: skip

# ---- losses, pools ---------------------------------------------------------------------

for _place in (0, 1):
    row(f"SoftmaxCrossEntropyWithLogits:{_place}", "SoftmaxCrossEntropyWithLogits",
        lambda tf, x, y, i=_place: tf.raw_ops.SoftmaxCrossEntropyWithLogits(
            features=x, labels=y)[i], MATRIX, positive(4, 5))  # fmt: skip
    row(f"SparseSoftmaxCrossEntropyWithLogits:{_place}", "SparseSoftmaxCrossEntropyWithLogits",
        lambda tf, x, y, i=_place: tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(
            features=x, labels=y)[i], MATRIX, np.int32([1, 4, 0, 2]))  # fmt: skip
for _mode in ("SAME", "VALID"):
    for _with_batch in (False, True):
        row(f"MaxPoolWithArgmax {_mode} {_with_batch}", "MaxPoolWithArgmax",
            lambda tf, x, m=_mode, b=_with_batch: tf.nn.max_pool_with_argmax(
                x, (3, 2), (2, 2), m, include_batch_in_index=b), IMAGE)  # fmt: skip
    row(f"Dilation2D {_mode}", "Dilation2D", lambda tf, x, m=_mode: tf.raw_ops.Dilation2D(
        input=x, filter=DILATING, strides=[1, 2, 1, 1], rates=[1, 1, 2, 1], padding=m),
        IMAGE)  # fmt: skip
DILATING = normal(3, 2, 3)
for _size, _corners in (((4, 5), False), ((3, 7), True), ((9, 14), False), ((6, 1), False)):
    row(f"ResizeArea {_size} {_corners}", "ResizeArea",
        lambda tf, x, s=_size, c=_corners: tf.raw_ops.ResizeArea(
            images=x, size=s, align_corners=c), IMAGE)  # fmt: skip
for _flags in ((False, False), (True, False), (False, True)):
    row(
        f"ResizeBicubic by a table {_flags}",
        "ResizeBicubic",
        lambda tf, x, f=_flags: tf.raw_ops.ResizeBicubic(
            images=x, size=(11, 5), align_corners=f[0], half_pixel_centers=f[1]
        ),
        IMAGE,
    )

# ---- batch normalization by statistics that are not stored -----------------------------

for _factor in (1.0, 0.3):
    row(f"FusedBatchNormV3 in training {_factor}", "FusedBatchNormV3",
        lambda tf, x, f=_factor: list(tf.raw_ops.FusedBatchNormV3(
            x=x, scale=[1.0, 2, 3], offset=[0.1, 0.2, 0.3], mean=[1.0, 2, 3][:0 if f == 1 else 3],
            variance=[1.0, 2, 3][:0 if f == 1 else 3], is_training=True,
            exponential_avg_factor=f)[:3]), IMAGE)  # fmt: skip
row("FusedBatchNorm in training, a volume", "FusedBatchNormV3",
    lambda tf, x: tf.raw_ops.FusedBatchNormV3(
        x=x, scale=[1.0, 2], offset=[0.1, 0.2], mean=[], variance=[], is_training=True,
        data_format="NDHWC")[0], VOLUME)  # fmt: skip
row("FusedBatchNormV3 by computed statistics", "FusedBatchNormV3",
    lambda tf, x, s, o, m, v: tf.nn.relu(tf.raw_ops.FusedBatchNormV3(
        x=x, scale=s, offset=o, mean=m, variance=v, is_training=False)[0]), IMAGE, normal(3),
    normal(3), normal(3), positive(3))  # fmt: skip

# ---- operands that are computed --------------------------------------------------------

CUBE, PAIR = normal(5, 4, 3), np.int32([1, 2])
_SLICES: dict[str, Callable[..., Any]] = {
    "x[a:, ..., b]": lambda tf, x, p: x[p[0] :, ..., p[1]],
    "x[:, a:b][..., ::-1]": lambda tf, x, p: x[:, p[0] : p[1]][..., ::-1],
    "x[a]": lambda tf, x, p: x[p[0]],
    "x[new, a:b, :2]": lambda tf, x, p: x[tf.newaxis, p[0] : p[1], :2],
    "x[a-1:b, 1, new]": lambda tf, x, p: x[p[0] - 1 : p[1], 1, tf.newaxis],
    "one of a vector": lambda tf, x, p: tf.reshape(x, [60])[p[1]],
    "x[-b:]": lambda tf, x, p: x[-p[1] :] * 2,
}
for _name, _call in _SLICES.items():
    row(f"StridedSlice {_name}", "StridedSlice", _call, CUBE, PAIR)
row("Slice to a computed place", "Slice",
    lambda tf, x, p: tf.slice(x, [1, 1, 0], tf.concat([p, [-1]], 0)), CUBE, PAIR)  # fmt: skip
row(
    "Slice from a computed place",
    "Slice",
    lambda tf, x, p: tf.nn.relu(
        tf.slice(tf.nn.max_pool2d(x[None], 1, 1, "SAME")[0], tf.concat([p, [0]], 0), [2, -1, 2])
    ),
    CUBE,
    PAIR,
)
row("Pad by computed amounts", "PadV2", lambda tf, x, p: tf.pad(
    x, p, constant_values=0.5), MATRIX, np.int32([[1, 0], [2, 3]]))  # fmt: skip
row("Pad of an image by computed amounts", "Pad", lambda tf, x, p: tf.pad(tf.nn.max_pool2d(
    x, 1, 1, "SAME"), p), IMAGE, np.int32([[0, 0], [1, 2], [0, 3], [0, 0]]))  # fmt: skip
row("Tile by computed multiples", "Tile", lambda tf, x, p: tf.tile(x, p), MATRIX, np.int32([2, 3]))
row("Tile of a constant", "Tile", lambda tf, p: tf.tile(tf.ones((2, 3)), p), np.int32([2, 1]))
row("BroadcastTo a computed shape", "BroadcastTo", lambda tf, x, p: tf.broadcast_to(x, p), VECTOR,
    np.int32([2, 3, 5]))  # fmt: skip
row("Fill of a computed value and shape", "Fill", lambda tf, p, v: tf.fill(p, v), PAIR,
    np.float32(3))  # fmt: skip
for _rate, _mode in ((1, "SAME"), (2, "VALID")):
    row(f"Conv2D by a computed kernel {_mode}", "Conv2D",
        lambda tf, x, w, r=_rate, m=_mode: tf.nn.conv2d(x, w, 1, m, dilations=r), IMAGE,
        normal(3, 2, 3, 4))  # fmt: skip
row(
    "Conv2D by a computed kernel, strides and groups",
    "Conv2D",
    lambda tf, x, w: tf.nn.relu(tf.nn.conv2d(x, w * 2, 2, "SAME")),
    WIDE,
    normal(3, 3, 2, 6),
)
row("DepthwiseConv2dNative by a computed kernel", "DepthwiseConv2dNative",
    lambda tf, x, w: tf.nn.depthwise_conv2d(x, w, (1, 1, 1, 1), "SAME"), IMAGE,
    normal(3, 3, 3, 2))  # fmt: skip

# ---- casts -----------------------------------------------------------------------------

for _type in ("uint8", "int8", "uint16", "int16"):
    row(f"Cast of integers to {_type}", "Cast", lambda tf, x, t=_type: tf.cast(x, t),
        whole(40, least=-99999, most=99999))  # fmt: skip
    row(f"{_type} overflows", "AddV2 Sub", lambda tf, x, t=_type: (
        tf.cast(x, t) + tf.constant(100, t) - tf.constant(9, t)), whole(40, least=-99999,
                                                                        most=99999))  # fmt: skip
row("Cast of pixels to bytes", "Cast", lambda tf, x: tf.cast(
    tf.clip_by_value(x * 300, 0, 255), tf.uint8), positive(1, 4, 4, 3) / 2)  # fmt: skip
row("Cast of bytes to floats", "Cast", lambda tf, x: tf.cast(
    tf.cast(x, tf.uint8), tf.float32) / 255, whole(9, least=0, most=255))  # fmt: skip
for _type in ("float16", "bfloat16"):
    row(f"Cast to {_type}", "Cast", lambda tf, x, t=_type: tf.cast(
        tf.cast(x, t) * tf.constant(2, t), tf.float32), MATRIX, tol=1e-2)  # fmt: skip
for _peephole in (False, True):
    row(f"BlockLSTM, peephole {_peephole}", "BlockLSTM", lambda tf, x, p=_peephole:
        tf.raw_ops.BlockLSTM(
            seq_len_max=np.int64(4), x=x, cs_prev=CELL[:2], h_prev=CELL[2:4], w=CELL_MATRIX,
            wci=CELL[4], wcf=CELL[5], wco=CELL[6], b=CELL_MATRIX[0], use_peephole=p,
            cell_clip=-1.0).h, normal(4, 2, 3))  # fmt: skip
    row(
        f"LSTMBlockCell, peephole {_peephole}",
        "LSTMBlockCell",
        lambda tf, x, p=_peephole: list(
            tf.raw_ops.LSTMBlockCell(
                x=x,
                cs_prev=CELL[:2],
                h_prev=CELL[2:4],
                w=CELL_MATRIX,
                wci=CELL[4],
                wcf=CELL[5],
                wco=CELL[6],
                b=CELL_MATRIX[0],
                use_peephole=p,
                cell_clip=-1.0,
            )
        ),
        normal(2, 3),
    )
CELL, CELL_MATRIX = normal(7, 2), normal(5, 8)
for _size in (3, 5):
    row(
        f"NonMaxSuppressionV5, padded to {_size}",
        "NonMaxSuppressionV5",
        lambda tf, x, s, n=_size: list(
            tf.raw_ops.NonMaxSuppressionV5(
                boxes=x,
                scores=s,
                max_output_size=n,
                iou_threshold=0.5,
                score_threshold=0.1,
                soft_nms_sigma=0.0,
                pad_to_max_output_size=True,
            )
        ),
        np.float32([[0, 0, 1, 1], [0, 0, 1, 0.9], [2, 2, 3, 3]]),
        np.float32([0.9, 0.8, 0.7]),
    )
row(
    "products of bytes",
    "Mul Square Sum",
    lambda tf, x: (
        tf.reduce_sum(tf.cast(x, tf.int8) * tf.cast(x + 5, tf.int8), 0)
        + tf.square(tf.cast(x[0], tf.int8))
    ),
    whole(40, 3, least=-128, most=127),
)
# ---- special functions, complex numbers and transforms ----------------------------------

BESIDE_POLES = np.float32([-4.5, -2.7, -1.001, -0.5, 0.2, 0.49, 0.5, 1, 1.5, 2, 3, 10, 1e3, 1e6])
POLES = np.float32([0.0, -1.0, -5.0, np.inf, 7.0])
row("Erfinv", "Erfinv", lambda tf, x: tf.math.erfinv(x),
    np.linspace(-0.999, 0.999, 41).astype(np.float32))  # fmt: skip
row("Erfinv at the ends", "Erfinv", lambda tf, x: tf.math.erfinv(x), POLES)
row("Lgamma", "Lgamma", lambda tf, x: tf.math.lgamma(x), BESIDE_POLES)
row("Lgamma at poles", "Lgamma", lambda tf, x: tf.math.lgamma(x), POLES)
row("Digamma", "Digamma", lambda tf, x: tf.math.digamma(x), BESIDE_POLES)
row("Digamma at poles", "Digamma", lambda tf, x: tf.math.digamma(x), POLES[:3])
row("Lgamma of images", "Conv2D Lgamma", lambda tf, x: tf.math.lgamma(
    tf.nn.conv2d(x, np.ones((1, 1, 3, 2), np.float32), 1, "SAME")),
    positive(1, 3, 4, 3))  # fmt: skip

SIGNAL, SPECTRUM = normal(2, 40), normal(2, 9)
for _length in (None, [32], [50], [7]):
    row(
        f"RFFT {_length}",
        "RFFT Real Imag",
        lambda tf, x, n=_length: [
            tf.math.real(tf.signal.rfft(x, n)),
            tf.math.imag(tf.signal.rfft(x, n)),
        ],
        SIGNAL,
    )
    row(f"IRFFT {_length}", "IRFFT Complex", lambda tf, x, y, n=_length: tf.signal.irfft(
        tf.complex(x, y), n), SPECTRUM, normal(2, 9))  # fmt: skip
row("RFFT of a vector", "RFFT ComplexAbs", lambda tf, x: tf.abs(tf.signal.rfft(x)), normal(11))
row("RFFT, size and angle", "RFFT ComplexAbs Angle", lambda tf, x: [
    tf.abs(tf.signal.rfft(x)), tf.math.angle(tf.signal.rfft(x))[:, 1:-1]], SIGNAL)  # fmt: skip
row("spectrogram", "RFFT ComplexAbs Transpose", lambda tf, x: tf.math.log(1e-2 + tf.square(tf.abs(
    tf.transpose(tf.signal.stft(x, 16, 6, 16), (0, 2, 1))))), SIGNAL)  # fmt: skip
row("there and back", "RFFT IRFFT Mul", lambda tf, x: tf.signal.irfft(
    tf.signal.rfft(x) * tf.cast(tf.range(21) < 9, tf.complex64)), SIGNAL)  # fmt: skip
row("stft and inverse", "RFFT IRFFT", lambda tf, x: tf.signal.inverse_stft(
    tf.signal.stft(x, 16, 4) * 2.0, 16, 4), SIGNAL)  # fmt: skip
for _name in ("fft", "ifft", "fft2d", "ifft2d"):
    row(f"{_name}", f"{_name.upper()} Real Imag Cast", lambda tf, x, n=_name: [
        part(getattr(tf.signal, n)(tf.cast(x, tf.complex64))) for part in (
            tf.math.real, tf.math.imag)], normal(2, 5, 6))  # fmt: skip
row("products of spectra", "FFT IFFT Mul Conj", lambda tf, x, y: tf.math.real(tf.signal.ifft(
    tf.signal.fft(tf.cast(x, tf.complex64)) * tf.math.conj(
        tf.signal.fft(tf.cast(y, tf.complex64))))), normal(3, 8), normal(3, 8))  # fmt: skip
row("complex arithmetic", "Complex Sub AddV2 Neg Exp Square Slice Cast", lambda tf, x, y: [
    part((tf.square(tf.complex(x, y)) - tf.exp(1j * tf.cast(x, tf.complex64)))[:, 1:] + 2j)
    for part in (tf.math.real, tf.math.imag, lambda z: tf.cast(-z, tf.float32))],
    normal(3, 4), normal(3, 4))  # fmt: skip
row("complex parts and joins", "Complex ConcatV2 Pad Split Sum", lambda tf, x, y: tf.abs(
    tf.reduce_sum(tf.pad(tf.concat(tf.split(tf.complex(x, y), 2, 1)[::-1], 1), [[0, 0], [1, 1]]), 0)
    ), normal(3, 4), normal(3, 4))  # fmt: skip

for _kernel in ("lanczos1", "lanczos3", "lanczos5", "gaussian", "box", "triangle", "keyscubic",
                "mitchellcubic"):  # fmt: skip
    for _size, _antialias in (((3, 4), True), ((3, 9), False), ((11, 12), True)):
        row(f"ScaleAndTranslate {_kernel} {_size}", "ScaleAndTranslate",
            lambda tf, x, k=_kernel, s=_size, a=_antialias: tf.raw_ops.ScaleAndTranslate(
                images=x, size=s, scale=[0.6, 1.3], translation=[-0.4, 0.65], kernel_type=k,
                antialias=a), IMAGE)  # fmt: skip
for _method in ("bilinear", "bicubic", "area", "lanczos3", "gaussian", "mitchellcubic"):
    row(f"resize {_method} with antialias", "ResizeArea ScaleAndTranslate",
        lambda tf, x, m=_method: tf.image.resize(x, (3, 5), m, antialias=True), IMAGE)  # fmt: skip
PROJECTED = np.float32([[1.2, 0.3, -2.5, -0.2, 0.9, 1.3, 0.01, -0.02]])
for _way in ("NEAREST", "BILINEAR"):
    for _fill in ("CONSTANT", "REFLECT", "WRAP", "NEAREST"):
        row(f"ImageProjectiveTransformV3 {_way} {_fill}", "ImageProjectiveTransformV3",
            lambda tf, x, w=_way, f=_fill: tf.raw_ops.ImageProjectiveTransformV3(
                images=x, transforms=PROJECTED, output_shape=(8, 5), fill_value=0.4,
                interpolation=w, fill_mode=f), IMAGE)  # fmt: skip
        for _count in (1, 2):
            row(f"ImageProjectiveTransformV3 {_way} {_fill}, {_count} computed",
                "ImageProjectiveTransformV3",
                lambda tf, x, w=_way, f=_fill, n=_count: tf.raw_ops.ImageProjectiveTransformV3(
                    images=tf.concat([x[:1], 2 * x[:1]], 0), transforms=PROJECTED * tf.reshape(
                        tf.reduce_mean(x, (1, 2))[0, :n], (-1, 1)), output_shape=(8, 5),
                    fill_value=0.4, interpolation=w, fill_mode=f), IMAGE)  # fmt: skip
for _kind in ("uint8", "int32"):
    row(f"ImageProjectiveTransformV3 of {_kind}", "ImageProjectiveTransformV3 Cast",
        lambda tf, x, k=_kind: tf.cast(tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(abs(80 * x), k), transforms=PROJECTED, output_shape=(8, 5),
            fill_value=3.7, interpolation="BILINEAR", fill_mode="CONSTANT"), "float32"),
        IMAGE)  # fmt: skip
    row(f"ImageProjectiveTransformV3 of {_kind}, computed", "ImageProjectiveTransformV3 Cast",
        lambda tf, x, k=_kind: tf.cast(tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(abs(80 * x[:1]), k), transforms=PROJECTED * tf.reshape(
                tf.reduce_mean(x, (1, 2))[0, :1], (-1, 1)), output_shape=(8, 5),
            fill_value=3.7, interpolation="BILINEAR", fill_mode="CONSTANT"), "float32"),
        IMAGE)  # fmt: skip
row("ImageProjectiveTransformV3, one known each", "ImageProjectiveTransformV3",
    lambda tf, x: tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.concat([x[:1], 2 * x[:1]], 0), transforms=np.concatenate([PROJECTED, -PROJECTED]),
        output_shape=(8, 5), fill_value=0.4, interpolation="BILINEAR", fill_mode="REFLECT"),
    IMAGE)  # fmt: skip
row("ImageProjectiveTransformV2", "ImageProjectiveTransformV2",
    lambda tf, x: tf.raw_ops.ImageProjectiveTransformV2(
        images=x, transforms=PROJECTED, output_shape=(6, 7), interpolation="BILINEAR"),
    IMAGE)  # fmt: skip
