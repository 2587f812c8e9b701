"""Calls of every method of `NeuralNetworkBuilder`, with every argument in some row."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.proto import NeuralNetwork_pb2

RNG = np.random.default_rng(0)
ONE = {"input_name": "x", "output_name": "y"}
TWO = {"input_names": ["x", "z"], "output_name": "y"}
ALONE = {"input_names": ["x"], "output_name": "y"}
Call = tuple[str, dict[str, Any]]
CALLS: list[Call] = []


def call(method: str, /, **arguments: Any) -> None:
    CALLS.append((f"add_{method}", {"name": "layer", **arguments}))


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def packed(count: int, bits: int = 8) -> bytes:
    return RNG.integers(0, 256, -(-count * bits // 8)).astype(np.uint8).tobytes()


SCALE = np.array([0.5], np.float32)
LINEAR_8 = {
    "quantization_type": "linear",
    "nbits": 8,
    "quant_scale": SCALE,
    "quant_bias": np.array([0.25], np.float32),
}
LINEAR_3 = {**LINEAR_8, "nbits": 3}
LUT_2 = {"quantization_type": "lut", "nbits": 2, "quant_lut": floats(4)}
QUANTIZED = [LINEAR_8, LUT_2]

# ---- value by value ---------------------------------------------------------------------

for name in (
    "erf", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh",
    "atanh", "exp2", "ceil", "floor", "round", "sign", "copy", "softmax", "gelu", "clip",
    "clamped_relu",
):  # fmt: skip
    call(name, **ONE)
for name in (
    "add", "multiply", "divide", "subtract", "max", "min", "floor_div", "mod", "pow", "where",
):  # fmt: skip
    call(f"{name}_broadcastable", **TWO)
for mode in ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"):
    call("gelu", **ONE, mode=mode)
call("clip", **ONE, min_value=-1, max_value=2)
call("clamped_relu", **ONE, alpha=0.5, beta=3)
for function, params in [
    ("RELU", None), ("relu", None), ("SIGMOID", None), ("TANH", None), ("SOFTPLUS", None),
    ("SOFTSIGN", None), ("SCALED_TANH", None), ("SCALED_TANH", [0.5, 0.25]),
    ("SIGMOID_HARD", None), ("SIGMOID_HARD", (0.1, 0.75)), ("LEAKYRELU", None),
    ("LEAKYRELU", [0.125]), ("PRELU", floats(3)), ("ELU", 0.5),
    ("PARAMETRICSOFTPLUS", [floats(3), floats(3)]), ("THRESHOLDEDRELU", None),
    ("THRESHOLDEDRELU", 0.5), ("LINEAR", None), ("LINEAR", [2.0, 3.0]),
]:  # fmt: skip
    call("activation", **ONE, non_linearity=function, params=params)
call("activation", **ONE, non_linearity="RELU", input_shape=[2, 3], output_shape=[2, 3])
call("activation", **ONE, non_linearity="RELU", input_rank=3, output_rank=3)
for mode in (
    "CONCAT", "SEQUENCE_CONCAT", "ADD", "MULTIPLY", "COS", "DOT", "MAX", "MIN", "AVE", "add",
):  # fmt: skip
    call("elementwise", **TWO, mode=mode)
call("elementwise", input_names="x", output_name="y", mode="ADD", alpha=2.0)
call("elementwise", input_names="x", output_name="y", mode="MULTIPLY", alpha=2.0)
for mode in ("sqrt", "rsqrt", "inverse", "power", "exp", "log", "abs", "threshold"):
    call("unary", **ONE, mode=mode)
    call("unary", **ONE, mode=mode, alpha=0.5, shift=2.0, scale=3.0, epsilon=0.25)
for name, flag in (
    ("greater_than", "use_greater_than_equal"),
    ("less_than", "use_less_than_equal"),
):
    call(name, **TWO)
    call(name, **ALONE, alpha=2.5)
    call(name, **TWO, **{flag: True})
    call(name, input_names="x", output_name="y", alpha=2.5, **{flag: True})
for name in ("equal", "not_equal"):
    call(name, **TWO)
    call(name, input_names="x", output_name="y", alpha=2.5)
for mode in ("AND", "OR", "XOR"):
    call("logical", **TWO, mode=mode)
call("logical", input_names="x", output_name="y", mode="NOT")

# ---- matrices and constants ---------------------------------------------------------------

INNER = {"input_channels": 3, "output_channels": 2, **ONE}
call("inner_product", W=floats(2, 3), b=floats(2), has_bias=True, **INNER)
call("inner_product", W=floats(2, 3), b=None, has_bias=False, **INNER)
call("inner_product", W=floats(2, 3).astype(np.float16), b=floats(2), has_bias=True, **INNER)
call("inner_product", W=RNG.normal(size=(2, 3)), b=floats(2), has_bias=True, **INNER)
for options in QUANTIZED:
    call("inner_product", W=packed(6, options["nbits"]), b=floats(2), has_bias=True, **INNER,
         is_quantized_weight=True, **options)  # fmt: skip
call("inner_product", W=packed(6), b=None, has_bias=False, **INNER, is_quantized_weight=True,
     int_8_dynamic_quantize=True, quant_scale=SCALE)  # fmt: skip
EMBED = {"input_dim": 3, "output_channels": 2, **ONE}
call("embedding", W=floats(2, 3), b=floats(2), has_bias=True, **EMBED)
EMBED_ND = {"vocab_size": 3, "embedding_size": 2, **ONE}
call("embedding_nd", W=floats(2, 3), **EMBED_ND)
call("embedding_nd", W=floats(2, 3), b=floats(2), **EMBED_ND)
for options in QUANTIZED:
    quantized = {"W": packed(6, options["nbits"]), "is_quantized_weight": True, **options}
    call("embedding", b=None, has_bias=False, **EMBED, **quantized)
    call("embedding_nd", **EMBED_ND, **quantized)
MATMUL = {"weight_matrix_rows": 3, "weight_matrix_columns": 2}
call("batched_mat_mul", **TWO)
call("batched_mat_mul", **TWO, transpose_a=True, transpose_b=True)
call("batched_mat_mul", **ALONE, **MATMUL, W=floats(3, 2), bias=floats(2))
for options in (LINEAR_8, LINEAR_3, LUT_2):
    call("batched_mat_mul", **ALONE, **MATMUL, W=packed(6, options["nbits"]),
         is_quantized_weight=True, **options)  # fmt: skip
call("batched_mat_mul", **ALONE, **MATMUL, W=packed(6), is_quantized_weight=True,
     int_8_dynamic_quantize=True, quant_scale=SCALE)  # fmt: skip
call("scale", W=2, b=3, has_bias=True, **ONE)
call("scale", W=floats(3), b=None, has_bias=False, **ONE, shape_scale=[3])
call("scale", W=floats(3, 1, 2), b=floats(3), has_bias=True, **ONE, shape_scale=[3, 1, 2],
     shape_bias=[3])  # fmt: skip
call("bias", b=2, **ONE)
call("bias", b=floats(3, 1, 2), **ONE, shape_bias=[3, 1, 2])
call("load_constant", output_name="y", constant_value=floats(3, 1, 2), shape=[3, 1, 2])
call("load_constant_nd", output_name="y", constant_value=floats(3, 2), shape=(3, 2))

# ---- height and width ---------------------------------------------------------------------

CONV: dict[str, Any] = {
    "kernel_channels": 3, "output_channels": 4, "height": 2, "width": 5, "stride_height": 1,
    "stride_width": 2,
}  # fmt: skip
EDGES = {"padding_top": 1, "padding_bottom": 2, "padding_left": 3, "padding_right": 4}
HEAVY = {"same_padding_asymmetry_mode": "TOP_LEFT_HEAVY"}
kernel = floats(2, 5, 3, 4)
call("convolution", **CONV, border_mode="valid", groups=1, W=kernel, b=floats(4), has_bias=True)
call("convolution", **CONV, border_mode="SAME", groups=2, W=kernel, b=None, has_bias=False, **ONE,
     dilation_factors=[2, 3], **HEAVY)  # fmt: skip
call("convolution", **CONV, border_mode="valid", groups=1, W=kernel, b=None, has_bias=False,
     **EDGES, input_name=("x",), output_name="y")  # fmt: skip
call("convolution", **CONV, border_mode="same", groups=1, W=kernel, b=floats(4), has_bias=True,
     is_deconv=True, output_shape=[7, 8])  # fmt: skip
call("convolution", **CONV, border_mode="valid", groups=1, W=None, b=None, has_bias=False,
     input_name=["x", "w"], output_name="y")  # fmt: skip
for options in (LINEAR_8, LINEAR_3, LUT_2):
    call("convolution", **CONV, border_mode="valid", groups=1, W=packed(120, options["nbits"]),
         b=None, has_bias=False, **options)  # fmt: skip
CONV3D = {"input_channels": 3, "output_channels": 4, "depth": 2, "height": 3, "width": 5}
PADS = {"padding_front": 5, "padding_back": 6, **EDGES}
call("convolution3d", **CONV3D, W=floats(4, 3, 2, 3, 5), b=floats(4), has_bias=True)
call("convolution3d", **CONV3D, W=floats(4, 1, 2, 3, 5), b=None, has_bias=False, groups=3,
     stride_depth=2, stride_height=3, stride_width=4, dilation_depth=5, dilation_height=6,
     dilation_width=7, padding_mode="custom", **PADS, **ONE)  # fmt: skip
call("convolution3d", **CONV3D, W=floats(4, 3, 2, 3, 5), b=None, has_bias=False, is_deconv=True,
     output_shape=[7, 8, 9], padding_mode="SAME")  # fmt: skip
POOL: dict[str, Any] = {"height": 2, "width": 3, "stride_height": 4, "stride_width": 5, **ONE}
call("pooling", **POOL, layer_type="MAX", padding_type="VALID", **EDGES)
call("pooling", **POOL, layer_type="average", padding_type="same", exclude_pad_area=False, **HEAVY)
call("pooling", **POOL, layer_type="L2", padding_type="INCLUDE_LAST_PIXEL", padding_top=1,
     padding_bottom=1, is_global=True)  # fmt: skip
POOL3D: dict[str, Any] = {
    "kernel_depth": 1, "kernel_height": 2, "kernel_width": 3, "stride_depth": 4,
    "stride_height": 5, "stride_width": 6, **ONE,
}  # fmt: skip
call("pooling3d", **POOL3D, pooling_type="max")
call("pooling3d", **POOL3D, pooling_type="AVERAGE", padding_mode="custom", **{
    f"custom_{name}": amount for name, amount in PADS.items()},
    average_pooling_count_excludes_padding=True)  # fmt: skip
call("global_pooling3d", **ONE, pooling_type="average")
call("padding")
for kind in ("constant", "reflection", "replication"):
    call("padding", left=1, right=2, top=3, bottom=4, value=0.5, **ONE, padding_type=kind)
call("crop", left=1, right=2, top=3, bottom=4, offset=[5, 6], **ALONE)
call("crop", left=0, right=0, top=0, bottom=0, offset=[5, 6], **TWO)
call("upsample", scaling_factor_h=2, scaling_factor_w=3, **ONE)
call("upsample", scaling_factor_h=2, scaling_factor_w=3, **ONE, mode="bilinear")
call("upsample", scaling_factor_h=1.5, scaling_factor_w=3, **ONE, mode="BILINEAR",
     linear_upsample_mode="ALIGN_CORNERS_TRUE")  # fmt: skip
call("resize_bilinear", **ONE)
call("resize_bilinear", **ONE, target_height=5, target_width=6, mode="roi_align_mode")
call("crop_resize", **TWO)
call("crop_resize", **TWO, target_height=5, target_width=6, mode="UPSAMPLE_MODE",
     normalized_roi=True, box_indices_mode="CENTER_SIZE_WIDTH_FIRST",
     spatial_scale=0.5)  # fmt: skip
for mode in ("SPACE_TO_DEPTH", "depth_to_space", "PIXEL_SHUFFLE"):
    call("reorganize_data", **ONE, mode=mode, block_size=3)

# ---- recurrent ----------------------------------------------------------------------------

STATES = {"input_names": ["x", "h"], "output_names": ["y", "h_out"]}
CELLS = {"input_names": ["x", "h", "c"], "output_names": ["y", "h_out", "c_out"]}
SIZES = {"hidden_size": 2, "input_size": 3}


def each_gate(count: int, *shape: int) -> list[np.ndarray]:
    return [floats(*shape) for _ in range(count)]


call("simple_rnn", W_h=floats(2, 2), W_x=floats(2, 3), b=None, **SIZES, activation="TANH", **STATES)
for activation in ("SIGMOID", "LINEAR", "SIGMOID_HARD", "SCALED_TANH", "relu"):
    call("simple_rnn", W_h=floats(2, 2), W_x=floats(2, 3), b=floats(2), **SIZES,
         activation=activation, **STATES, output_all=True, reverse_input=True)  # fmt: skip
GRU = {"W_h": each_gate(3, 2, 2), "W_x": each_gate(3, 2, 3), **SIZES, **STATES}
call("gru", **GRU, b=None)
call("gru", **GRU, b=each_gate(3, 2), activation="RELU", inner_activation="SIGMOID",
     output_all=True, reverse_input=True)  # fmt: skip
LSTM = {"W_h": each_gate(4, 2, 2), "W_x": each_gate(4, 2, 3), **SIZES}
CHOSEN: dict[str, Any] = {
    "inner_activation": "SIGMOID_HARD", "cell_state_update_activation": "RELU",
    "output_activation": "LINEAR", "output_all": True, "forget_bias": True,
    "coupled_input_forget_gate": True, "cell_clip_threshold": 3.0,
}  # fmt: skip
call("unilstm", **LSTM, **CELLS, b=None)
call("unilstm", **LSTM, **CELLS, b=each_gate(4, 2), peep=each_gate(3, 2), **CHOSEN,
     reverse_input=True)  # fmt: skip
BACK = {"W_h_back": each_gate(4, 2, 2), "W_x_back": each_gate(4, 2, 3)}
BOTH = {
    "input_names": ["x", "h", "c", "hb", "cb"],
    "output_names": ["y", "h_out", "c_out", "hb_out", "cb_out"],
}
call("bidirlstm", **LSTM, **BACK, **BOTH, b=None, b_back=None)
call("bidirlstm", **LSTM, **BACK, **BOTH, b=each_gate(4, 2), b_back=each_gate(4, 2),
     peep=each_gate(3, 2), peep_back=each_gate(3, 2), **CHOSEN)  # fmt: skip

# ---- normalization, reduction, sorting ------------------------------------------------------

call("lrn", **ONE, alpha=0.5, beta=0.25, local_size=3)
call("lrn", **ONE, alpha=0.5, beta=0.25, local_size=3, k=2.0)
call("mvn", **ONE)
call("mvn", **ONE, across_channels=False, normalize_variance=False, epsilon=0.5)
call("l2_normalize", **ONE)
call("l2_normalize", **ONE, epsilon=0.5)
call("softmax_nd", **ONE, axis=-1)
SHIFTS = {"channels": 3, "gamma": floats(3), "beta": floats(3)}
call("batchnorm", **SHIFTS, mean=floats(3), variance=floats(3))
call("batchnorm", **SHIFTS, **ONE, compute_mean_var=True, instance_normalization=True, epsilon=0.5)
call("layer_normalization", **ONE, normalized_shape=[2, 3], gamma=floats(2, 3), beta=floats(2, 3))
call("layer_normalization", **ONE, normalized_shape=(3,), gamma=floats(3), beta=floats(3), eps=0.5)
for mode in ("sum", "avg", "prod", "logsum", "sumsquare", "l1", "l2", "max", "min", "argmax"):
    call("reduce", **ONE, axis="HW", mode=mode)
for axis in ("CHW", "c", "H", "W"):
    call("reduce", **ONE, axis=axis, mode="sum", epsilon=0.5)
for name in (
    "sum", "prod", "mean", "max", "min", "l2", "l1", "sumsquare", "logsum", "logsumexp",
):  # fmt: skip
    call(f"reduce_{name}", **ONE)
    call(f"reduce_{name}", **ONE, axes=[-1, 1], keepdims=False)
    call(f"reduce_{name}", **ONE, axes=[1], reduce_all=True)
for name in ("argmax", "argmin"):
    call(name, **ONE, axis=1)
    call(name, **ONE, axis=-1, keepdims=False)
call("topk", input_names=["x"], output_names=["y", "i"])
call("topk", input_names=["x", "k"], output_names=["y", "i"], k=3, axis=-1, use_bottom_k=True)
call("argsort", **ONE)
call("argsort", **ONE, axis=-1, descending=True)
call("cumsum", **ALONE)
call("cumsum", **ALONE, axis=1, reverse=True, exclusive=True)
NMS = {"input_names": ["b", "s"], "output_names": ["ob", "os", "oi", "on"]}
call("nms", **NMS)
call("nms", **NMS, iou_threshold=0.25, score_threshold=0.5, max_boxes=7, per_class_suppression=True)

# ---- shapes -------------------------------------------------------------------------------

for mode in (0, 1):
    call("flatten", **ONE, mode=mode)
    call("reshape", **ONE, target_shape=(2, 3, 4), mode=mode)
call("reshape", **ONE, target_shape=(1, 2, 3, 4), mode=0)
call("sequence_repeat", **ONE, nrep=3)
call("permute", **ONE, dim=(0, 2, 3, 1))
call("split", input_name="x", output_names=["a", "b"])
for axis in ("channel", "HEIGHT", "width"):
    call("slice", **ONE, axis=axis)
    call("slice", **ONE, axis=axis, start_index=1, end_index=5, stride=2)
call("slice_by_size", **TWO, axis=1, size=3)
call("transpose", **ONE, axes=(0, 2, -1, 1))
call("concat_nd", **TWO, axis=1)
call("concat_nd", **TWO, axis=1, interleave=True)
call("stack", **TWO)
call("stack", **TWO, axis=2)
call("split_nd", input_name="x", output_names=["a", "b"], axis=1)
call("split_nd", input_name="x", output_names=["a", "b", "c"], axis=1, num_splits=3)
call("split_nd", input_name="x", output_names=["a", "b", "c"], axis=1, split_sizes=[1, 2, 3])
SLICE: dict[str, Any] = {
    "end_ids": [3, 4], "strides": [1, 2], "begin_masks": [True, False],
    "end_masks": [False, True],
}  # fmt: skip
call("slice_static", **ONE, begin_ids=[1, 2], **SLICE)
call("slice_static", **ONE, begin_ids=[1, 2], **SLICE, squeeze_masks=[True, False])
call("slice_dynamic", **TWO)
call("slice_dynamic", **TWO, **SLICE, squeeze_masks=[True, False])
call("tile", **ONE)
call("tile", **ONE, reps=[1, 2])
call("tile", input_name=["x", "n"], output_name="y", reps=[1, 2])
call("sliding_windows", **ONE, axis=1, window_size=3)
call("sliding_windows", **ONE, axis=1, window_size=3, step=2)
call("reverse", **ONE)
call("reverse", **ONE, reverse_dim=[True, False])
call("reverse_sequence", **TWO)
call("reverse_sequence", **TWO, batch_axis=1, seq_axis=2)
call("constant_pad", **ALONE, pad_amounts=[1, 2, 3, 4])
call("constant_pad", **TWO, value=2.0, pad_to_given_output_size_mode=True)
call("get_shape", **ONE)
call("broadcast_to_like", **TWO)
call("broadcast_to_static", **ONE, output_shape=(2, 3))
call("broadcast_to_dynamic", **TWO)
call("expand_dims", **ONE, axes=[0, -1])
call("squeeze", **ONE)
call("squeeze", **ONE, axes=[0])
call("squeeze", **ONE, squeeze_all=True)
call("flatten_to_2d", **ONE)
call("flatten_to_2d", **ONE, axis=-1)
call("reshape_like", **TWO)
call("reshape_static", **ONE, output_shape=(2, -1))
call("reshape_dynamic", **TWO)
call("rank_preserving_reshape", **ONE, output_shape=(2, 0, -1))

# ---- indices, constants, random numbers -----------------------------------------------------

for name in ("gather", "gather_along_axis"):
    call(name, **TWO)
    call(name, **TWO, axis=-1)
call("gather_nd", **TWO)
THREE = {"input_names": ["x", "i", "u"], "output_name": "y"}
for mode in ("UPDATE", "ADD", "sub", "MUL", "DIV", "MAX", "MIN"):
    call("scatter", **THREE, axis=-1, mode=mode)
    call("scatter_along_axis", **THREE, axis=1, mode=mode)
    call("scatter_nd", **THREE, mode=mode)
call("where_nonzero", **ONE)
call("matrix_band_part", **ONE)
call("matrix_band_part", **ONE, num_lower=1, num_upper=2)
for name in ("lower_triangular", "upper_triangular"):
    call(name, **ONE)
    call(name, **ONE, k=-1)
call("one_hot", **ALONE)
call("one_hot", **ALONE, one_hot_vector_size=5, axis=1, on_value=2.0, off_value=-1.0)
call("fill_like", **ONE, value=2.0)
call("fill_static", output_name="y", output_shape=[2, 3], value=2.0)
call("fill_dynamic", **ONE, value=2.0)
call("range_static", output_name="y", input_names=[])
call("range_static", output_name="y", input_names=["x"], end=7, start=2, step=3)
call("range_dynamic", **ALONE)
call("range_dynamic", **ALONE, start=2, step=3)
for name, options in {
    "normal": {"mean": 0.5, "stddev": 2.0, "seed": 3},
    "uniform": {"minval": 0.5, "maxval": 2.0, "seed": 3},
    "bernoulli": {"prob": 0.25, "seed": 3},
}.items():
    for given in ({}, options):
        call(f"random_{name}_like", **ONE, **given)
        call(f"random_{name}_static", output_name="y", output_shape=[2, 3], **given)
        call(f"random_{name}_dynamic", **ALONE, **given)
call("categorical_distribution", **ONE, num_samples=3)
call("categorical_distribution", **ONE, num_samples=3, is_logits=False, eps=0.5, temperature=2.0,
     seed=4)  # fmt: skip

# ---- control flow and custom layers ---------------------------------------------------------

custom = NeuralNetwork_pb2.CustomLayerParams(className="Grid", description="of points")
custom.parameters["size"].intValue = 3
custom.weights.add().floatValue.extend([1.0, 2.0])
call("custom", input_names=["x"], output_names=["y", "z"])
call("custom", input_names=["x"], output_names=["y"], custom_proto_spec=custom)
call("branch", input_name="x")
call("loop")
call("loop", input_name="x", condition="go", max_iterations=3)
call("loop_break")
call("loop_continue")

# Networks that are given: coremltools assigns them to a field, which protobuf refuses.
GIVEN_NETWORKS = {
    "add_branch": ("if_branch", "else_branch"),
    "add_loop": ("body_network", "condition_network"),
}
