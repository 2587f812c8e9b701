"""How the layers of a config are called: arguments by name, masks separate.

Keras writes the arguments of a call by position or by name, and Keras 3 adds the masks that it
found. Converters see one form: the first argument by position, the others by name, and the masks
separately.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlferry.converters.graph import Mask, Node, NodeCall
from mlferry.errors import ModelFileError
from mlferry.numerics.shapes import Array, Shape


@dataclass(frozen=True)
class Tensor:
    """An output of a call of a layer: what a later call reads.

    Attributes:
        layer: name of the layer that makes it.
        call: which call of that layer.
        index: which output of the call.
        shape: where the config gives it.
        dtype: where the config gives it.
    """

    layer: str
    call: int
    index: int
    shape: Shape | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.call < _MANY and 0 <= self.index < _MANY):
            raise ModelFileError(
                f"the config refers to output {self.index} of call {self.call} of {self.layer!r}"
            )


_MANY = 1 << 16  # calls of a layer, or outputs of a call


@dataclass(frozen=True)
class Ref:
    """Represents an input of a node inside nested arguments.

    Attributes:
        index: which of the inputs.
    """

    index: int


@dataclass(frozen=True)
class LayerUse:
    """One use of a layer.

    Attributes:
        inputs: the tensors that it reads, except for masks.
        args: the positional arguments, with a `Ref` in the place of each tensor.
        kwargs: likewise the arguments by name.
        masks: the masks that the call names, by the index of the input that each belongs to;
            None if the call says that an input has none.
    """

    inputs: tuple[Tensor, ...]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    masks: Mapping[int, Tensor | None] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """The arguments besides the first tensors, which a layer must not overlook."""
        entries = {
            key: value for key, value in self.kwargs.items() if not _asks_nothing(key, value)
        }
        if any(not only_refs(item) for item in self.args if item is not None):
            entries["args"] = list(self.args)
        return entries

    @property
    def reads(self) -> list[Tensor]:
        """Everything that must exist first: the inputs and their masks."""
        return [*self.inputs, *(mask for mask in self.masks.values() if mask is not None)]

    def moved(self, change: Mapping[str, int]) -> LayerUse:
        """The same call, with calls of some layers counted from another number."""

        def other(tensor: Tensor) -> Tensor:
            return replace(tensor, call=tensor.call - change.get(tensor.layer, 0))

        masks = {index: mask and other(mask) for index, mask in self.masks.items()}
        return replace(self, inputs=tuple(map(other, self.inputs)), masks=masks)


@dataclass(frozen=True)
class LayerCall(NodeCall):
    """How a node's layer is called; `Node.call` in this frontend.

    Attributes:
        args: the positional arguments, with a `Ref` in the place of each input.
        kwargs: likewise the arguments by name.
        masks: the masks that the call names, by the index of the input that each belongs to.
        is_users: whether the layer's class is not one of Keras's.
        lists_masks: whether the config lists every mask that reaches the layer.
        function: the function of an activation or a Lambda, if it is available.
        stored: the arrays of the layer under the full names that the file gives them.
    """

    args: tuple[Any, ...] = (Ref(0),)
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    masks: Mapping[int, Mask | None] = field(default_factory=dict)
    is_users: bool = False
    lists_masks: bool = False
    function: Any = None
    stored: Sequence[tuple[str, Array]] = ()

    @property
    def tensor_arguments(self) -> int:
        """The number of arguments that are tensors or lists of tensors."""
        return sum(any(_refs(value)) for value in (*self.args, *self.kwargs.values()))

    def in_order_of(self, names: Sequence[str], *, keyed: bool) -> list[int]:
        """The inputs of a call of a model, in the order of the model's own inputs.

        Args:
            names: of the model's input layers.
            keyed: whether the model itself takes a dict, whose keys then decide.
        """
        values = self.args[0] if self.args else None
        if isinstance(values, Mapping) and not keyed and set(names) <= set(values):
            values = [values[name] for name in names]
        return [ref.index for ref in _refs(values)]


def call_of(node: Node) -> LayerCall:
    """How the layer of a node is called; by default with its only input."""
    return node.call if isinstance(node.call, LayerCall) else LayerCall()


# ---- the arguments of Keras's own layers -----------------------------------------------

RECURRENT = (
    *("SimpleRNN", "LSTM", "GRU", "RNN", "Bidirectional"),
    *("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
)
_SEQUENCES = ("sequences", "initial_state", "mask", "training")
_HEADS = (
    *("query", "value", "key", "query_mask", "value_mask", "key_mask", "attention_mask"),
    *("return_attention_scores", "training", "use_causal_mask"),
)
_LISTED = ("inputs", "mask", "training", "return_attention_scores", "use_causal_mask")
_MASKED = ("inputs", "training", "mask")

# The arguments of `call` for layers that take a mask, in Keras's order; others take `inputs`.
SIGNATURES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(RECURRENT, _SEQUENCES),
    "MultiHeadAttention": _HEADS,
    "GroupedQueryAttention": _HEADS,
    "Attention": _LISTED,
    "AdditiveAttention": _LISTED,
    "GlobalAveragePooling1D": ("inputs", "mask"),
    "Softmax": ("inputs", "mask"),
    "BatchNormalization": _MASKED,
    "TimeDistributed": _MASKED,
    "Lambda": ("inputs", "mask", "training"),
    "Pipeline": _MASKED,
    "Sequential": _MASKED,
    "Functional": _MASKED,
    "Model": _MASKED,
}


def normalized(call: LayerUse, class_name: str) -> LayerUse:
    """The call of one of Keras's own layers: first argument by position, masks separate.

    Args:
        call: as in the config, with masks among its arguments.
        class_name: Keras's name of the layer or model.
    """
    names = SIGNATURES.get(class_name, ())
    bindings = dict(call.kwargs)
    args = list(call.args)
    if names:
        bindings |= dict(zip(names[1:], args[1:], strict=False))
        args = args[:1] + args[len(names) :]
    if not args:
        first = next((n for n, v in bindings.items() if n not in _MASKS and list(_refs(v))), None)
        if first is not None:
            args = [bindings.pop(first)]
    masks: dict[int, Tensor | None] = {}
    for name in _MASKS if names else ():
        value = bindings.get(name)
        if value is None or name not in names or not (name in bindings and _all_tensors(value)):
            continue
        target = _target(name, names, args, bindings)
        masks |= _aligned(bindings.pop(name), target, call)
    return _without_unused(replace(call, args=tuple(args), kwargs=bindings, masks=masks))


_MASKS = ("mask", "query_mask", "value_mask", "key_mask")


def _target(mask: str, names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The argument that a mask belongs to."""
    name = mask.removesuffix("_mask")
    return kwargs.get(name) if name in names[1:] and mask != "mask" else args[0] if args else None


def _aligned(mask: Ref, target: Ref, call: LayerUse) -> dict[int, Tensor | None]:
    """The masks of the inputs in an argument, which both may be lists."""
    places = list(_refs(target))
    masks = list(_leaves(mask))
    return {
        ref.index: call.inputs[item.index] if isinstance(item, Ref) else None
        for ref, item in zip(places, masks, strict=False)
    }


def _without_unused(call: LayerUse) -> LayerUse:
    """The call without tensors that no argument holds any more."""
    remaining = [ref.index for value in (*call.args, *call.kwargs.values()) for ref in _refs(value)]
    order = {old: new for new, old in enumerate(sorted(set(remaining)))}
    refs = {old: Ref(new) for old, new in order.items()}
    return replace(
        call,
        inputs=tuple(call.inputs[old] for old in order),
        args=placed(call.args, refs),
        kwargs=placed(call.kwargs, refs),
        masks={order[old]: mask for old, mask in call.masks.items() if old in order},
    )


# ---- nested arguments ------------------------------------------------------------------


def _leaves(value: object) -> Iterator[Any]:
    """The elements of a nested argument, in Keras's order: dicts by their sorted keys."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from _leaves(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _refs(value: object) -> Iterator[Ref]:
    return (item for item in _leaves(value) if isinstance(item, Ref))


def _all_tensors(value: object) -> bool:
    """Whether an argument holds a tensor, and besides tensors only None."""
    results = list(_leaves(value))
    return any(isinstance(item, Ref) for item in results) and all(
        item is None or isinstance(item, Ref) for item in results
    )


def only_refs(value: object) -> bool:
    """Whether an argument is a tensor, or a list of tensors."""
    if isinstance(value, list | tuple):
        return all(only_refs(item) for item in value)
    return isinstance(value, Ref)


def _asks_nothing(name: str, value: object) -> bool:
    """Drop `training=False`, and options that are None."""
    return value is None or (name == "training" and not value)


def placed(value: object, inputs: Sequence[Any] | Mapping[int, Any]) -> Any:
    """An argument with blobs, or other values, in place of its `Ref`s."""
    if isinstance(value, Ref):
        return inputs[value.index]
    if isinstance(value, list | tuple):
        return type(value)(placed(item, inputs) for item in value)
    if isinstance(value, Mapping):
        return {key: placed(item, inputs) for key, item in value.items()}
    return value
