"""What becomes of every layer class of the installed Keras; `make docs` writes the table."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from mlferry.converters.keras.ops import OPS
from mlferry.converters.keras.ops.core import PASSED_ON

CONVERTED, COMPOSED, SKIPPED, REFUSED, NONE = (
    "converted", "composed", "skipped", "refused", "no layer",
)  # fmt: skip

# Several of Core ML's layers together; what is not here is one, or one with layers that only
# bring axes into its order.
_COMPOSED = {
    "AdditiveAttention", "Attention", "AutoContrast",
    "CategoryEncoding", "CenterCrop", "ConvLSTM1D", "ConvLSTM2D", "Discretization", "Dot",
    "GRU", "GroupNormalization", "GroupedQueryAttention", "IntegerLookup",
    "Masking", "MelSpectrogram", "MultiHeadAttention",
    "PReLU", "RMSNormalization", "RNN", "Resizing", "ReversibleEmbedding",
    "STFTSpectrogram", "SeparableConv1D", "SeparableConv2D", "UnitNormalization",
    "UpSampling3D",
    *(f"Adaptive{kind}Pooling{n}D" for kind in ("Average", "Max") for n in (1, 2, 3)),
}  # fmt: skip
_INSIDE = {
    "Activation": (CONVERTED, "as the activation that it names"),
    "Bidirectional": (COMPOSED, "LSTM as one layer, others as two"),
    "GRUCell": (COMPOSED, "inside RNN"),
    "InputLayer": (CONVERTED, "as an input of the model"),
    "LSTMCell": (COMPOSED, "inside RNN"),
    "Pipeline": (COMPOSED, "as its layers"),
    "SimpleRNNCell": (COMPOSED, "inside RNN"),
    "SpectralNormalization": (CONVERTED, "as the layer inside; it computes in training only"),
    "StackedRNNCells": (COMPOSED, "inside RNN"),
    "TimeDistributed": (COMPOSED, "as the layer inside, with time in the batch"),
}
_REFUSED = {
    "ContrastLimitedAdaptiveHistogramEqualization": "histograms of tiles",
    "ConvLSTM3D": "its input has six axes, Core ML's arrays have five",
    "FlaxLayer": "code of another framework",
    "HashedCrossing": "hashes of text",
    "Hashing": "hashes of text",
    "JaxLayer": "code of another framework",
    "Lambda": "code, which is never run",
    "StringLookup": "text",
    "TFSMLayer": "code of another framework",
    "TextVectorization": "text",
    "TorchModuleWrapper": "code of another framework",
}
# They have nothing to compute with numbers when a model predicts.
_NOT_NUMBERS = {
    "FlaxLayer", "HashedCrossing", "Hashing", "JaxLayer", "Lambda", "StringLookup", "TFSMLayer",
    "TextVectorization", "TorchModuleWrapper",
}  # fmt: skip
_NO_LAYERS = {
    "InputSpec": "describes inputs",
    "Layer": "the base of all layers",
    "MaxNumBoundingBoxes": "for boxes of training data",
    "Wrapper": "the base of wrappers",
}


@dataclass(frozen=True)
class Support:
    """What becomes of a layer class, and how or why."""

    name: str
    status: str
    remark: str = ""

    @property
    def counts(self) -> bool:
        """Whether the class computes with numbers when a model predicts."""
        return self.status != NONE and self.name not in _NOT_NUMBERS


def support(name: str) -> Support:
    """What becomes of one class.

    Raises:
        LookupError: nobody has looked at it.
    """
    if name in _NO_LAYERS:
        return Support(name, NONE, _NO_LAYERS[name])
    if name in _INSIDE:
        return Support(name, *_INSIDE[name])
    if name in _REFUSED:
        assert name not in OPS
        return Support(name, REFUSED, _REFUSED[name])
    if name in PASSED_ON:
        return Support(name, SKIPPED, "changes nothing when a model predicts")
    if name in OPS:
        return Support(name, COMPOSED if name in _COMPOSED else CONVERTED)
    raise LookupError(f"the Keras layer {name} is in none of the tables of {__name__}")


def table(keras: Any) -> list[Support]:
    """Every class of `keras.layers` under its own name."""
    actual = {
        value.__name__
        for value in vars(keras.layers).values()
        if inspect.isclass(value) and not value.__name__.startswith("_")
    }
    return [support(name) for name in sorted(actual)]


def share(rows: list[Support]) -> tuple[int, int]:
    """How many of the classes that compute with numbers convert, and how many there are."""
    counting = [row for row in rows if row.counts]
    return sum(row.status != REFUSED for row in counting), len(counting)
