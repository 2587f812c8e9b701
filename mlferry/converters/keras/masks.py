"""Follows the masks of `Embedding(mask_zero=True)` and `Masking`.

Core ML has no masks. A layer that computes with a mask receives it beside its inputs
(`Node.masks`): converters that use it ask for the blob, and a custom layer receives it as an
additional input. Which layers take a mask and which pass it on depends on the Keras that runs the
model. Masks listed in the config come first; others are followed through the layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mlferry.converters.graph import Graph, Mask, Node, Value
from mlferry.converters.keras.calls import RECURRENT, SIGNATURES, LayerCall, call_of
from mlferry.converters.keras.objects import KerasLayer
from mlferry.converters.lowering import Lowering
from mlferry.converters.values import SOURCE, Blob
from mlferry.errors import ConversionError

_PASS = {
    *("Dense", "Identity", "Rescaling", "ReLU", "LeakyReLU", "ELU", "PReLU", "ThresholdedReLU"),
    *("Softmax", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
    *("GaussianDropout", "GaussianNoise", "AlphaDropout", "ActivityRegularization"),
    *("BatchNormalization", "Normalization", "LayerNormalization", "GroupNormalization"),
    *("UnitNormalization", "MultiHeadAttention", "GroupedQueryAttention", "Attention"),
    "AdditiveAttention",
}
_MERGES = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"}
_HEADS = {"MultiHeadAttention", "GroupedQueryAttention"}
_COMPUTE = {
    *("GlobalAveragePooling1D", "Softmax", "Attention", "AdditiveAttention", "TimeDistributed"),
    *_HEADS,
    *RECURRENT,
}
SET = "Model.masks"  # the op of a node that adds masks to its inputs
_COMPUTE_3 = {"Multiply", "Maximum", "Minimum"}  # since Keras 3


def of(context: Lowering, node: Node) -> list[Blob | None]:
    """The masks of a node's inputs; empty if no input has one."""
    blobs = [None if mask is None else mask.blob(context) for mask in node.masks]
    return [*blobs, *[None] * (len(node.inputs) - len(blobs))]


def explicit(value: Value) -> Mask:
    """A mask that the call names, which is a value of the graph."""
    return Mask(value.name, lambda context: context.source_order(context.blob(value)))


def follow(graph: Graph) -> None:
    """Give its mask to each layer that computes with one."""
    carried = dict(graph.masks)
    # Values whose masks appear only when the model runs, not in its config.
    unlisted: set[str] = set()
    for node in graph.nodes:
        names = [value.name for value in node.inputs]
        call = call_of(node)
        if node.op == SET:
            carried |= {names[i]: mask for i, mask in call.masks.items() if mask is not None}
            continue
        results = [carried.get(name) for name in names]
        listed = call.lists_masks and unlisted.isdisjoint(names)
        rule = _Rule.of(node, graph.version, listed)
        node.masks = rule.taken(node, results)
        passed = rule.passed(node, rule.previous(node, results))
        if node.is_traced:
            node.carried_masks = results
            passed = _passed_by_trace(node, passed)
        for value, mask in zip(node.outputs, passed, strict=False):
            if mask is not None:
                carried[value.name] = mask
                unlisted |= set() if listed else {value.name}
        if node.op == "MultiHeadAttention" and graph.version >= 3:
            for name in names:  # Keras removes the masks from the tensors themselves
                carried.pop(name, None)
    graph.masks = carried


# ---- which layers take masks, and pass them on -----------------------------------------


@dataclass(frozen=True)
class _Rule:
    """How a layer handles masks.

    Attributes:
        version: the major version of Keras that runs the model.
        computes: whether `call` takes the masks of its inputs.
        signature: the names of the arguments of `call`.
        passing: the masks of the outputs, for the node and the masks of its inputs.
    """

    version: int
    computes: bool
    signature: Sequence[str]
    passing: Callable[[Node, Sequence[Mask | None], int], list[Mask | None]]

    @staticmethod
    def of(node: Node, version: int, listed: bool) -> _Rule:
        if call_of(node).is_users:
            return _of_users(node, version, listed)
        computes = node.op in _COMPUTE or (node.op in _COMPUTE_3 and version >= 3)
        return _Rule(version, computes, SIGNATURES.get(node.op, ("inputs",)), _passed)

    def taken(self, node: Node, masks: Sequence[Mask | None]) -> list[Mask | None]:
        """The masks, by input, with which the layer computes."""
        call = call_of(node)
        listed = call.lists_masks and "mask" in call.kwargs
        followed = [None if mask and listed and mask.unless_listed else mask for mask in masks]
        if not self.computes or (self.version >= 3 and not self._follows(call)):
            followed = [None] * len(masks)
        return [call.masks.get(index, mask) for index, mask in enumerate(followed)]

    def _follows(self, call: LayerCall) -> bool:
        """Keras 3 finds masks by itself if it knows to which argument they belong."""
        if call.tensor_arguments <= 1:
            return not any(call.masks.values())
        return any(name.endswith("_mask") and name != "attention_mask" for name in self.signature)

    def previous(self, node: Node, masks: Sequence[Mask | None]) -> list[Mask | None]:
        """The masks that `compute_mask` receives."""
        return [call_of(node).masks.get(index) or mask for index, mask in enumerate(masks)]

    def passed(self, node: Node, previous: Sequence[Mask | None]) -> list[Mask | None]:
        """The masks of the outputs."""
        return self.passing(node, previous, self.version)


def _passed(node: Node, masks: Sequence[Mask | None], version: int) -> list[Mask | None]:
    first = masks[0] if masks else None
    if node.op == "Masking":
        return [_differing(node)]
    if node.op in ("Embedding", "ReversibleEmbedding"):
        return [_not_zero(node)] if node.get_config().get("mask_zero") else []
    if node.op in RECURRENT:
        return _of_sequences(node, first)
    if node.op in _MERGES:
        return [_merged(node, masks, version)]
    if node.op == "Concatenate":
        return [_concatenated(node, masks, version)]
    if node.op == "TimeDistributed.fold":
        return [_folded(node, first)]
    if node.op == "TimeDistributed.unfold":
        return [_unfolded(node, masks, version)]
    # activations that were split off or are separate, in lower case
    passes = node.op in _PASS or (node.op[:1].islower() and "." not in node.op)
    return [first] if passes else []


# ---- layers of a user's class ----------------------------------------------------------


def _of_users(node: Node, version: int, listed: bool) -> _Rule:
    """The object in memory decides; a file says nothing except for the masks that it lists."""
    if node.layer is not None:
        names = _signature(node.layer)
        if not _takes_mask(node.layer, names):
            return _Unmasked(version, False, names, _passed_by_object)
        return _Rule(version, True, names, _passed_by_object)
    if listed and node.op != "Lambda":
        return _Rule(version, False, (), _passed_unless_listed)
    return _Untold(version, True, ("inputs", "mask"), _passed_by_choice)


class _Unmasked(_Rule):
    """Keras lists the mask of every Lambda, even if its function takes none."""

    def taken(self, node: Node, masks: Sequence[Mask | None]) -> list[Mask | None]:
        return []


class _Untold(_Rule):
    """A file does not say whether the layer takes the mask, but its conversion function does."""

    def taken(self, node: Node, masks: Sequence[Mask | None]) -> list[Mask | None]:
        return [mask and replace(mask, is_certain=False) for mask in super().taken(node, masks)]


def _signature(layer: KerasLayer) -> list[str]:
    try:
        return list(inspect.signature(layer.call).parameters)
    except (AttributeError, TypeError, ValueError):
        return []


def _takes_mask(layer: object, names: Sequence[str]) -> bool:
    expects = getattr(layer, "_fn_expects_mask_arg", None)  # of a Lambda: its function's
    return bool(expects) if expects is not None else any(n.endswith("mask") for n in names)


class _Given:
    """A placeholder for the mask, to find out what a layer's `compute_mask` does with it."""


def _passed_by_object(node: Node, masks: Sequence[Mask | None], version: int) -> list[Mask | None]:
    layer, count = node.layer, len(node.outputs)
    first = next((mask for mask in masks if mask is not None), None)
    if first is None or not getattr(layer, "supports_masking", False):
        return []
    stand_ins: list[Any] = [None if mask is None else _Given() for mask in masks]
    argument = stand_ins[0] if len(masks) == 1 else stand_ins
    try:
        answer = layer.compute_mask(
            object() if len(masks) == 1 else [object()] * len(masks), argument
        )
    except Exception:  # it may be any code of the user
        return [_untold(node, first)] * count
    answers = list(answer) if isinstance(answer, list | tuple) else [answer] * count
    known: dict[int, Mask | None] = {
        id(stand_in): mask for stand_in, mask in zip(stand_ins, masks, strict=True)
    }
    return [
        None if item is None else known.get(id(item)) or _untold(node, first) for item in answers
    ]


def _passed_unless_listed(
    node: Node, masks: Sequence[Mask | None], version: int
) -> list[Mask | None]:
    """Calls of one tensor list their masks; for others the function decides."""
    return [
        mask and replace(mask, unless_listed=True)
        for mask in _passed_by_choice(node, masks, version)
    ]


def _passed_by_choice(node: Node, masks: Sequence[Mask | None], version: int) -> list[Mask | None]:
    first = next((mask for mask in masks if mask is not None), None)
    return [] if first is None else [_untold(node, first)] * len(node.outputs)


def _passed_by_trace(node: Node, masks: Sequence[Mask | None]) -> list[Mask | None]:
    """The masks of the outputs of inner layers, which a layer that passes masks on keeps."""

    def made(index: int, context: Lowering) -> Blob | None:
        inner = node.traced_masks[index] if index < len(node.traced_masks) else None
        result = None if inner is None else inner.blob(context)
        outer = masks[index] if index < len(masks) else None
        return result if result is not None or outer is None else outer.blob(context)

    return [Mask(node.name, partial(made, index)) for index in range(len(node.outputs))]


def _untold(node: Node, mask: Mask) -> Mask:
    """A mask after a layer whose conversion function says whether it passes masks on."""

    def make(context: Lowering) -> Blob | None:
        if node.passes_mask is None:
            raise ConversionError(
                f"it computes with the mask of {mask.origin!r}, which comes through {node}, a "
                "layer of your own: nothing says whether it passes the mask on. Say so in its "
                "conversion function: mlferry.CustomLayerParams(..., passes_mask=True), or False"
            )
        return mask.blob(context) if node.passes_mask else None

    return Mask(mask.origin, make)


# ---- the masks of Keras's own layers ---------------------------------------------------


def _of_sequences(node: Node, first: Mask | None) -> list[Mask | None]:
    config = node.get_config()
    inner = config["layer"]["config"] if "layer" in config else config
    if not inner.get("return_sequences"):
        return []
    return [first, first] if "merge_mode" in config and config["merge_mode"] is None else [first]


def _differs(context: Lowering, x: Blob, name: str, value: float) -> Blob:
    return context.layer("notEqual", x, name=name, layout=SOURCE, alpha=value)


def _not_zero(node: Node) -> Mask:
    value = node.inputs[0]
    name = f"{node.name}/mask"
    return Mask(node.name, lambda context: _differs(context, context.blob(value), name, 0.0))


def _differing(node: Node) -> Mask:
    """A step counts if any of its values differs from the mask value."""
    value, skipped = node.inputs[0], float(node.get_config().get("mask_value", 0.0))

    def make(context: Lowering) -> Blob:
        x = context.source_order(context.blob(value))
        other = _differs(context, x, f"{node.name}/mask", skipped)
        return context.reduce("reduceMax", other, (-1,), keep=False)

    return Mask(node.name, make)


def _blobs(context: Lowering, masks: Sequence[Mask | None]) -> list[Blob | None]:
    return [None if mask is None else mask.blob(context) for mask in masks]


def _origins(masks: Sequence[Mask | None]) -> str:
    return ", ".join(dict.fromkeys(mask.origin for mask in masks if mask is not None))


def _joined(context: Lowering, blobs: Sequence[Blob], kind: str) -> Blob:
    """One mask from several."""
    output = blobs[0]
    for blob in blobs[1:]:
        output = context.layer(kind, output, blob, layout=SOURCE)
    return output


def _merged(node: Node, masks: Sequence[Mask | None], version: int) -> Mask | None:
    """In Keras 3 a step counts if it does in any input; in Keras 2, in all that have masks."""
    if not any(masks):
        return None

    def make(context: Lowering) -> Blob | None:
        blobs = _blobs(context, masks)
        present = [blob for blob in blobs if blob is not None]
        if not present or (version >= 3 and len(present) < len(blobs)):
            return None
        return _joined(context, present, "maxBroadcastable" if version >= 3 else "minBroadcastable")

    return Mask(_origins(masks), make)


def _concatenated(node: Node, masks: Sequence[Mask | None], version: int) -> Mask | None:
    """Along features a step counts as in a merge; along time the masks are concatenated."""
    if not any(masks):
        return None
    axis = node.get_config().get("axis", -1)

    def make(context: Lowering) -> Blob | None:
        rank = context.blob(node.inputs[0]).rank
        blobs = _blobs(context, masks)
        present = [blob for blob in blobs if blob is not None]
        if not present:
            return None
        if axis % rank == rank - 1:
            if version < 3:
                return _joined(context, present, "minBroadcastable")
            if len(present) < len(blobs):
                return context.emit("fillLike", present[0], value=1.0)
            return _joined(context, present, "maxBroadcastable")
        if len(present) < len(blobs):
            raise ConversionError("a Concatenate of masked and unmasked inputs along time")
        return context.concat(present, axis % rank)

    return Mask(_origins(masks), make)


def _folded(node: Node, first: Mask | None) -> Mask | None:
    """[batch, time, ...] as [batch * time, ...]; a mask without more axes disappears."""
    if first is None:
        return None

    def make(context: Lowering) -> Blob | None:
        mask = first.blob(context)
        if mask is None:
            return None
        if mask.rank < 3:
            raise ConversionError(
                f"the layer inside a TimeDistributed would compute with the mask of "
                f"{first.origin!r}, which has one value per step"
            )
        return context.reshape(mask, (None, *mask.known[2:]), layout=SOURCE)

    return Mask(first.origin, make)


def _unfolded(node: Node, masks: Sequence[Mask | None], version: int) -> Mask | None:
    """In Keras 3 the incoming mask; in Keras 2 the mask that the inner layer passes on."""
    inner, outer = masks
    if version >= 3 or (inner is None and outer is None):
        return outer

    def make(context: Lowering) -> Blob | None:
        mask = None if outer is None else outer.blob(context)
        if mask is not None and mask.rank < 3:
            return mask
        result = None if inner is None else inner.blob(context)
        if result is not None:
            outside = context.blob(node.inputs[1]).known[:2]
            return context.reshape(result, (*outside, *result.known[1:]), layout=SOURCE)
        if mask is None:
            return None
        axes = tuple(range(2, mask.rank))
        return context.reduce("reduceMax", mask, axes, keep=False)

    return Mask(_origins(masks), make)


def steps(context: Lowering, mask: Blob) -> list[Blob]:
    """[batch, 1] for every step of a mask [batch, time].

    Raises:
        ConversionError: the mask has other axes.
    """
    if mask.rank != 2:
        raise ConversionError(f"a mask of rank {mask.rank} for a recurrent layer; it has 2")
    wide = context.layer("expandDims", mask, layout=SOURCE, axes=(2,))
    length: Any = mask.known[1]
    if length is None:
        raise ConversionError("a mask over a flexible number of steps: give a fixed shape")
    return [
        context.layer("squeeze", part, layout=SOURCE, axes=(1,))
        for part in context.split(wide, length, 1)
    ]
