"""Ops of onnxruntime's own, which its optimizer and its quantizer write; it is the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import mlferry
from mlferry.converters.onnx.ops import OPS
from mlferry.errors import MlferryError

RNG = np.random.default_rng(23)
DOMAIN = "com.microsoft"


class Case(NamedTuple):
    """One node; operands are arrays: of `given` inputs of the model, of `constants` initializers.

    A None is an operand that is left out; `first` says how many constants stand before the given.
    """

    op: str
    given: list[np.ndarray]
    constants: list[np.ndarray | None] = []
    attributes: dict[str, Any] = {}
    order: str = ""  # a letter each operand: "g" given, "c" constant; by default given first
    outputs: str = "y"  # a letter each, "-" for one that is left out
    step: float = 0.0  # of rounding, by which single values may differ
    domain: str = DOMAIN


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def codes(*shape: int, kind: Any = np.uint8) -> np.ndarray:
    least, most = np.iinfo(kind).min, np.iinfo(kind).max
    return RNG.integers(least, most + 1, shape).astype(kind)


def few_codes(*shape: int) -> np.ndarray:
    """Weights of 7 bits: where a processor has no VNNI, onnxruntime's sums of two products with
    a byte are cut off at 16 bits, and larger ones go wrong.
    """
    return RNG.integers(-64, 64, shape).astype(np.int8)


def f(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def u(value: int) -> np.ndarray:
    return np.array(value, np.uint8)


def i(value: int) -> np.ndarray:
    return np.array(value, np.int8)


def whole(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


X = normal(2, 5, 8)
W, B = normal(8, 24) * 0.4, normal(24)
PAST = normal(2, 2, 2, 3, 4)
MASK = whole(1, 1, 1, 0, 0, 0, 1, 1, 1, 1).reshape(2, 5)
Q, K, V = normal(2, 5, 8), normal(2, 6, 8), normal(2, 6, 12)
WORDS = whole(3, 1, 4, 1, 5, 9, 2, 6, 0, 0).reshape(2, 5)
SEGMENTS = whole(0, 0, 1, 1, 1, 0, 1, 1, 0, 0).reshape(2, 5)
TABLES = [normal(10, 8), normal(7, 8), normal(2, 8)]
NORM = [normal(8), normal(8)]
ANGLES = np.arange(12)[:, None] * np.float32([1, 0.3, 0.1, 0.05])[None]
TURNS = [np.cos(ANGLES).astype(np.float32), np.sin(ANGLES).astype(np.float32)]
WIDE_TURNS = [np.concatenate([t, t[::-1]], 1) for t in TURNS]
PLACES = np.array([[0, 1, 2, 3, 4], [5, 4, 3, 2, 11]])
IMAGE, FILTER, SHIFT = normal(1, 3, 6, 7), normal(4, 3, 3, 3), normal(4)
A, D = codes(2, 3, 4), codes(2, 1, 4)
MAPS = codes(1, 3, 6, 7)
XQ, YQ = [f(0.03), u(120)], [f(0.05), u(100)]


def blocks(inputs: int, outputs: int, size: int, bits: int, *, zeros: str = "") -> Case:
    count = -(-inputs // size)
    packed = codes(outputs, count, size * bits // 8)
    scales = RNG.uniform(0.01, 0.1, (outputs, count)).astype(np.float32)
    told: list[np.ndarray | None] = [packed, scales]
    if zeros == "packed":
        told.append(codes(outputs, -(-count * bits // 8)))
    elif zeros == "floats":
        told.append(RNG.uniform(0, 15, (outputs, count)).astype(np.float32))
    sample = [normal(2, 3, inputs)]
    return Case("MatMulNBits", sample, told,
                {"K": inputs, "N": outputs, "bits": bits, "block_size": size})  # fmt: skip


def attention(*rest: np.ndarray | None, outputs: str = "y", **attributes: Any) -> Case:
    return Case("Attention", [X], [W, B, *rest], {"num_heads": 2, **attributes}, outputs=outputs)


def many_heads(*rest: np.ndarray | None, outputs: str = "y", **attributes: Any) -> Case:
    return Case("MultiHeadAttention", [Q, K, V], list(rest), {"num_heads": 2, **attributes},
                outputs=outputs)  # fmt: skip


def grouped(
    length: int,
    past: int = 0,
    *rest: np.ndarray | None,
    inputs: bool = False,
    batch: int = 2,
    filled: int | None = None,
    outputs: str = "yyy",
    heads: int = 4,
    stored: type | None = None,
    step: float = 0.0,
    **attributes: Any,
) -> Case:
    """Four heads of queries for two of keys; `given`: the lengths are inputs.

    `stored`: the type of quantized keys and values, of which two lie in a byte without a sign.
    """
    before = past if filled is None else filled
    operands = [normal(batch, length, 64), normal(batch, length, 32), normal(batch, length, 32)]
    old: list[np.ndarray | None] = [None, None]
    if past and stored is None:
        old = [normal(batch, 2, past, 16), normal(batch, 2, past, 16)]
    elif past:
        units = 8 if stored is np.uint8 else 16
        old = [codes(batch, 2, past, units, kind=stored) for _ in range(2)]
    lengths = [whole(*[before + length - 1] * batch), whole(past + length)]
    if inputs:
        given_all = [*operands, *(x for x in old if x is not None), lengths[0]]
        order = "ggg" + ("gg" if past else "cc") + "g" + "c" * (1 + len(rest))
        constants: list[np.ndarray | None] = [*([] if past else old), lengths[1], *rest]
    else:
        given_all = operands
        order, constants = "", [*old, *lengths, *rest]
    return Case(
        "GroupQueryAttention",
        given_all,
        constants,
        {"num_heads": heads, "kv_num_heads": 2, **attributes},
        order,
        outputs,
        step,
    )


def in_codes(bits: int, kind: str, **options: Any) -> Case:
    """A quantized cache, with a scale for all or one for each unit of each head."""
    count = 1 if kind == "PER_TENSOR" else 32
    scales = [RNG.uniform(0.5, 1.0, count).astype(np.float32) * 2 ** (2 - bits) for _ in range(2)]
    rest = options.pop("rest", [None] * 5)
    return grouped(
        3 if options.get("batch") == 1 else 1, 4, *rest, *scales, inputs=True,
        stored=np.int8 if bits == 8 else np.uint8, kv_cache_bit_width=bits, k_quant_type=kind,
        v_quant_type=kind, **options,
    )  # fmt: skip


def lstm(count: int, *, columns: bool, **attributes: Any) -> Case:
    per = (count, 12) if columns else (count,)
    steps = [RNG.uniform(0.002, 0.006, per).astype(np.float32) for _ in range(2)]
    zeros = [np.zeros(per, np.int8) for _ in range(2)]
    weights = [few_codes(count, 4, 12), few_codes(count, 3, 12)]
    return Case(
        "DynamicQuantizeLSTM", [normal(6, 1, 4)],
        [*weights, normal(count, 24) * 0.3, None, None, None, None, steps[0], zeros[0], steps[1],
         zeros[1]],
        {"hidden_size": 3, **attributes}, outputs="yyy",
    )  # fmt: skip


CASES: dict[str, Case] = {
    "FusedMatMul": Case("FusedMatMul", [normal(2, 3, 4), normal(2, 4, 5)], [], {"alpha": 0.5}),
    "FusedMatMul by a matrix": Case("FusedMatMul", [normal(2, 3, 4)], [normal(4, 5)],
                                    {"alpha": 0.25}),
    "FusedMatMul by a turned matrix": Case("FusedMatMul", [normal(2, 3, 4)], [normal(5, 4)],
                                           {"transB": 1}),
    "FusedMatMul, both turned": Case(
        "FusedMatMul", [normal(2, 4, 3), normal(2, 5, 4)], [], {"transA": 1, "transB": 1}
    ),
    "FusedMatMul, batches turned": Case(
        "FusedMatMul", [normal(3, 2, 4), normal(4, 2, 5)], [], {"transBatchA": 1, "transBatchB": 1}
    ),
    "FusedMatMul of four axes": Case("FusedMatMul", [normal(2, 2, 3, 4)], [normal(5, 4)],
                                     {"transB": 1, "alpha": 2.0}),
    "FusedMatMul by a vector": Case("FusedMatMul", [normal(2, 3, 4), normal(4)], [],
                                    {"transB": 1}),
    "TransposeMatMul": Case("TransposeMatMul", [normal(4, 3), normal(4, 5)], [],
                            {"transA": 1, "alpha": 3.0}),
    "Gelu": Case("Gelu", [normal(3, 4)]),
    "BiasGelu": Case("BiasGelu", [normal(3, 4)], [normal(4)]),
    "FastGelu": Case("FastGelu", [normal(3, 4)]),
    "FastGelu with a bias": Case("FastGelu", [normal(3, 4)], [normal(4)]),
    "QuickGelu": Case("QuickGelu", [normal(3, 4)]),
    "QuickGelu with alpha": Case("QuickGelu", [normal(3, 4)], [], {"alpha": 0.7}),
    "SkipLayerNormalization": Case("SkipLayerNormalization", [X, normal(2, 5, 8)], NORM),
    "SkipLayerNormalization of one sentence's skip": Case(
        "SkipLayerNormalization", [X, normal(5, 8)], [*NORM, normal(8)], {"epsilon": 1e-3}
    ),
    "SkipLayerNormalization, the sum": Case(
        "SkipLayerNormalization", [X, normal(2, 5, 8)], [NORM[0], None, normal(8)], {},
        outputs="y--y",
    ),
    "SkipSimplifiedLayerNormalization": Case(
        "SkipSimplifiedLayerNormalization", [X, normal(2, 5, 8)], NORM[:1], {"epsilon": 1e-5}
    ),
    "SkipSimplifiedLayerNormalization, the sum": Case(
        "SkipSimplifiedLayerNormalization", [X, normal(2, 5, 8)], NORM, {"epsilon": 1e-5},
        outputs="y--y",
    ),
    "SimplifiedLayerNormalization": Case("SimplifiedLayerNormalization", [X], NORM[:1],
                                         {"axis": -1, "epsilon": 1e-3}, domain=""),
    "EmbedLayerNormalization": Case(
        "EmbedLayerNormalization", [WORDS, SEGMENTS], [*TABLES, *NORM], {"epsilon": 1e-5},
        outputs="yy",
    ),
    "EmbedLayerNormalization with a mask": Case(
        "EmbedLayerNormalization", [WORDS, SEGMENTS], [*TABLES, *NORM, MASK],
        {"epsilon": 1e-5, "mask_index_type": 1}, outputs="yy",
    ),
    "EmbedLayerNormalization of words alone": Case(
        "EmbedLayerNormalization", [WORDS], [None, *TABLES[:2], None, *NORM, None,
                                             whole(*[6, 5, 4, 3, 2] * 2).reshape(2, 5)],
        {"epsilon": 1e-5}, outputs="yyy",
    ),
    "Attention": attention(),
    "Attention without a bias": Case("Attention", [X], [W], {"num_heads": 2}),
    "Attention, only of what was": attention(unidirectional=1),
    "Attention with a scale": attention(scale=0.3),
    "Attention with a mask of words": attention(MASK),
    "Attention with a mask of pairs": attention(
        (RNG.uniform(size=(2, 5, 5)) > 0.4).astype(np.int32), mask_filter_value=-5.0
    ),
    "Attention with a mask, only of what was": attention(MASK, unidirectional=1),
    "Attention with lengths": attention(whole(3, 5)),
    "Attention with ends and starts": attention(whole(4, 5, 1, 2)),
    "Attention with a bias of the scores": attention(None, None, normal(1, 2, 5, 5)),
    "Attention of values of another size": Case(
        "Attention", [X], [normal(8, 28) * 0.4, normal(28)],
        {"num_heads": 2, "qkv_hidden_sizes": [8, 8, 12]},
    ),
    "Attention with a past": attention(None, PAST, outputs="yy"),
    "Attention with a past, only of what was": attention(
        np.concatenate([MASK[:, 1:4], MASK], 1), PAST, outputs="yy", unidirectional=1
    ),
    "Attention of computed operands": Case(
        "Attention", [X, W, B, MASK], [], {"num_heads": 2}
    ),
    "Attention of computed lengths": Case("Attention", [X, W, B, whole(3, 5)], [],
                                          {"num_heads": 2}),
    "QAttention": Case(
        "QAttention", [codes(2, 5, 8)],
        [few_codes(8, 24), B, f(0.02), f(0.01), MASK, u(120), i(3)], {"num_heads": 2},
    ),
    "QAttention by columns, only of what was": Case(
        "QAttention", [codes(2, 5, 8)],
        [few_codes(8, 24), B, f(0.02), np.abs(normal(24)) * 0.02, None, u(120),
         np.zeros(24, np.int8)], {"num_heads": 2, "unidirectional": 1},
    ),
    "QEmbedLayerNormalization": Case(
        "QEmbedLayerNormalization", [WORDS, SEGMENTS],
        [codes(10, 8), codes(7, 8), codes(2, 8), codes(8), codes(8), MASK, f(0.01), f(0.02),
         f(0.03), f(0.01), f(0.02), u(100), u(110), u(120), u(130), u(140)],
        {"epsilon": 1e-5}, outputs="yy",
    ),
    "MultiHeadAttention": many_heads(),
    "MultiHeadAttention with a bias": many_heads(normal(28)),
    "MultiHeadAttention with masks": many_heads(
        None, whole(*[1, 1, 1, 1, 0, 0] * 2).reshape(2, 6), normal(2, 1, 5, 6), scale=0.25
    ),
    "MultiHeadAttention with lengths": many_heads(None, whole(4, 6)),
    "MultiHeadAttention, only of what was": Case(
        "MultiHeadAttention", [Q, normal(2, 5, 8), normal(2, 5, 8)], [],
        {"num_heads": 4, "unidirectional": 1},
    ),
    "MultiHeadAttention with a past": Case(
        "MultiHeadAttention", [normal(2, 1, 8)] * 3,
        [None, None, None, normal(2, 2, 3, 4), normal(2, 2, 3, 4)], {"num_heads": 2},
        outputs="yyy",
    ),
    "MultiHeadAttention of projected keys": Case(
        "MultiHeadAttention", [Q, normal(2, 2, 6, 4), normal(2, 2, 6, 4)], [], {"num_heads": 2}
    ),
    "GroupQueryAttention": grouped(5),
    "GroupQueryAttention of computed lengths": grouped(5, inputs=True),
    "GroupQueryAttention with a past": grouped(1, 3),
    "GroupQueryAttention with a past of computed lengths": grouped(1, 3, inputs=True),
    "GroupQueryAttention of one sentence with a past": grouped(3, 4, inputs=True, batch=1),
    "GroupQueryAttention with a past, in a window": grouped(
        1, 6, local_window_size=3, inputs=True
    ),
    "GroupQueryAttention in a window": grouped(6, local_window_size=2, scale=0.2),
    "GroupQueryAttention with soft limits": grouped(5, softcap=1.5),
    "GroupQueryAttention with rotations": grouped(5, 0, *WIDE_TURNS, do_rotary=1),
    "GroupQueryAttention with rotations and a past": grouped(
        1, 4, *WIDE_TURNS, do_rotary=1, rotary_interleaved=1, inputs=True
    ),
    "GroupQueryAttention, rotated in part": Case(
        "GroupQueryAttention", [normal(2, 3, 64), normal(2, 3, 32), normal(2, 3, 32)],
        [None, None, whole(2, 2), whole(3), *WIDE_TURNS],
        {"num_heads": 2, "kv_num_heads": 1, "do_rotary": 1}, outputs="yyy",
    ),
    "GroupQueryAttention with a bias": grouped(
        4, 0, None, None, None, normal(1, 4, 4, 4)
    ),
    "GroupQueryAttention with sinks": grouped(5, 0, None, None, None, None, normal(4)),
    "GroupQueryAttention with sinks and a past, in a window": grouped(
        1, 6, None, None, None, None, normal(4), local_window_size=3, inputs=True
    ),
    "GroupQueryAttention, smooth": grouped(5, smooth_softmax=1),
    "GroupQueryAttention, smooth, with soft limits and a past": grouped(
        1, 3, smooth_softmax=1, softcap=1.5
    ),
    "GroupQueryAttention with what it attends to": grouped(
        1, 4, outputs="yyyy", qk_output=2
    ),
    "GroupQueryAttention with sinks and what it attends to": grouped(
        1, 4, None, None, None, None, normal(4), outputs="yyyy", qk_output=2
    ),
    "GroupQueryAttention with its scores": grouped(1, 4, outputs="yyyy", qk_output=1, scale=0.3),
    **{
        f"GroupQueryAttention with a cache of {bits} bits, {kind}, {name}": in_codes(
            bits, kind, **options
        )
        for bits in (4, 8)
        for kind in ("PER_TENSOR", "PER_CHANNEL")
        for name, options in (
            ("of two sentences", {}),
            ("of one sentence", {"batch": 1}),
            ("with rotations, in a window", {
                "rest": [*WIDE_TURNS, None, None, None], "do_rotary": 1, "local_window_size": 3,
            }),
            ("with sinks", {"rest": [None, None, None, None, normal(4)]}),
        )
    },
    "GroupQueryAttention of packed operands": Case(
        "GroupQueryAttention", [normal(2, 5, 128)],
        [None, None, None, None, whole(4, 4), whole(5)], {"num_heads": 4, "kv_num_heads": 2},
        outputs="yyy",
    ),
    "RotaryEmbedding": Case("RotaryEmbedding", [normal(2, 5, 16)], [PLACES, *TURNS]),
    "RotaryEmbedding of a place": Case(
        "RotaryEmbedding", [normal(2, 5, 16)], [np.array([3]), *TURNS]
    ),
    "RotaryEmbedding, interleaved": Case(
        "RotaryEmbedding", [normal(2, 5, 16)], [PLACES, *TURNS], {"interleaved": 1}
    ),
    "RotaryEmbedding of four axes": Case("RotaryEmbedding", [normal(2, 3, 5, 8)],
                                         [PLACES, *TURNS]),
    "RotaryEmbedding of a part": Case(
        "RotaryEmbedding", [normal(2, 5, 24)], [PLACES, *TURNS],
        {"num_heads": 2, "rotary_embedding_dim": 8, "interleaved": 1},
    ),
    "RotaryEmbedding of computed operands": Case(
        "RotaryEmbedding", [normal(2, 5, 16), PLACES, *TURNS], []
    ),
    "RotaryEmbedding of a computed place": Case(
        "RotaryEmbedding", [normal(2, 5, 16), np.array([2])], TURNS
    ),
    "MatMulNBits": blocks(64, 6, 32, 4),
    "MatMulNBits with zero points": blocks(80, 6, 32, 4, zeros="packed"),
    "MatMulNBits with zero points in floats": blocks(64, 6, 32, 4, zeros="floats"),
    "MatMulNBits of one block": blocks(16, 6, 16, 4),
    "MatMulNBits of 8 bits": blocks(64, 6, 32, 8),
    "FusedConv": Case("FusedConv", [IMAGE], [FILTER, SHIFT],
                      {"activation": "Relu", "pads": [1, 1, 1, 1]}),
    "FusedConv, leaky": Case("FusedConv", [IMAGE], [FILTER, SHIFT],
                             {"activation": "LeakyRelu", "activation_params": [0.2]}),
    "FusedConv, clipped": Case("FusedConv", [IMAGE], [FILTER, None],
                               {"activation": "Clip", "activation_params": [0.0, 1.5]}),
    "FusedConv, hard": Case("FusedConv", [IMAGE], [FILTER, SHIFT],
                            {"activation": "HardSigmoid", "activation_params": [0.3, 0.4]}),
    "FusedConv with a sum": Case(
        "FusedConv", [IMAGE, normal(1, 4, 6, 7)], [FILTER, SHIFT],
        {"activation": "Relu", "pads": [1, 1, 1, 1]}, order="gccg",
    ),
    "FusedGemm": Case("FusedGemm", [normal(3, 4)], [normal(4, 5), normal(5)],
                      {"activation": "Relu"}),
    "FusedGemm, leaky": Case(
        "FusedGemm", [normal(3, 4)], [normal(5, 4), normal(5)],
        {"activation": "LeakyRelu", "activation_alpha": 0.3, "transB": 1, "alpha": 0.5},
    ),
    "QGemm": Case(
        "QGemm", [codes(3, 4)],
        [f(0.02), u(110), codes(4, 5), f(0.03), u(130), None, f(0.1), u(100)], step=1,
    ),
    "QGemm with a bias, by columns": Case(
        "QGemm", [codes(3, 4)],
        [f(0.02), u(110), codes(5, 4, kind=np.int8), np.float32([0.01, 0.02, 0.03, 0.04, 0.05]),
         np.zeros(5, np.int8), RNG.integers(-900, 900, 5).astype(np.int32)],
        {"transB": 1},
    ),
    "QLinearAdd": Case("QLinearAdd", [A, D], [*XQ, *YQ, f(0.07), u(90)], order="gccgcccc", step=1),
    "QLinearMul": Case("QLinearMul", [A, D], [*XQ, *YQ, f(0.07), u(90)], order="gccgcccc", step=1),
    "QLinearAdd of a constant": Case(
        "QLinearAdd", [A.astype(np.int8)],
        [f(0.03), i(3), codes(4, kind=np.int8), f(0.02), i(-4), f(0.0613), i(5)], step=1
    ),
    "QLinearConcat": Case(
        "QLinearConcat", [A, codes(2, 2, 4)], [f(0.06), u(99), *XQ, *YQ],
        {"axis": 1}, order="ccgccgcc", step=1,
    ),
    "QLinearSoftmax": Case("QLinearSoftmax", [A], [*XQ, f(1 / 256), u(0)],
                           {"axis": -1, "opset": 13}, step=1),
    "QLinearSoftmax along another axis": Case(
        "QLinearSoftmax", [A], [*XQ, f(1 / 256), u(0)], {"axis": 1, "opset": 13}, step=1
    ),
    "QLinearSoftmax before opset 13": Case(
        "QLinearSoftmax", [A], [*XQ, f(1 / 256), u(0)], {"axis": 1, "opset": 11}, step=1
    ),
    "QLinearAveragePool": Case(
        "QLinearAveragePool", [MAPS], [*XQ, *YQ],
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 0]}, step=1,
    ),
    "QLinearAveragePool of pads, too": Case(
        "QLinearAveragePool", [MAPS], [*XQ, *YQ],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, step=1,
    ),
    "QLinearAveragePool, channels last": Case(
        "QLinearAveragePool", [codes(1, 6, 7, 3)], [*XQ, *YQ],
        {"kernel_shape": [2, 2], "channels_last": 1}, step=1,
    ),
    "QLinearGlobalAveragePool": Case("QLinearGlobalAveragePool", [MAPS], [*XQ, *YQ], step=1),
    "QLinearGlobalAveragePool, channels last": Case(
        "QLinearGlobalAveragePool", [codes(1, 6, 7, 3)], [*XQ, *YQ], {"channels_last": 1}, step=1
    ),
    "QLinearSigmoid": Case("QLinearSigmoid", [A], [*XQ, f(1 / 256), u(0)], step=1),
    "QLinearLeakyRelu": Case("QLinearLeakyRelu", [A], [*XQ, *YQ], {"alpha": 0.2}, step=1),
    "NhwcMaxPool": Case(
        "NhwcMaxPool", [codes(1, 6, 7, 3)], [],
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]},
    ),
    "QLinearWhere": Case(
        "QLinearWhere", [A > 100, A, D], [*XQ, *YQ, f(0.07), u(90)], order="ggccgcccc", step=1
    ),
    "QLinearConv, channels last": Case(
        "QLinearConv", [codes(1, 6, 7, 3)],
        [*XQ, codes(4, 3, 3, 3) // 2, f(0.02), u(60), f(0.3), u(110),
         RNG.integers(-900, 900, 4).astype(np.int32)],
        {"channels_last": 1, "strides": [2, 1]}, step=1,
    ),
    "MatMulIntegerToFloat": Case(
        "MatMulIntegerToFloat", [codes(3, 4)],
        [codes(4, 5), f(0.02), f(0.03), u(120), u(130), normal(5)],
    ),
    "MatMulIntegerToFloat by columns": Case(
        "MatMulIntegerToFloat", [codes(3, 4)],
        [few_codes(4, 5), f(0.02), normal(5) ** 2, u(120), np.zeros(5, np.int8)],
    ),
    "DynamicQuantizeMatMul": Case(
        "DynamicQuantizeMatMul", [normal(3, 4)],
        [few_codes(4, 5), f(0.03), i(4), normal(5)],
    ),
    "DynamicQuantizeMatMul of zeros": Case(
        "DynamicQuantizeMatMul", [normal(3, 4) * 0], [codes(4, 5), f(0.03), u(120)]
    ),
    "DynamicQuantizeLSTM": lstm(1, columns=False),
    "DynamicQuantizeLSTM by columns": lstm(1, columns=True),
    "DynamicQuantizeLSTM both ways": lstm(2, columns=False, direction="bidirectional"),
    "QuantizeLinear": Case("QuantizeLinear", [normal(3, 4)], [f(0.03), u(120)], step=1),
    "QuantizeLinear by columns": Case(
        "QuantizeLinear", [normal(3, 4)],
        [np.float32([0.01, 0.02, 0.03, 0.04]), np.int8([1, 2, 3, 4])], {"axis": 1}, step=1,
    ),
    "QuantizeLinear to 16 bits": Case(
        "QuantizeLinear", [normal(3, 4)], [f(1e-4), np.array(30000, np.uint16)], step=1
    ),
    "DequantizeLinear": Case("DequantizeLinear", [A], [f(0.03), u(120)]),
}  # fmt: skip


def model(case: Case, opset: int = 17) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A network of one node, and what it is given."""
    order = case.order or "g" * len(case.given) + "c" * len(case.constants)
    left = {"g": list(case.given), "c": list(case.constants)}
    names, inputs, fixed = [], {}, {}
    for place, letter in enumerate(order):
        array = left[letter].pop(0)
        names.append("" if array is None else f"{letter}{place}")
        if array is not None:
            (inputs if letter == "g" else fixed)[f"{letter}{place}"] = array
    named = ["" if letter == "-" else f"y{index}" for index, letter in enumerate(case.outputs)]
    graph = helper.make_graph(
        [helper.make_node(case.op, names, named, domain=case.domain, **case.attributes)],
        "g",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for n, x in inputs.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in named if name],
        [numpy_helper.from_array(c, n) for n, c in fixed.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), inputs


@pytest.mark.parametrize("name", list(CASES))
def test_against_onnxruntime(name: str, library: Callable[[str], Any]) -> None:
    case = CASES[name]
    network, inputs = model(case)
    expected = (
        library("onnxruntime").InferenceSession(network.SerializeToString()).run(None, inputs)
    )
    actual = mlferry.convert(network).predict(inputs).values()
    for got, right in zip(actual, expected, strict=True):
        assert got.shape == (right.shape or (1,))
        far = np.abs(np.float64(got) - right)
        assert far.max() <= 2e-5 + 1e-4 * np.abs(np.float64(right)).max() + case.step
        assert (far > 0.5).mean() <= 0.04 or not case.step


@pytest.mark.parametrize("packed", ["keys and values", "all three"])
def test_packed_operands_are_those_apart(packed: str, library: Callable[[str], Any]) -> None:
    """onnxruntime takes them on graphics processors alone; what they hold it takes apart, too."""
    q, k, v = normal(2, 5, 2, 4), normal(2, 5, 2, 4), normal(2, 5, 2, 4)
    apart, inputs = model(Case("MultiHeadAttention", [x.reshape(2, 5, 8) for x in (q, k, v)], [],
                              {"num_heads": 2}))  # fmt: skip
    (expected,) = (
        library("onnxruntime").InferenceSession(apart.SerializeToString()).run(None, inputs)
    )
    operands = [q.reshape(2, 5, 8), np.stack([k, v], 3)]
    operands = [np.stack([q, k, v], 3)] if packed == "all three" else operands
    network, inputs = model(Case("MultiHeadAttention", operands, [], {"num_heads": 2}))
    (actual,) = mlferry.convert(network).predict(inputs).values()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_every_op_has_a_row() -> None:
    tested = {f"{case.domain}.{case.op}" if case.domain else case.op for case in CASES.values()}
    assert {name for name in OPS if name.startswith(DOMAIN)} - tested == set()


def refused(case: Case) -> str:
    with pytest.raises(MlferryError) as caught:
        mlferry.convert(model(case)[0])
    return str(caught.value)


REFUSED: dict[str, tuple[Case, str]] = {
    "rotations in attention": (attention(do_rotary=1), "do_rotary"),
    "a shared buffer": (
        attention(None, PAST, None, whole(3), past_present_share_buffer=1), "share a buffer"
    ),
    "a mask of four axes": (attention(np.ones((2, 1, 5, 5), np.int32)), "four axes"),
    "lengths of other sentences": (attention(whole(1, 2, 3)), "3 numbers for 2 sentences"),
    "keys before which queries": (many_heads(unidirectional=1), "(5, 6) queries and keys"),
    "last windows of a quantized pool": (
        Case("QLinearAveragePool", [MAPS], [*XQ, *YQ],
             {"kernel_shape": [2, 2], "ceil_mode": 1, "count_include_pad": 1}),
        "ceil_mode with count_include_pad",
    ),
    "heads that move": (many_heads(*[None] * 5, whole(3)), "share a buffer"),
    "sentences without padding": (
        Case("RotaryEmbedding", [normal(2, 5, 16)], [PLACES, *TURNS], {"is_packed_batching": 1}),
        "without padding",
    ),
    "scores that are not asked for": (
        grouped(1, 4, outputs="yyyy"), "its scores are an output, and qk_output=0"
    ),
    "an unknown softmax": (grouped(5, smooth_softmax=2), "smooth_softmax=2"),
    "codes of 2 bits": (
        in_codes(8, "PER_TENSOR")._replace(
            attributes={"num_heads": 4, "kv_num_heads": 2, "kv_cache_bit_width": 2,
                        "k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR"}
        ),
        "kv_cache_bit_width=2",
    ),
    "the mean of a sum": (
        Case("SkipLayerNormalization", [X, X], NORM, outputs="yy"), "onnxruntime leaves empty"
    ),
    "weights of one kind of processor": (
        blocks(64, 6, 32, 4)._replace(
            attributes={"K": 64, "N": 6, "block_size": 32, "weight_prepacked": 1}
        ),
        "weight_prepacked",
    ),
    "three bits": (
        blocks(64, 6, 32, 4)._replace(attributes={"K": 64, "N": 6, "block_size": 32, "bits": 3}),
        "bits=3",
    ),
    "an unknown activation": (
        Case("FusedConv", [IMAGE], [FILTER, SHIFT], {"activation": "Mystery"}), "Mystery"
    ),
    "a clipped LSTM": (lstm(1, columns=False, clip=0.5), "clip"),
    "an op without a converter": (Case("Inverse", [normal(3, 3)]), "com.microsoft.Inverse"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_refused(name: str) -> None:
    case, reason = REFUSED[name]
    assert reason in refused(case)


@pytest.mark.parametrize("key", ["com.microsoft.Attention", "Attention"])
def test_functions_of_the_user_come_first(key: str) -> None:
    network, _ = model(attention())

    def function(node: Any) -> mlferry.CustomLayerParams:
        assert (node.num_heads, node.op) == (2, "com.microsoft.Attention")
        return mlferry.CustomLayerParams("Attention", output_shapes=lambda shapes: shapes[:1])

    converted = mlferry.convert(network, custom_conversion_functions={key: function})
    kinds = [layer.WhichOneof("layer") for layer in converted.get_spec().neuralNetwork.layers]
    assert "custom" in kinds
    assert "softmaxND" not in kinds


def test_four_bits_stay_four_bits() -> None:
    """A matrix of one block a column has Core ML's own form of weights."""
    converted = mlferry.convert(model(CASES["MatMulNBits of one block"])[0])
    layers = converted.get_spec().neuralNetwork.layers
    (product,) = (x.innerProduct for x in layers if x.WhichOneof("layer") == "innerProduct")
    assert product.weights.quantization.numberOfBits == 4


FLOATS = normal(6, 8)


@pytest.mark.parametrize("kind", ["UINT4", "INT4", "UINT16"])
@pytest.mark.parametrize("block", [0, 2])
def test_rounding_to_few_bits(kind: str, block: int, library: Callable[[str], Any]) -> None:
    """Of computed values, with one scale, or one a block."""
    code = getattr(onnx.TensorProto, kind)
    scale = (RNG.uniform(0.1, 0.3, (3, 8)) if block else np.array(0.2)).astype(np.float32)
    zero = np.full(scale.shape, 1)
    attributes = {"axis": 0, "block_size": 2} if block else {}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
    ]
    tensors = [
        helper.make_tensor("s", 1, scale.shape, scale.ravel()),
        helper.make_tensor("z", code, zero.shape, zero.ravel()),
    ]
    shapes = [helper.make_tensor_value_info(name, 1, [6, 8]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", shapes[:1], shapes[1:], tensors)
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = library("onnxruntime").InferenceSession(network.SerializeToString())
    (expected,) = session.run(None, {"x": FLOATS})
    (actual,) = mlferry.convert(network).predict({"x": FLOATS}).values()
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_types_of_every_op_are_told() -> None:
    """Which an integer division or a rounding behind it depends on."""
    from mlferry.converters.onnx import element_types

    names = {name.removeprefix(f"{DOMAIN}.") for name in OPS if name.startswith(DOMAIN)}
    assert names == set(element_types.RULES)


@pytest.mark.parametrize("kind", ["INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2"])
@pytest.mark.parametrize("form", ["one scale", "a column", "a block"])
def test_weights_of_few_bits(kind: str, form: str) -> None:
    """They stay as they are but in blocks; the floats that they stand for are exact."""
    bits = int(kind[-1])
    signed = kind.startswith("I")
    least = -(2 ** (bits - 1)) if signed else 0
    whole = RNG.integers(least, least + 2**bits, (6, 4))
    shape = {"one scale": (), "a column": (4,), "a block": (3, 4)}[form]
    scale = RNG.uniform(0.1, 0.3, shape).astype(np.float32)
    zero = np.full(shape, least + 1)
    attributes = {"axis": 0, "block_size": 2} if form == "a block" else {"axis": 1}
    code = getattr(onnx.TensorProto, kind)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], **attributes),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    tensors = [
        helper.make_tensor("q", code, (6, 4), whole.ravel()),
        helper.make_tensor("s", 1, shape, scale.ravel()),
        helper.make_tensor("z", code, shape, zero.ravel()),
    ]
    values = [helper.make_tensor_value_info("x", 1, [3, 6]),
              helper.make_tensor_value_info("y", 1, [3, 4])]  # fmt: skip
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=13)
    converted = mlferry.convert(network)
    x = normal(3, 6)
    steps = np.repeat(scale, 2, 0) if form == "a block" else scale
    np.testing.assert_allclose(
        converted.predict({"x": x})["y"], x @ ((whole - (least + 1)) * steps), rtol=1e-4, atol=1e-5
    )
    (layer,) = converted.get_spec().neuralNetwork.layers
    told = layer.innerProduct.weights
    assert told.quantization.numberOfBits == (0 if form == "a block" else bits)


def test_caches_that_are_not_full(library: Callable[[str], Any]) -> None:
    """New keys of each sentence follow its own earlier ones; what is behind them says nothing."""
    case = grouped(1, 5, *WIDE_TURNS, do_rotary=1, inputs=True)
    lengths = whole(3, 5)
    case = case._replace(given=[*case.given[:-1], lengths])
    network, inputs = model(case)
    session = library("onnxruntime").InferenceSession(network.SerializeToString())
    expected = session.run(None, inputs)
    actual = list(mlferry.convert(network).predict(inputs).values())
    np.testing.assert_allclose(actual[0], expected[0], atol=1e-5)
    for got, right in zip(actual[1:], expected[1:], strict=True):
        for sentence, last in enumerate(lengths):
            valid = np.s_[sentence, :, : last + 1]
            np.testing.assert_allclose(got[valid], right[valid], atol=1e-5)


@pytest.mark.parametrize(("length", "past"), [(1, 4), (3, 2)])
def test_caches_of_any_length(length: int, past: int, library: Callable[[str], Any]) -> None:
    case = grouped(length, past, *WIDE_TURNS, do_rotary=1, inputs=True, batch=1)
    network, sample = model(case)
    session = library("onnxruntime").InferenceSession(network.SerializeToString())
    expected = session.run(None, sample)
    for value in network.graph.input:
        for axis, extent in enumerate(value.type.tensor_type.shape.dim):
            if value.name in ("g0", "g1", "g2") and axis == 1:
                extent.dim_param = "length"
            if value.name in ("g3", "g4") and axis == 2:
                extent.dim_param = "past"
    del network.graph.value_info[:]
    for output in network.graph.output:
        output.type.tensor_type.ClearField("shape")
    ranged = mlferry.RangeDim(1, 9)
    inputs = [
        *(mlferry.TensorType(name=n, shape=(1, ranged, s)) for n, s in zip(
            ("g0", "g1", "g2"), (64, 32, 32), strict=True)),
        *(mlferry.TensorType(name=n, shape=(1, 2, ranged, 16)) for n in ("g3", "g4")),
    ]  # fmt: skip
    converted = mlferry.convert(network, inputs=inputs)
    actual = list(converted.predict(sample).values())
    for got, right in zip(actual, expected, strict=True):
        np.testing.assert_allclose(got, right, atol=1e-5)


def test_lengths_that_are_no_lengths() -> None:
    network, _ = model(grouped(1, 4, filled=3))
    with pytest.raises(MlferryError, match="where caches are not full, make seqlens_k an input"):
        mlferry.convert(network)
