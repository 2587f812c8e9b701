"""Where a mask of `Embedding(mask_zero=True)` or `Masking` goes.

Core ML has no masks. A layer that would compute with one gets it as an option: converters that
compute with it read the option and ask for the blob; those that do not are refused, and a
custom function can still take them. What passes a mask on, and how, is Keras's own rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlferry.converters.graph import Graph, Node
from mlferry.converters.keras.config import Ref
from mlferry.converters.layout import SOURCE, Blob
from mlferry.converters.lower import Lowering
from mlferry.errors import ConversionError

OPTION = "mask of"

_PASS = {
    "Dense", "BatchNormalization", "Dropout", "SpatialDropout1D", "SpatialDropout2D",
    "SpatialDropout3D", "GaussianDropout", "GaussianNoise", "AlphaDropout",
    "ActivityRegularization", "Identity", "Rescaling", "Normalization", "ReLU", "LeakyReLU", "ELU",
    "PReLU", "ThresholdedReLU", "Softmax", "LayerNormalization", "GroupNormalization",
    "UnitNormalization", "MultiHeadAttention", "GroupedQueryAttention", "Attention",
    "AdditiveAttention",
}  # fmt: skip
_MERGES = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"}
_RECURRENT = {"SimpleRNN", "LSTM", "GRU", "RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D",
              "ConvLSTM3D"}  # fmt: skip
_COMPUTE = {
    "GlobalAveragePooling1D", "Softmax", "Attention", "AdditiveAttention", "MultiHeadAttention",
    "GroupedQueryAttention", "TimeDistributed", *_RECURRENT,
}  # fmt: skip


_COMPUTE_3 = {"Multiply", "Maximum", "Minimum"}  # since Keras 3


@dataclass(eq=False)
class Mask:
    """A mask that is made when a layer asks for it: 1 where a step counts, 0 elsewhere.

    Attributes:
        origin: the layers that it comes from.
        make: adds the layers that compute it.
    """

    origin: str
    make: Callable[[Lowering], Blob]
    _made: dict[int, Blob] = field(default_factory=dict)

    def blob(self, low: Lowering) -> Blob:
        """The mask, in the order of axes of the source, without that of the features."""
        if id(low) not in self._made:
            self._made[id(low)] = self.make(low)
        return self._made[id(low)]

    def __repr__(self) -> str:
        return repr(self.origin)


def of(low: Lowering, node: Node) -> list[Blob | None]:
    """The masks of a node's inputs; none where no input has one."""
    found = node.attrs.get(OPTION)
    if found is None:
        return [None] * len(node.inputs)
    masks = found if isinstance(found, list) else [found]
    blobs = [None if mask is None else mask.blob(low) for mask in masks]
    return [*blobs, *[None] * (len(node.inputs) - len(blobs))]


def follow(graph: Graph) -> None:
    """Tell each layer that computes with a mask about it."""
    masks: dict[str, Mask] = {}
    for node in graph.nodes:
        given = [masks.get(value.name) for value in node.inputs]
        explicit = _explicit(node)
        if explicit is not None:
            given[0] = explicit
        computes = node.op in _COMPUTE or (node.op in _COMPUTE_3 and graph.version >= 3)
        if computes and any(given):
            node.attrs.add(OPTION, given[0] if len(given) == 1 else given)
        passed = _passed(node, given, graph.version)
        for value, mask in zip(node.outputs, passed, strict=False):
            if mask is not None:
                masks[value.name] = mask


def _explicit(node: Node) -> Mask | None:
    """A mask given by name in the call: it takes the place of the input's own."""
    given = (node.call[1] if node.call else {}).get("mask")
    if not isinstance(given, Ref):
        return None
    node.attrs.get("argument mask")
    value = node.inputs[given.index]
    return Mask(value.name, lambda low: low.source_order(low.blob(value)))


def _passed(node: Node, given: Sequence[Mask | None], version: int) -> list[Mask | None]:
    """The masks of the outputs."""
    first = given[0] if given else None
    if node.op == "Masking":
        return [_differing(node)]
    if node.op in ("Embedding", "ReversibleEmbedding"):
        return [_not_zero(node)] if node.get_config().get("mask_zero") else []
    if node.op in _RECURRENT:
        return _of_sequences(node, first)
    if node.op in _MERGES:
        return [_merged(node, given, version)]
    if node.op == "Concatenate":
        return [_concatenated(node, given, version)]
    if node.op == "TimeDistributed.fold":
        return [_folded(node, first)]
    if node.op == "TimeDistributed.unfold":
        return [_unfolded(node, given, version)]
    # activations that were split off or stand alone, in lower case
    passes = node.op in _PASS or (node.op[:1].islower() and "." not in node.op)
    return [first] if passes else []


def _of_sequences(node: Node, first: Mask | None) -> list[Mask | None]:
    config = node.get_config()
    inner = config["layer"]["config"] if "layer" in config else config
    if not inner.get("return_sequences"):
        return []
    return [first, first] if "merge_mode" in config and config["merge_mode"] is None else [first]


def _compare(low: Lowering, x: Blob, name: str, kind: str, alpha: float) -> Blob:
    return low.layer(kind, x, name=name, layout=SOURCE, alpha=alpha)


def _not_zero(node: Node) -> Mask:
    value = node.inputs[0]
    name = f"{node.name}/mask"
    return Mask(node.name, lambda low: _compare(low, low.blob(value), name, "notEqual", 0.0))


def _differing(node: Node) -> Mask:
    """A step counts where any of its values differs from the one that stands for nothing."""
    value, skipped = node.inputs[0], float(node.get_config().get("mask_value", 0.0))

    def make(low: Lowering) -> Blob:
        x = low.source_order(low.blob(value))
        other = _compare(low, x, f"{node.name}/mask", "notEqual", skipped)
        return low.layer("reduceMax", other, layout=SOURCE, axes=(-1,), keepDims=False)

    return Mask(node.name, make)


def _joined(masks: Sequence[Mask], kind: str) -> Mask:
    """One mask out of several."""

    def make(low: Lowering) -> Blob:
        made = masks[0].blob(low)
        for mask in masks[1:]:
            made = low.layer(kind, made, mask.blob(low), layout=SOURCE)
        return made

    return Mask(", ".join(dict.fromkeys(mask.origin for mask in masks)), make)


def _merged(node: Node, given: Sequence[Mask | None], version: int) -> Mask | None:
    """Keras 3: a step counts where it does in any input; Keras 2: in all that have masks."""
    present = [mask for mask in given if mask is not None]
    if not present or (version >= 3 and len(present) < len(given)):
        return None
    return _joined(present, "maxBroadcastable" if version >= 3 else "minBroadcastable")


def _concatenated(node: Node, given: Sequence[Mask | None], version: int) -> Mask | None:
    """Along the features a step counts as in a merge; along time the masks are put together."""
    if not any(given):
        return None
    axis = node.get_config().get("axis", -1)

    def make(low: Lowering) -> Blob:
        blobs = [low.blob(value) for value in node.inputs]
        rank = blobs[0].rank
        if axis % rank == rank - 1:
            present = [mask for mask in given if mask is not None]
            if version < 3:
                return _joined(present, "minBroadcastable").blob(low)
            if len(present) < len(given):
                x = present[0].blob(low)
                return low.layer("fillLike", x, layout=SOURCE, value=1.0)
            return _joined(present, "maxBroadcastable").blob(low)
        if any(mask is None for mask in given):
            raise ConversionError("a Concatenate of masked and unmasked inputs along time")
        parts = [mask.blob(low) for mask in given if mask is not None]
        return low.layer("concatND", *parts, layout=SOURCE, axis=axis % rank)

    return Mask(", ".join(mask.origin for mask in given if mask is not None), make)


def _folded(node: Node, first: Mask | None) -> Mask | None:
    """[batch, time, ...] as [batch * time, ...]; of a mask without more axes nothing is left."""
    if first is None:
        return None

    def make(low: Lowering) -> Blob:
        mask = first.blob(low)
        if mask.rank < 3:
            raise ConversionError(
                f"the layer inside a TimeDistributed would compute with the mask of "
                f"{first.origin!r}, which has one value a step"
            )
        return low.reshape(mask, (None, *mask.known[2:]), layout=SOURCE)

    return Mask(first.origin, make)


def _unfolded(node: Node, given: Sequence[Mask | None], version: int) -> Mask | None:
    """Keras 3: the mask that came in; Keras 2: what the layer inside makes of it."""
    inner, outer = given
    if version >= 3 or (inner is None and outer is None):
        return outer

    def make(low: Lowering) -> Blob:
        mask = None if outer is None else outer.blob(low)
        if mask is not None and mask.rank < 3:
            return mask
        if inner is not None:
            made = inner.blob(low)
            outside = low.blob(node.inputs[1]).known[:2]
            return low.reshape(made, (*outside, *made.known[1:]), layout=SOURCE)
        assert mask is not None
        axes = tuple(range(2, mask.rank))
        return low.layer("reduceMax", mask, layout=SOURCE, axes=axes, keepDims=False)

    return Mask(", ".join(mask.origin for mask in given if mask is not None), make)


def steps(low: Lowering, mask: Blob) -> list[Blob]:
    """[batch, 1] for every step of a mask [batch, time].

    Raises:
        ConversionError: the mask has other axes.
    """
    if mask.rank != 2:
        raise ConversionError(f"a mask of rank {mask.rank} for a recurrent layer; it has 2")
    wide = low.layer("expandDims", mask, layout=SOURCE, axes=(2,))
    length: Any = mask.known[1]
    if length is None:
        raise ConversionError("a mask over a flexible number of steps: give a fixed shape")
    if length == 1:
        return [low.layer("squeeze", wide, layout=SOURCE, axes=(1,))]
    parts = low.outputs(length, "splitND", wide, layout=SOURCE, axis=1, numSplits=length)
    return [low.layer("squeeze", part, layout=SOURCE, axes=(1,)) for part in parts]
