"""Where a mask of `Embedding(mask_zero=True)` or `Masking` goes.

Core ML has no masks. A layer that would compute with one gets it as an option that no
converter reads, so that its conversion is refused and a custom function can still take it.
"""

from __future__ import annotations

from collections.abc import Iterable

from mlferry.converters.graph import Node

OPTION = "mask of"

_PASS = {
    "Dense", "BatchNormalization", "Dropout", "SpatialDropout1D", "GaussianDropout",
    "GaussianNoise", "AlphaDropout", "ActivityRegularization", "Identity", "Add", "Subtract",
    "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Rescaling", "Normalization",
    "ReLU", "LeakyReLU", "ELU", "PReLU", "LayerNormalization",
}  # fmt: skip
_COMPUTE = {
    "GlobalAveragePooling1D", "Softmax", "LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional",
    "TimeDistributed", "ConvLSTM1D", "ConvLSTM2D", "Attention", "AdditiveAttention",
    "MultiHeadAttention", "GroupedQueryAttention",
}  # fmt: skip


def follow(nodes: Iterable[Node]) -> None:
    """Tell each layer that computes with a mask where the mask comes from."""
    masked: dict[str, str] = {}
    for node in nodes:
        origin = next((masked[v.name] for v in node.inputs if v.name in masked), None)
        if node.op == "Masking" or node.get_config().get("mask_zero"):
            origin = node.name
        elif origin is not None and node.op in _COMPUTE:
            node.attrs.add(OPTION, origin)
        passes = node.op in _PASS or node.elementwise or node.op in ("Embedding", "Masking")
        if origin is not None and passes:
            masked |= {value.name: origin for value in node.outputs}
