"""Attention of several heads, and masks in attention, against Keras 3 and Keras 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.converters.keras.cases import skip_if_older
from tests.converters.keras.test_models import quietly
from tests.converters.keras.test_recurrent import both_ways, filled

Library = Callable[[str], Any]
Build = Callable[[Any], Any]


def heads(**options: Any) -> Build:
    """Self-attention of one sequence."""
    call = {k: options.pop(k) for k in ("use_causal_mask",) if k in options}

    def build(k: Any) -> Any:
        x = k.layers.Input((5, 6))
        return k.Model(x, k.layers.MultiHeadAttention(2, 3, **options)(x, x, **call))

    return build


def cross(k: Any) -> Any:
    q, v, key = k.layers.Input((5, 6)), k.layers.Input((7, 4)), k.layers.Input((7, 3))
    layer = k.layers.MultiHeadAttention(3, 2, value_dim=5)
    return k.Model([q, v, key], layer(query=q, value=v, key=key))


def scores(k: Any) -> Any:
    q, v = k.layers.Input((5, 6)), k.layers.Input((7, 4))
    layer = k.layers.MultiHeadAttention(2, 4)
    return k.Model([q, v], layer(q, v, return_attention_scores=True))


def given_mask(k: Any) -> Any:
    x, mask = k.layers.Input((5, 6)), k.layers.Input((5, 5), dtype="bool")
    layer = k.layers.MultiHeadAttention(2, 3)
    return k.Model([x, mask], layer(x, x, attention_mask=mask))


def image(k: Any) -> Any:
    x = k.layers.Input((3, 4, 6))
    return k.Model(x, k.layers.MultiHeadAttention(2, 3)(x, x))


def one_axis(k: Any) -> Any:
    x = k.layers.Input((3, 4, 6))
    return k.Model(x, k.layers.MultiHeadAttention(2, 3, attention_axes=(2,))(x, x))


def transformer(k: Any) -> Any:
    """A block of a text classifier with padding."""
    words = k.layers.Input((7,), dtype="int32")
    x = k.layers.Embedding(10, 6, mask_zero=True)(words)
    attended = k.layers.MultiHeadAttention(2, 3, dropout=0.1)(x, x)
    x = k.layers.LayerNormalization()(k.layers.Add()([x, attended]))
    y = k.layers.Dense(8, activation="gelu")(x)
    x = k.layers.LayerNormalization()(k.layers.Add()([x, k.layers.Dense(6)(y)]))
    return k.Model(words, k.layers.Dense(2)(k.layers.GlobalAveragePooling1D()(x)))


def masked_dot(k: Any) -> Any:
    words, more = k.layers.Input((7,), dtype="int32"), k.layers.Input((7,), dtype="int32")
    embedding = k.layers.Embedding(10, 6, mask_zero=True)
    return k.Model([words, more], k.layers.Attention()([embedding(words), embedding(more)]))


def causal(name: str) -> Build:
    def build(k: Any) -> Any:
        x = k.layers.Input((5, 6))
        return k.Model(x, getattr(k.layers, name)()([x, x], use_causal_mask=True))

    return build


def with_scores(k: Any) -> Any:
    x, y = k.layers.Input((5, 6)), k.layers.Input((4, 6))
    return k.Model([x, y], k.layers.Attention()([x, y], return_attention_scores=True))


def grouped(**options: Any) -> Build:
    call = {k: options.pop(k) for k in ("use_causal_mask",) if k in options}

    def build(k: Any) -> Any:
        x, y = k.layers.Input((5, 6)), k.layers.Input((5, 6))
        layer = k.layers.GroupQueryAttention(3, 4, 2, **options)
        return k.Model([x, y], layer(x, y, **call))

    return build


def vision_transformer(k: Any) -> Any:
    x = inputs = k.layers.Input((8, 8, 3))
    x = k.layers.Conv2D(6, 4, strides=4)(x)
    x = k.layers.Reshape((4, 6))(x)
    y = k.layers.LayerNormalization(epsilon=1e-6)(x)
    x = k.layers.Add()([x, k.layers.MultiHeadAttention(2, 3)(y, y)])
    return k.Model(inputs, k.layers.Dense(3)(k.layers.Flatten()(x)))


BOTH: list[Build] = [
    heads(), heads(use_bias=False), heads(output_shape=5), heads(use_causal_mask=True),
    heads(dropout=0.2), cross, scores, given_mask, image, one_axis, transformer, masked_dot,
    causal("Attention"), causal("AdditiveAttention"), with_scores, vision_transformer,
]  # fmt: skip
KERAS_3: list[Build] = [
    grouped(), grouped(use_bias=False), grouped(use_causal_mask=True), grouped(dropout=0.1),
    grouped(sliding_window=2), heads(sliding_window=2), heads(use_gate=True),
    grouped(use_gate=True),
]  # fmt: skip
PAIRS = [
    pytest.param(build, name, id=f"{name}-{index}-{build.__name__}")
    for index, build in enumerate([*BOTH, *KERAS_3])
    for name in (("keras", "tf_keras") if build in BOTH else ("keras",))
]


def data_for(model: Any, rng: np.random.Generator) -> list[np.ndarray]:
    matches = []
    for tensor in model.inputs:
        shape, kind = (1, *tensor.shape[1:]), str(tensor.dtype)
        if "int" in kind:
            matches.append(np.array([[3, 1, 4, 0, 0, 2, 0]], np.float32)[:, : shape[1]])
        elif "bool" in kind:
            matches.append(rng.uniform(size=shape) > 0.3)
        else:
            matches.append(rng.normal(size=shape).astype(np.float32))
    return matches


@pytest.mark.parametrize(("build", "keras_name"), PAIRS)
def test_attention(
    build: Build, keras_name: str, library: Library, rng: np.random.Generator, tmp_path: Path
) -> None:
    keras = library(keras_name)
    keras.backend.clear_session()
    try:
        model = filled(build(keras), rng)
    except ValueError as error:
        skip_if_older(keras, error)
        raise
    data = data_for(model, rng)
    quietly(lambda: both_ways(model, data, tmp_path))
