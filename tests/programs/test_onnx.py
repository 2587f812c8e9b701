"""Programs run by onnxruntime and exported to ONNX, beside the NumPy engine and formulas."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import mlferry
from mlferry.errors import ExportError, SpecError, UnsupportedOperationsError
from mlferry.layers.builder import Builder
from mlferry.programs.definitions import DEFINITIONS
from mlferry.programs.exports import EXPORTS
from mlferry.programs.kernels import KERNELS
from mlferry.registry import Registry

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
logging.getLogger("coremltools").setLevel(logging.ERROR)
ct = pytest.importorskip("coremltools")

mb = ct.converters.mil.Builder
types = ct.converters.mil.mil.types
get_new_symbol = ct.converters.mil.mil.program.get_new_symbol
Array = np.ndarray[Any, Any]
Given = Mapping[str, Array]
RNG = np.random.default_rng(20)
TARGETS = {5: ct.target.iOS15, 6: ct.target.iOS16, 7: ct.target.iOS17, 8: ct.target.iOS18}
NUMBERS = {"float32": types.fp32, "int32": types.int32, "bool": types.bool, "float16": types.fp16}


class Row(NamedTuple):
    """An op in a small program.

    Attributes:
        build: the program, from its inputs.
        given: their values.
        formula: what comes out; None where only the engines are compared.
        opset: of the program.
    """

    build: Callable[..., Any]
    given: Given
    formula: Callable[..., Any] | None = None
    opset: int = 7


def floats(*shape: int, low: float = -2, high: float = 2) -> Array:
    return RNG.uniform(low, high, shape).astype(np.float32)


def whole(*shape: int, low: int = 0, high: int = 5) -> Array:
    return RNG.integers(low, high, shape).astype(np.int32)


def package(
    folder: Path, build: Callable[..., Any], inputs: Given, opset: int = 7, **options: Any
) -> Path:
    """A program that coremltools writes, in float32 unless it is told otherwise."""
    specs = [mb.TensorSpec(x.shape, NUMBERS[x.dtype.name]) for x in inputs.values()]
    program = mb.program(input_specs=specs, opset_version=TARGETS[opset])(build)
    settings = {"compute_precision": ct.precision.FLOAT32, **options}
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=TARGETS[opset],
        skip_model_load=True,
        **settings,
    )
    path = folder / "model.mlpackage"
    model.save(str(path))
    return path


def exported(path: Path, inputs: Given, **options: Any) -> dict[str, Array]:
    """What the exported graph gives."""
    message = mlferry.export_onnx(mlferry.MLModel(path), **options)
    onnx.checker.check_model(message, full_check=True)
    settings = ort.SessionOptions()
    settings.log_severity_level, settings.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(message.SerializeToString(), settings)
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(inputs)), strict=True))


def described(path: Path, inputs: Given) -> dict[str, Array]:
    """Values in the types that the model describes: it has no booleans."""
    expected = mlferry.MLModel(path).spec.description.input
    kinds = {f.name: "int32" if f.type.multiArrayType.dataType == 131104 else "float32"
             for f in expected}  # fmt: skip
    return {name: x.astype(kinds[name]) for name, x in inputs.items()}


X = floats(2, 3, 4)
IMAGE = floats(1, 2, 5, 6)
POSITIVE = floats(2, 3, 4, low=0.2)
MATRIX = floats(5, 4)
NUMBER = np.array([[-7, 3], [8, -2]], np.int32)
UNARY: dict[str, Callable[[Array], Array]] = {
    "abs": np.abs, "atan": np.arctan, "ceil": np.ceil, "cos": np.cos, "cosh": np.cosh,
    "exp": np.exp, "exp2": np.exp2, "floor": np.floor, "round": np.rint, "sign": np.sign,
    "sin": np.sin, "sinh": np.sinh, "square": np.square, "tan": np.tan, "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0), "relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "silu": lambda x: x / (1 + np.exp(-x)),
    "softplus": lambda x: np.log1p(np.exp(x)), "softsign": lambda x: x / (1 + abs(x)),
}  # fmt: skip
BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "maximum": np.maximum,
    "minimum": np.minimum, "real_div": np.true_divide, "floor_div": np.floor_divide,
    "mod": np.mod,
}  # fmt: skip
REDUCED: dict[str, Callable[[Array], Array]] = {
    "reduce_sum": lambda x: x.sum(1), "reduce_mean": lambda x: x.mean(1),
    "reduce_max": lambda x: x.max(1), "reduce_min": lambda x: x.min(1),
    "reduce_prod": lambda x: x.prod(1), "reduce_l1_norm": lambda x: abs(x).sum(1),
    "reduce_l2_norm": lambda x: np.sqrt((x * x).sum(1)),
    "reduce_log_sum": lambda x: np.log(x.sum(1)),
    "reduce_log_sum_exp": lambda x: np.log(np.exp(x).sum(1)),
    "reduce_sum_square": lambda x: (x * x).sum(1),
}  # fmt: skip


def of_one(op: str) -> Callable[..., Any]:
    return lambda x: getattr(mb, op)(x=x)


def of_two(op: str) -> Callable[..., Any]:
    return lambda x, y: getattr(mb, op)(x=x, y=y)


def along(op: str) -> Callable[..., Any]:
    return lambda x: getattr(mb, op)(x=x, axes=[1], keep_dims=False)


def counted(index: int) -> Callable[..., Any]:
    """A program that goes on with values that one output of an op makes."""
    return lambda x: mb.topk(x=x, k=2, axis=-1)[index]


def lstm_row(**options: Any) -> Row:
    units = 3
    both = 2 if options.get("direction") == "bidirectional" else 1
    weights = {"weight_ih": floats(4 * units, 2), "weight_hh": floats(4 * units, units)}
    if both == 2:
        weights |= {
            "weight_ih_back": floats(4 * units, 2),
            "weight_hh_back": floats(4 * units, units),
        }

    def build(x: Any, h: Any, c: Any) -> Any:
        result = mb.lstm(x=x, initial_h=h, initial_c=c, output_sequence=True, **weights, **options)
        return result[0], result[2]

    states = {"h": floats(2, both * units), "c": floats(2, both * units)}
    return Row(build, {"x": floats(4, 2, 2), **states})


def gru_row(opset: int = 7, **options: Any) -> Row:
    weights = {"weight_ih": floats(9, 2), "weight_hh": floats(9, 3), "bias": floats(9)}
    return Row(
        lambda x, h: mb.gru(x=x, initial_h=h, output_sequence=True, **weights, **options)[0],
        {"x": floats(4, 2, 2), "h": floats(2, 3)},
        opset=opset,
    )


def listed(x: Any) -> Any:
    """A list that a loop fills from the end, and lengthens."""
    ls = mb.make_list(init_length=3, dynamic_length=True, elem_shape=(3,))

    def body(i: Any, ls: Any) -> Any:
        row = mb.gather(x=x, indices=i, axis=0)
        return mb.add(x=i, y=1), mb.list_write(ls=ls, index=mb.sub(x=6, y=i), value=row)

    _, ls = mb.while_loop(_cond=lambda i, ls: mb.less(x=i, y=4), _body=body, loop_vars=(0, ls))
    gone = mb.sub(x=mb.list_length(ls=ls), y=2)
    twice = mb.mul(x=mb.list_read(ls=ls, index=gone), y=2.0)
    ls = mb.list_scatter(ls=ls, indices=[5], value=mb.expand_dims(x=twice, axes=[0]))
    rows = mb.list_gather(ls=ls, indices=[5, 6, 3, 1])
    return mb.mul(x=rows, y=np.array([[1.0], [2.0], [2.0], [1.0]], np.float32))


def scatter_row(mode: str) -> Row:
    return Row(
        lambda x, u: mb.scatter(data=x, indices=[2, 0, 2], updates=u, axis=1, mode=mode),
        {"x": X, "u": floats(2, 3, 4, low=0.5)},
    )


def resize_row(mode: str) -> Row:
    return Row(
        lambda x: mb.resize_bilinear(
            x=x, target_size_height=7, target_size_width=4, sampling_mode=mode
        ),
        {"x": IMAGE},
    )


def resample_row(padding: str) -> Row:
    return Row(
        lambda x, c: mb.resample(
            x=x,
            coordinates=c,
            sampling_mode="bilinear",
            padding_mode=padding,
            padding_value=1.5,
            coordinates_mode="normalized_minus_one_to_one",
            align_corners=False,
        ),
        {"x": IMAGE, "c": floats(1, 3, 4, 2, low=-1.8, high=1.8)},
    )


def scaled_by(factor: float) -> Callable[..., Any]:
    return lambda x: mb.mul(x=x, y=factor)


def softmax(x: Array) -> Array:
    y = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(y / y.sum(-1, keepdims=True))


ROWS: dict[str, Row] = {
    **{op: Row(of_one(op), {"x": X}, formula) for op, formula in UNARY.items()},
    **{
        f"{op} of floats": Row(of_two(op), {"x": X, "y": POSITIVE}, formula)
        for op, formula in BINARY.items()
    },
    **{
        f"{op} of integers": Row(
            of_two(op), {"x": NUMBER, "y": np.array([[2, 5], [-3, 4]], np.int32)}, formula
        )
        for op, formula in BINARY.items()
        if op != "real_div"
    },
    **{op: Row(along(op), {"x": POSITIVE}, formula) for op, formula in REDUCED.items()},
    "log": Row(lambda x: mb.log(x=x, epsilon=0.5), {"x": POSITIVE}, lambda x: np.log(x + 0.5)),
    "inverse": Row(lambda x: mb.inverse(x=x, epsilon=0.5), {"x": POSITIVE},
                   lambda x: 1 / (x + 0.5)),
    "rsqrt": Row(lambda x: mb.rsqrt(x=x), {"x": POSITIVE}, lambda x: 1 / np.sqrt(x)),
    "clip": Row(lambda x: mb.clip(x=x, alpha=-0.5, beta=0.7), {"x": X},
                lambda x: np.clip(x, -0.5, 0.7)),
    "thresholded_relu": Row(lambda x: mb.thresholded_relu(x=x, alpha=0.5), {"x": X},
                            lambda x: np.where(x >= 0.5, x, 0)),
    "leaky_relu": Row(lambda x: mb.leaky_relu(x=x, alpha=0.1), {"x": X},
                      lambda x: np.where(x > 0, x, 0.1 * x)),
    "elu": Row(lambda x: mb.elu(x=x, alpha=0.7), {"x": X},
               lambda x: np.where(x > 0, x, 0.7 * np.expm1(x))),
    "prelu": Row(
        lambda x: mb.prelu(x=x, alpha=np.array([0.1, 0.2], np.float32)),
        {"x": IMAGE},
        lambda x: np.where(x > 0, x, x * np.array([0.1, 0.2]).reshape(2, 1, 1)),
    ),
    "gelu by tanh": Row(lambda x: mb.gelu(x=x, mode="TANH_APPROXIMATION"), {"x": X}),
    "gelu": Row(lambda x: mb.gelu(x=x), {"x": X}),
    "softmax": Row(lambda x: mb.softmax(x=x, axis=-1), {"x": X}, softmax),
    "comparing": Row(lambda x, y: mb.cast(x=mb.less_equal(x=x, y=y), dtype="int32"),
                     {"x": NUMBER, "y": NUMBER.T.copy()}, lambda x, y: (x <= y).astype(int)),
    "select": Row(lambda x, y: mb.select(cond=mb.greater(x=x, y=y), a=x, b=y),
                  {"x": X, "y": POSITIVE}, np.maximum),
    "cast": Row(lambda x: mb.cast(x=x, dtype="int32"), {"x": X}, lambda x: np.trunc(x).astype(int)),
    "linear": Row(lambda x: mb.linear(x=x, weight=MATRIX, bias=floats(5)), {"x": X}),
    "matmul": Row(lambda x, y: mb.matmul(x=x, y=y, transpose_y=True), {"x": X, "y": X[::-1].copy()},
                  lambda x, y: x @ y.swapaxes(-1, -2)),
    "einsum": Row(
        lambda x, y: mb.einsum(values=(x, y), equation="abcd,adce->abce"),
        {"x": IMAGE, "y": floats(3, 6, 5, 2)},
        lambda x, y: np.einsum("bcd,adce->abce", x[0], y),
    ),
    "attention": Row(
        lambda q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v),
        {"q": X, "k": floats(2, 5, 4), "v": floats(2, 5, 6)},
        lambda q, k, v: softmax(q @ k.swapaxes(-1, -2) / 2) @ v,
        8,
    ),
    "conv": Row(lambda x: mb.conv(x=x, weight=floats(4, 2, 3, 3), bias=floats(4), pad_type="same",
                                  strides=[2, 1]), {"x": IMAGE}),
    "conv by groups": Row(lambda x: mb.conv(x=x, weight=floats(4, 1, 3, 2), pad_type="custom",
                                            pad=[1, 0, 2, 1], groups=2), {"x": IMAGE}),
    "conv_transpose": Row(lambda x: mb.conv_transpose(x=x, weight=floats(2, 3, 3, 3),
                                                      strides=[2, 2], pad_type="same"),
                          {"x": IMAGE}),
    "max_pool": Row(lambda x: mb.max_pool(x=x, kernel_sizes=[3, 2], strides=[2, 2],
                                          pad_type="custom", pad=[1, 1, 1, 1], ceil_mode=True),
                    {"x": IMAGE}),
    "avg_pool": Row(lambda x: mb.avg_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2],
                                          pad_type="same", exclude_padding_from_average=True),
                    {"x": IMAGE}),
    "l2_pool": Row(lambda x: mb.l2_pool(x=x, kernel_sizes=[2, 2], pad_type="valid"), {"x": IMAGE}),
    "batch_norm": Row(lambda x: mb.batch_norm(x=x, mean=floats(2), variance=floats(2, low=0.5),
                                              gamma=floats(2)), {"x": IMAGE}),
    "instance_norm": Row(lambda x: mb.instance_norm(x=x, gamma=floats(2), beta=floats(2)),
                         {"x": IMAGE}),
    "layer_norm": Row(lambda x: mb.layer_norm(x=x, axes=[-1], gamma=floats(4), beta=floats(4)),
                      {"x": X}),
    "l2_norm": Row(lambda x: mb.l2_norm(x=x), {"x": IMAGE}),
    "local_response_norm": Row(lambda x: mb.local_response_norm(x=x, size=2), {"x": IMAGE}),
    "reduce_argmax": Row(lambda x: mb.reduce_argmax(x=x, axis=1, keep_dims=False), {"x": X},
                         lambda x: x.argmax(1)),
    "reshape": Row(lambda x: mb.reshape(x=x, shape=[0, -1]), {"x": X}),
    "transpose": Row(lambda x: mb.transpose(x=x, perm=[2, 0, 1]), {"x": X},
                     lambda x: x.transpose(2, 0, 1)),
    "reverse": Row(lambda x: mb.reverse(x=x, axes=[0, 2]), {"x": X}, lambda x: x[::-1, :, ::-1]),
    "reverse_sequence": Row(lambda x: mb.reverse_sequence(x=x, lengths=[2, 3], seq_axis=1,
                                                          batch_axis=0), {"x": X}),
    "space_to_batch": Row(lambda x: mb.space_to_batch(x=x, block_shape=[2, 3],
                                                      paddings=[[1, 0], [0, 0]]), {"x": IMAGE}),
    "pixel_unshuffle": Row(lambda x: mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(2)),
                           {"x": floats(1, 2, 4, 6)}),
    "concat": Row(lambda x, y: mb.concat(values=[x, y], axis=1, interleave=True),
                  {"x": X, "y": POSITIVE}),
    "stack": Row(lambda x, y: mb.stack(values=[x, y], axis=-1), {"x": X, "y": POSITIVE},
                 lambda x, y: np.stack([x, y], -1)),
    "split": Row(lambda x: mb.split(x=x, split_sizes=[1, 3], axis=2)[1], {"x": X},
                 lambda x: x[:, :, 1:]),
    "tile": Row(lambda x: mb.tile(x=x, reps=[1, 2, 1]), {"x": X}, lambda x: np.tile(x, (1, 2, 1))),
    "pad": Row(lambda x: mb.pad(x=x, pad=[1, 2, 0, 1], mode="reflect"), {"x": X},
               lambda x: np.pad(x, [(0, 0), (1, 2), (0, 1)], "reflect")),
    "band_part": Row(lambda x: mb.band_part(x=x, lower=1, upper=0), {"x": X},
                     lambda x: np.tril(x) - np.tril(x, -2)),
    "range_1d": Row(lambda x: mb.range_1d(start=0.5, end=mb.reduce_max(x=x), step=0.3), {"x": X},
                    lambda x: np.arange(0.5, x.max(), 0.3)),
    "slice_by_index": Row(lambda x: mb.slice_by_index(x=x, begin=[1, 0, 3], end=[0, 3, 0],
                                                      stride=[1, 2, -1],
                                                      squeeze_mask=[True, False, False],
                                                      end_mask=[False, False, True]),
                          {"x": X}, lambda x: x[1, 0:3:2, ::-1]),
    "slice by computed places": Row(
        lambda x, at: mb.slice_by_index(x=x, begin=at, end=[2, 3, 4], stride=[1, 1, 1]),
        {"x": X, "at": np.array([1, 0, 2], np.int32)}, lambda x, at: x[1:2, 0:3, 2:4]),
    "slice_by_size": Row(lambda x: mb.slice_by_size(x=x, begin=[0, 1, 1], size=[2, -1, 2]),
                         {"x": X}, lambda x: x[:, 1:, 1:3]),
    "slice_update": Row(lambda x, y: mb.slice_update(x=x, update=y, begin=[0, 1, 0], end=[2, 3, 4],
                                                     stride=[1, 1, 2]),
                        {"x": X, "y": floats(2, 2, 2)}, opset=8),
    "sliding_windows": Row(lambda x: mb.sliding_windows(x=x, axis=2, size=2, stride=2), {"x": X}),
    "gather": Row(lambda x, i: mb.gather(x=x, indices=i, axis=1), {"x": X, "i": whole(2, high=3)},
                  lambda x, i: x.take(i, 1)),
    "gather by batches": Row(lambda x, i: mb.gather(x=x, indices=i, axis=2, batch_dims=1),
                             {"x": X, "i": whole(2, 5, high=4)},
                             lambda x, i: np.stack([a.take(b, 1) for a, b in zip(x, i, strict=True)]
                                                   )),
    "gather_nd": Row(lambda x, i: mb.gather_nd(x=x, indices=i), {"x": X, "i": whole(5, 2, high=2)},
                     lambda x, i: x[i[:, 0], i[:, 1]]),
    "gather_along_axis": Row(lambda x, i: mb.gather_along_axis(x=x, indices=i, axis=2),
                             {"x": X, "i": whole(2, 3, 2, high=4)},
                             lambda x, i: np.take_along_axis(x, i, 2)),
    **{
        f"scatter {mode}": scatter_row(mode)
        for mode in ("add", "sub", "mul", "div", "max", "min")
    },
    "scatter_nd": Row(lambda x, u: mb.scatter_nd(data=x, indices=[[1, 2], [0, 0]], updates=u,
                                                 mode="update"), {"x": X, "u": floats(2, 4)}),
    "scatter_along_axis": Row(
        lambda x, u: mb.scatter_along_axis(data=x, indices=whole(2, 3, 2, high=4), updates=u,
                                           axis=2, mode="add"), {"x": X, "u": floats(2, 3, 2)}),
    "topk": Row(counted(0), {"x": X}, lambda x: -np.sort(-x, -1)[..., :2]),
    "places of topk": Row(counted(1), {"x": X}, lambda x: np.argsort(-x, -1)[..., :2]),
    "argsort": Row(lambda x: mb.argsort(x=x, axis=1, ascending=True), {"x": X},
                   lambda x: x.argsort(1)),
    "one_hot": Row(lambda i: mb.one_hot(indices=i, one_hot_vector_size=4, axis=1, on_value=2.0,
                                        off_value=-1.0), {"i": whole(2, 3, high=5)}),
    "non_zero": Row(lambda x: mb.non_zero(x=x), {"x": whole(3, 4, high=2)}, np.argwhere),
    "cumsum": Row(lambda x: mb.cumsum(x=x, axis=1, exclusive=True, reverse=True), {"x": X}),
    "non_maximum_suppression": Row(
        lambda b, s: mb.non_maximum_suppression(boxes=b, scores=s, iou_threshold=0.3,
                                                score_threshold=0.2, max_boxes=4,
                                                per_class_suppression=True),
        {"b": floats(1, 9, 4, low=0.5), "s": floats(1, 9, 2, low=0, high=1)}, opset=5),
    "non_maximum_suppression of columns": Row(
        lambda b, s: mb.non_maximum_suppression(boxes=b, scores=s, iou_threshold=0.3, max_boxes=4,
                                                per_class_suppression=True),
        {"b": floats(2, 4, 9, low=0.5), "s": floats(2, 3, 9, low=0, high=1)}),
    "upsample_bilinear": Row(lambda x: mb.upsample_bilinear(x=x, scale_factor_height=2.0,
                                                            scale_factor_width=1.5,
                                                            align_corners=False), {"x": IMAGE}),
    "upsample_nearest_neighbor": Row(
        lambda x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=1.7,
                                               scale_factor_width=2.0), {"x": IMAGE}),
    **{
        f"resize_bilinear {mode}": resize_row(mode)
        for mode in ("DEFAULT", "ALIGN_CORNERS", "OFFSET_CORNERS", "UNALIGN_CORNERS")
    },
    "resize": Row(lambda x: mb.resize(x=x, shape=[3, 0], resized_dims=np.uint32(2),
                                      interpolation_mode="NEAREST_NEIGHBOR",
                                      sampling_mode="UNALIGN_CORNERS"), {"x": IMAGE}),
    "crop_resize": Row(
        lambda x, b: mb.crop_resize(x=x, boxes=b, box_indices=[0, 0], target_height=3,
                                    target_width=2, normalized_coordinates=True,
                                    sampling_mode="ALIGN_CORNERS", pad_value=9.0),
        {"x": IMAGE, "b": np.array([[0.1, 0.2, 0.9, 1.3], [0, 0, 0.5, 0.5]], np.float32)}),
    **{
        f"resample {padding}": resample_row(padding)
        for padding in ("constant", "border", "reflection", "symmetric")
    },
    "affine": Row(
        lambda x, m: mb.affine(x=x, transform_matrix=m, output_height=4, output_width=3,
                               sampling_mode="bilinear", padding_mode="constant",
                               padding_value=0.0, coordinates_mode="normalized_minus_one_to_one",
                               align_corners=True),
        {"x": IMAGE, "m": np.array([[0.9, 0.1, 0.05, -0.2, 1.1, 0.1]], np.float32)}),
    "lstm": lstm_row(direction="reverse", bias=floats(12), peephole=floats(9)),
    "lstm in both directions": lstm_row(direction="bidirectional"),
    "lstm with limits": lstm_row(direction="bidirectional", clip=0.4, peephole=floats(9)),
    "gru": gru_row(recurrent_activation="sigmoid_hard"),
    "gru with the gate behind the product": gru_row(8, reset_after=True, input_bias=floats(9),
                                                    direction="reverse"),
    "rnn": Row(lambda x, h: mb.rnn(x=x, initial_h=h, weight_ih=floats(3, 2), weight_hh=floats(3, 3),
                                   output_sequence=False, activation="scaled_tanh")[0],
               {"x": floats(4, 2, 2), "h": floats(2, 3)}),
    "quantize": Row(
        lambda x: mb.dequantize(
            input=mb.quantize(input=x, scale=np.array([0.1, 0.2, 0.01], np.float32), axis=1,
                              zero_point=np.array([3, 0, 9], np.uint8), output_dtype="uint8"),
            scale=np.float32(0.5)), {"x": X}),
    "lists": Row(
        listed, {"x": floats(4, 3)}, lambda x: np.stack([x[1] * 2, x[0] * 2, x[3] * 2, 0 * x[0]])
    ),
    "cond": Row(
        lambda x: mb.cond(pred=mb.greater(x=mb.reduce_sum(x=x), y=0.0),
                          _true_fn=lambda: mb.add(x=x, y=1.0),
                          _false_fn=lambda: mb.mul(x=x, y=2.0)),
        {"x": X}, lambda x: x + 1 if x.sum() > 0 else 2 * x),
    "while_loop": Row(
        lambda x: mb.while_loop(_cond=lambda i, y: mb.less(x=i, y=4),
                                _body=lambda i, y: (mb.add(x=i, y=1), mb.mul(x=y, y=1.5)),
                                loop_vars=(0, x))[1],
        {"x": X}, lambda x: x * 1.5**4),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_an_op(tmp_path: Path, name: str) -> None:
    row = ROWS[name]
    path = package(tmp_path, row.build, row.given, row.opset)
    inputs = described(path, row.given)
    plain = mlferry.MLModel(path).predict(inputs)
    model = mlferry.MLModel(path, engine="onnxruntime", threads=1)
    fast, graph = model.predict(inputs), exported(path, inputs)
    assert on_numpy(model, inputs) == []
    for key, expected in plain.items():
        np.testing.assert_allclose(fast[key], expected, rtol=1e-4, atol=1e-5)
        assert fast[key].dtype == expected.dtype
        np.testing.assert_allclose(graph[key], expected, rtol=1e-4, atol=1e-5)
    if row.formula is not None:
        (actual,) = fast.values()
        expected = np.asarray(row.formula(*row.given.values()))
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def on_numpy(model: Any, inputs: Given) -> list[str]:
    """The operations that do not run on onnxruntime."""
    evaluator = model.evaluator
    actual: list[str] = evaluator.session.on_numpy(evaluator.values(inputs))
    return actual


def test_every_op_has_an_export() -> None:
    stored_whole = {
        "constexpr_lut_to_sparse", "constexpr_sparse_blockwise_shift_scale",
        "constexpr_sparse_to_dense",
    }  # fmt: skip
    assert set(DEFINITIONS) - set(EXPORTS) == {"const"} | stored_whole
    assert set(EXPORTS) <= set(DEFINITIONS)


def test_every_form_of_an_op_has_an_export() -> None:
    """What a kernel tells apart by opsets, the export does, too."""
    opsets = range(5, 10)

    def forms(registry: Registry[Any], op: str) -> list[int]:
        return [entry.since for n in opsets if (entry := registry.find(op, n)) is not None]

    assert {op for op in EXPORTS if forms(EXPORTS, op) != forms(KERNELS, op)} == set()


# ---- precision -----------------------------------------------------------------------------------


def shifted(x: Any) -> Any:
    """Adding 2048 leaves a float16 no bits behind the point."""
    y = mb.sub(x=mb.add(x=mb.mul(x=x, y=1.1), y=2048.3), y=2047.0)
    return mb.matmul(x=y, y=y, transpose_y=True)


@pytest.mark.parametrize("precision", ["half", "exact"])
def test_halves_are_rounded_where_the_program_does(tmp_path: Path, precision: str) -> None:
    inputs = {"x": floats(3, 8)}
    path = package(tmp_path, shifted, inputs, compute_precision=ct.precision.FLOAT16)
    (expected,) = mlferry.MLModel(path, precision=precision).predict(inputs).values()
    model = mlferry.MLModel(path, precision=precision, engine="onnxruntime", threads=1)
    (fast,) = model.predict(inputs).values()
    (graph,) = exported(path, inputs, precision=precision).values()
    rounded = np.float32(np.float16(inputs["x"]) * np.float32(np.float16(1.1)))
    exact = (inputs["x"] * 1.1 + 1) @ (inputs["x"] * 1.1 + 1).T
    if precision == "half":
        y = np.float16(np.float32(np.float16(rounded)) + np.float32(np.float16(2048.3)))
        y = np.float16(y.astype(np.float32) - 2047).astype(np.float32)
        np.testing.assert_array_equal(expected, np.float16(y @ y.T).astype(np.float32))
        np.testing.assert_array_equal(fast, expected)
        np.testing.assert_array_equal(graph, expected)
        assert abs(expected - exact).max() > 1
    else:
        np.testing.assert_allclose(fast, expected, rtol=1e-4)
        np.testing.assert_allclose(graph, expected, rtol=1e-4)
        assert abs(expected - exact).max() < 0.01 * abs(exact).max()


def test_a_precision_that_is_none(tmp_path: Path) -> None:
    path = package(tmp_path, lambda x: mb.relu(x=x), {"x": X})
    with pytest.raises(SpecError, match="half or exact"):
        mlferry.export_onnx(mlferry.MLModel(path), precision="double")


def test_small_integers_wrap_around(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        small = mb.cast(x=x, dtype="uint8")
        return mb.cast(x=small, dtype="int32")

    inputs = {"x": np.array([3, 255, 256, 700], np.int32)}
    path = package(tmp_path, build, inputs)
    for engine in ("numpy", "onnxruntime"):
        (actual,) = mlferry.MLModel(path, engine=engine).predict(inputs).values()
        assert actual.tolist() == [3, 255, 0, 188]
    (graph,) = exported(path, inputs).values()
    assert graph.tolist() == [3, 255, 0, 188]


# ---- compressed constants ------------------------------------------------------------------------


def compressed(path: Path, config: Any) -> Any:
    optimize = pytest.importorskip("coremltools.optimize.coreml")
    model = ct.models.MLModel(str(path), skip_model_load=True)
    how, options = config
    kind = {"quantize": "OpLinearQuantizerConfig", "palettize": "OpPalettizerConfig"}[how]
    chosen = optimize.OptimizationConfig(getattr(optimize, kind)(**options))
    apply = {"quantize": "linear_quantize_weights", "palettize": "palettize_weights"}[how]
    return getattr(optimize, apply)(model, chosen)


@pytest.mark.parametrize(
    ("config", "op"),
    [
        (("quantize", {"mode": "linear_symmetric", "weight_threshold": 0}), "DequantizeLinear"),
        (("palettize", {"mode": "uniform", "nbits": 4, "weight_threshold": 0}), "Gather"),
    ],
)
@pytest.mark.parametrize("opset", [6, 8])
def test_constants_stay_in_fewer_bits(tmp_path: Path, config: Any, op: str, opset: int) -> None:
    inputs = {"x": floats(3, 64)}
    weight = floats(32, 64)
    path = package(tmp_path, lambda x: mb.linear(x=x, weight=weight), inputs, opset)
    small = tmp_path / "small.mlpackage"
    compressed(path, config).save(str(small))
    model = mlferry.MLModel(small)
    (expected,) = model.predict(inputs).values()
    (fast,) = mlferry.MLModel(small, engine="onnxruntime").predict(inputs).values()
    (graph,) = exported(small, inputs).values()
    np.testing.assert_allclose(fast, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(graph, expected, rtol=1e-4, atol=1e-4)
    message = mlferry.export_onnx(model)
    assert op in {node.op_type for node in message.graph.node}
    assert message.ByteSize() < weight.size + 3000


def test_halves_are_stored_as_halves(tmp_path: Path) -> None:
    weight = floats(32, 64)
    half = ct.precision.FLOAT16
    path = package(tmp_path, lambda x: mb.linear(x=x, weight=weight), {"x": floats(3, 64)},
                   compute_precision=half)  # fmt: skip
    assert mlferry.export_onnx(mlferry.MLModel(path)).ByteSize() < 2 * weight.size + 3000


# ---- sizes that vary -----------------------------------------------------------------------------


def flexible(folder: Path, build: Callable[..., Any], *shapes: tuple[int, ...]) -> Path:
    """A program of one input that takes several shapes."""
    rank = len(shapes[0])
    specs = [mb.TensorSpec(tuple(get_new_symbol() for _ in range(rank)))]
    program = mb.program(input_specs=specs, opset_version=TARGETS[7])(build)
    model = ct.convert(
        program,
        convert_to="mlprogram",
        inputs=[ct.TensorType(name="x", shape=ct.EnumeratedShapes(shapes=list(shapes)))],
        minimum_deployment_target=TARGETS[7],
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )
    path = folder / "flexible.mlpackage"
    model.save(str(path))
    return path


def windows(x: Any) -> Any:
    y = mb.sliding_windows(x=x, axis=1, size=3, stride=2)
    y = mb.band_part(x=y, lower=1, upper=-1)
    y = mb.reduce_sum(x=y, axes=[2], keep_dims=False)
    rows = mb.gather(x=mb.shape(x=y), indices=0)
    marks = mb.one_hot(indices=mb.range_1d(start=0, end=rows, step=1), one_hot_vector_size=rows)
    turned = mb.reverse(x=mb.matmul(x=mb.cast(x=marks, dtype="fp32"), y=y), axes=[0])
    return mb.tile(x=turned, reps=[2, 1])


def blocks(x: Any) -> Any:
    y = mb.space_to_batch(x=x, block_shape=[2, 2], paddings=[[1, 1], [0, 0]])
    y = mb.batch_to_space(x=mb.relu(x=y), block_shape=[2, 2], crops=[[1, 1], [0, 0]])
    y = mb.pixel_unshuffle(x=y, downscale_factor=np.uint32(2))
    y = mb.upsample_nearest_neighbor(x=y, scale_factor_height=1.5, scale_factor_width=1.5)
    y = mb.avg_pool(x=y, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid", ceil_mode=True)
    return mb.conv_transpose(x=y, weight=np.ones((8, 2, 3, 3), np.float32), strides=[2, 2],
                             pad_type="same")  # fmt: skip


VARYING: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "windows": (windows, [(2 + n, 7 + 2 * n) for n in range(5)]),
    "blocks": (blocks, [(1, 2, 4 + 2 * n, 6 + 4 * n) for n in range(5)]),
}


def agree_at_each_size(path: Path, shapes: Sequence[tuple[int, ...]]) -> None:
    """NumPy, onnxruntime and the exported graph compute the same."""
    plain = mlferry.MLModel(path)
    fast = mlferry.MLModel(path, engine="onnxruntime", threads=1)
    for shape in shapes:
        inputs = {"x": floats(*shape)}
        (expected,) = plain.predict(inputs).values()
        (actual,) = fast.predict(inputs).values()
        (graph,) = exported(path, inputs).values()
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(graph, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", VARYING)
def test_more_sizes_that_vary(tmp_path: Path, name: str) -> None:
    build, shapes = VARYING[name]
    path = flexible(tmp_path, build, *shapes)
    agree_at_each_size(path, shapes)


def images(x: Any) -> Any:
    y = mb.conv(x=x, weight=np.ones((4, 2, 3, 3), np.float32) / 9, pad_type="same")
    y = mb.max_pool(x=y, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid")
    y = mb.upsample_bilinear(x=y, scale_factor_height=2, scale_factor_width=2, align_corners=False)
    shape = mb.shape(x=y)
    rows = mb.slice_by_index(x=shape, begin=[0], end=[2])
    return mb.reshape(x=y, shape=mb.concat(values=[rows, [-1]], axis=0))


def test_sizes_that_vary(tmp_path: Path) -> None:
    shapes = [(1, 2, 4 + 2 * n, 6 + 4 * n) for n in range(5)]
    path = flexible(tmp_path, images, *shapes)
    agree_at_each_size(path, shapes)


def test_sizes_have_names_in_the_graph(tmp_path: Path) -> None:
    path = flexible(tmp_path, images, (1, 2, 4, 6), (1, 2, 8, 8))
    (shown,) = mlferry.export_onnx(mlferry.MLModel(path)).graph.input
    extents = [d.dim_param or d.dim_value for d in shown.type.tensor_type.shape.dim]
    assert extents[-2:] == ["x_2", "x_3"]
    chosen = {"x": (1, 2, "height", 6)}
    (shown,) = mlferry.export_onnx(mlferry.MLModel(path), input_shapes=chosen).graph.input
    extents = [d.dim_param or d.dim_value for d in shown.type.tensor_type.shape.dim]
    assert extents == [1, 2, "height", 6]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"y": (1, 2)}, "Did you mean|the inputs are"),
        ({"x": (2, 3, "n")}, "only extents that it leaves open can be chosen"),
        ({"x": (2, 3)}, "only extents that it leaves open can be chosen"),
    ],
)
def test_shapes_that_do_not_fit(tmp_path: Path, shapes: Any, message: str) -> None:
    path = package(tmp_path, lambda x: mb.relu(x=x), {"x": X})
    with pytest.raises(ExportError, match=message):
        mlferry.export_onnx(mlferry.MLModel(path), input_shapes=shapes)


# ---- states and functions ------------------------------------------------------------------------


def stateful(folder: Path) -> Path:
    @mb.program(  # type: ignore[untyped-decorator]
        input_specs=[mb.TensorSpec((1,)), mb.StateTensorSpec((3,), dtype=types.fp16)],
        opset_version=TARGETS[8],
    )
    def program(x: Any, total: Any) -> Any:
        before = mb.read_state(input=total)
        after = mb.add(x=before, y=mb.cast(x=x, dtype="fp16"))
        kept = mb.coreml_update_state(state=total, value=after)
        return mb.mul(x=kept, y=np.float16(2))

    model = ct.convert(
        program, convert_to="mlprogram", minimum_deployment_target=TARGETS[8], skip_model_load=True
    )
    path = folder / "stateful.mlpackage"
    model.save(str(path))
    return path


def test_states_are_kept(tmp_path: Path) -> None:
    path = stateful(tmp_path)
    model = mlferry.MLModel(path, engine="onnxruntime", threads=1)
    state, other = model.make_state(), model.make_state()
    for step in range(1, 4):
        (actual,) = model.predict({"x": np.ones(1, np.float32)}, state).values()
        np.testing.assert_array_equal(actual, [2 * step] * 3)
    (actual,) = model.predict({"x": np.ones(1, np.float32)}, other).values()
    np.testing.assert_array_equal(actual, [2] * 3)
    assert state["total"].dtype == np.float16
    np.testing.assert_array_equal(state["total"], [3] * 3)


def test_states_are_inputs_and_outputs(tmp_path: Path) -> None:
    path = stateful(tmp_path)
    message = mlferry.export_onnx(mlferry.MLModel(path))
    kept = {p.key: p.value for p in message.metadata_props}["mlferry.states"]
    assert json.loads(kept) == {"total": "total_out"}
    total = np.zeros(3, np.float16)
    for step in range(1, 4):
        result = exported(path, {"x": np.ones(1, np.float32), "total": total})
        total = result.pop("total_out")
        (shown,) = result.values()
        np.testing.assert_array_equal(shown, [2 * step] * 3)
        np.testing.assert_array_equal(total, [step] * 3)


def test_functions(tmp_path: Path) -> None:
    paths = []
    for factor in (2.0, 3.0):
        folder = tmp_path / str(factor)
        folder.mkdir()
        paths.append(package(folder, scaled_by(factor), {"x": X}, 8))
    described_by = ct.utils.MultiFunctionDescriptor()
    for name, path in zip(("twice", "thrice"), paths, strict=True):
        described_by.add_function(str(path), "main", name)
    described_by.default_function_name = "twice"
    both = tmp_path / "both.mlpackage"
    ct.utils.save_multifunction(described_by, str(both))
    rows: list[tuple[str | None, int]] = [("twice", 2), ("thrice", 3), (None, 2)]
    for chosen, factor in rows:
        model = mlferry.MLModel(both, function_name=chosen, engine="onnxruntime")
        (actual,) = model.predict({"x": X}).values()
        np.testing.assert_allclose(actual, factor * X, rtol=1e-6)
        session = ort.InferenceSession(mlferry.export_onnx(model).SerializeToString())
        np.testing.assert_allclose(session.run(None, {"x": X})[0], factor * X, rtol=1e-6)


def test_states_in_another_precision(tmp_path: Path) -> None:
    path = stateful(tmp_path)
    model = mlferry.MLModel(path, precision="exact", engine="onnxruntime", threads=1)
    state = model.make_state()
    model.predict({"x": np.full(1, 2049, np.float32)}, state)
    np.testing.assert_array_equal(state["total"], [2049] * 3)  # float16 has no such number
    inputs = {"x": np.full(1, 2049, np.float32), "total": np.zeros(3, np.float32)}
    result = exported(path, inputs, precision="exact")
    np.testing.assert_array_equal(result["total_out"], [2049] * 3)


# ---- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["RGB", "BGR", "GRAYSCALE"])
def test_images(tmp_path: Path, layout: str) -> None:
    channels = 1 if layout == "GRAYSCALE" else 3

    @mb.program(input_specs=[mb.TensorSpec((1, channels, 4, 5))], opset_version=TARGETS[7])  # type: ignore[untyped-decorator]
    def program(image: Any) -> Any:
        return mb.reduce_sum(x=mb.square(x=image), axes=[2], keep_dims=False, name="sums")

    model = ct.convert(
        program,
        convert_to="mlprogram",
        inputs=[
            ct.ImageType("image", (1, channels, 4, 5), scale=0.5, bias=[1.0] * channels,
                         color_layout=getattr(ct.colorlayout, layout))
        ],
        minimum_deployment_target=TARGETS[7],
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )  # fmt: skip
    path = tmp_path / "image.mlpackage"
    model.save(str(path))
    pixels = RNG.integers(0, 256, (4, 5) if channels == 1 else (4, 5, 3)).astype(np.uint8)
    planes = pixels[None, None] if channels == 1 else pixels.transpose(2, 0, 1)[None]
    planes = (planes[:, ::-1] if layout == "BGR" else planes).astype(np.float32)
    expected = np.square(0.5 * planes + 1).sum(2)
    for engine in ("numpy", "onnxruntime"):
        actual = mlferry.MLModel(path, images="array", engine=engine).predict({"image": pixels})
        np.testing.assert_allclose(actual["sums"], expected, rtol=1e-5)
    actual = exported(path, {"image": pixels}, pixels=True)
    np.testing.assert_allclose(actual["sums"], expected, rtol=1e-5)
    actual = exported(path, {"image": planes})
    np.testing.assert_allclose(actual["sums"], expected, rtol=1e-5)


# ---- what is not a graph -------------------------------------------------------------------------


def classifier(folder: Path) -> Path:
    @mb.program(input_specs=[mb.TensorSpec((1, 3))], opset_version=TARGETS[7])  # type: ignore[untyped-decorator]
    def program(x: Any) -> Any:
        return mb.softmax(x=mb.mul(x=x, y=2.0), axis=-1)

    model = ct.convert(
        program,
        convert_to="mlprogram",
        classifier_config=ct.ClassifierConfig(["cat", "dog", "eel"]),
        minimum_deployment_target=TARGETS[7],
        skip_model_load=True,
    )
    path = folder / "classifier.mlpackage"
    model.save(str(path))
    return path


def test_a_classifier(tmp_path: Path) -> None:
    path = classifier(tmp_path)
    inputs = {"x": np.array([[0.1, 0.9, 0.3]], np.float32)}
    model = mlferry.MLModel(path, engine="onnxruntime", threads=1)
    actual = model.predict(inputs)
    assert actual["classLabel"] == "dog"
    assert [text.split()[0] for text in on_numpy(model, inputs)] == ["classify"]
    expected = mlferry.MLModel(path).predict(inputs)["classLabel_probs"]
    assert actual["classLabel_probs"] == pytest.approx(expected, abs=1e-3)
    graph = exported(path, inputs)
    assert list(graph) == ["classLabel_probs"]
    np.testing.assert_allclose(
        graph["classLabel_probs"].ravel(), list(expected.values()), atol=1e-3
    )
    message = mlferry.export_onnx(mlferry.MLModel(path))
    metadata = {p.key: p.value for p in message.metadata_props}
    assert json.loads(metadata["mlferry.class_labels"]) == ["cat", "dog", "eel"]
    assert metadata["mlferry.predicted_feature"] == "classLabel"


def test_random_values_are_drawn_by_numpy(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        drawn = mb.random_normal(shape=[2, 3, 4], mean=1.0, stddev=2.0, seed=7)
        return mb.mul(x=mb.add(x=mb.exp(x=x), y=drawn), y=2.0)

    path = package(tmp_path, build, {"x": X})
    (expected,) = mlferry.MLModel(path).predict({"x": X}).values()
    model = mlferry.MLModel(path, engine="onnxruntime", threads=1)
    (actual,) = model.predict({"x": X}).values()
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    (name,) = on_numpy(model, {"x": X})
    assert name.startswith("random_normal")
    (drawn,) = exported(path, {"x": X}).values()
    assert drawn.shape == X.shape


def test_shapes_pass_from_part_to_part(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        shape = mb.shape(x=x)
        drawn = mb.random_uniform(shape=shape, low=0.0, high=1.0, seed=3)
        flat = mb.reshape(x=mb.add(x=x, y=drawn), shape=[-1])
        return mb.reshape(x=mb.exp(x=flat), shape=shape)

    path = flexible(tmp_path, build, (2, 3), (4, 5))
    for shape in ((2, 3), (4, 5)):
        inputs = {"x": floats(*shape)}
        (expected,) = mlferry.MLModel(path).predict(inputs).values()
        (actual,) = mlferry.MLModel(path, engine="onnxruntime", threads=1).predict(inputs).values()
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


def refused(x: Any) -> Any:
    size = mb.slice_by_index(x=mb.shape(x=x), begin=[2], end=[4])
    y = mb.resize(x=x, shape=size, resized_dims=np.uint32(2), sampling_mode="OFFSET_CORNERS")
    return mb.avg_pool(x=mb.exp(x=y), kernel_sizes=[2, 2], pad_type="custom", pad=[1, 1, 1, 1],
                       strides=[2, 2], ceil_mode=True)  # fmt: skip


def test_all_that_cannot_be_expressed_is_named(tmp_path: Path) -> None:
    path = flexible(tmp_path, refused, (1, 2, 4, 6), (1, 2, 8, 8))
    with pytest.raises(UnsupportedOperationsError, match="ONNX cannot express 2 operations") as e:
        mlferry.export_onnx(mlferry.MLModel(path))
    assert [op for _, op, _ in e.value.operations] == ["resize", "avg_pool"]
    inputs = {"x": floats(1, 2, 4, 6)}
    (expected,) = mlferry.MLModel(path).predict(inputs).values()
    model = mlferry.MLModel(path, engine="onnxruntime", threads=1)
    (actual,) = model.predict(inputs).values()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_network_has_no_precision(tmp_path: Path) -> None:
    builder = Builder()
    builder.input("x", (3,))
    builder.layer("activation", "y", ["x"], ["y"], ReLU={}, output_shapes=[(3,)])
    builder.output("y")
    with pytest.raises(ExportError, match="precision is for ML Programs"):
        mlferry.export_onnx(builder.model(), precision="half")


def test_values_inside(tmp_path: Path) -> None:
    path = package(tmp_path, lambda x: mb.relu(x=mb.sub(x=x, y=1.0, name="less")), {"x": X})
    for engine in ("numpy", "onnxruntime"):
        actual = mlferry.MLModel(path, engine=engine).intermediate({"x": X}, ["less"])
        np.testing.assert_allclose(actual["less"], X - 1, rtol=1e-6)
