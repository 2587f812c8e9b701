"""Definitions of layer kinds: blobs, defaults, rules, stored weights, versions and output shapes.

`layer_kind` registers a kind by the rule for its output shapes, which takes the layer's parameters
and the shapes of its inputs. An extent is an int, or None if it depends on data or on a flexible
input. Rules hold for both array mappings; the few kinds that differ look at `Params.rank5`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from google.protobuf.message import Message

from mlferry.errors import SpecError, context
from mlferry.layers.params import Params, set_default
from mlferry.numerics.shapes import Shape
from mlferry.rooms import LAYERS, RoomRegistry
from mlferry.spec import weights
from mlferry.spec.problems import Problems, error, listed, warning
from mlferry.spec.proto import neural_network_pb2 as nn

F = TypeVar("F", bound=Callable[..., Any])
MANY = 1 << 30
LARGEST_SIZE = (1 << 31) - 1  # of a field that holds a size: devices read 32 bits
Count = tuple[int, int]  # the least number and the greatest


class Entries(NamedTuple):
    """How many entries a list may have, and how small one may be."""

    lengths: tuple[int, ...]
    least: float = -math.inf

    def __str__(self) -> str:
        return " or ".join(map(str, self.lengths))


TWO_OR_DEFAULT = Entries((0, 2), 1)
EXTENTS = Entries(tuple(range(1, 6)), 0)


class LaterOption(NamedTuple):
    """An option of a layer kind that came after the kind itself."""

    is_used: Callable[[nn.NeuralNetworkLayer], bool]
    version: int
    what: str


ShapeRule = Callable[..., "list[Shape]"]


@dataclass(frozen=True)
class Definition:
    """A layer kind.

    Attributes:
        shape: the rule for its output shapes.
        inputs: how many blobs it takes.
        outputs: how many blobs it makes.
        evaluated: numbers of inputs with a clear meaning, though Core ML rejects some of them.
        positive: sizes that have no default and are at least 1.
        positive_alone: sizes that are so unless a second input gives the data.
        lists: the lists of a limited length.
        features: options that came with later specification versions.
        updatable: whether a device can train it.
        gradient: whether a device can train layers before it.
    """

    shape: ShapeRule
    inputs: Count
    outputs: Count
    evaluated: Count
    positive: tuple[str, ...] = ()
    positive_alone: tuple[str, ...] = ()
    lists: Mapping[str, Entries] = field(default_factory=dict)
    features: tuple[LaterOption, ...] = ()
    updatable: bool = False
    gradient: Callable[[nn.NeuralNetworkLayer], bool] = lambda layer: False


DEFINITIONS: RoomRegistry[Definition] = RoomRegistry("layer kind", LAYERS, "definition")


def layer_kind(
    *kinds: str,
    inputs: int | Count,
    outputs: int | Count = 1,
    evaluated: Count | None = None,
    defaults: Mapping[str, Any] | None = None,
    positive: Sequence[str] = (),
    positive_alone: Sequence[str] = (),
    lists: Mapping[str, Entries] | None = None,
    features: Sequence[LaterOption] = (),
    updatable: bool = False,
    gradient: bool | Callable[[nn.NeuralNetworkLayer], bool] = False,
) -> Callable[[F], F]:
    """Register kinds of layers; see `Definition`.

    Args:
        kinds: their names in the format.
        defaults: values of fields that are unset or zero; "a.b" is field b of the message a.
    """

    def register(shape: F) -> F:
        takes, makes = _count(inputs), _count(outputs)
        through = gradient if callable(gradient) else lambda layer: bool(gradient)
        definition = Definition(
            shape,
            takes,
            makes,
            evaluated or takes,
            tuple(positive),
            tuple(positive_alone),
            dict(lists or {}),
            tuple(features),
            updatable,
            through,
        )
        for kind in kinds:
            DEFINITIONS.add(kind, definition)
            for path, value in (defaults or {}).items():
                _set_default(kind, path, value)
        return shape

    return register


def _count(number: int | Count) -> Count:
    return (number, number) if isinstance(number, int) else number


def _set_default(kind: str, path: str, value: float | Sequence[int]) -> None:
    descriptor: Any = nn.NeuralNetworkLayer.DESCRIPTOR.fields_by_name[kind].message_type
    *parents, last = path.split(".")
    for parent in parents:
        descriptor = descriptor.fields_by_name[parent].message_type
    set_default(descriptor.name, descriptor.fields_by_name[last].name, value)


def definition_of(kind: str | None) -> Definition:
    """The definition of a layer kind.

    Raises:
        SpecError: there is no such kind.
    """
    entry = DEFINITIONS.find(kind or "")
    if entry is None:
        raise SpecError(f"no layer kind is called {kind!r}")
    return entry.value


# ---- output shapes ----------------------------------------------------------------------------


class RankUnknownError(Exception):
    """The number of axes of an output depends on data, or on a custom layer's class."""


def infer(params: Params, shapes: Sequence[Shape | None]) -> list[Shape] | None:
    """The output shapes of a layer, or None if the shape of an input, or a rank, is unknown.

    Raises:
        SpecError: the kind is unknown, or the shapes do not fit the layer.
    """
    definition = definition_of(params.kind)
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        return None
    with context(f"inferring the shape of {params.kind} {params.name!r}"):
        try:
            return definition.shape(params, *known)
        except RankUnknownError:
            return None
        except TypeError as problem:
            if "positional argument" not in str(problem):
                raise
            raise SpecError(f"{len(shapes)} inputs do not fit a {params.kind} layer") from problem


@dataclass(frozen=True)
class Change:
    """The inputs of a layer at the described sizes, and at others.

    Attributes:
        before: shapes at the described sizes.
        now: shapes at the others; of the same ranks.
        constant: which inputs are the same at all sizes.
        recorded: whether the converter recorded which sizes it computed with. Then a number in the
            layer is the source's own; otherwise it may stand for a size.
    """

    before: tuple[Shape, ...]
    now: tuple[Shape, ...]
    constant: tuple[bool, ...]
    recorded: bool = False

    def varies(self, axis: int, place: int = 0) -> bool:
        """Whether an input has another extent along an axis."""
        return self.before[place][axis] != self.now[place][axis]

    def varying(self, place: int = 0) -> list[int]:
        """The axes along which an input has other extents."""
        return [axis for axis in range(len(self.now[place])) if self.varies(axis, place)]


SizeCheck = Callable[[Params, Change], str]

SIZE_CHECKS: RoomRegistry[SizeCheck] = RoomRegistry("size check", LAYERS, "definition")
size_check = SIZE_CHECKS.register
"""Registers what tells, of a layer kind that can be bound to one size, why it is: ``""`` where it
is not. The other kinds hold for every size that their shape rule takes."""


# ---- stored weights ---------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredWeight:
    """A weight that a layer stores.

    Attributes:
        field: its path in the layer's parameters.
        message: what is stored.
        shape: its shape; None if it depends on the data that flows through.
        switch: the boolean that turns it on, or why it is not used.
        used: whether it is used.
        scales: how many scales a device allows, besides one.
        channel_axis: the axis along which scales go.
        floats: the only encodings that a device allows; empty for all.
    """

    field: str
    message: nn.WeightParams
    shape: tuple[int, ...] | None
    switch: str = ""
    used: bool = True
    scales: int = 1
    channel_axis: int = 0
    floats: tuple[str, ...] = ()

    @property
    def is_flag(self) -> bool:
        """Whether `switch` is a boolean."""
        return self.switch.startswith("has")


StoredWeights = Iterator[StoredWeight]
SECOND_INPUT = "they come as an input"
FLOATS = (weights.FLOAT32, weights.FLOAT16)

WEIGHTS: RoomRegistry[Callable[[nn.NeuralNetworkLayer, Any], StoredWeights]] = RoomRegistry(
    "stored weights", LAYERS, "definition"
)
stored_weights = WEIGHTS.register
"""Registers which weights layers of a kind store, from the layer and its parameter message."""


class Biased(Protocol):
    """Parameters of a layer with the usual bias."""

    hasBias: bool

    @property
    def bias(self) -> nn.WeightParams:
        """The bias of every output channel."""


def stored_bias(params: Biased, size: int, *, stored: bool = True) -> StoredWeight:
    """The usual field `bias`, switched on by `hasBias`."""
    switch = "hasBias" if stored else SECOND_INPUT
    return StoredWeight("bias", params.bias, (size,), switch, params.hasBias and stored)


def per_channel(
    field: str,
    params: nn.BiasLayerParams | nn.ScaleLayerParams | nn.LoadConstantLayerParams,
    shape: tuple[int, ...],
    switch: str = "",
    used: bool = True,
) -> StoredWeight:
    """A field that may have a scale for each channel, the first of its three axes."""
    scales = shape[0] if len(shape) == 3 else 1
    return StoredWeight(field, getattr(params, field), shape, switch, used, scales=scales)


# ---- rules ------------------------------------------------------------------------------------

LayerRule = Callable[[nn.NeuralNetworkLayer, Any], Problems]
EVERY = ""
LAYER_RULES: dict[str, list[LayerRule]] = {}


def layer_rule(*kinds: str) -> Callable[[LayerRule], LayerRule]:
    """Register a rule about layers of some kinds, by default of all."""

    def register(rule: LayerRule) -> LayerRule:
        for kind in kinds or (EVERY,):
            LAYER_RULES.setdefault(kind, []).append(rule)
        return rule

    return register


def rules_of(kind: str) -> list[LayerRule]:
    """The rules about layers of a kind: those of every layer first."""
    definition_of(kind)
    return [*LAYER_RULES[EVERY], *LAYER_RULES.get(kind, ())]


def check_list(params: Message, field: str, allowed: Entries) -> Problems:
    """A list has an allowed length and sensible entries.

    More than 5 axes are only a warning: the limit is that of devices.
    """
    values = getattr(params, field)
    if len(values) not in allowed.lengths:
        text = f"{field} has {len(values)} entries; possible are {allowed}"
        yield warning(text) if len(values) > max(allowed.lengths) == 5 else error(text)
    if any(not value >= allowed.least for value in values):
        least = "above 0" if 0 < allowed.least < 1 else f"at least {allowed.least}"
        yield error(f"{field} is {listed(values)}; entries must be {least}")
