"""One row, or a few, for every Keras layer and activation that converts.

`make` gets the `layers` module of Keras 3 or of tf_keras (Keras 2) and returns one layer, which
is put behind inputs of the shapes given (without the batch).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

KERAS_2, KERAS_3 = "tf_keras", "keras"

IMAGE = (7, 6, 4)
LINE = (9, 4)
VECTOR = (8,)


@dataclass(frozen=True)
class Case:
    """A layer, the shapes of its inputs, and what is special about it.

    Attributes:
        op: the registered name that the case is for.
        make: the layer, given a module of layers.
        shapes: one shape an input.
        only: the one Keras that has it, or None.
        since: the registered version that the case is for.
        integers: inputs are integers from 0 to 9.
        spread: inputs are normal with this standard deviation.
    """

    op: str
    make: Callable[[Any], Any]
    shapes: tuple[tuple[int, ...], ...]
    only: str | None = None
    integers: bool = False
    spread: float = 1.0

    @property
    def label(self) -> str:
        """For the name of the test."""
        shapes = "_".join("x".join(map(str, shape)) for shape in self.shapes)
        return f"{self.op}-{shapes}"


def row(op: str, make: Callable[[Any], Any], *shapes: tuple[int, ...], **special: Any) -> Case:
    """A `Case` with its shapes in a row."""
    return Case(op, make, shapes, **special)


def skip_if_older(keras: Any, error: Exception) -> None:
    """Skip what the Keras of an older Python does not have."""
    version = tuple(map(int, keras.__version__.split(".")[:2]))
    if keras.__name__ == "keras" and version < (3, 15):
        pytest.skip(f"Keras {keras.__version__}: {error}")


LAYERS = [
    row("Dense", lambda k: k.Dense(5), VECTOR),
    row("Dense", lambda k: k.Dense(5, use_bias=False, activation="relu"), VECTOR),
    row("Dense", lambda k: k.Dense(5, activation="tanh"), LINE),
    row("Dense", lambda k: k.Dense(5), IMAGE),
    row("Dense", lambda k: k.Dense(5), (2, 3, 4, 5)),
    row("Conv1D", lambda k: k.Conv1D(5, 3), LINE),
    row("Conv1D", lambda k: k.Conv1D(5, 3, padding="same", strides=2), LINE),
    row("Conv1D", lambda k: k.Conv1D(5, 3, padding="causal", dilation_rate=2), LINE),
    row("Conv1D", lambda k: k.Conv1D(6, 2, groups=2, activation="relu"), LINE),
    row("Conv2D", lambda k: k.Conv2D(5, 3), IMAGE),
    row("Conv2D", lambda k: k.Conv2D(5, (3, 2), padding="same", activation="relu"), IMAGE),
    row("Conv2D", lambda k: k.Conv2D(5, 3, padding="same", strides=2), IMAGE),
    row("Conv2D", lambda k: k.Conv2D(5, 2, padding="same", dilation_rate=(2, 1)), IMAGE),
    row("Conv2D", lambda k: k.Conv2D(6, 3, groups=2, use_bias=False), IMAGE),
    row("Conv2D", lambda k: k.Conv2D(4, 1, strides=(2, 1)), IMAGE),
    row("DepthwiseConv1D", lambda k: k.DepthwiseConv1D(3, depth_multiplier=2), LINE),
    row("DepthwiseConv2D", lambda k: k.DepthwiseConv2D(3, padding="same"), IMAGE),
    row("DepthwiseConv2D", lambda k: k.DepthwiseConv2D((3, 2), depth_multiplier=2), IMAGE),
    row("DepthwiseConv2D", lambda k: k.DepthwiseConv2D(3, strides=2, use_bias=False), IMAGE),
    row("DepthwiseConv2D", lambda k: k.DepthwiseConv2D(2, activation="relu6"), IMAGE),
    row("SeparableConv1D", lambda k: k.SeparableConv1D(5, 3, strides=2, padding="same"), LINE),
    row("SeparableConv2D", lambda k: k.SeparableConv2D(5, 3, depth_multiplier=2), IMAGE),
    row("SeparableConv2D", lambda k: k.SeparableConv2D(5, 3, padding="same"), IMAGE),
    row("SeparableConv2D", lambda k: k.SeparableConv2D(5, 2, dilation_rate=2), IMAGE),
    row("Conv1DTranspose", lambda k: k.Conv1DTranspose(5, 3), LINE),
    row("Conv1DTranspose", lambda k: k.Conv1DTranspose(5, 3, 2, padding="same"), LINE),
    row("Conv2DTranspose", lambda k: k.Conv2DTranspose(5, 3), IMAGE),
    row("Conv2DTranspose", lambda k: k.Conv2DTranspose(5, 3, 2, padding="same"), IMAGE),
    row("Conv2DTranspose", lambda k: k.Conv2DTranspose(5, 4, 2, padding="same"), IMAGE),
    row("Conv2DTranspose", lambda k: k.Conv2DTranspose(5, 3, 2, "valid"), IMAGE),
    row("Conv2DTranspose", lambda k: k.Conv2DTranspose(5, 2, 3), IMAGE),
    row("Conv2DTranspose", lambda k: k.Conv2DTranspose(5, 2, 3, padding="same"), IMAGE),
    row("Conv2DTranspose", lambda k: k.Conv2DTranspose(5, 5, (3, 2), padding="same"), IMAGE),
    row("Conv2DTranspose", lambda k: k.Conv2DTranspose(5, 3, 2, output_padding=1), IMAGE),
    row(
        "Conv2DTranspose",
        lambda k: k.Conv2DTranspose(5, 3, 2, padding="same", output_padding=1),
        IMAGE,
    ),
    row(
        "Conv2DTranspose",
        lambda k: k.Conv2DTranspose(5, 3, 2, padding="same", output_padding=0),
        IMAGE,
    ),
    row("MaxPooling1D", lambda k: k.MaxPooling1D(), LINE),
    row("MaxPooling1D", lambda k: k.MaxPooling1D(3, 2, padding="same"), LINE),
    row("MaxPooling2D", lambda k: k.MaxPooling2D(), IMAGE),
    row("MaxPooling2D", lambda k: k.MaxPooling2D((3, 2), (2, 1), padding="same"), IMAGE),
    row("AveragePooling1D", lambda k: k.AveragePooling1D(3, 2, padding="same"), LINE),
    row("AveragePooling2D", lambda k: k.AveragePooling2D(2), IMAGE),
    row("AveragePooling2D", lambda k: k.AveragePooling2D(3, 2, padding="same"), IMAGE),
    row("GlobalMaxPooling1D", lambda k: k.GlobalMaxPooling1D(), LINE),
    row("GlobalMaxPooling1D", lambda k: k.GlobalMaxPooling1D(keepdims=True), LINE),
    row("GlobalAveragePooling1D", lambda k: k.GlobalAveragePooling1D(), LINE),
    row("GlobalAveragePooling1D", lambda k: k.GlobalAveragePooling1D(keepdims=True), LINE),
    row("GlobalMaxPooling2D", lambda k: k.GlobalMaxPooling2D(), IMAGE),
    row("GlobalMaxPooling2D", lambda k: k.GlobalMaxPooling2D(keepdims=True), IMAGE),
    row("GlobalAveragePooling2D", lambda k: k.GlobalAveragePooling2D(), IMAGE),
    row("GlobalAveragePooling2D", lambda k: k.GlobalAveragePooling2D(keepdims=True), IMAGE),
    row("BatchNormalization", lambda k: k.BatchNormalization(), IMAGE),
    row("BatchNormalization", lambda k: k.BatchNormalization(epsilon=0.1), VECTOR),
    row("BatchNormalization", lambda k: k.BatchNormalization(scale=False), LINE),
    row("BatchNormalization", lambda k: k.BatchNormalization(center=False), LINE),
    row("BatchNormalization", lambda k: k.BatchNormalization(axis=1), IMAGE),
    row("BatchNormalization", lambda k: k.BatchNormalization(axis=2), LINE),
    row("BatchNormalization", lambda k: k.BatchNormalization(), (2, 3, 4, 5)),
    row("Dropout", lambda k: k.Dropout(0.5), VECTOR),
    row("SpatialDropout1D", lambda k: k.SpatialDropout1D(0.5), LINE),
    row("SpatialDropout2D", lambda k: k.SpatialDropout2D(0.5), IMAGE),
    row("SpatialDropout3D", lambda k: k.SpatialDropout3D(0.5), (2, 3, 4, 5)),
    row("GaussianDropout", lambda k: k.GaussianDropout(0.5), VECTOR),
    row("GaussianNoise", lambda k: k.GaussianNoise(0.5), VECTOR),
    row("AlphaDropout", lambda k: k.AlphaDropout(0.5), VECTOR),
    row("ActivityRegularization", lambda k: k.ActivityRegularization(0.1), VECTOR),
    row("Identity", lambda k: k.Identity(), VECTOR),
    row("Flatten", lambda k: k.Flatten(), IMAGE),
    row("Flatten", lambda k: k.Flatten(), LINE),
    row("Flatten", lambda k: k.Flatten(), VECTOR),
    row("Reshape", lambda k: k.Reshape((3, -1)), IMAGE),
    row("Reshape", lambda k: k.Reshape((4, 3, 2, 7)), IMAGE),
    row("Reshape", lambda k: k.Reshape((4, 2)), VECTOR),
    row("Permute", lambda k: k.Permute((2, 1)), LINE),
    row("Permute", lambda k: k.Permute((3, 1, 2)), IMAGE),
    row("RepeatVector", lambda k: k.RepeatVector(3), VECTOR),
    row("Add", lambda k: k.Add(), IMAGE, IMAGE, IMAGE),
    row("Add", lambda k: k.Add(), IMAGE, (1, 1, 4)),
    row("Add", lambda k: k.Add(), IMAGE, (4,)),
    row("Subtract", lambda k: k.Subtract(), LINE, LINE),
    row("Subtract", lambda k: k.Subtract(), LINE, (9, 1)),
    row("Multiply", lambda k: k.Multiply(), IMAGE, IMAGE),
    row("Multiply", lambda k: k.Multiply(), IMAGE, (7, 6, 1), (1, 6, 4)),
    row("Average", lambda k: k.Average(), VECTOR, VECTOR, VECTOR),
    row("Average", lambda k: k.Average(), IMAGE, (1, 1, 4)),
    row("Maximum", lambda k: k.Maximum(), IMAGE, IMAGE),
    row("Maximum", lambda k: k.Maximum(), LINE, (1, 4)),
    row("Minimum", lambda k: k.Minimum(), IMAGE, IMAGE),
    row("Minimum", lambda k: k.Minimum(), LINE, (1, 4)),
    row("Concatenate", lambda k: k.Concatenate(), IMAGE, (7, 6, 2)),
    row("Concatenate", lambda k: k.Concatenate(axis=1), IMAGE, (2, 6, 4)),
    row("Concatenate", lambda k: k.Concatenate(axis=-2), IMAGE, (7, 2, 4), IMAGE),
    row("Concatenate", lambda k: k.Concatenate(), VECTOR, (3,)),
    row("Dot", lambda k: k.Dot(axes=1), VECTOR, VECTOR),
    row("Dot", lambda k: k.Dot(axes=1, normalize=True), VECTOR, VECTOR),
    row("Dot", lambda k: k.Dot(axes=(2, 1)), (5, 4), (4, 3)),
    row("Dot", lambda k: k.Dot(axes=1), (5, 4), (5, 3)),
    row("Dot", lambda k: k.Dot(axes=(2, 2), normalize=True), (5, 4), (3, 4)),
    row("Dot", lambda k: k.Dot(axes=(2, 1)), (5, 4), (4,)),
    row("ZeroPadding1D", lambda k: k.ZeroPadding1D((1, 2)), LINE),
    row("ZeroPadding2D", lambda k: k.ZeroPadding2D(((1, 2), (0, 3))), IMAGE),
    row("ZeroPadding2D", lambda k: k.ZeroPadding2D(2), IMAGE),
    row("Cropping1D", lambda k: k.Cropping1D((1, 2)), LINE),
    row("Cropping2D", lambda k: k.Cropping2D(((1, 2), (0, 3))), IMAGE),
    row("UpSampling1D", lambda k: k.UpSampling1D(3), LINE),
    row("UpSampling2D", lambda k: k.UpSampling2D((2, 3)), IMAGE),
    row("UpSampling2D", lambda k: k.UpSampling2D((2, 3), interpolation="bilinear"), IMAGE),
    row("UpSampling2D", lambda k: k.UpSampling2D((2, 4), interpolation="bicubic"), IMAGE),
    row("UpSampling2D", lambda k: k.UpSampling2D(2, interpolation="lanczos3"), IMAGE),
    row("UpSampling2D", lambda k: k.UpSampling2D(2, interpolation="lanczos5"), IMAGE),
    row("Embedding", lambda k: k.Embedding(10, 4), (6,), integers=True),
    row(
        "ReversibleEmbedding",
        lambda k: k.ReversibleEmbedding(10, 4),
        (6,),
        integers=True,
        only=KERAS_3,
    ),
    row("Embedding", lambda k: k.Embedding(10, 4), (3, 2), integers=True),
    row("Rescaling", lambda k: k.Rescaling(1 / 127.5, -1.0), IMAGE),
    row("Rescaling", lambda k: k.Rescaling([1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 2.0, 3.0]), IMAGE),
    row(
        "Normalization",
        lambda k: k.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0, 4.0, 9.0, 2.0]),
        IMAGE,
    ),
    row("Normalization", lambda k: k.Normalization(axis=None, mean=3.0, variance=2.0), LINE),
    row("Normalization", lambda k: k.Normalization(axis=-1), VECTOR),
    row("Normalization", lambda k: k.Normalization(axis=1), LINE),
    row(
        "Normalization",
        lambda k: k.Normalization(mean=[1.0] * 8, variance=[2.0] * 8, invert=True),
        VECTOR,
    ),
    row("ReLU", lambda k: k.ReLU(max_value=1.5), IMAGE),
    row("ReLU", lambda k: k.ReLU(negative_slope=0.2, max_value=0.5), IMAGE),
    row("ReLU", lambda k: k.ReLU(threshold=0.5), VECTOR),
    row("ReLU", lambda k: k.ReLU(negative_slope=0.3, threshold=0.4, max_value=1.0), VECTOR),
    row("LeakyReLU", lambda k: k.LeakyReLU(), IMAGE),
    row("LeakyReLU", lambda k: k.LeakyReLU(0.1), VECTOR),
    row("ELU", lambda k: k.ELU(0.7), IMAGE),
    row("PReLU", lambda k: k.PReLU(shared_axes=[1, 2]), IMAGE),
    row("PReLU", lambda k: k.PReLU(), IMAGE),
    row("PReLU", lambda k: k.PReLU(), VECTOR),
    row("PReLU", lambda k: k.PReLU(shared_axes=[1]), LINE),
    row("ThresholdedReLU", lambda k: k.ThresholdedReLU(0.4), VECTOR, only=KERAS_2),
    row("Softmax", lambda k: k.Softmax(), VECTOR),
    row("Softmax", lambda k: k.Softmax(axis=1), IMAGE),
    row("Softmax", lambda k: k.Softmax(axis=[1, 2]), IMAGE),
]

SEQUENCE = (5, 4)


def _bidirectional(inner: str, **options: Any) -> Callable[[Any], Any]:
    merge = options.pop("merge_mode", "concat")
    return lambda k: k.Bidirectional(getattr(k, inner)(3, **options), merge_mode=merge)


def _recurrent_rows(name: str) -> list[Case]:
    """What all recurrent layers have in common."""
    options: list[dict[str, Any]] = [
        {},
        {"return_sequences": True},
        {"go_backwards": True},
        {"go_backwards": True, "return_sequences": True},
        {"use_bias": False, "return_sequences": True},
        {"activation": "relu", "return_sequences": True},
        {"unroll": True},
    ]
    rows = [row(name, lambda k, o=o: getattr(k, name)(3, **o), SEQUENCE) for o in options]
    rows += [
        row("Bidirectional", _bidirectional(name, return_sequences=s, merge_mode=m), SEQUENCE)
        for m in ("concat", "sum", "mul", "ave")
        for s in (False, True)
    ]
    return [*rows, row("Bidirectional", _bidirectional(name, activation="elu"), SEQUENCE)]


RECURRENT = [
    *_recurrent_rows("SimpleRNN"),
    *_recurrent_rows("LSTM"),
    *_recurrent_rows("GRU"),
    row("LSTM", lambda k: k.LSTM(3, recurrent_activation="hard_sigmoid"), SEQUENCE),
    row("LSTM", lambda k: k.LSTM(3, activation="sigmoid"), (1, 4)),
    row("LSTM", lambda k: k.LSTM(3, activation="softsign", go_backwards=True), SEQUENCE),
    row("GRU", lambda k: k.GRU(3, reset_after=False), SEQUENCE),
    row("GRU", lambda k: k.GRU(3, reset_after=False, return_sequences=True), SEQUENCE),
    row("GRU", lambda k: k.GRU(3, reset_after=False, activation="relu"), SEQUENCE),
    row("GRU", lambda k: k.GRU(3, reset_after=False, go_backwards=True), SEQUENCE),
    row("GRU", lambda k: k.GRU(3, use_bias=False), SEQUENCE),
    row("GRU", lambda k: k.GRU(3, recurrent_activation="hard_sigmoid"), (1, 4)),
    row("RNN", lambda k: k.RNN(k.LSTMCell(3)), SEQUENCE),
    row("RNN", lambda k: k.RNN(k.GRUCell(3), return_sequences=True), SEQUENCE),
    row("RNN", lambda k: k.RNN(k.SimpleRNNCell(3), go_backwards=True), SEQUENCE),
    row("RNN", lambda k: k.RNN([k.LSTMCell(3), k.GRUCell(2), k.LSTMCell(4)]), SEQUENCE),
    row(
        "RNN",
        lambda k: k.RNN(k.StackedRNNCells([k.SimpleRNNCell(3), k.GRUCell(2)]), True),
        SEQUENCE,
    ),
    row("Bidirectional", lambda k: k.Bidirectional(k.RNN(k.LSTMCell(3))), SEQUENCE),
    row(
        "Bidirectional",
        lambda k: k.Bidirectional(
            k.LSTM(3, return_sequences=True),
            backward_layer=k.LSTM(2, return_sequences=True, go_backwards=True, activation="relu"),
        ),
        SEQUENCE,
    ),
    row("Masking", lambda k: k.Masking(), SEQUENCE),
    row("ConvLSTM2D", lambda k: k.ConvLSTM2D(2, 3), (3, 5, 6, 2)),
    row(
        "ConvLSTM2D",
        lambda k: k.ConvLSTM2D(2, (2, 3), padding="same", return_sequences=True),
        (3, 5, 6, 2),
    ),
    row(
        "ConvLSTM2D",
        lambda k: k.ConvLSTM2D(2, 3, strides=2, use_bias=False, go_backwards=True),
        (3, 5, 6, 2),
    ),
    row("ConvLSTM1D", lambda k: k.ConvLSTM1D(2, 3, return_sequences=True), (3, 6, 2)),
    row("ConvLSTM1D", lambda k: k.ConvLSTM1D(2, 3, padding="same", activation="relu"), (3, 6, 2)),
    row("GRU", lambda k: k.GRU(2, return_sequences=True), (300, 3)),
    row("GRU", lambda k: k.GRU(2, go_backwards=True), (300, 3)),
    row("LSTM", lambda k: k.LSTM(2, activation="softsign"), (300, 3)),
    row("TimeDistributed.fold", lambda k: k.TimeDistributed(k.Dense(3)), SEQUENCE),
    row(
        "TimeDistributed.unfold",
        lambda k: k.TimeDistributed(k.Conv2D(3, 2, activation="relu")),
        (2, *IMAGE),
    ),
    row("TimeDistributed.unfold", lambda k: k.TimeDistributed(k.Flatten()), (2, *IMAGE)),
    row("TimeDistributed.unfold", lambda k: k.TimeDistributed(k.BatchNormalization()), SEQUENCE),
    row("TimeDistributed.unfold", lambda k: k.TimeDistributed(k.LSTM(3)), (3, *SEQUENCE)),
    row(
        "TimeDistributed.unfold",
        lambda k: k.TimeDistributed(k.Bidirectional(k.GRU(3, return_sequences=True))),
        (3, *SEQUENCE),
    ),
    row(
        "TimeDistributed.unfold",
        lambda k: k.TimeDistributed(k.TimeDistributed(k.Dense(2, activation="softmax"))),
        (3, *SEQUENCE),
    ),
]

VOLUME = (4, 5, 6, 2)


def _attention(name: str, **options: Any) -> Callable[[Any], Any]:
    return lambda k: getattr(k, name)(**options)


ATTENTION = [
    row("Attention", _attention("Attention"), SEQUENCE, (6, 4)),
    row("Attention", _attention("Attention", use_scale=True), SEQUENCE, (6, 4), (6, 4)),
    row("Attention", _attention("Attention", score_mode="concat"), SEQUENCE, (6, 4)),
    row(
        "Attention",
        _attention("Attention", score_mode="concat", use_scale=True, dropout=0.2),
        SEQUENCE,
        (6, 4),
    ),
    row("AdditiveAttention", _attention("AdditiveAttention"), SEQUENCE, (6, 4)),
    row("AdditiveAttention", _attention("AdditiveAttention", use_scale=False), SEQUENCE, (6, 4)),
]

NORMALIZATION = [
    row("LayerNormalization", lambda k: k.LayerNormalization(), LINE),
    row("LayerNormalization", lambda k: k.LayerNormalization(axis=[1, 2]), LINE),
    row("LayerNormalization", lambda k: k.LayerNormalization(axis=1), LINE),
    row("LayerNormalization", lambda k: k.LayerNormalization(epsilon=0.1, scale=False), IMAGE),
    row("LayerNormalization", lambda k: k.LayerNormalization(center=False), VECTOR),
    row("RMSNormalization", lambda k: k.RMSNormalization(), LINE, only=KERAS_3),
    row("RMSNormalization", lambda k: k.RMSNormalization(epsilon=0.1), IMAGE, only=KERAS_3),
    row("GroupNormalization", lambda k: k.GroupNormalization(2), IMAGE),
    row("GroupNormalization", lambda k: k.GroupNormalization(4, scale=False), VECTOR),
    row("GroupNormalization", lambda k: k.GroupNormalization(-1, center=False), LINE),
    row("GroupNormalization", lambda k: k.GroupNormalization(2, axis=1, epsilon=0.1), (4, 6, 3)),
    row("UnitNormalization", lambda k: k.UnitNormalization(), LINE),
    row("UnitNormalization", lambda k: k.UnitNormalization(axis=[1, 2]), IMAGE),
    row("Dense", lambda k: k.SpectralNormalization(k.Dense(3)), VECTOR, only=KERAS_3),
    row(
        "Conv2D",
        lambda k: k.SpectralNormalization(k.Conv2D(3, 2, activation="relu")),
        IMAGE,
        only=KERAS_3,
    ),
    row("EinsumDense", lambda k: k.EinsumDense("ab,bc->ac", output_shape=5, bias_axes="c"), VECTOR),
    row(
        "EinsumDense",
        lambda k: k.EinsumDense("abc,cd->abd", (None, 5), activation="relu", bias_axes="d"),
        LINE,
    ),
    row("EinsumDense", lambda k: k.EinsumDense("...x,xy->...y", (3,)), IMAGE),
    row("EinsumDense", lambda k: k.EinsumDense("abc,cde->abde", (9, 2, 3), bias_axes="de"), LINE),
    row("EinsumDense", lambda k: k.EinsumDense("abcd,cde->abe", (7, 3), bias_axes="e"), IMAGE),
    row("EinsumDense", lambda k: k.EinsumDense("abc,bd->adc", (3, 4), bias_axes="d"), LINE),
    row("EinsumDense", lambda k: k.EinsumDense("abc,bcd->abd", (9, 2), bias_axes="bd"), LINE),
]

VOLUMES = [
    row("Conv3D", lambda k: k.Conv3D(3, 2), VOLUME),
    row("Conv3D", lambda k: k.Conv3D(3, 3, strides=2, padding="same", activation="relu"), VOLUME),
    row("Conv3D", lambda k: k.Conv3D(4, (2, 1, 2), groups=2, use_bias=False), VOLUME),
    row("Conv3D", lambda k: k.Conv3D(3, 2, dilation_rate=2, padding="same"), VOLUME),
    row("Conv3DTranspose", lambda k: k.Conv3DTranspose(3, 2), VOLUME),
    row("Conv3DTranspose", lambda k: k.Conv3DTranspose(3, 3, 2, padding="same"), VOLUME),
    row("Conv3DTranspose", lambda k: k.Conv3DTranspose(3, (2, 3, 2), (2, 1, 3)), VOLUME),
    row("MaxPooling3D", lambda k: k.MaxPooling3D(), VOLUME),
    row("MaxPooling3D", lambda k: k.MaxPooling3D(3, 2, padding="same"), VOLUME),
    row("AveragePooling3D", lambda k: k.AveragePooling3D((2, 1, 2)), VOLUME),
    row("AveragePooling3D", lambda k: k.AveragePooling3D(3, 2, padding="same"), VOLUME),
    row("GlobalMaxPooling3D", lambda k: k.GlobalMaxPooling3D(), VOLUME),
    row("GlobalMaxPooling3D", lambda k: k.GlobalMaxPooling3D(keepdims=True), VOLUME),
    row("GlobalAveragePooling3D", lambda k: k.GlobalAveragePooling3D(), VOLUME),
    row("GlobalAveragePooling3D", lambda k: k.GlobalAveragePooling3D(keepdims=True), VOLUME),
    row("ZeroPadding3D", lambda k: k.ZeroPadding3D(((1, 0), (2, 1), (0, 3))), VOLUME),
    row("Cropping3D", lambda k: k.Cropping3D(((1, 0), (2, 1), (0, 3))), VOLUME),
    row("UpSampling3D", lambda k: k.UpSampling3D((2, 1, 3)), VOLUME),
    row("BatchNormalization", lambda k: k.BatchNormalization(), VOLUME),
    row("Flatten", lambda k: k.Flatten(), VOLUME),
    *(
        row(f"Adaptive{kind}Pooling{rank}D", lambda k, n=f"Adaptive{kind}Pooling{rank}D", s=size:
            getattr(k, n)(s), shape, only=KERAS_3)
        for kind in ("Average", "Max")
        for rank, size, shape in ((1, 4, LINE), (2, (3, 2), IMAGE), (3, (2, 3, 4), VOLUME))
    ),
]  # fmt: skip

PREPROCESSING = [
    row("Resizing", lambda k: k.Resizing(5, 9), IMAGE),
    row("Resizing", lambda k: k.Resizing(14, 3, interpolation="nearest"), IMAGE),
    row("Resizing", lambda k: k.Resizing(9, 8, interpolation="bicubic"), IMAGE),
    row("Resizing", lambda k: k.Resizing(9, 8, interpolation="lanczos3"), IMAGE),
    row("Resizing", lambda k: k.Resizing(4, 8, crop_to_aspect_ratio=True), IMAGE),
    row("Resizing", lambda k: k.Resizing(8, 4, pad_to_aspect_ratio=True), IMAGE, only=KERAS_3),
    row("Resizing", lambda k: k.Resizing(3, 4, antialias=True), IMAGE, only=KERAS_3),
    row("CenterCrop", lambda k: k.CenterCrop(4, 3), IMAGE),
    row("CenterCrop", lambda k: k.CenterCrop(9, 4), IMAGE),
    row("AutoContrast", lambda k: k.AutoContrast(), IMAGE, only=KERAS_3, spread=30.0),
    row("CategoryEncoding", lambda k: k.CategoryEncoding(10), (4,), integers=True),
    row("CategoryEncoding", lambda k: k.CategoryEncoding(10, "one_hot"), (1,), integers=True),
    row("CategoryEncoding", lambda k: k.CategoryEncoding(10, "count"), (5,), integers=True),
    row("Discretization", lambda k: k.Discretization([-0.5, 0.0, 1.0]), LINE),
    row(
        "Discretization",
        lambda k: k.Discretization([-0.5, 0.0, 1.0], output_mode="one_hot"),
        (1,),
    ),
    row("IntegerLookup", lambda k: k.IntegerLookup(vocabulary=[3, 5, 7]), (6,), integers=True),
    row(
        "IntegerLookup",
        lambda k: k.IntegerLookup(vocabulary=[3, 5, 7], mask_token=0, num_oov_indices=2),
        (6,),
        integers=True,
    ),
    row(
        "IntegerLookup",
        lambda k: k.IntegerLookup(vocabulary=[3, 5, 7], output_mode="multi_hot"),
        (6,),
        integers=True,
    ),
]
SIGNALS = [
    *(
        row(
            "STFTSpectrogram",
            lambda k, o=options: k.STFTSpectrogram(frame_length=16, frame_step=6, **o),
            (70, 2),
            only=KERAS_3,
        )
        for options in (
            {"mode": "log"}, {"mode": "magnitude", "padding": "same"}, {"mode": "psd"},
            {"mode": "real", "expand_dims": True}, {"mode": "imag", "fft_length": 32},
            {"mode": "stft"}, {"mode": "angle"},
        )
    ),
    row(
        "MelSpectrogram",
        lambda k: k.MelSpectrogram(fft_length=64, sequence_stride=20, num_mel_bins=12),
        (300,),
        only=KERAS_3,
    ),
    row(
        "MelSpectrogram",
        lambda k: k.MelSpectrogram(
            fft_length=64, sequence_length=50, sequence_stride=20, num_mel_bins=12,
            power_to_db=False, mag_exp=1.0, window="hamming", max_freq=6000,
        ),
        (300,),
        only=KERAS_3,
    ),
    row(
        "MelSpectrogram",
        lambda k: k.MelSpectrogram(
            fft_length=64, sequence_length=45, sequence_stride=20, num_mel_bins=12
        ),
        (300,),
        only=KERAS_3,
    ),
]  # fmt: skip
AUGMENTATIONS: dict[str, tuple[Any, ...]] = {
    "AugMix": (), "CutMix": (),
    "Equalization": (), "MixUp": (), "RandAugment": (), "RandomBrightness": (0.2,),
    "RandomColorDegeneration": (0.2,), "RandomColorJitter": (), "RandomContrast": (0.2,),
    "RandomCrop": (4, 4), "RandomElasticTransform": (), "RandomErasing": (), "RandomFlip": (),
    "RandomGaussianBlur": (), "RandomGrayscale": (), "RandomHue": (0.2,), "RandomInvert": (),
    "RandomPerspective": (), "RandomPosterization": (4,), "RandomRotation": (0.2,),
    "RandomSaturation": (0.2,), "RandomSharpness": (0.2,), "RandomShear": (),
    "RandomTranslation": (0.1, 0.1), "RandomZoom": (0.2,), "Solarization": (),
}  # fmt: skip

_IN_BOTH = (
    "linear", "relu", "elu", "selu", "softplus", "softsign", "softmax", "sigmoid",
    "hard_sigmoid", "tanh", "swish", "gelu", "exponential", "mish", "leaky_relu",
)  # fmt: skip
_IN_KERAS_3 = (
    "relu6", "celu", "squareplus", "soft_shrink", "sparse_plus", "silu", "glu", "tanh_shrink",
    "sparse_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "hard_shrink", "log_softmax",
    "log_sigmoid", "sparsemax",
)  # fmt: skip


def _activation(name: str, shape: tuple[int, ...], only: str | None) -> Case:
    return row(name, lambda k: k.Activation(name), shape, only=only, spread=3.0)


ACTIVATIONS = [
    *(_activation(name, shape, None) for name in _IN_BOTH for shape in (VECTOR, IMAGE)),
    *(_activation(name, shape, KERAS_3) for name in _IN_KERAS_3 for shape in (VECTOR, IMAGE)),
]

CASES = [
    *LAYERS, *RECURRENT, *ATTENTION, *NORMALIZATION, *VOLUMES, *PREPROCESSING, *SIGNALS,
    *ACTIVATIONS,
]  # fmt: skip
